//! The receiving half of a connection: data packets in, payloads out, in order and on time.

use std::time::Duration;

use super::acknowledgement::{AcknowledgementWindow, Rates, RoundTrip};
use super::delivery_time::DeliveryTime;
use super::encryption::{Encryption, Undecryptable};
use super::loss::ReceiverLosses;
use super::packet::{DataHeader, HEADER_LEN, KeyFlag, PacketPosition, SequenceNumber};
use super::parameters::ConnectionParameters;
use super::receive_buffer::{Meta, Place, ReceiveBuffer};
use super::statistics::Statistics;
use crate::base::{Datagram, Instant, Packet};
use crate::media::Payload;

mod filter;
mod leg;
mod reports;
mod snapshot;

pub use self::reports::ACK_INTERVAL;

/// Packets that may wait for the first key of a peer of version 4 of the handshake: a round trip of 200 ms at 50 Mbit/s.
const SEALED_MAX: usize = 1_024;

/// What became of a data packet, as far as the connection must act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is not in the buffer: known already, too late, too early, or unreadable.
    Dropped,
    /// It is in the buffer.
    Taken,
    /// It is, and it revealed a gap wider than the buffer, and the receiver has followed the sender over it.
    Jumped {
        /// How many packets were given up.
        skipped: u64,
    },
}

/// State of the receiving half.
#[derive(Debug)]
pub struct Receiver {
    /// When the first packet in the buffer is due; far future when there is none. All that `poll_payload` looks at when idle.
    next_due: Instant,
    buffer: ReceiveBuffer<Packet>,
    losses: ReceiverLosses,
    time: DeliveryTime,
    /// One past the number delivered last.
    delivered: u64,
    /// One past the highest number that was given up: what comes late from there on is there already.
    given_up_end: u64,
    /// When the newest payload that was handed up is due.
    handed_up_due: Instant,
    /// One past the highest number that came, or that the sender has said not to send any more.
    expected: u64,
    by_timestamp: bool,
    retransmission_flag: bool,
    /// The stream has a passphrase, and the key of a peer of version 4 of the handshake is still to come: nothing is taken in plain, and what is
    /// encrypted waits for it.
    is_sealed: bool,
    /// Every byte is to arrive: nothing is given up, and what is held is due as soon as nothing is missing before it.
    is_reliable: bool,
    /// What is held is due at no time of its own: for either of these reasons.
    is_untimed: bool,
    /// Data packets since the last full acknowledgement, and light ones sent meanwhile.
    packets_since_ack: u32,
    light_acks: u32,
    acknowledged: u64,
    acknowledged_at: Instant,
    /// What the peer is known to know we have.
    confirmed: u64,
    was_full: bool,
    nak_at: Instant,
    /// One past what the loss report under way has named: what does not fit into one packet goes into the next.
    reported_end: u64,
    /// Where that report ends.
    report_until: u64,
    /// Whether a message of several packets has ever come (draft-sharabayko-srt §4.2.1): live senders send none.
    has_parts: bool,
    /// One past the last packet of the message that is being handed up.
    message_end: u64,
    /// Whether the message that the next packet may belong to is being given up.
    gives_up_message: bool,
    window: AcknowledgementWindow,
    rates: Rates,
    /// The number that would confirm a jump beyond the buffer.
    jump_candidate: Option<u64>,
    /// The packet filter, when there is one.
    filter: Option<Box<filter::Filter>>,
}

