//! Who receives: how each program is started on the receiver's core, what it does with what it receives, and how it tells what arrived.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::load::{Load, Sent};
use crate::support::programs::{compile, is_there, on_receiver_core};
use crate::support::{Appliance, Process, SRT_PORT, libsrt, losses, total};

/// Rings of the appliance, and what programs print.
pub const ROOT: &str = "/dev/shm/headworks-rivals";
/// The first feed's, for those that take one feed on each port.
const PORT: u16 = 30_200;
/// As many ports as are kept for it.
pub const FEEDS_MAX: u32 = 64;
/// Packets after which srt-live-transmit tells its statistics.
const TOLD_EVERY: u64 = 1_000;

/// Every receiver that there is, Headworks first.
pub const ALL: [Receiver; 6] = [
    Receiver::Headworks,
    Receiver::Libsrt,
    Receiver::SrtLiveTransmit,
    Receiver::Ffmpeg,
    Receiver::GstReceive,
    Receiver::GstDemux,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    Headworks,
    Libsrt,
    SrtLiveTransmit,
    Ffmpeg,
    GstReceive,
    GstDemux,
}

impl Receiver {
    /// For `--rivals` and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Headworks => "headworks",
            Self::Libsrt => "libsrt",
            Self::SrtLiveTransmit => "srt-live-transmit",
            Self::Ffmpeg => "ffmpeg",
            Self::GstReceive => "gstreamer",
            Self::GstDemux => "gstreamer-demux",
        }
    }

    /// What is done with what comes; none of them does the same.
    pub const fn does(self) -> &'static str {
        match self {
            Self::Headworks => "demuxes, access units into shared-memory rings; one process",
            Self::Libsrt => "receives, drops; one process",
            Self::SrtLiveTransmit => "receives, writes to /dev/null; a process per feed",
            Self::Ffmpeg => "demuxes, parses, drops (-c copy -f null); a process per feed",
            Self::GstReceive => "srtsrc ! fakesink: receives, drops; one process",
            Self::GstDemux => "srtsrc ! tsdemux ! fakesink: demuxes, PES packets dropped; one process",
        }
    }

    /// Debian's packages that it takes.
    pub const fn packages(self) -> &'static str {
        match self {
            Self::Headworks => "",
            Self::Libsrt => libsrt::PACKAGES,
            Self::SrtLiveTransmit => "srt-tools",
            Self::Ffmpeg => "ffmpeg",
            Self::GstReceive | Self::GstDemux => {
                "gstreamer1.0-plugins-bad gstreamer1.0-plugins-base libgstreamer1.0-dev pkg-config"
            }
        }
    }

    /// What its own count is of.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Headworks | Self::Ffmpeg | Self::GstDemux => "pictures",
            Self::Libsrt | Self::SrtLiveTransmit | Self::GstReceive => "packets",
        }
    }

    /// What was sent, in that unit.
    pub fn sent(self, sent: &Sent) -> u64 {
        if self.unit() == "pictures" { sent.pictures() } else { sent.packets() }
    }

    /// By how much its own count may fall short of what has arrived.
    pub fn untold_max(self, load: &Load) -> u64 {
        if self == Self::SrtLiveTransmit { TOLD_EVERY * u64::from(load.feeds) } else { 0 }
    }

    /// Built or found, or what it lacks.
    pub fn find(self) -> Option<PathBuf> {
        match self {
            Self::Headworks => Some(PathBuf::new()),
            Self::Libsrt => libsrt::build(),
            Self::SrtLiveTransmit | Self::Ffmpeg => is_there(self.name()).then(|| PathBuf::from(self.name())),
            Self::GstReceive | Self::GstDemux => {
                let program = compile("gst_receive", "gstreamer-1.0")?;
                // Without feeds it says whether it has its elements.
                let has_elements = Command::new(&program).args(["0", "0", "0", "demux"]).status();
                has_elements.is_ok_and(|status| status.success()).then_some(program)
            }
        }
    }

    /// Starts it, ready for all feeds of `load`.
    pub fn start(self, program: &Path, load: &Load) -> io::Result<Running> {
        fs::create_dir_all(ROOT)?;
        let ports = PORT..=PORT + load.feeds as u16 - 1;
        let seconds = load.duration().as_secs() + 4;
        let mut running = Running { receiver: self, processes: Vec::new(), appliance: None, ports };
        match self {
            Self::Headworks => {
                running.appliance = Some(Appliance::start_on_core(&format!("{ROOT}/rings"), load.feeds, &[])?);
                running.ports = SRT_PORT..=SRT_PORT;
            }
            Self::Libsrt => {
                running.ports = PORT..=PORT;
                running.processes.push(Process(libsrt::start(program, PORT, load)?));
            }
            Self::SrtLiveTransmit => {
                // Of -buffering none, 1 and 10 the one that costs it least by a quarter.
                for port in running.ports.clone() {
                    let from = format!(
                        "srt://127.0.0.1:{port}?mode=listener&latency=120&rcvbuf=67108864&fc=60000&udp_rcvbuf=33554432"
                    );
                    let mut command = on_receiver_core(program);
                    command
                        .args([
                            "-q",
                            "-a:no",
                            "-chunk:1316",
                            "-buffering:1",
                            &format!("-s:{TOLD_EVERY}"),
                            "-f",
                            "-pf:json",
                        ])
                        .args([&format!("-statsout:{}", told(port)), &from, "file://con"])
                        .stdout(Stdio::null())
                        .stderr(Stdio::null());
                    running.processes.push(Process(command.spawn()?));
                }
            }
            Self::Ffmpeg => {
                for port in running.ports.clone() {
                    let options = "mode=listener&latency=120000&rcvbuf=67108864&ffs=60000&recv_buffer_size=33554432";
                    let mut command = on_receiver_core(program);
                    command
                        .args(["-hide_banner", "-nostdin", "-nostats", "-loglevel", "warning", "-stats_period", "1"])
                        .args(["-progress", &told(port), "-i", &format!("srt://127.0.0.1:{port}?{options}")])
                        .args(["-c", "copy", "-f", "null", "-"])
                        .stdout(Stdio::null())
                        .stderr(File::create(format!("{}.log", told(port)))?);
                    running.processes.push(Process(command.spawn()?));
                }
            }
            Self::GstReceive | Self::GstDemux => {
                let what = if self == Self::GstDemux { "demux" } else { "receive" };
                let mut command = on_receiver_core(program);
                command.args([PORT.to_string(), load.feeds.to_string(), seconds.to_string(), what.to_owned()]);
                running.processes.push(Process(command.stdout(Stdio::piped()).spawn()?));
            }
        }
        Ok(running)
    }
}

