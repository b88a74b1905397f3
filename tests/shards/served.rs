//! An appliance in this process, on a port of its own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use headworks::config::Config;
use headworks::shard::appliance::Appliance;
use headworks::shard::host::available_cores;
use headworks::shard::mailbox::Shards;
use headworks::shard::net::StoredSockets;
use headworks::shard::report::{ShardReport, StreamReport};

pub const PATIENCE: Duration = Duration::from_secs(30);
/// Bits per second of a caller, where it does not matter.
pub const RATE_BPS: u64 = 4_000_000;

/// An appliance, stopped when it is dropped. One at a time: shards are looked for by the names of their threads, and two have enough to
/// do with one.
pub struct Served {
    /// Gone when it is dropped.
    appliance: Option<Appliance>,
    pub peer: SocketAddr,
    _root: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Served {
    /// With so many shards, which share cores if there are fewer, and a configuration for a few callers that is then changed.
    pub fn start_with(shards: usize, change: impl FnOnce(&mut Config)) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let port = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let mut config = Config::default();
        config.output.root = root.path().join("rings");
        config.shards.cores = available_cores().into_iter().cycle().take(shards).collect();
        config.ingestion.max_connections = 8;
        // Room for the latencies that are asked for.
        config.ingestion.srt.max_bandwidth = 4 * RATE_BPS;
        config.shards.planned_latency = Duration::from_secs(5);
        // So that a frame that is missed is named, not the stream that has ended meanwhile.
        config.ingestion.stream_timeout = 4 * PATIENCE;
        config.ingestion.buffer.pool_size = 4;
        config.ingestion.frame.max_frame_size = 1 << 20;
        config.ingestion.srt.port = port;
        config.ingestion.rtp.enabled = false;
        change(&mut config);
        let appliance = Appliance::start(config, StoredSockets::default(), |_| {}).unwrap();
        Self { appliance: Some(appliance), peer: SocketAddr::from(([127, 0, 0, 1], port)), _root: root, _alone: alone }
    }

    pub fn shards(&self) -> &Shards {
        self.appliance.as_ref().expect("until it is dropped").shards()
    }

    /// What all shards say.
    pub fn reports(&self) -> Vec<ShardReport> {
        let reports = self.shards().reports(PATIENCE);
        assert_eq!(reports.len(), self.shards().len(), "every shard answers");
        assert!(self.appliance.as_ref().expect("until it is dropped").failure().is_none());
        reports
    }

    /// The streams of all shards.
    pub fn streams(&self) -> Vec<StreamReport> {
        self.reports().into_iter().flat_map(|report| report.streams).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.appliance.take().expect("dropped once").stop();
    }
}
