//! DPDK: which device packets come by, and what is listened on there. The kernel has no part in it: ports are not opened but told to
//! the edge of the host (`headworks-ethernet`), which knows its own addresses alone.
//!
//! Programs without the feature `dpdk` have the words of it and none of the ways.

use std::fmt;
use std::net::IpAddr;

use super::backend::NetError;
use super::sockets::{OwnPort, SocketRole};
use crate::config;

/// Bytes of the longest frame that is taken: no datagram of a longer one would fit a slot.
#[cfg(feature = "dpdk")]
const FRAME_SIZE: usize = super::backend::SLOT_SIZE;
/// Frames that the card's ring is to hold: two milliseconds of 10 Gbit/s.
#[cfg(feature = "dpdk")]
const RING: u16 = 2_048;

/// The device, and what is listened on there; nothing with another way.
#[derive(Clone, Debug, Default)]
pub struct Dpdk {
    #[cfg(feature = "dpdk")]
    device: Option<std::sync::Arc<headworks_dpdk::Device>>,
    #[cfg(feature = "dpdk")]
    settings: config::Dpdk,
    /// Bytes of the longest frame that is taken.
    #[cfg(feature = "dpdk")]
    pub(super) frame_size: usize,
    #[cfg(feature = "dpdk")]
    ports: Vec<(SocketRole, OwnPort)>,
}

/// Why packets cannot come by DPDK.
#[derive(Debug, thiserror::Error)]
pub enum UnfitError {
    /// The feature.
    #[error(
        "this headworks is built without DPDK: build it with `cargo build --release --features dpdk` (it needs Debian's libdpdk-dev), \
         or set shards.packet_io to auto"
    )]
    NotBuilt,
    /// One queue, one shard.
    #[error("dpdk takes one shard, and there are {0}: name one core in shards.cores, such as shards.cores=[0]")]
    Shards(usize),
}

/// Somebody else on the link claims an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressConflict {
    /// The address.
    pub address: IpAddr,
    /// His Ethernet address.
    pub other_mac: [u8; 6],
    /// Ours.
    pub own_mac: [u8; 6],
}

/// `192.0.2.1 is ours (02:00:00:00:00:01), and 02:00:00:00:00:07 on the same link claims it`.
impl fmt::Display for AddressConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        let (own, other) = (mac(self.own_mac), mac(self.other_mac));
        write!(f, "{} is ours ({own}), and {other} on the same link claims it", self.address)
    }
}

#[cfg(feature = "dpdk")]
impl From<headworks_dpdk::Conflict> for AddressConflict {
    fn from(headworks_dpdk::Conflict { address, other_mac, own_mac }: headworks_dpdk::Conflict) -> Self {
        Self { address, other_mac, own_mac }
    }
}

#[cfg(not(feature = "dpdk"))]
impl Dpdk {
    /// Says that there is none.
    ///
    /// # Errors
    /// [`UnfitError::NotBuilt`], always.
    pub fn find(_: &config::Dpdk, _: Vec<(SocketRole, OwnPort)>, _: usize) -> Result<Self, NetError> {
        Err(UnfitError::NotBuilt.into())
    }

    /// Nothing to tell of.
    pub fn describe(&self) -> String {
        String::new()
    }

    pub(super) fn roles(&self) -> Vec<SocketRole> {
        Vec::new()
    }
}

#[cfg(feature = "dpdk")]
impl Dpdk {
    /// Starts DPDK and finds the device. Nothing is taken from it yet: the shard's net opens it.
    ///
    /// # Errors
    /// [`NetError`], which says what mends it.
    pub fn find(settings: &config::Dpdk, ports: Vec<(SocketRole, OwnPort)>, shards: usize) -> Result<Self, NetError> {
        if shards != 1 {
            return Err(UnfitError::Shards(shards).into());
        }
        let name = settings.device.as_deref().unwrap_or_default();
        let device = headworks_dpdk::Device::find(name, &settings.eal_args)?;
        Ok(Self { device: Some(device), settings: settings.clone(), frame_size: FRAME_SIZE, ports })
    }

    /// The device and the addresses there: `0000:01:00.0 as 192.0.2.1/24`.
    pub fn describe(&self) -> String {
        let device = self.device.as_ref().map_or("", |it| it.name());
        let addresses: Vec<String> = self.settings.addresses.iter().map(ToString::to_string).collect();
        let vlan = self.settings.vlan.map_or(String::new(), |vlan| format!(" in VLAN {vlan}"));
        format!("{device} as {}{vlan}", addresses.join(", "))
    }

    /// What each port is for, in the order of their places.
    pub(super) fn roles(&self) -> Vec<SocketRole> {
        self.ports.iter().map(|(role, _)| *role).collect()
    }

