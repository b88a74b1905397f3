//! Peers of version 4 of the handshake, as libsrt before 1.3 is one (`CUDT::processConnectResponse` of 1.2.3).

use super::*;
use crate::protocol::srt::handshake::{HandshakeExtension, Offer};
use crate::protocol::srt::parameters::{VERSION, Version4Terms};

/// Their socket id, and the number of their first packet.
const THEIRS: (u32, u64) = (21, 7_000);

/// libsrt 1.2.3: waves, concludes once it has heard anything, and is connected when it then hears a conclusion, an agreement, or what
/// only the connected send.
struct OldPeer {
    request: Request,
    /// What it has heard of us: our socket id.
    ours: Option<u32>,
    is_connected: bool,
    sent_at: Option<Instant>,
    agreement_due: bool,
    keep_alive_at: Instant,
}

impl OldPeer {
    fn new() -> Self {
        Self {
            request: Request::WaveAHand,
            ours: None,
            is_connected: false,
            sent_at: None,
            agreement_due: false,
            keep_alive_at: Instant::FAR_FUTURE,
        }
    }

    fn receive(&mut self, now: Instant, bytes: &[u8]) {
        let Ok(Header::Control(header)) = packet::parse(bytes) else { return };
        let Ok(handshake) = Handshake::parse(&bytes[HEADER_LEN..]) else { return };
        let fields = handshake.fields;
        if ![0, THEIRS.0].contains(&header.socket_id) {
            return;
        }
        if self.is_connected {
            self.agreement_due |= fields.request != Request::Agreement;
            return;
        }
        self.ours = Some(fields.socket_id);
        if self.request == Request::WaveAHand || fields.request == Request::WaveAHand {
            (self.request, self.sent_at) = (Request::Conclusion, None);
            return;
        }
        (self.is_connected, self.keep_alive_at) = (true, now + Duration::from_secs(1));
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let to = ControlWriter { timestamp_us: 0, socket_id: self.ours.unwrap_or(0) };
        let mut bytes = Vec::new();
        let mut fields = HandshakeFields {
            version: VERSION_4,
            encryption: 0,
            extension: SOCKET_TYPE_DATAGRAM,
            initial_sequence: SequenceNumber::new(THEIRS.1),
            mtu: 1_500,
            flow_window: 8_192,
            request: self.request,
            socket_id: THEIRS.0,
            cookie: 0,
            peer_address: address(0).ip(),
        };
        if std::mem::take(&mut self.agreement_due) {
            // Neither version nor socket type stand in it.
            (fields.version, fields.extension, fields.request) = (0, 0, Request::Agreement);
        } else if self.is_connected {
            if now < self.keep_alive_at {
                return None;
            }
            self.keep_alive_at = now + Duration::from_secs(1);
            to.keep_alive(&mut bytes);
            return Some(bytes);
        } else if self.sent_at.is_some_and(|at| now < at + RETRY_INTERVAL) {
            return None;
        } else {
            self.sent_at = Some(now);
        }
        to.handshake(&mut bytes, &[]);
        fields.encode(&mut bytes);
        Some(bytes)
    }
}

/// One of ours meets one of theirs.
struct OldMeeting {
    now: Instant,
    ours: Rendezvous,
    theirs: OldPeer,
    theirs_begins: Instant,
    line: Vec<(Instant, u64, bool, Vec<u8>)>,
    sent: u64,
    loss: u64,
    delay_ms: u64,
    dice: Dice,
    outcome: Option<Event>,
    /// The versions of the handshakes that we have sent, and what they were for.
    said: Vec<(u32, Request)>,
}

impl OldMeeting {
    fn new(settings: RendezvousSettings) -> Self {
        let now = Instant::from_millis(50_000);
        Self {
            now,
            ours: Rendezvous::new(now, settings),
            theirs: OldPeer::new(),
            theirs_begins: now,
            line: Vec::new(),
            sent: 0,
            loss: 0,
            delay_ms: 1,
            dice: Dice(1),
            outcome: None,
            said: Vec::new(),
        }
    }

