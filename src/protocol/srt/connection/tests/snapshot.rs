use super::*;
use crate::protocol::srt::snapshot::{RestoreError, SNAPSHOT_HEADER_LEN, SnapshotKind, VERSION, seal};

fn bytes_of(connection: &Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    connection.snapshot(&mut bytes);
    bytes
}

impl Bench {
    /// The same bench with what a snapshot of its connection becomes, in memory of its own.
    pub(super) fn restored(&self) -> Bench {
        let pool = PacketPool::new(PoolOptions { slots: 1_024, ..PoolOptions::default() }).expect("memory");
        let connection = Connection::restore(&bytes_of(&self.connection), 256, |bytes| pool.copy_from(bytes));
        Bench { connection: connection.expect("what was just written"), pool, buffer: Vec::new() }
    }
}

/// In the middle of everything: packets held behind a gap, one delivered, packets sent and one of them reported lost, keys announced,
/// an event not polled.
fn busy_bench(cipher: Cipher) -> (Bench, Encryption) {
    let refresh = KeyRefresh { after_packets: 20, announce_packets: 5 };
    let (mut peers, own) = keys(cipher, refresh);
    let limits = Limits { send_buffer_packets: 256, receive_buffer_packets: 256, ..Limits::default() };
    let parameters =
        ConnectionParameters { address_secret: Some([1; 16]), ..parameters(Features::default(), Some(own)) };
    let mut bench = bench_of(limits, parameters);
    for index in [0, 1, 2, 5, 6, 9] {
        let (header, payload) = sealed(&mut peers, data(index, index), &[index as u8; 100]);
        bench.put_data(at(index), &header, &payload);
        bench.out(at(index));
    }
    assert_eq!(bench.indices(at(LATENCY_MS)), [0]);
    for n in 0..18 {
        bench.connection.send(at(120 + n), &[n as u8; 50]).expect("there is room");
        bench.out(at(120 + n));
    }
    bench.report_loss(at(140), 3, 4);
    bench.control(at(140), |to, buffer| to.acknowledgement_receipt(buffer, 1));
    bench.connection.event(Event::PeerError { code: 4_000 });
    (bench, peers)
}

#[test]
fn a_snapshot_begins_with_its_name_and_version_and_ends_with_its_checksum() {
    let bytes = bytes_of(&bench().connection);
    assert_eq!(bytes[..8], *b"HWSC\x05\0\0\0");
    assert_eq!(bytes[8..12], ((bytes.len() - SNAPSHOT_HEADER_LEN - 4) as u32).to_le_bytes());
    let (content, checksum) = bytes.split_last_chunk::<4>().expect("longer");
    assert_eq!(u32::from_le_bytes(*checksum), crc32c::crc32c(content));
    assert_eq!(seal(SnapshotKind::Connection, &content[SNAPSHOT_HEADER_LEN..]), bytes);
    assert!(bytes.len() < 2_048, "{}", bytes.len());
}

#[test]
fn what_is_no_snapshot_is_refused_with_the_reason() {
    let bench = busy_bench(Cipher::AesCtr).0;
    let bytes = bytes_of(&bench.connection);
    let restore = |bytes: &[u8]| {
        Connection::restore(bytes, 256, |bytes| bench.pool.copy_from(bytes)).map(drop).expect_err("not as it was")
    };
    assert_eq!(restore(&[]), RestoreError::NoSnapshot);
    assert_eq!(restore(&bytes[1..]), RestoreError::NoSnapshot);
    let changed = |at: usize, to: u8| {
        let mut changed = bytes.clone();
        changed[at] = to;
        changed
    };
    assert_eq!(restore(&changed(4, 9)), RestoreError::Version(9));
    assert_ne!(VERSION, 9);
    assert_eq!(restore(&changed(6, 1)), RestoreError::Kind(1), "of a group");
    for length in SNAPSHOT_HEADER_LEN..bytes.len() {
        assert_eq!(restore(&bytes[..length]), RestoreError::Length);
    }
    assert_eq!(restore(&[&bytes[..], &[0]].concat()), RestoreError::Length);
    for (at, byte) in bytes.iter().enumerate().skip(SNAPSHOT_HEADER_LEN) {
        assert_eq!(restore(&changed(at, !byte)), RestoreError::Checksum);
    }
    let body = &bytes[SNAPSHOT_HEADER_LEN..bytes.len() - 4];
    let seal = |body: &[u8]| seal(SnapshotKind::Connection, body);
    assert_eq!(restore(&seal(&body[..body.len() - 1])), RestoreError::Length);
    assert_eq!(restore(&seal(&[body, &[0]].concat())), RestoreError::Length);
    let refused = |slots, packet: Option<()>| {
        Connection::restore(&bytes, slots, |bytes| packet.and_then(|()| bench.pool.copy_from(bytes))).map(drop)
    };
    assert_eq!(refused(255, Some(())), Err(RestoreError::TooLarge(256)));
    assert_eq!(refused(256, None), Err(RestoreError::NoMemory));
    assert_eq!(refused(256, Some(())), Ok(()));
    assert_eq!(bench.pool.in_use(), bench.connection.held_packets(), "what was refused holds no packet memory");
}

