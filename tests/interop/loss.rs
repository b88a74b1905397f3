//! What a bad network costs: nothing over SRT; over RTP what was lost is marked or counted, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::appliance::Appliance;
use crate::clips::{self, Clip, clip};
use crate::gstreamer::{self, Format};
use crate::operation::{Process, without_the_end};
use crate::reference::{Reference, Track, hashed};
use crate::relay::Relay;
use crate::senders::SrtSender;
use crate::tap::{Frame, Tap};

/// 30 ms of round trip, and what a network does besides losing.
const ROAD: &str = "--delay 15ms --reorder 2% --reorder-delay 4ms --duplicate 1%";
const LATENCY_MS: u32 = 500;

/// Ten seconds of some 6 Mbit/s.
pub fn long_clip() -> Arc<Clip> {
    clip(
        "long",
        &[
            "testsrc2=size=640x360:rate=25:duration=10,noise=alls=20:allf=t",
            "sine=frequency=997:sample_rate=48000:duration=10",
        ],
        "-c:v libx264 -preset ultrafast -bf 2 -b:v 6M -maxrate 7M -bufsize 2M -g 25 -c:a aac -b:a 128k",
    )
}

pub fn statistics(appliance: &Appliance, stream: &str) -> Value {
    let page = appliance.get(&format!("/api/v1/streams/{stream}"));
    serde_json::from_str(&page).unwrap_or_else(|error| panic!("{error}: {page}"))
}

pub fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {value}"))
}

/// libsrt's tool sends the clip; every frame of it must arrive.
fn srt_live_transmit_loses_nothing(appliance: &Appliance, relay: u16, stream: &str, query: &str) {
    let clip = long_clip();
    let tap = appliance.tap(stream);
    let mut sender = SrtSender::with_latency(relay, LATENCY_MS, &format!("streamid={stream}{query}"));
    sender.wait_for_connection();
    sender.send(&clip.bytes);
    sender.finish();
    let frames = tap.wait_for(clip.reference.packet_count());
    clip.reference.compare(&format!("srt-live-transmit as {stream}"), &frames);
}

/// ffmpeg sends the clip and writes the same packets into a file, which is what the frames are held beside.
fn ffmpeg_loses_nothing(appliance: &Appliance, relay: u16, stream: &str, query: &str) {
    let tap = appliance.tap(stream);
    let copy = clips::directory().join(format!("loss-{stream}.ts"));
    let url =
        format!("srt\\://127.0.0.1\\:{relay}?pkt_size=1316&latency={LATENCY_MS}000&linger=2&streamid={stream}{query}");
    let mut ffmpeg = Process::start(
        Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-y", "-re", "-i"])
            .arg(clips::directory().join("long.ts"))
            .args(["-map", "0", "-c", "copy", "-f", "tee"])
            .arg(format!("[f=mpegts]{}|[f=mpegts]{url}", copy.display())),
    );
    ffmpeg.wait();
    let sent = clips::from_file("ffmpeg", &copy);
    let count = sent.reference.packet_count();
    let frames = tap.wait_for(count);
    // ffmpeg closes at once, and libsrt then gives up what its peer still has to ask for: the last second is not judged.
    assert!(frames.len() + 72 >= count, "ffmpeg as {stream}: {} frames of {count}", frames.len());
    let whole = without_the_end(frames);
    sent.reference.first(&whole).compare(&format!("ffmpeg as {stream}"), &whole);
}

/// `headworks send` sends the clip.
fn headworks_send_loses_nothing(appliance: &Appliance, relay: u16, stream: &str) {
    let clip = long_clip();
    let tap = appliance.tap(stream);
    let mut sender = Process::start(
        Command::new(env!("CARGO_BIN_EXE_headworks"))
            .args(["send", "--latency", "500ms", "--file"])
            .arg(clips::directory().join("long.ts"))
            .args(["--to", &format!("srt://127.0.0.1:{relay}?streamid={stream}")]),
    );
    sender.wait();
    let frames = tap.wait_for(clip.reference.packet_count());
    clip.reference.compare(&format!("headworks send as {stream}"), &frames);
}

