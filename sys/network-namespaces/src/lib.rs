//! For tests: two hosts on one Ethernet, which are network namespaces of this one. Needs the right to make them, and `ip` of
//! Debian's iproute2; who lacks the one is told that the test is skipped, who lacks the other that it has failed.
//!
//! ```no_run
//! use headworks_network_namespaces::{Cable, Host};
//!
//! let Some(cable) = Cable::new(&["10.88.0.1/24"], &["10.88.0.2/24"]) else { return };
//! let socket = cable.on(Host::Far, || std::net::UdpSocket::bind("10.88.0.2:0").unwrap());
//! cable.on(Host::Near, move || socket.send_to(b"from the far host", "10.88.0.1:5004").unwrap());
//! ```

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use headworks_packet::{PacketPool, PoolOptions};
use headworks_xdp::{Attachment, XdpError, XdpOptions, XdpSockets, interfaces};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The interface of either host that the cable is plugged into.
pub const LINK: &str = "feeds0";

/// One end of the cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// The one under test.
    Near,
    /// The other one.
    Far,
}

/// Two hosts joined by a cable (a veth pair with one queue in each direction); gone when it is dropped.
#[derive(Debug)]
pub struct Cable {
    near: String,
    far: String,
}

impl Cable {
    /// The hosts, with their addresses and prefix lengths. `None`, and said, for who may not make network namespaces.
    ///
    /// # Panics
    ///
    /// Without `ip`, or where it fails for another reason, with a message that says so.
    pub fn new(near_addresses: &[&str], far_addresses: &[&str]) -> Option<Self> {
        Self::with_queues(1, near_addresses, far_addresses)
    }

