//! The receive buffer: packets wait here for their turn and their time.
//!
//! A ring of slots, one per sequence number, a power of two of them:
//!
//! ```text
//!        head              first_missing            end
//!          │ received, waiting   │ gaps and islands   │ free …
//!   ───────┴─────────────────────┴────────────────────┴────────
//! ```
//!
//! Time stamps and arrivals lie apart from the payload handles, and who is there is one bit each: looking for the next packet
//! to deliver reads a cache line or two, not the slots. There are no more slots than have been needed at a time, since they
//! are used in turn: those of 120 ms stay in the processor's cache, those of a whole flow window do not. And the turn begins anew
//! with each packet that finds no other: where they go up before their time, the same few slots are used over and over. Nothing here
//! knows what a time stamp means.

use super::packet::PacketPosition;
use super::sequence_set::SequenceSet;
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, snapshot_fields, valid};
use crate::base::Instant;

/// What is kept of a packet besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Meta {
    /// The sender's time stamp, unwrapped, in microseconds ([`DeliveryTime::unwrap`](super::delivery_time::DeliveryTime::unwrap)).
    pub timestamp_us: i64,
    /// When the datagram was taken in by the kernel.
    pub arrival: Instant,
    /// It had been missing and came by retransmission.
    pub recovered: bool,
    /// The path it came by.
    pub path: u8,
    /// Where it stands in its message.
    pub position: PacketPosition,
    /// Bytes of its payload.
    pub len: u16,
}

impl Meta {
    snapshot_fields! { timestamp timestamp_us, instant arrival, bool recovered, u8 path, position position, u16 len }
}

/// Where a sequence number falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before the head: delivered or given up.
    Belated,
    /// Within the ring, and its slot is taken.
    Duplicate,
    /// Within the ring, and its slot is free. Holds the unwrapped number.
    Free(u64),
    /// Beyond the ring's end. Holds the unwrapped number.
    Beyond(u64),
}

/// A packet on its way out.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken<T> {
    /// Its unwrapped sequence number.
    pub sequence: u64,
    /// How many before it were given up.
    pub skipped: u64,
    /// What is known of it.
    pub meta: Meta,
    /// The payload.
    pub item: T,
}

/// Slots of a new ring.
const FIRST_SLOTS: usize = 256;

/// The ring. `T` is the payload handle.
#[derive(Debug)]
pub struct ReceiveBuffer<T> {
    items: Box<[Option<T>]>,
    meta: Box<[Meta]>,
    held: SequenceSet,
    /// The number that has, or would have, the first slot.
    base: u64,
    head: u64,
    first_missing: u64,
    end: u64,
    first_held: u64,
    /// Payloads of what is held.
    bytes: u64,
}

impl<T> ReceiveBuffer<T> {
    /// An empty ring of at least `capacity` slots whose first packet will be number `first`. Memory for them is taken when
    /// packets first are so far apart, twice as much each time.
    pub fn new(capacity: usize, first: u64) -> Self {
        let capacity = capacity.max(64).next_power_of_two();
        let slots = capacity.min(FIRST_SLOTS);
        Self {
            items: std::iter::repeat_with(|| None).take(slots).collect(),
            meta: vec![Meta::default(); slots].into_boxed_slice(),
            held: SequenceSet::new(capacity),
            base: first,
            head: first,
            first_missing: first,
            end: first,
            first_held: first,
            bytes: 0,
        }
    }

