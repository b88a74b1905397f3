//! The memory under a pool: one sealed memory file, mapped once.

use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::io::Errno;

/// Size of a huge page on every host Headworks runs on, bytes.
#[cfg(not(miri))]
const HUGE_PAGE: usize = 2 << 20;

/// `MADV_COLLAPSE`, Linux 6.1.
#[cfg(not(miri))]
const MADV_COLLAPSE: libc::c_int = 25;

/// What kind of pages a region ended up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Reserved 2 MiB pages (`vm.nr_hugepages`).
    Huge,
    /// 2 MiB pages that the kernel has made out of ordinary ones (`MADV_COLLAPSE`, Linux 6.1).
    TransparentHuge,
    /// 4 KiB pages.
    Small,
}

/// A range of addresses: where it begins, and how many bytes it has.
#[cfg(not(miri))]
type Span = (NonNull<u8>, usize);

/// A mapped memory file. Zeroed at birth, never moved, unmapped on drop.
pub(crate) struct Region {
    base: NonNull<u8>,
    length: usize,
    /// The mapping that `base` and `length` lie in.
    #[cfg(not(miri))]
    mapped: Span,
    pages: Pages,
    memfd: OwnedFd,
}

impl Region {
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }

    pub(crate) fn memfd(&self) -> &OwnedFd {
        &self.memfd
    }
}

#[cfg(not(miri))]
mod mapped {
    use super::*;
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
    use rustix::param::page_size;

    impl Region {
        /// Maps at least `length` bytes. Huge pages that cannot be had are replaced by ordinary ones; see [`Region::pages`].
        ///
        /// With `prefault` every page is touched now, on this thread, and so comes from this thread's NUMA node and from no
        /// later, busier moment.
        pub(crate) fn map(length: usize, huge_pages: bool, prefault: bool) -> Result<Self, Errno> {
            let reserved = if huge_pages { Self::map_pages(length, Pages::Huge, prefault).ok() } else { None };
            match reserved {
                Some(region) => Ok(region),
                None if huge_pages => Self::map_pages(length, Pages::TransparentHuge, prefault),
                None => Self::map_pages(length, Pages::Small, prefault),
            }
        }

        fn map_pages(length: usize, pages: Pages, prefault: bool) -> Result<Self, Errno> {
            let (extra, unit) = match pages {
                Pages::Huge => (MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, HUGE_PAGE),
                Pages::TransparentHuge => (MemfdFlags::empty(), HUGE_PAGE),
                Pages::Small => (MemfdFlags::empty(), page_size()),
            };
            let length = length.checked_next_multiple_of(unit).ok_or(Errno::NOMEM)?;
            let memfd = memfd_create("headworks-packets", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | extra)?;
            ftruncate(&memfd, length as u64)?;
            // A file that shrinks under its mapping is a SIGBUS; whoever inherits the descriptor must not be able to do that.
            fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
            let (protection, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
            let (base, mapped) = if pages == Pages::TransparentHuge {
                let (base, reservation) = reserve_aligned(length)?;
                // A mapping that fails here may already have taken the addresses out of the reservation, and another thread may
                // have them by now: the reservation is left alone then, which costs addresses and no memory.
                // SAFETY: it replaces a part of the reservation, which nothing else uses.
                unsafe { mmap(base.as_ptr().cast(), length, protection, shared | MapFlags::FIXED, &memfd, 0)? };
                (base, reservation)
            } else {
                // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing that exists.
                let base = unsafe { mmap(std::ptr::null_mut(), length, protection, shared, &memfd, 0)? };
                let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::NOMEM)?;
                (base, (base, length))
            };
            // From here on the mapping has an owner: an error below unmaps it.
            let mut region = Self { base, length, mapped, pages, memfd };
            if prefault {
                // SAFETY: populating writes nothing; it only makes the pages of the mapping made above present.
                unsafe { madvise(base.as_ptr().cast(), length, Advice::LinuxPopulateWrite)? };
            }
            if pages == Pages::TransparentHuge {
                // The advice for huge pages would wait on `shmem_enabled`, which is off nearly everywhere; this does not.
                // SAFETY: the mapping made above, whose contents it does not change.
                let collapsed = unsafe { libc::madvise(base.as_ptr().cast(), length, MADV_COLLAPSE) } == 0;
                if !collapsed {
                    region.pages = Pages::Small;
                }
            }
            Ok(region)
        }
    }

    /// Reserves addresses for `length` bytes that begin at a multiple of [`HUGE_PAGE`], and returns where they begin and the
    /// whole reservation: the kernel aligns only those files that it means to give huge pages.
    fn reserve_aligned(length: usize) -> Result<(NonNull<u8>, Span), Errno> {
        let reserved = length.checked_add(HUGE_PAGE).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing that exists.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), reserved, ProtFlags::empty(), flags)? };
        let start = NonNull::new(start.cast::<u8>()).ok_or(Errno::NOMEM)?;
        // SAFETY: less than a huge page is added, and that much more than `length` was reserved.
        let base = unsafe { start.add(start.as_ptr().align_offset(HUGE_PAGE)) };
        Ok((base, (start, reserved)))
    }

    impl Drop for Region {
        fn drop(&mut self) {
            let (start, reserved) = self.mapped;
            // SAFETY: the mapping made in `map_pages`, with the reservation around it if there was one; the pool drops its region only when no
            // handle, no raw slot and no pool refers to it any more (`Inner::owners`).
            let unmapped = unsafe { munmap(start.as_ptr().cast(), reserved) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

/// Miri knows no memory files: the heap stands in for one.
#[cfg(miri)]
mod mapped {
    use super::*;
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    fn layout(length: usize) -> Layout {
        Layout::from_size_align(length, 4096).expect("a region's size is a valid layout")
    }

    impl Region {
        pub(crate) fn map(length: usize, _huge_pages: bool, _prefault: bool) -> Result<Self, Errno> {
            // SAFETY: `PacketPool::new` refuses a region of no bytes.
            let base = unsafe { alloc_zeroed(layout(length)) };
            Ok(Self {
                base: NonNull::new(base).ok_or(Errno::NOMEM)?,
                length,
                pages: Pages::Small,
                memfd: std::fs::File::open("/dev/null").map_err(|_| Errno::NOENT)?.into(),
            })
        }
    }

    impl Drop for Region {
        fn drop(&mut self) {
            // SAFETY: allocated in `map` with this very layout.
            unsafe { dealloc(self.base.as_ptr(), layout(self.length)) };
        }
    }
}
