//! A load from `headworks send` on its own core, and what it costs the processes that take it.

use std::ops::RangeInclusive;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use serde_json::{Value, json};

use super::{HEADWORKS, Process, bare_receiver, headworks, last_object, threads};

/// Where what is measured runs.
pub const RECEIVER_CORE: usize = 0;
/// Where the generator runs, and readers.
pub const GENERATOR_CORE: usize = 1;
/// From the start of the generator until every feed runs.
pub const SETTLE: Duration = Duration::from_millis(3_000);
/// Of that, until the first packet is sent: what leaves before the window is not judged for its lateness, since the appliance then opens
/// its streams, and its rings' memory is cold.
const CONNECTING_MAX: Duration = Duration::from_millis(500);
/// Sent on after the window, so that its end is no different.
const AFTER: Duration = Duration::from_millis(500);
/// On a machine that has its cores to itself.
const LATE_MAX_MS: u64 = 10;
/// A datagram's share of a transport stream.
const PAYLOAD_BYTES: f64 = 1_316.0;
/// Where the generator's limit is measured.
const LIMIT_PORT: u16 = 30_125;
/// More than it can do, together: packet by packet, and in aggregates.
const LIMIT_FEEDS: &str = "25";
const LIMIT_FEEDS_IN_AGGREGATES: &str = "150";
const LIMIT_RATE: &str = "320M";

/// What is sent, and how long it is measured.
#[derive(Clone, Debug)]
pub struct Load {
    pub feeds: u32,
    /// Of each feed, as `headworks send` takes it: `50M`.
    pub rate: String,
    pub seconds: u64,
    /// How late 99 % of the packets may leave, in ms: a run in which they leave later is not counted.
    pub late_max_ms: u64,
}

impl Load {
    pub fn new(feeds: u32, rate: &str, seconds: u64) -> Self {
        Self { feeds, rate: rate.to_owned(), seconds, late_max_ms: LATE_MAX_MS }
    }

    /// Bits of transport stream per second, all feeds together.
    pub fn bits_per_s(&self) -> f64 {
        f64::from(self.feeds) * bits(&self.rate)
    }

    /// From the start of the generator until it has sent everything.
    pub fn duration(&self) -> Duration {
        SETTLE + Duration::from_secs(self.seconds) + AFTER
    }
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

/// `headworks send` on its way.
pub struct Generator(Child);

impl Generator {
    /// Begins to send `load` to `to`, with further options of `headworks send`.
    pub fn start(load: &Load, to: &str, options: &[&str]) -> io::Result<Self> {
        Self::start_by(headworks(None, None), load, to, options)
    }

    /// The same by a command of [`headworks`].
    pub fn start_by(mut command: Command, load: &Load, to: &str, options: &[&str]) -> io::Result<Self> {
        command
            .args(["send", "--json", "--to", to, "--feeds", &load.feeds.to_string(), "--rate", &load.rate])
            .args(["--cores", &GENERATOR_CORE.to_string()])
            .args(["--duration", &format!("{}ms", load.duration().as_millis())])
            .args(["--max-lateness", &format!("{}ms", load.late_max_ms)])
            .args(["--settle", &format!("{}ms", (SETTLE - CONNECTING_MAX).as_millis())])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
    }

    /// Waits until everything is sent.
    pub fn end(self) -> io::Result<Sent> {
        let output = self.0.wait_with_output()?;
        let report = last_object(&output.stdout);
        let mut faults = Vec::new();
        if let Some(shortfall) = report["shortfall"].as_str() {
            faults.push(format!("the generator was late: {shortfall}"));
        }
        if report["connected"] != report["feeds"] || !report["feeds"].is_u64() {
            faults.push(format!("{} of {} feeds were connected", report["connected"], report["feeds"]));
        }
        if !output.status.success() && faults.is_empty() {
            faults.push(format!("the generator failed ({})", output.status));
        }
        Ok(Sent { report, faults })
    }
}

/// What was sent, by the generator's own report, and what was wrong with it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub report: Value,
    pub faults: Vec<String>,
}

impl Sent {
    /// Datagrams of media, each once.
    pub fn packets(&self) -> u64 {
        self.report["datagrams"].as_u64().unwrap_or(0)
    }

    /// Pictures begun: synthetic feeds have one in each PES packet of video.
    pub fn pictures(&self) -> u64 {
        self.report["pes_packets"]["video"].as_u64().unwrap_or(0)
    }

    /// Packets that SRT receivers reported missing, most of which then came.
    pub fn missing_at_first(&self) -> u64 {
        let feeds = self.report["per_feed"].as_array().into_iter().flatten();
        feeds.filter_map(|feed| feed["srt"]["reported_lost"].as_u64()).sum()
    }

    /// How late the latest packet in a hundred left, in µs.
    pub fn late_p99_us(&self) -> u64 {
        self.report["lateness_us"]["p99"].as_u64().unwrap_or(0)
    }

    /// The error of its schedule, and how much of its core it took.
    pub fn schedule(&self) -> String {
        let late = |quantile: &str| self.report["lateness_us"][quantile].as_u64().unwrap_or(0);
        let share = self.report["cpu_share"].as_f64().unwrap_or(0.0);
        let [p50, p99, max] = ["p50", "p99", "max"].map(late);
        format!("late by {p50} µs half, {p99} µs 99 %, {max} µs at worst; {:.0} % of its core", share * 100.0)
    }
}

