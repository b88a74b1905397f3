//! The whole appliance without io_uring: because it is told so, because the kernel refuses it, and by AF_XDP, or DPDK where the program
//! has it, from another host (a network namespace, for which it needs root). Every frame arrives.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use headworks::config::{Config, PacketIo};
use headworks::shard::appliance::{Appliance, StartError};
use headworks::shard::host::available_cores;
use headworks::shard::net::{StoredSockets, Way};
use headworks::shard::report::StreamReport;
use headworks_forbidden_calls::forbid_io_uring;
use headworks_network_namespaces::{Cable, Host, LINK};

const FEEDS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(20);

/// An appliance on ports of its own, and what goes with it.
struct Served {
    appliance: Appliance,
    srt: u16,
    _root: tempfile::TempDir,
}

fn config(packet_io: PacketIo) -> (Config, u16, tempfile::TempDir) {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let srt = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let mut config = Config::default();
    config.output.root = root.path().join("rings");
    config.shards.packet_io = packet_io;
    config.ingestion.max_connections = 4;
    config.ingestion.buffer.pool_size = FEEDS as u32;
    config.ingestion.frame.max_frame_size = 1 << 20;
    config.ingestion.srt.port = srt;
    config.ingestion.rtp.enabled = false;
    (config, srt, root)
}

fn start(packet_io: PacketIo) -> Served {
    start_with(packet_io, &[])
}

fn start_with(packet_io: PacketIo, cores: &[usize]) -> Served {
    let (mut config, srt, root) = config(packet_io);
    config.shards.cores = cores.to_vec();
    Served { appliance: Appliance::start(config, StoredSockets::default(), |_| {}).unwrap(), srt, _root: root }
}

/// Video and audio frames of each stream, sorted.
fn frames(streams: &[StreamReport]) -> Vec<[u64; 2]> {
    let of = |stream: &StreamReport, kind: &str| {
        let tracks = stream.tracks.iter().filter(|track| track.name.starts_with(kind));
        tracks.map(|track| track.statistics.frames).sum()
    };
    let mut frames: Vec<_> = streams.iter().map(|stream| [of(stream, "video"), of(stream, "audio")]).collect();
    frames.sort_unstable();
    frames
}

fn streams(appliance: &Appliance) -> Vec<StreamReport> {
    appliance.shards().reports(Duration::from_secs(5)).into_iter().flat_map(|report| report.streams).collect()
}

/// Sends feeds on this host, and compares what was sent with what is in the rings.
fn every_frame_arrives(served: Served) {
    every_frame_arrives_from(Command::new(env!("CARGO_BIN_EXE_headworks")), "127.0.0.1", &served);
    served.appliance.stop();
}

/// The same with a sender that reaches the appliance at an address. Gives how many datagrams came, and how many of them past the
/// kernel's stack.
fn every_frame_arrives_from(mut sender: Command, address: &str, served: &Served) -> (u64, u64) {
    let to = format!("srt://{address}:{}?streamid=cam&latency=500", served.srt);
    let output = sender
        .args(["send", "--to", &to, "--feeds", &FEEDS.to_string(), "--rate", "8M", "--duration", "3s", "--json"])
        // The schedule is not what is tested, and the machine may be busy.
        .args(["--max-lateness", "10s"])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let sent = |feed: &serde_json::Value| ["video", "audio"].map(|kind| feed["pes_packets"][kind].as_u64().unwrap());
    let mut expected: Vec<[u64; 2]> = report["per_feed"].as_array().unwrap().iter().map(sent).collect();
    expected.sort_unstable();
    assert!(expected.len() == FEEDS && expected[0][0] > 50, "{expected:?}");
    let began = Instant::now();
    while frames(&streams(&served.appliance)) != expected {
        let arrived = frames(&streams(&served.appliance));
        assert!(began.elapsed() < PATIENCE, "{arrived:?} of {expected:?} arrived");
        std::thread::sleep(Duration::from_millis(50));
    }
    let reports = served.appliance.shards().reports(Duration::from_secs(5));
    for stream in reports.iter().flat_map(|report| &report.streams) {
        let damaged: u64 = stream.tracks.iter().map(|track| track.statistics.damaged).sum();
        assert_eq!((stream.ingest.lost, damaged), (0, 0), "{}", stream.name);
    }
    let datagrams: u64 = reports.iter().map(|report| report.counters.datagrams).sum();
    assert!(datagrams >= report["datagrams"].as_u64().unwrap());
    assert!(reports.iter().all(|report| report.counters.send_errors == 0));
    assert!(served.appliance.failure().is_none());
    (datagrams, reports.iter().map(|report| report.counters.past_kernel).sum())
}

