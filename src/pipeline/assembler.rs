//! Makes the frames of one track: joins a framer's access units with their time stamps, arrivals and damage, and writes
//! them into the track's sink in place.

use std::collections::VecDeque;
use std::time::Duration;

use super::frame::{Damage, DiscontinuityCause, Frame, FrameSink, Origin};
use super::timeline::Timeline;
use crate::base::{Instant, prefetch};
use crate::codec::dts::DecodeTimeEstimator;
use crate::codec::{Framer, Step};
use crate::media::{AccessUnitInfo, Format, PictureStructure, PictureType, TrackConfiguration};

/// Time stamps that wait for their access unit. Only a hostile stream has more of them than access units.
const MARKS_MAX: usize = 64;
/// PES packets that must have held exactly one access unit before the end of one is believed to end the access unit.
const ALIGNED_AFTER: u32 = 3;
/// The same for the weaker sign, stuffing at the end of a PES packet without a length.
const STUFFING_BELIEVED_AFTER: u32 = 250;

/// How and when the bytes now handed in came here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carriage {
    /// Kernel arrival of their datagram.
    pub arrival: Instant,
    /// When they were due.
    pub due: Instant,
    /// They were lost at first.
    pub recovered: bool,
    /// Bit n: came by path n.
    pub path_mask: u8,
    /// What the source's clock showed.
    pub origin: Origin,
}

impl Carriage {
    /// When they could be used: when they were due, or when they came if that was later.
    fn usable_at(&self) -> Instant {
        self.due.max(self.arrival)
    }
}

/// Where the decoding time comes from when the stream carries none.
#[derive(Debug)]
pub enum DecodeTime {
    /// An absent DTS equals the PTS (H.222.0 §2.4.3.7).
    Presentation,
    /// RTP has none: it is derived from the order of the presentation times.
    Derived(Box<DecodeTimeEstimator>),
}

impl DecodeTime {
    /// Whether decoding times are what they seem, and not a first guess.
    fn is_known(&self) -> bool {
        match self {
            Self::Presentation => true,
            Self::Derived(estimator) => estimator.is_known(),
        }
    }

    /// Decoding times after a gap until all that it swallowed shows in them.
    fn settles_after(&self) -> usize {
        match self {
            Self::Presentation => 1,
            // A derived one is a presentation time so many places back.
            Self::Derived(estimator) => 2 * estimator.reorder_depth() + 1,
        }
    }
}

/// What became of a track's frames, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackStatistics {
    /// Frames published.
    pub frames: u64,
    /// Payload bytes published.
    pub bytes: u64,
    /// Frames published that can start decoding.
    pub keyframes: u64,
    /// GOPs begun: key frames, of which the second field of a picture begins none. Counts up as the index of the newest GOP.
    pub gops: u64,
    /// Frames published in GOPs that are over. What came before the first key frame is in no GOP.
    pub gop_frames: u64,
    /// Frames published in the newest GOP.
    pub gop_open_frames: u64,
    /// Intra pictures.
    pub i_pictures: u64,
    /// Pictures predicted from one list.
    pub p_pictures: u64,
    /// Pictures predicted from two lists.
    pub b_pictures: u64,
    /// Frames published with a damage mark.
    pub damaged: u64,
    /// Whole frames missing, judged by the decoding times after a loss, which are told in steps as long as a frame.
    ///
    /// Not among them, because nothing tells of them: frames before the first that came and after the last; where decoding
    /// times are derived (RTP) and lag behind, those that are shown before all that came or after nearly all; frames of a format that tells no duration while
    /// no two have come that follow each other; and frames beside a break of the time line.
    pub lost: u64,
    /// Frames given up because they passed the size limit.
    pub too_large: u64,
    /// Frames closed because nothing more came.
    pub timed_out: u64,
    /// Frames that do not follow from the one before.
    pub discontinuities: u64,
    /// Bytes that belong to no frame.
    pub skipped_bytes: u64,
    /// Time stamps without a place to keep them.
    pub marks_dropped: u64,
    /// Decoding time of the newest frame.
    pub newest_dts: Option<i64>,
}

