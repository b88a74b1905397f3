//! Packet memory against its promises, and against a model.

use std::collections::VecDeque;

use proptest::prelude::*;

use crate::*;

fn pool(slots: usize, order: SlotOrder) -> PacketPool {
    PacketPool::new(PoolOptions { slots, slot_size: 256, order, ..PoolOptions::default() })
        .expect("a small pool fits any machine")
}

#[test]
fn a_packet_shows_the_bytes_it_was_made_of() {
    let pool = pool(2, SlotOrder::default());
    let packet = pool.copy_from(b"headworks").expect("two slots are free");
    assert_eq!(&packet[..], b"headworks");
    assert_eq!((pool.in_use(), pool.free_slots()), (1, 1));
    drop(packet);
    assert_eq!((pool.in_use(), pool.free_slots()), (0, 2));
}

#[test]
fn an_exhausted_pool_gives_none_and_counts_it() {
    let pool = pool(2, SlotOrder::default());
    let held = [pool.copy_from(b"a"), pool.copy_from(b"b")];
    assert!(held.iter().all(Option::is_some));
    assert!(pool.copy_from(b"c").is_none());
    assert!(pool.take_slot().is_none());
    assert_eq!(pool.statistics().exhausted, 2);
    drop(held);
    assert_eq!(&pool.copy_from(b"c").expect("free again")[..], b"c");
}

#[test]
fn bytes_that_do_not_fit_a_slot_are_refused_and_counted() {
    let pool = pool(1, SlotOrder::default());
    assert!(pool.copy_from(&[0; 257]).is_none());
    assert_eq!(pool.statistics(), PoolStatistics { exhausted: 0, oversized: 1 });
    assert_eq!(pool.copy_from(&[7; 256]).expect("fits exactly").len(), 256);
}

#[test]
fn the_slot_freed_first_comes_first_when_asked_for() {
    let pool = pool(3, SlotOrder::FirstFreedFirst);
    let packets: Vec<_> = (0..3).map(|_| pool.copy_from(b"x").unwrap()).collect();
    assert_eq!(packets.iter().map(Packet::slot).collect::<Vec<_>>(), [0, 1, 2]);
    let [a, b, c]: [Packet; 3] = packets.try_into().unwrap();
    drop(b);
    drop(a);
    drop(c);
    let again: Vec<_> = (0..3).map(|_| pool.take_slot().unwrap()).collect();
    assert_eq!(again.iter().map(RawSlot::index).collect::<Vec<_>>(), [1, 0, 2]);
}

#[test]
fn the_slot_freed_last_comes_first_by_default() {
    let pool = pool(3, SlotOrder::LastFreedFirst);
    let a = pool.copy_from(b"x").unwrap();
    let b = pool.copy_from(b"x").unwrap();
    assert_eq!((a.slot(), b.slot()), (0, 1));
    drop(a);
    drop(b);
    let again: Vec<_> = (0..3).map(|_| pool.take_slot().unwrap()).collect();
    assert_eq!(again.iter().map(RawSlot::index).collect::<Vec<_>>(), [1, 0, 2]);
}

#[test]
fn a_packet_outlives_its_pool() {
    let pool = pool(4, SlotOrder::default());
    let packet = pool.copy_from(b"still here").unwrap();
    let raw = pool.take_slot().unwrap();
    drop(pool);
    assert_eq!(&packet[..], b"still here");
    let copy = packet.clone();
    drop(packet);
    drop(raw);
    assert_eq!(&copy[..], b"still here");
}

