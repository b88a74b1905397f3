//! The set of sockets: sleeping, draining, queueing.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use headworks_datagram::{Drained, Received, Route, SendError};
use headworks_packet::PacketPool;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

use crate::options::{MmsgError, MmsgOptions, MmsgStatistics};
use crate::receive::{Receiver, Taken};
use crate::transmit::{Queued, Sender};

/// The longest sleep with nobody looking after the sockets: at the base load (119,000 datagrams of 1316 bytes a second) a socket
/// buffer of the size that the kernel gives to everybody (208 KiB) holds little more than this.
const NAP_MAX: Duration = Duration::from_millis(1);

pub(crate) struct Socket {
    pub(crate) descriptor: OwnedFd,
    token: u32,
    ipv6: bool,
    group: usize,
}

/// A group of slots: sockets of one group receive into slots of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct GroupId(usize);

/// What stands in an event instead of a socket's place, for descriptors that are only watched.
const WATCHED: u64 = u64::MAX;

/// UDP sockets, slots in hand for what they receive, and send slots. It stays on the thread that made it.
///
/// Dropping it sends what is queued.
pub struct MmsgSockets {
    epoll: OwnedFd,
    sockets: Vec<Socket>,
    /// One for each group.
    receivers: Vec<Receiver>,
    sender: Sender,
    options: MmsgOptions,
    events: Vec<epoll::Event>,
    /// Descriptors that are watched.
    watched: usize,
    /// Places of sockets that have, or may have, something: what is left of them in a drain.
    ready: Vec<u32>,
    /// The last drain left datagrams in sockets for want of a slot.
    is_starved: bool,
    statistics: MmsgStatistics,
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

impl MmsgSockets {
    /// No sockets yet; what they will receive lies in slots of `pool`, the first group (`GroupId::default()`).
    ///
    /// # Errors
    ///
    /// Options out of range, or no descriptor left.
    pub fn new(options: MmsgOptions, pool: PacketPool) -> Result<Self, MmsgError> {
        if options.send_slots == 0 || options.drain_limit == 0 {
            return Err(MmsgError::Options("no number can be 0"));
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| MmsgError::System { call: "epoll_create", error })?;
        Ok(Self {
            epoll,
            sockets: Vec::new(),
            receivers: vec![Receiver::new(pool)],
            sender: Sender::new(options.send_slots, options.send_slot_size, options.send_wait),
            options,
            events: Vec::new(),
            watched: 0,
            ready: Vec::new(),
            is_starved: false,
            statistics: MmsgStatistics::default(),
        })
    }

    /// Adds another group: slots of `pool`, such as aggregates fit.
    pub fn add_group(&mut self, pool: PacketPool) -> GroupId {
        self.receivers.push(Receiver::new(pool));
        GroupId(self.receivers.len() - 1)
    }

    /// Adds a UDP socket; what it receives carries `token`. Gives its place, which is counted from 0. The descriptor is kept.
    ///
    /// # Errors
    ///
    /// The descriptor is no IP socket.
    pub fn add_socket(&mut self, descriptor: OwnedFd, token: u32) -> Result<u32, MmsgError> {
        self.add_socket_in(descriptor, token, GroupId::default())
    }

    /// As [`add_socket`](Self::add_socket), into the slots of `group`.
    ///
    /// # Errors
    ///
    /// The descriptor is no IP socket.
    ///
    /// # Panics
    ///
    /// If `group` is not of this set.
    pub fn add_socket_in(&mut self, descriptor: OwnedFd, token: u32, group: GroupId) -> Result<u32, MmsgError> {
        assert!(group.0 < self.receivers.len());
        let name = rustix::net::getsockname(&descriptor).map_err(MmsgError::Socket)?;
        let family = name.address_family();
        let ipv6 = family == rustix::net::AddressFamily::INET6;
        if !ipv6 && family != rustix::net::AddressFamily::INET {
            return Err(MmsgError::Socket(Errno::AFNOSUPPORT));
        }
        let place = self.sockets.len() as u32;
        let data = epoll::EventData::new_u64(place.into());
        epoll::add(&self.epoll, &descriptor, data, epoll::EventFlags::IN).map_err(MmsgError::Socket)?;
        self.sockets.push(Socket { descriptor, token, ipv6, group: group.0 });
        // A drain lists every socket at most, and allocates nothing.
        self.events.reserve(self.sockets.len() + self.watched);
        self.ready.reserve(self.sockets.len());
        Ok(place)
    }

    /// Has [`wait_for_any`](Self::wait_for_any) end for another descriptor too, from which nothing is received here: that of a way
    /// that has these sockets beside its own. Before sockets are added; for as long as the descriptor is open.
    ///
    /// # Errors
    ///
    /// It is none that can be waited for.
    pub fn watch(&mut self, descriptor: BorrowedFd<'_>) -> Result<(), MmsgError> {
        let data = epoll::EventData::new_u64(WATCHED);
        epoll::add(&self.epoll, descriptor, data, epoll::EventFlags::IN).map_err(MmsgError::Socket)?;
        self.watched += 1;
        Ok(())
    }

