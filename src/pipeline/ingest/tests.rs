//! Whole streams through an ingest, into lists instead of rings.

use std::net::SocketAddr;

use headworks_packet::{PacketPool, PoolOptions};

use super::*;
use crate::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack};
use crate::media::{Codec, TrackConfiguration};
use crate::pipeline::frame::{
    Damage, DiscontinuityCause, Frame, FrameSink, FrameTooLarge, Origin, SinkIndex, TrackDescription,
};
use crate::protocol::rtp::raw_ts::RawOptions;
use crate::protocol::srt::connection::{Connection, Limits};
use crate::protocol::srt::packet::{DataHeader, SequenceNumber};
use crate::protocol::srt::parameters::{ConnectionParameters, Role};
use crate::protocol::srt::statistics::Statistics;

const FRAME_SIZE_MAX: usize = 40_000;
/// 25 frames per second in ticks of 90 kHz.
const FRAME_TICKS: u64 = 3_600;

/// A stream's frames in lists.
#[derive(Default)]
struct Lists {
    tracks: Vec<List>,
    opening: bool,
    early: bool,
}

#[derive(Default)]
struct List {
    codec: Option<Codec>,
    open: Vec<u8>,
    frames: Vec<(Frame, Vec<u8>)>,
    configurations: Vec<Vec<u8>>,
    ended: bool,
}

impl StreamSink for Lists {
    type Track<'a> = &'a mut List;

    fn open(&mut self, track: &TrackDescription) -> SinkIndex {
        self.tracks.push(List { codec: Some(track.codec), ..List::default() });
        SinkIndex(self.tracks.len() - 1)
    }

    fn is_opening(&self) -> bool {
        self.opening
    }

    fn takes_early(&self) -> bool {
        self.early
    }

    fn track(&mut self, index: SinkIndex) -> &mut List {
        &mut self.tracks[index.0]
    }

    fn end(&mut self, index: SinkIndex) {
        self.tracks[index.0].ended = true;
    }
}

impl FrameSink for &mut List {
    fn append(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        if self.open.len() + bytes.len() > FRAME_SIZE_MAX {
            return Err(FrameTooLarge);
        }
        self.open.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self, _now: Instant, frame: &Frame) {
        let bytes = std::mem::take(&mut self.open);
        self.frames.push((frame.clone(), bytes));
    }

    fn abandon(&mut self) {
        self.open.clear();
    }

    fn configure(&mut self, configuration: &TrackConfiguration) {
        self.configurations.push(configuration.bytes.clone());
    }
}

/// A source of raw transport packets on a clock of its own.
struct Bench {
    pool: PacketPool,
    ingest: Ingest,
    lists: Lists,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let pool = PacketPool::new(PoolOptions { slots: 4_096, ..PoolOptions::default() }).unwrap();
        let mut ingest = Ingest::new(PayloadTypes::default());
        ingest.attach(raw());
        Self { pool, ingest, lists: Lists::default(), now: Instant::from_millis(1_000) }
    }

    /// H.264 as payload type 96.
    fn with_h264_over_rtp() -> Self {
        let mut bench = Self::new();
        let mut payload_types = PayloadTypes::default();
        payload_types.set(96, rtp::PayloadFormat::new(Encoding::H264));
        bench.ingest = Ingest::new(payload_types.clone());
        let options = rtp::SourceOptions { payload_types, ..rtp::SourceOptions::default() };
        bench.ingest.attach(Protocol::Rtp(Box::new(rtp::Source::new(options, 1))));
        bench
    }

    /// Sends the datagrams of `bytes` for which `keep` holds, a millisecond apart.
    fn send(&mut self, bytes: &[u8], keep: impl Fn(usize) -> bool) {
        self.send_in(bytes, 7 * 188, keep);
    }

    /// The same in datagrams of `length` bytes. What is in one datagram otherwise comes at one time here too.
    fn send_in(&mut self, bytes: &[u8], length: usize, keep: impl Fn(usize) -> bool) {
        let began = self.now;
        for (number, datagram) in bytes.chunks(length).enumerate() {
            self.now = began + Duration::from_millis((number * length / (7 * 188)) as u64 + 1);
            if keep(number) {
                let packet = self.pool.copy_from(datagram).unwrap();
                let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
                let datagram = Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: self.now };
                self.ingest.receive(self.now, datagram);
                self.ingest.deliver(self.now, &mut self.lists);
            }
        }
    }

    fn finish(&mut self) {
        self.ingest.detach(self.now, &mut self.lists);
    }

    fn frames(&self) -> &[(Frame, Vec<u8>)] {
        &self.lists.tracks[0].frames
    }
}

