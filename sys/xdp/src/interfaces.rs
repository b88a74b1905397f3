//! Which network interfaces there are, and the addresses that they own.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network interface that has addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// It is up.
    pub is_up: bool,
    /// It is the loopback interface.
    pub is_loopback: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The interfaces of this network namespace that have addresses, in the kernel's order.
///
/// # Errors
///
/// The kernel does not say.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut first = std::ptr::null_mut();
    // SAFETY: the function writes a list, or fails and writes nothing.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found: Vec<Interface> = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: an element of the list, which is freed behind the loop and written by nobody.
        let element = unsafe { &*next };
        next = element.ifa_next;
        // SAFETY: null, or an address that is as long as its family says, as is the element's life.
        let Some(address) = (unsafe { address(element.ifa_addr) }) else { continue };
        // SAFETY: every element has a name that ends in a zero byte.
        let label = unsafe { CStr::from_ptr(element.ifa_name) };
        let name = interface_name(&label.to_string_lossy()).to_owned();
        let flags = element.ifa_flags as libc::c_int;
        let place = found.iter().position(|it| it.name == name).unwrap_or_else(|| {
            found.push(Interface {
                index: index(&name),
                name,
                is_up: flags & libc::IFF_UP != 0,
                is_loopback: flags & libc::IFF_LOOPBACK != 0,
                addresses: Vec::new(),
            });
            found.len() - 1
        });
        found[place].addresses.push(address);
    }
    // SAFETY: the list made above, of which nothing is borrowed any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// The interface that an address with a label is of: `eth0` of `eth0:1`. A colon stands in no name of an interface.
fn interface_name(label: &str) -> &str {
    label.split(':').next().unwrap_or(label)
}

/// The number of an interface; 0 if it is gone.
fn index(name: &str) -> u32 {
    let Ok(name) = CString::new(name) else { return 0 };
    // SAFETY: the name is a string of C.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// # Safety
///
/// `address` is null, or points to a socket address that is as long as its family says.
unsafe fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every socket address has a family, by the caller's word that it is one.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: of that family it is a `sockaddr_in`.
            let address = unsafe { &*address.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of that family it is a `sockaddr_in6`.
            let address = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_leads_to_its_interface() {
        for (label, name) in [("eth0", "eth0"), ("eth0:1", "eth0"), ("eth0.7:voice:2", "eth0.7")] {
            assert_eq!(interface_name(label), name);
        }
    }

    #[test]
    fn the_loopback_interface_is_found_with_its_address() {
        let found = interfaces().unwrap();
        let loopback = found.iter().find(|it| it.is_loopback).unwrap();
        assert!(loopback.name == "lo" && loopback.index == 1 && loopback.is_up);
        assert!(loopback.addresses.contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
