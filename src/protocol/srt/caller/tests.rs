//! Caller and listener talk to each other in virtual time.

use super::super::encryption::{KeyLength, derive_key_encrypting_key};
use super::super::listener::{self, Acceptance, AdmissionRequest, Listener, ListenerSettings};
use super::super::membership::GroupType;
use super::super::packet::{DataHeader, KeyFlag};
use super::*;

mod enforced_encryption;
mod modes;
mod version4;

const LISTENER: &str = "192.0.2.1:30000";
const CALLER: &str = "198.51.100.7:51000";
/// Of the version in a conclusion's answer, whose first extension is that of the handshake.
const VERSION_AT: usize = HEADER_LEN + handshake::HANDSHAKE_LEN + 4;
const SALT: [u8; SALT_LEN] = [3; SALT_LEN];

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn settings() -> CallerSettings {
    CallerSettings {
        stream_id: StreamId::new("#!::r=cam1,m=publish").expect("valid"),
        receive_latency_ms: 80,
        send_latency_ms: 200,
        ..CallerSettings::new(address(LISTENER), 4711, SequenceNumber::new(0x7fff_fff0))
    }
}

fn encrypted(passphrase: &[u8], length: KeyLength) -> CallerSettings {
    let encryption = CallerEncryption {
        key_encrypting_key: derive_key_encrypting_key(passphrase, &SALT, length),
        cipher: Cipher::AesCtr,
        salt: SALT,
        key_seed: [5; 32],
        key_refresh: KeyRefresh::default(),
    };
    CallerSettings { encryption: Some(encryption), ..settings() }
}

/// A caller, a listener, a link of 10 ms each way, and somebody who decides.
struct Conversation {
    now: Instant,
    caller: Caller,
    listener: Listener,
    passphrase: Option<&'static [u8]>,
    /// Whether the listener insists on it.
    enforced_encryption: bool,
    /// Of the listener, which knows no groups without one.
    group_id: Option<u32>,
    /// That the listener insists on.
    packet_filter: Option<FilterConfiguration>,
    /// Which of the packets to the caller are lost, counted from 0.
    lost: fn(u32) -> bool,
    answers: u32,
    accepted: Vec<ConnectionParameters>,
    outcome: Option<Event>,
    /// What each side is told that the other speaks.
    version: u32,
}

impl Conversation {
    fn new(settings: CallerSettings, passphrase: Option<&'static [u8]>) -> Self {
        let now = Instant::from_millis(100_000);
        Self {
            now,
            caller: Caller::new(now, settings),
            listener: Listener::new(ListenerSettings { cookie_secret: [1; 16], ..ListenerSettings::default() }),
            passphrase,
            enforced_encryption: true,
            group_id: None,
            packet_filter: None,
            lost: |_| false,
            answers: 0,
            accepted: Vec::new(),
            outcome: None,
            version: VERSION,
        }
    }

    fn decide(&mut self, request: &mut AdmissionRequest) {
        request.peer_version = self.version;
        let key_encrypting_key = self.passphrase.map(|passphrase| match &request.key_material {
            Some(material) => derive_key_encrypting_key(passphrase, material.salt(), material.key_length()),
            None => derive_key_encrypting_key(passphrase, &SALT, KeyLength::Aes128),
        });
        let acceptance = Acceptance {
            socket_id: 42,
            receive_latency_ms: 120,
            send_latency_ms: 50,
            latency_max_ms: 8000,
            key_encrypting_key,
            enforced_encryption: self.enforced_encryption,
            group_id: self.group_id,
            packet_filter: self.packet_filter,
            ..Acceptance::default()
        };
        let answer = match request.accept(self.now, acceptance) {
            Ok((parameters, answer)) => {
                self.accepted.push(parameters);
                answer
            }
            Err(reason) => request.reject(self.now, reason),
        };
        self.listener.answer(self.now, answer);
    }

