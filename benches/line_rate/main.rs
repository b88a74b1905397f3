//! What a packet costs: the appliance next to the bare receive loop, next to libsrt, and next to itself in other ways, under the same load in
//! one run.
//!
//! `cargo bench --bench line_rate -- [--pairs 5] [--seconds 8] [--feeds 25] [--rate 50M] [--rows plain,aes,…] [--readers 4] [--late-max-ms 10] [--json FILE]`
//!
//! Each row (`rows.rs`) interleaves A B A B: A is the appliance (one shard, and all of its threads on the first core), B what it is compared with on the
//! same core, where it is compared with anything; the generator (`headworks send`) has the second core. Counted is the CPU time of all threads of the receiving process
//! (`schedstat`, nanoseconds) in a window that starts when all feeds run. A pair gives a ratio; the median of the ratios is
//! the figure. Beside it stand what arrived of what was sent, softirq and steal time of the machine, run-queue wait of the receiver,
//! what the kernel dropped, and the generator's schedule error and own limit: a pair in which the generator fell behind (`--late-max-ms`, more
//! than 10 where the host gives its cores to others too) or anything was lost is shown and not counted.
//!
//! The appliance says how long after its last packet was due each frame was published. Readers of `--readers` streams, in this process
//! and on the generator's core, measure until a sleeping reader is awake; their waking is part of what the appliance costs, and their
//! own delay includes waiting for the generator, whose system calls carry each packet through the kernel and give the core to nobody
//! meanwhile. So in the rows that judge it by a bound they are on the receiver's core, and wait for its turns: two cores are all there are here.
//!
//! In the rows of idling it has both cores and two shards, and nobody sends.
//!
//! It ends with 1 when a row has fewer counted pairs than were asked for or its median misses its target, and with 2 for options that make
//! no sense.

mod latency;
mod rows;
#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use std::{fs, io, thread};

use headworks_network_namespaces::{Cable, Host};
use serde_json::{Value, json};

use latency::{Delays, Readers, published_lines};
use rows::{Feed, Figure, ROWS, Receiver, Row, Side, Target};
use support::load::{GENERATOR_CORE, Generator, Load, RECEIVER_CORE, Sent, Window, limit_bps};
use support::programs::is_there;
use support::spread::Spread;
use support::{Appliance, Process, RTP_PORT, SRT_PORT, bare_receiver, headworks, libsrt, losses, samples, set, total};

const ROOT: &str = "/dev/shm/headworks-line-rate";
const PASSPHRASE: &str = "line rate passphrase";
const BARE_PORT: u16 = 30_120;
const LIBSRT_PORT: u16 = 30_130;
/// Whose callers are silent, and the first of the ports that they wait at for something to send.
const SILENT_CALLER: &str = "srt-live-transmit";
const SILENT_PORT: u16 = 30_140;
/// The hosts at the ends of a cable.
const NEAR: &str = "10.88.0.1";
const FAR: &str = "10.88.0.2";
/// Of the datagrams of a row by AF_XDP, how many have to come past the kernel.
const PAST_KERNEL_LEAST: f64 = 0.95;
/// From the end of a load until its last frames have left the receive buffers.
const DRAIN: Duration = Duration::from_millis(700);

struct Options {
    pairs: usize,
    load: Load,
    rows: Vec<&'static Row>,
    readers: u32,
    json: Option<String>,
}

/// One process under one load.
struct Measured {
    window: Window,
    sent: Sent,
    /// What the receiver says of itself.
    receiver: Value,
    /// What arrived of what was sent, and other lines for people.
    lines: Vec<String>,
    /// What readers saw.
    delays: Option<Delays>,
    faults: Vec<String>,
}

