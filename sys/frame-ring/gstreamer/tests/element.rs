//! The element in a pipeline, reading rings that the Rust writer writes.
#![allow(missing_docs)]

#[path = "../../tests/common/broker.rs"]
mod broker;
mod common;

use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use broker::serve;
use common::{LONG, Rings, at, element, key, spec};
use gstreamer as gst;
use gstreamer::prelude::*;
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder;
use headworks_frame_ring::descriptor::{Discontinuity, FrameDescriptor, RandomAccess};
use headworks_frame_ring::layout::{HEAD_SEQ, State, TrackKind};
use headworks_frame_ring::stream_descriptor::{StreamDescriptor, Track};

/// A pipeline of `headworkssrc` and a sink for every pad, which keeps what comes.
struct Player {
    pipeline: gst::Pipeline,
    source: gst::Element,
    seen: Arc<Mutex<Vec<String>>>,
    /// Held: nothing gets through.
    hold: Arc<Mutex<()>>,
    /// Buffers that have got through or are held.
    arrived: Arc<AtomicUsize>,
}

impl Player {
    /// Reads the stream `cam1`.
    fn start(rings: &Rings, properties: &[(&str, &str)]) -> Self {
        let root = rings.root.path().to_str().unwrap();
        Self::start_with(&[&[("root", root), ("stream", "cam1")], properties].concat())
    }

