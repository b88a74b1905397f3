//! Where to: `srt://host:port?streamid=…`, `rtp://host:port`, `udp://host:port`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::cli::values::octet;
use crate::config::duration;
use crate::protocol::srt::encryption::Cipher;
use crate::protocol::srt::fec::configuration::FilterConfiguration;

/// What carries the transport stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// SRT, live mode, as caller.
    Srt,
    /// RTP, payload type 33 (RFC 2250).
    Rtp,
    /// Bare UDP.
    Udp,
}

/// A parsed address; what the query says is the same as the options of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The scheme.
    pub carrier: Carrier,
    /// `host:port`, for messages.
    pub authority: String,
    /// Where that is.
    pub address: SocketAddr,
    /// `streamid`.
    pub stream_id: Option<String>,
    /// `passphrase`.
    pub passphrase: Option<String>,
    /// `pbkeylen`, in bytes.
    pub key_length: Option<usize>,
    /// `cryptomode`: 0 and 1 are AES-CTR, 2 is AES-GCM.
    pub cipher: Option<Cipher>,
    /// `latency`, in milliseconds where no unit is given, as `srt-live-transmit` has it.
    pub latency: Option<Duration>,
    /// `packetfilter`.
    pub packet_filter: Option<FilterConfiguration>,
    /// `iptos`.
    pub traffic_class: Option<u8>,
    /// `ipttl`, from 1 on.
    pub ttl: Option<u8>,
    /// `bindtodevice`.
    pub interface: Option<String>,
}

/// Why a target is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No scheme that is known.
    #[error("{0}: not a target; write srt://host:port, rtp://host:port or udp://host:port")]
    Scheme(String),
    /// Not a host and a port.
    #[error("{0}: no host and port")]
    Authority(String),
    /// Something stands behind the port that is no query.
    #[error("{0}: what follows is no query; write ?KEY=VALUE&KEY=VALUE behind the port")]
    Tail(String),
    /// The name is not known.
    #[error("{0}: there is no such host")]
    Host(String),
    /// A query that is not understood.
    #[error(
        "{0}: known are streamid, passphrase, pbkeylen, cryptomode (0 to 2), latency, packetfilter (fec,cols:10,…), iptos (0x88), ipttl, bindtodevice (eth0) and mode=caller"
    )]
    Query(String),
    /// SRT has what the others do not.
    #[error("{0}: only srt:// takes a query")]
    NotSrt(String),
}

/// Keys whose values may be seen.
const SHOWN: &[&str] =
    &["streamid", "pbkeylen", "cryptomode", "latency", "packetfilter", "iptos", "ipttl", "bindtodevice", "mode"];

impl Target {
    /// Reads a target; asks the resolver for a name.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let shown = shown_address(text);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| TargetError::Scheme(shown.to_owned()))?;
        let carrier = match scheme {
            "srt" => Carrier::Srt,
            "rtp" => Carrier::Rtp,
            "udp" => Carrier::Udp,
            _ => return Err(TargetError::Scheme(shown.to_owned())),
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        // ffmpeg writes multicast addresses as udp://@group:port, and many with a slash at the end.
        let authority = authority.trim_start_matches('@').trim_end_matches('/');
        if !query.is_empty() && carrier != Carrier::Srt {
            return Err(TargetError::NotSrt(shown.to_owned()));
        }
        if !is_address(authority) {
            return Err(TargetError::Tail(shown.to_owned()));
        }
        let has_port =
            authority.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !has_port {
            return Err(TargetError::Authority(authority.to_owned()));
        }
        let address = resolve(authority).ok_or_else(|| TargetError::Host(shown.to_owned()))?;
        let mut target = Self {
            carrier,
            authority: authority.to_owned(),
            address,
            stream_id: None,
            passphrase: None,
            key_length: None,
            cipher: None,
            latency: None,
            packet_filter: None,
            traffic_class: None,
            ttl: None,
            interface: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            target.option(pair).ok_or_else(|| TargetError::Query(shown_pair(pair, SHOWN)))?;
        }
        Ok(target)
    }

