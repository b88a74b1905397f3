//! The sockets on loopback. What all ways to get packets have in common is tested by the conformance suite in `src/shard/net`.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use headworks_host::{UdpSocketOptions, udp_socket};
use headworks_packet::{PacketPool, PoolOptions};

use crate::*;

fn pool(slots: usize) -> PacketPool {
    PacketPool::new(PoolOptions { slots, ..PoolOptions::default() }).unwrap()
}

fn socket() -> (OwnedFd, SocketAddr) {
    let bind = "127.0.0.1:0".parse().unwrap();
    let (socket, granted) =
        udp_socket(&UdpSocketOptions { receive_buffer: 4 << 20, ..UdpSocketOptions::new(bind) }).unwrap();
    (socket, granted.local)
}

fn number(received: &Received) -> u64 {
    u64::from_be_bytes(received.packet[..8].try_into().unwrap())
}

#[test]
fn a_drain_stops_at_its_limit_and_a_flooded_socket_keeps_no_other_waiting() {
    let options = MmsgOptions { drain_limit: 128, ..MmsgOptions::default() };
    let mut set = MmsgSockets::new(options, pool(1_024)).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (token, count) in [(7, 200), (8, 100)] {
        let (descriptor, address) = socket();
        set.add_socket(descriptor, token).unwrap();
        for n in 0..count as u64 {
            sender.send_to(&n.to_be_bytes(), address).unwrap();
        }
    }
    let mut received = Vec::new();
    let drained = set.drain(|it| received.push(it)).unwrap();
    assert_eq!(drained, Drained { datagrams: 128, more: true });
    assert_eq!(received.iter().filter(|it| it.token == 8).count(), 64);
    while set.drain(|it| received.push(it)).unwrap().more {}
    for (token, count) in [(7, 200), (8, 100)] {
        let numbers: Vec<u64> = received.iter().filter(|it| it.token == token).map(number).collect();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn one_call_takes_as_many_datagrams_as_it_has_slots_for() {
    let mut set = MmsgSockets::new(MmsgOptions::default(), pool(1_024)).unwrap();
    let (descriptor, address) = socket();
    set.add_socket(descriptor, 0).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..130_u64 {
        sender.send_to(&n.to_be_bytes(), address).unwrap();
    }
    assert_eq!(set.drain(drop).unwrap().datagrams, 130);
    assert_eq!((set.statistics().receives, set.statistics().datagrams), (3, 130));
    assert_eq!(set.drain(drop).unwrap(), Drained::default());
    assert_eq!(set.statistics().receives, 3, "a socket that has nothing is not asked");
}

#[test]
fn a_socket_whose_peer_refuses_goes_on() {
    let mut set = MmsgSockets::new(MmsgOptions::default(), pool(256)).unwrap();
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = closed.local_addr().unwrap();
    drop(closed);
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect(peer).unwrap();
    let address = connected.local_addr().unwrap();
    let place = set.add_socket(connected.into(), 0).unwrap();
    for _ in 0..5 {
        set.queue_send(place, &peer, None, b"anybody?").unwrap();
        set.wait(Duration::from_millis(1));
        set.drain(drop).unwrap();
    }
    let statistics = set.statistics();
    assert!(statistics.receive_errors + statistics.sends.refused > 0, "{statistics:?}");
    assert!(statistics.receives < 50, "{statistics:?}");
    let (returned, _) = udp_socket(&UdpSocketOptions::new(peer)).unwrap();
    UdpSocket::from(returned).send_to(b"here", address).unwrap();
    let mut received = Vec::new();
    set.wait_for_any(Duration::from_secs(5)).unwrap();
    set.drain(|it| received.push(it)).unwrap();
    assert_eq!(received[0].packet[..], b"here"[..]);
}

#[test]
fn what_cannot_be_used_is_refused_with_a_reason() {
    let refused = MmsgSockets::new(MmsgOptions { send_slots: 0, ..MmsgOptions::default() }, pool(16));
    assert!(matches!(refused, Err(MmsgError::Options(_))));
    let mut set = MmsgSockets::new(MmsgOptions::default(), pool(16)).unwrap();
    let not_a_socket = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(set.add_socket(not_a_socket.into(), 0), Err(MmsgError::Socket(_))));
    let (descriptor, address) = socket();
    let place = set.add_socket(descriptor, 0).unwrap();
    assert_eq!(set.queue_send(place + 1, &address, None, b"x"), Err(SendError::NoSocket));
    let large = [0; 2_049];
    assert_eq!(set.queue_send(place, &address, None, &large), Err(SendError::TooLarge { length: 2_049, limit: 2_048 }));
}
