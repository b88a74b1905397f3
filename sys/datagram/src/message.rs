//! What the kernel says of a datagram, in and out: `sockaddr` and control data, read and written.
//!
//! All of it is judged as bytes; there is no `unsafe` in this file.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use headworks_packet::Packet;

/// Room for a peer address: `sockaddr_in6` is 28 bytes; 32 keep what follows aligned.
pub const NAME_SIZE: usize = 32;
/// Room for control data: time stamp 32, overflow 24, IPv6 packet info 40, GRO size 24 bytes.
pub const CONTROL_SIZE: usize = 128;

/// `struct cmsghdr`: length (with this header), level, type. Data and next header are aligned to 8.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(CONTROL_HEADER == 16, "written for 64-bit Linux");

/// One datagram (or one GRO aggregate of datagrams) as the kernel handed it over.
///
/// Laid out by hand: it is moved in pieces of 16 bytes, and an address that began amid one would be read across two which have just been
/// written. A processor waits with such a read until both have left its store buffer, and all stores before them: 10 ns a datagram.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Received {
    /// Who sent it. IPv4 peers of an IPv6 socket are shown as IPv4.
    pub peer: SocketAddr,
    /// The local address it was sent to, if the socket asks for packet info.
    pub local_ip: Option<IpAddr>,
    /// Index of the interface it came in on; 0 if the socket does not ask for packet info.
    pub interface: u32,
    /// What the socket was added with.
    pub token: u32,
    /// The payload was longer than the slot; its end is lost, and of an aggregate all datagrams that are not whole.
    pub truncated: bool,
    /// Bytes of each datagram in the aggregate (the last may be shorter); `None` for a single datagram.
    pub gro_segment: Option<u16>,
    /// Datagrams this socket has lost so far because its receive buffer was full; `None` until it has lost any.
    pub overflow: Option<u32>,
    /// When the kernel got it, nanoseconds of CLOCK_REALTIME, if the socket asks for it. One stamp per aggregate.
    pub timestamp_ns: Option<u64>,
    /// The payload.
    pub packet: Packet,
}

const _: () = assert!(offset_of!(Received, peer) % 16 == 0 && offset_of!(Received, local_ip) % 16 == 0);
const _: () = assert!(offset_of!(Received, packet) % 16 == 0);

impl Received {
    /// A payload and what the kernel says of it.
    #[inline]
    pub fn new(packet: Packet, token: u32, headers: Headers, truncated: bool) -> Self {
        let Headers { peer, control } = headers;
        let length = packet.len();
        Self {
            packet,
            token,
            peer,
            local_ip: control.local_ip,
            interface: control.interface,
            timestamp_ns: control.timestamp_ns,
            gro_segment: control.gro_segment.filter(|&size| size > 0 && usize::from(size) < length),
            overflow: control.overflow,
            truncated,
        }
    }

    /// How many datagrams it is, one that was cut short included.
    #[inline]
    pub fn datagrams(&self) -> usize {
        self.gro_segment.map_or(1, |size| self.packet.len().div_ceil(size.into()))
    }

    /// It is one datagram, and whole.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.gro_segment.is_none() && !self.truncated
    }

    /// The datagrams of an aggregate that are whole, as packets that share its slot and show no byte of each other; a single
    /// datagram gives itself.
    #[inline]
    pub fn into_segments(self) -> Segments {
        let Self { mut packet, gro_segment, truncated, .. } = self;
        let size = gro_segment.map_or(usize::MAX, usize::from);
        if !truncated {
            return Segments { rest: Some(packet), size };
        }
        let whole = packet.len() / size * size;
        packet.truncate(whole);
        Segments { rest: Some(packet).filter(|_| whole > 0), size }
    }
}

/// What one drain brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Datagrams (or aggregates) handed out.
    pub datagrams: usize,
    /// The drain stopped at its limit: do not wait before the next.
    pub more: bool,
}

/// What the kernel says of one datagram.
pub struct Headers {
    peer: SocketAddr,
    control: Control,
}

