use super::*;
use crate::base::{PacketPool, PoolOptions};
use crate::protocol::srt::control::{Control, ControlWriter, DropRequest, SequenceRange};
use crate::protocol::srt::packet::{HEADER_LEN, SequenceNumber};
use crate::protocol::srt::parameters::{Features, PeerTimeBase, Role};
use crate::protocol::srt::snapshot::{RestoreError, SNAPSHOT_HEADER_LEN, SnapshotKind, seal};
use crate::protocol::srt::transmission_mode::TransmissionMode;

const FIRST: u64 = 0x7fff_fff0;
const LATENCY_MS: u64 = 120;
const PEER_GROUP: Membership = Membership { group_id: 0x4000_0005, group_type: GroupType::Broadcast, weight: 0 };
const LIMITS: Limits = Limits {
    receive_buffer_packets: 64,
    send_buffer_packets: 0,
    peer_idle_timeout: Duration::from_secs(5),
    reorder_tolerance: 0,
};

/// The sender's clock shows what ours does, less a second.
fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000 + ms)
}

fn peer(leg: u32) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, leg as u8 + 1], 40_000))
}

/// Of a leg whose handshake came at `now` and showed a clock of its own, and another first number, unless it is the first.
fn parameters(leg: u32, now: u64) -> ConnectionParameters {
    let timestamp_us = if leg == 0 { now as u32 * 1_000 } else { 77_000_000 };
    ConnectionParameters {
        socket_id: 100 + leg,
        peer_socket_id: 200 + leg,
        initial_sequence: SequenceNumber::new(FIRST + 7 * u64::from(leg)),
        peer_time_base: PeerTimeBase { timestamp_us, arrival: at(now) },
        receive_latency_ms: LATENCY_MS as u16,
        ..ConnectionParameters::plain(Role::Receiver, peer(leg), at(now))
    }
}

struct Bench {
    group: Group,
    pool: PacketPool,
}

/// Which payload, by which legs, recovered, how many missing before it.
type Up = (u64, u8, bool, u32);

/// What a leg's peer was sent.
#[derive(Debug, PartialEq, Eq)]
enum Out {
    Ack(u32, u64),
    Nak(u32, Vec<(u64, u64)>),
}

fn index(sequence: SequenceNumber) -> u64 {
    sequence.distance(SequenceNumber::new(FIRST)) as u64
}

impl Bench {
    fn new(group_type: GroupType, legs: u32) -> Self {
        let pool = PacketPool::new(PoolOptions { slots: 512, ..PoolOptions::default() }).expect("memory");
        let peer_group = Membership { group_type, ..PEER_GROUP };
        let group = Group::new(at(0), 0x4000_0077, peer_group, parameters(0, 0), LIMITS);
        let mut bench = Self { group, pool };
        for leg in 1..legs {
            assert_eq!(bench.join(0, leg), leg as u8);
        }
        bench
    }

    fn join(&mut self, now: u64, leg: u32) -> u8 {
        self.group.join(at(now), 0, parameters(leg, now), LIMITS)
    }

    /// Another process goes on with the group, and has nothing but the bytes.
    fn put_down(&mut self) {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        self.group.snapshot(&mut before);
        let restored = Group::restore(&before, 64, |bytes| self.pool.copy_from(bytes));
        self.group = restored.expect("what was just written");
        self.group.snapshot(&mut after);
        assert!(before == after, "a snapshot of what was restored is the same");
    }

