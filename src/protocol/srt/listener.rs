//! The listener of one port: answers inductions, checks conclusions, and hands them out for admission.
//!
//! Until a caller has shown, with a cookie, that it receives at the address it writes from, nothing is kept of it. After that
//! whoever owns the stream decides, at its leisure and perhaps on another shard, with [`AdmissionRequest::accept`] or
//! [`AdmissionRequest::reject`]; the [`Answer`] goes out from there, and back to the listener that got the conclusion, so that it
//! can repeat it.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use arrayvec::ArrayVec;
use siphasher::sip::SipHasher24;

use super::control::{Control, ControlWriter};
use super::encryption::{
    Encryption, KEY_MATERIAL_LEN_MAX, KeyEncryptingKey, KeyMaterial, KeyMaterialState, KeyRefresh,
};
use super::fec::configuration::{self as filter, Fec, FilterConfiguration};
use super::handshake::{
    self, Extensions, HANDSHAKE_LEN, Handshake, HandshakeExtension, HandshakeFields, MAGIC, Offer, RejectReason,
    Request, SOCKET_TYPE_DATAGRAM, VERSION_4, VERSION_5, VERSION_MIN, flags,
};
use super::membership::{GROUP_ID_BIT, MEMBERSHIP_LEN, Membership};
use super::packet::{self, HEADER_LEN, Header, SequenceNumber};
use super::parameters::{ConnectionParameters, Features, MTU_MAX, MTU_MIN, PeerTimeBase, Role, VERSION, Version4Terms};
use super::stream_id::{self, StreamId};
use super::transmission_mode::TransmissionMode;
use crate::base::{Instant, Rate, SourceLimits, SourcePrefix, Transmit};

#[cfg(test)]
mod tests;

/// Longest packet that a listener sends: a conclusion with a handshake extension, key material for two keys, and a packet filter or,
/// which is shorter, a group.
pub const ANSWER_LEN_MAX: usize = HEADER_LEN + HANDSHAKE_LEN + 16 + 4 + KEY_MATERIAL_LEN_MAX + 4 + filter::TEXT_LEN_MAX;
const _: () = assert!(MEMBERSHIP_LEN <= filter::TEXT_LEN_MAX, "a leg gets no filter");

/// Sources whose handshakes are counted one by one.
const SOURCES_MAX: usize = 4_096;
/// Refusals kept for one who does not poll them.
const REFUSALS_MAX: usize = 64;

/// How many milliseconds of latency the 16 bits of the handshake can say.
const LATENCY_MAX_MS: u16 = u16::MAX;

/// What a listener is made with.
#[derive(Clone, Copy, Debug)]
pub struct ListenerSettings {
    /// Secret for cookies; the same on all shards that share the port, and never the same after a restart.
    pub cookie_secret: [u8; 16],
    /// Oldest version of SRT that is let in, `0x00MMmmpp`; never below [`VERSION_MIN`].
    pub version_min: u32,
    /// How many conclusions may wait for their admission; others are rejected with [`RejectReason::Backlog`].
    pub pending_max: usize,
    /// How long one may wait, before it is forgotten.
    pub pending_time: Duration,
    /// How many answers are kept for repetition; the oldest make room.
    pub answered_max: usize,
    /// How long an answer is kept.
    pub answered_time: Duration,
    /// How many packets may wait to be sent; others are dropped.
    pub transmit_max: usize,
    /// How many inductions of one source are answered; others are dropped.
    pub inductions: Rate,
    /// How many conclusions of one source are judged; others are rejected with [`RejectReason::Overload`].
    pub conclusions: Rate,
    /// Whether legs of bonding groups are let in (libsrt: `SRTO_GROUPCONNECT`). If not, they are rejected with [`RejectReason::Group`].
    pub bonding: bool,
    /// How connections carry what they are given; callers who mean something else are rejected.
    pub mode: TransmissionMode,
}

impl Default for ListenerSettings {
    /// Room for a machine full of encoders that come back at once; the secret is zero and has to be set.
    fn default() -> Self {
        Self {
            cookie_secret: [0; 16],
            version_min: VERSION_MIN,
            pending_max: 256,
            pending_time: Duration::from_secs(5),
            answered_max: 1024,
            answered_time: Duration::from_secs(10),
            transmit_max: 256,
            inductions: Rate::default(),
            conclusions: Rate::default(),
            bonding: true,
            mode: TransmissionMode::Live,
        }
    }
}