#[test]
fn slices_share_the_slot_until_the_last_is_gone() {
    let pool = pool(1, SlotOrder::default());
    let mut whole = pool.copy_from(b"onetwothree").unwrap();
    let parts = [whole.slice(..3), whole.slice(3..6), whole.slice(6..=10)];
    assert_eq!((&parts[0][..], &parts[1][..], &parts[2][..]), (&b"one"[..], &b"two"[..], &b"three"[..]));
    assert!(!whole.is_unique());
    assert!(whole.bytes_mut().is_none());
    drop(whole);
    let [one, two, three] = parts;
    drop(one);
    drop(three);
    assert_eq!(pool.in_use(), 1);
    assert!(two.is_unique());
    drop(two);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_packet_alone_in_its_slot_can_be_changed_in_place() {
    let pool = pool(1, SlotOrder::default());
    let mut packet = pool.copy_from(b"header:cipher").unwrap();
    packet.advance(7);
    for byte in packet.bytes_mut().expect("the only handle") {
        *byte ^= 0x20;
    }
    packet.truncate(4);
    packet.truncate(100);
    assert_eq!(&packet[..], b"CIPH");
}

#[test]
fn parts_cut_from_a_packet_alone_can_be_changed_until_their_bytes_are_shown_twice() {
    let pool = pool(1, SlotOrder::default());
    let mut rest = pool.copy_from(b"onetwothree").unwrap();
    let mut one = rest.split_to(3);
    let mut two = rest.split_to(3);
    for part in [&mut one, &mut two, &mut rest] {
        part.bytes_mut().expect("nobody else shows these bytes")[0] ^= 0x20;
    }
    assert_eq!((&one[..], &two[..], &rest[..]), (&b"One"[..], &b"Two"[..], &b"Three"[..]));
    let again = two.clone();
    assert!(two.bytes_mut().is_none() && one.bytes_mut().is_some());
    let mut half = two.split_to(1);
    assert!(half.bytes_mut().is_none() && two.bytes_mut().is_none());
    drop((again, half, two));
    assert!(!rest.is_unique());
    drop(one);
    assert!(rest.is_unique());
    drop(rest);
    assert_eq!(pool.in_use(), 0);
}

#[test]
#[should_panic(expected = "split beyond")]
fn a_packet_cannot_be_split_beyond_its_end() {
    let _ = pool(1, SlotOrder::default()).copy_from(b"one").unwrap().split_to(4);
}

#[test]
fn a_slot_filled_from_outside_becomes_a_packet() {
    let pool = pool(1, SlotOrder::default());
    let slot = pool.take_slot().unwrap();
    assert_eq!(slot.capacity(), 256);
    let start = slot.as_ptr();
    let index = slot.into_index();
    assert_eq!(pool.in_use(), 1);
    // SAFETY: the slot is lent to this test, which writes within its 256 bytes.
    unsafe { start.as_ptr().add(16).copy_from_nonoverlapping(b"kernel".as_ptr(), 6) };
    // SAFETY: `index` is the slot lent above, and nobody writes to it any more.
    let packet = unsafe { pool.slot_from_index(index) }.into_packet(16, 6);
    assert_eq!(&packet[..], b"kernel");
}

#[test]
#[should_panic(expected = "beyond the slot")]
fn a_packet_cannot_reach_beyond_its_slot() {
    let pool = pool(1, SlotOrder::default());
    let _ = pool.take_slot().unwrap().into_packet(200, 57);
}

#[test]
fn a_pool_of_odd_sizes_is_refused() {
    let refused =
        |slots, slot_size| PacketPool::new(PoolOptions { slots, slot_size, ..PoolOptions::default() }).unwrap_err();
    assert_eq!(refused(0, 2048), PoolError::SlotCount(0));
    assert_eq!(refused(usize::MAX, 2048), PoolError::SlotCount(usize::MAX));
    assert_eq!(refused(1, 1500), PoolError::SlotSize(1500));
    assert_eq!(refused(1, 32), PoolError::SlotSize(32));
}

#[cfg(not(miri))]
#[test]
fn huge_pages_are_asked_for_and_never_required() {
    let pool = PacketPool::new(PoolOptions {
        slots: 100,
        slot_size: 2048,
        huge_pages: true,
        prefault: true,
        ..PoolOptions::default()
    })
    .expect("falls back to ordinary pages");
    assert_eq!(pool.mapped_bytes(), 2 << 20);
    assert_eq!(&pool.copy_from(b"x").unwrap()[..], b"x");
}

/// A mapping that fails over a reservation has already given the addresses back: whoever unmaps them then takes them from
/// another shard that starts at the same moment.
#[cfg(not(miri))]
#[test]
fn pools_made_at_the_same_moment_do_not_unmap_each_other() {
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let options = PoolOptions {
                    slots: 1024,
                    slot_size: 2048,
                    huge_pages: true,
                    prefault: true,
                    ..PoolOptions::default()
                };
                start.wait();
                for _ in 0..200 {
                    let pool = PacketPool::new(options).expect("two megabytes fit any machine");
                    assert_eq!(&pool.copy_from(b"kept").unwrap()[..], b"kept");
                }
            });
        }
    });
}

