//! NAL unit header (H.265 §7.3.1.2, Table 7-1).

/// The last of the types of VCL NAL units.
pub const VCL_LAST: u8 = 31;
/// The last of the types of slices that are not intra random access points, reserved ones included.
pub const TRAILING_LAST: u8 = 15;
/// First and last broken link access picture.
pub const BLA: std::ops::RangeInclusive<u8> = 16..=18;
/// Both kinds of instantaneous decoding refresh pictures.
pub const IDR: std::ops::RangeInclusive<u8> = 19..=20;
/// Clean random access picture.
pub const CRA: u8 = 21;
/// The types whose slice headers have `no_output_of_prior_pics_flag`.
pub const IRAP: std::ops::RangeInclusive<u8> = 16..=23;
/// Video parameter set.
pub const VPS: u8 = 32;
/// Sequence parameter set.
pub const SPS: u8 = 33;
/// Picture parameter set.
pub const PPS: u8 = 34;
/// Access unit delimiter.
pub const DELIMITER: u8 = 35;
/// End of sequence.
pub const END_OF_SEQUENCE: u8 = 36;
/// End of bitstream.
pub const END_OF_BITSTREAM: u8 = 37;
/// SEI before the picture's slices.
pub const PREFIX_SEI: u8 = 39;
/// Reserved types that start an access unit (§7.4.2.4.4).
pub const RESERVED_STARTING: std::ops::RangeInclusive<u8> = 41..=44;
/// Unspecified types that start an access unit (§7.4.2.4.4).
pub const UNSPECIFIED_STARTING: std::ops::RangeInclusive<u8> = 48..=55;

/// The first two bytes of a NAL unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NalHeader {
    /// `nal_unit_type`.
    pub unit_type: u8,
    /// `nuh_layer_id`: 0 for all but extensions.
    pub layer_id: u8,
    /// `nuh_temporal_id_plus1` − 1.
    pub temporal_id: u8,
}

impl NalHeader {
    /// Reads it; `None` when the `forbidden_zero_bit` is set, `nuh_temporal_id_plus1` is 0 or a byte is missing.
    #[inline]
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let &[first, second, ..] = unit else { return None };
        if first & 0x80 != 0 || second & 7 == 0 {
            return None;
        }
        Some(Self {
            unit_type: unit_type(first),
            layer_id: (first & 1) << 5 | second >> 3,
            temporal_id: (second & 7) - 1,
        })
    }
}

/// `nal_unit_type` of a unit that starts with this byte.
#[inline]
pub const fn unit_type(first: u8) -> u8 {
    first >> 1 & 0x3f
}