/// What tells one attempt to connect from all others; a repeated conclusion has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// Where the caller is.
    pub peer: SocketAddr,
    /// Its socket id.
    pub peer_socket_id: u32,
    /// Its first sequence number.
    pub initial_sequence: u32,
}

/// What a listener has counted since it was made. What is not answered stands here with its reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerCounters {
    /// Inductions answered.
    pub inductions: u64,
    /// Conclusions handed out for admission.
    pub admissions: u64,
    /// Conclusions that repeated an earlier one.
    pub repeats: u64,
    /// Conclusions that the listener itself rejected.
    pub rejections: u64,
    /// Of these, for want of room to wait in.
    pub rejected_backlog: u64,
    /// Of these, because their source had sent too many.
    pub rejected_rate: u64,
    /// Inductions not answered because their source had sent too many.
    pub dropped_rate: u64,
    /// Admissions that nobody answered in time.
    pub unanswered: u64,
    /// Packets that were not well formed.
    pub dropped_malformed: u64,
    /// Packets that were no handshake, or not to a listener.
    pub dropped_stray: u64,
    /// Conclusions whose cookie was not ours, or too old.
    pub dropped_cookie: u64,
    /// Answers for which the queue had no room.
    pub dropped_transmit: u64,
}

/// What a listener reports.
#[derive(Debug)]
pub enum Event {
    /// Somebody wants to connect.
    Admission(Box<AdmissionRequest>),
}

/// Somebody whom the listener itself has rejected, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it called from.
    pub peer: SocketAddr,
    /// What it asked for; what is no Stream ID is shown as far as it is text.
    pub stream_id: String,
    /// What it was told.
    pub reason: RejectReason,
    /// What that means here.
    pub why: String,
}

/// Somebody wants to connect: all that the handshake says, for whoever owns the stream to decide. Owns its bytes; can be sent
/// to another shard.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// Which attempt this is.
    pub key: ConnectionKey,
    /// The address of ours it was sent to, when known.
    pub local: Option<IpAddr>,
    /// Index of the interface; 0 when unknown.
    pub interface: u32,
    /// When the conclusion came in.
    pub arrival: Instant,
    /// Its time stamp, in µs of the peer's clock.
    pub timestamp_us: u32,
    /// What it asks for; empty without a Stream ID.
    pub stream_id: StreamId,
    /// How the connection carries what it is given.
    pub mode: TransmissionMode,
    /// Version 4 of the handshake: who it is, what latency it wants and whether it encrypts comes only once it is let in.
    pub is_version4: bool,
    /// The peer's version of SRT, `0x00MMmmpp`; 0 while it has not said so.
    pub peer_version: u32,
    /// The peer's flags.
    pub peer_flags: u32,
    /// The latency it wants us to receive with, in ms.
    pub requested_latency_ms: u16,
    /// The latency it receives with itself, in ms.
    pub peer_latency_ms: u16,
    /// Largest packet it takes, IP header included.
    pub mtu: u32,
    /// How many packets may be in flight to it.
    pub flow_window: u32,
    /// Its keys, wrapped. Salt and length for [`super::encryption::derive_key_encrypting_key`] are in there; derive off the shard.
    pub key_material: Option<KeyMaterial>,
    /// The group of the caller's that this is to be a leg of.
    pub group: Option<Membership>,
    /// The packet filter that it asks for.
    pub packet_filter: Option<FilterConfiguration>,
    cookie: u32,
}

/// What the owner of a stream grants.
#[derive(Debug)]
pub struct Acceptance {
    /// Our socket id: unused, not 0, below 2³⁰ (bit 30 marks groups).
    pub socket_id: u32,
    /// What the connection is for.
    pub role: Role,
    /// Least latency we receive with, in ms; the peer may ask for more.
    pub receive_latency_ms: u16,
    /// Least latency we want the peer to receive with, in ms.
    pub send_latency_ms: u16,
    /// Most latency that a peer gets either way, in ms.
    pub latency_max_ms: u16,
    /// Largest packet we take, IP header included.
    pub mtu: u32,
    /// How many packets may be in flight to us.
    pub flow_window: u32,
    /// The key of the stream's passphrase, derived for this request; `None` when the stream has no passphrase.
    pub key_encrypting_key: Option<KeyEncryptingKey>,
    /// Whether the stream has a passphrase though no key was derived, because the caller brought no key material: a caller of version 4 of
    /// the handshake will be asked for its.
    pub has_passphrase: bool,
    /// Whether a caller is refused whose passphrase is another, or who has one and the stream has none, or the other way round (libsrt:
    /// `SRTO_ENFORCEDENCRYPTION`). Otherwise it is let in, and what it sends encrypted cannot be read.
    pub enforced_encryption: bool,
    /// Randomness for keys of our own; must be set when we send encrypted.
    pub key_seed: [u8; 32],
    /// When our own keys change.
    pub key_refresh: KeyRefresh,
    /// A secret by which the caller can prove that it has moved; without one it is heard at its first address alone.
    pub address_secret: Option<[u8; 16]>,
    /// The id of our group, when the caller has asked for one: bit 30 is set, and it is the same for all legs.
    pub group_id: Option<u32>,
    /// A packet filter to insist on; without one the caller gets what it asks for.
    pub packet_filter: Option<FilterConfiguration>,
}

