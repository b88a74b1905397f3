//! The loop of a shard. Read this file and you know the system.
//!
//! One turn: sleep in the ring until a batch has come or the window is over; hand every datagram to its session; do what
//! timers ask for; deliver what is due, down through container and codec into the rings; send what is to be sent; read the
//! mailbox; let readers be woken. Nothing in a turn waits for another thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::admission::{Admitted, AdmittedSource, Desk, may_take_over};
use super::clock::Clock;
use super::executor::{Parker, yield_now};
use super::mailbox::{Handed, Mailbox, Message, Shards};
use super::net::uring::NetError;
use super::net::{Incoming, NetOptions, SocketRole, Uring};
use super::plan::SessionPlan;
use super::report::{ShardCounters, ShardReport, StreamKind};
use super::sessions::{About, Session, Sessions};
use super::strangers::{self, SourceKey, Strangers};
use super::timers::Timers;
use crate::base::{Datagram, Instant, Transmit};
use crate::config::Config;
use crate::output::{StreamRings, Waker};
use crate::pipeline::ingest::{Ingest, IngestEvent, Protocol};
use crate::protocol::rtp::raw_ts::{RawEvent, RawOptions, RawTransportStream};
use crate::protocol::rtp::{self, PayloadTypes, RtpHeader, SourceEvent, SourceOptions};
use crate::protocol::srt::connection::{CloseReason, Connection, Event as SrtEvent};
use crate::protocol::srt::handshake::RejectReason;
use crate::protocol::srt::listener::{
    Acceptance, AdmissionRequest, Event as ListenerEvent, Listener, ListenerSettings,
};
use crate::protocol::srt::packet::destination;

/// Without a datagram for this long a shard sleeps outside its ring, at no cost.
const IDLE_AFTER: Duration = Duration::from_millis(10);
/// Regular work, and the longest sleep.
const TICK: Duration = Duration::from_millis(100);
/// A stream without packets for this long is shown as stalled.
const STALL_AFTER: Duration = Duration::from_secs(1);
/// How long peers' last packets may still come in and be delivered when the shard is to end.
const DRAIN: Duration = Duration::from_secs(3);
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
    /// Packet memory and the ring.
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
    /// Secret of the SRT cookies; the same on all shards.
    pub cookie_secret: [u8; 16],
    /// Start of this shard's random numbers.
    pub seed: u64,
}

/// One shard.
pub struct Shard {
    index: usize,
    core: Option<usize>,
    config: Arc<Config>,
    clock: Clock,
    net: Uring,
    parker: Parker,
    mailbox: Mailbox,
    shards: Shards,
    desk: Arc<Desk>,
    waker: Waker,
    payload_types: Arc<(Vec<PayloadTypes>, PayloadTypes)>,
    door: Door,
    sessions: Sessions,
    timers: Timers,
    /// Sessions to be served in this turn.
    touched: Vec<usize>,
    transmit_buffer: Vec<u8>,
    random: Random,
    counters: ShardCounters,
    next_tick: Instant,
    last_traffic: Instant,
    stopping: Option<Instant>,
}

/// Those who have no session yet.
struct Door {
    listener: Listener,
    strangers: Strangers,
    unadmitted: usize,
}

impl Shard {
    /// Makes the shard's packet memory and ring; on the shard's own thread.
    ///
    /// # Errors
    /// [`NetError`], which says what mends it.
    pub fn new(options: ShardOptions) -> Result<Self, NetError> {
        let net = Uring::new(options.net, options.sockets)?;
        let mailbox = options.shards.mailbox(options.shard).clone();
        mailbox.wake_by(net.eventfd()?);
        let parker = Parker::new(net.eventfd()?);
        let mut clock = Clock::new();
        let now = clock.read();
        let settings = ListenerSettings { cookie_secret: options.cookie_secret, ..ListenerSettings::default() };
        Ok(Self {
            index: options.shard,
            core: options.core,
            config: options.config,
            clock,
            net,
            parker,
            mailbox,
            shards: options.shards,
            desk: options.desk,
            waker: options.waker,
            payload_types: options.payload_types,
            door: Door { listener: Listener::new(settings), strangers: Strangers::new(), unadmitted: 0 },
            sessions: Sessions::default(),
            timers: Timers::default(),
            touched: Vec::with_capacity(1_024),
            transmit_buffer: Vec::with_capacity(64 << 10),
            random: Random(options.seed),
            counters: ShardCounters::default(),
            next_tick: now + TICK,
            last_traffic: now,
            stopping: None,
        })
    }

