//! What is said about one frame, as a plain struct; and its Cap'n Proto form in the slot.
//!
//! The form is frozen (see `schema/headworks.capnp`): the struct pointer is the sixth word of the slot, the data words follow.

use capnp::message::{Reader, ReaderOptions, SegmentArray};
use thiserror::Error;

use crate::headworks_capnp::frame_descriptor;
pub use crate::headworks_capnp::{
    ClockOrigin, Discontinuity, PictureStructure, PictureType, RandomAccess, WallClock, WallClockQuality,
};
use crate::layout::{NONE, SLOT_HEAD_WORDS, SLOT_WORDS};

/// Bits of [`FrameDescriptor::damage_reasons`].
pub mod damage {
    /// Packets of this frame never came.
    pub const LOST_PACKETS: u32 = 1;
    /// transport_error_indicator or a corrupt packet.
    pub const TRANSPORT_ERROR: u32 = 1 << 1;
    /// A continuity counter or sequence number jumped.
    pub const CONTINUITY: u32 = 1 << 2;
    /// Closed by the time-out, not by its end.
    pub const TIME_OUT: u32 = 1 << 3;
    /// Cut at the largest frame size.
    pub const TRUNCATED: u32 = 1 << 4;
    /// The bytes contradict the codec's syntax.
    pub const SYNTAX: u32 = 1 << 5;
    /// Bytes that could not be decrypted or failed their check are missing.
    pub const ENCRYPTED: u32 = 1 << 6;
    /// Refused for want of room.
    pub const OVERLOAD: u32 = 1 << 7;
}

/// SMPTE ST 12-1 time code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Timecode {
    pub hours: u8,
    pub minutes: u8,
    pub seconds: u8,
    pub frames: u8,
    /// Drop-frame counting.
    pub drop_frame: bool,
}

/// One frame in words. `seq`, `key_seq`, `config_generation`, `crc32c` and the side data's place are the writer's to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameDescriptor {
    /// Number in the ring; filled by the writer.
    pub seq: u64,
    /// The random access point this frame depends on, [`NONE`] before the first of this writer; filled by the writer.
    pub key_seq: u64,
    /// Presentation time, ticks of the track's clock, unwrapped.
    pub pts: Option<i64>,
    /// Decoding time, ticks of the track's clock, unwrapped.
    pub dts: Option<i64>,
    /// Presentation on the programme's continuous timeline, ns.
    pub timeline_ns: i64,
    /// PCR (27 MHz) or RTP time stamp the times were derived from; see `origin_kind`.
    pub origin: u64,
    /// CLOCK_MONOTONIC of the first packet, ns.
    pub first_arrival_ns: u64,
    /// CLOCK_MONOTONIC of the last packet, ns.
    pub last_arrival_ns: u64,
    /// When the frame was due to leave the receive buffer, ns.
    pub due_ns: u64,
    /// When it was published, ns.
    pub commit_ns: u64,
    /// Nanoseconds since 1970, see `wall_clock`.
    pub wall_clock_ns: i64,
    /// Ticks of the track's clock; 0 unknown.
    pub duration: u32,
    /// Configuration block that decodes it, 0 none; filled by the writer.
    pub config_generation: u32,
    /// + 1 at restart, fail-over and time-base jump.
    pub segment: u32,
    /// Packets of this frame that never came.
    pub packets_lost: u32,
    /// Packets of this frame that came by retransmission, FEC or another path.
    pub packets_recovered: u32,
    /// Bit n: path n carried part of it.
    pub path_mask: u32,
    /// Why it is damaged: bits of [`damage`].
    pub damage_reasons: u32,
    /// Of the payload; filled by the writer when the ring has checksums.
    pub crc32c: Option<u32>,
    /// From the start of the frame, bytes; filled by the writer.
    pub side_data_offset: u32,
    /// Bytes; filled by the writer.
    pub side_data_length: u32,
    /// Why this frame does not continue the one before.
    pub discontinuity: Discontinuity,
    /// What `origin` is.
    pub origin_kind: ClockOrigin,
    /// What `wall_clock_ns` is.
    pub wall_clock: WallClock,
    /// Where `wall_clock_ns` came from.
    pub wall_clock_quality: WallClockQuality,
    /// I, P or B, when known.
    pub picture_type: PictureType,
    /// Frame or field.
    pub picture_structure: PictureStructure,
    /// Kind of random access point.
    pub random_access: RandomAccess,
    /// Frames until the picture is right (H.264 §D.2.8); for [`RandomAccess::RecoveryPoint`].
    pub recovery_count: u16,
    /// TemporalId (H.265 §7.4.2.2) or temporal_id (AV1).
    pub temporal_id: u8,
    /// Time code carried with the picture.
    pub timecode: Option<Timecode>,
    /// Bytes are missing or wrong.
    pub damaged: bool,
    /// A reader may start here.
    pub key: bool,
    /// `pts` was computed, not carried.
    pub pts_interpolated: bool,
    /// `dts` was computed, not carried.
    pub dts_derived: bool,
}

