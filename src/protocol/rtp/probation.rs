//! Packets of a source that has yet to prove itself (RFC 3550 A.1), held until it does.
//!
//! RFC 3550 lets a receiver drop them; at a contribution feed that is the first frame's beginning. They are held, few and for
//! a short time, and delivered when the source is proven.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::packet::RtpHeader;
use super::sequence::{MAX_MISORDER, MIN_SEQUENTIAL};
use crate::base::{Datagram, Instant};

/// Packets that one source in probation may hold.
pub const MAX_HELD: usize = 32;
/// A source in probation that is silent for so long is forgotten.
pub const PROBATION_TIMEOUT: Duration = Duration::from_secs(2);

/// One source in probation.
#[derive(Debug)]
pub struct Probation {
    ssrc: u32,
    peer: SocketAddr,
    last_sequence: u16,
    /// Length of the current run of consecutive sequence numbers.
    run: u32,
    last_arrival: Instant,
    held: VecDeque<(RtpHeader, Datagram)>,
}

impl Probation {
    /// Starts with a source's first packet.
    fn new(now: Instant, header: RtpHeader, datagram: Datagram) -> Self {
        let mut held = VecDeque::with_capacity(MAX_HELD);
        let peer = datagram.peer;
        held.push_back((header, datagram));
        Self { ssrc: header.ssrc, peer, last_sequence: header.sequence, run: 1, last_arrival: now, held }
    }

    /// Bytes of the packets held.
    pub fn held_bytes(&self) -> u64 {
        self.held.iter().map(|(_, datagram)| datagram.packet.len() as u64).sum()
    }

    /// Whether packets of this source from this peer belong here.
    #[inline]
    pub fn is_of(&self, ssrc: u32, peer: SocketAddr) -> bool {
        self.ssrc == ssrc && self.peer == peer
    }

    /// Starts anew with another source's first packet, in the same memory. Gives the number of packets dropped.
    fn replace(&mut self, now: Instant, header: RtpHeader, datagram: Datagram) -> usize {
        let dropped = self.held.len();
        self.held.clear();
        self.ssrc = header.ssrc;
        self.peer = datagram.peer;
        self.run = 0;
        self.push(now, header, datagram);
        dropped
    }

    /// Takes the next packet of this source. When there are too many, the oldest is dropped; gives whether one was.
    fn push(&mut self, now: Instant, header: RtpHeader, datagram: Datagram) -> bool {
        debug_assert!(self.is_of(header.ssrc, datagram.peer));
        let consecutive = header.sequence == self.last_sequence.wrapping_add(1);
        self.run = if consecutive && self.run > 0 { self.run.saturating_add(1) } else { 1 };
        self.last_sequence = header.sequence;
        self.last_arrival = now;
        let full = self.held.len() == MAX_HELD;
        if full {
            self.held.pop_front();
        }
        self.held.push_back((header, datagram));
        full
    }

    /// Whether enough consecutive packets have come.
    #[inline]
    pub fn is_validated(&self) -> bool {
        self.run >= MIN_SEQUENTIAL
    }

    /// Synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Who sends it.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Number of packets held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// When the source is forgotten if it stays silent.
    pub fn deadline(&self) -> Instant {
        self.last_arrival + PROBATION_TIMEOUT
    }

    /// The sequence number that a proven source starts with: the earliest held one that is close to the last.
    pub(super) fn first_sequence(&self) -> u16 {
        let close = self.held.iter().map(|(header, _)| header).filter(|header| self.is_close(header));
        let earliest = close.map(|header| self.ahead_of_last(header)).min();
        self.last_sequence.wrapping_add_signed(earliest.unwrap_or(0))
    }

    /// Takes out the held packets, in the order they came.
    pub(super) fn pop_front(&mut self) -> Option<(RtpHeader, Datagram)> {
        self.held.pop_front()
    }

    /// Whether a held packet lies close enough to the last one to be of the same sequence.
    pub(super) fn is_close(&self, header: &RtpHeader) -> bool {
        self.ahead_of_last(header).unsigned_abs() < MAX_MISORDER
    }

    fn ahead_of_last(&self, header: &RtpHeader) -> i16 {
        header.sequence.wrapping_sub(self.last_sequence) as i16
    }
}

/// The sources in probation on a port that serves many: bounded, the one silent for longest making room.
#[derive(Debug)]
pub struct Strangers {
    entries: Vec<Probation>,
    limit: usize,
    dropped: u64,
}

impl Strangers {
    /// Room for `limit` sources (at least 1).
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self { entries: Vec::with_capacity(limit), limit, dropped: 0 }
    }

    /// Takes a packet whose SSRC and peer no proven source has. Gives its source's index when that is proven by now; whoever
    /// accepts it [takes](Self::take) it out.
    pub fn receive(&mut self, now: Instant, header: RtpHeader, datagram: Datagram) -> Option<usize> {
        if let Some(index) = self.entries.iter().position(|entry| entry.is_of(header.ssrc, datagram.peer)) {
            let entry = &mut self.entries[index];
            self.dropped += u64::from(entry.push(now, header, datagram));
            return entry.is_validated().then_some(index);
        }
        if self.entries.len() < self.limit {
            self.entries.push(Probation::new(now, header, datagram));
        } else if let Some(oldest) = self.entries.iter_mut().min_by_key(|entry| entry.last_arrival) {
            self.dropped += oldest.replace(now, header, datagram) as u64;
        }
        None
    }

    /// The source at an index that [`receive`](Self::receive) gave.
    pub fn get(&self, index: usize) -> &Probation {
        &self.entries[index]
    }

    /// Takes out the source at an index that [`receive`](Self::receive) gave.
    pub fn take(&mut self, index: usize) -> Probation {
        self.entries.swap_remove(index)
    }

    /// Forgets one source, whose packets turned out to be strays.
    pub fn forget(&mut self, ssrc: u32, peer: SocketAddr) {
        if let Some(index) = self.entries.iter().position(|entry| entry.is_of(ssrc, peer)) {
            self.dropped += self.entries.swap_remove(index).held() as u64;
        }
    }

    /// Forgets the sources that have been silent for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let dropped = &mut self.dropped;
        self.entries.retain(|entry| {
            let keep = entry.deadline() > now;
            if !keep {
                *dropped += entry.held() as u64;
            }
            keep
        });
    }

    /// When the next source is to be forgotten.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.entries.iter().map(Probation::deadline).min()
    }

    /// Packets dropped because their source was not proven: silent too long, too many sources, too many packets.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Number of sources in probation.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is in probation.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
