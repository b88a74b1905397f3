//! A bad network: what becomes of each datagram, decided from a seed and a clock that is handed in.
//!
//! ```text
//!  judge ─▶ blackout? ─▶ burst? ─▶ random loss? ─▶ rate and queue ─▶ delay, jitter, reordering ─▶ a second copy?
//! ```
//!
//! Jitter alone keeps the order, as a queue does; datagrams are overtaken only where reordering is asked for.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use serde::Serialize;

use super::random::Random;
use crate::base::Instant;

/// What a network does to datagrams that go one way. The default does nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Probability of a datagram to be lost, each for itself.
    pub loss: f64,
    /// Times at which everything is lost.
    pub burst: Option<Burst>,
    /// How long every datagram takes.
    pub delay: Duration,
    /// How much longer it may take at random, evenly spread; the order is kept.
    pub jitter: Duration,
    /// Probability of a datagram to be held back so that later ones overtake it.
    pub reorder: f64,
    /// How long it is held back.
    pub reorder_delay: Duration,
    /// Probability of a datagram to come twice.
    pub duplicate: f64,
    /// Bits per second of payload that pass; more waits in a queue.
    pub rate_bps: Option<u64>,
    /// The longest wait in that queue; what would wait longer is lost.
    pub queue: Duration,
    /// Times, counted from the start, at which everything is lost.
    pub blackouts: Vec<Blackout>,
}

impl Conditions {
    /// Whether they change nothing.
    pub fn is_clear(&self) -> bool {
        let Self { loss, burst, delay, jitter, reorder, reorder_delay: _, duplicate, rate_bps, queue: _, blackouts } =
            self;
        *loss == 0.0
            && burst.is_none()
            && delay.is_zero()
            && jitter.is_zero()
            && *reorder == 0.0
            && *duplicate == 0.0
            && rate_bps.is_none()
            && blackouts.is_empty()
    }

    /// The longest that a datagram can be under way.
    pub fn longest(&self) -> Duration {
        let held = if self.reorder > 0.0 { self.reorder_delay } else { Duration::ZERO };
        let queued = if self.rate_bps.is_some() { self.queue } else { Duration::ZERO };
        self.delay + self.jitter + held + queued
    }
}

/// Loss in bursts: a Gilbert model in time, whose bad state loses everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Share of time that is bad.
    pub share: f64,
    /// The longest burst; lengths are evenly spread up to it.
    pub longest: Duration,
}

/// A time without network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blackout {
    /// When it begins, from the start.
    pub from: Duration,
    /// How long it lasts.
    pub length: Duration,
}

/// Why a datagram was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// By itself, at random.
    Random,
    /// In a burst.
    Burst,
    /// In a blackout.
    Blackout,
    /// It would have waited too long for its turn.
    Queue,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is lost.
    Lost(Loss),
    /// It arrives.
    Arrives {
        /// When.
        at: Instant,
        /// When a second copy arrives.
        again_at: Option<Instant>,
    },
}

/// What has been done to datagrams so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImpairmentStatistics {
    /// Datagrams judged.
    pub datagrams: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Lost each by itself.
    pub lost_random: u64,
    /// Lost in bursts.
    pub lost_burst: u64,
    /// Bursts that lost anything.
    pub bursts: u64,
    /// Lost in blackouts.
    pub lost_blackout: u64,
    /// Lost because the queue was too long.
    pub lost_queue: u64,
    /// Held back to be overtaken.
    pub reordered: u64,
    /// Doubled.
    pub duplicated: u64,
}

impl ImpairmentStatistics {
    /// All that were lost.
    pub const fn lost(&self) -> u64 {
        self.lost_random + self.lost_burst + self.lost_blackout + self.lost_queue
    }

    /// Adds what was done elsewhere.
    pub const fn add(&mut self, other: &Self) {
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
        self.lost_random += other.lost_random;
        self.lost_burst += other.lost_burst;
        self.bursts += other.bursts;
        self.lost_blackout += other.lost_blackout;
        self.lost_queue += other.lost_queue;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
    }
}

