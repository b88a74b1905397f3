//! Access units (H.265 §7.4.2.4.4) and what they say of themselves.

use super::nal::{self, NalHeader};
use super::parameters::{ParameterSets, ParsedSlice, SliceSegment, parse_slice};
use super::sei::{self, Message, PictureTiming};
use crate::codec::annexb::{CAPTURED_BYTES_MAX, Judgement, StartCodeFramer, Syntax};
use crate::codec::nal_syntax::{transfer_function, unescape};
use crate::media::{AccessUnitInfo, Format, PictureType, RandomAccess, Timecode, TrackConfiguration};

/// Cuts an HEVC byte stream into access units: a frame, or a field when `field_seq_flag` is set.
pub type HevcFramer = StartCodeFramer<HevcSyntax>;

/// The fields of a slice segment header that are read end before this many bytes, emulation prevention included.
const SLICE_HEADER_BYTES: usize = 24;
/// How much of an SEI unit is read: captions of any size may stand behind what is looked for.
const SEI_BYTES: usize = 1024;

/// The H.265 side of [`HevcFramer`].
#[derive(Default)]
pub struct HevcSyntax {
    /// The protocol tells where access units end: see [`HevcSyntax::cut_by_protocol`].
    is_cut_by_protocol: bool,
    sets: ParameterSets,
    /// A parameter set changed since the configuration was written.
    sets_changed: bool,
    active_sequence: Option<u8>,
    /// `preferred_transfer_characteristics` of the last random access point.
    preferred_transfer: Option<u8>,
    configuration: TrackConfiguration,
    /// Room to write the next configuration in, so that an unchanged one costs no allocation.
    scratch: Vec<u8>,
    open: Open,
}

/// What is known of the open access unit.
#[derive(Default)]
struct Open {
    has_slices: bool,
    segment: Option<SliceSegment>,
    has_i: bool,
    has_p: bool,
    has_b: bool,
    recovery: Option<u16>,
    timing_byte: Option<u8>,
    timing: PictureTiming,
    timecode: Option<Timecode>,
    alternative_transfer: Option<u8>,
    damaged: bool,
    ended: bool,
}

/// A judged NAL unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A slice segment of the base layer.
    Slice(SliceSegment),
    /// A slice segment whose header breaks the syntax.
    BrokenSlice,
    /// VPS, SPS or PPS of the base layer.
    ParameterSet,
    /// Prefix SEI of the base layer.
    Sei,
    /// End of sequence or of bitstream.
    End,
    /// No NAL unit: its header breaks the syntax.
    Broken,
    /// Anything that is passed on and not read.
    Other,
}

impl HevcSyntax {
    /// For RTP, whose time stamps tell where access units end. Units that may only stand at the beginning of one do not cut it
    /// then: GStreamer's `rtph264pay config-interval=-1` repeats the parameter sets before every slice of an IDR picture.
    pub fn cut_by_protocol() -> Self {
        Self { is_cut_by_protocol: true, ..Self::default() }
    }
}

impl Syntax for HevcSyntax {
    type Unit = Unit;
    const ZERO_BYTE: bool = true;

    #[inline]
    fn wanted(&self, first: u8) -> usize {
        if nal::unit_type(first) <= nal::VCL_LAST { SLICE_HEADER_BYTES } else { 2 }
    }

    fn judge(&self, unit: &[u8], complete: bool) -> Judgement<Unit> {
        let Some(header) = NalHeader::parse(unit) else {
            let short = unit.len() < 2 && !complete;
            return if short { Judgement::Undecided } else { Judgement::Continues(Unit::Broken) };
        };
        let starts_after_slices = |unit| {
            let after_slices = self.open.has_slices && !self.is_cut_by_protocol;
            if after_slices || self.open.ended { Judgement::Starts(unit) } else { Judgement::Continues(unit) }
        };
        match header.unit_type {
            nal::END_OF_SEQUENCE | nal::END_OF_BITSTREAM => Judgement::Continues(Unit::End),
            _ if self.open.ended && header.layer_id != 0 => Judgement::Starts(Unit::Other),
            // Extension layers follow the base layer's slices within its access unit.
            _ if header.layer_id != 0 => Judgement::Continues(Unit::Other),
            0..=9 | 16..=21 => match parse_slice(unit, header, &self.sets) {
                ParsedSlice::Short if !complete => Judgement::Undecided,
                ParsedSlice::Short | ParsedSlice::Broken if self.open.ended => Judgement::Starts(Unit::BrokenSlice),
                ParsedSlice::Short | ParsedSlice::Broken => Judgement::Continues(Unit::BrokenSlice),
                ParsedSlice::Header(segment) if self.starts_picture(&segment) => {
                    Judgement::Starts(Unit::Slice(segment))
                }
                ParsedSlice::Header(segment) => Judgement::Continues(Unit::Slice(segment)),
            },
            nal::VPS | nal::SPS | nal::PPS => starts_after_slices(Unit::ParameterSet),
            nal::PREFIX_SEI => starts_after_slices(Unit::Sei),
            nal::DELIMITER => starts_after_slices(Unit::Other),
            kind if nal::RESERVED_STARTING.contains(&kind) || nal::UNSPECIFIED_STARTING.contains(&kind) => {
                starts_after_slices(Unit::Other)
            }
            _ if self.open.ended => Judgement::Starts(Unit::Other),
            _ => Judgement::Continues(Unit::Other),
        }
    }

