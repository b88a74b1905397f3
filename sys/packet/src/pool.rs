//! The pool: slots, their counts and the free list.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use crate::packet::{Packet, RawSlot};
use crate::region::{Pages, Region};

/// More handles than this on one slot is a leak, not a use.
const MAX_HANDLES: u32 = 1 << 24;
/// The largest slot: holds any UDP aggregate with room to spare.
const MAX_SLOT_SIZE: usize = 1 << 20;
/// The largest pool, slots: keeps the free list's running counters unambiguous.
const MAX_SLOTS: usize = 1 << 24;

/// In which order free slots are given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlotOrder {
    /// The slot freed last comes first: its lines are still in the cache. The default.
    #[default]
    LastFreedFirst,
    /// The slot freed first comes first: every slot is cold, as in a pool that is nearly all held. For honest measurements.
    FirstFreedFirst,
}

/// What a pool is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolOptions {
    /// Number of slots, 1 to 16,777,216.
    pub slots: usize,
    /// Bytes of one slot: a power of two from 64 to 1,048,576.
    pub slot_size: usize,
    /// Ask for huge pages; ordinary ones are taken when there are none (see [`PacketPool::pages`]).
    pub huge_pages: bool,
    /// Touch every page now, on this thread, instead of at first use.
    pub prefault: bool,
    /// Order of reuse.
    pub order: SlotOrder,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { slots: 8192, slot_size: 2048, huge_pages: false, prefault: false, order: SlotOrder::default() }
    }
}

/// Why a pool could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The number of slots is 0 or more than 16,777,216.
    #[error("a packet pool has 1 to 16777216 slots, not {0}")]
    SlotCount(usize),
    /// The slot size is no power of two, or out of range.
    #[error("a packet slot has a power of two of bytes from 64 to 1048576, not {0}")]
    SlotSize(usize),
    /// The kernel gave no memory.
    #[error("cannot map {bytes} bytes of packet memory: {errno}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        errno: rustix::io::Errno,
    },
}

/// What a pool has counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStatistics {
    /// Requests for a slot refused because none was free.
    pub exhausted: u64,
    /// Copies refused because the bytes were more than a slot holds.
    pub oversized: u64,
}

/// A shard's packet memory. Cloning it gives another handle to the same memory.
///
/// The memory lives until the last pool handle, [`Packet`] and [`RawSlot`] of it are gone, in whatever order.
pub struct PacketPool {
    inner: NonNull<Inner>,
}

/// Free slots: a circular array that serves as a queue or as a stack. `tail - head` slots are free.
struct FreeList {
    slots: Box<[Cell<u32>]>,
    mask: u32,
    head: Cell<u32>,
    tail: Cell<u32>,
    order: SlotOrder,
}

impl FreeList {
    fn full(count: usize, order: SlotOrder) -> Self {
        let capacity = count.next_power_of_two();
        // Either order gives out slot 0 first.
        let slots = (0..capacity as u32).map(|index| {
            Cell::new(match order {
                SlotOrder::FirstFreedFirst => index,
                SlotOrder::LastFreedFirst => (count as u32 - 1).saturating_sub(index),
            })
        });
        Self {
            slots: slots.collect(),
            mask: capacity as u32 - 1,
            head: Cell::new(0),
            tail: Cell::new(count as u32),
            order,
        }
    }

    #[inline]
    fn len(&self) -> u32 {
        self.tail.get().wrapping_sub(self.head.get())
    }

    #[inline]
    fn push(&self, slot: u32) {
        let tail = self.tail.get();
        self.slots[(tail & self.mask) as usize].set(slot);
        self.tail.set(tail.wrapping_add(1));
    }

    #[inline]
    fn pop(&self) -> Option<u32> {
        if self.len() == 0 {
            return None;
        }
        let at = match self.order {
            SlotOrder::LastFreedFirst => {
                let at = self.tail.get().wrapping_sub(1);
                self.tail.set(at);
                at
            }
            SlotOrder::FirstFreedFirst => {
                let at = self.head.get();
                self.head.set(at.wrapping_add(1));
                at
            }
        };
        Some(self.slots[(at & self.mask) as usize].get())
    }
}

