//! What is compared with what.

use serde_json::{Value, json};

use crate::support::load::Load;

/// One line of the report.
pub struct Row {
    /// What `--rows` calls it.
    pub name: &'static str,
    pub title: &'static str,
    /// What the design asks for, if it asks for anything.
    pub target: Option<Target>,
    /// What is measured, and what it is compared with where the figure is a ratio.
    pub sides: &'static [Side],
    pub figure: Figure,
}

/// What the median of a row's figures is to be.
#[derive(Clone, Copy)]
pub struct Target {
    bound: Bound,
    value: f64,
    /// What is wished for after that.
    then: Option<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Bound {
    AtMost,
    AtLeast,
}

impl Target {
    const fn at_most(value: f64) -> Option<Self> {
        Some(Self { bound: Bound::AtMost, value, then: None })
    }

    const fn at_most_then(value: f64, then: f64) -> Option<Self> {
        Some(Self { bound: Bound::AtMost, value, then: Some(then) })
    }

    const fn at_least_then(value: f64, then: f64) -> Option<Self> {
        Some(Self { bound: Bound::AtLeast, value, then: Some(then) })
    }

    fn is_met_at(self, value: f64, median: f64) -> bool {
        if self.bound == Bound::AtMost { median <= value } else { median >= value }
    }

    /// Whether a median is as wanted, what is wished for after that left aside.
    pub fn is_met(self, median: f64) -> bool {
        self.is_met_at(self.value, median)
    }

    /// What is wanted, and where there is a median whether it is met: `wanted: ≤ 2.0: met; then ≤ 1.5: missed`.
    pub fn text(self, median: Option<f64>) -> String {
        let sign = if self.bound == Bound::AtMost { "≤" } else { "≥" };
        let one = |value: f64| {
            let verdict = median.map_or("", |median| if self.is_met_at(value, median) { ": met" } else { ": missed" });
            format!("{sign} {value}{verdict}")
        };
        let then = self.then.map_or(String::new(), |then| format!("; then {}", one(then)));
        format!("wanted: {}{then}", one(self.value))
    }

    pub fn json(self) -> Value {
        let bound = if self.bound == Bound::AtMost { "at_most" } else { "at_least" };
        json!({ bound: self.value, "then": self.then })
    }
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
    /// Measured for so long at least, whatever `--seconds` says.
    pub seconds_min: u64,
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
    /// The appliance, on both cores and fed with nothing.
    Idle {
        /// SRT callers that are connected and silent.
        callers: u32,
    },
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

/// The figure of a pair, first ÷ second unless it says otherwise, or of the one side that there is.
#[derive(Clone, Copy, PartialEq)]
pub enum Figure {
    /// CPU time.
    Cost,
    /// CPU time, second ÷ first.
    CostOfSecond,
    /// CPU time for each packet.
    CostPerPacket,
    /// CPU time of the one side, in percent of a core.
    CpuPercent,
    /// p99 from kernel (RTP) or due time (SRT) to awake reader, of tracks whose frames show their end with their last packet.
    AwakeP99,
    /// The same in ms, of the first side alone.
    AwakeP99Ms,
}

impl Side {
    const fn new(name: &'static str, receiver: Receiver) -> Self {
        Self { name, receiver, settings: &[], load: None, seconds_min: 0, wire: false }
    }

    const fn ours(feed: Feed) -> Self {
        Self::new("ours", Receiver::Appliance(feed))
    }

