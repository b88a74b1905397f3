//! `headworks ring`: the rings of a stream as they lie in shared memory. Needs no server, and no right but to read.

mod dump;
mod info;
mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::arguments::{Exit, RootArgument};
use super::tap::split_target;
use crate::output::reader::directory::{encode_name, list_tracks};
use crate::output::reader::reader::{OpenError, Reader, Start};

const HELP: &str = "\
Examples:
  headworks ring info cam1                       every ring of cam1: shape, pages, heartbeat, what a reader finds
  headworks ring verify cam1                     check every slot and every payload still there
  headworks ring dump cam1/video0                a line per frame still there
  headworks ring dump cam1/video0 --seq 1200 --payload frame.h264

A ring that cannot be opened is named with its reason (error), and the others are shown all the same.

Exit codes: 0 done, 1 error, or a ring that contradicts itself or cannot be opened; 2 usage";

const INFO_HELP: &str = "\
What is shown of each ring:
  header      layout version, codec, clock, shape, node and page size: fixed for the ring's life
  pages       how much of the payload is mapped by huge pages in this process
  writer      state, epoch (+ 1 with every writer that took the ring up), age of its heartbeat (dead after 1 s)
  hot         reserve (bytes below it may be being written), head, last key, futex, totals
  reader      frames still there, their media time, oldest and newest sequence number, the last key
  config      configuration blocks still kept: generation, bytes, CRC32C
  error       of a ring that cannot be opened: why, and nothing else

Examples:
  headworks ring info cam1/video0
  headworks ring info cam1 --json | jq '.rings[] | {track, frames: .reader.frames, seconds: .reader.seconds}'";

const VERIFY_HELP: &str = "\
Checked of each frame still there:
  slot        its lock is its sequence number + 1; it holds a descriptor, of that frame
  bytes       extent, length and position lie in the ring; frames do not overlap
  payload     matches its CRC32C, where it has one (output.crc)
  order       stream_seq rises; dts does not go back within a segment without a discontinuity
  flags       those of the slot are those of the descriptor; key_seq is a key, while that is there
  config      its generation exists, does not go back, and its block is whole while it is kept
What the writer overtakes meanwhile is counted, and no fault.

Examples:
  headworks ring verify cam1
  headworks ring verify cam1/video0 --json | jq '.rings[].faults'

Exit codes: 0 all is well, 1 a slot contradicts the ring (each is named) or an error, 2 usage";

const DUMP_HELP: &str = "\
A line per frame, oldest first: sequence number, stream_seq, position in the ring, bytes, pts and dts in ticks, segment, \
configuration, checksum, flags (K key, D damaged, X discontinuity).
--json: an object per frame with every field of its descriptor.
A slot that contradicts the ring, and with --payload a payload that does not match its checksum, is named on standard error and left out.

Examples:
  headworks ring dump cam1/video0
  headworks ring dump cam1/video0 --seq 1200 --json
  headworks ring dump cam1/audio0 --payload - | xxd | head

Exit codes: 0 done, 1 a frame was left out as wrong, the one asked for is not there, or an error; 2 usage";

/// Look into the rings of a stream: shape, state, every slot
///
/// Reads shared memory itself: works without the server, after its end, and for whoever may read the rings.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct RingArguments {
    #[command(subcommand)]
    command: RingCommand,
}

#[derive(Subcommand, Debug)]
enum RingCommand {
    /// Show header, hot words, pages, configuration, and what a reader finds
    #[command(after_help = INFO_HELP)]
    Info(Target),
    /// Check every slot still in the ring
    #[command(after_help = VERIFY_HELP)]
    Verify(Target),
    /// Print the descriptors of the frames still in the ring
    #[command(after_help = DUMP_HELP)]
    Dump(DumpArguments),
}

/// Which rings, and how to tell of them.
#[derive(Args, Debug)]
struct Target {
    /// The stream, and the track if only one is wanted (cam1/video0)
    #[arg(value_name = "STREAM[/TRACK]")]
    target: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    root: RootArgument,
}

