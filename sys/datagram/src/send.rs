//! The send arena: where outgoing datagrams live until the kernel is done with them.

use std::net::{IpAddr, SocketAddr};

use crate::message::{NAME_SIZE, SEND_CONTROL_SIZE, write_address, write_control};

/// Why a datagram was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No socket of that name, or it is being removed.
    #[error("there is no such socket")]
    NoSocket,
    /// More bytes than a send slot holds.
    #[error("{length} bytes do not fit a send slot of {limit}")]
    TooLarge {
        /// Bytes of the datagram.
        length: usize,
        /// Bytes of a send slot.
        limit: usize,
    },
    /// Every send slot is in flight: the network takes less than is sent. Counted; the datagram is lost like any other.
    #[error("all send slots are in flight")]
    Full,
}

/// What became of datagrams sent. A send error is never more than a lost datagram: the protocols above repeat what matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendStatistics {
    /// Handed to the network.
    pub sent: u64,
    /// `ECONNREFUSED`: an ICMP error for an earlier datagram to a port nobody listens on.
    pub refused: u64,
    /// `EHOSTUNREACH`, `ENETUNREACH`, `ENETDOWN`, `EADDRNOTAVAIL`: no way to the peer, or from the local address.
    pub unreachable: u64,
    /// `ENOBUFS`, `ENOMEM`, `EAGAIN`: the device queue or the socket's send buffer is full.
    pub no_buffer: u64,
    /// `EPERM`, `EACCES`: a firewall, or a broadcast address.
    pub denied: u64,
    /// `EMSGSIZE`: longer than the path, or than the protocol, allows.
    pub too_long: u64,
    /// Any other error.
    pub other: u64,
    /// The errno of the last `other`.
    pub last_other_errno: i32,
    /// Never queued: every send slot was in flight.
    pub arena_full: u64,
}

impl SendStatistics {
    fn count(&mut self, result: i32) {
        match -result {
            ..=0 => self.sent += 1,
            libc::ECONNREFUSED => self.refused += 1,
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL => {
                self.unreachable += 1;
            }
            libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN => self.no_buffer += 1,
            libc::EPERM | libc::EACCES => self.denied += 1,
            libc::EMSGSIZE => self.too_long += 1,
            errno => {
                self.other += 1;
                self.last_other_errno = errno;
            }
        }
    }
}

/// Everything the kernel reads of one datagram but its bytes.
#[repr(C, align(8))]
struct Header {
    message: libc::msghdr,
    vector: libc::iovec,
    name: [u8; NAME_SIZE],
    control: [u8; SEND_CONTROL_SIZE],
}

/// Fixed slots for datagrams in flight. Neither vector ever grows, so what the kernel was pointed to stays where it is until the
/// arena is dropped; a slot is not filled again before [`complete`](Self::complete) says that the kernel is done with it.
pub struct SendArena {
    headers: Vec<Header>,
    bytes: Vec<u8>,
    slot_size: usize,
    free: Vec<u32>,
    /// What became of datagrams so far.
    pub statistics: SendStatistics,
}

/// Where a datagram goes, how, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// `None` on a connected socket.
    pub to: Option<&'a SocketAddr>,
    /// The source address, if it is not for the routing table to choose.
    pub local: Option<IpAddr>,
    /// Bytes of each datagram, if the bytes are several (UDP GSO).
    pub segment: Option<u16>,
    /// The socket is an IPv6 one: it reaches IPv4 peers by mapped addresses.
    pub ipv6_socket: bool,
}

impl SendArena {
    /// Room for `slots` datagrams, or aggregates of them, of `slot_size` bytes.
    pub fn new(slots: usize, slot_size: usize) -> Self {
        let header = || Header {
            // SAFETY: `msghdr` is plain data, for which all zeroes (null pointers, lengths 0) is a value.
            message: unsafe { std::mem::zeroed() },
            vector: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            name: [0; NAME_SIZE],
            control: [0; SEND_CONTROL_SIZE],
        };
        Self {
            headers: (0..slots).map(|_| header()).collect(),
            bytes: vec![0; slots * slot_size],
            slot_size,
            free: (0..slots as u32).rev().collect(),
            statistics: SendStatistics::default(),
        }
    }

    /// Bytes of a slot.
    pub fn slot_size(&self) -> usize {
        self.slot_size
    }

    /// Slots that the kernel is not done with.
    pub fn in_flight(&self) -> usize {
        self.headers.len() - self.free.len()
    }

    /// Whether there is a free slot.
    pub fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Fills a free slot: `write` puts the datagram into the bytes it is given and says how many they are.
    /// Gives the slot and the message header to submit; `None` if no slot is free.
    #[inline]
    pub fn fill(
        &mut self,
        route: Route<'_>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<(u32, *const libc::msghdr)> {
        let &slot = self.free.last()?;
        let at = slot as usize * self.slot_size;
        let bytes = &mut self.bytes[at..at + self.slot_size];
        let length = write(bytes);
        assert!(length <= self.slot_size);
        let header = &mut self.headers[slot as usize];
        let name_length = route.to.map_or(0, |to| write_address(to, route.ipv6_socket, &mut header.name));
        let control_length = write_control(route.local, route.segment, route.ipv6_socket, &mut header.control);
        header.vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
        header.message.msg_name = match name_length {
            0 => std::ptr::null_mut(),
            _ => header.name.as_mut_ptr().cast(),
        };
        header.message.msg_namelen = name_length;
        header.message.msg_iov = &raw mut header.vector;
        header.message.msg_iovlen = 1;
        header.message.msg_control = match control_length {
            0 => std::ptr::null_mut(),
            _ => header.control.as_mut_ptr().cast(),
        };
        header.message.msg_controllen = control_length;
        self.free.pop();
        Some((slot, &raw const header.message))
    }

    /// As [`fill`](Self::fill) for a datagram that needs no message header: it goes where the socket is connected to.
    /// Gives the slot and the bytes to submit.
    #[inline]
    pub fn fill_plain(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> Option<(u32, *const u8, u32)> {
        let &slot = self.free.last()?;
        let at = slot as usize * self.slot_size;
        let bytes = &mut self.bytes[at..at + self.slot_size];
        let length = write(bytes);
        assert!(length <= self.slot_size);
        let start = bytes.as_ptr();
        self.free.pop();
        Some((slot, start, length as u32))
    }

    /// The header of a filled slot, for a call that takes many in one array.
    #[inline]
    pub fn message(&self, slot: u32) -> libc::msghdr {
        self.headers[slot as usize].message
    }

    /// The kernel is done with `slot`: `result` is what it answered, an errno as a negative number.
    #[inline]
    pub fn complete(&mut self, slot: u32, result: i32) {
        self.statistics.count(result);
        debug_assert!(self.free.len() < self.headers.len());
        self.free.push(slot);
    }
}
