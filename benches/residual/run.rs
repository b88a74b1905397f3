//! One receiver under all points at once: its relays, its sender, and what came.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use headworks::output::reader::reader::Start;
use headworks::output::reader::stream_reader::{StreamEvent, StreamNext, StreamReader};
use serde_json::Value;

use crate::PER_SECOND;
use crate::support::programs::compile;
use crate::support::{Appliance, HEADWORKS, Process, SRT_PORT};

/// Rings of the appliance.
pub const ROOT: &str = "/dev/shm/headworks-residual";
const LIBSRT_PORT: u16 = 30_330;
/// The first point's.
const RELAY_PORT: u16 = 30_340;
/// From the start of relays and receiver until they listen.
const START: Duration = Duration::from_millis(500);
/// From the end of the sender until its last packet has been due.
const DRAIN: Duration = Duration::from_millis(500);
/// A sender that handed in a larger share of its packets more than 2 ms after their time is not to be judged by.
const LATE_MAX: f64 = 0.05;
/// Of what comes 99 % is there so soon after it was due; or something else had the core.
const HELD_UP_MAX_MS: u64 = 50;
/// A PES packet in five transport packets, without its header.
const UNIT_LEN: usize = 5 * 184 - 14;

/// A network, and the latency that is to make good for it.
pub struct Point {
    /// As `headworks relay` takes them.
    pub loss: &'static str,
    pub burst_loss: Option<&'static str>,
    pub round_trip_ms: u64,
    pub latency_ms: u64,
}

const fn point(loss: &'static str, burst_loss: Option<&'static str>, round_trip_ms: u64, latency_ms: u64) -> Point {
    Point { loss, burst_loss, round_trip_ms, latency_ms }
}

/// Latencies of two and a half to three round trips leave something to be lost.
pub const POINTS: [Point; 8] = [
    point("2%", None, 40, 100),
    point("5%", None, 40, 120),
    point("5%", Some("2%/30ms"), 40, 120),
    point("20%", None, 40, 120),
    point("2%", None, 120, 300),
    point("5%", None, 120, 360),
    point("5%", Some("2%/100ms"), 120, 300),
    point("20%", None, 120, 360),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    Headworks,
    Libsrt,
}

impl Receiver {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Headworks => "headworks",
            Self::Libsrt => "libsrt",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Headworks => SRT_PORT,
            Self::Libsrt => LIBSRT_PORT,
        }
    }
}

/// Both ends on libsrt.
pub struct Programs {
    send: PathBuf,
    receive: PathBuf,
}

impl Programs {
    /// `None` where libsrt's headers are missing.
    pub fn build() -> Option<Self> {
        Some(Self { send: compile("numbered_send", "srt")?, receive: compile("numbered_receive", "srt")? })
    }
}

/// What became of one feed.
#[derive(Clone, Debug)]
pub struct Feed {
    pub point: usize,
    /// Packets that did not come, of those that count.
    pub missing: u64,
    /// From handing in to delivery, half and 99 % of them.
    pub took_p50_us: u64,
    pub took_p99_us: u64,
    /// What the sender counted.
    pub retransmitted: u64,
    pub loss_reports: u64,
    /// Why nothing is judged by it.
    pub faults: Vec<String>,
}

/// What came to a reader.
struct Came {
    count: u64,
    took_p50_us: u64,
    took_p99_us: u64,
    faults: Vec<String>,
}

