//! Two machines call each other over a link in virtual time.

use super::super::encryption::{Cipher, KeyLength, KeyRefresh, SALT_LEN, derive_key_encrypting_key};
use super::*;
use crate::protocol::srt::handshake::HANDSHAKE_LEN;

mod filter;
mod forged;
mod version4;

const ADDRESSES: [&str; 2] = ["192.0.2.1:9000", "198.51.100.7:9000"];
/// Longer than it takes to send anything again ten times.
const PATIENCE: Duration = Duration::from_secs(10);

fn address(side: usize) -> SocketAddr {
    ADDRESSES[side].parse().expect("an address")
}

fn settings(side: usize, cookie: u32) -> RendezvousSettings {
    RendezvousSettings {
        receive_latency_ms: [80, 200][side],
        send_latency_ms: [300, 40][side],
        role: [Role::Receiver, Role::Sender][side],
        timeout: PATIENCE,
        ..RendezvousSettings::new(
            address(1 - side),
            11 + side as u32,
            cookie,
            SequenceNumber::new([100, 0x7fff_ff00][side]),
        )
    }
}

fn secret(passphrase: &[u8], salt: u8, cipher: Cipher) -> CallerEncryption {
    CallerEncryption {
        key_encrypting_key: derive_key_encrypting_key(passphrase, &[salt; SALT_LEN], KeyLength::Aes256),
        cipher,
        salt: [salt; SALT_LEN],
        key_seed: [salt; 32],
        key_refresh: KeyRefresh::default(),
    }
}

/// The same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Two that call each other, and what is under way between them.
struct Meeting {
    now: Instant,
    /// When each begins, and its machine from then on.
    begins: [Instant; 2],
    waiting: [Option<RendezvousSettings>; 2],
    sides: [Option<Rendezvous>; 2],
    /// What is under way: when it comes, in which order it was sent, to whom, bytes.
    line: Vec<(Instant, u64, usize, Vec<u8>)>,
    sent: u64,
    /// In a hundred.
    loss: u64,
    /// Longest way, in ms; the shortest is 1.
    delay_ms: u64,
    dice: Dice,
    /// How often in a thousand steps another process goes on with a side, and has nothing but the bytes.
    upgrades: u64,
    passphrases: [&'static [u8]; 2],
    outcomes: [Option<Result<Box<ConnectionParameters>, CallError>>; 2],
    requests: [Vec<Request>; 2],
}

impl Meeting {
    fn new(settings: [RendezvousSettings; 2]) -> Self {
        let now = Instant::from_millis(50_000);
        Self {
            now,
            begins: [now; 2],
            waiting: settings.map(Some),
            sides: [None, None],
            line: Vec::new(),
            sent: 0,
            loss: 0,
            delay_ms: 1,
            dice: Dice(1),
            upgrades: 0,
            passphrases: [b"correct horse"; 2],
            outcomes: [None, None],
            requests: [Vec::new(), Vec::new()],
        }
    }

    fn cookies(ours: u32, theirs: u32) -> Self {
        Self::new([settings(0, ours), settings(1, theirs)])
    }

    /// One millisecond.
    fn step(&mut self) {
        for side in 0..2 {
            if self.now >= self.begins[side]
                && let Some(settings) = self.waiting[side].take()
            {
                self.sides[side] = Some(Rendezvous::new(self.now, settings));
            }
        }
        let now = self.now;
        self.line.sort_by_key(|(at, number, ..)| (*at, *number));
        let due = self.line.iter().take_while(|(at, ..)| *at <= now).count();
        for (_, _, to, bytes) in self.line.drain(..due).collect::<Vec<_>>() {
            // Who has not begun has no socket.
            if let Some(machine) = &mut self.sides[to] {
                machine.receive(now, address(1 - to), &bytes);
            }
        }
        for side in 0..2 {
            let Some(machine) = &mut self.sides[side] else { continue };
            if self.upgrades > 0 && self.dice.roll(1_000) < self.upgrades {
                *machine = restored(machine);
            }
            machine.handle_timeout(now);
            let mut buffer = Vec::new();
            loop {
                while let Some(transmit) = machine.poll_transmit(now, &mut buffer) {
                    assert_eq!((transmit.peer, transmit.len), (address(1 - side), buffer.len()));
                    self.sent += 1;
                    if let Ok(handshake) = Handshake::parse(&buffer[HEADER_LEN..]) {
                        self.requests[side].push(handshake.fields.request);
                    }
                    let way = 1 + self.dice.roll(self.delay_ms);
                    if self.dice.roll(100) >= self.loss {
                        self.line.push((now + Duration::from_millis(way), self.sent, 1 - side, buffer.clone()));
                    }
                    buffer.clear();
                }
                match machine.poll_event() {
                    Some(Event::KeyWanted(material)) => {
                        let key =
                            derive_key_encrypting_key(self.passphrases[side], material.salt(), material.key_length());
                        machine.unlock(now, &material, key);
                    }
                    Some(Event::Connected(parameters)) => {
                        assert!(self.outcomes[side].replace(Ok(parameters)).is_none(), "connected once");
                    }
                    Some(Event::Failed(error)) => {
                        assert!(self.outcomes[side].replace(Err(error)).is_none(), "failed once");
                    }
                    None => break,
                }
            }
        }
        self.now += Duration::from_millis(1);
    }

