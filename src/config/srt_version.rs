//! A version of SRT as people write it: `1.5.4`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version as SRT's handshake has it, `0x00MMmmpp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SrtVersion(pub u32);

/// The text is no such version.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a version of SRT, such as 1.5.4")]
pub struct ParseError(String);

impl FromStr for SrtVersion {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some(&[major, minor, patch]) => Ok(Self(u32::from_be_bytes([0, major, minor, patch]))),
            _ => Err(ParseError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for SrtVersion {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<SrtVersion> for String {
    fn from(version: SrtVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for SrtVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, major, minor, patch] = self.0.to_be_bytes();
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_three_numbers_and_later_ones_are_greater() {
        let version = |text: &str| text.parse::<SrtVersion>();
        assert_eq!(version("1.5.4").unwrap(), SrtVersion(0x0001_0504));
        assert_eq!(version("1.5.4").unwrap().to_string(), "1.5.4");
        assert!(version("1.4.10").unwrap() < version("1.5.0").unwrap());
        for text in ["", "1.5", "1.5.4.1", "1.5.256", "v1.5.4", "1.5.-1", "one.five.four"] {
            let error = version(text).unwrap_err().to_string();
            assert!(error.contains("such as 1.5.4"), "{error}");
        }
    }
}
