//! Whose is it? The streams of one shard, and the sessions attached to them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::access::may_take_over;
use super::net::SocketRole;
use super::net::backend::SLOT_SIZE;
use super::report::{LegReport, StreamKind, StreamReport, StreamStatus, TrackReport};
use super::strangers::SourceKey;
use crate::base::{Allowance, Instant, Packet};
use crate::codec::framer::AnyFramer;
use crate::config::{Takeover, stream_key};
use crate::media::Format;
use crate::output::StreamRings;
use crate::pipeline::assembler::Assembler;
use crate::pipeline::frame::{SinkIndex, StreamSink, TrackDescription};
use crate::pipeline::ingest::{Content, Ingest, Protocol};
use crate::protocol::srt::connection::Connection;
use crate::protocol::srt::encryption::Encryption;
use crate::protocol::srt::group::{Group, Leg};
use crate::protocol::srt::parameters::ConnectionParameters;

/// Events kept of each stream, for people.
const EVENTS_MAX: usize = 50;
/// For so long after packets were missing more of them are expected to be.
const LOSSES_REMEMBERED: Duration = Duration::from_secs(1);

/// One stream of this shard with the session attached to it.
pub struct Session {
    /// The stream's name.
    pub name: String,
    /// Which life of the stream.
    pub life: u64,
    /// The desk's newest answer for it, while the desk counts it as a session.
    pub admission: Option<u64>,
    /// Where it comes from.
    pub kind: StreamKind,
    /// The socket that its peer is answered by.
    pub role: SocketRole,
    /// Protocol, container, codec.
    pub ingest: Ingest,
    /// Its rings; `None` until housekeeping has made the stream's directory.
    pub rings: Option<StreamRings>,
    /// Who sends it, while there is a session.
    pub peer: Option<SocketAddr>,
    /// Where it was when it was let in.
    let_in_from: Option<SocketAddr>,
    /// The socket id of an SRT session, or one for each leg of a bonding group.
    pub socket_ids: Vec<u32>,
    /// What a source of the RTP ports is known by.
    pub source: Option<SourceKey>,
    /// When the stream was opened.
    pub created: Instant,
    /// When its last datagram came in.
    pub last_datagram: Instant,
    /// When its last session ended, if it has none.
    pub detached: Option<Instant>,
    /// What the last SRT session has ended by, for people.
    pub ended_by: Option<&'static str>,
    /// Sessions it has had.
    pub sessions: u32,
    /// Datagrams taken in.
    pub packets: u64,
    /// Their bytes, protocol headers included.
    pub bytes: u64,
    /// Slots of packet memory that it may hold.
    pub quota: usize,
    /// What it may hold of aggregates.
    pub pins: Pins,
    /// Datagrams dropped because it held its quota.
    pub dropped_quota: u64,
    /// What people are told of the session.
    pub about: About,
    events: VecDeque<(Instant, String)>,
    /// For what peers can bring about as often as they like.
    of_peers: Allowance,
    rate: Rate,
    stalled: bool,
    /// The round trip of the present session has been told.
    rtt_told: bool,
    /// Packets that had been missing when last looked at, and when there last were more.
    missed: (u64, Option<Instant>),
}

/// What the handshake settled, for people.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Such as `AES-128-CTR`; empty when plain.
    pub cipher: String,
    /// Negotiated latency; 0 outside SRT.
    pub latency_ms: u32,
    /// Such as `1.5.1`; empty outside SRT.
    pub peer_version: String,
}

impl About {
    /// What an SRT handshake has settled.
    pub fn of_srt(parameters: &ConnectionParameters) -> Self {
        Self {
            cipher: parameters.encryption.as_ref().map_or_else(String::new, Encryption::name),
            latency_ms: u32::from(parameters.receive_latency_ms),
            peer_version: parameters.peer_version_text(),
        }
    }

    /// The session in a line.
    pub fn line(&self, kind: StreamKind, peer: SocketAddr) -> String {
        let kind = kind.name().to_uppercase();
        if self.peer_version.is_empty() {
            return format!("{kind} from {peer}");
        }
        let cipher = if self.cipher.is_empty() { "plain" } else { &self.cipher };
        format!("{kind} from {peer}, version {}, {cipher}, latency {} ms", self.peer_version, self.latency_ms)
    }
}

