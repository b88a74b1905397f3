//! Rings that come and go under a living stream.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use headworks_frame_ring::descriptor::Discontinuity;
use headworks_packet::{PacketPool, PoolOptions};

use super::*;
use crate::config::Config;
use crate::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack};
use crate::media::{AudioFormat, Codec, Payload};
use crate::output::reader::layout::State as ReaderState;
use crate::output::reader::reader::{Next, Reader, Start};
use crate::output::{OutputOptions, Waker};
use crate::pipeline::transport::TransportStream;

struct Bench {
    root: tempfile::TempDir,
    directory: Arc<RingDirectory>,
    housekeeping: Housekeeping,
    ready: Receiver<TrackReady>,
    rings: StreamRings,
}

impl Bench {
    fn new(retention: Duration) -> Self {
        Self::with_room(1, retention)
    }

    /// Memory for so many times the rings of a planned stream.
    fn with_room(times: u64, retention: Duration) -> Self {
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
        options.stream_memory_limit = times * options.planned_stream_size();
        let (waker, _) = Waker::start("test-waker");
        let directory = Arc::new(RingDirectory::prepare(options, vec![waker]).unwrap());
        let (housekeeping, _) = Housekeeping::start("test-house", || {});
        let (sender, ready) = channel();
        let sender = std::sync::Mutex::new(sender);
        let reply: Reply = Arc::new(move |ready| sender.lock().unwrap().send(ready).unwrap());
        let output = directory.open_stream("cam1", 0).unwrap();
        let rings = StreamRings::new(output, Arc::clone(&directory), housekeeping.clone(), reply);
        Self { root, directory, housekeeping, ready, rings }
    }

    fn open(&mut self) -> SinkIndex {
        self.rings.open(&audio(256))
    }

    /// Opens a track and gives the name of its ring, once it is there.
    fn name_of(&mut self, description: &TrackDescription) -> String {
        let index = self.rings.open(description);
        while self.rings.is_opening() {
            self.rings.ready(self.ready.recv().unwrap());
        }
        let track = self.rings.track_ring(index).unwrap();
        assert_eq!(track.error(), None);
        track.name.clone()
    }

    /// Takes transport packets that come in now; gives how many rings were made for them.
    fn receive(&mut self, pool: &PacketPool, transport: &mut TransportStream, bytes: &[u8], now: Instant) -> u64 {
        let mut opened = 0;
        for datagram in bytes.chunks(7 * 188) {
            let payload = Payload {
                packet: pool.copy_from(datagram).unwrap(),
                arrival: now,
                due: now,
                sequence: 0,
                lost_before: 0,
                recovered: false,
                path_mask: 1,
                ends_message: true,
            };
            let mut from = 0;
            while let Some(taken) = transport.receive(now, &payload, from, &mut self.rings) {
                from = taken;
                while self.rings.is_opening() {
                    self.rings.ready(self.ready.recv().unwrap());
                    opened += 1;
                }
            }
        }
        opened
    }

    /// Housekeeping has no room for any job until what this gives is dropped.
    fn overrun(&self) -> std::sync::mpsc::Sender<()> {
        let (hold, held) = channel::<()>();
        self.housekeeping.submit(Box::new(move || held.recv().unwrap_or(()))).unwrap();
        while self.housekeeping.submit(Box::new(|| ())).is_ok() {}
        hold
    }

    /// The stream ends, and its source returns.
    fn return_after(self, end: impl FnOnce(StreamRings)) -> Self {
        let Self { root, directory, housekeeping, ready, rings } = self;
        let reply = Arc::clone(&rings.reply);
        end(rings);
        settle(&housekeeping);
        let output = directory.open_stream("cam1", 0).unwrap();
        let rings = StreamRings::new(output, Arc::clone(&directory), housekeeping.clone(), reply);
        Self { root, directory, housekeeping, ready, rings }
    }

    fn open_and_wait(&mut self) -> SinkIndex {
        let index = self.open();
        self.rings.ready(self.ready.recv().unwrap());
        index
    }

    /// Waits until housekeeping has done what it was given so far.
    fn settle(&self) {
        settle(&self.housekeeping);
    }