/// The judge of one direction of one path.
#[derive(Clone, Debug)]
pub struct Impairment {
    conditions: Conditions,
    random: Random,
    start: Instant,
    burst: (Instant, Instant),
    burst_seen: bool,
    link_free_at: Instant,
    last_at: Instant,
    statistics: ImpairmentStatistics,
}

impl Impairment {
    /// A path that begins `start` and whose accidents all follow from `seed`.
    pub fn new(conditions: Conditions, seed: u64, start: Instant) -> Self {
        let mut impairment = Self {
            conditions,
            random: Random::new(seed),
            start,
            burst: (Instant::FAR_FUTURE, Instant::FAR_FUTURE),
            burst_seen: false,
            link_free_at: Instant::ZERO,
            last_at: Instant::ZERO,
            statistics: ImpairmentStatistics::default(),
        };
        impairment.next_burst(start);
        impairment
    }

    /// What has been done so far.
    pub const fn statistics(&self) -> &ImpairmentStatistics {
        &self.statistics
    }

    /// Decides about a datagram of `length` bytes that is sent at `now`.
    pub fn judge(&mut self, now: Instant, length: usize) -> Fate {
        self.statistics.datagrams += 1;
        self.statistics.bytes += length as u64;
        // Drawn always and in one order, so that one condition more does not change what the others do.
        let lost = self.random.chance(self.conditions.loss);
        let reordered = self.random.chance(self.conditions.reorder);
        let duplicated = self.random.chance(self.conditions.duplicate);
        let jitter = self.random.fraction();
        if let Some(loss) = self.loss(now, lost) {
            return Fate::Lost(loss);
        }
        let Some(left) = self.pass_link(now, length) else { return self.lose(Loss::Queue) };
        let mut at = left + self.conditions.delay + self.conditions.jitter.mul_f64(jitter);
        if reordered {
            self.statistics.reordered += 1;
            at += self.conditions.reorder_delay;
        } else {
            at = at.max(self.last_at);
            self.last_at = at;
        }
        self.statistics.duplicated += u64::from(duplicated);
        Fate::Arrives { at, again_at: duplicated.then_some(at) }
    }

    fn loss(&mut self, now: Instant, lost: bool) -> Option<Loss> {
        let elapsed = now.saturating_since(self.start);
        let dark = |blackout: &Blackout| elapsed >= blackout.from && elapsed - blackout.from < blackout.length;
        let loss = if self.conditions.blackouts.iter().any(dark) {
            Loss::Blackout
        } else if self.in_burst(now) {
            Loss::Burst
        } else if lost {
            Loss::Random
        } else {
            return None;
        };
        self.lose(loss);
        Some(loss)
    }

    fn lose(&mut self, loss: Loss) -> Fate {
        let statistics = &mut self.statistics;
        match loss {
            Loss::Random => statistics.lost_random += 1,
            Loss::Burst => statistics.lost_burst += 1,
            Loss::Blackout => statistics.lost_blackout += 1,
            Loss::Queue => statistics.lost_queue += 1,
        }
        Fate::Lost(loss)
    }

    fn in_burst(&mut self, now: Instant) -> bool {
        while now >= self.burst.1 {
            self.next_burst(self.burst.1);
        }
        let inside = now >= self.burst.0;
        self.statistics.bursts += u64::from(inside && !self.burst_seen);
        self.burst_seen |= inside;
        inside
    }

    /// Draws the next burst after `from`: the good time is exponentially distributed, the bad one evenly.
    fn next_burst(&mut self, from: Instant) {
        let Some(Burst { share, longest }) = self.conditions.burst.filter(|burst| burst.share > 0.0) else {
            self.burst = (Instant::FAR_FUTURE, Instant::FAR_FUTURE);
            return;
        };
        let share = share.min(0.99);
        let good_mean = longest.as_secs_f64() / 2.0 * (1.0 - share) / share;
        let good = -good_mean * (1.0 - self.random.fraction()).ln();
        // Never of no length at all, or the search for the next would not end.
        let bad = longest.mul_f64(1.0 - self.random.fraction()).max(Duration::from_micros(1));
        let begin = from + Duration::from_secs_f64(good);
        self.burst = (begin, begin + bad);
        self.burst_seen = false;
    }