impl Receiver {
    /// The receiving half of a connection that begins `now`.
    pub fn new(now: Instant, parameters: &ConnectionParameters, buffer_packets: usize, reorder_tolerance: u16) -> Self {
        let first = parameters.peer_initial_sequence.unwrap_or(parameters.initial_sequence).get();
        let buffer = ReceiveBuffer::new(buffer_packets, first);
        let base = parameters.peer_time_base;
        let latency = Duration::from_millis(u64::from(parameters.receive_latency_ms));
        // Without the flag a late packet looks like one that was sent again, so that nothing is known of the order of the path.
        let reorder_tolerance = if parameters.features.retransmission_flag { reorder_tolerance } else { 0 };
        let is_sealed = parameters.version4.is_some_and(|terms| terms.has_passphrase);
        let is_reliable = parameters.mode.is_reliable();
        let rates = Rates::new(now, parameters.payload_size_max() as u32);
        Self {
            next_due: Instant::FAR_FUTURE,
            losses: filter::losses(parameters, buffer.capacity(), reorder_tolerance),
            buffer,
            time: DeliveryTime::new(base.timestamp_us, base.arrival, latency),
            delivered: first,
            given_up_end: first,
            handed_up_due: Instant::ZERO,
            expected: first,
            by_timestamp: parameters.features.receive_by_timestamp,
            retransmission_flag: parameters.features.retransmission_flag,
            is_sealed,
            is_reliable,
            is_untimed: is_sealed || is_reliable,
            packets_since_ack: 0,
            light_acks: 0,
            acknowledged: first,
            acknowledged_at: Instant::ZERO,
            confirmed: first,
            was_full: false,
            nak_at: Instant::FAR_FUTURE,
            reported_end: first,
            report_until: first,
            has_parts: false,
            message_end: first,
            gives_up_message: false,
            window: AcknowledgementWindow::default(),
            rates: if is_reliable { rates.of_file() } else { rates },
            jump_candidate: None,
            filter: filter::Filter::new(parameters, reorder_tolerance),
        }
    }

    /// Bytes of payloads held to be delivered.
    pub fn held_bytes(&self) -> u64 {
        self.buffer.bytes()
    }

    /// Packets held to be delivered.
    #[inline]
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// When the next payload is due; far future when none is held.
    #[inline]
    pub fn next_due(&self) -> Instant {
        self.next_due
    }

    /// Whether this number is beyond all that came.
    pub fn is_newest(&self, sequence: SequenceNumber) -> bool {
        sequence.distance(SequenceNumber::new(self.expected)) >= 0
    }

    /// Whether a packet of this number would be taken into the buffer.
    pub fn is_awaited(&self, sequence: SequenceNumber) -> bool {
        matches!(self.buffer.place(sequence.distance(SequenceNumber::new(self.buffer.head()))), Place::Free(_))
    }

    /// Whether a time stamp is one that the peer's clock can show on a packet that comes at `arrival`, first sent as long before
    /// as it is of use, give or take a second. That of a peer without TSBPD can be any.
    pub fn is_of_now(&self, timestamp_us: u32, arrival: Instant) -> bool {
        let expected_us = self.time.expected(arrival);
        let within_us = self.time.latency().as_micros() as u64 + 1_000_000;
        !self.by_timestamp
            || self.time.unwrap(timestamp_us, arrival).is_some_and(|at_us| at_us.abs_diff(expected_us) <= within_us)
    }

    /// A peer of version 4 of the handshake has said which version of SRT it has.
    pub fn peer_is(&mut self, peer_version: u32) {
        self.losses.peer_is(peer_version);
    }

    /// A peer of version 4 of the handshake has said how it sends. What is held had no time of its own until now.
    pub fn introduced(&mut self, parameters: &ConnectionParameters, latency: Duration) {
        self.by_timestamp = parameters.features.receive_by_timestamp;
        self.retransmission_flag = parameters.features.retransmission_flag;
        self.peer_is(parameters.peer_version);
        let base = parameters.peer_time_base;
        self.time = DeliveryTime::new(base.timestamp_us, base.arrival, latency);
        let time = &self.time;
        self.buffer.restamp(|meta| meta.timestamp_us = time.expected(meta.arrival));
        self.schedule();
    }

    /// No first key is awaited any more: what is plain is taken, and what is not is dropped.
    pub fn open(&mut self) {
        self.is_sealed = false;
        self.is_untimed = false;
        self.schedule();
    }

    /// Whether a first key is still awaited.
    #[inline]
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// The first key is there: what has waited for it is decrypted.
    pub fn unseal(&mut self, encryption: &Encryption, key: KeyFlag, statistics: &mut Statistics) {
        self.is_sealed = false;
        self.is_untimed = false;
        if key == KeyFlag::Both {
            // A key was just being changed, and nothing says which of the two a packet is under.
            self.clear_sealed(statistics);
        }
        self.buffer.for_each(|sequence, packet| {
            let header = DataHeader { sequence: SequenceNumber::new(sequence), key, ..DataHeader::default() };
            if !decrypt(&header, packet, Some(encryption), true, statistics) {
                // It has its place and its acknowledgement: an empty payload shows as damage.
                packet.truncate(0);
            }
        });
        self.schedule();
    }

