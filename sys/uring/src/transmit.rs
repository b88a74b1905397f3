//! Sending: datagrams are copied into send slots and leave in batches.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Instant;

use headworks_datagram::{Route, SendError};
use io_uring::opcode;
use io_uring::types::Fd;

use crate::options::RingError;
use crate::ring::{PacketRing, SocketId};
use crate::state::Kind;

impl PacketRing {
    /// Queues a datagram; [`flush`](Self::flush) or the next wait submits it. The bytes are copied into a send slot.
    ///
    /// `local` is the source address, if it is not for the routing table to choose. Datagrams of one socket leave in the order
    /// they were queued, unless the socket's send buffer is full.
    ///
    /// # Errors
    ///
    /// See [`SendError`]. Errors of the network itself are counted in [`SendStatistics`](crate::SendStatistics).
    #[inline]
    pub fn queue_send(
        &mut self,
        socket: SocketId,
        to: &SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        self.queue(socket, to, local, None, bytes)
    }

    /// Queues datagrams of `segment` bytes each (the last may be shorter) to one peer, to be cut apart by the kernel or the
    /// network card (UDP GSO).
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    #[inline]
    pub fn queue_send_segmented(
        &mut self,
        socket: SocketId,
        to: &SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
        segment: u16,
    ) -> Result<(), SendError> {
        self.queue(socket, to, local, Some(segment), bytes)
    }

    #[inline]
    fn queue(
        &mut self,
        socket: SocketId,
        to: &SocketAddr,
        local: Option<IpAddr>,
        segment: Option<u16>,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let limit = self.state.sends.slot_size();
        if bytes.len() > limit {
            return Err(SendError::TooLarge { length: bytes.len(), limit });
        }
        self.queue_send_with(socket, to, local, segment, |slot| {
            slot[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        })
    }

    /// Queues a datagram that `write` writes straight into the send slot: it gets the whole slot and says how long the datagram
    /// is. `write` is not called when there is no slot.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    #[inline]
    pub fn queue_send_with(
        &mut self,
        socket: SocketId,
        to: &SocketAddr,
        local: Option<IpAddr>,
        segment: Option<u16>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), SendError> {
        let Some(found) = self.socket_mut(socket) else {
            return Err(SendError::NoSocket);
        };
        let (descriptor, ipv6_socket) = (found.descriptor.as_raw_fd(), found.ipv6);
        if !self.state.sends.has_free() {
            self.wait_for_send_slot();
        }
        let route = Route { to: Some(to), local, segment, ipv6_socket };
        let Some((slot, message)) = self.state.sends.fill(route, write) else {
            self.state.sends.statistics.arena_full += 1;
            return Err(SendError::Full);
        };
        let entry = opcode::SendMsg::new(Fd(descriptor), message).build().user_data(Kind::Send.tag(slot));
        // SAFETY: header and bytes lie in slot `slot` of the arena, which is not filled again before the completion that frees
        // it, and whose memory is kept, in `Drop`, until nothing is in flight.
        let pushed = unsafe { self.push(entry) };
        if pushed.is_err() {
            // The ring itself is broken, which the next `enter_and_wait` reports; here it is one more datagram that did not leave.
            self.state.sends.complete(slot, -libc::EIO);
        }
        Ok(())
    }

    /// Queues a datagram on a socket that is connected, to where it is connected: no address, no route to look up. With
    /// `segment` the bytes are datagrams of so many bytes each (the last may be shorter), see
    /// [`queue_send_segmented`](Self::queue_send_segmented).
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    #[inline]
    pub fn queue_send_connected(
        &mut self,
        socket: SocketId,
        segment: Option<u16>,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let limit = self.state.sends.slot_size();
        if bytes.len() > limit {
            return Err(SendError::TooLarge { length: bytes.len(), limit });
        }
        let Some(found) = self.socket_mut(socket) else {
            return Err(SendError::NoSocket);
        };
        let (descriptor, ipv6_socket) = (Fd(found.descriptor.as_raw_fd()), found.ipv6);
        if !self.state.sends.has_free() {
            self.wait_for_send_slot();
        }
        let write = |slot: &mut [u8]| {
            slot[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        };
        let sends = &mut self.state.sends;
        let filled = match segment {
            None => sends
                .fill_plain(write)
                .map(|(slot, start, length)| (slot, opcode::Send::new(descriptor, start, length).build())),
            Some(_) => {
                let route = Route { to: None, local: None, segment, ipv6_socket };
                sends
                    .fill(route, write)
                    .map(|(slot, message)| (slot, opcode::SendMsg::new(descriptor, message).build()))
            }
        };
        let Some((slot, entry)) = filled else {
            self.state.sends.statistics.arena_full += 1;
            return Err(SendError::Full);
        };
        // SAFETY: header and bytes lie in slot `slot` of the arena, which is not filled again before the completion that frees
        // it, and whose memory is kept, in `Drop`, until nothing is in flight.
        let pushed = unsafe { self.push(entry.user_data(Kind::Send.tag(slot))) };
        if pushed.is_err() {
            // As in `queue_send_with`.
            self.state.sends.complete(slot, -libc::EIO);
        }
        Ok(())
    }

    /// All send slots are in flight: submit, and wait for one, but not for long.
    #[cold]
    fn wait_for_send_slot(&mut self) {
        let started = Instant::now();
        loop {
            if self.submit().is_err() {
                return;
            }
            self.set_completions_aside();
            if self.state.sends.has_free() || started.elapsed() >= self.options.send_wait {
                return;
            }
            // The completion of a send that had to wait for buffer space is deferred work: it comes by asking.
            if self.enter_events().is_err() {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Submits queued datagrams now instead of with the next wait.
    ///
    /// # Errors
    ///
    /// `io_uring_enter` failed for good.
    pub fn flush(&mut self) -> Result<(), RingError> {
        self.submit()?;
        self.set_completions_aside();
        Ok(())
    }

    /// Datagrams queued or submitted and not yet taken by the network.
    pub fn sends_in_flight(&self) -> usize {
        self.state.sends.in_flight()
    }
}