impl Default for FrameDescriptor {
    fn default() -> Self {
        Self {
            seq: 0,
            key_seq: NONE,
            pts: None,
            dts: None,
            timeline_ns: 0,
            origin: 0,
            first_arrival_ns: 0,
            last_arrival_ns: 0,
            due_ns: 0,
            commit_ns: 0,
            wall_clock_ns: 0,
            duration: 0,
            config_generation: 0,
            segment: 0,
            packets_lost: 0,
            packets_recovered: 0,
            path_mask: 0,
            damage_reasons: 0,
            crc32c: None,
            side_data_offset: 0,
            side_data_length: 0,
            discontinuity: Discontinuity::None,
            origin_kind: ClockOrigin::None,
            wall_clock: WallClock::None,
            wall_clock_quality: WallClockQuality::Unknown,
            picture_type: PictureType::Unknown,
            picture_structure: PictureStructure::Unknown,
            random_access: RandomAccess::None,
            recovery_count: 0,
            temporal_id: 0,
            timecode: None,
            damaged: false,
            key: false,
            pts_interpolated: false,
            dts_derived: false,
        }
    }
}

/// A descriptor that is no FrameDescriptor.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the slot holds no frame descriptor")]
pub struct DescriptorError;

/// A copy of one slot: head and descriptor.
pub(crate) type SlotImage = [u64; SLOT_WORDS];

const SEGMENT_WORDS: usize = SLOT_WORDS - SLOT_HEAD_WORDS;

/// 64-bit words of the struct's data section.
const DATA_WORDS: usize = 19;
/// To a struct that begins with the next word and has no pointers.
const POINTER: u64 = (DATA_WORDS as u64) << 32;

