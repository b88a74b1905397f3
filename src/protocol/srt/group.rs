//! A bonding group as its receiver has it: several connections, the legs, that bring one stream.
//!
//! All legs carry the sender's sequence numbers and time stamps (libsrt: `docs/features/bonding-intro.md`, `srtcore/group.cpp`). A
//! broadcast group sends every packet over every leg. A backup group sends over one; the others are idle, with a keep-alive each second,
//! until that one is in doubt: then another begins with what was not acknowledged yet, and for a while both carry everything.
//!
//! ```text
//!             ┌ leg 0: a whole connection ┐                       which leg has what is awaited?
//!  receive ───┤ leg 1: its own keys, ACK, ├──▶ poll_payload: ───▶ taken there; what others hold or miss
//!             └ leg 2: NAK, round trip    ┘                       of it, they let go of
//! ```
//!
//! The legs are merged behind their receive buffers, as libsrt does it, not in one buffer that all of them fill:
//!
//! - A connection of no group is what it was: not a branch, not a pointer more. It alone has to be fast without reserve.
//! - What a leg acknowledges has to be kept per leg in any case. libsrt breaks a connection that acknowledges what was not sent over it, so
//!   a leg that lags behind, or is idle, must not answer with how far the group has come.
//! - Keys are per leg too; a packet is judged and decrypted by its leg before anybody else hears of it, and a leg whose packets cannot be
//!   read disturbs no other.
//!
//! It costs a group that each copy of a packet is decrypted, and a scan of its few legs per packet. What another leg has handed up is let go
//! of at once, so that a packet is held more than once only while one before it is missing everywhere.
//!
//! A leg does not ask again for what another has brought, be it handed up or held; libsrt's receiver asks for it at each leg. What is
//! missing at all legs is asked for at each that has come past it. A packet that one leg lost and another brought is no loss of the
//! stream: it is counted with the leg, as [`LegStatistics::pkt_rcv_elsewhere`].
//!
//! There is one time: that of the first leg, which every later one takes with its base, latency and drift ([`DeliveryTime::follow`]). A leg
//! begins at the number that the group awaits then, whatever its handshake says, for the sender's sequence has run on since.
//!
//! [`DeliveryTime::follow`]: super::delivery_time::DeliveryTime::follow

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::connection::{self, CloseReason, Connection, Limits};
use super::membership::{GroupType, Membership};
use super::packet::{self, DataHeader, Header};
use super::parameters::ConnectionParameters;
use super::receiver::Receiver;
use super::statistics::Statistics;
use crate::base::{Datagram, Instant, Transmit};
use crate::media::Payload;

mod snapshot;
#[cfg(test)]
mod tests;

/// Legs that a group may have: as many as a payload's mask of paths has bits.
pub const LEGS_MAX: usize = 8;

/// Without data for so long a leg counts as idle; the keep-alive of an idle one comes as often.
const QUIET: Duration = Duration::from_secs(1);

/// What happened, for whoever owns the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A leg's connection says.
    Leg {
        /// Which leg.
        path: u8,
        /// What it says: neither that it is connected nor that it is closed.
        event: connection::Event,
    },
    /// A leg has ended and all that it held has been handed up. Others may be left.
    LegClosed {
        /// Which leg it was.
        path: u8,
        /// Our socket id of it.
        socket_id: u32,
        /// Where its peer was.
        peer: SocketAddr,
        /// Why it ended.
        reason: CloseReason,
    },
    /// The last leg has ended, for this reason; always the last event.
    Closed(CloseReason),
}

/// What is counted of a leg besides its connection's [`Statistics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegStatistics {
    /// Packets lost on this leg that another leg brought.
    pub pkt_rcv_elsewhere: u64,
    /// Packets with numbers too far from where the stream is; none of them was taken in.
    pub pkt_rcv_discrepant: u64,
}

/// One connection of a group.
#[derive(Debug)]
pub struct Leg {
    path: u8,
    weight: u16,
    connection: Connection,
    /// When data last came by it.
    data_at: Option<Instant>,
    /// The number it began with, or went on with after it was idle: what lies before was not sent over it.
    begins: u64,
    statistics: LegStatistics,
}

