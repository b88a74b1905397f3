//! Clocks.

use rustix::time::{ClockId, clock_gettime};

fn read_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CLOCK_MONOTONIC, nanoseconds: what all timers and time stamps inside Headworks are in.
#[inline]
pub fn monotonic_now_ns() -> u64 {
    read_ns(ClockId::Monotonic)
}

/// CPU time this thread has used, nanoseconds.
pub fn thread_cpu_time_ns() -> u64 {
    read_ns(ClockId::ThreadCPUTime)
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC, nanoseconds: subtract it from a kernel time stamp.
///
/// The two cannot be read at once. Of a few attempts the one with the shortest distance between the readings around it counts, so
/// that a preemption does not end up in the result; the error is half that distance, some 20 ns.
/// It changes when the wall clock is set or slewed: take it once per turn, and never trust a converted stamp beyond now.
pub fn realtime_offset_ns() -> i64 {
    let mut best = (u64::MAX, 0);
    for _ in 0..3 {
        let before = monotonic_now_ns();
        let real = read_ns(ClockId::Realtime);
        let after = monotonic_now_ns();
        let width = after - before;
        if width < best.0 {
            best = (width, real as i64 - (before + width / 2) as i64);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_goes_forward() {
        let before = monotonic_now_ns();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let passed = monotonic_now_ns() - before;
        assert!((2_000_000..2_000_000_000).contains(&passed), "{passed} ns");
    }

    #[test]
    fn the_offset_turns_wall_clock_into_monotonic_time() {
        let offset = realtime_offset_ns();
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
        let difference = (monotonic_now_ns() as i64 - (wall - offset)).abs();
        assert!(difference < 50_000_000, "{difference} ns apart");
    }

    #[test]
    fn a_sleeping_thread_uses_little_cpu_time() {
        let before = thread_cpu_time_ns();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(thread_cpu_time_ns() - before < 25_000_000);
    }
}
