//! The writer dies at each of its steps and is started again on the same rings, while readers in other processes go on: no frame is
//! torn, stale, repeated or skipped beyond the one being written.
//!
//! No reader sees a frame later than 200 ms after its commit. `CRASH_ROUNDS` says how often the writer is killed (100), `CRASH_SEED`
//! where (1). Needs the feature `crash-injection`.
mod common;

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{directory, payload, spec};
use headworks_frame_ring::bell::{BellReader, BellWriter, TimelineAnchor};
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::crash::{Step, arm};
use headworks_frame_ring::descriptor::{Discontinuity, FrameDescriptor};
use headworks_frame_ring::layout::{State, TrackKind};
use headworks_frame_ring::reader::{ConfigurationError, Frame, Next, Reader, Start};
use headworks_frame_ring::stream_reader::{StreamEvent, StreamNext, StreamReader};
use headworks_frame_ring::writer::Writer;

const ROLE: &str = "CRASH_ROLE";
const STREAM: &str = "CRASH_STREAM";
const PLAN: &str = "CRASH_PLAN";
const ROUNDS: &str = "CRASH_ROUNDS";
/// From a commit to its reader: two of the longest waits.
const LATE_MAX: Duration = Duration::from_millis(200);
/// Frames of one writer, at most; most die before.
const FRAMES_MAX: u64 = 48;
/// How far a reader may be behind when the next writer starts: so far that no ring is lapped.
const BEHIND_MAX: u64 = 64;
/// Frames of one configuration.
const CONFIGURED: u64 = 7;
/// Frames from one key to the next.
const KEY_EVERY: u64 = 5;

fn video() -> RingSpec {
    RingSpec { slot_count: 128, data_capacity: 1 << 20, frame_size_max: 8 << 10, ..spec() }
}