    fn run(&mut self) {
        let end = self.now + PATIENCE * 2;
        while self.outcomes.iter().any(Option::is_none) && self.now < end {
            self.step();
        }
    }

    /// Over a link that loses and reorders as the dice say, one side later than the other; and where `seed` is even both are put down as bytes,
    /// and taken up again, at some fifty moments each second.
    fn over_a_bad_link(mut self, dice: &mut Dice, seed: u64) -> [Result<Box<ConnectionParameters>, CallError>; 2] {
        self.begins[dice.roll(2) as usize] += Duration::from_millis(dice.roll(1_000));
        (self.loss, self.delay_ms, self.dice) = (dice.roll(40), 1 + dice.roll(300), Dice(seed ^ 0xabcd));
        self.upgrades = if seed.is_multiple_of(2) { 50 } else { 0 };
        self.run();
        self.outcomes.map(|outcome| outcome.unwrap_or_else(|| panic!("seed {seed}: nothing came of it")))
    }

    fn connected(mut self) -> [Box<ConnectionParameters>; 2] {
        self.run();
        self.outcomes.map(|outcome| outcome.expect("something came of it").expect("a connection"))
    }

    fn failed(mut self) -> [CallError; 2] {
        self.run();
        self.outcomes.map(|outcome| outcome.expect("something came of it").expect_err("no connection"))
    }
}

fn restored(machine: &Rendezvous) -> Rendezvous {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    machine.snapshot(&mut before);
    let restored = Rendezvous::restore(&before).expect("what was just written");
    restored.snapshot(&mut after);
    assert!(before == after, "a snapshot of what was restored is the same");
    restored
}

/// What both sides found belongs together.
fn agree([one, other]: &[Box<ConnectionParameters>; 2]) {
    assert_eq!((one.socket_id, one.peer_socket_id), (11, 12));
    assert_eq!((other.socket_id, other.peer_socket_id), (12, 11));
    assert_eq!(one.peer_initial_sequence, Some(other.initial_sequence));
    assert_eq!(other.peer_initial_sequence, Some(one.initial_sequence));
    // The greater wish of each pair: 80 and 40 one way, 300 and 200 the other.
    assert_eq!((one.receive_latency_ms, one.send_latency_ms), (80, 300));
    assert_eq!((other.receive_latency_ms, other.send_latency_ms), (300, 80));
    assert_eq!((one.features, other.features), (Features::default(), Features::default()));
    assert_eq!(one.encryption.is_some(), other.encryption.is_some());
    assert!(one.stream_id.is_empty() && other.stream_id.is_empty());
}

/// A handshake as it is written for `socket_id`.
fn written(socket_id: u32, fields: HandshakeFields) -> Vec<u8> {
    let mut bytes = Vec::new();
    ControlWriter { timestamp_us: 0, socket_id }.handshake(&mut bytes, &[]);
    fields.encode(&mut bytes);
    bytes
}

#[test]
fn both_find_the_same_initiator_by_two_cookies_also_where_their_difference_is_half_the_circle() {
    let numbers = [1, 2, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_ffff, 0x4000_0000, 0xc000_0000, 0xbfff_ffff];
    for ours in numbers {
        for theirs in numbers {
            let sides = (contest(ours, theirs), contest(theirs, ours));
            match sides {
                (None, None) => assert_eq!(ours, theirs),
                (Some(one), Some(other)) => assert_ne!(one, other, "{ours:#x} and {theirs:#x}"),
                _ => panic!("{ours:#x} and {theirs:#x}: a draw on one side"),
            }
        }
    }
    assert_eq!(contest(7, 0), None, "0 is no cookie");
    // As libsrt 1.5.1 decides, with numbers that are signed.
    assert_eq!(contest(2, 1), Some(Side::Initiator));
    assert_eq!(contest(0xffff_ffff, 1), Some(Side::Responder), "-1 and 1");
    assert_eq!(contest(0x7fff_ffff, 0x8000_0001), Some(Side::Responder), "a difference that has no place in 32 bits");
    assert_eq!(contest(0x4000_0000, 0xc000_0000), Some(Side::Initiator), "2^30 and -2^30");
    assert_eq!(contest(0xc000_0000, 0x4000_0000), Some(Side::Responder));
}

#[test]
fn whoever_begins_first_and_whoever_is_the_initiator_both_connect() {
    for (ours, theirs) in [(9, 5), (5, 9)] {
        for later_ms in [0, 1, 3, 200, 249, 250, 251, 700, 5_000] {
            for first in 0..2 {
                let mut meeting = Meeting::cookies(ours, theirs);
                meeting.begins[1 - first] = meeting.now + Duration::from_millis(later_ms);
                agree(&meeting.connected());
            }
        }
    }
}

#[test]
fn a_serial_meeting_takes_one_wave_one_offer_one_answer_and_one_agreement() {
    // The second to begin has not heard the wave of the first, which was sent before.
    let mut meeting = Meeting::cookies(5, 9);
    meeting.begins[1] = meeting.now + Duration::from_millis(100);
    meeting.run();
    use Request::{Agreement, Conclusion, WaveAHand};
    assert_eq!(meeting.requests[0], [WaveAHand, Conclusion, Conclusion], "an empty conclusion, then the answer");
    assert_eq!(meeting.requests[1], [WaveAHand, Conclusion, Agreement]);
    let stages = meeting.sides.each_ref().map(|side| side.as_ref().unwrap().stage());
    assert_eq!(stages, [Stage::Connected; 2]);
}

#[test]
fn a_parallel_meeting_ends_too() {
    let mut meeting = Meeting::cookies(9, 5);
    meeting.delay_ms = 1;
    meeting.run();
    assert!(meeting.requests.iter().all(|sent| sent[0] == Request::WaveAHand), "both wave before they hear anything");
    assert_eq!(meeting.requests[0].last(), Some(&Request::Agreement));
    agree(&meeting.outcomes.map(|outcome| outcome.unwrap().unwrap()));
}

#[test]
fn a_link_that_loses_and_reorders_delays_a_meeting_and_does_not_prevent_it() {
    let mut connected = 0;
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let cookies = if dice.roll(2) == 0 { (9, 5) } else { (5, 9) };
        let mut sides = [settings(0, cookies.0), settings(1, cookies.1)];
        if dice.roll(2) == 0 {
            for (side, salt) in sides.iter_mut().zip([3, 4]) {
                side.encryption = Some(secret(b"correct horse", salt, Cipher::AesCtr));
            }
        }
        // The agreement is sent once, and the responder goes on with its conclusion, which is agreed to again.
        let outcomes = Meeting::new(sides).over_a_bad_link(&mut dice, seed);
        if let [Ok(one), Ok(other)] = outcomes {
            agree(&[one, other]);
            connected += 1;
        }
    }
    assert!(connected > 395, "{connected} of 400 have met");
}

