//! Datagrams in Ethernet frames, for the ways that packets come past the kernel's stack.
//!
//! [`parse`] judges a frame as bytes and finds the UDP datagram in it; [`Port`] says whose that is. AF_XDP needs no more, because
//! the kernel stays behind it.
//!
//! [`Edge`] is for a card that the kernel does not have (DPDK): a host's own part of ARP (RFC 826), neighbour discovery (RFC 4861),
//! echo by ICMP and ICMPv6, IGMP and MLD, with VLAN tags, as a machine without socket or clock: frames and `now` go in, datagrams
//! come out, and frames to be sent are polled. It is an edge and no stack: addresses and gateways are configured, nothing is routed
//! for others, fragments are dropped and counted, and no error is ever sent.
//!
//! ARP, ICMP, neighbour discovery, IGMPv2 and queries are read and written by `smoltcp`'s wire formats. There is no `unsafe` here.

mod control;
mod edge;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod groups;
mod neighbours;
mod port;
mod write;

pub use edge::{Conflict, Edge, EdgeError, EdgeOptions, EdgeStatistics, Outgoing, Refusal, Sent};
pub use frame::{Datagram, Fault, parse};
pub use groups::Sources;
pub use port::Port;
