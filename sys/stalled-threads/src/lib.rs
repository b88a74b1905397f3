//! For tests of what a thread that stands still does to others: one thread of this process sleeps in a signal's handler, wherever
//! it was, while all others go on. `SIGSTOP` would stop them all.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use headworks_stalled_threads::{current_thread, stall};
//!
//! let began = Instant::now();
//! stall(current_thread(), Duration::from_millis(20)).unwrap();
//! assert!(began.elapsed() >= Duration::from_millis(20));
//! ```

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SIGNAL: libc::c_int = libc::SIGUSR2;

/// How long the next thread to take the signal sleeps, in ns; 0 when nobody is to.
static PAUSE_NS: AtomicU64 = AtomicU64::new(0);

/// The number by which the kernel knows this thread (`gettid(2)`).
pub fn current_thread() -> i32 {
    // SAFETY: takes and gives nothing but a number.
    unsafe { libc::gettid() }
}

/// Has a thread of this process stand still for `pause`, from now on. The signal `SIGUSR2` of this process is used for it, and one
/// thread is stalled at a time: call again when that goes on.
///
/// # Errors
///
/// There is no such thread.
pub fn stall(thread: i32, pause: Duration) -> io::Result<()> {
    PAUSE_NS.store(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all of its fields may be zero: no handler, no flags, an empty mask.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = sleep_here as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is initialised, and `sleep_here` calls nothing that a signal's handler may not (signal-safety(7)).
    if unsafe { libc::sigaction(SIGNAL, action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes numbers only. A number of no thread of this process is refused.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL) };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn sleep_here(_signal: libc::c_int) {
    let pause_ns = PAUSE_NS.swap(0, Ordering::SeqCst);
    let mut left = libc::timespec {
        tv_sec: (pause_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (pause_ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the errno of this thread, which whoever was interrupted may be about to read: it is put back below.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: see above.
    let before = unsafe { *errno };
    // SAFETY: both pointers lead to `left`, which the kernel reads before it writes what is left of it.
    while unsafe { libc::nanosleep(&raw const left, &raw mut left) } != 0 {}
    // SAFETY: see above.
    unsafe { *errno = before };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn one_thread_stands_still_while_the_others_go_on_and_then_goes_on_itself() {
        let (count, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (numbers, number) = std::sync::mpsc::channel();
        let counter = {
            let (count, end) = (Arc::clone(&count), Arc::clone(&end));
            std::thread::spawn(move || {
                numbers.send(current_thread()).unwrap();
                while !end.load(Ordering::Relaxed) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        stall(number.recv().unwrap(), Duration::from_millis(500)).unwrap();
        while PAUSE_NS.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        let stalled_at = count.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(count.load(Ordering::Relaxed), stalled_at);
        while count.load(Ordering::Relaxed) == stalled_at {
            std::thread::sleep(Duration::from_millis(10));
        }
        end.store(true, Ordering::Relaxed);
        counter.join().unwrap();
        assert!(stall(i32::MAX, Duration::ZERO).is_err());
    }
}
