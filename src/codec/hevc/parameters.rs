//! Video, sequence and picture parameter sets (H.265 §7.3.2, Annex E), and the front of a slice segment header (§7.3.6.1).

use super::nal::{self, NalHeader};
use crate::base::bits::BitReader;
use crate::codec::annexb::{CAPTURED_BYTES_MAX, JUDGED_BYTES_MAX};
use crate::codec::nal_syntax::{
    ParameterSetError, Stored, UNSPECIFIED, bounded, frame_rate, read_colour, read_sample_aspect_ratio, store,
    transfer_function, unescape, write_unit,
};
use crate::media::{PictureType, Rational, Scan, VideoFormat};

/// Bytes of the NAL unit header.
const HEADER_BYTES: usize = 2;
/// `general_profile_idc` of the format range extensions.
const PROFILE_RANGE_EXTENSIONS: u8 = 4;

/// What the rest of the framer needs of a sequence parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceParameters {
    /// `sps_seq_parameter_set_id`.
    pub id: u8,
    /// `sps_video_parameter_set_id`.
    pub video_id: u8,
    /// Profile, tier and level.
    pub profile: Profile,
    /// `chroma_format_idc`.
    pub chroma_format: u8,
    /// `BitDepthY`.
    pub bit_depth: u8,
    /// `BitDepthC`.
    pub chroma_bit_depth: u8,
    /// Bits of `slice_segment_address`.
    pub address_bits: u8,
    /// Luma columns after cropping.
    pub width: u32,
    /// Luma rows of a coded picture after cropping: of a field when `field_seq_flag` is set.
    pub height: u32,
    /// Annex E.
    pub vui: Vui,
}

/// `profile_tier_level` (§7.3.3), the general part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// `general_profile_idc`.
    pub idc: u8,
    /// `general_profile_compatibility_flag`, the first in the highest bit.
    pub compatibility: u32,
    /// `general_progressive_source_flag`.
    pub progressive_source: bool,
    /// `general_interlaced_source_flag`.
    pub interlaced_source: bool,
    /// The seven constraint flags from `general_max_12bit_constraint_flag` on, the first in the highest bit of seven.
    pub constraints: u8,
    /// `general_level_idc`: 30 times the level.
    pub level_idc: u8,
}

/// Video usability information (§E.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vui {
    /// Width to height of a sample.
    pub sample_aspect_ratio: Option<Rational>,
    /// Code points of primaries, transfer characteristics and matrix.
    pub colour: [u8; 3],
    /// `vui_time_scale` and `vui_num_units_in_tick`: coded pictures per second.
    pub timing: Option<(u32, u32)>,
    /// `field_seq_flag`: each coded picture is a field.
    pub fields: bool,
    /// `frame_field_info_present_flag`.
    pub frame_field_info_present: bool,
}

impl Default for Vui {
    fn default() -> Self {
        Self {
            sample_aspect_ratio: None,
            colour: [UNSPECIFIED; 3],
            timing: None,
            fields: false,
            frame_field_info_present: false,
        }
    }
}

