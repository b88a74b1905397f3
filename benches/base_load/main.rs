//! The base load: many feeds into one appliance for a while, and whether every frame of every feed arrived.
//!
//! `cargo bench --bench base_load -- [--feeds 25] [--rate 50M] [--seconds 60] [--sender send|libsrt] [--taps 4] [--loss 5%]
//! [--latency 500ms] [--json FILE]`
//!
//! Appliance, senders and readers are processes of this one machine. `--sender libsrt` has an srt-live-transmit (Debian's
//! srt-tools) for each feed, all given one made up stream at its pace. `--loss` puts `headworks relay` between, with that share
//! lost each way, 30 ms of round trip, reordering and duplicates. A row every ten seconds shows memory, losses and what has
//! arrived; at the end each feed's frames are held against the PES packets that its sender began (made up feeds have one frame
//! in each), and each reader's numbers against those of the rings. Exit code 0: every frame arrived and nothing was lost.

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use serde_json::{Value, json};

use support::{Appliance, HEADWORKS, Process, SRT_PORT, last_object, losses, samples, set, threads};

const ROOT: &str = "/dev/shm/headworks-base-load";
const RECORDING: &str = "/dev/shm/headworks-base-load.ts";
const RELAY_PORT: u16 = 30_140;
const ROW_EVERY: Duration = Duration::from_secs(10);
/// What srt-live-transmit is given at a time, and how often.
const TICK: Duration = Duration::from_millis(4);
const DATAGRAM_LEN: usize = 1_316;

struct Options {
    feeds: u32,
    rate: String,
    seconds: u64,
    libsrt: bool,
    taps: u32,
    loss: Option<String>,
    latency: String,
    json: Option<String>,
}

/// How far the appliance is.
#[derive(Clone, Copy, Default)]
struct Sample {
    seconds: f64,
    cpu_s: f64,
    /// Memory of its own, without rings and packet memory.
    anonymous_kb: u64,
    shared_kb: u64,
    frames: u64,
}

/// Frames of one feed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Frames {
    video: u64,
    audio: u64,
}

/// What the senders say: of each feed the frames that were sent, and the report itself.
type Sent = (BTreeMap<String, Frames>, Value);

