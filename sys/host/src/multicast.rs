//! Multicast groups: any-source and source-specific, IPv4 (IGMPv3) and IPv6 (MLDv2), by one kernel interface (RFC 3678).

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::socket::set_raw;

/// The network interface to join on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Interface {
    /// The one the routing table names for the group.
    #[default]
    Any,
    /// By number.
    Index(u32),
    /// By name.
    Name(String),
}

/// The address that a socket for a group is bound to. A group of one link or one host (RFC 4291 §2.7, scopes 1 and 2) means
/// nothing without its interface.
///
/// # Errors
///
/// There is no such interface.
pub fn group_address(group: IpAddr, port: u16, interface: &Interface) -> Result<SocketAddr, MulticastError> {
    let IpAddr::V6(v6) = group else { return Ok(SocketAddr::new(group, port)) };
    let is_of_link = v6.is_multicast() && matches!(v6.octets()[1] & 0xf, 1 | 2);
    let scope = if is_of_link { interface.index()? } else { 0 };
    Ok(SocketAddrV6::new(v6, port, 0, scope).into())
}

impl Interface {
    /// Its number; 0 leaves the choice to the routing table.
    fn index(&self) -> Result<u32, MulticastError> {
        match self {
            Self::Any => Ok(0),
            Self::Index(index) => Ok(*index),
            Self::Name(name) => Socket::new(Domain::IPV4, Type::DGRAM, None)
                .ok()
                .and_then(|socket| rustix::net::netdevice::name_to_index(socket, name).ok())
                .ok_or_else(|| MulticastError::NoInterface(name.clone())),
        }
    }
}

/// A group a socket takes part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group's address.
    pub group: IpAddr,
    /// Take datagrams of this sender only.
    pub source: Option<IpAddr>,
    /// On which interface.
    pub interface: Interface,
}

/// Why a group could not be joined or left.
#[derive(Debug, thiserror::Error)]
pub enum MulticastError {
    /// The address is no multicast address.
    #[error("{0} is not a multicast group")]
    NotAGroup(IpAddr),
    /// Group and source are of different IP versions.
    #[error("group {group} and source {source_address} are of different IP versions")]
    MixedVersions {
        /// The group.
        group: IpAddr,
        /// The source.
        source_address: IpAddr,
    },
    /// There is no such interface.
    #[error("there is no network interface {0}")]
    NoInterface(String),
    /// The kernel refused.
    #[error("cannot {what} multicast group {group}: {error}")]
    System {
        /// `join`, `leave` or `block a source of`.
        what: &'static str,
        /// The group.
        group: IpAddr,
        /// The kernel's answer: `ENODEV` without a route to the group, `ENOBUFS` beyond
        /// `net.ipv4.igmp_max_memberships`, and for sources beyond `net.ipv4.igmp_max_msf` and `net.ipv6.mld_max_msf`, `EADDRINUSE` if joined already.
        error: io::Error,
    },
}

impl Membership {
    /// Joins the group with `socket`, which is to be bound to the group's port. It is left when the socket is closed.
    ///
    /// # Errors
    ///
    /// See [`MulticastError`].
    pub fn join(&self, socket: impl AsFd) -> Result<(), MulticastError> {
        let option = match self.source {
            None => libc::MCAST_JOIN_GROUP,
            Some(_) => libc::MCAST_JOIN_SOURCE_GROUP,
        };
        self.change(socket, option, "join")
    }

    /// Leaves the group.
    ///
    /// # Errors
    ///
    /// See [`MulticastError`].
    pub fn leave(&self, socket: impl AsFd) -> Result<(), MulticastError> {
        let option = match self.source {
            None => libc::MCAST_LEAVE_GROUP,
            Some(_) => libc::MCAST_LEAVE_SOURCE_GROUP,
        };
        self.change(socket, option, "leave")
    }

