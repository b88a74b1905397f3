//! The AF_XDP socket of one queue: slots lent to the kernel, and frames that it has filled them with.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use headworks_packet::{Packet, PacketPool, RawSlot};
use rustix::io::Errno;
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags, XdpOptionsFlags, XdpUmemReg, XdpUmemRegFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::attachment::{Attachment, RETRY, RETRY_PAUSE};
use crate::bpf::Mode;
use crate::options::XdpError;
use crate::program::METADATA_SIZE;
use crate::ring::{FillRing, Frame, ReceiveRing};

/// Slots that a driver without copies keeps beyond those that datagrams are counted against: from them it takes frames for the
/// kernel's stack too, which must not starve with us.
const DRIVER_RESERVE: usize = 512;

/// Free slots that no queue is lent, so that ordinary sockets always have some: this many, or an eighth of a small pool.
const ORDINARY_RESERVE: usize = 512;

/// The socket with its rings.
struct Socket {
    descriptor: OwnedFd,
    fill: FillRing,
    received: ReceiveRing,
}

/// The socket, bound to its queue.
pub(crate) struct Queue {
    socket: Socket,
    /// Slots that the kernel may have, beside the driver's reserve.
    credit: usize,
    lent: LentSlots,
    /// Slots lent since the program was put on the interface, by whichever socket.
    lent_ever: u64,
    reserve: usize,
    is_zero_copy: bool,
    pub(crate) number: u32,
    pub(crate) interface: usize,
}

/// What came of binding a socket.
enum Bound {
    Socket {
        descriptor: OwnedFd,
        is_zero_copy: bool,
        /// Entries of its rings.
        size: u32,
    },
    NoSuchQueue,
}

impl Queue {
    /// Opens and binds a socket for a queue of the interface that stands at `place` of the attachments, without copies where the
    /// driver can. `None` if there is no such queue.
    pub(crate) fn open(
        attachment: &Attachment,
        place: usize,
        number: u32,
        pool: &PacketPool,
        credit: u16,
    ) -> Result<Option<Self>, XdpError> {
        let failed = |call| XdpError::of(call, attachment.name());
        let credit = usize::from(credit);
        let mut bound = None;
        if attachment.mode() == Mode::Native {
            // Whatever stands in its way, copies may work.
            let size = ring_size(credit + DRIVER_RESERVE);
            bound = Self::bind(attachment, number, pool, size, SocketAddrXdpFlags::XDP_ZEROCOPY).ok();
        }
        let bound = match bound {
            Some(bound @ Bound::Socket { .. }) => bound,
            _ => Self::bind(attachment, number, pool, ring_size(credit), SocketAddrXdpFlags::XDP_COPY)?,
        };
        let Bound::Socket { descriptor: socket, is_zero_copy, size } = bound else { return Ok(None) };
        let offsets = sockopt::xdp_mmap_offsets(&socket).map_err(failed("AF_XDP (offsets)"))?;
        let fill = FillRing::map(socket.as_fd(), offsets.fr, size).map_err(failed("AF_XDP (fill ring)"))?;
        let received = ReceiveRing::map(socket.as_fd(), offsets.rx, size).map_err(failed("AF_XDP (receive ring)"))?;
        Ok(Some(Self {
            socket: Socket { descriptor: socket, fill, received },
            credit,
            lent: LentSlots::new(pool.clone()),
            lent_ever: attachment.taken(number),
            reserve: if is_zero_copy { DRIVER_RESERVE } else { 0 },
            is_zero_copy,
            number,
            interface: place,
        }))
    }

