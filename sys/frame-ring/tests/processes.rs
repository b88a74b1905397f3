//! Writer and reader in two processes.
mod common;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{directory, length, payload, spec, write_across_a_restart};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder;
use headworks_frame_ring::layout::State;
use headworks_frame_ring::reader::{Next, Reader, Start};

const RING: &str = "FRAME_RING_TEST_DIRECTORY";
const FRAMES: u64 = 400;

/// What the other process runs: prints a line per thing seen. Does nothing when run as a test of its own.
#[test]
fn the_reading_process() {
    let Some(ring) = std::env::var_os(RING) else {
        return;
    };
    let mut reader = Reader::open(ring.as_ref(), Start::Oldest).unwrap();
    println!("\nready {}", reader.position());
    loop {
        match reader.next(Duration::from_secs(20)).unwrap() {
            Next::Frame(frame) => {
                let seq = frame.descriptor.seq;
                assert_eq!(frame.payload, payload(seq, length(seq, 3000)), "frame {seq}");
                println!("\nframe {seq} epoch {}", reader.epoch());
            }
            Next::Ended => break println!("\nended"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_reader_in_another_process_gets_every_byte_across_a_restart_of_the_writer() {
    let dir = directory();
    let ring = dir.path().join("video0");
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let writer = builder::create(&ring, &spec()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_reading_process", "--nocapture", "--test-threads=1"])
        .env(RING, &ring)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut heard = String::new();
    let start = Instant::now();
    let mut hear = |what: &str| {
        while !heard.contains(what) {
            let mut some = [0; 4096];
            let n = output.read(&mut some).unwrap();
            assert!(n > 0 && start.elapsed() < Duration::from_secs(60), "heard no {what:?}");
            heard.push_str(std::str::from_utf8(&some[..n]).unwrap());
        }
    };
    hear("ready 0\n");
    let mut writer = write_across_a_restart(&ring, writer, &mut bell, FRAMES, |seq| hear(&format!("frame {seq} ")));
    writer.set_state(State::Ended);
    writer.wake_target().wake();
    hear("\nended\n");
    assert!(child.wait().unwrap().success());
    let frames: Vec<&str> = heard.lines().filter(|line| line.starts_with("frame ")).collect();
    assert_eq!(frames.len() as u64, FRAMES);
    assert!(frames[0].ends_with("epoch 1") && frames[FRAMES as usize - 1].ends_with("epoch 2"));
}
