//! The bytes of a snapshot: what the machines of SRT write themselves into, and read themselves from.
//!
//! ```text
//!  0        4         6        8                12
//!  ├────────┼─────────┼────────┼────────────────┼──── … ────┼──────────┤
//!  │ "HWSC" │ version │ kind   │ bytes of body  │ body      │ CRC-32C  │   all of it little-endian
//! ```
//!
//! The kind says which machine it is of ([`SnapshotKind`]). The body is one field after the other, as
//! [`Connection::snapshot`](super::connection::Connection::snapshot) and its likes write them: whoever adds
//! or moves one takes the next [`VERSION`]. A snapshot of another version is refused, not guessed at: the process that goes on then
//! lets the peer call again.
//!
//! What is read is believed as little as what a peer sends. The checksum keeps off accidents; every number is held to the bounds that
//! the machine that wrote it keeps, so that no bytes at all make the one that reads them panic, or take more memory than it was told.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;

use super::packet::{KeyFlag, PacketPosition};
use crate::base::Instant;

/// What a snapshot begins with.
const MAGIC: [u8; 4] = *b"HWSC";
/// Of the order and meaning of the fields.
pub const VERSION: u16 = 5;
/// Bytes in front of the body.
pub const SNAPSHOT_HEADER_LEN: usize = 12;
const CHECKSUM_LEN: usize = 4;
/// Counters and unwrapped numbers are below it: centuries of packets, and room to count on.
const COUNT_MAX: u64 = 1 << 60;

/// Which machine a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum SnapshotKind {
    /// A [`Connection`](super::connection::Connection).
    Connection = 0,
    /// A bonding [`Group`](super::group::Group) with its legs.
    Group = 1,
    /// A [`Caller`](super::caller::Caller).
    Caller = 2,
    /// A [`Rendezvous`](super::rendezvous::Rendezvous).
    Rendezvous = 3,
    /// What a [`Listener`](super::listener::Listener) keeps.
    Listener = 4,
}

/// Why bytes are not the machine that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// They do not begin as a snapshot does.
    #[error("these bytes are no snapshot of SRT")]
    NoSnapshot,
    /// Another version of Headworks has written them.
    #[error("the snapshot is of version {0}, and {VERSION} is understood")]
    Version(u16),
    /// They are of another machine.
    #[error("the snapshot is of another kind of machine ({0})")]
    Kind(u16),
    /// Fewer or more than its own fields say.
    #[error("the snapshot has not the length of its content")]
    Length,
    /// They were changed on the way.
    #[error("the snapshot's checksum is wrong")]
    Checksum,
    /// A field holds what the machine can never have held.
    #[error("a field of the snapshot holds what cannot be")]
    Invalid,
    /// Its buffers have more slots than were planned for.
    #[error("the connection has a buffer of {0} packets, more than were planned for")]
    TooLarge(u64),
    /// There is no packet memory for what it holds.
    #[error("there is no packet memory for what the connection holds")]
    NoMemory,
}

