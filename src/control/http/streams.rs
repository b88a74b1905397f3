//! Streams: all of them in short, one of them in full.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::envelope::Failure;
use super::routes::House;
use super::timestamp;
use crate::control::snapshot::Snapshot;
use crate::media::{Codec, TrackKind};
use crate::output::reader::directory::encode_name;
use crate::protocol::srt::encryption::KeyMaterialState;
use crate::protocol::srt::trace_statistics::{Value, fields};
use crate::shard::calls::CallReport;
use crate::shard::report::{LegReport, ShardReport, StreamReport, TrackReport};

/// `GET /api/v1/streams`.
#[derive(Serialize)]
pub struct Listing {
    streams: Vec<Stream>,
    count: usize,
    time: String,
}

/// A stream in short.
#[derive(Serialize)]
struct Stream {
    id: String,
    r#type: &'static str,
    source_addr: Option<String>,
    status: &'static str,
    video_codec: Option<String>,
    resolution: Option<String>,
    bitrate: u64,
    frame_rate: Option<f64>,
}

/// `GET /api/v1/streams/{id}`.
#[derive(Serialize)]
pub struct Detail {
    #[serde(flatten)]
    stream: Stream,
    created_at: String,
    last_heartbeat: String,
    shard: usize,
    sessions: u32,
    cipher: Option<String>,
    peer_version: Option<String>,
    call: Option<Call>,
    stats: Statistics,
    legs: Vec<Leg>,
    tracks: Vec<Track>,
    rings: Vec<Ring>,
    events: Vec<Event>,
}

/// How the call of a stream stands that is fetched.
#[derive(Serialize)]
struct Call {
    mode: &'static str,
    address: String,
    state: &'static str,
    circuit: &'static str,
    attempts: u64,
    failures: u32,
    next_attempt_ms: Option<u64>,
    last_error: Option<String>,
}

/// `GET /api/v1/streams/{id}/stats`. What does not apply to a stream's protocol is null.
#[derive(Serialize)]
pub struct Statistics {
    bytes_received: u64,
    packets_received: u64,
    packets_lost: u64,
    packets_recovered: u64,
    packets_retransmitted: Option<u64>,
    packets_dropped: Option<u64>,
    messages_dropped: Option<u64>,
    packets_belated: Option<u64>,
    packets_duplicate: Option<u64>,
    packets_reordered: Option<u64>,
    packets_undecryptable: Option<u64>,
    km_state: Option<&'static str>,
    filter_packets: Option<u64>,
    filter_rebuilt: Option<u64>,
    filter_given_up: Option<u64>,
    bitrate: u64,
    rtt_ms: Option<f64>,
    latency_ms: Option<u32>,
    buffer_ms: Option<u64>,
    drift_us: Option<i64>,
    jitter_ticks: Option<u32>,
    held_packets: u64,
    continuity_errors: u64,
    unknown_payload_type: u64,
    ssrc_restarts: Option<u64>,
    peer_changes: Option<u64>,
    /// By libsrt's names, of the present session.
    srt: Option<BTreeMap<&'static str, Number>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Measured(f64),
}

/// A leg of a bonding group.
#[derive(Serialize)]
struct Leg {
    path: u8,
    source_addr: String,
    weight: u16,
    active: bool,
    packets_received: u64,
    packets_delivered: u64,
    packets_lost: u64,
    packets_elsewhere: u64,
    packets_retransmitted: u64,
    packets_belated: u64,
    packets_duplicate: u64,
    packets_undecryptable: u64,
    packets_discrepant: u64,
    rtt_ms: f64,
}

#[derive(Serialize)]
struct Track {
    name: String,
    codec: String,
    id: u32,
    programme: u16,
    language: Option<String>,
    format: String,
    resolution: Option<String>,
    frame_rate: Option<f64>,
    frames: u64,
    bytes: u64,
    keyframes: u64,
    damaged: u64,
    lost: u64,
    too_large: u64,
    timed_out: u64,
    discontinuities: u64,
    newest_dts: Option<i64>,
    assembly_delay_us: Delay,
}

#[derive(Serialize)]
struct Delay {
    p50: u64,
    p99: u64,
    max: u64,
}

#[derive(Serialize)]
struct Ring {
    track: String,
    path: String,
    seq: u64,
    frames_without_ring: u64,
    error: Option<String>,
}

#[derive(Serialize)]
struct Event {
    time: String,
    event: String,
}

/// `GET /api/v1/streams/{id}/parameters`.
#[derive(Serialize)]
pub struct Parameters {
    id: String,
    tracks: Vec<TrackParameters>,
}

