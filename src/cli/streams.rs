//! `headworks streams`: what is in shared memory and in what state. Reads the rings; no server is needed.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::arguments::{Exit, RootArgument};
use super::table::{Table, printable};
use super::tap::codec_name;
use crate::output::reader::bell::BellReader;
use crate::output::reader::directory::{StreamEntry, list_streams, list_tracks};
use crate::output::reader::layout::State;
use crate::output::reader::reader::{DEAD_AFTER, Next, Reader, Start};
use crate::shard::clock::Clock;

const HELP: &str = "\
A line per track. The state is live, stalled (the source is silent), ended, superseded (another ring took its place), dead (the \
writer has died) or unreadable (the reason follows the table, and is error in JSON); last pts is in seconds; heartbeat is how long ago \
the writer was last alive.

Examples:
  headworks streams
  watch -n 1 headworks streams
  headworks streams --json | jq '.streams[] | {stream, state}'

Exit codes: 0 done (no streams at all included), 1 something could not be read, the rest is listed all the same, 2 usage";

/// Of a stream or a track that is there and cannot be read.
const UNREADABLE: &str = "unreadable";

/// List the streams in shared memory
///
/// Reads the rings themselves: works without the server, and after its end.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct StreamsArguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    root: RootArgument,
}

/// Why streams cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    /// The root cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The root.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer cannot be written.
    #[error("writing: {0}")]
    Write(#[from] io::Error),
}

#[derive(Debug, Serialize)]
struct Listing {
    root: PathBuf,
    streams: Vec<Stream>,
}

#[derive(Debug, Serialize)]
struct Stream {
    stream: String,
    state: &'static str,
    heartbeat_age_ms: Option<u64>,
    stream_seq: u64,
    epoch: u32,
    directory: PathBuf,
    /// Why the stream itself cannot be read.
    error: Option<String>,
    tracks: Vec<Track>,
}

#[derive(Debug, Serialize)]
struct Track {
    track: String,
    state: &'static str,
    /// Why its ring cannot be opened; nothing else is known of it then.
    error: Option<String>,
    #[serde(flatten)]
    facts: Option<Facts>,
}

#[derive(Debug, Serialize)]
struct Facts {
    codec: String,
    clock_rate: u32,
    frames: u64,
    bytes: u64,
    damaged: u64,
    discontinuities: u64,
    seq: u64,
    key_seq: Option<u64>,
    pts: Option<i64>,
    dts: Option<i64>,
    capacity: u64,
    slots: u32,
}

/// Prints the listing.
///
/// # Errors
/// [`StreamsError`]. A root that is not there is an empty one.
pub fn run(arguments: &StreamsArguments) -> Result<Exit, StreamsError> {
    let root = &arguments.root.root;
    let entries = match list_streams(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(StreamsError::Unreadable { path: root.clone(), source }),
    };
    let now_ns = Clock::now().as_nanos();
    let streams = entries.iter().map(|entry| look_at(entry, now_ns)).collect();
    let listing = Listing { root: root.clone(), streams };
    let exit = if listing.errors().next().is_none() { Exit::Done } else { Exit::Failed };
    let text = if arguments.json {
        serde_json::to_string(&listing).map_err(io::Error::from)? + "\n"
    } else {
        for_people(&listing)
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        other => Ok(other.map(|()| exit)?),
    }
}

