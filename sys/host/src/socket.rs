//! UDP sockets with everything the packet path wants of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// A socket held by a ring outlives its process by some milliseconds; this is how long a bind is tried again.
const BIND_RETRY: Duration = Duration::from_millis(200);
const BIND_PAUSE: Duration = Duration::from_millis(5);

/// What a socket is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpSocketOptions {
    /// Local address and port.
    pub bind: SocketAddr,
    /// Share the port with other sockets of this process (`SO_REUSEPORT`), see `attach_steering`.
    pub reuse_port: bool,
    /// Bytes of receive buffer to ask for; 0 leaves the system's default.
    pub receive_buffer: usize,
    /// Bytes of send buffer to ask for; 0 leaves the system's default.
    pub send_buffer: usize,
    /// Take aggregates of datagrams (`UDP_GRO`).
    pub gro: bool,
    /// Arrival times by the kernel (`SO_TIMESTAMPNS`).
    pub timestamps: bool,
    /// Local address and interface of each datagram (`IP_PKTINFO`).
    pub packet_info: bool,
    /// Count of datagrams lost because the receive buffer was full (`SO_RXQ_OVFL`).
    pub overflow_count: bool,
    /// DSCP and ECN bits of what is sent (`IP_TOS`, `IPV6_TCLASS`).
    pub tos: Option<u8>,
    /// Time to live of what is sent, unicast and multicast.
    pub ttl: Option<u8>,
    /// Use this network interface only (`SO_BINDTODEVICE`).
    pub bind_device: Option<String>,
    /// An IPv6 socket takes IPv6 only. Without it `[::]` takes IPv4 as well.
    pub v6_only: bool,
    /// Also take groups that other sockets have joined (`IP_MULTICAST_ALL`): never what is wanted, so off.
    pub multicast_all: bool,
}

impl UdpSocketOptions {
    /// A socket for the packet path at `bind`: time stamps, packet info, overflow count; no GRO, own port, system buffers.
    pub fn new(bind: SocketAddr) -> Self {
        Self {
            bind,
            reuse_port: false,
            receive_buffer: 0,
            send_buffer: 0,
            gro: false,
            timestamps: true,
            packet_info: true,
            overflow_count: true,
            tos: None,
            ttl: None,
            bind_device: None,
            v6_only: false,
            multicast_all: false,
        }
    }
}

/// What a socket got of what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Bytes of receive buffer, in the measure of the request (the kernel reserves twice that, for its own book-keeping).
    /// Less than asked for: raise `net.core.rmem_max`, or run with CAP_NET_ADMIN.
    pub receive_buffer: usize,
    /// Bytes of send buffer, likewise (`net.core.wmem_max`).
    pub send_buffer: usize,
    /// The address, with the port the system chose if 0 was asked for.
    pub local: SocketAddr,
}

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody else has the port.
    #[error("UDP {address} is in use by another process (`ss -lunp sport = :{}` tells by which)", address.port())]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The host has no such address.
    #[error("UDP {address}: this host has no such address")]
    NoSuchAddress {
        /// The address.
        address: SocketAddr,
    },
    /// Ports below 1024, a device without permission.
    #[error("UDP {address}: not permitted to {what}")]
    Denied {
        /// The address.
        address: SocketAddr,
        /// What was tried.
        what: &'static str,
    },
    /// An option was refused.
    #[error("UDP {address}: cannot {what}: {error}")]
    System {
        /// The address.
        address: SocketAddr,
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
}

/// Sets an option whose value is a C `int`.
pub(crate) fn set_int(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: an `int` is four bytes without padding.
    unsafe { set_raw(socket, level, option, &value) }
}

