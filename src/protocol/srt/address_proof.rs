//! Proof that a peer is where a packet says it comes from, when that is not where it was: its router has given it another
//! port, or it has gone to another network. Media under AES-GCM proves it by itself; what is sent in plain or under AES-CTR does not.
//!
//! Whoever comes from elsewhere with something that fits the connection is sent an acknowledgement whose number cannot be
//! guessed. Senders repeat the number of an acknowledgement in their answer (ACKACK), in whatever order the numbers come: so
//! who answers with it is a sender, and receives there.
//!
//! The number follows from a secret, the address and the time, and nothing is kept of those who are asked. So there is no place
//! that a flood of forged addresses could hold, and an honest newcomer is asked as often as its share of the packets makes it.
//! No more is sent to an address than has come from it, and to all together one challenge each [`CHALLENGE_INTERVAL`] at most.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use siphasher::sip::SipHasher24;

use super::control::Acknowledgement;
use super::packet::HEADER_LEN;
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter};
use crate::base::{Datagram, Instant};

/// Bytes of a challenge: an acknowledgement without rates.
pub const CHALLENGE_LEN: usize = HEADER_LEN + 16;
/// The shortest time between two challenges of one connection, whoever they go to. libsrt answers each 10 ms at most.
pub const CHALLENGE_INTERVAL: Duration = Duration::from_millis(20);
/// A number is good for this long at least and for twice as long at most: longer than any round trip that media goes over.
const NUMBER_TIME: Duration = Duration::from_secs(1);

/// An acknowledgement to be sent to somebody who has not proven anything yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// Where to.
    pub peer: SocketAddr,
    /// From which address of ours.
    pub local: Option<IpAddr>,
    /// By which interface.
    pub interface: u32,
    /// What is to be answered with.
    pub number: u32,
}

/// Asks those who come from elsewhere, and knows their right answers.
#[derive(Debug)]
pub struct AddressProof {
    secret: [u8; 16],
    socket_id: u32,
    next_at: Instant,
    challenge: Option<Challenge>,
    /// Who has sent a datagram that was too short to be answered: two of them are long enough.
    sent_half: Option<SocketAddr>,
}

impl AddressProof {
    /// For the connection of this socket id; `secret` is one that no peer knows.
    pub fn new(secret: [u8; 16], socket_id: u32) -> Self {
        Self { secret, socket_id, next_at: Instant::ZERO, challenge: None, sent_half: None }
    }

    /// The sender of this datagram is asked, unless somebody was asked a moment ago, or it would be sent more than it has sent.
    pub fn ask(&mut self, now: Instant, datagram: &Datagram) {
        let Datagram { peer, local, interface, .. } = *datagram;
        if now < self.next_at {
            return;
        }
        if datagram.packet.len() < CHALLENGE_LEN && self.sent_half != Some(peer) {
            self.sent_half = Some(peer);
            return;
        }
        self.sent_half = None;
        self.next_at = now + CHALLENGE_INTERVAL + self.spread(now);
        self.challenge = Some(Challenge { peer, local, interface, number: self.number(peer, epoch(now)) });
    }

    /// What is to be sent now.
    pub fn take_challenge(&mut self) -> Option<Challenge> {
        self.challenge.take()
    }

    /// Whether `number` is one that `peer` was sent, and not long ago.
    pub fn is_answer(&self, now: Instant, peer: SocketAddr, number: u32) -> bool {
        let epoch = epoch(now);
        number == self.number(peer, epoch) || epoch.checked_sub(1).is_some_and(|last| number == self.number(peer, last))
    }

    /// Up to one more interval: nobody who sends at a regular pace is always the first to come.
    fn spread(&self, now: Instant) -> Duration {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write_u64(now.as_nanos());
        Duration::from_nanos(hasher.finish() % CHALLENGE_INTERVAL.as_nanos() as u64)
    }

