use super::super::encryption::{Cipher, Encryption, KeyLength, KeyRefresh, derive_key_encrypting_key};
use super::super::handshake::{HANDSHAKE_LEN, HandshakeExtension, Offer, flags};
use super::super::membership::GroupType;
use super::super::packet::SequenceNumber;
use super::super::parameters::{MTU_MAX, Version4Terms};
use super::*;
use proptest::prelude::*;

mod attacks;

const PEER: &str = "198.51.100.7:51000";
const ID: u32 = 0x2345;

fn peer() -> SocketAddr {
    PEER.parse().expect("an address")
}

fn listener() -> Listener {
    Listener::new(ListenerSettings {
        cookie_secret: [7; 16],
        pending_max: 3,
        answered_max: 4,
        transmit_max: 8,
        ..ListenerSettings::default()
    })
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(600_000 + ms)
}

fn fields(request: Request, cookie: u32) -> HandshakeFields {
    HandshakeFields {
        version: if request == Request::Induction { VERSION_4 } else { VERSION_5 },
        encryption: 0,
        extension: 2,
        initial_sequence: SequenceNumber::new(1000),
        mtu: 1500,
        flow_window: 8192,
        request,
        socket_id: ID,
        cookie,
        peer_address: IpAddr::from([192, 0, 2, 1]),
    }
}

const EXTENSION: HandshakeExtension =
    HandshakeExtension { version: 0x0001_0501, flags: 0xbf, receive_latency_ms: 120, send_latency_ms: 300 };

fn packet(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = Vec::new();
    ControlWriter { timestamp_us: 1_000_000, socket_id: 0 }.handshake(&mut packet, &[]);
    write(&mut packet);
    packet
}

fn conclusion(cookie: u32, change: impl FnOnce(&mut HandshakeFields, &mut HandshakeExtension)) -> Vec<u8> {
    let (mut fields, mut extension) = (fields(Request::Conclusion, cookie), EXTENSION);
    change(&mut fields, &mut extension);
    let offer = Offer {
        is_response: false,
        handshake: extension,
        key_material: None,
        stream_id: None,
        group: None,
        packet_filter: None,
        mode: TransmissionMode::Live,
    };
    packet(|packet| fields.encode_conclusion(&offer, packet))
}

/// Gives the bytes to the listener and returns the handshakes it answers with.
fn tell(listener: &mut Listener, now: Instant, bytes: &[u8]) -> Vec<HandshakeFields> {
    listener.receive(now, peer(), None, 0, bytes);
    sent(listener, now)
}

fn sent(listener: &mut Listener, now: Instant) -> Vec<HandshakeFields> {
    let mut answers = Vec::new();
    let mut buffer = Vec::new();
    while let Some(transmit) = listener.poll_transmit(now, &mut buffer) {
        assert_eq!((transmit.peer, transmit.len), (peer(), buffer.len()));
        assert_eq!(packet::destination(&buffer), Some(ID));
        answers.push(Handshake::parse(&buffer[HEADER_LEN..]).expect("well formed").fields);
        buffer.clear();
    }
    answers
}

fn cookie(listener: &mut Listener, now: Instant) -> u32 {
    let induction = packet(|packet| fields(Request::Induction, 0).encode(packet));
    tell(listener, now, &induction)[0].cookie
}

fn admitted(listener: &mut Listener) -> AdmissionRequest {
    let Some(Event::Admission(request)) = listener.poll_event() else { panic!("an admission") };
    *request
}

