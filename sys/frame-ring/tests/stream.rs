//! Several rings under one bell.
mod common;

use std::path::Path;
use std::time::Duration;

use common::{directory, payload, spec, write};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::{Discontinuity, FrameDescriptor};
use headworks_frame_ring::directory::{list_streams, list_tracks};
use headworks_frame_ring::layout::{State, TrackKind};
use headworks_frame_ring::reader::Start;
use headworks_frame_ring::stream_reader::{StreamEvent, StreamNext, StreamReader};
use headworks_frame_ring::writer::Writer;
use proptest::prelude::*;

const ZERO: Duration = Duration::ZERO;

fn audio() -> RingSpec {
    RingSpec { kind: TrackKind::Audio, codec: *b"mp4a", clock_rate: 48_000, ..spec() }
}

#[test]
fn frames_of_all_tracks_come_in_the_order_they_were_committed() {
    let dir = directory();
    let stream = dir.path().join("cam%2F1");
    std::fs::create_dir(&stream).unwrap();
    let mut bell = BellWriter::create(&stream).unwrap();
    let mut video = builder::create(&stream.join("video0"), &spec()).unwrap();
    let mut sound = builder::create(&stream.join("audio0"), &audio()).unwrap();
    assert_eq!(list_streams(dir.path()).unwrap()[0].name, "cam/1");
    assert_eq!(list_tracks(&stream).unwrap(), ["audio0", "video0"]);

    let mut reader = StreamReader::open(&stream, Start::Live, None).unwrap();
    assert_eq!(reader.next(ZERO), StreamNext::Event(StreamEvent::TrackAdded { track: 0 }));
    assert_eq!(reader.next(ZERO), StreamNext::Event(StreamEvent::TrackAdded { track: 1 }));
    assert_eq!(reader.track(0).unwrap().name(), "audio0");
    assert_eq!(reader.next(ZERO), StreamNext::Event(StreamEvent::Timeout));
    let order = [1, 0, 0, 1, 1, 1, 0, 1, 0, 0];
    for (n, &track) in order.iter().enumerate() {
        let writer = if track == 0 { &mut sound } else { &mut video };
        write(writer, &mut bell, &payload(n as u64, 300), true);
    }
    // A third track appears; its frames come in their place.
    let mut data = builder::create(&stream.join(".tmp-1"), &audio()).unwrap();
    builder::publish(&stream.join(".tmp-1"), &stream.join("data0")).unwrap();
    bell.tracks_changed();
    write(&mut data, &mut bell, b"late", true);
    write(&mut video, &mut bell, b"later", true);

    assert_eq!(reader.next(ZERO), StreamNext::Event(StreamEvent::TrackAdded { track: 2 }));
    for (n, &track) in order.iter().enumerate() {
        let StreamNext::Frame { track: got, frame } = reader.next(ZERO) else { panic!("no frame") };
        assert_eq!((got, frame.stream_seq, frame.payload), (track, n as u64, &payload(n as u64, 300)[..]));
    }
    let StreamNext::Frame { track: 2, frame } = reader.next(ZERO) else { panic!("no frame") };
    assert_eq!(frame.payload, b"late");
    data.set_state(State::Ended);
    let StreamNext::Event(StreamEvent::TrackEnded { track: 2 }) = reader.next(ZERO) else { panic!("no end") };
    let StreamNext::Frame { track: 1, frame } = reader.next(ZERO) else { panic!("no frame") };
    assert_eq!((frame.payload, frame.stream_seq), (&b"later"[..], 11));
    assert_eq!(reader.next(ZERO), StreamNext::Event(StreamEvent::Timeout));
    bell.set_state(State::Ended);
    assert_eq!(reader.next(Duration::from_secs(9)), StreamNext::Event(StreamEvent::Ended));
}

