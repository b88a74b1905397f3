//! The sockets of all shards: opened once, in shard order, before any shard runs, and kept for life.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use headworks_host::{
    Granted, Interface, Membership, MulticastError, SocketError, Steering, SteeringError, UdpSocketOptions,
    attach_steering, group_address, shared_udp_sockets, udp_socket,
};

use siphasher::sip::SipHasher13;

use super::stored::StoredSockets;
use crate::config::stream_key;
use crate::protocol::rtp::sdp::{SdpMedia, SourceFilter, Transport};
use crate::shard::described::Described;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    /// The shared SRT port.
    Srt,
    /// The shared RTP port.
    Rtp,
    /// The RTCP port beside it.
    Rtcp,
    /// The port of a configured stream, by its place in the configuration.
    Stream(usize),
    /// The RTCP port beside that.
    StreamRtcp(usize),
    /// What a configured stream that is fetched by SRT is called from.
    Call(usize),
}

impl SocketRole {
    /// Whether media come in by it, in bursts if need be: a socket to ask for aggregates (UDP GRO).
    pub const fn is_media(self) -> bool {
        matches!(self, Self::Srt | Self::Rtp | Self::Stream(_) | Self::Call(_))
    }

    /// The stream that is called from it, by its place in the configuration.
    pub const fn called_stream(self) -> Option<usize> {
        match self {
            Self::Call(stream) => Some(stream),
            _ => None,
        }
    }
}

/// Why the sockets cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// One of them cannot be opened.
    #[error("{what}: {source}")]
    Socket {
        /// What it was for.
        what: String,
        /// Why not.
        source: SocketError,
    },
    /// A port cannot be shared.
    #[error("{what}: {source}")]
    Steering {
        /// What it was for.
        what: String,
        /// Why not.
        source: SteeringError,
    },
    /// A multicast group cannot be joined.
    #[error("{}: {source}", stream_key(.stream, "rtp"))]
    Multicast {
        /// The stream.
        stream: String,
        /// Why not.
        source: MulticastError,
    },
    /// Two would hear the same.
    #[error("{what}: {address} is where something else listens already")]
    Taken {
        /// What it was for.
        what: String,
        /// Address and port.
        address: SocketAddr,
    },
}

/// All sockets, by shard, and what is to be said of them at start.
#[derive(Debug, Default)]
pub struct PortSet {
    /// The sockets of each shard.
    pub by_shard: Vec<Vec<(SocketRole, OwnedFd)>>,
    /// Where is listened: what and address.
    pub listening: Vec<(String, SocketAddr)>,
    /// Bytes of receive buffer asked for and the least granted.
    pub receive_buffer: (usize, usize),
}

/// A port where the kernel has none: an address of ours, or a group.
#[derive(Clone, Debug)]
pub struct OwnPort {
    /// Address and port.
    pub address: SocketAddr,
    /// An unspecified IPv6 address is that of IPv4 too.
    pub takes_ipv4: bool,
    /// Whose datagrams of the group are asked for.
    pub sources: SourceFilter,
}

/// A port that the configuration asks for.
struct Port<'a> {
    what: String,
    role: SocketRole,
    options: UdpSocketOptions,
    kind: Kind<'a>,
}

enum Kind<'a> {
    /// One socket per shard on one port. The order of binding is the order of shards, which the steering program counts on.
    Shared(Steering),
    /// The port of a configured stream, on its shard, and its group.
    Stream { name: &'a str, shard: usize, group: IpAddr, sources: SourceFilter, interface: Interface },
}