impl Default for Acceptance {
    /// The values of libsrt for everything but the socket id, which has to be set; no encryption.
    fn default() -> Self {
        Self {
            socket_id: 0,
            role: Role::Receiver,
            receive_latency_ms: 120,
            send_latency_ms: 0,
            latency_max_ms: LATENCY_MAX_MS,
            mtu: MTU_MAX,
            flow_window: 25_600,
            key_encrypting_key: None,
            has_passphrase: false,
            enforced_encryption: true,
            key_seed: [0; 32],
            key_refresh: KeyRefresh::default(),
            address_secret: None,
            group_id: None,
            packet_filter: None,
        }
    }
}

/// The packet that answers a conclusion: to be sent, and to be given to the listener for repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The attempt it answers.
    pub key: ConnectionKey,
    local: Option<IpAddr>,
    interface: u32,
    /// Zero of our clock for this connection: the time stamp is that of the sending, everything else never changes.
    start: Instant,
    packet: ArrayVec<u8, ANSWER_LEN_MAX>,
}

impl Answer {
    /// Appends the packet as it is to be sent at `now`.
    pub fn write(&self, now: Instant, buffer: &mut Vec<u8>) -> Transmit {
        let start = buffer.len();
        buffer.extend_from_slice(&self.packet);
        let timestamp_us = now.saturating_since(self.start).as_micros() as u32;
        buffer[start + 8..start + 12].copy_from_slice(&timestamp_us.to_be_bytes());
        Transmit { peer: self.key.peer, local: self.local, interface: self.interface, path: 0, len: self.packet.len() }
    }
}

