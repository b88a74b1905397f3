//! What an operator does and meets: passwords, encoders that come back, restarts, a second shard.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::appliance::{Appliance, Ports, Root, signal};
use crate::clips::{self, usual_clip};
use crate::relay::Relay;
use crate::senders::{self, SrtSender};
use crate::tap::Frame;

const PATIENCE: Duration = Duration::from_secs(10);

/// The frames without what a caller that closes too early may have cut: damaged ones at the end, and the last of each track,
/// which was open when the session ended and whose end nothing proves.
pub fn without_the_end(mut frames: Vec<Frame>) -> Vec<Frame> {
    while frames.last().is_some_and(|frame| frame.damaged) {
        frames.pop();
    }
    let mut ended: Vec<String> = Vec::new();
    for index in (0..frames.len()).rev() {
        if !ended.contains(&frames[index].track) {
            ended.push(frames.remove(index).track);
        }
    }
    frames
}

/// A process of this test that does not outlive it.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "it goes on for ever");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn an_appliance_without_privileges_takes_streams_in_all_the_same() {
    let clip = usual_clip();
    let appliance = Appliance::start_as_ordinary_user(&[]);
    let tap = appliance.tap("cam1");
    senders::send_srt(appliance.ports.srt, "streamid=cam1", &clip.bytes);
    clip.reference.compare("without privileges", &tap.wait_for(clip.reference.packet_count()));
}

#[test]
fn the_wrong_passphrase_and_none_are_refused_with_a_line_in_the_log() {
    let appliance = Appliance::start(&["streams.cam1.passphrase=the right one"]);
    let port = appliance.ports.srt;
    let said = SrtSender::start(port, "streamid=cam1&passphrase=the wrong one&pbkeylen=16").refused();
    assert!(!said.contains("SRT target connected"), "{said}");
    appliance.wait_for_log("refused: ", PATIENCE);
    let wrong = appliance.log();
    assert!(wrong.contains("cam1"), "{wrong}");
    let said = SrtSender::start(port, "streamid=cam1").refused();
    assert!(!said.contains("SRT target connected"), "{said}");
    let said = SrtSender::start(port, "streamid=open&passphrase=nobody asked for it").refused();
    assert!(!said.contains("SRT target connected"), "{said}");
    let log = appliance.log();
    assert!(log.lines().filter(|line| line.contains("refused: ")).count() >= 3, "{log}");
}

#[test]
fn a_stream_that_insists_on_aes_gcm_takes_nothing_else_and_every_frame_of_it() {
    let clip = usual_clip();
    let appliance = Appliance::start(&[
        "ingestion.srt.passphrase=known to everybody",
        "ingestion.srt.crypto_mode=ctr",
        "streams.gate128.crypto_mode=gcm",
        "streams.gate192.crypto_mode=gcm",
        "streams.gate256.crypto_mode=gcm",
    ]);
    let port = appliance.ports.srt;
    let said = SrtSender::start(port, "streamid=gate128&passphrase=known to everybody&pbkeylen=16").refused();
    assert!(!said.contains("SRT target connected"), "{said}");
    appliance.wait_for_log("refused: CRYPTO (17)", PATIENCE);
    let send = |stream: &str, bits: &str| {
        Command::new(env!("CARGO_BIN_EXE_headworks"))
            .args(["send", "--max-lateness", "10s", "--latency", "600ms", "--passphrase", "known to everybody"])
            .args(["--crypto-mode", "gcm", "--key-length", bits, "--file"])
            .arg(clips::directory().join("usual.ts"))
            .args(["--to", &format!("srt://127.0.0.1:{port}?streamid={stream}")])
            .output()
            .expect("it runs")
    };
    let refused = send("other", "128");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("CRYPTO (17)"), "{refused:?}");
    for bits in ["128", "192", "256"] {
        let stream = format!("gate{bits}");
        let tap = appliance.tap(&stream);
        let output = send(&stream, bits);
        assert!(output.status.success(), "{output:?}");
        let frames = tap.wait_for(clip.reference.packet_count());
        clip.reference.compare(&format!("AES-{bits}-GCM"), &frames);
        appliance.wait_for_log(&format!("AES-{bits}-GCM, "), PATIENCE);
    }
}