    /// Lets go of what has waited for a first key that will not come.
    pub fn clear_sealed(&mut self, statistics: &mut Statistics) {
        self.buffer.for_each(|_, packet| count_undecrypted(packet, statistics));
        self.clear();
    }

    /// Takes in a data packet whose header has been read: judged against the window first, then decrypted, and only then
    /// given a place, so that a packet that cannot be read takes nobody's.
    #[inline]
    pub fn data(
        &mut self,
        header: &DataHeader,
        datagram: Datagram,
        encryption: Option<&Encryption>,
        round_trip: &RoundTrip,
        statistics: &mut Statistics,
    ) -> Received {
        if self.is_filter_control(header) {
            self.filter_control(header, datagram.packet, statistics);
            return Received::Dropped;
        }
        let bytes = (datagram.packet.len() - HEADER_LEN) as u64;
        statistics.pkt_recv += 1;
        statistics.byte_recv += bytes;
        self.packets_since_ack += 1;
        let retransmitted = self.retransmission_flag && header.retransmitted;
        statistics.pkt_rcv_retrans += u64::from(retransmitted);

        let offset = header.sequence.distance(SequenceNumber::new(self.buffer.head()));
        let (sequence, jumped) = match self.buffer.place(offset) {
            Place::Free(sequence) => (sequence, 0),
            Place::Duplicate => {
                statistics.pkt_rcv_duplicate += 1;
                return Received::Dropped;
            }
            Place::Belated => {
                self.filter_belated(header, offset, &datagram.packet, statistics);
                if self.was_handed_up_early(header, offset, datagram.arrival) {
                    statistics.pkt_rcv_duplicate += 1;
                } else {
                    self.belated(header, datagram.arrival, statistics);
                }
                return Received::Dropped;
            }
            Place::Beyond(sequence) => match self.beyond(sequence, retransmitted, datagram.arrival, statistics) {
                Some(skipped) => (sequence, skipped),
                None => return Received::Dropped,
            },
        };

        let Datagram { mut packet, arrival, path, .. } = datagram;
        packet.advance(HEADER_LEN);
        if let Some(filter) = &mut self.filter {
            filter.keep(&packet, encryption.is_some());
        }
        let is_sealed = self.is_sealed && header.key != KeyFlag::Plain && self.buffer.len() < SEALED_MAX;
        if !is_sealed && !decrypt(header, &mut packet, encryption, self.is_sealed, statistics) {
            return Received::Dropped;
        }
        if jumped > 0 {
            self.follow_jump(sequence, jumped, statistics);
        }
        if let Some(filter) = &mut self.filter {
            filter.data(sequence, header, &packet, encryption.is_some(), &mut self.losses, statistics);
        }

        let mut recovered = false;
        if sequence >= self.expected {
            if sequence > self.expected {
                self.gap(sequence, arrival, round_trip, statistics);
            }
            self.expected = sequence + 1;
            if !retransmitted {
                self.rates.packet(sequence, arrival, bytes as u32);
            }
        } else if self.losses.arrived(sequence) {
            recovered = retransmitted || !self.retransmission_flag;
            if recovered {
                statistics.pkt_rcv_recovered += 1;
            } else {
                statistics.pkt_rcv_reordered += 1;
                let distance = self.expected - sequence;
                statistics.pkt_reorder_distance = statistics.pkt_reorder_distance.max(distance);
                self.losses.reordered(distance);
            }
        }
        self.losses.packet_passed();

        let timestamp_us = self.timestamp(header, arrival, statistics);
        let position = header.position;
        self.has_parts |= position != PacketPosition::Only;
        let len = packet.len() as u16;
        self.insert(sequence, Meta { timestamp_us, arrival, recovered, path, position, len }, packet, statistics);
        if jumped > 0 { Received::Jumped { skipped: jumped } } else { Received::Taken }
    }