fn raw() -> Protocol {
    Protocol::RawTransport(Box::new(RawTransportStream::new(RawOptions::default())))
}

/// A picture with a delimiter, an IDR or a plain slice, `len` bytes in all, told apart by `number`.
fn picture(number: u32, key: bool, len: usize) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 1, 0x09, 0xf0];
    if key {
        // Baseline, level 1, 16 × 16; then its picture parameter set.
        bytes.extend([0, 0, 0, 1, 0x67, 0x42, 0x00, 0x0a, 0xdd, 0xe4]);
        bytes.extend([0, 0, 0, 1, 0x68, 0xce, 0x38, 0x80]);
    }
    // First macroblock 0, an I slice of all, picture parameter set 0, frame number 0, IDR id 0.
    bytes.extend([0, 0, 0, 1, if key { 0x65 } else { 0x41 }, 0x88, 0x84]);
    bytes.extend(number.to_be_bytes().map(|byte| byte | 0x40));
    bytes.resize(len.max(bytes.len()), 0xab);
    bytes
}

fn mux(pes_length: bool) -> Mux {
    let mut track = MuxTrack::new(0x100, Codec::H264);
    track.pes_length = pes_length;
    Mux::new(MuxConfiguration::new(vec![track])).unwrap()
}

/// `count` pictures from `first` on, of `len` bytes each, every tenth a key.
fn pictures(mux: &mut Mux, first: u32, count: u32, len: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut stream, mut units) = (Vec::new(), Vec::new());
    for number in first..first + count {
        let key = number.is_multiple_of(10);
        let data = picture(number, key, len);
        let time = 90_000 + u64::from(number) * FRAME_TICKS;
        mux.write(0, &AccessUnit { pts: time, dts: time, random_access: key, data: &data }, &mut stream);
        units.push(data);
    }
    (stream, units)
}

#[test]
fn every_picture_becomes_one_frame_with_its_bytes_and_times() {
    let mut bench = Bench::new();
    let (stream, units) = pictures(&mut mux(false), 0, 50, 3_000);
    bench.send(&stream, |_| true);
    bench.finish();
    let frames = bench.frames();
    assert_eq!(frames.len(), 50);
    for (number, ((frame, bytes), unit)) in frames.iter().zip(&units).enumerate() {
        assert_eq!(bytes, unit, "frame {number}");
        let time = 90_000 + number as i64 * FRAME_TICKS as i64;
        assert_eq!((frame.pts, frame.dts), (Some(time), Some(time)));
        assert_eq!(frame.info.is_key(), number % 10 == 0);
        assert_eq!(frame.damage, Damage::NONE);
        let cause = if number == 0 { DiscontinuityCause::Start } else { DiscontinuityCause::None };
        assert_eq!(frame.discontinuity, cause, "frame {number}");
    }
    assert_eq!(bench.lists.tracks[0].configurations.len(), 1);
}

#[test]
fn a_gop_begins_with_each_key_frame_and_what_comes_before_the_first_is_in_none() {
    let mut bench = Bench::new();
    let (stream, _) = pictures(&mut mux(false), 5, 48, 3_000);
    bench.send(&stream, |_| true);
    bench.finish();
    let Content::Transport(transport) = bench.ingest.content() else { panic!("a transport stream") };
    let statistics = *transport.tracks().next().unwrap().assembler.statistics();
    assert_eq!((statistics.keyframes, statistics.gops), (5, 5));
    assert_eq!((statistics.frames, statistics.gop_frames, statistics.gop_open_frames), (48, 40, 3));
}

#[test]
fn a_lost_datagram_marks_the_frame_that_lost_bytes_and_no_other() {
    let (stream, units) = pictures(&mut mux(false), 0, 30, 3_000);
    for lost in 3..stream.len() / (7 * 188) - 4 {
        let mut bench = Bench::new();
        bench.send(&stream, |number| number != lost);
        bench.finish();
        for (frame, bytes) in bench.frames() {
            let is_whole = units.contains(bytes);
            assert!(is_whole || frame.damage.any(), "datagram {lost}: a frame that lost bytes is not marked");
        }
        let damaged = bench.frames().iter().filter(|(frame, _)| frame.damage.any()).count();
        let missing = units.iter().filter(|unit| !bench.frames().iter().any(|(_, bytes)| bytes == *unit)).count();
        assert!(damaged <= missing + 1, "datagram {lost}: {damaged} marked, {missing} touched");
        assert!(missing <= 2, "datagram {lost}: {missing} frames touched");
    }
}

