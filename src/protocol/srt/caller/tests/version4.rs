//! Listeners of version 4 of the handshake: libsrt before 1.3, which answers what it is asked with what it was asked.

use super::*;
use crate::protocol::srt::connection::{self, Connection, Limits};
use crate::protocol::srt::parameters::Version4Terms;

/// What such a listener says to a handshake: of an induction all of it, with its cookie; of a conclusion what is its own.
fn answer(asked: &[u8], change: impl Fn(&mut HandshakeFields)) -> Vec<u8> {
    assert_eq!(asked.len(), HEADER_LEN + handshake::HANDSHAKE_LEN, "it refuses anything longer");
    let mut fields = Handshake::parse(&asked[HEADER_LEN..]).expect("a handshake").fields;
    assert_eq!((fields.version, fields.encryption, fields.extension), (VERSION_4, 0, SOCKET_TYPE_DATAGRAM));
    let to = fields.socket_id;
    match fields.request {
        Request::Induction => fields.cookie = 0x0bad_cafe,
        _ => {
            assert_eq!(fields.cookie, 0x0bad_cafe);
            (fields.socket_id, fields.mtu, fields.flow_window) = (42, 1_400, 8_192);
        }
    }
    change(&mut fields);
    let mut bytes = Vec::new();
    ControlWriter { timestamp_us: 7, socket_id: to }.handshake(&mut bytes, &[]);
    fields.encode(&mut bytes);
    bytes
}

fn ask(caller: &mut Caller, now: Instant) -> Vec<u8> {
    let mut bytes = Vec::new();
    caller.poll_transmit(now, &mut bytes).expect("a question");
    bytes
}

/// Goes through induction and conclusion with such a listener.
fn call(settings: CallerSettings, change: impl Fn(&mut HandshakeFields)) -> (Caller, Event) {
    let now = Instant::from_millis(1_000);
    let mut caller = Caller::new(now, settings);
    for _ in 0..2 {
        let asked = ask(&mut caller, now);
        caller.receive(now, address(LISTENER), &answer(&asked, &change));
        if let Some(event) = caller.poll_event() {
            return (caller, event);
        }
    }
    panic!("nothing came of it");
}

fn connected(settings: CallerSettings) -> ConnectionParameters {
    match call(settings, |_| {}).1 {
        Event::Connected(parameters) => *parameters,
        event => panic!("{event:?}"),
    }
}

#[test]
fn it_is_asked_for_nothing_of_srt_and_what_was_to_be_asked_is_left_to_the_connection() {
    let parameters = connected(settings());
    assert_eq!((parameters.peer_socket_id, parameters.mtu, parameters.peer_flow_window), (42, 1_400, 8_192));
    assert_eq!((parameters.peer_version, parameters.peer_flags, parameters.features), (0, 0, Features::of_peer(0)));
    assert_eq!((parameters.receive_latency_ms, parameters.send_latency_ms), (80, 200));
    assert!(parameters.stream_id.is_empty(), "it has never heard of it");
    let terms = Version4Terms { latency_max_ms: u16::MAX, has_passphrase: false, enforced_encryption: true };
    assert_eq!((parameters.version4, parameters.key_state), (Some(terms), KeyMaterialState::Unsecured));
    assert_eq!(parameters.peer_version_text(), "before 1.3");
}

#[test]
fn who_sends_brings_the_key_and_who_receives_waits_for_it() {
    let sending = connected(encrypted(b"correct horse", KeyLength::Aes192));
    assert!(!sending.version4.unwrap().has_passphrase, "nothing of ours is waited for");
    assert_eq!(sending.key_state, KeyMaterialState::Securing);
    let now = Instant::from_millis(1_000);
    let mut connection = Connection::new(now, sending, Limits { send_buffer_packets: 16, ..Limits::default() });
    let mut kinds = Vec::new();
    let mut bytes = Vec::new();
    while connection.poll_transmit(now, &mut bytes).is_some() {
        kinds.push((bytes[1], bytes[3]));
        bytes.clear();
    }
    assert_eq!(kinds, [(0xff, 1), (0xff, 3)], "HSREQ and KMREQ");

    let settings = CallerSettings { role: Role::Receiver, ..encrypted(b"correct horse", KeyLength::Aes192) };
    let receiving = connected(CallerSettings { enforced_encryption: false, ..settings });
    let terms = receiving.version4.unwrap();
    assert!(terms.has_passphrase && !terms.enforced_encryption && receiving.encryption.is_none());
    let mut connection = Connection::new(now, receiving, Limits::default());
    assert_eq!(connection.poll_event(), Some(connection::Event::Connected));
    assert!(
        connection.poll_transmit(now, &mut bytes).is_none(),
        "a receiver says nothing first: an old sender cannot bear it"
    );
}

#[test]
fn what_version_4_does_not_have_is_not_gone_without() {
    let mut gcm = encrypted(b"correct horse", KeyLength::Aes128);
    gcm.encryption.as_mut().unwrap().cipher = Cipher::AesGcm;
    let group = Membership { group_id: 0x4000_0001, group_type: GroupType::Backup, weight: 50 };
    let filter = "fec,cols:10".parse().expect("a filter");
    for (settings, reason) in [
        (gcm, RejectReason::Crypto),
        (CallerSettings { group: Some(group), ..settings() }, RejectReason::Group),
        (CallerSettings { packet_filter: Some(filter), ..settings() }, RejectReason::Filter),
    ] {
        let (mut caller, event) = call(settings, |_| {});
        let Event::Failed(error) = event else { panic!("{event:?}") };
        assert_eq!(error, CallError::Unacceptable(reason));
        assert!(caller.poll_transmit(Instant::from_millis(1_000), &mut Vec::new()).is_none(), "nothing to end");
    }
}

#[test]
fn an_answer_to_somebody_else_or_of_another_version_ends_the_call() {
    let changes: [fn(&mut HandshakeFields); 4] = [
        |fields| fields.initial_sequence = SequenceNumber::new(5),
        |fields| fields.mtu = if fields.socket_id == 42 { 100 } else { 1_500 },
        |fields| fields.flow_window = if fields.socket_id == 42 { 1 } else { 8_192 },
        |fields| fields.version = if fields.socket_id == 42 { VERSION_5 } else { VERSION_4 },
    ];
    for change in changes {
        let (mut caller, event) = call(settings(), change);
        assert!(matches!(event, Event::Failed(CallError::Unacceptable(RejectReason::Rogue))), "{event:?}");
        let mut shutdown = Vec::new();
        caller.poll_transmit(Instant::from_millis(1_000), &mut shutdown).expect("it believes in a connection");
        assert_eq!((&shutdown[..2], &shutdown[12..16]), (&[0x80, 5][..], &[0, 0, 0, 42][..]));
    }
    // Neither version 4 nor SRT's version 5.
    let change = |fields: &mut HandshakeFields| (fields.version, fields.extension) = (VERSION_5, SOCKET_TYPE_DATAGRAM);
    let event = call(settings(), change).1;
    assert!(matches!(event, Event::Failed(CallError::Unacceptable(RejectReason::Version))), "{event:?}");
}

#[test]
fn a_refusal_of_it_is_told() {
    let event = call(settings(), |fields| {
        if fields.socket_id == 42 {
            fields.request = Request::Rejection(RejectReason::Peer);
        }
    });
    assert!(matches!(event.1, Event::Failed(CallError::Rejected(RejectReason::Peer))), "{:?}", event.1);
}