    fn bind(
        attachment: &Attachment,
        number: u32,
        pool: &PacketPool,
        size: u32,
        how: SocketAddrXdpFlags,
    ) -> Result<Bound, XdpError> {
        let failed = |call| XdpError::of(call, attachment.name());
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(failed("AF_XDP socket"))?;
        let (base, length) = pool.region();
        // Packet memory as a whole is the socket's UMEM, once more for each queue: a queue without copies can so stand beside one
        // whose driver cannot.
        let memory = XdpUmemReg {
            addr: base.as_ptr() as u64,
            len: length as u64,
            chunk_size: pool.slot_size() as u32,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(&socket, memory).map_err(|errno| match errno {
            Errno::NOBUFS | Errno::NOMEM => XdpError::Memory,
            errno => failed("AF_XDP (packet memory)")(errno),
        })?;
        // The kernel wants a completion ring although nothing is sent.
        sockopt::set_xdp_umem_fill_ring_size(&socket, size)
            .and_then(|()| sockopt::set_xdp_umem_completion_ring_size(&socket, 2))
            .and_then(|()| sockopt::set_xdp_rx_ring_size(&socket, size))
            .map_err(failed("AF_XDP (rings)"))?;
        match bind_with_retry(&socket, &SocketAddrXdp::new(how, attachment.index(), number)) {
            Ok(()) => {
                let options = sockopt::xdp_options(&socket).map_err(failed("AF_XDP (options)"))?;
                let is_zero_copy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
                Ok(Bound::Socket { descriptor: socket, is_zero_copy, size })
            }
            // What the kernel says of a queue beyond the last, too.
            Err(Errno::INVAL) if number > 0 => Ok(Bound::NoSuchQueue),
            Err(Errno::BUSY) => Err(XdpError::Busy { interface: attachment.name().to_owned(), queue: Some(number) }),
            Err(errno) => Err(failed("AF_XDP (bind)")(errno)),
        }
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.descriptor.as_fd()
    }

    pub(crate) fn is_zero_copy(&self) -> bool {
        self.is_zero_copy
    }

    /// Keeps what is lent, the driver's reserve included, to `share` slots.
    pub(crate) fn limit(&mut self, share: usize) {
        self.reserve = self.reserve.min(share / 2);
        self.credit = self.credit.min(share - self.reserve);
    }

    /// Slots that the kernel has.
    pub(crate) fn lent(&self) -> usize {
        self.lent.count
    }

    /// Lends what the pool can spare and the fill ring has room for, up to the credit. Gives whether the pool had too little.
    pub(crate) fn refill(&mut self, attachment: &Attachment) -> bool {
        let wanted = self.credit + self.reserve - self.lent.count;
        let is_short = wanted > self.lent.spare();
        let count = self.lent.lend_some(wanted, &mut self.socket.fill);
        if count > 0 {
            self.lent_ever += count as u64;
            attachment.lend(self.number, self.lent_ever.saturating_sub(self.reserve as u64));
        }
        is_short
    }

    /// How many frames wait.
    pub(crate) fn waiting(&self) -> usize {
        self.socket.received.waiting() as usize
    }

    /// Hands out so many frames of those that [`wait`](Self::waiting), each with the bytes of metadata before it.
    pub(crate) fn take(&mut self, count: usize, mut sink: impl FnMut(Packet)) {
        let received = &mut self.socket.received;
        for _ in 0..count {
            sink(self.lent.take_back(received.take()));
        }
        if count > 0 {
            received.release();
        }
    }

    /// Closes the socket and frees its slots. A card that writes by itself may go on for a moment: what it was lent is left to it,
    /// and the memory with it.
    ///
    /// # Safety
    ///
    /// The program takes nothing for this queue any more, and has been left by every processor since it does not.
    pub(crate) unsafe fn close(self) {
        let Self { socket, mut lent, is_zero_copy, .. } = self;
        drop(socket);
        if !is_zero_copy {
            // SAFETY: frames are copied into slots by the program's processor alone, which by the caller's word no longer does.
            unsafe { lent.take_all_back() };
        }
    }

    /// Frames that the kernel has lost: none, as long as it and the program count alike. That the fill ring was empty
    /// (`rx_fill_ring_empty_descs`) is no loss of its own: a copy that finds it so is among those dropped, and a driver asks again.
    pub(crate) fn lost(&self) -> u64 {
        sockopt::xdp_statistics(self.descriptor()).map_or(0, |it| it.rx_dropped + it.rx_ring_full.unwrap_or_default())
    }
}

/// The kernel lets go of a queue some milliseconds after its last socket is closed; so long it is tried again.
fn bind_with_retry(socket: &OwnedFd, address: &SocketAddrXdp) -> Result<(), Errno> {
    let began = Instant::now();
    loop {
        match bind(socket, address) {
            Err(Errno::BUSY) if began.elapsed() < RETRY => std::thread::sleep(RETRY_PAUSE),
            outcome => return outcome,
        }
    }
}

fn ring_size(slots: usize) -> u32 {
    slots.next_power_of_two() as u32
}

/// Which slots of a pool the kernel has.
struct LentSlots {
    pool: PacketPool,
    slots: Box<[bool]>,
    count: usize,
}

impl LentSlots {
    fn new(pool: PacketPool) -> Self {
        Self { slots: vec![false; pool.total_slots()].into_boxed_slice(), pool, count: 0 }
    }

