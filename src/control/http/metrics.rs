//! `GET /metrics`: what shards report, in OpenMetrics text.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::ErrorCounter;

use super::routes::House;
use super::streams::codec_word;
use crate::control::process;
use crate::control::snapshot::Snapshot;
use crate::shard::net::Choice;
use crate::shard::report::{ShardReport, StreamReport, StreamStatus, TrackReport};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
/// Name without `_total`, help, and where the number is.
type Count<T> = (&'static str, &'static str, fn(&T) -> u64);
/// Reason, and where the number is.
type Drop<T> = (&'static str, fn(&T) -> u64);
/// Name, help, and where the number is if there is one.
type Gauge<T> = (&'static str, &'static str, fn(&T) -> Option<f64>);

const SHARD_COUNTS: &[Count<ShardReport>] = &[
    ("shard_turns", "Turns of the loop", |it| it.counters.turns),
    ("shard_idle_turns", "Turns that waited for a first datagram", |it| it.counters.idle_turns),
    ("shard_datagrams", "Datagrams taken in", |it| it.counters.datagrams),
    ("shard_past_kernel", "Of these, datagrams past the kernel's stack (AF_XDP, DPDK)", |it| it.counters.past_kernel),
    ("shard_aggregates", "Aggregates of several datagrams taken in (UDP GRO)", |it| it.counters.aggregates),
    ("shard_aggregates_copied", "Datagrams copied out of slots for aggregates", |it| it.counters.aggregates_copied),
    ("shard_handed_over", "Datagrams handed to another shard", |it| it.counters.handed_over),
    ("shard_credit_exhausted", "Receives ended for want of a slot", |it| it.counters.credit_exhausted),
    ("shard_sent", "Datagrams sent", |it| it.counters.sent),
    ("shard_send_errors", "Datagrams that could not be sent", |it| it.counters.send_errors),
    ("shard_inductions", "SRT inductions answered", |it| it.counters.inductions),
    ("shard_admissions", "SRT handshakes handed out for admission", |it| it.counters.admissions),
    ("shard_rejections", "Sessions refused", |it| it.counters.rejections),
];

/// Datagrams that were dropped, by reason.
const SHARD_DROPS: &[Drop<ShardReport>] = &[
    ("kernel", |it| it.counters.dropped_by_kernel),
    ("stray", |it| it.counters.dropped_stray),
    ("unknown", |it| it.counters.dropped_unknown),
    ("truncated", |it| it.counters.dropped_truncated),
    ("fragment", |it| it.counters.dropped_fragments),
    ("no_port", |it| it.counters.dropped_no_port),
    ("quota", |it| it.counters.dropped_quota),
    ("wrong_peer", |it| it.counters.dropped_wrong_peer),
    ("lane_full", |it| it.counters.dropped_lane_full),
    ("malformed", |it| it.counters.dropped_malformed),
];

const SHARD_GAUGES: &[Gauge<ShardReport>] = &[
    ("shard_slots", "Slots of packet memory", |it| Some(it.counters.slots as f64)),
    ("shard_slots_used", "Slots of packet memory in use", |it| Some(it.counters.slots_used as f64)),
    ("shard_aggregate_slots", "Slots for aggregates", |it| Some(it.counters.aggregate_slots as f64)),
    ("shard_aggregate_slots_used", "Slots for aggregates in use", |it| Some(it.counters.aggregate_slots_used as f64)),
    ("shard_streams", "Streams the shard owns", |it| Some(it.streams.len() as f64)),
];

const STREAM_COUNTS: &[Count<StreamReport>] = &[
    ("stream_packets_received", "Datagrams taken in", |it| it.packets_received),
    ("stream_bytes_received", "Payload bytes taken in", |it| it.bytes_received),
    ("stream_packets_lost", "Payloads that never came", |it| it.ingest.lost),
    ("stream_packets_recovered", "Payloads lost at first and recovered", |it| it.ingest.recovered),
    ("stream_packets_retransmitted", "Retransmissions received", |it| it.srt.map_or(0, |srt| srt.pkt_rcv_retrans)),
    ("stream_packets_undecryptable", "Packets that could not be decrypted", |it| {
        it.srt.map_or(0, |srt| srt.pkt_rcv_undecrypt)
    }),
    ("stream_filter_packets", "Control packets of the packet filter received", |it| {
        it.srt.map_or(0, |srt| srt.pkt_rcv_filter_extra)
    }),
    ("stream_filter_rebuilt", "Packets rebuilt by the packet filter", |it| {
        it.srt.map_or(0, |srt| srt.pkt_rcv_filter_supply)
    }),
    ("stream_filter_given_up", "Packets given up by the packet filter", |it| {
        it.srt.map_or(0, |srt| srt.pkt_rcv_filter_loss)
    }),
    ("stream_continuity_errors", "Continuity errors in the transport stream", |it| it.continuity_errors),
    ("stream_tracks_refused", "Programmes and tracks refused because there were too many", |it| it.tracks_refused),
    ("stream_peer_changes", "Times that the present session's peer has moved", |it| {
        it.srt.map(|srt| srt.peer_changes).or(it.rtp.as_ref().map(|rtp| rtp.peer_changes)).unwrap_or(0)
    }),
    ("stream_sessions", "Sessions so far", |it| u64::from(it.sessions)),
];

const STREAM_GAUGES: &[Gauge<StreamReport>] = &[
    ("stream_active", "1 while packets come in", |it| Some(f64::from(u8::from(it.status == StreamStatus::Active)))),
    ("stream_bitrate_bits_per_second", "Rate over the last second", |it| Some(it.bitrate as f64)),
    ("stream_held_packets", "Slots of packet memory held", |it| Some(it.held_packets as f64)),
    ("stream_rtt_seconds", "Smoothed round trip time", |it| it.srt.map(|srt| srt.ms_rtt / 1_000.0)),
    ("stream_latency_seconds", "Negotiated latency", |it| it.srt.map(|_| f64::from(it.latency_ms) / 1_000.0)),
    ("stream_buffer_seconds", "Time until the newest packet is due", |it| {
        it.srt.map(|srt| srt.ms_rcv_buf as f64 / 1_000.0)
    }),
    ("stream_jitter_ticks", "Interarrival jitter (RFC 3550 6.4.1)", |it| {
        it.rtp.as_ref().map(|rtp| f64::from(rtp.jitter_ticks))
    }),
];

const TRACK_COUNTS: &[Count<TrackReport>] = &[
    ("track_frames", "Frames published", |it| it.statistics.frames),
    ("track_bytes", "Payload bytes published", |it| it.statistics.bytes),
    ("track_keyframes", "Frames published that decoding can start at", |it| it.statistics.keyframes),
    ("track_frames_damaged", "Frames published with a damage mark", |it| it.statistics.damaged),
    ("track_frames_lost", "Whole frames missing", |it| it.statistics.lost),
    ("track_frames_too_large", "Frames over the size limit", |it| it.statistics.too_large),
    ("track_frames_timed_out", "Frames closed because nothing more came", |it| it.statistics.timed_out),
    ("track_frames_without_ring", "Frames dropped for want of a ring", |it| it.frames_without_ring),
    ("track_discontinuities", "Frames that do not follow from the one before", |it| it.statistics.discontinuities),
    ("track_skipped_bytes", "Bytes that belong to no frame", |it| it.statistics.skipped_bytes),
];

/// The place in `TrackReport::delay_us`, as a quantile.
const DELAY_QUANTILES: [(&str, usize); 3] = [("0.5", 0), ("0.99", 1), ("1", 2)];

/// Answers the scrape.
pub async fn metrics(State(house): State<Arc<House>>) -> Response {
    let snapshot = house.snapshots.get().await;
    let mut registry = Registry::with_prefix("headworks");
    registry.register_collector(Box::new(Scrape {
        snapshot,
        uptime_s: house.uptime().as_secs_f64(),
        cpu_s: process::cpu_seconds().unwrap_or(0.0),
        memory_bytes: process::memory_bytes().unwrap_or(0),
        log_drops: house.facts.log_drops.as_ref().map_or(0, ErrorCounter::dropped_lines) as u64,
        packet_io: house.facts.packet_io.clone(),
    }));
    let mut body = String::with_capacity(16 << 10);
    match text::encode(&mut body, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[derive(Debug)]
struct Scrape {
    snapshot: Arc<Snapshot>,
    uptime_s: f64,
    cpu_s: f64,
    memory_bytes: u64,
    log_drops: u64,
    packet_io: Choice,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_process(&mut encoder)?;
        let shards: Vec<(Labels, &ShardReport)> =
            self.snapshot.reports.iter().map(|it| (vec![("shard", it.shard.to_string())], it)).collect();
        let streams: Vec<(Labels, &StreamReport)> =
            self.snapshot.streams().map(|(_, it)| (stream_labels(it), it)).collect();
        let tracks: Vec<(Labels, &TrackReport)> = self
            .snapshot
            .streams()
            .flat_map(|(_, stream)| stream.tracks.iter().map(move |track| (track_labels(stream, track), track)))
            .collect();
        counts(&mut encoder, SHARD_COUNTS, &shards)?;
        encode_drops(&mut encoder, &shards)?;
        gauges(&mut encoder, SHARD_GAUGES, &shards)?;
        counts(&mut encoder, STREAM_COUNTS, &streams)?;
        gauges(&mut encoder, STREAM_GAUGES, &streams)?;
        counts(&mut encoder, TRACK_COUNTS, &tracks)?;
        encode_delays(&mut encoder, &tracks)
    }
}

impl Scrape {
    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        encoder.encode_descriptor("build", "Which program this is", None, MetricType::Info)?.encode_info(&version)?;
        let packet_io = [("way", self.packet_io.way.name()), ("reason", &self.packet_io.reason)];
        let help = "How packets come in, and why in this way";
        encoder.encode_descriptor("packet_io", help, None, MetricType::Info)?.encode_info(&packet_io)?;
        let silent = self.snapshot.shard_count - self.snapshot.reports.len();
        let mut gauge = |name, help, value: f64| {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
        };
        gauge("uptime_seconds", "Time since the start", self.uptime_s)?;
        gauge("memory_bytes", "Resident memory, mapped rings included", self.memory_bytes as f64)?;
        gauge("shards", "Shards of this process", self.snapshot.shard_count as f64)?;
        gauge("shards_silent", "Shards that did not answer within a second", silent as f64)?;
        encoder
            .encode_descriptor("log_lines_dropped", "Lines that the log had no room for", None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&self.log_drops, None)?;
        encoder
            .encode_descriptor("cpu_seconds", "Processor time, user and system", None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&self.cpu_s, None)
    }
}

fn counts<T>(encoder: &mut DescriptorEncoder<'_>, table: &[Count<T>], from: &[(Labels, &T)]) -> fmt::Result {
    for (name, help, value) in table {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, it) in from {
            family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&value(it), None)?;
        }
    }
    Ok(())
}

