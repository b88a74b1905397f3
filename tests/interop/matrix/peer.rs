//! The tools at the other end of the wire: each sends a clip as a person would have it send, and keeps its connection when the clip is over
//! until it has been asked what it has counted.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Cell, LATENCY_MS, Role, Tool};
use crate::clips::{self, Clip};
use crate::senders::{self, SrtSender};

/// How long a tool may take to say what it has counted.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines of a tool's log that are shown when a cell fails.
const LAST_WORDS: usize = 12;

/// `srtsink` in a program that prints its statistics.
static SRTSINK: LazyLock<PathBuf> = LazyLock::new(|| {
    let to = clips::directory().join("srtsink");
    let flags = clips::run(Command::new("pkg-config").args(["--cflags", "--libs", "gstreamer-1.0"]));
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "tests/interop/matrix/srtsink.c", "-o"]).arg(&to);
    clips::run(command.args(flags.split_whitespace()));
    to
});

/// What a sender counts, under whatever name.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// All, first and again.
    pub packets: u64,
    /// Of all, with headers.
    pub bytes: u64,
    pub retransmitted: u64,
    pub rtt_ms: f64,
    /// That came; `srt-live-transmit` does not tell.
    pub loss_reports: Option<u64>,
}

/// A running tool.
pub struct Peer {
    tool: Tool,
    sender: SrtSender,
}

/// Whatever takes time before anything is sent.
pub fn prepare(tool: Tool) {
    if tool == Tool::GStreamer {
        LazyLock::force(&SRTSINK);
    }
}

impl Peer {
    /// `at` is its own address, where it is called or meets.
    pub fn command(cell: &Cell, far: SocketAddr, at: Option<SocketAddr>, clip: &Clip) -> Command {
        match cell.tool {
            Tool::SrtLiveTransmit => srt_live_transmit(cell, far, at),
            Tool::Ffmpeg => ffmpeg(cell, far, at),
            Tool::GStreamer => gstreamer(cell, far, at, clip),
        }
    }

    pub fn start(cell: &Cell, mut command: Command) -> Self {
        let connected = match cell.role {
            Role::Caller => "Accepted SRT target connection",
            Role::Listener | Role::Rendezvous => "SRT target connected",
        };
        Self { tool: cell.tool, sender: SrtSender::run(&mut command, connected) }
    }

    /// Gives it the clip. Of the tools here GStreamer reads it from its file.
    pub fn send(&mut self, clip: &Clip) {
        match self.tool {
            Tool::SrtLiveTransmit => {
                self.sender.wait_for_connection();
                self.sender.send(&clip.bytes);
                // It keeps the last pieces of its input back; null packets push them out.
                self.sender.send(&senders::null_packets(40));
            }
            Tool::Ffmpeg => {
                let stdin = self.sender.child.stdin.as_mut().expect("piped");
                stdin.write_all(&clip.bytes).expect("ffmpeg reads on at its pace");
            }
            Tool::GStreamer => {}
        }
    }

    /// How many frames it may keep back while its input is open.
    pub fn held_back(&self) -> usize {
        // What is open in its parsers, an audio PES packet that is being filled, and what is left of a datagram.
        if self.tool == Tool::Ffmpeg { 20 } else { 0 }
    }

    /// What it says that it has sent, when nothing is under way any more. ffmpeg does not tell.
    pub fn statistics(&mut self) -> Option<Sent> {
        match self.tool {
            Tool::SrtLiveTransmit => Some(self.report()),
            Tool::Ffmpeg => None,
            Tool::GStreamer => Some(self.structure()),
        }
    }

    /// `srt-live-transmit` takes ten packets at a time, and reports as soon as it has handed one to libsrt, which sends it a little later. So
    /// the first report of the next ten is of what was sent before, and of the first of these at most.
    fn report(&mut self) -> Sent {
        let began = Instant::now();
        let before = self.reports().count();
        let report: Value = loop {
            self.sender.send(&senders::null_packets(10));
            std::thread::sleep(Duration::from_millis(50));
            if let Some(report) = self.reports().nth(before) {
                break serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
            }
            assert!(began.elapsed() < PATIENCE, "it reports nothing");
        };
        let value = |pointer: &str| {
            report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {report}"))
        };
        let count = |name: &str| value(&format!("/send/{name}")) as u64;
        Sent {
            packets: count("packets"),
            bytes: count("bytes"),
            retransmitted: count("packetsRetransmitted"),
            rtt_ms: value("/link/rtt"),
            loss_reports: None,
        }
    }