impl AdmissionRequest {
    /// Lets the caller in. `now` becomes the zero of our clock for the connection.
    ///
    /// # Errors
    /// [`RejectReason::Filter`] when the packet filters do not go together; where encryption is enforced, [`RejectReason::Unsecure`] when
    /// only one side has a passphrase, [`RejectReason::BadSecret`] when they differ; then answer with [`AdmissionRequest::reject`].
    pub fn accept(&self, now: Instant, acceptance: Acceptance) -> Result<(ConnectionParameters, Answer), RejectReason> {
        assert!(
            (1..1 << 30).contains(&acceptance.socket_id),
            "socket ids are given out between 1 and 2^30, so that they cannot be taken for groups"
        );
        assert!(
            !acceptance.role.sends() || acceptance.key_encrypting_key.is_none() || acceptance.key_seed != [0; 32],
            "keys of our own need randomness"
        );
        assert!(
            acceptance.group_id.is_none_or(|id| id & GROUP_ID_BIT != 0 && id >> 31 == 0),
            "ids of groups have bit 30 set"
        );
        if self.is_version4 {
            return Ok(self.accept_version4(now, &acceptance));
        }
        let has_passphrase = acceptance.has_passphrase || acceptance.key_encrypting_key.is_some();
        let (seed, refresh) = (acceptance.key_seed, acceptance.key_refresh);
        let (mut encryption, key_state) = match (acceptance.key_encrypting_key, &self.key_material) {
            (None, None) if !has_passphrase => (None, KeyMaterialState::Unsecured),
            (Some(key), Some(material)) => match Encryption::accept(key, material, seed, refresh) {
                Some(encryption) => (Some(encryption), KeyMaterialState::Secured),
                None if acceptance.enforced_encryption => return Err(RejectReason::BadSecret),
                None => (None, KeyMaterialState::BadSecret),
            },
            _ if acceptance.enforced_encryption => return Err(RejectReason::Unsecure),
            (None, Some(_)) => (None, KeyMaterialState::NoSecret),
            (_, None) => (None, KeyMaterialState::Unsecured),
        };
        // libsrt says so with a state in place of keys, to a caller without any too if there is a passphrase here.
        let state = key_state.to_wire();
        let key_answer = match (&encryption, &self.key_material) {
            (Some(_), Some(material)) => Some(material.as_bytes()),
            (None, None) if !has_passphrase => None,
            _ => Some(&state[..]),
        };
        if let Some(encryption) = &mut encryption {
            encryption.set_peer_version(self.peer_version);
        }
        let packet_filter = self.settle_filter(acceptance.packet_filter.as_ref())?;
        if packet_filter.is_some() && self.mode.is_reliable() {
            return Err(RejectReason::Filter);
        }
        let features = Features::in_mode(self.mode, self.peer_flags);
        let latency = |ours: u16, theirs: u16| match self.mode.is_reliable() {
            true => 0,
            false => ours.max(theirs).min(acceptance.latency_max_ms.max(ours)),
        };
        let receive_latency_ms = latency(acceptance.receive_latency_ms, self.requested_latency_ms);
        let send_latency_ms = latency(acceptance.send_latency_ms, self.peer_latency_ms);
        let mtu = self.mtu.min(acceptance.mtu);

        let mut our_flags = self.mode.flags();
        if !features.send_by_timestamp {
            our_flags &= !flags::TSBPD_SENDER;
        }
        if !features.retransmission_flag {
            our_flags &= !flags::RETRANSMISSION;
        }
        let fields = HandshakeFields {
            encryption: handshake::encryption_field(encryption.as_ref().map(Encryption::key_length)),
            mtu,
            flow_window: acceptance.flow_window,
            request: Request::Conclusion,
            socket_id: acceptance.socket_id,
            ..self.fields()
        };
        let offer = Offer {
            is_response: true,
            handshake: HandshakeExtension {
                version: VERSION,
                flags: our_flags,
                receive_latency_ms,
                send_latency_ms: if features.send_by_timestamp { send_latency_ms } else { 0 },
            },
            key_material: key_answer,
            stream_id: None,
            group: acceptance.group_id.and_then(|group_id| Some(Membership { group_id, ..self.group? })),
            packet_filter: packet_filter.map(FilterConfiguration::from),
            mode: self.mode,
        };
        let answer = self.answer(now, |body| fields.encode_conclusion(&offer, body));
        let parameters = ConnectionParameters {
            peer: self.key.peer,
            local: self.local,
            interface: self.interface,
            role: acceptance.role,
            mode: self.mode,
            socket_id: acceptance.socket_id,
            peer_socket_id: self.key.peer_socket_id,
            initial_sequence: fields.initial_sequence,
            peer_initial_sequence: None,
            start: now,
            peer_time_base: PeerTimeBase { timestamp_us: self.timestamp_us, arrival: self.arrival },
            receive_latency_ms,
            send_latency_ms,
            mtu,
            flow_window: acceptance.flow_window,
            peer_flow_window: self.flow_window,
            peer_version: self.peer_version,
            peer_flags: self.peer_flags,
            features,
            encryption,
            key_state,
            packet_filter,
            stream_id: self.stream_id.clone(),
            address_secret: acceptance.address_secret,
            version4: None,
        };
        Ok((parameters, answer))
    }

    /// The same for version 4, whose answer has no extensions either.
    fn accept_version4(&self, now: Instant, acceptance: &Acceptance) -> (ConnectionParameters, Answer) {
        let fields = HandshakeFields {
            mtu: self.mtu.min(acceptance.mtu),
            flow_window: acceptance.flow_window,
            socket_id: acceptance.socket_id,
            ..self.fields()
        };
        let answer = self.answer(now, |body| fields.encode(body));
        let parameters = ConnectionParameters {
            peer: self.key.peer,
            local: self.local,
            interface: self.interface,
            role: acceptance.role,
            mode: TransmissionMode::Live,
            socket_id: acceptance.socket_id,
            peer_socket_id: self.key.peer_socket_id,
            initial_sequence: fields.initial_sequence,
            peer_initial_sequence: None,
            start: now,
            // Until it says what it has: by arrival.
            peer_time_base: PeerTimeBase { timestamp_us: self.timestamp_us, arrival: self.arrival },
            receive_latency_ms: acceptance.receive_latency_ms,
            send_latency_ms: 0,
            mtu: fields.mtu,
            flow_window: acceptance.flow_window,
            peer_flow_window: self.flow_window,
            peer_version: self.peer_version,
            peer_flags: self.peer_flags,
            features: Features::of_peer(self.peer_flags),
            encryption: None,
            key_state: match acceptance.has_passphrase {
                true => KeyMaterialState::Securing,
                false => KeyMaterialState::Unsecured,
            },
            packet_filter: None,
            stream_id: StreamId::default(),
            address_secret: acceptance.address_secret,
            version4: Some(Version4Terms {
                latency_max_ms: acceptance.latency_max_ms.max(acceptance.receive_latency_ms),
                has_passphrase: acceptance.has_passphrase,
            }),
        };
        (parameters, answer)
    }

