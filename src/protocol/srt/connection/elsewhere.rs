//! What comes for a connection from another address than its peer's.
//!
//! Under AES-GCM a packet that is missing and decrypts is the peer's, wherever it comes from: it is taken in, and proves that the peer
//! is there if it is newer than all before it, as in RFC 9000 §9.3: what was sent before the move and comes late leads nowhere. One that
//! is known already, or does not decrypt, does nothing.
//!
//! Of anything else nothing is taken in: a sender repeats what was not acknowledged, so that a peer that has moved and proves it in
//! time loses nothing, and forgers gain nothing. What may be the peer's is answered with a challenge ([`AddressProof`]); with the
//! right answer the peer is there. That takes as long as the peer's silence has to last, or a round trip if that is longer; what came
//! meanwhile is asked for with the next packet, one more round trip later.
//!
//! Who cannot read the connection's packets has a socket id, a sequence number of the window and the peer's clock to guess before
//! he is even challenged. Who can read them, and receives where he is or repeats them before they arrive, is kept off by the peer
//! itself: no proof counts until that has been silent for longer than it has been of late. Against him who waits for the peer to fall
//! silent for good, plain and AES-CTR have no defence; the peer itself gets its stream back by calling again from the host that it was
//! let in from.
//!
//! [`AddressProof`]: crate::protocol::srt::address_proof::AddressProof

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Connection, Event, KEEP_ALIVE_INTERVAL, State};
use crate::base::{Datagram, Instant, Transmit};
use crate::protocol::srt::control::{Acknowledgement, Control, ReceiverReport};
use crate::protocol::srt::packet::{self, DataHeader, HEADER_LEN, Header};
use crate::protocol::srt::receiver::ACK_INTERVAL;

/// A peer that is there says something each [`KEEP_ALIVE_INTERVAL`]. After half as long again it is missed, and whatever its clock can
/// have stamped may be its.
const MISSED_AFTER: Duration = KEEP_ALIVE_INTERVAL.saturating_mul(3).checked_div(2).unwrap();
/// The share of the latency that the peer must not have been heard for when somebody else proves to be it: what was not taken in by then
/// can still be asked for and come in time.
const QUIET_SHARE: u32 = 4;
/// And no longer than this: senders keep some 8,192 packets (libsrt), 1.7 s of 50 Mbit/s.
const QUIET_MAX: Duration = Duration::from_millis(250);
/// But always so many times as long as the longest pause that the peer has made of late.
const PAUSES_OUTLASTED: u32 = 2;

impl Connection {
    #[cold]
    pub(super) fn receive_from_elsewhere(&mut self, now: Instant, datagram: Datagram) {
        self.statistics.pkt_wrong_peer += 1;
        let silence = now.saturating_since(self.heard_at);
        let socket_id = self.parameters.socket_id;
        let is_ipv4 = |peer: SocketAddr| peer.ip().to_canonical().is_ipv4();
        // Packets over the other version of IP have another length.
        let is_same_family = is_ipv4(datagram.peer) == is_ipv4(self.parameters.peer);
        let Some(proof) = self.address_proof.as_mut().filter(|_| is_same_family) else { return };
        let may_be_the_peer = match packet::parse(&datagram.packet) {
            Ok(Header::Data(header)) if header.socket_id == socket_id => {
                if self.is_judged_by_key(&header) {
                    return self.receive_proof(now, &header, datagram);
                }
                (self.receiver.is_awaited(header.sequence) || silence >= MISSED_AFTER)
                    && self.receiver.is_of_now(header.timestamp_us, datagram.arrival)
            }
            Ok(Header::Control(header)) if header.socket_id == socket_id => {
                match Control::parse(&header, &datagram.packet[HEADER_LEN..]) {
                    Ok(Control::AcknowledgementReceipt { number }) if proof.is_answer(now, datagram.peer, number) => {
                        if silence >= self.quiet_time() {
                            self.follow_peer(now, datagram.peer, datagram.local, datagram.interface);
                        }
                        false
                    }
                    Ok(Control::KeepAlive) => {
                        silence >= MISSED_AFTER && self.receiver.is_of_now(header.timestamp_us, datagram.arrival)
                    }
                    _ => false,
                }
            }
            _ => false,
        };
        if may_be_the_peer && let Some(proof) = &mut self.address_proof {
            proof.ask(now, &datagram);
        }
    }

    /// Whether its own tag says if this packet, which is missing, is the peer's.
    fn is_judged_by_key(&self, header: &DataHeader) -> bool {
        self.receiver.is_awaited(header.sequence)
            && !self.receiver.is_filter_control(header)
            && self.parameters.encryption.as_ref().is_some_and(|encryption| encryption.is_proof(header.key))
    }

    fn receive_proof(&mut self, now: Instant, header: &DataHeader, datagram: Datagram) {
        let is_newest = self.receiver.is_newest(header.sequence);
        let Datagram { peer, local, interface, .. } = datagram;
        let is_quiet = now.saturating_since(self.heard_at) >= self.quiet_time();
        if self.receive_data(header, datagram) && is_newest && is_quiet {
            self.follow_peer(now, peer, local, interface);
        }
    }

    /// How long the peer must not have been heard when somebody else proves to be it.
    fn quiet_time(&self) -> Duration {
        let latency = Duration::from_millis(u64::from(self.parameters.receive_latency_ms));
        (latency / QUIET_SHARE).clamp(ACK_INTERVAL, QUIET_MAX).max(PAUSES_OUTLASTED * self.pauses.longest())
    }

    fn follow_peer(&mut self, now: Instant, to: SocketAddr, local: Option<IpAddr>, interface: u32) {
        let from = self.parameters.peer;
        (self.parameters.peer, self.parameters.local, self.parameters.interface) = (to, local, interface);
        self.heard_at = now;
        self.round_trip.path_changed();
        self.receiver.path_changed();
        self.pending.loss_report = true;
        self.statistics.peer_changes += 1;
        self.event(Event::PeerChanged { from, to });
    }

    /// Says to somebody elsewhere what the peer was told last, under a number to be answered with.
    pub(super) fn write_challenge(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let challenge = self.address_proof.as_mut()?.take_challenge()?;
        if self.state != State::Running {
            return None;
        }
        let start = buffer.len();
        let report = ReceiverReport {
            rtt_us: self.round_trip.smoothed_us(),
            rtt_variance_us: self.round_trip.variance_us(),
            available_buffer_packets: self.receiver.free() as u32,
            rates: None,
        };
        let (number, next) = (challenge.number, self.receiver.acknowledged());
        self.control_writer(now).acknowledgement(buffer, &Acknowledgement { number, next, report: Some(report) });
        self.statistics.pkt_sent_challenge += 1;
        Some(Transmit {
            peer: challenge.peer,
            local: challenge.local,
            interface: challenge.interface,
            path: 0,
            len: buffer.len() - start,
        })
    }
}