#[test]
fn a_lost_agreement_is_made_up_for_by_another_and_by_media() {
    for by_media in [false, true] {
        let mut meeting = Meeting::cookies(5, 9);
        while meeting.requests[1].last() != Some(&Request::Agreement) {
            meeting.step();
        }
        meeting.line.clear();
        assert!(meeting.outcomes[0].is_none() && meeting.outcomes[1].is_some());
        let responder = meeting.sides[0].as_mut().unwrap();
        if by_media {
            let mut keep_alive = Vec::new();
            ControlWriter { timestamp_us: 5, socket_id: 12 }.keep_alive(&mut keep_alive);
            responder.receive(meeting.now, address(1), &keep_alive);
            assert_eq!((responder.stage(), responder.dropped()), (Stage::Initiated, 1), "it is for somebody else");
            keep_alive.clear();
            ControlWriter { timestamp_us: 5, socket_id: 11 }.keep_alive(&mut keep_alive);
            responder.receive(meeting.now, address(1), &keep_alive);
            assert_eq!(responder.stage(), Stage::Connected);
        }
        let agreements = |meeting: &Meeting| meeting.requests[1].iter().filter(|it| **it == Request::Agreement).count();
        meeting.run();
        assert_eq!(agreements(&meeting), if by_media { 1 } else { 2 });
        agree(&meeting.outcomes.map(|outcome| outcome.unwrap().unwrap()));
    }
}

