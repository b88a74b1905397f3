//! Instructions per packet of the parts that touch no socket and no clock, counted by valgrind: the same number on a busy machine.
//!
//! `cargo bench --bench counted [-- --check | --accept]`
//!
//! Each part runs twice as a process of its own, with so many packets and with twice as many: what the second one executes more is
//! what the packets cost, whatever starting costs. `--check` compares with `accepted.txt` and exits with 1 when a part has come to
//! cost more than 15 % more, or has no accepted figure; `--accept` writes the file anew. The same sources do not make the same
//! instructions: where the compiler cuts them into units depends on names and paths, and the demultiplexer alone has been seen to
//! take 437, 456 and 499. With a compiler that is not the file's, 25 % are allowed. valgrind shows each x86-64 processor that has
//! them the vector instructions up to AVX2 and none beyond, so that the processor matters little.

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, fs};

use arrayvec::ArrayVec;
use headworks::base::{Datagram, Instant, PacketPool, PoolOptions};
use headworks::codec::h264::H264Framer;
use headworks::codec::{Framer, Step};
use headworks::container::mpegts::{AccessUnit, Demux, Limits as DemuxLimits, Mux, MuxConfiguration, MuxTrack};
use headworks::media::{Codec, TrackConfiguration};
use headworks::pipeline::frame::{Frame, FrameSink, FrameTooLarge, SinkIndex, StreamSink, TrackDescription};
use headworks::pipeline::ingest::{Ingest, Protocol};
use headworks::protocol::rtp::PayloadTypes;
use headworks::protocol::rtp::raw_ts::{RawOptions, RawTransportStream};
use headworks::protocol::srt::connection::{Connection, Limits};
use headworks::protocol::srt::packet::SequenceNumber;
use headworks::protocol::srt::parameters::{ConnectionParameters, Role};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::layout::TrackKind;

