//! When a loss is reported again.
//!
//! The periodic report (draft-sharabayko-srt §4.8.2) names all that is missing each half of a round trip, 20 ms at least, whenever it was first
//! missed: what was sent again and lost again is asked for up to that much later than could be known, and at a latency of two or three round
//! trips that is one attempt less. So each run that is reported also gets a date of its own: when what is sent again for it should
//! have come. And as a report may be lost as well, it is soon followed by a copy.
//!
//! Both ask the sender for what it may have sent again a moment ago. One of libsrt since 1.4.4, or ours, passes that over (`SRTO_RETRANSMITALGO` 1,
//! `SendBuffer::next_retransmission`): for a round trip less four deviations, as we have told it. One that answers every report gets
//! the periodic ones alone.

use std::collections::VecDeque;
use std::time::Duration;

use super::acknowledgement::RoundTrip;
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, snapshot_fields, valid};
use crate::base::Instant;

/// The first version of libsrt whose senders pass over what is under way.
const PASSES_OVER_SINCE: u32 = 0x0001_0404;
/// Reports that may wait for their date; what does not fit waits for the periodic one.
const WAITING_MAX: usize = 256;
/// No report is repeated sooner.
const SOONEST: Duration = Duration::from_millis(5);
/// Nor does its copy follow later.
const COPY_LATEST: Duration = Duration::from_millis(20);

/// A report that is due again for what of `first..end` is missing then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    at: Instant,
    /// First number.
    pub first: u64,
    /// One past the last.
    pub end: u64,
    /// In case the report itself was lost: it has none of its own.
    pub is_copy: bool,
}

impl Repeat {
    snapshot_fields! { instant at, count first, count end, bool is_copy }
}

/// Reports that wait for their date, the next one first.
#[derive(Debug)]
pub struct Repeats {
    is_used: bool,
    waiting: VecDeque<Repeat>,
}

impl Repeats {
    /// For a sender of this version.
    pub fn new(peer_version: u32) -> Self {
        let mut repeats = Self { is_used: false, waiting: VecDeque::new() };
        repeats.peer_is(peer_version);
        repeats
    }

    /// The sender has this version; one with version 4 of the handshake says so after it.
    pub fn peer_is(&mut self, peer_version: u32) {
        self.is_used = peer_version >= PASSES_OVER_SINCE;
        if self.is_used {
            self.waiting.reserve_exact(WAITING_MAX - self.waiting.len());
        } else {
            self.waiting = VecDeque::new();
        }
    }

    /// For a packet filter that is to be given time, and for files.
    pub fn unused(self) -> Self {
        Self { is_used: false, waiting: VecDeque::new() }
    }

    /// Bytes of a list that is used.
    pub const fn memory_max() -> usize {
        WAITING_MAX * size_of::<Repeat>()
    }

    /// Nothing is missing any more, so that none of these is due: they would keep the next loss out.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// `first..end` has been asked for now.
    pub fn reported(&mut self, now: Instant, (first, end): (u64, u64), round_trip: &RoundTrip) {
        if !self.is_used {
            return;
        }
        let round_trip_us = u64::from(round_trip.smoothed_us());
        let deviation_us = u64::from(round_trip.variance_us());
        let copy_after = Duration::from_micros(round_trip_us / 8).clamp(SOONEST, COPY_LATEST);
        // Passed over by the sender even where it comes as late again.
        if round_trip_us >= 4 * deviation_us + 2 * copy_after.as_micros() as u64 {
            self.add(Repeat { at: now + copy_after, first, end, is_copy: true });
        }
        let answered_after = Duration::from_micros(round_trip_us + 2 * deviation_us).max(SOONEST);
        self.add(Repeat { at: now + answered_after, first, end, is_copy: false });
    }

    fn add(&mut self, repeat: Repeat) {
        if self.waiting.len() < WAITING_MAX {
            let place = self.waiting.partition_point(|other| other.at <= repeat.at);
            self.waiting.insert(place, repeat);
        }
    }

    /// When the next one is due; far future without any.
    #[inline]
    pub fn next_at(&self) -> Instant {
        self.waiting.front().map_or(Instant::FAR_FUTURE, |repeat| repeat.at)
    }

    /// One that is due.
    pub fn take(&mut self, now: Instant) -> Option<Repeat> {
        if self.next_at() <= now { self.waiting.pop_front() } else { None }
    }

