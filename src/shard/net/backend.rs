//! The net of a shard: datagrams from its sockets into packet memory and back, by one of the ways that a host may have.
//!
//! The shard does not know which. A way is chosen once per call, and calls are made once per batch; only what is sent, one
//! datagram in a hundred, asks again. Another way to get packets is another variant of `Backend`, a name in
//! [`super::choice`], and a line in the conformance suite beside this file, which all of them pass.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use headworks_datagram::{Drained, Received, SendStatistics};
use headworks_mmsg::{MmsgError, MmsgOptions, MmsgSockets};
use headworks_packet::{PacketPool, PoolError, PoolOptions, SlotOrder};
use headworks_uring::{GroupId, PacketRing, RingError, RingOptions, SocketId};
use headworks_xdp::{XdpError, XdpOptions, XdpSockets};

use super::aggregates::{AGGREGATE_CREDIT, AGGREGATE_DRAIN_LIMIT, AGGREGATE_SLOT_SIZE, AggregateStatistics};
use super::choice::Way;
use super::dpdk::{AddressConflict, Dpdk, UnfitError};
use super::sockets::SocketRole;
use super::xdp::{InterfacesError, XdpInterfaces};
use crate::base::{Packet, Transmit};

/// Completions that end a wait before its time: more would not make the batch cheaper, only later.
const BATCH: usize = 256;
/// Bytes of a slot: an Ethernet frame's payload with the kernel's headers before it.
pub const SLOT_SIZE: usize = 2_048;
/// Datagrams after which a drain stops although there are more.
const DRAIN_LIMIT: usize = 4_096;

