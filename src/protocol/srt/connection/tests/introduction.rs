//! The sender's side of version 4 of the handshake: HSREQ and KMREQ after it.

use super::version4::{bench_of_version4, parameters_of_version4, peer_keys, reports_of_a_loss};
use super::*;
use crate::protocol::srt::encryption::KeyMaterial;
use crate::protocol::srt::parameters::Version4Terms;

/// What is said to a receiver of version 4: version, TSBPD, encryption, the flag "retransmitted"; 120 ms.
const HSREQ: [u32; 3] = [0x0001_0504, 0b10_0101, 120];
/// What libsrt 1.2.3 answers: TSBPD, encryption, TLPKTDROP, repeated loss reports, the flag; 300 ms.
const HSRSP: [u32; 3] = [0x0001_0203, 0b11_1110, 300];

/// A sender, with keys of ours if it has a message for them.
fn sender(keys: Option<(Encryption, KeyMaterial)>) -> Bench {
    let key_state = if keys.is_some() { KeyMaterialState::Securing } else { KeyMaterialState::Unsecured };
    let encryption = keys.map(|(mut encryption, message)| {
        encryption.announce_first(message);
        encryption
    });
    let terms = Version4Terms { latency_max_ms: u16::MAX, has_passphrase: false, enforced_encryption: true };
    let parameters = ConnectionParameters { key_state, ..parameters_of_version4(Role::Sender, terms, encryption) };
    bench_of(Limits { send_buffer_packets: 64, ..Limits::default() }, parameters)
}

fn respond(bench: &mut Bench, now: Instant, words_: &[u32]) {
    bench.put(now, &raw_control(0x7fff, 2, 0, &words(words_)));
}

fn events(bench: &mut Bench) -> Vec<Event> {
    std::iter::from_fn(|| bench.connection.poll_event()).filter(|event| *event != Event::Connected).collect()
}

#[test]
fn it_goes_out_before_the_first_media_and_what_is_answered_counts_from_then_on() {
    let mut bench = sender(None);
    bench.connection.send(at(1), b"media").unwrap();
    assert_eq!(bench.out(at(1)), [Out::HandshakeRequest(words(&HSREQ)), Out::Data(0, false)]);
    assert!(!bench.connection.is_introduced());
    respond(&mut bench, at(20), &HSRSP);
    assert_eq!(events(&mut bench), [Event::Introduced]);
    assert!(bench.connection.is_introduced());
    let parameters = bench.connection.parameters();
    assert_eq!((parameters.peer_version, parameters.send_latency_ms), (0x0001_0203, 300));
    let Features { send_by_timestamp, peer_drops_too_late, peer_repeats_loss_reports, retransmission_flag, .. } =
        parameters.features;
    assert!(send_by_timestamp && peer_drops_too_late && peer_repeats_loss_reports && retransmission_flag);
    assert_eq!(bench.count().ms_snd_tsb_pd_delay, 300);
    // It drops what is too late from then on, and flags what it sends again.
    bench.report_loss(at(30), 0, 0);
    assert_eq!(bench.out(at(30)), [Out::Data(0, true)]);
    bench.connection.handle_timeout(at(1_022));
    assert_eq!(bench.count().pkt_snd_drop, 1);
    // A second answer changes nothing.
    respond(&mut bench, at(1_023), &[0x0001_0000, 0b10, 900]);
    assert_eq!((bench.connection.parameters().send_latency_ms, bench.count().control_ignored), (300, 1));
}

#[test]
fn it_is_repeated_ever_more_rarely_until_it_is_answered() {
    let mut bench = sender(None);
    let mut said = Vec::new();
    for ms in 0..4_000 {
        bench.connection.handle_timeout(at(ms));
        let asked = bench.out(at(ms)).contains(&Out::HandshakeRequest(words(&HSREQ)));
        if asked {
            said.push(ms);
        }
        assert!(!asked || bench.connection.next_timeout().unwrap() > at(ms));
    }
    // 1½ round trips of 100 ms as long as none is measured.
    assert_eq!(said, [0, 150, 450, 900, 1_500, 2_250, 3_150]);
    assert_eq!(bench.connection.next_timeout(), Some(at(4_150)));
}

