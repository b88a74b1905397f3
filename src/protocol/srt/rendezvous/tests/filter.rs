//! Two that meet agree on a packet filter, or do not.

use super::*;
use crate::protocol::srt::fec::configuration::{Fec, FilterConfiguration};
use crate::protocol::srt::handshake::{HandshakeExtension, Offer, SOCKET_TYPE_DATAGRAM, VERSION_4, flags};
use crate::protocol::srt::parameters::VERSION;

const FULL: &str = "fec,arq:never,cols:10,layout:even,rows:5";

fn read(text: &str) -> Option<FilterConfiguration> {
    (!text.is_empty()).then(|| text.parse().expect("a configuration"))
}

fn print(filter: Option<Fec>) -> String {
    filter.map(|fec| FilterConfiguration::from(fec).to_string()).unwrap_or_default()
}

/// The first side is the initiator.
fn meeting_of(initiators: &str, responders: &str) -> Meeting {
    let side = |number, cookie, text| RendezvousSettings { packet_filter: read(text), ..settings(number, cookie) };
    Meeting::new([side(0, 9, initiators), side(1, 5, responders)])
}

fn printed(connected: [Box<ConnectionParameters>; 2]) -> [String; 2] {
    connected.map(|parameters| print(parameters.packet_filter))
}

#[test]
fn both_have_what_either_says_whoever_is_the_initiator() {
    for (one, other, agreed) in [
        ("", "", ""),
        (FULL, "", FULL),
        ("", FULL, FULL),
        (FULL, FULL, FULL),
        ("fec,rows:5,cols:10", "fec,cols:10,rows:5,arq:onreq", "fec,arq:onreq,cols:10,layout:staircase,rows:5"),
        ("fec,cols:8", "", "fec,arq:onreq,cols:8,layout:staircase,rows:1"),
        ("", "fec,cols:8", "fec,arq:onreq,cols:8,layout:staircase,rows:1"),
        // The responder speaks first, so that it has to say something.
        ("fec", FULL, FULL),
    ] {
        for later_ms in [0, 100] {
            for first in 0..2 {
                let mut meeting = meeting_of(one, other);
                meeting.begins[1 - first] += Duration::from_millis(later_ms);
                assert_eq!(printed(meeting.connected()), [agreed; 2], "{one:?} and {other:?}");
            }
        }
    }
}

#[test]
fn a_conflict_is_refused_with_its_code_on_both_sides() {
    let filter = RejectReason::Filter;
    for (one, other) in [
        ("fec,cols:10", "fec,cols:8"),
        // What the responder leaves out is as libsrt has it by default, and not open.
        ("fec,cols:10,rows:5", "fec,cols:10"),
        ("fec", ""),
    ] {
        let errors = meeting_of(one, other).failed();
        assert_eq!(errors, [CallError::Unacceptable(filter), CallError::Rejected(filter)], "{one:?} and {other:?}");
    }
    for (one, other) in [("", "fec"), (FULL, "fec")] {
        let errors = meeting_of(one, other).failed();
        assert_eq!(errors, [CallError::Rejected(filter), CallError::Unacceptable(filter)], "{one:?} and {other:?}");
    }
}

#[test]
fn a_link_that_loses_and_reorders_leads_to_no_filter_that_only_one_side_has() {
    let mut connected = 0;
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let texts = [("", FULL), (FULL, ""), (FULL, FULL)][dice.roll(3) as usize];
        let outcomes = meeting_of(texts.0, texts.1).over_a_bad_link(&mut dice, seed);
        for parameters in outcomes.iter().flatten() {
            assert_eq!(print(parameters.packet_filter), FULL, "seed {seed}");
        }
        connected += usize::from(outcomes.iter().all(Result::is_ok));
    }
    assert!(connected > 290, "{connected} of 300 have met");
}

/// What another implementation says as the side with this cookie, to our socket id, with an extension for the packet filter as it stands.
fn said(cookie: u32, is_response: bool, flags: u32, packet_filter: Option<&[u8]>) -> Vec<u8> {
    let mut fields = Rendezvous::new(Instant::ZERO, settings(1, cookie)).fields(Request::Conclusion);
    fields.cookie = cookie;
    let offer = Offer {
        is_response,
        handshake: HandshakeExtension { version: VERSION, flags, receive_latency_ms: 1, send_latency_ms: 1 },
        key_material: None,
        stream_id: None,
        group: None,
        packet_filter,
        mode: TransmissionMode::Live,
    };
    let mut bytes = Vec::new();
    ControlWriter { timestamp_us: 0, socket_id: 11 }.handshake(&mut bytes, &[]);
    fields.encode_conclusion(&offer, &mut bytes);
    bytes
}

/// A text as libsrt sends it: just as it was typed.
fn typed(text: &str) -> Vec<u8> {
    let mut wire = text.as_bytes().to_vec();
    wire.resize(wire.len().next_multiple_of(4), 0);
    wire.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    wire
}

