//! What every way to get and give datagrams must do: the same bodies, run once for each way. Those that go through the kernel's
//! sockets are tried on loopback, AF_XDP between two network namespaces, which root alone can make; and so is DPDK, where the
//! program is built with it, by a virtual device over the link of a namespace whose kernel has no address there.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headworks_host::{UdpSocketOptions, probe_exclusive, udp_socket};
use headworks_network_namespaces::{Cable, Host, LINK};

use super::aggregates::{AGGREGATE_SLOT_SIZE, AggregateStatistics};
use super::backend::SLOT_SIZE;
use super::outbound::{Outbound, OutboundOptions, OutboundSocket};
use super::{Dpdk, Incoming, Net, NetOptions, SocketRole, Way, XdpInterfaces};
use crate::base::Transmit;

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

/// Where a way is tried: the host that the net under test is on, and the one of its peers, which may be the same.
struct Place {
    way: Way,
    cable: Option<Cable>,
    /// Slots for aggregates.
    aggregate_slots: usize,
    /// Datagrams that nets of this place have received, and of these, those that came past the kernel.
    received: Mutex<(u64, u64)>,
}

/// A net that leaves behind what it has counted.
struct Counted<'a> {
    net: Net,
    place: &'a Place,
}

impl std::ops::Deref for Counted<'_> {
    type Target = Net;

    fn deref(&self) -> &Net {
        &self.net
    }
}

impl std::ops::DerefMut for Counted<'_> {
    fn deref_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let statistics = self.net.statistics();
        let mut received = self.place.received.lock().unwrap();
        *received = (received.0 + statistics.datagrams, received.1 + statistics.past_kernel);
    }
}

/// Last parts of the IPv4 addresses that bodies use; on loopback all of them are there by themselves.
const NEAR: [u8; 4] = [1, 5, 6, 9];
/// Where peers are on a cable.
const FAR: &[&str] = &["10.88.0.100/24", "fd88::100/64"];
/// Packets that a slot does not hold, where they are not to come in fragments.
const LONG_MTU: u32 = 3_900;

impl Place {
    fn on_loopback(way: Way) -> Self {
        Self { way, cable: None, aggregate_slots: 0, received: Mutex::default() }
    }

    fn with_aggregates(way: Way) -> Self {
        Self { aggregate_slots: 256, ..Self::on_loopback(way) }
    }

    /// By AF_XDP: nothing, and said, for who may not. So much of what came, in per cent, has to come past the kernel.
    fn run_past_the_kernel(least: u64, body: impl FnOnce(&Self) + Send) {
        let Some(place) = Self::past_the_kernel() else { return };
        place.run(body);
        let (received, past_kernel) = *place.received.lock().unwrap();
        assert!(past_kernel * 100 >= received * least, "{past_kernel} of {received} came past the kernel");
    }

    /// By DPDK: nothing, and said, for who may not.
    #[cfg(feature = "dpdk")]
    fn run_without_the_kernel(body: impl FnOnce(&Self) + Send) {
        if let Some(place) = Self::without_the_kernel() {
            place.run(body);
        }
    }

    /// Where DPDK is tried.
    #[cfg(feature = "dpdk")]
    fn without_the_kernel() -> Option<Self> {
        Some(Self { cable: Some(Cable::for_dpdk(LONG_MTU, FAR)?), ..Self::on_loopback(Way::Dpdk) })
    }

    /// Where AF_XDP is tried.
    fn past_the_kernel() -> Option<Self> {
        let mut near = NEAR.map(|last| format!("10.88.0.{last}/24")).to_vec();
        near.push("fd88::1/64".to_owned());
        let near: Vec<&str> = near.iter().map(String::as_str).collect();
        let cable = Cable::for_xdp(1, &near, FAR)?;
        let place = Self { cable: Some(cable), ..Self::on_loopback(Way::Xdp) };
        // A burst must not have to wait for addresses to be resolved: the kernel keeps little of it meanwhile.
        place.run(|place| {
            for (address, peer) in NEAR.map(|last| (place.v4(last), place.peer())) {
                let met = UdpSocket::bind((address, 0)).unwrap();
                met.set_read_timeout(Some(PATIENCE)).unwrap();
                peer.send_to(b"x", met.local_addr().unwrap()).unwrap();
                assert_eq!(met.recv(&mut [0; 8]).unwrap(), 1);
            }
        });
        Some(place)
    }