const PARTS: [(&str, &str); 5] = [
    ("srt-receive", "SRT: window, receive buffer, payload out again, acknowledgements"),
    ("ts-demux", "MPEG-TS: datagram to pieces of PES packets"),
    ("h264-assembly", "H.264: pieces of PES packets to access units"),
    ("frame-assembly", "both, with times and statistics: datagram to frames, into a sink that drops them"),
    ("ring-commit", "frame ring: a datagram's payload copied in, a commit every 190"),
];
/// Datagrams of the shorter run.
const PACKETS: usize = 4_000;
/// Seven transport packets.
const DATAGRAM_LEN: usize = 1_316;
/// Of a transport packet.
const PAYLOAD_LEN: usize = 184;
/// Of a picture at 50 Mbit/s and 25 a second.
const FRAME_LEN: usize = 250_000;
const ACCEPTED: &str = "benches/counted/accepted.txt";
/// More than this is a change for the worse.
const TOLERANCE: f64 = 1.15;
/// The same where another compiler made the accepted figures.
const TOLERANCE_OTHER_COMPILER: f64 = 1.25;
const COMPILER: &str = "compiler";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", part, packets] => {
            run(part, packets.parse().expect("a number of packets"));
            ExitCode::SUCCESS
        }
        [] => count(None),
        ["--check"] => count(Some(Compare::Check)),
        ["--accept"] => count(Some(Compare::Accept)),
        _ => {
            eprintln!("counted [--check | --accept]");
            ExitCode::from(2)
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Compare {
    Check,
    Accept,
}

fn count(compare: Option<Compare>) -> ExitCode {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(ACCEPTED);
    let accepted = fs::read_to_string(&file).unwrap_or_default();
    let before = |name: &str| accepted.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let compiler = compiler();
    let is_same_compiler = before(COMPILER) == Some(compiler.as_str());
    let tolerance = if is_same_compiler { TOLERANCE } else { TOLERANCE_OTHER_COMPILER };
    let mut text = format!("# instructions per datagram of {DATAGRAM_LEN} bytes\n{COMPILER} {compiler}\n");
    let mut faults = Vec::new();
    println!("{:<16} {:>12} {:>10} {:>7}", "part", "instructions", "accepted", "ratio");
    for (part, about) in PARTS {
        let counted = instructions(part, PACKETS).and_then(|short| Ok((short, instructions(part, 2 * PACKETS)?)));
        let (short, long) = match counted {
            Ok(counted) => counted,
            Err(error) => {
                eprintln!("{part}: {error}");
                return ExitCode::FAILURE;
            }
        };
        let each = long.saturating_sub(short) as f64 / PACKETS as f64;
        let accepted: Option<f64> = before(part).and_then(|figure| figure.parse().ok());
        match accepted {
            None => faults.push(format!("{part} has no accepted figure")),
            Some(accepted) if each > accepted * tolerance => {
                faults.push(format!("{part} takes {each:.0} instructions, accepted were {accepted:.0}"));
            }
            Some(_) => {}
        }
        let ratio = accepted.map(|accepted| each / accepted);
        let shown =
            |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
        println!("{part:<16} {each:>12.0} {:>10} {:>7}  {about}", shown(accepted, 0), shown(ratio, 3));
        text.push_str(&format!("{part} {each:.0}\n"));
    }
    if compare == Some(Compare::Accept) {
        return match fs::write(&file, text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                ExitCode::FAILURE
            }
        };
    }
    if !is_same_compiler {
        println!(
            "accepted figures are of {}, these of {compiler}: {tolerance} is allowed",
            before(COMPILER).unwrap_or("no compiler")
        );
    }
    for fault in &faults {
        println!("{fault} (if that is worth it: cargo bench --bench counted -- --accept)");
    }
    if compare == Some(Compare::Check) && !faults.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The compiler that cargo runs, in its own words.
fn compiler() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    output.map_or("an unknown compiler".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a part executes with so many packets.
fn instructions(part: &str, packets: usize) -> Result<u64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["run", part, &packets.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error} (apt-get install valgrind)"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected =
        said.lines().find(|line| line.contains("Collected :")).and_then(|line| line.rsplit(' ').next()?.parse().ok());
    collected.filter(|_| output.status.success()).ok_or_else(|| format!("it failed under valgrind:\n{said}"))
}

fn run(part: &str, packets: usize) {
    match part {
        "srt-receive" => srt_receive(packets),
        "ts-demux" => ts_demux(packets),
        "h264-assembly" => h264_assembly(packets),
        "frame-assembly" => frame_assembly(packets),
        "ring-commit" => ring_commit(packets),
        other => panic!("no part named {other}"),
    }
}

/// Access unit delimiter and a slice, without another start code.
fn picture() -> Vec<u8> {
    let mut picture = vec![0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x41, 0x88, 0x84];
    picture.extend((0..FRAME_LEN).map(|place| (place as u64 * 31) as u8 | 1));
    picture
}

/// Pictures in transport packets, whole datagrams of them; the first goes on where the last has ended.
fn stream() -> Vec<u8> {
    let picture = picture();
    let mut mux = Mux::new(MuxConfiguration::new(vec![MuxTrack::new(0x100, Codec::H264)])).expect("a track");
    let mut bytes = Vec::new();
    // Continuity counters have come round when 16 pictures of the same length have.
    for number in 0..16 {
        let time = 90_000 + number * 3_600;
        mux.write(0, &AccessUnit { pts: time, dts: time, random_access: false, data: &picture }, &mut bytes);
    }
    bytes.truncate(bytes.len() / DATAGRAM_LEN * DATAGRAM_LEN);
    bytes
}

fn sender_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 40_000))
}

fn datagram(pool: &PacketPool, bytes: &[u8], now: Instant) -> Datagram {
    let packet = pool.copy_from(bytes).expect("a free slot");
    Datagram { packet, peer: sender_address(), local: None, interface: 1, path: 0, arrival: now }
}

fn pool() -> PacketPool {
    PacketPool::new(PoolOptions { slots: 64, ..PoolOptions::default() }).expect("packet memory")
}

fn srt_receive(packets: usize) {
    let parameters = |now: Instant, role| ConnectionParameters {
        interface: 1,
        socket_id: if role == Role::Receiver { 2 } else { 1 },
        peer_socket_id: if role == Role::Receiver { 1 } else { 2 },
        initial_sequence: SequenceNumber::new(1_000),
        ..ConnectionParameters::plain(role, sender_address(), now)
    };
    let (pool, mut now) = (pool(), Instant::from_millis(1_000));
    let limits = Limits { send_buffer_packets: 8_192, ..Limits::default() };
    let mut sender = Connection::new(now, parameters(now, Role::Sender), limits);
    // What the sender makes is made before, so that both runs make the same.
    let mut datagrams = Vec::new();
    for _ in 0..8_000 {
        now += Duration::from_micros(210);
        sender.send(now, &[0x5a; DATAGRAM_LEN]).expect("there is room");
        let mut bytes = Vec::new();
        sender.poll_transmit(now, &mut bytes).expect("it goes out at once");
        datagrams.push((now, bytes));
    }
    let start = Instant::from_millis(1_000);
    let mut receiver = Connection::new(start, parameters(start, Role::Receiver), Limits::default());
    let mut answers = Vec::with_capacity(2_048);
    for (now, bytes) in &datagrams[..packets] {
        receiver.receive(*now, datagram(&pool, bytes, *now));
        receiver.handle_timeout(*now);
        while let Some(payload) = receiver.poll_payload_early(*now) {
            black_box(payload.sequence);
        }
        answers.clear();
        while receiver.poll_transmit(*now, &mut answers).is_some() {}
    }
    assert_eq!(receiver.statistics().pkt_delivered, packets as u64);
}