    /// The packet filter that this caller gets where `ours` is insisted on, if any is. A leg of a group gets none.
    ///
    /// # Errors
    /// [`RejectReason::Filter`].
    pub fn settle_filter(&self, ours: Option<&FilterConfiguration>) -> Result<Option<Fec>, RejectReason> {
        let knows = self.peer_flags & flags::PACKET_FILTER != 0;
        let packet_filter =
            filter::settle(ours, self.packet_filter.as_ref(), knows).map_err(|_| RejectReason::Filter)?;
        if packet_filter.is_some() && self.group.is_some() { Err(RejectReason::Filter) } else { Ok(packet_filter) }
    }

    /// Refuses the caller, with a reason that it is told.
    pub fn reject(&self, now: Instant, reason: RejectReason) -> Answer {
        let fields = HandshakeFields { request: Request::Rejection(reason), ..self.fields() };
        self.answer(now, |body| fields.encode(body))
    }

    fn fields(&self) -> HandshakeFields {
        let (version, extension) = if self.is_version4 { (VERSION_4, SOCKET_TYPE_DATAGRAM) } else { (VERSION_5, 0) };
        HandshakeFields {
            version,
            encryption: 0,
            extension,
            initial_sequence: SequenceNumber::new(u64::from(self.key.initial_sequence)),
            mtu: self.mtu,
            flow_window: self.flow_window,
            request: Request::Conclusion,
            socket_id: self.key.peer_socket_id,
            cookie: self.cookie,
            peer_address: self.key.peer.ip(),
        }
    }

    fn answer(&self, start: Instant, body: impl FnOnce(&mut Vec<u8>)) -> Answer {
        let mut bytes = Vec::with_capacity(ANSWER_LEN_MAX);
        ControlWriter { timestamp_us: 0, socket_id: self.key.peer_socket_id }.handshake(&mut bytes, &[]);
        body(&mut bytes);
        let packet = bytes.iter().copied().collect();
        Answer { key: self.key, local: self.local, interface: self.interface, start, packet }
    }
}

enum Attempt {
    Pending,
    Answered(Box<Answer>),
}

struct Entry {
    attempt: Attempt,
    expires: Instant,
}

/// The machine of one listening port.
pub struct Listener {
    settings: ListenerSettings,
    attempts: BTreeMap<ConnectionKey, Entry>,
    pending: usize,
    /// The order in which answers were given, oldest first; some may be gone from `attempts` already.
    answered: VecDeque<ConnectionKey>,
    next_expiry: Option<Instant>,
    events: VecDeque<Event>,
    transmits: VecDeque<(Transmit, ArrayVec<u8, ANSWER_LEN_MAX>)>,
    scratch: Vec<u8>,
    counters: ListenerCounters,
    inductions: SourceLimits,
    conclusions: SourceLimits,
    refusals: VecDeque<Refusal>,
}

/// Where a datagram came from, and by which way an answer goes back.
#[derive(Clone, Copy)]
struct Origin {
    peer: SocketAddr,
    local: Option<IpAddr>,
    interface: u32,
}

impl Listener {
    /// A listener that knows nobody yet; everything it will ever hold is bounded by the settings.
    pub fn new(settings: ListenerSettings) -> Self {
        assert!(settings.pending_max > 0 && settings.answered_max > 0 && settings.transmit_max > 0, "room for one");
        Self {
            settings,
            attempts: BTreeMap::new(),
            pending: 0,
            answered: VecDeque::with_capacity(settings.answered_max),
            next_expiry: None,
            events: VecDeque::with_capacity(settings.pending_max),
            transmits: VecDeque::with_capacity(settings.transmit_max),
            scratch: Vec::with_capacity(ANSWER_LEN_MAX),
            counters: ListenerCounters::default(),
            inductions: SourceLimits::new(settings.inductions, SOURCES_MAX, settings.cookie_secret),
            conclusions: SourceLimits::new(settings.conclusions, SOURCES_MAX, settings.cookie_secret),
            refusals: VecDeque::with_capacity(REFUSALS_MAX),
        }
    }

