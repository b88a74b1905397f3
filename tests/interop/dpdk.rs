//! Packets without the kernel (DPDK), by a virtual device over the link of a network namespace whose kernel has no address there, from
//! independent senders on another host. For root alone.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use headworks_network_namespaces::{Cable, Host, LINK};
use socket2::{Domain, Protocol, Socket, Type};

use crate::appliance::Appliance;
use crate::clips::usual_clip;
use crate::senders::{self, SRT_LATENCY_MS, SrtSender};

const FAR: &[&str] = &["10.88.0.2/24", "fd88::2/64"];
const GROUP: &str = "239.88.7.1";
/// How long a peer may take to answer, and a report to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// An appliance that is the near host, with these settings on top; its control pages are there.
fn appliance(cable: &Cable, settings: &[&str]) -> Appliance {
    let cores = format!("shards.cores=[{}]", headworks::shard::host::available_cores()[0]);
    let device = format!("shards.dpdk.device=net_af_packet0,iface={LINK},framecnt=4096");
    let own = ["shards.packet_io=dpdk", "shards.dpdk.eal_args=[--no-huge, -m, \"128\"]", &cores, &device];
    let appliance = Appliance::start_within(cable.name(Host::Near), &[&own, settings].concat());
    let control = SocketAddr::from(([127, 0, 0, 1], appliance.ports.control));
    let began = Instant::now();
    while cable.on(Host::Near, || TcpStream::connect(control)).is_err() {
        assert!(began.elapsed() < PATIENCE, "nobody listens at {control}:\n{}", appliance.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    appliance
}

/// Everything that comes by the far host's link from now on.
fn all_frames(cable: &Cable) -> Socket {
    /// `ETH_P_ALL` as the kernel wants it.
    const ALL_PROTOCOLS: i32 = 3_u16.to_be() as i32;
    let socket = cable.on(Host::Far, || Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL_PROTOCOLS))));
    let socket = socket.expect("root may look at frames");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The first frame that is it.
fn wait_for_frame(socket: &mut Socket, is_it: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut frame = [0; 2_048];
    let began = Instant::now();
    loop {
        let length = socket.read(&mut frame).expect("a frame in time");
        if is_it(&frame[..length]) {
            return frame[..length].to_vec();
        }
        assert!(began.elapsed() < PATIENCE, "no such frame came");
    }
}