    /// Takes no datagrams of the membership's source any more, of a group that was joined without one.
    ///
    /// # Errors
    ///
    /// See [`MulticastError`].
    ///
    /// # Panics
    ///
    /// If the membership names no source.
    pub fn block(&self, socket: impl AsFd) -> Result<(), MulticastError> {
        assert!(self.source.is_some(), "somebody is to be blocked");
        self.change(socket, libc::MCAST_BLOCK_SOURCE, "block a source of")
    }

    fn change(&self, socket: impl AsFd, option: i32, what: &'static str) -> Result<(), MulticastError> {
        let group = self.group;
        if !group.is_multicast() {
            return Err(MulticastError::NotAGroup(group));
        }
        let level = match group {
            IpAddr::V4(_) => libc::IPPROTO_IP,
            IpAddr::V6(_) => libc::IPPROTO_IPV6,
        };
        let interface = self.interface.index()?;
        let changed = match self.source {
            None => {
                // SAFETY: plain data, for which all zeroes is a value; the padding is then initialised too.
                let mut request: libc::group_req = unsafe { std::mem::zeroed() };
                request.gr_interface = interface;
                request.gr_group = storage(group);
                // SAFETY: what the kernel takes for `MCAST_JOIN_GROUP` and `MCAST_LEAVE_GROUP`; no pointers in it.
                unsafe { set_raw(socket.as_fd(), level, option, &request) }
            }
            Some(source) => {
                if source.is_ipv4() != group.is_ipv4() {
                    return Err(MulticastError::MixedVersions { group, source_address: source });
                }
                // SAFETY: plain data, for which all zeroes is a value; the padding is then initialised too.
                let mut request: libc::group_source_req = unsafe { std::mem::zeroed() };
                request.gsr_interface = interface;
                request.gsr_group = storage(group);
                request.gsr_source = storage(source);
                // SAFETY: what the kernel takes for `MCAST_JOIN_SOURCE_GROUP`, `…_LEAVE_…` and `MCAST_BLOCK_SOURCE`; no pointers
                // in it.
                unsafe { set_raw(socket.as_fd(), level, option, &request) }
            }
        };
        changed.map_err(|error| MulticastError::System { what, group, error })
    }
}

