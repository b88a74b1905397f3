//! `headworks tap --format`: clips through the pipeline into rings, out of them in a container, and that beside the frames that
//! went in, by ffprobe and ffmpeg.

#[path = "interop/clips.rs"]
#[expect(dead_code, reason = "the interoperability tests use more of it")]
mod clips;
#[path = "interop/latm.rs"]
mod latm;
#[path = "conformance/pipeline.rs"]
#[expect(dead_code, reason = "the conformance tests use more of it")]
mod pipeline;
#[path = "interop/reference.rs"]
#[expect(dead_code, reason = "the interoperability tests use more of it")]
mod reference;
#[path = "conformance/tap.rs"]
mod tap;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use clips::{clip, run};
use headworks::base::Instant;
use headworks::codec::nal_syntax::write_with_lengths;
use headworks::container::mpegts::{
    AccessUnit, Demux, DiscontinuityCause, Event, Limits, Mux, MuxConfiguration, MuxTrack, crc32,
};
use headworks::media::{Codec, TrackConfiguration};
use headworks::pipeline::frame::{Frame, FrameSink, FrameTooLarge, SinkIndex, StreamSink, TrackDescription};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::{FrameDescriptor, PictureStructure, RandomAccess};
use headworks_frame_ring::layout::{State, TrackKind};
use headworks_frame_ring::writer::Writer;
use reference::{Reference, hashed};
use tempfile::TempDir;

const VIDEO: &str = "testsrc2=size=320x180:rate=25:duration=2";
const TONE: &str = "sine=sample_rate=48000:duration=2";

/// A frame that went into a ring.
struct Written {
    pts: Option<i64>,
    dts: Option<i64>,
    key: bool,
    damaged: bool,
    payload: Vec<u8>,
}

/// The rings of stream `clip`, and what was written into them.
struct Rings {
    root: TempDir,
    directory: PathBuf,
    bell: BellWriter,
    tracks: Vec<Ring>,
    /// How long the writer sleeps after each frame.
    pace: Duration,
}

struct Ring {
    name: String,
    codec: [u8; 4],
    writer: Writer,
    open: Vec<u8>,
    written: Vec<Written>,
}

struct RingSink<'a> {
    ring: &'a mut Ring,
    bell: &'a mut BellWriter,
    pace: Duration,
}

impl Rings {
    /// A transport stream's frames.
    fn of(bytes: &[u8]) -> Self {
        let mut rings = Self::new();
        rings.write(bytes);
        rings
    }

    fn new() -> Self {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let directory = root.path().join("clip");
        std::fs::create_dir(&directory).unwrap();
        let bell = BellWriter::create(&directory).unwrap();
        Self { root, directory, bell, tracks: Vec::new(), pace: Duration::ZERO }
    }

    /// Writes all frames, and ends the stream.
    fn write(&mut self, bytes: &[u8]) {
        pipeline::write_to(self, bytes, 7 * 188);
        for ring in &mut self.tracks {
            ring.writer.set_state(State::Ended);
        }
        self.bell.set_state(State::Ended);
    }

    fn tap(&self, format: &str, out: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headworks"));
        command.args(["tap", "clip", "--from", "oldest", "--format", format, "--out"]).arg(out);
        command.arg("--root").arg(self.root.path());
        command
    }

    /// What tap writes; its remarks are no matter here.
    fn container(&self, format: &str) -> PathBuf {
        let path = self.root.path().join(format!("clip.{format}"));
        let output = self.tap(format, &path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        path
    }

    /// What ffmpeg makes of the pipe.
    fn piped(&self, format: &str, arguments: &[&str]) -> Output {
        let mut tap = self.tap(format, Path::new("-")).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error"]).args(arguments).stdin(tap.stdout.take().unwrap());
        let output = ffmpeg.output().unwrap();
        assert!(tap.wait().unwrap().success());
        output
    }
}

impl StreamSink for Rings {
    type Track<'a> = RingSink<'a>;

