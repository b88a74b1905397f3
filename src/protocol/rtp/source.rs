//! The machine of one RTP stream: datagrams in, payloads in order out.
//!
//! A source is proven before it is believed (RFC 3550 A.1); what came before the proof is held and delivered with it. A stream
//! survives its sender: one that starts anew, with other sequence numbers, another SSRC or from another address, proves itself
//! the same way and then takes the stream over, unless the one before it is still sending.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::packet::{DatagramKind, RtpHeader, classify};
use super::payload_type::PayloadTypes;
use super::probation::{Probation, Strangers};
use super::reorder::{Insertion, ReorderBuffer};
use super::rtcp::{self, ControlItem, ReportBlock, ReportTimer, SenderReport};
use super::sequence::{Jitter, Judgement, SequenceTracker};
use crate::base::sequence::Unwrapper;
use crate::base::{Datagram, Instant, Packet, Transmit};
use crate::media::Payload;

/// Other sources that may be in probation on one stream at a time.
const MAX_STRANGERS: usize = 4;
/// Events that wait for the caller; more are dropped and counted.
const MAX_EVENTS: usize = 16;
/// A source that said BYE has ended when it is silent for so long: RTCP on its own port overtakes the last media packets.
const BYE_GRACE: Duration = Duration::from_millis(200);
/// A source that goes on for so long after its BYE did not mean it.
const BYE_FORGOTTEN: Duration = Duration::from_secs(2);
/// Silence after which another port of the same host may take the stream over: its address translation has changed.
const SAME_HOST_SILENCE: Duration = Duration::from_millis(100);

/// What a [`Source`] is to do.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// The only SSRC to take; `None` follows whoever proves itself, one after the other (a configured port).
    pub ssrc: Option<u32>,
    /// Positions that packets may wait for a missing one.
    pub reorder_depth: usize,
    /// How long packets may wait for a missing one.
    pub reorder_wait: Duration,
    /// Silence after which a sender at another address may take the stream over.
    pub takeover_silence: Duration,
    /// Silence after which the source has ended.
    pub session_timeout: Duration,
    /// What the payload types stand for; here only their clocks matter.
    pub payload_types: PayloadTypes,
    /// Reports to the sender; `None` sends none.
    pub reports: Option<ReportOptions>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            ssrc: None,
            reorder_depth: 100,
            reorder_wait: Duration::from_millis(50),
            takeover_silence: Duration::from_secs(1),
            session_timeout: Duration::from_secs(30),
            payload_types: PayloadTypes::default(),
            reports: None,
        }
    }
}

/// How a [`Source`] reports to its sender.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// Our own SSRC, random.
    pub ssrc: u32,
    /// Our own canonical name (RFC 7022); 255 octets at most.
    pub canonical_name: String,
    /// Where reports go.
    pub destination: ReportDestination,
    /// Bandwidth of the session in bits per second, a twentieth of which RTCP may use.
    pub session_bandwidth_bps: u64,
    /// Number of receivers that share it, ourselves included.
    pub receivers: u32,
}

/// Where receiver reports go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportDestination {
    /// Where sender reports come from; before the first one, the port after the media's (RFC 3550 §11).
    Sender,
    /// Where the media come from (`a=rtcp-mux`, RFC 5761).
    Multiplexed,
    /// A fixed address: a multicast group, a feedback target.
    Fixed(SocketAddr),
}

/// A payload with what its RTP header said.
#[derive(Debug)]
pub struct RtpPayload {
    /// The bytes and their way here; the low 16 bits of `sequence` are the sequence number on the wire.
    pub payload: Payload,
    /// Media time in ticks of the payload type's clock, unwrapped from the first one after a restart.
    pub timestamp: i64,
    /// Marker bit.
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// First payload of a source, or of one that started anew: neither sequence nor time stamp continue those before.
    pub restart: bool,
}

/// What happened to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// The first source is proven.
    Started {
        /// Its SSRC.
        ssrc: u32,
        /// Its address.
        peer: SocketAddr,
        /// The sequence number it starts with.
        sequence: u16,
        /// Its payload type.
        payload_type: u8,
    },
    /// The stream goes on with a new sequence, from the same source or another one.
    Restarted {
        /// Its SSRC.
        ssrc: u32,
        /// Its address.
        peer: SocketAddr,
        /// The sequence number it starts with.
        sequence: u16,
        /// What is new.
        reason: RestartReason,
    },
    /// The same sequence goes on from another address.
    PeerChanged {
        /// The new one.
        peer: SocketAddr,
    },
    /// The source has ended.
    Ended {
        /// Its SSRC.
        ssrc: u32,
        /// How.
        reason: EndReason,
    },
}

