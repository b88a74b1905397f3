//! What was found wrong in other implementations, tried here (tests/ATTACKS.md says which test is which fault's).

use super::*;

/// A body of this length that looks like key material from its first byte on.
fn key_material_like(length: usize) -> Vec<u8> {
    let head = [0x12, 0x20, 0x29, 1, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 4, 4];
    head.into_iter().chain(std::iter::repeat(0xff)).take(length).collect()
}

#[test]
fn key_material_of_every_length_after_the_handshake_changes_no_key_and_takes_no_memory() {
    let (mut bench, mut sending) = secured();
    let capacity = bench.connection.key_material_response.capacity();
    let (first, payload) = sealed(&mut sending, data(0, 0), b"under a key");
    bench.put_data(at(0), &first, &payload);
    for length in (0..=1_456).step_by(4).chain([1, 2, 3, 5, 15, 17, 103, 105]) {
        for body in [key_material_like(length), vec![0xff; length]] {
            bench.put(at(1), &raw_control(0x7fff, 3, 0, &body));
            bench.put(at(1), &raw_control(0x7fff, 4, 0, &body));
        }
        for out in bench.out(at(1)) {
            let is_harmless = matches!(out, Out::KeyMaterialResponse(4) | Out::Ack(..));
            assert!(is_harmless, "{length}: a state, never what was sent: {out:?}");
        }
    }
    assert_eq!(bench.connection.key_material_response.capacity(), capacity);
    assert_eq!(bench.count().key_refreshes, 0);
    let (second, payload) = sealed(&mut sending, data(1, 1), b"and so is this");
    bench.put_data(at(2), &second, &payload);
    assert_eq!(bench.payloads(at(200)).len(), 2, "the keys are the old ones");
}

#[test]
fn a_forged_state_in_answer_to_new_keys_does_not_make_the_sender_go_on_in_plain() {
    let (sending, _) = keys(Cipher::AesCtr, KeyRefresh { after_packets: 10, announce_packets: 2 });
    let mut bench = bench_with(Limits { send_buffer_packets: 64, ..Limits::default() }, Some(sending));
    for index in 0..30_u8 {
        bench.connection.send(at(0), &[index; 100]).expect("room");
        for state in 0..=5_u8 {
            bench.put(at(0), &raw_control(0x7fff, 4, 0, &[state, 0, 0, 0]));
            bench.put(at(0), &raw_control(0x7fff, 4, 0, &[0, 0, 0, state]));
        }
        bench.buffer.clear();
        while bench.connection.poll_transmit(at(0), &mut bench.buffer).is_some() {
            if let Ok(Header::Data(header)) = packet::parse(&bench.buffer) {
                assert_ne!(header.key, KeyFlag::Plain);
                assert!(!bench.buffer.ends_with(&[index; 100]), "encrypted");
            }
            bench.buffer.clear();
        }
    }
    assert_eq!(bench.count().pkt_sent_unique, 30);
}

#[test]
fn loss_reports_of_all_numbers_and_of_none_send_nothing_that_was_not_sent() {
    let mut bench = bench();
    for index in 0..10 {
        bench.connection.send(at(0), &[index]).expect("room");
    }
    bench.out(at(0));
    let number = |offset: u64| ((FIRST + offset) & 0x7fff_ffff) as u32;
    // All numbers that there are, from every side; odd lengths; as many as fit a datagram.
    for (first, last) in [(0, 0x7fff_ffff), (number(10), number(9)), (number(0x2000_0000), number(0x3fff_ffff))] {
        bench.put(at(1), &raw_control(3, 0, 0, &words(&[0x8000_0000 | first, last])));
    }
    for length in 1..40 {
        bench.put(at(1), &raw_control(3, 0, 0, &vec![0x11; length]));
    }
    bench.put(at(1), &raw_control(3, 0, 0, &words(&[number(0x1000_0000); 360])));
    let sent = bench.out(at(1));
    assert!(sent.iter().all(|out| matches!(out, Out::Data(index, true) if *index < 10)), "{sent:?}");
    assert!(sent.len() <= 10, "each once: {sent:?}");
    assert!(bench.count().pkt_snd_loss <= 10, "{}", bench.count().pkt_snd_loss);
}

#[test]
fn forged_receipts_of_acknowledgements_move_neither_the_round_trip_nor_the_clock() {
    let mut bench = bench();
    for index in 0..200 {
        bench.put_data(at(index), &data(index, index), &[0; 100]);
    }
    let sent = bench.out(at(200));
    assert_eq!(sent.iter().filter(|out| **out == Out::Ack(1, 200)).count(), 1, "{sent:?}");
    let before = (bench.connection.rtt(), bench.count().us_drift);
    for forged in (2..2_000).chain([0, 0x7fff_ffff, 0x8000_0001, u32::MAX]) {
        bench.put(at(201), &raw_control(6, 0, forged, &[0; 4]));
    }
    bench.connection.gauge();
    assert_eq!((bench.connection.rtt(), bench.count().us_drift), before);
    assert_eq!((bench.count().pkt_recv_ackack, bench.count().control_rejected), (0, 2_002));
    bench.control(at(230), |to, buffer| to.acknowledgement_receipt(buffer, 1));
    assert_eq!(bench.count().pkt_recv_ackack, 1, "the real one still counts");
}

