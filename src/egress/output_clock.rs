//! One clock of 90 kHz for all that leaves: the source's own time stamps, until it starts anew.

/// Breaks whose frames may still come in on a slower track.
const KEPT_PER_TRACK: usize = 4;

/// Puts the time stamps of all tracks and segments on one clock of 90 kHz.
///
/// The first segment keeps its time stamps. Later ones, and programmes with a clock of their own, are moved by whole ticks to where
/// the timeline says they are, so that the output never jumps.
#[derive(Debug, Default)]
pub struct OutputClock {
    /// Where the first frame stands: ticks, and nanoseconds of the timeline.
    anchor: Option<(i64, i64)>,
    offsets: Vec<Offset>,
}

#[derive(Debug)]
struct Offset {
    track: usize,
    segment: (u32, u32),
    ticks: i64,
}

impl OutputClock {
    /// What to add to the time stamps of a segment (by its ring and number) of a track, ticks. `ticks` and `timeline_ns` are those of
    /// one of its frames.
    pub fn offset(&mut self, track: usize, segment: (u32, u32), ticks: i64, timeline_ns: i64) -> i64 {
        if let Some(offset) = self.offsets.iter().find(|known| (known.track, known.segment) == (track, segment)) {
            return offset.ticks;
        }
        let (anchor_ticks, anchor_ns) = *self.anchor.get_or_insert((ticks, timeline_ns));
        // A timeline that has not begun says nothing.
        let known = anchor_ns != 0 && timeline_ns != 0;
        let target = anchor_ticks.saturating_add(ticks_of_ns(timeline_ns.saturating_sub(anchor_ns)));
        let ticks = if known { target.saturating_sub(ticks) } else { 0 };
        if self.offsets.iter().filter(|known| known.track == track).count() == KEPT_PER_TRACK {
            let oldest = self.offsets.iter().position(|known| known.track == track);
            oldest.map(|oldest| self.offsets.remove(oldest));
        }
        self.offsets.push(Offset { track, segment, ticks });
        ticks
    }
}

/// Ticks of 90 kHz, rounded.
fn ticks_of_ns(ns: i64) -> i64 {
    ((i128::from(ns) * 9 + 50_000).div_euclid(100_000)) as i64
}

/// Ticks of another clock as ticks of 90 kHz, rounded.
pub fn ticks_of(ticks: i64, clock_rate: u32) -> i64 {
    let rate = i128::from(clock_rate.max(1));
    ((i128::from(ticks) * 90_000 + rate / 2).div_euclid(rate)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segment_keeps_its_time_stamps_on_all_tracks() {
        let mut clock = OutputClock::default();
        let at = |ticks: i64| 7_000_000_000 + ticks * 100_000 / 9;
        assert_eq!(clock.offset(0, (0, 0), 900_000, at(0)), 0);
        for ticks in [-3_003, -1, 1, 1_920, 3_754, 1 << 33] {
            assert_eq!(OutputClock::default().offset(0, (0, 0), 900_000, at(0)), 0);
            let mut clock = OutputClock::default();
            clock.offset(0, (0, 0), 900_000, at(0));
            assert_eq!(clock.offset(1, (0, 0), 900_000 + ticks, at(ticks)), 0, "{ticks}");
        }
    }

    #[test]
    fn a_new_time_base_goes_on_where_the_timeline_does() {
        let mut clock = OutputClock::default();
        clock.offset(0, (0, 0), 90_000, 1_000_000_000);
        // Two seconds later the source counts from 0.
        assert_eq!(clock.offset(0, (0, 1), 0, 3_000_000_000), 270_000);
        assert_eq!(clock.offset(1, (0, 1), 900, 3_010_000_000), 270_000);
        assert_eq!(clock.offset(1, (0, 0), 90_900, 1_010_000_000), 0, "a frame of before");
        for segment in 2..100 {
            clock.offset(0, (0, segment), 0, 3_000_000_000);
        }
        assert_eq!(clock.offsets.len(), KEPT_PER_TRACK + 2);
    }

    #[test]
    fn other_clocks_are_rounded_to_the_nearest_tick() {
        assert_eq!((ticks_of(48_000, 48_000), ticks_of(1, 48_000), ticks_of(-1, 48_000)), (90_000, 2, -2));
        assert_eq!(ticks_of(5, 90_000), 5);
        assert_eq!(ticks_of(5, 0), 450_000);
    }
}
