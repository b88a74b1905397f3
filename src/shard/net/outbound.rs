//! Sockets that call out: a packet ring for those who send at a rate and hear little.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use headworks_host::{SocketError, UdpSocketOptions, udp_socket};
use headworks_packet::{PacketPool, PoolError, PoolOptions, SlotOrder};
use headworks_uring::{PacketRing, RingError, RingOptions, RingStatistics, SocketId};

use super::backend::{Incoming, SLOT_SIZE};
use crate::base::Instant;

/// Completions that end a wait before its time.
const BATCH: usize = 256;
/// Longest aggregate that the kernel takes: the longest UDP payload over IPv4.
pub const AGGREGATE_MAX: usize = 65_507;

/// What it is made of.
#[derive(Clone, Copy, Debug)]
pub struct OutboundOptions {
    /// Slots of packet memory: what is received, and what waits in a delay line.
    pub slots: usize,
    /// Slots lent to the kernel at a time: a power of two.
    pub credit: u16,
    /// Whether aggregates of datagrams are sent.
    pub aggregates: bool,
}

/// A socket to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundSocket {
    /// Local address and port; port 0 for any.
    pub bind: SocketAddr,
    /// The one peer; `None` for a socket that anyone may talk to.
    pub peer: Option<SocketAddr>,
    /// Name of the interface, or one of the host's addresses on it, to send by.
    pub interface: Option<String>,
    /// Time to live, or hop limit.
    pub ttl: Option<u8>,
    /// DSCP and ECN: IPv4's ToS, IPv6's traffic class.
    pub traffic_class: Option<u8>,
    /// Bytes of receive buffer to ask for.
    pub receive_buffer: usize,
    /// Bytes of send buffer to ask for.
    pub send_buffer: usize,
}

impl OutboundSocket {
    /// A socket from any port to `peer`.
    pub fn to(peer: SocketAddr) -> Self {
        let any = if peer.is_ipv4() { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from([0_u16; 8]) };
        Self {
            bind: SocketAddr::new(any, 0),
            peer: Some(peer),
            interface: None,
            ttl: None,
            traffic_class: None,
            receive_buffer: 1 << 20,
            send_buffer: 4 << 20,
        }
    }
}

/// Why there is no way out.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The packet ring cannot be made or does not work.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No packet memory.
    #[error("packet memory: {0}")]
    Memory(#[from] PoolError),
    /// A socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// There is no way to the peer.
    #[error("no way to {peer}{}: {error}", interface.as_ref().map_or(String::new(), |name| format!(" by {name}")))]
    NoWay {
        /// To whom.
        peer: SocketAddr,
        /// By which interface.
        interface: Option<String>,
        /// What the kernel said.
        error: std::io::Error,
    },
}

/// The ring and its sockets, which are numbered in the order they were opened.
pub struct Outbound {
    ring: PacketRing,
    pool: PacketPool,
    sockets: Vec<SocketId>,
}

impl Outbound {
    /// Makes packet memory and the ring. Runs on the thread that the ring will belong to.
    ///
    /// # Errors
    /// [`OutboundError`], which says what mends it.
    pub fn new(options: OutboundOptions) -> Result<Self, OutboundError> {
        let pool = PacketPool::new(PoolOptions {
            slots: options.slots,
            slot_size: SLOT_SIZE,
            huge_pages: false,
            prefault: true,
            order: SlotOrder::LastFreedFirst,
        })?;
        let ring_options = RingOptions {
            credit: options.credit,
            send_slots: if options.aggregates { 128 } else { 512 },
            send_slot_size: if options.aggregates { AGGREGATE_MAX } else { SLOT_SIZE },
            ..RingOptions::default()
        };
        Ok(Self { ring: PacketRing::new(ring_options, pool.clone())?, pool, sockets: Vec::new() })
    }

