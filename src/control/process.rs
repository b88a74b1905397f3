//! What this process takes of the machine, from `/proc/self`.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Processor time is measured over at least this long.
const MEASURED_OVER: Duration = Duration::from_millis(500);

/// Measures processor time between two looks.
#[derive(Debug, Default)]
pub struct ProcessMeter {
    last: Mutex<Option<Look>>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    cpu_s: f64,
    cores: f64,
}

impl ProcessMeter {
    /// Processor time per time since the look before, in percent of one core: 150 is one core and a half. The first look
    /// gives the mean since the process began.
    pub fn cpu_percent(&self, since_start: Duration) -> f64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = *last
            && look.at.elapsed() < MEASURED_OVER
        {
            return look.cores * 100.0;
        }
        let cpu_s = cpu_seconds().unwrap_or(0.0);
        let (before_s, over) = last.map_or((0.0, since_start), |look| (look.cpu_s, look.at.elapsed()));
        let cores = (cpu_s - before_s).max(0.0) / over.as_secs_f64().max(0.001);
        *last = Some(Look { at: Instant::now(), cpu_s, cores });
        cores * 100.0
    }
}

/// Processor time that this process has used, user and system, in seconds.
pub fn cpu_seconds() -> Option<f64> {
    parse_cpu_ticks(&fs::read_to_string("/proc/self/stat").ok()?)
        .map(|ticks| ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident memory of this process in bytes, mapped rings included.
pub fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// utime and stime of `/proc/PID/stat`. The second field is the command's name, which may hold anything, even brackets.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15";
        assert_eq!(parse_cpu_ticks(stat), Some(300));
        assert_eq!(parse_cpu_ticks("12 a"), None);
    }

    #[test]
    fn this_process_takes_memory_and_a_repeated_question_gets_the_same_answer() {
        assert!(memory_bytes().unwrap() > 100_000);
        let meter = ProcessMeter::default();
        let first = meter.cpu_percent(Duration::from_secs(1));
        assert!(first >= 0.0);
        assert_eq!(meter.cpu_percent(Duration::from_secs(1)).to_bits(), first.to_bits());
    }
}
