//! Datagrams past the kernel's stack: AF_XDP sockets over packet memory.
//!
//! ```text
//!                     ┌── ours, and a slot is lent ──▶ AF_XDP socket of the queue ──▶ slots of packet memory ─┐
//! network card ──▶ program                                                                                  drain
//!                     └── everything else ──▶ the kernel's stack ──▶ ordinary socket of the port ──▶ recvmmsg ┘
//! ```
//!
//! An XDP program on each interface ([`Attachment`]) takes the frames that are datagrams for our addresses and ports. Each shard
//! has an AF_XDP socket on each of its queues, and beside them the ordinary sockets of the ports ([`XdpSockets`]). Those hold
//! the ports, so that nobody else binds them and no ICMP error goes out; take what the program leaves to the kernel, such as
//! fragments, multicast, and what came while no slot was free; and send everything.
//!
//! **Why sending goes the kernel's way.** What a receiver sends is acknowledgements and reports, one datagram for a hundred that
//! come. The kernel knows the way to the peer (routes, ARP, neighbour discovery, VLANs); here that would be a stack of its own.
//!
//! **Nothing is lost between the two ways.** The program counts the slots it has used against those it was lent, and leaves what
//! finds none to the kernel, where it waits in the socket's buffer.

mod assembler;
mod attachment;
mod bpf;
mod interfaces;
mod options;
mod program;
mod queue;
mod ring;
mod sockets;

pub use attachment::{Attachment, Port};
pub use bpf::Mode;
pub use headworks_datagram::{Drained, Received, SendError, SendStatistics};
pub use interfaces::{Interface, interfaces};
pub use options::{XdpError, XdpOptions, XdpStatistics};
pub use program::Owner;
pub use sockets::XdpSockets;
