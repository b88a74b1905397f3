//! Where every word of a ring is. Little-endian; lines of 64 bytes; golden vectors in `tests/golden.rs`.
//!
//! The header is judged once, by [`Header::judge`]; after that its fields are plain numbers in process memory and the shared
//! page is not looked at again.

use thiserror::Error;

pub use crate::headworks_capnp::TrackKind;

/// First eight bytes of `ctl`.
pub const MAGIC: [u8; 8] = *b"HWRING\0\x01";
/// Layouts with another major version are refused.
pub const MAJOR: u16 = 1;
/// A higher minor version only adds what an old reader may ignore.
pub const MINOR: u16 = 0;
/// Required features this version understands: none yet.
pub const FEATURES_REQUIRED_KNOWN: u64 = 0;
/// Optional feature: every descriptor carries the CRC32C of its payload.
pub const FEATURE_PAYLOAD_CRC: u64 = 1;

/// Bytes of the immutable page; its last four are the CRC32C of the rest.
pub const HEADER_SIZE: usize = 0x1000;
/// Offset of the header's CRC32C.
pub const HEADER_CRC: usize = HEADER_SIZE - 4;

/// `data_reserve` u64: bytes below it may be being written, so bytes below reserve − capacity are gone.
pub const DATA_RESERVE: usize = 0x1000;
/// `head_seq` u64: sequence number of the next frame.
pub const HEAD_SEQ: usize = 0x1040;
/// `head_pos` u64: virtual position one past the last published byte.
pub const HEAD_POS: usize = 0x1048;
/// `last_key_seq` u64: the newest random access point, or [`NONE`].
pub const LAST_KEY_SEQ: usize = 0x1050;
/// `futex` u32: bumped by every commit and every change of state.
pub const FUTEX: usize = 0x1080;
/// `state` u32: see [`State`].
pub const STATE: usize = 0x1084;
/// `heartbeat_count` u64.
pub const HEARTBEAT_COUNT: usize = 0x10C0;
/// `heartbeat_monotonic_ns` u64, CLOCK_MONOTONIC of the writer's host.
pub const HEARTBEAT_MONOTONIC_NS: usize = 0x10C8;
/// `writer_epoch` u32: + 1 with every writer that takes the ring up.
pub const WRITER_EPOCH: usize = 0x10D0;
/// `config_generation` u32: the newest configuration block; 0 none.
pub const CONFIG_GENERATION: usize = 0x10D4;
/// Totals u64: frames, bytes, damaged, discontinuities.
pub const TOTALS: usize = 0x1100;
/// The first configuration block.
pub const CONFIG_OFFSET: usize = 0x2000;
/// Blocks kept.
pub const CONFIG_COUNT: usize = 8;
/// Bytes of a block, its head included.
pub const CONFIG_SIZE: usize = 8192;
/// Head of a block: lock u64, generation u32, length u32, crc32c u32, reserved.
pub const CONFIG_HEAD: usize = 32;
/// The longest configuration a block holds.
pub const CONFIG_BYTES_MAX: usize = CONFIG_SIZE - CONFIG_HEAD;
/// The first slot.
pub const SLOT_OFFSET: usize = CONFIG_OFFSET + CONFIG_COUNT * CONFIG_SIZE;
/// Bytes of a slot.
pub const SLOT_SIZE: usize = 256;
/// 64-bit words of a slot.
pub const SLOT_WORDS: usize = SLOT_SIZE / 8;
/// Words of the slot's head; the Cap'n Proto struct pointer is the word after it.
pub const SLOT_HEAD_WORDS: usize = 5;
/// Frames start at multiples of this.
pub const FRAME_ALIGN: u64 = 64;

/// "No such sequence number."
pub const NONE: u64 = u64::MAX;
/// Value of a lock word while its slot or block is being written. Never seq + 1 of a real frame.
pub const BUSY: u64 = u64::MAX;

/// Slot flag: a reader may start at this frame.
pub const FLAG_KEY: u32 = 1;
/// Slot flag: bytes of this frame are missing or wrong.
pub const FLAG_DAMAGED: u32 = 2;
/// Slot flag: this frame does not continue the one before it.
pub const FLAG_DISCONTINUITY: u32 = 4;

/// The most slots a ring may have; bounds what a corrupted header can ask for.
pub const SLOT_COUNT_MAX: u32 = 1 << 24;
/// The largest data file; bounds what a corrupted header can ask for.
pub const DATA_CAPACITY_MAX: u64 = 1 << 40;

