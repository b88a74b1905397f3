//! What hosts and routers of a link say to each other beside datagrams: ARP, ICMP, neighbour discovery, IGMP, MLD.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Message, Icmpv6Packet,
    Icmpv6Repr, IgmpPacket, IgmpRepr, IgmpVersion, Ipv4Packet, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use crate::edge::{Drop, Edge};
use crate::frame::{
    ALL_HOSTS, ALL_NODES, HOP_BY_HOP, IPV4, IPV6, PROTOCOL_ICMP, PROTOCOL_ICMPV6, TYPE_ARP, ipv6_at, u16_at,
};
use crate::neighbours::Advertised;
use crate::write::{HOPS, Header, Mac, group_mac, solicited_node};

const BROADCAST: Mac = [0xff; 6];
/// Bytes of what every message of ICMPv6 begins with.
const ICMPV6: usize = 4;
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
            self.conflict(sender, mac.0);
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

    /// IGMP: a query is answered in its time (RFC 3376 §5.2, §7.1). One that may have been forged from afar is none: it must be of
    /// this link, have a TTL of 1 (RFC 3376 §4) and from IGMPv2 on the option that makes routers look, and ask for all groups at the
    /// address of all hosts alone (RFC 3376 §9.1).
    ///
    /// Two queriers are forgiven what they lack: one of IGMPv1 the option, which is younger than that version; and a switch that
    /// stands in for a router its address (RFC 4541 §2.1.1), for it may have none. One of IGMPv2 or IGMPv3 without the option is not,
    /// nor one that asks us alone, though RFC 3376 §4.1.12 would have that answered: nobody asks so but for trying it out.
    pub(crate) fn serve_igmp(&mut self, now_ns: u64, bytes: &[u8]) -> Result<(), Drop> {
        const LENGTH_V2: usize = 8;
        const LENGTH_V3: usize = 12;
        let packet = Ipv4Packet::new_checked(bytes).map_err(|_| Drop::Malformed)?;
        let options = bytes.get(IPV4..usize::from(packet.header_len())).ok_or(Drop::Malformed)?;
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
        match IgmpRepr::parse(&igmp).map_err(|_| Drop::OtherProtocol)? {
            IgmpRepr::MembershipQuery { max_resp_time, group_addr, version } => {
                let is_v3 = match packet.payload().len() {
                    LENGTH_V2 => false,
                    LENGTH_V3.. => true,
                    _ => return Err(Drop::Malformed),
                };
                let is_v1 = version == IgmpVersion::Version1 && !is_v3;
                let is_general = group_addr.is_unspecified();
                if !is_v1 && !has_router_alert(options) || is_general && packet.dst_addr() != ALL_HOSTS {
                    return Err(Drop::OtherProtocol);
                }
                // Of IGMPv2 it is the general query alone that shows it (RFC 3376 §7.2.1).
                if is_v1 || !is_v3 && is_general {
                    self.groups.has_old_querier(now_ns);
                }
                let within_ns = if is_v1 { IGMPV1_RESPONSE_NS } else { max_resp_time.total_micros() * 1_000 };
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
        let (mut next, mut at, mut has_alert) = (packet[6], IPV6, false);
        if total > packet.len() {
            return Err(Drop::Malformed);
        }
        if next == HOP_BY_HOP {
            let header = packet.get(at..at + 2).ok_or(Drop::Malformed)?;
            let behind = at + (usize::from(header[1]) + 1) * 8;
            has_alert = has_mld_alert(packet.get(at + 2..behind).ok_or(Drop::Malformed)?)?;
            (next, at) = (header[0], behind);
        }
        if next != PROTOCOL_ICMPV6 {
            return Err(Drop::OtherProtocol);
        }
        let body = packet.get(at..total).filter(|body| body.len() >= ICMPV6).ok_or(Drop::Malformed)?;
        let (source, destination) = (ipv6_at(packet, 8), ipv6_at(packet, 24));
        let icmp = Icmpv6Packet::new_unchecked(body);
        if !icmp.verify_checksum(&source, &destination) {
            return Err(Drop::Checksum);
        }
        let hops = packet[7];
        if icmp.msg_type() == Icmpv6Message::MldQuery {
            if hops != 1 || !has_alert {
                return Err(Drop::OtherProtocol);
            }
            return self.serve_mld_query(now_ns, source, body);
        }
        icmp.check_len().map_err(|_| Drop::Malformed)?;
        let checksums = ChecksumCapabilities::default();
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
            _ => Err(Drop::OtherProtocol),
        }
    }

    /// A query of MLD, with a hop limit of 1 and the option that makes routers look (RFC 3810 §6.2, RFC 2710 §3), is answered in its
    /// time if it comes from this link (RFC 3810 §5.1.14).
    fn serve_mld_query(&mut self, now_ns: u64, source: Ipv6Addr, body: &[u8]) -> Result<(), Drop> {
        const LENGTH_V1: usize = 24;
        const LENGTH_V2: usize = 28;
        if !source.is_unicast_link_local() {
            return Err(Drop::Source);
        }
        // The length tells the version (RFC 3810 §8.1).
        let within_ns = match body.len() {
            LENGTH_V1 => u64::from(u16_at(body, 4)) * 1_000_000,
            LENGTH_V2.. => mld_response_ns(u16_at(body, 4)),
            _ => return Err(Drop::Malformed),
        };
        self.groups.queried(now_ns, ipv6_at(body, 8).into(), within_ns);
        Ok(())
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
                    self.conflict(target_addr.into(), from);
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
                    self.conflict(target_addr.into(), mac.unwrap_or(from));
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

/// Whether IPv4 options make routers look (RFC 2113 §2.1).
fn has_router_alert(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    loop {
        match options {
            [] | [END, ..] => return false,
            [0x94, 4, 0, 0, ..] => return true,
            [NOTHING, rest @ ..] => options = rest,
            [_, length, ..] if *length >= 2 => options = options.get(usize::from(*length)..).unwrap_or_default(),
            _ => return false,
        }
    }
}

/// Whether options of a hop-by-hop header make routers look for the sake of MLD (RFC 2711 §2.1). Those that nobody knows are passed over
/// only if they say so (RFC 8200 §4.2).
fn has_mld_alert(mut options: &[u8]) -> Result<bool, Drop> {
    const PAD_1: u8 = 0;
    const ROUTER_ALERT: u8 = 5;
    let mut has_alert = false;
    while let [kind, rest @ ..] = options {
        if *kind == PAD_1 {
            options = rest;
            continue;
        }
        let [length, rest @ ..] = rest else { return Err(Drop::Malformed) };
        let (value, rest) = rest.split_at_checked(usize::from(*length)).ok_or(Drop::Malformed)?;
        if *kind == ROUTER_ALERT {
            has_alert |= value == [0, 0];
        } else if kind >> 6 != 0 {
            return Err(Drop::OtherProtocol);
        }
        options = rest;
    }
    Ok(has_alert)
}

/// The time for an answer to an MLDv2 query (RFC 3810 §5.1.3).
fn mld_response_ns(code: u16) -> u64 {
    let milliseconds = match code {
        0..0x8000 => u64::from(code),
        _ => (u64::from(code & 0xfff) | 0x1000) << (((code >> 12) & 7) + 3),
    };
    milliseconds * 1_000_000
}
