//! How a shard gets and gives datagrams.

pub mod sockets;
pub mod uring;

pub use headworks_packet::PacketPool;
pub use sockets::{PortSet, SocketRole, SocketsError};
pub use uring::{Incoming, NetOptions, Uring};
