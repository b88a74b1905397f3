//! One source, from datagram to access units: the only place where protocol, container and codec meet.
//!
//! ```text
//! receive(datagram)        → the protocol: whose turn is it, what is missing, what is to be sent back
//! deliver(sink)            payloads in order, as soon as none is missing before them
//!                          → content: transport stream → tracks, or one elementary stream
//!                          → assembler → the open frame in the ring, which publishes it when it is due
//! ```
//!
//! A session (one peer's connection) attaches to an ingest and can be replaced by another; the content, its tracks and its
//! timeline stay.

use std::collections::VecDeque;
use std::time::Duration;

use super::elementary::ElementaryStream;
use super::frame::StreamSink;
use super::transport::TransportStream;
use crate::base::{Datagram, Instant, Transmit, prefetch};
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

/// How often the payloads of one source may turn into something else (transport stream, elementary stream): each time costs
/// rings, and only a hostile sender goes to and fro.
const CONTENT_CHANGES_MAX: u32 = 8;

/// One source. See the [module](self).
pub struct Ingest {
    protocol: Option<Protocol>,
    content: Content,
    content_changes: u32,
    payload_types: PayloadTypes,
    held: VecDeque<Delivery>,
    hold_until: Option<Instant>,
    /// The session is over, and its last payloads wait for a ring.
    ending: bool,
    /// The next payload is the first of its session.
    begins: bool,
    events: VecDeque<IngestEvent>,
    statistics: IngestStatistics,
    /// The last payload type that nobody could explain, so that it is reported once.
    /// Bit n: type n was told.
    unknown_payload_types: u128,
}