fn main() -> ExitCode {
    let Some(options) = options() else { return ExitCode::from(2) };
    let outcome = run(&options);
    let _ = fs::remove_dir_all(ROOT);
    let _ = fs::remove_file(RECORDING);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("base_load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    println!(
        "{} feeds of {} bit/s for {} s from {}{}",
        options.feeds,
        options.rate,
        options.seconds,
        if options.libsrt { "srt-live-transmit" } else { "headworks send" },
        options.loss.as_ref().map_or(String::new(), |loss| format!(", {loss} lost each way")),
    );
    let appliance = Appliance::start(ROOT, options.feeds, &[])?;
    let mut relay = options.loss.as_ref().map(|loss| relay(loss)).transpose()?;
    let taps = taps(options)?;
    let port = if relay.is_some() { RELAY_PORT } else { SRT_PORT };
    let (sender, sent) = mpsc::channel();
    let (samples, (expected, report)) = thread::scope(|scope| {
        scope.spawn(move || {
            let sent = if options.libsrt { send_by_libsrt(options, port) } else { send(options, port) };
            let _ = sender.send(sent.map_err(|error| error.to_string()));
        });
        watch(&appliance, &sent)
    })?;
    // The last frames leave their receive buffers, and readers see them.
    thread::sleep(Duration::from_secs(2));
    let page = appliance.get("/metrics").ok_or("the appliance does not answer")?;
    let arrived = arrived(&page);
    let read: Vec<_> = taps.into_iter().map(Tap::end).collect();
    // It tells what it did.
    if let Some(relay) = &mut relay {
        relay.terminate();
    }

    let mut faults = losses(&page);
    faults.extend(sender_faults(options, &report));
    faults.extend(memory_fault(&samples));
    for (name, expected) in &expected {
        let arrived = arrived.get(name).copied().unwrap_or_default();
        if arrived != *expected {
            let (Frames { video: v, audio: a }, Frames { video, audio }) = (arrived, expected);
            faults.push(format!("{name}: {v} of {video} video frames, {a} of {audio} audio frames arrived"));
        }
    }
    for (name, frames) in &read {
        let there = arrived.get(name).map_or(0, |arrived| arrived.video + arrived.audio);
        match frames {
            Ok(frames) if *frames == there => println!("the reader of {name} saw all {frames} frames in order"),
            Ok(frames) => faults.push(format!("the reader of {name} saw {frames} of {there} frames")),
            Err(gap) => faults.push(format!("the reader of {name}: {gap}")),
        }
    }
    if let Some(fault) = report["shortfall"].as_str() {
        println!("the sender could not keep its schedule: {fault}");
    }
    let total =
        |of: &BTreeMap<String, Frames>| of.values().fold((0, 0), |sum, it| (sum.0 + it.video, sum.1 + it.audio));
    let ((video, audio), (video_sent, audio_sent)) = (total(&arrived), total(&expected));
    println!("{video} of {video_sent} video frames, {audio} of {audio_sent} audio frames");
    // Made up feeds have 25 pictures a second.
    let least = u64::from(options.feeds) * options.seconds * 20;
    if video_sent < least {
        faults.push(format!("{video_sent} video frames were sent, of at least {least}"));
    }
    for fault in &faults {
        println!("FAULT {fault}");
    }
    if let Some(path) = &options.json {
        let rows: Vec<Value> = samples.iter().map(Sample::as_json).collect();
        let all = json!({ "samples": rows, "sender": report, "faults": faults,
            "video": { "sent": video_sent, "arrived": video }, "audio": { "sent": audio_sent, "arrived": audio } });
        fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(faults.is_empty())
}

/// What the sender says went wrong: feeds that were refused, or broke.
fn sender_faults(options: &Options, report: &Value) -> Vec<String> {
    if options.libsrt {
        return Vec::new();
    }
    let mut faults = Vec::new();
    if report["connected"] != options.feeds {
        faults.push(format!("{} of {} feeds were connected", report["connected"], options.feeds));
    }
    for feed in report["per_feed"].as_array().into_iter().flatten() {
        if let Some(error) = feed["error"].as_str() {
            faults.push(format!("{}: {error}", feed["name"].as_str().unwrap_or_default()));
        }
    }
    faults
}

/// Buffers grow as bursts need it; what doubles goes on growing.
fn memory_fault(samples: &[Sample]) -> Option<String> {
    let (first, last) = (samples.first()?.anonymous_kb, samples.last()?.anonymous_kb);
    (last > 2 * first).then(|| format!("own memory grew from {first} KiB to {last} KiB"))
}

/// A row every ten seconds, until the senders are through.
fn watch(appliance: &Appliance, sent: &Receiver<Result<Sent, String>>) -> Result<(Vec<Sample>, Sent), Box<dyn Error>> {
    let (start, at_start) = (Instant::now(), Sample::of(appliance));
    let mut rows: Vec<Sample> = Vec::new();
    println!("{:>6} {:>10} {:>14} {:>14} {:>14}", "s", "frames", "CPU of a core", "own memory KiB", "shared KiB");
    loop {
        let next = ROW_EVERY * (rows.len() as u32 + 1);
        let outcome = match sent.recv_timeout(next.saturating_sub(start.elapsed())) {
            Ok(outcome) => Some(outcome?),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Err("the senders are gone".into()),
        };
        let row = Sample { seconds: start.elapsed().as_secs_f64(), ..Sample::of(appliance) };
        let before = rows.last().unwrap_or(&at_start);
        println!(
            "{:>6.0} {:>10} {:>12.1} % {:>14} {:>14}",
            row.seconds,
            row.frames,
            (row.cpu_s - before.cpu_s) / (row.seconds - before.seconds) * 100.0,
            row.anonymous_kb,
            row.shared_kb
        );
        rows.push(row);
        if let Some(outcome) = outcome {
            return Ok((rows, outcome));
        }
    }
}

impl Sample {
    fn of(appliance: &Appliance) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", appliance.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
        };
        Self {
            seconds: 0.0,
            cpu_s: threads(appliance.id()).iter().map(|thread| thread.2).sum(),
            anonymous_kb: field("RssAnon"),
            shared_kb: field("RssShmem"),
            frames: appliance
                .get("/metrics")
                .map_or(0, |page| arrived(&page).values().map(|frames| frames.video + frames.audio).sum()),
        }
    }

    fn as_json(&self) -> Value {
        json!({ "seconds": self.seconds, "cpu_s": self.cpu_s, "anonymous_kb": self.anonymous_kb,
            "shared_kb": self.shared_kb, "frames": self.frames })
    }
}

