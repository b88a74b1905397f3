//! All rounds become one table, and the same as JSON.

use std::fs;

use serde_json::{Value, json};

use crate::Measured;
use crate::receiver::Receiver;
use crate::support::load::{GENERATOR_CORE, Load, RECEIVER_CORE, Window};
use crate::support::programs::package_version;
use crate::support::spread::Spread;

/// One receiver over all rounds.
pub struct Cell {
    pub receiver: Receiver,
    pub rounds: Vec<Measured>,
    /// Why rounds have no figures.
    pub errors: Vec<String>,
}

impl Cell {
    pub fn new(receiver: Receiver) -> Self {
        Self { receiver, rounds: Vec::new(), errors: Vec::new() }
    }

    /// Whether any round counts.
    pub fn is_judged(&self) -> bool {
        self.judged().next().is_some()
    }

    fn judged(&self) -> impl Iterator<Item = &Measured> {
        self.rounds.iter().filter(|round| round.faults.is_empty())
    }

    /// Of the rounds that count; if none does, of all there are.
    fn spread(&self, of: impl Fn(&Window) -> f64) -> Option<Spread> {
        Spread::new(self.judged().map(|round| of(&round.window)))
            .or_else(|| Spread::new(self.rounds.iter().map(|round| of(&round.window))))
    }

    /// CPU time ÷ that of another in the same round, where both count.
    fn ratio(&self, other: &Self) -> Option<Spread> {
        Spread::new(self.judged().filter_map(|ours| {
            let theirs = other.judged().find(|theirs| theirs.round == ours.round)?;
            Some(ours.window.cpu_s / theirs.window.cpu_s)
        }))
    }

    fn sum(&self, of: impl Fn(&Measured) -> u64) -> u64 {
        self.rounds.iter().map(of).sum()
    }

    /// The version of the first of its packages.
    fn version(&self) -> String {
        match self.receiver {
            Receiver::Headworks => env!("CARGO_PKG_VERSION").to_owned(),
            other => {
                other.packages().split(' ').next().and_then(package_version).unwrap_or_else(|| "unknown".to_owned())
            }
        }
    }
}

/// Prints the table; returns it as JSON.
pub fn print(load: &Load, rounds: usize, limit_bps: f64, cells: &[Cell], missing: &[Receiver]) -> Value {
    let buffer_max = fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap_or_default().trim().to_owned();
    println!(
        "{} × {} bit/s by SRT, {rounds} rounds of {} s; receiver on core {RECEIVER_CORE}, generator on core {GENERATOR_CORE}; net.core.rmem_max {buffer_max}\n\
         the generator's own limit: {:.1} Gbit/s (25 feeds by RTP, as fast as it goes)\n",
        load.feeds,
        load.rate,
        load.seconds,
        limit_bps / 1e9
    );
    let (late, ratio) = ("late p99", "CPU ÷ Headworks,");
    line(["", "asked", "arrived of sent,", "", "CPU % of", "CPU-s per", "ns per", ratio, late, "kernel", "rounds", ""]);
    let (count, ratio) = ("by its own count", "median (spread)");
    line(["receiver", "Mbit/s", count, "lost", "a core", "100 Gbit", "packet", ratio, "µs", "drops", "judged", "does"]);
    let headworks = cells.iter().find(|cell| cell.receiver == Receiver::Headworks);
    let rows: Vec<Value> = cells.iter().map(|cell| row(cell, headworks, load)).collect();
    println!();
    for cell in cells {
        details(cell);
    }
    for receiver in missing {
        println!("{} was left out: apt-get install {}", receiver.name(), receiver.packages());
    }
    json!({ "feeds": load.feeds, "rate": load.rate, "seconds": load.seconds, "rounds": rounds, "rmem_max": buffer_max, "generator_limit_bps": limit_bps, "rows": rows,
        "missing": missing.iter().map(|receiver| json!({ "name": receiver.name(), "packages": receiver.packages() })).collect::<Vec<_>>() })
}