#[test]
fn sound_begins_where_the_video_key_does() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let mut sound = builder::create(&dir.path().join("audio0"), &audio()).unwrap();
    for n in 0..20u64 {
        write(&mut video, &mut bell, b"picture", n == 3 || n == 11);
        write(&mut sound, &mut bell, b"sound", true);
    }
    let mut reader = StreamReader::open(dir.path(), Start::Key, None).unwrap();
    let mut got = Vec::new();
    loop {
        match reader.next(ZERO) {
            StreamNext::Frame { frame, .. } => got.push(frame.stream_seq),
            StreamNext::Event(StreamEvent::TrackAdded { .. }) => {}
            StreamNext::Event(StreamEvent::Timeout) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, (22..40).collect::<Vec<_>>());
    let mut reader = StreamReader::open(dir.path(), Start::Oldest, Some("audio0")).unwrap();
    assert_eq!(reader.next(ZERO), StreamNext::Event(StreamEvent::TrackAdded { track: 0 }));
    let StreamNext::Frame { frame, .. } = reader.next(ZERO) else { panic!("no frame") };
    assert_eq!((frame.stream_seq, frame.payload), (1, &b"sound"[..]));
}

/// All events and frames that are there now, without what was added before the first of them.
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

#[test]
fn a_ring_that_ended_and_is_taken_up_again_is_read_again() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let mut sound = builder::create(&dir.path().join("audio0"), &audio()).unwrap();
    write(&mut sound, &mut bell, b"before", true);
    for writer in [&mut video, &mut sound] {
        writer.set_state(State::Ended);
    }
    // The source has come back, the bell rings again, and the rings are still on their way.
    let mut reader = StreamReader::open(dir.path(), Start::Live, None).unwrap();
    let ended =
        ["TrackAdded { track: 0 }", "TrackAdded { track: 1 }", "TrackEnded { track: 0 }", "TrackEnded { track: 1 }"];
    assert_eq!(drain(&mut reader), ended);
    drop(sound);
    let mut sound = builder::attach(&dir.path().join("audio0"), &audio()).unwrap();
    sound.set_state(State::Live);
    bell.tracks_changed();
    write(&mut sound, &mut bell, b"after", true);
    assert_eq!(drain(&mut reader), ["TrackAdded { track: 0 }", "0: after"]);
    // The other ring is cleared away, and a new one is made in its place.
    drop(video);
    std::fs::remove_dir_all(dir.path().join("video0")).unwrap();
    bell.tracks_changed();
    assert_eq!(drain(&mut reader), [""; 0]);
    let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    bell.tracks_changed();
    write(&mut video, &mut bell, b"new", true);
    assert_eq!(drain(&mut reader), ["TrackAdded { track: 2 }", "2: new"]);
}

#[test]
fn frames_passed_over_for_a_key_that_never_came_are_told_before_the_end_of_the_track() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let mut reader = StreamReader::open(dir.path(), Start::Key, None).unwrap();
    for _ in 0..5 {
        write(&mut video, &mut bell, b"picture", false);
    }
    assert_eq!(drain(&mut reader), ["TrackAdded { track: 0 }"]);
    write(&mut video, &mut bell, b"picture", false);
    video.set_state(State::Ended);
    assert_eq!(drain(&mut reader), ["Skipped { track: 0, count: 6 }", "TrackEnded { track: 0 }"]);
}

#[test]
fn sound_that_comes_before_the_first_picture_is_read_whole_from_its_empty_ring() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let _video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let mut sound = builder::create(&dir.path().join("audio0"), &audio()).unwrap();
    let mut reader = StreamReader::open(dir.path(), Start::Key, None).unwrap();
    for sample in [b"one", b"two"] {
        write(&mut sound, &mut bell, sample, true);
    }
    let all = ["TrackAdded { track: 0 }", "TrackAdded { track: 1 }", "0: one", "0: two"];
    assert_eq!(drain(&mut reader), all);
}

