//! `headworks tap`: a reader of rings for people and scripts. A line per frame, a JSON object per frame, or the payloads.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::arguments::{Exit, RootArgument};
use super::container_output::ContainerOutput;
use super::table::printable;
use crate::egress::remux::Container;
use crate::output::reader::bell::BellError;
use crate::output::reader::broker::Broker;
use crate::output::reader::descriptor::{Discontinuity, FrameDescriptor, RandomAccess};
use crate::output::reader::directory::{encode_name, list_streams, list_tracks};
use crate::output::reader::layout::{NONE, TrackKind};
use crate::output::reader::reader::{Frame, Start};
use crate::output::reader::stream_descriptor::StreamDescriptor;
use crate::output::reader::stream_reader::{StreamEvent, StreamNext, StreamOpenError, StreamReader};

/// Between two looks for a stream that is not there yet.
const OPEN_INTERVAL: Duration = Duration::from_millis(20);
/// The same by a broker, who serves others too.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for a frame before the deadline is looked at again.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// Streams named when the one asked for is not there.
const NAMED_MAX: usize = 10;
/// A bell that cannot be read for this long is broken, not just being made.
const HALF_MADE_MAX: Duration = Duration::from_secs(1);

const HELP: &str = "\
A line per frame: pts and dts in seconds, bytes and CRC32C of the payload, and delay: from the arrival of the frame's last \
packet to the frame standing in the ring.

Fields of --json:
  stream track codec      whose frame it is
  seq stream_seq          its number in the track and in the stream, from 0
  key_seq segment         seq of the key frame it depends on; a number that rises when the source starts anew
  pts dts clock_rate      time stamps in ticks, unwrapped, and ticks per second
  timeline_ns             pts on the stream's continuous timeline, ns
  key random_access       whether decoding can start here, and by what (idr, cra, recovery_point, …)
  len crc32c              bytes of the payload, and their CRC32C
  discontinuity damaged   what broke before it; whether the frame itself is incomplete
  lost lapped             packets of this frame that never came; frames this reader was too slow for
  arrival_ns commit_ns    last packet's arrival and publication, CLOCK_MONOTONIC, ns

Examples:
  headworks tap cam1                                            every frame of every track
  headworks tap cam1/video0 --from key --out - | ffplay -f h264 -
  headworks tap cam1 --format mpegts --out - | ffmpeg -i - -c copy cam1.mp4
  headworks tap cam1 --format matroska --out cam1.mkv --timeout 60
  headworks tap cam1 --frames 250 --timeout 20 --json --hash sha256

--format writes all tracks, or the one named, from a picture on that decoding can start at. Time stamps are the source's until it \
starts anew, and go on without a jump then. mpegts has data too, marks damaged frames (transport_error_indicator) and places where this \
reader was too slow and frames are missing (discontinuity_indicator), and takes tracks that come later; matroska has pictures and sound, \
counts from 0, and has no word for damage or for frames that are missing: standard error tells of these.

--broker is for users whom the modes of the files keep out: the appliance hands them the rings that output.broker.readers or \
streams.NAME.readers allow.

Exit codes: 0 --frames reached or the stream ended, 1 error, 2 usage, 3 --timeout passed first";

/// Read a stream's frames from shared memory
///
/// Waits for a stream that is not there yet, and says which ones are. Ends after --frames, at --timeout, or when the stream has ended.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct TapArguments {
    /// The stream, and the track if only one is wanted (cam1/video0)
    #[arg(value_name = "STREAM[/TRACK]")]
    target: String,
    /// Where in the ring to begin
    #[arg(long, value_enum, default_value_t = From::Live)]
    from: From,
    /// Stop after so many frames, those of all tracks read counted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
    /// Give up after so many seconds in all, such as 20 or 0.5; without it tap waits for ever
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Print one JSON object per frame
    #[arg(long)]
    json: bool,
    /// Add a hash of the payload
    #[arg(long, value_enum)]
    hash: Option<Hash>,
    /// Write the frames to a file, or to standard output; what is in the file stays until the first frame comes
    #[arg(long, value_name = "FILE|-")]
    out: Option<PathBuf>,
    /// What --out is to hold
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    format: Format,
    /// Read through the broker that listens there (output.broker.socket), where this user has no right to the files
    #[arg(long, value_name = "SOCKET")]
    broker: Option<PathBuf>,
    #[command(flatten)]
    root: RootArgument,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// The next one published
    Live,
    /// The newest that decoding can start at, else the next such one
    Key,
    /// The oldest still there
    Oldest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hash {
    /// SHA-256, as 64 hex digits in the field `sha256`
    Sha256,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The payloads of one track as they stand in its ring
    Raw,
    /// An MPEG-2 transport stream of all tracks
    Mpegts,
    /// A Matroska file of all video and audio tracks
    Matroska,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let duration = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or("not a number of seconds; to wait for ever, leave it out")
}

