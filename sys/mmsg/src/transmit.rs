//! Sending: datagrams are copied into send slots and leave in batches, in the order they were queued.

use std::os::fd::AsRawFd;
use std::time::Duration;

use headworks_datagram::SendArena;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::receive::BATCH;
use crate::sockets::{Socket, timespec};

/// A datagram that waits to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queued {
    pub(crate) socket: u32,
    pub(crate) slot: u32,
}

/// Send slots, and what is queued in them.
pub(crate) struct Sender {
    pub(crate) arena: SendArena,
    pub(crate) queue: Vec<Queued>,
    headers: Box<[libc::mmsghdr]>,
    wait: Duration,
}

impl Sender {
    pub(crate) fn new(slots: usize, slot_size: usize, wait: Duration) -> Self {
        // SAFETY: `mmsghdr` is plain data, for which all zeroes (null pointers, lengths 0) is a value.
        let header = || unsafe { std::mem::zeroed::<libc::mmsghdr>() };
        Self {
            arena: SendArena::new(slots, slot_size),
            queue: Vec::with_capacity(slots),
            headers: (0..BATCH).map(|_| header()).collect(),
            wait,
        }
    }

    /// Sends what is queued. A datagram that the network does not take is lost like any other, and counted.
    pub(crate) fn flush(&mut self, sockets: &[Socket]) {
        let mut waited = false;
        let mut at = 0;
        while let Some(&first) = self.queue.get(at) {
            let socket = &sockets[first.socket as usize];
            let run = self.queue[at..].iter().zip(&mut self.headers).take_while(|(it, _)| it.socket == first.socket);
            let count = run.map(|(it, header)| header.msg_hdr = self.arena.message(it.slot)).count();
            match self.send(socket, count) {
                Ok(sent) => {
                    self.queue[at..at + sent].iter().for_each(|it| self.arena.complete(it.slot, 0));
                    at += sent;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !waited => {
                    waited = true;
                    let mut writable = [PollFd::new(&socket.descriptor, PollFlags::OUT)];
                    // Whether it helped, the next attempt finds out.
                    let _ = poll(&mut writable, Some(&timespec(self.wait)));
                }
                Err(error) => {
                    self.arena.complete(first.slot, -error.raw_os_error());
                    at += 1;
                }
            }
        }
        self.queue.clear();
    }

    /// The first `count` headers in one call; gives how many of them the network took.
    fn send(&mut self, socket: &Socket, count: usize) -> Result<usize, Errno> {
        // SAFETY: the headers were taken from the arena just now (`flush`); they point to slots that are filled and not complete,
        // which stay as they are for the call. The kernel writes `msg_len` only.
        let result = unsafe {
            libc::sendmmsg(
                socket.descriptor.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as u32,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        // SAFETY: errno is this thread's own.
        usize::try_from(result).map_err(|_| Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
    }
}
