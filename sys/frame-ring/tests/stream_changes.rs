//! What becomes of a stream's tracks while a reader follows it: rings cleared away, replaced or left behind, and streams that return.
mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::broker::serve;
use common::{directory, payload, spec, write};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::broker::Broker;
use headworks_frame_ring::builder;
use headworks_frame_ring::layout::State;
use headworks_frame_ring::reader::{Borrowed, Start};
use headworks_frame_ring::stream_reader::{StreamEvent, StreamNext, StreamReader};
use headworks_frame_ring::writer::Writer;

const ZERO: Duration = Duration::ZERO;

/// The stream `cam1` with these tracks.
struct Source {
    root: tempfile::TempDir,
    bell: BellWriter,
    tracks: Vec<(String, Writer)>,
}

impl Source {
    fn new(names: &[&str]) -> Self {
        let root = directory();
        let (bell, tracks) = make(&root.path().join("cam1"), names);
        Self { root, bell, tracks }
    }

    fn path(&self) -> std::path::PathBuf {
        self.root.path().join("cam1")
    }

    fn write(&mut self, track: &str, text: &str) {
        let (_, writer) = self.tracks.iter_mut().find(|(name, _)| name == track).unwrap();
        write(writer, &mut self.bell, text.as_bytes(), true);
    }

    /// A ring goes without a word, as that of a writer that was killed.
    fn clear(&mut self, track: &str) {
        self.tracks.retain(|(name, _)| name != track);
        fs::remove_dir_all(self.path().join(track)).unwrap();
        self.bell.tracks_changed();
    }

    fn add(&mut self, track: &str) {
        self.tracks.push((track.to_owned(), builder::create(&self.path().join(track), &spec()).unwrap()));
        self.bell.tracks_changed();
    }

    /// Readers by the files, and through a broker.
    fn readers(&self) -> [StreamReader; 2] {
        let socket = serve(self.root.path());
        [
            StreamReader::open(&self.path(), Start::Oldest, None).unwrap(),
            StreamReader::open_through(Broker::new(&socket, "cam1"), Start::Oldest, None).unwrap(),
        ]
    }

    /// Another stream takes the place of this one.
    fn replace(&mut self, names: &[&str]) {
        let temporary = self.root.path().join(".tmp-1-1");
        let (bell, tracks) = make(&temporary, names);
        self.tracks.clear();
        builder::publish(&temporary, &self.path()).unwrap();
        (self.bell, self.tracks) = (bell, tracks);
    }

    /// The stream is cleared away, and comes again.
    fn make_anew(&mut self, names: &[&str]) {
        fs::remove_dir_all(self.path()).unwrap();
        (self.bell, self.tracks) = make(&self.path(), names);
    }

    fn end(&mut self) {
        self.tracks.iter_mut().for_each(|(_, writer)| writer.set_state(State::Ended));
        self.bell.set_state(State::Ended);
    }
}

fn make(stream: &Path, names: &[&str]) -> (BellWriter, Vec<(String, Writer)>) {
    fs::create_dir(stream).unwrap();
    let bell = BellWriter::create(stream).unwrap();
    let ring = |name: &&str| ((*name).to_owned(), builder::create(&stream.join(name), &spec()).unwrap());
    (bell, names.iter().map(ring).collect())
}

/// All that is said now.
fn drain(reader: &mut StreamReader) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        match reader.next(ZERO) {
            StreamNext::Frame { track, frame } => {
                seen.push(format!("{track}: {}", String::from_utf8_lossy(frame.payload)));
            }
            StreamNext::Event(StreamEvent::Timeout) => return seen,
            StreamNext::Event(event) => seen.push(format!("{event:?}")),
        }
    }
}

fn wait_for(reader: &mut StreamReader, event: StreamEvent) {
    let began = Instant::now();
    while reader.next(Duration::from_secs(20)) != StreamNext::Event(event) {
        assert!(began.elapsed() < Duration::from_secs(10), "no {event:?}");
    }
}

fn added(track: usize) -> String {
    format!("{:?}", StreamEvent::TrackAdded { track })
}

fn ended(track: usize) -> String {
    format!("{:?}", StreamEvent::TrackEnded { track })
}

