//! Messages of several packets (draft-sharabayko-srt §4.2.1), which senders in live mode never send.

use super::*;
use crate::protocol::srt::packet::PacketPosition::{self, First, Last, Middle, Only};

impl Bench {
    /// Packets with these positions and numbers; each has its number for a payload, and all the time stamp 10 ms.
    fn put_parts(&mut self, parts: &[(u64, PacketPosition)]) {
        for &(index, position) in parts {
            self.put_data(at(15), &DataHeader { position, ..data(index, 10) }, &[index as u8]);
        }
    }

    /// Number, how many are missing before it, and whether a message ends with it.
    fn parts(&mut self, now: Instant, early: bool) -> Vec<(u64, u32, bool)> {
        let connection = &mut self.connection;
        std::iter::from_fn(|| if early { connection.poll_payload_early(now) } else { connection.poll_payload(now) })
            .map(|payload| {
                assert_eq!(*payload.packet, [(payload.sequence - FIRST) as u8]);
                (payload.sequence - FIRST, payload.lost_before, payload.ends_message)
            })
            .collect()
    }
}

const DUE: u64 = 10 + LATENCY_MS;

#[test]
fn a_message_is_handed_up_as_a_whole_when_it_is_due() {
    let mut bench = bench();
    bench.put_parts(&[(2, Last), (0, First), (1, Middle), (3, Only), (4, First), (5, Last)]);
    assert_eq!(bench.parts(at(DUE - 1), false), []);
    let whole = [(0, 0, false), (1, 0, false), (2, 0, true), (3, 0, true), (4, 0, false), (5, 0, true)];
    assert_eq!(bench.parts(at(DUE), false), whole);
    assert_eq!((bench.count().pkt_delivered, bench.count().pkt_rcv_drop, bench.count().msg_rcv_drop), (6, 0, 0));
}

#[test]
fn before_it_is_due_a_message_goes_up_once_all_of_it_is_there() {
    let mut bench = bench();
    bench.put_parts(&[(0, First), (1, Middle)]);
    assert_eq!(bench.parts(at(20), true), []);
    bench.put_parts(&[(2, Last), (3, First)]);
    assert_eq!(bench.parts(at(20), true), [(0, 0, false), (1, 0, false), (2, 0, true)]);
    bench.put_parts(&[(4, Last)]);
    assert_eq!(bench.parts(at(20), true), [(3, 0, false), (4, 0, true)]);
}

#[test]
fn a_message_with_a_hole_is_given_up_as_a_whole_and_counted() {
    for hole in 1..=4 {
        let mut bench = bench();
        let all = [(0, Only), (1, First), (2, Middle), (3, Middle), (4, Last), (5, First), (6, Last)];
        let there: Vec<_> = all.into_iter().filter(|&(index, _)| index != hole).collect();
        bench.put_parts(&there);
        assert_eq!(bench.parts(at(20), true), [(0, 0, true)], "what is missing may still come");
        assert_eq!(bench.parts(at(DUE), false), [(5, 4, false), (6, 0, true)], "without packet {hole}");
        let count = bench.count();
        assert_eq!((count.pkt_delivered, count.pkt_rcv_drop, count.msg_rcv_drop), (3, 4, 1), "without packet {hole}");
        assert_eq!((bench.connection.held_packets(), bench.pool.in_use()), (0, 0));
        // What comes too late is belated, and opens no message.
        bench.put_parts(&[(hole, all[hole as usize].1)]);
        assert_eq!((bench.count().pkt_rcv_belated, bench.connection.held_packets()), (1, 0));
    }
}

#[test]
fn a_message_whose_end_has_not_come_when_it_is_due_is_given_up_with_what_comes_of_it_later() {
    let mut bench = bench();
    bench.put_parts(&[(0, First), (1, Middle)]);
    assert_eq!(bench.parts(at(DUE), false), []);
    assert_eq!((bench.connection.held_packets(), bench.count().pkt_rcv_drop, bench.count().msg_rcv_drop), (0, 2, 1));
    bench.put_parts(&[(2, Middle), (3, Last), (4, Only)]);
    assert_eq!(bench.parts(at(DUE), false), [(4, 4, true)]);
    assert_eq!((bench.count().pkt_rcv_drop, bench.count().msg_rcv_drop), (4, 1));
}

#[test]
fn a_message_that_the_sender_drops_is_given_up_as_a_whole() {
    let mut bench = bench();
    bench.put_parts(&[(0, Only), (1, First), (3, Last), (4, Only)]);
    let range = SequenceRange::new(SequenceNumber::new(FIRST + 1), SequenceNumber::new(FIRST + 3)).expect("in order");
    bench.control(at(20), |to, buffer| to.drop_request(buffer, &DropRequest { message_number: 2, range }));
    assert_eq!(bench.timeout(at(600)).into_iter().filter(|out| matches!(out, Out::Nak(_))).count(), 0);
    assert_eq!(bench.parts(at(DUE), false), [(0, 0, true), (4, 3, true)]);
    assert_eq!((bench.count().pkt_rcv_drop, bench.count().msg_rcv_drop), (3, 1));
}

#[test]
fn messages_stay_in_order_though_their_flag_would_allow_otherwise() {
    let mut bench = bench();
    bench.put_parts(&[(2, First), (3, Last)]);
    assert_eq!(bench.parts(at(20), true), []);
    bench.put_parts(&[(0, First), (1, Last)]);
    assert_eq!(bench.parts(at(20), true).into_iter().map(|(index, ..)| index).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn a_loss_report_goes_on_in_as_many_packets_as_it_takes() {
    // Every other packet of a thousand is missing: two words of the list for none of them, 364 to a packet.
    let mut bench = bench_with(Limits { receive_buffer_packets: 1_024, ..Limits::default() }, None);
    for index in (0..1_000).filter(|index| index % 2 == 0) {
        bench.put_data(at(1), &data(index, 1), b"x");
    }
    bench.out(at(1));
    let due = bench.connection.receiver.nak_at();
    assert!(due < at(LATENCY_MS + 100));
    let named: Vec<_> = bench
        .timeout(due)
        .into_iter()
        .filter_map(|out| if let Out::Nak(runs) = out { Some(runs) } else { None })
        .collect();
    assert_eq!(named.iter().map(Vec::len).collect::<Vec<_>>(), [363, 136]);
    assert_eq!(named.concat(), (0..499).map(|n| (2 * n + 1, 2 * n + 1)).collect::<Vec<_>>());
    assert_eq!(bench.out(due), [], "once each period");
}
