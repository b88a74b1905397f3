//! One feed: its place in the material, its protocol, its end.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::material::{Cursor, DATAGRAM_LEN, Material, PesPackets};
use super::outlet::Outlet;
use super::recorder::Recorder;
use crate::base::{Datagram, Instant};
use crate::protocol::rtp::packet::{FIXED_HEADER_LEN, Packetizer};
use crate::protocol::srt::caller::{self, CallError, Caller};
use crate::protocol::srt::connection::{self, CloseReason, Connection, Limits};
use crate::protocol::srt::encryption::KeyMaterialState;
use crate::shard::net::Incoming;

/// A packet that is sent this late still shows the time it was due; one sent later shows when that was less this.
const BACKDATED_MAX: Duration = Duration::from_millis(1);
/// How much longer than the latency a send buffer holds: acknowledgements come each 10 or 20 ms, repetitions take round trips.
const HELD_BEYOND_LATENCY: Duration = Duration::from_millis(250);
/// A feed whose time is over goes on to the end of a picture, but no longer than this.
const CLEAN_END_MAX: Duration = Duration::from_secs(1);
/// How long the end of a feed may take beyond its latency.
const LINGER: Duration = Duration::from_secs(2);
/// After the last acknowledgement, how much longer than the latency the peer is given to hand up what it has.
const AFTERGLOW: Duration = Duration::from_millis(100);

/// Why a feed did not end as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The call failed.
    #[error("{0}")]
    Call(CallError),
    /// The connection was lost.
    #[error("{}", match .0 {
        CloseReason::PeerShutdown => "the peer ended the connection",
        CloseReason::PeerIdle => "nothing was heard from the peer any more",
        CloseReason::Local | CloseReason::TakenOver => "the connection was closed here",
    })]
    Lost(CloseReason),
    /// A peer of version 4 of the handshake does not have our passphrase.
    #[error("the peer cannot use our key: {}", match .0 {
        KeyMaterialState::NoSecret => "it has no passphrase (NOSECRET)".to_owned(),
        KeyMaterialState::BadSecret => "its passphrase is another one (BADSECRET)".to_owned(),
        state => state.name().to_owned(),
    })]
    KeyRefused(KeyMaterialState),
    /// Such a peer has not said how it receives, or whether it can decrypt.
    #[error("the peer speaks version 4 of the handshake and has not answered what follows it (HSREQ, KMREQ) in time")]
    NotIntroduced,
    /// The peer never had everything.
    #[error("the peer had not acknowledged everything {LINGER:?} after its latency had passed")]
    NotAcknowledged,
}

/// How much is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// For so long, and to the end of the picture that it then is in.
    pub duration: Option<Duration>,
    /// So many rounds of the material.
    pub rounds: Option<u64>,
}

/// How a feed is carried, before it begins.
pub enum Carriage {
    /// By SRT: the call.
    Srt(Box<Caller>),
    /// By RTP.
    Rtp(Packetizer),
    /// Bare.
    Udp,
}

/// A feed.
pub struct Feed {
    name: String,
    socket: usize,
    cursor: Cursor,
    carriage: Carriage,
    connection: Option<Box<Connection>>,
    stage: Stage,
    /// Datagrams taken at a time.
    aggregate: usize,
    extent: Extent,
    /// All of it is sent.
    is_complete: bool,
    /// Since when its send buffer is full.
    blocked_since: Option<Instant>,
    packets_per_second: f64,
    sent: Sent,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The handshake runs.
    Calling,
    /// With a peer of version 4 of it the rest is said by the connection, until then at most.
    Introducing(Instant),
    /// Ready; others are not.
    Ready,
    /// On its way, since then.
    Running(Instant),
    /// All is handed in; the peer may still miss some.
    Draining { since: Instant, acknowledged: Option<Instant> },
    /// Over.
    Ended(Result<(), FeedError>),
}

/// What a feed has sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    datagrams: u64,
    bytes: u64,
    /// How long its send buffer was full.
    blocked: Duration,
    /// When the last media was sent, and when it was due.
    last: Option<(Instant, Instant)>,
}

