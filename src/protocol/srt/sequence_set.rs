//! A set of sequence numbers within a sliding window, one bit each.
//!
//! What is in the receive buffer, what is missing from it and what is to be retransmitted are all such sets. One bit per
//! slot keeps every change O(1) whatever a peer sends, and a search looks at 64 sequence numbers at a time.

use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, valid};

/// Numbers of a window not wider than the set's capacity. The owner keeps the window; the set keeps the bits.
///
/// A number is only meaningful while the window covers it: what leaves the window must be removed first.
#[derive(Debug, Clone)]
pub struct SequenceSet {
    words: Box<[u64]>,
    count: usize,
}

impl SequenceSet {
    /// An empty set for windows of up to `capacity` numbers: a power of two, 64 or more.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity.is_power_of_two() && capacity >= 64, "a window of {capacity} numbers");
        Self { words: vec![0; capacity / 64].into_boxed_slice(), count: 0 }
    }

    /// How wide a window may be.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.words.len() * 64
    }

    /// How many numbers are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[inline]
    fn word(&self, sequence: u64) -> usize {
        (sequence >> 6) as usize & (self.words.len() - 1)
    }

    /// Whether `sequence` is in it.
    #[inline]
    pub fn contains(&self, sequence: u64) -> bool {
        self.words[self.word(sequence)] >> (sequence & 63) & 1 != 0
    }

    /// Puts `sequence` in; `false` when it was there.
    #[inline]
    pub fn insert(&mut self, sequence: u64) -> bool {
        let (word, bit) = (self.word(sequence), 1 << (sequence & 63));
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += usize::from(new);
        new
    }

    /// Takes `sequence` out; `false` when it was not there.
    #[inline]
    pub fn remove(&mut self, sequence: u64) -> bool {
        let (word, bit) = (self.word(sequence), 1 << (sequence & 63));
        let was = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        self.count -= usize::from(was);
        was
    }

    /// Puts in all from `first` up to, not including, `end`; returns how many are new.
    pub fn insert_range(&mut self, first: u64, end: u64) -> usize {
        let before = self.count;
        self.for_each_word(first, end, |word, mask| {
            let added = mask & !*word;
            *word |= added;
            added.count_ones() as isize
        });
        self.count - before
    }

    /// Takes out all from `first` up to, not including, `end`; returns how many there were.
    pub fn remove_range(&mut self, first: u64, end: u64) -> usize {
        let before = self.count;
        if before != 0 {
            self.for_each_word(first, end, |word, mask| {
                let removed = mask & *word;
                *word &= !removed;
                -(removed.count_ones() as isize)
            });
        }
        before - self.count
    }

    fn for_each_word(&mut self, first: u64, end: u64, mut change: impl FnMut(&mut u64, u64) -> isize) {
        assert!(end.saturating_sub(first) <= self.words.len() as u64 * 64, "a range wider than the window");
        let mut at = first;
        while at < end {
            let next = ((at | 63) + 1).min(end);
            let mask = (u64::MAX >> (64 - (next - at))) << (at & 63);
            let word = self.word(at);
            self.count = self.count.wrapping_add_signed(change(&mut self.words[word], mask));
            at = next;
        }
    }

    /// The first number of the set in `from..end`.
    #[inline]
    pub fn next(&self, from: u64, end: u64) -> Option<u64> {
        if self.count == 0 { None } else { self.search(from, end, 0) }
    }

    /// The first number in `from..end` that is not in the set; `end` when all are.
    #[inline]
    pub fn next_absent(&self, from: u64, end: u64) -> u64 {
        self.search(from, end, u64::MAX).unwrap_or(end)
    }

    fn search(&self, from: u64, end: u64, flip: u64) -> Option<u64> {
        let mut at = from;
        while at < end {
            let bits = (self.words[self.word(at)] ^ flip) >> (at & 63);
            if bits != 0 {
                let found = at + u64::from(bits.trailing_zeros());
                return (found < end).then_some(found);
            }
            at = (at | 63) + 1;
        }
        None
    }

    /// The first run of consecutive numbers in `from..end`, as its first number and the one after its last.
    #[inline]
    pub fn next_run(&self, from: u64, end: u64) -> Option<(u64, u64)> {
        let first = self.next(from, end)?;
        Some((first, self.next_absent(first, end)))
    }

    /// Writes down what is in it; its window is `from..end`.
    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>, from: u64, end: u64) {
        let Self { words: _, count: _ } = self;
        let mut at = from;
        while let Some((first, run_end)) = self.next_run(at, end) {
            to.u32((run_end - first) as u32);
            to.u32((first - at) as u32);
            at = run_end;
        }
        to.u32(0);
    }

    /// Reads what [`snapshot`](Self::snapshot) has written of the window `first..end`, which is no wider than `capacity`.
    pub(crate) fn restore(
        from: &mut SnapshotReader<'_>,
        capacity: usize,
        first: u64,
        end: u64,
    ) -> Result<Self, RestoreError> {
        let mut set = Self::new(capacity);
        let mut at = first;
        loop {
            let length = from.u32()?;
            if length == 0 {
                return Ok(set);
            }
            let run = at + u64::from(from.u32()?);
            at = run + u64::from(length);
            valid(at <= end)?;
            set.insert_range(run, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_run_is_found_across_the_end_of_the_ring() {
        let mut set = SequenceSet::new(128);
        assert_eq!(set.insert_range(120, 200), 80);
        assert_eq!(set.next_run(100, 228), Some((120, 200)));
        assert!(set.remove(130));
        assert!(!set.remove(130));
        assert_eq!(set.next_run(100, 228), Some((120, 130)));
        assert_eq!(set.next_run(130, 228), Some((131, 200)));
        assert_eq!(set.next_absent(131, 190), 190);
        assert_eq!(set.remove_range(100, 228), 79);
        assert_eq!(set.next(100, 228), None);
        assert!(set.is_empty());
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_tree_set(
            base in prop_oneof![Just(0_u64), Just(1000), Just((1 << 31) - 70)],
            steps in prop::collection::vec((0_u8..5, 0_u64..128, 0_u64..128), 1..60),
        ) {
            let mut set = SequenceSet::new(128);
            let mut model = BTreeSet::new();
            for (what, a, b) in steps {
                let (low, high) = (base + a.min(b), base + a.max(b));
                match what {
                    0 => prop_assert_eq!(set.insert(low), model.insert(low)),
                    1 => prop_assert_eq!(set.remove(low), model.remove(&low)),
                    2 => {
                        let before = model.len();
                        model.extend(low..high);
                        prop_assert_eq!(set.insert_range(low, high), model.len() - before);
                    }
                    3 => {
                        let before = model.len();
                        model.retain(|n| !(low..high).contains(n));
                        prop_assert_eq!(set.remove_range(low, high), before - model.len());
                    }
                    _ => {
                        prop_assert_eq!(set.next(low, high), model.range(low..high).next().copied());
                        let absent = (low..high).find(|n| !model.contains(n)).unwrap_or(high);
                        prop_assert_eq!(set.next_absent(low, high), absent);
                    }
                }
                prop_assert_eq!(set.len(), model.len());
            }
        }
    }
}