/// Assembles the frames of one track. See the [module](self).
///
/// # The last frame before a silence
///
/// When the source leaves, or says nothing for too long, the frame that is open is published with what has come of it. It is
/// marked [`Damage::TIMED_OUT`] unless its last byte was also the last byte of what carried it:
///
/// - a PES packet with a length was complete, or the next one has begun;
/// - the last transport packet of a PES packet without a length had stuffing, which multiplexers put at the end alone. One in
///   184 such PES packets fills its last transport packet exactly; its frame is marked though it may be whole;
/// - the last RTP packet had the marker.
#[derive(Debug)]
pub struct Assembler<F> {
    framer: F,
    assembly: Assembly,
    /// When the newest bytes could be used, until the framer is flushed.
    unflushed_since: Option<Instant>,
    /// What carried the newest bytes ends with them.
    carrier_ended: bool,
}

impl<F: Framer> Assembler<F> {
    /// An assembler for the track whose bytes `framer` cuts.
    pub fn new(framer: F, decode_time: DecodeTime) -> Self {
        Self { framer, assembly: Assembly::new(decode_time), unflushed_since: None, carrier_ended: false }
    }

    /// Asks the processor for what bytes amid an access unit change.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(&self.assembly.open);
        prefetch(&self.assembly.last_carriage);
        prefetch(&self.unflushed_since);
        self.framer.prefetch();
    }

    /// A time stamp for the first access unit that begins at or after the next byte pushed.
    pub fn mark(&mut self, pts: Option<u64>, dts: Option<u64>) {
        let position = self.framer.position();
        self.carrier_ended = true;
        self.assembly.mark(Mark { position, pts, dts });
    }

    /// Takes the next bytes of the track.
    #[inline]
    pub fn push<S: FrameSink>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        carriage: &Carriage,
        timeline: &mut Timeline,
        sink: &mut S,
    ) {
        self.unflushed_since = Some(carriage.usable_at());
        self.carrier_ended = false;
        let mut taken = 0;
        loop {
            let mut rest = &bytes[taken..];
            let Some(step) = self.framer.push(&mut rest) else { return };
            taken = bytes.len() - rest.len();
            match step {
                Step::Append(bytes) => self.assembly.append(bytes, carriage, sink),
                Step::Begin { position } => {
                    self.assembly.begin(position, self.framer.start_is_certain(), carriage);
                }
                Step::End(info) => self.assembly.end(now, info, self.framer.configuration(), timeline, sink),
                Step::Skipped { len } => self.assembly.skipped(len),
            }
        }
    }

    /// Takes pieces that are the middle of the open access unit, as [`Framer::pass`] judges; `false` if they must be pushed.
    #[inline]
    pub fn pass<S: FrameSink>(&mut self, covering: &[u8], pieces: &[&[u8]], carriage: &Carriage, sink: &mut S) -> bool {
        if !self.framer.pass(covering, pieces) {
            return false;
        }
        self.unflushed_since = Some(carriage.usable_at());
        self.carrier_ended = false;
        self.assembly.append_all(pieces, carriage, sink);
        true
    }

    /// The open access unit ends here for certain.
    pub fn flush<S: FrameSink>(&mut self, now: Instant, timeline: &mut Timeline, sink: &mut S) {
        let carriage = self.assembly.last_carriage;
        self.unflushed_since = None;
        while let Some(step) = self.framer.flush() {
            match step {
                Step::Append(bytes) => self.assembly.append(bytes, &carriage, sink),
                Step::Begin { position } => {
                    self.assembly.begin(position, self.framer.start_is_certain(), &carriage);
                }
                Step::End(info) => self.assembly.end(now, info, self.framer.configuration(), timeline, sink),
                Step::Skipped { len } => self.assembly.skipped(len),
            }
        }
    }

    /// Nothing more will come: publishes what is open, marked unless its end was seen.
    pub fn conclude<S: FrameSink>(&mut self, now: Instant, timeline: &mut Timeline, sink: &mut S) {
        self.assembly.end_unseen = !self.carrier_ended;
        self.flush(now, timeline, sink);
        self.assembly.end_unseen = false;
    }

    /// The last packet of an access unit has been pushed, as far as its sender says so.
    pub fn carrier_ended(&mut self) {
        self.carrier_ended = true;
    }

    /// A PES packet with a length is complete: closes the access unit if the track has proved that the two end together.
    pub fn pes_end<S: FrameSink>(&mut self, now: Instant, timeline: &mut Timeline, sink: &mut S) {
        self.carrier_ended = true;
        if self.assembly.alignment.is_proved(ALIGNED_AFTER) {
            self.flush(now, timeline, sink);
        }
    }

    /// A PES packet without a length seems complete, to judge by stuffing in its last transport packet.
    pub fn pes_stuffing<S: FrameSink>(&mut self, now: Instant, timeline: &mut Timeline, sink: &mut S) {
        self.carrier_ended = true;
        if self.assembly.alignment.is_proved(STUFFING_BELIEVED_AFTER) {
            self.flush(now, timeline, sink);
        }
    }

    /// Packets were lost before the next byte; `damage` says what that means for a frame that is open.
    pub fn discontinuity(&mut self, damage: Damage, packets_lost: u32) {
        self.framer.discontinuity();
        self.assembly.discontinuity(damage, packets_lost);
    }

    /// Something is wrong with the frame that is open, or with the one that begins next if none is.
    pub fn damage(&mut self, damage: Damage) {
        self.assembly.damage(damage);
    }

    /// Packets were lost right before the frame that begins next, and its own first ones may be among them.
    pub fn start_is_unproven(&mut self) {
        self.assembly.next_damage |= Damage::UNPROVEN;
    }

    /// The frame that begins next does so with the next byte: what is known to be wrong was so with one of which nothing is left.
    pub fn start_is_proven(&mut self) {
        self.assembly.next_damage = Damage::NONE;
    }

    /// The source starts anew after its session ended; what follows is a new segment.
    pub fn restart(&mut self) {
        self.framer.discontinuity();
        self.assembly.restart();
    }

    /// Closes the open frame when nothing has come for `timeout`.
    pub fn expire<S: FrameSink>(&mut self, now: Instant, timeout: Duration, timeline: &mut Timeline, sink: &mut S) {
        // Without an open frame a framer may still hold the bytes of one, whole or not.
        if self.idle_since().is_some_and(|since| now.saturating_since(since) >= timeout) {
            self.assembly.statistics.timed_out += u64::from(self.assembly.open.is_some());
            self.conclude(now, timeline, sink);
        }
    }

    /// When [`expire`](Self::expire) has something to do, for a time-out of `timeout`.
    pub fn expires(&self, timeout: Duration) -> Option<Instant> {
        self.idle_since().map(|since| since + timeout)
    }

    /// Since when bytes wait for others to follow.
    fn idle_since(&self) -> Option<Instant> {
        match (self.unflushed_since, &self.assembly.open) {
            (Some(pushed), Some(open)) => Some(pushed.max(open.opened)),
            (pushed, open) => pushed.or(open.as_ref().map(|open| open.opened)),
        }
    }

    /// What became of the track's frames.
    pub fn statistics(&self) -> &TrackStatistics {
        &self.assembly.statistics
    }

    /// What a decoder must know first.
    pub fn configuration(&self) -> &TrackConfiguration {
        self.framer.configuration()
    }

    /// What is known of the track's format.
    pub fn format(&self) -> &Format {
        &self.framer.configuration().format
    }
}