    /// What has been counted.
    pub const fn counters(&self) -> ListenerCounters {
        self.counters
    }

    /// Attempts that wait for an [`Answer`].
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// Takes a datagram that came to the port and belongs to no connection.
    pub fn receive(&mut self, now: Instant, peer: SocketAddr, local: Option<IpAddr>, interface: u32, bytes: &[u8]) {
        let origin = Origin { peer, local, interface };
        let header = match packet::parse(bytes) {
            Ok(Header::Control(header)) => header,
            Ok(Header::Data(_)) => return self.counters.dropped_stray += 1,
            Err(_) => return self.counters.dropped_malformed += 1,
        };
        let Ok(Control::Handshake(body)) = Control::parse(&header, &bytes[HEADER_LEN..]) else {
            return self.counters.dropped_stray += 1;
        };
        if header.socket_id != 0 {
            return self.counters.dropped_stray += 1;
        }
        let handshake = match Handshake::parse(body) {
            Ok(handshake) if handshake.fields.socket_id != 0 => handshake,
            _ => return self.counters.dropped_malformed += 1,
        };
        match handshake.fields.request {
            Request::Induction => self.induction(now, origin, &handshake.fields),
            Request::Conclusion => self.conclusion(now, origin, header.timestamp_us, &handshake),
            Request::WaveAHand | Request::Agreement | Request::Rejection(_) => self.counters.dropped_stray += 1,
        }
    }

    /// Answered with a cookie from nothing but the question, in as many bytes: nothing kept, nothing amplified.
    fn induction(&mut self, now: Instant, origin: Origin, question: &HandshakeFields) {
        if !self.inductions.take(now, SourcePrefix::of(origin.peer.ip())) {
            return self.counters.dropped_rate += 1;
        }
        let answer = HandshakeFields {
            version: VERSION_5,
            encryption: 0,
            extension: MAGIC,
            cookie: self.cookie(origin.peer, minute(now)),
            peer_address: origin.peer.ip(),
            ..*question
        };
        self.counters.inductions += 1;
        self.send(now, origin, &answer);
    }

    fn conclusion(&mut self, now: Instant, origin: Origin, timestamp_us: u32, handshake: &Handshake<'_>) {
        let fields = &handshake.fields;
        let minute = minute(now);
        let expected = |minute| self.cookie(origin.peer, minute);
        if fields.cookie != expected(minute) && (minute == 0 || fields.cookie != expected(minute - 1)) {
            return self.counters.dropped_cookie += 1;
        }
        let key = ConnectionKey {
            peer: origin.peer,
            peer_socket_id: fields.socket_id,
            initial_sequence: fields.initial_sequence.get() as u32,
        };
        if let Some(entry) = self.attempts.get(&key) {
            self.counters.repeats += 1;
            if let Attempt::Answered(answer) = &entry.attempt {
                let answer = answer.clone();
                self.transmit(now, &answer);
            }
            return;
        }
        let judged = match self.turn_away(now, origin) {
            Some(reason) => Err(reason),
            None => self.judge(now, origin, key, timestamp_us, handshake),
        };
        match judged {
            Ok(request) => {
                let expires = now + self.settings.pending_time;
                self.attempts.insert(key, Entry { attempt: Attempt::Pending, expires });
                self.pending += 1;
                self.expire_at(expires);
                self.counters.admissions += 1;
                self.events.push_back(Event::Admission(Box::new(request)));
            }
            Err(reason) => {
                self.counters.rejections += 1;
                self.note(origin.peer, reason, handshake.extensions.stream_id);
                let request = Request::Rejection(reason);
                let answer = HandshakeFields { encryption: 0, extension: 0, request, ..*fields };
                self.send(now, origin, &answer);
            }
        }
    }

    /// Whether a source has sent too many conclusions, or three quarters of all that may wait are its: a quarter stays free for others.
    fn turn_away(&mut self, now: Instant, origin: Origin) -> Option<RejectReason> {
        let source = SourcePrefix::of(origin.peer.ip());
        if !self.conclusions.take(now, source) {
            self.counters.rejected_rate += 1;
            return Some(RejectReason::Overload);
        }
        let is_its = |key: &ConnectionKey| SourcePrefix::of(key.peer.ip()) == source;
        let share = self.settings.pending_max - self.settings.pending_max / 4;
        if self.pending < share {
            return None;
        }
        let waiting =
            |(key, entry): &(&ConnectionKey, &Entry)| matches!(entry.attempt, Attempt::Pending) && is_its(key);
        if self.pending < self.settings.pending_max && self.attempts.iter().filter(waiting).count() < share {
            return None;
        }
        self.counters.rejected_backlog += 1;
        Some(RejectReason::Backlog)
    }