    fn start_with(properties: &[(&str, &str)]) -> Self {
        let source = element(properties);
        let pipeline = gst::Pipeline::new();
        pipeline.add(&source).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hold = Arc::new(Mutex::new(()));
        let arrived = Arc::new(AtomicUsize::new(0));
        let (weak, into, held) = (pipeline.downgrade(), Arc::clone(&seen), Arc::clone(&hold));
        let counted = Arc::clone(&arrived);
        source.connect_pad_added(move |_, pad| {
            let pipeline = weak.upgrade().unwrap();
            let name = pad.name().to_string();
            into.lock().unwrap().push(format!("{name} added"));
            let sink = gst::ElementFactory::make("fakesink").property("sync", false).property("async", false);
            let sink = sink.build().unwrap();
            pipeline.add(&sink).unwrap();
            let entry = sink.static_pad("sink").unwrap();
            let (into, held, counted) = (Arc::clone(&into), Arc::clone(&held), Arc::clone(&counted));
            entry.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
                counted.fetch_add(usize::from(info.buffer().is_some()), Relaxed);
                drop(held.lock().unwrap());
                if let Some(text) = told(info) {
                    into.lock().unwrap().push(format!("{name} {text}"));
                }
                gst::PadProbeReturn::Ok
            });
            pad.link(&entry).unwrap();
            sink.sync_state_with_parent().unwrap();
        });
        let into = Arc::clone(&seen);
        source.connect_pad_removed(move |_, pad| into.lock().unwrap().push(format!("{} removed", pad.name())));
        let _ = pipeline.set_state(gst::State::Playing);
        Self { pipeline, source, seen, hold, arrived }
    }

    /// What has been seen on a pad.
    fn on(&self, pad: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter_map(|line| line.strip_prefix(pad)?.strip_prefix(' ')).map(str::to_owned).collect()
    }

    /// The buffers of all pads in their order.
    fn buffers(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().filter(|line| line.contains(" buffer ")).cloned().collect()
    }

    /// What lies in them.
    fn payloads(&self) -> Vec<String> {
        self.buffers().iter().map(|line| line.split('"').nth(1).unwrap().to_owned()).collect()
    }

    fn wait_for(&self, line: &str) {
        let began = Instant::now();
        while !self.seen.lock().unwrap().iter().any(|seen| seen.contains(line)) {
            assert!(began.elapsed() < LONG, "{line:?} never comes: {:#?}", self.seen.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn message(&self, kinds: &[gst::MessageType]) -> gst::Message {
        let limit = gst::ClockTime::from_seconds(LONG.as_secs());
        let message = self.pipeline.bus().unwrap().timed_pop_filtered(limit, kinds);
        message.unwrap_or_else(|| panic!("no message: {:#?}", self.seen.lock().unwrap()))
    }

    fn wait_for_end(&self) {
        let message = self.message(&[gst::MessageType::Eos, gst::MessageType::Error]);
        assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    }

    /// What the next error or warning says.
    fn complaint(&self, kind: gst::MessageType) -> String {
        match self.message(&[kind, gst::MessageType::Eos]).view() {
            gst::MessageView::Error(error) => error.debug().unwrap().to_string(),
            gst::MessageView::Warning(warning) => warning.debug().unwrap().to_string(),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// What passed a pad, in words; times in ms.
fn told(info: &gst::PadProbeInfo) -> Option<String> {
    let ms = |time: Option<gst::ClockTime>| time.map_or("-".to_owned(), |time| time.mseconds().to_string());
    if let Some(buffer) = info.buffer() {
        let map = buffer.map_readable().unwrap();
        let payload = String::from_utf8_lossy(&map).into_owned();
        let flags = buffer.flags() - gst::BufferFlags::TAG_MEMORY;
        let names: Vec<&str> = flags.iter_names().map(|(name, _)| name).collect();
        let times = format!("{} {} {}", ms(buffer.pts()), ms(buffer.dts()), ms(buffer.duration()));
        return Some(format!("buffer {payload:?} {times} {}", names.join("|")).trim_end().to_owned());
    }
    Some(match info.event()?.view() {
        gst::EventView::StreamStart(start) => format!("stream {} {:?}", start.stream_id(), start.stream_flags()),
        gst::EventView::Caps(caps) => format!("caps {}", caps.caps()),
        gst::EventView::Segment(segment) => {
            let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap();
            format!("segment {}", ms(segment.start()))
        }
        gst::EventView::Tag(tag) => {
            format!("language {}", tag.tag().get::<gst::tags::LanguageCode>().unwrap().get())
        }
        gst::EventView::Gap(gap) => format!("gap {} {}", ms(Some(gap.get().0)), ms(gap.get().1)),
        gst::EventView::Eos(_) => "end".to_owned(),
        _ => return None,
    })
}

const H264: &str = "caps video/x-h264, stream-format=(string)byte-stream, alignment=(string)au";

#[test]
fn every_track_has_a_pad_with_its_caps_bytes_times_and_flags_until_the_end() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    let mut first = rings.track("audio0", TrackKind::Audio, b"aac ");
    let mut second = rings.track("audio1", TrackKind::Audio, b"mp2 ");
    let mut data = rings.track("data0", TrackKind::Data, b"klv ");
    let language = |name: &str, language: &str| Track {
        name: name.to_owned(),
        language: language.to_owned(),
        ..Default::default()
    };
    let description = StreamDescriptor {
        name: "cam1".to_owned(),
        tracks: vec![language("audio0", "deu"), language("video0", "")],
        ..Default::default()
    };
    description.write(&rings.root.path().join("cam1")).unwrap();

    first.set_configuration(&[0x11, 0x90]).unwrap();
    rings.write(&mut video, "I", FrameDescriptor { discontinuity: Discontinuity::Start, ..key(1_000) });
    rings.write(&mut first, "sound", FrameDescriptor { dts: None, duration: 1_920, ..key(990) });
    second.append(&[0xff, 0xfd, 0x84, 0x00]).unwrap();
    second.commit(&key(980), &mut rings.bell);
    rings.write(&mut video, "P", FrameDescriptor { damaged: true, ..at(1_120) });
    rings.write(&mut video, "B", FrameDescriptor { discontinuity: Discontinuity::Loss, ..at(1_040) });
    rings.write(&mut data, "metadata", FrameDescriptor { pts: None, dts: None, ..key(0) });
    first.set_configuration(&[0x12, 0x10]).unwrap();
    rings.write(&mut first, "other sound", key(1_010));
    rings.write(&mut video, "P", at(1_600));
    let player = Player::start(&rings, &[("start", "oldest")]);
    player.wait_for("data_0 gap");
    rings.end(&mut [&mut video, &mut first, &mut second, &mut data]);
    player.wait_for_end();
    let expected = [
        "added",
        "stream headworks/cam1/video0 StreamFlags(0x0)",
        H264,
        "segment 960",
        "buffer \"I\" 1000 960 - DISCONT",
        "buffer \"P\" 1120 1080 - CORRUPTED|DELTA_UNIT",
        "buffer \"B\" 1040 1000 - DISCONT|DELTA_UNIT",
        "buffer \"P\" 1600 1560 - DELTA_UNIT",
        "end",
    ];
    assert_eq!(player.on("video_0"), expected);
    let aac = |configuration: &str, rate: u32| {
        format!(
            "caps audio/mpeg, mpegversion=(int)4, stream-format=(string)raw, framed=(boolean)true, \
             codec_data=(buffer){configuration}, level=(string)2, base-profile=(string)lc, profile=(string)lc, \
             rate=(int){rate}, channels=(int)2"
        )
    };
    let expected = [
        "added",
        "stream headworks/cam1/audio0 StreamFlags(0x0)",
        &aac("1190", 48_000),
        "segment 960",
        "language deu",
        "buffer \"sound\" 990 - 21 DISCONT",
        &aac("1210", 44_100),
        "buffer \"other sound\" 1010 970 -",
        "end",
    ];
    assert_eq!(player.on("audio_0"), expected);
    let audio = player.on("audio_1");
    assert_eq!(
        audio[2],
        "caps audio/mpeg, mpegversion=(int)1, mpegaudioversion=(int)1, layer=(int)2, rate=(int)48000, \
         channels=(int)2, parsed=(boolean)true"
    );
    assert!(audio.iter().any(|line| line.ends_with("980 940 - DISCONT")), "{audio:?}");
    let data = player.on("data_0");
    assert_eq!(
        data[1..3],
        ["stream headworks/cam1/data0 StreamFlags(SPARSE)", "caps meta/x-klv, parsed=(boolean)true"]
    );
    assert!(data.contains(&"buffer \"metadata\" - - - DISCONT".to_owned()), "{data:?}");
    assert!(data.contains(&"gap 960 640".to_owned()), "{data:?}");
    let order: Vec<_> = player.buffers().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    let expected = ["video_0", "audio_0", "audio_1", "video_0", "video_0", "data_0", "audio_0", "video_0"];
    assert_eq!(order, expected, "as they were committed");
}

#[test]
fn reading_starts_where_it_is_told_to() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    let mut audio = rings.track("audio0", TrackKind::Audio, b"ac-3");
    for (n, is_key) in [true, false, true, false].into_iter().enumerate() {
        let ms = 1_000 + 40 * n as i64;
        rings.write(&mut video, &format!("v{n}"), FrameDescriptor { key: is_key, ..at(ms) });
        rings.write(&mut audio, &format!("a{n}"), key(ms));
    }
    let players = [("live", ""), ("key", ""), ("oldest", ""), ("oldest", "audio0"), ("live", "audio0")]
        .map(|(start, track)| Player::start(&rings, &[("start", start), ("track", track)]));
    for player in &players {
        player.wait_for("audio_0 added");
    }
    rings.write(&mut audio, "a4", key(1_160));
    rings.write(&mut video, "v4", at(1_160));
    rings.end(&mut [&mut video, &mut audio]);
    let expected: [&[&str]; 5] = [
        &["a4", "v4"],
        &["v2", "a2", "v3", "a3", "a4", "v4"],
        &["v0", "a0", "v1", "a1", "v2", "a2", "v3", "a3", "a4", "v4"],
        &["a0", "a1", "a2", "a3", "a4"],
        &["a4"],
    ];
    for (player, expected) in players.iter().zip(expected) {
        player.wait_for_end();
        assert_eq!(player.payloads(), expected);
    }
}

#[test]
fn a_track_that_ends_ends_its_pad_and_one_that_is_new_gets_a_pad() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    let mut audio = rings.track("audio0", TrackKind::Audio, b"ac-3");
    rings.write(&mut video, "v0", key(1_000));
    rings.write(&mut audio, "a0", key(1_000));
    let player = Player::start(&rings, &[]);
    let only = Player::start(&rings, &[("track", "audio0")]);
    player.wait_for("a0");
    audio.set_state(State::Ended);
    rings.bell.tracks_changed();
    player.wait_for("audio_0 end");
    only.wait_for_end();
    rings.write(&mut video, "v1", at(1_040));
    let mut other = rings.track("audio1", TrackKind::Audio, b"ac-3");
    rings.write(&mut other, "b0", key(1_040));
    player.wait_for("audio_1 buffer \"b0\" 1040 1000 - DISCONT");
    assert_eq!(player.on("video_0").last().unwrap(), "buffer \"v1\" 1040 1000 - DELTA_UNIT");
    rings.end(&mut [&mut video, &mut other]);
    player.wait_for_end();
}

#[test]
fn a_replaced_ring_goes_on_on_its_pad_and_another_codec_gets_another_pad() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    rings.write(&mut video, "old", key(1_000));
    let player = Player::start(&rings, &[]);
    player.wait_for("old");
    drop(video);
    let mut video = rings.video();
    rings.write(&mut video, "new", key(1_040));
    player.wait_for("new");
    drop(video);
    let mut video = rings.track("video0", TrackKind::Video, b"hevc");
    rings.write(&mut video, "newest", key(1_080));
    rings.end(&mut [&mut video]);
    player.wait_for_end();
    let expected = [
        "added",
        "stream headworks/cam1/video0 StreamFlags(0x0)",
        H264,
        "segment 960",
        "buffer \"old\" 1000 960 - DISCONT",
        "buffer \"new\" 1040 1000 - DISCONT",
        "end",
        "removed",
    ];
    assert_eq!(player.on("video_0"), expected);
    let expected = [
        "added",
        "stream headworks/cam1/video0 StreamFlags(0x0)",
        "caps video/x-h265, stream-format=(string)byte-stream, alignment=(string)au",
        "segment 960",
        "buffer \"newest\" 1080 1040 - DISCONT",
        "end",
    ];
    assert_eq!(player.on("video_1"), expected);
}

#[test]
fn a_stream_that_is_replaced_or_taken_up_again_goes_on() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    rings.write(&mut video, "first", key(1_000));
    let player = Player::start(&rings, &[]);
    player.wait_for("first");
    // A writer died and its successor takes everything up.
    drop(video);
    let (stream, temporary) = (rings.root.path().join("cam1"), rings.root.path().join(".tmp-1-1"));
    let mut video = builder::attach(&stream.join("video0"), &spec(TrackKind::Video, b"h264")).unwrap();
    video.set_state(State::Live);
    rings.write(&mut video, "second", FrameDescriptor { discontinuity: Discontinuity::Restart, ..key(1_040) });
    player.wait_for("second");
    // A successor that could not, and made everything anew.
    std::fs::create_dir(&temporary).unwrap();
    rings.bell = BellWriter::create(&temporary).unwrap();
    let mut other = builder::create(&temporary.join("video0"), &spec(TrackKind::Video, b"h264")).unwrap();
    builder::publish(&temporary, &stream).unwrap();
    rings.write(&mut other, "third", key(1_080));
    player.wait_for("third");
    rings.end(&mut [&mut other]);
    player.wait_for_end();
    let expected = [
        "buffer \"first\" 1000 960 - DISCONT",
        "buffer \"second\" 1040 1000 - DISCONT",
        "buffer \"third\" 1080 1040 - DISCONT",
        "end",
    ];
    assert_eq!(player.on("video_0")[4..], expected);
    drop(video);
}

