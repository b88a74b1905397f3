//! File, environment and flags become one [`Config`], parsed once into types that cannot be wrong.
//!
//! Three sources, later ones winning: a YAML file, environment variables (`HEADWORKS_INGESTION__SRT__PORT=30000`), and
//! `--set ingestion.srt.port=30000`. A key that is not known is an error that names its line and the nearest known key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
    /// Most SRT streams at once, those included that wait for their source to come back.
    pub max_connections: u32,
    /// A stream without a packet for this long has ended.
    #[serde(with = "duration")]
    pub stream_timeout: Duration,
    /// How long to wait before a pulled source is tried again.
    #[serde(with = "duration")]
    pub reconnect_interval: Duration,
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
    /// Most sources at once.
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
    /// Streams to plan memory for.
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
    /// Bytes for everything.
    pub global_limit: u64,
    /// Bytes for one stream.
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
    /// Longest wait for more packets before a batch is worked on; 0 polls without pause.
    #[serde(with = "duration")]
    pub batch_window: Duration,
    /// Never sleep, even without traffic.
    pub busy_poll: bool,
    /// How packets come in.
    pub packet_io: PacketIo,
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
    /// The best that the host has.
    Auto,
    /// io_uring.
    Uring,
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
    /// Write a CRC32C with every frame.
    pub crc: bool,
    /// How long rings of an ended stream stay for their readers.
    #[serde(with = "duration")]
    pub retention: Duration,
}

/// `control`: the HTTP endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    /// Whether to serve it.
    pub enabled: bool,
    /// Address and port.
    pub listen: SocketAddr,
}

/// `streams.NAME`: settings of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stream {
    /// What the peer must know, 10 to 79 bytes.
    pub passphrase: Option<String>,
    /// The least SRT latency of this stream.
    #[serde(with = "duration::option")]
    pub latency: Option<Duration>,
    /// The only address that may send it.
    pub source: Option<IpAddr>,
    /// Its own RTP input.
    pub rtp: Option<StreamRtp>,
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
    /// An SDP file that says all of this.
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

/// Keys that are read and checked, but have no effect yet.
const NOT_YET_IN_EFFECT: &[&str] = &[
    "ingestion.backpressure",
    "ingestion.buffer.read_timeout",
    "ingestion.buffer.write_timeout",
    "ingestion.gop.force_idr_interval",
    "ingestion.gop.max_gop_size",
    "ingestion.memory.gc_interval",
    "ingestion.reconnect_interval",
    "ingestion.sync",
];