impl FrameDescriptor {
    /// Writes the Cap'n Proto form behind the head of a slot image.
    ///
    /// Whole words, not Cap'n Proto's builder: that stores fields of 1, 2 and 4 bytes, and a processor that loads a word just stored
    /// in pieces waits until all stores before it have left for the caches, the frame's payload among them. Half a
    /// commit was that wait. The tests hold each bit against the builder's.
    #[inline]
    pub(crate) fn encode(&self, slot: &mut SlotImage) {
        let halves = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let quarters = |parts: [u16; 4]| parts.iter().rev().fold(0, |word, &part| word << 16 | u64::from(part));
        let timecode = self.timecode.unwrap_or_default();
        let flags = [
            self.pts.is_some(),
            self.dts.is_some(),
            self.crc32c.is_some(),
            self.timecode.is_some(),
            timecode.drop_frame,
            self.damaged,
            self.key,
            self.pts_interpolated,
            self.dts_derived,
        ];
        let flags = flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u64::from(flag));
        let bytes = [timecode.hours, timecode.minutes, timecode.seconds, timecode.frames, self.temporal_id, 0, 0, 0];
        let (pointer, data) = slot[SLOT_HEAD_WORDS..].split_first_mut().expect("a slot is longer than its head");
        *pointer = POINTER;
        let (data, rest) = data.split_at_mut(DATA_WORDS);
        data.copy_from_slice(&[
            self.seq,
            self.key_seq,
            self.pts.unwrap_or(0).cast_unsigned(),
            self.dts.unwrap_or(0).cast_unsigned(),
            self.timeline_ns.cast_unsigned(),
            self.origin,
            self.first_arrival_ns,
            self.last_arrival_ns,
            self.due_ns,
            self.commit_ns,
            self.wall_clock_ns.cast_unsigned(),
            halves(self.duration, self.config_generation),
            halves(self.segment, self.packets_lost),
            halves(self.packets_recovered, self.path_mask),
            halves(self.damage_reasons, self.crc32c.unwrap_or(0)),
            halves(self.side_data_offset, self.side_data_length),
            quarters([
                self.discontinuity as u16,
                self.origin_kind as u16,
                self.wall_clock as u16,
                self.wall_clock_quality as u16,
            ]),
            quarters([
                self.picture_type as u16,
                self.picture_structure as u16,
                self.random_access as u16,
                self.recovery_count,
            ]),
            u64::from_le_bytes(bytes) | flags << 40,
        ]);
        rest.fill(0);
    }

    /// Reads the Cap'n Proto form from a *copy* of a slot. An enumerator of a later version reads as "unknown" or "none"; an
    /// unknown cause of a discontinuity still is one ([`Discontinuity::Signalled`]).
    ///
    /// # Errors
    /// [`DescriptorError`] if the struct pointer is none.
    #[inline]
    pub(crate) fn decode(slot: &SlotImage) -> Result<Self, DescriptorError> {
        // As every writer of this version has it; what another one makes is for Cap'n Proto's own reader.
        match slot[SLOT_HEAD_WORDS..].split_first() {
            Some((&POINTER, words)) => Ok(Self::from_words(words.first_chunk().expect("a slot is longer than that"))),
            _ => Self::decode_any(slot),
        }
    }

    /// The same as [`FrameDescriptor::decode_any`], by whole words, in half the time.
    #[inline]
    fn from_words(words: &[u64; DATA_WORDS]) -> Self {
        let low = |word: usize| words[word] as u32;
        let high = |word: usize| (words[word] >> 32) as u32;
        let quarter = |word: usize, place: u32| (words[word] >> (16 * place)) as u16;
        let [hours, minutes, seconds, frames, temporal_id, flags, more_flags, _] = words[18].to_le_bytes();
        let flag = |bit: u32| u16::from_le_bytes([flags, more_flags]) >> bit & 1 != 0;
        Self {
            seq: words[0],
            key_seq: words[1],
            pts: flag(0).then_some(words[2].cast_signed()),
            dts: flag(1).then_some(words[3].cast_signed()),
            timeline_ns: words[4].cast_signed(),
            origin: words[5],
            first_arrival_ns: words[6],
            last_arrival_ns: words[7],
            due_ns: words[8],
            commit_ns: words[9],
            wall_clock_ns: words[10].cast_signed(),
            duration: low(11),
            config_generation: high(11),
            segment: low(12),
            packets_lost: high(12),
            packets_recovered: low(13),
            path_mask: high(13),
            damage_reasons: low(14),
            crc32c: flag(2).then_some(high(14)),
            side_data_offset: low(15),
            side_data_length: high(15),
            discontinuity: quarter(16, 0).try_into().unwrap_or(Discontinuity::Signalled),
            origin_kind: quarter(16, 1).try_into().unwrap_or(ClockOrigin::None),
            wall_clock: quarter(16, 2).try_into().unwrap_or(WallClock::None),
            wall_clock_quality: quarter(16, 3).try_into().unwrap_or(WallClockQuality::Unknown),
            picture_type: quarter(17, 0).try_into().unwrap_or(PictureType::Unknown),
            picture_structure: quarter(17, 1).try_into().unwrap_or(PictureStructure::Unknown),
            random_access: quarter(17, 2).try_into().unwrap_or(RandomAccess::None),
            recovery_count: quarter(17, 3),
            temporal_id,
            timecode: flag(3).then(|| Timecode { hours, minutes, seconds, frames, drop_frame: flag(4) }),
            damaged: flag(5),
            key: flag(6),
            pts_interpolated: flag(7),
            dts_derived: flag(8),
        }
    }

    /// By Cap'n Proto's reader.
    fn decode_any(slot: &SlotImage) -> Result<Self, DescriptorError> {
        let words: &[u64; SEGMENT_WORDS] = slot[SLOT_HEAD_WORDS..].try_into().expect("the length is a constant");
        // SAFETY: u64 words seen as their bytes: same memory, same length, no invalid value, private to this process.
        let bytes = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), SEGMENT_WORDS * 8) };
        let segments = [bytes];
        let message = Reader::new(SegmentArray::new(&segments), ReaderOptions::new());
        let d = message.get_root::<frame_descriptor::Reader<'_>>().map_err(|_| DescriptorError)?;
        Ok(Self {
            seq: d.get_seq(),
            key_seq: d.get_key_seq(),
            pts: d.get_has_pts().then(|| d.get_pts()),
            dts: d.get_has_dts().then(|| d.get_dts()),
            timeline_ns: d.get_timeline_ns(),
            origin: d.get_origin(),
            first_arrival_ns: d.get_first_arrival_ns(),
            last_arrival_ns: d.get_last_arrival_ns(),
            due_ns: d.get_due_ns(),
            commit_ns: d.get_commit_ns(),
            wall_clock_ns: d.get_wall_clock_ns(),
            duration: d.get_duration(),
            config_generation: d.get_config_generation(),
            segment: d.get_segment(),
            packets_lost: d.get_packets_lost(),
            packets_recovered: d.get_packets_recovered(),
            path_mask: d.get_path_mask(),
            damage_reasons: d.get_damage_reasons(),
            crc32c: d.get_has_crc().then(|| d.get_crc32c()),
            side_data_offset: d.get_side_data_offset(),
            side_data_length: d.get_side_data_length(),
            discontinuity: d.get_discontinuity().unwrap_or(Discontinuity::Signalled),
            origin_kind: d.get_origin_kind().unwrap_or(ClockOrigin::None),
            wall_clock: d.get_wall_clock().unwrap_or(WallClock::None),
            wall_clock_quality: d.get_wall_clock_quality().unwrap_or(WallClockQuality::Unknown),
            picture_type: d.get_picture_type().unwrap_or(PictureType::Unknown),
            picture_structure: d.get_picture_structure().unwrap_or(PictureStructure::Unknown),
            random_access: d.get_random_access().unwrap_or(RandomAccess::None),
            recovery_count: d.get_recovery_count(),
            temporal_id: d.get_temporal_id(),
            timecode: d.get_has_timecode().then(|| Timecode {
                hours: d.get_timecode_hours(),
                minutes: d.get_timecode_minutes(),
                seconds: d.get_timecode_seconds(),
                frames: d.get_timecode_frames(),
                drop_frame: d.get_timecode_drop_frame(),
            }),
            damaged: d.get_damaged(),
            key: d.get_key(),
            pts_interpolated: d.get_pts_interpolated(),
            dts_derived: d.get_dts_derived(),
        })
    }
}