#[test]
fn who_is_overtaken_is_told_how_many_frames_are_lost() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    rings.write(&mut video, "0", key(1_000));
    let player = Player::start(&rings, &[]);
    player.wait_for("\"0\"");
    let held = player.hold.lock().unwrap();
    rings.write(&mut video, "1", at(1_040));
    while player.arrived.load(Relaxed) < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    for n in 2..40 {
        rings.write(&mut video, &n.to_string(), FrameDescriptor { key: n == 36, ..at(1_000 + 40 * n) });
    }
    drop(held);
    rings.end(&mut [&mut video]);
    let message = player.message(&[gst::MessageType::Element]);
    let facts = message.structure().unwrap();
    assert_eq!(facts.name(), "headworks");
    assert_eq!(facts.get::<&str>("event").unwrap(), "lapped");
    assert_eq!(facts.get::<&str>("track").unwrap(), "video0");
    assert_eq!(facts.get::<u64>("frames").unwrap(), 34);
    player.wait_for_end();
    let expected = [
        "video_0 buffer \"0\" 1000 960 - DISCONT",
        "video_0 buffer \"1\" 1040 1000 - DELTA_UNIT",
        "video_0 buffer \"36\" 2440 2400 - DISCONT",
        "video_0 buffer \"37\" 2480 2440 - DELTA_UNIT",
    ];
    assert_eq!(player.buffers()[..4], expected);
}

