//! Bodies of the fuzz targets: bytes in, no panic, nothing that grows. Called by `tests/fuzz` and by a test on random bytes.

use std::net::SocketAddr;
use std::sync::LazyLock;

use super::caller::{Caller, CallerEncryption, CallerSettings};
use super::control::{Control, ControlWriter};
use super::encryption::{
    Cipher, Encryption, KeyEncryptingKey, KeyLength, KeyMaterial, KeyMaterialState, KeyRefresh, SALT_LEN,
    derive_key_encrypting_key,
};
use super::handshake::Handshake;
use super::listener::{Acceptance, Event, Listener, ListenerSettings};
use super::packet::{self, HEADER_LEN, Header, SequenceNumber};
use super::rendezvous::{self, Rendezvous, RendezvousSettings};
use super::stream_id::StreamId;
use crate::base::Instant;

pub mod restore;

/// Derived once: it is meant to be slow.
static KEY_ENCRYPTING_KEY: LazyLock<KeyEncryptingKey> =
    LazyLock::new(|| derive_key_encrypting_key(b"correct horse", &[1; SALT_LEN], KeyLength::Aes128));

const NOW: Instant = Instant::from_millis(600_000);

/// A packet: what is read is written back the same.
pub fn fuzz_packet(bytes: &[u8]) {
    let mut header = [0; HEADER_LEN];
    match packet::parse(bytes) {
        Ok(Header::Data(data)) => data.encode(&mut header),
        Ok(Header::Control(control)) => {
            control.encode(&mut header);
            let body = &bytes[HEADER_LEN..];
            let to = ControlWriter { timestamp_us: control.timestamp_us, socket_id: control.socket_id };
            let mut written = Vec::new();
            match Control::parse(&control, body) {
                Ok(Control::Acknowledgement(acknowledgement)) => to.acknowledgement(&mut written, &acknowledgement),
                Ok(Control::DropRequest(request)) => to.drop_request(&mut written, &request),
                Ok(Control::LossReport(report)) => {
                    assert!(report.ranges().count() <= body.len() / 4, "no more ranges than words");
                    assert!(
                        report.ranges().all(|range| range.len() <= 1 << 30),
                        "no range is longer than half the circle"
                    );
                    let count = to.loss_report(&mut written, report.ranges(), usize::MAX);
                    assert_eq!(count, report.ranges().count());
                    return;
                }
                Ok(Control::Handshake(body)) => fuzz_handshake(body),
                Ok(Control::KeyMaterialRequest(body)) => fuzz_key_material(body),
                _ => {}
            }
            let body_len = written.len().saturating_sub(HEADER_LEN);
            assert_eq!(written.get(HEADER_LEN..).unwrap_or(&[]), &body[..body_len]);
        }
        Err(_) => return,
    }
    assert_eq!(header, bytes[..HEADER_LEN]);
}

/// The content of a handshake.
pub fn fuzz_handshake(body: &[u8]) {
    if let Ok(handshake) = Handshake::parse(body) {
        let mut written = Vec::new();
        handshake.fields.encode(&mut written);
        assert_eq!(Handshake::parse(&written).map(|again| again.fields), Ok(handshake.fields));
        if let Some(stream_id) = handshake.extensions.stream_id {
            fuzz_stream_id(stream_id);
        }
        if let Some(message) = handshake.extensions.key_material {
            fuzz_key_material(message);
        }
    }
}

/// A Stream ID as it is on the wire.
pub fn fuzz_stream_id(wire: &[u8]) {
    if let Ok(stream_id) = StreamId::from_wire(wire) {
        assert!(stream_id.resource().is_none_or(|name| !name.split('/').any(|part| part == "..")));
        assert!(!stream_id.as_str().chars().any(char::is_control));
        let _ = (stream_id.mode(), stream_id.resource_type(), stream_id.pairs().count());
        let mut written = Vec::new();
        stream_id.to_wire(&mut written);
        assert_eq!(StreamId::from_wire(&written), Ok(stream_id));
    }
}