    /// When the last bit has left; `None` when the queue before the link is too long.
    fn pass_link(&mut self, now: Instant, length: usize) -> Option<Instant> {
        let Some(rate) = self.conditions.rate_bps else { return Some(now) };
        let begin = self.link_free_at.max(now);
        if begin.saturating_since(now) > self.conditions.queue {
            return None;
        }
        self.link_free_at = begin + Duration::from_nanos(length as u64 * 8_000_000_000 / rate.max(1));
        Some(self.link_free_at)
    }
}

/// What is under way: a bounded queue in the order of arrival. Takes all its memory when it is made.
#[derive(Debug)]
pub struct DelayLine<T> {
    heap: BinaryHeap<Waiting<T>>,
    capacity: usize,
    order: u64,
    refused: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    at: Instant,
    order: u64,
    item: T,
}

impl<T> Waiting<T> {
    const fn key(&self) -> (u64, u64) {
        (self.at.as_nanos(), self.order)
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    // The heap gives its greatest first: that is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<T> DelayLine<T> {
    /// Room for `capacity` datagrams.
    pub fn new(capacity: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(capacity), capacity, order: 0, refused: 0 }
    }

    /// Puts `item` in, to come out `at`; gives it back, and counts it, when there is no room.
    ///
    /// # Errors
    /// The item itself.
    pub fn push(&mut self, at: Instant, item: T) -> Result<(), T> {
        if self.heap.len() >= self.capacity {
            self.refused += 1;
            return Err(item);
        }
        self.order += 1;
        self.heap.push(Waiting { at, order: self.order, item });
        Ok(())
    }