/// Word `state` of a ring or a bell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Frames come, or may come at any moment.
    Live = 0,
    /// The source is silent or gone; the ring may go on.
    Stalled = 1,
    /// No frame will come any more; drain what is there.
    Ended = 2,
    /// Another ring has taken this one's name: open again.
    Superseded = 3,
}

impl State {
    /// The state a word stands for; what a later version may add counts as live.
    #[must_use]
    pub fn from_word(word: u32) -> Self {
        match word {
            1 => Self::Stalled,
            2 => Self::Ended,
            3 => Self::Superseded,
            _ => Self::Live,
        }
    }
}

/// Whether a first page is that of a ring whose hot words lie where they do in this version.
pub(crate) fn judge_version(page: &[u8]) -> Result<(), LayoutError> {
    if page[..8] != MAGIC {
        return Err(LayoutError::Magic);
    }
    match u16_at(page, 0x08) {
        MAJOR => Ok(()),
        major => Err(LayoutError::Major(major)),
    }
}

/// The kind that the header's word stands for; what a later version may add is unknown.
fn track_kind(word: u32) -> TrackKind {
    u16::try_from(word).ok().and_then(|word| TrackKind::try_from(word).ok()).unwrap_or(TrackKind::Unknown)
}

/// The immutable page, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Minor version of the writer.
    pub minor: u16,
    /// Bits a reader must understand.
    pub features_required: u64,
    /// Bits a reader may ignore, e.g. [`FEATURE_PAYLOAD_CRC`].
    pub features_optional: u64,
    /// `/proc/sys/kernel/random/boot_id` when the ring was made.
    pub boot_id: [u8; 16],
    /// Names this ring for ever.
    pub ring_uuid: [u8; 16],
    /// Offset of slot 0 in `ctl`, bytes.
    pub slot_offset: u64,
    /// Slots, a power of two.
    pub slot_count: u32,
    /// Bytes of `data`, a power of two and a multiple of the backing page.
    pub data_capacity: u64,
    /// The largest payload + side data of a frame, bytes.
    pub frame_size_max: u32,
    /// Offset of configuration block 0 in `ctl`, bytes.
    pub config_offset: u64,
    /// Bytes of a configuration block.
    pub config_size: u32,
    /// Configuration blocks.
    pub config_count: u32,
    /// Four characters, the first in the low byte.
    pub codec: u32,
    /// What the ring carries.
    pub kind: TrackKind,
    /// Ticks per second of pts, dts and duration.
    pub clock_rate: u32,
    /// Node the data was bound to; −1 none.
    pub numa_node: i32,
    /// Page size of the file system that holds `data`, bytes.
    pub backing_page_size: u32,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    /// `ctl` is shorter than a header and hot page.
    #[error("ctl is too short ({0} bytes)")]
    Short(u64),
    /// Not a ring.
    #[error("bad magic")]
    Magic,
    /// Another major version.
    #[error("layout version {0} is not {MAJOR}")]
    Major(u16),
    /// The page does not match its CRC32C.
    #[error("header checksum does not match")]
    Checksum,
    /// A required feature is unknown.
    #[error("unknown required features {0:#x}")]
    Features(u64),
    /// A size, offset or count is impossible.
    #[error("impossible {0}")]
    Geometry(&'static str),
    /// The files are smaller than the header says.
    #[error("{0} is smaller than its header says")]
    FileSize(&'static str),
}

fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u16_at(page: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    let mut b = [0; 4];
    b.copy_from_slice(&page[at..at + 4]);
    u32::from_le_bytes(b)
}

fn u64_at(page: &[u8], at: usize) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&page[at..at + 8]);
    u64::from_le_bytes(b)
}

fn id_at(page: &[u8], at: usize) -> [u8; 16] {
    let mut b = [0; 16];
    b.copy_from_slice(&page[at..at + 16]);
    b
}