    #[inline]
    fn insert(&mut self, sequence: u64, meta: Meta, payload: Packet, statistics: &mut Statistics) {
        statistics.pkt_recv_unique += 1;
        statistics.byte_recv_unique += payload.len() as u64;
        self.buffer.insert(sequence, meta, payload);
        if self.buffer.first().is_some_and(|(first, _)| first == sequence) {
            self.schedule();
        }
    }

    /// A peer without TSBPD, or with a time stamp that is not to be believed, is delivered by arrival instead.
    #[inline]
    fn timestamp(&self, header: &DataHeader, arrival: Instant, statistics: &mut Statistics) -> i64 {
        if !self.by_timestamp {
            return self.time.expected(arrival);
        }
        self.time.unwrap(header.timestamp_us, arrival).unwrap_or_else(|| {
            statistics.timestamps_disbelieved += 1;
            self.time.expected(arrival)
        })
    }

    /// Whether a number before the head is that of a packet which went up before its time, which has not come yet; without TSBPD
    /// it has none.
    fn was_handed_up_early(&self, header: &DataHeader, offset: i64, arrival: Instant) -> bool {
        let is_delivered =
            self.buffer.head().checked_add_signed(offset).is_some_and(|number| number >= self.given_up_end);
        let at = self.by_timestamp.then(|| self.time.unwrap(header.timestamp_us, arrival)).flatten();
        is_delivered && at.is_none_or(|at| arrival < self.time.due(at))
    }

    fn belated(&self, header: &DataHeader, arrival: Instant, statistics: &mut Statistics) {
        statistics.pkt_rcv_belated += 1;
        let late_ms = self
            .by_timestamp
            .then(|| self.time.unwrap(header.timestamp_us, arrival))
            .flatten()
            .map(|at| arrival.saturating_since(self.time.due(at)).as_micros() as f64 / 1_000.0);
        if let Some(late_ms) = late_ms {
            let mean = &mut statistics.pkt_rcv_avg_belated_time;
            *mean += (late_ms - *mean) * 0.2;
        }
    }

    fn gap(&mut self, sequence: u64, arrival: Instant, round_trip: &RoundTrip, statistics: &mut Statistics) {
        statistics.pkt_rcv_loss += sequence - self.expected;
        if self.losses.is_empty() {
            self.nak_at = arrival + round_trip.nak_interval();
        }
        self.losses.gap(self.expected, sequence);
    }

    /// A packet too far ahead for the buffer. While packets are held, their delivery will make room within the latency, and
    /// this one is asked for again. With an empty buffer nothing would ever move the window (libsrt breaks the connection
    /// here): two packets in sequence confirm that the sender really is there, and the receiver follows. One stray or forged
    /// packet does nothing. Returns how many packets the jump gives up.
    fn beyond(
        &mut self,
        sequence: u64,
        retransmitted: bool,
        arrival: Instant,
        statistics: &mut Statistics,
    ) -> Option<u64> {
        // What was handed up early counts as held until it is due.
        if self.buffer.is_empty() && arrival >= self.handed_up_due && !retransmitted && !self.is_reliable {
            if self.jump_candidate.take() == Some(sequence) {
                return Some(sequence - self.buffer.head());
            }
            self.jump_candidate = Some(sequence + 1);
        }
        statistics.pkt_rcv_no_room += 1;
        None
    }

    fn follow_jump(&mut self, sequence: u64, skipped: u64, statistics: &mut Statistics) {
        self.losses.forget(self.buffer.head(), self.expected);
        statistics.pkt_rcv_loss += sequence - self.expected;
        statistics.pkt_rcv_drop += skipped;
        statistics.sequence_jumps += 1;
        self.buffer.skip_to(sequence);
        self.given_up_end = sequence;
        self.expected = sequence;
        if let Some(filter) = &mut self.filter {
            filter.restart(sequence);
        }
    }

    /// The next payload that is due.
    #[inline]
    pub fn poll_payload(&mut self, now: Instant, statistics: &mut Statistics) -> Option<Payload> {
        if now < self.next_due {
            if self.is_reliable { self.take_in_order(statistics) } else { None }
        } else if self.has_parts {
            self.take_part(now, statistics)
        } else {
            self.take(statistics)
        }
    }

