//! Snapshots that nobody wrote, of each machine that has them: bytes as they come, with the header and the checksum that a snapshot of them
//! would have, or a snapshot of a machine that is busy, with bytes of it changed. They are refused, or become a machine that keeps
//! within its memory whatever is done with it, and whose own snapshot becomes the same again.

use std::time::Duration;

use super::{KEY_ENCRYPTING_KEY, NOW, peer};
use crate::base::{Datagram, Instant, PacketPool, PoolOptions};
use crate::protocol::srt::caller::{self, Caller, CallerEncryption, CallerSettings};
use crate::protocol::srt::connection::Limits;
use crate::protocol::srt::control::ControlWriter;
use crate::protocol::srt::encryption::{Cipher, KeyRefresh, SALT_LEN};
use crate::protocol::srt::group::{Group, LEGS_MAX};
use crate::protocol::srt::handshake::{HandshakeFields, MAGIC, Request, VERSION_5};
use crate::protocol::srt::listener::{Event, Listener, ListenerSettings};
use crate::protocol::srt::membership::{GroupType, Membership};
use crate::protocol::srt::packet::{DataHeader, HEADER_LEN, SequenceNumber};
use crate::protocol::srt::parameters::{ConnectionParameters, PeerTimeBase, Role};
use crate::protocol::srt::rendezvous::{self, Rendezvous, RendezvousSettings};
use crate::protocol::srt::snapshot::{SNAPSHOT_HEADER_LEN, SnapshotKind, seal};
use crate::protocol::srt::stream_id::StreamId;

const BUFFER: usize = 64;
const FIRST: u64 = 0x7fff_fff0;
const MEMBERSHIP: Membership = Membership { group_id: 0x4000_0005, group_type: GroupType::Broadcast, weight: 1 };

/// All machines, from the same bytes.
pub fn fuzz_restore(data: &[u8]) {
    crate::protocol::srt::connection::fuzzing::fuzz_restore(data);
    let Some((&flags, data)) = data.split_first() else { return };
    fuzz_group(flags, data);
    fuzz_caller(flags, data);
    fuzz_rendezvous(flags, data);
    fuzz_listener(flags, data);
}

/// A sealed snapshot: with `data` for its body if the flags say so (0x40), else that of `snapshot` with bytes changed, for each of which
/// `data` has three: where, in two bytes, and what it is combined with by exclusive or.
pub(in crate::protocol::srt) fn disturbed(kind: SnapshotKind, snapshot: &[u8], flags: u8, data: &[u8]) -> Vec<u8> {
    if flags & 0x40 != 0 {
        return seal(kind, data);
    }
    let mut body = snapshot[SNAPSHOT_HEADER_LEN..snapshot.len() - 4].to_vec();
    for &[low, high, value] in data.as_chunks::<3>().0 {
        let at = usize::from(u16::from_le_bytes([low, high])) % body.len();
        body[at] ^= value;
    }
    seal(kind, &body)
}

fn taken<M>(machine: &M, snapshot: impl Fn(&M, &mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot(machine, &mut bytes);
    bytes
}

fn data_packet(socket_id: u32, sequence: u64) -> Vec<u8> {
    let header = DataHeader {
        sequence: SequenceNumber::new(sequence),
        message_number: 1,
        timestamp_us: 5_000,
        socket_id,
        ..DataHeader::default()
    };
    let mut bytes = vec![0x47; HEADER_LEN + 8];
    header.encode(bytes.first_chunk_mut().expect("as long as a header"));
    bytes
}

fn fuzz_group(flags: u8, data: &[u8]) {
    let options = PoolOptions { slots: 2 * LEGS_MAX * BUFFER, slot_size: 128, ..PoolOptions::default() };
    let pool = PacketPool::new(options).expect("packet memory for 1,024 packets");
    let restore = |bytes: &[u8]| Group::restore(bytes, BUFFER, |bytes| pool.copy_from(bytes));
    drop(restore(data));
    let limits = Limits { receive_buffer_packets: BUFFER, ..Limits::default() };
    let parameters = |socket_id| ConnectionParameters {
        socket_id,
        initial_sequence: SequenceNumber::new(FIRST),
        peer_time_base: PeerTimeBase { timestamp_us: 0, arrival: NOW },
        ..ConnectionParameters::plain(Role::Receiver, peer(), NOW)
    };
    let arrive = |group: &mut Group, now: Instant, socket_id, sequence| {
        let legs = group.legs();
        let peer = legs.iter().map(|leg| leg.connection().parameters()).find(|it| it.socket_id == socket_id);
        let Some((peer, packet)) = peer.map(|it| it.peer).zip(pool.copy_from(&data_packet(socket_id, sequence))) else {
            return;
        };
        group.receive(now, Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: now });
    };
    let mut group = Group::new(NOW, 0x4000_0077, MEMBERSHIP, parameters(1), limits);
    group.join(NOW, 2, parameters(2), limits);
    for (socket_id, number) in [(1, 0), (1, 1), (2, 1), (2, 4), (1, 7)] {
        arrive(&mut group, NOW, socket_id, FIRST + number);
    }
    let _ = group.poll_payload_early(NOW);
    let snapshot = taken(&group, Group::snapshot);
    drop(group);
    drop(restore(&snapshot).expect("what was just written"));
    let bytes = disturbed(SnapshotKind::Group, &snapshot, flags, data);
    let Ok(mut group) = restore(&bytes) else { return };
    let again = taken(&group, Group::snapshot);
    let twin = restore(&again).expect("what was just written");
    assert!(taken(&twin, Group::snapshot) == again, "a snapshot of what was restored is the same");
    drop(twin);
    let mut buffer = Vec::new();
    for n in 0..30 {
        let now = NOW + Duration::from_millis(n * 20);
        let ids: Vec<u32> = group.legs().iter().map(|leg| leg.connection().parameters().socket_id).collect();
        for (path, socket_id) in ids.into_iter().enumerate() {
            arrive(&mut group, now, socket_id, FIRST + 3 * n + path as u64);
        }
        if n == 20 && !group.is_closed() && group.has_room(now) {
            group.join(now, 0, parameters(9), limits);
        }
        group.handle_timeout(now);
        while group.poll_payload(now).is_some() {}
        for _ in 0..100 {
            buffer.clear();
            if group.poll_transmit(now, &mut buffer).is_none() {
                break;
            }
        }
        while group.poll_event().is_some() {}
        let _ = (group.next_timeout(), group.statistics(), group.pkt_rcv_elsewhere());
        assert!(group.held_packets() <= LEGS_MAX * BUFFER);
    }
    drop(group);
    assert_eq!(pool.in_use(), 0, "a slot is lost");
}

