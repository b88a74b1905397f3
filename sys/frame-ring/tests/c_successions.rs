//! The C reader where a ring, a bell or a whole stream takes another's place: nothing is repeated, skipped or held for ever.
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::broker::serve;
use common::c_compiler::{READERS, frame_line, make_stream, reader, start};
use common::other_process::OtherProcess;
use common::{directory, payload, spec, take_up, write};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::layout::State;

#[test]
fn a_superseded_ring_is_read_to_its_end_and_the_new_one_opened() {
    for program in READERS.iter() {
        let dir = directory();
        let ring = dir.path().join("video0");
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut old = builder::create(&ring, &spec()).unwrap();
        let mut one = start(program, &["ring", ring.to_str().unwrap(), "oldest", "stop-after=7"]);
        let mut all = start(program, &["stream", dir.path().to_str().unwrap(), "oldest", "stop-after=7"]);
        let mut stays = start(program, &["ring", ring.to_str().unwrap(), "oldest", "stay"]);
        one.hear("ready 0\n");
        all.hear("video0 a new track\n");
        stays.hear("ready 0\n");
        for seq in 0..3 {
            write(&mut old, &mut bell, &payload(seq, 200), true);
        }
        old.wake_target().wake();
        bell.wake_target().wake();
        one.hear("ring frame 2 ");
        all.hear("video0 frame 2 ");
        let larger = RingSpec { frame_size_max: 128 << 10, ..spec() };
        let mut new = builder::create(&dir.path().join(".tmp-1"), &larger).unwrap();
        for seq in 0..4 {
            write(&mut new, &mut bell, &payload(100 + seq, 200), true);
        }
        builder::publish(&dir.path().join(".tmp-1"), &ring).unwrap();
        for seq in 4..8 {
            write(&mut new, &mut bell, &payload(100 + seq, 200), true);
        }
        bell.tracks_changed();
        for (said, track) in [(one.end(), "ring"), (all.end(), "video0")] {
            let lines: Vec<&str> = said.lines().skip_while(|line| !line.contains("replaced")).collect();
            assert_eq!(lines[0], format!("{track} replaced by another, which has been opened"));
            for (seq, line) in (0..8).zip(&lines[1..]) {
                assert!(line.starts_with(&frame_line(track, seq, &payload(100 + seq, 200))), "{said}");
            }
            assert_eq!(lines.len(), 9, "{said}");
        }
        assert!(stays.end().ends_with("ring replaced by another that cannot be opened\n"));
    }
}

#[test]
fn a_superseded_stream_is_gone_on_with_under_its_name() {
    let root = directory();
    let stream = root.path().join("cam1");
    let make = |path: &Path| {
        fs::create_dir(path).unwrap();
        let bell = BellWriter::create(path).unwrap();
        (bell, builder::create(&path.join("video0"), &spec()).unwrap())
    };
    let (mut bell, mut writer) = make(&stream);
    let sound = builder::create(&stream.join("audio0"), &spec()).unwrap();
    let mut reader = start(reader(), &["stream", stream.to_str().unwrap(), "live", "stop-after=3"]);
    reader.hear("video0 a new track\n");
    write(&mut writer, &mut bell, b"old", true);
    bell.wake_target().wake();
    let temporary = root.path().join(".tmp-1");
    let (mut new_bell, mut new_writer) = make(&temporary);
    for n in 0..4 {
        write(&mut new_writer, &mut new_bell, &payload(n, 100), true);
    }
    drop(sound);
    builder::publish(&temporary, &stream).unwrap();
    let said = reader.end();
    let lines: Vec<&str> = said.lines().skip(3).collect();
    assert!(lines[0].starts_with(&frame_line("video0", 0, b"old")), "{said}");
    assert_eq!(
        lines[1..3],
        ["audio0 a track has ended", "video0 replaced by another, which has been opened"],
        "{said}"
    );
    for n in 0..4 {
        assert!(lines[3 + n].starts_with(&frame_line("video0", n as u64, &payload(n as u64, 100))), "{said}");
    }
}