impl Default for Ingestion {
    fn default() -> Self {
        Self {
            max_connections: 25,
            stream_timeout: Duration::from_secs(30),
            reconnect_interval: Duration::from_secs(5),
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
            busy_poll: false,
            packet_io: PacketIo::Auto,
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
            crc: false,
            retention: Duration::from_secs(60),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { enabled: true, listen: SocketAddr::from(([127, 0, 0, 1], 8_080)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// Why a configuration was refused. Each names the key or the line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{path}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        reason: String,
    },
    /// A key that means nothing here.
    #[error("{place}: unknown key {key}{}", nearest.as_ref().map(|key| format!("; did you mean {key}?")).unwrap_or_default())]
    UnknownKey {
        /// File and line, environment variable or flag.
        place: String,
        /// The key as dotted path.
        key: String,
        /// The known key that is most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong kind, or out of range.
    #[error("{place}: {key}: {reason}")]
    Value {
        /// File and line, environment variable or flag.
        place: String,
        /// The key as dotted path.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A `--set` without `=`.
    #[error("--set {0}: expected key=value")]
    NotAnAssignment(String),
}

/// A configuration with what is to be said about it at start.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Keys that were set and have no effect yet.
    pub not_yet_in_effect: Vec<String>,
}

/// Reads the file if there is one, then the environment, then the assignments of `--set`.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    assignments: &[String],
) -> Result<Loaded, ConfigError> {
    let mut sources = Sources::default();
    if let Some(path) = file {
        sources.read_file(path)?;
    }
    for (name, value) in environment {
        // `HEADWORKS_LOG` and the like without a group are not configuration keys.
        if let Some(key) = name.strip_prefix("HEADWORKS_").filter(|key| key.contains("__")) {
            sources.assign(&key.to_lowercase().replace("__", "."), &value, format!("environment variable {name}"))?;
        }
    }
    for assignment in assignments {
        let (key, value) =
            assignment.split_once('=').ok_or_else(|| ConfigError::NotAnAssignment(assignment.clone()))?;
        sources.assign(key.trim(), value.trim(), format!("--set {assignment}"))?;
    }
    sources.into_config()
}

/// The values of all sources merged, and where each was set.
#[derive(Default)]
struct Sources {
    values: Map<String, Value>,
    places: BTreeMap<String, String>,
}

impl Sources {
    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        self.read_text(&text, path)
    }

    fn read_text(&mut self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let syntax = |reason: String| ConfigError::Syntax { path: path.to_owned(), reason };
        let value: Value = if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            Value::Object(Map::new())
        } else {
            serde_saphyr::from_str(text).map_err(|error| syntax(error.to_string()))?
        };
        let Value::Object(values) = value else {
            return Err(syntax("expected keys and values at the top level".to_owned()));
        };
        for (key, line) in key_lines(text) {
            self.places.entry(key).or_insert_with(|| format!("{}:{line}", path.display()));
        }
        let mut keys = Vec::new();
        collect_keys(&Value::Object(values.clone()), "", &mut keys);
        for key in keys {
            let place = self.places.get(&key).cloned().unwrap_or_else(|| path.display().to_string());
            check_known(&key, &place)?;
        }
        self.values = values;
        Ok(())
    }

    fn assign(&mut self, key: &str, value: &str, place: String) -> Result<(), ConfigError> {
        check_known(key, &place)?;
        let value = serde_saphyr::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        let mut parts = key.split('.').peekable();
        let mut map = &mut self.values;
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                map.insert(part.to_owned(), value);
                break;
            }
            let child = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
            if !child.is_object() {
                *child = Value::Object(Map::new());
            }
            map = child.as_object_mut().expect("it was just made an object");
        }
        self.places.insert(key.to_owned(), place);
        Ok(())
    }

    fn into_config(self) -> Result<Loaded, ConfigError> {
        let place = |key: &str| self.places.get(key).cloned().unwrap_or_else(|| "configuration".to_owned());
        let config: Config = serde_path_to_error::deserialize(Value::Object(self.values.clone())).map_err(|error| {
            let key = error.path().to_string();
            ConfigError::Value { place: place(&key), key, reason: error.into_inner().to_string() }
        })?;
        if let Some((key, reason)) = config.first_fault() {
            return Err(ConfigError::Value { place: place(&key), key, reason });
        }
        let mut keys = Vec::new();
        collect_keys(&Value::Object(self.values), "", &mut keys);
        let not_yet: BTreeSet<String> = keys
            .into_iter()
            .filter(|key| {
                NOT_YET_IN_EFFECT
                    .iter()
                    .any(|later| key == later || key.strip_prefix(later).is_some_and(|rest| rest.starts_with('.')))
            })
            .collect();
        Ok(Loaded { config, not_yet_in_effect: not_yet.into_iter().collect() })
    }
}

impl Config {
    /// The first value that is of the right kind and still makes no sense: its key and why.
    fn first_fault(&self) -> Option<(String, String)> {
        let ingestion = &self.ingestion;
        let passphrases = self
            .streams
            .iter()
            .filter_map(|(name, stream)| Some((format!("streams.{name}.passphrase"), stream.passphrase.as_ref()?)))
            .chain(ingestion.srt.passphrase.as_ref().map(|it| ("ingestion.srt.passphrase".to_owned(), it)));
        for (key, passphrase) in passphrases {
            if !(10..=79).contains(&passphrase.len()) {
                return Some((key, format!("a passphrase has 10 to 79 bytes, this one has {}", passphrase.len())));
            }
        }
        let checks: [(bool, &str, &str); 12] = [
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
            (ingestion.srt.max_bandwidth >= 100_000, "ingestion.srt.max_bandwidth", "is below 100000 bits per second"),
            ((1..=4_096).contains(&ingestion.max_connections), "ingestion.max_connections", "must be 1 to 4096"),
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
            (self.output.root.is_absolute(), "output.root", "must be an absolute path"),
        ];
        checks.iter().find(|(holds, ..)| !holds).map(|(_, key, reason)| ((*key).to_owned(), (*reason).to_owned()))
    }
}