    fn path(&self, track: &str) -> std::path::PathBuf {
        self.root.path().join("cam1").join(track)
    }
}

fn settle(housekeeping: &Housekeeping) {
    let (done, wait) = channel();
    housekeeping.submit(Box::new(move || done.send(()).unwrap())).unwrap();
    wait.recv().unwrap();
}

fn audio(id: u32) -> TrackDescription {
    TrackDescription { programme: 1, id, codec: Codec::Mp2, clock_rate: 90_000, language: None }
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
    let mut bench = bench.return_after(|rings| rings.end(Instant::ZERO));
    bench.open_and_wait();
    std::thread::sleep(Duration::from_millis(250));
    bench.directory.tick();
    assert!(bench.path("audio0").exists() && !bench.path("audio1").exists());
}

#[test]
fn a_track_has_its_name_for_ever_whatever_became_of_the_others_and_in_whatever_order_they_come() {
    let mut bench = Bench::with_room(9, Duration::from_secs(60));
    // A process that dies says nothing to its rings.
    let restart = |bench: Bench| {
        bench.settle();
        bench.return_after(drop)
    };
    assert_eq!([256, 257].map(|id| bench.name_of(&audio(id))), ["audio0", "audio1"]);
    StreamSink::end(&mut bench.rings, SinkIndex(0));
    bench.rings.describe(&[]);
    let mut bench = restart(bench);
    assert_eq!(bench.name_of(&audio(257)), "audio1");
    bench.rings.describe(&[]);
    let mut bench = restart(bench);
    assert_eq!([258, 257, 256].map(|id| bench.name_of(&audio(id))), ["audio2", "audio1", "audio0"]);
    let other = TrackDescription { programme: 2, ..audio(257) };
    assert_eq!(bench.name_of(&other), "audio3");
    bench.rings.describe(&[]);
    bench.settle();
    let described = StreamDescriptor::read(&bench.path("")).unwrap();
    assert_eq!(described.generation, 3, "it counts on");
    let names: Vec<(&str, bool)> = described.tracks.iter().map(|it| (it.name.as_str(), it.ended)).collect();
    assert_eq!(names, [("audio2", false), ("audio1", false), ("audio0", false), ("audio3", false)]);
    // The same without a restart.
    StreamSink::end(&mut bench.rings, SinkIndex(1));
    assert_eq!([259, 257].map(|id| bench.name_of(&audio(id))), ["audio4", "audio1"]);
    assert_eq!(bench.rings.tracks().len(), 5);
}

#[test]
fn a_track_that_is_back_before_its_ring_was_there_gets_that_ring() {
    let mut bench = Bench::new(Duration::from_secs(60));
    let first = bench.open();
    StreamSink::end(&mut bench.rings, first);
    assert_eq!(bench.open_and_wait(), first);
    assert_eq!((bench.rings.is_opening(), bench.rings.wake.targets()), (false, 2));
    bench.settle();
    assert!(bench.ready.try_recv().is_err(), "one ring was made");
    bench.rings.track(first).append(b"sound").unwrap();
    bench.rings.track(first).commit(Instant::from_millis(1), &Frame::default());
    assert_eq!(Reader::open(&bench.path("audio0"), Start::Oldest).unwrap().head_seq(), 1);
}

