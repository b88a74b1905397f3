//! What is compared with what.

use crate::support::load::Load;

/// One line of the report.
pub struct Row {
    /// What `--rows` calls it.
    pub name: &'static str,
    pub title: &'static str,
    /// What the design asks for; empty where it asks for nothing.
    pub target: &'static str,
    pub sides: [Side; 2],
    pub figure: Figure,
}

/// One of the two that are compared.
pub struct Side {
    /// What the lines of the report call it.
    pub name: &'static str,
    pub receiver: Receiver,
    /// What is set of its configuration, beside what all have.
    pub settings: &'static [&'static str],
    /// Another number and rate of feeds than `--feeds` and `--rate` say.
    pub load: Option<(u32, &'static str)>,
    /// Between two hosts (network namespaces) that are joined by a cable, instead of on the loopback.
    pub wire: bool,
}

/// Who takes the feeds.
#[derive(Clone, Copy, PartialEq)]
pub enum Receiver {
    /// The appliance, fed with this.
    Appliance(Feed),
    /// The bare receive loop, fed with RTP.
    Bare,
    /// libsrt, which throws away what it has received.
    Libsrt,
}

/// What the appliance is fed with.
#[derive(Clone, Copy, PartialEq)]
pub enum Feed {
    Srt,
    SrtEncrypted {
        /// Bits of the AES key.
        key_length: &'static str,
    },
    Rtp,
}

/// The figure of a pair, first ÷ second unless it says otherwise.
#[derive(Clone, Copy, PartialEq)]
pub enum Figure {
    /// CPU time.
    Cost,
    /// CPU time, second ÷ first.
    CostOfSecond,
    /// CPU time for each packet.
    CostPerPacket,
    /// p99 from kernel to awake reader, of tracks whose frames show their end with their last packet.
    AwakeP99,
}

impl Side {
    const fn new(name: &'static str, receiver: Receiver) -> Self {
        Self { name, receiver, settings: &[], load: None, wire: false }
    }

    const fn ours(feed: Feed) -> Self {
        Self::new("ours", Receiver::Appliance(feed))
    }

    const fn with(self, settings: &'static [&'static str]) -> Self {
        Self { settings, ..self }
    }

    const fn at(self, feeds: u32, rate: &'static str) -> Self {
        Self { load: Some((feeds, rate)), ..self }
    }

    const fn by_wire(self) -> Self {
        Self { wire: true, ..self }
    }

    /// What it is sent, where `usual` says what is sent otherwise.
    pub fn load(&self, usual: &Load) -> Load {
        let Some((feeds, rate)) = self.load else { return usual.clone() };
        Load { feeds, rate: rate.to_owned(), seconds: usual.seconds }
    }
}

/// As many as libsrt takes on one core.
const LIBSRT_FEEDS: (u32, &str) = (8, "50M");
/// Room for a hundred feeds, and rings that are made before the last of them waits too long for its own.
const HUNDRED: &[&str] = &[
    "ingestion.max_connections=100",
    "ingestion.memory.global_limit=12884901888",
    "ingestion.frame.max_frame_size=2097152",
];
/// Few enough that readers find the generator's core free.
const BUSY_FEEDS: (u32, &str) = (2, "50M");

pub static ROWS: [Row; 9] = [
    Row {
        name: "plain",
        title: "SRT plain → frames ÷ bare loop",
        target: "≤ 2.0, then 1.5",
        sides: [Side::ours(Feed::Srt), Side::new("bare", Receiver::Bare)],
        figure: Figure::Cost,
    },
    Row {
        name: "aes",
        title: "SRT AES-128 → frames ÷ bare loop",
        target: "≤ 2.4",
        sides: [Side::ours(Feed::SrtEncrypted { key_length: "128" }), Side::new("bare", Receiver::Bare)],
        figure: Figure::Cost,
    },
    Row {
        name: "aes256",
        title: "SRT AES-256 → frames ÷ bare loop",
        target: "≤ 2.5",
        sides: [Side::ours(Feed::SrtEncrypted { key_length: "256" }), Side::new("bare", Receiver::Bare)],
        figure: Figure::Cost,
    },
    Row {
        name: "rtp",
        title: "RTP/MPEG-TS → frames ÷ bare loop",
        target: "≤ 1.7",
        // While there are RTP sources a shard does not stretch its batch window, and what it is measured against has the same one.
        sides: [
            Side::ours(Feed::Rtp),
            Side::new("bare", Receiver::Bare).with(&["shards.batch_window=500us", "shards.batch_window_max=500us"]),
        ],
        figure: Figure::Cost,
    },
    Row {
        name: "libsrt",
        title: "libsrt receive only ÷ SRT plain → frames, 8 feeds",
        target: "≥ 7, then 10",
        sides: [
            Side::ours(Feed::Srt).at(LIBSRT_FEEDS.0, LIBSRT_FEEDS.1),
            Side::new("libsrt", Receiver::Libsrt).at(LIBSRT_FEEDS.0, LIBSRT_FEEDS.1),
        ],
        figure: Figure::CostOfSecond,
    },
    Row {
        name: "growth",
        title: "a packet of 100 feeds of 5 Mbit/s ÷ of 10 feeds of 50 Mbit/s, SRT plain → frames",
        target: "≤ 1.15",
        sides: [
            Side { name: "100 x 5", ..Side::ours(Feed::Srt).at(100, "5M").with(HUNDRED) },
            Side { name: "10 x 50", ..Side::ours(Feed::Srt).at(10, "50M").with(HUNDRED) },
        ],
        figure: Figure::CostPerPacket,
    },
    Row {
        name: "busy",
        title: "kernel → reader awake by RTP, p99 where the end shows: busy polling ÷ batch window of 500 µs",
        target: "",
        sides: [
            Side {
                name: "busy",
                ..Side::ours(Feed::Rtp).at(BUSY_FEEDS.0, BUSY_FEEDS.1).with(&["shards.busy_poll=true"])
            },
            Side { name: "window", ..Side::ours(Feed::Rtp).at(BUSY_FEEDS.0, BUSY_FEEDS.1) },
        ],
        figure: Figure::AwakeP99,
    },
    Row {
        name: "mmsg",
        title: "SRT plain → frames by recvmmsg ÷ by io_uring",
        target: "",
        sides: [
            Side { name: "mmsg", ..Side::ours(Feed::Srt).with(&["shards.packet_io=mmsg"]) },
            Side { name: "uring", ..Side::ours(Feed::Srt).with(&["shards.packet_io=uring"]) },
        ],
        figure: Figure::Cost,
    },
    Row {
        name: "xdp",
        title: "SRT plain → frames by AF_XDP ÷ by io_uring, both over a veth pair (copied, by the sender's softirq)",
        target: "",
        sides: [
            Side { name: "xdp", ..Side::ours(Feed::Srt).with(&["shards.packet_io=xdp"]).by_wire() },
            Side { name: "uring", ..Side::ours(Feed::Srt).with(&["shards.packet_io=uring"]).by_wire() },
        ],
        figure: Figure::Cost,
    },
];
