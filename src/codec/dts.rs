//! Decoding times where the protocol gives none: RTP carries presentation times, in decoding order.

/// More access units than may wait to be shown (H.264 §A.3.1, H.265 §A.4: 16 frames), twice for coded fields.
pub const MAX_REORDER_DEPTH: usize = 32;
/// What is assumed of a stream that does not tell. No real encoder looks farther ahead; and more would cost nothing but labels
/// that lie farther back.
const ASSUMED_REORDER_DEPTH: usize = 4;
/// Steps per second of the first decoding times, before enough presentation times are known. Large steps, because a stream that
/// is joined at an anchor picture goes back in time next, by as many pictures as lie between two anchors.
const FIRST_STEPS_PER_SECOND: i64 = 6;
/// A presentation time this many seconds before the last decoding time is a new beginning.
const RESTART_S: i64 = 5;

/// Derives decoding times from presentation times given in decoding order.
///
/// With a reorder depth of n, the decoding time of an access unit is the presentation time that is n places before it in
/// rising order: what is shown at that moment has been decoded. So decoding times never fall and are never after the
/// presentation time, and no access unit has to wait for a later one.
#[derive(Clone, Debug)]
pub struct DecodeTimeEstimator {
    clock_rate: i64,
    /// Presentation times in rising order, the highest that there were.
    latest: [i64; MAX_REORDER_DEPTH + 1],
    len: usize,
    depth: usize,
    last: Option<i64>,
    contradictions: u64,
}

impl DecodeTimeEstimator {
    /// For time stamps of `clock_rate` ticks per second, with the reorder depth in access units: `max_num_reorder_frames`
    /// (H.264 §E.2.1) or `sps_max_num_reorder_pics` (H.265 §7.4.3.2), twice that plus one for coded fields; `None` if the
    /// stream does not tell, then it is learned.
    pub fn new(clock_rate: u32, reorder_depth: Option<usize>) -> Self {
        Self {
            clock_rate: i64::from(clock_rate.max(1)),
            latest: [0; MAX_REORDER_DEPTH + 1],
            len: 0,
            depth: reorder_depth.unwrap_or(ASSUMED_REORDER_DEPTH).min(MAX_REORDER_DEPTH),
            last: None,
            contradictions: 0,
        }
    }

    /// The stream now tells its reorder depth (a new parameter set). It counts from the next access unit on.
    pub fn set_reorder_depth(&mut self, reorder_depth: usize) {
        self.depth = reorder_depth.min(MAX_REORDER_DEPTH);
    }

    /// The decoding time of the next access unit in decoding order, in the ticks of `pts`.
    ///
    /// Not after `pts`; and not before the last one, unless the reorder depth proves too small, which is then raised and
    /// counted. It is later than the last one if there is a tick between that and `pts`.
    pub fn decode_time(&mut self, pts: i64) -> i64 {
        if self.last.is_some_and(|last| last.saturating_sub(pts) > RESTART_S * self.clock_rate) {
            self.restart();
        }
        if self.len == self.latest.len() {
            self.latest.copy_within(1.., 0);
            self.len -= 1;
        }
        let at = self.latest[..self.len].partition_point(|&earlier| earlier <= pts);
        self.latest.copy_within(at..self.len, at + 1);
        self.latest[at] = pts;
        self.len += 1;
        let known = self.is_known();
        let estimate = if known {
            self.latest[self.len - 1 - self.depth]
        } else {
            let missing = (self.depth + 1 - self.len) as i64;
            let step = (self.clock_rate / FIRST_STEPS_PER_SECOND).max(1);
            self.latest[0].saturating_sub(missing * step)
        };
        let mut dts = estimate.min(pts);
        if let Some(last) = self.last {
            dts = dts.max(last.saturating_add(1)).min(pts);
            if dts < last {
                self.contradictions += 1;
                self.depth = (self.depth + usize::from(known)).min(MAX_REORDER_DEPTH);
            }
        }
        self.last = Some(dts);
        dts
    }

    /// Presentation times do not continue those before.
    pub fn restart(&mut self) {
        self.len = 0;
        self.last = None;
    }

    /// Whether there have been presentation times enough; until then decoding times are a guess.
    pub fn is_known(&self) -> bool {
        self.len > self.depth
    }

    /// The reorder depth in use, in access units.
    pub fn reorder_depth(&self) -> usize {
        self.depth
    }