/// Frames of each stream, from a page of metrics.
fn arrived(page: &str) -> BTreeMap<String, Frames> {
    let mut streams = BTreeMap::<String, Frames>::new();
    for (name, value) in samples(page).filter(|(name, _)| name.starts_with("headworks_track_frames_total{")) {
        let mut labels = name.split('"').skip(1).step_by(2);
        let (Some(stream), Some(track)) = (labels.next(), labels.next()) else { continue };
        let frames = streams.entry(stream.to_owned()).or_default();
        *if track.starts_with("video") { &mut frames.video } else { &mut frames.audio } += value as u64;
    }
    streams
}

fn send(options: &Options, port: u16) -> Result<Sent, Box<dyn Error + Send + Sync>> {
    let to = format!("srt://127.0.0.1:{port}?streamid=feed");
    let report = headworks_send(options, &["--to", &to, "--latency", &options.latency], options.feeds)?;
    let feeds = report["per_feed"].as_array().ok_or("headworks send failed")?;
    // A single feed has the bare name.
    let name = |feed: &Value| feed["name"].as_str().unwrap_or_default().to_owned();
    Ok((feeds.iter().map(|feed| (name(feed), pes_packets(feed))).collect(), report))
}

fn headworks_send(options: &Options, arguments: &[&str], feeds: u32) -> Result<Value, io::Error> {
    let output = Command::new(HEADWORKS)
        .args(["send", "--json", "--rate", &options.rate, "--feeds", &feeds.to_string()])
        .args(["--duration", &format!("{}s", options.seconds)])
        .args(arguments)
        .stderr(Stdio::null())
        .output()?;
    Ok(last_object(&output.stdout))
}

fn pes_packets(feed: &Value) -> Frames {
    let count = |kind| feed["pes_packets"][kind].as_u64().unwrap_or(0);
    Frames { video: count("video"), audio: count("audio") }
}

/// One recorded stream, given to an srt-live-transmit per feed at its pace.
fn send_by_libsrt(options: &Options, port: u16) -> Result<Sent, Box<dyn Error + Send + Sync>> {
    // Nobody need listen where it goes; what counts is the record.
    let recorded = headworks_send(options, &["--to", "udp://127.0.0.1:9", "--record", RECORDING], 1)?;
    let expected = pes_packets(&recorded["per_feed"][0]);
    let stream = fs::read(RECORDING)?;
    let latency_ms = options.latency.trim_end_matches("ms");
    let mut senders = Vec::new();
    for feed in 0..options.feeds {
        let to = format!("srt://127.0.0.1:{port}?streamid=feed{feed}&latency={latency_ms}&sndbuf=20000000&fc=60000");
        let mut sender = Command::new("srt-live-transmit")
            .args(["-q", "-chunk:1316", "file://con", &to])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("srt-live-transmit: {error} (apt-get install srt-tools)"))?;
        let input = sender.stdin.take().expect("piped");
        senders.push((Process(sender), input));
    }
    thread::sleep(Duration::from_secs(1));
    let bytes_per_s = stream.len() as f64 / options.seconds as f64;
    let (start, mut at, mut worst) = (Instant::now(), 0, 0);
    while at < stream.len() {
        let due = (start.elapsed().as_secs_f64() * bytes_per_s) as usize / DATAGRAM_LEN * DATAGRAM_LEN + DATAGRAM_LEN;
        let due = due.min(stream.len());
        worst = worst.max(due - at);
        for (_, input) in &mut senders {
            input.write_all(&stream[at..due])?;
        }
        at = due;
        thread::sleep(TICK);
    }
    // It reads its input in chunks, the last of which it keeps: null packets push the media out.
    let null: Vec<u8> = [0x47, 0x1f, 0xff, 0x10].into_iter().chain([0xff; 184]).collect();
    for (_, input) in &mut senders {
        input.write_all(&null.repeat(7 * 64))?;
    }
    // At the end of its input it hangs up, and what was not yet acknowledged would be gone.
    thread::sleep(Duration::from_secs(2));
    for (sender, input) in senders {
        drop(input);
        drop(sender);
    }
    let late_ms = worst as f64 / bytes_per_s * 1e3;
    let report = json!({ "worst_lateness_ms": late_ms, "seconds": start.elapsed().as_secs_f64() });
    Ok(((0..options.feeds).map(|feed| (format!("feed{feed}"), expected)).collect(), report))
}

