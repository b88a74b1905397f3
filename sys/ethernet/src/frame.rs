//! A frame judged as bytes: Ethernet, IPv4 or IPv6, UDP. What the kernel checks of packets that go its way is checked here,
//! because these do not. There is no `unsafe` in this file.
//!
//! **Checksums.** A network card may have judged them, but an XDP program is not told, so each is added up again. A datagram that
//! never was on a wire (from another namespace of this host, or of its virtual machines) has none yet: its sender leaves the last
//! step to a card, and only the sum of the pseudo header stands where the checksum will be (`CHECKSUM_PARTIAL`). That is taken
//! too; on a wire it is as unlikely as any other damage that a checksum of 16 bits does not show.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;

/// Bytes of an Ethernet header without a tag.
pub(crate) const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub(crate) const IPV4: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const IPV6: usize = 40;
/// Bytes of a UDP header.
pub(crate) const UDP: usize = 8;
/// Next header of IPv6: options for everybody on the way, which stand before all else (RFC 8200 §4.3).
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_IGMP: u8 = 2;
pub(crate) const PROTOCOL_UDP: u8 = 17;
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;
pub(crate) const TYPE_IPV4: u16 = 0x0800;
pub(crate) const TYPE_ARP: u16 = 0x0806;
pub(crate) const TYPE_IPV6: u16 = 0x86dd;
/// Every IPv4 host is in it, without being asked (RFC 1112 §4).
pub(crate) const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// The same by IPv6 (RFC 4291 §2.7.1).
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A UDP datagram in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub peer: SocketAddr,
    /// The address it was sent to.
    pub local: IpAddr,
    /// The port.
    pub port: u16,
    /// Where in the frame the payload is.
    pub payload: Range<usize>,
}

/// Why a frame is no datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A header that is cut short, contradicts itself, or is not plain: options, extension headers, fragments.
    Malformed,
    /// A checksum is wrong.
    Checksum,
    /// It comes from an address that no host has.
    Source,
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn ipv6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    octets.into()
}

/// The 16-bit words of `bytes` added up (RFC 1071), in the processor's byte order: it changes neither what is all ones nor what is
/// equal.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(4);
    let rest = words.remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let word = |word: &[u8]| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    words.map(word).sum::<u64>() + word(&last)
}

pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Takes a frame without a tag apart that came in by `interface`.
///
/// # Errors
///
/// See [`Fault`].
pub fn parse(frame: &[u8], interface: u32) -> Result<Datagram, Fault> {
    if frame.len() < ETHERNET {
        return Err(Fault::Malformed);
    }
    parse_packet(frame, ETHERNET, u16_at(frame, 12), interface)
}

/// Takes apart what stands from `start` on, which is of this Ethernet type.
pub(crate) fn parse_packet(frame: &[u8], start: usize, ether_type: u16, interface: u32) -> Result<Datagram, Fault> {
    let (mut peer, local, udp) = match ether_type {
        TYPE_IPV4 => ipv4(&frame[start..])?,
        TYPE_IPV6 => ipv6(&frame[start..], interface)?,
        _ => return Err(Fault::Malformed),
    };
    let (peer_port, port) = (u16_at(udp.bytes, 0), u16_at(udp.bytes, 2));
    let length = usize::from(u16_at(udp.bytes, 4));
    if length < UDP || length > udp.bytes.len() {
        return Err(Fault::Malformed);
    }
    udp.checksum(length, peer.is_ipv4())?;
    peer.set_port(peer_port);
    let payload = start + udp.start + UDP;
    Ok(Datagram { peer, local, port, payload: payload..payload + length - UDP })
}

/// What is behind the IP header: UDP, at least its header.
struct Behind<'a> {
    bytes: &'a [u8],
    /// Where in the packet.
    start: usize,
    /// Source and destination address, added up.
    addresses: u64,
}

impl Behind<'_> {
    fn checksum(&self, length: usize, may_lack: bool) -> Result<(), Fault> {
        let stated = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        if stated == 0 && may_lack {
            return Ok(());
        }
        let pseudo = self.addresses + sum(&[0, PROTOCOL_UDP]) + sum(&(length as u16).to_be_bytes());
        let is_right = fold(pseudo + sum(&self.bytes[..length])) == 0xffff;
        let is_partial = stated == fold(pseudo);
        if stated != 0 && (is_right || is_partial) { Ok(()) } else { Err(Fault::Checksum) }
    }
}