fn keys() -> CallerEncryption {
    CallerEncryption {
        key_encrypting_key: KEY_ENCRYPTING_KEY.clone(),
        cipher: Cipher::AesGcm,
        salt: [1; SALT_LEN],
        key_seed: [2; 32],
        key_refresh: KeyRefresh::default(),
    }
}

/// A handshake without extensions, of somebody whose socket id is 99.
fn handshake(to: u32, request: Request, extension: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    ControlWriter { timestamp_us: 0, socket_id: to }.handshake(&mut bytes, &[]);
    let fields = HandshakeFields {
        version: VERSION_5,
        encryption: 0,
        extension,
        initial_sequence: SequenceNumber::new(5),
        mtu: 1_500,
        flow_window: 8_192,
        request,
        socket_id: 99,
        cookie: 0x100,
        peer_address: peer().ip(),
    };
    fields.encode(&mut bytes);
    bytes
}

fn fuzz_caller(flags: u8, data: &[u8]) {
    drop(Caller::restore(data));
    let settings = CallerSettings {
        stream_id: StreamId::new("#!::r=cam1,m=publish").expect("valid"),
        encryption: (flags & 1 != 0).then(keys),
        group: (flags & 2 != 0).then_some(MEMBERSHIP),
        packet_filter: (flags & 4 != 0).then(|| "fec,cols:10".parse().expect("valid")),
        ..CallerSettings::new(peer(), 9, SequenceNumber::new(1))
    };
    let mut caller = Caller::new(NOW, settings);
    let mut buffer = Vec::new();
    let induction = handshake(9, Request::Induction, MAGIC);
    if flags & 8 != 0 {
        caller.poll_transmit(NOW, &mut buffer);
        caller.receive(NOW, peer(), &induction);
    }
    if flags & 16 != 0 {
        caller.receive(NOW, peer(), &handshake(9, Request::Conclusion, 0));
    }
    let snapshot = taken(&caller, Caller::snapshot);
    drop(Caller::restore(&snapshot).expect("what was just written"));
    let bytes = disturbed(SnapshotKind::Caller, &snapshot, flags, data);
    let Ok(mut caller) = Caller::restore(&bytes) else { return };
    let again = taken(&caller, Caller::snapshot);
    let twin = Caller::restore(&again).expect("what was just written");
    assert!(taken(&twin, Caller::snapshot) == again, "a snapshot of what was restored is the same");
    for n in 0..20 {
        let now = NOW + Duration::from_millis(n * 260);
        caller.receive(now, peer(), &induction);
        caller.receive(now, peer(), &handshake(9, Request::Conclusion, 0));
        caller.handle_timeout(now);
        buffer.clear();
        let mut datagrams = 0;
        while caller.poll_transmit(now, &mut buffer).is_some() {
            datagrams += 1;
        }
        assert!(datagrams <= 1);
        if let Some(caller::Event::Connected(parameters)) = caller.poll_event() {
            assert!(parameters.payload_size_max() > 0);
        }
        let _ = (caller.next_timeout(), caller.peer_group(), caller.dropped());
    }
}