/// One feed of `messages` packets through each of `points`, with accidents that follow from `seed`.
pub fn measure(
    programs: &Programs,
    receiver: Receiver,
    seed: u64,
    points: &[usize],
    messages: u64,
) -> io::Result<Vec<Feed>> {
    let receiving = Receiving::start(programs, receiver, points, messages)?;
    let relays: Vec<Process> = points.iter().map(|&point| relay(point, receiver, seed)).collect::<io::Result<_>>()?;
    thread::sleep(START);
    let mut sender = Command::new(&programs.send);
    sender.args([PER_SECOND.to_string(), messages.to_string()]).stderr(Stdio::null());
    for &point in points {
        let port = RELAY_PORT + point as u16;
        sender.arg(format!("{port}:{}:{}", POINTS[point].latency_ms, name(point)));
    }
    let sent = objects(&sender.output()?.stdout);
    thread::sleep(DRAIN);
    let came = receiving.end()?;
    let said: Vec<Value> = relays.into_iter().map(said).collect();
    let feeds = points.iter().zip(came).zip(&said).map(|((&point, came), relay)| {
        let sent = sent.iter().find(|sent| sent["stream"] == name(point)).unwrap_or(&Value::Null);
        feed(point, messages, sent, came, relay)
    });
    Ok(feeds.collect())
}

fn feed(point: usize, messages: u64, sent: &Value, came: Came, relay: &Value) -> Feed {
    let count = |field: &str| sent[field].as_u64().unwrap_or(0);
    let mut faults = came.faults;
    if count("sent") < messages {
        faults.push(format!("{} packets were sent", count("sent")));
    }
    if count("late") as f64 > messages as f64 * LATE_MAX || count("dropped") > 0 {
        faults.push(format!("the sender was late with {} packets, and dropped {}", count("late"), count("dropped")));
    }
    let due_ms = POINTS[point].latency_ms + POINTS[point].round_trip_ms / 2;
    if came.took_p99_us / 1_000 > due_ms + HELD_UP_MAX_MS {
        faults
            .push(format!("the receiver was held up: {} ms for what is due after {due_ms}", came.took_p99_us / 1_000));
    }
    for own in ["/forward/no_room", "/back/no_room", "/not_taken", "/overflowed", "/ignored"] {
        if relay.pointer(own) != Some(&Value::from(0)) {
            faults.push(format!("the relay's {own} is {:?}", relay.pointer(own)));
        }
    }
    Feed {
        point,
        missing: messages - came.count.min(messages),
        took_p50_us: came.took_p50_us,
        took_p99_us: came.took_p99_us,
        retransmitted: count("retransmitted"),
        loss_reports: count("loss_reports"),
        faults,
    }
}

fn name(point: usize) -> String {
    format!("point{}", point + 1)
}

fn relay(point: usize, receiver: Receiver, seed: u64) -> io::Result<Process> {
    let Point { loss, burst_loss, round_trip_ms, .. } = &POINTS[point];
    let mut command = Command::new(HEADWORKS);
    command
        .args(["relay", "--json", "--listen", &format!("127.0.0.1:{}", RELAY_PORT + point as u16)])
        .args(["--to", &format!("127.0.0.1:{}", receiver.port()), "--seed", &(seed * 100 + point as u64).to_string()])
        .args(["--loss", loss, "--delay", &format!("{}us", round_trip_ms * 500)])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(burst_loss) = burst_loss {
        command.args(["--burst-loss", burst_loss]);
    }
    command.spawn().map(Process)
}