    fn post(&mut self, to_theirs: bool, bytes: Vec<u8>) {
        self.sent += 1;
        let at = self.now + Duration::from_millis(1 + self.dice.roll(self.delay_ms));
        if self.dice.roll(100) >= self.loss {
            self.line.push((at, self.sent, to_theirs, bytes));
        }
    }

    fn step(&mut self) {
        let now = self.now;
        let has_begun = now >= self.theirs_begins;
        self.line.sort_by_key(|(at, number, ..)| (*at, *number));
        let due = self.line.iter().take_while(|(at, ..)| *at <= now).count();
        for (_, _, to_theirs, bytes) in self.line.drain(..due).collect::<Vec<_>>() {
            match to_theirs {
                true if has_begun => self.theirs.receive(now, &bytes),
                true => {}
                false => self.ours.receive(now, address(1), &bytes),
            }
        }
        self.ours.handle_timeout(now);
        let mut buffer = Vec::new();
        while self.ours.poll_transmit(now, &mut buffer).is_some() {
            let bytes = std::mem::take(&mut buffer);
            let fields = Handshake::parse(&bytes[HEADER_LEN..]).expect("a handshake").fields;
            self.said.push((fields.version, fields.request));
            self.post(true, bytes);
        }
        while has_begun && let Some(bytes) = self.theirs.poll_transmit(now) {
            self.post(false, bytes);
        }
        if let Some(event) = self.ours.poll_event() {
            assert!(self.outcome.replace(event).is_none(), "one thing comes of it");
        }
        self.now += Duration::from_millis(1);
    }

    /// Until both are connected, or ours has failed.
    fn run(&mut self) {
        let end = self.now + PATIENCE * 2;
        while self.now < end
            && !matches!(self.outcome, Some(Event::Failed(_)))
            && (self.outcome.is_none() || !self.theirs.is_connected)
        {
            self.step();
        }
    }