#[derive(Serialize)]
struct TrackParameters {
    name: String,
    codec: String,
    format: String,
    /// The ring's configuration block as hex digits: parameter sets in Annex B, an AudioSpecificConfig, a sequence header.
    configuration: String,
    length: usize,
}

/// All streams.
pub async fn list(State(house): State<Arc<House>>) -> Json<Listing> {
    let snapshot = house.snapshots.get().await;
    let mut streams: Vec<Stream> = snapshot.streams().map(|(_, stream)| Stream::new(stream)).collect();
    streams.sort_by(|a, b| a.id.cmp(&b.id));
    Json(Listing { count: streams.len(), streams, time: timestamp::format(SystemTime::now()) })
}

/// One stream.
pub async fn one(State(house): State<Arc<House>>, Path(id): Path<String>) -> Result<Json<Detail>, Failure> {
    let snapshot = house.snapshots.get().await;
    let (report, stream) = snapshot.stream(&id).ok_or_else(|| Failure::no_stream(&id))?;
    Ok(Json(Detail::new(&house, &snapshot, report, stream)))
}

/// One stream's counters.
pub async fn stats(State(house): State<Arc<House>>, Path(id): Path<String>) -> Result<Json<Statistics>, Failure> {
    let snapshot = house.snapshots.get().await;
    let (_, stream) = snapshot.stream(&id).ok_or_else(|| Failure::no_stream(&id))?;
    Ok(Json(Statistics::new(stream)))
}

/// What decoders of one stream must know before the first frame.
pub async fn parameters(State(house): State<Arc<House>>, Path(id): Path<String>) -> Result<Json<Parameters>, Failure> {
    let snapshot = house.snapshots.get().await;
    let (_, stream) = snapshot.stream(&id).ok_or_else(|| Failure::no_stream(&id))?;
    let tracks = stream
        .tracks
        .iter()
        .map(|track| TrackParameters {
            name: track.name.clone(),
            codec: codec_word(track.codec),
            format: track.format.clone(),
            configuration: hex(&track.configuration),
            length: track.configuration.len(),
        })
        .collect();
    Ok(Json(Parameters { id, tracks }))
}

impl Stream {
    fn new(stream: &StreamReport) -> Self {
        let video = stream.tracks.iter().find(|track| track.codec.kind() == TrackKind::Video);
        Self {
            id: stream.name.clone(),
            r#type: stream.kind.name(),
            source_addr: stream.peer.map(|peer| peer.to_string()),
            status: stream.status.name(),
            video_codec: video.map(|track| codec_word(track.codec)),
            resolution: video.and_then(resolution_word),
            bitrate: stream.bitrate,
            frame_rate: video.and_then(|track| track.frame_rate),
        }
    }
}

impl Detail {
    fn new(house: &House, snapshot: &Snapshot, report: &ShardReport, stream: &StreamReport) -> Self {
        let wall_clock = |moment| snapshot.wall_clock(report, moment);
        let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let directory = house.facts.root.join(encode_name(&stream.name));
        let ring = |track: &TrackReport| Ring {
            track: track.name.clone(),
            path: directory.join(&track.name).display().to_string(),
            seq: track.head_seq,
            frames_without_ring: track.frames_without_ring,
            error: track.ring_error.clone(),
        };
        Self {
            stream: Stream::new(stream),
            created_at: wall_clock(stream.created),
            last_heartbeat: wall_clock(stream.last_datagram),
            shard: report.shard,
            sessions: stream.sessions,
            cipher: said(&stream.cipher),
            peer_version: said(&stream.peer_version),
            call: stream.call.as_ref().map(Call::new),
            stats: Statistics::new(stream),
            legs: stream.legs.iter().map(Leg::new).collect(),
            tracks: stream.tracks.iter().map(Track::new).collect(),
            rings: stream.tracks.iter().map(ring).collect(),
            events: stream
                .events
                .iter()
                .map(|(moment, event)| Event { time: wall_clock(*moment), event: event.clone() })
                .collect(),
        }
    }
}

impl Call {
    fn new(call: &CallReport) -> Self {
        Self {
            mode: call.mode,
            address: call.target.clone(),
            state: call.state.name(),
            circuit: call.circuit.name(),
            attempts: call.attempts,
            failures: call.failures,
            next_attempt_ms: call.next_attempt_in.map(|wait| wait.as_millis() as u64),
            last_error: call.last_error.clone(),
        }
    }
}

