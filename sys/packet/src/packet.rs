//! The two kinds of handle: a slot nobody reads yet, and a packet.

use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Bound, Deref, RangeBounds};
use std::ptr::NonNull;

use crate::pool::Inner;
use crate::prefetch;

/// A slot with one owner and no packet in it yet: to be lent to the kernel, or filled by hand. Dropping it frees the slot.
pub struct RawSlot {
    pool: NonNull<Inner>,
    slot: u32,
}

impl RawSlot {
    /// # Safety
    ///
    /// The slot is off the free list, it counts as an owner of `pool`, and there is no other claim to it.
    #[inline]
    pub(crate) unsafe fn new(pool: NonNull<Inner>, slot: u32) -> Self {
        Self { pool, slot }
    }

    #[inline]
    fn pool(&self) -> &Inner {
        // SAFETY: this slot is counted among the owners of the pool, so the pool is there.
        unsafe { self.pool.as_ref() }
    }

    /// Number of the slot in its pool.
    #[inline]
    pub fn index(&self) -> u32 {
        self.slot
    }

    /// First byte of the slot. Whoever writes through it must have stopped before the slot becomes a packet or is dropped.
    #[inline]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.pool().slot_start(self.slot)
    }

    /// Bytes of the slot.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.pool().slot_size()
    }

    /// Lends the slot out as a bare number, four bytes in a table instead of sixteen.
    /// [`PacketPool::slot_from_index`](crate::PacketPool::slot_from_index) takes it back; a slot never taken back is leaked,
    /// and keeps its pool's memory alive.
    #[inline]
    pub fn into_index(self) -> u32 {
        ManuallyDrop::new(self).slot
    }

    /// The slot has been filled: `length` bytes of it, from `offset` on, are a packet.
    ///
    /// # Panics
    ///
    /// If the packet would reach beyond the slot.
    #[inline]
    pub fn into_packet(self, offset: usize, length: usize) -> Packet {
        let size = self.capacity();
        assert!(offset <= size && length <= size - offset, "{length} bytes at {offset} reach beyond the slot");
        let slot = ManuallyDrop::new(self);
        let inner = slot.pool();
        Packet {
            pool: slot.pool,
            // SAFETY: `offset` is within the slot, as judged above.
            start: unsafe { inner.slot_start(slot.slot).add(offset) },
            length: length as u32,
            slot: Cell::new(slot.slot),
        }
    }

    /// Fills the slot with `bytes`.
    ///
    /// # Panics
    ///
    /// If they are more than the slot holds.
    #[inline]
    pub fn copy_from(self, bytes: &[u8]) -> Packet {
        assert!(bytes.len() <= self.capacity());
        // SAFETY: the slot has room, nothing else refers to a raw slot's bytes, and `bytes` cannot overlap with it.
        unsafe { self.as_ptr().as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.into_packet(0, bytes.len())
    }
}

impl Drop for RawSlot {
    fn drop(&mut self) {
        // SAFETY: the pool is alive, the slot is ours alone, and this is its last use.
        unsafe { Inner::release(self.pool, self.slot) };
    }
}

/// A handle to bytes in packet memory. 24 bytes, no heap, not for other threads.
///
/// Handles of one slot may show different parts of it ([`slice`](Packet::slice)); the slot is free again when the last is gone.
pub struct Packet {
    pool: NonNull<Inner>,
    start: NonNull<u8>,
    length: u32,
    /// Number of the slot, and [`SHARED`] once there has been another handle to it. Only then is there a count to look at: most
    /// packets have one handle all their life, and their counts would be a cold line each. [`APART`] may stand beside it.
    slot: Cell<u32>,
}

/// The slot has a count of handles.
const SHARED: u32 = 1 << 31;
/// No other handle shows a byte of what this one shows: they were cut from one that was the only one ([`Packet::split_to`]).
const APART: u32 = 1 << 30;

/// Bytes that are asked for ahead: ten lines.
#[cfg(target_arch = "x86_64")]
const PREFETCHED: usize = 10 * 64;

const _: () = assert!(size_of::<Packet>() <= 24 && size_of::<Option<Packet>>() <= 24);

impl Packet {
    #[inline]
    fn pool(&self) -> &Inner {
        // SAFETY: the slot is not free while a packet is in it, so it is counted among the pool's owners.
        unsafe { self.pool.as_ref() }
    }