impl Headers {
    /// Reads `name` and `control`, as far as the kernel has filled them. `None` if there is no address of an IP peer in `name`,
    /// which no kernel does.
    #[inline]
    pub fn read(name: &[u8], control: &[u8]) -> Option<Self> {
        Some(Self { peer: read_address(name)?, control: Control::read(control) })
    }
}

/// Iterator over the datagrams of an aggregate, see [`Received::into_segments`].
pub struct Segments {
    rest: Option<Packet>,
    size: usize,
}

impl Iterator for Segments {
    type Item = Packet;

    #[inline]
    fn next(&mut self) -> Option<Packet> {
        match &mut self.rest {
            Some(rest) if rest.len() > self.size => Some(rest.split_to(self.size)),
            last => last.take(),
        }
    }
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[inline]
fn ipv4_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

#[inline]
fn ipv6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    Ipv6Addr::from(octets)
}

/// `struct sockaddr_in` or `sockaddr_in6`.
#[inline]
fn read_address(name: &[u8]) -> Option<SocketAddr> {
    if name.len() < 16 {
        return None;
    }
    let port = u16::from_be_bytes([name[2], name[3]]);
    match i32::from(u16_at(name, 0)) {
        libc::AF_INET => Some(SocketAddrV4::new(ipv4_at(name, 4), port).into()),
        libc::AF_INET6 if name.len() >= 28 => {
            let address = ipv6_at(name, 8);
            Some(match address.to_ipv4_mapped() {
                Some(v4) => SocketAddrV4::new(v4, port).into(),
                None => SocketAddrV6::new(address, port, u32_at(name, 4), u32_at(name, 24)).into(),
            })
        }
        _ => None,
    }
}

/// Control data of one datagram.
#[derive(Default)]
struct Control {
    local_ip: Option<IpAddr>,
    interface: u32,
    timestamp_ns: Option<u64>,
    gro_segment: Option<u16>,
    overflow: Option<u32>,
}

impl Control {
    #[inline]
    fn read(mut rest: &[u8]) -> Self {
        let mut control = Self::default();
        while rest.len() >= CONTROL_HEADER {
            let length = u64_at(rest, 0) as usize;
            if length < CONTROL_HEADER || length > rest.len() {
                break;
            }
            let level = u32_at(rest, 8) as i32;
            let kind = u32_at(rest, 12) as i32;
            control.take(level, kind, &rest[CONTROL_HEADER..length]);
            let aligned = length.next_multiple_of(8).min(rest.len());
            rest = &rest[aligned..];
        }
        control
    }

    #[inline]
    fn take(&mut self, level: i32, kind: i32, data: &[u8]) {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if data.len() >= 16 => {
                let (seconds, nanoseconds) = (u64_at(data, 0), u64_at(data, 8));
                self.timestamp_ns = seconds.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(nanoseconds));
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) if data.len() >= 4 => {
                self.overflow = Some(u32_at(data, 0));
            }
            // `struct in_pktinfo`: interface, local address, destination of the header. The last is what the peer sent to.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if data.len() >= 12 => {
                self.interface = u32_at(data, 0);
                self.local_ip = Some(ipv4_at(data, 8).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if data.len() >= 20 => {
                self.interface = u32_at(data, 16);
                self.local_ip = Some(IpAddr::V6(ipv6_at(data, 0)).to_canonical());
            }
            // An int by the manual; some kernels wrote a u16.
            (libc::SOL_UDP, libc::UDP_GRO) if data.len() >= 4 => {
                self.gro_segment = u16::try_from(u32_at(data, 0)).ok();
            }
            (libc::SOL_UDP, libc::UDP_GRO) if data.len() >= 2 => {
                self.gro_segment = Some(u16_at(data, 0));
            }
            _ => {}
        }
    }
}

/// Room for outgoing control data: IPv6 packet info 40, segment size 24 bytes.
pub(crate) const SEND_CONTROL_SIZE: usize = 64;

