//! The protocol without its bytes: every interleaving and every stale load that the memory model allows (loom), for a ring of a few
//! slots and a few words. Steps and fences are those of `writer.rs` and `reader.rs`; each can be left out, and then the model must
//! find the torn frame, or it would prove nothing.

use std::sync::Arc as StdArc;

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicU64, fence};

const BUSY: u64 = u64::MAX;
const FRAMES: u64 = 3;
/// Positions are stored with this added: a slot that was never written must not look like frame 0.
const FIRST: u64 = 10;

#[derive(Clone, Copy, PartialEq)]
enum Leave {
    Nothing,
    /// Step 1 without its fence.
    ReserveFence,
    /// The reader without its look at the reserve after the copy.
    ReserveCheck,
    /// Step 2 without BUSY.
    Busy,
    /// The reader without its second look at the lock.
    SecondLook,
    /// Step 2 with a relaxed store of the lock, and step 3 of the head.
    Publication,
}

struct Ring {
    reserve: AtomicU64,
    head: AtomicU64,
    /// lock and position
    slots: Vec<(AtomicU64, AtomicU64)>,
    data: Vec<AtomicU64>,
}

fn zeros(n: usize) -> Vec<AtomicU64> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

fn content(seq: u64) -> u64 {
    100 + seq
}

fn write(ring: &Ring, leave: Leave) {
    let order = if leave == Leave::Publication { Relaxed } else { Release };
    for seq in 0..FRAMES {
        // 1
        ring.reserve.store(seq + 1, Relaxed);
        if leave != Leave::ReserveFence {
            fence(Release);
        }
        ring.data[seq as usize % ring.data.len()].store(content(seq), Relaxed);
        // 2
        let (lock, position) = &ring.slots[seq as usize % ring.slots.len()];
        if leave != Leave::Busy {
            lock.store(BUSY, Relaxed);
            fence(Release);
        }
        position.store(FIRST + seq, Relaxed);
        lock.store(seq + 1, order);
        // 3
        ring.head.store(seq + 1, order);
    }
}

fn load_acquire(word: &AtomicU64) -> u64 {
    let value = word.load(Relaxed);
    fence(Acquire);
    value
}

/// One attempt at one frame; what it believes is checked.
fn read(ring: &Ring, seq: u64, leave: Leave) {
    let head = load_acquire(&ring.head);
    if seq >= head {
        return;
    }
    let (lock, position) = &ring.slots[seq as usize % ring.slots.len()];
    if load_acquire(lock) != seq + 1 {
        return;
    }
    let at = position.load(Relaxed).wrapping_sub(FIRST);
    fence(Acquire);
    if leave != Leave::SecondLook && lock.load(Relaxed) != seq + 1 {
        return;
    }
    assert_eq!(at, seq, "a torn slot was believed");
    let capacity = ring.data.len() as u64;
    let reserve = ring.reserve.load(Relaxed);
    assert!(at < reserve, "a frame beyond the reserve");
    if reserve - at > capacity {
        return;
    }
    let word = ring.data[(at % capacity) as usize].load(Relaxed);
    fence(Acquire);
    if leave != Leave::ReserveCheck && ring.reserve.load(Relaxed) - at > capacity {
        return;
    }
    assert_eq!(word, content(seq), "a torn payload was believed");
}

fn explore(slots: usize, words: usize, leave: Leave) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let ring = Arc::new(Ring {
            reserve: AtomicU64::new(0),
            head: AtomicU64::new(0),
            slots: zeros(slots).into_iter().zip(zeros(slots)).collect(),
            data: zeros(words),
        });
        let writing = {
            let ring = Arc::clone(&ring);
            loom::thread::spawn(move || write(&ring, leave))
        };
        read(&ring, 0, leave);
        writing.join().unwrap();
    });
}

/// True if the model found a frame that was believed wrongly.
fn finds_a_fault(slots: usize, words: usize, leave: Leave) -> bool {
    let outcome = StdArc::new(std::sync::Mutex::new(None));
    let report = StdArc::clone(&outcome);
    let exploring = std::thread::spawn(move || {
        let found = std::panic::catch_unwind(|| explore(slots, words, leave)).is_err();
        *report.lock().unwrap() = Some(found);
    });
    exploring.join().unwrap();
    let found = outcome.lock().unwrap().take();
    found.unwrap()
}

#[test]
fn no_torn_payload_is_believed_when_the_data_is_shorter_than_the_slots() {
    explore(4, 2, Leave::Nothing);
    explore(4, 1, Leave::Nothing);
}

#[test]
fn no_torn_slot_is_believed_when_the_slots_are_fewer_than_the_data() {
    explore(2, 4, Leave::Nothing);
    explore(1, 4, Leave::Nothing);
}

#[test]
fn each_step_that_is_left_out_is_missed() {
    assert!(finds_a_fault(4, 2, Leave::ReserveFence), "the fence of step 1");
    assert!(finds_a_fault(4, 2, Leave::ReserveCheck), "the look at the reserve after the copy");
    assert!(finds_a_fault(2, 4, Leave::Busy), "BUSY");
    assert!(finds_a_fault(2, 4, Leave::SecondLook), "the second look at the lock");
    assert!(finds_a_fault(4, 4, Leave::Publication), "release at publication");
}