    /// Number of slots there may be.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.held.capacity()
    }

    /// Packets in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Bytes of the payloads in it.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is no packet in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The number to be delivered next if it comes.
    #[inline]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The first number not yet received: what an ACK tells (draft-sharabayko-srt §3.2.4).
    #[inline]
    pub fn first_missing(&self) -> u64 {
        self.first_missing
    }

    /// One past the highest number received.
    #[inline]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Room for packets from [`first_missing`](Self::first_missing) on: what an ACK advertises.
    #[inline]
    pub fn free(&self) -> usize {
        self.capacity() - (self.first_missing - self.head) as usize
    }

    #[inline]
    fn slot(&self, sequence: u64) -> usize {
        (sequence - self.base) as usize & (self.items.len() - 1)
    }

    /// Whether none of `first..end` is held.
    pub(crate) fn holds_none(&self, first: u64, end: u64) -> bool {
        self.held.next(first, end).is_none()
    }

    /// Judges the number at a signed `offset` from the head.
    #[inline]
    pub fn place(&self, offset: i64) -> Place {
        if offset < 0 {
            return Place::Belated;
        }
        let sequence = self.head + offset as u64;
        if offset as u64 >= self.capacity() as u64 {
            Place::Beyond(sequence)
        } else if self.held.contains(sequence) {
            Place::Duplicate
        } else {
            Place::Free(sequence)
        }
    }

    /// Puts a packet into the slot that [`place`](Self::place) found free.
    ///
    /// # Panics
    ///
    /// If it is not free.
    #[inline]
    pub fn insert(&mut self, sequence: u64, meta: Meta, item: T) {
        let distance = sequence.wrapping_sub(self.head);
        assert!(distance < self.capacity() as u64, "outside of the ring");
        if distance >= self.items.len() as u64 {
            self.grow(distance as usize + 1);
        }
        if self.held.is_empty() {
            self.base = self.head;
        }
        let slot = self.slot(sequence);
        assert!(self.held.insert(sequence), "the slot is taken");
        self.bytes += u64::from(meta.len);
        self.meta[slot] = meta;
        self.items[slot] = Some(item);
        if self.held.len() == 1 || sequence < self.first_held {
            self.first_held = sequence;
        }
        if sequence >= self.end {
            self.end = sequence + 1;
        }
        if sequence == self.first_missing {
            self.first_missing += 1;
            if self.first_missing != self.end {
                self.first_missing = self.held.next_absent(self.first_missing, self.end);
            }
        }
    }

    /// Makes slots for numbers `distance` apart.
    #[cold]
    fn grow(&mut self, distance: usize) {
        let slots = distance.next_power_of_two();
        let mut items: Box<[Option<T>]> = std::iter::repeat_with(|| None).take(slots).collect();
        let mut meta = vec![Meta::default(); slots].into_boxed_slice();
        let mut next = self.held.next(self.head, self.end);
        while let Some(sequence) = next {
            let (from, to) = (self.slot(sequence), (sequence - self.base) as usize & (slots - 1));
            items[to] = self.items[from].take();
            meta[to] = self.meta[from];
            next = self.held.next(sequence + 1, self.end);
        }
        (self.items, self.meta) = (items, meta);
    }

    /// The first packet there is, if any, whether or not others are missing before it.
    #[inline]
    pub fn first(&self) -> Option<(u64, &Meta)> {
        (!self.held.is_empty()).then(|| (self.first_held, &self.meta[self.slot(self.first_held)]))
    }

    /// One past the last packet of the message that the packet `first` begins, if all of them are here.
    pub fn message_end(&self, first: u64) -> Option<u64> {
        for sequence in first + 1..self.end {
            if !self.held.contains(sequence) {
                return None;
            }
            match self.meta[self.slot(sequence)].position {
                PacketPosition::Middle => {}
                PacketPosition::Last => return Some(sequence + 1),
                PacketPosition::First | PacketPosition::Only => return None,
            }
        }
        None
    }

    /// The packet with the highest number, if there is any.
    pub fn last(&self) -> Option<&Meta> {
        (!self.held.is_empty()).then(|| &self.meta[self.slot(self.end - 1)])
    }

    /// Changes the packets there are.
    pub fn for_each(&mut self, mut change: impl FnMut(u64, &mut T)) {
        let mut next = self.held.next(self.head, self.end);
        while let Some(sequence) = next {
            let slot = self.slot(sequence);
            if let Some(item) = &mut self.items[slot] {
                change(sequence, item);
            }
            next = self.held.next(sequence + 1, self.end);
        }
    }

    /// Changes what is known of the packets there are.
    pub fn restamp(&mut self, mut change: impl FnMut(&mut Meta)) {
        let mut next = self.held.next(self.head, self.end);
        while let Some(sequence) = next {
            let slot = self.slot(sequence);
            change(&mut self.meta[slot]);
            next = self.held.next(sequence + 1, self.end);
        }
    }

    /// The packet that [`take_first`](Self::take_first) would give.
    #[inline]
    pub fn first_item(&self) -> Option<&T> {
        if self.held.is_empty() { None } else { self.items[self.slot(self.first_held)].as_ref() }
    }

    /// Takes out what [`first`](Self::first) shows and gives up what is missing before it.
    #[inline]
    pub fn take_first(&mut self) -> Option<Taken<T>> {
        if self.held.is_empty() {
            return None;
        }
        let sequence = self.first_held;
        let slot = self.slot(sequence);
        let item = self.items[slot].take()?;
        self.held.remove(sequence);
        self.bytes -= u64::from(self.meta[slot].len);
        let skipped = sequence - self.head;
        self.head = sequence + 1;
        // The common cases are a neighbour and nothing more; else islands are searched.
        if self.first_missing > self.head || self.first_missing == self.end {
            self.first_held = self.head;
        } else {
            self.search();
        }
        Some(Taken { sequence, skipped, meta: self.meta[slot], item })
    }

    /// Finds the first packet there is, and the first that is missing, 64 numbers at a time.
    #[cold]
    fn search(&mut self) {
        if self.first_missing < self.head {
            self.first_missing = self.held.next_absent(self.head, self.end);
        }
        self.first_held = self.held.next(self.head, self.end).unwrap_or(self.end);
    }

    /// Moves the head of a buffer on to `sequence`, giving up what is missing before it. Stops at the first packet there is.
    /// Returns how many were given up.
    pub fn skip_to(&mut self, sequence: u64) -> u64 {
        let target = if self.held.is_empty() { sequence } else { sequence.min(self.first_held) };
        if target <= self.head {
            return 0;
        }
        let skipped = target - self.head;
        self.head = target;
        self.end = self.end.max(target);
        if self.held.is_empty() {
            self.first_held = self.end;
        }
        if self.first_missing < target {
            self.first_missing = self.held.next_absent(target, self.end);
        }
        skipped
    }

    /// Writes down what is held; `write` does it for a payload.
    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>, write: impl Fn(&mut SnapshotWriter<'_>, &T)) {
        // All the others follow from what is held.
        let Self { items, meta, held, base: _, head, first_missing: _, end, first_held: _, bytes: _ } = self;
        to.count(*head);
        to.size(held.len());
        let mut next = held.next(*head, *end);
        while let Some(sequence) = next {
            let slot = self.slot(sequence);
            to.u32((sequence - head) as u32);
            meta[slot].snapshot(to);
            write(to, items[slot].as_ref().expect("what is held has an item"));
            next = held.next(sequence + 1, *end);
        }
    }

    /// Reads what [`snapshot`](Self::snapshot) has written, into a ring of at least `capacity` slots.
    pub(crate) fn restore(
        from: &mut SnapshotReader<'_>,
        capacity: usize,
        mut read: impl FnMut(&mut SnapshotReader<'_>) -> Result<T, RestoreError>,
    ) -> Result<Self, RestoreError> {
        let mut buffer = Self::new(capacity, from.count()?);
        for _ in 0..from.size()? {
            let Place::Free(sequence) = buffer.place(i64::from(from.u32()?)) else { return Err(RestoreError::Invalid) };
            valid(sequence >= buffer.end)?;
            let meta = Meta::restore(from)?;
            buffer.insert(sequence, meta, read(from)?);
        }
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn meta(n: u64) -> Meta {
        Meta { timestamp_us: n as i64, len: n as u16, ..Meta::default() }
    }

    fn put(buffer: &mut ReceiveBuffer<u64>, n: u64) {
        assert_eq!(buffer.place(n as i64 - buffer.head() as i64), Place::Free(n));
        buffer.insert(n, meta(n), n);
    }

    #[test]
    fn packets_come_out_in_order_whatever_order_they_came_in() {
        let mut buffer = ReceiveBuffer::new(64, 100);
        for n in [102, 100, 101, 103] {
            put(&mut buffer, n);
        }
        assert_eq!((buffer.first_missing(), buffer.end(), buffer.free()), (104, 104, 60));
        assert_eq!(buffer.bytes(), 100 + 101 + 102 + 103);
        let out: Vec<_> = std::iter::from_fn(|| buffer.take_first()).map(|t| (t.sequence, t.skipped, t.item)).collect();
        assert_eq!(out, [(100, 0, 100), (101, 0, 101), (102, 0, 102), (103, 0, 103)]);
        assert_eq!((buffer.head(), buffer.free(), buffer.bytes()), (104, 64, 0));
    }

    #[test]
    fn slots_are_added_while_packets_are_held() {
        let mut buffer = ReceiveBuffer::new(8_192, 1_000);
        let numbers = [1_000, 1_255, 1_256, 1_257, 3_000, 9_191];
        for n in numbers {
            put(&mut buffer, n);
        }
        assert_eq!(buffer.place(8_192), Place::Beyond(9_192));
        assert_eq!((buffer.items.len(), buffer.capacity(), buffer.free()), (8_192, 8_192, 8_191));
        let out: Vec<_> = std::iter::from_fn(|| buffer.take_first()).map(|t| (t.sequence, t.meta, t.item)).collect();
        assert_eq!(out, numbers.map(|n| (n, meta(n), n)));
        // Memory is taken once.
        put(&mut buffer, 9_192);
        assert_eq!(buffer.items.len(), 8_192);
    }

    #[test]
    fn a_packet_that_finds_no_other_takes_the_first_slots_again() {
        let mut buffer = ReceiveBuffer::new(8_192, 1_000);
        for n in 1_000..9_999 {
            put(&mut buffer, n);
            assert!(buffer.items[0].is_some(), "{n}");
            assert_eq!(buffer.take_first().map(|t| (t.sequence, t.item)), Some((n, n)));
        }
        // The first of them is missing.
        (10_002..10_100).for_each(|n| put(&mut buffer, n));
        put(&mut buffer, 10_000);
        let out: Vec<_> = std::iter::from_fn(|| buffer.take_first()).map(|t| (t.sequence, t.meta, t.item)).collect();
        let there = std::iter::once(10_000).chain(10_002..10_100);
        assert_eq!(out, there.map(|n| (n, meta(n), n)).collect::<Vec<_>>());
        assert_eq!(buffer.items.len(), FIRST_SLOTS);
    }

    #[test]
    fn a_gap_is_told_with_the_packet_after_it() {
        let mut buffer = ReceiveBuffer::new(64, 0);
        put(&mut buffer, 0);
        put(&mut buffer, 5);
        assert_eq!(buffer.first_missing(), 1);
        assert_eq!(buffer.take_first().map(|t| t.skipped), Some(0));
        assert_eq!(buffer.first().map(|(n, _)| n), Some(5));
        assert_eq!(buffer.take_first().map(|t| t.skipped), Some(4));
        assert_eq!((buffer.head(), buffer.first_missing()), (6, 6));
        assert_eq!(buffer.place(-1), Place::Belated);
    }

    #[test]
    fn what_is_held_already_or_does_not_fit_is_told_apart() {
        let mut buffer = ReceiveBuffer::new(64, 10);
        put(&mut buffer, 12);
        assert_eq!(buffer.place(2), Place::Duplicate);
        assert_eq!(buffer.place(63), Place::Free(73));
        assert_eq!(buffer.place(64), Place::Beyond(74));
        assert_eq!(buffer.free(), 64);
    }

    #[test]
    fn skipping_stops_at_a_packet() {
        let mut buffer = ReceiveBuffer::new(64, 0);
        put(&mut buffer, 7);
        assert_eq!(buffer.skip_to(3), 3);
        assert_eq!(buffer.skip_to(20), 4);
        assert_eq!(buffer.take_first().map(|t| (t.sequence, t.skipped)), Some((7, 0)));
        assert_eq!(buffer.skip_to(1_000_000), 1_000_000 - 8);
        put(&mut buffer, 1_000_000);
        assert_eq!(buffer.first_missing(), 1_000_001);
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_sorted_map(
            first in prop_oneof![Just(0_u64), Just((1_u64 << 31) - 40)],
            capacity in prop_oneof![Just(64_u64), Just(1_024)],
            steps in prop::collection::vec((0_u8..4, prop_oneof![0_i64..80, 0_i64..1_100]), 1..200),
        ) {
            let mut buffer = ReceiveBuffer::new(capacity as usize, first);
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            let (mut head, mut end) = (first, first);
            for (what, offset) in steps {
                match what {
                    0..=1 => match buffer.place(offset) {
                        Place::Free(n) => {
                            prop_assert!(n < head + capacity && !model.contains_key(&n));
                            buffer.insert(n, meta(n), n);
                            model.insert(n, n);
                            end = end.max(n + 1);
                        }
                        Place::Duplicate => prop_assert!(model.contains_key(&(head + offset as u64))),
                        Place::Beyond(n) => prop_assert!(n >= head + capacity),
                        Place::Belated => prop_assert!(false),
                    },
                    2 => {
                        let taken = buffer.take_first();
                        let expected = model.pop_first();
                        prop_assert_eq!(taken.as_ref().map(|t| t.item), expected.map(|(n, _)| n));
                        if let Some(taken) = taken {
                            prop_assert_eq!(taken.skipped, taken.sequence - head);
                            prop_assert_eq!(taken.meta, meta(taken.sequence));
                            head = taken.sequence + 1;
                        }
                    }
                    _ => {
                        let target = model.keys().next().map_or(head + offset as u64, |&n| n.min(head + offset as u64));
                        prop_assert_eq!(buffer.skip_to(head + offset as u64), target - head);
                        head = target;
                        end = end.max(head);
                    }
                }
                prop_assert_eq!(buffer.head(), head);
                prop_assert_eq!(buffer.end(), end);
                prop_assert_eq!(buffer.len(), model.len());
                let missing = (head..).find(|n| !model.contains_key(n)).unwrap_or(head);
                prop_assert_eq!(buffer.first_missing(), missing);
                prop_assert_eq!(buffer.first().map(|(n, _)| n), model.keys().next().copied());
            }
        }
    }
}