#[test]
fn srt_with_500_ms_of_latency_delivers_every_frame_through_a_bad_network() {
    long_clip();
    let appliance = Appliance::start(&[
        "ingestion.max_connections=16",
        "streams.five-encrypted.passphrase=known to everybody",
        "streams.one-encrypted.passphrase=known to everybody",
    ]);
    let relay = |loss: &str| Relay::start(appliance.ports.srt, &format!("{ROAD} {loss}"));
    let relays = [relay("--loss 1% --seed 1"), relay("--loss 5% --seed 2"), relay("--burst-loss 2%/100ms --seed 3")];
    let [one, five, bursts] = relays.each_ref().map(|relay| relay.port);
    let encrypted = "&passphrase=known to everybody&pbkeylen";
    let streams =
        ["one", "one-encrypted", "five", "five-encrypted", "five-ffmpeg", "five-own", "bursts", "bursts-ffmpeg"];
    std::thread::scope(|scope| {
        let appliance = &appliance;
        scope.spawn(move || srt_live_transmit_loses_nothing(appliance, one, "one", ""));
        scope.spawn(move || ffmpeg_loses_nothing(appliance, one, "one-encrypted", &format!("{encrypted}=16")));
        scope.spawn(move || srt_live_transmit_loses_nothing(appliance, five, "five", ""));
        scope.spawn(move || {
            srt_live_transmit_loses_nothing(appliance, five, "five-encrypted", &format!("{encrypted}=32"));
        });
        scope.spawn(move || ffmpeg_loses_nothing(appliance, five, "five-ffmpeg", ""));
        scope.spawn(move || headworks_send_loses_nothing(appliance, five, "five-own"));
        scope.spawn(move || srt_live_transmit_loses_nothing(appliance, bursts, "bursts", ""));
        scope.spawn(move || ffmpeg_loses_nothing(appliance, bursts, "bursts-ffmpeg", ""));
    });
    let log = appliance.log();
    let mut recovered: BTreeMap<&str, u64> = BTreeMap::new();
    for stream in streams {
        let told = statistics(&appliance, stream);
        assert!(
            log.lines().any(|line| line.contains("latency 500 ms") && line.contains(&format!("\"{stream}\""))),
            "{log}"
        );
        // A short burst may pass one of the two streams by.
        let road = stream.split('-').next().expect("a first part");
        *recovered.entry(road).or_default() += number(&told, "/stats/packets_recovered");
    }
    assert_eq!(recovered.len(), 3);
    assert!(recovered.values().all(|&packets| packets > 0), "nothing had to be repaired: {recovered:?}");
    for (relay, lost) in relays.into_iter().zip(["lost_random", "lost_random", "lost_burst"]) {
        let report = relay.finish();
        assert!(number(&report, &format!("/forward/{lost}")) > 0, "{report}");
        for way in ["forward", "back"] {
            // So little goes back that a burst may find nothing to lose.
            assert!(lost == "lost_burst" || number(&report, &format!("/{way}/{lost}")) > 0, "{report}");
            assert!(number(&report, &format!("/{way}/reordered")) > 0, "{report}");
            assert!(number(&report, &format!("/{way}/duplicated")) > 0, "{report}");
        }
    }
}

/// A port before the appliance that keeps note of what the network let through.
struct Gauge {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Gauge {
    fn start(forward: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20);
        let port = socket.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut buffer = [0; 2_048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, _)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&buffer[..len], forward).expect("forwarded");
                    seen.push(buffer[..len].to_vec());
                }
            }
            seen
        });
        Self { port, stop, thread }
    }

    fn finish(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends")
    }
}

fn ssrc(datagram: &[u8]) -> u32 {
    u32::from_be_bytes(datagram[8..12].try_into().unwrap())
}

/// One stream as it was sent over RTP, and what became of it.
struct Passage {
    stream: String,
    sent: Vec<Vec<u8>>,
    frames: Vec<Frame>,
    told: Value,
}

impl Passage {
    fn ssrc(&self) -> u32 {
        ssrc(&self.sent[0])
    }

