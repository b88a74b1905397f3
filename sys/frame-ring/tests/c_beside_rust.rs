//! `include/headworks.h` beside the Rust reader: the same stream, whatever happens to it, is the same lines from both.
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::c_compiler::READERS;
use common::other_process::{OtherProcess, fnv};
use common::{directory, payload, spec};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::{Discontinuity, FrameDescriptor, RandomAccess};
use headworks_frame_ring::layout::{LAST_KEY_SEQ, NONE, SLOT_OFFSET, SLOT_SIZE, State, TrackKind};
use headworks_frame_ring::reader::{ReadError, Start};
use headworks_frame_ring::stream_reader::{StreamEvent, StreamNext, StreamReader};
use headworks_frame_ring::writer::Writer;

const SLOTS: u32 = 16;

fn ring_spec(kind: TrackKind) -> RingSpec {
    RingSpec { kind, slot_count: SLOTS, ..spec() }
}

/// A stream to which things happen.
struct Source {
    directory: tempfile::TempDir,
    /// Always there, but for the moment of a restart.
    bell: Option<BellWriter>,
    tracks: Vec<(String, TrackKind, Writer)>,
    random: u64,
    frames: u64,
    /// Recovery points come in the place of keys.
    refreshes: bool,
}

impl Source {
    /// A bell alone.
    fn new(seed: u64) -> Self {
        let directory = directory();
        let bell = Some(BellWriter::create(directory.path()).unwrap());
        let random = seed.wrapping_mul(2) | 1;
        Self { directory, bell, tracks: Vec::new(), random, frames: 0, refreshes: false }
    }

    fn of_video(seed: u64) -> Self {
        let mut source = Self::new(seed);
        source.add_track("video0", TrackKind::Video);
        source
    }