    fn put_bytes(&mut self, now: u64, leg: u32, bytes: &[u8]) {
        let packet = self.pool.copy_from(bytes).expect("a slot");
        let peer = peer(leg);
        let datagram = Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: at(now) };
        self.group.receive(at(now), datagram);
    }

    /// Packet `index`, sent at `index` ms, comes by a leg.
    fn put(&mut self, now: u64, leg: u32, index: u64) {
        self.put_stamped(now, leg, index, index as u32 * 1_000);
    }

    fn put_stamped(&mut self, now: u64, leg: u32, index: u64, timestamp_us: u32) {
        let sequence = SequenceNumber::new(FIRST + index);
        let header =
            DataHeader { sequence, timestamp_us, socket_id: 100 + leg, message_number: 1, ..DataHeader::default() };
        let mut bytes = [0; HEADER_LEN];
        header.encode(&mut bytes);
        let bytes = [&bytes[..], &index.to_be_bytes()].concat();
        self.put_bytes(now, leg, &bytes);
    }

    fn control(&mut self, now: u64, leg: u32, write: impl FnOnce(ControlWriter, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(ControlWriter { timestamp_us: now as u32 * 1_000, socket_id: 100 + leg }, &mut bytes);
        self.put_bytes(now, leg, &bytes);
    }

    fn up(&mut self, now: u64, early: bool) -> Vec<Up> {
        let mut all = Vec::new();
        loop {
            let payload = if early { self.group.poll_payload_early(at(now)) } else { self.group.poll_payload(at(now)) };
            let Some(payload) = payload else { return all };
            let index = payload.sequence - FIRST;
            assert_eq!(payload.packet.as_slice(), index.to_be_bytes(), "the payload of its number");
            assert_eq!(payload.due, at(index + LATENCY_MS), "one time for all legs");
            all.push((index, payload.path_mask, payload.recovered, payload.lost_before));
        }
    }

    fn early(&mut self, now: u64) -> Vec<Up> {
        self.up(now, true)
    }

    fn out(&mut self, now: u64) -> Vec<Out> {
        self.group.handle_timeout(at(now));
        let (mut out, mut buffer) = (Vec::new(), Vec::new());
        while let Some(transmit) = self.group.poll_transmit(at(now), &mut buffer) {
            let bytes = std::mem::take(&mut buffer);
            let Ok(Header::Control(header)) = packet::parse(&bytes) else { panic!("a receiver sends no data") };
            let leg = header.socket_id - 200;
            assert_eq!(transmit.peer, peer(leg));
            match Control::parse(&header, &bytes[HEADER_LEN..]).expect("well-formed") {
                Control::Acknowledgement(ack) => out.push(Out::Ack(leg, index(ack.next))),
                Control::LossReport(report) => {
                    let ranges = report.ranges().map(|it| (index(it.first()), index(it.last()))).collect();
                    out.push(Out::Nak(leg, ranges));
                }
                Control::KeepAlive | Control::Shutdown => {}
                other => panic!("{other:?}"),
            }
        }
        out
    }

    fn naks(&mut self, now: u64) -> Vec<Out> {
        self.out(now).into_iter().filter(|out| matches!(out, Out::Nak(..))).collect()
    }

    fn leg(&self, leg: u32) -> &Leg {
        let is_its = |it: &&Leg| it.connection.parameters().socket_id == 100 + leg;
        self.group.legs.iter().find(is_its).expect("it is there")
    }

    /// Lost on a leg, and of that brought by others.
    fn losses(&self, leg: u32) -> (u64, u64) {
        let leg = self.leg(leg);
        (leg.connection.statistics().pkt_rcv_loss, leg.statistics.pkt_rcv_elsewhere)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.group.poll_event()).collect()
    }
}

#[test]
fn every_packet_comes_up_once_whichever_leg_brings_it_first() {
    for early in [true, false] {
        let mut bench = Bench::new(GroupType::Broadcast, 2);
        for index in 0..40 {
            let (first, second) = if index % 3 == 0 { (1, 0) } else { (0, 1) };
            bench.put(index + 1, first, index);
            if index % 2 == 0 {
                bench.put(index + 1, second, index);
            }
            let expected = if index % 2 == 0 { 0b11 } else { 1 << first };
            let up = bench.up(if early { index + 1 } else { index + LATENCY_MS }, early);
            assert_eq!(up.iter().map(|it| (it.0, it.1, it.3)).collect::<Vec<_>>(), [(index, expected, 0)]);
            // Again, and late, by the other.
            bench.put(index + LATENCY_MS, second, index);
            assert_eq!(bench.up(index + LATENCY_MS, early), []);
        }
        assert_eq!((bench.group.held_packets(), bench.group.pkt_rcv_drop, bench.group.pkt_delivered), (0, 0, 40));
    }
}

