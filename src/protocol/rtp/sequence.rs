//! Sequence numbers of one source judged, its losses and its jitter (RFC 3550 A.1, A.3, A.8).

use crate::base::Instant;

/// Consecutive packets that prove a source, or a new beginning of its sequence (RFC 3550 A.1).
pub const MIN_SEQUENTIAL: u32 = 2;
/// A packet this far or farther ahead is no loss but a jump (RFC 3550 A.1).
pub const MAX_DROPOUT: u16 = 3000;
/// A packet this far or farther back is no reordering but a jump (RFC 3550 A.1), unless more reordering is provided for.
pub const MAX_MISORDER: u16 = 100;

/// Follows the sequence numbers of a proven source over their wraps.
///
/// Positions are 64 bits wide and never go back, not even when the source starts anew; their low 16 bits are always the
/// sequence number on the wire, so that a position can be found in a capture.
#[derive(Clone, Debug)]
pub struct SequenceTracker {
    max_misorder: u16,
    highest: u64,
    base: u64,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
}

/// What a sequence number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It belongs to the running sequence, at this position.
    At(u64),
    /// It is too far from the running sequence.
    Jump,
}

/// The loss figures of a report block (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossReport {
    /// Packets lost since the last report, in 256ths of those expected.
    pub fraction_lost: u8,
    /// Packets lost since the start, less duplicates; within 24 bits with sign.
    pub cumulative_lost: i32,
    /// Highest sequence number received, with the number of wraps above its 16 bits.
    pub extended_highest_sequence: u32,
}

impl SequenceTracker {
    /// A source whose first packet has this sequence number, and whose packets may come up to `reorder_depth` positions late.
    pub fn new(first: u16, reorder_depth: usize) -> Self {
        // A jump back of a quarter of the numbers must remain one.
        let max_misorder = reorder_depth.saturating_add(1).clamp(usize::from(MAX_MISORDER), 1 << 14) as u16;
        // One turn up, so that packets from before the first one have a position too.
        Self::starting_at((1 << 16) + u64::from(first), max_misorder)
    }

    fn starting_at(base: u64, max_misorder: u16) -> Self {
        Self { max_misorder, highest: base - 1, base, received: 0, expected_prior: 0, received_prior: 0 }
    }

    /// The source starts anew at this sequence number; gives its position, which is above all before.
    pub fn restart(&mut self, first: u16) -> u64 {
        let ahead = first.wrapping_sub(self.highest as u16).wrapping_sub(1);
        *self = Self::starting_at(self.highest + 1 + u64::from(ahead), self.max_misorder);
        self.base
    }

    /// Judges a sequence number without counting it.
    #[inline]
    pub fn judge(&self, sequence: u16) -> Judgement {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead < MAX_DROPOUT {
            Judgement::At(self.highest + u64::from(ahead))
        } else if ahead > self.max_misorder.wrapping_neg() {
            Judgement::At(self.highest - u64::from(ahead.wrapping_neg()))
        } else {
            Judgement::Jump
        }
    }

    /// Counts a packet at a position that [`judge`](Self::judge) gave.
    #[inline]
    pub fn count(&mut self, position: u64) {
        self.highest = self.highest.max(position);
        self.received += 1;
    }

    /// The highest position counted.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Packets expected since the start (RFC 3550 A.3).
    pub fn expected(&self) -> u64 {
        self.highest + 1 - self.base
    }

    /// Packets expected less those received, duplicates included: negative when there are many of these (RFC 3550 A.3).
    pub fn lost(&self) -> i64 {
        self.expected() as i64 - self.received as i64
    }

    /// The figures for a report block; the fraction counts from one call to the next (RFC 3550 A.3).
    pub fn report(&mut self) -> LossReport {
        let expected = self.expected();
        let expected_interval = expected - self.expected_prior;
        let received_interval = self.received - self.received_prior;
        self.expected_prior = expected;
        self.received_prior = self.received;
        let lost_interval = expected_interval.saturating_sub(received_interval);
        let fraction_lost = (lost_interval << 8).checked_div(expected_interval).unwrap_or(0).min(255) as u8;
        // The wraps are counted from the first packet on, as every receiver does.
        let extended = (self.base & 0xffff) + (self.highest + 1 - self.base);
        LossReport {
            fraction_lost,
            cumulative_lost: self.lost().clamp(-0x80_0000, 0x7f_ffff) as i32,
            extended_highest_sequence: extended.wrapping_sub(1) as u32,
        }
    }
}

/// Interarrival jitter (RFC 3550 §6.4.1, A.8).
#[derive(Clone, Copy, Debug, Default)]
pub struct Jitter {
    last: Option<(Instant, u32)>,
    /// In sixteenths of a tick.
    scaled: u64,
}

