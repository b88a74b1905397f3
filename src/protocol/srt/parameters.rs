//! What a handshake has settled: everything that a connection needs to run.

use std::net::{IpAddr, SocketAddr};

use super::encryption::{Encryption, KeyMaterial, KeyMaterialState};
use super::fec::FEC_HEADER_LEN;
use super::fec::configuration::{Fec, FilterConfiguration};
use super::handshake::flags;
use super::packet::{DataHeader, HEADER_LEN, KeyFlag, MESSAGE_NUMBER_MAX, PacketPosition, SequenceNumber};
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, snapshot_fields, valid};
use super::stream_id::StreamId;
use super::transmission_mode::TransmissionMode;
use crate::base::Instant;

/// Version of SRT that we speak and announce: 1.5.4, as `0x00MMmmpp`. It was the first whose AES-GCM is sound, and libsrt takes that form
/// with peers from this version on.
pub const VERSION: u32 = 0x0001_0504;

/// Bytes of IPv4 and UDP in front of an SRT packet; libsrt counts these for IPv6 too, unless its peer speaks IPv6 only.
pub const IPV4_UDP_LEN: usize = 28;

/// Bytes of IPv6 and UDP in front of an SRT packet.
pub const IPV6_UDP_LEN: usize = 48;

/// Largest packet on the wire, IP header included, that we offer and accept: an Ethernet frame's payload.
pub const MTU_MAX: u32 = 1500;

/// Smallest packet on the wire that is taken from a peer: below it no media fits and lists of losses are useless.
pub const MTU_MIN: u32 = 128;

/// Message numbers run from 1 (libsrt takes 0 for "none").
const MESSAGE_NUMBERS: u64 = MESSAGE_NUMBER_MAX as u64;

/// Who sends media on this connection. The protocol works both ways; this is what it is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    /// We receive.
    #[default]
    Receiver,
    /// We send.
    Sender,
    /// Both.
    Both,
}

impl Role {
    /// Whether media comes in.
    #[inline]
    pub const fn receives(self) -> bool {
        matches!(self, Self::Receiver | Self::Both)
    }

    /// Whether media goes out.
    #[inline]
    pub const fn sends(self) -> bool {
        matches!(self, Self::Sender | Self::Both)
    }
}

/// The pair from which the delivery time of every packet follows (draft-sharabayko-srt §4.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerTimeBase {
    /// Time stamp of the peer's conclusion, in µs of its clock, wrapping at 32 bits.
    pub timestamp_us: u32,
    /// When that conclusion came in.
    pub arrival: Instant,
}

/// The features that both sides will use on this connection (draft-sharabayko-srt §3.2.1.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Packets to us are delivered by their time stamps (the peer sends with TSBPD).
    pub receive_by_timestamp: bool,
    /// The peer delivers by time stamp what we send.
    pub send_by_timestamp: bool,
    /// The peer drops what is too late for delivery; so may we as its sender.
    pub peer_drops_too_late: bool,
    /// The peer repeats its loss reports, so that a sender need not resend blindly.
    pub peer_repeats_loss_reports: bool,
    /// Data packets carry the flag "retransmitted"; without it that bit belongs to the message number.
    pub retransmission_flag: bool,
}

impl Features {
    /// Those of a connection with a peer that has shown these flags: all of ours go with them.
    pub const fn of_peer(peer_flags: u32) -> Self {
        Self {
            receive_by_timestamp: peer_flags & flags::TSBPD_SENDER != 0,
            send_by_timestamp: peer_flags & flags::TSBPD_RECEIVER != 0,
            peer_drops_too_late: peer_flags & flags::TOO_LATE_PACKET_DROP != 0,
            peer_repeats_loss_reports: peer_flags & flags::PERIODIC_LOSS_REPORT != 0,
            retransmission_flag: peer_flags & flags::RETRANSMISSION != 0,
        }
    }

    /// The same in this mode: what drops and delivers by time has no place where every byte is to arrive, whatever the peer shows.
    pub const fn in_mode(mode: TransmissionMode, peer_flags: u32) -> Self {
        let features = Self::of_peer(peer_flags);
        if !mode.is_reliable() {
            return features;
        }
        Self { receive_by_timestamp: false, send_by_timestamp: false, peer_drops_too_late: false, ..features }
    }
}