    /// The socket at `place`.
    pub fn descriptor(&self, place: u32) -> Option<BorrowedFd<'_>> {
        self.sockets.get(place as usize).map(|socket| socket.descriptor.as_fd())
    }

    /// Sends what is queued, then sleeps for `window`, or for a millisecond if that is shorter, whatever comes. A window of zero
    /// does not sleep.
    pub fn wait(&mut self, window: Duration) {
        self.flush();
        if !window.is_zero() {
            std::thread::sleep(window.min(NAP_MAX));
        }
    }

    /// Sends what is queued, then sleeps until a socket has something or `longest` has passed.
    ///
    /// # Errors
    ///
    /// `poll` failed for good.
    pub fn wait_for_any(&mut self, longest: Duration) -> Result<(), MmsgError> {
        self.flush();
        if self.is_starved && self.receivers.iter().any(|receiver| receiver.pool().free_slots() == 0) {
            // What is in the sockets would end the sleep at once, and could not be taken.
            std::thread::sleep(longest.min(NAP_MAX));
            return Ok(());
        }
        match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&timespec(longest))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(MmsgError::System { call: "poll", error }),
        }
    }

    /// Hands out everything that the sockets hold, in the order of arrival per socket, or until
    /// [`MmsgOptions::drain_limit`] datagrams are out. Sockets take turns, so that a flooded one keeps no other waiting.
    ///
    /// # Errors
    ///
    /// `epoll_wait` failed for good.
    pub fn drain(&mut self, mut sink: impl FnMut(Received)) -> Result<Drained, MmsgError> {
        let mut drained = Drained::default();
        self.is_starved = false;
        self.find_ready()?;
        while !self.ready.is_empty() {
            let mut at = 0;
            while at < self.ready.len() {
                let socket = &self.sockets[self.ready[at] as usize];
                let receiver = &mut self.receivers[socket.group];
                let taken = receiver.receive(socket.descriptor.as_fd(), socket.token, &mut self.statistics, &mut sink);
                let (count, is_last) = match taken {
                    Ok(Taken::Some(count)) => (count, false),
                    Ok(Taken::Last(count)) => (count, true),
                    // It keeps what it holds; those of another group go on.
                    Ok(Taken::NoSlot) => {
                        self.statistics.credit_exhausted += 1;
                        self.is_starved = true;
                        (0, true)
                    }
                    // What is behind the error comes with the next drain: a broken socket must not keep this one busy.
                    Err(error) => {
                        self.statistics.receive_errors += 1;
                        self.statistics.last_receive_errno = error.raw_os_error();
                        (0, true)
                    }
                };
                drained.datagrams += count;
                if drained.datagrams >= self.options.drain_limit {
                    drained.more = true;
                    return Ok(drained);
                }
                if is_last {
                    self.ready.swap_remove(at);
                } else {
                    at += 1;
                }
            }
        }
        Ok(drained)
    }

    fn find_ready(&mut self) -> Result<(), MmsgError> {
        self.ready.clear();
        self.events.clear();
        if self.sockets.is_empty() {
            return Ok(());
        }
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&Timespec::default())) {
            Ok(_) => {
                let places = self.events.iter().map(|event| event.data.u64()).filter(|&data| data != WATCHED);
                self.ready.extend(places.map(|place| place as u32));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(MmsgError::System { call: "epoll_wait", error }),
        }
        Ok(())
    }

    /// Queues a datagram on the socket at `place`; [`flush`](Self::flush) or the next wait sends it. The bytes are copied.
    ///
    /// `local` is the source address, if it is not for the routing table to choose. Datagrams leave in the order they were queued.
    ///
    /// # Errors
    ///
    /// See [`SendError`]. Errors of the network itself are counted in [`MmsgStatistics::sends`].
    #[inline]
    pub fn queue_send(
        &mut self,
        place: u32,
        to: &SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let Some(socket) = self.sockets.get(place as usize) else {
            return Err(SendError::NoSocket);
        };
        let ipv6_socket = socket.ipv6;
        let limit = self.sender.arena.slot_size();
        if bytes.len() > limit {
            return Err(SendError::TooLarge { length: bytes.len(), limit });
        }
        if !self.sender.arena.has_free() {
            self.flush();
        }
        let route = Route { to: Some(to), local, segment: None, ipv6_socket };
        let write = |slot: &mut [u8]| {
            slot[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        };
        let Some((slot, _)) = self.sender.arena.fill(route, write) else {
            self.sender.arena.statistics.arena_full += 1;
            return Err(SendError::Full);
        };
        self.sender.queue.push(Queued { socket: place, slot });
        Ok(())
    }

    /// Sends what is queued now instead of with the next wait.
    pub fn flush(&mut self) {
        if !self.sender.queue.is_empty() {
            self.sender.flush(&self.sockets);
        }
    }

    /// What has been counted so far.
    pub fn statistics(&self) -> MmsgStatistics {
        MmsgStatistics { sends: self.sender.arena.statistics, ..self.statistics }
    }

    /// Slots in hand for the next datagrams.
    pub fn credit(&self) -> usize {
        self.receivers.iter().map(Receiver::lent).sum()
    }
}

impl Drop for MmsgSockets {
    fn drop(&mut self) {
        self.flush();
    }
}
