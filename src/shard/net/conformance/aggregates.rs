//! What the ways must do that can take aggregates: several datagrams that the kernel hands over as one.

use std::time::Instant;

use super::place::{ANY_V4, Burster, Place, socket};
use super::{WINDOW, numbered, receive, taken_apart};
use crate::shard::net::aggregates::{AGGREGATE_SLOT_SIZE, AggregateStatistics};
use crate::shard::net::backend::SLOT_SIZE;
use crate::shard::net::{Incoming, SocketRole, Way};

pub fn a_datagram_longer_than_a_slot_of_its_own_stays_in_a_large_one(place: &Place) {
    let (mut net, address) = place.net_at(place.v4(1));
    let sender = place.peer();
    sender.send_to(&[1; 4_000], address).unwrap();
    sender.send_to(&[2; 1_500], address).unwrap();
    let received = receive(&mut net, 2);
    let slots = received.iter().map(|it| it.packet.slot_size()).collect::<Vec<_>>();
    assert_eq!(slots, [AGGREGATE_SLOT_SIZE, SLOT_SIZE]);
    assert_eq!(taken_apart(received), [(4_000, 1), (1_500, 2)]);
}

pub fn a_well_filled_aggregate_stays_in_its_slot_and_an_ill_filled_one_is_copied_apart(place: &Place) {
    let (mut net, address) = place.net_at(ANY_V4);
    let mut peer = Burster::to((place.v4(6), address.port()).into());
    let well_filled = numbered(0..30, 1_316);
    peer.send(1_316, &well_filled[..29 * 1_316 + 100]);
    let mut received = Vec::new();
    net.wait(WINDOW).unwrap();
    assert_eq!(net.drain_into(&mut received).unwrap(), (30, false));
    assert_eq!((received.len(), received[0].packet.slot_size()), (1, AGGREGATE_SLOT_SIZE));
    let known = |it: &Incoming| (it.peer, it.local_ip, it.interface, it.timestamp_ns.is_some(), it.truncated);
    let of_well_filled = known(&received[0]);
    assert_eq!((of_well_filled.1, of_well_filled.2), (Some(place.v4(6)), place.interface()));
    let parts = taken_apart(received);
    assert_eq!((parts.len(), parts[28], parts[29]), (30, (1_316, 28), (100, 29)));
    assert_eq!(net.aggregates().unwrap().1, AggregateStatistics { aggregates: 1, copied: 0 });

    peer.send(1_316, &numbered(0..3, 1_316)[..2_732]);
    let received = receive(&mut net, 3);
    assert!(received.iter().all(|it| it.packet.slot_size() == SLOT_SIZE && it.gro_segment.is_none()));
    assert!(received.iter().all(|it| known(it) == of_well_filled));
    assert_eq!(taken_apart(received), [(1_316, 0), (1_316, 1), (100, 2)]);
    assert_eq!(net.aggregates().unwrap().1, AggregateStatistics { aggregates: 2, copied: 3 });
}

pub fn a_packet_that_is_kept_gives_the_slot_of_its_aggregate_back(place: &Place) {
    let (mut net, address) = place.net_at(place.v4(1));
    Burster::to(address).send(1_000, &numbered(0..40, 1_000));
    let mut received = Vec::new();
    net.wait(WINDOW).unwrap();
    assert_eq!(net.drain_into(&mut received).unwrap(), (40, false));
    let before = net.aggregates().unwrap().0.in_use();
    let shared = received.pop().unwrap().into_segments().nth(7).unwrap();
    assert_eq!(net.aggregates().unwrap().0.in_use(), before, "one datagram keeps the whole slot");
    let kept = net.compact(shared);
    assert_eq!(net.aggregates().unwrap().1, AggregateStatistics { aggregates: 1, copied: 1 });
    assert_eq!((kept.slot_size(), kept[..] == [7; 1_000]), (SLOT_SIZE, true));
    assert_eq!(net.aggregates().unwrap().0.in_use(), before - 1);
    let slot = kept.slot();
    assert_eq!(net.compact(kept).slot(), slot, "once is enough");
}

pub fn exhausted_slots_for_aggregates_lose_nothing_do_not_spin_and_leave_other_sockets_alone(place: &Place) {
    const SLOTS: usize = 10;
    let place = &Place { aggregate_slots: SLOTS, ..Place::on_loopback(place.way) };
    let (media, address, _) = place.socket(place.v4(1), 16 << 20);
    let (reports, reports_address, _) = socket(place.v4(1), 1 << 20, false);
    let mut net = place.net(256, vec![(SocketRole::Rtp, media), (SocketRole::Rtcp, reports)]);
    let mut peer = Burster::to(address);
    for n in 0..25 {
        peer.send(1_000, &numbered(n..n + 40, 1_000));
    }
    let mut numbers = Vec::new();
    for round in [SLOTS, SLOTS, 5] {
        let held = receive(&mut net, round);
        assert_eq!(held.len(), round);
        if round == SLOTS {
            assert_eq!(net.aggregates().unwrap().0.free_slots(), 0);
            let started = Instant::now();
            for _ in 0..20 {
                net.wait_for_any(WINDOW).unwrap();
                assert_eq!(net.drain_into(&mut Vec::new()).unwrap(), (0, false));
            }
            assert!(started.elapsed() >= WINDOW * 15, "{:?}", started.elapsed());
            // What comes by another socket has slots of its own.
            place.peer().send_to(b"report", reports_address).unwrap();
            let report = receive(&mut net, 1);
            assert_eq!((&report[0].packet[..], net.role(&report[0])), (&b"report"[..], SocketRole::Rtcp));
        }
        numbers.extend(taken_apart(held).into_iter().map(|(_, number)| number));
    }
    assert_eq!(numbers, (0..25).flat_map(|n| n..n + 40).collect::<Vec<_>>());
    assert_eq!(net.dropped_by_kernel(), 0);
    assert!(net.statistics().credit_exhausted > 0);
}

/// What `recvmmsg` fills is payload alone, which no aggregate is too long for; io_uring has its headers in the slot too.
pub fn aggregates_too_long_for_a_slot_keep_their_whole_datagrams(place: &Place) {
    const SEGMENT: usize = 1_455;
    let (mut net, address) = place.net_at(place.v4(1));
    let all = numbered(0..45, SEGMENT);
    Burster::to(address).send(SEGMENT as u16, &all);
    let received = receive(&mut net, 1);
    let is_cut = place.way == Way::Uring;
    assert_eq!((received.len(), received[0].truncated), (1, is_cut));
    assert_eq!(net.statistics().truncated, u64::from(is_cut));
    let whole = if is_cut { 44 } else { 45 };
    assert_eq!(taken_apart(received), (0..whole).map(|n| (SEGMENT, n)).collect::<Vec<_>>());
}