impl Header {
    /// The page as it lies in the file.
    #[must_use]
    pub fn encode(&self) -> Box<[u8; HEADER_SIZE]> {
        let mut page = Box::new([0u8; HEADER_SIZE]);
        let p = page.as_mut_slice();
        put(p, 0x00, &MAGIC);
        put(p, 0x08, &MAJOR.to_le_bytes());
        put(p, 0x0A, &self.minor.to_le_bytes());
        put(p, 0x0C, &(HEADER_SIZE as u32).to_le_bytes());
        put(p, 0x10, &self.features_required.to_le_bytes());
        put(p, 0x18, &self.features_optional.to_le_bytes());
        put(p, 0x20, &self.boot_id);
        put(p, 0x30, &self.ring_uuid);
        put(p, 0x40, &self.slot_offset.to_le_bytes());
        put(p, 0x48, &(SLOT_SIZE as u32).to_le_bytes());
        put(p, 0x4C, &self.slot_count.to_le_bytes());
        put(p, 0x50, &self.data_capacity.to_le_bytes());
        put(p, 0x58, &self.frame_size_max.to_le_bytes());
        put(p, 0x5C, &self.config_count.to_le_bytes());
        put(p, 0x60, &self.config_offset.to_le_bytes());
        put(p, 0x68, &self.config_size.to_le_bytes());
        put(p, 0x6C, &self.codec.to_le_bytes());
        put(p, 0x70, &(self.kind as u32).to_le_bytes());
        put(p, 0x74, &self.clock_rate.to_le_bytes());
        put(p, 0x78, &self.numa_node.to_le_bytes());
        put(p, 0x7C, &self.backing_page_size.to_le_bytes());
        let crc = crc32c::crc32c(&p[..HEADER_CRC]);
        put(p, HEADER_CRC, &crc.to_le_bytes());
        page
    }

    /// Judges a copy of the first page of `ctl` against itself and the sizes of the two files.
    ///
    /// # Errors
    /// [`LayoutError`]: the first thing found wrong. After `Ok` every offset derived from the header lies in its file.
    pub fn judge(page: &[u8], ctl_size: u64, data_size: u64) -> Result<Self, LayoutError> {
        if page.len() < HEADER_SIZE || ctl_size < CONFIG_OFFSET as u64 {
            return Err(LayoutError::Short(ctl_size));
        }
        judge_version(page)?;
        if u32_at(page, 0x0C) as usize != HEADER_SIZE {
            return Err(LayoutError::Geometry("header size"));
        }
        if crc32c::crc32c(&page[..HEADER_CRC]) != u32_at(page, HEADER_CRC) {
            return Err(LayoutError::Checksum);
        }
        let features_required = u64_at(page, 0x10);
        if features_required & !FEATURES_REQUIRED_KNOWN != 0 {
            return Err(LayoutError::Features(features_required & !FEATURES_REQUIRED_KNOWN));
        }
        let header = Self {
            minor: u16_at(page, 0x0A),
            features_required,
            features_optional: u64_at(page, 0x18),
            boot_id: id_at(page, 0x20),
            ring_uuid: id_at(page, 0x30),
            slot_offset: u64_at(page, 0x40),
            slot_count: u32_at(page, 0x4C),
            data_capacity: u64_at(page, 0x50),
            frame_size_max: u32_at(page, 0x58),
            config_count: u32_at(page, 0x5C),
            config_offset: u64_at(page, 0x60),
            config_size: u32_at(page, 0x68),
            codec: u32_at(page, 0x6C),
            kind: track_kind(u32_at(page, 0x70)),
            clock_rate: u32_at(page, 0x74),
            numa_node: u32_at(page, 0x78) as i32,
            backing_page_size: u32_at(page, 0x7C),
        };
        if u32_at(page, 0x48) as usize != SLOT_SIZE {
            return Err(LayoutError::Geometry("slot size"));
        }
        header.check_geometry(ctl_size, data_size)?;
        Ok(header)
    }

    fn check_geometry(&self, ctl_size: u64, data_size: u64) -> Result<(), LayoutError> {
        let bad = |what| Err(LayoutError::Geometry(what));
        if !self.slot_count.is_power_of_two() || self.slot_count < 4 || self.slot_count > SLOT_COUNT_MAX {
            return bad("slot count");
        }
        let page = u64::from(self.backing_page_size);
        if !page.is_power_of_two() || !(4096..=1 << 30).contains(&page) {
            return bad("backing page size");
        }
        if !self.data_capacity.is_power_of_two()
            || self.data_capacity > DATA_CAPACITY_MAX
            || !self.data_capacity.is_multiple_of(page)
        {
            return bad("data capacity");
        }
        if self.frame_size_max == 0 || u64::from(self.frame_size_max) > self.data_capacity {
            return bad("largest frame");
        }
        if self.config_count == 0 || self.config_count > 256 {
            return bad("configuration count");
        }
        if !self.config_size.is_multiple_of(64) || !(64..=1 << 20).contains(&self.config_size) {
            return bad("configuration size");
        }
        let low = CONFIG_OFFSET as u64;
        if !self.config_offset.is_multiple_of(64) || self.config_offset < low || self.config_offset > ctl_size {
            return bad("configuration offset");
        }
        if !self.slot_offset.is_multiple_of(64) || self.slot_offset < low || self.slot_offset > ctl_size {
            return bad("slot offset");
        }
        let config_end = self.config_offset + u64::from(self.config_count) * u64::from(self.config_size);
        let slot_end = self.slot_offset + u64::from(self.slot_count) * SLOT_SIZE as u64;
        if config_end > ctl_size || slot_end > ctl_size {
            return Err(LayoutError::FileSize("ctl"));
        }
        if self.data_capacity > data_size {
            return Err(LayoutError::FileSize("data"));
        }
        Ok(())
    }