    fn open(&mut self, track: &TrackDescription) -> SinkIndex {
        let kind = track.codec.kind();
        let number = self.tracks.iter().filter(|ring| ring.name.starts_with(kind.name())).count();
        let name = format!("{}{number}", kind.name());
        let spec = RingSpec {
            kind: match kind {
                headworks::media::TrackKind::Video => TrackKind::Video,
                headworks::media::TrackKind::Audio => TrackKind::Audio,
                _ => TrackKind::Data,
            },
            codec: track.codec.fourcc(),
            clock_rate: track.clock_rate,
            data_capacity: 4 << 20,
            slot_count: 512,
            frame_size_max: 256 << 10,
            numa_node: None,
            crc: true,
        };
        let temporary = self.directory.join(format!(".tmp-{name}"));
        let writer = builder::create(&temporary, &spec).unwrap();
        builder::publish(&temporary, &self.directory.join(&name)).unwrap();
        self.bell.tracks_changed();
        self.tracks.push(Ring { name, codec: spec.codec, writer, open: Vec::new(), written: Vec::new() });
        SinkIndex(self.tracks.len() - 1)
    }

    fn is_opening(&self) -> bool {
        false
    }

    fn track(&mut self, index: SinkIndex) -> RingSink<'_> {
        RingSink { ring: &mut self.tracks[index.0], bell: &mut self.bell, pace: self.pace }
    }

    fn end(&mut self, _: SinkIndex) {}
}

impl FrameSink for RingSink<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        self.ring.open.extend_from_slice(bytes);
        self.ring.writer.append(bytes).map_err(|_| FrameTooLarge)
    }

    fn commit(&mut self, now: Instant, frame: &Frame) {
        use headworks::media::PictureStructure::{BottomField, SecondBottomField, SecondTopField, TopField};
        let key = frame.info.is_key();
        let descriptor = FrameDescriptor {
            pts: frame.pts,
            dts: frame.dts,
            duration: frame.duration,
            timeline_ns: frame.timeline_ns,
            segment: frame.segment,
            commit_ns: now.as_nanos(),
            damaged: frame.damage.any(),
            key,
            random_access: if key { RandomAccess::Idr } else { RandomAccess::None },
            picture_structure: match frame.info.picture_structure {
                TopField => PictureStructure::TopFirst,
                BottomField => PictureStructure::BottomFirst,
                SecondTopField => PictureStructure::TopSecond,
                SecondBottomField => PictureStructure::BottomSecond,
                _ => PictureStructure::Frame,
            },
            ..FrameDescriptor::default()
        };
        self.ring.writer.commit(&descriptor, self.bell);
        let (damaged, payload) = (frame.damage.any(), std::mem::take(&mut self.ring.open));
        self.ring.written.push(Written { pts: frame.pts, dts: frame.dts, key, damaged, payload });
        self.bell.heartbeat(now.as_nanos());
        self.bell.wake_target().wake();
        std::thread::sleep(self.pace);
    }

    fn abandon(&mut self) {
        self.ring.open.clear();
        self.ring.writer.abandon();
    }

    fn configure(&mut self, configuration: &TrackConfiguration) {
        self.ring.writer.set_configuration(&configuration.bytes).unwrap();
    }
}

/// The frames of a ring that a container must hold: sound from before the first picture is left out.
fn expected(ring: &Ring, found: usize) -> &[Written] {
    let left_out = ring.written.len().checked_sub(found).expect("no frame comes twice");
    assert!(left_out == 0 || ring.name.starts_with("audio") && left_out < 30, "{}: {left_out} are missing", ring.name);
    &ring.written[left_out..]
}

