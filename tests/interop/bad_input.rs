//! What is wrong with a host, a configuration or a datagram: one clear line and a status that is not 0, or a counted drop.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::appliance::{Appliance, BINARY, Ports, Root, as_ordinary_user, command, free_ports, must_end};
use crate::clips::{run, usual_clip};
use crate::senders;

/// Asserts that the last words are one line that holds all of `parts`.
fn refuses(command: &mut Command, parts: &[&str]) {
    let (status, said) = must_end(command);
    assert_eq!(status.code(), Some(1), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| !line.contains(" WARN ") && !line.contains(" INFO ")).collect();
    assert_eq!(lines.len(), 1, "one line: {said}");
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} is not in: {}", lines[0]);
    }
}

#[test]
fn a_port_in_use_is_named() {
    let (root, ports) = (Root::new(), Ports::free());
    let taken = UdpSocket::bind(("0.0.0.0", ports.srt)).unwrap();
    refuses(&mut command(root.path(), ports, &[]), &[&ports.srt.to_string(), "in use"]);
    drop(taken);
    let taken = UdpSocket::bind(("0.0.0.0", ports.rtp)).unwrap();
    refuses(&mut command(root.path(), ports, &[]), &[&ports.rtp.to_string(), "in use"]);
    drop(taken);
    let taken = std::net::TcpListener::bind(("127.0.0.1", ports.control)).unwrap();
    refuses(&mut command(root.path(), ports, &[]), &[&ports.control.to_string(), "in use"]);
    drop(taken);
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    let (root, ports) = (Root::new(), Ports::free());
    refuses(
        command(root.path(), ports, &[]).args(["--config", "/nowhere/headworks.yaml"]),
        &["/nowhere/headworks.yaml"],
    );
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let (root, ports) = (Root::new(), Ports::free());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("headworks.yaml");
    fs::write(&file, "ingestion:\n  srt:\n    latencie: 120ms\n").unwrap();
    refuses(
        command(root.path(), ports, &[]).arg("--config").arg(&file),
        &["headworks.yaml:3", "ingestion.srt.latencie", "did you mean ingestion.srt.latency"],
    );
    refuses(&mut command(root.path(), ports, &["ingestion.srt.prot=1"]), &["ingestion.srt.port"]);
}

#[test]
fn a_passphrase_of_the_wrong_length_is_named() {
    let (root, ports) = (Root::new(), Ports::free());
    refuses(
        &mut command(root.path(), ports, &["ingestion.srt.passphrase=short"]),
        &["ingestion.srt.passphrase", "10 to 79"],
    );
    refuses(
        &mut command(root.path(), ports, &["streams.cam1.passphrase=short"]),
        &["streams.cam1.passphrase", "10 to 79"],
    );
}

#[test]
fn a_ring_directory_of_another_user_is_refused() {
    let (root, ports) = (Root::new(), Ports::free());
    fs::create_dir(root.path()).unwrap();
    std::os::unix::fs::chown(root.path(), Some(65_534), None).expect("these tests run as root");
    refuses(&mut command(root.path(), ports, &[]), &[root.path().to_str().unwrap(), "owned by"]);
}

#[test]
fn a_ring_directory_without_permission_is_refused() {
    let (root, ports) = (Root::new(), Ports::free());
    fs::create_dir(root.path()).unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let inside = root.path().join("closed/rings");
    // As somebody who may not enter.
    let mut ordinary = as_ordinary_user(&command(&inside, ports, &[]));
    refuses(&mut ordinary, &[root.path().to_str().unwrap(), "ermission denied"]);
}

#[test]
fn too_little_locked_memory_is_named() {
    let (root, ports) = (Root::new(), Ports::free());
    let ordinary = as_ordinary_user(&command(root.path(), ports, &[]));
    let mut limited = Command::new("prlimit");
    limited.arg("--memlock=65536:65536").arg(ordinary.get_program()).args(ordinary.get_args());
    limited
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    refuses(&mut limited, &["did not start", "MemLockLimit(65536", "headworks check"]);
}

