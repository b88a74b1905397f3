//! What a ring is told and what it tells: options, errors, counts.

use std::time::Duration;

use headworks_datagram::SendStatistics;
use rustix::io::Errno;

/// What a ring is to be.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// Submission queue entries; it is submitted when full, so this bounds a batch, not a backlog.
    pub submission_entries: u32,
    /// Completion queue entries. A completion per datagram and per send must find room between two drains.
    pub completion_entries: u32,
    /// Slots lent to the kernel: a power of two up to 32,768. It must outlast the batch window at line rate.
    pub credit: u16,
    /// Datagrams that can be on their way out at once.
    pub send_slots: usize,
    /// Bytes of the longest datagram, or aggregate of datagrams, to send.
    pub send_slot_size: usize,
    /// How long `queue_send` waits for a send slot when all are in flight. A full socket buffer must not stop a shard for long.
    pub send_wait: Duration,
    /// Datagrams after which a drain stops although there are more, so that timers get their turn under a flood.
    pub drain_limit: usize,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self {
            submission_entries: 256,
            completion_entries: 8192,
            credit: 2048,
            send_slots: 256,
            send_slot_size: 2048,
            send_wait: Duration::from_millis(1),
            drain_limit: 4096,
        }
    }
}

/// Why there is no packet ring, or why it stopped working. Each says what mends it.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// `io_uring_setup` answered `EPERM`.
    #[error(
        "io_uring is forbidden here: set `sysctl kernel.io_uring_disabled=0`, or allow io_uring_setup in the container's seccomp profile"
    )]
    Disabled,
    /// `io_uring_setup` answered `ENOSYS`.
    #[error("this kernel is built without io_uring: use one with CONFIG_IO_URING")]
    NotBuilt,
    /// The kernel does not know deferred task work, buffer rings or multishot `recvmsg`.
    #[error("this kernel's io_uring lacks {lacking}: use Linux 6.1 or later")]
    KernelTooOld {
        /// What is missing.
        lacking: &'static str,
    },
    /// `ENOMEM`: older kernels charge rings against the memlock limit.
    #[error("no memory for the ring: raise the memlock limit (`LimitMEMLOCK=infinity`, `ulimit -l`)")]
    Memory,
    /// The options contradict each other or are out of range.
    #[error("packet ring: {0}")]
    Options(&'static str),
    /// The socket could not be added.
    #[error("cannot add the socket to the ring: {0}")]
    Socket(Errno),
    /// A system call of the ring failed in a way that has no cure.
    #[error("{call}: {error}")]
    System {
        /// Which one.
        call: &'static str,
        /// The kernel's answer.
        error: std::io::Error,
    },
}

impl RingError {
    /// `io_uring_setup` failed.
    pub(crate) fn setup(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Disabled,
            Some(libc::ENOSYS) => Self::NotBuilt,
            Some(libc::EINVAL) => Self::KernelTooOld { lacking: "deferred task work" },
            Some(libc::ENOMEM) => Self::Memory,
            _ => Self::System { call: "io_uring_setup", error },
        }
    }

    pub(crate) fn enter(error: std::io::Error) -> Self {
        Self::System { call: "io_uring_enter", error }
    }
}

/// What a ring has counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingStatistics {
    /// Datagrams (or aggregates) received.
    pub datagrams: u64,
    /// Of those, cut short because a slot was too small.
    pub truncated: u64,
    /// Receives that ended because no credit was left (`ENOBUFS`). Datagrams wait in the socket meanwhile.
    pub credit_exhausted: u64,
    /// Receives armed again after they ended, for whatever reason.
    pub rearmed: u64,
    /// Receives that ended with any other error.
    pub receive_errors: u64,
    /// The errno of the last of them.
    pub last_receive_errno: i32,
    /// Messages with a header that makes no sense.
    pub malformed: u64,
    /// Datagrams thrown away because their socket was being removed.
    pub after_removal: u64,
    /// Times the completion queue was found full.
    pub completion_overflows: u64,
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// What became of datagrams sent.
    pub sends: SendStatistics,
}