#[cfg(not(miri))]
#[test]
fn the_memory_file_shows_the_packets_and_cannot_be_shrunk() {
    let pool = pool(4, SlotOrder::FirstFreedFirst);
    let _first = pool.copy_from(b"first").unwrap();
    let _second = pool.copy_from(b"second").unwrap();
    let mut bytes = [0; 6];
    rustix::io::pread(pool.memfd(), &mut bytes, 256).unwrap();
    assert_eq!(&bytes, b"second");
    assert_eq!(rustix::fs::ftruncate(pool.memfd(), 0), Err(rustix::io::Errno::PERM));
}

#[derive(Debug, Clone)]
enum Operation {
    Copy(Vec<u8>),
    Clone(usize),
    Slice(usize, usize, usize),
    Split(usize, usize),
    Advance(usize, usize),
    Truncate(usize, usize),
    Change(usize, u8),
    Drop(usize),
    TakeRaw,
    FillRaw(usize, usize, u8),
    DropRaw(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let number = 0..64usize;
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..=70).prop_map(Operation::Copy),
        2 => number.clone().prop_map(Operation::Clone),
        2 => (number.clone(), number.clone(), number.clone()).prop_map(|(a, b, c)| Operation::Slice(a, b, c)),
        2 => (number.clone(), number.clone()).prop_map(|(a, b)| Operation::Split(a, b)),
        1 => (number.clone(), number.clone()).prop_map(|(a, b)| Operation::Advance(a, b)),
        1 => (number.clone(), number.clone()).prop_map(|(a, b)| Operation::Truncate(a, b)),
        2 => (number.clone(), any::<u8>()).prop_map(|(a, b)| Operation::Change(a, b)),
        4 => number.clone().prop_map(Operation::Drop),
        1 => Just(Operation::TakeRaw),
        1 => (number.clone(), number.clone(), any::<u8>()).prop_map(|(a, b, c)| Operation::FillRaw(a, b, c)),
        1 => number.prop_map(Operation::DropRaw),
    ]
}

/// What the pool should be: the free slots in order, and for each handle the slot and the bytes it should show.
struct Model {
    order: SlotOrder,
    free: VecDeque<u32>,
    packets: Vec<(Packet, Vec<u8>)>,
    raw: Vec<RawSlot>,
    exhausted: u64,
    oversized: u64,
}

impl Model {
    fn take(&mut self) -> Option<u32> {
        let slot = match self.order {
            SlotOrder::FirstFreedFirst => self.free.pop_front(),
            SlotOrder::LastFreedFirst => self.free.pop_back(),
        };
        self.exhausted += u64::from(slot.is_none());
        slot
    }

    fn sharers(&self, slot: u32) -> usize {
        self.packets.iter().filter(|p| p.0.slot() == slot).count()
    }

