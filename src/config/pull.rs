//! `streams.NAME.srt`: a stream that is not waited for but fetched, as SRT caller or in rendezvous.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keys::stream_key;
use super::{Config, CryptoMode, PacketIo, Stream, Takeover, duration};

/// Longest wait for an answer that makes sense: a peer who needs longer is not there.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Longest Stream ID (draft-sharabayko-srt §3.2.1.3), in bytes.
const STREAM_ID_LEN_MAX: usize = 512;

/// `streams.NAME.srt`: where the stream is fetched from, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSrt {
    /// Who begins.
    pub mode: PullMode,
    /// The peer as `host:port`; a name is looked up again for each attempt.
    pub address: String,
    /// The address of ours to call from, which is also the kind of address that a name is looked up for; none: any, and IPv4.
    pub local_address: Option<IpAddr>,
    /// The UDP port to call from; none: any for a caller, the peer's in rendezvous.
    pub local_port: Option<u16>,
    /// What is asked for; nothing by default.
    pub stream_id: Option<String>,
    /// The least latency, in place of `streams.NAME.latency`; the peer may ask for more.
    #[serde(with = "duration::option")]
    pub latency: Option<Duration>,
    /// What both sides must know, in place of `streams.NAME.passphrase`; none of both calls in plain.
    pub passphrase: Option<String>,
    /// Bytes of the keys that we make: 16 (which is the default), 24 or 32.
    pub key_length: Option<u8>,
    /// What our keys are for, in place of `streams.NAME.crypto_mode`; a caller's `auto` is AES-CTR, as libsrt's.
    pub crypto_mode: Option<CryptoMode>,
    /// A peer silent for this long is gone, in place of `ingestion.srt.peer_idle_timeout`.
    #[serde(with = "duration::option")]
    pub peer_idle_timeout: Option<Duration>,
    /// How long one attempt may take; by default 3 s for a caller and 30 s in rendezvous, as libsrt has it.
    #[serde(with = "duration::option")]
    pub connect_timeout: Option<Duration>,
    /// The octet of DSCP and ECN in front of what is sent, in place of `ingestion.srt.traffic_class`.
    pub traffic_class: Option<u8>,
    /// Time to live of it, in place of `ingestion.srt.ttl`.
    pub ttl: Option<u8>,
    /// The network interface to call by, whatever routes say (libsrt: `SRTO_BINDTODEVICE`); that of the listener does not count here.
    pub interface: Option<String>,
}

/// How a stream is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullMode {
    /// We call a listener.
    Caller,
    /// Both sides call each other.
    Rendezvous,
}

impl PullMode {
    /// The word for it: `caller`, `rendezvous`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Rendezvous => "rendezvous",
        }
    }
}

impl Default for StreamSrt {
    fn default() -> Self {
        Self {
            mode: PullMode::Caller,
            address: String::new(),
            local_address: None,
            local_port: None,
            stream_id: None,
            latency: None,
            passphrase: None,
            key_length: None,
            crypto_mode: None,
            peer_idle_timeout: None,
            connect_timeout: None,
            traffic_class: None,
            ttl: None,
            interface: None,
        }
    }
}

impl StreamSrt {
    /// Every key set, to show of what kind its value is.
    pub(super) fn template() -> Self {
        Self {
            local_address: Some(Ipv4Addr::UNSPECIFIED.into()),
            local_port: Some(0),
            stream_id: Some(String::new()),
            latency: Some(Duration::ZERO),
            passphrase: Some(String::new()),
            key_length: Some(16),
            crypto_mode: Some(CryptoMode::Auto),
            peer_idle_timeout: Some(Duration::ZERO),
            connect_timeout: Some(Duration::ZERO),
            traffic_class: Some(0),
            ttl: Some(0),
            interface: Some(String::new()),
            ..Self::default()
        }
    }

