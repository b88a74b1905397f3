//! A writer that waits for nobody and eight readers, in processes of their own, on rings so small that readers are overtaken all the
//! time: no torn frame is accepted, and what is lost is counted exactly.
//!
//! `TORTURE_FRAMES` says how many frames are to be read in all (500,000), `TORTURE_SECONDS` how long at most (10; readers in C 3).
//! Readers that have read a ring to its end go back and read it again: more reads meet a writer so than frames are written.
mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::c_compiler::{SANITIZERS, WARNINGS, compile, is_there, source};
use common::{directory, spec};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::layout::State;
use headworks_frame_ring::reader::{Frame, Next, Reader, Start};
use headworks_frame_ring::writer::Writer;

const ROLE: &str = "TORTURE_ROLE";
const STREAM: &str = "TORTURE_STREAM";
/// Frames of 0 to 64 bytes; up to 4 KiB; up to the largest.
const RINGS: [&str; 3] = ["small", "middle", "large"];
/// The ring that each of the readers reads.
const READERS: [usize; 8] = [0, 0, 0, 0, 0, 1, 1, 2];

fn ring_spec(ring: usize) -> RingSpec {
    let frame_size_max = [64, 4 << 10, 16 << 10][ring];
    RingSpec { slot_count: [64, 32, 16][ring], data_capacity: 64 << 10, frame_size_max, ..spec() }
}

fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (n ^ n >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// A frame's length follows from its number, and so does every word of it.
fn length(ring: usize, seq: u64) -> usize {
    (mix(seq) >> 20) as usize % (ring_spec(ring).frame_size_max as usize + 1)
}

fn word(seq: u64, index: usize) -> [u8; 8] {
    (seq ^ (index as u64) << 48).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

fn fill(bytes: &mut [u8], seq: u64) {
    for (index, part) in bytes.chunks_mut(8).enumerate() {
        part.copy_from_slice(&word(seq, index)[..part.len()]);
    }
}

fn check(ring: usize, frame: &Frame<'_>) {
    let seq = frame.descriptor.seq;
    assert_eq!(frame.payload.len(), length(ring, seq), "frame {seq} of {}", RINGS[ring]);
    let whole = frame.payload.chunks(8).enumerate().all(|(index, part)| *part == word(seq, index)[..part.len()]);
    assert!(whole, "a torn frame {seq} of {} was accepted", RINGS[ring]);
    assert!(frame.descriptor.crc32c.is_some(), "no checksum");
}

fn writing(stream: &Path) {
    let mut bell = BellWriter::create(stream).unwrap();
    let mut writers: Vec<Writer> =
        (0..3).map(|ring| builder::create(&stream.join(RINGS[ring]), &ring_spec(ring)).unwrap()).collect();
    std::fs::write(stream.join("ready"), b"").unwrap();
    let mut bytes = vec![0; 16 << 10];
    for turn in 0u64.. {
        // Mostly small frames: as many meetings of writer and readers as there can be.
        let ring = if turn.is_multiple_of(64) { 2 } else { usize::from(turn.is_multiple_of(8)) };
        let writer = &mut writers[ring];
        let seq = writer.head_seq();
        let bytes = &mut bytes[..length(ring, seq)];
        if seq.is_multiple_of(101) {
            writer.append(&bytes[..bytes.len() / 2]).unwrap();
            writer.abandon();
        }
        fill(bytes, seq);
        bytes.chunks(1316).for_each(|piece| writer.append(piece).unwrap());
        writer.commit(&FrameDescriptor { key: seq.is_multiple_of(3), ..Default::default() }, &mut bell);
        if turn.is_multiple_of(1 << 9) && stream.join("stop").exists() {
            break;
        }
    }
    for writer in &mut writers {
        writer.set_state(State::Ended);
        writer.wake_target().wake();
    }
    println!("\nwriter: {}", writers.iter().map(|w| w.head_seq().to_string()).collect::<Vec<_>>().join(" "));
}

/// Live from beginning to end: read + lost must be what was written.
fn reading_on(stream: &Path, ring: usize) -> (u64, u64) {
    let mut reader = Reader::open(&stream.join(RINGS[ring]), Start::Live).unwrap();
    reader.verify_checksums(true);
    let (begin, mut read, mut lost) = (reader.position(), 0, 0);
    loop {
        match reader.next(Duration::from_secs(20)).unwrap() {
            Next::Frame(frame) => {
                assert_eq!(frame.descriptor.seq, begin + read + lost, "a loss was not reported");
                check(ring, &frame);
                read += 1;
            }
            Next::Lapped { lost: n, .. } | Next::Skipped { count: n } => lost += n,
            Next::WriterDead => {}
            Next::Ended => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(begin + read + lost, reader.head_seq(), "the loss was not exact");
    (read, lost)
}

/// All that the ring holds, again and again, by copy and by borrowing in turn; exact within each pass.
fn reading_again(stream: &Path, ring: usize) -> (u64, u64) {
    let mut reader = Reader::open(&stream.join(RINGS[ring]), Start::Oldest).unwrap();
    reader.verify_checksums(true);
    let (mut read, mut lost, mut buffer) = (0, 0, vec![0; 16 << 10]);
    for pass in 0u64.. {
        reader.seek(Start::Oldest);
        let mut expected = reader.position();
        loop {
            // One in four frames is read in place and judged afterwards.
            if pass.is_multiple_of(4) {
                match reader.next_borrowed(Duration::ZERO).unwrap() {
                    Next::Frame(frame) => {
                        let seq = frame.descriptor().seq;
                        assert_eq!(seq, expected);
                        let bytes = &mut buffer[..frame.payload_len()];
                        frame.copy_payload(0, bytes);
                        if frame.is_intact() {
                            assert_eq!(Some(crc32c::crc32c(bytes)), frame.descriptor().crc32c, "torn frame {seq}");
                            read += 1;
                        } else {
                            lost += 1;
                        }
                        expected += 1;
                        continue;
                    }
                    Next::Lapped { lost: n, resume_at } => {
                        (lost, expected) = (lost + n, expected + n);
                        assert_eq!(resume_at, expected);
                    }
                    Next::Skipped { count } => (lost, expected) = (lost + count, expected + count),
                    Next::Timeout | Next::WriterDead => break,
                    Next::Ended => return (read, lost),
                    other => panic!("{other:?}"),
                }
                continue;
            }
            match reader.next(Duration::ZERO).unwrap() {
                Next::Frame(frame) => {
                    assert_eq!(frame.descriptor.seq, expected, "a loss was not reported");
                    check(ring, &frame);
                    (read, expected) = (read + 1, expected + 1);
                }
                Next::Lapped { lost: n, resume_at } => {
                    (lost, expected) = (lost + n, expected + n);
                    assert_eq!(resume_at, expected);
                }
                Next::Skipped { count } => (lost, expected) = (lost + count, expected + count),
                Next::Timeout | Next::WriterDead => break,
                Next::Ended => return (read, lost),
                other => panic!("{other:?}"),
            }
            if reader.position() != expected {
                break;
            }
        }
        if pass.is_multiple_of(1024) {
            std::fs::write(stream.join(format!("read-{}", std::process::id())), read.to_le_bytes()).unwrap();
        }
    }
    unreachable!("the ring ends")
}

/// What the other processes run. Does nothing when run as a test of its own.
#[test]
fn a_process_of_the_torture() {
    let (Ok(role), Some(stream)) = (std::env::var(ROLE), std::env::var_os(STREAM)) else {
        return;
    };
    let stream = Path::new(&stream);
    if role == "writer" {
        return writing(stream);
    }
    let number: usize = role.parse().unwrap();
    let ring = READERS[number];
    // Of the readers of each ring one goes on, the others go back.
    let goes_on = READERS.iter().position(|&other| other == ring) == Some(number);
    let (read, lost) = if goes_on { reading_on(stream, ring) } else { reading_again(stream, ring) };
    println!("\n{role}: {read} {lost}");
}

/// Its rings are there when this returns.
fn start_writer(stream: &Path) -> Children {
    let began = Instant::now();
    let all = Children(vec![("writer".to_owned(), start(stream, "writer"))]);
    while !stream.join("ready").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "no writer");
        std::thread::sleep(Duration::from_millis(1));
    }
    all
}

fn start(stream: &Path, role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_of_the_torture", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(STREAM, stream)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Children that do not outlive a failed test.
struct Children(Vec<(String, Child)>);

impl Drop for Children {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_so_far(stream: &Path) -> u64 {
    let files = std::fs::read_dir(stream).unwrap().flatten();
    let of_readers = files.filter(|file| file.file_name().to_string_lossy().starts_with("read-"));
    of_readers.filter_map(|file| Some(u64::from_le_bytes(std::fs::read(file.path()).ok()?.try_into().ok()?))).sum()
}

#[test]
fn eight_readers_of_a_writer_that_waits_for_nobody_accept_no_torn_frame() {
    if std::env::var_os(ROLE).is_some() {
        return;
    }
    let (frames, seconds) = (number("TORTURE_FRAMES", 500_000), number("TORTURE_SECONDS", 10));
    let dir = directory();
    let stream = dir.path();
    let began = Instant::now();
    let mut all = start_writer(stream);
    all.0.extend((0..READERS.len()).map(|reader| (reader.to_string(), start(stream, &reader.to_string()))));
    while read_so_far(stream) < frames && began.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(20));
        for (role, child) in &mut all.0 {
            assert!(child.try_wait().unwrap().is_none(), "{role} is gone");
        }
    }
    std::fs::write(stream.join("stop"), b"").unwrap();
    let (mut written, mut read, mut lost) = (Vec::new(), 0, 0);
    while let Some((role, child)) = all.0.pop() {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{role}: {text}");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{role}: "))).expect("an outcome");
        let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        if role == "writer" {
            written = numbers;
        } else {
            (read, lost) = (read + numbers[0], lost + numbers[1]);
        }
    }
    println!("{written:?} frames written, {read} read, {lost} lost, 0 torn, in {:?}", began.elapsed());
    assert!(read > 1000 && lost > 0, "{read} read, {lost} lost: that was no race");
}

