//! What a shard tells of itself when asked: plain values, made on the shard, read by control and by people.

use std::net::SocketAddr;

use super::calls::CallReport;
use super::refusals::Refusal;
use crate::base::Instant;
use crate::media::Codec;
use crate::pipeline::assembler::TrackStatistics;
use crate::pipeline::ingest::IngestStatistics;
use crate::protocol::srt::encryption::KeyMaterialState;
use crate::protocol::srt::handshake::RejectReason;
use crate::protocol::{rtp, srt};

/// One shard at one moment.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// Which shard.
    pub shard: usize,
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// When the report was made.
    pub at: Instant,
    /// Its streams.
    pub streams: Vec<StreamReport>,
    /// What it has counted.
    pub counters: ShardCounters,
    /// The last SRT callers that it refused, the newest last.
    pub refusals: Vec<Refusal>,
    /// How many it has refused, by reason.
    pub refusals_by_reason: Vec<(RejectReason, u64)>,
}

/// What a shard has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounters {
    /// Turns of the loop.
    pub turns: u64,
    /// Of these, turns that waited for a first datagram for want of traffic.
    pub idle_turns: u64,
    /// Datagrams taken in.
    pub datagrams: u64,
    /// Of these, those that came past the kernel's stack (AF_XDP, DPDK).
    pub past_kernel: u64,
    /// Aggregates of several datagrams taken in (UDP GRO).
    pub aggregates: u64,
    /// Datagrams copied out of slots for aggregates, because they came alone or with few others, or are kept.
    pub aggregates_copied: u64,
    /// Datagrams that a socket lost because its buffer was full (`SO_RXQ_OVFL`), or a card for want of room.
    pub dropped_by_kernel: u64,
    /// Receives that ended because the kernel had no slot left to fill (`ENOBUFS`); nothing is lost by that alone.
    pub credit_exhausted: u64,
    /// Datagrams that belong to nobody, by any protocol.
    pub dropped_stray: u64,
    /// Datagrams of no known protocol.
    pub dropped_unknown: u64,
    /// Datagrams too long for a slot.
    pub dropped_truncated: u64,
    /// Parts of packets, which nobody puts together without the kernel (DPDK).
    pub dropped_fragments: u64,
    /// Datagrams for no port of ours, where the kernel does not keep them away (DPDK).
    pub dropped_no_port: u64,
    /// Frames for other hosts or groups, and broadcasts, likewise (DPDK).
    pub dropped_not_ours: u64,
    /// Frames of another VLAN, or with a tag where none is expected (DPDK).
    pub dropped_other_vlan: u64,
    /// Frames of protocols that are not spoken here (DPDK).
    pub dropped_other_protocol: u64,
    /// Times that somebody else on the link has claimed an address of ours (DPDK).
    pub address_conflicts: u64,
    /// Questions of others on the link (ARP, neighbour discovery, ping) not answered, because too many answers waited (DPDK).
    pub unanswered: u64,
    /// Datagrams dropped because a stream held more of packet memory than is its share.
    pub dropped_quota: u64,
    /// Datagrams with the socket id of a session that came from another address than its peer's, and were not its beyond doubt.
    pub dropped_wrong_peer: u64,
    /// Datagrams that came to the wrong shard and were handed on.
    pub handed_over: u64,
    /// Of these, those that found the lane full.
    pub dropped_lane_full: u64,
    /// Datagrams that another shard handed over and that found no slot of packet memory here.
    pub dropped_no_slot: u64,
    /// Receives that ended with an error, and frames that a card says came damaged.
    pub receive_errors: u64,
    /// Datagrams handed to the network.
    pub sent: u64,
    /// Datagrams that could not be sent.
    pub send_errors: u64,
    /// Slots of packet memory, and those in use.
    pub slots: u64,
    /// Slots that hold packets or are lent to the kernel.
    pub slots_used: u64,
    /// Slots for aggregates; 0 without `shards.gro`.
    pub aggregate_slots: u64,
    /// Of these, those that hold packets or are lent to the kernel.
    pub aggregate_slots_used: u64,
    /// SRT handshakes: inductions answered.
    pub inductions: u64,
    /// SRT handshakes handed out for admission.
    pub admissions: u64,
    /// Sessions refused.
    pub rejections: u64,
    /// Packets at the SRT port that were not well formed, or had a wrong cookie, and what is no sound datagram.
    pub dropped_malformed: u64,
    /// SRT inductions that were not answered because their source had sent too many.
    pub dropped_handshake_rate: u64,
}

/// Where a stream comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// SRT.
    Srt,
    /// RTP.
    Rtp,
    /// MPEG-TS in bare UDP datagrams.
    RawTransport,
}

impl StreamKind {
    /// The word for it: `srt`, `rtp`, `ts`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Srt => "srt",
            Self::Rtp => "rtp",
            Self::RawTransport => "ts",
        }
    }
}

