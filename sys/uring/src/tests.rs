//! The packet ring on loopback. What all ways to get packets have in common is tested by the conformance suite in `src/shard/net`.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use headworks_host::{UdpSocketOptions, udp_socket};
use headworks_packet::{PacketPool, PoolOptions};

use crate::*;

const WINDOW: Duration = Duration::from_millis(1);

fn pool(slots: usize, slot_size: usize) -> PacketPool {
    PacketPool::new(PoolOptions { slots, slot_size, ..PoolOptions::default() }).unwrap()
}

fn small_ring(credit: u16) -> PacketRing {
    let options = RingOptions { credit, ..RingOptions::default() };
    PacketRing::new(options, pool(4096, 2048)).unwrap()
}

fn socket(bind: &str) -> (OwnedFd, SocketAddr) {
    let (socket, granted) =
        udp_socket(&UdpSocketOptions { receive_buffer: 4 << 20, ..UdpSocketOptions::new(bind.parse().unwrap()) })
            .unwrap();
    (socket, granted.local)
}

fn sender() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Receives until there are `count` datagrams, for at most five seconds.
fn receive(ring: &mut PacketRing, count: usize) -> Vec<Received> {
    let mut received = Vec::new();
    let started = Instant::now();
    while received.len() < count && started.elapsed() < Duration::from_secs(5) {
        ring.enter_and_wait(256, WINDOW).unwrap();
        ring.drain(|datagram| received.push(datagram)).unwrap();
    }
    received
}

fn number(received: &Received) -> u64 {
    u64::from_be_bytes(received.packet[..8].try_into().unwrap())
}

#[test]
fn a_hundred_thousand_datagrams_arrive_in_order() {
    const COUNT: u64 = 100_000;
    let mut ring = small_ring(512);
    let (descriptor, address) = socket("127.0.0.1:0");
    ring.add_socket(descriptor, 42).unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&taken);
    let thread = std::thread::spawn(move || {
        let sender = sender();
        let mut datagram = [0x47; 1316];
        for n in 0..COUNT {
            // The socket buffer is not what is tested: never more than fits the smallest.
            while n - seen.load(Ordering::Acquire) >= 60 {
                std::thread::yield_now();
            }
            datagram[..8].copy_from_slice(&n.to_be_bytes());
            sender.send_to(&datagram, address).unwrap();
        }
    });
    let mut next = 0;
    let started = Instant::now();
    while next < COUNT {
        assert!(started.elapsed() < Duration::from_secs(60), "{next} came");
        ring.enter_and_wait(32, WINDOW).unwrap();
        ring.drain(|received| {
            assert_eq!(number(&received), next);
            assert_eq!(received.packet.len(), 1316);
            assert_eq!((received.token, received.truncated), (42, false));
            assert_eq!(received.overflow, None);
            next += 1;
        })
        .unwrap();
        taken.store(next, Ordering::Release);
    }
    thread.join().unwrap();
    assert_eq!(ring.statistics().datagrams, COUNT);
    assert_eq!(ring.statistics().receive_errors, 0);
}

#[test]
fn one_drain_takes_more_than_the_kernel_posts_at_once() {
    let mut ring = small_ring(1024);
    let (descriptor, address) = socket("127.0.0.1:0");
    ring.add_socket(descriptor, 0).unwrap();
    let sender = sender();
    for n in 0..200u64 {
        sender.send_to(&n.to_be_bytes(), address).unwrap();
    }
    let mut numbers = Vec::new();
    ring.enter_and_wait(1, WINDOW).unwrap();
    let drained = ring.drain(|r| numbers.push(number(&r))).unwrap();
    assert_eq!((drained.datagrams, drained.more), (200, false));
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
}

#[test]
fn a_drain_stops_at_its_limit_and_says_so() {
    let options = RingOptions { drain_limit: 50, ..RingOptions::default() };
    let mut ring = PacketRing::new(options, pool(4096, 2048)).unwrap();
    let (descriptor, address) = socket("127.0.0.1:0");
    ring.add_socket(descriptor, 0).unwrap();
    let sender = sender();
    for n in 0..200u64 {
        sender.send_to(&n.to_be_bytes(), address).unwrap();
    }
    ring.enter_and_wait(1, WINDOW).unwrap();
    let drained = ring.drain(drop).unwrap();
    assert!(drained.more);
    assert!((50..200).contains(&drained.datagrams), "{drained:?}");
    assert_eq!(receive(&mut ring, 200 - drained.datagrams).len(), 200 - drained.datagrams);
}