/// Why tap cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// Options that do not go together.
    #[error("{0}")]
    Usage(&'static str),
    /// The stream is there and cannot be read.
    #[error("{path}: {source}")]
    Open {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: StreamOpenError,
    },
    /// No stream is ever named so.
    #[error("no stream is named {name}: try {instead}")]
    Name {
        /// What was asked for.
        name: String,
        /// What was meant, most likely.
        instead: String,
    },
    /// `--out` makes sense for one track only.
    #[error("{stream} has the tracks {tracks}: name the one to write, such as headworks tap {stream}/{first}")]
    SeveralTracks {
        /// The stream.
        stream: String,
        /// Its tracks.
        tracks: String,
        /// The first of them.
        first: String,
    },
    /// The stream has ended without that track.
    #[error("{stream} has no track {track}")]
    NoTrack {
        /// The stream.
        stream: String,
        /// The track asked for.
        track: String,
    },
    /// The file of `--out` cannot be made.
    #[error("{path}: {source}")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Frames cannot be written.
    #[error("writing: {0}")]
    Write(#[from] io::Error),
}

/// Reads until there is a reason to stop.
///
/// # Errors
/// [`TapError`].
pub fn run(arguments: TapArguments) -> Result<Exit, TapError> {
    let standard_output = arguments.out.as_deref() == Some(Path::new("-"));
    if standard_output && arguments.json {
        return Err(TapError::Usage("--json and --out - both want standard output: give --out a file"));
    }
    if arguments.format != Format::Raw && arguments.out.is_none() {
        return Err(TapError::Usage("--format says what --out is to hold: add --out FILE, or --out - for a pipe"));
    }
    let payloads: Option<Box<dyn Write>> = match &arguments.out {
        None => None,
        Some(_) if standard_output => Some(Box::new(io::stdout().lock())),
        Some(path) => {
            let opened = File::options().write(true).create(true).truncate(false).open(path);
            let file = opened.map_err(|source| TapError::Create { path: path.clone(), source })?;
            Some(Box::new(OutputFile { file, has_begun: false }))
        }
    };
    match Tap::new(arguments, payloads).run() {
        // Whoever read our output has seen enough.
        Err(TapError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        other => other,
    }
}

/// The file of `--out`: what was in it goes when there is something to write in its place.
struct OutputFile {
    file: File,
    has_begun: bool,
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A pipe or a device has no length.
        if !std::mem::replace(&mut self.has_begun, true) && self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// `cam1/video0` is a track of `cam1`; `studio/cam1` is a stream, for `cam1` cannot be the name of a track.
pub(super) fn split_target(target: &str) -> (&str, Option<&str>) {
    let is_track = |name: &str| {
        ["video", "audio", "data", "transport"].iter().any(|kind| {
            name.strip_prefix(kind).is_some_and(|n| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()))
        })
    };
    match target.rsplit_once('/') {
        Some((stream, track)) if is_track(track) && !stream.is_empty() => (stream, Some(track)),
        _ => (target, None),
    }
}

struct Tap {
    arguments: TapArguments,
    stream: String,
    only: Option<String>,
    directory: PathBuf,
    deadline: Option<Instant>,
    payloads: Option<Box<dyn Write>>,
    /// With `--format`.
    container: Option<ContainerOutput>,
    lines: io::BufWriter<io::Stdout>,
    tracks: Vec<Track>,
    frames: u64,
    /// A ring contradicted itself.
    failed: bool,
}

/// What is known of a track; the index is the reader's.
struct Track {
    name: String,
    codec: String,
    clock_rate: u32,
    /// Frames lost since the last one delivered.
    lapped: u64,
    /// What comes before a random access point is not wanted.
    awaiting_key: bool,
}

impl Tap {
    fn new(arguments: TapArguments, payloads: Option<Box<dyn Write>>) -> Self {
        let (stream, only) = split_target(&arguments.target);
        Self {
            directory: arguments.root.root.join(encode_name(stream)),
            stream: stream.to_owned(),
            only: only.map(str::to_owned),
            deadline: arguments.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            payloads,
            container: match arguments.format {
                Format::Raw => None,
                Format::Mpegts => Some(ContainerOutput::new(Container::MpegTs)),
                Format::Matroska => Some(ContainerOutput::new(Container::Matroska)),
            },
            lines: io::BufWriter::new(io::stdout()),
            tracks: Vec::new(),
            frames: 0,
            failed: false,
            arguments,
        }
    }

    fn run(&mut self) -> Result<Exit, TapError> {
        let exit = self.run_to_the_end();
        if let (Some(container), Some(to), Ok(_)) = (&mut self.container, &mut self.payloads, &exit) {
            container.finish(to)?;
        }
        exit
    }

    fn run_to_the_end(&mut self) -> Result<Exit, TapError> {
        let start = match self.arguments.from {
            From::Live => Start::Live,
            From::Key => Start::Key,
            From::Oldest => Start::Oldest,
        };
        let Some(mut reader) = self.open(start)? else { return Ok(self.timed_out()) };
        match self.read(&mut reader, start)? {
            Exit::Done if self.failed => Ok(Exit::Failed),
            exit => Ok(exit),
        }
    }

    /// Opens the stream as soon as it is there; `None` at the deadline.
    fn open(&self, start: Start) -> Result<Option<StreamReader>, TapError> {
        let mut half_made_since = None;
        let mut told = false;
        loop {
            let only = self.only.as_deref();
            let opened = match self.broker() {
                Some(broker) => StreamReader::open_through(broker, start, only),
                None => StreamReader::open(&self.directory, start, only),
            };
            let source = match opened {
                Ok(mut reader) => {
                    reader.verify_checksums(true);
                    return Ok(Some(reader));
                }
                Err(error) => error,
            };
            let is_absent = match &source {
                StreamOpenError::Bell(BellError::Io(error)) | StreamOpenError::Io(error) => {
                    self.is_worth_waiting(error)
                }
                StreamOpenError::Bell(_) => false,
            };
            half_made_since = matches!(source, StreamOpenError::Bell(BellError::Layout(_)))
                .then(|| half_made_since.unwrap_or_else(Instant::now));
            let may_be_half_made = half_made_since.is_some_and(|since| since.elapsed() < HALF_MADE_MAX);
            if !is_absent && !may_be_half_made {
                let path = self.arguments.broker.as_ref().unwrap_or(&self.directory).clone();
                return Err(TapError::Open { path, source });
            }
            if self.is_over() {
                return Ok(None);
            }
            if is_absent && !std::mem::replace(&mut told, true) {
                self.check_name()?;
                eprintln!("waiting for {}: {}", printable(&self.stream), self.describe_absence(&source));
            }
            std::thread::sleep(if self.arguments.broker.is_some() { ASK_INTERVAL } else { OPEN_INTERVAL });
        }
    }

    /// Whether the stream may come yet: it, its root or the broker is not there, or the broker is busy.
    fn is_worth_waiting(&self, error: &io::Error) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound, ResourceBusy};
        let of_broker = matches!(error.kind(), ConnectionRefused | ResourceBusy) && self.arguments.broker.is_some();
        error.kind() == NotFound || of_broker
    }

    /// A stream that is not there may come, unless it has a part without a name, which no sender can give it.
    fn check_name(&self) -> Result<(), TapError> {
        let mut parts: Vec<&str> = self.stream.split('/').filter(|part| !part.is_empty()).collect();
        if parts.join("/") == self.stream && !parts.is_empty() {
            return Ok(());
        }
        parts.extend(self.only.as_deref());
        let instead = if parts.is_empty() { "headworks streams".to_owned() } else { printable(&parts.join("/")) };
        Err(TapError::Name { name: format!("{:?}", self.stream), instead })
    }

    /// Why it is waited for, and what there is instead.
    fn describe_absence(&self, why: &StreamOpenError) -> String {
        if let Some(broker) = &self.arguments.broker {
            return format!("{}: {why}", broker.display());
        }
        let root = self.arguments.root.root.display();
        match list_streams(&self.arguments.root.root) {
            Err(error) => format!("{root}: {error}"),
            Ok(streams) if streams.is_empty() => format!("there is no stream in {root} yet"),
            Ok(streams) => {
                let names: Vec<String> = streams.iter().take(NAMED_MAX).map(|stream| printable(&stream.name)).collect();
                let others = streams.len() - names.len();
                let others = if others > 0 { format!(" and {others} others") } else { String::new() };
                format!("in {root} there is {}{others}", names.join(", "))
            }
        }
    }

    fn description(&self) -> Option<StreamDescriptor> {
        match self.broker() {
            Some(broker) => StreamDescriptor::read_from(&broker.description().ok()?).ok(),
            None => StreamDescriptor::read(&self.directory).ok(),
        }
    }

    fn broker(&self) -> Option<Broker> {
        Some(Broker::new(self.arguments.broker.as_deref()?, &self.stream))
    }

    fn read(&mut self, reader: &mut StreamReader, mut start: Start) -> Result<Exit, TapError> {
        loop {
            if self.is_over() {
                return Ok(self.timed_out());
            }
            let wait = self
                .deadline
                .map_or(WAIT_MAX, |deadline| deadline.saturating_duration_since(Instant::now()).min(WAIT_MAX));
            let event = match reader.next(wait) {
                StreamNext::Frame { track, frame } => {
                    let written = self.frame(track, &frame)?;
                    if let (Some(container), true) = (&mut self.container, written) {
                        container.hold(&frame);
                        let to = self.payloads.as_mut().expect("--format asks for --out");
                        container.write(reader, track, to)?;
                    }
                    if self.arguments.frames.is_some_and(|most| self.frames >= most) {
                        return Ok(Exit::Done);
                    }
                    continue;
                }
                StreamNext::Event(event) => event,
            };
            match event {
                StreamEvent::TrackAdded { track } => self.track_added(reader, track, start)?,
                StreamEvent::Lapped { track, lost, .. } => {
                    self.tracks[track].lapped += lost;
                    self.lose(track);
                    eprintln!("{}: lapped, {lost} frames lost", self.track_name(track));
                }
                StreamEvent::Skipped { track, count } => {
                    // On the way to the first frame nothing is lost.
                    if self.tracks[track].lapped > 0 {
                        self.tracks[track].lapped += count;
                        eprintln!("{}: {count} more frames lost", self.track_name(track));
                    }
                }
                StreamEvent::TrackFailed { track, error } => {
                    self.failed = true;
                    self.lose(track);
                    eprintln!("{}: {error}", self.track_name(track));
                }
                StreamEvent::TrackEnded { track } => {
                    if let Some(container) = &mut self.container {
                        container.end_track(track);
                    }
                    eprintln!("{} ended", self.track_name(track));
                    if self.only.is_some() {
                        return Ok(Exit::Done);
                    }
                }
                StreamEvent::Stalled => eprintln!("{}: the source is silent", self.stream),
                StreamEvent::WriterDead => eprintln!("{}: the writer has died; waiting for the next one", self.stream),
                StreamEvent::Timeout => {}
                // Nothing of the new tracks has been read yet: all of it is wanted.
                StreamEvent::Superseded => start = Start::Oldest,
                StreamEvent::Ended => {
                    if let Some(track) = self.only.clone().filter(|_| self.tracks.is_empty()) {
                        return Err(TapError::NoTrack { stream: self.stream.clone(), track });
                    }
                    eprintln!("{} ended after {} frames", self.stream, self.frames);
                    return Ok(Exit::Done);
                }
            }
        }
    }

    fn track_added(&mut self, reader: &StreamReader, index: usize, start: Start) -> Result<(), TapError> {
        let track = reader.track(index).expect("the reader has just named it");
        let header = track.ring().header();
        let added = Track {
            name: track.name().to_owned(),
            codec: codec_name(header.codec),
            clock_rate: header.clock_rate,
            lapped: 0,
            awaiting_key: start == Start::Key && header.kind == TrackKind::Video,
        };
        match self.tracks.get_mut(index) {
            Some(known) if (&known.name, &known.codec) == (&added.name, &added.codec) => {
                eprintln!("{} goes on", self.track_name(index));
                return Ok(());
            }
            // After a thousand others.
            Some(known) => *known = added,
            None => self.tracks.push(added),
        }
        let description = self.container.is_some().then(|| self.description()).flatten();
        if let Some(container) = &mut self.container {
            container.add_track(index, track, description.as_ref());
            return Ok(());
        }
        let first = &self.tracks[0].name;
        if self.payloads.is_some() && self.tracks.iter().any(|track| track.name != *first) {
            let names: Vec<&str> = self.tracks.iter().map(|track| track.name.as_str()).collect();
            return Err(TapError::SeveralTracks {
                stream: self.stream.clone(),
                tracks: names.join(", "),
                first: first.clone(),
            });
        }
        Ok(())
    }

    /// A container says that frames are missing.
    fn lose(&mut self, track: usize) {
        if let Some(container) = &mut self.container {
            container.lose(track);
        }
    }

    /// `false` when it is not wanted.
    fn frame(&mut self, index: usize, frame: &Frame<'_>) -> Result<bool, TapError> {
        let track = &mut self.tracks[index];
        // The reader gives a recovery point where the ring holds no key.
        let can_start = frame.descriptor.key || frame.descriptor.random_access == RandomAccess::RecoveryPoint;
        if track.awaiting_key && !can_start {
            return Ok(false);
        }
        track.awaiting_key = false;
        let lapped = std::mem::take(&mut track.lapped);
        self.frames += 1;
        if let Some(payloads) = self.payloads.as_mut().filter(|_| self.container.is_none()) {
            payloads.write_all(frame.payload)?;
            payloads.flush()?;
        }
        let line = Line::new(&self.stream, &self.tracks[index], frame, lapped, self.arguments.hash);
        if self.arguments.json {
            serde_json::to_writer(&mut self.lines, &line).map_err(io::Error::from)?;
            self.lines.write_all(b"\n")?;
        } else if self.payloads.is_none() {
            line.write_for_people(&mut self.lines, &frame.descriptor, self.frames == 1)?;
        }
        self.lines.flush()?;
        Ok(true)
    }

    fn track_name(&self, index: usize) -> String {
        printable(&format!("{}/{}", self.stream, self.tracks[index].name))
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Says on standard error what was missing.
    fn timed_out(&self) -> Exit {
        let wanted = self.arguments.frames.map(|most| format!(" of {most}")).unwrap_or_default();
        let found = match (&self.only, list_tracks(&self.directory)) {
            _ if self.arguments.broker.is_some() => String::new(),
            (_, Err(_)) => format!("; there is no stream {} in {}", self.stream, self.arguments.root.root.display()),
            (Some(track), Ok(tracks)) if !tracks.contains(track) => {
                format!("; {} has no track {track} (it has: {})", self.stream, tracks.join(", "))
            }
            _ => String::new(),
        };
        eprintln!("timed out after {} frames{wanted}{found}", self.frames);
        Exit::TimedOut
    }
}

/// The four characters of a ring's header, without blanks at the end.
pub fn codec_name(fourcc: u32) -> String {
    String::from_utf8_lossy(&fourcc.to_le_bytes()).trim_end_matches([' ', '\0']).to_owned()
}

/// What is told of a frame. The names and their order are an interface.
#[derive(Debug, Serialize)]
struct Line<'a> {
    stream: &'a str,
    track: &'a str,
    codec: &'a str,
    seq: u64,
    stream_seq: u64,
    key_seq: Option<u64>,
    segment: u32,
    pts: Option<i64>,
    dts: Option<i64>,
    clock_rate: u32,
    timeline_ns: i64,
    key: bool,
    random_access: Option<&'static str>,
    len: usize,
    crc32c: String,
    discontinuity: Option<&'static str>,
    damaged: bool,
    lost: u32,
    lapped: u64,
    arrival_ns: u64,
    commit_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl<'a> Line<'a> {
    fn new(stream: &'a str, track: &'a Track, frame: &Frame<'_>, lapped: u64, hash: Option<Hash>) -> Self {
        let descriptor = &frame.descriptor;
        Self {
            stream,
            track: &track.name,
            codec: &track.codec,
            seq: descriptor.seq,
            stream_seq: frame.stream_seq,
            key_seq: Some(descriptor.key_seq).filter(|seq| *seq != NONE),
            segment: descriptor.segment,
            pts: descriptor.pts,
            dts: descriptor.dts,
            clock_rate: track.clock_rate,
            timeline_ns: descriptor.timeline_ns,
            key: descriptor.key,
            random_access: random_access_name(descriptor.random_access),
            len: frame.payload.len(),
            crc32c: format!("{:08x}", crc32c::crc32c(frame.payload)),
            discontinuity: discontinuity_name(descriptor.discontinuity),
            damaged: descriptor.damaged,
            lost: descriptor.packets_lost,
            lapped,
            arrival_ns: descriptor.last_arrival_ns,
            commit_ns: descriptor.commit_ns,
            sha256: hash.map(|Hash::Sha256| sha256(frame.payload)),
        }
    }

    fn write_for_people(&self, to: &mut impl Write, descriptor: &FrameDescriptor, first: bool) -> io::Result<()> {
        let rate = f64::from(self.clock_rate.max(1));
        let time = |ticks: Option<i64>| ticks.map_or("-".to_owned(), |ticks| format!("{:.6}", ticks as f64 / rate));
        if first {
            writeln!(
                to,
                "{:<10} {:>9} {:>14} {:>14} {:>9}  crc32c    delay",
                "track", "seq", "pts s", "dts s", "bytes"
            )?;
        }
        let delay_us = self.commit_ns.saturating_sub(self.arrival_ns) / 1_000;
        write!(
            to,
            "{:<10} {:>9} {:>14} {:>14} {:>9}  {}  {delay_us} µs",
            printable(self.track),
            self.seq,
            time(self.pts),
            time(self.dts),
            self.len,
            self.crc32c,
        )?;
        if self.key {
            write!(to, "  key")?;
        }
        if let Some(random_access) = self.random_access {
            write!(to, "  {random_access}")?;
        }
        if let Some(cause) = self.discontinuity {
            write!(to, "  discontinuity: {cause}")?;
        }
        if self.damaged {
            write!(to, "  DAMAGED: {} packets lost, reasons {:#x}", self.lost, descriptor.damage_reasons)?;
        }
        if self.lapped > 0 {
            write!(to, "  lapped: {} frames lost before this one", self.lapped)?;
        }
        if let Some(hash) = &self.sha256 {
            write!(to, "  {hash}")?;
        }
        writeln!(to)
    }
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) const fn random_access_name(kind: RandomAccess) -> Option<&'static str> {
    match kind {
        RandomAccess::None => None,
        RandomAccess::Idr => Some("idr"),
        RandomAccess::Cra => Some("cra"),
        RandomAccess::Bla => Some("bla"),
        RandomAccess::RecoveryPoint => Some("recovery_point"),
        RandomAccess::Indicator => Some("random_access_indicator"),
        RandomAccess::Intra => Some("intra"),
        RandomAccess::Independent => Some("independent"),
    }
}