impl SequenceParameters {
    /// Reads the NAL unit's bytes, header and emulation prevention included; `None` when they break the syntax.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let mut buffer = [0; CAPTURED_BYTES_MAX];
        let mut reader = BitReader::new(unescape(unit.get(HEADER_BYTES..)?, &mut buffer));
        let r = &mut reader;
        let video_id = r.bits(4)? as u8;
        let sub_layers = r.bits(3).filter(|&minus_one| minus_one < 7)?;
        r.flag()?;
        let profile = read_profile_tier_level(r, sub_layers)?;
        let id = bounded(r, 15)? as u8;
        let chroma_format = bounded(r, 3)? as u8;
        let separate_colour_planes = chroma_format == 3 && r.flag()?;
        // Level 6.2 allows 16 888 luma samples a side; the bound keeps every product below within 32 bits.
        let (coded_width, coded_height) = (bounded(r, 32_768)?, bounded(r, 32_768)?);
        let (mut width, mut height) = (coded_width, coded_height);
        if r.flag()? {
            let (unit_x, unit_y) = match chroma_format {
                _ if separate_colour_planes => (1, 1),
                1 => (2, 2),
                2 => (2, 1),
                _ => (1, 1),
            };
            let mut crop = || bounded(r, 32_768);
            let (left, right, top, bottom) = (crop()?, crop()?, crop()?, crop()?);
            width = width.checked_sub((left + right) * unit_x)?;
            height = height.checked_sub((top + bottom) * unit_y)?;
        }
        if width == 0 || height == 0 {
            return None;
        }
        let bit_depth = 8 + bounded(r, 8)? as u8;
        let chroma_bit_depth = 8 + bounded(r, 8)? as u8;
        let poc_lsb_bits = 4 + bounded(r, 12)?;
        let first = if r.flag()? { 0 } else { sub_layers };
        for _ in first..=sub_layers {
            skip_numbers(r, 3)?;
        }
        let block_bits = 3 + bounded(r, 3)?;
        let tree_block_bits = block_bits + bounded(r, 3)?;
        skip_numbers(r, 4)?;
        if r.flag()? && r.flag()? {
            skip_scaling_lists(r)?;
        }
        r.skip(2)?;
        if r.flag()? {
            r.skip(8)?;
            skip_numbers(r, 2)?;
            r.flag()?;
        }
        skip_reference_picture_sets(r)?;
        if r.flag()? {
            for _ in 0..bounded(r, 32)? {
                r.skip(poc_lsb_bits as usize + 1)?;
            }
        }
        r.skip(2)?;
        let mut vui = Vui::default();
        if r.flag()? {
            // Some encoders cut the VUI short; a decoder forgives it, and so does this.
            read_vui(r, &mut vui);
        }
        let tree_block = 1 << tree_block_bits;
        let tree_blocks = coded_width.div_ceil(tree_block) * coded_height.div_ceil(tree_block);
        let address_bits = (u32::BITS - (tree_blocks - 1).leading_zeros()) as u8;
        Some(Self {
            id,
            video_id,
            profile,
            chroma_format,
            bit_depth,
            chroma_bit_depth,
            address_bits,
            width,
            height,
            vui,
        })
    }

    /// The format it describes.
    pub fn format(&self) -> VideoFormat {
        let source_is_interlaced = self.profile.interlaced_source && !self.profile.progressive_source;
        let fields_per_picture = if self.vui.fields { 2 } else { 1 };
        VideoFormat {
            width: self.width,
            height: self.height * fields_per_picture,
            frame_rate: self.vui.timing.and_then(|(time_scale, units_in_tick)| {
                frame_rate(time_scale, units_in_tick.checked_mul(fields_per_picture)?)
            }),
            scan: if self.vui.fields || source_is_interlaced { Scan::Interlaced } else { Scan::Progressive },
            profile: self.profile.name(),
            level_tenths: u16::from(self.profile.level_idc / 3),
            bit_depth: self.bit_depth,
            chroma_format: self.chroma_format,
            sample_aspect_ratio: self.vui.sample_aspect_ratio,
            transfer: transfer_function(self.vui.colour[1]),
            colour: self.vui.colour,
        }
    }
}

impl Profile {
    /// The name in Annex A; empty when it has none here.
    pub fn name(&self) -> &'static str {
        // Some encoders leave the idc at 0 and say it by compatibility alone.
        let idc = match self.idc {
            0 => (1..32).find(|bit| self.compatibility << bit & 0x8000_0000 != 0).unwrap_or(0) as u8,
            idc => idc,
        };
        match idc {
            1 => "Main",
            2 => "Main 10",
            3 => "Main Still Picture",
            // max_12bit, 10bit, 8bit, 422chroma, 420chroma, monochrome, intra (Table A.2).
            PROFILE_RANGE_EXTENSIONS => match self.constraints {
                0b111_1110 => "Monochrome",
                0b100_1110 => "Monochrome 12",
                0b100_1100 => "Main 12",
                0b110_1000 => "Main 4:2:2 10",
                0b100_1000 => "Main 4:2:2 12",
                0b111_0000 => "Main 4:4:4",
                0b110_0000 => "Main 4:4:4 10",
                0b100_0000 => "Main 4:4:4 12",
                0b111_1101 => "Main Intra",
                0b110_1101 => "Main 10 Intra",
                0b100_1101 => "Main 12 Intra",
                0b110_1001 => "Main 4:2:2 10 Intra",
                0b100_1001 => "Main 4:2:2 12 Intra",
                0b111_0001 => "Main 4:4:4 Intra",
                0b110_0001 => "Main 4:4:4 10 Intra",
                0b100_0001 => "Main 4:4:4 12 Intra",
                _ => "Range Extensions",
            },
            5 => "High Throughput",
            6 => "Multiview Main",
            7 => "Scalable Main",
            8 => "3D Main",
            9 => "Screen-Extended",
            10 => "Scalable Range Extensions",
            11 => "High Throughput Screen-Extended",
            _ => "",
        }
    }
}

/// What the rest of the framer needs of a picture parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureParameters {
    /// `pps_pic_parameter_set_id`.
    pub id: u8,
    /// `pps_seq_parameter_set_id`.
    pub sequence_id: u8,
    /// `dependent_slice_segments_enabled_flag`.
    pub dependent_segments: bool,
    /// `num_extra_slice_header_bits`.
    pub extra_slice_header_bits: u8,
}

