//! Where a way to get and give datagrams is tried, and who sends there.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Instant;

use headworks_host::{UdpSocketOptions, probe_exclusive, udp_socket};
use headworks_network_namespaces::{Cable, Host, LINK};

use super::{PATIENCE, WINDOW};
use crate::shard::net::outbound::{Outbound, OutboundOptions, OutboundSocket};
use crate::shard::net::{Dpdk, Net, NetOptions, SocketRole, Way, XdpInterfaces};

/// Where a way is tried: the host that the net under test is on, and the one of its peers, which may be the same.
pub struct Place {
    pub way: Way,
    pub cable: Option<Cable>,
    /// Slots for aggregates.
    pub aggregate_slots: usize,
    /// Datagrams that nets of this place have received, and of these, those that came past the kernel.
    pub received: Mutex<(u64, u64)>,
}

/// A net that leaves behind what it has counted.
pub struct Counted<'a> {
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
    pub fn on_loopback(way: Way) -> Self {
        Self { way, cable: None, aggregate_slots: 0, received: Mutex::default() }
    }

    pub fn with_aggregates(way: Way) -> Self {
        Self { aggregate_slots: 256, ..Self::on_loopback(way) }
    }

    /// By AF_XDP: nothing, and said, for who may not. So much of what came, in per cent, has to come past the kernel.
    pub fn run_past_the_kernel(least: u64, body: impl FnOnce(&Self) + Send) {
        let Some(place) = Self::past_the_kernel() else { return };
        place.run(body);
        let (received, past_kernel) = *place.received.lock().unwrap();
        assert!(past_kernel * 100 >= received * least, "{past_kernel} of {received} came past the kernel");
    }

    /// By DPDK: nothing, and said, for who may not.
    #[cfg(feature = "dpdk")]
    pub fn run_without_the_kernel(body: impl FnOnce(&Self) + Send) {
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
    pub fn run(&self, body: impl FnOnce(&Self) + Send) {
        match &self.cable {
            None => body(self),
            Some(cable) => cable.on(Host::Near, || body(self)),
        }
    }

    /// An address of the net's host.
    pub fn v4(&self, last: u8) -> IpAddr {
        let first = if self.cable.is_some() { [10, 88, 0] } else { [127, 0, 0] };
        IpAddr::from([first[0], first[1], first[2], last])
    }

    pub fn v6(&self) -> IpAddr {
        if self.cable.is_some() { "fd88::1" } else { "::1" }.parse().unwrap()
    }

    /// Number of the interface that peers' datagrams come in by.
    pub fn interface(&self) -> u32 {
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

    pub fn net(&self, slots: usize, sockets: Vec<(SocketRole, OwnedFd)>) -> Counted<'_> {
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
    pub fn is_free(&self, address: SocketAddr) -> bool {
        match self.way {
            Way::Dpdk => self.net(64, Vec::new()).credit() == 64,
            Way::Uring | Way::Mmsg | Way::Xdp => probe_exclusive(address).is_ok(),
        }
    }

    /// A net with one socket at an address, which may be unspecified, and where that is.
    pub fn net_at(&self, address: IpAddr) -> (Counted<'_>, SocketAddr) {
        let (descriptor, address, _) = self.socket(address, 4 << 20);
        (self.net(1_024, vec![(SocketRole::Srt, descriptor)]), address)
    }

    /// A socket for a net, its address and its receive buffer.
    pub fn socket(&self, address: IpAddr, receive_buffer: usize) -> (OwnedFd, SocketAddr, usize) {
        socket(address, receive_buffer, self.aggregate_slots > 0)
    }

    /// Opens something on the host of the peers.
    fn of_peers<T: Send>(&self, open: impl FnOnce() -> T + Send) -> T {
        match &self.cable {
            None => open(),
            Some(cable) => cable.on(Host::Far, open),
        }
    }

    pub fn peer(&self) -> UdpSocket {
        self.peer_at(if self.cable.is_some() { "10.88.0.100:0" } else { "127.0.0.1:0" })
    }

    pub fn peer_v6(&self) -> UdpSocket {
        self.peer_at(if self.cable.is_some() { "[fd88::100]:0" } else { "[::1]:0" })
    }

    fn peer_at(&self, bind: &str) -> UdpSocket {
        let peer = self.of_peers(|| UdpSocket::bind(bind).unwrap());
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer
    }

    /// A peer with room for what a net sends at once.
    pub fn roomy_peer(&self) -> UdpSocket {
        let address = self.peer().local_addr().unwrap().ip();
        let (peer, _, _) = self.of_peers(|| socket(address, 4 << 20, false));
        let peer = UdpSocket::from(peer);
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer
    }
}

pub const ANY_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
pub const ANY: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);

pub fn socket(address: IpAddr, receive_buffer: usize, gro: bool) -> (OwnedFd, SocketAddr, usize) {
    let options = UdpSocketOptions { receive_buffer, gro, ..UdpSocketOptions::new(SocketAddr::new(address, 0)) };
    let (socket, granted) = udp_socket(&options).unwrap();
    (socket, granted.local, granted.receive_buffer)
}

/// A peer that sends aggregates: of `segment` bytes each, the last of which may be shorter.
pub struct Burster {
    out: Outbound,
    socket: usize,
}

impl Burster {
    pub fn to(peer: SocketAddr) -> Self {
        let mut out = Outbound::new(OutboundOptions { slots: 64, credit: 32, aggregates: true }).unwrap();
        let (socket, _) = out.open(&OutboundSocket::to(peer)).unwrap();
        Self { out, socket }
    }

    pub fn send(&mut self, segment: u16, bytes: &[u8]) {
        self.out.send_aggregate(self.socket, segment, bytes);
        self.out.flush().unwrap();
    }
}
