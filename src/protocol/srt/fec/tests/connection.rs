//! Two connections, one of which loses what it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::base::{Datagram, Instant};
use crate::protocol::srt::connection::{Connection, Limits};
use crate::protocol::srt::control::{Control, LossReport};
use crate::protocol::srt::encryption::{
    Cipher, Encryption, KeyLength, KeyRefresh, SALT_LEN, derive_key_encrypting_key,
};
use crate::protocol::srt::parameters::{ConnectionParameters, Role};

const FIRST: u64 = 0x7fff_fff8;
const LATENCY_MS: u64 = 120;

fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000 + ms)
}

struct Pair {
    sender: Connection,
    receiver: Connection,
    pool: PacketPool,
    /// Runs that the receiver has reported, counted from the first packet, and when.
    reported: Vec<(u64, u64, u64)>,
    /// Packets that were handed up, counted from the first, and when.
    delivered: Vec<(u64, u64)>,
    /// Whether both are put down as bytes and taken up again after each packet.
    is_upgraded: bool,
}

impl Pair {
    fn new(filter: &str, reorder_tolerance: u16) -> Self {
        Self::with(filter, reorder_tolerance, [None, None])
    }

    /// The sender has the first of these keys, the receiver the second.
    fn with(filter: &str, reorder_tolerance: u16, [sending, receiving]: [Option<Encryption>; 2]) -> Self {
        let of = |role, socket_id, peer_socket_id, encryption| {
            let parameters = ConnectionParameters {
                socket_id,
                peer_socket_id,
                initial_sequence: SequenceNumber::new(FIRST),
                packet_filter: Some(fec(filter)),
                encryption,
                receive_latency_ms: LATENCY_MS as u16,
                ..ConnectionParameters::plain(role, SocketAddr::from(([192, 0, 2, 1], 4_000)), at(0))
            };
            let send_buffer_packets = if role == Role::Sender { 1_024 } else { 0 };
            let limits = Limits { send_buffer_packets, reorder_tolerance, ..Limits::default() };
            Connection::new(at(0), parameters, limits)
        };
        Self {
            sender: of(Role::Sender, 1, 2, sending),
            receiver: of(Role::Receiver, 2, 1, receiving),
            pool: PacketPool::new(PoolOptions { slots: 1_024, ..PoolOptions::default() }).expect("memory"),
            reported: Vec::new(),
            delivered: Vec::new(),
            is_upgraded: false,
        }
    }

    fn datagram(&self, now: Instant, bytes: &[u8]) -> Datagram {
        let packet = self.pool.copy_from(bytes).expect("a slot");
        let peer = self.sender.parameters().peer;
        Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: now }
    }

    /// A packet each millisecond, those `lost` for the first time; then silence until all is due.
    fn run(&mut self, count: u64, lost: &[u64]) {
        let mut seen = BTreeSet::new();
        for ms in 0..count + 2 * LATENCY_MS {
            let now = at(ms);
            if ms < count {
                self.sender.send(now, &payload(ms)).expect("room");
            }
            self.sender.handle_timeout(now);
            let mut bytes = Vec::new();
            while self.sender.poll_transmit(now, &mut bytes).is_some() {
                let bytes = std::mem::take(&mut bytes);
                if let Ok(Header::Data(header)) = parse(&bytes)
                    && header.message_number != 0
                {
                    let offset = header.sequence.distance(SequenceNumber::new(FIRST)) as u64;
                    if seen.insert(offset) && lost.contains(&offset) {
                        continue;
                    }
                }
                let datagram = self.datagram(now, &bytes);
                self.receiver.receive(now, datagram);
                if self.is_upgraded {
                    self.upgrade();
                }
            }
            self.receiver.handle_timeout(now);
            while let Some(payload) = self.receiver.poll_payload_early(now) {
                let offset = payload.sequence - FIRST;
                assert_eq!(*payload.packet, *self::payload(offset));
                self.delivered.push((offset, ms));
            }
            while self.receiver.poll_transmit(now, &mut bytes).is_some() {
                self.note(ms, &bytes);
                let datagram = self.datagram(now, &std::mem::take(&mut bytes));
                self.sender.receive(now, datagram);
            }
        }
    }

    fn upgrade(&mut self) {
        for connection in [&mut self.sender, &mut self.receiver] {
            let (mut bytes, mut again) = (Vec::new(), Vec::new());
            connection.snapshot(&mut bytes);
            let held = connection.held_packets();
            *connection = Connection::restore(&bytes, 1 << 15, |bytes| self.pool.copy_from(bytes)).expect("room");
            connection.snapshot(&mut again);
            assert!(bytes == again, "a snapshot of what was restored is the same");
            assert_eq!(connection.held_packets(), held);
        }
    }

    fn note(&mut self, ms: u64, bytes: &[u8]) {
        let Ok(Header::Control(header)) = parse(bytes) else { panic!("a receiver sends no data") };
        if let Ok(Control::LossReport(report)) = Control::parse(&header, &bytes[HEADER_LEN..]) {
            let offset = |sequence: SequenceNumber| sequence.distance(SequenceNumber::new(FIRST)) as u64;
            let report: &LossReport<'_> = &report;
            self.reported.extend(report.ranges().map(|range| (ms, offset(range.first()), offset(range.last()))));
        }
    }

    fn missing(&self, count: u64) -> Vec<u64> {
        let there: BTreeSet<u64> = self.delivered.iter().map(|(offset, _)| *offset).collect();
        (0..count).filter(|offset| !there.contains(offset)).collect()
    }
}