    /// Host and port of the peer, the brackets of an IPv6 address taken off; `None` when it is not written so.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        // A bare IPv6 address would leave it open where its port begins.
        let host = inner.or_else(|| (!host.contains([':', '[', ']'])).then_some(host))?;
        let port = port.parse().ok().filter(|&port: &u16| port != 0)?;
        (!host.is_empty() && !host.contains(char::is_whitespace)).then_some((host, port))
    }

    /// The peer's address, when it is no name.
    pub fn literal(&self) -> Option<SocketAddr> {
        let (host, port) = self.host_and_port()?;
        Some(SocketAddr::new(host.parse().ok()?, port))
    }

    /// The address to bind: of the peer's version of IP.
    pub fn bind(&self) -> SocketAddr {
        let any = match self.literal() {
            Some(SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            Some(SocketAddr::V4(_)) | None => Ipv4Addr::UNSPECIFIED.into(),
        };
        let of_peer = match self.mode {
            PullMode::Caller => None,
            PullMode::Rendezvous => self.host_and_port().map(|(_, port)| port),
        };
        SocketAddr::new(self.local_address.unwrap_or(any), self.local_port.or(of_peer).unwrap_or(0))
    }

    /// How long one attempt may take.
    pub fn timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(match self.mode {
            PullMode::Caller => Duration::from_secs(3),
            PullMode::Rendezvous => Duration::from_secs(30),
        })
    }
}

impl Stream {
    /// The passphrase that it is fetched with.
    pub fn pull_passphrase(&self) -> Option<&str> {
        self.srt.as_ref().and_then(|srt| srt.passphrase.as_deref()).or(self.passphrase.as_deref())
    }

    /// The first key that is set beside `srt` and would mean nothing there, and why: these are about who calls us.
    fn first_key_of_no_meaning_to_a_pull(&self) -> Option<(&'static str, &'static str)> {
        const NOBODY_CALLS: &str =
            "means nothing for a stream that is fetched (see its srt section): nobody else may send it. Leave it out";
        let keys = [
            (self.source.is_some(), "source", "is said by srt.address already: leave it out"),
            (!self.allow.is_empty(), "allow", NOBODY_CALLS),
            (!self.deny.is_empty(), "deny", NOBODY_CALLS),
            (self.takeover != Takeover::default(), "takeover", NOBODY_CALLS),
        ];
        keys.into_iter().find_map(|(is_set, key, reason)| is_set.then_some((key, reason)))
    }
}