/// Runs the frames of a clip through both containers.
fn check(name: &str, inputs: &[&str], encoder: &str) {
    let clip = clip(name, inputs, encoder);
    let rings = Rings::of(&clip.bytes);
    assert_eq!(rings.tracks.len(), clip.reference.tracks.len());

    let path = rings.container("mpegts");
    let bytes = std::fs::read(&path).unwrap();
    let written = Reference::of(&path, &bytes);
    let random_access = random_access(&bytes);
    for (ring, track) in rings.tracks.iter().zip(&written.tracks) {
        assert_eq!(ring.name, track.name);
        let frames = expected(ring, track.packets.len());
        // Of sound everything is a key, which nobody says.
        let keys: Vec<bool> = frames.iter().map(|frame| frame.key && ring.name.starts_with("video")).collect();
        assert_eq!(random_access[&track.pid], keys, "{name}, {}", ring.name);
        for (frame, packet) in frames.iter().zip(&track.packets) {
            let at = format!("{name}, {} at {:?}", ring.name, frame.pts);
            assert_eq!((packet.len, packet.sha256.clone()), hashed(&frame.payload), "{at}");
            let wrapped = |ticks: Option<i64>| ticks.expect("a time").rem_euclid(1 << 33);
            assert_eq!(wrapped(packet.pts), wrapped(frame.pts), "{at}");
            // Where a PES packet has a PTS alone, ffprobe guesses (rule T4).
            if frame.dts != frame.pts {
                assert_eq!(wrapped(packet.dts), wrapped(frame.dts), "{at}");
            }
        }
    }

    let path = rings.container("matroska");
    let packets = packets_of(&path);
    let key_flags = key_flags(&std::fs::read(&path).unwrap());
    let mut origins = Vec::new();
    for (index, ring) in rings.tracks.iter().enumerate() {
        let packets = &packets[&index];
        let keys: Vec<bool> = expected(ring, packets.len()).iter().map(|frame| frame.key).collect();
        assert_eq!(key_flags[&index], keys, "{name}, {} in Matroska", ring.name);
        for (frame, packet) in expected(ring, packets.len()).iter().zip(packets) {
            let at = format!("{name}, {} at {:?} in Matroska", ring.name, frame.pts);
            let mut payload = Vec::new();
            match &ring.codec {
                b"h264" | b"hevc" => write_with_lengths(&frame.payload, &mut payload),
                _ => payload.extend_from_slice(&frame.payload),
            }
            assert_eq!(packet.hash, hashed(&payload).1, "{at}");
            // Of 10 µs, from which the tick of 90 kHz can be told.
            origins.push(frame.pts.expect("a time") - (packet.pts * 9 + 5).div_euclid(10));
        }
    }
    assert!(origins.windows(2).all(|pair| pair[0] == pair[1]), "{name}: {origins:?}");

    let decode = ["-xerror", "-i", "-", "-map", "0:v", "-map", "0:a?", "-f", "framehash", "-"];
    let own = pictures(&decoded(&clips::directory().join(format!("{name}.ts"))));
    assert!(own.len() >= 49, "{}", own.len());
    for format in ["mpegts", "matroska"] {
        assert_eq!(pictures(&rings.piped(format, &decode)), own, "{name} in {format}");
    }
}

/// What ffmpeg makes of the pictures in a file.
fn decoded(path: &Path) -> Output {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(path).args(["-map", "0:v", "-f", "framehash", "-"]).output().unwrap()
}

/// The hashes of the pictures, all of which must have been decoded without a word.
fn pictures(output: &Output) -> Vec<String> {
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let hashes = text.lines().filter(|line| line.starts_with("0,")).filter_map(|line| line.rsplit(',').next());
    hashes.map(|hash| hash.trim().to_owned()).collect()
}

/// Of each PES packet on each PID: `random_access_indicator` (H.222.0 §2.4.3.5) in the packet it begins in, from the bytes.
fn random_access(bytes: &[u8]) -> BTreeMap<u16, Vec<bool>> {
    let mut indicators: BTreeMap<u16, Vec<bool>> = BTreeMap::new();
    for packet in bytes.chunks(188) {
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let indicator = packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x40 != 0;
        if packet[1] & 0x40 != 0 {
            indicators.entry(pid).or_default().push(indicator);
        } else {
            assert!(!indicator, "in a packet that begins nothing");
        }
    }
    indicators
}

