//! Steady state means no allocation: not one for any packet, from the datagram to the frame in a real ring.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use headworks::base::{Datagram, Instant, PacketPool, PoolOptions};
use headworks::config::Config;
use headworks::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack};
use headworks::media::Codec;
use headworks::output::directory::{OutputOptions, RingDirectory};
use headworks::output::frame_ring::{StreamRings, TrackReady};
use headworks::output::housekeeping::Housekeeping;
use headworks::output::waker::Waker;
use headworks::pipeline::frame::StreamSink;
use headworks::pipeline::ingest::{Ingest, Protocol};
use headworks::protocol::rtp::packet::Packetizer;
use headworks::protocol::rtp::raw_ts::{RawOptions, RawTransportStream};
use headworks::protocol::rtp::source::{ReportDestination, ReportOptions};
use headworks::protocol::rtp::{Encoding, PayloadFormat, PayloadTypes, Source, SourceOptions};
use headworks::protocol::srt::connection::{Connection, Limits};
use headworks::protocol::srt::encryption::{
    Cipher, Encryption, KeyLength, KeyRefresh, SALT_LEN, derive_key_encrypting_key,
};
use headworks::protocol::srt::fec::configuration::{Fec, FilterConfiguration};
use headworks::protocol::srt::packet::{self, Header, SequenceNumber};
use headworks::protocol::srt::parameters::{ConnectionParameters, Role};
use headworks_counting_allocator::{CountingAllocator, allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const FRAMES_PER_SECOND: u64 = 25;
/// Bytes of a frame at 50 Mbit/s.
const FRAME_LEN: usize = 250_000;
const DATAGRAM_LEN: usize = 7 * 188;
/// Until GOPs, reports, statistics and buffers have been through all they will ever see.
const WARM_UP_FRAMES: u64 = 60;
const MEASURED_FRAMES: u64 = 60;

/// A source and the rings that it is written to, run turn by turn as a shard does.
struct Bench {
    pool: PacketPool,
    ingest: Ingest,
    rings: StreamRings,
    ready: mpsc::Receiver<TrackReady>,
    transmitted: Vec<u8>,
    now: Instant,
    /// Asked of the allocator within turns.
    allocations: u64,
    _root: tempfile::TempDir,
}

impl Bench {
    fn new(payload_types: PayloadTypes) -> Self {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let options = OutputOptions {
            root: root.path().join("rings"),
            video_ring_size: 16 << 20,
            frame_size_max: 1 << 20,
            pool_size: 0,
            ..OutputOptions::from_config(&Config::default())
        };
        let (waker, _) = Waker::start("waker");
        let (housekeeping, _) = Housekeeping::start("housekeeping", || {});
        let directory = Arc::new(RingDirectory::prepare(options, vec![waker]).unwrap());
        let (sender, ready) = mpsc::channel();
        let output = directory.open_stream("cam1", 0).unwrap();
        let reply = Arc::new(move |ready| sender.send(ready).unwrap());
        Self {
            pool: PacketPool::new(PoolOptions { slots: 8_192, slot_size: 2_048, ..PoolOptions::default() }).unwrap(),
            ingest: Ingest::new(payload_types),
            rings: StreamRings::new(output, directory, housekeeping, reply),
            ready,
            transmitted: Vec::with_capacity(4_096),
            now: Instant::from_millis(1_000_000),
            allocations: 0,
            _root: root,
        }
    }

    /// One turn with one datagram; what is to be sent back stands in `transmitted`.
    fn turn(&mut self, bytes: &[u8]) {
        while self.rings.is_opening() {
            self.rings.ready(self.ready.recv().unwrap());
        }
        let before = allocations();
        let packet = self.pool.copy_from(bytes).expect("slots enough");
        let peer = sender_address();
        let datagram = Datagram { packet, peer, local: None, interface: 1, path: 0, arrival: self.now };
        self.ingest.receive(self.now, datagram);
        self.ingest.handle_timeout(self.now);
        self.ingest.deliver(self.now, &mut self.rings);
        self.ingest.expire(self.now, Duration::from_millis(500), &mut self.rings);
        while self.ingest.poll_event().is_some() {}
        self.transmitted.clear();
        while self.ingest.poll_transmit(self.now, &mut self.transmitted).is_some() {}
        self.rings.flush(self.now);
        self.allocations += allocations() - before;
    }

    /// Published frames of all tracks.
    fn frames(&self) -> u64 {
        self.rings.tracks().iter().map(|track| track.head_seq).sum()
    }

    /// Feeds `datagrams` of one frame after another, evenly in time, and expects that none of them costs an allocation
    /// once all is warm. `between` sees what was sent back.
    fn run(
        &mut self,
        tracks: usize,
        mut frame: impl FnMut(u64, Instant) -> Vec<Vec<u8>>,
        mut between: impl FnMut(Instant, &[u8]),
    ) {
        let mut at_start = 0;
        for number in 0..WARM_UP_FRAMES + MEASURED_FRAMES {
            if number == WARM_UP_FRAMES {
                self.allocations = 0;
                at_start = self.frames();
            }
            let datagrams = frame(number, self.now);
            let step = Duration::from_nanos(1_000_000_000 / FRAMES_PER_SECOND / datagrams.len() as u64);
            for datagram in &datagrams {
                self.turn(datagram);
                between(self.now, &self.transmitted);
                self.now += step;
            }
        }
        assert_eq!(self.rings.tracks().len(), tracks);
        let published = self.frames() - at_start;
        let expected = MEASURED_FRAMES * tracks as u64;
        assert!(published.abs_diff(expected) <= 1, "{published} frames of {expected}");
        assert_eq!(self.ingest.statistics().lost, 0);
        assert_eq!(self.allocations, 0, "heap allocations in steady state");
    }
}

fn sender_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 40_000))
}