/// An assembler without its framer, so that both can be borrowed at once.
#[derive(Debug)]
struct Assembly {
    decode_time: DecodeTime,
    marks: VecDeque<Mark>,
    open: Option<Open>,
    last_carriage: Carriage,
    configuration_written: u32,
    prediction: Prediction,
    alignment: Alignment,
    /// Bytes were lost and no access unit has begun since.
    after_loss: bool,
    /// What is already known to be wrong with the frame that begins next.
    next_damage: Damage,
    next_cause: DiscontinuityCause,
    /// Frames that end now do so because nothing more comes.
    end_unseen: bool,
    /// Packets may have been lost, and no access unit has begun since.
    next_after_gap: bool,
    /// Frames are missing or may be; how many, the next times tell.
    gap: Option<Gap>,
    packets_lost: u32,
    statistics: TrackStatistics,
}

impl Assembly {
    fn new(decode_time: DecodeTime) -> Self {
        Self {
            decode_time,
            marks: VecDeque::with_capacity(MARKS_MAX),
            open: None,
            last_carriage: Carriage::default(),
            configuration_written: 0,
            prediction: Prediction::default(),
            alignment: Alignment::default(),
            after_loss: false,
            next_damage: Damage::NONE,
            next_cause: DiscontinuityCause::Start,
            end_unseen: false,
            next_after_gap: false,
            gap: None,
            packets_lost: 0,
            statistics: TrackStatistics::default(),
        }
    }