impl Leg {
    /// Which bit of [`Payload::path_mask`] is its.
    pub fn path(&self) -> u8 {
        self.path
    }

    /// How much the sender prefers it, in a backup group.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// Its connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What is counted of it besides.
    pub fn statistics(&self) -> &LegStatistics {
        &self.statistics
    }

    /// Whether no data comes by it, or not any more.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.data_at.is_none_or(|at| now.saturating_since(at) >= QUIET)
    }

    /// A packet has come: the leg lets go of all that has been handed up. Returns how many of its packets had been missing.
    fn settle(&mut self, next: u64, due: Instant, sequence: u64, arrival: Instant) -> u64 {
        let (receiver, statistics) = self.connection.receiver_mut();
        let is_past = sequence < next && receiver.first_held() == Some(sequence);
        statistics.pkt_rcv_belated += u64::from(is_past && receiver.next_due() < arrival);
        receiver.settle(next, due, false)
    }

    /// The next packet of this leg is further ahead than its buffer is wide, since others have brought what lies between: it goes on from there,
    /// or from where the group is.
    fn catch_up(&mut self, next: u64, sequence: u64, begins: bool) {
        let (receiver, statistics) = self.connection.receiver_mut();
        let expected = receiver.expected();
        if receiver.held() == 0 && expected < next && sequence >= receiver.head() + receiver.span() {
            let target = next.min(sequence);
            if !begins {
                statistics.pkt_rcv_loss += target - expected;
                self.statistics.pkt_rcv_elsewhere += target - expected;
            }
            receiver.catch_up(target);
        }
    }
}

/// A group with its legs.
#[derive(Debug)]
pub struct Group {
    legs: Vec<Leg>,
    /// The number to be handed up next.
    next: u64,
    /// When the payload handed up last was due.
    due: Instant,
    /// A data packet has come.
    has_begun: bool,
    /// The leg that drift is taken from.
    leader: u8,
    group_id: u32,
    peer: Membership,
    latency_ms: u16,
    pkt_delivered: u64,
    /// Packets that no leg brought in time.
    pkt_rcv_drop: u64,
    /// What the legs had counted that have left.
    departed: Statistics,
    departed_elsewhere: u64,
    events: VecDeque<Event>,
}

impl Group {
    /// A group of one leg; `peer` is what its caller says of its own group, `group_id` the id that the caller is told of ours.
    pub fn new(
        now: Instant,
        group_id: u32,
        peer: Membership,
        parameters: ConnectionParameters,
        limits: Limits,
    ) -> Self {
        let next = parameters.initial_sequence.get();
        let mut group = Self {
            legs: Vec::with_capacity(LEGS_MAX),
            next,
            due: Instant::ZERO,
            has_begun: false,
            leader: 0,
            group_id,
            peer,
            latency_ms: parameters.receive_latency_ms,
            pkt_delivered: 0,
            pkt_rcv_drop: 0,
            departed: Statistics::default(),
            departed_elsewhere: 0,
            events: VecDeque::new(),
        };
        group.push(0, peer.weight, Connection::new(now, parameters, limits));
        group
    }

    /// Takes another leg in, of whose path it then tells: in place of a silent one if there are as many as may be. To be called when
    /// [`has_room`](Self::has_room) has said that there is some.
    ///
    /// # Panics
    /// If there is none.
    pub fn join(&mut self, now: Instant, weight: u16, parameters: ConnectionParameters, limits: Limits) -> u8 {
        if self.legs.len() == LEGS_MAX {
            let silent = self.displaced(now).expect("one makes room for another leg");
            let closed = self.remove(silent, CloseReason::TakenOver);
            self.events.push_back(closed);
        }
        let path = self.free_path().expect("there is room for another leg");
        let mut connection = Connection::new(now, parameters, limits);
        if let Some(leader) = self.legs.iter().find(|leg| leg.path == self.leader) {
            connection.receiver_mut().0.join(self.next, leader.connection.receiver().time());
        }
        self.push(path, weight, connection);
        path
    }

