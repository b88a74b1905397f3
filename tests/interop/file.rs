//! Files to and from libsrt's `srt-file-transmit`, whoever listens, over a good and a bad network.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use serde_json::Value;

use crate::appliance::Appliance;
use crate::relay::Relay;

/// More than any of these takes.
const PATIENCE: Duration = Duration::from_secs(180);
const SIZE: usize = 24_000_123;

/// A process of either kind, ended with itself.
struct Process {
    child: Child,
    stderr: Option<BufReader<ChildStderr>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Its exit code and what it has written to its standard output.
    fn finish(&mut self, what: &str) -> (Option<i32>, String) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "{what} does not end");
            std::thread::sleep(Duration::from_millis(50));
        };
        let mut text = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            stdout.read_to_string(&mut text).expect("text");
        }
        (status.code(), text)
    }
}

fn headworks(arguments: &[&str]) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_headworks"))
        .arg("file")
        .args(arguments)
        .arg("--json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("headworks starts");
    let mut process = Process { child, stderr: None };
    process.stderr = process.child.stderr.take().map(BufReader::new);
    process
}

/// One that listens, and its port.
fn headworks_listening(arguments: &[&str], query: &str) -> (Process, u16) {
    let location = format!("srt://127.0.0.1:0?mode=listener{query}");
    let mut process = headworks(&[arguments, &[location.as_str()]].concat());
    let mut line = String::new();
    process.stderr.as_mut().expect("piped").read_line(&mut line).expect("text");
    let port = line
        .split_whitespace()
        .find_map(|word| word.trim_end_matches(',').strip_prefix("127.0.0.1:")?.parse().ok())
        .unwrap_or_else(|| panic!("it says {line:?}"));
    (process, port)
}

fn file_transmit(from: &str, to: &str) -> Process {
    let child = Command::new("srt-file-transmit")
        .args(["-q", from, to])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("srt-file-transmit is installed");
    Process { child, stderr: None }
}

/// One that listens, and its port.
fn file_transmit_listening(of: impl Fn(&str) -> (String, String), query: &str) -> (Process, u16) {
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a port").port();
    let (from, to) = of(&format!("srt://127.0.0.1:{port}?mode=listener{query}"));
    let process = file_transmit(&from, &to);
    let started = Instant::now();
    while UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10), "nobody listens on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
    (process, port)
}

/// A network to a port: a relay, or none.
struct Way {
    /// Ended with this.
    _relay: Option<Relay>,
    port: u16,
}

impl Way {
    fn to(port: u16, impairment: Option<&str>) -> Self {
        let relay = impairment.map(|arguments| Relay::start(port, arguments));
        Self { port: relay.as_ref().map_or(port, |relay| relay.port), _relay: relay }
    }
}

fn random_bytes() -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let words = (0..SIZE / 8 + 1).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(SIZE).collect()
}

fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All four ways of a file between the two.
fn every_way(query: &str, impairment: Option<&str>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (from, theirs, ours) =
        (directory.path().join("clip.bin"), directory.path().join("theirs"), directory.path().join("ours"));
    let bytes = random_bytes();
    let sum = sha256(&bytes);
    fs::write(&from, &bytes).expect("room");
    for made in [&theirs, &ours] {
        fs::create_dir(made).expect("room");
    }
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let file_url = format!("file://{}", text(&from));
    let join = |port: u16| format!("srt://127.0.0.1:{port}?mode=caller{query}");
    let reported = |process: &mut Process, what: &str| {
        let (code, out) = process.finish(what);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{what}: {error}: {out:?}"));
        println!("{what}{query}, {impairment:?}: {report}");
        assert_eq!((code, &report["sha256"]), (Some(0), &Value::from(sum.as_str())), "{what}: {report}");
        assert_eq!(report.get("encryption").is_some(), !query.is_empty(), "{what}: {report}");
        assert!(impairment.is_none() || report["lost"].as_u64() > Some(0), "{what}: {report}");
    };

    let what = "libsrt calls and sends";
    let (mut receiver, port) = headworks_listening(&["receive", &text(&ours), "--count", "1"], query);
    let way = Way::to(port, impairment);
    let mut sender = file_transmit(&file_url, &join(way.port));
    assert_eq!(sender.finish(what).0, Some(0));
    reported(&mut receiver, what);
    assert!(fs::read(ours.join("clip.bin")).expect("named by its Stream ID") == bytes);

    let what = "libsrt listens and sends";
    let (mut sender, port) = file_transmit_listening(|here| (file_url.clone(), here.to_owned()), query);
    let way = Way::to(port, impairment);
    let mut receiver = headworks(&["receive", &text(&ours), &join(way.port), "--name", "fetched.bin"]);
    reported(&mut receiver, what);
    assert_eq!(sender.finish(what).0, Some(0));
    assert!(fs::read(ours.join("fetched.bin")).expect("named here") == bytes);

    let what = "libsrt listens and receives";
    let to = format!("file://{}/unnamed", text(&theirs));
    let (mut receiver, port) = file_transmit_listening(|here| (here.to_owned(), to.clone()), query);
    let way = Way::to(port, impairment);
    let mut sender = headworks(&["send", &text(&from), &format!("{}&streamid=sent.bin", join(way.port))]);
    reported(&mut sender, what);
    assert_eq!(receiver.finish(what).0, Some(0));
    assert!(fs::read(theirs.join("sent.bin")).expect("named by our Stream ID") == bytes);

    let what = "libsrt calls and receives";
    let (mut sender, port) = headworks_listening(&["send", &text(&from)], query);
    let way = Way::to(port, impairment);
    let to = format!("file://{}/called.bin", text(&theirs));
    let mut receiver = file_transmit(&join(way.port), &to);
    assert_eq!(receiver.finish(what).0, Some(0));
    reported(&mut sender, what);
    assert!(fs::read(theirs.join("called.bin")).expect("named there") == bytes);
}

const BAD_NETWORK: &str = "--loss 0.5% --delay 8ms --reorder 0.2% --seed 5";

#[test]
fn files_go_to_and_from_libsrt() {
    every_way("", None);
}

#[test]
fn encrypted_files_go_to_and_from_libsrt() {
    every_way("&passphrase=correct-horse&pbkeylen=16", None);
}

#[test]
fn files_go_to_and_from_libsrt_over_a_bad_network() {
    every_way("", Some(BAD_NETWORK));
}

#[test]
fn encrypted_files_go_to_and_from_libsrt_over_a_bad_network() {
    every_way("&passphrase=correct-horse&pbkeylen=16", Some(BAD_NETWORK));
}

#[test]
fn a_file_is_refused_at_the_port_for_live_streams_and_everybody_is_told_why() {
    let mut appliance = Appliance::start(&[]);
    let directory = tempfile::tempdir().expect("a directory");
    let from = directory.path().join("clip.bin");
    fs::write(&from, [7; 100_000]).expect("room");
    let location = format!("srt://127.0.0.1:{}", appliance.ports.srt);
    let from = from.to_str().expect("text");
    let (_, _) = file_transmit(&format!("file://{from}"), &location).finish("a file to the live port");
    appliance.wait_for_log(
        "SRT caller refused: MESSAGEAPI (12): it wants to send or receive a file",
        Duration::from_secs(10),
    );
    let (code, report) =
        headworks(&["send", from, &format!("{location}?messageapi=1")]).finish("messages to the live port");
    let report: Value = serde_json::from_str(&report).expect("a report");
    assert_eq!((code, report["error"].as_str()), (Some(1), Some("rejected by the listener: CONGESTION (13)")));
    let refusals: Value = serde_json::from_str(&appliance.get("/api/v1/refusals")).expect("JSON");
    let reasons: Vec<_> =
        refusals["refusals"].as_array().expect("a list").iter().map(|it| it["reason"].clone()).collect();
    assert!(reasons.contains(&"MESSAGEAPI".into()) && reasons.contains(&"CONGESTION".into()), "{refusals}");
    assert!(appliance.is_running());
}
