//! The loop of a shard. Read this file and you know the system.
//!
//! One turn: sleep in the net until a batch has come or the window is over; hand every datagram to its session; do what
//! timers ask for; deliver what is due, down through container and codec into the rings; send what is to be sent; read the
//! mailbox; let readers be woken. Nothing in a turn waits for another thread.

mod arrivals;
mod calling;
mod telling;

use std::sync::Arc;
use std::time::Duration;

use self::telling::{Told, handle_event};
use super::access::{self, Denial};
use super::admission::{Desk, WantedKey};
use super::batch_window::BatchWindow;
use super::calls::Call;
use super::clock::Clock;
use super::mailbox::{Handed, Mailbox, Message, Shards};
use super::net::random::Random;
use super::net::{Incoming, Net, NetError, NetOptions, SocketRole, shard_of_socket_id};
use super::refusals::Refusals;
use super::report::{ShardCounters, StreamKind};
use super::sessions::Sessions;
use super::strangers::{self, SourceKey, Strangers};
use super::timers::Timers;
use super::touched::Touched;
use crate::base::{Datagram, Instant, Transmit};
use crate::config::Config;
use crate::output::{Job, TrackReady, Waker};
use crate::pipeline::ingest::{IngestEvent, Protocol};
use crate::protocol::rtp::raw_ts::{RawOptions, RawTransportStream};
use crate::protocol::rtp::sdp::SourceFilter;
use crate::protocol::rtp::{self, PayloadTypes};
use crate::protocol::srt::connection::Event as SrtEvent;
use crate::protocol::srt::group::Event as GroupEvent;
use crate::protocol::srt::listener::{Event as ListenerEvent, Listener};
use crate::protocol::srt::packet::destination;

/// Without traffic for this long a shard wakes for the first datagram that comes, instead of for a batch. A datagram that comes alone,
/// as the keep-alives of silent peers do, is no traffic.
const IDLE_AFTER: Duration = Duration::from_millis(10);
/// Its longest sleep then: how late a message of another thread may be read.
const IDLE_WINDOW: Duration = Duration::from_millis(50);
/// The same while an answer of the desk is awaited.
const AWAITING_WINDOW: Duration = Duration::from_millis(5);
/// Regular work.
const TICK: Duration = Duration::from_millis(100);
/// A stream without packets for this long is shown as stalled.
const STALL_AFTER: Duration = Duration::from_secs(1);
/// How long peers' last packets may still come in and be delivered when the shard is to end.
const DRAIN: Duration = Duration::from_secs(3);
/// Links of the chains from a session to the memory of its next frame, and to that of the frame that is due.
const PREFETCH_STEPS: usize = 5;
/// How long a source that has said goodbye waits for the answer of the desk.
const NAMED_WITHIN: Duration = Duration::from_secs(2);
/// Datagrams after which sessions are served although there are more: what they pass on is still in the cache then, and no source
/// has to keep a whole burst.
const SERVE_AFTER: usize = 512;
/// Sources of the RTP ports that wait for their admission, beside those that are in.
const UNADMITTED_MAX: usize = 64;

/// What a shard is made with; made by whoever starts shards, consumed on the shard's thread.
pub struct ShardOptions {
    /// Which shard.
    pub shard: usize,
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// Everything that can be set.
    pub config: Arc<Config>,
    /// Packet memory, and the way that packets come in.
    pub net: NetOptions,
    /// Its sockets.
    pub sockets: Vec<(SocketRole, std::os::fd::OwnedFd)>,
    /// All mailboxes.
    pub shards: Shards,
    /// Where admissions are judged.
    pub desk: Arc<Desk>,
    /// Who wakes readers.
    pub waker: Waker,
    /// What payload types mean on each configured stream, by its place in the configuration, and on the shared port.
    pub payload_types: Arc<(Vec<PayloadTypes>, PayloadTypes)>,
    /// Whose packets each configured stream takes, by its place in the configuration.
    pub sources: Arc<Vec<SourceFilter>>,
    /// Secret of the SRT cookies; the same on all shards.
    pub cookie_secret: [u8; 16],
    /// Secret by which SRT peers that have moved prove it.
    pub address_secret: [u8; 16],
    /// Start of this shard's random numbers.
    pub seed: u64,
}