fn fuzz_rendezvous(flags: u8, data: &[u8]) {
    drop(Rendezvous::restore(data));
    // Initiator or responder.
    let cookie = if flags & 2 != 0 { 2 } else { 0x7000_0000 };
    let settings = RendezvousSettings {
        encryption: (flags & 1 != 0).then(keys),
        ..RendezvousSettings::new(peer(), 9, cookie, SequenceNumber::new(1))
    };
    let mut machine = Rendezvous::new(NOW, settings);
    let mut buffer = Vec::new();
    // An offer, and an answer to one: in plain, so that it is enough.
    let mut conclusion = handshake(9, Request::Conclusion, 1);
    conclusion.extend([0, if flags & 2 != 0 { 1 } else { 2 }, 0, 3, 0, 1, 5, 4, 0, 0, 0, 0xbf, 0, 120, 0, 120]);
    for (flag, heard) in [(8, &handshake(9, Request::WaveAHand, 0)), (16, &conclusion)] {
        if flags & flag != 0 {
            while machine.poll_transmit(NOW, &mut buffer).is_some() {}
            machine.receive(NOW, peer(), heard);
        }
    }
    let snapshot = taken(&machine, Rendezvous::snapshot);
    drop(Rendezvous::restore(&snapshot).expect("what was just written"));
    let bytes = disturbed(SnapshotKind::Rendezvous, &snapshot, flags, data);
    let Ok(mut machine) = Rendezvous::restore(&bytes) else { return };
    let again = taken(&machine, Rendezvous::snapshot);
    let twin = Rendezvous::restore(&again).expect("what was just written");
    assert!(taken(&twin, Rendezvous::snapshot) == again, "a snapshot of what was restored is the same");
    for n in 0..20 {
        let now = NOW + Duration::from_millis(n * 260);
        for heard in [&handshake(9, Request::WaveAHand, 0), &conclusion, &handshake(9, Request::Agreement, 0)] {
            machine.receive(now, peer(), heard);
            while let Some(event) = machine.poll_event() {
                match event {
                    rendezvous::Event::KeyWanted(it) => machine.unlock(now, &it, KEY_ENCRYPTING_KEY.clone()),
                    rendezvous::Event::Connected(parameters) => assert!(parameters.payload_size_max() > 0),
                    rendezvous::Event::Failed(_) => {}
                }
            }
        }
        machine.handle_timeout(now);
        buffer.clear();
        let mut datagrams = 0;
        while machine.poll_transmit(now, &mut buffer).is_some() {
            datagrams += 1;
        }
        assert!(datagrams <= 3);
        let _ = (machine.next_timeout(), machine.stage(), machine.dropped());
    }
}

fn fuzz_listener(flags: u8, data: &[u8]) {
    let settings = ListenerSettings { answered_max: 2, ..ListenerSettings::default() };
    drop(Listener::restore(data, settings));
    let mut listener = Listener::new(settings);
    let (mut buffer, mut conclusion) = (Vec::new(), handshake(0, Request::Conclusion, 1));
    conclusion.extend([0, 1, 0, 3, 0, 1, 5, 4, 0, 0, 0, 0xbf, 0, 120, 0, 120]);
    listener.receive(NOW, peer(), None, 0, &handshake(0, Request::Induction, 2));
    listener.poll_transmit(NOW, &mut buffer).expect("an answer to an induction");
    conclusion[44..48].copy_from_slice(&buffer[44..48]);
    for number in 0..3 {
        conclusion[27] = number;
        listener.receive(NOW, peer(), None, 0, &conclusion);
        let Some(Event::Admission(request)) = listener.poll_event() else { panic!("an admission") };
        listener.answer(NOW, request.reject(NOW, crate::protocol::srt::handshake::RejectReason::Close));
    }
    let snapshot = taken(&listener, Listener::snapshot);
    drop(Listener::restore(&snapshot, settings).expect("what was just written"));
    let bytes = disturbed(SnapshotKind::Listener, &snapshot, flags, data);
    let Ok(mut listener) = Listener::restore(&bytes, settings) else { return };
    let again = taken(&listener, Listener::snapshot);
    let twin = Listener::restore(&again, settings).expect("what was just written");
    assert!(taken(&twin, Listener::snapshot) == again, "a snapshot of what was restored is the same");
    for number in 0..4 {
        conclusion[27] = number;
        listener.receive(NOW, peer(), None, 0, &conclusion);
        while listener.poll_event().is_some() {}
        buffer.clear();
        while listener.poll_transmit(NOW, &mut buffer).is_some() {}
        listener.handle_timeout(NOW + Duration::from_secs(u64::from(number) * 4));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_refused_or_become_a_machine(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            super::fuzz_restore(&bytes);
        }

        #[test]
        fn each_byte_of_each_snapshot_can_be_changed(
            flags in 0..0x40_u8,
            at in any::<u16>(),
            value in prop_oneof![1..=255_u8, Just(0xff), Just(1)],
        ) {
            let [low, high] = at.to_le_bytes();
            super::fuzz_restore(&[flags, low, high, value]);
        }
    }
}
