use super::*;
use crate::protocol::srt::encryption::{KeyEncryptingKey, KeyMaterial};
use crate::protocol::srt::parameters::Version4Terms;

/// What libsrt 1.2.3 says: TSBPD, encryption, the flag "retransmitted"; 300 ms.
const HSREQ: [u32; 3] = [0x0001_0203, 0b10_0101, 300];
/// What is said to it: TSBPD, encryption, TLPKTDROP, repeated loss reports, the flag; 300 ms.
const HSRSP: [u32; 3] = [0x0001_0504, 0b11_1110, 300];

/// What cannot be read is let in, and dropped.
const UNENFORCED: Version4Terms =
    Version4Terms { latency_max_ms: 2_000, has_passphrase: true, enforced_encryption: false };

pub(super) fn bench_of_version4(has_passphrase: bool) -> Bench {
    bench_on(Version4Terms { latency_max_ms: 2_000, has_passphrase, enforced_encryption: true })
}

fn bench_on(terms: Version4Terms) -> Bench {
    let parameters = ConnectionParameters { send_latency_ms: 0, ..parameters_of_version4(Role::Receiver, terms, None) };
    bench_of(Limits { receive_buffer_packets: 256, ..Limits::default() }, parameters)
}

/// With a peer that has said nothing of SRT yet.
pub(super) fn parameters_of_version4(
    role: Role,
    terms: Version4Terms,
    encryption: Option<Encryption>,
) -> ConnectionParameters {
    let unsaid = parameters(Features::of_peer(0), encryption);
    ConnectionParameters { role, peer_version: 0, peer_flags: 0, version4: Some(terms), ..unsaid }
}

impl Bench {
    /// Its clock shows the milliseconds since the handshake.
    fn handshake_request(&mut self, now: Instant, words_: &[u32]) {
        let mut bytes = raw_control(0x7fff, 1, 0, &words(words_));
        let timestamp_us = now.saturating_since(at(0)).as_micros() as u32;
        bytes[8..12].copy_from_slice(&timestamp_us.to_be_bytes());
        self.put(now, &bytes);
    }

    fn responses(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let responses = self.out(now).into_iter().filter_map(|out| match out {
            Out::HandshakeResponse(body) => Some(body),
            _ => None,
        });
        responses.collect()
    }
}

/// The peer's key, the message that carries it, and the key that the passphrase makes for its salt.
pub(super) fn peer_keys(passphrase: &[u8]) -> (Encryption, KeyMaterial, impl Fn(&[u8]) -> KeyEncryptingKey) {
    let salt = [5; SALT_LEN];
    let derive = move |passphrase: &[u8]| derive_key_encrypting_key(passphrase, &salt, KeyLength::Aes192);
    let (sending, message) =
        Encryption::initiate(derive(passphrase), Cipher::AesCtr, salt, [1; 32], KeyRefresh::default());
    (sending, message, derive)
}

/// How often it reports, within a quarter of a second, a packet that is passed over; and how often it does when restored.
pub(super) fn reports_of_a_loss(bench: &mut Bench) -> [usize; 2] {
    let mut restored = bench.restored();
    [bench, &mut restored].map(|bench| {
        bench.put_data(at(2), &data(0, 2), &[]);
        bench.put_data(at(2), &data(2, 2), &[]);
        let mut reports = 0;
        for ms in 2..250 {
            reports += bench.timeout(at(ms)).iter().filter(|out| matches!(out, Out::Nak(_))).count();
        }
        reports
    })
}

#[test]
fn its_packets_have_a_time_once_it_has_said_so_and_repeats_get_the_same_answer() {
    let mut bench = bench_of_version4(false);
    bench.handshake_request(at(10), &HSREQ);
    assert_eq!(bench.responses(at(10)), [words(&HSRSP)]);
    assert_eq!(bench.connection.poll_event(), Some(Event::Introduced));
    let parameters = bench.connection.parameters();
    assert_eq!((parameters.peer_version, parameters.receive_latency_ms), (0x0001_0203, 300));
    assert!(parameters.features.receive_by_timestamp && parameters.features.retransmission_flag);
    bench.handshake_request(at(30), &[0x0001_0203, 0b10_0101, 900]);
    assert_eq!(bench.responses(at(30)), [words(&HSRSP)]);
    assert_eq!(bench.connection.poll_event(), None, "it has been introduced");
    bench.put_data(at(41), &data(0, 40), b"due after 300 ms");
    assert_eq!(bench.payloads(at(339)), []);
    assert_eq!(bench.payloads(at(340)).len(), 1);
    bench.put_data(at(350), &DataHeader { retransmitted: true, ..data(1, 341) }, &[]);
    assert_eq!(bench.count().pkt_rcv_retrans, 1);
}