/// Sets an option.
///
/// # Safety
///
/// `T` is what the kernel takes for this option: all of its bytes are initialised, and pointers in it are good for the call.
pub(crate) unsafe fn set_raw<T>(socket: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length are those of one live value.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens and binds a UDP socket. It is a blocking one: a ring polls it by itself, and would give up at once on one that is not.
///
/// A port that is in use is tried for 200 ms.
///
/// # Errors
///
/// See [`SocketError`]. Buffers smaller than asked for are no error: see [`Granted`].
pub fn udp_socket(options: &UdpSocketOptions) -> Result<(OwnedFd, Granted), SocketError> {
    let address = options.bind;
    let ipv6 = address.is_ipv6();
    let failed = |what: &'static str| {
        move |error: io::Error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => SocketError::Denied { address, what },
            _ => SocketError::System { address, what, error },
        }
    };
    let socket =
        Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).map_err(failed("open a socket"))?;
    let set = |wanted: bool, what, level, option, value| {
        if !wanted {
            return Ok(());
        }
        set_int(socket.as_fd(), level, option, value).map_err(failed(what))
    };
    if ipv6 {
        socket.set_only_v6(options.v6_only).map_err(failed("choose IP versions"))?;
        set(options.packet_info, "ask for packet info", libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        socket.set_multicast_all_v6(options.multicast_all).map_err(failed("refuse others' multicast groups"))?;
    } else {
        set(options.packet_info, "ask for packet info", libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    // On an IPv6 socket too: it takes IPv4 multicast by mapped addresses.
    set(
        !ipv6 || !options.v6_only,
        "refuse others' multicast groups",
        libc::IPPROTO_IP,
        libc::IP_MULTICAST_ALL,
        i32::from(options.multicast_all),
    )?;
    if options.reuse_port {
        socket.set_reuse_port(true).map_err(failed("share the port"))?;
    }
    set(options.timestamps, "ask for time stamps", libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    set(options.overflow_count, "ask for the overflow count", libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    set(options.gro, "ask for GRO", libc::SOL_UDP, libc::UDP_GRO, 1)?;
    if let Some(tos) = options.tos {
        let what = "set the traffic class";
        set(true, what, libc::IPPROTO_IP, libc::IP_TOS, tos.into())?;
        set(ipv6, what, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, tos.into())?;
    }
    if let Some(ttl) = options.ttl {
        let (what, ttl) = ("set the time to live", ttl.into());
        set(true, what, libc::IPPROTO_IP, libc::IP_TTL, ttl)?;
        set(true, what, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, ttl)?;
        let v6 = libc::IPPROTO_IPV6;
        set(ipv6, what, v6, libc::IPV6_UNICAST_HOPS, ttl)?;
        set(ipv6, what, v6, libc::IPV6_MULTICAST_HOPS, ttl)?;
    }
    if let Some(device) = &options.bind_device {
        socket.bind_device(Some(device.as_bytes())).map_err(failed("bind to the network interface"))?;
    }
    grow_buffers(&socket, options);
    bind_with_retry(&socket, address)?;
    let granted = granted(&socket).map_err(failed("read back the buffer sizes"))?;
    Ok((socket.into(), granted))
}

/// A socket that [`udp_socket`] has opened with the same options in an earlier process: its buffers grow to what is granted now.
/// `None` if it is none, or bound elsewhere.
pub fn adopt_udp_socket(socket: impl AsFd, options: &UdpSocketOptions) -> Option<Granted> {
    let socket = SockRef::from(&socket);
    let is_udp = socket.r#type().ok()? == Type::DGRAM && socket.protocol().ok()? == Some(Protocol::UDP);
    let local = socket.local_addr().ok()?.as_socket()?;
    let is_there = (local.ip(), local.port()) == (options.bind.ip(), options.bind.port());
    if !is_udp || !is_there || socket.reuse_port().ok()? != options.reuse_port {
        return None;
    }
    grow_buffers(&socket, options);
    granted(&socket).ok()
}

/// As root beyond the system's limit, else up to it.
fn grow_buffers(socket: &Socket, options: &UdpSocketOptions) {
    let (receive, send) = (options.receive_buffer, options.send_buffer);
    if receive > 0 && sockopt::set_socket_recv_buffer_size_force(socket, receive).is_err() {
        // Above the limit the kernel grants the limit; what came of it is read back.
        let _ = sockopt::set_socket_recv_buffer_size(socket, receive);
    }
    if send > 0 && sockopt::set_socket_send_buffer_size_force(socket, send).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, send);
    }
}

fn granted(socket: &Socket) -> io::Result<Granted> {
    Ok(Granted {
        receive_buffer: socket.recv_buffer_size()? / 2,
        send_buffer: socket.send_buffer_size()? / 2,
        local: socket.local_addr()?.as_socket().unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
    })
}

fn bind_with_retry(socket: &Socket, address: SocketAddr) -> Result<(), SocketError> {
    let started = Instant::now();
    let name = SockAddr::from(address);
    loop {
        let Err(error) = socket.bind(&name) else {
            return Ok(());
        };
        match error.raw_os_error() {
            Some(libc::EADDRINUSE) if started.elapsed() < BIND_RETRY => {
                std::thread::sleep(BIND_PAUSE);
            }
            Some(libc::EADDRINUSE) => return Err(SocketError::InUse { address }),
            Some(libc::EADDRNOTAVAIL) => return Err(SocketError::NoSuchAddress { address }),
            Some(libc::EPERM | libc::EACCES) => {
                let what = "bind to this port";
                return Err(SocketError::Denied { address, what });
            }
            _ => {
                return Err(SocketError::System { address, what: "bind", error });
            }
        }
    }
}

/// As many sockets as asked for on one port (`SO_REUSEPORT`), in the order in which `attach_steering` counts them, and nobody else's with
/// them: the first is bound while it shares with nobody, and shares only then. A shared bind alone would not notice a second instance,
/// and a probe before it leaves a moment in which two of them probe, see nobody, and share.
///
/// # Errors
///
/// See [`SocketError`].
pub fn shared_udp_sockets(options: &UdpSocketOptions, count: usize) -> Result<Vec<(OwnedFd, Granted)>, SocketError> {
    let (first, granted) = udp_socket(&UdpSocketOptions { reuse_port: false, ..options.clone() })?;
    let address = granted.local;
    SockRef::from(&first).set_reuse_port(true).map_err(|error| SocketError::System {
        address,
        what: "share the port",
        error,
    })?;
    let others = UdpSocketOptions { reuse_port: true, bind: address, ..options.clone() };
    let mut sockets = vec![(first, granted)];
    for _ in 1..count {
        sockets.push(udp_socket(&others)?);
    }
    Ok(sockets)
}

/// Whether nobody has `address`: binds it exclusively, and lets go of it. Who means to have it is to bind it instead: it may be gone
/// the moment after.
///
/// # Errors
///
/// See [`SocketError`].
pub fn probe_exclusive(address: SocketAddr) -> Result<(), SocketError> {
    let options = UdpSocketOptions {
        timestamps: false,
        packet_info: false,
        overflow_count: false,
        ..UdpSocketOptions::new(address)
    };
    udp_socket(&options).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    #[test]
    fn a_socket_says_what_it_was_granted() {
        let (_socket, granted) = udp_socket(&UdpSocketOptions {
            receive_buffer: 300_000,
            send_buffer: 100_000,
            ..UdpSocketOptions::new(local(0))
        })
        .unwrap();
        assert_ne!(granted.local.port(), 0);
        assert!(granted.receive_buffer > 0 && granted.receive_buffer <= 300_000);
        assert!(granted.send_buffer > 0 && granted.send_buffer <= 100_000);
    }

    #[test]
    fn every_option_is_taken_on_both_ip_versions() {
        for bind in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let options = UdpSocketOptions {
                reuse_port: true,
                receive_buffer: 1 << 20,
                send_buffer: 1 << 20,
                gro: true,
                tos: Some(0x88),
                ttl: Some(5),
                bind_device: Some("lo".into()),
                ..UdpSocketOptions::new(bind.parse().unwrap())
            };
            let (socket, _) = udp_socket(&options).unwrap_or_else(|error| panic!("{bind}: {error}"));
            let socket = Socket::from(socket);
            assert_eq!(socket.tos_v4().unwrap(), 0x88);
            assert!(socket.reuse_port().unwrap());
            assert!(!socket.multicast_all_v4().unwrap());
            assert_eq!(socket.device().unwrap().unwrap(), b"lo");
        }
    }

    #[test]
    fn a_socket_of_an_earlier_process_is_had_where_it_is_what_is_asked_for() {
        let (socket, opened) = udp_socket(&UdpSocketOptions::new(local(0))).unwrap();
        let options =
            UdpSocketOptions { receive_buffer: opened.receive_buffer / 2, ..UdpSocketOptions::new(opened.local) };
        let adopted = adopt_udp_socket(&socket, &options).unwrap();
        assert_eq!((adopted.local, adopted.receive_buffer), (opened.local, opened.receive_buffer / 2));
        let elsewhere = UdpSocketOptions { bind: local(opened.local.port() ^ 1), ..options.clone() };
        assert_eq!(adopt_udp_socket(&socket, &elsewhere), None);
        let shared = UdpSocketOptions { reuse_port: true, ..options.clone() };
        assert_eq!(adopt_udp_socket(&socket, &shared), None);
        let listener = std::net::TcpListener::bind(local(0)).unwrap();
        let options = UdpSocketOptions { bind: listener.local_addr().unwrap(), ..options };
        assert_eq!(adopt_udp_socket(&listener, &options), None);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(adopt_udp_socket(&file, &options), None);
    }

    #[test]
    fn a_port_in_use_is_named() {
        let holder = UdpSocket::bind(local(0)).unwrap();
        let address = holder.local_addr().unwrap();
        match probe_exclusive(address) {
            Err(SocketError::InUse { address: named }) => assert_eq!(named, address),
            other => panic!("{other:?}"),
        }
        drop(holder);
        probe_exclusive(address).unwrap();
    }

    #[test]
    fn an_exclusive_probe_notices_a_shared_port() {
        let shared = UdpSocketOptions { reuse_port: true, ..UdpSocketOptions::new(local(0)) };
        let (first, granted) = udp_socket(&shared).unwrap();
        let again = UdpSocketOptions { bind: granted.local, ..shared };
        let second = udp_socket(&again).unwrap();
        assert!(matches!(probe_exclusive(granted.local), Err(SocketError::InUse { .. })));
        drop((first, second));
        probe_exclusive(granted.local).unwrap();
    }

    #[test]
    fn of_several_that_come_to_a_port_at_once_one_has_it_with_all_its_sockets() {
        const COMERS: usize = 4;
        for _ in 0..8 {
            let (holder, granted) = udp_socket(&UdpSocketOptions::new(local(0))).unwrap();
            drop(holder);
            let options = UdpSocketOptions { reuse_port: true, ..UdpSocketOptions::new(granted.local) };
            let start = std::sync::Barrier::new(COMERS);
            let come = || {
                start.wait();
                shared_udp_sockets(&options, 3)
            };
            let outcomes: Vec<_> = std::thread::scope(|scope| {
                let comers: Vec<_> = (0..COMERS).map(|_| scope.spawn(come)).collect();
                comers.into_iter().map(|comer| comer.join().unwrap()).collect()
            });
            let had: Vec<_> = outcomes.iter().flatten().collect();
            assert_eq!((had.len(), had[0].len()), (1, 3), "{outcomes:?}");
            let refused = |outcome: &&Result<_, _>| matches!(outcome, Err(SocketError::InUse { .. }));
            assert_eq!(outcomes.iter().filter(refused).count(), COMERS - 1);
        }
    }

    #[test]
    fn a_port_that_is_let_go_in_time_is_had() {
        let holder = UdpSocket::bind(local(0)).unwrap();
        let address = holder.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            drop(holder);
        });
        udp_socket(&UdpSocketOptions::new(address)).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let address = "203.0.113.77:5004".parse().unwrap();
        assert!(matches!(udp_socket(&UdpSocketOptions::new(address)), Err(SocketError::NoSuchAddress { .. })));
    }
}
