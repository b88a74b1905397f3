//! What AF_XDP is told and what it tells: options, errors, counts.

use headworks_datagram::SendStatistics;
use headworks_mmsg::MmsgError;
use rustix::io::Errno;

/// What a shard's sockets are to be.
#[derive(Debug, Clone, Copy)]
pub struct XdpOptions {
    /// Slots lent to the kernel at a time for each queue, while all queues together have no more than a quarter of the pool: a power
    /// of two.
    pub credit: u16,
    /// Datagrams after which a drain stops although there are more, so that timers get their turn under a flood.
    pub drain_limit: usize,
    /// Which shard, and of how many: the queues that are its own are those whose number, divided by that of shards, leaves its own.
    pub shard: u32,
    /// How many shards there are.
    pub shards: u32,
}

/// Why packets cannot be taken past the kernel's stack, or not any more. Each says what mends it.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// `EPERM`.
    #[error(
        "{call} is not permitted: AF_XDP wants CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW (run as root, or see \
         systemd/headworks-xdp.conf), and a system call filter that allows bpf"
    )]
    Privilege {
        /// Which call.
        call: &'static str,
    },
    /// `EAFNOSUPPORT`.
    #[error(
        "there are no AF_XDP sockets here: the kernel is built without CONFIG_XDP_SOCKETS, or the unit's \
         RestrictAddressFamilies leaves AF_XDP out"
    )]
    NoSockets,
    /// The verifier does not believe the program.
    #[error("this kernel refuses the XDP program ({errno}): use Linux 6.1 or later; it says: …{log}")]
    Program {
        /// The kernel's answer.
        errno: Errno,
        /// The end of what the verifier has said.
        log: String,
    },
    /// Somebody else's program or socket is there.
    #[error(
        "{interface}{}: somebody else has it (`ip link show {interface}` names an XDP program, which `ip link set {interface} xdp \
         off` takes off)",
        queue.map_or(String::new(), |queue| format!(" queue {queue}"))
    )]
    Busy {
        /// The interface.
        interface: String,
        /// The queue, if it is the socket's place that is taken.
        queue: Option<u32>,
    },
    /// The memory limit.
    #[error(
        "packet memory cannot be pinned for AF_XDP: raise the memlock limit (`ulimit -l unlimited`, systemd: \
         LimitMEMLOCK=infinity) or add CAP_IPC_LOCK"
    )]
    Memory,
    /// More queues than the program knows.
    #[error("{interface} has more than {max} queues: `ethtool -L {interface} combined {max}`")]
    Queues {
        /// The interface.
        interface: String,
        /// How many it may have.
        max: usize,
    },
    /// Options out of range.
    #[error("AF_XDP: {0}")]
    Options(&'static str),
    /// The ordinary sockets.
    #[error(transparent)]
    Mmsg(#[from] MmsgError),
    /// A system call failed in a way that has no cure.
    #[error("{interface}{call}: {errno}")]
    System {
        /// The interface and `: `, or nothing.
        interface: String,
        /// Which call.
        call: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl XdpError {
    /// `call` failed.
    pub(crate) fn of(call: &'static str, interface: &str) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::PERM | Errno::ACCESS => Self::Privilege { call },
            Errno::AFNOSUPPORT => Self::NoSockets,
            Errno::BUSY | Errno::EXIST => Self::Busy { interface: interface.to_owned(), queue: None },
            _ => {
                let interface = if interface.is_empty() { String::new() } else { format!("{interface}: ") };
                Self::System { interface, call, errno }
            }
        }
    }
}

/// What has been counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XdpStatistics {
    /// Datagrams received, both ways.
    pub datagrams: u64,
    /// Of those, past the kernel's stack.
    pub taken: u64,
    /// Of those that came by the ordinary sockets, cut short because a slot was too small.
    pub truncated: u64,
    /// Times that no slot was free to be lent, or to be filled from an ordinary socket.
    pub credit_exhausted: u64,
    /// Receives of ordinary sockets that ended with an error.
    pub receive_errors: u64,
    /// Frames taken that are no sound datagrams: lengths, checksums, senders that no host can be; and messages of ordinary sockets with
    /// a header that makes no sense.
    pub unsound: u64,
    /// What became of datagrams sent.
    pub sends: SendStatistics,
}
