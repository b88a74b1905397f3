//! One writer, one reader, one process: what goes in comes out, and what does not is said.
mod common;

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{directory, length, payload, spec, write};
use headworks_frame_ring::bell::{BellReader, BellWriter};
use headworks_frame_ring::builder::{self, AttachError, RingSpec};
use headworks_frame_ring::descriptor::{Discontinuity, FrameDescriptor};
use headworks_frame_ring::layout::{self, NONE, State};
use headworks_frame_ring::reader::{ConfigurationError, Frame, Next, Reader, Start};
use headworks_frame_ring::writer::FrameTooLarge;
use proptest::prelude::*;

const ZERO: Duration = Duration::ZERO;

fn frame<'a>(next: Next<Frame<'a>>) -> Frame<'a> {
    match next {
        Next::Frame(frame) => frame,
        other => panic!("{other:?} instead of a frame"),
    }
}

#[test]
fn staged_frames_are_seen_when_they_are_published_and_nothing_overwrites_them_before() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let ring = dir.path().join("video0");
    let mut writer = builder::create(&ring, &spec()).unwrap();
    let mut reader = Reader::open(&ring, Start::Live).unwrap();
    let frames: Vec<Vec<u8>> = (0..3).map(|seq| payload(seq, 60_000)).collect();
    let mut staged = Vec::new();
    writer.set_configuration(b"first").unwrap();
    for (seq, bytes) in frames.iter().enumerate() {
        writer.append(bytes).unwrap();
        staged.push(writer.stage(&FrameDescriptor { key: seq == 1, ..Default::default() }));
    }
    assert_eq!(reader.next(ZERO), Ok(Next::Timeout));
    // 256 KiB hold the three, and of a fourth only a part.
    assert!((180_000..190_000).contains(&writer.unpublished()), "{}", writer.unpublished());
    writer.append(&[0; 10_000]).unwrap();
    writer.append(&[0; 50_000]).unwrap();
    writer.abandon();
    let mut staged = staged.into_iter();
    for (seq, bytes) in frames.iter().enumerate() {
        assert_eq!(writer.publish(staged.next().unwrap(), &mut bell), seq as u64);
        let got = frame(reader.next(ZERO).unwrap());
        assert_eq!(got.payload, bytes);
        let expected = (seq as u64, if seq == 0 { NONE } else { 1 }, if seq == 0 { 1 } else { 2 });
        assert_eq!((got.descriptor.seq, got.descriptor.key_seq, got.descriptor.config_generation), expected);
        writer.set_configuration(b"second").unwrap();
    }
    assert_eq!((writer.unpublished(), reader.totals()), (0, writer.totals()));
    // A writer that goes on staging is stopped by its own frames, and by nothing else.
    let mut waiting = Vec::new();
    while writer.append(&[7; 60_000]).is_ok() {
        waiting.push(writer.stage(&FrameDescriptor::default()));
    }
    assert_eq!((waiting.len(), writer.append(&[7; 60_000])), (4, Err(FrameTooLarge { wanted: 60_000, limit: 22_016 })));
    for (place, frame) in waiting.into_iter().enumerate() {
        assert_eq!(writer.publish(frame, &mut bell), 3 + place as u64);
    }
    writer.append(&[7; 60_000]).unwrap();
}

#[test]
fn a_frame_comes_out_as_it_went_in() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let ring = dir.path().join("video0");
    let mut writer = builder::create(&ring, &spec()).unwrap();
    let mut reader = Reader::open(&ring, Start::Live).unwrap();
    assert_eq!(reader.next(ZERO), Ok(Next::Timeout));

    writer.append(b"whole ").unwrap();
    writer.append(b"frame").unwrap();
    assert_eq!(writer.written(3..8), b"le fr");
    writer.append_side_data(b"side").unwrap();
    let described = FrameDescriptor { pts: Some(5), key: true, damaged: true, ..Default::default() };
    assert_eq!(writer.commit(&described, &mut bell), 0);
    assert_eq!(writer.open_len(), 0);

    let got = frame(reader.next(ZERO).unwrap());
    assert_eq!((got.payload, got.side_data, got.stream_seq), (&b"whole frame"[..], &b"side"[..], 0));
    let expected = FrameDescriptor {
        seq: 0,
        key_seq: 0,
        crc32c: Some(crc32c::crc32c(b"whole frame")),
        side_data_offset: 16,
        side_data_length: 4,
        discontinuity: Discontinuity::Start,
        ..described
    };
    assert_eq!(got.descriptor, expected);
    assert_eq!(reader.next(ZERO), Ok(Next::Timeout));
    assert_eq!((reader.totals(), reader.epoch()), (writer.totals(), 1));
    assert_eq!(writer.totals().frames, 1);
}

