//! Strangers and attackers before a whole appliance, over loopback: who is let in and what he is told if he is not, and floods beside
//! feeds that must not notice. `tests/ATTACKS.md` says which fault of other implementations each test is about.

#[path = "shards/callers.rs"]
#[expect(dead_code, reason = "these callers neither move nor send in bursts")]
mod callers;
#[path = "shards/served.rs"]
mod served;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use headworks::config::{Config, Stream, Takeover};
use headworks::protocol::srt::caller::{CallError, Caller, CallerEncryption, CallerSettings, Event};
use headworks::protocol::srt::connection::{CloseReason, Connection, Limits};
use headworks::protocol::srt::control::ControlWriter;
use headworks::protocol::srt::encryption::{
    Cipher, KeyLength, KeyMaterialState, KeyRefresh, SALT_LEN, derive_key_encrypting_key,
};
use headworks::protocol::srt::handshake::{HandshakeFields, Request, VERSION_4};
use headworks::protocol::srt::packet::{DataHeader, HEADER_LEN, KeyFlag, SequenceNumber};
use headworks::protocol::srt::parameters::ConnectionParameters;
use headworks::protocol::srt::stream_id::StreamId;
use headworks::shard::clock::Clock;
use headworks::shard::net::outbound::{Outbound, OutboundOptions, OutboundSocket};
use headworks::shard::report::{ShardReport, StreamReport};

use callers::Callers;
use served::{PATIENCE, RATE_BPS, Served};

const PASSPHRASE: &str = "known to everybody";