#[test]
fn what_comes_before_it_says_so_is_due_by_its_arrival() {
    let mut bench = bench_of_version4(false);
    // The first one is missing, so that these are held; their time stamps mean nothing yet, and what looks like a flag is part of a number.
    bench.put_data(at(3), &DataHeader { retransmitted: true, ..data(1, 70_000) }, &[]);
    bench.put_data(at(5), &data(2, 70_002), &[]);
    assert_eq!(bench.count().pkt_rcv_retrans, 0);
    bench.handshake_request(at(10), &HSREQ);
    assert_eq!(bench.indices(at(302)), [0_u64; 0]);
    assert_eq!(bench.indices(at(304)), [1]);
    assert_eq!(bench.indices(at(305)), [2]);
}

#[test]
fn it_gets_no_more_latency_than_it_may_have_and_no_less_than_the_stream() {
    for (asked_ms, agreed_ms) in [(60_000, 2_000), (2_000, 2_000), (20, 120), (0, 120)] {
        let mut bench = bench_of_version4(false);
        bench.handshake_request(at(1), &[HSREQ[0], HSREQ[1], asked_ms]);
        assert_eq!(bench.responses(at(1)), [words(&[HSRSP[0], HSRSP[1], agreed_ms])]);
        assert_eq!(bench.count().ms_rcv_tsb_pd_delay, u64::from(agreed_ms));
    }
}

#[test]
fn what_says_a_version_of_srt_that_there_is_not_is_none_of_its() {
    let mut bench = bench_of_version4(false);
    for version in [0, 0x0000_ffff, 0x0002_0000, 0x8001_0203] {
        bench.handshake_request(at(1), &[version, HSREQ[1], 900]);
    }
    assert_eq!((bench.responses(at(1)), bench.count().control_malformed), (vec![], 4));
    bench.handshake_request(at(2), &HSREQ);
    assert_eq!(bench.responses(at(2)), [words(&HSRSP)]);
}

#[test]
fn an_old_one_is_not_given_leave_to_drop() {
    let mut bench = bench_of_version4(false);
    bench.handshake_request(at(1), &[0x0001_0007, 0b00_0101, 120]);
    assert_eq!(bench.responses(at(1)), [words(&[HSRSP[0], 0b11_0110, 120])]);
    assert!(!bench.connection.parameters().features.retransmission_flag);
}

#[test]
fn one_that_sends_without_times_is_delivered_by_arrival() {
    let mut bench = bench_of_version4(false);
    // Two words: SRT 1.0 left the latency out.
    bench.handshake_request(at(1), &[0x0001_0000, 0b100]);
    assert_eq!(bench.responses(at(1)), [words(&[HSRSP[0], 0b11_0100, 120])]);
    bench.put_data(at(10), &data(0, 50_000), &[]);
    assert_eq!(bench.indices(at(10 + LATENCY_MS)), [0]);
}

