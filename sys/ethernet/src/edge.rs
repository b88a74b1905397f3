//! The edge of a host: what comes in by a link, and what goes out.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::frame::{
    self, ALL_HOSTS, ALL_NODES, Datagram, ETHERNET, Fault, HOP_BY_HOP, IPV4, IPV6, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
    PROTOCOL_IGMP, PROTOCOL_UDP, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, UDP, ipv6_at, u16_at,
};
use crate::groups::{GROUPS_MAX, Groups, Sources};
use crate::neighbours::Neighbours;
use crate::write::{Link, Mac, TAG, TYPE_TAG, group_mac, link_local, solicited_node, subnet_broadcast};

const PROTOCOL_FRAGMENT: u8 = 44;
/// Answers that wait to be sent; what is asked beyond is not answered.
const ANSWERS_MAX: usize = 256;
/// Of these, what echo replies may take: whoever sends pings without end must not keep ARP and reports from being answered.
const ECHOES_MAX: usize = ANSWERS_MAX / 2;
/// Between two looks at what is overdue.
const LOOK_NS: u64 = 20_000_000;

/// Who this host is on its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeOptions {
    /// The card's Ethernet address.
    pub mac: [u8; 6],
    /// Own addresses and the lengths of their prefixes. Beside IPv6 ones stands that of the link, which follows from `mac`.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Who forwards what is for no prefix of ours, one for each version.
    pub gateways: Vec<IpAddr>,
    /// The VLAN that all of this is in; none: frames have no tag.
    pub vlan: Option<u16>,
    /// Bytes of a packet that is sent, at most.
    pub mtu: usize,
    /// What peers of link-local addresses have for a scope.
    pub interface: u32,
}

/// Why there is no such host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError {
    /// None at all.
    #[error("there is no address")]
    NoAddress,
    /// No host can have it.
    #[error("{0}/{1} is no address of a host in its prefix")]
    Address(IpAddr, u8),
    /// It could not be asked for its Ethernet address.
    #[error("gateway {0} is in the prefix of no address")]
    Gateway(IpAddr),
    /// No number of a VLAN.
    #[error("a VLAN has a number from 1 to 4094, not {0}")]
    Vlan(u16),
    /// More than are kept.
    #[error("more than {GROUPS_MAX} multicast groups")]
    Groups,
}

/// A datagram to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The source address, if it is not for the edge to choose.
    pub local: Option<IpAddr>,
    /// The source port.
    pub port: u16,
    /// To whom.
    pub to: SocketAddr,
    /// What.
    pub payload: &'a [u8],
}

/// What became of a datagram that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It stands in the frame, which has so many bytes.
    Frame(usize),
    /// It waits until its next hop's Ethernet address is known, and then comes out of [`Edge::poll_transmit`].
    Waits,
}

/// Why a datagram is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No way to the peer, or from the source address.
    Unreachable,
    /// To a broadcast address.
    Denied,
    /// Longer than a packet may be.
    TooLong,
}

/// What has been counted: every frame that came in is in `datagrams`, in `served`, or dropped for one of the reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EdgeStatistics {
    /// UDP datagrams for us.
    pub datagrams: u64,
    /// ARP, ICMP, neighbour discovery, IGMP and MLD, as far as they were for us and sound.
    pub served: u64,
    /// Echo requests answered, both versions.
    pub echoes: u64,
    /// Dropped: cut short, contradicting themselves, or with IP options where none are read.
    pub malformed: u64,
    /// Dropped: a wrong checksum.
    pub checksum: u64,
    /// Dropped: from an address that no host has.
    pub source: u64,
    /// Dropped: parts of a packet, which are not put together here.
    pub fragments: u64,
    /// Dropped: for another host, another group, or a broadcast.
    pub not_ours: u64,
    /// Dropped: of another VLAN, or with a tag where none is expected.
    pub other_vlan: u64,
    /// Dropped: neither ARP nor IP, or nothing that is spoken here.
    pub other_protocol: u64,
    /// Somebody else says that he has an address of ours, or wants it.
    pub conflicts: u64,
    /// Questions of others not answered, because too many answers wait.
    pub unanswered: u64,
    /// Datagrams that waited for a next hop which did not answer, or among too many.
    pub given_up: u64,
}