/// Nobody looked for frames meanwhile.
#[test]
fn a_sink_that_holds_a_frame_for_longer_than_the_time_out_is_no_lack_of_frames() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    rings.write(&mut video, "0", key(1_000));
    let player = Player::start(&rings, &[("timeout", "1000000000")]);
    player.wait_for("\"0\"");
    let held = player.hold.lock().unwrap();
    rings.write(&mut video, "1", at(1_040));
    while player.arrived.load(Relaxed) < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(1_100));
    for n in 2..40 {
        rings.write(&mut video, &n.to_string(), FrameDescriptor { key: n == 36, ..at(1_000 + 40 * n) });
    }
    drop(held);
    player.wait_for("\"39\"");
    rings.end(&mut [&mut video]);
    player.wait_for_end();
}

#[test]
fn a_stream_with_gradual_refresh_is_begun_at_a_recovery_point() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    for n in 0..40 {
        let random_access = if n % 5 == 0 { RandomAccess::RecoveryPoint } else { RandomAccess::None };
        let frame = FrameDescriptor { key: n == 0, random_access, recovery_count: 25, ..at(1_000 + 40 * n) };
        rings.write(&mut video, &n.to_string(), frame);
    }
    let player = Player::start(&rings, &[]);
    player.wait_for("\"39\"");
    assert_eq!(player.buffers()[0], "video_0 buffer \"35\" 2400 2360 - DISCONT|DELTA_UNIT");
    rings.end(&mut [&mut video]);
    player.wait_for_end();
}