    fn push(&mut self, path: u8, weight: u16, connection: Connection) {
        let statistics = LegStatistics::default();
        self.legs.push(Leg { path, weight, connection, data_at: None, begins: self.next, statistics });
    }

    /// Whether another leg can be taken in. Nothing is given up for it before it [joins](Self::join): it may still be refused.
    pub fn has_room(&self, now: Instant) -> bool {
        self.legs.len() < LEGS_MAX || self.displaced(now).is_some()
    }

    /// The leg that has been silent for longest, which is one that was cut off and comes again; `None` when all are well.
    fn displaced(&self, now: Instant) -> Option<usize> {
        let silence = |index: usize| now.saturating_since(self.legs[index].connection.heard_at());
        // A keep-alive may come late.
        (0..self.legs.len()).max_by_key(|&index| silence(index)).filter(|&index| silence(index) >= 2 * QUIET)
    }

    fn free_path(&self) -> Option<u8> {
        (0..LEGS_MAX as u8).find(|&path| self.legs.iter().all(|leg| leg.path != path))
    }

    /// Our id of it: bit 30 is set, and each leg's caller is told the same.
    pub fn group_id(&self) -> u32 {
        self.group_id
    }

    /// What the caller of the first leg said of its group.
    pub fn peer(&self) -> Membership {
        self.peer
    }

    /// The latency of all legs, in ms.
    pub fn latency_ms(&self) -> u16 {
        self.latency_ms
    }

    /// The legs, those included that have ended and hold something.
    pub fn legs(&self) -> &[Leg] {
        &self.legs
    }

    /// Whether this is where the leg of a socket id has its peer.
    #[inline]
    pub fn is_peer(&self, socket_id: u32, peer: SocketAddr) -> bool {
        self.legs.iter().map(|leg| leg.connection.parameters()).any(|it| it.socket_id == socket_id && it.peer == peer)
    }

    /// Whether the last leg has ended.
    pub fn is_closed(&self) -> bool {
        self.legs.is_empty()
    }

    /// Packets held by all legs.
    #[inline]
    pub fn held_packets(&self) -> usize {
        self.legs.iter().map(|leg| leg.connection.held_packets()).sum()
    }

    /// Packets lost on one leg that another brought.
    pub fn pkt_rcv_elsewhere(&self) -> u64 {
        self.departed_elsewhere + self.legs.iter().map(|leg| leg.statistics.pkt_rcv_elsewhere).sum::<u64>()
    }

    /// What has been counted of the group as a whole: what came is the sum of all legs, past ones included; handed up and given up is
    /// what the stream was given and has lost; a gauge is that of the leg which fares best, and the tolerance of reordering the largest.
    pub fn statistics(&self) -> Statistics {
        let mut total = self.departed;
        for leg in &self.legs {
            add(&mut total, leg.connection.statistics());
        }
        let running = || self.legs.iter().filter(|leg| leg.connection.is_running());
        let all = || running().map(|leg| leg.connection.statistics());
        // The round trip of a leg that has answered nothing yet is a guess.
        let measured = all().filter(|it| it.pkt_recv_ackack > 0).map(|it| it.ms_rtt);
        total.ms_rtt = measured.min_by(f64::total_cmp).or(all().next().map(|it| it.ms_rtt)).unwrap_or(0.0);
        total.ms_rcv_buf = all().map(|it| it.ms_rcv_buf).max().unwrap_or(0);
        total.mbps_recv_rate = all().map(|it| it.mbps_recv_rate).fold(0.0, f64::max);
        total.pkt_rcv_buf = self.held_packets() as u64;
        total.byte_rcv_buf = self.legs.iter().map(|leg| leg.connection.receiver().held_bytes()).sum();
        total.pkt_reorder_tolerance = all().map(|it| it.pkt_reorder_tolerance).max().unwrap_or(0);
        total.ms_rcv_tsb_pd_delay = u64::from(self.latency_ms);
        total.us_drift =
            self.legs.iter().find(|leg| leg.path == self.leader).map_or(0, |leg| leg.connection.statistics().us_drift);
        total.pkt_delivered = self.pkt_delivered;
        total.pkt_rcv_drop = self.pkt_rcv_drop;
        total
    }

