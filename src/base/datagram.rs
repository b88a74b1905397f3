//! What moves between the sockets and the protocols.

use std::net::{IpAddr, SocketAddr};

use super::Instant;

pub use headworks_packet::{Packet, prefetch, prefetch_all};
/// Packet memory for tests and fuzz targets; the appliance's own is made in `shard/net`.
#[doc(hidden)]
pub use headworks_packet::{PacketPool, PoolOptions};

/// A received UDP payload with where and when it came in.
#[derive(Debug)]
pub struct Datagram {
    /// The payload, held in packet memory.
    pub packet: Packet,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The address it was sent to, when the kernel told (`IP_PKTINFO`).
    pub local: Option<IpAddr>,
    /// Index of the interface it came in by; 0 when unknown.
    pub interface: u32,
    /// Which of several redundant paths it came by (SMPTE ST 2022-7, bonding); 0 when there is one.
    pub path: u8,
    /// When the kernel took it in, never later than now.
    pub arrival: Instant,
}

/// Where a datagram goes that a machine wants sent; its bytes are the `len` last ones appended to the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub peer: SocketAddr,
    /// From which of the host's addresses; `None` leaves the choice to the kernel.
    pub local: Option<IpAddr>,
    /// Index of the interface to send by; 0 leaves the choice to the kernel.
    pub interface: u32,
    /// Which of several redundant paths.
    pub path: u8,
    /// Number of payload bytes.
    pub len: usize,
}