/// What one stream looks like just now. What cannot be read is told as such, not left out.
fn look_at(entry: &StreamEntry, now_ns: u64) -> Stream {
    let (tracks, error) = match list_tracks(&entry.path) {
        Ok(tracks) => (tracks, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let mut stream = Stream {
        stream: entry.name.clone(),
        state: UNREADABLE,
        heartbeat_age_ms: None,
        stream_seq: 0,
        epoch: 0,
        directory: entry.path.clone(),
        error,
        tracks: tracks.into_iter().map(|name| look_at_track(entry, name)).collect(),
    };
    match BellReader::open(&entry.path) {
        Ok(bell) => {
            let age = heartbeat_age(bell.heartbeat_monotonic_ns(), now_ns);
            stream.state = match bell.state() {
                State::Live | State::Stalled if age.is_none_or(|age| age >= DEAD_AFTER) => "dead",
                state => state_name(state),
            };
            stream.heartbeat_age_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            stream.stream_seq = bell.stream_head();
            stream.epoch = bell.epoch();
        }
        Err(reason) => {
            stream.error.get_or_insert_with(|| reason.to_string());
        }
    }
    stream
}

fn look_at_track(entry: &StreamEntry, track: String) -> Track {
    let mut ring = match Reader::open(&entry.path.join(&track), Start::Live) {
        Ok(ring) => ring,
        Err(error) => return Track { track, state: UNREADABLE, error: Some(error.to_string()), facts: None },
    };
    let head = ring.head_seq();
    let mut last = None;
    if head > 0 {
        ring.seek(Start::Seq(head - 1));
        if let Ok(Next::Frame(frame)) = ring.next_borrowed(Duration::ZERO) {
            last = Some(*frame.descriptor());
        }
    }
    let totals = ring.totals();
    let header = ring.header();
    let facts = Facts {
        codec: codec_name(header.codec),
        clock_rate: header.clock_rate,
        frames: totals.frames,
        bytes: totals.bytes,
        damaged: totals.damaged,
        discontinuities: totals.discontinuities,
        seq: head,
        key_seq: ring.last_key_seq(),
        pts: last.and_then(|last| last.pts),
        dts: last.and_then(|last| last.dts),
        capacity: header.data_capacity,
        slots: header.slot_count,
    };
    Track { track, state: state_name(ring.state()), error: None, facts: Some(facts) }
}

/// `None` before the first heartbeat, and for one of the future: it is of another boot.
pub(super) fn heartbeat_age(heartbeat_ns: u64, now_ns: u64) -> Option<Duration> {
    now_ns.checked_sub(heartbeat_ns).filter(|_| heartbeat_ns > 0).map(Duration::from_nanos)
}

pub(super) const fn state_name(state: State) -> &'static str {
    match state {
        State::Live => "live",
        State::Stalled => "stalled",
        State::Ended => "ended",
        State::Superseded => "superseded",
    }
}

fn for_people(listing: &Listing) -> String {
    if listing.streams.is_empty() {
        return format!("no streams in {}\n", listing.root.display());
    }
    let mut table =
        Table::new(&["stream", "state", "track", "codec", ">frames", ">bytes", ">damaged", ">last pts", ">heartbeat"]);
    for stream in &listing.streams {
        let age = stream.heartbeat_age_ms.map_or("-".to_owned(), |age| format!("{age} ms"));
        if stream.tracks.is_empty() {
            let dashes = std::iter::repeat_n("-".to_owned(), 6);
            let head = [printable(&stream.stream), stream.state.to_owned()];
            table.row(head.into_iter().chain(dashes).chain([age.clone()]).collect());
        }
        for track in &stream.tracks {
            // A track can end while its stream goes on, and stay ended when the stream is silent.
            let is_own =
                stream.state == "live" || track.facts.is_none() || ["ended", "superseded"].contains(&track.state);
            let state = if is_own { track.state } else { stream.state };
            let head = [printable(&stream.stream), state.to_owned(), track.track.clone()];
            let cells = match &track.facts {
                Some(facts) => facts.cells(),
                None => std::array::from_fn(|_| "-".to_owned()),
            };
            table.row(head.into_iter().chain(cells).chain([age.clone()]).collect());
        }
    }
    let errors: String = listing.errors().map(|error| printable(&error) + "\n").collect();
    table.render() + &errors
}

impl Listing {
    /// What could not be read, and why.
    fn errors(&self) -> impl Iterator<Item = String> {
        self.streams.iter().flat_map(|stream| {
            let own = stream.error.as_ref().map(|error| format!("{}: {error}", stream.stream));
            let of_tracks = stream.tracks.iter().filter_map(|track| {
                track.error.as_ref().map(|error| format!("{}/{}: {error}", stream.stream, track.track))
            });
            own.into_iter().chain(of_tracks)
        })
    }
}

impl Facts {
    /// As they stand in the table.
    fn cells(&self) -> [String; 5] {
        let pts_s = self.pts.map(|pts| pts as f64 / f64::from(self.clock_rate.max(1)));
        [
            printable(&self.codec),
            self.frames.to_string(),
            self.bytes.to_string(),
            self.damaged.to_string(),
            pts_s.map_or("-".to_owned(), |pts| format!("{pts:.3} s")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_of_another_boot_has_no_age() {
        assert_eq!(heartbeat_age(5_000_000, 6_000_000), Some(Duration::from_millis(1)));
        assert_eq!(heartbeat_age(7_000_000, 6_000_000), None);
        assert_eq!(heartbeat_age(0, 6_000_000), None);
    }

    #[test]
    fn streams_without_tracks_are_listed_too() {
        let stream = Stream {
            stream: "cam1".into(),
            state: "live",
            heartbeat_age_ms: Some(12),
            stream_seq: 0,
            epoch: 1,
            directory: "/x".into(),
            error: None,
            tracks: Vec::new(),
        };
        let listing = Listing { root: "/x".into(), streams: vec![stream] };
        let text = for_people(&listing);
        assert!(text.ends_with("cam1    live   -      -           -      -        -         -      12 ms\n"), "{text}");
        assert_eq!(for_people(&Listing { root: "/x".into(), streams: Vec::new() }), "no streams in /x\n");
    }
}
