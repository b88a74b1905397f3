//! Sockets that outlive the process: the service manager keeps them over a restart, and with them what the kernel has taken in
//! meanwhile.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use headworks_host::{Granted, ServiceManager, UdpSocketOptions, adopt_udp_socket, take_stored_descriptors};

/// How long the manager may take to let go of sockets whose ports are to be opened anew.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// What the service manager has kept of the last run, and will keep of this one.
#[derive(Default)]
pub struct StoredSockets {
    manager: Option<ServiceManager>,
    /// More than one under a name: then the order in their group is not known, and none of them fits.
    pub(super) by_name: BTreeMap<String, Vec<OwnedFd>>,
}

impl StoredSockets {
    /// From the environment. First thing in a process, before anything is opened.
    pub fn take() -> Self {
        let mut by_name = BTreeMap::<String, Vec<OwnedFd>>::new();
        for (name, descriptor) in take_stored_descriptors() {
            by_name.entry(name).or_default().push(descriptor);
        }
        Self { manager: ServiceManager::from_environment(), by_name }
    }

    /// The sockets of these names, if all of them are there and as they would be opened.
    pub(super) fn fitting(&mut self, names: &[String], options: &UdpSocketOptions) -> Option<Vec<(OwnedFd, Granted)>> {
        let granted: Vec<Granted> = names
            .iter()
            .map_while(|name| match self.by_name.get(name)?.as_slice() {
                [socket] => adopt_udp_socket(socket, options),
                _ => None,
            })
            .collect();
        if granted.len() < names.len() {
            return None;
        }
        Some(names.iter().filter_map(|name| self.by_name.remove(name)).flatten().zip(granted).collect())
    }

    /// Lets go of all that is left: while the manager has them, their ports cannot be opened.
    pub(super) fn release(&mut self) {
        if self.by_name.is_empty() {
            return;
        }
        for (name, sockets) in std::mem::take(&mut self.by_name) {
            tracing::warn!("{name}, kept from the last run, does not fit the configuration and is closed");
            drop(sockets);
            if let Some(manager) = &self.manager
                && let Err(error) = manager.remove(&name)
            {
                tracing::warn!("the service manager does not let go of {name}: {error}");
            }
        }
        if let Some(manager) = &self.manager {
            // Who does not answer is found out by the ports.
            let _ = manager.barrier(RELEASE_MAX);
        }
    }

    /// Has the manager keep a socket for the next run.
    pub(super) fn keep(&mut self, name: &str, socket: &OwnedFd) {
        if let Some(manager) = &self.manager
            && let Err(error) = manager.store(name, socket)
        {
            tracing::warn!("the service manager keeps no sockets, from {name} on: {error}");
            // Each would be waited for as long.
            self.manager = None;
        }
    }
}