#[test]
fn an_abandoned_frame_leaves_nothing_behind() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    let mut reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
    writer.append(&[1; 5000]).unwrap();
    writer.abandon();
    write(&mut writer, &mut bell, b"next", false);
    let got = frame(reader.next(ZERO).unwrap());
    assert_eq!((got.payload, got.descriptor.seq, got.descriptor.key_seq), (&b"next"[..], 0, NONE));
    assert_eq!(got.descriptor.crc32c, Some(crc32c::crc32c(b"next")));
}

#[test]
fn a_frame_over_the_limit_is_refused_and_the_open_one_kept() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    let mut reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
    let most = payload(1, 64 << 10);
    writer.append(&most).unwrap();
    let refused = FrameTooLarge { wanted: (64 << 10) + 1, limit: 64 << 10 };
    assert_eq!(writer.append(b"x"), Err(refused));
    writer.commit(&FrameDescriptor::default(), &mut bell);
    assert_eq!(frame(reader.next(ZERO).unwrap()).payload, most);
}

#[test]
fn a_lapped_reader_learns_its_loss_and_goes_on_at_a_key() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    let mut reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
    for seq in 0..100 {
        write(&mut writer, &mut bell, &payload(seq, 100), seq % 20 == 0);
    }
    assert_eq!(reader.next(ZERO), Ok(Next::Lapped { lost: 80, resume_at: 80 }));
    for seq in 80..100 {
        let got = frame(reader.next(ZERO).unwrap());
        assert_eq!((got.payload, got.descriptor.seq, got.descriptor.key_seq), (&payload(seq, 100)[..], seq, 80));
    }
    // Now by bytes rather than by slots, and without a key in the part that is kept.
    for seq in 100..110 {
        write(&mut writer, &mut bell, &payload(seq, 60_000), false);
    }
    assert_eq!(reader.next(ZERO), Ok(Next::Lapped { lost: 10, resume_at: 110 }));
    assert_eq!(reader.next(ZERO), Ok(Next::Timeout));
    write(&mut writer, &mut bell, b"not yet", false);
    assert_eq!(reader.next(ZERO), Ok(Next::Timeout));
    write(&mut writer, &mut bell, b"now", true);
    assert_eq!(reader.next(ZERO), Ok(Next::Skipped { count: 1 }));
    assert_eq!(frame(reader.next(ZERO).unwrap()).payload, b"now");
}

#[test]
fn a_reader_starts_where_it_is_told() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    for seq in 0..100u64 {
        write(&mut writer, &mut bell, &payload(seq, 100), seq % 10 == 5);
    }
    let first = |start| {
        let mut reader = Reader::open(&dir.path().join("v"), start).unwrap();
        match reader.next(ZERO).unwrap() {
            Next::Frame(frame) => Some(frame.descriptor.seq),
            _ => None,
        }
    };
    assert_eq!(first(Start::Live), None);
    assert_eq!(first(Start::Key), Some(95));
    assert_eq!(first(Start::Oldest), Some(37));
    assert_eq!(first(Start::OldestKey), Some(45));
    assert_eq!(first(Start::Seq(50)), Some(50));
    assert_eq!(first(Start::Seq(3)), None);
    assert_eq!(first(Start::Seq(1000)), None);
}

