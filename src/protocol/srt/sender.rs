//! The sending half of a connection: what to send, what to send again, what to give up.

use std::time::Duration;

use thiserror::Error;

use super::acknowledgement::RoundTrip;
use super::congestion::CongestionControl;
use super::control::{Acknowledgement, LossReport};
use super::fec::configuration::ArqLevel;
use super::packet::SequenceNumber;
use super::parameters::ConnectionParameters;
use super::send_buffer::{Outgoing, SendBuffer};
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter};
use super::statistics::Statistics;
use crate::base::Instant;

/// A packet is of use for the peer's latency, but for a second at least: room for one frame that takes the whole bit budget
/// (libsrt: `SRT_TLPKTDROP_MINTHRESHOLD_MS`).
const TOO_LATE_MIN: Duration = Duration::from_millis(1_000);
/// What the two sides take to react (libsrt: twice the ACK interval).
const REACTION: Duration = Duration::from_millis(20);
/// An acknowledgement whose number is less than the last one's, by so many at most, was overtaken by it. Challenges to a peer that moves have
/// any number.
const OVERTAKEN_MAX: u32 = 64;

/// Why a payload was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The connection has ended, or was set up to receive only.
    #[error("the connection does not send")]
    NotSending,
    /// The peer acknowledges too slowly for the buffer.
    #[error("the send buffer is full")]
    BufferFull,
    /// The payload does not fit into a packet.
    #[error("a payload of {length} bytes does not fit into a packet of {limit}")]
    TooLong {
        /// Its length.
        length: usize,
        /// What fits.
        limit: usize,
    },
}

/// State of the sending half.
#[derive(Debug)]
pub struct Sender {
    buffer: SendBuffer,
    flow_window: usize,
    /// Packets that may be under way: the flow window, or less where there is a congestion control.
    window: usize,
    too_late: Option<Duration>,
    peer_repeats_loss_reports: bool,
    /// When the peer last acknowledged anything, or something was sent for the first time: what the probe counts from.
    progress_at: Instant,
    probes: u32,
    /// The oldest number that the peer asked for though it is given up.
    drop_request: Option<u64>,
    receipt: Option<u32>,
    /// Of the acknowledgement that told the flow window.
    newest_number: Option<u32>,
    /// Where all bytes are to arrive: in live mode pacing is up to the application.
    congestion: Option<Box<CongestionControl>>,
}

impl Sender {
    /// The sending half of a connection that begins `now`, with room for `buffer_packets`.
    pub fn new(now: Instant, parameters: &ConnectionParameters, buffer_packets: usize) -> Self {
        let flow_window = parameters.peer_flow_window as usize;
        let first = parameters.initial_sequence.get();
        let congestion = parameters
            .mode
            .is_reliable()
            .then(|| Box::new(CongestionControl::new(now, first, flow_window, parameters.mtu as usize)));
        Self {
            buffer: SendBuffer::new(buffer_packets, parameters.payload_size_max() + parameters.tag_len(), first),
            flow_window,
            window: congestion.as_ref().map_or(flow_window, |control| flow_window.min(control.window())),
            too_late: too_late(parameters),
            peer_repeats_loss_reports: peer_repeats_loss_reports(parameters),
            progress_at: now,
            probes: 0,
            drop_request: None,
            receipt: None,
            newest_number: None,
            congestion,
        }
    }

    /// From now on at most so many bits per second, if there is a congestion control.
    pub fn limit_rate(&mut self, bits_per_second: u64) {
        if let Some(control) = &mut self.congestion {
            control.limit_rate(bits_per_second);
        }
    }

    /// A peer of version 4 of the handshake has said how it receives.
    pub fn introduced(&mut self, parameters: &ConnectionParameters) {
        self.too_late = too_late(parameters);
        self.peer_repeats_loss_reports = peer_repeats_loss_reports(parameters);
    }