impl Served {
    /// Of one shard.
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(1, change)
    }

    fn report(&self) -> ShardReport {
        self.reports().pop().expect("there is one shard")
    }

    fn stream(&self, name: &str) -> StreamReport {
        self.streams().into_iter().find(|stream| stream.name == name).expect("a stream")
    }

    /// Waits until every picture that was sent is in its ring, whole; nothing was lost on the way that was not made good.
    fn expect_every_picture(&self, name: &str, expected: u64) -> StreamReport {
        let began = Instant::now();
        loop {
            let stream = self.stream(name);
            let tracks = || stream.tracks.iter().filter(|track| track.name.starts_with("video"));
            let frames: u64 = tracks().map(|track| track.statistics.frames).sum();
            if frames == expected {
                let damaged: u64 = tracks().map(|track| track.statistics.damaged + track.statistics.lost).sum();
                assert_eq!((damaged, stream.ingest.lost, stream.continuity_errors), (0, 0, 0), "{name}");
                assert_eq!(stream.sessions, 1, "{name}");
                return stream;
            }
            assert!(began.elapsed() < PATIENCE, "{name}: {frames} of {expected}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A call from this address, played to its end; the socket goes with the connection.
struct Call {
    settings: CallerSettings,
    socket: UdpSocket,
}

impl Call {
    fn new(peer: SocketAddr, from: [u8; 4], stream_id: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) as u32;
        let socket = UdpSocket::bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(peer).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let settings = CallerSettings {
            stream_id: StreamId::new(stream_id).unwrap(),
            timeout: PATIENCE,
            ..CallerSettings::new(peer, 1_000 + number, SequenceNumber::new(u64::from(number) * 977))
        };
        Self { settings, socket }
    }

    fn under(mut self, passphrase: &str, salt: [u8; SALT_LEN]) -> Self {
        self.settings.encryption = Some(CallerEncryption {
            key_encrypting_key: derive_key_encrypting_key(passphrase.as_bytes(), &salt, KeyLength::Aes128),
            cipher: Cipher::AesCtr,
            salt,
            key_seed: [9; 32],
            key_refresh: KeyRefresh::default(),
        });
        self
    }

    fn play(self) -> (UdpSocket, Result<Box<ConnectionParameters>, CallError>) {
        let peer = self.settings.peer;
        let mut caller = Caller::new(Clock::now(), self.settings);
        let (mut buffer, mut bytes) = (Vec::new(), [0; 2_048]);
        loop {
            let now = Clock::now();
            caller.handle_timeout(now);
            buffer.clear();
            while caller.poll_transmit(now, &mut buffer).is_some() {
                self.socket.send(&buffer).unwrap();
                buffer.clear();
            }
            match caller.poll_event() {
                Some(Event::Connected(parameters)) => return (self.socket, Ok(parameters)),
                Some(Event::Failed(error)) => return (self.socket, Err(error)),
                None => {}
            }
            if let Ok(length) = self.socket.recv(&mut bytes) {
                caller.receive(Clock::now(), peer, &bytes[..length]);
            }
        }
    }

    /// What the listener told the caller, 0 if it let it in.
    fn code(self) -> u32 {
        match self.play().1 {
            Ok(_) => 0,
            Err(CallError::Rejected(reason)) => reason.code(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn named(config: &mut Config, name: &str, change: impl FnOnce(&mut Stream)) {
    let mut stream = Stream::default();
    change(&mut stream);
    config.streams.insert(name.to_owned(), stream);
}

#[test]
fn every_refusal_reaches_the_caller_with_its_code_and_people_with_its_reason() {
    let served = Served::start(|config| {
        config.ingestion.max_connections = 3;
        config.ingestion.srt.access.deny = vec!["127.0.66.0/24".parse().unwrap()];
        config.ingestion.srt.access.hosts = vec!["here.example".to_owned()];
        config.ingestion.srt.access.max_per_source = 2;
        named(config, "near", |stream| stream.allow = vec!["127.0.1.0/24".parse().unwrap()]);
        named(config, "secret", |stream| stream.passphrase = Some(PASSPHRASE.to_owned()));
    });
    let code = |from, stream_id: &str| Call::new(served.peer, from, stream_id).code();
    let salt = [3; SALT_LEN];
    let near = [127, 0, 1, 1];
    for (found, expected) in [
        (code([127, 0, 66, 7], "a"), 1403),
        (code([127, 0, 2, 1], "near"), 1403),
        (code(near, "#!::r=a,m=request"), 1405),
        (code(near, "#!::r=a,t=file,m=publish"), 1415),
        (code(near, "#!::r=a,h=there.example"), 1003),
        (code(near, "secret"), 11),
        (Call::new(served.peer, near, "secret").under("wrong passphrase", salt).code(), 10),
        (Call::new(served.peer, near, "a").under(PASSPHRASE, salt).code(), 11),
        (code(near, "near"), 0),
        (Call::new(served.peer, near, "secret").under(PASSPHRASE, salt).code(), 0),
        (code(near, "one too many of this address"), 1402),
        (code([127, 0, 2, 2], "a"), 0),
        (code([127, 0, 2, 3], "one too many of all"), 1402),
        (code([127, 0, 2, 3], "a"), 1409),
    ] {
        assert_eq!(found, expected);
    }
    let report = served.report();
    let told: Vec<_> = report.refusals.iter().map(|it| (it.address, it.reason.code(), it.count)).collect();
    assert_eq!(told.len(), 11, "{told:?}");
    assert_eq!(told[0], (IpAddr::from([127, 0, 66, 7]), 1403, 1));
    let whys: Vec<&str> = report.refusals.iter().map(|it| it.why.as_str()).collect();
    for why in [
        "ingestion.srt.access.deny does not let its address in",
        "ingestion.srt.access.max_per_source = 2 is reached",
        "ingestion.max_connections = 3 is reached",
        "its passphrase is not that of streams.secret.passphrase",
        "sends it, last heard ",
        "ms ago, and streams.a.takeover is silent_or_same_source",
    ] {
        assert!(whys.iter().any(|it| it.contains(why)), "{why} in {whys:?}");
    }
    let by_reason: Vec<_> = report.refusals_by_reason.iter().map(|(reason, count)| (reason.code(), *count)).collect();
    assert_eq!(by_reason, [(10, 1), (11, 2), (1003, 1), (1402, 2), (1403, 2), (1405, 1), (1409, 1), (1415, 1)]);
    assert_eq!(report.counters.rejections, 11);
}

#[test]
fn who_gets_a_name_that_somebody_else_sends_is_as_configured() {
    let served = Served::start(|config| {
        for (name, takeover) in [("never", Takeover::Never), ("always", Takeover::Always), ("silent", Takeover::Silent)]
        {
            named(config, name, |stream| stream.takeover = takeover);
        }
    });
    let call = |name: &str, last| Call::new(served.peer, [127, 0, 3, last], name).play();
    let code = |name: &str, last| Call::new(served.peer, [127, 0, 3, last], name).code();
    for name in ["never", "always", "silent", "as usual"] {
        let (_socket, connected) = call(name, 1);
        assert!(connected.is_ok(), "{name}");
        let again = match name {
            "never" => [1409, 1409],
            "always" => [0, 0],
            "silent" => [1409, 1409],
            _ => [0, 1409],
        };
        assert_eq!([code(name, 1), code(name, 2)], again, "{name}: from the same address, and from another");
    }
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!([code("never", 2), code("silent", 2), code("as usual", 2)], [1409, 0, 0], "they have been silent");
}

#[test]
fn where_encryption_is_not_enforced_what_cannot_be_read_is_dropped_and_counted() {
    let served = Served::start(|config| {
        config.ingestion.srt.enforced_encryption = false;
        config.ingestion.srt.passphrase = Some(PASSPHRASE.to_owned());
        named(config, "strict", |stream| stream.enforced_encryption = Some(true));
    });
    assert_eq!(Call::new(served.peer, [127, 0, 0, 1], "strict").under("wrong passphrase", [3; SALT_LEN]).code(), 10);
    for (name, passphrase, state) in
        [("wrong", Some("wrong passphrase"), KeyMaterialState::BadSecret), ("plain", None, KeyMaterialState::Unsecured)]
    {
        let mut call = Call::new(served.peer, [127, 0, 0, 1], name);
        if let Some(passphrase) = passphrase {
            call = call.under(passphrase, [4; SALT_LEN]);
        }
        call.settings.enforced_encryption = false;
        let (socket, connected) = call.play();
        let parameters = connected.expect("let in");
        assert_eq!(parameters.key_state, state);
        let limits = Limits { send_buffer_packets: 64, ..Limits::default() };
        let mut connection = Connection::new(Clock::now(), *parameters, limits);
        let mut buffer = Vec::new();
        for _ in 0..10 {
            let now = Clock::now();
            connection.send(now, &[0x47; 188]).unwrap();
            while connection.poll_transmit(now, &mut buffer).is_some() {
                socket.send(&buffer).unwrap();
                buffer.clear();
            }
        }
        let began = Instant::now();
        let stream = loop {
            let stream = served.stream(name);
            if stream.srt.is_some_and(|srt| srt.pkt_recv >= 10) {
                break stream;
            }
            assert!(began.elapsed() < PATIENCE, "{stream:?}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let srt = stream.srt.expect("a session");
        let undecryptable = if passphrase.is_some() { 10 } else { 0 };
        assert_eq!((srt.pkt_recv, srt.pkt_rcv_undecrypt), (10, undecryptable), "{name}");
        assert_eq!((stream.km_state, stream.cipher.as_str()), (Some(state), ""), "{name}");
        connection.close(Clock::now(), CloseReason::Local);
    }
}

/// Sends a feed while it is attacked, and a little longer; gives the pictures sent.
fn feed(served: &Served, name: &str, passphrase: Option<&str>, attack: impl FnOnce() + Send) -> u64 {
    let mut callers = Callers::new(served.peer, Duration::from_secs(2), RATE_BPS);
    let socket = callers.open();
    callers.call(name, 7, passphrase, socket);
    callers.run(Duration::from_millis(500));
    std::thread::scope(|scope| {
        let attacker = scope.spawn(attack);
        while !attacker.is_finished() {
            callers.run(Duration::from_millis(100));
        }
        attacker.join().expect("the attack went as planned");
    });
    callers.run(Duration::from_millis(300));
    callers.finish()[0].video
}

/// A process's memory without rings and packet memory, in KiB.
fn anonymous_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux says so");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

fn induction(socket_id: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    ControlWriter { timestamp_us: 0, socket_id: 0 }.handshake(&mut bytes, &[]);
    let fields = HandshakeFields {
        version: VERSION_4,
        encryption: 0,
        extension: 2,
        initial_sequence: SequenceNumber::new(u64::from(socket_id)),
        mtu: 1_500,
        flow_window: 8_192,
        request: Request::Induction,
        socket_id,
        cookie: 0,
        peer_address: Ipv4Addr::LOCALHOST.into(),
    };
    fields.encode(&mut bytes);
    bytes
}

/// Inductions a second that are asked of the flood. Without optimisation both it and the appliance are some five times slower.
const FLOOD_PER_SECOND: u64 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
/// Inductions in all; they take longer where they cannot be sent so fast.
const FLOOD: u64 = FLOOD_PER_SECOND * 5 / 2;
/// After how many memory is looked at for the first time: all is made by then that a flood of this kind needs.
const SETTLED: u64 = FLOOD / 5;
/// By how much it may grow from then on. What forty thousand sources leave behind, were it only 64 bytes each, is more.
const GROWTH_MAX_KIB: u64 = 2 << 10;

/// [`FLOOD`] inductions from random addresses of 127.0.0.0/8, with random socket ids, at an even pace; gives how many went out, in what
/// time, and the memory in use after [`SETTLED`] of them.
fn flood(peer: SocketAddr) -> (u64, Duration, u64) {
    let mut net = Outbound::new(OutboundOptions { slots: 256, credit: 64, aggregates: false }).unwrap();
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    // What is answered comes back to it, and is thrown away.
    let unconnected = OutboundSocket { bind: any, peer: None, receive_buffer: 1 << 16, ..OutboundSocket::to(peer) };
    let (socket, _) = net.open(&unconnected).unwrap();
    let mut random = 0x9e37_79b9_u32;
    let (began, mut queued, mut settled) = (Clock::now(), 0, None);
    loop {
        let now = Clock::now();
        let elapsed = now.saturating_since(began);
        let sends = net.statistics().sends;
        if queued == FLOOD {
            return (sends.sent, elapsed, settled.expect("it is seen before the end"));
        }
        if settled.is_none() && queued >= SETTLED {
            settled = Some(anonymous_memory_kib());
        }
        let due = (elapsed.as_nanos() as u64).saturating_mul(FLOOD_PER_SECOND) / 1_000_000_000;
        // Half of it at most between two looks.
        let due = due.min(queued + FLOOD / 2).min(FLOOD);
        while queued < due {
            for _ in 0..256.min(due - queued) {
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                let from = Ipv4Addr::from_bits(0x7f00_0000 | (random & 0x00ff_ffff).clamp(2, 0x00ff_fffe));
                net.send_to(socket, &peer, Some(from.into()), &induction(random | 1));
                queued += 1;
            }
            net.flush().unwrap();
            net.drain(drop).unwrap();
        }
        net.wait(now, now + Duration::from_micros(500), false).unwrap();
        net.drain(drop).unwrap();
    }
}

#[test]
fn a_flood_of_inductions_from_random_addresses_leaves_a_feed_untouched_and_memory_flat() {
    let served = Served::start(|_| {});
    let peer = served.peer;
    let counted = Mutex::new(None);
    let pictures = feed(&served, "cam", None, || {
        let (sent, took, before) = flood(peer);
        *counted.lock().unwrap() = Some((sent, took, before, anonymous_memory_kib()));
    });
    let stream = served.expect_every_picture("cam", pictures);
    let report = served.report();
    let (sent, took, before, after) = counted.into_inner().unwrap().expect("it was flooded");
    let counters = report.counters;
    println!(
        "{sent} inductions in {took:?} ({:.0} a second), {} answered, {} dropped by the kernel; {pictures} pictures, {} packets of the feed \
         missed at first; memory {before} KiB before, {after} KiB after",
        sent as f64 / took.as_secs_f64(),
        counters.inductions,
        counters.dropped_by_kernel,
        stream.ingest.recovered,
    );
    assert!(sent >= FLOOD / 10 * 9, "{sent} of {FLOOD} were sent");
    let seen = counters.inductions + counters.dropped_by_kernel;
    assert!(seen >= sent / 10 * 9, "{seen} of {sent} are accounted for: {counters:?}");
    assert!(after < before + GROWTH_MAX_KIB, "memory grew from {before} to {after} KiB");
    assert_eq!((report.streams.len(), counters.admissions, counters.rejections), (1, 1, 0));
}

#[test]
fn a_flood_of_encrypted_conclusions_with_good_cookies_keeps_no_other_source_out() {
    let served = Served::start(|config| {
        config.ingestion.srt.passphrase = Some(PASSPHRASE.to_owned());
        config.ingestion.srt.access.derivations_per_second = 5;
    });
    let peer = served.peer;
    let done = AtomicBool::new(false);
    let codes = Mutex::new(Vec::new());
    let pictures = feed(&served, "cam", Some(PASSPHRASE), || {
        std::thread::scope(|scope| {
            for attacker in 0..2_u8 {
                let (done, codes) = (&done, &codes);
                scope.spawn(move || {
                    let mut number = 0_u32;
                    while !done.load(Ordering::Relaxed) {
                        // Another salt each time, or the key is known already.
                        let mut salt = [attacker + 1; SALT_LEN];
                        salt[12..].copy_from_slice(&number.to_be_bytes());
                        number += 1;
                        let mut call = Call::new(peer, [127, 0, 5, attacker + 1], &format!("stolen{number}"));
                        // What it is wrapped with matters to nobody but the listener.
                        call = call.under("wrong passphrase", salt);
                        let code = call.code();
                        codes.lock().unwrap().push(code);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(500));
            for honest in 1..=4 {
                let name = format!("honest{honest}");
                let call = Call::new(peer, [127, 0, 4, honest], &name).under(PASSPHRASE, [honest; SALT_LEN]);
                let began = Instant::now();
                assert_eq!(call.code(), 0, "let in amid the flood");
                assert!(began.elapsed() < Duration::from_secs(5), "and soon");
            }
            done.store(true, Ordering::Relaxed);
        });
    });
    served.expect_every_picture("cam", pictures);
    let codes = codes.into_inner().unwrap();
    assert!(codes.len() > 20, "{}", codes.len());
    assert!(codes.iter().all(|code| [10, 1402, 5].contains(code)), "no attacker was let in: {codes:?}");
    assert!(codes.contains(&1402), "and few passphrases of theirs were tried: {codes:?}");
    let report = served.report();
    assert_eq!(report.streams.len(), 5);
    assert!(report.refusals.len() <= 64);
}

#[test]
fn spoofed_datagrams_for_a_session_and_malformed_ones_for_nobody_change_nothing_for_a_feed() {
    for passphrase in [None, Some(PASSPHRASE)] {
        let served = Served::start(|config| config.ingestion.srt.passphrase = passphrase.map(str::to_owned));
        let peer = served.peer;
        let pictures = feed(&served, "cam", passphrase, || {
            let socket = UdpSocket::bind("127.0.9.9:0").unwrap();
            socket.connect(peer).unwrap();
            let mut random = 0x2545_f491_u32;
            let mut next = || {
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                random
            };
            for round in 0..3_000_u32 {
                let socket_id = if round % 2 == 0 { next() & 0x3fff_ffff } else { 0 };
                let mut bytes = vec![0; HEADER_LEN];
                let header = DataHeader {
                    sequence: SequenceNumber::new(u64::from(next() & 0x7fff_ffff)),
                    key: [KeyFlag::Plain, KeyFlag::Even, KeyFlag::Odd][round as usize % 3],
                    socket_id,
                    timestamp_us: next(),
                    ..DataHeader::default()
                };
                header.encode(bytes.first_chunk_mut().unwrap());
                if round % 4 > 1 {
                    // A control packet of any type instead, with a body of any length.
                    let kind = [0_u16, 1, 2, 3, 4, 5, 6, 7, 8, 0x7fff][next() as usize % 10];
                    bytes[..2].copy_from_slice(&(0x8000 | kind).to_be_bytes());
                    bytes[2..4].copy_from_slice(&((next() % 6) as u16).to_be_bytes());
                }
                bytes.extend((0..next() % 1_400).map(|_| next() as u8));
                socket.send(&bytes).unwrap();
                if round % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let stream = served.expect_every_picture("cam", pictures);
        let report = served.report();
        let moved = stream.events.iter().any(|(_, what)| what.contains("moved"));
        assert_eq!((report.streams.len(), stream.sessions, moved), (1, 1, false), "{:?}", stream.events);
        assert!(report.counters.dropped_stray + report.counters.dropped_malformed > 1_000, "{:?}", report.counters);
    }
}
