//! Who was refused of late, and how often for which reason: one shard's book, for the log, the API and metrics.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::access::Denial;
use crate::base::{Allowance, Instant};
use crate::protocol::srt::handshake::RejectReason;

/// Refusals that are remembered; the one that was not repeated for longest makes room.
const REFUSALS_MAX: usize = 64;

/// One source that was refused one stream for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it called from; its port may be another each time.
    pub address: IpAddr,
    /// Its Stream ID, as it came.
    pub stream_id: String,
    /// What it was told.
    pub reason: RejectReason,
    /// What that means here.
    pub why: String,
    /// How often.
    pub count: u64,
    /// When for the first time.
    pub first: Instant,
    /// When last.
    pub last: Instant,
}

/// The book.
#[derive(Debug)]
pub struct Refusals {
    recent: VecDeque<Refusal>,
    by_code: BTreeMap<u32, u64>,
    /// For the log: who is refused can come again at once, and as anybody.
    allowance: Allowance,
}

impl Refusals {
    /// An empty one.
    pub fn new(now: Instant) -> Self {
        let recent = VecDeque::with_capacity(REFUSALS_MAX);
        Self { recent, by_code: BTreeMap::new(), allowance: Allowance::new(now) }
    }

    /// Writes a refusal down, and into the log unless there are too many.
    pub fn note(&mut self, now: Instant, peer: SocketAddr, stream_id: &str, denial: Denial) {
        let Denial { reason, why } = denial;
        *self.by_code.entry(reason.code()).or_default() += 1;
        match self.allowance.take(now) {
            None => {}
            Some(0) => tracing::warn!(stream_id, %peer, "SRT caller refused: {reason}: {why}"),
            Some(withheld) => tracing::warn!(
                stream_id,
                %peer,
                "SRT caller refused: {reason}: {why} ({withheld} refusals before this one are not in the log)"
            ),
        }
        let address = peer.ip().to_canonical();
        let is_same = |it: &Refusal| it.address == address && it.reason == reason && it.stream_id == stream_id;
        let known = self.recent.iter().position(is_same).and_then(|place| self.recent.remove(place));
        if known.is_none() && self.recent.len() == REFUSALS_MAX {
            self.recent.pop_front();
        }
        let before = known.map_or((0, now), |it| (it.count, it.first));
        let (count, first) = (before.0 + 1, before.1);
        self.recent.push_back(Refusal {
            address,
            stream_id: stream_id.to_owned(),
            reason,
            why,
            count,
            first,
            last: now,
        });
    }

    /// The last refusals, the newest last.
    pub fn recent(&self) -> impl Iterator<Item = &Refusal> {
        self.recent.iter()
    }

    /// How many there were for each reason.
    pub fn by_reason(&self) -> Vec<(RejectReason, u64)> {
        self.by_code.iter().map(|(code, count)| (RejectReason::from_code(*code), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_counted_and_the_oldest_makes_room() {
        let mut refusals = Refusals::new(Instant::from_millis(0));
        let denial = |reason| Denial::new(reason, "so");
        let peer = |port| SocketAddr::from(([10, 0, 0, 1], port));
        for port in 0..5 {
            refusals.note(Instant::from_millis(u64::from(port)), peer(port), "cam1", denial(RejectReason::Forbidden));
        }
        refusals.note(Instant::from_millis(9), peer(1), "cam1", denial(RejectReason::Overload));
        let counts: Vec<_> = refusals.recent().map(|it| (it.reason.code(), it.count, it.first, it.last)).collect();
        let at = Instant::from_millis;
        assert_eq!(counts, [(1403, 5, at(0), at(4)), (1402, 1, at(9), at(9))]);
        assert_eq!(refusals.by_reason(), [(RejectReason::Overload, 1), (RejectReason::Forbidden, 5)]);
        for number in 0..REFUSALS_MAX as u64 {
            let name = format!("other{number}");
            refusals.note(at(10 + number), peer(1), &name, denial(RejectReason::NotFound));
        }
        assert_eq!(refusals.recent().count(), REFUSALS_MAX);
        assert!(refusals.recent().all(|it| it.reason == RejectReason::NotFound));
    }
}