    /// Runs a body on the host of the net.
    fn run(&self, body: impl FnOnce(&Self) + Send) {
        match &self.cable {
            None => body(self),
            Some(cable) => cable.on(Host::Near, || body(self)),
        }
    }

    /// An address of the net's host.
    fn v4(&self, last: u8) -> IpAddr {
        let first = if self.cable.is_some() { [10, 88, 0] } else { [127, 0, 0] };
        IpAddr::from([first[0], first[1], first[2], last])
    }

    fn v6(&self) -> IpAddr {
        if self.cable.is_some() { "fd88::1" } else { "::1" }.parse().unwrap()
    }

    /// Number of the interface that peers' datagrams come in by.
    fn interface(&self) -> u32 {
        if self.way == Way::Dpdk {
            return 1;
        }
        let name = if self.cable.is_some() { LINK } else { "lo" };
        let any = UdpSocket::bind("0.0.0.0:0").unwrap();
        rustix::net::netdevice::name_to_index(any, name).unwrap()
    }

    fn options(&self, slots: usize) -> NetOptions {
        NetOptions {
            way: self.way,
            xdp: XdpInterfaces::default(),
            dpdk: Dpdk::default(),
            shard: 0,
            slots,
            aggregate_slots: self.aggregate_slots,
            huge_pages: false,
            // Enough for what most bodies send at once.
            credit: if self.way == Way::Xdp { 256 } else { 64 },
            coldest_first: false,
        }
    }

    fn net(&self, slots: usize, sockets: Vec<(SocketRole, OwnedFd)>) -> Counted<'_> {
        let mut options = self.options(slots);
        let mut by_shard = [sockets];
        match self.way {
            Way::Xdp => options.xdp = XdpInterfaces::attach(&[], &by_shard).unwrap(),
            Way::Dpdk => options.dpdk = Dpdk::in_place_of(std::mem::take(&mut by_shard[0]), LONG_MTU),
            Way::Uring | Way::Mmsg => {}
        }
        let mut net = Net::new(options, std::mem::take(&mut by_shard[0])).unwrap();
        if self.way == Way::Dpdk {
            self.meet(&mut net);
        }
        // A first look: from then on every way has lent the kernel what it lends.
        assert_eq!(net.drain_into(&mut Vec::new()).unwrap(), (0, false));
        Counted { net, place: self }
    }

    /// Has net and peers learn where they are: they resolve addresses themselves, and a burst must not have to wait for that.
    fn meet(&self, net: &mut Net) {
        let (v4, v6) = (self.peer(), self.peer_v6());
        for last in NEAR {
            v4.send_to(b"x", (self.v4(last), 9)).unwrap();
        }
        v6.send_to(b"x", (self.v6(), 9)).unwrap();
        let started = Instant::now();
        while net.statistics().no_port < NEAR.len() as u64 + 1 {
            assert!(started.elapsed() < PATIENCE, "{:?}", net.statistics());
            net.wait(WINDOW).unwrap();
            assert_eq!(net.drain_into(&mut Vec::new()).unwrap(), (0, false));
        }
    }

    /// Whether somebody can listen at an address again.
    fn is_free(&self, address: SocketAddr) -> bool {
        match self.way {
            Way::Dpdk => self.net(64, Vec::new()).credit() == 64,
            Way::Uring | Way::Mmsg | Way::Xdp => probe_exclusive(address).is_ok(),
        }
    }

    /// A net with one socket at an address, which may be unspecified, and where that is.
    fn net_at(&self, address: IpAddr) -> (Counted<'_>, SocketAddr) {
        let (descriptor, address, _) = self.socket(address, 4 << 20);
        (self.net(1_024, vec![(SocketRole::Srt, descriptor)]), address)
    }

    /// A socket for a net, its address and its receive buffer.
    fn socket(&self, address: IpAddr, receive_buffer: usize) -> (OwnedFd, SocketAddr, usize) {
        socket(address, receive_buffer, self.aggregate_slots > 0)
    }

    /// Opens something on the host of the peers.
    fn of_peers<T: Send>(&self, open: impl FnOnce() -> T + Send) -> T {
        match &self.cable {
            None => open(),
            Some(cable) => cable.on(Host::Far, open),
        }
    }

    fn peer(&self) -> UdpSocket {
        self.peer_at(if self.cable.is_some() { "10.88.0.100:0" } else { "127.0.0.1:0" })
    }

    fn peer_v6(&self) -> UdpSocket {
        self.peer_at(if self.cable.is_some() { "[fd88::100]:0" } else { "[::1]:0" })
    }

    fn peer_at(&self, bind: &str) -> UdpSocket {
        let peer = self.of_peers(|| UdpSocket::bind(bind).unwrap());
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer
    }

    /// A peer with room for what a net sends at once.
    fn roomy_peer(&self) -> UdpSocket {
        let address = self.peer().local_addr().unwrap().ip();
        let (peer, _, _) = self.of_peers(|| socket(address, 4 << 20, false));
        let peer = UdpSocket::from(peer);
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer
    }
}