#[test]
fn a_latency_below_three_round_trips_is_warned_of() {
    let clip = usual_clip();
    let appliance = Appliance::start(&[]);
    // 240 ms of round trip are too long for 600 ms of latency; those of this host alone are not.
    let relay = Relay::start(appliance.ports.srt, "--delay 120ms");
    for (port, stream) in [(appliance.ports.srt, "near"), (relay.port, "far")] {
        let mut sender = SrtSender::start(port, &format!("streamid={stream}"));
        sender.wait_for_connection();
        sender.send(&clip.bytes[..senders::DATAGRAM * 600]);
    }
    appliance.wait_for_log("latency 600 ms is below three round trips of", PATIENCE);
    let log = appliance.log();
    let of = |stream: &str, text: &str| {
        log.lines().filter(|line| line.contains(&format!("{stream:?}")) && line.contains(text)).count()
    };
    let told = ["near", "far"].map(|stream| (of(stream, "round trip "), of(stream, "below three round trips")));
    assert_eq!(told, [(1, 0), (1, 1)], "{log}");
}

#[test]
fn a_stream_id_may_be_a_plain_name_or_follow_the_access_control_syntax_or_be_missing() {
    let clip = usual_clip();
    let appliance = Appliance::start(&[]);
    for (query, name) in [("streamid=studio/cam 1", "studio/cam 1"), ("streamid=#!::u=alice,r=gate,m=publish", "gate")]
    {
        let tap = appliance.tap(name);
        senders::send_srt(appliance.ports.srt, query, &clip.bytes);
        clip.reference.compare(name, &tap.wait_for(clip.reference.packet_count()));
    }
    let mut nameless = SrtSender::start(appliance.ports.srt, "mode=caller");
    nameless.wait_for_connection();
    nameless.send(&clip.bytes[..senders::DATAGRAM * 200]);
    appliance.wait_for_log("stream=\"srt-127.0.0.1-", PATIENCE);
    let said = SrtSender::start(appliance.ports.srt, "streamid=#!::r=gate,m=request").refused();
    assert!(!said.contains("SRT target connected"), "nothing is served here: {said}");
}

#[test]
fn an_encoder_that_was_killed_comes_back_to_the_same_tracks_in_a_new_segment() {
    let clip = usual_clip();
    let appliance = Appliance::start(&[]);
    let tap = appliance.tap("cam1");
    let mut first = SrtSender::start(appliance.ports.srt, "streamid=cam1");
    first.wait_for_connection();
    let half = clip.bytes.len() / 2 / senders::DATAGRAM * senders::DATAGRAM;
    first.send(&clip.bytes[..half]);
    tap.wait_until("some frames", |frames| frames.len() > 20);
    first.kill();
    senders::send_srt(appliance.ports.srt, "streamid=cam1", &clip.bytes);
    let frames = tap.wait_until("the second segment is whole", |frames| {
        frames.iter().filter(|frame| frame.segment == 1).count() >= clip.reference.packet_count()
    });
    assert!(frames.iter().any(|frame| frame.segment == 0), "the first half is there");
    for track in ["video0", "audio0"] {
        let mine: Vec<&Frame> = frames.iter().filter(|frame| frame.track == track).collect();
        let breaks: Vec<usize> = (0..mine.len()).filter(|&at| mine[at].discontinuity.is_some()).collect();
        let restart = mine.iter().position(|frame| frame.segment == 1).expect("a second segment");
        assert_eq!(breaks, [0, restart], "{track}: breaks where the source starts and starts again");
        assert_eq!(mine[restart].discontinuity.as_deref(), Some("source_change"));
        assert!(mine.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "{track}: no number is left out");
        let timeline: Vec<i64> = mine.iter().map(|frame| frame.timeline_ns).collect();
        assert!(timeline[restart] > timeline[0], "{track}: the timeline goes on");
    }
    let second: Vec<Frame> = frames
        .iter()
        .filter(|frame| frame.segment == 1)
        .cloned()
        .map(|frame| Frame { segment: 0, discontinuity: None, ..frame })
        .collect();
    clip.reference.compare_content("the second life", &second);
}

