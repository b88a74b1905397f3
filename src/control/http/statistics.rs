//! Numbers over all streams.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::routes::House;
use crate::control::process;
use crate::media::TrackKind;
use crate::shard::report::{StreamReport, StreamStatus};

/// `GET /api/v1/stats`.
#[derive(Serialize)]
pub struct HouseStatistics {
    total_streams: usize,
    active_streams: usize,
    total_bitrate: u64,
    cpu_usage: f64,
    memory_usage: u64,
    uptime: u64,
}

/// `GET /api/v1/streams/stats/video`.
#[derive(Serialize)]
pub struct VideoListing {
    streams: BTreeMap<String, VideoStatistics>,
}

/// What became of a stream's pictures, all its video tracks taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct VideoStatistics {
    frames_assembled: u64,
    frames_dropped: u64,
    keyframes: u64,
    p_frames: u64,
    b_frames: u64,
    gop_count: u64,
    avg_gop_size: f64,
}

/// Streams, bits per second, percent of one core, bytes of memory, seconds.
pub async fn house(State(house): State<Arc<House>>) -> Json<HouseStatistics> {
    let snapshot = house.snapshots.get().await;
    Json(HouseStatistics {
        total_streams: snapshot.streams().count(),
        active_streams: snapshot.streams().filter(|(_, stream)| stream.status == StreamStatus::Active).count(),
        total_bitrate: snapshot.streams().map(|(_, stream)| stream.bitrate).sum(),
        cpu_usage: (house.process.cpu_percent(house.uptime()) * 10.0).round() / 10.0,
        memory_usage: process::memory_bytes().unwrap_or(0),
        uptime: house.uptime().as_secs(),
    })
}

/// Pictures of every stream that has a video track.
pub async fn video(State(house): State<Arc<House>>) -> Json<VideoListing> {
    let snapshot = house.snapshots.get().await;
    let streams =
        snapshot.streams().filter_map(|(_, stream)| Some((stream.name.clone(), video_statistics(stream)?))).collect();
    Json(VideoListing { streams })
}

fn video_statistics(stream: &StreamReport) -> Option<VideoStatistics> {
    let mut tracks = stream.tracks.iter().filter(|track| track.codec.kind() == TrackKind::Video).peekable();
    tracks.peek()?;
    let mut sum = VideoStatistics::default();
    let (mut gops_over, mut gop_frames, mut open_frames) = (0, 0, 0);
    for track in tracks {
        let counted = &track.statistics;
        sum.frames_assembled += counted.frames;
        sum.frames_dropped += counted.lost + counted.too_large + track.frames_without_ring;
        sum.keyframes += counted.keyframes;
        sum.p_frames += counted.p_pictures;
        sum.b_frames += counted.b_pictures;
        sum.gop_count += counted.gops;
        gops_over += counted.gops.saturating_sub(1);
        gop_frames += counted.gop_frames;
        open_frames = open_frames.max(counted.gop_open_frames);
    }
    // The newest GOP counts when it is over; while there is no other, as far as it has come.
    let size = if gops_over > 0 { gop_frames as f64 / gops_over as f64 } else { open_frames as f64 };
    sum.avg_gop_size = (size * 100.0).round() / 100.0;
    Some(sum)
}
