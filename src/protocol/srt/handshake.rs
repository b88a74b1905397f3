//! The handshake's content (draft-sharabayko-srt §3.2.1), version 5, with its extensions, read and written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use super::control::extension;
use super::encryption::KeyLength;
use super::membership::Membership;
use super::packet::SequenceNumber;
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, snapshot_fields};
use super::stream_id::StreamId;
use super::transmission_mode::TransmissionMode;

#[cfg(test)]
mod tests;

/// Length of a handshake without extensions, in bytes.
pub const HANDSHAKE_LEN: usize = 48;

/// The number by which a listener shows that it speaks SRT (§4.3.1.1): in the extension field of its induction.
pub const MAGIC: u16 = 0x4a17;

/// Version of the handshake that induction is sent with, so that every listener understands it.
pub const VERSION_4: u32 = 4;

/// What a handshake of version 4 has in the place of extensions: the socket type "datagrams", which is live mode.
pub const SOCKET_TYPE_DATAGRAM: u16 = 2;
/// Version of the handshake that we speak.
pub const VERSION_5: u32 = 5;

/// Oldest SRT that has handshake version 5: 1.3.0.
pub const VERSION_MIN: u32 = 0x0001_0300;

/// The flags of the handshake extension (§3.2.1.1.1).
pub mod flags {
    /// The sender of this sends with time stamps for delivery.
    pub const TSBPD_SENDER: u32 = 1 << 0;
    /// The sender of this delivers by time stamps.
    pub const TSBPD_RECEIVER: u32 = 1 << 1;
    /// It can encrypt.
    pub const CRYPT: u32 = 1 << 2;
    /// It drops what is too late.
    pub const TOO_LATE_PACKET_DROP: u32 = 1 << 3;
    /// It repeats loss reports.
    pub const PERIODIC_LOSS_REPORT: u32 = 1 << 4;
    /// It knows the flag "retransmitted" in data packets.
    pub const RETRANSMISSION: u32 = 1 << 5;
    /// It sends a stream of bytes, not messages: file transfer.
    pub const STREAM: u32 = 1 << 6;
    /// It knows packet filters.
    pub const PACKET_FILTER: u32 = 1 << 7;
}

/// The bits of the extension field of a conclusion: which extensions follow.
mod present {
    pub const HSREQ: u16 = 1;
    pub const KMREQ: u16 = 2;
    pub const CONFIG: u16 = 4;
}

/// Why a connection is refused: the codes of libsrt in all three ranges (`docs/API/rejection-codes.md`, access control guide).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Not said.
    Unknown,
    /// A system call failed.
    System,
    /// The peer refused.
    Peer,
    /// Out of a resource.
    Resource,
    /// The handshake does not follow the rules.
    Rogue,
    /// Too many connections are waiting.
    Backlog,
    /// A fault inside.
    InternalProgramError,
    /// The listener is closing.
    Close,
    /// The peer's version is too old.
    Version,
    /// Rendezvous cookies are the same.
    RendezvousCookie,
    /// The passphrase is wrong.
    BadSecret,
    /// One side encrypts, the other does not.
    Unsecure,
    /// One side sends messages, the other bytes.
    MessageApi,
    /// Congestion control differs.
    Congestion,
    /// Packet filters do not agree.
    Filter,
    /// Bonding groups do not agree.
    Group,
    /// No answer in time.
    Timeout,
    /// One side insists on GCM, the other on CTR.
    Crypto,
    /// A problem that has no code of its own (1000).
    Fallback,
    /// A key in the Stream ID is not supported (1001).
    KeyNotSupported,
    /// The path of a file is wrong (1002).
    FilePath,
    /// The host in the Stream ID is unknown (1003).
    HostNotFound,
    /// The Stream ID cannot be understood (1400).
    BadRequest,
    /// Not signed in (1401).
    Unauthorized,
    /// Too many streams or too much traffic (1402).
    Overload,
    /// Not allowed (1403).
    Forbidden,
    /// No such resource (1404).
    NotFound,
    /// The mode does not suit the resource (1405).
    BadMode,
    /// The parameters cannot be met (1406).
    Unacceptable,
    /// Somebody else publishes under this name (1409).
    Conflict,
    /// The kind of media is not supported (1415).
    UnsupportedMedia,
    /// The resource is locked (1423).
    Locked,
    /// The session it depends on is gone (1424).
    FailedDependency,
    /// Internal error of the service (1500).
    InternalServerError,
    /// Not implemented (1501).
    Unimplemented,
    /// Refused behind a gateway (1502).
    Gateway,
    /// The service is down (1503).
    Down,
    /// The version of SRT is not supported by the service (1505).
    UnsupportedVersion,
    /// No room to store (1507).
    NoRoom,
    /// A code of the predefined range (1000 … 1999) that has no name.
    Predefined(u16),
    /// A code of the application's own (2000 and above).
    User(u32),
}