#[test]
fn two_shards_take_in_streams_of_every_kind_at_once() {
    let clip = usual_clip();
    let appliance = Appliance::start(&["shards.cores=[0,1]"]);
    let count = clip.reference.packet_count();
    let rtp = SocketAddr::from(([127, 0, 0, 1], appliance.ports.rtp));
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (clip, appliance) = (&clip, &appliance);
            scope.spawn(move || {
                let name = format!("srt{number}");
                let tap = appliance.tap(&name);
                senders::send_srt(appliance.ports.srt, &format!("streamid={name}"), &clip.bytes);
                clip.reference.compare(&name, &tap.wait_for(count));
            });
            scope.spawn(move || {
                let name = format!("rtp-0000000{number}");
                let tap = appliance.tap(&name);
                senders::send_rtp(&senders::socket(), &clip.bytes, rtp, number);
                clip.reference.compare(&name, &tap.wait_for(count));
            });
        }
    });
}

#[test]
fn sigterm_publishes_the_open_frames_and_ends_within_five_seconds() {
    let clip = usual_clip();
    let mut appliance = Appliance::start(&["ingestion.frame.assembly_timeout=60s"]);
    let socket = senders::socket();
    let name = format!("ts-127.0.0.1-{}", socket.local_addr().unwrap().port());
    let tap = appliance.tap(&name);
    senders::send_udp(&socket, &clip.bytes, SocketAddr::from(([127, 0, 0, 1], appliance.ports.rtp)));
    let before = tap.wait_until("nearly all frames", |frames| frames.len() + 4 >= clip.reference.packet_count());
    assert!(before.len() < clip.reference.packet_count(), "the last frame of the video is still open");
    let (status, took) = appliance.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    clip.reference.compare("after SIGTERM", &tap.wait_for(clip.reference.packet_count()));
}

/// Both still send when the appliance ends, and what they have sent lies in its receive buffers.
#[test]
fn sigterm_delivers_what_live_srt_senders_have_sent_and_tells_them() {
    let clip = usual_clip();
    let mut appliance = Appliance::start(&["ingestion.frame.assembly_timeout=60s"]);
    let taps = ["cam1", "cam2"].map(|stream| appliance.tap(stream));
    let url = format!("srt://127.0.0.1:{}?pkt_size=1316&latency=600000&streamid=cam2", appliance.ports.srt);
    let mut ffmpeg = Process::start(
        Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-re", "-stream_loop", "-1", "-i"])
            .arg(clips::directory().join("usual.ts"))
            .args(["-map", "0", "-c", "copy", "-f", "mpegts", &url]),
    );
    taps[1].wait_until("ffmpeg's stream", |frames| frames.len() > 20);
    let mut sender = SrtSender::start(appliance.ports.srt, "streamid=cam1");
    sender.wait_for_connection();
    // The tool keeps the last pieces of its input back: null packets push them out, and keep it busy.
    let half = clip.bytes.len() / 2 / senders::DATAGRAM * senders::DATAGRAM;
    sender.send(&clip.bytes[..half]);
    sender.send(&senders::null_packets(40));
    let before = taps.each_ref().map(|tap| tap.frames().len());
    let (status, took) = std::thread::scope(|scope| {
        scope.spawn(|| sender.send_nothing_until("SRT target disconnected"));
        appliance.terminate()
    });
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!ffmpeg.wait().success(), "ffmpeg says that its output is gone");

    // Everything of the first half, down to the frames that are open at its end, whose bytes are cut.
    let sent = clips::from_bytes("half", &clip.bytes[..half]);
    let frames = taps[0].wait_for(sent.reference.packet_count());
    let whole = without_the_end(frames.clone());
    clip.reference.first(&whole).compare("srt-live-transmit's at SIGTERM", &whole);
    assert_eq!(frames.len(), sent.reference.packet_count(), "open frames are published too");
    for (tap, before) in taps.iter().zip(before) {
        let frames = tap.frames();
        assert!(frames.len() > before + 10, "{before} frames before, {} after", frames.len());
        let damaged: Vec<&Frame> = frames.iter().filter(|frame| frame.damaged).collect();
        let is_last = |frame: &&Frame| frames.iter().rfind(|other| other.track == frame.track) == Some(*frame);
        assert!(damaged.iter().all(is_last), "only what was open at the end is marked: {damaged:?}");
    }
}