#[test]
fn the_next_writer_goes_on_where_the_last_one_died() {
    let dir = directory();
    let ring = dir.path().join("v");
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&ring, &spec()).unwrap();
    writer.set_configuration(b"sps pps").unwrap();
    for seq in 0..70u64 {
        write(&mut writer, &mut bell, &payload(seq, 500), seq % 30 == 1);
    }
    let mut reader = Reader::open(&ring, Start::Oldest).unwrap();
    let inode = std::fs::metadata(ring.join("ctl")).unwrap().ino();
    // Dies with a frame half written.
    writer.append(&[0xEE; 3000]).unwrap();
    assert!(matches!(builder::attach(&ring, &spec()), Err(AttachError::Locked)));
    drop((writer, bell));

    let mut bell = BellWriter::attach(dir.path()).unwrap();
    let other = RingSpec { slot_count: 128, ..spec() };
    assert!(matches!(builder::attach(&ring, &other), Err(AttachError::Shape("number of slots"))));
    let left = builder::look_at(&ring).unwrap();
    assert_eq!(left.last_frame.unwrap().pts, Some(69 * 3600));
    let mut writer = builder::attach(&ring, &spec()).unwrap();
    bell.advance_to(writer.stream_seq_after());
    assert_eq!((writer.epoch(), writer.head_seq(), bell.stream_head()), (2, 70, 70));
    assert_eq!(writer.set_configuration(b"sps pps"), Ok(1));
    assert_eq!(std::fs::metadata(ring.join("ctl")).unwrap().ino(), inode);
    assert_eq!(reader.position(), 7);
    for seq in 7..70 {
        assert_eq!(frame(reader.next(ZERO).unwrap()).payload, payload(seq, 500));
    }
    write(&mut writer, &mut bell, b"back", false);
    write(&mut writer, &mut bell, b"again", true);
    let got = frame(reader.next(ZERO).unwrap());
    assert_eq!((got.payload, got.descriptor.seq, got.stream_seq), (&b"back"[..], 70, 70));
    assert_eq!((got.descriptor.discontinuity, got.descriptor.key_seq), (Discontinuity::Restart, NONE));
    let got = frame(reader.next(ZERO).unwrap());
    assert_eq!((got.descriptor.discontinuity, got.descriptor.key_seq), (Discontinuity::None, 71));
    assert_eq!(reader.epoch(), 2);
    assert_eq!(writer.totals().frames, 72);
    assert_eq!(reader.totals().discontinuities, 2);
}

#[test]
fn the_first_frame_after_a_restart_says_so_unless_its_source_knows_better() {
    for (told, said) in [
        (Discontinuity::None, Discontinuity::Restart),
        (Discontinuity::Start, Discontinuity::Restart),
        (Discontinuity::Loss, Discontinuity::Loss),
    ] {
        let dir = directory();
        let ring = dir.path().join("v");
        let mut bell = BellWriter::create(dir.path()).unwrap();
        drop(builder::create(&ring, &spec()).unwrap());
        let mut writer = builder::attach(&ring, &spec()).unwrap();
        for _ in 0..2 {
            writer.commit(&FrameDescriptor { discontinuity: told, ..FrameDescriptor::default() }, &mut bell);
        }
        let mut reader = Reader::open(&ring, Start::Oldest).unwrap();
        assert_eq!(frame(reader.next(ZERO).unwrap()).descriptor.discontinuity, said);
        assert_eq!(frame(reader.next(ZERO).unwrap()).descriptor.discontinuity, told);
    }
}

#[test]
fn a_ring_is_looked_at_without_being_taken_up() {
    let dir = directory();
    let ring = dir.path().join("v");
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&ring, &spec()).unwrap();
    assert_eq!(builder::look_at(&ring), Some(builder::Left::default()));
    bell.advance_to(40);
    for timeline_ns in [10, 30, 20] {
        writer.commit(&FrameDescriptor { timeline_ns, ..FrameDescriptor::default() }, &mut bell);
    }
    let left = builder::look_at(&ring).unwrap();
    assert_eq!((left.stream_seq_after, left.timeline_ns), (43, 30));
    assert_eq!(left.last_frame.map(|frame| (frame.seq, frame.timeline_ns)), Some((2, 20)));
    assert_eq!(builder::look_at(dir.path()), None);
    assert_eq!(Reader::open(&ring, Start::Live).unwrap().epoch(), 1);
}

#[test]
fn a_frame_that_a_writer_did_not_live_to_count_is_counted_by_the_next() {
    let dir = directory();
    let ring = dir.path().join("v");
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&ring, &spec()).unwrap();
    for seq in 0..3 {
        write(&mut writer, &mut bell, &payload(seq, 100), false);
    }
    drop(writer);
    // Killed between head and totals.
    let ctl = std::fs::OpenOptions::new().write(true).open(ring.join("ctl")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&ctl, &2_u64.to_le_bytes(), layout::TOTALS as u64).unwrap();
    assert_eq!(builder::attach(&ring, &spec()).unwrap().totals().frames, 3);
}

