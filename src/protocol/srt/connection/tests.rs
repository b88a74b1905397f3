use std::net::SocketAddr;

use super::*;
use crate::base::{PacketPool, PoolOptions};
use crate::protocol::srt::control::LossReport;
use crate::protocol::srt::encryption::{
    Cipher, Encryption, KeyLength, KeyRefresh, SALT_LEN, derive_key_encrypting_key,
};
use crate::protocol::srt::packet::KeyFlag;
use crate::protocol::srt::parameters::{Features, Role};

mod attacks;
mod buffer_mode;
mod elsewhere;
mod introduction;
mod keys;
mod messages;
mod snapshot;
mod version4;

const FIRST: u64 = 0x7fff_fff0;
const LATENCY_MS: u64 = 120;

/// A connection and everything around it. The peer's clock shows what ours does, less the handshake's second.
struct Bench {
    connection: Connection,
    pool: PacketPool,
    buffer: Vec<u8>,
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000 + ms)
}

fn peer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 40_000))
}

fn parameters(features: Features, encryption: Option<Encryption>) -> ConnectionParameters {
    ConnectionParameters {
        initial_sequence: SequenceNumber::new(FIRST),
        receive_latency_ms: LATENCY_MS as u16,
        send_latency_ms: LATENCY_MS as u16,
        features,
        encryption,
        ..ConnectionParameters::plain(Role::Both, peer(), at(0))
    }
}

fn bench_with(limits: Limits, encryption: Option<Encryption>) -> Bench {
    bench_of(limits, parameters(Features::default(), encryption))
}

fn bench_of(limits: Limits, parameters: ConnectionParameters) -> Bench {
    let pool = PacketPool::new(PoolOptions { slots: 1_024, ..PoolOptions::default() }).expect("memory");
    let mut bench = Bench { connection: Connection::new(at(0), parameters, limits), pool, buffer: Vec::new() };
    assert_eq!(bench.connection.poll_event(), Some(Event::Connected));
    bench
}

fn bench() -> Bench {
    bench_with(Limits { send_buffer_packets: 256, receive_buffer_packets: 256, ..Limits::default() }, None)
}

fn data(index: u64, timestamp_ms: u64) -> DataHeader {
    DataHeader {
        sequence: SequenceNumber::new(FIRST + index),
        timestamp_us: (timestamp_ms * 1_000) as u32,
        socket_id: 7,
        message_number: 1,
        ..DataHeader::default()
    }
}