    /// The next payload, due or not, if none is missing before it; one behind a gap only when it is due, since what is missing may
    /// still come.
    #[inline]
    pub fn poll_early(&mut self, now: Instant, statistics: &mut Statistics) -> Option<Payload> {
        let is_next = self.buffer.first().is_some_and(|(first, _)| first == self.buffer.head());
        if !is_next || self.is_untimed {
            self.poll_payload(now, statistics)
        } else if self.has_parts {
            self.take_part(now, statistics)
        } else {
            self.take(statistics)
        }
    }

    /// The first packet there is, if none before it can still come. Those that the sender will not send any more are told as lost. A long
    /// message goes up in parts, as nothing of it can be missing in the end, so that none is too long for the buffer.
    #[inline(never)]
    fn take_in_order(&mut self, statistics: &mut Statistics) -> Option<Payload> {
        let (first, meta) = self.buffer.first()?;
        if self.losses.next_run(self.buffer.head(), first).is_some() {
            return None;
        }
        self.next_due = meta.arrival;
        self.take(statistics)
    }

    /// Nothing more comes: what is missing, and what is held behind it, is given up.
    pub fn end_in_order(&mut self, statistics: &mut Statistics) {
        let head = self.buffer.head();
        let next = self.buffer.first().map_or(self.expected, |(first, _)| first);
        let is_stuck = self.losses.next_run(head, next).is_some() || (self.buffer.is_empty() && head < self.expected);
        if self.is_reliable && is_stuck {
            statistics.pkt_rcv_drop += self.expected - head;
            self.clear();
            self.buffer.skip_to(self.expected);
        }
    }

    /// The first packet, if it is a message or belongs to one that is here as a whole. One that is due and has a hole is
    /// given up with all its packets. Messages stay in order among each other, whatever their flags allow.
    #[cold]
    fn take_part(&mut self, now: Instant, statistics: &mut Statistics) -> Option<Payload> {
        loop {
            let (sequence, meta) = self.buffer.first()?;
            let is_next = sequence == self.buffer.head();
            let end = match meta.position {
                PacketPosition::Only => Some(sequence + 1),
                PacketPosition::First => self.buffer.message_end(sequence),
                PacketPosition::Middle | PacketPosition::Last => {
                    (is_next && sequence < self.message_end).then_some(self.message_end)
                }
            };
            let is_due = now >= self.next_due;
            if let Some(end) = end.filter(|_| is_next || is_due) {
                self.message_end = end;
                self.gives_up_message = false;
                return self.take(statistics);
            }
            if !is_due {
                return None;
            }
            let position = meta.position;
            statistics.msg_rcv_drop += u64::from(position == PacketPosition::First || !self.gives_up_message);
            self.gives_up_message = position != PacketPosition::Last;
            self.give_up_part(statistics);
        }
    }

    /// Gives up the first packet there is, and what is missing before it.
    fn give_up_part(&mut self, statistics: &mut Statistics) {
        let head = self.buffer.head();
        let Some(taken) = self.buffer.take_first() else { return };
        if taken.skipped > 0 {
            self.losses.forget(head, taken.sequence);
        }
        statistics.pkt_rcv_drop += taken.skipped + 1;
        self.given_up_end = taken.sequence + 1;
        self.schedule();
    }

    #[inline]
    fn take(&mut self, statistics: &mut Statistics) -> Option<Payload> {
        let head = self.buffer.head();
        let taken = self.buffer.take_first()?;
        if taken.skipped > 0 {
            statistics.pkt_rcv_drop += taken.skipped;
            self.losses.forget(head, taken.sequence);
            self.given_up_end = taken.sequence;
        }
        let lost_before = taken.sequence - self.delivered;
        self.delivered = taken.sequence + 1;
        statistics.pkt_delivered += 1;
        let due = self.next_due;
        self.handed_up_due = due;
        self.schedule();
        // Whether it is due now or in the next turn, its memory comes while this one is worked on.
        if let Some(next) = self.buffer.first_item() {
            next.prefetch();
        }
        Some(Payload {
            packet: taken.item,
            arrival: taken.meta.arrival,
            due,
            sequence: taken.sequence,
            lost_before: u32::try_from(lost_before).unwrap_or(u32::MAX),
            recovered: taken.meta.recovered,
            path_mask: 1_u8.checked_shl(u32::from(taken.meta.path)).unwrap_or(0),
            ends_message: matches!(taken.meta.position, PacketPosition::Only | PacketPosition::Last),
        })
    }

