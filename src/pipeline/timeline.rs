//! One continuous timeline per programme, over wraps, jumps and restarts of the source's clock.

use std::time::Duration;

use crate::base::Instant;

/// A step between two decoding times of one programme that is taken for a new time base, not for a gap in the media.
///
/// Longer than any GOP or audio interleave and shorter than what an operator would call the same recording: multiplexers
/// hold at most 10 s of data in their buffers (H.222.0 §2.4.2.6 allows 1 s, still pictures 60 s).
const JUMP: Duration = Duration::from_secs(10);
/// Tracks of one programme are interleaved: a step back by up to this is not a jump.
const INTERLEAVE: Duration = Duration::from_secs(5);
/// After an announced break a smaller step is believed to be one.
const ANNOUNCED_JUMP: Duration = Duration::from_secs(1);

/// The clock of one programme: unwraps its time stamps and places them on a timeline of nanoseconds that never jumps.
///
/// The timeline starts at the arrival of the first frame on the host's monotonic clock, or goes on from where it stood when it was
/// written down. At a break it goes on from where the frames before it stood, moved by the time that passed between the two arrivals.
#[derive(Clone, Debug)]
pub struct Timeline {
    clock_rate: u32,
    width: ClockWidth,
    anchor: Option<Anchor>,
    latest: Option<Latest>,
    segment: u32,
    expected: Expected,
    resume: Option<Resume>,
}

/// Where the timeline of a programme stood when its source was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// A place on it that was written down, in nanoseconds, and when a frame came in that stood there.
    pub anchor: Option<(i64, Instant)>,
    /// Where the last of its frames stands, in nanoseconds; 0 if none is known.
    pub newest_ns: i64,
}

impl Resume {
    /// Where a frame stands that comes in now: later by the time that has passed, and never before what is already there, which a
    /// source that sends faster than its clock runs may have put far ahead.
    fn place(&self, arrival: Instant) -> i64 {
        let passed = |(ns, at): (i64, Instant)| ns.saturating_add(arrival.signed_nanos_since(at).max(0));
        self.anchor.map_or(arrival.as_nanos() as i64, passed).max(self.newest_ns)
    }
}

/// How wide the wire's time stamps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockWidth {
    /// MPEG-2 Systems: 33 bits.
    Pes = 33,
    /// RTP: 32 bits.
    Rtp = 32,
}

/// Unwrapped ticks and where they stand on the timeline.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    ticks: i64,
    ns: i64,
}

/// The furthest decoding time of the segment, and when it came in.
#[derive(Clone, Copy, Debug)]
struct Latest {
    ticks: i64,
    arrival: Instant,
}

/// What the next decoding time may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Continuation,
    /// The source announced a new time base, which may or may not differ from the old one.
    AnnouncedBreak,
    Restart,
}

impl Timeline {
    /// A timeline without a first frame yet, for a clock of `clock_rate` ticks per second.
    pub fn new(clock_rate: u32, width: ClockWidth) -> Self {
        assert!(clock_rate > 0, "a clock ticks");
        Self {
            clock_rate,
            width,
            anchor: None,
            latest: None,
            segment: 0,
            expected: Expected::Continuation,
            resume: None,
        }
    }

    /// The same, going on from where it stood before.
    pub fn resumed(self, resume: Option<Resume>) -> Self {
        Self { resume, ..self }
    }

    /// Number of the current segment.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Ticks per second.
    pub fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// The newest decoding time and its arrival, once there is one.
    pub fn newest(&self) -> Option<(i64, Instant)> {
        self.latest.map(|latest| (latest.ticks, latest.arrival))
    }

    /// The unwrapped position of a time stamp, the one nearest to the decoding times seen last.
    #[inline]
    pub fn unwrap(&self, ticks: u64) -> i64 {
        let unused_bits = 64 - self.width as u32;
        match self.latest {
            None => (ticks << unused_bits >> unused_bits) as i64,
            Some(latest) => {
                let distance = (ticks.wrapping_sub(latest.ticks as u64) << unused_bits) as i64 >> unused_bits;
                latest.ticks.wrapping_add(distance)
            }
        }
    }

    /// Takes the decoding time of a frame that has one, and tells whether a new segment starts with it.
    pub fn follow(&mut self, ticks: i64, arrival: Instant) -> bool {
        let expected = std::mem::replace(&mut self.expected, Expected::Continuation);
        let Some(latest) = self.latest else {
            let resume = self.resume.unwrap_or(Resume { anchor: None, newest_ns: 0 });
            self.anchor = Some(Anchor { ticks, ns: resume.place(arrival) });
            self.latest = Some(Latest { ticks, arrival });
            return false;
        };
        let step_ns = self.ticks_to_ns(ticks.wrapping_sub(latest.ticks));
        let elapsed_ns = arrival.signed_nanos_since(latest.arrival).max(0);
        let breaks = match expected {
            Expected::Restart => true,
            Expected::AnnouncedBreak => (step_ns - elapsed_ns).abs() > ANNOUNCED_JUMP.as_nanos() as i64,
            Expected::Continuation => {
                step_ns > elapsed_ns.saturating_add(JUMP.as_nanos() as i64) || step_ns < -(INTERLEAVE.as_nanos() as i64)
            }
        };
        if breaks {
            let continued_ns = self.place(latest.ticks).saturating_add(elapsed_ns);
            self.anchor = Some(Anchor { ticks, ns: continued_ns });
            self.segment += 1;
        }
        if breaks || ticks > latest.ticks {
            self.latest = Some(Latest { ticks, arrival });
        }
        breaks
    }

