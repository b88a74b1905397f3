//! The figures of all rounds become one table, and the same as JSON.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::Row;
use crate::run::{Exchange, Figures};
use crate::spread::Spread;

/// One exchange in one row, over all rounds.
pub struct Cell {
    pub exchange: Exchange,
    rounds: Vec<Round>,
    commits: Histogram<u64>,
    puts: Histogram<u64>,
    latencies: Histogram<u64>,
    pub faults: Vec<String>,
}

/// What one round of it came to.
#[derive(Clone, Copy)]
struct Round {
    round: usize,
    commit_p50: u64,
    latency_p50: u64,
    latency_p99: u64,
    bytes_per_s: f64,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid")
}

impl Cell {
    pub fn new(exchange: Exchange) -> Self {
        let [commits, puts, latencies] = [(); 3].map(|()| histogram());
        Self { exchange, rounds: Vec::new(), commits, puts, latencies, faults: Vec::new() }
    }

    /// A round with faults is told of, and its ratios count no less: they are what there is.
    pub fn add(&mut self, round: usize, row: &Row, figures: &Figures) {
        let mut once = [histogram(), histogram(), histogram()];
        for (histogram, values) in once.iter_mut().zip([&figures.commits, &figures.puts, &figures.latencies]) {
            values.iter().for_each(|&value| histogram.saturating_record(value.max(1)));
        }
        self.rounds.push(Round {
            round,
            commit_p50: once[0].value_at_quantile(0.5),
            latency_p50: once[2].value_at_quantile(0.5),
            latency_p99: once[2].value_at_quantile(0.99),
            bytes_per_s: figures.read.saturating_sub(1) as f64 * row.size as f64
                / (figures.elapsed_ns.max(1) as f64 / 1e9),
        });
        for (all, once) in [&mut self.commits, &mut self.puts, &mut self.latencies].into_iter().zip(&once) {
            all.add(once).expect("the same bounds");
        }
        self.faults.extend(figures.faults().into_iter().map(|fault| format!("round {round}: {fault}")));
    }

    fn ratio(&self, other: &Self, of: impl Fn(&Round) -> u64) -> Option<Spread> {
        let pairs = self.rounds.iter().filter_map(|ours| {
            let theirs = other.rounds.iter().find(|theirs| theirs.round == ours.round)?;
            Some(of(ours) as f64 / of(theirs) as f64)
        });
        Spread::new(pairs)
    }

    fn bytes_per_s(&self) -> Option<Spread> {
        Spread::new(self.rounds.iter().map(|round| round.bytes_per_s))
    }

    fn json(&self) -> Value {
        let of = |h: &Histogram<u64>| {
            json!({ "count": h.len(), "p50": h.value_at_quantile(0.5), "p99": h.value_at_quantile(0.99),
                "p99.9": h.value_at_quantile(0.999), "max": h.max() })
        };
        json!({ "exchange": self.exchange.name(), "commit_ns": of(&self.commits), "copy_in_ns": of(&self.puts),
            "awake_ns": of(&self.latencies), "bytes_per_s": self.bytes_per_s().map(|ratios| ratios.json()),
            "faults": self.faults })
    }
}

/// A target and whether it was met.
fn verdict(value: f64, met: bool) -> &'static str {
    match (value.is_finite(), met) {
        (false, _) => "not measured",
        (_, true) => "met",
        (_, false) => "MISSED",
    }
}

pub fn head() {
    println!(
        "\n{:<40} {:<10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7}",
        "", "", "commit", "commit", "awake", "awake", "awake", "awake", "GB/s"
    );
    println!(
        "{:<40} {:<10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7}",
        "row", "exchange", "p50 ns", "p99 ns", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "read"
    );
}

/// A quantile in µs, if enough samples lie beyond it.
fn us_at(histogram: &Histogram<u64>, quantile: f64) -> String {
    let beyond = histogram.len() as f64 * (1.0 - quantile);
    if quantile < 1.0 && beyond < 10.0 {
        return "-".to_owned();
    }
    format!("{:.1}", histogram.value_at_quantile(quantile) as f64 / 1e3)
}

/// Prints a ratio beside its target.
fn judge(
    results: &mut Vec<Value>,
    ours: &Cell,
    what: &str,
    ratios: Option<Spread>,
    target: &str,
    met: impl Fn(f64) -> bool,
) {
    let who = ours.exchange.name().trim();
    let value = ratios.as_ref().map_or(f64::NAN, Spread::median);
    let said = if ours.faults.is_empty() { verdict(value, met(value)) } else { "not judged, there were faults" };
    let text = ratios.as_ref().map_or("-".to_owned(), |ratios| ratios.text(2));
    println!("{:<40} {who}: {what}: {text}   target {target}: {said}", "");
    results.push(json!({ "exchange": who, "what": what, "ratio": ratios.map(|ratios| ratios.json()),
        "target": target, "verdict": said }));
}