/// What comes of a stream over SRT with a latency of 120 ms, in datagrams a millisecond apart of which one is lost, and comes so many
/// ms later, if at all.
fn over_srt(stream: &[u8], early: bool, lost: usize, again: Option<usize>) -> (Vec<(Frame, Vec<u8>)>, Statistics) {
    let mut bench = Bench::new();
    let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    let start = bench.now;
    let parameters = ConnectionParameters::plain(Role::Receiver, peer, start);
    let connection = Connection::new(start, parameters, Limits::default());
    (bench.ingest, bench.lists.early) = (Ingest::new(PayloadTypes::default()), early);
    bench.ingest.attach(Protocol::Srt(Box::new(connection)));
    let datagrams: Vec<&[u8]> = stream.chunks(7 * 188).collect();
    for ms in 0..datagrams.len() + 200 {
        bench.now = start + Duration::from_millis(ms as u64);
        let on_time = Some(ms).filter(|&ms| ms < datagrams.len() && ms != lost);
        for number in on_time.into_iter().chain(again.filter(|again| lost + again == ms).map(|_| lost)) {
            let header = DataHeader {
                sequence: SequenceNumber::new(number as u64),
                timestamp_us: number as u32 * 1_000,
                socket_id: 7,
                message_number: 1,
                retransmitted: number == lost,
                ..DataHeader::default()
            };
            let mut bytes = [0; 16];
            header.encode(&mut bytes);
            let packet = bench.pool.copy_from(&[&bytes, datagrams[number]].concat()).unwrap();
            let datagram = Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: bench.now };
            bench.ingest.receive(bench.now, datagram);
        }
        bench.ingest.handle_timeout(bench.now);
        bench.ingest.deliver(bench.now, &mut bench.lists);
    }
    let Some(Protocol::Srt(connection)) = bench.ingest.protocol() else { panic!("it is there") };
    let statistics = *connection.statistics();
    bench.finish();
    (bench.lists.tracks.remove(0).frames, statistics)
}

/// What is not known when the next frame is finished is not known when it is due either.
#[test]
fn whether_packets_or_frames_wait_the_frames_are_the_same_with_the_same_damage() {
    let (stream, _) = pictures(&mut mux(false), 0, 30, 3_000);
    for lost in 3..stream.len() / (7 * 188) - 4 {
        for again in [None, Some(40), Some(119), Some(125)] {
            let (packets_wait, frames_wait) =
                (over_srt(&stream, false, lost, again), over_srt(&stream, true, lost, again));
            assert!(frames_wait.0 == packets_wait.0, "datagram {lost}, which comes {again:?} ms later");
            assert!(frames_wait.0.iter().any(|(frame, _)| frame.damage.any()) == again.is_none_or(|ms| ms > 120));
            let told = |count: &Statistics| (count.pkt_rcv_loss, count.pkt_rcv_drop, count.pkt_rcv_belated);
            assert_eq!(told(&frames_wait.1), told(&packets_wait.1));
        }
    }
}

#[test]
fn whole_frames_that_are_lost_are_counted() {
    let mut mux = mux(false);
    let (before, _) = pictures(&mut mux, 0, 20, 3_000);
    let (lost, _) = pictures(&mut mux, 20, 10, 3_000);
    let (after, _) = pictures(&mut mux, 30, 10, 3_000);
    let mut bench = Bench::new();
    bench.send(&before, |_| true);
    bench.now += Duration::from_millis(lost.len() as u64 / (7 * 188));
    bench.send(&after, |_| true);
    bench.finish();
    let Content::Transport(transport) = bench.ingest.content() else { panic!("it is a transport stream") };
    let statistics = *transport.tracks().next().unwrap().assembler.statistics();
    assert_eq!(statistics.frames, 30);
    assert_eq!(statistics.lost, 10);
    let first_after = &bench.frames()[20].0;
    assert_eq!(first_after.discontinuity, DiscontinuityCause::Loss);
}

/// AAC LC, 48 kHz, stereo: `count` frames of `len` bytes each with their ADTS headers, told apart by their bytes.
fn adts_frames(first: u8, count: u8, len: usize) -> Vec<u8> {
    let frames = (first..first + count).flat_map(|number| {
        let high = (0x80 | len >> 11) as u8;
        let mut frame = vec![0xff, 0xf1, 0x4c, high, (len >> 3) as u8, (len << 5) as u8 | 0x1f, 0xfc];
        frame.resize(len, number);
        frame
    });
    frames.collect()
}

