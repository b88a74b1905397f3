//! For tests that allow no allocation: the system's allocator, counting what each thread asks of it.
//!
//! ```
//! use headworks_counting_allocator::{CountingAllocator, allocations};
//!
//! #[global_allocator]
//! static ALLOCATOR: CountingAllocator = CountingAllocator;
//!
//! let before = allocations();
//! let bytes = vec![0_u8; 100];
//! assert_eq!(allocations() - before, 1);
//! # drop(bytes);
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static THREAD_ID: Cell<i32> = const { Cell::new(0) };
}

/// 0: no thread.
static WATCHED_THREAD: AtomicI32 = AtomicI32::new(0);
static WATCHED_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// How often this thread has asked for memory, or for more of it, where [`CountingAllocator`] is the global allocator.
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// From now on counts what the thread with this id (one of those under `/proc/self/task`) asks for, from 0, for all to read.
pub fn watch(thread_id: i32) {
    WATCHED_THREAD.store(thread_id, Ordering::SeqCst);
    WATCHED_ALLOCATIONS.store(0, Ordering::SeqCst);
}

/// How often the thread that is [watched](watch) has asked for memory since, or for more of it.
pub fn watched_allocations() -> u64 {
    WATCHED_ALLOCATIONS.load(Ordering::SeqCst)
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    let watched = WATCHED_THREAD.load(Ordering::Relaxed);
    if watched == 0 {
        return;
    }
    if THREAD_ID.get() == 0 {
        THREAD_ID.set(rustix::thread::gettid().as_raw_nonzero().get());
    }
    if THREAD_ID.get() == watched {
        WATCHED_ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
    }
}

/// The system's allocator, counting.
#[derive(Debug)]
pub struct CountingAllocator;

// SAFETY: every call is passed on to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.realloc(memory, layout, size) }
    }
}