/// The packet filter of the last conclusion that goes out.
fn filter_sent(machine: &mut Rendezvous, now: Instant) -> Option<Vec<u8>> {
    let mut sent = None;
    let mut buffer = Vec::new();
    while machine.poll_transmit(now, &mut buffer).is_some() {
        let handshake = Handshake::parse(&buffer[HEADER_LEN..]).expect("a handshake");
        sent = handshake.extensions.filter.map(<[u8]>::to_vec);
        buffer.clear();
    }
    sent
}

fn connected(machine: &mut Rendezvous) -> String {
    let Some(Event::Connected(parameters)) = machine.poll_event() else { panic!("no connection") };
    print(parameters.packet_filter)
}

#[test]
fn what_an_initiator_asks_for_is_answered_byte_by_byte_for_libsrt_takes_nothing_else() {
    let now = Instant::from_millis(1_000);
    let text = "fec,rows:5,cols:10,layout:even,arq:never";
    for ours in ["", FULL, "fec,cols:10", "fec"] {
        let mut machine = Rendezvous::new(now, RendezvousSettings { packet_filter: read(ours), ..settings(0, 5) });
        machine.receive(now, address(1), &said(9, false, 0xbf, Some(&typed(text))));
        assert_eq!(filter_sent(&mut machine, now), Some(typed(text)), "{ours:?}");
        let mut agreement = Vec::new();
        ControlWriter { timestamp_us: 0, socket_id: 11 }.handshake(&mut agreement, &[]);
        let mut fields = Rendezvous::new(now, settings(1, 9)).fields(Request::Agreement);
        fields.cookie = 9;
        fields.encode(&mut agreement);
        machine.receive(now, address(1), &agreement);
        assert_eq!(connected(&mut machine), FULL);
    }
}

#[test]
fn an_initiator_asks_for_its_filter_when_the_answer_has_none_and_takes_the_same_in_other_words() {
    let now = Instant::from_millis(1_000);
    let begun = |ours| {
        let mut machine = Rendezvous::new(now, RendezvousSettings { packet_filter: read(ours), ..settings(0, 9) });
        let wave = Rendezvous::new(now, settings(1, 5)).fields(Request::WaveAHand);
        let mut bytes = Vec::new();
        ControlWriter { timestamp_us: 0, socket_id: 0 }.handshake(&mut bytes, &[]);
        wave.encode(&mut bytes);
        machine.receive(now, address(1), &bytes);
        assert_eq!(filter_sent(&mut machine, now), None, "the responder is let speak first");
        machine
    };
    let mut machine = begun(FULL);
    machine.receive(now, address(1), &said(5, true, 0xbf, Some(&typed("fec,rows:5,cols:10,layout:even,arq:never"))));
    assert_eq!(connected(&mut machine), FULL);

    let mut machine = begun("fec,cols:10");
    machine.receive(now, address(1), &said(5, true, 0xbf, None));
    let all = typed("fec,arq:onreq,cols:10,layout:staircase,rows:1");
    assert_eq!(filter_sent(&mut machine, now), Some(all.clone()), "at once, with all that it means");
    // Its answer to the first offer, once more.
    machine.receive(now, address(1), &said(5, true, 0xbf, None));
    assert_eq!(machine.stage(), Stage::Attention);
    machine.receive(now, address(1), &said(5, true, 0xbf, Some(&all)));
    assert_eq!(connected(&mut machine), "fec,arq:onreq,cols:10,layout:staircase,rows:1");

    let mut machine = begun("fec,cols:10");
    machine.receive(now, address(1), &said(5, true, 0xbf & !flags::PACKET_FILTER, None));
    let Some(Event::Failed(error)) = machine.poll_event() else { panic!("it knows no filters") };
    assert_eq!(error, CallError::Unacceptable(RejectReason::Filter));
}

#[test]
fn a_peer_of_version_4_has_none_and_is_not_met_where_there_is_to_be_one() {
    let now = Instant::from_millis(1_000);
    let mut machine = Rendezvous::new(now, RendezvousSettings { packet_filter: read("fec"), ..settings(0, 9) });
    let wave = Rendezvous::new(now, settings(1, 5)).fields(Request::WaveAHand);
    let mut bytes = Vec::new();
    ControlWriter { timestamp_us: 0, socket_id: 0 }.handshake(&mut bytes, &[]);
    HandshakeFields { version: VERSION_4, extension: SOCKET_TYPE_DATAGRAM, cookie: 0, ..wave }.encode(&mut bytes);
    machine.receive(now, address(1), &bytes);
    assert_eq!(machine.stage(), Stage::Waving, "it may be anybody's");
    machine.handle_timeout(now + PATIENCE);
    let Some(Event::Failed(error)) = machine.poll_event() else { panic!("it has failed") };
    assert_eq!(error, CallError::Unacceptable(RejectReason::Filter));
}