    fn bell(&mut self) -> &mut BellWriter {
        self.bell.as_mut().unwrap()
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    fn add_track(&mut self, name: &str, kind: TrackKind) {
        let temporary = self.directory.path().join(".tmp-1");
        let writer = builder::create(&temporary, &ring_spec(kind)).unwrap();
        builder::publish(&temporary, &self.directory.path().join(name)).unwrap();
        self.tracks.retain(|(known, ..)| known != name);
        self.tracks.push((name.to_owned(), kind, writer));
        self.bell().tracks_changed();
    }

    fn any_track(&mut self) -> usize {
        self.draw(self.tracks.len() as u64) as usize
    }

    fn write_frame(&mut self, track: usize) {
        let large = self.draw(6) == 0;
        let size = self.draw(if large { 60_000 } else { 3_000 }) as usize;
        let key = self.draw(6) == 0;
        let damaged = self.draw(10) == 0;
        let side = self.draw(5) == 0;
        let reconfigured = self.draw(12) == 0;
        let jumps = self.draw(20) == 0;
        self.frames += 1;
        let writer = &mut self.tracks[track].2;
        if reconfigured {
            writer.set_configuration(&payload(self.frames, 40)).unwrap();
        }
        writer.append(&payload(self.frames, size)).unwrap();
        if side {
            writer.append_side_data(&payload(self.frames, 33)).unwrap();
        }
        let discontinuity = if jumps { Discontinuity::TimeBaseJump } else { Discontinuity::None };
        let frame = FrameDescriptor { damaged, discontinuity, ..access(key, self.refreshes) };
        writer.commit(&frame, self.bell.as_mut().unwrap());
    }

    /// A ring goes without a word, as that of a writer that was killed.
    fn clear(&mut self, track: usize) -> (String, TrackKind) {
        let (name, kind, writer) = self.tracks.remove(track);
        drop(writer);
        fs::remove_dir_all(self.directory.path().join(&name)).unwrap();
        (name, kind)
    }

    /// Frames of one byte on the first track.
    fn write(&mut self, frames: impl IntoIterator<Item = FrameDescriptor>) {
        for frame in frames {
            self.tracks[0].2.append(b"x").unwrap();
            self.tracks[0].2.commit(&frame, self.bell.as_mut().unwrap());
        }
    }

    /// The writer was killed before it told of its newest key: what it had told of stands there.
    fn untell_key(&self, track: usize, key: u64) {
        let ctl = self.directory.path().join(&self.tracks[track].0).join("ctl");
        let ctl = fs::OpenOptions::new().write(true).open(ctl).unwrap();
        ctl.write_all_at(&key.to_le_bytes(), LAST_KEY_SEQ as u64).unwrap();
    }

    /// The newest slot of a ring speaks of bytes that are not its own, or of another frame.
    fn break_newest_slot(&mut self, track: usize) {
        let (name, _, writer) = &self.tracks[track];
        let Some(seq) = writer.head_seq().checked_sub(1) else { return };
        let ctl = fs::OpenOptions::new().write(true).open(self.directory.path().join(name).join("ctl")).unwrap();
        let slot = SLOT_OFFSET as u64 + seq % u64::from(SLOTS) * SLOT_SIZE as u64;
        let (at, word) = [(16, u64::MAX), (48, seq + 1)][self.draw(2) as usize];
        ctl.write_all_at(&word.to_le_bytes(), slot + at).unwrap();
    }

    /// Headworks itself comes back.
    fn restart(&mut self) {
        let root = self.directory.path().to_owned();
        let tracks = std::mem::take(&mut self.tracks);
        for (name, kind, writer) in tracks {
            drop(writer);
            let writer = builder::attach(&root.join(&name), &ring_spec(kind)).unwrap();
            self.tracks.push((name, kind, writer));
        }
        drop(self.bell.take());
        let bell = self.bell.insert(BellWriter::attach(&root).unwrap());
        for (.., writer) in &self.tracks {
            bell.advance_to(writer.stream_seq_after());
        }
    }

    fn happen(&mut self) {
        let track = self.any_track();
        match self.draw(28) {
            0 => self.break_newest_slot(track),
            1 => self.bell().set_state(State::Stalled),
            2 => self.bell().set_state(State::Live),
            3 => self.restart(),
            4 => {
                self.tracks[track].2.set_state(State::Ended);
                self.bell().tracks_changed();
            }
            5 => {
                self.tracks[track].2.set_state(State::Live);
                self.bell().tracks_changed();
            }
            6 => {
                let (name, kind, _) = &self.tracks[track];
                let (name, kind) = (name.clone(), *kind);
                self.add_track(&name, kind);
            }
            7 if self.tracks.len() < 5 => {
                let (kind, text) = [(TrackKind::Data, "data"), (TrackKind::Video, "video")][self.draw(2) as usize];
                self.add_track(&format!("{text}{}", self.tracks.len()), kind);
            }
            8 => self.refreshes = !self.refreshes,
            9 => self.untell_key(track, NONE),
            10 if self.tracks.len() > 1 => {
                self.clear(track);
                self.bell().tracks_changed();
            }
            11 => {
                let (name, kind) = self.clear(track);
                self.add_track(&name, kind);
            }
            _ => {
                for _ in 0..=self.draw(8) {
                    let track = self.any_track();
                    self.write_frame(track);
                }
            }
        }
    }
}

/// A frame that decoding can start at, or another.
fn access(is_start: bool, by_recovery_point: bool) -> FrameDescriptor {
    match (is_start, by_recovery_point) {
        (false, _) => FrameDescriptor::default(),
        (true, false) => FrameDescriptor { key: true, random_access: RandomAccess::Idr, ..Default::default() },
        (true, true) => FrameDescriptor {
            random_access: RandomAccess::RecoveryPoint,
            recovery_count: 25,
            ..FrameDescriptor::default()
        },
    }
}

/// What the C program prints, from the Rust reader.
struct Printer {
    reader: StreamReader,
    /// Of each track, the configuration last seen.
    configurations: Vec<u32>,
    added: BTreeSet<usize>,
}

impl Printer {
    fn line(&mut self) -> String {
        let name = |reader: &StreamReader, track: usize| reader.track(track).unwrap().name().to_owned();
        let (event, passed) = match self.reader.next(Duration::ZERO) {
            StreamNext::Frame { track, frame } => {
                self.configurations.resize(self.configurations.len().max(track + 1), 0);
                let generation = frame.descriptor.config_generation;
                let changed = std::mem::replace(&mut self.configurations[track], generation) != generation;
                let text = format!(
                    "frame {} {} {:016x} {:016x} stream {} key {} discontinuity {} damaged {} changed {}",
                    frame.descriptor.seq,
                    frame.payload.len(),
                    fnv(frame.payload),
                    fnv(frame.side_data),
                    frame.stream_seq,
                    u8::from(frame.descriptor.key),
                    frame.descriptor.discontinuity as u16,
                    u8::from(frame.descriptor.damaged),
                    u8::from(changed),
                );
                return format!("{} {text}", name(&self.reader, track));
            }
            StreamNext::Event(event) => (event, "frames passed over on the way to a random access point"),
        };
        let reader = &self.reader;
        let position = |track: usize| reader.track(track).unwrap().ring().position();
        let (track, text) = match event {
            StreamEvent::Lapped { track, lost, resume_at } => {
                (track, format!("overtaken by the writer: {lost}, on to {resume_at}"))
            }
            StreamEvent::Skipped { track, count } => (track, format!("{passed}: {count}, on to {}", position(track))),
            StreamEvent::TrackAdded { track } => {
                let is_new = self.added.insert(track);
                let replaces = is_new && (0..track).any(|earlier| name(reader, earlier) == name(reader, track));
                let text = if replaces { "replaced by another, which has been opened" } else { "a new track" };
                (track, text.to_owned())
            }
            StreamEvent::TrackEnded { track } => (track, "a track has ended".to_owned()),
            StreamEvent::TrackFailed { track, error: ReadError::Head { .. } } => {
                (track, "the head of the ring went back".to_owned())
            }
            StreamEvent::TrackFailed { track, error } => {
                let what = match error {
                    ReadError::Bounds { .. } => "a frame outside its ring",
                    ReadError::Descriptor(_) => "a frame without a descriptor",
                    _ => "the checksum of a frame does not match",
                };
                (track, format!("{what}: 1, on to {}", position(track)))
            }
            StreamEvent::Timeout => return "stream nothing came in time".to_owned(),
            StreamEvent::Stalled => return "stream the source is silent".to_owned(),
            StreamEvent::Ended => return "stream ended".to_owned(),
            StreamEvent::WriterDead | StreamEvent::Superseded => panic!("{event:?}"),
        };
        format!("{} {text}", name(reader, track))
    }
}

/// What is said up to the next frame, or up to that there is none. A replaced ring is a new track to the Rust reader, so what both say
/// about several tracks at one moment may have another order; and a track that is new and replaced at once may just be new.
fn moment(mut line: impl FnMut() -> String) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = line();
        if line.split(' ').nth(1) == Some("frame") || line.starts_with("stream ") {
            let new = lines.clone();
            lines.retain(|line: &String| {
                line.split_once(" replaced").is_none_or(|(track, _)| !new.contains(&format!("{track} a new track")))
            });
            lines.sort_unstable();
            lines.push(line);
            return lines;
        }
        lines.push(line);
    }
}

