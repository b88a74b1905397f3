//! The two mappings of a ring, and what the kernel is asked to do for them.
//!
//! [`SharedWords`] is a `ctl` or `bell` file: 64-bit and 32-bit words accessed only as atomics. [`MirroredData`] is the `data`
//! file, mapped twice back to back, so that `capacity` bytes from any offset below `capacity` are one run of addresses.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::copy;

pub(crate) const HUGE_PAGE: usize = 2 << 20;
/// `MADV_COLLAPSE`, Linux 6.1.
const MADV_COLLAPSE: libc::c_int = 25;
/// `MADV_POPULATE_WRITE`, Linux 5.14.
const MADV_POPULATE_WRITE: libc::c_int = 23;
/// `MADV_POPULATE_READ`, Linux 5.14.
const MADV_POPULATE_READ: libc::c_int = 22;
const MPOL_BIND: libc::c_long = 2;
/// So many bytes of shared words are put into a process's page tables when it maps them, so that neither a commit nor a reader that
/// wakes meets a fault: the slots of any usual ring, and no more than that of one that asks for gigabytes.
const POPULATED_MAX: usize = 4 << 20;

/// A mapped file of shared words.
#[derive(Debug)]
pub struct SharedWords {
    map: MmapRaw,
    writable: bool,
}

impl SharedWords {
    /// Maps `length` bytes of `file` for reading and writing.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn writable(file: &File, length: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(length).map_raw(file)?;
        // Best effort: older kernels let the first commits fault instead.
        let _ = map.advise_range(Advice::PopulateWrite, 0, length.min(POPULATED_MAX));
        Ok(Self { map, writable: true })
    }

    /// Maps `length` bytes of `file` for reading. The caller has compared `length` with the size of the file.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn read_only(file: &File, length: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(length).map_raw_read_only(file)?;
        let _ = map.advise_range(Advice::PopulateRead, 0, length.min(POPULATED_MAX));
        Ok(Self { map, writable: false })
    }

    /// Bytes mapped.
    #[must_use]
    pub fn size(&self) -> usize {
        self.map.len()
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.map.len(), "word {offset:#x} outside the mapping");
        // SAFETY: aligned (the map is page-aligned) and inside the mapping, which lives as long as `self`; every access
        // to it in this process is atomic, and it is written only if mapped for writing (see `store`).
        unsafe { &*self.map.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    #[inline]
    pub(crate) fn half(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.map.len(), "word {offset:#x} outside the mapping");
        // SAFETY: as in `word`; u32 words are never accessed as u64.
        unsafe { &*self.map.as_ptr().add(offset).cast::<AtomicU32>() }
    }

    /// Loads a word; orders nothing.
    #[inline]
    #[must_use]
    pub fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Relaxed)
    }

    /// Loads a word; what the writer did before storing it is visible afterwards.
    ///
    /// A relaxed load and a fence: on read-only memory only relaxed loads are promised to be loads.
    #[inline]
    #[must_use]
    pub fn load_acquire(&self, offset: usize) -> u64 {
        let value = self.word(offset).load(Relaxed);
        fence(Acquire);
        value
    }

    /// As [`SharedWords::load`], 32 bits.
    #[inline]
    #[must_use]
    pub fn load_half(&self, offset: usize) -> u32 {
        self.half(offset).load(Relaxed)
    }

    /// As [`SharedWords::load_acquire`], 32 bits.
    #[inline]
    #[must_use]
    pub fn load_half_acquire(&self, offset: usize) -> u32 {
        let value = self.half(offset).load(Relaxed);
        fence(Acquire);
        value
    }

    #[inline]
    pub(crate) fn store(&self, offset: usize, value: u64, order: std::sync::atomic::Ordering) {
        assert!(self.writable, "a reader does not write");
        self.word(offset).store(value, order);
    }

    #[inline]
    pub(crate) fn store_half(&self, offset: usize, value: u32, order: std::sync::atomic::Ordering) {
        assert!(self.writable, "a reader does not write");
        self.half(offset).store(value, order);
    }

    /// Copies `words.len()` words out. They may be torn among each other, never within.
    #[inline]
    pub fn copy_words(&self, offset: usize, words: &mut [u64]) {
        assert!(offset.is_multiple_of(8) && offset + words.len() * 8 <= self.map.len(), "words outside the mapping");
        // SAFETY: checked just now; as in `word`.
        let shared = unsafe { self.word_slice(offset, words.len()) };
        for (word, shared) in words.iter_mut().zip(shared) {
            *word = shared.load(Relaxed);
        }
    }

    /// Stores words one by one, in no order.
    #[inline]
    pub(crate) fn store_words(&self, offset: usize, words: &[u64]) {
        assert!(self.writable, "a reader does not write");
        assert!(offset.is_multiple_of(8) && offset + words.len() * 8 <= self.map.len(), "words outside the mapping");
        // SAFETY: checked just now; as in `word`.
        let shared = unsafe { self.word_slice(offset, words.len()) };
        for (&word, shared) in words.iter().zip(shared) {
            shared.store(word, Relaxed);
        }
    }

    /// Asks the processor for cache lines that are about to be stored to.
    #[inline]
    pub(crate) fn prefetch_for_write(&self, offset: usize, lines: usize) {
        copy::prefetch_for_write(self.map.as_ptr().wrapping_add(offset), lines);
    }

    /// # Safety
    /// `offset` is a multiple of 8 and `count` words from it lie in the mapping.
    #[inline]
    unsafe fn word_slice(&self, offset: usize, count: usize) -> &[AtomicU64] {
        // SAFETY: as promised by the caller, and as in `word`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(offset).cast::<AtomicU64>(), count) }
    }

    /// Copies bytes out, racing.
    pub fn copy_bytes(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset <= self.map.len() && bytes.len() <= self.map.len() - offset, "bytes outside the mapping");
        // SAFETY: checked to lie in the mapping; mappings are whole pages, so covering words lie in it too.
        unsafe { copy::from_shared(bytes.as_mut_ptr(), self.map.as_ptr().add(offset), bytes.len()) }
    }

    /// Copies bytes in, racing.
    pub(crate) fn write_bytes(&self, offset: usize, bytes: &[u8]) {
        assert!(self.writable, "a reader does not write");
        assert!(offset <= self.map.len() && bytes.len() <= self.map.len() - offset, "bytes outside the mapping");
        // SAFETY: as in `copy_bytes`; the holder of the writable map is the single writer.
        unsafe { copy::to_shared(self.map.as_mut_ptr().add(offset), bytes) }
    }
}