/// Who waits for a stream opens it when its bell alone is there.
#[test]
fn a_video_track_that_comes_later_begins_at_its_first_key_and_says_what_lies_before() {
    for start in [Start::Key, Start::OldestKey] {
        let dir = directory();
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut reader = StreamReader::open(dir.path(), start, None).unwrap();
        assert_eq!(drain(&mut reader), [""; 0]);
        let ring = |spec: &RingSpec, name: &str| {
            let writer = builder::create(&dir.path().join(".tmp-1"), spec).unwrap();
            builder::publish(&dir.path().join(".tmp-1"), &dir.path().join(name)).unwrap();
            writer
        };
        let mut sound = ring(&audio(), "audio0");
        let mut video = ring(&spec(), "video0");
        let mut other = ring(&spec(), "video1");
        bell.tracks_changed();
        for n in 0..7 {
            write(&mut video, &mut bell, format!("picture {n}").as_bytes(), n == 3 || n == 6);
            write(&mut sound, &mut bell, format!("sound {n}").as_bytes(), true);
            write(&mut other, &mut bell, b"no key", false);
        }
        let added = ["TrackAdded { track: 0 }", "TrackAdded { track: 1 }", "TrackAdded { track: 2 }"];
        let frames = [
            "Skipped { track: 1, count: 3 }",
            "0: sound 0",
            "0: sound 1",
            "0: sound 2",
            "1: picture 3",
            "0: sound 3",
            "1: picture 4",
            "0: sound 4",
            "1: picture 5",
            "0: sound 5",
            "1: picture 6",
            "0: sound 6",
        ];
        assert_eq!(drain(&mut reader), [&added[..], &frames].concat(), "{start:?}");

        // What takes the place of a track that has been read is read whole; of the other there is still nothing to decode.
        drop((video, other));
        let mut video = ring(&spec(), "video0");
        let mut other = ring(&spec(), "video1");
        bell.tracks_changed();
        for is_key in [false, true] {
            write(&mut video, &mut bell, b"new", is_key);
            write(&mut other, &mut bell, b"other", is_key);
        }
        let expected = [
            "TrackAdded { track: 3 }",
            "Skipped { track: 2, count: 7 }",
            "TrackAdded { track: 4 }",
            "Skipped { track: 4, count: 1 }",
            "3: new",
            "3: new",
            "4: other",
        ];
        assert_eq!(drain(&mut reader), expected, "{start:?}");
    }
}

#[test]
fn a_track_that_comes_later_is_read_from_its_first_frame_on_where_no_key_is_asked_for() {
    for start in [Start::Live, Start::Oldest] {
        let dir = directory();
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut reader = StreamReader::open(dir.path(), start, None).unwrap();
        let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
        bell.tracks_changed();
        write(&mut video, &mut bell, b"no key", false);
        assert_eq!(drain(&mut reader), ["TrackAdded { track: 0 }", "0: no key"], "{start:?}");
    }
}

/// A stream with one video track, made beside its place and put there whole.
fn publish_stream(stream: &Path) -> (BellWriter, Writer) {
    let temporary = stream.with_file_name(".tmp-1-1");
    std::fs::create_dir(&temporary).unwrap();
    let bell = BellWriter::create(&temporary).unwrap();
    let ring = builder::create(&temporary.join("video0"), &spec()).unwrap();
    builder::publish(&temporary, stream).unwrap();
    (bell, ring)
}

