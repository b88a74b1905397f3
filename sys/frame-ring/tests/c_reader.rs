//! `include/headworks.h`, built by the C compilers that are here, beside the Rust writer: every frame by its hash, every loss by its
//! count, and files that lie under the address and undefined-behaviour sanitizers; `C_FUZZ_SECONDS` says how long libFuzzer looks (5).
mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::broker::serve;
use common::c_compiler::{
    READERS, SANITIZERS, WARNINGS, compile, frame_line, is_there, make_stream, read, reader, source, start,
};
use common::other_process::fnv;
use common::{directory, golden_ring, length, payload, spec, write, write_across_a_restart};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::directory::encode_name;
use headworks_frame_ring::layout::{State, TrackKind};
use headworks_frame_ring::stream_descriptor::{Programme, StreamDescriptor, Track};

#[test]
fn the_header_compiles_without_a_warning_as_c99_and_as_cpp17() {
    let dir = tempfile::tempdir().unwrap();
    let text = "#define HEADWORKS_IMPLEMENTATION\n#include \"headworks.h\"\n#include <headworks.h>\n";
    let plain =
        "#include \"headworks.h\"\nint of(headworks_next *n);\nint of(headworks_next *n) { return n->status; }\n";
    let mut compiled = 0;
    for (compiler, standard, extension) in
        [("gcc", "c99", "c"), ("clang", "c99", "c"), ("g++", "c++17", "cc"), ("clang++", "c++17", "cc")]
    {
        if !is_there(compiler) {
            continue;
        }
        for (name, text) in [("whole", text), ("declarations", plain)] {
            for optimisation in ["-O0", "-O3"] {
                let from = dir.path().join(format!("{name}.{extension}"));
                fs::write(&from, text).unwrap();
                let standard = format!("-std={standard}");
                let arguments = [&["-c", &standard, optimisation], &WARNINGS[..]].concat();
                compile(compiler, &arguments, &from, &dir.path().join("object"));
                compiled += 1;
            }
        }
    }
    assert!(compiled >= 8, "gcc and g++ are needed");
}

#[test]
fn the_example_at_the_top_of_the_header_is_a_program() {
    let header = fs::read_to_string(source("include/headworks.h")).unwrap();
    let example: String = header
        .lines()
        .skip_while(|line| !line.contains("#define HEADWORKS_IMPLEMENTATION"))
        .take_while(|line| *line == " *" || line.starts_with(" *     "))
        .map(|line| line.strip_prefix(" *     ").unwrap_or("").to_owned() + "\n")
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("example.c");
    fs::write(&from, example).unwrap();
    for compiler in ["gcc", "clang"].into_iter().filter(|compiler| is_there(compiler)) {
        compile(compiler, &[&["-std=c99"], &WARNINGS[..]].concat(), &from, &dir.path().join("example"));
    }
}

#[test]
fn the_golden_vectors_are_read_field_by_field() {
    let dir = golden_ring();
    let expected = "\
ready 1
minor 0 features_optional 1
boot_id 626f6f742d69642d626f6f742d696421
ring_uuid 72696e672d757569642d757569642d21
slots 73728 64 data 262144 65536 config 8192 8192 8
codec avc1 kind 1 clock_rate 90000 numa_node -1 page 4096
head 2 key 1 epoch 1 configuration 1 state 0
totals 2 17 1 2
configuration 0: no such configuration
configuration 1 sps
configuration 2: no such configuration
seq 1 stream_seq 86 key_seq 1
data payload side_data side
pts 1 -90000 1 dts 1 72623859790382856 1 duration 3600
timeline_ns 1000000007 origin 1 27000000 segment 3
arrival 17 18 due 19 commit 20
wall_clock 2 3 1700000000000000000
configuration 1 changed 1 discontinuity 4
packets 4 5 paths 3 damaged 1 9
crc32c 1 f4e36970
picture 1 7 access 4 25 key 1 layer 1
timecode 1 10:59:58:24 1
ring frame 1 7 ";
    for program in READERS.iter() {
        let words =
            ["ring", dir.path().to_str().unwrap(), "oldest", "verify", "header", "configurations", "all", "calls=1"];
        let said = read(program, &words);
        assert!(said.starts_with(expected), "{said}");
    }
}