const ANY_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
const ANY: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);

fn socket(address: IpAddr, receive_buffer: usize, gro: bool) -> (OwnedFd, SocketAddr, usize) {
    let options = UdpSocketOptions { receive_buffer, gro, ..UdpSocketOptions::new(SocketAddr::new(address, 0)) };
    let (socket, granted) = udp_socket(&options).unwrap();
    (socket, granted.local, granted.receive_buffer)
}

/// A peer that sends aggregates: of `segment` bytes each, the last of which may be shorter.
struct Burster {
    out: Outbound,
    socket: usize,
}

impl Burster {
    fn to(peer: SocketAddr) -> Self {
        let mut out = Outbound::new(OutboundOptions { slots: 64, credit: 32, aggregates: true }).unwrap();
        let (socket, _) = out.open(&OutboundSocket::to(peer)).unwrap();
        Self { out, socket }
    }

    fn send(&mut self, segment: u16, bytes: &[u8]) {
        self.out.send_aggregate(self.socket, segment, bytes);
        self.out.flush().unwrap();
    }
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

fn a_datagram_longer_than_a_slot_of_its_own_stays_in_a_large_one(place: &Place) {
    let (mut net, address) = place.net_at(place.v4(1));
    let sender = place.peer();
    sender.send_to(&[1; 4_000], address).unwrap();
    sender.send_to(&[2; 1_500], address).unwrap();
    let received = receive(&mut net, 2);
    let slots = received.iter().map(|it| it.packet.slot_size()).collect::<Vec<_>>();
    assert_eq!(slots, [AGGREGATE_SLOT_SIZE, SLOT_SIZE]);
    assert_eq!(taken_apart(received), [(4_000, 1), (1_500, 2)]);
}

fn a_well_filled_aggregate_stays_in_its_slot_and_an_ill_filled_one_is_copied_apart(place: &Place) {
    let (mut net, address) = place.net_at(ANY_V4);
    let mut peer = Burster::to((place.v4(6), address.port()).into());
    let well_filled = numbered(0..30, 1_316);
    peer.send(1_316, &well_filled[..29 * 1_316 + 100]);
    let mut received = Vec::new();
    net.wait(WINDOW).unwrap();
    assert_eq!(net.drain_into(&mut received).unwrap(), (30, false));
    assert_eq!((received.len(), received[0].packet.slot_size()), (1, AGGREGATE_SLOT_SIZE));
    let known = |it: &Incoming| (it.peer, it.local_ip, it.interface, it.timestamp_ns.is_some(), it.truncated);
    let of_well_filled = known(&received[0]);
    assert_eq!((of_well_filled.1, of_well_filled.2), (Some(place.v4(6)), place.interface()));
    let parts = taken_apart(received);
    assert_eq!((parts.len(), parts[28], parts[29]), (30, (1_316, 28), (100, 29)));
    assert_eq!(net.aggregates().unwrap().1, AggregateStatistics { aggregates: 1, copied: 0 });

    peer.send(1_316, &numbered(0..3, 1_316)[..2_732]);
    let received = receive(&mut net, 3);
    assert!(received.iter().all(|it| it.packet.slot_size() == SLOT_SIZE && it.gro_segment.is_none()));
    assert!(received.iter().all(|it| known(it) == of_well_filled));
    assert_eq!(taken_apart(received), [(1_316, 0), (1_316, 1), (100, 2)]);
    assert_eq!(net.aggregates().unwrap().1, AggregateStatistics { aggregates: 2, copied: 3 });
}

fn a_packet_that_is_kept_gives_the_slot_of_its_aggregate_back(place: &Place) {
    let (mut net, address) = place.net_at(place.v4(1));
    Burster::to(address).send(1_000, &numbered(0..40, 1_000));
    let mut received = Vec::new();
    net.wait(WINDOW).unwrap();
    assert_eq!(net.drain_into(&mut received).unwrap(), (40, false));
    let before = net.aggregates().unwrap().0.in_use();
    let shared = received.pop().unwrap().into_segments().nth(7).unwrap();
    assert_eq!(net.aggregates().unwrap().0.in_use(), before, "one datagram keeps the whole slot");
    let kept = net.compact(shared);
    assert_eq!(net.aggregates().unwrap().1, AggregateStatistics { aggregates: 1, copied: 1 });
    assert_eq!((kept.slot_size(), kept[..] == [7; 1_000]), (SLOT_SIZE, true));
    assert_eq!(net.aggregates().unwrap().0.in_use(), before - 1);
    let slot = kept.slot();
    assert_eq!(net.compact(kept).slot(), slot, "once is enough");
}

fn exhausted_slots_for_aggregates_lose_nothing_do_not_spin_and_leave_other_sockets_alone(place: &Place) {
    const SLOTS: usize = 10;
    let place = &Place { aggregate_slots: SLOTS, ..Place::on_loopback(place.way) };
    let (media, address, _) = place.socket(place.v4(1), 16 << 20);
    let (reports, reports_address, _) = socket(place.v4(1), 1 << 20, false);
    let mut net = place.net(256, vec![(SocketRole::Rtp, media), (SocketRole::Rtcp, reports)]);
    let mut peer = Burster::to(address);
    for n in 0..25 {
        peer.send(1_000, &numbered(n..n + 40, 1_000));
    }
    let mut numbers = Vec::new();
    for round in [SLOTS, SLOTS, 5] {
        let held = receive(&mut net, round);
        assert_eq!(held.len(), round);
        if round == SLOTS {
            assert_eq!(net.aggregates().unwrap().0.free_slots(), 0);
            let started = Instant::now();
            for _ in 0..20 {
                net.wait_for_any(WINDOW).unwrap();
                assert_eq!(net.drain_into(&mut Vec::new()).unwrap(), (0, false));
            }
            assert!(started.elapsed() >= WINDOW * 15, "{:?}", started.elapsed());
            // What comes by another socket has slots of its own.
            place.peer().send_to(b"report", reports_address).unwrap();
            let report = receive(&mut net, 1);
            assert_eq!((&report[0].packet[..], net.role(&report[0])), (&b"report"[..], SocketRole::Rtcp));
        }
        numbers.extend(taken_apart(held).into_iter().map(|(_, number)| number));
    }
    assert_eq!(numbers, (0..25).flat_map(|n| n..n + 40).collect::<Vec<_>>());
    assert_eq!(net.dropped_by_kernel(), 0);
    assert!(net.statistics().credit_exhausted > 0);
}

/// What `recvmmsg` fills is payload alone, which no aggregate is too long for; io_uring has its headers in the slot too.
fn aggregates_too_long_for_a_slot_keep_their_whole_datagrams(place: &Place) {
    const SEGMENT: usize = 1_455;
    let (mut net, address) = place.net_at(place.v4(1));
    let all = numbered(0..45, SEGMENT);
    Burster::to(address).send(SEGMENT as u16, &all);
    let received = receive(&mut net, 1);
    let is_cut = place.way == Way::Uring;
    assert_eq!((received.len(), received[0].truncated), (1, is_cut));
    assert_eq!(net.statistics().truncated, u64::from(is_cut));
    let whole = if is_cut { 44 } else { 45 };
    assert_eq!(taken_apart(received), (0..whole).map(|n| (SEGMENT, n)).collect::<Vec<_>>());
}