/// What is new about a source that started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// Its sequence numbers jumped.
    SequenceJump,
    /// Its SSRC.
    NewSsrc,
    /// It had ended, and came back.
    Returned,
}

/// How a source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// It said BYE.
    Bye,
    /// It has been silent for longer than the session time-out.
    Silence,
}

/// What a [`Source`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceStatistics {
    /// RTP packets of proven sources, duplicates included.
    pub packets_received: u64,
    /// Their payload octets.
    pub octets_received: u64,
    /// Payloads handed on.
    pub payloads_delivered: u64,
    /// Payloads given up as lost.
    pub packets_lost: u64,
    /// Packets that came after a later one and in time.
    pub packets_reordered: u64,
    /// Dropped: had come before.
    pub dropped_duplicate: u64,
    /// Dropped: had been given up.
    pub dropped_late: u64,
    /// Dropped: the caller did not poll.
    pub dropped_overrun: u64,
    /// Dropped: neither RTP nor RTCP, or a malformed header.
    pub dropped_malformed: u64,
    /// Dropped: another SSRC than the configured one.
    pub dropped_foreign: u64,
    /// Dropped: its source was not proven.
    pub dropped_probation: u64,
    /// Times that a new sequence took over.
    pub restarts: u64,
    /// Times that the sequence went on from another address.
    pub peer_changes: u64,
    /// RTCP compound packets believed.
    pub rtcp_received: u64,
    /// Dropped RTCP: malformed, or from another host than the media.
    pub dropped_rtcp: u64,
    /// Events that nobody polled.
    pub dropped_events: u64,
    /// Receiver reports sent.
    pub reports_sent: u64,
    /// Interarrival jitter (RFC 3550 §6.4.1) in ticks of the media clock.
    pub jitter_ticks: u32,
}

/// A packet on its way through the reorder buffer.
#[derive(Debug)]
struct Held {
    packet: Packet,
    arrival: Instant,
    timestamp: u32,
    payload_type: u8,
    marker: bool,
    path: u8,
    /// Which beginning of the stream's sequence it belongs to.
    run: u32,
}

/// The proven source.
#[derive(Debug)]
struct Current {
    ssrc: u32,
    peer: SocketAddr,
    local: Option<IpAddr>,
    interface: u32,
    last_arrival: Instant,
    said_bye: Option<Instant>,
    ended: bool,
    sender_report: Option<(SenderReport, Instant)>,
    rtcp_peer: Option<SocketAddr>,
    heard_since_report: bool,
}

impl Current {
    /// When it said BYE, unless it has been sending on for too long since.
    fn believed_bye(&self) -> Option<Instant> {
        self.said_bye.filter(|&said| self.last_arrival.saturating_since(said) < BYE_FORGOTTEN)
    }
}

/// One RTP stream.
#[derive(Debug)]
pub struct Source {
    options: SourceOptions,
    current: Option<Current>,
    sequence: SequenceTracker,
    reorder: ReorderBuffer<Held>,
    timestamps: Unwrapper<32>,
    /// Beginnings of the sequence so far, and the one that payloads were last delivered of.
    run: u32,
    delivered_run: u32,
    jitter: Jitter,
    strangers: Strangers,
    report_timer: Option<ReportTimer>,
    report_due: bool,
    closing: bool,
    random: u64,
    events: VecDeque<SourceEvent>,
    statistics: SourceStatistics,
}

impl Source {
    /// A stream with no source yet. `random` spreads its reports.
    pub fn new(options: SourceOptions, random: u64) -> Self {
        Self {
            current: None,
            sequence: SequenceTracker::new(0, options.reorder_depth),
            reorder: ReorderBuffer::new(options.reorder_depth, options.reorder_wait),
            timestamps: Unwrapper::new(),
            run: 0,
            delivered_run: 0,
            jitter: Jitter::default(),
            strangers: Strangers::new(MAX_STRANGERS),
            report_timer: None,
            report_due: false,
            closing: false,
            random,
            events: VecDeque::with_capacity(MAX_EVENTS),
            statistics: SourceStatistics::default(),
            options,
        }
    }