/// What a shard's net is made of.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// The way that packets come in.
    pub way: Way,
    /// The interfaces that AF_XDP takes them from; none with another way.
    pub xdp: XdpInterfaces,
    /// The device that DPDK takes them from; none with another way.
    pub dpdk: Dpdk,
    /// The shard that the net is for: one of as many as `xdp` is attached for.
    pub shard: usize,
    /// Slots of packet memory.
    pub slots: usize,
    /// Further ones of 64 KiB, which media sockets receive into; 0 where sockets do not ask for aggregates (UDP GRO).
    pub aggregate_slots: usize,
    /// Ask for huge pages under them.
    pub huge_pages: bool,
    /// Slots lent to the kernel at a time, where it takes a loan.
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
    /// The sockets cannot be used without one.
    #[error(transparent)]
    Mmsg(#[from] MmsgError),
    /// AF_XDP does not work.
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// DPDK does not fit this program or its configuration.
    #[error(transparent)]
    Unfit(#[from] UnfitError),
    /// DPDK does not work.
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Dpdk(#[from] headworks_dpdk::DpdkError),
    /// There is no interface for AF_XDP.
    #[error(transparent)]
    Interfaces(#[from] InterfacesError),
    /// No packet memory.
    #[error("packet memory: {0}")]
    Memory(#[from] PoolError),
}

/// A datagram as it came in.
pub type Incoming = Received;

/// What a net has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStatistics {
    /// Datagrams, or aggregates of them, received.
    pub datagrams: u64,
    /// Of those, cut short because a slot was too small.
    pub truncated: u64,
    /// Receives that ended because no slot was left. Datagrams wait in the socket meanwhile.
    pub credit_exhausted: u64,
    /// Receives that ended with any other error.
    pub receive_errors: u64,
    /// Of the datagrams, those that came past the kernel's stack.
    pub past_kernel: u64,
    /// What is no sound datagram: lengths and checksums of what came past the kernel, headers that the kernel gives and make no sense.
    pub unsound: u64,
    /// Parts of packets, which nobody puts together where the kernel has no part in it.
    pub fragments: u64,
    /// Datagrams for our addresses and no port of ours, where the kernel does not keep them away.
    pub no_port: u64,
    /// Likewise frames for other hosts or groups, and broadcasts.
    pub not_ours: u64,
    /// Frames of another VLAN, or with a tag where none is expected.
    pub other_vlan: u64,
    /// Frames of protocols that are not spoken here.
    pub other_protocol: u64,
    /// Times that somebody else on the link has claimed an address of ours, where that is not the kernel's business.
    pub address_conflicts: u64,
    /// Questions of others on the link that were not answered, because too many answers waited.
    pub unanswered: u64,
    /// What became of datagrams sent.
    pub sends: SendStatistics,
}

/// The net of one shard.
pub struct Net {
    backend: Backend,
    pool: PacketPool,
    /// Slots for aggregates.
    large: Option<PacketPool>,
    aggregates: AggregateStatistics,
    sockets: Vec<Socket>,
    /// Room for a drained batch, lent to whoever drains.
    pub batch: Vec<Incoming>,
}

/// The ways, each with its sockets in the order of [`Net::sockets`]. Large ones stand in place: there is one per shard, and a box would
/// be one more step to each packet.
enum Backend {
    Uring {
        ring: PacketRing,
        ids: Vec<SocketId>,
    },
    Mmsg(MmsgSockets),
    Xdp(XdpSockets),
    #[cfg(feature = "dpdk")]
    Dpdk(headworks_dpdk::DpdkQueue),
}

struct Socket {
    role: SocketRole,
    /// What the kernel says it has lost for want of buffer (`SO_RXQ_OVFL`), a running count.
    overflow: u32,
}

impl Net {
    /// Makes packet memory and takes the sockets, or where it has none (DPDK) the ports of [`NetOptions::dpdk`]. Runs on the shard's own
    /// thread, which the net then belongs to.
    ///
    /// # Errors
    /// [`NetError`], which says what mends it.
    pub fn new(options: NetOptions, sockets: Vec<(SocketRole, OwnedFd)>) -> Result<Self, NetError> {
        let pool_of = |slots, slot_size| {
            PacketPool::new(PoolOptions {
                slots,
                slot_size,
                huge_pages: options.huge_pages,
                prefault: true,
                order: if options.coldest_first { SlotOrder::FirstFreedFirst } else { SlotOrder::LastFreedFirst },
            })
        };
        let pool = pool_of(options.slots, SLOT_SIZE)?;
        let large = match options.aggregate_slots {
            0 => None,
            slots => Some(pool_of(slots, AGGREGATE_SLOT_SIZE)?),
        };
        let drain_limit = if large.is_some() { AGGREGATE_DRAIN_LIMIT } else { DRAIN_LIMIT };
        let (mut roles, descriptors): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
        roles.extend(options.dpdk.roles());
        let media = roles.iter().map(|role| role.is_media());
        let backend = match options.way {
            Way::Uring => {
                let ring_options = RingOptions { credit: options.credit, drain_limit, ..RingOptions::default() };
                let mut ring = PacketRing::new(ring_options, pool.clone())?;
                let large = large.clone().map(|pool| ring.add_group(pool, AGGREGATE_CREDIT)).transpose()?;
                let mut ids = Vec::with_capacity(descriptors.len());
                for ((descriptor, is_media), token) in descriptors.into_iter().zip(media).zip(0..) {
                    let group = large.filter(|_| is_media).unwrap_or_default();
                    ids.push(ring.add_socket_in(descriptor, token, group)?);
                }
                Backend::Uring { ring, ids }
            }
            Way::Mmsg => {
                let options = MmsgOptions { drain_limit, ..MmsgOptions::default() };
                let mut set = MmsgSockets::new(options, pool.clone())?;
                let large = large.clone().map(|pool| set.add_group(pool));
                for ((descriptor, is_media), token) in descriptors.into_iter().zip(media).zip(0..) {
                    let group = large.filter(|_| is_media).unwrap_or_default();
                    set.add_socket_in(descriptor, token, group)?;
                }
                Backend::Mmsg(set)
            }
            Way::Xdp => {
                let shards = options.xdp.shards();
                let (credit, shard) = (options.credit, options.shard as u32);
                let xdp_options = XdpOptions { credit, drain_limit: DRAIN_LIMIT, shard, shards };
                let mut set = XdpSockets::new(xdp_options, pool.clone(), options.xdp.attachments())?;
                for (descriptor, token) in descriptors.into_iter().zip(0..) {
                    set.add_socket(descriptor, token)?;
                }
                super::xdp::tell_queues(options.shard, &set);
                Backend::Xdp(set)
            }
            #[cfg(feature = "dpdk")]
            Way::Dpdk => Backend::Dpdk(options.dpdk.open(options.shard, DRAIN_LIMIT, pool.clone())?),
            #[cfg(not(feature = "dpdk"))]
            Way::Dpdk => return Err(UnfitError::NotBuilt.into()),
        };
        let sockets = roles.into_iter().map(|role| Socket { role, overflow: 0 }).collect();
        let (aggregates, batch) = (AggregateStatistics::default(), Vec::with_capacity(DRAIN_LIMIT));
        Ok(Self { backend, pool, large, aggregates, sockets, batch })
    }

    /// Sends what is queued and sleeps until a batch has come or `window` has passed; a way that is not told of batches may
    /// return sooner.
    #[inline]
    pub fn wait(&mut self, window: Duration) -> Result<(), NetError> {
        match &mut self.backend {
            Backend::Uring { ring, .. } => ring.enter_and_wait(BATCH, window)?,
            Backend::Mmsg(set) => set.wait(window),
            Backend::Xdp(set) => set.wait(window),
            #[cfg(feature = "dpdk")]
            Backend::Dpdk(queue) => queue.wait(window),
        }
        Ok(())
    }

    /// Sends what is queued and sleeps until a first datagram has come or `longest` has passed.
    #[inline]
    pub fn wait_for_any(&mut self, longest: Duration) -> Result<(), NetError> {
        match &mut self.backend {
            Backend::Uring { ring, .. } => ring.enter_and_wait(1, longest)?,
            Backend::Mmsg(set) => set.wait_for_any(longest)?,
            Backend::Xdp(set) => set.wait_for_any(longest)?,
            #[cfg(feature = "dpdk")]
            Backend::Dpdk(queue) => queue.wait_for_any(longest),
        }
        Ok(())
    }

    /// Adds what has come to `batch`; gives the number of datagrams, and whether there is more.
    #[inline]
    pub fn drain_into(&mut self, batch: &mut Vec<Incoming>) -> Result<(usize, bool), NetError> {
        let Self { sockets, aggregates, pool, .. } = self;
        let mut datagrams = 0;
        let take = |incoming: Incoming| {
            if let Some(overflow) = incoming.overflow {
                sockets[incoming.token as usize].overflow = overflow;
            }
            datagrams += incoming.datagrams();
            aggregates.sort(pool, incoming, batch);
        };
        let Drained { more, .. } = match &mut self.backend {
            Backend::Uring { ring, .. } => ring.drain(take)?,
            Backend::Mmsg(set) => set.drain(take)?,
            Backend::Xdp(set) => set.drain(take)?,
            #[cfg(feature = "dpdk")]
            Backend::Dpdk(queue) => queue.drain(take),
        };
        Ok((datagrams, more))
    }

    /// Datagrams that sockets have lost because their buffers were full, or a card for want of room.
    pub fn dropped_by_kernel(&self) -> u64 {
        match &self.backend {
            Backend::Uring { .. } | Backend::Mmsg(_) => {
                self.sockets.iter().map(|socket| u64::from(socket.overflow)).sum()
            }
            // The next datagram, which would tell, may come another way.
            Backend::Xdp(set) => set.dropped_by_kernel(),
            #[cfg(feature = "dpdk")]
            Backend::Dpdk(queue) => queue.dropped_by_device(),
        }
    }

    /// The newest conflict of addresses since the last call, if there was one; the kernel's ways know of none.
    pub fn poll_conflict(&mut self) -> Option<AddressConflict> {
        match &mut self.backend {
            Backend::Uring { .. } | Backend::Mmsg(_) | Backend::Xdp(_) => None,
            #[cfg(feature = "dpdk")]
            Backend::Dpdk(queue) => queue.poll_conflict().map(AddressConflict::from),
        }
    }

    /// Queues a datagram on the socket of this role.
    #[inline]
    pub fn send(&mut self, role: SocketRole, transmit: &Transmit, bytes: &[u8]) {
        if let Some(place) = self.sockets.iter().position(|socket| socket.role == role) {
            self.queue(place, transmit.peer, transmit.local, bytes);
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

    /// Packet memory for aggregates, where there is any, and what came in it.
    pub fn aggregates(&self) -> Option<(&PacketPool, AggregateStatistics)> {
        self.large.as_ref().map(|pool| (pool, self.aggregates))
    }

    /// A packet for whoever will keep it: in a slot of its own size, unless there is none left.
    #[inline]
    pub fn compact(&mut self, packet: Packet) -> Packet {
        if self.pool.owns(&packet) { packet } else { self.aggregates.compact(&self.pool, packet) }
    }

    /// What has been counted.
    pub fn statistics(&self) -> NetStatistics {
        match &self.backend {
            Backend::Uring { ring, .. } => {
                let ring = ring.statistics();
                NetStatistics {
                    datagrams: ring.datagrams,
                    truncated: ring.truncated,
                    credit_exhausted: ring.credit_exhausted,
                    receive_errors: ring.receive_errors,
                    unsound: ring.malformed,
                    sends: ring.sends,
                    ..NetStatistics::default()
                }
            }
            Backend::Mmsg(set) => {
                let set = set.statistics();
                NetStatistics {
                    datagrams: set.datagrams,
                    truncated: set.truncated,
                    credit_exhausted: set.credit_exhausted,
                    receive_errors: set.receive_errors,
                    unsound: set.malformed,
                    sends: set.sends,
                    ..NetStatistics::default()
                }
            }
            Backend::Xdp(set) => {
                let set = set.statistics();
                NetStatistics {
                    datagrams: set.datagrams,
                    truncated: set.truncated,
                    credit_exhausted: set.credit_exhausted,
                    receive_errors: set.receive_errors,
                    past_kernel: set.taken,
                    unsound: set.unsound,
                    sends: set.sends,
                    ..NetStatistics::default()
                }
            }
            #[cfg(feature = "dpdk")]
            Backend::Dpdk(queue) => {
                let queue = queue.statistics();
                NetStatistics {
                    datagrams: queue.datagrams,
                    truncated: queue.truncated,
                    credit_exhausted: queue.credit_exhausted,
                    receive_errors: queue.receive_errors,
                    past_kernel: queue.datagrams,
                    unsound: queue.edge.malformed + queue.edge.checksum + queue.edge.source + queue.too_long,
                    fragments: queue.edge.fragments,
                    no_port: queue.no_port,
                    not_ours: queue.edge.not_ours,
                    other_vlan: queue.edge.other_vlan,
                    other_protocol: queue.edge.other_protocol,
                    address_conflicts: queue.edge.conflicts,
                    unanswered: queue.edge.unanswered,
                    sends: queue.sends,
                }
            }
        }
    }

    /// Slots that the kernel can still fill.
    pub fn credit(&self) -> usize {
        match &self.backend {
            Backend::Uring { ring, .. } => ring.credit(GroupId::default()),
            Backend::Mmsg(set) => set.credit(),
            Backend::Xdp(set) => set.credit(),
            #[cfg(feature = "dpdk")]
            Backend::Dpdk(queue) => queue.credit(),
        }
    }

    // A datagram that finds no send slot is lost like any other; it is counted where the slots are.
    #[inline]
    fn queue(&mut self, place: usize, peer: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
        let _ = match &mut self.backend {
            Backend::Uring { ring, ids } => ring.queue_send(ids[place], &peer, local, bytes),
            Backend::Mmsg(set) => set.queue_send(place as u32, &peer, local, bytes),
            Backend::Xdp(set) => set.queue_send(place as u32, &peer, local, bytes),
            #[cfg(feature = "dpdk")]
            Backend::Dpdk(queue) => queue.queue_send(place as u32, &peer, local, bytes),
        };
    }
}
