//! What a packet costs: the appliance next to the bare receive loop, and next to libsrt, under the same load in one run.
//!
//! `cargo bench --bench line_rate -- [--pairs 5] [--seconds 8] [--feeds 25] [--rate 50M] [--rows plain,aes,rtp,libsrt] [--json FILE]`
//!
//! Each row interleaves A B A B: A is the appliance (one shard, pinned to the first core), B what it is compared with on the same
//! core; the generator (`headworks send`) has the second core. Counted is the CPU time of all threads of the receiving process
//! (`schedstat`, nanoseconds) in a window that starts when all feeds run. A pair gives a ratio; the median of the ratios is
//! the figure. Softirq and steal time of the machine, run-queue wait of the receiver, drops and the generator's own report stand
//! beside it: a pair in which the generator fell behind or anything was lost is shown and not counted.

#[path = "../support/mod.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde_json::{Value, json};

use support::{Appliance, HEADWORKS, RTP_PORT, SRT_PORT, last_object, losses, threads};

const ROOT: &str = "/dev/shm/headworks-line-rate";
const PASSPHRASE: &str = "line rate passphrase";
const BARE_PORT: u16 = 30_120;
const LIBSRT_PORT: u16 = 30_130;
/// From the start of the generator until every feed runs.
const SETTLE: Duration = Duration::from_millis(3_000);
const PAYLOAD_BYTES: f64 = 1_316.0;

struct Options {
    pairs: usize,
    seconds: u64,
    feeds: u32,
    rate: String,
    rows: Vec<String>,
    json: Option<String>,
}

/// One process measured over one window.
#[derive(Clone, Debug)]
struct Measured {
    cpu_s: f64,
    wait_s: f64,
    window_s: f64,
    softirq_s: f64,
    steal_s: f64,
    /// Threads by name with their CPU seconds, the busiest first.
    threads: Vec<(String, f64)>,
    generator: Value,
    receiver: Value,
    faults: Vec<String>,
}

fn main() {
    let Some(options) = options() else { return };
    let mut report = Vec::new();
    println!(
        "{} feeds of {} bit/s for {} s, {} pairs; receiver on core 0, generator on core 1",
        options.feeds, options.rate, options.seconds, options.pairs
    );
    for row in &options.rows {
        let (title, target) = match row.as_str() {
            "plain" => ("SRT plain → frames ÷ bare loop", "≤ 2.0"),
            "aes" => ("SRT AES-128 → frames ÷ bare loop", "≤ 2.4"),
            "rtp" => ("RTP/MPEG-TS → frames ÷ bare loop", "≤ 1.7"),
            "libsrt" => ("libsrt receive only ÷ SRT plain → frames, 8 feeds", "≥ 5"),
            other => {
                eprintln!("no row named {other}");
                continue;
            }
        };
        println!("\n{title}   (target {target})");
        let mut ratios = Vec::new();
        for pair in 1..=options.pairs {
            let (feeds, ours) = match row.as_str() {
                "aes" => (options.feeds, appliance(&options, options.feeds, Feed::SrtEncrypted)),
                "rtp" => (options.feeds, appliance(&options, options.feeds, Feed::Rtp)),
                "libsrt" => (8, appliance(&options, 8, Feed::Srt)),
                _ => (options.feeds, appliance(&options, options.feeds, Feed::Srt)),
            };
            let theirs = if row == "libsrt" { libsrt(&options, feeds) } else { bare(&options, feeds) };
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                println!("  pair {pair}: not measured");
                continue;
            };
            let ratio = if row == "libsrt" { theirs.cpu_s / ours.cpu_s } else { ours.cpu_s / theirs.cpu_s };
            show("ours", &ours, feeds, &options);
            show(if row == "libsrt" { "libsrt" } else { "bare" }, &theirs, feeds, &options);
            let faulty = !ours.faults.is_empty() || !theirs.faults.is_empty();
            println!("  pair {pair}: {ratio:.2}{}", if faulty { "  (not counted)" } else { "" });
            if !faulty {
                ratios.push(ratio);
            }
            report.push(json!({ "row": row, "pair": pair, "ratio": ratio, "counted": !faulty,
                "ours": as_json(&ours), "theirs": as_json(&theirs) }));
        }
        ratios.sort_by(f64::total_cmp);
        match ratios.as_slice() {
            [] => println!("  no pair could be counted"),
            sorted => println!(
                "  median {:.2}, from {:.2} to {:.2}, {} pairs",
                sorted[sorted.len() / 2],
                sorted[0],
                sorted[sorted.len() - 1],
                sorted.len()
            ),
        }
    }
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&report).unwrap()).unwrap();
    }
    let _ = fs::remove_dir_all(ROOT);
}