/// Slots of aggregates that a stream may still hold a datagram of, each of which keeps the whole slot. A stream that holds something
/// at the end of a turn gets its datagrams in slots of their own from then on, so that what stands here stays small.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pins {
    slots: usize,
    newest: Option<u32>,
    /// The stream holds packets beyond its turn.
    pub holds: bool,
}

impl Pins {
    /// The stream was given a packet.
    #[inline]
    pub fn add(&mut self, packet: &Packet) {
        let slots = packet.slot_size() / SLOT_SIZE;
        if slots > 1 && self.newest != Some(packet.slot()) {
            self.newest = Some(packet.slot());
            self.slots += slots;
        }
    }

    /// The stream has been served, and holds so many packets now.
    #[inline]
    pub fn served(&mut self, held_packets: usize) {
        *self = match held_packets {
            0 => Self::default(),
            _ => Self { holds: true, ..*self },
        };
    }

    /// In slots of single datagrams, never less than it is.
    #[inline]
    pub fn slots(&self) -> usize {
        self.slots
    }
}

/// Bits per second over the last second or so.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    at: Instant,
    bytes: u64,
    bits_per_second: u64,
}

impl Session {
    /// A stream without a session yet.
    pub fn new(name: String, life: u64, kind: StreamKind, role: SocketRole, now: Instant, ingest: Ingest) -> Self {
        Self {
            name,
            life,
            admission: None,
            kind,
            role,
            ingest,
            rings: None,
            peer: None,
            let_in_from: None,
            socket_ids: Vec::new(),
            source: None,
            created: now,
            last_datagram: now,
            detached: Some(now),
            ended_by: None,
            sessions: 0,
            packets: 0,
            bytes: 0,
            quota: usize::MAX,
            pins: Pins::default(),
            dropped_quota: 0,
            about: About::default(),
            events: VecDeque::with_capacity(EVENTS_MAX),
            of_peers: Allowance::new(now),
            rate: Rate { at: now, ..Rate::default() },
            stalled: false,
            rtt_told: false,
            missed: (0, None),
        }
    }

    /// A session takes the stream over.
    pub fn attach(&mut self, now: Instant, protocol: Protocol, peer: SocketAddr, about: About) {
        self.rtt_told = false;
        self.ingest.attach(protocol);
        self.peer = Some(peer);
        self.let_in_from = Some(peer);
        self.about = about;
        self.sessions += 1;
        self.ended_by = None;
        self.detached = None;
        self.last_datagram = now;
    }

    /// Whether a caller of the same name may take the session over: a peer that has moved, or was displaced, is known by the host that it
    /// was let in from, too.
    pub fn may_be_taken_over(&self, now: Instant, caller: SocketAddr, policy: Takeover) -> bool {
        let silence = now.saturating_since(self.last_datagram);
        let mut legs = self.group().into_iter().flat_map(Group::legs).map(|leg| leg.connection().parameters().peer);
        [self.peer, self.let_in_from].into_iter().any(|peer| may_take_over(policy, silence, peer, caller))
            || legs.any(|peer| may_take_over(policy, silence, Some(peer), caller))
    }

    /// Why a caller does not get the name, for people.
    pub fn why_not_given_away(&self, now: Instant, policy: Takeover, is_proven: bool) -> String {
        let silence_ms = now.saturating_since(self.last_datagram).as_millis();
        let (peer, key) = (self.peer_name(), stream_key(&self.name, "takeover"));
        let unproven = if is_proven { "" } else { "; without the passphrase only what is silent is given away" };
        format!("{peer} sends it, last heard {silence_ms} ms ago, and {key} is {}{unproven}", policy.name())
    }

