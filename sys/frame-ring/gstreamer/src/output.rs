//! A pad, and what was last said on it.

use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use headworks_frame_ring::descriptor::{Discontinuity, FrameDescriptor};
use headworks_frame_ring::layout::TrackKind;

use crate::caps::Basis;

/// A track of data may be silent for ever: as often as this its pad is told that nothing came.
const GAP: Duration = Duration::from_millis(500);
/// A track that is late for so long stays late: its multiplexer sends it behind the others, or the source's clock is slower than
/// the pipeline's.
const LATE: i64 = 2_000_000_000;

/// The pad of one track.
#[derive(Debug)]
pub struct Output {
    /// The track's.
    pub name: String,
    pub pad: gst::Pad,
    pub kind: TrackKind,
    pub codec: [u8; 4],
    pub clock_rate: u32,
    pub caps: gst::Caps,
    pub basis: Basis,
    language: String,
    language_told: bool,
    /// What comes next does not continue what came before.
    pub discontinuous: bool,
    /// EOS was sent.
    pub ended: bool,
    /// The segment sent, by its number.
    segment: Option<u64>,
    /// Up to where the pad's receivers know what came, on the timeline, ns.
    told_ns: i64,
    late: Late,
}

/// Where the timeline stands against the running time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Differs with every base.
    pub number: u64,
    /// The timeline where the segment starts, ns.
    start_ns: i64,
    /// The running time there, ns.
    running_ns: i64,
}

impl Base {
    /// The timeline at `start_ns` is `running_ns`.
    pub fn new(number: u64, start_ns: i64, running_ns: i64) -> Self {
        Self { number, start_ns: start_ns.max(0), running_ns: running_ns.max(0) }
    }

    /// The same timeline, later.
    pub fn delayed(self, number: u64, by_ns: i64) -> Self {
        Self::new(number, self.start_ns, self.running_ns.saturating_add(by_ns))
    }

    /// The running time, ns, of a place on the timeline.
    pub fn running_ns(&self, timeline_ns: i64) -> i64 {
        self.running_ns.saturating_add(timeline_ns.saturating_sub(self.start_ns))
    }

    fn segment(&self) -> gst::FormattedSegment<gst::ClockTime> {
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        let start = clock_time(self.start_ns);
        segment.set_start(start);
        segment.set_time(start);
        segment.set_position(start);
        segment.set_base(clock_time(self.running_ns));
        segment
    }
}

/// How late a track is, and whether it will stay so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    /// It has had no frame yet.
    Unknown,
    /// The last frame came in time.
    No,
    /// Every frame has come later than it should.
    Since { running_ns: i64, least_ns: i64 },
}

impl Late {
    /// Takes how late a frame was when it was published at `running_ns`; gives by how much everything is to be delayed.
    fn follow(&mut self, late_ns: i64, running_ns: i64) -> Option<i64> {
        let (since, least) = match *self {
            _ if late_ns <= 0 => {
                *self = Self::No;
                return None;
            }
            // The track begins late: nothing better will come.
            Self::Unknown => (running_ns.saturating_sub(LATE), late_ns),
            Self::No => (running_ns, late_ns),
            Self::Since { running_ns, least_ns } => (running_ns, least_ns.min(late_ns)),
        };
        let stays = running_ns.saturating_sub(since) >= LATE;
        *self = if stays { Self::No } else { Self::Since { running_ns: since, least_ns: least } };
        stays.then_some(least)
    }
}

impl Output {
    pub fn new(name: String, pad: gst::Pad, kind: TrackKind, codec: [u8; 4], clock_rate: u32, caps: gst::Caps) -> Self {
        Self {
            name,
            pad,
            kind,
            codec,
            clock_rate,
            caps,
            basis: Basis::default(),
            language: String::new(),
            language_told: true,
            discontinuous: true,
            ended: false,
            segment: None,
            told_ns: 0,
            late: Late::Unknown,
        }
    }

    /// The first words on the pad.
    pub fn begin(&self, stream: &str, group: gst::GroupId) {
        let sparse = if self.kind == TrackKind::Data { gst::StreamFlags::SPARSE } else { gst::StreamFlags::empty() };
        let start = gst::event::StreamStart::builder(&format!("headworks/{stream}/{}", self.name))
            .group_id(group)
            .flags(sparse)
            .build();
        self.pad.push_event(start);
        self.pad.push_event(gst::event::Caps::new(&self.caps));
    }

    pub fn set_caps(&mut self, caps: gst::Caps) {
        if caps != self.caps {
            self.caps = caps;
            self.pad.push_event(gst::event::Caps::new(&self.caps));
        }
    }

    pub fn set_language(&mut self, language: &str) {
        if language != self.language {
            language.clone_into(&mut self.language);
            self.language_told = false;
        }
    }

    /// By how much everything must be delayed so that this track's frames come within the latency promised; `committed_ns` is the
    /// running time when the frame was published.
    pub fn delay(&mut self, frame: &FrameDescriptor, base: &Base, committed_ns: i64, latency_ns: i64) -> Option<i64> {
        if !matches!(self.kind, TrackKind::Video | TrackKind::Audio) || frame.pts.is_none() {
            return None;
        }
        let decoded_ns = decoding_ns(frame, self.clock_rate).unwrap_or(frame.timeline_ns);
        let late_ns = committed_ns.saturating_sub(base.running_ns(decoded_ns));
        let beyond_ns = self.late.follow(late_ns.saturating_sub(latency_ns), committed_ns)?;
        Some(beyond_ns.saturating_add(latency_ns))
    }

