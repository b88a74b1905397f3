//! Floods and guesses (tests/ATTACKS.md says which test is which fault's).

use super::*;

/// A source of the benchmark network, by number.
fn source(number: u32) -> SocketAddr {
    SocketAddr::from(((0xc612_0000 | number).to_be_bytes(), 40_000))
}

fn limited(inductions: Rate, conclusions: Rate) -> Listener {
    Listener::new(ListenerSettings { cookie_secret: [7; 16], inductions, conclusions, ..ListenerSettings::default() })
}

/// The handshakes that the listener answers this with, and to whom.
fn tell_from(listener: &mut Listener, now: Instant, from: SocketAddr, bytes: &[u8]) -> Vec<HandshakeFields> {
    listener.receive(now, from, None, 0, bytes);
    let (mut answers, mut buffer) = (Vec::new(), Vec::new());
    while let Some(transmit) = listener.poll_transmit(now, &mut buffer) {
        assert_eq!(transmit.peer, from);
        assert!(transmit.len <= bytes.len(), "no more goes out than came in");
        answers.push(Handshake::parse(&buffer[HEADER_LEN..]).expect("well formed").fields);
        buffer.clear();
    }
    answers
}

fn induction() -> Vec<u8> {
    packet(|packet| fields(Request::Induction, 0).encode(packet))
}

fn cookie_of(listener: &mut Listener, now: Instant, from: SocketAddr) -> u32 {
    tell_from(listener, now, from, &induction())[0].cookie
}

fn attempt(cookie: u32, number: u64) -> Vec<u8> {
    conclusion(cookie, |fields, _| fields.initial_sequence = SequenceNumber::new(number))
}

#[test]
fn a_flood_of_inductions_from_everywhere_keeps_nothing_and_keeps_nobody_out() {
    let mut listener = limited(Rate::new(20, 80), Rate::new(20, 80));
    let honest = source(0xffff);
    for number in 0..50_000 {
        let now = at(u64::from(number) / 100);
        assert_eq!(tell_from(&mut listener, now, source(number), &induction()).len(), 1);
        if number % 5_000 == 0 {
            let cookie = cookie_of(&mut listener, now, honest);
            assert!(tell_from(&mut listener, now, honest, &attempt(cookie, u64::from(number))).is_empty());
            assert_eq!(admitted(&mut listener).key.peer, honest);
        }
    }
    assert_eq!((listener.attempts.len(), listener.refusals.len(), listener.transmits.len()), (10, 0, 0));
    assert_eq!(listener.counters().dropped_rate, 0);
}

#[test]
fn one_source_gets_so_many_inductions_answered_and_others_all_of_theirs() {
    let mut listener = limited(Rate::new(20, 80), Rate::default());
    let answered = (0..1_000).filter(|_| !tell_from(&mut listener, at(0), source(1), &induction()).is_empty()).count();
    assert_eq!((answered, listener.counters().dropped_rate), (80, 920));
    assert_eq!(tell_from(&mut listener, at(0), source(2), &induction()).len(), 1);
    assert_eq!(tell_from(&mut listener, at(50), source(1), &induction()).len(), 1, "one of twenty a second");
}

#[test]
fn one_source_gets_so_many_conclusions_judged_and_is_told_why_not_more() {
    let mut listener = limited(Rate::default(), Rate::new(20, 80));
    let cookie = cookie_of(&mut listener, at(0), source(1));
    for number in 0..100 {
        let answers = tell_from(&mut listener, at(0), source(1), &attempt(cookie, number));
        let requests: Vec<_> = answers.iter().map(|answer| answer.request).collect();
        let expected = if number < 80 { vec![] } else { vec![Request::Rejection(RejectReason::Overload)] };
        assert_eq!(requests, expected, "{number}");
    }
    assert_eq!((listener.counters().admissions, listener.counters().rejected_rate), (80, 20));
    // What repeats an attempt is none of its own.
    assert!(tell_from(&mut listener, at(0), source(1), &attempt(cookie, 0)).is_empty());
    assert_eq!(listener.counters().repeats, 1);
    let refusal = listener.poll_refusal().expect("told");
    assert_eq!((refusal.peer, refusal.reason), (source(1), RejectReason::Overload));
    assert_eq!(refusal.why, "more conclusions than a source may send");
    let other = cookie_of(&mut listener, at(0), source(2));
    assert!(tell_from(&mut listener, at(0), source(2), &attempt(other, 0)).is_empty(), "judged");
}

#[test]
fn one_source_never_takes_all_the_room_that_attempts_may_wait_in() {
    let settings = ListenerSettings { pending_max: 8, ..ListenerSettings::default() };
    let mut listener = Listener::new(settings);
    let cookie = cookie_of(&mut listener, at(0), source(1));
    let let_wait =
        (0..100).filter(|&number| tell_from(&mut listener, at(0), source(1), &attempt(cookie, number)).is_empty());
    assert_eq!(let_wait.count(), 6);
    assert_eq!((listener.pending(), listener.counters().rejected_backlog), (6, 94));
    assert_eq!(listener.refusals.len(), REFUSALS_MAX.min(94), "bounded");
    for number in 2..4 {
        let cookie = cookie_of(&mut listener, at(0), source(number));
        assert!(tell_from(&mut listener, at(0), source(number), &attempt(cookie, 0)).is_empty());
    }
    assert_eq!(listener.pending(), 8);
}

