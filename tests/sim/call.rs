//! The handshake before a conversation: a caller and a listener over the same bad links.

use std::cmp::Reverse;
use std::net::SocketAddr;

use headworks::base::Instant;
use headworks::protocol::srt::caller::{self, Caller, CallerEncryption, CallerSettings};
use headworks::protocol::srt::encryption::{SALT_LEN, derive_key_encrypting_key};
use headworks::protocol::srt::fec::configuration::FilterConfiguration;
use headworks::protocol::srt::handshake::{Handshake, Request};
use headworks::protocol::srt::listener::{Acceptance, Event, Listener, ListenerSettings};
use headworks::protocol::srt::packet::{HEADER_LEN, SequenceNumber};
use headworks::protocol::srt::parameters::ConnectionParameters;
use headworks::protocol::srt::snapshot::RestoreError;
use headworks::protocol::srt::stream_id::StreamId;

use crate::conversation::{Script, refresh};
use crate::link::{InFlight, Link, MS, PORT};
use crate::random::Random;

/// What a call over bad links has come to.
pub struct Call {
    /// Virtual time at which both sides were connected.
    pub at: u64,
    pub caller: ConnectionParameters,
    pub listener: ConnectionParameters,
    /// How long the conclusion that counts was on its way, in ns.
    pub conclusion_delay: u64,
}

fn restored<M>(
    machine: &M,
    snapshot: impl Fn(&M, &mut Vec<u8>),
    restore: impl Fn(&[u8]) -> Result<M, RestoreError>,
) -> M {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    snapshot(machine, &mut before);
    let restored = restore(&before).expect("what was just written");
    snapshot(&restored, &mut after);
    assert!(before == after, "a snapshot of what was restored is the same");
    restored
}

/// Calls until somebody answers. `clocks` show what the caller's and the listener's clock show at a virtual time.
pub fn call(
    script: &Script,
    there: &mut Link,
    back: &mut Link,
    addresses: (SocketAddr, SocketAddr),
    clocks: (impl Fn(u64) -> Instant, impl Fn(u64) -> Instant),
) -> Call {
    let salt = [5; SALT_LEN];
    let derive = |length| derive_key_encrypting_key(b"correct horse", &salt, length);
    let encryption = script.encryption.map(|(cipher, length, after_packets)| CallerEncryption {
        key_encrypting_key: derive(length),
        cipher,
        salt,
        key_seed: [7; 32],
        key_refresh: refresh(after_packets),
    });
    let call = CallerSettings {
        encryption,
        send_latency_ms: script.latency_ms,
        stream_id: StreamId::new("#!::r=cam1,m=publish").expect("well-formed"),
        packet_filter: script.filter.map(FilterConfiguration::from),
        timeout: std::time::Duration::from_secs(60),
        ..CallerSettings::new(addresses.1, 1, SequenceNumber::new(script.initial_sequence))
    };
    let mut caller = Caller::new((clocks.0)(0), call);
    let settings = ListenerSettings::default();
    let mut listener = Listener::new(ListenerSettings { cookie_secret: [9; 16], ..settings });
    let mut accepted = None;
    let mut in_flight = InFlight::new();
    let mut posted = 0_u64;
    // Now and then another process goes on with one side, and has nothing but the bytes.
    let mut upgrades = Random::new(script.seed ^ 0x5eed);
    for step in 0..60_000 {
        let now = step * MS;
        match upgrades.below(8) {
            0 => caller = restored(&caller, Caller::snapshot, Caller::restore),
            1 => listener = restored(&listener, Listener::snapshot, |bytes| Listener::restore(bytes, settings)),
            _ => {}
        }
        while let Some(Reverse((at, ..))) = in_flight.peek()
            && *at <= now
        {
            let Some(Reverse((_, _, to_listener, _, bytes))) = in_flight.pop() else { break };
            let bytes = if script.version4 { of_version4(bytes) } else { bytes };
            if to_listener {
                listener.receive((clocks.1)(now), addresses.0, None, 0, &bytes);
            } else {
                caller.receive((clocks.0)(now), addresses.1, &bytes);
            }
        }
        while let Some(Event::Admission(request)) = listener.poll_event() {
            assert_eq!(request.is_version4, script.version4);
            assert_eq!(request.stream_id.resource(), Some("cam1").filter(|_| !script.version4));
            let acceptance = Acceptance {
                socket_id: 2,
                receive_latency_ms: 20,
                latency_max_ms: script.latency_ms,
                has_passphrase: script.encryption.is_some(),
                flow_window: script.receive_buffer_packets as u32,
                address_secret: Some([3; 16]),
                key_encrypting_key: request.key_material.as_ref().map(|material| derive(material.key_length())),
                ..Acceptance::default()
            };
            let (parameters, answer) = request.accept((clocks.1)(now), acceptance).expect("nothing to refuse");
            listener.answer((clocks.1)(now), answer);
            assert!(accepted.is_none(), "one call is admitted once");
            let delay = (clocks.1)(now).as_micros() - (clocks.1)(0).as_micros() - u64::from(request.timestamp_us);
            accepted = Some((parameters, delay * 1_000));
        }
        if let Some(event) = caller.poll_event() {
            let caller::Event::Connected(parameters) = event else { panic!("{event:?}") };
            let (listener, conclusion_delay) = accepted.expect("the listener knows of it");
            assert!(script.version4 || parameters.send_latency_ms == listener.receive_latency_ms);
            return Call { at: now, caller: *parameters, listener, conclusion_delay };
        }
        let mut post = |link: &mut Link, bytes: Vec<u8>, to_listener| {
            for at in link.arrivals(now, bytes.len()).into_iter().flatten() {
                posted += 1;
                in_flight.push(Reverse((at, posted, to_listener, PORT, bytes.clone())));
            }
        };
        let mut buffer = Vec::new();
        while caller.poll_transmit((clocks.0)(now), &mut buffer).is_some() {
            post(there, std::mem::take(&mut buffer), true);
        }
        while listener.poll_transmit((clocks.1)(now), &mut buffer).is_some() {
            post(back, std::mem::take(&mut buffer), false);
        }
    }
    panic!("nobody answered for a minute");
}

/// The listener's answer to an induction as one of version 4 of the handshake gives it: with what it was asked, and a cookie.
fn of_version4(mut bytes: Vec<u8>) -> Vec<u8> {
    let is_induction = matches!(
        Handshake::parse(&bytes[HEADER_LEN..]),
        Ok(handshake) if handshake.fields.request == Request::Induction
    );
    if is_induction {
        bytes[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&[0, 0, 0, 4, 0, 0, 0, 2]);
    }
    bytes
}