    /// Takes in a datagram of one of the legs.
    #[inline]
    pub fn receive(&mut self, now: Instant, mut datagram: Datagram) {
        let Some(socket_id) = packet::destination(&datagram.packet) else { return };
        let Some(index) = self.legs.iter().position(|leg| leg.connection.parameters().socket_id == socket_id) else {
            return;
        };
        datagram.path = self.legs[index].path;
        match packet::parse(&datagram.packet) {
            Ok(Header::Data(header)) => self.receive_data(now, index, &header, datagram),
            _ => {
                self.legs[index].connection.receive(now, datagram);
                self.share_time(index);
            }
        }
    }

    fn receive_data(&mut self, now: Instant, index: usize, header: &DataHeader, datagram: Datagram) {
        // What lies before all numbers is as belated for the leg.
        let sequence = Receiver::unwrap_near(header.sequence, self.next).unwrap_or(0);
        if self.is_of_another_stream(now, index, sequence) {
            // libsrt breaks such a leg; here it may come to its senses.
            self.legs[index].statistics.pkt_rcv_discrepant += 1;
            return;
        }
        let has_begun = self.has_begun;
        let is_broadcast = self.peer.group_type == GroupType::Broadcast;
        let arrival = datagram.arrival;
        let leg = &mut self.legs[index];
        // Of a leg that is new, or was idle, nobody can say that what came before was lost on it.
        let begins = leg.data_at.is_none() || !is_broadcast && leg.is_idle(now);
        if datagram.peer == leg.connection.parameters().peer {
            if !has_begun {
                leg.connection.receiver_mut().0.anchor(header.timestamp_us, arrival);
                // Also for those that joined before anything came.
                self.set_leader(index);
            }
            self.legs[index].catch_up(self.next, sequence, begins);
        }
        let leg = &mut self.legs[index];
        let before = (leg.connection.receiver().expected(), leg.connection.receiver().holds(sequence));
        let received = leg.connection.statistics().pkt_recv;
        leg.connection.receive(now, datagram);
        if leg.connection.statistics().pkt_recv == received {
            return;
        }
        leg.data_at = Some(now);
        let (expected, was_held) = before;
        let is_taken = !was_held && leg.connection.receiver().holds(sequence);
        // After a jump nothing of what lies before is missing.
        let gap = expected.max(leg.connection.receiver().head())..sequence;
        let missing = leg.settle(self.next, self.due, sequence, arrival);
        leg.statistics.pkt_rcv_elsewhere += if begins { 0 } else { missing };
        if is_taken {
            self.has_begun = true;
            self.taken(index, sequence, gap, begins);
        }
        self.take_lead(now, index);
    }

    /// Whether a number is too far ahead to be of the stream that other legs bring; while none does, the leg itself decides.
    fn is_of_another_stream(&self, now: Instant, index: usize, sequence: u64) -> bool {
        sequence >= self.next + self.legs[index].connection.receiver().span()
            && self.legs.iter().enumerate().any(|(other, leg)| other != index && !leg.is_idle(now))
    }

    /// A leg has taken a packet in, and found those of `gap` missing before it: what that means for it and for the others.
    fn taken(&mut self, index: usize, sequence: u64, gap: Range<u64>, begins: bool) {
        let next = self.next;
        let leg = &mut self.legs[index];
        if begins {
            leg.begins = sequence;
            let (_, statistics) = leg.connection.receiver_mut();
            statistics.pkt_rcv_loss = statistics.pkt_rcv_loss.saturating_sub(gap.end.saturating_sub(gap.start));
        }
        if gap.end > gap.start.max(next) {
            self.ask_only_for_what_nobody_has(index, gap.start.max(next), gap.end, begins);
        }
        for (_, other) in self.legs.iter_mut().enumerate().filter(|(other, _)| *other != index) {
            let was_missing = other.connection.receiver_mut().0.came_elsewhere(sequence);
            other.statistics.pkt_rcv_elsewhere += u64::from(was_missing && sequence >= other.begins);
        }
    }