    /// Turns until told to stop.
    ///
    /// # Errors
    /// [`NetError`] when the ring fails for good; everything open is published before.
    pub async fn run(mut self) -> Result<(), NetError> {
        let outcome = loop {
            match self.turn() {
                Ok(()) if self.is_over() => break Ok(()),
                Ok(()) => {}
                Err(error) => break Err(error),
            }
            yield_now().await;
            if self.is_idle()
                && let Err(error) = self.park().await
            {
                break Err(error);
            }
        };
        self.finish();
        outcome
    }

    /// One turn.
    fn turn(&mut self) -> Result<(), NetError> {
        self.counters.turns += 1;
        self.net.wait(self.window())?;
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

    /// How long this turn may sleep: the batch window, or less if a session wants to be called earlier.
    fn window(&self) -> Duration {
        let shards = &self.config.shards;
        if shards.busy_poll { Duration::ZERO } else { shards.batch_window }
    }

    /// Hands every datagram to its session.
    fn receive(&mut self, now: Instant) -> Result<(), NetError> {
        // The net hands packets out while the rest of the shard works on them.
        let mut batch = std::mem::take(&mut self.net.batch);
        loop {
            let (count, more) = self.net.drain_into(&mut batch)?;
            if count > 0 {
                self.last_traffic = now;
                self.counters.datagrams += count as u64;
            }
            for incoming in batch.drain(..) {
                self.dispatch(now, incoming);
            }
            if !more {
                break;
            }
        }
        self.net.batch = batch;
        Ok(())
    }

    #[inline]
    fn dispatch(&mut self, now: Instant, incoming: Incoming) {
        if incoming.truncated {
            self.counters.dropped_truncated += 1;
            return;
        }
        let role = self.net.role(&incoming);
        let datagram = Datagram {
            arrival: self.clock.arrival(incoming.timestamp_ns),
            packet: incoming.packet,
            peer: incoming.peer,
            local: incoming.local_ip,
            interface: incoming.interface,
            path: 0,
        };
        match role {
            SocketRole::Srt => self.receive_srt(now, datagram),
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
            return self.hand_to(now, index, datagram);
        }
        if id == 0 {
            let Datagram { peer, local, interface, ref packet, .. } = datagram;
            return self.door.listener.receive(now, peer, local, interface, packet);
        }
        let owner = super::net::shard_of_socket_id(id);
        if owner != self.index && owner < self.shards.len() {
            return self.hand_over(owner, &datagram);
        }
        self.counters.dropped_stray += 1;
    }

    #[inline]
    fn hand_to(&mut self, now: Instant, index: usize, datagram: Datagram) {
        let session = self.sessions.get_mut(index);
        if session.ingest.held_packets() >= session.quota {
            session.dropped_quota += 1;
            self.counters.dropped_quota += 1;
            return;
        }
        session.packets += 1;
        session.bytes += datagram.packet.len() as u64;
        session.last_datagram = now;
        session.ingest.receive(now, datagram);
        if self.touched.last() != Some(&index) {
            self.touched.push(index);
        }
    }

    fn receive_rtp(&mut self, now: Instant, role: SocketRole, datagram: Datagram) {
        let kind = strangers::judge(&datagram.packet);
        let key = match (role, kind) {
            (_, strangers::Kind::Rtcp) => return self.receive_rtcp(now, role, &datagram),
            (_, strangers::Kind::Unknown) => {
                self.counters.dropped_unknown += 1;
                return;
            }
            (SocketRole::Stream(stream), _) => SourceKey::Configured(stream),
            (_, strangers::Kind::Rtp(header)) => SourceKey::Rtp { ssrc: header.ssrc, peer: datagram.peer },
            (_, strangers::Kind::Transport) => SourceKey::Raw { peer: datagram.peer },
        };
        if let Some(index) = self.sessions.by_source(&key) {
            return self.hand_to(now, index, datagram);
        }
        match kind {
            strangers::Kind::Rtp(header) => self.receive_rtp_stranger(now, role, key, header, datagram),
            _ => {
                let options =
                    RawOptions { session_timeout: self.config.ingestion.rtp.session_timeout, ..RawOptions::default() };
                let raw = Protocol::RawTransport(Box::new(RawTransportStream::new(options)));
                if let Some(index) = self.open_unadmitted(now, role, key, StreamKind::RawTransport, raw, datagram.peer)
                {
                    self.hand_to(now, index, datagram);
                }
            }
        }
    }

    /// A source proves itself with two packets in sequence; what it has sent by then is kept.
    fn receive_rtp_stranger(
        &mut self,
        now: Instant,
        role: SocketRole,
        key: SourceKey,
        header: RtpHeader,
        datagram: Datagram,
    ) {
        let peer = datagram.peer;
        let Some(proven) = self.door.strangers.receive(now, header, datagram) else { return };
        let rtp = &self.config.ingestion.rtp;
        let options = SourceOptions {
            ssrc: matches!(key, SourceKey::Rtp { .. }).then_some(header.ssrc),
            reorder_depth: self.config.ingestion.frame.reorder_buffer as usize,
            session_timeout: rtp.session_timeout,
            payload_types: self.payload_types_of(key).clone(),
            reports: Some(rtp::source::ReportOptions {
                ssrc: self.random.next() as u32,
                canonical_name: "headworks".to_owned(),
                destination: rtp::source::ReportDestination::Sender,
                session_bandwidth_bps: self.config.ingestion.srt.max_bandwidth,
                receivers: 1,
            }),
            ..SourceOptions::default()
        };
        let source = rtp::Source::from_probation(options, self.random.next(), now, proven);
        let protocol = Protocol::Rtp(Box::new(source));
        if let Some(index) = self.open_unadmitted(now, role, key, StreamKind::Rtp, protocol, peer) {
            self.touched.push(index);
        }
    }

    /// A source of the RTP ports gets a stream without a name; it is named, or refused, by the desk.
    fn open_unadmitted(
        &mut self,
        now: Instant,
        role: SocketRole,
        key: SourceKey,
        kind: StreamKind,
        protocol: Protocol,
        peer: SocketAddr,
    ) -> Option<usize> {
        if self.door.unadmitted >= UNADMITTED_MAX || self.stopping.is_some() {
            self.counters.dropped_stray += 1;
            return None;
        }
        let ingest = Ingest::new(self.payload_types_of(key).clone());
        let mut session = Session::new(String::new(), 0, kind, role, now, ingest);
        session.source = Some(key);
        session.quota = SessionPlan::new(&self.config, Duration::ZERO).quota;
        session.attach(now, protocol, peer, About::default());
        let index = self.sessions.insert(session);
        self.door.unadmitted += 1;
        self.desk.admit_source(self.index, key);
        Some(index)
    }

    fn payload_types_of(&self, key: SourceKey) -> &PayloadTypes {
        match key {
            SourceKey::Configured(index) => &self.payload_types.0[index],
            SourceKey::Rtp { .. } | SourceKey::Raw { .. } => &self.payload_types.1,
        }
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
                self.touched.push(index);
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
            if let Some(packet) = self.net.pool().copy_from(&handed.bytes) {
                let Handed { peer, local, interface, arrival, .. } = handed;
                self.receive_srt(now, Datagram { packet, peer, local, interface, path: 0, arrival });
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
                Message::Refused(request, reason) => self.refuse(now, &request, reason),
                Message::Answered(answer) => self.door.listener.remember(now, *answer),
                Message::SourceRefused(key) => self.source_refused(&key),
                Message::TrackReady(life, ready) => {
                    if let Some(index) = self.sessions.by_life(life)
                        && let Some(rings) = &mut self.sessions.get_mut(index).rings
                    {
                        rings.ready(ready);
                        self.touched.push(index);
                    }
                }
            }
        }
        while let Some(ListenerEvent::Admission(request)) = self.door.listener.poll_event() {
            self.counters.admissions += 1;
            if self.stopping.is_some() {
                self.refuse(now, &request, RejectReason::Down);
            } else {
                self.desk.admit_srt(self.index, request);
            }
        }
    }

