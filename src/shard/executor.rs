//! The shell of a shard: one glommio executor on one core. The only file that names glommio.
//!
//! glommio gives placement, and room for tasks beside the turn. It does not carry packets, because its UDP sockets cost eight
//! times what the private ring does; and it does not sleep for the turn, because an executor that sleeps on a descriptor beside
//! a timer was seen not to wake again under load. The turn sleeps inside its own ring, always for a bounded time, and lets the
//! executor's other tasks run after each turn.

use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

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