    /// Free slots that may be lent.
    fn spare(&self) -> usize {
        self.pool.free_slots().saturating_sub(ORDINARY_RESERVE.min(self.pool.total_slots() / 8))
    }

    /// Lends as many slots as are wanted, can be spared, and have room in the fill ring; gives how many those are. What finds no
    /// room is lent the next time.
    fn lend_some(&mut self, wanted: usize, fill: &mut FillRing) -> usize {
        let count = wanted.min(self.spare()).min(fill.room());
        if count > 0 {
            fill.push((0..count).map_while(|_| self.lend()));
        }
        count
    }

    /// Gives a slot up; its place in the UMEM.
    fn lend(&mut self) -> Option<u64> {
        let slot = self.pool.take_slot()?.into_index();
        self.slots[slot as usize] = true;
        self.count += 1;
        Some(u64::from(slot) * self.pool.slot_size() as u64)
    }

    /// The kernel has filled a slot.
    ///
    /// # Panics
    ///
    /// If it was not lent: the kernel and we no longer agree on who owns which memory.
    fn take_back(&mut self, frame: Frame) -> Packet {
        let size = self.pool.slot_size() as u64;
        let (slot, offset) = ((frame.place / size) as usize, (frame.place % size) as usize);
        assert!(std::mem::replace(&mut self.slots[slot], false), "the kernel filled a slot it was not lent");
        self.count -= 1;
        // SAFETY: `slot` was lent by `lend` (the table says so, and did once only), and a frame that the kernel has put into its
        // receive ring is one that it is done with.
        let slot: RawSlot = unsafe { self.pool.slot_from_index(slot as u32) };
        slot.into_packet(offset - METADATA_SIZE, METADATA_SIZE + frame.length as usize)
    }

    /// Frees all slots.
    ///
    /// # Safety
    ///
    /// The kernel neither reads nor writes any of them any more.
    unsafe fn take_all_back(&mut self) {
        for (slot, is_lent) in self.slots.iter_mut().enumerate() {
            if std::mem::take(is_lent) {
                // SAFETY: lent by `lend`, not taken back since, and nobody else's, by the caller's word.
                drop(unsafe { self.pool.slot_from_index(slot as u32) });
            }
        }
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use headworks_packet::PoolOptions;

    use super::*;
    use crate::ring::tests::fill_ring;

    fn lent_slots(slots: usize) -> LentSlots {
        LentSlots::new(PacketPool::new(PoolOptions { slots, ..PoolOptions::default() }).unwrap())
    }

    #[test]
    fn ordinary_sockets_are_left_some_slots() {
        let (mut lent, (mut fill, _kernel)) = (lent_slots(64), fill_ring(64));
        assert_eq!(lent.lend_some(64, &mut fill), 56);
        assert_eq!((lent.spare(), lent.pool.free_slots()), (0, 8));
        let (mut lent, (mut fill, _kernel)) = (lent_slots(8_192), fill_ring(256));
        let held: Vec<_> = (0..8_000 - ORDINARY_RESERVE).map(|_| lent.pool.take_slot().unwrap()).collect();
        assert_eq!((lent.lend_some(256, &mut fill), lent.pool.free_slots()), (192, ORDINARY_RESERVE));
        drop(held);
        assert_eq!(lent.spare(), 8_000 - ORDINARY_RESERVE);
    }

    #[test]
    fn where_the_kernel_shows_frames_before_what_it_has_read_slots_are_lent_the_next_time() {
        let (mut lent, (mut fill, kernel)) = (lent_slots(64), fill_ring(8));
        assert_eq!(lent.lend_some(8, &mut fill), 8);
        let size = lent.pool.slot_size() as u64;
        let filled: Vec<u64> = (0..).zip(&lent.slots).filter(|(_, is_lent)| **is_lent).map(|(slot, _)| slot).collect();
        for slot in filled {
            let place = slot * size + METADATA_SIZE as u64;
            assert_eq!(lent.take_back(Frame::new(place, 100)).len(), METADATA_SIZE + 100);
        }
        assert_eq!((lent.count, lent.lend_some(8, &mut fill), lent.count), (0, 0, 0));
        assert_eq!(kernel.read_all(), 8);
        assert_eq!((lent.lend_some(8, &mut fill), lent.count), (8, 8));
        assert_eq!(kernel.read_all(), 8);
    }
}