/// Prints a line of the table.
fn line([name, asked, arrived, lost, percent, per_100_gbit, per_packet, ratio, late, drops, judged, does]: [&str; 12]) {
    println!(
        "{name:<17} {asked:>6} {arrived:>23} {lost:>4} {percent:>8} {per_100_gbit:>9} {per_packet:>6}  {ratio:<19} {late:>8} {drops:>6} {judged:>6}  {does}"
    );
}

/// A receiver's line, and the same as JSON.
fn row(cell: &Cell, headworks: Option<&Cell>, load: &Load) -> Value {
    let percent = cell.spread(Window::cpu_percent);
    let per_100_gbit = cell.spread(|window| window.cpu_s_per_100_gbit(load));
    let per_packet = cell.spread(|window| window.ns_per_packet(load));
    let ratio = headworks.and_then(|headworks| cell.ratio(headworks));
    let (lost, kernel_drops) = (cell.sum(|round| round.lost), cell.sum(|round| round.window.kernel_drops));
    let late_p99_us = cell.rounds.iter().map(|round| round.sent.late_p99_us()).max();
    let median = |spread: &Option<Spread>, digits: usize| {
        spread.as_ref().map_or("-".to_owned(), |it| format!("{:.digits$}", it.median()))
    };
    let (arrived, expected) = (cell.sum(|round| round.arrived), cell.sum(|round| round.expected));
    let judged = cell.judged().count();
    line([
        cell.receiver.name(),
        &format!("{:.0}", load.bits_per_s() / 1e6),
        &format!("{arrived}/{expected} {}", cell.receiver.unit()),
        &lost.to_string(),
        &median(&percent, 1),
        &median(&per_100_gbit, 1),
        &median(&per_packet, 0),
        &ratio.as_ref().map_or("not judged".to_owned(), |ratio| ratio.text(2)),
        &late_p99_us.map_or("-".to_owned(), |late| late.to_string()),
        &kernel_drops.to_string(),
        &format!("{judged}/{}", cell.rounds.len() + cell.errors.len()),
        cell.receiver.does(),
    ]);
    let json = |spread: &Option<Spread>| spread.as_ref().map(Spread::json);
    json!({ "name": cell.receiver.name(), "version": cell.version(), "does": cell.receiver.does(), "packages": cell.receiver.packages(),
        "unit": cell.receiver.unit(), "arrived": arrived, "sent": expected, "lost": lost, "kernel_drops": kernel_drops,
        "cpu_percent": json(&percent), "cpu_s_per_100_gbit": json(&per_100_gbit), "ns_per_packet": json(&per_packet),
        "cpu_by_headworks": json(&ratio), "late_p99_us": late_p99_us, "judged": judged, "errors": cell.errors,
        "rounds": cell.rounds.iter().map(|round| round_json(round, load)).collect::<Vec<_>>() })
}

fn round_json(round: &Measured, load: &Load) -> Value {
    let mut all = round.window.json(load);
    let parts = [
        ("round", json!(round.round)),
        ("arrived", json!(round.arrived)),
        ("sent", json!(round.expected)),
        ("lost", json!(round.lost)),
        ("receiver", round.said.clone()),
        ("generator", round.sent.report.clone()),
        ("faults", json!(round.faults)),
    ];
    for (name, part) in parts {
        all[name] = part;
    }
    all
}

/// Prints what does not fit the table: version, CPU by thread and the generator's schedule in the last round, and why rounds do not count.
fn details(cell: &Cell) {
    println!("{} {}", cell.receiver.name(), cell.version());
    if let Some(round) = cell.rounds.last() {
        println!("    threads: {}", round.window.threads_text());
        println!("    generator: {}", round.sent.schedule());
    }
    for round in cell.rounds.iter().filter(|round| !round.faults.is_empty()) {
        println!("    round {} is not judged: {}", round.round, round.faults.join("; "));
    }
    for error in &cell.errors {
        println!("    {error}: not measured");
    }
}
