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
use crate::pipeline::breaker::Circuit;
use crate::protocol::srt::statistics::Statistics as SrtStatistics;
use crate::shard::calls::CallState;
use crate::shard::net::Choice;
use crate::shard::report::{LegReport, ShardReport, StreamReport, StreamStatus, TrackReport};

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
    ("shard_receive_errors", "Receives that ended with an error", |it| it.counters.receive_errors),
    ("shard_sent", "Datagrams sent", |it| it.counters.sent),
    ("shard_send_errors", "Datagrams that could not be sent", |it| it.counters.send_errors),
    ("shard_address_conflicts", "Times that somebody else on the link claimed an address of ours (DPDK)", |it| {
        it.counters.address_conflicts
    }),
    (
        "shard_unanswered",
        "Questions of others on the link not answered, because too many answers waited (DPDK)",
        |it| it.counters.unanswered,
    ),
    ("shard_inductions", "SRT inductions answered", |it| it.counters.inductions),
    ("shard_admissions", "SRT handshakes handed out for admission", |it| it.counters.admissions),
    ("shard_rejections", "Sessions refused", |it| it.counters.rejections),
];

/// Datagrams that were dropped, by reason, and frames where the kernel does not keep them away (DPDK).
const SHARD_DROPS: &[Drop<ShardReport>] = &[
    ("kernel", |it| it.counters.dropped_by_kernel),
    ("stray", |it| it.counters.dropped_stray),
    ("unknown", |it| it.counters.dropped_unknown),
    ("truncated", |it| it.counters.dropped_truncated),
    ("fragment", |it| it.counters.dropped_fragments),
    ("no_port", |it| it.counters.dropped_no_port),
    ("not_ours", |it| it.counters.dropped_not_ours),
    ("other_vlan", |it| it.counters.dropped_other_vlan),
    ("other_protocol", |it| it.counters.dropped_other_protocol),
    ("quota", |it| it.counters.dropped_quota),
    ("wrong_peer", |it| it.counters.dropped_wrong_peer),
    ("lane_full", |it| it.counters.dropped_lane_full),
    ("no_slot", |it| it.counters.dropped_no_slot),
    ("malformed", |it| it.counters.dropped_malformed),
    ("handshake_rate", |it| it.counters.dropped_handshake_rate),
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
    ("stream_bytes_received", "Bytes taken in, SRT and RTP headers included", |it| it.bytes_received),
    ("stream_packets_over_quota", "Datagrams dropped because the stream held its share of packet memory", |it| {
        it.packets_over_quota
    }),
    ("stream_packets_lost", "Payloads that never came", |it| it.ingest.lost),
    ("stream_packets_recovered", "Payloads lost at first and recovered", |it| it.ingest.recovered),
    ("stream_continuity_errors", "Continuity errors in the transport stream", |it| it.continuity_errors),
    ("stream_tracks_refused", "Programmes and tracks refused because there were too many", |it| it.tracks_refused),
    ("stream_peer_changes", "Times that the present session's peer has moved", |it| {
        it.srt.map(|srt| srt.peer_changes).or(it.rtp.as_ref().map(|rtp| rtp.peer_changes)).unwrap_or(0)
    }),
    ("stream_sessions", "Sessions so far", |it| u64::from(it.sessions)),
];

/// Of the present SRT session; 0 of streams that have none.
const SRT_COUNTS: &[Count<SrtStatistics>] = &[
    ("stream_packets_retransmitted", "Retransmissions received", |it| it.pkt_rcv_retrans),
    ("stream_packets_undecryptable", "Packets that could not be decrypted", |it| it.pkt_rcv_undecrypt),
    ("stream_packets_missed", "SRT packets found missing when a later one came", |it| it.pkt_rcv_loss),
    ("stream_packets_dropped", "SRT packets given up because they were not there in time", |it| it.pkt_rcv_drop),
    ("stream_messages_dropped", "SRT messages of several packets given up because one was not there in time", |it| {
        it.msg_rcv_drop
    }),
    ("stream_packets_belated", "SRT packets that came after their time", |it| it.pkt_rcv_belated),
    ("stream_packets_duplicate", "SRT packets that were there already", |it| it.pkt_rcv_duplicate),
    ("stream_packets_reordered", "SRT packets that others had overtaken", |it| it.pkt_rcv_reordered),
    ("stream_acknowledgements_sent", "Full SRT acknowledgements sent", |it| it.pkt_sent_ack),
    ("stream_loss_reports_sent", "SRT loss reports sent", |it| it.pkt_sent_nak),
    ("stream_filter_packets", "Control packets of the packet filter received", |it| it.pkt_rcv_filter_extra),
    ("stream_filter_rebuilt", "Packets rebuilt by the packet filter", |it| it.pkt_rcv_filter_supply),
    ("stream_filter_given_up", "Packets given up by the packet filter", |it| it.pkt_rcv_filter_loss),
];