#[test]
fn the_last_key_is_found_again_after_a_restart() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    for seq in 0..10u64 {
        write(&mut writer, &mut bell, b"x", seq == 4);
    }
    drop(writer);
    let writer = builder::attach(&dir.path().join("v"), &spec()).unwrap();
    let reader = Reader::open(&dir.path().join("v"), Start::Key).unwrap();
    assert_eq!((reader.last_key_seq(), reader.position(), writer.head_seq()), (Some(4), 4, 10));
}

#[test]
fn eight_configurations_are_kept_and_the_ninth_is_gone() {
    let dir = directory();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    let reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
    assert_eq!(reader.configuration(0), Err(ConfigurationError::Unknown));
    for generation in 1..=10u32 {
        let bytes = payload(u64::from(generation), 777 * generation as usize);
        assert_eq!(writer.set_configuration(&bytes), Ok(generation));
        assert_eq!(writer.set_configuration(&bytes), Ok(generation));
        assert_eq!(reader.configuration(generation), Ok(bytes));
    }
    assert_eq!(reader.configuration(2), Err(ConfigurationError::Gone));
    assert_eq!(reader.configuration(3), Ok(payload(3, 777 * 3)));
    assert_eq!(reader.configuration(11), Err(ConfigurationError::Unknown));
    assert!(writer.set_configuration(&[0; layout::CONFIG_BYTES_MAX + 1]).is_err());
    assert_eq!(reader.configuration_generation(), 10);
}

#[test]
fn states_are_values_and_come_after_the_last_frame() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    let mut reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
    writer.set_state(State::Stalled);
    assert_eq!(reader.next(ZERO), Ok(Next::Stalled));
    assert_eq!(reader.next(ZERO), Ok(Next::Timeout));
    write(&mut writer, &mut bell, b"last", false);
    writer.set_state(State::Ended);
    assert_eq!(frame(reader.next(ZERO).unwrap()).payload, b"last");
    assert_eq!(reader.next(Duration::from_secs(9)), Ok(Next::Ended));
}

#[test]
fn the_last_word_on_a_ring_is_left_where_it_has_no_writer_and_is_of_this_layout() {
    let dir = directory();
    let rings = ["left", "written", "later"].map(|name| dir.path().join(name));
    let _bell = BellWriter::create(dir.path()).unwrap();
    let bell = BellReader::open(dir.path()).unwrap();
    let [left, written, later] = rings.each_ref().map(|ring| builder::create(ring, &spec()).unwrap());
    drop((left, later));
    let mut readers = rings.each_ref().map(|ring| Reader::open(ring, Start::Live).unwrap());
    // The last one is of a version that may have other words at these places.
    let ctl = std::fs::OpenOptions::new().write(true).open(rings[2].join("ctl")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&ctl, &2_u16.to_le_bytes(), 8).unwrap();
    let states = |readers: &[Reader]| readers.iter().map(Reader::state).collect::<Vec<_>>();
    builder::end(dir.path());
    assert_eq!(states(&readers), [State::Ended, State::Live, State::Live]);
    assert_eq!(readers[0].next(ZERO), Ok(Next::Ended));
    assert_eq!(bell.state(), State::Live);
    builder::supersede(dir.path());
    assert_eq!(states(&readers), [State::Superseded, State::Superseded, State::Live]);
    assert_eq!(bell.state(), State::Superseded);
    drop(written);
}

#[test]
fn a_silent_writer_is_told_from_a_dead_one() {
    let dir = directory();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    let mut reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
    let start = Instant::now();
    for now in 1..=14 {
        writer.heartbeat(now);
        assert_eq!(reader.next(Duration::from_millis(100)), Ok(Next::Timeout));
    }
    assert_eq!(reader.next(Duration::from_secs(5)), Ok(Next::WriterDead));
    assert!(start.elapsed() >= Duration::from_millis(2300));
    assert_eq!(reader.next(ZERO), Ok(Next::Timeout));
    writer.heartbeat(99);
    assert_eq!(reader.next(ZERO), Ok(Next::Timeout));
}