impl EdgeStatistics {
    /// Frames that have come in.
    pub fn frames(&self) -> u64 {
        let Self { datagrams, served, malformed, checksum, source, .. } = self;
        let Self { fragments, not_ours, other_vlan, other_protocol, .. } = self;
        datagrams + served + malformed + checksum + source + fragments + not_ours + other_vlan + other_protocol
    }
}

/// Somebody else on the link says that he has an address of ours, or asks whether he may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// His Ethernet address.
    pub other_mac: [u8; 6],
    /// Ours.
    pub own_mac: [u8; 6],
}

/// A frame to be sent.
pub(crate) struct Answer {
    pub(crate) frame: Vec<u8>,
    /// It is a datagram that has waited, and no answer.
    is_datagram: bool,
}

/// The machine.
pub struct Edge {
    pub(crate) link: Link,
    addresses: Vec<(IpAddr, u8)>,
    gateways: Vec<IpAddr>,
    mtu: usize,
    interface: u32,
    pub(crate) neighbours: Neighbours,
    pub(crate) groups: Groups,
    answers: VecDeque<Answer>,
    looked_ns: u64,
    /// The newest that has not been told of.
    conflict: Option<Conflict>,
    pub(crate) counted: EdgeStatistics,
}

impl Edge {
    /// The host comes up: it tells its link of its addresses.
    ///
    /// # Errors
    ///
    /// See [`EdgeError`].
    pub fn new(now_ns: u64, options: EdgeOptions) -> Result<Self, EdgeError> {
        let EdgeOptions { mac, mut addresses, gateways, vlan, mtu, interface } = options;
        if addresses.is_empty() {
            return Err(EdgeError::NoAddress);
        }
        if let Some(vlan) = vlan.filter(|vlan| !(1..=4_094).contains(vlan)) {
            return Err(EdgeError::Vlan(vlan));
        }
        if let Some((address, prefix)) = addresses.iter().find(|(address, prefix)| !is_of_host(*address, *prefix)) {
            return Err(EdgeError::Address(*address, *prefix));
        }
        let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(it) if it.is_unicast_link_local());
        if addresses.iter().any(|(it, _)| it.is_ipv6()) && !addresses.iter().any(|(it, _)| is_link_local(it)) {
            addresses.push((link_local(mac).into(), 64));
        }
        let is_on_link = |gateway: &&IpAddr| addresses.iter().any(|(own, prefix)| is_in(**gateway, *own, *prefix));
        if let Some(gateway) = gateways.iter().find(|it| !is_on_link(it)) {
            return Err(EdgeError::Gateway(*gateway));
        }
        let [a, b, c, d, e, f] = mac;
        let mut edge = Self {
            link: Link { own: mac, vlan },
            addresses,
            gateways,
            mtu,
            interface,
            neighbours: Neighbours::default(),
            groups: Groups::new(u64::from_be_bytes([0, 0, a, b, c, d, e, f])),
            answers: VecDeque::new(),
            looked_ns: now_ns,
            conflict: None,
            counted: EdgeStatistics::default(),
        };
        let own: Vec<IpAddr> = edge.addresses.iter().map(|(address, _)| *address).collect();
        for address in own {
            if let IpAddr::V6(address) = address {
                edge.join(now_ns, solicited_node(address).into(), Sources::Any)?;
            }
            edge.announce(address);
        }
        Ok(edge)
    }

    /// Takes part in a multicast group. Of several wishes for one group comes what brings all of them.
    ///
    /// # Errors
    ///
    /// [`EdgeError::Groups`].
    pub fn join(&mut self, now_ns: u64, group: IpAddr, sources: Sources) -> Result<(), EdgeError> {
        if self.groups.join(now_ns, group, sources) { Ok(()) } else { Err(EdgeError::Groups) }
    }

    /// Ethernet addresses of the groups, for a card that looks at them.
    pub fn group_macs(&self) -> Vec<[u8; 6]> {
        let all = [ALL_HOSTS.into(), ALL_NODES.into()].into_iter().chain(self.groups.addresses());
        let mut macs: Vec<Mac> = all.map(group_mac).collect();
        macs.sort_unstable();
        macs.dedup();
        macs
    }

    /// Takes a frame that has come in: the datagram in it, if that is for us; everything else is served or counted.
    #[inline]
    pub fn receive(&mut self, now_ns: u64, frame: &[u8]) -> Option<Datagram> {
        match self.judge(now_ns, frame) {
            Ok(Some(datagram)) => {
                self.counted.datagrams += 1;
                Some(datagram)
            }
            Ok(None) => {
                self.counted.served += 1;
                None
            }
            Err(drop) => {
                *drop.counter(&mut self.counted) += 1;
                None
            }
        }
    }

    /// Writes a datagram into a frame, which has room for the longest packet and a header with a tag. One that has no way yet is
    /// kept.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    #[inline]
    pub fn send(&mut self, now_ns: u64, outgoing: Outgoing<'_>, frame: &mut [u8]) -> Result<Sent, Refusal> {
        let Outgoing { local, port, to, payload } = outgoing;
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let header = if to.is_ipv4() { IPV4 } else { IPV6 };
        if header + UDP + payload.len() > self.mtu {
            return Err(Refusal::TooLong);
        }
        let source = self.source_for(to.ip(), local.map(|it| it.to_canonical())).ok_or(Refusal::Unreachable)?;
        let from = SocketAddr::new(source, port);
        if to.ip().is_multicast() {
            return Ok(Sent::Frame(self.link.write_datagram(frame, group_mac(to.ip()), from, to, payload)));
        }
        if self.is_broadcast(to.ip()) {
            return Err(Refusal::Denied);
        }
        let next_hop = self.next_hop(to.ip()).ok_or(Refusal::Unreachable)?;
        let known = self.neighbours.look_up(now_ns, next_hop);
        let length = self.link.write_datagram(frame, known.unwrap_or_default(), from, to, payload);
        if known.is_none() {
            self.neighbours.wait(next_hop, frame[..length].to_vec());
            self.ask();
            return Ok(Sent::Waits);
        }
        Ok(Sent::Frame(length))
    }

    /// The next frame that is to be sent, and whether it is a datagram that has waited.
    pub fn poll_transmit(&mut self) -> Option<(Vec<u8>, bool)> {
        if let Some(Answer { frame, is_datagram }) = self.answers.pop_front() {
            return Some((frame, is_datagram));
        }
        self.neighbours.poll_frame().map(|frame| (frame, true))
    }

    /// The newest conflict since the last call, if there was one; [`EdgeStatistics::conflicts`] counts all of them.
    pub fn poll_conflict(&mut self) -> Option<Conflict> {
        self.conflict.take()
    }

    /// Does what is due: questions are repeated, groups reported.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        if now_ns < self.looked_ns + LOOK_NS {
            return;
        }
        self.looked_ns = now_ns;
        self.neighbours.handle_timeout(now_ns);
        self.ask();
        self.report(now_ns);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn next_timeout(&self) -> Option<u64> {
        let due = self.neighbours.next_timeout().into_iter().chain(self.groups.next_timeout()).min()?;
        Some(due.max(self.looked_ns + LOOK_NS))
    }

    /// What has been counted so far.
    pub fn statistics(&self) -> EdgeStatistics {
        EdgeStatistics { given_up: self.neighbours.given_up, ..self.counted }
    }

    fn judge(&mut self, now_ns: u64, frame: &[u8]) -> Result<Option<Datagram>, Drop> {
        if frame.len() < ETHERNET + TAG {
            return Err(Drop::Malformed);
        }
        let (to, from) = (mac_at(frame, 0), mac_at(frame, 6));
        let is_group = to[0] & 1 != 0;
        if !is_group && to != self.link.own {
            return Err(Drop::NotOurs);
        }
        if from[0] & 1 != 0 {
            return Err(Drop::Source);
        }
        let (mut start, mut ether_type, mut vlan) = (ETHERNET, u16_at(frame, 12), None);
        if ether_type == TYPE_TAG {
            // A tag without a number only tells of a priority.
            vlan = Some(u16_at(frame, 14) & 0xfff).filter(|vlan| *vlan != 0);
            (start, ether_type) = (ETHERNET + TAG, u16_at(frame, 16));
        }
        if vlan != self.link.vlan {
            return Err(Drop::OtherVlan);
        }
        match ether_type {
            TYPE_IPV4 => self.judge_ipv4(now_ns, frame, start, from),
            TYPE_IPV6 => self.judge_ipv6(now_ns, frame, start, from),
            TYPE_ARP => self.serve_arp(now_ns, &frame[start..]).map(|()| None),
            _ => Err(Drop::OtherProtocol),
        }
    }

    fn judge_ipv4(&mut self, now_ns: u64, frame: &[u8], start: usize, from: Mac) -> Result<Option<Datagram>, Drop> {
        let packet = &frame[start..];
        if packet.len() < IPV4 {
            return Err(Drop::Malformed);
        }
        let destination = IpAddr::from([packet[16], packet[17], packet[18], packet[19]]);
        let is_for_all = destination == ALL_HOSTS || self.groups.has(destination);
        if !is_for_all && !self.is_own(destination) {
            return Err(Drop::NotOurs);
        }
        if u16_at(packet, 6) & 0x3fff != 0 {
            return Err(Drop::Fragment);
        }
        match packet[9] {
            PROTOCOL_UDP => self.datagram(frame, start, TYPE_IPV4),
            PROTOCOL_ICMP if !is_for_all => self.serve_icmp(packet, from).map(|()| None),
            PROTOCOL_IGMP if is_for_all && frame[0] & 1 != 0 => self.serve_igmp(now_ns, packet).map(|()| None),
            _ => Err(Drop::OtherProtocol),
        }
    }

    fn judge_ipv6(&mut self, now_ns: u64, frame: &[u8], start: usize, from: Mac) -> Result<Option<Datagram>, Drop> {
        let packet = &frame[start..];
        if packet.len() < IPV6 {
            return Err(Drop::Malformed);
        }
        let destination = IpAddr::from(ipv6_at(packet, 24));
        if destination != ALL_NODES && !self.groups.has(destination) && !self.is_own(destination) {
            return Err(Drop::NotOurs);
        }
        match packet[6] {
            PROTOCOL_UDP => self.datagram(frame, start, TYPE_IPV6),
            PROTOCOL_ICMPV6 | HOP_BY_HOP => self.serve_icmpv6(now_ns, packet, from).map(|()| None),
            PROTOCOL_FRAGMENT => Err(Drop::Fragment),
            _ => Err(Drop::OtherProtocol),
        }
    }

    fn datagram(&self, frame: &[u8], start: usize, ether_type: u16) -> Result<Option<Datagram>, Drop> {
        match frame::parse_packet(frame, start, ether_type, self.interface) {
            Ok(datagram) => Ok(Some(datagram)),
            Err(Fault::Malformed) => Err(Drop::Malformed),
            Err(Fault::Checksum) => Err(Drop::Checksum),
            Err(Fault::Source) => Err(Drop::Source),
        }
    }

    /// Keeps an answer to be sent.
    pub(crate) fn answer(&mut self, frame: Vec<u8>) {
        if self.answers.len() >= ANSWERS_MAX {
            self.counted.unanswered += 1;
        } else {
            self.answers.push_back(Answer { frame, is_datagram: false });
        }
    }

    /// Whether an echo request is to be answered. It is counted either way.
    pub(crate) fn takes_echo(&mut self) -> bool {
        let has_room = self.answers.len() < ECHOES_MAX;
        *(if has_room { &mut self.counted.echoes } else { &mut self.counted.unanswered }) += 1;
        has_room
    }

    /// Somebody has an address of ours, or wants it. Who has our Ethernet address too cannot be told from ourselves, whom a loop of the
    /// link brings back.
    pub(crate) fn conflict(&mut self, address: IpAddr, other_mac: Mac) {
        let own_mac = self.link.own;
        if other_mac != own_mac {
            self.counted.conflicts += 1;
            self.conflict = Some(Conflict { address, other_mac, own_mac });
        }
    }

    /// Whether an address is one of ours.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(own, _)| *own == address)
    }

    /// Whether an address is reached without a gateway.
    pub(crate) fn is_on_link(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(own, prefix)| is_in(address, *own, *prefix))
    }

    fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let of_subnet = |own: &(IpAddr, u8)| match own {
            (IpAddr::V4(own), prefix) => subnet_broadcast(*own, *prefix) == Some(address),
            _ => false,
        };
        address.is_broadcast() || self.addresses.iter().any(of_subnet)
    }

    fn next_hop(&self, to: IpAddr) -> Option<IpAddr> {
        if to.is_unspecified() || to.is_loopback() || self.is_own(to) {
            return None;
        }
        if self.is_on_link(to) {
            return Some(to);
        }
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == to.is_ipv4())
    }

    /// The address that something to `to` comes from: `wanted` if it is ours, else the first one of that link, or of that version.
    pub(crate) fn source_for(&self, to: IpAddr, wanted: Option<IpAddr>) -> Option<IpAddr> {
        if let Some(wanted) = wanted {
            return (self.is_own(wanted) && wanted.is_ipv4() == to.is_ipv4()).then_some(wanted);
        }
        let of_link = self.addresses.iter().find(|(own, prefix)| is_in(to, *own, *prefix));
        let of_version = || self.addresses.iter().find(|(own, _)| own.is_ipv4() == to.is_ipv4());
        of_link.or_else(of_version).map(|(own, _)| *own)
    }

    /// The own IPv6 address of the link; the one that the card would have, where there is no IPv6.
    pub(crate) fn link_local(&self) -> Ipv6Addr {
        let own = self.addresses.iter().find_map(|(own, _)| match own {
            IpAddr::V6(own) if own.is_unicast_link_local() => Some(*own),
            _ => None,
        });
        own.unwrap_or_else(|| link_local(self.link.own))
    }
}