#[test]
fn nothing_is_handed_up_before_its_time_unless_the_caller_waits_himself() {
    let mut bench = Bench::new(GroupType::Broadcast, 2);
    bench.put(5, 1, 0);
    assert_eq!(bench.out(5), [Out::Ack(1, 1)]);
    assert_eq!(bench.up(LATENCY_MS - 1, false), []);
    assert_eq!(bench.up(LATENCY_MS, false), [(0, 0b10, false, 0)]);
}

#[test]
fn what_one_leg_has_lost_comes_by_the_other_at_once_and_is_not_asked_for() {
    let mut bench = Bench::new(GroupType::Broadcast, 2);
    for index in 0..60 {
        // One loses two of five, the other one of seven, and none is lost on both.
        if index % 5 > 1 || index % 7 == 6 {
            bench.put(index + 1, 0, index);
        }
        if index % 7 != 6 {
            bench.put(index + 1, 1, index);
        }
        assert_eq!(bench.early(index + 1).len(), 1, "packet {index}");
        assert_eq!(bench.naks(index + 1), []);
    }
    // What lies before a leg's first packet counts with nobody.
    let lost_on = |leg: &dyn Fn(u64) -> bool| (2..59).filter(|&index| !leg(index)).count() as u64;
    let first = lost_on(&|index| index % 5 > 1 || index % 7 == 6);
    assert_eq!(bench.losses(0), (first, first));
    assert_eq!(bench.losses(1), (8, 8));
    assert_eq!(bench.group.pkt_rcv_drop, 0);
    assert_eq!(bench.group.pkt_rcv_elsewhere(), first + 8);
    assert_eq!(bench.naks(1_000), [], "not later either");
}

#[test]
fn what_all_have_lost_is_asked_for_at_each_until_one_brings_it() {
    let mut bench = Bench::new(GroupType::Broadcast, 2);
    for leg in [0, 1] {
        bench.put(1, leg, 0);
        bench.put(4, leg, 3);
    }
    assert_eq!(bench.early(4), [(0, 0b11, false, 0)]);
    assert_eq!(bench.naks(4), [Out::Nak(0, vec![(1, 2)]), Out::Nak(1, vec![(1, 2)])]);
    bench.put(20, 1, 1);
    assert_eq!(bench.early(20), [(1, 0b10, true, 0)]);
    assert_eq!(bench.naks(500), [Out::Nak(0, vec![(2, 2)]), Out::Nak(1, vec![(2, 2)])], "the periodic report");
    bench.put(501, 0, 2);
    assert_eq!(bench.early(501), [(2, 0b01, true, 0), (3, 0b11, false, 0)]);
    assert_eq!(bench.naks(1_000), []);
    assert_eq!((bench.losses(0), bench.losses(1)), ((2, 1), (2, 1)));
}

#[test]
fn a_leg_does_not_ask_for_what_another_holds_behind_a_gap() {
    let mut bench = Bench::new(GroupType::Broadcast, 2);
    for (leg, index) in [(0, 0), (0, 2), (0, 3), (1, 0), (1, 4)] {
        bench.put(5, leg, index);
    }
    assert_eq!(bench.early(5).len(), 1);
    assert_eq!(bench.naks(5), [Out::Nak(0, vec![(1, 1)]), Out::Nak(1, vec![(1, 1)])]);
    assert_eq!(bench.losses(1), (3, 2));
    // And one that found the gap first takes back what it would ask for again.
    for (leg, index) in [(1, 8), (0, 6)] {
        bench.put(9, leg, index);
    }
    assert_eq!(bench.naks(9), [Out::Nak(0, vec![(5, 5)]), Out::Nak(1, vec![(5, 5), (7, 7)])]);
}

