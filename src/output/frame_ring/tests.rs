//! Rings that come and go under a living stream.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::media::{AudioFormat, Codec};
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
    let refused = bench.open_and_wait();
    assert!(bench.rings.track_ring(refused).unwrap().error().unwrap().contains("per_stream_limit"));
    bench.rings.track(first).append(b"sound").unwrap();
    bench.rings.track(first).commit(Instant::from_millis(1), &Frame::default());
    let reader = Reader::open(&bench.path("audio0"), Start::Oldest).unwrap();
    assert_eq!(reader.state(), ReaderState::Live);

    StreamSink::end(&mut bench.rings, first);
    assert_eq!((reader.state(), reader.head_seq()), (ReaderState::Ended, 1));
    bench.settle();
    assert_eq!(bench.rings.wake.targets(), 2);
    assert!(bench.path("audio0").exists());
    bench.directory.tick();
    assert!(!bench.path("audio0").exists() && bench.path("audio1").exists());
    assert_eq!(bench.directory.memory_used(), used / 2);
    let third = bench.open_and_wait();
    assert_eq!(bench.rings.track_ring(third).unwrap().error(), None);
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
    rings.end(Instant::ZERO);
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

#[test]
fn a_track_beyond_the_most_is_refused_and_counted_until_one_ends_whose_place_it_takes() {
    let mut bench = Bench::new(Duration::ZERO);
    let first = bench.open_and_wait();
    for _ in 1..TRACKS_MAX {
        bench.open_and_wait();
    }
    let beyond = [bench.open(), bench.open()];
    let format = Format::Audio(AudioFormat { sample_rate: 48_000, channels: 2, profile: "" });
    assert_eq!((bench.rings.tracks_refused(), bench.rings.is_opening()), (2, false));
    for index in beyond {
        assert!(bench.rings.track_ring(index).is_none());
        bench.rings.track(index).append(b"sound").unwrap();
        bench.rings.track(index).commit(Instant::from_millis(1), &Frame::default());
        assert!(!bench.rings.set_format(index, &format));
        StreamSink::end(&mut bench.rings, index);
    }
    assert_eq!(bench.rings.tracks[TRACKS_MAX].error().unwrap(), "a stream has 256 tracks at most");
    StreamSink::end(&mut bench.rings, first);
    bench.settle();
    bench.directory.tick();
    let again = bench.open_and_wait();
    assert_eq!(again, first);
    let ring = bench.rings.track_ring(again).unwrap();
    assert_eq!((ring.name.as_str(), ring.error(), ring.head_seq), ("audio0", None, 0));
    assert_eq!(bench.open(), beyond[0]);
}

#[test]
fn the_ring_of_an_ended_track_that_housekeeping_had_no_room_for_is_given_up_later() {
    let mut bench = Bench::new(Duration::ZERO);
    let first = bench.open_and_wait();
    let (hold, held) = channel::<()>();
    bench.housekeeping.submit(Box::new(move || held.recv().unwrap_or(()))).unwrap();
    while bench.housekeeping.submit(Box::new(|| ())).is_ok() {}
    StreamSink::end(&mut bench.rings, first);
    bench.rings.heartbeat(Instant::from_millis(1));
    assert_eq!((bench.rings.unretired.len(), bench.rings.wake.targets()), (1, 2));
    drop(hold);
    while !bench.rings.unretired.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
        bench.rings.heartbeat(Instant::from_millis(2));
    }
    bench.settle();
    assert_eq!(bench.rings.wake.targets(), 1, "the bell");
    bench.directory.tick();
    assert_eq!(bench.directory.memory_used(), 0);
}

/// A sender whose tables never stay the same: 100,000 versions of a PMT, with one or two tracks of any PID and codec each.
#[test]
fn tables_that_change_for_ever_take_bounded_memory_and_the_stream_goes_on() {
    use crate::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack};
    use crate::media::Payload;
    use crate::pipeline::transport::TransportStream;
    use headworks_packet::{PacketPool, PoolOptions};

    const VERSIONS: u64 = 10_000;
    const CODECS: [Codec; 6] = [Codec::H264, Codec::Hevc, Codec::Mp2, Codec::AacAdts, Codec::Ac3, Codec::Klv];
    let mut bench = Bench::new(Duration::ZERO);
    let pool = PacketPool::new(PoolOptions { slots: 64, ..PoolOptions::default() }).unwrap();
    let mut transport = TransportStream::new();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let mut mux = Mux::new(MuxConfiguration::new(vec![MuxTrack::new(0x100, Codec::Mp2)])).unwrap();
    let mut opened = 0;
    let mut send = |bench: &mut Bench, mux: &mut Mux, transport: &mut TransportStream, version: u64| {
        let (mut bytes, time) = (Vec::new(), 90_000 + version * 3_600);
        mux.write(0, &AccessUnit { pts: time, dts: time, random_access: true, data: &[0x55; 100] }, &mut bytes);
        for datagram in bytes.chunks(7 * 188) {
            let now = Instant::from_millis(1_000 + version);
            let payload = Payload {
                packet: pool.copy_from(datagram).unwrap(),
                arrival: now,
                due: now,
                sequence: version,
                lost_before: 0,
                recovered: false,
                path_mask: 1,
            };
            let mut from = 0;
            while let Some(taken) = transport.receive(now, &payload, from, &mut bench.rings) {
                from = taken;
                while bench.rings.is_opening() {
                    bench.rings.ready(bench.ready.recv().unwrap());
                    opened += 1;
                }
            }
        }
        opened
    };
    let limit = bench.directory.options().stream_memory_limit;
    for version in 0..VERSIONS {
        let first = below(0x1e00);
        let tracks = (0..1 + below(2)).map(|n| {
            let pid = 0x20 + (first + n * 7) % 0xf00;
            MuxTrack::new(pid as u16, CODECS[if n == 0 { 2 } else { below(6) as usize }])
        });
        mux.set_tracks(tracks.collect()).unwrap();
        send(&mut bench, &mut mux, &mut transport, version);
        if version % 500 == 0 {
            // Ten times a second, and now and then.
            bench.rings.heartbeat(Instant::from_millis(1_000 + version));
            bench.rings.describe(&transport.programmes());
            bench.settle();
            bench.directory.tick();
            let live = transport.tracks().count();
            assert!(live <= 2 && bench.rings.wake.targets() <= 1 + live, "{version}");
            assert!(bench.rings.tracks.len() <= TRACKS_MAX + 1 && bench.rings.unretired.is_empty(), "{version}");
            assert!(bench.directory.memory_used() <= limit, "{version}");
            let files = std::fs::read_dir(bench.root.path().join("cam1")).unwrap().count();
            assert!(files <= 3 + 2 * TRACKS_MAX, "{version}: {files}");
        }
    }
    assert_eq!(bench.rings.tracks.len(), TRACKS_MAX);
    assert_eq!(bench.rings.tracks_refused(), 0);
    // It makes up its mind.
    mux.set_tracks(vec![MuxTrack::new(0x100, Codec::Mp2)]).unwrap();
    bench.settle();
    bench.directory.tick();
    assert!(send(&mut bench, &mut mux, &mut transport, VERSIONS) > VERSIONS);
    let sink = transport.tracks().next().unwrap().sink;
    assert_eq!(bench.rings.track_ring(sink).unwrap().error(), None);
}