impl Statistics {
    fn new(stream: &StreamReport) -> Self {
        let srt = stream.srt.as_ref();
        let rtp = stream.rtp.as_ref();
        Self {
            bytes_received: stream.bytes_received,
            packets_received: stream.packets_received,
            packets_lost: stream.ingest.lost,
            packets_recovered: stream.ingest.recovered,
            packets_retransmitted: srt.map(|srt| srt.pkt_rcv_retrans),
            packets_dropped: srt.map(|srt| srt.pkt_rcv_drop),
            messages_dropped: srt.map(|srt| srt.msg_rcv_drop),
            packets_belated: srt.map(|srt| srt.pkt_rcv_belated).or(rtp.map(|rtp| rtp.dropped_late)),
            packets_duplicate: srt.map(|srt| srt.pkt_rcv_duplicate).or(rtp.map(|rtp| rtp.dropped_duplicate)),
            packets_reordered: srt.map(|srt| srt.pkt_rcv_reordered).or(rtp.map(|rtp| rtp.packets_reordered)),
            packets_undecryptable: srt.map(|srt| srt.pkt_rcv_undecrypt),
            km_state: stream.km_state.map(KeyMaterialState::name),
            filter_packets: srt.map(|srt| srt.pkt_rcv_filter_extra),
            filter_rebuilt: srt.map(|srt| srt.pkt_rcv_filter_supply),
            filter_given_up: srt.map(|srt| srt.pkt_rcv_filter_loss),
            bitrate: stream.bitrate,
            rtt_ms: srt.map(|srt| srt.ms_rtt),
            latency_ms: srt.map(|_| stream.latency_ms),
            buffer_ms: srt.map(|srt| srt.ms_rcv_buf),
            drift_us: srt.map(|srt| srt.us_drift),
            jitter_ticks: rtp.map(|rtp| rtp.jitter_ticks),
            held_packets: stream.held_packets,
            continuity_errors: stream.continuity_errors,
            unknown_payload_type: stream.ingest.unknown_payload_type,
            ssrc_restarts: rtp.map(|rtp| rtp.restarts),
            peer_changes: srt.map(|srt| srt.peer_changes).or(rtp.map(|rtp| rtp.peer_changes)),
            srt: srt.map(|srt| fields(srt).into_iter().map(|(name, value)| (name, Number::from(value))).collect()),
        }
    }
}

impl From<Value> for Number {
    fn from(value: Value) -> Self {
        match value {
            Value::Count(count) => Self::Whole(count),
            Value::Measure(measure) => Self::Measured(measure),
        }
    }
}

impl Leg {
    fn new(leg: &LegReport) -> Self {
        let srt = &leg.srt;
        Self {
            path: leg.path,
            source_addr: leg.peer.to_string(),
            weight: leg.weight,
            active: leg.active,
            packets_received: srt.pkt_recv,
            packets_delivered: srt.pkt_delivered,
            packets_lost: srt.pkt_rcv_loss,
            packets_elsewhere: leg.leg.pkt_rcv_elsewhere,
            packets_retransmitted: srt.pkt_rcv_retrans,
            packets_belated: srt.pkt_rcv_belated,
            packets_duplicate: srt.pkt_rcv_duplicate,
            packets_undecryptable: srt.pkt_rcv_undecrypt,
            packets_discrepant: leg.leg.pkt_rcv_discrepant,
            rtt_ms: srt.ms_rtt,
        }
    }
}

impl Track {
    fn new(track: &TrackReport) -> Self {
        let [p50, p99, max] = track.delay_us;
        let counted = &track.statistics;
        Self {
            name: track.name.clone(),
            codec: codec_word(track.codec),
            id: track.id,
            programme: track.programme,
            language: track.language.clone(),
            format: track.format.clone(),
            resolution: resolution_word(track),
            frame_rate: track.frame_rate,
            frames: counted.frames,
            bytes: counted.bytes,
            keyframes: counted.keyframes,
            damaged: counted.damaged,
            lost: counted.lost,
            too_large: counted.too_large,
            timed_out: counted.timed_out,
            discontinuities: counted.discontinuities,
            newest_dts: counted.newest_dts,
            assembly_delay_us: Delay { p50, p99, max },
        }
    }
}

/// The word of the ring's header, as in `tap` and `streams`.
pub fn codec_word(codec: Codec) -> String {
    String::from_utf8_lossy(&codec.fourcc()).trim_end().to_owned()
}

fn resolution_word(track: &TrackReport) -> Option<String> {
    track.resolution.map(|(width, height)| format!("{width}x{height}"))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