#[test]
fn an_induction_is_answered_with_magic_and_cookie_and_kept_nowhere() {
    let mut listener = listener();
    let induction = packet(|packet| fields(Request::Induction, 0).encode(packet));
    let answer = tell(&mut listener, at(0), &induction)[0];
    assert_eq!(
        answer,
        HandshakeFields {
            version: VERSION_5,
            extension: MAGIC,
            cookie: answer.cookie,
            peer_address: peer().ip(),
            ..fields(Request::Induction, 0)
        }
    );
    assert!(listener.attempts.is_empty() && listener.poll_event().is_none());
    assert_eq!(listener.next_timeout(), None);
    // A flood fills no more than the queue.
    for _ in 0..1000 {
        listener.receive(at(0), peer(), None, 0, &induction);
    }
    assert_eq!(sent(&mut listener, at(0)).len(), 8);
    assert_eq!(listener.counters().dropped_transmit, 992);
}

#[test]
fn cookies_depend_on_address_port_secret_and_minute() {
    let listener_ = listener();
    let cookie = listener_.cookie(peer(), 10);
    assert_ne!(cookie, listener_.cookie(peer(), 11));
    assert_ne!(cookie, listener_.cookie("198.51.100.7:51001".parse().expect("an address"), 10));
    assert_ne!(cookie, listener_.cookie("198.51.100.8:51000".parse().expect("an address"), 10));
    let other = Listener::new(ListenerSettings::default());
    assert_ne!(cookie, other.cookie(peer(), 10));
    assert_eq!(cookie, listener().cookie("[::ffff:198.51.100.7]:51000".parse().expect("an address"), 10));
}

#[test]
fn a_cookie_is_good_in_its_minute_and_the_next() {
    for (after_ms, good) in [(0, true), (59_999, true), (119_999, true), (120_000, false)] {
        let mut listener = listener();
        let cookie = cookie(&mut listener, at(0));
        assert!(tell(&mut listener, at(after_ms), &conclusion(cookie, |_, _| {})).is_empty());
        assert_eq!(listener.poll_event().is_some(), good, "{after_ms} ms later");
        assert_eq!(listener.counters().dropped_cookie, u64::from(!good));
    }
    let mut listener = listener();
    let cookie = cookie(&mut listener, at(0));
    assert!(tell(&mut listener, at(0), &conclusion(cookie ^ 1, |_, _| {})).is_empty());
    assert_eq!(listener.counters().dropped_cookie, 1);
}

#[test]
fn a_request_says_what_the_conclusion_said() {
    let mut listener = listener();
    let cookie = cookie(&mut listener, at(0));
    listener.receive(at(5), peer(), Some([192, 0, 2, 1].into()), 3, &conclusion(cookie, |_, _| {}));
    let request = admitted(&mut listener);
    assert_eq!(request.key, ConnectionKey { peer: peer(), peer_socket_id: ID, initial_sequence: 1000 });
    assert_eq!((request.local, request.interface, request.arrival), (Some([192, 0, 2, 1].into()), 3, at(5)));
    assert_eq!((request.timestamp_us, request.peer_version, request.peer_flags), (1_000_000, 0x0001_0501, 0xbf));
    assert_eq!((request.requested_latency_ms, request.peer_latency_ms), (300, 120));
    assert!(request.stream_id.is_empty() && request.key_material.is_none());
    fn is_send<T: Send + 'static>(_: &T) {}
    is_send(&request);
}

#[test]
fn the_answer_to_an_accepted_caller_is_what_libsrt_expects() {
    let mut listener = listener();
    let cookie = cookie(&mut listener, at(0));
    tell(&mut listener, at(0), &conclusion(cookie, |_, _| {}));
    let request = admitted(&mut listener);
    let acceptance = Acceptance { socket_id: 99, flow_window: 4000, latency_max_ms: 250, ..Acceptance::default() };
    let (parameters, answer) = request.accept(at(7), acceptance).expect("accepted");
    assert_eq!((parameters.receive_latency_ms, parameters.send_latency_ms), (250, 120));
    let mut buffer = Vec::new();
    answer.write(at(9), &mut buffer);
    assert_eq!(buffer[..16], [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x07, 0xd0, 0, 0, 0x23, 0x45]);
    let handshake = Handshake::parse(&buffer[HEADER_LEN..]).expect("well formed");
    assert_eq!(
        handshake.fields,
        HandshakeFields {
            extension: 1,
            flow_window: 4000,
            socket_id: 99,
            peer_address: peer().ip(),
            ..fields(Request::Conclusion, cookie)
        }
    );
    // HSRSP: our version, all flags but the file transfer's, both latencies.
    assert_eq!(buffer[64..], [0, 2, 0, 3, 0, 1, 5, 4, 0, 0, 0, 0xbf, 0, 250, 0, 120]);
}

