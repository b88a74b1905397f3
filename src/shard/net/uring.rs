//! Datagrams by io_uring: a private ring per shard, in which the shard also sleeps while there is traffic.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use headworks_packet::{PacketPool, PoolError, PoolOptions, SlotOrder};
use headworks_uring::{GroupId, PacketRing, Received, RingError, RingOptions, RingStatistics, SocketId};

use super::sockets::SocketRole;
use crate::base::Transmit;

/// Completions that end a wait before its time: more would not make the batch cheaper, only later.
const BATCH: usize = 256;
/// Bytes of a slot: an Ethernet frame's payload with the kernel's headers before it.
pub const SLOT_SIZE: usize = 2_048;

/// What a shard's net is made of.
#[derive(Clone, Copy, Debug)]
pub struct NetOptions {
    /// Slots of packet memory.
    pub slots: usize,
    /// Ask for huge pages under them.
    pub huge_pages: bool,
    /// Slots lent to the kernel at a time.
    pub credit: u16,
    /// Give slots out in the order they came back, so that each is cold when it is used again, as packets are that were held.
    /// For the bare loop that the whole path is measured against.
    pub coldest_first: bool,
}

/// Why a shard has no net.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The packet ring cannot be made or does not work.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No packet memory.
    #[error("packet memory: {0}")]
    Memory(#[from] PoolError),
    /// No descriptor left.
    #[error("descriptors: {0}")]
    Descriptors(#[from] std::io::Error),
}

/// Whether a shard's ring would work on this host.
///
/// # Errors
/// [`NetError::Ring`], which says what mends it.
pub fn probe() -> Result<(), NetError> {
    Ok(headworks_uring::probe()?)
}

/// A datagram as it came in.
pub type Incoming = Received;

/// The net of one shard.
pub struct Uring {
    ring: PacketRing,
    pool: PacketPool,
    sockets: Vec<Socket>,
    /// Room for a drained batch, lent to whoever drains.
    pub batch: Vec<Incoming>,
}

struct Socket {
    role: SocketRole,
    id: SocketId,
    /// What the kernel says it has lost for want of buffer (`SO_RXQ_OVFL`), a running count.
    overflow: u32,
}

impl Uring {
    /// Makes packet memory and the ring, and arms the sockets. Runs on the shard's own thread, which the ring then belongs to.
    ///
    /// # Errors
    /// [`NetError`], which says what mends it.
    pub fn new(options: NetOptions, sockets: Vec<(SocketRole, OwnedFd)>) -> Result<Self, NetError> {
        let pool = PacketPool::new(PoolOptions {
            slots: options.slots,
            slot_size: SLOT_SIZE,
            huge_pages: options.huge_pages,
            prefault: true,
            order: if options.coldest_first { SlotOrder::FirstFreedFirst } else { SlotOrder::LastFreedFirst },
        })?;
        let ring_options = RingOptions { credit: options.credit, ..RingOptions::default() };
        let mut ring = PacketRing::new(ring_options, pool.clone())?;
        let mut armed = Vec::with_capacity(sockets.len());
        for (index, (role, descriptor)) in sockets.into_iter().enumerate() {
            let id = ring.add_socket(descriptor, index as u32)?;
            armed.push(Socket { role, id, overflow: 0 });
        }
        let batch = Vec::with_capacity(ring_options.drain_limit);
        Ok(Self { ring, pool, sockets: armed, batch })
    }

    /// Submits what is queued and sleeps until a batch has come or `window` has passed.
    #[inline]
    pub fn wait(&mut self, window: Duration) -> Result<(), NetError> {
        self.ring.enter_and_wait(BATCH, window)?;
        Ok(())
    }

    /// Submits what is queued and sleeps until a first datagram has come or `longest` has passed.
    #[inline]
    pub fn wait_for_any(&mut self, longest: Duration) -> Result<(), NetError> {
        self.ring.enter_and_wait(1, longest)?;
        Ok(())
    }

    /// Adds what has come to `batch`; gives its number, and whether there is more.
    #[inline]
    pub fn drain_into(&mut self, batch: &mut Vec<Incoming>) -> Result<(usize, bool), NetError> {
        let sockets = &mut self.sockets;
        let drained = self.ring.drain(|incoming| {
            if let Some(overflow) = incoming.overflow {
                sockets[incoming.token as usize].overflow = overflow;
            }
            batch.push(incoming);
        })?;
        Ok((drained.datagrams, drained.more))
    }

    /// Datagrams that sockets have lost because their buffers were full.
    pub fn dropped_by_kernel(&self) -> u64 {
        self.sockets.iter().map(|socket| u64::from(socket.overflow)).sum()
    }

    /// Queues a datagram on the socket of this role.
    #[inline]
    pub fn send(&mut self, role: SocketRole, transmit: &Transmit, bytes: &[u8]) {
        if let Some(socket) = self.sockets.iter().find(|socket| socket.role == role) {
            self.queue(socket.id, transmit.peer, transmit.local, bytes);
        }
    }

    /// The role of the socket that a datagram came in by.
    #[inline]
    pub fn role(&self, incoming: &Incoming) -> SocketRole {
        self.sockets[incoming.token as usize].role
    }

    /// Packet memory, for copies from other shards and for counting.
    pub fn pool(&self) -> &PacketPool {
        &self.pool
    }

    /// What the ring has counted.
    pub fn statistics(&self) -> RingStatistics {
        self.ring.statistics()
    }

    /// Slots that the kernel can still fill.
    pub fn credit(&self) -> usize {
        self.ring.credit(GroupId::default())
    }

    // A datagram that finds no send slot is lost like any other; the ring counts it.
    #[inline]
    fn queue(&mut self, socket: SocketId, peer: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
        let _ = self.ring.queue_send(socket, &peer, local, bytes);
    }
}