#[test]
fn equal_cookies_are_a_draw_that_both_sides_give_as_the_reason_when_the_time_is_over() {
    let draw = CallError::Unacceptable(RejectReason::RendezvousCookie);
    assert_eq!(Meeting::cookies(7, 7).failed(), [draw; 2]);
}

#[test]
fn keys_are_the_initiators_and_a_packet_of_one_side_is_read_by_the_other() {
    use super::super::packet::{DataHeader, KeyFlag, PacketPosition};
    for (cookies, ciphers) in
        [((9, 5), [Cipher::AesCtr; 2]), ((5, 9), [Cipher::AesGcm; 2]), ((5, 9), [Cipher::AesCtr, Cipher::AesGcm])]
    {
        let mut sides = [settings(0, cookies.0), settings(1, cookies.1)];
        sides[0].encryption = Some(secret(b"correct horse", 3, ciphers[0]));
        sides[1].encryption = Some(secret(b"correct horse", 4, ciphers[1]));
        sides[0].takes_any_cipher = true;
        let [one, mut other] = Meeting::new(sides).connected();
        let (reader, writer) = (one.encryption.as_ref().unwrap(), other.encryption.as_mut().unwrap());
        assert_eq!((reader.cipher(), reader.key_length()), (ciphers[1], KeyLength::Aes256));
        let mut header = DataHeader {
            sequence: SequenceNumber::new(5),
            position: PacketPosition::Only,
            in_order: false,
            key: KeyFlag::Plain,
            retransmitted: false,
            message_number: 1,
            timestamp_us: 7,
            socket_id: 11,
        };
        let mut bytes = b"coded frames".to_vec();
        bytes.resize(12 + writer.cipher().tag_len(), 0);
        writer.encrypt(&mut header, &mut bytes);
        assert_ne!(&bytes[..12], b"coded frames");
        assert_eq!(reader.decrypt(&header, &mut bytes), Ok(12));
        assert_eq!(&bytes[..12], b"coded frames");
    }
}

#[test]
fn media_flows_from_either_side_each_with_its_own_first_number() {
    use super::super::connection::{Connection, Limits};
    use crate::base::{Datagram, PacketPool, PoolOptions};
    let pool = PacketPool::new(PoolOptions { slots: 64, slot_size: 2_048, ..PoolOptions::default() }).unwrap();
    for sender in 0..2 {
        let mut sides = [settings(0, 9), settings(1, 5)];
        sides[sender].role = Role::Sender;
        sides[1 - sender].role = Role::Receiver;
        let mut meeting = Meeting::new(sides);
        meeting.run();
        let mut now = meeting.now;
        let parameters = meeting.outcomes.map(|outcome| *outcome.unwrap().unwrap());
        let first = parameters[sender].initial_sequence.get();
        let limits = Limits { send_buffer_packets: 64, receive_buffer_packets: 1_024, ..Limits::default() };
        let mut ends = parameters.map(|parameters| Connection::new(now, parameters, limits));
        let mut taken = Vec::new();
        for number in 0..600_u64 {
            if number < 20 {
                ends[sender].send(now, format!("payload {number}").as_bytes()).unwrap();
            }
            for from in [sender, 1 - sender] {
                ends[from].handle_timeout(now);
                let mut buffer = Vec::new();
                while ends[from].poll_transmit(now, &mut buffer).is_some() {
                    let packet = pool.copy_from(&buffer).expect("room");
                    let peer = address(from);
                    let datagram = Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: now };
                    ends[1 - from].receive(now, datagram);
                    buffer.clear();
                }
            }
            while let Some(payload) = ends[1 - sender].poll_payload(now) {
                taken.push((payload.sequence, payload.packet.to_vec()));
            }
            now += Duration::from_millis(1);
        }
        let expected: Vec<_> = (0..20).map(|n| (first + n, format!("payload {n}").into_bytes())).collect();
        assert_eq!(taken, expected);
    }
}

