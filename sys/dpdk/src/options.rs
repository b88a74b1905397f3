//! What a queue is told and what it tells: options, errors, counts.

use std::net::IpAddr;

use headworks_datagram::SendStatistics;
use headworks_ethernet::{EdgeError, EdgeStatistics};

/// What a queue is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DpdkOptions {
    /// Own addresses and the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Who forwards what is for none of these prefixes.
    pub gateways: Vec<IpAddr>,
    /// The VLAN that all of this is in.
    pub vlan: Option<u16>,
    /// Bytes of the longest frame that is taken: a buffer's.
    pub frame_size: usize,
    /// Frames that the card's ring holds, if it can hold as many.
    pub ring: u16,
    /// Frames after which a drain stops although there are more, so that timers get their turn under a flood.
    pub drain_limit: usize,
}

/// Why there is no DPDK. Each says what mends it, as far as that is known.
#[derive(Debug, thiserror::Error)]
pub enum DpdkError {
    /// The environment does not start, or has failed to before; a process has one try.
    #[error(
        "DPDK does not start ({errno}; what it says itself stands above): it wants huge pages (`dpdk-hugepages.py --setup 1G`) and \
         the right to them, or `--no-huge` in shards.dpdk.eal_args; the arguments were {arguments}"
    )]
    Start {
        /// What the system says.
        errno: std::io::Error,
        /// What it was started with.
        arguments: String,
    },
    /// An argument has a zero in it.
    #[error("shards.dpdk: {0:?} holds a byte of zero")]
    Text(String),
    /// There is no such device.
    #[error(
        "shards.dpdk.device {device} cannot be had ({errno}; what DPDK says itself stands above): a network card is named by its PCI \
         address and bound to vfio-pci (`dpdk-devbind.py --status`), a virtual device by its driver, such as net_af_packet0,iface=eth1"
    )]
    NoDevice {
        /// What was asked for.
        device: String,
        /// What the system says.
        errno: std::io::Error,
    },
    /// It has been opened before.
    #[error("shards.dpdk.device {0} is open already: it has one queue in use, and one shard")]
    Open(String),
    /// The card refuses.
    #[error("{device}: {what}: {errno}")]
    Device {
        /// Which.
        device: String,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        errno: std::io::Error,
    },
    /// The host's addresses.
    #[error("shards.dpdk: {0}")]
    Edge(#[from] EdgeError),
}

/// What has been counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DpdkStatistics {
    /// Datagrams received.
    pub datagrams: u64,
    /// Of those, cut short because a slot was too small.
    pub truncated: u64,
    /// Times that no slot was free, so that frames were left in the card's ring.
    pub credit_exhausted: u64,
    /// Frames that the card says came damaged.
    pub receive_errors: u64,
    /// Datagrams for a port that nobody listens on.
    pub no_port: u64,
    /// Frames longer than a buffer.
    pub too_long: u64,
    /// What the edge has counted.
    pub edge: EdgeStatistics,
    /// What became of datagrams sent.
    pub sends: SendStatistics,
}
