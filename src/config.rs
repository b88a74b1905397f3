//! File, environment and flags become one [`Config`], parsed once into types that cannot be wrong.
//!
//! Three sources, later ones winning: a YAML file, environment variables (`HEADWORKS_INGESTION__SRT__PORT=30000`), and
//! `--set ingestion.srt.port=30000`. A key that is not known is an error that names its line and the nearest known key.
//!
//! Here: what can be set, then the defaults. Beside it: `load.rs` merges the sources, `keys.rs` knows which keys there are,
//! `checks.rs` which values make sense, `pull.rs` what is said of streams that are fetched, `duration.rs` how a duration is written,
//! `host_address.rs` an address with its prefix, `access.rs` who is let in, `network.rs` where from, `srt_version.rs` a version of theirs.

mod access;
mod checks;
pub mod duration;
#[doc(hidden)]
pub mod fuzzing;
mod host_address;
mod keys;
mod load;
mod network;
pub mod pull;
mod srt_version;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use access::{Access, Takeover, User};
pub use checks::{PASSPHRASE_LEN_MAX, PASSPHRASE_LEN_MIN};
pub use host_address::HostAddress;
pub use keys::{stream_key, user_key};
pub use load::{ConfigError, Loaded, load};
pub use network::{Network, admits, refusing_list};
pub use pull::{PullMode, StreamSrt};
pub use srt_version::SrtVersion;

/// Everything that can be set. Field names are the keys of the YAML file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// What is taken in, and the limits on it.
    pub ingestion: Ingestion,
    /// The cores that do it.
    pub shards: Shards,
    /// Where frames go.
    pub output: Output,
    /// The HTTP endpoint.
    pub control: Control,
    /// Named streams with settings of their own.
    pub streams: BTreeMap<String, Stream>,
    /// What is written to the log.
    pub log: Log,
}

/// `ingestion`: what is taken in, and the limits on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the groups' own types say what they are")]
pub struct Ingestion {
    /// Most SRT sessions at once. A stream without a session waits for its source to come back, until another needs its place.
    pub max_connections: u32,
    /// A stream without a packet for this long has ended.
    #[serde(with = "duration")]
    pub stream_timeout: Duration,
    /// How long to wait before a source that is fetched (`streams.NAME.srt`) is tried again: twice as long after each failure.
    #[serde(with = "duration")]
    pub reconnect_interval: Duration,
    /// The longest such wait; also how often a source is tried that has failed many times, or refuses us.
    #[serde(with = "duration")]
    pub reconnect_interval_max: Duration,
    pub srt: Srt,
    pub rtp: Rtp,
    pub buffer: Buffer,
    pub memory: Memory,
    pub backpressure: Backpressure,
    pub frame: Frame,
    pub gop: Gop,
    pub sync: Sync,
}

