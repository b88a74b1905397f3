//! How often something may be told that others can bring about at will: a number of times at once, then once a second.

use std::time::Duration;

use super::Instant;

/// So many times at once.
const BURST: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(1);

/// What may still be told.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    left: u32,
    refilled: Instant,
    withheld: u64,
}

impl Allowance {
    /// All of it is left.
    pub const fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now, withheld: 0 }
    }

    /// `None` when it may not be told now; else how often it was not told since it last was.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        let intervals = (now.saturating_since(self.refilled).as_nanos() / INTERVAL.as_nanos()) as u32;
        self.left = self.left.saturating_add(intervals).min(BURST);
        self.refilled += INTERVAL * intervals;
        if self.left == 0 {
            self.withheld += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_then_one_a_second_and_what_was_withheld_is_counted() {
        let start = Instant::from_millis(5_000);
        let mut allowance = Allowance::new(start);
        for _ in 0..BURST {
            assert_eq!(allowance.take(start), Some(0));
        }
        for ms in 0..1_000 {
            assert_eq!(allowance.take(start + Duration::from_millis(ms)), None);
        }
        assert_eq!(allowance.take(start + Duration::from_millis(1_000)), Some(1_000));
        assert_eq!(allowance.take(start + Duration::from_millis(1_999)), None);
        assert_eq!(allowance.take(start + Duration::from_secs(3_600)), Some(1));
        assert_eq!(allowance.left, BURST - 1);
    }
}