    fn option(&mut self, pair: &str) -> Option<()> {
        let (key, value) = pair.split_once('=')?;
        let value = percent_decode(value)?;
        match key {
            "streamid" => self.stream_id = Some(value),
            "passphrase" => self.passphrase = Some(value),
            "pbkeylen" => self.key_length = Some(value.parse().ok()?),
            "cryptomode" => self.cipher = Some(cipher(&value)?),
            "latency" => {
                let ms = value.parse().map(Duration::from_millis);
                self.latency = Some(ms.ok().or_else(|| duration::parse(&value).ok())?);
            }
            "packetfilter" => self.packet_filter = Some(value.parse().ok()?),
            "iptos" => self.traffic_class = Some(octet(&value).ok()?),
            "ipttl" => self.ttl = Some(octet(&value).ok().filter(|&ttl| ttl > 0)?),
            "bindtodevice" => self.interface = Some(value).filter(|name| !name.is_empty()),
            "mode" if value == "caller" => {}
            _ => return None,
        }
        Some(())
    }
}

/// As libsrt numbers them (`SRTO_CRYPTOMODE`), where a caller takes "auto" for AES-CTR.
pub fn cipher(number: &str) -> Option<Cipher> {
    match number {
        "0" | "1" => Some(Cipher::AesCtr),
        "2" => Some(Cipher::AesGcm),
        _ => None,
    }
}

/// Whether this may stand for a host and a port: nothing else is looked up, so that no resolver is told a passphrase either.
pub fn is_address(text: &str) -> bool {
    behind_address(text).is_empty()
}

/// What stands behind a host and a port. Within brackets there may be the scope of an IPv6 address: `[fe80::1%eth0]` (RFC 4007 §11).
fn behind_address(text: &str) -> &str {
    let mut is_bracketed = false;
    text.trim_start_matches(|character| {
        is_bracketed = character == '[' || is_bracketed && character != ']';
        is_of_address(character) || is_bracketed && character == '%'
    })
}

/// Asks the resolver for a host and a port; the scope of an IPv6 address is the number of an interface or its name.
pub fn resolve(authority: &str) -> Option<SocketAddr> {
    let (host, port) = authority.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, port.parse().ok()?).to_socket_addrs().ok()?.next()
}

fn is_of_address(character: char) -> bool {
    character.is_alphanumeric() || ".:-_[]".contains(character)
}

/// The part of a URL that may be seen: its scheme, and what can be a host and a port. Behind that there may be a passphrase, as before
/// an @ in the middle.
pub fn shown_address(text: &str) -> &str {
    let scheme = text.find("://").filter(|&at| is_address(&text[..at])).map_or(0, |at| at + "://".len());
    let rest = text[scheme..].trim_start_matches('@');
    let behind = behind_address(rest);
    if behind.starts_with('@') { &text[..scheme] } else { &text[..text.len() - behind.len()] }
}

/// A pair of a query, for a message. What stands under a key that is none of these may be a passphrase, also where the key is misspelt or is
/// missing, and is not shown; nor is what no value of these has, and what follows it.
pub fn shown_pair(pair: &str, keys: &[&str]) -> String {
    match pair.split_once('=') {
        Some((key, value)) if keys.contains(&key) => {
            let rest = value.trim_start_matches(|character| is_of_address(character) || "%,+".contains(character));
            let cut = if rest.is_empty() { "" } else { "…" };
            format!("{key}={}{cut}", &value[..value.len() - rest.len()])
        }
        Some((key, _)) => format!("{}=…", shown_key(key)),
        None if keys.contains(&pair) => pair.to_owned(),
        None => "a part without =".to_owned(),
    }
}

/// A key that is not known: a passphrase may stand before it if somebody has separated the two with something else than &.
fn shown_key(key: &str) -> &str {
    let rest = key.trim_start_matches(is_of_address);
    if rest.is_empty() { key } else { "" }
}