/// The known keys as dotted paths; `*` stands for a name that the user chooses.
fn known_keys() -> Vec<String> {
    let mut keys = Vec::new();
    let template = Config {
        streams: BTreeMap::from([("*".to_owned(), Stream { rtp: Some(StreamRtp::default()), ..Stream::default() })]),
        ..Config::default()
    };
    let value = serde_json::to_value(template).expect("a configuration can be written as JSON");
    collect_keys(&value, "", &mut keys);
    keys
}

/// All dotted paths in `value`, groups included, arrays and empty maps as leaves.
fn collect_keys(value: &Value, prefix: &str, keys: &mut Vec<String>) {
    let Value::Object(map) = value else { return };
    for (name, child) in map {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        keys.push(key.clone());
        if !key.ends_with("payload_types") {
            collect_keys(child, &key, keys);
        }
    }
}

fn check_known(key: &str, place: &str) -> Result<(), ConfigError> {
    let known = known_keys();
    let generic = generic_key(key);
    if known.contains(&generic) {
        return Ok(());
    }
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(candidate, &generic), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len() / 2)
        .map(|(_, candidate)| match key.split('.').nth(1) {
            Some(name) if candidate.starts_with("streams.*") => candidate.replacen('*', name, 1),
            _ => candidate.clone(),
        });
    Err(ConfigError::UnknownKey { place: place.to_owned(), key: key.to_owned(), nearest })
}

/// `streams.cam1.latency` as `streams.*.latency`, and a payload type's key as its map's.
fn generic_key(key: &str) -> String {
    let mut parts: Vec<&str> = key.split('.').collect();
    if parts.len() > 1 && parts[0] == "streams" {
        parts[1] = "*";
    }
    if let Some(index) = parts.iter().position(|part| *part == "payload_types") {
        parts.truncate(index + 1);
    }
    parts.join(".")
}

/// The line of each key of a block-style YAML text, by dotted path.
///
/// Only for messages: what cannot be followed (flow style, anchors) gets no line, and the file is named without one.
fn key_lines(text: &str) -> Vec<(String, usize)> {
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with(['#', '-']) {
            continue;
        }
        let Some((name, _)) = content.split_once(':') else { continue };
        let indent = line.len() - content.len();
        open.retain(|(depth, _)| *depth < indent);
        open.push((indent, name.trim().trim_matches(['"', '\'']).to_owned()));
        let path: Vec<&str> = open.iter().map(|(_, name)| name.as_str()).collect();
        lines.push((path.join("."), index + 1));
    }
    lines
}

/// Durations as `500us`, `120ms`, `30s`, `5m`, `1h`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Reads `text` as a number with one of the units `us ms s m h`.
    ///
    /// # Errors
    /// [`ParseError`] for anything else.
    pub fn parse(text: &str) -> Result<Duration, ParseError> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let nanoseconds_per_unit = match unit.trim() {
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            "" if number == "0" => 0.0,
            _ => return Err(ParseError(text.to_owned())),
        };
        let number: f64 = number.parse().map_err(|_| ParseError(text.to_owned()))?;
        let nanoseconds = number * nanoseconds_per_unit;
        if nanoseconds > 1e18 {
            return Err(ParseError(text.to_owned()));
        }
        Ok(Duration::from_nanos(nanoseconds.round() as u64))
    }

    /// Writes a duration in the largest unit that leaves no fraction.
    pub fn format(duration: Duration) -> String {
        let us = duration.as_micros();
        for (unit_us, unit) in [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")] {
            if us >= unit_us && us.is_multiple_of(unit_us) {
                return format!("{}{unit}", us / unit_us);
            }
        }
        format!("{us}us")
    }

    /// The text is no duration.
    #[derive(Debug, thiserror::Error)]
    #[error("{0:?} is not a duration: write a number and a unit, such as 120ms, 30s, 5m or 1h")]
    pub struct ParseError(String);

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(serde_json::Number),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Text(text) => text,
            Written::Number(number) => number.to_string(),
        };
        parse(&text).map_err(de::Error::custom)
    }

    pub(super) mod option {
        use super::{Deserializer, Duration, Serializer};

        pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}

#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;