#[test]
fn every_frame_of_srt_feeds_arrives_by_recvmmsg() {
    let served = start(PacketIo::Mmsg);
    let chosen = &served.appliance.started().packet_io;
    assert_eq!(chosen.to_string(), "mmsg: shards.packet_io is mmsg");
    every_frame_arrives(served);
}

/// Without traffic a shard sleeps for 50 ms at a time; one that polls turns as fast as it can.
#[test]
fn every_frame_arrives_at_shards_that_poll_and_never_sleep() {
    for packet_io in [PacketIo::Uring, PacketIo::Mmsg] {
        let (mut config, srt, root) = config(packet_io);
        config.shards.cores = available_cores()[..1].to_vec();
        config.shards.busy_poll = true;
        let appliance = Appliance::start(config, StoredSockets::default(), |_| {}).unwrap();
        let turns = || appliance.shards().turns()[0];
        let began = Instant::now();
        while turns() < 20_000 {
            assert!(began.elapsed() < PATIENCE, "{packet_io:?}: {} turns", turns());
            std::thread::sleep(Duration::from_millis(10));
        }
        let reports = appliance.shards().reports(Duration::from_secs(5));
        assert_eq!(reports[0].counters.idle_turns, 0, "{packet_io:?}");
        every_frame_arrives(Served { appliance, srt, _root: root });
    }
}

#[test]
fn where_io_uring_is_forbidden_the_appliance_says_so_and_every_frame_arrives_without_it() {
    let served = std::thread::spawn(|| {
        forbid_io_uring().unwrap();
        start(PacketIo::Auto)
    });
    // The feeds are sent by a process that is allowed everything.
    let served = served.join().unwrap();
    let chosen = &served.appliance.started().packet_io;
    assert_eq!(chosen.way, Way::Mmsg);
    assert!(chosen.reason.starts_with("io_uring is forbidden here"), "{chosen}");
    every_frame_arrives(served);
}

#[test]
fn where_io_uring_is_forbidden_and_insisted_on_there_is_no_start_and_the_cure_is_named() {
    let (config, _, _root) = config(PacketIo::Uring);
    let refused = std::thread::spawn(|| {
        forbid_io_uring().unwrap();
        Appliance::start(config, StoredSockets::default(), |_| panic!("nothing is opened")).err()
    });
    let error = refused.join().unwrap().expect("it is refused");
    assert!(matches!(error, StartError::PacketIo(_)));
    let text = error.to_string();
    assert!(text.starts_with("shards.packet_io: io_uring is forbidden here: set `sysctl"), "{text}");
}

/// A cable, an appliance at one of its ends, and a sender at the other.
fn served_over_a_cable(cores: &[usize], test: impl FnOnce(&Cable, Served, Command)) {
    let Some(cable) = Cable::for_xdp(1, &["10.88.0.1/24"], &["10.88.0.2/24"]) else { return };
    // Its threads are where the one is that starts them.
    let served = cable.on(Host::Near, || start_with(PacketIo::Xdp, cores));
    let mut sender = Command::new("ip");
    sender.args(["netns", "exec", cable.name(Host::Far), env!("CARGO_BIN_EXE_headworks")]);
    test(&cable, served, sender);
}