    /// Runs until the caller knows what came of it.
    fn run(mut self) -> Self {
        let hop = Duration::from_millis(10);
        while self.outcome.is_none() {
            let mut buffer = Vec::new();
            self.caller.handle_timeout(self.now);
            while let Some(transmit) = self.caller.poll_transmit(self.now, &mut buffer) {
                assert_eq!((transmit.peer, transmit.len), (address(LISTENER), buffer.len()));
                self.now += hop;
                self.listener.receive(self.now, address(CALLER), Some(address(LISTENER).ip()), 2, &buffer);
                while let Some(listener::Event::Admission(mut request)) = self.listener.poll_event() {
                    self.decide(&mut request);
                }
                buffer.clear();
                while let Some(transmit) = self.listener.poll_transmit(self.now, &mut buffer) {
                    assert_eq!((transmit.peer, transmit.interface), (address(CALLER), 2));
                    if let Some(version) = buffer.get_mut(VERSION_AT..VERSION_AT + 4) {
                        version.copy_from_slice(&self.version.to_be_bytes());
                    }
                    if !(self.lost)(self.answers) {
                        self.caller.receive(self.now + hop, address(LISTENER), &buffer);
                    }
                    self.answers += 1;
                    buffer.clear();
                }
                self.now += hop;
            }
            self.outcome = self.caller.poll_event();
            if let Some(next) = self.caller.next_timeout() {
                self.now = self.now.max(next);
            }
        }
        self
    }

    fn connected(mut self) -> (ConnectionParameters, ConnectionParameters) {
        let Some(Event::Connected(caller)) = self.outcome else { panic!("no connection: {:?}", self.outcome) };
        assert_eq!(self.accepted.len(), 1);
        (*caller, self.accepted.remove(0))
    }

    fn failed(&self) -> CallError {
        let Some(Event::Failed(error)) = self.outcome else { panic!("no failure: {:?}", self.outcome) };
        error
    }
}

#[test]
fn both_sides_end_with_the_same_parameters() {
    let (caller, listener) = Conversation::new(settings(), None).run().connected();
    assert_eq!((caller.socket_id, caller.peer_socket_id), (4711, 42));
    assert_eq!((listener.socket_id, listener.peer_socket_id), (42, 4711));
    assert_eq!(listener.peer, address(CALLER));
    assert_eq!((listener.local, listener.interface), (Some(address(LISTENER).ip()), 2));
    assert_eq!(listener.initial_sequence, caller.initial_sequence);
    assert_eq!(listener.stream_id.resource(), Some("cam1"));
    // To the listener the caller's 200 counts more than its own 120, back the caller's 80 more than the listener's 50.
    assert_eq!((listener.receive_latency_ms, caller.send_latency_ms), (200, 200));
    assert_eq!((listener.send_latency_ms, caller.receive_latency_ms), (80, 80));
    assert_eq!((listener.features, caller.features), (Features::default(), Features::default()));
    assert_eq!((listener.mtu, listener.payload_size_max()), (1500, 1456));
    assert_eq!((listener.role, caller.role), (Role::Receiver, Role::Sender));
    assert!(listener.encryption.is_none() && caller.encryption.is_none());
    // The conclusion was sent 20 ms after the caller's start and took 10 ms.
    assert_eq!(listener.peer_time_base.timestamp_us, 20_000);
    assert_eq!(listener.peer_time_base.arrival, Instant::from_millis(100_030));
    // It was answered at once.
    assert_eq!(caller.peer_time_base.timestamp_us, 0);
    assert_eq!(caller.peer_time_base.arrival, Instant::from_millis(100_040));
    assert_eq!(caller.timestamp_us(Instant::from_millis(100_041)), 41_000);
}