#[test]
fn what_nobody_brings_in_time_is_given_up_by_all() {
    let mut bench = Bench::new(GroupType::Broadcast, 3);
    for (leg, index) in [(0, 0), (0, 3), (1, 4)] {
        bench.put(5, leg, index);
    }
    assert_eq!(bench.early(5), [(0, 1, false, 0)]);
    assert_eq!(bench.early(3 + LATENCY_MS - 1), []);
    assert_eq!(bench.early(3 + LATENCY_MS), [(3, 0b01, false, 2), (4, 0b10, false, 0)]);
    assert_eq!((bench.group.pkt_rcv_drop, bench.group.pkt_delivered), (2, 3));
    assert_eq!(bench.naks(2_000), []);
    // What comes later than that by a leg that lags is of no use, and known for what it is.
    bench.put(2_001, 2, 1);
    assert_eq!(bench.early(2_001), []);
    assert_eq!(bench.leg(2).connection.statistics().pkt_rcv_belated, 1);
    assert_eq!(bench.group.statistics().pkt_rcv_drop, 2);
}

#[test]
fn a_leg_acknowledges_what_has_come_over_it_and_no_more() {
    let mut bench = Bench::new(GroupType::Broadcast, 3);
    for index in 0..30 {
        bench.put(index + 1, 0, index);
        if index >= 20 {
            bench.put(index + 1, 1, index - 20);
        }
        bench.early(index + 1);
    }
    let acks = |out: Vec<Out>| -> Vec<Out> { out.into_iter().filter(|it| matches!(it, Out::Ack(..))).collect() };
    assert_eq!(acks(bench.out(60)), [Out::Ack(0, 30), Out::Ack(1, 10)]);
    // What it has lost itself does not hold it up, once others have brought it.
    bench.put(61, 1, 15);
    bench.early(61);
    assert_eq!(acks(bench.out(100)).last(), Some(&Out::Ack(1, 16)));
    assert_eq!(bench.losses(1), (5, 5));
}

#[test]
fn a_leg_that_joins_late_begins_where_the_stream_is() {
    let mut bench = Bench::new(GroupType::Broadcast, 1);
    for index in 0..50 {
        bench.put(index + 1, 0, index);
        bench.early(index + 1);
    }
    bench.out(60);
    assert_eq!(bench.join(60, 1), 1);
    assert_eq!(bench.out(60), [], "nothing has come over it");
    // Its path is longer: what comes first is known already.
    bench.put(61, 1, 47);
    bench.put(61, 1, 48);
    assert_eq!((bench.early(61), bench.naks(61)), (vec![], vec![]));
    for index in 49..55 {
        bench.put(62, 1, index);
    }
    assert_eq!(
        bench.early(62).iter().map(|it| (it.0, it.1)).collect::<Vec<_>>(),
        (50..55).map(|n| (n, 2)).collect::<Vec<_>>()
    );
    assert_eq!(bench.losses(1), (0, 0));
    assert!(bench.out(100).contains(&Out::Ack(1, 55)));
    // Another has a shorter one: what lies between has not been sent over it.
    bench.join(100, 2);
    bench.put(101, 2, 60);
    bench.put(101, 0, 59);
    assert_eq!(bench.losses(2), (0, 0));
    for index in 55..59 {
        bench.put(102, 0, index);
    }
    assert_eq!(
        bench.early(102).iter().map(|it| (it.0, it.2)).collect::<Vec<_>>(),
        [(55, false), (56, false), (57, false), (58, false), (59, false), (60, false)]
    );
}

#[test]
fn numbers_of_another_stream_do_not_disturb_this_one() {
    let mut bench = Bench::new(GroupType::Broadcast, 2);
    for index in 0..30 {
        bench.put(index + 1, 0, index);
        bench.put(index + 1, 1, 1_000_000 + index);
        assert_eq!(bench.early(index + 1).len(), 1);
    }
    assert_eq!(bench.leg(1).statistics.pkt_rcv_discrepant, 30);
    assert_eq!(bench.group.held_packets(), 0);
    assert_eq!(bench.early(1_000), []);
}

#[test]
fn the_only_leg_that_sends_may_jump_and_what_others_hold_comes_before() {
    const FAR: u64 = 1 << 29;
    let mut bench = Bench::new(GroupType::Broadcast, 2);
    bench.put(1, 0, 0);
    bench.put(3, 0, 2);
    bench.put_stamped(2_000, 1, FAR, 2_000_000);
    bench.put_stamped(2_001, 1, FAR + 1, 2_001_000);
    let up: Vec<(u64, u32)> = std::iter::from_fn(|| bench.group.poll_payload(at(2_001 + LATENCY_MS)))
        .map(|payload| (payload.sequence - FIRST, payload.lost_before))
        .collect();
    assert_eq!(up, [(0, 0), (2, 1), (FAR + 1, FAR as u32 - 2)]);
    assert_eq!(bench.naks(5_000), []);
}

