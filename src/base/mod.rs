//! Floor 0: what every other floor counts, numbers and times things with.

pub mod allowance;
pub mod bits;
pub mod datagram;
pub mod rate_limit;
pub mod sequence;
pub mod time;

pub use allowance::Allowance;
pub use datagram::{Datagram, Packet, Transmit, prefetch, prefetch_all};
#[doc(hidden)]
pub use datagram::{PacketPool, PoolOptions};
pub use rate_limit::{Rate, SourceLimits, SourcePrefix, TokenBucket};
pub use time::Instant;
