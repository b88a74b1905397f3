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

use crate::appliance::{Appliance, free_ports, signal};
use crate::clips;
use crate::loss::{long_clip, number, statistics};
use crate::matrix::wire::{Kind, Road, Wire};
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
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::between(any, any, SocketAddr::from(([127, 0, 0, 1], to)))
    }

    /// From one address to another, which knows us by the one between them.
    fn between(outer: SocketAddr, inner: SocketAddr, to: SocketAddr) -> Self {
        let [outer, inner] = [outer, inner].map(|address| UdpSocket::bind(address).unwrap());
        inner.connect(to).unwrap();
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

/// What came over the network, and what the filter makes of it: how many are lost for good up to the last that is known.
fn judge(arrivals: &[(u64, Option<u8>)]) -> (usize, usize) {
    let fec = FILTER.parse::<FilterConfiguration>().unwrap().complete().unwrap();
    let known = known(&fec, arrivals);
    let came: BTreeSet<u64> = arrivals.iter().filter(|(_, index)| index.is_none()).map(|(offset, _)| *offset).collect();
    assert!(arrivals.iter().any(|(_, index)| index.is_some()), "no control packet came");
    (known.len() - came.len(), *known.last().expect("something") as usize + 1 - known.len())
}

/// libsrt's tool calls, and sends the clip with nothing sent again.
fn srt_live_transmit_with_arq_never(appliance: &Appliance, stream: &str, asked: &str, more: &str, seed: u32) {
    let note = Note::start(appliance.ports.srt);
    let relay = Relay::start(note.port, &format!("--delay 5ms --loss 1% --seed {seed}"));
    let sender = SrtSender::with_latency(relay.port, LATENCY_MS, &format!("streamid={stream}{asked}{more}"));
    everything_is_rebuilt_that_can_be(appliance, stream, sender, note);
    assert!(number(&relay.finish(), "/forward/lost_random") > 30);
}

/// Where the appliance, both sides of the note, both of the network and the peer meet.
fn places_in_rendezvous() -> [SocketAddr; 6] {
    let [port] = free_ports();
    [1, 2, 3, 4, 5, 6].map(|host| SocketAddr::from(([127, 0, 0, host], port)))
}

/// It meets the appliance in rendezvous, where the two are told these filters, and does the same.
fn srt_live_transmit_in_rendezvous(appliance: &Appliance, stream: &str, places: [SocketAddr; 6], query: &str) {
    let [own, inner, outer, near, far, peer] = places;
    let bind = |address: SocketAddr| UdpSocket::bind(address).unwrap();
    let road = Road { delay: Duration::from_millis(5), loss: 0.01, seed: 3 };
    let note = Note::between(outer, inner, own);
    let wire = Wire::start((bind(near), Some(outer)), (bind(far), Some(peer)), road);
    let sender = SrtSender::meet_at(peer, far, LATENCY_MS, query);
    everything_is_rebuilt_that_can_be(appliance, stream, sender, note);
    let tally = wire.tally();
    assert!(tally.lost(Kind::First).packets > 30, "{tally:?}");
    assert_eq!(tally.sent(Kind::Again).packets, 0, "{tally:?}");
}

/// What the API says once it has counted that many lost packets: what it says may be some hundred milliseconds old, and what is missing is
/// lost when it is due.
fn told_of_losses(appliance: &Appliance, stream: &str, lost: u64) -> serde_json::Value {
    let began = Instant::now();
    loop {
        let told = statistics(appliance, stream);
        if number(&told, "/stats/packets_lost") >= lost || began.elapsed() > Duration::from_secs(3) {
            return told;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The clip is sent once connected, with nothing sent again; every frame that can be rebuilt must be there.
fn everything_is_rebuilt_that_can_be(appliance: &Appliance, stream: &str, mut sender: SrtSender, note: Note) {
    let clip = long_clip();
    let tap = appliance.tap(stream);
    sender.wait_for_connection();
    sender.send(&clip.bytes);
    sender.finish();
    let (rebuilt, lost) = judge(&note.finish());
    let told = told_of_losses(appliance, stream, lost as u64);
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
fn in_rendezvous_it_does_the_same_whoever_has_the_filter_and_in_whatever_words() {
    long_clip();
    let asked = format!("packetfilter={FILTER},arq:never");
    let encrypted = format!("{asked}&passphrase={PASSPHRASE}&pbkeylen=16");
    let meetings = [
        ("asked", asked.as_str(), ""),
        ("encrypted", &encrypted, ""),
        ("insisted", "", "fec,cols:10,rows:5,arq:never"),
        // libsrt does not take these for the same.
        ("both", &asked, "fec,arq:never,rows:5,cols:10,layout:staircase"),
    ];
    let meetings = meetings.map(|meeting| (meeting, places_in_rendezvous()));
    let mut settings = vec![format!("streams.encrypted.srt.passphrase={PASSPHRASE}")];
    for ((stream, _, insisted), [own, inner, ..]) in &meetings {
        let mut set = |key: &str, value: String| settings.push(format!("streams.{stream}.{key}={value}"));
        set("srt.mode", "rendezvous".to_owned());
        set("srt.address", inner.to_string());
        set("srt.local_address", own.ip().to_string());
        if !insisted.is_empty() {
            set("packet_filter", (*insisted).to_owned());
        }
    }
    let appliance = Appliance::start(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for ((stream, query, _), places) in &meetings {
            scope.spawn(|| srt_live_transmit_in_rendezvous(&appliance, stream, *places, query));
        }
    });
}

#[test]
fn in_rendezvous_filters_that_do_not_go_together_are_refused_and_the_log_says_by_which_key() {
    let [port] = free_ports();
    let appliance = Appliance::start(&[
        "streams.cam1.srt.mode=rendezvous",
        &format!("streams.cam1.srt.address=127.0.0.1:{port}"),
        "streams.cam1.srt.local_address=127.0.0.2",
        &format!("streams.cam1.packet_filter={FILTER}"),
    ]);
    let sender = SrtSender::meet(port, "packetfilter=fec,cols:8");
    appliance.wait_for_log("streams.cam1.packet_filter do not go together", Duration::from_secs(5));
    assert!(appliance.log().contains("FILTER (14)"), "{}", appliance.log());
    drop(sender);
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
    let (rebuilt, lost) = judge(&note.finish());
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