#[cfg(test)]
pub(crate) fn example() -> FrameDescriptor {
    FrameDescriptor {
        seq: 7,
        key_seq: 5,
        pts: Some(-90_000),
        dts: Some(0x0102_0304_0506_0708),
        timeline_ns: 1_000_000_007,
        origin: 27_000_000,
        first_arrival_ns: 11,
        last_arrival_ns: 12,
        due_ns: 13,
        commit_ns: 14,
        wall_clock_ns: 1_700_000_000_000_000_000,
        duration: 3600,
        config_generation: 2,
        segment: 3,
        packets_lost: 4,
        packets_recovered: 5,
        path_mask: 3,
        damage_reasons: damage::LOST_PACKETS | damage::TIME_OUT,
        crc32c: Some(0xDEAD_BEEF),
        side_data_offset: 192,
        side_data_length: 16,
        discontinuity: Discontinuity::TimeBaseJump,
        origin_kind: ClockOrigin::Pcr,
        wall_clock: WallClock::Tai,
        wall_clock_quality: WallClockQuality::Ptp,
        picture_type: PictureType::I,
        picture_structure: PictureStructure::BottomSecond,
        random_access: RandomAccess::RecoveryPoint,
        recovery_count: 25,
        temporal_id: 1,
        timecode: Some(Timecode { hours: 10, minutes: 59, seconds: 58, frames: 24, drop_frame: true }),
        damaged: true,
        key: true,
        pts_interpolated: true,
        dts_derived: true,
    }
}