/// `ingestion.srt`: the SRT listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Srt {
    /// Whether to listen at all.
    pub enabled: bool,
    /// Address to listen on.
    pub address: IpAddr,
    /// UDP port.
    pub port: u16,
    /// The least latency; the peer may ask for more.
    #[serde(with = "duration")]
    pub latency: Duration,
    /// The most latency that a peer gets.
    #[serde(with = "duration")]
    pub latency_max: Duration,
    /// Bits per second that one stream may use; sizes its buffers.
    pub max_bandwidth: u64,
    /// Payload bytes of one packet, at most.
    pub payload_size: u32,
    /// Packets in flight that the peer is told it may have.
    pub flow_window: u32,
    /// A peer silent for this long is gone.
    #[serde(with = "duration")]
    pub peer_idle_timeout: Duration,
    /// What every peer must know, 10 to 79 bytes; none leaves the port open to plain peers.
    pub passphrase: Option<String>,
    /// What the payloads of encrypted peers may be under.
    pub crypto_mode: CryptoMode,
    /// Refuse callers whose passphrase is another one, or who have one where there is none here, or none where there is one (libsrt:
    /// `SRTO_ENFORCEDENCRYPTION`). Otherwise they are let in; what they send encrypted is dropped, and what they send plain is taken.
    pub enforced_encryption: bool,
    /// Who is let in, and how often anybody may ask.
    pub access: Access,
    /// The oldest SRT that callers may have (libsrt: `SRTO_MINVERSION`), later than 1.3.0; none: any.
    pub version_min: Option<SrtVersion>,
    /// Whether a peer may send one stream over several connections (libsrt: socket groups, `SRTO_GROUPCONNECT`).
    pub bonding: bool,
    /// The packet filter that every peer must agree to, such as `fec,cols:10,rows:5`; without it a peer gets the one that it asks for.
    pub packet_filter: Option<String>,
    /// Packets that may come after a missing one before it is asked for, at most (libsrt: `SRTO_LOSSMAXTTL`): as many as packets lately came
    /// behind their place. With 0 it is asked for at once.
    pub reorder_tolerance: u16,
    /// The octet of DSCP and ECN in front of what is sent to peers: IPv4's ToS, IPv6's traffic class (libsrt: `SRTO_IPTOS`).
    pub traffic_class: Option<u8>,
    /// Time to live of it, IPv6's hop limit (libsrt: `SRTO_IPTTL`).
    pub ttl: Option<u8>,
    /// The network interface that peers come by, and no other (libsrt: `SRTO_BINDTODEVICE`).
    pub interface: Option<String>,
}

/// What encrypted payloads may be under; named as libsrt's `SRTO_CRYPTOMODE`, of which AES-GCM is a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CryptoMode {
    /// Whatever the peer uses: callers of libsrt use AES-CTR unless told otherwise.
    Auto,
    /// AES-CTR; AES-GCM is refused.
    Ctr,
    /// AES-GCM; AES-CTR is refused.
    Gcm,
}

/// `ingestion.rtp`: RTP and raw transport streams over UDP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rtp {
    /// Whether to listen at all.
    pub enabled: bool,
    /// Address to listen on.
    pub address: IpAddr,
    /// UDP port that any number of sources share.
    pub port: u16,
    /// UDP port of their RTCP.
    pub rtcp_port: u16,
    /// Bytes of socket buffer to ask the kernel for.
    pub buffer_size: usize,
    /// Most sources at once, counted as `max_connections` counts SRT sessions.
    pub max_sessions: u32,
    /// A source silent for this long is gone.
    #[serde(with = "duration")]
    pub session_timeout: Duration,
    /// What dynamic payload types carry, such as `96: h264`.
    pub payload_types: BTreeMap<u8, PayloadFormat>,
}

/// What an RTP payload type carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadFormat {
    /// MPEG-2 transport stream (RFC 2250).
    Mp2t,
    /// H.264 (RFC 6184).
    H264,
    /// H.265 (RFC 7798).
    Hevc,
}

/// `ingestion.buffer`: sizes of rings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Buffer {
    /// Smallest ring of a video track in bytes; grows to hold `gop.buffer_count` GOPs.
    pub ring_size: u64,
    /// Streams that memory is planned for, and whose video rings are made ahead, one after the other.
    pub pool_size: u32,
    /// Not used by rings, whose writer never waits.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// Longest wait of a reader for its next look.
    #[serde(with = "duration")]
    pub read_timeout: Duration,
}

/// `ingestion.memory`: limits on memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Bytes for everything: a plan that needs more is no start, and a stream whose rings would need more is refused.
    pub global_limit: u64,
    /// Bytes of rings for one stream; where a planned one needs more, every stream is refused.
    pub per_stream_limit: u64,
    /// How often ended rings are looked through.
    #[serde(with = "duration")]
    pub gc_interval: Duration,
}

/// `ingestion.backpressure`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "accepted, not yet in effect")]
pub struct Backpressure {
    pub enabled: bool,
    pub high_watermark: f64,
    pub low_watermark: f64,
    pub drop_strategy: DropStrategy,
}

