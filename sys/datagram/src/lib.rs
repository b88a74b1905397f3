//! Datagrams as the kernel describes them, for every way to get and give them that goes through its sockets.
//!
//! [`Received`] is a datagram that came in: its payload in packet memory, and what name and control data say of it.
//! [`SendArena`] is where datagrams live that are on their way out, with the headers that `sendmsg` and `sendmmsg` read.

mod message;
mod send;

pub use message::{CONTROL_SIZE, Drained, Headers, NAME_SIZE, Received, Segments};
pub use send::{Route, SendArena, SendError, SendStatistics};