/// Of each SimpleBlock of each track, from 0: its keyframe flag (RFC 9559 §10.2), from the bytes: ffprobe looks into pictures instead.
fn key_flags(bytes: &[u8]) -> BTreeMap<usize, Vec<bool>> {
    const CLUSTER: [u8; 4] = [0x1f, 0x43, 0xb6, 0x75];
    let mut flags: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    let mut at = bytes.windows(4).position(|id| id == CLUSTER).expect("a cluster");
    while at < bytes.len() {
        let is_cluster = bytes[at..].starts_with(&CLUSTER);
        at += if is_cluster { 4 } else { 1 };
        let length_len = bytes[at].leading_zeros() as usize + 1;
        let length = bytes[at + 1..at + length_len]
            .iter()
            .fold(u64::from(bytes[at]), |value, byte| value << 8 | u64::from(*byte));
        let length = (length & ((1 << (7 * length_len)) - 1)) as usize;
        let id = bytes[at - 1];
        at += length_len;
        if is_cluster {
            // Of unknown length: its elements follow.
            continue;
        }
        match id {
            0xa3 => flags.entry(usize::from(bytes[at] & 0x7f) - 1).or_default().push(bytes[at + 3] & 0x80 != 0),
            0xe7 => {}
            other => panic!("element {other:#04x} in a cluster"),
        }
        at += length;
    }
    flags
}

struct Packet {
    pts: i64,
    hash: String,
}

fn packets_of(path: &Path) -> BTreeMap<usize, Vec<Packet>> {
    let text = run(Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "packet=stream_index,pts,data_hash", "-show_data_hash", "sha256"])
        .args(["-of", "compact=p=0:nk=0"])
        .arg(path));
    let mut packets: BTreeMap<usize, Vec<Packet>> = BTreeMap::new();
    for line in text.lines() {
        let fields: BTreeMap<&str, &str> = line.split('|').filter_map(|field| field.split_once('=')).collect();
        packets.entry(fields["stream_index"].parse().unwrap()).or_default().push(Packet {
            pts: fields["pts"].parse().unwrap(),
            hash: fields["data_hash"].trim_start_matches("SHA256:").to_owned(),
        });
    }
    packets
}

#[test]
fn h264_with_b_frames_aac_and_mp2() {
    check(
        "remux-h264",
        &[VIDEO, TONE, TONE],
        "-c:v libx264 -preset veryfast -bf 3 -g 20 -c:a:0 aac -c:a:1 mp2 -metadata:s:a:0 language=deu",
    );
}

#[test]
fn hevc_ac3_and_opus() {
    check(
        "remux-hevc",
        &[VIDEO, TONE, TONE],
        "-c:v libx265 -preset ultrafast -x265-params log-level=error:bframes=3:keyint=20 -c:a:0 ac3 -c:a:1 libopus",
    );
}

#[test]
fn mpeg2_and_eac3_over_the_wrap_of_their_clock() {
    // 2^33 ticks are 95,443.7 s.
    check("remux-mpeg2", &[VIDEO, TONE], "-c:v mpeg2video -bf 2 -g 12 -c:a eac3 -output_ts_offset 95441");
}