#[test]
fn no_cookie_is_found_by_guessing_nor_by_what_others_were_given() {
    let mut listener = limited(Rate::default(), Rate::default());
    let stolen = cookie_of(&mut listener, at(0), source(1));
    let victim = source(2);
    let mut guess = 0x1234_5678_u32;
    for _ in 0..100_000 {
        guess ^= guess << 13;
        guess ^= guess >> 17;
        guess ^= guess << 5;
        listener.receive(at(0), victim, None, 0, &attempt(guess, 0));
    }
    listener.receive(at(0), victim, None, 0, &attempt(stolen, 0));
    let same_host = SocketAddr::new(source(1).ip(), 40_001);
    listener.receive(at(0), same_host, None, 0, &attempt(stolen, 0));
    assert_eq!(listener.counters().dropped_cookie, 100_002);
    assert!(listener.poll_event().is_none() && listener.attempts.is_empty());
    assert!(listener.poll_transmit(at(0), &mut Vec::new()).is_none(), "nobody is answered");
}

#[test]
fn tiny_packets_and_windows_are_refused_before_anything_is_made_for_them() {
    for mtu in (0..MTU_MIN).chain([0x8000_0000, u32::MAX]) {
        let mut listener = limited(Rate::default(), Rate::default());
        let cookie = cookie_of(&mut listener, at(0), source(1));
        let bytes = conclusion(cookie, |fields, _| fields.mtu = mtu);
        let answers = tell_from(&mut listener, at(0), source(1), &bytes);
        if mtu < MTU_MIN {
            assert_eq!(answers[0].request, Request::Rejection(RejectReason::Rogue), "{mtu}");
        } else {
            let request = admitted(&mut listener);
            let acceptance = Acceptance { socket_id: 5, ..Acceptance::default() };
            let (parameters, _) = request.accept(at(0), acceptance).expect("let in");
            assert_eq!(parameters.mtu, MTU_MAX, "no more than ours");
        }
    }
}

/// A conclusion with a further extension.
fn with_extension(cookie: u32, kind: u16, words: u16, content: &[u8]) -> Vec<u8> {
    let number = u64::from(words) << 4 | u64::from(kind);
    let mut packet = conclusion(cookie, |fields, _| fields.initial_sequence = SequenceNumber::new(number));
    packet.extend(kind.to_be_bytes());
    packet.extend(words.to_be_bytes());
    packet.extend(content);
    packet
}

#[test]
fn key_material_of_every_length_in_a_conclusion_is_refused_or_whole() {
    let mut listener = limited(Rate::default(), Rate::default());
    let cookie = cookie_of(&mut listener, at(0), source(1));
    let head = [0x12, 0x20, 0x29, 1, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 4, 4];
    for words in 0..340_u16 {
        let content: Vec<u8> = head.into_iter().chain(std::iter::repeat(0xff)).take(usize::from(words) * 4).collect();
        for kind in [3, 4] {
            let answers = tell_from(&mut listener, at(0), source(1), &with_extension(cookie, kind, words, &content));
            // 16 of header, 16 of salt, a key of 16 and the eight bytes of its check are one key of 128 bits.
            if words * 4 == 56 {
                assert!(answers.is_empty(), "{words}");
            } else {
                assert_eq!(answers[0].request, Request::Rejection(RejectReason::Rogue), "{words}");
            }
        }
    }
    assert_eq!(listener.pending(), 2);
    // Lengths that go beyond the packet.
    let dropped = listener.counters().dropped_malformed;
    for (kind, words) in [(3, 0xffff), (5, 0xffff), (5, 0x4000), (8, 1), (1, 0x100)] {
        assert!(tell_from(&mut listener, at(0), source(1), &with_extension(cookie, kind, words, &[])).is_empty());
    }
    assert_eq!(listener.counters().dropped_malformed, dropped + 5);
}

#[test]
fn a_stream_id_that_is_too_long_or_no_text_is_refused_and_shown_to_people_in_part() {
    let mut listener = limited(Rate::default(), Rate::default());
    let cookie = cookie_of(&mut listener, at(0), source(1));
    let mut refused = |content: &[u8]| {
        let words = (content.len() / 4) as u16;
        let answers = tell_from(&mut listener, at(0), source(1), &with_extension(cookie, 5, words, content));
        let Request::Rejection(reason) = answers[0].request else { panic!("{answers:?}") };
        (reason.code(), listener.poll_refusal().expect("told"))
    };
    let (code, refusal) = refused(&[b'a'; 516]);
    assert_eq!((code, refusal.stream_id.len()), (1400, 128));
    assert_eq!(refusal.why, "the Stream ID is longer than 512 bytes");
    let (code, refusal) = refused(&[0xff, 0xfe, 0x1b, b'a']);
    assert_eq!((code, refusal.stream_id.as_str()), (1400, "a\u{fffd}\u{fffd}\u{fffd}"));
    for (content, code) in
        [(&b"::!#\x001=x"[..], 1001), (b"::!#ts=m\0lae", 1405), (b"::!#id=t\0\0ks", 1415), (b"::!#\0\0\0r", 1400)]
    {
        assert_eq!(refused(content).0, code, "{content:?}");
    }
}