impl Config {
    /// The first thing said of a fetched stream that makes no sense: its key and why.
    pub(super) fn first_fault_of_pulls(&self) -> Option<(String, String)> {
        let pulls = self.streams.iter().filter_map(|(name, stream)| Some((name, stream, stream.srt.as_ref()?)));
        for (name, stream, srt) in pulls.clone() {
            if let Some((key, reason)) = stream.first_key_of_no_meaning_to_a_pull() {
                return Some((stream_key(name, key), reason.to_owned()));
            }
            let fits = srt.stream_id.as_ref().is_none_or(|it| it.len() <= STREAM_ID_LEN_MAX);
            let is_printable = srt.stream_id.as_ref().is_none_or(|it| !it.contains(char::is_control));
            let same_version = match (srt.literal(), srt.local_address) {
                (Some(peer), Some(local)) => peer.is_ipv4() == local.is_ipv4(),
                _ => true,
            };
            let is_kernels = !matches!(self.shards.packet_io, PacketIo::Xdp | PacketIo::Dpdk);
            let timeout = srt.timeout();
            let checks: [(bool, &str, &str); 13] = [
                (
                    is_kernels,
                    "",
                    "is fetched through the kernel's sockets, which shards.packet_io goes past: set it to auto, uring or mmsg",
                ),
                (stream.rtp.is_none(), "", "has an rtp section too: a stream comes by one of them"),
                (srt.peer_idle_timeout.is_none_or(|it| !it.is_zero()), ".peer_idle_timeout", "must be above 0"),
                (
                    srt.host_and_port().is_some(),
                    ".address",
                    "is no host:port, such as encoder.example:9000 or [2001:db8::1]:9000",
                ),
                (same_version, ".local_address", "is of another version of IP than the peer's address"),
                (srt.local_port != Some(0), ".local_port", "is 0: leave it out for any port"),
                (fits, ".stream_id", "is longer than 512 bytes"),
                (is_printable, ".stream_id", "has control characters in it"),
                (
                    srt.mode == PullMode::Caller || srt.stream_id.is_none(),
                    ".stream_id",
                    "says nothing in rendezvous, where nobody is asked for anything: leave it out",
                ),
                (
                    srt.latency.is_none_or(|it| it <= self.ingestion.srt.latency_max),
                    ".latency",
                    "is above ingestion.srt.latency_max",
                ),
                (
                    srt.key_length.is_none_or(|it| [16, 24, 32].contains(&it)),
                    ".key_length",
                    "must be 16, 24 or 32 bytes",
                ),
                (
                    (srt.key_length.is_none() && srt.crypto_mode.is_none()) || stream.pull_passphrase().is_some(),
                    if srt.key_length.is_some() { ".key_length" } else { ".crypto_mode" },
                    "there is no passphrase, so that nothing would be encrypted",
                ),
                (
                    !timeout.is_zero() && timeout <= CONNECT_TIMEOUT_MAX,
                    ".connect_timeout",
                    "must be above 0 and not above 60 s",
                ),
            ];
            if let Some((_, key, reason)) = checks.iter().find(|(holds, ..)| !holds) {
                return Some((stream_key(name, &format!("srt{key}")), (*reason).to_owned()));
            }
        }
        if pulls.count() > self.ingestion.max_connections as usize {
            return Some((
                "ingestion.max_connections".to_owned(),
                "is below the number of streams that are fetched (streams.NAME.srt)".to_owned(),
            ));
        }
        let ingestion = &self.ingestion;
        let is_sound = !ingestion.reconnect_interval.is_zero()
            && ingestion.reconnect_interval <= ingestion.reconnect_interval_max
            && ingestion.reconnect_interval_max <= Duration::from_secs(3_600);
        (!is_sound).then(|| {
            (
                "ingestion.reconnect_interval".to_owned(),
                "must be above 0 and not above ingestion.reconnect_interval_max, which is 1 h at most".to_owned(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> StreamSrt {
        StreamSrt { address: address.to_owned(), ..StreamSrt::default() }
    }

    #[test]
    fn a_peer_is_a_name_or_an_address_and_a_port() {
        assert_eq!(at("encoder.example:9000").host_and_port(), Some(("encoder.example", 9_000)));
        assert_eq!(at("[2001:db8::1]:9000").literal(), Some("[2001:db8::1]:9000".parse().unwrap()));
        assert_eq!(at("encoder.example:9000").literal(), None);
        for none in
            ["", "encoder", "encoder:", ":9000", "encoder:0", "encoder:70000", "2001:db8::1:9000", "a b:1", "[::1:9000"]
        {
            assert_eq!(at(none).host_and_port(), None, "{none:?}");
        }
    }

    #[test]
    fn a_rendezvous_is_bound_to_the_peers_port_and_a_caller_to_any() {
        let bind = |srt: StreamSrt| srt.bind().to_string();
        assert_eq!(bind(at("192.0.2.1:9000")), "0.0.0.0:0");
        assert_eq!(bind(at("encoder.example:9000")), "0.0.0.0:0");
        assert_eq!(bind(at("[2001:db8::1]:9000")), "[::]:0");
        let rendezvous = StreamSrt { mode: PullMode::Rendezvous, ..at("192.0.2.1:9000") };
        assert_eq!(bind(rendezvous.clone()), "0.0.0.0:9000");
        assert_eq!(bind(StreamSrt { local_port: Some(9_001), ..rendezvous.clone() }), "0.0.0.0:9001");
        let local_address = Some("198.51.100.7".parse().unwrap());
        assert_eq!(bind(StreamSrt { local_address, ..rendezvous }), "198.51.100.7:9000");
    }
}
