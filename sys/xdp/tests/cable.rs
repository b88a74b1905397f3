//! Frames of every kind over a cable between two network namespaces: what the program takes, what it leaves to the kernel, and
//! that nothing is lost in between. For root alone.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headworks_host::{UdpSocketOptions, compose_socket_id, shard_of_ssrc, udp_socket};
use headworks_network_namespaces::{Cable, Host, LINK};
use headworks_packet::{PacketPool, PoolOptions};
use headworks_xdp::{Attachment, Mode, Owner, Received, XdpError, XdpOptions, XdpSockets, interfaces};

const PATIENCE: Duration = Duration::from_secs(5);

fn cable() -> Option<Cable> {
    Cable::for_xdp(1, &["10.88.0.1/24", "fd88::1/64"], &["10.88.0.2/24", "fd88::2/64"])
}

fn link() -> (u32, Vec<IpAddr>) {
    let link = interfaces().unwrap().into_iter().find(|it| it.name == LINK).unwrap();
    (link.index, link.addresses)
}

fn socket(bind: &str) -> (OwnedFd, u16) {
    let options = UdpSocketOptions { receive_buffer: 4 << 20, ..UdpSocketOptions::new(bind.parse().unwrap()) };
    let (socket, granted) = udp_socket(&options).unwrap();
    (socket, granted.local.port())
}

fn pool(slots: usize) -> PacketPool {
    PacketPool::new(PoolOptions { slots, ..PoolOptions::default() }).unwrap()
}

fn options() -> XdpOptions {
    XdpOptions { credit: 64, drain_limit: 4_096, shard: 0, shards: 1 }
}

/// Sockets that take one port at every address of the link.
fn sockets(pool: &PacketPool, options: XdpOptions, owner: Owner) -> (XdpSockets, u16) {
    let (descriptor, port) = socket("[::]:0");
    let (index, addresses) = link();
    let ports: Vec<_> = addresses.into_iter().map(|address| (address, port, owner)).collect();
    let attachment = Attachment::new(LINK, index, &ports, pool.slot_size(), options.shards).unwrap();
    let mut sockets = XdpSockets::new(options, pool.clone(), Arc::new([attachment])).unwrap();
    sockets.add_socket(descriptor, 7).unwrap();
    // Now it is lent slots.
    assert_eq!(sockets.drain(|_| panic!("nothing was sent")).unwrap().datagrams, 0);
    (sockets, port)
}

fn receive(sockets: &mut XdpSockets, count: usize) -> Vec<Received> {
    let mut received = Vec::new();
    let began = Instant::now();
    while received.len() < count && began.elapsed() < PATIENCE {
        sockets.wait_for_any(Duration::from_millis(10)).unwrap();
        sockets.drain(|it| received.push(it)).unwrap();
    }
    assert_eq!(received.len(), count);
    received
}

fn far_socket(cable: &Cable, bind: &str) -> UdpSocket {
    cable.on(Host::Far, || UdpSocket::bind(bind).unwrap())
}

#[test]
fn our_datagrams_come_past_the_kernel_and_the_rest_goes_its_way() {
    let Some(cable) = cable() else { return };
    let (v4, v6) = (far_socket(&cable, "10.88.0.2:0"), far_socket(&cable, "[fd88::2]:0"));
    cable.on(Host::Near, || {
        let pool = pool(256);
        let (mut sockets, port) = sockets(&pool, options(), Owner::Any);
        assert_eq!(sockets.queues().collect::<Vec<_>>(), [(LINK, 0, false)]);
        let (other, other_port) = socket("10.88.0.1:0");
        for (sender, to) in [(&v4, "10.88.0.1"), (&v6, "fd88::1")] {
            let to = SocketAddr::new(to.parse().unwrap(), port);
            sender.send_to(b"ours", to).unwrap();
            let received = receive(&mut sockets, 1).pop().unwrap();
            assert_eq!((&received.packet[..], received.token), (&b"ours"[..], 7));
            assert_eq!(received.peer, sender.local_addr().unwrap());
            assert_eq!((received.local_ip, received.interface), (Some(to.ip()), link().0));
        }
        // ARP and neighbour discovery have gone the kernel's way before, or nothing would have come.
        assert_eq!(sockets.statistics().taken, 2);
        v4.send_to(b"another port", ("10.88.0.1", other_port)).unwrap();
        let other = UdpSocket::from(other);
        other.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(other.recv(&mut [0; 64]).unwrap(), 12);
        // Fragments are put together by the kernel.
        v4.send_to(&[9; 1_800], ("10.88.0.1", port)).unwrap();
        assert_eq!(receive(&mut sockets, 1)[0].packet[..], [9; 1_800]);
        assert_eq!((sockets.statistics().taken, sockets.statistics().unsound), (2, 0));
    });
}