#[derive(Args, Debug)]
struct DumpArguments {
    #[command(flatten)]
    target: Target,
    /// Only the frame with this sequence number; names one track
    #[arg(long, value_name = "N")]
    seq: Option<u64>,
    /// Write the payloads to a file, or to standard output instead of the lines; names one track. No payload, no file
    #[arg(long, value_name = "FILE|-")]
    payload: Option<PathBuf>,
}

/// Why a ring cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Options that do not go together.
    #[error("{0}")]
    Usage(&'static str),
    /// There is no such stream.
    #[error("there is no stream {stream} in {root}: {source}")]
    NoStream {
        /// The stream.
        stream: String,
        /// Where rings are.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such track.
    #[error("{stream} has no track {track} (it has: {tracks})")]
    NoTrack {
        /// The stream.
        stream: String,
        /// The track.
        track: String,
        /// Those it has.
        tracks: String,
    },
    /// The frame asked for is not in the ring.
    #[error("{track} holds the frames {oldest} to {newest}, not {seq}")]
    NoFrame {
        /// Stream and track.
        track: String,
        /// The oldest readable.
        oldest: u64,
        /// The newest.
        newest: u64,
        /// The one asked for.
        seq: u64,
    },
    /// The frame asked for was still in the ring when it was looked for.
    #[error("{track}: the writer has just overtaken frame {seq}")]
    Overtaken {
        /// Stream and track.
        track: String,
        /// The one asked for.
        seq: u64,
    },
    /// The file of `--payload` cannot be made.
    #[error("{path}: {source}")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer cannot be written.
    #[error("writing: {0}")]
    Write(#[from] io::Error),
}

/// The rings a command is about.
struct Rings {
    stream: String,
    directory: PathBuf,
    /// By the names of their tracks. One that cannot be opened is no reason to say nothing of the others.
    rings: Vec<(String, Result<Reader, OpenError>)>,
}

/// Does one of the three.
///
/// # Errors
/// [`RingError`].
pub fn run(arguments: &RingArguments) -> Result<Exit, RingError> {
    let done = match &arguments.command {
        RingCommand::Info(target) => info::run(target),
        RingCommand::Verify(target) => verify::run(target),
        RingCommand::Dump(arguments) => dump::run(arguments),
    };
    match done {
        // Whoever read our output has seen enough.
        Err(RingError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        other => other,
    }
}

impl Target {
    fn open(&self) -> Result<Rings, RingError> {
        let (stream, only) = split_target(&self.target);
        let directory = self.root.root.join(encode_name(stream));
        let tracks = list_tracks(&directory).map_err(|source| RingError::NoStream {
            stream: stream.to_owned(),
            root: self.root.root.clone(),
            source,
        })?;
        if let Some(track) = only.filter(|track| !tracks.iter().any(|name| name == track)) {
            return Err(RingError::NoTrack {
                stream: stream.to_owned(),
                track: track.to_owned(),
                tracks: tracks.join(", "),
            });
        }
        let rings = tracks.into_iter().filter(|name| only.is_none_or(|only| only == name)).map(|name| {
            let ring = Reader::open(&directory.join(&name), Start::Live);
            (name, ring)
        });
        let rings = rings.collect();
        Ok(Rings { stream: stream.to_owned(), directory, rings })
    }

    /// One JSON object, or the text for people.
    fn print(&self, json: &impl serde::Serialize, text: impl FnOnce() -> String) -> Result<(), RingError> {
        let text = if self.json { serde_json::to_string(json).map_err(io::Error::from)? + "\n" } else { text() };
        Ok(io::stdout().write_all(text.as_bytes())?)
    }
}

/// `-` is standard output.
fn is_standard_output(path: Option<&Path>) -> bool {
    path == Some(Path::new("-"))
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