/// What all handles share. Only ever seen through `&`: everything that changes is in a cell.
pub(crate) struct Inner {
    base: NonNull<u8>,
    slot_shift: u32,
    /// Per slot: the number of packets that share it, if any of them says that it is shared.
    counts: Box<[Cell<u32>]>,
    free: FreeList,
    /// Pool handles + slots not on the free list. At 0 the memory goes.
    owners: Cell<usize>,
    exhausted: Cell<u64>,
    oversized: Cell<u64>,
    region: Region,
}

impl Inner {
    #[inline]
    pub(crate) fn slot_size(&self) -> usize {
        1 << self.slot_shift
    }

    /// First byte of a slot.
    #[inline]
    pub(crate) fn slot_start(&self, slot: u32) -> NonNull<u8> {
        assert!((slot as usize) < self.counts.len());
        // SAFETY: the slot exists, and the region is at least `counts.len() << slot_shift` bytes (`PacketPool::new`).
        unsafe { self.base.add((slot as usize) << self.slot_shift) }
    }

    #[inline]
    pub(crate) fn count(&self, slot: u32) -> u32 {
        self.counts[slot as usize].get()
    }

    #[inline]
    pub(crate) fn set_count(&self, slot: u32, count: u32) {
        self.counts[slot as usize].set(count);
    }

    /// One more packet shares the slot.
    #[inline]
    pub(crate) fn share(&self, slot: u32) {
        let count = self.counts[slot as usize].get();
        assert!(count < MAX_HANDLES, "packet handles are leaking: {count} on one slot");
        self.counts[slot as usize].set(count + 1);
    }

    #[inline]
    fn take(&self) -> Option<u32> {
        let Some(slot) = self.free.pop() else {
            self.exhausted.set(self.exhausted.get() + 1);
            return None;
        };
        self.owners.set(self.owners.get() + 1);
        Some(slot)
    }

    /// Puts a slot on the free list; frees the memory if that was the last use of it.
    ///
    /// # Safety
    ///
    /// `this` is alive, the slot is not free, and the caller is its last user and does not touch `this` afterwards.
    #[inline]
    pub(crate) unsafe fn release(this: NonNull<Inner>, slot: u32) {
        // SAFETY: alive, by the caller's word.
        let inner = unsafe { this.as_ref() };
        inner.free.push(slot);
        // SAFETY: the slot counted as one owner (`take`), and has just ceased to be one.
        unsafe { Self::disown(this) };
    }

    /// # Safety
    ///
    /// The caller was counted in `owners` and does not touch `this` afterwards.
    #[inline]
    unsafe fn disown(this: NonNull<Inner>) {
        // SAFETY: the caller is an owner, so the memory is still there.
        let owners = unsafe { &this.as_ref().owners };
        let left = owners.get() - 1;
        owners.set(left);
        if left == 0 {
            // SAFETY: made by `Box::leak` in `PacketPool::new`; no owner is left, so nobody else can reach it.
            drop(unsafe { Box::from_raw(this.as_ptr()) });
        }
    }
}

impl PacketPool {
    /// Maps the memory and puts every slot on the free list. All that the pool will ever allocate is allocated here.
    ///
    /// # Errors
    ///
    /// Sizes out of range, or no memory.
    pub fn new(options: PoolOptions) -> Result<Self, PoolError> {
        let PoolOptions { slots, slot_size, .. } = options;
        if slots == 0 || slots > MAX_SLOTS {
            return Err(PoolError::SlotCount(slots));
        }
        if !slot_size.is_power_of_two() || !(64..=MAX_SLOT_SIZE).contains(&slot_size) {
            return Err(PoolError::SlotSize(slot_size));
        }
        let bytes = slots * slot_size;
        let region = Region::map(bytes, options.huge_pages, options.prefault)
            .map_err(|errno| PoolError::Memory { bytes, errno })?;
        assert!(region.length() >= bytes);
        let inner = Box::new(Inner {
            base: region.base(),
            slot_shift: slot_size.trailing_zeros(),
            counts: vec![Cell::new(0); slots].into_boxed_slice(),
            free: FreeList::full(slots, options.order),
            owners: Cell::new(1),
            exhausted: Cell::new(0),
            oversized: Cell::new(0),
            region,
        });
        Ok(Self { inner: NonNull::from(Box::leak(inner)) })
    }