    /// The next that has arrived by `now`; those of one moment in the order they were put in.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        if self.heap.peek()?.at > now {
            return None;
        }
        self.heap.pop().map(|waiting| waiting.item)
    }

    /// When the next arrives.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|waiting| waiting.at)
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// How many found no room.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(210);

    fn run(conditions: Conditions, seed: u64, count: u64) -> (Vec<Fate>, ImpairmentStatistics) {
        let start = Instant::from_millis(5);
        let mut impairment = Impairment::new(conditions, seed, start);
        let fates = (0..count).map(|n| impairment.judge(start + STEP * n as u32, 1316)).collect();
        (fates, *impairment.statistics())
    }

    fn sent_at(n: usize) -> Instant {
        Instant::from_millis(5) + STEP * n as u32
    }

    #[test]
    fn a_clear_network_changes_nothing() {
        assert!(Conditions::default().is_clear());
        let (fates, statistics) = run(Conditions::default(), 1, 1_000);
        for (n, fate) in fates.iter().enumerate() {
            assert_eq!(*fate, Fate::Arrives { at: sent_at(n), again_at: None });
        }
        assert_eq!((statistics.datagrams, statistics.bytes, statistics.lost()), (1_000, 1_316_000, 0));
    }

    #[test]
    fn a_seed_decides_every_fate_and_random_loss_is_as_much_as_asked_for() {
        let conditions = Conditions { loss: 0.01, duplicate: 0.02, ..Conditions::default() };
        let (fates, statistics) = run(conditions.clone(), 42, 100_000);
        assert_eq!((fates, statistics), run(conditions.clone(), 42, 100_000));
        assert_ne!(statistics, run(conditions, 43, 100_000).1);
        assert!((900..1_100).contains(&statistics.lost_random), "{statistics:?}");
        assert!((1_850..2_150).contains(&statistics.duplicated), "{statistics:?}");
    }

    #[test]
    fn a_burst_loses_everything_for_no_longer_than_allowed() {
        let longest = Duration::from_millis(100);
        let conditions = Conditions { burst: Some(Burst { share: 0.05, longest }), ..Conditions::default() };
        let (fates, statistics) = run(conditions, 3, 1_000_000);
        assert!((35_000..65_000).contains(&statistics.lost_burst), "{statistics:?}");
        assert!(statistics.bursts > 100);
        let mut run_length = 0_u32;
        let mut longest_run = 0;
        for fate in fates {
            run_length = if matches!(fate, Fate::Lost(Loss::Burst)) { run_length + 1 } else { 0 };
            longest_run = longest_run.max(run_length);
        }
        assert!(STEP * longest_run <= longest + STEP, "{longest_run}");
        assert!(STEP * longest_run > longest / 2, "{longest_run}");
    }

    #[test]
    fn jitter_keeps_the_order_and_stays_within_its_bounds() {
        let (delay, jitter) = (Duration::from_millis(15), Duration::from_millis(5));
        let (fates, _) = run(Conditions { delay, jitter, ..Conditions::default() }, 9, 10_000);
        let mut last = Instant::ZERO;
        for (n, fate) in fates.iter().enumerate() {
            let Fate::Arrives { at, again_at: None } = *fate else { panic!("{fate:?}") };
            assert!(at >= last);
            let took = at.saturating_since(sent_at(n));
            assert!(took >= delay && took <= delay + jitter, "{took:?}");
            last = at;
        }
    }

    #[test]
    fn a_reordered_datagram_is_overtaken() {
        let conditions = Conditions { reorder: 0.02, reorder_delay: Duration::from_millis(2), ..Conditions::default() };
        let (fates, statistics) = run(conditions, 5, 10_000);
        assert!((150..250).contains(&statistics.reordered));
        let mut line = DelayLine::new(10_000);
        for (n, fate) in fates.iter().enumerate() {
            let Fate::Arrives { at, .. } = *fate else { panic!("{fate:?}") };
            line.push(at, n).unwrap();
        }
        let order: Vec<usize> = std::iter::from_fn(|| line.pop(Instant::FAR_FUTURE)).collect();
        let overtaken = order.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(overtaken > 140, "{overtaken}");
    }

    #[test]
    fn a_link_of_a_rate_queues_and_then_loses() {
        // 1,316 bytes each 210 µs are 50.1 Mbit/s.
        let conditions =
            Conditions { rate_bps: Some(25_000_000), queue: Duration::from_millis(20), ..Conditions::default() };
        let (fates, statistics) = run(conditions, 1, 10_000);
        assert!((4_700..5_200).contains(&statistics.lost_queue), "{statistics:?}");
        for (n, fate) in fates.iter().enumerate() {
            if let Fate::Arrives { at, .. } = fate {
                assert!(at.saturating_since(sent_at(n)) < Duration::from_millis(21));
            }
        }
    }

    #[test]
    fn a_blackout_is_dark_from_its_begin_to_its_end() {
        let blackouts = vec![Blackout { from: Duration::from_millis(10), length: Duration::from_millis(5) }];
        let (fates, statistics) = run(Conditions { blackouts, ..Conditions::default() }, 1, 100);
        for (n, fate) in fates.iter().enumerate() {
            let since = STEP * n as u32;
            let dark = since >= Duration::from_millis(10) && since < Duration::from_millis(15);
            assert_eq!(matches!(fate, Fate::Lost(Loss::Blackout)), dark, "{n}");
        }
        assert_eq!(statistics.lost_blackout, 24);
    }

    #[test]
    fn a_full_delay_line_refuses_and_counts() {
        let mut line = DelayLine::new(2);
        assert_eq!(line.push(Instant::from_millis(2), 'b'), Ok(()));
        assert_eq!(line.push(Instant::from_millis(1), 'a'), Ok(()));
        assert_eq!(line.push(Instant::from_millis(1), 'c'), Err('c'));
        assert_eq!((line.next_at(), line.pop(Instant::ZERO)), (Some(Instant::from_millis(1)), None));
        assert_eq!((line.pop(Instant::from_millis(1)), line.pop(Instant::from_millis(1))), (Some('a'), None));
        assert_eq!((line.len(), line.refused()), (1, 1));
    }
}
