//! Body of the fuzz target: a conversation with a peer that sends anything. Called by `tests/fuzz` and by a test on random bytes.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use super::{CloseReason, Connection, Limits, State};
use crate::base::{Datagram, Instant, PacketPool, PoolOptions};
use crate::protocol::srt::encryption::{
    Cipher, Encryption, KeyEncryptingKey, KeyLength, KeyRefresh, SALT_LEN, derive_key_encrypting_key,
};
use crate::protocol::srt::fec::FEC_HEADER_LEN;
use crate::protocol::srt::fec::configuration::{ArqLevel, Fec, Layout};
use crate::protocol::srt::fec::decoder::Decoder;
use crate::protocol::srt::fuzzing::restore::disturbed;
use crate::protocol::srt::packet::{DataHeader, HEADER_LEN, KeyFlag, PacketPosition, SequenceNumber};
use crate::protocol::srt::parameters::{ConnectionParameters, Features, PeerTimeBase, Role, VERSION, Version4Terms};
use crate::protocol::srt::snapshot::SnapshotKind;
use crate::protocol::srt::transmission_mode::TransmissionMode;

/// Derived once: it is meant to be slow.
static KEY_ENCRYPTING_KEY: LazyLock<KeyEncryptingKey> =
    LazyLock::new(|| derive_key_encrypting_key(b"correct horse", &[1; SALT_LEN], KeyLength::Aes128));

const FIRST: u64 = 0x7fff_ff80;
const SOCKET_ID: u32 = 7;
const BUFFER: usize = 128;
const FILTER: Fec = Fec { cols: 4, rows: 3, has_rows: true, layout: Layout::Staircase, arq: ArqLevel::OnRequest };

/// The keys that the connection begins with.
fn keys(flags: u8, refresh: KeyRefresh) -> Option<Encryption> {
    let cipher = if flags & 0x40 == 0 { Cipher::AesCtr } else { Cipher::AesGcm };
    (flags & 1 != 0).then(|| {
        let (mut encryption, _) =
            Encryption::initiate(KEY_ENCRYPTING_KEY.clone(), cipher, [1; SALT_LEN], [2; 32], refresh);
        encryption.set_peer_version(if flags & 0x80 == 0 { VERSION } else { 0x0001_0503 });
        encryption
    })
}

fn connection(flags: u8, packet_filter: Option<Fec>, mode: TransmissionMode, now: Instant) -> Connection {
    // Without a filter, or keys of the handshake, it may have been one of version 4.
    let is_version4 = flags & 0x81 == 0x80 && packet_filter.is_none() && mode == TransmissionMode::Live;
    let version4 = is_version4.then_some(Version4Terms {
        latency_max_ms: 500,
        has_passphrase: flags & 0x40 == 0,
        enforced_encryption: flags & 0x20 == 0,
    });
    let role = match is_version4 {
        true if flags & 0x40 != 0 => Role::Sender,
        true => Role::Receiver,
        false => Role::Both,
    };
    let encryption = keys(flags, KeyRefresh { after_packets: 20, announce_packets: 5 });
    let features = Features {
        receive_by_timestamp: flags & 2 == 0,
        peer_repeats_loss_reports: flags & 4 == 0,
        retransmission_flag: flags & 8 == 0,
        ..Features::default()
    };
    let parameters = ConnectionParameters {
        mode,
        socket_id: SOCKET_ID,
        initial_sequence: SequenceNumber::new(FIRST),
        peer_time_base: PeerTimeBase { timestamp_us: u32::MAX - 100_000, arrival: now },
        features: match mode {
            TransmissionMode::Live => features,
            TransmissionMode::Message | TransmissionMode::Buffer => Features {
                receive_by_timestamp: false,
                send_by_timestamp: false,
                peer_drops_too_late: false,
                ..features
            },
        },
        encryption,
        packet_filter,
        address_secret: Some([3; 16]),
        version4,
        ..ConnectionParameters::plain(role, peer(), now)
    };
    let limits = Limits {
        receive_buffer_packets: BUFFER,
        send_buffer_packets: BUFFER,
        reorder_tolerance: u16::from(flags >> 4 & 3),
        ..Limits::default()
    };
    Connection::new(now, parameters, limits)
}

fn peer() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 51_000))
}

/// Steps of four bytes, some followed by the content of a packet. Promises that must hold whatever comes: payloads in order
/// with every gap told, no more packets held than there are slots, no slot lost, no time-out that is due again at once.
pub fn fuzz_connection(data: &[u8]) {
    converse(data, TransmissionMode::Live);
}

/// The same in buffer mode, where nothing is given up that the peer does not give up itself.
pub fn fuzz_buffer_mode(data: &[u8]) {
    converse(data, TransmissionMode::Buffer);
}