/// A frame that is due at so many ms.
fn due(ms: u64) -> Frame {
    Frame { due: Instant::from_millis(ms), ..Frame::default() }
}

impl Bench {
    /// Writes a frame of `length` bytes at 1 ms that is due at `due_ms`.
    fn commit(&mut self, index: SinkIndex, length: usize, due_ms: u64) {
        let mut track = self.rings.track(index);
        track.append(&vec![0x5a; length]).unwrap();
        track.commit(Instant::from_millis(1), &due(due_ms));
    }

    fn heads(&self, readers: &[Reader]) -> Vec<u64> {
        readers.iter().map(Reader::head_seq).collect()
    }
}

#[test]
fn frames_are_published_when_they_are_due_in_the_order_in_which_they_were_finished() {
    let mut bench = Bench::new(Duration::ZERO);
    let tracks = [bench.open_and_wait(), bench.open_and_wait()];
    let readers = ["audio0", "audio1"].map(|name| Reader::open(&bench.path(name), Start::Oldest).unwrap());
    assert!(bench.rings.takes_early());
    bench.commit(tracks[0], 10, 20);
    bench.commit(tracks[1], 10, 30);
    // Due before the one that was finished before it: it waits for that.
    bench.commit(tracks[0], 10, 25);
    assert!(!bench.rings.flush(Instant::from_millis(19)));
    assert_eq!((bench.heads(&readers), bench.rings.next_due()), (vec![0, 0], Some(Instant::from_millis(20))));
    assert!(bench.rings.flush(Instant::from_millis(20)));
    assert_eq!(bench.heads(&readers), [1, 0]);
    assert!(bench.rings.flush(Instant::from_millis(31)));
    assert_eq!((bench.heads(&readers), bench.rings.next_due()), (vec![2, 1], None));
    let mut first = Reader::open(&bench.path("audio0"), Start::Oldest).unwrap();
    let times = |reader: &mut Reader| match reader.next(Duration::ZERO) {
        Ok(crate::output::reader::reader::Next::Frame(frame)) => {
            (frame.stream_seq, frame.descriptor.due_ns / 1_000_000, frame.descriptor.commit_ns / 1_000_000)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!([times(&mut first), times(&mut first)], [(0, 20, 20), (2, 25, 31)]);
    assert_eq!(bench.rings.track_ring(tracks[0]).unwrap().delay_us.max() / 1_000, 6);
    // One that is due needs no flush.
    bench.commit(tracks[1], 10, 1);
    assert_eq!(bench.heads(&readers), [2, 2]);
}

#[test]
fn a_track_that_leaves_ends_behind_its_last_frame() {
    let mut bench = Bench::new(Duration::ZERO);
    let track = bench.open_and_wait();
    let reader = Reader::open(&bench.path("audio0"), Start::Oldest).unwrap();
    bench.commit(track, 10, 20);
    StreamSink::end(&mut bench.rings, track);
    assert_eq!((reader.head_seq(), reader.state()), (0, ReaderState::Live));
    bench.rings.flush(Instant::from_millis(20));
    assert_eq!((reader.head_seq(), reader.state()), (1, ReaderState::Ended));
}

#[test]
fn frames_wait_in_a_quarter_of_their_ring_at_most_and_all_are_published_when_the_stream_ends() {
    let mut bench = Bench::new(Duration::from_secs(60));
    let track = bench.open_and_wait();
    let reader = Reader::open(&bench.path("audio0"), Start::Oldest).unwrap();
    let capacity = reader.header().data_capacity;
    let mut frames = 0;
    while bench.rings.takes_early() {
        bench.commit(track, 60_000, 20 + frames);
        frames += 1;
    }
    assert_eq!(frames, capacity / 4 / 60_032 + 1);
    bench.rings.flush(Instant::from_millis(20));
    assert!(bench.rings.takes_early(), "there is room for one more");
    bench.commit(track, 60_000, 100);
    bench.rings.end(Instant::from_millis(30));
    assert_eq!((reader.head_seq(), reader.state()), (frames + 1, ReaderState::Ended));
}