/// Who waits for a stream opens it when its bell alone is there.
#[test]
fn pictures_of_a_track_that_comes_after_the_stream_was_opened_begin_at_a_key() {
    let mut rings = Rings::new();
    let player = Player::start(&rings, &[]);
    let text = player.complaint(gst::MessageType::Warning);
    assert!(text.contains("waiting: stream cam1 has no frames"), "{text}");
    let mut video = rings.video();
    for n in 0..6 {
        rings.write(&mut video, &n.to_string(), FrameDescriptor { key: n == 3, ..at(1_000 + 40 * n) });
    }
    let message = player.message(&[gst::MessageType::Element]);
    let facts = message.structure().unwrap();
    assert_eq!(facts.get::<&str>("event").unwrap(), "skipped");
    assert_eq!(facts.get::<&str>("track").unwrap(), "video0");
    assert_eq!(facts.get::<u64>("frames").unwrap(), 3);
    rings.end(&mut [&mut video]);
    player.wait_for_end();
    assert_eq!(player.payloads(), ["3", "4", "5"]);
}

#[test]
fn a_ring_that_contradicts_itself_ends_its_pad_and_is_an_error_where_it_is_all_that_is_read() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    let mut audio = rings.track("audio0", TrackKind::Audio, b"ac-3");
    rings.write(&mut video, "v0", key(1_000));
    rings.write(&mut audio, "a0", key(1_000));
    let player = Player::start(&rings, &[]);
    let only = Player::start(&rings, &[("track", "audio0")]);
    player.wait_for("a0");
    only.wait_for("a0");
    let ctl = std::fs::OpenOptions::new().write(true).open(rings.root.path().join("cam1/audio0/ctl")).unwrap();
    ctl.write_all_at(&0u64.to_le_bytes(), HEAD_SEQ as u64).unwrap();
    let text = only.complaint(gst::MessageType::Error);
    assert!(text.contains("cam1: the head of the ring went back from 1 to 0"), "{text}");
    player.wait_for("audio_0 end");
    rings.write(&mut video, "v1", key(1_040));
    player.wait_for("v1");
    assert!(!player.on("video_0").contains(&"end".to_owned()));
    rings.end(&mut [&mut video]);
    player.wait_for_end();
}