    /// The source says that its clock may change (`discontinuity_indicator` on the PCR, H.222.0 §2.4.3.5).
    pub fn announce_break(&mut self) {
        if self.expected == Expected::Continuation {
            self.expected = Expected::AnnouncedBreak;
        }
    }

    /// The source starts anew: its next decoding time opens a segment, whatever it is.
    pub fn restart(&mut self) {
        self.expected = Expected::Restart;
    }

    /// The timeline's nanoseconds for unwrapped ticks; 0 before the first frame.
    #[inline]
    pub fn place(&self, ticks: i64) -> i64 {
        self.anchor.map_or(0, |anchor| anchor.ns.saturating_add(self.ticks_to_ns(ticks.wrapping_sub(anchor.ticks))))
    }

    /// Where the newest decoding time stands; 0 before the first frame.
    pub fn place_of_newest(&self) -> i64 {
        self.latest.map_or(0, |latest| self.place(latest.ticks))
    }

    #[inline]
    fn ticks_to_ns(&self, ticks: i64) -> i64 {
        (i128::from(ticks) * 1_000_000_000 / i128::from(self.clock_rate)) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 90_000;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn the_timeline_starts_at_the_first_arrival_and_runs_with_the_media() {
        let mut timeline = Timeline::new(90_000, ClockWidth::Pes);
        assert!(!timeline.follow(5 * SECOND, at(1_000)));
        assert_eq!(timeline.place(5 * SECOND), 1_000_000_000);
        assert_eq!(timeline.place(6 * SECOND), 2_000_000_000);
        assert_eq!(timeline.segment(), 0);
    }

    #[test]
    fn a_timeline_that_was_written_down_goes_on_after_the_time_that_passed_and_never_before_its_newest_frame() {
        let first = |anchor, newest_ns, arrival| {
            let resume = Resume { anchor, newest_ns };
            let mut timeline = Timeline::new(90_000, ClockWidth::Pes).resumed(Some(resume));
            assert!(!timeline.follow(5 * SECOND, at(arrival)));
            (timeline.place(5 * SECOND), timeline.place(6 * SECOND), timeline.segment())
        };
        // Of a source whose clock was slower than the host's by a second.
        let anchor = Some((9_000_000_000, at(10_000)));
        assert_eq!(first(anchor, 9_080_000_000, 13_000), (12_000_000_000, 13_000_000_000, 0));
        assert_eq!(first(anchor, 20_000_000_000, 13_000), (20_000_000_000, 21_000_000_000, 0));
        assert_eq!(first(anchor, 0, 9_000), (9_000_000_000, 10_000_000_000, 0));
        assert_eq!(first(None, 5_000_000_000, 13_000), (13_000_000_000, 14_000_000_000, 0));
    }

    #[test]
    fn a_wrap_of_33_bits_is_no_break() {
        let mut timeline = Timeline::new(90_000, ClockWidth::Pes);
        let top = (1_u64 << 33) - 3_600;
        let first = timeline.unwrap(top);
        timeline.follow(first, at(0));
        let second = timeline.unwrap(0);
        assert_eq!(second, first + 3_600);
        assert!(!timeline.follow(second, at(40)));
        assert_eq!(timeline.place(second) - timeline.place(first), 40_000_000);
    }

    #[test]
    fn a_jump_of_the_clock_starts_a_segment_and_leaves_the_timeline_continuous() {
        let mut timeline = Timeline::new(90_000, ClockWidth::Pes);
        timeline.follow(100 * SECOND, at(0));
        timeline.follow(100 * SECOND + 3_600, at(40));
        assert!(timeline.follow(7 * SECOND, at(80)));
        assert_eq!(timeline.segment(), 1);
        assert_eq!(timeline.place(7 * SECOND), 80_000_000);
    }

    #[test]
    fn tracks_interleaved_by_seconds_are_no_break() {
        let mut timeline = Timeline::new(90_000, ClockWidth::Pes);
        timeline.follow(10 * SECOND, at(0));
        assert!(!timeline.follow(7 * SECOND, at(1)));
        assert!(!timeline.follow(10 * SECOND + 3_600, at(40)));
        assert_eq!(timeline.segment(), 0);
    }

    #[test]
    fn a_long_silence_with_a_clock_that_ran_on_is_no_break() {
        let mut timeline = Timeline::new(90_000, ClockWidth::Pes);
        timeline.follow(0, at(0));
        assert!(!timeline.follow(60 * SECOND, at(60_000)));
        assert_eq!(timeline.place(60 * SECOND), 60_000_000_000);
    }

    #[test]
    fn a_restart_goes_on_after_the_time_that_passed() {
        let mut timeline = Timeline::new(90_000, ClockWidth::Pes);
        timeline.follow(50 * SECOND, at(0));
        timeline.restart();
        let ticks = timeline.unwrap(2 * SECOND as u64);
        timeline.follow(ticks, at(3_000));
        assert_eq!(timeline.segment(), 1);
        assert_eq!(timeline.place(ticks), 3_000_000_000);
    }

    #[test]
    fn an_rtp_clock_wraps_at_32_bits() {
        let mut timeline = Timeline::new(90_000, ClockWidth::Rtp);
        let first = timeline.unwrap(0xffff_ffff);
        timeline.follow(first, at(0));
        assert_eq!(timeline.unwrap(2), first + 3);
    }
}