/// One shard.
pub struct Shard {
    index: usize,
    core: Option<usize>,
    config: Arc<Config>,
    clock: Clock,
    net: Net,
    mailbox: Mailbox,
    shards: Shards,
    desk: Arc<Desk>,
    waker: Waker,
    payload_types: Arc<(Vec<PayloadTypes>, PayloadTypes)>,
    door: Door,
    /// The streams that are fetched.
    calls: Vec<Call>,
    sessions: Sessions,
    timers: Timers,
    /// Sessions to be served in this turn.
    touched: Touched,
    /// The same as a list, while they are served.
    served: Vec<usize>,
    transmit_buffer: Vec<u8>,
    /// For SSRCs; keys, cookies, socket ids and proofs of an address have randomness of the operating system.
    random: Random,
    address_secret: [u8; 16],
    counters: ShardCounters,
    window: BatchWindow,
    next_tick: Instant,
    /// When the last datagrams came, and when the last that did not come alone.
    last_datagram: Instant,
    last_traffic: Instant,
    /// Whose packets each configured stream takes, by its place in the configuration.
    sources: Arc<Vec<SourceFilter>>,
    /// What has been told of the net.
    told: Told,
    /// The last drain left something behind.
    more: bool,
    /// A source's packets are worth something as they come, not at a due time later on: `Session::is_urgent`.
    has_urgent: bool,
    /// Streams that have ended and of which the desk could not be told.
    unreported: Vec<(String, u64)>,
    /// Rings that came after their streams had ended, to be let go of by housekeeping.
    unhoused: Vec<Job>,
    stopping: Option<Instant>,
}

/// Those who have no session yet.
struct Door {
    listener: Listener,
    strangers: Strangers,
    unadmitted: usize,
    refusals: Refusals,
}

impl Shard {
    /// Makes the shard's packet memory and net; on the shard's own thread.
    ///
    /// # Errors
    /// [`NetError`], which says what mends it.
    pub fn new(options: ShardOptions) -> Result<Self, NetError> {
        let called: Vec<usize> = options.sockets.iter().filter_map(|(role, _)| role.called_stream()).collect();
        let net = Net::new(options.net, options.sockets)?;
        let mailbox = options.shards.mailbox(options.shard).clone();
        let mut clock = Clock::new();
        let now = clock.read();
        let shards = &options.config.shards;
        let window = BatchWindow::new(shards.batch_window, shards.batch_window_max);
        let calls = Call::all(now, &options.config, called.into_iter());
        let door = Door::new(now, &options.config, options.shards.len(), options.cookie_secret);
        Ok(Self {
            index: options.shard,
            core: options.core,
            config: options.config,
            clock,
            net,
            mailbox,
            shards: options.shards,
            desk: options.desk,
            waker: options.waker,
            payload_types: options.payload_types,
            door,
            calls,
            sessions: Sessions::default(),
            timers: Timers::default(),
            touched: Touched::default(),
            served: Vec::with_capacity(1_024),
            transmit_buffer: Vec::with_capacity(64 << 10),
            random: Random::new(options.seed),
            address_secret: options.address_secret,
            counters: ShardCounters::default(),
            window,
            next_tick: now + TICK,
            last_datagram: now,
            last_traffic: now,
            sources: options.sources,
            told: Told::new(now),
            more: false,
            has_urgent: false,
            unreported: Vec::new(),
            unhoused: Vec::new(),
            stopping: None,
        })
    }

    /// Turns until told to stop.
    ///
    /// # Errors
    /// [`NetError`] when the net fails for good; everything open is published before.
    pub fn run(mut self) -> Result<(), NetError> {
        let outcome = loop {
            match self.turn() {
                Ok(()) if self.is_over() => break Ok(()),
                Ok(()) => {}
                Err(error) => break Err(error),
            }
        };
        self.finish();
        outcome
    }

    /// One turn.
    fn turn(&mut self) -> Result<(), NetError> {
        self.counters.turns += 1;
        self.mailbox.turned(self.counters.turns, self.clock.turn());
        if self.is_idle() {
            self.counters.idle_turns += 1;
            self.net.wait_for_any(self.idle_window())?;
        } else {
            self.net.wait(self.window())?;
        }
        let now = self.clock.read();
        self.receive(now)?;
        self.read_mailbox(now);
        self.find_due(now);
        self.serve_touched(now);
        if now >= self.next_tick {
            self.tick(now);
        }
        Ok(())
    }

