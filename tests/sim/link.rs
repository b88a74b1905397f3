//! One direction of a bad network.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use headworks::protocol::srt::control::ControlType;
use headworks::protocol::srt::packet::{self, HEADER_LEN, Header};

use crate::random::Random;

pub const MS: u64 = 1_000_000;

/// The port that a sender has as long as it does not move.
pub const PORT: u16 = 9_000;

/// Datagrams under way: when they arrive, the order they were sent in, whether they go to the receiver, the port at the other end,
/// their bytes.
pub type InFlight = BinaryHeap<Reverse<(u64, u64, bool, u16, Vec<u8>)>>;

/// How bad.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// One way, in ns.
    pub delay: u64,
    /// Up to this is added to each delay, without changing the order, in ns.
    pub jitter: u64,
    /// Packets lost at random, per million.
    pub loss: u32,
    /// Chance per packet, per million, that the link is interrupted; then every packet is lost.
    pub burst: u32,
    /// How long an interruption lasts at most, in ns.
    pub burst_length: u64,
    /// Loss that depends on the packet before.
    pub gilbert_elliott: Option<GilbertElliott>,
    /// Packets held back so that later ones overtake them, per million, and for how long, in ns.
    pub reorder: u32,
    pub reorder_delay: u64,
    /// When that begins, in ns.
    pub reorder_from: u64,
    /// Packets that come twice, per million.
    pub duplicate: u32,
    /// Bits per second of the bottleneck, if any. What would wait longer than `queue` ns is lost.
    pub rate: Option<u64>,
    pub queue: u64,
    /// From … to, in ns: nothing passes.
    pub blackouts: Vec<(u64, u64)>,
}

/// The Gilbert-Elliott model: a good and a bad state, changed before each packet with these chances per million.
#[derive(Clone, Copy, Debug)]
pub struct GilbertElliott {
    pub to_bad: u32,
    pub to_good: u32,
    /// Packets lost in the bad state, per million.
    pub loss: u32,
}

/// Datagrams that a link was given and has not lost, by what is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub data: u64,
    pub data_bytes: u64,
    pub loss_reports: u64,
    pub acknowledgements: u64,
    pub receipts: u64,
}

impl Count {
    pub fn add(&mut self, bytes: &[u8]) {
        match packet::parse(bytes) {
            // Control packets of a packet filter are counted as none of this.
            Ok(Header::Data(header)) if header.message_number == 0 => {}
            Ok(Header::Data(_)) => {
                self.data += 1;
                self.data_bytes += (bytes.len() - HEADER_LEN) as u64;
            }
            Ok(Header::Control(header)) => match header.control_type {
                ControlType::LossReport => self.loss_reports += 1,
                ControlType::Acknowledgement => self.acknowledgements += 1,
                ControlType::AcknowledgementReceipt => self.receipts += 1,
                _ => {}
            },
            Err(malformed) => panic!("{malformed}"),
        }
    }
}

pub struct Link {
    conditions: Conditions,
    random: Random,
    bad_until: u64,
    is_bad: bool,
    free_at: u64,
    last_arrival: u64,
    pub sent: u64,
    pub lost: u64,
}

impl Link {
    pub fn new(conditions: Conditions, random: Random) -> Self {
        Self { conditions, random, bad_until: 0, is_bad: false, free_at: 0, last_arrival: 0, sent: 0, lost: 0 }
    }

    /// When a datagram of `length` bytes sent at `now` arrives: never, once or twice.
    pub fn arrivals(&mut self, now: u64, length: usize) -> [Option<u64>; 2] {
        let conditions = &self.conditions;
        self.sent += 1;
        let random = &mut self.random;
        if now >= self.bad_until && random.per_million(conditions.burst) {
            self.bad_until = now + random.between(conditions.burst_length / 4, conditions.burst_length);
        }
        if let Some(model) = conditions.gilbert_elliott {
            self.is_bad ^= random.per_million(if self.is_bad { model.to_good } else { model.to_bad });
            if self.is_bad && random.per_million(model.loss) {
                self.lost += 1;
                return [None; 2];
            }
        }
        let dark = conditions.blackouts.iter().any(|&(from, to)| (from..to).contains(&now));
        if dark || now < self.bad_until || random.per_million(conditions.loss) {
            self.lost += 1;
            return [None; 2];
        }
        let mut at = now;
        if let Some(rate) = conditions.rate {
            at = at.max(self.free_at);
            if at - now > conditions.queue {
                self.lost += 1;
                return [None; 2];
            }
            at += (length as u64 + 28) * 8 * 1_000_000_000 / rate;
            self.free_at = at;
        }
        at = (at + conditions.delay + random.below(conditions.jitter + 1)).max(self.last_arrival);
        if random.per_million(conditions.reorder) && now >= conditions.reorder_from {
            at += random.between(1, conditions.reorder_delay.max(1));
        } else {
            self.last_arrival = at;
        }
        let again = random.per_million(conditions.duplicate).then(|| at + random.below(5 * MS));
        [Some(at), again]
    }
}
