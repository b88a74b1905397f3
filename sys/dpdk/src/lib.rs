//! Datagrams without the kernel: a card's queue pair by DPDK, and the edge of a host (`headworks-ethernet`) over it.
//!
//! ```text
//! network card ──▶ buffers of DPDK ──▶ edge ──▶ a datagram for one of our ports: copied into a slot of packet memory
//!       ▲                               │
//!       └───────────── answers ◀────────┘──▶ ARP, neighbour discovery, echo, IGMP, MLD
//! ```
//!
//! **The environment** (EAL) is initialised once in a process, by whoever opens the first [`Device`]; devices come and go after
//! that. Drivers are DPDK's own, loaded when it starts.
//!
//! **One copy.** The card writes into DPDK's buffers, and the payload is copied from there into a slot. Without that copy, packet
//! memory itself would have to be the buffers' memory: registered with the environment (`rte_extmem_register`, which wants it in
//! pages that do not move and mapped for the card), a pool of buffers over it whose headers stand elsewhere
//! (`rte_pktmbuf_pool_create_extbuf`), and a free that gives a slot back to our pool and not to DPDK's. Then a card that has
//! been lent slots keeps them, as with AF_XDP.
//!
//! **Without a free slot** frames are left in the card's ring, those that are no datagrams too, until one is free or the ring is full.
//!
//! **Waiting.** DPDK polls. With a window of zero (`shards.busy_poll`) it does so without pause; else a wait sends what is queued and
//! sleeps for its window, a millisecond at most, while the card's ring fills: 2,048 frames are two milliseconds of 10 Gbit/s.
//! A shard without traffic looks after 50 us, and then after twice as long each time up to a millisecond, which answers
//! ARP and the like meanwhile. Interrupts of the card, which some drivers have, are not used.
//!
//! **One shard.** A device has one queue pair in use. Several would want a card that spreads by address and port, and a way to hand
//! on what comes to the wrong shard.

mod device;
mod eal;
mod ffi;
mod options;
mod queue;

pub use device::Device;
pub use headworks_datagram::{Drained, Received, SendError, SendStatistics};
pub use headworks_ethernet::{Conflict, EdgeError, EdgeStatistics, Port, Sources};
pub use options::{DpdkError, DpdkOptions, DpdkStatistics};
pub use queue::DpdkQueue;
