//! What is missing: the receiver's list of lost packets, and what of it is to be reported now.
//!
//! The sender's list is in [`SendBuffer`](super::send_buffer::SendBuffer): there a lost packet is one to send again.

use std::collections::VecDeque;

use super::acknowledgement::RoundTrip;
use super::fec::configuration::ArqLevel;
use super::loss_repeats::Repeats;
use super::sequence_set::SequenceSet;
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, snapshot_fields, valid};
use crate::base::Instant;

/// Gaps that may wait for their first report; what does not fit waits for the periodic one.
const FRESH_MAX: usize = 64;

/// A gap not yet reported: all from `first` up to, not including, `end`.
#[derive(Debug, Clone, Copy)]
struct Fresh {
    first: u64,
    end: u64,
    /// How many packets may still pass before it counts as lost, not reordered.
    patience: u16,
    /// A periodic report has gone out without it. The next one names it, or nobody would ask for it when no packets pass any more.
    passed_over: bool,
}

/// Packets over which the largest distance of a reordered one is remembered: once that many at least, and twice at most.
const REORDER_SPAN: u16 = 1_024;

/// How far packets come behind their place on this path, and so how long a gap is better given to close by itself.
///
/// libsrt begins with the most that is allowed too, but forgets one packet of distance for each fifty that come in order and for
/// each ten that come with time to spare: on a path that displaces one packet in a hundred it is always just forgetting, and asks
/// for most of what would have come. What a path does it does again, so here the largest distance of late counts.
#[derive(Debug)]
struct Reordering {
    most: u16,
    /// Largest distance in the present span, and in the one before.
    lately: [u16; 2],
    packets: u16,
}

impl Reordering {
    fn new(most: u16) -> Self {
        Self { most, lately: [most, 0], packets: 0 }
    }

    /// One more than was seen, since the largest distance is seen seldom.
    fn tolerance(&self) -> u16 {
        match self.lately[0].max(self.lately[1]) {
            0 => 0,
            distance => distance.saturating_add(1).min(self.most),
        }
    }

    fn packet(&mut self) {
        self.packets += 1;
        if self.packets >= REORDER_SPAN {
            self.packets = 0;
            self.lately = [0, self.lately[0]];
        }
    }

    fn seen(&mut self, distance: u64) {
        let distance = u16::try_from(distance).unwrap_or(u16::MAX).min(self.most);
        self.lately[0] = self.lately[0].max(distance);
    }

    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self { most, lately, packets } = self;
        to.u16(*most);
        lately.iter().for_each(|&distance| to.u16(distance));
        to.u16(*packets);
    }

    fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let restored = Self { most: from.u16()?, lately: [from.u16()?, from.u16()?], packets: from.u16()? };
        valid(restored.packets < REORDER_SPAN && restored.tolerance() <= restored.most)?;
        Ok(restored)
    }
}

impl Fresh {
    snapshot_fields! { count first, count end, u16 patience, bool passed_over }
}

/// The receiver's loss list (draft-sharabayko-srt §4.8.2): one bit per number between the head and the end of the receive
/// buffer. Its size does not depend on what the peer does.
#[derive(Debug)]
pub struct ReceiverLosses {
    missing: SequenceSet,
    fresh: VecDeque<Fresh>,
    reordering: Reordering,
    repeats: Repeats,
    /// What a packet filter leaves to be reported; all of it without one.
    arq: ArqLevel,
    /// What is missing is reported again and again.
    is_repeated: bool,
}

impl ReceiverLosses {
    /// An empty list for a receive buffer of `capacity` slots. A gap is given as many packets to close by itself as packets were
    /// lately seen to come behind their place, `reorder_tolerance_max` at most (libsrt: `SRTO_LOSSMAXTTL`); with 0 it is reported at
    /// once. What is reported again between two periodic reports is up to the sender's version.
    pub fn new(capacity: usize, reorder_tolerance_max: u16, peer_version: u32) -> Self {
        Self {
            missing: SequenceSet::new(capacity),
            fresh: VecDeque::with_capacity(FRESH_MAX),
            reordering: Reordering::new(reorder_tolerance_max),
            repeats: Repeats::new(peer_version),
            arq: ArqLevel::Always,
            is_repeated: true,
        }
    }