#[test]
fn a_replaced_stream_says_so_and_a_replaced_track_is_opened_again() {
    let dir = directory();
    let stream = dir.path().join("cam1");
    let build = || publish_stream(&stream);
    let (mut bell, ring) = build();
    let mut reader = StreamReader::open(&stream, Start::Live, None).unwrap();
    assert_eq!(reader.next(ZERO), StreamNext::Event(StreamEvent::TrackAdded { track: 0 }));
    let mut old = ring;
    let mut other = builder::create(&stream.join("video1"), &spec()).unwrap();
    bell.tracks_changed();
    write(&mut old, &mut bell, b"old shape", true);
    write(&mut other, &mut bell, b"beside", true);
    drop(old);
    let mut ring = builder::create(&stream.join(".tmp-1"), &audio()).unwrap();
    builder::publish(&stream.join(".tmp-1"), &stream.join("video0")).unwrap();
    bell.tracks_changed();
    write(&mut ring, &mut bell, b"new shape", true);
    write(&mut other, &mut bell, b"beside again", true);
    let mut seen = Vec::new();
    loop {
        match reader.next(ZERO) {
            StreamNext::Frame { track, frame } => {
                seen.push(("frame", track, String::from_utf8_lossy(frame.payload).into_owned()));
            }
            StreamNext::Event(StreamEvent::TrackAdded { track }) => seen.push(("added", track, String::new())),
            StreamNext::Event(StreamEvent::Timeout) => break,
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        ("added", 1, ""),
        ("frame", 0, "old shape"),
        ("frame", 1, "beside"),
        ("added", 2, ""),
        ("frame", 2, "new shape"),
        ("frame", 1, "beside again"),
    ];
    // The old ring is found drained as soon as its last frame is out, maybe before the one beside it.
    let frames = |of: &[(&'static str, usize, String)]| -> Vec<_> {
        of.iter().filter(|(what, ..)| *what == "frame").cloned().collect::<Vec<_>>()
    };
    let expected = expected.map(|(what, track, bytes)| (what, track, bytes.to_owned()));
    assert_eq!(frames(&seen), frames(&expected));
    assert_eq!(seen.len(), expected.len());
    drop((bell, ring, other));
    let (mut bell, mut ring) = build();
    write(&mut ring, &mut bell, b"another stream", true);
    assert_eq!(reader.next(Duration::from_secs(9)), StreamNext::Event(StreamEvent::Superseded));
    assert_eq!(drain(&mut reader), ["TrackAdded { track: 3 }", "TrackEnded { track: 1 }", "3: another stream"]);
    write(&mut ring, &mut bell, b"goes on", true);
    assert_eq!(drain(&mut reader), ["3: goes on"]);
    assert_eq!(reader.bell().stream_head(), 2);
}

/// A reader that stays for weeks holds the memory of the rings that it reads, and of no other.
#[test]
fn memory_of_rings_that_were_replaced_or_cleared_away_is_given_back() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let mut sound = builder::create(&dir.path().join("audio0"), &audio()).unwrap();
    let mut reader = StreamReader::open(dir.path(), Start::Live, None).unwrap();
    let held = |reader: &mut StreamReader| {
        let seen = drain(reader).len();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let gone = format!("{}/", dir.path().display());
        let lines = maps.lines().filter(|line| line.contains(&gone) && line.contains("/data (deleted)"));
        (seen, lines.count())
    };
    write(&mut sound, &mut bell, b"sound", true);
    sound.set_state(State::Ended);
    // Two tracks added, a frame, an end.
    assert_eq!(held(&mut reader), (4, 0));
    drop((video, sound));
    video = builder::create(&dir.path().join(".tmp-1"), &spec()).unwrap();
    builder::publish(&dir.path().join(".tmp-1"), &dir.path().join("video0")).unwrap();
    std::fs::remove_dir_all(dir.path().join("audio0")).unwrap();
    bell.tracks_changed();
    write(&mut video, &mut bell, b"picture", true);
    assert_eq!(held(&mut reader), (2, 0));
}

#[test]
fn of_rings_that_come_and_go_for_ever_a_reader_holds_a_bounded_number() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut stays = builder::create(&dir.path().join("video0"), &audio()).unwrap();
    let mut reader = StreamReader::open(dir.path(), Start::Live, None).unwrap();
    assert_eq!(drain(&mut reader), ["TrackAdded { track: 0 }"]);
    for n in 0..1_100 {
        let ring = dir.path().join(format!("audio{n}"));
        let mut writer = builder::create(&ring, &audio()).unwrap();
        bell.tracks_changed();
        write(&mut writer, &mut bell, b"sound", true);
        write(&mut stays, &mut bell, b"picture", true);
        writer.set_state(State::Ended);
        let seen = drain(&mut reader);
        let track = if n < 1_023 { n + 1 } else { 1 };
        assert_eq!(seen[..2], [format!("TrackAdded {{ track: {track} }}"), format!("{track}: sound")], "{n}");
        assert!(seen.contains(&"0: picture".to_owned()) && seen.contains(&format!("TrackEnded {{ track: {track} }}")));
        drop(writer);
        std::fs::remove_dir_all(ring).unwrap();
        bell.tracks_changed();
        assert_eq!(drain(&mut reader), [""; 0]);
    }
    assert!(reader.track(1_023).is_some() && reader.track(1_024).is_none());
}