/// A frame of H.264 in the byte stream format: an IDR picture with its parameter sets twice a second.
fn picture(number: u64, len: usize) -> Vec<u8> {
    const SEQUENCE: [u8; 13] = [0, 0, 0, 1, 0x67, 0x42, 0, 0x0a, 0x96, 0x53, 5, 0x89, 0x88];
    const PICTURE: [u8; 9] = [0, 0, 0, 1, 0x68, 0xc9, 0x63, 0x88, 0x80];
    let mut bytes = vec![0, 0, 0, 1, 9, 0xf0];
    if number.is_multiple_of(12) {
        bytes.extend_from_slice(&SEQUENCE);
        bytes.extend_from_slice(&PICTURE);
    }
    for slice in 0..8 {
        // After first_mb_in_slice, 0 as bit 1 or 1 as bits 010, all slices of a picture say the same: type (7 or 5), picture
        // parameter set 0, and ones.
        let (kind, rest) = if number.is_multiple_of(12) { (0x65, 0x11ff_ffff_u32) } else { (0x41, 0x35ff_ffff) };
        let header = if slice == 0 { 1 << 31 | rest >> 1 } else { 2 << 29 | rest >> 3 };
        bytes.extend_from_slice(&[0, 0, 1, kind]);
        bytes.extend_from_slice(&header.to_be_bytes());
        bytes.extend((0..len / 8).map(|n| (n as u64 * 31 + number) as u8 | 1));
    }
    bytes
}

/// An AAC frame in ADTS: LC, 48 kHz, stereo.
fn adts(len: usize) -> Vec<u8> {
    let total = len + 7;
    let mut bytes =
        vec![0xff, 0xf1, 0x4c, 0x80 | (total >> 11) as u8, (total >> 3) as u8, (total << 5) as u8 | 0x1f, 0xfc];
    bytes.resize(total, 0x21);
    bytes
}