#[test]
fn a_wake_ends_a_wait_early() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    let mut reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
    let target = writer.wake_target();
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let got = reader.next(Duration::from_secs(20)).unwrap();
            frame(got).payload.to_vec()
        });
        std::thread::sleep(Duration::from_millis(20));
        write(&mut writer, &mut bell, b"wake up", false);
        target.wake();
        assert_eq!(reading.join().unwrap(), b"wake up");
    });
}

#[test]
fn a_superseded_ring_says_so() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let (temporary, target) = (dir.path().join(".tmp-1-1"), dir.path().join("video0"));
    let mut old = builder::create(&temporary, &spec()).unwrap();
    builder::publish(&temporary, &target).unwrap();
    write(&mut old, &mut bell, b"old", false);
    let mut reader = Reader::open(&target, Start::Oldest).unwrap();
    drop(old);
    let mut new = builder::create(&temporary, &RingSpec { slot_count: 128, ..spec() }).unwrap();
    builder::publish(&temporary, &target).unwrap();
    assert!(!temporary.exists());
    write(&mut new, &mut bell, b"new", false);
    assert_eq!(frame(reader.next(ZERO).unwrap()).payload, b"old");
    assert_eq!(reader.next(ZERO), Ok(Next::Superseded));
    let mut reader = Reader::open(&target, Start::Oldest).unwrap();
    assert_eq!(frame(reader.next(ZERO).unwrap()).payload, b"new");
}

#[test]
fn readers_of_a_ring_that_was_exchanged_and_left_without_a_word_are_told_when_it_is_swept() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let dir = directory();
    let stream = dir.path().join("cam1");
    let (target, temporary) = (stream.join("video0"), stream.join(".tmp-2-video0"));
    std::fs::create_dir(&stream).unwrap();
    drop(builder::create(&target, &spec()).unwrap());
    let mut reader = Reader::open(&target, Start::Oldest).unwrap();
    drop(builder::create(&temporary, &RingSpec { slot_count: 128, ..spec() }).unwrap());
    // As `builder::publish` does it; then the process is killed.
    renameat_with(CWD, &temporary, CWD, &target, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(reader.next(ZERO), Ok(Next::Timeout));
    assert_eq!(builder::sweep_temporary(dir.path()).unwrap(), 1);
    assert_eq!(reader.next(ZERO), Ok(Next::Superseded));
    assert_eq!(Reader::open(&target, Start::Oldest).unwrap().header().slot_count, 128);
}

#[test]
fn what_a_dead_process_was_building_is_swept() {
    let dir = directory();
    let root = dir.path();
    std::fs::create_dir(root.join("stream")).unwrap();
    let live = builder::create(&root.join(".tmp-1-1"), &spec()).unwrap();
    drop(builder::create(&root.join(".tmp-2-1"), &spec()).unwrap());
    drop(builder::create(&root.join("stream/.tmp-2-2"), &spec()).unwrap());
    // Killed before it had a lock, and before it had more than a file; a link leads elsewhere.
    std::fs::create_dir(root.join(".tmp-3-1")).unwrap();
    std::fs::write(root.join(".tmp-3-2"), b"half").unwrap();
    std::fs::create_dir(root.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(root.join("elsewhere"), root.join(".tmp-3-3")).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::fs::create_dir(root.join(".tmp-4-1")).unwrap();
        std::os::unix::fs::chown(root.join(".tmp-4-1"), Some(65_534), None).unwrap();
    }
    assert_eq!(builder::sweep_temporary(root).unwrap(), 5);
    let mut left: Vec<_> =
        std::fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    left.retain(|name| name != ".tmp-4-1" || !is_root);
    assert_eq!(left, [".tmp-1-1", "elsewhere", "stream"]);
    assert_eq!(root.join(".tmp-4-1").exists(), is_root, "another user's");
    assert_eq!(std::fs::read_dir(root.join("stream")).unwrap().count(), 0);
    drop(live);
}

#[test]
fn a_borrowed_frame_says_when_it_has_been_overtaken() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    let mut reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
    write(&mut writer, &mut bell, &payload(0, 1000), true);
    let Next::Frame(borrowed) = reader.next_borrowed(ZERO).unwrap() else { panic!("no frame") };
    let mut part = [0; 10];
    borrowed.copy_payload(990, &mut part);
    assert!(borrowed.is_intact());
    assert_eq!(part, payload(0, 1000)[990..]);
    let margin = borrowed.margin();
    assert!(margin > 0 && margin < 1 << 18);
    for seq in 1..6 {
        write(&mut writer, &mut bell, &payload(seq, 60_000), true);
    }
    assert!(!borrowed.is_intact());
    assert_eq!(borrowed.margin(), 0);
}