/// One row of two lost packets that nothing brings back, one lost packet that its row brings back.
const LOST: [u64; 3] = [11, 13, 25];

#[test]
fn always_reports_what_is_lost_at_once() {
    let mut pair = Pair::new("fec,cols:10,arq:always", 0);
    pair.run(60, &LOST);
    assert_eq!(pair.missing(60), [0_u64; 0]);
    assert_eq!(pair.reported[..2], [(12, 11, 11), (14, 13, 13)]);
    assert!(pair.reported.contains(&(26, 25, 25)));
}

#[test]
fn onreq_reports_what_the_filter_has_given_up_once() {
    let mut pair = Pair::new("fec,cols:10,arq:onreq", 0);
    pair.run(60, &LOST);
    assert_eq!(pair.missing(60), [0_u64; 0]);
    // A third of a row after the row's end.
    assert_eq!(pair.reported, [(23, 11, 11), (23, 13, 13)]);
    let count = pair.receiver.statistics();
    assert_eq!((count.pkt_rcv_filter_extra, count.pkt_rcv_filter_supply, count.pkt_rcv_filter_loss), (6, 2, 2));
    // When 11 has come again the row has 13, which comes again for nothing.
    assert_eq!((count.pkt_rcv_loss, count.pkt_rcv_drop, count.pkt_rcv_recovered), (3, 0, 1));
    assert_eq!(count.pkt_rcv_duplicate, 1);
}

#[test]
fn never_reports_nothing() {
    let mut pair = Pair::new("fec,cols:10,arq:never", 0);
    pair.run(60, &LOST);
    assert_eq!(pair.missing(60), [11, 13]);
    assert_eq!(pair.reported, []);
    let count = pair.receiver.statistics();
    assert_eq!((count.pkt_sent_nak, count.pkt_rcv_filter_supply, count.pkt_rcv_drop), (0, 1, 2));
}

#[test]
fn control_packets_are_no_media_and_take_no_place() {
    let mut pair = Pair::new("fec,cols:4,rows:3,layout:even", 0);
    pair.run(48, &[]);
    let (sent, received) = (*pair.sender.statistics(), *pair.receiver.statistics());
    // Twelve rows and sixteen columns.
    assert_eq!((sent.pkt_sent, sent.pkt_snd_filter_extra), (48, 28));
    assert_eq!((received.pkt_recv, received.pkt_recv_unique, received.pkt_delivered), (48, 48, 48));
    assert_eq!((received.pkt_rcv_filter_extra, received.pkt_rcv_filter_rejected), (28, 0));
    assert_eq!((received.pkt_rcv_filter_supply, received.pkt_rcv_filter_loss, received.pkt_rcv_loss), (0, 0, 0));
    assert_eq!((pair.receiver.held_packets(), pair.pool.in_use()), (0, 0));
}

#[test]
fn a_gap_that_can_still_close_is_waited_for_as_long_as_its_neighbours_wait() {
    // 30 ms of a matrix are well within 120 ms.
    let mut pair = Pair::new("fec,cols:10,rows:-3,layout:even,arq:never", 0);
    pair.run(60, &[2]);
    assert_eq!(pair.missing(60), [0_u64; 0]);
    // Packet 22 ends its column; all that waited behind it goes up with it.
    assert!(
        pair.delivered.contains(&(1, 1)) && pair.delivered.contains(&(2, 22)) && pair.delivered.contains(&(21, 22))
    );
    // A matrix of 200 ms is not.
    let mut pair = Pair::new("fec,cols:20,rows:-10,layout:even,arq:never", 0);
    pair.run(220, &[2]);
    assert_eq!(pair.missing(220), [2]);
    assert!(pair.delivered.contains(&(3, 3 + LATENCY_MS)));
    let count = pair.receiver.statistics();
    assert_eq!((count.pkt_rcv_filter_supply, count.pkt_rcv_drop, count.pkt_rcv_belated), (1, 1, 1));
}

