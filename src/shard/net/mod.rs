//! How a shard gets and gives datagrams.

pub mod sockets;
pub mod uring;

pub use headworks_host::{compose_socket_id, shard_of_socket_id};
pub use headworks_packet::PacketPool;
pub use sockets::{PortSet, SocketRole, SocketsError};
pub use uring::{Incoming, NetOptions, Uring};