/// Who joins the pads would wait for it for ever.
#[test]
fn the_pad_of_a_track_that_is_gone_after_a_pause_or_in_another_stream_of_the_name_ends() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    let mut first = rings.track("audio0", TrackKind::Audio, b"ac-3");
    let mut second = rings.track("audio1", TrackKind::Audio, b"ac-3");
    rings.write(&mut video, "v0", key(1_000));
    rings.write(&mut first, "a0", key(1_000));
    rings.write(&mut second, "b0", key(1_000));
    let player = Player::start(&rings, &[]);
    let only = Player::start(&rings, &[("track", "audio0")]);
    player.wait_for("b0");
    only.wait_for("a0");
    for player in [&player, &only] {
        player.pipeline.set_state(gst::State::Paused).unwrap();
    }
    let stream = rings.root.path().join("cam1");
    drop(first);
    std::fs::remove_dir_all(stream.join("audio0")).unwrap();
    rings.bell.tracks_changed();
    for player in [&player, &only] {
        player.pipeline.set_state(gst::State::Playing).unwrap();
    }
    player.wait_for("audio_0 end");
    only.wait_for_end();
    rings.write(&mut video, "v1", key(1_040));
    player.wait_for("v1");

    let temporary = rings.root.path().join(".tmp-1-1");
    std::fs::create_dir(&temporary).unwrap();
    rings.bell = BellWriter::create(&temporary).unwrap();
    let mut video = builder::create(&temporary.join("video0"), &spec(TrackKind::Video, b"h264")).unwrap();
    builder::publish(&temporary, &stream).unwrap();
    player.wait_for("audio_1 end");
    rings.write(&mut video, "v2", key(1_080));
    player.wait_for("v2");
    assert!(!player.on("video_0").contains(&"end".to_owned()));
    rings.end(&mut [&mut video]);
    player.wait_for_end();
}

#[test]
fn after_a_pause_it_goes_on_at_a_key_in_a_new_segment() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    rings.write(&mut video, "0", key(1_000));
    let player = Player::start(&rings, &[]);
    player.wait_for("\"0\"");
    player.pipeline.set_state(gst::State::Paused).unwrap();
    rings.write(&mut video, "1", at(1_040));
    rings.write(&mut video, "2", key(1_080));
    rings.write(&mut video, "3", at(1_120));
    player.pipeline.set_state(gst::State::Playing).unwrap();
    rings.end(&mut [&mut video]);
    player.wait_for_end();
    let expected = ["segment 1040", "buffer \"2\" 1080 1040 - DISCONT", "buffer \"3\" 1120 1080 - DELTA_UNIT", "end"];
    assert_eq!(player.on("video_0")[5..], expected);
}

#[test]
fn it_is_live_and_says_how_late_a_frame_may_come() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    rings.write(&mut video, "0", key(1_000));
    let player = Player::start(&rings, &[("latency", "70000000")]);
    player.wait_for("\"0\"");
    let mut query = gst::query::Latency::new();
    assert!(player.source.static_pad("video_0").unwrap().query(&mut query));
    let (is_live, least, most) = query.result();
    assert_eq!((is_live, least, most), (true, gst::ClockTime::from_mseconds(70), gst::ClockTime::NONE));
    player.message(&[gst::MessageType::Latency]);
}

#[test]
fn an_end_that_is_asked_for_comes() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    rings.write(&mut video, "0", key(1_000));
    let player = Player::start(&rings, &[]);
    player.wait_for("\"0\"");
    player.pipeline.send_event(gst::event::Eos::new());
    player.wait_for_end();
}