#[derive(Clone, Copy, PartialEq)]
enum Feed {
    Srt,
    SrtEncrypted,
    Rtp,
}

/// The whole appliance on core 0.
fn appliance(options: &Options, feeds: u32, feed: Feed) -> Option<Measured> {
    let mut set = vec!["shards.cores=[0]".to_owned()];
    if feed == Feed::SrtEncrypted {
        set.push(format!("ingestion.srt.passphrase={PASSPHRASE}"));
    }
    let receiver = Appliance::start(ROOT, feeds, &set).ok()?;
    let to = match feed {
        Feed::Srt | Feed::SrtEncrypted => format!("srt://127.0.0.1:{SRT_PORT}?streamid=feed"),
        Feed::Rtp => format!("rtp://127.0.0.1:{RTP_PORT}"),
    };
    let generator = generator(options, feeds, &to, feed == Feed::SrtEncrypted)?;
    let mut measured = measure(receiver.id(), options)?;
    let streams = receiver.get("/api/v1/streams/stats/video");
    let lost = receiver.get("/metrics");
    measured.generator = outcome(generator, &mut measured.faults);
    measured.receiver = streams.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    match lost {
        Some(page) => measured.faults.extend(losses(&page)),
        None => measured.faults.push("the receiver's /metrics cannot be read".to_owned()),
    }
    let pictures = measured.receiver["streams"]
        .as_object()
        .map_or(0, |streams| streams.values().filter_map(|stream| stream["frames_assembled"].as_u64()).sum::<u64>());
    // Synthetic feeds have 25 pictures per second.
    let least = u64::from(feeds) * options.seconds * 25;
    if pictures < least {
        measured.faults.push(format!("{pictures} pictures arrived, of at least {least}"));
    }
    Some(measured)
}

/// The bare loop on core 0.
fn bare(options: &Options, feeds: u32) -> Option<Measured> {
    let duration = SETTLE + Duration::from_secs(options.seconds) + Duration::from_secs(1);
    let receiver = Command::new(HEADWORKS)
        .args(["bench", "receive", "--core", "0", "--listen", &format!("127.0.0.1:{BARE_PORT}"), "--duration"])
        .arg(format!("{}ms", duration.as_millis()))
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    thread::sleep(Duration::from_millis(300));
    let generator = generator(options, feeds, &format!("rtp://127.0.0.1:{BARE_PORT}"), false)?;
    let mut measured = measure(receiver.id(), options)?;
    measured.generator = outcome(generator, &mut measured.faults);
    let output = receiver.wait_with_output().ok()?;
    measured.receiver = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if measured.receiver["dropped_by_kernel"].as_u64() != Some(0) {
        measured.faults.push(format!("bare loop: {}", measured.receiver));
    }
    Some(measured)
}

