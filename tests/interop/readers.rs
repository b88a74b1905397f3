//! Readers in other languages (`sys/frame-ring`): C by `headworks.h`, Python by its package; and the commands that README.md gives.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::appliance::{Appliance, BINARY, as_ordinary_user, must_end};
use crate::clip_table::{every_clip, named};
use crate::clips::{Clip, directory, run};
use crate::python;
use crate::senders;
use crate::tap::Tap;

static FRAME_RING: LazyLock<PathBuf> = LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("sys/frame-ring"));

static C_TAP: LazyLock<PathBuf> = LazyLock::new(|| {
    let to = directory().join("tap");
    let mut command = Command::new("cc");
    command.args(["-std=c99", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]);
    run(command.arg(FRAME_RING.join("include")).arg("tests/interop/tap.c").arg("-o").arg(&to));
    to
});

static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| python::install(&FRAME_RING, &directory().join("python")));

/// Sends a clip over SRT to three readers at once.
fn arrives_bit_exact_in_every_language(clip: &Clip) {
    let appliance = Appliance::start(&[]);
    let root = appliance.root.path();
    let rust = appliance.tap("cam1");
    let c = Tap::run(Command::new(&*C_TAP).arg(root).arg("cam1"));
    let python = Tap::run(Command::new(&*PYTHON).arg("tests/interop/tap.py").arg(root).arg("cam1"));
    senders::send_srt(appliance.ports.srt, "streamid=cam1", &clip.bytes);
    let count = clip.reference.packet_count();
    let expected = rust.wait_for(count);
    for (how, tap) in [("headworks.h", c), ("Python", python)] {
        let frames = tap.wait_for(count);
        clip.reference.compare(&format!("{} by {how}", clip.name), &frames);
        assert!(frames == expected, "{} by {how}: other lines than those of headworks tap", clip.name);
    }
}

#[test]
fn c_and_python_read_every_clip_bit_exact() {
    // Compiled and installed before anything is sent.
    LazyLock::force(&C_TAP);
    LazyLock::force(&PYTHON);
    every_clip(arrives_bit_exact_in_every_language);
}

#[test]
fn a_user_whom_the_file_modes_keep_out_reads_through_the_broker_what_is_his() {
    let place = tempfile::tempdir().expect("a directory");
    for open_to_all in [place.path(), directory()] {
        fs::set_permissions(open_to_all, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let socket = place.path().join("broker");
    let setting = format!("output.broker.socket={}", socket.display());
    let ordinary = "streams.cam1.readers.uids=[65534]";
    let appliance = Appliance::start(&[&setting, ordinary, "streams.cam2.readers={uids: [1], gids: [65533]}"]);
    let clip = named("progressive");
    let tap = |stream: &str| {
        let mut command = Command::new(BINARY);
        command.args(["tap", stream, "--from", "oldest", "--json", "--hash", "sha256", "--timeout", "60"]);
        command
    };
    let through = |stream: &str| {
        let mut command = tap(stream);
        command.arg("--broker").arg(&socket);
        command
    };
    let in_c = |stream: &str| {
        let mut command = Command::new(&*C_TAP);
        command.arg(&socket).args([stream, "broker"]);
        command
    };
    let in_python = |stream: &str| {
        let mut command = Command::new(&*PYTHON);
        command.arg("tests/interop/tap.py").arg(&socket).args([stream, "broker"]);
        command
    };
    // They wait for the stream, and are handed each track as it comes.
    let readers = [through("cam1"), in_c("cam1"), in_python("cam1")].map(|it| Tap::run(&mut as_ordinary_user(&it)));
    senders::send_srt(appliance.ports.srt, "streamid=cam1", &clip.bytes);
    for (how, reader) in ["headworks tap", "headworks.h", "Python"].iter().zip(readers) {
        clip.reference.compare(&format!("{how} through the broker"), &reader.wait_for(clip.reference.packet_count()));
    }

    let (status, said) = must_end(&mut as_ordinary_user(tap("cam1").arg("--root").arg(appliance.root.path())));
    assert!(status.code() == Some(1) && said.contains("Permission denied"), "{status} {said}");
    // Of another's stream, and of one that is not there, the same is said.
    for stream in ["cam2", "cam3"] {
        for (command, refused) in [
            (through(stream), "the broker says that this user may not read the stream"),
            (in_c(stream), "Permission denied"),
            (in_python(stream), "PermissionError"),
        ] {
            let (status, said) = must_end(&mut as_ordinary_user(&command));
            assert!(status.code() == Some(1) && said.contains(refused), "{status} {said}");
        }
    }
}

/// The blocks of README.md in this language that speak of a reader.
fn readme_blocks(language: &str) -> Vec<String> {
    let readme = fs::read_to_string("README.md").unwrap();
    let section = readme.split("\n## Reading frames from a program\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its end");
    let fence = format!("```{language}\n");
    section.split(&fence).skip(1).map(|block| block.split("```").next().expect("its end").to_owned()).collect()
}

/// The pixels of a picture or of the last key frame of a clip.
fn rgb(path: &Path) -> Vec<u8> {
    let arguments = ["-nostdin", "-v", "error", "-skip_frame", "nokey", "-i"];
    let mut command = Command::new("ffmpeg");
    command.args(arguments).arg(path).args(["-map", "0:v", "-fps_mode", "passthrough", "-pix_fmt", "rgb24"]);
    let output = command.args(["-f", "rawvideo", "-"]).output().expect("ffmpeg runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let size = 640 * 360 * 3;
    assert!(output.stdout.len() >= size && output.stdout.len().is_multiple_of(size), "{path:?}");
    output.stdout[output.stdout.len() - size..].to_vec()
}

#[test]
fn the_commands_of_the_readme_read_a_stream() {
    let clip = named("progressive");
    let appliance = Appliance::start(&[]);
    senders::send_srt(appliance.ports.srt, "streamid=cam1", &clip.bytes);
    let root = appliance.root.path().to_str().expect("text");
    let checkout = tempfile::TempDir::new().expect("a directory");
    python::copy_sources(&FRAME_RING, &checkout.path().join("sys/frame-ring"));

    let shell = readme_blocks("sh");
    let ours =
        |commands: &&String| ["sys/frame-ring/include", "sys/frame-ring/python"].iter().any(|it| commands.contains(it));
    let shell: Vec<&String> = shell.iter().filter(ours).collect();
    assert_eq!(shell.len(), 2, "the commands for C and for Python: {shell:?}");
    for commands in &shell {
        let commands = commands.replace("/dev/shm/headworks", root);
        run(python::command("sh").args(["-e", "-c", &commands]).current_dir(checkout.path()));
    }
    let picture = rgb(&checkout.path().join("key.png"));
    let expected = rgb(&directory().join("progressive.ts"));
    let difference: u64 = picture.iter().zip(&expected).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!(difference < 2 * picture.len() as u64, "another picture: {difference}");

    let [script] = &readme_blocks("python")[..] else { panic!("one script") };
    assert!(script.contains("headworks.open(\"cam1\""), "{script}");
    let script = script.replace("headworks.open(\"cam1\"", &format!("headworks.open(\"cam1\", root=\"{root}\""));
    let said = run(Command::new(checkout.path().join("venv/bin/python")).args(["-c", &script]));
    let key = clip.reference.tracks[0].packets.iter().rev().find(|packet| packet.key).expect("a key");
    assert!(said.contains(&key.len.to_string()), "from the last key frame on: {said}");
}
