//! An address of a host with the length of its prefix: `192.0.2.1/24`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address and how many of its bits its whole link has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of the prefix: 32 at most, with IPv6 128.
    pub prefix: u8,
}

/// The text is no such address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an address with the length of its prefix, such as 192.0.2.1/24 or 2001:db8::1/64")]
pub struct ParseError(String);

impl FromStr for HostAddress {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse().ok()?);
            let longest = if address.is_ipv4() { 32 } else { 128 };
            (1..=longest).contains(&prefix).then_some(Self { address, prefix })
        };
        parse().ok_or_else(|| ParseError(text.to_owned()))
    }
}

impl TryFrom<String> for HostAddress {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_its_prefix_and_not_without() {
        for text in ["192.0.2.1/24", "2001:db8::1/64", "10.0.0.1/32"] {
            assert_eq!(text.parse::<HostAddress>().unwrap().to_string(), text);
        }
        for text in ["192.0.2.1", "192.0.2.1/33", "2001:db8::1/129", "192.0.2.1/0", "192.0.2.1/", "/24", "eth0/24"] {
            let error = text.parse::<HostAddress>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("192.0.2.1/24"), "{error}");
        }
    }
}
