//! The send buffer: packets stay here until the peer has them or nobody would wait for them any more.
//!
//! A ring of slots, one per sequence number, their bytes in one piece of memory:
//!
//! ```text
//!       first               next_unsent             end
//!         │ sent, some lost      │ waiting             │ free …
//!   ──────┴──────────────────────┴─────────────────────┴────────
//! ```

use super::packet::KeyFlag;
use super::sequence_set::SequenceSet;
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, snapshot_fields, valid};
use crate::base::Instant;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    submitted: Instant,
    sent: Instant,
    length: u16,
    retransmitted: bool,
    key: KeyFlag,
}

/// A packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// Its unwrapped number.
    pub sequence: u64,
    /// When it was handed in: what its time stamp tells.
    pub submitted: Instant,
    /// The key its payload is under.
    pub key: KeyFlag,
    /// Whether it has been sent before.
    pub retransmitted: bool,
    /// The payload.
    pub payload: &'a [u8],
}

/// The ring.
#[derive(Debug)]
pub struct SendBuffer {
    bytes: Box<[u8]>,
    slots: Box<[Slot]>,
    stride: usize,
    lost: SequenceSet,
    first: u64,
    next_unsent: u64,
    end: u64,
    limit: usize,
}

impl SendBuffer {
    /// An empty ring of `capacity` packets of up to `payload_max` bytes each whose first packet gets number `first`.
    /// Allocates all it will ever need.
    pub fn new(capacity: usize, payload_max: usize, first: u64) -> Self {
        let slots = capacity.max(64).next_power_of_two();
        Self {
            bytes: vec![0; slots * payload_max].into_boxed_slice(),
            slots: vec![Slot::default(); slots].into_boxed_slice(),
            stride: payload_max,
            lost: SequenceSet::new(slots),
            first,
            next_unsent: first,
            end: first,
            limit: capacity.max(1),
        }
    }

    /// Packets in it.
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.first) as usize
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.end == self.first
    }

    /// The oldest number that the peer has not acknowledged and that has not been given up.
    #[inline]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number to be sent next for the first time: one past the last that was sent.
    #[inline]
    pub fn next_unsent(&self) -> u64 {
        self.next_unsent
    }

    /// Packets sent and not acknowledged.
    #[inline]
    pub fn in_flight(&self) -> usize {
        (self.next_unsent - self.first) as usize
    }

    /// Whether packets wait to be sent for the first time.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        self.next_unsent != self.end
    }

    /// Whether packets wait to be sent again.
    #[inline]
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Packets that wait to be sent again.
    #[inline]
    pub fn lost(&self) -> usize {
        self.lost.len()
    }

    /// Whether it takes no more.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// The largest payload, in bytes.
    #[inline]
    pub fn payload_max(&self) -> usize {
        self.stride
    }

    #[inline]
    fn index(&self, sequence: u64) -> usize {
        sequence as usize & (self.slots.len() - 1)
    }

    /// The number that the next packet gets.
    #[inline]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Takes in a packet of `length` bytes, which `fill` writes and, where keys are in use, encrypts: it returns the key that
    /// they are under. `false` when the buffer is full or the packet too long.
    pub fn push(&mut self, now: Instant, length: usize, fill: impl FnOnce(&mut [u8]) -> KeyFlag) -> bool {
        if self.is_full() || length > self.stride {
            return false;
        }
        let index = self.index(self.end);
        let key = fill(&mut self.bytes[index * self.stride..][..length]);
        self.slots[index] =
            Slot { submitted: now, sent: Instant::ZERO, length: length as u16, retransmitted: false, key };
        self.end += 1;
        true
    }

    /// The peer has all before `sequence`. Ignored when it cannot be; returns whether it can.
    pub fn acknowledge(&mut self, sequence: u64) -> bool {
        if sequence > self.next_unsent {
            return false;
        }
        self.advance(sequence);
        true
    }

    fn advance(&mut self, sequence: u64) {
        if sequence > self.first {
            self.lost.remove_range(self.first, sequence);
            self.first = sequence;
        }
    }

    /// The peer misses all from `first` up to, not including, `end`, which must have been sent and not been given up.
    /// Returns how many were not known to be lost.
    pub fn lose(&mut self, first: u64, end: u64) -> usize {
        let (first, end) = (first.max(self.first), end.min(self.next_unsent));
        if first < end { self.lost.insert_range(first, end) } else { 0 }
    }

    /// The oldest lost packet, not lost any more. One that was sent again after `not_since` is passed over: its retransmission
    /// may still be under way (libsrt: `SRTO_RETRANSMITALGO` 1).
    pub fn next_retransmission(&mut self, now: Instant, not_since: Instant) -> Option<u64> {
        while let Some(sequence) = self.lost.next(self.first, self.next_unsent) {
            self.lost.remove(sequence);
            let index = self.index(sequence);
            let slot = &mut self.slots[index];
            if slot.retransmitted && slot.sent >= not_since {
                continue;
            }
            slot.retransmitted = true;
            slot.sent = now;
            return Some(sequence);
        }
        None
    }

    /// The next packet to be sent for the first time.
    pub fn next_new(&mut self, now: Instant) -> Option<Outgoing<'_>> {
        if !self.has_unsent() {
            return None;
        }
        let sequence = self.next_unsent;
        self.next_unsent += 1;
        let index = self.index(sequence);
        self.slots[index].sent = now;
        Some(self.outgoing(sequence))
    }

    /// The packet with this number, which is in the buffer.
    pub fn outgoing(&self, sequence: u64) -> Outgoing<'_> {
        let index = self.index(sequence);
        let slot = &self.slots[index];
        Outgoing {
            sequence,
            submitted: slot.submitted,
            key: slot.key,
            retransmitted: slot.retransmitted,
            payload: &self.bytes[index * self.stride..][..usize::from(slot.length)],
        }
    }

    /// When the oldest packet was handed in.
    #[inline]
    pub fn oldest(&self) -> Option<Instant> {
        (!self.is_empty()).then(|| self.slots[self.index(self.first)].submitted)
    }

    /// Gives up all handed in up to `until`, sent or not. Returns how many.
    pub fn drop_until(&mut self, until: Instant) -> u64 {
        let mut sequence = self.first;
        while sequence < self.end && self.slots[self.index(sequence)].submitted <= until {
            sequence += 1;
        }
        let dropped = sequence - self.first;
        self.advance(sequence);
        self.next_unsent = self.next_unsent.max(sequence);
        dropped
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        // Capacity and longest payload are the connection's.
        let Self { bytes: _, slots, stride: _, lost, first, next_unsent, end, limit: _ } = self;
        to.count(*first);
        to.count(*next_unsent);
        to.count(*end);
        lost.snapshot(to, *first, *next_unsent);
        for sequence in *first..*end {
            slots[self.index(sequence)].snapshot(to);
            to.bytes(self.outgoing(sequence).payload);
        }
    }

    pub(crate) fn restore(
        from: &mut SnapshotReader<'_>,
        capacity: usize,
        payload_max: usize,
    ) -> Result<Self, RestoreError> {
        let (first, next_unsent, end) = (from.count()?, from.count()?, from.count()?);
        valid(first <= next_unsent && next_unsent <= end && end - first <= capacity as u64)?;
        let mut buffer = Self::new(capacity, payload_max, first);
        (buffer.next_unsent, buffer.end) = (next_unsent, end);
        buffer.lost = SequenceSet::restore(from, buffer.slots.len(), first, next_unsent)?;
        for sequence in first..end {
            let index = buffer.index(sequence);
            let slot = Slot::restore(from)?;
            let payload = from.bytes()?;
            valid(payload.len() == usize::from(slot.length) && payload.len() <= payload_max)?;
            buffer.slots[index] = slot;
            buffer.bytes[index * buffer.stride..][..payload.len()].copy_from_slice(payload);
        }
        Ok(buffer)
    }
}

