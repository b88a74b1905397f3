//! Whether a caller is let in: what it asks for, what whoever owns the stream grants it, and the packet that tells it so.

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::Origin;
use crate::base::{Instant, Transmit};
use crate::protocol::srt::control::ControlWriter;
use crate::protocol::srt::encryption::{
    Encryption, KEY_MATERIAL_LEN_MAX, KeyEncryptingKey, KeyMaterial, KeyMaterialState, KeyRefresh,
};
use crate::protocol::srt::fec::configuration::{self as filter, Fec, FilterConfiguration};
use crate::protocol::srt::handshake::{
    self, HANDSHAKE_LEN, HandshakeExtension, HandshakeFields, Offer, RejectReason, Request, SOCKET_TYPE_DATAGRAM,
    VERSION_4, VERSION_5, flags,
};
use crate::protocol::srt::membership::{GROUP_ID_BIT, MEMBERSHIP_LEN, Membership};
use crate::protocol::srt::packet::{HEADER_LEN, SequenceNumber};
use crate::protocol::srt::parameters::{ConnectionParameters, Features, MTU_MAX, PeerTimeBase, Role, VERSION};
use crate::protocol::srt::stream_id::StreamId;
use crate::protocol::srt::transmission_mode::TransmissionMode;

/// Longest packet that a listener sends: a conclusion with a handshake extension, key material for two keys, and a packet filter or,
/// which is shorter, a group.
pub const ANSWER_LEN_MAX: usize = HEADER_LEN + HANDSHAKE_LEN + 16 + 4 + KEY_MATERIAL_LEN_MAX + 4 + filter::TEXT_LEN_MAX;
const _: () = assert!(MEMBERSHIP_LEN <= filter::TEXT_LEN_MAX, "a leg gets no filter");

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

impl ConnectionKey {
    pub(super) const fn of(peer: SocketAddr, fields: &HandshakeFields) -> Self {
        let initial_sequence = fields.initial_sequence.get() as u32;
        Self { peer, peer_socket_id: fields.socket_id, initial_sequence }
    }
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
    /// Its keys, wrapped. Salt and length for
    /// [`derive_key_encrypting_key`](crate::protocol::srt::encryption::derive_key_encrypting_key) are in there; derive off the shard.
    pub key_material: Option<KeyMaterial>,
    /// The group of the caller's that this is to be a leg of.
    pub group: Option<Membership>,
    /// The packet filter that it asks for.
    pub packet_filter: Option<FilterConfiguration>,
    pub(super) cookie: u32,
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
            latency_max_ms: u16::MAX,
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
    pub(super) local: Option<IpAddr>,
    pub(super) interface: u32,
    /// Zero of our clock for this connection: the time stamp is that of the sending, everything else never changes.
    pub(super) start: Instant,
    pub(super) packet: ArrayVec<u8, ANSWER_LEN_MAX>,
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
    /// One that has said nothing of SRT yet, as a conclusion of version 4 is.
    pub(super) fn new(arrival: Instant, origin: Origin, timestamp_us: u32, fields: &HandshakeFields) -> Self {
        Self {
            key: ConnectionKey::of(origin.peer, fields),
            local: origin.local,
            interface: origin.interface,
            arrival,
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
        }
    }

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
        let settled = self.parameters(now, &acceptance);
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
        let latency = |ours: u16, theirs: u16| match self.mode.is_reliable() {
            true => 0,
            false => ours.max(theirs).min(acceptance.latency_max_ms.max(ours)),
        };
        let receive_latency_ms = latency(acceptance.receive_latency_ms, self.requested_latency_ms);
        let send_latency_ms = latency(acceptance.send_latency_ms, self.peer_latency_ms);