#[test]
fn every_frame_of_srt_feeds_arrives_by_af_xdp_past_the_kernel() {
    served_over_a_cable(&available_cores()[..1], |_, served, sender| {
        let chosen = served.appliance.started().packet_io.to_string();
        assert_eq!(chosen, format!("xdp: shards.packet_io is xdp; from {LINK} (native)"));
        let (datagrams, past_kernel) = every_frame_arrives_from(sender, "10.88.0.1", &served);
        assert!(past_kernel * 100 >= datagrams * 99, "{past_kernel} of {datagrams}");
        served.appliance.stop();
    });
}

/// The cable has one queue, so the second shard gets all of its packets by the kernel's stack.
#[test]
fn with_more_shards_than_queues_every_frame_still_arrives() {
    let cores = available_cores();
    served_over_a_cable(&cores[..2.min(cores.len())], |_, served, sender| {
        let (datagrams, past_kernel) = every_frame_arrives_from(sender, "10.88.0.1", &served);
        let reports = served.appliance.shards().reports(Duration::from_secs(5));
        assert!(reports.iter().all(|report| report.counters.handed_over == 0));
        assert!(reports.iter().skip(1).all(|report| report.counters.past_kernel == 0));
        let has_streams = !reports[0].streams.is_empty();
        assert_eq!(past_kernel > 0, has_streams, "{past_kernel} of {datagrams}");
        served.appliance.stop();
    });
}

#[test]
fn a_loopback_address_is_none_for_af_xdp_and_the_cure_is_named() {
    let (mut config, srt, _root) = config(PacketIo::Xdp);
    config.ingestion.srt.address = [127, 0, 0, 1].into();
    let error = Appliance::start(config, StoredSockets::default(), |_| panic!("nothing is served")).err().unwrap();
    let text = error.to_string();
    assert!(text.starts_with("shards.packet_io: no network interface brings packets"), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{srt}")) && text.contains("set shards.packet_io to auto"), "{text}");
}

#[cfg(feature = "dpdk")]
#[test]
fn every_frame_of_srt_feeds_arrives_by_dpdk_without_the_kernel() {
    let Some(cable) = Cable::for_dpdk(1_500, &["10.88.0.2/24"]) else { return };
    let (mut config, srt, root) = config(PacketIo::Dpdk);
    config.shards.cores = available_cores()[..1].to_vec();
    config.shards.dpdk.device = Some(format!("net_af_packet0,iface={LINK},framecnt=4096"));
    config.shards.dpdk.addresses = vec!["10.88.0.1/24".parse().unwrap()];
    config.shards.dpdk.eal_args = ["--no-huge", "-m", "128"].map(str::to_owned).to_vec();
    // The virtual device takes the link of the host that it is made on.
    let appliance = cable.on(Host::Near, || Appliance::start(config, StoredSockets::default(), |_| {}).unwrap());
    let chosen = appliance.started().packet_io.to_string();
    let expected =
        format!("dpdk: shards.packet_io is dpdk; from net_af_packet0,iface={LINK},framecnt=4096 as 10.88.0.1/24");
    assert_eq!(chosen, expected);
    let served = Served { appliance, srt, _root: root };
    let mut sender = Command::new("ip");
    sender.args(["netns", "exec", cable.name(Host::Far), env!("CARGO_BIN_EXE_headworks")]);
    let (datagrams, past_kernel) = every_frame_arrives_from(sender, "10.88.0.1", &served);
    assert_eq!(past_kernel, datagrams);
    served.appliance.stop();
}

#[test]
fn dpdk_is_refused_with_the_cure_where_the_program_or_the_configuration_does_not_fit() {
    let (mut config, _srt, _root) = config(PacketIo::Dpdk);
    config.shards.cores = vec![available_cores()[0]; 2];
    let started = Appliance::start(config, StoredSockets::default(), |_| {});
    let error = started.err().expect("two shards").to_string();
    let cure = if cfg!(feature = "dpdk") { "shards.cores=[0]" } else { "--features dpdk" };
    assert!(error.starts_with("shards.packet_io: ") && error.contains(cure), "{error}");
}
