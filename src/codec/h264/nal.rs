//! NAL unit header (H.264 §7.3.1).

/// Coded slice of a non-IDR picture.
pub const SLICE: u8 = 1;
/// Coded slice data partition A.
pub const PARTITION_A: u8 = 2;
/// Coded slice of an IDR picture.
pub const IDR_SLICE: u8 = 5;
/// Supplemental enhancement information.
pub const SEI: u8 = 6;
/// Sequence parameter set.
pub const SPS: u8 = 7;
/// Picture parameter set.
pub const PPS: u8 = 8;
/// Access unit delimiter.
pub const DELIMITER: u8 = 9;
/// End of sequence.
pub const END_OF_SEQUENCE: u8 = 10;
/// End of stream.
pub const END_OF_STREAM: u8 = 11;
/// Prefix NAL unit (Annexes G and H).
pub const PREFIX: u8 = 14;
/// Subset sequence parameter set.
pub const SUBSET_SPS: u8 = 15;
/// The last of the reserved types that start an access unit (§7.4.1.2.3).
pub const RESERVED_STARTING_LAST: u8 = 18;

/// The first byte of a NAL unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NalHeader {
    /// `nal_ref_idc`: 0 when no other picture refers to this one.
    pub ref_idc: u8,
    /// `nal_unit_type`.
    pub unit_type: u8,
}

impl NalHeader {
    /// Reads it; `None` when the `forbidden_zero_bit` is set.
    #[inline]
    pub const fn parse(byte: u8) -> Option<Self> {
        if byte & 0x80 != 0 {
            return None;
        }
        Some(Self { ref_idc: byte >> 5 & 3, unit_type: byte & 0x1f })
    }
}