/// Writes a `sockaddr_in` or `sockaddr_in6` and gives its length. An IPv6 socket reaches IPv4 peers by mapped addresses.
#[inline]
pub(crate) fn write_address(to: &SocketAddr, ipv6_socket: bool, name: &mut [u8; NAME_SIZE]) -> u32 {
    let (address, flow, scope) = match to {
        SocketAddr::V4(to) if !ipv6_socket => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[2..4].copy_from_slice(&to.port().to_be_bytes());
            name[4..8].copy_from_slice(&to.ip().octets());
            name[8..16].fill(0);
            return 16;
        }
        SocketAddr::V4(to) => (to.ip().to_ipv6_mapped(), 0, 0),
        SocketAddr::V6(to) => (*to.ip(), to.flowinfo(), to.scope_id()),
    };
    name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
    name[2..4].copy_from_slice(&to.port().to_be_bytes());
    name[4..8].copy_from_slice(&flow.to_ne_bytes());
    name[8..24].copy_from_slice(&address.octets());
    name[24..28].copy_from_slice(&scope.to_ne_bytes());
    28
}

/// Writes the control data of a send (source address, size of GSO segments) and gives its length, 0 if there is none.
#[inline]
pub(crate) fn write_control(
    local: Option<IpAddr>,
    segment: Option<u16>,
    ipv6_socket: bool,
    control: &mut [u8; SEND_CONTROL_SIZE],
) -> usize {
    let mut length = 0;
    match local {
        Some(IpAddr::V4(local)) if !ipv6_socket => {
            // `struct in_pktinfo`: interface 0 (the routing table decides), source address, unused.
            let mut data = [0; 12];
            data[4..8].copy_from_slice(&local.octets());
            length += write_item(control, length, libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
        }
        Some(local) => {
            let local = match local {
                IpAddr::V4(local) => local.to_ipv6_mapped(),
                IpAddr::V6(local) => local,
            };
            let mut data = [0; 20];
            data[..16].copy_from_slice(&local.octets());
            length += write_item(control, length, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
        }
        None => {}
    }
    if let Some(segment) = segment {
        let data = segment.to_ne_bytes();
        length += write_item(control, length, libc::SOL_UDP, libc::UDP_SEGMENT, &data);
    }
    length
}

#[inline]
fn write_item(control: &mut [u8], at: usize, level: i32, kind: i32, data: &[u8]) -> usize {
    let length = CONTROL_HEADER + data.len();
    let item = &mut control[at..at + length.next_multiple_of(8)];
    item.fill(0);
    item[..8].copy_from_slice(&length.to_ne_bytes());
    item[8..12].copy_from_slice(&level.to_ne_bytes());
    item[12..16].copy_from_slice(&kind.to_ne_bytes());
    item[CONTROL_HEADER..length].copy_from_slice(data);
    item.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use headworks_packet::{PacketPool, PoolOptions};
    use proptest::prelude::*;

    fn received(name: &[u8], control: &[u8], payload: &[u8]) -> Option<Received> {
        let pool = PacketPool::new(PoolOptions { slots: 1, ..PoolOptions::default() }).unwrap();
        let packet = pool.copy_from(payload).unwrap();
        Some(Received::new(packet, 7, Headers::read(name, control)?, false))
    }

    fn name_of(to: &str, ipv6_socket: bool) -> Vec<u8> {
        let mut name = [0; NAME_SIZE];
        let length = write_address(&to.parse().unwrap(), ipv6_socket, &mut name);
        name[..length as usize].to_vec()
    }

    #[test]
    fn addresses_written_are_addresses_read() {
        for (to, ipv6_socket) in [
            ("192.0.2.7:5004", false),
            ("192.0.2.7:5004", true),
            ("[2001:db8::1]:30000", true),
            ("[fe80::1%3]:30000", true),
        ] {
            let received = received(&name_of(to, ipv6_socket), &[], b"x").unwrap();
            assert_eq!(received.peer, to.parse().unwrap());
            assert_eq!(&received.packet[..], b"x");
            assert_eq!(received.token, 7);
        }
    }

    #[test]
    fn control_data_written_is_control_data_read() {
        let mut control = [0; SEND_CONTROL_SIZE];
        let length = write_control(Some("2001:db8::9".parse().unwrap()), Some(1316), true, &mut control);
        assert_eq!(length, 64);
        let read = Control::read(&control[..length]);
        assert_eq!(read.local_ip, Some("2001:db8::9".parse().unwrap()));
        let length = write_control(Some("192.0.2.1".parse().unwrap()), None, true, &mut control);
        assert_eq!(length, 40);
        let read = Control::read(&control[..length]);
        assert_eq!(read.local_ip, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(write_control(None, None, false, &mut control), 0);
    }

    #[test]
    fn the_ipv4_source_address_is_where_the_kernel_looks_for_it() {
        let mut control = [0xff; SEND_CONTROL_SIZE];
        let local = Some("192.0.2.1".parse().unwrap());
        assert_eq!(write_control(local, None, false, &mut control), 32);
        assert_eq!(u64_at(&control, 0), 28);
        assert_eq!(control[16..28], [0, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn an_aggregate_comes_apart_into_its_datagrams() {
        let mut control = [0; 24];
        write_item(&mut control, 0, libc::SOL_UDP, libc::UDP_GRO, &4u32.to_ne_bytes());
        let name = name_of("192.0.2.7:5004", false);
        let aggregate = received(&name, &control, b"onesTwosEnd").unwrap();
        assert_eq!((aggregate.gro_segment, aggregate.datagrams(), aggregate.is_single()), (Some(4), 3, false));
        let mut segments: Vec<_> = aggregate.into_segments().collect();
        assert_eq!(segments.len(), 3);
        assert_eq!((&segments[0][..], &segments[1][..], &segments[2][..]), (&b"ones"[..], &b"Twos"[..], &b"End"[..]));
        assert!(segments.iter_mut().all(|segment| segment.bytes_mut().is_some()), "each can be decrypted in place");
        let single = received(&name, &[], b"").unwrap();
        assert_eq!((single.datagrams(), single.is_single()), (1, true));
        assert_eq!(single.into_segments().map(|p| p.len()).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn of_what_was_cut_short_the_whole_datagrams_are_left() {
        let mut control = [0; 24];
        write_item(&mut control, 0, libc::SOL_UDP, libc::UDP_GRO, &4u32.to_ne_bytes());
        let name = name_of("192.0.2.7:5004", false);
        let segments = |control: &[u8], payload| {
            let cut = Received { truncated: true, ..received(&name, control, payload).unwrap() };
            cut.into_segments().map(|segment| segment.to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(segments(&control, b"onesTwosEnd"), [b"ones", b"Twos"]);
        assert_eq!(segments(&control, b"onesTwos"), [b"ones", b"Twos"]);
        assert!(segments(&[], b"one").is_empty());
    }

    #[test]
    fn a_peer_of_a_strange_family_or_without_all_of_its_address_is_refused() {
        let name = name_of("192.0.2.7:5004", false);
        assert!(received(&name, &[], b"").is_some());
        assert!(received(&name[..15], &[], b"").is_none());
        assert!(received(&name_of("[2001:db8::1]:5004", true)[..27], &[], b"").is_none());
        assert!(received(&[9; 28], &[], b"").is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_control_data_makes_the_reader_panic(mut control in prop::collection::vec(any::<u8>(), 0..=CONTROL_SIZE)) {
            if control.len() >= 8 {
                // A length that is plausible enough to be followed.
                control[1..8].fill(0);
            }
            let received = received(&name_of("192.0.2.7:5004", false), &control, b"payload").unwrap();
            let (count, length) = (received.datagrams(), received.packet.len());
            let lengths: Vec<usize> = received.into_segments().map(|p| p.len()).collect();
            prop_assert_eq!((lengths.len(), lengths.iter().sum::<usize>()), (count, length));
        }
    }
}
