//! Packet memory: what a shard holds datagrams in.
//!
//! A [`PacketPool`] is one region of memory cut into slots of equal size, allocated once. A slot is in one of three states:
//!
//! ```text
//!              take_slot                into_packet
//!   free list ───────────▶ RawSlot ──────────────────▶ Packet (1 … n handles)
//!       ▲     (may be lent to the kernel)                 │
//!       └──────────────── dropped ◀───────────────────────┘ the last one dropped
//! ```
//!
//! A [`Packet`] is a handle: it derefs to `&[u8]`, is cloned and sliced by counting, and gives its slot back when the last
//! handle to it goes. Counts are not atomic: pool and handles belong to one thread (`!Send`) and never meet a lock.
//!
//! ```compile_fail
//! fn elsewhere<T: Send>(_: T) {}
//! let pool = headworks_packet::PacketPool::new(Default::default()).unwrap();
//! elsewhere(pool.copy_from(b"stays on its shard"));
//! ```
//!
//! The region is a memory file ([`PacketPool::memfd`]), so that it can become the UMEM of an XDP socket.

mod packet;
mod pool;
mod prefetch;
mod region;

pub use packet::{Packet, RawSlot};
pub use pool::{PacketPool, PoolError, PoolOptions, PoolStatistics, SlotOrder};
pub use prefetch::{prefetch, prefetch_all};
pub use region::Pages;

#[cfg(test)]
mod tests;