    fn reports(&self) -> impl Iterator<Item = String> {
        let said = self.sender.said();
        let lines: Vec<String> = said.lines().map(|line| line.trim_end_matches(',').to_owned()).collect();
        lines.into_iter().filter(|line| line.starts_with('{'))
    }

    /// `srtsink` tells when something comes on the program's input.
    fn structure(&mut self) -> Sent {
        let began = Instant::now();
        self.sender.child.stdin.as_mut().expect("piped").write_all(b"?").expect("it listens");
        let value = |name: &str| loop {
            let said = self.sender.said();
            if let Some(value) = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')) {
                return value.parse::<f64>().unwrap_or_else(|error| panic!("{name}={value}: {error}"));
            }
            assert!(began.elapsed() < PATIENCE, "it does not tell {name}");
            std::thread::sleep(Duration::from_millis(10));
        };
        let count = |name: &str| value(name) as u64;
        Sent {
            packets: count("packets-sent"),
            bytes: count("bytes-sent"),
            retransmitted: count("packets-retransmitted"),
            rtt_ms: value("rtt-ms"),
            loss_reports: Some(count("packet-nack-received")),
        }
    }

    /// The end of what it has said, without its reports.
    pub fn last_words(&self) -> String {
        let said = self.sender.said();
        let words: Vec<&str> = said.lines().filter(|line| !line.starts_with('{')).collect();
        words[words.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

/// `mode` and the rest of a query, for the tools that name things as libsrt does.
fn query(cell: &Cell) -> String {
    let secret = cell.key_length.map(|length| format!("&passphrase={}&pbkeylen={length}", cell.passphrase()));
    let name = if cell.role == Role::Listener { format!("&streamid={}", cell.stream()) } else { String::new() };
    format!("mode={}{name}{}", cell.role.of_peer(), secret.unwrap_or_default())
}

/// Whom the peer calls, or where it is called.
fn target(cell: &Cell, far: SocketAddr, at: Option<SocketAddr>) -> SocketAddr {
    if cell.role == Role::Caller { at.expect("it listens somewhere") } else { far }
}

fn srt_live_transmit(cell: &Cell, far: SocketAddr, at: Option<SocketAddr>) -> Command {
    let mut url = format!("srt://{}?{}&latency={LATENCY_MS}", target(cell, far, at), query(cell));
    if let (Role::Rendezvous, Some(at)) = (cell.role, at) {
        url += &format!("&adapter={}&port={}", at.ip(), at.port());
    }
    // Without it reports wait for others to be written together with.
    let mut command = Command::new("stdbuf");
    // Every counter since the beginning, with each packet.
    command.args([
        "-oL",
        "srt-live-transmit",
        "-a:no",
        &format!("-chunk:{}", senders::DATAGRAM),
        "-f",
        "-s:1",
        "-pf:json",
        "file://con",
        &url,
    ]);
    command
}

/// It binds, in rendezvous, the address that it calls.
fn ffmpeg(cell: &Cell, far: SocketAddr, at: Option<SocketAddr>) -> Command {
    let url = format!("srt://{}?{}&latency={LATENCY_MS}000&pkt_size=1316", target(cell, far, at), query(cell));
    let mut command = Command::new("ffmpeg");
    // So much of the clip has a key frame and names all streams: it would wait for more than there is.
    command.args(["-nostdin", "-v", "warning", "-probesize", "200k", "-analyzeduration", "1M", "-re"]);
    command.args(["-f", "mpegts", "-i", "pipe:0", "-map", "0", "-c", "copy", "-f", "mpegts", &url]);
    command
}

fn gstreamer(cell: &Cell, far: SocketAddr, at: Option<SocketAddr>, clip: &Clip) -> Command {
    let file = clips::directory().join(format!("{}.ts", clip.name));
    let mut command = Command::new(&*SRTSINK);
    command.env("GST_DEBUG", "2").env("GST_DEBUG_NO_COLOR", "1");
    command.arg("filesrc").arg(format!("location={}", file.display()));
    command.args(["!", "tsparse", "set-timestamps=true", "alignment=7", "!", "srtsink", "name=srt"]);
    command.arg(format!("uri=srt://{}?mode={}", target(cell, far, at), cell.role.of_peer()));
    command.args([&format!("latency={LATENCY_MS}"), "wait-for-connection=true"]);
    if cell.role == Role::Listener {
        command.arg(format!("streamid={}", cell.stream()));
    }
    if let (Role::Rendezvous, Some(at)) = (cell.role, at) {
        command.args([format!("localaddress={}", at.ip()), format!("localport={}", at.port())]);
    }
    if let Some(length) = cell.key_length {
        command.args([format!("passphrase={}", cell.passphrase()), format!("pbkeylen={length}")]);
    }
    command
}
