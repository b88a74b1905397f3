//! Steady state means no allocation on a running shard either: its ring, sockets, timers and turns, with feeds of every kind.

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headworks::config::{Config, Stream};
use headworks::shard::appliance::Appliance;
use headworks::shard::net::StoredSockets;
use headworks::shard::report::ShardReport;
use headworks_counting_allocator::{CountingAllocator, watch, watched_allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Feeds of each kind: SRT, encrypted SRT, RTP.
const FEEDS_EACH: usize = 2;
/// Bits per second of each feed.
const RATE: &str = "16M";
/// Until buffers, statistics and reports have been through all they will ever see.
const WARM_UP: Duration = Duration::from_secs(2);
/// Datagrams to be taken in without an allocation.
const DATAGRAMS: u64 = 50_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Feeds that do not outlive the test.
struct Feeds(Vec<Child>);

impl Feeds {
    fn start(&mut self, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headworks"));
        command
            .args(["send", "--rate", RATE, "--feeds", &FEEDS_EACH.to_string(), "--duration", "120s"])
            .args(arguments);
        self.0.push(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_udp_ports<const N: usize>() -> [u16; N] {
    let sockets: [UdpSocket; N] = std::array::from_fn(|_| UdpSocket::bind("0.0.0.0:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

/// The thread of the only shard: the first of its name, which those that it starts inherit.
fn shard_thread() -> i32 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap());
    let is_named =
        |path: PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with("hw-shard-"));
    let named = tasks.filter(|task| is_named(task.path()));
    named.map(|task| task.file_name().to_str().unwrap().parse().unwrap()).min().expect("a shard")
}

fn report(appliance: &Appliance) -> ShardReport {
    let report = appliance.shards().reports(Duration::from_secs(5)).pop().expect("the shard answers");
    // A report is made of allocations; the shard is done with it in the turn that gave it.
    std::thread::sleep(Duration::from_millis(50));
    report
}

#[test]
fn a_shard_that_has_warmed_up_allocates_nothing_for_fifty_thousand_datagrams() {
    allocates_nothing(false);
    allocates_nothing(true);
}

/// With aggregates RTP is sent in such as stay in their slots, SRT in such as are copied apart.
fn allocates_nothing(aggregates: bool) {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let [srt, rtp, rtcp] = free_udp_ports();
    let mut config = Config::default();
    config.output.root = root.path().join("rings");
    config.shards.cores = vec![headworks_host::available_cores()[0]];
    config.shards.gro = aggregates;
    config.ingestion.max_connections = 8;
    config.ingestion.buffer.pool_size = 3 * FEEDS_EACH as u32;
    config.ingestion.frame.max_frame_size = 1 << 20;
    config.ingestion.srt.port = srt;
    config.ingestion.rtp.port = rtp;
    config.ingestion.rtp.rtcp_port = rtcp;
    for number in 0..FEEDS_EACH {
        let encrypted = Stream { passphrase: Some("known to everybody".to_owned()), ..Stream::default() };
        config.streams.insert(format!("encrypted{number}"), encrypted);
    }
    let appliance = Appliance::start(config, StoredSockets::default(), |_| {}).unwrap();
    let mut feeds = Feeds(Vec::new());
    let [few, many] = if aggregates { ["4", "45"] } else { ["1", "1"] };
    feeds.start(&["--to", &format!("srt://127.0.0.1:{srt}?streamid=plain&latency=500"), "--gso", few]);
    let passphrase = ["--passphrase", "known to everybody", "--gso", few];
    feeds.start(
        &[&["--to", &format!("srt://127.0.0.1:{srt}?streamid=encrypted&latency=500")], &passphrase[..]].concat(),
    );
    feeds.start(&["--to", &format!("rtp://127.0.0.1:{rtp}"), "--ssrc", "10", "--gso", many]);

    let began = Instant::now();
    let is_up = |report: &ShardReport| {
        let tracks = report.streams.iter().flat_map(|stream| &stream.tracks);
        report.streams.len() == 3 * FEEDS_EACH
            && tracks.filter(|track| track.statistics.frames > 25).count() == 6 * FEEDS_EACH
    };
    while !is_up(&report(&appliance)) {
        assert!(began.elapsed() < PATIENCE, "not all feeds come: {:?}", report(&appliance).streams.len());
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(WARM_UP);

    let shard = shard_thread();
    watch(shard);
    let before = report(&appliance);
    assert!(watched_allocations() > 0, "this is the thread that makes reports");
    let mut after = before.clone();
    let mut allocations = 0;
    // A slow machine needs longer; between the spans the shard is asked how far it is.
    while after.counters.datagrams - before.counters.datagrams < DATAGRAMS {
        assert!(began.elapsed() < PATIENCE, "so few datagrams come: {:?}", after.counters);
        watch(shard);
        std::thread::sleep(Duration::from_secs(2));
        allocations += watched_allocations();
        after = report(&appliance);
    }
    drop(feeds);
    appliance.stop();
    let datagrams = after.counters.datagrams - before.counters.datagrams;
    let counters = after.counters;
    assert_eq!((counters.aggregates > 0, counters.aggregates_copied > 0), (aggregates, aggregates));
    println!(
        "{allocations} allocations for {datagrams} datagrams in {} turns",
        after.counters.turns - before.counters.turns
    );
    for stream in &after.streams {
        assert_eq!(stream.ingest.lost, 0, "{}: nothing is shown of what loss costs", stream.name);
    }
    assert_eq!(allocations, 0, "allocations of the shard's thread for {datagrams} datagrams");
}
