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

#[test]
fn callers_of_both_versions_of_ip_are_served_by_one_socket_of_ipv6() {
    for (packet_io, address) in [
        (PacketIo::Uring, "127.0.0.1"),
        (PacketIo::Uring, "[::1]"),
        (PacketIo::Mmsg, "[::ffff:127.0.0.1]"),
        (PacketIo::Mmsg, "[::1]"),
    ] {
        let (mut config, srt, root) = config(packet_io);
        config.ingestion.srt.address = "::".parse().unwrap();
        let appliance = Appliance::start(config, StoredSockets::default(), |_| {}).unwrap();
        let served = Served { appliance, srt, _root: root };
        every_frame_arrives_from(Command::new(env!("CARGO_BIN_EXE_headworks")), address, &served);
        served.appliance.stop();
    }
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

/// A host that says what it sees of a datagram's traffic class and time to live: `ask ADDRESS PORT` sends an induction and looks at the
/// answer, `listen ADDRESS PORT` waits to be called.
const WITNESS: &str = r#"
import socket, struct, sys
task, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
is_ipv6 = ':' in address
witness = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
for level, option in [(41, 66), (41, 51)] if is_ipv6 else [(0, 13), (0, 12)]:
    witness.setsockopt(level, option, 1)
witness.settimeout(2 if task == 'ask' else 20)
if task == 'ask':
    induction = struct.pack('>16I', 1 << 31, 0, 0, 0, 4, 2, 1, 1500, 8192, 1, 77, 0, 0, 0, 0, 0)
    witness.sendto(induction, (address, port))
else:
    witness.bind((address, port))
    print('ready', flush=True)
try:
    data, control, _, _ = witness.recvmsg(2048, 256)
except TimeoutError:
    sys.exit('silence')
said = {kind: int.from_bytes(value, sys.byteorder) for _, kind, value in control}
print(said[67 if is_ipv6 else 1], said[52 if is_ipv6 else 2])
"#;

/// Asks the listener at an address; gives traffic class and time to live of its answer, `None` if there is none.
fn asked(mut python: Command, address: &str, port: u16) -> Option<(u8, u8)> {
    let output = python.args(["-c", WITNESS, "ask", address, &port.to_string()]).output().expect("Python");
    let said = String::from_utf8(output.stdout).unwrap();
    if !output.status.success() {
        assert_eq!(String::from_utf8_lossy(&output.stderr), "silence\n");
        return None;
    }
    Some(pair(&said))
}

fn pair(said: &str) -> (u8, u8) {
    let (traffic_class, ttl) = said.trim().split_once(' ').unwrap_or_else(|| panic!("{said:?}"));
    (traffic_class.parse().unwrap(), ttl.parse().unwrap())
}

#[test]
fn a_listener_marks_what_it_sends_over_ipv4_ipv6_and_both_by_one_socket() {
    for packet_io in [PacketIo::Uring, PacketIo::Mmsg] {
        for (listens, asks) in [("0.0.0.0", &["127.0.0.1"][..]), ("::", &["127.0.0.1", "::1"])] {
            let (mut config, port, _root) = config(packet_io);
            config.ingestion.srt.address = listens.parse().unwrap();
            (config.ingestion.srt.traffic_class, config.ingestion.srt.ttl) = (Some(0x88), Some(5));
            let appliance = Appliance::start(config, StoredSockets::default(), |_| {}).unwrap();
            for address in asks {
                let seen = asked(Command::new("python3"), address, port);
                assert_eq!(seen, Some((0x88, 5)), "{packet_io:?}, {listens}, {address}");
            }
            appliance.stop();
        }
    }
}

#[test]
fn by_af_xdp_a_listener_marks_what_it_sends_too() {
    let Some(cable) = Cable::for_xdp(1, &["10.88.0.1/24"], &["10.88.0.2/24"]) else { return };
    let (mut config, port, _root) = config(PacketIo::Xdp);
    config.shards.cores = available_cores()[..1].to_vec();
    (config.ingestion.srt.traffic_class, config.ingestion.srt.ttl) = (Some(0x88), Some(5));
    let appliance = cable.on(Host::Near, || Appliance::start(config, StoredSockets::default(), |_| {}).unwrap());
    assert_eq!(asked(python_on(&cable, Host::Far), "10.88.0.1", port), Some((0x88, 5)));
    appliance.stop();
}

fn python_on(cable: &Cable, host: Host) -> Command {
    let mut python = Command::new("ip");
    python.args(["netns", "exec", cable.name(host), "python3"]);
    python
}

#[test]
fn a_listener_of_one_interface_hears_nobody_who_comes_by_another() {
    let Some(cable) = Cable::for_xdp(1, &["10.88.0.1/24"], &["10.88.0.2/24"]) else { return };
    for (interface, answered) in [(None, [true, true]), (Some(LINK), [true, false])] {
        let (mut config, port, _root) = config(PacketIo::Mmsg);
        config.ingestion.srt.interface = interface.map(str::to_owned);
        let appliance = cable.on(Host::Near, || Appliance::start(config, StoredSockets::default(), |_| {}).unwrap());
        let seen = [(Host::Far, "10.88.0.1"), (Host::Near, "127.0.0.1")];
        let seen = seen.map(|(host, address)| asked(python_on(&cable, host), address, port));
        assert_eq!(seen.map(|it| it.is_some()), answered, "{interface:?}");
        assert_eq!(seen[0], Some((0, 64)), "as the kernel has it");
        appliance.stop();
    }
    let (mut config, ..) = config(PacketIo::Mmsg);
    config.ingestion.srt.interface = Some("none1".to_owned());
    let error = Appliance::start(config, StoredSockets::default(), |_| {}).err().unwrap().to_string();
    assert!(
        error.contains("SRT: ") && error.contains("cannot bind to the network interface: No such device"),
        "{error}"
    );
}

/// A listener that says of its first caller what it sees, and its port.
fn witness(address: &str) -> (std::process::Child, std::io::BufReader<std::process::ChildStdout>, u16) {
    use std::io::BufRead;
    let port = UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap().port();
    let mut child = Command::new("python3")
        .args(["-c", WITNESS, "listen", address, &port.to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, said, port)
}

fn seen(
    (mut child, mut said, _): (std::process::Child, std::io::BufReader<std::process::ChildStdout>, u16),
) -> (u8, u8) {
    use std::io::BufRead;
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    child.wait().unwrap();
    pair(&line)
}

#[test]
fn a_call_is_marked_as_its_stream_says_or_else_as_the_listener_is() {
    for packet_io in [PacketIo::Uring, PacketIo::Mmsg] {
        let witnesses = [witness("127.0.0.1"), witness("::1")];
        let (mut config, ..) = config(packet_io);
        (config.ingestion.srt.traffic_class, config.ingestion.srt.ttl) = (Some(0x88), Some(5));
        let at = |address: String| headworks::config::StreamSrt { address, ..Default::default() };
        let own = headworks::config::StreamSrt {
            traffic_class: Some(0xb8),
            ttl: Some(9),
            interface: Some("lo".to_owned()),
            ..at(format!("127.0.0.1:{}", witnesses[0].2))
        };
        for (name, srt) in [("own", own), ("others", at(format!("[::1]:{}", witnesses[1].2)))] {
            let stream = headworks::config::Stream { srt: Some(srt), ..Default::default() };
            config.streams.insert(name.to_owned(), stream);
        }
        let appliance = Appliance::start(config, StoredSockets::default(), |_| {}).unwrap();
        assert_eq!(witnesses.map(seen), [(0xb8, 9), (0x88, 5)], "{packet_io:?}");
        appliance.stop();
    }
}

#[test]
fn what_send_sends_is_marked_as_its_options_or_its_url_say() {
    for (query, options) in [
        ("?iptos=0x88&ipttl=7&bindtodevice=lo", &[][..]),
        ("?iptos=1&ipttl=1", &["--traffic-class", "0x88", "--ttl", "7", "--interface", "lo"]),
    ] {
        let witness = witness("127.0.0.1");
        let mut sender = Command::new(env!("CARGO_BIN_EXE_headworks"))
            .args(["send", "--to", &format!("srt://127.0.0.1:{}{query}", witness.2), "--connect-timeout", "1s"])
            .args(options)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(seen(witness), (0x88, 7), "{query}");
        sender.wait().unwrap();
    }
}
