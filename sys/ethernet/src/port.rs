//! A port that datagrams are taken for, past the kernel's sockets.

use std::net::SocketAddr;

use headworks_datagram::Received;
use headworks_packet::Packet;

use crate::frame::Datagram;

/// What a socket would know of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Address and port, the address perhaps unspecified.
    pub local: SocketAddr,
    /// An unspecified IPv6 address is that of IPv4 too.
    pub takes_ipv4: bool,
    /// What its datagrams carry.
    pub token: u32,
    /// They tell the address that they were sent to, and their interface.
    pub wants_packet_info: bool,
    /// They tell when they came.
    pub wants_timestamps: bool,
}

impl Port {
    /// Whether a datagram was sent to this port.
    #[inline]
    pub fn is_for(&self, datagram: &Datagram) -> bool {
        let (own, sent_to) = (self.local.ip().to_canonical(), datagram.local);
        let is_version = if sent_to.is_ipv4() { self.takes_ipv4 } else { self.local.is_ipv6() };
        self.local.port() == datagram.port && is_version && (own.is_unspecified() || own == sent_to)
    }

    /// The datagram, its payload in packet memory, as the kernel would have told of it. `arrival_ns` is of CLOCK_REALTIME.
    #[inline]
    pub fn received(&self, packet: Packet, datagram: &Datagram, interface: u32, arrival_ns: u64) -> Received {
        Received {
            packet,
            token: self.token,
            peer: datagram.peer,
            local_ip: self.wants_packet_info.then_some(datagram.local),
            interface: if self.wants_packet_info { interface } else { 0 },
            timestamp_ns: self.wants_timestamps.then_some(arrival_ns),
            gro_segment: None,
            overflow: None,
            truncated: false,
        }
    }
}