#[test]
fn drop_requests_of_every_shape_move_the_window_nowhere_that_it_could_not_go() {
    let mut bench = bench();
    for index in 0..5 {
        bench.put_data(at(index), &data(index, index), &[0; 100]);
    }
    let number = |offset: i64| (FIRST as i64 + offset) as u32 & 0x7fff_ffff;
    for (first, last) in [(0, 256), (0, 0x3fff_ffff), (6, 7), (-0x3000_0000, 300), (5, 4), (250, 255)] {
        bench.put(at(5), &raw_control(7, 0, 1, &words(&[number(first), number(last)])));
    }
    for length in 0..8 {
        bench.put(at(5), &raw_control(7, 0, 1, &vec![0; length]));
    }
    assert_eq!(bench.count().pkt_recv_drop_request, 0);
    bench.put_data(at(6), &data(5, 6), &[0; 100]);
    assert_eq!(bench.payloads(at(500)).len(), 6);
    assert_eq!(bench.count().pkt_rcv_drop, 0);
}

/// Every way to spoof without being on the path, against a connection under these keys. The real packets come afterwards, and all
/// must be delivered.
fn is_not_displaced(cipher: Option<Cipher>) {
    let pair = cipher.map(|cipher| keys(cipher, KeyRefresh::default()));
    let (mut sending, receiving) = pair.map_or((None, None), |(sending, receiving)| (Some(sending), Some(receiving)));
    let secret = ConnectionParameters { address_secret: Some([1; 16]), ..parameters(Features::default(), receiving) };
    let mut bench = bench_of(Limits { receive_buffer_packets: 256, ..Limits::default() }, secret);
    let elsewhere = SocketAddr::from(([203, 0, 113, 9], 40_000));
    let mut seal = |header: DataHeader, payload: &[u8]| match &mut sending {
        Some(sending) => sealed(sending, header, payload),
        None => (header, payload.to_vec()),
    };
    let forged = vec![0xee; 100];
    for index in 0..100 {
        let (header, genuine) = seal(data(index, index), &[index as u8; 100]);
        let mut bytes = [0; HEADER_LEN];
        header.encode(&mut bytes);
        // From another address, in the window, under the right flags: with what an observer could repeat, and with nonsense.
        let datagram = bench.datagram(at(index), &[&bytes[..], &forged].concat());
        bench.connection.receive(at(index), Datagram { peer: elsewhere, ..datagram });
        let datagram = bench.datagram(at(index), &[&bytes[..], &[0; 116]].concat());
        bench.connection.receive(at(index), Datagram { peer: SocketAddr::new(peer().ip(), 9), ..datagram });
        // From the peer's address: outside of the window on both sides, and with another socket id.
        for outside in [index + 256, index + 0x2000_0000] {
            bench.put_data(
                at(index),
                &DataHeader { sequence: SequenceNumber::new(FIRST + outside), ..header },
                &forged,
            );
        }
        bench.put_data(at(index), &DataHeader { socket_id: 8, ..header }, &forged);
        if cipher == Some(Cipher::AesGcm) {
            // In the window and under the wrong key.
            bench.put_data(at(index), &header, &[&forged[..], &[0; 16]].concat());
        }
        if cipher.is_some() {
            bench.put_data(at(index), &data(index, index), &forged);
        }
        bench.put_data(at(index), &header, &genuine);
    }
    let arrived = bench.payloads(at(1_000));
    assert_eq!(arrived.len(), 100, "{cipher:?}");
    for (index, (sequence, lost, payload)) in arrived.iter().enumerate() {
        assert_eq!((*sequence, *lost, payload), (index as u64, 0, &vec![index as u8; 100]), "{cipher:?}");
    }
    assert_eq!((bench.count().pkt_rcv_drop, bench.count().sequence_jumps, bench.count().peer_changes), (0, 0, 0));
}

#[test]
fn spoofed_packets_displace_no_real_one_in_any_mode() {
    for cipher in [None, Some(Cipher::AesCtr), Some(Cipher::AesGcm)] {
        is_not_displaced(cipher);
    }
}

#[test]
fn what_only_aes_gcm_defends_is_as_it_is_said_to_be() {
    // From the peer's own address, with its socket id and the next number: who can do that is believed in plain and under AES-CTR, where
    // nothing tells his packet from a real one (README, "What an attacker can do").
    let (mut sending, receiving) = keys(Cipher::AesCtr, KeyRefresh::default());
    let mut under_ctr = bench_with(Limits::default(), Some(receiving));
    let (header, genuine) = sealed(&mut sending, data(0, 0), b"real");
    under_ctr.put_data(at(0), &header, b"fake");
    under_ctr.put_data(at(1), &header, &genuine);
    let arrived = under_ctr.payloads(at(200));
    assert_eq!((arrived.len(), under_ctr.count().pkt_rcv_duplicate), (1, 1));
    assert_ne!(arrived[0].2, b"real");
    let (mut sending, receiving) = keys(Cipher::AesGcm, KeyRefresh::default());
    let mut under_gcm = bench_with(Limits::default(), Some(receiving));
    let (header, genuine) = sealed(&mut sending, data(0, 0), b"real");
    under_gcm.put_data(at(0), &header, &[b"fake", &[0; 16][..]].concat());
    under_gcm.put_data(at(1), &header, &genuine);
    assert_eq!(under_gcm.payloads(at(200)), [(0, 0, b"real".to_vec())]);
}
