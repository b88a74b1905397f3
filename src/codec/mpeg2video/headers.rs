//! Sequence, group of pictures and picture headers with their extensions (H.262 §6.2.2, §6.2.3).

use crate::base::bits::BitReader;
use crate::codec::nal_syntax::{UNSPECIFIED, transfer_function};
use crate::media::{PictureType, Rational, Scan, Timecode, VideoFormat};

/// `picture_start_code`.
pub const PICTURE: u8 = 0x00;
/// `slice_start_code`: the number is the row of macroblocks, counted from 1.
pub const SLICES: std::ops::RangeInclusive<u8> = 0x01..=0xaf;
/// `sequence_header_code`.
pub const SEQUENCE_HEADER: u8 = 0xb3;
/// `extension_start_code`.
pub const EXTENSION: u8 = 0xb5;
/// `sequence_end_code`.
pub const SEQUENCE_END: u8 = 0xb7;
/// `group_start_code`.
pub const GROUP: u8 = 0xb8;

/// `extension_start_code_identifier` (Table 6-2).
pub mod extension {
    /// Sequence extension, which MPEG-1 does not have.
    pub const SEQUENCE: u8 = 1;
    /// Sequence display extension.
    pub const SEQUENCE_DISPLAY: u8 = 2;
    /// Picture coding extension.
    pub const PICTURE_CODING: u8 = 8;
}

/// `frame_rate_value` of `frame_rate_code` 1 to 8 (Table 6-4).
const FRAME_RATES: [(u32, u32); 8] =
    [(24_000, 1_001), (24, 1), (25, 1), (30_000, 1_001), (30, 1), (50, 1), (60_000, 1_001), (60, 1)];

/// Reads a header's fields; the start code's value is its first byte and is passed over.
fn body(unit: &[u8]) -> BitReader<'_> {
    BitReader::new(unit.get(1..).unwrap_or_default())
}

/// `sequence_header` (§6.2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceHeader {
    width: u32,
    height: u32,
    aspect_ratio: u8,
    frame_rate_code: u8,
    /// Bytes of the header, the start code's value included; zeros may be stuffed behind.
    pub len: usize,
}

impl SequenceHeader {
    /// Reads it; `None` when it breaks the syntax.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let r = &mut body(unit);
        let (width, height) = (r.bits(12)?, r.bits(12)?);
        let aspect_ratio = r.bits(4)? as u8;
        let frame_rate_code = r.bits(4)? as u8;
        r.skip(18)?;
        // marker_bit
        if !r.flag()? {
            return None;
        }
        r.skip(11)?;
        for _ in 0..2 {
            if r.flag()? {
                r.skip(64 * 8)?;
            }
        }
        Some(Self { width, height, aspect_ratio, frame_rate_code, len: 1 + r.position().div_ceil(8) })
    }
}

/// `sequence_extension` (§6.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceExtension {
    profile_and_level: u8,
    /// `progressive_sequence`.
    pub is_progressive: bool,
    chroma_format: u8,
    width_high: u32,
    height_high: u32,
    frame_rate_scale: (u32, u32),
    /// As in [`SequenceHeader`].
    pub len: usize,
}

impl SequenceExtension {
    /// Reads it; `None` when it breaks the syntax.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let r = &mut body(unit);
        r.skip(4)?;
        let profile_and_level = r.bits(8)? as u8;
        let is_progressive = r.flag()?;
        let chroma_format = r.bits(2)? as u8;
        let (width_high, height_high) = (r.bits(2)?, r.bits(2)?);
        r.skip(12)?;
        if !r.flag()? {
            return None;
        }
        r.skip(9)?;
        let frame_rate_scale = (r.bits(2)? + 1, r.bits(5)? + 1);
        let len = 1 + r.position().div_ceil(8);
        Some(Self { profile_and_level, is_progressive, chroma_format, width_high, height_high, frame_rate_scale, len })
    }
}

/// `sequence_display_extension` (§6.2.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisplayExtension {
    colour: [u8; 3],
    /// Columns and rows of the display that the aspect ratio speaks of.
    size: (u32, u32),
    /// As in [`SequenceHeader`].
    pub len: usize,
}

impl DisplayExtension {
    /// Reads it; `None` when it breaks the syntax.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let r = &mut body(unit);
        r.skip(4 + 3)?;
        let mut colour = [UNSPECIFIED; 3];
        if r.flag()? {
            for code_point in &mut colour {
                *code_point = r.bits(8)? as u8;
            }
        }
        let width = r.bits(14)?;
        r.flag()?;
        let height = r.bits(14)?;
        Some(Self { colour, size: (width, height), len: 1 + r.position().div_ceil(8) })
    }
}

/// The three headers that describe a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Always there.
    pub header: SequenceHeader,
    /// Not there in MPEG-1.
    pub extension: Option<SequenceExtension>,
    /// When the encoder tells.
    pub display: Option<DisplayExtension>,
}

