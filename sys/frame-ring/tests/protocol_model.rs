//! The protocol without its bytes: every interleaving and every stale load that the memory model allows (loom), for a ring of a few
//! slots and a few words. Steps and fences are those of `writer.rs`, `builder.rs`, `bell.rs` and `reader.rs`; each can be left out,
//! and then the model must find the torn frame, the lost wake or the wrong order, or it would prove nothing.

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

impl Ring {
    fn new(slots: usize, words: usize) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            reserve: zero(),
            head: zero(),
            slots: (0..slots).map(|_| (zero(), zero())).collect(),
            data: (0..words).map(|_| zero()).collect(),
        }
    }
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
        let ring = Arc::new(Ring::new(slots, words));
        let writing = {
            let ring = Arc::clone(&ring);
            loom::thread::spawn(move || write(&ring, leave))
        };
        read(&ring, 0, leave);
        writing.join().unwrap();
    });
}

/// True if the model found a frame that was believed wrongly.
fn finds_a_fault(explore: impl FnOnce() + Send + 'static) -> bool {
    let outcome = StdArc::new(std::sync::Mutex::new(None));
    let report = StdArc::clone(&outcome);
    let exploring = std::thread::spawn(move || {
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(explore)).is_err();
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
    assert!(finds_a_fault(|| explore(4, 2, Leave::ReserveFence)), "the fence of step 1");
    assert!(finds_a_fault(|| explore(4, 2, Leave::ReserveCheck)), "the look at the reserve after the copy");
    assert!(finds_a_fault(|| explore(2, 4, Leave::Busy)), "BUSY");
    assert!(finds_a_fault(|| explore(2, 4, Leave::SecondLook)), "the second look at the lock");
    assert!(finds_a_fault(|| explore(4, 4, Leave::Publication)), "release at publication");
}

/// Steps of [`Restarted::write`] at which a writer can die.
const STEPS: usize = 6;
/// Frames of both writers together.
const RESTARTED_FRAMES: u64 = 3;

#[derive(Clone, Copy, PartialEq)]
enum Forget {
    Nothing,
    /// The next writer starts at the last published byte, and lowers the reserve to it.
    Reserve,
    /// The next writer starts one frame too early.
    Head,
}

/// What a writer knows privately.
struct Restarted {
    reserve: u64,
    head: u64,
    steps: usize,
}

impl Restarted {
    /// Takes up what is stored; the only place where a writer loads shared words.
    fn attach(ring: &Ring, head_pos: u64, forget: Forget) -> Self {
        let mut found = Self { reserve: ring.reserve.load(Relaxed), head: ring.head.load(Relaxed), steps: usize::MAX };
        match forget {
            Forget::Nothing => {}
            Forget::Reserve => {
                found.reserve = head_pos;
                ring.reserve.store(head_pos, Relaxed);
            }
            Forget::Head => found.head = found.head.saturating_sub(1),
        }
        found
    }

    fn dies(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(1);
        self.steps == 0
    }

    /// One frame of `epoch`; `None` if the writer died on the way, else the position after it.
    fn write(&mut self, ring: &Ring, epoch: u64) -> Option<u64> {
        let (seq, at) = (self.head, self.reserve);
        self.reserve = at + 1;
        ring.reserve.store(self.reserve, Relaxed);
        fence(Release);
        if self.dies() {
            return None;
        }
        ring.data[at as usize % ring.data.len()].store(content(seq) + 1000 * epoch, Relaxed);
        if self.dies() {
            return None;
        }
        let (lock, position) = &ring.slots[seq as usize % ring.slots.len()];
        lock.store(BUSY, Relaxed);
        fence(Release);
        if self.dies() {
            return None;
        }
        position.store(FIRST + at, Relaxed);
        if self.dies() {
            return None;
        }
        lock.store(seq + 1, Release);
        if self.dies() {
            return None;
        }
        ring.head.store(seq + 1, Release);
        self.head = seq + 1;
        if self.dies() {
            return None;
        }
        Some(at + 1)
    }
}

/// What is believed of frame `seq`, if anything.
fn read_whole(ring: &Ring, seq: u64) -> Option<u64> {
    if seq >= load_acquire(&ring.head) {
        return None;
    }
    let (lock, position) = &ring.slots[seq as usize % ring.slots.len()];
    if load_acquire(lock) != seq + 1 {
        return None;
    }
    let at = position.load(Relaxed).wrapping_sub(FIRST);
    fence(Acquire);
    if lock.load(Relaxed) != seq + 1 {
        return None;
    }
    let capacity = ring.data.len() as u64;
    let reserve = ring.reserve.load(Relaxed);
    if reserve.wrapping_sub(at) > capacity || at >= reserve {
        return None;
    }
    let word = ring.data[(at % capacity) as usize].load(Relaxed);
    fence(Acquire);
    (ring.reserve.load(Relaxed) - at <= capacity).then_some(word)
}

/// A writer that dies after `steps` steps, another one that takes the ring up, and a reader that reads frame `seq` whenever it can: it
/// believes nothing but what the writer that published the frame has written.
fn explore_restart(steps: usize, seq: u64, slots: usize, words: usize, forget: Forget) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(move || {
        let ring = Arc::new(Ring::new(slots, words));
        let writing = {
            let ring = Arc::clone(&ring);
            loom::thread::spawn(move || {
                let (mut published, mut head_pos) = (Vec::new(), 0);
                let mut first = Restarted { reserve: 0, head: 0, steps };
                while let Some(end) = first.write(&ring, 1) {
                    head_pos = end;
                }
                published.extend((0..first.head).map(|seq| content(seq) + 1000));
                let mut next = Restarted::attach(&ring, head_pos, forget);
                while next.head < RESTARTED_FRAMES {
                    published.truncate(next.head as usize);
                    published.push(content(next.head) + 2000);
                    next.write(&ring, 2).expect("the second writer lives");
                }
                published
            })
        };
        let (before, after) = (read_whole(&ring, seq), read_whole(&ring, seq));
        let published = writing.join().unwrap();
        for believed in [before, after, read_whole(&ring, seq)].into_iter().flatten() {
            assert_eq!(believed, published[seq as usize], "a stale or torn frame was believed");
        }
    });
}