/// A header of a control packet to us, for bodies that no writer would write.
fn raw_control(kind: u16, subtype: u16, information: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(0x8000 | kind).to_be_bytes());
    bytes.extend_from_slice(&subtype.to_be_bytes());
    bytes.extend_from_slice(&information.to_be_bytes());
    bytes.extend_from_slice(&0_u32.to_be_bytes());
    bytes.extend_from_slice(&7_u32.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// What came out of `poll_transmit`, in short.
#[derive(Debug, PartialEq, Eq)]
enum Out {
    Ack(u32, u64),
    LightAck(u64),
    Nak(Vec<(u64, u64)>),
    Data(u64, bool),
    Receipt(u32),
    Drop(u64, u64),
    KeepAlive,
    Shutdown,
    PeerError(u32),
    KeyMaterialResponse(usize),
    HandshakeResponse(Vec<u8>),
    KeyMaterialRequest(Vec<u8>),
    HandshakeRequest(Vec<u8>),
}

fn index(sequence: SequenceNumber) -> u64 {
    sequence.distance(SequenceNumber::new(FIRST)) as u64
}

impl Bench {
    fn datagram(&self, now: Instant, bytes: &[u8]) -> Datagram {
        let packet = self.pool.copy_from(bytes).expect("a slot");
        Datagram { packet, peer: peer(), local: None, interface: 0, path: 0, arrival: now }
    }

    fn put(&mut self, now: Instant, bytes: &[u8]) {
        let datagram = self.datagram(now, bytes);
        self.connection.receive(now, datagram);
    }

    fn put_data(&mut self, now: Instant, header: &DataHeader, payload: &[u8]) {
        let mut bytes = [0; HEADER_LEN];
        header.encode(&mut bytes);
        let bytes = [&bytes, payload].concat();
        self.put(now, &bytes);
    }

    fn control(&mut self, now: Instant, write: impl FnOnce(ControlWriter, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(ControlWriter { timestamp_us: now.saturating_since(at(0)).as_micros() as u32, socket_id: 7 }, &mut bytes);
        self.put(now, &bytes);
    }

    fn acknowledge(&mut self, now: Instant, number: u32, next: u64) {
        let report =
            ReceiverReport { rtt_us: 30_000, rtt_variance_us: 1_000, available_buffer_packets: 8_000, rates: None };
        let next = SequenceNumber::new(FIRST + next);
        self.control(now, |to, buffer| {
            to.acknowledgement(buffer, &Acknowledgement { number, next, report: Some(report) })
        });
    }

    fn report_loss(&mut self, now: Instant, first: u64, last: u64) {
        let range = SequenceRange::new(SequenceNumber::new(FIRST + first), SequenceNumber::new(FIRST + last));
        self.control(now, |to, buffer| assert_eq!(to.loss_report(buffer, range, 1_472), 1));
    }

    fn out(&mut self, now: Instant) -> Vec<Out> {
        let mut out = Vec::new();
        loop {
            self.buffer.clear();
            let Some(transmit) = self.connection.poll_transmit(now, &mut self.buffer) else { return out };
            assert_eq!((transmit.len, transmit.peer), (self.buffer.len(), self.connection.parameters().peer));
            out.push(match packet::parse(&self.buffer).expect("well-formed") {
                Header::Data(header) => {
                    assert_eq!(header.socket_id, 9);
                    Out::Data(index(header.sequence), header.retransmitted)
                }
                Header::Control(header) => {
                    assert_eq!(header.socket_id, 9);
                    let body = &self.buffer[HEADER_LEN..];
                    let runs = |report: LossReport<'_>| {
                        report.ranges().map(|range| (index(range.first()), index(range.last()))).collect()
                    };
                    match Control::parse(&header, body).expect("well-formed") {
                        Control::Acknowledgement(ack) if ack.report.is_none() => Out::LightAck(index(ack.next)),
                        Control::Acknowledgement(ack) => Out::Ack(ack.number, index(ack.next)),
                        Control::LossReport(report) => Out::Nak(runs(report)),
                        Control::AcknowledgementReceipt { number } => Out::Receipt(number),
                        Control::DropRequest(drop) => Out::Drop(index(drop.range.first()), index(drop.range.last())),
                        Control::KeepAlive => Out::KeepAlive,
                        Control::Shutdown => Out::Shutdown,
                        Control::PeerError { code } => Out::PeerError(code),
                        Control::KeyMaterialResponse(message) => Out::KeyMaterialResponse(message.len()),
                        Control::HandshakeResponse(body) => Out::HandshakeResponse(body.to_vec()),
                        Control::KeyMaterialRequest(message) => Out::KeyMaterialRequest(message.to_vec()),
                        Control::HandshakeRequest(body) => Out::HandshakeRequest(body.to_vec()),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    }

    fn timeout(&mut self, now: Instant) -> Vec<Out> {
        self.connection.handle_timeout(now);
        self.out(now)
    }

    fn payloads(&mut self, now: Instant) -> Vec<(u64, u32, Vec<u8>)> {
        std::iter::from_fn(|| self.connection.poll_payload(now))
            .map(|payload| (payload.sequence - FIRST, payload.lost_before, payload.packet.to_vec()))
            .collect()
    }

    fn indices(&mut self, now: Instant) -> Vec<u64> {
        self.payloads(now).into_iter().map(|(index, ..)| index).collect()
    }

    fn count(&self) -> &Statistics {
        self.connection.statistics()
    }
}

#[test]
fn a_payload_comes_out_a_latency_after_its_time_stamp_without_its_header() {
    let mut bench = bench();
    bench.put_data(at(15), &data(0, 10), b"media");
    assert_eq!(bench.connection.held_packets(), 1);
    assert_eq!(bench.payloads(at(10 + LATENCY_MS - 1)), []);
    assert_eq!(bench.payloads(at(10 + LATENCY_MS)), [(0, 0, b"media".to_vec())]);
    assert_eq!((bench.connection.held_packets(), bench.pool.in_use()), (0, 0));
}

#[test]
fn payloads_go_up_before_they_are_due_as_long_as_none_is_missing_before_them() {
    let mut bench = bench();
    let early = |bench: &mut Bench, now| -> Vec<(u64, Instant)> {
        let all = std::iter::from_fn(|| bench.connection.poll_payload_early(now));
        all.map(|payload| (payload.sequence - FIRST, payload.due)).collect()
    };
    for index in [0, 1, 3, 4] {
        bench.put_data(at(index), &data(index, index), &[]);
    }
    assert_eq!(early(&mut bench, at(5)), [(0, at(LATENCY_MS)), (1, at(LATENCY_MS + 1))]);
    bench.connection.gauge();
    assert_eq!((bench.count().pkt_rcv_buf, bench.count().ms_rcv_buf), (2, LATENCY_MS));
    // Behind the gap they wait for what is missing, or for their time.
    bench.put_data(at(6), &data(1, 1), &[]);
    assert_eq!((bench.count().pkt_rcv_duplicate, bench.count().pkt_rcv_belated), (1, 0));
    bench.put_data(at(30), &DataHeader { retransmitted: true, ..data(2, 2) }, &[]);
    let indices: Vec<u64> = early(&mut bench, at(30)).into_iter().map(|(index, _)| index).collect();
    assert_eq!(indices, [2, 3, 4]);
    bench.put_data(at(40), &data(6, 6), &[]);
    assert_eq!(early(&mut bench, at(LATENCY_MS + 5)), []);
    assert_eq!(early(&mut bench, at(LATENCY_MS + 6)), [(6, at(LATENCY_MS + 6))]);
    let count = bench.count();
    assert_eq!((count.pkt_rcv_drop, count.pkt_rcv_recovered, count.pkt_delivered), (1, 1, 6));
    // What was given up comes too late, and so does what was played out already.
    bench.put_data(at(LATENCY_MS + 7), &DataHeader { retransmitted: true, ..data(5, 5) }, &[]);
    bench.put_data(at(LATENCY_MS + 7), &data(4, 4), &[]);
    assert_eq!((bench.count().pkt_rcv_duplicate, bench.count().pkt_rcv_belated), (1, 2));
}

#[test]
fn what_a_peer_without_tsbpd_sends_again_after_it_was_handed_up_is_a_duplicate_and_late_only_when_it_was_given_up() {
    let features = Features { receive_by_timestamp: false, ..Features::default() };
    let mut bench = bench_of(Limits::default(), parameters(features, None));
    for index in [0, 1, 3] {
        bench.put_data(at(index), &data(index, 0), &[]);
    }
    while bench.connection.poll_payload_early(at(5)).is_some() {}
    bench.put_data(at(6), &data(1, 0), &[]);
    bench.put_data(at(LATENCY_MS + 2), &data(0, 0), &[]);
    assert_eq!((bench.count().pkt_rcv_duplicate, bench.count().pkt_rcv_belated), (2, 0));
    assert_eq!(bench.indices(at(LATENCY_MS + 3)), [3]);
    bench.put_data(at(LATENCY_MS + 4), &data(2, 0), &[]);
    assert_eq!((bench.count().pkt_rcv_duplicate, bench.count().pkt_rcv_belated), (2, 1));
}

#[test]
fn no_jump_is_followed_before_what_went_up_early_is_due() {
    let mut bench = bench();
    bench.put_data(at(0), &data(0, 0), &[]);
    assert_eq!(bench.connection.poll_payload_early(at(0)).map(|payload| payload.sequence), Some(FIRST));
    for index in [9_001, 9_002] {
        bench.put_data(at(5), &data(index, 5), &[]);
    }
    assert_eq!((bench.count().sequence_jumps, bench.count().pkt_rcv_no_room), (0, 2));
    for index in [9_003, 9_004] {
        bench.put_data(at(LATENCY_MS), &data(index, LATENCY_MS), &[]);
    }
    assert_eq!(bench.count().sequence_jumps, 1);
}

#[test]
fn what_is_missing_when_the_next_is_due_is_given_up_and_told() {
    let mut bench = bench();
    for index in [0, 1, 4, 5] {
        bench.put_data(at(index), &data(index, index), &[]);
    }
    assert_eq!(bench.payloads(at(LATENCY_MS + 3)).len(), 2);
    let late = bench.payloads(at(LATENCY_MS + 5));
    assert_eq!(late, [(4, 2, vec![]), (5, 0, vec![])]);
    let count = bench.count();
    assert_eq!((count.pkt_rcv_loss, count.pkt_rcv_drop, count.pkt_delivered), (2, 2, 4));
    bench.put_data(at(200), &DataHeader { retransmitted: true, ..data(3, 3) }, &[]);
    assert_eq!(bench.count().pkt_rcv_belated, 1);
    assert_eq!(bench.timeout(at(400)).iter().filter(|out| matches!(out, Out::Nak(_))).count(), 0);
}

#[test]
fn a_gap_is_reported_at_once_and_again_until_it_closes() {
    let mut bench = bench();
    bench.put_data(at(0), &data(0, 0), &[]);
    assert_eq!(bench.out(at(0)), [Out::Ack(1, 1)]);
    bench.put_data(at(1), &data(4, 1), &[]);
    assert_eq!(bench.out(at(1)), [Out::Nak(vec![(1, 3)])]);
    assert_eq!(bench.out(at(1)), []);
    bench.put_data(at(40), &DataHeader { retransmitted: true, ..data(2, 0) }, &[]);
    // Nothing measured: (100 + 4 · 50) / 2 ms.
    assert_eq!(bench.timeout(at(100)).iter().filter(|out| matches!(out, Out::Nak(_))).count(), 0);
    assert!(bench.timeout(at(151)).contains(&Out::Nak(vec![(1, 1), (3, 3)])));
    assert_eq!(bench.count().pkt_rcv_recovered, 1);
    assert_eq!(bench.count().pkt_sent_nak, 2);
}

#[test]
fn what_was_lost_again_is_asked_for_as_soon_as_it_should_have_come() {
    let mut bench = bench();
    // A steady round trip of 16 ms.
    for number in 0..60 {
        bench.put_data(at(20 * number), &data(number, 20 * number), &[]);
        assert_eq!(bench.timeout(at(20 * number)), [Out::Ack(number as u32 + 1, number + 1)]);
        bench.control(at(20 * number + 16), |to, buffer| to.acknowledgement_receipt(buffer, number as u32 + 1));
    }
    let naks = |bench: &mut Bench, ms| -> Vec<Out> {
        bench.timeout(at(ms)).into_iter().filter(|out| matches!(out, Out::Nak(_))).collect()
    };
    bench.put_data(at(1_200), &data(62, 1_200), &[]);
    assert_eq!(naks(&mut bench, 1_200), [Out::Nak(vec![(60, 61)])]);
    // A copy, in case that was lost; and what should have come by then.
    let mut asked = Vec::new();
    for ms in 1_201..1_240 {
        if ms == 1_214 {
            bench.put_data(at(ms), &DataHeader { retransmitted: true, ..data(61, 1_200) }, &[]);
        }
        if ms == 1_230 {
            bench.put_data(at(ms), &DataHeader { retransmitted: true, ..data(60, 1_200) }, &[]);
        }
        assert!(bench.connection.receiver.repeat_at() >= at(ms), "nothing is overdue");
        asked.extend(naks(&mut bench, ms).into_iter().map(|nak| (ms, nak)));
    }
    let nak = |ms, first, last| (ms, Out::Nak(vec![(first, last)]));
    // At 1,220 it is the periodic report.
    assert_eq!(asked, [nak(1_205, 60, 61), nak(1_216, 60, 60), nak(1_220, 60, 60), nak(1_221, 60, 60)]);
}

#[test]
fn a_packet_that_was_overtaken_is_not_called_recovered() {
    let mut bench = bench();
    bench.put_data(at(0), &data(0, 0), &[]);
    bench.put_data(at(1), &data(3, 0), &[]);
    bench.put_data(at(2), &data(1, 0), &[]);
    let count = bench.count();
    assert_eq!((count.pkt_rcv_reordered, count.pkt_rcv_recovered, count.pkt_reorder_distance), (1, 0, 3));
}

#[test]
fn what_waits_behind_a_gap_and_how_long_a_gap_may_wait_are_gauged() {
    let mut bench = bench_with(Limits { reorder_tolerance: 9, ..Limits::default() }, None);
    let gauges = |bench: &mut Bench| {
        bench.connection.gauge();
        (bench.count().pkt_rcv_buf, bench.count().byte_rcv_buf, bench.count().pkt_reorder_tolerance)
    };
    assert_eq!(gauges(&mut bench), (0, 0, 9), "nothing is known of the path yet");
    bench.put_data(at(0), &data(0, 0), b"one");
    bench.put_data(at(1), &data(3, 0), b"three");
    assert_eq!(gauges(&mut bench), (2, 8, 9));
    assert_eq!(bench.indices(at(LATENCY_MS)), [0, 3]);
    assert_eq!(gauges(&mut bench), (0, 0, 9));
}

#[test]
fn acknowledgements_come_each_ten_ms_or_twenty_where_few_packets_do() {
    let mut bench = bench();
    bench.put_data(at(5), &data(0, 0), &[]);
    assert_eq!(bench.timeout(at(5)), [Out::Ack(1, 1)]);
    (1..=15).for_each(|index| bench.put_data(at(6), &data(index, 1), &[]));
    assert_eq!(bench.timeout(at(24)), []);
    assert_eq!(bench.timeout(at(25)), [Out::Ack(2, 16)]);
    (16..=31).for_each(|index| bench.put_data(at(26), &data(index, 1), &[]));
    assert_eq!(bench.timeout(at(34)), []);
    assert_eq!(bench.timeout(at(35)), [Out::Ack(3, 32)]);
}

#[test]
fn acknowledgements_are_repeated_and_end_when_confirmed() {
    let mut bench = bench();
    bench.put_data(at(5), &data(0, 0), &[]);
    assert_eq!(bench.timeout(at(5)), [Out::Ack(1, 1)]);
    bench.put_data(at(6), &data(1, 1), &[]);
    assert_eq!(bench.timeout(at(25)), [Out::Ack(2, 2)]);
    // Not confirmed: again after 100 + 4 · 50 ms.
    assert_eq!(bench.timeout(at(324)), []);
    assert_eq!(bench.timeout(at(325)), [Out::Ack(3, 2)]);
    bench.control(at(355), |to, buffer| to.acknowledgement_receipt(buffer, 3));
    assert_eq!(bench.timeout(at(900)), []);
    assert_eq!(bench.count().pkt_recv_ackack, 1);
    bench.put_data(at(950), &data(2, 900), &[]);
    bench.timeout(at(950));
    assert_eq!(bench.count().ms_rtt, 30.0);
    // The next thing that happens is the keep-alive or a delivery, not an acknowledgement.
    assert_eq!(bench.payloads(at(2_000)).len(), 3);
}

#[test]
fn every_64_packets_a_light_acknowledgement_goes_out() {
    let mut bench = bench();
    let mut out = Vec::new();
    for index in 0..200 {
        bench.put_data(at(1), &data(index, 1), &[]);
        out.extend(bench.out(at(1)));
    }
    assert_eq!(out, [Out::Ack(1, 1), Out::LightAck(65), Out::LightAck(129), Out::LightAck(193)]);
}

#[test]
fn an_acknowledgement_tells_the_room_there_is() {
    let mut bench = bench();
    for index in 0..250 {
        bench.put_data(at(1), &data(index, 1), &[]);
    }
    bench.connection.handle_timeout(at(20));
    bench.buffer.clear();
    bench.connection.poll_transmit(at(20), &mut bench.buffer);
    assert_eq!(bench.buffer[16 + 12..16 + 16], 6_u32.to_be_bytes());
    assert_eq!(bench.buffer.len(), 16 + 28);
}

#[test]
fn that_a_full_buffer_has_room_again_is_told_until_confirmed() {
    let mut bench = bench();
    for index in 0..256 {
        bench.put_data(at(0), &data(index, 0), &[]);
        bench.out(at(0));
    }
    assert_eq!(bench.timeout(at(10)), [Out::Ack(2, 256)]);
    bench.control(at(20), |to, buffer| to.acknowledgement_receipt(buffer, 2));
    assert_eq!(bench.timeout(at(60)), []);
    assert_eq!(bench.indices(at(LATENCY_MS)).len(), 256);
    assert_eq!(bench.out(at(LATENCY_MS)), [Out::Ack(3, 256)]);
    // Round trip 10 ms, deviation 5 ms.
    assert_eq!(bench.out(at(LATENCY_MS + 29)), []);
    assert_eq!(bench.out(at(LATENCY_MS + 30)), [Out::Ack(4, 256)]);
    bench.control(at(LATENCY_MS + 40), |to, buffer| to.acknowledgement_receipt(buffer, 4));
    assert_eq!(bench.out(at(LATENCY_MS + 500)), []);
}

#[test]
fn a_late_receipt_of_a_full_buffer_does_not_confirm_that_there_is_room_again() {
    let mut bench = bench();
    for index in 0..256 {
        bench.put_data(at(0), &data(index, 0), &[]);
        bench.out(at(0));
    }
    assert_eq!(bench.timeout(at(10)), [Out::Ack(2, 256)]);
    assert_eq!(bench.indices(at(LATENCY_MS)).len(), 256);
    assert_eq!(bench.out(at(LATENCY_MS)), [Out::Ack(3, 256)]);
    bench.control(at(LATENCY_MS + 10), |to, buffer| to.acknowledgement_receipt(buffer, 2));
    assert_eq!(bench.out(at(LATENCY_MS + 900)), [Out::Ack(4, 256)], "the third is lost, and said again");
}

#[test]
fn duplicates_and_strangers_are_counted_and_change_nothing() {
    let mut bench = bench();
    bench.put_data(at(0), &data(0, 0), b"first");
    bench.put_data(at(1), &data(0, 0), b"second");
    bench.put_data(at(1), &DataHeader { socket_id: 8, ..data(1, 0) }, &[]);
    bench.put(at(1), &[0; 15]);
    bench.put(at(1), &raw_control(0x123, 0, 0, &[]));
    let mut stranger = bench.datagram(at(1), &raw_control(5, 0, 0, &[]));
    stranger.peer.set_port(1);
    bench.connection.receive(at(1), stranger);
    let count = *bench.count();
    assert_eq!((count.pkt_rcv_duplicate, count.pkt_wrong_socket), (1, 1));
    assert_eq!((count.pkt_malformed, count.pkt_wrong_peer), (2, 1));
    assert_eq!(bench.payloads(at(500)), [(0, 0, b"first".to_vec())]);
}

#[test]
fn forged_control_packets_are_counted_and_believed_in_nothing() {
    let mut bench = bench();
    for index in 0..10 {
        bench.connection.send(at(0), &[index]).expect("room");
    }
    bench.out(at(0));
    let sequence = |index: u64| ((FIRST + index) & 0x7fff_ffff) as u32;

    // Acknowledgements of what was never sent, of no number, without a body.
    bench.acknowledge(at(1), 1, 11);
    bench.put(at(1), &raw_control(2, 0, 2, &words(&[0x8000_0000 | sequence(3), 1, 1, 1])));
    bench.put(at(1), &raw_control(2, 0, 3, &[1, 2]));
    assert_eq!(bench.out(at(1)), []);
    // Losses of what was never sent, with a range without end, reversed.
    bench.report_loss(at(1), 5, 10);
    bench.put(at(1), &raw_control(3, 0, 0, &words(&[0x8000_0000 | sequence(5)])));
    bench.put(at(1), &raw_control(3, 0, 0, &words(&[0x8000_0000 | sequence(6), sequence(5)])));
    assert_eq!(bench.out(at(1)), []);
    // Drops: short, reversed, beyond the window, with a hole before them.
    bench.put(at(1), &raw_control(7, 0, 0, &words(&[sequence(0)])));
    bench.put(at(1), &raw_control(7, 0, 0, &words(&[sequence(9), sequence(2)])));
    bench.put(at(1), &raw_control(7, 0, 0, &words(&[sequence(0), sequence(0x2000_0000)])));
    bench.put(at(1), &raw_control(7, 0, 0, &words(&[sequence(50), sequence(60)])));
    // An answer to no question, keys on a plain connection, both directions, as long as a datagram can be.
    bench.control(at(1), |to, buffer| to.acknowledgement_receipt(buffer, 77));
    bench.put(at(1), &raw_control(0x7fff, 3, 0, &[0xff; 1_400]));
    bench.put(at(1), &raw_control(0x7fff, 4, 0, &[0xff; 1_400]));
    // A handshake, a congestion warning, an extension of HSv4.
    bench.put(at(1), &raw_control(0, 0, 0, &[0; 64]));
    bench.put(at(1), &raw_control(4, 0, 0, &[]));
    bench.put(at(1), &raw_control(0x7fff, 1, 0, &[0; 12]));

    let count = *bench.count();
    assert_eq!((count.control_malformed, count.control_rejected, count.control_ignored), (7, 6, 3));
    assert_eq!(bench.out(at(1)), []);
    assert_eq!(bench.connection.poll_event(), None);
    assert_eq!(count.pkt_snd_loss, 0);
    bench.acknowledge(at(2), 1, 10);
    bench.connection.gauge();
    assert_eq!(bench.count().pkt_flight_size, 0);
}

#[test]
fn a_drop_request_ends_the_asking_but_not_the_delivery() {
    let mut bench = bench();
    bench.put_data(at(0), &data(0, 0), &[]);
    assert_eq!(bench.out(at(0)), [Out::Ack(1, 1)]);
    bench.put_data(at(1), &data(5, 5), &[]);
    assert_eq!(bench.out(at(1)), [Out::Nak(vec![(1, 4)])]);
    let drop = |first, last| DropRequest {
        message_number: 0,
        range: SequenceRange::new(SequenceNumber::new(FIRST + first), SequenceNumber::new(FIRST + last))
            .expect("in order"),
    };
    bench.control(at(10), |to, buffer| to.drop_request(buffer, &drop(1, 2)));
    assert!(bench.timeout(at(160)).contains(&Out::Nak(vec![(3, 4)])));
    bench.control(at(161), |to, buffer| to.drop_request(buffer, &drop(3, 7)));
    bench.put_data(at(162), &data(2, 2), &[]);
    bench.put_data(at(163), &data(8, 8), &[]);
    assert_eq!(bench.out(at(163)), []);
    let payloads: Vec<_> = bench.payloads(at(300)).into_iter().map(|(index, lost, _)| (index, lost)).collect();
    assert_eq!(payloads, [(0, 0), (2, 1), (5, 2), (8, 2)]);
    assert_eq!(bench.count().pkt_recv_drop_request, 2);
}

#[test]
fn a_jump_beyond_the_buffer_is_followed_when_two_packets_confirm_it() {
    let mut bench = bench();
    bench.put_data(at(0), &data(0, 0), &[]);
    assert_eq!(bench.indices(at(200)), [0]);
    bench.put_data(at(300), &data(100_000, 300), &[]);
    bench.put_data(at(301), &data(1, 301), &[]);
    assert_eq!(bench.indices(at(500)), [1]);
    bench.put_data(at(600), &data(5_000, 600), &[]);
    bench.put_data(at(601), &data(9_000, 601), &[]);
    assert_eq!(bench.connection.held_packets(), 0);
    bench.put_data(at(602), &data(9_001, 602), &[]);
    bench.put_data(at(603), &data(9_002, 603), &[]);
    let payloads: Vec<_> = bench.payloads(at(800)).into_iter().map(|(index, lost, _)| (index, lost)).collect();
    assert_eq!(payloads, [(9_001, 8_999), (9_002, 0)]);
    assert_eq!(bench.connection.poll_event(), Some(Event::SequenceJump { skipped: 8_999 }));
    let count = bench.count();
    assert_eq!((count.sequence_jumps, count.pkt_rcv_no_room, count.pkt_rcv_drop), (1, 3, 8_999));
}

#[test]
fn a_time_stamp_from_nowhere_does_not_block_the_others() {
    let mut bench = bench();
    bench.put_data(at(10), &data(0, 1_000_000), &[]);
    bench.put_data(at(11), &data(1, 11), &[]);
    assert_eq!(bench.indices(at(11 + LATENCY_MS)), [0, 1]);
    assert_eq!(bench.count().timestamps_disbelieved, 1);
}

/// The sender's keys and the receiver's.
fn keys(cipher: Cipher, refresh: KeyRefresh) -> (Encryption, Encryption) {
    let salt = [3; SALT_LEN];
    let kek = derive_key_encrypting_key(b"a good passphrase", &salt, KeyLength::Aes128);
    let (sending, message) = Encryption::initiate(kek.clone(), cipher, salt, [1; 32], refresh);
    (sending, Encryption::accept(kek, &message, [2; 32], KeyRefresh::default()).expect("the same passphrase"))
}

fn secured() -> (Bench, Encryption) {
    let (sending, receiving) = keys(Cipher::AesCtr, KeyRefresh { after_packets: 10, announce_packets: 2 });
    (bench_with(Limits::default(), Some(receiving)), sending)
}

/// A packet as its sender encrypts it.
fn sealed(sending: &mut Encryption, mut header: DataHeader, payload: &[u8]) -> (DataHeader, Vec<u8>) {
    let mut bytes = [payload, &[0; 16][..sending.cipher().tag_len()]].concat();
    sending.encrypt(&mut header, &mut bytes);
    (header, bytes)
}

#[test]
fn a_packet_that_cannot_be_read_takes_no_place() {
    let (mut bench, mut sending) = secured();
    let (DataHeader { key, .. }, payload) = sealed(&mut sending, data(0, 0), b"under a key");
    bench.put_data(at(0), &data(0, 0), b"plain text!");
    bench.put_data(at(0), &DataHeader { key: KeyFlag::Odd, ..data(0, 0) }, &payload);
    bench.put_data(at(0), &DataHeader { key: KeyFlag::Both, ..data(0, 0) }, &payload);
    let shared = bench.datagram(at(0), &[0; 40]);
    let other = shared.packet.clone();
    let mut header = [0; HEADER_LEN];
    DataHeader { key, ..data(0, 0) }.encode(&mut header);
    let packet = bench.pool.copy_from(&[&header[..], &payload].concat()).expect("a slot");
    let _twin = packet.clone();
    bench.connection.receive(at(0), Datagram { packet, ..shared });
    drop(other);
    assert_eq!(bench.connection.held_packets(), 0);
    bench.put_data(at(1), &DataHeader { key, ..data(0, 0) }, &payload);
    assert_eq!(bench.payloads(at(200)), [(0, 0, b"under a key".to_vec())]);
    let count = bench.count();
    assert_eq!((count.pkt_rcv_undecrypt, count.pkt_rcv_unencrypted, count.pkt_rcv_not_writable), (4, 1, 1));
    assert_eq!(count.pkt_rcv_drop, 0);
}

#[test]
fn a_forged_packet_under_aes_gcm_takes_no_place_and_is_counted_for_what_it_is() {
    let (mut sending, receiving) = keys(Cipher::AesGcm, KeyRefresh::default());
    let mut bench = bench_with(Limits { send_buffer_packets: 64, ..Limits::default() }, Some(receiving));
    let (header, genuine) = sealed(&mut sending, data(0, 0), b"under a key");
    let mut forged = genuine.clone();
    forged[3] ^= 1;
    bench.put_data(at(0), &header, &forged);
    bench.put_data(at(0), &DataHeader { timestamp_us: 9, ..header }, &genuine);
    bench.put_data(at(0), &header, &genuine[..15]);
    let kek = derive_key_encrypting_key(b"a good passphrase", &[3; SALT_LEN], KeyLength::Aes128);
    let (mut other, _) = Encryption::initiate(kek, Cipher::AesGcm, [3; SALT_LEN], [9; 32], KeyRefresh::default());
    let (_, foreign) = sealed(&mut other, data(0, 0), b"under a key");
    bench.put_data(at(0), &header, &foreign);
    bench.put_data(at(0), &data(0, 0), b"plain text!");
    assert_eq!((bench.connection.held_packets(), bench.out(at(20))), (0, vec![]));
    // What is real is taken in afterwards, sent again or not, and a repetition is known before it is decrypted.
    bench.put_data(at(21), &DataHeader { retransmitted: true, ..header }, &genuine);
    bench.put_data(at(22), &header, &forged);
    assert_eq!(bench.payloads(at(200)), [(0, 0, b"under a key".to_vec())]);
    let count = bench.count();
    assert_eq!((count.pkt_rcv_undecrypt, count.pkt_rcv_unencrypted, count.pkt_rcv_not_authentic), (5, 1, 4));
    assert_eq!((count.pkt_rcv_duplicate, count.pkt_rcv_drop), (1, 0));
    assert_eq!((count.byte_recv_unique, count.pkt_recv_unique), (11, 1), "a tag is no payload");
    // The tag takes its room from the payload.
    assert_eq!(bench.connection.parameters().payload_size_max(), 1_456 - 16);
    assert_eq!(bench.connection.send(at(201), &[0; 1_441]), Err(SendError::TooLong { length: 1_441, limit: 1_440 }));
    assert_eq!(bench.connection.send(at(201), &[0; 1_440]), Ok(()));
}

#[test]
fn an_encrypted_packet_on_a_plain_connection_is_undecryptable() {
    let mut bench = bench();
    bench.put_data(at(0), &DataHeader { key: KeyFlag::Even, ..data(0, 0) }, &[1; 8]);
    assert_eq!((bench.connection.held_packets(), bench.count().pkt_rcv_undecrypt), (0, 1));
}

#[test]
fn new_keys_are_taken_and_answered_and_bad_ones_refused_with_a_state() {
    let (mut bench, mut sending) = secured();
    for index in 0..9 {
        sealed(&mut sending, data(index, 0), &[0; 4]);
    }
    let request = sending.poll_request(at(0), Duration::ZERO).expect("announced").to_vec();
    bench.control(at(1), |to, buffer| to.key_material_request(buffer, &request));
    assert_eq!(bench.out(at(1)), [Out::KeyMaterialResponse(request.len())]);
    bench.control(at(2), |to, buffer| to.key_material_request(buffer, &request));
    assert_eq!(bench.out(at(2)), [Out::KeyMaterialResponse(request.len())]);
    assert_eq!(bench.connection.poll_event(), Some(Event::KeyRefreshed));
    assert_eq!(bench.connection.poll_event(), None);
    let mut other_cipher = request.clone();
    other_cipher[8] = 3;
    bench.put(at(3), &raw_control(0x7fff, 3, 0, &other_cipher));
    assert_eq!(bench.out(at(3)), [Out::KeyMaterialResponse(4)]);
    assert!(matches!(bench.connection.poll_event(), Some(Event::KeyRefreshFailed(_))));
    // What is no such message is not answered: the peer would take it for the answer to its own.
    for broken in [&request[..40], &[0xff; 1_400], &[]] {
        bench.put(at(3), &raw_control(0x7fff, 3, 0, broken));
        assert_eq!((bench.out(at(3)), bench.connection.poll_event()), (vec![], None));
    }
    let count = bench.count();
    assert_eq!((count.key_refreshes, count.key_refresh_failures, count.control_malformed), (1, 1, 3));
}

#[test]
fn a_silent_connection_keeps_itself_alive_and_a_silent_peer_ends_it() {
    let mut bench = bench();
    assert_eq!(bench.connection.next_timeout(), Some(at(1_000)));
    assert_eq!(bench.timeout(at(999)), []);
    assert_eq!(bench.timeout(at(1_000)), [Out::KeepAlive]);
    assert_eq!(bench.connection.next_timeout(), Some(at(2_000)));
    bench.control(at(1_500), |to, buffer| to.keep_alive(buffer));
    assert_eq!(bench.timeout(at(6_499)), [Out::KeepAlive]);
    assert_eq!(bench.timeout(at(6_500)), []);
    assert_eq!(bench.connection.poll_event(), Some(Event::Closed(CloseReason::PeerIdle)));
    assert!(bench.connection.is_closed());
    assert_eq!((bench.connection.next_timeout(), bench.out(at(9_000))), (None, vec![]));
}

#[test]
fn after_a_shutdown_what_is_held_is_still_delivered_in_time() {
    let mut bench = bench();
    for index in [0, 1, 3] {
        bench.put_data(at(index), &data(index, index), &[]);
    }
    bench.control(at(10), |to, buffer| to.shutdown(buffer));
    assert_eq!(bench.connection.poll_event(), None);
    assert_eq!(bench.connection.next_timeout(), Some(at(LATENCY_MS)));
    assert_eq!(bench.indices(at(LATENCY_MS + 3)), [0, 1, 3]);
    assert_eq!(bench.connection.poll_event(), Some(Event::Closed(CloseReason::PeerShutdown)));
    assert_eq!(bench.out(at(200)), []);
}

#[test]
fn closing_tells_the_peer_and_lets_go_of_everything() {
    let mut bench = bench();
    bench.put_data(at(0), &data(0, 0), &[]);
    bench.put_data(at(0), &data(9, 0), &[]);
    bench.connection.close(at(1), CloseReason::TakenOver);
    assert_eq!(bench.out(at(1)), [Out::Shutdown]);
    assert_eq!(bench.connection.poll_event(), Some(Event::Closed(CloseReason::TakenOver)));
    assert_eq!((bench.pool.in_use(), bench.connection.next_timeout()), (0, None));
    assert_eq!(bench.connection.send(at(2), &[1]), Err(SendError::NotSending));
    assert_eq!(bench.payloads(at(900)), []);
}

#[test]
fn a_sender_sends_once_again_when_asked_and_frees_when_acknowledged() {
    let mut bench = bench();
    for index in 0..4 {
        bench.connection.send(at(0), &[index]).expect("room");
    }
    assert_eq!(bench.out(at(0)), (0..4).map(|index| Out::Data(index, false)).collect::<Vec<_>>());
    bench.report_loss(at(40), 1, 2);
    assert_eq!(bench.out(at(40)), [Out::Data(1, true), Out::Data(2, true)]);
    bench.acknowledge(at(60), 5, 4);
    assert_eq!(bench.out(at(60)), [Out::Receipt(5)]);
    bench.report_loss(at(70), 1, 2);
    assert_eq!(bench.out(at(70)), [Out::Drop(1, 3)]);
    let count = bench.count();
    assert_eq!((count.pkt_sent, count.pkt_sent_unique, count.pkt_retrans, count.pkt_snd_loss), (6, 4, 2, 2));
}

#[test]
fn a_sender_keeps_to_the_window_of_its_peer_and_probes_a_silent_one() {
    let mut bench = bench();
    for index in 0..6 {
        bench.connection.send(at(0), &[index]).expect("room");
    }
    bench.buffer.clear();
    let report = ReceiverReport { rtt_us: 30_000, rtt_variance_us: 0, available_buffer_packets: 2, rates: None };
    let next = SequenceNumber::new(FIRST);
    bench.control(at(1), |to, buffer| {
        to.acknowledgement(buffer, &Acknowledgement { number: 1, next, report: Some(report) })
    });
    assert_eq!(bench.out(at(1)), [Out::Receipt(1), Out::Data(0, false), Out::Data(1, false)]);
    assert_eq!(bench.timeout(at(50)), []);
    // Round trip 30 ms and 20 ms to react: then the newest again.
    assert_eq!(bench.timeout(at(51)), [Out::Data(1, true)]);
    bench.acknowledge(at(60), 2, 2);
    assert_eq!(bench.out(at(60))[1..], [2, 3, 4, 5].map(|index| Out::Data(index, false)));
}

#[test]
fn a_loss_report_at_the_time_of_a_probe_leaves_no_time_out_that_is_due_at_once() {
    let mut bench = bench();
    for index in 0..3 {
        bench.connection.send(at(0), &[index]).expect("room");
    }
    bench.out(at(0));
    // Nothing is known of the round trip: patience is 300 ms, and 20 ms to react.
    bench.report_loss(at(320), 0, 1);
    assert_eq!(bench.timeout(at(320)), [0, 1, 2].map(|index| Out::Data(index, true)));
    assert!(bench.connection.next_timeout().is_some_and(|due| due > at(320)));
}

#[test]
fn a_sender_gives_up_what_nobody_waits_for_any_more() {
    let mut bench = bench();
    for index in 0..3 {
        bench.connection.send(at(index * 10), &[1]).expect("room");
    }
    bench.out(at(20));
    bench.timeout(at(1_025));
    assert_eq!(bench.count().pkt_snd_drop, 1);
    bench.report_loss(at(1_026), 0, 1);
    assert_eq!(bench.out(at(1_026))[0], Out::Drop(0, 0));
}

#[test]
fn a_payload_that_does_not_fit_is_refused() {
    let mut bench = bench();
    assert_eq!(bench.connection.send(at(0), &[0; 1_457]), Err(SendError::TooLong { length: 1_457, limit: 1_456 }));
    for _ in 0..256 {
        bench.connection.send(at(0), &[0; 1_456]).expect("room");
    }
    assert_eq!(bench.connection.send(at(0), &[0]), Err(SendError::BufferFull));
}

#[test]
fn events_nobody_polls_take_no_more_than_their_room() {
    let mut bench = bench();
    for code in 0..100 {
        bench.control(at(1), |to, buffer| to.peer_error(buffer, code));
    }
    assert_eq!(std::iter::from_fn(|| bench.connection.poll_event()).count(), EVENTS_MAX);
    assert_eq!(bench.count().events_lost, 100 - EVENTS_MAX as u64);
}
