//! Access units (H.264 §7.4.1.2.3) and what they say of themselves.

use arrayvec::ArrayVec;

use super::nal::{self, NalHeader};
use super::parameters::ParameterSets;
use super::sei::{self, Message, PICTURE_TIMING_BYTES_MAX, PictureTiming};
use super::slice::{self, ParsedSlice, PictureFields, SliceHeader};
use crate::codec::annexb::{CAPTURED_BYTES_MAX, Judgement, StartCodeFramer, Syntax};
use crate::codec::nal_syntax::{transfer_function, unescape};
use crate::media::{AccessUnitInfo, Format, PictureStructure, PictureType, RandomAccess, Scan, TrackConfiguration};

/// Cuts an H.264 byte stream into access units: a frame, or a single field in field-coded pictures.
pub type H264Framer = StartCodeFramer<H264Syntax>;

/// The fields of a slice header that are read end before this many bytes, emulation prevention included.
const SLICE_HEADER_BYTES: usize = 48;
/// How much of an SEI unit is read: captions of any size may stand behind what is looked for.
const SEI_BYTES: usize = 1024;

/// The H.264 side of [`H264Framer`].
#[derive(Default)]
pub struct H264Syntax {
    /// The protocol tells where access units end: see [`H264Syntax::cut_by_protocol`].
    is_cut_by_protocol: bool,
    sets: ParameterSets,
    /// A parameter set changed since the configuration was written.
    sets_changed: bool,
    active_sequence: Option<u8>,
    /// What the last random access point told beyond its SPS.
    hints: Hints,
    configuration: TrackConfiguration,
    /// Room to write the next configuration in, so that an unchanged one costs no allocation.
    scratch: Vec<u8>,
    /// The field before this access unit, when it may be the first of a pair.
    first_field: Option<FirstField>,
    open: Open,
}

/// What is known of the open access unit.
#[derive(Default)]
struct Open {
    has_slices: bool,
    /// The primary slice that the next one is compared with.
    slice: Option<SliceHeader>,
    /// Bit n: the first macroblock of colour plane n has been seen.
    first_macroblocks: u8,
    has_p: bool,
    has_b: bool,
    structure: PictureStructure,
    recovery: Option<u16>,
    timing_bytes: ArrayVec<u8, PICTURE_TIMING_BYTES_MAX>,
    timing: PictureTiming,
    alternative_transfer: Option<u8>,
    temporal_id: u8,
    damaged: bool,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct FirstField {
    is_bottom: bool,
    frame_num: u16,
    is_reference: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hints {
    /// The frames are shown as two fields although they are coded without them.
    interlaced: bool,
    /// `preferred_transfer_characteristics`.
    transfer: Option<u8>,
}

/// A judged NAL unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A slice or its data partition A.
    Slice(SliceHeader),
    /// A slice whose header breaks the syntax.
    BrokenSlice,
    /// SPS or PPS.
    ParameterSet,
    /// SEI.
    Sei,
    /// Prefix NAL unit with the `temporal_id` it gives the next slice.
    Prefix(u8),
    /// End of sequence or of stream.
    End,
    /// No NAL unit: the `forbidden_zero_bit` is set.
    Broken,
    /// Anything that is passed on and not read.
    Other,
}

impl H264Syntax {
    /// For RTP, whose time stamps tell where access units end. Units that may only stand at the beginning of one do not cut it
    /// then: GStreamer's `rtph264pay config-interval=-1` repeats the parameter sets before every slice of an IDR picture.
    pub fn cut_by_protocol() -> Self {
        Self { is_cut_by_protocol: true, ..Self::default() }
    }
}

impl Syntax for H264Syntax {
    type Unit = Unit;
    const ZERO_BYTE: bool = true;

    #[inline]
    fn wanted(&self, first: u8) -> usize {
        match first & 0x1f {
            nal::SLICE | nal::PARTITION_A | nal::IDR_SLICE => SLICE_HEADER_BYTES,
            // As many as of a slice, because it may be deferred. It is shorter itself (§7.3.2.12.1).
            nal::PREFIX => SLICE_HEADER_BYTES,
            _ => 1,
        }
    }

