//! That everything is recovered that can be, as books that are kept of a conversation. A packet may be lost for good only because the
//! network let none of its copies through in time, though both ends did what they owe:
//!
//! 1. What comes is delivered. A data packet of the peer's is refused only when it was delivered or given up before, is in the
//!    buffer, lies beyond the buffer, or is under a key that has not come yet; and whatever is taken in is handed up.
//! 2. What is missing is asked for, within one reporting period of the moment at which a later packet showed it (two where gaps are
//!    given time to close by themselves), and again within each period until it comes, is given up, or the sender says that it
//!    will not send it.
//! 3. What is asked for is sent at once, unless it was acknowledged, is too old to be of use, or was sent less than a round trip
//!    ago, so that it may be under way.
//!
//! That nothing is given up before its time, the conversation checks itself: a payload behind a gap never comes before it is due.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use headworks::protocol::srt::acknowledgement::RoundTrip;
use headworks::protocol::srt::control::Control;
use headworks::protocol::srt::packet::{self, HEADER_LEN, Header, SequenceNumber};
use headworks::protocol::srt::statistics::Statistics;

use crate::conversation::Script;
use crate::link::MS;

/// Reporting periods of so many round trips back may still be running.
const PERIODS: usize = 64;

pub struct Recovery {
    first: u64,
    capacity: u64,
    is_encrypted: bool,
    is_tolerant: bool,
    /// How late the receiver may be: its turn.
    turn: u64,
    /// When the sender gives up what was submitted.
    too_late: u64,
    /// By index: taken in, and when last sent.
    taken: Vec<bool>,
    sent_at: Vec<Option<u64>>,
    /// One past the highest that was taken in, and the first not yet handed up or given up.
    expected: u64,
    head: u64,
    /// What the receiver misses: since when each has been waiting to be asked for, and for how many periods it may.
    missing: BTreeMap<u64, (u64, u64)>,
    /// The receiver's round trip, from the same measurements, and the reporting periods that followed from it.
    round_trip: RoundTrip,
    periods: VecDeque<u64>,
    acknowledgements: BTreeMap<u32, u64>,
    /// What the sender has been asked for in this moment, and what it knows to be there.
    asked: Vec<(u64, u64)>,
    acknowledged: u64,
}

impl Recovery {
    pub fn new(script: &Script) -> Self {
        let round_trip = RoundTrip::default();
        Self {
            first: script.initial_sequence,
            capacity: script.receive_buffer_packets.max(64).next_power_of_two() as u64,
            is_encrypted: script.encryption.is_some(),
            is_tolerant: script.reorder_tolerance > 0,
            turn: script.turn,
            too_late: u64::from(script.latency_ms).max(1_000) * MS + 20 * MS,
            taken: vec![false; script.packets as usize],
            sent_at: vec![None; script.packets as usize],
            expected: 0,
            head: 0,
            missing: BTreeMap::new(),
            periods: VecDeque::from([round_trip.nak_interval().as_nanos() as u64]),
            round_trip,
            acknowledgements: BTreeMap::new(),
            asked: Vec::new(),
            acknowledged: 0,
        }
    }

    fn index(&self, sequence: SequenceNumber) -> u64 {
        sequence.distance(SequenceNumber::new(self.first)).max(0) as u64
    }

    fn resolved(&self, index: u64, (since, periods): (u64, u64), now: u64) {
        // The round trip may have become longer meanwhile, and shorter.
        let period = self.periods.iter().max().expect("never empty");
        let by = since + periods * (period + self.turn + MS);
        assert!(now <= by, "packet {index} was not asked for in time: since {since}, and it is {now}");
    }

