//! The reorder buffer: packets that came early wait for those before them, but not for long and not many.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::Instant;

/// Items that may lie ready before the caller polls; more than one turn's batch for one source.
const READY_LIMIT: usize = 1024;
/// Positions behind the next one whose fate is remembered, so that a duplicate is told from a late packet.
const HISTORY_LEN: u64 = u128::BITS as u64;

/// Puts items into the order of their positions.
///
/// In order, an item passes straight through. Behind a gap items wait until the gap is filled, until they have waited as long
/// as allowed, or until an item comes `depth` or more positions after the first missing one; then the missing positions are
/// given up and counted with the next item. Every position is given out at most once, in rising order.
#[derive(Debug)]
pub struct ReorderBuffer<T> {
    next: u64,
    /// Bit n: position `next - 1 - n` was given out.
    history: u128,
    lost: u32,
    held: usize,
    /// Slot of a position is its remainder by the (power of two) length, which is at least `depth`.
    slots: Box<[Option<(Instant, T)>]>,
    ready: VecDeque<InOrder<T>>,
    /// Arrival of the item that has waited longest behind a gap.
    waiting_since: Option<Instant>,
    depth: u64,
    wait: Duration,
    given_up: u64,
}

/// An item whose turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InOrder<T> {
    /// Its position.
    pub position: u64,
    /// How many positions directly before it were given up.
    pub lost_before: u32,
    /// The item.
    pub item: T,
}

/// What became of an inserted item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It was the next one, and is ready.
    InOrder,
    /// It came early and waits behind a gap.
    Early,
    /// It came after later ones, in time to fill the gap or part of it.
    FilledGap,
    /// Its position was given out, or is waiting: dropped.
    Duplicate,
    /// Its position had been given up: dropped.
    Late,
    /// The caller does not poll: dropped.
    Overrun,
}

impl<T> ReorderBuffer<T> {
    /// A buffer that holds back at most `depth` positions (at least 1), each for at most `wait` since its arrival.
    pub fn new(depth: usize, wait: Duration) -> Self {
        let depth = depth.max(1);
        Self {
            next: 0,
            history: 0,
            lost: 0,
            held: 0,
            slots: std::iter::repeat_with(|| None).take(depth.next_power_of_two()).collect(),
            ready: VecDeque::with_capacity(READY_LIMIT + depth),
            waiting_since: None,
            depth: depth as u64,
            wait,
            given_up: 0,
        }
    }

    /// Gives out all that is held, then starts anew at `position`, with nothing lost before it.
    pub fn restart(&mut self, position: u64) {
        while self.held > 0 {
            self.release_before(self.next + 1);
        }
        self.next = position;
        self.history = 0;
        self.lost = 0;
        self.waiting_since = None;
    }

    /// Takes an item that arrived at `arrival`.
    #[inline]
    pub fn insert(&mut self, position: u64, arrival: Instant, item: T) -> Insertion {
        if position == self.next && self.held == 0 && self.ready.len() < READY_LIMIT {
            self.give(item);
            return Insertion::InOrder;
        }
        self.insert_out_of_order(position, arrival, item)
    }

    /// The next item in order.
    #[inline]
    pub fn poll(&mut self) -> Option<InOrder<T>> {
        self.ready.pop_front()
    }