impl Port<'_> {
    /// What its sockets are called where they are kept over a restart. All that they are opened with is in the names: a socket
    /// that has one of them is as it would be opened.
    fn names(&self, shards: usize) -> Vec<String> {
        let options = &self.options;
        let (text, count) = match &self.kind {
            Kind::Shared(steering) => (format!("{options:?} {steering:?} {shards}"), shards),
            Kind::Stream { name, group, sources, interface, .. } => {
                (format!("{options:?} {name:?} {group} {sources:?} {interface:?}"), 1)
            }
        };
        let sum = SipHasher13::new().hash(text.as_bytes());
        let role = match self.role {
            SocketRole::Srt => "srt",
            SocketRole::Rtp => "rtp",
            SocketRole::Rtcp => "rtcp",
            SocketRole::Stream(_) => "stream",
            SocketRole::StreamRtcp(_) => "stream-rtcp",
            SocketRole::Call(_) => "call",
        };
        (0..count).map(|shard| format!("{role}-{shard}-{sum:016x}")).collect()
    }

    /// Opens its sockets, as many as it has names.
    fn open(&self, count: usize) -> Result<Vec<(OwnedFd, Granted)>, SocketsError> {
        let socket_error = |source| SocketsError::Socket { what: self.what.clone(), source };
        match self.kind {
            Kind::Shared(_) => return shared_udp_sockets(&self.options, count).map_err(socket_error),
            // It is done without.
            Kind::Stream { .. } if matches!(self.role, SocketRole::StreamRtcp(_)) => {
                return Ok(udp_socket(&self.options).into_iter().collect());
            }
            Kind::Stream { .. } => {}
        }
        (0..count).map(|_| udp_socket(&self.options).map_err(socket_error)).collect()
    }

    /// Has the kernel bring to its sockets what is theirs. Sockets kept from the last run may have lost a group with its interface.
    fn prepare(&self, sockets: &[(OwnedFd, Granted)], is_kept: bool) -> Result<(), SocketsError> {
        let Some((last, _)) = sockets.last() else { return Ok(()) };
        match &self.kind {
            Kind::Shared(steering) => attach_steering(last, sockets.len(), *steering)
                .map_err(|source| SocketsError::Steering { what: self.what.clone(), source }),
            Kind::Stream { name, group, sources, interface, .. } if group.is_multicast() => {
                match join(last, *group, sources, interface.clone()) {
                    // Joined already.
                    Err(MulticastError::System { .. }) if is_kept => Ok(()),
                    other => other.map_err(|source| SocketsError::Multicast { stream: (*name).to_owned(), source }),
                }
            }
            Kind::Stream { .. } => Ok(()),
        }
    }
}

impl PortSet {
    /// Opens everything that the configuration asks for, or takes it from what was kept of the last run.
    ///
    /// # Errors
    /// [`SocketsError`], which names the port or the stream.
    pub fn open(described: &Described, shards: usize, mut stored: StoredSockets) -> Result<Self, SocketsError> {
        let wanted = wanted_ports(described, shards)?;
        if let Some((call, address)) = first_taken_call(&wanted) {
            return Err(SocketsError::Taken { what: call.to_owned(), address });
        }
        let kept: Vec<_> = wanted.iter().map(|port| stored.fitting(&port.names(shards), &port.options)).collect();
        stored.release();
        let mut ports = Self { receive_buffer: (described.config.shards.socket_buffer, usize::MAX), ..Self::default() };
        ports.by_shard.resize_with(shards, Vec::new);
        for (port, kept) in wanted.into_iter().zip(kept) {
            let names = port.names(shards);
            let is_kept = kept.is_some();
            let sockets = kept.map_or_else(|| port.open(names.len()), Ok)?;
            port.prepare(&sockets, is_kept)?;
            if is_kept {
                tracing::info!("{}: goes on with what the kernel has taken in since the last run", port.what);
            } else if port.role.called_stream().is_none() {
                // What waits for a caller that has begun anew is of no use to it.
                for ((socket, _), name) in sockets.iter().zip(&names) {
                    stored.keep(name, socket);
                }
            }
            if !sockets.is_empty() && !matches!(port.role, SocketRole::StreamRtcp(_) | SocketRole::Call(_)) {
                ports.listening.push((port.what, port.options.bind));
            }
            let first = match port.kind {
                Kind::Shared(_) => 0,
                Kind::Stream { shard, .. } => shard,
            };
            for ((socket, granted), of_shard) in sockets.into_iter().zip(&mut ports.by_shard[first..]) {
                of_shard.push((port.role, socket));
                if port.options.receive_buffer >= ports.receive_buffer.0 {
                    ports.receive_buffer.1 = ports.receive_buffer.1.min(granted.receive_buffer);
                }
            }
        }
        Ok(ports)
    }
}

