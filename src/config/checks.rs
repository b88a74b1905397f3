//! Values that are of the right kind and still make no sense.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::keys::{stream_key, user_key};
use super::{Config, CryptoMode, PacketIo, SrtVersion, StreamRtp};

/// Shortest passphrase that SRT allows, in bytes.
pub const PASSPHRASE_LEN_MIN: usize = 10;
/// Longest passphrase by libsrt's manual, in bytes; its code takes one more.
pub const PASSPHRASE_LEN_MAX: usize = 79;
/// The first version of SRT with handshake version 5.
const VERSION_OF_ALL: SrtVersion = SrtVersion(0x0001_0300);
/// The largest tolerance of reordering, in packets: over as many the largest distance is remembered.
const REORDER_TOLERANCE_MAX: u16 = 1_024;
const REORDER_TOLERANCE_REASON: &str = "is above 1024 packets: what is so far behind counts as lost";
/// Half of what an `int` holds, for the kernel doubles it (`socket(7)`, `SO_RCVBUF`).
const SOCKET_BUFFER_MAX: usize = i32::MAX as usize / 2;

impl Config {
    /// The first value that is of the right kind and still makes no sense: its key and why.
    pub(super) fn first_fault(&self) -> Option<(String, String)> {
        let ingestion = &self.ingestion;
        let passphrases = self
            .streams
            .iter()
            .filter_map(|(name, stream)| Some((stream_key(name, "passphrase"), stream.passphrase.as_ref()?)))
            .chain(
                ingestion
                    .srt
                    .access
                    .users
                    .iter()
                    .filter_map(|(name, user)| Some((user_key(name, "passphrase"), user.passphrase.as_ref()?))),
            )
            .chain(self.streams.iter().filter_map(|(name, stream)| {
                Some((stream_key(name, "srt.passphrase"), stream.srt.as_ref()?.passphrase.as_ref()?))
            }))
            .chain(ingestion.srt.passphrase.as_ref().map(|it| ("ingestion.srt.passphrase".to_owned(), it)));
        for (key, passphrase) in passphrases {
            if !(PASSPHRASE_LEN_MIN..=PASSPHRASE_LEN_MAX).contains(&passphrase.len()) {
                let reason = format!(
                    "a passphrase has {PASSPHRASE_LEN_MIN} to {PASSPHRASE_LEN_MAX} bytes, this one has {}",
                    passphrase.len()
                );
                return Some((key, reason));
            }
        }
        let fault = self.first_fault_of_pulls().or_else(|| self.first_fault_of_streams());
        if let Some(fault) = fault.or_else(|| self.first_fault_of_srt_sockets()) {
            return Some(fault);
        }
        if ingestion.srt.version_min.is_some_and(|it| it <= VERSION_OF_ALL) {
            let reason = format!("must be later than {VERSION_OF_ALL}, which all have that can say theirs");
            return Some(("ingestion.srt.version_min".to_owned(), reason));
        }
        if let Some(key) = self.first_time_of_nothing() {
            return Some((key.to_owned(), "must be above 0".to_owned()));
        }
        if let Some(key) = self.crypto_mode_of_nothing() {
            let reason = "there is no passphrase, so that nothing would be encrypted";
            return Some((key, reason.to_owned()));
        }
        // Who asks for it relies on it: what other hosts can reach is not served without.
        let control = &self.control;
        let is_open = control.enabled && !control.listen.ip().to_canonical().is_loopback();
        for (key, asked) in [("control.auth", &control.auth), ("control.tls", &control.tls)] {
            if is_open && asked.as_ref().is_some_and(is_asked_for) {
                return Some((
                    key.to_owned(),
                    format!(
                        "is not yet in effect, and other hosts reach control.listen {}: listen on a loopback address, or leave {key} out",
                        control.listen
                    ),
                ));
            }
        }
        let dpdk = &self.shards.dpdk;
        let is_dpdk = self.shards.packet_io == PacketIo::Dpdk;
        let checks: [(bool, &str, &str); 26] = [
            (ingestion.srt.latency <= ingestion.srt.latency_max, "ingestion.srt.latency", "is above srt.latency_max"),
            (ingestion.srt.latency_max <= Duration::from_secs(60), "ingestion.srt.latency_max", "is above 60 s"),
            (
                (188..=1_456).contains(&ingestion.srt.payload_size),
                "ingestion.srt.payload_size",
                "must be 188 to 1456 bytes (1456 is what fits an Ethernet frame)",
            ),
            (
                (32..=1 << 20).contains(&ingestion.srt.flow_window),
                "ingestion.srt.flow_window",
                "must be 32 to 1048576 packets",
            ),
            (
                ingestion.srt.reorder_tolerance <= REORDER_TOLERANCE_MAX,
                "ingestion.srt.reorder_tolerance",
                REORDER_TOLERANCE_REASON,
            ),
            (
                (100_000..=10_000_000_000).contains(&ingestion.srt.max_bandwidth),
                "ingestion.srt.max_bandwidth",
                "must be 100000 to 10000000000 bits per second",
            ),
            ((1..=4_096).contains(&ingestion.max_connections), "ingestion.max_connections", "must be 1 to 4096"),
            (ingestion.rtp.max_sessions <= 4_096, "ingestion.rtp.max_sessions", "is above 4096"),
            (
                ingestion.rtp.buffer_size <= SOCKET_BUFFER_MAX,
                "ingestion.rtp.buffer_size",
                "is above 1073741823 bytes, the most that the kernel takes",
            ),
            (
                self.shards.socket_buffer <= SOCKET_BUFFER_MAX,
                "shards.socket_buffer",
                "is above 1073741823 bytes, the most that the kernel takes",
            ),
            (ingestion.buffer.ring_size <= 1 << 40, "ingestion.buffer.ring_size", "is above 1099511627776 bytes"),
            (self.output.history <= Duration::from_secs(3_600), "output.history", "is above 1 h"),
            (self.shards.planned_latency <= Duration::from_secs(60), "shards.planned_latency", "is above 60 s"),
            (
                self.output
                    .broker
                    .socket
                    .as_ref()
                    .is_none_or(|it| it.is_absolute() && !it.starts_with(&self.output.root)),
                "output.broker.socket",
                "must be an absolute path outside output.root, which its readers cannot enter",
            ),
            (
                (1..=1_024).contains(&self.output.broker.max_connections),
                "output.broker.max_connections",
                "must be 1 to 1024",
            ),
            (
                (4_096..=1 << 28).contains(&ingestion.frame.max_frame_size),
                "ingestion.frame.max_frame_size",
                "must be 4096 to 268435456 bytes",
            ),
            (
                (1..=10_000).contains(&ingestion.frame.reorder_buffer),
                "ingestion.frame.reorder_buffer",
                "must be 1 to 10000 packets",
            ),
            ((1..=64).contains(&ingestion.gop.buffer_count), "ingestion.gop.buffer_count", "must be 1 to 64"),
            (self.shards.cores.len() <= 64, "shards.cores", "more than 64 shards"),
            (
                self.shards.batch_window <= Duration::from_millis(100),
                "shards.batch_window",
                "is above 100 ms: frames would come late",
            ),
            (
                self.shards.batch_window_max <= Duration::from_millis(100),
                "shards.batch_window_max",
                "is above 100 ms: frames would come late",
            ),
            (
                !self.shards.gro || matches!(self.shards.packet_io, PacketIo::Auto | PacketIo::Uring | PacketIo::Mmsg),
                "shards.gro",
                "joins datagrams in the kernel, which shards.packet_io goes past",
            ),
            (
                !is_dpdk || dpdk.device.as_ref().is_some_and(|it| !it.is_empty()),
                "shards.dpdk.device",
                "is empty, and shards.packet_io is dpdk: name the network card by its PCI address, such as 0000:01:00.0",
            ),
            (
                !is_dpdk || !dpdk.addresses.is_empty(),
                "shards.dpdk.addresses",
                "is empty, and shards.packet_io is dpdk: say which addresses this host has there, such as [192.0.2.1/24]",
            ),
            (
                dpdk.vlan.is_none_or(|it| (1..=4_094).contains(&it)),
                "shards.dpdk.vlan",
                "must be 1 to 4094, or left out",
            ),
            (self.output.root.is_absolute(), "output.root", "must be an absolute path"),
        ];
        let first = checks.iter().find(|(holds, ..)| !holds);
        first.map(|(_, key, reason)| ((*key).to_owned(), (*reason).to_owned())).or_else(|| self.first_foreign_address())
    }