    fn refuse(&mut self, now: Instant, request: &AdmissionRequest, reason: RejectReason) {
        self.counters.rejections += 1;
        let answer = request.reject(now, reason);
        self.door.listener.answer(now, answer);
    }

    fn source_refused(&mut self, key: &SourceKey) {
        if let Some(index) = self.sessions.by_source(key) {
            self.counters.rejections += 1;
            self.door.unadmitted -= 1;
            self.sessions.remove(index);
            self.timers.set(index, None);
        }
    }

    /// The desk has let a source in, and this shard owns its stream.
    fn admitted(&mut self, now: Instant, admitted: Admitted) {
        let Admitted { name, life, output, source } = admitted;
        let rings = output.map(|output| {
            let reply = self.desk.reply_to(self.index, life);
            StreamRings::new(output, Arc::clone(self.desk.directory()), self.desk.housekeeping().clone(), reply)
        });
        match source {
            AdmittedSource::Srt { request, key, origin, latency } => {
                let index = match (self.sessions.by_name(&name), rings) {
                    (Some(index), _) => index,
                    (None, Some(rings)) => {
                        let types = PayloadTypes::default();
                        let mut session =
                            Session::new(name, life, StreamKind::Srt, SocketRole::Srt, now, Ingest::new(types));
                        session.rings = Some(rings);
                        self.sessions.insert(session)
                    }
                    // The stream ended while the caller was on its way here; the desk knows by now.
                    (None, None) => return self.desk.admit_srt(origin, request),
                };
                self.answer_caller(now, index, &request, key, origin, latency);
            }
            AdmittedSource::Source(key) => {
                let Some(index) = self.sessions.by_source(&key) else { return };
                self.door.unadmitted -= 1;
                match (self.sessions.by_name(&name), rings) {
                    (None, Some(rings)) => {
                        self.sessions.rename(index, &name);
                        let session = self.sessions.get_mut(index);
                        session.life = life;
                        session.rings = Some(rings);
                        let peer = session.peer.map(|peer| peer.to_string()).unwrap_or_default();
                        session.tell(now, format!("{} from {peer}", session.kind.name().to_uppercase()));
                    }
                    (Some(old), _) => self.replace_source(now, old, index, key),
                    (None, None) => {
                        self.sessions.remove(index);
                    }
                }
                self.touched.push(index);
            }
        }
    }