const LEG_COUNTS: &[Count<LegReport>] = &[
    ("leg_packets_received", "Data packets that came by a leg of a bonding group", |it| it.srt.pkt_recv),
    ("leg_packets_lost", "Packets lost on the leg at first", |it| it.srt.pkt_rcv_loss),
    ("leg_packets_elsewhere", "Of these, packets that another leg brought", |it| it.leg.pkt_rcv_elsewhere),
    ("leg_packets_retransmitted", "Retransmissions received by the leg", |it| it.srt.pkt_rcv_retrans),
    ("leg_packets_belated", "Packets that came after they were due", |it| it.srt.pkt_rcv_belated),
    ("leg_packets_undecryptable", "Packets that could not be decrypted", |it| it.srt.pkt_rcv_undecrypt),
    ("leg_packets_discrepant", "Packets with numbers far from the stream's", |it| it.leg.pkt_rcv_discrepant),
];

const LEG_GAUGES: &[Gauge<LegReport>] = &[
    ("leg_active", "1 while data comes by the leg, 0 while it is idle", |it| Some(f64::from(u8::from(it.active)))),
    ("leg_rtt_seconds", "Smoothed round trip time of the leg", |it| Some(it.srt.ms_rtt / 1_000.0)),
    ("leg_weight", "How much the sender prefers the leg, in a backup group", |it| Some(f64::from(it.weight))),
];

/// Of streams that are fetched, and of no others.
const CALL_COUNTS: &[Count<StreamReport>] = &[("call_attempts", "Times that the stream's peer was called", |it| {
    it.call.as_ref().map_or(0, |call| call.attempts)
})];

/// Of these, too.
const CALL_GAUGES: &[Gauge<StreamReport>] = &[
    (
        "call_failures",
        "Calls in a row that led to nothing, or to a session shorter than ingestion.reconnect_interval",
        |it| Some(f64::from(it.call.as_ref()?.failures)),
    ),
    ("call_connected", "1 while a call has led to a session", |it| {
        Some(f64::from(u8::from(it.call.as_ref()?.state == CallState::Connected)))
    }),
    ("call_circuit_open", "1 while calls are made at the longest interval, 0.5 while one of these is made", |it| {
        Some(match it.call.as_ref()?.circuit {
            Circuit::Closed => 0.0,
            Circuit::HalfOpen => 0.5,
            Circuit::Open => 1.0,
        })
    }),
    ("call_next_attempt_seconds", "Time until the next call", |it| {
        Some(it.call.as_ref()?.next_attempt_in?.as_secs_f64())
    }),
];

const STREAM_GAUGES: &[Gauge<StreamReport>] = &[
    ("stream_active", "1 while packets come in", |it| Some(f64::from(u8::from(it.status == StreamStatus::Active)))),
    ("stream_bitrate_bits_per_second", "Rate over the last second", |it| Some(it.bitrate as f64)),
    ("stream_held_packets", "Slots of packet memory held", |it| Some(it.held_packets as f64)),
    ("stream_latency_seconds", "Negotiated latency", |it| it.srt.map(|_| f64::from(it.latency_ms) / 1_000.0)),
    ("stream_km_state", "Exchange of keys: 0 unsecured, 2 secured, 3 no secret, 4 bad secret (SRT_KM_STATE)", |it| {
        it.km_state.map(|state| f64::from(u32::from_le_bytes(state.to_wire())))
    }),
    ("stream_jitter_ticks", "Interarrival jitter (RFC 3550 6.4.1)", |it| {
        it.rtp.as_ref().map(|rtp| f64::from(rtp.jitter_ticks))
    }),
];

