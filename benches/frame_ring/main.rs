//! What it costs to hand a frame to another process, and how long it takes until that process knows: the frame ring beside
//! iceoryx2 and GStreamer's shmsink, under the same load in one run.
//!
//! `cargo bench --bench frame_ring -- [--seconds 1] [--rounds 5] [--only WORD,WORD] [--rivals iceoryx2,shmsink] [--json FILE]`
//!
//! Writer and readers are processes of their own, the writer on the first core, all readers on the second; every byte of every
//! payload is copied in by the writer and summed by the reader, and the sum is checked. In each round the exchanges take turns,
//! the other way round every second time; a ratio is made of the figures of one round, and the median of the ratios counts.
//!
//! - *commit*: from the payload in place to the frame visible and the wake of its readers asked for, on the writer's thread. The
//!   frame ring asks its waker thread, as a shard does, or (*direct*) wakes them itself, as iceoryx2 notifies its listeners; shmsink
//!   hands over to its own thread.
//! - *awake*: from the payload in place to the reader that knows of it and has not yet read it. *Blocking* readers sleep;
//!   *spinning* ones look without end, and nobody wakes them.
//! - The 1 MB row without a pace is bounded by its reader: eight frames may be on their way. It stands beside memcpy between
//!   large buffers on the better of the two cores, measured in every round.
//!
//! A measurement in which the writer came late for more than one frame in a hundred, or anything was lost, says so, and nothing is
//! judged by it. Readers all share one core, so only one of them can spin. Quantiles stand where there are samples enough for ten to
//! lie beyond them.

mod load;
mod machine;
mod memory;
mod report;
mod ring;
mod run;
#[path = "../support/spread.rs"]
mod spread;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs, process};

use serde_json::json;

use load::Load;
use machine::{Bandwidth, Ticks};
use report::Cell;
use run::{Exchange, Programs, measure};

const ALL: &[Exchange] = &[Exchange::FrameRing, Exchange::FrameRingDirect, Exchange::Iceoryx2, Exchange::Shmsink];
const NOBODY_SLEEPS: &[Exchange] = &[Exchange::FrameRing, Exchange::Iceoryx2, Exchange::Shmsink];
/// shmsink's readers cannot spin.
const ALL_SPIN: &[Exchange] = &[Exchange::FrameRing, Exchange::Iceoryx2];
/// Hundreds of shmsink's pipelines are no exchange that anybody runs.
const WITHOUT_SHMSINK: &[Exchange] = &[Exchange::FrameRing, Exchange::FrameRingDirect, Exchange::Iceoryx2];

/// One line of the table.
pub struct Row {
    /// For `--only`.
    pub name: &'static str,
    /// Bytes of a frame.
    pub size: usize,
    /// Frames a second, 0 as fast as it goes.
    rate: u64,
    spinning: bool,
    readers: usize,
    rings: usize,
    /// Frames that may be on their way, 0 any number.
    pub window: u64,
    exchanges: &'static [Exchange],
}

impl Row {
    const fn new(name: &'static str, size: usize, rate: u64, spinning: bool, readers: usize, rings: usize) -> Self {
        let exchanges = match (spinning, rings) {
            (true, _) => ALL_SPIN,
            (false, 1) => ALL,
            (false, _) => WITHOUT_SHMSINK,
        };
        Self { name, size, rate, spinning, readers, rings, window: 0, exchanges }
    }

    fn title(&self) -> String {
        let size =
            if self.size >= 1 << 20 { format!("{} MB", self.size >> 20) } else { format!("{} KB", self.size >> 10) };
        let mode = if self.spinning { "spinning" } else { "blocking" };
        let counts = match (self.readers, self.rings) {
            (1, 1) => String::new(),
            (1, rings) => format!(", {rings} rings"),
            (readers, _) => format!(", {readers} readers"),
        };
        let rate = if self.window > 0 { "no pace".to_owned() } else { format!("{}/s", self.rate) };
        format!("{size} {mode}{counts}, {rate}")
    }
}

const ROWS: &[Row] = &[
    Row::new("blocking-2k", 2 << 10, 4_000, false, 1, 1),
    Row::new("blocking-64k", 64 << 10, 2_000, false, 1, 1),
    Row::new("blocking-1m", 1 << 20, 500, false, 1, 1),
    Row::new("spinning-2k", 2 << 10, 4_000, true, 1, 1),
    Row::new("spinning-64k", 64 << 10, 2_000, true, 1, 1),
    Row::new("spinning-1m", 1 << 20, 500, true, 1, 1),
    Row::new("readers-8-2k", 2 << 10, 1_000, false, 8, 1),
    Row::new("readers-8-64k", 64 << 10, 500, false, 8, 1),
    Row::new("readers-8-1m", 1 << 20, 50, false, 8, 1),
    Row::new("readers-32-2k", 2 << 10, 250, false, 32, 1),
    Row::new("readers-32-64k", 64 << 10, 250, false, 32, 1),
    Row::new("rings-100-2k", 2 << 10, 5_000, false, 1, 100),
    Row::new("rings-100-64k", 64 << 10, 2_500, false, 1, 100),
    Row::new("rings-500-2k", 2 << 10, 12_500, false, 1, 500),
    Row { window: 8, exchanges: NOBODY_SLEEPS, ..Row::new("throughput-1m", 1 << 20, 0, true, 1, 1) },
];

struct Options {
    seconds: f64,
    rounds: usize,
    only: Vec<String>,
    rivals: Vec<String>,
    json: Option<String>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("writer") => return ring::writer(&Load::parse(&arguments)?),
        Some("reader") => return ring::reader(&Load::parse(&arguments)?),
        _ => {}
    }
    let Some(options) = options(arguments) else { return Ok(()) };
    let root = PathBuf::from(format!("/dev/shm/headworks-frame-ring-{}", process::id()));
    let outcome = bench(&options, &root);
    let _ = fs::remove_dir_all(&root);
    outcome
}