/// A source that sends a frame a millisecond, each of which lasts 40, and starts anew twice: its process has ended, then it has.
#[test]
fn the_timeline_of_a_stream_that_returns_goes_on_and_never_back() {
    let pool = PacketPool::new(PoolOptions { slots: 64, ..PoolOptions::default() }).unwrap();
    let mut bench = Bench::new(Duration::from_secs(60));
    let send = |bench: &mut Bench, began: u64, anchored: u64| {
        let mut transport = TransportStream::new();
        let mut mux = Mux::new(MuxConfiguration::new(vec![MuxTrack::new(0x100, Codec::Klv)])).unwrap();
        for number in 0..50 {
            let (mut bytes, time) = (Vec::new(), 90_000 + number * 3_600);
            let unit = AccessUnit { pts: time, dts: time, random_access: true, data: &[0x06, 0x0e, 0x2b, 0x34] };
            mux.write(0, &unit, &mut bytes);
            bench.receive(&pool, &mut transport, &bytes, Instant::from_millis(began + number));
            if number == anchored {
                let (programme, timeline) = transport.timelines().next().unwrap();
                bench.rings.anchor(programme, timeline);
            }
        }
        transport.finish(Instant::from_millis(began + 50), &mut bench.rings);
    };
    send(&mut bench, 10_000, 25);
    bench.rings.describe(&[]);
    bench.settle();
    // An hour and a half later; and at once, from where the newest frame stands instead of where the last second stood.
    let mut bench = bench.return_after(drop);
    send(&mut bench, 5_410_000, 25);
    let mut bench = bench.return_after(|rings| rings.end(Instant::ZERO));
    send(&mut bench, 5_410_060, 25);
    let mut reader = Reader::open(&bench.path("data0"), Start::Oldest).unwrap();
    let mut frames = Vec::new();
    while let Next::Frame(frame) = reader.next(Duration::ZERO).unwrap() {
        let frame = frame.descriptor;
        frames.push((frame.timeline_ns, frame.segment, frame.discontinuity));
    }
    assert_eq!(frames.len(), 150);
    const MS: i64 = 1_000_000;
    let places = [0, 1, 49, 50, 99, 100, 149].map(|number: usize| frames[number].0 / MS);
    // The first packets are believed with the second, a millisecond later. Frame 25 came at 10,025 and stands at 11,001.
    let second = 11_001 + (5_410_001 - 10_025);
    let third = second + 49 * 40;
    assert_eq!(places, [10_001, 10_041, 10_001 + 49 * 40, second, third, third, third + 49 * 40]);
    assert!(frames.is_sorted_by_key(|&(place, segment, _)| (place, segment)));
    let restart = Discontinuity::Restart;
    let first = [0, 50, 100].map(|number: usize| (frames[number].1, frames[number].2));
    assert_eq!(first, [(0, Discontinuity::Start), (1, restart), (2, restart)]);
}

#[test]
fn a_ring_that_comes_after_its_stream_has_ended_is_ended_and_let_go_of_elsewhere() {
    let mut bench = Bench::new(Duration::from_secs(60));
    bench.open();
    bench.settle();
    let Bench { root, directory, housekeeping, ready, rings } = bench;
    let ring = root.path().join("cam1/audio0");
    rings.end(Instant::ZERO);
    settle(&housekeeping);
    let reader = Reader::open(&ring, Start::Live).unwrap();
    let job = ready.recv().unwrap().into_end().unwrap();
    assert_eq!(reader.state(), ReaderState::Ended);
    let again = || directory.open_track("cam1", "audio0", &audio(256), None);
    assert!(matches!(again(), Err(TrackError::Locked)), "nothing is unmapped yet");
    job();
    again().unwrap();
    let refused = TrackReady { index: SinkIndex(0), ring: Err(TrackError::Locked) };
    assert!(refused.into_end().is_none());
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
    let hold = bench.overrun();
    StreamSink::end(&mut bench.rings, first);
    bench.rings.heartbeat(Instant::from_millis(1));
    assert_eq!((bench.rings.unhoused.len(), bench.rings.wake.targets()), (1, 2));
    drop(hold);
    while !bench.rings.unhoused.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
        bench.rings.heartbeat(Instant::from_millis(2));
    }
    bench.settle();
    assert_eq!(bench.rings.wake.targets(), 1, "the bell");
    bench.directory.tick();
    assert_eq!(bench.directory.memory_used(), 0);
}

