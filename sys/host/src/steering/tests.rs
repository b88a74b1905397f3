//! The programs as the kernel runs them, against what Rust says.

use super::*;
use crate::{UdpSocketOptions, shared_udp_sockets, udp_socket};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// A REUSEPORT group of real sockets, steered.
struct Group {
    sockets: Vec<UdpSocket>,
    address: SocketAddr,
}

impl Group {
    fn new(bind: &str, shards: usize, steering: Steering) -> Self {
        let options = UdpSocketOptions { reuse_port: true, ..UdpSocketOptions::new(bind.parse().unwrap()) };
        let opened = shared_udp_sockets(&options, shards).unwrap();
        let address = opened[0].1.local;
        let sockets: Vec<UdpSocket> = opened.into_iter().map(|(socket, _)| socket.into()).collect();
        for socket in &sockets {
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        }
        attach_steering(&sockets[0], shards, steering).unwrap();
        Self { sockets, address }
    }

    /// Sends a datagram and asserts that the socket of `shard`, and it alone, has it.
    fn expect(&self, from: &UdpSocket, payload: &[u8], shard: usize) {
        from.send_to(payload, self.address).unwrap();
        let mut buffer = [0; 2048];
        let length = self.sockets[shard]
            .recv(&mut buffer)
            .unwrap_or_else(|_| panic!("{payload:02x?} did not reach shard {shard}"));
        assert_eq!(&buffer[..length], payload);
    }

