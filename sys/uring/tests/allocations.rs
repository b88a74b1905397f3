//! Steady state means no allocation: neither for a datagram received nor for one sent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headworks_counting_allocator::{CountingAllocator, allocations};
use headworks_host::{UdpSocketOptions, udp_socket};
use headworks_packet::{PacketPool, PoolOptions};
use headworks_uring::{PacketRing, RingOptions, SocketId};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Sends `count` datagrams through the ring to itself and takes them; half of them are held for a while.
fn turns(ring: &mut PacketRing, socket: SocketId, to: &SocketAddr, count: usize) {
    let mut held: [Option<headworks_packet::Packet>; 32] = [const { None }; 32];
    let (mut sent, mut taken) = (0, 0);
    let started = Instant::now();
    while taken < count && started.elapsed() < Duration::from_secs(20) {
        while sent < count && sent - taken < 60 {
            ring.queue_send(socket, to, None, &[0x47; 1316]).unwrap();
            sent += 1;
        }
        ring.enter_and_wait(30, Duration::from_millis(1)).unwrap();
        ring.drain(|received| {
            taken += 1;
            if taken % 2 == 0 {
                held[taken / 2 % 32] = Some(received.packet);
            }
        })
        .unwrap();
    }
    assert_eq!((sent, taken), (count, count));
}

#[test]
fn nothing_is_allocated_per_datagram() {
    let pool = PacketPool::new(PoolOptions { slots: 512, ..PoolOptions::default() }).unwrap();
    let options = RingOptions {
        // Small, so that running out and arming again is part of it.
        credit: 16,
        send_slots: 32,
        submission_entries: 8,
        ..RingOptions::default()
    };
    let mut ring = PacketRing::new(options, pool).unwrap();
    let bind = "127.0.0.1:0".parse().unwrap();
    let (descriptor, granted) = udp_socket(&UdpSocketOptions::new(bind)).unwrap();
    let socket = ring.add_socket(descriptor, 0).unwrap();
    turns(&mut ring, socket, &granted.local, 1000);
    let before = allocations();
    assert!(before > 0, "the allocator counts");
    turns(&mut ring, socket, &granted.local, 20_000);
    assert_eq!(allocations() - before, 0);
    assert!(ring.statistics().credit_exhausted > 0);
}