    /// The first time that is 0 and lets nothing last.
    fn first_time_of_nothing(&self) -> Option<&'static str> {
        let ingestion = &self.ingestion;
        let times = [
            (ingestion.srt.peer_idle_timeout, "ingestion.srt.peer_idle_timeout"),
            (ingestion.rtp.session_timeout, "ingestion.rtp.session_timeout"),
            (ingestion.frame.assembly_timeout, "ingestion.frame.assembly_timeout"),
        ];
        times.into_iter().find_map(|(time, key)| time.is_zero().then_some(key))
    }

    /// The first thing said of a stream that callers or RTP sources send, and that makes no sense.
    fn first_fault_of_streams(&self) -> Option<(String, String)> {
        self.streams.iter().find_map(|(name, stream)| {
            let latency_max = self.ingestion.srt.latency_max;
            let (key, reason) = if stream.latency.is_some_and(|latency| latency > latency_max) {
                ("latency", "is above ingestion.srt.latency_max")
            } else if stream.reorder_tolerance.is_some_and(|packets| packets > REORDER_TOLERANCE_MAX) {
                ("reorder_tolerance", REORDER_TOLERANCE_REASON)
            } else {
                stream.rtp.as_ref().and_then(StreamRtp::first_fault)?
            };
            Some((stream_key(name, key), reason.to_owned()))
        })
    }

    /// What is said of SRT's sockets: the first thing that makes no sense, or that this way of packets cannot do.
    fn first_fault_of_srt_sockets(&self) -> Option<(String, String)> {
        let of_streams = self.streams.iter().filter_map(|(name, stream)| Some((name, stream.srt.as_ref()?)));
        let srt = &self.ingestion.srt;
        let all = of_streams
            .map(|(name, call)| (stream_key(name, "srt"), call.ttl, call.interface.as_deref()))
            .chain([("ingestion.srt".to_owned(), srt.ttl, srt.interface.as_deref())]);
        for (section, ttl, interface) in all {
            if ttl == Some(0) {
                return Some((format!("{section}.ttl"), "is 0: nothing would leave this host".to_owned()));
            }
            if interface.is_some_and(|name| !is_interface_name(name)) {
                let reason = "is no name of a network interface, such as eth0 (`ip link` lists them)";
                return Some((format!("{section}.interface"), reason.to_owned()));
            }
        }
        let given = [
            ("traffic_class", srt.traffic_class.is_some()),
            ("ttl", srt.ttl.is_some()),
            ("interface", srt.interface.is_some()),
        ];
        let (refused, reason): (&[&str], _) = match self.shards.packet_io {
            PacketIo::Dpdk => (
                &["traffic_class", "ttl", "interface"],
                "is said to the kernel's sockets, and shards.packet_io dpdk does without: leave it out",
            ),
            PacketIo::Xdp => (
                &["interface"],
                "binds the kernel's socket, which packets pass by with shards.packet_io xdp: name the interface in shards.xdp_interfaces",
            ),
            PacketIo::Auto | PacketIo::Uring | PacketIo::Mmsg => return None,
        };
        let (key, _) = given.iter().find(|(key, is_given)| *is_given && refused.contains(key))?;
        Some((format!("ingestion.srt.{key}"), reason.to_owned()))
    }

    /// With DPDK, the first address listened on that this host does not have there: the kernel is not asked, and nothing would come.
    fn first_foreign_address(&self) -> Option<(String, String)> {
        if self.shards.packet_io != PacketIo::Dpdk {
            return None;
        }
        let ingestion = &self.ingestion;
        let shared = [
            (ingestion.srt.enabled, "ingestion.srt.address", ingestion.srt.address),
            (ingestion.rtp.enabled, "ingestion.rtp.address", ingestion.rtp.address),
        ];
        let shared = shared.into_iter().filter(|(is_enabled, ..)| *is_enabled);
        let of_streams = self
            .streams
            .iter()
            .filter_map(|(name, stream)| Some((stream_key(name, "rtp.address"), stream.rtp.as_ref()?.address?)));
        let mut all = shared.map(|(_, key, address)| (key.to_owned(), address)).chain(of_streams);
        let is_own = |address: IpAddr| {
            let own = self.shards.dpdk.addresses.iter().any(|it| it.address == address);
            own || address.is_unspecified() || address.is_multicast()
        };
        let (key, address) = all.find(|(_, address)| !is_own(*address))?;
        Some((key, format!("is {address}, which is not among shards.dpdk.addresses")))
    }

    /// The first key that says how to encrypt where nothing is encrypted.
    fn crypto_mode_of_nothing(&self) -> Option<String> {
        let srt = &self.ingestion.srt;
        if srt.passphrase.is_some() {
            return None;
        }
        let open =
            self.streams.iter().find(|(_, stream)| stream.crypto_mode.is_some() && stream.pull_passphrase().is_none());
        let open = open.filter(|_| srt.access.users.values().all(|user| user.passphrase.is_none()));
        if let Some((name, _)) = open {
            return Some(stream_key(name, "crypto_mode"));
        }
        let is_used = self.streams.values().any(|stream| stream.passphrase.is_some())
            || srt.access.users.values().any(|user| user.passphrase.is_some());
        (srt.crypto_mode != CryptoMode::Auto && !is_used).then(|| "ingestion.srt.crypto_mode".to_owned())
    }
}

