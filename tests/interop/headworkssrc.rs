//! The GStreamer element `headworkssrc` as the reader: buffers held beside the same reference, and pictures decoded by GStreamer
//! beside those that ffmpeg decodes from the clip.
//!
//! The element is a crate of its own that `tests/run` builds before these tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::appliance::Appliance;
use crate::bit_exact::X264;
use crate::clips::{self, Clip, TONE_48K, VIDEO, clip};
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
            // GStreamer's memory of its plugins, which are not those of the host's user.
            .env("GST_REGISTRY", directory.path().join("registry"))
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

/// The buffers of a clip, in the words of `tap`. All their times lie on one timeline, where the first of the reference's first track
/// is held beside its buffer: what is left of a difference is a fault in a time, or between two tracks.
fn frames(clip: &Clip, buffers: &[Buffer]) -> Vec<Frame> {
    let track_of = |buffer: &Buffer| buffer.pad.replace('_', "");
    let first = &clip.reference.tracks[0];
    let anchor = buffers.iter().find(|buffer| track_of(buffer) == first.name).expect("a buffer of the first track");
    let (from_ns, from_ticks) = (anchor.pts_ns.expect("a PTS"), first.packets[0].pts.expect("a PTS"));
    // Both are rounded down.
    let ticks = |ns: i64| from_ticks + ((ns - from_ns) as f64 * 9e-5).round() as i64;
    let mut frames: Vec<Frame> = Vec::new();
    for (index, buffer) in buffers.iter().enumerate() {
        let track = track_of(buffer);
        let seq = frames.iter().filter(|frame| frame.track == track).count() as u64;
        frames.push(Frame {
            codec: buffer.caps.clone(),
            seq,
            stream_seq: index as u64,
            segment: 0,
            pts: buffer.pts_ns.map(ticks),
            dts: buffer.dts_ns.map(ticks),
            timeline_ns: 0,
            key: !buffer.delta_unit,
            random_access: None,
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

/// Sends a clip over SRT; the pipeline must end by itself, with the whole clip, and these caps of each track.
fn arrives_in_a_pipeline(clip: &Arc<Clip>, caps: &[&str]) {
    let appliance = Appliance::start(SETTINGS);
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
    for (track, caps) in clip.reference.tracks.iter().zip(caps) {
        let of_track = || buffers.iter().filter(|buffer| buffer.pad.replace('_', "") == track.name);
        let other = of_track().find(|buffer| !buffer.caps.starts_with(caps));
        assert!(other.is_none(), "{caps}: {other:?}");
    }
    clip.reference.compare(&format!("{} in GStreamer", clip.name), &frames(clip, &buffers));
}

#[test]
fn h264_and_aac_arrive_bit_exact_in_gstreamer() {
    arrives_in_a_pipeline(
        &clip("progressive", &[VIDEO, TONE_48K], &format!("{X264} -g 25 -bf 2 -c:a aac -b:a 128k")),
        &[
            "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au",
            "audio/mpeg, mpegversion=(int)4, stream-format=(string)raw, framed=(boolean)true, codec_data=(buffer)",
        ],
    );
}

#[test]
fn hevc_and_ac3_arrive_bit_exact_in_gstreamer() {
    let arguments = "-c:v libx265 -preset ultrafast -x265-params log-level=error:keyint=25 -b:v 2M -c:a ac3";
    arrives_in_a_pipeline(
        &clip("hevc8", &[VIDEO, TONE_48K], arguments),
        &["video/x-h265, stream-format=(string)byte-stream, alignment=(string)au", "audio/x-ac3, framed=(boolean)true"],
    );
}

#[test]
fn mpeg2_and_mp2_arrive_bit_exact_in_gstreamer() {
    arrives_in_a_pipeline(
        &clip("mpeg2", &[VIDEO, TONE_48K], "-c:v mpeg2video -g 12 -bf 2 -b:v 4M -c:a mp2 -b:a 192k"),
        &[
            "video/mpeg, mpegversion=(int)2, systemstream=(boolean)false, parsed=(boolean)true",
            "audio/mpeg, mpegversion=(int)1, mpegaudioversion=(int)1, layer=(int)2, rate=(int)48000, channels=(int)1",
        ],
    );
}

#[test]
fn two_audio_tracks_arrive_bit_exact_in_gstreamer() {
    let arguments =
        format!("{X264} -g 25 -c:a:0 mp2 -c:a:1 ac3 -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu");
    arrives_in_a_pipeline(
        &clip("two-audio", &[VIDEO, TONE_48K, TONE_48K], &arguments),
        &["video/x-h264", "audio/mpeg, mpegversion=(int)1", "audio/x-ac3"],
    );
}

#[test]
fn opus_arrives_bit_exact_in_gstreamer() {
    arrives_in_a_pipeline(
        &clip("opus", &[VIDEO, TONE_48K], &format!("{X264} -g 25 -c:a libopus -b:a 96k")),
        &["video/x-h264", "audio/x-opus, rate=(int)48000, channels=(int)1, channel-mapping-family=(int)0"],
    );
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
    let clip = clip("progressive", &[VIDEO, TONE_48K], &format!("{X264} -g 25 -bf 2 -c:a aac -b:a 128k"));
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
    let expected = decoded_by_ffmpeg(&clip, "-map 0:v:0 -fps_mode passthrough -pix_fmt yuv420p -f rawvideo");
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
    let clip = clip("audio-only", &[TONE_48K], "-c:a aac -b:a 192k");
    let appliance = Appliance::start(SETTINGS);
    senders::send_srt(appliance.ports.srt, "streamid=cam1", &clip.bytes);
    let mut pipeline = Pipeline::launch(&appliance, "stream=cam7 timeout=500000000 ! fakesink");
    assert!(!pipeline.end().success());
    let said = String::from_utf8(pipeline.written("stderr")).unwrap();
    assert!(said.contains("no stream cam7 in") && said.contains("there are: cam1"), "{said}");
}
