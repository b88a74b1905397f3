//! Datagrams without io_uring: how a shard gets them from the kernel and gives them to it where a kernel has no io_uring, or a
//! container's seccomp profile forbids it.
//!
//! `recvmmsg` writes up to 64 datagrams straight into slots of packet memory, `sendmmsg` sends what was queued, and epoll tells
//! which sockets have something. The turn loop is that of a packet ring:
//!
//! ```text
//! loop {
//!     sockets.wait(window);                         // sends what was queued; sleeps
//!     sockets.drain(|received| batch.push(received))?;
//!     … work the batch, fire timers, sockets.queue_send(…) …
//! }
//! ```
//!
//! **Sleeps.** Nothing tells a process that so many datagrams have come, so [`MmsgSockets::wait`] sleeps for the window, however
//! many come, but never longer than a millisecond: what comes meanwhile waits in the sockets' buffers, and where there is no
//! io_uring there is often no right to large ones either. [`MmsgSockets::wait_for_any`] sleeps until a first datagram.
//!
//! Nothing here allocates per datagram.

mod options;
mod receive;
mod sockets;
mod transmit;

pub use headworks_datagram::{Drained, Received, SendError, SendStatistics};
pub use options::{MmsgError, MmsgOptions, MmsgStatistics};
pub use sockets::{GroupId, MmsgSockets};

#[cfg(test)]
mod tests;
