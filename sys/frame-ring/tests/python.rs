//! The Python package: installed with pip, then its own tests beside streams that are written here.
mod common;

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::broker::serve;
use common::other_process::OtherProcess;
use common::{directory, payload, python, spec, write};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::{Discontinuity, FrameDescriptor};
use headworks_frame_ring::layout::{State, TrackKind};
use headworks_frame_ring::stream_descriptor::{Programme, StreamDescriptor, Track};
use headworks_frame_ring::writer::Writer;

static PYTHON: LazyLock<std::path::PathBuf> = LazyLock::new(|| {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    python::install(Path::new(env!("CARGO_MANIFEST_DIR")), &place)
});

fn create(root: &Path, name: &str, tracks: &[(&str, TrackKind)]) -> (BellWriter, Vec<Writer>) {
    let stream = root.join(name);
    std::fs::create_dir(&stream).unwrap();
    let bell = BellWriter::create(&stream).unwrap();
    let ring = |&(track, kind): &(&str, TrackKind)| {
        builder::create(&stream.join(track), &RingSpec { kind, codec: *b"h264", ..spec() }).unwrap()
    };
    (bell, tracks.iter().map(ring).collect())
}

/// `cam1`: two tracks of 20 frames each, at an end. The video has a key every fifth frame, frame 12 is damaged and jumps, and
/// frame 15 comes with another configuration and side data.
fn write_finished(root: &Path) {
    let (mut bell, mut tracks) = create(root, "cam1", &[("audio0", TrackKind::Audio), ("video0", TrackKind::Video)]);
    let descriptor = StreamDescriptor {
        name: "cam1".into(),
        created_utc_ns: 5,
        programmes: vec![Programme { number: 1, pcr_pid: 256, name: "One".into(), provider: "über".into() }],
        tracks: vec![Track {
            name: "audio0".into(),
            language: "deu".into(),
            sample_rate: 48_000,
            codec: *b"aac ",
            ..Default::default()
        }],
        ..Default::default()
    };
    descriptor.write(&root.join("cam1")).unwrap();
    for seq in 0..20 {
        write(&mut tracks[0], &mut bell, &payload(seq, 50), true);
        let video = &mut tracks[1];
        if seq % 15 == 0 {
            video.set_configuration(format!("configuration {seq}").as_bytes()).unwrap();
        }
        video.append(&payload(100 + seq, 1_000 * seq as usize)).unwrap();
        if seq == 15 {
            video.append_side_data(b"side").unwrap();
        }
        let discontinuity = if seq == 12 { Discontinuity::TimeBaseJump } else { Discontinuity::None };
        let time = (seq != 3).then_some(seq as i64 * 3600);
        let frame =
            FrameDescriptor { key: seq % 5 == 0, damaged: seq == 12, discontinuity, pts: time, ..Default::default() };
        video.commit(&frame, &mut bell);
    }
    tracks.iter_mut().for_each(|track| track.set_state(State::Ended));
    bell.set_state(State::Ended);
}

#[test]
fn the_tests_of_the_package_pass() {
    let root = directory();
    write_finished(root.path());
    serve(root.path());
    // `live`: 200 frames a second as long as the tests run; `waits`: nothing at all.
    let (mut bell, mut tracks) = create(root.path(), "live", &[("video0", TrackKind::Video)]);
    let _waits = create(root.path(), "waits", &[("video0", TrackKind::Video)]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                write(&mut tracks[0], &mut bell, &payload(seq, 2_000), seq % 10 == 0);
                bell.heartbeat(1);
                bell.wake_target().wake();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let output = Command::new(&*PYTHON)
            .args(["-X", "dev", "-m", "unittest", "-v"])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/tests"))
            .env("HEADWORKS_TEST_ROOT", root.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        over.store(true, Ordering::Relaxed);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("\nOK\n"), "some were left out: {said}");
    });
}

#[test]
fn a_source_distribution_installs_without_the_tree_that_it_was_made_in() {
    let place = directory();
    let tree = place.path().join("frame-ring");
    python::copy_sources(Path::new(env!("CARGO_MANIFEST_DIR")), &tree);
    // What `python -m build --sdist` calls (PEP 517).
    let build = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))";
    let mut command = python::command(&*PYTHON);
    let said = python::run(command.args(["-c", build]).arg(place.path()).current_dir(tree.join("python")));
    let name = said.lines().last().expect("the name of the file");
    assert_eq!(name, "headworks-0.1.0.tar.gz");
    assert!(!tree.join("python/include").exists(), "no second copy in the tree");
    std::fs::remove_dir_all(&tree).unwrap();

    let environment = place.path().join("environment");
    python::environment(&environment);
    let mut pip = python::command(environment.join("bin/pip"));
    python::run(pip.args(["install", "--quiet"]).arg(place.path().join(name)));
    write_finished(place.path());
    let script = "
import headworks, sys
print(headworks.__file__, [frame.seq for frame in headworks.open('cam1', root=sys.argv[1], start='oldest', track='audio0')])
";
    let mut command = python::command(environment.join("bin/python"));
    let said = python::run(command.args(["-c", script]).arg(place.path()));
    let (file, seqs) = said.trim().split_once(' ').unwrap();
    assert!(Path::new(file).starts_with(&environment), "{file}");
    assert_eq!(seqs, format!("{:?}", (0..20).collect::<Vec<_>>()));
}

#[test]
fn a_loop_is_overtaken_and_says_so_and_sees_the_end() {
    let root = directory();
    let (mut bell, mut tracks) = create(root.path(), "cam1", &[("video0", TrackKind::Video)]);
    let script = "
import headworks, sys
for frame in headworks.open('cam1', root=sys.argv[1], start='oldest'):
    print(frame.seq, [(str(e.status), e.track, e.count, e.resume_at) for e in frame.before], flush=True)
    sys.stdin.readline()
print('ended')
";
    let mut command = Command::new(&*PYTHON);
    let mut reader = OtherProcess::start(command.args(["-c", script]).arg(root.path()));
    write(&mut tracks[0], &mut bell, b"first", true);
    bell.wake_target().wake();
    assert_eq!(reader.line(), "0 [('a new track', 'video0', 0, 0)]");
    for seq in 1..100 {
        write(&mut tracks[0], &mut bell, &payload(seq, 100), seq % 20 == 0);
    }
    bell.set_state(State::Ended);
    reader.say("\n");
    assert_eq!(reader.line(), "80 [('overtaken by the writer', 'video0', 79, 80)]");
    reader.say(&"\n".repeat(20));
    assert!(reader.end().ends_with("\n99 []\nended\n"));
}