    fn judge(&self, unit: &[u8], complete: bool) -> Judgement<Unit> {
        let Some(header) = NalHeader::parse(unit[0]) else {
            return Judgement::Continues(Unit::Broken);
        };
        let starts_after_slices = |unit| {
            let after_slices = self.open.has_slices && !self.is_cut_by_protocol;
            if after_slices || self.open.ended { Judgement::Starts(unit) } else { Judgement::Continues(unit) }
        };
        match header.unit_type {
            nal::SLICE | nal::PARTITION_A | nal::IDR_SLICE => match slice::parse(unit, &self.sets) {
                ParsedSlice::Short if !complete => Judgement::Undecided,
                ParsedSlice::Short | ParsedSlice::Broken if self.open.ended => Judgement::Starts(Unit::BrokenSlice),
                ParsedSlice::Short | ParsedSlice::Broken => Judgement::Continues(Unit::BrokenSlice),
                ParsedSlice::Header(slice) if self.starts_picture(&slice) => Judgement::Starts(Unit::Slice(slice)),
                ParsedSlice::Header(slice) => Judgement::Continues(Unit::Slice(slice)),
            },
            nal::SPS | nal::PPS => starts_after_slices(Unit::ParameterSet),
            nal::SEI => starts_after_slices(Unit::Sei),
            nal::PREFIX => self.judge_prefix(unit, complete),
            nal::DELIMITER | nal::SUBSET_SPS..=nal::RESERVED_STARTING_LAST => starts_after_slices(Unit::Other),
            nal::END_OF_SEQUENCE | nal::END_OF_STREAM => Judgement::Continues(Unit::End),
            _ if self.open.ended => Judgement::Starts(Unit::Other),
            _ => Judgement::Continues(Unit::Other),
        }
    }

    fn enter(&mut self, unit: Unit) -> usize {
        match unit {
            Unit::Slice(slice) => self.enter_slice(slice),
            Unit::BrokenSlice => {
                self.open.has_slices = true;
                self.open.damaged = true;
            }
            Unit::Prefix(temporal_id) => self.open.temporal_id = temporal_id,
            Unit::End => self.open.ended = true,
            Unit::Broken => self.open.damaged = true,
            Unit::ParameterSet => return CAPTURED_BYTES_MAX,
            Unit::Sei => return SEI_BYTES,
            Unit::Other => {}
        }
        0
    }

    fn leave(&mut self, unit: &[u8], truncated: bool) {
        let stored = match unit.first().map(|first| first & 0x1f) {
            Some(nal::SEI) => return self.read_sei(unit),
            _ if truncated => return self.open.damaged = true,
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
        let random_access = match (open.slice, open.recovery) {
            (Some(SliceHeader { is_idr: true, .. }), _) => RandomAccess::Idr,
            (_, Some(frame_count)) => RandomAccess::RecoveryPoint { frame_count },
            _ => RandomAccess::None,
        };
        let picture_type = match open.slice {
            _ if open.has_b => PictureType::B,
            _ if open.has_p => PictureType::P,
            Some(_) => PictureType::I,
            None => PictureType::Unknown,
        };
        AccessUnitInfo {
            picture_type,
            picture_structure: open.structure,
            random_access,
            temporal_id: open.temporal_id,
            samples: 0,
            fields: open.timing.fields(),
            timecode: open.timing.timecode,
            damaged: open.damaged,
            ends_sequence: open.ended,
        }
    }

    fn configuration(&self) -> &TrackConfiguration {
        &self.configuration
    }
}

impl H264Syntax {
    fn starts_picture(&self, slice: &SliceHeader) -> bool {
        if self.open.ended {
            return true;
        }
        if !self.open.has_slices || slice.is_redundant() {
            return false;
        }
        // A picture has its first macroblock once. Encoders that never count frame_num or picture order are forgiven so.
        let repeats = slice.first_macroblock == 0 && self.open.first_macroblocks & colour_plane_bit(slice) != 0;
        match &self.open.slice {
            Some(before) => repeats || slice.starts_picture_after(before),
            None => slice.first_macroblock == 0,
        }
    }

    /// Prefix NAL units stand before each slice of a picture, not only the first: the slice tells.
    fn judge_prefix(&self, unit: &[u8], complete: bool) -> Judgement<Unit> {
        let temporal_id = match unit {
            [_, flags, _, third, ..] if flags & 0x80 != 0 => third >> 5,
            [_, _, _, _, ..] => 0,
            _ if !complete => return Judgement::Undecided,
            _ => 0,
        };
        if self.open.ended {
            Judgement::Starts(Unit::Prefix(temporal_id))
        } else if self.open.has_slices && !self.is_cut_by_protocol {
            Judgement::Deferred(Unit::Prefix(temporal_id))
        } else {
            Judgement::Continues(Unit::Prefix(temporal_id))
        }
    }