/// What goes first when memory runs short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropStrategy {
    /// The oldest frames.
    Oldest,
    /// Frames that nothing refers to.
    LowestPriority,
}

/// `ingestion.frame`: how frames are put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    /// An open frame to which nothing is added for this long is closed.
    #[serde(with = "duration")]
    pub assembly_timeout: Duration,
    /// Bytes of one frame, at most.
    pub max_frame_size: u32,
    /// RTP packets that may wait for one that is missing.
    pub reorder_buffer: u32,
}

/// `ingestion.gop`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gop {
    /// GOPs that a ring holds.
    pub buffer_count: u32,
    /// Frames of one GOP, at most.
    pub max_gop_size: u32,
    /// Longest distance of key frames before the source is reported.
    #[serde(with = "duration")]
    pub force_idr_interval: Duration,
}

/// `ingestion.sync`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "accepted, not yet in effect")]
pub struct Sync {
    pub enabled: bool,
    #[serde(with = "duration")]
    pub threshold: Duration,
    pub correction_rate: f64,
    #[serde(with = "duration")]
    pub max_drift: Duration,
}

/// `shards`: the cores that take packets in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shards {
    /// One shard per core named here; empty: one shard per core of the machine, two at most.
    pub cores: Vec<usize>,
    /// Longest wait for more packets before a batch is worked on, while many come, any of them come by RTP, or some were missing within
    /// the last second; 0 polls without pause.
    #[serde(with = "duration")]
    pub batch_window: Duration,
    /// The same while few come and none is missing, and all by SRT, whose packets have a latency to be delivered after: fewer turns, each with more
    /// to do. Equal to `batch_window` for a window that never changes.
    #[serde(with = "duration")]
    pub batch_window_max: Duration,
    /// Never sleep, even without traffic.
    pub busy_poll: bool,
    /// The way that packets come in.
    pub packet_io: PacketIo,
    /// With [`PacketIo::Xdp`], the network interfaces that packets are taken from; empty: those that own the addresses listened on.
    pub xdp_interfaces: Vec<String>,
    /// Take datagrams of one sender that come side by side as one aggregate (UDP GRO), where they do: bursts and feeds of hundreds of
    /// Mbit/s, on some cards anything. Paced feeds come one by one, and each of their datagrams would be copied once more.
    pub gro: bool,
    /// With [`PacketIo::Dpdk`], the device and who this host is on its link.
    pub dpdk: Dpdk,
    /// Bytes of socket buffer to ask the kernel for, per socket.
    pub socket_buffer: usize,
    /// How much latency packet memory is planned for, per stream.
    #[serde(with = "duration")]
    pub planned_latency: Duration,
}

/// Ways to get packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PacketIo {
    /// io_uring where it works, else `recvmmsg`. Never AF_XDP: it wants privileges, goes past the host's firewall and lays hold of
    /// a card's queues, which is for the operator to decide.
    Auto,
    /// io_uring.
    Uring,
    /// `recvmmsg` and `sendmmsg`.
    Mmsg,
    /// AF_XDP, past the kernel's stack.
    Xdp,
    /// DPDK, without the kernel; in programs that are built with the feature `dpdk`.
    Dpdk,
}

/// `shards.dpdk`: a network card without the kernel, which knows nothing of it then: not its addresses, not its routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dpdk {
    /// The PCI address of the card (`0000:01:00.0`), or a virtual device with its parameters (`net_af_packet0,iface=eth1`).
    pub device: Option<String>,
    /// The host's addresses there.
    pub addresses: Vec<HostAddress>,
    /// Who forwards what is for none of their prefixes, one for each version; none: there is nobody beyond.
    pub gateways: Vec<IpAddr>,
    /// The VLAN that all of this is in (1 to 4094); none: frames have no tag.
    pub vlan: Option<u16>,
    /// More arguments for DPDK's environment, such as `--no-huge`.
    pub eal_args: Vec<String>,
}