fn ipv4(packet: &[u8]) -> Result<(SocketAddr, IpAddr, Behind<'_>), Fault> {
    if packet.len() < IPV4 + UDP || packet[0] != 0x45 {
        return Err(Fault::Malformed);
    }
    let total = usize::from(u16_at(packet, 2));
    let is_fragment = u16_at(packet, 6) & 0x3fff != 0;
    if total < IPV4 + UDP || total > packet.len() || is_fragment || packet[9] != PROTOCOL_UDP {
        return Err(Fault::Malformed);
    }
    if fold(sum(&packet[..IPV4])) != 0xffff {
        return Err(Fault::Checksum);
    }
    let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let (source, destination) = (address(12), address(16));
    if source.is_unspecified() || source.is_loopback() || source.is_multicast() || source.is_broadcast() {
        return Err(Fault::Source);
    }
    let behind = Behind { bytes: &packet[IPV4..total], start: IPV4, addresses: sum(&packet[12..20]) };
    Ok((SocketAddrV4::new(source, 0).into(), destination.into(), behind))
}

fn ipv6(packet: &[u8], interface: u32) -> Result<(SocketAddr, IpAddr, Behind<'_>), Fault> {
    if packet.len() < IPV6 + UDP || packet[0] >> 4 != 6 || packet[6] != PROTOCOL_UDP {
        return Err(Fault::Malformed);
    }
    let total = IPV6 + usize::from(u16_at(packet, 4));
    if total < IPV6 + UDP || total > packet.len() {
        return Err(Fault::Malformed);
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&packet[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    let (source, destination) = (address(8), address(24));
    // A mapped address is how programs write IPv4, and none to be seen on a wire.
    if source.is_unspecified() || source.is_loopback() || source.is_multicast() || source.to_ipv4_mapped().is_some() {
        return Err(Fault::Source);
    }
    // The map of ports has IPv4 addresses under such.
    if destination.to_ipv4_mapped().is_some() {
        return Err(Fault::Malformed);
    }
    let scope = if source.is_unicast_link_local() { interface } else { 0 };
    let behind = Behind { bytes: &packet[IPV6..total], start: IPV6, addresses: sum(&packet[8..40]) };
    Ok((SocketAddrV6::new(source, 0, 0, scope).into(), destination.into(), behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAYLOAD: &[u8] = b"seven b";

    /// 192.0.2.7:5000 → 192.0.2.1:30000, the header's checksum worked out by hand (RFC 1071).
    fn ipv4_frame() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
        frame.extend([0x45, 0, 0, 35, 0, 0, 0x40, 0, 64, 17, 0xb6, 0xc1, 192, 0, 2, 7, 192, 0, 2, 1]);
        frame.extend([0x13, 0x88, 0x75, 0x30, 0, 15, 0, 0]);
        frame.extend(PAYLOAD);
        frame
    }

    /// [fe80::7]:5000 → [fe80::1]:30000.
    fn ipv6_frame() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, 15, 17, 64]);
        for last in [7, 1] {
            frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        frame.extend([0x13, 0x88, 0x75, 0x30, 0, 15, 0, 0]);
        frame.extend(PAYLOAD);
        frame
    }

    /// The plainest way to add up: a byte at a time.
    fn checksum(parts: &[&[u8]]) -> u16 {
        let mut sum = 0_u32;
        for part in parts {
            for (at, &byte) in part.iter().enumerate() {
                sum += u32::from(byte) << if at % 2 == 0 { 8 } else { 0 };
            }
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn with_checksum(mut frame: Vec<u8>, udp: usize, addresses: Range<usize>) -> (Vec<u8>, Vec<u8>) {
        let pseudo = [0, 17, frame[udp + 4], frame[udp + 5]];
        let partial = checksum(&[&frame[addresses.clone()], &pseudo]);
        let whole = !checksum(&[&frame[addresses], &pseudo, &frame[udp..]]);
        let mut other = frame.clone();
        frame[udp + 6..udp + 8].copy_from_slice(&whole.to_be_bytes());
        other[udp + 6..udp + 8].copy_from_slice(&partial.to_be_bytes());
        (frame, other)
    }

    fn frames() -> [(Vec<u8>, Vec<u8>); 2] {
        [with_checksum(ipv4_frame(), 34, 26..34), with_checksum(ipv6_frame(), 54, 22..54)]
    }

    #[test]
    fn a_datagram_is_found_with_its_addresses_whether_its_checksum_is_whole_or_partial() {
        let [(v4, v4_partial), (v6, v6_partial)] = frames();
        for frame in [v4, v4_partial, ipv4_frame()] {
            let datagram = parse(&frame, 9).unwrap();
            assert_eq!(datagram.peer, "192.0.2.7:5000".parse().unwrap());
            assert_eq!((datagram.local, datagram.port), ("192.0.2.1".parse().unwrap(), 30_000));
            assert_eq!(&frame[datagram.payload], PAYLOAD);
        }
        for frame in [v6, v6_partial] {
            let datagram = parse(&frame, 9).unwrap();
            assert_eq!(datagram.peer, SocketAddrV6::new("fe80::7".parse().unwrap(), 5_000, 0, 9).into());
            assert_eq!((datagram.local, datagram.port), ("fe80::1".parse().unwrap(), 30_000));
            assert_eq!(&frame[datagram.payload], PAYLOAD);
        }
    }

    #[test]
    fn damage_anywhere_behind_the_ethernet_header_is_seen() {
        for (frame, _) in frames() {
            for at in 14..frame.len() {
                let mut damaged = frame.clone();
                damaged[at] ^= 0x10;
                // Of an IPv6 header, traffic class, flow label and hop limit have no checksum.
                let is_free = frame[14] == 0x60 && matches!(at - 14, 0..=3 | 7);
                assert_eq!(parse(&damaged, 9).is_ok(), is_free && at != 14, "byte {at}");
            }
        }
        assert_eq!(parse(&ipv6_frame(), 9), Err(Fault::Checksum), "IPv6 has no datagrams without a checksum");
    }

    #[test]
    fn padding_of_the_ethernet_frame_is_no_payload() {
        let mut frame = frames()[0].0.clone();
        frame.resize(60, 0xee);
        assert_eq!(&frame[parse(&frame, 9).unwrap().payload], PAYLOAD);
    }

    #[test]
    fn lengths_that_reach_beyond_what_is_there_are_refused() {
        for (frame, _) in frames() {
            for length in 0..frame.len() {
                assert_eq!(parse(&frame[..length], 9), Err(Fault::Malformed), "{length}");
            }
        }
    }

    #[test]
    fn senders_that_no_host_can_be_are_refused() {
        for source in [[127, 0, 0, 1], [0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255]] {
            let mut frame = ipv4_frame();
            frame[26..30].copy_from_slice(&source);
            frame[24..26].fill(0);
            let header = !checksum(&[&frame[14..34]]);
            frame[24..26].copy_from_slice(&header.to_be_bytes());
            assert_eq!(parse(&frame, 9), Err(Fault::Source), "{source:?}");
        }
        for source in ["::", "::1", "ff02::1", "::ffff:192.0.2.7"] {
            let mut frame = ipv6_frame();
            frame[22..38].copy_from_slice(&source.parse::<Ipv6Addr>().unwrap().octets());
            assert_eq!(parse(&frame, 9), Err(Fault::Source), "{source}");
        }
    }

    #[test]
    fn a_mapped_address_is_none_to_send_to() {
        let mut frame = ipv6_frame();
        let mapped: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
        frame[38..54].copy_from_slice(&mapped.octets());
        let (frame, _) = with_checksum(frame, 54, 22..54);
        assert_eq!(parse(&frame, 9), Err(Fault::Malformed));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_frame_makes_it_panic(mut frame in prop::collection::vec(any::<u8>(), 0..200), v6: bool, plausible: bool) {
            if plausible && frame.len() > 23 {
                frame[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[0x08, 0x00, 0x45] });
                frame[if v6 { 20 } else { 23 }] = 17;
            }
            if let Ok(datagram) = parse(&frame, 1) {
                prop_assert!(datagram.payload.end <= frame.len());
            }
        }

        #[test]
        fn the_sum_is_that_of_the_plainest_way(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(fold(sum(&bytes)).to_be(), checksum(&[&bytes]));
        }
    }
}