    const fn unfed(name: &'static str, callers: u32) -> Self {
        Self {
            settings: &["shards.cores=[0,1]"],
            seconds_min: IDLE_SECONDS,
            ..Self::new(name, Receiver::Idle { callers })
        }
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

    const fn for_seconds(self, seconds_min: u64) -> Self {
        Self { seconds_min, ..self }
    }

    /// What it is sent, where `usual` says what is sent otherwise.
    pub fn load(&self, usual: &Load) -> Load {
        let seconds = usual.seconds.max(self.seconds_min);
        let (feeds, rate) = self.load.map_or((usual.feeds, usual.rate.as_str()), |(feeds, rate)| (feeds, rate));
        Load { feeds, rate: rate.to_owned(), seconds, ..usual.clone() }
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
/// Few enough that readers find the generator's core free; they have 47 frames of sound a second each.
const BUSY_FEEDS: (u32, &str) = (2, "50M");
/// Long enough for a thousand of them, of which a hundredth is ten.
const BUSY_SECONDS: u64 = 12;
/// Long enough for what happens each second, and each ten.
const IDLE_SECONDS: u64 = 20;

pub static ROWS: [Row; 13] = [
    Row {
        name: "plain",
        title: "SRT plain → frames ÷ bare loop",
        target: Target::at_most_then(2.0, 1.5),
        sides: &[Side::ours(Feed::Srt), Side::new("bare", Receiver::Bare)],
        figure: Figure::Cost,
    },
    Row {
        name: "aes",
        title: "SRT AES-128 → frames ÷ bare loop",
        target: Target::at_most(2.4),
        sides: &[Side::ours(Feed::SrtEncrypted { key_length: "128" }), Side::new("bare", Receiver::Bare)],
        figure: Figure::Cost,
    },
    Row {
        name: "aes256",
        title: "SRT AES-256 → frames ÷ bare loop",
        target: Target::at_most(2.5),
        sides: &[Side::ours(Feed::SrtEncrypted { key_length: "256" }), Side::new("bare", Receiver::Bare)],
        figure: Figure::Cost,
    },
    Row {
        name: "rtp",
        title: "RTP/MPEG-TS → frames ÷ bare loop",
        target: Target::at_most(1.7),
        // While there are RTP sources a shard does not stretch its batch window, and what it is measured against has the same one.
        sides: &[
            Side::ours(Feed::Rtp),
            Side::new("bare", Receiver::Bare).with(&["shards.batch_window=500us", "shards.batch_window_max=500us"]),
        ],
        figure: Figure::Cost,
    },
    Row {
        name: "libsrt",
        title: "libsrt receive only ÷ SRT plain → frames, 8 feeds",
        target: Target::at_least_then(7.0, 10.0),
        sides: &[
            Side::ours(Feed::Srt).at(LIBSRT_FEEDS.0, LIBSRT_FEEDS.1),
            Side::new("libsrt", Receiver::Libsrt).at(LIBSRT_FEEDS.0, LIBSRT_FEEDS.1),
        ],
        figure: Figure::CostOfSecond,
    },
    Row {
        name: "growth",
        title: "a packet of 100 feeds of 5 Mbit/s ÷ of 10 feeds of 50 Mbit/s, SRT plain → frames",
        target: Target::at_most(1.15),
        sides: &[
            Side { name: "100 x 5", ..Side::ours(Feed::Srt).at(100, "5M").with(HUNDRED) },
            Side { name: "10 x 50", ..Side::ours(Feed::Srt).at(10, "50M").with(HUNDRED) },
        ],
        figure: Figure::CostPerPacket,
    },
    Row {
        name: "awake",
        title: "kernel → reader awake by RTP, p99 where the end shows, in ms; batch window of 500 µs",
        target: Target::at_most(1.0),
        sides: &[Side::ours(Feed::Rtp)],
        figure: Figure::AwakeP99Ms,
    },
    Row {
        name: "awake-srt",
        title: "due → reader awake by SRT, p99 where the end shows, in ms; batch windows of up to 4 ms",
        target: Target::at_most(4.5),
        sides: &[Side::ours(Feed::Srt)],
        figure: Figure::AwakeP99Ms,
    },
    Row {
        name: "busy",
        title: "kernel → reader awake by RTP, p99 where the end shows: busy polling ÷ batch window of 500 µs",
        target: None,
        sides: &[
            Side {
                name: "busy",
                ..Side::ours(Feed::Rtp)
                    .at(BUSY_FEEDS.0, BUSY_FEEDS.1)
                    .for_seconds(BUSY_SECONDS)
                    .with(&["shards.busy_poll=true"])
            },
            Side { name: "window", ..Side::ours(Feed::Rtp).at(BUSY_FEEDS.0, BUSY_FEEDS.1).for_seconds(BUSY_SECONDS) },
        ],
        figure: Figure::AwakeP99,
    },
    Row {
        name: "mmsg",
        title: "SRT plain → frames by recvmmsg ÷ by io_uring",
        target: None,
        sides: &[
            Side { name: "mmsg", ..Side::ours(Feed::Srt).with(&["shards.packet_io=mmsg"]) },
            Side { name: "uring", ..Side::ours(Feed::Srt).with(&["shards.packet_io=uring"]) },
        ],
        figure: Figure::Cost,
    },
    Row {
        name: "xdp",
        title: "SRT plain → frames by AF_XDP ÷ by io_uring, both over a veth pair (copied, by the sender's softirq)",
        target: None,
        sides: &[
            Side { name: "xdp", ..Side::ours(Feed::Srt).with(&["shards.packet_io=xdp"]).by_wire() },
            Side { name: "uring", ..Side::ours(Feed::Srt).with(&["shards.packet_io=uring"]).by_wire() },
        ],
        figure: Figure::Cost,
    },
    Row {
        name: "idle",
        title: "idle, two shards, no stream: percent of a core",
        target: Target::at_most(0.5),
        sides: &[Side::unfed("idle", 0)],
        figure: Figure::CpuPercent,
    },
    Row {
        name: "silent",
        title: "two shards, 25 silent SRT callers (srt-live-transmit): percent of a core",
        target: Target::at_most(0.5),
        sides: &[Side::unfed("silent", 25)],
        figure: Figure::CpuPercent,
    },
];