    /// A stream that begins with a source proven elsewhere, on a port that serves many ([`Strangers`]).
    pub fn from_probation(options: SourceOptions, random: u64, now: Instant, proven: Probation) -> Self {
        let mut source = Self::new(options, random);
        source.take_over(now, proven);
        source
    }

    /// Takes a datagram, RTP or RTCP.
    #[inline]
    pub fn receive(&mut self, now: Instant, datagram: Datagram) {
        match classify(&datagram.packet) {
            DatagramKind::Rtp => match RtpHeader::parse(&datagram.packet) {
                Ok(header) => self.receive_rtp(now, header, datagram),
                Err(_) => self.statistics.dropped_malformed += 1,
            },
            DatagramKind::Rtcp => self.receive_rtcp(now, &datagram),
            DatagramKind::TransportStream | DatagramKind::Unknown => self.statistics.dropped_malformed += 1,
        }
    }

    /// Takes an RTP packet whose header has been read from `datagram`.
    #[inline]
    pub fn receive_rtp(&mut self, now: Instant, header: RtpHeader, datagram: Datagram) {
        if let Some(current) = &self.current
            && current.ssrc == header.ssrc
            && current.peer == datagram.peer
            && !current.ended
            && let Judgement::At(position) = self.sequence.judge(header.sequence)
        {
            if !self.strangers.is_empty() {
                // The running sequence goes on, so what jumped out of it was a stray.
                self.strangers.forget(header.ssrc, datagram.peer);
            }
            self.accept(position, header, datagram);
            return;
        }
        self.receive_stranger(now, header, datagram);
    }

    /// Takes an RTCP packet.
    pub fn receive_rtcp(&mut self, now: Instant, datagram: &Datagram) {
        let (Some(current), Ok(items)) = (&mut self.current, rtcp::parse(&datagram.packet)) else {
            self.statistics.dropped_rtcp += 1;
            return;
        };
        // Anybody can send a BYE with a number seen on the wire; it must at least come from the sender's host.
        if current.peer.ip() != datagram.peer.ip() {
            self.statistics.dropped_rtcp += 1;
            return;
        }
        self.statistics.rtcp_received += 1;
        for item in items {
            match item {
                ControlItem::SenderReport(report) if report.ssrc == current.ssrc => {
                    current.sender_report = Some((report, datagram.arrival));
                    current.rtcp_peer = Some(datagram.peer);
                }
                ControlItem::Bye { ssrc } if ssrc == current.ssrc && !current.ended => current.said_bye = Some(now),
                _ => {}
            }
        }
    }

