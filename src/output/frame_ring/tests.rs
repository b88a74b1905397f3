//! Rings that come and go under a living stream.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::media::Codec;
use crate::output::reader::layout::State as ReaderState;
use crate::output::reader::reader::{Reader, Start};
use crate::output::{OutputOptions, Waker};

struct Bench {
    root: tempfile::TempDir,
    directory: Arc<RingDirectory>,
    housekeeping: Housekeeping,
    ready: Receiver<TrackReady>,
    rings: StreamRings,
}

impl Bench {
    fn new(retention: Duration) -> Self {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut config = Config::default();
        config.output.root = root.path().to_owned();
        config.output.retention = retention;
        config.ingestion.frame.max_frame_size = 65_536;
        config.ingestion.srt.max_bandwidth = 1_000_000;
        let mut options = OutputOptions::from_config(&config);
        options.pool_size = 0;
        // What a stream is planned to take, with a video ring that is smaller than another audio ring would be.
        options.video_ring_size = 0;
        options.stream_memory_limit = options.planned_stream_size();
        let (waker, _) = Waker::start("test-waker");
        let directory = Arc::new(RingDirectory::prepare(options, waker).unwrap());
        let (housekeeping, _) = Housekeeping::start("test-house", || {});
        let (sender, ready) = channel();
        let sender = std::sync::Mutex::new(sender);
        let reply: Reply = Arc::new(move |ready| sender.lock().unwrap().send(ready).unwrap());
        let output = directory.open_stream("cam1", 0).unwrap();
        let rings = StreamRings::new(output, Arc::clone(&directory), housekeeping.clone(), reply);
        Self { root, directory, housekeeping, ready, rings }
    }

    fn open(&mut self) -> SinkIndex {
        let description =
            TrackDescription { programme: 1, id: 256, codec: Codec::Mp2, clock_rate: 90_000, language: None };
        self.rings.open(&description)
    }

    fn open_and_wait(&mut self) -> SinkIndex {
        let index = self.open();
        self.rings.ready(self.ready.recv().unwrap());
        index
    }

    /// Waits until housekeeping has done what it was given so far.
    fn settle(&self) {
        let (done, wait) = channel();
        self.housekeeping.submit(Box::new(move || done.send(()).unwrap())).unwrap();
        wait.recv().unwrap();
    }

    fn path(&self, track: &str) -> std::path::PathBuf {
        self.root.path().join("cam1").join(track)
    }
}

#[test]
fn the_ring_of_a_track_that_leaves_ends_at_once_stays_for_its_readers_and_gives_its_memory_back() {
    let mut bench = Bench::new(Duration::ZERO);
    let first = bench.open_and_wait();
    bench.open_and_wait();
    let used = bench.directory.memory_used();
    assert_eq!(bench.rings.wake.targets(), 3, "the bell and two rings");
    bench.rings.track(first).append(b"sound").unwrap();
    bench.rings.track(first).commit(Instant::from_millis(1), &Frame::default());
    let reader = Reader::open(&bench.path("audio0"), Start::Oldest).unwrap();
    assert_eq!(reader.state(), ReaderState::Live);

    StreamSink::end(&mut bench.rings, first);
    assert_eq!((reader.state(), reader.head_seq()), (ReaderState::Ended, 1));
    bench.settle();
    assert_eq!(bench.rings.wake.targets(), 2);
    assert!(bench.path("audio0").exists());
    let refused = bench.open_and_wait();
    assert!(bench.rings.tracks()[refused.0].error().unwrap().contains("per_stream_limit"), "it still counts");

    bench.directory.tick();
    assert!(!bench.path("audio0").exists() && bench.path("audio1").exists());
    assert_eq!(bench.directory.memory_used(), used / 2);
    let third = bench.open_and_wait();
    assert_eq!(bench.rings.tracks()[third.0].error(), None);
}

#[test]
fn a_track_that_leaves_before_its_ring_is_there_leaves_no_ring_behind() {
    let mut bench = Bench::new(Duration::ZERO);
    let first = bench.open();
    StreamSink::end(&mut bench.rings, first);
    assert!(!bench.rings.is_opening());
    bench.rings.ready(bench.ready.recv().unwrap());
    bench.settle();
    assert_eq!(bench.rings.wake.targets(), 1, "the bell");
    bench.directory.tick();
    assert!(!bench.path("audio0").exists());
    assert_eq!(bench.directory.memory_used(), 0);
}

#[test]
fn a_stream_that_returns_keeps_the_rings_that_it_takes_up_and_loses_the_others() {
    let mut bench = Bench::new(Duration::from_millis(200));
    bench.open_and_wait();
    bench.open_and_wait();
    let Bench { root, directory, housekeeping, ready, rings } = bench;
    let reply = Arc::clone(&rings.reply);
    rings.end();
    let (done, wait) = channel();
    housekeeping.submit(Box::new(move || done.send(()).unwrap())).unwrap();
    wait.recv().unwrap();
    let output = directory.open_stream("cam1", 0).unwrap();
    let rings = StreamRings::new(output, Arc::clone(&directory), housekeeping.clone(), reply);
    let mut bench = Bench { root, directory, housekeeping, ready, rings };
    bench.open_and_wait();
    std::thread::sleep(Duration::from_millis(250));
    bench.directory.tick();
    assert!(bench.path("audio0").exists() && !bench.path("audio1").exists());
}