    /// Takes in a payload; it goes out as soon as the flow window lets it.
    pub fn send(
        &mut self,
        now: Instant,
        payload: &[u8],
        parameters: &mut ConnectionParameters,
        statistics: &mut Statistics,
    ) -> Result<(), SendError> {
        let tag_len = parameters.tag_len();
        let limit = self.buffer.payload_max() - tag_len;
        if payload.len() > limit {
            return Err(SendError::TooLong { length: payload.len(), limit });
        }
        self.drop_too_late(now, statistics);
        let mut header = parameters.data_header(self.buffer.end(), now);
        let taken = self.buffer.push(now, payload.len() + tag_len, |bytes| {
            bytes[..payload.len()].copy_from_slice(payload);
            if let Some(encryption) = &mut parameters.encryption {
                encryption.encrypt(&mut header, bytes);
            }
            header.key
        });
        if taken {
            return Ok(());
        }
        statistics.pkt_snd_refused += 1;
        Err(SendError::BufferFull)
    }

    fn drop_too_late(&mut self, now: Instant, statistics: &mut Statistics) {
        if self.drop_at() <= now
            && let Some(too_late) = self.too_late
        {
            statistics.pkt_snd_drop += self.buffer.drop_until(now - too_late);
        }
    }

    fn drop_at(&self) -> Instant {
        match (self.buffer.oldest(), self.too_late) {
            (Some(oldest), Some(too_late)) => oldest + too_late,
            _ => Instant::FAR_FUTURE,
        }
    }

    /// Places a number of the peer's relative to the oldest packet held: how far after it, or before it when negative.
    fn offset(&self, sequence: SequenceNumber) -> i64 {
        sequence.distance(SequenceNumber::new(self.buffer.first()))
    }

    /// The peer acknowledges. `false` when it acknowledges what was never sent: nothing of such a packet is believed.
    pub fn acknowledged(&mut self, now: Instant, ack: &Acknowledgement, round_trip: &mut RoundTrip) -> bool {
        let offset = self.offset(ack.next);
        if offset > self.buffer.in_flight() as i64 {
            return false;
        }
        if offset > 0 {
            let known = self.buffer.acknowledge(self.buffer.first() + offset as u64);
            assert!(known, "judged above");
            self.flow_window = self.flow_window.saturating_sub(offset as usize);
            self.progress_at = now;
            self.probes = 0;
        }
        if let Some(report) = &ack.report
            && offset >= 0
            && !self.is_overtaken(ack.number)
        {
            self.newest_number = Some(ack.number);
            self.flow_window = report.available_buffer_packets as usize;
            round_trip.adopt(report.rtt_us, report.rtt_variance_us);
            if let Some(control) = &mut self.congestion {
                control.acknowledged(now, self.buffer.first(), report.rates, round_trip.smoothed_us());
            }
        }
        self.narrow();
        if ack.report.is_none() {
            return true;
        }
        if ack.number != 0 {
            self.receipt = Some(ack.number);
        }
        true
    }

    /// Whether a later word of the peer's room has come already: one that there is none, behind that there is some again, is never mended.
    fn is_overtaken(&self, number: u32) -> bool {
        let behind = |newest: u32| newest.wrapping_sub(number) & Acknowledgement::NUMBER_MAX;
        self.newest_number.is_some_and(|newest| (1..=OVERTAKEN_MAX).contains(&behind(newest)))
    }

    /// The window after what holds it has changed.
    fn narrow(&mut self) {
        self.window = match &self.congestion {
            None => self.flow_window,
            Some(control) => self.flow_window.min(control.window()),
        };
    }