/// What became of a feed.
#[derive(Clone, Debug, Serialize)]
pub struct FeedReport {
    /// Its name.
    pub name: String,
    /// Datagrams of media, each once.
    pub datagrams: u64,
    /// Bytes of transport stream in them.
    pub bytes: u64,
    /// PES packets begun in them.
    pub pes_packets: PesPackets,
    /// How long its send buffer was full and it waited: the peer acknowledged too slowly, or this sender came too late and had too
    /// much to send at once.
    pub blocked_ms: u64,
    /// SRT's own account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srt: Option<SrtReport>,
    /// Why it did not end as it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it was ever ready.
    pub connected: bool,
}

/// What SRT counted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SrtReport {
    /// The peer's version, such as `1.5.1`.
    pub peer_version: String,
    /// The version of the handshake that it speaks: 5, or 4 before SRT 1.3.
    pub handshake_version: u8,
    /// That handshake carries no Stream ID, and there was one to be sent.
    pub is_stream_id_lost: bool,
    /// Smoothed round trip time.
    pub rtt_ms: f64,
    /// Negotiated latency.
    pub latency_ms: u16,
    /// Retransmissions.
    pub retransmitted: u64,
    /// Packets that the peer reported lost.
    pub reported_lost: u64,
    /// Loss reports received.
    pub loss_reports: u64,
    /// Packets given up as too late.
    pub dropped_too_late: u64,
    /// Acknowledgements received.
    pub acknowledgements: u64,
    /// Packets that the peer has room for.
    pub flow_window: u64,
    /// Control packets of the packet filter sent.
    pub filter_packets: u64,
}

impl Feed {
    /// A feed that leaves by `socket`.
    pub fn new(
        name: String,
        socket: usize,
        carriage: Carriage,
        aggregate: usize,
        extent: Extent,
        packets_per_second: f64,
    ) -> Self {
        let stage = if matches!(carriage, Carriage::Srt(_)) { Stage::Calling } else { Stage::Ready };
        Self {
            name,
            socket,
            cursor: Cursor::new(),
            carriage,
            connection: None,
            stage,
            aggregate,
            extent,
            is_complete: false,
            blocked_since: None,
            packets_per_second,
            sent: Sent::default(),
            buffer: Vec::with_capacity(2_048),
        }
    }

    /// Whether the handshake is still running.
    pub fn is_calling(&self) -> bool {
        matches!(self.stage, Stage::Calling | Stage::Introducing(_))
    }