#[test]
fn every_byte_arrives_across_a_restart_of_the_writer() {
    const FRAMES: u64 = 400;
    let last = format!("stop-after={}", FRAMES - 1);
    for (program, borrow) in READERS.iter().map(|reader| (reader, "copy")).chain([(&READERS[0], "borrow")]) {
        let dir = directory();
        let ring = dir.path().join("video0");
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let writer = builder::create(&ring, &spec()).unwrap();
        let words = ["ring", ring.to_str().unwrap(), "oldest", "verify", borrow, &last];
        let mut reader = start(program, &words);
        reader.hear("ready 0\n");
        let wait_for = |seq| reader.hear(&format!("ring frame {seq} "));
        let _writer = write_across_a_restart(&ring, writer, &mut bell, FRAMES, wait_for);
        let said = reader.end();
        let lines: Vec<&str> = said.lines().skip(1).collect();
        assert_eq!(lines.len() as u64, FRAMES, "{said}");
        for (seq, line) in (0..FRAMES).zip(lines) {
            let bytes = payload(seq, length(seq, 3000));
            assert!(line.starts_with(&frame_line("ring", seq, &bytes)), "{line}");
            let cause = if seq == 0 { 1 } else { 2 * u64::from(seq == FRAMES / 2 + 1) };
            assert!(line.contains(&format!(" key {} discontinuity {cause} ", u64::from(seq % 25 == 0))), "{line}");
        }
    }
}

#[test]
fn a_lapped_reader_learns_its_loss_and_goes_on_at_a_key() {
    let dir = directory();
    let ring = dir.path().join("v");
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&ring, &spec()).unwrap();
    let words = ["ring", ring.to_str().unwrap(), "live", "pause", "timeout=5000", "stop-after=112"];
    let mut reader = start(reader(), &words);
    reader.hear("ready 0\n");
    for seq in 0..100 {
        write(&mut writer, &mut bell, &payload(seq, 100), seq % 20 == 0);
    }
    reader.say("go\n");
    reader.hear("ring overtaken by the writer: 80, on to 80\n");
    reader.hear(&frame_line("ring", 99, &payload(99, 100)));
    reader.pause();
    // Now by bytes rather than by slots, and without a key in the part that is kept.
    for seq in 100..110 {
        write(&mut writer, &mut bell, &payload(seq, 60_000), false);
    }
    reader.go_on();
    reader.hear("ring overtaken by the writer: 10, on to 110\n");
    for seq in 110..113 {
        write(&mut writer, &mut bell, &payload(seq, 100), seq == 112);
    }
    let said = reader.end();
    assert!(said.contains("random access point: 2, on to 112\n"), "{said}");
    assert!(said.contains(&frame_line("ring", 112, &payload(112, 100))), "{said}");
}

#[test]
fn a_reader_starts_where_it_is_told() {
    let dir = directory();
    let ring = dir.path().join("v");
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&ring, &spec()).unwrap();
    for seq in 0..100u64 {
        write(&mut writer, &mut bell, &payload(seq, 100), seq % 10 == 5);
    }
    for (word, position) in [("live", 100), ("key", 95), ("oldest", 37), ("oldest-key", 45), ("sequence=50", 50)] {
        let said = read(reader(), &["ring", ring.to_str().unwrap(), word, "timeout=0", "calls=1"]);
        assert!(said.starts_with(&format!("ready {position}\n")), "{word}: {said}");
    }
    let said = read(reader(), &["ring", ring.to_str().unwrap(), "sequence=3", "timeout=0", "calls=2"]);
    assert_eq!(said.lines().nth(1), Some("ring overtaken by the writer: 92, on to 95"));
    let said = read(reader(), &["ring", ring.to_str().unwrap(), "sequence=3000", "timeout=0"]);
    assert_eq!(said, "ready 100\nring nothing came in time\n");
}

