//! Access units: coded frames with the headers before them (H.222.0 §2.1.1, H.262 §6.1.1). Two field pictures that make
//! a frame are one access unit.

use super::headers::{
    DisplayExtension, EXTENSION, GROUP, PICTURE, PictureCoding, PictureHeader, SEQUENCE_END, SEQUENCE_HEADER, SLICES,
    Sequence, SequenceExtension, SequenceHeader, extension, parse_group,
};
use crate::codec::annexb::{Judgement, StartCodeFramer, Syntax};
use crate::media::{AccessUnitInfo, Format, PictureStructure, PictureType, RandomAccess, Timecode, TrackConfiguration};

/// Cuts an MPEG-2 video stream into access units: a frame each, also when coded as two field pictures.
pub type Mpeg2VideoFramer = StartCodeFramer<Mpeg2VideoSyntax>;

/// The start code's value and the picture header up to `picture_coding_type`.
const PICTURE_BYTES: usize = 3;
/// A sequence header with both matrices has 140 bytes, an extension with matrices fewer.
const HEADER_BYTES: usize = 160;
/// The most bytes of sequence header and extensions kept as configuration.
const CONFIGURATION_BYTES_MAX: usize = 1024;

/// The H.262 side of [`Mpeg2VideoFramer`].
#[derive(Default)]
pub struct Mpeg2VideoSyntax {
    sequence: Option<Sequence>,
    /// Sequence header and its extensions as they come in.
    sequence_bytes: Vec<u8>,
    /// The last sequence header has not become the configuration.
    sequence_changed: bool,
    configuration: TrackConfiguration,
    open: Open,
}

/// What is known of the open access unit.
#[derive(Default)]
struct Open {
    /// The first picture, which tells the type of both.
    picture: Option<PictureHeader>,
    coding: Option<PictureCoding>,
    /// Both field pictures are there.
    is_pair: bool,
    has_slices: bool,
    timecode: Option<Timecode>,
    damaged: bool,
    ended: bool,
}

/// A judged unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A picture header.
    Picture(Option<PictureHeader>),
    /// A slice of this row of macroblocks, counted from 1.
    Slice(u8),
    /// Sequence header, GOP header or extension.
    Header(u8),
    /// Sequence end.
    End,
    /// Anything that is passed on and not read.
    Other,
}

impl Syntax for Mpeg2VideoSyntax {
    type Unit = Unit;
    const ZERO_BYTE: bool = false;

    #[inline]
    fn wanted(&self, first: u8) -> usize {
        if first == PICTURE { PICTURE_BYTES } else { 1 }
    }

    fn judge(&self, unit: &[u8], complete: bool) -> Judgement<Unit> {
        match unit[0] {
            PICTURE => {
                if !complete {
                    return Judgement::Undecided;
                }
                let picture = PictureHeader::parse(unit);
                if self.open.picture.is_some() && !picture.is_some_and(|picture| self.completes_frame(&picture)) {
                    Judgement::Starts(Unit::Picture(picture))
                } else {
                    Judgement::Continues(Unit::Picture(picture))
                }
            }
            kind if SLICES.contains(&kind) => Judgement::Continues(Unit::Slice(kind)),
            kind @ (SEQUENCE_HEADER | GROUP) if self.open.picture.is_some() => Judgement::Starts(Unit::Header(kind)),
            kind @ (SEQUENCE_HEADER | GROUP | EXTENSION) => Judgement::Continues(Unit::Header(kind)),
            SEQUENCE_END => Judgement::Ends(Unit::End),
            _ => Judgement::Continues(Unit::Other),
        }
    }

    fn enter(&mut self, unit: Unit) -> usize {
        match unit {
            Unit::Picture(picture) => self.enter_picture(picture),
            Unit::Slice(row) => {
                if !self.open.has_slices {
                    self.open.has_slices = true;
                    // Every row has its slices (§6.1.2.2), so without the first row something is lost; and what has no
                    // picture header has lost it.
                    self.open.damaged |= row != 1 || self.open.picture.is_none();
                }
            }
            Unit::Header(_) => return HEADER_BYTES,
            Unit::End => self.open.ended = true,
            Unit::Other => {}
        }
        0
    }

