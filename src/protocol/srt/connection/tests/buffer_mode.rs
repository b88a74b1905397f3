//! Buffer and message mode: all of it, in order, whenever that is.

use super::*;
use crate::protocol::srt::control::ReceivingRates;
use crate::protocol::srt::packet::PacketPosition::{First, Last, Middle, Only};
use crate::protocol::srt::transmission_mode::TransmissionMode;

fn bench_in(mode: TransmissionMode, limits: Limits) -> Bench {
    let features = Features::in_mode(mode, mode.flags());
    let parameters = ConnectionParameters {
        mode,
        receive_latency_ms: 0,
        send_latency_ms: 0,
        peer_flow_window: 100,
        ..parameters(features, None)
    };
    bench_of(limits, parameters)
}

fn file() -> Bench {
    let limits = Limits { send_buffer_packets: 256, receive_buffer_packets: 256, ..Limits::default() };
    bench_in(TransmissionMode::Buffer, limits)
}

impl Bench {
    /// An acknowledgement that names room and rates, as libsrt's receivers send them.
    fn acknowledge_with(&mut self, now: Instant, number: u32, next: u64, room: u32) {
        let rates = ReceivingRates {
            packets_per_second: 1_000,
            link_capacity_packets_per_second: 1_000,
            bytes_per_second: None,
        };
        let report = ReceiverReport {
            rtt_us: 30_000,
            rtt_variance_us: 1_000,
            available_buffer_packets: room,
            rates: Some(rates),
        };
        let next = SequenceNumber::new(FIRST + next);
        self.control(now, |to, buffer| {
            to.acknowledgement(buffer, &Acknowledgement { number, next, report: Some(report) })
        });
    }
}

#[test]
fn bytes_come_out_as_soon_as_nothing_is_missing_before_them_whatever_their_message_bits_say() {
    for early in [false, true] {
        let mut bench = file();
        let take = |bench: &mut Bench, now| -> Vec<u64> {
            let connection = &mut bench.connection;
            let poll = || if early { connection.poll_payload_early(now) } else { connection.poll_payload(now) };
            std::iter::from_fn(poll).map(|payload| payload.sequence - FIRST).collect()
        };
        for (index, position) in [(0, First), (1, Middle), (3, Last)] {
            bench.put_data(at(5), &DataHeader { position, ..data(index, 5) }, &[index as u8]);
        }
        assert_eq!(take(&mut bench, at(5)), [0, 1], "no end of a message is waited for");
        assert_eq!(take(&mut bench, at(60_000)), Vec::<u64>::new(), "and what is missing is, for ever");
        bench.put_data(at(60_001), &DataHeader { retransmitted: true, ..data(2, 5) }, &[2]);
        assert_eq!(take(&mut bench, at(60_001)), [2, 3]);
        assert_eq!((bench.count().pkt_rcv_drop, bench.count().pkt_delivered, bench.pool.in_use()), (0, 4, 0));
    }
}

#[test]
fn a_message_goes_up_in_parts_and_its_end_is_told() {
    let mut bench = bench_in(TransmissionMode::Message, Limits { receive_buffer_packets: 64, ..Limits::default() });
    // Longer than the buffer.
    for index in 0..200 {
        let position = match index {
            0 => First,
            199 => Last,
            _ => Middle,
        };
        bench.put_data(at(index), &DataHeader { position, in_order: true, ..data(index, 0) }, &[]);
        let payload = bench.connection.poll_payload(at(index)).expect("nothing is missing");
        assert_eq!((payload.sequence - FIRST, payload.ends_message), (index, index == 199));
    }
}

#[test]
fn one_who_does_not_read_stops_the_sender_and_tells_it_when_there_is_room_again() {
    let mut bench = bench_in(TransmissionMode::Buffer, Limits { receive_buffer_packets: 64, ..Limits::default() });
    for index in 0..64 {
        bench.put_data(at(0), &data(index, 0), &[]);
    }
    let full = bench.out(at(20));
    assert!(full.contains(&Out::Ack(1, 64)), "{full:?}");
    assert_eq!(bench.connection.receiver.free(), 0);
    bench.put_data(at(21), &data(64, 0), &[]);
    assert_eq!((bench.count().pkt_rcv_no_room, bench.count().sequence_jumps), (1, 0));
    assert_eq!(bench.indices(at(30)).len(), 64);
    let next = bench.connection.next_timeout().expect("it says so by itself");
    assert!(next <= at(40), "{next:?}");
    assert_eq!(bench.out(next), [Out::Ack(2, 64)]);
    assert_eq!(bench.connection.receiver.free(), 64);
}