/// How a stream fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStatus {
    /// Packets come in.
    Active,
    /// It has a session, or had one not long ago, but no packets come.
    Stalled,
    /// It is fetched, and its peer is being called.
    Connecting,
    /// It is fetched, and its peer will be called again in a while.
    Waiting,
}

impl StreamStatus {
    /// The word for it: `active`, `stalled`, `connecting`, `waiting`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Stalled => "stalled",
            Self::Connecting => "connecting",
            Self::Waiting => "waiting",
        }
    }
}

/// One stream at one moment.
#[derive(Clone, Debug)]
pub struct StreamReport {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub kind: StreamKind,
    /// Whether anything comes.
    pub status: StreamStatus,
    /// Who sends it, while there is a session.
    pub peer: Option<SocketAddr>,
    /// When the stream was opened.
    pub created: Instant,
    /// When its last datagram came in.
    pub last_datagram: Instant,
    /// Sessions it has had, the present one included.
    pub sessions: u32,
    /// Encryption of the present session, such as `AES-128-CTR`; empty when plain.
    pub cipher: String,
    /// What became of the exchange of keys; `None` outside SRT.
    pub km_state: Option<KeyMaterialState>,
    /// Negotiated latency in milliseconds; 0 outside SRT.
    pub latency_ms: u32,
    /// Version of the peer's SRT library, such as `1.5.1`; empty outside SRT.
    pub peer_version: String,
    /// Datagrams taken in for it.
    pub packets_received: u64,
    /// Their bytes, protocol headers included.
    pub bytes_received: u64,
    /// Datagrams dropped because it held its share of packet memory.
    pub packets_over_quota: u64,
    /// Bits per second over the last second or so.
    pub bitrate: u64,
    /// Slots of packet memory that it holds.
    pub held_packets: u64,
    /// What went into its content.
    pub ingest: IngestStatistics,
    /// SRT's own counters; of a bonding group, those of all legs together.
    pub srt: Option<srt::statistics::Statistics>,
    /// The legs of a bonding group.
    pub legs: Vec<LegReport>,
    /// RTP's own counters.
    pub rtp: Option<rtp::SourceStatistics>,
    /// Continuity errors in the transport stream.
    pub continuity_errors: u64,
    /// Programmes and tracks that were refused because there were too many.
    pub tracks_refused: u64,
    /// Its tracks.
    pub tracks: Vec<TrackReport>,
    /// The last events, oldest first: when and what.
    pub events: Vec<(Instant, String)>,
    /// How its call stands, if it is fetched.
    pub call: Option<CallReport>,
}

impl StreamReport {
    /// Of a stream that nothing has ever come of.
    pub fn unreached(name: String, kind: StreamKind, status: StreamStatus, created: Instant) -> Self {
        Self {
            name,
            kind,
            status,
            peer: None,
            created,
            last_datagram: created,
            sessions: 0,
            cipher: String::new(),
            latency_ms: 0,
            peer_version: String::new(),
            packets_received: 0,
            bytes_received: 0,
            bitrate: 0,
            held_packets: 0,
            ingest: IngestStatistics::default(),
            srt: None,
            rtp: None,
            continuity_errors: 0,
            tracks_refused: 0,
            km_state: None,
            packets_over_quota: 0,
            legs: Vec::new(),
            tracks: Vec::new(),
            events: Vec::new(),
            call: None,
        }
    }
}

/// One leg of a bonding group at one moment.
#[derive(Clone, Debug)]
pub struct LegReport {
    /// Which bit of a payload's mask of paths is its; free again once it has ended.
    pub path: u8,
    /// Who sends it.
    pub peer: SocketAddr,
    /// How much its sender prefers it, in a backup group.
    pub weight: u16,
    /// Whether data comes by it; that of an idle one is keep-alives.
    pub active: bool,
    /// Its connection's counters.
    pub srt: srt::statistics::Statistics,
    /// What is counted of it besides.
    pub leg: srt::group::LegStatistics,
}

/// One track at one moment.
#[derive(Clone, Debug)]
pub struct TrackReport {
    /// Its name, such as `video0`.
    pub name: String,
    /// What it is coded with.
    pub codec: Codec,
    /// PID, or SSRC.
    pub id: u32,
    /// Its programme.
    pub programme: u16,
    /// ISO 639-2 code.
    pub language: Option<String>,
    /// Its format for people, such as `1920×1080i50 High`.
    pub format: String,
    /// Columns and rows of pictures.
    pub resolution: Option<(u32, u32)>,
    /// Frames per second of pictures.
    pub frame_rate: Option<f64>,
    /// Parameter sets, AudioSpecificConfig or the like.
    pub configuration: Vec<u8>,
    /// What became of its frames.
    pub statistics: TrackStatistics,
    /// Frames dropped because there was no ring to take them.
    pub frames_without_ring: u64,
    /// Frames in the ring so far.
    pub head_seq: u64,
    /// Why it has no ring, if it has none.
    pub ring_error: Option<String>,
    /// Delay between the due time of a frame's last packet and its publication: median, 99th percentile, maximum, in µs.
    pub delay_us: [u64; 3],
}
