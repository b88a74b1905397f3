//! One source, from datagram to access units: the only place where protocol, container and codec meet.
//!
//! ```text
//! receive(datagram)        → the protocol: whose turn is it, what is missing, what is to be sent back
//! deliver(sink)            payloads in order and on time
//!                          → content: transport stream → tracks, or one elementary stream
//!                          → assembler → the open frame in the ring
//! ```
//!
//! A session (one peer's connection) attaches to an ingest and can be replaced by another; the content, its tracks and its
//! timeline stay.

use std::collections::VecDeque;
use std::time::Duration;

use super::elementary::ElementaryStream;
use super::frame::StreamSink;
use super::transport::TransportStream;
use crate::base::{Datagram, Instant, Transmit};
use crate::media::Payload;
use crate::protocol::rtp::raw_ts::{RawEvent, RawTransportStream};
use crate::protocol::rtp::{self, Encoding, PayloadTypes};
use crate::protocol::srt;

/// How long packets wait for the ring of a new track. A 64 MiB ring takes some 45 ms to make, one thread makes them all, and
/// after a power cut every feed of a site comes back in the same second.
const HOLD_MAX: Duration = Duration::from_secs(1);
/// No payload is due later than this after it came; the configuration allows no longer latency.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Payloads held meanwhile: `HOLD_MAX` at 80 Mbit/s.
const HELD_MAX: usize = 8_192;

/// One source. See the [module](self).
pub struct Ingest {
    protocol: Option<Protocol>,
    content: Content,
    payload_types: PayloadTypes,
    held: VecDeque<Delivery>,
    hold_until: Option<Instant>,
    events: VecDeque<IngestEvent>,
    statistics: IngestStatistics,
    /// The last payload type that nobody could explain, so that it is reported once.
    unknown_payload_type: Option<u8>,
}

/// The session of a source.
pub enum Protocol {
    /// SRT.
    Srt(Box<srt::connection::Connection>),
    /// RTP, one synchronization source.
    Rtp(Box<rtp::Source>),
    /// A transport stream in bare UDP datagrams.
    RawTransport(Box<RawTransportStream>),
}

/// What the payloads hold.
pub enum Content {
    /// Nothing came yet.
    Unknown,
    /// An MPEG-2 transport stream.
    Transport(Box<TransportStream>),
    /// One elementary stream.
    Elementary(Box<ElementaryStream>),
}

/// What happened, for whoever owns the source.
#[derive(Clone, Debug, PartialEq)]
pub enum IngestEvent {
    /// The SRT connection says.
    Srt(srt::connection::Event),
    /// The RTP source says.
    Rtp(rtp::SourceEvent),
    /// The raw transport stream says.
    Raw(RawEvent),
    /// RTP payloads of a type that is not known, which are dropped; told once per type.
    UnknownPayloadType(u8),
}

/// What was counted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestStatistics {
    /// Payloads that went on to the content.
    pub payloads: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Payloads that never came.
    pub lost: u64,
    /// Payloads that were lost at first.
    pub recovered: u64,
    /// Payloads of an unknown type.
    pub unknown_payload_type: u64,
    /// Payloads given up because too many waited for a ring.
    pub held_dropped: u64,
}

/// A payload, and what RTP says of it.
struct Delivery {
    payload: Payload,
    rtp: Option<RtpFacts>,
    /// Bytes of it that the content has taken already.
    taken: usize,
}

#[derive(Clone, Copy)]
struct RtpFacts {
    timestamp: i64,
    marker: bool,
    payload_type: u8,
    restart: bool,
}

impl Ingest {
    /// A source without a session; `payload_types` says what RTP payload types carry.
    pub fn new(payload_types: PayloadTypes) -> Self {
        Self {
            protocol: None,
            content: Content::Unknown,
            payload_types,
            held: VecDeque::with_capacity(HELD_MAX),
            hold_until: None,
            events: VecDeque::new(),
            statistics: IngestStatistics::default(),
            unknown_payload_type: None,
        }
    }

    /// A session takes the source over; what follows is a new segment if there was one before.
    pub fn attach(&mut self, protocol: Protocol) {
        self.protocol = Some(protocol);
        match &mut self.content {
            Content::Unknown => {}
            Content::Transport(transport) => transport.restart(),
            Content::Elementary(elementary) => elementary.restart(),
        }
    }