/// Mappings of payloads that are gone from this directory.
fn held(source: &Source) -> usize {
    let gone = format!("{}/", source.path().display());
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(&gone) && line.contains("/data (deleted)")).count()
}

#[test]
fn a_ring_that_is_cleared_away_before_it_ended_is_read_to_its_end_and_its_name_looked_for() {
    let mut source = Source::new(&["audio0", "video0"]);
    let mut readers = source.readers();
    for reader in &mut readers {
        assert_eq!(drain(reader), [added(0), added(1)]);
    }
    source.write("audio0", "last");
    source.write("video0", "beside");
    source.clear("audio0");
    for reader in &mut readers {
        let mut said = drain(reader);
        said.sort();
        assert_eq!(said, ["0: last".to_owned(), "1: beside".to_owned(), ended(0)]);
    }
    assert_eq!(held(&source), 0);
    source.add("audio0");
    source.write("audio0", "new");
    for reader in &mut readers {
        assert_eq!(drain(reader), [added(2), "2: new".to_owned()]);
    }
}

#[test]
fn a_ring_that_is_cleared_away_and_made_anew_between_two_looks_is_opened() {
    let mut source = Source::new(&["audio0", "video0"]);
    let mut readers = source.readers();
    for reader in &mut readers {
        assert_eq!(drain(reader), [added(0), added(1)]);
    }
    source.write("audio0", "last");
    source.clear("audio0");
    source.add("audio0");
    source.write("audio0", "new");
    for reader in &mut readers {
        assert_eq!(drain(reader), ["0: last".to_owned(), added(2), "2: new".to_owned()]);
    }
    assert_eq!(held(&source), 0);
    // And one that was read to its end before.
    source.clear("audio0");
    source.add("audio0");
    source.write("audio0", "newer");
    for reader in &mut readers {
        assert_eq!(drain(reader), [added(3), "3: newer".to_owned()]);
    }
}

#[test]
fn a_track_that_another_stream_of_the_name_has_not_is_told_to_have_ended_once() {
    let mut source = Source::new(&["audio0", "audio1", "video0"]);
    let mut reader = StreamReader::open(&source.path(), Start::Oldest, None).unwrap();
    source.tracks[1].1.set_state(State::Ended);
    assert_eq!(drain(&mut reader), [added(0), added(1), added(2), ended(1)]);
    source.replace(&["video0"]);
    source.write("video0", "another");
    assert_eq!(drain(&mut reader), ["Superseded".to_owned(), added(3), ended(0), "3: another".to_owned()]);
    assert_eq!(held(&source), 0);
}

/// Its numbers are those of another stream.
#[test]
fn what_a_ring_that_was_left_behind_still_holds_is_not_read_beside_another_bell() {
    let mut source = Source::new(&["audio0", "video0"]);
    let mut reader = StreamReader::open(&source.path(), Start::Oldest, None).unwrap();
    source.tracks[0].1.set_state(State::Ended);
    assert_eq!(drain(&mut reader), [added(0), added(1), ended(0)]);
    source.tracks[0].1.set_state(State::Live);
    source.write("audio0", "not told of");
    source.make_anew(&["audio0", "video0"]);
    source.write("audio0", "another");
    wait_for(&mut reader, StreamEvent::Superseded);
    assert_eq!(drain(&mut reader), [added(2), added(3), "2: another".to_owned()]);
}

#[test]
fn frames_passed_over_on_a_track_that_is_left_behind_are_told() {
    let mut source = Source::new(&["video0", "video1"]);
    let mut reader = StreamReader::open(&source.path(), Start::Key, None).unwrap();
    write(&mut source.tracks[0].1, &mut source.bell, b"no key", false);
    assert_eq!(drain(&mut reader), [added(0), added(1)]);
    // Nobody is left to say that anything was replaced.
    source.make_anew(&["video1"]);
    wait_for(&mut reader, StreamEvent::Superseded);
    let skipped = "Skipped { track: 0, count: 1 }".to_owned();
    assert_eq!(drain(&mut reader), [added(2), skipped, ended(0)]);
}