    /// The peer misses packets. Returns how many of the ranges named packets that were never sent.
    pub fn lost(&mut self, report: &LossReport<'_>, round_trip: &RoundTrip, statistics: &mut Statistics) -> u64 {
        let mut refused = 0;
        let mut oldest_lost = None;
        for range in report.ranges() {
            let (first, last) = (self.offset(range.first()), self.offset(range.last()));
            if last >= self.buffer.in_flight() as i64 {
                refused += 1;
                continue;
            }
            let oldest = self.buffer.first();
            if first < 0 && self.congestion.is_none() {
                let gone = oldest.saturating_sub(first.unsigned_abs());
                self.drop_request = Some(self.drop_request.map_or(gone, |other| other.min(gone)));
            }
            if last >= 0 {
                let lost = self.buffer.lose(oldest + first.max(0) as u64, oldest + last as u64 + 1);
                statistics.pkt_snd_loss += lost as u64;
                oldest_lost.get_or_insert(oldest + first.max(0) as u64);
            }
        }
        if let Some(control) = &mut self.congestion
            && let Some(first) = oldest_lost
        {
            let (lost, next) = (self.buffer.lost(), self.buffer.next_unsent());
            control.loss_report(first, lost, next, round_trip.smoothed_us());
            self.narrow();
        }
        refused
    }

    /// Gives up what is too late and, when the peer has been silent for too long, sends again what it may be missing: all of
    /// it when the peer does not repeat its loss reports, else the newest packet, which shows the peer what it has missed at
    /// the end of a burst and could not know.
    pub fn handle_timeout(&mut self, now: Instant, round_trip: &RoundTrip, statistics: &mut Statistics) {
        self.drop_too_late(now, statistics);
        // Also while lost packets wait to go out: the probe would be overdue as soon as they are gone.
        if self.buffer.in_flight() > 0 && now >= self.patient_until(round_trip) {
            let (first, end) = (self.buffer.first(), self.buffer.next_unsent());
            let from = if self.peer_repeats_loss_reports { end - 1 } else { first };
            self.buffer.lose(from, end);
            self.progress_at = now;
            self.probes = self.probes.saturating_add(1);
            if let Some(control) = &mut self.congestion {
                control.timed_out(round_trip.smoothed_us());
                self.narrow();
            }
        }
    }

    fn probe_at(&self, round_trip: &RoundTrip) -> Instant {
        if self.buffer.in_flight() == 0 || self.buffer.has_lost() {
            return Instant::FAR_FUTURE;
        }
        self.patient_until(round_trip)
    }

    /// How long the peer may be silent.
    fn patient_until(&self, round_trip: &RoundTrip) -> Instant {
        self.progress_at + (round_trip.patience() + REACTION) * (self.probes.min(15) + 1)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn next_timeout(&self, round_trip: &RoundTrip) -> Instant {
        self.drop_at().min(self.probe_at(round_trip)).min(self.paced_until())
    }

    /// When the next packet may leave that only waits for its time.
    fn paced_until(&self) -> Instant {
        match &self.congestion {
            Some(control) if self.has_packet() => control.next_send_at(),
            _ => Instant::FAR_FUTURE,
        }
    }

    /// The number of a full acknowledgement to be answered.
    pub fn take_receipt(&mut self) -> Option<u32> {
        self.receipt.take()
    }

    /// The range of given up packets that the peer asked for, both ends included.
    pub fn take_drop_request(&mut self) -> Option<(u64, u64)> {
        let first = self.drop_request.take()?;
        let last = self.buffer.first().checked_sub(1)?;
        (first <= last).then_some((first, last))
    }

    /// Whether the buffer takes no more.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.buffer.is_full()
    }

    /// Whether [`next_packet`](Self::next_packet) would give one.
    #[inline]
    pub fn has_packet(&self) -> bool {
        self.buffer.has_lost() || (self.buffer.has_unsent() && self.buffer.in_flight() < self.window)
    }