impl Default for Features {
    /// Everything, as live mode of every libsrt since 1.3 has it.
    fn default() -> Self {
        Self {
            receive_by_timestamp: true,
            send_by_timestamp: true,
            peer_drops_too_late: true,
            peer_repeats_loss_reports: true,
            retransmission_flag: true,
        }
    }
}

/// Everything the handshake has settled.
#[derive(Debug)]
pub struct ConnectionParameters {
    /// The peer's address.
    pub peer: SocketAddr,
    /// The address of ours that it talks to, when known: answers leave by it.
    pub local: Option<IpAddr>,
    /// Index of the interface; 0 when unknown.
    pub interface: u32,
    /// What the connection is used for.
    pub role: Role,
    /// How it carries what it is given.
    pub mode: TransmissionMode,
    /// Our socket id: what the peer writes into its packets.
    pub socket_id: u32,
    /// The peer's socket id: what we write into ours.
    pub peer_socket_id: u32,
    /// Number of the first data packet that we send.
    pub initial_sequence: SequenceNumber,
    /// Number of the first one that the peer sends; `None`: the same, as between caller and listener.
    pub peer_initial_sequence: Option<SequenceNumber>,
    /// Zero of the clock that our time stamps count from, in µs, wrapping at 32 bits.
    pub start: Instant,
    /// Relation of the peer's clock to ours at the handshake.
    pub peer_time_base: PeerTimeBase,
    /// How long after its time stamp a packet is delivered here, in ms.
    pub receive_latency_ms: u16,
    /// The same at the peer, for what we send, in ms.
    pub send_latency_ms: u16,
    /// Largest packet on the wire, IP header included, in bytes: the smaller of both sides' wishes.
    pub mtu: u32,
    /// How many packets may be in flight to us.
    pub flow_window: u32,
    /// How many packets may be in flight to the peer.
    pub peer_flow_window: u32,
    /// The peer's version as `0x00MMmmpp`.
    pub peer_version: u32,
    /// The peer's flags as they came.
    pub peer_flags: u32,
    /// What follows from them.
    pub features: Features,
    /// Keys, when the connection is encrypted.
    pub encryption: Option<Encryption>,
    /// What became of the exchange of keys, for the direction that media flows in; anything but secured goes without keys.
    pub key_state: KeyMaterialState,
    /// The packet filter, when there is one.
    pub packet_filter: Option<Fec>,
    /// What the caller asked for; empty without a Stream ID.
    pub stream_id: StreamId,
    /// A secret for [`AddressProof`](super::address_proof::AddressProof); without one the peer is heard at its address alone.
    pub address_secret: Option<[u8; 16]>,
    /// What is left to be settled with a peer of version 4 of the handshake.
    pub version4: Option<Version4Terms>,
}

/// On what terms a peer of version 4 of the handshake goes on after it (`connection/version4.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version4Terms {
    /// Most latency that it gets, in ms.
    pub latency_max_ms: u16,
    /// What it sends is to be encrypted: a key is wanted, and nothing is taken in plain unless the next says so.
    pub has_passphrase: bool,
    /// Whether it loses its place without the right key. Otherwise what it sends in plain is taken, and what cannot be read is not.
    pub enforced_encryption: bool,
}

impl ConnectionParameters {
    /// Of a connection in plain whose sides ask for the same: 120 ms, packets of 1,500 bytes, 8,192 of them in flight, numbers from 0 on, and
    /// both clocks at 0 at `start`. A handshake settles its own; tests and benches begin with these and change what they are about.
    pub fn plain(role: Role, peer: SocketAddr, start: Instant) -> Self {
        Self {
            peer,
            local: None,
            interface: 0,
            role,
            mode: TransmissionMode::Live,
            socket_id: 7,
            peer_socket_id: 9,
            initial_sequence: SequenceNumber::new(0),
            peer_initial_sequence: None,
            start,
            peer_time_base: PeerTimeBase { timestamp_us: 0, arrival: start },
            receive_latency_ms: 120,
            send_latency_ms: 120,
            mtu: 1_500,
            flow_window: 8_192,
            peer_flow_window: 8_192,
            peer_version: VERSION,
            peer_flags: 0xbf,
            features: Features::default(),
            encryption: None,
            key_state: KeyMaterialState::Unsecured,
            packet_filter: None,
            stream_id: StreamId::default(),
            address_secret: None,
            version4: None,
        }
    }