#[test]
fn audio_after_a_loss_has_no_time_until_one_is_carried_and_what_was_lost_is_counted() {
    const SAMPLES_TICKS: i64 = 1_920;
    let mut mux = Mux::new(MuxConfiguration::new(vec![MuxTrack::new(0x101, Codec::AacAdts)])).unwrap();
    let mut stream = Vec::new();
    for packet in 0..4_u8 {
        let data = adts_frames(packet * 12, 12, 400);
        let time = 90_000 + u64::from(packet) * 12 * SAMPLES_TICKS as u64;
        mux.write(0, &AccessUnit { pts: time, dts: time, random_access: true, data: &data }, &mut stream);
    }
    // Whatever datagram is lost, no frame has the time of another, and none is forgotten.
    for lost in 1..stream.len() / (7 * 188) - 1 {
        let mut bench = Bench::new();
        bench.send(&stream, |number| number != lost);
        bench.finish();
        let frames = bench.frames();
        for (frame, bytes) in frames.iter().filter(|(frame, _)| !frame.damage.any()) {
            let time = 90_000 + i64::from(bytes[0]) * SAMPLES_TICKS;
            assert!(frame.pts.is_none_or(|pts| pts == time), "datagram {lost}: frame {} at {frame:?}", bytes[0]);
        }
        // A header proves that what follows the gap is whole.
        for (frame, bytes) in frames.iter().filter(|(frame, bytes)| frame.damage.any() && bytes.len() == 393) {
            assert_eq!(frame.discontinuity, DiscontinuityCause::None, "datagram {lost}: frame {} {frame:?}", bytes[0]);
        }
        let timed = frames.iter().filter(|(frame, _)| frame.pts.is_some()).count();
        assert!(timed >= 48 - 12 - 4, "datagram {lost}: {timed} frames have a time");
        let Content::Transport(transport) = bench.ingest.content() else { panic!("it is a transport stream") };
        let statistics = *transport.tracks().next().unwrap().assembler.statistics();
        // The last PES packet has no other after it that could tell.
        if frames.last().is_some_and(|(frame, _)| frame.pts.is_some()) {
            assert_eq!(statistics.frames + statistics.lost, 48, "datagram {lost}: {statistics:?}");
        }
    }
}

/// A picture whose first fragment is lost leaves nothing behind, but its last one proves where the next begins.
#[test]
fn the_picture_after_one_that_lost_its_first_fragment_is_not_marked() {
    // Before the marker is trusted the picture before is still open.
    for (lost, expected) in [(4, &[3][..]), (30, &[])] {
        let mut bench = Bench::with_h264_over_rtp();
        for number in 0..80_u16 {
            // FU-A (RFC 6184 §5.8): first and last fragment of a slice.
            let (picture, is_last) = (number / 2, number % 2 == 1);
            let mut datagram = vec![0x80, if is_last { 0x80 | 96 } else { 96 }];
            datagram.extend(number.to_be_bytes());
            datagram.extend((u32::from(picture) * FRAME_TICKS as u32).to_be_bytes());
            datagram.extend([0, 0, 0, 7, 0x7c, if is_last { 0x45 } else { 0x85 }, 0x88, 0x84]);
            datagram.resize(100, 0xab);
            bench.now += Duration::from_millis(20);
            bench.send(&datagram, |_| number != 2 * lost);
            bench.ingest.handle_timeout(bench.now);
        }
        bench.finish();
        assert_eq!(bench.frames().len(), 39, "picture {lost}");
        assert_eq!(bench.frames()[0].0.origin, Origin::Rtp(0), "0 is a time stamp");
        assert_eq!(bench.frames()[38].0.origin, Origin::Rtp(39 * FRAME_TICKS as i64));
        let frames = bench.frames().iter().enumerate();
        let marked: Vec<usize> = frames.filter(|(_, (frame, _))| frame.damage.any()).map(|(index, _)| index).collect();
        assert_eq!(marked, expected, "picture {lost}");
    }
}