/// A writer that finds a bell it cannot take up makes a new one over the same rings; nobody tells those who wait at the old one.
#[test]
fn a_new_bell_over_the_same_rings_is_found_and_no_frame_is_repeated_or_skipped() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let mut reader = StreamReader::open(dir.path(), Start::Live, None).unwrap();
    write(&mut video, &mut bell, b"before", true);
    assert_eq!(drain(&mut reader), ["TrackAdded { track: 0 }", "0: before"]);
    drop((bell, video));
    for file in ["bell", "writer.lock"] {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut video = builder::attach(&dir.path().join("video0"), &spec()).unwrap();
    bell.advance_to(video.stream_seq_after());
    write(&mut video, &mut bell, b"after", true);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match reader.next(Duration::from_secs(20)) {
            StreamNext::Event(StreamEvent::WriterDead) => {}
            StreamNext::Event(event) => seen.push(format!("{event:?}")),
            StreamNext::Frame { track, frame } => seen.push(format!("{track}: {}", frame.stream_seq)),
        }
    }
    assert_eq!(seen, ["Superseded", "0: 1"]);
}

#[test]
fn a_frame_that_its_writer_published_but_did_not_ring_for_is_read_before_another_stream_is() {
    let dir = directory();
    let stream = dir.path().join("cam1");
    let build = || publish_stream(&stream);
    let (mut bell, mut video) = build();
    let mut reader = StreamReader::open(&stream, Start::Live, None).unwrap();
    write(&mut video, &mut bell, b"one", true);
    let elsewhere = directory();
    let mut deaf = BellWriter::create(elsewhere.path()).unwrap();
    deaf.advance_to(1);
    write(&mut video, &mut deaf, b"two", true);
    assert_eq!(drain(&mut reader), ["TrackAdded { track: 0 }", "0: one"]);
    drop((bell, video));
    let (mut bell, mut video) = build();
    write(&mut video, &mut bell, b"three", true);
    assert_eq!(drain(&mut reader), ["0: two", "Superseded", "TrackAdded { track: 1 }", "1: three"]);
}

/// It never opens anything again: not the ring, not the bell, and it learns of nothing but the frames.
#[test]
fn a_reader_that_waits_through_a_restart_goes_on_with_one_discontinuity() {
    let dir = directory();
    let ring = dir.path().join("video0");
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut video = builder::create(&ring, &spec()).unwrap();
    for seq in 0..5 {
        write(&mut video, &mut bell, &payload(seq, 5000), seq == 0);
    }
    let seen = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut reader = StreamReader::open(dir.path(), Start::Oldest, None).unwrap();
            let mut seen = Vec::new();
            while seen.len() < 10 {
                match reader.next(Duration::from_secs(20)) {
                    StreamNext::Frame { frame, .. } => {
                        let d = &frame.descriptor;
                        assert_eq!((d.seq, frame.payload), (frame.stream_seq, &payload(d.seq, 5000)[..]));
                        seen.push((d.seq, d.discontinuity));
                    }
                    StreamNext::Event(StreamEvent::TrackAdded { track: 0 } | StreamEvent::WriterDead) => {}
                    other => panic!("{other:?}"),
                }
            }
            seen
        });
        std::thread::sleep(Duration::from_millis(30));
        // Dies with half of frame 5 written.
        video.append(&[0xEE; 3000]).unwrap();
        drop((bell, video));
        std::thread::sleep(Duration::from_millis(30));
        let mut bell = BellWriter::attach(dir.path()).unwrap();
        let mut video = builder::attach(&ring, &spec()).unwrap();
        bell.advance_to(video.stream_seq_after());
        for seq in 5..10 {
            write(&mut video, &mut bell, &payload(seq, 5000), seq == 7);
            bell.wake_target().wake();
        }
        reading.join().unwrap()
    });
    let mut expected: Vec<_> = (0..10).map(|seq| (seq, Discontinuity::None)).collect();
    (expected[0].1, expected[5].1) = (Discontinuity::Start, Discontinuity::Restart);
    assert_eq!(seen, expected);
}