/// Makes the datagrams' payloads of each frame: video, audio, metadata.
fn transport_stream() -> impl FnMut(u64) -> Vec<Vec<u8>> {
    let tracks =
        vec![MuxTrack::new(0x100, Codec::H264), MuxTrack::new(0x101, Codec::AacAdts), MuxTrack::new(0x102, Codec::Klv)];
    let mut mux = Mux::new(MuxConfiguration::new(tracks)).unwrap();
    let mut stream = Vec::new();
    move |number| {
        let pts = 900_000 + number * (90_000 / FRAMES_PER_SECOND);
        let random_access = number.is_multiple_of(12);
        mux.write(0, &AccessUnit { pts, dts: pts, random_access, data: &picture(number, FRAME_LEN) }, &mut stream);
        mux.write(1, &AccessUnit { pts, dts: pts, random_access: true, data: &adts(400) }, &mut stream);
        let key = [0x06, 0x0e, 0x2b, 0x34, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 1, 2, 3, 4];
        mux.write(2, &AccessUnit { pts, dts: pts, random_access: true, data: &key }, &mut stream);
        let whole = stream.len() / DATAGRAM_LEN * DATAGRAM_LEN;
        let payloads = stream[..whole].chunks(DATAGRAM_LEN).map(<[u8]>::to_vec).collect();
        stream.drain(..whole);
        payloads
    }
}

fn srt_parameters(now: Instant, role: Role, encryption: Option<Encryption>) -> ConnectionParameters {
    let (socket_id, peer_socket_id) = if role == Role::Receiver { (2, 1) } else { (1, 2) };
    ConnectionParameters {
        interface: 1,
        socket_id,
        peer_socket_id,
        initial_sequence: SequenceNumber::new(1_000),
        encryption,
        ..ConnectionParameters::plain(role, sender_address(), now)
    }
}

fn srt_costs_nothing(cipher: Option<Cipher>, filter: Option<Fec>) {
    let mut bench = Bench::new(PayloadTypes::default());
    let key = derive_key_encrypting_key(b"correct horse", &[1; SALT_LEN], KeyLength::Aes128);
    // No change of keys falls into the time: a new key is an object of the cryptographic library, once in 2²⁴ packets.
    let refresh = KeyRefresh::default();
    let (ours, theirs) = if let Some(cipher) = cipher {
        let (sending, message) = Encryption::initiate(key.clone(), cipher, [1; SALT_LEN], [2; 32], refresh);
        (Encryption::accept(key, &message, [3; 32], refresh), Some(sending))
    } else {
        (None, None)
    };
    let limits = Limits { send_buffer_packets: 8_192, ..Limits::default() };
    let parameters = |role, encryption| ConnectionParameters {
        packet_filter: filter,
        ..srt_parameters(bench.now, role, encryption)
    };
    let sender = Connection::new(bench.now, parameters(Role::Sender, theirs), limits);
    let receiver = Connection::new(bench.now, parameters(Role::Receiver, ours), Limits::default());
    bench.ingest.attach(Protocol::Srt(Box::new(receiver)));
    let pool = PacketPool::new(PoolOptions { slots: 64, slot_size: 2_048, ..PoolOptions::default() }).unwrap();
    let sender = std::cell::RefCell::new(sender);
    let mut stream = transport_stream();
    bench.run(
        3,
        |number, now| {
            let mut sender = sender.borrow_mut();
            let mut datagrams = Vec::new();
            for payload in stream(number) {
                sender.send(now, &payload).unwrap();
                let mut bytes = Vec::new();
                while sender.poll_transmit(now, &mut bytes).is_some() {
                    let bytes = std::mem::take(&mut bytes);
                    // With a filter one packet in 23 is lost, and rebuilt.
                    let is_lost = matches!(packet::parse(&bytes), Ok(Header::Data(header))
                        if header.message_number != 0 && header.sequence.get() % 23 == 0);
                    if filter.is_none() || !is_lost {
                        datagrams.push(bytes);
                    }
                }
            }
            datagrams
        },
        |now, answers| {
            // Only one answer in a turn at most: an acknowledgement, or what goes with a key.
            let mut sender = sender.borrow_mut();
            if !answers.is_empty() {
                let packet = pool.copy_from(answers).unwrap();
                let peer = sender_address();
                sender.receive(now, Datagram { packet, peer, local: None, interface: 1, path: 0, arrival: now });
            }
            sender.handle_timeout(now);
            while sender.poll_event().is_some() {}
        },
    );
    let Some(Protocol::Srt(receiver)) = bench.ingest.protocol() else { unreachable!("it was attached") };
    assert!(!receiver.is_closed());
    assert_eq!(receiver.statistics().pkt_rcv_filter_supply > 100, filter.is_some());
}