#[test]
fn a_stream_is_read_through_a_broker_which_may_refuse_it() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    rings.write(&mut video, "first", key(1_000));
    let socket = serve(rings.root.path());
    let broker = ("broker", socket.to_str().unwrap());
    let player = Player::start(&rings, &[("root", "/nowhere"), broker]);
    player.wait_for("first");
    rings.end(&mut [&mut video]);
    player.wait_for_end();

    let player = Player::start_with(&[("stream", "cam2"), broker]);
    let text = player.complaint(gst::MessageType::Error);
    assert!(text.contains(socket.to_str().unwrap()) && text.contains("must name this user"), "{text}");
    let wait = ("timeout", "200000000");
    let player = Player::start_with(&[("stream", "cam1"), ("broker", "/nowhere/broker"), wait]);
    let text = player.complaint(gst::MessageType::Error);
    assert!(text.contains("no frames of stream cam1 by /nowhere/broker, for 200ms"), "{text}");
}

/// Nobody is left at the old bell to say that there is another.
#[test]
fn under_a_new_bell_over_the_same_rings_no_frame_is_repeated() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    rings.write(&mut video, "first", key(1_000));
    let player = Player::start(&rings, &[]);
    player.wait_for("first");
    let (stream, elsewhere) = (rings.root.path().join("cam1"), tempfile::tempdir_in("/dev/shm").unwrap());
    // The old one's lock is let go first.
    rings.bell = BellWriter::create(elsewhere.path()).unwrap();
    for file in ["bell", "writer.lock"] {
        std::fs::remove_file(stream.join(file)).unwrap();
    }
    rings.bell = BellWriter::create(&stream).unwrap();
    rings.bell.advance_to(video.stream_seq_after());
    rings.write(&mut video, "second", key(1_040));
    player.wait_for("second");
    rings.end(&mut [&mut video]);
    player.wait_for_end();
    assert_eq!(player.on("video_0").iter().filter(|line| line.contains("first")).count(), 1);
}

#[test]
fn what_is_not_there_is_named_beside_what_is() {
    let mut rings = Rings::new();
    let video = rings.video();
    let root = rings.root.path().to_str().unwrap().to_owned();
    let wait = ("timeout", "200000000");

    let player = Player::start_with(&[("root", &root), ("stream", "cam9"), wait]);
    let text = player.complaint(gst::MessageType::Error);
    assert!(text.contains(&format!("no stream cam9 in {root}; there are: cam1, for 200ms")), "{text}");

    let player = Player::start(&rings, &[("track", "audio7"), wait]);
    let text = player.complaint(gst::MessageType::Error);
    assert!(text.contains("stream cam1 has no track audio7; there are: video0, for 200ms"), "{text}");

    let player = Player::start(&rings, &[("root", "/nowhere"), wait]);
    let text = player.complaint(gst::MessageType::Error);
    assert!(text.contains("no stream cam1; /nowhere: "), "{text}");

    let player = Player::start_with(&[("root", &root), ("stream", "../cam1")]);
    let text = player.complaint(gst::MessageType::Warning);
    assert!(text.contains("waiting: no stream ../cam1 in"), "{text}");

    let player = Player::start_with(&[("root", &root)]);
    let text = player.complaint(gst::MessageType::Error);
    assert!(text.contains("no stream is named (property stream)"), "{text}");
    assert!(
        player.pipeline.state(gst::ClockTime::ZERO).0.is_err() || player.source.current_state() < gst::State::Paused
    );
    drop(video);
}

#[test]
fn a_stream_that_comes_later_is_read_and_a_wait_is_left_at_once() {
    let mut rings = Rings::new();
    let mut video = rings.video();
    let root = rings.root.path().to_owned();
    std::fs::rename(root.join("cam1"), root.join("cam2")).unwrap();
    let player = Player::start(&rings, &[]);
    std::thread::sleep(Duration::from_millis(100));
    std::fs::rename(root.join("cam2"), root.join("cam1")).unwrap();
    rings.write(&mut video, "0", key(1_000));
    player.wait_for("\"0\"");
    // Without a frame, and without a stream.
    let other = Player::start_with(&[("root", root.to_str().unwrap()), ("stream", "cam9")]);
    for player in [player, other] {
        let began = Instant::now();
        player.pipeline.set_state(gst::State::Null).unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        // And once more from the beginning.
        player.pipeline.set_state(gst::State::Playing).unwrap();
        player.pipeline.set_state(gst::State::Null).unwrap();
    }
}