#[test]
fn an_encrypted_call_gives_both_sides_the_same_keys() {
    let ciphers = [Cipher::AesCtr, Cipher::AesGcm].into_iter().flat_map(|cipher| {
        [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256].map(move |length| (cipher, length))
    });
    for ((cipher, length), version) in ciphers.flat_map(|keys| [(keys, 0x0001_0503), (keys, VERSION)]) {
        let mut settings = encrypted(b"correct horse", length);
        settings.encryption.as_mut().expect("encrypted").cipher = cipher;
        let mut conversation = Conversation::new(settings, Some(b"correct horse"));
        conversation.version = version;
        let (mut caller, listener) = conversation.run().connected();
        assert_eq!((caller.peer_version, listener.peer_version), (version, version));
        let sender = caller.encryption.as_mut().expect("encrypted");
        let receiver = listener.encryption.as_ref().expect("encrypted");
        assert_eq!((sender.key_length(), receiver.key_length()), (length, length));
        assert_eq!((sender.cipher(), receiver.cipher()), (cipher, cipher));
        assert_eq!(sender.name(), receiver.name());
        assert_eq!(sender.name().ends_with("-GCM (libsrt 1.5.3)"), cipher == Cipher::AesGcm && version < VERSION);
        let mut header = DataHeader { sequence: caller.initial_sequence, ..DataHeader::default() };
        let mut payload = [&[0x47; 1316][..], &[0; 16][..cipher.tag_len()]].concat();
        sender.encrypt(&mut header, &mut payload);
        assert_eq!(header.key, KeyFlag::Even);
        assert_ne!(payload[..1316], [0x47; 1316]);
        assert_eq!(receiver.decrypt(&header, &mut payload), Ok(1316));
        assert_eq!(payload[..1316], [0x47; 1316]);
    }
}

#[test]
fn passphrases_that_differ_or_are_missing_are_told_apart() {
    for (caller, listener, reason) in [
        (encrypted(b"wrong staple", KeyLength::Aes256), Some(&b"correct horse"[..]), RejectReason::BadSecret),
        (encrypted(b"correct horse", KeyLength::Aes128), None, RejectReason::Unsecure),
        (settings(), Some(&b"correct horse"[..]), RejectReason::Unsecure),
    ] {
        let conversation = Conversation::new(caller, listener).run();
        assert_eq!(conversation.failed(), CallError::Rejected(reason));
        assert!(conversation.accepted.is_empty());
    }
}

#[test]
fn lost_answers_are_asked_for_again_every_250_ms() {
    let mut conversation = Conversation::new(settings(), None);
    // The first induction answer and two conclusion answers.
    conversation.lost = |index| [0, 2, 3].contains(&index);
    let conversation = conversation.run();
    assert_eq!(conversation.answers, 5);
    assert_eq!(conversation.listener.counters().repeats, 2);
    let (caller, listener) = conversation.connected();
    // The repeated answer says how old the listener's clock was when it was repeated.
    let sent = listener.start + Duration::from_micros(u64::from(caller.peer_time_base.timestamp_us));
    assert_eq!(sent + Duration::from_millis(10), caller.peer_time_base.arrival);
    assert!(caller.peer_time_base.timestamp_us >= 500_000);
}

#[test]
fn a_call_that_nobody_answers_ends_in_time() {
    let mut conversation = Conversation::new(settings(), None);
    conversation.lost = |_| true;
    let conversation = conversation.run();
    assert_eq!(conversation.failed(), CallError::Timeout);
    assert_eq!(conversation.answers, 12);
    assert_eq!(conversation.now, Instant::from_millis(103_000));
    assert_eq!(conversation.caller.next_timeout(), None);
}

#[test]
fn a_rejection_of_the_application_arrives_with_its_code() {
    let now = Instant::from_millis(5);
    let mut caller = Caller::new(now, settings());
    let mut listener = Listener::new(ListenerSettings::default());
    let mut buffer = Vec::new();
    for _ in 0..2 {
        buffer.clear();
        caller.poll_transmit(now, &mut buffer).expect("a question");
        listener.receive(now, address(CALLER), None, 0, &buffer);
        if let Some(listener::Event::Admission(request)) = listener.poll_event() {
            listener.answer(now, request.reject(now, RejectReason::Conflict));
        }
        buffer.clear();
        listener.poll_transmit(now, &mut buffer).expect("an answer");
        caller.receive(now, address(LISTENER), &buffer);
    }
    let Some(Event::Failed(error)) = caller.poll_event() else { panic!("a failure") };
    assert_eq!(error, CallError::Rejected(RejectReason::Conflict));
    assert_eq!(error.to_string(), "rejected by the listener: CONFLICT (1409)");
    assert!(caller.poll_transmit(now, &mut buffer).is_none());
}