    fn parameters(&self) -> &ConnectionParameters {
        match &self.outcome {
            Some(Event::Connected(parameters)) if self.theirs.is_connected => parameters,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn whoever_begins_first_both_are_connected_and_the_rest_is_left_to_the_connection() {
    for later_ms in [0, 1, 3, 249, 251, 3_000] {
        let mut meeting = OldMeeting::new(settings(0, 9));
        meeting.theirs_begins += Duration::from_millis(later_ms);
        meeting.run();
        let parameters = meeting.parameters();
        assert_eq!((parameters.peer_socket_id, parameters.initial_sequence.get()), (THEIRS.0, 100));
        assert_eq!(parameters.peer_initial_sequence, Some(SequenceNumber::new(THEIRS.1)));
        assert_eq!((parameters.peer_version, parameters.features), (0, Features::of_peer(0)));
        assert_eq!((parameters.receive_latency_ms, parameters.send_latency_ms), (80, 300));
        let terms = Version4Terms { latency_max_ms: u16::MAX, has_passphrase: false, enforced_encryption: true };
        assert_eq!(parameters.version4, Some(terms));
        // Version 5 is waved until the peer is known.
        let is_known = |said: &&(u32, Request)| said.1 != Request::WaveAHand;
        assert!(meeting.said.iter().filter(is_known).all(|said| said.0 == VERSION_4), "{:?}", meeting.said);
    }
}

#[test]
fn a_link_that_loses_and_reorders_delays_it_and_does_not_prevent_it() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let mut meeting = OldMeeting::new(settings(0, 9));
        meeting.theirs_begins += Duration::from_millis(dice.roll(1_000));
        (meeting.loss, meeting.delay_ms, meeting.dice) = (dice.roll(40), 1 + dice.roll(300), Dice(seed ^ 0xabcd));
        meeting.run();
        assert_eq!(meeting.parameters().peer_socket_id, THEIRS.0, "seed {seed}");
    }
}

#[test]
fn a_peer_that_has_not_heard_that_we_are_connected_is_told_again() {
    let mut meeting = OldMeeting::new(settings(0, 9));
    meeting.run();
    for _ in 0..10 {
        meeting.step();
    }
    let before = meeting.said.len();
    meeting.theirs.is_connected = false;
    meeting.outcome = None;
    for _ in 0..600 {
        meeting.step();
    }
    assert!(meeting.theirs.is_connected && meeting.outcome.is_none());
    assert!(
        meeting.said[before..].iter().all(|said| *said == (VERSION_4, Request::Agreement))
            && meeting.said.len() > before
    );
}

#[test]
fn who_sends_brings_the_key_who_receives_waits_for_it_and_gcm_is_not_gone_without() {
    let with_secret = |side: usize, cipher, takes_any_cipher| RendezvousSettings {
        encryption: Some(secret(b"correct horse", 3, cipher)),
        takes_any_cipher,
        ..settings(side, 9)
    };
    let run = |settings: RendezvousSettings| {
        let mut meeting = OldMeeting::new(RendezvousSettings { peer: address(1), ..settings });
        meeting.run();
        meeting
    };
    let receiving = run(with_secret(0, Cipher::AesCtr, false));
    let parameters = receiving.parameters();
    assert!(parameters.encryption.is_none() && parameters.version4.unwrap().has_passphrase);
    assert_eq!(parameters.key_state, KeyMaterialState::Securing);
    let sending = run(with_secret(1, Cipher::AesCtr, false));
    let parameters = sending.parameters();
    assert!(parameters.encryption.is_some() && !parameters.version4.unwrap().has_passphrase);
    // What the peer encrypts with is the peer's to say, unless GCM is insisted on.
    run(with_secret(0, Cipher::AesGcm, true)).parameters();
    let refused = run(with_secret(0, Cipher::AesGcm, false));
    let Some(Event::Failed(error)) = refused.outcome else { panic!("{:?}", refused.outcome) };
    assert_eq!(error, CallError::Unacceptable(RejectReason::Crypto));
    // It would take a rejection for a conclusion.
    assert!(refused.said.iter().all(|said| said.1 == Request::WaveAHand), "{:?}", refused.said);
}

fn said_by_version4(request: Request) -> HandshakeFields {
    let theirs = Rendezvous::new(Instant::ZERO, settings(1, 5)).fields(request);
    HandshakeFields { version: VERSION_4, extension: SOCKET_TYPE_DATAGRAM, socket_id: 666, cookie: 0, ..theirs }
}

#[test]
fn who_does_not_know_our_socket_id_connects_nobody_at_any_stage() {
    let now = Instant::from_millis(1_000);
    let theirs = Rendezvous::new(now, settings(1, 5));
    let mut conclusion = theirs.fields(Request::Conclusion);
    conclusion.socket_id = 666;
    // A conclusion of version 5 from a responder, with all that would connect us as the initiator.
    let mut of_version5 = Vec::new();
    ControlWriter { timestamp_us: 0, socket_id: 0 }.handshake(&mut of_version5, &[]);
    let offer = Offer {
        is_response: true,
        handshake: HandshakeExtension { version: VERSION, flags: 0xbf, receive_latency_ms: 1, send_latency_ms: 1 },
        key_material: None,
        stream_id: None,
        group: None,
        packet_filter: None,
        mode: TransmissionMode::Live,
    };
    conclusion.encode_conclusion(&offer, &mut of_version5);
    for wave in [None, Some(said_by_version4(Request::WaveAHand)), Some(theirs.fields(Request::WaveAHand))] {
        let mut machine = Rendezvous::new(now, settings(0, 9));
        if let Some(wave) = wave {
            machine.receive(now, address(1), &written(0, wave));
        }
        let stage = machine.stage();
        machine.receive(now, address(1), &written(0, said_by_version4(Request::Conclusion)));
        machine.receive(now, address(1), &written(0, said_by_version4(Request::Agreement)));
        machine.receive(now, address(1), &of_version5);
        assert_eq!((machine.stage(), machine.dropped()), (stage, 3));
        assert!(machine.poll_event().is_none());
    }
    // With our socket id each of the two conclusions is good.
    let mut machine = Rendezvous::new(now, settings(0, 9));
    machine.receive(now, address(1), &written(11, said_by_version4(Request::Conclusion)));
    assert_eq!(machine.stage(), Stage::Connected);
    let mut machine = Rendezvous::new(now, settings(0, 9));
    of_version5[12..16].copy_from_slice(&11_u32.to_be_bytes());
    machine.receive(now, address(1), &of_version5);
    assert_eq!(machine.stage(), Stage::Connected);
}

#[test]
fn a_meeting_of_version_5_that_is_under_way_is_not_taken_over_by_version_4() {
    let mut meeting = Meeting::cookies(5, 9);
    while meeting.sides[0].as_ref().is_none_or(|side| matches!(side.stage(), Stage::Waving | Stage::Attention)) {
        meeting.step();
    }
    let now = meeting.now;
    let side = meeting.sides[0].as_mut().expect("it has begun");
    let (stage, dropped) = (side.stage(), side.dropped());
    side.receive(now, address(1), &written(0, said_by_version4(Request::WaveAHand)));
    side.receive(now, address(1), &written(11, said_by_version4(Request::Conclusion)));
    assert_eq!((side.stage(), side.dropped()), (stage, dropped + 2));
    agree(&meeting.connected());
}

#[test]
fn forged_waves_of_version_5_keep_no_peer_of_version_4_out() {
    let wave_of_version5 = || {
        let theirs = Rendezvous::new(Instant::ZERO, settings(1, 5)).fields(Request::WaveAHand);
        written(0, HandshakeFields { socket_id: 777, ..theirs })
    };
    // Before the peer is there; when it has waved; when it may have concluded.
    for forged_ms in [1, 500, 502] {
        let mut meeting = OldMeeting::new(settings(0, 9));
        meeting.theirs_begins += Duration::from_millis(500);
        let forged_at = meeting.now + Duration::from_millis(forged_ms);
        while meeting.now < forged_at {
            meeting.step();
        }
        meeting.ours.receive(meeting.now, address(1), &wave_of_version5());
        meeting.run();
        assert_eq!(meeting.parameters().peer_socket_id, THEIRS.0, "forged after {forged_ms} ms");
        assert!(meeting.now < forged_at + Duration::from_secs(2), "forged after {forged_ms} ms");
    }
    // The peer has heard our wave, and concludes.
    let now = Instant::from_millis(1_000);
    let mut machine = Rendezvous::new(now, settings(0, 9));
    machine.receive(now, address(1), &wave_of_version5());
    machine.receive(now, address(1), &written(11, said_by_version4(Request::Conclusion)));
    assert_eq!(machine.stage(), Stage::Connected);
}

#[test]
fn forged_waves_of_version_4_keep_no_peer_of_version_5_out() {
    for cookies in [(5, 9), (9, 5)] {
        let mut meeting = Meeting::cookies(cookies.0, cookies.1);
        for step in 0..200 {
            let (now, side) = (meeting.now, &mut meeting.sides[0]);
            if let Some(side) = side.as_mut().filter(|_| step % 40 == 1) {
                side.receive(now, address(1), &written(0, said_by_version4(Request::WaveAHand)));
            }
            meeting.step();
        }
        agree(&meeting.connected());
    }
    // Where version 4 is none that may be met.
    let now = Instant::from_millis(1_000);
    let packet_filter = Some(FilterConfiguration::default());
    let mut machine = Rendezvous::new(now, RendezvousSettings { packet_filter, ..settings(0, 9) });
    machine.receive(now, address(1), &written(0, Rendezvous::new(now, settings(1, 5)).fields(Request::WaveAHand)));
    machine.receive(now, address(1), &written(0, said_by_version4(Request::WaveAHand)));
    assert_eq!((machine.stage(), machine.dropped()), (Stage::Attention, 1));
}
