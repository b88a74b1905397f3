//! `recvmmsg` into slots of packet memory.

use std::os::fd::{AsRawFd, BorrowedFd};

use headworks_datagram::{CONTROL_SIZE, Headers, NAME_SIZE, Received};
use headworks_packet::{PacketPool, RawSlot};
use rustix::io::Errno;

use crate::options::MmsgStatistics;

/// Datagrams of one call: more would not make it cheaper, and these fit the first cache.
pub(crate) const BATCH: usize = 64;

/// What the kernel writes of one datagram beside its payload.
#[repr(C, align(8))]
struct Beside {
    name: [u8; NAME_SIZE],
    control: [u8; CONTROL_SIZE],
}

/// The headers of a batch, and slots in hand for it.
pub(crate) struct Receiver {
    pool: PacketPool,
    /// For the datagrams of the next call: the last one for the first of them.
    slots: Vec<RawSlot>,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    beside: Box<[Beside]>,
}

/// What one call brought.
pub(crate) enum Taken {
    /// No slot is free; the datagrams stay in the socket.
    NoSlot,
    /// There may be more.
    Some(usize),
    /// That was all.
    Last(usize),
}

impl Receiver {
    pub(crate) fn new(pool: PacketPool) -> Self {
        // SAFETY: `mmsghdr` is plain data, for which all zeroes (null pointers, lengths 0) is a value.
        let header = || unsafe { std::mem::zeroed::<libc::mmsghdr>() };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            pool,
            slots: Vec::with_capacity(BATCH),
            headers: (0..BATCH).map(|_| header()).collect(),
            vectors: vec![vector; BATCH].into_boxed_slice(),
            beside: (0..BATCH).map(|_| Beside { name: [0; NAME_SIZE], control: [0; CONTROL_SIZE] }).collect(),
        }
    }

    pub(crate) fn pool(&self) -> &PacketPool {
        &self.pool
    }

    /// Slots in hand.
    pub(crate) fn lent(&self) -> usize {
        self.slots.len()
    }

    /// Takes slots in hand as far as the pool has them; gives their number.
    fn refill(&mut self) -> usize {
        let wanted = (BATCH - self.slots.len()).min(self.pool.free_slots());
        self.slots.extend((0..wanted).filter_map(|_| self.pool.take_slot()));
        self.slots.len()
    }

    /// Hands out what a socket holds, as many as one call gives.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        token: u32,
        statistics: &mut MmsgStatistics,
        sink: &mut impl FnMut(Received),
    ) -> Result<Taken, Errno> {
        let offered = self.refill();
        if offered == 0 {
            return Ok(Taken::NoSlot);
        }
        let size = self.pool.slot_size();
        let places = self.headers.iter_mut().zip(&mut self.vectors).zip(&mut self.beside);
        for (((header, vector), beside), slot) in places.zip(self.slots.iter().rev()) {
            *vector = libc::iovec { iov_base: slot.as_ptr().as_ptr().cast(), iov_len: size };
            let header = &mut header.msg_hdr;
            header.msg_name = beside.name.as_mut_ptr().cast();
            header.msg_namelen = NAME_SIZE as u32;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = beside.control.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_SIZE;
            header.msg_flags = 0;
        }
        statistics.receives += 1;
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: the first `offered` headers were just pointed to memory of `self` (boxed, so it stays where it is) and to
        // `offered` slots, each with the length it has; raw slots have one owner, `self.slots`, and nobody reads them. The kernel
        // touches none of it after the call.
        let result = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), offered as u32, flags, std::ptr::null_mut())
        };
        let Ok(count) = usize::try_from(result) else {
            // SAFETY: errno is this thread's own.
            return match Errno::from_raw_os_error(unsafe { *libc::__errno_location() }) {
                Errno::AGAIN => Ok(Taken::Last(0)),
                Errno::INTR => Ok(Taken::Some(0)),
                error => Err(error),
            };
        };
        for (header, beside) in self.headers[..count].iter().zip(&self.beside) {
            let (length, header) = ((header.msg_len as usize).min(size), &header.msg_hdr);
            let slot = self.slots.pop().expect("the kernel fills no more than it was offered");
            let packet = slot.into_packet(0, length);
            let name = &beside.name[..(header.msg_namelen as usize).min(NAME_SIZE)];
            let control = &beside.control[..header.msg_controllen.min(CONTROL_SIZE)];
            let Some(headers) = Headers::read(name, control) else {
                statistics.malformed += 1;
                continue;
            };
            let truncated = header.msg_flags & libc::MSG_TRUNC != 0;
            statistics.datagrams += 1;
            statistics.truncated += u64::from(truncated);
            sink(Received::new(packet, token, headers, truncated));
        }
        Ok(if count < offered { Taken::Last(count) } else { Taken::Some(count) })
    }
}