/// `output`: where frames go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    /// Directory of the rings, on a tmpfs.
    pub root: PathBuf,
    /// Group whose members may read.
    pub group: String,
    /// Least media time that a ring holds.
    #[serde(with = "duration")]
    pub history: Duration,
    /// Ask for reserved huge pages under packet memory. Rings get huge pages wherever the kernel gives them.
    pub huge_pages: bool,
    /// A mount of hugetlbfs, with pages of 2 MiB, for the payload of video rings; none: tmpfs, its pages collapsed into huge ones.
    pub hugetlbfs: Option<PathBuf>,
    /// Write a CRC32C with every frame.
    pub crc: bool,
    /// Who reads without the right to the files.
    pub broker: Broker,
    /// How long rings of an ended stream stay for their readers.
    #[serde(with = "duration")]
    pub retention: Duration,
}

/// `output.broker`: a Unix socket that hands rings to readers whom the file modes keep out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Broker {
    /// Where it listens, in a directory that is there and that readers may enter; none: there is no broker.
    pub socket: Option<PathBuf>,
    /// Connections at a time. One user has a quarter of them at most.
    pub max_connections: u32,
    /// Who may read the streams that name nobody themselves.
    pub readers: Readers,
}

/// Users and groups, by their numbers. A group counts if it is the reader's effective one or a supplementary one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Readers {
    /// Users.
    pub uids: Vec<u32>,
    /// Groups.
    pub gids: Vec<u32>,
}

/// `control`: the HTTP endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    /// Whether to serve it.
    pub enabled: bool,
    /// Address and port.
    pub listen: SocketAddr,
    /// Encryption, whatever stands there: not yet in effect, so `listen` must then be a loopback address.
    pub tls: Option<Value>,
    /// Who may ask, whatever stands there: not yet in effect, so `listen` must then be a loopback address.
    pub auth: Option<Value>,
}

/// `streams.NAME`: settings of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stream {
    /// What the peer must know, 10 to 79 bytes.
    pub passphrase: Option<String>,
    /// What its payloads may be under, in place of `ingestion.srt.crypto_mode`.
    pub crypto_mode: Option<CryptoMode>,
    /// The packet filter that its peers must agree to, in place of `ingestion.srt.packet_filter`.
    pub packet_filter: Option<String>,
    /// Packets that may come after a missing one before it is asked for, in place of `ingestion.srt.reorder_tolerance`.
    pub reorder_tolerance: Option<u16>,
    /// The least SRT latency of this stream.
    #[serde(with = "duration::option")]
    pub latency: Option<Duration>,
    /// In place of `ingestion.srt.enforced_encryption`.
    pub enforced_encryption: Option<bool>,
    /// The only address that may send it.
    pub source: Option<IpAddr>,
    /// The networks that may send it, beside what `ingestion.srt.access` says; none: any.
    pub allow: Vec<Network>,
    /// The networks that may not send it.
    pub deny: Vec<Network>,
    /// When a caller gets the name though somebody else sends it.
    pub takeover: Takeover,
    /// Its own RTP input.
    pub rtp: Option<StreamRtp>,
    /// Where it is fetched from by SRT. Nobody else may send it then.
    pub srt: Option<StreamSrt>,
    /// Other ways that it comes by, whatever stands there: not yet in effect.
    pub redundancy: Option<Value>,
    /// Who may read it through the broker, in place of `output.broker.readers`.
    pub readers: Option<Readers>,
}

/// `streams.NAME.rtp`: an RTP input or raw transport stream on a port of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamRtp {
    /// UDP port.
    pub port: Option<u16>,
    /// Multicast group to join, or the address to listen on.
    pub address: Option<IpAddr>,
    /// The only sender taken from the group (source-specific multicast).
    pub source: Option<IpAddr>,
    /// Name of the interface to join on.
    pub interface: Option<String>,
    /// The source on the shared port that this stream is.
    pub ssrc: Option<u32>,
    /// What dynamic payload types carry.
    pub payload_types: BTreeMap<u8, PayloadFormat>,
    /// An SDP file that says all of this. Each of its media sections that can be received is a stream: the first one has this
    /// stream's name, the others add the number of their section to it (`NAME-2`). What is set beside it counts for all.
    pub sdp: Option<PathBuf>,
}