/// Each reason that has one code: the code, the reason, libsrt's name.
const REASONS: [(u32, RejectReason, &str); 39] = [
    (0, RejectReason::Unknown, "UNKNOWN"),
    (1, RejectReason::System, "SYSTEM"),
    (2, RejectReason::Peer, "PEER"),
    (3, RejectReason::Resource, "RESOURCE"),
    (4, RejectReason::Rogue, "ROGUE"),
    (5, RejectReason::Backlog, "BACKLOG"),
    (6, RejectReason::InternalProgramError, "IPE"),
    (7, RejectReason::Close, "CLOSE"),
    (8, RejectReason::Version, "VERSION"),
    (9, RejectReason::RendezvousCookie, "RDVCOOKIE"),
    (10, RejectReason::BadSecret, "BADSECRET"),
    (11, RejectReason::Unsecure, "UNSECURE"),
    (12, RejectReason::MessageApi, "MESSAGEAPI"),
    (13, RejectReason::Congestion, "CONGESTION"),
    (14, RejectReason::Filter, "FILTER"),
    (15, RejectReason::Group, "GROUP"),
    (16, RejectReason::Timeout, "TIMEOUT"),
    (17, RejectReason::Crypto, "CRYPTO"),
    (1000, RejectReason::Fallback, "FALLBACK"),
    (1001, RejectReason::KeyNotSupported, "KEY_NOTSUP"),
    (1002, RejectReason::FilePath, "FILEPATH"),
    (1003, RejectReason::HostNotFound, "HOSTNOTFOUND"),
    (1400, RejectReason::BadRequest, "BAD_REQUEST"),
    (1401, RejectReason::Unauthorized, "UNAUTHORIZED"),
    (1402, RejectReason::Overload, "OVERLOAD"),
    (1403, RejectReason::Forbidden, "FORBIDDEN"),
    (1404, RejectReason::NotFound, "NOTFOUND"),
    (1405, RejectReason::BadMode, "BAD_MODE"),
    (1406, RejectReason::Unacceptable, "UNACCEPTABLE"),
    (1409, RejectReason::Conflict, "CONFLICT"),
    (1415, RejectReason::UnsupportedMedia, "NOTSUP_MEDIA"),
    (1423, RejectReason::Locked, "LOCKED"),
    (1424, RejectReason::FailedDependency, "FAILED_DEPEND"),
    (1500, RejectReason::InternalServerError, "ISE"),
    (1501, RejectReason::Unimplemented, "UNIMPLEMENTED"),
    (1502, RejectReason::Gateway, "GW"),
    (1503, RejectReason::Down, "DOWN"),
    (1505, RejectReason::UnsupportedVersion, "VERSION"),
    (1507, RejectReason::NoRoom, "NOROOM"),
];

impl RejectReason {
    /// The code as libsrt's programming interface has it; on the wire it is 1000 more.
    pub fn code(self) -> u32 {
        match self {
            Self::Predefined(code) => u32::from(code),
            Self::User(code) => code,
            named => REASONS.iter().find(|(_, reason, _)| *reason == named).expect("every other reason is listed").0,
        }
    }

    /// The reason with this code.
    pub fn from_code(code: u32) -> Self {
        if let Some((_, reason, _)) = REASONS.iter().find(|(known, _, _)| *known == code) {
            return *reason;
        }
        match code {
            1000..2000 => Self::Predefined(code as u16),
            2000.. => Self::User(code),
            _ => Self::Unknown,
        }
    }

    /// libsrt's name for it, without its prefix (so 8 and 1505 are both `VERSION`); `PREDEFINED` and `USER` for codes without a
    /// name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Predefined(_) => "PREDEFINED",
            Self::User(_) => "USER",
            named => REASONS.iter().find(|(_, reason, _)| *reason == named).expect("every other reason is listed").2,
        }
    }
}