    #[inline]
    fn inner(&self) -> &Inner {
        // SAFETY: this handle is counted in `owners`, so the memory is there; it is never borrowed mutably.
        unsafe { self.inner.as_ref() }
    }

    /// Takes a slot from the free list, to be filled by the kernel or by [`RawSlot::copy_from`].
    /// `None` when all are in use: counted in [`PoolStatistics::exhausted`].
    #[inline]
    pub fn take_slot(&self) -> Option<RawSlot> {
        let slot = self.inner().take()?;
        // SAFETY: the slot was taken for this handle alone, and counts as an owner.
        Some(unsafe { RawSlot::new(self.inner, slot) })
    }

    /// Takes back a slot that was lent out by [`RawSlot::into_index`].
    ///
    /// # Safety
    ///
    /// `index` came from `into_index` of a slot of this very pool, has not been taken back since, and whoever it was lent to
    /// (the kernel) neither reads nor writes it any more.
    #[inline]
    pub unsafe fn slot_from_index(&self, index: u32) -> RawSlot {
        // SAFETY: the caller has the only claim to the slot, which has counted as an owner since it was taken.
        unsafe { RawSlot::new(self.inner, index) }
    }

    /// A packet with a copy of `bytes`. `None` when no slot is free or the bytes are more than a slot holds; both are counted.
    #[inline]
    pub fn copy_from(&self, bytes: &[u8]) -> Option<Packet> {
        let inner = self.inner();
        if bytes.len() > inner.slot_size() {
            inner.oversized.set(inner.oversized.get() + 1);
            return None;
        }
        Some(self.take_slot()?.copy_from(bytes))
    }

    /// Slots on the free list.
    #[inline]
    pub fn free_slots(&self) -> usize {
        self.inner().free.len() as usize
    }

    /// All slots.
    #[inline]
    pub fn total_slots(&self) -> usize {
        self.inner().counts.len()
    }

    /// Slots that hold packets or are lent out.
    #[inline]
    pub fn in_use(&self) -> usize {
        self.total_slots() - self.free_slots()
    }

    /// Bytes of one slot.
    #[inline]
    pub fn slot_size(&self) -> usize {
        self.inner().slot_size()
    }

    /// What has been counted so far.
    pub fn statistics(&self) -> PoolStatistics {
        PoolStatistics { exhausted: self.inner().exhausted.get(), oversized: self.inner().oversized.get() }
    }

    /// The kind of pages the pool got.
    pub fn pages(&self) -> Pages {
        self.inner().region.pages()
    }

    /// Bytes mapped: slots × slot size, rounded up to whole pages.
    pub fn mapped_bytes(&self) -> usize {
        self.inner().region.length()
    }

    /// The memory file behind the pool, sealed against resizing.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.inner().region.memfd().as_fd()
    }

    /// Where the memory begins, and its bytes: slot after slot from the first on, for a kernel interface that takes it as a whole.
    /// It stays there for as long as the pool or anything of it does.
    pub fn region(&self) -> (NonNull<u8>, usize) {
        (self.inner().region.base(), self.inner().region.length())
    }

    /// Whether `packet` lies in this pool.
    pub fn owns(&self, packet: &Packet) -> bool {
        packet.is_in(self.inner)
    }
}

impl Clone for PacketPool {
    fn clone(&self) -> Self {
        let owners = &self.inner().owners;
        owners.set(owners.get() + 1);
        Self { inner: self.inner }
    }
}

impl Drop for PacketPool {
    fn drop(&mut self) {
        // SAFETY: every pool handle is counted once in `owners`, and this one is going.
        unsafe { Inner::disown(self.inner) };
    }
}

impl std::fmt::Debug for PacketPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketPool")
            .field("slots", &self.total_slots())
            .field("slot_size", &self.slot_size())
            .field("free", &self.free_slots())
            .finish()
    }
}