    /// How long this turn may sleep.
    fn window(&self) -> Duration {
        if self.config.shards.busy_poll || self.more { Duration::ZERO } else { self.window.now() }
    }

    /// Hands every datagram to its session.
    fn receive(&mut self, now: Instant) -> Result<(), NetError> {
        // The net hands packets out while the rest of the shard works on them.
        let mut batch = std::mem::take(&mut self.net.batch);
        let (count, more) = self.net.drain_into(&mut batch)?;
        // A drain is bounded, so that sessions are served under a flood too; the next turn goes on without a sleep.
        self.more = more;
        self.window.found(count);
        if self.has_urgent {
            self.window.shorten();
        }
        if count > 0 {
            if count > 1 || now.saturating_since(self.last_datagram) < IDLE_AFTER {
                self.last_traffic = now;
            }
            self.last_datagram = now;
            self.counters.datagrams += count as u64;
        }
        let mut unserved = 0;
        for incoming in batch.drain(..) {
            unserved += incoming.datagrams();
            self.dispatch(now, incoming);
            if unserved >= SERVE_AFTER {
                self.serve_touched(now);
                unserved = 0;
            }
        }
        self.net.batch = batch;
        Ok(())
    }

    /// Each datagram of an aggregate goes its own way: they have one sender, who may have several connections.
    #[inline]
    fn dispatch(&mut self, now: Instant, incoming: Incoming) {
        self.counters.dropped_truncated += u64::from(incoming.truncated);
        let role = self.net.role(&incoming);
        let arrival = self.clock.arrival(incoming.timestamp_ns);
        let Incoming { peer, local_ip: local, interface, .. } = incoming;
        let datagram = |packet| Datagram { packet, peer, local, interface, path: 0, arrival };
        if incoming.is_single() {
            // Not by way of the iterator: what has just been written piece by piece would be read as a whole, for which the
            // processor waits until all of its earlier stores are done, those to cold memory too.
            return self.take_in(now, role, datagram(incoming.packet));
        }
        for packet in incoming.into_segments() {
            self.take_in(now, role, datagram(packet));
        }
    }

    #[inline]
    fn take_in(&mut self, now: Instant, role: SocketRole, datagram: Datagram) {
        match role {
            SocketRole::Srt => self.receive_srt(now, datagram),
            SocketRole::Call(stream) => self.receive_call(now, stream, datagram),
            SocketRole::Rtp | SocketRole::Stream(_) => self.receive_rtp(now, role, datagram),
            SocketRole::Rtcp | SocketRole::StreamRtcp(_) => self.receive_rtcp(now, role, &datagram),
        }
    }

    #[inline]
    fn receive_srt(&mut self, now: Instant, datagram: Datagram) {
        let Some(id) = destination(&datagram.packet) else {
            self.counters.dropped_unknown += 1;
            return;
        };
        if let Some(index) = self.sessions.by_socket_id(id) {
            let session = self.sessions.get_mut(index);
            if session.peer != Some(datagram.peer) && !session.is_leg_peer(id, datagram.peer) {
                return self.hand_from_elsewhere(now, index, datagram);
            }
            return self.hand_to(now, index, datagram);
        }
        if id == 0 {
            let Datagram { peer, local, interface, ref packet, .. } = datagram;
            return self.door.listener.receive(now, peer, local, interface, packet);
        }
        let owner = shard_of_socket_id(id);
        if owner != self.index && owner < self.shards.len() {
            return self.hand_over(owner, &datagram);
        }
        self.counters.dropped_stray += 1;
    }

    #[inline]
    fn hand_to(&mut self, now: Instant, index: usize, mut datagram: Datagram) {
        debug_assert!(self.sessions.contains(index), "a key leads to a session that is there");
        let session = self.sessions.get_mut(index);
        if session.ingest.held_packets() + session.pins.slots() >= session.quota {
            session.dropped_quota += 1;
            self.counters.dropped_quota += 1;
            return;
        }
        if session.pins.holds {
            datagram.packet = self.net.compact(datagram.packet);
        }
        session.pins.add(&datagram.packet);
        session.packets += 1;
        session.bytes += datagram.packet.len() as u64;
        session.last_datagram = now;
        session.ingest.receive(now, datagram);
        self.touched.add(index);
    }

