//! For tests: two hosts on one Ethernet, which are network namespaces of this one. Needs root, and `ip` of Debian's iproute2; who
//! lacks the one is told that the test is skipped, who lacks the other that it has failed.
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
use std::sync::atomic::{AtomicU32, Ordering};

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
    /// The hosts, with their addresses and prefix lengths. `None`, and said, for who is not root.
    ///
    /// # Panics
    ///
    /// Without `ip`, or where the kernel refuses namespaces, with a message that says so.
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
            // Past what the test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "SKIPPED: only root makes network namespaces");
            return None;
        }
        // Neighbouring tests have hosts of their own.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |host: &str| format!("hw-{}-c{number}-{host}", std::process::id());
        let cable = Self { near: name("near"), far: name("far") };
        let (near, far) = (&cable.near, &cable.far);
        ip(&format!("netns add {near}"));
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

impl Drop for Cable {
    fn drop(&mut self) {
        for host in [&self.near, &self.far] {
            // One that was not made cannot be deleted.
            let _ = Command::new("ip").args(["netns", "delete", host]).output();
        }
    }
}

fn ip(arguments: &str) {
    let outcome = Command::new("ip").args(arguments.split(' ')).output().expect("Debian's iproute2 is installed");
    let message = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "no network namespaces here: ip {arguments}: {message}");
}