fn converse(data: &[u8], mode: TransmissionMode) {
    let options = PoolOptions { slots: 2 * BUFFER, slot_size: 512, ..PoolOptions::default() };
    let pool = PacketPool::new(options).expect("packet memory for 256 packets");
    let Some((&flags, mut rest)) = data.split_first() else { return };
    let mut now = Instant::from_millis(600_000);
    let mut connection = connection(flags, None, mode, now);
    let mut peers_keys = keys(flags, KeyRefresh::default());
    let mut sent = Vec::new();
    let mut next = FIRST;
    while let Some((&[kind, a, b, c], after)) = rest.split_first_chunk::<4>() {
        rest = after;
        let mut content = |length: usize| {
            let (content, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            content
        };
        let number = SequenceNumber::new(FIRST).offset(i64::from(i16::from_le_bytes([a, b])));
        let mut bytes = vec![0; HEADER_LEN];
        match kind % 8 {
            0 => bytes = content(usize::from(a)).to_vec(),
            1 | 2 => {
                let mut header = DataHeader {
                    sequence: number,
                    position: match c >> 6 {
                        0 | 1 => PacketPosition::Only,
                        2 => PacketPosition::First,
                        _ if a & 1 == 0 => PacketPosition::Middle,
                        _ => PacketPosition::Last,
                    },
                    key: KeyFlag::from_bits(u32::from(kind >> 3)),
                    retransmitted: kind & 0x20 != 0,
                    message_number: 1,
                    timestamp_us: (u32::MAX - 100_000).wrapping_add(u32::from(c) << 12),
                    socket_id: SOCKET_ID,
                    ..DataHeader::default()
                };
                let mut payload = content(usize::from(kind >> 6)).to_vec();
                if c & 0x20 != 0
                    && let Some(keys) = &mut peers_keys
                {
                    payload.resize(payload.len() + keys.cipher().tag_len(), 0);
                    keys.encrypt(&mut header, &mut payload);
                }
                header.encode(bytes.first_chunk_mut().expect("as long as a header"));
                bytes.extend_from_slice(&payload);
            }
            3 | 4 => {
                bytes[..2].copy_from_slice(&(0x8000 | if a == 9 { 0x7fff } else { u16::from(a % 9) }).to_be_bytes());
                bytes[3] = b;
                bytes[7] = c;
                bytes[15] = SOCKET_ID as u8;
                bytes.extend_from_slice(content(usize::from(kind >> 3) * 4));
                if kind & 0x80 != 0 && bytes.len() >= HEADER_LEN + 4 {
                    let marked = bytes[HEADER_LEN] & 0x80;
                    bytes[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&(number.get() as u32).to_be_bytes());
                    bytes[HEADER_LEN] |= marked;
                }
            }
            5 => {
                let _ = connection.send(now, content(usize::from(a)));
                continue;
            }
            6 => {
                match a {
                    0xff => connection.close(now, CloseReason::Local),
                    0x80..=0xfe => connection = restored(&connection, &pool),
                    _ => {}
                }
                continue;
            }
            _ => {
                now += Duration::from_micros(u64::from(a) * u64::from(b) * 16);
                settle(&mut connection, now, &mut sent, &mut next);
                continue;
            }
        }
        if let Some(packet) = pool.copy_from(&bytes) {
            let mut peer = peer();
            peer.set_port(peer.port() + u16::from(c >> 3 & 1));
            let datagram = Datagram { packet, peer, local: None, interface: 0, path: c & 7, arrival: now };
            connection.receive(now, datagram);
        }
        if connection.wanted_key().is_some() {
            connection.provide_key(KEY_ENCRYPTING_KEY.clone());
        }
        assert!(connection.held_packets() <= BUFFER);
        assert_eq!(pool.in_use(), connection.held_packets(), "a slot is lost");
    }
    now += Duration::from_secs(40);
    settle(&mut connection, now, &mut sent, &mut next);
    assert_eq!((pool.in_use(), connection.state), (0, State::Closed));
    assert_eq!(connection.next_timeout(), None);
}

/// The connection, put down and taken up again; the packets that it held are still in their slots until it is dropped.
fn restored(connection: &Connection, pool: &PacketPool) -> Connection {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    connection.snapshot(&mut before);
    let restored = Connection::restore(&before, BUFFER, |bytes| pool.copy_from(bytes)).expect("what was just written");
    restored.snapshot(&mut after);
    assert!(before == after, "a snapshot of what was restored is the same");
    restored
}

/// Snapshots that nobody wrote: as they come, and with the header and the checksum that a snapshot of these bytes would have; or one
/// of a conversation, with bytes of it changed. They are refused, or become a connection that keeps within its memory whatever is
/// done with it.
pub fn fuzz_restore(data: &[u8]) {
    let pool = PacketPool::new(PoolOptions { slots: 4 * BUFFER, slot_size: 512, ..PoolOptions::default() });
    let pool = pool.expect("packet memory for 512 packets");
    let restore = |bytes: &[u8]| Connection::restore(bytes, BUFFER, |bytes| pool.copy_from(bytes)).ok();
    let Some((&flags, data)) = data.split_first() else { return };
    assert!(restore(data).is_none_or(|connection| connection.held_packets() <= held_max(&connection)));
    let now = Instant::from_millis(600_000);
    let mut snapshot = Vec::new();
    if flags & 0x40 == 0 {
        let filter = (flags & 0x80 != 0).then_some(FILTER);
        // A tolerance of three packets, and no filter.
        let is_file = flags & 0xb0 == 0x30;
        let mode = if is_file { TransmissionMode::Buffer } else { TransmissionMode::Live };
        let mut connection = connection(flags, filter, mode, now);
        for n in [0, 1, 4, 5, 9] {
            let mut bytes = vec![0; HEADER_LEN];
            data_header(SequenceNumber::new(FIRST).offset(n)).encode(bytes.first_chunk_mut().expect("as long"));
            bytes.extend([0x47; 8]);
            let packet = pool.copy_from(&bytes).expect("a slot");
            connection
                .receive(now, Datagram { packet, peer: peer(), local: None, interface: 0, path: 0, arrival: now });
            let _ = connection.send(now, &[n as u8; 20]);
        }
        if filter.is_some() {
            // The sum of the first row, of which two are missing.
            let header = DataHeader { message_number: 0, ..data_header(SequenceNumber::new(FIRST).offset(3)) };
            let mut bytes = vec![0; HEADER_LEN];
            header.encode(bytes.first_chunk_mut().expect("as long"));
            bytes.extend([0xff; 1]);
            bytes.extend([0; FEC_HEADER_LEN - 1 + 8]);
            let packet = pool.copy_from(&bytes).expect("a slot");
            connection
                .receive(now, Datagram { packet, peer: peer(), local: None, interface: 0, path: 0, arrival: now });
        }
        let (mut sent, mut next) = (Vec::new(), FIRST);
        settle(&mut connection, now, &mut sent, &mut next);
        connection.snapshot(&mut snapshot);
    }
    let bytes = disturbed(SnapshotKind::Connection, &snapshot, flags, data);
    let Some(mut connection) = restore(&bytes) else { return };
    snapshot.clear();
    connection.snapshot(&mut snapshot);
    let mut again = Vec::new();
    restore(&snapshot).expect("what was just written").snapshot(&mut again);
    assert!(snapshot == again, "a snapshot of what was restored is the same");
    let (socket_id, peer) = (connection.parameters().socket_id, connection.parameters().peer);
    let mut buffer = Vec::new();
    for n in 0..40 {
        let now = now + Duration::from_millis(n * 15);
        let mut bytes = vec![0; HEADER_LEN];
        let header = DataHeader { socket_id, ..data_header(SequenceNumber::new(FIRST).offset(3 * n as i64)) };
        header.encode(bytes.first_chunk_mut().expect("as long"));
        if let Some(packet) = pool.copy_from(&bytes) {
            connection.receive(now, Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: now });
        }
        connection.handle_timeout(now);
        let _ = connection.send(now, &[0; 10]);
        while connection.poll_payload(now).is_some() {}
        for _ in 0..100 {
            buffer.clear();
            if connection.poll_transmit(now, &mut buffer).is_none() {
                break;
            }
        }
        while connection.poll_event().is_some() {}
        let _ = connection.next_timeout();
        assert!(connection.held_packets() <= held_max(&connection));
    }
    connection.close(now, CloseReason::Local);
    drop(connection);
    assert_eq!(pool.in_use(), 0, "a slot is lost");
}