    /// A datagram with the socket id of a session, but not from its peer. It may prove that the peer has moved.
    #[cold]
    fn hand_from_elsewhere(&mut self, now: Instant, index: usize, datagram: Datagram) {
        if !self.is_taken_from_elsewhere(now, index, datagram) {
            self.counters.dropped_wrong_peer += 1;
        }
    }

    /// It is held, and a sign of life, only if it is the peer's beyond doubt.
    fn is_taken_from_elsewhere(&mut self, now: Instant, index: usize, mut datagram: Datagram) -> bool {
        let session = self.sessions.get_mut(index);
        if !access::may_move_to(&self.config, &session.name, datagram.peer.ip()) {
            return false;
        }
        let held = session.ingest.held_packets();
        if held + session.pins.slots() >= session.quota {
            return false;
        }
        // In a slot of its own: an aggregate would count against the stream's share whoever has sent it.
        datagram.packet = self.net.compact(datagram.packet);
        let length = datagram.packet.len() as u64;
        session.ingest.receive(now, datagram);
        let is_taken = session.ingest.held_packets() > held;
        if is_taken {
            session.packets += 1;
            session.bytes += length;
            session.last_datagram = now;
        }
        if let Some(Protocol::Srt(connection)) = session.ingest.protocol() {
            session.peer = session.peer.and(Some(connection.parameters().peer));
        }
        self.touched.add(index);
        is_taken
    }

    fn receive_rtp(&mut self, now: Instant, role: SocketRole, datagram: Datagram) {
        let kind = strangers::judge(&datagram.packet);
        let key = match (role, kind) {
            (_, strangers::Kind::Rtcp) => return self.receive_rtcp(now, role, &datagram),
            (_, strangers::Kind::Unknown) => {
                self.counters.dropped_unknown += 1;
                return;
            }
            (SocketRole::Stream(stream), _) if self.is_foreign(stream, &datagram) => {
                self.counters.dropped_stray += 1;
                return;
            }
            (SocketRole::Stream(stream), _) => SourceKey::Configured(stream),
            (_, strangers::Kind::Rtp(header)) => SourceKey::Rtp { ssrc: header.ssrc, peer: datagram.peer },
            (_, strangers::Kind::Transport) => SourceKey::Raw { peer: datagram.peer },
        };
        if let Some(index) = self.sessions.by_source(&key) {
            return self.hand_to(now, index, datagram);
        }
        if self.door.strangers.has_refused(now, &key) {
            self.counters.dropped_stray += 1;
            return;
        }
        let datagram = Datagram { packet: self.net.compact(datagram.packet), ..datagram };
        match kind {
            strangers::Kind::Rtp(header) => self.receive_rtp_stranger(now, role, key, header, datagram),
            _ => {
                let Some((first, datagram)) = self.door.strangers.receive_raw(now, datagram) else { return };
                let options =
                    RawOptions { session_timeout: self.config.ingestion.rtp.session_timeout, ..RawOptions::default() };
                let raw = Protocol::RawTransport(Box::new(RawTransportStream::new(options)));
                if let Some(index) = self.open_unadmitted(now, role, key, StreamKind::RawTransport, raw, datagram.peer)
                {
                    self.hand_to(now, index, first);
                    self.hand_to(now, index, datagram);
                }
            }
        }
    }

    /// Whether a datagram at the port of a configured stream comes from another address than the configuration allows.
    fn is_foreign(&self, stream: usize, datagram: &Datagram) -> bool {
        !self.sources[stream].admits(datagram.peer.ip())
    }

    fn receive_rtcp(&mut self, now: Instant, role: SocketRole, datagram: &Datagram) {
        let index = match role {
            SocketRole::Stream(stream) | SocketRole::StreamRtcp(stream) => {
                self.sessions.by_source(&SourceKey::Configured(stream))
            }
            _ => rtp::ssrc_of(rtp::DatagramKind::Rtcp, &datagram.packet).and_then(|ssrc| {
                // RTCP comes from the port after the media's, so only the host can be compared.
                self.sessions.by_ssrc(ssrc, datagram.peer.ip())
            }),
        };
        match index {
            Some(index) => {
                self.sessions.get_mut(index).ingest.receive_rtcp(now, datagram);
                self.touched.add(index);
            }
            None => self.counters.dropped_stray += 1,
        }
    }