    fn mark(&mut self, mark: Mark) {
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
            self.statistics.marks_dropped += 1;
        }
        self.marks.push_back(mark);
    }

    fn begin(&mut self, position: u64, start_is_certain: bool, carriage: &Carriage) {
        let mut mark = None;
        let mut passed = 0;
        while let Some(front) = self.marks.front()
            && front.position <= position
        {
            mark = self.marks.pop_front();
            passed += 1;
        }
        let at_mark = mark.is_some_and(|mark| mark.position == position);
        self.alignment.observe(at_mark && passed == 1);
        let mut damage = std::mem::take(&mut self.next_damage);
        if self.after_loss && !at_mark && !start_is_certain {
            damage |= Damage::START_MISSING;
        }
        if std::mem::take(&mut self.after_loss) {
            self.prediction.lose_count();
        }
        if std::mem::take(&mut self.next_after_gap) {
            let anchor = self.prediction.last_dts.filter(|_| self.decode_time.is_known());
            let learns_step = self.prediction.last_step == 0;
            let gap = self.gap.get_or_insert(Gap { anchor, frames: 0, lost: 0, unsettled: 0, learns_step });
            gap.unsettled = self.decode_time.settles_after();
        }
        self.open = Some(Open {
            cause: std::mem::take(&mut self.next_cause),
            mark,
            opened: carriage.usable_at(),
            first_arrival: carriage.arrival,
            path_mask: 0,
            recovered: 0,
            bytes: 0,
            damage,
            too_large: false,
        });
    }

    #[inline]
    fn append<S: FrameSink>(&mut self, bytes: &[u8], carriage: &Carriage, sink: &mut S) {
        self.append_all(&[bytes], carriage, sink);
    }

    #[inline]
    fn append_all<S: FrameSink>(&mut self, pieces: &[&[u8]], carriage: &Carriage, sink: &mut S) {
        let open = self.open.as_mut().expect("a framer appends between Begin and End");
        if open.too_large {
            return;
        }
        if sink.append_all(pieces).is_err() {
            open.too_large = true;
            return;
        }
        open.bytes += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        open.path_mask |= carriage.path_mask;
        if carriage.recovered && carriage.arrival != self.last_carriage.arrival {
            open.recovered += 1;
        }
        self.last_carriage = *carriage;
    }

    fn end<S: FrameSink>(
        &mut self,
        now: Instant,
        info: AccessUnitInfo,
        configuration: &TrackConfiguration,
        timeline: &mut Timeline,
        sink: &mut S,
    ) {
        let open = self.open.take().expect("a framer ends what it began");
        if open.too_large {
            sink.abandon();
            self.statistics.too_large += 1;
            self.next_cause = DiscontinuityCause::Dropped;
            self.count_lost_frames(None, 0);
            return;
        }
        if configuration.generation != self.configuration_written {
            sink.configure(configuration);
            self.configuration_written = configuration.generation;
        }
        let duration = duration_ticks(&info, &configuration.format, timeline.clock_rate());
        let (pts, dts) = self.times(&open, &info, duration, &configuration.format, timeline);
        let breaks = dts.is_some_and(|dts| timeline.follow(dts, open.first_arrival));
        let mut discontinuity = open.cause;
        if breaks && discontinuity != DiscontinuityCause::Restart {
            discontinuity = DiscontinuityCause::TimeBase;
        }
        if breaks {
            self.gap = None;
        }
        let is_known = self.decode_time.is_known();
        let gap = self.gap;
        self.count_lost_frames(dts.filter(|_| is_known), duration);
        let mut damage = open.damage;
        if info.damaged {
            damage |= Damage::SYNTAX;
        }
        if self.end_unseen {
            damage |= Damage::TIMED_OUT;
        }
        let frame = Frame {
            info,
            pts,
            dts,
            duration: u32::try_from(duration).unwrap_or(0),
            timeline_ns: pts
                .or(dts)
                .or(self.prediction.last_dts)
                .map_or_else(|| timeline.place_of_newest(), |ticks| timeline.place(ticks)),
            segment: timeline.segment(),
            discontinuity,
            damage,
            packets_lost: std::mem::take(&mut self.packets_lost),
            packets_recovered: open.recovered,
            first_arrival: open.first_arrival,
            last_arrival: self.last_carriage.arrival,
            due: self.last_carriage.due,
            origin: self.last_carriage.origin,
            path_mask: open.path_mask,
        };
        self.prediction.remember(&frame, is_known, gap);
        self.count(&frame, open.bytes);
        sink.commit(now, &frame);
    }

    /// Presentation and decoding time: carried, or counted on from the last that was carried.
    fn times(
        &mut self,
        open: &Open,
        info: &AccessUnitInfo,
        duration: u64,
        format: &Format,
        timeline: &Timeline,
    ) -> (Option<i64>, Option<i64>) {
        let carried = open.mark.and_then(|mark| mark.pts.map(|pts| (pts, mark.dts)));
        if let Format::Audio(audio) = format {
            let base = carried.map(|(pts, _)| timeline.unwrap(pts));
            let pts = self.prediction.audio(base, info.samples, audio.sample_rate, timeline.clock_rate());
            return (pts, pts);
        }
        match (carried, &mut self.decode_time) {
            (Some((pts, dts)), DecodeTime::Presentation) => {
                self.prediction.count_is_lost = false;
                let pts = timeline.unwrap(pts);
                (Some(pts), Some(dts.map_or(pts, |dts| timeline.unwrap(dts))))
            }
            (Some((pts, _)), DecodeTime::Derived(estimator)) => {
                let pts = timeline.unwrap(pts);
                (Some(pts), Some(estimator.decode_time(pts)))
            }
            (None, _) if self.prediction.count_is_lost => (None, None),
            (None, _) => {
                let step = self.prediction.step(duration);
                let completes_frame = matches!(
                    info.picture_structure,
                    PictureStructure::SecondTopField | PictureStructure::SecondBottomField
                );
                let pts = self.prediction.last_pts.filter(|_| completes_frame).map(|pts| pts + step);
                (pts, self.prediction.last_dts.map(|dts| dts + step))
            }
        }
    }

    /// Follows a gap with the next frame, whose decoding time is `None` as long as it cannot be told.
    fn count_lost_frames(&mut self, dts: Option<i64>, duration: u64) {
        let step = self.prediction.step(duration);
        let Some(gap) = &mut self.gap else { return };
        gap.frames += 1;
        let Some(dts) = dts else { return };
        match gap.anchor {
            None => (gap.anchor, gap.frames) = (Some(dts), 0),
            Some(_) if step == 0 => return,
            Some(anchor) => {
                let lost = ((dts - anchor + step / 2) / step).saturating_sub_unsigned(gap.frames);
                if lost > gap.lost {
                    self.statistics.lost += lost.abs_diff(gap.lost);
                    gap.lost = lost;
                }
            }
        }
        gap.unsettled -= 1;
        if gap.unsettled == 0 {
            self.gap = None;
        }
    }

    fn count(&mut self, frame: &Frame, bytes: u64) {
        let statistics = &mut self.statistics;
        statistics.frames += 1;
        statistics.bytes += bytes;
        statistics.keyframes += u64::from(frame.info.is_key());
        if frame.info.is_key() && !frame.info.picture_structure.is_second_field() {
            statistics.gops += 1;
            statistics.gop_frames += std::mem::take(&mut statistics.gop_open_frames);
        }
        statistics.gop_open_frames += u64::from(statistics.gops > 0);
        statistics.damaged += u64::from(frame.damage.any());
        statistics.discontinuities += u64::from(frame.discontinuity != DiscontinuityCause::None);
        statistics.newest_dts = frame.dts.or(statistics.newest_dts);
        match frame.info.picture_type {
            PictureType::I => statistics.i_pictures += 1,
            PictureType::P => statistics.p_pictures += 1,
            PictureType::B => statistics.b_pictures += 1,
            PictureType::Unknown => {}
        }
    }

    fn discontinuity(&mut self, damage: Damage, packets_lost: u32) {
        self.packets_lost = self.packets_lost.saturating_add(packets_lost);
        if let Some(open) = &mut self.open {
            open.damage |= damage;
        }
        self.next_after_gap = true;
        if damage.contains(Damage::LOSS) {
            self.after_loss = true;
            if self.next_cause == DiscontinuityCause::None {
                self.next_cause = DiscontinuityCause::Loss;
            }
        }
    }

    fn damage(&mut self, damage: Damage) {
        match &mut self.open {
            Some(open) => open.damage |= damage,
            None => self.next_damage |= damage,
        }
    }

    fn restart(&mut self) {
        self.after_loss = true;
        self.next_after_gap = false;
        self.gap = None;
        self.next_cause = DiscontinuityCause::Restart;
        self.prediction = Prediction::default();
        self.marks.clear();
        if let DecodeTime::Derived(estimator) = &mut self.decode_time {
            estimator.restart();
        }
    }

    fn skipped(&mut self, len: u32) {
        self.statistics.skipped_bytes += u64::from(len);
    }
}