/// Pictures over RTP, each one packet with a marker; presentation times in the order I P B B.
#[test]
fn pictures_lost_over_rtp_are_counted_though_decoding_times_lag() {
    let early = (1..12).flat_map(|first| (first..first + 3).map(move |last| (first..=last).collect()));
    let scattered = (1..12).map(|first| vec![first, first + 2, first + 5]);
    let later = [vec![20], vec![21, 22], vec![20, 21, 22, 23, 24, 25, 26], vec![17, 23, 30], vec![20, 24, 28, 32]];
    for lost in early.chain(scattered).chain(later) {
        let mut bench = Bench::with_h264_over_rtp();
        for number in 0..60_u16 {
            let shown = match number % 3 {
                _ if number == 0 => 0,
                1 => number + 2,
                _ => number - 1,
            };
            let mut datagram = vec![0x80, 0x80 | 96];
            datagram.extend(number.to_be_bytes());
            datagram.extend((u32::from(shown) * FRAME_TICKS as u32).to_be_bytes());
            datagram.extend([0, 0, 0, 7, if number == 0 { 0x65 } else { 0x41 }, 0x88, 0x84]);
            datagram.resize(100, 0xab);
            bench.now += Duration::from_millis(40);
            bench.send(&datagram, |_| !lost.contains(&number));
        }
        bench.now += Duration::from_secs(1);
        bench.ingest.handle_timeout(bench.now);
        bench.ingest.deliver(bench.now, &mut bench.lists);
        bench.finish();
        let Content::Elementary(elementary) = bench.ingest.content() else { panic!("it is H.264") };
        let statistics = elementary.track().assembler.statistics();
        assert_eq!(statistics.frames, 60 - lost.len() as u64, "{lost:?}: {statistics:?}");
        assert_eq!(statistics.lost, lost.len() as u64, "{lost:?}: {statistics:?}");
    }
}

#[test]
fn a_pes_length_closes_a_frame_once_the_track_has_proved_to_be_aligned() {
    let mut bench = Bench::new();
    let mut mux = mux(true);
    let (stream, _) = pictures(&mut mux, 0, 6, 3_000);
    bench.send(&stream, |_| true);
    // Three pictures prove the alignment; from then on none waits for its successor.
    assert_eq!(bench.frames().len(), 6);
    assert_eq!(bench.frames().iter().filter(|(frame, _)| frame.damage.any()).count(), 0);
}

#[test]
fn pes_stuffing_closes_a_frame_only_after_250_confirmations_and_never_again_after_a_contradiction() {
    let mut bench = Bench::new();
    let mut mux = mux(false);
    // Without a PES length only stuffing tells of the end.
    for (first, count, published) in [(0, 249, 248), (249, 1, 250), (250, 1, 251), (251, 10, 261)] {
        let (stream, _) = pictures(&mut mux, first, count, 3_000);
        bench.send(&stream, |_| true);
        assert_eq!(bench.frames().len(), published, "after {} pictures", first + count);
    }
    // One picture begins in the middle of a PES packet, whose stuffing closes neither.
    let (time, two) = (90_000 + 261 * FRAME_TICKS, [picture(261, false, 3_000), picture(262, false, 3_000)].concat());
    let mut stream = Vec::new();
    mux.write(0, &AccessUnit { pts: time, dts: time, random_access: false, data: &two }, &mut stream);
    bench.send(&stream, |_| true);
    assert_eq!(bench.frames().len(), 262);
    // From then on every picture waits for its successor, however many are aligned again.
    let (stream, _) = pictures(&mut mux, 263, 600, 3_000);
    bench.send(&stream, |_| true);
    assert_eq!(bench.frames().len(), 862);
    assert!(bench.frames().iter().all(|(frame, _)| !frame.damage.any()));
}

#[test]
fn an_open_frame_is_closed_when_nothing_more_comes() {
    let mut bench = Bench::new();
    let (stream, units) = pictures(&mut mux(false), 0, 5, 3_000);
    bench.send(&stream, |_| true);
    assert_eq!(bench.frames().len(), 4);
    let timeout = Duration::from_secs(5);
    bench.ingest.expire(bench.now + Duration::from_millis(4_900), timeout, &mut bench.lists);
    assert_eq!(bench.frames().len(), 4);
    bench.ingest.expire(bench.now + timeout, timeout, &mut bench.lists);
    assert_eq!(bench.frames().len(), 5);
    assert_eq!((bench.frames()[4].0.damage, &bench.frames()[4].1), (Damage::NONE, &units[4]));
}

