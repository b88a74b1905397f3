use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::packet::Packetizer;
use super::*;
use crate::base::{PacketPool, PoolOptions};

pub(in super::super) const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 6000);

/// Another host.
pub(in super::super) fn peer(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, host)), 6000)
}

/// Packet memory for datagrams.
pub(in super::super) struct Bench {
    pool: PacketPool,
}

impl Bench {
    pub(in super::super) fn new() -> Self {
        let options = PoolOptions { slots: 4096, slot_size: 64, ..PoolOptions::default() };
        Self { pool: PacketPool::new(options).unwrap() }
    }

    pub(in super::super) fn datagram(&self, arrival: Instant, peer: SocketAddr, bytes: &[u8]) -> Datagram {
        let packet = self.pool.copy_from(bytes).expect("the test's pool is large enough");
        Datagram { packet, peer, local: None, interface: 3, path: 0, arrival }
    }

    /// A packet whose payload is its sequence number.
    fn rtp(&self, now: Instant, peer: SocketAddr, ssrc: u32, sequence: u16, timestamp: u32) -> Datagram {
        let mut bytes = Packetizer::new(ssrc, 33, sequence).header(timestamp, false).to_vec();
        bytes.extend_from_slice(&sequence.to_be_bytes());
        self.datagram(now, peer, &bytes)
    }

    fn send(&self, source: &mut Source, now: Instant, ssrc: u32, sequences: impl IntoIterator<Item = u16>) {
        for sequence in sequences {
            source.receive(now, self.rtp(now, PEER, ssrc, sequence, 0));
        }
    }
}

/// Sequence number on the wire, losses before it, and whether it starts anew, of all that is ready.
fn poll_all(source: &mut Source) -> Vec<(u16, u32, bool)> {
    std::iter::from_fn(|| source.poll_payload(Instant::ZERO))
        .map(|ready| {
            let on_wire = u16::from_be_bytes(ready.payload.packet[..].try_into().unwrap());
            assert_eq!(ready.payload.sequence as u16, on_wire);
            (on_wire, ready.payload.lost_before, ready.restart)
        })
        .collect()
}

fn events(source: &mut Source) -> Vec<SourceEvent> {
    std::iter::from_fn(|| source.poll_event()).collect()
}

fn following() -> Source {
    Source::new(SourceOptions::default(), 1)
}

/// A following source that has delivered 10 and 11 of SSRC 1 at time 0.
fn running(bench: &Bench) -> Source {
    let mut source = following();
    bench.send(&mut source, Instant::ZERO, 1, [10, 11]);
    assert_eq!(poll_all(&mut source), [(10, 0, true), (11, 0, false)]);
    assert_eq!(events(&mut source), [SourceEvent::Started { ssrc: 1, peer: PEER, sequence: 10, payload_type: 33 }]);
    source
}

#[test]
fn packets_in_probation_are_held_and_delivered_on_validation() {
    let bench = Bench::new();
    let mut source = following();
    bench.send(&mut source, Instant::ZERO, 1, [65_534]);
    assert_eq!(poll_all(&mut source), []);
    bench.send(&mut source, Instant::ZERO, 1, [65_535, 0, 1]);
    assert_eq!(poll_all(&mut source), [(65_534, 0, true), (65_535, 0, false), (0, 0, false), (1, 0, false)]);
}

#[test]
fn packets_out_of_order_in_probation_come_out_in_order() {
    let bench = Bench::new();
    let mut source = following();
    bench.send(&mut source, Instant::ZERO, 1, [7, 5, 9, 6, 7, 8]);
    assert_eq!(poll_all(&mut source), [(5, 0, true), (6, 0, false), (7, 0, false), (8, 0, false), (9, 0, false)]);
    let statistics = source.statistics();
    assert_eq!((statistics.dropped_duplicate, statistics.packets_lost, statistics.packets_received), (1, 0, 6));
}

#[test]
fn scattered_numbers_never_prove_a_source_and_are_not_kept_for_ever() {
    let bench = Bench::new();
    let mut source = following();
    for round in 0..200_u16 {
        bench.send(&mut source, Instant::ZERO, 1, [round.wrapping_mul(7_919)]);
    }
    assert_eq!(bench.pool.in_use(), super::super::probation::MAX_HELD);
    source.handle_timeout(source.next_timeout().unwrap());
    assert_eq!(bench.pool.in_use(), 0);
    assert_eq!(source.statistics().dropped_probation, 200);
    assert_eq!((source.next_timeout(), source.poll_event()), (None, None));
}