/// The payload bytes of a ring, seen twice.
#[derive(Debug)]
pub struct MirroredData {
    base: *mut u8,
    capacity: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread; all access goes through the racing copy or through
// `slice`, whose caller vouches for the absence of writers.
unsafe impl Send for MirroredData {}
// SAFETY: as above.
unsafe impl Sync for MirroredData {}

impl MirroredData {
    /// Maps the first `capacity` bytes of `file` twice, at a 2 MiB boundary. The caller has compared `capacity` (a power of two,
    /// a multiple of the backing page) with the size of the file.
    ///
    /// # Errors
    /// What `mmap` says, or `InvalidInput` if twice the capacity is no address range.
    pub fn map(file: &File, capacity: u64, writable: bool) -> io::Result<Self> {
        let no_range = || io::Error::from(io::ErrorKind::InvalidInput);
        let capacity = usize::try_from(capacity).map_err(|_| no_range())?;
        let twice = capacity.checked_mul(2).ok_or_else(no_range)?;
        let reserved = twice.checked_add(HUGE_PAGE).ok_or_else(no_range)?;
        // SAFETY: a fresh reservation without access rights.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reserved,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = start.cast::<u8>();
        let head = start.align_offset(HUGE_PAGE);
        let base = start.wrapping_add(head);
        let tail = HUGE_PAGE - head;
        // SAFETY: both ranges belong to the reservation just made and nothing refers to them.
        unsafe {
            if head > 0 {
                libc::munmap(start.cast(), head);
            }
            if tail > 0 {
                libc::munmap(base.wrapping_add(twice).cast(), tail);
            }
        }
        // From here on Drop gives the two views' addresses back.
        let data = Self { base, capacity, writable };
        let rights = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        for view in [base, base.wrapping_add(capacity)] {
            // SAFETY: MAP_FIXED over our own reservation of 2 × capacity bytes.
            let mapped = unsafe {
                libc::mmap(view.cast(), capacity, rights, libc::MAP_SHARED | libc::MAP_FIXED, file.as_raw_fd(), 0)
            };
            if mapped == libc::MAP_FAILED {
                let error = io::Error::last_os_error();
                // The failed call may have taken these addresses out of the reservation, and another thread may have mapped
                // something there since: they are left alone, which costs addresses and no memory.
                std::mem::forget(data);
                return Err(error);
            }
        }
        Ok(data)
    }

