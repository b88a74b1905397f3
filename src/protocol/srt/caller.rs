//! The caller: induction, conclusion, and what comes of it (draft-sharabayko-srt §4.3.1). A listener of version 4 of the handshake (libsrt
//! before 1.3) shows itself by the answer to the induction, gets a conclusion without extensions, and is told the rest by the connection
//! (`connection/version4.rs`).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;

use super::control::{Control, ControlWriter};
use super::encryption::{
    Cipher, Encryption, KeyEncryptingKey, KeyMaterial, KeyMaterialState, KeyRefresh, SALT_LEN, check_handshake_response,
};
use super::fec::configuration::{self as filter, FilterConfiguration};
use super::handshake::{
    self, Handshake, HandshakeExtension, HandshakeFields, MAGIC, Offer, RejectReason, Request, SOCKET_TYPE_DATAGRAM,
    VERSION_4, VERSION_5, VERSION_MIN,
};
use super::membership::Membership;
use super::packet::{self, HEADER_LEN, Header, SequenceNumber};
use super::parameters::{ConnectionParameters, Features, MTU_MAX, MTU_MIN, PeerTimeBase, Role, VERSION};
use super::stream_id::StreamId;
use super::transmission_mode::TransmissionMode;
use crate::base::{Instant, Transmit};

mod snapshot;
#[cfg(test)]
mod tests;

/// How often an unanswered handshake is sent again, as libsrt does.
pub const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// The first key of an encrypted call.
#[derive(Clone, Debug)]
pub struct CallerEncryption {
    /// Derived from the passphrase and the salt below, off the shard; its length is that of the keys.
    pub key_encrypting_key: KeyEncryptingKey,
    /// What the keys are for; a listener of libsrt that does not insist on one takes what it gets.
    pub cipher: Cipher,
    /// Fresh randomness.
    pub salt: [u8; SALT_LEN],
    /// Fresh randomness that nobody else gets: all keys come from it.
    pub key_seed: [u8; 32],
    /// When keys change.
    pub key_refresh: KeyRefresh,
}

/// What to ask for.
#[derive(Clone, Debug)]
pub struct CallerSettings {
    /// The listener.
    pub peer: SocketAddr,
    /// The address to call from; `None` leaves the choice to the kernel.
    pub local: Option<IpAddr>,
    /// Index of the interface to call by; 0 leaves the choice to the kernel.
    pub interface: u32,
    /// Our socket id: unused, not 0, below 2³⁰.
    pub socket_id: u32,
    /// Number of the first data packet: fresh randomness.
    pub initial_sequence: SequenceNumber,
    /// What the connection is for.
    pub role: Role,
    /// How it is to carry what it is given; only live mode has latencies, groups and packet filters.
    pub mode: TransmissionMode,
    /// What to ask for.
    pub stream_id: StreamId,
    /// Latency to receive with, in ms.
    pub receive_latency_ms: u16,
    /// Latency that the listener should receive with, in ms.
    pub send_latency_ms: u16,
    /// Largest packet we take, IP header included.
    pub mtu: u32,
    /// How many packets may be in flight to us.
    pub flow_window: u32,
    /// `None` calls in plain.
    pub encryption: Option<CallerEncryption>,
    /// Whether a listener is refused that does not share the passphrase, or has one where there is none here (libsrt:
    /// `SRTO_ENFORCEDENCRYPTION`). Otherwise the call goes on, and what is sent stays encrypted where there is a passphrase.
    pub enforced_encryption: bool,
    /// The group of ours that the connection is to be a leg of.
    pub group: Option<Membership>,
    /// The packet filter to ask for; without one the listener's is taken.
    pub packet_filter: Option<FilterConfiguration>,
    /// How long to try.
    pub timeout: Duration,
}

impl CallerSettings {
    /// A call in plain that sends, with the values of libsrt for everything else.
    pub fn new(peer: SocketAddr, socket_id: u32, initial_sequence: SequenceNumber) -> Self {
        Self {
            peer,
            local: None,
            interface: 0,
            socket_id,
            initial_sequence,
            role: Role::Sender,
            mode: TransmissionMode::Live,
            stream_id: StreamId::default(),
            receive_latency_ms: 120,
            send_latency_ms: 120,
            mtu: MTU_MAX,
            flow_window: 25_600,
            encryption: None,
            enforced_encryption: true,
            group: None,
            packet_filter: None,
            timeout: Duration::from_secs(3),
        }
    }
}

/// Why a call did not lead to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// The listener said no.
    #[error("rejected by the listener: {0}")]
    Rejected(RejectReason),
    /// The listener said yes, but to something that we cannot agree to; it has been told that the connection is over.
    #[error("the listener's answer is not acceptable: {0}")]
    Unacceptable(RejectReason),
    /// Nobody answered.
    #[error("no answer in time")]
    Timeout,
}