    /// A leg has found `first..end` missing: of that, what others hold is not.
    fn ask_only_for_what_nobody_has(&mut self, index: usize, first: u64, end: u64, begins: bool) {
        for other in 0..self.legs.len() {
            if other == index || self.legs[other].connection.held_packets() == 0 {
                continue;
            }
            for sequence in first..end {
                if self.legs[other].connection.receiver().holds(sequence) {
                    let leg = &mut self.legs[index];
                    let was_missing = leg.connection.receiver_mut().0.came_elsewhere(sequence);
                    leg.statistics.pkt_rcv_elsewhere += u64::from(was_missing && !begins);
                }
            }
        }
    }

    /// Drift is taken from a leg that data comes by.
    fn take_lead(&mut self, now: Instant, index: usize) {
        if self.legs[index].path != self.leader
            && self.legs.iter().find(|leg| leg.path == self.leader).is_none_or(|leader| leader.is_idle(now))
        {
            self.set_leader(index);
        }
    }

    fn set_leader(&mut self, index: usize) {
        self.leader = self.legs[index].path;
        self.legs[index].connection.receiver_mut().0.lead();
        self.share_time(index);
    }

    /// The leader may have seen the time drift: all others follow.
    fn share_time(&mut self, index: usize) {
        if self.legs[index].path != self.leader || self.legs.len() < 2 {
            return;
        }
        let time = self.legs[index].connection.receiver().time().clone();
        for leg in self.legs.iter_mut().filter(|leg| leg.path != self.leader) {
            leg.connection.receiver_mut().0.follow(&time);
        }
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        for leg in &mut self.legs {
            leg.connection.handle_timeout(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) or [`poll_payload`](Self::poll_payload) has something to do.
    #[inline]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.legs.iter().filter_map(|leg| leg.connection.next_timeout()).min()
    }

    /// The leg that holds the lowest number, and that.
    #[inline]
    fn first(&self) -> Option<(usize, u64)> {
        let held = |leg: &Leg| leg.connection.receiver().first_held();
        self.legs
            .iter()
            .enumerate()
            .filter_map(|(index, leg)| Some((index, held(leg)?)))
            .min_by_key(|&(_, first)| first)
    }

    /// The next payload that is due, in order.
    #[inline]
    pub fn poll_payload(&mut self, now: Instant) -> Option<Payload> {
        let (index, _) = self.first()?;
        // Nothing is held back by one before it that is stamped later.
        let is_due = self.legs.iter().any(|leg| leg.connection.receiver().next_due() <= now);
        if is_due { self.take(index) } else { None }
    }

    /// The next payload in order, before it is due if none is missing before it; see
    /// [`Connection::poll_payload_early`].
    #[inline]
    pub fn poll_payload_early(&mut self, now: Instant) -> Option<Payload> {
        let (index, first) = self.first()?;
        if first == self.next { self.take(index) } else { self.poll_payload(now) }
    }

    /// Hands up the first packet that a leg holds, which is the first of all.
    fn take(&mut self, index: usize) -> Option<Payload> {
        let mut payload = self.legs[index].connection.take_first()?;
        let sequence = payload.sequence;
        let given_up = sequence.checked_sub(self.next).expect("no leg holds what was handed up");
        self.due = payload.due;
        for (_, other) in self.legs.iter_mut().enumerate().filter(|(other, _)| *other != index) {
            let (receiver, statistics) = other.connection.receiver_mut();
            if given_up > 0 {
                statistics.pkt_rcv_drop += receiver.settle(sequence, payload.due, true);
            }
            if receiver.holds(sequence) {
                payload.path_mask |= 1 << other.path;
            } else {
                payload.recovered |= (other.begins..receiver.expected()).contains(&sequence);
            }
            other.statistics.pkt_rcv_elsewhere += receiver.settle(sequence + 1, payload.due, false);
        }
        payload.lost_before = u32::try_from(given_up).unwrap_or(u32::MAX);
        self.next = sequence + 1;
        self.pkt_delivered += 1;
        self.pkt_rcv_drop += given_up;
        Some(payload)
    }

    /// The next thing to report. To be called after all payloads have been polled.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        for index in 0..self.legs.len() {
            let leg = &mut self.legs[index];
            leg.connection.settled();
            while let Some(event) = leg.connection.poll_event() {
                match event {
                    connection::Event::Connected => {}
                    connection::Event::Closed(reason) => return Some(self.remove(index, reason)),
                    event => return Some(Event::Leg { path: leg.path, event }),
                }
            }
        }
        None
    }

    /// A leg leaves; if it is the last, that is the next event.
    fn remove(&mut self, index: usize, reason: CloseReason) -> Event {
        let Leg { path, connection, statistics, .. } = self.legs.remove(index);
        add(&mut self.departed, connection.statistics());
        self.departed_elsewhere += statistics.pkt_rcv_elsewhere;
        if self.legs.is_empty() {
            self.events.push_back(Event::Closed(reason));
        } else if path == self.leader {
            let newest = (0..self.legs.len()).max_by_key(|&index| self.legs[index].data_at);
            self.set_leader(newest.expect("one is left"));
        }
        let ConnectionParameters { socket_id, peer, .. } = *connection.parameters();
        Event::LegClosed { path, socket_id, peer, reason }
    }

    /// Ends all legs from this side; what is held is still delivered when it is due.
    pub fn shut_down(&mut self) {
        self.legs.iter_mut().for_each(|leg| leg.connection.shut_down());
    }

    /// The next datagram to send; its bytes are appended to `buffer`.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.legs.iter_mut().find_map(|leg| {
            let transmit = leg.connection.poll_transmit(now, buffer)?;
            Some(Transmit { path: leg.path, ..transmit })
        })
    }
}

