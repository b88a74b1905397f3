//! Frames on their way out: Ethernet with or without a tag, IPv4 or IPv6, and what they carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::frame::{ETHERNET, IPV4, IPV6, PROTOCOL_UDP, TYPE_IPV4, TYPE_IPV6, UDP, fold, sum};

/// Bytes of an 802.1Q tag.
pub(crate) const TAG: usize = 4;
/// Ethernet type of a tag.
pub(crate) const TYPE_TAG: u16 = 0x8100;
/// The shortest frame, without its checksum.
const FRAME_MIN: usize = 60;
/// Time to live, or hop limit, of what crosses routers.
pub(crate) const HOPS: u8 = 64;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// What stands before the packet in every frame of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) own: Mac,
    pub(crate) vlan: Option<u16>,
}

/// An IP packet's header, but for its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hops: u8,
}

impl Link {
    /// Bytes before the packet.
    pub(crate) fn header_size(&self) -> usize {
        if self.vlan.is_some() { ETHERNET + TAG } else { ETHERNET }
    }

    /// Writes the header.
    fn write(&self, frame: &mut [u8], to: Mac, ether_type: u16) {
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&self.own);
        let mut at = 12;
        if let Some(vlan) = self.vlan {
            frame[12..14].copy_from_slice(&TYPE_TAG.to_be_bytes());
            frame[14..16].copy_from_slice(&vlan.to_be_bytes());
            at = 16;
        }
        frame[at..at + 2].copy_from_slice(&ether_type.to_be_bytes());
    }

    /// Writes a UDP datagram, whose payload fits the frame behind the headers; gives its bytes.
    pub(crate) fn write_datagram(
        &self,
        frame: &mut [u8],
        to_mac: Mac,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> usize {
        let start = self.header_size();
        let ip = if to.is_ipv4() { IPV4 } else { IPV6 };
        let length = UDP + payload.len();
        let header = Header { source: from.ip(), destination: to.ip(), protocol: PROTOCOL_UDP, hops: HOPS };
        self.write_header(frame, to_mac, header, &[], length);
        let udp = &mut frame[start + ip..start + ip + length];
        udp[..2].copy_from_slice(&from.port().to_be_bytes());
        udp[2..4].copy_from_slice(&to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        udp[6..8].fill(0);
        udp[8..].copy_from_slice(payload);
        let checksum = match !fold(header.pseudo_sum(length) + sum(udp)) {
            // None at all is what 0 would say (RFC 768).
            0 => 0xffff,
            checksum => checksum,
        };
        udp[6..8].copy_from_slice(&checksum.to_ne_bytes());
        pad(frame, start + ip + length)
    }

    /// A frame of another kind than IP.
    pub(crate) fn frame(&self, to: Mac, ether_type: u16, body: &[u8]) -> Vec<u8> {
        let start = self.header_size();
        let mut frame = vec![0; (start + body.len()).max(FRAME_MIN)];
        self.write(&mut frame, to, ether_type);
        frame[start..start + body.len()].copy_from_slice(body);
        frame
    }

    /// A frame with an IP packet, whose body has its checksum. `between` are IPv4 options or an IPv6 extension header.
    pub(crate) fn packet(&self, to: Mac, header: Header, between: &[u8], body: &[u8]) -> Vec<u8> {
        let ip = if header.destination.is_ipv4() { IPV4 } else { IPV6 };
        let start = self.header_size() + ip + between.len();
        let mut frame = vec![0; (start + body.len()).max(FRAME_MIN)];
        self.write_header(&mut frame, to, header, between, body.len());
        frame[start..start + body.len()].copy_from_slice(body);
        frame
    }

    fn write_header(&self, frame: &mut [u8], to: Mac, header: Header, between: &[u8], length: usize) {
        let start = self.header_size();
        match (header.source, header.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.write(frame, to, TYPE_IPV4);
                let packet = &mut frame[start..start + IPV4 + between.len()];
                let words = packet.len() / 4;
                let total = packet.len() + length;
                packet[..2].copy_from_slice(&[0x40 | words as u8, 0]);
                packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
                // No identification is needed where nothing may be fragmented (RFC 6864 §4.1).
                packet[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
                packet[8..12].copy_from_slice(&[header.hops, header.protocol, 0, 0]);
                packet[12..16].copy_from_slice(&source.octets());
                packet[16..20].copy_from_slice(&destination.octets());
                packet[20..].copy_from_slice(between);
                let checksum = !fold(sum(packet));
                packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.write(frame, to, TYPE_IPV6);
                let packet = &mut frame[start..start + IPV6 + between.len()];
                packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
                packet[4..6].copy_from_slice(&((between.len() + length) as u16).to_be_bytes());
                packet[6] = if between.is_empty() { header.protocol } else { 0 };
                packet[7] = header.hops;
                packet[8..24].copy_from_slice(&source.octets());
                packet[24..40].copy_from_slice(&destination.octets());
                packet[40..].copy_from_slice(between);
            }
            _ => unreachable!("both addresses are of one version"),
        }
    }
}

impl Header {
    /// What a transport's checksum counts of the header (RFC 768, RFC 8200 §8.1).
    fn pseudo_sum(&self, length: usize) -> u64 {
        let addresses = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => sum(&source.octets()) + sum(&destination.octets()),
            (IpAddr::V6(source), IpAddr::V6(destination)) => sum(&source.octets()) + sum(&destination.octets()),
            _ => unreachable!("both addresses are of one version"),
        };
        addresses + sum(&[0, self.protocol]) + sum(&(length as u16).to_be_bytes())
    }
}

