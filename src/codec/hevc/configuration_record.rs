//! HEVCDecoderConfigurationRecord: parameter sets as files carry them (ISO/IEC 14496-15 §8.3.3).

use super::nal::{self, NalHeader};
use super::parameters::SequenceParameters;
use crate::codec::nal_syntax::{unescape, units};

/// Where `profile_tier_level` stands in a sequence parameter set: after the NAL unit's header and one byte of the set.
const PROFILE_AT: usize = 3;
/// Bytes of its general part, up to `general_level_idc` (H.265 §7.3.3).
const PROFILE_LEN: usize = 12;

/// The record of these parameter sets (Annex B); `None` without a sequence parameter set that can be read, or when sets are too
/// many or too long for it. Lengths before NAL units are of four bytes.
pub fn configuration_record(parameter_sets: &[u8]) -> Option<Vec<u8>> {
    let of_type = |unit_type| {
        units(parameter_sets).filter(move |unit| NalHeader::parse(unit).is_some_and(|it| it.unit_type == unit_type))
    };
    let first = of_type(nal::SPS).next()?;
    let sequence = SequenceParameters::parse(first)?;
    let mut buffer = [0; PROFILE_AT + PROFILE_LEN];
    let front = unescape(first, &mut buffer);
    let sub_layers = (front[2] >> 1 & 7) + 1;
    let nested = front[2] & 1;
    let mut record = vec![1];
    record.extend_from_slice(front.get(PROFILE_AT..PROFILE_AT + PROFILE_LEN)?);
    // No statement about segmentation in space, parallel decoding and the mean frame rate.
    record.extend([0xf0, 0, 0xfc, 0xfc | sequence.chroma_format]);
    record.extend([0xf8 | (sequence.bit_depth - 8), 0xf8 | (sequence.chroma_bit_depth - 8), 0, 0]);
    record.extend([sub_layers << 3 | nested << 2 | 3, 3]);
    for unit_type in [nal::VPS, nal::SPS, nal::PPS] {
        // Not complete: the stream may bring others.
        record.push(unit_type);
        record.extend(u16::try_from(of_type(unit_type).count()).ok()?.to_be_bytes());
        for unit in of_type(unit_type) {
            record.extend(u16::try_from(unit.len()).ok()?.to_be_bytes());
            record.extend_from_slice(unit);
        }
    }
    Some(record)
}