#[test]
fn broken_frames_are_named_and_the_next_one_is_read() {
    use std::os::unix::fs::FileExt;
    let dir = directory();
    let ring = dir.path().join("v");
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&ring, &spec()).unwrap();
    for seq in 0..4 {
        write(&mut writer, &mut bell, &payload(seq, 1000), true);
    }
    let slot = |seq: u64, word: u64| 0x12000 + seq * 256 + word * 8;
    let ctl = fs::OpenOptions::new().write(true).open(ring.join("ctl")).unwrap();
    ctl.write_all_at(&u32::MAX.to_le_bytes(), slot(0, 2)).unwrap();
    ctl.write_all_at(&u64::MAX.to_le_bytes(), slot(1, 5)).unwrap();
    let data = fs::OpenOptions::new().write(true).open(ring.join("data")).unwrap();
    data.write_all_at(&[!payload(2, 1000)[500]], 2048 + 500).unwrap();
    for program in READERS.iter() {
        let said = read(program, &["ring", ring.to_str().unwrap(), "sequence=0", "verify", "timeout=0"]);
        let expected = [
            "ready 0",
            "ring a frame outside its ring: 1, on to 1",
            "ring a frame without a descriptor: 1, on to 2",
            "ring the checksum of a frame does not match: 1, on to 3",
        ];
        assert_eq!(said.lines().take(4).collect::<Vec<_>>(), expected);
        assert!(said.lines().nth(4).unwrap().starts_with(&frame_line("ring", 3, &payload(3, 1000))), "{said}");
    }
    ctl.write_all_at(&1u64.to_le_bytes(), 0x1040).unwrap();
    let mut reader = start(reader(), &["ring", ring.to_str().unwrap(), "sequence=1", "timeout=5000"]);
    reader.hear("ready 1\n");
    ctl.write_all_at(&0u64.to_le_bytes(), 0x1040).unwrap();
    reader.hear("ring the head of the ring went back\n");
}

#[test]
fn a_silent_source_a_dead_writer_and_the_end_are_told_apart() {
    let dir = directory();
    let ring = dir.path().join("v");
    let mut writer = builder::create(&ring, &spec()).unwrap();
    let mut reader = start(reader(), &["ring", ring.to_str().unwrap(), "timeout=20000"]);
    reader.hear("ready 0\n");
    writer.set_state(State::Stalled);
    writer.wake_target().wake();
    reader.hear("ring the source is silent\n");
    reader.hear("ring the writer's heartbeat stopped\n");
    writer.heartbeat(1);
    writer.set_state(State::Ended);
    writer.wake_target().wake();
    assert!(reader.end().ends_with("ring ended\n"));
}

#[test]
fn frames_of_all_tracks_come_in_the_order_they_were_committed() {
    let audio = RingSpec { kind: TrackKind::Audio, codec: *b"mp4a", clock_rate: 48_000, ..spec() };
    for (program, borrow) in READERS.iter().map(|reader| (reader, "copy")).chain([(&READERS[0], "borrow")]) {
        let dir = directory();
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
        let mut sound = builder::create(&dir.path().join("audio0"), &audio).unwrap();
        let order = [1, 0, 0, 1, 1, 1, 0, 1, 0, 0];
        for n in 0..20 {
            write(&mut video, &mut bell, b"before", n == 3 || n == 11);
            write(&mut sound, &mut bell, b"before", true);
        }
        let path = dir.path().to_str().unwrap();
        let mut reader = start(program, &["stream", path, "timeout=20000", borrow]);
        // From the key on: nothing of the sound before it.
        reader.hear("audio0 frame 11 6 ");
        reader.hear("audio0 frame 19 6 ");
        assert!(reader.heard().contains("video0 frame 11 ") && !reader.heard().contains("frame 10 "));
        for (n, &track) in order.iter().enumerate() {
            let writer = if track == 0 { &mut sound } else { &mut video };
            write(writer, &mut bell, &payload(n as u64, 300), true);
            bell.wake_target().wake();
        }
        let mut late = builder::create(&dir.path().join(".tmp-1"), &audio).unwrap();
        builder::publish(&dir.path().join(".tmp-1"), &dir.path().join("data0")).unwrap();
        bell.tracks_changed();
        write(&mut late, &mut bell, b"late", true);
        late.set_state(State::Ended);
        bell.tracks_changed();
        bell.wake_target().wake();
        reader.hear("data0 a track has ended\n");
        bell.set_state(State::Ended);
        bell.wake_target().wake();
        let said = reader.end();
        let numbers: Vec<u64> =
            said.lines().filter_map(|line| line.split_once(" stream ")?.1.split(' ').next()?.parse().ok()).collect();
        assert_eq!(numbers, (22..51).collect::<Vec<_>>(), "{said}");
        for n in 0..order.len() {
            assert!(said.contains(&format!(" 300 {:016x} ", fnv(&payload(n as u64, 300)))), "{said}");
        }
        assert!(said.ends_with("ended\n"), "{said}");
    }
}