/// What a caller reports, once.
#[derive(Debug)]
pub enum Event {
    /// The handshake is done.
    Connected(Box<ConnectionParameters>),
    /// It has failed.
    Failed(CallError),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Induction,
    Conclusion { cookie: u32, is_version4: bool },
    Done,
}

/// The machine of one call.
pub struct Caller {
    settings: CallerSettings,
    /// The keys, until the connection takes them, and the message that carries the first one.
    encryption: Option<(Encryption, KeyMaterial)>,
    start: Instant,
    deadline: Instant,
    next_send: Instant,
    stage: Stage,
    /// The listener's end of our group.
    peer_group: Option<Membership>,
    /// Socket id of a peer that has to be told that the connection it believes in is over.
    shutdown: Option<u32>,
    events: VecDeque<Event>,
    dropped: u64,
}

impl Caller {
    /// Begins a call; the first packet is due at once, and `now` is the zero of our clock for the connection.
    pub fn new(now: Instant, mut settings: CallerSettings) -> Self {
        assert!((1..1 << 30).contains(&settings.socket_id), "socket ids lie between 1 and 2^30");
        assert!((MTU_MIN..=MTU_MAX).contains(&settings.mtu), "packets that fit a frame and hold something");
        if settings.mode.is_reliable() {
            assert!(settings.group.is_none() && settings.packet_filter.is_none(), "these are for live mode");
            (settings.receive_latency_ms, settings.send_latency_ms) = (0, 0);
        }
        let encryption = settings.encryption.take().map(|encryption| {
            let CallerEncryption { key_encrypting_key, cipher, salt, key_seed, key_refresh } = encryption;
            Encryption::initiate(key_encrypting_key, cipher, salt, key_seed, key_refresh)
        });
        Self {
            deadline: now + settings.timeout,
            settings,
            encryption,
            start: now,
            next_send: now,
            stage: Stage::Induction,
            peer_group: None,
            shutdown: None,
            events: VecDeque::with_capacity(1),
            dropped: 0,
        }
    }

    /// What the listener says of its end of the group, once connected: of one group all legs are told the same id.
    pub const fn peer_group(&self) -> Option<Membership> {
        self.peer_group
    }

    /// What is asked for.
    pub const fn stream_id(&self) -> &StreamId {
        &self.settings.stream_id
    }

    /// Until when it is tried.
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Packets that were no answer to this call.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a datagram that came to our port.
    pub fn receive(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) {
        if self.stage == Stage::Done || self.answer(now, peer, bytes).is_none() {
            self.dropped += 1;
        }
    }