fn ts_demux(packets: usize) {
    let stream = stream();
    let mut demux = Demux::new(DemuxLimits::default());
    for bytes in stream.chunks(DATAGRAM_LEN).cycle().take(packets) {
        let mut at = 0;
        loop {
            if let Some(run) = demux.plain_run(&bytes[at..]) {
                at += demux.accept_run(&run);
                continue;
            }
            let mut rest = &bytes[at..];
            let event = demux.push(&mut rest).is_some();
            at = bytes.len() - rest.len();
            if !black_box(event) {
                break;
            }
        }
    }
}

fn h264_assembly(packets: usize) {
    let picture = picture();
    let mut framer = H264Framer::new();
    let (mut at, mut pictures) = (0, 0);
    for _ in 0..packets {
        // Seven transport packets of payload, cut as the demultiplexer cuts them.
        let bytes = &picture[at..picture.len().min(at + 7 * PAYLOAD_LEN)];
        at = if at + bytes.len() == picture.len() { 0 } else { at + bytes.len() };
        let pieces: ArrayVec<&[u8], 7> = bytes.chunks(PAYLOAD_LEN).collect();
        if framer.pass(bytes, &pieces) {
            black_box(&pieces);
            continue;
        }
        for mut rest in pieces {
            while let Some(step) = framer.step(&mut rest) {
                pictures += usize::from(matches!(black_box(step), Step::End(_)));
            }
        }
    }
    assert!(pictures >= packets / 200, "{pictures} pictures of {packets} packets");
}

struct Nowhere;

impl StreamSink for Nowhere {
    type Track<'a> = &'a mut Self;

    fn open(&mut self, _: &TrackDescription) -> SinkIndex {
        SinkIndex(0)
    }

    fn is_opening(&self) -> bool {
        false
    }

    fn track(&mut self, _: SinkIndex) -> &mut Self {
        self
    }

    fn end(&mut self, _: SinkIndex) {}
}

impl FrameSink for &mut Nowhere {
    fn append(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        black_box(bytes);
        Ok(())
    }

    fn commit(&mut self, _: Instant, frame: &Frame) {
        black_box(frame.pts);
    }

    fn abandon(&mut self) {}

    fn configure(&mut self, _: &TrackConfiguration) {}
}

fn frame_assembly(packets: usize) {
    let (stream, pool, mut now) = (stream(), pool(), Instant::from_millis(1_000));
    let mut ingest = Ingest::new(PayloadTypes::default());
    ingest.attach(Protocol::RawTransport(Box::new(RawTransportStream::new(RawOptions::default()))));
    for bytes in stream.chunks(DATAGRAM_LEN).cycle().take(packets) {
        now += Duration::from_micros(210);
        ingest.receive(now, datagram(&pool, bytes, now));
        ingest.deliver(now, &mut Nowhere);
    }
    assert_eq!(ingest.statistics().payloads, packets as u64);
}

fn ring_commit(packets: usize) {
    let directory = env::temp_dir().join(format!("headworks-counted-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let mut bell = BellWriter::create(&directory).expect("a bell");
    let spec = RingSpec {
        kind: TrackKind::Video,
        codec: *b"h264",
        clock_rate: 90_000,
        data_capacity: 4 << 20,
        slot_count: 256,
        frame_size_max: 1 << 20,
        numa_node: None,
        crc: false,
    };
    let mut writer = builder::create(&directory.join("video0"), &spec).expect("a ring");
    let bytes = [0x5a; DATAGRAM_LEN];
    let pieces: Vec<&[u8]> = bytes.chunks(188).map(|packet| &packet[4..]).collect();
    for packet in 1..=packets {
        writer.append_all(&pieces).expect("room");
        if packet.is_multiple_of(190) {
            writer.commit(&FrameDescriptor::default(), &mut bell);
        }
    }
    drop((writer, bell));
    let _ = fs::remove_dir_all(&directory);
}
