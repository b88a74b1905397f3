//! How much RTP/MPEG-TS one core takes into frames when it comes in bursts: by each way, one by one and as aggregates (UDP GRO).
//!
//! `cargo bench --bench bursts -- [--feeds 26] [--rate 400M] [--gso 45] [--seconds 4] [--ways uring,mmsg] [--json FILE]`
//!
//! The appliance has one shard on the first core; the generator (`headworks send --gso`, so many packets of a feed to a system call)
//! has the second. Its own limit is measured first, into a loop that drops everything. CPU is that of all threads of the appliance
//! in a window that starts when all feeds run; what it took in follows from the share of what was sent that arrived. Socket buffers
//! are of 32 MiB, as configured by default. Exit code 0: with aggregates every way took everything, every frame is whole, and 10 Gbit/s or
//! more went into frames; 1 otherwise, and so with `--feeds` and `--rate` that come to less.

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io, thread};

use serde_json::{Value, json};

use support::load::{GENERATOR_CORE, Generator, Load, RECEIVER_CORE, Window, limit_bps};
use support::{Appliance, RTP_PORT, losses, set, total};

const ROOT: &str = "/dev/shm/headworks-bursts";
/// What one core is to take into frames, as aggregates.
const WANTED_BPS: f64 = 10e9;
/// From the end of a load until its last frames are published.
const DRAIN: Duration = Duration::from_millis(700);

struct Options {
    load: Load,
    gso: u32,
    ways: Vec<String>,
    json: Option<String>,
}

fn main() -> ExitCode {
    let Some(options) = options() else { return ExitCode::from(2) };
    let outcome = run(&options);
    let _ = fs::remove_dir_all(ROOT);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bursts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<bool> {
    let Load { feeds, rate, seconds, .. } = &options.load;
    println!(
        "{feeds} feeds of {rate}, {} packets to an aggregate, {seconds} s; receiver on core {RECEIVER_CORE}, generator on core {GENERATOR_CORE}",
        options.gso
    );
    let limit = limit_bps(options.gso)?;
    println!("the generator's own limit: {:.1} Gbit/s (by RTP, as fast as it goes)", limit / 1e9);
    let (mut rows, mut all_whole) = (Vec::new(), true);
    for way in &options.ways {
        for gro in [false, true] {
            let (row, is_whole) = measure(options, way, gro)?;
            rows.push(row);
            all_whole &= is_whole || !gro;
        }
    }
    if let Some(path) = &options.json {
        let all = json!({ "feeds": feeds, "rate": rate, "seconds": seconds, "gso": options.gso,
            "generator_limit_bps": limit, "rows": rows });
        fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(all_whole)
}

/// One row: what it shows, and whether everything arrived whole.
fn measure(options: &Options, way: &str, gro: bool) -> io::Result<(Value, bool)> {
    let load = &options.load;
    let set = [
        format!("shards.packet_io={way}"),
        format!("shards.gro={gro}"),
        format!("ingestion.max_connections={}", load.feeds),
        format!("ingestion.rtp.max_sessions={}", load.feeds),
    ];
    let receiver = Appliance::start_on_core(ROOT, load.feeds, &set)?;
    let gso = options.gso.to_string();
    let generator = Generator::start(load, &format!("rtp://127.0.0.1:{RTP_PORT}"), &["--gso", &gso])?;
    let window = Window::measure(&[receiver.id()], RTP_PORT..=RTP_PORT, load);
    let sent = generator.end()?;
    let window = window.ok_or_else(|| io::Error::other("the appliance has ended"))?;
    thread::sleep(DRAIN);
    let page = receiver.get("/metrics").ok_or_else(|| io::Error::other("the appliance does not answer"))?;

    let arrived = total(&page, "headworks_shard_datagrams_total{", "");
    let share = arrived as f64 / sent.packets().max(1) as f64;
    // A generator that is late sends less than it should.
    let bits_per_s = sent.report["rate_achieved_bps"].as_f64().unwrap_or(0.0) * share;
    let ns_per_packet = window.ns_per_packet(load) * load.bits_per_s() / bits_per_s;
    let pictures = total(&page, "headworks_track_frames_total{", "track=\"video");
    let damaged = total(&page, "headworks_track_frames_damaged_total{", "");
    let mut faults = sent.faults.clone();
    let mut lost = BTreeMap::<String, u64>::new();
    for loss in losses(&page) {
        // Name, labels, value: one line for all feeds.
        let (name, value) = (loss.split('{').next().unwrap_or_default(), loss.rsplit(' ').next());
        *lost.entry(name.to_owned()).or_default() += value.and_then(|value| value.parse().ok()).unwrap_or(0);
    }
    faults.extend(lost.into_iter().map(|(name, value)| format!("{name} = {value}")));
    // By RTP nothing says that the last picture of a feed is complete.
    if pictures + u64::from(load.feeds) < sent.pictures() {
        faults.push(format!("{pictures} of {} pictures arrived", sent.pictures()));
    }
    if gro && bits_per_s < WANTED_BPS {
        faults.push(format!("{:.2} Gbit/s, wanted {:.0} or more", bits_per_s / 1e9, WANTED_BPS / 1e9));
    }
    let as_what = if gro { "aggregates" } else { "one by one" };
    println!(
        "\n{way:5} {as_what:10}  {:5.2} Gbit/s into frames, {:5.1} % of a core, {ns_per_packet:5.0} ns per packet; {}",
        bits_per_s / 1e9,
        window.cpu_percent(),
        window.threads_text()
    );
    println!(
        "    {arrived} of {} packets arrived; {pictures} of {} pictures, {damaged} damaged",
        sent.packets(),
        sent.pictures()
    );
    println!(
        "    waited {:.2} s, softirq {:.2} s, steal {:.2} s; generator {}",
        window.wait_s,
        window.softirq_s,
        window.steal_s,
        sent.schedule()
    );
    faults.iter().for_each(|fault| println!("    FAULT {fault}"));
    if faults.is_empty() {
        println!("    nothing was lost{}", if gro { ", and it is as fast as wanted" } else { "" });
    }
    let row = json!({ "way": way, "gro": gro, "bits_per_s": bits_per_s, "ns_per_packet": ns_per_packet,
        "packets": arrived, "pictures": pictures, "damaged": damaged, "window": window.json(load),
        "generator": sent.report, "faults": faults });
    Ok((row, faults.is_empty()))
}

fn options() -> Option<Options> {
    let mut options = Options {
        load: Load::new(26, "400M", 4),
        gso: 45,
        ways: ["uring", "mmsg"].map(str::to_owned).to_vec(),
        json: None,
    };
    for (name, value) in support::arguments() {
        let understood = match name.as_str() {
            "--feeds" => set(&mut options.load.feeds, &value),
            "--rate" => set(&mut options.load.rate, &value),
            "--gso" => set(&mut options.gso, &value),
            "--seconds" => set(&mut options.load.seconds, &value),
            "--ways" => {
                options.ways = value.split(',').map(str::to_owned).collect();
                options.ways.iter().all(|way| ["uring", "mmsg"].contains(&way.as_str()))
            }
            "--json" => options.json.replace(value).is_none(),
            _ => false,
        };
        if !understood {
            eprintln!("bursts [--feeds N] [--rate 400M] [--gso N] [--seconds N] [--ways uring,mmsg] [--json FILE]");
            return None;
        }
    }
    Some(options)
}
