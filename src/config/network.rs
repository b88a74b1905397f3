//! A network, as lists of who may come name it: `192.0.2.0/24`, `2001:db8::/32`, or one address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The addresses that have their first bits in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The text is no network.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It has not the form of one.
    #[error("{0:?} is not a network, such as 192.0.2.0/24, 2001:db8::/32 or one address")]
    Form(String),
    /// Its address has bits set behind the prefix, so that it is not clear what is meant.
    #[error("{0} has bits set behind its prefix: is {1} meant?")]
    HostBits(String, Network),
}

impl Network {
    /// Whether an address is in it. IPv4 addresses in IPv6 form are IPv4 addresses.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

/// Whether lists let an address in: not if it is in a network of `deny`; only if it is in one of `allow`, where there is any.
pub fn admits(allow: &[Network], deny: &[Network], address: IpAddr) -> bool {
    refusing_list(allow, deny, address).is_none()
}

/// Which of the two lists, by its key, does not let an address in.
pub fn refusing_list(allow: &[Network], deny: &[Network], address: IpAddr) -> Option<&'static str> {
    let is_in = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
    if is_in(deny) {
        return Some("deny");
    }
    (!allow.is_empty() && !is_in(allow)).then_some("allow")
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl FromStr for Network {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let form = || ParseError::Form(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| form()))?;
        if prefix > longest {
            return Err(form());
        }
        let network = Self { address: masked(address, prefix), prefix };
        if network.address == address { Ok(network) } else { Err(ParseError::HostBits(text.to_owned(), network)) }
    }
}

impl TryFrom<String> for Network {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_what_has_its_prefix_and_nothing_else() {
        for (network, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.0/24", "::ffff:192.0.2.1", "::192.0.2.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(address(inside)), "{network} {inside}");
            assert!(!parsed.contains(address(outside)), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_an_example_or_with_what_may_be_meant() {
        for text in ["", "cam", "192.0.2.0/33", "2001:db8::/129", "192.0.2.0/", "/24", "192.0.2.0/24/1", "192.0.2.0/-1"]
        {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains("192.0.2.0/24"), "{error}");
        }
        let error = "192.0.2.7/24".parse::<Network>().unwrap_err().to_string();
        assert_eq!(error, "192.0.2.7/24 has bits set behind its prefix: is 192.0.2.0/24 meant?");
        assert_eq!("10.1.2.3".parse::<Network>().unwrap().to_string(), "10.1.2.3/32");
    }

    #[test]
    fn who_is_denied_is_not_let_in_though_he_is_allowed() {
        let (allow, deny) = (networks(&["10.0.0.0/8", "2001:db8::/32"]), networks(&["10.9.0.0/16"]));
        assert!(admits(&[], &[], address("203.0.113.9")), "no lists let everybody in");
        assert!(admits(&allow, &deny, address("10.8.0.1")));
        assert!(!admits(&allow, &deny, address("10.9.0.1")));
        assert!(!admits(&allow, &deny, address("203.0.113.9")));
        assert!(admits(&[], &deny, address("203.0.113.9")));
        assert!(admits(&allow, &deny, address("2001:db8::1")));
    }
}
