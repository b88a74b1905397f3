//! libsrt's packet filter between libsrt's own tool and ours, over a network that loses packets.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headworks::protocol::srt::fec::configuration::FilterConfiguration;
use headworks::protocol::srt::packet::{self, Header};

use crate::appliance::{Appliance, signal};
use crate::clips;
use crate::loss::{long_clip, number, statistics};
use crate::operation::Process;
use crate::relay::Relay;
use crate::senders::{DATAGRAM, SrtSender};
use crate::sim_filter::known;

/// The filter of these tests: fifty packets are some 90 ms of the clip.
const FILTER: &str = "fec,cols:10,rows:5";
const LATENCY_MS: u32 = 500;
const PASSPHRASE: &str = "known to everybody";

/// A port between the network and a listener that keeps note of the data packets that the network let through.
struct Note {
    port: u16,
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<()>; 2],
    datagrams: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Note {
    fn start(to: u16) -> Self {
        let outer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inner = UdpSocket::bind("127.0.0.1:0").unwrap();
        inner.connect(("127.0.0.1", to)).unwrap();
        for socket in [&outer, &inner] {
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, 8 << 20);
        }
        let port = outer.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let datagrams: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let caller: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let there = {
            let (outer, inner) = (outer.try_clone().unwrap(), inner.try_clone().unwrap());
            let (stop, datagrams, caller) = (Arc::clone(&stop), Arc::clone(&datagrams), Arc::clone(&caller));
            std::thread::spawn(move || {
                let mut buffer = [0; 2_048];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((len, from)) = outer.recv_from(&mut buffer) {
                        *caller.lock().unwrap() = Some(from);
                        // The listener may be gone already.
                        let _ = inner.send(&buffer[..len]);
                        datagrams.lock().unwrap().push(buffer[..len].to_vec());
                    }
                }
            })
        };
        let back = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut buffer = [0; 2_048];
                while !stop.load(Ordering::Relaxed) {
                    let caller = *caller.lock().unwrap();
                    if let (Ok(len), Some(caller)) = (inner.recv(&mut buffer), caller) {
                        outer.send_to(&buffer[..len], caller).expect("sent back");
                    }
                }
            })
        };
        Self { port, stop, threads: [there, back], datagrams }
    }

    /// Data packets and control packets of the filter, counted from the first of the connection; of the latter the index.
    fn finish(self) -> Vec<(u64, Option<u8>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        let datagrams = self.datagrams.lock().unwrap();
        // The first sequence number stands in every handshake.
        let first = datagrams.iter().find(|it| it[..2] == [0x80, 0]).expect("a handshake");
        let first = packet::SequenceNumber::new(u64::from(u32::from_be_bytes(first[24..28].try_into().unwrap())));
        let data = |bytes: &Vec<u8>| match packet::parse(bytes) {
            Ok(Header::Data(header)) => Some((
                u64::try_from(header.sequence.distance(first)).expect("a number of this connection"),
                (header.message_number == 0).then(|| bytes[packet::HEADER_LEN]),
            )),
            _ => None,
        };
        datagrams.iter().filter_map(data).collect()
    }
}

/// What came over the network, and what the filter makes of it: how many are lost for good up to the last that is known, but for the last
/// `held` of those: a receiver that waits for their time does not yet give up what is missing before them.
fn judge(arrivals: &[(u64, Option<u8>)], held: u64) -> (usize, usize) {
    let fec = FILTER.parse::<FilterConfiguration>().unwrap().complete().unwrap();
    let known = known(&fec, arrivals);
    let came: BTreeSet<u64> = arrivals.iter().filter(|(_, index)| index.is_none()).map(|(offset, _)| *offset).collect();
    assert!(arrivals.iter().any(|(_, index)| index.is_some()), "no control packet came");
    let (rebuilt, handed_up) = (known.len() - came.len(), known.len() - held as usize);
    let last = *known.iter().nth(handed_up - 1).expect("something") as usize;
    (rebuilt, last + 1 - handed_up)
}