impl RejectReason {
    pub(crate) fn snapshot(self, to: &mut SnapshotWriter<'_>) {
        to.u32(self.code());
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        from.u32().map(Self::from_code)
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.code())
    }
}

/// What a handshake is for (§3.2.1, "Handshake Type").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// First contact of caller and listener.
    Induction,
    /// Second part, with extensions.
    Conclusion,
    /// First contact in rendezvous.
    WaveAHand,
    /// End of a rendezvous.
    Agreement,
    /// Refused.
    Rejection(RejectReason),
}

impl Request {
    fn from_wire(value: u32) -> Option<Self> {
        Some(match value {
            1 => Self::Induction,
            0 => Self::WaveAHand,
            0xffff_ffff => Self::Conclusion,
            0xffff_fffe => Self::Agreement,
            1000..0x8000_0000 => Self::Rejection(RejectReason::from_code(value - 1000)),
            _ => return None,
        })
    }

    fn to_wire(self) -> u32 {
        match self {
            Self::Induction => 1,
            Self::WaveAHand => 0,
            Self::Conclusion => 0xffff_ffff,
            Self::Agreement => 0xffff_fffe,
            Self::Rejection(reason) => reason.code() + 1000,
        }
    }
}

/// Why a body is no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// Shorter than its fixed part.
    #[error("{0} bytes are too few for a handshake")]
    Short(usize),
    /// A version that is neither 4 nor 5.
    #[error("handshake version {0} is unknown")]
    Version(u32),
    /// A type that nobody knows.
    #[error("handshake type {0:#x} is unknown")]
    Request(u32),
    /// A first sequence number of more than 31 bits.
    #[error("the initial sequence number has more than 31 bits")]
    InitialSequence,
    /// An extension that is longer than what is left of the packet, or shorter than its content.
    #[error("extension {0} has a wrong length")]
    ExtensionLength(u16),
    /// The same extension twice.
    #[error("extension {0} stands there twice")]
    ExtensionRepeated(u16),
}

/// The fixed part of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeFields {
    /// 4 or 5.
    pub version: u32,
    /// Length of the keys that the sender means to use: its bytes by eight, 0 for none or "as you like".
    pub encryption: u16,
    /// In an induction 2 from the caller and [`MAGIC`] from the listener; in a conclusion which extensions there are.
    pub extension: u16,
    /// Number of the first data packet.
    pub initial_sequence: SequenceNumber,
    /// Largest packet on the wire, IP header included.
    pub mtu: u32,
    /// Packets that may be in flight to the sender of this.
    pub flow_window: u32,
    /// What it is for.
    pub request: Request,
    /// Socket id of the sender of this.
    pub socket_id: u32,
    /// The listener's cookie.
    pub cookie: u32,
    /// The address that the sender of this sees at the other end.
    pub peer_address: IpAddr,
}

/// The handshake extension (§3.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeExtension {
    /// Version of SRT, `0x00MMmmpp`.
    pub version: u32,
    /// See [`flags`].
    pub flags: u32,
    /// Latency with which the sender of this receives, in ms.
    pub receive_latency_ms: u16,
    /// Latency that it proposes for what it sends, in ms.
    pub send_latency_ms: u16,
}

impl HandshakeFields {
    /// As they are on the wire.
    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let mut wire = Vec::with_capacity(HANDSHAKE_LEN);
        self.encode(&mut wire);
        to.bytes(&wire);
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Handshake::parse(from.bytes()?).map(|handshake| handshake.fields).map_err(|_| RestoreError::Invalid)
    }
}

impl HandshakeExtension {
    snapshot_fields! { u32 version, u32 flags, u16 receive_latency_ms, u16 send_latency_ms }
}

/// The extensions of a conclusion, each at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions<'a> {
    /// HSREQ of a caller, HSRSP of a listener.
    pub handshake: Option<HandshakeExtension>,
    /// KMREQ of a caller, KMRSP of a listener: a message for [`super::encryption`], or a state.
    pub key_material: Option<&'a [u8]>,
    /// Stream ID, as it is on the wire.
    pub stream_id: Option<&'a [u8]>,
    /// Congestion control, as it is on the wire.
    pub congestion: Option<&'a [u8]>,
    /// Packet filter, as it is on the wire.
    pub filter: Option<&'a [u8]>,
    /// Bonding group, as it is on the wire: for [`Membership`] to judge.
    pub group: Option<&'a [u8]>,
}