impl StreamRtp {
    /// The first key, seen from the stream, that nothing would come of, and why.
    fn first_fault(&self) -> Option<(&'static str, &'static str)> {
        let has_port = self.port.is_some() || self.sdp.is_some();
        if !has_port && self.ssrc.is_none() {
            return Some(("rtp", "says nowhere what is to come: set port, ssrc or sdp"));
        }
        const OF_A_PORT: &str = "is about a port of the stream's own: set rtp.port beside it, or leave it out";
        let keys = [
            (self.address.is_some(), "rtp.address"),
            (self.source.is_some(), "rtp.source"),
            (self.interface.is_some(), "rtp.interface"),
        ];
        keys.into_iter().find_map(|(is_set, key)| (is_set && !has_port).then_some((key, OF_A_PORT)))
    }
}

/// As the kernel takes them (`dev_valid_name`).
fn is_interface_name(name: &str) -> bool {
    let is_sound = |byte: u8| byte != b'/' && byte != b':' && !byte.is_ascii_whitespace();
    (1..16).contains(&name.len()) && !matches!(name, "." | "..") && name.bytes().all(is_sound)
}

/// Whether a section says more than that it is not wanted.
fn is_asked_for(section: &Value) -> bool {
    let is_off = section.get("enabled") == Some(&Value::Bool(false));
    !(is_off || matches!(section, Value::Null | Value::Bool(false)))
}
