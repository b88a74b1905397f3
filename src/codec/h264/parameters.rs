//! Sequence and picture parameter sets (H.264 §7.3.2.1, §7.3.2.2, Annex E).

use crate::base::bits::BitReader;
use crate::codec::annexb::CAPTURED_BYTES_MAX;
use crate::codec::nal_syntax::{
    ParameterSetError, Stored, UNSPECIFIED, bounded, frame_rate, read_colour, read_sample_aspect_ratio, store,
    transfer_function, unescape, write_unit,
};
use crate::media::{Rational, Scan, VideoFormat};

/// Profiles whose SPS has the chroma format and all that follows it (§7.3.2.1.1).
const PROFILES_WITH_CHROMA_FORMAT: &[u8] = &[100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
/// What the rest of the framer needs of a sequence parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceParameters {
    /// `seq_parameter_set_id`.
    pub id: u8,
    /// `profile_idc`.
    pub profile_idc: u8,
    /// `constraint_set0_flag` to `constraint_set5_flag`, the first in the highest bit, and two reserved bits.
    pub constraints: u8,
    /// `level_idc`.
    pub level_idc: u8,
    /// `chroma_format_idc`.
    pub chroma_format: u8,
    /// `separate_colour_plane_flag`.
    pub separate_colour_planes: bool,
    /// `BitDepthY`.
    pub bit_depth: u8,
    /// `BitDepthC`.
    pub chroma_bit_depth: u8,
    /// Bits of `frame_num`.
    pub frame_num_bits: u8,
    /// `pic_order_cnt_type`.
    pub poc_type: u8,
    /// Bits of `pic_order_cnt_lsb`.
    pub poc_lsb_bits: u8,
    /// `delta_pic_order_always_zero_flag`.
    pub delta_poc_always_zero: bool,
    /// `frame_mbs_only_flag`.
    pub frame_mbs_only: bool,
    /// Macroblocks of a frame.
    pub frame_macroblocks: u32,
    /// Luma columns after cropping.
    pub width: u32,
    /// Luma rows of a frame after cropping.
    pub height: u32,
    /// Annex E.
    pub vui: Vui,
}

/// Video usability information (H.264 §E.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vui {
    /// Width to height of a sample.
    pub sample_aspect_ratio: Option<Rational>,
    /// Code points of primaries, transfer characteristics and matrix.
    pub colour: [u8; 3],
    /// `time_scale` ÷ `num_units_in_tick` ÷ 2.
    pub frame_rate: Option<Rational>,
    /// Bits of `cpb_removal_delay` and `dpb_output_delay`, when picture timing SEI carry them.
    pub delay_bits: Option<(u8, u8)>,
    /// Bits of `time_offset`.
    pub time_offset_bits: u8,
    /// `pic_struct_present_flag`.
    pub pic_struct_present: bool,
}

impl Default for Vui {
    fn default() -> Self {
        Self {
            sample_aspect_ratio: None,
            colour: [UNSPECIFIED; 3],
            frame_rate: None,
            delay_bits: None,
            time_offset_bits: 24,
            pic_struct_present: false,
        }
    }
}