#[test]
fn changed_configurations_and_damage_are_said_with_the_frame() {
    let dir = directory();
    let ring = dir.path().join("v");
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&ring, &spec()).unwrap();
    for n in 1..=10u8 {
        writer.set_configuration(format!("configuration {n}").as_bytes()).unwrap();
        writer.append(&[n]).unwrap();
        writer.commit(&FrameDescriptor { damaged: n == 3, ..Default::default() }, &mut bell);
        write(&mut writer, &mut bell, b"the same", false);
    }
    let said = read(reader(), &["ring", ring.to_str().unwrap(), "oldest", "configurations", "timeout=0"]);
    assert!(said.contains("configuration 2: configuration gone\nconfiguration 3 configuration 3\n"), "{said}");
    assert!(said.contains("configuration 10 configuration 10\nconfiguration 11: no such configuration\n"), "{said}");
    let changed: Vec<bool> = said.lines().filter(|l| l.contains(" frame ")).map(|l| l.ends_with("changed 1")).collect();
    assert_eq!(changed, (0..20).map(|n| n % 2 == 0).collect::<Vec<_>>());
    assert_eq!(said.matches("damaged 1").count(), 1);
}

/// Nobody has had the frame that changed it.
#[test]
fn a_changed_configuration_is_said_again_after_a_frame_that_was_damaged_or_overtaken() {
    use std::os::unix::fs::FileExt;
    for program in READERS.iter() {
        let dir = directory();
        let ring = dir.path().join("v");
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut writer = builder::create(&ring, &spec()).unwrap();
        for (seq, configuration) in [b"one", b"two", b"two"].into_iter().enumerate() {
            writer.set_configuration(configuration).unwrap();
            write(&mut writer, &mut bell, &payload(seq as u64, 1000), true);
        }
        let data = fs::OpenOptions::new().write(true).open(ring.join("data")).unwrap();
        data.write_all_at(&[!payload(1, 1000)[500]], 1024 + 500).unwrap();
        let said = read(program, &["ring", ring.to_str().unwrap(), "oldest", "verify", "timeout=0"]);
        let lines: Vec<&str> = said.lines().skip(1).collect();
        assert!(lines[0].ends_with("changed 1") && lines[2].ends_with("changed 1"), "{said}");
        assert_eq!(lines[1], "ring the checksum of a frame does not match: 1, on to 2");

        let words = ["ring", ring.to_str().unwrap(), "oldest", "borrow", "hold", "stop-after=8"];
        let mut reader = start(program, &words);
        reader.say("\n");
        reader.hear("changed 1\nring held 1\n");
        for seq in 3..9 {
            write(&mut writer, &mut bell, &payload(seq, 60_000), seq == 8);
        }
        reader.say("\n\n");
        let said = reader.end();
        assert!(said.contains("ring torn 1\n") && said.ends_with("damaged 0 changed 1\n"), "{said}");
        // Once it has been had, it is not said again.
        let said = read(program, &["ring", ring.to_str().unwrap(), "sequence=7", "borrow", "timeout=0"]);
        let changed: Vec<_> =
            said.lines().filter(|l| l.contains(" frame ")).map(|l| l.ends_with("changed 1")).collect();
        assert_eq!(changed, [true, false], "{said}");
    }
}

/// Whoever asks on after the end finds the source when it returns: to its rings, or much later in others.
#[test]
fn an_end_is_said_once_and_a_source_that_returns_is_found() {
    let root = directory();
    let stream = root.path().join("cam1");
    let (mut bell, mut writer) = make_stream(&stream);
    let mut reader = start(reader(), &["stream", stream.to_str().unwrap(), "oldest", "on", "stop-after=2"]);
    assert_eq!(reader.line(), "ready");
    for seq in 0..2 {
        writer.set_state(State::Live);
        bell.set_state(State::Live);
        bell.tracks_changed();
        write(&mut writer, &mut bell, &payload(seq, 100), true);
        writer.set_state(State::Ended);
        bell.set_state(State::Ended);
        bell.wake_target().wake();
        assert_eq!(reader.line(), "video0 a new track");
        assert!(reader.line().starts_with(&frame_line("video0", seq, &payload(seq, 100))));
        assert_eq!([reader.line(), reader.line()], ["video0 a track has ended", "stream ended"]);
    }
    fs::remove_dir_all(&stream).unwrap();
    let (mut bell, mut writer) = make_stream(&stream);
    for seq in 0..3 {
        write(&mut writer, &mut bell, &payload(seq, 100), true);
    }
    assert_eq!(reader.line(), "video0 replaced by another, which has been opened");
    assert!(reader.line().starts_with(&frame_line("video0", 0, &payload(0, 100))));
    assert_eq!(reader.end().matches("stream ended").count(), 2);
}