/// Of streams with an SRT session.
const SRT_GAUGES: &[Gauge<SrtStatistics>] = &[
    ("stream_rtt_seconds", "Smoothed round trip time", |it| Some(it.ms_rtt / 1_000.0)),
    ("stream_buffer_seconds", "Time until the newest packet is due", |it| Some(it.ms_rcv_buf as f64 / 1_000.0)),
    ("stream_buffer_bytes", "Payloads in an SRT session's receive buffer", |it| Some(it.byte_rcv_buf as f64)),
    ("stream_drift_seconds", "Drift of an SRT peer's clock against ours", |it| Some(it.us_drift as f64 / 1e6)),
    ("stream_belated_seconds", "Mean time that SRT packets came after they were due", |it| {
        Some(it.pkt_rcv_avg_belated_time / 1_000.0)
    }),
    ("stream_link_capacity_bits_per_second", "Estimated capacity of the path from an SRT peer", |it| {
        Some(it.mbps_bandwidth * 1e6)
    }),
    ("stream_reorder_tolerance_packets", "Packets that may come after a missing one before it is asked for", |it| {
        Some(it.pkt_reorder_tolerance as f64)
    }),
    ("stream_buffer_free_packets", "Room in an SRT session's receive buffer", |it| Some(it.pkt_avail_rcv_buf as f64)),
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
        let legs: Vec<(Labels, &LegReport)> = self
            .snapshot
            .streams()
            .flat_map(|(_, stream)| stream.legs.iter().map(move |leg| (leg_labels(stream, leg), leg)))
            .collect();
        counts(&mut encoder, SHARD_COUNTS, &shards)?;
        encode_drops(&mut encoder, &shards)?;
        encode_refusals(&mut encoder, &shards)?;
        gauges(&mut encoder, SHARD_GAUGES, &shards)?;
        counts(&mut encoder, STREAM_COUNTS, &streams)?;
        counts(&mut encoder, SRT_COUNTS, &sessions_or(&streams, Some(&SrtStatistics::default())))?;
        gauges(&mut encoder, STREAM_GAUGES, &streams)?;
        gauges(&mut encoder, SRT_GAUGES, &sessions_or(&streams, None))?;
        counts(&mut encoder, LEG_COUNTS, &legs)?;
        gauges(&mut encoder, LEG_GAUGES, &legs)?;
        let called: Vec<_> = streams.iter().filter(|(_, it)| it.call.is_some()).cloned().collect();
        counts(&mut encoder, CALL_COUNTS, &called)?;
        gauges(&mut encoder, CALL_GAUGES, &called)?;
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
    let help = "Datagrams dropped, and frames that the kernel does not keep away (DPDK), by reason";
    let mut family = encoder.encode_descriptor("shard_dropped", help, None, MetricType::Counter)?;
    for (labels, shard) in shards {
        for (reason, value) in SHARD_DROPS {
            let labels = with(labels, "reason", reason);
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(shard), None)?;
        }
    }
    Ok(())
}

fn encode_refusals(encoder: &mut DescriptorEncoder<'_>, shards: &[(Labels, &ShardReport)]) -> fmt::Result {
    let help = "SRT callers refused, by what they were told";
    let mut family = encoder.encode_descriptor("shard_srt_refusals", help, None, MetricType::Counter)?;
    for (labels, shard) in shards {
        for (reason, count) in &shard.refusals_by_reason {
            let labels = with(&with(labels, "reason", reason.name()), "code", &reason.code().to_string());
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
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

/// The SRT sessions of streams; of those without one this, if there is any.
fn sessions_or<'a>(
    streams: &[(Labels, &'a StreamReport)],
    none: Option<&'a SrtStatistics>,
) -> Vec<(Labels, &'a SrtStatistics)> {
    let session = |(labels, it): &(Labels, &'a StreamReport)| Some((labels.clone(), it.srt.as_ref().or(none)?));
    streams.iter().filter_map(session).collect()
}

fn stream_labels(stream: &StreamReport) -> Labels {
    vec![("stream", stream.name.clone()), ("type", stream.kind.name().to_owned())]
}

fn leg_labels(stream: &StreamReport, leg: &LegReport) -> Labels {
    vec![("stream", stream.name.clone()), ("leg", leg.path.to_string())]
}

fn track_labels(stream: &StreamReport, track: &TrackReport) -> Labels {
    vec![("stream", stream.name.clone()), ("track", track.name.clone()), ("codec", codec_word(track.codec))]
}

fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value.to_owned()));
    labels
}