    #[inline]
    fn schedule(&mut self) {
        self.next_due = match self.buffer.first() {
            Some((_, meta)) if !self.is_untimed => self.time.due(meta.timestamp_us),
            _ => Instant::FAR_FUTURE,
        };
    }

    /// Lets go of all that is held.
    pub fn clear(&mut self) {
        while self.buffer.take_first().is_some() {}
        self.clear_filter();
        self.losses.forget(self.buffer.head().min(self.expected), self.expected);
        self.next_due = Instant::FAR_FUTURE;
    }

    /// The sender will not send `first..=last` any more: nothing of it is asked for again. What is held or still comes is
    /// delivered all the same. `false` when the range is not one that this receiver can be waiting for.
    pub fn drop_request(&mut self, first: SequenceNumber, last: SequenceNumber) -> bool {
        let head = self.buffer.head();
        let reference = SequenceNumber::new(head);
        let (first, last) = (first.distance(reference), last.distance(reference));
        if last < 0 {
            return true;
        }
        if last >= self.buffer.capacity() as i64 {
            return false;
        }
        let (first, end) = (head + first.max(0) as u64, head + last as u64 + 1);
        if first > self.expected {
            return false;
        }
        self.losses.forget(first, end.min(self.expected));
        self.expected = self.expected.max(end);
        true
    }

    /// Free slots after what is acknowledged.
    #[inline]
    pub fn free(&self) -> usize {
        self.buffer.free()
    }

    /// Brings the gauges up to date.
    pub fn gauge(&self, now: Instant, statistics: &mut Statistics) {
        let held_due = self.buffer.last().map_or(Instant::ZERO, |meta| self.time.due(meta.timestamp_us));
        let newest_due = held_due.max(self.handed_up_due);
        statistics.pkt_rcv_buf = self.buffer.len() as u64;
        statistics.byte_rcv_buf = self.buffer.bytes();
        statistics.ms_rcv_buf = newest_due.saturating_since(now).as_millis() as u64;
        statistics.pkt_avail_rcv_buf = self.buffer.free() as u64;
        statistics.pkt_rcv_missing = self.losses.len() as u64;
        statistics.pkt_reorder_tolerance = u64::from(self.losses.reorder_tolerance());
        statistics.us_drift = self.time.drift_us();
    }
}

/// Decrypts in place; counts and refuses what cannot be read, and what is plain where it must not be.
#[inline]
fn decrypt(
    header: &DataHeader,
    packet: &mut Packet,
    encryption: Option<&Encryption>,
    refuses_plain: bool,
    statistics: &mut Statistics,
) -> bool {
    let Some(encryption) = encryption else {
        if header.key == KeyFlag::Plain && !refuses_plain {
            return true;
        }
        statistics.pkt_rcv_unencrypted += u64::from(header.key == KeyFlag::Plain);
        count_undecrypted(packet, statistics);
        return false;
    };
    let Some(bytes) = packet.bytes_mut() else {
        statistics.pkt_rcv_not_writable += 1;
        count_undecrypted(packet, statistics);
        return false;
    };
    match encryption.decrypt(header, bytes) {
        Ok(length) => {
            packet.truncate(length);
            true
        }
        Err(reason) => {
            statistics.pkt_rcv_unencrypted += u64::from(reason == Undecryptable::Plain);
            statistics.pkt_rcv_not_authentic += u64::from(reason == Undecryptable::NotAuthentic);
            count_undecrypted(packet, statistics);
            false
        }
    }
}

#[cold]
fn count_undecrypted(packet: &Packet, statistics: &mut Statistics) {
    statistics.pkt_rcv_undecrypt += 1;
    statistics.byte_rcv_undecrypt += packet.len() as u64;
}