#[test]
fn what_is_lost_at_the_end_is_rebuilt_before_anything_shows_that_it_is_missing() {
    let mut pair = Pair::new("fec,cols:10,arq:never", 0);
    pair.run(10, &[9]);
    assert_eq!(pair.missing(10), [0_u64; 0]);
    let count = pair.receiver.statistics();
    assert_eq!((count.pkt_rcv_loss, count.pkt_rcv_filter_supply), (1, 1));
}

#[test]
fn what_the_filter_holds_is_let_go_at_the_end() {
    let mut pair = Pair::new("fec,cols:10,arq:never", 0);
    pair.run(10, &[3, 4]);
    assert_eq!((pair.receiver.held_packets(), pair.pool.in_use()), (1, 1));
    pair.receiver.shut_down();
    assert_eq!((pair.receiver.held_packets(), pair.pool.in_use()), (0, 0));
    assert_eq!(pair.receiver.next_timeout(), None);
}

#[test]
fn an_encrypted_packet_longer_than_any_can_be_is_no_part_of_what_is_rebuilt() {
    let salt = [3; SALT_LEN];
    let key = derive_key_encrypting_key(b"a good passphrase", &salt, KeyLength::Aes128);
    let (sending, message) = Encryption::initiate(key.clone(), Cipher::AesCtr, salt, [1; 32], KeyRefresh::default());
    let receiving = Encryption::accept(key, &message, [2; 32], KeyRefresh::default()).expect("the same passphrase");
    let mut pair = Pair::with("fec,cols:4,arq:never", 0, [Some(sending), Some(receiving)]);
    let mut bytes = Vec::new();
    for index in 0..8_u8 {
        // As long as it may be, less the filter's own header.
        pair.sender.send(at(0), &[index; 1_452]).expect("room");
        while pair.sender.poll_transmit(at(0), &mut bytes).is_some() {
            let mut datagram = std::mem::take(&mut bytes);
            let Ok(Header::Data(header)) = parse(&datagram) else { continue };
            let offset = header.sequence.distance(SequenceNumber::new(FIRST));
            if header.message_number != 0 && (offset == 1 || offset == 5) {
                continue;
            }
            if header.message_number != 0 && offset == 2 {
                // One byte is another one, and behind it there is more than the sums are long.
                datagram[HEADER_LEN] ^= 0xff;
                datagram.resize(HEADER_LEN + PAYLOAD_MAX + 1, 0);
            }
            let datagram = pair.datagram(at(0), &datagram);
            pair.receiver.receive(at(0), datagram);
        }
    }
    let payloads: Vec<_> = std::iter::from_fn(|| pair.receiver.poll_payload(at(1_000))).collect();
    let numbers: Vec<u64> = payloads.iter().map(|payload| payload.sequence - FIRST).collect();
    assert_eq!(numbers, [0, 2, 3, 4, 5, 6, 7], "that of the other row comes back, and nothing is made of this one");
    assert_eq!(*payloads[4].packet, [5; 1_452]);
    assert_eq!(payloads[1].packet.len(), PAYLOAD_MAX + 1);
}

#[test]
fn a_payload_leaves_room_for_the_control_packets_header() {
    let pair = Pair::new("fec,cols:10", 0);
    assert_eq!(pair.sender.parameters().payload_size_max(), 1_452);
    let idle = Duration::from_millis(1);
    assert!(pair.sender.next_timeout().is_some_and(|next| next > at(0) + idle));
}

#[test]
fn a_filter_goes_on_from_a_snapshot_as_if_nothing_had_been() {
    // Rows and columns that need each other, and some that nothing can rebuild.
    let lost = [0, 3, 11, 12, 13, 24, 33, 34, 43, 44, 61, 75, 76, 85, 86, 99];
    for filter in ["fec,cols:10,rows:5,arq:onreq", "fec,cols:4,rows:-3,layout:even,arq:never", "fec,cols:5,arq:always"]
    {
        let play = |is_upgraded| {
            let mut pair = Pair::new(filter, 0);
            pair.is_upgraded = is_upgraded;
            pair.run(120, &lost);
            assert!(pair.receiver.statistics().pkt_rcv_filter_supply > 0, "{filter}");
            let statistics = (*pair.sender.statistics(), *pair.receiver.statistics());
            (pair.delivered, pair.reported, statistics)
        };
        assert_eq!(play(true), play(false), "{filter}");
    }
}