fn audio() -> RingSpec {
    RingSpec { kind: TrackKind::Audio, codec: *b"mp4a", clock_rate: 48_000, ..video() }
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn configuration(number: u64) -> Vec<u8> {
    payload(number, 100 + number as usize % 4000)
}

/// Sequence number, writer, and bytes that differ with both: a frame of a dead writer cannot pass for that of the next.
fn content(seq: u64, epoch: u32) -> Vec<u8> {
    let mix = seq << 20 ^ u64::from(epoch);
    let mut bytes = [seq.to_le_bytes(), u64::from(epoch).to_le_bytes()].concat();
    bytes.extend(payload(mix, (mix.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize % 6000));
    bytes
}

fn epoch_of(frame: &Frame<'_>) -> u32 {
    let seq = frame.descriptor.seq;
    let epoch = u64::from_le_bytes(frame.payload[8..16].try_into().unwrap()) as u32;
    assert!(frame.payload == content(seq, epoch), "frame {seq} of writer {epoch} is torn");
    epoch
}

fn write(writer: &mut Writer, bell: &mut BellWriter) {
    let seq = writer.head_seq();
    for piece in content(seq, writer.epoch()).chunks(1316) {
        writer.append(piece).unwrap();
    }
    let frame = FrameDescriptor { key: seq.is_multiple_of(KEY_EVERY), commit_ns: now_ns(), ..Default::default() };
    writer.commit(&frame, bell);
    writer.wake_target().wake();
    bell.wake_target().wake();
}

fn take_up(stream: &Path, track: &str, spec: &RingSpec) -> Writer {
    builder::attach(&stream.join(track), spec).unwrap()
}

/// `step passes seed frames`; step 0: lives until it is killed from outside, or has written its frames.
fn writing(stream: &Path, plan: &str) {
    let plan: Vec<u64> = plan.split(' ').map(|n| n.parse().unwrap()).collect();
    let &[step, passes, mut seed, frames] = &plan[..] else { panic!("no plan") };
    if step > 0 {
        arm(Step::ALL[step as usize - 1], passes as u32);
    }
    let mut bell = BellWriter::attach(stream).unwrap();
    let mut writers = [take_up(stream, "video0", &video()), take_up(stream, "audio0", &audio())];
    for writer in &writers {
        bell.advance_to(writer.stream_seq_after());
    }
    for n in 0..frames {
        let writer = &mut writers[random(&mut seed) as usize % 2];
        configure(writer);
        if n % 4 == 0 {
            let anchor =
                TimelineAnchor { programme: 1, pts: n as i64, monotonic_ns: n, clock_rate: 1, ..Default::default() };
            assert!(bell.set_anchor(anchor));
        }
        if random(&mut seed).is_multiple_of(9) {
            writer.append(&[0xEE; 3000]).unwrap();
            writer.abandon();
        }
        write(writer, &mut bell);
    }
    if step == 0 {
        std::thread::sleep(Duration::from_secs(20));
    }
    // The step was not come by so often: a plain restart.
}

/// The configuration that the next frame belongs to.
fn configure(writer: &mut Writer) {
    let number = writer.head_seq() / CONFIGURED;
    let generation = writer.set_configuration(&configuration(number)).unwrap();
    assert_eq!(u64::from(generation), number + 1, "a configuration was made twice or forgotten");
}

fn ending(stream: &Path) {
    let mut bell = BellWriter::attach(stream).unwrap();
    let mut writers = [take_up(stream, "video0", &video()), take_up(stream, "audio0", &audio())];
    for writer in &mut writers {
        bell.advance_to(writer.stream_seq_after());
        configure(writer);
        write(writer, &mut bell);
        writer.set_state(State::Ended);
        writer.wake_target().wake();
    }
    bell.set_state(State::Ended);
    bell.wake_target().wake();
}

/// What must be true of the frames of one ring, one after the other.
#[derive(Default)]
struct Track {
    next: u64,
    epoch: u32,
    /// The longest time from a commit to its reader.
    late: Duration,
    restarts: u64,
}

impl Track {
    fn frame(&mut self, frame: &Frame<'_>) {
        let d = &frame.descriptor;
        assert_eq!(d.seq, self.next, "a frame was repeated or skipped");
        let epoch = epoch_of(frame);
        assert!(epoch >= self.epoch, "a stale frame");
        let expected = match (d.seq, epoch > self.epoch) {
            (0, _) => d.discontinuity,
            (_, true) => Discontinuity::Restart,
            (_, false) => Discontinuity::None,
        };
        assert_eq!(d.discontinuity, expected, "frame {} of writer {epoch} after {}", d.seq, self.epoch);
        assert_eq!(u64::from(d.config_generation), if d.config_generation == 0 { 0 } else { d.seq / CONFIGURED + 1 });
        self.restarts += u64::from(epoch > self.epoch);
        self.late = self.late.max(Duration::from_nanos(now_ns().saturating_sub(d.commit_ns)));
        (self.next, self.epoch) = (d.seq + 1, epoch);
    }
}

fn check_configuration(ring: &Reader, generation: u32) {
    match ring.configuration(generation) {
        Ok(bytes) => assert!(bytes == configuration(u64::from(generation) - 1), "a torn configuration"),
        Err(error) => assert!(error == ConfigurationError::Gone || generation == 0, "{error}"),
    }
}

/// Where a reader stands, for the process that starts writers.
struct Place(std::fs::File);

impl Place {
    fn new(stream: &Path, role: &str) -> Self {
        Self(std::fs::File::create(place(stream, role)).unwrap())
    }

    fn at(&self, frames: u64) {
        self.0.write_all_at(&frames.to_le_bytes(), 0).unwrap();
    }
}

fn place(stream: &Path, role: &str) -> PathBuf {
    stream.join(format!(".place-{role}"))
}

fn check_latest(late: Duration) {
    assert!(late <= LATE_MAX, "a reader was blocked for {late:?}");
}

fn reading_a_ring(stream: &Path, place: &Place) -> String {
    let mut reader = Reader::open(&stream.join("video0"), Start::Seq(0)).unwrap();
    reader.verify_checksums(true);
    let mut track = Track::default();
    loop {
        let generation = match reader.next(Duration::from_secs(5)).unwrap() {
            Next::Frame(frame) => {
                track.frame(&frame);
                frame.descriptor.config_generation
            }
            Next::Timeout | Next::WriterDead => continue,
            Next::Ended => break,
            other => panic!("{other:?}"),
        };
        check_configuration(&reader, generation);
        place.at(track.next);
    }
    assert_eq!(reader.head_seq(), track.next);
    check_latest(track.late);
    format!("{} frames, {} writers, latest {:?}", track.next, track.restarts, track.late)
}

fn reading_the_stream(stream: &Path, place: &Place) -> String {
    let mut reader = StreamReader::open(stream, Start::Oldest, None).unwrap();
    reader.verify_checksums(true);
    let (mut tracks, mut next, mut ended) = ([Track::default(), Track::default()], 0, 0);
    loop {
        let (index, generation) = match reader.next(Duration::from_secs(5)) {
            StreamNext::Frame { track, frame } => {
                assert_eq!(frame.stream_seq, next, "the stream's order");
                next += 1;
                tracks[track].frame(&frame);
                (track, frame.descriptor.config_generation)
            }
            StreamNext::Event(StreamEvent::TrackEnded { .. }) => {
                ended += 1;
                continue;
            }
            StreamNext::Event(StreamEvent::Timeout | StreamEvent::WriterDead | StreamEvent::TrackAdded { .. }) => {
                continue;
            }
            StreamNext::Event(StreamEvent::Ended) => break,
            other => panic!("{other:?}"),
        };
        check_configuration(reader.track(index).unwrap().ring(), generation);
        place.at(next);
    }
    assert_eq!((reader.bell().stream_head(), ended), (next, 2));
    let late = tracks[0].late.max(tracks[1].late);
    check_latest(late);
    format!("{next} frames of two tracks, {} writers, latest {late:?}", tracks[0].restarts.max(tracks[1].restarts))
}

/// Reads all that the ring holds again and again: a slot or byte of a dead writer would be seen here first.
fn reading_again(stream: &Path, place: &Place) -> String {
    let mut reader = Reader::open(&stream.join("audio0"), Start::Oldest).unwrap();
    reader.verify_checksums(true);
    let (mut writers, mut read, mut lapped) = (HashMap::new(), 0u64, 0u64);
    place.at(u64::MAX);
    loop {
        match reader.next(Duration::from_millis(1)).unwrap() {
            Next::Frame(frame) => {
                let epoch = epoch_of(&frame);
                assert_eq!(*writers.entry(frame.descriptor.seq).or_insert(epoch), epoch, "a frame has changed");
                read += 1;
            }
            Next::Timeout | Next::WriterDead => reader.seek(Start::Oldest),
            Next::Lapped { .. } | Next::Skipped { .. } => lapped += 1,
            Next::Ended => break,
            other => panic!("{other:?}"),
        }
    }
    format!("{read} frames again and again, lapped {lapped} times")
}

/// Begins at the newest key again and again, also while no writer lives who could tell which it is.
fn reading_from_keys(stream: &Path, place: &Place) -> String {
    let mut reader = Reader::open(&stream.join("video0"), Start::Live).unwrap();
    let (mut begun, mut read) = (0u64, 0u64);
    place.at(u64::MAX);
    while reader.state() != State::Ended {
        begin_at_newest_key(&mut reader);
        begun += 1;
        match reader.next(Duration::ZERO).unwrap() {
            Next::Frame(frame) => {
                epoch_of(&frame);
                assert!(frame.descriptor.key, "begun at frame {}", frame.descriptor.seq);
                read += 1;
            }
            Next::Timeout | Next::WriterDead | Next::Ended | Next::Lapped { .. } | Next::Skipped { .. } => {}
            other => panic!("{other:?}"),
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    assert!(read > 0);
    format!("begun {begun} times at a key")
}

fn begin_at_newest_key(reader: &mut Reader) {
    let head = reader.head_seq();
    reader.seek(Start::Key);
    if let Some(newest) = head.checked_sub(1) {
        let key = newest / KEY_EVERY * KEY_EVERY;
        assert!(reader.position() >= key, "begun at {}, before key {key}", reader.position());
    }
}

/// What the other processes run. Does nothing when run as a test of its own.
#[test]
fn a_process_of_the_crash_test() {
    let (Ok(role), Some(stream)) = (std::env::var(ROLE), std::env::var_os(STREAM)) else {
        return;
    };
    let stream = Path::new(&stream);
    if role == "writer" {
        return writing(stream, &std::env::var(PLAN).unwrap());
    }
    if role == "ending" {
        return ending(stream);
    }
    let place = Place::new(stream, &role);
    let outcome = match role.as_str() {
        "ring" => reading_a_ring(stream, &place),
        "stream" => reading_the_stream(stream, &place),
        "again" => reading_again(stream, &place),
        "keys" => reading_from_keys(stream, &place),
        _ => panic!("no role {role}"),
    };
    println!("\n{role}: {outcome}");
}

fn start(stream: &Path, role: &str, plan: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_of_the_crash_test", "--nocapture", "--test-threads=1"])
        .envs([(ROLE, role), (PLAN, plan)])
        .env(STREAM, stream)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Children that do not outlive a failed test.
struct Children(Vec<(&'static str, Child)>);

impl Drop for Children {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_writer_that_dies_at_any_step_costs_no_reader_a_frame() {
    if std::env::var_os(ROLE).is_some() {
        return;
    }
    let (rounds, mut seed) = (number(ROUNDS, 100), number("CRASH_SEED", 1) | 1 << 40);
    let dir = directory();
    let stream = dir.path();
    drop(BellWriter::create(stream).unwrap());
    drop(builder::create(&stream.join("video0"), &video()).unwrap());
    drop(builder::create(&stream.join("audio0"), &audio()).unwrap());
    let mut rings = ["video0", "audio0"].map(|track| Reader::open(&stream.join(track), Start::Live).unwrap());
    let bell = BellReader::open(stream).unwrap();
    let mut readers = Children(["ring", "stream", "again", "keys"].map(|role| (role, start(stream, role, ""))).into());

    let (mut died, mut outside) = ([0u64; Step::ALL.len()], 0u64);
    for round in 0..rounds {
        // Every step in turn, and in every turn a kill from outside at any moment.
        let step = round % (Step::ALL.len() as u64 + 1);
        // How often a writer comes by the step in its life, about.
        let often = match step {
            1 => 4,
            13..=16 => 5,
            19.. => 2,
            _ => 20,
        };
        let passes = 1 + random(&mut seed) % often;
        let plan = format!("{step} {passes} {} {FRAMES_MAX}", random(&mut seed) | 1);
        let mut writer = start(stream, "writer", &plan);
        if step == 0 {
            std::thread::sleep(Duration::from_micros(random(&mut seed) % 20_000));
            let _ = writer.kill();
        }
        let status = writer.wait().unwrap();
        match status.signal() {
            Some(9) if step == 0 => outside += 1,
            Some(9) => died[step as usize - 1] += 1,
            _ => assert!(status.success() && step > 0, "round {round}, {plan}: {status}"),
        }
        rings.iter_mut().for_each(begin_at_newest_key);
        // Readers go on while the next writer starts, but are never so far behind that it laps them.
        let since = Instant::now();
        for (role, child) in &mut readers.0 {
            let head = if *role == "stream" { bell.stream_head() } else { rings[0].head_seq() };
            loop {
                let mut bytes = [0; 8];
                let at = std::fs::read(place(stream, role)).unwrap_or_default();
                bytes[..at.len()].copy_from_slice(&at);
                if u64::from_le_bytes(bytes).saturating_add(BEHIND_MAX) >= head {
                    break;
                }
                assert!(child.try_wait().unwrap().is_none(), "{role} is gone in round {round}, {plan}");
                assert!(since.elapsed() < Duration::from_secs(30), "{role} is stuck in round {round}, {plan}");
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
    assert!(start(stream, "ending", "").wait().unwrap().success());
    for (role, child) in std::mem::take(&mut readers.0) {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{role}: {text}");
        println!("{}", text.lines().find(|line| line.starts_with(role)).unwrap());
    }
    let steps: Vec<String> = Step::ALL.iter().zip(died).map(|(step, n)| format!("{step:?} {n}")).collect();
    println!("{rounds} rounds; killed from outside {outside}; died after {}", steps.join(", "));
    let missed = Step::ALL.iter().zip(died).filter(|(_, n)| *n == 0).map(|(step, _)| step);
    assert!(rounds < 100 || missed.count() == 0, "a step was never died at");
}