#[test]
fn key_material_comes_back_byte_by_byte() {
    let mut listener = listener();
    let cookie = cookie(&mut listener, at(0));
    let key = derive_key_encrypting_key(b"correct horse", &[9; 16], KeyLength::Aes256);
    let (_, material) = Encryption::initiate(key.clone(), Cipher::AesCtr, [9; 16], [1; 32], KeyRefresh::default());
    let offer = Offer {
        is_response: false,
        handshake: EXTENSION,
        key_material: Some(material.as_bytes()),
        stream_id: None,
        group: None,
        packet_filter: None,
        mode: TransmissionMode::Live,
    };
    tell(&mut listener, at(0), &packet(|packet| fields(Request::Conclusion, cookie).encode_conclusion(&offer, packet)));
    let request = admitted(&mut listener);
    assert_eq!(request.key_material.as_ref(), Some(&material));
    let acceptance = Acceptance { socket_id: 99, key_encrypting_key: Some(key), ..Acceptance::default() };
    let (_, answer) = request.accept(at(0), acceptance).expect("accepted");
    let mut buffer = Vec::new();
    answer.write(at(0), &mut buffer);
    let handshake = Handshake::parse(&buffer[HEADER_LEN..]).expect("well formed");
    assert_eq!((handshake.fields.encryption, handshake.fields.extension), (4, 3));
    assert_eq!(handshake.extensions.key_material, Some(material.as_bytes()));
    assert_eq!(buffer[HEADER_LEN + HANDSHAKE_LEN + 16..][..4], [0, 4, 0, 18]);
}

#[test]
fn repeated_conclusions_get_one_admission_and_the_same_answer() {
    let mut listener = listener();
    let cookie = cookie(&mut listener, at(0));
    let bytes = conclusion(cookie, |_, _| {});
    for ms in [0, 250, 500] {
        assert!(tell(&mut listener, at(ms), &bytes).is_empty());
    }
    let request = admitted(&mut listener);
    assert!(listener.poll_event().is_none());
    let (_, answer) = request.accept(at(600), Acceptance { socket_id: 5, ..Acceptance::default() }).expect("accepted");
    listener.answer(at(600), answer.clone());
    let first = sent(&mut listener, at(600));
    for ms in [750, 1000] {
        assert_eq!(tell(&mut listener, at(ms), &bytes), first);
    }
    assert_eq!(listener.counters().repeats, 4);
    // Another attempt of the same peer is another attempt.
    let other = conclusion(cookie, |fields, _| fields.initial_sequence = SequenceNumber::new(7));
    tell(&mut listener, at(1000), &other);
    assert_eq!(admitted(&mut listener).key.initial_sequence, 7);
    // An answer that another shard has sent is only remembered.
    let rejection = AdmissionRequest { key: ConnectionKey { initial_sequence: 7, ..request.key }, ..request }
        .reject(at(1000), RejectReason::Overload);
    listener.remember(at(1000), rejection);
    assert!(sent(&mut listener, at(1000)).is_empty());
    assert_eq!(tell(&mut listener, at(1250), &other)[0].request, Request::Rejection(RejectReason::Overload));
}