impl SequenceParameters {
    /// Reads the NAL unit's bytes, header and emulation prevention included; `None` when they break the syntax.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let mut buffer = [0; CAPTURED_BYTES_MAX];
        let mut reader = BitReader::new(unescape(unit.get(1..)?, &mut buffer));
        let r = &mut reader;
        let profile_idc = r.bits(8)? as u8;
        let constraints = r.bits(8)? as u8;
        let level_idc = r.bits(8)? as u8;
        let id = bounded(r, 31)? as u8;
        let (mut chroma_format, mut separate_colour_planes) = (1, false);
        let (mut bit_depth, mut chroma_bit_depth) = (8, 8);
        if PROFILES_WITH_CHROMA_FORMAT.contains(&profile_idc) {
            chroma_format = bounded(r, 3)? as u8;
            if chroma_format == 3 {
                separate_colour_planes = r.flag()?;
            }
            bit_depth = 8 + bounded(r, 6)? as u8;
            chroma_bit_depth = 8 + bounded(r, 6)? as u8;
            r.flag()?;
            if r.flag()? {
                skip_scaling_lists(r, if chroma_format == 3 { 12 } else { 8 })?;
            }
        }
        let frame_num_bits = 4 + bounded(r, 12)? as u8;
        let poc_type = bounded(r, 2)? as u8;
        let (mut poc_lsb_bits, mut delta_poc_always_zero) = (0, false);
        match poc_type {
            0 => poc_lsb_bits = 4 + bounded(r, 12)? as u8,
            1 => {
                delta_poc_always_zero = r.flag()?;
                r.signed_exp_golomb()?;
                r.signed_exp_golomb()?;
                for _ in 0..bounded(r, 255)? {
                    r.signed_exp_golomb()?;
                }
            }
            _ => {}
        }
        r.unsigned_exp_golomb()?;
        r.flag()?;
        // 16 384 columns and rows are more than level 6.2 allows, and keep every product below within 32 bits.
        let width_in_macroblocks = 1 + bounded(r, 1023)?;
        let height_in_map_units = 1 + bounded(r, 1023)?;
        let frame_mbs_only = r.flag()?;
        if !frame_mbs_only {
            r.flag()?;
        }
        let height_in_macroblocks = height_in_map_units * if frame_mbs_only { 1 } else { 2 };
        r.flag()?;
        let (mut width, mut height) = (width_in_macroblocks * 16, height_in_macroblocks * 16);
        if r.flag()? {
            let (unit_x, unit_y) = match chroma_format {
                _ if separate_colour_planes => (1, 1),
                1 => (2, 2),
                2 => (2, 1),
                _ => (1, 1),
            };
            let unit_y = unit_y * if frame_mbs_only { 1 } else { 2 };
            let mut crop = || bounded(r, 16_384);
            let (left, right, top, bottom) = (crop()?, crop()?, crop()?, crop()?);
            width = width.checked_sub((left + right) * unit_x).filter(|&width| width > 0)?;
            height = height.checked_sub((top + bottom) * unit_y).filter(|&height| height > 0)?;
        }
        // Some encoders cut the VUI short; a decoder forgives it, and so does this.
        let vui = if r.flag()? { parse_vui(r) } else { Vui::default() };
        Some(Self {
            id,
            profile_idc,
            constraints,
            level_idc,
            chroma_format,
            separate_colour_planes,
            bit_depth,
            chroma_bit_depth,
            frame_num_bits,
            poc_type,
            poc_lsb_bits,
            delta_poc_always_zero,
            frame_mbs_only,
            frame_macroblocks: width_in_macroblocks * height_in_macroblocks,
            width,
            height,
            vui,
        })
    }

    /// The format it describes.
    pub fn format(&self) -> VideoFormat {
        VideoFormat {
            width: self.width,
            height: self.height,
            frame_rate: self.vui.frame_rate,
            scan: if self.frame_mbs_only { Scan::Progressive } else { Scan::Interlaced },
            profile: self.profile(),
            level_tenths: self.level_tenths(),
            bit_depth: self.bit_depth,
            chroma_format: self.chroma_format,
            sample_aspect_ratio: self.vui.sample_aspect_ratio,
            transfer: transfer_function(self.vui.colour[1]),
            colour: self.vui.colour,
        }
    }

    /// Slices may come in any order (Annex A.2.1, A.2.3: Baseline and Extended profile only).
    pub fn allows_arbitrary_slice_order(&self) -> bool {
        match self.profile_idc {
            66 => !self.constraint(1),
            88 => true,
            _ => false,
        }
    }

    fn constraint(&self, number: u32) -> bool {
        self.constraints << number & 0x80 != 0
    }

    fn profile(&self) -> &'static str {
        match (self.profile_idc, self.constraint(3)) {
            (66, _) if self.constraint(1) => "Constrained Baseline",
            (66, _) => "Baseline",
            (77, _) => "Main",
            (88, _) => "Extended",
            (100, _) if self.constraint(4) && self.constraint(5) => "Constrained High",
            (100, _) if self.constraint(4) => "Progressive High",
            (100, _) => "High",
            (110, true) => "High 10 Intra",
            (110, false) if self.constraint(4) => "Progressive High 10",
            (110, false) => "High 10",
            (122, true) => "High 4:2:2 Intra",
            (122, false) => "High 4:2:2",
            (244, true) => "High 4:4:4 Intra",
            (244, false) => "High 4:4:4 Predictive",
            (44, _) => "CAVLC 4:4:4 Intra",
            (83, _) => "Scalable Baseline",
            (86, _) => "Scalable High",
            (118, _) => "Multiview High",
            (128, _) => "Stereo High",
            _ => "",
        }
    }

    fn level_tenths(&self) -> u16 {
        // Level 1b is 9, or 11 with constraint_set3_flag in the oldest profiles (Annex A.3.1).
        match self.level_idc {
            9 => 10,
            11 if self.constraint(3) && matches!(self.profile_idc, 66 | 77 | 88) => 10,
            level => u16::from(level),
        }
    }
}

/// What the rest of the framer needs of a picture parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureParameters {
    /// `pic_parameter_set_id`.
    pub id: u8,
    /// `seq_parameter_set_id`.
    pub sequence_id: u8,
    /// `bottom_field_pic_order_in_frame_present_flag`.
    pub bottom_field_poc_present: bool,
    /// `redundant_pic_cnt_present_flag`.
    pub redundant_pictures_present: bool,
}