    /// Keeps for people whom the listener has rejected.
    fn note(&mut self, peer: SocketAddr, reason: RejectReason, stream_id: Option<&[u8]>) {
        if self.refusals.len() == REFUSALS_MAX {
            return;
        }
        let (stream_id, fault) = match stream_id.map(StreamId::from_wire) {
            None => (String::new(), None),
            Some(Ok(stream_id)) => (stream_id.as_str().to_owned(), None),
            Some(Err(error)) => (stream_id::readable(stream_id.unwrap_or_default()), Some(error)),
        };
        let why = match (reason, fault) {
            (RejectReason::Overload, _) => "more conclusions than a source may send".to_owned(),
            (RejectReason::Backlog, _) => "too many wait for their admission".to_owned(),
            (RejectReason::MessageApi | RejectReason::Congestion, _) => self.settings.mode.expectation().to_owned(),
            (_, Some(fault)) if fault.reject_reason() == reason => fault.to_string(),
            _ => "its handshake is none that is let in here".to_owned(),
        };
        self.refusals.push_back(Refusal { peer, stream_id, reason, why });
    }

    /// The next that the listener itself has rejected.
    pub fn poll_refusal(&mut self) -> Option<Refusal> {
        self.refusals.pop_front()
    }

    /// Everything about a conclusion that does not depend on the stream it is for.
    fn judge(
        &mut self,
        now: Instant,
        origin: Origin,
        key: ConnectionKey,
        timestamp_us: u32,
        handshake: &Handshake<'_>,
    ) -> Result<AdmissionRequest, RejectReason> {
        let fields = &handshake.fields;
        if fields.mtu < MTU_MIN || fields.flow_window < 2 {
            return Err(RejectReason::Rogue);
        }
        if fields.version == VERSION_4 {
            return self.judge_version4(now, origin, key, timestamp_us, fields);
        }
        let Extensions { handshake: extension, key_material, stream_id, filter, group, .. } = handshake.extensions;
        let extension = extension.ok_or(RejectReason::Rogue)?;
        if extension.version < VERSION_MIN {
            // Handshake version 5 came with 1.3.0: who says otherwise does not mean it.
            return Err(RejectReason::Rogue);
        }
        if extension.version < self.settings.version_min {
            return Err(RejectReason::Version);
        }
        self.settings.mode.agree(&extension, handshake.extensions.congestion)?;
        let packet_filter = filter.filter(|wire| !wire.is_empty()).map(FilterConfiguration::from_wire).transpose();
        let packet_filter = packet_filter.map_err(|_| RejectReason::Filter)?;
        if group.is_some() && (!self.settings.bonding || self.settings.mode.is_reliable()) {
            return Err(RejectReason::Group);
        }
        let group = group.map(Membership::parse).transpose()?;
        let key_material = key_material.map(KeyMaterial::parse).transpose().map_err(|_| RejectReason::Rogue)?;
        let stream_id = match stream_id.map(StreamId::from_wire).transpose() {
            Ok(stream_id) => stream_id.unwrap_or_default(),
            Err(error) => return Err(error.reject_reason()),
        };
        self.judge_backlog()?;
        Ok(AdmissionRequest {
            key,
            local: origin.local,
            interface: origin.interface,
            arrival: now,
            timestamp_us,
            stream_id,
            mode: self.settings.mode,
            is_version4: false,
            peer_version: extension.version,
            peer_flags: extension.flags,
            requested_latency_ms: extension.send_latency_ms,
            peer_latency_ms: extension.receive_latency_ms,
            mtu: fields.mtu,
            flow_window: fields.flow_window,
            key_material,
            group,
            packet_filter,
            cookie: fields.cookie,
        })
    }