    /// `None` when it is no answer to what has been asked.
    fn answer(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) -> Option<()> {
        let Header::Control(header) = packet::parse(bytes).ok()? else { return None };
        let Control::Handshake(body) = Control::parse(&header, &bytes[HEADER_LEN..]).ok()? else { return None };
        if peer != self.settings.peer || header.socket_id != self.settings.socket_id {
            return None;
        }
        let handshake = Handshake::parse(body).ok()?;
        let fields = &handshake.fields;
        match (self.stage, fields.request) {
            (Stage::Induction | Stage::Conclusion { .. }, Request::Rejection(reason)) => {
                self.finish(Event::Failed(CallError::Rejected(reason)));
            }
            (Stage::Induction, Request::Induction) => match self.judge_induction(fields) {
                Ok(is_version4) => {
                    self.stage = Stage::Conclusion { cookie: fields.cookie, is_version4 };
                    self.next_send = now;
                }
                Err(reason) => self.finish(Event::Failed(CallError::Unacceptable(reason))),
            },
            (Stage::Conclusion { is_version4, .. }, Request::Conclusion) => {
                let outcome = match is_version4 {
                    true => self.conclude_version4(now, header.timestamp_us, fields),
                    false => self.conclude(now, header.timestamp_us, &handshake),
                };
                match outcome {
                    Ok(parameters) => self.finish(Event::Connected(Box::new(parameters))),
                    Err(reason) => {
                        self.shutdown = Some(fields.socket_id);
                        self.finish(Event::Failed(CallError::Unacceptable(reason)));
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether the listener speaks version 4 only, which has nothing but AES-CTR.
    fn judge_induction(&self, fields: &HandshakeFields) -> Result<bool, RejectReason> {
        match (fields.version, fields.extension) {
            (VERSION_5, MAGIC) => Ok(false),
            (VERSION_4, _) if self.settings.group.is_some() => Err(RejectReason::Group),
            (VERSION_4, _) if self.settings.packet_filter.is_some() => Err(RejectReason::Filter),
            // It could not say which mode it means.
            (VERSION_4, _) if self.settings.mode.is_reliable() => Err(RejectReason::Congestion),
            (VERSION_4, _) => match &self.encryption {
                Some((encryption, _)) if encryption.cipher() != Cipher::AesCtr => Err(RejectReason::Crypto),
                _ => Ok(true),
            },
            _ => Err(RejectReason::Version),
        }
    }

    fn conclude_version4(
        &mut self,
        now: Instant,
        timestamp_us: u32,
        fields: &HandshakeFields,
    ) -> Result<ConnectionParameters, RejectReason> {
        let settings = &self.settings;
        if fields.version != VERSION_4
            || fields.mtu < MTU_MIN
            || fields.flow_window < 2
            || fields.socket_id == 0
            || fields.initial_sequence != settings.initial_sequence
        {
            return Err(RejectReason::Rogue);
        }
        let plain = self.parameters(fields, PeerTimeBase { timestamp_us, arrival: now });
        Ok(plain.with_version4(self.encryption.take(), u16::MAX, self.settings.enforced_encryption))
    }

    /// What every call settles, with a listener of either version: who is where, and how much fits. In plain, as we wish it.
    fn parameters(&self, fields: &HandshakeFields, peer_time_base: PeerTimeBase) -> ConnectionParameters {
        let settings = &self.settings;
        ConnectionParameters {
            peer: settings.peer,
            local: settings.local,
            interface: settings.interface,
            role: settings.role,
            mode: settings.mode,
            socket_id: settings.socket_id,
            peer_socket_id: fields.socket_id,
            initial_sequence: settings.initial_sequence,
            peer_initial_sequence: None,
            start: self.start,
            peer_time_base,
            receive_latency_ms: settings.receive_latency_ms,
            send_latency_ms: settings.send_latency_ms,
            mtu: settings.mtu.min(fields.mtu),
            flow_window: settings.flow_window,
            peer_flow_window: fields.flow_window,
            peer_version: 0,
            peer_flags: 0,
            features: Features::of_peer(0),
            encryption: None,
            key_state: KeyMaterialState::Unsecured,
            packet_filter: None,
            stream_id: StreamId::default(),
            // A listener stays where it was called.
            address_secret: None,
            version4: None,
        }
    }

    fn conclude(
        &mut self,
        now: Instant,
        timestamp_us: u32,
        handshake: &Handshake<'_>,
    ) -> Result<ConnectionParameters, RejectReason> {
        let fields = &handshake.fields;
        let extension = handshake.extensions.handshake.ok_or(RejectReason::Rogue)?;
        if fields.version != VERSION_5 || extension.version < VERSION_MIN {
            return Err(RejectReason::Version);
        }
        if fields.mtu < MTU_MIN || fields.flow_window < 2 || fields.socket_id == 0 {
            return Err(RejectReason::Rogue);
        }
        let mode = self.settings.mode;
        mode.agree_to_answer(&extension, handshake.extensions.congestion)?;
        let peer_group = handshake.extensions.group.map(Membership::parse).transpose()?;
        // A listener that knows no groups says nothing of one (libsrt refuses it likewise).
        if peer_group.map(|group| group.group_type) != self.settings.group.map(|group| group.group_type) {
            return Err(RejectReason::Group);
        }
        let theirs = handshake.extensions.filter.filter(|wire| !wire.is_empty());
        // A listener that does not answer with one does not filter.
        let packet_filter = theirs
            .map(FilterConfiguration::from_wire)
            .transpose()
            .and_then(|theirs| filter::settle(self.settings.packet_filter.as_ref(), theirs.as_ref(), false))
            .map_err(|_| RejectReason::Filter)?;
        if packet_filter.is_some() && (self.settings.group.is_some() || mode.is_reliable()) {
            return Err(RejectReason::Filter);
        }
        let key_state = match (&self.encryption, handshake.extensions.key_material) {
            (None, _) => KeyMaterialState::Unsecured,
            (Some(_), None) => KeyMaterialState::NoSecret,
            (Some((_, request)), Some(response)) => check_handshake_response(request, response),
        };
        let is_agreed = match &self.encryption {
            None => handshake.extensions.key_material.is_none(),
            Some(_) => key_state == KeyMaterialState::Secured,
        };
        match key_state {
            // As in libsrt, even where nothing is enforced.
            KeyMaterialState::BadCryptoMode => return Err(RejectReason::Crypto),
            _ if is_agreed || !self.settings.enforced_encryption => {}
            KeyMaterialState::BadSecret | KeyMaterialState::Securing => return Err(RejectReason::BadSecret),
            _ => return Err(RejectReason::Unsecure),
        }
        self.peer_group = peer_group;
        let features = Features::in_mode(mode, extension.flags);
        let parameters = self.parameters(fields, PeerTimeBase { timestamp_us, arrival: now });
        // Who only receives, and from a listener that has no key, takes what comes in plain.
        let is_used = self.settings.role.sends() || key_state == KeyMaterialState::Secured;
        let encryption = self.encryption.take().filter(|_| is_used).map(|(mut encryption, _)| {
            encryption.set_peer_version(extension.version);
            encryption
        });
        // The listener's word is final: it has seen both wishes.
        let agreed = |is_said: bool, theirs: u16, ours: u16| if is_said { theirs } else { ours };
        let ConnectionParameters { receive_latency_ms, send_latency_ms, .. } = parameters;
        Ok(ConnectionParameters {
            receive_latency_ms: agreed(features.receive_by_timestamp, extension.send_latency_ms, receive_latency_ms),
            send_latency_ms: agreed(features.send_by_timestamp, extension.receive_latency_ms, send_latency_ms),
            peer_version: extension.version,
            peer_flags: extension.flags,
            features,
            encryption,
            key_state,
            packet_filter,
            stream_id: self.settings.stream_id.clone(),
            ..parameters
        })
    }

    fn finish(&mut self, event: Event) {
        self.stage = Stage::Done;
        self.events.push_back(event);
    }

    /// Gives up when the time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.stage != Stage::Done && now >= self.deadline {
            self.finish(Event::Failed(CallError::Timeout));
        }
    }

    /// When there is something to send or to give up; `None` when the call is over.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.stage {
            Stage::Done => self.shutdown.map(|_| Instant::ZERO),
            Stage::Induction | Stage::Conclusion { .. } => Some(self.next_send.min(self.deadline)),
        }
    }

    /// The next packet to send; its bytes are appended to `buffer`.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let start = buffer.len();
        let timestamp_us = now.saturating_since(self.start).as_micros() as u32;
        match self.stage {
            Stage::Done => ControlWriter { timestamp_us, socket_id: self.shutdown.take()? }.shutdown(buffer),
            Stage::Induction | Stage::Conclusion { .. } if now < self.next_send || now >= self.deadline => return None,
            Stage::Induction => {
                ControlWriter { timestamp_us, socket_id: 0 }.handshake(buffer, &[]);
                // The form of version 4: "socket type 2, datagrams" where extensions will stand.
                let (version, extension) = (VERSION_4, SOCKET_TYPE_DATAGRAM);
                HandshakeFields { version, extension, ..self.fields(Request::Induction, 0) }.encode(buffer);
                self.next_send = now + RETRY_INTERVAL;
            }
            Stage::Conclusion { cookie, is_version4: true } => {
                ControlWriter { timestamp_us, socket_id: 0 }.handshake(buffer, &[]);
                let fields = self.fields(Request::Conclusion, cookie);
                let (version, extension, encryption) = (VERSION_4, SOCKET_TYPE_DATAGRAM, 0);
                HandshakeFields { version, extension, encryption, ..fields }.encode(buffer);
                self.next_send = now + RETRY_INTERVAL;
            }
            Stage::Conclusion { cookie, is_version4: false } => {
                ControlWriter { timestamp_us, socket_id: 0 }.handshake(buffer, &[]);
                let packet_filter = self.settings.packet_filter.map(|filter| filter.to_wire());
                let offer = Offer {
                    is_response: false,
                    handshake: HandshakeExtension {
                        version: VERSION,
                        flags: self.settings.mode.flags(),
                        receive_latency_ms: self.settings.receive_latency_ms,
                        send_latency_ms: self.settings.send_latency_ms,
                    },
                    key_material: self.encryption.as_ref().map(|(_, message)| message.as_bytes()),
                    stream_id: Some(&self.settings.stream_id),
                    group: self.settings.group,
                    packet_filter: packet_filter.as_deref(),
                    mode: self.settings.mode,
                };
                self.fields(Request::Conclusion, cookie).encode_conclusion(&offer, buffer);
                self.next_send = now + RETRY_INTERVAL;
            }
        }
        let CallerSettings { peer, local, interface, .. } = self.settings;
        Some(Transmit { peer, local, interface, path: 0, len: buffer.len() - start })
    }

    /// What came of it, once.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn fields(&self, request: Request, cookie: u32) -> HandshakeFields {
        let key_length = self.encryption.as_ref().map(|(encryption, _)| encryption.key_length());
        HandshakeFields {
            version: VERSION_5,
            encryption: if request == Request::Induction { 0 } else { handshake::encryption_field(key_length) },
            extension: 0,
            initial_sequence: self.settings.initial_sequence,
            mtu: self.settings.mtu,
            flow_window: self.settings.flow_window,
            request,
            socket_id: self.settings.socket_id,
            cookie,
            peer_address: self.settings.peer.ip(),
        }
    }
}
