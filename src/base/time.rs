//! Time as a value that is handed in: nothing below the shard floor reads a clock.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment on the host's monotonic clock, in nanoseconds (`CLOCK_MONOTONIC` on a shard, anything in a simulation).
///
/// Unlike `std::time::Instant` it can be made from a number, so that a simulation can own the clock and a ring can carry it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);
    /// Later than every other moment; what "never" compares as.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The moment `ns` nanoseconds after the clock's origin.
    #[inline]
    pub const fn from_nanos(ns: u64) -> Self {
        Self(ns)
    }

    /// The moment `us` microseconds after the clock's origin.
    #[inline]
    pub const fn from_micros(us: u64) -> Self {
        Self(us * 1_000)
    }

    /// The moment `ms` milliseconds after the clock's origin.
    #[inline]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// Nanoseconds since the clock's origin.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Microseconds since the clock's origin, rounded down.
    #[inline]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[inline]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Signed distance `self - other` in nanoseconds.
    #[inline]
    pub const fn signed_nanos_since(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }

    /// This moment moved by a signed number of nanoseconds, held within the clock's range.
    #[inline]
    pub const fn offset_nanos(self, ns: i64) -> Self {
        Self(self.0.saturating_add_signed(ns))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    #[inline]
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    #[inline]
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_moves_by_durations_and_never_leaves_its_range() {
        let moment = Instant::from_millis(5);
        assert_eq!(moment + Duration::from_micros(1), Instant::from_nanos(5_001_000));
        assert_eq!(moment - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::FAR_FUTURE + Duration::from_secs(1), Instant::FAR_FUTURE);
        assert_eq!(moment.offset_nanos(-1).as_nanos(), 4_999_999);
    }

    #[test]
    fn distance_has_a_sign_only_when_asked_for() {
        let (early, late) = (Instant::from_micros(1), Instant::from_micros(3));
        assert_eq!(late.saturating_since(early), Duration::from_micros(2));
        assert_eq!(early.saturating_since(late), Duration::ZERO);
        assert_eq!(early.signed_nanos_since(late), -2_000);
    }
}