    /// A datagram has come to the receiver, at `at`, and it has been shown it now; what it had counted before and counts after it.
    pub fn heard(&mut self, now: u64, at: u64, bytes: &[u8], before: &Statistics, after: &Statistics) {
        match packet::parse(bytes) {
            Ok(Header::Data(header)) if after.pkt_recv > before.pkt_recv => {
                let index = self.index(header.sequence);
                self.judge(now, index, before, after);
            }
            Ok(Header::Control(header)) => match Control::parse(&header, &bytes[HEADER_LEN..]) {
                Ok(Control::DropRequest(request)) if after.pkt_recv_drop_request > before.pkt_recv_drop_request => {
                    let last = request.range.last().distance(SequenceNumber::new(self.first));
                    if last >= 0 {
                        let end = last as u64 + 1;
                        let from = self.index(request.range.first());
                        self.missing.retain(|&index, _| index < from || index >= end);
                        self.expected = self.expected.max(end);
                    }
                }
                Ok(Control::AcknowledgementReceipt { number }) if after.pkt_recv_ackack > before.pkt_recv_ackack => {
                    let sent = self.acknowledgements.remove(&number).expect("it was sent");
                    self.round_trip.add_sample(((at - sent) / 1_000) as u32);
                    self.periods.push_back(self.round_trip.nak_interval().as_nanos() as u64);
                    if self.periods.len() > PERIODS {
                        self.periods.pop_front();
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn judge(&mut self, now: u64, index: u64, before: &Statistics, after: &Statistics) {
        if after.sequence_jumps > before.sequence_jumps {
            self.missing.clear();
            (self.head, self.expected) = (index, index);
        }
        if after.pkt_recv_unique > before.pkt_recv_unique {
            assert!(!std::mem::replace(&mut self.taken[index as usize], true), "packet {index} was taken in twice");
            if index >= self.expected {
                let waits = (now, if self.is_tolerant { 2 } else { 1 });
                self.missing.extend((self.expected..index).map(|missing| (missing, waits)));
                self.expected = index + 1;
            } else if let Some(waits) = self.missing.remove(&index) {
                self.resolved(index, waits, now);
            }
            return;
        }
        let is_known = index < self.head || self.taken[index as usize];
        let may_be_refused = if after.pkt_rcv_duplicate > before.pkt_rcv_duplicate {
            self.taken[index as usize]
        } else if after.pkt_rcv_belated > before.pkt_rcv_belated {
            is_known
        } else if after.pkt_rcv_no_room > before.pkt_rcv_no_room {
            index >= self.head + self.capacity
        } else {
            after.pkt_rcv_undecrypt > before.pkt_rcv_undecrypt && self.is_encrypted
        };
        assert!(
            may_be_refused,
            "packet {index} was refused though it was of use; all before {} are done with",
            self.head
        );
    }

    /// The receiver sends this.
    pub fn told(&mut self, now: u64, bytes: &[u8]) {
        let Ok(Header::Control(header)) = packet::parse(bytes) else { panic!("a receiver sends no data") };
        match Control::parse(&header, &bytes[HEADER_LEN..]) {
            Ok(Control::Acknowledgement(ack)) => {
                self.acknowledgements.insert(ack.number, now);
            }
            Ok(Control::LossReport(report)) => {
                for range in report.ranges() {
                    let named = self.index(range.first())..=self.index(range.last());
                    for (&index, &waits) in self.missing.range(named.clone()) {
                        self.resolved(index, waits, now);
                    }
                    self.missing.range_mut(named).for_each(|(_, waits)| *waits = (now, 1));
                }
            }
            _ => {}
        }
    }

    /// The peer has moved, and the next measurement replaces what was measured.
    pub fn moved(&mut self) {
        self.round_trip.path_changed();
    }

    /// The receiver hands up packet `index`, and has given up `lost` before it.
    pub fn delivered(&mut self, now: u64, index: u64, lost: u64) {
        for given_up in index - lost..index {
            assert!(!self.taken[given_up as usize], "packet {given_up} has come, and was given up");
        }
        assert!(self.taken[index as usize]);
        self.head = index + 1;
        let still = self.missing.split_off(&self.head);
        for (index, waits) in std::mem::replace(&mut self.missing, still) {
            self.resolved(index, waits, now);
        }
    }

    /// The sender sends packet `index`.
    pub fn sent(&mut self, now: u64, sequence: SequenceNumber) {
        let index = self.index(sequence) as usize;
        self.sent_at[index] = Some(now);
    }

    /// The sender has heard this from its peer.
    pub fn sender_heard(&mut self, bytes: &[u8]) {
        let Ok(Header::Control(header)) = packet::parse(bytes) else { panic!("a receiver sends no data") };
        match Control::parse(&header, &bytes[HEADER_LEN..]) {
            Ok(Control::Acknowledgement(ack)) => self.acknowledged = self.acknowledged.max(self.index(ack.next)),
            Ok(Control::LossReport(report)) => {
                let ranges = report.ranges().map(|range| (self.index(range.first()), self.index(range.last())));
                self.asked.extend(ranges.collect::<Vec<_>>());
            }
            _ => {}
        }
    }

    /// The sender has sent all that it has to in this moment; `submitted` says when each payload was handed in.
    pub fn sender_is_done(&mut self, now: u64, submitted: &[u64], round_trip: Duration) {
        for (first, last) in std::mem::take(&mut self.asked) {
            for index in first.max(self.acknowledged)..=last {
                let sent = self.sent_at[index as usize].expect("only what was sent is asked for");
                let is_of_use = submitted[index as usize] + self.too_late > now + MS;
                let is_under_way = now <= sent + round_trip.as_nanos() as u64 + MS;
                assert!(!is_of_use || is_under_way, "packet {index} was asked for at {now}, and last sent at {sent}");
            }
        }
    }

    /// At the end nothing that was taken in is still held.
    pub fn finish(&self) {
        assert!(!self.taken[self.head as usize..].contains(&true), "what was taken in is handed up");
    }
}