/// A time stamp at its place in the track's bytes.
#[derive(Clone, Copy, Debug)]
struct Mark {
    position: u64,
    pts: Option<u64>,
    dts: Option<u64>,
}

/// A place where packets were lost, and the frames since.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// Decoding time of the last frame before it; without one, of the first after it.
    anchor: Option<i64>,
    /// Frames since then.
    frames: u64,
    /// Frames that were found missing among them.
    lost: i64,
    /// Decoding times to come that may still tell of more, once it is known how long a frame lasts; not 0.
    unsettled: usize,
    /// How long a frame lasts was not known before.
    learns_step: bool,
}

/// The frame being assembled.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Why it does not follow from the one before.
    cause: DiscontinuityCause,
    mark: Option<Mark>,
    opened: Instant,
    first_arrival: Instant,
    path_mask: u8,
    recovered: u32,
    bytes: u64,
    damage: Damage,
    /// It passed the size limit; its bytes are passed over until it ends.
    too_large: bool,
}

/// What is needed to time an access unit that carries no time stamp.
#[derive(Clone, Copy, Debug, Default)]
struct Prediction {
    last_dts: Option<i64>,
    /// It is what it seems, and not a first guess.
    last_is_known: bool,
    last_pts: Option<i64>,
    /// How far apart in decoding time the last two frames were that followed each other.
    last_step: i64,
    /// The last time stamp that an audio track carried, and the samples played since.
    audio_base: Option<i64>,
    audio_samples: u64,
    /// Access units may be missing since the last time that was carried, so that nothing can be counted on from it.
    count_is_lost: bool,
}