    /// A datagram for another shard, copied: it came by a port without steering.
    #[cold]
    fn hand_over(&mut self, owner: usize, datagram: &Datagram) {
        self.counters.handed_over += 1;
        let handed = Handed {
            peer: datagram.peer,
            local: datagram.local,
            interface: datagram.interface,
            arrival: datagram.arrival,
            bytes: datagram.packet.as_slice().into(),
        };
        if !self.shards.mailbox(owner).hand_over(handed) {
            self.counters.dropped_lane_full += 1;
        }
    }

    /// What other threads and shards have to say.
    fn read_mailbox(&mut self, now: Instant) {
        while let Some(handed) = self.mailbox.take_handed() {
            (self.last_datagram, self.last_traffic) = (now, now);
            if let Some(packet) = self.net.pool().copy_from(&handed.bytes) {
                let Handed { peer, local, interface, arrival, .. } = handed;
                self.receive_srt(now, Datagram { packet, peer, local, interface, path: 0, arrival });
            } else {
                self.counters.dropped_no_slot += 1;
            }
        }
        while let Some(message) = self.mailbox.take() {
            match message {
                Message::Report(reply) => {
                    // Whoever asked may have stopped waiting.
                    let _ = reply.try_send(self.report(now));
                }
                Message::Stop => self.stop(now),
                Message::Admitted(admitted) => self.admitted(now, *admitted),
                Message::Refused(request, denial) => self.refuse(now, &request, denial),
                Message::Answered(answer) => self.door.listener.remember(now, *answer),
                Message::SourceRefused(key, long, why) => self.source_refused(now, &key, long, &why),
                Message::Vacate(life, key, shard) => self.vacate(now, life, key, shard),
                Message::Evict(life, newcomer) => self.evict(now, life, newcomer),
                Message::KeyDerived(life, socket_id, key) => self.key_derived(life, socket_id, key),
                Message::CallPrepared(stream, terms) => self.call_prepared(now, stream, terms),
                Message::CallUnlocked(stream, unlocked) => self.call_unlocked(now, stream, &unlocked.0, unlocked.1),
                Message::TrackReady(life, ready) => self.track_ready(life, ready),
            }
        }
        while let Some(ListenerEvent::Admission(request)) = self.door.listener.poll_event() {
            self.counters.admissions += 1;
            self.ask(now, request);
        }
        while let Some(refusal) = self.door.listener.poll_refusal() {
            let why = access::why_at_the_door(&self.config, refusal.reason).unwrap_or(refusal.why);
            let denial = Denial { reason: refusal.reason, why };
            self.door.refusals.note(now, refusal.peer, &refusal.stream_id, denial);
        }
    }

    /// A ring is there, or is refused; its stream may have ended meanwhile.
    fn track_ready(&mut self, life: u64, ready: TrackReady) {
        if let Some(index) = self.sessions.by_life(life)
            && let Some(rings) = &mut self.sessions.get_mut(index).rings
        {
            rings.ready(ready);
            self.touched.add(index);
        } else {
            self.unhoused.extend(ready.into_end());
        }
    }

    /// Adds the sessions whose timers have run out to those to be served.
    #[inline]
    fn find_due(&mut self, now: Instant) {
        let mut from = 0;
        while let Some(index) = self.timers.next_due(from, now) {
            if self.sessions.contains(index) {
                self.sessions.get_mut(index).ingest.handle_timeout(now);
                self.touched.add(index);
            } else {
                self.timers.set(index, None);
            }
            from = index + 1;
        }
    }

    /// Delivers, sends and reports for every session that something happened to.
    fn serve_touched(&mut self, now: Instant) {
        let mut served = std::mem::take(&mut self.served);
        self.touched.take(&mut served);
        let mut published = false;
        for (place, &index) in served.iter().enumerate() {
            self.prefetch(now, &served[place..]);
            if self.sessions.contains(index) {
                published |= self.serve(now, index);
            }
        }
        served.clear();
        self.served = served;
        self.transmit_buffer.clear();
        while let Some(transmit) = self.door.listener.poll_transmit(now, &mut self.transmit_buffer) {
            send(&mut self.net, SocketRole::Srt, &transmit, &mut self.transmit_buffer);
        }
        if published {
            self.waker.ring();
        }
    }