/// A writer that finds a bell it cannot take up makes a new one over the same rings; nobody tells those who wait at the old one.
#[test]
fn a_new_bell_over_the_same_rings_is_found_and_no_frame_is_repeated_or_skipped() {
    for program in READERS.iter() {
        let dir = directory();
        let (video, sound) = (dir.path().join("video0"), dir.path().join("audio0"));
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut writer = builder::create(&video, &spec()).unwrap();
        let mut ended = builder::create(&sound, &spec()).unwrap();
        let mut reader = start(program, &["stream", dir.path().to_str().unwrap(), "oldest", "stop-after=2"]);
        write(&mut ended, &mut bell, b"sound", true);
        ended.set_state(State::Ended);
        write(&mut writer, &mut bell, b"before", true);
        bell.wake_target().wake();
        reader.hear(&frame_line("video0", 0, b"before"));
        reader.hear("audio0 a track has ended\n");
        drop((bell, writer, ended));
        for file in ["bell", "writer.lock"] {
            fs::remove_file(dir.path().join(file)).unwrap();
        }
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut writer = take_up(&video);
        bell.advance_to(writer.stream_seq_after());
        write(&mut writer, &mut bell, b"after", true);
        reader.hear(&frame_line("video0", 1, b"after"));
        // The new bell is the one that is waited at, and is asked for new tracks.
        let mut late = builder::create(&dir.path().join("data0"), &spec()).unwrap();
        bell.tracks_changed();
        write(&mut late, &mut bell, b"late", true);
        bell.wake_target().wake();
        reader.hear(&frame_line("data0", 0, b"late"));
        write(&mut writer, &mut bell, b"last", true);
        bell.wake_target().wake();
        let said = reader.end();
        assert!(!said.contains("replaced") && said.matches("a track has ended").count() == 1, "{said}");
        assert_eq!(said.matches(" frame ").count(), 5, "{said}");
        assert_eq!(said.matches("a new track").count(), 3, "{said}");
    }
}

#[test]
fn a_stream_that_was_cleared_away_and_made_anew_after_its_writer_died_is_gone_on_with() {
    let root = directory();
    let stream = root.path().join("cam1");
    let (mut bell, mut writer) = make_stream(&stream);
    let sound = builder::create(&stream.join("audio0"), &spec()).unwrap();
    let mut reader = start(reader(), &["stream", stream.to_str().unwrap(), "live", "stop-after=1"]);
    reader.hear("video0 a new track\n");
    write(&mut writer, &mut bell, b"old", true);
    bell.wake_target().wake();
    reader.hear(&frame_line("video0", 0, b"old"));
    drop((bell, writer, sound));
    fs::remove_dir_all(&stream).unwrap();
    // Once a second tracks are looked for.
    reader.hear("the writer's heartbeat stopped");
    std::thread::sleep(Duration::from_millis(1_200));
    let (mut bell, mut writer) = make_stream(&stream);
    for n in 0..2 {
        write(&mut writer, &mut bell, &payload(n, 100), true);
    }
    let said = reader.end();
    let (_, after) = said.split_once("replaced by another, which has been opened\n").unwrap();
    for n in 0..2 {
        assert!(after.contains(&frame_line("video0", n, &payload(n, 100))), "{said}");
    }
    assert_eq!(said.matches("audio0 a track has ended\n").count(), 1, "{said}");
    assert!(!said.contains("video0 a track has ended"), "{said}");
}

/// A reader that stays for weeks holds the memory of the rings that it reads, and of no other.
#[test]
fn memory_of_rings_that_were_replaced_or_cleared_away_is_given_back() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let mut video = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let mut sound = builder::create(&dir.path().join("audio0"), &spec()).unwrap();
    let mut reader = start(reader(), &["stream", dir.path().to_str().unwrap(), "oldest", "stop-after=1"]);
    write(&mut sound, &mut bell, b"sound", true);
    sound.set_state(State::Ended);
    bell.wake_target().wake();
    reader.hear("audio0 a track has ended\n");
    drop((video, sound));
    video = builder::create(&dir.path().join(".tmp-1"), &spec()).unwrap();
    builder::publish(&dir.path().join(".tmp-1"), &dir.path().join("video0")).unwrap();
    fs::remove_dir_all(dir.path().join("audio0")).unwrap();
    bell.tracks_changed();
    write(&mut video, &mut bell, b"picture", true);
    bell.wake_target().wake();
    reader.hear("video0 replaced by another, which has been opened\n");
    reader.hear(&frame_line("video0", 0, b"picture"));
    let maps = fs::read_to_string(format!("/proc/{}/maps", reader.id())).unwrap();
    let gone = format!("{}/", dir.path().display());
    let held: Vec<_> = maps.lines().filter(|line| line.contains(&gone) && line.contains("/data (deleted)")).collect();
    assert_eq!(held, [""; 0]);
    // What takes the name is read.
    let mut sound = builder::create(&dir.path().join("audio0"), &spec()).unwrap();
    bell.tracks_changed();
    write(&mut sound, &mut bell, b"new sound", true);
    write(&mut video, &mut bell, b"last", true);
    bell.wake_target().wake();
    assert!(reader.end().contains(&frame_line("audio0", 0, b"new sound")));
}