#[test]
fn a_ring_that_housekeeping_had_no_room_to_make_is_made_later() {
    let mut bench = Bench::new(Duration::ZERO);
    let hold = bench.overrun();
    let first = bench.open();
    assert!(bench.rings.is_opening());
    bench.rings.heartbeat(Instant::from_millis(1));
    assert_eq!(bench.rings.unhoused.len(), 1);
    // It leaves and returns under the same name, and the ring that it left is let go of before it is taken up.
    drop(hold);
    while !bench.rings.unhoused.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
        bench.rings.heartbeat(Instant::from_millis(2));
    }
    bench.rings.ready(bench.ready.recv().unwrap());
    let hold = bench.overrun();
    StreamSink::end(&mut bench.rings, first);
    assert_eq!((bench.open(), bench.rings.unhoused.len()), (first, 2));
    drop(hold);
    while !bench.rings.unhoused.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
        bench.rings.heartbeat(Instant::from_millis(3));
    }
    bench.rings.ready(bench.ready.recv().unwrap());
    assert_eq!((bench.rings.tracks[0].error(), bench.rings.is_opening()), (None, false));
    bench.settle();
    assert_eq!(bench.rings.wake.targets(), 2);
}

#[test]
fn a_track_whose_ring_was_refused_asks_again_every_few_seconds_as_long_as_it_is_there() {
    let mut bench = Bench::new(Duration::ZERO);
    let open: Vec<SinkIndex> = (256..260).map(|id| bench.rings.open(&audio(id))).collect();
    for _ in &open {
        bench.rings.ready(bench.ready.recv().unwrap());
    }
    let errors = |bench: &Bench| open.iter().map(|it| bench.rings.tracks[it.0].error().is_some()).collect::<Vec<_>>();
    assert_eq!(errors(&bench), [false, false, true, true]);
    assert!(!bench.rings.is_opening(), "no packet waits for it");
    let configuration = TrackConfiguration { bytes: b"sets".to_vec(), ..TrackConfiguration::default() };
    bench.rings.track(open[2]).configure(&configuration);
    bench.rings.track(open[2]).append(b"its first half").unwrap();
    let beat = |bench: &mut Bench, milliseconds: u64| {
        bench.rings.heartbeat(Instant::from_millis(milliseconds));
        bench.settle();
        bench.ready.try_iter().collect::<Vec<_>>()
    };
    // One of the two leaves; the other is refused again.
    StreamSink::end(&mut bench.rings, open[3]);
    assert!(beat(&mut bench, 1_000).is_empty() && beat(&mut bench, 3_999).is_empty());
    let mut asked = beat(&mut bench, 4_000);
    assert!(asked.len() == 1 && beat(&mut bench, 9_000).is_empty(), "not while it waits for the answer");
    bench.rings.ready(asked.remove(0));
    assert_eq!(errors(&bench), [false, false, true, false]);
    // There is room now.
    StreamSink::end(&mut bench.rings, open[0]);
    bench.settle();
    bench.directory.tick();
    assert!(beat(&mut bench, 9_100).is_empty());
    let mut asked = beat(&mut bench, 12_100);
    bench.rings.ready(asked.remove(0));
    assert_eq!(errors(&bench), [false; 4]);
    for bytes in [b" and the second", b"the whole frame"] {
        bench.rings.track(open[2]).append(bytes).unwrap();
        bench.rings.track(open[2]).commit(Instant::from_millis(1), &Frame::default());
    }
    let mut reader = Reader::open(&bench.path("audio2"), Start::Oldest).unwrap();
    assert_eq!(reader.configuration(1).unwrap(), b"sets");
    let Next::Frame(frame) = reader.next(Duration::ZERO).unwrap() else { panic!("a frame") };
    assert_eq!(frame.payload, b"the whole frame");
    assert_eq!(reader.head_seq(), 1);
    assert!(beat(&mut bench, 20_000).is_empty() && beat(&mut bench, 30_000).is_empty());
}

