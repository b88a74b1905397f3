//! Signals as something to read, not something that interrupts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// A signal Headworks acts upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: drain and exit (systemd, `kill`).
    Terminate,
    /// SIGINT: the same, from a terminal.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Delivers SIGTERM, SIGINT and SIGHUP to whoever reads it.
#[derive(Debug)]
pub struct SignalFd {
    descriptor: OwnedFd,
}

impl SignalFd {
    /// Blocks the three signals in the calling thread, and so in all threads it starts later: call it first thing in `main`.
    ///
    /// # Errors
    ///
    /// No descriptor left.
    pub fn new() -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set, the others change it and read it; all pointers are to locals.
        let descriptor = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { descriptor })
    }

    /// The next signal, if one is pending.
    pub fn read(&self) -> Option<Signal> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.descriptor, &mut record) {
            Ok(length) if length == record.len() => {}
            _ => return None,
        }
        // `ssi_signo` is the first member.
        let number = i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
        match number {
            libc::SIGTERM => Some(Signal::Terminate),
            libc::SIGINT => Some(Signal::Interrupt),
            _ => Some(Signal::Reload),
        }
    }

    /// Waits for a signal, for at most `timeout`.
    pub fn wait(&self, timeout: Duration) -> Option<Signal> {
        if let Some(signal) = self.read() {
            return Some(signal);
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut polled = [PollFd::new(&self.descriptor, PollFlags::IN)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => self.read(),
            Err(_) => None,
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(signal: i32) {
        // SAFETY: a signal to this very thread, which blocks it.
        let error = unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
        assert_eq!(error, 0);
    }

    #[test]
    fn blocked_signals_are_read_one_by_one() {
        let signals = SignalFd::new().unwrap();
        assert_eq!(signals.read(), None);
        assert_eq!(signals.wait(Duration::from_millis(1)), None);
        raise(libc::SIGTERM);
        assert_eq!(signals.wait(Duration::from_secs(1)), Some(Signal::Terminate));
        raise(libc::SIGINT);
        assert_eq!(signals.read(), Some(Signal::Interrupt));
        raise(libc::SIGHUP);
        assert_eq!(signals.read(), Some(Signal::Reload));
        assert_eq!(signals.read(), None);
    }
}