/// Both readers of a stream.
struct Readers {
    rust: Printer,
    c: OtherProcess,
    said: Vec<String>,
}

impl Readers {
    fn open(source: &Source, program: &Path, (start, word): (Start, &str)) -> Self {
        let path = source.directory.path();
        let mut reader = StreamReader::open(path, start, None).unwrap();
        reader.verify_checksums(true);
        let words = ["stream".as_ref(), path.as_os_str(), word.as_ref(), "verify".as_ref(), "step".as_ref()];
        let mut c = OtherProcess::start(Command::new(program).args(words).arg("timeout=0"));
        assert_eq!(c.line(), "ready");
        let rust = Printer { reader, configurations: Vec::new(), added: BTreeSet::new() };
        Self { rust, c, said: Vec::new() }
    }

    /// A moment of each; they must be the same.
    fn step(&mut self, source: &mut Source) {
        // Nobody's clock may have a part in what is said.
        source.bell().heartbeat(1);
        let said = moment(|| self.rust.line());
        let beside = moment(|| {
            self.c.say("\n");
            self.c.line()
        });
        assert_eq!(said, beside, "after:\n{}", self.said.join("\n"));
        self.said.extend(said);
    }

    /// All that there is to be said now.
    fn drain(&mut self, source: &mut Source) -> Vec<String> {
        let before = self.said.len();
        while self.said[before..].last().is_none_or(|line| line != "stream nothing came in time") {
            self.step(source);
        }
        self.said[before..self.said.len() - 1].to_vec()
    }
}

