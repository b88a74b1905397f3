//! Multicast between two network namespaces, which are two hosts on one Ethernet: groups are joined on the interface that is
//! named, though the routing table names another, and the senders are as foreign as they can be on one machine. Needs root.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::LinkNameSpaceType;

use crate::appliance::Appliance;
use crate::clips::usual_clip;
use crate::senders;

/// The interface of both hosts on their network.
const LINK: &str = "feeds0";
/// The addresses of the sending host; the receiving one has `fd77::1` and `10.77.0.1`.
const SENDER: &str = "fd77::2";
const STRANGER: &str = "fd77::3";
const PORT: u16 = 5_010;

/// Two network namespaces joined by a cable; gone at the end.
struct Network {
    receiver: String,
    sender: String,
}

impl Network {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |host: &str| format!("hw-{}-{number}-{host}", std::process::id());
        let network = Self { receiver: name("in"), sender: name("out") };
        let (receiver, sender) = (&network.receiver, &network.sender);
        ip(&format!("netns add {receiver}"));
        ip(&format!("netns add {sender}"));
        ip(&format!("link add {LINK} netns {receiver} type veth peer name {LINK} netns {sender}"));
        for (host, addresses) in [
            (receiver, &["fd77::1/64", "10.77.0.1/24"][..]),
            (sender, &["fd77::2/64", "fd77::3/64", "10.77.0.2/24", "10.77.0.3/24"]),
        ] {
            ip(&format!("-n {host} link set lo up"));
            ip(&format!("-n {host} link set {LINK} up"));
            for address in addresses {
                let at_once = if address.contains(':') { " nodad" } else { "" };
                ip(&format!("-n {host} address add {address} dev {LINK}{at_once}"));
            }
        }
        // Whoever leaves the choice of the interface to the routing table listens here, to nobody.
        ip(&format!("-n {receiver} link add elsewhere0 type veth peer name elsewhere1"));
        ip(&format!("-n {receiver} link set elsewhere0 up"));
        ip(&format!("-n {receiver} link set elsewhere1 up"));
        ip(&format!("-n {receiver} -6 route add multicast ff00::/8 dev elsewhere0 table local metric 1"));
        network
    }

    /// The appliance on the receiving host.
    fn appliance(&self, settings: &[String]) -> Appliance {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        Appliance::start_within(&self.receiver, &settings)
    }

    /// A socket of the sending host at one of its addresses, which sends multicast by the link.
    fn socket(&self, from: &str) -> UdpSocket {
        let (path, from) = (format!("/run/netns/{}", self.sender), from.parse::<IpAddr>().expect("an address"));
        // A thread of its own, because it stays on that host; the socket stays there too.
        let opened = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).expect("the namespace");
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may change namespaces");
            let socket = UdpSocket::bind((from, 0)).expect("an address of the sending host");
            let options = socket2::SockRef::from(&socket);
            match from {
                IpAddr::V4(from) => options.set_multicast_if_v4(&from).expect("its interface"),
                IpAddr::V6(_) => {
                    let index = rustix::net::netdevice::name_to_index(&socket, LINK).expect("the link");
                    options.set_multicast_if_v6(index).expect("its interface");
                }
            }
            socket
        });
        opened.join().expect("a socket")
    }

    /// The source filters of the receiving host: group, source, whether it is included.
    fn filters(&self) -> Vec<(String, String, bool)> {
        let shown = Command::new("ip").args(["netns", "exec", &self.receiver, "cat", "/proc/net/mcfilter6"]).output();
        let text = String::from_utf8(shown.expect("the filters").stdout).unwrap();
        let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
        text.lines().skip(1).map(columns).map(|it| (it[2].clone(), it[3].clone(), it[4] != "0")).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in [&self.receiver, &self.sender] {
            let _ = Command::new("ip").args(["netns", "delete", host]).status();
        }
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}: are these tests run as root?");
}

/// An IPv6 address as the kernel's tables show it.
fn hexadecimal(address: &str) -> String {
    let IpAddr::V6(address) = address.parse().expect("an address") else { panic!("{address} is not IPv6") };
    format!("{:032x}", address.to_bits())
}

fn settings(group: &str, more: &[String]) -> Vec<String> {
    let mut settings = vec![
        format!("streams.mc.rtp.address={group}"),
        format!("streams.mc.rtp.port={PORT}"),
        format!("streams.mc.rtp.interface={LINK}"),
    ];
    settings.extend_from_slice(more);
    settings
}

fn to(group: &str) -> SocketAddr {
    SocketAddr::new(group.parse().expect("a group"), PORT)
}

