//! Whether this process lives, serves, and which one it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::routes::House;
use crate::control::snapshot::Snapshot;
use crate::output::reader::layout;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    uptime: u64,
    shards: Vec<ShardHealth>,
}

#[derive(Serialize)]
struct ShardHealth {
    shard: usize,
    core: Option<usize>,
    answers: bool,
    streams: usize,
    slots: u64,
    slots_used: u64,
}

#[derive(Serialize)]
struct Condition {
    status: &'static str,
}

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    ring_layout: String,
}

/// `GET /health`: every shard, and whether it answers. 503 if one does not.
pub async fn health(State(house): State<Arc<House>>) -> Response {
    let snapshot = house.snapshots.get().await;
    let is_healthy = snapshot.is_complete();
    let health = Health {
        status: if is_healthy { "healthy" } else { "unhealthy" },
        uptime: house.uptime().as_secs(),
        shards: shard_health(&snapshot),
    };
    (status_of(is_healthy), Json(health)).into_response()
}

/// `GET /live`: this thread answers. Restart the process if it does not.
pub async fn live() -> Response {
    Json(Condition { status: "live" }).into_response()
}

/// `GET /ready`: every shard takes packets in, and the process is not about to end.
pub async fn ready(State(house): State<Arc<House>>) -> Response {
    let is_ready = !*house.stopping.borrow() && house.snapshots.get().await.is_complete();
    let status = if is_ready { "ready" } else { "not ready" };
    (status_of(is_ready), Json(Condition { status })).into_response()
}

/// `GET /version`.
pub async fn version() -> Response {
    let version = Version {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        ring_layout: format!("{}.{}", layout::MAJOR, layout::MINOR),
    };
    Json(version).into_response()
}

const fn status_of(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn shard_health(snapshot: &Snapshot) -> Vec<ShardHealth> {
    (0..snapshot.shard_count)
        .map(|shard| {
            let report = snapshot.reports.iter().find(|report| report.shard == shard);
            ShardHealth {
                shard,
                core: report.and_then(|report| report.core),
                answers: report.is_some(),
                streams: report.map_or(0, |report| report.streams.len()),
                slots: report.map_or(0, |report| report.counters.slots),
                slots_used: report.map_or(0, |report| report.counters.slots_used),
            }
        })
        .collect()
}