#[test]
fn a_word_that_there_is_no_room_that_was_overtaken_by_one_of_room_does_not_count() {
    let is_sent = |numbers: [u32; 2]| {
        let mut bench = file();
        bench.connection.send(at(0), b"0").unwrap();
        assert_eq!(bench.out(at(0)), [Out::Data(0, false)]);
        bench.acknowledge_with(at(30), numbers[0], 1, 64);
        bench.acknowledge_with(at(31), numbers[1], 1, 0);
        bench.connection.send(at(100), b"1").unwrap();
        bench.out(at(100)).contains(&Out::Data(1, false))
    };
    assert!(is_sent([2, 1]) && is_sent([3, 0x7fff_ffff]), "the room was told later");
    assert!(!is_sent([1, 2]) && !is_sent([0x7fff_ffff, 1]), "it was told before");
    assert!(!is_sent([1_000, 1]), "as of a challenge, whose number says nothing");
}

#[test]
fn nobody_jumps_over_bytes_of_a_file() {
    let mut bench = bench_in(TransmissionMode::Buffer, Limits { receive_buffer_packets: 64, ..Limits::default() });
    for index in 500..510 {
        bench.put_data(at(index), &data(index, 0), &[]);
    }
    assert_eq!((bench.count().pkt_rcv_no_room, bench.count().sequence_jumps), (10, 0));
    assert_eq!(bench.connection.poll_event(), None);
    bench.put_data(at(600), &data(0, 0), b"first");
    assert_eq!(bench.payloads(at(600)), [(0, 0, b"first".to_vec())]);
}

