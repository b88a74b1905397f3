use super::*;
use crate::protocol::srt::address_proof::CHALLENGE_LEN;

fn new_home() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 50_001))
}

fn bench_of_secret(encryption: Option<Encryption>) -> Bench {
    let parameters =
        ConnectionParameters { address_secret: Some([1; 16]), ..parameters(Features::default(), encryption) };
    bench_of(Limits { receive_buffer_packets: 256, ..Limits::default() }, parameters)
}

/// The same under AES-GCM, and the keys of the sender.
fn bench_under_gcm() -> (Bench, Encryption) {
    let (mut sending, receiving) = keys(Cipher::AesGcm, KeyRefresh::default());
    let mut bench = bench_of_secret(Some(receiving));
    for index in 0..5 {
        let (header, payload) = sealed(&mut sending, data(index, index), &[0; 100]);
        bench.put_data(at(index), &header, &payload);
    }
    assert_eq!(bench.out(at(5)), [Out::Ack(1, 5)]);
    bench.control(at(6), |to, buffer| to.acknowledgement_receipt(buffer, 1));
    (bench, sending)
}

/// Who has heard the first five packets by 5 ms, and acknowledged them.
fn bench_of_listener() -> Bench {
    let mut bench = bench_of_secret(None);
    for index in 0..5 {
        bench.put_data(at(index), &data(index, index), &[0; 100]);
    }
    assert_eq!(bench.out(at(5)), [Out::Ack(1, 5)]);
    bench.control(at(6), |to, buffer| to.acknowledgement_receipt(buffer, 1));
    bench
}

impl Bench {
    fn put_from(&mut self, peer: SocketAddr, now: Instant, bytes: &[u8]) {
        let mut datagram = self.datagram(now, bytes);
        datagram.peer = peer;
        self.connection.receive(now, datagram);
    }

    fn put_data_from(&mut self, peer: SocketAddr, now: Instant, header: &DataHeader) {
        let mut bytes = vec![0; HEADER_LEN + 100];
        header.encode(bytes.first_chunk_mut().expect("as long as a header"));
        self.put_from(peer, now, &bytes);
    }

    fn put_sealed_from(&mut self, peer: SocketAddr, now: Instant, (header, payload): &(DataHeader, Vec<u8>)) {
        let mut bytes = [0; HEADER_LEN];
        header.encode(&mut bytes);
        self.put_from(peer, now, &[&bytes, &payload[..]].concat());
    }