    /// The same for version 4, which has said nothing of SRT yet.
    fn judge_version4(
        &mut self,
        now: Instant,
        origin: Origin,
        key: ConnectionKey,
        timestamp_us: u32,
        fields: &HandshakeFields,
    ) -> Result<AdmissionRequest, RejectReason> {
        if self.settings.version_min > VERSION_MIN || self.settings.mode.is_reliable() {
            return Err(RejectReason::Version);
        }
        if fields.extension != SOCKET_TYPE_DATAGRAM {
            return Err(RejectReason::MessageApi);
        }
        self.judge_backlog()?;
        Ok(AdmissionRequest {
            key,
            local: origin.local,
            interface: origin.interface,
            arrival: now,
            timestamp_us,
            stream_id: StreamId::default(),
            mode: TransmissionMode::Live,
            is_version4: true,
            peer_version: 0,
            peer_flags: 0,
            requested_latency_ms: 0,
            peer_latency_ms: 0,
            mtu: fields.mtu,
            flow_window: fields.flow_window,
            key_material: None,
            group: None,
            packet_filter: None,
            cookie: fields.cookie,
        })
    }

    fn judge_backlog(&mut self) -> Result<(), RejectReason> {
        if self.pending >= self.settings.pending_max || self.events.len() >= self.settings.pending_max {
            self.counters.rejected_backlog += 1;
            return Err(RejectReason::Backlog);
        }
        Ok(())
    }

    /// Takes the answer to an admission: sends it, and repeats it whenever the conclusion is repeated.
    ///
    /// An answer that comes after its time is sent all the same.
    pub fn answer(&mut self, now: Instant, answer: Answer) {
        self.transmit(now, &answer);
        self.remember(now, answer);
    }

    /// Takes an answer that has been sent already, by the shard that gave it, for repetition only.
    pub fn remember(&mut self, now: Instant, answer: Answer) {
        let key = answer.key;
        let expires = now + self.settings.answered_time;
        let entry = Entry { attempt: Attempt::Answered(Box::new(answer)), expires };
        match self.attempts.insert(key, entry).map(|previous| previous.attempt) {
            Some(Attempt::Answered(_)) => return,
            Some(Attempt::Pending) => self.pending -= 1,
            None => {}
        }
        if self.answered.len() == self.settings.answered_max
            && let Some(oldest) = self.answered.pop_front()
        {
            self.attempts.remove(&oldest);
        }
        self.answered.push_back(key);
        self.expire_at(expires);
    }

    /// Forgets what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|expiry| expiry > now) {
            return;
        }
        let (pending, counters) = (&mut self.pending, &mut self.counters);
        self.attempts.retain(|_, entry| {
            let keep = entry.expires > now;
            if !keep && matches!(entry.attempt, Attempt::Pending) {
                *pending -= 1;
                counters.unanswered += 1;
            }
            keep
        });
        let attempts = &self.attempts;
        self.answered
            .retain(|key| attempts.get(key).is_some_and(|entry| matches!(entry.attempt, Attempt::Answered(_))));
        self.next_expiry = self.attempts.values().map(|entry| entry.expires).min();
    }

    /// When [`Listener::handle_timeout`] has something to do.
    pub const fn next_timeout(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// The next packet to send; its bytes are appended to `buffer`.
    pub fn poll_transmit(&mut self, _now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, packet) = self.transmits.pop_front()?;
        buffer.extend_from_slice(&packet);
        Some(transmit)
    }

    /// The next thing to report.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn expire_at(&mut self, expires: Instant) {
        self.next_expiry = Some(self.next_expiry.map_or(expires, |earlier| earlier.min(expires)));
    }

    /// A handshake without extensions, back to where the question came from.
    fn send(&mut self, now: Instant, to: Origin, answer: &HandshakeFields) {
        self.scratch.clear();
        let timestamp_us = now.as_micros() as u32;
        ControlWriter { timestamp_us, socket_id: answer.socket_id }.handshake(&mut self.scratch, &[]);
        answer.encode(&mut self.scratch);
        let len = self.scratch.len();
        self.push(Transmit { peer: to.peer, local: to.local, interface: to.interface, path: 0, len });
    }

    fn transmit(&mut self, now: Instant, answer: &Answer) {
        self.scratch.clear();
        let transmit = answer.write(now, &mut self.scratch);
        self.push(transmit);
    }

    fn push(&mut self, transmit: Transmit) {
        if self.transmits.len() == self.settings.transmit_max {
            self.counters.dropped_transmit += 1;
            return;
        }
        self.transmits.push_back((transmit, self.scratch.iter().copied().collect()));
    }

    fn cookie(&self, peer: SocketAddr, minute: u64) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.settings.cookie_secret);
        match peer.ip().to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        hasher.write_u16(peer.port());
        hasher.write_u64(minute);
        hasher.finish() as u32
    }
}

const fn minute(now: Instant) -> u64 {
    now.as_nanos() / 60_000_000_000
}