/// A sender whose tables never stay the same: 100,000 versions of a PMT, with one or two tracks of any PID and codec each.
#[test]
fn tables_that_change_for_ever_take_bounded_memory_and_the_stream_goes_on() {
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
        opened += bench.receive(&pool, transport, &bytes, Instant::from_millis(1_000 + version));
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
            assert!(bench.rings.tracks.len() <= TRACKS_MAX + 1 && bench.rings.unhoused.is_empty(), "{version}");
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
fn a_track_that_is_back_before_its_end_was_told_has_its_place_and_loses_no_frame() {
    let mut bench = Bench::new(Duration::from_secs(60));
    let track = bench.open_and_wait();
    let name = bench.rings.track_ring(track).unwrap().name.clone();
    let reader = Reader::open(&bench.path(&name), Start::Oldest).unwrap();
    bench.commit(track, 10, 20);
    StreamSink::end(&mut bench.rings, track);
    let description = bench.rings.track_ring(track).unwrap().description.clone();
    // The ring is taken up again by housekeeping, which is kept from it until the reader has been looked at.
    let (go_on, wait) = channel::<()>();
    bench.housekeeping.submit(Box::new(move || wait.recv().unwrap())).unwrap();
    let again = bench.rings.open(&description);
    assert_eq!((again, reader.head_seq(), reader.state()), (track, 1, ReaderState::Ended));
    go_on.send(()).unwrap();
    assert_eq!(bench.rings.track_ring(again).unwrap().name, name);
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

#[test]
fn each_frame_finds_its_configuration_when_it_is_published_however_many_have_come_since() {
    let mut bench = Bench::new(Duration::ZERO);
    let track = bench.open_and_wait();
    let mut reader = Reader::open(&bench.path("audio0"), Start::Oldest).unwrap();
    let bytes = |number: u64| format!("configuration {number}").into_bytes();
    let mut early = 0;
    for number in 0..20 {
        early += u32::from(bench.rings.takes_early());
        let configuration = TrackConfiguration { bytes: bytes(number), ..TrackConfiguration::default() };
        bench.rings.track(track).configure(&configuration);
        bench.commit(track, 10, 20 + number);
    }
    for number in 0..20 {
        bench.rings.flush(Instant::from_millis(20 + number));
        let Next::Frame(frame) = reader.next(Duration::ZERO).unwrap() else { panic!("frame {number}") };
        let generation = frame.descriptor.config_generation;
        assert_eq!(u64::from(generation), number + 1);
        assert_eq!(reader.configuration(generation).unwrap(), bytes(number));
    }
    assert_eq!((early, bench.rings.takes_early()), (9, true), "what waits is bounded");
    // Behind the last frame there is nothing to wait for.
    bench.rings.track(track).configure(&TrackConfiguration { bytes: bytes(20), ..TrackConfiguration::default() });
    assert_eq!(reader.configuration(21).unwrap(), bytes(20));
}

/// As when a track falls silent while the others go on.
#[test]
fn a_frame_whose_time_has_come_does_not_wait_for_those_of_other_tracks_whose_has_not() {
    let mut bench = Bench::with_room(9, Duration::ZERO);
    let tracks = [bench.open_and_wait(), bench.open_and_wait()];
    let readers = ["audio0", "audio1"].map(|name| Reader::open(&bench.path(name), Start::Oldest).unwrap());
    bench.commit(tracks[0], 10, 1);
    for due_ms in [1, 20, 30] {
        bench.commit(tracks[1], 10, due_ms);
    }
    bench.commit(tracks[0], 10, 1);
    bench.rings.flush(Instant::from_millis(1));
    assert_eq!(bench.heads(&readers), [2, 1]);
    // But for its own.
    bench.commit(tracks[1], 10, 1);
    bench.rings.flush(Instant::from_millis(29));
    assert_eq!(bench.heads(&readers), [2, 2]);
    bench.rings.flush(Instant::from_millis(30));
    assert_eq!(bench.heads(&readers), [2, 4]);
}

#[test]
fn an_rtp_source_that_returns_with_another_ssrc_goes_on_in_its_ring() {
    let mut bench = Bench::new(Duration::from_secs(60));
    let h264 = |id| TrackDescription { programme: 0, codec: Codec::H264, ..audio(id) };
    assert_eq!(bench.name_of(&h264(0x1111)), "video0");
    bench.rings.describe(&[]);
    bench.settle();
    let mut bench = bench.return_after(drop);
    assert_eq!(bench.name_of(&h264(0x2222)), "video0");
    // The same without a restart of Headworks.
    StreamSink::end(&mut bench.rings, SinkIndex(0));
    assert_eq!(bench.name_of(&h264(0x3333)), "video0");
}