    fn control_from(&mut self, peer: SocketAddr, ms: u64, write: impl FnOnce(ControlWriter, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(ControlWriter { timestamp_us: (ms * 1_000) as u32, socket_id: 7 }, &mut bytes);
        self.put_from(peer, at(ms), &bytes);
    }

    fn answer_from(&mut self, peer: SocketAddr, ms: u64, number: u32) {
        self.control_from(peer, ms, |to, buffer| to.acknowledgement_receipt(buffer, number));
    }

    /// The number of the challenge that goes out now, and where it goes, if there is one.
    fn challenge(&mut self, now: Instant) -> Option<(SocketAddr, u32)> {
        let before = self.count().pkt_sent_challenge;
        self.buffer.clear();
        let transmit = self.connection.poll_transmit(now, &mut self.buffer)?;
        if self.count().pkt_sent_challenge == before {
            return None;
        }
        assert_eq!((transmit.len, self.buffer.len()), (CHALLENGE_LEN, CHALLENGE_LEN));
        let Ok(Header::Control(header)) = packet::parse(&self.buffer) else { panic!("a control packet") };
        assert_eq!(header.socket_id, 9);
        let Ok(Control::Acknowledgement(ack)) = Control::parse(&header, &self.buffer[HEADER_LEN..]) else {
            panic!("an acknowledgement")
        };
        assert!(ack.report.is_some_and(|report| report.rates.is_none()));
        Some((transmit.peer, ack.number))
    }

    fn destination(&mut self, now: Instant) -> SocketAddr {
        self.buffer.clear();
        self.connection.poll_transmit(now, &mut self.buffer).expect("something to say").peer
    }
}

#[test]
fn a_peer_that_answers_a_challenge_from_a_new_address_is_there_from_then_on() {
    let mut bench = bench_of_listener();
    bench.put_data_from(new_home(), at(20), &data(8, 20));
    assert_eq!(bench.payloads(at(500)).len(), 5, "nothing unproven is taken in");
    let (to, number) = bench.challenge(at(20)).expect("asked");
    assert_eq!(to, new_home());
    assert!(number > 10, "not one more than the last");
    let next = u32::from_be_bytes(bench.buffer[HEADER_LEN..HEADER_LEN + 4].try_into().expect("four bytes"));
    assert_eq!(u64::from(next), FIRST + 5, "what the peer was told already");
    assert_eq!(bench.out(at(20)), []);

    bench.answer_from(new_home(), 50, number);
    assert_eq!(bench.connection.poll_event(), Some(Event::PeerChanged { from: peer(), to: new_home() }));
    assert_eq!(bench.count().peer_changes, 1);
    // At once it is told how far it was heard, and then asked for what was not taken in.
    assert_eq!(bench.destination(at(50)), new_home());
    assert_eq!(bench.out(at(50)), []);
    bench.put_data_from(new_home(), at(51), &data(9, 51));
    assert_eq!(bench.out(at(51)), [Out::Nak(vec![(5, 8)])]);
    for number in 5..9 {
        bench.put_data_from(new_home(), at(60), &data(number, 20));
    }
    assert_eq!(bench.payloads(at(500)).len(), 5);

    // The old address is one of many now.
    let heard = bench.count().pkt_recv;
    bench.put_data(at(500), &data(10, 500), &[0; 100]);
    assert_eq!(bench.count().pkt_recv, heard);
    bench.control(at(501), ControlWriter::shutdown);
    assert!(!bench.connection.is_closed());
}

#[test]
fn what_was_acknowledged_last_is_told_again_where_the_peer_is_now() {
    let mut bench = bench_of_listener();
    bench.put_data_from(new_home(), at(40), &data(5, 40));
    let (_, number) = bench.challenge(at(40)).expect("asked");
    bench.answer_from(new_home(), 45, number);
    assert_eq!(bench.out(at(45)), [Out::Ack(2, 5)]);
    // The first round trip there replaces what was measured elsewhere, of 1 ms.
    assert_eq!(bench.connection.rtt(), Duration::from_millis(1));
    bench.answer_from(new_home(), 65, 2);
    assert_eq!(bench.connection.rtt(), Duration::from_millis(20));
}

#[test]
fn no_answer_counts_as_long_as_the_peer_is_heard_where_it_was() {
    let mut bench = bench_of_listener();
    let mut answered = 0;
    for ms in 7..100 {
        bench.put_data(at(ms), &data(ms, ms), &[0; 100]);
        bench.put_data_from(new_home(), at(ms), &data(ms + 1, ms));
        if let Some((to, number)) = bench.challenge(at(ms)) {
            bench.answer_from(to, ms, number);
            answered += 1;
        }
    }
    assert!(answered > 1, "asked all the same: it may fall silent at any time");
    assert_eq!(bench.connection.parameters().peer, peer());
}

#[test]
fn only_the_newest_numbers_sent_to_an_address_prove_it() {
    let mut bench = bench_of_listener();
    bench.put_data_from(new_home(), at(40), &data(5, 40));
    let (_, number) = bench.challenge(at(40)).expect("asked");
    let neighbour = SocketAddr::from(([192, 0, 2, 1], 50_002));
    bench.answer_from(neighbour, 50, number);
    bench.answer_from(new_home(), 50, number ^ 1);
    for ordinary in 0..10 {
        bench.answer_from(new_home(), 50, ordinary);
    }
    bench.answer_from(new_home(), 2_040, number);
    assert_eq!((bench.connection.parameters().peer, bench.count().peer_changes), (peer(), 0));
}

#[test]
fn what_cannot_be_the_peers_is_not_answered_at_all() {
    let mut bench = bench_of_listener();
    let stale = |index| DataHeader { timestamp_us: 0x8000_0000, ..data(index, 0) };
    for (peer, header) in [
        // Known already; beyond the buffer; of another time; for another connection; over another version of IP.
        (new_home(), data(4, 20)),
        (new_home(), data(5 + 256, 20)),
        (new_home(), stale(5)),
        (new_home(), DataHeader { socket_id: 8, ..data(5, 20) }),
        (SocketAddr::from(([0x2001_u16, 0xdb8, 0, 0, 0, 0, 0, 1], 9)), data(5, 20)),
    ] {
        bench.put_data_from(peer, at(20), &header);
        assert_eq!(bench.challenge(at(20)), None, "{header:?}");
    }
    for kind in [0, 1, 2, 3, 4, 5, 6, 7, 8, 0x7fff] {
        bench.put_from(new_home(), at(20), &raw_control(kind, 0, 0, &[0; 100]));
        assert_eq!(bench.challenge(at(20)), None, "control packet {kind}");
    }
    assert_eq!(bench.count().pkt_wrong_peer, 15);
    assert!(!bench.connection.is_closed());

    let mut caller = bench_of(Limits::default(), parameters(Features::default(), None));
    caller.put_data_from(new_home(), at(40), &data(0, 40));
    assert_eq!(caller.out(at(40)), [], "a connection without a secret");
}

#[test]
fn a_peer_that_says_nothing_but_that_it_lives_may_move_too() {
    let mut bench = bench_of_listener();
    // A second and a half after it was heard last.
    for (ms, is_asked) in [(1_000, false), (1_100, false), (1_600, false), (2_600, true)] {
        bench.out(at(ms));
        bench.control_from(new_home(), ms, |to, buffer| to.keep_alive(buffer));
        let challenge = bench.challenge(at(ms));
        assert_eq!(challenge.is_some(), is_asked, "{ms} ms: two of its packets are as long as one of ours");
        if let Some((to, number)) = challenge {
            bench.answer_from(to, ms + 20, number);
        }
    }
    assert_eq!(bench.connection.parameters().peer, new_home());
}

#[test]
fn a_peer_that_was_missed_for_longer_than_the_buffer_reaches_goes_on_from_elsewhere() {
    let mut bench = bench_of_listener();
    bench.payloads(at(500));
    bench.put_data_from(new_home(), at(3_000), &data(3_000, 3_000));
    let (to, number) = bench.challenge(at(3_000)).expect("asked, whatever the number");
    bench.answer_from(to, 3_020, number);
    for index in 3_020..3_030 {
        bench.put_data_from(to, at(index), &data(index, index));
    }
    let payloads = bench.payloads(at(3_500));
    assert_eq!((payloads.len(), payloads[0].0), (9, 3_021), "the receiver has followed");
}

/// The share of the latency for which the peer must not have been heard.
const QUIET_MS: u64 = LATENCY_MS / 4;

#[test]
fn under_aes_gcm_a_packet_from_elsewhere_is_taken_in_and_proves_that_the_peer_is_there() {
    let (mut bench, mut sending) = bench_under_gcm();
    let packets: Vec<_> = (5..9).map(|index| sealed(&mut sending, data(index, index), &[index as u8; 100])).collect();
    bench.put_sealed_from(new_home(), at(6 + QUIET_MS), &packets[0]);
    assert_eq!(bench.connection.poll_event(), Some(Event::PeerChanged { from: peer(), to: new_home() }));
    assert_eq!((bench.count().peer_changes, bench.count().pkt_sent_challenge), (1, 0));
    assert_eq!(bench.destination(at(6 + QUIET_MS)), new_home());
    // On its way since before the move: the peer's all the same, and no reason to look for it there.
    bench.put_sealed_from(new_home(), at(40), &packets[3]);
    bench.put_sealed_from(peer(), at(400), &packets[1]);
    assert_eq!(bench.connection.parameters().peer, new_home());
    bench.put_sealed_from(new_home(), at(400), &packets[2]);
    assert_eq!(bench.indices(at(500)), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((bench.count().peer_changes, bench.count().pkt_rcv_undecrypt), (1, 0));
}

#[test]
fn under_aes_gcm_nothing_repeated_or_forged_moves_the_peer_or_is_taken_in() {
    let (mut bench, mut sending) = bench_under_gcm();
    let known = sealed(&mut keys(Cipher::AesGcm, KeyRefresh::default()).0, data(0, 0), &[0; 100]);
    let (header, mut forged) = sealed(&mut sending, data(5, 5), &[5; 100]);
    let genuine = (header, forged.clone());
    forged[7] ^= 1;
    bench.put_sealed_from(new_home(), at(200), &known);
    bench.put_sealed_from(new_home(), at(201), &(header, forged));
    bench.put_sealed_from(new_home(), at(202), &(data(5, 5), vec![5; 100]));
    let count = bench.count();
    assert_eq!((count.pkt_wrong_peer, count.pkt_rcv_not_authentic, count.peer_changes), (3, 1, 0));
    assert_eq!((bench.connection.parameters().peer, bench.connection.held_packets()), (peer(), 5));
    // The place of the real one is free.
    bench.put_data(at(203), &genuine.0, &genuine.1);
    assert_eq!(bench.indices(at(500)), [0, 1, 2, 3, 4, 5]);
    // Taken in again from elsewhere it moves nothing either.
    bench.put_sealed_from(new_home(), at(501), &genuine);
    assert_eq!((bench.count().peer_changes, bench.connection.parameters().peer), (0, peer()));
}

#[test]
fn under_aes_gcm_too_the_peer_is_where_it_is_heard() {
    let (mut bench, mut sending) = bench_under_gcm();
    for index in 5..100 {
        // Somebody repeats each packet from elsewhere before it arrives itself.
        let packet = sealed(&mut sending, data(index, index), &[0; 100]);
        bench.put_sealed_from(new_home(), at(index), &packet);
        bench.put_data(at(index), &packet.0, &packet.1);
    }
    assert_eq!((bench.connection.parameters().peer, bench.count().peer_changes), (peer(), 0));
    assert_eq!(bench.indices(at(500)).len(), 100, "copies are as good as what they are copied from");
}

#[test]
fn aes_gcm_of_libsrt_1_5_3_proves_nothing() {
    let (mut sending, mut receiving) = keys(Cipher::AesGcm, KeyRefresh::default());
    sending.set_peer_version(0x0001_0503);
    receiving.set_peer_version(0x0001_0503);
    let mut bench = bench_of_secret(Some(receiving));
    let packet = sealed(&mut sending, data(0, 40), &[0; 100]);
    bench.put_sealed_from(new_home(), at(40), &packet);
    assert_eq!((bench.count().peer_changes, bench.connection.held_packets()), (0, 0));
    assert_eq!(bench.challenge(at(40)).map(|(to, _)| to), Some(new_home()), "it is asked");
}

#[test]
fn an_observer_who_answers_in_the_pauses_of_a_sender_of_bursts_takes_nothing_away() {
    let mut bench = bench_of_listener();
    let mut asked = 0;
    let mut sequence = 5;
    for burst in 1..100 {
        let began_ms = 40 * burst;
        for _ in 0..4 {
            bench.put_data(at(began_ms), &data(sequence, began_ms), &[0; 100]);
            sequence += 1;
        }
        bench.control(at(began_ms + 2), |to, buffer| to.keep_alive(buffer));
        bench.payloads(at(began_ms + 2));
        bench.out(at(began_ms + 2));
        // What is to come next, as far as he can tell, and the right answer at the end of the pause.
        bench.put_data_from(new_home(), at(began_ms + 3), &data(sequence, began_ms + 3));
        if let Some((_, number)) = bench.challenge(at(began_ms + 3)) {
            asked += 1;
            bench.answer_from(new_home(), began_ms + 39, number);
        }
        assert_eq!(bench.connection.parameters().peer, peer(), "after {burst} bursts");
    }
    assert!(asked > 50, "{asked}");
    // When the sender has fallen silent for longer than ever, the one who answers is there.
    bench.put_data_from(new_home(), at(4_050), &data(sequence, 4_050));
    let (_, number) = bench.challenge(at(4_050)).expect("asked");
    bench.answer_from(new_home(), 4_100, number);
    assert_eq!(bench.connection.parameters().peer, new_home());
}