/// Makes a frame of `length` bytes as long as the shortest is.
fn pad(frame: &mut [u8], length: usize) -> usize {
    let whole = length.max(FRAME_MIN);
    frame[length..whole].fill(0);
    whole
}

/// Where frames for a group go (RFC 1112 §6.4, RFC 2464 §7).
pub(crate) fn group_mac(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(group) => {
            let octets = group.octets();
            [0x33, 0x33, octets[12], octets[13], octets[14], octets[15]]
        }
    }
}

/// The group that neighbour solicitations for an address go to (RFC 4291 §2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let octets = address.octets();
    let last = u16::from_be_bytes([octets[14], octets[15]]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(octets[13]), last)
}

/// The address of the link that an interface has by itself (RFC 4291, appendix A).
pub(crate) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    octets[8..11].copy_from_slice(&[a ^ 2, b, c]);
    octets[13..].copy_from_slice(&[d, e, f]);
    octets.into()
}

/// The last address of a prefix: the broadcast address of a subnet.
pub(crate) fn subnet_broadcast(address: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    let host = u32::MAX.checked_shr(prefix.into())?;
    (prefix < 31).then(|| Ipv4Addr::from(u32::from(address) | host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::parse_packet;

    const LINK: Link = Link { own: [2, 0, 0, 0, 0, 1], vlan: None };

    #[test]
    fn what_is_written_is_what_is_read() {
        for (from, to) in [("192.0.2.1:30000", "192.0.2.7:5000"), ("[2001:db8::1]:30000", "[2001:db8::7]:5000")] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for (link, start) in [(LINK, 14), (Link { vlan: Some(77), ..LINK }, 18)] {
                for payload in [&b""[..], b"seven b", &[0xff; 1_316]] {
                    let mut frame = [0xee; 1_500];
                    let length = link.write_datagram(&mut frame, [2, 0, 0, 0, 0, 9], from, to, payload);
                    assert_eq!(frame[..12], [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
                    let ether_type = u16::from_be_bytes([frame[start - 2], frame[start - 1]]);
                    let read = parse_packet(&frame[..length], start, ether_type, 0).unwrap();
                    assert_eq!((read.peer, read.local, read.port), (from, to.ip(), to.port()));
                    assert_eq!(frame[read.payload], *payload);
                    assert!(length >= 60 && (link.vlan.is_none() || frame[12..16] == [0x81, 0, 0, 77]));
                }
            }
        }
    }

    #[test]
    fn addresses_follow_from_one_another() {
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(group_mac(at("239.129.2.3")), [1, 0, 0x5e, 1, 2, 3]);
        assert_eq!(group_mac(at("ff35::1:7702")), [0x33, 0x33, 0, 1, 0x77, 2]);
        assert_eq!(IpAddr::from(solicited_node("fd88::12:3456".parse().unwrap())), at("ff02::1:ff12:3456"));
        assert_eq!(IpAddr::from(link_local([2, 0x11, 0x22, 0x33, 0x44, 0x55])), at("fe80::11:22ff:fe33:4455"));
        let of = |address: [u8; 4], prefix| subnet_broadcast(address.into(), prefix);
        assert_eq!(of([10, 88, 0, 1], 24), Some([10, 88, 0, 255].into()));
        assert_eq!((of([10, 88, 0, 1], 31), of([10, 88, 0, 1], 32)), (None, None));
    }
}
