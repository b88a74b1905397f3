//! When each session of a shard next wants to be called, in one dense array.
//!
//! A scan over it is a few nanoseconds per hundred sessions and has no bookkeeping when a deadline moves, which it does
//! with every packet; a heap or a wheel would pay per packet what this pays per turn.

use crate::base::Instant;

/// Deadlines by session index.
#[derive(Debug, Default)]
pub struct Timers {
    deadlines: Vec<Instant>,
}

impl Timers {
    /// Sets or clears the deadline of session `index`.
    #[inline]
    pub fn set(&mut self, index: usize, deadline: Option<Instant>) {
        if index >= self.deadlines.len() {
            self.deadlines.resize(index + 1, Instant::FAR_FUTURE);
        }
        self.deadlines[index] = deadline.unwrap_or(Instant::FAR_FUTURE);
    }

    /// The first session at or after `from` whose deadline has come.
    #[inline]
    pub fn next_due(&self, from: usize, now: Instant) -> Option<usize> {
        self.deadlines.get(from..)?.iter().position(|&deadline| deadline <= now).map(|offset| from + offset)
    }

    /// The earliest deadline.
    #[inline]
    pub fn earliest(&self) -> Option<Instant> {
        self.deadlines.iter().copied().min().filter(|&deadline| deadline != Instant::FAR_FUTURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_sessions_are_found_in_order_and_the_earliest_is_known() {
        let mut timers = Timers::default();
        assert_eq!(timers.earliest(), None);
        timers.set(3, Some(Instant::from_millis(30)));
        timers.set(1, Some(Instant::from_millis(10)));
        timers.set(0, Some(Instant::from_millis(50)));
        assert_eq!(timers.earliest(), Some(Instant::from_millis(10)));
        let now = Instant::from_millis(30);
        assert_eq!(timers.next_due(0, now), Some(1));
        assert_eq!(timers.next_due(2, now), Some(3));
        assert_eq!(timers.next_due(4, now), None);
        timers.set(1, None);
        assert_eq!(timers.earliest(), Some(Instant::from_millis(30)));
    }
}