fn bench(options: &Options, root: &Path) -> Result<(), Box<dyn Error>> {
    let programs = Programs::build(&options.rivals)?;
    let rows: Vec<&Row> = ROWS.iter().filter(|row| options.wants(row.name)).collect();
    let mut cells: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| row.exchanges.iter().filter(|&&e| programs.of(e).is_some()).map(|&e| Cell::new(e)).collect())
        .collect();
    println!("{} rounds of {} s; writer on core 0, readers on core 1", options.rounds, options.seconds);
    let (started, ticks) = (Instant::now(), Ticks::now());
    let mut bandwidth = Vec::new();
    for round in 1..=options.rounds {
        bandwidth.push(Bandwidth::measure());
        for (row, cells) in rows.iter().zip(&mut cells) {
            let backwards = round % 2 == 0;
            let mut turns: Vec<&mut Cell> = cells.iter_mut().collect();
            if backwards {
                turns.reverse();
            }
            for cell in turns {
                one(row, cell, round, options, &programs, root);
            }
        }
        eprintln!("round {round} of {}: {:.0} s", options.rounds, started.elapsed().as_secs_f64());
    }
    report::head();
    let alone: Vec<f64> = bandwidth.iter().map(|bandwidth| bandwidth.alone).collect();
    let mut report: Vec<_> = rows.iter().zip(&cells).map(|(row, cells)| report::row(row, cells, &alone)).collect();
    if options.wants("memory") {
        let ours = memory::of_ring(root)?;
        let mut theirs = Vec::new();
        if let Some(program) = programs.of(Exchange::Iceoryx2) {
            for readers in [1, 8] {
                let place = iceoryx2_place(&format!("memory-{readers}"));
                match memory::of_iceoryx2(program, &place, readers) {
                    Ok(memory) => theirs.push((readers, memory)),
                    Err(error) => println!("{error}"),
                }
                clear_iceoryx2(&place);
            }
        }
        report.push(report::memory(&ours, &theirs));
    }
    let machine = ticks.since();
    let gigabytes = |of: fn(&Bandwidth) -> f64| {
        bandwidth.iter().map(|b| format!("{:.1}", of(b) / 1e9)).collect::<Vec<_>>().join(" ")
    };
    println!(
        "\nmemcpy of large buffers, GB/s: one core {}; both {}",
        gigabytes(|b| b.alone),
        gigabytes(|b| b.together)
    );
    println!("the machine meanwhile: {machine}; {:.0} s in all", started.elapsed().as_secs_f64());
    if let Some(path) = &options.json {
        let both: Vec<f64> = bandwidth.iter().map(|bandwidth| bandwidth.together).collect();
        let whole = json!({ "rounds": options.rounds, "seconds": options.seconds, "rows": report, "machine": machine,
            "memcpy_bytes_per_s": { "one_core": alone, "both_cores": both } });
        fs::write(path, serde_json::to_string_pretty(&whole)?)?;
    }
    Ok(())
}

/// One exchange in one row, once.
fn one(row: &Row, cell: &mut Cell, round: usize, options: &Options, programs: &Programs, root: &Path) {
    let Some(program) = programs.of(cell.exchange) else { return };
    let directory = root.join(format!("{}-{round}", row.name));
    let load = Load {
        place: match cell.exchange {
            Exchange::Iceoryx2 => iceoryx2_place(&format!("{}-{round}", row.name)),
            _ => directory.to_string_lossy().into_owned(),
        },
        result: String::new(),
        size: row.size,
        duration_ns: (options.seconds * 1e9) as u64,
        interval_ns: 1_000_000_000u64.checked_div(row.rate).unwrap_or(0),
        spinning: row.spinning,
        rings: row.rings,
        readers: row.readers,
        window: row.window,
        direct: cell.exchange == Exchange::FrameRingDirect,
    };
    match measure(program, &load, &directory) {
        Ok(figures) => cell.add(round, row, &figures),
        Err(error) => cell.faults.push(format!("round {round}: {error}")),
    }
    if cell.exchange == Exchange::Iceoryx2 {
        clear_iceoryx2(&load.place);
    }
    let _ = fs::remove_dir_all(&directory);
}

/// What iceoryx2's files begin with: in shared memory, and in a directory of the same name under `/tmp` (its sockets need short paths).
fn iceoryx2_place(name: &str) -> String {
    format!("hw{}-{name}-", process::id())
}

/// Clears away what its processes have left; a killed one leaves everything.
fn clear_iceoryx2(place: &str) {
    let _ = fs::remove_dir_all(Path::new("/tmp").join(place));
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(place) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn options(arguments: Vec<String>) -> Option<Options> {
    let words = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut options =
        Options { seconds: 1.0, rounds: 5, only: Vec::new(), rivals: words("iceoryx2,shmsink".to_owned()), json: None };
    // `cargo bench` adds a --bench of its own.
    let mut arguments = arguments.into_iter().filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--seconds" => options.seconds = value().parse().unwrap_or(options.seconds),
            "--rounds" => options.rounds = value().parse().unwrap_or(options.rounds),
            "--only" => options.only = words(value()),
            "--rivals" => options.rivals = words(value()),
            "--json" => options.json = Some(value()),
            _ => {
                println!(
                    "frame_ring [--seconds N] [--rounds N] [--only WORD,…] [--rivals iceoryx2,shmsink|none] [--json FILE]\n\
                     rows: {}, memory",
                    ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
                );
                return None;
            }
        }
    }
    Some(options)
}