    /// Bytes that `ctl` needs.
    #[must_use]
    pub fn ctl_size(slot_count: u32) -> usize {
        SLOT_OFFSET + slot_count as usize * SLOT_SIZE
    }

    /// Offset in `ctl` of the slot that holds `seq`.
    #[inline]
    #[must_use]
    pub fn slot_at(&self, seq: u64) -> usize {
        let index = seq & u64::from(self.slot_count - 1);
        self.slot_offset as usize + index as usize * SLOT_SIZE
    }

    /// Offset in `ctl` of the block that holds configuration `generation`.
    #[inline]
    #[must_use]
    pub fn config_at(&self, generation: u32) -> usize {
        self.config_offset as usize + (generation % self.config_count) as usize * self.config_size as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            minor: MINOR,
            features_required: 0,
            features_optional: 1,
            boot_id: [1; 16],
            ring_uuid: [2; 16],
            slot_offset: SLOT_OFFSET as u64,
            slot_count: 16,
            data_capacity: 1 << 20,
            frame_size_max: 1 << 18,
            config_offset: CONFIG_OFFSET as u64,
            config_size: CONFIG_SIZE as u32,
            config_count: CONFIG_COUNT as u32,
            codec: u32::from_le_bytes(*b"avc1"),
            kind: TrackKind::Video,
            clock_rate: 90_000,
            numa_node: -1,
            backing_page_size: 4096,
        }
    }

    fn resealed(mut page: Box<[u8; HEADER_SIZE]>) -> Box<[u8; HEADER_SIZE]> {
        let crc = crc32c::crc32c(&page[..HEADER_CRC]);
        page[HEADER_CRC..].copy_from_slice(&crc.to_le_bytes());
        page
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        let page = header().encode();
        assert_eq!(Header::judge(&page[..], Header::ctl_size(16) as u64, 1 << 20), Ok(header()));
    }

    #[test]
    fn each_wrong_thing_has_its_own_error() {
        let size = Header::ctl_size(16) as u64;
        let judge = |page: &[u8; HEADER_SIZE]| Header::judge(page, size, 1 << 20);
        let mut page = header().encode();
        page[0] = b'X';
        assert_eq!(judge(&page), Err(LayoutError::Magic));
        let mut page = header().encode();
        page[8] = 2;
        assert_eq!(judge(&page), Err(LayoutError::Major(2)));
        let mut page = header().encode();
        page[0x200] ^= 1;
        assert_eq!(judge(&page), Err(LayoutError::Checksum));
        let mut page = header().encode();
        page[0x10] = 4;
        assert_eq!(judge(&resealed(page)), Err(LayoutError::Features(4)));
        let mut page = header().encode();
        page[0x4C] = 15;
        assert_eq!(judge(&resealed(page)), Err(LayoutError::Geometry("slot count")));
        assert_eq!(Header::judge(&header().encode()[..], size - 1, 1 << 20), Err(LayoutError::FileSize("ctl")));
        assert_eq!(Header::judge(&header().encode()[..], size, 4096), Err(LayoutError::FileSize("data")));
        assert_eq!(Header::judge(&[], 0, 0), Err(LayoutError::Short(0)));
    }

    #[test]
    fn a_newer_minor_version_is_read() {
        let newer = Header { minor: 7, features_optional: u64::MAX, ..header() };
        let page = newer.encode();
        assert_eq!(Header::judge(&page[..], Header::ctl_size(16) as u64, 1 << 20), Ok(newer));
    }
}