#[test]
fn its_key_is_asked_for_and_opens_what_it_sends_from_then_on() {
    let mut bench = bench_of_version4(true);
    let (mut sending, message, derive) = peer_keys(b"a good passphrase");
    for index in [0, 2] {
        let (header, payload) = sealed(&mut sending, data(index, 2), b"secret");
        bench.put_data(at(3), &header, &payload);
    }
    // They are acknowledged, or the peer would never send its key, and are nobody's yet; what is plain is not taken in.
    bench.put_data(at(3), &data(1, 2), b"in plain");
    assert_eq!(bench.out(at(3)), [Out::Ack(1, 1), Out::Nak(vec![(1, 1)])]);
    assert_eq!((bench.count().pkt_rcv_undecrypt, bench.count().pkt_rcv_unencrypted), (1, 1));
    assert!(bench.connection.poll_payload_early(at(3)).is_none());
    bench.handshake_request(at(4), &HSREQ);
    for ms in [5, 8] {
        bench.control(at(ms), |to, buffer| to.key_material_request(buffer, message.as_bytes()));
    }
    let events: Vec<_> = std::iter::from_fn(|| bench.connection.poll_event()).collect();
    // The second time in case the first came to nothing.
    assert_eq!(events, [Event::Introduced, Event::KeyWanted, Event::KeyWanted]);
    assert_eq!(bench.connection.wanted_key(), Some(&message));
    assert_eq!(bench.responses(at(8)), [words(&HSRSP)]);
    bench.connection.provide_key(derive(b"a good passphrase"));
    assert_eq!(bench.out(at(9)), [Out::KeyMaterialResponse(message.as_bytes().len())]);
    assert_eq!(bench.connection.poll_event(), Some(Event::Secured));
    let (header, payload) = sealed(&mut sending, DataHeader { retransmitted: true, ..data(1, 2) }, b"more of it");
    bench.put_data(at(20), &header, &payload);
    bench.put_data(at(20), &data(3, 19), b"in plain");
    let expected: [(u64, u32, &[u8]); 3] = [(0, 0, b"secret"), (1, 0, b"more of it"), (2, 0, b"secret")];
    assert_eq!(bench.payloads(at(400)), expected.map(|(index, lost, bytes)| (index, lost, bytes.to_vec())));
    assert_eq!(bench.count().pkt_rcv_unencrypted, 2);
    // A repeated request is answered alike.
    bench.control(at(401), |to, buffer| to.key_material_request(buffer, message.as_bytes()));
    assert!(bench.out(at(401)).contains(&Out::KeyMaterialResponse(message.as_bytes().len())));
    assert_eq!(bench.connection.poll_event(), None);
}

#[test]
fn no_more_waits_for_a_key_than_there_is_room_for_and_nothing_once_it_is_the_wrong_one() {
    let pool = PacketPool::new(PoolOptions { slots: 4_096, ..PoolOptions::default() }).expect("memory");
    let limits = Limits { receive_buffer_packets: 4_096, ..Limits::default() };
    let parameters = ConnectionParameters { ..bench_of_version4(true).connection.parameters };
    let mut bench = Bench { pool, ..bench_of(limits, parameters) };
    let (mut sending, message, derive) = peer_keys(b"a good passphrase");
    for index in 0..1_100 {
        let (header, payload) = sealed(&mut sending, data(index, 1), b"secret");
        bench.put_data(at(1), &header, &payload);
    }
    assert_eq!((bench.connection.held_packets(), bench.count().pkt_rcv_undecrypt), (1_024, 76));
    assert_eq!(bench.indices(at(60_000)), [0_u64; 0]);
    bench.control(at(2), |to, buffer| to.key_material_request(buffer, message.as_bytes()));
    bench.connection.provide_key(derive(b"another passphrase"));
    assert_eq!((bench.connection.held_packets(), bench.count().pkt_rcv_undecrypt), (0, 1_100), "dropped and counted");
}