/// Key material, requests and responses alike.
pub fn fuzz_key_material(message: &[u8]) {
    if let Ok(material) = KeyMaterial::parse(message) {
        assert_eq!(material.as_bytes(), message);
    }
    for cipher in [Cipher::AesCtr, Cipher::AesGcm] {
        let (mut encryption, _) =
            Encryption::initiate(KEY_ENCRYPTING_KEY.clone(), cipher, [1; SALT_LEN], [2; 32], KeyRefresh::default());
        let mut response = Vec::new();
        if encryption.receive_request(message, &mut response) != KeyMaterialState::Secured {
            assert_eq!(response.len(), 4);
        }
        let _ = encryption.receive_response(message);
    }
}

/// Splits the input into packets: a byte for what to do with it, a byte for its length, then its content.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let (piece, rest) = rest.split_at(usize::from(head[1]).min(rest.len()));
        bytes = rest;
        Some((head[0], piece))
    })
}

fn peer() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 51_000))
}

/// A listener that hears packet after packet, some of them with the cookie that it gave.
pub fn fuzz_listener(bytes: &[u8]) {
    let settings = ListenerSettings { pending_max: 4, answered_max: 4, transmit_max: 4, ..ListenerSettings::default() };
    let mut listener = Listener::new(settings);
    let mut induction = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 2];
    induction.extend([0, 0, 0, 1, 0, 0, 5, 0xdc, 0, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 9]);
    induction.resize(64, 0);
    let mut now = NOW;
    listener.receive(now, peer(), None, 0, &induction);
    let mut cookie = Vec::new();
    listener.poll_transmit(now, &mut cookie).expect("an answer to an induction");
    for (what, piece) in pieces(bytes) {
        let mut packet = induction.clone();
        match what % 4 {
            0 => packet = piece.to_vec(),
            1 => packet.splice(16.., piece.iter().copied()).for_each(drop),
            _ => {
                // A conclusion of version 5 with the cookie; the piece begins with the first sequence number's low byte.
                packet[19] = 5;
                packet[23] = 7;
                packet[27] = piece.first().copied().unwrap_or(0);
                packet[36..40].fill(0xff);
                packet[44..48].copy_from_slice(&cookie[44..48]);
                if what % 4 == 3 {
                    packet.extend([0, 1, 0, 3, 0, 1, 5, 1, 0, 0, 0, 0xbf, 0, 120, 0, 120]);
                }
                packet.extend(piece.get(1..).unwrap_or(&[]));
            }
        }
        listener.receive(now, peer(), None, 0, &packet);
        if what & 0x40 != 0
            && let Some(Event::Admission(request)) = listener.poll_event()
        {
            let accepted = request.accept(now, Acceptance { socket_id: 1, ..Acceptance::default() });
            let answer = match accepted {
                Ok((parameters, answer)) => {
                    assert!(parameters.payload_size_max() > 0);
                    answer
                }
                Err(reason) => request.reject(now, reason),
            };
            listener.answer(now, answer);
        }
        now += std::time::Duration::from_millis(u64::from(what) * 16);
        listener.handle_timeout(now);
        let mut sent = Vec::new();
        while listener.poll_transmit(now, &mut sent).is_some() {}
    }
}