/// All that a program with the word `step` says now.
fn drain(reader: &mut OtherProcess) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        reader.say("\n");
        let line = reader.line();
        if line.ends_with(" nothing came in time") {
            return said;
        }
        said.push(line);
    }
}

#[test]
fn of_rings_that_come_and_go_for_ever_a_reader_holds_a_bounded_number() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    let _stays = builder::create(&dir.path().join("video0"), &spec()).unwrap();
    let words = ["stream", dir.path().to_str().unwrap(), "live", "timeout=0", "step"];
    let mut readers: Vec<_> = READERS.iter().map(|program| start(program, &words)).collect();
    for reader in &mut readers {
        assert_eq!(reader.line(), "ready");
        assert_eq!(drain(reader), ["video0 a new track"]);
    }
    for n in 0..1_100 {
        let name = format!("audio{n}");
        let mut writer = builder::create(&dir.path().join(&name), &spec()).unwrap();
        bell.tracks_changed();
        write(&mut writer, &mut bell, &payload(n, 100), true);
        writer.set_state(State::Ended);
        for reader in &mut readers {
            let said = drain(reader);
            assert_eq!([&said[0], &said[2]], [&format!("{name} a new track"), &format!("{name} a track has ended")]);
            assert!(said[1].starts_with(&frame_line(&name, 0, &payload(n, 100))) && said.len() == 3, "{said:?}");
        }
        drop(writer);
        fs::remove_dir_all(dir.path().join(name)).unwrap();
        bell.tracks_changed();
        for reader in &mut readers {
            assert_eq!(drain(reader), [""; 0]);
        }
    }
    for reader in &readers {
        let maps = fs::read_to_string(format!("/proc/{}/maps", reader.id())).unwrap();
        assert_eq!(maps.lines().filter(|line| line.contains("/ctl")).count(), 1_024);
    }
}

#[test]
fn a_relative_path_counts_from_where_the_process_was_when_it_opened() {
    let openings: [&[&str]; 3] = [&["ring", "cam1/video0"], &["stream", "cam1"], &["stream", "cam1", "broker=.broker"]];
    for words in openings {
        let root = directory();
        serve(root.path());
        let stream = root.path().join("cam1");
        let (mut bell, mut writer) = make_stream(&stream);
        let mut command = Command::new(reader());
        command.args(words).args(["live", "leave", "stop-after=0"]).current_dir(root.path());
        let mut reader = OtherProcess::start(&mut command);
        reader.hear("ready");
        fs::remove_dir_all(root.path().join("cam1")).unwrap();
        writer.set_state(State::Superseded);
        bell.set_state(State::Superseded);
        let (mut bell, mut writer) = make_stream(&stream);
        write(&mut writer, &mut bell, b"new", true);
        bell.wake_target().wake();
        let said = reader.end();
        let track = if words[0] == "ring" { "ring" } else { "video0" };
        assert!(said.contains(&format!("{track} replaced by another, which has been opened\n")), "{words:?}: {said}");
        assert!(said.contains(&frame_line(track, 0, b"new")), "{words:?}: {said}");
    }
}

/// Who asks until nothing came in time is not held up by it.
#[test]
fn that_another_has_the_name_but_cannot_be_opened_is_said_once() {
    for program in READERS.iter() {
        let root = directory();
        let stream = root.path().join("cam1");
        let (mut bell, mut writer) = make_stream(&stream);
        let (ring, path) = (stream.join("video0"), stream.to_str().unwrap());
        let mut one = start(program, &["ring", ring.to_str().unwrap(), "timeout=0", "step", "on"]);
        let mut all = start(program, &["stream", path, "timeout=0", "step", "on"]);
        let mut stays = start(program, &["stream", path, "timeout=0", "step", "on", "stay"]);
        assert_eq!([one.line(), all.line(), stays.line()], ["ready 0", "ready", "ready"]);
        drain(&mut all);
        drain(&mut stays);
        writer.set_state(State::Superseded);
        bell.set_state(State::Superseded);
        for (reader, name) in [(&mut one, "ring"), (&mut all, "stream"), (&mut stays, "stream")] {
            assert_eq!(drain(reader), [format!("{name} replaced by another that cannot be opened")]);
            assert_eq!(drain(reader), [""; 0]);
        }
        fs::remove_dir_all(&stream).unwrap();
        let _new = make_stream(&stream);
        assert_eq!(drain(&mut one), ["ring replaced by another, which has been opened"]);
        assert_eq!(drain(&mut all), ["video0 replaced by another, which has been opened"]);
        assert_eq!(drain(&mut stays), [""; 0]);
    }
}