#[test]
fn who_goes_on_with_a_listener_takes_its_cookies_and_repeats_its_answers() {
    let mut first = listener();
    let cookie = cookie(&mut first, at(0));
    let attempt = |number: u64| conclusion(cookie, |fields, _| fields.initial_sequence = SequenceNumber::new(number));
    for number in 0..2 {
        assert!(tell(&mut first, at(0), &attempt(number)).is_empty());
    }
    let answered = admitted(&mut first);
    let (_, answer) = answered.accept(at(1), Acceptance { socket_id: 5, ..Acceptance::default() }).expect("accepted");
    first.answer(at(1), answer);
    let told = sent(&mut first, at(1));
    let mut snapshot = Vec::new();
    first.snapshot(&mut snapshot);

    let settings = ListenerSettings { answered_max: 4, ..ListenerSettings::default() };
    let mut second = Listener::restore(&snapshot, settings).expect("what was just written");
    assert_eq!(second.counters(), first.counters());
    assert_eq!(tell(&mut second, at(250), &attempt(0)), told, "the answer was lost");
    assert!(second.poll_event().is_none(), "and is not asked for again");
    assert!(tell(&mut second, at(250), &attempt(1)).is_empty());
    assert_eq!(admitted(&mut second).key.initial_sequence, 1, "whoever judged it is gone");
    assert!(tell(&mut second, at(250), &attempt(2)).is_empty());
    assert_eq!(admitted(&mut second).key.initial_sequence, 2, "its cookie is good");
    second.handle_timeout(at(10_001));
    assert_eq!((second.attempts.len(), second.answered.len()), (0, 0), "what was answered expires when it would have");
    assert_eq!(
        Listener::restore(&snapshot[..snapshot.len() - 1], settings).map(drop),
        Err(crate::protocol::srt::snapshot::RestoreError::Length)
    );
}

#[test]
fn what_waits_and_what_was_answered_is_bounded_and_expires() {
    let mut listener = listener();
    let cookie = cookie(&mut listener, at(0));
    let attempt = |number: u64| conclusion(cookie, |fields, _| fields.initial_sequence = SequenceNumber::new(number));
    for number in 0..3 {
        assert!(tell(&mut listener, at(0), &attempt(number)).is_empty());
    }
    assert_eq!(tell(&mut listener, at(0), &attempt(3))[0].request, Request::Rejection(RejectReason::Backlog));
    assert_eq!(listener.counters().rejected_backlog, 1);
    let requests: Vec<_> = (0..3).map(|_| admitted(&mut listener)).collect();
    assert_eq!(listener.next_timeout(), Some(at(5000)));
    listener.handle_timeout(at(4999));
    assert_eq!(listener.pending, 3);
    listener.handle_timeout(at(5000));
    assert_eq!((listener.pending, listener.attempts.len(), listener.counters().unanswered), (0, 0, 3));
    assert_eq!(listener.next_timeout(), None);
    // Late answers go out all the same; no more than four are kept.
    for number in 0..10 {
        let key = ConnectionKey { initial_sequence: number, ..requests[0].key };
        let request = AdmissionRequest { key, ..requests[0].clone() };
        listener.answer(at(5000), request.reject(at(5000), RejectReason::Timeout));
        assert_eq!(sent(&mut listener, at(5000)).len(), 1);
    }
    assert_eq!((listener.attempts.len(), listener.answered.len()), (4, 4));
    listener.handle_timeout(at(15_000));
    assert_eq!((listener.attempts.len(), listener.answered.len()), (0, 0));
    // And there is room again.
    assert!(tell(&mut listener, at(15_000), &attempt(50)).is_empty());
    assert_eq!(admitted(&mut listener).key.initial_sequence, 50);
}

/// Makes a conclusion with a given cookie.
type Making = Box<dyn Fn(u32) -> Vec<u8>>;