    /// Gives up the gaps before every item that has waited long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.next_timeout().is_some_and(|due| due <= now) {
            let first = (self.next..self.next + self.depth).find(|&position| self.slot(position).is_some());
            let first = first.expect("something waits while there is a time-out");
            self.release_before(first);
            self.find_longest_waiting();
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[inline]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + self.wait)
    }

    /// Positions given up so far.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Number of items in order that the caller has not polled yet.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Number of items waiting behind a gap.
    pub fn held(&self) -> usize {
        self.held
    }

    #[cold]
    fn insert_out_of_order(&mut self, position: u64, arrival: Instant, item: T) -> Insertion {
        if position < self.next {
            let behind = self.next - 1 - position;
            let given_out = behind < HISTORY_LEN && self.history >> behind & 1 == 1;
            return if given_out { Insertion::Duplicate } else { Insertion::Late };
        }
        if self.ready.len() >= READY_LIMIT {
            return Insertion::Overrun;
        }
        if position - self.next >= self.depth {
            self.release_before(position - self.depth + 1);
            self.find_longest_waiting();
        }
        if position == self.next {
            let filled_gap = self.held > 0;
            self.give(item);
            self.drain();
            self.find_longest_waiting();
            return if filled_gap { Insertion::FilledGap } else { Insertion::InOrder };
        }
        // Something later may be held already; then this one fills a part of the gap before it.
        let later = self.held > 0 && (position + 1..self.next + self.depth).any(|later| self.slot(later).is_some());
        let slot = self.slot_index(position);
        if self.slots[slot].is_some() {
            return Insertion::Duplicate;
        }
        self.slots[slot] = Some((arrival, item));
        self.held += 1;
        self.waiting_since = Some(self.waiting_since.map_or(arrival, |since| since.min(arrival)));
        if later { Insertion::FilledGap } else { Insertion::Early }
    }

    fn slot_index(&self, position: u64) -> usize {
        position as usize & (self.slots.len() - 1)
    }

    fn slot(&self, position: u64) -> Option<&(Instant, T)> {
        self.slots[self.slot_index(position)].as_ref()
    }

    /// Makes the item at `next` ready.
    #[inline]
    fn give(&mut self, item: T) {
        if self.ready.is_empty() {
            // Starts again at the front of its memory, which is warm in the cache; the rest of it is seldom touched.
            self.ready.clear();
        }
        self.ready.push_back(InOrder { position: self.next, lost_before: std::mem::take(&mut self.lost), item });
        self.history = self.history << 1 | 1;
        self.next += 1;
    }

    /// Makes ready what follows without a gap.
    fn drain(&mut self) {
        while self.held > 0 {
            let slot = self.slot_index(self.next);
            let Some((_, item)) = self.slots[slot].take() else { break };
            self.held -= 1;
            self.give(item);
        }
    }

    /// Makes ready what is held before `target` and what follows that without a gap; gives up what is missing before `target`.
    fn release_before(&mut self, target: u64) {
        while self.next < target {
            if self.held == 0 {
                let missing = target - self.next;
                self.lost = self.lost.saturating_add(u32::try_from(missing).unwrap_or(u32::MAX));
                self.given_up += missing;
                self.history = if missing < HISTORY_LEN { self.history << missing } else { 0 };
                self.next = target;
                break;
            }
            let slot = self.slot_index(self.next);
            match self.slots[slot].take() {
                Some((_, item)) => {
                    self.held -= 1;
                    self.give(item);
                }
                None => {
                    self.lost = self.lost.saturating_add(1);
                    self.given_up += 1;
                    self.history <<= 1;
                    self.next += 1;
                }
            }
        }
        self.drain();
    }

    fn find_longest_waiting(&mut self) {
        self.waiting_since =
            if self.held == 0 { None } else { self.slots.iter().flatten().map(|(arrival, _)| *arrival).min() };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const WAIT: Duration = Duration::from_millis(50);

    fn buffer(depth: usize) -> ReorderBuffer<u64> {
        let mut buffer = ReorderBuffer::new(depth, WAIT);
        buffer.restart(0);
        buffer
    }

    fn poll_all(buffer: &mut ReorderBuffer<u64>) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| buffer.poll())
            .map(|ready| {
                assert_eq!(ready.position, ready.item);
                (ready.position, ready.lost_before)
            })
            .collect()
    }

    #[test]
    fn in_order_items_pass_at_once() {
        let mut buffer = buffer(8);
        for position in 0..20 {
            assert_eq!(buffer.insert(position, Instant::ZERO, position), Insertion::InOrder);
            assert_eq!(poll_all(&mut buffer), [(position, 0)]);
            assert_eq!(buffer.next_timeout(), None);
        }
    }

    #[test]
    fn a_gap_that_is_filled_costs_nothing() {
        let mut buffer = buffer(8);
        assert_eq!(buffer.insert(1, Instant::from_millis(1), 1), Insertion::Early);
        assert_eq!(buffer.insert(3, Instant::from_millis(2), 3), Insertion::Early);
        assert_eq!(buffer.insert(2, Instant::from_millis(3), 2), Insertion::FilledGap);
        assert_eq!(poll_all(&mut buffer), []);
        assert_eq!(buffer.next_timeout(), Some(Instant::from_millis(51)));
        assert_eq!(buffer.insert(0, Instant::from_millis(4), 0), Insertion::FilledGap);
        assert_eq!(poll_all(&mut buffer), [(0, 0), (1, 0), (2, 0), (3, 0)]);
        assert_eq!(buffer.next_timeout(), None);
        assert_eq!(buffer.given_up(), 0);
    }

    #[test]
    fn a_gap_is_given_up_when_its_time_is_over() {
        let mut buffer = buffer(8);
        buffer.insert(2, Instant::from_millis(10), 2);
        buffer.insert(5, Instant::from_millis(20), 5);
        buffer.handle_timeout(Instant::from_millis(59));
        assert_eq!(poll_all(&mut buffer), []);
        buffer.handle_timeout(Instant::from_millis(60));
        assert_eq!(poll_all(&mut buffer), [(2, 2)]);
        assert_eq!(buffer.next_timeout(), Some(Instant::from_millis(70)));
        buffer.handle_timeout(Instant::from_millis(70));
        assert_eq!(poll_all(&mut buffer), [(5, 2)]);
        assert_eq!(buffer.given_up(), 4);
    }

    #[test]
    fn an_item_that_came_after_a_younger_gap_does_not_wait_longer_than_allowed() {
        let mut buffer = buffer(8);
        buffer.insert(4, Instant::from_millis(10), 4);
        buffer.insert(2, Instant::from_millis(50), 2);
        buffer.handle_timeout(Instant::from_millis(60));
        assert_eq!(poll_all(&mut buffer), [(2, 2), (4, 1)]);
    }

    #[test]
    fn a_gap_is_given_up_when_too_many_wait_behind_it() {
        let mut buffer = buffer(4);
        for position in 1..4 {
            buffer.insert(position, Instant::ZERO, position);
        }
        assert_eq!(poll_all(&mut buffer), []);
        buffer.insert(4, Instant::ZERO, 4);
        assert_eq!(poll_all(&mut buffer), [(1, 1), (2, 0), (3, 0), (4, 0)]);
        assert_eq!(buffer.held(), 0);
    }

    #[test]
    fn a_burst_loss_is_counted_to_the_packet() {
        let mut buffer = buffer(4);
        buffer.insert(0, Instant::ZERO, 0);
        buffer.insert(2, Instant::ZERO, 2);
        buffer.insert(2_000, Instant::ZERO, 2_000);
        assert_eq!(poll_all(&mut buffer), [(0, 0), (2, 1)]);
        buffer.handle_timeout(Instant::from_millis(50));
        assert_eq!(poll_all(&mut buffer), [(2_000, 1_997)]);
        assert_eq!(buffer.given_up(), 1_998);
    }

    #[test]
    fn a_late_item_is_told_from_a_duplicate() {
        let mut buffer = buffer(4);
        buffer.insert(0, Instant::ZERO, 0);
        buffer.insert(2, Instant::ZERO, 2);
        assert_eq!(buffer.insert(2, Instant::ZERO, 2), Insertion::Duplicate);
        buffer.handle_timeout(Instant::from_millis(50));
        assert_eq!(buffer.insert(1, Instant::ZERO, 1), Insertion::Late);
        assert_eq!(buffer.insert(0, Instant::ZERO, 0), Insertion::Duplicate);
        assert_eq!(buffer.insert(2, Instant::ZERO, 2), Insertion::Duplicate);
    }

    #[test]
    fn a_restart_gives_out_what_is_held_and_starts_clean() {
        let mut buffer = buffer(4);
        buffer.insert(2, Instant::ZERO, 2);
        buffer.restart(1_000);
        buffer.insert(1_000, Instant::ZERO, 1_000);
        assert_eq!(poll_all(&mut buffer), [(2, 2), (1_000, 0)]);
        assert_eq!(buffer.given_up(), 2);
        assert_eq!(buffer.next_timeout(), None);
    }

    #[test]
    fn a_caller_that_never_polls_gets_refusals_instead_of_growth() {
        let mut buffer = buffer(4);
        for position in 0..READY_LIMIT as u64 {
            assert_eq!(buffer.insert(position, Instant::ZERO, position), Insertion::InOrder);
        }
        assert_eq!(buffer.insert(READY_LIMIT as u64, Instant::ZERO, 0), Insertion::Overrun);
        let capacity = buffer.ready.capacity();
        assert_eq!(poll_all(&mut buffer).len(), READY_LIMIT);
        assert_eq!(buffer.ready.capacity(), capacity);
    }

    /// Moves each of `count` positions at most `spread` places, drops some and doubles some.
    fn traffic(count: u64, spread: u64) -> impl Strategy<Value = (Vec<u64>, BTreeSet<u64>)> {
        let fate = (0..=spread, prop::bool::weighted(0.05), prop::bool::weighted(0.05));
        prop::collection::vec(fate, count as usize).prop_map(move |fates| {
            let mut sent = Vec::new();
            let mut lost = BTreeSet::new();
            for (position, (delay, lose, double)) in fates.into_iter().enumerate() {
                let position = position as u64;
                // The first and last are kept, so that every loss is bounded by two arrivals.
                if lose && position != 0 && position != count - 1 {
                    lost.insert(position);
                    continue;
                }
                // In halves of a place, so that equal delays keep the order and the first comes first.
                let place = if position == 0 { 0 } else { (position + delay) * 2 + 1 };
                sent.push((place, position));
                if double {
                    sent.push((place + 1, position));
                }
            }
            sent.sort();
            (sent.into_iter().map(|(_, position)| position).collect(), lost)
        })
    }

    proptest! {
        #[test]
        fn shuffled_within_the_depth_everything_comes_out_once_in_order((arrivals, lost) in traffic(300, 15)) {
            let mut buffer = buffer(32);
            let mut out = Vec::new();
            let mut duplicates = 0;
            for &position in &arrivals {
                duplicates += usize::from(buffer.insert(position, Instant::ZERO, position) == Insertion::Duplicate);
                out.extend(poll_all(&mut buffer));
            }
            buffer.handle_timeout(Instant::ZERO + WAIT);
            out.extend(poll_all(&mut buffer));
            let expected: Vec<_> = (0..300).filter(|position| !lost.contains(position)).collect();
            prop_assert_eq!(out.iter().map(|&(position, _)| position).collect::<Vec<_>>(), expected);
            prop_assert_eq!(out.iter().map(|&(_, lost)| lost as usize).sum::<usize>(), lost.len());
            prop_assert_eq!(buffer.given_up(), lost.len() as u64);
            prop_assert_eq!(duplicates, arrivals.len() - out.len());
        }

        #[test]
        fn whatever_comes_positions_rise_and_add_up(
            arrivals in prop::collection::vec((0_u64..200, 0_u64..3), 0..300), depth in 1_usize..40,
        ) {
            let mut buffer = buffer(depth);
            let (mut now, mut expected, mut out) = (Instant::ZERO, 0, 0);
            for (position, pause) in arrivals {
                now += Duration::from_millis(10 * pause);
                buffer.handle_timeout(now);
                buffer.insert(position, now, position);
                for (position, lost_before) in poll_all(&mut buffer) {
                    prop_assert_eq!(position, expected + u64::from(lost_before));
                    expected = position + 1;
                    out += 1;
                }
                prop_assert!(buffer.held() < depth);
                prop_assert_eq!(buffer.held() > 0, buffer.next_timeout().is_some());
            }
            prop_assert!(out + buffer.given_up() >= expected);
        }
    }
}