    /// Opens a socket; gives its number and its address.
    ///
    /// # Errors
    /// The address is not the host's, or there is no way to the peer.
    pub fn open(&mut self, socket: &OutboundSocket) -> Result<(usize, SocketAddr), OutboundError> {
        let mut options = UdpSocketOptions {
            receive_buffer: socket.receive_buffer,
            send_buffer: socket.send_buffer,
            ttl: socket.ttl,
            tos: socket.traffic_class,
            packet_info: socket.peer.is_none(),
            overflow_count: true,
            ..UdpSocketOptions::new(socket.bind)
        };
        let mut multicast_from = None;
        match socket.interface.as_deref().map(str::parse::<IpAddr>) {
            None => {}
            Some(Ok(address)) => {
                options.bind = SocketAddr::new(address, socket.bind.port());
                multicast_from = Some(address);
            }
            Some(Err(_)) => options.bind_device.clone_from(&socket.interface),
        }
        let (descriptor, granted) = udp_socket(&options)?;
        let descriptor = match socket.peer {
            None => descriptor,
            Some(peer) => connect(descriptor, peer, multicast_from).map_err(|error| OutboundError::NoWay {
                peer,
                interface: socket.interface.clone(),
                error,
            })?,
        };
        let number = self.sockets.len();
        self.sockets.push(self.ring.add_socket(descriptor, number as u32)?);
        Ok((number, granted.local))
    }

    /// Closes a socket; its number is not given to another.
    pub fn close(&mut self, socket: usize) {
        // It may be closed already.
        let _ = self.ring.remove_socket(self.sockets[socket]);
    }

    /// Queues a datagram to the peer of this socket. When no send slot is free it is lost, and the ring counts it.
    #[inline]
    pub fn send(&mut self, socket: usize, bytes: &[u8]) {
        let _ = self.ring.queue_send_connected(self.sockets[socket], None, bytes);
    }

    /// Queues datagrams of `segment` bytes each, the last of which may be shorter, to be cut apart by the kernel.
    #[inline]
    pub fn send_aggregate(&mut self, socket: usize, segment: u16, bytes: &[u8]) {
        let _ = self.ring.queue_send_connected(self.sockets[socket], Some(segment), bytes);
    }

    /// Queues a datagram on a socket without a peer of its own.
    #[inline]
    pub fn send_to(&mut self, socket: usize, peer: &SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
        let _ = self.ring.queue_send(self.sockets[socket], peer, local, bytes);
    }

    /// Submits what is queued now instead of with the next wait.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn flush(&mut self) -> Result<(), OutboundError> {
        Ok(self.ring.flush()?)
    }

    /// Submits what is queued and sleeps until `wake` or, where datagrams are awaited, until one has come.
    ///
    /// # Errors
    /// The ring is broken.
    #[inline]
    pub fn wait(&mut self, now: Instant, wake: Instant, awaited: bool) -> Result<(), OutboundError> {
        let batch = if awaited { 1 } else { BATCH };
        self.ring.enter_and_wait(batch, wake.saturating_since(now).min(Duration::from_secs(1)))?;
        Ok(())
    }

    /// Hands out what has come. `token` of each is the number of its socket.
    ///
    /// # Errors
    /// The ring is broken.
    #[inline]
    pub fn drain(&mut self, sink: impl FnMut(Incoming)) -> Result<(), OutboundError> {
        self.ring.drain(sink)?;
        Ok(())
    }

    /// Packet memory.
    pub fn pool(&self) -> &PacketPool {
        &self.pool
    }

    /// What the ring has counted.
    pub fn statistics(&self) -> RingStatistics {
        self.ring.statistics()
    }
}

fn connect(descriptor: OwnedFd, peer: SocketAddr, from: Option<IpAddr>) -> std::io::Result<OwnedFd> {
    let socket = UdpSocket::from(descriptor);
    if peer.ip().is_multicast()
        && let Some(IpAddr::V4(address)) = from
        && address != Ipv4Addr::UNSPECIFIED
    {
        socket2::SockRef::from(&socket).set_multicast_if_v4(&address)?;
    }
    socket.connect(peer)?;
    Ok(socket.into())
}