#[test]
fn a_receive_that_ran_out_of_credit_is_armed_again() {
    let mut ring = small_ring(4);
    let (descriptor, address) = socket("127.0.0.1:0");
    ring.add_socket(descriptor, 0).unwrap();
    let sender = sender();
    for n in 0..200u64 {
        sender.send_to(&n.to_be_bytes(), address).unwrap();
    }
    let numbers: Vec<u64> = receive(&mut ring, 200).iter().map(number).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    let statistics = ring.statistics();
    assert!(statistics.credit_exhausted > 10, "{statistics:?}");
    assert!(statistics.rearmed >= statistics.credit_exhausted);
    assert_eq!(statistics.receive_errors, 0);
}

#[test]
fn an_exhausted_pool_stops_the_receive_until_packets_are_let_go() {
    let options = RingOptions { credit: 64, ..RingOptions::default() };
    let pool = pool(10, 2048);
    let mut ring = PacketRing::new(options, pool.clone()).unwrap();
    let (descriptor, address) = socket("127.0.0.1:0");
    ring.add_socket(descriptor, 0).unwrap();
    let sender = sender();
    for n in 0..30u64 {
        sender.send_to(&n.to_be_bytes(), address).unwrap();
    }
    let mut all = Vec::new();
    for _ in 0..3 {
        let mut held = Vec::new();
        for _ in 0..5 {
            ring.enter_and_wait(1, WINDOW).unwrap();
            ring.drain(|r| held.push(r)).unwrap();
        }
        assert_eq!(held.len(), 10);
        assert_eq!(pool.free_slots(), 0);
        all.extend(held.iter().map(number));
    }
    assert_eq!(all, (0..30).collect::<Vec<_>>());
}

#[test]
fn an_empty_datagram_is_one_and_ends_nothing() {
    let mut ring = small_ring(64);
    let (descriptor, address) = socket("127.0.0.1:0");
    ring.add_socket(descriptor, 0).unwrap();
    let sender = sender();
    for n in 0..40 {
        let payload: &[u8] = if n % 2 == 0 { b"" } else { b"full" };
        sender.send_to(payload, address).unwrap();
    }
    let received = receive(&mut ring, 40);
    let lengths: Vec<usize> = received.iter().map(|r| r.packet.len()).collect();
    assert_eq!(lengths, [0, 4].repeat(20));
    assert!(ring.statistics().rearmed >= 20);
}

#[test]
fn a_datagram_longer_than_a_slot_is_cut_and_marked() {
    let pool = pool(64, 512);
    let mut ring = PacketRing::new(RingOptions { credit: 16, ..RingOptions::default() }, pool.clone()).unwrap();
    let (descriptor, address) = socket("127.0.0.1:0");
    ring.add_socket(descriptor, 0).unwrap();
    let room = PacketRing::payload_capacity(&pool);
    let sender = sender();
    sender.send_to(&vec![1; room], address).unwrap();
    sender.send_to(&vec![2; room + 1], address).unwrap();
    let received = receive(&mut ring, 2);
    assert_eq!((received[0].packet.len(), received[0].truncated), (room, false));
    assert_eq!((received[1].packet.len(), received[1].truncated), (room, true));
    assert_eq!(ring.statistics().truncated, 1);
}

