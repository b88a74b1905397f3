//! What is missing: the receiver's list of lost packets, and what of it is to be reported now.
//!
//! The sender's list is in [`SendBuffer`](super::send_buffer::SendBuffer): there a lost packet is one to send again.

use std::collections::VecDeque;

use super::fec::configuration::ArqLevel;
use super::sequence_set::SequenceSet;

/// Gaps that may wait for their first report; what does not fit waits for the periodic one.
const FRESH_MAX: usize = 64;

/// A gap not yet reported: all from `first` up to, not including, `end`.
#[derive(Debug, Clone, Copy)]
struct Fresh {
    first: u64,
    end: u64,
    /// How many packets may still pass before it counts as lost, not reordered.
    patience: u16,
}

/// The receiver's loss list (draft-sharabayko-srt §4.8.2): one bit per number between the head and the end of the receive
/// buffer. Its size does not depend on what the peer does.
#[derive(Debug)]
pub struct ReceiverLosses {
    missing: SequenceSet,
    fresh: VecDeque<Fresh>,
    /// How many packets a gap is given to close by itself (libsrt: `SRTO_LOSSMAXTTL`); 0 reports at once.
    reorder_tolerance: u16,
    /// What a packet filter leaves to be reported; all of it without one.
    arq: ArqLevel,
}

impl ReceiverLosses {
    /// An empty list for a receive buffer of `capacity` slots.
    pub fn new(capacity: usize, reorder_tolerance: u16) -> Self {
        let fresh = VecDeque::with_capacity(FRESH_MAX);
        Self { missing: SequenceSet::new(capacity), fresh, reorder_tolerance, arq: ArqLevel::Always }
    }

    /// With a packet filter, which leaves only some of it to be reported.
    pub fn behind_filter(self, arq: ArqLevel) -> Self {
        Self { arq, ..self }
    }

    /// Whether what is missing is reported again and again: libsrt does not behind a filter that is to be given time.
    #[inline]
    pub fn is_repeated(&self) -> bool {
        self.arq == ArqLevel::Always
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
            self.fresh.push_back(Fresh { first, end, patience: self.reorder_tolerance });
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
            _ => self.fresh.push_back(Fresh { first, end, patience: 0 }),
        }
    }

    /// `sequence` has come; whether it was missing.
    #[inline]
    pub fn arrived(&mut self, sequence: u64) -> bool {
        !self.missing.is_empty() && self.missing.remove(sequence)
    }

    /// A packet has come: gaps that wait have waited for one more.
    #[inline]
    pub fn packet_passed(&mut self) {
        if self.reorder_tolerance != 0 {
            self.fresh.iter_mut().for_each(|fresh| fresh.patience = fresh.patience.saturating_sub(1));
        }
    }

    /// Nobody wants these any more: the buffer has moved on, or the sender has dropped them.
    pub fn forget(&mut self, first: u64, end: u64) {
        self.missing.remove_range(first, end);
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

    /// All that is missing in `head..end`, oldest first: for the periodic report.
    pub fn runs(&self, head: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut from = head;
        std::iter::from_fn(move || {
            let run = self.missing.next_run(from, end)?;
            from = run.1;
            Some(run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(losses: &mut ReceiverLosses, head: u64) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| losses.next_fresh(head)).collect()
    }

    #[test]
    fn a_gap_is_fresh_once_and_periodic_until_it_closes() {
        let mut losses = ReceiverLosses::new(64, 0);
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
        let mut losses = ReceiverLosses::new(64, 0);
        losses.gap(5, 9);
        losses.arrived(5);
        losses.arrived(7);
        assert_eq!(fresh(&mut losses, 0), [(6, 7), (8, 9)]);
    }

    #[test]
    fn a_gap_behind_the_head_is_not_mistaken_for_one_a_ring_later() {
        let mut losses = ReceiverLosses::new(64, 0);
        losses.gap(5, 9);
        losses.forget(5, 9);
        losses.gap(64 + 5, 64 + 7);
        assert_eq!(fresh(&mut losses, 40), [(69, 71)]);
    }

    #[test]
    fn a_tolerant_list_waits_for_packets_to_pass() {
        let mut losses = ReceiverLosses::new(64, 2);
        losses.gap(1, 2);
        assert!(!losses.has_fresh());
        losses.packet_passed();
        losses.packet_passed();
        assert_eq!(fresh(&mut losses, 0), [(1, 2)]);
    }

    #[test]
    fn ten_thousand_gaps_take_no_more_room_than_one() {
        let mut losses = ReceiverLosses::new(1 << 15, 0);
        for n in 0..10_000 {
            losses.gap(3 * n, 3 * n + 1);
        }
        assert_eq!(losses.len(), 10_000);
        assert_eq!(fresh(&mut losses, 0).len(), FRESH_MAX);
        assert_eq!(losses.runs(0, 30_000).count(), 10_000);
    }
}