    /// Asks for what the sessions after the first of these need: where there are many, each has left the caches since it was last served.
    #[inline]
    fn prefetch(&self, now: Instant, touched: &[usize]) {
        for step in 0..PREFETCH_STEPS {
            touched.get(PREFETCH_STEPS - step).into_iter().for_each(|&index| self.sessions.prefetch(now, index, step));
        }
    }

    /// One session: payloads that are due go down into frames, answers go out. `true` if frames were published.
    #[inline]
    fn serve(&mut self, now: Instant, index: usize) -> bool {
        let session = self.sessions.get_mut(index);
        let mut published = false;
        if let Some(rings) = &mut session.rings {
            session.ingest.deliver(now, rings);
            published = rings.flush(now);
        }
        session.pins.served(session.ingest.held_packets());
        self.transmit_buffer.clear();
        while let Some(transmit) = session.ingest.poll_transmit(now, &mut self.transmit_buffer) {
            let role = transmit_role(session.role);
            send(&mut self.net, role, &transmit, &mut self.transmit_buffer);
        }
        let mut closed_legs = Vec::new();
        let mut wanted_by_call = None;
        while let Some(event) = session.ingest.poll_event() {
            handle_event(session, now, &event);
            if matches!(event, IngestEvent::Srt(SrtEvent::KeyWanted))
                && let Some(Protocol::Srt(connection)) = session.ingest.protocol()
                && let Some(material) = connection.wanted_key()
            {
                let material = material.clone();
                if let Some(stream) = session.role.called_stream() {
                    wanted_by_call = Some((stream, material));
                } else {
                    let (stream, life) = (session.name.clone(), session.life);
                    let (peer, socket_id) = (connection.parameters().peer, connection.parameters().socket_id);
                    self.desk.derive_key(self.index, WantedKey { stream, life, socket_id, peer, material });
                }
            }
            if let IngestEvent::SrtGroup(GroupEvent::LegClosed { socket_id, .. }) = event {
                closed_legs.push(socket_id);
            }
        }
        if let Some((stream, material)) = wanted_by_call {
            self.derive_for_call(stream, material);
        }
        let session = self.sessions.get_mut(index);
        if session.detached == Some(now)
            && let Some(rings) = &mut session.rings
        {
            published |= rings.flush(now);
        }
        // A source without a name stays to be found by the answer of the desk.
        let gone = session.peer.is_none() && session.life != 0;
        let deadline = session.next_timeout().filter(|_| session.rings.is_some() || session.peer.is_some());
        self.timers.set(index, deadline);
        for id in closed_legs {
            self.sessions.remove_socket_id(index, id);
        }
        if gone {
            self.sessions.clear_socket_id(index);
            self.sessions.clear_source(index);
            self.report_loss(index);
        }
        published
    }

    /// Regular work.
    fn tick(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        let desk = &self.desk;
        self.unreported.retain(|(name, life)| !desk.stream_ended(name.clone(), *life));
        while let Some(job) = self.unhoused.pop() {
            if let Err(job) = desk.housekeeping().offer(job) {
                self.unhoused.push(job);
                break;
            }
        }
        self.tell_of_net(now);
        self.door.listener.handle_timeout(now);
        self.door.strangers.handle_timeout(now);
        let assembly_timeout = self.config.ingestion.frame.assembly_timeout;
        let mut published = false;
        self.has_urgent = self.sessions.iter().any(|session| session.is_urgent(now));
        for index in 0..self.sessions.slots() {
            if !self.sessions.contains(index) {
                continue;
            }
            let session = self.sessions.get_mut(index);
            session.tick(now, STALL_AFTER);
            if let Some(rings) = &mut session.rings {
                session.ingest.expire(now, assembly_timeout, rings);
                published |= rings.flush(now);
            }
            let silence = session.detached.map(|at| now.saturating_since(at.max(session.last_datagram)));
            if session.life == 0 && session.detached.is_some_and(|at| now.saturating_since(at) >= NAMED_WITHIN) {
                // A source that said goodbye before it had a name, of which the desk has nothing to say.
                self.sessions.remove(index);
                self.timers.set(index, None);
            } else if silence.is_some_and(|silence| silence >= self.config.ingestion.stream_timeout)
                && !session.has_unpublished()
            {
                self.end_stream(now, index);
            } else {
                self.report_loss(index);
            }
        }
        if published {
            self.waker.ring();
        }
        self.tick_calls(now);
    }