/// What would be opened, for a way that does without the kernel: where is listened, and the ports of the one shard. An RTCP port is done
/// without where it is a neighbour's media port, as ever.
///
/// # Errors
/// [`SocketsError`], which names the stream.
pub fn own_ports(
    described: &Described,
    mut stored: StoredSockets,
) -> Result<(PortSet, Vec<(SocketRole, OwnPort)>), SocketsError> {
    stored.release();
    let mut described = described.clone();
    // Names of interfaces are the kernel's.
    for rtp in described.config.streams.values_mut().filter_map(|stream| stream.rtp.as_mut()) {
        rtp.interface = None;
    }
    let mut set = PortSet { by_shard: vec![Vec::new()], ..PortSet::default() };
    let mut own: Vec<(SocketRole, OwnPort)> = Vec::new();
    for port in wanted_ports(&described, 1)? {
        let address = port.options.bind;
        if own.iter().any(|(_, it)| is_same(it.address, address)) {
            if matches!(port.role, SocketRole::StreamRtcp(_)) {
                continue;
            }
            return Err(SocketsError::Taken { what: port.what, address });
        }
        let sources = match port.kind {
            Kind::Stream { sources, .. } => sources,
            Kind::Shared(_) => SourceFilter::Any,
        };
        if !matches!(port.role, SocketRole::StreamRtcp(_)) {
            set.listening.push((port.what, address));
        }
        own.push((port.role, OwnPort { address, takes_ipv4: !port.options.v6_only, sources }));
    }
    Ok((set, own))
}

/// Whether a datagram could be for either of two addresses.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (is_any || one.ip() == other.ip())
}

/// The first stream that is to be fetched from a port that is something else's of ours, and that port.
pub fn first_call_from_a_port_of_ours(described: &Described) -> Option<(String, SocketAddr)> {
    let wanted = wanted_ports(described, 1).ok()?;
    first_taken_call(&wanted).map(|(what, address)| (what.to_owned(), address))
}

/// The same of these ports. What the kernel would say of it is that another process has the port.
fn first_taken_call<'a>(wanted: &'a [Port<'_>]) -> Option<(&'a str, SocketAddr)> {
    let is_call = |port: &Port<'_>| matches!(port.role, SocketRole::Call(_)) && port.options.bind.port() != 0;
    // The kernel lets one port be had on each of several interfaces (SO_BINDTODEVICE).
    let is_elsewhere = |one: &Port<'_>, other: &Port<'_>| {
        let interfaces = one.options.bind_device.as_ref().zip(other.options.bind_device.as_ref());
        interfaces.is_some_and(|(one, other)| one != other)
    };
    let is_taken = |place: usize, port: &Port<'_>| {
        wanted[..place]
            .iter()
            .any(|earlier| is_same(earlier.options.bind, port.options.bind) && !is_elsewhere(earlier, port))
    };
    wanted.iter().enumerate().find_map(|(place, port)| {
        (is_call(port) && is_taken(place, port)).then_some((port.what.as_str(), port.options.bind))
    })
}

/// Every port, in the order in which they are opened.
fn wanted_ports(described: &Described, shards: usize) -> Result<Vec<Port<'_>>, SocketsError> {
    let config = &described.config;
    let (ingestion, buffer) = (&config.ingestion, config.shards.socket_buffer);
    let options = |role: SocketRole, address, receive_buffer| UdpSocketOptions {
        receive_buffer,
        gro: config.shards.gro && role.is_media(),
        ..UdpSocketOptions::new(address)
    };
    let shared = |what: &str, role, address, port, receive_buffer, steering| Port {
        what: what.to_owned(),
        role,
        options: UdpSocketOptions {
            reuse_port: true,
            send_buffer: 4 << 20,
            ..options(role, SocketAddr::new(address, port), receive_buffer)
        },
        kind: Kind::Shared(steering),
    };
    let mut ports = Vec::new();
    if ingestion.srt.enabled {
        let srt = &ingestion.srt;
        let port = shared("SRT", SocketRole::Srt, srt.address, srt.port, buffer, Steering::Srt);
        let (tos, ttl, bind_device) = (srt.traffic_class, srt.ttl, srt.interface.clone());
        ports.push(Port { options: UdpSocketOptions { tos, ttl, bind_device, ..port.options }, ..port });
    }
    if ingestion.rtp.enabled {
        let rtp = &ingestion.rtp;
        let size = rtp.buffer_size.max(buffer);
        ports.push(shared("RTP", SocketRole::Rtp, rtp.address, rtp.port, size, Steering::Rtp));
        ports.push(shared("RTCP", SocketRole::Rtcp, rtp.address, rtp.rtcp_port, 1 << 20, Steering::Rtcp));
    }
    // Ports of their own for all media first: an RTCP port is done without where it is a neighbour's media port.
    for media_ports in [true, false] {
        for (index, (name, stream)) in config.streams.iter().enumerate() {
            let Some(rtp) = &stream.rtp else { continue };
            let Some(port) = rtp.port else { continue };
            let (role, port) = if media_ports {
                (SocketRole::Stream(index), Some(port))
            } else {
                (SocketRole::StreamRtcp(index), rtcp_port(port, described.media.get(name)))
            };
            let Some(port) = port else { continue };
            let group = rtp.address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
            let interface = rtp.interface.as_ref().map_or(Interface::Any, |name| Interface::Name(name.clone()));
            let address = group_address(group, port, &interface)
                .map_err(|source| SocketsError::Multicast { stream: name.clone(), source })?;
            let sources = described.sources(name);
            ports.push(Port {
                what: format!("stream {name}"),
                role,
                options: options(role, address, buffer),
                kind: Kind::Stream { name, shard: index % shards, group, sources, interface },
            });
        }
    }
    for (index, (name, stream)) in config.streams.iter().enumerate() {
        let Some(srt) = &stream.srt else { continue };
        let (role, bind) = (SocketRole::Call(index), srt.bind());
        let kind = Kind::Stream {
            name,
            shard: index % shards,
            group: bind.ip(),
            sources: SourceFilter::Any,
            interface: Interface::Any,
        };
        let options = UdpSocketOptions {
            tos: srt.traffic_class.or(ingestion.srt.traffic_class),
            ttl: srt.ttl.or(ingestion.srt.ttl),
            bind_device: srt.interface.clone(),
            ..options(role, bind, buffer)
        };
        ports.push(Port { what: stream_key(name, "srt"), role, options, kind });
    }
    Ok(ports)
}