/// Ends a relay; gives its report.
fn said(mut relay: Process) -> Value {
    let mut output = relay.0.stdout.take().expect("piped");
    relay.terminate();
    let mut text = String::new();
    let _ = output.read_to_string(&mut text);
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// The lines of JSON that a program printed.
fn objects(output: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(output).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A receiver that waits for its feeds.
enum Receiving {
    Headworks { _appliance: Appliance, ends: Arc<AtomicBool>, readers: Vec<JoinHandle<Came>> },
    Libsrt { process: Process, points: Vec<usize> },
}

impl Receiving {
    fn start(programs: &Programs, receiver: Receiver, points: &[usize], messages: u64) -> io::Result<Self> {
        match receiver {
            Receiver::Headworks => {
                // Less than any point's; all else as it comes.
                let set = ["ingestion.srt.latency=20ms".to_owned()];
                let appliance = Appliance::start(ROOT, points.len() as u32, &set)?;
                let ends = Arc::new(AtomicBool::new(false));
                let readers = points.iter().map(|&point| {
                    let (path, ends) = (Path::new(ROOT).join(name(point)), Arc::clone(&ends));
                    thread::spawn(move || read(&path, messages, &ends))
                });
                Ok(Self::Headworks { readers: readers.collect(), _appliance: appliance, ends })
            }
            Receiver::Libsrt => {
                let seconds = messages / PER_SECOND + 30;
                let process = Command::new(&programs.receive)
                    .args([
                        LIBSRT_PORT.to_string(),
                        points.len().to_string(),
                        messages.to_string(),
                        seconds.to_string(),
                    ])
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()?;
                Ok(Self::Libsrt { process: Process(process), points: points.to_vec() })
            }
        }
    }

    fn end(self) -> io::Result<Vec<Came>> {
        match self {
            Self::Headworks { ends, readers, _appliance } => {
                ends.store(true, Ordering::Relaxed);
                Ok(readers.into_iter().map(|reader| reader.join().expect("a reader does not panic")).collect())
            }
            Self::Libsrt { mut process, points } => {
                // It ends by itself once all of its feeds have gone.
                let mut text = Vec::new();
                process.0.stdout.take().expect("piped").read_to_end(&mut text)?;
                let said = objects(&text);
                let came = points.into_iter().map(|point| {
                    let said = said.iter().find(|said| said["stream"] == name(point)).unwrap_or(&Value::Null);
                    let count = |field: &str| said[field].as_u64().unwrap_or(0);
                    let faults = if said.is_null() { vec!["it was not connected".to_owned()] } else { Vec::new() };
                    Came {
                        count: count("came"),
                        took_p50_us: count("took_p50_us"),
                        took_p99_us: count("took_p99_us"),
                        faults,
                    }
                });
                Ok(came.collect())
            }
        }
    }
}

/// Reads a stream's ring until it is told to end and nothing more comes: which numbers came, and how long they took.
fn read(path: &Path, messages: u64, ends: &AtomicBool) -> Came {
    let mut came = Came { count: 0, took_p50_us: 0, took_p99_us: 0, faults: Vec::new() };
    let is_over = || ends.load(Ordering::Relaxed);
    let mut reader = loop {
        match StreamReader::open(path, Start::Oldest, None) {
            Ok(reader) => break reader,
            Err(error) if is_over() => {
                came.faults.push(error.to_string());
                return came;
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    let (mut seen, mut took_us) = (vec![false; messages as usize], Vec::with_capacity(messages as usize));
    loop {
        match reader.next(Duration::from_millis(200)) {
            StreamNext::Frame { frame, .. } => {
                let Some((number, rest)) = frame.payload.split_first_chunk() else { continue };
                let Some(sent_ns) = rest.first_chunk().filter(|_| frame.payload.len() == UNIT_LEN) else { continue };
                let (number, sent_ns) = (u64::from_be_bytes(*number), u64::from_be_bytes(*sent_ns));
                let Some(seen) = seen.get_mut(number as usize) else { continue };
                if std::mem::replace(seen, true) {
                    came.faults.push(format!("packet {number} came twice"));
                }
                took_us.push(frame.descriptor.commit_ns.saturating_sub(sent_ns) / 1_000);
            }
            StreamNext::Event(StreamEvent::Lapped { lost, .. }) => {
                came.faults.push(format!("the reader was too slow for {lost} frames"));
            }
            StreamNext::Event(StreamEvent::Timeout | StreamEvent::Ended | StreamEvent::WriterDead) if is_over() => {
                break;
            }
            StreamNext::Event(_) => {}
        }
    }
    took_us.sort_unstable();
    came.count = took_us.len() as u64;
    let at = |hundredths: usize| took_us.get(took_us.len() * hundredths / 100).copied().unwrap_or(0);
    (came.took_p50_us, came.took_p99_us) = (at(50), at(99));
    came
}