#[test]
fn a_small_gap_is_loss_and_a_large_one_is_a_restart() {
    let bench = Bench::new();
    let mut source = running(&bench);
    bench.send(&mut source, Instant::ZERO, 1, [14]);
    source.handle_timeout(Instant::from_millis(50));
    assert_eq!(poll_all(&mut source), [(14, 2, false)]);
    bench.send(&mut source, Instant::ZERO, 1, [20_000]);
    assert_eq!(poll_all(&mut source), [], "one jump proves nothing");
    bench.send(&mut source, Instant::ZERO, 1, [20_001]);
    assert_eq!(poll_all(&mut source), [(20_000, 0, true), (20_001, 0, false)]);
    let reason = RestartReason::SequenceJump;
    assert_eq!(events(&mut source), [SourceEvent::Restarted { ssrc: 1, peer: PEER, sequence: 20_000, reason }]);
    let statistics = source.statistics();
    assert_eq!((statistics.restarts, statistics.packets_lost, statistics.payloads_delivered), (1, 2, 5));
}

#[test]
fn strays_that_jump_do_not_add_up_to_a_restart() {
    let bench = Bench::new();
    let mut source = running(&bench);
    bench.send(&mut source, Instant::ZERO, 1, [20_000, 12, 20_001, 13]);
    assert_eq!(poll_all(&mut source), [(12, 0, false), (13, 0, false)]);
    assert_eq!(source.statistics().dropped_probation, 2);
    assert_eq!(bench.pool.in_use(), 0);
}

#[test]
fn a_restart_gives_out_what_waited_before_it() {
    let bench = Bench::new();
    let mut source = running(&bench);
    bench.send(&mut source, Instant::ZERO, 1, [13, 40_000, 40_001]);
    assert_eq!(poll_all(&mut source), [(13, 1, false), (40_000, 0, true), (40_001, 0, false)]);
}

#[test]
fn two_restarts_between_polls_are_both_told() {
    let bench = Bench::new();
    let mut source = running(&bench);
    bench.send(&mut source, Instant::ZERO, 1, [20_000, 20_001, 40_000, 40_001]);
    assert_eq!(poll_all(&mut source), [(20_000, 0, true), (20_001, 0, false), (40_000, 0, true), (40_001, 0, false)]);
}

#[test]
fn the_time_stamp_is_unwrapped_and_starts_anew_with_the_source() {
    let bench = Bench::new();
    let mut source = following();
    let stamps = |source: &mut Source| -> Vec<_> {
        std::iter::from_fn(|| source.poll_payload(Instant::ZERO)).map(|ready| ready.timestamp).collect()
    };
    for (sequence, timestamp) in [(0, u32::MAX - 9), (1, 3_590), (2, u32::MAX - 9)] {
        source.receive(Instant::ZERO, bench.rtp(Instant::ZERO, PEER, 1, sequence, timestamp));
    }
    let first = i64::from(u32::MAX - 9);
    assert_eq!(stamps(&mut source), [first, first + 3_600, first]);
    for sequence in [30_000, 30_001] {
        source.receive(Instant::ZERO, bench.rtp(Instant::ZERO, PEER, 1, sequence, 77));
    }
    assert_eq!(stamps(&mut source), [77, 77]);
}

#[test]
fn a_new_ssrc_from_the_same_address_takes_over_at_once() {
    let bench = Bench::new();
    let mut source = running(&bench);
    bench.send(&mut source, Instant::ZERO, 2, [500, 501]);
    assert_eq!(poll_all(&mut source), [(500, 0, true), (501, 0, false)]);
    let reason = RestartReason::NewSsrc;
    assert_eq!(events(&mut source), [SourceEvent::Restarted { ssrc: 2, peer: PEER, sequence: 500, reason }]);
}

#[test]
fn another_sender_waits_until_the_first_is_silent_and_loses_nothing_but_the_oldest() {
    let bench = Bench::new();
    let mut source = running(&bench);
    for step in 0..40_u16 {
        let now = Instant::from_millis(u64::from(step) * 30);
        source.receive(now, bench.rtp(now, peer(2), 9, step, 0));
    }
    // 40 packets over 1,170 ms, the silence was long enough at 1,020 ms.
    let delivered = poll_all(&mut source);
    assert_eq!(delivered.first(), Some(&(34 + 1 - 32, 0, true)));
    assert_eq!(delivered.last(), Some(&(39, 0, false)));
    assert_eq!(source.peer(), Some(peer(2)));
    assert_eq!(source.statistics().dropped_probation, 3);
}

#[test]
fn a_changed_port_of_the_same_host_goes_on_without_a_restart() {
    let bench = Bench::new();
    let mut source = running(&bench);
    let rebound = SocketAddr::new(PEER.ip(), 7_000);
    let now = Instant::from_millis(120);
    for sequence in [12, 13] {
        source.receive(now, bench.rtp(now, rebound, 1, sequence, 0));
    }
    assert_eq!(poll_all(&mut source), [(12, 0, false), (13, 0, false)]);
    assert_eq!(events(&mut source), [SourceEvent::PeerChanged { peer: rebound }]);
}