fn read_beside(program: &Path, seed: u64, start: (Start, &str)) -> Vec<String> {
    let mut source = Source::new(seed);
    let early = source.draw(3) == 0;
    let before = if early { Some(Readers::open(&source, program, start)) } else { None };
    source.add_track("video0", TrackKind::Video);
    source.add_track("audio0", TrackKind::Audio);
    for _ in 0..source.draw(12) {
        source.happen();
    }
    let mut readers = before.unwrap_or_else(|| Readers::open(&source, program, start));
    for _ in 0..60 {
        source.happen();
        for _ in 0..=source.draw(9) {
            readers.step(&mut source);
        }
    }
    for (.., writer) in &mut source.tracks {
        writer.set_state(State::Ended);
    }
    source.bell().tracks_changed();
    source.bell().set_state(State::Ended);
    while readers.said.last().is_none_or(|line| line != "stream ended") {
        readers.step(&mut source);
    }
    readers.said
}

#[test]
fn whatever_happens_to_a_stream_both_readers_say_the_same() {
    let mut all = Vec::new();
    for seed in 0..20 {
        for start in [
            (Start::Key, "key"),
            (Start::Live, "live"),
            (Start::Oldest, "oldest"),
            (Start::OldestKey, "oldest-key"),
            (Start::Seq(5), "sequence=5"),
        ] {
            let program = &READERS[seed as usize % READERS.len()];
            all.extend(read_beside(program, seed * 5 + all.len() as u64, start));
        }
    }
    // All that can be said has been said.
    for words in [
        " frame ",
        "overtaken by the writer",
        "passed over",
        "a new track",
        "replaced by another",
        "a track has ended",
        "a frame outside its ring",
        "a frame without a descriptor",
        "the source is silent",
        "nothing came in time",
        " damaged 1 ",
        " discontinuity 2 ",
    ] {
        assert!(all.iter().any(|line| line.contains(words)), "{words}");
    }
    println!("{} lines", all.len());
}

const KEY: (Start, &str) = (Start::Key, "key");
const OLDEST_KEY: (Start, &str) = (Start::OldestKey, "oldest-key");
const LIVE: (Start, &str) = (Start::Live, "live");

/// What is said in short: the numbers of frames, and events without the words between.
fn brief(said: &[String]) -> Vec<String> {
    let short = |line: &String| match line.strip_prefix("video0 frame ") {
        Some(frame) => frame.split(' ').next().unwrap().to_owned(),
        None => line
            .replace("video0 frames passed over on the way to a random access point", "passed over")
            .replace("video0 overtaken by the writer", "lapped")
            .replace("video0 a new track", "added"),
    };
    said.iter().map(short).collect()
}

/// Who waits for a stream opens it when its bell alone is there.
#[test]
fn a_video_track_that_comes_later_begins_at_its_first_key_and_says_what_lies_before() {
    for program in READERS.iter() {
        for start in [KEY, OLDEST_KEY] {
            let mut source = Source::new(1);
            let mut readers = Readers::open(&source, program, start);
            assert_eq!(brief(&readers.drain(&mut source)), [""; 0]);
            source.add_track("video0", TrackKind::Video);
            source.write((0..8).map(|seq| access(seq == 3 || seq == 6, false)));
            let said = brief(&readers.drain(&mut source));
            assert_eq!(said, ["added", "passed over: 3, on to 3", "3", "4", "5", "6", "7"]);
            // What takes its place is read whole.
            source.add_track("video0", TrackKind::Video);
            source.write((0..2).map(|_| access(false, false)));
            let said = brief(&readers.drain(&mut source));
            assert_eq!(said, ["video0 replaced by another, which has been opened", "0", "1"]);

            // Nothing has been read of this one when another takes its place.
            let mut source = Source::new(1);
            let mut readers = Readers::open(&source, program, start);
            source.add_track("video0", TrackKind::Video);
            source.write((0..3).map(|_| access(false, false)));
            assert_eq!(brief(&readers.drain(&mut source)), ["added"]);
            source.add_track("video0", TrackKind::Video);
            source.write((0..4).map(|seq| access(seq == 2, false)));
            let said = brief(&readers.drain(&mut source));
            // Of the new ring and of the old one.
            let passed_over = ["passed over: 2, on to 2", "passed over: 3, on to 3"];
            let rest = ["video0 replaced by another, which has been opened", "2", "3"];
            let expected = [&passed_over[..], &rest].concat();
            assert_eq!(said, expected);
        }
        let mut source = Source::new(1);
        let mut readers = Readers::open(&source, program, LIVE);
        source.add_track("video0", TrackKind::Video);
        source.write((0..2).map(|_| access(false, false)));
        assert_eq!(brief(&readers.drain(&mut source)), ["added", "0", "1"]);
    }
}