    /// Indices of the datagrams that came, but for those that came after one that was sent `reorder_depth` or more places later.
    fn there(&self, arrived: &[Vec<u8>], reorder_depth: usize) -> BTreeSet<usize> {
        let first = gstreamer::sequence(&self.sent[0]);
        let mut there = BTreeSet::new();
        let mut newest = 0;
        for datagram in arrived.iter().filter(|datagram| ssrc(datagram) == self.ssrc()) {
            let index = usize::from(gstreamer::sequence(datagram).wrapping_sub(first));
            newest = newest.max(index);
            if newest - index < reorder_depth {
                there.insert(index);
            }
        }
        there
    }
}

/// Where an access unit travelled, and how it may be told.
struct Sent {
    /// Time stamp, modulo what its transport wraps at.
    pts: i64,
    content: (usize, String),
    /// The datagrams that have bytes of it.
    datagrams: BTreeSet<usize>,
    /// The datagrams whose loss leaves in doubt whether it is whole: all while it is open, and those right before it.
    open: std::ops::RangeInclusive<usize>,
    /// The datagram with the time stamp that its own is counted from.
    timed: usize,
}

/// What became of a track; for the report.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "read by its Debug alone")]
struct Outcome {
    sent: usize,
    arrived: usize,
    marked: usize,
    hurt: usize,
    missing: usize,
    counted: u64,
}

/// What RTP and MPEG time stamps wrap at.
const RTP_WRAP: i64 = 1 << 32;
const MPEG_WRAP: i64 = 1 << 33;
/// By how many pictures derived decoding times lag behind in a stream that does not tell.
const REORDER_DEPTH_ASSUMED: usize = 4;

/// Holds one track's frames beside what was sent of it, knowing which datagrams were lost.
fn judge(what: &str, sent: &[Sent], lost: &BTreeSet<usize>, frames: &[&Frame], counted: u64, wrap: i64) -> Vec<String> {
    let mut faults = Vec::new();
    let mut outcome = Outcome { sent: sent.len(), arrived: frames.len(), counted, ..Outcome::default() };
    let is_hurt = |unit: &Sent| unit.datagrams.iter().any(|index| lost.contains(index));
    // Nothing but a silence ends the last one.
    let is_doubtful = |unit: &Sent| *unit.open.end() == usize::MAX || lost.range(unit.open.clone()).next().is_some();
    let mut whole: BTreeMap<(usize, &str), Vec<usize>> = BTreeMap::new();
    for (index, unit) in sent.iter().enumerate() {
        whole.entry((unit.content.0, &unit.content.1)).or_default().push(index);
    }
    // From the first frame that came to the last: what lies before and after was not asked for.
    let mut places: Vec<Option<usize>> = Vec::new();
    let mut next = 0;
    for frame in frames {
        let same = whole.get(&(frame.len, frame.sha256.as_str()));
        // A tone repeats itself to the byte: of several that are the same, the one of this time.
        let is_of_now = |place: &&usize| {
            let off = frame.pts.map_or(0, |pts| (pts - sent[**place].pts).rem_euclid(wrap));
            **place >= next && (off <= 1 || off == wrap - 1)
        };
        let place = same.and_then(|places| {
            places.iter().find(is_of_now).or_else(|| places.iter().find(|&&place| place >= next)).copied()
        });
        if let Some(place) = place {
            next = place + 1;
        }
        if frame.damaged {
            outcome.marked += 1;
        }
        match place {
            None if !frame.damaged => faults.push(format!("other bytes than any frame sent, and no mark: {frame:?}")),
            None => {}
            Some(place) => {
                let unit = &sent[place];
                let off = (frame.pts.unwrap_or(0) - unit.pts).rem_euclid(wrap);
                if frame.pts.is_some() && !(off <= 1 || off == wrap - 1) && !frame.damaged {
                    faults.push(format!("frame {place} has another PTS than {}, and no mark: {frame:?}", unit.pts));
                }
                let is_timed = lost.range(unit.timed..=*unit.datagrams.last().unwrap()).next().is_none();
                if frame.pts.is_none() && is_timed {
                    faults.push(format!("frame {place} has no PTS: {frame:?}"));
                }
                if frame.damaged && !is_doubtful(unit) {
                    faults.push(format!("frame {place} {:?} was marked, and no gap was near: {frame:?}", unit.open));
                }
            }
        }
        places.push(place);
    }
    let known: BTreeSet<usize> = places.iter().flatten().copied().collect();
    let (Some(&first), Some(&last)) = (known.first(), known.last()) else { panic!("{what}: not one whole frame") };
    for (index, unit) in sent.iter().enumerate().take(last + 1).skip(first) {
        outcome.hurt += usize::from(is_hurt(unit));
        if !known.contains(&index) && !is_doubtful(unit) {
            let gap = lost.range(..unit.open.start()).next_back();
            faults.push(format!("frame {index} {:?} did not come, and the gap before is {gap:?}", unit.open));
        }
    }
    // What came neither whole nor in part was lost as a whole; at the ends nobody can tell what was to come.
    let begin = places.iter().position(Option::is_some).expect("a whole frame");
    let end = places.iter().rposition(Option::is_some).expect("a whole frame");
    outcome.missing = (last - first).saturating_sub(end - begin);
    // A missing frame shows in the times of those that come after it, where these are derived only once so many have.
    let is_told = |unit: &Sent| {
        let later = frames.iter().filter_map(|frame| frame.pts).map(|pts| (pts - unit.pts).rem_euclid(wrap));
        later.filter(|&by| by > 1 && by < wrap / 2).count() > if wrap == RTP_WRAP { REORDER_DEPTH_ASSUMED } else { 0 }
    };
    let untold = (first..=last).filter(|index| !known.contains(index) && !is_told(&sent[*index])).count();
    let at_ends = first.saturating_sub(begin) + (sent.len() - 1 - last).saturating_sub(frames.len() - 1 - end);
    let (least, most) = (outcome.missing.saturating_sub(untold), outcome.missing + at_ends);
    if !(least..=most).contains(&(counted as usize)) {
        faults.push(format!("{counted} frames were counted as lost, and not {least} to {most}"));
    }
    println!("{what}: {outcome:?}, {} of the datagrams lost, {} faults", lost.len(), faults.len());
    faults.truncate(12);
    faults.into_iter().map(|fault| format!("{what}: {fault}")).collect()
}

