//! Steady state means no allocation: neither for a datagram past the kernel's stack nor for one that found no slot. For root alone.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headworks_counting_allocator::{CountingAllocator, allocations};
use headworks_network_namespaces::{Cable, Host, LINK};
use headworks_packet::{Packet, PacketPool, PoolOptions};
use headworks_xdp::{Attachment, Owner, XdpOptions, XdpSockets, interfaces};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Takes `count` datagrams of another host, which sends more at a time than there is credit for; half of them are held for a while.
fn turns(sockets: &mut XdpSockets, sender: &UdpSocket, to: SocketAddr, count: usize) {
    let mut held: [Option<Packet>; 32] = [const { None }; 32];
    let (mut sent, mut taken) = (0, 0);
    let started = Instant::now();
    while taken < count && started.elapsed() < Duration::from_secs(20) {
        while sent < count && sent - taken < 60 {
            sender.send_to(&[0x47; 1_316], to).unwrap();
            sent += 1;
        }
        sockets.wait_for_any(Duration::from_millis(1)).unwrap();
        sockets
            .drain(|received| {
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
    let Some(cable) = Cable::for_xdp(1, &["10.88.0.1/24"], &["10.88.0.2/24"]) else { return };
    let sender = cable.on(Host::Far, || UdpSocket::bind("10.88.0.2:0").unwrap());
    cable.on(Host::Near, || {
        let pool = PacketPool::new(PoolOptions { slots: 256, ..PoolOptions::default() }).unwrap();
        let socket = UdpSocket::bind("10.88.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let to = socket.local_addr().unwrap();
        let link = interfaces().unwrap().into_iter().find(|it| it.name == LINK).unwrap();
        let ports = [(to.ip(), to.port(), Owner::Any)];
        let attachment = Attachment::new(LINK, link.index, &ports, pool.slot_size(), 1).unwrap();
        let options = XdpOptions { credit: 32, drain_limit: 4_096, shard: 0, shards: 1 };
        let mut sockets = XdpSockets::new(options, pool, Arc::new([attachment])).unwrap();
        sockets.add_socket(socket.into(), 0).unwrap();
        turns(&mut sockets, &sender, to, 1_000);
        let (before, taken) = (allocations(), sockets.statistics().taken);
        assert!(before > 0, "the allocator counts");
        turns(&mut sockets, &sender, to, 20_000);
        assert_eq!(allocations() - before, 0);
        let taken = sockets.statistics().taken - taken;
        assert!((5_000..20_000).contains(&taken), "{taken}");
    });
}