fn ping(cable: &Cable, address: &str) {
    let arguments =
        ["netns", "exec", cable.name(Host::Far), "ping", "-n", "-c", "3", "-i", "0.2", "-s", "1000", address];
    let output = Command::new("ip").args(arguments).output().expect("Debian's iputils-ping is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("3 received"), "{said}");
}

fn socket(cable: &Cable, bind: &str) -> UdpSocket {
    let socket = cable.on(Host::Far, || UdpSocket::bind(bind).unwrap());
    if let IpAddr::V4(own) = socket.local_addr().unwrap().ip() {
        socket2::SockRef::from(&socket).set_multicast_if_v4(&own).unwrap();
    }
    socket
}

/// `ip` with these arguments, on a host; what it says.
fn ip(cable: &Cable, host: Host, arguments: &str) -> String {
    let output = Command::new("ip").args(["-n", cable.name(host)]).args(arguments.split(' ')).output();
    let output = output.expect("Debian's iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The Ethernet address of a host.
fn mac(cable: &Cable, host: Host) -> String {
    let told = ip(cable, host, &format!("-o link show dev {LINK}"));
    told.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).expect("a link of Ethernet").to_owned()
}

/// Frames dropped for a reason.
fn dropped(cable: &Cable, appliance: &Appliance, reason: &str) -> f64 {
    let name = format!("headworks_shard_dropped_total{{shard=\"0\",reason=\"{reason}\"}}");
    cable.on(Host::Near, || appliance.metric(&name))
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn srt_rtp_raw_transport_streams_and_multicast_arrive_bit_exact_without_the_kernel() {
    let Some(cable) = Cable::for_dpdk(1_500, FAR) else { return };
    let clip = usual_clip();
    let mut frames = all_frames(&cable);
    let appliance = appliance(
        &cable,
        &[
            "shards.dpdk.addresses=[10.88.0.1/24, \"fd88::1/64\"]",
            "ingestion.srt.address=::",
            "streams.secret.passphrase=ten or more letters",
            "streams.raw.rtp.address=10.88.0.1",
            "streams.raw.rtp.port=6001",
            "streams.rtp.rtp.address=fd88::1",
            "streams.rtp.rtp.port=6003",
            &format!("streams.group.rtp.address={GROUP}"),
            "streams.group.rtp.port=6005",
            "streams.group.rtp.source=10.88.0.2",
        ],
    );
    appliance.wait_for_log("shard 0 takes net_af_packet0", Duration::from_secs(5));
    // IGMPv3, to 224.0.0.22: datagrams of the one sender are asked for (RFC 3376 §4.2.12, ALLOW_NEW_SOURCES).
    let report = wait_for_frame(&mut frames, |frame| frame[12..14] == [8, 0] && frame[23] == 2 && frame[38] == 0x22);
    assert_eq!(report[30..34], [224, 0, 0, 22]);
    assert_eq!(report[46..58], [5, 0, 0, 1, 239, 88, 7, 1, 10, 88, 0, 2]);
    ping(&cable, "10.88.0.1");
    ping(&cable, "fd88::1");

    let taps = ["plain", "secret", "rtp", "raw", "group"].map(|stream| (stream, appliance.tap(stream)));
    let srt = |address: &str, query: &str| {
        let listener = SocketAddr::new(address.parse().unwrap(), appliance.ports.srt);
        let mut sender = cable.on(Host::Far, || SrtSender::to(listener, SRT_LATENCY_MS, query));
        sender.wait_for_connection();
        sender.send(&clip.bytes);
        sender.finish();
    };
    let (v4, v6) = (socket(&cable, "10.88.0.2:0"), socket(&cable, "[fd88::2]:0"));
    std::thread::scope(|scope| {
        scope.spawn(|| srt("10.88.0.1", "streamid=plain"));
        scope.spawn(|| srt("fd88::1", "streamid=secret&passphrase=ten or more letters&pbkeylen=16"));
        scope.spawn(|| senders::send_udp(&v4, &clip.bytes, at("10.88.0.1:6001")));
        scope.spawn(|| senders::send_rtp(&v6, &clip.bytes, at("[fd88::1]:6003"), 7));
        scope.spawn(|| senders::send_rtp(&v4, &clip.bytes, SocketAddr::new(GROUP.parse().unwrap(), 6_005), 8));
    });
    for (stream, tap) in &taps {
        clip.reference.compare(stream, &tap.wait_for(clip.reference.packet_count()));
    }
    let metric = |name: &str| cable.on(Host::Near, || appliance.metric(name));
    let (all, past_kernel) = (metric("headworks_shard_datagrams_total"), metric("headworks_shard_past_kernel_total"));
    // Asked for one after the other, while peers say goodbye.
    assert!(all > 0.0 && past_kernel >= all, "{past_kernel} of {all}");
    assert_eq!(metric("headworks_shard_send_errors_total"), 0.0);
}

#[test]
fn a_feed_of_a_vlan_arrives_and_what_is_beside_it_is_not_answered() {
    let Some(cable) = Cable::for_dpdk(1_500, FAR) else { return };
    let clip = usual_clip();
    let settings = [
        "shards.dpdk.addresses=[10.77.0.1/24]",
        "shards.dpdk.vlan=77",
        "streams.raw.rtp.address=10.77.0.1",
        "streams.raw.rtp.port=6001",
    ];
    let appliance = appliance(&cable, &settings);
    let tap = appliance.tap("raw");
    let mut sender = Command::new("ip")
        .args(["netns", "exec", cable.name(Host::Far), "python3", "tests/interop/tagged.py", LINK])
        .stdin(Stdio::piped())
        .spawn()
        .expect("Debian's iproute2 is installed");
    sender.stdin.take().expect("piped").write_all(&clip.bytes).expect("it reads");
    assert!(sender.wait().expect("a child").success());
    clip.reference.compare("raw", &tap.wait_for(clip.reference.packet_count()));
    assert!(dropped(&cable, &appliance, "other_vlan") >= 2.0, "a question without a tag, and one of VLAN 78");
}

#[test]
fn another_host_with_our_addresses_is_told_of_and_what_is_not_for_us_is_counted() {
    let Some(cable) = Cable::for_dpdk(1_500, FAR) else { return };
    let appliance = appliance(&cable, &["shards.dpdk.addresses=[10.88.0.1/24, \"fd88::1/64\"]"]);
    let counted = |name: &str| cable.on(Host::Near, || appliance.metric(name));
    let (own, other) = (mac(&cable, Host::Near), mac(&cable, Host::Far));
    assert_eq!(counted("headworks_shard_address_conflicts_total"), 0.0);

    let to_all = socket(&cable, "10.88.0.2:0");
    to_all.set_broadcast(true).unwrap();
    let before = dropped(&cable, &appliance, "not_ours");
    to_all.send_to(b"to all", at("10.88.0.255:6001")).unwrap();
    // Nobody answers: no error of ICMP, and no TCP.
    let refused = cable.on(Host::Far, || TcpStream::connect_timeout(&at("10.88.0.1:80"), Duration::from_millis(200)));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(dropped(&cable, &appliance, "not_ours") > before);
    assert!(dropped(&cable, &appliance, "other_protocol") > 0.0);

    // The kernel asks by IPv6 whether it may have the address (RFC 4862 §5.4), and by IPv4 takes it.
    ip(&cable, Host::Far, &format!("address add fd88::1/64 dev {LINK}"));
    appliance.wait_for_log(&format!("fd88::1 is ours ({own}), and {other} on the same link claims it"), PATIENCE);
    let began = Instant::now();
    while !ip(&cable, Host::Far, &format!("-6 address show dev {LINK}")).contains("dadfailed") {
        assert!(began.elapsed() < PATIENCE, "it believes that it may have the address");
        std::thread::sleep(Duration::from_millis(50));
    }
    ip(&cable, Host::Far, &format!("address add 10.88.0.1/24 dev {LINK}"));
    socket(&cable, "10.88.0.1:0").send_to(b"to a third", at("10.88.0.3:6001")).unwrap();
    appliance.wait_for_log(&format!("10.88.0.1 is ours ({own}), and {other} on the same link claims it"), PATIENCE);
    assert!(counted("headworks_shard_address_conflicts_total") >= 2.0);
    assert_eq!(counted("headworks_shard_unanswered_total"), 0.0);
}
