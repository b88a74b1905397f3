//! What the same SRT feeds cost Headworks and others: libsrt alone, srt-live-transmit, ffmpeg, GStreamer, as Debian packages them.
//!
//! `cargo bench --bench rivals -- [--feeds 4] [--rate 50M] [--rounds 5] [--seconds 8] [--late-max-ms 10] [--rivals libsrt,srt-live-transmit,ffmpeg,gstreamer,gstreamer-demux] [--json FILE]`
//!
//! In each round every receiver has the core to itself in turn, the other way round every second time, and takes the same load from
//! `headworks send` on the other core: SRT without encryption, 120 ms latency, each packet by itself. Counted is the CPU time of all
//! threads of all its processes in a window that starts when all feeds run; a ratio is made of the figures of one round, and the
//! median of the ratios counts. Those that take one feed only run once for each, all on the same core.
//!
//! They do not do the same: the last column says what each does with what it receives, and *arrived* is its own count, of pictures
//! where it takes the transport stream apart. A round in which the generator was late, or something was lost or missing at first, is not
//! judged, and says why. `--feeds` is by default what the slowest takes with one core.
//!
//! A rival that is not installed is named with its packages and left out. Exit code 0: each row was judged; 1: one was not, or a rival
//! asked for by name is missing; 2: usage.

mod receiver;
mod report;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use serde_json::Value;

use receiver::{ALL, FEEDS_MAX, ROOT, Receiver};
use report::Cell;
use support::load::{Generator, Load, Sent, Window, limit_bps};
use support::set;

/// Until a receiver listens.
const START: Duration = Duration::from_millis(1_000);
/// From the end of a load until all of it has left the receive buffers.
const DRAIN: Duration = Duration::from_millis(700);

struct Options {
    load: Load,
    rounds: usize,
    rivals: Option<Vec<String>>,
    json: Option<String>,
}

/// One receiver under the load, once.
struct Measured {
    round: usize,
    window: Window,
    sent: Sent,
    /// By the receiver's own count, in its unit, and what it should have been.
    arrived: u64,
    expected: u64,
    lost: u64,
    said: Value,
    /// Why nothing is judged by it.
    faults: Vec<String>,
}

fn main() -> ExitCode {
    let Some(options) = options() else { return ExitCode::from(2) };
    let (mut programs, mut missing) = (Vec::new(), Vec::new());
    let is_wanted = |receiver: &Receiver| {
        let named = |names: &Vec<String>| names.iter().any(|name| name == receiver.name());
        *receiver == Receiver::Headworks || options.rivals.as_ref().is_none_or(named)
    };
    for receiver in ALL.into_iter().filter(is_wanted) {
        match receiver.find() {
            Some(program) => programs.push((receiver, program)),
            None => {
                eprintln!("{} is left out: apt-get install {}", receiver.name(), receiver.packages());
                missing.push(receiver);
            }
        }
    }
    let limit_bps = limit_bps(1).unwrap_or(f64::NAN);
    let cells = measure_all(&options, &programs);
    let report = report::print(&options.load, options.rounds, limit_bps, &cells, &missing);
    let _ = fs::remove_dir_all(ROOT);
    if let Some(path) = &options.json
        && let Err(error) =
            serde_json::to_string_pretty(&report).map_err(io::Error::from).and_then(|text| fs::write(path, text))
    {
        eprintln!("{path}: {error}");
        return ExitCode::FAILURE;
    }
    let is_complete = cells.iter().all(Cell::is_judged) && (options.rivals.is_none() || missing.is_empty());
    if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure_all(options: &Options, programs: &[(Receiver, PathBuf)]) -> Vec<Cell> {
    let mut cells: Vec<Cell> = programs.iter().map(|(receiver, _)| Cell::new(*receiver)).collect();
    let started = Instant::now();
    for round in 1..=options.rounds {
        let mut turns: Vec<(&mut Cell, &PathBuf)> =
            cells.iter_mut().zip(programs.iter().map(|(_, program)| program)).collect();
        if round % 2 == 0 {
            turns.reverse();
        }
        for (cell, program) in turns {
            let said = match measure(cell.receiver, program, &options.load, round) {
                Ok(measured) => {
                    let said =
                        format!("{:.1} % of a core {}", measured.window.cpu_percent(), measured.faults.join("; "));
                    cell.rounds.push(measured);
                    said
                }
                Err(error) => {
                    cell.errors.push(format!("round {round}: {error}"));
                    error.to_string()
                }
            };
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("{seconds:4.0} s, round {round} of {}, {}: {said}", options.rounds, cell.receiver.name());
        }
    }
    cells
}

fn measure(receiver: Receiver, program: &Path, load: &Load, round: usize) -> io::Result<Measured> {
    let running = receiver.start(program, load)?;
    thread::sleep(START);
    let generator = Generator::start(load, &running.to(), &["--ports-step", &running.ports_step()])?;
    let window = Window::measure(&running.ids(), running.ports.clone(), load);
    let sent = generator.end()?;
    let window = window.ok_or_else(|| io::Error::other("a receiver ended before its feed"))?;
    thread::sleep(DRAIN);
    let arrived = running.end()?;
    let expected = receiver.sent(&sent);
    let mut faults = sent.faults.clone();
    faults.extend(arrived.faults);
    if arrived.lost > 0 {
        faults.push(format!("{} lost", arrived.lost));
    }
    if sent.missing_at_first() > 0 {
        faults.push(format!("{} packets were missing at first", sent.missing_at_first()));
    }
    if window.kernel_drops > 0 {
        faults.push(format!("the kernel dropped {} datagrams", window.kernel_drops));
    }
    if arrived.count + receiver.untold_max(load) < expected {
        faults.push(format!("{} of {expected} {} arrived", arrived.count, receiver.unit()));
    }
    Ok(Measured {
        round,
        window,
        sent,
        arrived: arrived.count,
        expected,
        lost: arrived.lost,
        said: arrived.said,
        faults,
    })
}

fn options() -> Option<Options> {
    let mut options = Options { load: Load::new(4, "50M", 8), rounds: 5, rivals: None, json: None };
    for (name, value) in support::arguments() {
        let understood = match name.as_str() {
            "--feeds" => set(&mut options.load.feeds, &value) && (1..=FEEDS_MAX).contains(&options.load.feeds),
            "--rounds" => set(&mut options.rounds, &value),
            "--seconds" => set(&mut options.load.seconds, &value),
            "--late-max-ms" => set(&mut options.load.late_max_ms, &value),
            "--rate" => !std::mem::replace(&mut options.load.rate, value).is_empty(),
            "--rivals" => {
                let names: Vec<String> = value.split(',').map(str::to_owned).collect();
                let is_known = names.iter().all(|name| ALL.iter().any(|receiver| receiver.name() == name));
                options.rivals = Some(names);
                is_known
            }
            "--json" => options.json.replace(value).is_none(),
            _ => false,
        };
        if !understood {
            let names: Vec<&str> = ALL.iter().skip(1).map(|receiver| receiver.name()).collect();
            eprintln!(
                "rivals [--feeds 1…{FEEDS_MAX}] [--rate 50M] [--rounds N] [--seconds N] [--late-max-ms N] [--rivals {}] [--json FILE]",
                names.join(",")
            );
            return None;
        }
    }
    Some(options)
}