#[test]
fn a_fixed_ssrc_lets_no_other_in() {
    let bench = Bench::new();
    let mut source = Source::new(SourceOptions { ssrc: Some(1), ..SourceOptions::default() }, 1);
    bench.send(&mut source, Instant::ZERO, 2, [1, 2, 3]);
    bench.send(&mut source, Instant::ZERO, 1, [1, 2]);
    assert_eq!(poll_all(&mut source), [(1, 0, true), (2, 0, false)]);
    assert_eq!(source.statistics().dropped_foreign, 3);
}

fn bye(ssrc: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 201, 0, 1, 0, 0, 0, 0, 0x81, 203, 0, 1];
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes
}

#[test]
fn a_bye_ends_the_source_once_its_last_packets_are_in() {
    let bench = Bench::new();
    let mut source = running(&bench);
    let now = Instant::from_millis(10);
    source.receive(now, bench.datagram(now, SocketAddr::new(PEER.ip(), 6001), &bye(1)));
    bench.send(&mut source, Instant::from_millis(20), 1, [12]);
    assert_eq!(poll_all(&mut source), [(12, 0, false)]);
    assert_eq!(source.next_timeout(), Some(Instant::from_millis(220)));
    source.handle_timeout(Instant::from_millis(220));
    assert_eq!(events(&mut source), [SourceEvent::Ended { ssrc: 1, reason: EndReason::Bye }]);
    assert_eq!((source.ssrc(), source.next_timeout()), (None, None));
    bench.send(&mut source, Instant::from_millis(300), 1, [13, 14]);
    assert_eq!(poll_all(&mut source), [(13, 0, true), (14, 0, false)]);
    let reason = RestartReason::Returned;
    assert_eq!(events(&mut source), [SourceEvent::Restarted { ssrc: 1, peer: PEER, sequence: 13, reason }]);
}

#[test]
fn a_bye_from_another_host_or_without_consequence_is_not_believed() {
    let bench = Bench::new();
    let mut source = running(&bench);
    source.receive(Instant::ZERO, bench.datagram(Instant::ZERO, peer(9), &bye(1)));
    assert_eq!(source.statistics().dropped_rtcp, 1);
    source.receive(Instant::ZERO, bench.datagram(Instant::ZERO, PEER, &bye(1)));
    assert_eq!(source.next_timeout(), Some(Instant::from_millis(200)));
    bench.send(&mut source, Instant::from_millis(2_000), 1, [12]);
    assert_eq!(source.next_timeout(), Some(Instant::from_millis(32_000)));
}

#[test]
fn silence_ends_a_source() {
    let bench = Bench::new();
    let mut source = running(&bench);
    assert_eq!(source.next_timeout(), Some(Instant::from_millis(30_000)));
    source.handle_timeout(Instant::from_millis(30_000));
    assert_eq!(events(&mut source), [SourceEvent::Ended { ssrc: 1, reason: EndReason::Silence }]);
}

#[test]
fn malformed_datagrams_are_counted_and_change_nothing() {
    let bench = Bench::new();
    let mut source = running(&bench);
    for bytes in [&[0x80][..], &[0x47; 20], &[0xbf; 40], &[0x80, 200, 0, 9, 0, 0, 0, 1], &[]] {
        source.receive(Instant::ZERO, bench.datagram(Instant::ZERO, PEER, bytes));
    }
    let statistics = source.statistics();
    assert_eq!((statistics.dropped_malformed, statistics.dropped_rtcp), (4, 1));
    bench.send(&mut source, Instant::ZERO, 1, [12]);
    assert_eq!(poll_all(&mut source), [(12, 0, false)]);
}

#[test]
fn a_source_proven_on_a_shared_port_brings_its_packets_along() {
    let bench = Bench::new();
    let mut strangers = Strangers::new(2);
    let mut send = |now: u64, ssrc, sequence| {
        let now = Instant::from_millis(now);
        let datagram = bench.rtp(now, PEER, ssrc, sequence, 0);
        let header = RtpHeader::parse(&datagram.packet).unwrap();
        let index = strangers.receive(now, header, datagram)?;
        Some(strangers.take(index))
    };
    assert!(send(0, 1, 4).is_none());
    assert!(send(1, 2, 9).is_none());
    let proven = send(2, 1, 5).expect("two in sequence prove a source");
    // A third and a fourth stranger push the oldest one out.
    assert!(send(3, 3, 1).is_none());
    assert!(send(4, 4, 1).is_none());
    assert!(send(5, 2, 10).is_none());
    assert_eq!((strangers.len(), strangers.dropped()), (2, 2));
    strangers.handle_timeout(Instant::from_millis(2_005));
    assert_eq!((strangers.is_empty(), strangers.dropped()), (true, 4));
    let options = SourceOptions { ssrc: Some(1), ..SourceOptions::default() };
    let mut source = Source::from_probation(options, 1, Instant::from_millis(2), proven);
    assert_eq!(poll_all(&mut source), [(4, 0, true), (5, 0, false)]);
}