#[test]
fn each_kind_of_unsuitable_conclusion_has_its_reject_reason() {
    let with = |kind: u16, content: &'static [u8]| {
        move |cookie: u32| {
            let mut packet = conclusion(cookie, |_, _| {});
            packet.extend(kind.to_be_bytes());
            packet.extend((content.len() as u16 / 4).to_be_bytes());
            packet.extend(content);
            packet
        }
    };
    let cases: [(RejectReason, Making); 17] = [
        (RejectReason::Version, Box::new(|cookie| conclusion(cookie, |fields, _| fields.version = 4))),
        (RejectReason::Version, Box::new(|cookie| conclusion(cookie, |_, extension| extension.version = 0x0001_0300))),
        (RejectReason::Rogue, Box::new(|cookie| conclusion(cookie, |_, extension| extension.version = 0x0001_0207))),
        (RejectReason::Rogue, Box::new(|cookie| conclusion(cookie, |fields, _| fields.mtu = 32))),
        (RejectReason::Rogue, Box::new(|cookie| conclusion(cookie, |fields, _| fields.flow_window = 1))),
        (RejectReason::Rogue, Box::new(|cookie| packet(|packet| fields(Request::Conclusion, cookie).encode(packet)))),
        (
            RejectReason::MessageApi,
            Box::new(|cookie| conclusion(cookie, |_, extension| extension.flags |= flags::STREAM)),
        ),
        (RejectReason::Congestion, Box::new(with(6, b"elif"))),
        (RejectReason::Filter, Box::new(with(7, b",cef:cols10\0"))),
        (RejectReason::Group, Box::new(with(8, &[0x40, 0, 0, 1, 3, 0, 0, 0]))),
        (RejectReason::Rogue, Box::new(with(8, &[0, 0, 0, 1, 1, 0, 0, 0]))),
        (RejectReason::Rogue, Box::new(with(8, &[0x40, 0, 0, 1]))),
        (RejectReason::Rogue, Box::new(with(8, &[]))),
        (RejectReason::Rogue, Box::new(with(3, &[0; 16]))),
        (RejectReason::BadRequest, Box::new(with(5, b"{:!#"))),
        (RejectReason::BadRequest, Box::new(with(5, b"..//"))),
        (
            RejectReason::Rogue,
            Box::new(with(3, &[0x12, 0x20, 0x29, 1, 0, 0, 0, 0, 4, 0, 2, 0, 0, 0, 4, 4, 0, 0, 0, 0])),
        ),
    ];
    for (reason, bytes) in cases {
        let mut listener = Listener::new(ListenerSettings { version_min: 0x0001_0400, ..ListenerSettings::default() });
        let cookie = cookie(&mut listener, at(0));
        let answers = tell(&mut listener, at(0), &bytes(cookie));
        assert_eq!(answers.iter().map(|answer| answer.request).collect::<Vec<_>>(), [Request::Rejection(reason)]);
        assert!(listener.poll_event().is_none() && listener.attempts.is_empty());
    }
}

#[test]
fn a_leg_of_a_group_is_let_in_and_told_of_ours_unless_bonding_is_off() {
    const GROUP: [u8; 12] = [0, 8, 0, 2, 0x40, 0, 0, 1, 2, 0, 0, 50];
    let theirs = Membership { group_id: 0x4000_0001, group_type: GroupType::Backup, weight: 50 };
    let mut listener = listener();
    let valid = cookie(&mut listener, at(0));
    let bytes = [conclusion(valid, |_, _| {}), GROUP.to_vec()].concat();
    assert!(tell(&mut listener, at(0), &bytes).is_empty());
    let request = admitted(&mut listener);
    assert_eq!(request.group, Some(theirs));
    let answer = |group_id| {
        let acceptance = Acceptance { socket_id: 77, group_id, ..Acceptance::default() };
        let (_, answer) = request.accept(at(1), acceptance).expect("nothing to refuse");
        let mut bytes = Vec::new();
        answer.write(at(1), &mut bytes);
        bytes[HEADER_LEN..].to_vec()
    };
    let told = answer(Some(0x4000_0777));
    let told = Handshake::parse(&told).expect("well-formed");
    assert_eq!((told.fields.extension, told.fields.socket_id), (5, 77));
    let ours = told.extensions.group.map(Membership::parse);
    assert_eq!(ours, Some(Ok(Membership { group_id: 0x4000_0777, ..theirs })));
    let untold = answer(None);
    assert_eq!(Handshake::parse(&untold).expect("well-formed").extensions.group, None);

    let mut listener = Listener::new(ListenerSettings { bonding: false, ..ListenerSettings::default() });
    let valid = cookie(&mut listener, at(0));
    let bytes = [conclusion(valid, |_, _| {}), GROUP.to_vec()].concat();
    let answers = tell(&mut listener, at(0), &bytes);
    let reasons: Vec<Request> = answers.iter().map(|answer| answer.request).collect();
    assert_eq!(reasons, [Request::Rejection(RejectReason::Group)], "as libsrt without SRTO_GROUPCONNECT");
}