impl Extensions<'_> {
    /// Whether the congestion control asked for is the one of live mode: `live`, or nothing.
    pub fn is_live(&self) -> bool {
        // The text is coded as a Stream ID is: in words of four bytes, each reversed.
        self.congestion.is_none_or(|wire| wire.is_empty() || wire == b"evil")
    }
}

/// A handshake, judged to the end of its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake<'a> {
    /// The fixed part.
    pub fields: HandshakeFields,
    /// What follows in a conclusion of version 5; else empty.
    pub extensions: Extensions<'a>,
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let bytes = bytes.get(index * 4..index * 4 + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

impl<'a> Handshake<'a> {
    /// Reads the body of a handshake packet.
    ///
    /// # Errors
    /// When a field or the length of an extension is impossible. What is in Stream ID, key material and the rest is for
    /// their own files to judge.
    pub fn parse(body: &'a [u8]) -> Result<Self, HandshakeError> {
        let Some((fixed, rest)) = body.split_first_chunk::<HANDSHAKE_LEN>() else {
            return Err(HandshakeError::Short(body.len()));
        };
        let field = |index: usize| word(fixed, index).expect("within the fixed part");
        let request = Request::from_wire(field(5));
        // libsrt before 1.3 leaves version and socket type out when it agrees again in rendezvous.
        let version = if request == Some(Request::Agreement) && field(0) == 0 { VERSION_4 } else { field(0) };
        if version != VERSION_4 && version != VERSION_5 {
            return Err(HandshakeError::Version(version));
        }
        if field(2) >> 31 != 0 {
            return Err(HandshakeError::InitialSequence);
        }
        let request = request.ok_or(HandshakeError::Request(field(5)))?;
        let fields = HandshakeFields {
            version,
            encryption: (field(1) >> 16) as u16,
            extension: field(1) as u16,
            initial_sequence: SequenceNumber::new(u64::from(field(2))),
            mtu: field(3),
            flow_window: field(4),
            request,
            socket_id: field(6),
            cookie: field(7),
            peer_address: address_from_wire(fixed.last_chunk().expect("16 bytes at the end")),
        };
        let extensions = if version == VERSION_5 && request == Request::Conclusion && fields.extension != 0 {
            Extensions::parse(rest)?
        } else {
            Extensions::default()
        };
        Ok(Self { fields, extensions })
    }
}

impl<'a> Extensions<'a> {
    fn parse(mut rest: &'a [u8]) -> Result<Self, HandshakeError> {
        let mut extensions = Self::default();
        // Less than a block's head at the end is padding.
        while let Some((head, after)) = rest.split_first_chunk::<4>() {
            let kind = u16::from_be_bytes([head[0], head[1]]);
            let length = usize::from(u16::from_be_bytes([head[2], head[3]])) * 4;
            if kind == 0 && length == 0 {
                // Zeros at the end are padding too.
                break;
            }
            let Some((content, after)) = after.split_at_checked(length) else {
                return Err(HandshakeError::ExtensionLength(kind));
            };
            rest = after;
            let slot = match kind {
                extension::HSREQ | extension::HSRSP => {
                    let parsed = HandshakeExtension::parse(content).ok_or(HandshakeError::ExtensionLength(kind))?;
                    if extensions.handshake.replace(parsed).is_some() {
                        return Err(HandshakeError::ExtensionRepeated(kind));
                    }
                    continue;
                }
                extension::KMREQ | extension::KMRSP => &mut extensions.key_material,
                extension::SID => &mut extensions.stream_id,
                extension::CONGESTION => &mut extensions.congestion,
                extension::FILTER => &mut extensions.filter,
                extension::GROUP => &mut extensions.group,
                // Of a later version: what it means cannot matter to us.
                _ => continue,
            };
            if slot.replace(content).is_some() {
                return Err(HandshakeError::ExtensionRepeated(kind));
            }
        }
        Ok(extensions)
    }
}

impl HandshakeExtension {
    /// Reads the content of the extension; `None` if it is too short.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let (version, flags) = (word(content, 0)?, word(content, 1)?);
        // SRT before 1.3 leaves the latency out, and then must not set the flags that need it.
        let latency = match word(content, 2) {
            Some(latency) => latency,
            None if flags & (self::flags::TSBPD_SENDER | self::flags::TSBPD_RECEIVER) == 0 => 0,
            None => return None,
        };
        Some(Self { version, flags, receive_latency_ms: (latency >> 16) as u16, send_latency_ms: latency as u16 })
    }

    /// Appends it.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let Self { version, flags, receive_latency_ms, send_latency_ms } = *self;
        buffer.extend_from_slice(&version.to_be_bytes());
        buffer.extend_from_slice(&flags.to_be_bytes());
        buffer.extend_from_slice(&receive_latency_ms.to_be_bytes());
        buffer.extend_from_slice(&send_latency_ms.to_be_bytes());
    }
}