#[test]
fn a_restarted_appliance_takes_up_its_rings_and_the_reader_goes_on() {
    let clip = usual_clip();
    let (root, ports) = (Arc::new(Root::new()), Ports::free());
    let mut first = Appliance::start_in(Arc::clone(&root), ports, &[]);
    let tap = first.tap("cam1");
    senders::send_srt(ports.srt, "streamid=cam1", &clip.bytes);
    let count = clip.reference.packet_count();
    clip.reference.compare("before", &tap.wait_for(count));
    first.terminate();
    let second = Appliance::start_in(root, ports, &[]);
    senders::send_srt(ports.srt, "streamid=cam1", &clip.bytes);
    let frames = tap.wait_for(2 * count);
    drop(second);
    let after: Vec<Frame> = frames[count..].to_vec();
    for track in ["video0", "audio0"] {
        let mine: Vec<&Frame> = frames.iter().filter(|frame| frame.track == track).collect();
        assert!(mine.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "{track}: the numbers go on");
        let again = after.iter().find(|frame| frame.track == track).expect("frames after the restart");
        assert_eq!(again.discontinuity.as_deref(), Some("restart"), "{track}: its first frame says so");
        assert!(again.segment > 0, "{track}: a new segment");
    }
    let newest = frames[..count].iter().map(|frame| frame.timeline_ns).max();
    assert!(Some(after[0].timeline_ns) >= newest, "the timeline does not go back");
    clip.reference.compare_content("after", &after);
}

#[test]
fn a_crashed_appliance_takes_up_its_rings_and_the_reader_goes_on() {
    let clip = usual_clip();
    let (root, ports) = (Arc::new(Root::new()), Ports::free());
    let mut first = Appliance::start_in(Arc::clone(&root), ports, &[]);
    let tap = first.tap("cam1");
    let mut sender = SrtSender::start(ports.srt, "streamid=cam1");
    sender.wait_for_connection();
    sender.send(&clip.bytes[..clip.bytes.len() / 2]);
    tap.wait_until("some frames", |frames| frames.len() > 20);
    first.kill();
    sender.kill();
    let seen = tap.wait_for(usize::MAX).len();
    let second = Appliance::start_in(root, ports, &[]);
    senders::send_srt(ports.srt, "streamid=cam1", &clip.bytes);
    let frames = tap.wait_for(seen + clip.reference.packet_count());
    drop(second);
    assert_eq!(frames.len(), seen + clip.reference.packet_count());
    clip.reference.compare_content("after the crash", &frames[seen..]);
    for track in ["video0", "audio0"] {
        let mine: Vec<&Frame> = frames.iter().filter(|frame| frame.track == track).collect();
        assert!(mine.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "{track}: the numbers go on");
    }
}

#[test]
fn a_silent_sender_that_goes_on_is_not_taken_for_a_new_one() {
    let clip = usual_clip();
    let appliance = Appliance::start(&["ingestion.frame.assembly_timeout=10s"]);
    let tap = appliance.tap("cam1");
    let mut sender = SrtSender::start(appliance.ports.srt, "streamid=cam1");
    sender.wait_for_connection();
    let half = clip.bytes.len() / 2 / senders::DATAGRAM * senders::DATAGRAM;
    sender.send(&clip.bytes[..half]);
    signal(&sender.child, "STOP");
    std::thread::sleep(Duration::from_millis(2_500));
    signal(&sender.child, "CONT");
    sender.send(&clip.bytes[half..]);
    sender.finish();
    clip.reference.compare("with a pause", &tap.wait_for(clip.reference.packet_count()));
}

