//! The commands as a person or a script runs them: exit codes, fields and values, bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::{Discontinuity, FrameDescriptor, RandomAccess};
use headworks_frame_ring::directory::encode_name;
use headworks_frame_ring::layout::{State, TrackKind};
use headworks_frame_ring::writer::Writer;
use serde_json::Value;

/// A stream that this test writes.
struct Feed {
    directory: std::path::PathBuf,
    bell: BellWriter,
}

impl Feed {
    fn new(root: &Path, name: &str) -> Self {
        let directory = root.join(encode_name(name));
        std::fs::create_dir(&directory).unwrap();
        let mut bell = BellWriter::create(&directory).unwrap();
        bell.heartbeat(monotonic_ns());
        Self { directory, bell }
    }

    fn track(&mut self, name: &str, kind: TrackKind, codec: [u8; 4]) -> Writer {
        let spec = RingSpec {
            kind,
            codec,
            clock_rate: 90_000,
            data_capacity: 1 << 18,
            slot_count: 64,
            frame_size_max: 16 << 10,
            numa_node: None,
            crc: true,
        };
        let temporary = self.directory.join(format!(".tmp-{name}"));
        let writer = builder::create(&temporary, &spec).unwrap();
        builder::publish(&temporary, &self.directory.join(name)).unwrap();
        self.bell.tracks_changed();
        writer
    }

    fn frame(&mut self, writer: &mut Writer, payload: &[u8], descriptor: &FrameDescriptor) {
        writer.append(payload).unwrap();
        writer.commit(descriptor, &mut self.bell);
    }

    /// Frame `n` of a picture track: every fifth is a key, 25 per second.
    fn picture(&mut self, writer: &mut Writer, n: i64) {
        let key = n % 5 == 0;
        let descriptor = FrameDescriptor {
            pts: Some(n * 3_600 + 7_200),
            dts: Some(n * 3_600),
            timeline_ns: n * 40_000_000,
            segment: 3,
            last_arrival_ns: 1_000,
            commit_ns: 5_000,
            packets_lost: u32::from(n == 3),
            damaged: n == 3,
            key,
            random_access: if key { RandomAccess::Idr } else { RandomAccess::None },
            discontinuity: Discontinuity::None,
            ..FrameDescriptor::default()
        };
        self.frame(writer, &picture_bytes(n), &descriptor);
    }

    fn end(&mut self, writer: &mut Writer) {
        writer.set_state(State::Ended);
        self.bell.set_state(State::Ended);
    }
}

fn picture_bytes(n: i64) -> Vec<u8> {
    (0..100 + n as usize).map(|i| (i as u8).wrapping_mul(31).wrapping_add(n as u8)).collect()
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn root() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headworks"));
    command.args(arguments).env("HEADWORKS_OUTPUT__ROOT", root);
    command
}