    /// A source comes back under the name of a stream that is still here: the stream takes its session over.
    fn replace_source(&mut self, now: Instant, stream: usize, newcomer: usize, key: SourceKey) {
        let arrived = self.sessions.remove(newcomer);
        self.timers.set(newcomer, None);
        let session = self.sessions.get_mut(stream);
        let silence = now.saturating_since(session.last_datagram);
        let peer = arrived.peer.expect("a newcomer has just sent something");
        if session.detached.is_none() && !may_take_over(silence, session.peer, peer) {
            self.counters.rejections += 1;
            return;
        }
        if session.detached.is_none() {
            session.detach(now);
        }
        let mut ingest = arrived.ingest;
        if let Some(protocol) = ingest.take_protocol() {
            session.attach(now, protocol, peer, About::default());
            session.tell(now, format!("taken over by {peer}"));
        }
        self.sessions.set_source(stream, key);
        self.touched.push(stream);
    }

    /// Lets an SRT caller in, or tells it why not.
    fn answer_caller(
        &mut self,
        now: Instant,
        index: usize,
        request: &AdmissionRequest,
        key: Option<crate::protocol::srt::encryption::KeyEncryptingKey>,
        origin: usize,
        latency: Duration,
    ) {
        let session = self.sessions.get_mut(index);
        let silence = now.saturating_since(session.last_datagram);
        let peer = request.key.peer;
        let outcome = if session.detached.is_none() && !may_take_over(silence, session.peer, peer) {
            Err(RejectReason::Conflict)
        } else {
            self.accept(now, index, request, key, latency)
        };
        let answer = match outcome {
            Ok(answer) => answer,
            Err(reason) => {
                self.counters.rejections += 1;
                let session = self.sessions.get_mut(index);
                session.tell(now, format!("caller {peer} refused: {reason}"));
                request.reject(now, reason)
            }
        };
        // Sent from here, where the session is; repeated from where the conclusion came in.
        self.transmit_buffer.clear();
        let transmit = answer.write(now, &mut self.transmit_buffer);
        self.net.send(SocketRole::Srt, &transmit, &self.transmit_buffer);
        if origin == self.index {
            self.door.listener.remember(now, answer);
        } else {
            self.shards.mailbox(origin).post(Message::Answered(Box::new(answer)));
        }
        self.touched.push(index);
    }