#[test]
fn an_address_with_a_label_is_one_more_of_its_interface() {
    let Some(cable) = cable() else { return };
    let label = format!("{LINK}:1");
    let arguments = ["-n", cable.name(Host::Near), "address", "add", "10.88.0.3/24", "dev", LINK, "label", &label];
    assert!(std::process::Command::new("ip").args(arguments).status().unwrap().success());
    cable.on(Host::Near, || {
        let names: Vec<_> = interfaces().unwrap().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["lo", LINK]);
        let (index, addresses) = link();
        assert!(index > 0 && addresses.contains(&IpAddr::from([10, 88, 0, 1])), "{addresses:?}");
        assert!(addresses.contains(&IpAddr::from([10, 88, 0, 3])), "{addresses:?}");
    });
}

#[test]
fn sockets_that_follow_others_on_a_queue_are_brought_all_that_they_lend_for() {
    let Some(cable) = cable() else { return };
    let sender = far_socket(&cable, "10.88.0.2:0");
    cable.on(Host::Near, || {
        let pool = pool(512);
        let (index, addresses) = link();
        let (mut descriptor, port) = socket("[::]:0");
        let ports: Vec<_> = addresses.into_iter().map(|address| (address, port, Owner::Any)).collect();
        let attachments: Arc<[_]> = Arc::new([Attachment::new(LINK, index, &ports, pool.slot_size(), 1).unwrap()]);
        for _ in 0..3 {
            let kept = descriptor.try_clone().unwrap();
            let mut sockets = XdpSockets::new(options(), pool.clone(), Arc::clone(&attachments)).unwrap();
            sockets.add_socket(descriptor, 0).unwrap();
            sockets.drain(|_| panic!("nothing was sent")).unwrap();
            for n in 0..64 {
                sender.send_to(&[n], ("10.88.0.1", port)).unwrap();
            }
            let numbers: Vec<u8> = receive(&mut sockets, 64).iter().map(|it| it.packet[0]).collect();
            assert_eq!((numbers, sockets.statistics().taken), ((0..64).collect(), 64));
            assert_eq!(sockets.dropped_by_kernel(), 0);
            descriptor = kept;
        }
    });
}

#[test]
fn what_finds_no_slot_waits_in_the_sockets_buffer_and_comes_behind_what_did() {
    let Some(cable) = cable() else { return };
    let sender = far_socket(&cable, "10.88.0.2:0");
    cable.on(Host::Near, || {
        let pool = pool(1_024);
        let (mut sockets, port) = sockets(&pool, options(), Owner::Any);
        for round in 1..=3_u64 {
            for n in 0..200_u8 {
                sender.send_to(&[n; 500], ("10.88.0.1", port)).unwrap();
            }
            let numbers: Vec<u8> = receive(&mut sockets, 200).iter().map(|it| it.packet[0]).collect();
            assert_eq!(numbers, (0..200).collect::<Vec<_>>());
            assert_eq!(sockets.statistics().taken, round * 64);
        }
        assert_eq!(sockets.dropped_by_kernel(), 0);
    });
}

#[test]
fn queues_that_nothing_comes_by_leave_slots_to_the_ordinary_sockets() {
    let Some(cable) = Cable::for_xdp(4, &["10.88.0.1/24"], &["10.88.0.2/24"]) else { return };
    let sender = far_socket(&cable, "10.88.0.2:0");
    cable.on(Host::Near, || {
        // As many as four queues could take.
        let pool = pool(256);
        let (mut sockets, port) = sockets(&pool, options(), Owner::Any);
        assert_eq!((sockets.queues().count(), pool.free_slots()), (4, 192));
        // In fragments, and so by the kernel's stack.
        for n in 0..100 {
            sender.send_to(&[n; 1_800], ("10.88.0.1", port)).unwrap();
        }
        let numbers: Vec<u8> = receive(&mut sockets, 100).iter().map(|it| it.packet[0]).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        sender.send_to(b"whole", ("10.88.0.1", port)).unwrap();
        assert_eq!(receive(&mut sockets, 1)[0].packet[..], b"whole"[..]);
        assert_eq!(sockets.statistics().taken, 1);
    });
}

