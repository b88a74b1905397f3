//! How a shard gets and gives datagrams.

pub mod aggregates;
pub mod backend;
pub mod choice;
pub mod dpdk;
pub mod impairment;
pub mod outbound;
pub mod random;
pub mod sockets;
pub mod stored;
pub mod xdp;

pub use backend::{Incoming, Net, NetError, NetOptions, NetStatistics};
pub use choice::{Choice, Way};
pub use dpdk::{AddressConflict, Dpdk};
pub use headworks_host::{compose_socket_id, shard_of_socket_id};
pub use headworks_packet::PacketPool;
pub use headworks_uring::{RingStatistics, SendStatistics};
pub use sockets::{OwnPort, PortSet, SocketRole, SocketsError};
pub use stored::StoredSockets;
pub use xdp::XdpInterfaces;

#[cfg(test)]
mod conformance;
