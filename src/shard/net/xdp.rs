//! AF_XDP: which interfaces packets are taken from, for which addresses and ports, and to which shard they go.
//!
//! With one shard every unicast datagram for one of our ports is taken. With several, a queue takes what belongs to its shard by
//! the same reckoning that the kernel's steering program goes by, and leaves the rest to that: so a datagram comes to its shard
//! whichever queue the card has put it into, and is never handed from shard to shard for being taken here.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use headworks_xdp::{Attachment, Interface, Owner, Port, XdpSockets, interfaces};

use super::backend::{NetError, SLOT_SIZE};
use super::sockets::SocketRole;

/// Why packets can be taken from no interface.
#[derive(Debug, thiserror::Error)]
pub enum InterfacesError {
    /// The kernel does not say which there are.
    #[error("cannot list the network interfaces: {0}")]
    List(std::io::Error),
    /// `shards.xdp_interfaces` names one that is not there, or has no address.
    #[error("shards.xdp_interfaces names {name}, but the interfaces with addresses are {there:?}")]
    NoSuchInterface {
        /// The name.
        name: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// None of the addresses listened on is one that packets can be taken for.
    #[error(
        "no network interface brings packets for what is listened on ({listening}): loopback and multicast addresses cannot be \
         taken past the kernel; set ingestion.srt.address to one of a network card's or to 0.0.0.0, look at \
         shards.xdp_interfaces, or set shards.packet_io to auto"
    )]
    NothingToTake {
        /// The addresses.
        listening: String,
    },
}

/// A port that may be taken.
struct Listening {
    address: SocketAddr,
    takes_ipv4: bool,
    owner: Owner,
}

/// The interfaces that packets are taken from. Clones are of the same ones, which are let go of with the last.
#[derive(Clone, Debug)]
pub struct XdpInterfaces {
    attachments: Arc<[Attachment]>,
    shards: u32,
}

impl Default for XdpInterfaces {
    fn default() -> Self {
        Self { attachments: Arc::new([]), shards: 1 }
    }
}

impl XdpInterfaces {
    /// Puts the program on every interface named, or, where none is, on all that own an address of one of the sockets, given by
    /// shard. Nothing is taken yet: a shard's net has to lend packet memory first.
    ///
    /// # Errors
    /// [`NetError`], which says what mends it.
    pub fn attach(named: &[String], by_shard: &[Vec<(SocketRole, OwnedFd)>]) -> Result<Self, NetError> {
        let shards = by_shard.len();
        let listening = listening(by_shard);
        let there = interfaces().map_err(InterfacesError::List)?;
        let chosen = choose(&there, named, &listening)?;
        for name in left_out(named, &chosen) {
            tracing::warn!(
                "nothing is taken from {name}, which shards.xdp_interfaces names: it is down, loopback, or has no address that is \
                 listened on"
            );
        }
        let attachments: Result<Vec<_>, _> = chosen
            .iter()
            .map(|(interface, ports)| {
                Attachment::new(&interface.name, interface.index, ports, SLOT_SIZE, shards as u32)
            })
            .collect();
        Ok(Self { attachments: attachments?.into(), shards: shards as u32 })
    }

    pub(super) fn attachments(&self) -> Arc<[Attachment]> {
        Arc::clone(&self.attachments)
    }

    pub(super) fn shards(&self) -> u32 {
        self.shards
    }