/// Prints one row; returns it as JSON.
pub fn row(row: &Row, cells: &[Cell], bandwidth: &[f64]) -> Value {
    println!();
    for (i, cell) in cells.iter().enumerate() {
        let rate = cell.bytes_per_s().map_or(0.0, |rates| rates.median() / 1e9);
        let awake = |quantile: f64| {
            if row.window > 0 { "-".to_owned() } else { us_at(&cell.latencies, quantile) }
        };
        println!(
            "{:<40} {:<10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7.2}",
            if i == 0 { row.title() } else { String::new() },
            cell.exchange.name(),
            cell.commits.value_at_quantile(0.5),
            cell.commits.value_at_quantile(0.99),
            awake(0.5),
            awake(0.99),
            awake(0.999),
            awake(1.0),
            rate,
        );
    }
    let mut results = Vec::new();
    let theirs = cells.iter().find(|cell| cell.exchange == Exchange::Iceoryx2);
    let is_ours = |cell: &&Cell| matches!(cell.exchange, Exchange::FrameRing | Exchange::FrameRingDirect);
    for ours in cells.iter().filter(is_ours) {
        let who = ours.exchange.name().trim();
        if row.window > 0 {
            let shares = |i: &Round| bandwidth.get(i.round - 1).map(|bandwidth| i.bytes_per_s / bandwidth);
            let shares = Spread::new(ours.rounds.iter().filter_map(shares));
            judge(&mut results, ours, "bytes read ÷ memory bandwidth", shares, "≥ 0.50", |value| value >= 0.5);
        } else {
            let ratio = |of: fn(&Round) -> u64| theirs.and_then(|theirs| ours.ratio(theirs, of));
            judge(&mut results, ours, "awake p50 ÷ iceoryx2", ratio(|round| round.latency_p50), "≤ 1.00", |value| {
                value <= 1.0
            });
            judge(&mut results, ours, "awake p99 ÷ iceoryx2", ratio(|round| round.latency_p99), "≤ 1.00", |value| {
                value <= 1.0
            });
        }
        if let Some(ratios) = theirs.and_then(|theirs| ours.ratio(theirs, |round| round.commit_p50)) {
            println!("{:<40} {who}: commit p50 ÷ iceoryx2: {}", "", ratios.text(2));
            results.push(json!({ "exchange": who, "what": "commit p50 ÷ iceoryx2", "ratio": ratios.json() }));
        }
    }
    for cell in cells {
        for fault in &cell.faults {
            println!("{:<40} {}, {fault}", "", cell.exchange.name());
        }
    }
    json!({ "row": row.name, "title": row.title(), "exchanges": cells.iter().map(Cell::json).collect::<Vec<_>>(),
        "results": results })
}

/// Prints the row of memory; returns it as JSON.
pub fn memory(ours: &crate::memory::Memory, theirs: &[(usize, crate::memory::Memory)]) -> Value {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    println!(
        "\nmemory of a stream whose readers may be 100 frames (2 s) behind and of whose frames any may have 10 MiB; iceoryx2 keeps 100\n\
         frames of any size and its pages come to be when they are first used, the ring keeps 3 s of 60 Mbit/s, all of it there at once"
    );
    println!("{:<40} {:<10} {:>14} {:>14} {:>14}", "", "exchange", "files", "allocated", "mapped");
    let line = |who: String, name: &str, m: &crate::memory::Memory| {
        println!("{who:<40} {name:<10} {:>14} {:>14} {:>14}", mib(m.promised), mib(m.allocated), mib(m.mapped));
    };
    line("any number of readers".to_owned(), "frame ring", ours);
    let mut results = Vec::new();
    for (readers, memory) in theirs {
        line(format!("{readers} readers"), "iceoryx2", memory);
        let ratio = ours.promised as f64 / memory.promised as f64;
        let said = verdict(ratio, ratio <= 0.1);
        println!("{:<40} files ÷ iceoryx2: {ratio:.4}   target ≤ 0.10: {said}", "");
        results.push(json!({ "readers": readers, "ratio": ratio, "target": "≤ 0.10", "verdict": said,
            "iceoryx2": as_json(memory) }));
    }
    json!({ "row": "memory", "frame_ring": as_json(ours), "results": results })
}

fn as_json(memory: &crate::memory::Memory) -> Value {
    json!({ "files": memory.promised, "allocated": memory.allocated, "mapped": memory.mapped })
}
