//! What a set of sockets is told and what it tells: options, errors, counts.

use std::time::Duration;

use headworks_datagram::SendStatistics;
use rustix::io::Errno;

/// What a set of sockets is to be.
#[derive(Debug, Clone, Copy)]
pub struct MmsgOptions {
    /// Datagrams that can be queued at once; more are sent on the way.
    pub send_slots: usize,
    /// Bytes of the longest datagram to send.
    pub send_slot_size: usize,
    /// How long a socket whose send buffer is full is waited for. It must not stop a shard for long.
    pub send_wait: Duration,
    /// Datagrams after which a drain stops although there are more, so that timers get their turn under a flood.
    pub drain_limit: usize,
}

impl Default for MmsgOptions {
    fn default() -> Self {
        Self { send_slots: 256, send_slot_size: 2048, send_wait: Duration::from_millis(1), drain_limit: 4096 }
    }
}

/// Why the sockets cannot be used, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum MmsgError {
    /// The options are out of range.
    #[error("sockets: {0}")]
    Options(&'static str),
    /// The socket could not be added.
    #[error("cannot add the socket: {0}")]
    Socket(Errno),
    /// A system call failed in a way that has no cure.
    #[error("{call}: {error}")]
    System {
        /// Which one.
        call: &'static str,
        /// The kernel's answer.
        error: Errno,
    },
}

/// What has been counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MmsgStatistics {
    /// Datagrams received.
    pub datagrams: u64,
    /// Of those, cut short because a slot was too small.
    pub truncated: u64,
    /// Times that a socket was left with what it holds because no slot was free.
    pub credit_exhausted: u64,
    /// Receives that ended with an error.
    pub receive_errors: u64,
    /// The errno of the last of them.
    pub last_receive_errno: i32,
    /// Messages with a header that makes no sense.
    pub malformed: u64,
    /// `recvmmsg` calls.
    pub receives: u64,
    /// What became of datagrams sent.
    pub sends: SendStatistics,
}