/// A small tmpfs that is gone at the end.
struct SmallTmpfs(tempfile::TempDir);

impl SmallTmpfs {
    fn new(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "interop"])
            .arg(directory.path()));
        Self(directory)
    }
}

impl Drop for SmallTmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0.path()).status();
    }
}

#[test]
fn a_full_shared_memory_refuses_the_stream_with_its_reason_and_nothing_else() {
    let clip = usual_clip();
    let tmpfs = SmallTmpfs::new("8m");
    let root = tmpfs.0.path().join("rings");
    let mut appliance = Appliance::start(&[&format!("output.root={}", root.display())]);
    let said = senders::SrtSender::start(appliance.ports.srt, "streamid=cam1").refused();
    assert!(!said.contains("SRT target connected"), "{said}");
    appliance.wait_for_log("bytes of shared memory are needed", Duration::from_secs(5));
    senders::send_udp(
        &senders::socket(),
        &clip.bytes[..200 * senders::DATAGRAM],
        SocketAddr::from(([127, 0, 0, 1], appliance.ports.rtp)),
    );
    appliance.wait_for_log("source refused", Duration::from_secs(5));
    let lines = appliance.log().lines().filter(|line| line.contains("source refused")).count();
    assert!(lines <= 3, "a refused source is named once in a while, not {lines} times");
    assert!(appliance.is_running());
}

/// For how many seconds random datagrams come, instead of 4. A release is tried with a minute:
/// `HEADWORKS_NOISE_SECONDS=60 cargo test --release --locked --test interop -- --nocapture random_datagrams` prints what was
/// sent and dropped.
const NOISE_SECONDS: &str = "HEADWORKS_NOISE_SECONDS";
/// Feeds that are sent meanwhile, beside the clips that are compared byte by byte.
const FEEDS: usize = 4;
/// Until all of them are there.
const ALL_ARE_THERE: Duration = Duration::from_secs(3);
/// By how much the process may have grown then, rings and packet memory left out: what seven streams need, whatever the time.
const GROWTH_MAX_KIB: u64 = 64 << 10;
/// By how much it may grow from then on.
const NOISE_GROWTH_MAX_KIB: u64 = 4 << 10;