    fn enter(&mut self, unit: Unit) -> usize {
        match unit {
            Unit::Slice(segment) => self.enter_slice(segment),
            Unit::BrokenSlice => {
                self.open.has_slices = true;
                self.open.damaged = true;
            }
            Unit::End => self.open.ended = true,
            Unit::Broken => self.open.damaged = true,
            Unit::ParameterSet => return CAPTURED_BYTES_MAX,
            Unit::Sei => return SEI_BYTES,
            Unit::Other => {}
        }
        0
    }

    fn leave(&mut self, unit: &[u8], truncated: bool) {
        let stored = match unit.first().map(|&first| nal::unit_type(first)) {
            Some(nal::PREFIX_SEI) => return self.read_sei(unit),
            _ if truncated => return self.open.damaged = true,
            Some(nal::VPS) => self.sets.store_video(unit),
            Some(nal::SPS) => self.sets.store_sequence(unit),
            Some(nal::PPS) => self.sets.store_picture(unit),
            _ => return,
        };
        match stored {
            Ok(changed) => self.sets_changed |= changed,
            Err(_) => self.open.damaged = true,
        }
    }

    fn damage(&mut self) {
        self.open.damaged = true;
    }

    fn finish(&mut self) -> AccessUnitInfo {
        let open = std::mem::take(&mut self.open);
        let header = open.segment.map(|segment| segment.header);
        let random_access = match (header.map(|header| header.unit_type), open.recovery) {
            (Some(kind), _) if nal::IDR.contains(&kind) => RandomAccess::Idr,
            (Some(kind), _) if nal::BLA.contains(&kind) => RandomAccess::Bla,
            (Some(nal::CRA), _) => RandomAccess::Cra,
            (_, Some(frame_count)) => RandomAccess::RecoveryPoint { frame_count },
            _ => RandomAccess::None,
        };
        let picture_type = match random_access {
            _ if open.has_b => PictureType::B,
            _ if open.has_p => PictureType::P,
            // Slices of random access pictures are I slices even where their headers cannot be read.
            RandomAccess::Idr | RandomAccess::Cra | RandomAccess::Bla => PictureType::I,
            _ if open.has_i => PictureType::I,
            _ => PictureType::Unknown,
        };
        AccessUnitInfo {
            picture_type,
            picture_structure: open.timing.structure(),
            random_access,
            temporal_id: header.map_or(0, |header| header.temporal_id),
            samples: 0,
            fields: open.timing.fields(),
            timecode: open.timecode,
            damaged: open.damaged,
            ends_sequence: open.ended,
        }
    }

    fn configuration(&self) -> &TrackConfiguration {
        &self.configuration
    }
}

impl HevcSyntax {
    fn starts_picture(&self, segment: &SliceSegment) -> bool {
        if self.open.ended {
            return true;
        }
        let other_kind = self.open.segment.is_some_and(|before| before.header != segment.header);
        // All slices of a picture have the same type and temporal id (§7.4.2.2), so another one is of another picture
        // whose first segment was lost.
        self.open.has_slices && (segment.is_first || other_kind)
    }

    fn enter_slice(&mut self, segment: SliceSegment) {
        self.open.has_slices = true;
        match segment.picture_type {
            PictureType::B => self.open.has_b = true,
            PictureType::P => self.open.has_p = true,
            PictureType::I => self.open.has_i = true,
            PictureType::Unknown => {}
        }
        if self.open.segment.is_some() {
            return;
        }
        self.open.segment = Some(segment);
        // Without the first segment, slices before this one are lost.
        self.open.damaged |= !segment.is_first;
        let Some(id) = self.sets.picture(segment.picture_parameters).map(|pps| pps.sequence_id) else { return };
        let Some(sps) = self.sets.sequence(id) else { return };
        if let Some(byte) = self.open.timing_byte {
            self.open.timing = PictureTiming::parse(byte, sps);
        }
        let changed = self.active_sequence.replace(id) != Some(id);
        let mut transfer = self.preferred_transfer;
        if nal::IRAP.contains(&segment.header.unit_type) || self.open.recovery.is_some() {
            transfer = self.open.alternative_transfer;
        }
        if changed || self.sets_changed || transfer != self.preferred_transfer {
            self.sets_changed = false;
            self.preferred_transfer = transfer;
            self.configure(id);
        }
    }

    fn configure(&mut self, sequence_id: u8) {
        let mut format = self.sets.sequence(sequence_id).expect("it is active").format();
        if let Some(preferred) = self.preferred_transfer {
            format.transfer = transfer_function(preferred);
        }
        let format = Format::Video(format);
        self.scratch.clear();
        self.sets.write_annex_b(sequence_id, &mut self.scratch);
        if self.scratch != self.configuration.bytes || format != self.configuration.format {
            self.configuration.generation += 1;
            self.configuration.bytes.clone_from(&self.scratch);
            self.configuration.format = format;
        }
    }

    fn read_sei(&mut self, unit: &[u8]) {
        let mut buffer = [0; SEI_BYTES];
        let open = &mut self.open;
        sei::read_messages(unescape(unit.get(2..).unwrap_or_default(), &mut buffer), |message| match message {
            Message::PictureTiming(byte) => open.timing_byte = Some(byte),
            Message::RecoveryPoint { picture_count } => open.recovery = Some(picture_count),
            Message::TimeCode(timecode) => open.timecode = Some(timecode),
            Message::AlternativeTransfer(preferred) => open.alternative_transfer = Some(preferred),
        });
    }
}