    fn apply(&mut self, pool: &PacketPool, operation: Operation) {
        let count = self.packets.len();
        let raw = self.raw.len();
        match operation {
            Operation::Copy(bytes) => {
                let packet = pool.copy_from(&bytes);
                if bytes.len() > 64 {
                    self.oversized += 1;
                    assert!(packet.is_none());
                    return;
                }
                let slot = self.take();
                assert_eq!(packet.as_ref().map(Packet::slot), slot);
                self.packets.extend(packet.map(|packet| (packet, bytes)));
            }
            Operation::Clone(at) if count > 0 => {
                let (packet, bytes) = &self.packets[at % count];
                let copy = (packet.clone(), bytes.clone());
                self.packets.push(copy);
            }
            Operation::Slice(at, a, b) if count > 0 => {
                let (packet, bytes) = &self.packets[at % count];
                let (a, b) = (a % (bytes.len() + 1), b % (bytes.len() + 1));
                let range = a.min(b)..a.max(b);
                let part = (packet.slice(range.clone()), bytes[range].to_vec());
                self.packets.push(part);
            }
            Operation::Split(at, to) if count > 0 => {
                let (packet, bytes) = &mut self.packets[at % count];
                let to = to % (bytes.len() + 1);
                let rest = bytes.split_off(to);
                let first = (packet.split_to(to), std::mem::replace(bytes, rest));
                self.packets.push(first);
            }
            Operation::Advance(at, by) if count > 0 => {
                let (packet, bytes) = &mut self.packets[at % count];
                let by = by % (bytes.len() + 1);
                packet.advance(by);
                bytes.drain(..by);
            }
            Operation::Truncate(at, to) if count > 0 => {
                let (packet, bytes) = &mut self.packets[at % count];
                packet.truncate(to);
                bytes.truncate(to);
            }
            Operation::Change(at, value) if count > 0 => {
                let unique = self.sharers(self.packets[at % count].0.slot()) == 1;
                let (packet, bytes) = &mut self.packets[at % count];
                // Where the slot has other handles too, `compare` sees whether one of them shows what is changed here.
                match packet.bytes_mut() {
                    Some(seen) => {
                        seen.fill(value);
                        bytes.fill(value);
                    }
                    None => assert!(!unique),
                }
            }
            Operation::Drop(at) if count > 0 => {
                let (packet, _) = self.packets.swap_remove(at % count);
                if self.sharers(packet.slot()) == 0 {
                    self.free.push_back(packet.slot());
                }
            }
            Operation::TakeRaw => {
                let slot = pool.take_slot();
                assert_eq!(slot.as_ref().map(RawSlot::index), self.take());
                self.raw.extend(slot);
            }
            Operation::FillRaw(at, offset, value) if raw > 0 => {
                let slot = self.raw.swap_remove(at % raw);
                // SAFETY: a raw slot of 64 bytes, ours alone.
                unsafe { slot.as_ptr().as_ptr().write_bytes(value, 64) };
                let packet = slot.into_packet(offset, 64 - offset);
                self.packets.push((packet, vec![value; 64 - offset]));
            }
            Operation::DropRaw(at) if raw > 0 => {
                let slot = self.raw.swap_remove(at % raw);
                self.free.push_back(slot.index());
            }
            _ => {}
        }
    }

    fn compare(&self, pool: &PacketPool) {
        assert_eq!(pool.free_slots(), self.free.len());
        assert_eq!(pool.statistics(), PoolStatistics { exhausted: self.exhausted, oversized: self.oversized });
        for (packet, bytes) in &self.packets {
            assert_eq!(&packet[..], &bytes[..]);
            assert_eq!(packet.is_unique(), self.sharers(packet.slot()) == 1);
            assert!(pool.owns(packet));
        }
    }
}

fn run_against_model(order: SlotOrder, operations: Vec<Operation>, pool_dies_first: bool) {
    const SLOTS: usize = 5;
    let pool = PacketPool::new(PoolOptions { slots: SLOTS, slot_size: 64, order, ..PoolOptions::default() }).unwrap();
    let mut free: VecDeque<u32> = (0..SLOTS as u32).collect();
    if order == SlotOrder::LastFreedFirst {
        free.make_contiguous().reverse();
    }
    let mut model = Model { order, free, packets: Vec::new(), raw: Vec::new(), exhausted: 0, oversized: 0 };
    for operation in operations {
        model.apply(&pool, operation);
        model.compare(&pool);
    }
    if pool_dies_first {
        drop(pool);
        for (packet, bytes) in &model.packets {
            assert_eq!(&packet[..], &bytes[..]);
        }
        drop(model);
    } else {
        model.packets.clear();
        model.raw.clear();
        assert_eq!(pool.free_slots(), SLOTS);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 16 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_sequence_of_operations_agrees_with_the_model(
        fifo in any::<bool>(),
        operations in prop::collection::vec(operation(), 0..120),
        pool_dies_first in any::<bool>(),
    ) {
        let order = if fifo { SlotOrder::FirstFreedFirst } else { SlotOrder::LastFreedFirst };
        run_against_model(order, operations, pool_dies_first);
    }
}