#[test]
fn names_and_descriptions_are_those_of_rust() {
    let root = directory();
    let long = "é".repeat(150);
    let mut names = ["cam1", "studio/cam 1", "..a.b", "a+b%", "", "é", &long, "~x_y-z"];
    names.sort_unstable();
    for (n, name) in names.iter().enumerate() {
        let path = root.path().join(encode_name(name));
        assert_eq!(read(reader(), &["path", name]).trim_end(), encode_name(name));
        fs::create_dir(&path).unwrap();
        let _bell = BellWriter::create(&path).unwrap();
        let descriptor = StreamDescriptor { name: (*name).to_owned(), generation: n as u32, ..Default::default() };
        descriptor.write(&path).unwrap();
    }
    for length in [199, 200, 201, 250] {
        let name = "a".repeat(length);
        assert_eq!(read(reader(), &["path", &name]).trim_end(), encode_name(&name));
    }
    fs::create_dir_all(root.path().join("without a bell")).unwrap();
    let said = read(reader(), &["streams", root.path().to_str().unwrap()]);
    assert_eq!(said, names.join("\n") + "\n");

    let descriptor = StreamDescriptor {
        name: "cam1/über".into(),
        generation: 3,
        created_utc_ns: 1_700_000_000_000_000_000,
        programmes: vec![Programme { number: 1, pcr_pid: 256, name: "One".into(), provider: "".into() }; 2],
        tracks: vec![
            Track {
                name: "video0".into(),
                programme: 1,
                kind: TrackKind::Video,
                codec: *b"avc1",
                source_id: 256,
                clock_rate: 90_000,
                width: 1920,
                height: 1080,
                frame_rate: (30_000, 1001),
                component_tag: Some(255),
                ..Default::default()
            },
            Track {
                name: "audio0".into(),
                language: "deu".into(),
                sample_rate: 48_000,
                channels: 2,
                ended: true,
                ..Default::default()
            },
        ],
    };
    let expected = "\
cam1/über 3 1700000000000000000
programme 1 256 [One] []
programme 1 256 [One] []
track video0 1 1 [avc1] 256 90000 [] 255 1920x1080 30000/1001 0 0 0
track audio0 0 0 [] 0 0 [deu] -1 0x0 0/0 48000 2 1
";
    let stream = root.path().join("cam1");
    descriptor.write(&stream).unwrap();
    let socket = serve(root.path());
    let socket = socket.to_str().unwrap();
    for program in READERS.iter() {
        assert_eq!(read(program, &["describe", stream.to_str().unwrap()]), expected);
        assert_eq!(read(program, &["describe", socket, "cam1"]), expected);
        let refused = "error describe: the operating system said no\n";
        assert_eq!(read(program, &["describe", socket, "~x_y-z"]), refused);
    }
}

#[test]
fn what_is_no_ring_is_refused_by_name() {
    let dir = golden_ring();
    let path = dir.path().to_str().unwrap();
    let reason = || read(reader(), &["ring", path, "timeout=0"]).trim_end().to_owned();
    let page = fs::read(dir.path().join("ctl")).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = page.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        let crc = crc32c::crc32c(&changed[..0xFFC]);
        changed[0xFFC..0x1000].copy_from_slice(&crc.to_le_bytes());
        fs::write(dir.path().join("ctl"), changed).unwrap();
        reason()
    };
    assert_eq!(with(0, b"X"), "error ring: bad magic");
    assert_eq!(with(8, &[2]), "error ring: another major version of the layout");
    // A later minor version and unknown optional features are no hindrance.
    assert!(with(10, &[7]).starts_with("ready "));
    assert!(with(0x18, &[0xFF; 8]).starts_with("ready "));
    assert_eq!(with(0x10, &[1]), "error ring: unknown required features");
    assert_eq!(with(0x4C, &[65]), "error ring: an impossible size, offset or count");
    assert_eq!(with(0x50, &(1u64 << 30).to_le_bytes()), "error ring: a file is smaller than its header says");
    let mut changed = page.clone();
    changed[0x30] ^= 1;
    fs::write(dir.path().join("ctl"), changed).unwrap();
    assert_eq!(reason(), "error ring: header checksum does not match");
    fs::write(dir.path().join("ctl"), &page[..100]).unwrap();
    assert_eq!(reason(), "error ring: the file is too short");
    fs::remove_file(dir.path().join("ctl")).unwrap();
    std::os::unix::fs::symlink("data", dir.path().join("ctl")).unwrap();
    assert_eq!(reason(), "error ring: the operating system said no");
}