/// libsrt writes addresses in the byte order of its host: each word of four bytes is reversed.
fn address_from_wire(wire: &[u8; 16]) -> IpAddr {
    let mut bytes = *wire;
    bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    match bytes {
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Ipv4Addr::new(a, b, c, d).into(),
        bytes => Ipv6Addr::from(bytes).to_canonical(),
    }
}

fn address_to_wire(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address.to_canonical() {
        IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    bytes
}

/// The extensions that we write into a conclusion.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Whether this is the listener's answer.
    pub is_response: bool,
    /// Versions, flags, latencies.
    pub handshake: HandshakeExtension,
    /// Key material, when encrypted.
    pub key_material: Option<&'a [u8]>,
    /// Stream ID; nothing is written for an empty one.
    pub stream_id: Option<&'a StreamId>,
    /// The group at this side that the connection is a leg of.
    pub group: Option<Membership>,
    /// Packet filter, as it is on the wire.
    pub packet_filter: Option<&'a [u8]>,
    /// The mode, whose congestion control is named unless it is live.
    pub mode: TransmissionMode,
}

impl HandshakeFields {
    /// Appends the body of a handshake without extensions.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let mut put = |value: u32| buffer.extend_from_slice(&value.to_be_bytes());
        put(self.version);
        put(u32::from(self.encryption) << 16 | u32::from(self.extension));
        put(self.initial_sequence.get() as u32);
        put(self.mtu);
        put(self.flow_window);
        put(self.request.to_wire());
        put(self.socket_id);
        put(self.cookie);
        buffer.extend_from_slice(&address_to_wire(self.peer_address));
    }

    /// Appends the body of a conclusion with its extensions; the extension field is set to what follows.
    pub fn encode_conclusion(&self, offer: &Offer<'_>, buffer: &mut Vec<u8>) {
        let stream_id = offer.stream_id.filter(|stream_id| !stream_id.is_empty());
        let mut extension = present::HSREQ;
        if offer.key_material.is_some() {
            extension |= present::KMREQ;
        }
        let congestion = offer.mode.congestion_on_the_wire();
        if stream_id.is_some() || congestion.is_some() || offer.group.is_some() || offer.packet_filter.is_some() {
            extension |= present::CONFIG;
        }
        Self { extension, ..*self }.encode(buffer);
        let response = u16::from(offer.is_response);
        block(buffer, extension::HSREQ + response, |buffer| {
            offer.handshake.encode(buffer);
        });
        if let Some(message) = offer.key_material {
            block(buffer, extension::KMREQ + response, |buffer| buffer.extend_from_slice(message));
        }
        if let Some(stream_id) = stream_id {
            block(buffer, extension::SID, |buffer| stream_id.to_wire(buffer));
        }
        if let Some(wire) = congestion {
            block(buffer, extension::CONGESTION, |buffer| buffer.extend_from_slice(wire));
        }
        if let Some(group) = offer.group {
            block(buffer, extension::GROUP, |buffer| buffer.extend_from_slice(&group.encode()));
        }
        if let Some(wire) = offer.packet_filter {
            block(buffer, extension::FILTER, |buffer| buffer.extend_from_slice(wire));
        }
    }
}

/// Appends an extension: its kind, the number of its words, its content.
fn block(buffer: &mut Vec<u8>, kind: u16, content: impl FnOnce(&mut Vec<u8>)) {
    buffer.extend_from_slice(&kind.to_be_bytes());
    let length_at = buffer.len();
    buffer.extend_from_slice(&[0; 2]);
    content(buffer);
    let length = buffer.len() - length_at - 2;
    assert!(length.is_multiple_of(4), "an extension is made of words");
    buffer[length_at..length_at + 2].copy_from_slice(&((length / 4) as u16).to_be_bytes());
}

/// The encryption field for keys of this length.
pub const fn encryption_field(length: Option<KeyLength>) -> u16 {
    match length {
        Some(length) => (length.bytes() / 8) as u16,
        None => 0,
    }
}
