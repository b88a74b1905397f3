//! What hosts and routers of a link say to each other beside datagrams: ARP, ICMP, neighbour discovery, IGMP, MLD.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IgmpPacket,
    IgmpRepr, IgmpVersion, Ipv4Packet, MldRepr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use crate::edge::{Drop, Edge};
use crate::frame::{ALL_NODES, IPV6, PROTOCOL_ICMP, PROTOCOL_ICMPV6, TYPE_ARP, ipv6_at, u16_at};
use crate::neighbours::Advertised;
use crate::write::{HOPS, Header, Mac, group_mac, solicited_node};

const BROADCAST: Mac = [0xff; 6];
/// Of neighbour discovery: from this link, for a router would have taken one off (RFC 4861 §7.1).
const HOPS_OF_LINK: u8 = 255;
/// The longest time for an answer that an IGMPv1 querier has in mind (RFC 3376 §4.1.1).
const IGMPV1_RESPONSE_NS: u64 = 10_000_000_000;

impl Edge {
    /// ARP (RFC 826): answers for our addresses, and learns.
    pub(crate) fn serve_arp(&mut self, now_ns: u64, packet: &[u8]) -> Result<(), Drop> {
        let packet = ArpPacket::new_checked(packet).map_err(|_| Drop::Malformed)?;
        let ArpRepr::EthernetIpv4 {
            operation, source_hardware_addr, source_protocol_addr, target_protocol_addr, ..
        } = ArpRepr::parse(&packet).map_err(|_| Drop::OtherProtocol)?
        else {
            return Err(Drop::OtherProtocol);
        };
        let (sender, mac) = (IpAddr::V4(source_protocol_addr), source_hardware_addr);
        let is_for_us = self.is_own(target_protocol_addr.into());
        if self.is_own(sender) {
            self.counted.conflicts += 1;
        } else if mac.is_unicast() && self.is_on_link(sender) {
            self.neighbours.heard(now_ns, sender, mac.0, is_for_us);
        }
        if operation == ArpOperation::Request && is_for_us && mac.is_unicast() {
            let frame = self.arp(ArpOperation::Reply, target_protocol_addr, mac.0, source_protocol_addr);
            self.answer(frame);
        }
        Ok(())
    }

    /// ICMP: an echo request is answered to where it came from.
    pub(crate) fn serve_icmp(&mut self, packet: &[u8], from: Mac) -> Result<(), Drop> {
        let packet = Ipv4Packet::new_checked(packet).map_err(|_| Drop::Malformed)?;
        if !packet.verify_checksum() {
            return Err(Drop::Checksum);
        }
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        if !is_host(source.into()) {
            return Err(Drop::Source);
        }
        let icmp = Icmpv4Packet::new_checked(packet.payload()).map_err(|_| Drop::Malformed)?;
        let checksums = ChecksumCapabilities::default();
        match Icmpv4Repr::parse(&icmp, &checksums).map_err(|_| Drop::Malformed)? {
            Icmpv4Repr::EchoRequest { ident, seq_no, data } => {
                if !self.takes_echo() {
                    return Ok(());
                }
                let reply = Icmpv4Repr::EchoReply { ident, seq_no, data };
                let mut body = vec![0; reply.buffer_len()];
                reply.emit(&mut Icmpv4Packet::new_unchecked(&mut body[..]), &checksums);
                let header = header(destination, source, PROTOCOL_ICMP, HOPS);
                self.answer(self.link.packet(from, header, &[], &body));
            }
            // Errors about what we have sent; what matters is repeated anyway.
            _ => return Err(Drop::OtherProtocol),
        }
        Ok(())
    }

    /// IGMP: a query is answered in its time (RFC 3376 §5.2, §7.2). One that may have been forged from afar is none: it must be of
    /// this link, and from IGMPv2 on have the option that makes routers look (RFC 3376 §9.1).
    pub(crate) fn serve_igmp(&mut self, now_ns: u64, packet: &[u8]) -> Result<(), Drop> {
        const LENGTH_V2: usize = 8;
        const IPV4_WITH_ALERT: u8 = 0x46;
        // Routers send no other option with it.
        let has_alert = packet[0] == IPV4_WITH_ALERT && packet.get(20..22) == Some(&[0x94, 4]);
        let packet = Ipv4Packet::new_checked(packet).map_err(|_| Drop::Malformed)?;
        let igmp = IgmpPacket::new_checked(packet.payload()).map_err(|_| Drop::Malformed)?;
        if !packet.verify_checksum() || !igmp.verify_checksum() {
            return Err(Drop::Checksum);
        }
        let source = IpAddr::V4(packet.src_addr());
        if packet.hop_limit() != 1 {
            return Err(Drop::OtherProtocol);
        }
        if !source.is_unspecified() && !self.is_on_link(source) {
            return Err(Drop::Source);
        }
        let is_v3 = packet.payload().len() > LENGTH_V2;
        match IgmpRepr::parse(&igmp).map_err(|_| Drop::OtherProtocol)? {
            IgmpRepr::MembershipQuery { max_resp_time, group_addr, version } => {
                let is_v1 = version == IgmpVersion::Version1 && !is_v3;
                if !is_v1 && !has_alert {
                    return Err(Drop::OtherProtocol);
                }
                if !is_v3 {
                    self.groups.has_old_querier(now_ns);
                }
                let within_ns = match version {
                    IgmpVersion::Version1 if !is_v3 => IGMPV1_RESPONSE_NS,
                    _ => max_resp_time.total_micros() * 1_000,
                };
                self.groups.queried(now_ns, group_addr.into(), within_ns);
                Ok(())
            }
            // What other hosts tell the router.
            IgmpRepr::MembershipReport { .. } | IgmpRepr::LeaveGroup { .. } => Ok(()),
        }
    }