    fn accept(
        &mut self,
        now: Instant,
        index: usize,
        request: &AdmissionRequest,
        key: Option<crate::protocol::srt::encryption::KeyEncryptingKey>,
        latency: Duration,
    ) -> Result<crate::protocol::srt::listener::Answer, RejectReason> {
        let socket_id = loop {
            let id = super::net::compose_socket_id(self.index, self.random.next() as u32);
            if self.sessions.by_socket_id(id).is_none() {
                break id;
            }
        };
        let free_slots = self.net.pool().free_slots();
        let latency_max = SessionPlan::latency_max(&self.config, free_slots);
        let wanted = Duration::from_millis(u64::from(request.requested_latency_ms)).max(latency).min(latency_max);
        let plan = SessionPlan::new(&self.config, wanted);
        let mut key_seed = [0; 32];
        for chunk in key_seed.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.random.next().to_le_bytes());
        }
        let milliseconds = |duration: Duration| u16::try_from(duration.as_millis()).unwrap_or(u16::MAX);
        let acceptance = Acceptance {
            socket_id,
            receive_latency_ms: milliseconds(latency),
            latency_max_ms: milliseconds(latency_max),
            flow_window: plan.flow_window,
            key_encrypting_key: key,
            key_seed,
            ..Acceptance::default()
        };
        let (parameters, answer) = request.accept(now, acceptance)?;
        let version = request.peer_version;
        let about = About {
            cipher: parameters
                .encryption
                .as_ref()
                .map_or_else(String::new, |encryption| format!("AES-{}-CTR", encryption.key_length().bytes() * 8)),
            latency_ms: u32::from(parameters.receive_latency_ms),
            peer_version: format!("{}.{}.{}", version >> 16 & 0xff, version >> 8 & 0xff, version & 0xff),
        };
        let connection = Connection::new(now, parameters, plan.limits);
        if self.sessions.get_mut(index).detached.is_none() {
            self.sessions.clear_socket_id(index);
            let session = self.sessions.get_mut(index);
            session.detach(now);
            session.tell(now, format!("taken over by {}", request.key.peer));
        }
        self.sessions.set_socket_id(index, socket_id);
        let session = self.sessions.get_mut(index);
        session.quota = plan.quota;
        let cipher = if about.cipher.is_empty() { "plain" } else { &about.cipher };
        let what = format!(
            "SRT from {}, version {}, {cipher}, latency {} ms",
            request.key.peer, about.peer_version, about.latency_ms
        );
        session.attach(now, Protocol::Srt(Box::new(connection)), request.key.peer, about);
        session.tell(now, what);
        Ok(answer)
    }

    /// Adds the sessions whose timers have run out to those to be served.
    #[inline]
    fn find_due(&mut self, now: Instant) {
        let mut from = 0;
        while let Some(index) = self.timers.next_due(from, now) {
            if self.sessions.contains(index) {
                self.sessions.get_mut(index).ingest.handle_timeout(now);
                self.touched.push(index);
            } else {
                self.timers.set(index, None);
            }
            from = index + 1;
        }
    }

    /// Delivers, sends and reports for every session that something happened to.
    fn serve_touched(&mut self, now: Instant) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        let mut published = false;
        for &index in &touched {
            if self.sessions.contains(index) {
                published |= self.serve(now, index);
            }
        }
        touched.clear();
        self.touched = touched;
        self.transmit_buffer.clear();
        while let Some(transmit) = self.door.listener.poll_transmit(now, &mut self.transmit_buffer) {
            send(&mut self.net, SocketRole::Srt, &transmit, &mut self.transmit_buffer);
        }
        if published {
            self.waker.ring();
        }
    }

    /// One session: payloads that are due go down into frames, answers go out. `true` if frames were published.
    #[inline]
    fn serve(&mut self, now: Instant, index: usize) -> bool {
        let session = self.sessions.get_mut(index);
        let mut published = false;
        if let Some(rings) = &mut session.rings {
            session.ingest.deliver(now, rings);
            published = rings.flush();
        }
        self.transmit_buffer.clear();
        while let Some(transmit) = session.ingest.poll_transmit(now, &mut self.transmit_buffer) {
            let role = transmit_role(session.role);
            send(&mut self.net, role, &transmit, &mut self.transmit_buffer);
        }
        while let Some(event) = session.ingest.poll_event() {
            handle_event(session, now, &event);
        }
        if session.detached == Some(now)
            && let Some(rings) = &mut session.rings
        {
            published |= rings.flush();
        }
        let (deadline, gone) = (session.ingest.next_timeout(), session.peer.is_none());
        self.timers.set(index, deadline);
        if gone {
            self.sessions.clear_socket_id(index);
        }
        published
    }

    /// Regular work.
    fn tick(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        self.door.listener.handle_timeout(now);
        self.door.strangers.handle_timeout(now);
        let assembly_timeout = self.config.ingestion.frame.assembly_timeout;
        let mut published = false;
        for index in 0..self.sessions.slots() {
            if !self.sessions.contains(index) {
                continue;
            }
            let session = self.sessions.get_mut(index);
            session.tick(now, STALL_AFTER);
            if let Some(rings) = &mut session.rings {
                session.ingest.expire(now, assembly_timeout, rings);
                published |= rings.flush();
            }
            let silence = session.detached.map(|at| now.saturating_since(at.max(session.last_datagram)));
            if silence.is_some_and(|silence| silence >= self.config.ingestion.stream_timeout) && session.life != 0 {
                self.end_stream(now, index);
            }
        }
        if published {
            self.waker.ring();
        }
    }

    /// A stream has been without a source for too long.
    fn end_stream(&mut self, now: Instant, index: usize) {
        let mut session = self.sessions.remove(index);
        self.timers.set(index, None);
        session.tell(now, "ended".to_owned());
        if let Some(rings) = session.rings {
            rings.end();
            self.waker.ring();
        }
        self.desk.stream_ended(session.name, session.life);
    }

    fn is_idle(&self) -> bool {
        let quiet = self.clock.turn().saturating_since(self.last_traffic) >= IDLE_AFTER;
        quiet && !self.config.shards.busy_poll && self.stopping.is_none() && !self.has_due_soon()
    }

    /// While a session holds packets that fall due, the ring's window is the better sleep.
    fn has_due_soon(&self) -> bool {
        let soon = self.clock.turn() + self.config.shards.batch_window;
        self.timers.earliest().is_some_and(|deadline| deadline <= soon)
    }

    /// Sleeps outside the ring until something arrives, a message comes, or a timer runs out.
    async fn park(&mut self) -> Result<(), NetError> {
        if !self.mailbox.park() {
            return Ok(());
        }
        if self.net.prepare_park()? {
            self.counters.parks += 1;
            let now = Clock::now();
            let until = self.timers.earliest().unwrap_or(Instant::FAR_FUTURE).min(self.next_tick);
            self.parker.park(until.saturating_since(now)).await;
            self.net.unpark();
        }
        self.mailbox.unpark();
        Ok(())
    }

    /// Says goodbye to all peers; what they have sent is still delivered when it is due.
    fn stop(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now);
        for index in 0..self.sessions.slots() {
            if self.sessions.contains(index) {
                self.sessions.get_mut(index).ingest.close(now);
                self.touched.push(index);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stopping.is_some_and(|since| {
            self.clock.turn().saturating_since(since) >= DRAIN
                || self.sessions.iter().all(|session| session.ingest.held_packets() == 0)
        })
    }

    /// Publishes what is open. The rings stay for the next run.
    fn finish(&mut self) {
        let now = Clock::now();
        for index in 0..self.sessions.slots() {
            if self.sessions.contains(index) {
                let session = self.sessions.get_mut(index);
                session.detach(now);
                if let Some(rings) = &mut session.rings {
                    rings.set_stalled(true);
                    rings.flush();
                }
            }
        }
        self.waker.ring();
        self.mailbox.close();
    }

    fn report(&self, now: Instant) -> ShardReport {
        let ring = self.net.statistics();
        let door = self.door.listener.counters();
        let counters = ShardCounters {
            dropped_by_kernel: self.net.dropped_by_kernel(),
            credit_exhausted: ring.credit_exhausted,
            sent: ring.sends.sent,
            send_errors: ring.sends.unreachable
                + ring.sends.no_buffer
                + ring.sends.denied
                + ring.sends.too_long
                + ring.sends.other
                + ring.sends.arena_full,
            slots: self.net.pool().total_slots() as u64,
            slots_used: self.net.pool().in_use() as u64,
            inductions: door.inductions,
            rejections: self.counters.rejections + door.rejections,
            dropped_malformed: door.dropped_malformed + door.dropped_cookie,
            dropped_stray: self.counters.dropped_stray + door.dropped_stray + self.door.strangers.dropped(),
            ..self.counters
        };
        let streams = self.sessions.iter().filter(|session| session.life != 0).map(Session::report).collect();
        ShardReport { shard: self.index, core: self.core, at: now, streams, counters }
    }
}