    /// A stream has been without a source for too long.
    fn end_stream(&mut self, now: Instant, index: usize) {
        let (name, life) = self.end_rings(now, index);
        self.report_end(name, life);
    }

    /// Ends a stream here; the desk is still to be told, by its name and life.
    fn end_rings(&mut self, now: Instant, index: usize) -> (String, u64) {
        let mut session = self.sessions.remove(index);
        self.timers.set(index, None);
        session.tell(now, "ended".to_owned());
        if let Some(rings) = session.rings {
            rings.end(now);
            self.waker.ring();
        }
        (session.name, session.life)
    }

    /// Tells the desk that a stream has lost its session; again with the next tick if the desk is overrun.
    fn report_loss(&mut self, index: usize) {
        let session = self.sessions.get_mut(index);
        if session.detached.is_some()
            && let Some(admission) = session.admission
            && self.desk.session_ended(session.name.clone(), session.life, admission)
        {
            session.admission = None;
        }
    }

    /// Tells the desk that a stream has ended; again with the next tick if the desk is overrun.
    fn report_end(&mut self, name: String, life: u64) {
        if !self.desk.stream_ended(name.clone(), life) {
            self.unreported.push((name, life));
        }
    }

    fn is_idle(&self) -> bool {
        let quiet = !self.more && self.clock.turn().saturating_since(self.last_traffic) >= IDLE_AFTER;
        quiet && !self.config.shards.busy_poll && self.stopping.is_none() && !self.has_due_soon()
    }

    /// While a session holds packets that fall due, the net's window is the better sleep.
    fn has_due_soon(&self) -> bool {
        let soon = self.clock.turn() + self.window.longest();
        self.timers.earliest().is_some_and(|deadline| deadline <= soon)
    }

    fn idle_window(&self) -> Duration {
        let awaits = self.door.unadmitted > 0 || self.door.listener.pending() > 0;
        let longest = if awaits { AWAITING_WINDOW } else { IDLE_WINDOW };
        let now = self.clock.turn();
        let until = |deadline: Instant| deadline.saturating_since(now);
        self.timers.earliest().map_or(longest, until).min(longest).min(until(self.next_tick))
    }

    /// Says goodbye to all peers; what they have sent is still delivered when it is due.
    fn stop(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now);
        for index in 0..self.sessions.slots() {
            if self.sessions.contains(index) {
                self.sessions.get_mut(index).ingest.close();
                self.touched.add(index);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stopping.is_some_and(|since| {
            self.clock.turn().saturating_since(since) >= DRAIN
                || self.sessions.iter().all(|session| {
                    session.rings.is_none() || session.ingest.held_packets() == 0 && !session.has_unpublished()
                })
        })
    }

    /// Publishes what is open. The rings stay for the next run.
    fn finish(&mut self) {
        let now = Clock::now();
        for index in 0..self.sessions.slots() {
            if self.sessions.contains(index) {
                let session = self.sessions.get_mut(index);
                session.conclude(now);
                if let Some(rings) = &mut session.rings {
                    rings.set_stalled(true);
                    rings.flush(now);
                }
            }
        }
        self.waker.ring();
        self.mailbox.close();
    }
}

/// Sends the newest datagram in `buffer` and forgets it.
#[inline]
fn send(net: &mut Net, role: SocketRole, transmit: &Transmit, buffer: &mut Vec<u8>) {
    let start = buffer.len() - transmit.len;
    net.send(role, transmit, &buffer[start..]);
    buffer.clear();
}

/// The socket that a session's own datagrams leave by: RTP sources are answered with RTCP.
fn transmit_role(role: SocketRole) -> SocketRole {
    match role {
        SocketRole::Srt | SocketRole::Call(_) => role,
        SocketRole::Rtp | SocketRole::Rtcp => SocketRole::Rtcp,
        SocketRole::Stream(index) | SocketRole::StreamRtcp(index) => SocketRole::StreamRtcp(index),
    }
}

#[cfg(test)]
mod tests;
