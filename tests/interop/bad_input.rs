//! What is wrong with a host, a configuration or a datagram: one clear line and a status that is not 0, or a counted drop.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::appliance::{Appliance, Ports, Root, command, must_end};
use crate::clips::{TONE_48K, VIDEO, clip, run};
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
    let ordinary = command(&inside, ports, &[]);
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    wrapped.arg(ordinary.get_program()).args(ordinary.get_args());
    wrapped
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    refuses(&mut wrapped, &[root.path().to_str().unwrap(), "ermission denied"]);
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
    let clip =
        clip("usual", &[VIDEO, TONE_48K], "-c:v libx264 -preset veryfast -b:v 2M -g 25 -bf 2 -c:a aac -b:a 128k");
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

#[test]
fn random_datagrams_to_every_port_change_nothing_but_counters() {
    let clip =
        clip("usual", &[VIDEO, TONE_48K], "-c:v libx264 -preset veryfast -b:v 2M -g 25 -bf 2 -c:a aac -b:a 128k");
    let mut appliance = Appliance::start(&[]);
    let ports = appliance.ports;
    let tap = appliance.tap("cam1");
    std::thread::scope(|scope| {
        for seed in 0..2_u64 {
            scope.spawn(move || {
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
                while began.elapsed() < Duration::from_secs(4) {
                    for chunk in datagram.chunks_mut(8) {
                        let bytes = next().to_le_bytes();
                        chunk.copy_from_slice(&bytes[..chunk.len()]);
                    }
                    // Half of them look like the beginning of something.
                    match next() % 8 {
                        0 => datagram[..4].copy_from_slice(&[0x80, 0, 0, 0]),
                        1 => datagram[0] = 0x80,
                        2 => datagram[..2].copy_from_slice(&[0x80, 33]),
                        3 => datagram[12..16].copy_from_slice(&[0; 4]),
                        _ => {}
                    }
                    let len = (next() % 1_473) as usize;
                    let port = [ports.srt, ports.rtp, ports.rtcp][(next() % 3) as usize];
                    let _ = socket.send_to(&datagram[..len], ("127.0.0.1", port));
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
        }
        let (clip, appliance) = (&clip, &appliance);
        scope.spawn(move || {
            senders::send_srt(appliance.ports.srt, "streamid=cam1", &clip.bytes);
            clip.reference.compare("amid noise", &tap.wait_for(clip.reference.packet_count()));
        });
    });
    assert!(appliance.is_running());
    let streams: serde_json::Value = serde_json::from_str(&appliance.get("/api/v1/streams")).unwrap();
    assert_eq!(streams["count"], 1, "noise makes no streams: {streams}");
    let noise: Vec<String> = fs::read_dir(appliance.root.path())
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && name != "cam1")
        .collect();
    assert!(noise.is_empty(), "{noise:?}");
    let dropped = appliance.metric("headworks_shard_dropped_total");
    assert!(dropped > 1_000.0, "{}", appliance.get("/metrics"));
}