#[test]
fn an_ipv6_group_arrives_from_any_source_by_the_interface_named() {
    let (clip, network) = (usual_clip(), Network::new());
    let group = "ff15::7701";
    let appliance = network.appliance(&settings(group, &[]));
    let tap = appliance.tap("mc");
    senders::send_rtp(&network.socket(SENDER), &clip.bytes, to(group), 7);
    clip.reference.compare("IPv6 multicast", &tap.wait_for(clip.reference.packet_count()));
    assert_eq!(network.filters(), [], "nobody is left out");
}

#[test]
fn an_ipv6_group_arrives_from_the_one_source_named() {
    let (clip, network) = (usual_clip(), Network::new());
    let group = "ff35::7702";
    let appliance = network.appliance(&settings(group, &[format!("streams.mc.rtp.source={SENDER}")]));
    let tap = appliance.tap("mc");
    senders::send_udp(&network.socket(STRANGER), &clip.bytes[..100 * senders::DATAGRAM], to(group));
    assert!(tap.frames().is_empty(), "the group's other sender is heard");
    let heard = [(hexadecimal(group), hexadecimal(SENDER), true)];
    assert_eq!(network.filters()[..1], heard, "the kernel keeps the other sender out");
    senders::send_udp(&network.socket(SENDER), &clip.bytes, to(group));
    clip.reference.compare("IPv6 source-specific", &tap.wait_for(clip.reference.packet_count()));
}

/// A group of this link alone means nothing without the interface, in the socket's own address too.
#[test]
fn an_ipv6_group_of_the_link_arrives() {
    let (clip, network) = (usual_clip(), Network::new());
    let appliance = network.appliance(&settings("ff12::7703", &[]));
    let tap = appliance.tap("mc");
    let socket = network.socket(SENDER);
    senders::send_udp(&socket, &clip.bytes, to("ff12::7703"));
    clip.reference.compare("link-local multicast", &tap.wait_for(clip.reference.packet_count()));
}

/// What a studio's equipment announces: two sections with ports, groups and filters of their own.
#[test]
fn the_sections_of_an_sdp_file_are_streams_with_the_sources_it_names() {
    let (clip, network) = (usual_clip(), Network::new());
    let directory = tempfile::tempdir().unwrap();
    let sdp = directory.path().join("studio.sdp");
    let text = format!(
        "v=0\r\no=- 1 1 IN IP6 {SENDER}\r\ns=studio\r\nt=0 0\r\na=source-filter: incl IN IP6 * {SENDER} fd77::9\r\n\
         m=video {PORT} RTP/AVP 33\r\nc=IN IP6 ff35::7704\r\n\
         m=audio 5014 RTP/AVP 97\r\nc=IN IP6 ff35::7704\r\na=rtpmap:97 L24/48000/2\r\n\
         m=video 5012 RTP/AVP 96\r\nc=IN IP4 239.77.7.5/8\r\na=rtpmap:96 MP2T/90000\r\n\
         a=source-filter: excl IN IP4 239.77.7.5 10.77.0.3\r\n"
    );
    std::fs::write(&sdp, text).unwrap();
    let appliance = network.appliance(&[
        format!("streams.studio.rtp.sdp={}", sdp.display()),
        format!("streams.studio.rtp.interface={LINK}"),
    ]);
    appliance.wait_for_log("media 2 (audio) is not received: L24", std::time::Duration::from_secs(5));
    let included = (hexadecimal("ff35::7704"), true);
    let filters: Vec<_> = network.filters().into_iter().map(|(group, _, is_included)| (group, is_included)).collect();
    assert_eq!(filters, [included.clone(), included], "both sources, and nobody else");

    let (first, second) = (appliance.tap("studio"), appliance.tap("studio-3"));
    let other: SocketAddr = "239.77.7.5:5012".parse().unwrap();
    for (stranger, to) in [(STRANGER, to("ff35::7704")), ("10.77.0.3", other)] {
        senders::send_rtp(&network.socket(stranger), &clip.bytes[..50 * senders::DATAGRAM], to, 6);
    }
    assert!(first.frames().is_empty() && second.frames().is_empty(), "strangers are heard");
    let (one, two) = (network.socket(SENDER), network.socket("10.77.0.2"));
    std::thread::scope(|scope| {
        scope.spawn(|| senders::send_rtp(&one, &clip.bytes, to("ff35::7704"), 7));
        scope.spawn(|| senders::send_rtp(&two, &clip.bytes, other, 8));
    });
    clip.reference.compare("studio", &first.wait_for(clip.reference.packet_count()));
    clip.reference.compare("studio-3", &second.wait_for(clip.reference.packet_count()));
}