#[test]
fn a_live_stream_is_copied_into_a_file_by_the_pipe_of_the_readme() {
    const GOP: usize = 20;
    let video = VIDEO.replace("duration=2", "duration=4");
    let tone = TONE.replace("duration=2", "duration=4");
    let arguments = format!("-c:v libx264 -preset ultrafast -bf 2 -g {GOP} -sc_threshold 0 -c:a aac");
    let clip = clip("remux-live", &[&video, &tone], &arguments);
    let mut rings = Rings::new();
    // About as fast as it is shown: 25 pictures and 47 frames of sound in a second.
    rings.pace = Duration::from_millis(13);
    let (root, file) = (rings.root.path().to_owned(), rings.root.path().join("live.mp4"));
    let readme = std::fs::read_to_string("README.md").unwrap();
    let line = readme.lines().find(|line| line.contains(" --from key --format mpegts --out - | ffmpeg ")).unwrap();
    let line = line.replace("cam1.mp4", file.to_str().unwrap()).replace("tap cam1", "tap clip");
    let pipe = line.replace("target/release/headworks tap", &format!("{} tap", env!("CARGO_BIN_EXE_headworks")));
    assert_ne!(pipe, line);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| rings.write(&clip.bytes));
        // In the third GOP or so.
        std::thread::sleep(Duration::from_millis(2_000));
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", &pipe]).env("HEADWORKS_OUTPUT__ROOT", root).stdin(Stdio::null());
        let piped = shell.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        assert!(!writer.is_finished(), "the stream is live");
        let output = piped.wait_with_output().unwrap();
        assert!(writer.is_finished() && output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    // From a key picture in the middle on, everything there was.
    let own = pictures(&decoded(&clips::directory().join("remux-live.ts")));
    let copied = pictures(&decoded(&file));
    let left_out = own.len() - copied.len();
    assert!(left_out >= GOP && left_out.is_multiple_of(GOP) && copied.len() >= GOP, "{left_out}");
    assert_eq!(copied, own[left_out..]);
    let packets = packets_of(&file);
    let ring = rings.tracks.iter().find(|ring| ring.name == "audio0").unwrap();
    let sound: Vec<String> = ring.written.iter().map(|frame| hashed(&frame.payload).1).collect();
    let copied: Vec<&String> = packets[&1].iter().map(|packet| &packet.hash).collect();
    assert!(copied.len() >= 40, "{}", copied.len());
    assert_eq!(copied, sound[sound.len() - copied.len()..].iter().collect::<Vec<_>>());
}

/// A transport stream of MPEG audio and every kind of data, in units of its own: with a time, without one, and in sections.
fn of_sound_and_data() -> Vec<u8> {
    const FRAME: usize = 384;
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", TONE, "-c:a", "mp2", "-b:a", "128k", "-f", "mp2", "-"]);
    let sound = ffmpeg.output().unwrap().stdout;
    let codecs = [Codec::Mp2, Codec::Klv, Codec::Klv, Codec::Scte35, Codec::Teletext, Codec::DvbSubtitle];
    let mut tracks: Vec<MuxTrack> = (0x100..).zip(codecs).map(|(pid, codec)| MuxTrack::new(pid, codec)).collect();
    // EN 300 468 §6.2: page 150 of teletext, pages 2 and 3 of subtitles.
    tracks[4].descriptors = b"\x56\x05deu\x11\x50".to_vec();
    tracks[5].descriptors = b"\x59\x08nor\x10\0\x02\0\x03".to_vec();
    let mut mux = Mux::new(MuxConfiguration::new(tracks)).unwrap();
    let mut bytes = Vec::new();
    for (number, frame) in (0_u8..).zip(sound.chunks_exact(FRAME)) {
        let time = 900_000 + 2_160 * u64::from(number);
        let unit = |data| AccessUnit { pts: time, dts: time, random_access: false, data };
        mux.write(0, &unit(frame), &mut bytes);
        // SMPTE ST 336: a universal label, a length, a value.
        let klv = [&b"\x06\x0e\x2b\x34\x02\x0b\x01\x01\x0e\x01\x03\x01\x01\0\0\0\x03"[..], &[number; 3]].concat();
        // EN 300 472: a data identifier, and lines of 46 bytes up to a whole number of packets.
        let line = [&[0x03, 0x2c, 0xe4 | number & 3, 0xe4][..], &[number; 42]].concat();
        let teletext = [&[0x10], &line[..], &line, &line].concat();
        match number % 10 {
            1 => mux.write(1, &unit(&klv), &mut bytes),
            2 => mux.write_untimed(2, time, &klv, &mut bytes),
            3 => mux.write_section(3, time, &splice_null(0), &mut bytes),
            4 => mux.write(4, &unit(&teletext), &mut bytes),
            5 => mux.write_untimed(4, time, &teletext, &mut bytes),
            // EN 300 743: an end of display set.
            6 => mux.write(5, &unit(&[0x20, 0, 0x0f, 0x80, 0, 1, 0, 0, 0xff]), &mut bytes),
            _ => {}
        }
    }
    bytes
}