    /// ICMPv6, perhaps behind a hop-by-hop header: echo, neighbour discovery, MLD.
    pub(crate) fn serve_icmpv6(&mut self, now_ns: u64, packet: &[u8], from: Mac) -> Result<(), Drop> {
        let total = IPV6 + usize::from(u16_at(packet, 4));
        let (mut next, mut at) = (packet[6], IPV6);
        if total > packet.len() {
            return Err(Drop::Malformed);
        }
        if next == 0 {
            let header = packet.get(at..at + 2).ok_or(Drop::Malformed)?;
            next = header[0];
            at += (usize::from(header[1]) + 1) * 8;
        }
        if next != PROTOCOL_ICMPV6 {
            return Err(Drop::OtherProtocol);
        }
        let body = packet.get(at..total).ok_or(Drop::Malformed)?;
        let (source, destination) = (ipv6_at(packet, 8), ipv6_at(packet, 24));
        let icmp = Icmpv6Packet::new_checked(body).map_err(|_| Drop::Malformed)?;
        if !icmp.verify_checksum(&source, &destination) {
            return Err(Drop::Checksum);
        }
        let checksums = ChecksumCapabilities::default();
        let hops = packet[7];
        match Icmpv6Repr::parse(&source, &destination, &icmp, &checksums).map_err(|_| Drop::OtherProtocol)? {
            Icmpv6Repr::EchoRequest { ident, seq_no, data } if self.is_own(destination.into()) => {
                if !is_host(source.into()) {
                    return Err(Drop::Source);
                }
                if self.takes_echo() {
                    let reply = Icmpv6Repr::EchoReply { ident, seq_no, data };
                    self.answer_icmpv6(from, destination, source, HOPS, reply);
                }
                Ok(())
            }
            Icmpv6Repr::Ndisc(neighbour) if hops == HOPS_OF_LINK && icmp.msg_code() == 0 => {
                self.serve_neighbour(now_ns, source, destination, from, neighbour)
            }
            Icmpv6Repr::Mld(MldRepr::Query { max_resp_code, mcast_addr, .. }) if source.is_unicast_link_local() => {
                self.groups.queried(now_ns, mcast_addr.into(), mld_response_ns(max_resp_code));
                Ok(())
            }
            _ => Err(Drop::OtherProtocol),
        }
    }