#[test]
fn a_frame_that_its_source_leaves_open_is_marked_unless_its_end_was_seen() {
    for pes_length in [false, true] {
        let (stream, units) = pictures(&mut mux(pes_length), 0, 3, 3_000);
        let end = stream.len() / 188 * 188;
        // The last picture whole, without its last transport packet, and without all but its first.
        for (missing, damage) in [(0, Damage::NONE), (1, Damage::TIMED_OUT), (15, Damage::TIMED_OUT)] {
            for leaves in [true, false] {
                let mut bench = Bench::new();
                bench.send(&stream[..end - missing * 188], |_| true);
                let later = bench.now + Duration::from_secs(5);
                if leaves {
                    bench.finish();
                } else {
                    bench.ingest.expire(later, Duration::from_secs(5), &mut bench.lists);
                }
                let what = format!("{missing} packets missing, PES length {pes_length}, leaves {leaves}");
                assert_eq!(bench.frames().len(), 3, "{what}");
                let (last, bytes) = &bench.frames()[2];
                assert_eq!((last.damage, bytes.len() == units[2].len()), (damage, missing == 0), "{what}");
                assert!(bench.frames()[..2].iter().all(|(frame, _)| frame.damage == Damage::NONE), "{what}");
            }
        }
    }
}

#[test]
fn an_rtp_access_unit_that_is_left_open_is_marked_unless_its_marker_came() {
    for (markers, damage) in [([true, true], Damage::NONE), ([true, false], Damage::TIMED_OUT)] {
        let mut bench = Bench::new();
        let mut types = PayloadTypes::default();
        types.set(96, rtp::PayloadFormat::new(Encoding::H264));
        bench.ingest = Ingest::new(types.clone());
        let options = rtp::SourceOptions { payload_types: types, ..rtp::SourceOptions::default() };
        bench.ingest.attach(Protocol::Rtp(Box::new(rtp::Source::new(options, 1))));
        for (number, marker) in (0_u8..).zip(markers) {
            let mut bytes = vec![0x80, 96 | u8::from(marker) << 7, 0, number, 0, 0, 0x10 * number, 0, 0, 0, 0, 7];
            // One slice: first macroblock 0, an I slice, picture parameter set 0.
            bytes.extend([0x65, 0xb8, 0x00, 0x04, number, 0xff]);
            bench.now += Duration::from_millis(40);
            let packet = bench.pool.copy_from(&bytes).unwrap();
            let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
            let datagram = Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: bench.now };
            bench.ingest.receive(bench.now, datagram);
        }
        bench.ingest.deliver(bench.now, &mut bench.lists);
        bench.finish();
        let marks: Vec<Damage> = bench.frames().iter().map(|(frame, _)| frame.damage).collect();
        assert_eq!(marks, [Damage::NONE, damage]);
    }
}

#[test]
fn a_frame_over_the_limit_is_given_up_and_the_next_is_marked() {
    let mut mux = mux(false);
    let (mut stream, _) = pictures(&mut mux, 0, 3, 3_000);
    stream.extend(pictures(&mut mux, 3, 1, FRAME_SIZE_MAX + 1).0);
    stream.extend(pictures(&mut mux, 4, 3, 3_000).0);
    let mut bench = Bench::new();
    bench.send(&stream, |_| true);
    bench.finish();
    let pts: Vec<_> = bench.frames().iter().map(|(frame, _)| frame.pts.unwrap()).collect();
    assert_eq!(pts, [0, 1, 2, 4, 5, 6].map(|number| 90_000 + number * FRAME_TICKS as i64));
    assert_eq!(bench.frames()[3].0.discontinuity, DiscontinuityCause::Dropped);
}

#[test]
fn a_source_that_comes_back_goes_on_in_a_new_segment_on_the_same_track() {
    let mut bench = Bench::new();
    let (stream, _) = pictures(&mut mux(false), 0, 10, 3_000);
    bench.send(&stream, |_| true);
    bench.finish();
    bench.now += Duration::from_secs(3);
    bench.ingest.attach(raw());
    bench.send(&stream, |_| true);
    bench.finish();
    assert_eq!(bench.lists.tracks.len(), 1);
    let frames = bench.frames();
    assert_eq!(frames.len(), 20);
    assert_eq!((frames[9].0.segment, frames[10].0.segment), (0, 1));
    assert_eq!(frames[10].0.discontinuity, DiscontinuityCause::Restart);
    assert_eq!(frames[10].0.damage, Damage::NONE);
    assert!(frames.windows(2).all(|pair| pair[0].0.timeline_ns < pair[1].0.timeline_ns));
}