impl Slot {
    snapshot_fields! { instant submitted, instant sent, u16 length, bool retransmitted, key_flag key }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn push(buffer: &mut SendBuffer, ms: u64, payload: &[u8]) -> bool {
        buffer.push(at(ms), payload.len(), |bytes| {
            bytes.copy_from_slice(payload);
            KeyFlag::Plain
        })
    }

    fn filled(count: u64) -> SendBuffer {
        let mut buffer = SendBuffer::new(64, 8, 100);
        for n in 0..count {
            let bytes = (n as u32).to_be_bytes();
            assert!(push(&mut buffer, n, &bytes));
        }
        buffer
    }

    #[test]
    fn packets_go_out_once_and_leave_when_acknowledged() {
        let mut buffer = filled(3);
        let sent: Vec<_> =
            std::iter::from_fn(|| buffer.next_new(at(9)).map(|p| (p.sequence, p.payload.to_vec()))).collect();
        assert_eq!(sent, [(100, vec![0, 0, 0, 0]), (101, vec![0, 0, 0, 1]), (102, vec![0, 0, 0, 2])]);
        assert_eq!(buffer.in_flight(), 3);
        assert!(buffer.acknowledge(102));
        assert_eq!((buffer.len(), buffer.first()), (1, 102));
        assert!(buffer.acknowledge(101));
        assert_eq!(buffer.first(), 102);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_refused() {
        let mut buffer = filled(3);
        buffer.next_new(at(5));
        assert!(!buffer.acknowledge(102));
        assert_eq!(buffer.len(), 3);
    }

    #[test]
    fn a_lost_packet_is_sent_again_but_not_twice_within_a_round_trip() {
        let mut buffer = filled(3);
        while buffer.next_new(at(3)).is_some() {}
        assert_eq!(buffer.lose(90, 102), 2);
        assert_eq!(buffer.next_retransmission(at(40), at(10)), Some(100));
        assert!(buffer.outgoing(100).retransmitted);
        assert_eq!(buffer.next_retransmission(at(40), at(10)), Some(101));
        assert_eq!(buffer.lose(100, 101), 1);
        assert_eq!(buffer.next_retransmission(at(50), at(20)), None);
        assert_eq!(buffer.lose(100, 101), 1);
        assert!(buffer.next_retransmission(at(80), at(50)).is_some());
        assert!(!buffer.has_lost());
    }

    #[test]
    fn a_loss_of_what_was_never_sent_is_nothing() {
        let mut buffer = filled(3);
        buffer.next_new(at(5));
        assert_eq!(buffer.lose(100, u64::MAX), 1);
        assert_eq!(buffer.lose(101, 103), 0);
    }

    #[test]
    fn a_full_buffer_refuses_and_old_packets_are_given_up() {
        let mut buffer = filled(64);
        assert!(!push(&mut buffer, 99, &[0; 4]));
        for _ in 0..5 {
            buffer.next_new(at(64));
        }
        buffer.lose(100, 105);
        assert_eq!(buffer.drop_until(at(9)), 10);
        assert!(!buffer.has_lost());
        assert_eq!(buffer.next_new(at(65)).map(|p| p.sequence), Some(110));
        assert!(!push(&mut buffer, 99, &[0; 9]));
        assert_eq!(buffer.oldest(), Some(at(10)));
    }
}