    /// No bytes.
    pub(crate) fn nothing() -> Self {
        Self { base: std::ptr::null_mut(), capacity: 0, writable: false }
    }

    /// Bytes of one view.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline]
    fn at(&self, position: u64, length: usize) -> *mut u8 {
        assert!(length <= self.capacity && self.capacity > 0, "longer than the ring");
        // Offset < capacity and length ≤ capacity: the range ends within the second view.
        self.base.wrapping_add(position as usize & (self.capacity - 1))
    }

    /// Copies pieces to a virtual position, one after the other. The caller is the ring's single writer.
    #[inline]
    pub(crate) fn write(&self, position: u64, offset: usize, pieces: &[&[u8]]) {
        assert!(self.writable, "a reader does not write");
        let length = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let frame = self.at(position, offset + length);
        let mut to = frame.wrapping_add(offset);
        for piece in pieces {
            // SAFETY: `frame .. + offset + length` lies in the two views (see `at`); `Writer` is the single writer
            // and its `written` slices borrow it, so no reference exists during `&mut self` appends.
            unsafe { copy::to_shared(to, piece) }
            to = to.wrapping_add(piece.len());
        }
        // What comes next is like what came: packets of one size, up to 2 KiB ahead.
        copy::prefetch_for_write(to, length.div_ceil(64).clamp(3, 32));
    }

    /// Asks the processor for the memory of the next bytes of a frame: a datagram's payload.
    #[inline]
    pub(crate) fn prefetch(&self, position: u64, offset: usize) {
        copy::prefetch_for_write(self.at(position, offset).wrapping_add(offset), 8);
    }

    /// Copies bytes from a virtual position, racing.
    ///
    /// # Panics
    /// If `bytes` is longer than the ring.
    #[inline]
    pub fn read(&self, position: u64, bytes: &mut [u8]) {
        let from = self.at(position, bytes.len());
        // SAFETY: the range lies in the two views; `bytes` is private memory.
        unsafe { copy::from_shared(bytes.as_mut_ptr(), from, bytes.len()) }
    }

    /// Appends bytes from a virtual position to a buffer, racing. `bytes` grows, it is not zeroed first.
    pub(crate) fn read_into(&self, position: u64, length: usize, bytes: &mut Vec<u8>) {
        let from = self.at(position, length);
        bytes.clear();
        bytes.reserve(length);
        // SAFETY: the range lies in the two views; the vector has room for `length` bytes, all of which the copy sets.
        unsafe {
            copy::from_shared(bytes.as_mut_ptr(), from, length);
            bytes.set_len(length);
        }
    }

    /// The bytes at a virtual position, not copied.
    ///
    /// # Safety
    /// Nobody writes these bytes while the slice lives: the caller is the writer and does not, or has reason to believe so
    /// and validates afterwards.
    ///
    /// # Panics
    /// If `length` exceeds the ring.
    #[inline]
    pub unsafe fn slice(&self, position: u64, length: usize) -> &[u8] {
        // SAFETY: in the two views, mapped as long as `self`; no concurrent write by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.at(position, length), length) }
    }