    /// A frame as a buffer. Time stamps are the programme's timeline, which the segment maps to the running time.
    pub fn buffer(&mut self, frame: &FrameDescriptor, payload: Vec<u8>, base: &Base) -> gst::Buffer {
        self.enter(base);
        let mut buffer = gst::Buffer::from_mut_slice(payload);
        let writable = buffer.get_mut().expect("nobody else has it yet");
        if frame.pts.is_some() {
            writable.set_pts(clock_time(frame.timeline_ns));
            self.told_ns = self.told_ns.max(frame.timeline_ns);
        }
        writable.set_dts(decoding_ns(frame, self.clock_rate).and_then(clock_time));
        if frame.duration != 0 {
            writable.set_duration(clock_time(ticks_to_ns(i64::from(frame.duration), self.clock_rate)));
        }
        let mut flags = gst::BufferFlags::empty();
        if self.kind == TrackKind::Video && !frame.key {
            flags |= gst::BufferFlags::DELTA_UNIT;
        }
        if frame.damaged {
            flags |= gst::BufferFlags::CORRUPTED;
        }
        if self.discontinuous || frame.discontinuity != Discontinuity::None {
            flags |= gst::BufferFlags::DISCONT;
        }
        self.discontinuous = false;
        writable.set_flags(flags);
        buffer
    }

    /// Says that no data came up to `now_ns`, if that was not said for long.
    pub fn tell_gap(&mut self, now_ns: i64, base: &Base) {
        if self.kind != TrackKind::Data || self.ended {
            return;
        }
        self.enter(base);
        let Ok(silence) = u64::try_from(now_ns.saturating_sub(self.told_ns)) else { return };
        if Duration::from_nanos(silence) >= GAP
            && let Some(from) = clock_time(self.told_ns)
        {
            let gap = gst::event::Gap::builder(from).duration(gst::ClockTime::from_nseconds(silence)).build();
            self.pad.push_event(gap);
            self.told_ns = now_ns;
        }
    }

    pub fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.pad.push_event(gst::event::Eos::new());
        }
    }

    /// The segment, before anything that needs it, and the language behind it.
    fn enter(&mut self, base: &Base) {
        if self.segment != Some(base.number) {
            self.segment = Some(base.number);
            self.told_ns = self.told_ns.max(base.start_ns);
            self.pad.push_event(gst::event::Segment::new(&base.segment()));
        }
        if !std::mem::replace(&mut self.language_told, true) {
            let mut tags = gst::TagList::new();
            tags.make_mut().add::<gst::tags::LanguageCode>(&self.language.as_str(), gst::TagMergeMode::Replace);
            self.pad.push_event(gst::event::Tag::new(tags));
        }
    }
}

/// When a frame is decoded, on the timeline; `None` when nobody said.
pub fn decoding_ns(frame: &FrameDescriptor, clock_rate: u32) -> Option<i64> {
    let ahead = frame.pts?.checked_sub(frame.dts?)?;
    frame.timeline_ns.checked_sub(ticks_to_ns(ahead, clock_rate))
}

/// Ring words are anybody's: what is out of range is held at its end.
fn ticks_to_ns(ticks: i64, clock_rate: u32) -> i64 {
    let ns = i128::from(ticks) * 1_000_000_000 / i128::from(clock_rate.max(1));
    ns.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// GStreamer has no time before 0.
fn clock_time(ns: i64) -> Option<gst::ClockTime> {
    u64::try_from(ns).ok().map(gst::ClockTime::from_nseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_times_lie_on_the_timeline_and_survive_any_numbers() {
        let frame = |pts, dts| FrameDescriptor { pts, dts, timeline_ns: 1_000_000_000, ..Default::default() };
        assert_eq!(decoding_ns(&frame(Some(99_000), Some(90_000)), 90_000), Some(900_000_000));
        assert_eq!(decoding_ns(&frame(Some(99_000), None), 90_000), None);
        assert_eq!(decoding_ns(&frame(Some(i64::MAX), Some(0)), 1), Some(1_000_000_000 - i64::MAX));
        assert_eq!(decoding_ns(&frame(Some(i64::MAX), Some(-1)), 0), None);
        assert_eq!(clock_time(-1), None);
    }

    #[test]
    fn a_delayed_base_moves_the_running_time_alone() {
        let base = Base::new(1, 5_000, 300);
        assert_eq!(base.running_ns(5_700), 1_000);
        let delayed = base.delayed(2, 50);
        assert_eq!((delayed.number, delayed.running_ns(5_700)), (2, 1_050));
        assert_eq!(Base::new(3, -7, -8).running_ns(i64::MIN), i64::MIN);
        assert_eq!(Base::new(3, 0, i64::MAX).running_ns(i64::MAX), i64::MAX);
    }

    #[test]
    fn a_track_is_waited_for_when_it_begins_late_or_stays_late() {
        let mut late = Late::Unknown;
        assert_eq!(late.follow(40, 1_000), Some(40), "it begins late");
        assert_eq!(late.follow(30, 2_000), None, "one late frame");
        assert_eq!(late.follow(0, 2_500), None);
        assert_eq!(late.follow(20, 3_000), None, "another");
        assert_eq!(late.follow(10, 3_000 + LATE / 2), None);
        assert_eq!(late.follow(25, 3_000 + LATE), Some(10), "by what none of them needs less of");
        assert_eq!(late.follow(25, 3_001 + LATE), None, "and not again at once");
    }
}
