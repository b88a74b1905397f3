//! The shell of a shard: one glommio executor on one core. The only file that names glommio.
//!
//! glommio gives placement, and room for tasks beside the turn. It does not carry packets: its UDP sockets and its parking
//! cost eight times what the private ring does, so the turn waits inside its own ring while there is traffic, and on a plain
//! eventfd when there is none.

use std::os::fd::OwnedFd;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Why a shard's thread could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The executor refused to start, for example because locked memory is too little for its rings.
    #[error("the executor of {name} did not start: {reason}")]
    NotStarted {
        /// The shard's thread name.
        name: String,
        /// What glommio said.
        reason: String,
    },
    /// The shard's thread panicked.
    #[error("{name} ended in a panic")]
    Panicked {
        /// The shard's thread name.
        name: String,
    },
}

/// A running shard.
pub struct Shell {
    name: String,
    handle: ExecutorJoinHandle<()>,
}

impl Shell {
    /// Runs `task` on a thread of its own, pinned to `core` if one is named.
    ///
    /// # Errors
    /// [`ExecutorError::NotStarted`].
    pub fn spawn<F, Fut>(name: &str, core: Option<usize>, task: F) -> Result<Self, ExecutorError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let placement = core.map_or(Placement::Unbound, Placement::Fixed);
        let handle = LocalExecutorBuilder::new(placement)
            .name(name)
            // Its three rings need no file buffers to speak of here, and each locks what it is given.
            .io_memory(64 << 10)
            // Its timers starve beside a busy task unless it preempts often.
            .preempt_timer(Duration::from_millis(1))
            .spawn(task)
            .map_err(|error| ExecutorError::NotStarted { name: name.to_owned(), reason: error.to_string() })?;
        Ok(Self { name: name.to_owned(), handle })
    }

    /// Waits for the shard to end.
    ///
    /// # Errors
    /// [`ExecutorError::Panicked`].
    pub fn join(self) -> Result<(), ExecutorError> {
        self.handle.join().map_err(|_| ExecutorError::Panicked { name: self.name })
    }
}

/// Lets the executor's other tasks run.
pub async fn yield_now() {
    glommio::executor().yield_task_queue_now().await;
}

/// Sleeps on an eventfd that the packet ring and the mailbox write to.
///
/// In the kernel and not in the executor: glommio 0.9 was seen, on a busy machine, to sleep for ever beside an armed timer
/// and a readable eventfd. Other tasks of the shard wait meanwhile, at most as long as the turn sleeps.
pub struct Parker {
    bell: OwnedFd,
}

impl Parker {
    /// Sleeps on `eventfd`.
    pub fn new(eventfd: OwnedFd) -> Self {
        Self { bell: eventfd }
    }

    /// Sleeps until the eventfd is written to, or for `timeout`.
    pub fn park(&self, timeout: Duration) {
        let mut descriptors = [PollFd::new(&self.bell, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // Neither the count nor an error matters: the turn looks at everything anyway.
        if matches!(poll(&mut descriptors, Some(&timeout)), Ok(1..)) {
            let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn a_parked_shard_wakes_at_its_timeout_and_at_the_bell() {
        let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let parker = Parker::new(bell.try_clone().unwrap());
        let began = Instant::now();
        parker.park(Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20));
        rustix::io::write(&bell, &1_u64.to_ne_bytes()).unwrap();
        parker.park(Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(30));
        let again = Instant::now();
        parker.park(Duration::from_millis(20));
        assert!(again.elapsed() >= Duration::from_millis(20), "one ring wakes once");
    }
}