#[test]
fn what_came_before_the_first_look_comes_first() {
    let Some(cable) = cable() else { return };
    let sender = far_socket(&cable, "10.88.0.2:0");
    cable.on(Host::Near, || {
        let pool = pool(512);
        let (descriptor, port) = socket("10.88.0.1:0");
        let (index, addresses) = link();
        let send = |from: u8, to: u8| {
            for n in from..to {
                sender.send_to(&[n], ("10.88.0.1", port)).unwrap();
            }
        };
        send(0, 30);
        let attachment =
            Attachment::new(LINK, index, &[(addresses[0], port, Owner::Any)], pool.slot_size(), 1).unwrap();
        let mut sockets = XdpSockets::new(options(), pool.clone(), Arc::new([attachment])).unwrap();
        sockets.add_socket(descriptor, 0).unwrap();
        send(30, 60);
        let mut received = receive(&mut sockets, 60);
        send(60, 90);
        received.extend(receive(&mut sockets, 30));
        assert_eq!(received.iter().map(|it| it.packet[0]).collect::<Vec<_>>(), (0..90).collect::<Vec<_>>());
        assert_eq!(sockets.statistics().taken, 30);
    });
}

#[test]
fn arrival_times_are_those_of_the_kernel_not_of_the_look() {
    let Some(cable) = cable() else { return };
    let sender = far_socket(&cable, "10.88.0.2:0");
    cable.on(Host::Near, || {
        let pool = pool(256);
        let (mut sockets, port) = sockets(&pool, options(), Owner::Any);
        sender.send_to(b"first", ("10.88.0.1", port)).unwrap();
        std::thread::sleep(Duration::from_millis(25));
        sender.send_to(b"second", ("10.88.0.1", port)).unwrap();
        let received = receive(&mut sockets, 2);
        let between = received[1].timestamp_ns.unwrap() - received[0].timestamp_ns.unwrap();
        assert!(between >= 25_000_000, "{between} ns");
        assert_eq!(sockets.statistics().taken, 2);
    });
}

#[test]
fn a_shards_queue_takes_what_is_the_shards_and_leaves_the_rest_to_the_ordinary_sockets() {
    let Some(cable) = cable() else { return };
    let sender = far_socket(&cable, "10.88.0.2:0");
    let options = XdpOptions { shards: 3, ..options() };
    let srt = |id: u32| {
        let mut packet = [0_u8; 64];
        packet[12..16].copy_from_slice(&id.to_be_bytes());
        packet
    };
    let rtp = |ssrc: u32| {
        let mut packet = [0_u8; 64];
        packet[0] = 0x80;
        packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        packet
    };
    let to_srt: Vec<_> = [compose_socket_id(0, 77), compose_socket_id(1, 77), 0, compose_socket_id(0, 1 << 21)]
        .map(|id| (srt(id), id != 0 && id >> 22 == 0))
        .into();
    let to_rtp: Vec<_> = (0..40_u32)
        .map(|n| n.wrapping_mul(0x0123_4567))
        .map(|ssrc| (rtp(ssrc), shard_of_ssrc(ssrc, 3) == 0))
        .chain([([0x47; 64], false)])
        .collect();
    assert!(to_rtp.iter().filter(|(_, is_ours)| *is_ours).count() > 5);
    let any = vec![([1; 64], true), ([2; 64], true)];
    let foreign = vec![([1; 64], false)];
    for (owner, packets) in [
        (Owner::SrtSocketId, to_srt),
        (Owner::RtpSsrc, to_rtp),
        (Owner::Any, any.clone()),
        (Owner::Shard(0), any),
        (Owner::Shard(2), foreign),
    ] {
        cable.on(Host::Near, || {
            let pool = pool(256);
            let (mut sockets, port) = sockets(&pool, options, owner);
            for (packet, is_ours) in &packets {
                let before = sockets.statistics().taken;
                sender.send_to(packet, ("10.88.0.1", port)).unwrap();
                assert_eq!(receive(&mut sockets, 1)[0].packet[..], packet[..]);
                assert_eq!(sockets.statistics().taken - before, u64::from(*is_ours), "{owner:?} {packet:?}");
            }
        });
    }
}