/// A caller that hears packet after packet.
pub fn fuzz_caller(bytes: &[u8]) {
    let encryption = CallerEncryption {
        key_encrypting_key: KEY_ENCRYPTING_KEY.clone(),
        cipher: Cipher::AesGcm,
        salt: [1; SALT_LEN],
        key_seed: [2; 32],
        key_refresh: KeyRefresh::default(),
    };
    let encryption = (bytes.first().is_some_and(|first| first & 0x80 != 0)).then_some(encryption);
    let mut now = NOW;
    let settings = CallerSettings::new(peer(), 9, SequenceNumber::new(1));
    let mut caller = Caller::new(now, CallerSettings { encryption, ..settings });
    for (what, piece) in pieces(bytes) {
        let mut sent = Vec::new();
        while caller.poll_transmit(now, &mut sent).is_some() {}
        let mut packet = Vec::new();
        if what % 3 == 0 {
            packet.extend_from_slice(piece);
        } else {
            ControlWriter { timestamp_us: 0, socket_id: 9 }.handshake(&mut packet, piece);
            if what % 3 == 2 && packet.len() >= 40 {
                // Well formed so far: an induction, then a conclusion.
                packet[16..20].copy_from_slice(&[0, 0, 0, 5]);
                let is_induction = what & 0x40 != 0;
                packet[36..40].copy_from_slice(if is_induction { &[0, 0, 0, 1] } else { &[0xff; 4] });
                if is_induction {
                    packet[22..24].copy_from_slice(&[0x4a, 0x17]);
                }
            }
        }
        caller.receive(now, peer(), &packet);
        now += std::time::Duration::from_millis(u64::from(what));
        caller.handle_timeout(now);
        let _ = caller.poll_event();
    }
}

/// One side of a rendezvous that hears packet after packet, many of them with sound fields.
pub fn fuzz_rendezvous(bytes: &[u8]) {
    let first = bytes.first().copied().unwrap_or_default();
    let encryption = CallerEncryption {
        key_encrypting_key: KEY_ENCRYPTING_KEY.clone(),
        cipher: Cipher::AesCtr,
        salt: [1; SALT_LEN],
        key_seed: [2; 32],
        key_refresh: KeyRefresh::default(),
    };
    let encryption = (first & 0x80 != 0).then_some(encryption);
    let mut now = NOW;
    // Initiator or responder.
    let cookie = if first & 0x20 != 0 { 2 } else { 0x7000_0000 };
    let settings = RendezvousSettings::new(peer(), 9, cookie, SequenceNumber::new(1));
    let mut machine = Rendezvous::new(now, RendezvousSettings { encryption, takes_any_cipher: true, ..settings });
    let (mut connected, mut sent) = (0, Vec::new());
    for (what, piece) in pieces(bytes) {
        let mut packet = Vec::new();
        if what % 4 == 0 {
            packet.extend_from_slice(piece);
        } else {
            ControlWriter { timestamp_us: 0, socket_id: 9 }.handshake(&mut packet, piece);
            if what % 4 > 1 && packet.len() >= 64 {
                packet[16..20].copy_from_slice(&[0, 0, 0, 5]);
                packet[24] &= 0x7f;
                packet[36..40].copy_from_slice(match what & 0x30 {
                    0x10 => &[0; 4],
                    0x20 => &[0xff, 0xff, 0xff, 0xfe],
                    _ => &[0xff; 4],
                });
                packet[44..48].copy_from_slice(&[0, 0, 1, 0]);
            }
        }
        assert!(!machine.is_restart(peer(), &packet[..packet.len().min(HEADER_LEN)]));
        machine.receive(now, peer(), &packet);
        now += std::time::Duration::from_millis(u64::from(what));
        machine.handle_timeout(now);
        while let Some(event) = machine.poll_event() {
            match event {
                rendezvous::Event::KeyWanted(material) => machine.unlock(now, &material, KEY_ENCRYPTING_KEY.clone()),
                rendezvous::Event::Connected(parameters) => {
                    assert!(parameters.payload_size_max() > 0 && parameters.peer_socket_id != 0);
                    connected += 1;
                }
                rendezvous::Event::Failed(_) => {}
            }
        }
        sent.clear();
        let mut datagrams = 0;
        while machine.poll_transmit(now, &mut sent).is_some() {
            datagrams += 1;
        }
        assert!(datagrams <= 2 && connected <= 1, "an answer for a datagram, and one connection");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn random_bytes_pass_through_every_target(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            super::fuzz_packet(&bytes);
            super::fuzz_handshake(&bytes);
            super::fuzz_stream_id(&bytes);
            super::fuzz_key_material(&bytes);
            super::fuzz_listener(&bytes);
            super::fuzz_caller(&bytes);
            super::fuzz_rendezvous(&bytes);
        }
    }
}