    /// The bonding group that the session is, if it is one.
    pub fn group(&self) -> Option<&Group> {
        match self.ingest.protocol() {
            Some(Protocol::SrtGroup(group)) if !group.is_closed() => Some(group),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn group_mut(&mut self) -> Option<&mut Group> {
        match self.ingest.protocol_mut() {
            Some(Protocol::SrtGroup(group)) if !group.is_closed() => Some(group),
            _ => None,
        }
    }

    /// Whether this is where the leg of a socket id has its peer.
    #[inline]
    pub fn is_leg_peer(&self, socket_id: u32, peer: SocketAddr) -> bool {
        self.group().is_some_and(|group| group.is_peer(socket_id, peer))
    }

    /// Whether the session is with this socket of a peer's.
    pub fn is_with(&self, peer: SocketAddr, peer_socket_id: u32) -> bool {
        let is_its = |connection: &Connection| {
            let parameters = connection.parameters();
            (parameters.peer, parameters.peer_socket_id) == (peer, peer_socket_id)
        };
        match self.ingest.protocol() {
            Some(Protocol::Srt(connection)) => is_its(connection),
            Some(Protocol::SrtGroup(group)) => group.legs().iter().any(|leg| is_its(leg.connection())),
            Some(Protocol::Rtp(_) | Protocol::RawTransport(_)) | None => false,
        }
    }

    /// The session is over: what is open is published, at the latest when the rings are there that it waits for, and the
    /// stream waits for another.
    pub fn detach(&mut self, now: Instant) {
        match &mut self.rings {
            Some(rings) => self.ingest.detach(now, rings),
            None => self.ingest.detach_unopened(now),
        }
        self.peer = None;
        self.detached = Some(now);
    }

    /// The session is over, and nothing will be waited for: what is open is published.
    pub fn conclude(&mut self, now: Instant) {
        self.detach(now);
        if let Some(rings) = &mut self.rings {
            self.ingest.conclude(now, rings);
            rings.publish_all(now);
        }
    }

    /// When it next has something to do.
    #[inline]
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = self.rings.as_ref().and_then(StreamRings::next_due);
        match (self.ingest.next_timeout(), due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether frames wait for their time.
    pub fn has_unpublished(&self) -> bool {
        self.rings.as_ref().is_some_and(|rings| rings.next_due().is_some())
    }

    /// Who sends it, for people.
    pub fn peer_name(&self) -> String {
        self.peer.map_or_else(|| "nobody".to_owned(), |peer| peer.to_string())
    }

    /// Keeps an event for people, and logs it.
    pub fn tell(&mut self, now: Instant, what: String) {
        tracing::info!(stream = self.name, "{what}");
        self.keep(now, what);
    }

    /// Keeps an event of which something has failed, and warns of it.
    pub fn warn(&mut self, now: Instant, what: String) {
        tracing::warn!(stream = self.name, "{what}");
        self.keep(now, what);
    }

    fn keep(&mut self, now: Instant, what: String) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back((now, what));
    }

    /// The same as [`Self::tell`] for what a peer can bring about as often as it likes; some of it is left out when there is too much.
    pub fn tell_of_peer(&mut self, now: Instant, what: String) {
        match self.of_peers.take(now) {
            None => {}
            Some(0) => self.tell(now, what),
            Some(withheld) => self.tell(now, format!("{what} ({withheld} lines before this one were left out)")),
        }
    }

    /// Ten times a second: rates, states, heartbeats, formats that have become known.
    pub fn tick(&mut self, now: Instant, stall_after: Duration) {
        let elapsed = now.saturating_since(self.rate.at);
        if elapsed.as_millis() >= 1_000 {
            let bits = (self.bytes - self.rate.bytes) as f64 * 8.0 / elapsed.as_secs_f64();
            self.rate = Rate { at: now, bytes: self.bytes, bits_per_second: bits as u64 };
            self.anchor_timelines();
        }
        let stalled = now.saturating_since(self.last_datagram) >= stall_after;
        if let Some(rings) = &mut self.rings {
            if stalled != self.stalled {
                rings.set_stalled(stalled);
            }
            rings.heartbeat(now);
        }
        if stalled != self.stalled {
            self.stalled = stalled;
            self.tell(now, if stalled { "no packets come any more" } else { "packets come again" }.to_owned());
        }
        self.announce_formats(now);
        self.announce_round_trip(now);
        let counts = self.ingest.statistics();
        let missed = counts.lost + counts.recovered;
        if missed != self.missed.0 {
            self.missed = (missed, Some(now));
        }
    }

    /// Whether each millisecond counts: its packets are read as they come (RTP), or some were missing within the last second and may have to be
    /// asked for more than once.
    pub fn is_urgent(&self, now: Instant) -> bool {
        let misses = self.missed.1.is_some_and(|at| now.saturating_since(at) < LOSSES_REMEMBERED);
        (self.kind != StreamKind::Srt || misses) && self.detached.is_none()
    }

    /// Says how far away the peer is, and whether the latency leaves time to send lost packets again.
    fn announce_round_trip(&mut self, now: Instant) {
        /// A lost packet is missed, asked for and sent again in one and a half round trips; twice, to be safe.
        const ROUND_TRIPS_NEEDED: f64 = 3.0;
        if self.rtt_told {
            return;
        }
        let statistics = match self.ingest.protocol() {
            Some(Protocol::Srt(connection)) => *connection.statistics(),
            Some(Protocol::SrtGroup(group)) => group.statistics(),
            _ => return,
        };
        if statistics.pkt_recv_ackack < 10 {
            return;
        }
        let (rtt_ms, latency_ms) = (statistics.ms_rtt, f64::from(self.about.latency_ms));
        self.rtt_told = true;
        self.tell(now, format!("round trip {rtt_ms:.1} ms"));
        if latency_ms < ROUND_TRIPS_NEEDED * rtt_ms {
            tracing::warn!(stream = self.name, "latency {latency_ms} ms is below three round trips of {rtt_ms:.1} ms");
        }
    }

    /// Says what tracks there are as their formats become known or change.
    fn announce_formats(&mut self, now: Instant) {
        let Some(rings) = &mut self.rings else { return };
        let mut news = Vec::new();
        for_each_track(&self.ingest, |sink, description, assembler| {
            let format = assembler.format();
            if rings.set_format(sink, format)
                && let Some(ring) = rings.track_ring(sink)
            {
                let language = description.language.map_or_else(String::new, language_suffix);
                news.push(format!("{}: {} {format}{language}", ring.name, description.codec));
            }
        });
        if rings.is_undescribed() || !news.is_empty() {
            let programmes = match self.ingest.content() {
                Content::Transport(transport) => transport.programmes(),
                Content::Unknown | Content::Elementary(_) => Vec::new(),
            };
            rings.describe(&programmes);
        }
        for what in news {
            self.tell(now, what);
        }
    }

    /// Records in the bell where the timelines stand, for readers and for the next run.
    fn anchor_timelines(&mut self) {
        let Some(rings) = &mut self.rings else { return };
        match self.ingest.content() {
            Content::Unknown => {}
            Content::Transport(transport) => {
                for (programme, timeline) in transport.timelines() {
                    rings.anchor(programme, timeline);
                }
            }
            Content::Elementary(elementary) => rings.anchor(0, elementary.timeline()),
        }
    }

    /// Programmes and tracks that were refused because there were too many.
    fn tracks_refused(&self) -> u64 {
        let by_tables = match self.ingest.content() {
            Content::Transport(transport) => transport.statistics().limit_refusals,
            Content::Unknown | Content::Elementary(_) => 0,
        };
        by_tables + self.rings.as_ref().map_or(0, StreamRings::tracks_refused)
    }

    /// How it fares.
    pub fn report(&self, now: Instant) -> StreamReport {
        let mut tracks = Vec::new();
        if let Some(rings) = &self.rings {
            for_each_track(&self.ingest, |sink, description, assembler| {
                let Some(ring) = rings.track_ring(sink) else { return };
                let configuration = assembler.configuration();
                let (resolution, frame_rate) = match &configuration.format {
                    Format::Video(video) => {
                        (Some((video.width, video.height)), video.frame_rate.map(crate::media::Rational::as_f64))
                    }
                    _ => (None, None),
                };
                let delay = &ring.delay_us;
                tracks.push(TrackReport {
                    name: ring.name.clone(),
                    codec: description.codec,
                    id: description.id,
                    programme: description.programme,
                    language: description.language.map(|code| String::from_utf8_lossy(&code).into_owned()),
                    format: configuration.format.to_string(),
                    resolution,
                    frame_rate,
                    configuration: configuration.bytes.clone(),
                    statistics: *assembler.statistics(),
                    frames_without_ring: ring.frames_without_ring,
                    head_seq: ring.head_seq,
                    ring_error: ring.error(),
                    delay_us: [delay.value_at_quantile(0.5), delay.value_at_quantile(0.99), delay.max()],
                });
            });
        }
        let (srt, rtp) = match self.ingest.protocol() {
            Some(Protocol::Srt(connection)) => (Some(*connection.statistics()), None),
            Some(Protocol::SrtGroup(group)) => (Some(group.statistics()), None),
            Some(Protocol::Rtp(source)) => (None, Some(source.statistics())),
            Some(Protocol::RawTransport(_)) | None => (None, None),
        };
        let km_state = match self.ingest.protocol() {
            Some(Protocol::Srt(connection)) => Some(connection.parameters().key_state),
            _ => None,
        };
        StreamReport {
            name: self.name.clone(),
            kind: self.kind,
            status: if self.stalled || self.detached.is_some() { StreamStatus::Stalled } else { StreamStatus::Active },
            peer: self.peer,
            created: self.created,
            last_datagram: self.last_datagram,
            sessions: self.sessions,
            cipher: self.about.cipher.clone(),
            km_state,
            latency_ms: self.about.latency_ms,
            peer_version: self.about.peer_version.clone(),
            packets_received: self.packets,
            bytes_received: self.bytes,
            packets_over_quota: self.dropped_quota,
            bitrate: self.rate.bits_per_second,
            held_packets: self.ingest.held_packets() as u64,
            ingest: *self.ingest.statistics(),
            srt,
            legs: self.group().into_iter().flat_map(Group::legs).map(|leg| leg_report(leg, now)).collect(),
            rtp,
            continuity_errors: match self.ingest.content() {
                Content::Transport(transport) => transport.statistics().continuity_errors,
                Content::Unknown | Content::Elementary(_) => 0,
            },
            tracks_refused: self.tracks_refused(),
            tracks,
            events: self.events.iter().cloned().collect(),
            call: None,
        }
    }
}

/// How a leg fares.
fn leg_report(leg: &Leg, now: Instant) -> LegReport {
    LegReport {
        path: leg.path(),
        peer: leg.connection().parameters().peer,
        weight: leg.weight(),
        active: !leg.is_idle(now),
        srt: *leg.connection().statistics(),
        leg: *leg.statistics(),
    }
}

/// Calls `each` with every track that is in the stream now.
fn for_each_track(ingest: &Ingest, mut each: impl FnMut(SinkIndex, &TrackDescription, &Assembler<AnyFramer>)) {
    match ingest.content() {
        Content::Unknown => {}
        Content::Transport(transport) => {
            for track in transport.tracks() {
                each(track.sink, &track.description, &track.assembler);
            }
        }
        Content::Elementary(elementary) => {
            let track = elementary.track();
            each(track.sink, &track.description, &track.assembler);
        }
    }
}

fn language_suffix(code: [u8; 3]) -> String {
    format!(" {}", String::from_utf8_lossy(&code))
}

/// The streams of one shard, by all that a datagram or a message can name them with.
#[derive(Default)]
pub struct Sessions {
    slots: Vec<Option<Session>>,
    free: Vec<usize>,
    by_socket_id: HashMap<u32, usize, BuildHasherDefault<RandomKeyHasher>>,
    by_source: HashMap<SourceKey, usize>,
    by_name: HashMap<String, usize>,
}

impl Sessions {
    /// The session of an SRT socket id.
    #[inline]
    pub fn by_socket_id(&self, id: u32) -> Option<usize> {
        self.by_socket_id.get(&id).copied()
    }

    /// The session of a source of the RTP ports.
    #[inline]
    pub fn by_source(&self, key: &SourceKey) -> Option<usize> {
        self.by_source.get(key).copied()
    }

    /// The RTP source of an SSRC at a host, whatever the port.
    pub fn by_ssrc(&self, ssrc: u32, host: IpAddr) -> Option<usize> {
        self.by_source.iter().find_map(|(key, &index)| match key {
            SourceKey::Rtp { ssrc: its, peer } if *its == ssrc && peer.ip().to_canonical() == host.to_canonical() => {
                Some(index)
            }
            _ => None,
        })
    }

    /// The stream of a name.
    pub fn by_name(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The stream of a life.
    pub fn by_life(&self, life: u64) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|session| session.life == life))
    }