#[test]
fn one_that_never_shows_a_key_keeps_no_place() {
    let ended = |bench: &mut Bench| {
        let events: Vec<_> = std::iter::from_fn(|| bench.connection.poll_event()).collect();
        let Some(Event::Closed(reason)) = events.last().copied() else { panic!("{events:?}") };
        assert_eq!((bench.connection.held_packets(), bench.connection.next_timeout()), (0, None));
        assert_eq!(bench.count().pkt_rcv_undecrypt, 1, "what has waited for a key");
        reason
    };
    let sealed_bench = || {
        let mut bench = bench_of_version4(true);
        let (mut sending, message, derive) = peer_keys(b"another passphrase");
        let (header, payload) = sealed(&mut sending, data(0, 2), b"secret");
        bench.put_data(at(3), &header, &payload);
        assert_eq!(bench.connection.held_packets(), 1);
        (bench, message, derive)
    };
    let (mut bench, ..) = sealed_bench();
    bench.control(at(5), |to, buffer| to.shutdown(buffer));
    assert_eq!(ended(&mut bench), CloseReason::PeerShutdown);
    let (mut bench, ..) = sealed_bench();
    bench.connection.handle_timeout(at(5_003));
    assert_eq!(ended(&mut bench), CloseReason::PeerIdle);
    // Keep-alives do not help, nor does a key of another passphrase.
    let (mut bench, message, derive) = sealed_bench();
    bench.control(at(4_000), |to, buffer| to.key_material_request(buffer, message.as_bytes()));
    bench.connection.provide_key(derive(b"a good passphrase"));
    bench.control(at(4_900), |to, buffer| to.keep_alive(buffer));
    bench.connection.handle_timeout(at(4_999));
    assert!(bench.connection.next_timeout().is_some_and(|next| next <= at(5_000)));
    bench.connection.handle_timeout(at(5_000));
    assert_eq!(ended(&mut bench), CloseReason::PeerIdle);
    // Who has shown it stays.
    let (mut bench, message, derive) = sealed_bench();
    bench.control(at(4_000), |to, buffer| to.key_material_request(buffer, message.as_bytes()));
    bench.connection.provide_key(derive(b"another passphrase"));
    bench.control(at(4_900), |to, buffer| to.keep_alive(buffer));
    bench.connection.handle_timeout(at(5_100));
    assert!(!bench.connection.is_closed());
}

#[test]
fn a_wrong_passphrase_is_told_and_derived_for_once_and_others_a_few_times_at_most() {
    let mut bench = bench_of_version4(true);
    let (mut asked, mut told) = (0, 0);
    for round in 0..40 {
        // The first is repeated once.
        let passphrase = format!("another passphrase {}", round.max(1));
        let (_, message, derive) = peer_keys(passphrase.as_bytes());
        bench.control(at(round), |to, buffer| to.key_material_request(buffer, message.as_bytes()));
        if bench.connection.wanted_key().is_some() {
            asked += 1;
            bench.connection.provide_key(derive(b"a good passphrase"));
        }
        assert_eq!(bench.out(at(round)), [Out::KeyMaterialResponse(4)]);
        let events = std::iter::from_fn(|| bench.connection.poll_event());
        told += events.filter(|event| *event == Event::KeyRefreshFailed(KeyMaterialState::BadSecret)).count();
    }
    assert_eq!((asked, told), (16, 1));
    assert_eq!(bench.connection.parameters().key_state, KeyMaterialState::BadSecret);
    assert_eq!(bench.count().key_refresh_failures, 40);
}

#[test]
fn a_key_that_cannot_be_used_is_refused_and_what_is_no_message_is_not_answered() {
    let mut bench = bench_of_version4(false);
    let (_, message, _) = peer_keys(b"a good passphrase");
    bench.control(at(1), |to, buffer| to.key_material_request(buffer, message.as_bytes()));
    assert_eq!(bench.out(at(1)), [Out::KeyMaterialResponse(4)]);
    assert_eq!(bench.connection.poll_event(), Some(Event::KeyRefreshFailed(KeyMaterialState::NoSecret)));
    let mut bench = bench_of_version4(true);
    for broken in [&message.as_bytes()[..40], &[0xff; 1_400], &[0xff; 72], &[]] {
        bench.put(at(2), &raw_control(0x7fff, 3, 0, broken));
        assert_eq!((bench.out(at(2)), bench.connection.wanted_key()), (vec![], None));
    }
    assert_eq!(bench.count().control_malformed, 4);
    let mut other_cipher = message.as_bytes().to_vec();
    other_cipher[8] = 3;
    bench.put(at(2), &raw_control(0x7fff, 3, 0, &other_cipher));
    assert_eq!((bench.out(at(2)), bench.connection.wanted_key()), (vec![Out::KeyMaterialResponse(4)], None));
}

#[test]
fn whoever_has_been_introduced_by_the_handshake_is_not_again() {
    let mut bench = bench();
    bench.handshake_request(at(1), &HSREQ);
    assert_eq!((bench.responses(at(1)), bench.count().control_ignored), (vec![], 1));
    let mut bench = bench_of_version4(false);
    bench.handshake_request(at(1), &HSREQ[..1]);
    assert_eq!((bench.responses(at(1)), bench.count().control_malformed), (vec![], 1));
}