/// libsrt's tool sends the clip with nothing sent again; every frame that can be rebuilt must be there.
fn srt_live_transmit_with_arq_never(appliance: &Appliance, stream: &str, asked: &str, more: &str, seed: u32) {
    let clip = long_clip();
    let note = Note::start(appliance.ports.srt);
    let relay = Relay::start(note.port, &format!("--delay 5ms --loss 1% --seed {seed}"));
    let tap = appliance.tap(stream);
    let mut sender = SrtSender::with_latency(relay.port, LATENCY_MS, &format!("streamid={stream}{asked}{more}"));
    sender.wait_for_connection();
    sender.send(&clip.bytes);
    sender.finish();
    let told = statistics(appliance, stream);
    // The tool sends the last pieces of its input when it ends; a session that has ended holds none.
    let held = told.pointer("/stats/srt/pktRcvBuf").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let (rebuilt, lost) = judge(&note.finish(), held);
    assert!(number(&relay.finish(), "/forward/lost_random") > 30);
    println!("{stream}: {rebuilt} rebuilt, {lost} lost for good");
    assert!(rebuilt > 30, "{stream}: {rebuilt}");
    assert!(number(&told, "/stats/packets_recovered") >= rebuilt as u64, "{told}");
    assert_eq!(number(&told, "/stats/packets_lost"), lost as u64, "{told}");
    let expected = clip.reference.packet_count();
    if lost == 0 {
        clip.reference.compare(&format!("srt-live-transmit as {stream}"), &tap.wait_for(expected));
        return;
    }
    // A packet has bytes of three frames at most, and its loss leaves the end of the one before in doubt.
    let whole = tap.wait_for(expected - 4 * lost).iter().filter(|frame| !frame.damaged).count();
    assert!(whole + 4 * lost >= expected, "{stream}: {whole} whole frames of {expected}, {lost} packets lost");
}

/// The same, with that sent again which the filter gives up; every frame must be there.
fn srt_live_transmit_with_arq_onreq(appliance: &Appliance, stream: &str, more: &str) {
    let clip = long_clip();
    let relay = Relay::start(appliance.ports.srt, "--delay 5ms --loss 1% --seed 7");
    let tap = appliance.tap(stream);
    let query = format!("streamid={stream}&packetfilter={FILTER},arq:onreq{more}");
    let mut sender = SrtSender::with_latency(relay.port, LATENCY_MS, &query);
    sender.wait_for_connection();
    sender.send(&clip.bytes);
    sender.finish();
    let frames = tap.wait_for(clip.reference.packet_count());
    clip.reference.compare(&format!("srt-live-transmit as {stream}"), &frames);
    let told = statistics(appliance, stream);
    // A loss report goes out once: at this rate none of the few is lost with what it asks for.
    assert!(number(&told, "/stats/packets_recovered") > 30, "{told}");
}

/// `headworks send` sends the clip with what the appliance insists on, and knows nothing of it before.
fn headworks_send_takes_what_the_listener_has(appliance: &Appliance, stream: &str) {
    let clip = long_clip();
    let relay = Relay::start(appliance.ports.srt, "--delay 5ms --loss 1% --seed 9");
    let tap = appliance.tap(stream);
    let mut sender = Process::start(
        Command::new(env!("CARGO_BIN_EXE_headworks"))
            .args(["send", "--latency", "500ms", "--file"])
            .arg(clips::directory().join("long.ts"))
            .args(["--to", &format!("srt://127.0.0.1:{}?streamid={stream}", relay.port)]),
    );
    sender.wait();
    let frames = tap.wait_for(clip.reference.packet_count());
    clip.reference.compare(&format!("headworks send as {stream}"), &frames);
    assert!(number(&statistics(appliance, stream), "/stats/packets_recovered") > 30);
}

