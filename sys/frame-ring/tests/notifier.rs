//! Rings and streams in an event loop: told of what has come, by a descriptor that can be polled and by a future.
mod common;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use common::{directory, spec, write};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder;
use headworks_frame_ring::layout::State;
use headworks_frame_ring::notifier::Notifier;
use headworks_frame_ring::reader::{Next, Reader, Start};
use headworks_frame_ring::stream_reader::{StreamEvent, StreamNext, StreamReader};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const ZERO: Duration = Duration::ZERO;

/// Waits for the descriptor as an event loop does.
fn polled(notifier: &Notifier, seconds: i64) -> bool {
    let mut fds = [PollFd::new(notifier, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap() == 1
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park_timeout(Duration::from_secs(20));
    }
}

#[test]
fn a_descriptor_is_readable_when_there_is_something_to_look_at() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    let mut reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
    let notifier = reader.notifier().unwrap();
    // What came before is told too.
    assert!(polled(&notifier, 0) && notifier.clear());
    assert_eq!(reader.next(ZERO), Ok(Next::Timeout));
    for n in 0..20 {
        write(&mut writer, &mut bell, &[n], true);
        writer.wake_target().wake();
        loop {
            assert!(polled(&notifier, 20), "frame {n} was not told");
            notifier.clear();
            match reader.next(ZERO).unwrap() {
                Next::Frame(frame) => break assert_eq!(frame.payload, [n]),
                // The half second's.
                Next::Timeout | Next::WriterDead => {}
                other => panic!("{other:?}"),
            }
        }
    }
    writer.set_state(State::Ended);
    assert!(polled(&notifier, 20));
    assert_eq!(reader.next(ZERO), Ok(Next::Ended));
}

#[test]
fn a_task_is_woken_for_every_frame_across_a_restart_and_to_the_end() {
    let dir = directory();
    let ring = dir.path().join("video0");
    drop((BellWriter::create(dir.path()).unwrap(), builder::create(&ring, &spec()).unwrap()));
    let mut reader = StreamReader::open(dir.path(), Start::Live, None).unwrap();
    let notifier = reader.notifier().unwrap();
    let read = AtomicU8::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..30u8 {
                // Each restart begins at another sixteenth of the data: a reader that is left behind by more is lapped.
                while n > read.load(Acquire) + 8 {
                    std::thread::yield_now();
                }
                let mut bell = BellWriter::attach(dir.path()).unwrap();
                let mut writer = builder::attach(&ring, &spec()).unwrap();
                bell.advance_to(writer.stream_seq_after());
                write(&mut writer, &mut bell, &[n], true);
                bell.wake_target().wake();
            }
            BellWriter::attach(dir.path()).unwrap().set_state(State::Ended);
        });
        let seen = block_on(async {
            let mut seen = Vec::new();
            loop {
                notifier.changed().await;
                loop {
                    match reader.next(ZERO) {
                        StreamNext::Frame { frame, .. } => {
                            seen.extend_from_slice(frame.payload);
                            // Pairs with the load in the writer's loop.
                            read.store(seen.len() as u8, Release);
                        }
                        StreamNext::Event(StreamEvent::Timeout) => break,
                        StreamNext::Event(StreamEvent::Ended) => return seen,
                        StreamNext::Event(StreamEvent::TrackAdded { track: 0 } | StreamEvent::WriterDead) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        });
        assert_eq!(seen, (0..30).collect::<Vec<_>>());
    });
}

#[test]
fn who_only_looks_when_told_finds_the_writer_dead() {
    let dir = directory();
    let writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    let mut reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
    let notifier = reader.notifier().unwrap();
    drop(writer);
    let looked =
        (0..20).any(|_| polled(&notifier, 20) && notifier.clear() && reader.next(ZERO) == Ok(Next::WriterDead));
    assert!(looked, "twenty looks did not find it");
}
