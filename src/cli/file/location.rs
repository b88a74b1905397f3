//! The other end of a transfer: `srt://HOST:PORT[?…]` calls, `srt://:PORT` listens.

use std::net::{Ipv6Addr, SocketAddr};

use super::super::passphrase_file::{self, PassphraseError};
use super::super::send::target::{cipher, is_address, percent_decode, resolve, shown_address, shown_pair};
use crate::protocol::srt::encryption::{Cipher, KeyLength};
use crate::protocol::srt::stream_id::{StreamId, StreamIdError};
use crate::protocol::srt::transmission_mode::TransmissionMode;

/// A parsed location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Where to call, or to listen.
    pub address: SocketAddr,
    /// Whether it is the other side that calls.
    pub listens: bool,
    /// `streamid`.
    pub stream_id: Option<StreamId>,
    /// `passphrase`.
    pub passphrase: Option<String>,
    /// `pbkeylen`.
    pub key_length: KeyLength,
    /// `cryptomode`: 0 and 1 are AES-CTR, 2 is AES-GCM.
    pub cipher: Cipher,
    /// `messageapi`: a stream of bytes unless it is 1.
    pub mode: TransmissionMode,
}

/// Why a location is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Not SRT.
    #[error("{0}: not a location; write srt://HOST:PORT to call, or srt://:PORT to listen")]
    Scheme(String),
    /// No port.
    #[error("{0}: no port")]
    Port(String),
    /// Something stands behind the port that is no query.
    #[error("{0}: what follows is no query; write ?KEY=VALUE&KEY=VALUE behind the port")]
    Tail(String),
    /// The name is not known.
    #[error("{0}: there is no such host")]
    Host(String),
    /// Calling, but whom?
    #[error("mode=caller wants a host to call")]
    Nobody,
    /// A query that is not understood.
    #[error(
        "{0}: known are streamid, passphrase, pbkeylen (16, 24, 32), cryptomode (0 to 2), messageapi (0, 1), transtype=file and mode \
         (caller, listener)"
    )]
    Query(String),
    /// Of live mode.
    #[error("{0}: a file has no latency: all of it arrives, whenever that is")]
    Latency(String),
    /// No Stream ID.
    #[error("streamid: {0}")]
    StreamId(#[from] StreamIdError),
    /// No passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
}

/// Keys whose values may be seen.
const SHOWN: &[&str] =
    &["streamid", "pbkeylen", "cryptomode", "messageapi", "transtype", "mode", "latency", "rcvlatency", "peerlatency"];