/// Packets in the receive buffer and control packets of the filter.
fn held_max(connection: &Connection) -> usize {
    BUFFER + connection.parameters().packet_filter.map_or(0, |fec| Decoder::groups_max(&fec))
}

fn data_header(sequence: SequenceNumber) -> DataHeader {
    DataHeader {
        sequence,
        message_number: 1,
        timestamp_us: u32::MAX - 90_000,
        socket_id: SOCKET_ID,
        ..DataHeader::default()
    }
}

/// Does what a shard does at the end of a turn.
fn settle(connection: &mut Connection, now: Instant, sent: &mut Vec<u8>, next: &mut u64) {
    connection.handle_timeout(now);
    while let Some(payload) = connection.poll_payload(now) {
        assert_eq!(payload.sequence, *next + u64::from(payload.lost_before), "in order, gaps told");
        assert!(payload.due <= now);
        *next = payload.sequence + 1;
    }
    sent.clear();
    let mut count = 0;
    while let Some(transmit) = connection.poll_transmit(now, sent) {
        assert!(transmit.len >= HEADER_LEN && transmit.len <= connection.parameters().packet_size_max());
        count += 1;
        assert!(count <= 3 * BUFFER + 100, "no end of sending");
    }
    while connection.poll_event().is_some() {}
    assert!(connection.next_timeout().is_none_or(|at| at > now), "due again at once");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn a_connection_survives_any_peer(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
            super::fuzz_connection(&bytes);
            super::fuzz_buffer_mode(&bytes);
        }

        #[test]
        fn any_bytes_are_refused_or_become_a_connection(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            super::fuzz_restore(&bytes);
        }

        #[test]
        fn each_byte_of_a_snapshot_can_be_changed(
            flags in prop_oneof![0..0x40_u8, 0x80..0xc0_u8],
            at in any::<u16>(),
            value in prop_oneof![1..=255_u8, Just(0xff), Just(1)],
        ) {
            let [low, high] = at.to_le_bytes();
            super::fuzz_restore(&[flags, low, high, value]);
        }
    }
}
