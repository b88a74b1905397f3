//! What benches share: the appliance as a process of its own, and what the kernel counts of a process and of the machine.

#![allow(dead_code, reason = "each bench uses its own part")]

pub mod libsrt;
pub mod load;
pub mod programs;
pub mod spread;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use serde_json::Value;

/// The program that is measured.
pub const HEADWORKS: &str = env!("CARGO_BIN_EXE_headworks");
/// Where the appliance listens for SRT.
pub const SRT_PORT: u16 = 30_110;
/// Where it listens for RTP.
pub const RTP_PORT: u16 = 30_114;
const CONTROL_PORT: u16 = 30_180;
/// How long the rings that are made ahead are waited for.
const HOUSE_MAX: Duration = Duration::from_secs(60);

/// What a bench was called with: names and their values.
pub fn arguments() -> impl Iterator<Item = (String, String)> {
    // `cargo bench` adds a --bench of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    std::iter::from_fn(move || Some((arguments.next()?, arguments.next().unwrap_or_default())))
}

/// Sets an option; `false` if the value is no such thing.
pub fn set<T: FromStr>(option: &mut T, value: &str) -> bool {
    value.parse().map(|value| *option = value).is_ok()
}

/// A command of the program that is measured: on one core if one is named, all its threads, and in a network namespace if one is named.
pub fn headworks(core: Option<usize>, namespace: Option<&str>) -> Command {
    let core = core.map(|core| core.to_string());
    let mut words = Vec::new();
    words.extend(namespace.iter().flat_map(|namespace| ["ip", "netns", "exec", *namespace]));
    words.extend(core.iter().flat_map(|core| ["taskset", "-c", core]));
    words.push(HEADWORKS);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// `headworks serve`, with rings made ahead for all feeds.
pub struct Appliance {
    process: Process,
}

impl Appliance {
    /// Starts it with `set` beside its ports, its rings under `root`, and waits until it is at rest.
    pub fn start(root: &str, feeds: u32, set: &[String]) -> io::Result<Self> {
        Self::start_by(headworks(None, None), root, feeds, set)
    }

    /// The same with one shard, and on the receiver's core with all its threads: none is where the generator is.
    pub fn start_on_core(root: &str, feeds: u32, set: &[String]) -> io::Result<Self> {
        let own = [format!("shards.cores=[{}]", load::RECEIVER_CORE)];
        Self::start_by(headworks(Some(load::RECEIVER_CORE), None), root, feeds, &[&own, set].concat())
    }

    /// The same by a command of [`headworks`].
    pub fn start_by(mut command: Command, root: &str, feeds: u32, set: &[String]) -> io::Result<Self> {
        let _ = fs::remove_dir_all(root);
        let ports = [
            format!("output.root={root}"),
            format!("ingestion.srt.port={SRT_PORT}"),
            format!("ingestion.rtp.port={RTP_PORT}"),
            format!("ingestion.rtp.rtcp_port={}", RTP_PORT + 1),
            format!("control.listen=127.0.0.1:{CONTROL_PORT}"),
            format!("ingestion.buffer.pool_size={feeds}"),
            "log.level=warn".to_owned(),
        ];
        command.arg("serve").stdout(Stdio::null()).stderr(Stdio::null());
        for set in ports.iter().chain(set) {
            command.args(["--set", set]);
        }
        let appliance = Self { process: Process(command.spawn()?) };
        // Rings are made ahead, ten a second at most, and slower where memory is slow to come.
        thread::sleep(Duration::from_millis(1_000 + 100 * u64::from(feeds)));
        appliance.wait_for_house();
        Ok(appliance)
    }

    /// Waits until the housekeeping thread has built what it builds at the start.
    fn wait_for_house(&self) {
        let process = self.id();
        let busy_s =
            || threads(process).iter().filter(|thread| thread.1 == "hw-house").map(|thread| thread.2).sum::<f64>();
        let limit = Instant::now() + HOUSE_MAX;
        let mut before = busy_s();
        while Instant::now() < limit {
            thread::sleep(Duration::from_millis(500));
            let after = busy_s();
            if after - before < 0.01 {
                return;
            }
            before = after;
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// What its control answers.
    pub fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", CONTROL_PORT)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }
}

/// A process that is told to end when it is no longer needed.
pub struct Process(pub Child);

impl Process {
    /// SIGTERM, and the end of it.
    pub fn terminate(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// The bare receive loop on the receiver's core, configured by `settings`; what it says at its end is JSON.
pub fn bare_receiver(port: u16, duration: Duration, settings: &[&str]) -> io::Result<Child> {
    Command::new(HEADWORKS)
        .args(["bench", "receive", "--core", &load::RECEIVER_CORE.to_string()])
        .args(["--listen", &format!("127.0.0.1:{port}"), "--duration", &format!("{}ms", duration.as_millis())])
        .args(settings.iter().flat_map(|setting| ["--set", *setting]))
        .stdout(Stdio::piped())
        .spawn()
}

/// What a page of metrics says was lost on the way.
pub fn losses(page: &str) -> Vec<String> {
    let watched = [
        "headworks_track_frames_damaged_total",
        "headworks_track_frames_lost_total",
        "headworks_track_frames_without_ring_total",
        "headworks_stream_packets_lost_total",
        "headworks_stream_continuity_errors_total",
        "headworks_shard_dropped_total",
    ];
    samples(page)
        .filter(|(name, value)| *value > 0.0 && watched.iter().any(|word| name.starts_with(word)))
        .map(|(name, value)| format!("{name} = {value}"))
        .collect()
}

/// The sum of all samples of a page of metrics whose name with labels begins with `name` and holds `label`.
pub fn total(page: &str, name: &str, label: &str) -> u64 {
    samples(page)
        .filter(|(sample, _)| sample.starts_with(name) && sample.contains(label))
        .map(|(_, value)| value as u64)
        .sum()
}

/// Name with labels, and value, of each sample of a page of metrics.
pub fn samples(page: &str) -> impl Iterator<Item = (&str, f64)> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).filter_map(|(name, value)| Some((name, value.parse().ok()?)))
}

/// Threads of a process: id, name, CPU seconds, seconds of waiting for a core.
pub fn threads(process: u32) -> Vec<(String, String, f64, f64)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let schedstat = fs::read_to_string(entry.path().join("schedstat")).ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            let mut fields = schedstat.split_whitespace().map(|field| field.parse::<f64>().unwrap_or(0.0) / 1e9);
            let (cpu, wait) = (fields.next()?, fields.next()?);
            Some((entry.file_name().to_string_lossy().into_owned(), name.trim().to_owned(), cpu, wait))
        })
        .collect()
}

/// The JSON object that a program printed last.
pub fn last_object(output: &[u8]) -> Value {
    let text = String::from_utf8_lossy(output);
    let start = text.rfind("\n{").map_or(0, |at| at + 1);
    serde_json::from_str(&text[start..]).unwrap_or(Value::Null)
}