#[test]
fn each_loss_is_reported_once_and_none_is_left_out() {
    let mut bench = file();
    // More gaps than are kept apart.
    for index in (0..200).step_by(2) {
        bench.put_data(at(1), &data(index, 0), &[]);
    }
    let reported: Vec<(u64, u64)> = bench
        .out(at(2))
        .into_iter()
        .filter_map(|out| match out {
            Out::Nak(runs) => Some(runs),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(reported, (1..199).step_by(2).map(|index| (index, index)).collect::<Vec<_>>());
    for ms in (10..2_000).step_by(10) {
        let out = bench.timeout(at(ms));
        assert!(!out.iter().any(|out| matches!(out, Out::Nak(_))), "{out:?}");
    }
}

#[test]
fn what_the_sender_will_not_send_any_more_is_told_as_lost() {
    let mut bench = file();
    for index in [0, 3, 4] {
        bench.put_data(at(1), &data(index, 0), &[]);
    }
    assert_eq!(bench.payloads(at(2)), [(0, 0, vec![])]);
    let range = SequenceRange::new(SequenceNumber::new(FIRST + 1), SequenceNumber::new(FIRST + 2)).expect("in order");
    bench.control(at(3), |to, buffer| to.drop_request(buffer, &DropRequest { message_number: 1, range }));
    assert_eq!(bench.payloads(at(3)), [(3, 2, vec![]), (4, 0, vec![])]);
    assert_eq!(bench.count().pkt_rcv_drop, 2);
}

#[test]
fn an_end_tells_whether_anything_is_missing() {
    let end = |indices: &[u64]| {
        let mut bench = file();
        for &index in indices {
            bench.put_data(at(1), &data(index, 0), &[]);
        }
        bench.control(at(2), |to, buffer| to.shutdown(buffer));
        let read = bench.indices(at(3));
        assert_eq!(bench.connection.poll_event(), Some(Event::Closed(CloseReason::PeerShutdown)));
        assert!(bench.connection.is_closed());
        assert_eq!((bench.connection.held_packets(), bench.pool.in_use()), (0, 0));
        (read, bench.count().pkt_rcv_drop)
    };
    assert_eq!(end(&[0, 1, 2]), (vec![0, 1, 2], 0));
    assert_eq!(end(&[0, 1, 3, 4, 6]), (vec![0, 1], 5), "what is missing, and what is held behind it");
    assert_eq!(end(&[]), (vec![], 0));
}

#[test]
fn a_sender_keeps_to_its_congestion_window_and_to_its_intervals() {
    let mut bench = file();
    for _ in 0..200 {
        bench.connection.send(at(0), &[0; 1_456]).expect("room");
    }
    // Slow start: a window of 16, and no interval to speak of.
    assert_eq!(bench.out(at(1)).len(), 16);
    bench.acknowledge_with(at(11), 1, 16, 8_000);
    assert_eq!(bench.out(at(12)).len(), 1 + 32);
    // A loss ends it: 1,000 packets a second are told, so one each 1.03 ms, and what was lost goes first.
    bench.report_loss(at(20), 20, 21);
    let mut sent = Vec::new();
    for ms in 20..60 {
        sent.extend(bench.timeout(at(ms)).into_iter().map(|out| (ms, out)));
    }
    let data: Vec<_> = sent
        .iter()
        .filter_map(|(ms, out)| match out {
            Out::Data(index, again) => Some((*ms, *index, *again)),
            _ => None,
        })
        .collect();
    assert_eq!((data[0].1, data[0].2, data[1].1, data[1].2), (20, true, 21, true));
    assert_eq!(bench.count().pkt_snd_loss, 2);
    bench.connection.gauge();
    assert!((1_000.0..1_100.0).contains(&bench.count().us_pkt_snd_period), "{}", bench.count().us_pkt_snd_period);
    assert!(bench.connection.next_timeout().is_some());
}

#[test]
fn a_receiver_without_room_is_sent_nothing_until_it_has_some() {
    let mut bench = file();
    for _ in 0..100 {
        bench.connection.send(at(0), &[0; 100]).expect("room");
    }
    assert_eq!(bench.out(at(1)).len(), 16);
    bench.acknowledge_with(at(11), 1, 16, 0);
    assert_eq!(bench.out(at(12)), [Out::Receipt(1)]);
    for ms in (20..900).step_by(10) {
        assert_eq!(bench.timeout(at(ms)), [], "after {ms} ms");
    }
    bench.acknowledge_with(at(901), 2, 16, 5);
    let out = bench.out(at(902));
    assert_eq!(out.iter().filter(|out| matches!(out, Out::Data(..))).count(), 5, "{out:?}");
}

#[test]
fn what_nobody_answers_is_sent_again_from_the_oldest_on() {
    let mut bench = file();
    for _ in 0..10 {
        bench.connection.send(at(0), &[0; 100]).expect("room");
    }
    assert_eq!(bench.out(at(1)).len(), 10);
    assert_eq!(bench.timeout(at(200)), []);
    // A round trip of 100 ms is assumed, with deviations of 50.
    let again = bench.timeout(at(1 + 300 + 20 + 1));
    assert_eq!(again.first(), Some(&Out::Data(0, true)), "{again:?}");
}

#[test]
fn acknowledged_bytes_are_asked_for_in_vain() {
    let mut bench = file();
    for _ in 0..10 {
        bench.connection.send(at(0), &[0; 100]).expect("room");
    }
    assert_eq!(bench.out(at(1)).len(), 10);
    bench.acknowledge_with(at(11), 1, 10, 100);
    bench.report_loss(at(12), 3, 4);
    let out = bench.out(at(13));
    assert_eq!(out, [Out::Receipt(1)], "no drop request: the peer has said that it has them");
}

#[test]
fn one_who_cannot_keep_a_file_says_so_before_the_end() {
    let mut bench = file();
    bench.put_data(at(1), &data(0, 0), &[]);
    bench.connection.fail(at(2), PEER_ERROR_FILE_SYSTEM);
    assert_eq!(bench.out(at(2)), [Out::PeerError(4_000), Out::Shutdown]);
    assert!(bench.connection.is_closed());
    assert_eq!(bench.pool.in_use(), 0);
}

#[test]
fn single_packets_are_messages_in_order_for_those_who_look() {
    let mut bench = bench_in(TransmissionMode::Message, Limits { send_buffer_packets: 64, ..Limits::default() });
    bench.connection.send(at(0), b"a message").expect("room");
    bench.buffer.clear();
    bench.connection.poll_transmit(at(1), &mut bench.buffer).expect("a packet");
    let Ok(Header::Data(header)) = packet::parse(&bench.buffer) else { panic!("data") };
    assert_eq!((header.position, header.in_order, header.message_number), (Only, true, 1));
}