#[test]
fn an_rtp_source_that_returns_from_another_port_goes_on_at_once_and_from_another_host_after_a_silence() {
    let clip = usual_clip();
    // Small enough to be sent in a second or so, and these SSRCs are steered to both of two shards.
    let ssrcs = [0x11_u32, 0x22, 0x33, 0x44];
    let appliance = Appliance::start(&["ingestion.rtp.session_timeout=60s"]);
    let to = SocketAddr::from(([127, 0, 0, 1], appliance.ports.rtp));
    let taps = ssrcs.map(|ssrc| appliance.tap(&format!("rtp-{ssrc:08x}")));
    let send = |host: [u8; 4], expected: usize| {
        std::thread::scope(|scope| {
            for ssrc in ssrcs {
                let bytes = &clip.bytes;
                let socket = UdpSocket::bind(SocketAddr::from((host, 0))).expect("a port");
                scope.spawn(move || senders::send_rtp(&socket, bytes, to, ssrc));
            }
        });
        for (tap, ssrc) in taps.iter().zip(ssrcs) {
            let frames = tap.wait_for(expected);
            assert_eq!(frames.len(), expected, "{ssrc:08x} from {host:?}");
        }
    };
    let count = clip.reference.packet_count();
    send([127, 0, 0, 1], count);
    send([127, 0, 0, 1], 2 * count);
    assert!(!appliance.log().contains("refused"), "{}", appliance.log());
    std::thread::sleep(Duration::from_millis(1_100));
    send([127, 0, 0, 2], 3 * count);
    assert!(!appliance.log().contains("refused"), "{}", appliance.log());
    for (tap, ssrc) in taps.iter().zip(ssrcs) {
        let frames = tap.frames();
        for (life, frames) in frames.chunks(count).enumerate() {
            clip.reference.compare_content(&format!("{ssrc:08x}, {life}"), frames);
        }
        assert!(frames.chunks(count).map(|frames| frames[0].segment).is_sorted_by(|a, b| a < b), "segments");
    }
}

/// Two streams came by SRT, and so to one shard each; now both come by RTP with SSRCs that are steered to the same shard.
#[test]
fn a_stream_goes_to_the_shard_that_its_rtp_source_is_steered_to() {
    let clip = usual_clip();
    let ssrcs: Vec<u32> = (1..).filter(|&ssrc| headworks_host::shard_of_ssrc(ssrc, 2) == 0).take(2).collect();
    let settings: Vec<String> =
        ssrcs.iter().enumerate().map(|(n, ssrc)| format!("streams.cam{n}.rtp.ssrc={ssrc}")).collect();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let appliance = Appliance::start(&settings);
    let taps = ["cam0", "cam1"].map(|name| appliance.tap(name));
    let count = clip.reference.packet_count();
    for (name, tap) in ["cam0", "cam1"].iter().zip(&taps) {
        senders::send_srt(appliance.ports.srt, &format!("streamid={name}"), &clip.bytes);
        clip.reference.compare(name, &tap.wait_for(count));
    }
    let to = SocketAddr::from(([127, 0, 0, 1], appliance.ports.rtp));
    for (tap, &ssrc) in taps.iter().zip(&ssrcs) {
        senders::send_rtp(&senders::socket(), &clip.bytes, to, ssrc);
        let frames = tap.wait_for(2 * count);
        clip.reference.compare_content("by RTP", &frames[count..]);
        for track in ["video0", "audio0"] {
            let mine: Vec<&Frame> = frames.iter().filter(|frame| frame.track == track).collect();
            assert!(mine.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "{track}: the numbers go on");
        }
        assert!(frames[count].segment > frames[count - 1].segment, "a new segment");
    }
    assert_eq!(appliance.log().matches("goes to shard 0").count(), 1, "{}", appliance.log());
}