    /// The same with so many queues in each direction.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn with_queues(queues: u32, near_addresses: &[&str], far_addresses: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("only root makes network namespaces");
        }
        // Neighbouring tests have hosts of their own. Relaxed: it hands out numbers and nothing else.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |host: &str| format!("hw-{}-c{number}-{host}", std::process::id());
        let cable = Self { near: name("near"), far: name("far") };
        let (near, far) = (&cable.near, &cable.far);
        // What a run that was killed has left behind under the same number.
        cable.delete();
        // A container's root may lack the right.
        if let Err(message) = try_ip(&format!("netns add {near}")) {
            let is_refused = ["Operation not permitted", "Permission denied"].iter().any(|it| message.contains(it));
            assert!(is_refused, "{message}");
            return skip(&format!("no network namespaces here: {message}"));
        }
        ip(&format!("netns add {far}"));
        let lanes = format!("numtxqueues {queues} numrxqueues {queues}");
        ip(&format!("link add {LINK} {lanes} netns {near} type veth peer name {LINK} {lanes} netns {far}"));
        for (host, addresses) in [(near, near_addresses), (far, far_addresses)] {
            ip(&format!("-n {host} link set lo up"));
            ip(&format!("-n {host} link set {LINK} up"));
            for address in addresses {
                // An IPv6 address is usable at once: nobody else is there to have it.
                let at_once = if address.contains(':') { " nodad" } else { "" };
                ip(&format!("-n {host} address add {address} dev {LINK}{at_once}"));
            }
        }
        Some(cable)
    }

    /// The same for tests of AF_XDP: `None`, and said, also where bpf(2) or AF_XDP sockets are refused.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new), and if AF_XDP does not work for another reason.
    pub fn for_xdp(queues: u32, near_addresses: &[&str], far_addresses: &[&str]) -> Option<Self> {
        let cable = Self::with_queues(queues, near_addresses, far_addresses)?;
        match cable.on(Host::Near, try_xdp) {
            Ok(()) => Some(cable),
            Err(refused @ (XdpError::Privilege { .. } | XdpError::NoSockets)) => {
                skip(&format!("no AF_XDP here: {refused}"))
            }
            Err(fault) => panic!("{fault}"),
        }
    }

    /// The same for tests of DPDK, which has long frames on its link: of the near host the kernel has no address, answers nobody, and
    /// lets sockets be bound to whichever.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn for_dpdk(mtu: u32, far_addresses: &[&str]) -> Option<Self> {
        let cable = Self::new(&[], far_addresses)?;
        for host in [&cable.near, &cable.far] {
            ip(&format!("-n {host} link set {LINK} mtu {mtu}"));
        }
        cable.on(Host::Near, || {
            for (key, value) in [
                (&*format!("ipv6/conf/{LINK}/disable_ipv6"), "1"),
                ("ipv4/ip_nonlocal_bind", "1"),
                ("ipv6/ip_nonlocal_bind", "1"),
            ] {
                std::fs::write(format!("/proc/sys/net/{key}"), value).expect("root sets what is of its namespace");
            }
        });
        Some(cable)
    }

    /// The same with both hosts at the same addresses, each of which sends the other what is for them: for peers that bind the address they
    /// call, as ffmpeg does in rendezvous. An address has the prefix length 32 or 128.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn of_twins(addresses: &[&str]) -> Option<Self> {
        const OUTBOUND: &str = "100";
        let cable = Self::new(addresses, addresses)?;
        let [near, far] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
        for (host, own, other) in [(&cable.near, near, far), (&cable.far, far, near)] {
            ip(&format!("-n {host} link set {LINK} address {own}"));
            // What is sent asks for another route before it asks whether the address is the host's own.
            for version in ["-4", "-6"] {
                ip(&format!("-n {host} {version} rule add pref 10 iif lo lookup {OUTBOUND}"));
                ip(&format!("-n {host} {version} rule add pref 1000 lookup local"));
                ip(&format!("-n {host} {version} rule del pref 0"));
            }
            for address in addresses {
                let (alone, version) =
                    (address.split('/').next().expect("an address"), if address.contains(':') { "-6" } else { "-4" });
                ip(&format!("-n {host} {version} route add {address} dev {LINK} table {OUTBOUND}"));
                ip(&format!("-n {host} neighbor add {alone} lladdr {other} dev {LINK} nud permanent"));
            }
        }
        Some(cable)
    }

    /// The namespace's name, for `ip netns exec`.
    pub fn name(&self, host: Host) -> &str {
        match host {
            Host::Near => &self.near,
            Host::Far => &self.far,
        }
    }

    /// Does something on a host, in a thread of its own: sockets that it opens stay there, wherever they are used.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub fn on<T: Send>(&self, host: Host, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name(host));
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let namespace = File::open(path).expect("the namespace is there");
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may change namespaces");
                work()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Cable {
    fn delete(&self) {
        for host in [&self.near, &self.far] {
            // One that is not there cannot be deleted.
            let _ = Command::new("ip").args(["netns", "delete", host]).output();
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.delete();
    }
}

/// Says why a test is skipped, past what the test harness keeps to itself.
fn skip<T>(reason: &str) -> Option<T> {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {}", reason.trim());
    None
}

/// Program and sockets on the link, for no port.
fn try_xdp() -> Result<(), XdpError> {
    let link = interfaces().expect("interfaces are listed").into_iter().find(|it| it.name == LINK);
    let link = link.expect("the link has an address");
    let pool = PacketPool::new(PoolOptions { slots: 64, ..PoolOptions::default() }).expect("there is memory");
    let attachment = Attachment::new(LINK, link.index, &[], pool.slot_size(), 1)?;
    let options = XdpOptions { credit: 8, drain_limit: 8, shard: 0, shards: 1 };
    XdpSockets::new(options, pool, Arc::new([attachment])).map(drop)
}

fn ip(arguments: &str) {
    try_ip(arguments).unwrap_or_else(|message| panic!("no network namespaces here: {message}"));
}

fn try_ip(arguments: &str) -> Result<(), String> {
    let outcome = Command::new("ip").args(arguments.split(' ')).output().expect("Debian's iproute2 is installed");
    let message = String::from_utf8_lossy(&outcome.stderr);
    if outcome.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {message}")) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

    use super::*;

    #[test]
    fn who_may_not_make_network_namespaces_gets_none() {
        let made = std::thread::spawn(|| {
            if rustix::process::geteuid().is_root() {
                // Of this thread, and of what it starts.
                remove_capability_from_bounding_set(CapabilitySet::SYS_ADMIN).unwrap();
            }
            Cable::new(&[], &[]).is_some()
        });
        assert!(!made.join().unwrap());
    }

    #[test]
    fn twins_hear_each_other_and_not_themselves() {
        let Some(cable) = Cable::of_twins(&["10.88.0.1/32", "fd88::1/128"]) else { return };
        for address in ["10.88.0.1:5004", "[fd88::1]:5004"] {
            let [near, far] = [Host::Near, Host::Far].map(|host| cable.on(host, || UdpSocket::bind(address).unwrap()));
            for (from, to, text) in [(&near, &far, b"near"), (&far, &near, b"far ")] {
                to.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                from.send_to(text, address).unwrap();
                let mut heard = [0; 8];
                let (length, sender) = to.recv_from(&mut heard).unwrap();
                assert_eq!((&heard[..length], sender), (&text[..], address.parse().unwrap()));
            }
        }
    }
}