        let mut our_flags = self.mode.flags();
        if !settled.features.send_by_timestamp {
            our_flags &= !flags::TSBPD_SENDER;
        }
        if !settled.features.retransmission_flag {
            our_flags &= !flags::RETRANSMISSION;
        }
        let filter_answer = packet_filter.map(|fec| FilterConfiguration::from(fec).to_wire());
        let fields = HandshakeFields {
            encryption: handshake::encryption_field(encryption.as_ref().map(Encryption::key_length)),
            ..self.fields_accepted(&settled)
        };
        let offer = Offer {
            is_response: true,
            handshake: HandshakeExtension {
                version: VERSION,
                flags: our_flags,
                receive_latency_ms,
                send_latency_ms: if settled.features.send_by_timestamp { send_latency_ms } else { 0 },
            },
            key_material: key_answer,
            stream_id: None,
            group: acceptance.group_id.and_then(|group_id| Some(Membership { group_id, ..self.group? })),
            packet_filter: filter_answer.as_deref(),
            mode: self.mode,
        };
        let answer = self.answer(now, |body| fields.encode_conclusion(&offer, body));
        let parameters = ConnectionParameters {
            receive_latency_ms,
            send_latency_ms,
            encryption,
            key_state,
            packet_filter,
            stream_id: self.stream_id.clone(),
            ..settled
        };
        Ok((parameters, answer))
    }

    /// What every handshake settles, of either version: who is where, how much fits, and that time begins. In plain.
    pub(super) fn parameters(&self, now: Instant, acceptance: &Acceptance) -> ConnectionParameters {
        ConnectionParameters {
            peer: self.key.peer,
            local: self.local,
            interface: self.interface,
            role: acceptance.role,
            mode: self.mode,
            socket_id: acceptance.socket_id,
            peer_socket_id: self.key.peer_socket_id,
            initial_sequence: SequenceNumber::new(u64::from(self.key.initial_sequence)),
            peer_initial_sequence: None,
            start: now,
            peer_time_base: PeerTimeBase { timestamp_us: self.timestamp_us, arrival: self.arrival },
            receive_latency_ms: acceptance.receive_latency_ms,
            send_latency_ms: 0,
            mtu: self.mtu.min(acceptance.mtu),
            flow_window: acceptance.flow_window,
            peer_flow_window: self.flow_window,
            peer_version: self.peer_version,
            peer_flags: self.peer_flags,
            features: Features::in_mode(self.mode, self.peer_flags),
            encryption: None,
            key_state: KeyMaterialState::Unsecured,
            packet_filter: None,
            stream_id: StreamId::default(),
            address_secret: acceptance.address_secret,
            version4: None,
        }
    }

    /// The packet filter that this caller gets where `ours` is insisted on, if any is. A leg of a group gets none, nor does a file.
    ///
    /// # Errors
    /// [`RejectReason::Filter`].
    pub fn settle_filter(&self, ours: Option<&FilterConfiguration>) -> Result<Option<Fec>, RejectReason> {
        let knows = self.peer_flags & flags::PACKET_FILTER != 0;
        let packet_filter =
            filter::settle(ours, self.packet_filter.as_ref(), knows).map_err(|_| RejectReason::Filter)?;
        let is_for_all = self.group.is_none() && !self.mode.is_reliable();
        if packet_filter.is_some() && !is_for_all { Err(RejectReason::Filter) } else { Ok(packet_filter) }
    }

    /// Refuses the caller, with a reason that it is told.
    pub fn reject(&self, now: Instant, reason: RejectReason) -> Answer {
        let fields = HandshakeFields { request: Request::Rejection(reason), ..self.fields() };
        self.answer(now, |body| fields.encode(body))
    }

    /// The handshake of the answer to one who is let in with these.
    pub(super) fn fields_accepted(&self, settled: &ConnectionParameters) -> HandshakeFields {
        let ConnectionParameters { mtu, flow_window, socket_id, .. } = *settled;
        HandshakeFields { mtu, flow_window, socket_id, ..self.fields() }
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

    pub(super) fn answer(&self, start: Instant, body: impl FnOnce(&mut Vec<u8>)) -> Answer {
        let mut bytes = Vec::with_capacity(ANSWER_LEN_MAX);
        ControlWriter { timestamp_us: 0, socket_id: self.key.peer_socket_id }.handshake(&mut bytes, &[]);
        body(&mut bytes);
        let packet = bytes.iter().copied().collect();
        Answer { key: self.key, local: self.local, interface: self.interface, start, packet }
    }
}
