//! Where the datagrams of all feeds of a thread leave: through a bad network if one is asked for, in aggregates if wanted.

use crate::base::{Instant, Packet};
use crate::shard::net::Incoming;
use crate::shard::net::impairment::{Conditions, DelayLine, Fate, Impairment, ImpairmentStatistics};
use crate::shard::net::outbound::{AGGREGATE_MAX, Outbound, OutboundError, OutboundSocket};

/// The way out.
pub struct Outlet {
    net: Outbound,
    aggregate: Aggregate,
    bad_network: Option<BadNetwork>,
    counts: OutletCounts,
}

/// What has left.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutletCounts {
    /// Datagrams handed to the sockets, control packets and repetitions included.
    pub datagrams: u64,
    /// Bytes of them, without IP and UDP headers.
    pub bytes: u64,
}

/// Datagrams of one socket that leave as one.
struct Aggregate {
    most: usize,
    socket: usize,
    segment: usize,
    count: usize,
    bytes: Vec<u8>,
}

struct BadNetwork {
    /// One path for each socket.
    paths: Vec<Impairment>,
    line: DelayLine<(usize, Packet)>,
}

impl Outlet {
    /// An outlet for `sockets` sockets of `net` that sends up to `aggregate` datagrams as one.
    pub fn new(net: Outbound, aggregate: usize) -> Self {
        let bytes = Vec::with_capacity(if aggregate > 1 { AGGREGATE_MAX } else { 0 });
        Self {
            net,
            aggregate: Aggregate { most: aggregate, socket: 0, segment: 0, count: 0, bytes },
            bad_network: None,
            counts: OutletCounts::default(),
        }
    }

    /// Opens the socket of the next feed.
    ///
    /// # Errors
    /// There is no way to the peer.
    pub fn open(&mut self, socket: &OutboundSocket) -> Result<usize, OutboundError> {
        Ok(self.net.open(socket)?.0)
    }

    /// From now on everything passes a network of these conditions; each socket has a path of its own.
    pub fn impair(&mut self, conditions: &Conditions, seed: u64, sockets: usize, capacity: usize, now: Instant) {
        let path = |n| Impairment::new(conditions.clone(), seed.wrapping_add(n as u64), now);
        self.bad_network = Some(BadNetwork { paths: (0..sockets).map(path).collect(), line: DelayLine::new(capacity) });
    }

    /// A datagram leaves.
    #[inline]
    pub fn send(&mut self, now: Instant, socket: usize, bytes: &[u8]) {
        match &mut self.bad_network {
            None => self.emit(socket, bytes),
            Some(bad) => match bad.paths[socket].judge(now, bytes.len()) {
                Fate::Lost(_) => {}
                Fate::Arrives { at, again_at } => {
                    for at in std::iter::once(at).chain(again_at) {
                        self.deliver(now, at, socket, bytes);
                    }
                }
            },
        }
    }

    fn deliver(&mut self, now: Instant, at: Instant, socket: usize, bytes: &[u8]) {
        let Some(bad) = &mut self.bad_network else { return };
        if at <= now && bad.line.is_empty() {
            return self.emit(socket, bytes);
        }
        // Memory and line are as large as delay and rate ask for; what does not fit is counted by them.
        if let Some(packet) = self.net.pool().copy_from(bytes) {
            let _ = bad.line.push(at, (socket, packet));
        }
    }

    /// What was under way and has arrived by `now` leaves.
    pub fn release(&mut self, now: Instant) {
        while let Some((socket, packet)) = self.bad_network.as_mut().and_then(|bad| bad.line.pop(now)) {
            self.emit(socket, &packet);
        }
    }

    #[inline]
    fn emit(&mut self, socket: usize, bytes: &[u8]) {
        self.counts.datagrams += 1;
        self.counts.bytes += bytes.len() as u64;
        if self.aggregate.most < 2 {
            return self.net.send(socket, bytes);
        }
        let aggregate = &mut self.aggregate;
        let fits = aggregate.socket == socket
            && bytes.len() <= aggregate.segment
            && aggregate.bytes.len() + bytes.len() <= AGGREGATE_MAX;
        if aggregate.count > 0 && !fits {
            self.flush_aggregate();
        }
        let aggregate = &mut self.aggregate;
        if aggregate.count == 0 {
            aggregate.socket = socket;
            aggregate.segment = bytes.len();
        }
        aggregate.bytes.extend_from_slice(bytes);
        aggregate.count += 1;
        // Only the last of an aggregate may be shorter.
        if bytes.len() < aggregate.segment || aggregate.count >= aggregate.most {
            self.flush_aggregate();
        }
    }

    /// What waits for more of its kind leaves.
    #[inline]
    pub fn flush_aggregate(&mut self) {
        let aggregate = &mut self.aggregate;
        match aggregate.count {
            0 => return,
            1 => self.net.send(aggregate.socket, &aggregate.bytes),
            _ => self.net.send_aggregate(aggregate.socket, aggregate.segment as u16, &aggregate.bytes),
        }
        aggregate.bytes.clear();
        aggregate.count = 0;
    }

    /// Submits what is queued and sleeps, see [`Outbound::wait`].
    ///
    /// # Errors
    /// The ring is broken.
    #[inline]
    pub fn wait(&mut self, now: Instant, wake: Instant, awaited: bool) -> Result<(), OutboundError> {
        let wake = self.next_arrival().map_or(wake, |at| at.min(wake));
        self.net.wait(now, wake, awaited)
    }

    /// Hands out what has come, see [`Outbound::drain`].
    ///
    /// # Errors
    /// The ring is broken.
    #[inline]
    pub fn drain(&mut self, sink: impl FnMut(Incoming)) -> Result<(), OutboundError> {
        self.net.drain(sink)
    }

    fn next_arrival(&self) -> Option<Instant> {
        self.bad_network.as_ref().and_then(|bad| bad.line.next_at())
    }

    /// Whether anything is still under way.
    pub fn is_busy(&self) -> bool {
        self.bad_network.as_ref().is_some_and(|bad| !bad.line.is_empty())
    }

    /// What has left.
    pub const fn counts(&self) -> OutletCounts {
        self.counts
    }

    /// What the bad network has done, all paths together, and what its memory was too small for.
    pub fn impairment(&self) -> Option<(ImpairmentStatistics, u64)> {
        let bad = self.bad_network.as_ref()?;
        let mut sum = ImpairmentStatistics::default();
        for path in &bad.paths {
            sum.add(path.statistics());
        }
        let memory = self.net.pool().statistics();
        Some((sum, bad.line.refused() + memory.exhausted + memory.oversized))
    }

    /// The sockets.
    pub const fn net(&self) -> &Outbound {
        &self.net
    }
}