    /// Binds the pages to a NUMA node, before they are allocated. Best effort.
    ///
    /// # Errors
    /// What `mbind` says (`ENOSYS` on kernels without NUMA).
    pub fn bind(&self, node: u32) -> io::Result<()> {
        if node >= 64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mask: u64 = 1 << node;
        // SAFETY: our own mapping; the mask is one word of 64 bits (the kernel wants maxnode one higher).
        let result = unsafe {
            libc::syscall(libc::SYS_mbind, self.base, self.capacity, MPOL_BIND, &raw const mask, 65 as libc::c_long, 0)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Puts every page into both views, so that no append ever faults; touches them one by one on kernels without
    /// `MADV_POPULATE_WRITE`.
    pub fn prefault(&self) {
        assert!(self.writable, "a reader does not prefault");
        for view in [self.base, self.base.wrapping_add(self.capacity)] {
            // SAFETY: our own mapping.
            if unsafe { libc::madvise(view.cast(), self.capacity, MADV_POPULATE_WRITE) } == 0 {
                continue;
            }
            for offset in (0..self.capacity).step_by(4096) {
                // SAFETY: inside the view; adding zero leaves what is there.
                unsafe { (*view.wrapping_add(offset).cast::<AtomicU64>()).fetch_add(0, Relaxed) };
            }
        }
    }

    /// Asks for huge pages on whatever file system this is (`MADV_COLLAPSE` works on plain tmpfs).
    #[must_use]
    pub fn collapse(&self) -> HugePages {
        if self.capacity < HUGE_PAGE {
            return HugePages::TooSmall;
        }
        // The first call moves the bytes, the second maps what was moved.
        for view in [self.base, self.base.wrapping_add(self.capacity)] {
            // SAFETY: our own mapping; advice does not change what the bytes are.
            if unsafe { libc::madvise(view.cast(), self.capacity, MADV_COLLAPSE) } != 0 {
                return HugePages::Refused(io::Error::last_os_error().raw_os_error().unwrap_or(0));
            }
        }
        HugePages::Collapsed
    }

    /// What pages the bytes lie on, as this process sees them. Maps all of the first view.
    ///
    /// # Errors
    /// If `/proc/self/smaps` cannot be read, or does not list the mapping.
    pub fn backing(&self) -> io::Result<Backing> {
        // SAFETY: our own mapping; a kernel that does not know the advice says so, and less is counted then.
        let _ = unsafe { libc::madvise(self.base.cast(), self.capacity, MADV_POPULATE_READ) };
        let smaps = std::fs::read_to_string("/proc/self/smaps")?;
        // Two adjoining views of one file are two areas: the second one starts again at offset 0.
        let area = format!("{:x}-", self.base as usize);
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&area)).skip(1);
        let mut backing = Backing::default();
        for line in lines.by_ref().take_while(|line| line.split_once(' ').is_some_and(|(key, _)| key.ends_with(':'))) {
            let (key, value) = line.split_once(':').unwrap_or_default();
            let kib = || value.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
            match key {
                "KernelPageSize" => backing.page_size = kib() << 10,
                "Rss" => backing.mapped += kib() << 10,
                "Shared_Hugetlb" | "Private_Hugetlb" => {
                    backing.mapped += kib() << 10;
                    backing.huge += kib() << 10;
                }
                "ShmemPmdMapped" | "FilePmdMapped" => backing.huge += kib() << 10,
                _ => {}
            }
        }
        if backing.page_size == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(backing) }
    }
}

/// What pages a ring's payload lies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backing {
    /// Page size of the mapping, bytes: 4096 on tmpfs even if the pages are huge, 2 MiB or more on hugetlbfs.
    pub page_size: u64,
    /// Bytes mapped.
    pub mapped: u64,
    /// Bytes of these mapped by huge pages.
    pub huge: u64,
}

impl Drop for MirroredData {
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: the two views are ours and no borrow outlives `self`.
            unsafe { libc::munmap(self.base.cast(), self.capacity * 2) };
        }
    }
}

/// What became of the wish for huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Both views are mapped by 2 MiB pages.
    Collapsed,
    /// It lies on hugetlbfs, in pages that were set aside for it.
    Reserved,
    /// Less than 2 MiB.
    TooSmall,
    /// The kernel said no with this `errno`; the ring works with small pages.
    Refused(i32),
    /// Nobody asked.
    NotAsked,
}

/// Makes a file of exactly `size` bytes whose pages all exist, so that no later access meets a full file system.
///
/// # Errors
/// What `ftruncate` or `fallocate` says; `StorageFull` is the one to expect.
pub fn allocate(file: &File, size: u64) -> io::Result<()> {
    file.set_len(size)?;
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size)?;
    Ok(())
}

/// Allocates the first small page of each huge one that a file of this size can have: what [`MirroredData::collapse`] needs to make huge
/// pages, and as little as it can do with.
///
/// # Errors
/// If the file system has no room for them.
pub(crate) fn begin_huge_pages(file: &File, size: u64) -> io::Result<()> {
    for offset in (0..size).step_by(HUGE_PAGE) {
        rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), offset, 1)?;
    }
    Ok(())
}

/// While it lives, what this thread allocates comes from one NUMA node; then the thread's policy is what it was before.
///
/// hugetlbfs needs it: `fallocate` asks the thread's policy there, and `mbind` decides about faults alone, while a file on tmpfs
/// remembers the policy of its mapping. On a host with one node all that can be seen is that the policy is set and restored: which of
/// several nodes the pages come from takes a host that has several.
#[derive(Debug)]
pub struct BoundThread {
    before: MemoryPolicy,
    /// Another thread's policy would be restored in its place.
    of_this_thread: PhantomData<*const ()>,
}