    /// The session is over: publishes what is open.
    pub fn detach<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        self.hold_until = None;
        self.release(now, sink);
        // Nobody will fill the gaps any more: what waits for its time, or for others before it, comes out now.
        while let Some(mut delivery) = poll(&mut self.protocol, now + LATENCY_MAX) {
            while !self.take(now, &mut delivery, sink) {}
        }
        self.protocol = None;
        self.finish(now, sink);
    }

    /// Gives the session away, for another source to attach.
    pub fn take_protocol(&mut self) -> Option<Protocol> {
        self.protocol.take()
    }

    /// Ends the session from this side: the peer is told, and what is held still comes out when it is due.
    pub fn close(&mut self, now: Instant) {
        match &mut self.protocol {
            Some(Protocol::Srt(connection)) => connection.close(now, srt::connection::CloseReason::Local),
            Some(Protocol::Rtp(source)) => source.close(),
            Some(Protocol::RawTransport(_)) | None => {}
        }
    }

    /// The session is over before there was anything to write to.
    pub fn discard(&mut self) {
        self.hold_until = None;
        self.held.clear();
        self.protocol = None;
    }

    /// Takes a datagram of the session. Its payload comes out with [`deliver`](Self::deliver).
    #[inline]
    pub fn receive(&mut self, now: Instant, datagram: Datagram) {
        match &mut self.protocol {
            Some(Protocol::Srt(connection)) => connection.receive(now, datagram),
            Some(Protocol::Rtp(source)) => source.receive(now, datagram),
            Some(Protocol::RawTransport(raw)) => raw.receive(now, datagram),
            None => {}
        }
    }

    /// Takes a control datagram of an RTP session.
    pub fn receive_rtcp(&mut self, now: Instant, datagram: &Datagram) {
        if let Some(Protocol::Rtp(source)) = &mut self.protocol {
            source.receive_rtcp(now, datagram);
        }
    }

    /// Does what the session's timers ask for.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.protocol {
            Some(Protocol::Srt(connection)) => connection.handle_timeout(now),
            Some(Protocol::Rtp(source)) => source.handle_timeout(now),
            Some(Protocol::RawTransport(raw)) => raw.handle_timeout(now),
            None => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) and [`deliver`](Self::deliver) next have something to do.
    #[inline]
    pub fn next_timeout(&self) -> Option<Instant> {
        let protocol = match &self.protocol {
            Some(Protocol::Srt(connection)) => connection.next_timeout(),
            Some(Protocol::Rtp(source)) => source.next_timeout(),
            Some(Protocol::RawTransport(raw)) => raw.next_timeout(),
            None => None,
        };
        match (protocol, self.hold_until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Hands every payload that is due to the content, which writes frames into `sink`.
    #[inline]
    pub fn deliver<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        if self.hold_until.is_some() && !self.release(now, sink) {
            while let Some(delivery) = poll(&mut self.protocol, now) {
                self.hold(delivery);
            }
            return;
        }
        while let Some(mut delivery) = poll(&mut self.protocol, now) {
            if !self.take(now, &mut delivery, sink) {
                // A new track: what comes now waits for its ring.
                self.held.push_front(delivery);
                self.hold_until = Some(now + HOLD_MAX);
                return self.deliver(now, sink);
            }
        }
    }

    /// Closes frames to which nothing was added for `timeout`.
    pub fn expire<S: StreamSink>(&mut self, now: Instant, timeout: Duration, sink: &mut S) {
        match &mut self.content {
            Content::Unknown => {}
            Content::Transport(transport) => transport.expire(now, timeout, sink),
            Content::Elementary(elementary) => elementary.expire(now, timeout, sink),
        }
    }

    /// Publishes what is open; nothing more is expected for now.
    pub fn finish<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        match &mut self.content {
            Content::Unknown => {}
            Content::Transport(transport) => transport.finish(now, sink),
            Content::Elementary(elementary) => elementary.finish(now, sink),
        }
    }

    /// The next datagram to send; its bytes are appended to `buffer`.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        match &mut self.protocol {
            Some(Protocol::Srt(connection)) => connection.poll_transmit(now, buffer),
            Some(Protocol::Rtp(source)) => source.poll_transmit(now, buffer),
            Some(Protocol::RawTransport(_)) | None => None,
        }
    }

    /// The next thing to report.
    pub fn poll_event(&mut self) -> Option<IngestEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        match &mut self.protocol {
            Some(Protocol::Srt(connection)) => connection.poll_event().map(IngestEvent::Srt),
            Some(Protocol::Rtp(source)) => source.poll_event().map(IngestEvent::Rtp),
            Some(Protocol::RawTransport(raw)) => raw.poll_event().map(IngestEvent::Raw),
            None => None,
        }
    }

    /// The session, if there is one.
    pub fn protocol(&self) -> Option<&Protocol> {
        self.protocol.as_ref()
    }

    /// The session, to be changed.
    pub fn protocol_mut(&mut self) -> Option<&mut Protocol> {
        self.protocol.as_mut()
    }

    /// What the payloads hold.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// What was counted.
    pub fn statistics(&self) -> &IngestStatistics {
        &self.statistics
    }

    /// Packets that the source keeps in packet memory.
    pub fn held_packets(&self) -> usize {
        let protocol = match &self.protocol {
            Some(Protocol::Srt(connection)) => connection.held_packets(),
            Some(Protocol::Rtp(_) | Protocol::RawTransport(_)) | None => 0,
        };
        protocol + self.held.len()
    }

    fn hold(&mut self, delivery: Delivery) {
        if self.held.len() == HELD_MAX {
            self.held.pop_front();
            self.statistics.held_dropped += 1;
            if let Some(next) = self.held.front_mut() {
                next.payload.lost_before += 1;
            }
        }
        self.held.push_back(delivery);
    }

    /// Gives the held payloads on if all rings are there or the time for them is over; `false` if they stay held.
    fn release<S: StreamSink>(&mut self, now: Instant, sink: &mut S) -> bool {
        if sink.is_opening() && self.hold_until.is_some_and(|until| now < until) {
            return false;
        }
        let give_up = self.hold_until.take().is_some() && sink.is_opening();
        while let Some(mut delivery) = self.held.pop_front() {
            while !self.take(now, &mut delivery, sink) {
                if !give_up {
                    // Another track has turned up among what was held.
                    self.held.push_front(delivery);
                    self.hold_until = Some(now + HOLD_MAX);
                    return false;
                }
            }
        }
        true
    }

    /// Gives a payload to the content; `false` if the content stopped at a new track whose ring is not there yet.
    #[inline]
    fn take<S: StreamSink>(&mut self, now: Instant, delivery: &mut Delivery, sink: &mut S) -> bool {
        if delivery.taken == 0 {
            let payload = &delivery.payload;
            self.statistics.payloads += 1;
            self.statistics.bytes += payload.packet.len() as u64;
            self.statistics.lost += u64::from(payload.lost_before);
            self.statistics.recovered += u64::from(payload.recovered);
        }
        match delivery.rtp {
            None => self.take_transport(now, delivery, sink),
            Some(facts) => {
                let taken = self.take_rtp(now, delivery, facts, sink);
                // A payload that is given again is not a second restart.
                delivery.rtp = Some(RtpFacts { restart: false, ..facts });
                taken
            }
        }
    }

    #[inline]
    fn take_transport<S: StreamSink>(&mut self, now: Instant, delivery: &mut Delivery, sink: &mut S) -> bool {
        match self.transport().receive(now, &delivery.payload, delivery.taken, sink) {
            None => true,
            Some(taken) => {
                delivery.taken = taken;
                false
            }
        }
    }

    fn take_rtp<S: StreamSink>(
        &mut self,
        now: Instant,
        delivery: &mut Delivery,
        facts: RtpFacts,
        sink: &mut S,
    ) -> bool {
        let Some(format) = self.payload_types.get(facts.payload_type) else {
            self.statistics.unknown_payload_type += 1;
            if self.unknown_payload_type.replace(facts.payload_type) != Some(facts.payload_type) {
                self.events.push_back(IngestEvent::UnknownPayloadType(facts.payload_type));
            }
            return true;
        };
        if format.encoding == Encoding::Mp2t {
            if facts.restart && delivery.taken == 0 {
                self.transport().restart();
            }
            return self.take_transport(now, delivery, sink);
        }
        if !matches!(&self.content, Content::Elementary(elementary) if elementary.carries(&format.encoding)) {
            let ssrc = match &self.protocol {
                Some(Protocol::Rtp(source)) => source.ssrc().unwrap_or(0),
                _ => 0,
            };
            let Some(elementary) = ElementaryStream::new(format, ssrc, sink) else {
                self.statistics.unknown_payload_type += 1;
                return true;
            };
            self.finish(now, sink);
            self.content = Content::Elementary(Box::new(elementary));
            if sink.is_opening() {
                return false;
            }
        } else if let (true, Content::Elementary(elementary)) = (facts.restart, &mut self.content) {
            elementary.restart();
        }
        let Content::Elementary(elementary) = &mut self.content else { unreachable!("it was just made one") };
        elementary.receive(now, &delivery.payload, facts.timestamp, facts.marker, sink);
        true
    }

    #[inline]
    fn transport(&mut self) -> &mut TransportStream {
        if !matches!(self.content, Content::Transport(_)) {
            self.content = Content::Transport(Box::default());
        }
        let Content::Transport(transport) = &mut self.content else { unreachable!("it was just made one") };
        transport
    }
}

#[inline]
fn poll(protocol: &mut Option<Protocol>, now: Instant) -> Option<Delivery> {
    match protocol {
        Some(Protocol::Srt(connection)) => {
            connection.poll_payload(now).map(|payload| Delivery { payload, rtp: None, taken: 0 })
        }
        Some(Protocol::Rtp(source)) => source.poll_payload(now).map(|delivered| Delivery {
            rtp: Some(RtpFacts {
                timestamp: delivered.timestamp,
                marker: delivered.marker,
                payload_type: delivered.payload_type,
                restart: delivered.restart,
            }),
            payload: delivered.payload,
            taken: 0,
        }),
        Some(Protocol::RawTransport(raw)) => {
            raw.poll_payload(now).map(|payload| Delivery { payload, rtp: None, taken: 0 })
        }
        None => None,
    }
}

#[cfg(test)]
mod tests;