/// The writer stores the head first and then which frame is the newest key. It may be killed, or looked at, between the two.
#[test]
fn no_reader_passes_over_a_key_that_its_writer_has_not_told_of() {
    for program in READERS.iter() {
        let mut source = Source::of_video(1);
        let mut waits = Readers::open(&source, program, KEY);
        let mut sleeps = Readers::open(&source, program, LIVE);
        assert_eq!(brief(&sleeps.drain(&mut source)), ["added"]);
        source.write((0..5).map(|_| access(false, false)));
        assert_eq!(brief(&waits.drain(&mut source)), ["added"]);
        source.write([access(false, false), access(true, false)]);
        source.untell_key(0, NONE);
        assert_eq!(brief(&waits.drain(&mut source)), ["passed over: 6, on to 6", "6"]);
        // Nor does who begins, or was overtaken.
        source.write((7..27).map(|seq| access(seq == 22, false)));
        source.untell_key(0, 6);
        let rest = ["22", "23", "24", "25", "26"];
        assert_eq!(brief(&sleeps.drain(&mut source)), [&["lapped: 22, on to 22"], &rest[..]].concat());
        let mut begins = Readers::open(&source, program, KEY);
        assert_eq!(brief(&begins.drain(&mut source)), [&["added"], &rest[..]].concat());
    }
}

#[test]
fn a_stream_with_gradual_refresh_is_begun_and_gone_on_with_at_recovery_points() {
    for program in READERS.iter() {
        let mut source = Source::of_video(1);
        let mut sleeps = Readers::open(&source, program, LIVE);
        assert_eq!(brief(&sleeps.drain(&mut source)), ["added"]);
        source.write([access(true, false)]);
        source.write((1..38).map(|seq| access(seq % 5 == 0, true)));
        for (start, first) in [(KEY, "35"), (OLDEST_KEY, "25")] {
            let said = brief(&Readers::open(&source, program, start).drain(&mut source));
            assert_eq!(said[..2], ["added", first]);
        }
        assert_eq!(brief(&sleeps.drain(&mut source)), ["lapped: 35, on to 35", "35", "36", "37"]);
    }
}

#[test]
fn a_key_is_preferred_to_recovery_points_as_long_as_the_ring_holds_one() {
    for program in READERS.iter() {
        let mut source = Source::of_video(1);
        let mut sleeps = Readers::open(&source, program, LIVE);
        assert_eq!(brief(&sleeps.drain(&mut source)), ["added"]);
        source.write((0..40).map(|seq| access(seq % 5 == 0 || seq == 26, seq != 26)));
        for start in [KEY, OLDEST_KEY] {
            let said = brief(&Readers::open(&source, program, start).drain(&mut source));
            assert_eq!(said[..2], ["added", "26"]);
        }
        // That key will soon be overwritten, so that the next is waited for; and when there is none any more, for less.
        assert_eq!(brief(&sleeps.drain(&mut source)), ["lapped: 40, on to 40"]);
        source.write([access(true, true)]);
        assert_eq!(brief(&sleeps.drain(&mut source)), [""; 0]);
        source.write([access(false, true), access(true, true), access(false, true)]);
        assert_eq!(brief(&sleeps.drain(&mut source)), ["passed over: 2, on to 42", "42", "43"]);
    }
}