impl Location {
    /// Reads a location; asks the resolver for a name.
    ///
    /// # Errors
    /// [`LocationError`].
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let shown = shown_address(text);
        let rest = text.strip_prefix("srt://").ok_or_else(|| LocationError::Scheme(shown.to_owned()))?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = authority.trim_end_matches('/');
        if !is_address(authority) {
            return Err(LocationError::Tail(shown.to_owned()));
        }
        let (host, port) = authority
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
            .ok_or_else(|| LocationError::Port(shown.to_owned()))?;
        let address = if host.is_empty() {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
        } else {
            resolve(authority).ok_or_else(|| LocationError::Host(shown.to_owned()))?
        };
        let mut location = Self {
            address,
            listens: host.is_empty(),
            stream_id: None,
            passphrase: None,
            key_length: KeyLength::Aes128,
            cipher: Cipher::AesCtr,
            mode: TransmissionMode::Buffer,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            location.option(pair)?;
        }
        if !location.listens && location.address.ip().is_unspecified() {
            return Err(LocationError::Nobody);
        }
        Ok(location)
    }

    /// Takes the passphrase of a file, where there is one.
    ///
    /// # Errors
    /// There is one already.
    pub fn with_passphrase(mut self, passphrase: Option<String>) -> Result<Self, LocationError> {
        if passphrase.is_some() && self.passphrase.is_some() {
            return Err(PassphraseError::Twice.into());
        }
        self.passphrase = self.passphrase.or(passphrase);
        Ok(self)
    }

    fn option(&mut self, pair: &str) -> Result<(), LocationError> {
        let unknown = || LocationError::Query(shown_pair(pair, SHOWN));
        let (key, value) = pair.split_once('=').ok_or_else(unknown)?;
        let value = percent_decode(value).ok_or_else(unknown)?;
        match (key, value.as_str()) {
            ("streamid", text) => self.stream_id = Some(StreamId::new(text)?),
            ("passphrase", text) => {
                passphrase_file::judge(text)?;
                self.passphrase = Some(value);
            }
            ("pbkeylen", text) => {
                let bytes = text.parse().map_err(|_| unknown())?;
                self.key_length = KeyLength::from_bytes(bytes).ok_or_else(unknown)?;
            }
            ("cryptomode", text) => self.cipher = cipher(text).ok_or_else(unknown)?,
            ("messageapi", "0" | "no" | "false") => self.mode = TransmissionMode::Buffer,
            ("messageapi", "1" | "yes" | "true") => self.mode = TransmissionMode::Message,
            ("transtype", "file") => {}
            ("mode", "caller") => self.listens = false,
            ("mode", "listener") => self.listens = true,
            ("latency" | "rcvlatency" | "peerlatency", _) => {
                return Err(LocationError::Latency(shown_pair(pair, SHOWN)));
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_called_and_without_one_a_port_is_listened_at() {
        let text = "srt://127.0.0.1:9000?streamid=%23!::r=clip.ts,m=publish&passphrase=correct%20horse&pbkeylen=32&messageapi=1&mode=caller";
        let called = Location::parse(text).unwrap();
        assert_eq!((called.address, called.listens), ("127.0.0.1:9000".parse().unwrap(), false));
        assert_eq!(called.stream_id.as_ref().and_then(StreamId::resource), Some("clip.ts"));
        assert_eq!((called.passphrase.as_deref(), called.key_length), (Some("correct horse"), KeyLength::Aes256));
        assert_eq!(called.mode, TransmissionMode::Message);
        let listened = Location::parse("srt://:9000").unwrap();
        assert_eq!((listened.address, listened.listens), ("[::]:9000".parse().unwrap(), true));
        assert_eq!((listened.mode, listened.cipher), (TransmissionMode::Buffer, Cipher::AesCtr));
        let local = Location::parse("srt://127.0.0.1:9000/?mode=listener&transtype=file&cryptomode=2").unwrap();
        assert_eq!((local.listens, local.cipher), (true, Cipher::AesGcm));
        let scoped = Location::parse("srt://[fe80::1%2]:9000/?mode=listener").unwrap();
        assert_eq!((scoped.address, scoped.listens), ("[fe80::1%2]:9000".parse().unwrap(), true));
    }

    #[test]
    fn what_is_no_location_is_refused_with_the_reason() {
        let refused = |text: &str| Location::parse(text).unwrap_err();
        assert_eq!(refused("rtp://a:1?passphrase=secret"), LocationError::Scheme("rtp://a:1".to_owned()));
        assert_eq!(refused("srt://127.0.0.1"), LocationError::Port("srt://127.0.0.1".to_owned()));
        assert_eq!(refused("srt://:1?mode=caller"), LocationError::Nobody);
        assert_eq!(refused("srt://:1&passphrase=secret"), LocationError::Tail("srt://:1".to_owned()));
        for (wrong, shown) in [
            ("passprase=secret", "passprase=…"),
            ("pasphrase=secret", "pasphrase=…"),
            ("phrase=secret", "phrase=…"),
            ("passphrase=secret%2", "passphrase=…"),
            ("passphrase=correct%20horse&secret", "a part without ="),
            ("mode", "mode"),
        ] {
            assert_eq!(refused(&format!("srt://:1?{wrong}")), LocationError::Query(shown.to_owned()));
        }
        assert_eq!(refused("srt://:1?mode=rendezvous"), LocationError::Query("mode=rendezvous".to_owned()));
        assert_eq!(refused("srt://:1?pbkeylen=17"), LocationError::Query("pbkeylen=17".to_owned()));
        assert_eq!(refused("srt://:1?latency=200"), LocationError::Latency("latency=200".to_owned()));
        assert_eq!(refused("srt://:1?latency=2;secret"), LocationError::Latency("latency=2…".to_owned()));
        assert!(matches!(refused("srt://:1?passphrase=short"), LocationError::Passphrase(PassphraseError::Length(5))));
        for wrong in [
            "127.0.0.1:9000/passphrase=secret",
            "127.0.0.1:9000;secret",
            "127.0.0.1:9000 secret",
            "127.0.0.1:9000#secret",
        ] {
            assert_eq!(refused(&format!("srt://{wrong}")), LocationError::Tail("srt://127.0.0.1:9000".to_owned()));
        }
        let nobody = LocationError::Host("srt://nobody.invalid:1".to_owned());
        assert_eq!(refused("srt://nobody.invalid:1?passphrase=secret"), nobody);
        assert!(matches!(refused("srt://:1?streamid=..%2fx"), LocationError::StreamId(_)));
    }
}