#[test]
fn a_reader_believes_no_frame_that_a_dead_writer_did_not_publish() {
    for steps in 1..=STEPS * 2 {
        explore_restart(steps, 0, 4, 2, Forget::Nothing);
        explore_restart(steps, 1, 2, 4, Forget::Nothing);
    }
}

#[test]
fn what_a_writer_must_read_back_is_missed_when_it_is_forgotten() {
    let finds = |forget| {
        (1..=STEPS * 2).any(|steps| (0..2).any(|seq| finds_a_fault(move || explore_restart(steps, seq, 4, 1, forget))))
    };
    assert!(finds(Forget::Reserve), "the reserve");
    assert!(finds(Forget::Head), "the head");
}

/// The futex of `wake.rs`: the kernel compares under a lock that the wake takes too. A reader that looks at the word before the head
/// never sleeps through the last frame.
fn explore_wake(looks_at_the_futex_first: bool, bumps_last: bool) {
    loom::model(move || {
        let words = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        // Whether the reader is in the kernel's queue.
        let queue = Arc::new(loom::sync::Mutex::new(false));
        let writing = {
            let (words, queue) = (Arc::clone(&words), Arc::clone(&queue));
            loom::thread::spawn(move || {
                let (futex, head) = &*words;
                if bumps_last {
                    head.store(1, Release);
                    futex.store(1, Release);
                } else {
                    futex.store(1, Release);
                    head.store(1, Release);
                }
                // The waker thread, later.
                *queue.lock().unwrap() = false;
            })
        };
        let (futex, head) = &*words;
        let (seen, found) = if looks_at_the_futex_first {
            let seen = load_acquire(futex);
            (seen, load_acquire(head))
        } else {
            let found = load_acquire(head);
            (load_acquire(futex), found)
        };
        if found == 0 {
            let mut waiting = queue.lock().unwrap();
            *waiting = futex.load(Relaxed) == seen;
        }
        writing.join().unwrap();
        assert!(!*queue.lock().unwrap(), "asleep, and nobody will wake it");
    });
}

#[test]
fn no_wake_is_lost() {
    explore_wake(true, true);
    assert!(finds_a_fault(|| explore_wake(false, true)), "the look at the futex before the head");
    assert!(finds_a_fault(|| explore_wake(true, false)), "the bump after the head");
}

/// Two rings under one bell: a frame below stream_head is visible in its ring, so that a merge by number leaves none out.
fn explore_order(heads_first: bool) {
    loom::model(move || {
        let words = Arc::new((AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)));
        let writing = {
            let words = Arc::clone(&words);
            loom::thread::spawn(move || {
                let (first, second, stream_head) = &*words;
                for (ring, head) in [(first, 1), (second, 2)] {
                    if heads_first {
                        ring.store(1, Release);
                        stream_head.store(head, Release);
                    } else {
                        stream_head.store(head, Release);
                        ring.store(1, Release);
                    }
                }
            })
        };
        let (first, second, stream_head) = &*words;
        let head = load_acquire(stream_head);
        let found = load_acquire(first) + load_acquire(second);
        assert!(found >= head, "a frame below stream_head is not to be seen");
        writing.join().unwrap();
    });
}

#[test]
fn every_frame_below_stream_head_is_visible() {
    explore_order(true);
    assert!(finds_a_fault(|| explore_order(false)), "the head before the bell");
}

/// Frame 1 of two is a key, of which the writer tells after the head, or dies before. A reader that waits for a key looks before, while
/// and after: none of its looks passes over the key.
fn explore_key(looks_at_the_slots: bool, writer_tells: bool) {
    const KEY: u64 = 1;
    loom::model(move || {
        // lock and whether it is a key
        let slots: Vec<_> = (0..2).map(|_| (AtomicU64::new(0), AtomicU64::new(0))).collect();
        let words = Arc::new((AtomicU64::new(0), AtomicU64::new(BUSY), slots));
        let writing = {
            let words = Arc::clone(&words);
            loom::thread::spawn(move || {
                let (head, last_key, slots) = &*words;
                for (seq, (lock, is_key)) in slots.iter().enumerate() {
                    let seq = seq as u64;
                    is_key.store(u64::from(seq == KEY), Relaxed);
                    lock.store(seq + 1, Release);
                    head.store(seq + 1, Release);
                    if seq == KEY && writer_tells {
                        last_key.store(seq, Release);
                    }
                }
            })
        };
        let (head, last_key, slots) = &*words;
        let is_key = |seq: &u64| {
            let (lock, is_key) = &slots[*seq as usize];
            load_acquire(lock) == seq + 1 && is_key.load(Relaxed) == 1
        };
        let (mut next, mut found) = (0, None);
        let mut look = || {
            let passed = next..load_acquire(head);
            found = found.or_else(|| {
                if looks_at_the_slots {
                    passed.clone().rev().find(is_key)
                } else {
                    Some(load_acquire(last_key)).filter(|key| passed.contains(key))
                }
            });
            next = passed.end;
        };
        look();
        look();
        writing.join().unwrap();
        look();
        assert_eq!(found, Some(KEY), "the key was passed over");
    });
}

#[test]
fn no_key_is_passed_over() {
    explore_key(true, true);
    explore_key(true, false);
    assert!(finds_a_fault(|| explore_key(false, true)), "the looks at the slots");
}
