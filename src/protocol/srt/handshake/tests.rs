use super::super::encryption::{Encryption, KeyMaterial, KeyRefresh, derive_key_encrypting_key};
use super::*;
use crate::protocol::srt::transmission_mode::TransmissionMode;
use proptest::prelude::*;

fn fields() -> HandshakeFields {
    HandshakeFields {
        version: VERSION_5,
        encryption: 0,
        extension: 0,
        initial_sequence: SequenceNumber::new(0x1234_5678),
        mtu: 1500,
        flow_window: 8192,
        request: Request::Conclusion,
        socket_id: 0x2345_6789,
        cookie: 0xdead_beef,
        peer_address: IpAddr::from([192, 0, 2, 1]),
    }
}

const EXTENSION: HandshakeExtension =
    HandshakeExtension { version: 0x0001_0501, flags: 0xbf, receive_latency_ms: 120, send_latency_ms: 500 };

fn conclusion() -> Vec<u8> {
    let stream_id = StreamId::new("#!::r=cam1,m=publish").expect("valid");
    let offer = Offer {
        is_response: false,
        handshake: EXTENSION,
        key_material: Some(&[9; 56]),
        stream_id: Some(&stream_id),
        group: None,
        packet_filter: None,
        mode: TransmissionMode::Live,
    };
    let mut body = Vec::new();
    fields().encode_conclusion(&offer, &mut body);
    body
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// What `srt-live-transmit` of libsrt 1.5.1 sent to 127.0.0.1, after the packet's header.
const LIBSRT_INDUCTION: &str =
    "00000004000000022de4ee77000005dc000020000000000128235421000000000100007f000000000000000000000000";

/// The same with `streamid=cam1&passphrase=correcthorse&latency=200`, after an induction with cookie 0x01020304.
const LIBSRT_CONCLUSION: &str = concat!(
    "00000005000000072de4ee77000005dc00002000ffffffff28235421010203040100007f000000000000000000000000",
    "0001000300010501000000bf00c800c8",
    "00050001316d6163",
    "0003000e122029010000000002000200000004046f28fc5243ca914619790284d44751b4",
    "e6a3b7966da3ebf01b0ba531660c93152a59acb3b07a91cf"
);

#[test]
fn an_induction_of_libsrt_is_read_and_written_back() {
    let body = hex(LIBSRT_INDUCTION);
    let handshake = Handshake::parse(&body).expect("an induction");
    assert_eq!(
        handshake.fields,
        HandshakeFields {
            version: 4,
            encryption: 0,
            extension: 2,
            initial_sequence: SequenceNumber::new(0x2de4_ee77),
            mtu: 1500,
            flow_window: 8192,
            request: Request::Induction,
            socket_id: 0x2823_5421,
            cookie: 0,
            peer_address: IpAddr::from([127, 0, 0, 1]),
        }
    );
    let mut back = Vec::new();
    handshake.fields.encode(&mut back);
    assert_eq!(back, body);
}

#[test]
fn a_conclusion_of_libsrt_is_read_and_its_key_unwrapped() {
    let body = hex(LIBSRT_CONCLUSION);
    let handshake = Handshake::parse(&body).expect("a conclusion");
    assert_eq!((handshake.fields.version, handshake.fields.cookie), (5, 0x0102_0304));
    let expected =
        HandshakeExtension { version: 0x0001_0501, flags: 0xbf, receive_latency_ms: 200, send_latency_ms: 200 };
    assert_eq!(handshake.extensions.handshake, Some(expected));
    let stream_id = StreamId::from_wire(handshake.extensions.stream_id.expect("a Stream ID")).expect("valid");
    assert_eq!(stream_id.as_str(), "cam1");
    let material = KeyMaterial::parse(handshake.extensions.key_material.expect("keys")).expect("valid");
    let key = |passphrase| derive_key_encrypting_key(passphrase, material.salt(), material.key_length());
    assert!(Encryption::accept(key(b"correcthorse"), &material, [0; 32], KeyRefresh::default()).is_some());
    assert!(Encryption::accept(key(b"wrong horse"), &material, [0; 32], KeyRefresh::default()).is_none());
}

#[test]
fn a_conclusion_is_read_as_it_was_written() {
    let body = conclusion();
    assert_eq!(body[4..8], [0, 0, 0, 7]);
    assert_eq!(body[48..64], [0, 1, 0, 3, 0, 1, 5, 1, 0, 0, 0, 0xbf, 0, 120, 1, 0xf4]);
    assert_eq!(body[64..68], [0, 3, 0, 14]);
    assert_eq!(body[124..128], [0, 5, 0, 5]);
    let handshake = Handshake::parse(&body).expect("a conclusion");
    assert_eq!(handshake.fields, HandshakeFields { extension: 7, ..fields() });
    assert_eq!(handshake.extensions.handshake, Some(EXTENSION));
    assert_eq!(handshake.extensions.key_material, Some(&[9; 56][..]));
    let stream_id = StreamId::from_wire(handshake.extensions.stream_id.expect("a Stream ID")).expect("valid");
    assert_eq!(stream_id.resource(), Some("cam1"));
    assert!(handshake.extensions.is_live());
}

#[test]
fn a_conclusion_cut_anywhere_is_refused_or_lacks_what_was_cut() {
    let body = conclusion();
    for length in 0..body.len() {
        match Handshake::parse(&body[..length]) {
            Err(HandshakeError::Short(found)) => assert!(found == length && length < HANDSHAKE_LEN),
            Err(HandshakeError::ExtensionLength(_)) => assert!(length > HANDSHAKE_LEN),
            Err(error) => panic!("{error} at {length}"),
            // Only between two blocks, or within the head of the next.
            Ok(_) => assert!([48, 64, 124].iter().any(|end| (*end..*end + 4).contains(&length)), "{length}"),
        }
    }
}

#[test]
fn giant_repeated_and_unknown_extensions_do_no_harm() {
    let mut body = Vec::new();
    HandshakeFields { extension: 1, ..fields() }.encode(&mut body);
    let with = |more: &[u8]| [&body, more].concat();
    assert_eq!(Handshake::parse(&with(&[0, 5, 0xff, 0xff, 1, 2, 3, 4])), Err(HandshakeError::ExtensionLength(5)));
    assert_eq!(Handshake::parse(&with(&[0, 1, 0, 1, 0, 1, 5, 1])), Err(HandshakeError::ExtensionLength(1)));
    // Version and flags alone are allowed, without the flags that need a latency.
    assert_eq!(Handshake::parse(&with(&[0, 1, 0, 2, 0, 1, 3, 0, 0, 0, 0, 1])), Err(HandshakeError::ExtensionLength(1)));
    assert!(Handshake::parse(&with(&[0, 1, 0, 2, 0, 1, 3, 0, 0, 0, 0, 4])).is_ok());
    let group = [0, 8, 0, 1, 0, 0, 0, 0];
    assert_eq!(Handshake::parse(&with(&[group, group].concat())), Err(HandshakeError::ExtensionRepeated(8)));
    let handshake = with(&[0, 99, 0, 1, 1, 2, 3, 4, 0, 6, 0, 1, b'e', b'v', b'i', b'l', 0, 7, 0, 0]);
    let handshake = Handshake::parse(&handshake).expect("unknown extensions are passed over");
    assert!(handshake.extensions.is_live());
    assert_eq!(handshake.extensions.filter, Some(&[][..]));
    let file = with(&[0, 6, 0, 1, b'e', b'l', b'i', b'f']);
    assert!(!Handshake::parse(&file).expect("well formed").extensions.is_live());
}

#[test]
fn impossible_fields_are_refused_with_the_reason() {
    let mut good = Vec::new();
    fields().encode(&mut good);
    for (at, value, error) in [
        (3, 3, HandshakeError::Version(3)),
        (3, 6, HandshakeError::Version(6)),
        (8, 0x92, HandshakeError::InitialSequence),
        (20, 0x7f, HandshakeError::Request(0)),
        (23, 0xfd, HandshakeError::Request(0xffff_fffd)),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        match (error, Handshake::parse(&bad)) {
            // Any positive number from 1000 on is a rejection.
            (HandshakeError::Request(0), parsed) => {
                assert_eq!(
                    parsed.expect("a rejection").fields.request,
                    Request::Rejection(RejectReason::User(0x7fff_fc17))
                );
            }
            (error, parsed) => assert_eq!(parsed, Err(error)),
        }
    }
}

#[test]
fn addresses_are_written_as_libsrt_writes_them() {
    let wire = address_to_wire(IpAddr::from([10, 1, 2, 3]));
    assert_eq!(wire[..8], [3, 2, 1, 10, 0, 0, 0, 0]);
    let address: IpAddr = "2001:db8::1:2".parse().expect("an address");
    assert_eq!(address_to_wire(address)[..4], [0xb8, 0x0d, 0x01, 0x20]);
    assert_eq!(address_from_wire(&address_to_wire(address)), address);
    let mapped: IpAddr = "::ffff:10.1.2.3".parse().expect("an address");
    assert_eq!(address_to_wire(mapped), wire);
}

#[test]
fn every_reject_reason_has_its_code_and_name() {
    for code in 0..3000 {
        let reason = RejectReason::from_code(code);
        if (18..1000).contains(&code) {
            assert_eq!(reason, RejectReason::Unknown);
        } else {
            assert_eq!(reason.code(), code);
            assert_eq!(Request::from_wire(code + 1000), Some(Request::Rejection(reason)));
            assert_eq!(Request::Rejection(reason).to_wire(), code + 1000);
        }
        assert!(!reason.name().is_empty());
    }
    assert_eq!(RejectReason::BadSecret.to_string(), "BADSECRET (10)");
    assert_eq!(RejectReason::from_code(1409), RejectReason::Conflict);
    assert_eq!(RejectReason::from_code(1499).name(), "PREDEFINED");
    assert_eq!(RejectReason::from_code(2042), RejectReason::User(2042));
}

proptest! {
    #[test]
    fn no_bytes_make_a_handshake_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Handshake::parse(&bytes);
        let mut head = Vec::new();
        HandshakeFields { extension: 7, ..fields() }.encode(&mut head);
        head.append(&mut bytes);
        let _ = Handshake::parse(&head);
    }
}