    /// The session in a slot.
    ///
    /// # Panics
    /// If there is none: indices are only kept as long as their sessions.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> &mut Session {
        self.slots[index].as_mut().expect("an index is kept as long as its session")
    }

    /// Asks the processor for what serving a session is likely to need: link by link of the chain, `step` 0 first.
    #[inline]
    pub fn prefetch(&self, now: Instant, index: usize, step: usize) {
        if let Some(Some(session)) = self.slots.get(index) {
            session.ingest.prefetch(step);
            session.rings.iter().for_each(|rings| rings.prefetch(now, step));
        }
    }

    /// Whether there is a session in a slot.
    pub fn contains(&self, index: usize) -> bool {
        self.slots.get(index).is_some_and(Option::is_some)
    }

    /// Takes a new stream in.
    pub fn insert(&mut self, session: Session) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        if !session.name.is_empty() {
            self.by_name.insert(session.name.clone(), index);
        }
        if let Some(source) = session.source {
            self.by_source.insert(source, index);
        }
        self.slots[index] = Some(session);
        index
    }

    /// Gives a stream the name that it was admitted under.
    pub fn rename(&mut self, index: usize, name: &str) {
        let session = self.slots[index].as_mut().expect("an index is kept as long as its session");
        session.name = name.to_owned();
        self.by_name.insert(name.to_owned(), index);
    }

    /// An SRT session is known by this id from now on, and by no other.
    pub fn set_socket_id(&mut self, index: usize, id: u32) {
        self.clear_socket_id(index);
        self.add_socket_id(index, id);
    }

    /// A bonding group is known by this id too.
    pub fn add_socket_id(&mut self, index: usize, id: u32) {
        self.get_mut(index).socket_ids.push(id);
        self.by_socket_id.insert(id, index);
    }

    /// The session is known by this id no more: a leg of its group has ended.
    pub fn remove_socket_id(&mut self, index: usize, id: u32) {
        self.get_mut(index).socket_ids.retain(|&it| it != id);
        self.by_socket_id.remove(&id);
    }

    /// The session's socket ids lead nowhere any more.
    pub fn clear_socket_id(&mut self, index: usize) {
        for id in std::mem::take(&mut self.get_mut(index).socket_ids) {
            self.by_socket_id.remove(&id);
        }
    }

    /// A source of the RTP ports is this stream from now on, and the source before it no more.
    pub fn set_source(&mut self, index: usize, key: SourceKey) {
        if let Some(old) = self.get_mut(index).source.replace(key) {
            self.by_source.remove(&old);
        }
        self.by_source.insert(key, index);
    }

    /// A source of the RTP ports has ended: its next packet is a stranger's.
    pub fn clear_source(&mut self, index: usize) {
        if let Some(key) = self.get_mut(index).source.take() {
            self.by_source.remove(&key);
        }
    }

    /// Takes a stream out.
    pub fn remove(&mut self, index: usize) -> Session {
        self.clear_socket_id(index);
        let session = self.slots[index].take().expect("an index is kept as long as its session");
        if self.by_name.get(&session.name) == Some(&index) {
            self.by_name.remove(&session.name);
        }
        if let Some(source) = session.source {
            self.by_source.remove(&source);
        }
        self.free.push(index);
        session
    }

    /// Number of slots, empty ones included.
    #[inline]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The streams.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().flatten()
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// For keys that we have drawn at random ourselves: nobody can choose them to collide.
#[derive(Default)]
pub struct RandomKeyHasher(u64);