    pub(crate) fn is_in(&self, pool: NonNull<Inner>) -> bool {
        self.pool == pool
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` and `length` lie within one slot (`into_packet`, and every later change only narrows them). The memory
        // is initialised (zeroed when mapped), stays mapped while this packet counts, and is written only through `bytes_mut`,
        // that is, while this is the only handle and is borrowed mutably.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length as usize) }
    }

    /// Asks the processor for the packet's memory ahead of its use: a packet that was held for its delivery time has left the
    /// caches. Changes nothing but how long the next look takes.
    ///
    /// Only for the first lines: a core has ten to sixteen lines on their way at once and stands still when asked for more, while
    /// the lines that follow in order are fetched by themselves.
    #[inline]
    pub fn prefetch(&self) {
        for offset in (0..(self.length as usize).min(PREFETCHED)).step_by(64) {
            prefetch::line(self.start.as_ptr().wrapping_add(offset));
        }
    }

    /// The bytes, to be changed in place (decryption), if no other handle shows any of them.
    #[inline]
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if !self.shows_alone() {
            return None;
        }
        // SAFETY: as in `as_slice`; and no other handle shows these bytes: this is the only one to the slot, or `APART`, which
        // `split_to` gives to two handles whose bytes do not overlap, later changes only narrow, and `clone` takes away. It is
        // borrowed mutably, so no other view of them exists.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length as usize) })
    }

    /// Drops the first `count` bytes from view: a header that has been read.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.length as usize, "advance beyond the packet's end");
        // SAFETY: not beyond the end of this packet's bytes, hence within the slot.
        self.start = unsafe { self.start.add(count) };
        self.length -= count as u32;
    }

    /// Keeps the first `length` bytes in view; does nothing if there are no more than that.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        if length < self.length as usize {
            self.length = length as u32;
        }
    }

    /// Cuts the first `at` bytes off and gives them as a packet of their own, which shares the slot: one segment of an aggregate.
    /// Both can be changed in place if this one could.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[inline]
    pub fn split_to(&mut self, at: usize) -> Packet {
        assert!(at <= self.length as usize, "split beyond the packet's end");
        let apart = if self.shows_alone() { APART } else { 0 };
        let mut first = self.clone();
        first.truncate(at);
        self.advance(at);
        self.slot.set(self.slot.get() | apart);
        first.slot.set(first.slot.get() | apart);
        first
    }

    /// Another handle, to a part of these bytes.
    ///
    /// # Panics
    ///
    /// If the range reaches beyond the packet.
    #[inline]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Packet {
        let from = match range.start_bound() {
            Bound::Included(&at) => at,
            Bound::Excluded(&at) => at + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&at) => at + 1,
            Bound::Excluded(&at) => at,
            Bound::Unbounded => self.length as usize,
        };
        assert!(from <= to && to <= self.length as usize, "slice {from}..{to} of a packet of {} bytes", self.length);
        let mut part = self.clone();
        part.truncate(to);
        part.advance(from);
        part
    }

    /// Number of the slot in its pool.
    #[inline]
    pub fn slot(&self) -> u32 {
        self.slot.get() & !(SHARED | APART)
    }

    #[inline]
    fn is_shared(&self) -> bool {
        self.slot.get() & SHARED != 0
    }

    /// Whether this is the only handle to its slot.
    #[inline]
    pub fn is_unique(&self) -> bool {
        !self.is_shared() || self.pool().count(self.slot()) == 1
    }

    /// Whether no other handle shows any of these bytes.
    #[inline]
    fn shows_alone(&self) -> bool {
        self.slot.get() & APART != 0 || self.is_unique()
    }

    /// Bytes of memory this handle keeps from reuse: the whole slot, whatever part of it is in view.
    #[inline]
    pub fn slot_size(&self) -> usize {
        self.pool().slot_size()
    }
}

impl Deref for Packet {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Packet {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Clone for Packet {
    #[inline]
    fn clone(&self) -> Self {
        let (pool, slot) = (self.pool(), self.slot());
        if self.is_shared() {
            pool.share(slot);
        } else {
            pool.set_count(slot, 2);
        }
        // Two handles show the same bytes now.
        self.slot.set(slot | SHARED);
        Self { slot: self.slot.clone(), ..*self }
    }
}

impl Drop for Packet {
    #[inline]
    fn drop(&mut self) {
        let slot = self.slot();
        if self.is_shared() {
            let count = self.pool().count(slot);
            debug_assert_ne!(count, 0);
            self.pool().set_count(slot, count - 1);
            if count > 1 {
                return;
            }
        }
        // SAFETY: the pool is alive, and this was the slot's last handle.
        unsafe { Inner::release(self.pool, slot) };
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Packet {}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packet({} bytes in slot {})", self.length, self.slot())
    }
}