#[test]
fn libsrts_filter_rebuilds_every_frame_of_libsrts_tool_that_can_be_rebuilt() {
    long_clip();
    let appliance = Appliance::start(&[
        "ingestion.max_connections=16",
        &format!("streams.never-encrypted.passphrase={PASSPHRASE}"),
        &format!("streams.onreq-encrypted.passphrase={PASSPHRASE}"),
        &format!("streams.insisted.packet_filter={FILTER},arq:never"),
        &format!("streams.own.packet_filter={FILTER},arq:onreq"),
    ]);
    let never = format!("&packetfilter={FILTER},arq:never");
    let encrypted = format!("&passphrase={PASSPHRASE}&pbkeylen=16");
    std::thread::scope(|scope| {
        let (appliance, never, encrypted) = (&appliance, &never, &encrypted);
        scope.spawn(move || srt_live_transmit_with_arq_never(appliance, "never", never, "", 3));
        scope.spawn(move || srt_live_transmit_with_arq_never(appliance, "never-encrypted", never, encrypted, 4));
        // libsrt takes what it is answered with.
        scope.spawn(move || srt_live_transmit_with_arq_never(appliance, "insisted", "", "", 5));
        scope.spawn(move || srt_live_transmit_with_arq_onreq(appliance, "onreq", ""));
        scope.spawn(move || srt_live_transmit_with_arq_onreq(appliance, "onreq-encrypted", encrypted));
        scope.spawn(move || headworks_send_takes_what_the_listener_has(appliance, "own"));
    });
    let log = appliance.log();
    for stream in ["never", "never-encrypted", "insisted"] {
        let agreed = "packet filter fec,arq:never,cols:10,layout:staircase,rows:5";
        let is_told = |line: &str| line.contains(agreed) && line.contains(&format!("\"{stream}\""));
        assert!(log.lines().any(is_told), "{stream}: {log}");
    }
}

#[test]
fn filters_that_do_not_go_together_are_refused_by_both() {
    let appliance = Appliance::start(&[&format!("ingestion.srt.packet_filter={FILTER}")]);
    let sender = SrtSender::start(appliance.ports.srt, "streamid=cam1&packetfilter=fec,cols:8");
    let said = sender.refused();
    appliance.wait_for_log("FILTER (14)", Duration::from_secs(5));
    assert!(!said.contains("SRT target connected"), "{said}");
}

/// libsrt's tool receives what `headworks send` sends, and writes it into a file.
fn srt_live_transmit_receives(name: &str, more_there: &str, more_here: &str) {
    let clip = long_clip();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = clips::directory().join(format!("filter-{name}.ts"));
    let mut receiver = Command::new("srt-live-transmit")
        .args(["-a:no", "-chunk:1316"])
        .arg(format!("srt://127.0.0.1:{port}?mode=listener&latency={LATENCY_MS}&packetfilter=fec{more_there}"))
        .arg("file://con")
        .stdin(Stdio::null())
        .stdout(File::create(&path).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .expect("srt-live-transmit is installed");
    let note = Note::start(port);
    let relay = Relay::start(note.port, "--delay 5ms --loss 1% --seed 3");
    let mut sender = Process::start(
        Command::new(env!("CARGO_BIN_EXE_headworks"))
            .args(["send", "--latency", "500ms", "--packetfilter", &format!("{FILTER},arq:never"), "--file"])
            .arg(clips::directory().join("long.ts"))
            .args(["--to", &format!("srt://127.0.0.1:{}{more_here}", relay.port)]),
    );
    sender.wait();
    let began = Instant::now();
    while std::fs::metadata(&path).unwrap().len() < clip.bytes.len() as u64 && began.elapsed() < Duration::from_secs(3)
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&receiver, "TERM");
    let _ = receiver.wait();
    let (rebuilt, lost) = judge(&note.finish(), 0);
    assert!(number(&relay.finish(), "/forward/lost_random") > 30);
    println!("{name}: {rebuilt} rebuilt, {lost} lost for good");
    assert!(rebuilt > 30, "{name}: {rebuilt}");
    let received = std::fs::read(&path).unwrap();
    // Whole datagrams, all but those that nothing could bring back.
    let sent: BTreeSet<&[u8]> = clip.bytes.chunks(DATAGRAM).collect();
    assert!(received.chunks(DATAGRAM).all(|datagram| sent.contains(datagram)), "{name}: bytes that nobody sent");
    assert!(received.len() + lost * DATAGRAM >= clip.bytes.len(), "{name}: {} of {}", received.len(), clip.bytes.len());
    assert!(lost > 0 || received == clip.bytes, "{name}: other bytes");
}

#[test]
fn libsrts_tool_rebuilds_what_headworks_send_lost() {
    long_clip();
    let encrypted = format!("&passphrase={PASSPHRASE}");
    std::thread::scope(|scope| {
        scope.spawn(|| srt_live_transmit_receives("plain", "", ""));
        scope.spawn(|| srt_live_transmit_receives("encrypted", &encrypted, &format!("?{}", &encrypted[1..])));
    });
}