fn run(root: &Path, arguments: &[&str]) -> Output {
    command(root, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_field_of_a_frame_is_told() {
    let root = root();
    let mut feed = Feed::new(root.path(), "cam1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    (0..10).for_each(|n| feed.picture(&mut video, n));
    let output = run(root.path(), &["tap", "cam1", "--from", "oldest", "--frames", "10", "--json", "--hash", "sha256"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let frames = objects(&output);
    assert_eq!(frames.len(), 10);
    let third = frames[3].as_object().unwrap();
    let fields = "stream track codec seq stream_seq key_seq segment pts dts clock_rate timeline_ns key random_access len \
                  crc32c discontinuity damaged lost lapped arrival_ns commit_ns sha256";
    let first_line = text(&output.stdout).lines().next().unwrap();
    let mut place = 0;
    for field in fields.split_whitespace() {
        assert!(third.contains_key(field), "{field}");
        let found = first_line.find(&format!("\"{field}\":")).unwrap();
        assert!(found >= place, "{field} stands elsewhere");
        place = found;
    }
    assert_eq!(third.len(), fields.split_whitespace().count());
    let payload = picture_bytes(3);
    for (field, value) in [
        ("stream", Value::from("cam1")),
        ("track", "video0".into()),
        ("codec", "h264".into()),
        ("seq", 3.into()),
        ("stream_seq", 3.into()),
        ("key_seq", 0.into()),
        ("segment", 3.into()),
        ("pts", 18_000.into()),
        ("dts", 10_800.into()),
        ("clock_rate", 90_000.into()),
        ("timeline_ns", 120_000_000.into()),
        ("key", false.into()),
        ("random_access", Value::Null),
        ("len", 103.into()),
        ("crc32c", format!("{:08x}", crc32c::crc32c(&payload)).into()),
        ("discontinuity", Value::Null),
        ("damaged", true.into()),
        ("lost", 1.into()),
        ("lapped", 0.into()),
        ("arrival_ns", 1_000.into()),
        ("commit_ns", 5_000.into()),
    ] {
        assert_eq!(third[field], value, "{field}");
    }
    assert_eq!((&frames[5]["key"], &frames[5]["random_access"]), (&Value::from(true), &Value::from("idr")));
    assert_eq!(frames[0]["discontinuity"], "start");
    assert_eq!(third["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn tracks_come_in_the_order_they_were_committed() {
    let root = root();
    let mut feed = Feed::new(root.path(), "studio/cam 1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    let mut audio = feed.track("audio0", TrackKind::Audio, *b"aac ");
    for n in 0..6 {
        feed.picture(&mut video, n);
        feed.frame(&mut audio, b"sound", &FrameDescriptor::default());
    }
    let output = run(root.path(), &["tap", "studio/cam 1", "--from", "oldest", "--frames", "12", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let frames = objects(&output);
    let order: Vec<u64> = frames.iter().map(|frame| frame["stream_seq"].as_u64().unwrap()).collect();
    assert_eq!(order, (0..12).collect::<Vec<u64>>());
    assert_eq!((&frames[1]["track"], &frames[1]["codec"]), (&Value::from("audio0"), &Value::from("aac")));
    assert_eq!((&frames[1]["pts"], &frames[1]["key_seq"]), (&Value::Null, &Value::Null));

    let output = run(root.path(), &["tap", "studio/cam 1/audio0", "--from", "oldest", "--frames", "6", "--json"]);
    assert!(objects(&output).iter().all(|frame| frame["track"] == "audio0"));
    let output = run(root.path(), &["tap", "studio/cam 1", "--from", "key", "--frames", "2", "--json"]);
    assert_eq!((&objects(&output)[0]["seq"], &objects(&output)[0]["key"]), (&Value::from(5), &Value::from(true)));
}

#[test]
fn payloads_of_one_track_are_written_as_they_are() {
    let root = root();
    let mut feed = Feed::new(root.path(), "cam1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    (0..7).for_each(|n| feed.picture(&mut video, n));
    let bytes: Vec<u8> = (5..7).flat_map(picture_bytes).collect();
    let output = run(root.path(), &["tap", "cam1", "--from", "key", "--frames", "2", "--out", "-"]);
    assert_eq!((output.status.code(), &output.stdout), (Some(0), &bytes));

    let file = root.path().join("frames.h264");
    let name = file.to_str().unwrap();
    let output = run(root.path(), &["tap", "cam1/video0", "--from", "key", "--frames", "2", "--out", name, "--json"]);
    assert_eq!((output.status.code(), objects(&output).len()), (Some(0), 2));
    assert_eq!(std::fs::read(&file).unwrap(), bytes);

    let output = run(root.path(), &["tap", "cam2", "--timeout", "0.1", "--out", name]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "no frame has come in the place of these");
    let output = run(root.path(), &["tap", "cam1/video0", "--from", "key", "--frames", "1", "--out", name]);
    assert_eq!((output.status.code(), std::fs::read(&file).unwrap()), (Some(0), picture_bytes(5)));
    let nowhere = root.path().join("nowhere/frames.h264");
    let output = run(root.path(), &["tap", "cam2", "--timeout", "9", "--out", nowhere.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nowhere/frames.h264: No such file"), "{}", text(&output.stderr));

    let mut audio = feed.track("audio0", TrackKind::Audio, *b"aac ");
    feed.frame(&mut audio, b"sound", &FrameDescriptor::default());
    let output = run(root.path(), &["tap", "cam1", "--from", "oldest", "--frames", "8", "--out", "-"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("name the one to write"), "{}", text(&output.stderr));
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let root = root();
    for arguments in [
        &["tap"][..],
        &["tap", "cam1", "--from", "yesterday"],
        &["tap", "cam1", "--frames", "0"],
        &["tap", "cam1", "--timeout", "inf"],
        &["tap", "cam1", "--timeout", "1e30"],
        &["tap", "cam1", "--json", "--out", "-"],
        &["tap", "cam1", "--format", "mpegts"],
        &["drink"],
    ] {
        assert_eq!(run(root.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
    let help = run(root.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Exit codes: 0 done, 1 error, 2 usage, 3 time-out"));
}

#[test]
fn a_time_out_says_what_was_missing() {
    let root = root();
    let output = run(root.path(), &["tap", "cam1", "--timeout", "0.1"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("there is no stream cam1"), "{}", text(&output.stderr));
    let mut feed = Feed::new(root.path(), "cam1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    feed.picture(&mut video, 0);
    let output = run(root.path(), &["tap", "cam1/video3", "--timeout", "0.1"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("no track video3 (it has: video0)"), "{}", text(&output.stderr));
    let output = run(root.path(), &["tap", "cam1", "--from", "oldest", "--frames", "2", "--timeout", "0.2", "--json"]);
    assert_eq!((output.status.code(), objects(&output).len()), (Some(3), 1));
}

#[test]
fn a_stream_that_ends_ends_its_reader() {
    let root = root();
    let mut feed = Feed::new(root.path(), "cam1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    (0..3).for_each(|n| feed.picture(&mut video, n));
    feed.end(&mut video);
    let output = run(root.path(), &["tap", "cam1", "--from", "oldest", "--frames", "9", "--timeout", "9"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("cam1 ended after 3 frames"), "{}", text(&output.stderr));
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("track"), "{}", lines[0]);
    assert!(lines[1].starts_with("video0             0       0.080000       0.000000       100"), "{}", lines[1]);
    assert!(lines[1].ends_with("4 µs  key  idr  discontinuity: start"), "{}", lines[1]);
    let output = run(root.path(), &["tap", "cam1/video1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cam1 has no track video1"), "{}", text(&output.stderr));
}

#[test]
fn a_reader_waits_for_a_stream_and_begins_at_its_first_key() {
    let root = root();
    let reader =
        command(root.path(), &["tap", "cam1/video0", "--from", "key", "--frames", "2", "--timeout", "20", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut feed = Feed::new(root.path(), "cam1");
    std::thread::sleep(Duration::from_millis(100));
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    (3..8).for_each(|n| feed.picture(&mut video, n));
    let output = reader.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let frames = objects(&output);
    assert_eq!((&frames[0]["dts"], &frames[0]["lapped"]), (&Value::from(18_000), &Value::from(0)));
    assert_eq!(frames[1]["dts"], 21_600);
}

#[test]
fn a_stream_that_is_half_made_when_it_was_long_waited_for_is_read() {
    let root = root();
    let mut tap = command(root.path(), &["tap", "cam1", "--from", "oldest", "--frames", "1", "--timeout", "20"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    let directory = root.path().join("cam1");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("bell"), []).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(tap.try_wait().unwrap().is_none(), "it waits until the bell is whole");
    std::fs::remove_dir_all(&directory).unwrap();
    let mut feed = Feed::new(root.path(), "cam1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    feed.picture(&mut video, 0);
    assert_eq!(tap.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stream_that_is_not_there_is_waited_for_by_name_and_one_that_cannot_be_is_not() {
    let root = root();
    let stderr = |target: &str, code: i32| {
        let output = run(root.path(), &["tap", target, "--timeout", "0.1"]);
        assert_eq!(output.status.code(), Some(code), "{target}: {}", text(&output.stderr));
        text(&output.stderr).to_owned()
    };
    let shown = root.path().display();
    assert!(stderr("cam2", 3).contains(&format!("waiting for cam2: there is no stream in {shown} yet\n")));
    let feeds = ["cam1", "studio/cam 1"].map(|name| Feed::new(root.path(), name));
    let said = stderr("cam2", 3);
    assert!(said.contains(&format!("waiting for cam2: in {shown} there is cam1, studio/cam 1\n")), "{said}");
    assert!(!stderr("cam1", 3).contains("waiting for"));
    for (target, name, instead) in [
        ("cam1/", "cam1/", "cam1"),
        ("cam1/video0/", "cam1/video0/", "cam1/video0"),
        ("cam1//video0", "cam1/", "cam1/video0"),
        ("/studio//cam 1", "/studio//cam 1", "studio/cam 1"),
        ("", "", "headworks streams"),
    ] {
        let said = stderr(target, 2);
        assert!(said.contains(&format!("no stream is named {name:?}: try {instead}\n")), "{said}");
    }
    drop(feeds);
    let nowhere = command(&root.path().join("nowhere"), &["tap", "cam1", "--timeout", "0.1"]).output().unwrap();
    assert!(text(&nowhere.stderr).contains("/nowhere: No such file or directory"), "{}", text(&nowhere.stderr));
}

#[test]
fn a_reader_goes_on_in_the_stream_that_takes_the_name() {
    let root = root();
    let mut feed = Feed::new(root.path(), "cam1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    (0..3).for_each(|n| feed.picture(&mut video, n));
    let mut reader =
        command(root.path(), &["tap", "cam1", "--from", "oldest", "--frames", "8", "--timeout", "20", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut seen = |count| -> Vec<(String, i64)> {
        let frames = lines.by_ref().take(count).map(|line| serde_json::from_str::<Value>(&line).unwrap());
        frames.map(|frame| (frame["track"].as_str().unwrap().to_owned(), frame["seq"].as_i64().unwrap())).collect()
    };
    let of_video = |seqs: std::ops::Range<i64>| seqs.map(|seq| ("video0".to_owned(), seq));
    assert_eq!(seen(3), of_video(0..3).collect::<Vec<_>>());
    let mut next = Feed::new(root.path(), "next");
    let mut sound = next.track("audio0", TrackKind::Audio, *b"aac ");
    let mut video = next.track("video0", TrackKind::Video, *b"h264");
    next.frame(&mut sound, b"sound", &FrameDescriptor::default());
    (5..9).for_each(|n| next.picture(&mut video, n));
    builder::publish(&root.path().join("next"), &root.path().join("cam1")).unwrap();
    let expected: Vec<_> = [("audio0".to_owned(), 0)].into_iter().chain(of_video(0..4)).collect();
    assert_eq!(seen(5), expected);
    assert_eq!(reader.wait().unwrap().code(), Some(0));
}

#[test]
fn rings_that_come_and_go_by_the_thousand_are_told_by_their_own_names() {
    let root = root();
    let mut feed = Feed::new(root.path(), "cam1");
    let mut reader = command(root.path(), &["tap", "cam1", "--from", "oldest", "--timeout", "20", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines().map(Result::unwrap);
    for n in 0..1_030 {
        let name = format!("audio{n}");
        let mut sound = feed.track(&name, TrackKind::Audio, *b"aac ");
        feed.frame(&mut sound, b"sound", &FrameDescriptor::default());
        feed.bell.wake_target().wake();
        let frame: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        assert_eq!((frame["track"].as_str(), frame["stream_seq"].as_i64()), (Some(name.as_str()), Some(n)));
        sound.set_state(State::Ended);
        std::fs::remove_dir_all(feed.directory.join(&name)).unwrap();
        feed.bell.tracks_changed();
    }
    feed.bell.set_state(State::Ended);
    feed.bell.wake_target().wake();
    assert_eq!(reader.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_was_overtaken_says_how_many_frames_it_lost() {
    let root = root();
    let mut feed = Feed::new(root.path(), "cam1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    // Larger than a pipe: the reader is stopped by its own output until this test reads it.
    let big = vec![7; 16 << 10];
    let plain = FrameDescriptor::default();
    for _ in 0..8 {
        feed.frame(&mut video, &big, &plain);
    }
    let mut reader = command(root.path(), &["tap", "cam1", "--from", "oldest", "--out", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once the first frame is here the reader is at work, and has no room for more than the next few.
    let mut taken = vec![0; big.len()];
    let mut stdout = reader.stdout.take().unwrap();
    stdout.read_exact(&mut taken).unwrap();
    for n in 0..200 {
        feed.frame(&mut video, &big, &FrameDescriptor { key: n == 195, ..plain });
    }
    feed.end(&mut video);
    stdout.read_to_end(&mut taken).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // "lapped, 3 frames lost", and "5 more frames lost" on the way to the next key.
    let lost: usize = text(&output.stderr)
        .lines()
        .filter(|line| line.ends_with("frames lost"))
        .map(|line| line.split(' ').find_map(|word| word.parse::<usize>().ok()).unwrap())
        .sum();
    assert!(lost > 0);
    assert_eq!(taken.len() / big.len() + lost, 208);
}

#[test]
fn a_closed_pipe_ends_the_reader_without_a_word() {
    closed_pipe_ends_quietly(&["tap", "cam1", "--json"]);
    closed_pipe_ends_quietly(&["tap", "cam1", "--format", "mpegts", "--out", "-"]);
}

fn closed_pipe_ends_quietly(arguments: &[&str]) {
    let root = root();
    let mut feed = Feed::new(root.path(), "cam1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    let mut reader = command(root.path(), arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(reader.stdout.take());
    let began = Instant::now();
    for n in 0.. {
        feed.picture(&mut video, n);
        std::thread::sleep(Duration::from_millis(20));
        if reader.try_wait().unwrap().is_some() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "the reader goes on without an output");
    }
    let output = reader.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn streams_are_listed_with_their_states() {
    let root = root();
    let output = run(root.path(), &["streams"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("no streams in "));
    let mut feed = Feed::new(root.path(), "cam/1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    (0..7).for_each(|n| feed.picture(&mut video, n));
    let mut ended = Feed::new(root.path(), "old");
    let mut audio = ended.track("audio0", TrackKind::Audio, *b"aac ");
    ended.end(&mut audio);
    let mut dead = Feed::new(root.path(), "zombie");
    dead.bell.heartbeat(monotonic_ns() - 2_000_000_000);
    feed.bell.heartbeat(monotonic_ns());

    let output = run(root.path(), &["streams", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listing["root"], root.path().to_str().unwrap());
    let streams = listing["streams"].as_array().unwrap();
    let states: Vec<(&str, &str)> =
        streams.iter().map(|it| (it["stream"].as_str().unwrap(), it["state"].as_str().unwrap())).collect();
    assert_eq!(states, [("cam/1", "live"), ("old", "ended"), ("zombie", "dead")]);
    let track = &streams[0]["tracks"][0];
    assert_eq!((&track["track"], &track["codec"]), (&Value::from("video0"), &Value::from("h264")));
    assert_eq!((&track["frames"], &track["bytes"], &track["damaged"]), (&7.into(), &721.into(), &1.into()));
    assert_eq!((&track["pts"], &track["dts"], &track["key_seq"]), (&28_800.into(), &21_600.into(), &5.into()));
    assert!(streams[2]["heartbeat_age_ms"].as_u64().unwrap() >= 2_000);

    let table = run(root.path(), &["streams"]);
    let lines: Vec<&str> = text(&table.stdout).lines().collect();
    assert!(
        lines[0].starts_with("stream  state  track   codec  frames  bytes  damaged  last pts  heartbeat"),
        "{}",
        lines[0]
    );
    assert!(lines[1].starts_with("cam/1   live   video0  h264        7    721        1   0.320 s"), "{}", lines[1]);

    // A track that has ended stays so while its stream is silent.
    feed.bell.set_state(State::Stalled);
    video.set_state(State::Ended);
    let table = run(root.path(), &["streams"]);
    let line = text(&table.stdout).lines().nth(1).unwrap();
    assert!(line.starts_with("cam/1   ended  video0"), "{line}");
}

/// A video and an audio ring of `cam1`, as a stream leaves them.
fn two_rings(root: &Path) -> (Feed, Writer, Writer) {
    let mut feed = Feed::new(root, "cam1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    let mut audio = feed.track("audio0", TrackKind::Audio, *b"aac ");
    video.set_configuration(b"parameter sets").unwrap();
    video.heartbeat(monotonic_ns());
    for n in 0..80 {
        feed.picture(&mut video, n);
        feed.frame(&mut audio, &[n as u8; 20], &FrameDescriptor { pts: Some(n * 1_920), ..FrameDescriptor::default() });
    }
    (feed, video, audio)
}

#[test]
fn a_ring_tells_its_shape_and_what_a_reader_finds() {
    let root = root();
    let (_feed, video, _audio) = two_rings(root.path());
    let output = run(root.path(), &["ring", "info", "cam1", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let info = &objects(&output)[0];
    let ring = &info["rings"][1];
    assert_eq!((&info["bell"]["stream_head"], &ring["track"]), (&160.into(), &"video0".into()));
    for (group, field, value) in [
        ("header", "version", Value::from("1.0")),
        ("header", "codec", "h264".into()),
        ("header", "crc", true.into()),
        ("header", "slots", 64.into()),
        ("header", "capacity", (1 << 18).into()),
        ("header", "frame_size_max", (16 << 10).into()),
        ("header", "numa_node", Value::Null),
        ("pages", "page_size", 4096.into()),
        ("pages", "mapped", (1 << 18).into()),
        ("writer", "state", "live".into()),
        ("writer", "epoch", 1.into()),
        ("writer", "heartbeat_count", 1.into()),
        ("hot", "head_seq", 80.into()),
        ("hot", "last_key_seq", 75.into()),
        ("hot", "frames", 80.into()),
        // One slot of 64 is being written next.
        ("reader", "frames", 63.into()),
        ("reader", "oldest_seq", 17.into()),
        ("reader", "newest_seq", 79.into()),
        ("reader", "last_key_seq", 75.into()),
        ("reader", "seconds", 2.48.into()),
    ] {
        assert_eq!(ring[group][field], value, "{group}.{field}");
    }
    assert_eq!(ring["configurations"][0]["bytes"], "706172616d657465722073657473");
    drop(video);
    let people = run(root.path(), &["ring", "info", "cam1/video0"]);
    let people = text(&people.stdout);
    assert!(
        people.contains("63 frames, 2.48 s, ") && people.contains("seq 17 to 79, 12 keys, the last one 75"),
        "{people}"
    );
    assert!(!people.contains("audio0"), "{people}");
    let output = run(root.path(), &["ring", "info", "cam1/video7"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cam1 has no track video7 (it has: audio0, video0)"));
    assert_eq!(run(root.path(), &["ring", "info", "cam2"]).status.code(), Some(1));
}

#[test]
fn a_sound_ring_is_verified_and_each_wrong_slot_is_named() {
    use std::os::unix::fs::FileExt;
    let root = root();
    let (feed, video, _audio) = two_rings(root.path());
    let verify = |target: &str| run(root.path(), &["ring", "verify", target, "--json"]);
    let output = verify("cam1");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let report = &objects(&output)[0];
    assert_eq!(report["sound"], true);
    let ring = &report["rings"][1];
    assert_eq!((&ring["frames"], &ring["checksums"], &ring["configurations"]), (&63.into(), &63.into(), &1.into()));

    let change = |file: &str, at: u64, bytes: &[u8]| {
        let file = std::fs::OpenOptions::new().write(true).open(feed.directory.join("video0").join(file)).unwrap();
        file.write_all_at(bytes, at).unwrap();
    };
    let slots = run(root.path(), &["ring", "dump", "cam1/video0", "--json"]);
    let position =
        |seq: u64| objects(&slots).iter().find(|slot| slot["seq"] == seq).unwrap()["position"].as_u64().unwrap();
    let slot = |seq: u64| video.header().slot_at(seq) as u64;
    change("data", position(20) + 7, &[0xff]);
    change("ctl", slot(30), &[9; 8]);
    change("ctl", slot(40) + 16, &u32::MAX.to_le_bytes());
    change("ctl", slot(50) + 32, &1_u64.to_le_bytes());
    change("ctl", slot(61) + 56, &59_u64.to_le_bytes());
    change("ctl", video.header().config_at(1) as u64 + 32, b"P");
    let output = verify("cam1/video0");
    assert_eq!(output.status.code(), Some(1));
    let faults = objects(&output)[0]["rings"][0]["faults"].as_array().unwrap().clone();
    let found: Vec<_> = faults.iter().map(|fault| (fault["seq"].as_u64(), fault["what"].as_str().unwrap())).collect();
    let expected = [
        (None, "configuration 1: configuration damaged"),
        (Some(20), "frame 20: checksum does not match"),
        (Some(30), "frame 30: its lock is 0x909090909090909, not 0x1f"),
        (Some(40), "frame 40: impossible extent"),
        (Some(50), "frame 50: stream_seq 1 after 98"),
        (Some(61), "frame 61: key_seq 59 is no key"),
    ];
    assert_eq!(found, expected);
    let people = run(root.path(), &["ring", "verify", "cam1"]);
    assert_eq!(people.status.code(), Some(1));
    assert!(text(&people.stdout).contains("cam1/audio0: sound") && text(&people.stdout).contains("cam1/video0: WRONG"));
}

#[test]
fn slots_are_dumped_with_their_payloads() {
    let root = root();
    let (_feed, _video, _audio) = two_rings(root.path());
    let output = run(root.path(), &["ring", "dump", "cam1", "--json"]);
    let slots = objects(&output);
    assert_eq!(slots.len(), 126);
    assert_eq!((&slots[0]["track"], &slots[63]["track"]), (&"audio0".into(), &"video0".into()));
    let third = slots.iter().find(|slot| slot["track"] == "video0" && slot["seq"] == 18).unwrap();
    for (field, value) in [
        ("stream_seq", Value::from(36)),
        ("key_seq", 15.into()),
        ("len", 118.into()),
        ("pts", 72_000.into()),
        ("dts", 64_800.into()),
        ("segment", 3.into()),
        ("config_generation", 1.into()),
        ("crc32c", format!("{:08x}", crc32c::crc32c(&picture_bytes(18))).into()),
        ("key", false.into()),
    ] {
        assert_eq!(third[field], value, "{field}");
    }
    let one = run(root.path(), &["ring", "dump", "cam1/video0", "--seq", "79", "--payload", "-"]);
    assert_eq!(one.stdout, picture_bytes(79));
    let file = root.path().join("payloads");
    let all = run(root.path(), &["ring", "dump", "cam1/video0", "--payload", file.to_str().unwrap()]);
    assert_eq!(text(&all.stdout).lines().count(), 64, "a header and 63 frames");
    assert_eq!(std::fs::read(file).unwrap(), (17..80).flat_map(picture_bytes).collect::<Vec<_>>());
    let gone = run(root.path(), &["ring", "dump", "cam1/video0", "--seq", "3"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("cam1/video0 holds the frames 17 to 79, not 3"), "{}", text(&gone.stderr));
    assert_eq!(run(root.path(), &["ring", "dump", "cam1", "--payload", "-"]).status.code(), Some(2));
}

#[test]
fn a_dump_leaves_out_what_is_wrong_and_says_so() {
    use std::os::unix::fs::FileExt;
    let root = root();
    let (feed, video, _audio) = two_rings(root.path());
    let file = |name: &str| {
        std::fs::OpenOptions::new().read(true).write(true).open(feed.directory.join("video0").join(name)).unwrap()
    };
    let slots = run(root.path(), &["ring", "dump", "cam1/video0", "--json"]);
    let slot_20 = objects(&slots).into_iter().find(|slot| slot["seq"] == 20).unwrap();
    file("data").write_all_at(&[0xff], slot_20["position"].as_u64().unwrap() + 7).unwrap();
    file("ctl").write_all_at(&[9; 8], video.header().slot_at(30) as u64).unwrap();

    let payload = root.path().join("payload");
    let to_file = |more: &[&str]| {
        let arguments = ["ring", "dump", "cam1/video0", "--payload", payload.to_str().unwrap()];
        run(root.path(), &[&arguments, more].concat())
    };
    let lock = "cam1/video0: frame 30: its lock is 0x909090909090909, not 0x1f\n";
    let checksum = "cam1/video0: frame 20: checksum does not match\n";
    let one = to_file(&["--seq", "20", "--json"]);
    assert_eq!((one.status.code(), text(&one.stdout), text(&one.stderr)), (Some(1), "", checksum));
    assert!(!payload.exists(), "no payload, no file");
    let one = to_file(&["--seq", "30", "--json"]);
    assert_eq!((one.status.code(), text(&one.stdout), text(&one.stderr)), (Some(1), "", lock));

    let all = to_file(&["--json"]);
    assert_eq!((all.status.code(), text(&all.stderr)), (Some(1), &[checksum, lock].concat()[..]));
    let seqs: Vec<u64> = objects(&all).iter().map(|slot| slot["seq"].as_u64().unwrap()).collect();
    let whole = || (17..80).filter(|seq| ![20, 30].contains(seq));
    assert_eq!(seqs, whole().collect::<Vec<u64>>());
    let payloads: Vec<u8> = whole().flat_map(|seq| picture_bytes(seq as i64)).collect();
    assert_eq!(std::fs::read(&payload).unwrap(), payloads);
    // Without payloads nobody looks at them.
    let lines = run(root.path(), &["ring", "dump", "cam1/video0", "--seq", "20"]);
    assert_eq!((lines.status.code(), text(&lines.stderr)), (Some(0), ""));
    let lines = run(root.path(), &["ring", "dump", "cam1"]);
    assert_eq!((lines.status.code(), text(&lines.stderr)), (Some(1), lock));
}

#[test]
fn a_dump_tells_what_the_clocks_of_a_frame_are() {
    use headworks_frame_ring::descriptor::{ClockOrigin, WallClock, WallClockQuality};
    let root = root();
    let mut feed = Feed::new(root.path(), "cam1");
    let mut video = feed.track("video0", TrackKind::Video, *b"h264");
    let clocks = FrameDescriptor {
        origin: 27_000_000,
        origin_kind: ClockOrigin::Pcr,
        wall_clock_ns: 5,
        wall_clock: WallClock::Tai,
        wall_clock_quality: WallClockQuality::SenderReport,
        ..FrameDescriptor::default()
    };
    feed.frame(&mut video, b"with clocks", &clocks);
    feed.frame(&mut video, b"without", &FrameDescriptor::default());
    let frames = objects(&run(root.path(), &["ring", "dump", "cam1", "--json"]));
    let fields = ["origin", "origin_kind", "wall_clock_ns", "wall_clock", "wall_clock_quality"];
    let told = |frame: usize| serde_json::to_string(&fields.map(|field| &frames[frame][field])).unwrap();
    assert_eq!(told(0), r#"[27000000,"pcr",5,"tai","sender_report"]"#);
    assert_eq!(told(1), r#"[0,null,0,null,"unknown"]"#);
}

#[test]
fn a_ring_that_cannot_be_opened_is_named_beside_the_others() {
    let root = root();
    let (mut feed, _video, _audio) = two_rings(root.path());
    let ctl = std::fs::OpenOptions::new().write(true).open(feed.directory.join("audio0/ctl")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&ctl, b"X", 0).unwrap();
    feed.bell.heartbeat(monotonic_ns());
    let reason = "bad magic";
    let json = |arguments: &[&str]| {
        let output = run(root.path(), &[arguments, &["--json"]].concat());
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), ""), "{arguments:?}");
        objects(&output).remove(0)
    };
    let people = |arguments: &[&str]| {
        let output = run(root.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        text(&output.stdout).to_owned()
    };
    let [info, verified] = ["info", "verify"].map(|command| json(&["ring", command, "cam1"]));
    for report in [&info, &verified] {
        let errors: Vec<&Value> = report["rings"].as_array().unwrap().iter().map(|ring| &ring["error"]).collect();
        assert_eq!(errors, [&Value::from(reason), &Value::Null]);
    }
    assert_eq!((&info["rings"][0]["header"], &info["rings"][1]["reader"]["frames"]), (&Value::Null, &63.into()));
    assert_eq!((&verified["sound"], &verified["rings"][1]["checksums"]), (&false.into(), &63.into()));
    assert!(
        people(&["ring", "info", "cam1"]).contains(&format!("\ncam1/audio0\n  error    {reason}\n\ncam1/video0\n"))
    );
    let said = people(&["ring", "verify", "cam1"]);
    assert!(said.starts_with(&format!("cam1/audio0: CANNOT BE OPENED: {reason}\ncam1/video0: sound; ")), "{said}");
    let dumped = run(root.path(), &["ring", "dump", "cam1", "--json"]);
    assert_eq!((dumped.status.code(), objects(&dumped).len()), (Some(1), 63));
    assert_eq!(text(&dumped.stderr), format!("cam1/audio0: {reason}\n"));

    let listing = json(&["streams"]);
    let tracks = &listing["streams"][0]["tracks"];
    assert_eq!(listing["streams"][0]["state"], "live");
    assert_eq!((&tracks[0]["state"], &tracks[0]["error"]), (&"unreadable".into(), &reason.into()));
    assert_eq!((&tracks[1]["state"], &tracks[1]["error"]), (&"live".into(), &Value::Null));
    assert_eq!(tracks[1]["frames"], 80);
    let table = people(&["streams"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[1].starts_with("cam1    unreadable  audio0  -           -      -  "), "{table}");
    assert!(lines[2].starts_with("cam1    live        video0  h264       80 "), "{table}");
    assert_eq!(lines[3..], [format!("cam1/audio0: {reason}")]);
    // A stream whose bell is none.
    std::fs::create_dir(root.path().join("cam2")).unwrap();
    std::fs::write(root.path().join("cam2/bell"), b"x").unwrap();
    let listing = json(&["streams"]);
    assert_eq!(listing["streams"][1]["state"], "unreadable");
    let why = listing["streams"][1]["error"].as_str().unwrap();
    assert!(why.starts_with("bell: "), "{why}");
}

/// A root that members of `nogroup` can read, and the directory that holds it, which everybody can; `None` for who is not root.
fn root_of_a_group() -> Option<(tempfile::TempDir, std::path::PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: only root can become another user");
        return None;
    }
    let parent = root();
    std::fs::set_permissions(parent.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let root = parent.path().join("rings");
    headworks_frame_ring::directory::create_root(&root, "nogroup").unwrap();
    Some((parent, root))
}

#[test]
fn rings_are_looked_into_by_any_member_of_the_readers_group() {
    let Some((_parent, root)) = root_of_a_group() else { return };
    let (_feed, _video, _audio) = two_rings(&root);
    let nogroup = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&root).unwrap()).to_string();
    let as_other = |gid: &str| {
        Command::new("setpriv")
            .args(["--reuid", "12345", "--regid", gid, "--clear-groups"])
            .args([env!("CARGO_BIN_EXE_headworks"), "ring", "verify", "cam1", "--root"])
            .arg(&root)
            .output()
            .unwrap()
    };
    let member = as_other(&nogroup);
    assert_eq!(member.status.code(), Some(0), "{}", text(&member.stderr));
    let stranger = as_other("12345");
    assert_eq!(stranger.status.code(), Some(1));
    assert!(text(&stranger.stderr).contains("Permission denied"), "{}", text(&stranger.stderr));
}

#[test]
fn a_user_who_may_not_open_the_files_reads_what_the_broker_allows() {
    use headworks::config::Readers;
    use headworks::output::{Broker, BrokerOptions};

    let Some((parent, root)) = root_of_a_group() else { return };
    let (mut feed, mut video, mut audio) = two_rings(&root);
    let mut other = Feed::new(&root, "cam2");
    let mut of_other = other.track("video0", TrackKind::Video, *b"h264");
    other.picture(&mut of_other, 0);
    feed.end(&mut video);
    feed.end(&mut audio);
    let socket = parent.path().join("broker");
    let by_stream = [("cam1", vec![12_345], vec![]), ("cam2", vec![], vec![7_777])];
    let options = BrokerOptions {
        socket: socket.clone(),
        root: root.clone(),
        max_connections: 64,
        readers: Readers::default(),
        by_stream: by_stream.map(|(name, uids, gids)| (name.to_owned(), Readers { uids, gids })).into(),
    };
    let broker = Broker::start(options).unwrap();
    let tap = |uid: &str, gid: &str, arguments: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid", uid, "--regid", gid, "--clear-groups", env!("CARGO_BIN_EXE_headworks"), "tap"])
            .args(arguments)
            .output()
            .unwrap()
    };
    let through = ["--broker", socket.to_str().unwrap(), "--from", "oldest", "--timeout", "20", "--json"];
    let directly = tap("12345", "12345", &["cam1", "--root", root.to_str().unwrap(), "--timeout", "1"]);
    assert_ne!(directly.status.code(), Some(0));
    assert!(text(&directly.stderr).contains("Permission denied"), "{}", text(&directly.stderr));
    let all = tap("12345", "12345", &[&["cam1"], &through[..]].concat());
    assert_eq!(all.status.code(), Some(0), "{}", text(&all.stderr));
    assert_eq!(objects(&all).len(), 126);
    assert!(objects(&all).iter().any(|frame| frame["crc32c"] == format!("{:08x}", crc32c::crc32c(&picture_bytes(70)))));
    for (uid, gid, stream) in [("12346", "12345", "cam1"), ("12345", "12345", "cam2"), ("12346", "1", "cam3")] {
        let refused = tap(uid, gid, &[&[stream], &through[..]].concat());
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
        let said = text(&refused.stderr);
        assert!(said.contains("the broker says that this user may not read the stream"), "{said}");
    }
    let of_group = tap("12346", "7777", &[&["cam2", "--frames", "1"], &through[..]].concat());
    assert_eq!((of_group.status.code(), objects(&of_group).len()), (Some(0), 1));
    drop(broker);
    let gone = tap("12345", "12345", &["cam1", "--broker", socket.to_str().unwrap(), "--timeout", "0.2"]);
    assert_eq!(gone.status.code(), Some(3), "{}", text(&gone.stderr));
}

/// Ports that were free a moment ago: SRT, RTP, RTCP, control.
fn free_ports() -> [u16; 4] {
    let udp: Vec<_> = (0..3).map(|_| std::net::UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |i: usize| udp[i].local_addr().unwrap().port();
    [port(0), port(1), port(2), tcp.local_addr().unwrap().port()]
}

/// `serve` or `check` with a small plan and these ports, on rings of its own.
fn house(command_name: &str, root: &Path, ports: [u16; 4], more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headworks"));
    command.arg(command_name);
    let [srt, rtp, rtcp, control] = ports;
    for assignment in [
        format!("output.root={}", root.join("rings").display()),
        format!("ingestion.srt.port={srt}"),
        format!("ingestion.rtp.port={rtp}"),
        format!("ingestion.rtp.rtcp_port={rtcp}"),
        format!("control.listen=127.0.0.1:{control}"),
        "ingestion.max_connections=1".to_owned(),
        "ingestion.srt.max_bandwidth=1000000".to_owned(),
    ] {
        command.args(["--set", &assignment]);
    }
    command.args(more);
    command
}

fn http_status(port: u16, path: &str) -> Option<String> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.lines().next()?.to_owned())
}

fn wait_until_ready(served: &mut Child, ports: [u16; 4]) {
    let began = Instant::now();
    while http_status(ports[3], "/ready").as_deref() != Some("HTTP/1.1 200 OK") {
        assert!(began.elapsed() < Duration::from_secs(30), "not ready; {:?}", served.try_wait());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn nothing_waits_for_a_log_that_nobody_reads() {
    let root = root();
    let ports = free_ports();
    let (_unread, log) = rustix::pipe::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&log).unwrap();
    rustix::fs::fcntl_setfl(&log, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&log, &[b'.'; 512]).is_ok() {}
    rustix::fs::fcntl_setfl(&log, flags).unwrap();
    let mut served = house("serve", root.path(), ports, &["--set", "log.level=trace"])
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap();
    wait_until_ready(&mut served, ports);
    let process = rustix::process::Pid::from_child(&served);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let told = Instant::now();
    assert_eq!(served.wait().unwrap().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_appliance_serves_until_it_is_told_to_end() {
    let root = root();
    let ports = free_ports();
    let mut served = house("serve", root.path(), ports, &["--set", "ingestion.sync.enabled=true"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until_ready(&mut served, ports);
    let check = house("check", root.path(), ports, &["--json"]).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
    assert!(text(&check.stdout).contains(&format!("headworks is running as process {}", served.id())));

    let process = rustix::process::Pid::from_child(&served);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let ended = Instant::now();
    let output = served.wait_with_output().unwrap();
    assert!(ended.elapsed() < Duration::from_secs(5));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(&format!("srt://127.0.0.1:{}?streamid=cam1", ports[0])));
    assert!(text(&output.stderr).contains("not yet in effect: ingestion.sync"), "{}", text(&output.stderr));
}

#[test]
fn huge_pages_that_are_too_large_for_rings_are_named_at_the_start_and_by_check() {
    let place = root();
    let path = place.path().join("huge");
    std::fs::create_dir(&path).unwrap();
    let mut mount = Command::new("mount");
    let mounted =
        mount.args(["-t", "hugetlbfs", "-o", "pagesize=1G", "none"]).arg(&path).stderr(Stdio::null()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: hugetlbfs with pages of 1 GiB cannot be mounted here");
        return;
    }
    let ports = free_ports();
    let setting = format!("output.hugetlbfs={}", path.display());
    let check = house("check", place.path(), ports, &["--json", "--set", &setting]).output().unwrap();
    let mut served = house("serve", place.path(), ports, &["--set", &setting])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while http_status(ports[3], "/ready").is_none() && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
    }
    served.kill().unwrap();
    assert!(Command::new("umount").arg(&path).status().unwrap().success());
    let fault = format!("{} has pages of 1024 MiB, rings need 2 MiB", path.display());
    let said = served.wait_with_output().unwrap().stderr;
    let warning = format!("output.hugetlbfs is not used, rings lie on tmpfs: {fault}");
    assert!(text(&said).contains(&warning), "{}", text(&said));
    let report: Value = serde_json::from_slice(&check.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|it| it["what"] == "mount for rings").unwrap();
    assert_eq!((&finding["found"], &finding["severity"]), (&fault.into(), &"degraded".into()));
    assert_eq!(finding["cure"], format!("mount -t hugetlbfs -o pagesize=2M none {}", path.display()));
}

#[test]
fn what_prevents_serving_is_told_in_one_line() {
    let root = root();
    let ports = free_ports();
    let udp = std::net::UdpSocket::bind(("0.0.0.0", ports[0])).unwrap();
    let refused = |more: &[&str], expected: &str| {
        let output = house("serve", root.path(), ports, more).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{more:?}: {}", text(&output.stderr));
        let line = text(&output.stderr).lines().last().unwrap();
        assert!(line.starts_with("headworks: ") && line.contains(expected), "{more:?}: {line}");
    };
    refused(&[], &ports[0].to_string());
    drop(udp);
    let tcp = std::net::TcpListener::bind(("127.0.0.1", ports[3])).unwrap();
    refused(&[], "set control.listen to a free port");
    drop(tcp);
    refused(&["--set", "ingestion.srt.prot=1"], "did you mean ingestion.srt.port?");
    refused(&["--set", "ingestion.srt.passphrase=short"], "a passphrase has 10 to 79 bytes");
    refused(&["--set", "log.level=loud=very=much"], "log.level");
    let too_small = "ingestion.memory.per_stream_limit=1000000";
    refused(&["--set", too_small], "per_stream_limit = 1000000 refuses every stream, which is planned to take ");
    refused(&["--config", "/nowhere/headworks.yaml"], "/nowhere/headworks.yaml");
    refused(&["--set", "output.root=/proc/x"], "output.root: /proc/x: ");
    refused(&["--set", "control.tls=true", "--set", "control.listen=0.0.0.0:0"], "control.tls: is not yet in effect");
    std::fs::create_dir_all(root.path().join("rings")).unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(root.path().join("rings"), everybody).unwrap();
    refused(&[], "rings is writable by others");

    let check = house("check", root.path(), ports, &["--json"]).output().unwrap();
    assert_eq!(check.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(report["ready"], false);
    let finding = report["findings"].as_array().unwrap().iter().find(|it| it["what"] == "rings").unwrap();
    assert_eq!(finding["severity"], "prevents");
    assert_eq!(finding["cure"], format!("chmod 2750 {}", root.path().join("rings").display()));
}