#[test]
fn what_is_sent_again_before_it_is_answered_carries_no_flag_and_nothing_is_dropped() {
    let mut bench = sender(None);
    bench.connection.send(at(1), b"media").unwrap();
    bench.out(at(1));
    bench.report_loss(at(30), 0, 0);
    assert!(bench.out(at(30)).contains(&Out::Data(0, false)));
    bench.connection.handle_timeout(at(3_000));
    assert_eq!(bench.count().pkt_snd_drop, 0);
}

#[test]
fn the_first_key_is_brought_until_the_peer_has_it() {
    let (sending, message, _) = peer_keys(b"a good passphrase");
    let mut bench = sender(Some((sending, message.clone())));
    let request = Out::KeyMaterialRequest(message.as_bytes().to_vec());
    assert_eq!(bench.out(at(0)), [Out::HandshakeRequest(words(&HSREQ)), request]);
    respond(&mut bench, at(20), &HSRSP);
    assert_eq!((events(&mut bench), bench.connection.is_introduced()), (vec![Event::Introduced], false));
    let request = Out::KeyMaterialRequest(message.as_bytes().to_vec());
    assert_eq!(bench.out(at(150)), [request]);
    bench.control(at(160), |to, buffer| to.key_material_response(buffer, message.as_bytes()));
    assert_eq!(events(&mut bench), [Event::Secured]);
    assert!(bench.connection.is_introduced());
    assert_eq!(bench.connection.parameters().key_state, KeyMaterialState::Secured);
    assert_eq!(bench.out(at(400)), []);
}

#[test]
fn a_peer_that_cannot_use_it_says_why_and_that_is_told_once() {
    for state in [KeyMaterialState::NoSecret, KeyMaterialState::BadSecret] {
        let (sending, message, _) = peer_keys(b"a good passphrase");
        let mut bench = sender(Some((sending, message)));
        bench.out(at(0));
        for ms in [10, 20] {
            bench.control(at(ms), |to, buffer| to.key_material_response(buffer, &state.to_wire()));
        }
        assert_eq!(events(&mut bench), [Event::KeyRefused(state)]);
        assert_eq!(bench.connection.parameters().key_state, state);
    }
}

#[test]
fn a_receiver_never_says_it_and_ignores_an_answer() {
    let mut bench = bench_of_version4(false);
    respond(&mut bench, at(1), &HSRSP);
    assert_eq!((bench.out(at(1)), bench.count().control_ignored), (vec![], 1));
    assert_eq!(bench.connection.parameters().peer_version, 0);
    let mut bench = sender(None);
    respond(&mut bench, at(1), &HSRSP[..1]);
    assert_eq!((bench.count().control_malformed, bench.connection.is_introduced()), (1, false));
}

#[test]
fn a_snapshot_goes_on_with_it() {
    let (sending, message, _) = peer_keys(b"a good passphrase");
    let mut bench = sender(Some((sending, message.clone())));
    bench.out(at(0));
    let mut snapshot = Vec::new();
    bench.connection.snapshot(&mut snapshot);
    let pool = bench.pool.clone();
    bench.connection =
        Connection::restore(&snapshot, 1 << 14, |bytes| pool.copy_from(bytes)).expect("what was just written");
    let request = Out::KeyMaterialRequest(message.as_bytes().to_vec());
    assert_eq!(bench.out(at(150)), [Out::HandshakeRequest(words(&HSREQ)), request]);
    respond(&mut bench, at(160), &HSRSP);
    bench.control(at(161), |to, buffer| to.key_material_response(buffer, message.as_bytes()));
    assert_eq!(events(&mut bench), [Event::Introduced, Event::Secured]);
    assert!(bench.connection.is_introduced());
}