    /// With a peer of version 4 of the handshake that was called or met. It has said nothing of SRT yet: packets are delivered by
    /// their arrival until it says what it has. `offered` is our key with the message for it, if there is a passphrase: who sends begins with
    /// it, and who receives waits for the peer's.
    pub fn with_version4(
        self,
        offered: Option<(Encryption, KeyMaterial)>,
        latency_max_ms: u16,
        enforced_encryption: bool,
    ) -> Self {
        let is_encrypted = offered.is_some();
        let encryption = offered.filter(|_| self.role.sends()).map(|(mut encryption, message)| {
            encryption.announce_first(message);
            encryption
        });
        let has_passphrase = is_encrypted && encryption.is_none();
        Self {
            peer_version: 0,
            peer_flags: 0,
            features: Features::of_peer(0),
            key_state: if is_encrypted { KeyMaterialState::Securing } else { KeyMaterialState::Unsecured },
            encryption,
            version4: Some(Version4Terms { latency_max_ms, has_passphrase, enforced_encryption }),
            ..self
        }
    }

    /// The peer's version for people, such as `1.5.1`. One of version 4 of the handshake says it after connecting.
    pub fn peer_version_text(&self) -> String {
        match self.peer_version {
            0 => "before 1.3".to_owned(),
            version => format!("{}.{}.{}", version >> 16 & 0xff, version >> 8 & 0xff, version & 0xff),
        }
    }

    /// Largest SRT packet (header and payload) to the peer, in bytes.
    #[inline]
    pub fn packet_size_max(&self) -> usize {
        let below = if self.peer.ip().to_canonical().is_ipv4() { IPV4_UDP_LEN } else { IPV6_UDP_LEN };
        self.mtu as usize - below
    }

    /// Largest payload of a data packet to the peer, in bytes. The packet filter's control packets add a header of their own to one.
    #[inline]
    pub fn payload_size_max(&self) -> usize {
        let filter = if self.packet_filter.is_some() { FEC_HEADER_LEN } else { 0 };
        self.packet_size_max() - HEADER_LEN - filter - self.tag_len()
    }

    /// Bytes that follow the payload of each data packet: the tag of AES-GCM.
    #[inline]
    pub fn tag_len(&self) -> usize {
        self.encryption.as_ref().map_or(0, |encryption| encryption.cipher().tag_len())
    }

    /// The header of a data packet to the peer, handed in at `submitted`, as it is sent first and in plain.
    #[inline]
    pub fn data_header(&self, sequence: u64, submitted: Instant) -> DataHeader {
        DataHeader {
            sequence: SequenceNumber::new(sequence),
            position: PacketPosition::Only,
            // libsrt may hand up a message without the flag before those that are missing.
            in_order: self.mode.is_reliable(),
            key: KeyFlag::Plain,
            retransmitted: false,
            message_number: (sequence.wrapping_sub(self.initial_sequence.get()) % MESSAGE_NUMBERS + 1) as u32,
            timestamp_us: self.timestamp_us(submitted),
            socket_id: self.peer_socket_id,
        }
    }

    /// The time stamp of a packet sent at `now`.
    #[inline]
    pub fn timestamp_us(&self, now: Instant) -> u32 {
        now.saturating_since(self.start).as_micros() as u32
    }
}

