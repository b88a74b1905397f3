//! Bursts into a whole appliance, by every way that takes them from sockets, one by one and as aggregates (UDP GRO): a picture of
//! 1.96 MB at once, a socket buffer that is too small for it, and one aggregate with datagrams for several connections.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use headworks::base::Datagram;
use headworks::config::{Config, PacketIo, Stream, StreamRtp};
use headworks::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack};
use headworks::media::Codec;
use headworks::protocol::srt::caller::{self, Caller, CallerEncryption, CallerSettings};
use headworks::protocol::srt::connection::{Connection, Limits};
use headworks::protocol::srt::encryption::{Cipher, KeyLength, KeyRefresh, SALT_LEN, derive_key_encrypting_key};
use headworks::protocol::srt::packet::{SequenceNumber, destination};
use headworks::protocol::srt::stream_id::StreamId;
use headworks::shard::appliance::Appliance;
use headworks::shard::clock::Clock;
use headworks::shard::host::available_cores;
use headworks::shard::net::StoredSockets;
use headworks::shard::net::outbound::{Outbound, OutboundOptions, OutboundSocket};
use headworks::shard::report::{ShardReport, StreamReport};

const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of socket buffer asked for where nothing may be lost. The kernel grants twice that for its own book-keeping, and charges
/// 4.4 MB for a burst of 2.5 MB: room for seven.
const BUFFER: usize = 16 << 20;
/// As of an encoder that does not limit its key pictures.
const IDR_BYTES: usize = 1_960_000;
const RATE_BPS: u64 = 50_000_000;
/// Time between two key pictures, and between two bursts.
const GOP: Duration = Duration::from_millis(400);
const PICTURES: u64 = 10;
const ROUNDS: u64 = 4;

struct Served {
    appliance: Appliance,
    srt: u16,
    rtp: u16,
    root: tempfile::TempDir,
}