/// Adds up what counts, of a connection that receives.
fn add(total: &mut Statistics, leg: &Statistics) {
    total.pkt_recv += leg.pkt_recv;
    total.byte_recv += leg.byte_recv;
    total.pkt_recv_unique += leg.pkt_recv_unique;
    total.byte_recv_unique += leg.byte_recv_unique;
    total.pkt_rcv_loss += leg.pkt_rcv_loss;
    total.pkt_rcv_retrans += leg.pkt_rcv_retrans;
    total.pkt_rcv_recovered += leg.pkt_rcv_recovered;
    total.pkt_rcv_reordered += leg.pkt_rcv_reordered;
    total.pkt_reorder_distance = total.pkt_reorder_distance.max(leg.pkt_reorder_distance);
    total.pkt_rcv_belated += leg.pkt_rcv_belated;
    total.pkt_rcv_duplicate += leg.pkt_rcv_duplicate;
    total.pkt_rcv_undecrypt += leg.pkt_rcv_undecrypt;
    total.byte_rcv_undecrypt += leg.byte_rcv_undecrypt;
    total.pkt_rcv_unencrypted += leg.pkt_rcv_unencrypted;
    total.pkt_rcv_not_authentic += leg.pkt_rcv_not_authentic;
    total.pkt_rcv_not_writable += leg.pkt_rcv_not_writable;
    total.pkt_rcv_no_room += leg.pkt_rcv_no_room;
    total.sequence_jumps += leg.sequence_jumps;
    total.timestamps_disbelieved += leg.timestamps_disbelieved;
    total.pkt_malformed += leg.pkt_malformed;
    total.pkt_after_end += leg.pkt_after_end;
    total.pkt_wrong_peer += leg.pkt_wrong_peer;
    total.pkt_sent_challenge += leg.pkt_sent_challenge;
    total.peer_changes += leg.peer_changes;
    total.pkt_wrong_socket += leg.pkt_wrong_socket;
    total.control_malformed += leg.control_malformed;
    total.control_rejected += leg.control_rejected;
    total.control_ignored += leg.control_ignored;
    total.pkt_recv_control += leg.pkt_recv_control;
    total.pkt_sent_ack += leg.pkt_sent_ack;
    total.pkt_sent_light_ack += leg.pkt_sent_light_ack;
    total.pkt_sent_nak += leg.pkt_sent_nak;
    total.pkt_recv_ackack += leg.pkt_recv_ackack;
    total.pkt_recv_drop_request += leg.pkt_recv_drop_request;
    total.key_refreshes += leg.key_refreshes;
    total.key_refresh_failures += leg.key_refresh_failures;
    total.events_lost += leg.events_lost;
}