impl Sequence {
    /// The format they describe.
    pub fn format(&self) -> VideoFormat {
        let colour = self.display.map_or([UNSPECIFIED; 3], |display| display.colour);
        let mut format = VideoFormat {
            width: self.header.width,
            height: self.header.height,
            frame_rate: None,
            scan: Scan::Progressive,
            profile: "",
            level_tenths: 0,
            bit_depth: 8,
            chroma_format: 1,
            sample_aspect_ratio: None,
            transfer: transfer_function(colour[1]),
            colour,
        };
        let mut scale = (1, 1);
        if let Some(extension) = &self.extension {
            format.width |= extension.width_high << 12;
            format.height |= extension.height_high << 12;
            format.chroma_format = extension.chroma_format;
            format.profile = profile(extension.profile_and_level);
            scale = extension.frame_rate_scale;
            if !extension.is_progressive {
                format.scan = Scan::Interlaced;
            }
        }
        format.frame_rate = usize::from(self.header.frame_rate_code)
            .checked_sub(1)
            .and_then(|index| FRAME_RATES.get(index))
            .and_then(|&(numerator, denominator)| Rational::new(numerator * scale.0, denominator * scale.1));
        if self.extension.is_some() {
            let display = self.display.map(|display| display.size).filter(|size| size.0 > 0 && size.1 > 0);
            let (width, height) = display.unwrap_or((format.width, format.height));
            format.sample_aspect_ratio = match self.header.aspect_ratio {
                1 => Rational::new(1, 1),
                2 => Rational::new(4 * height, 3 * width),
                3 => Rational::new(16 * height, 9 * width),
                4 => Rational::new(221 * height, 100 * width),
                _ => None,
            };
        }
        format
    }
}

/// The name of a profile (§8, Tables 8-2 and 8-3); its level has a name, not a number.
fn profile(profile_and_level: u8) -> &'static str {
    match (profile_and_level & 0x80 != 0, profile_and_level >> 4 & 7) {
        (false, 5) => "Simple",
        (false, 4) => "Main",
        (false, 3) => "SNR Scalable",
        (false, 2) => "Spatially Scalable",
        (false, 1) => "High",
        (true, _) if matches!(profile_and_level & 0xf, 2 | 3 | 5 | 11 | 13) => "4:2:2",
        (true, _) if matches!(profile_and_level & 0xf, 4 | 6 | 7 | 10 | 14) => "Multi-view",
        _ => "",
    }
}

/// `group_of_pictures_header` (§6.2.2.6): its time code.
pub fn parse_group(unit: &[u8]) -> Option<Timecode> {
    let r = &mut body(unit);
    let drop_frame = r.flag()?;
    let hours = r.bits(5)? as u8;
    let minutes = r.bits(6)? as u8;
    let marker = r.flag()?;
    let seconds = r.bits(6)? as u8;
    let frames = r.bits(6)? as u16;
    (marker && hours < 24 && minutes < 60 && seconds < 60).then_some(Timecode {
        hours,
        minutes,
        seconds,
        frames,
        drop_frame,
    })
}

/// The front of a `picture_header` (§6.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureHeader {
    /// `temporal_reference`: both fields of a frame have the same.
    pub temporal_reference: u16,
    /// From `picture_coding_type`; the D pictures of MPEG-1 count as I.
    pub picture_type: PictureType,
}

impl PictureHeader {
    /// Reads it; `None` when it breaks the syntax or there is less than the header's first two bytes.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let r = &mut body(unit);
        let temporal_reference = r.bits(10)? as u16;
        let picture_type = match r.bits(3)? {
            1 | 4 => PictureType::I,
            2 => PictureType::P,
            3 => PictureType::B,
            _ => return None,
        };
        Some(Self { temporal_reference, picture_type })
    }
}

/// What a `picture_coding_extension` (§6.2.3.1) says of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureCoding {
    /// `picture_structure`: 1 top field, 2 bottom field, 3 frame.
    pub structure: u8,
    /// `top_field_first`.
    pub top_field_first: bool,
    /// `repeat_first_field`.
    pub repeat_first_field: bool,
}

impl PictureCoding {
    /// Reads it; `None` when it breaks the syntax.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let r = &mut body(unit);
        r.skip(4 + 16 + 2)?;
        let structure = r.bits(2).filter(|&structure| structure != 0)? as u8;
        let top_field_first = r.flag()?;
        r.skip(5)?;
        let repeat_first_field = r.flag()?;
        Some(Self { structure, top_field_first, repeat_first_field })
    }

    /// Number of fields that a frame picture is shown for (§6.3.10).
    pub fn fields(&self, progressive_sequence: bool) -> u8 {
        match (self.repeat_first_field, progressive_sequence, self.top_field_first) {
            (false, _, _) => 2,
            (true, false, _) => 3,
            (true, true, false) => 4,
            (true, true, true) => 6,
        }
    }
}