#[test]
fn every_queue_of_an_interface_belongs_to_one_shard() {
    let Some(cable) = Cable::for_xdp(4, &["10.88.0.1/24"], &["10.88.0.2/24"]) else { return };
    cable.on(Host::Near, || {
        let pool = pool(512);
        let (index, addresses) = link();
        let ports = [(addresses[0], 5_004, Owner::Any)];
        let attachments: Arc<[_]> = Arc::new([Attachment::new(LINK, index, &ports, pool.slot_size(), 3).unwrap()]);
        let of = |shard| {
            let options = XdpOptions { shard, shards: 3, ..options() };
            let sockets = XdpSockets::new(options, pool.clone(), Arc::clone(&attachments)).unwrap();
            let queues = sockets.queues().map(|(_, queue, _)| queue).collect::<Vec<_>>();
            (sockets, queues)
        };
        let shards = [of(0), of(1), of(2)];
        assert_eq!(shards.each_ref().map(|(_, queues)| queues.clone()), [vec![0, 3], vec![1], vec![2]]);
        let taken = XdpSockets::new(options(), pool.clone(), Arc::clone(&attachments)).err().unwrap();
        assert!(matches!(&taken, XdpError::Busy { queue: Some(0), .. }), "{taken}");
        drop(shards);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn the_program_goes_with_its_owner_and_a_second_one_is_refused_with_the_cure() {
    let Some(cable) = cable() else { return };
    let is_attached = || {
        let shown = std::process::Command::new("ip")
            .args(["-n", cable.name(Host::Near), "link", "show", LINK])
            .output()
            .unwrap();
        String::from_utf8(shown.stdout).unwrap().contains("prog/xdp")
    };
    cable.on(Host::Near, || {
        let (index, addresses) = link();
        let attach = || Attachment::new(LINK, index, &[(addresses[0], 5_004, Owner::Any)], 2_048, 1);
        let first = attach().unwrap();
        assert_eq!(first.mode(), Mode::Native);
        assert!(is_attached());
        let text = attach().unwrap_err().to_string();
        assert!(text.contains("ip link set feeds0 xdp off"), "{text}");
        drop(first);
        assert!(!is_attached());
        attach().unwrap();
    });
}

#[test]
fn where_the_driver_cannot_run_the_program_the_kernel_does() {
    let Some(cable) = cable() else { return };
    let sender = far_socket(&cable, "10.88.0.2:0");
    // More than a page: veth's own way is closed, as that of most cards is with such frames.
    for host in [Host::Near, Host::Far] {
        let arguments = ["-n", cable.name(host), "link", "set", LINK, "mtu", "9000"];
        assert!(std::process::Command::new("ip").args(arguments).status().unwrap().success());
    }
    cable.on(Host::Near, || {
        let pool = pool(256);
        let (descriptor, port) = socket("10.88.0.1:0");
        let (index, addresses) = link();
        let ports = [(addresses[0], port, Owner::Any)];
        let attachment = Attachment::new(LINK, index, &ports, pool.slot_size(), 1).unwrap();
        assert_eq!(attachment.mode(), Mode::Generic);
        let mut sockets = XdpSockets::new(options(), pool.clone(), Arc::new([attachment])).unwrap();
        sockets.add_socket(descriptor, 0).unwrap();
        sockets.drain(|_| panic!("nothing was sent")).unwrap();
        sender.send_to(&[5; 1_316], ("10.88.0.1", port)).unwrap();
        assert_eq!(receive(&mut sockets, 1)[0].packet[..], [5; 1_316]);
        assert_eq!(sockets.statistics().taken, 1);
        // Longer than a slot holds beside what stands before it, so left to the kernel.
        sender.send_to(&[6; 1_900], ("10.88.0.1", port)).unwrap();
        assert_eq!(receive(&mut sockets, 1)[0].packet[..], [6; 1_900]);
        assert_eq!(sockets.statistics().taken, 1);
    });
}

#[test]
fn without_privileges_the_error_names_them() {
    let Some(cable) = cable() else { return };
    cable.on(Host::Near, || {
        let (index, addresses) = link();
        // Of this thread alone.
        rustix::thread::set_capabilities(
            None,
            rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            },
        )
        .unwrap();
        let error = Attachment::new(LINK, index, &[(addresses[0], 5_004, Owner::Any)], 2_048, 1).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW"), "{text}");
    });
}