#[test]
fn what_does_not_agree_is_refused_and_the_other_side_is_told_why() {
    let plain = || [settings(0, 9), settings(1, 5)];
    let refused = |sides: [RendezvousSettings; 2], passphrases: [&'static [u8]; 2]| {
        let mut meeting = Meeting::new(sides);
        meeting.passphrases = passphrases;
        meeting.failed()
    };
    let both = |reason| [CallError::Rejected(reason), CallError::Unacceptable(reason)];
    let same: [&[u8]; 2] = [b"correct horse"; 2];
    let mut sides = plain();
    sides[0].encryption = Some(secret(b"correct horse", 3, Cipher::AesCtr));
    assert_eq!(refused(sides, same), both(RejectReason::Unsecure));
    let mut sides = plain();
    sides[1].encryption = Some(secret(b"correct horse", 3, Cipher::AesCtr));
    assert_eq!(refused(sides, same), both(RejectReason::Unsecure));
    let mut sides = plain();
    sides[0].encryption = Some(secret(b"correct horse", 3, Cipher::AesCtr));
    sides[1].encryption = Some(secret(b"battery staple", 4, Cipher::AesCtr));
    assert_eq!(refused(sides.clone(), [b"correct horse", b"battery staple"]), both(RejectReason::BadSecret));
    sides[1].encryption = Some(secret(b"correct horse", 4, Cipher::AesGcm));
    assert_eq!(refused(sides, same), both(RejectReason::Crypto));
}

#[test]
fn a_peer_that_never_comes_is_given_up_and_one_that_is_restarted_is_met_anew() {
    let mut meeting = Meeting::cookies(5, 9);
    meeting.begins[1] = Instant::FAR_FUTURE;
    let end = meeting.now + PATIENCE;
    while meeting.now <= end {
        meeting.step();
    }
    assert!(matches!(meeting.outcomes[0], Some(Err(CallError::Timeout))));
    let waves = meeting.requests[0].len();
    assert_eq!((waves, meeting.sides[0].as_ref().unwrap().next_timeout()), (40, None), "four a second");

    // Another process at the same address, with another cookie, that wins this time. Only the wave of the first has come.
    let again = || RendezvousSettings { socket_id: 99, timeout: PATIENCE * 3, ..settings(1, 200) };
    let mut meeting = Meeting::cookies(9, 5);
    while meeting.sides[0].as_ref().is_none_or(|side| side.stage() == Stage::Waving) {
        meeting.step();
    }
    meeting.line.clear();
    meeting.sides[1] = Some(Rendezvous::new(meeting.now, again()));
    let restarted = meeting.now;
    meeting.run();
    assert!(meeting.now < restarted + Duration::from_secs(1));
    let [one, other] = meeting.connected();
    assert_eq!((one.peer_socket_id, other.socket_id), (99, 99));

    // The first had heard us: a wave alone shows nobody that it is not forged, and the next attempt meets the other.
    let mut meeting = Meeting::cookies(5, 9);
    meeting.begins[1] += Duration::from_millis(100);
    while meeting.sides[0].as_ref().is_none_or(|side| side.stage() != Stage::Initiated) {
        meeting.step();
    }
    meeting.line.clear();
    meeting.sides[1] = Some(Rendezvous::new(meeting.now, again()));
    while meeting.outcomes[0].is_none() {
        meeting.step();
    }
    assert!(matches!(meeting.outcomes[0].take(), Some(Err(CallError::Timeout))) && meeting.outcomes[1].is_none());
    meeting.sides[0] = Some(Rendezvous::new(meeting.now, settings(0, 5)));
    let [one, other] = meeting.connected();
    assert_eq!((one.peer_socket_id, other.socket_id), (99, 99));
}