#[test]
fn who_was_restored_does_byte_for_byte_what_the_one_it_was_taken_of_does() {
    for cipher in [Cipher::AesCtr, Cipher::AesGcm] {
        let (mut first, mut peers) = busy_bench(cipher);
        let mut second = first.restored();
        assert_eq!(bytes_of(&second.connection), bytes_of(&first.connection));
        assert_eq!(second.connection.held_packets(), 5);
        assert_eq!(second.connection.poll_event(), first.connection.poll_event());
        for ms in 141..900 {
            let mut both = |act: &mut dyn FnMut(&mut Bench)| [&mut first, &mut second].into_iter().for_each(act);
            match ms % 40 {
                // Late ones, new ones with gaps, and some that were there before.
                0 => {
                    let index = (ms / 40) * 3;
                    let (header, payload) = sealed(&mut peers, data(index, ms), &[ms as u8; 60]);
                    both(&mut |bench| bench.put_data(at(ms), &header, &payload));
                }
                10 => both(&mut |bench| bench.connection.send(at(ms), &[ms as u8; 30]).expect("there is room")),
                20 => both(&mut |bench| bench.acknowledge(at(ms), ms as u32, ms / 80)),
                30 => both(&mut |bench| {
                    bench.control(at(ms), |to, buffer| to.acknowledgement_receipt(buffer, (ms / 40) as u32))
                }),
                _ => {}
            }
            let mut seen = [&mut first, &mut second].map(|bench| {
                bench.connection.handle_timeout(at(ms));
                let mut sent = Vec::new();
                while bench.connection.poll_transmit(at(ms), &mut sent).is_some() {}
                (sent, bench.payloads(at(ms)), bench.connection.poll_event(), bench.connection.next_timeout())
            });
            let second_seen = std::mem::take(&mut seen[1]);
            assert_eq!(seen[0], second_seen, "at {ms} ms");
        }
        assert!(first.count().pkt_delivered > 10 && first.count().pkt_retrans > 0 && first.count().pkt_sent_nak > 3);
        assert_eq!(bytes_of(&second.connection), bytes_of(&first.connection));
    }
}

#[test]
fn a_connection_that_ends_can_be_put_down_at_each_step_of_it() {
    let mut bench = bench();
    for index in [0, 1, 3] {
        bench.put_data(at(index), &data(index, index), b"x");
    }
    bench.control(at(10), |to, buffer| to.shutdown(buffer));
    let mut bench = bench.restored();
    assert!(!bench.connection.is_closed());
    assert_eq!(
        bench.payloads(at(LATENCY_MS + 3)),
        [(0, 0, b"x".to_vec()), (1, 0, b"x".to_vec()), (3, 1, b"x".to_vec())]
    );
    assert!(bench.indices(at(LATENCY_MS + 3)).is_empty());
    let mut bench = bench.restored();
    assert_eq!(bench.connection.poll_event(), Some(Event::Closed(CloseReason::PeerShutdown)));
    assert!(bench.connection.is_closed() && bench.connection.next_timeout().is_none());
}
