//! What all shards said at one moment. However many ask, shards are asked at most ten times a second.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Mutex;

use super::http::timestamp;
use crate::base;
use crate::shard::mailbox::Shards;
use crate::shard::report::{ShardReport, StreamReport};

/// A snapshot younger than this serves the next question too.
const FRESH_FOR: Duration = Duration::from_millis(100);
/// A shard that has not answered by then is taken for hung.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// The reports of all shards that answered.
#[derive(Debug)]
pub struct Snapshot {
    /// In the order of the shards' numbers.
    pub reports: Vec<ShardReport>,
    /// How many shards there are.
    pub shard_count: usize,
    /// When they answered.
    pub taken: SystemTime,
}

impl Snapshot {
    /// Every stream, with the report it stands in.
    pub fn streams(&self) -> impl Iterator<Item = (&ShardReport, &StreamReport)> {
        self.reports.iter().flat_map(|report| report.streams.iter().map(move |stream| (report, stream)))
    }

    /// The stream of this name.
    pub fn stream(&self, name: &str) -> Option<(&ShardReport, &StreamReport)> {
        self.streams().find(|(_, stream)| stream.name == name)
    }

    /// Whether every shard answered.
    pub fn is_complete(&self) -> bool {
        self.reports.len() == self.shard_count
    }

    /// A moment of a report's clock as wall-clock time (RFC 3339).
    pub fn wall_clock(&self, report: &ShardReport, moment: base::Instant) -> String {
        let age = report.at.saturating_since(moment);
        timestamp::format(self.taken.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

/// Asks shards, and keeps the answer for a moment.
pub struct Snapshots {
    shards: Shards,
    latest: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

impl Snapshots {
    /// Nothing asked yet.
    pub fn new(shards: Shards) -> Self {
        Self { shards, latest: Mutex::new(None) }
    }

    /// The newest snapshot, at most a tenth of a second old. Those who ask while shards are being asked wait for that answer.
    pub async fn get(&self) -> Arc<Snapshot> {
        let mut latest = self.latest.lock().await;
        if let Some((at, snapshot)) = &*latest
            && at.elapsed() < FRESH_FOR
        {
            return Arc::clone(snapshot);
        }
        let shards = self.shards.clone();
        let shard_count = shards.len();
        let reports = tokio::task::spawn_blocking(move || shards.reports(ANSWER_TIME_MAX)).await.unwrap_or_default();
        let snapshot = Arc::new(Snapshot { reports, shard_count, taken: SystemTime::now() });
        *latest = Some((Instant::now(), Arc::clone(&snapshot)));
        snapshot
    }
}