    /// Does what time has come for: gives up gaps, ends a silent source, forgets strangers, asks for a report.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.reorder.handle_timeout(now);
        self.strangers.handle_timeout(now);
        if self.end_of_source().is_some_and(|(due, _)| due <= now) {
            let (_, reason) = self.end_of_source().expect("just seen");
            let current = self.current.as_mut().expect("only a current source ends");
            current.ended = true;
            let ssrc = current.ssrc;
            self.report_timer = None;
            self.push_event(SourceEvent::Ended { ssrc, reason });
        }
        if let Some(timer) = &mut self.report_timer {
            self.report_due |= timer.is_due(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let report = self.report_timer.as_ref().filter(|_| !self.report_due).map(ReportTimer::next_timeout);
        let end = self.end_of_source().map(|(due, _)| due);
        [self.reorder.next_timeout(), self.strangers.next_timeout(), end, report].into_iter().flatten().min()
    }

    /// The next payload in order.
    #[inline]
    pub fn poll_payload(&mut self, _now: Instant) -> Option<RtpPayload> {
        let ready = self.reorder.poll()?;
        let held = ready.item;
        let restart = held.run != self.delivered_run;
        if restart {
            self.delivered_run = held.run;
            self.timestamps = Unwrapper::new();
        }
        self.statistics.payloads_delivered += 1;
        Some(RtpPayload {
            payload: Payload {
                packet: held.packet,
                arrival: held.arrival,
                due: held.arrival,
                sequence: ready.position,
                lost_before: ready.lost_before,
                recovered: false,
                path_mask: 1_u8.checked_shl(u32::from(held.path)).unwrap_or(0),
                ends_message: true,
            },
            timestamp: self.timestamps.unwrap(u64::from(held.timestamp)),
            marker: held.marker,
            payload_type: held.payload_type,
            restart,
        })
    }

    /// A report that is due, its bytes appended to `buffer`.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        if !self.report_due {
            return None;
        }
        self.report_due = false;
        let reports = self.options.reports.as_ref()?;
        let current = self.current.as_mut().filter(|current| !current.ended)?;
        let block = current.heard_since_report.then(|| {
            let (last, delay) = current.sender_report.map_or((0, 0), |(report, arrival)| {
                let delay = now.saturating_since(arrival).as_nanos() * 65_536 / 1_000_000_000;
                ((report.ntp_timestamp >> 16) as u32, u32::try_from(delay).unwrap_or(u32::MAX))
            });
            ReportBlock {
                ssrc: current.ssrc,
                loss: self.sequence.report(),
                jitter_ticks: self.jitter.ticks(),
                last_sender_report: last,
                delay_since_last_sender_report: delay,
            }
        });
        current.heard_since_report = false;
        let peer = match reports.destination {
            ReportDestination::Fixed(address) => address,
            ReportDestination::Multiplexed => current.peer,
            ReportDestination::Sender => current.rtcp_peer.unwrap_or_else(|| {
                SocketAddr::new(current.peer.ip(), current.peer.port().checked_add(1).unwrap_or(current.peer.port()))
            }),
        };
        let name = reports.canonical_name.as_str();
        let len = rtcp::write_receiver_report(buffer, reports.ssrc, block.as_ref(), name, self.closing);
        match &mut self.report_timer {
            Some(timer) if !self.closing => timer.sent(now, len),
            _ => self.report_timer = None,
        }
        self.statistics.reports_sent += 1;
        Some(Transmit { peer, local: current.local, interface: current.interface, path: 0, len })
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<SourceEvent> {
        self.events.pop_front()
    }

    /// Says goodbye with the next [`poll_transmit`](Self::poll_transmit), if any report was sent before (RFC 3550 §6.3.7).
    pub fn close(&mut self) {
        self.closing = true;
        self.report_due = self.statistics.reports_sent > 0;
    }

    /// What has been counted.
    pub fn statistics(&self) -> SourceStatistics {
        SourceStatistics {
            packets_lost: self.reorder.given_up(),
            dropped_probation: self.statistics.dropped_probation + self.strangers.dropped(),
            jitter_ticks: self.jitter.ticks(),
            ..self.statistics
        }
    }

    /// The last sender report of the current source and when it arrived.
    pub fn sender_report(&self) -> Option<(SenderReport, Instant)> {
        self.current.as_ref()?.sender_report
    }

    /// SSRC of the current source, if one is proven and has not ended.
    pub fn ssrc(&self) -> Option<u32> {
        self.current.as_ref().filter(|current| !current.ended).map(|current| current.ssrc)
    }