#[test]
fn a_frame_that_nothing_times_stands_where_the_timeline_does() {
    let mut mux = Mux::new(MuxConfiguration::new(vec![MuxTrack::new(0x101, Codec::AacAdts)])).unwrap();
    let mut stream = Vec::new();
    for packet in 0..4_u8 {
        let time = 8_000_000_000 + u64::from(packet) * 12 * 1_920;
        let data = adts_frames(packet * 12, 12, 400);
        mux.write(0, &AccessUnit { pts: time, dts: time, random_access: true, data: &data }, &mut stream);
    }
    let mut bench = Bench::new();
    bench.send(&stream, |_| true);
    bench.finish();
    bench.ingest.attach(raw());
    // The source comes back amid a PES packet.
    bench.send(&stream, |number| number > 0);
    bench.finish();
    let frames = &bench.frames()[48..];
    let newest_ns = bench.frames()[47].0.timeline_ns;
    let untimed = frames.iter().take_while(|(frame, _)| frame.pts.is_none() && frame.dts.is_none()).count();
    assert!(untimed > 2, "{untimed}");
    assert!(frames[..untimed].iter().all(|(frame, _)| frame.timeline_ns == newest_ns));
    assert!(frames[untimed].0.timeline_ns > newest_ns);
}

#[test]
fn nothing_of_a_new_track_is_lost_while_its_ring_is_made() {
    let mut bench = Bench::new();
    bench.lists.opening = true;
    let (stream, units) = pictures(&mut mux(false), 0, 20, 3_000);
    let datagrams = stream.len().div_ceil(7 * 188);
    bench.send(&stream[..40 * 188], |_| true);
    assert_eq!(bench.lists.tracks.len(), 1);
    assert!(bench.frames().is_empty() && bench.lists.tracks[0].open.is_empty());
    assert!(bench.ingest.held_packets() > 0 && bench.ingest.held_packets() < datagrams);
    bench.lists.opening = false;
    bench.send(&stream[40 * 188..], |_| true);
    bench.finish();
    let bytes: Vec<_> = bench.frames().iter().map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(bytes, units);
}

#[test]
fn a_session_that_ends_while_a_ring_is_made_is_delivered_when_it_is_there_and_before_the_next_session() {
    let mut bench = Bench::new();
    bench.lists.opening = true;
    let (stream, units) = pictures(&mut mux(false), 0, 20, 3_000);
    bench.send(&stream, |_| true);
    bench.finish();
    assert!(bench.ingest.protocol().is_none() && bench.frames().is_empty());
    assert_eq!(bench.ingest.next_timeout(), Some(Instant::from_millis(1_001) + HOLD_MAX), "the wait is bounded");
    bench.ingest.attach(raw());
    bench.send(&stream, |_| true);
    assert!(bench.frames().is_empty());
    bench.lists.opening = false;
    bench.ingest.deliver(bench.now, &mut bench.lists);
    bench.finish();
    let bytes: Vec<_> = bench.frames().iter().map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(bytes, [units.clone(), units].concat());
    let segments: Vec<u32> = bench.frames().iter().map(|(frame, _)| frame.segment).collect();
    assert_eq!(segments, [[0; 20], [1; 20]].concat());
    assert_eq!(bench.frames()[20].0.discontinuity, DiscontinuityCause::Restart);
}

#[test]
fn a_session_that_ends_before_there_is_anything_to_write_to_is_delivered_later() {
    let mut bench = Bench::new();
    let (stream, units) = pictures(&mut mux(false), 0, 20, 3_000);
    for datagram in stream.chunks(7 * 188) {
        let packet = bench.pool.copy_from(datagram).unwrap();
        let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        let datagram = Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: bench.now };
        bench.ingest.receive(bench.now, datagram);
    }
    bench.ingest.detach_unopened(bench.now);
    bench.ingest.deliver(bench.now, &mut bench.lists);
    let bytes: Vec<_> = bench.frames().iter().map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(bytes, units, "the last one too: nothing more will come");
}

#[test]
fn at_the_end_of_everything_what_is_open_is_published_though_a_ring_is_missing() {
    let mut bench = Bench::new();
    let (stream, units) = pictures(&mut mux(false), 0, 20, 3_000);
    bench.lists.opening = true;
    bench.send(&stream, |_| true);
    bench.ingest.conclude(bench.now, &mut bench.lists);
    assert_eq!(bench.frames().len(), units.len());
}

#[test]
fn the_wait_for_a_ring_ends_after_a_quarter_of_a_second() {
    let mut bench = Bench::new();
    bench.lists.opening = true;
    let (stream, _) = pictures(&mut mux(false), 0, 20, 3_000);
    bench.send(&stream, |_| true);
    assert!(bench.frames().is_empty());
    bench.now += HOLD_MAX;
    bench.ingest.deliver(bench.now, &mut bench.lists);
    assert_eq!(bench.frames().len(), 19);
    assert_eq!(bench.ingest.held_packets(), 0);
}

