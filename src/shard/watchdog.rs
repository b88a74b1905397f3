//! The service manager's watchdog (`WatchdogSec=`), fed only while every shard turns: a shard that hangs in the kernel, or in a
//! loop of its own, is otherwise seen by nobody, because its process goes on.

use std::time::{Duration, Instant};

use headworks_host::{ServiceManager, ServiceState, watchdog_interval};

/// Looks at the shards' turns, in the thread that waits for signals.
pub struct Watchdog {
    manager: ServiceManager,
    /// Twice per period of the manager.
    interval: Duration,
    looked: Instant,
    shards: Vec<Seen>,
}

/// A shard as it was at the last look.
#[derive(Clone, Copy)]
struct Seen {
    turns: u64,
    at: Instant,
    is_hung: bool,
}

impl Watchdog {
    /// From the environment; `None` when no service manager watches.
    pub fn from_environment(turns: &[u64]) -> Option<Self> {
        Some(Self::new(ServiceManager::from_environment()?, watchdog_interval()?, turns, Instant::now()))
    }

    fn new(manager: ServiceManager, interval: Duration, turns: &[u64], now: Instant) -> Self {
        let shards = turns.iter().map(|&turns| Seen { turns, at: now, is_hung: false }).collect();
        Self { manager, interval, looked: now, shards }
    }

    /// The longest wait until the next look.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Feeds the manager when that is due and every shard has turned since the last time, and names those that have not.
    /// An idle shard turns too, twenty times a second.
    pub fn look(&mut self, turns: &[u64], now: Instant) {
        if now.saturating_duration_since(self.looked) < self.interval {
            return;
        }
        self.looked = now;
        for (shard, (seen, &turns)) in self.shards.iter_mut().zip(turns).enumerate() {
            let silence = now.saturating_duration_since(seen.at);
            let is_hung = turns == seen.turns;
            match (seen.is_hung, is_hung) {
                (false, true) => {
                    tracing::error!(
                        "shard {shard} has not turned for {silence:.1?}, after {turns} turns: the watchdog is not fed"
                    );
                }
                (true, false) => tracing::warn!("shard {shard} turns again, after {silence:.1?}"),
                _ => {}
            }
            let at = if is_hung { seen.at } else { now };
            *seen = Seen { turns, at, is_hung };
        }
        if self.shards.iter().all(|seen| !seen.is_hung) {
            // A manager that is gone, or reads late, is nothing to end for.
            let _ = self.manager.notify(ServiceState::Watchdog);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::os::unix::net::UnixDatagram;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A log to be read by the test.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_manager_is_fed_only_while_every_shard_turns_and_who_does_not_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let fed = || {
            let mut buffer = [0; 64];
            let length = listener.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        };
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let manager = ServiceManager::at(path.as_os_str()).unwrap();
        let mut watchdog = Watchdog::new(manager, Duration::from_millis(100), &[5, 7], began);
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(log, || {
            watchdog.look(&[6, 8], at(99));
            assert_eq!(fed(), None, "not due yet");
            watchdog.look(&[6, 8], at(100));
            assert_eq!(fed().as_deref(), Some("WATCHDOG=1"));
            watchdog.look(&[7, 8], at(200));
            watchdog.look(&[8, 8], at(300));
            assert_eq!(fed(), None, "the second shard does not turn");
            watchdog.look(&[9, 9], at(400));
            assert_eq!((fed().as_deref(), fed()), (Some("WATCHDOG=1"), None));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let said: Vec<&str> = text.lines().map(|line| &line[line.find("shard 1").unwrap()..]).collect();
        assert_eq!(
            said,
            [
                "shard 1 has not turned for 100.0ms, after 8 turns: the watchdog is not fed",
                "shard 1 turns again, after 300.0ms"
            ]
        );
    }
}