fn main() -> io::Result<ExitCode> {
    let Some(options) = options() else { return Ok(ExitCode::from(2)) };
    let (mut report, mut rows) = (Vec::new(), Vec::new());
    println!(
        "{} feeds of {} bit/s for {} s, {} pairs; receiver on core {RECEIVER_CORE}, generator on core {GENERATOR_CORE}; \
         not counted where 1 % of the packets leave {} ms late",
        options.load.feeds, options.load.rate, options.load.seconds, options.pairs, options.load.late_max_ms
    );
    let limit_bps = limit_bps(1)?;
    println!("the generator's own limit: {:.1} Gbit/s (25 feeds by RTP, as fast as it goes)", limit_bps / 1e9);
    let mut is_good = true;
    for row in &options.rows {
        let (summary, is_met) = run(row, &options, &mut report);
        rows.push(summary);
        is_good &= is_met;
    }
    if let Some(path) = &options.json {
        let all = json!({ "feeds": options.load.feeds, "rate": options.load.rate, "seconds": options.load.seconds,
            "generator_limit_bps": limit_bps, "rows": rows, "pairs": report });
        fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    let _ = fs::remove_dir_all(ROOT);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures a row: what is to be exported of it, and whether all pairs could be counted and the median is as wanted.
fn run(row: &Row, options: &Options, report: &mut Vec<Value>) -> (Value, bool) {
    println!("\n{}{}", row.title, row.target.map_or(String::new(), |target| format!("   ({})", target.text(None))));
    let loads: Vec<Load> = row.sides.iter().map(|side| side.load(&options.load)).collect();
    let mut figures = Vec::new();
    for pair in 1..=options.pairs {
        let measured = row.sides.iter().zip(&loads).map(|(side, load)| side.measure(load, row.figure, options.readers));
        // All are tried, so that the next pair finds the same neighbours.
        let mut measured = match measured.collect::<Vec<_>>().into_iter().collect::<io::Result<Vec<Measured>>>() {
            Ok(measured) => measured,
            Err(error) => {
                println!("  pair {pair}: not measured: {error}");
                continue;
            }
        };
        let of_sides: Vec<f64> =
            measured.iter_mut().zip(&loads).map(|(measured, load)| measured.figure(row.figure, load)).collect();
        let figure = match (row.figure, &of_sides[..]) {
            (Figure::CostOfSecond, [first, second]) => second / first,
            (_, [first, second]) => first / second,
            (_, of_sides) => of_sides[0],
        };
        let mut line = json!({ "row": row.name, "pair": pair, "figure": figure });
        for ((side, load), measured) in row.sides.iter().zip(&loads).zip(&measured) {
            measured.show(side.name, load);
            line[side.name] = measured.json(load);
        }
        let faulty = measured.iter().any(|measured| !measured.faults.is_empty());
        println!("  pair {pair}: {figure:.2}{}", if faulty { "  (not counted)" } else { "" });
        if !faulty {
            figures.push(figure);
        }
        line["counted"] = json!(!faulty);
        report.push(line);
    }
    let pairs = figures.len();
    let spread = Spread::new(figures);
    let median = spread.as_ref().map(Spread::median);
    match &spread {
        None => println!("  no pair could be counted"),
        Some(figures) => {
            let verdict = row.target.map_or(String::new(), |target| format!(" ({})", target.text(median)));
            println!("  median {}, {pairs} of {} pairs{verdict}", figures.text(2), options.pairs);
        }
    }
    let is_met = row.target.zip(median).map(|(target, median)| target.is_met(median));
    let summary = json!({ "row": row.name, "title": row.title, "target": row.target.map(Target::json),
        "figure": spread.map(|figures| figures.json()), "met": is_met });
    (summary, pairs == options.pairs && is_met != Some(false))
}

impl Side {
    fn measure(&self, load: &Load, figure: Figure, readers: u32) -> io::Result<Measured> {
        match self.receiver {
            Receiver::Appliance(feed) => self.appliance(load, feed, figure, readers),
            Receiver::Bare => self.bare(load),
            Receiver::Libsrt => libsrt_receive(load),
            Receiver::Idle { callers } => self.idle(load, callers),
        }
    }

    /// The whole appliance without a packet of media. Callers are libsrt's, which say each second that they are there.
    fn idle(&self, load: &Load, callers: u32) -> io::Result<Measured> {
        if callers > 0 && !is_there(SILENT_CALLER) {
            return Err(io::Error::other(format!("silent callers take {SILENT_CALLER}, of the package srt-tools")));
        }
        let set: Vec<String> = self.settings.iter().map(|setting| (*setting).to_owned()).collect();
        let receiver = Appliance::start(ROOT, callers, &set)?;
        let callers: Vec<Process> = (0..callers).map(silent_caller).collect::<io::Result<_>>()?;
        let window = Window::measure(&[receiver.id()], SRT_PORT..=SRT_PORT, load);
        let page = receiver.get("/metrics").ok_or_else(|| io::Error::other("the appliance does not answer"))?;
        let of_streams =
            samples(&page).filter(|(name, _)| name.starts_with("headworks_stream_packets_received_total{"));
        let packets: Vec<u64> = of_streams.map(|(_, packets)| packets as u64).collect();
        let (streams, packets) = (packets.len(), packets.iter().sum::<u64>());
        let nothing = Sent { report: Value::Null, faults: Vec::new() };
        let mut measured = Measured::new(window.ok_or_else(|| io::Error::other("the appliance has ended"))?, nothing);
        measured.receiver = json!({ "streams": streams, "packets": packets });
        measured.lines.push(format!("{streams} streams, which {packets} datagrams came for"));
        if streams != callers.len() {
            measured.faults.push(format!("{streams} of {} callers were connected", callers.len()));
        }
        Ok(measured)
    }

    /// The whole appliance on its core, with readers of some of its streams.
    fn appliance(&self, load: &Load, feed: Feed, figure: Figure, readers: u32) -> io::Result<Measured> {
        let cable = match self.wire {
            false => None,
            true => Some(
                Cable::for_xdp(1, &[&format!("{NEAR}/24")], &[&format!("{FAR}/24")])
                    .ok_or_else(|| io::Error::other("there can be no cable"))?,
            ),
        };
        let namespace = |host| cable.as_ref().map(|cable| cable.name(host));
        let mut set = vec![format!("shards.cores=[{RECEIVER_CORE}]")];
        set.extend(self.settings.iter().map(|setting| (*setting).to_owned()));
        let mut options = Vec::new();
        if let Feed::SrtEncrypted { key_length } = feed {
            set.push(format!("ingestion.srt.passphrase={PASSPHRASE}"));
            options = vec!["--passphrase", PASSPHRASE, "--key-length", key_length];
        }
        // A shard that never sleeps leaves its core to nobody: who wakes readers, and they, are on the other one then.
        let own = (figure != Figure::AwakeP99).then_some(RECEIVER_CORE);
        let receiver = Appliance::start_by(headworks(own, namespace(Host::Near)), ROOT, load.feeds, &set)?;
        let address = if self.wire { NEAR } else { "127.0.0.1" };
        let (to, port) = match feed {
            Feed::Srt | Feed::SrtEncrypted { .. } => (format!("srt://{address}:{SRT_PORT}?streamid=feed"), SRT_PORT),
            Feed::Rtp => (format!("rtp://{address}:{RTP_PORT}"), RTP_PORT),
        };
        let generator = Generator::start_by(headworks(None, namespace(Host::Far)), load, &to, &options)?;
        let core = if figure == Figure::AwakeP99Ms { RECEIVER_CORE } else { GENERATOR_CORE };
        let readers = Readers::start(ROOT, readers, core, load);
        let window = Window::measure(&[receiver.id()], port..=port, load);
        let sent = generator.end()?;
        let window = window.ok_or_else(|| io::Error::other("the appliance has ended"))?;
        thread::sleep(DRAIN);
        let get = || receiver.get("/metrics");
        let page = cable.as_ref().map_or_else(get, |cable| cable.on(Host::Near, get));
        let page = page.ok_or_else(|| io::Error::other("the appliance does not answer"))?;
        let delays = readers.end();
        let mut measured = Measured::new(window, sent);
        let packets = total(&page, "headworks_stream_packets_received_total{", "");
        let pictures = total(&page, "headworks_track_frames_total{", "track=\"video");
        let dropped = total(&page, "headworks_shard_dropped_total{", "reason=\"kernel\"");
        let pictures_sent = measured.sent.pictures();
        measured
            .lines
            .push(format!("{pictures} of {pictures_sent} pictures arrived; {}", measured.drops(Some(dropped))));
        measured.lines.extend(published_lines(&page));
        measured.lines.extend(delays.lines());
        measured.delays = Some(delays);
        measured.receiver = json!({ "packets": packets, "pictures": pictures, "dropped_by_kernel": dropped });
        measured.faults.extend(losses(&page));
        if self.settings.contains(&"shards.packet_io=xdp") {
            let datagrams = total(&page, "headworks_shard_datagrams_total{", "");
            let past_kernel = total(&page, "headworks_shard_past_kernel_total{", "");
            measured.lines.push(format!("{past_kernel} of {datagrams} datagrams came past the kernel"));
            if (past_kernel as f64) < datagrams as f64 * PAST_KERNEL_LEAST {
                measured.faults.push(format!("only {past_kernel} of {datagrams} datagrams came past the kernel"));
            }
        }
        // By RTP nothing says that the last picture of a feed is complete.
        let open = if feed == Feed::Rtp { u64::from(load.feeds) } else { 0 };
        if pictures + open < pictures_sent {
            measured.faults.push(format!("{pictures} of {pictures_sent} pictures arrived"));
        }
        Ok(measured)
    }

    /// The bare loop on the same core.
    fn bare(&self, load: &Load) -> io::Result<Measured> {
        let receiver = bare_receiver(BARE_PORT, load.duration() + DRAIN, self.settings)?;
        thread::sleep(Duration::from_millis(300));
        let generator = Generator::start(load, &format!("rtp://127.0.0.1:{BARE_PORT}"), &[])?;
        let window = Window::measure(&[receiver.id()], BARE_PORT..=BARE_PORT, load);
        let sent = generator.end()?;
        let output = receiver.wait_with_output()?;
        let mut measured = Measured::new(window.ok_or_else(|| io::Error::other("the bare loop has ended"))?, sent);
        measured.receiver = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let dropped = measured.receiver["dropped_by_kernel"].as_u64();
        measured.lines.push(format!(
            "{} datagrams arrived, of {} of media; {}; socket buffer {} bytes",
            measured.receiver["datagrams"],
            measured.sent.packets(),
            measured.drops(dropped),
            measured.receiver["receive_buffer"]
        ));
        if dropped != Some(0) {
            measured.faults.push(format!("bare loop: {}", measured.receiver));
        }
        Ok(measured)
    }
}

/// An SRT caller that has nothing to send.
fn silent_caller(number: u32) -> io::Result<Process> {
    let nothing = format!("udp://127.0.0.1:{}", u32::from(SILENT_PORT) + number);
    let to = format!("srt://127.0.0.1:{SRT_PORT}?streamid=silent{number}");
    let mut command = Command::new(SILENT_CALLER);
    command.args(["-q", "-a:no", &nothing, &to]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(Process)
}

/// libsrt, receive only, on the same core.
fn libsrt_receive(load: &Load) -> io::Result<Measured> {
    let program = libsrt::build().ok_or_else(|| io::Error::other(format!("libsrt takes {}", libsrt::PACKAGES)))?;
    let receiver = libsrt::start(&program, LIBSRT_PORT, load)?;
    thread::sleep(Duration::from_millis(300));
    let generator = Generator::start(load, &format!("srt://127.0.0.1:{LIBSRT_PORT}?streamid=feed"), &[])?;
    let window = Window::measure(&[receiver.id()], LIBSRT_PORT..=LIBSRT_PORT, load);
    let sent = generator.end()?;
    let output = receiver.wait_with_output()?;
    let mut measured = Measured::new(window.ok_or_else(|| io::Error::other("libsrt_receive has ended"))?, sent);
    measured.receiver = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    measured.lines.push(format!(
        "{} of {} packets arrived; {}",
        measured.receiver["messages"],
        measured.sent.packets(),
        measured.drops(None)
    ));
    if measured.receiver["lost"].as_u64() != Some(0) {
        measured.faults.push(format!("libsrt: {}", measured.receiver));
    }
    Ok(measured)
}

impl Measured {
    fn new(window: Window, sent: Sent) -> Self {
        let mut faults = sent.faults.clone();
        if window.kernel_drops > 0 {
            faults.push(format!("the kernel dropped {} datagrams", window.kernel_drops));
        }
        Self { window, sent, receiver: Value::Null, lines: Vec::new(), delays: None, faults }
    }

    /// Whether anything was sent.
    fn is_fed(&self) -> bool {
        !self.sent.report.is_null()
    }

    /// The figure of one side; a fault where there is none.
    fn figure(&mut self, figure: Figure, load: &Load) -> f64 {
        let p99_ns = match figure {
            Figure::Cost | Figure::CostOfSecond => return self.window.cpu_s,
            Figure::CostPerPacket => return self.window.ns_per_packet(load),
            Figure::CpuPercent => return self.window.cpu_percent(),
            Figure::AwakeP99 | Figure::AwakeP99Ms => self.delays.as_ref().map_or(Err(0), Delays::other_p99_ns),
        };
        match p99_ns {
            Ok(p99_ns) => p99_ns / 1e6,
            Err(frames) => {
                self.faults.push(format!("{frames} frames read are too few for 99 % of them to mean anything"));
                f64::NAN
            }
        }
    }

    /// What the kernel dropped, by the receiver's own count where it has one, and by the kernel's.
    fn drops(&self, rxq_ovfl: Option<u64>) -> String {
        let own = rxq_ovfl.map_or(String::new(), |count| format!("{count} (SO_RXQ_OVFL), "));
        format!("the kernel dropped {own}{} (/proc/net/udp)", self.window.kernel_drops)
    }

    fn show(&self, who: &str, load: &Load) {
        let window = &self.window;
        let of_packets = || {
            let (cpu_s, ns) = (window.cpu_s_per_100_gbit(load), window.ns_per_packet(load));
            format!(", {cpu_s:6.2} CPU-s per 100 Gbit, {ns:5.0} ns per packet")
        };
        println!(
            "    {who:6} {:5.1} % of a core{}; waited {:.2} s, softirq {:.2} s, steal {:.2} s; {}",
            window.cpu_percent(),
            self.is_fed().then(of_packets).unwrap_or_default(),
            window.wait_s,
            window.softirq_s,
            window.steal_s,
            window.threads_text()
        );
        for line in &self.lines {
            println!("           {line}");
        }
        if self.is_fed() {
            println!("           generator {}", self.sent.schedule());
        }
        for fault in &self.faults {
            println!("           FAULT {fault}");
        }
    }

    fn json(&self, load: &Load) -> Value {
        let mut all = self.window.json(load);
        if !self.is_fed() {
            // Nothing came that they could be of.
            for of_packets in ["cpu_s_per_100_gbit", "ns_per_packet"] {
                all[of_packets] = Value::Null;
            }
        }
        let parts = [
            ("generator", self.sent.report.clone()),
            ("receiver", self.receiver.clone()),
            ("delays", self.delays.as_ref().map_or(Value::Null, Delays::json)),
            ("faults", json!(self.faults)),
        ];
        for (name, part) in parts {
            all[name] = part;
        }
        all
    }
}

fn options() -> Option<Options> {
    let mut options =
        Options { pairs: 5, load: Load::new(25, "50M", 8), rows: ROWS.iter().collect(), readers: 4, json: None };
    for (name, value) in support::arguments() {
        let understood = match name.as_str() {
            "--pairs" => set(&mut options.pairs, &value),
            "--seconds" => set(&mut options.load.seconds, &value),
            "--feeds" => set(&mut options.load.feeds, &value),
            "--rate" => set(&mut options.load.rate, &value),
            "--readers" => set(&mut options.readers, &value),
            "--late-max-ms" => set(&mut options.load.late_max_ms, &value),
            "--rows" => {
                let row = |name: &str| ROWS.iter().find(|row| row.name == name);
                let rows: Option<Vec<&Row>> = value.split(',').map(row).collect();
                rows.map(|rows| options.rows = rows).is_some()
            }
            "--json" => options.json.replace(value).is_none(),
            _ => false,
        };
        if !understood {
            eprintln!(
                "line_rate [--pairs N] [--seconds N] [--feeds N] [--rate 50M] [--rows A,B,…] [--readers N] [--late-max-ms N] [--json FILE]"
            );
            ROWS.iter().for_each(|row| eprintln!("  {:<8} {}", row.name, row.title));
            return None;
        }
    }
    Some(options)
}
