//! The shell of a shard: one glommio executor on one core. The only file that names glommio.
//!
//! glommio gives a named and pinned thread. It does not carry packets, because its UDP sockets cost eight times what the private
//! ring does; and it does not sleep for the turn, because glommio 0.9 was seen, on a busy machine, in its own sleep for ever with
//! a timer armed beside a descriptor, and is suspected of it after a mere yield. So the turn keeps the thread while the shard
//! lives, and sleeps inside its own ring, always for a bounded time.

use std::time::Duration;

use glommio::{BuilderErrorKind, ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};

/// Why a shard's thread could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The executor refused to start, nearly always because locked memory is too little for its rings.
    #[error("the executor of {name} did not start: {reason}; `headworks check` says what this host lacks")]
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
    /// [`ExecutorError`]: what stands in an executor's way shows in its own thread.
    pub fn join(self) -> Result<(), ExecutorError> {
        self.handle.join().map_err(|error| match error {
            GlommioError::BuilderError(BuilderErrorKind::ThreadPanic(_)) => ExecutorError::Panicked { name: self.name },
            other => ExecutorError::NotStarted { name: self.name, reason: other.to_string() },
        })
    }
}