    /// The interfaces, and by whom each has the program run: `eth1 (native), eth2 (generic)`.
    pub fn describe(&self) -> String {
        let each = self.attachments.iter().map(|it| format!("{} ({})", it.name(), it.mode().name()));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// The names of the interfaces that packets for these addresses would be taken from.
///
/// # Errors
/// [`InterfacesError`], which says what mends it.
pub fn interfaces_for(named: &[String], listening: &[SocketAddr]) -> Result<Vec<String>, InterfacesError> {
    let listening: Vec<Listening> = listening
        .iter()
        .filter(|address| !address.ip().is_multicast())
        .map(|&address| Listening { address, takes_ipv4: true, owner: Owner::Any })
        .collect();
    let there = interfaces().map_err(InterfacesError::List)?;
    Ok(choose(&there, named, &listening)?.iter().map(|(interface, _)| interface.name.clone()).collect())
}

/// Says what a shard takes, and how.
pub(super) fn tell_queues(shard: usize, set: &XdpSockets) {
    let mut is_any = false;
    for (interface, queue, is_zero_copy) in set.queues() {
        let how = if is_zero_copy { "zero-copy" } else { "copied by the kernel" };
        tracing::info!("shard {shard} takes {interface} queue {queue}, {how}");
        is_any = true;
    }
    if !is_any {
        tracing::warn!(
            "shard {shard} has no queue of any interface, and gets its packets by the kernel's stack: more shards than queues \
             (`ethtool -l`)"
        );
    }
}

/// What the sockets listen on that can be taken, each port once.
fn listening(by_shard: &[Vec<(SocketRole, OwnedFd)>]) -> Vec<Listening> {
    let several = by_shard.len() > 1;
    let mut listening: Vec<Listening> = Vec::new();
    for (shard, sockets) in by_shard.iter().enumerate() {
        for (role, socket) in sockets {
            let owner = match role {
                _ if !several => Owner::Any,
                SocketRole::Srt => Owner::SrtSocketId,
                SocketRole::Rtp => Owner::RtpSsrc,
                // Few, and steered by another word of the packet.
                SocketRole::Rtcp => continue,
                SocketRole::Stream(_) | SocketRole::StreamRtcp(_) | SocketRole::Call(_) => Owner::Shard(shard as u32),
            };
            let options = socket2::SockRef::from(socket);
            let Some(address) = options.local_addr().ok().and_then(|it| it.as_socket()) else { continue };
            let takes_ipv4 = address.is_ipv4() || !options.only_v6().unwrap_or(true);
            // The kernel alone knows who has joined which group, and by whom it is to be heard.
            if !address.ip().is_multicast() && listening.iter().all(|it| it.address != address) {
                listening.push(Listening { address, takes_ipv4, owner });
            }
        }
    }
    listening
}

/// The interfaces to put the program on, each with its ports.
fn choose<'a>(
    there: &'a [Interface],
    named: &[String],
    listening: &[Listening],
) -> Result<Vec<(&'a Interface, Vec<Port>)>, InterfacesError> {
    for name in named {
        if there.iter().all(|it| it.name != *name) {
            let there = there.iter().map(|it| it.name.clone()).collect();
            return Err(InterfacesError::NoSuchInterface { name: name.clone(), there });
        }
    }
    let candidates = there.iter().filter(|it| it.is_up && !it.is_loopback);
    let chosen: Vec<_> = candidates
        .filter(|it| named.is_empty() || named.contains(&it.name))
        .map(|interface| {
            let of = |address: &IpAddr| {
                let ports = listening.iter().filter(|it| it.is_at(*address));
                ports.map(|it| (*address, it.address.port(), it.owner)).collect::<Vec<Port>>()
            };
            (interface, interface.addresses.iter().flat_map(of).collect::<Vec<Port>>())
        })
        .filter(|(_, ports)| !ports.is_empty())
        .collect();
    if chosen.is_empty() {
        let addresses: Vec<String> = listening.iter().map(|it| it.address.to_string()).collect();
        return Err(InterfacesError::NothingToTake { listening: addresses.join(", ") });
    }
    Ok(chosen)
}

/// Interfaces that are named, but have nothing to take.
fn left_out<'a>(named: &'a [String], chosen: &[(&Interface, Vec<Port>)]) -> Vec<&'a str> {
    named.iter().map(String::as_str).filter(|name| chosen.iter().all(|(it, _)| it.name != *name)).collect()
}

