//! Receive credit: a provided-buffer ring whose entries are slots of packet memory lent to the kernel.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use headworks_packet::{PacketPool, RawSlot};
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// No slot is lent under this buffer id.
const NONE: u32 = u32::MAX;
/// Slots that are lent at least, however little came lately.
const LEAST: usize = 256;

/// One buffer group: ring, and which slot is lent under which buffer id.
///
/// The kernel may write to lent slots and read the ring at any time, so dropping this value releases nothing: memory goes only
/// through [`CreditRing::release`], whose caller knows that the kernel is done.
pub(crate) struct CreditRing {
    entries: NonNull<BufRingEntry>,
    mapped: usize,
    tail: u16,
    group: u16,
    /// Buffer id → slot, or [`NONE`].
    slots: Box<[u32]>,
    /// Buffer ids under which nothing is lent.
    idle: Vec<u16>,
    /// Slots used since the last refill.
    used: usize,
    /// The same of the refills before, the newest counting most.
    used_lately: usize,
    pool: PacketPool,
}

impl CreditRing {
    /// A ring of `credit` entries (a power of two up to 32,768) without any slots in it, registered as buffer group `group`.
    pub(crate) fn register(
        submitter: &Submitter<'_>,
        pool: PacketPool,
        credit: u16,
        group: u16,
    ) -> std::io::Result<Self> {
        assert!(credit.is_power_of_two() && credit <= 1 << 15);
        let mapped = usize::from(credit) * size_of::<BufRingEntry>();
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing that exists.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                mapped,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::POPULATE,
            )?
        };
        let entries = NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        // SAFETY: the mapping is page aligned, holds `credit` entries, is zeroed (no entries, tail 0), and stays until `release`.
        let registered = unsafe { submitter.register_buf_ring_with_flags(base as u64, credit, group, 0) };
        if let Err(error) = registered {
            // SAFETY: the mapping made above; the kernel has refused to know it.
            let _ = unsafe { munmap(base, mapped) };
            return Err(error);
        }
        Ok(Self {
            entries,
            mapped,
            tail: 0,
            group,
            slots: vec![NONE; usize::from(credit)].into_boxed_slice(),
            // Handed out from the back: id 0 first.
            idle: (0..credit).rev().collect(),
            used: 0,
            used_lately: usize::from(credit),
            pool,
        })
    }

    pub(crate) fn pool(&self) -> &PacketPool {
        &self.pool
    }

    /// Number of entries.
    pub(crate) fn size(&self) -> usize {
        self.slots.len()
    }

    /// Slots the kernel can still fill.
    #[inline]
    pub(crate) fn lent(&self) -> usize {
        self.slots.len() - self.idle.len()
    }

    /// Lends as many slots as are wanted, as far as the pool has them, and shows them to the kernel at once. Gives their number.
    ///
    /// Wanted are four times what was used lately, not all that the ring could hold: the kernel fills slots in the order they
    /// were lent, and a slot that is filled soon after it was read is still in the processor's cache. When nothing is left,
    /// everything is wanted.
    #[inline]
    pub(crate) fn refill(&mut self) -> usize {
        let lent = self.lent();
        let used = if lent == 0 { self.slots.len() } else { std::mem::take(&mut self.used) };
        self.used_lately = used.max(self.used_lately - self.used_lately / 16);
        let wanted = (self.used_lately * 4).max(LEAST);
        let count = wanted.saturating_sub(lent).min(self.idle.len()).min(self.pool.free_slots());
        if count == 0 {
            return 0;
        }
        let mask = self.slots.len() as u16 - 1;
        let size = self.pool.slot_size() as u32;
        for _ in 0..count {
            let (Some(id), Some(slot)) = (self.idle.pop(), self.pool.take_slot()) else {
                unreachable!("as many ids and slots as were counted");
            };
            let address = slot.as_ptr().as_ptr() as u64;
            self.slots[usize::from(id)] = slot.into_index();
            // SAFETY: the index is within the ring, and the entry is not among those the kernel may read: at most `credit` slots
            // are lent, so the entry at `tail` was consumed. (The kernel reads the tail, which shares entry 0's reserved field;
            // the setters leave that alone.)
            let entry = unsafe { self.entries.add(usize::from(self.tail & mask)).as_mut() };
            entry.set_addr(address);
            entry.set_len(size);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the tail lies within the ring's first entry, is aligned for u16, and is only written here.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        // Release: the kernel, which acquires the tail, sees whole entries.
        tail.store(self.tail, Ordering::Release);
        count
    }

    /// Takes back the slot the kernel has just filled (or given up).
    ///
    /// # Safety
    ///
    /// A completion that was not seen before named buffer `id` of this group: the kernel is done with it.
    ///
    /// # Panics
    ///
    /// If nothing is lent under `id`: the kernel and we no longer agree on who owns which memory.
    #[inline]
    pub(crate) unsafe fn take(&mut self, id: u16) -> RawSlot {
        let slot = std::mem::replace(&mut self.slots[usize::from(id)], NONE);
        assert_ne!(slot, NONE, "the kernel filled a buffer it was not lent");
        self.idle.push(id);
        self.used += 1;
        // SAFETY: `slot` came from `into_index` of this pool in `refill`, was taken out of the table just now, and the kernel is done.
        unsafe { self.pool.slot_from_index(slot) }
    }

    /// Whether there is less left than one more batch like the last ones would use.
    #[inline]
    pub(crate) fn is_low(&self) -> bool {
        self.lent() < self.used_lately.min(self.size() / 2).max(LEAST / 2)
    }

    /// Gives all memory back.
    ///
    /// # Safety
    ///
    /// No request that could pick a buffer of this group is in flight, and none will be submitted.
    pub(crate) unsafe fn release(mut self, submitter: &Submitter<'_>) {
        if submitter.unregister_buf_ring(self.group).is_err() {
            // The kernel keeps the ring; then so do we.
            return;
        }
        for slot in self.slots.iter_mut() {
            let slot = std::mem::replace(slot, NONE);
            if slot != NONE {
                // SAFETY: lent in `refill`, not taken back since, and by the caller's word nobody is left to fill it.
                drop(unsafe { self.pool.slot_from_index(slot) });
            }
        }
        // SAFETY: the mapping made in `register`, unknown to the kernel since the line above.
        let _ = unsafe { munmap(self.entries.as_ptr().cast(), self.mapped) };
    }
}