    fn number(&self, peer: SocketAddr, epoch: u64) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        match peer.ip() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        hasher.write_u16(peer.port());
        hasher.write_u32(self.socket_id);
        hasher.write_u64(epoch);
        // Not 0, which means a light one.
        (hasher.finish() % u64::from(Acknowledgement::NUMBER_MAX)) as u32 + 1
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        // The connection has these.
        let Self { secret: _, socket_id: _, next_at, challenge, sent_half } = self;
        to.instant(*next_at);
        to.option(*challenge, |to, Challenge { peer, local, interface, number }| {
            to.address(peer);
            to.option(local, SnapshotWriter::ip);
            to.u32(interface);
            to.u32(number);
        });
        to.option(*sent_half, SnapshotWriter::address);
    }

    pub(crate) fn restore(
        from: &mut SnapshotReader<'_>,
        secret: [u8; 16],
        socket_id: u32,
    ) -> Result<Self, RestoreError> {
        Ok(Self {
            secret,
            socket_id,
            next_at: from.instant()?,
            challenge: from.option(|from| {
                Ok(Challenge {
                    peer: from.address()?,
                    local: from.option(SnapshotReader::ip)?,
                    interface: from.u32()?,
                    number: from.u32()?,
                })
            })?,
            sent_half: from.option(SnapshotReader::address)?,
        })
    }
}

fn epoch(now: Instant) -> u64 {
    now.as_nanos() / NUMBER_TIME.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{PacketPool, PoolOptions};

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn datagram(peer: SocketAddr, length: usize) -> Datagram {
        let pool = PacketPool::new(PoolOptions { slots: 1, ..PoolOptions::default() }).expect("memory");
        let packet = pool.copy_from(&vec![0; length]).expect("a slot");
        Datagram { packet, peer, local: None, interface: 3, path: 0, arrival: Instant::ZERO }
    }

    #[test]
    fn a_number_is_good_for_one_address_one_connection_and_a_second_or_two() {
        let mut proof = AddressProof::new([1; 16], 7);
        let asked_at = Instant::from_millis(10_999);
        proof.ask(asked_at, &datagram(address(1), CHALLENGE_LEN));
        let challenge = proof.take_challenge().expect("nobody was asked before");
        assert_eq!((challenge.peer, challenge.local, challenge.interface), (address(1), None, 3));
        assert!((1..=0x7fff_ffff).contains(&challenge.number));
        assert_eq!(proof.take_challenge(), None);
        let is_answer =
            |proof: &AddressProof, ms, port| proof.is_answer(Instant::from_millis(ms), address(port), challenge.number);
        assert!(is_answer(&proof, 10_999, 1) && is_answer(&proof, 11_999, 1));
        assert!(!is_answer(&proof, 12_000, 1), "too old");
        assert!(!is_answer(&proof, 11_000, 2), "another address");
        assert!(!is_answer(&AddressProof::new([1; 16], 8), 11_000, 1), "another connection");
        assert!(!is_answer(&AddressProof::new([2; 16], 7), 11_000, 1), "another secret");
    }

    #[test]
    fn nobody_is_sent_more_than_he_has_sent_and_all_together_fifty_a_second() {
        let mut proof = AddressProof::new([1; 16], 7);
        let mut asked = 0;
        for ms in 0..1_000 {
            for port in 1..=10 {
                proof.ask(Instant::from_millis(ms), &datagram(address(port), CHALLENGE_LEN));
                asked += usize::from(proof.take_challenge().is_some());
            }
        }
        assert!((25..=50).contains(&asked), "{asked}");
        assert_eq!(CHALLENGE_LEN, 2 * HEADER_LEN, "two of the shortest packets weigh it up");
        let mut short = |port| {
            proof.ask(Instant::from_millis(2_000), &datagram(address(port), HEADER_LEN));
            proof.take_challenge().map(|challenge| challenge.peer.port())
        };
        assert_eq!([1, 2, 1, 1].map(&mut short), [None, None, None, Some(1)]);
    }
}