impl BoundThread {
    /// Binds this thread.
    ///
    /// # Errors
    /// What `set_mempolicy` says of the node (`EINVAL` for one that is not there, `ENOSYS` on kernels without NUMA).
    pub fn to_node(node: u32) -> io::Result<Self> {
        let before = MemoryPolicy::of_this_thread()?;
        MemoryPolicy::bind(node)?.set()?;
        Ok(Self { before, of_this_thread: PhantomData })
    }
}

impl Drop for BoundThread {
    fn drop(&mut self) {
        // The kernel gave it out and takes it back.
        let _ = self.before.set();
    }
}

/// Bits of a node mask: as many as a kernel can have nodes.
const NODES_MAX: usize = 1024;

/// Where a thread's memory is allocated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MemoryPolicy {
    mode: libc::c_int,
    nodes: [u64; NODES_MAX / 64],
}

impl MemoryPolicy {
    fn bind(node: u32) -> io::Result<Self> {
        let mut nodes = [0; NODES_MAX / 64];
        let word = nodes.get_mut(node as usize / 64).ok_or(io::ErrorKind::InvalidInput)?;
        *word = 1 << (node % 64);
        Ok(Self { mode: MPOL_BIND as libc::c_int, nodes })
    }

    fn of_this_thread() -> io::Result<Self> {
        let mut policy = Self { mode: 0, nodes: [0; NODES_MAX / 64] };
        // SAFETY: both pointers are to memory of our own; the mask has NODES_MAX bits, all of which the kernel may set.
        let result = unsafe {
            libc::syscall(libc::SYS_get_mempolicy, &raw mut policy.mode, policy.nodes.as_mut_ptr(), NODES_MAX, 0, 0)
        };
        if result == 0 { Ok(policy) } else { Err(io::Error::last_os_error()) }
    }

    fn set(&self) -> io::Result<()> {
        // SAFETY: the mask is NODES_MAX bits that the kernel reads (it wants maxnode one higher); a policy moves no memory.
        let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, self.mode, self.nodes.as_ptr(), NODES_MAX + 1) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Identifies this boot of this kernel.
///
/// # Errors
/// If `/proc` is not there.
pub fn boot_id() -> io::Result<[u8; 16]> {
    uuid_from("/proc/sys/kernel/random/boot_id")
}

/// A random UUID from the kernel.
///
/// # Errors
/// If `/proc` is not there.
pub fn random_uuid() -> io::Result<[u8; 16]> {
    uuid_from("/proc/sys/kernel/random/uuid")
}

fn uuid_from(path: &str) -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string(path)?;
    let mut id = [0; 16];
    let mut digits = text.bytes().filter_map(|b| char::from(b).to_digit(16));
    for byte in &mut id {
        let (Some(high), Some(low)) = (digits.next(), digits.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        *byte = (high * 16 + low) as u8;
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_view_is_the_first_one_again() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        allocate(&file, 1 << 16).unwrap();
        let data = MirroredData::map(&file, 1 << 16, true).unwrap();
        assert!((data.base as usize).is_multiple_of(HUGE_PAGE));
        data.write((1 << 16) - 3, 0, &[b"wra", b"", b"pped"]);
        let mut start = [0; 4];
        data.read(0, &mut start);
        assert_eq!(&start, b"pped");
        let mut whole = [0; 7];
        data.read(7 * (1 << 16) - 3, &mut whole);
        assert_eq!(&whole, b"wrapped");
    }

    #[test]
    fn binding_prefaulting_and_collapsing_leave_the_bytes_alone() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        allocate(&file, 4 << 20).unwrap();
        let data = MirroredData::map(&file, 4 << 20, true).unwrap();
        data.write(12345, 0, &[b"still here"]);
        let _ = data.bind(0);
        data.prefault();
        assert_ne!(data.collapse(), HugePages::TooSmall);
        let mut back = [0; 10];
        data.read(12345, &mut back);
        assert_eq!(&back, b"still here");
    }

    #[test]
    fn two_uuids_differ_and_one_boot_is_one_boot() {
        assert_ne!(random_uuid().unwrap(), random_uuid().unwrap());
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_ne!(boot_id().unwrap(), [0; 16]);
    }
}