impl ConnectionParameters {
    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            peer,
            local,
            interface,
            role,
            mode,
            socket_id,
            peer_socket_id,
            initial_sequence,
            peer_initial_sequence,
            start,
            peer_time_base,
            receive_latency_ms,
            send_latency_ms,
            mtu,
            flow_window,
            peer_flow_window,
            peer_version,
            peer_flags,
            features,
            encryption,
            key_state,
            packet_filter,
            stream_id,
            address_secret,
            version4,
        } = self;
        to.address(*peer);
        to.option(*local, SnapshotWriter::ip);
        to.u32(*interface);
        role.snapshot(to);
        mode.snapshot(to);
        to.u32(*socket_id);
        to.u32(*peer_socket_id);
        to.count(initial_sequence.get());
        to.optional_count(peer_initial_sequence.map(SequenceNumber::get));
        to.instant(*start);
        peer_time_base.snapshot(to);
        to.u16(*receive_latency_ms);
        to.u16(*send_latency_ms);
        to.u32(*mtu);
        to.u32(*flow_window);
        to.u32(*peer_flow_window);
        to.u32(*peer_version);
        to.u32(*peer_flags);
        features.snapshot(to);
        to.option(encryption.as_ref(), |to, encryption| encryption.snapshot(to));
        to.array(&key_state.to_wire());
        to.option(packet_filter.map(FilterConfiguration::from), |to, filter| filter.snapshot(to));
        stream_id.snapshot(to);
        to.option(address_secret.as_ref(), SnapshotWriter::array);
        to.option(version4.as_ref(), |to, version4| version4.snapshot(to));
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let restored = Self {
            peer: from.address()?,
            local: from.option(SnapshotReader::ip)?,
            interface: from.u32()?,
            role: Role::restore(from)?,
            mode: TransmissionMode::restore(from)?,
            socket_id: from.u32()?,
            peer_socket_id: from.u32()?,
            initial_sequence: SequenceNumber::new(from.count()?),
            peer_initial_sequence: from.optional_count()?.map(SequenceNumber::new),
            start: from.instant()?,
            peer_time_base: PeerTimeBase::restore(from)?,
            receive_latency_ms: from.u16()?,
            send_latency_ms: from.u16()?,
            mtu: from.u32()?,
            flow_window: from.u32()?,
            peer_flow_window: from.u32()?,
            peer_version: from.u32()?,
            peer_flags: from.u32()?,
            features: Features::restore(from)?,
            encryption: from.option(Encryption::restore)?,
            key_state: KeyMaterialState::from_wire(from.array()?).ok_or(RestoreError::Invalid)?,
            packet_filter: from
                .option(|from| FilterConfiguration::restore(from)?.complete().map_err(|_| RestoreError::Invalid))?,
            stream_id: StreamId::restore(from)?,
            address_secret: from.option(SnapshotReader::array)?,
            version4: from.option(Version4Terms::restore)?,
        };
        // The sums of a filter are as long as the longest packet.
        let mtu_max = if restored.packet_filter.is_some() { MTU_MAX } else { u32::from(u16::MAX) };
        valid((MTU_MIN..=mtu_max).contains(&restored.mtu))?;
        // Nobody without the one has ever asked for the other.
        valid(restored.packet_filter.is_none() || restored.version4.is_none())?;
        let is_live = !restored.mode.is_reliable();
        valid(is_live || (restored.packet_filter.is_none() && restored.version4.is_none()))?;
        let Features { receive_by_timestamp, send_by_timestamp, peer_drops_too_late, .. } = restored.features;
        valid(is_live || !(receive_by_timestamp || send_by_timestamp || peer_drops_too_late))?;
        Ok(restored)
    }
}

impl Role {
    pub(crate) fn snapshot(self, to: &mut SnapshotWriter<'_>) {
        to.u8(match self {
            Self::Receiver => 0,
            Self::Sender => 1,
            Self::Both => 2,
        });
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(match from.u8()? {
            0 => Self::Receiver,
            1 => Self::Sender,
            2 => Self::Both,
            _ => return Err(RestoreError::Invalid),
        })
    }
}

impl Version4Terms {
    snapshot_fields! { u16 latency_max_ms, bool has_passphrase, bool enforced_encryption }
}

impl PeerTimeBase {
    snapshot_fields! { u32 timestamp_us, instant arrival }
}

impl Features {
    snapshot_fields! {
        bool receive_by_timestamp,
        bool send_by_timestamp,
        bool peer_drops_too_late,
        bool peer_repeats_loss_reports,
        bool retransmission_flag,
    }
}
