//! The shell of a shard: one executor on one core. The only file that names glommio.
//!
//! glommio gives a named and pinned thread. It does not carry packets, because its UDP sockets cost eight times what the private
//! ring does; and it does not sleep for the turn, because glommio 0.9 was seen, on a busy machine, in its own sleep for ever with
//! a timer armed beside a descriptor. So the turn keeps the thread while the shard lives, and sleeps inside its own net, always for
//! a bounded time.
//!
//! It was seen in that sleep even before the first task: its loop arms the timer by which tasks are preempted, and when that has run
//! out before the loop comes to the tasks, which takes no more than another thread on the core meanwhile, it runs none of them and
//! sleeps although they are ready, for ever. One start in 500 was lost so with a timer of 1 ms. Nothing here is to be preempted, so
//! the timer is put off beyond any start.
//!
//! glommio cannot do without io_uring, and a shard that gets its packets without it is given a plain thread instead.

use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{BuilderErrorKind, ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};
use headworks_host::{PinError, pin_current_thread};

use super::net::Way;

/// When glommio is to preempt a task: see above.
const PREEMPT_NEVER: Duration = Duration::from_secs(24 * 60 * 60);

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
                    .preempt_timer(PREEMPT_NEVER)
                    .spawn(task);
                Handle::Glommio(executor.map_err(|error| not_started(error.to_string()))?)
            }
            Way::Mmsg | Way::Xdp | Way::Dpdk => {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    /// Of many executors on one core, all but one have to wait for it between their start and their first task.
    #[test]
    fn a_shell_runs_its_task_however_late_its_thread_gets_the_core() {
        const SHELLS: usize = 64;
        let core = headworks_host::available_cores()[0];
        for _ in 0..10 {
            let (ran, runs) = channel();
            let shells: Vec<Shell> = (0..SHELLS)
                .map(|index| {
                    let ran = ran.clone();
                    let task = move || async move {
                        // Long enough that others wait for the core.
                        let began = Instant::now();
                        while began.elapsed() < Duration::from_millis(2) {}
                        ran.send(index).expect("the test waits");
                    };
                    Shell::spawn(&format!("shell-{index}"), Some(core), Way::Uring, task).unwrap()
                })
                .collect();
            let mut missing: Vec<usize> = (0..SHELLS).collect();
            while !missing.is_empty() {
                match runs.recv_timeout(Duration::from_secs(10)) {
                    Ok(index) => missing.retain(|&it| it != index),
                    Err(_) => panic!("of {SHELLS} tasks these never ran: {missing:?}"),
                }
            }
            shells.into_iter().for_each(|shell| shell.join().unwrap());
        }
    }
}