/// Appends the fields of a snapshot to a buffer.
#[derive(Debug)]
pub struct SnapshotWriter<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> SnapshotWriter<'a> {
    /// Begins a snapshot behind what `bytes` holds.
    pub fn new(kind: SnapshotKind, bytes: &'a mut Vec<u8>) -> Self {
        let start = bytes.len();
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((kind as u16).to_le_bytes());
        bytes.extend([0; SNAPSHOT_HEADER_LEN - 8]);
        Self { bytes, start }
    }

    /// Ends it: with its length and its checksum.
    pub fn finish(self) {
        let body = u32::try_from(self.bytes.len() - self.start - SNAPSHOT_HEADER_LEN)
            .expect("a machine holds less than 4 GiB");
        self.bytes[self.start + 8..][..4].copy_from_slice(&body.to_le_bytes());
        let checksum = crc32c::crc32c(&self.bytes[self.start..]);
        self.bytes.extend(checksum.to_le_bytes());
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// A counter, or an unwrapped number.
    pub(crate) fn count(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn optional_count(&mut self, value: Option<u64>) {
        self.option(value, Self::count);
    }

    pub(crate) fn size(&mut self, value: usize) {
        self.count(value as u64);
    }

    pub(crate) fn signed(&mut self, value: i64) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn optional_signed(&mut self, value: Option<i64>) {
        self.option(value, Self::signed);
    }

    /// An unwrapped time stamp, in microseconds.
    pub(crate) fn timestamp(&mut self, value: i64) {
        self.signed(value);
    }

    pub(crate) fn float(&mut self, value: f64) {
        self.bytes.extend(value.to_bits().to_le_bytes());
    }

    pub(crate) fn instant(&mut self, value: Instant) {
        self.bytes.extend(value.as_nanos().to_le_bytes());
    }

    pub(crate) fn duration(&mut self, value: Duration) {
        self.count(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX).min(COUNT_MAX - 1));
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn array<const N: usize>(&mut self, value: &[u8; N]) {
        self.bytes.extend(value);
    }

    pub(crate) fn key_flag(&mut self, value: KeyFlag) {
        self.u8(value.bits() as u8);
    }

    pub(crate) fn position(&mut self, value: PacketPosition) {
        self.u8(value.bits() as u8);
    }

    /// Bytes behind their length.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("no longer than a datagram"));
        self.bytes.extend(value);
    }

    pub(crate) fn ip(&mut self, value: IpAddr) {
        match value {
            IpAddr::V4(address) => {
                self.u8(4);
                self.array(&address.octets());
            }
            IpAddr::V6(address) => {
                self.u8(6);
                self.array(&address.octets());
            }
        }
    }

    pub(crate) fn address(&mut self, value: SocketAddr) {
        self.ip(value.ip());
        self.u16(value.port());
        if let SocketAddr::V6(address) = value {
            self.u32(address.flowinfo());
            self.u32(address.scope_id());
        }
    }
}

/// Reads the fields of a snapshot in the order that they were written in.
#[derive(Debug)]
pub struct SnapshotReader<'a> {
    rest: &'a [u8],
}

