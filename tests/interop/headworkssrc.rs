//! The GStreamer element `headworkssrc` as the reader: buffers held beside the same reference, and pictures decoded by GStreamer
//! beside those that ffmpeg decodes from the clip.
//!
//! The element is a crate of its own that `tests/run` builds before these tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::appliance::Appliance;
use crate::clip_table::{every_clip, named};
use crate::clips::{self, Clip};
use crate::reference::hashed;
use crate::senders;
use crate::tap::Frame;

/// From the end of the session to the end of the pipeline.
const END_MAX: Duration = Duration::from_secs(20);

/// A stream without a source ends soon, which is the end of its readers.
const SETTINGS: &[&str] = &["ingestion.stream_timeout=2s"];

/// A line of the element's example `print_buffers`.
#[derive(Debug, Deserialize)]
struct Buffer {
    pad: String,
    caps: String,
    pts_ns: Option<i64>,
    dts_ns: Option<i64>,
    delta_unit: bool,
    discont: bool,
    corrupted: bool,
    len: usize,
    sha256: String,
}

impl Buffer {
    /// The name of the track that the pad is of.
    fn track(&self) -> String {
        self.pad.replace('_', "")
    }
}

/// Where `tests/run` has the element built.
fn built() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/gstreamer/release");
    assert!(
        directory.join("examples/print_buffers").exists() && directory.join("libgstheadworks.so").exists(),
        "build the element first: cargo build --release --locked --lib --examples \
         --manifest-path sys/frame-ring/gstreamer/Cargo.toml --target-dir target/gstreamer"
    );
    directory
}

/// GStreamer's memory of its plugins, which are not those of the host's user; filled before anything waits for a pipeline.
static REGISTRY: LazyLock<PathBuf> = LazyLock::new(|| {
    let registry = clips::directory().join("registry");
    let mut command = Command::new("gst-inspect-1.0");
    clips::run(command.arg("headworkssrc").env("GST_REGISTRY", &registry).env("GST_PLUGIN_PATH", built()));
    registry
});

/// A pipeline in a process of its own, with what it writes in files.
struct Pipeline {
    child: Child,
    directory: tempfile::TempDir,
}

impl Pipeline {
    fn start(command: &mut Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name| std::fs::File::create(directory.path().join(name)).unwrap();
        let child = command
            .current_dir(directory.path())
            .env("GST_REGISTRY", &*REGISTRY)
            .env("GST_PLUGIN_PATH", built())
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, directory }
    }

    fn launch(appliance: &Appliance, pipeline: &str) -> Self {
        let pipeline = format!("headworkssrc root={} {pipeline}", appliance.root.path().display());
        Self::start(Command::new("gst-launch-1.0").arg("-q").args(pipeline.split_whitespace()))
    }

    fn written(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.path().join(name)).unwrap()
    }

    /// Waits until it ends by itself.
    fn end(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < END_MAX, "no end: {}", String::from_utf8_lossy(&self.written("stderr")));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn must_end_well(&mut self) {
        let status = self.end();
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&self.written("stderr")));
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The buffers of a clip, in the words of `tap`; `tapped` are the frames that `tap` has seen. All times of a programme lie on one
/// timeline, where the first of the reference's first track is held beside its buffer: what is left of a difference is a fault in a
/// time, or between two tracks.
fn frames(clip: &Clip, buffers: &[Buffer], tapped: &[Frame]) -> Vec<Frame> {
    let tracks = &clip.reference.tracks;
    let anchor = |programme: u32| {
        let first = tracks.iter().find(|track| track.programme == programme).expect("a track of the programme");
        let buffer = buffers.iter().find(|buffer| buffer.track() == first.name).expect("a buffer of its first track");
        (buffer.pts_ns.expect("a PTS"), first.packets[0].pts.expect("a PTS"))
    };
    let mut frames: Vec<Frame> = Vec::new();
    for (index, buffer) in buffers.iter().enumerate() {
        let track = buffer.track();
        let programme = tracks.iter().find(|known| known.name == track).map_or(0, |track| track.programme);
        let (from_ns, from_ticks) = anchor(programme);
        // Both are rounded down.
        let ticks = |ns: i64| from_ticks + ((ns - from_ns) as f64 * 9e-5).round() as i64;
        let seq = frames.iter().filter(|frame| frame.track == track).count() as u64;
        let tapped = tapped.iter().find(|frame| frame.track == track && frame.seq == seq);
        let timeline_ns = tapped.map(|frame| frame.timeline_ns);
        assert_eq!(buffer.pts_ns, timeline_ns, "{}: {track} {seq} stands elsewhere on the timeline", clip.name);
        frames.push(Frame {
            codec: buffer.caps.clone(),
            seq,
            stream_seq: index as u64,
            segment: 0,
            pts: buffer.pts_ns.map(ticks),
            dts: buffer.dts_ns.map(ticks),
            timeline_ns: 0,
            key: !buffer.delta_unit,
            // A buffer has no word for it.
            random_access: tapped.and_then(|frame| frame.random_access.clone()),
            len: buffer.len,
            discontinuity: buffer.discont.then(|| if seq == 0 { "start" } else { "discont" }.to_owned()),
            damaged: buffer.corrupted,
            lost: 0,
            lapped: 0,
            sha256: buffer.sha256.clone(),
            track,
        });
    }
    frames
}