/// Joins a group as its sources say (RFC 4570 §3): once per sender that is to be heard, or for all but some.
fn join(socket: impl AsFd, group: IpAddr, sources: &SourceFilter, interface: Interface) -> Result<(), MulticastError> {
    let everybody = Membership { group, source: None, interface };
    let of = |source: &IpAddr| Membership { source: Some(*source), ..everybody.clone() };
    match sources {
        SourceFilter::Any => everybody.join(&socket),
        SourceFilter::Include(only) => only.iter().try_for_each(|source| of(source).join(&socket)),
        SourceFilter::Exclude(others) => {
            everybody.join(&socket)?;
            others.iter().try_for_each(|source| of(source).block(&socket))
        }
    }
}

/// The port of a stream's RTCP: the one described, else the next one (RFC 3550 §11), from which reports are sent even where
/// the peer's come in beside the media. Bare UDP has none.
fn rtcp_port(port: u16, described: Option<&SdpMedia>) -> Option<u16> {
    if described.is_some_and(|media| media.transport == Transport::Udp) {
        return None;
    }
    let own = described.and_then(|media| media.rtcp_port).filter(|&own| own != port);
    own.or(port.checked_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// The ports of configured streams, by role.
    fn roles(settings: &[String]) -> Vec<SocketRole> {
        let mut settings = settings.to_vec();
        settings.extend(["ingestion.srt.enabled=false", "ingestion.rtp.enabled=false"].map(str::to_owned));
        let ports = PortSet::open(&described(&settings), 1, StoredSockets::default()).unwrap();
        ports.by_shard[0].iter().map(|(role, _)| *role).collect()
    }

    fn described(settings: &[String]) -> Described {
        Described { config: config::load(None, std::iter::empty(), settings).unwrap().config, ..Described::default() }
    }

    /// The kernel's numbers of the sockets of each shard.
    fn inodes(ports: &PortSet) -> Vec<Vec<u64>> {
        let number = |(_, socket): &(SocketRole, OwnedFd)| rustix::fs::fstat(socket).unwrap().st_ino;
        ports.by_shard.iter().map(|sockets| sockets.iter().map(number).collect()).collect()
    }

    /// What a service manager would have kept of these ports.
    fn kept(ports: &PortSet, described: &Described) -> StoredSockets {
        let mut stored = StoredSockets::default();
        let shards = ports.by_shard.len();
        for port in wanted_ports(described, shards).unwrap() {
            for (shard, name) in port.names(shards).into_iter().enumerate() {
                let (_, socket) = ports.by_shard[shard].iter().find(|(role, _)| *role == port.role).unwrap();
                stored.by_name.entry(name).or_default().push(socket.try_clone().unwrap());
            }
        }
        stored
    }

    #[test]
    fn kept_sockets_go_to_the_shards_that_they_came_from_and_only_if_all_of_a_port_fit() {
        let probes = [(); 3].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let [srt, rtp, rtcp] = [0, 1, 2].map(|i: usize| probes[i].local_addr().unwrap().port());
        drop(probes);
        let settings = [
            format!("ingestion.srt.port={srt}"),
            format!("ingestion.rtp.port={rtp}"),
            format!("ingestion.rtp.rtcp_port={rtcp}"),
        ];
        let described = described(&settings);
        let first = PortSet::open(&described, 2, StoredSockets::default()).unwrap();
        let (stored, numbers) = (kept(&first, &described), inodes(&first));
        drop(first);
        let second = PortSet::open(&described, 2, stored).unwrap();
        assert_eq!(inodes(&second), numbers);
        assert!(second.receive_buffer.1 > 0 && second.receive_buffer.1 < usize::MAX);
        assert_eq!(second.listening.len(), 3);

        // Of the SRT port one socket is missing, of the RTP port there is one too many.
        let mut stored = kept(&second, &described);
        drop(second);
        let name = |role: &str| stored.by_name.keys().find(|name| name.starts_with(role)).unwrap().clone();
        let (srt, rtp) = (name("srt-1"), name("rtp-0"));
        stored.by_name.remove(&srt);
        let twice = stored.by_name[&rtp][0].try_clone().unwrap();
        stored.by_name.get_mut(&rtp).unwrap().push(twice);
        let third = PortSet::open(&described, 2, stored).unwrap();
        for (of_shard, before) in inodes(&third).iter().zip(&numbers) {
            assert!(of_shard[0] != before[0] && of_shard[1] != before[1] && of_shard[2] == before[2], "{of_shard:?}");
        }

        let stored = kept(&third, &described);
        let numbers = inodes(&third);
        drop(third);
        let more_shards = PortSet::open(&described, 3, stored).unwrap();
        let again = inodes(&more_shards);
        assert!(again.iter().flatten().all(|number| !numbers.iter().flatten().any(|before| before == number)));
    }

    #[test]
    fn of_two_instances_that_open_the_same_ports_at_once_one_is_refused() {
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let described = described(&[format!("ingestion.srt.port={port}"), "ingestion.rtp.enabled=false".to_owned()]);
        for shards in [1, 2] {
            let start = std::sync::Barrier::new(2);
            let open = || {
                start.wait();
                PortSet::open(&described, shards, StoredSockets::default())
            };
            let [first, second] = std::thread::scope(|scope| {
                let others = scope.spawn(open);
                let own = open();
                [own, others.join().unwrap()]
            });
            let (had, refused) = if first.is_ok() { (first, second) } else { (second, first) };
            assert!(had.unwrap().by_shard.iter().all(|sockets| sockets.len() == 1));
            let text = refused.unwrap_err().to_string();
            assert!(text.starts_with(&format!("SRT: UDP 0.0.0.0:{port} is in use")), "{text}");
        }
    }

    #[test]
    fn ports_without_the_kernel_are_those_that_would_be_opened_and_none_twice() {
        let of = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|it| (*it).to_owned()).collect();
            own_ports(&described(&settings), StoredSockets::default())
        };
        let group = ["streams.a.rtp.port=6001", "streams.a.rtp.address=239.1.2.3", "streams.a.rtp.interface=eth7"];
        let (set, own) = of(&group).unwrap();
        let roles: Vec<SocketRole> = own.iter().map(|(role, _)| *role).collect();
        let expected =
            [SocketRole::Srt, SocketRole::Rtp, SocketRole::Rtcp, SocketRole::Stream(0), SocketRole::StreamRtcp(0)];
        assert_eq!((roles, set.listening.len(), set.by_shard.len()), (expected.to_vec(), 4, 1));
        assert_eq!(own[3].1.address, "239.1.2.3:6001".parse().unwrap());
        let neighbours = ["streams.a.rtp.port=6001", "streams.b.rtp.port=6002"];
        let roles: Vec<SocketRole> = of(&neighbours).unwrap().1.iter().skip(3).map(|(role, _)| *role).collect();
        assert_eq!(roles, [SocketRole::Stream(0), SocketRole::Stream(1), SocketRole::StreamRtcp(1)]);
        for twice in [
            &["streams.a.rtp.port=6001", "streams.b.rtp.port=6001"][..],
            &["streams.a.rtp.port=30000", "streams.a.rtp.address=192.0.2.1"],
        ] {
            let error = of(twice).unwrap_err().to_string();
            assert!(error.contains("listens already"), "{error}");
        }
    }

    #[test]
    fn streams_on_neighbouring_ports_keep_their_media_and_do_without_rtcp() {
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port() & !1;
        drop(probe);
        let settings: Vec<String> = [("a", port), ("b", port + 1)]
            .iter()
            .flat_map(|(name, port)| {
                [format!("streams.{name}.rtp.port={port}"), format!("streams.{name}.rtp.address=127.0.0.1")]
            })
            .collect();
        assert_eq!(
            roles(&settings),
            [SocketRole::Stream(0), SocketRole::Stream(1), SocketRole::StreamRtcp(1)],
            "the first stream's RTCP port is the second one's media port"
        );
    }

    #[test]
    fn a_stream_that_is_fetched_from_a_port_of_ours_is_named() {
        let error = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|it| (*it).to_owned()).collect();
            PortSet::open(&described(&settings), 1, StoredSockets::default()).unwrap_err().to_string()
        };
        let one = ["streams.a.srt.mode=rendezvous", "streams.a.srt.address=192.0.2.1:9000"];
        let other = ["streams.b.srt.mode=rendezvous", "streams.b.srt.address=192.0.2.2:9000"];
        let taken = "streams.b.srt: 0.0.0.0:9000 is where something else listens already";
        assert_eq!(error(&[one, other].concat()), taken);
        let listener = ["streams.b.srt.address=192.0.2.2:9000", "streams.b.srt.local_port=30000"];
        assert_eq!(error(&listener), taken.replace("9000", "30000"));
        let clash = |interface: &str| {
            let settings = [one[0], one[1], "streams.a.srt.interface=eth1", other[0], other[1]].map(str::to_owned);
            let settings = [&settings[..], &[format!("streams.b.srt.interface={interface}")]].concat();
            first_call_from_a_port_of_ours(&described(&settings)).map(|(what, _)| what)
        };
        assert_eq!((clash("eth1").as_deref(), clash("eth2")), (Some("streams.b.srt"), None));
    }

    #[test]
    fn a_stream_that_is_fetched_has_a_socket_on_its_shard_that_is_no_port_listened_on() {
        let settings = [
            "ingestion.srt.enabled=false",
            "ingestion.rtp.enabled=false",
            "streams.a.srt.address=127.0.0.1:9000",
            "streams.b.srt.address=[::1]:9000",
            "streams.b.srt.local_address=::1",
            "streams.c.passphrase=correct horse",
            "streams.d.srt.address=encoder.example:9000",
        ];
        let described = described(&settings.map(str::to_owned));
        let ports = PortSet::open(&described, 2, StoredSockets::default()).unwrap();
        assert_eq!(ports.listening, []);
        let roles: Vec<Vec<SocketRole>> =
            ports.by_shard.iter().map(|sockets| sockets.iter().map(|(role, _)| *role).collect()).collect();
        assert_eq!(roles, [vec![SocketRole::Call(0)], vec![SocketRole::Call(1), SocketRole::Call(3)]]);
        let local = |shard: usize, index: usize| {
            let socket = std::net::UdpSocket::from(ports.by_shard[shard][index].1.try_clone().unwrap());
            socket.local_addr().unwrap()
        };
        assert_eq!(local(0, 0).ip().to_string(), "0.0.0.0");
        assert_eq!(
            (local(1, 0).ip().to_string(), local(1, 1).ip().to_string()),
            ("::1".to_owned(), "0.0.0.0".to_owned())
        );
        assert!(local(0, 0).port() != 0 && local(0, 0).port() != local(1, 1).port());
    }

    #[test]
    fn sockets_for_media_ask_for_aggregates_where_that_is_configured() {
        for gro in [false, true] {
            let stream = ["streams.a.rtp.port=6000".to_owned(), format!("shards.gro={gro}")];
            let described = described(&stream);
            let asking = wanted_ports(&described, 1).unwrap().into_iter().filter(|port| port.options.gro);
            let roles: Vec<SocketRole> = asking.map(|port| port.role).collect();
            let media = [SocketRole::Srt, SocketRole::Rtp, SocketRole::Stream(0)];
            assert_eq!(roles, if gro { media.to_vec() } else { Vec::new() });
        }
    }
}