/// The session of a source.
pub enum Protocol {
    /// SRT.
    Srt(Box<srt::connection::Connection>),
    /// SRT over several connections.
    SrtGroup(Box<srt::group::Group>),
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
    /// The bonding group says.
    SrtGroup(srt::group::Event),
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

/// A payload that waits for a ring.
struct Delivery {
    payload: Payload,
    progress: Progress,
}

/// Where a payload stands on its way. It lies apart from the payload, which stays where it is given out by SRT: a copy of what has just
/// been written piece by piece waits until all earlier stores are done, those to cold memory too.
#[derive(Clone, Copy, Default)]
struct Progress {
    rtp: Option<RtpFacts>,
    /// Bytes of it that the content has taken already.
    taken: usize,
    /// It is the first of its session.
    begins: bool,
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
            content_changes: 0,
            payload_types,
            held: VecDeque::with_capacity(HELD_MAX),
            hold_until: None,
            ending: false,
            begins: false,
            events: VecDeque::new(),
            statistics: IngestStatistics::default(),
            unknown_payload_types: 0,
        }
    }

    /// A session takes the source over; what follows is a new segment if there was one before.
    pub fn attach(&mut self, protocol: Protocol) {
        self.protocol = Some(protocol);
        // Told to the content with the first payload: some of the session before may still wait for a ring.
        self.begins = true;
        self.ending = false;
    }

    /// The session is over: publishes what is open, now or when the rings are there that its last payloads wait for.
    pub fn detach<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        self.ending = true;
        // Nobody will fill the gaps any more: what waits for its time, or for others before it, comes out now.
        self.deliver_due(now, now + LATENCY_MAX, sink);
        self.protocol = None;
        self.finish_if_over(now, sink);
    }

    /// The session is over before there was anything to write to: what it has sent waits for that.
    pub fn detach_unopened(&mut self, now: Instant) {
        self.ending = true;
        self.hold_due(now + LATENCY_MAX);
        self.hold_until = Some(now + HOLD_MAX);
        self.protocol = None;
    }

    /// The session is over, and so is the wait for rings: publishes everything.
    pub fn conclude<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        self.detach(now, sink);
        if self.hold_until.is_some() {
            self.hold_until = Some(now);
            self.deliver(now, sink);
        }
    }

    /// Gives the session away, for another source to attach.
    pub fn take_protocol(&mut self) -> Option<Protocol> {
        self.protocol.take()
    }

    /// Ends the session from this side: the peer is told, and what is held still comes out when it is due.
    pub fn close(&mut self) {
        match &mut self.protocol {
            Some(Protocol::Srt(connection)) => connection.shut_down(),
            Some(Protocol::SrtGroup(group)) => group.shut_down(),
            Some(Protocol::Rtp(source)) => source.close(),
            Some(Protocol::RawTransport(_)) | None => {}
        }
    }

    /// Asks the processor for what the next payload is likely to need: link by link of the chain, `step` 0 first.
    #[inline]
    pub fn prefetch(&self, step: usize) {
        match (step.checked_sub(1), &self.content) {
            (None, content) => prefetch(content),
            (Some(step), Content::Transport(transport)) => transport.prefetch(step),
            _ => {}
        }
    }

    /// Takes a datagram of the session. Its payload comes out with [`deliver`](Self::deliver).
    #[inline]
    pub fn receive(&mut self, now: Instant, datagram: Datagram) {
        match &mut self.protocol {
            Some(Protocol::Srt(connection)) => connection.receive(now, datagram),
            Some(Protocol::SrtGroup(group)) => group.receive(now, datagram),
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
            Some(Protocol::SrtGroup(group)) => group.handle_timeout(now),
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
            Some(Protocol::SrtGroup(group)) => group.next_timeout(),
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
        self.deliver_due(now, now, sink);
    }

    #[inline]
    fn deliver_due<S: StreamSink>(&mut self, now: Instant, due: Instant, sink: &mut S) {
        if self.hold_until.is_some() && !self.release(now, sink) {
            return self.hold_due(due);
        }
        let mut progress = Progress::default();
        loop {
            // Looked at where it is: see `Progress`.
            let polled = self.poll(due, sink.takes_early(), &mut progress);
            let Some(payload) = &polled else { break };
            make_room(now, sink);
            if !self.take(now, payload, &mut progress, sink) {
                // A new track: what comes now waits for its ring.
                if let Some(payload) = polled {
                    self.held.push_front(Delivery { payload, progress });
                }
                self.hold_until = Some(now + HOLD_MAX);
                return self.deliver_due(now, due, sink);
            }
        }
        if self.ending {
            self.finish_if_over(now, sink);
        }
    }

    fn finish_if_over<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        if self.protocol.is_none() && self.hold_until.is_none() && std::mem::take(&mut self.ending) {
            self.finish(now, sink);
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
            Some(Protocol::SrtGroup(group)) => group.poll_transmit(now, buffer),
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
            Some(Protocol::SrtGroup(group)) => group.poll_event().map(IngestEvent::SrtGroup),
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
            Some(Protocol::SrtGroup(group)) => group.held_packets(),
            Some(Protocol::Rtp(source)) => source.held_packets(),
            Some(Protocol::RawTransport(raw)) => raw.held_packets(),
            None => 0,
        };
        protocol + self.held.len()
    }

    fn hold_due(&mut self, due: Instant) {
        let mut progress = Progress::default();
        while let Some(payload) = self.poll(due, false, &mut progress) {
            self.hold(Delivery { payload, progress });
        }
    }

    fn hold(&mut self, delivery: Delivery) {
        if self.held.len() == HELD_MAX
            && let Some(dropped) = self.held.pop_front()
        {
            self.statistics.held_dropped += 1;
            if let Some(next) = self.held.front_mut() {
                next.payload.lost_before += 1 + dropped.payload.lost_before;
                next.progress.begins |= dropped.progress.begins;
            }
        }
        self.held.push_back(delivery);
    }

    #[inline]
    fn poll(&mut self, due: Instant, early: bool, progress: &mut Progress) -> Option<Payload> {
        *progress = Progress::default();
        let payload = poll(&mut self.protocol, due, early, &mut progress.rtp);
        if payload.is_some() {
            progress.begins = std::mem::take(&mut self.begins);
        }
        payload
    }

    /// Gives the held payloads on if all rings are there or the time for them is over; `false` if they stay held.
    fn release<S: StreamSink>(&mut self, now: Instant, sink: &mut S) -> bool {
        if sink.is_opening() && self.hold_until.is_some_and(|until| now < until) {
            return false;
        }
        let give_up = self.hold_until.take().is_some() && sink.is_opening();
        while let Some(mut delivery) = self.held.pop_front() {
            make_room(now, sink);
            while !self.take(now, &delivery.payload, &mut delivery.progress, sink) {
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
    fn take<S: StreamSink>(&mut self, now: Instant, payload: &Payload, progress: &mut Progress, sink: &mut S) -> bool {
        if std::mem::take(&mut progress.begins) {
            self.restart(now, sink);
        }
        if progress.taken == 0 {
            self.statistics.payloads += 1;
            self.statistics.bytes += payload.packet.len() as u64;
            self.statistics.lost += u64::from(payload.lost_before);
            self.statistics.recovered += u64::from(payload.recovered);
        }
        match progress.rtp {
            None => {
                self.become_transport(now, sink);
                self.take_transport(now, payload, progress, sink)
            }
            Some(facts) => {
                let taken = self.take_rtp(now, payload, progress, facts, sink);
                // A payload that is given again is not a second restart.
                progress.rtp = Some(RtpFacts { restart: false, ..facts });
                taken
            }
        }
    }

    /// What comes from here on is of another session than what came before.
    fn restart<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        self.finish(now, sink);
        // The new session may have a shorter latency: its frames do not wait for the time of those before them.
        sink.publish_all(now);
        match &mut self.content {
            Content::Unknown => {}
            Content::Transport(transport) => transport.restart(),
            Content::Elementary(elementary) => elementary.restart(),
        }
    }

    #[inline]
    fn take_transport<S: StreamSink>(
        &mut self,
        now: Instant,
        payload: &Payload,
        progress: &mut Progress,
        sink: &mut S,
    ) -> bool {
        let Content::Transport(transport) = &mut self.content else {
            self.statistics.unknown_payload_type += 1;
            return true;
        };
        match transport.receive(now, payload, progress.taken, sink) {
            None => true,
            Some(taken) => {
                progress.taken = taken;
                false
            }
        }
    }

    fn take_rtp<S: StreamSink>(
        &mut self,
        now: Instant,
        payload: &Payload,
        progress: &mut Progress,
        facts: RtpFacts,
        sink: &mut S,
    ) -> bool {
        let Some(format) = self.payload_types.get(facts.payload_type) else {
            self.statistics.unknown_payload_type += 1;
            let its_bit = 1 << (facts.payload_type & 0x7f);
            if self.unknown_payload_types & its_bit == 0 {
                self.unknown_payload_types |= its_bit;
                self.events.push_back(IngestEvent::UnknownPayloadType(facts.payload_type));
            }
            return true;
        };
        if format.encoding == Encoding::Mp2t {
            self.become_transport(now, sink);
            if let (true, 0, Content::Transport(transport)) = (facts.restart, progress.taken, &mut self.content) {
                transport.restart();
            }
            return self.take_transport(now, payload, progress, sink);
        }
        if !matches!(&self.content, Content::Elementary(elementary) if elementary.carries(&format.encoding)) {
            let ssrc = match &self.protocol {
                Some(Protocol::Rtp(source)) => source.ssrc().unwrap_or(0),
                _ => 0,
            };
            if self.content_changes == CONTENT_CHANGES_MAX {
                self.statistics.unknown_payload_type += 1;
                return true;
            }
            let Some(elementary) = ElementaryStream::new(format, ssrc, sink) else {
                self.statistics.unknown_payload_type += 1;
                return true;
            };
            self.end_content(now, sink);
            self.content = Content::Elementary(Box::new(elementary));
            if sink.is_opening() {
                return false;
            }
        } else if let (true, Content::Elementary(elementary)) = (facts.restart, &mut self.content) {
            elementary.restart();
        }
        let Content::Elementary(elementary) = &mut self.content else { unreachable!("it was just made one") };
        elementary.receive(now, payload, facts.timestamp, facts.marker, sink);
        true
    }

    /// What comes is a transport stream, unless the source has changed too often already.
    #[inline]
    fn become_transport<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        if !matches!(self.content, Content::Transport(_)) && self.content_changes < CONTENT_CHANGES_MAX {
            self.end_content(now, sink);
            self.content = Content::Transport(Box::default());
        }
    }

    fn end_content<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        self.content_changes += 1;
        match &mut self.content {
            Content::Unknown => {}
            Content::Transport(transport) => transport.end(now, sink),
            Content::Elementary(elementary) => elementary.end(now, sink),
        }
    }
}

/// What comes now is due, or nobody waits for its time: if there is no room for frames that wait, those before it wait no longer.
#[inline]
fn make_room<S: StreamSink>(now: Instant, sink: &mut S) {
    if !sink.takes_early() {
        sink.publish_all(now);
    }
}

#[inline]
fn poll(protocol: &mut Option<Protocol>, now: Instant, early: bool, facts: &mut Option<RtpFacts>) -> Option<Payload> {
    match protocol {
        Some(Protocol::Srt(connection)) if early => connection.poll_payload_early(now),
        Some(Protocol::Srt(connection)) => connection.poll_payload(now),
        Some(Protocol::SrtGroup(group)) if early => group.poll_payload_early(now),
        Some(Protocol::SrtGroup(group)) => group.poll_payload(now),
        Some(Protocol::Rtp(source)) => source.poll_payload(now).map(|delivered| {
            *facts = Some(RtpFacts {
                timestamp: delivered.timestamp,
                marker: delivered.marker,
                payload_type: delivered.payload_type,
                restart: delivered.restart,
            });
            delivered.payload
        }),
        Some(Protocol::RawTransport(raw)) => raw.poll_payload(now),
        None => None,
    }
}

#[cfg(test)]
mod tests;
