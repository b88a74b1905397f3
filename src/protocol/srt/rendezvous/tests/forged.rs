//! Waves that somebody sends blindly from the peer's address: he knows neither our socket id nor anything of the peer.

use super::*;

/// A wave of version 5 that could be met.
fn forged() -> HandshakeFields {
    let wave = Rendezvous::new(Instant::ZERO, settings(1, 77)).fields(Request::WaveAHand);
    HandshakeFields { socket_id: 777, ..wave }
}

fn forged_of_version4() -> HandshakeFields {
    HandshakeFields { version: VERSION_4, extension: SOCKET_TYPE_DATAGRAM, socket_id: 666, cookie: 0, ..forged() }
}

/// Every wave that nobody could meet, with its reason: our cookie is `cookie`, and we have a packet filter.
fn unacceptable(cookie: u32) -> [(HandshakeFields, RejectReason); 6] {
    use RejectReason::{Filter, RendezvousCookie, Rogue};
    [
        (HandshakeFields { cookie: 0, ..forged() }, RendezvousCookie),
        (HandshakeFields { cookie, ..forged() }, RendezvousCookie),
        (HandshakeFields { mtu: MTU_MIN - 1, ..forged() }, Rogue),
        (HandshakeFields { flow_window: 1, ..forged() }, Rogue),
        (forged_of_version4(), Filter),
        (HandshakeFields { flow_window: 1, ..forged_of_version4() }, Rogue),
    ]
}

fn with_filter(settings: RendezvousSettings) -> RendezvousSettings {
    RendezvousSettings { packet_filter: Some("fec,cols:10".parse().expect("a configuration")), ..settings }
}

#[test]
fn a_wave_that_is_not_acceptable_ends_nothing_at_any_stage_and_is_the_reason_when_nobody_else_comes() {
    for cookies in [(5, 9), (9, 5)] {
        // At each millisecond of a meeting, each of them; in the second half also after an upgrade.
        for upgrades in [0, 200] {
            let mut meeting = Meeting::new([with_filter(settings(0, cookies.0)), with_filter(settings(1, cookies.1))]);
            meeting.upgrades = upgrades;
            meeting.begins[1] += Duration::from_millis(20);
            meeting.delay_ms = 5;
            while meeting.outcomes.iter().any(Option::is_none) {
                for (wave, _) in unacceptable(cookies.0) {
                    if let Some(side) = &mut meeting.sides[0] {
                        let stage = side.stage();
                        side.receive(meeting.now, address(1), &written(0, wave));
                        assert_eq!(side.stage(), stage);
                    }
                }
                meeting.step();
            }
            agree(&meeting.connected());
        }
    }
    let now = Instant::from_millis(1_000);
    for (wave, reason) in unacceptable(9) {
        let mut machine = Rendezvous::new(now, with_filter(settings(0, 9)));
        machine.receive(now, address(1), &written(0, wave));
        let mut machine = restored(&machine);
        assert_eq!((machine.stage(), machine.dropped()), (Stage::Waving, 1));
        machine.handle_timeout(now + PATIENCE);
        let Some(Event::Failed(error)) = machine.poll_event() else { panic!("the time is over") };
        assert_eq!(error, CallError::Unacceptable(reason));
        // Another that could be met has waved since, and nothing came of it.
        let mut machine = Rendezvous::new(now, with_filter(settings(0, 9)));
        machine.receive(now, address(1), &written(0, wave));
        machine.receive(now, address(1), &written(0, forged()));
        machine.handle_timeout(now + PATIENCE);
        let Some(Event::Failed(error)) = machine.poll_event() else { panic!("the time is over") };
        assert_eq!(error, CallError::Timeout);
        // Whoever knows our socket id is told at once.
        let mut machine = Rendezvous::new(now, with_filter(settings(0, 9)));
        machine.receive(now, address(1), &written(11, wave));
        let Some(Event::Failed(error)) = machine.poll_event() else { panic!("it is addressed to us") };
        assert_eq!(error, CallError::Unacceptable(reason));
    }
}

#[test]
fn no_wave_comes_between_us_and_a_peer_of_version_5_that_has_heard_us() {
    // We answer, and the peer has our answer: its agreement is lost, and media is the next that comes.
    let mut meeting = Meeting::cookies(5, 9);
    while meeting.outcomes[1].is_none() {
        meeting.step();
    }
    meeting.line.clear();
    let mut media = Vec::new();
    ControlWriter { timestamp_us: 5, socket_id: 11 }.keep_alive(&mut media);
    let mut side = meeting.sides[0].take().expect("it has begun");
    let stage = side.stage();
    // A late one of the peer itself changes nothing of that.
    let late = Rendezvous::new(meeting.now, settings(1, 9)).fields(Request::WaveAHand);
    for wave in [late, forged(), forged_of_version4(), forged()] {
        side.receive(meeting.now, address(1), &written(0, wave));
        side = restored(&side);
        assert_eq!(side.stage(), stage);
    }
    side.receive(meeting.now, address(1), &media);
    let Some(Event::Connected(parameters)) = side.poll_event() else { panic!("{:?}", side.stage()) };
    assert_eq!((parameters.peer_socket_id, parameters.version4), (12, None));
    assert_eq!(parameters.peer_initial_sequence, Some(SequenceNumber::new(0x7fff_ff00)));

    // We ask, and have been told that we are heard by one who has not heard what we ask for.
    let now = Instant::from_millis(1_000);
    let theirs = Rendezvous::new(now, settings(1, 5));
    let mut side = Rendezvous::new(now, settings(0, 9));
    side.receive(now, address(1), &written(11, theirs.fields(Request::Conclusion)));
    assert_eq!(side.stage(), Stage::Fine);
    for wave in [forged(), forged_of_version4()] {
        side.receive(now, address(1), &written(0, wave));
        side.receive(now, address(1), &media);
        assert_eq!(side.stage(), Stage::Fine);
    }
    let mut buffer = Vec::new();
    side.poll_transmit(now, &mut buffer).expect("what we ask for");
    assert_eq!(buffer[12..16], 12_u32.to_be_bytes(), "of the peer, and of nobody else");
}

#[test]
fn forged_waves_that_never_end_keep_nobody_out() {
    for cookies in [(5, 9), (9, 5)] {
        let mut meeting = Meeting::cookies(cookies.0, cookies.1);
        meeting.begins[1] += Duration::from_millis(500);
        let end = meeting.now + Duration::from_secs(2);
        while meeting.outcomes.iter().any(Option::is_none) && meeting.now < end {
            if let Some(side) = &mut meeting.sides[0] {
                side.receive(meeting.now, address(1), &written(0, forged()));
                side.receive(meeting.now, address(1), &written(0, forged_of_version4()));
            }
            meeting.step();
        }
        assert!(meeting.now < end, "{cookies:?}");
        agree(&meeting.connected());
    }
}