fn storage(address: IpAddr) -> libc::sockaddr_storage {
    let name = SockAddr::from(SocketAddr::new(address, 0));
    // SAFETY: plain data, for which all zeroes is a value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: a socket address of `len` bytes, which never are more than a `sockaddr_storage` has; the two do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(name.as_ptr().cast::<u8>(), (&raw mut storage).cast::<u8>(), name.len() as usize);
    }
    storage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{UdpSocketOptions, udp_socket};
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::Duration;

    fn receiver() -> (UdpSocket, u16) {
        let bind = "0.0.0.0:0".parse().unwrap();
        let (socket, granted) = udp_socket(&UdpSocketOptions::new(bind)).unwrap();
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        (socket, granted.local.port())
    }

    /// A socket that sends multicast on the loopback interface.
    fn sender() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&socket).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        socket
    }

    fn heard(socket: &UdpSocket) -> Option<Vec<u8>> {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    }

    fn membership(group: &str, source: Option<&str>) -> Membership {
        Membership {
            group: group.parse().unwrap(),
            source: source.map(|source| source.parse().unwrap()),
            interface: Interface::Name("lo".into()),
        }
    }

    #[test]
    fn a_group_is_heard_between_joining_and_leaving() {
        let (socket, port) = receiver();
        let member = membership("239.77.1.1", None);
        let to = (Ipv4Addr::new(239, 77, 1, 1), port);
        let sender = sender();
        member.join(&socket).unwrap();
        sender.send_to(b"joined", to).unwrap();
        assert_eq!(heard(&socket).as_deref(), Some(&b"joined"[..]));
        member.leave(&socket).unwrap();
        sender.send_to(b"left", to).unwrap();
        assert_eq!(heard(&socket), None);
    }

    #[test]
    fn only_the_source_asked_for_is_heard() {
        let (socket, port) = receiver();
        let to = (Ipv4Addr::new(232, 77, 1, 2), port);
        let sender = sender();
        let other = membership("232.77.1.2", Some("127.0.0.9"));
        other.join(&socket).unwrap();
        sender.send_to(b"stranger", to).unwrap();
        assert_eq!(heard(&socket), None);
        membership("232.77.1.2", Some("127.0.0.1")).join(&socket).unwrap();
        sender.send_to(b"known", to).unwrap();
        assert_eq!(heard(&socket).as_deref(), Some(&b"known"[..]));
        other.leave(&socket).unwrap();
    }

    #[test]
    fn all_but_the_blocked_source_are_heard() {
        let (socket, port) = receiver();
        let to = (Ipv4Addr::new(239, 77, 1, 4), port);
        membership("239.77.1.4", None).join(&socket).unwrap();
        membership("239.77.1.4", Some("127.0.0.9")).block(&socket).unwrap();
        let blocked = UdpSocket::bind("127.0.0.9:0").unwrap();
        socket2::SockRef::from(&blocked).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        blocked.send_to(b"blocked", to).unwrap();
        sender().send_to(b"heard", to).unwrap();
        assert_eq!(heard(&socket).as_deref(), Some(&b"heard"[..]));
        membership("239.77.1.4", Some("127.0.0.1")).block(&socket).unwrap();
        sender().send_to(b"blocked too", to).unwrap();
        assert_eq!(heard(&socket), None);
    }

    #[test]
    fn a_group_joined_by_another_socket_is_not_heard() {
        let bind = "0.0.0.0:0".parse().unwrap();
        let shared = UdpSocketOptions { reuse_port: true, ..UdpSocketOptions::new(bind) };
        let (member, granted) = udp_socket(&shared).unwrap();
        membership("239.77.1.3", None).join(&member).unwrap();
        let (bystander, _) = udp_socket(&UdpSocketOptions { bind: granted.local, ..shared }).unwrap();
        let bystander = UdpSocket::from(bystander);
        bystander.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let to = (Ipv4Addr::new(239, 77, 1, 3), granted.local.port());
        sender().send_to(b"x", to).unwrap();
        assert_eq!(heard(&bystander), None);
        assert_eq!(heard(&UdpSocket::from(member)).as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn an_ipv6_group_is_joined_and_left() {
        let bind = "[::]:0".parse().unwrap();
        let (socket, _) = udp_socket(&UdpSocketOptions::new(bind)).unwrap();
        for source in [None, Some("::1")] {
            let member = membership("ff15::7701", source);
            member.join(&socket).unwrap();
            member.leave(&socket).unwrap();
        }
        assert!(membership("ff15::7701", None).leave(&socket).is_err());
    }

    #[test]
    fn only_a_group_of_the_link_is_bound_together_with_its_interface() {
        let lo = Interface::Name("lo".into());
        let bound =
            |group: &str, interface| group_address(group.parse().unwrap(), 5004, interface).unwrap().to_string();
        assert_eq!(bound("ff12::1", &lo), "[ff12::1%1]:5004");
        assert_eq!(bound("ff15::1", &lo), "[ff15::1]:5004");
        assert_eq!(bound("239.1.1.1", &lo), "239.1.1.1:5004");
        assert_eq!(bound("ff12::1", &Interface::Any), "[ff12::1]:5004");
        assert!(group_address("ff12::1".parse().unwrap(), 1, &Interface::Name("no-such-if".into())).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (socket, _) = receiver();
        assert!(matches!(membership("192.0.2.1", None).join(&socket), Err(MulticastError::NotAGroup(_))));
        assert!(matches!(
            membership("239.1.1.1", Some("::1")).join(&socket),
            Err(MulticastError::MixedVersions { .. })
        ));
        let nowhere = Membership { interface: Interface::Name("no-such-if".into()), ..membership("239.1.1.1", None) };
        assert!(matches!(
            nowhere.join(&socket),
            Err(MulticastError::NoInterface(name)) if name == "no-such-if"
        ));
    }
}
