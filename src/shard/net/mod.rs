//! How a shard gets and gives datagrams.

pub mod impairment;
pub mod outbound;
pub mod random;
pub mod sockets;
pub mod stored;
pub mod uring;

pub use headworks_host::{compose_socket_id, shard_of_socket_id};
pub use headworks_packet::PacketPool;
pub use headworks_uring::{RingStatistics, SendStatistics};
pub use sockets::{PortSet, SocketRole, SocketsError};
pub use stored::StoredSockets;
pub use uring::{Incoming, NetOptions, Uring};