fn free_port() -> u16 {
    UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

fn start(packet_io: PacketIo, gro: bool, change: impl FnOnce(&mut Config)) -> Served {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let [srt, rtp] = [free_port(), free_port()];
    let mut config = Config::default();
    config.output.root = root.path().join("rings");
    config.shards.cores = available_cores()[..1].to_vec();
    config.shards.packet_io = packet_io;
    config.shards.gro = gro;
    config.shards.socket_buffer = BUFFER;
    config.ingestion.max_connections = 8;
    config.ingestion.buffer.pool_size = 2;
    config.ingestion.frame.max_frame_size = 4 << 20;
    config.ingestion.srt.port = srt;
    config.ingestion.rtp.enabled = false;
    let of_a_stream = StreamRtp { port: Some(rtp), address: Some([127, 0, 0, 1].into()), ..StreamRtp::default() };
    config.streams.insert("burst".to_owned(), Stream { rtp: Some(of_a_stream), ..Stream::default() });
    change(&mut config);
    let appliance = Appliance::start(config, StoredSockets::default(), |_| {}).unwrap();
    Served { appliance, srt, rtp, root }
}

/// One GOP at [`RATE_BPS`]: an IDR picture of [`IDR_BYTES`], and small pictures after it.
fn write_clip(path: &Path) {
    let mut configuration = MuxConfiguration::new(vec![MuxTrack::new(0x100, Codec::H264)]);
    configuration.rate_bps = Some(RATE_BPS);
    let mut mux = Mux::new(configuration).unwrap();
    let mut bytes = Vec::new();
    let (start, step) = (90_000, GOP.as_millis() as u64 * 90 / PICTURES);
    for picture in 0..PICTURES {
        // Access unit delimiter, parameter sets of a picture of 1280 × 720, a slice whose bytes nobody decodes.
        let mut unit = vec![0, 0, 0, 1, 9, 0xf0];
        let size = if picture == 0 {
            unit.extend([0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec, 0x04, 0x40]);
            unit.extend([0, 0, 0, 1, 0x68, 0xce, 0x38, 0x80]);
            unit.extend([0, 0, 0, 1, 0x65, 0x88]);
            IDR_BYTES
        } else {
            unit.extend([0, 0, 0, 1, 0x41, 0x9a]);
            4_000
        };
        unit.resize(size, 0x5a);
        let dts = start + picture * step;
        mux.write(0, &AccessUnit { pts: dts, dts, random_access: picture == 0, data: &unit }, &mut bytes);
    }
    std::fs::write(path, bytes).unwrap();
}

fn reports(served: &Served) -> Vec<ShardReport> {
    served.appliance.shards().reports(Duration::from_secs(5))
}

fn stream(served: &Served, name: &str) -> Option<StreamReport> {
    reports(served).into_iter().flat_map(|report| report.streams).find(|stream| stream.name == name)
}

/// Sends what `arguments` say; gives the pictures that were begun.
fn send(arguments: &[&str]) -> u64 {
    // The schedule is not what is tested, and the machine may be busy.
    let mut command = Command::new(env!("CARGO_BIN_EXE_headworks"));
    let output = command.args(["send", "--json", "--max-lateness", "20s"]).args(arguments).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(output.status.success(), "{report}");
    report["pes_packets"]["video"].as_u64().unwrap()
}

/// Sends [`ROUNDS`] of the clip, and all that is due within `window` at once; gives the pictures that were begun.
fn send_bursts(served: &Served, to: &str, window: Duration) -> u64 {
    let clip = served.root.path().join("clip.ts");
    write_clip(&clip);
    let (rate, rounds, window) = (RATE_BPS.to_string(), ROUNDS.to_string(), format!("{}ms", window.as_millis()));
    let file = clip.to_str().unwrap();
    send(&["--to", to, "--file", file, "--rate", &rate, "--loops", &rounds, "--window", &window, "--gso", "45"])
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn nothing_of_a_large_picture_is_lost(packet_io: PacketIo, gro: bool) {
    for carrier in ["srt", "rtp"] {
        let served = start(packet_io, gro, |_| {});
        let to = match carrier {
            "srt" => format!("srt://127.0.0.1:{}?streamid=cam&latency=500", served.srt),
            _ => format!("rtp://127.0.0.1:{}", served.rtp),
        };
        let name = if carrier == "srt" { "cam" } else { "burst" };
        // Where the host grants less than is asked for, bursts are as much smaller; past what the test harness keeps to itself, so that
        // nobody takes them for whole pictures.
        let granted = served.appliance.started().receive_buffer.1.min(BUFFER);
        if granted < BUFFER {
            let message = "of socket buffer are granted (net.core.rmem_max): bursts are as much smaller";
            let _ = writeln!(std::io::stderr(), "SMALLER: {granted} of {BUFFER} bytes {message}");
        }
        let window = GOP * granted as u32 / BUFFER as u32;
        let sent = send_bursts(&served, &to, window);
        assert_eq!(sent, PICTURES * ROUNDS);
        // By RTP nothing tells that the last picture is whole: it stays open.
        let whole = sent - u64::from(carrier == "rtp");
        let frames = || stream(&served, name).map_or(0, |stream| stream.tracks[0].statistics.frames);
        wait_until("all frames arrive", || frames() >= whole);
        let stream = stream(&served, name).unwrap();
        let track = &stream.tracks[0].statistics;
        assert_eq!((track.frames, track.keyframes, track.damaged, track.lost), (whole, ROUNDS, 0, 0), "{carrier}");
        assert!(track.bytes > ROUNDS * IDR_BYTES as u64, "{carrier}: {} bytes", track.bytes);
        assert_eq!((stream.ingest.lost, stream.continuity_errors), (0, 0), "{carrier}");
        let counters = reports(&served)[0].counters;
        assert_eq!((counters.dropped_by_kernel, counters.dropped_quota, counters.dropped_truncated), (0, 0, 0));
        assert_eq!(counters.aggregates > 100, gro, "{carrier}: {} aggregates", counters.aggregates);
        assert!(served.appliance.failure().is_none());
        served.appliance.stop();
    }
}

#[test]
fn nothing_of_a_large_picture_is_lost_by_io_uring() {
    nothing_of_a_large_picture_is_lost(PacketIo::Uring, false);
}

#[test]
fn nothing_of_a_large_picture_is_lost_by_io_uring_with_aggregates() {
    nothing_of_a_large_picture_is_lost(PacketIo::Uring, true);
}

#[test]
fn nothing_of_a_large_picture_is_lost_by_recvmmsg() {
    nothing_of_a_large_picture_is_lost(PacketIo::Mmsg, false);
}

#[test]
fn nothing_of_a_large_picture_is_lost_by_recvmmsg_with_aggregates() {
    nothing_of_a_large_picture_is_lost(PacketIo::Mmsg, true);
}

/// Packets of 100 ms at 50 Mbit/s, and some.
const LAST_BURST: u64 = 500;

/// 64 KiB hold a few dozen datagrams, and bursts of 100 ms have 475. A stream with a socket of its own does not notice.
fn what_a_small_socket_buffer_loses_is_counted_and_marked(packet_io: PacketIo, gro: bool) {
    let served = start(packet_io, gro, |config| config.shards.socket_buffer = 64 << 10);
    let (burst, other) =
        (format!("rtp://127.0.0.1:{}", served.rtp), format!("srt://127.0.0.1:{}?streamid=cam&latency=500", served.srt));
    let sent = std::thread::scope(|threads| {
        let steady = threads.spawn(|| send(&["--to", &other, "--rate", "2M", "--duration", "2500ms"]));
        send(&["--to", &burst, "--rate", "50M", "--duration", "2500ms", "--window", "100ms", "--gso", "45"]);
        steady.join().unwrap()
    });
    let whole = || stream(&served, "cam").map_or(0, |stream| stream.tracks[0].statistics.frames);
    wait_until("the other stream's frames arrive", || whole() >= sent);
    let cam = stream(&served, "cam").unwrap();
    let track = &cam.tracks[0].statistics;
    assert_eq!((track.frames, track.damaged, track.lost, cam.ingest.lost), (sent, 0, 0, 0));

    let counters = reports(&served)[0].counters;
    let burst = stream(&served, "burst").unwrap();
    let track = &burst.tracks[0].statistics;
    // Of what was dropped of the last burst no packet tells that came after it.
    let told = burst.ingest.lost + LAST_BURST;
    assert!(counters.dropped_by_kernel > 0 && told >= counters.dropped_by_kernel, "{told} of {counters:?}");
    // What came of pictures is published, and says that it is not whole.
    assert!(track.damaged > 0 && track.damaged <= track.frames, "{track:?}");
    assert!(served.appliance.failure().is_none());
    served.appliance.stop();
}

#[test]
fn what_a_small_socket_buffer_loses_is_counted_and_marked_one_by_one_and_as_aggregates() {
    for packet_io in [PacketIo::Uring, PacketIo::Mmsg] {
        for gro in [false, true] {
            what_a_small_socket_buffer_loses_is_counted_and_marked(packet_io, gro);
        }
    }
}

/// SRT callers behind one port, as a device has that sends several streams.
struct Callers {
    out: Outbound,
    socket: usize,
    calls: Vec<(u32, Caller, Option<Connection>)>,
}

impl Callers {
    fn connected(peer: SocketAddr, count: u32) -> Self {
        let mut out = Outbound::new(OutboundOptions { slots: 256, credit: 64, aggregates: true }).unwrap();
        let (socket, _) = out.open(&OutboundSocket::to(peer)).unwrap();
        let call = |number: u32| {
            let salt = [number as u8; SALT_LEN];
            let settings = CallerSettings {
                stream_id: StreamId::new(&format!("cam{number}")).unwrap(),
                send_latency_ms: 500,
                encryption: Some(CallerEncryption {
                    cipher: Cipher::AesCtr,
                    key_encrypting_key: derive_key_encrypting_key(PASSPHRASE.as_bytes(), &salt, KeyLength::Aes128),
                    salt,
                    key_seed: [number as u8; 32],
                    key_refresh: KeyRefresh::default(),
                }),
                timeout: PATIENCE,
                ..CallerSettings::new(peer, 1_000 + number, SequenceNumber::new(u64::from(number)))
            };
            (settings.socket_id, Caller::new(Clock::now(), settings), None)
        };
        let mut callers = Self { out, socket, calls: (0..count).map(call).collect() };
        let began = Instant::now();
        while callers.calls.iter().any(|(_, _, connection)| connection.is_none()) {
            assert!(began.elapsed() < PATIENCE, "not all are connected");
            callers.turn(peer);
        }
        callers
    }

    /// Handshakes, acknowledgements and repetitions.
    fn turn(&mut self, peer: SocketAddr) {
        let now = Clock::now();
        let mut buffer = Vec::new();
        for (_, call, connection) in &mut self.calls {
            match connection {
                Some(connection) => {
                    if connection.next_timeout().is_some_and(|at| at <= now) {
                        connection.handle_timeout(now);
                    }
                    while connection.poll_transmit(now, &mut buffer).is_some() {
                        self.out.send(self.socket, &buffer);
                        buffer.clear();
                    }
                }
                None => {
                    if call.next_timeout().is_some_and(|at| at <= now) {
                        call.handle_timeout(now);
                    }
                    while call.poll_transmit(now, &mut buffer).is_some() {
                        self.out.send(self.socket, &buffer);
                        buffer.clear();
                    }
                    if let Some(caller::Event::Connected(parameters)) = call.poll_event() {
                        let limits = Limits { send_buffer_packets: 4_096, ..Limits::default() };
                        *connection = Some(Connection::new(now, *parameters, limits));
                    }
                }
            }
        }
        self.out.wait(now, now + Duration::from_millis(5), true).unwrap();
        let calls = &mut self.calls;
        self.out
            .drain(|incoming| {
                let id = destination(&incoming.packet);
                let Some((_, call, connection)) = calls.iter_mut().find(|call| Some(call.0) == id) else { return };
                let now = Clock::now();
                match connection {
                    None => call.receive(now, peer, &incoming.packet),
                    Some(connection) => {
                        let packet = incoming.packet;
                        let datagram = Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: now };
                        connection.receive(now, datagram);
                    }
                }
            })
            .unwrap();
    }

    /// One aggregate with `rounds` packets of each connection, in turns.
    fn send_aggregate(&mut self, rounds: usize, payload: &[u8]) {
        let now = Clock::now();
        let (mut all, mut buffer) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for connection in self.calls.iter_mut().filter_map(|(_, _, connection)| connection.as_mut()) {
                connection.send(now, payload).unwrap();
                while connection.poll_transmit(now, &mut buffer).is_some() {
                    match buffer.len() == SEGMENT {
                        true => all.extend_from_slice(&buffer),
                        false => self.out.send(self.socket, &buffer),
                    }
                    buffer.clear();
                }
            }
        }
        self.out.send_aggregate(self.socket, SEGMENT as u16, &all);
    }
}