    /// The next packet to go out: lost ones first, new ones as the flow window lets them.
    pub fn next_packet(&mut self, now: Instant, round_trip: &RoundTrip) -> Option<Outgoing<'_>> {
        if self.congestion.as_ref().is_some_and(|control| now < control.next_send_at()) {
            return None;
        }
        if self.buffer.has_lost() {
            let on_its_way_us = round_trip.smoothed_us().saturating_sub(4 * round_trip.variance_us());
            let not_since = now - Duration::from_micros(u64::from(on_its_way_us));
            if let Some(sequence) = self.buffer.next_retransmission(now, not_since) {
                if let Some(control) = &mut self.congestion {
                    control.sent(now, sequence, false);
                }
                return Some(self.buffer.outgoing(sequence));
            }
        }
        if !self.buffer.has_unsent() || self.buffer.in_flight() >= self.window {
            return None;
        }
        self.progress_at = now;
        if let Some(control) = &mut self.congestion {
            control.sent(now, self.buffer.next_unsent(), true);
        }
        self.buffer.next_new(now)
    }

    /// Brings the gauges up to date.
    pub fn gauge(&self, statistics: &mut Statistics) {
        statistics.pkt_flight_size = self.buffer.in_flight() as u64;
        statistics.pkt_flow_window = self.flow_window as u64;
        statistics.pkt_snd_buf = self.buffer.len() as u64;
        if let Some(control) = &self.congestion {
            statistics.pkt_congestion_window = control.window() as u64;
            statistics.us_pkt_snd_period = control.interval_us();
        }
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            buffer,
            flow_window,
            // Follows from the others.
            window: _,
            too_late,
            peer_repeats_loss_reports,
            progress_at,
            probes,
            drop_request,
            receipt,
            newest_number,
            congestion,
        } = self;
        buffer.snapshot(to);
        to.size(*flow_window);
        to.option(*too_late, SnapshotWriter::duration);
        to.bool(*peer_repeats_loss_reports);
        to.instant(*progress_at);
        to.u32(*probes);
        to.optional_count(*drop_request);
        to.option(*receipt, SnapshotWriter::u32);
        to.option(*newest_number, SnapshotWriter::u32);
        // Whether there is one is said by the mode.
        if let Some(control) = congestion {
            control.snapshot(to);
        }
    }

    /// The number of the next packet that goes out for the first time.
    pub(crate) fn next_unsent(&self) -> u64 {
        self.buffer.next_unsent()
    }

    pub(crate) fn restore(
        from: &mut SnapshotReader<'_>,
        parameters: &ConnectionParameters,
        buffer_packets: usize,
    ) -> Result<Self, RestoreError> {
        let mut restored = Self {
            buffer: SendBuffer::restore(from, buffer_packets, parameters.payload_size_max() + parameters.tag_len())?,
            flow_window: from.size()?,
            window: 0,
            too_late: from.option(SnapshotReader::duration)?,
            peer_repeats_loss_reports: from.bool()?,
            progress_at: from.instant()?,
            probes: from.u32()?,
            drop_request: from.optional_count()?,
            receipt: from.option(SnapshotReader::u32)?,
            newest_number: from.option(SnapshotReader::u32)?,
            congestion: match parameters.mode.is_reliable() {
                true => Some(Box::new(CongestionControl::restore(from)?)),
                false => None,
            },
        };
        restored.narrow();
        Ok(restored)
    }
}

/// How long a packet is of use to a peer that drops what is too late.
fn too_late(parameters: &ConnectionParameters) -> Option<Duration> {
    let latency = Duration::from_millis(u64::from(parameters.send_latency_ms));
    parameters.features.peer_drops_too_late.then(|| latency.max(TOO_LATE_MIN) + REACTION)
}

/// Behind a filter that is to be given time it reports each loss once (libsrt: `checkNAKTimer`).
fn peer_repeats_loss_reports(parameters: &ConnectionParameters) -> bool {
    let waits_for_filter = parameters.packet_filter.is_some_and(|fec| fec.arq == ArqLevel::OnRequest);
    parameters.features.peer_repeats_loss_reports && !waits_for_filter
}