    fn enter_slice(&mut self, slice: SliceHeader) {
        self.open.has_slices = true;
        match slice.picture_type {
            PictureType::B => self.open.has_b = true,
            PictureType::P => self.open.has_p = true,
            PictureType::I | PictureType::Unknown => {}
        }
        if slice.is_redundant() {
            return;
        }
        if slice.first_macroblock == 0 {
            self.open.first_macroblocks |= colour_plane_bit(&slice);
        }
        if self.open.slice.replace(slice).is_some() {
            return;
        }
        if let Some(picture) = &slice.picture {
            self.enter_picture(&slice, picture);
        }
        let any_order = self.active().is_some_and(|sps| sps.allows_arbitrary_slice_order());
        if slice.first_macroblock != 0 && !any_order {
            // The slices before it are lost.
            self.open.damaged = true;
        }
    }

    fn enter_picture(&mut self, slice: &SliceHeader, picture: &PictureFields) {
        let id = picture.sequence_parameters;
        let changed = self.active_sequence != Some(id);
        self.active_sequence = Some(id);
        let sps = self.sets.sequence(id).expect("the slice was read with it");
        let frame_mbs_only = sps.frame_mbs_only;
        if !self.open.timing_bytes.is_empty() {
            self.open.timing = PictureTiming::parse(&self.open.timing_bytes, &sps.vui);
        }
        self.open.structure = self.pair_fields(slice, picture);
        let mut hints = self.hints;
        if slice.is_idr || self.open.recovery.is_some() {
            hints.interlaced = frame_mbs_only && matches!(self.open.timing.pic_struct, Some(3 | 4));
            hints.transfer = self.open.alternative_transfer;
        }
        if changed || self.sets_changed || hints != self.hints {
            self.sets_changed = false;
            self.hints = hints;
            self.configure(id);
        }
    }

    /// Two fields make a frame when they follow each other, differ in parity and share `frame_num` (§3.30, §3.31); a
    /// reference field completes only a reference field.
    fn pair_fields(&mut self, slice: &SliceHeader, picture: &PictureFields) -> PictureStructure {
        let before = self.first_field.take();
        if !picture.is_field {
            return PictureStructure::Frame;
        }
        let is_second = before.is_some_and(|first| {
            first.is_bottom != picture.is_bottom
                && first.frame_num == picture.frame_num
                && (first.is_reference || !slice.is_reference)
                && !slice.is_idr
        });
        if !is_second {
            self.first_field = Some(FirstField {
                is_bottom: picture.is_bottom,
                frame_num: picture.frame_num,
                is_reference: slice.is_reference,
            });
        }
        match (picture.is_bottom, is_second) {
            (false, false) => PictureStructure::TopField,
            (true, false) => PictureStructure::BottomField,
            (false, true) => PictureStructure::SecondTopField,
            (true, true) => PictureStructure::SecondBottomField,
        }
    }

    fn configure(&mut self, sequence_id: u8) {
        let sps = self.sets.sequence(sequence_id).expect("it is active");
        let mut format = sps.format();
        if self.hints.interlaced {
            format.scan = Scan::Interlaced;
        }
        if let Some(preferred) = self.hints.transfer {
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

    fn active(&self) -> Option<&super::parameters::SequenceParameters> {
        self.sets.sequence(self.active_sequence?)
    }

    fn read_sei(&mut self, unit: &[u8]) {
        let mut buffer = [0; SEI_BYTES];
        let open = &mut self.open;
        sei::read_messages(unescape(&unit[1..], &mut buffer), |message| match message {
            Message::PictureTiming(body) => {
                let len = body.len().min(PICTURE_TIMING_BYTES_MAX);
                open.timing_bytes.clear();
                open.timing_bytes.extend(body[..len].iter().copied());
            }
            Message::RecoveryPoint { frame_count } => open.recovery = Some(frame_count),
            Message::AlternativeTransfer(preferred) => open.alternative_transfer = Some(preferred),
        });
    }
}

fn colour_plane_bit(slice: &SliceHeader) -> u8 {
    1 << slice.picture.map_or(0, |picture| picture.colour_plane)
}
