//! A caller and a listener agree on a filter, or do not.

use std::net::SocketAddr;

use super::*;
use crate::base::Instant;
use crate::protocol::srt::caller::{CallError, Caller, CallerSettings, Event as Called};
use crate::protocol::srt::handshake::{RejectReason, flags};
use crate::protocol::srt::listener::{Acceptance, AdmissionRequest, Event, Listener, ListenerSettings};

const NOW: Instant = Instant::from_millis(600_000);

fn read(text: &str) -> Option<FilterConfiguration> {
    (!text.is_empty()).then(|| text.parse().expect("a configuration"))
}

fn print(filter: Option<Fec>) -> String {
    filter.map(|fec| FilterConfiguration::from(fec).to_string()).unwrap_or_default()
}

/// What each side has in the end, `change` being what the listener hears wrong of the caller.
fn call(
    callers: &str,
    listeners: &str,
    change: impl Fn(&mut AdmissionRequest),
) -> (Result<String, CallError>, Result<String, RejectReason>) {
    let caller_address = SocketAddr::from(([198, 51, 100, 7], 51_000));
    let listener_address = SocketAddr::from(([192, 0, 2, 1], 30_000));
    let settings = CallerSettings::new(listener_address, 9, SequenceNumber::new(1));
    let mut caller = Caller::new(NOW, CallerSettings { packet_filter: read(callers), ..settings });
    let mut listener = Listener::new(ListenerSettings { cookie_secret: [1; 16], ..ListenerSettings::default() });
    let mut accepted = None;
    let mut bytes = Vec::new();
    for _ in 0..8 {
        while caller.poll_transmit(NOW, &mut bytes).is_some() {
            listener.receive(NOW, caller_address, None, 0, &std::mem::take(&mut bytes));
        }
        if let Some(Event::Admission(mut request)) = listener.poll_event() {
            assert_ne!(request.peer_flags & flags::PACKET_FILTER, 0, "a caller says that it knows filters");
            change(&mut request);
            let acceptance = Acceptance { socket_id: 2, packet_filter: read(listeners), ..Acceptance::default() };
            let answer = match request.accept(NOW, acceptance) {
                Ok((parameters, answer)) => {
                    accepted = Some(Ok(print(parameters.packet_filter)));
                    answer
                }
                Err(reason) => {
                    accepted = Some(Err(reason));
                    request.reject(NOW, reason)
                }
            };
            listener.answer(NOW, answer);
        }
        while listener.poll_transmit(NOW, &mut bytes).is_some() {
            caller.receive(NOW, listener_address, &std::mem::take(&mut bytes));
        }
        if let Some(event) = caller.poll_event() {
            let called = match event {
                Called::Connected(parameters) => Ok(print(parameters.packet_filter)),
                Called::Failed(error) => Err(error),
            };
            return (called, accepted.expect("the listener was asked"));
        }
    }
    panic!("no end of the call");
}

#[test]
fn both_sides_have_what_either_asked_for() {
    let full = "fec,arq:never,cols:10,layout:even,rows:5";
    for (callers, listeners, agreed) in [
        ("", "", ""),
        (full, "", full),
        ("", full, full),
        (full, "fec", full),
        ("fec", full, full),
        (full, full, full),
        ("fec,cols:8,rows:-4", "fec,arq:always", "fec,arq:always,cols:8,layout:staircase,rows:-4"),
    ] {
        let (caller, listener) = call(callers, listeners, |_| {});
        assert_eq!((caller.as_deref(), listener.as_deref()), (Ok(agreed), Ok(agreed)), "{callers:?} and {listeners:?}");
    }
}

#[test]
fn a_conflict_is_refused_with_its_code() {
    let filter = RejectReason::Filter;
    for (callers, listeners) in [("fec,cols:10", "fec,cols:8"), ("fec,rows:5", "fec"), ("fec", ""), ("", "fec")] {
        let (caller, listener) = call(callers, listeners, |_| {});
        assert_eq!(listener, Err(filter), "{callers:?} and {listeners:?}");
        assert_eq!(caller, Err(CallError::Rejected(filter)));
    }
    assert_eq!(filter.code(), 14);
}

#[test]
fn whoever_insists_refuses_a_peer_that_knows_none() {
    let deaf = |request: &mut AdmissionRequest| request.peer_flags &= !flags::PACKET_FILTER;
    assert_eq!(call("", "fec,cols:10", deaf).1, Err(RejectReason::Filter));
    assert_eq!(call("", "", deaf).1, Ok(String::new()));
    // A listener that takes no notice of what the caller asks for.
    let ignorant = |request: &mut AdmissionRequest| request.packet_filter = None;
    let (caller, _) = call("fec,cols:10", "", ignorant);
    assert_eq!(caller, Err(CallError::Unacceptable(RejectReason::Filter)));
    // One that answers with another.
    let other = |request: &mut AdmissionRequest| request.packet_filter = read("fec,cols:9");
    let (caller, _) = call("fec,cols:10", "", other);
    assert_eq!(caller, Err(CallError::Unacceptable(RejectReason::Filter)));
}