impl Prediction {
    /// Access units may be missing between the last one and the next.
    fn lose_count(&mut self) {
        self.audio_base = None;
        self.count_is_lost = true;
    }

    /// Remembers a frame; `is_known`: its decoding time is what it seems; `gap`: where frames may be missing before it.
    fn remember(&mut self, frame: &Frame, is_known: bool, gap: Option<Gap>) {
        let was_known = std::mem::replace(&mut self.last_is_known, is_known && frame.dts.is_some());
        if let (Some(dts), Some(last)) = (frame.dts, self.last_dts)
            && was_known
            && is_known
            && frame.discontinuity == DiscontinuityCause::None
            // One tick is what a derived time is moved by at least, and no step of a picture.
            && dts > last + 1
        {
            let step = dts - last;
            // Beside missing frames steps may be too long. Where none was known before, the shortest is believed.
            if gap.is_none_or(|gap| gap.learns_step && (self.last_step == 0 || step < self.last_step)) {
                self.last_step = step;
            }
        }
        self.last_dts = frame.dts.or(self.last_dts);
        self.last_pts = frame.pts;
    }

    /// How long an access unit lasts: `duration` if its stream tells, else as long as those before it.
    fn step(&self, duration: u64) -> i64 {
        if duration > 0 { duration as i64 } else { self.last_step }
    }