/// libsrt, receive only, on core 0.
fn libsrt(options: &Options, feeds: u32) -> Option<Measured> {
    let program = env::temp_dir().join("headworks-libsrt-receive");
    let built = Command::new("cc")
        .args(["-O2", "-o"])
        .arg(&program)
        .args(["benches/rivals/libsrt_receive.c", "-lsrt"])
        .status()
        .is_ok_and(|status| status.success());
    if !built {
        println!("  libsrt's headers are missing: apt-get install libsrt-openssl-dev");
        return None;
    }
    let duration = options.seconds + SETTLE.as_secs() + 1;
    let receiver = Command::new("taskset")
        .args(["-c", "0"])
        .arg(&program)
        .args([LIBSRT_PORT.to_string(), feeds.to_string(), duration.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    thread::sleep(Duration::from_millis(300));
    let to = format!("srt://127.0.0.1:{LIBSRT_PORT}?streamid=feed");
    let generator = generator(options, feeds, &to, false)?;
    let mut measured = measure(receiver.id(), options)?;
    measured.generator = outcome(generator, &mut measured.faults);
    let output = receiver.wait_with_output().ok()?;
    measured.receiver = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if measured.receiver["lost"].as_u64() != Some(0) {
        measured.faults.push(format!("libsrt: {}", measured.receiver));
    }
    Some(measured)
}

fn generator(options: &Options, feeds: u32, to: &str, encrypted: bool) -> Option<Child> {
    let duration = SETTLE + Duration::from_secs(options.seconds) + Duration::from_millis(500);
    let mut command = Command::new(HEADWORKS);
    command.args([
        "send",
        "--to",
        to,
        "--feeds",
        &feeds.to_string(),
        "--rate",
        &options.rate,
        "--cores",
        "1",
        "--json",
    ]);
    command.args(["--duration", &format!("{}ms", duration.as_millis())]);
    if encrypted {
        command.args(["--passphrase", PASSPHRASE]);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()
}

/// The generator's report; what it says of itself counts as a fault when it could not keep up.
fn outcome(generator: Child, faults: &mut Vec<String>) -> Value {
    let Ok(output) = generator.wait_with_output() else { return Value::Null };
    if !output.status.success() {
        faults.push(format!("the generator fell behind or failed ({})", output.status));
    }
    last_object(&output.stdout)
}

/// Waits until all feeds run, then takes the difference over the window.
fn measure(process: u32, options: &Options) -> Option<Measured> {
    thread::sleep(SETTLE);
    let (before, machine_before, began) = (threads(process), machine(), Instant::now());
    thread::sleep(Duration::from_secs(options.seconds));
    let (after, machine_after, window_s) = (threads(process), machine(), began.elapsed().as_secs_f64());
    if after.is_empty() {
        return None;
    }
    let mut by_thread = Vec::new();
    let (mut cpu_s, mut wait_s) = (0.0, 0.0);
    for (id, name, cpu, wait) in &after {
        let start = before.iter().find(|(other, ..)| other == id);
        let cpu = cpu - start.map_or(0.0, |start| start.2);
        cpu_s += cpu;
        wait_s += wait - start.map_or(0.0, |start| start.3);
        by_thread.push((name.clone(), cpu));
    }
    by_thread.sort_by(|a, b| b.1.total_cmp(&a.1));
    Some(Measured {
        cpu_s,
        wait_s,
        window_s,
        softirq_s: machine_after.0 - machine_before.0,
        steal_s: machine_after.1 - machine_before.1,
        threads: by_thread,
        generator: Value::Null,
        receiver: Value::Null,
        faults: Vec::new(),
    })
}

/// Seconds of softirq and of steal of the whole machine.
fn machine() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse::<f64>().unwrap_or(0.0) / 100.0)
        .collect();
    (fields.get(6).copied().unwrap_or(0.0), fields.get(7).copied().unwrap_or(0.0))
}

fn show(who: &str, measured: &Measured, feeds: u32, options: &Options) {
    let bits = f64::from(feeds) * bits(&options.rate) * measured.window_s;
    let packets = bits / 8.0 / PAYLOAD_BYTES;
    let threads: Vec<String> = measured
        .threads
        .iter()
        .filter(|(_, cpu)| *cpu > 0.001)
        .map(|(name, cpu)| format!("{name} {:.1} %", cpu / measured.window_s * 100.0))
        .collect();
    println!(
        "    {who:6} {:5.1} % of a core, {:6.2} CPU-s per 100 Gbit, {:5.0} ns per packet; waited {:.2} s, softirq {:.2} s, steal {:.2} s; {}",
        measured.cpu_s / measured.window_s * 100.0,
        measured.cpu_s / bits * 1e11,
        measured.cpu_s / packets * 1e9,
        measured.wait_s,
        measured.softirq_s,
        measured.steal_s,
        threads.join(", ")
    );
    for fault in &measured.faults {
        println!("           {fault}");
    }
}

fn as_json(measured: &Measured) -> Value {
    json!({ "cpu_s": measured.cpu_s, "wait_s": measured.wait_s, "window_s": measured.window_s,
        "softirq_s": measured.softirq_s, "steal_s": measured.steal_s, "threads": measured.threads,
        "generator": measured.generator, "receiver": measured.receiver, "faults": measured.faults })
}

fn bits(rate: &str) -> f64 {
    let (number, factor) = match rate.chars().last() {
        Some('k') => (&rate[..rate.len() - 1], 1e3),
        Some('M') => (&rate[..rate.len() - 1], 1e6),
        Some('G') => (&rate[..rate.len() - 1], 1e9),
        _ => (rate, 1.0),
    };
    number.parse::<f64>().unwrap_or(0.0) * factor
}

fn options() -> Option<Options> {
    let mut options = Options {
        pairs: 5,
        seconds: 8,
        feeds: 25,
        rate: "50M".to_owned(),
        rows: ["plain", "aes", "libsrt"].map(str::to_owned).to_vec(),
        json: None,
    };
    // `cargo bench` adds a --bench of its own.
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--pairs" => options.pairs = value().parse().unwrap_or(options.pairs),
            "--seconds" => options.seconds = value().parse().unwrap_or(options.seconds),
            "--feeds" => options.feeds = value().parse().unwrap_or(options.feeds),
            "--rate" => options.rate = value(),
            "--rows" => options.rows = value().split(',').map(str::to_owned).collect(),
            "--json" => options.json = Some(value()),
            _ => {
                println!(
                    "line_rate [--pairs N] [--seconds N] [--feeds N] [--rate 50M] [--rows plain,aes,rtp,libsrt] [--json FILE]"
                );
                return None;
            }
        }
    }
    Some(options)
}
