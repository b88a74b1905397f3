//! What a bonding group asks of the receiver of one of its legs (see [`group`](crate::protocol::srt::group)): to begin in the middle of a
//! stream, to share a time, and to let go of what another leg has brought.

use super::{ReceiveBuffer, Receiver};
use crate::base::Instant;
use crate::media::Payload;
use crate::protocol::srt::delivery_time::DeliveryTime;
use crate::protocol::srt::packet::SequenceNumber;
use crate::protocol::srt::receive_buffer::Place;
use crate::protocol::srt::statistics::Statistics;

impl Receiver {
    /// Begins at `next`, the number that the group awaits, instead of at the one in the handshake, and with the group's time. Nothing has come yet.
    ///
    /// Nothing is acknowledged before something comes: libsrt takes an acknowledgement of what it has not sent over a leg for an attack.
    pub fn join(&mut self, next: u64, leader: &DeliveryTime) {
        self.buffer = ReceiveBuffer::new(self.buffer.capacity(), next);
        (self.delivered, self.given_up_end, self.expected) = (next, 0, next);
        (self.acknowledged, self.confirmed) = (next, next);
        (self.reported_end, self.report_until) = (next, next);
        self.time.follow(leader);
    }

    /// Begins anew at `next`, since what lies before it came by other legs, and more of it than the buffer is wide. Only while nothing is held.
    pub fn catch_up(&mut self, next: u64) {
        self.losses.forget(self.buffer.head(), self.expected);
        self.buffer.skip_to(next);
        self.expected = self.expected.max(next);
        (self.delivered, self.acknowledged, self.confirmed) = (next, next, next);
    }

    /// When packets are due.
    pub fn time(&self) -> &DeliveryTime {
        &self.time
    }

    /// Shares the time of another leg.
    pub fn follow(&mut self, leader: &DeliveryTime) {
        if self.time.follow(leader) {
            self.schedule();
        }
    }

    /// The drift of the group is taken from this leg.
    pub fn lead(&mut self) {
        self.time.lead();
    }

    /// The handshake's time stamp was of another clock than the packets': the time is taken from this first one, unless it is of now.
    pub fn anchor(&mut self, timestamp_us: u32, arrival: Instant) {
        if !self.is_of_now(timestamp_us, arrival) {
            self.time.anchor(timestamp_us, arrival);
        }
    }

    /// The number awaited next.
    pub fn head(&self) -> u64 {
        self.buffer.head()
    }

    /// One past the highest number that came.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// How many numbers the buffer spans.
    pub fn span(&self) -> u64 {
        self.buffer.capacity() as u64
    }

    /// The number of the first packet that is held.
    #[inline]
    pub fn first_held(&self) -> Option<u64> {
        self.buffer.first().map(|(sequence, _)| sequence)
    }

    /// Whether this packet is held.
    #[inline]
    pub fn holds(&self, sequence: u64) -> bool {
        sequence
            .checked_sub(self.buffer.head())
            .is_some_and(|offset| matches!(self.buffer.place(offset as i64), Place::Duplicate))
    }

    /// A packet that is not here came by another leg: it is not asked for any more. Whether it had been missing.
    #[inline]
    pub fn came_elsewhere(&mut self, sequence: u64) -> bool {
        sequence >= self.buffer.head() && self.losses.arrived(sequence)
    }

    /// Hands up the first packet there is, whatever is missing before it: when it is due, or when the group awaits it.
    #[inline]
    pub fn take_first(&mut self, statistics: &mut Statistics) -> Option<Payload> {
        self.take(statistics)
    }

    /// All before `next` has been handed up by the group, or given up at all legs. What this leg holds of it goes; what it misses of it is
    /// not asked for any more. Only as far as this leg has come itself: acknowledged is never what the peer has not sent here.
    /// Returns how many of its packets had been missing.
    #[inline]
    pub fn settle(&mut self, next: u64, due: Instant, given_up: bool) -> u64 {
        let target = next.min(self.expected);
        if self.buffer.head() >= target { 0 } else { self.let_go(target, due, given_up) }
    }

    fn let_go(&mut self, target: u64, due: Instant, given_up: bool) -> u64 {
        let head = self.buffer.head();
        let missing = self.losses.len();
        self.losses.forget(head, target);
        while self.first_held().is_some_and(|first| first < target) {
            self.buffer.take_first();
        }
        self.buffer.skip_to(target);
        self.delivered = target;
        if given_up {
            self.given_up_end = target;
        }
        self.handed_up_due = self.handed_up_due.max(due);
        self.schedule();
        (missing - self.losses.len()) as u64
    }

    /// Where a number stands that is at most half of the numbers away from `reference`; `None` if that is before all numbers.
    pub fn unwrap_near(sequence: SequenceNumber, reference: u64) -> Option<u64> {
        reference.checked_add_signed(sequence.distance(SequenceNumber::new(reference)))
    }
}
