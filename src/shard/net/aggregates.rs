//! Aggregates: datagrams of one flow that the kernel hands over as one (UDP GRO), in slots of packet memory that they fit.
//!
//! A well-filled aggregate stays where the kernel wrote it, and its datagrams share the slot for as long as they pass through. Of
//! any other each datagram is copied at once into a slot of its own size, so that the large slots, of which there are few, go back
//! to the kernel; and so is, with [`Net::compact`](super::Net::compact), what is kept for longer than its turn.

use headworks_packet::PacketPool;

use super::backend::Incoming;
use crate::base::Packet;

/// Bytes of a slot for aggregates. A few more than the longest UDP payload would take the headers that io_uring puts before it, and
/// twice the memory; an aggregate that is cut for that loses its last datagram, which is counted.
pub const AGGREGATE_SLOT_SIZE: usize = 65_536;
/// Slots for aggregates that are lent to the kernel at a time: 8 MiB, which is 6 ms of 10 Gbit/s.
pub const AGGREGATE_CREDIT: u16 = 128;
/// Aggregates after which a drain stops although there are more.
pub const AGGREGATE_DRAIN_LIMIT: usize = 128;
/// An aggregate of so many bytes is worth its slot.
const WELL_FILLED: usize = AGGREGATE_SLOT_SIZE / 2;

/// What came in larger slots than single datagrams need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AggregateStatistics {
    /// Aggregates of several datagrams.
    pub aggregates: u64,
    /// Datagrams copied into slots of their own, because they came alone or with few others, or are kept.
    pub copied: u64,
}

impl AggregateStatistics {
    /// Adds what came to `batch`, whose slots of single datagrams are those of `pool`.
    #[inline]
    pub fn sort(&mut self, pool: &PacketPool, incoming: Incoming, batch: &mut Vec<Incoming>) {
        self.aggregates += u64::from(incoming.gro_segment.is_some());
        if pool.owns(&incoming.packet) || incoming.packet.len() >= WELL_FILLED {
            batch.push(incoming);
        } else {
            self.copy_apart(pool, incoming, batch);
        }
    }

    /// The packet in a slot of `pool`, if one is free and large enough.
    pub fn compact(&mut self, pool: &PacketPool, packet: Packet) -> Packet {
        let Some(copy) = pool.copy_from(&packet) else { return packet };
        self.copied += 1;
        copy
    }

    fn copy_apart(&mut self, pool: &PacketPool, incoming: Incoming, batch: &mut Vec<Incoming>) {
        let longest = incoming.gro_segment.map_or(incoming.packet.len(), usize::from);
        // Where slots are short, large ones are not given back, until the kernel has none left and the socket's buffer holds the rest.
        if longest > pool.slot_size() || incoming.datagrams() > pool.free_slots() {
            return batch.push(incoming);
        }
        let mut rest = &incoming.packet[..];
        loop {
            let (bytes, after) = rest.split_at(longest.min(rest.len()));
            let packet = pool.copy_from(bytes).expect("as many slots were free, and large enough");
            batch.push(Incoming { packet, gro_segment: None, ..incoming });
            self.copied += 1;
            if after.is_empty() {
                return;
            }
            rest = after;
        }
    }
}