const PASSPHRASE: &str = "in one aggregate";
/// An SRT header and seven transport packets.
const SEGMENT: usize = 16 + 7 * 188;

/// Each of its datagrams is for another connection than the one before it; one shard gets them all, because the kernel steers an
/// aggregate by its first.
fn datagrams_for_several_connections_in_one_aggregate_find_their_own(packet_io: PacketIo, shards: usize) {
    const CALLERS: u32 = 4;
    const AGGREGATES: usize = 20;
    let served = start(packet_io, true, |config| {
        // They share cores if there are fewer.
        config.shards.cores = available_cores().into_iter().cycle().take(shards).collect();
        config.ingestion.srt.passphrase = Some(PASSPHRASE.to_owned());
    });
    let peer = SocketAddr::from(([127, 0, 0, 1], served.srt));
    let mut callers = Callers::connected(peer, CALLERS);
    let null_packet: Vec<u8> = [0x47, 0x1f, 0xff, 0x10].into_iter().chain([0xff; 184]).collect();
    let payload = null_packet.repeat(7);
    // Well filled, to be shared, and ill filled, to be copied apart.
    for rounds in [10, 2].repeat(AGGREGATES / 2) {
        callers.send_aggregate(rounds, &payload);
        callers.turn(peer);
    }
    let packets = AGGREGATES as u64 / 2 * 12;
    let names: Vec<String> = (0..CALLERS).map(|number| format!("cam{number}")).collect();
    let taken = || names.iter().filter_map(|name| stream(&served, name)).map(|stream| stream.ingest.payloads).min();
    wait_until("all payloads arrive", || {
        callers.turn(peer);
        taken() >= Some(packets)
    });
    let reports = reports(&served);
    for report in &reports {
        for stream in &report.streams {
            let srt = stream.srt.unwrap();
            assert_eq!((stream.ingest.payloads, stream.ingest.lost, srt.pkt_rcv_undecrypt), (packets, 0, 0));
        }
    }
    let sum = |count: fn(&ShardReport) -> u64| reports.iter().map(count).sum::<u64>();
    assert!(sum(|report| report.counters.aggregates) >= AGGREGATES as u64);
    assert!(sum(|report| report.counters.aggregates_copied) >= AGGREGATES as u64 / 2 * 8);
    let owners = reports.iter().filter(|report| !report.streams.is_empty()).count();
    assert_eq!(owners, shards, "callers are spread over the shards");
    assert_eq!(sum(|report| report.counters.handed_over) > 0, shards > 1);
    served.appliance.stop();
}

#[test]
fn datagrams_for_several_connections_in_one_aggregate_find_their_own_by_io_uring() {
    for shards in [1, 2, 4] {
        datagrams_for_several_connections_in_one_aggregate_find_their_own(PacketIo::Uring, shards);
    }
}

#[test]
fn datagrams_for_several_connections_in_one_aggregate_find_their_own_by_recvmmsg() {
    for shards in [1, 2, 4] {
        datagrams_for_several_connections_in_one_aggregate_find_their_own(PacketIo::Mmsg, shards);
    }
}