#[test]
fn where_encryption_is_not_enforced_what_comes_in_plain_is_taken_and_no_place_is_lost() {
    let mut bench = bench_on(UNENFORCED);
    bench.put_data(at(3), &data(0, 2), b"in plain");
    assert_eq!(bench.connection.parameters().key_state, KeyMaterialState::Unsecured);
    bench.connection.handle_timeout(at(4_999));
    bench.put_data(at(5_001), &data(1, 2), b"in plain too");
    bench.connection.handle_timeout(at(5_002));
    assert_eq!(bench.indices(at(5_500)), [0, 1]);
    assert!(!bench.connection.is_closed());
    // Who shows a key after all is read, and is not believed in plain any more.
    let (mut sending, message, derive) = peer_keys(b"a good passphrase");
    bench.control(at(5_501), |to, buffer| to.key_material_request(buffer, message.as_bytes()));
    bench.connection.provide_key(derive(b"a good passphrase"));
    let (header, payload) = sealed(&mut sending, data(2, 2), b"secret");
    bench.put_data(at(5_502), &header, &payload);
    bench.put_data(at(5_503), &data(3, 2), b"in plain");
    assert_eq!(bench.payloads(at(6_000)), [(2, 0, b"secret".to_vec())]);
}

#[test]
fn where_encryption_is_not_enforced_what_cannot_be_read_is_dropped_and_counted() {
    let mut bench = bench_on(UNENFORCED);
    let (mut sending, message, derive) = peer_keys(b"another passphrase");
    for index in 0..3 {
        let (header, payload) = sealed(&mut sending, data(index, 2), b"secret");
        bench.put_data(at(3), &header, &payload);
    }
    assert_eq!(bench.connection.held_packets(), 3, "it waits for a key");
    bench.control(at(4), |to, buffer| to.key_material_request(buffer, message.as_bytes()));
    bench.connection.provide_key(derive(b"a good passphrase"));
    let (header, payload) = sealed(&mut sending, data(3, 2), b"secret");
    bench.put_data(at(5), &header, &payload);
    let counted = (bench.count().pkt_rcv_undecrypt, bench.count().byte_rcv_undecrypt);
    assert_eq!((bench.connection.held_packets(), counted), (0, (4, 4 * 6)));
    assert_eq!(bench.connection.parameters().key_state, KeyMaterialState::BadSecret);
    bench.control(at(4_900), |to, buffer| to.keep_alive(buffer));
    bench.connection.handle_timeout(at(5_100));
    assert!(!bench.connection.is_closed());
}

#[test]
fn what_has_waited_for_a_key_is_counted_when_the_first_comes_in_plain_and_a_wrong_key_then_takes_nothing_away() {
    let mut bench = bench_on(UNENFORCED);
    let (mut sending, message, derive) = peer_keys(b"another passphrase");
    for index in 0..3 {
        let (header, payload) = sealed(&mut sending, data(index, 2), b"secret");
        bench.put_data(at(3), &header, &payload);
    }
    bench.put_data(at(4), &data(3, 3), b"in plain");
    let counted = (bench.count().pkt_rcv_undecrypt, bench.count().byte_rcv_undecrypt);
    assert_eq!((bench.connection.held_packets(), counted), (1, (3, 3 * 6)));
    bench.control(at(5), |to, buffer| to.key_material_request(buffer, message.as_bytes()));
    bench.connection.provide_key(derive(b"a good passphrase"));
    assert_eq!(bench.connection.parameters().key_state, KeyMaterialState::BadSecret);
    assert_eq!(bench.payloads(at(400)), [(3, 3, b"in plain".to_vec())]);
    assert_eq!(bench.count().pkt_rcv_undecrypt, 3);
}

#[test]
fn one_that_passes_over_what_is_under_way_is_asked_again_as_soon_as_with_version_5_and_after_an_upgrade_too() {
    // The second is an older one, which answers every report.
    for (version, reports) in [(0x0001_0504, 3), (0x0001_0403, 2)] {
        let mut bench = bench_of_version4(false);
        bench.handshake_request(at(1), &[version, HSREQ[1], HSREQ[2]]);
        bench.out(at(1));
        assert_eq!(reports_of_a_loss(&mut bench), [reports; 2], "{version:x}");
    }
}