impl Jitter {
    /// Counts a packet that arrived at `arrival` with a time stamp of a clock with `clock_rate` ticks per second.
    #[inline]
    pub fn count(&mut self, arrival: Instant, timestamp: u32, clock_rate: u32) {
        /// Longer pauses say nothing about jitter, and keep the product below 64 bits.
        const LONGEST_NS: i64 = 1_000_000_000;
        if let Some((last_arrival, last_timestamp)) = self.last {
            let arrival_ns = arrival.signed_nanos_since(last_arrival).clamp(-LONGEST_NS, LONGEST_NS);
            let arrival_ticks = arrival_ns * i64::from(clock_rate) / 1_000_000_000;
            let media_ticks = i64::from(timestamp.wrapping_sub(last_timestamp) as i32);
            let difference = (arrival_ticks - media_ticks).unsigned_abs();
            self.scaled = self.scaled + difference - ((self.scaled + 8) >> 4);
        }
        self.last = Some((arrival, timestamp));
    }

    /// The estimate, in ticks.
    pub fn ticks(&self) -> u32 {
        u32::try_from(self.scaled >> 4).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tracker: &mut SequenceTracker, sequences: impl IntoIterator<Item = u16>) {
        for sequence in sequences {
            match tracker.judge(sequence) {
                Judgement::At(position) => tracker.count(position),
                Judgement::Jump => panic!("{sequence} is a jump"),
            }
        }
    }

    #[test]
    fn positions_run_on_over_the_wrap_and_show_the_sequence_number() {
        let mut tracker = SequenceTracker::new(65_534, 0);
        assert_eq!(tracker.judge(65_534), Judgement::At((1 << 16) + 65_534));
        run(&mut tracker, [65_534, 65_535]);
        assert_eq!(tracker.judge(0), Judgement::At(2 << 16));
        run(&mut tracker, [0, 1]);
        assert_eq!(tracker.judge(65_535), Judgement::At((1 << 16) + 65_535));
        assert_eq!((tracker.expected(), tracker.lost()), (4, 0));
        assert_eq!(tracker.report().extended_highest_sequence, (1 << 16) + 1);
    }

    #[test]
    fn the_limits_of_dropout_and_misorder_are_those_of_the_rfc() {
        let mut tracker = SequenceTracker::new(0, 0);
        run(&mut tracker, 0..=1000);
        let highest = tracker.highest();
        assert_eq!(tracker.judge(1000 + 2999), Judgement::At(highest + 2999));
        assert_eq!(tracker.judge(1000 + 3000), Judgement::Jump);
        assert_eq!(tracker.judge(1000 - 99), Judgement::At(highest - 99));
        assert_eq!(tracker.judge(1000 - 100), Judgement::Jump);
    }

    #[test]
    fn where_more_reordering_is_provided_for_it_is_no_jump() {
        for (reorder_depth, back) in [(100, 100), (2_000, 2_000), (usize::MAX, (1 << 14) - 1)] {
            let mut tracker = SequenceTracker::new(0, reorder_depth);
            run(&mut tracker, 0..=20_000);
            let highest = tracker.highest();
            assert_eq!(tracker.judge(20_000 - back), Judgement::At(highest - u64::from(back)));
            assert_eq!(tracker.judge(20_000 - back - 1), Judgement::Jump);
        }
    }

    #[test]
    fn a_restart_goes_up_to_the_next_position_with_that_sequence_number() {
        let mut tracker = SequenceTracker::new(100, 0);
        run(&mut tracker, [100, 101]);
        let position = tracker.restart(7);
        assert_eq!(position, (2 << 16) + 7);
        assert_eq!(tracker.judge(7), Judgement::At(position));
        assert_eq!((tracker.expected(), tracker.lost()), (0, 0));
        let position = tracker.restart(8);
        assert_eq!(position, (2 << 16) + 8, "a packet that was announced but never came does not count");
    }

    #[test]
    fn loss_is_reported_per_interval_and_in_all() {
        let mut tracker = SequenceTracker::new(0, 0);
        run(&mut tracker, [0, 1, 3]);
        let first = tracker.report();
        assert_eq!((first.fraction_lost, first.cumulative_lost, first.extended_highest_sequence), (64, 1, 3));
        run(&mut tracker, [4, 4, 4]);
        let second = tracker.report();
        assert_eq!((second.fraction_lost, second.cumulative_lost), (0, -1));
        assert_eq!(tracker.report().fraction_lost, 0);
    }

    #[test]
    fn jitter_follows_the_formula_of_the_rfc() {
        let mut jitter = Jitter::default();
        let mut expected = 0.0_f64;
        let mut arrival = Instant::from_millis(1_000);
        for round in 0..200_u32 {
            jitter.count(arrival, round.wrapping_mul(3600).wrapping_sub(5_000), 90_000);
            if round > 0 {
                // The packets come alternately 2 ms early and late, so each spacing is off by 180 ticks.
                expected += (180.0 - expected) / 16.0;
            }
            arrival = arrival.offset_nanos(40_000_000 + if round % 2 == 0 { 2_000_000 } else { -2_000_000 });
        }
        assert!((f64::from(jitter.ticks()) - expected).abs() <= 1.0, "{} is not {expected}", jitter.ticks());
    }

    #[test]
    fn even_spacing_has_no_jitter_even_over_the_wrap_of_the_time_stamp() {
        let mut jitter = Jitter::default();
        for round in 0..10_u32 {
            jitter.count(Instant::from_millis(u64::from(round) * 40), (round * 3600).wrapping_sub(7_200), 90_000);
        }
        assert_eq!(jitter.ticks(), 0);
    }
}