/// What a session's protocol has to say.
fn handle_event(session: &mut Session, now: Instant, event: &IngestEvent) {
    match event {
        IngestEvent::Srt(SrtEvent::Connected) | IngestEvent::Rtp(SourceEvent::Started { .. }) => {}
        IngestEvent::Srt(SrtEvent::Closed(reason)) => {
            session.detach(now);
            session.tell(
                now,
                match reason {
                    CloseReason::PeerShutdown => "session closed by the peer",
                    CloseReason::PeerIdle => "session broken: the peer is silent",
                    CloseReason::Local => "session closed",
                    CloseReason::TakenOver => "session taken over",
                }
                .to_owned(),
            );
        }
        IngestEvent::Srt(SrtEvent::KeyRefreshed) => session.tell(now, "keys refreshed".to_owned()),
        IngestEvent::Srt(SrtEvent::KeyRefreshFailed(_)) => {
            session.tell(now, "key refresh failed: the new keys are not of this passphrase".to_owned());
        }
        IngestEvent::Srt(SrtEvent::SequenceJump { skipped }) => {
            session.tell(now, format!("the sender jumped ahead by {skipped} packets"));
        }
        IngestEvent::Srt(SrtEvent::PeerError { code }) => session.tell(now, format!("the peer reports error {code}")),
        IngestEvent::Rtp(SourceEvent::Ended { .. }) | IngestEvent::Raw(RawEvent::Ended) => {
            session.detach(now);
            session.tell(now, "the source has ended".to_owned());
        }
        IngestEvent::Rtp(event) => session.tell(now, format!("{event:?}")),
        IngestEvent::Raw(RawEvent::PeerChanged { peer }) => {
            session.peer = Some(*peer);
            session.tell(now, format!("packets come from {peer} now"));
        }
        IngestEvent::Raw(RawEvent::Started { .. }) => {}
        IngestEvent::UnknownPayloadType(payload_type) => {
            let key = match session.source {
                Some(SourceKey::Configured(_)) => format!("streams.{}.rtp", session.name),
                _ => "ingestion.rtp".to_owned(),
            };
            session.tell(
                now,
                format!("payload type {payload_type} is not known: set {key}.payload_types.{payload_type} to mp2t, h264 or hevc"),
            );
        }
    }
}

/// Sends the newest datagram in `buffer` and forgets it.
#[inline]
fn send(net: &mut Uring, role: SocketRole, transmit: &Transmit, buffer: &mut Vec<u8>) {
    let start = buffer.len() - transmit.len;
    net.send(role, transmit, &buffer[start..]);
    buffer.clear();
}

/// The socket that a session's own datagrams leave by: RTP sources are answered with RTCP.
fn transmit_role(role: SocketRole) -> SocketRole {
    match role {
        SocketRole::Srt => SocketRole::Srt,
        SocketRole::Rtp | SocketRole::Rtcp => SocketRole::Rtcp,
        SocketRole::Stream(index) | SocketRole::StreamRtcp(index) => SocketRole::StreamRtcp(index),
    }
}

/// Random numbers that nobody outside can guess the next of without having seen them all: SplitMix64 on a secret seed, for
/// socket ids and SSRCs. Keys and cookies have randomness of the operating system.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