#[test]
fn a_leg_of_a_group_gets_no_packet_filter() {
    let mut listener = listener();
    let valid = cookie(&mut listener, at(0));
    let filter: FilterConfiguration = "fec,cols:10".parse().expect("a configuration");
    let bytes = [conclusion(valid, |_, _| {}), vec![0, 8, 0, 2, 0x40, 0, 0, 1, 2, 0, 0, 50]].concat();
    assert!(tell(&mut listener, at(0), &bytes).is_empty());
    let leg = admitted(&mut listener);
    assert_eq!(leg.settle_filter(None), Ok(None));
    assert_eq!(
        leg.settle_filter(Some(&filter)),
        Err(RejectReason::Filter),
        "nor is it let in without one that it must have"
    );
    let asking = AdmissionRequest { packet_filter: Some(filter), ..leg };
    let acceptance = Acceptance { socket_id: 77, group_id: Some(0x4000_0777), ..Acceptance::default() };
    assert_eq!(asking.accept(at(1), acceptance).map(drop), Err(RejectReason::Filter));
    let alone = AdmissionRequest { group: None, ..asking };
    assert_eq!(alone.settle_filter(None).map(|fec| fec.map(|fec| fec.cols)), Ok(Some(10)));
}

#[test]
fn live_congestion_control_and_an_empty_filter_are_let_in() {
    let mut listener = listener();
    let cookie = cookie(&mut listener, at(0));
    let mut bytes = conclusion(cookie, |_, _| {});
    bytes.extend([0, 6, 0, 1, b'e', b'v', b'i', b'l', 0, 7, 0, 0]);
    assert!(tell(&mut listener, at(0), &bytes).is_empty());
    assert!(listener.poll_event().is_some());
}

#[test]
fn strays_are_counted_and_not_answered() {
    let mut listener = listener();
    let mut buffer = Vec::new();
    ControlWriter { timestamp_us: 0, socket_id: 0 }.keep_alive(&mut buffer);
    assert!(tell(&mut listener, at(0), &buffer).is_empty());
    assert!(tell(&mut listener, at(0), &[0x47; 1316]).is_empty());
    for request in [Request::WaveAHand, Request::Agreement, Request::Rejection(RejectReason::Close)] {
        assert!(tell(&mut listener, at(0), &packet(|packet| fields(request, 0).encode(packet))).is_empty());
    }
    let mut addressed = packet(|packet| fields(Request::Induction, 0).encode(packet));
    addressed[15] = 1;
    assert!(tell(&mut listener, at(0), &addressed).is_empty());
    assert_eq!(listener.counters().dropped_stray, 6);
    let nobody = packet(|packet| HandshakeFields { socket_id: 0, ..fields(Request::Induction, 0) }.encode(packet));
    assert!(tell(&mut listener, at(0), &nobody).is_empty());
    assert_eq!(listener.counters().dropped_malformed, 1);
}

