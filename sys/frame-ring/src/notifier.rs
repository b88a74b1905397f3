//! A ring or stream in an event loop. The kernel can poll no futex, so a thread sleeps on it and passes what happens on: to an eventfd,
//! for `poll` and its kin, and to a task, for any executor.
//!
//! Whoever is told clears first and looks afterwards, until there is nothing left:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use headworks_frame_ring::reader::Start;
//! # use headworks_frame_ring::stream_reader::{StreamEvent, StreamNext, StreamReader};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut reader = StreamReader::open("/dev/shm/headworks/cam1".as_ref(), Start::Key, None)?;
//! let notifier = reader.notifier()?;
//! loop {
//!     notifier.changed().await;
//!     loop {
//!         match reader.next(Duration::ZERO) {
//!             StreamNext::Frame { frame, .. } => println!("{} bytes", frame.payload.len()),
//!             StreamNext::Event(StreamEvent::Timeout) => break,
//!             StreamNext::Event(StreamEvent::Ended) => return Ok(()),
//!             StreamNext::Event(event) => println!("{event:?}"),
//!         }
//!     }
//! }
//! # }
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::wake::{WAIT_MAX, WakeTarget};

/// Told at least this often, so that a reader that only looks when it is told finds a dead writer too.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// The word that is slept on; another one when a reader of a stream went on in another directory.
pub(crate) type Source = Arc<Mutex<WakeTarget>>;

/// Tells of every change of a ring or stream, at once, and every half second besides. Made by `Reader::notifier` and
/// `StreamReader::notifier`; independent of them afterwards.
#[derive(Debug)]
pub struct Notifier {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    event: OwnedFd,
    task: Mutex<Option<Waker>>,
    over: AtomicBool,
}

impl Notifier {
    pub(crate) fn start(source: Source) -> io::Result<Self> {
        // Readable from the beginning: whatever came before is to be looked at.
        let event = eventfd(1, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared { event, task: Mutex::new(None), over: AtomicBool::new(false) });
        let theirs = Arc::clone(&shared);
        let mut target = lock(&source).clone();
        let mut seen = target.value();
        let run = move || {
            let mut told = Instant::now();
            // Pairs with the store in `Drop`.
            while !theirs.over.load(Acquire) {
                target.wait(seen, WAIT_MAX);
                let now = lock(&source).clone();
                let value = now.value();
                if value != seen || !now.is(&target) || told.elapsed() >= TOLD_EVERY {
                    (target, seen, told) = (now, value, Instant::now());
                    theirs.tell();
                }
            }
        };
        std::thread::Builder::new().name("frame-ring".to_owned()).spawn(run)?;
        Ok(Self { shared })
    }

    /// Whether something happened since this was asked last. Ask before looking: what comes later is told again.
    pub fn clear(&self) -> bool {
        rustix::io::read(&self.shared.event, &mut [0; 8]).is_ok()
    }

    /// Comes back when something has happened since [`Notifier::clear`] or this was called last. For one task at a time.
    pub async fn changed(&self) {
        std::future::poll_fn(|context| self.poll_changed(context)).await;
    }

    /// [`Notifier::changed`], by hand.
    pub fn poll_changed(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.clear() {
            return Poll::Ready(());
        }
        *lock(&self.shared.task) = Some(context.waker().clone());
        // It may have happened before the task was known.
        if self.clear() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl AsFd for Notifier {
    /// An eventfd: readable as long as [`Notifier::clear`] would say yes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        // The thread finds it when its wait is over.
        self.shared.over.store(true, Release);
    }
}

impl Shared {
    fn tell(&self) {
        // Full after 2⁶⁴ − 1 times without a reader, and readable then too.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        if let Some(task) = lock(&self.task).take() {
            task.wake();
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