#[test]
fn random_datagrams_to_every_port_change_nothing_but_counters() {
    let seconds = std::env::var(NOISE_SECONDS).map_or(4, |text| text.parse().expect("a number of seconds"));
    let clip = usual_clip();
    let [own_port] = free_ports();
    let mut appliance = Appliance::start(&[&format!("streams.own-port.rtp.port={own_port}")]);
    let ports = appliance.ports;
    let noisy = [ports.srt, ports.rtp, ports.rtcp, own_port];
    let before = (appliance.memory_kib("VmRSS"), appliance.memory_kib("RssAnon"));
    let sent = AtomicU64::new(0);
    let arrives = |stream: &str, send: &dyn Fn()| {
        let tap = appliance.tap(stream);
        send();
        clip.reference.compare(&format!("{stream} amid noise"), &tap.wait_for(clip.reference.packet_count()));
    };
    let settled = std::thread::scope(|scope| {
        for seed in 0..2 {
            let sent = &sent;
            scope.spawn(move || send_noise(noisy, seed, Duration::from_secs(seconds), sent));
        }
        scope.spawn(move || send_feeds(ports.srt, seconds));
        let clip = &clip;
        scope.spawn(|| arrives("cam1", &|| senders::send_srt(ports.srt, "streamid=cam1", &clip.bytes)));
        for (stream, port) in [("rtp-00000007", ports.rtp), ("own-port", own_port)] {
            let to = SocketAddr::from(([127, 0, 0, 1], port));
            let arrives = &arrives;
            scope.spawn(move || arrives(stream, &|| senders::send_rtp(&senders::socket(), &clip.bytes, to, 7)));
        }
        std::thread::sleep(ALL_ARE_THERE);
        appliance.memory_kib("RssAnon")
    });
    assert!(appliance.is_running());
    let mut expected: Vec<String> = (0..FEEDS).map(|feed| format!("feed{feed}")).collect();
    for feed in &expected {
        let stream: serde_json::Value =
            serde_json::from_str(&appliance.get(&format!("/api/v1/streams/{feed}"))).unwrap();
        for track in stream["tracks"].as_array().unwrap() {
            println!("{feed}/{}: {} frames, {} damaged", track["name"], track["frames"], track["damaged"]);
            assert_eq!((track["damaged"].as_u64(), track["lost"].as_u64()), (Some(0), Some(0)), "{track}");
            // 25 pictures and some 47 audio frames per second.
            assert!(track["frames"].as_u64() >= Some(25 * seconds), "{track}");
        }
    }
    expected.extend(["cam1", "own-port", "rtp-00000007"].map(str::to_owned));
    let streams: serde_json::Value = serde_json::from_str(&appliance.get("/api/v1/streams")).unwrap();
    let listed = streams["streams"].as_array().unwrap().iter().map(|stream| stream["id"].as_str().unwrap().to_owned());
    let noise: Vec<String> = listed.filter(|name| !expected.contains(name)).collect();
    assert!(noise.is_empty(), "noise makes no streams: {noise:?}");
    let noise: Vec<String> = fs::read_dir(appliance.root.path())
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && !expected.contains(name))
        .collect();
    assert!(noise.is_empty(), "{noise:?}");
    let dropped = appliance.metric("headworks_shard_dropped_total");
    assert!(dropped > 1_000.0, "{}", appliance.get("/metrics"));
    let after = (appliance.memory_kib("VmRSS"), appliance.memory_kib("RssAnon"));
    println!(
        "{} random datagrams sent; memory {before:?} KiB before, {after:?} KiB after (all, anonymous), {settled} KiB when all streams were there",
        sent.into_inner()
    );
    for line in appliance.get("/metrics").lines().filter(|line| line.contains("dropped_total") && !line.ends_with(" 0"))
    {
        println!("{line}");
    }
    assert!(after.1 < before.1 + GROWTH_MAX_KIB, "memory grew from {before:?} to {after:?} KiB");
    assert!(after.1 < settled + NOISE_GROWTH_MAX_KIB, "memory grew from {settled} to {} KiB amid noise", after.1);
}

/// Datagrams of random bytes, half of which look like the beginning of something, to each of these ports.
fn send_noise(ports: [u16; 4], seed: u64, duration: Duration, sent: &AtomicU64) {
    let socket = senders::socket();
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let began = Instant::now();
    let mut datagram = [0_u8; 1_472];
    while began.elapsed() < duration {
        for chunk in datagram.chunks_mut(8) {
            let bytes = next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        match next() % 8 {
            0 => datagram[..4].copy_from_slice(&[0x80, 0, 0, 0]),
            1 => datagram[0] = 0x80,
            2 => datagram[..2].copy_from_slice(&[0x80, 33]),
            3 => datagram[12..16].copy_from_slice(&[0; 4]),
            _ => {}
        }
        let len = (next() % 1_473) as usize;
        let port = ports[(next() % 4) as usize];
        let is_sent = socket.send_to(&datagram[..len], ("127.0.0.1", port)).is_ok();
        sent.fetch_add(u64::from(is_sent), Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Feeds of our own, for a second longer than the noise.
fn send_feeds(port: u16, seconds: u64) {
    let url = format!("srt://127.0.0.1:{port}?streamid=feed&latency={}", senders::SRT_LATENCY_MS);
    let duration = format!("{}s", seconds + 1);
    let output = Command::new(BINARY)
        .args(["send", "--to", &url, "--feeds", &FEEDS.to_string(), "--rate", "4M", "--duration", &duration])
        // Whether a busy machine keeps the schedule is not asked here.
        .args(["--max-lateness", "5s"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", String::from_utf8_lossy(&output.stdout));
}