#[test]
fn a_conclusion_cut_at_any_byte_is_never_let_in_with_less_than_it_said() {
    let mut listener = listener();
    let cookie = cookie(&mut listener, at(0));
    let bytes = conclusion(cookie, |_, _| {});
    for length in 0..bytes.len() {
        for answer in tell(&mut listener, at(0), &bytes[..length]) {
            assert_eq!(answer.request, Request::Rejection(RejectReason::Rogue));
        }
        assert!(listener.poll_event().is_none());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_listener_panic_or_grow(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..50),
        shapes in proptest::collection::vec(0_u8..4, 50),
    ) {
        let mut listener = listener();
        let cookie = cookie(&mut listener, at(0));
        for (index, (bytes, shape)) in packets.into_iter().zip(shapes).enumerate() {
            let bytes = match shape {
                0 => bytes,
                1 => packet(|packet| packet.extend(bytes)),
                2 => packet(|packet| {
                    fields(Request::Conclusion, cookie).encode(packet);
                    packet.extend(bytes);
                }),
                _ => {
                    let number = u64::from(bytes.first().copied().unwrap_or(0));
                    conclusion(cookie, |fields, _| fields.initial_sequence = SequenceNumber::new(number))
                }
            };
            listener.receive(at(index as u64 * 100), peer(), None, 0, &bytes);
            listener.handle_timeout(at(index as u64 * 100));
            prop_assert!(listener.attempts.len() <= 7 && listener.events.len() <= 3 && listener.transmits.len() <= 8);
        }
    }
}

#[test]
fn a_caller_of_version_4_is_let_in_and_answered_in_its_own_form() {
    let mut listener = listener();
    let cookie = cookie(&mut listener, at(0));
    let asked = HandshakeFields { version: VERSION_4, extension: 2, ..fields(Request::Conclusion, cookie) };
    assert!(tell(&mut listener, at(1), &packet(|packet| asked.encode(packet))).is_empty());
    let request = admitted(&mut listener);
    assert!(request.is_version4 && request.stream_id.is_empty() && request.key_material.is_none());
    let acceptance = Acceptance { socket_id: 77, latency_max_ms: 2_000, has_passphrase: true, ..Acceptance::default() };
    let (parameters, answer) = request.accept(at(2), acceptance).expect("nothing speaks against it");
    let terms = Version4Terms { latency_max_ms: 2_000, has_passphrase: true, enforced_encryption: true };
    assert_eq!(parameters.version4, Some(terms));
    assert_eq!((parameters.receive_latency_ms, parameters.encryption.is_none()), (120, true));
    assert!(!parameters.features.receive_by_timestamp && !parameters.features.retransmission_flag);
    listener.answer(at(2), answer);
    let answers = sent(&mut listener, at(2));
    assert_eq!(
        answers,
        [HandshakeFields { socket_id: 77, flow_window: 25_600, peer_address: peer().ip(), ..asked }],
        "no extensions, and the form of UDT"
    );
}

#[test]
fn a_caller_of_version_4_that_sends_bytes_or_is_too_old_is_refused_in_its_own_form() {
    let bytes = HandshakeFields { version: VERSION_4, extension: 1, ..fields(Request::Conclusion, 0) };
    let datagrams = HandshakeFields { extension: 2, ..bytes };
    let newer = ListenerSettings { version_min: 0x0001_0400, ..ListenerSettings::default() };
    for (settings, asked, reason) in
        [(ListenerSettings::default(), bytes, RejectReason::MessageApi), (newer, datagrams, RejectReason::Version)]
    {
        let mut listener = Listener::new(settings);
        let cookie = cookie(&mut listener, at(0));
        let answers = tell(&mut listener, at(1), &packet(|packet| HandshakeFields { cookie, ..asked }.encode(packet)));
        assert_eq!(
            answers.iter().map(|answer| (answer.version, answer.request)).collect::<Vec<_>>(),
            [(VERSION_4, Request::Rejection(reason))]
        );
    }
}