#[test]
fn damaged_frames_and_changes_of_configuration_are_values() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let mut reader = StreamReader::open(dir.path(), Start::Oldest, None).unwrap();
    assert_eq!(reader.next(ZERO), StreamNext::Event(StreamEvent::TrackAdded { track: 0 }));
    for (configuration, damaged) in [(&b"one"[..], false), (b"one", true), (b"two", false)] {
        let generation = video.set_configuration(configuration).unwrap();
        video.append(configuration).unwrap();
        video.commit(&FrameDescriptor { damaged, ..Default::default() }, &mut bell);
        let StreamNext::Frame { frame, .. } = reader.next(ZERO) else { panic!("no frame") };
        assert_eq!((frame.descriptor.config_generation, frame.descriptor.damaged), (generation, damaged));
        let ring = reader.track(0).unwrap().ring();
        assert_eq!(ring.configuration(generation), Ok(configuration.to_vec()));
    }
    assert_eq!(reader.track(0).unwrap().ring().configuration_generation(), 2);
    assert_eq!(reader.track(0).unwrap().ring().totals().damaged, 1);
}

/// Whoever has an old handle on the bell: numbers are not given twice after a crash between a ring's head and the bell.
#[test]
fn no_number_is_given_twice_after_a_crash_before_the_bell() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let mut sound = builder::create(&dir.path().join("audio0"), &audio()).unwrap();
    write(&mut video, &mut bell, b"0", true);
    // The crash: a second bell takes the news of frame 1, the stream's own never hears of it.
    let elsewhere = directory();
    let mut deaf = BellWriter::create(elsewhere.path()).unwrap();
    deaf.advance_to(1);
    write(&mut video, &mut deaf, b"1", true);
    drop((bell, video));
    let mut bell = BellWriter::attach(dir.path()).unwrap();
    let mut video = builder::attach(&dir.path().join("video0"), &spec()).unwrap();
    bell.advance_to(video.stream_seq_after());
    write(&mut sound, &mut bell, b"2", true);
    write(&mut video, &mut bell, b"3", true);
    let mut reader = StreamReader::open(dir.path(), Start::Oldest, None).unwrap();
    let mut got = Vec::new();
    loop {
        match reader.next(ZERO) {
            StreamNext::Frame { frame, .. } => got.push((frame.stream_seq, frame.payload.to_vec())),
            StreamNext::Event(StreamEvent::TrackAdded { .. }) => {}
            StreamNext::Event(StreamEvent::Timeout) => break,
            other => panic!("{other:?}"),
        }
    }
    let expected = [b"0", b"1", b"2", b"3"].iter().enumerate().map(|(n, p)| (n as u64, p.to_vec()));
    assert_eq!(got, expected.collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_merge_of_any_interleaving_loses_and_reorders_nothing(
        order in prop::collection::vec((0usize..3, 0usize..900, 0usize..4), 1..200),
    ) {
        let dir = directory();
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut writers: Vec<_> =
            ["a", "b", "c"].iter().map(|n| builder::create(&dir.path().join(n), &audio()).unwrap()).collect();
        let mut reader = StreamReader::open(dir.path(), Start::Live, None).unwrap();
        let mut expected = 0;
        for (n, &(track, size, reads)) in order.iter().enumerate() {
            write(&mut writers[track], &mut bell, &payload(n as u64, size), true);
            // Behind by at most 60, so that nothing is lapped.
            let reads = if n as u64 - expected > 50 { 20 } else { reads };
            for _ in 0..reads {
                match reader.next(ZERO) {
                    StreamNext::Frame { track, frame } => {
                        prop_assert_eq!((frame.stream_seq, track), (expected, order[expected as usize].0));
                        prop_assert_eq!(frame.payload, &payload(expected, order[expected as usize].1)[..]);
                        expected += 1;
                    }
                    StreamNext::Event(StreamEvent::Timeout) | StreamNext::Event(StreamEvent::TrackAdded { .. }) => {}
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                }
            }
        }
    }
}