/// The frames of a track of a transport stream and the datagrams they travelled in.
fn sent_in_transport_packets(track: &Track, datagrams: &[Vec<u8>]) -> Vec<Sent> {
    // Bytes of the elementary stream up to which each datagram reaches, PES headers taken off (H.222.0 §2.4.3).
    let mut reach: Vec<(usize, usize)> = Vec::new();
    let mut stamps: Vec<(usize, usize)> = Vec::new();
    let mut total = 0;
    for (index, datagram) in datagrams.iter().enumerate() {
        for packet in datagram[12..].chunks_exact(188) {
            let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
            if pid != track.pid || packet[3] & 0x10 == 0 {
                continue;
            }
            let mut payload = if packet[3] & 0x20 != 0 { &packet[5 + usize::from(packet[4])..] } else { &packet[4..] };
            if packet[1] & 0x40 != 0 {
                payload = &payload[9 + usize::from(payload[8])..];
                stamps.push((total, index));
            }
            total += payload.len();
            reach.push((total, index));
        }
    }
    // ADTS headers are no part of a frame.
    let header = if track.name.starts_with("audio") { 7 } else { 0 };
    let mut begin = 0;
    let mut sent: Vec<Sent> = Vec::new();
    for packet in &track.packets {
        let end = begin + header + packet.len;
        let from = reach.partition_point(|&(reached, _)| reached <= begin);
        let to = reach.partition_point(|&(reached, _)| reached < end);
        // Its end is seen where the next one begins, one that lost its neighbour begins in doubt.
        let until = reach.get(to + 1).map_or(usize::MAX, |&(_, index)| index);
        let since = from.checked_sub(1).map_or(0, |before| reach[before].1);
        sent.push(Sent {
            pts: packet.pts.expect("a PTS"),
            content: (packet.len, packet.sha256.clone()),
            datagrams: reach[from..=to].iter().map(|&(_, index)| index).collect(),
            open: since..=until,
            timed: stamps[stamps.partition_point(|&(at, _)| at <= begin) - 1].1,
        });
        begin = end;
    }
    assert_eq!(begin, total, "{}: the frames fill the elementary stream", track.name);
    sent
}

