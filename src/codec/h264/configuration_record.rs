//! AVCDecoderConfigurationRecord: parameter sets as files carry them (ISO/IEC 14496-15 §5.3.3).

use super::nal;
use super::parameters::SequenceParameters;
use crate::codec::nal_syntax::units;

/// The profiles whose record tells of chroma format and bit depths.
const PROFILES_WITH_EXTENSION: &[u8] = &[100, 110, 122, 144, 244];

/// The record of these parameter sets (Annex B); `None` without a sequence parameter set that can be read, or when sets are too
/// many or too long for it. Lengths before NAL units are of four bytes.
pub fn configuration_record(parameter_sets: &[u8]) -> Option<Vec<u8>> {
    let of_type = |unit_type| units(parameter_sets).filter(move |unit| unit[0] & 0x1f == unit_type);
    let first = of_type(nal::SPS).next()?;
    let sequence = SequenceParameters::parse(first)?;
    let mut record = vec![1, sequence.profile_idc, sequence.constraints, sequence.level_idc, 0xff];
    for (unit_type, count_max, marker) in [(nal::SPS, 31, 0xe0), (nal::PPS, 255, 0)] {
        let count = of_type(unit_type).count();
        record.push(u8::try_from(count).ok().filter(|count| *count <= count_max)? | marker);
        for unit in of_type(unit_type) {
            record.extend(u16::try_from(unit.len()).ok()?.to_be_bytes());
            record.extend_from_slice(unit);
        }
    }
    if PROFILES_WITH_EXTENSION.contains(&sequence.profile_idc) {
        let depth = |bits: u8| 0xf8 | (bits - 8);
        record.extend([0xfc | sequence.chroma_format, depth(sequence.bit_depth), depth(sequence.chroma_bit_depth), 0]);
    }
    Some(record)
}
