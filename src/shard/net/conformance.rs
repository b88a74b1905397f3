//! What every way to get and give datagrams must do: the same bodies, run once for each way. Those that go through the kernel's
//! sockets are tried on loopback, AF_XDP between two network namespaces, which root alone can make; and so is DPDK, where the
//! program is built with it, by a virtual device over the link of a namespace whose kernel has no address there.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aggregates::{
    a_datagram_longer_than_a_slot_of_its_own_stays_in_a_large_one,
    a_packet_that_is_kept_gives_the_slot_of_its_aggregate_back,
    a_well_filled_aggregate_stays_in_its_slot_and_an_ill_filled_one_is_copied_apart,
    aggregates_too_long_for_a_slot_keep_their_whole_datagrams,
    exhausted_slots_for_aggregates_lose_nothing_do_not_spin_and_leave_other_sockets_alone,
};
use place::{ANY, ANY_V4, Place};

use super::{Incoming, Net, SocketRole, Way};
use crate::base::Transmit;

mod aggregates;
mod place;

const WINDOW: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(5);

macro_rules! for_every_way {
    (with_sockets: [$($of_sockets:ident $of_sockets_past:literal)*] always: [$($body:ident $past:literal)*]) => {
        mod uring {
            $(#[test] fn $of_sockets() { super::Place::on_loopback(super::Way::Uring).run(super::$of_sockets); })*
            $(#[test] fn $body() { super::Place::on_loopback(super::Way::Uring).run(super::$body); })*
        }
        mod mmsg {
            $(#[test] fn $of_sockets() { super::Place::on_loopback(super::Way::Mmsg).run(super::$of_sockets); })*
            $(#[test] fn $body() { super::Place::on_loopback(super::Way::Mmsg).run(super::$body); })*
        }
        mod xdp {
            $(#[test] fn $of_sockets() {
                super::Place::run_past_the_kernel($of_sockets_past, super::$of_sockets);
            })*
            $(#[test] fn $body() { super::Place::run_past_the_kernel($past, super::$body); })*
        }
        #[cfg(feature = "dpdk")]
        mod dpdk {
            $(#[test] fn $body() { super::Place::run_without_the_kernel(super::$body); })*
        }
    };
}

/// The ways that can take aggregates, with sockets that ask for them.
macro_rules! with_aggregates {
    ($($body:ident)*) => {
        mod uring_with_aggregates {
            $(#[test] fn $body() { super::Place::with_aggregates(super::Way::Uring).run(super::$body); })*
        }
        mod mmsg_with_aggregates {
            $(#[test] fn $body() { super::Place::with_aggregates(super::Way::Mmsg).run(super::$body); })*
        }
    };
}

// Behind each body the percentage of its datagrams that has to come past the kernel by AF_XDP, so that none passes by the ordinary sockets
// beside it: what comes in fragments, and what finds no slot lent, comes by these.
for_every_way! {
    with_sockets: [
    a_socket_that_asks_for_nothing_is_told_nothing 100
    what_a_full_socket_buffer_loses_is_counted 80
    ]
    always: [
    datagrams_arrive_whole_and_in_order_with_all_that_is_known_of_them 100
    a_datagram_longer_than_a_slot_is_cut_and_marked 0
    an_empty_datagram_is_one_and_ends_nothing 100
    an_exhausted_pool_loses_nothing_does_not_spin_and_recovers 10
    a_burst_of_ten_thousand_datagrams_arrives_if_the_socket_buffer_holds_it 2
    ipv6_is_received_and_answered_from_where_it_was_sent_to 100
    a_socket_for_both_versions_shows_ipv4_as_ipv4_and_answers_from_where_it_was_sent_to 100
    the_source_address_can_be_chosen 100
    sockets_are_told_apart_by_their_roles_in_and_out 100
    what_is_sent_arrives_byte_for_byte_and_in_order 100
    send_errors_are_counted_and_harmless 100
    waits_end_in_time 100
    a_net_that_goes_leaves_its_slots_and_ports_behind_and_sends_what_is_queued 100
    ]
}

with_aggregates! {
    datagrams_arrive_whole_and_in_order_with_all_that_is_known_of_them
    a_socket_that_asks_for_nothing_is_told_nothing
    an_empty_datagram_is_one_and_ends_nothing
    what_a_full_socket_buffer_loses_is_counted
    a_burst_of_ten_thousand_datagrams_arrives_if_the_socket_buffer_holds_it
    ipv6_is_received_and_answered_from_where_it_was_sent_to
    a_socket_for_both_versions_shows_ipv4_as_ipv4_and_answers_from_where_it_was_sent_to
    sockets_are_told_apart_by_their_roles_in_and_out
    waits_end_in_time
    a_net_that_goes_leaves_its_slots_and_ports_behind_and_sends_what_is_queued
    a_datagram_longer_than_a_slot_of_its_own_stays_in_a_large_one
    a_well_filled_aggregate_stays_in_its_slot_and_an_ill_filled_one_is_copied_apart
    a_packet_that_is_kept_gives_the_slot_of_its_aggregate_back
    exhausted_slots_for_aggregates_lose_nothing_do_not_spin_and_leave_other_sockets_alone
    aggregates_too_long_for_a_slot_keep_their_whole_datagrams
}

/// Datagrams that tell by their bytes which they are.
fn numbered(numbers: std::ops::Range<usize>, length: usize) -> Vec<u8> {
    numbers.flat_map(|n| std::iter::repeat_n(n as u8, length)).collect()
}

/// Length and number of each datagram of what came, each of which has one number throughout.
fn taken_apart(received: Vec<Incoming>) -> Vec<(usize, u8)> {
    let segments = received.into_iter().flat_map(Incoming::into_segments);
    segments
        .map(|segment| {
            assert!(segment.iter().all(|&byte| byte == segment[0]));
            (segment.len(), segment[0])
        })
        .collect()
}

/// Receives until there are `count` datagrams, or nothing more to be patient for.
fn receive(net: &mut Net, count: usize) -> Vec<Incoming> {
    let mut received = Vec::new();
    let started = Instant::now();
    while received.len() < count && started.elapsed() < PATIENCE {
        net.wait(WINDOW).unwrap();
        net.drain_into(&mut received).unwrap();
    }
    assert!(received.len() >= count, "{} of {count} came", received.len());
    received
}

/// Receives until nothing has come for a while.
fn receive_all(net: &mut Net) -> Vec<Incoming> {
    let mut received = receive(net, 1);
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(50) {
        net.wait(WINDOW).unwrap();
        if net.drain_into(&mut received).unwrap().0 > 0 {
            last = Instant::now();
        }
    }
    received
}

fn send_to(net: &mut Net, role: SocketRole, peer: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
    net.send(role, &Transmit { peer, local, interface: 0, path: 0, len: bytes.len() }, bytes);
}

fn number(incoming: &Incoming) -> u64 {
    u64::from_be_bytes(incoming.packet[..8].try_into().unwrap())
}

fn bytes_of(n: usize) -> Vec<u8> {
    (0..n % 1_400 + 1).map(|i| (i * 7 + n) as u8).collect()
}

fn datagrams_arrive_whole_and_in_order_with_all_that_is_known_of_them(place: &Place) {
    let (mut net, address) = place.net_at(ANY_V4);
    let sender = place.peer();
    let now_ns = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let before = now_ns();
    for n in 0..150 {
        sender.send_to(&bytes_of(n * 11), (place.v4(6), address.port())).unwrap();
    }
    let received = receive(&mut net, 150);
    assert_eq!(received.len(), 150);
    for (n, incoming) in received.iter().enumerate() {
        assert_eq!(incoming.packet[..], bytes_of(n * 11));
        assert_eq!(incoming.peer, sender.local_addr().unwrap());
        assert_eq!(incoming.local_ip, Some(place.v4(6)));
        assert_eq!((incoming.interface, incoming.gro_segment, incoming.truncated), (place.interface(), None, false));
        let stamp = incoming.timestamp_ns.expect("the socket asks for it");
        assert!((before..=now_ns()).contains(&stamp));
    }
    assert!(received.is_sorted_by_key(|incoming| incoming.timestamp_ns));
    assert_eq!((net.statistics().datagrams, net.dropped_by_kernel()), (150, 0));
    assert_eq!(net.statistics().past_kernel > 0, matches!(place.way, Way::Xdp | Way::Dpdk));
    assert_eq!(net.statistics().receive_errors, 0);
}

fn a_socket_that_asks_for_nothing_is_told_nothing(place: &Place) {
    let plain = UdpSocket::bind((place.v4(1), 0)).unwrap();
    plain.set_nonblocking(true).unwrap();
    let address = plain.local_addr().unwrap();
    let mut net = place.net(256, vec![(SocketRole::Srt, plain.into())]);
    place.peer().send_to(b"x", address).unwrap();
    let received = &receive(&mut net, 1)[0];
    assert_eq!(received.packet[..], b"x"[..]);
    assert_eq!((received.local_ip, received.interface, received.timestamp_ns), (None, 0, None));
}

fn a_datagram_longer_than_a_slot_is_cut_and_marked(place: &Place) {
    let (mut net, address) = place.net_at(place.v4(1));
    let sender = place.peer();
    sender.send_to(&[1; 1_500], address).unwrap();
    sender.send_to(&[2; 3_000], address).unwrap();
    sender.send_to(&[3; 1_500], address).unwrap();
    let received = receive(&mut net, 3);
    assert_eq!(received.iter().map(|it| it.truncated).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!((&received[0].packet[..], &received[2].packet[..]), (&[1; 1_500][..], &[3; 1_500][..]));
    assert!(received[1].packet.iter().all(|&byte| byte == 2));
    assert!((1_500..3_000).contains(&received[1].packet.len()));
    assert_eq!(net.statistics().truncated, 1);
}

fn an_empty_datagram_is_one_and_ends_nothing(place: &Place) {
    let (mut net, address) = place.net_at(place.v4(1));
    let sender = place.peer();
    for n in 0..40 {
        let payload: &[u8] = if n % 2 == 0 { b"" } else { b"full" };
        sender.send_to(payload, address).unwrap();
    }
    let lengths: Vec<usize> = receive(&mut net, 40).iter().map(|it| it.packet.len()).collect();
    assert_eq!(lengths, [0, 4].repeat(20));
}

fn what_a_full_socket_buffer_loses_is_counted(place: &Place) {
    let (small, address, _) = place.socket(place.v4(1), 4_096);
    let (other, other_address, _) = place.socket(place.v4(1), 4_096);
    let sockets = vec![(SocketRole::Srt, small), (SocketRole::Rtp, other)];
    let mut net = place.net(1_024, sockets);
    let sender = place.peer();
    let mut lost = 0;
    for address in [address, other_address] {
        for n in 0..500_u64 {
            sender.send_to(&n.to_be_bytes(), address).unwrap();
        }
        let first = receive_all(&mut net).len();
        assert!(first < 500);
        // The kernel tells it with the next datagram that finds room.
        sender.send_to(b"the last", address).unwrap();
        receive(&mut net, 1);
        lost += 500 - first as u64;
        assert_eq!(net.dropped_by_kernel(), lost);
    }
}

fn an_exhausted_pool_loses_nothing_does_not_spin_and_recovers(place: &Place) {
    const SLOTS: usize = 100;
    let (descriptor, address, _) = place.socket(place.v4(1), 4 << 20);
    let mut net = place.net(SLOTS, vec![(SocketRole::Srt, descriptor)]);
    let sender = place.peer();
    for n in 0..250_u64 {
        sender.send_to(&n.to_be_bytes(), address).unwrap();
    }
    let mut numbers = Vec::new();
    for round in [SLOTS, SLOTS, 50] {
        let held = receive(&mut net, round);
        assert_eq!(held.len(), round);
        numbers.extend(held.iter().map(number));
        if round == SLOTS {
            assert_eq!(net.pool().free_slots(), 0);
            assert!(net.statistics().credit_exhausted > 0 || net.credit() == 0);
            let started = Instant::now();
            for _ in 0..20 {
                net.wait_for_any(WINDOW).unwrap();
                assert_eq!(net.drain_into(&mut Vec::new()).unwrap(), (0, false));
            }
            assert!(started.elapsed() >= WINDOW * 15, "{:?}", started.elapsed());
        }
    }
    assert_eq!(numbers, (0..250).collect::<Vec<_>>());
    assert_eq!(net.dropped_by_kernel(), 0);
    assert!(net.statistics().credit_exhausted > 0);
}

fn a_burst_of_ten_thousand_datagrams_arrives_if_the_socket_buffer_holds_it(place: &Place) {
    const COUNT: usize = 10_000;
    const BUFFER: usize = 32 << 20;
    let (descriptor, address, granted) = place.socket(place.v4(1), BUFFER);
    let mut net = place.net(1_024, vec![(SocketRole::Srt, descriptor)]);
    // All at once, where the host grants that much; elsewhere as many as the buffer holds.
    let at_once = (COUNT * granted / BUFFER).clamp(1, COUNT);
    if at_once < COUNT {
        let _ = writeln!(
            std::io::stderr(),
            "SMALLER: {granted} of {BUFFER} bytes are granted: {at_once} datagrams at once"
        );
    }
    let sender = place.peer();
    let mut datagram = [0x47; 1_316];
    let (mut sent, mut next) = (0, 0);
    let started = Instant::now();
    let mut batch = Vec::new();
    while next < COUNT as u64 {
        assert!(started.elapsed() < PATIENCE * 4, "{next} came, {} were dropped", net.dropped_by_kernel());
        if next == sent as u64 {
            for _ in 0..at_once.min(COUNT - sent) {
                datagram[..8].copy_from_slice(&(sent as u64).to_be_bytes());
                sender.send_to(&datagram, address).unwrap();
                sent += 1;
            }
        }
        net.wait(WINDOW).unwrap();
        net.drain_into(&mut batch).unwrap();
        for incoming in batch.drain(..) {
            assert_eq!((number(&incoming), incoming.packet.len()), (next, 1_316));
            next += 1;
        }
    }
    assert_eq!((net.statistics().datagrams, net.dropped_by_kernel()), (COUNT as u64, 0));
}

fn ipv6_is_received_and_answered_from_where_it_was_sent_to(place: &Place) {
    let (mut net, address) = place.net_at(ANY);
    let to = SocketAddr::new(place.v6(), address.port());
    let peer = place.peer_v6();
    peer.send_to(b"question", to).unwrap();
    let received = &receive(&mut net, 1)[0];
    assert_eq!(received.peer, peer.local_addr().unwrap());
    assert_eq!((received.local_ip, received.interface), (Some(to.ip()), place.interface()));
    assert!(received.timestamp_ns.is_some());
    send_to(&mut net, SocketRole::Srt, received.peer, received.local_ip, b"answer");
    net.wait(Duration::ZERO).unwrap();
    let mut buffer = [0; 16];
    let (length, from) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"answer"[..], to));
}

fn a_socket_for_both_versions_shows_ipv4_as_ipv4_and_answers_from_where_it_was_sent_to(place: &Place) {
    let (mut net, address) = place.net_at(ANY);
    let peer = place.peer();
    let to = SocketAddr::new(place.v4(9), address.port());
    peer.send_to(b"question", to).unwrap();
    let received = &receive(&mut net, 1)[0];
    assert_eq!((received.peer, received.local_ip), (peer.local_addr().unwrap(), Some(to.ip())));
    send_to(&mut net, SocketRole::Srt, received.peer, received.local_ip, b"answer");
    net.wait(Duration::ZERO).unwrap();
    let mut buffer = [0; 16];
    let (length, from) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"answer"[..], to));
}

fn the_source_address_can_be_chosen(place: &Place) {
    let (mut net, address) = place.net_at(ANY_V4);
    let peer = place.peer();
    for (local, source) in [(Some(place.v4(5)), place.v4(5)), (None, place.v4(1))] {
        send_to(&mut net, SocketRole::Srt, peer.local_addr().unwrap(), local, b"x");
        net.wait(Duration::ZERO).unwrap();
        let (_, from) = peer.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(from, SocketAddr::new(source, address.port()));
    }
}

fn sockets_are_told_apart_by_their_roles_in_and_out(place: &Place) {
    let roles = [
        SocketRole::Srt,
        SocketRole::Rtp,
        SocketRole::Rtcp,
        SocketRole::Stream(3),
        SocketRole::StreamRtcp(3),
        SocketRole::Stream(4),
    ];
    let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
    for role in roles {
        let (descriptor, address, _) = place.socket(place.v4(1), 1 << 20);
        sockets.push((role, descriptor));
        addresses.push(address);
    }
    let mut net = place.net(1_024, sockets);
    let sender = place.peer();
    for n in 0..20_u64 {
        for address in &addresses {
            sender.send_to(&n.to_be_bytes(), address).unwrap();
        }
    }
    let received = receive(&mut net, 120);
    for role in roles {
        let numbers: Vec<u64> = received.iter().filter(|it| net.role(it) == role).map(number).collect();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "{role:?}");
    }
    let peer = sender.local_addr().unwrap();
    send_to(&mut net, SocketRole::StreamRtcp(4), peer, None, b"by a socket that is not there");
    for (role, address) in roles.into_iter().zip(addresses) {
        send_to(&mut net, role, peer, None, b"x");
        net.wait(Duration::ZERO).unwrap();
        assert_eq!(sender.recv_from(&mut [0; 8]).unwrap(), (1, address), "{role:?}");
    }
}

fn what_is_sent_arrives_byte_for_byte_and_in_order(place: &Place) {
    let (mut net, from) = place.net_at(place.v4(1));
    let to = place.roomy_peer();
    let address = to.local_addr().unwrap();
    let mut buffer = [0; 2_048];
    for batch in [0..100, 100..130, 130..131] {
        for n in batch.clone() {
            send_to(&mut net, SocketRole::Srt, address, None, &bytes_of(n * 13));
        }
        net.wait(Duration::ZERO).unwrap();
        for n in batch {
            let (length, source) = to.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], source), (&bytes_of(n * 13)[..], from));
        }
    }
    // More than can be queued at once: some leave on the way.
    let sink = place.peer();
    for _ in 0..2_000 {
        send_to(&mut net, SocketRole::Srt, sink.local_addr().unwrap(), None, b"into a small buffer");
    }
    net.wait(WINDOW).unwrap();
    net.drain_into(&mut Vec::new()).unwrap();
    let sends = net.statistics().sends;
    assert_eq!((sends.sent, sends.arena_full, sends.other), (2_131, 0, 0), "{sends:?}");
}