/// SCTE 35 §9.7.1, with this `pts_adjustment`.
fn splice_null(pts_adjustment: u64) -> Vec<u8> {
    let mut section = vec![0xfc, 0x30, 0x11, 0, (pts_adjustment >> 32) as u8];
    section.extend((pts_adjustment as u32).to_be_bytes());
    section.extend([0, 0xff, 0xf0, 0, 0, 0, 0]);
    section.extend(crc32(&section).to_be_bytes());
    section
}

/// What the PMT says of each PID.
fn descriptors(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut demux = Demux::new(Limits::default());
    while demux.push(&mut bytes).is_some() {}
    demux.tracks().map(|(_, track)| (track.key.pid, track.descriptors.clone())).collect()
}

#[test]
fn data_with_and_without_time_comes_through_a_transport_stream() {
    let bytes = of_sound_and_data();
    let rings = Rings::of(&bytes);
    let names: Vec<&str> = rings.tracks.iter().map(|ring| ring.name.as_str()).collect();
    assert_eq!(names, ["audio0", "data0", "data1", "data2", "data3", "data4"]);
    let has_time = |ring: usize| rings.tracks[ring].written.iter().filter(|frame| frame.pts.is_some()).count();
    assert_eq!((has_time(1), has_time(2), has_time(4)), (9, 0, 8));

    // Our own reader finds in it what it found in the source,
    let path = rings.container("mpegts");
    let written = std::fs::read(&path).unwrap();
    assert_eq!(descriptors(&written), descriptors(&bytes));
    assert!(descriptors(&written).contains(&(0x105, b"\x59\x08nor\x10\0\x02\0\x03".to_vec())));
    let again = Rings::of(&written);
    for (source, ring) in rings.tracks.iter().zip(&again.tracks) {
        assert_eq!((&source.name, source.codec), (&ring.name, ring.codec));
        let frames = |ring: &Ring| -> Vec<(Option<i64>, Vec<u8>)> {
            // A section has no time of its own.
            let time = |frame: &Written| frame.pts.filter(|_| ring.codec != *b"sc35");
            ring.written.iter().map(|frame| (time(frame), frame.payload.clone())).collect()
        };
        assert_eq!(frames(ring), frames(source), "{}", ring.name);
        assert!(ring.written.len() >= 8, "{}", ring.name);
    }
    // and so does ffprobe.
    let source = rings.root.path().join("source.ts");
    std::fs::write(&source, &bytes).unwrap();
    let [before, after] = [(source, bytes), (path, written)].map(|(path, bytes)| Reference::of(&path, &bytes));
    for (before, after) in before.tracks.iter().zip(&after.tracks) {
        let packets = |packets: &[reference::Packet]| -> Vec<_> {
            let time = |packet: &reference::Packet| packet.pts.filter(|_| before.name != "data2");
            packets.iter().map(|packet| (time(packet), packet.sha256.clone())).collect()
        };
        assert_eq!((&before.name, before.pid), (&after.name, after.pid));
        assert_eq!(packets(&before.packets), packets(&after.packets), "{}", before.name);
    }
}