#[test]
fn an_idle_leg_takes_over_where_the_stream_is_however_long_it_was_idle() {
    let mut bench = Bench::new(GroupType::Backup, 2);
    // Ten times its buffer, and more numbers than half of all there are would do the same.
    let mut now = 0;
    for index in 0..640 {
        now = index * 5 + 1;
        bench.put_stamped(now, 0, index, now as u32 * 1_000);
        let up = bench.group.poll_payload_early(at(now)).expect("the next");
        assert_eq!((up.sequence - FIRST, up.path_mask), (index, 1));
        if index % 200 == 0 {
            bench.control(now, 1, |to, buffer| to.keep_alive(buffer));
        }
        assert_eq!(bench.out(now).iter().filter(|out| matches!(out, Out::Ack(1, _) | Out::Nak(..))).count(), 0);
    }
    assert!(bench.leg(1).is_idle(at(now)) && !bench.leg(0).is_idle(at(now)));
    // 640 and 641 were lost on the leg that failed; the other begins with what was not acknowledged.
    bench.put_stamped(now, 0, 642, now as u32 * 1_000);
    for index in 636..650 {
        bench.put_stamped(now + 1, 1, index, now as u32 * 1_000);
    }
    let up: Vec<(u64, u32)> = std::iter::from_fn(|| bench.group.poll_payload_early(at(now + 1)))
        .map(|payload| (payload.sequence - FIRST, payload.lost_before))
        .collect();
    assert_eq!(up, (640..650).map(|index| (index, 0)).collect::<Vec<_>>());
    assert_eq!((bench.losses(1), bench.losses(0)), ((0, 0), (2, 2)));
    let out = bench.out(now + 30);
    assert!(out.contains(&Out::Ack(1, 650)) && !out.iter().any(|out| matches!(out, Out::Nak(..))), "{out:?}");
    assert_eq!((bench.group.pkt_rcv_drop, bench.leg(1).connection.statistics().sequence_jumps), (0, 0));
}

#[test]
fn the_stream_goes_on_while_one_leg_is_left_and_ends_with_the_last() {
    let mut bench = Bench::new(GroupType::Broadcast, 2);
    bench.put(1, 0, 0);
    bench.put(1, 1, 2);
    bench.early(1);
    bench.control(3, 1, |to, buffer| to.shutdown(buffer));
    assert_eq!(bench.events(), [], "it still holds a packet");
    bench.put(4, 0, 1);
    assert_eq!(bench.early(4).iter().map(|it| it.0).collect::<Vec<_>>(), [1, 2]);
    let reason = CloseReason::PeerShutdown;
    assert_eq!(bench.events(), [Event::LegClosed { path: 1, socket_id: 101, peer: peer(1), reason }]);
    assert!(!bench.group.is_closed());
    bench.put(5, 1, 3);
    assert_eq!(bench.early(5), [], "nobody listens to it any more");
    bench.put(6, 0, 3);
    assert_eq!(bench.early(6).len(), 1);
    assert_eq!(bench.group.statistics().pkt_recv, 4, "what the one that has left had counted stays");
    // It comes back, at the place that is free.
    assert_eq!(bench.join(10, 1), 1);
    bench.put(11, 1, 4);
    assert_eq!(bench.early(11), [(4, 0b10, false, 0)]);
    bench.group.handle_timeout(at(5_006));
    assert_eq!(bench.events().len(), 1);
    bench.group.handle_timeout(at(5_011));
    let reason = CloseReason::PeerIdle;
    assert_eq!(
        bench.events(),
        [Event::LegClosed { path: 1, socket_id: 101, peer: peer(1), reason }, Event::Closed(reason)]
    );
    assert!(bench.group.is_closed() && bench.group.next_timeout().is_none());
}