impl<'a> SnapshotReader<'a> {
    /// Opens a snapshot of this kind of machine.
    ///
    /// # Errors
    ///
    /// When it is none, of another version or machine, cut off, or changed.
    pub fn new(kind: SnapshotKind, snapshot: &'a [u8]) -> Result<Self, RestoreError> {
        let header = snapshot.first_chunk::<SNAPSHOT_HEADER_LEN>().ok_or(RestoreError::NoSnapshot)?;
        let (magic, fields) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(RestoreError::NoSnapshot);
        }
        let version = u16::from_le_bytes([fields[0], fields[1]]);
        if version != VERSION {
            return Err(RestoreError::Version(version));
        }
        let its_kind = u16::from_le_bytes([fields[2], fields[3]]);
        if its_kind != kind as u16 {
            return Err(RestoreError::Kind(its_kind));
        }
        let (content, checksum) = snapshot.split_last_chunk::<CHECKSUM_LEN>().ok_or(RestoreError::Length)?;
        let body = content.get(SNAPSHOT_HEADER_LEN..).ok_or(RestoreError::Length)?;
        if body.len() as u64 != u64::from(u32::from_le_bytes([fields[4], fields[5], fields[6], fields[7]])) {
            return Err(RestoreError::Length);
        }
        if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
            return Err(RestoreError::Checksum);
        }
        Ok(Self { rest: body })
    }

    /// Whether all has been read.
    pub fn finish(self) -> Result<(), RestoreError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RestoreError::Length) }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(RestoreError::Length)?;
        self.rest = rest;
        Ok(*value)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RestoreError> {
        self.array::<1>().map(|[value]| value)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, RestoreError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RestoreError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, RestoreError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RestoreError::Invalid),
        }
    }

    pub(crate) fn count(&mut self) -> Result<u64, RestoreError> {
        let value = self.array().map(u64::from_le_bytes)?;
        if value < COUNT_MAX { Ok(value) } else { Err(RestoreError::Invalid) }
    }

    pub(crate) fn optional_count(&mut self) -> Result<Option<u64>, RestoreError> {
        self.option(Self::count)
    }

    pub(crate) fn size(&mut self) -> Result<usize, RestoreError> {
        usize::try_from(self.count()?).map_err(|_| RestoreError::Invalid)
    }

    pub(crate) fn signed(&mut self) -> Result<i64, RestoreError> {
        let value = self.array().map(i64::from_le_bytes)?;
        if value.unsigned_abs() < COUNT_MAX { Ok(value) } else { Err(RestoreError::Invalid) }
    }

    pub(crate) fn optional_signed(&mut self) -> Result<Option<i64>, RestoreError> {
        self.option(Self::signed)
    }

    /// In nanoseconds it is a number too.
    pub(crate) fn timestamp(&mut self) -> Result<i64, RestoreError> {
        let value = self.signed()?;
        valid(value.unsigned_abs() < COUNT_MAX / 1_000)?;
        Ok(value)
    }

    pub(crate) fn float(&mut self) -> Result<f64, RestoreError> {
        let value = self.array().map(u64::from_le_bytes).map(f64::from_bits)?;
        if value.is_finite() { Ok(value) } else { Err(RestoreError::Invalid) }
    }

    pub(crate) fn instant(&mut self) -> Result<Instant, RestoreError> {
        self.array().map(u64::from_le_bytes).map(Instant::from_nanos)
    }

    pub(crate) fn duration(&mut self) -> Result<Duration, RestoreError> {
        self.count().map(Duration::from_nanos)
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, RestoreError>,
    ) -> Result<Option<T>, RestoreError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn key_flag(&mut self) -> Result<KeyFlag, RestoreError> {
        self.u8().map(|bits| KeyFlag::from_bits(u32::from(bits)))
    }

    pub(crate) fn position(&mut self) -> Result<PacketPosition, RestoreError> {
        self.u8().map(|bits| PacketPosition::from_bits(u32::from(bits)))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], RestoreError> {
        let length = self.u32()? as usize;
        let (value, rest) = self.rest.split_at_checked(length).ok_or(RestoreError::Length)?;
        self.rest = rest;
        Ok(value)
    }

    /// Bytes that are text.
    pub(crate) fn text(&mut self) -> Result<&'a str, RestoreError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| RestoreError::Invalid)
    }

    pub(crate) fn ip(&mut self) -> Result<IpAddr, RestoreError> {
        match self.u8()? {
            4 => Ok(IpAddr::from(self.array::<4>()?)),
            6 => Ok(IpAddr::from(self.array::<16>()?)),
            _ => Err(RestoreError::Invalid),
        }
    }

    pub(crate) fn address(&mut self) -> Result<SocketAddr, RestoreError> {
        let mut address = SocketAddr::new(self.ip()?, self.u16()?);
        if let SocketAddr::V6(address) = &mut address {
            address.set_flowinfo(self.u32()?);
            address.set_scope_id(self.u32()?);
        }
        Ok(address)
    }
}

/// A snapshot with this body: for tests and fuzz targets.
#[doc(hidden)]
pub fn seal(kind: SnapshotKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let writer = SnapshotWriter::new(kind, &mut bytes);
    writer.bytes.extend(body);
    writer.finish();
    bytes
}

/// That of a valid field, else [`RestoreError::Invalid`].
pub(crate) fn valid(is_valid: bool) -> Result<(), RestoreError> {
    if is_valid { Ok(()) } else { Err(RestoreError::Invalid) }
}

/// Gives a struct its `snapshot` and `restore` from one list of all its fields, each behind the kind of number that it is. Behind `if`
/// stands what holds of every value that the machine can have.
macro_rules! snapshot_fields {
    ($($kind:ident $field:ident),* $(,)? $(; if |$it:ident| $holds:expr)?) => {
        pub(crate) fn snapshot(&self, to: &mut $crate::protocol::srt::snapshot::SnapshotWriter<'_>) {
            let Self { $($field),* } = self;
            $(to.$kind(*$field);)*
        }

        pub(crate) fn restore(
            from: &mut $crate::protocol::srt::snapshot::SnapshotReader<'_>,
        ) -> Result<Self, $crate::protocol::srt::snapshot::RestoreError> {
            let restored = Self { $($field: from.$kind()?),* };
            $(
                let $it = &restored;
                $crate::protocol::srt::snapshot::valid($holds)?;
            )?
            Ok(restored)
        }
    };
}
pub(crate) use snapshot_fields;