#[test]
fn a_wave_of_another_socket_id_tells_that_the_peer_was_restarted() {
    let mut meeting = Meeting::cookies(9, 5);
    meeting.run();
    let wave = |socket_id: u32| {
        let mut buffer = Vec::new();
        let mut again = Rendezvous::new(meeting.now, RendezvousSettings { socket_id, ..settings(1, 77) });
        again.poll_transmit(meeting.now, &mut buffer).expect("a wave");
        buffer
    };
    let side = meeting.sides[0].as_ref().unwrap();
    assert!(side.is_restart(address(1), &wave(99)));
    assert!(!side.is_restart(address(1), &wave(12)), "a late wave of the same");
    assert!(!side.is_restart("203.0.113.9:9000".parse().unwrap(), &wave(99)), "somebody else");
    assert!(!side.is_restart(address(1), &wave(99)[..HEADER_LEN + HANDSHAKE_LEN - 1]), "half of one");
}

#[test]
fn a_caller_a_stranger_and_a_peer_of_handshake_version_4_get_no_connection() {
    let now = Instant::from_millis(1_000);
    let mut machine = Rendezvous::new(now, settings(0, 9));
    let fields = Rendezvous::new(now, settings(1, 5)).fields(Request::WaveAHand);
    machine.receive(now, address(1), &written(0, HandshakeFields { request: Request::Induction, ..fields }));
    machine.receive(now, "203.0.113.9:9000".parse().unwrap(), &written(0, fields));
    machine.receive(now, address(1), &written(4_711, fields));
    let reason = Request::Rejection(RejectReason::Forbidden);
    machine.receive(now, address(1), &written(0, HandshakeFields { request: reason, ..fields }));
    assert_eq!((machine.stage(), machine.dropped()), (Stage::Waving, 4), "a rejection must know our socket id");
    machine.receive(now, address(1), &written(0, HandshakeFields { mtu: MTU_MIN - 1, ..fields }));
    assert_eq!((machine.stage(), machine.dropped()), (Stage::Waving, 5), "and so must who ends it by what he is");
    machine.receive(now, address(1), &written(11, HandshakeFields { mtu: MTU_MIN - 1, ..fields }));
    let Some(Event::Failed(error)) = machine.poll_event() else { panic!("it has failed") };
    assert_eq!(error, CallError::Unacceptable(RejectReason::Rogue));
}

#[test]
fn where_encryption_is_not_enforced_both_connect_whatever_they_know_and_say_how_it_stands() {
    use KeyMaterialState::{BadSecret, NoSecret, Secured, Unsecured};
    let right = |salt| Some(secret(b"correct horse", salt, Cipher::AesCtr));
    let wrong = Some(secret(b"battery staple", 4, Cipher::AesCtr));
    for cookies in [(9, 5), (5, 9)] {
        // The first receives and the second sends; each side's secret, the key state that each finds, and whether it has keys. Who makes
        // an offer without a key hears nothing of one.
        let sender_offers = cookies == (5, 9);
        let [receiver_without, sender_without] = match sender_offers {
            true => [[NoSecret, NoSecret], [NoSecret, Unsecured]],
            false => [[Unsecured, NoSecret], [NoSecret, NoSecret]],
        };
        for (secrets, states, has_keys) in [
            ([right(3), right(4)], [Secured; 2], [true, true]),
            ([right(3), wrong.clone()], [BadSecret; 2], [false, sender_offers]),
            ([right(3), None], sender_without, [false, false]),
            ([None, right(4)], receiver_without, [false, sender_offers]),
        ] {
            let mut sides = [settings(0, cookies.0), settings(1, cookies.1)];
            for (side, secret) in sides.iter_mut().zip(secrets) {
                (side.encryption, side.enforced_encryption) = (secret, false);
            }
            let is_wrong = states[0] == BadSecret;
            let mut meeting = Meeting::new(sides);
            meeting.passphrases[1] = if is_wrong { b"battery staple" } else { b"correct horse" };
            let connected = meeting.connected();
            let found = connected.each_ref().map(|it| (it.key_state, it.encryption.is_some()));
            assert_eq!(found, [(states[0], has_keys[0]), (states[1], has_keys[1])], "{cookies:?}");
        }
    }
}