#[test]
fn answers_of_strangers_and_to_others_change_nothing() {
    let now = Instant::from_millis(5);
    let mut caller = Caller::new(now, settings());
    let mut listener = Listener::new(ListenerSettings::default());
    let mut buffer = Vec::new();
    caller.poll_transmit(now, &mut buffer).expect("a question");
    listener.receive(now, address(CALLER), None, 0, &buffer);
    let mut answer = Vec::new();
    listener.poll_transmit(now, &mut answer).expect("an answer");
    caller.receive(now, address("203.0.113.9:30000"), &answer);
    for length in 0..answer.len() {
        caller.receive(now, address(LISTENER), &answer[..length]);
    }
    let mut other = answer.clone();
    other[15] ^= 1;
    caller.receive(now, address(LISTENER), &other);
    assert_eq!(caller.dropped(), 2 + answer.len() as u64);
    assert!(caller.stage == Stage::Induction);
    caller.receive(now, address(LISTENER), &answer);
    assert!(matches!(caller.stage, Stage::Conclusion { .. }));
}

#[test]
fn a_listener_that_drops_encryption_is_told_that_it_is_over() {
    let now = Instant::from_millis(5);
    let mut caller = Caller::new(now, encrypted(b"correct horse", KeyLength::Aes128));
    let mut listener = Listener::new(ListenerSettings::default());
    let mut buffer = Vec::new();
    caller.poll_transmit(now, &mut buffer).expect("a question");
    listener.receive(now, address(CALLER), None, 0, &buffer);
    buffer.clear();
    listener.poll_transmit(now, &mut buffer).expect("an answer");
    caller.receive(now, address(LISTENER), &buffer);
    buffer.clear();
    caller.poll_transmit(now, &mut buffer).expect("a conclusion");
    listener.receive(now, address(CALLER), None, 0, &buffer);
    let Some(listener::Event::Admission(mut request)) = listener.poll_event() else { panic!("an admission") };
    request.key_material = None;
    let (_, answer) = request.accept(now, Acceptance { socket_id: 77, ..Acceptance::default() }).expect("plain");
    buffer.clear();
    answer.write(now, &mut buffer);
    caller.receive(now, address(LISTENER), &buffer);
    let Some(Event::Failed(error)) = caller.poll_event() else { panic!("a failure") };
    assert_eq!(error, CallError::Unacceptable(RejectReason::Unsecure));
    buffer.clear();
    assert_eq!(caller.next_timeout(), Some(Instant::ZERO));
    caller.poll_transmit(now, &mut buffer).expect("a shutdown");
    assert_eq!(buffer[..2], [0x80, 5]);
    assert_eq!(buffer[12..16], [0, 0, 0, 77]);
    assert_eq!(caller.next_timeout(), None);
}

#[test]
fn a_leg_of_a_group_is_told_the_listeners_end_of_it_and_goes_without_one_to_nobody() {
    let ours = Membership { group_id: 0x4000_0001, group_type: GroupType::Backup, weight: 50 };
    let leg = CallerSettings { group: Some(ours), ..settings() };
    let mut conversation = Conversation::new(leg.clone(), None);
    conversation.group_id = Some(0x4000_0777);
    let conversation = conversation.run();
    assert_eq!(conversation.caller.peer_group(), Some(Membership { group_id: 0x4000_0777, ..ours }));
    conversation.connected();

    let conversation = Conversation::new(leg, None).run();
    let outcome = conversation.outcome.expect("it is over");
    assert!(matches!(outcome, Event::Failed(CallError::Unacceptable(RejectReason::Group))), "{outcome:?}");
    assert_eq!(conversation.caller.peer_group(), None);
}
