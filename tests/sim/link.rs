//! One direction of a bad network.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

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
    /// Gilbert-Elliott: chance per packet to enter the bad state, per million; in it every packet is lost.
    pub burst: u32,
    /// How long the bad state lasts at most, in ns.
    pub burst_length: u64,
    /// Packets held back so that later ones overtake them, per million, and for how long, in ns.
    pub reorder: u32,
    pub reorder_delay: u64,
    /// Packets that come twice, per million.
    pub duplicate: u32,
    /// Bits per second of the bottleneck, if any. What would wait longer than `queue` ns is lost.
    pub rate: Option<u64>,
    pub queue: u64,
    /// From … to, in ns: nothing passes.
    pub blackouts: Vec<(u64, u64)>,
}

pub struct Link {
    conditions: Conditions,
    random: Random,
    bad_until: u64,
    free_at: u64,
    last_arrival: u64,
    pub sent: u64,
    pub lost: u64,
}

impl Link {
    pub fn new(conditions: Conditions, random: Random) -> Self {
        Self { conditions, random, bad_until: 0, free_at: 0, last_arrival: 0, sent: 0, lost: 0 }
    }

    /// When a datagram of `length` bytes sent at `now` arrives: never, once or twice.
    pub fn arrivals(&mut self, now: u64, length: usize) -> [Option<u64>; 2] {
        let conditions = &self.conditions;
        self.sent += 1;
        let random = &mut self.random;
        if now >= self.bad_until && random.per_million(conditions.burst) {
            self.bad_until = now + random.between(conditions.burst_length / 4, conditions.burst_length);
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
        if random.per_million(conditions.reorder) {
            at += random.between(1, conditions.reorder_delay.max(1));
        } else {
            self.last_arrival = at;
        }
        let again = random.per_million(conditions.duplicate).then(|| at + random.below(5 * MS));
        [Some(at), again]
    }
}