fn gauges<T>(encoder: &mut DescriptorEncoder<'_>, table: &[Gauge<T>], from: &[(Labels, &T)]) -> fmt::Result {
    for (name, help, value) in table {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, it) in from {
            if let Some(value) = value(it) {
                family.encode_family(labels)?.encode_gauge(&value)?;
            }
        }
    }
    Ok(())
}

fn encode_drops(encoder: &mut DescriptorEncoder<'_>, shards: &[(Labels, &ShardReport)]) -> fmt::Result {
    let help = "Datagrams dropped, by reason";
    let mut family = encoder.encode_descriptor("shard_dropped", help, None, MetricType::Counter)?;
    for (labels, shard) in shards {
        for (reason, value) in SHARD_DROPS {
            let labels = with(labels, "reason", reason);
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(shard), None)?;
        }
    }
    Ok(())
}

fn encode_delays(encoder: &mut DescriptorEncoder<'_>, tracks: &[(Labels, &TrackReport)]) -> fmt::Result {
    let help = "From the due time of a frame's last packet to its publication";
    let mut family = encoder.encode_descriptor("track_assembly_delay_seconds", help, None, MetricType::Gauge)?;
    for (labels, track) in tracks {
        for (quantile, place) in DELAY_QUANTILES {
            let labels = with(labels, "quantile", quantile);
            family.encode_family(&labels)?.encode_gauge(&(track.delay_us[place] as f64 / 1e6))?;
        }
    }
    Ok(())
}

fn stream_labels(stream: &StreamReport) -> Labels {
    vec![("stream", stream.name.clone()), ("type", stream.kind.name().to_owned())]
}

fn track_labels(stream: &StreamReport, track: &TrackReport) -> Labels {
    vec![("stream", stream.name.clone()), ("track", track.name.clone()), ("codec", codec_word(track.codec))]
}

fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value.to_owned()));
    labels
}