    /// With a packet filter, which leaves only some of it to be reported.
    pub fn behind_filter(self, arq: ArqLevel) -> Self {
        let repeats = if arq == ArqLevel::Always { self.repeats } else { self.repeats.unused() };
        Self { arq, is_repeated: arq == ArqLevel::Always, repeats, ..self }
    }

    /// Each loss is reported once: a sender of a file takes another report for another congestion.
    pub fn reported_once(self) -> Self {
        Self { is_repeated: false, repeats: self.repeats.unused(), ..self }
    }

    /// Bytes of what is to be reported again between two periodic reports, beside what grows with the receive buffer.
    pub const fn memory_of_repeats() -> usize {
        Repeats::memory_max()
    }

    /// Whether what is missing is reported again and again: libsrt does not behind a filter that is to be given time.
    #[inline]
    pub fn is_repeated(&self) -> bool {
        self.is_repeated
    }

    /// Packets missing.
    #[inline]
    pub fn len(&self) -> usize {
        self.missing.len()
    }

    /// Whether nothing is missing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
    }

    /// All from `first` up to, not including, `end` have not come though a later one has.
    pub fn gap(&mut self, first: u64, end: u64) {
        self.missing.insert_range(first, end);
        if self.arq == ArqLevel::Always && self.fresh.len() < FRESH_MAX {
            self.fresh.push_back(Fresh { first, end, patience: self.reordering.tolerance(), passed_over: false });
        } else if self.arq == ArqLevel::Always
            && !self.is_repeated
            && let Some(last) = self.fresh.back_mut()
        {
            // There will be no other report.
            last.end = end;
        }
    }

    /// The packet filter has given up all from `first` up to, not including, `end`. These are reported once, so that none is left out:
    /// what waits already and would be too much becomes one with it.
    pub fn given_up(&mut self, first: u64, end: u64) {
        if self.arq != ArqLevel::OnRequest {
            return;
        }
        let is_full = self.fresh.len() == FRESH_MAX;
        match self.fresh.back_mut() {
            Some(last) if last.end == first || is_full => {
                (last.first, last.end) = (last.first.min(first), last.end.max(end));
            }
            _ => self.fresh.push_back(Fresh { first, end, patience: 0, passed_over: false }),
        }
    }

    /// `sequence` has come; whether it was missing.
    #[inline]
    pub fn arrived(&mut self, sequence: u64) -> bool {
        let was_missing = !self.missing.is_empty() && self.missing.remove(sequence);
        if was_missing && self.missing.is_empty() {
            self.repeats.clear();
        }
        was_missing
    }

    /// A packet has come: gaps that wait have waited for one more.
    #[inline]
    pub fn packet_passed(&mut self) {
        if self.reordering.most != 0 {
            self.reordering.packet();
            self.fresh.iter_mut().for_each(|fresh| fresh.patience = fresh.patience.saturating_sub(1));
        }
    }

    /// A packet that was missing has come by itself, this far behind the newest.
    pub fn reordered(&mut self, distance: u64) {
        self.reordering.seen(distance);
    }

    /// How many packets a gap is given to close by itself at present.
    pub fn reorder_tolerance(&self) -> u16 {
        self.reordering.tolerance()
    }

    /// Nobody wants these any more: the buffer has moved on, or the sender has dropped them.
    pub fn forget(&mut self, first: u64, end: u64) {
        self.missing.remove_range(first, end);
        if self.missing.is_empty() {
            self.repeats.clear();
        }
    }

    /// The sender says its version after the handshake, as one with version 4 of it does.
    pub fn peer_is(&mut self, peer_version: u32) {
        if self.is_repeated {
            self.repeats.peer_is(peer_version);
        }
    }

    /// Whether a gap is due for its first report.
    #[inline]
    pub fn has_fresh(&self) -> bool {
        self.fresh.front().is_some_and(|fresh| fresh.patience == 0)
    }

    /// The next run of lost packets to be reported for the first time. `head` is the receive buffer's.
    pub fn next_fresh(&mut self, head: u64) -> Option<(u64, u64)> {
        while let Some(fresh) = self.fresh.front_mut().filter(|fresh| fresh.patience == 0) {
            if let Some((first, end)) = self.missing.next_run(fresh.first.max(head), fresh.end) {
                fresh.first = end;
                return Some((first, end));
            }
            self.fresh.pop_front();
        }
        None
    }

    /// A run goes out in a report now, for the first time.
    pub fn reported(&mut self, now: Instant, run: (u64, u64), round_trip: &RoundTrip) {
        self.repeats.reported(now, run, round_trip);
    }

    /// When a run is due to be reported again, apart from periodic reports; far future when none is.
    #[inline]
    pub fn repeat_at(&self) -> Instant {
        if self.missing.is_empty() { Instant::FAR_FUTURE } else { self.repeats.next_at() }
    }

    /// The next run to be reported again now. `head` is the receive buffer's.
    pub fn next_repeat(&mut self, now: Instant, head: u64, round_trip: &RoundTrip) -> Option<(u64, u64)> {
        while let Some(mut repeat) = self.repeats.take(now) {
            if let Some((first, end)) = self.missing.next_run(repeat.first.max(head), repeat.end) {
                repeat.first = end;
                self.repeats.put_back(repeat);
                if !repeat.is_copy {
                    self.repeats.reported(now, (first, end), round_trip);
                }
                return Some((first, end));
            }
        }
        None
    }

    /// Where a periodic report that goes out now ends, `expected` at the latest: gaps that may still close by themselves are passed over
    /// once. libsrt names these too.
    pub fn periodic_report(&mut self, expected: u64) -> u64 {
        let mut end = expected;
        for fresh in self.fresh.iter_mut().filter(|fresh| fresh.patience > 0) {
            if !std::mem::replace(&mut fresh.passed_over, true) {
                end = end.min(fresh.first);
            }
        }
        end
    }

    /// The first run that is missing in `from..end`.
    pub fn next_run(&self, from: u64, end: u64) -> Option<(u64, u64)> {
        self.missing.next_run(from, end)
    }

    /// All that is missing in `head..end`, oldest first: for the periodic report.
    pub fn runs(&self, head: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut from = head;
        std::iter::from_fn(move || {
            let run = self.missing.next_run(from, end)?;
            from = run.1;
            Some(run)
        })
    }

    /// Writes the list down; `head..expected` is where packets may be missing.
    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>, head: u64, expected: u64) {
        // The level is that of the packet filter, and how often follows from the mode.
        let Self { missing, fresh, reordering, repeats, arq: _, is_repeated: _ } = self;
        missing.snapshot(to, head, expected);
        to.size(fresh.len());
        fresh.iter().for_each(|fresh| fresh.snapshot(to));
        reordering.snapshot(to);
        repeats.snapshot(to);
    }

    /// Reads what [`snapshot`](Self::snapshot) has written for a receive buffer of `capacity` slots, and a peer of this version.
    pub(crate) fn restore(
        from: &mut SnapshotReader<'_>,
        capacity: usize,
        peer_version: u32,
        (head, expected): (u64, u64),
    ) -> Result<Self, RestoreError> {
        let missing = SequenceSet::restore(from, capacity, head, expected)?;
        let mut fresh = VecDeque::with_capacity(FRESH_MAX);
        for _ in 0..from.size()? {
            let gap = Fresh::restore(from)?;
            valid(fresh.len() < FRESH_MAX && gap.first <= gap.end && gap.end <= expected)?;
            fresh.push_back(gap);
        }
        let reordering = Reordering::restore(from)?;
        let repeats = Repeats::restore(from, peer_version, expected)?;
        Ok(Self { missing, fresh, reordering, repeats, arq: ArqLevel::Always, is_repeated: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::srt::parameters::VERSION;

    fn fresh(losses: &mut ReceiverLosses, head: u64) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| losses.next_fresh(head)).collect()
    }

    #[test]
    fn a_gap_is_fresh_once_and_periodic_until_it_closes() {
        let mut losses = ReceiverLosses::new(64, 0, VERSION);
        losses.gap(5, 9);
        assert!(losses.has_fresh());
        assert_eq!(fresh(&mut losses, 0), [(5, 9)]);
        assert!(!losses.has_fresh());
        assert!(losses.arrived(6));
        assert!(!losses.arrived(6));
        assert_eq!(losses.runs(0, 20).collect::<Vec<_>>(), [(5, 6), (7, 9)]);
        losses.forget(0, 8);
        assert_eq!(losses.runs(8, 20).collect::<Vec<_>>(), [(8, 9)]);
        assert_eq!(losses.len(), 1);
    }

    #[test]
    fn what_came_before_the_first_report_is_not_reported() {
        let mut losses = ReceiverLosses::new(64, 0, VERSION);
        losses.gap(5, 9);
        losses.arrived(5);
        losses.arrived(7);
        assert_eq!(fresh(&mut losses, 0), [(6, 7), (8, 9)]);
    }

    #[test]
    fn a_gap_behind_the_head_is_not_mistaken_for_one_a_ring_later() {
        let mut losses = ReceiverLosses::new(64, 0, VERSION);
        losses.gap(5, 9);
        losses.forget(5, 9);
        losses.gap(64 + 5, 64 + 7);
        assert_eq!(fresh(&mut losses, 40), [(69, 71)]);
    }

    #[test]
    fn a_tolerant_list_waits_for_packets_to_pass() {
        let mut losses = ReceiverLosses::new(64, 2, VERSION);
        losses.gap(1, 2);
        assert!(!losses.has_fresh());
        losses.packet_passed();
        losses.packet_passed();
        assert_eq!(fresh(&mut losses, 0), [(1, 2)]);
    }

    #[test]
    fn a_periodic_report_passes_over_a_gap_that_waits_but_only_once() {
        let mut losses = ReceiverLosses::new(64, 5, VERSION);
        losses.gap(1, 3);
        (0..5).for_each(|_| losses.packet_passed());
        assert_eq!(fresh(&mut losses, 0), [(1, 3)]);
        losses.gap(8, 9);
        assert_eq!(losses.periodic_report(20), 8);
        losses.gap(12, 13);
        assert_eq!(losses.periodic_report(20), 12);
        assert_eq!(losses.periodic_report(20), 20);
        assert_eq!(losses.next_run(0, 12), Some((1, 3)));
    }

    #[test]
    fn tolerance_follows_the_distances_of_late_and_forgets_them() {
        let mut losses = ReceiverLosses::new(64, 20, VERSION);
        let pass = |losses: &mut ReceiverLosses, packets: u16| {
            (0..packets).for_each(|_| losses.packet_passed());
            losses.reorder_tolerance()
        };
        assert_eq!(losses.reorder_tolerance(), 20, "nothing is known yet");
        losses.reordered(3);
        assert_eq!(pass(&mut losses, REORDER_SPAN), 20);
        losses.reordered(7);
        assert_eq!(pass(&mut losses, REORDER_SPAN), 8);
        losses.reordered(400);
        assert_eq!(losses.reorder_tolerance(), 20, "no more than is allowed");
        assert_eq!(pass(&mut losses, 2 * REORDER_SPAN), 0);
        losses.gap(1, 2);
        assert!(losses.has_fresh(), "on a path that keeps the order a gap is a loss");
    }

    #[test]
    fn after_a_burst_of_losses_that_has_come_or_is_forgotten_the_next_one_is_repeated() {
        let ends: [fn(&mut ReceiverLosses); 2] =
            [|losses| (0..600).for_each(|n| assert!(losses.arrived(2 * n))), |losses| losses.forget(0, 1_200)];
        for end in ends {
            let mut losses = ReceiverLosses::new(1 << 12, 0, VERSION);
            let (now, round_trip) = (Instant::from_millis(1_000), RoundTrip::default());
            for n in 0..600 {
                losses.gap(2 * n, 2 * n + 1);
                losses.reported(now, (2 * n, 2 * n + 1), &round_trip);
            }
            end(&mut losses);
            assert_eq!(losses.repeat_at(), Instant::FAR_FUTURE);
            let later = Instant::from_millis(9_000);
            losses.gap(2_000, 2_001);
            losses.reported(later, (2_000, 2_001), &round_trip);
            assert!(losses.repeat_at() > later, "not one of the burst");
            assert_eq!(losses.next_repeat(losses.repeat_at(), 1_300, &round_trip), Some((2_000, 2_001)));
        }
    }

    #[test]
    fn ten_thousand_gaps_take_no_more_room_than_one() {
        let mut losses = ReceiverLosses::new(1 << 15, 0, VERSION);
        for n in 0..10_000 {
            losses.gap(3 * n, 3 * n + 1);
        }
        assert_eq!(losses.len(), 10_000);
        assert_eq!(fresh(&mut losses, 0).len(), FRESH_MAX);
        assert_eq!(losses.runs(0, 30_000).count(), 10_000);
    }
}
