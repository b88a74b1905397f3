//! The shell of a shard: one executor on one core. The only file that names glommio.
//!
//! glommio gives a named and pinned thread. It does not carry packets, because its UDP sockets cost eight times what the private
//! ring does; and it does not sleep for the turn, because glommio 0.9 was seen, on a busy machine, in its own sleep for ever with
//! a timer armed beside a descriptor, and is suspected of it after a mere yield. So the turn keeps the thread while the shard
//! lives, and sleeps inside its own net, always for a bounded time.
//!
//! glommio cannot do without io_uring, and a shard that gets its packets without it is given a plain thread instead.

use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{BuilderErrorKind, ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};
use headworks_host::{PinError, pin_current_thread};

use super::net::Way;

/// Why a shard's thread could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The executor refused to start, nearly always because locked memory is too little for its rings.
    #[error("the executor of {name} did not start: {reason}; `headworks check` says what this host lacks")]
    NotStarted {
        /// The shard's thread name.
        name: String,
        /// What stands in its way.
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
    handle: Handle,
}

enum Handle {
    Glommio(ExecutorJoinHandle<()>),
    Plain(JoinHandle<Result<(), PinError>>),
}

impl Shell {
    /// Runs `task`, which gets its packets by `way`, on a thread of its own, pinned to `core` if one is named.
    ///
    /// # Errors
    /// [`ExecutorError::NotStarted`].
    pub fn spawn<F, Fut>(name: &str, core: Option<usize>, way: Way, task: F) -> Result<Self, ExecutorError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let not_started = |reason: String| ExecutorError::NotStarted { name: name.to_owned(), reason };
        let handle = match way {
            Way::Uring => {
                let placement = core.map_or(Placement::Unbound, Placement::Fixed);
                let executor = LocalExecutorBuilder::new(placement)
                    .name(name)
                    // Its three rings need no file buffers to speak of here, and each locks what it is given.
                    .io_memory(64 << 10)
                    // Its timers starve beside a busy task unless it preempts often.
                    .preempt_timer(Duration::from_millis(1))
                    .spawn(task);
                Handle::Glommio(executor.map_err(|error| not_started(error.to_string()))?)
            }
            Way::Mmsg | Way::Xdp => {
                let run = move || {
                    core.map_or(Ok(()), pin_current_thread)?;
                    futures_lite::future::block_on(task());
                    Ok(())
                };
                let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
                Handle::Plain(thread.map_err(|error| not_started(error.to_string()))?)
            }
        };
        Ok(Self { name: name.to_owned(), handle })
    }

    /// Waits for the shard to end.
    ///
    /// # Errors
    /// [`ExecutorError`]: what stands in an executor's way shows in its own thread.
    pub fn join(self) -> Result<(), ExecutorError> {
        let name = self.name;
        match self.handle {
            Handle::Glommio(handle) => handle.join().map_err(|error| match error {
                GlommioError::BuilderError(BuilderErrorKind::ThreadPanic(_)) => ExecutorError::Panicked { name },
                other => ExecutorError::NotStarted { name, reason: other.to_string() },
            }),
            Handle::Plain(handle) => match handle.join() {
                Ok(outcome) => outcome.map_err(|error| ExecutorError::NotStarted { name, reason: error.to_string() }),
                Err(_) => Err(ExecutorError::Panicked { name }),
            },
        }
    }
}