/// What the generator can do at most, in bits of transport stream per second: feeds by RTP, `gso` packets to a system call, into the
/// bare loop, which need not keep up.
pub fn limit_bps(gso: u32) -> io::Result<f64> {
    let (feeds, settings): (&str, &[&str]) =
        if gso > 1 { (LIMIT_FEEDS_IN_AGGREGATES, &["shards.gro=true"]) } else { (LIMIT_FEEDS, &[]) };
    let mut receiver = Process(bare_receiver(LIMIT_PORT, Duration::from_secs(60), settings)?);
    thread::sleep(Duration::from_millis(300));
    let output = Command::new(HEADWORKS)
        .args(["send", "--json", "--to", &format!("rtp://127.0.0.1:{LIMIT_PORT}"), "--gso", &gso.to_string()])
        .args(["--feeds", feeds, "--rate", LIMIT_RATE, "--duration", "1s"])
        .args(["--cores", &GENERATOR_CORE.to_string()])
        .stderr(Stdio::null())
        .output()?;
    receiver.terminate();
    last_object(&output.stdout)["rate_achieved_bps"].as_f64().ok_or_else(|| io::Error::other("headworks send failed"))
}

/// What processes cost over a window of time.
#[derive(Clone, Debug)]
pub struct Window {
    pub cpu_s: f64,
    /// Ready, and waiting for a core.
    pub wait_s: f64,
    pub window_s: f64,
    /// Of the whole machine.
    pub softirq_s: f64,
    /// Of the whole machine.
    pub steal_s: f64,
    /// Threads by name with their CPU seconds, the busiest first.
    pub threads: Vec<(String, f64)>,
    /// Datagrams that the sockets had no room for so far (`/proc/net/udp`).
    pub kernel_drops: u64,
}

impl Window {
    /// Waits until all feeds run, then takes the difference over the window, of all threads of all `processes`; and what the UDP sockets
    /// on `ports` of the first one's network namespace have dropped. `None` if one of the processes ends meanwhile.
    pub fn measure(processes: &[u32], ports: RangeInclusive<u16>, load: &Load) -> Option<Self> {
        let all = || processes.iter().map(|process| threads(*process)).collect::<Vec<_>>();
        thread::sleep(SETTLE);
        let (before, machine_before, began) = (all().concat(), machine(), Instant::now());
        thread::sleep(Duration::from_secs(load.seconds));
        let (after, machine_after, window_s) = (all(), machine(), began.elapsed().as_secs_f64());
        if after.iter().any(Vec::is_empty) {
            return None;
        }
        let mut by_name = Vec::<(String, f64)>::new();
        let (mut cpu_s, mut wait_s) = (0.0, 0.0);
        for (id, name, cpu, wait) in after.into_iter().flatten() {
            let start = before.iter().find(|(other, ..)| *other == id);
            let cpu = cpu - start.map_or(0.0, |start| start.2);
            cpu_s += cpu;
            wait_s += wait - start.map_or(0.0, |start| start.3);
            match by_name.iter_mut().find(|(other, _)| *other == name) {
                Some((_, sum)) => *sum += cpu,
                None => by_name.push((name, cpu)),
            }
        }
        by_name.sort_by(|a, b| b.1.total_cmp(&a.1));
        Some(Self {
            cpu_s,
            wait_s,
            window_s,
            softirq_s: machine_after.0 - machine_before.0,
            steal_s: machine_after.1 - machine_before.1,
            threads: by_name,
            kernel_drops: kernel_drops(processes[0], ports),
        })
    }

    /// Percent of one core.
    pub fn cpu_percent(&self) -> f64 {
        self.cpu_s / self.window_s * 100.0
    }

    /// CPU seconds that 100 Gbit of transport stream take.
    pub fn cpu_s_per_100_gbit(&self, load: &Load) -> f64 {
        self.cpu_s / (load.bits_per_s() * self.window_s) * 1e11
    }

    /// CPU time of a full datagram.
    pub fn ns_per_packet(&self, load: &Load) -> f64 {
        self.cpu_s / (load.bits_per_s() * self.window_s / 8.0 / PAYLOAD_BYTES) * 1e9
    }

    /// Each kind of thread that did something, and its share of a core.
    pub fn threads_text(&self) -> String {
        let busy = self.threads.iter().filter(|(_, cpu)| *cpu > 0.001);
        let texts: Vec<String> =
            busy.map(|(name, cpu)| format!("{name} {:.1} %", cpu / self.window_s * 100.0)).collect();
        texts.join(", ")
    }

    pub fn json(&self, load: &Load) -> Value {
        json!({ "cpu_s": self.cpu_s, "wait_s": self.wait_s, "window_s": self.window_s, "softirq_s": self.softirq_s,
            "steal_s": self.steal_s, "threads": self.threads, "kernel_drops": self.kernel_drops,
            "cpu_percent": self.cpu_percent(), "cpu_s_per_100_gbit": self.cpu_s_per_100_gbit(load),
            "ns_per_packet": self.ns_per_packet(load) })
    }
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

/// What the UDP sockets on these local ports of the namespace of `process` have dropped since they were opened.
fn kernel_drops(process: u32, ports: RangeInclusive<u16>) -> u64 {
    let lines = fs::read_to_string(format!("/proc/{process}/net/udp")).unwrap_or_default();
    let drops = lines.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let port = u16::from_str_radix(fields.nth(1)?.rsplit_once(':')?.1, 16).ok()?;
        ports.contains(&port).then(|| fields.last()?.parse::<u64>().ok())?
    });
    drops.sum()
}