#[test]
fn a_hostile_listener_gets_nothing_in_plain_and_has_no_more_held_for_it_than_there_is_room_for() {
    let (sending, message, _) = peer_keys(b"a good passphrase");
    let mut bench = sender(Some((sending, message.clone())));
    bench.out(at(0));
    // KMREQ of every length, which would bring a key of its own, or another state.
    let (_, foreign, _) = peer_keys(b"another passphrase");
    for length in 0..=foreign.as_bytes().len() {
        bench.put(at(1), &raw_control(0x7fff, 3, 0, &foreign.as_bytes()[..length]));
        bench.out(at(1));
    }
    // HSREQ, which a sender is not asked; HSRSP of every length, and one that asks for as much latency as can be said.
    bench.put(at(2), &raw_control(0x7fff, 1, 0, &words(&[u32::MAX, u32::MAX, 0xffff])));
    bench.out(at(2));
    for length in 0..8 {
        bench.put(at(3), &raw_control(0x7fff, 2, 0, &vec![0xff; length]));
    }
    assert!(!bench.connection.is_introduced());
    respond(&mut bench, at(4), &[u32::MAX, u32::MAX, u32::MAX]);
    assert_eq!(bench.connection.parameters().send_latency_ms, 120, "there is no such version");
    respond(&mut bench, at(4), &[0x0001_ffff, u32::MAX, u32::MAX]);
    assert_eq!(bench.connection.parameters().send_latency_ms, u16::MAX);
    assert_eq!(bench.connection.parameters().key_state, KeyMaterialState::Securing, "none of it was an answer to ours");
    let mut encrypted = 0;
    for n in 0..1_000 {
        let _ = bench.connection.send(at(5 + n), b"media");
        assert!(bench.connection.parameters().encryption.is_some());
        bench.buffer.clear();
        while bench.connection.poll_transmit(at(5 + n), &mut bench.buffer).is_some() {
            if let Ok(Header::Data(header)) = packet::parse(&bench.buffer) {
                assert_ne!(header.key, KeyFlag::Plain);
                encrypted += 1;
            }
            bench.buffer.clear();
        }
    }
    assert!(encrypted >= 64);
    assert_eq!(bench.connection.statistics().pkt_sent_unique, 64, "as much as there is room for");
}

#[test]
fn a_refusal_of_the_key_counts_only_from_the_peers_address_and_for_our_socket() {
    let (sending, message, _) = peer_keys(b"a good passphrase");
    let mut bench = sender(Some((sending, message)));
    bench.out(at(0));
    let refusal = |socket_id: u32| {
        let mut bytes = Vec::new();
        let to = ControlWriter { timestamp_us: 0, socket_id };
        to.key_material_response(&mut bytes, &KeyMaterialState::BadSecret.to_wire());
        bytes
    };
    let mut elsewhere = bench.datagram(at(1), &refusal(7));
    elsewhere.peer.set_port(elsewhere.peer.port() ^ 1);
    bench.connection.receive(at(1), elsewhere);
    bench.put(at(2), &refusal(8));
    bench.put(at(2), &refusal(0));
    assert_eq!((events(&mut bench), bench.connection.parameters().key_state), (vec![], KeyMaterialState::Securing));
    // Whoever has both is the peer, as far as anybody can tell.
    bench.put(at(3), &refusal(7));
    assert_eq!(events(&mut bench), [Event::KeyRefused(KeyMaterialState::BadSecret)]);
}

#[test]
fn where_both_send_the_version_in_the_answer_counts_for_what_is_asked_again_and_after_an_upgrade_too() {
    let parameters = ConnectionParameters { role: Role::Both, ..sender(None).connection.parameters };
    let limits = Limits { send_buffer_packets: 64, receive_buffer_packets: 256, ..Limits::default() };
    let mut bench = bench_of(limits, parameters);
    bench.out(at(0));
    respond(&mut bench, at(1), &[0x0001_0504, HSRSP[1], HSRSP[2]]);
    assert_eq!(reports_of_a_loss(&mut bench), [3; 2]);
}