pub(super) const fn discontinuity_name(cause: Discontinuity) -> Option<&'static str> {
    match cause {
        Discontinuity::None => None,
        Discontinuity::Start => Some("start"),
        Discontinuity::Restart => Some("restart"),
        Discontinuity::SourceChange => Some("source_change"),
        Discontinuity::TimeBaseJump => Some("time_base_jump"),
        Discontinuity::Signalled => Some("signalled"),
        Discontinuity::Loss => Some("loss"),
        Discontinuity::Configuration => Some("configuration"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_a_track_is_split_off() {
        assert_eq!(split_target("cam1"), ("cam1", None));
        assert_eq!(split_target("cam1/video0"), ("cam1", Some("video0")));
        assert_eq!(split_target("studio/cam1"), ("studio/cam1", None));
        assert_eq!(split_target("studio/cam1/audio12"), ("studio/cam1", Some("audio12")));
        assert_eq!(split_target("studio/video"), ("studio/video", None));
        assert_eq!(split_target("/video0"), ("/video0", None));
    }

    #[test]
    fn a_time_is_given_in_seconds_with_or_without_fractions() {
        assert_eq!(seconds("1.5").unwrap(), Duration::from_millis(1_500));
        assert_eq!(seconds("0").unwrap(), Duration::ZERO);
        for text in ["", "1s", "-1", "inf", "-inf", "nan", "1e30"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_known_digest_of_nothing() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn codecs_are_named_without_padding() {
        assert_eq!(codec_name(u32::from_le_bytes(*b"aac ")), "aac");
        assert_eq!(codec_name(u32::from_le_bytes(*b"h264")), "h264");
    }
}