#[test]
fn a_packet_of_srt_costs_no_allocation() {
    srt_costs_nothing(None, None);
}

#[test]
fn a_packet_that_a_filter_has_rebuilt_costs_no_allocation() {
    let filter: FilterConfiguration = "fec,cols:10,rows:5,arq:never".parse().unwrap();
    for cipher in [None, Some(Cipher::AesCtr), Some(Cipher::AesGcm)] {
        srt_costs_nothing(cipher, Some(filter.complete().unwrap()));
    }
}

#[test]
fn a_packet_of_encrypted_srt_costs_no_allocation() {
    srt_costs_nothing(Some(Cipher::AesCtr), None);
    srt_costs_nothing(Some(Cipher::AesGcm), None);
}

/// With receiver reports, as a configured stream has them.
fn rtp_source() -> Protocol {
    let reports = ReportOptions {
        ssrc: 1,
        canonical_name: "headworks".into(),
        destination: ReportDestination::Sender,
        session_bandwidth_bps: 50_000_000,
        receivers: 1,
    };
    Protocol::Rtp(Box::new(Source::new(SourceOptions { reports: Some(reports), ..SourceOptions::default() }, 7)))
}

#[test]
fn a_packet_of_a_transport_stream_over_rtp_costs_no_allocation() {
    let mut bench = Bench::new(PayloadTypes::default());
    bench.ingest.attach(rtp_source());
    let mut packetizer = Packetizer::new(9, 33, 65_000);
    let mut stream = transport_stream();
    let packets = |number: u64, _| {
        let timestamp = (number * 3_600) as u32;
        stream(number).iter().map(|payload| [&packetizer.header(timestamp, false), &payload[..]].concat()).collect()
    };
    bench.run(3, packets, |_, _| {});
}

#[test]
fn a_packet_of_a_transport_stream_over_udp_costs_no_allocation() {
    let mut bench = Bench::new(PayloadTypes::default());
    bench.ingest.attach(Protocol::RawTransport(Box::new(RawTransportStream::new(RawOptions::default()))));
    let mut stream = transport_stream();
    bench.run(3, |number, _| stream(number), |_, _| {});
}

#[test]
fn a_packet_of_h264_over_rtp_costs_no_allocation() {
    let mut payload_types = PayloadTypes::default();
    payload_types.set(96, PayloadFormat::new(Encoding::H264));
    let mut bench = Bench::new(payload_types);
    bench.ingest.attach(rtp_source());
    let mut packetizer = Packetizer::new(9, 96, 65_000);
    let packets = |number: u64, _| {
        let timestamp = (number * 3_600) as u32;
        let picture = picture(number, FRAME_LEN);
        let mut payloads = Vec::new();
        for unit in nal_units(&picture) {
            if unit.len() <= DATAGRAM_LEN {
                payloads.push(unit.to_vec());
                continue;
            }
            // FU-A (RFC 6184 §5.8).
            let fragments = unit[1..].chunks(DATAGRAM_LEN - 2);
            let last = fragments.len() - 1;
            for (index, fragment) in fragments.enumerate() {
                let start = if index == 0 { 0x80 } else { 0 };
                let end = if index == last { 0x40 } else { 0 };
                payloads.push([&[unit[0] & 0x60 | 28, start | end | unit[0] & 0x1f], fragment].concat());
            }
        }
        let last = payloads.len() - 1;
        let packet =
            |(index, payload): (usize, Vec<u8>)| [&packetizer.header(timestamp, index == last), &payload[..]].concat();
        payloads.into_iter().enumerate().map(packet).collect()
    };
    bench.run(1, packets, |_, _| {});
}

/// The NAL units between start codes of three bytes, or of four.
fn nal_units(stream: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| w == &[0, 0, 1]).map(|(at, _)| at).collect();
    starts.push(stream.len());
    starts
        .windows(2)
        .map(|pair| {
            let unit = &stream[pair[0] + 3..pair[1]];
            unit.strip_suffix(&[0]).unwrap_or(unit)
        })
        .collect()
}
