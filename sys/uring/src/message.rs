//! Message headers, in and out: what multishot `recvmsg` writes before each datagram, and the control data of `sendmsg`.
//!
//! All of it is judged as bytes; there is no `unsafe` in this file.
//!
//! ```text
//! slot: │ io_uring_recvmsg_out 16 │ name 32 │ control 128 │ payload … │
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use headworks_packet::Packet;

/// `struct io_uring_recvmsg_out`: name length, control length, payload length, flags.
const OUT_SIZE: usize = 16;
/// Room for a peer address: `sockaddr_in6` is 28 bytes; 32 keep what follows aligned.
pub(crate) const NAME_SIZE: usize = 32;
/// Room for control data: time stamp 32, overflow 24, IPv6 packet info 40, GRO size 24 bytes.
pub(crate) const CONTROL_SIZE: usize = 128;
/// Bytes before the payload in a slot.
pub(crate) const HEADER_SIZE: usize = OUT_SIZE + NAME_SIZE + CONTROL_SIZE;

/// `struct cmsghdr`: length (with this header), level, type. Data and next header are aligned to 8.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(CONTROL_HEADER == 16, "written for 64-bit Linux");

/// One datagram (or one GRO aggregate of datagrams) as the kernel handed it over.
#[derive(Debug, Clone)]
pub struct Received {
    /// The payload.
    pub packet: Packet,
    /// What the socket was added with.
    pub token: u32,
    /// Who sent it. IPv4 peers of an IPv6 socket are shown as IPv4.
    pub peer: SocketAddr,
    /// The local address it was sent to, if the socket asks for packet info.
    pub local_ip: Option<IpAddr>,
    /// Index of the interface it came in on; 0 if the socket does not ask for packet info.
    pub interface: u32,
    /// When the kernel got it, nanoseconds of CLOCK_REALTIME, if the socket asks for it. One stamp per aggregate.
    pub timestamp_ns: Option<u64>,
    /// Bytes of each datagram in the aggregate (the last may be shorter); `None` for a single datagram.
    pub gro_segment: Option<u16>,
    /// Datagrams this socket has lost so far because its receive buffer was full; `None` until it has lost any.
    pub overflow: Option<u32>,
    /// The payload was longer than the slot; its end is lost.
    pub truncated: bool,
}

impl Received {
    /// Reads the headers the kernel wrote into a slot. `None` if they contradict each other, which no kernel does.
    #[inline]
    pub(crate) fn parse(mut packet: Packet, token: u32) -> Option<Self> {
        let bytes = &packet[..];
        if bytes.len() < HEADER_SIZE {
            return None;
        }
        let (header, payload) = bytes.split_at(HEADER_SIZE);
        let name_length = u32_at(header, 0) as usize;
        let control_length = u32_at(header, 4) as usize;
        let payload_length = u32_at(header, 8) as usize;
        let flags = u32_at(header, 12);
        let length = payload.len().min(payload_length);
        let name = &header[OUT_SIZE..OUT_SIZE + NAME_SIZE];
        let peer = read_address(&name[..name_length.min(NAME_SIZE)])?;
        let control = &header[OUT_SIZE + NAME_SIZE..];
        let control = Control::read(&control[..control_length.min(CONTROL_SIZE)]);
        let truncated = flags & libc::MSG_TRUNC as u32 != 0 || payload_length > payload.len();
        packet.advance(HEADER_SIZE);
        packet.truncate(length);
        Some(Self {
            packet,
            token,
            peer,
            local_ip: control.local_ip,
            interface: control.interface,
            timestamp_ns: control.timestamp_ns,
            gro_segment: control.gro_segment.filter(|&size| size > 0 && usize::from(size) < length),
            overflow: control.overflow,
            truncated,
        })
    }

    /// The datagrams of an aggregate, as packets that share its slot; a single datagram gives itself.
    #[inline]
    pub fn segments(&self) -> Segments<'_> {
        Segments { packet: &self.packet, size: self.gro_segment.map_or(usize::MAX, usize::from), at: 0, done: false }
    }
}

/// Iterator over the datagrams of an aggregate, see [`Received::segments`].
pub struct Segments<'a> {
    packet: &'a Packet,
    size: usize,
    at: usize,
    done: bool,
}

impl Iterator for Segments<'_> {
    type Item = Packet;

    #[inline]
    fn next(&mut self) -> Option<Packet> {
        if self.done {
            return None;
        }
        let from = self.at;
        let to = from.saturating_add(self.size).min(self.packet.len());
        self.at = to;
        self.done = to == self.packet.len();
        Some(self.packet.slice(from..to))
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

    fn slot(name: &[u8], control: &[u8], payload: &[u8], flags: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, control.len() as u32, payload.len() as u32, flags] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(name);
        bytes.resize(OUT_SIZE + NAME_SIZE, 0xee);
        bytes.extend(control);
        bytes.resize(HEADER_SIZE, 0xee);
        bytes.extend(payload);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Received> {
        let pool = PacketPool::new(PoolOptions { slots: 1, ..PoolOptions::default() }).unwrap();
        Received::parse(pool.copy_from(bytes).unwrap(), 7)
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
            let received = parse(&slot(&name_of(to, ipv6_socket), &[], b"x", 0)).unwrap();
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
    fn a_truncated_datagram_says_so() {
        let name = name_of("192.0.2.7:5004", false);
        let received = parse(&slot(&name, &[], b"cut", libc::MSG_TRUNC as u32)).unwrap();
        assert!(received.truncated);
        assert_eq!(&received.packet[..], b"cut");
        let mut bytes = slot(&name, &[], b"cut", 0);
        bytes[8] = 200;
        let received = parse(&bytes).unwrap();
        assert!(received.truncated);
        assert_eq!(received.packet.len(), 3);
    }

    #[test]
    fn an_aggregate_comes_apart_into_its_datagrams() {
        let mut control = [0; 24];
        write_item(&mut control, 0, libc::SOL_UDP, libc::UDP_GRO, &4u32.to_ne_bytes());
        let name = name_of("192.0.2.7:5004", false);
        let received = parse(&slot(&name, &control, b"onesTwosEnd", 0)).unwrap();
        assert_eq!(received.gro_segment, Some(4));
        let segments: Vec<_> = received.segments().collect();
        assert_eq!(segments.len(), 3);
        assert_eq!((&segments[0][..], &segments[1][..], &segments[2][..]), (&b"ones"[..], &b"Twos"[..], &b"End"[..]));
        let single = parse(&slot(&name, &[], b"", 0)).unwrap();
        assert_eq!(single.segments().map(|p| p.len()).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_header_cut_short_or_of_a_strange_family_is_refused() {
        let good = slot(&name_of("192.0.2.7:5004", false), &[], b"", 0);
        assert!(parse(&good).is_some());
        assert!(parse(&good[..HEADER_SIZE - 1]).is_none());
        assert!(parse(&slot(&[1, 0, 3, 4], &[], b"", 0)).is_none());
        assert!(parse(&slot(&[9; 28], &[], b"", 0)).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), family in 0..3u8) {
            if bytes.len() >= HEADER_SIZE {
                // Plausible enough to get past the first checks.
                bytes[1..4].fill(0);
                bytes[5..8].fill(0);
                bytes[16] = [2, 10, 77][usize::from(family)];
                bytes[17] = 0;
                bytes[49..56].fill(0);
            }
            if let Some(received) = parse(&bytes) {
                prop_assert!(received.packet.len() <= bytes.len() - HEADER_SIZE);
                let total: usize = received.segments().map(|p| p.len()).sum();
                prop_assert_eq!(total, received.packet.len());
            }
        }
    }
}