#[cfg(test)]
mod tests {
    use capnp::message::{Builder, SingleSegmentAllocator};

    use super::*;

    /// The builder's words, the struct pointer first.
    fn built(d: &FrameDescriptor) -> Vec<u64> {
        #[repr(align(8))]
        struct Aligned([u8; SLOT_WORDS * 8]);
        let mut segment = Aligned([0; SLOT_WORDS * 8]);
        let mut message = Builder::new(SingleSegmentAllocator::new(&mut segment.0));
        let mut b = message.init_root::<frame_descriptor::Builder<'_>>();
        b.set_seq(d.seq);
        b.set_key_seq(d.key_seq);
        b.set_pts(d.pts.unwrap_or(0));
        b.set_has_pts(d.pts.is_some());
        b.set_dts(d.dts.unwrap_or(0));
        b.set_has_dts(d.dts.is_some());
        b.set_timeline_ns(d.timeline_ns);
        b.set_origin(d.origin);
        b.set_first_arrival_ns(d.first_arrival_ns);
        b.set_last_arrival_ns(d.last_arrival_ns);
        b.set_due_ns(d.due_ns);
        b.set_commit_ns(d.commit_ns);
        b.set_wall_clock_ns(d.wall_clock_ns);
        b.set_duration(d.duration);
        b.set_config_generation(d.config_generation);
        b.set_segment(d.segment);
        b.set_packets_lost(d.packets_lost);
        b.set_packets_recovered(d.packets_recovered);
        b.set_path_mask(d.path_mask);
        b.set_damage_reasons(d.damage_reasons);
        b.set_crc32c(d.crc32c.unwrap_or(0));
        b.set_has_crc(d.crc32c.is_some());
        b.set_side_data_offset(d.side_data_offset);
        b.set_side_data_length(d.side_data_length);
        b.set_discontinuity(d.discontinuity);
        b.set_origin_kind(d.origin_kind);
        b.set_wall_clock(d.wall_clock);
        b.set_wall_clock_quality(d.wall_clock_quality);
        b.set_picture_type(d.picture_type);
        b.set_picture_structure(d.picture_structure);
        b.set_random_access(d.random_access);
        b.set_recovery_count(d.recovery_count);
        if let Some(timecode) = d.timecode {
            b.set_has_timecode(true);
            b.set_timecode_hours(timecode.hours);
            b.set_timecode_minutes(timecode.minutes);
            b.set_timecode_seconds(timecode.seconds);
            b.set_timecode_frames(timecode.frames);
            b.set_timecode_drop_frame(timecode.drop_frame);
        }
        b.set_temporal_id(d.temporal_id);
        b.set_damaged(d.damaged);
        b.set_key(d.key);
        b.set_pts_interpolated(d.pts_interpolated);
        b.set_dts_derived(d.dts_derived);
        let segments = message.get_segments_for_output();
        segments[0].as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }

    #[test]
    fn the_in_slot_form_is_what_the_builder_makes() {
        let single = |change: fn(&mut FrameDescriptor)| {
            let mut descriptor = FrameDescriptor::default();
            change(&mut descriptor);
            descriptor
        };
        for descriptor in [
            FrameDescriptor::default(),
            example(),
            single(|d| d.pts = Some(i64::MIN)),
            single(|d| d.dts = Some(i64::MAX)),
            single(|d| d.crc32c = Some(0)),
            single(|d| d.timecode = Some(Timecode { drop_frame: true, ..Timecode::default() })),
            single(|d| d.timecode = Some(Timecode { hours: 23, ..Timecode::default() })),
            single(|d| d.damaged = true),
            single(|d| d.key = true),
            single(|d| d.pts_interpolated = true),
            single(|d| d.dts_derived = true),
            single(|d| d.temporal_id = u8::MAX),
            single(|d| d.recovery_count = u16::MAX),
            single(|d| d.path_mask = u32::MAX),
            single(|d| d.side_data_length = u32::MAX),
        ] {
            let mut slot = [u64::MAX; SLOT_WORDS];
            descriptor.encode(&mut slot);
            let built = built(&descriptor);
            assert_eq!(slot[SLOT_HEAD_WORDS..][..built.len()], built, "{descriptor:?}");
            assert!(slot[SLOT_HEAD_WORDS + built.len()..].iter().all(|&word| word == 0));
        }
    }

    #[test]
    fn every_field_comes_back() {
        let mut slot = [0xFFFF_FFFF_FFFF_FFFF; SLOT_WORDS];
        example().encode(&mut slot);
        assert_eq!(slot[..SLOT_HEAD_WORDS], [u64::MAX; SLOT_HEAD_WORDS]);
        assert_eq!(FrameDescriptor::decode(&slot), Ok(example()));
        FrameDescriptor::default().encode(&mut slot);
        assert_eq!(FrameDescriptor::decode(&slot), Ok(FrameDescriptor::default()));
    }

    #[test]
    fn the_in_slot_form_is_frozen() {
        let mut slot = [0; SLOT_WORDS];
        example().encode(&mut slot);
        let bytes: Vec<u8> = slot.iter().flat_map(|w| w.to_le_bytes()).collect();
        // Struct pointer: kind 0, offset 0, 19 data words, no pointers.
        assert_eq!(bytes[40..48], [0, 0, 0, 0, 19, 0, 0, 0]);
        let data = &bytes[48..];
        assert_eq!(data[0..8], 7u64.to_le_bytes());
        assert_eq!(data[16..24], (-90_000i64).to_le_bytes());
        assert_eq!(data[88..92], 3600u32.to_le_bytes());
        assert_eq!(data[116..120], 0xDEAD_BEEFu32.to_le_bytes());
        assert_eq!(data[128..130], 4u16.to_le_bytes());
        assert_eq!(data[142..152], [25, 0, 10, 59, 58, 24, 1, 0xFF, 1, 0]);
        assert!(data[152..].iter().all(|&b| b == 0));
    }

    #[test]
    fn whole_words_are_read_as_by_the_general_reader() {
        // Miri is slow.
        let rounds = if cfg!(miri) { 8 } else { 2_000 };
        let mut word = 1_u64;
        for round in 0..rounds {
            let mut slot = [0; SLOT_WORDS];
            slot[SLOT_HEAD_WORDS] = POINTER;
            for place in &mut slot[SLOT_HEAD_WORDS + 1..][..DATA_WORDS] {
                // xorshift64: every bit comes and goes.
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                *place = word;
            }
            // Half of them with enumerators that there are.
            if round % 2 == 0 {
                for enumerators in [16, 17] {
                    slot[SLOT_HEAD_WORDS + 1 + enumerators] &= 0xffff_0003_0003_0003;
                }
            }
            assert_eq!(FrameDescriptor::decode(&slot), FrameDescriptor::decode_any(&slot));
        }
    }

    #[test]
    fn what_is_no_struct_is_refused() {
        let mut slot = [0; SLOT_WORDS];
        slot[SLOT_HEAD_WORDS] = u64::MAX;
        assert_eq!(FrameDescriptor::decode(&slot), Err(DescriptorError));
    }
}
