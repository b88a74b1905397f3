//! The rings between an AF_XDP socket and the kernel: one side writes entries and moves `producer` on, the other reads them and
//! moves `consumer` on. Neither counter ever goes back.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::xdp::XdpRingOffset;

/// A ring as the kernel maps it.
struct Ring<T> {
    base: NonNull<u8>,
    mapped: usize,
    offsets: XdpRingOffset,
    mask: u32,
    _entries: std::marker::PhantomData<T>,
}

impl<T> Ring<T> {
    /// Maps the ring of `size` entries (a power of two, as the socket was told) that stands at `place` of the socket.
    fn map(socket: BorrowedFd<'_>, offsets: XdpRingOffset, size: u32, place: u64) -> Result<Self, Errno> {
        assert!(size.is_power_of_two());
        let mapped = offsets.desc as usize + size as usize * size_of::<T>();
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing that exists.
        let base = unsafe { mmap(std::ptr::null_mut(), mapped, protection, flags, socket, place)? };
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { base, mapped, offsets, mask: size - 1, _entries: std::marker::PhantomData })
    }

    fn counter(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: the offset is one of the two that the kernel gave for its counters; they lie in the mapping, which stays until
        // `self` is dropped, are aligned, and are touched by both sides as atomics only.
        unsafe { AtomicU32::from_ptr(self.base.add(offset as usize).cast().as_ptr()) }
    }

    fn producer(&self) -> &AtomicU32 {
        self.counter(self.offsets.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.counter(self.offsets.consumer)
    }

    fn entry(&self, number: u32) -> NonNull<T> {
        // SAFETY: the masked number is below the ring's size, and the mapping holds that many entries (`map`).
        unsafe { self.base.add(self.offsets.desc as usize).cast::<T>().add((number & self.mask) as usize) }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; nothing borrowed from `self` outlives it.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.mapped) };
        debug_assert!(unmapped.is_ok());
    }
}

/// A ring that this side writes: slots that the kernel may fill, by their places in the UMEM.
pub(crate) struct FillRing(Ring<u64>);

impl FillRing {
    pub(crate) fn map(socket: BorrowedFd<'_>, offsets: XdpRingOffset, size: u32) -> Result<Self, Errno> {
        Ring::map(socket, offsets, size, libc::XDP_UMEM_PGOFF_FILL_RING).map(Self)
    }

    /// Entries that can be written. The kernel shows a frame before it shows that it has read the entry that the frame's slot came
    /// by, so a slot that has come back may find no room yet.
    pub(crate) fn room(&self) -> usize {
        // Relaxed: only this side writes it.
        let producer = self.0.producer().load(Ordering::Relaxed);
        // Acquire: pairs with the kernel's release when it has read entries: they may be written again.
        let unread = producer.wrapping_sub(self.0.consumer().load(Ordering::Acquire));
        (self.0.mask as usize + 1).saturating_sub(unread as usize)
    }

    /// Writes places, and shows them to the kernel: no more of them than there is [`room`](Self::room).
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub(crate) fn push(&mut self, places: impl Iterator<Item = u64>) {
        let room = self.room();
        let ring = &self.0;
        // Relaxed: only this side writes it.
        let mut producer = ring.producer().load(Ordering::Relaxed);
        for (written, place) in places.enumerate() {
            assert!(written < room, "more slots than the fill ring has room for");
            // SAFETY: the entry is one that the kernel has read, as judged above, and does not read again before the store below.
            unsafe { ring.entry(producer).write(place) };
            producer = producer.wrapping_add(1);
        }
        // Release: the kernel, which acquires it, sees whole entries.
        ring.producer().store(producer, Ordering::Release);
    }
}

/// `struct xdp_desc`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Frame {
    /// Where in the UMEM the frame begins.
    pub(crate) place: u64,
    /// Its bytes.
    pub(crate) length: u32,
    _options: u32,
}

#[cfg(test)]
impl Frame {
    pub(crate) fn new(place: u64, length: u32) -> Self {
        Self { place, length, _options: 0 }
    }
}

/// A ring that the kernel writes: frames that have come.
pub(crate) struct ReceiveRing {
    ring: Ring<Frame>,
    consumer: u32,
}

impl ReceiveRing {
    pub(crate) fn map(socket: BorrowedFd<'_>, offsets: XdpRingOffset, size: u32) -> Result<Self, Errno> {
        Ok(Self { ring: Ring::map(socket, offsets, size, libc::XDP_PGOFF_RX_RING as u64)?, consumer: 0 })
    }

    /// How many frames wait.
    pub(crate) fn waiting(&self) -> u32 {
        // Acquire: pairs with the kernel's release when it has written entries, and the frames that they name.
        let waiting = self.ring.producer().load(Ordering::Acquire).wrapping_sub(self.consumer);
        assert!(waiting <= self.ring.mask + 1, "the kernel wrote more frames than its ring holds");
        waiting
    }

    /// The next frame, of those that [`waiting`](Self::waiting) has counted: the caller takes no more.
    pub(crate) fn take(&mut self) -> Frame {
        // SAFETY: plain data that the kernel wrote before it moved the producer past it (`waiting`), and that it does not write
        // again before the consumer has passed it (`release`).
        let frame = unsafe { self.ring.entry(self.consumer).read() };
        self.consumer = self.consumer.wrapping_add(1);
        frame
    }

    /// Gives the entries that were taken back to the kernel.
    pub(crate) fn release(&mut self) {
        // Release: the kernel, which acquires it, writes entries after they were read.
        self.ring.consumer().store(self.consumer, Ordering::Release);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    const OFFSETS: XdpRingOffset = XdpRingOffset { producer: 0, consumer: 64, desc: 128, flags: None };

    /// The kernel's side of a fill ring.
    pub(crate) struct Kernel {
        ring: Ring<u64>,
        _memory: OwnedFd,
    }

    /// A fill ring in memory that no kernel looks at, and the side that it would have.
    pub(crate) fn fill_ring(size: u32) -> (FillRing, Kernel) {
        let memory = memfd_create("fill ring", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, 4_096).unwrap();
        let map = || Ring::map(memory.as_fd(), OFFSETS, size, 0).unwrap();
        let (ring, kernels) = (map(), map());
        (FillRing(ring), Kernel { ring: kernels, _memory: memory })
    }

    impl Kernel {
        /// Shows that it has read all entries; gives how many those are.
        pub(crate) fn read_all(&self) -> u32 {
            let producer = self.ring.producer().load(Ordering::Acquire);
            producer.wrapping_sub(self.ring.consumer().swap(producer, Ordering::Release))
        }
    }

    #[test]
    fn there_is_room_for_what_the_kernel_has_shown_to_have_read() {
        let (mut ring, kernel) = fill_ring(8);
        assert_eq!(ring.room(), 8);
        ring.push(0..5);
        assert_eq!(ring.room(), 3);
        ring.push(5..8);
        assert_eq!(ring.room(), 0);
        ring.push(std::iter::empty());
        assert_eq!(kernel.read_all(), 8);
        assert_eq!(ring.room(), 8);
    }
}