#[test]
fn there_are_eight_legs_at_most_and_one_that_is_silent_makes_room() {
    let mut bench = Bench::new(GroupType::Broadcast, 8);
    let alive = |bench: &mut Bench, now, but: u32| {
        for leg in (0..8).filter(|&leg| leg != but) {
            bench.control(now, leg, |to, buffer| to.keep_alive(buffer));
        }
    };
    alive(&mut bench, 1_500, 5);
    assert!(!bench.group.has_room(at(1_999)), "a keep-alive may come late");
    alive(&mut bench, 2_500, 5);
    assert!(bench.group.has_room(at(2_500)));
    assert_eq!(bench.events(), [], "whoever asks may still be refused");
    assert_eq!(bench.group.join(at(2_500), 0, parameters(9, 2_500), LIMITS), 5);
    let reason = CloseReason::TakenOver;
    assert_eq!(bench.events(), [Event::LegClosed { path: 5, socket_id: 105, peer: peer(5), reason }]);
}

#[test]
fn a_clock_that_the_handshake_did_not_show_is_read_from_the_first_packet() {
    // All links of a group in libsrt have the clock of its first one, which may have left long ago.
    let mut bench = Bench::new(GroupType::Broadcast, 1);
    bench.put_stamped(10, 0, 0, 3_600_000_000);
    let payload = bench.group.poll_payload_early(at(10)).expect("the next");
    assert_eq!(payload.due, at(10 + LATENCY_MS));
    bench.put_stamped(30, 0, 1, 3_600_015_000);
    assert_eq!(bench.group.poll_payload_early(at(30)).expect("the next").due, at(25 + LATENCY_MS));
}

#[test]
fn a_datagram_of_no_leg_or_of_another_address_changes_nothing() {
    let mut bench = Bench::new(GroupType::Broadcast, 2);
    bench.put_bytes(1, 0, &[0; 15]);
    bench.put(1, 9, 0);
    let mut bytes = [0; HEADER_LEN];
    let sequence = SequenceNumber::new(FIRST + 30);
    DataHeader { sequence, socket_id: 101, message_number: 1, ..DataHeader::default() }.encode(&mut bytes);
    bench.put_bytes(1, 0, &bytes);
    assert_eq!((bench.early(500), bench.naks(500)), (vec![], vec![]));
    assert_eq!(bench.leg(1).connection.statistics().pkt_wrong_peer, 1);
    assert!(bench.group.is_peer(101, peer(1)) && !bench.group.is_peer(101, peer(0)));
}

#[test]
fn whatever_legs_are_sent_the_stream_goes_forward_and_what_is_held_is_bounded() {
    let mut all = 0;
    for seed in 1..=60_u64 {
        let mut state = seed;
        let mut random = move |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        };
        let group_type = if seed.is_multiple_of(2) { GroupType::Broadcast } else { GroupType::Backup };
        let mut bench = Bench::new(group_type, 3);
        let (mut now, mut newest, mut next, mut legs, mut buffer) = (0, 0, FIRST, 3, Vec::new());
        for _ in 0..1_500 {
            now += random(4);
            let leg = random(u64::from(legs) + 1) as u32;
            match random(40) {
                0 if random(4) == 0 => bench.control(now, leg, |to, buffer| to.shutdown(buffer)),
                1 if bench.group.has_room(at(now)) && legs < 40 => {
                    bench.join(now, legs);
                    legs += 1;
                }
                2 => bench.put_stamped(now, leg, random(1 << 31), random(1 << 32) as u32),
                3 => bench.control(now, leg, |to, buffer| to.acknowledgement_receipt(buffer, random(50) as u32)),
                4 => {
                    let (first, last) = (FIRST + newest + random(90), FIRST + newest + 90 + random(90));
                    let range =
                        SequenceRange::new(SequenceNumber::new(first), SequenceNumber::new(last)).expect("a range");
                    bench.control(now, leg, |to, buffer| {
                        to.drop_request(buffer, &DropRequest { message_number: 0, range })
                    });
                }
                5 => now += random(1_500),
                6 => newest += random(500),
                _ => {
                    newest += random(3);
                    bench.put_stamped(now, leg, newest.saturating_sub(random(70)), now as u32 * 1_000);
                }
            }
            if random(20) == 0 {
                bench.put_down();
            }
            bench.group.handle_timeout(at(now));
            loop {
                let early = random(2) == 0;
                let group = &mut bench.group;
                let up = if early { group.poll_payload_early(at(now)) } else { group.poll_payload(at(now)) };
                let Some(up) = up else { break };
                assert_eq!(up.sequence, next + u64::from(up.lost_before), "forward, and all that is missing is told");
                assert_ne!(up.path_mask, 0);
                next = up.sequence + 1;
            }
            while bench.group.poll_transmit(at(now), &mut buffer).is_some() {
                buffer.clear();
            }
            bench.events();
            assert!(bench.group.held_packets() <= LEGS_MAX * 64);
            if bench.group.is_closed() {
                break;
            }
        }
        all += next - FIRST;
    }
    assert!(all > 10_000, "{all} have come up or were given up");
}

