//! The frame ring under the load: as a shard writes it, its readers woken by the appliance's waker thread.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use headworks::config::Config;
use headworks::media::TrackKind;
use headworks::output::OutputOptions;
use headworks::output::waker::{WakeFlag, Waker};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::reader::{Next, Reader, Start};
use headworks_frame_ring::wake::{WAIT_MAX, WakeTarget};
use headworks_frame_ring::writer::Writer;

use crate::load::{Heard, Input, Load, Output, WRITER_CORE, settle, sum};

/// Copied out and summed at a time: it stays in the core's own cache.
const PIECE: usize = 16 << 10;
/// Where there are many rings they are small.
const SMALL_RING_SIZE: u64 = 1 << 20;

/// The ring of a video track with default configuration.
pub fn video_spec() -> RingSpec {
    OutputOptions::from_config(&Config::default()).ring_spec(TrackKind::Video, *b"h264", 90_000)
}

fn stream(place: &str, ring: usize) -> PathBuf {
    Path::new(place).join(format!("stream{ring}"))
}

struct Stream {
    writer: Writer,
    bell: BellWriter,
    flag: WakeFlag,
    targets: [WakeTarget; 2],
}

struct Rings {
    streams: Vec<Stream>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    wake: Wake,
}

/// Who wakes the readers.
enum Wake {
    Nobody,
    Writer,
    WakerThread,
}

impl Rings {
    fn create(load: &Load) -> Result<Self, Box<dyn Error>> {
        let mut spec = video_spec();
        if load.rings > 1 {
            spec.data_capacity = SMALL_RING_SIZE;
            spec.frame_size_max = load.size as u32;
            spec.slot_count = 256;
        }
        // Before this thread is pinned: the waker thread runs where the system puts it.
        let (waker, thread) = Waker::start("hw-waker");
        let mut streams = Vec::new();
        for ring in 0..load.rings {
            let directory = stream(&load.place, ring);
            std::fs::create_dir_all(&directory)?;
            let bell = BellWriter::create(&directory)?;
            let writer = builder::create(&directory.join("video0"), &spec)?;
            let flag = waker.enter(bell.wake_target());
            flag.add(writer.wake_target());
            let targets = [bell.wake_target(), writer.wake_target()];
            streams.push(Stream { writer, bell, flag, targets });
        }
        let wake = match (load.spinning, load.direct) {
            (true, _) => Wake::Nobody,
            (false, true) => Wake::Writer,
            (false, false) => Wake::WakerThread,
        };
        Ok(Self { streams, waker, thread: Some(thread), wake })
    }
}

impl Output for Rings {
    fn put(&mut self, ring: usize, payload: &[u8]) {
        self.streams[ring].writer.append(payload).expect("the ring takes frames of this size");
    }

    fn commit(&mut self, ring: usize, number: u64, stamp_ns: u64) {
        let Stream { writer, bell, flag, targets } = &mut self.streams[ring];
        let frame = FrameDescriptor { origin: number, commit_ns: stamp_ns, key: true, ..FrameDescriptor::default() };
        writer.commit(&frame, bell);
        match self.wake {
            Wake::Nobody => {}
            Wake::Writer => targets.iter().for_each(|target| {
                target.wake();
            }),
            Wake::WakerThread => {
                flag.raise();
                self.waker.ring();
            }
        }
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        self.waker.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct RingReader {
    reader: Reader,
    piece: Vec<u8>,
}

impl Input for RingReader {
    fn next(&mut self, spinning: bool, awake: impl FnOnce(u64)) -> Option<Heard> {
        let timeout = if spinning { Duration::ZERO } else { WAIT_MAX };
        let frame = match self.reader.next_borrowed(timeout) {
            Ok(Next::Frame(frame)) => frame,
            Ok(_) => return None,
            Err(error) => panic!("{error}"),
        };
        awake(frame.descriptor().commit_ns);
        let number = frame.descriptor().origin;
        let length = frame.payload_len();
        let mut total = 0u64;
        for offset in (0..length).step_by(PIECE) {
            let piece = &mut self.piece[..PIECE.min(length - offset)];
            frame.copy_payload(offset, piece);
            total = total.wrapping_add(sum(piece));
        }
        frame.is_intact().then_some(Heard { number, sum: total })
    }
}

/// The process that writes.
pub fn writer(load: &Load) -> Result<(), Box<dyn Error>> {
    let rings = Rings::create(load)?;
    settle(WRITER_CORE);
    crate::load::write(load, rings)
}

/// A process that reads.
pub fn reader(load: &Load) -> Result<(), Box<dyn Error>> {
    settle(crate::load::READER_CORE);
    crate::load::read(load, |ring| RingReader {
        reader: Reader::open(&stream(&load.place, ring).join("video0"), Start::Live).expect("the ring is there"),
        piece: vec![0; PIECE],
    })
}
