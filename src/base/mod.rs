//! Floor 0: what every other floor counts, numbers and times things with.

pub mod bits;
pub mod datagram;
pub mod sequence;
pub mod time;

pub use datagram::{Datagram, Packet, Transmit};
#[doc(hidden)]
pub use datagram::{PacketPool, PoolOptions};
pub use time::Instant;