fn send_errors_are_counted_and_harmless(place: &Place) {
    let (mut net, address) = place.net_at(place.v4(1));
    let peer = place.peer();
    let to = peer.local_addr().unwrap();
    send_to(&mut net, SocketRole::Srt, "255.255.255.255:9".parse().unwrap(), None, b"x");
    send_to(&mut net, SocketRole::Srt, to, Some([203, 0, 113, 7].into()), b"x");
    send_to(&mut net, SocketRole::Srt, to, None, b"good");
    net.wait(Duration::ZERO).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(peer.recv_from(&mut buffer).unwrap(), (4, address));
    assert_eq!(buffer[..4], b"good"[..]);
    peer.send_to(b"more", address).unwrap();
    assert_eq!(receive(&mut net, 1)[0].packet[..], b"more"[..]);
    let sends = net.statistics().sends;
    assert_eq!((sends.sent, sends.denied), (1, 1), "{sends:?}");
    assert_eq!(sends.unreachable + sends.other, 1, "{sends:?}");
}

fn waits_end_in_time(place: &Place) {
    let (mut net, address) = place.net_at(place.v4(1));
    let started = Instant::now();
    net.wait_for_any(Duration::from_millis(20)).unwrap();
    let waited = started.elapsed();
    assert!((Duration::from_millis(19)..Duration::from_secs(1)).contains(&waited), "{waited:?}");
    assert_eq!(net.drain_into(&mut Vec::new()).unwrap(), (0, false));
    let started = Instant::now();
    for _ in 0..100 {
        net.wait(Duration::ZERO).unwrap();
    }
    assert!(started.elapsed() < Duration::from_millis(500));
    let started = Instant::now();
    net.wait(Duration::from_millis(20)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(1));
    place.peer().send_to(b"here", address).unwrap();
    let started = Instant::now();
    net.wait_for_any(Duration::from_secs(10)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(receive(&mut net, 1).len(), 1);
}

fn a_net_that_goes_leaves_its_slots_and_ports_behind_and_sends_what_is_queued(place: &Place) {
    let (mut net, address) = place.net_at(place.v4(1));
    let pool = net.pool().clone();
    let peer = place.peer();
    peer.send_to(b"still here", address).unwrap();
    let received = receive(&mut net, 1).pop().unwrap();
    peer.send_to(b"never taken", address).unwrap();
    send_to(&mut net, SocketRole::Srt, peer.local_addr().unwrap(), None, b"goodbye");
    drop(net);
    let mut buffer = [0; 16];
    let length = peer.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..length], b"goodbye"[..]);
    assert_eq!((&received.packet[..], pool.in_use()), (&b"still here"[..], 1));
    drop(received);
    assert_eq!(pool.in_use(), 0);
    assert!(place.is_free(address));
}