/// Where the process on a port tells what it does.
fn told(port: u16) -> String {
    format!("{ROOT}/{port}")
}

/// A receiver that waits for its feeds, or has them.
pub struct Running {
    receiver: Receiver,
    processes: Vec<Process>,
    appliance: Option<Appliance>,
    /// Of its UDP sockets.
    pub ports: RangeInclusive<u16>,
}

/// What a receiver says.
pub struct Arrived {
    /// In its unit.
    pub count: u64,
    /// Packets that were missing for good or, by GStreamer's count and srt-live-transmit's, at first; with ffmpeg, PES packets marked
    /// corrupt.
    pub lost: u64,
    pub faults: Vec<String>,
    pub said: Value,
}

impl Running {
    pub fn ids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.0.id()).chain(self.appliance.as_ref().map(Appliance::id)).collect()
    }

    /// Where the generator sends to.
    pub fn to(&self) -> String {
        format!("srt://127.0.0.1:{}?streamid=feed", self.ports.start())
    }

    /// How far the ports of its feeds are apart.
    pub fn ports_step(&self) -> String {
        u16::from(self.ports.start() != self.ports.end()).to_string()
    }

    /// What arrived, after all was sent and had time to be delivered. The processes end.
    pub fn end(mut self) -> io::Result<Arrived> {
        match self.receiver {
            Receiver::Headworks => {
                let page = self.appliance.as_ref().and_then(|appliance| appliance.get("/metrics"));
                let page = page.ok_or_else(|| io::Error::other("the appliance does not answer"))?;
                let packets = total(&page, "headworks_stream_packets_received_total{", "");
                let lost = total(&page, "headworks_stream_packets_lost_total{", "");
                let count = total(&page, "headworks_track_frames_total{", "track=\"video");
                Ok(Arrived {
                    count,
                    lost,
                    faults: losses(&page),
                    said: json!({ "pictures": count, "packets": packets, "lost": lost }),
                })
            }
            Receiver::Libsrt | Receiver::GstReceive | Receiver::GstDemux => {
                let mut text = String::new();
                let output = self.processes[0].0.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
                { output }.read_to_string(&mut text)?;
                let said: Value =
                    serde_json::from_str(&text).map_err(|_| io::Error::other(format!("it ended with {text:?}")))?;
                let field = |name: &str| said[name].as_u64().unwrap_or(0);
                let count = match self.receiver {
                    Receiver::Libsrt => field("messages"),
                    Receiver::GstReceive => field("buffers"),
                    _ => field("video"),
                };
                Ok(Arrived { count, lost: field("lost"), faults: Vec::new(), said })
            }
            Receiver::SrtLiveTransmit => {
                self.processes.clear();
                let (mut count, mut lost, mut dropped) = (0, 0, 0);
                for port in self.ports.clone() {
                    let text = fs::read_to_string(told(port))?;
                    // The last line may be cut.
                    let newest = text
                        .lines()
                        .rev()
                        .find_map(|line| serde_json::from_str::<Value>(line).ok())
                        .unwrap_or(Value::Null);
                    let field = |name: &str| newest["recv"][name].as_u64().unwrap_or(0);
                    count += field("packetsUnique");
                    lost += field("packetsLost");
                    dropped += field("packetsDropped");
                }
                let said = json!({ "packets": count, "lost": lost, "dropped": dropped });
                Ok(Arrived { count, lost: lost.max(dropped), faults: Vec::new(), said })
            }
            Receiver::Ffmpeg => {
                self.processes.clear();
                let (mut count, mut corrupt) = (0, 0);
                for port in self.ports.clone() {
                    let progress = fs::read_to_string(told(port))?;
                    let newest =
                        progress.lines().rev().find_map(|line| line.strip_prefix("frame=")?.trim().parse::<u64>().ok());
                    count += newest.unwrap_or(0);
                    let log = fs::read_to_string(format!("{}.log", told(port)))?;
                    corrupt += log.lines().filter(|line| line.contains("Packet corrupt")).count() as u64;
                }
                Ok(Arrived {
                    count,
                    lost: corrupt,
                    faults: Vec::new(),
                    said: json!({ "pictures": count, "corrupt": corrupt }),
                })
            }
        }
    }
}
