//! The thread for everything that may block: files, rings, key derivation, clearing away.

use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Jobs that may wait. A shard that finds it full drops what it wanted done, as a peer would find a busy host.
const JOBS_MAX: usize = 1_024;
/// How often the regular work is done.
const TICK: Duration = Duration::from_millis(100);

/// A piece of work that may block.
pub type Job = Box<dyn FnOnce() + Send>;

/// The queue is full: the host has more strangers at its door than it can judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{JOBS_MAX} housekeeping jobs are waiting already")]
pub struct Busy;

/// A handle to the thread; clones lead to the same one. It ends, its jobs done, when the last handle is gone.
#[derive(Clone, Debug)]
pub struct Housekeeping {
    jobs: SyncSender<Job>,
}

impl Housekeeping {
    /// Starts the thread; `tick` is called between jobs, ten times a second.
    ///
    /// # Panics
    /// When the system has no thread left at start.
    pub fn start(name: &str, mut tick: impl FnMut() + Send + 'static) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::sync_channel::<Job>(JOBS_MAX);
        let run = move || {
            let mut next_tick = std::time::Instant::now() + TICK;
            loop {
                match receiver.recv_timeout(next_tick.saturating_duration_since(std::time::Instant::now())) {
                    Ok(job) => job(),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if std::time::Instant::now() >= next_tick {
                    tick();
                    next_tick = std::time::Instant::now() + TICK;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread can be started");
        (Self { jobs: sender }, thread)
    }

    /// Hands over a job; never waits.
    ///
    /// # Errors
    /// [`Busy`] when too many are waiting.
    pub fn submit(&self, job: Job) -> Result<(), Busy> {
        self.offer(job).map_err(|_| Busy)
    }

    /// As [`submit`](Self::submit), for a job that must be done one day.
    ///
    /// # Errors
    /// The job, when too many are waiting.
    pub fn offer(&self, job: Job) -> Result<(), Job> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) => job,
            TrySendError::Disconnected(_) => unreachable!("the thread lives as long as its handles"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn jobs_are_done_in_order_and_all_of_them_before_the_thread_ends() {
        let (housekeeping, thread) = Housekeeping::start("test-house", || {});
        let (sender, receiver) = mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            housekeeping.submit(Box::new(move || sender.send(number).unwrap())).unwrap();
        }
        drop((housekeeping, sender));
        thread.join().unwrap();
        assert_eq!(receiver.iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_refuses_and_does_not_wait() {
        let (housekeeping, thread) = Housekeeping::start("test-house", || {});
        let (release, held) = mpsc::channel::<()>();
        housekeeping.submit(Box::new(move || held.recv().unwrap())).unwrap();
        let refused = (0..2 * JOBS_MAX).filter(|_| housekeeping.submit(Box::new(|| {})).is_err()).count();
        assert!((JOBS_MAX..=JOBS_MAX + 1).contains(&refused), "{refused}");
        release.send(()).unwrap();
        drop(housekeeping);
        thread.join().unwrap();
    }

    #[test]
    fn the_regular_work_is_done_between_jobs() {
        let count = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&count);
        let (housekeeping, thread) = Housekeeping::start("test-house", move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        while count.load(Ordering::Relaxed) < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(housekeeping);
        thread.join().unwrap();
    }
}