    /// Neighbour discovery (RFC 4861 §7.2): answers for our addresses, and learns.
    fn serve_neighbour(
        &mut self,
        now_ns: u64,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        from: Mac,
        neighbour: NdiscRepr<'_>,
    ) -> Result<(), Drop> {
        match neighbour {
            NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                if !self.is_own(target_addr.into()) {
                    return Err(Drop::NotOurs);
                }
                if source.is_unspecified() {
                    // Somebody asks whether he may have our address (RFC 4862 §5.4.3): all are told that it is taken.
                    if destination != solicited_node(target_addr) {
                        return Err(Drop::Malformed);
                    }
                    self.counted.conflicts += 1;
                    self.advertise(group_mac(ALL_NODES.into()), target_addr, ALL_NODES, NdiscNeighborFlags::OVERRIDE);
                    return Ok(());
                }
                if !is_host(source.into()) {
                    return Err(Drop::Source);
                }
                // Who leaves the option out has found us already.
                let mac = lladdr.map_or(Some(from), mac_of).ok_or(Drop::Malformed)?;
                if lladdr.is_some() && self.is_on_link(source.into()) {
                    self.neighbours.heard(now_ns, source.into(), mac, true);
                }
                let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
                self.advertise(mac, target_addr, source, flags);
                Ok(())
            }
            NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
                let is_solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
                // One answers to whoever has asked, and to nobody else (RFC 4861 §7.1.2).
                if is_solicited && destination.is_multicast() {
                    return Err(Drop::Malformed);
                }
                let mac = lladdr.map(|it| mac_of(it).ok_or(Drop::Malformed)).transpose()?;
                if self.is_own(target_addr.into()) {
                    self.counted.conflicts += 1;
                } else if self.is_on_link(target_addr.into()) {
                    let overrides = flags.contains(NdiscNeighborFlags::OVERRIDE);
                    let told = Advertised { mac, is_solicited, overrides };
                    self.neighbours.advertised(now_ns, target_addr.into(), told);
                }
                Ok(())
            }
            // Routers and prefixes are configured.
            _ => Err(Drop::OtherProtocol),
        }
    }

    /// Tells the link that an address is ours (RFC 5227 §3, RFC 4861 §7.2.6).
    pub(crate) fn announce(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                let frame = self.arp(ArpOperation::Request, address, BROADCAST, address);
                self.answer(frame);
            }
            IpAddr::V6(address) => {
                self.advertise(group_mac(ALL_NODES.into()), address, ALL_NODES, NdiscNeighborFlags::OVERRIDE);
            }
        }
    }

    /// Asks for the Ethernet addresses that are wanted.
    pub(crate) fn ask(&mut self) {
        while let Some(address) = self.neighbours.poll_question() {
            match (address, self.source_for(address, None)) {
                (IpAddr::V4(address), Some(IpAddr::V4(own))) => {
                    let frame = self.arp(ArpOperation::Request, own, BROADCAST, address);
                    self.answer(frame);
                }
                (IpAddr::V6(address), Some(IpAddr::V6(own))) => {
                    let lladdr = Some(RawHardwareAddress::from(EthernetAddress(self.link.own)));
                    let question = NdiscRepr::NeighborSolicit { target_addr: address, lladdr };
                    let group = solicited_node(address);
                    self.answer_icmpv6(group_mac(group.into()), own, group, HOPS_OF_LINK, Icmpv6Repr::Ndisc(question));
                }
                _ => {}
            }
        }
    }

    /// Tells routers of the groups, as far as that is due.
    pub(crate) fn report(&mut self, now_ns: u64) {
        while let Some(report) = self.groups.poll_report(now_ns, self.link_local()) {
            self.send_report(report);
        }
    }

    /// Leaves all groups; what is to be said of it comes out of [`Edge::poll_transmit`].
    pub fn leave_groups(&mut self, now_ns: u64) {
        for report in self.groups.leave(now_ns, self.link_local()) {
            self.send_report(report);
        }
    }

    fn send_report(&mut self, report: crate::groups::Report) {
        let source = match report.destination {
            IpAddr::V6(_) => Some(self.link_local().into()),
            // A host without an address may say 0.0.0.0 (RFC 3376 §4.2.13).
            destination => self.source_for(destination, None).or(Some(Ipv4Addr::UNSPECIFIED.into())),
        };
        let Some(source) = source else { return };
        let header = Header { source, destination: report.destination, protocol: report.protocol, hops: 1 };
        let frame = self.link.packet(group_mac(report.destination), header, report.between, &report.body);
        self.answer(frame);
    }

    fn arp(&self, operation: ArpOperation, own: Ipv4Addr, to: Mac, target: Ipv4Addr) -> Vec<u8> {
        let target_mac = if operation == ArpOperation::Reply { to } else { [0; 6] };
        let repr = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(self.link.own),
            source_protocol_addr: own,
            target_hardware_addr: EthernetAddress(target_mac),
            target_protocol_addr: target,
        };
        let mut body = vec![0; repr.buffer_len()];
        repr.emit(&mut ArpPacket::new_unchecked(&mut body[..]));
        self.link.frame(to, TYPE_ARP, &body)
    }

    fn advertise(&mut self, to: Mac, target: Ipv6Addr, destination: Ipv6Addr, flags: NdiscNeighborFlags) {
        let lladdr = Some(RawHardwareAddress::from(EthernetAddress(self.link.own)));
        let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr });
        self.answer_icmpv6(to, target, destination, HOPS_OF_LINK, repr);
    }

    fn answer_icmpv6(&mut self, to: Mac, source: Ipv6Addr, destination: Ipv6Addr, hops: u8, repr: Icmpv6Repr<'_>) {
        let mut body = vec![0; repr.buffer_len()];
        let mut packet = Icmpv6Packet::new_unchecked(&mut body[..]);
        repr.emit(&source, &destination, &mut packet, &ChecksumCapabilities::default());
        let header = header(source, destination, PROTOCOL_ICMPV6, hops);
        self.answer(self.link.packet(to, header, &[], &body));
    }
}

fn header(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, protocol: u8, hops: u8) -> Header {
    Header { source: source.into(), destination: destination.into(), protocol, hops }
}

/// Whether somebody can be answered at an address.
fn is_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(it) if it.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast)
}

fn mac_of(address: RawHardwareAddress) -> Option<Mac> {
    Mac::try_from(address.as_bytes()).ok().filter(|mac| mac[0] & 1 == 0)
}

/// The time for an answer to an MLDv2 query (RFC 3810 §5.1.3).
fn mld_response_ns(code: u16) -> u64 {
    let milliseconds = match code {
        0..0x8000 => u64::from(code),
        _ => (u64::from(code & 0xfff) | 0x1000) << (((code >> 12) & 7) + 3),
    };
    milliseconds * 1_000_000
}
