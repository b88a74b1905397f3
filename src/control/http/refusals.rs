//! `GET /api/v1/refusals`: which SRT callers were refused of late, and why.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::routes::House;
use super::timestamp;

/// All shards' books as one, the newest first.
#[derive(Serialize)]
pub struct Listing {
    refusals: Vec<Refusal>,
    count: usize,
    time: String,
}

#[derive(Serialize)]
struct Refusal {
    source_addr: String,
    stream_id: String,
    code: u32,
    reason: &'static str,
    why: String,
    count: u64,
    first: String,
    last: String,
    shard: usize,
}

/// The last refusals.
pub async fn list(State(house): State<Arc<House>>) -> Json<Listing> {
    let snapshot = house.snapshots.get().await;
    let reports = snapshot.reports.iter();
    let mut refusals: Vec<_> =
        reports.flat_map(|report| report.refusals.iter().map(move |refusal| (report, refusal))).collect();
    refusals.sort_by_key(|(_, refusal)| Reverse(refusal.last));
    let refusals: Vec<Refusal> = refusals
        .into_iter()
        .map(|(report, refusal)| Refusal {
            source_addr: refusal.address.to_string(),
            stream_id: refusal.stream_id.clone(),
            code: refusal.reason.code(),
            reason: refusal.reason.name(),
            why: refusal.why.clone(),
            count: refusal.count,
            first: snapshot.wall_clock(report, refusal.first),
            last: snapshot.wall_clock(report, refusal.last),
            shard: report.shard,
        })
        .collect();
    Json(Listing { count: refusals.len(), refusals, time: timestamp::format(SystemTime::now()) })
}