impl PictureParameters {
    /// Reads the NAL unit's bytes, header and emulation prevention included; `None` when they break the syntax.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let mut buffer = [0; JUDGED_BYTES_MAX];
        let mut reader = BitReader::new(unescape(unit.get(HEADER_BYTES..)?, &mut buffer));
        let r = &mut reader;
        let id = bounded(r, 63)? as u8;
        let sequence_id = bounded(r, 15)? as u8;
        let dependent_segments = r.flag()?;
        r.flag()?;
        let extra_slice_header_bits = r.bits(3)? as u8;
        Some(Self { id, sequence_id, dependent_segments, extra_slice_header_bits })
    }
}

/// What of a slice segment header tells pictures apart and what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceSegment {
    /// The NAL unit's header.
    pub header: NalHeader,
    /// `first_slice_segment_in_pic_flag`.
    pub is_first: bool,
    /// `slice_pic_parameter_set_id`.
    pub picture_parameters: u8,
    /// From `slice_type`; unknown without parameter sets, and in dependent segments.
    pub picture_type: PictureType,
}

/// What stands at the front of a slice segment's NAL unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedSlice {
    /// It ends too early.
    Short,
    /// A value is one that the standard forbids.
    Broken,
    /// A header.
    Header(SliceSegment),
}

/// Reads the NAL unit's bytes, header and emulation prevention included.
pub fn parse_slice(unit: &[u8], header: NalHeader, sets: &ParameterSets) -> ParsedSlice {
    let mut buffer = [0; JUDGED_BYTES_MAX];
    let mut reader = BitReader::new(unescape(&unit[HEADER_BYTES..], &mut buffer));
    read_slice(&mut reader, header, sets).unwrap_or(ParsedSlice::Short)
}

fn read_slice(r: &mut BitReader<'_>, header: NalHeader, sets: &ParameterSets) -> Option<ParsedSlice> {
    let is_first = r.flag()?;
    if nal::IRAP.contains(&header.unit_type) {
        r.flag()?;
    }
    let picture_parameters = r.unsigned_exp_golomb()?;
    if picture_parameters > 63 {
        return Some(ParsedSlice::Broken);
    }
    let picture_parameters = picture_parameters as u8;
    let mut segment = SliceSegment { header, is_first, picture_parameters, picture_type: PictureType::Unknown };
    let Some(pps) = sets.picture(picture_parameters) else {
        return Some(ParsedSlice::Header(segment));
    };
    let Some(sps) = sets.sequence(pps.sequence_id) else {
        return Some(ParsedSlice::Header(segment));
    };
    if !is_first {
        let is_dependent = pps.dependent_segments && r.flag()?;
        r.skip(usize::from(sps.address_bits))?;
        if is_dependent {
            return Some(ParsedSlice::Header(segment));
        }
    }
    r.skip(usize::from(pps.extra_slice_header_bits))?;
    segment.picture_type = match r.unsigned_exp_golomb()? {
        0 => PictureType::B,
        1 => PictureType::P,
        2 => PictureType::I,
        _ => return Some(ParsedSlice::Broken),
    };
    Some(ParsedSlice::Header(segment))
}

/// The parameter sets of one track, by their ids.
#[derive(Clone, Debug)]
pub struct ParameterSets {
    video: [Option<Stored<()>>; 16],
    sequence: [Option<Stored<SequenceParameters>>; 16],
    picture: [Option<Stored<PictureParameters>>; 64],
    /// Bytes stored in all.
    bytes: usize,
}

impl Default for ParameterSets {
    fn default() -> Self {
        Self { video: [const { None }; 16], sequence: [const { None }; 16], picture: [const { None }; 64], bytes: 0 }
    }
}

impl ParameterSets {
    /// Takes a video parameter set. `Ok(false)`: it was known already.
    pub fn store_video(&mut self, unit: &[u8]) -> Result<bool, ParameterSetError> {
        let id = unit.get(HEADER_BYTES).ok_or(ParameterSetError::Syntax)? >> 4;
        store(&mut self.video[usize::from(id)], &mut self.bytes, (), unit)
    }

    /// Takes a sequence parameter set. `Ok(false)`: it was known already.
    pub fn store_sequence(&mut self, unit: &[u8]) -> Result<bool, ParameterSetError> {
        if self.sequence.iter().flatten().any(|known| *known.bytes == *unit) {
            return Ok(false);
        }
        let parsed = SequenceParameters::parse(unit).ok_or(ParameterSetError::Syntax)?;
        store(&mut self.sequence[usize::from(parsed.id)], &mut self.bytes, parsed, unit)
    }