fn sent_in_payloads(datagrams: &[Vec<u8>]) -> Vec<Sent> {
    let units = gstreamer::access_units(datagrams, Format::H264);
    let mut sent: Vec<Sent> = Vec::new();
    let mut next = 0;
    for unit in &units {
        let begin = next;
        let stamp = |datagram: &Vec<u8>| u32::from_be_bytes(datagram[4..8].try_into().unwrap());
        next += datagrams[begin..].iter().take_while(|datagram| stamp(datagram) == unit.timestamp).count();
        sent.push(Sent {
            pts: i64::from(unit.timestamp),
            content: hashed(&unit.bytes),
            datagrams: (begin..next).collect(),
            // The marker of the one before may be lost as well as packets of this one.
            open: begin.saturating_sub(1)..=next,
            timed: begin,
        });
    }
    sent
}

/// Sends eight streams over RTP, four by each road, and holds what came of them beside what the roads let through.
fn rtp_marks_or_counts_what_is_lost(settings: &[&str], reorder_depth: usize, roads: [&str; 2]) {
    long_clip();
    let file = clips::directory().join("long.ts");
    let usual = ["ingestion.max_connections=16", "ingestion.rtp.payload_types.96=h264"];
    let appliance = Appliance::start(&[&usual, settings].concat());
    let gauge = Gauge::start(SocketAddr::from(([127, 0, 0, 1], appliance.ports.rtp)));
    let relays = roads.map(|loss| Relay::start(gauge.port, &format!("{ROAD} {loss}")));
    let mut passages: Vec<Passage> = std::thread::scope(|scope| {
        let (appliance, file) = (&appliance, &file);
        let mut threads = Vec::new();
        for (number, relay) in relays.iter().enumerate() {
            let to = SocketAddr::from(([127, 0, 0, 1], relay.port));
            let first = 0x1000 * (number as u32 + 1);
            let pass = move |ssrc: u32, capture: &dyn Fn(&UdpSocket) -> Vec<Vec<u8>>| {
                let stream = format!("rtp-{ssrc:08x}");
                let tap: Tap = appliance.tap(&stream);
                let sent = capture(&UdpSocket::bind("127.0.0.1:0").unwrap());
                // The last frames close a second after their last byte.
                std::thread::sleep(Duration::from_millis(2_000));
                Passage { told: statistics(appliance, &stream), stream, sent, frames: tap.frames() }
            };
            threads.push(scope.spawn(move || {
                let rtcp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                pass(first, &|tee| {
                    let port = tee.local_addr().unwrap().port();
                    let mut ffmpeg = Command::new("ffmpeg");
                    ffmpeg.args(["-nostdin", "-v", "error", "-re", "-i"]).arg(file).args(["-map", "0", "-c", "copy"]);
                    ffmpeg.args(["-f", "rtp_mpegts", "-rtp_muxer_options", &format!("ssrc={first}")]);
                    ffmpeg.arg(format!("rtp://127.0.0.1:{port}?pkt_size=1328&rtcpport={rtcp}"));
                    gstreamer::capture_from(&mut ffmpeg, tee, to)
                })
            }));
            threads.push(scope.spawn(move || {
                pass(first + 1, &|tee| {
                    let to_tee = format!("rtp://{}", tee.local_addr().unwrap());
                    let mut send = Command::new(env!("CARGO_BIN_EXE_headworks"));
                    send.args(["send", "--to", &to_tee, "--ssrc", &format!("{:x}", first + 1), "--file"]).arg(file);
                    gstreamer::capture_from(&mut send, tee, to)
                })
            }));
            for (ssrc, coding) in [(first + 2, "tune=zerolatency threads=1"), (first + 3, "bframes=2")] {
                threads.push(scope.spawn(move || {
                    let pipeline = format!(
                        "videotestsrc num-buffers=250 pattern=ball ! video/x-raw,width=640,height=360,framerate=25/1 ! \
                         x264enc {coding} key-int-max=20 bitrate=3000 speed-preset=ultrafast ! \
                         rtph264pay pt=96 ssrc={ssrc} mtu=900 config-interval=-1"
                    );
                    pass(ssrc, &|tee| gstreamer::capture(&pipeline, tee, to))
                }));
            }
        }
        threads.into_iter().map(|thread| thread.join().expect("it was sent")).collect()
    });
    let arrived = gauge.finish();
    passages.sort_by_key(Passage::ssrc);
    let reports = relays.map(Relay::finish);
    for way in ["reordered", "duplicated"] {
        assert!(reports.iter().all(|report| number(report, &format!("/forward/{way}")) > 0), "nothing was {way}");
    }
    let delivered: u64 = reports.iter().map(|report| number(report, "/forward/delivered")).sum();
    assert_eq!(delivered, arrived.len() as u64, "all that the network let through was noted");
    let mut faults = Vec::new();
    let mut lost_in_all = 0;
    for passage in &passages {
        let there = passage.there(&arrived, reorder_depth);
        // Nothing tells of those before the first that came and after the last.
        let (begin, end) = (*there.first().expect("something came"), *there.last().unwrap());
        let lost: BTreeSet<usize> = (begin..end).filter(|index| !there.contains(index)).collect();
        lost_in_all += lost.len();
        let own = arrived.iter().filter(|datagram| ssrc(datagram) == passage.ssrc()).count();
        if number(&passage.told, "/stats/packets_received") != own as u64 {
            faults.push(format!("{}: packets_received is not {own}: {}", passage.stream, passage.told["stats"]));
        }
        if number(&passage.told, "/stats/packets_lost") != lost.len() as u64 {
            faults.push(format!("{}: packets_lost is not {}: {}", passage.stream, lost.len(), passage.told["stats"]));
        }
        let counted = |track: &str| {
            let tracks = passage.told["tracks"].as_array().expect("tracks");
            number(tracks.iter().find(|listed| listed["name"] == track).expect("the track"), "/lost")
        };
        let of_track = |track: &str| passage.frames.iter().filter(|frame| frame.track == track).collect::<Vec<_>>();
        let tracks: Vec<(String, Vec<Sent>, i64)> = if passage.ssrc() & 0xfff < 2 {
            let path = clips::directory().join(format!("{}.ts", passage.stream));
            std::fs::write(
                &path,
                passage.sent.iter().flat_map(|datagram| &datagram[12..]).copied().collect::<Vec<u8>>(),
            )
            .unwrap();
            let reference: Reference = clips::from_file(&passage.stream, &path).reference;
            let tracks = reference.tracks.iter();
            tracks.map(|t| (t.name.clone(), sent_in_transport_packets(t, &passage.sent), MPEG_WRAP)).collect()
        } else {
            vec![("video0".to_owned(), sent_in_payloads(&passage.sent), RTP_WRAP)]
        };
        for (track, sent, wrap) in &tracks {
            let what = format!("{} {track}", passage.stream);
            let mut frames = of_track(track);
            if begin > 0 && *wrap == RTP_WRAP {
                // Nothing tells that the stream did not begin with what came first.
                frames.remove(0);
            }
            faults.extend(judge(&what, sent, &lost, &frames, counted(track), *wrap));
        }
    }
    assert!(lost_in_all > 100, "so little was lost that nothing is shown: {lost_in_all}");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn rtp_marks_or_counts_what_a_bad_network_loses_and_nothing_else() {
    // ffmpeg begins with a second's worth at once: hundreds of packets overtake one that is held back.
    let settings = ["ingestion.frame.reorder_buffer=2000"];
    rtp_marks_or_counts_what_is_lost(&settings, 2_000, ["--loss 1% --seed 4", "--burst-loss 3%/100ms --seed 5"]);
}

#[test]
fn rtp_with_the_default_reorder_depth_marks_or_counts_what_a_worse_network_loses() {
    let reorder_depth = headworks::config::Config::default().ingestion.frame.reorder_buffer as usize;
    // What ffmpeg sends at once in the beginning goes by a link, so that few overtake one that is held back.
    let link = "--link-rate 20M --link-queue 2s";
    let roads = [format!("{link} --loss 5% --seed 6"), format!("{link} --burst-loss 5%/100ms --seed 7")];
    rtp_marks_or_counts_what_is_lost(&[], reorder_depth, roads.each_ref().map(String::as_str));
}