#[test]
fn what_is_sent_arrives_byte_for_byte_and_in_order() {
    let options = RingOptions { send_slots: 16, submission_entries: 8, ..RingOptions::default() };
    let mut ring = PacketRing::new(options, pool(4096, 2048)).unwrap();
    let (descriptor, from) = socket("127.0.0.1:0");
    let id = ring.add_socket(descriptor, 0).unwrap();
    let (peer, to) = socket("127.0.0.1:0");
    let peer = UdpSocket::from(peer);
    peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let datagram = |n: usize| -> Vec<u8> { (0..n % 1400 + 1).map(|i| (i * 7 + n) as u8).collect() };
    let mut buffer = [0; 2048];
    for batch in 0..40 {
        for n in batch * 50..batch * 50 + 50 {
            ring.queue_send(id, &to, None, &datagram(n)).unwrap();
        }
        ring.flush().unwrap();
        for n in batch * 50..batch * 50 + 50 {
            let (length, source) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], datagram(n));
            assert_eq!(source, from);
        }
    }
    let sends = ring.statistics().sends;
    assert_eq!((sends.sent, sends.arena_full, sends.other), (2000, 0, 0));
    assert_eq!(ring.sends_in_flight(), 0);
}

#[test]
fn an_aggregate_sent_is_an_aggregate_received() {
    let options = RingOptions { send_slot_size: 1 << 16, send_slots: 4, ..RingOptions::default() };
    let mut ring = PacketRing::new(options, pool(4096, 2048)).unwrap();
    let large = ring.add_group(pool(32, 1 << 16), 16).unwrap();
    let (descriptor, granted) = udp_socket(&UdpSocketOptions {
        gro: true,
        receive_buffer: 4 << 20,
        ..UdpSocketOptions::new("127.0.0.1:0".parse().unwrap())
    })
    .unwrap();
    ring.add_socket_in(descriptor, 1, large).unwrap();
    let (out, _) = socket("127.0.0.1:0");
    let out = ring.add_socket(out, 2).unwrap();
    let bytes: Vec<u8> = (0..20 * 1316 + 100u32).map(|i| (i / 1316) as u8).collect();
    ring.queue_send_segmented(out, &granted.local, None, &bytes, 1316).unwrap();
    let received = receive(&mut ring, 1).pop().unwrap();
    assert_eq!((received.gro_segment, received.datagrams()), (Some(1316), 21));
    assert_eq!(&received.packet[..], &bytes[..]);
    let segments: Vec<_> = received.into_segments().collect();
    assert_eq!(segments.len(), 21);
    for (n, segment) in segments.iter().enumerate() {
        assert!(segment.iter().all(|&byte| byte == n as u8));
    }
    assert_eq!(segments[20].len(), 100);
    // A peer without GRO gets the datagrams one by one.
    let peer = sender();
    ring.queue_send_segmented(out, &peer.local_addr().unwrap(), None, &bytes[..3000], 1316).unwrap();
    ring.flush().unwrap();
    let lengths: Vec<usize> = (0..3).map(|_| peer.recv(&mut [0; 2048]).unwrap()).collect();
    assert_eq!(lengths, [1316, 1316, 368]);
}

#[test]
fn a_connected_socket_sends_without_an_address() {
    let mut ring = small_ring(64);
    let peer = sender();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let socket = sender();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    let out = ring.add_socket(socket.into(), 0).unwrap();
    ring.queue_send_connected(out, None, b"one").unwrap();
    ring.queue_send_connected(out, Some(4), b"twosthreend").unwrap();
    ring.flush().unwrap();
    let mut buffer = [0; 16];
    for expected in [&b"one"[..], b"twos", b"thre", b"end"] {
        let length = peer.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], expected);
    }
    let large = [0; 2049];
    assert_eq!(ring.queue_send_connected(out, None, &large), Err(SendError::TooLarge { length: 2049, limit: 2048 }));
    assert_eq!(ring.statistics().sends.sent, 2);
}

