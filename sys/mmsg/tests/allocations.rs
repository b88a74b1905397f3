//! Steady state means no allocation: neither for a datagram received nor for one sent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headworks_counting_allocator::{CountingAllocator, allocations};
use headworks_host::{UdpSocketOptions, udp_socket};
use headworks_mmsg::{MmsgOptions, MmsgSockets};
use headworks_packet::{Packet, PacketPool, PoolOptions};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Sends `count` datagrams to the sockets themselves and takes them; half of them are held for a while.
fn turns(set: &mut MmsgSockets, to: &SocketAddr, count: usize) {
    let mut held: [Option<Packet>; 32] = [const { None }; 32];
    let (mut sent, mut taken) = (0, 0);
    let started = Instant::now();
    while taken < count && started.elapsed() < Duration::from_secs(20) {
        while sent < count && sent - taken < 60 {
            set.queue_send(0, to, None, &[0x47; 1316]).unwrap();
            sent += 1;
        }
        set.wait_for_any(Duration::from_millis(1)).unwrap();
        set.drain(|received| {
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
    // Few, so that running out is part of it.
    let pool = PacketPool::new(PoolOptions { slots: 64, ..PoolOptions::default() }).unwrap();
    let mut set = MmsgSockets::new(MmsgOptions { send_slots: 32, ..MmsgOptions::default() }, pool).unwrap();
    let (descriptor, granted) = udp_socket(&UdpSocketOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
    set.add_socket(descriptor, 0).unwrap();
    turns(&mut set, &granted.local, 1000);
    let before = allocations();
    assert!(before > 0, "the allocator counts");
    turns(&mut set, &granted.local, 20_000);
    assert_eq!(allocations() - before, 0);
}