    /// Takes a picture parameter set. `Ok(false)`: it was known already.
    pub fn store_picture(&mut self, unit: &[u8]) -> Result<bool, ParameterSetError> {
        let parsed = PictureParameters::parse(unit).ok_or(ParameterSetError::Syntax)?;
        store(&mut self.picture[usize::from(parsed.id)], &mut self.bytes, parsed, unit)
    }

    /// The sequence parameter set with this id.
    pub fn sequence(&self, id: u8) -> Option<&SequenceParameters> {
        Some(&self.sequence.get(usize::from(id))?.as_ref()?.parsed)
    }

    /// The picture parameter set with this id.
    pub fn picture(&self, id: u8) -> Option<&PictureParameters> {
        Some(&self.picture.get(usize::from(id))?.as_ref()?.parsed)
    }

    /// Writes the set, the video parameter set it refers to, and all picture parameter sets that refer to it, as an
    /// Annex B stream.
    pub fn write_annex_b(&self, sequence_id: u8, bytes: &mut Vec<u8>) {
        let Some(sequence) = &self.sequence[usize::from(sequence_id)] else { return };
        if let Some(video) = &self.video[usize::from(sequence.parsed.video_id)] {
            write_unit(&video.bytes, bytes);
        }
        write_unit(&sequence.bytes, bytes);
        for set in self.picture.iter().flatten().filter(|set| set.parsed.sequence_id == sequence_id) {
            write_unit(&set.bytes, bytes);
        }
    }
}

fn read_profile_tier_level(r: &mut BitReader<'_>, sub_layers: u32) -> Option<Profile> {
    r.skip(3)?;
    let idc = r.bits(5)? as u8;
    let compatibility = r.bits(32)?;
    let progressive_source = r.flag()?;
    let interlaced_source = r.flag()?;
    r.skip(2)?;
    let constraints = r.bits(7)? as u8;
    r.skip(43 - 7 + 1)?;
    let level_idc = r.bits(8)? as u8;
    if sub_layers > 0 {
        let flags = r.bits(16)?;
        for layer in 0..sub_layers {
            let profile_present = flags << (2 * layer) & 0x8000 != 0;
            let level_present = flags << (2 * layer) & 0x4000 != 0;
            r.skip(88 * usize::from(profile_present) + 8 * usize::from(level_present))?;
        }
    }
    Some(Profile { idc, compatibility, progressive_source, interlaced_source, constraints, level_idc })
}

fn skip_numbers(r: &mut BitReader<'_>, count: usize) -> Option<()> {
    (0..count).try_for_each(|_| r.unsigned_exp_golomb().map(drop))
}

/// `scaling_list_data` (§7.3.4).
fn skip_scaling_lists(r: &mut BitReader<'_>) -> Option<()> {
    for size in 0..4_u32 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !r.flag()? {
                r.unsigned_exp_golomb()?;
                continue;
            }
            let coefficients = (1 << (4 + 2 * size)).min(64) + u32::from(size > 1);
            for _ in 0..coefficients {
                r.signed_exp_golomb()?;
            }
        }
    }
    Some(())
}

/// All `st_ref_pic_set` of an SPS (§7.3.7).
fn skip_reference_picture_sets(r: &mut BitReader<'_>) -> Option<()> {
    let mut pictures = 0;
    for index in 0..bounded(r, 64)? {
        if index > 0 && r.flag()? {
            r.flag()?;
            r.unsigned_exp_golomb()?;
            let mut kept = 0;
            for _ in 0..=pictures {
                let used = r.flag()?;
                if used || r.flag()? {
                    kept += 1;
                }
            }
            pictures = kept;
        } else {
            pictures = bounded(r, 16)? + bounded(r, 16)?;
            for _ in 0..pictures {
                r.unsigned_exp_golomb()?;
                r.flag()?;
            }
        }
        if pictures > 32 {
            return None;
        }
    }
    Some(())
}

/// Fills in as much as there is.
fn read_vui(r: &mut BitReader<'_>, vui: &mut Vui) -> Option<()> {
    vui.sample_aspect_ratio = read_sample_aspect_ratio(r)?;
    if r.flag()? {
        r.flag()?;
    }
    vui.colour = read_colour(r)?;
    if r.flag()? {
        skip_numbers(r, 2)?;
    }
    r.flag()?;
    vui.fields = r.flag()?;
    vui.frame_field_info_present = r.flag()?;
    if r.flag()? {
        skip_numbers(r, 4)?;
    }
    if r.flag()? {
        let (units_in_tick, time_scale) = (r.bits(32)?, r.bits(32)?);
        vui.timing = Some((time_scale, units_in_tick));
    }
    Some(())
}