/// What the caps of a track begin with, by the name that ffprobe has for its codec.
fn caps_of(codec: &str) -> &'static str {
    match codec {
        "h264" => "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au",
        "hevc" => "video/x-h265, stream-format=(string)byte-stream, alignment=(string)au",
        "mpeg2video" => "video/mpeg, mpegversion=(int)2, systemstream=(boolean)false, parsed=(boolean)true",
        "aac" | "aac_latm" => {
            "audio/mpeg, mpegversion=(int)4, stream-format=(string)raw, framed=(boolean)true, codec_data=(buffer)"
        }
        "mp2" => {
            "audio/mpeg, mpegversion=(int)1, mpegaudioversion=(int)1, layer=(int)2, rate=(int)48000, channels=(int)1"
        }
        "ac3" => "audio/x-ac3, framed=(boolean)true, alignment=(string)frame",
        "eac3" => "audio/x-eac3, framed=(boolean)true, alignment=(string)frame",
        "opus" => "audio/x-opus, rate=(int)48000, channels=(int)1, channel-mapping-family=(int)0",
        _ => panic!("no clip has {codec}"),
    }
}

/// Sends a clip over SRT; the pipeline must end by itself, with the whole clip, and the caps of each track.
fn arrives_in_a_pipeline(clip: &Clip) {
    let appliance = Appliance::start(SETTINGS);
    let tap = appliance.tap("cam1");
    let root = format!("root={}", appliance.root.path().display());
    let mut pipeline = Pipeline::start(Command::new(built().join("examples/print_buffers")).args([
        root.as_str(),
        "stream=cam1",
        "start=oldest",
    ]));
    senders::send_srt(appliance.ports.srt, "streamid=cam1", &clip.bytes);
    pipeline.must_end_well();
    let lines = String::from_utf8(pipeline.written("stdout")).unwrap();
    let buffers: Vec<Buffer> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for track in &clip.reference.tracks {
        let caps = caps_of(&track.codec);
        let of_track = || buffers.iter().filter(|buffer| buffer.track() == track.name);
        let other = of_track().find(|buffer| !buffer.caps.starts_with(caps));
        assert!(other.is_none(), "{caps}: {other:?}");
    }
    clip.reference.compare(&format!("{} in GStreamer", clip.name), &frames(clip, &buffers, &tap.frames()));
}

#[test]
fn every_clip_arrives_bit_exact_in_gstreamer() {
    every_clip(arrives_in_a_pipeline);
}

/// What ffmpeg decodes from a track of the clip.
fn decoded_by_ffmpeg(clip: &Clip, arguments: &str) -> Vec<u8> {
    let source = clips::directory().join(format!("{}.ts", clip.name));
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(source).args(arguments.split_whitespace()).arg("-");
    let output = command.output().expect("ffmpeg is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn gst_launch_decodes_what_ffmpeg_decodes() {
    let clip = named("progressive");
    let appliance = Appliance::start(SETTINGS);
    let from = "stream=cam1 start=oldest";
    let mut pictures =
        Pipeline::launch(&appliance, &format!("{from} ! h264parse ! avdec_h264 ! filesink location=pictures"));
    let sound = format!(
        "{from} name=s s.audio_0 ! aacparse ! avdec_aac ! audioconvert ! audio/x-raw,format=S16LE ! filesink location=sound"
    );
    let mut sound = Pipeline::launch(&appliance, &sound);
    let mut matroska = Pipeline::launch(
        &appliance,
        &format!(
            "{from} name=s s.video_0 ! queue ! h264parse ! mux. \
             s.audio_0 ! queue ! aacparse ! mux. matroskamux name=mux ! filesink location=all.mkv"
        ),
    );
    senders::send_srt(appliance.ports.srt, "streamid=cam1", &clip.bytes);
    for pipeline in [&mut pictures, &mut sound, &mut matroska] {
        pipeline.must_end_well();
    }
    let expected = decoded_by_ffmpeg(clip, "-map 0:v:0 -fps_mode passthrough -pix_fmt yuv420p -f rawvideo");
    let count = clip.reference.tracks[0].packets.len();
    assert_eq!(expected.len(), count * 640 * 360 * 3 / 2, "every access unit of the clip is a picture");
    assert_eq!(hashed(&pictures.written("pictures")), hashed(&expected), "decoded pictures");
    let samples = sound.written("sound").len() / 2;
    assert_eq!(samples, clip.reference.tracks[1].packets.len() * 1_024, "samples of sound");
    let probed = clips::run(
        Command::new("ffprobe")
            .args(["-v", "error", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"])
            .arg(matroska.directory.path().join("all.mkv")),
    );
    let packets: Vec<usize> = probed.lines().map(|line| line.trim_end_matches(',').parse().unwrap()).collect();
    let expected: Vec<usize> = clip.reference.tracks.iter().map(|track| track.packets.len()).collect();
    assert_eq!(packets, expected, "packets in the Matroska file");
}

#[test]
fn gst_launch_names_the_streams_there_are() {
    let clip = named("audio-only");
    let appliance = Appliance::start(SETTINGS);
    senders::send_srt(appliance.ports.srt, "streamid=cam1", &clip.bytes);
    let mut pipeline = Pipeline::launch(&appliance, "stream=cam7 timeout=500000000 ! fakesink");
    assert!(!pipeline.end().success());
    let said = String::from_utf8(pipeline.written("stderr")).unwrap();
    assert!(said.contains("no stream cam7 in") && said.contains("there are: cam1"), "{said}");
}