    /// Times that the reorder depth proved too small.
    pub fn contradictions(&self) -> u64 {
        self.contradictions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(estimator: &mut DecodeTimeEstimator, times: impl IntoIterator<Item = i64>) -> Vec<i64> {
        times.into_iter().map(|pts| estimator.decode_time(pts)).collect()
    }

    #[test]
    fn without_reordering_decoding_is_presentation() {
        let mut estimator = DecodeTimeEstimator::new(90_000, Some(0));
        assert_eq!(run(&mut estimator, [100, 3_700, 7_300]), [100, 3_700, 7_300]);
    }

    #[test]
    fn with_one_picture_of_reordering_the_times_lie_one_picture_back() {
        // I P B P B, 25 frames per second.
        let mut estimator = DecodeTimeEstimator::new(90_000, Some(1));
        let times = run(&mut estimator, [0, 7_200, 3_600, 14_400, 10_800, 21_600, 18_000]);
        assert_eq!(times, [-15_000, 0, 3_600, 7_200, 10_800, 14_400, 18_000]);
        assert_eq!(estimator.contradictions(), 0);
    }

    #[test]
    fn a_pyramid_of_pictures_needs_two() {
        // I P B b b, twice.
        let mut estimator = DecodeTimeEstimator::new(90_000, Some(2));
        let times = run(&mut estimator, [0, 4, 2, 1, 3, 8, 6, 5, 7].map(|picture| picture * 3_600));
        assert_eq!(times[2..], [0, 1, 2, 3, 4, 5, 6].map(|picture| picture * 3_600));
        assert_eq!(estimator.contradictions(), 0);
    }

    #[test]
    fn a_depth_that_proves_too_small_is_raised() {
        let mut estimator = DecodeTimeEstimator::new(90_000, Some(0));
        let pictures = [0, 2, 1, 4, 3, 6, 5, 8, 7];
        let times = run(&mut estimator, pictures.map(|picture| picture * 3_600));
        assert_eq!((estimator.reorder_depth(), estimator.contradictions()), (1, 1));
        assert!(times[2..].is_sorted());
    }

    #[test]
    fn two_fields_with_one_time_stamp_do_not_go_back() {
        let mut estimator = DecodeTimeEstimator::new(90_000, Some(0));
        assert_eq!(run(&mut estimator, [0, 0, 3_600, 3_600]), [0, 0, 3_600, 3_600]);
        assert_eq!(estimator.contradictions(), 0);
    }

    #[test]
    fn times_far_back_are_a_new_beginning() {
        let mut estimator = DecodeTimeEstimator::new(90_000, Some(1));
        run(&mut estimator, [90_000_000, 90_003_600]);
        assert_eq!(run(&mut estimator, [0, 3_600, 7_200]), [-15_000, 0, 3_600]);
        assert_eq!(estimator.contradictions(), 0);
    }

    #[test]
    fn a_stream_joined_at_an_anchor_picture_goes_back_next_without_harm() {
        let mut estimator = DecodeTimeEstimator::new(90_000, Some(1));
        let times = run(&mut estimator, [4, 1, 2, 3, 8, 5, 6, 7].map(|picture| picture * 3_600));
        assert_eq!(times, [-600, 3_600, 7_200, 10_800, 14_400, 18_000, 21_600, 25_200]);
        assert_eq!(estimator.contradictions(), 0);
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let mut estimator = DecodeTimeEstimator::new(1, None);
        for pts in [i64::MIN, i64::MAX, 0, i64::MIN, -1, i64::MAX] {
            assert!(estimator.decode_time(pts) <= pts);
        }
    }

    proptest! {
        #[test]
        fn within_the_depth_times_never_fall_and_never_pass_presentation(
            depth in 0_usize..17, told: bool, moves in prop::collection::vec(0_usize..17, 1..200),
        ) {
            let assumed = if told { depth } else { depth.min(ASSUMED_REORDER_DEPTH) };
            // A decoder's queue: each picture is shown once more than `assumed` wait, so decoding order is any order in
            // which at most `assumed` pictures come before one that is shown earlier.
            let mut waiting: Vec<i64> = (0..=assumed as i64).collect();
            let mut order = Vec::new();
            let mut held_back = 0;
            for (at, choice) in moves.iter().enumerate() {
                // The earliest may be put off only as long as the depth allows. The first picture is the first shown.
                let index = if at == 0 || held_back >= assumed { 0 } else { choice % waiting.len() };
                held_back = if index == 0 { 0 } else { held_back + 1 };
                order.push(waiting.remove(index) * 3_600);
                waiting.push((assumed + 1 + at) as i64);
            }
            let real_depth = (0..order.len())
                .map(|at| order[..at].iter().filter(|&&earlier| earlier > order[at]).count())
                .max()
                .unwrap_or(0);
            let mut estimator = DecodeTimeEstimator::new(90_000, told.then_some(real_depth.max(depth)));
            if real_depth > estimator.reorder_depth() {
                return Ok(());
            }
            let times = run(&mut estimator, order.iter().copied());
            prop_assert!(times.is_sorted_by(|a, b| a < b));
            prop_assert!(times.iter().zip(&order).all(|(dts, pts)| dts <= pts));
            prop_assert_eq!(estimator.contradictions(), 0);
        }

        #[test]
        fn whatever_comes_times_never_pass_presentation(times in prop::collection::vec(-500_000_i64..500_000, 0..100)) {
            let mut estimator = DecodeTimeEstimator::new(90_000, None);
            for pts in times {
                prop_assert!(estimator.decode_time(pts) <= pts);
                prop_assert!(estimator.reorder_depth() <= MAX_REORDER_DEPTH);
            }
        }
    }
}
