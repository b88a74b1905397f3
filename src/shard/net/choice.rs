//! Which way packets come in, and why that one.

use std::fmt;

use headworks_uring::RingError;

use super::backend::NetError;
use crate::config::PacketIo;

/// A way to get and give datagrams that works on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// io_uring.
    Uring,
    /// `recvmmsg` and `sendmmsg`.
    Mmsg,
    /// AF_XDP, beside `recvmmsg` and `sendmmsg`.
    Xdp,
    /// DPDK, without the kernel.
    Dpdk,
}

impl Way {
    /// The word for it in the configuration: `uring`, `mmsg`, `xdp`, `dpdk`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Mmsg => "mmsg",
            Self::Xdp => "xdp",
            Self::Dpdk => "dpdk",
        }
    }
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The way.
    pub way: Way,
    /// Why this one.
    pub reason: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.way.name(), self.reason)
    }
}

/// Whether io_uring works on this host as far as a shard needs it.
///
/// # Errors
/// [`RingError`], which says what mends it.
pub fn probe_uring() -> Result<(), RingError> {
    headworks_uring::probe()
}

/// Chooses by `shards.packet_io` and by what this host has. Whether AF_XDP works shows when its program is put on the interfaces, for
/// which the ports have to be known ([`XdpInterfaces::attach`](super::XdpInterfaces::attach)), and whether DPDK does when its device is
/// looked for ([`Dpdk::find`](super::Dpdk::find)).
///
/// # Errors
/// [`NetError`] if the way that is insisted on does not work; it says what mends it.
pub fn choose(wanted: PacketIo) -> Result<Choice, NetError> {
    let configured = |way: Way| Choice { way, reason: format!("shards.packet_io is {}", way.name()) };
    match wanted {
        PacketIo::Auto => Ok(judge(probe_uring())),
        PacketIo::Uring => {
            probe_uring()?;
            Ok(configured(Way::Uring))
        }
        PacketIo::Mmsg => Ok(configured(Way::Mmsg)),
        PacketIo::Xdp => Ok(configured(Way::Xdp)),
        PacketIo::Dpdk => Ok(configured(Way::Dpdk)),
    }
}

/// What `auto` makes of the answer of a probe.
fn judge(probed: Result<(), RingError>) -> Choice {
    match probed {
        Ok(()) => Choice { way: Way::Uring, reason: "this kernel has all that a shard needs of it".to_owned() },
        Err(error) => Choice { way: Way::Mmsg, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headworks_forbidden_calls::forbid_io_uring;

    #[test]
    fn auto_takes_io_uring_where_it_works_and_else_says_why_not() {
        let chosen = judge(Ok(()));
        assert_eq!(chosen.to_string(), "uring: this kernel has all that a shard needs of it");
        let chosen = judge(Err(RingError::KernelTooOld { lacking: "multishot recvmsg" }));
        assert_eq!(chosen.to_string(), "mmsg: this kernel's io_uring lacks multishot recvmsg: use Linux 6.1 or later");
    }

    #[test]
    fn where_io_uring_is_forbidden_auto_goes_without_and_uring_is_refused_with_the_cure() {
        std::thread::spawn(|| {
            forbid_io_uring().unwrap();
            let chosen = choose(PacketIo::Auto).unwrap();
            assert_eq!(chosen.way, Way::Mmsg);
            assert!(chosen.reason.contains("seccomp profile"), "{chosen}");
            let refused = choose(PacketIo::Uring).unwrap_err().to_string();
            assert!(refused.contains("kernel.io_uring_disabled=0"), "{refused}");
            assert_eq!(choose(PacketIo::Mmsg).unwrap().reason, "shards.packet_io is mmsg");
        })
        .join()
        .unwrap();
    }
}
