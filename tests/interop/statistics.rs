//! What both ends of a link say of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::appliance::Appliance;
use crate::loss::long_clip;
use crate::relay::Relay;
use crate::senders::SrtSender;

const LATENCY_MS: u32 = 500;
/// 60 ms of round trip.
const DELAY: &str = "--delay 30ms";

/// The newest report that the tool has printed.
fn newest_report(said: &str) -> Option<Value> {
    said.lines()
        .rev()
        .find_map(|line| serde_json::from_str::<Value>(line.trim_end_matches(',')).ok().filter(Value::is_object))
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {value}"))
}

/// libsrt's tool sends a clip by such a road; gives what the tool and what we say of it in the end.
fn both_ends(road: &str) -> (Value, Value) {
    let clip = long_clip();
    let appliance = Appliance::start(&[]);
    let relay = Relay::start(appliance.ports.srt, &format!("{DELAY} {road}"));
    let to = SocketAddr::from(([127, 0, 0, 1], relay.port));
    // All counters since the beginning, every 50 packets.
    let options = ["-f", "-s:50", "-pf:json"];
    let mut sender = SrtSender::with_options(&options, to, LATENCY_MS, "streamid=counted");
    sender.wait_for_connection();
    sender.send(&clip.bytes);
    // The last packets but one that the tool has counted are there, and the connection still is.
    std::thread::sleep(Duration::from_millis(u64::from(LATENCY_MS) + 200));
    let theirs = newest_report(&sender.said()).unwrap_or_else(|| panic!("no report: {}", sender.said()));
    let began = Instant::now();
    let ours = loop {
        let page = appliance.get("/api/v1/streams/counted/stats");
        let ours: Value = serde_json::from_str(&page).unwrap_or_else(|error| panic!("{error}: {page}"));
        // A report is some hundred milliseconds old.
        if number(&ours, "/srt/pktRecvUniqueTotal") >= number(&theirs, "/send/packetsUnique") {
            break ours;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{ours} beside {theirs}");
        std::thread::sleep(Duration::from_millis(100));
    };
    sender.finish();
    (theirs, ours["srt"].clone())
}

/// Panics unless they differ by such a share at most.
fn agree(what: &str, theirs: f64, ours: f64, share: f64) {
    assert!((theirs - ours).abs() <= theirs.abs().max(ours.abs()) * share, "{what}: {theirs} there, {ours} here");
}

#[test]
fn libsrt_and_we_count_the_same_on_a_clean_road() {
    let (theirs, ours) = both_ends("");
    for (there, here) in [
        ("/send/packets", "/pktRecvTotal"),
        ("/send/packetsUnique", "/pktRecvUniqueTotal"),
        ("/send/bytes", "/byteRecvTotal"),
        ("/send/bytesUnique", "/byteRecvUniqueTotal"),
    ] {
        agree(here, number(&theirs, there), number(&ours, here), 0.01);
    }
    // The sender goes by what the receiver has measured, at another moment.
    agree("/msRTT", number(&theirs, "/link/rtt"), number(&ours, "/msRTT"), 0.05);
    agree("/msRTT beside the relay's delay", 60.0, number(&ours, "/msRTT"), 0.1);
    for none in ["/pktRcvLossTotal", "/pktRcvDropTotal", "/pktRcvBelated", "/pktRcvUndecryptTotal", "/pktRcvRetrans"] {
        assert_eq!(number(&ours, none), 0.0, "{none}");
    }
    assert_eq!(number(&ours, "/msRcvTsbPdDelay"), f64::from(LATENCY_MS));
}

#[test]
fn libsrt_and_we_count_the_same_where_packets_are_lost() {
    let (theirs, ours) = both_ends("--loss 2% --seed 11");
    for (there, here) in [("/send/packetsUnique", "/pktRecvUniqueTotal"), ("/send/bytesUnique", "/byteRecvUniqueTotal")]
    {
        agree(here, number(&theirs, there), number(&ours, here), 0.01);
    }
    let sent = number(&theirs, "/send/packets");
    // The relay's share is lost of all that was sent, first or again.
    agree("/pktRecvTotal", sent * 0.98, number(&ours, "/pktRecvTotal"), 0.01);
    let retransmitted = number(&theirs, "/send/packetsRetransmitted");
    assert!(retransmitted > 0.0, "{theirs}");
    // Few, and the reports are not of the same moment.
    agree("/pktRcvRetrans", retransmitted * 0.98, number(&ours, "/pktRcvRetrans"), 0.08);
    assert_eq!(number(&ours, "/pktRcvDropTotal"), 0.0);
}