    /// The time of an audio frame of `samples` samples. Counted in samples from the last time stamp carried, so that
    /// rounding never adds up.
    fn audio(&mut self, carried: Option<i64>, samples: u32, sample_rate: u32, clock_rate: u32) -> Option<i64> {
        if carried.is_some() {
            self.audio_base = carried;
            self.audio_samples = 0;
        }
        let base = self.audio_base?;
        let elapsed = self.audio_samples * u64::from(clock_rate) / u64::from(sample_rate.max(1));
        self.audio_samples += u64::from(samples);
        Some(base + elapsed as i64)
    }
}

/// Whether PES packets and access units begin together.
#[derive(Clone, Copy, Debug, Default)]
struct Alignment {
    confirmations: u32,
    contradicted: bool,
}

impl Alignment {
    fn observe(&mut self, together: bool) {
        if together {
            self.confirmations = self.confirmations.saturating_add(1);
        } else if self.confirmations > 0 {
            // The very first access unit may begin after leftovers of one before; later ones may not.
            self.contradicted = true;
        }
    }

    fn is_proved(&self, confirmations: u32) -> bool {
        !self.contradicted && self.confirmations >= confirmations
    }
}

/// How long an access unit lasts in ticks of the track's clock; 0 when its format does not tell.
fn duration_ticks(info: &AccessUnitInfo, format: &Format, clock_rate: u32) -> u64 {
    match format {
        Format::Audio(audio) if audio.sample_rate > 0 => {
            u64::from(info.samples) * u64::from(clock_rate) / u64::from(audio.sample_rate)
        }
        Format::Video(video) => video.frame_rate.map_or(0, |rate| {
            let frame = u64::from(clock_rate) * u64::from(rate.denominator) / u64::from(rate.numerator);
            match (info.fields, info.picture_structure) {
                (0, PictureStructure::Frame) => frame,
                (0, _) => frame / 2,
                (fields, _) => frame * u64::from(fields) / 2,
            }
        }),
        _ => 0,
    }
}