    /// Goes on with the rest of one that was taken.
    pub fn put_back(&mut self, rest: Repeat) {
        self.waiting.push_front(rest);
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        // Whether it is used follows from the parameters.
        let Self { is_used: _, waiting } = self;
        to.size(waiting.len());
        waiting.iter().for_each(|repeat| repeat.snapshot(to));
    }

    /// Reads what [`snapshot`](Self::snapshot) has written, for numbers below `expected`.
    pub(crate) fn restore(
        from: &mut SnapshotReader<'_>,
        peer_version: u32,
        expected: u64,
    ) -> Result<Self, RestoreError> {
        let mut restored = Self::new(peer_version);
        for _ in 0..from.size()? {
            let repeat = Repeat::restore(from)?;
            valid(restored.is_used && restored.waiting.len() < WAITING_MAX)?;
            valid(repeat.first <= repeat.end && repeat.end <= expected)?;
            valid(restored.waiting.back().is_none_or(|last| last.at <= repeat.at))?;
            restored.waiting.push_back(repeat);
        }
        Ok(restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBSRT_1_5_1: u32 = 0x0001_0501;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(1_000 + ms)
    }

    fn round_trip(smoothed_us: u32, samples: u32) -> RoundTrip {
        let mut round_trip = RoundTrip::default();
        (0..samples).for_each(|_| round_trip.add_sample(smoothed_us));
        round_trip
    }

    fn dates(repeats: &mut Repeats) -> Vec<(Instant, bool)> {
        std::iter::from_fn(|| repeats.take(Instant::FAR_FUTURE)).map(|repeat| (repeat.at, repeat.is_copy)).collect()
    }

    #[test]
    fn a_report_has_a_copy_at_once_and_is_repeated_when_its_answer_should_have_come() {
        let mut repeats = Repeats::new(LIBSRT_1_5_1);
        let steady = round_trip(80_000, 100);
        repeats.reported(at(0), (5, 9), &steady);
        assert_eq!(repeats.take(at(9)), None);
        assert_eq!(repeats.take(at(10)), Some(Repeat { at: at(10), first: 5, end: 9, is_copy: true }));
        assert_eq!(repeats.take(at(79)), None);
        assert_eq!(repeats.take(at(80)), Some(Repeat { at: at(80), first: 5, end: 9, is_copy: false }));
        assert_eq!(repeats.next_at(), Instant::FAR_FUTURE);
    }

    #[test]
    fn there_is_no_copy_where_the_sender_might_send_twice_for_it() {
        let mut repeats = Repeats::new(LIBSRT_1_5_1);
        // Nothing measured, the first measurement, and a round trip that is over before the copy.
        for (round_trip, answered_ms) in
            [(RoundTrip::default(), 200), (round_trip(80_000, 1), 160), (round_trip(2_000, 100), 5)]
        {
            repeats.reported(at(0), (5, 6), &round_trip);
            assert_eq!(dates(&mut repeats), [(at(answered_ms), false)]);
        }
    }

    #[test]
    fn a_sender_that_answers_every_report_gets_none_of_these() {
        for version in [0, 0x0001_0100, 0x0001_0403] {
            let mut repeats = Repeats::new(version);
            repeats.reported(at(0), (5, 6), &round_trip(80_000, 100));
            assert_eq!(dates(&mut repeats), []);
        }
    }

    #[test]
    fn a_sender_that_says_its_version_later_gets_them_from_then_on_and_only_then_is_there_room_taken() {
        let mut repeats = Repeats::new(0);
        assert_eq!(repeats.waiting.capacity(), 0);
        repeats.peer_is(LIBSRT_1_5_1);
        assert_eq!(repeats.waiting.capacity() * size_of::<Repeat>(), Repeats::memory_max());
        repeats.reported(at(0), (5, 6), &round_trip(2_000, 100));
        assert_eq!(repeats.next_at(), at(5));
        let unused = repeats.unused();
        assert_eq!((unused.waiting.capacity(), unused.next_at()), (0, Instant::FAR_FUTURE));
    }

    #[test]
    fn they_come_in_the_order_of_their_dates_and_no_more_of_them_than_fit() {
        let mut repeats = Repeats::new(LIBSRT_1_5_1);
        let steady = round_trip(80_000, 100);
        for n in 0..1_000 {
            repeats.reported(at(n / 8), (n, n + 1), &steady);
        }
        let dates = dates(&mut repeats);
        assert_eq!(dates.len(), WAITING_MAX);
        assert!(dates.is_sorted_by_key(|date| date.0));
    }
}
