//! MPEG-TS on UDP with no RTP header: whatever a sender's datagrams hold, in the order of their arrival.
//!
//! Nothing numbers the datagrams, so nothing tells what was lost; the demultiplexer sees it by the continuity counters.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::{Datagram, Instant};
use crate::media::Payload;

/// Payloads that may lie ready before the caller polls.
const READY_LIMIT: usize = 1024;

/// What a [`RawTransportStream`] is to do.
#[derive(Clone, Copy, Debug)]
pub struct RawOptions {
    /// Silence after which a sender at another address may take the stream over.
    pub takeover_silence: Duration,
    /// Silence after which the sender has ended.
    pub session_timeout: Duration,
}

impl Default for RawOptions {
    fn default() -> Self {
        Self { takeover_silence: Duration::from_secs(1), session_timeout: Duration::from_secs(30) }
    }
}

/// What happened to a raw transport stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawEvent {
    /// The first datagram came.
    Started {
        /// From here.
        peer: SocketAddr,
    },
    /// Datagrams come from another address now.
    PeerChanged {
        /// From here.
        peer: SocketAddr,
    },
    /// The sender has been silent for longer than the session time-out.
    Ended,
}

/// What a [`RawTransportStream`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawStatistics {
    /// Datagrams handed on.
    pub payloads_delivered: u64,
    /// Their octets.
    pub octets_received: u64,
    /// Dropped: from another address while the sender is sending.
    pub dropped_foreign: u64,
    /// Dropped: the caller did not poll.
    pub dropped_overrun: u64,
    /// Dropped: nothing in it.
    pub dropped_empty: u64,
}

/// One raw transport stream.
#[derive(Debug)]
pub struct RawTransportStream {
    options: RawOptions,
    sender: Option<(SocketAddr, Instant)>,
    started: bool,
    sequence: u64,
    ready: VecDeque<Payload>,
    events: VecDeque<RawEvent>,
    statistics: RawStatistics,
}

impl RawTransportStream {
    /// A stream without a sender yet.
    pub fn new(options: RawOptions) -> Self {
        Self {
            options,
            sender: None,
            started: false,
            sequence: 0,
            ready: VecDeque::with_capacity(READY_LIMIT),
            events: VecDeque::with_capacity(4),
            statistics: RawStatistics::default(),
        }
    }

    /// Takes a datagram.
    #[inline]
    pub fn receive(&mut self, now: Instant, datagram: Datagram) {
        if datagram.packet.is_empty() {
            self.statistics.dropped_empty += 1;
            return;
        }
        match &mut self.sender {
            Some((peer, last)) if *peer == datagram.peer => *last = datagram.arrival,
            Some((_, last)) if now.saturating_since(*last) < self.options.takeover_silence => {
                self.statistics.dropped_foreign += 1;
                return;
            }
            _ => self.take_over(&datagram),
        }
        if self.ready.len() == READY_LIMIT {
            self.statistics.dropped_overrun += 1;
            return;
        }
        if self.ready.is_empty() {
            // Starts again at the front of its memory, which is warm in the cache.
            self.ready.clear();
        }
        self.statistics.octets_received += datagram.packet.len() as u64;
        self.ready.push_back(Payload {
            packet: datagram.packet,
            arrival: datagram.arrival,
            due: datagram.arrival,
            sequence: self.sequence,
            lost_before: 0,
            recovered: false,
            path_mask: 1_u8.checked_shl(u32::from(datagram.path)).unwrap_or(0),
            ends_message: true,
        });
        self.sequence += 1;
    }

    /// Ends a silent sender.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_some_and(|due| due <= now) {
            self.sender = None;
            self.push_event(RawEvent::Ended);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.sender.map(|(_, last)| last + self.options.session_timeout)
    }

    /// The next payload.
    #[inline]
    pub fn poll_payload(&mut self, _now: Instant) -> Option<Payload> {
        let payload = self.ready.pop_front()?;
        self.statistics.payloads_delivered += 1;
        Some(payload)
    }

    /// Packets that wait to be polled.
    #[inline]
    pub fn held_packets(&self) -> usize {
        self.ready.len()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<RawEvent> {
        self.events.pop_front()
    }

    /// What has been counted.
    pub fn statistics(&self) -> RawStatistics {
        self.statistics
    }

    /// Address of the current sender.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.sender.map(|(peer, _)| peer)
    }

    #[cold]
    fn take_over(&mut self, datagram: &Datagram) {
        let peer = datagram.peer;
        self.sender = Some((peer, datagram.arrival));
        self.push_event(if self.started { RawEvent::PeerChanged { peer } } else { RawEvent::Started { peer } });
        self.started = true;
    }

    fn push_event(&mut self, event: RawEvent) {
        // Only the latest events matter to a caller that does not poll.
        if self.events.len() == self.events.capacity() {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::tests::{Bench, PEER, peer};
    use super::*;

    #[test]
    fn datagrams_pass_in_order_of_arrival_and_are_numbered() {
        let bench = Bench::new();
        let mut stream = RawTransportStream::new(RawOptions::default());
        for round in 0..3_u8 {
            let now = Instant::from_millis(u64::from(round));
            stream.receive(now, bench.datagram(now, peer(1), &[0x47, round]));
            let payload = stream.poll_payload(now).unwrap();
            assert_eq!(
                (&payload.packet[..], payload.sequence, payload.lost_before),
                (&[0x47, round][..], u64::from(round), 0)
            );
            assert_eq!((payload.arrival, payload.path_mask), (now, 1));
            assert!(stream.poll_payload(now).is_none());
        }
        assert_eq!(stream.poll_event(), Some(RawEvent::Started { peer: peer(1) }));
        assert_eq!(stream.statistics().octets_received, 6);
    }

    #[test]
    fn another_sender_waits_until_the_first_is_silent() {
        let bench = Bench::new();
        let mut stream = RawTransportStream::new(RawOptions::default());
        stream.receive(Instant::ZERO, bench.datagram(Instant::ZERO, PEER, &[0x47]));
        let early = Instant::from_millis(999);
        stream.receive(early, bench.datagram(early, peer(2), &[0x47]));
        assert_eq!((stream.peer(), stream.statistics().dropped_foreign), (Some(PEER), 1));
        let later = Instant::from_millis(1_000);
        stream.receive(later, bench.datagram(later, peer(2), &[0x47]));
        assert_eq!(stream.peer(), Some(peer(2)));
        assert_eq!(stream.next_timeout(), Some(Instant::from_millis(31_000)));
        stream.handle_timeout(Instant::from_millis(31_000));
        let events: Vec<_> = std::iter::from_fn(|| stream.poll_event()).collect();
        assert_eq!(
            events,
            [RawEvent::Started { peer: PEER }, RawEvent::PeerChanged { peer: peer(2) }, RawEvent::Ended]
        );
        assert_eq!(stream.next_timeout(), None);
    }
}