    /// Sends a datagram and says which socket has it.
    fn ask(&self, from: &UdpSocket, payload: &[u8]) -> usize {
        from.send_to(payload, self.address).unwrap();
        let mut buffer = [0; 2048];
        for _ in 0..1000 {
            for (shard, socket) in self.sockets.iter().enumerate() {
                socket.set_nonblocking(true).unwrap();
                let received = socket.recv(&mut buffer);
                socket.set_nonblocking(false).unwrap();
                if received.is_ok() {
                    return shard;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("nobody got it");
    }
}

fn sender() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// An SRT packet: header with the destination id, and a body.
fn srt(control: bool, destination: u32, body: usize) -> Vec<u8> {
    let mut packet = vec![0x55; 16 + body];
    packet[0] = if control { 0x80 } else { 0 };
    packet[12..16].copy_from_slice(&destination.to_be_bytes());
    packet
}

fn handshake(destination: u32, caller_id: u32) -> Vec<u8> {
    let mut packet = srt(true, destination, 48);
    packet[40..44].copy_from_slice(&caller_id.to_be_bytes());
    packet
}

fn random(seed: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(seed), |&x| {
        // xorshift32, Marsaglia 2003.
        let x = x ^ (x << 13);
        let x = x ^ (x >> 17);
        Some(x ^ (x << 5))
    })
    .skip(1)
}

#[test]
fn a_socket_id_remembers_its_shard() {
    for shard in [0, 1, 77, 255] {
        for random in [0, 1, 0x3f_ffff, u32::MAX] {
            let id = compose_socket_id(shard, random);
            assert_eq!(shard_of_socket_id(id), shard);
            assert!((1..1 << 30).contains(&id), "{id:#x}");
        }
    }
    assert_eq!(compose_socket_id(3, 0x12_3456), 0x00d2_3456);
}

#[test]
fn srt_data_goes_to_the_shard_in_its_destination_id() {
    for shards in [2, 4] {
        let group = Group::new("127.0.0.1:0", shards, Steering::Srt);
        let sender = sender();
        for (n, random) in random(7).take(64).enumerate() {
            let shard = n % shards;
            let id = compose_socket_id(shard, random);
            group.expect(&sender, &srt(n % 3 == 0, id, n), shard);
            // The group bit is not part of the shard.
            group.expect(&sender, &srt(false, id | 1 << 30, n), shard);
        }
    }
}

#[test]
fn both_handshakes_of_a_caller_go_to_one_shard() {
    for shards in [2, 3, 4] {
        let group = Group::new("127.0.0.1:0", shards, Steering::Srt);
        let mut seen = vec![0; shards];
        for caller_id in random(99).take(64) {
            let shard = shard_of_handshake(caller_id, shards);
            // From two ports: it is not the address that decides.
            group.expect(&sender(), &handshake(0, caller_id), shard);
            group.expect(&sender(), &handshake(0, caller_id), shard);
            seen[shard] += 1;
        }
        let fair = 64 / shards;
        assert!(seen.iter().all(|&n| n > fair / 3), "{seen:?}");
    }
}

#[test]
fn what_is_too_short_to_steer_goes_to_the_first_shard() {
    let group = Group::new("127.0.0.1:0", 4, Steering::Srt);
    let sender = sender();
    for length in [1, 11, 12, 15] {
        group.expect(&sender, &vec![0xff; length], 0);
    }
    for body in [0, 20, 27] {
        group.expect(&sender, &srt(true, 0, body), 0);
    }
    let rtp = Group::new("127.0.0.1:0", 4, Steering::Rtp);
    rtp.expect(&sender, &[0x80; 11], 0);
}

#[test]
fn an_id_of_no_shard_is_spread_by_address_and_port() {
    let group = Group::new("127.0.0.1:0", 2, Steering::Srt);
    let packet = srt(false, compose_socket_id(200, 5), 100);
    let shards: Vec<usize> = (0..32).map(|_| group.ask(&sender(), &packet)).collect();
    assert!(shards.contains(&0) && shards.contains(&1), "{shards:?}");
    // One sender always meets the same socket.
    let one = sender();
    let first = group.ask(&one, &packet);
    assert!((0..8).all(|_| group.ask(&one, &packet) == first));
}

#[test]
fn rtp_and_rtcp_of_a_source_go_to_one_shard() {
    for shards in [2, 4] {
        let rtp = Group::new("127.0.0.1:0", shards, Steering::Rtp);
        let rtcp = Group::new("127.0.0.1:0", shards, Steering::Rtcp);
        for ssrc in random(1234).take(48) {
            let shard = shard_of_ssrc(ssrc, shards);
            let mut packet = [0x80; 200];
            packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
            rtp.expect(&sender(), &packet, shard);
            let mut report = [0x81; 28];
            report[4..8].copy_from_slice(&ssrc.to_be_bytes());
            rtcp.expect(&sender(), &report, shard);
        }
    }
}

#[test]
fn a_raw_stream_on_the_rtp_port_is_steered_by_its_source_whatever_its_bytes() {
    for shards in [2, 4] {
        let group = Group::new("127.0.0.1:0", shards, Steering::Rtp);
        for host in 1..=16 {
            let source = IpAddr::from([127, 0, 3, host]);
            let sender = UdpSocket::bind((source, 0)).unwrap();
            for noise in random(u32::from(host)).take(6) {
                for first in [0x47, 0, 0x3f] {
                    // Without and with a time code before each packet.
                    let mut packet = [0x47; 192];
                    packet[0] = first;
                    packet[8..12].copy_from_slice(&noise.to_be_bytes());
                    group.expect(&sender, &packet, shard_of_source(source, shards));
                }
            }
        }
    }
}

#[test]
fn a_raw_stream_is_steered_by_its_source_address_alone() {
    let shards = 4;
    let group = Group::new("127.0.0.1:0", shards, Steering::Source);
    let mut seen = [0; 4];
    for host in 1..=40 {
        let source = IpAddr::from([127, 0, 3, host]);
        let shard = shard_of_source(source, shards);
        seen[shard] += 1;
        for _ in 0..2 {
            let sender = UdpSocket::bind((source, 0)).unwrap();
            group.expect(&sender, &[0x47; 1316], shard);
            group.expect(&sender, b"", shard);
        }
    }
    assert!(seen.iter().all(|&n| n > 3), "{seen:?}");
}

#[test]
fn a_raw_stream_over_ipv6_is_steered_by_its_source_address_too() {
    for shards in [2, 3, 5, 7, 11] {
        let group = Group::new("[::1]:0", shards, Steering::Source);
        let sender = UdpSocket::bind("[::1]:0").unwrap();
        let shard = shard_of_source("::1".parse().unwrap(), shards);
        group.expect(&sender, &[0x47; 188], shard);
    }
    // A socket for both versions sees the IPv4 header of IPv4 datagrams.
    let both = Group::new("[::]:0", 4, Steering::Source);
    for host in 1..=8 {
        let source = IpAddr::from([127, 0, 4, host]);
        let sender = UdpSocket::bind((source, 0)).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], both.address.port()));
        sender.send_to(b"x", to).unwrap();
        let mut buffer = [0; 8];
        let shard = shard_of_source(source, 4);
        assert_eq!(both.sockets[shard].recv(&mut buffer).unwrap(), 1);
    }
}

#[test]
fn srt_is_steered_the_same_over_ipv6() {
    let group = Group::new("[::1]:0", 3, Steering::Srt);
    let sender = UdpSocket::bind("[::1]:0").unwrap();
    for (n, random) in random(5).take(24).enumerate() {
        let id = compose_socket_id(n % 3, random);
        group.expect(&sender, &srt(false, id, 1316), n % 3);
    }
}

#[test]
fn too_many_shards_are_refused() {
    let (socket, _) = udp_socket(&UdpSocketOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
    for shards in [0, 257] {
        assert!(matches!(
            attach_steering(&socket, shards, Steering::Srt),
            Err(SteeringError::ShardCount(n)) if n == shards
        ));
    }
}