impl Listening {
    fn is_at(&self, address: IpAddr) -> bool {
        let is_version = if address.is_ipv4() { self.takes_ipv4 } else { self.address.is_ipv6() };
        let own = self.address.ip().to_canonical();
        is_version && (own.is_unspecified() || own == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, index: u32, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        Interface { name: name.to_owned(), index, is_up: true, is_loopback: name == "lo", addresses }
    }

    fn host() -> Vec<Interface> {
        vec![
            interface("lo", 1, &["127.0.0.1", "::1"]),
            interface("eth0", 2, &["192.0.2.1", "fe80::2"]),
            interface("eth1", 3, &["198.51.100.1", "198.51.100.2", "2001:db8::1"]),
            Interface { is_up: false, ..interface("eth2", 4, &["203.0.113.1"]) },
        ]
    }

    fn at(address: &str, takes_ipv4: bool) -> Listening {
        Listening { address: address.parse().unwrap(), takes_ipv4, owner: Owner::Any }
    }

    /// Interfaces with what is taken from each.
    fn chosen(named: &[&str], listening: &[Listening]) -> Vec<(String, Vec<String>)> {
        let named: Vec<String> = named.iter().map(|it| (*it).to_owned()).collect();
        let host = host();
        let chosen = choose(&host, &named, listening).unwrap();
        let shown = |(address, port, _): &Port| SocketAddr::new(*address, *port).to_string();
        chosen.iter().map(|(it, ports)| (it.name.clone(), ports.iter().map(shown).collect())).collect()
    }

    fn expected(of: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        of.iter().map(|(name, ports)| ((*name).to_owned(), ports.iter().map(|it| (*it).to_owned()).collect())).collect()
    }

    #[test]
    fn packets_are_taken_from_the_interface_that_owns_the_address() {
        let one = chosen(&[], &[at("198.51.100.1:30000", true), at("127.0.0.1:5004", true)]);
        assert_eq!(one, expected(&[("eth1", &["198.51.100.1:30000"])]));
    }

    #[test]
    fn an_unspecified_address_is_that_of_every_interface_which_is_up_and_no_loopback() {
        let all = chosen(&[], &[at("0.0.0.0:30000", true)]);
        let v4 = expected(&[("eth0", &["192.0.2.1:30000"]), ("eth1", &["198.51.100.1:30000", "198.51.100.2:30000"])]);
        assert_eq!(all, v4);
        let of_both = chosen(&["eth0"], &[at("[::]:30000", true)]);
        assert_eq!(of_both, expected(&[("eth0", &["192.0.2.1:30000", "[fe80::2]:30000"])]));
        let v6_only = chosen(&[], &[at("[::]:30000", false)]);
        assert_eq!(v6_only, expected(&[("eth0", &["[fe80::2]:30000"]), ("eth1", &["[2001:db8::1]:30000"])]));
    }

    #[test]
    fn interfaces_that_are_named_and_have_nothing_to_take_are_known() {
        let (host, named) = (host(), ["eth2", "eth1", "lo", "eth0"].map(str::to_owned));
        let chosen = choose(&host, &named, &[at("198.51.100.1:30000", true)]).unwrap();
        assert_eq!(left_out(&named, &chosen), ["eth2", "lo", "eth0"]);
        assert_eq!(left_out(&[], &chosen), [""; 0]);
    }

    #[test]
    fn where_nothing_can_be_taken_the_cure_is_named() {
        for (named, listening) in [
            (&[][..], "127.0.0.1:30000"),
            (&["lo".to_owned()], "0.0.0.0:30000"),
            (&["eth0".to_owned()], "198.51.100.1:30000"),
            (&[], "203.0.113.1:30000"),
        ] {
            let text = choose(&host(), named, &[at(listening, true)]).unwrap_err().to_string();
            assert!(text.contains(listening) && text.contains("set ingestion.srt.address"), "{text}");
        }
        let text = choose(&host(), &["eth7".to_owned()], &[at("0.0.0.0:30000", true)]).unwrap_err().to_string();
        assert!(text.contains("names eth7") && text.contains("eth1"), "{text}");
    }

    #[test]
    fn with_several_shards_a_port_is_taken_by_the_shard_that_its_datagrams_name() {
        let open = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let of_shard =
            |stream| vec![(SocketRole::Srt, open()), (SocketRole::Rtcp, open()), (SocketRole::Stream(stream), open())];
        let owners = |by_shard: &[Vec<_>]| listening(by_shard).iter().map(|it| it.owner).collect::<Vec<_>>();
        assert_eq!(owners(&[of_shard(0)]), [Owner::Any; 3]);
        let (srt, second) = (Owner::SrtSocketId, Owner::Shard(1));
        assert_eq!(owners(&[of_shard(0), of_shard(1)]), [srt, Owner::Shard(0), srt, second]);
    }
}