/// `log`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,headworks::shard=debug`.
    pub level: String,
    /// Shape of the lines.
    pub format: LogFormat,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Ingestion {
    fn default() -> Self {
        Self {
            max_connections: 25,
            stream_timeout: Duration::from_secs(30),
            reconnect_interval: Duration::from_secs(5),
            reconnect_interval_max: Duration::from_secs(60),
            srt: Srt::default(),
            rtp: Rtp::default(),
            buffer: Buffer::default(),
            memory: Memory::default(),
            backpressure: Backpressure::default(),
            frame: Frame::default(),
            gop: Gop::default(),
            sync: Sync::default(),
        }
    }
}

impl Default for Srt {
    fn default() -> Self {
        Self {
            enabled: true,
            address: IpAddr::from([0, 0, 0, 0]),
            port: 30_000,
            latency: Duration::from_millis(120),
            latency_max: Duration::from_secs(8),
            max_bandwidth: 60_000_000,
            payload_size: 1_316,
            flow_window: 25_600,
            peer_idle_timeout: Duration::from_secs(30),
            passphrase: None,
            crypto_mode: CryptoMode::Auto,
            enforced_encryption: true,
            access: Access::default(),
            version_min: None,
            bonding: true,
            packet_filter: None,
            reorder_tolerance: 0,
            traffic_class: None,
            ttl: None,
            interface: None,
        }
    }
}

impl Default for Rtp {
    fn default() -> Self {
        Self {
            enabled: true,
            address: IpAddr::from([0, 0, 0, 0]),
            port: 5_004,
            rtcp_port: 5_005,
            buffer_size: 2 << 20,
            max_sessions: 30,
            session_timeout: Duration::from_secs(30),
            payload_types: BTreeMap::new(),
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            ring_size: 4 << 20,
            pool_size: 30,
            write_timeout: Duration::from_millis(100),
            read_timeout: Duration::from_millis(100),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { global_limit: 8 << 30, per_stream_limit: 400 << 20, gc_interval: Duration::from_secs(60) }
    }
}

impl Default for Backpressure {
    fn default() -> Self {
        Self { enabled: true, high_watermark: 0.8, low_watermark: 0.6, drop_strategy: DropStrategy::Oldest }
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self { assembly_timeout: Duration::from_secs(5), max_frame_size: 10 << 20, reorder_buffer: 100 }
    }
}

impl Default for Gop {
    fn default() -> Self {
        Self { buffer_count: 3, max_gop_size: 300, force_idr_interval: Duration::from_secs(10) }
    }
}

impl Default for Sync {
    fn default() -> Self {
        Self {
            enabled: true,
            threshold: Duration::from_millis(100),
            correction_rate: 0.1,
            max_drift: Duration::from_secs(1),
        }
    }
}

impl Default for Shards {
    fn default() -> Self {
        Self {
            cores: Vec::new(),
            batch_window: Duration::from_micros(500),
            batch_window_max: Duration::from_millis(4),
            busy_poll: false,
            packet_io: PacketIo::Auto,
            xdp_interfaces: Vec::new(),
            gro: false,
            dpdk: Dpdk::default(),
            socket_buffer: 32 << 20,
            planned_latency: Duration::from_secs(1),
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/dev/shm/headworks"),
            group: "headworks-readers".to_owned(),
            history: Duration::from_secs(2),
            huge_pages: true,
            hugetlbfs: None,
            crc: false,
            broker: Broker::default(),
            retention: Duration::from_secs(60),
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self { socket: None, max_connections: 64, readers: Readers::default() }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { enabled: true, listen: SocketAddr::from(([127, 0, 0, 1], 8_080)), tls: None, auth: None }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}