/// Whoever asks on after the end finds the source when it returns: to its rings, or much later in others.
#[test]
fn an_end_is_said_once_and_a_source_that_returns_is_found() {
    let mut source = Source::new(&["video0"]);
    let mut reader = StreamReader::open(&source.path(), Start::Oldest, None).unwrap();
    source.write("video0", "first");
    source.end();
    assert_eq!(drain(&mut reader), [added(0), "0: first".to_owned(), ended(0), "Ended".to_owned()]);
    let began = Instant::now();
    assert_eq!(reader.next(Duration::from_millis(300)), StreamNext::Event(StreamEvent::Timeout));
    assert!(began.elapsed() >= Duration::from_millis(300), "it does not wait");

    source.bell.set_state(State::Live);
    source.tracks[0].1.set_state(State::Live);
    source.bell.tracks_changed();
    source.write("video0", "second");
    source.end();
    assert_eq!(drain(&mut reader), [added(0), "0: second".to_owned(), ended(0), "Ended".to_owned()]);

    source.make_anew(&["video0"]);
    source.write("video0", "third");
    wait_for(&mut reader, StreamEvent::Superseded);
    assert_eq!(drain(&mut reader), [added(1), "1: third".to_owned()]);
}

fn event(next: StreamNext<Borrowed<'_>>) -> StreamEvent {
    match next {
        StreamNext::Event(event) => event,
        StreamNext::Frame { .. } => panic!("a frame"),
    }
}

#[test]
fn frames_of_a_stream_are_borrowed_in_their_order_and_say_when_they_have_been_overtaken() {
    let mut source = Source::new(&["audio0", "video0"]);
    let mut reader = StreamReader::open(&source.path(), Start::Oldest, None).unwrap();
    assert_eq!(event(reader.next_borrowed(ZERO)), StreamEvent::TrackAdded { track: 0 });
    assert_eq!(event(reader.next_borrowed(ZERO)), StreamEvent::TrackAdded { track: 1 });
    for (n, track) in [1, 0, 0, 1].into_iter().enumerate() {
        write(&mut source.tracks[track].1, &mut source.bell, &payload(n as u64, 5_000), true);
    }
    for (n, expected) in [1, 0, 0].into_iter().enumerate() {
        let StreamNext::Frame { track, frame } = reader.next_borrowed(ZERO) else { panic!("no frame") };
        let mut part = [0; 10];
        frame.copy_payload(100, &mut part);
        assert_eq!((track, frame.stream_seq()), (expected, n as u64));
        assert_eq!((frame.to_vec(), &part[..]), (payload(n as u64, 5_000), &payload(n as u64, 5_000)[100..110]));
        assert!(frame.is_intact());
    }
    let StreamNext::Frame { track: 1, frame } = reader.next_borrowed(ZERO) else { panic!("no frame") };
    for n in 0..5 {
        write(&mut source.tracks[1].1, &mut source.bell, &payload(n, 60_000), true);
    }
    assert!(!frame.is_intact());
    assert_eq!(event(reader.next_borrowed(ZERO)), StreamEvent::Lapped { track: 1, lost: 4, resume_at: 6 });
}

/// Nobody has said that it ended, and another writer may make it anew.
#[test]
fn tracks_of_a_stream_that_is_gone_with_its_dead_writer_go_on_in_the_one_that_takes_its_name() {
    let mut source = Source::new(&["audio0", "video0"]);
    let mut readers = source.readers();
    source.write("video0", "before");
    source.tracks.clear();
    fs::remove_dir_all(source.path()).unwrap();
    for reader in &mut readers {
        assert_eq!(drain(reader), [added(0), added(1), "1: before".to_owned()]);
        wait_for(reader, StreamEvent::WriterDead);
        // Once a second tracks are looked for.
        assert_eq!(reader.next(Duration::from_millis(1_200)), StreamNext::Event(StreamEvent::Timeout));
    }
    (source.bell, source.tracks) = make(&source.path(), &["video0"]);
    source.write("video0", "after");
    for reader in &mut readers {
        wait_for(reader, StreamEvent::Superseded);
        assert_eq!(drain(reader), [added(2), ended(0), "2: after".to_owned()]);
    }
}
