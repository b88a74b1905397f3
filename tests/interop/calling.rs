//! Streams that the appliance fetches and that do not come at once, or not for long: peers that are killed, not there, or have another
//! passphrase. Those that simply come are cells of `matrix.rs`.

use std::time::Duration;

use crate::appliance::{Appliance, free_ports};
use crate::clips::usual_clip;
use crate::senders::{self, SrtSender};
use crate::tap::Frame;

/// How long the appliance may take to call again what it has lost.
const AGAIN_WITHIN: Duration = Duration::from_secs(15);

/// What is set for a stream, key by key.
fn settings_of(stream: &str, settings: &[String]) -> Vec<String> {
    settings.iter().map(|setting| format!("streams.{stream}.srt.{setting}")).collect()
}

fn start(settings: &[String]) -> Appliance {
    let common = ["ingestion.reconnect_interval=300ms".to_owned()];
    let all: Vec<&str> = common.iter().chain(settings).map(String::as_str).collect();
    Appliance::start(&all)
}

/// A peer sends half of a clip, is killed, comes back, and sends all of it.
fn goes_on_after_a_kill(open: fn(u16, &str) -> SrtSender, at: &[&str]) {
    let clip = usual_clip();
    let [port] = free_ports();
    let mut own: Vec<String> = at.iter().map(|&it| it.to_owned()).collect();
    own.push(format!("address=127.0.0.1:{port}"));
    own.push("peer_idle_timeout=1500ms".to_owned());
    let appliance = start(&settings_of("cam1", &own));
    let tap = appliance.tap("cam1");
    let mut first = open(port, "");
    first.wait_for_connection();
    let half = clip.bytes.len() / 2 / senders::DATAGRAM * senders::DATAGRAM;
    first.send(&clip.bytes[..half]);
    tap.wait_until("some frames", |frames| frames.len() > 20);
    first.kill();
    appliance.wait_for_log("the peer is silent", AGAIN_WITHIN);
    appliance.wait_for_log("again in", AGAIN_WITHIN);
    let mut second = open(port, "");
    second.wait_for_connection();
    second.send(&clip.bytes);
    second.finish();
    let frames = tap.wait_until("the second segment is whole", |frames| {
        frames.iter().filter(|frame| frame.segment == 1).count() >= clip.reference.packet_count()
    });
    let again: Vec<Frame> = frames
        .iter()
        .filter(|frame| frame.segment == 1)
        .cloned()
        .map(|frame| Frame { segment: 0, discontinuity: None, ..frame })
        .collect();
    clip.reference.compare_content("after the kill", &again);
    let body: serde_json::Value = serde_json::from_str(&appliance.get("/api/v1/streams/cam1")).unwrap();
    assert_eq!(body["sessions"], 2);
    assert!(body["call"]["attempts"].as_u64().unwrap() >= 2, "{body}");
}

#[test]
fn a_listener_that_was_killed_is_called_again_and_its_stream_goes_on() {
    goes_on_after_a_kill(SrtSender::listen, &[]);
}

#[test]
fn a_peer_in_rendezvous_that_was_killed_is_met_again_and_its_stream_goes_on() {
    goes_on_after_a_kill(SrtSender::meet, &["mode=rendezvous", "local_address=127.0.0.2"]);
}

#[test]
fn how_calls_stand_shows_in_the_api_and_the_metrics_and_a_wrong_passphrase_opens_the_circuit() {
    let [wrong, nobody, named] = free_ports();
    let peer = SrtSender::listen(wrong, "passphrase=of this stream&pbkeylen=16");
    let mut settings =
        settings_of("wrong", &[format!("address=127.0.0.1:{wrong}"), "passphrase=of that stream".to_owned()]);
    settings
        .extend(settings_of("nobody", &[format!("address=127.0.0.1:{nobody}"), "connect_timeout=300ms".to_owned()]));
    settings.extend(settings_of("named", &[format!("address=no-such-host.invalid:{named}")]));
    let appliance = start(&settings);
    appliance.wait_for_log("BADSECRET", AGAIN_WITHIN);
    appliance.wait_for_log("no answer in time", AGAIN_WITHIN);
    appliance.wait_for_log("no-such-host.invalid: ", AGAIN_WITHIN);
    let call = |stream: &str| -> serde_json::Value {
        let mut body: serde_json::Value =
            serde_json::from_str(&appliance.get(&format!("/api/v1/streams/{stream}"))).unwrap();
        assert_eq!(body["type"], "srt");
        assert!(["waiting", "connecting"].contains(&body["status"].as_str().unwrap()), "{body}");
        body["call"].take()
    };
    let refused = call("wrong");
    assert_eq!(
        (&refused["circuit"], &refused["state"], &refused["attempts"]),
        (&"open".into(), &"waiting".into(), &1.into())
    );
    assert!(refused["next_attempt_ms"].as_u64().unwrap() > 30_000, "{refused}");
    assert!(refused["last_error"].as_str().unwrap().contains("BADSECRET (10)"), "{refused}");
    let unanswered = call("nobody");
    assert_eq!((&unanswered["circuit"], &unanswered["mode"]), (&"closed".into(), &"caller".into()));
    assert!(unanswered["last_error"].as_str().unwrap().contains("no answer"), "{unanswered}");
    assert!(call("named")["last_error"].as_str().unwrap().starts_with("no-such-host.invalid: "));
    assert_eq!(appliance.metric("headworks_call_circuit_open"), 1.0);
    assert_eq!(appliance.metric("headworks_call_connected"), 0.0);
    assert!(appliance.metric("headworks_call_attempts_total") >= 3.0);
    // Nobody else may send what is fetched.
    let pusher = SrtSender::start(appliance.ports.srt, "streamid=nobody");
    appliance.wait_for_log("streams.nobody.srt says that it is fetched", AGAIN_WITHIN);
    drop((pusher, peer));
}
