//! The packet ring: how a shard gets datagrams from the kernel and gives datagrams to it.
//!
//! One private io_uring per shard, with one multishot `recvmsg` per socket that writes straight into packet memory, and
//! batched `sendmsg`. The turn loop is meant to be
//!
//! ```text
//! loop {
//!     ring.enter_and_wait(256, window)?;         // sleep inside the ring; submits what was queued
//!     ring.drain(|received| batch.push(received))?;   // until a drain returns nothing
//!     … work the batch, fire timers, ring.queue_send(…) …
//! }
//! ```
//!
//! **Receive credit.** Slots of packet memory are not entries of the buffer ring: a buffer ring has at most 32,768 entries with
//! 16-bit ids, while a second of buffered feeds is more packets than that. The buffer ring is *credit*: a few thousand slots
//! lent to the kernel and replaced from the pool in one batch per turn.
//!
//! Nothing here allocates per datagram.

mod credit;
mod message;
mod options;
mod ring;
mod state;
mod transmit;

pub use headworks_datagram::{Drained, Received, Segments, SendError, SendStatistics};
pub use options::{RingError, RingOptions, RingStatistics};
pub use ring::{GroupId, PacketRing, SocketId, probe};

#[cfg(test)]
mod tests;