#[test]
fn a_programme_that_takes_the_place_of_another_has_a_timeline_of_its_own() {
    let mut bench = Bench::new();
    let (first, _) = pictures(&mut mux(false), 0, 10, 3_000);
    bench.send(&first, |_| true);
    let tracks = || vec![MuxTrack::new(0x100, Codec::H264)];
    let mut other = Mux::new(MuxConfiguration { programme: 2, ..MuxConfiguration::new(tracks()) }).unwrap();
    // Tables of another version.
    other.set_tracks(tracks()).unwrap();
    let (second, _) = pictures(&mut other, 1_000_000, 10, 3_000);
    bench.send(&second, |_| true);
    bench.finish();
    let marks = |track: usize| {
        let (frame, _) = &bench.lists.tracks[track].frames[0];
        (frame.segment, frame.discontinuity, frame.timeline_ns == frame.first_arrival.as_nanos() as i64)
    };
    assert_eq!([0, 1].map(marks), [(0, DiscontinuityCause::Start, true); 2]);
}

#[test]
fn the_configuration_of_a_data_track_is_its_descriptors_as_they_change() {
    let tracks = |pages: &[u8]| {
        let sound = MuxTrack { descriptors: pages.to_vec(), ..MuxTrack::new(0x100, Codec::Mp2) };
        vec![sound, MuxTrack { descriptors: pages.to_vec(), ..MuxTrack::new(0x101, Codec::DvbSubtitle) }]
    };
    let (before, after) = (b"\x59\x08nor\x10\0\x02\0\x03", b"\x59\x08nor\x10\0\x04\0\x05");
    let mut mux = Mux::new(MuxConfiguration::new(tracks(before))).unwrap();
    let mut stream = Vec::new();
    mux.advance_to(90_000, &mut stream);
    mux.advance_to(180_000, &mut stream);
    mux.set_tracks(tracks(after)).unwrap();
    mux.advance_to(270_000, &mut stream);
    let mut bench = Bench::new();
    bench.send(&stream, |_| true);
    // Before there is a unit of it: it may be long in coming.
    assert_eq!(bench.lists.tracks[1].configurations, [before, after]);
    assert!(bench.lists.tracks[0].configurations.is_empty());
}

#[test]
fn a_track_that_leaves_the_tables_ends_and_its_last_frame_is_published() {
    let mut bench = Bench::new();
    let mut mux = mux(false);
    let (mut stream, _) = pictures(&mut mux, 0, 5, 3_000);
    mux.set_tracks(vec![MuxTrack::new(0x101, Codec::Hevc)]).unwrap();
    mux.advance_to(90_000 + 30 * FRAME_TICKS, &mut stream);
    bench.send(&stream, |_| true);
    assert!(bench.lists.tracks[0].ended);
    assert_eq!(bench.frames().len(), 5);
    assert_eq!(bench.lists.tracks[1].codec, Some(Codec::Hevc));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Runs of packets are taken at one go: start codes that lie across their borders, and lost packets, must come to the same.
    #[test]
    fn a_datagram_of_many_packets_is_as_good_as_each_packet_in_one_of_its_own(
        bytes in proptest::collection::vec(proptest::prop_oneof![
            8 => proptest::prelude::any::<u8>(), 4 => proptest::prelude::Just(0_u8), 2 => proptest::prelude::Just(1_u8)], 40_000),
        length in 200_usize..9_000,
        pes_length: bool,
        lost in proptest::option::of(5_usize..20),
    ) {
        let mut mux = mux(pes_length);
        let mut stream = Vec::new();
        for (number, piece) in bytes.chunks(length).enumerate() {
            let mut data = picture(number as u32, number.is_multiple_of(10), 40);
            data.extend_from_slice(piece);
            let time = 90_000 + number as u64 * FRAME_TICKS;
            mux.write(0, &AccessUnit { pts: time, dts: time, random_access: false, data: &data }, &mut stream);
        }
        let frames = |packets: usize| {
            let mut bench = Bench::new();
            let lost = lost.map(|lost| lost * 7 / packets..(lost + 1) * 7 / packets);
            bench.send_in(&stream, packets * 188, |number| !lost.as_ref().is_some_and(|lost| lost.contains(&number)));
            bench.finish();
            let all = bench.frames().iter();
            all.map(|(frame, bytes)| (frame.pts, frame.damage, frame.discontinuity, bytes.clone())).collect::<Vec<_>>()
        };
        proptest::prop_assert_eq!(frames(7), frames(1));
    }
}