/// `%23` is `#`; everything else stands for itself.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// The stream id of one of several feeds: its number stands behind the name, in `r=` of the keyed syntax.
pub fn numbered(stream_id: &str, feed: usize, feeds: usize) -> String {
    if feeds == 1 || stream_id.is_empty() {
        return stream_id.to_owned();
    }
    let Some(pairs) = stream_id.strip_prefix("#!::") else { return format!("{stream_id}{feed}") };
    let pairs: Vec<String> = pairs
        .split(',')
        .map(|pair| if pair.starts_with("r=") { format!("{pair}{feed}") } else { pair.to_owned() })
        .collect();
    format!("#!::{}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_with_all_its_parts() {
        let text = "srt://127.0.0.1:30000?streamid=%23!::r=cam,m=publish&passphrase=correct%20horse&pbkeylen=32&cryptomode=2&latency=200&mode=caller";
        let target = Target::parse(text).unwrap();
        assert_eq!((target.carrier, target.address), (Carrier::Srt, "127.0.0.1:30000".parse().unwrap()));
        assert_eq!(target.stream_id.as_deref(), Some("#!::r=cam,m=publish"));
        assert_eq!(target.passphrase.as_deref(), Some("correct horse"));
        assert_eq!((target.key_length, target.latency), (Some(32), Some(Duration::from_millis(200))));
        assert_eq!(target.cipher, Some(Cipher::AesGcm));
        let target = Target::parse("udp://@239.1.1.1:5000/").unwrap();
        assert_eq!((target.carrier, target.address), (Carrier::Udp, "239.1.1.1:5000".parse().unwrap()));
        assert_eq!(Target::parse("rtp://[::1]:5004").unwrap().address, "[::1]:5004".parse().unwrap());
        let target = Target::parse("srt://127.0.0.1:30000/?streamid=cam1").unwrap();
        assert_eq!((target.authority.as_str(), target.stream_id.as_deref()), ("127.0.0.1:30000", Some("cam1")));
    }

    #[test]
    fn an_ipv6_address_may_have_a_scope() {
        for text in ["srt://[fe80::1%2]:9000", "srt://[fe80::1%2]:9000/?latency=20", "udp://@[ff02::1%2]:9000/"] {
            let SocketAddr::V6(address) = Target::parse(text).unwrap().address else { panic!("{text}") };
            assert_eq!((address.scope_id(), address.port()), (2, 9_000), "{text}");
        }
        // The loopback interface is the first of each network namespace.
        let named = Target::parse("rtp://[fe80::1%lo]:9000").unwrap();
        assert_eq!(named.address, "[fe80::1%1]:9000".parse().unwrap());
        assert_eq!(named.authority, "[fe80::1%lo]:9000");
        let refused = |text: &str| Target::parse(text).unwrap_err();
        let unknown = "srt://[fe80::1%nowhere]:9000";
        assert_eq!(refused(unknown), TargetError::Host(unknown.to_owned()));
        // It stands within the brackets only.
        assert_eq!(refused("srt://127.0.0.1:9000%secret"), TargetError::Tail("srt://127.0.0.1:9000".to_owned()));
        assert_eq!(refused("srt://[::1]:9000%secret"), TargetError::Tail("srt://[::1]:9000".to_owned()));
        assert_eq!(refused("srt://[fe80::1%2@secret]:9000"), TargetError::Tail("srt://".to_owned()));
    }

    #[test]
    fn a_packet_filter_is_read_from_the_url() {
        let target = Target::parse("srt://127.0.0.1:1?packetfilter=fec,cols:10,rows:-5,arq:never").unwrap();
        let expected = "fec,arq:never,cols:10,rows:-5";
        assert_eq!(target.packet_filter.map(|filter| filter.to_string()).as_deref(), Some(expected));
        let wrong = "packetfilter=fec,cols:1".to_owned();
        assert_eq!(Target::parse("srt://127.0.0.1:1?packetfilter=fec,cols:1"), Err(TargetError::Query(wrong)));
    }

    #[test]
    fn what_sockets_are_told_is_read_by_the_names_of_libsrts_options() {
        let target = Target::parse("srt://127.0.0.1:1?iptos=0x88&ipttl=5&bindtodevice=eth1").unwrap();
        assert_eq!(
            (target.traffic_class, target.ttl, target.interface.as_deref()),
            (Some(0x88), Some(5), Some("eth1"))
        );
        for wrong in ["iptos=256", "ipttl=0", "ipttl=x"] {
            let error = Target::parse(&format!("srt://127.0.0.1:1?{wrong}")).unwrap_err();
            assert_eq!(error, TargetError::Query(wrong.to_owned()));
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_reason() {
        let refused = |text: &str| Target::parse(text).unwrap_err();
        assert_eq!(refused("cam1"), TargetError::Scheme("cam1".to_owned()));
        assert_eq!(refused("tcp://a:1?passphrase=secret"), TargetError::Scheme("tcp://a:1".to_owned()));
        assert_eq!(refused("rtp://127.0.0.1"), TargetError::Authority("127.0.0.1".to_owned()));
        assert_eq!(refused("rtp://127.0.0.1:70000"), TargetError::Authority("127.0.0.1:70000".to_owned()));
        assert_eq!(refused("srt://127.0.0.1:1?mode=listener"), TargetError::Query("mode=listener".to_owned()));
        assert_eq!(refused("srt://127.0.0.1:1?cryptomode=3"), TargetError::Query("cryptomode=3".to_owned()));
        assert_eq!(refused("srt://127.0.0.1:1?streamid=%2"), TargetError::Query("streamid=%2".to_owned()));
        assert_eq!(refused("rtp://127.0.0.1&passphrase=secret"), TargetError::Tail("rtp://127.0.0.1".to_owned()));
        for (wrong, shown) in [
            ("passprase=secret", "passprase=…"),
            ("pasphrase=secret", "pasphrase=…"),
            ("phrase=secret", "phrase=…"),
            ("passphrase=secret%2", "passphrase=…"),
            ("passphrase=correct&secret", "a part without ="),
            ("mode", "mode"),
        ] {
            assert_eq!(refused(&format!("srt://127.0.0.1:1?{wrong}")), TargetError::Query(shown.to_owned()));
        }
        assert_eq!(refused("srt://127.0.0.1:1?mode=x secret"), TargetError::Query("mode=x…".to_owned()));
        assert_eq!(
            refused("srt://127.0.0.1:1?latency=120ms;passphrase=secret"),
            TargetError::Query("latency=120ms…".to_owned())
        );
        assert_eq!(refused("srt://127.0.0.1:1?correct secret=1"), TargetError::Query("=…".to_owned()));
        assert!(matches!(refused("rtp://127.0.0.1:1?a=b"), TargetError::NotSrt(_)));
    }

    #[test]
    fn of_an_address_that_is_not_understood_scheme_host_and_port_are_shown() {
        let said = |text: &str| Target::parse(text).unwrap_err().to_string();
        for (text, shown) in [
            ("srt://127.0.0.1:9000/passphrase=secret", "srt://127.0.0.1:9000: what follows is no query"),
            ("srt://127.0.0.1:9000;passphrase=secret", "srt://127.0.0.1:9000: what follows"),
            ("srt://127.0.0.1:9000#secret", "srt://127.0.0.1:9000: what follows"),
            ("srt://127.0.0.1:9000 secret", "srt://127.0.0.1:9000: what follows"),
            ("srt://127.0.0.1/secret:9000", "srt://127.0.0.1: what follows"),
            ("srt://[::1]:9000/secret?latency=20", "srt://[::1]:9000: what follows"),
            ("srt://secret@127.0.0.1:9000", "srt://: what follows"),
            ("srt://me:secret@127.0.0.1:9000", "srt://: what follows"),
            ("udp://@239.1.1.1:5000/secret", "udp://@239.1.1.1:5000: what follows"),
            ("srt:/127.0.0.1:9000?passphrase=secret", "srt:: not a target"),
            ("passphrase=secret", "passphrase: not a target"),
            ("127.0.0.1?passphrase=secret://x", "127.0.0.1: not a target"),
            ("nobody.invalid:1", "nobody.invalid:1: not a target"),
            ("srt://nobody.invalid:1?passphrase=secret", "srt://nobody.invalid:1: there is no such host"),
        ] {
            let said = said(text);
            assert!(said.starts_with(shown) && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn feeds_are_numbered_in_their_names() {
        assert_eq!(numbered("cam", 3, 25), "cam3");
        assert_eq!(numbered("cam", 0, 1), "cam");
        assert_eq!(numbered("#!::r=live/cam,m=publish", 7, 8), "#!::r=live/cam7,m=publish");
        assert_eq!(numbered("", 2, 8), "");
    }
}
