//! The relay itself: one thread, one ring, one upstream socket per client.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{RelayReport, WayReport};
use crate::base::{Instant, Packet};
use crate::shard::clock::Clock;
use crate::shard::net::Incoming;
use crate::shard::net::impairment::{Conditions, DelayLine, Fate, Impairment};
use crate::shard::net::outbound::{Outbound, OutboundError, OutboundOptions, OutboundSocket};

/// Slots lent to the kernel.
const CREDIT: u16 = 1_024;
/// What comes within such a time is passed on together.
const WINDOW: Duration = Duration::from_micros(200);
/// Without traffic for so long, the next datagram is waited for by itself.
const IDLE: Duration = Duration::from_millis(10);
/// A client that has been silent for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// The socket that clients send to is opened first.
const LISTENING: usize = 0;
const SOCKET_BUFFER: usize = 16 << 20;

/// What to relay, and through what.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where clients send to.
    pub listen: SocketAddr,
    /// Where it is passed on to.
    pub to: SocketAddr,
    /// From clients to the server.
    pub forward: Conditions,
    /// From the server to clients.
    pub back: Conditions,
    /// What the accidents follow from.
    pub seed: u64,
    /// Clients at a time.
    pub clients: usize,
    /// Datagrams under way at a time.
    pub queue: usize,
}

/// One client and its two paths.
struct Client {
    address: SocketAddr,
    /// The address of ours that it talks to.
    local: Option<IpAddr>,
    upstream: usize,
    forward: Impairment,
    back: Impairment,
    seen_at: Instant,
}

/// A datagram under way.
struct Passage {
    /// Upstream socket of its client.
    upstream: usize,
    is_forward: bool,
    packet: Packet,
}

/// The relay.
pub struct Engine {
    options: EngineOptions,
    net: Outbound,
    address: SocketAddr,
    /// By upstream socket.
    clients: HashMap<usize, Client>,
    upstreams: HashMap<SocketAddr, usize>,
    line: DelayLine<Passage>,
    arrived: Vec<Incoming>,
    overflows: HashMap<u32, u32>,
    report: RelayReport,
}

impl Engine {
    /// Opens the port.
    ///
    /// # Errors
    /// It is in use, or there is no ring.
    pub fn new(options: EngineOptions) -> Result<Self, OutboundError> {
        let slots = options.queue + 4 * usize::from(CREDIT);
        let mut net = Outbound::new(OutboundOptions { slots, credit: CREDIT, aggregates: false })?;
        let socket = OutboundSocket {
            bind: options.listen,
            peer: None,
            receive_buffer: SOCKET_BUFFER,
            send_buffer: SOCKET_BUFFER,
            ..OutboundSocket::to(options.listen)
        };
        let (number, address) = net.open(&socket)?;
        assert_eq!(number, LISTENING);
        Ok(Self {
            line: DelayLine::new(options.queue),
            options,
            net,
            address,
            clients: HashMap::new(),
            upstreams: HashMap::new(),
            arrived: Vec::with_capacity(4_096),
            overflows: HashMap::new(),
            report: RelayReport::default(),
        })
    }