/// Why a frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drop {
    Malformed,
    Checksum,
    Source,
    Fragment,
    NotOurs,
    OtherVlan,
    OtherProtocol,
}

impl Drop {
    fn counter(self, counted: &mut EdgeStatistics) -> &mut u64 {
        match self {
            Self::Malformed => &mut counted.malformed,
            Self::Checksum => &mut counted.checksum,
            Self::Source => &mut counted.source,
            Self::Fragment => &mut counted.fragments,
            Self::NotOurs => &mut counted.not_ours,
            Self::OtherVlan => &mut counted.other_vlan,
            Self::OtherProtocol => &mut counted.other_protocol,
        }
    }
}

fn mac_at(frame: &[u8], at: usize) -> Mac {
    [frame[at], frame[at + 1], frame[at + 2], frame[at + 3], frame[at + 4], frame[at + 5]]
}

/// Whether an address is in the prefix of another.
fn is_in(address: IpAddr, own: IpAddr, prefix: u8) -> bool {
    let differ = match (address, own) {
        (IpAddr::V4(address), IpAddr::V4(own)) => u128::from(u32::from(address) ^ u32::from(own)) << 96,
        (IpAddr::V6(address), IpAddr::V6(own)) => u128::from(address) ^ u128::from(own),
        _ => return false,
    };
    differ.leading_zeros() >= u32::from(prefix)
}

/// Whether a host can have an address, with a prefix of that length.
fn is_of_host(address: IpAddr, prefix: u8) -> bool {
    let is_any = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    match address {
        IpAddr::V4(it) => {
            !is_any && (1..=32).contains(&prefix) && !it.is_broadcast() && subnet_broadcast(it, prefix) != Some(it)
        }
        IpAddr::V6(it) => !is_any && (1..=128).contains(&prefix) && it.to_ipv4_mapped().is_none(),
    }
}

#[cfg(test)]
mod tests;