    /// Whether it is over.
    pub const fn is_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended(_))
    }

    /// Whether it is over before its time.
    pub const fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Ended(Err(_)))
    }

    /// Media flows from `at` on.
    pub fn begin(&mut self, at: Instant) {
        if self.stage == Stage::Ready {
            self.stage = Stage::Running(at);
        }
    }

    /// Media ends now, or as soon as the picture that is being sent is whole.
    pub fn stop(&mut self, now: Instant) {
        self.stage = match self.stage {
            Stage::Calling | Stage::Introducing(_) => Stage::Ended(Ok(())),
            Stage::Ready => Stage::Draining { since: now, acknowledged: None },
            Stage::Running(start) => {
                let passed = now.saturating_since(start);
                self.extent.duration = Some(self.extent.duration.map_or(passed, |duration| duration.min(passed)));
                self.stage
            }
            over @ (Stage::Draining { .. } | Stage::Ended(_)) => over,
        };
    }

    /// A datagram came to its socket.
    pub fn receive(&mut self, now: Instant, peer: SocketAddr, incoming: Incoming) {
        match (&mut self.connection, &mut self.carriage) {
            (Some(connection), _) => connection.receive(
                now,
                Datagram { packet: incoming.packet, peer, local: None, interface: 0, path: 0, arrival: now },
            ),
            (None, Carriage::Srt(call)) => call.receive(now, peer, &incoming.packet),
            // Nobody is expected to answer.
            (None, Carriage::Rtp(_) | Carriage::Udp) => {}
        }
    }

    /// Does all that is due by `now`, media only in a turn that `sends` them.
    pub fn turn(
        &mut self,
        now: Instant,
        sends: bool,
        material: &Material,
        outlet: &mut Outlet,
        recorder: Option<&mut Recorder>,
        lateness_us: &mut Histogram<u64>,
    ) {
        match self.stage {
            Stage::Ended(_) => return,
            Stage::Calling => self.call(now, outlet),
            Stage::Running(start) if sends => self.send_due(now, start, material, outlet, recorder, lateness_us),
            Stage::Running(_) | Stage::Introducing(_) | Stage::Ready | Stage::Draining { .. } => {}
        }
        self.serve_connection(now, outlet);
        if let Stage::Introducing(until) = self.stage {
            self.introduce(now, until, outlet);
        }
        if let Stage::Draining { since, acknowledged } = self.stage {
            self.drain(now, since, acknowledged, outlet);
        }
    }

    fn call(&mut self, now: Instant, outlet: &mut Outlet) {
        let Carriage::Srt(call) = &mut self.carriage else { return };
        if call.next_timeout().is_some_and(|at| at <= now) {
            call.handle_timeout(now);
        }
        self.buffer.clear();
        while call.poll_transmit(now, &mut self.buffer).is_some() {
            outlet.send(now, self.socket, &self.buffer);
            self.buffer.clear();
        }
        match call.poll_event() {
            None => {}
            Some(caller::Event::Failed(error)) => self.stage = Stage::Ended(Err(FeedError::Call(error))),
            Some(caller::Event::Connected(parameters)) => {
                let latency = Duration::from_millis(u64::from(parameters.send_latency_ms));
                let held = (latency + HELD_BEYOND_LATENCY).as_secs_f64() * self.packets_per_second;
                let limits = Limits {
                    receive_buffer_packets: 64,
                    send_buffer_packets: (held as usize).clamp(1_024, 1 << 18),
                    ..Limits::default()
                };
                let until = call.deadline();
                let is_introduced = parameters.version4.is_none();
                self.connection = Some(Box::new(Connection::new(now, *parameters, limits)));
                self.stage = if is_introduced { Stage::Ready } else { Stage::Introducing(until) };
            }
        }
    }

    /// Media begins when the peer knows its time and has its key: all of it is then delivered on time, and can be read.
    fn introduce(&mut self, now: Instant, until: Instant, outlet: &mut Outlet) {
        let Some(connection) = &self.connection else { return };
        if connection.is_introduced() {
            self.stage = Stage::Ready;
        } else if now >= until {
            self.give_up(now, FeedError::NotIntroduced, outlet);
        }
    }

    fn give_up(&mut self, now: Instant, error: FeedError, outlet: &mut Outlet) {
        self.close(now, outlet);
        self.stage = Stage::Ended(Err(error));
    }

    /// Tells the peer that it is over.
    fn close(&mut self, now: Instant, outlet: &mut Outlet) {
        let Some(connection) = &mut self.connection else { return };
        connection.close(now, CloseReason::Local);
        self.buffer.clear();
        while connection.poll_transmit(now, &mut self.buffer).is_some() {
            outlet.send(now, self.socket, &self.buffer);
            self.buffer.clear();
        }
    }

    fn send_due(
        &mut self,
        now: Instant,
        start: Instant,
        material: &Material,
        outlet: &mut Outlet,
        mut recorder: Option<&mut Recorder>,
        lateness_us: &mut Histogram<u64>,
    ) {
        let mut payload = [0; DATAGRAM_LEN];
        let mut last_bytes = self.judge_end(material);
        while !self.is_complete {
            let due = start + Duration::from_nanos(self.cursor.due_ns(material));
            if due > now || self.is_blocked(now) {
                return;
            }
            self.sent.last = Some((now, due));
            lateness_us.saturating_record(now.saturating_since(due).as_micros() as u64);
            for _ in 0..self.aggregate {
                let due_ns = self.cursor.due_ns(material);
                let mut length = self.cursor.take(material, &mut payload);
                if let Some(bytes) = last_bytes {
                    length = bytes.min(length);
                }
                let payload = &payload[..length];
                if let Some(recorder) = &mut recorder {
                    recorder.record(payload);
                }
                self.sent.datagrams += 1;
                self.sent.bytes += length as u64;
                self.hand_in(now, start, due_ns, payload, outlet);
                self.is_complete = last_bytes.is_some();
                if !self.is_complete {
                    last_bytes = self.judge_end(material);
                }
                if self.is_complete || self.is_blocked(now) {
                    break;
                }
            }
            outlet.flush_aggregate();
        }
        self.stage = Stage::Draining { since: now, acknowledged: None };
    }

    /// Whether there is no room for more; what is due then waits.
    fn is_blocked(&mut self, now: Instant) -> bool {
        if self.connection.as_ref().is_some_and(|connection| connection.is_send_buffer_full()) {
            self.blocked_since.get_or_insert(now);
            return true;
        }
        if let Some(since) = self.blocked_since.take() {
            self.sent.blocked += now.saturating_since(since);
        }
        false
    }

    /// One datagram of media.
    #[inline]
    fn hand_in(&mut self, now: Instant, start: Instant, due_ns: u64, payload: &[u8], outlet: &mut Outlet) {
        match &mut self.carriage {
            Carriage::Udp => outlet.send(now, self.socket, payload),
            Carriage::Rtp(packetizer) => {
                let header = packetizer.header((due_ns / 1_000 * 9 / 100) as u32, false);
                self.buffer.clear();
                self.buffer.extend_from_slice(&header);
                self.buffer.extend_from_slice(payload);
                debug_assert_eq!(self.buffer.len(), FIXED_HEADER_LEN + payload.len());
                outlet.send(now, self.socket, &self.buffer);
            }
            Carriage::Srt(_) => {
                let Some(connection) = &mut self.connection else { return };
                let due = start + Duration::from_nanos(due_ns);
                let stamp = due.clamp(now - BACKDATED_MAX, now);
                // There is room; a connection that has ended says so by an event.
                let _ = connection.send(stamp, payload);
                self.buffer.clear();
                while connection.poll_transmit(now, &mut self.buffer).is_some() {
                    outlet.send(now, self.socket, &self.buffer);
                    self.buffer.clear();
                }
            }
        }
    }

    /// Whether all is sent ([`Feed::is_complete`]), or will be with so many bytes of the next datagram.
    fn judge_end(&mut self, material: &Material) -> Option<usize> {
        let due = Duration::from_nanos(self.cursor.due_ns(material));
        self.is_complete |= self.extent.rounds.is_some_and(|rounds| self.cursor.rounds() >= rounds);
        let over = due.checked_sub(self.extent.duration?)?;
        let last_bytes = self.cursor.clean_end(material);
        self.is_complete |= over >= CLEAN_END_MAX || last_bytes == Some(0);
        last_bytes
    }

    /// Acknowledgements, repetitions, the end.
    fn serve_connection(&mut self, now: Instant, outlet: &mut Outlet) {
        let Some(connection) = &mut self.connection else { return };
        if connection.next_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        self.buffer.clear();
        while connection.poll_transmit(now, &mut self.buffer).is_some() {
            outlet.send(now, self.socket, &self.buffer);
            self.buffer.clear();
        }
        while let Some(event) = connection.poll_event() {
            match event {
                connection::Event::Closed(reason) if !matches!(self.stage, Stage::Ended(_)) => {
                    self.stage = Stage::Ended(Err(FeedError::Lost(reason)));
                    return;
                }
                connection::Event::KeyRefused(state) => return self.give_up(now, FeedError::KeyRefused(state), outlet),
                _ => {}
            }
        }
    }

    /// A peer that hears of the end at once would throw away what it still holds: it is told after its latency.
    fn drain(&mut self, now: Instant, since: Instant, acknowledged: Option<Instant>, outlet: &mut Outlet) {
        let Some(connection) = &mut self.connection else {
            self.stage = Stage::Ended(Ok(()));
            return;
        };
        connection.gauge();
        let latency = Duration::from_millis(u64::from(connection.parameters().send_latency_ms));
        let end = match acknowledged {
            Some(at) if now >= at + latency + AFTERGLOW => Ok(()),
            None if now >= since + latency + LINGER => Err(FeedError::NotAcknowledged),
            None if connection.statistics().pkt_snd_buf == 0 => {
                self.stage = Stage::Draining { since, acknowledged: Some(now) };
                return;
            }
            Some(_) | None => return,
        };
        self.close(now, outlet);
        self.stage = Stage::Ended(end);
    }

    /// When there is something to do again.
    #[inline]
    pub fn next_turn(&self, material: &Material) -> Instant {
        let protocol = match (&self.connection, &self.carriage) {
            (Some(connection), _) => connection.next_timeout(),
            (None, Carriage::Srt(call)) => call.next_timeout(),
            (None, Carriage::Rtp(_) | Carriage::Udp) => None,
        };
        let protocol = protocol.unwrap_or(Instant::FAR_FUTURE);
        match self.stage {
            Stage::Ended(_) => Instant::FAR_FUTURE,
            // Room comes with an acknowledgement, or when packets are given up.
            Stage::Running(_) if self.blocked_since.is_some() => protocol,
            Stage::Running(start) => protocol.min(start + Duration::from_nanos(self.cursor.due_ns(material))),
            Stage::Introducing(until) => protocol.min(until),
            Stage::Calling | Stage::Ready | Stage::Draining { .. } => protocol,
        }
    }

    /// Datagrams and bytes of media sent, and repetitions.
    pub fn progress(&self) -> (u64, u64, u64) {
        let repeated = self.connection.as_ref().map_or(0, |connection| connection.statistics().pkt_retrans);
        (self.sent.datagrams, self.sent.bytes, repeated)
    }

    /// When the last media was sent, and when it was due.
    pub const fn last_sent(&self) -> Option<(Instant, Instant)> {
        self.sent.last
    }

    /// What became of it.
    pub fn report(&mut self, material: &Material) -> FeedReport {
        let srt = self.connection.as_mut().map(|connection| {
            connection.gauge();
            let (statistics, parameters) = (connection.statistics(), connection.parameters());
            let handshake_version = if parameters.version4.is_some() { 4 } else { 5 };
            SrtReport {
                peer_version: parameters.peer_version_text(),
                handshake_version,
                is_stream_id_lost: handshake_version == 4
                    && matches!(&self.carriage, Carriage::Srt(call) if !call.stream_id().is_empty()),
                rtt_ms: statistics.ms_rtt,
                latency_ms: connection.parameters().send_latency_ms,
                retransmitted: statistics.pkt_retrans,
                reported_lost: statistics.pkt_snd_loss,
                loss_reports: statistics.pkt_recv_nak,
                dropped_too_late: statistics.pkt_snd_drop,
                acknowledgements: statistics.pkt_recv_ack,
                flow_window: statistics.pkt_flow_window,
                filter_packets: statistics.pkt_snd_filter_extra,
            }
        });
        let error = match self.stage {
            Stage::Ended(Err(error)) => Some(error.to_string()),
            Stage::Ended(Ok(()))
            | Stage::Calling
            | Stage::Introducing(_)
            | Stage::Ready
            | Stage::Running(_)
            | Stage::Draining { .. } => None,
        };
        FeedReport {
            name: self.name.clone(),
            datagrams: self.sent.datagrams,
            bytes: self.sent.bytes,
            pes_packets: material.pes_packets(self.sent.bytes),
            blocked_ms: self.sent.blocked.as_millis() as u64,
            connected: srt.is_some() || !matches!(self.carriage, Carriage::Srt(_)),
            srt,
            error,
        }
    }
}