#[test]
fn reports_tell_the_sender_of_loss_and_answer_its_report() {
    let bench = Bench::new();
    let reports = ReportOptions {
        ssrc: 0xaabb_ccdd,
        canonical_name: "headworks".into(),
        destination: ReportDestination::Sender,
        session_bandwidth_bps: 50_000_000,
        receivers: 1,
    };
    let mut source = Source::new(SourceOptions { reports: Some(reports), ..SourceOptions::default() }, 1);
    bench.send(&mut source, Instant::ZERO, 1, [10, 11, 13]);
    let mut report = vec![0x80, 200, 0, 6, 0, 0, 0, 1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
    report.resize(28, 0);
    source.receive(Instant::ZERO, bench.datagram(Instant::ZERO, SocketAddr::new(PEER.ip(), 6_011), &report));
    let mut buffer = Vec::new();
    let mut now = Instant::ZERO;
    let transmit = loop {
        now = source.next_timeout().unwrap().max(now);
        source.handle_timeout(now);
        if let Some(transmit) = source.poll_transmit(now, &mut buffer) {
            break transmit;
        }
    };
    assert!((Instant::from_millis(1_000)..Instant::from_millis(3_100)).contains(&now));
    assert_eq!(transmit.peer, SocketAddr::new(PEER.ip(), 6_011));
    assert_eq!((transmit.len, transmit.interface), (buffer.len(), 3));
    let rtcp_types::Packet::Rr(report) = rtcp_types::Compound::parse(&buffer).unwrap().next().unwrap().unwrap() else {
        panic!("{buffer:02x?}")
    };
    let block = report.report_blocks().next().unwrap();
    assert_eq!((report.ssrc(), block.ssrc()), (0xaabb_ccdd, 1));
    assert_eq!((block.fraction_lost(), block.cumulative_lost(), block.extended_sequence_number()), (64, 1, 13));
    assert_eq!(block.last_sender_report_timestamp(), 0x3344_5566);
    assert_eq!(u64::from(block.delay_since_last_sender_report_timestamp()), now.as_nanos() * 65_536 / 1_000_000_000);
    assert!(source.poll_transmit(now, &mut buffer).is_none());
    source.close();
    buffer.clear();
    source.poll_transmit(now, &mut buffer).unwrap();
    assert_eq!(buffer[buffer.len() - 8..], [0x81, 203, 0, 1, 0xaa, 0xbb, 0xcc, 0xdd]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn over_the_wrap_shuffled_packets_come_out_in_order_with_exact_losses(
        start: u16,
        fates in prop::collection::vec((0_u32..20, prop::bool::weighted(0.05), prop::bool::weighted(0.05)), 400),
    ) {
        let bench = Bench::new();
        let mut source = following();
        // Two in order prove it; the rest is moved, lost and doubled; the last is kept.
        let mut sent = vec![(0, 0), (1, 1)];
        let mut lost = 0;
        for (index, &(delay, lose, double)) in fates.iter().enumerate() {
            let index = index as u32 + 2;
            if lose && index as usize != fates.len() + 1 {
                lost += 1;
                continue;
            }
            sent.push((index + delay, index));
            if double {
                sent.push((index + delay + 1, index));
            }
        }
        sent.sort();
        let mut delivered = Vec::new();
        for &(_, index) in &sent {
            bench.send(&mut source, Instant::ZERO, 1, [start.wrapping_add(index as u16)]);
            delivered.extend(poll_all(&mut source));
        }
        source.handle_timeout(Instant::from_millis(50));
        delivered.extend(poll_all(&mut source));
        let numbers: Vec<_> = delivered.iter().map(|&(sequence, ..)| sequence.wrapping_sub(start)).collect();
        prop_assert!(numbers.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(numbers.len(), fates.len() + 2 - lost as usize);
        prop_assert_eq!(delivered.iter().map(|&(_, lost, _)| lost).sum::<u32>(), lost);
        let statistics = source.statistics();
        prop_assert_eq!(statistics.packets_lost, u64::from(lost));
        prop_assert_eq!(statistics.dropped_duplicate as usize, sent.len() - numbers.len());
        prop_assert_eq!(bench.pool.in_use(), 0);
    }
}