#[test]
fn a_socket_changes_its_group_without_losing_anything() {
    let mut ring = small_ring(64);
    let other_pool = pool(64, 4096);
    let other = ring.add_group(other_pool.clone(), 32).unwrap();
    let (descriptor, address) = socket("127.0.0.1:0");
    let id = ring.add_socket(descriptor, 0).unwrap();
    let sender = sender();
    let mut received = Vec::new();
    for n in 0..60u64 {
        match n {
            20 => ring.move_socket(id, other).unwrap(),
            40 => ring.move_socket(id, GroupId::default()).unwrap(),
            _ => {}
        }
        sender.send_to(&n.to_be_bytes(), address).unwrap();
        if n % 10 == 5 {
            ring.enter_and_wait(1, WINDOW).unwrap();
            ring.drain(|r| received.push(r)).unwrap();
        }
    }
    let rest = 60 - received.len();
    received.extend(receive(&mut ring, rest));
    assert_eq!(received.iter().map(number).collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
    let moved = received.iter().filter(|r| other_pool.owns(&r.packet)).count();
    assert!((10..=40).contains(&moved), "{moved}");
}

#[test]
fn send_errors_are_counted_and_harmless() {
    let options = RingOptions { send_slot_size: 1 << 16, send_slots: 4, ..RingOptions::default() };
    let mut ring = PacketRing::new(options, pool(256, 2048)).unwrap();
    let (descriptor, address) = socket("127.0.0.1:0");
    let id = ring.add_socket(descriptor, 0).unwrap();
    ring.queue_send(id, &address, None, &[0; 65_530]).unwrap();
    ring.queue_send(id, &"255.255.255.255:9".parse().unwrap(), None, b"x").unwrap();
    ring.queue_send(id, &address, Some([203, 0, 113, 7].into()), b"x").unwrap();
    ring.queue_send(id, &address, None, b"good").unwrap();
    assert_eq!(
        ring.queue_send(id, &address, None, &[0; 65_537]),
        Err(SendError::TooLarge { length: 65_537, limit: 65_536 })
    );
    assert_eq!(receive(&mut ring, 1)[0].packet[..], b"good"[..]);
    let sends = ring.statistics().sends;
    assert_eq!((sends.sent, sends.too_long, sends.denied), (1, 1, 1), "{sends:?}");
    assert_eq!(sends.unreachable + sends.other, 1, "{sends:?}");
}

#[test]
fn a_socket_whose_peer_refuses_goes_on() {
    let mut ring = small_ring(64);
    let closed = sender();
    let peer = closed.local_addr().unwrap();
    drop(closed);
    let connected = sender();
    connected.connect(peer).unwrap();
    let address = connected.local_addr().unwrap();
    let id = ring.add_socket(connected.into(), 0).unwrap();
    for _ in 0..5 {
        ring.queue_send(id, &peer, None, b"anybody?").unwrap();
        ring.enter_and_wait(1, WINDOW).unwrap();
        ring.drain(drop).unwrap();
    }
    let statistics = ring.statistics();
    assert!(statistics.receive_errors + statistics.sends.refused > 0, "{statistics:?}");
    assert!(statistics.enters < 200, "{statistics:?}");
    let (returned, _) = udp_socket(&UdpSocketOptions::new(peer)).unwrap();
    UdpSocket::from(returned).send_to(b"here", address).unwrap();
    assert_eq!(receive(&mut ring, 1)[0].packet[..], b"here"[..]);
}

#[test]
fn lost_datagrams_are_counted_by_the_kernel() {
    let mut ring = small_ring(1024);
    let (descriptor, granted) =
        udp_socket(&UdpSocketOptions { receive_buffer: 4096, ..UdpSocketOptions::new("127.0.0.1:0".parse().unwrap()) })
            .unwrap();
    ring.add_socket(descriptor, 0).unwrap();
    let sender = sender();
    for n in 0..500u64 {
        sender.send_to(&n.to_be_bytes(), granted.local).unwrap();
    }
    let first = receive(&mut ring, 1).len();
    assert!(first < 500);
    sender.send_to(b"the last", granted.local).unwrap();
    let last = receive(&mut ring, 1);
    assert_eq!(last[0].overflow, Some(500 - first as u32));
}

#[test]
fn a_removed_socket_is_closed_and_silent() {
    let pool = pool(256, 2048);
    let options = RingOptions { credit: 64, ..RingOptions::default() };
    let mut ring = PacketRing::new(options, pool.clone()).unwrap();
    let (descriptor, address) = socket("127.0.0.1:0");
    let gone = ring.add_socket(descriptor, 1).unwrap();
    let (descriptor, staying_address) = socket("127.0.0.1:0");
    ring.add_socket(descriptor, 2).unwrap();
    let sender = sender();
    sender.send_to(b"too late", address).unwrap();
    ring.remove_socket(gone).unwrap();
    assert!(matches!(ring.remove_socket(gone), Err(RingError::Socket(_))));
    assert_eq!(ring.queue_send(gone, &address, None, b"x"), Err(SendError::NoSocket));
    sender.send_to(b"stays", staying_address).unwrap();
    let received = receive(&mut ring, 1);
    assert_eq!((received.len(), received[0].token), (1, 2));
    drop(received);
    headworks_host::probe_exclusive(address).unwrap();
    // The place is used again, but the old name does not fit it.
    let (descriptor, address) = socket("127.0.0.1:0");
    let new = ring.add_socket(descriptor, 3).unwrap();
    assert_ne!(new, gone);
    assert!(ring.remove_socket(gone).is_err());
    sender.send_to(b"new", address).unwrap();
    assert_eq!(receive(&mut ring, 1)[0].token, 3);
    assert_eq!(pool.in_use(), ring.credit(GroupId::default()));
}

#[test]
fn a_dropped_ring_leaves_ports_and_slots_behind() {
    let pool = pool(256, 2048);
    for _ in 0..20 {
        let options = RingOptions { credit: 64, ..RingOptions::default() };
        let mut ring = PacketRing::new(options, pool.clone()).unwrap();
        let mut addresses = Vec::new();
        for token in 0..8 {
            let (descriptor, address) = socket("127.0.0.1:0");
            let id = ring.add_socket(descriptor, token).unwrap();
            ring.queue_send(id, &address, None, b"never drained").unwrap();
            addresses.push(address);
        }
        ring.flush().unwrap();
        drop(ring);
        assert_eq!(pool.in_use(), 0);
        for address in addresses {
            headworks_host::probe_exclusive(address).unwrap();
        }
    }
}

#[test]
fn packets_outlive_their_ring() {
    let mut ring = small_ring(64);
    let (descriptor, address) = socket("127.0.0.1:0");
    ring.add_socket(descriptor, 0).unwrap();
    sender().send_to(b"still here", address).unwrap();
    let received = receive(&mut ring, 1);
    drop(ring);
    assert_eq!(&received[0].packet[..], b"still here");
}

#[test]
fn a_wait_ends_in_time_when_nothing_comes() {
    let mut ring = small_ring(64);
    let (descriptor, _) = socket("127.0.0.1:0");
    ring.add_socket(descriptor, 0).unwrap();
    let started = Instant::now();
    ring.enter_and_wait(256, Duration::from_millis(20)).unwrap();
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(19), "{waited:?}");
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    assert_eq!(ring.drain(drop).unwrap(), Drained::default());
    let started = Instant::now();
    for _ in 0..100 {
        ring.enter_and_wait(256, Duration::ZERO).unwrap();
    }
    assert!(started.elapsed() < Duration::from_millis(500));
}