    /// Where clients send to.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Relays until `ended`, asked each `look_every`, says so; then tells what was done.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn run(&mut self, look_every: Duration, ended: &mut dyn FnMut() -> bool) -> Result<RelayReport, OutboundError> {
        let mut busy_at = Clock::now();
        let mut look_at = busy_at;
        let mut tidy_at = busy_at + FORGOTTEN;
        let mut wake = busy_at;
        loop {
            let now = Clock::now();
            let late_us = now.saturating_since(wake).as_micros() as u64;
            self.report.late_max_us = self.report.late_max_us.max(late_us);
            if self.turn(now)? {
                busy_at = now;
            }
            if now >= look_at {
                if ended() {
                    return Ok(self.finish());
                }
                look_at = now + look_every;
            }
            if now >= tidy_at {
                self.forget(now);
                tidy_at = now + FORGOTTEN;
            }
            let next = self.line.next_at().unwrap_or(Instant::FAR_FUTURE).min(look_at);
            let is_idle = now >= busy_at + IDLE;
            wake = if is_idle { next } else { (now + WINDOW).min(next) };
            self.net.wait(now, wake, is_idle)?;
        }
    }

    /// Takes in what has come and passes on what is due; whether there was anything.
    fn turn(&mut self, now: Instant) -> Result<bool, OutboundError> {
        let mut arrived = std::mem::take(&mut self.arrived);
        self.net.drain(|incoming| arrived.push(incoming))?;
        let was_busy = !arrived.is_empty() || !self.line.is_empty();
        for incoming in arrived.drain(..) {
            self.receive(now, incoming);
        }
        self.arrived = arrived;
        while let Some(passage) = self.line.pop(now) {
            self.pass_on(&passage);
        }
        Ok(was_busy)
    }

    fn receive(&mut self, now: Instant, incoming: Incoming) {
        if let Some(lost) = incoming.overflow {
            self.overflows.insert(incoming.token, lost);
        }
        let is_forward = incoming.token as usize == LISTENING;
        let upstream = if is_forward { self.upstream_of(now, &incoming) } else { Some(incoming.token as usize) };
        let Some((upstream, client)) =
            upstream.and_then(|upstream| self.clients.get_mut(&upstream).map(|client| (upstream, client)))
        else {
            self.report.ignored += 1;
            return;
        };
        client.seen_at = now;
        let path = if is_forward { &mut client.forward } else { &mut client.back };
        let Fate::Arrives { at, again_at } = path.judge(now, incoming.packet.len()) else { return };
        for at in std::iter::once(at).chain(again_at) {
            let passage = Passage { upstream, is_forward, packet: incoming.packet.clone() };
            if at <= now && self.line.is_empty() {
                self.pass_on(&passage);
            } else if self.line.push(at, passage).is_err() {
                self.way(is_forward).no_room += 1;
            }
        }
    }

    fn pass_on(&mut self, passage: &Passage) {
        let Passage { upstream, is_forward, packet } = passage;
        let Some(client) = self.clients.get(upstream) else { return };
        if *is_forward {
            self.net.send(*upstream, packet);
        } else {
            self.net.send_to(LISTENING, &client.address, client.local, packet);
        }
        self.way(*is_forward).delivered += 1;
    }

    const fn way(&mut self, is_forward: bool) -> &mut WayReport {
        if is_forward { &mut self.report.forward } else { &mut self.report.back }
    }

    /// The upstream socket of the client that sent this; a new one for a new client, if there is room for it.
    fn upstream_of(&mut self, now: Instant, incoming: &Incoming) -> Option<usize> {
        if let Some(&upstream) = self.upstreams.get(&incoming.peer) {
            return Some(upstream);
        }
        if self.clients.len() >= self.options.clients {
            return None;
        }
        let socket = OutboundSocket {
            receive_buffer: SOCKET_BUFFER,
            send_buffer: SOCKET_BUFFER,
            ..OutboundSocket::to(self.options.to)
        };
        let (upstream, _) = self.net.open(&socket).ok()?;
        let number = self.report.clients;
        self.report.clients += 1;
        // Each path has accidents of its own, which do not depend on when its client came.
        let path = |conditions: &Conditions, way: u64| {
            Impairment::new(conditions.clone(), self.options.seed.wrapping_add(number * 2 + way), now)
        };
        let client = Client {
            address: incoming.peer,
            local: incoming.local_ip,
            upstream,
            forward: path(&self.options.forward, 0),
            back: path(&self.options.back, 1),
            seen_at: now,
        };
        self.clients.insert(upstream, client);
        self.upstreams.insert(incoming.peer, upstream);
        Some(upstream)
    }

    /// Lets go of clients that have gone.
    fn forget(&mut self, now: Instant) {
        let gone: Vec<usize> = self
            .clients
            .values()
            .filter(|client| now >= client.seen_at + FORGOTTEN)
            .map(|client| client.upstream)
            .collect();
        for upstream in gone {
            let Some(client) = self.clients.remove(&upstream) else { continue };
            self.upstreams.remove(&client.address);
            self.net.close(upstream);
            self.settle(&client);
        }
    }

    /// What a client's paths have counted becomes part of the report.
    const fn settle(&mut self, client: &Client) {
        self.report.forward.counts.add(client.forward.statistics());
        self.report.back.counts.add(client.back.statistics());
    }

    fn finish(&mut self) -> RelayReport {
        for (_, client) in std::mem::take(&mut self.clients) {
            self.settle(&client);
        }
        let sends = self.net.statistics().sends;
        self.report.not_taken = sends.refused
            + sends.unreachable
            + sends.no_buffer
            + sends.denied
            + sends.too_long
            + sends.other
            + sends.arena_full;
        self.report.overflowed = self.overflows.values().map(|&lost| u64::from(lost)).sum();
        self.report
    }
}