/// The writer as fast as it can, the reader as fast as it can: no frame that was not written, and every loss accounted for.
#[test]
fn a_racing_reader_accepts_no_torn_frame_and_counts_every_lost_one() {
    let dir = directory();
    let path = dir.path().join("v");
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer =
        builder::create(&path, &RingSpec { data_capacity: 1 << 16, frame_size_max: 16 << 10, ..spec() }).unwrap();
    let mut reader = Reader::open(&path, Start::Live).unwrap();
    let stop = AtomicBool::new(false);
    let (mut read, mut lost) = (0u64, 0u64);
    let written = std::thread::scope(|scope| {
        let stop = &stop;
        let writing = scope.spawn(move || {
            let bytes = payload(99, 16 << 10);
            let mut seq = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let n = length(seq, 16 << 10).max(8);
                writer.append(&seq.to_le_bytes()).unwrap();
                for piece in bytes[8..n].chunks(1316) {
                    writer.append(piece).unwrap();
                }
                if seq.is_multiple_of(97) {
                    writer.abandon();
                    writer.append(&seq.to_le_bytes()).unwrap();
                }
                writer.commit(&FrameDescriptor { key: seq.is_multiple_of(8), ..Default::default() }, &mut bell);
                seq += 1;
            }
            writer.set_state(State::Ended);
            seq
        });
        // Whatever happens below, the writer stops.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(stop);
        let start = Instant::now();
        loop {
            // Longer where other work leaves the reader little time.
            if start.elapsed() > Duration::from_secs(if read > 100 { 3 } else { 30 }) {
                stop.store(true, Ordering::Relaxed);
            }
            match reader.next(Duration::from_millis(50)).unwrap() {
                Next::Frame(frame) => {
                    let seq = frame.descriptor.seq;
                    assert_eq!(frame.payload[..8], seq.to_le_bytes());
                    // Checked here, whatever the reader does: the checksum was taken of what was appended.
                    assert_eq!(Some(crc32c::crc32c(frame.payload)), frame.descriptor.crc32c, "torn frame {seq}");
                    assert_eq!(seq, read + lost, "a loss was not reported");
                    read += 1;
                }
                Next::Lapped { lost: n, .. } | Next::Skipped { count: n } => lost += n,
                Next::Ended => break,
                Next::Timeout => {}
                other => panic!("{other:?}"),
            }
        }
        writing.join().unwrap()
    });
    assert_eq!(read + lost, written);
    assert!(read > 100 && lost > 0, "{read} read, {lost} lost of {written}: that was no race");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_sequence_of_frames_comes_out_as_it_went_in(
        sizes in prop::collection::vec((0usize..=4096, any::<bool>(), 1usize..2000), 1..60),
        large in prop::collection::vec(0usize..=(64 << 10), 0..8),
        side in 0usize..100,
    ) {
        let dir = directory();
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
        let mut reader = Reader::open(&dir.path().join("v"), Start::Live).unwrap();
        reader.verify_checksums(true);
        let all = sizes.iter().copied().chain(large.iter().map(|&n| (n, true, 1316)));
        for (seq, (n, key, piece)) in all.enumerate() {
            let bytes = payload(seq as u64, n);
            for piece in bytes.chunks(piece) {
                writer.append(piece).unwrap();
            }
            prop_assert_eq!(writer.written(0..n), &bytes[..]);
            let side_data = payload(!0, side);
            let has_side = side > 0 && n + side + 8 <= 64 << 10;
            if has_side {
                writer.append_side_data(&side_data).unwrap();
            }
            writer.commit(&FrameDescriptor { key, duration: n as u32, ..Default::default() }, &mut bell);
            let got = frame(reader.next(ZERO).unwrap());
            prop_assert_eq!(got.payload, &bytes[..]);
            prop_assert_eq!(got.side_data, if has_side { &side_data[..] } else { &[] });
            prop_assert_eq!((got.descriptor.seq, got.descriptor.key, got.stream_seq), (seq as u64, key, seq as u64));
        }
    }
}