impl PictureParameters {
    /// Reads the NAL unit's bytes, header and emulation prevention included; `None` when they break the syntax.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let mut buffer = [0; CAPTURED_BYTES_MAX];
        let mut reader = BitReader::new(unescape(unit.get(1..)?, &mut buffer));
        let r = &mut reader;
        let id = bounded(r, 255)? as u8;
        let sequence_id = bounded(r, 31)? as u8;
        r.flag()?;
        let bottom_field_poc_present = r.flag()?;
        skip_slice_groups(r)?;
        bounded(r, 31)?;
        bounded(r, 31)?;
        r.skip(3)?;
        for _ in 0..3 {
            r.signed_exp_golomb()?;
        }
        r.skip(2)?;
        let redundant_pictures_present = r.flag()?;
        Some(Self { id, sequence_id, bottom_field_poc_present, redundant_pictures_present })
    }
}

/// The parameter sets of one track, by their ids.
#[derive(Clone, Debug)]
pub struct ParameterSets {
    sequence: [Option<Stored<SequenceParameters>>; 32],
    picture: Box<[Option<Stored<PictureParameters>>; 256]>,
    /// Bytes stored in all.
    bytes: usize,
}

impl Default for ParameterSets {
    fn default() -> Self {
        Self { sequence: [const { None }; 32], picture: Box::new([const { None }; 256]), bytes: 0 }
    }
}

impl ParameterSets {
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
        Some(&self.picture[usize::from(id)].as_ref()?.parsed)
    }

    /// Writes the set and all picture parameter sets that refer to it as an Annex B stream.
    pub fn write_annex_b(&self, sequence_id: u8, bytes: &mut Vec<u8>) {
        if let Some(sequence) = &self.sequence[usize::from(sequence_id)] {
            write_unit(&sequence.bytes, bytes);
        }
        for set in self.picture.iter().flatten().filter(|set| set.parsed.sequence_id == sequence_id) {
            write_unit(&set.bytes, bytes);
        }
    }
}

fn skip_scaling_lists(r: &mut BitReader<'_>, count: usize) -> Option<()> {
    for list in 0..count {
        if !r.flag()? {
            continue;
        }
        let (mut last, mut next) = (8_i32, 8_i32);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = last.wrapping_add(r.signed_exp_golomb()?) & 0xff;
            }
            last = if next == 0 { last } else { next };
        }
    }
    Some(())
}

fn skip_slice_groups(r: &mut BitReader<'_>) -> Option<()> {
    let groups = bounded(r, 7)? + 1;
    if groups == 1 {
        return Some(());
    }
    match bounded(r, 6)? {
        0 => (0..groups).try_for_each(|_| r.unsigned_exp_golomb().map(drop)),
        2 => (0..2 * (groups - 1)).try_for_each(|_| r.unsigned_exp_golomb().map(drop)),
        3..=5 => {
            r.flag()?;
            r.unsigned_exp_golomb().map(drop)
        }
        6 => {
            let map_units = r.unsigned_exp_golomb()? as usize + 1;
            r.skip(map_units.checked_mul((u32::BITS - (groups - 1).leading_zeros()) as usize)?)
        }
        _ => Some(()),
    }
}

fn parse_vui(r: &mut BitReader<'_>) -> Vui {
    let mut vui = Vui::default();
    read_vui(r, &mut vui);
    vui
}

/// Fills in as much as there is.
fn read_vui(r: &mut BitReader<'_>, vui: &mut Vui) -> Option<()> {
    vui.sample_aspect_ratio = read_sample_aspect_ratio(r)?;
    if r.flag()? {
        r.flag()?;
    }
    vui.colour = read_colour(r)?;
    if r.flag()? {
        r.unsigned_exp_golomb()?;
        r.unsigned_exp_golomb()?;
    }
    if r.flag()? {
        let (units_in_tick, time_scale) = (r.bits(32)?, r.bits(32)?);
        // A frame lasts two ticks (§E.2.1).
        vui.frame_rate = match units_in_tick.checked_mul(2) {
            Some(denominator) => frame_rate(time_scale, denominator),
            None => frame_rate(time_scale / 2, units_in_tick),
        };
        r.flag()?;
    }
    let nal_hrd = r.flag()?;
    if nal_hrd {
        read_hrd(r, vui)?;
    }
    let vcl_hrd = r.flag()?;
    if vcl_hrd {
        read_hrd(r, vui)?;
    }
    if nal_hrd || vcl_hrd {
        r.flag()?;
    }
    vui.pic_struct_present = r.flag()?;
    Some(())
}

fn read_hrd(r: &mut BitReader<'_>, vui: &mut Vui) -> Option<()> {
    let count = bounded(r, 31)? + 1;
    r.skip(8)?;
    for _ in 0..count {
        r.unsigned_exp_golomb()?;
        r.unsigned_exp_golomb()?;
        r.flag()?;
    }
    r.skip(5)?;
    vui.delay_bits = Some((r.bits(5)? as u8 + 1, r.bits(5)? as u8 + 1));
    vui.time_offset_bits = r.bits(5)? as u8;
    Some(())
}