/// `include/headworks.h`, compiled as programs compile it, and by sanitizers, which copy in another way.
#[test]
fn c_readers_of_a_writer_that_waits_for_nobody_accept_no_torn_frame() {
    if std::env::var_os(ROLE).is_some() {
        return;
    }
    let dir = directory();
    let stream = dir.path();
    let compilers: [(&str, &[&str]); 3] = [("gcc", &["-O3"]), ("clang", &["-O2"]), ("gcc", &SANITIZERS)];
    let programs = compilers.into_iter().filter(|(compiler, _)| is_there(compiler)).enumerate().map(|(n, built)| {
        let program = stream.join(format!("race-{n}"));
        compile(built.0, &[&["-std=c99"], &WARNINGS[..], built.1].concat(), &source("tests/c/race.c"), &program);
        program
    });
    let programs: Vec<_> = programs.collect();
    assert!(!programs.is_empty(), "neither gcc nor clang is here");
    let mut all = start_writer(stream);
    for program in &programs {
        for (ring, way) in [(0, "on"), (0, "again"), (1, "again"), (2, "on")] {
            let largest = ring_spec(ring).frame_size_max.to_string();
            let mut command = Command::new(program);
            command.arg(stream.join(RINGS[ring])).args([&largest, way]).stdout(Stdio::piped());
            all.0.push((format!("{} of {way} {}", program.display(), RINGS[ring]), command.spawn().unwrap()));
        }
    }
    std::thread::sleep(Duration::from_secs(number("TORTURE_SECONDS", 3)));
    std::fs::write(stream.join("stop"), b"").unwrap();
    let (mut read, mut lost) = (0, 0);
    while let Some((role, child)) = all.0.pop() {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{role}: {text}");
        if role != "writer" {
            let (of_one, lost_by_one) = text.trim().split_once(' ').expect("two numbers");
            read += of_one.parse::<u64>().unwrap();
            lost += lost_by_one.parse::<u64>().unwrap();
        }
    }
    println!("{read} read, {lost} lost, 0 torn");
    assert!(read > 1000 && lost > 0, "{read} read, {lost} lost: that was no race");
}