    /// Opens the queue, on the shard's own thread.
    ///
    /// # Panics
    /// If no device was looked for.
    pub(super) fn open(
        &self,
        shard: usize,
        drain_limit: usize,
        pool: super::PacketPool,
    ) -> Result<headworks_dpdk::DpdkQueue, NetError> {
        let device = self.device.clone().expect("a device is found before it is opened");
        let options = headworks_dpdk::DpdkOptions {
            addresses: self.settings.addresses.iter().map(|it| (it.address, it.prefix)).collect(),
            gateways: self.settings.gateways.clone(),
            vlan: self.settings.vlan,
            frame_size: self.frame_size,
            ring: RING,
            drain_limit,
        };
        let ports = self.ports.iter().zip(0..).map(|((_, port), token)| headworks_dpdk::Port {
            local: port.address,
            takes_ipv4: port.takes_ipv4,
            token,
            wants_packet_info: true,
            wants_timestamps: true,
        });
        let groups = self.ports.iter().filter(|(_, port)| port.address.ip().is_multicast());
        let groups = groups.map(|(_, port)| (port.address.ip(), sources(&port.sources)));
        let queue = headworks_dpdk::DpdkQueue::new(device, options, pool, ports.collect(), groups.collect())?;
        let (driver, ring) = queue.driver();
        tracing::info!("shard {shard} takes {} ({driver}, a ring of {ring} frames), copied once", self.describe());
        Ok(queue)
    }
}

#[cfg(feature = "dpdk")]
fn sources(filter: &crate::protocol::rtp::sdp::SourceFilter) -> headworks_dpdk::Sources {
    use crate::protocol::rtp::sdp::SourceFilter;
    match filter {
        SourceFilter::Any => headworks_dpdk::Sources::Any,
        SourceFilter::Include(only) => headworks_dpdk::Sources::Include(only.clone()),
        SourceFilter::Exclude(others) => headworks_dpdk::Sources::Exclude(others.clone()),
    }
}

#[cfg(test)]
impl Dpdk {
    /// For the conformance suite: what would be listened on by sockets, by a virtual device over the link of a test's host. Its ring is
    /// as large as the sockets' buffers would be, as far as that goes.
    #[cfg(feature = "dpdk")]
    pub(super) fn in_place_of(sockets: Vec<(SocketRole, std::os::fd::OwnedFd)>, mtu: u32) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};

        /// A frame of the ring, with what the kernel writes before it; eight of them are a block.
        const FRAME_SIZE: usize = 4_096;
        // Relaxed: it hands out numbers and nothing else.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut buffer = 0;
        let own = |(role, socket): (SocketRole, std::os::fd::OwnedFd)| {
            let options = socket2::SockRef::from(&socket);
            buffer = buffer.max(options.recv_buffer_size().unwrap());
            let address = options.local_addr().unwrap().as_socket().unwrap();
            (role, OwnPort { address, takes_ipv4: true, sources: crate::protocol::rtp::sdp::SourceFilter::Any })
        };
        let ports = sockets.into_iter().map(own).collect();
        let frames = (buffer / FRAME_SIZE).next_multiple_of(8).max(1_024);
        let link = headworks_network_namespaces::LINK;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let settings = config::Dpdk {
            device: Some(format!(
                "net_af_packet{number},iface={link},framesz={FRAME_SIZE},blocksz={},framecnt={frames}",
                FRAME_SIZE * 8
            )),
            addresses: ["10.88.0.1/24", "10.88.0.5/24", "10.88.0.6/24", "10.88.0.9/24", "fd88::1/64"]
                .map(|it| it.parse().unwrap())
                .to_vec(),
            eal_args: ["--no-huge", "-m", "512"].map(str::to_owned).to_vec(),
            ..config::Dpdk::default()
        };
        assert!(mtu as usize + 100 <= FRAME_SIZE);
        Self { frame_size: FRAME_SIZE, ..Self::find(&settings, ports, 1).unwrap() }
    }

    #[cfg(not(feature = "dpdk"))]
    pub(super) fn in_place_of(_: Vec<(SocketRole, std::os::fd::OwnedFd)>, _: u32) -> Self {
        unreachable!("the suite tries DPDK where the program has it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_names_the_address_and_both_ethernet_addresses() {
        let conflict = AddressConflict {
            address: "fd88::1".parse().unwrap(),
            other_mac: [2, 0, 0, 0xab, 0, 7],
            own_mac: [2, 0, 0, 0, 0, 1],
        };
        let told = "fd88::1 is ours (02:00:00:00:00:01), and 02:00:00:ab:00:07 on the same link claims it";
        assert_eq!(conflict.to_string(), told);
    }
}