    fn leave(&mut self, unit: &[u8], truncated: bool) {
        let read = match unit.first() {
            _ if truncated => None,
            Some(&SEQUENCE_HEADER) => SequenceHeader::parse(unit).map(|header| {
                self.sequence = Some(Sequence { header, extension: None, display: None });
                self.sequence_bytes.clear();
                self.keep(&unit[..header.len]);
            }),
            Some(&GROUP) => {
                self.open.timecode = parse_group(unit);
                Some(())
            }
            _ => self.leave_extension(unit),
        };
        self.open.damaged |= read.is_none();
    }

    fn damage(&mut self) {
        self.open.damaged = true;
    }

    fn finish(&mut self) -> AccessUnitInfo {
        let open = std::mem::take(&mut self.open);
        let is_progressive = self.sequence.and_then(|sequence| sequence.extension).is_some_and(|it| it.is_progressive);
        let (structure, fields) = match open.coding {
            _ if open.is_pair => (PictureStructure::Frame, 2),
            Some(PictureCoding { structure: 1, .. }) => (PictureStructure::TopField, 1),
            Some(PictureCoding { structure: 2, .. }) => (PictureStructure::BottomField, 1),
            Some(coding) => (PictureStructure::Frame, coding.fields(is_progressive)),
            None => (PictureStructure::Frame, 0),
        };
        let picture_type = open.picture.map_or(PictureType::Unknown, |picture| picture.picture_type);
        let is_entry = picture_type == PictureType::I && self.sequence.is_some();
        AccessUnitInfo {
            picture_type,
            picture_structure: structure,
            random_access: if is_entry { RandomAccess::Intra } else { RandomAccess::None },
            temporal_id: 0,
            samples: 0,
            fields,
            timecode: open.timecode,
            damaged: open.damaged,
            ends_sequence: open.ended,
        }
    }

    fn configuration(&self) -> &TrackConfiguration {
        &self.configuration
    }
}

impl Mpeg2VideoSyntax {
    /// A second field picture has the first one's `temporal_reference` (§6.3.9).
    fn completes_frame(&self, picture: &PictureHeader) -> bool {
        let is_first_field = self.open.coding.is_some_and(|coding| coding.structure != 3) && !self.open.is_pair;
        is_first_field && self.open.picture.is_some_and(|first| first.temporal_reference == picture.temporal_reference)
    }

    fn enter_picture(&mut self, picture: Option<PictureHeader>) {
        let Some(picture) = picture else {
            self.open.damaged = true;
            return;
        };
        if self.open.picture.is_some() {
            self.open.is_pair = true;
            self.open.has_slices = false;
            return;
        }
        self.open.picture = Some(picture);
        self.configure();
    }

    fn leave_extension(&mut self, unit: &[u8]) -> Option<()> {
        match unit.get(1)? >> 4 {
            extension::SEQUENCE => {
                let read = SequenceExtension::parse(unit)?;
                if let Some(sequence) = &mut self.sequence {
                    sequence.extension = Some(read);
                    self.keep(&unit[..read.len]);
                }
            }
            extension::SEQUENCE_DISPLAY => {
                let read = DisplayExtension::parse(unit)?;
                if let Some(sequence) = &mut self.sequence {
                    sequence.display = Some(read);
                    self.keep(&unit[..read.len]);
                }
            }
            extension::PICTURE_CODING => {
                let read = PictureCoding::parse(unit)?;
                self.open.coding.get_or_insert(read);
            }
            _ => {}
        }
        Some(())
    }

    fn keep(&mut self, unit: &[u8]) {
        if self.sequence_bytes.len() + unit.len() + 3 <= CONFIGURATION_BYTES_MAX {
            self.sequence_bytes.extend_from_slice(&[0, 0, 1]);
            self.sequence_bytes.extend_from_slice(unit);
            self.sequence_changed = true;
        }
    }

    /// The sequence's headers are complete when a picture comes.
    fn configure(&mut self) {
        let Some(sequence) = self.sequence.filter(|_| std::mem::take(&mut self.sequence_changed)) else { return };
        if self.sequence_bytes != self.configuration.bytes {
            self.configuration.generation += 1;
            self.configuration.bytes.clone_from(&self.sequence_bytes);
            self.configuration.format = Format::Video(sequence.format());
        }
    }
}