#[test]
fn a_group_that_was_put_down_as_bytes_goes_on_with_all_its_legs() {
    let mut first = Bench::new(GroupType::Broadcast, 2);
    for (leg, index) in [(0, 0), (1, 0), (0, 1), (1, 3), (0, 5)] {
        first.put(10, leg, index);
    }
    assert_eq!(first.early(10).len(), 2);
    let mut bytes = Vec::new();
    first.group.snapshot(&mut bytes);
    let pool = PacketPool::new(PoolOptions { slots: 512, ..PoolOptions::default() }).expect("memory");
    let group = Group::restore(&bytes, 64, |bytes| pool.copy_from(bytes)).expect("what was just written");
    assert_eq!((group.next, group.held_packets(), group.legs().len()), (FIRST + 2, 2, 2));
    let mut second = Bench { group, pool };
    for bench in [&mut first, &mut second] {
        // One that both miss, one that the other leg has, and one of a leg that comes now.
        bench.put(20, 1, 2);
        assert_eq!(bench.join(30, 2), 2);
        bench.put(31, 2, 4);
    }
    for ms in 20..400 {
        assert_eq!((second.up(ms, false), second.out(ms)), (first.up(ms, false), first.out(ms)), "at {ms} ms");
    }
    assert_eq!((second.group.next, second.group.statistics()), (FIRST + 6, first.group.statistics()));

    let restore = |bytes: &[u8], slots| Group::restore(bytes, slots, |bytes| first.pool.copy_from(bytes)).map(drop);
    assert_eq!(restore(&bytes, 63), Err(RestoreError::TooLarge(64)));
    let mut body = bytes[SNAPSHOT_HEADER_LEN..bytes.len() - 4].to_vec();
    assert_eq!(body[..8], (FIRST + 2).to_le_bytes(), "the number awaited stands first");
    body[..8].copy_from_slice(&(FIRST + 4).to_le_bytes());
    let refused = restore(&seal(SnapshotKind::Group, &body), 64);
    assert_eq!(refused, Err(RestoreError::Invalid), "a leg holds what was handed up");
}

#[test]
fn a_leg_in_a_mode_for_files_is_none() {
    for mode in [TransmissionMode::Buffer, TransmissionMode::Message] {
        // As any other connection may be.
        let features = Features {
            receive_by_timestamp: false,
            send_by_timestamp: false,
            peer_drops_too_late: false,
            ..Features::default()
        };
        let parameters = || ConnectionParameters { mode, features, receive_latency_ms: 0, ..parameters(0, 0) };
        let mut alone = Vec::new();
        Connection::new(at(0), parameters(), LIMITS).snapshot(&mut alone);
        assert!(Connection::restore(&alone, 64, |_| None).is_ok());
        let group = Group::new(at(0), 0x4000_0077, PEER_GROUP, parameters(), LIMITS);
        let mut bytes = Vec::new();
        group.snapshot(&mut bytes);
        assert_eq!(Group::restore(&bytes, 64, |_| None).map(drop).expect_err("no leg"), RestoreError::Invalid);
    }
}