#[test]
fn what_makes_no_ring_is_refused_with_a_reason() {
    let refused = |options| match PacketRing::new(options, pool(16, 2048)) {
        Err(error @ RingError::Options(_)) => error.to_string(),
        other => panic!("{:?}", other.err()),
    };
    let good = RingOptions::default();
    assert!(refused(RingOptions { credit: 100, ..good }).contains("power of two"));
    assert!(refused(RingOptions { send_slots: 0, ..good }).contains("0"));
    let crowded = RingOptions { completion_entries: 1024, ..good };
    assert!(refused(crowded).contains("twice"));
    assert!(matches!(PacketRing::new(good, pool(16, 128)), Err(RingError::Options(_))));
    let mut ring = small_ring(64);
    let not_a_socket = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(ring.add_socket(not_a_socket.into(), 0), Err(RingError::Socket(_))));
    probe().unwrap();
}

#[test]
fn an_error_of_setup_names_its_cure() {
    let error = |errno| RingError::setup(std::io::Error::from_raw_os_error(errno)).to_string();
    assert!(error(libc::EPERM).contains("kernel.io_uring_disabled=0"));
    assert!(error(libc::ENOSYS).contains("CONFIG_IO_URING"));
    assert!(error(libc::EINVAL).contains("Linux 6.1"));
    assert!(error(libc::ENOMEM).contains("memlock"));
}