#[test]
fn a_stream_is_polled_beside_other_files() {
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("poll");
    compile("gcc", &[&["-std=c99"], &WARNINGS[..]].concat(), &source("examples/c/poll.c"), &program);
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut writer = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let mut ends = start(&program, &[dir.path()]);
    ends.hear("a new track\n");
    for seq in 0..3 {
        write(&mut writer, &mut bell, &payload(seq, 100 + seq as usize), true);
        bell.wake_target().wake();
        ends.hear(&format!("video0 {seq}: {} bytes\n", 100 + seq));
    }
    // The other file.
    let mut told = start(&program, &[dir.path()]);
    told.hear("video0 2: 102 bytes\n");
    told.say("\n");
    told.end();
    bell.set_state(State::Ended);
    bell.wake_target().wake();
    ends.end();
}

#[test]
fn libfuzzer_finds_nothing_in_a_moment() {
    let seconds = std::env::var("C_FUZZ_SECONDS").map_or(5, |seconds| seconds.parse::<u32>().unwrap());
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    let sanitizers = ["-std=c99", "-D_GNU_SOURCE", "-g", "-O1", "-fsanitize=fuzzer,address,undefined"];
    compile("clang", &[&sanitizers, &WARNINGS[..]].concat(), &source("tests/c/fuzz.c"), &program);
    let (corpus, place) = (directory(), directory());
    let ctl = fs::read(golden_ring().path().join("ctl")).unwrap();
    let description = StreamDescriptor { tracks: vec![Track::default()], ..Default::default() }.encode();
    let _bell = BellWriter::create(place.path()).unwrap();
    let mut bell = fs::read(place.path().join("bell")).unwrap();
    // stream_head: the frame of the ring lies below it.
    bell[0x40..0x48].copy_from_slice(&100u64.to_le_bytes());
    let stream = [&bell[..], &ctl].concat();
    for (kind, bytes) in [ctl, description, b"studio/cam 1".to_vec(), stream].into_iter().enumerate() {
        fs::write(corpus.path().join(kind.to_string()), [&[kind as u8], &bytes[..]].concat()).unwrap();
    }
    let output = Command::new(&program)
        .arg(format!("-max_total_time={seconds}"))
        .args(["-max_len=131072", "-timeout=5", "-seed=1", "-print_final_stats=1"])
        .arg(corpus.path())
        .current_dir(place.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for line in said.lines().filter(|line| line.contains("DONE") || line.starts_with("stat::")) {
        println!("{line}");
    }
}

#[test]
fn files_that_say_anything_are_survived_under_sanitizers() {
    let compilers: Vec<_> = ["gcc", "clang"].into_iter().filter(|compiler| is_there(compiler)).collect();
    for (n, compiler) in compilers.iter().enumerate() {
        let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("corrupted-{compiler}"));
        let arguments = [&["-std=c99", "-D_GNU_SOURCE"], &WARNINGS[..], &SANITIZERS].concat();
        compile(compiler, &arguments, &source("tests/c/corrupted.c"), &program);
        let dir = directory();
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut writer = builder::create(&dir.path().join("video0"), &RingSpec { slot_count: 16, ..spec() }).unwrap();
        let track = Track { name: "video0".into(), language: "eng".into(), ..Default::default() };
        let programme = Programme { name: "One".into(), provider: "Two".into(), ..Default::default() };
        let descriptor = StreamDescriptor {
            name: "cam1".into(),
            programmes: vec![programme; 2],
            tracks: vec![track; 3],
            ..Default::default()
        };
        descriptor.write(dir.path()).unwrap();
        for seq in 0..40 {
            writer.set_configuration(&payload(seq / 8, 30)).unwrap();
            writer.append(&payload(seq, 300)).unwrap();
            writer.append_side_data(b"side").unwrap();
            writer.commit(&FrameDescriptor { key: seq % 4 == 0, ..Default::default() }, &mut bell);
        }
        let mut program = start(&program, &[dir.path().as_os_str(), "4".as_ref(), n.to_string().as_ref()]);
        program.within(Duration::from_secs(60));
        let said = program.end();
        assert!(said.starts_with("survived "), "{said}");
        println!("{compiler}: {said}");
    }
}