impl Hasher for RandomKeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 << 8 | u64::from(byte);
        }
    }

    #[inline]
    fn write_u32(&mut self, key: u32) {
        // The table takes its tag from the top bits and the place from the bottom ones.
        self.0 = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{PacketPool, PoolOptions};

    #[test]
    fn a_stream_that_may_hold_part_of_an_aggregate_is_charged_for_all_of_its_slot_until_it_holds_nothing() {
        let pool = |slot_size| PacketPool::new(PoolOptions { slots: 4, slot_size, ..PoolOptions::default() }).unwrap();
        let (small, large) = (pool(SLOT_SIZE), pool(32 * SLOT_SIZE));
        let mut pins = Pins::default();
        pins.add(&small.copy_from(b"one by one").unwrap());
        assert_eq!((pins.slots(), pins.holds), (0, false));
        let mut aggregate = large.copy_from(b"onetwo").unwrap();
        let first = aggregate.split_to(3);
        pins.add(&first);
        pins.add(&aggregate);
        assert_eq!(pins.slots(), 32, "both lie in one slot");
        pins.add(&large.copy_from(b"another").unwrap());
        assert_eq!(pins.slots(), 64);
        pins.served(1);
        assert_eq!((pins.slots(), pins.holds), (64, true));
        pins.served(0);
        assert_eq!((pins.slots(), pins.holds), (0, false));
        pins.add(&first);
        assert_eq!(pins.slots(), 32, "also in the slot that was the newest");
    }
}
