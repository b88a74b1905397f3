//! The only place that reads clocks for the data path.

use crate::base::Instant;

/// Reads the monotonic clock and places the kernel's wall-clock packet stamps on it.
///
/// `SO_TIMESTAMPNS` is wall-clock time; the offset between the two clocks is taken once per turn, so that a step of the wall
/// clock (NTP, an operator) harms at most one turn's stamps, and a stamp is never later than the turn's own time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    now: Instant,
    realtime_offset_ns: i64,
}

impl Clock {
    /// A clock that has been read once.
    pub fn new() -> Self {
        let mut clock = Self { now: Instant::ZERO, realtime_offset_ns: 0 };
        clock.read();
        clock
    }

    /// Reads both clocks and gives the turn's time.
    #[inline]
    pub fn read(&mut self) -> Instant {
        self.realtime_offset_ns = headworks_host::realtime_offset_ns();
        self.now = Instant::from_nanos(headworks_host::monotonic_now_ns());
        self.now
    }

    /// The turn's time: that of the last [`read`](Self::read).
    #[inline]
    pub fn turn(&self) -> Instant {
        self.now
    }

    /// The time right now, without the wall clock.
    #[inline]
    pub fn now() -> Instant {
        Instant::from_nanos(headworks_host::monotonic_now_ns())
    }

    /// The moment of a kernel stamp (nanoseconds of `CLOCK_REALTIME`); the turn's time when there is none.
    #[inline]
    pub fn arrival(&self, stamp_realtime_ns: Option<u64>) -> Instant {
        match stamp_realtime_ns {
            None => self.now,
            Some(stamp) => {
                let monotonic_ns = (stamp as i64).saturating_sub(self.realtime_offset_ns);
                Instant::from_nanos(u64::try_from(monotonic_ns).unwrap_or(0)).min(self.now)
            }
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_moved_to_the_monotonic_clock_and_never_lies_ahead() {
        let clock = Clock { now: Instant::from_millis(500), realtime_offset_ns: 1_000_000_000_000 };
        assert_eq!(clock.arrival(Some(1_000_400_000_000)), Instant::from_millis(400));
        assert_eq!(clock.arrival(Some(1_000_600_000_000)), Instant::from_millis(500));
        assert_eq!(clock.arrival(Some(0)), Instant::ZERO);
        assert_eq!(clock.arrival(None), Instant::from_millis(500));
    }
}