#[test]
fn damaged_pictures_are_marked_in_a_transport_stream() {
    let clip = clip("remux-damage", &[VIDEO], "-c:v libx264 -preset ultrafast -g 10 -bf 0");
    // One packet in the middle of a picture is lost.
    let packets: Vec<&[u8]> = clip.bytes.chunks(188).collect();
    let is_middle = |packet: &[u8]| packet[1] & 0x5f == 0x01 && packet[2] == 0x00 && packet[3] & 0x30 == 0x10;
    let lost = (packets.len() / 2..).find(|&at| is_middle(packets[at]) && is_middle(packets[at + 1])).unwrap();
    let rings = Rings::of(&[&packets[..lost], &packets[lost + 1..]].concat().concat());
    let frames = &rings.tracks[0].written;
    let damaged = frames.iter().filter(|frame| frame.damaged).count();
    assert!(damaged >= 1);
    let copied = |arguments: &[&str]| {
        let copy = ["-i", "-", "-map", "0:v", "-c", "copy", "-f", "framecrc", "-"];
        let output = rings.piped("mpegts", &[arguments, &copy].concat());
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.starts_with('#')).count()
    };
    assert_eq!(copied(&[]), frames.len());
    // Receivers can tell which they are. ffmpeg's parser ends a picture with the packet of the next one, and may drop that too.
    let kept = copied(&["-fflags", "+discardcorrupt"]);
    let dropped = frames.len() - kept;
    assert!((damaged..=damaged + 1).contains(&dropped), "{dropped} dropped, {damaged} damaged");
    // Decoders conceal what is missing.
    let output = rings.piped("matroska", &["-i", "-", "-f", "null", "-"]);
    assert!(output.status.success());
}

#[test]
fn frames_that_tap_was_too_slow_for_are_a_discontinuity_in_a_transport_stream() {
    const BYTES: usize = 16 << 10;
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = root.path().join("clip");
    std::fs::create_dir(&directory).unwrap();
    let mut bell = BellWriter::create(&directory).unwrap();
    let spec = RingSpec {
        kind: TrackKind::Video,
        codec: *b"mpg2",
        clock_rate: 90_000,
        data_capacity: 1 << 18,
        slot_count: 64,
        frame_size_max: BYTES as u32,
        numa_node: None,
        crc: true,
    };
    let mut writer = builder::create(&directory.join("video0"), &spec).unwrap();
    let mut write = |bell: &mut BellWriter, n: i64, key: bool| {
        writer.append(&[7; BYTES]).unwrap();
        let time = Some(900_000 + n * 3_600);
        writer.commit(&FrameDescriptor { pts: time, dts: time, key, ..FrameDescriptor::default() }, bell);
    };
    (0..8).for_each(|n| write(&mut bell, n, n == 0));
    let mut command = Command::new(env!("CARGO_BIN_EXE_headworks"));
    command.args(["tap", "clip", "--from", "oldest", "--format", "mpegts", "--out", "-", "--root"]).arg(root.path());
    let mut tap = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // With the first packet here tap is at work, and a pipe holds no more than the next few frames.
    let mut bytes = vec![0; 188];
    let mut stdout = tap.stdout.take().unwrap();
    stdout.read_exact(&mut bytes).unwrap();
    (8..208).for_each(|n| write(&mut bell, n, n % 5 == 0));
    writer.set_state(State::Ended);
    bell.set_state(State::Ended);
    stdout.read_to_end(&mut bytes).unwrap();
    assert!(tap.wait().unwrap().success());

    let mut demux = Demux::new(Limits::default());
    let mut input = &bytes[..];
    let (mut times, mut marked) = (Vec::new(), Vec::new());
    while let Some(event) = demux.push(&mut input) {
        match event {
            Event::PesStart { pts: Some(pts), .. } => times.push((pts - 900_000) / 3_600),
            Event::Discontinuity { cause, .. } => {
                assert_eq!(cause, DiscontinuityCause::Signalled);
                marked.push(times.len());
            }
            _ => {}
        }
    }
    let gaps: Vec<usize> = (1..times.len()).filter(|&at| times[at] != times[at - 1] + 1).collect();
    assert_eq!((times[0], times[times.len() - 1]), (0, 207));
    assert!(!gaps.is_empty());
    assert_eq!(marked, gaps);
}