fn relay(loss: &str) -> Result<Process, io::Error> {
    let relay = Command::new(HEADWORKS)
        .args(["relay", "--listen", &format!("127.0.0.1:{RELAY_PORT}"), "--to", &format!("127.0.0.1:{SRT_PORT}")])
        .args(["--loss", loss, "--delay", "15ms", "--reorder", "2%", "--reorder-delay", "4ms", "--duplicate", "1%"])
        .stderr(Stdio::null())
        .spawn();
    thread::sleep(Duration::from_millis(500));
    relay.map(Process)
}

/// A reader, and what it has seen.
struct Tap {
    name: String,
    process: Process,
    /// How many frames, or which one was missing.
    seen: JoinHandle<Result<u64, String>>,
}

impl Tap {
    fn start(name: String) -> Result<Self, io::Error> {
        let mut process = Command::new(HEADWORKS)
            .args(["tap", &name, "--root", ROOT, "--from", "oldest", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = process.stdout.take().expect("piped");
        let seen = thread::spawn(move || {
            let mut next = BTreeMap::<String, u64>::new();
            for line in BufReader::new(output).lines() {
                let line = line.map_err(|error| error.to_string())?;
                let frame: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
                let track = frame["track"].as_str().unwrap_or_default();
                let next = next.entry(track.to_owned()).or_default();
                if frame["seq"] != *next {
                    return Err(format!("{track} goes on with {} where {next} should be", frame["seq"]));
                }
                *next += 1;
            }
            Ok(next.values().sum())
        });
        Ok(Self { name, process: Process(process), seen })
    }

    fn end(mut self) -> (String, Result<u64, String>) {
        self.process.terminate();
        (self.name, self.seen.join().expect("a reader's thread does not panic"))
    }
}

/// Readers of feeds all over the load.
fn taps(options: &Options) -> Result<Vec<Tap>, io::Error> {
    let taps = options.taps.min(options.feeds);
    let single = options.feeds == 1 && !options.libsrt;
    let name = |n: u32| if single { "feed".to_owned() } else { format!("feed{}", n * options.feeds / taps) };
    (0..taps).map(|n| Tap::start(name(n))).collect()
}

fn options() -> Option<Options> {
    let mut options = Options {
        feeds: 25,
        rate: "50M".to_owned(),
        seconds: 60,
        libsrt: false,
        taps: 4,
        loss: None,
        latency: "120ms".to_owned(),
        json: None,
    };
    for (name, value) in support::arguments() {
        let understood = match name.as_str() {
            "--feeds" => set(&mut options.feeds, &value),
            "--seconds" => set(&mut options.seconds, &value),
            "--taps" => set(&mut options.taps, &value),
            "--rate" => !std::mem::replace(&mut options.rate, value).is_empty(),
            "--sender" => {
                options.libsrt = value == "libsrt";
                options.libsrt || value == "send"
            }
            "--loss" => options.loss.replace(value).is_none(),
            "--latency" => {
                options.latency = value;
                options.latency.ends_with("ms")
            }
            "--json" => options.json.replace(value).is_none(),
            _ => false,
        };
        if !understood {
            eprintln!(
                "base_load [--feeds N] [--rate 50M] [--seconds N] [--sender send|libsrt] [--taps N] [--loss 5%] [--latency 500ms] [--json FILE]"
            );
            return None;
        }
    }
    Some(options)
}