    /// Address of the current source.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.current.as_ref().filter(|current| !current.ended).map(|current| current.peer)
    }

    /// Packets that wait for others before them, or to be polled.
    #[inline]
    pub fn held_packets(&self) -> usize {
        self.reorder.held() + self.reorder.ready()
    }

    /// When the current source will have ended, and why, if nothing more comes.
    fn end_of_source(&self) -> Option<(Instant, EndReason)> {
        let current = self.current.as_ref().filter(|current| !current.ended)?;
        Some(match current.believed_bye() {
            Some(said) => (said.max(current.last_arrival) + BYE_GRACE, EndReason::Bye),
            None => (current.last_arrival + self.options.session_timeout, EndReason::Silence),
        })
    }

    /// A packet of the running sequence.
    #[inline]
    fn accept(&mut self, position: u64, header: RtpHeader, datagram: Datagram) {
        let current = self.current.as_mut().expect("only a proven source's packets are accepted");
        current.last_arrival = datagram.arrival;
        current.heard_since_report = true;
        self.sequence.count(position);
        self.jitter.count(
            datagram.arrival,
            header.timestamp,
            self.options.payload_types.clock_rate(header.payload_type),
        );
        self.statistics.packets_received += 1;
        self.statistics.octets_received += u64::from(header.payload_len);
        let mut packet = datagram.packet;
        packet.advance(usize::from(header.payload_offset));
        packet.truncate(usize::from(header.payload_len));
        let held = Held {
            packet,
            arrival: datagram.arrival,
            timestamp: header.timestamp,
            payload_type: header.payload_type,
            marker: header.marker,
            path: datagram.path,
            run: self.run,
        };
        match self.reorder.insert(position, datagram.arrival, held) {
            Insertion::InOrder | Insertion::Early => {}
            Insertion::FilledGap => self.statistics.packets_reordered += 1,
            Insertion::Duplicate => self.statistics.dropped_duplicate += 1,
            Insertion::Late => self.statistics.dropped_late += 1,
            Insertion::Overrun => self.statistics.dropped_overrun += 1,
        }
    }

    /// A packet that does not belong to the running sequence.
    #[cold]
    fn receive_stranger(&mut self, now: Instant, header: RtpHeader, datagram: Datagram) {
        if self.options.ssrc.is_some_and(|only| only != header.ssrc) {
            self.statistics.dropped_foreign += 1;
            return;
        }
        if let Some(index) = self.strangers.receive(now, header, datagram)
            && self.may_take_over(now, self.strangers.get(index))
        {
            let proven = self.strangers.take(index);
            self.take_over(now, proven);
        }
    }

    /// Whether a proven source may take the place of the current one.
    fn may_take_over(&self, now: Instant, proven: &Probation) -> bool {
        let Some(current) = self.current.as_ref().filter(|current| !current.ended && current.believed_bye().is_none())
        else {
            return true;
        };
        let needed = if current.peer == proven.peer() {
            Duration::ZERO
        } else if current.peer.ip() == proven.peer().ip() {
            SAME_HOST_SILENCE
        } else {
            self.options.takeover_silence
        };
        now.saturating_since(current.last_arrival) >= needed
    }

    /// Makes a proven source the current one and takes the packets it had sent before the proof.
    fn take_over(&mut self, now: Instant, mut proven: Probation) {
        let (ssrc, peer, sequence) = (proven.ssrc(), proven.peer(), proven.first_sequence());
        let first = proven.pop_front().expect("a proven source holds what proved it");
        let (payload_type, local, interface) = (first.0.payload_type, first.1.local, first.1.interface);
        let last_arrival = first.1.arrival;

        let same = self.current.as_ref().filter(|current| current.ssrc == ssrc && !current.ended);
        if same.is_some() && matches!(self.sequence.judge(sequence), Judgement::At(_)) {
            let current = self.current.as_mut().expect("just seen");
            (current.peer, current.local, current.interface) = (peer, local, interface);
            current.rtcp_peer = None;
            self.statistics.peer_changes += 1;
            self.push_event(SourceEvent::PeerChanged { peer });
        } else {
            let event = match &self.current {
                None => SourceEvent::Started { ssrc, peer, sequence, payload_type },
                Some(current) => {
                    let reason = match () {
                        () if current.ssrc != ssrc => RestartReason::NewSsrc,
                        () if current.ended => RestartReason::Returned,
                        () => RestartReason::SequenceJump,
                    };
                    self.statistics.restarts += 1;
                    SourceEvent::Restarted { ssrc, peer, sequence, reason }
                }
            };
            self.push_event(event);
            self.current = Some(Current {
                ssrc,
                peer,
                local,
                interface,
                last_arrival,
                said_bye: None,
                ended: false,
                sender_report: None,
                rtcp_peer: None,
                heard_since_report: false,
            });
            let position = self.sequence.restart(sequence);
            self.reorder.restart(position);
            self.run = self.run.wrapping_add(1);
            self.jitter = Jitter::default();
            if self.report_timer.is_none()
                && let Some(reports) = &self.options.reports
            {
                self.report_timer =
                    Some(ReportTimer::new(now, reports.session_bandwidth_bps, reports.receivers, self.random));
            }
        }

        let mut held = Some(first);
        while let Some((header, datagram)) = held {
            match self.sequence.judge(header.sequence) {
                Judgement::At(position) if proven.is_close(&header) => self.accept(position, header, datagram),
                _ => self.statistics.dropped_probation += 1,
            }
            held = proven.pop_front();
        }
    }

    fn push_event(&mut self, event: SourceEvent) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            self.statistics.dropped_events += 1;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
