//! The HTTP endpoint over loopback, with shards whose answers are made by hand.

mod description;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headworks::base;
use headworks::control::{self, ControlError, ControlHandle, Facts};
use headworks::media::Codec;
use headworks::pipeline::assembler::TrackStatistics;
use headworks::pipeline::breaker::Circuit;
use headworks::pipeline::ingest::IngestStatistics;
use headworks::protocol::srt::encryption::KeyMaterialState;
use headworks::protocol::srt::handshake::RejectReason;
use headworks::protocol::{rtp, srt};
use headworks::shard::calls::{CallReport, CallState};
use headworks::shard::mailbox::{Message, Shards};
use headworks::shard::net::{Choice, Way};
use headworks::shard::refusals::Refusal;
use headworks::shard::report::{
    LegReport, ShardCounters, ShardReport, StreamKind, StreamReport, StreamStatus, TrackReport,
};
use serde_json::{Value, json};

/// A served endpoint and the thread that answers for its shards.
struct Served {
    control: Option<ControlHandle>,
    done: Arc<AtomicBool>,
    shards: Option<JoinHandle<()>>,
}

fn facts() -> Facts {
    let packet_io = Choice { way: Way::Mmsg, reason: "shards.packet_io is mmsg".to_owned() };
    Facts { root: "/dev/shm/headworks".into(), started: Instant::now(), log_drops: None, packet_io }
}

impl Served {
    /// Two shards that answer, and `silent` more that do not.
    fn new(silent: usize) -> Self {
        let shards = Shards::new(2 + silent);
        let done = Arc::new(AtomicBool::new(false));
        let answering = {
            let (shards, done) = (shards.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    for shard in 0..2 {
                        if let Some(Message::Report(answer)) = shards.mailbox(shard).take() {
                            answer.send(report(shard)).unwrap();
                        }
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        };
        let facts = facts();
        let control = control::start(SocketAddr::from(([127, 0, 0, 1], 0)), shards, facts).unwrap();
        Self { control: Some(control), done, shards: Some(answering) }
    }

    fn address(&self) -> SocketAddr {
        self.control.as_ref().unwrap().address()
    }

    fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    fn request(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&String::from_utf8(bytes).unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.control.take());
        self.done.store(true, Ordering::Relaxed);
        self.shards.take().unwrap().join().unwrap();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.body).unwrap()
    }
}

fn report(shard: usize) -> ShardReport {
    ShardReport {
        shard,
        core: Some(shard + 2),
        at: base::Instant::from_millis(100_000),
        streams: if shard == 0 { vec![camera()] } else { vec![radio()] },
        counters: ShardCounters {
            turns: 11,
            datagrams: 1_000 + shard as u64,
            dropped_quota: 7,
            dropped_not_ours: 21,
            dropped_other_vlan: 22,
            dropped_other_protocol: 23,
            address_conflicts: 24,
            unanswered: 25,
            dropped_no_slot: 5,
            receive_errors: 2,
            slots: 4_096,
            slots_used: 17,
            ..ShardCounters::default()
        },
        refusals: vec![refusal(shard)],
        refusals_by_reason: vec![(RejectReason::Version, 1), (RejectReason::Forbidden, 40 + shard as u64)],
    }
}

fn refusal(shard: usize) -> Refusal {
    Refusal {
        address: [192, 0, 2, 7 + shard as u8].into(),
        stream_id: "#!::r=cam1,u=north".to_owned(),
        reason: RejectReason::Forbidden,
        why: "ingestion.srt.access.users.north.streams does not name it".to_owned(),
        count: 40 + shard as u64,
        first: base::Instant::from_millis(90_000),
        last: base::Instant::from_millis(99_000 + shard as u64),
    }
}

fn track(name: &str, codec: Codec) -> TrackReport {
    TrackReport {
        name: name.to_owned(),
        codec,
        id: 256,
        programme: 1,
        language: None,
        format: String::new(),
        resolution: None,
        frame_rate: None,
        configuration: Vec::new(),
        statistics: TrackStatistics::default(),
        frames_without_ring: 0,
        head_seq: 0,
        ring_error: None,
        delay_us: [0; 3],
    }
}

fn leg(path: u8, lost: u64) -> LegReport {
    LegReport {
        path,
        peer: SocketAddr::from(([192, 0, 2, 7 + path], 4_000)),
        weight: 10,
        active: lost > 0,
        srt: srt::statistics::Statistics { pkt_recv: 2_000, pkt_rcv_loss: lost, ms_rtt: 12.5, ..Default::default() },
        leg: srt::group::LegStatistics { pkt_rcv_elsewhere: lost / 2, pkt_rcv_discrepant: 0 },
    }
}

fn camera() -> StreamReport {
    let video = TrackReport {
        format: "1920×1080i50 High".to_owned(),
        resolution: Some((1920, 1080)),
        frame_rate: Some(25.0),
        configuration: vec![0, 0, 0, 1, 0x67, 0x64],
        statistics: TrackStatistics {
            frames: 250,
            bytes: 5_000_000,
            keyframes: 10,
            gops: 10,
            gop_frames: 9 * 25,
            gop_open_frames: 7,
            i_pictures: 10,
            p_pictures: 80,
            b_pictures: 160,
            damaged: 1,
            lost: 2,
            too_large: 1,
            newest_dts: Some(900_000),
            ..TrackStatistics::default()
        },
        frames_without_ring: 3,
        head_seq: 250,
        delay_us: [300, 900, 2_000],
        ..track("video0", Codec::H264)
    };
    let audio = TrackReport { language: Some("eng".to_owned()), ..track("audio0", Codec::AacAdts) };
    StreamReport {
        name: "studio/cam1".to_owned(),
        kind: StreamKind::Srt,
        status: StreamStatus::Active,
        peer: Some("192.0.2.7:4000".parse().unwrap()),
        created: base::Instant::from_millis(90_000),
        last_datagram: base::Instant::from_millis(99_998),
        sessions: 2,
        cipher: "AES-128-CTR".to_owned(),
        km_state: Some(KeyMaterialState::Secured),
        latency_ms: 120,
        peer_version: "1.5.1".to_owned(),
        packets_received: 4_000,
        bytes_received: 5_264_000,
        packets_over_quota: 6,
        bitrate: 8_000_000,
        held_packets: 90,
        ingest: IngestStatistics { lost: 4, recovered: 40, ..IngestStatistics::default() },
        srt: Some(srt::statistics::Statistics {
            pkt_rcv_retrans: 44,
            ms_rtt: 12.5,
            ms_rcv_buf: 118,
            ..srt::statistics::Statistics::default()
        }),
        legs: vec![leg(0, 50), leg(1, 0)],
        rtp: None,
        continuity_errors: 5,
        tracks_refused: 0,
        tracks: vec![video, audio],
        call: None,
        events: vec![(base::Instant::from_millis(90_000), "connected".to_owned())],
    }
}

fn radio() -> StreamReport {
    StreamReport {
        name: "stats".to_owned(),
        kind: StreamKind::Rtp,
        status: StreamStatus::Stalled,
        peer: None,
        srt: None,
        km_state: None,
        legs: Vec::new(),
        rtp: Some(rtp::SourceStatistics { jitter_ticks: 33, ..rtp::SourceStatistics::default() }),
        call: Some(CallReport {
            mode: "caller",
            target: "encoder.example:9000".to_owned(),
            state: CallState::Waiting,
            circuit: Circuit::Open,
            attempts: 9,
            failures: 7,
            next_attempt_in: Some(Duration::from_millis(1_500)),
            last_error: Some("no answer in time".to_owned()),
        }),
        cipher: String::new(),
        peer_version: String::new(),
        bitrate: 128_000,
        tracks: vec![track("audio0", Codec::Mp2)],
        ..camera()
    }
}

#[test]
fn streams_are_listed_in_short() {
    let served = Served::new(0);
    let answer = served.get("/api/v1/streams");
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["count"], 2);
    assert!(body["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        body["streams"][0],
        json!({"id": "stats", "type": "rtp", "source_addr": null, "status": "stalled", "video_codec": null,
               "resolution": null, "bitrate": 128_000, "frame_rate": null})
    );
    assert_eq!(
        body["streams"][1],
        json!({"id": "studio/cam1", "type": "srt", "source_addr": "192.0.2.7:4000", "status": "active",
               "video_codec": "h264", "resolution": "1920x1080", "bitrate": 8_000_000, "frame_rate": 25.0})
    );
}

#[test]
fn a_stream_is_told_in_full() {
    let served = Served::new(0);
    let body = served.get("/api/v1/streams/studio%2Fcam1").json();
    for (field, value) in [
        ("id", json!("studio/cam1")),
        ("resolution", json!("1920x1080")),
        ("shard", json!(0)),
        ("sessions", json!(2)),
        ("cipher", json!("AES-128-CTR")),
        ("peer_version", json!("1.5.1")),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
    let stats = &body["stats"];
    for (field, value) in [
        ("bytes_received", json!(5_264_000)),
        ("packets_received", json!(4_000)),
        ("packets_lost", json!(4)),
        ("packets_recovered", json!(40)),
        ("packets_retransmitted", json!(44)),
        ("bitrate", json!(8_000_000)),
        ("km_state", json!("SECURED")),
        ("rtt_ms", json!(12.5)),
        ("latency_ms", json!(120)),
        ("buffer_ms", json!(118)),
        ("continuity_errors", json!(5)),
        ("jitter_ticks", json!(null)),
    ] {
        assert_eq!(stats[field], value, "{field}");
    }
    assert_eq!(
        body["legs"][0],
        json!({"path": 0, "source_addr": "192.0.2.7:4000", "weight": 10, "active": true, "packets_received": 2_000,
               "packets_delivered": 0, "packets_lost": 50, "packets_elsewhere": 25, "packets_retransmitted": 0,
               "packets_belated": 0, "packets_duplicate": 0, "packets_undecryptable": 0, "packets_discrepant": 0,
               "rtt_ms": 12.5})
    );
    assert_eq!((body["legs"].as_array().unwrap().len(), &body["legs"][1]["active"]), (2, &json!(false)));
    assert_eq!(body["tracks"][0]["frames"], 250);
    assert_eq!(body["tracks"][0]["assembly_delay_us"], json!({"p50": 300, "p99": 900, "max": 2_000}));
    assert_eq!(body["tracks"][1]["language"], "eng");
    assert_eq!(body["rings"][0]["path"], "/dev/shm/headworks/studio%2Fcam1/video0");
    assert_eq!((&body["rings"][0]["seq"], &body["rings"][0]["frames_without_ring"]), (&json!(250), &json!(3)));
    assert_eq!(body["events"][0]["event"], "connected");
    // Both ten seconds before the report was made.
    assert_eq!(body["events"][0]["time"], body["created_at"]);
    assert!(body["created_at"].as_str() < body["last_heartbeat"].as_str());

    assert_eq!(served.get("/api/v1/streams/studio%2Fcam1/stats").json(), *stats);
    let parameters = served.get("/api/v1/streams/studio%2Fcam1/parameters").json();
    assert_eq!(parameters["tracks"][0]["configuration"], "000000016764");
    assert_eq!(parameters["tracks"][0]["length"], 6);
    // A stream may have a name that is also a word of a path.
    assert_eq!(served.get("/api/v1/streams/stats").json()["id"], "stats");
    assert_eq!(served.get("/api/v1/streams/stats/stats").json()["jitter_ticks"], 33);
}

#[test]
fn who_was_refused_is_told_with_the_reason_the_newest_first() {
    let served = Served::new(0);
    let body = served.get("/api/v1/refusals").json();
    assert_eq!(body["count"], 2);
    let newest = &body["refusals"][0];
    for (field, value) in [
        ("source_addr", json!("192.0.2.8")),
        ("stream_id", json!("#!::r=cam1,u=north")),
        ("code", json!(1403)),
        ("reason", json!("FORBIDDEN")),
        ("why", json!("ingestion.srt.access.users.north.streams does not name it")),
        ("count", json!(41)),
        ("shard", json!(1)),
    ] {
        assert_eq!(newest[field], value, "{field}");
    }
    assert!(newest["first"].as_str() < newest["last"].as_str(), "{newest}");
    assert_eq!(body["refusals"][1]["source_addr"], "192.0.2.7");
    let metrics = served.get("/metrics").body;
    for line in [
        "headworks_shard_srt_refusals_total{shard=\"0\",reason=\"VERSION\",code=\"8\"} 1",
        "headworks_shard_srt_refusals_total{shard=\"1\",reason=\"FORBIDDEN\",code=\"1403\"} 41",
        "headworks_stream_km_state{stream=\"studio/cam1\",type=\"srt\"} 2.0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} in {metrics}");
    }
}

#[test]
fn numbers_over_all_streams_are_sums() {
    let served = Served::new(0);
    let house = served.get("/api/v1/stats").json();
    assert_eq!((&house["total_streams"], &house["active_streams"]), (&json!(2), &json!(1)));
    assert_eq!(house["total_bitrate"], 8_128_000);
    assert!(house["memory_usage"].as_u64().unwrap() > 0 && house["cpu_usage"].as_f64().unwrap() >= 0.0);
    assert!(house["uptime"].as_u64().unwrap() < 60);
    assert_eq!(
        served.get("/api/v1/streams/stats/video").json(),
        json!({"streams": {"studio/cam1": {"frames_assembled": 250, "frames_dropped": 6, "keyframes": 10,
               "p_frames": 80, "b_frames": 160, "gop_count": 10, "avg_gop_size": 25.0}}})
    );
}

#[test]
fn what_went_wrong_is_told_in_one_shape() {
    let served = Served::new(0);
    let answer = served.get("/api/v1/streams/cam9");
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(answer.status, 404);
    let expected =
        json!({"error": {"code": "stream_not_found", "message": "there is no stream cam9", "request_id": id}});
    assert_eq!(answer.json(), expected);
    let answer = served.get("/nothing");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("not_found")));
    let answer = served.request("DELETE /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (405, &json!("method_not_allowed")));
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    let answer = served.get("/api/v1/streams/%FF");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!("bad_request")));
    let answer = served.request("POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\nConnection: close\r\n\r\n");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (413, &json!("payload_too_large")));
}

#[test]
fn every_answer_carries_a_request_id() {
    let served = Served::new(0);
    for path in ["/api/v1/streams", "/live", "/metrics", "/openapi.json", "/nothing"] {
        assert!(!served.get(path).header("x-request-id").unwrap().is_empty(), "{path}");
    }
    let ask = |id: &str| {
        let request = format!("GET /live HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\nConnection: close\r\n\r\n");
        served.request(&request).header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(ask("trace-1"), "trace-1");
    assert_ne!(ask("a b"), "a b");
    assert_ne!(ask("x").len(), 0);
    assert_ne!(served.get("/live").header("x-request-id"), served.get("/live").header("x-request-id"));
}

#[test]
fn health_depends_on_the_shards_and_life_does_not() {
    let served = Served::new(0);
    let health = served.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("healthy")));
    assert_eq!(
        health.json()["shards"][1],
        json!({"shard": 1, "core": 3, "answers": true, "streams": 1, "slots": 4_096, "slots_used": 17})
    );
    assert_eq!(served.get("/ready").json(), json!({"status": "ready"}));
    assert_eq!(served.get("/version").json()["version"], env!("CARGO_PKG_VERSION"));

    let hung = Served::new(1);
    let health = hung.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("unhealthy")));
    assert_eq!(health.json()["shards"][2]["answers"], false);
    assert_eq!(hung.get("/ready").status, 503);
    assert_eq!(hung.get("/live").json(), json!({"status": "live"}));
    assert_eq!(hung.get("/api/v1/streams").json()["count"], 2);
    assert!(hung.get("/metrics").body.contains("headworks_shards_silent 1.0\n"));
}

/// A sample: its name with labels, and its value.
fn samples(text: &str) -> Vec<(&str, f64)> {
    assert!(text.ends_with("# EOF\n"));
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(["HELP ", "TYPE ", "EOF"].iter().any(|kind| comment.starts_with(kind)), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("headworks_"), "{line}");
        let bare = name.split('{').next().unwrap();
        assert!(bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
        assert_eq!(name.contains('{'), name.ends_with('}'), "{line}");
        samples.push((name, value.parse().unwrap()));
    }
    samples
}

#[test]
fn metrics_have_a_name_labels_and_a_number() {
    let served = Served::new(0);
    let answer = served.get("/metrics");
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let samples = samples(&answer.body);
    let value = |name: &str| {
        let found: Vec<f64> = samples.iter().filter(|(found, _)| *found == name).map(|(_, value)| *value).collect();
        assert_eq!(found.len(), 1, "{name} in {}", answer.body);
        found[0]
    };
    assert_eq!(value("headworks_shard_datagrams_total{shard=\"1\"}"), 1_001.0);
    for (reason, count) in [("quota", 7.0), ("not_ours", 21.0), ("other_vlan", 22.0), ("other_protocol", 23.0)] {
        assert_eq!(value(&format!("headworks_shard_dropped_total{{shard=\"0\",reason=\"{reason}\"}}")), count);
    }
    assert_eq!(value("headworks_shard_address_conflicts_total{shard=\"0\"}"), 24.0);
    assert_eq!(value("headworks_shard_unanswered_total{shard=\"0\"}"), 25.0);
    assert_eq!(value("headworks_shard_dropped_total{shard=\"0\",reason=\"no_slot\"}"), 5.0);
    assert_eq!(value("headworks_shard_receive_errors_total{shard=\"1\"}"), 2.0);
    let camera = "{stream=\"studio/cam1\",type=\"srt\"}";
    assert_eq!(value(&format!("headworks_stream_packets_over_quota_total{camera}")), 6.0);
    let help = "# HELP headworks_stream_bytes_received Bytes taken in, SRT and RTP headers included\n";
    assert!(answer.body.contains(help), "{}", answer.body);
    assert_eq!(value("headworks_stream_packets_received_total{stream=\"studio/cam1\",type=\"srt\"}"), 4_000.0);
    assert_eq!(value("headworks_stream_rtt_seconds{stream=\"studio/cam1\",type=\"srt\"}"), 0.0125);
    assert_eq!(value("headworks_stream_active{stream=\"stats\",type=\"rtp\"}"), 0.0);
    assert_eq!(value("headworks_leg_packets_elsewhere_total{stream=\"studio/cam1\",leg=\"0\"}"), 25.0);
    assert_eq!(value("headworks_leg_active{stream=\"studio/cam1\",leg=\"1\"}"), 0.0);
    let track = "{stream=\"studio/cam1\",track=\"video0\",codec=\"h264\"";
    assert_eq!(value(&format!("headworks_track_frames_total{track}}}")), 250.0);
    assert_eq!(value(&format!("headworks_track_assembly_delay_seconds{track},quantile=\"0.99\"}}")), 0.0009);
    assert_eq!(value("headworks_shards_silent"), 0.0);
    let packet_io = "headworks_packet_io_info{way=\"mmsg\",reason=\"shards.packet_io is mmsg\"} 1\n";
    assert!(answer.body.contains(packet_io), "{}", answer.body);
    assert!(!answer.body.contains("headworks_stream_rtt_seconds{stream=\"stats\""));
    let mut names: Vec<&str> = samples.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a sample stands twice");
}

#[test]
fn every_answer_is_as_it_is_described() {
    let served = Served::new(0);
    let described = served.get("/openapi.json").json();
    let mut found = Vec::new();
    for (path, asked) in [
        ("/api/v1/streams", "/api/v1/streams"),
        ("/api/v1/streams/{id}", "/api/v1/streams/studio%2Fcam1"),
        ("/api/v1/streams/{id}", "/api/v1/streams/stats"),
        ("/api/v1/streams/{id}", "/api/v1/streams/nobody"),
        ("/api/v1/streams/{id}/stats", "/api/v1/streams/studio%2Fcam1/stats"),
        ("/api/v1/streams/{id}/stats", "/api/v1/streams/stats/stats"),
        ("/api/v1/streams/{id}/parameters", "/api/v1/streams/studio%2Fcam1/parameters"),
        ("/api/v1/streams/stats/video", "/api/v1/streams/stats/video"),
        ("/api/v1/stats", "/api/v1/stats"),
        ("/api/v1/refusals", "/api/v1/refusals"),
        ("/health", "/health"),
        ("/live", "/live"),
        ("/ready", "/ready"),
        ("/version", "/version"),
    ] {
        let answer = served.get(asked);
        let schema = description::schema_of(&described, path, answer.status);
        found.extend(description::faults(&described, schema, &answer.json(), asked));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_description_names_this_version() {
    let served = Served::new(0);
    let body = served.get("/openapi.json").json();
    assert_eq!(body["info"]["version"], env!("CARGO_PKG_VERSION"));
    for path in body["paths"].as_object().unwrap().keys() {
        let answer = served.get(&path.replace("{id}", "stats"));
        assert_eq!(answer.status, 200, "{path}");
    }
}

#[test]
fn a_port_in_use_is_told_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let facts = facts();
    let error = control::start(address, Shards::default(), facts).unwrap_err();
    assert!(matches!(error, ControlError::Bind { .. }));
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("set control.listen to a free port"), "{text}");
}

#[test]
fn a_slow_client_is_cut_off_and_others_are_served_meanwhile() {
    let served = Served::new(0);
    let mut slow = TcpStream::connect(served.address()).unwrap();
    slow.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nX-").unwrap();
    let began = Instant::now();
    assert_eq!(served.get("/live").status, 200);
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    // An end or a reset: the connection is gone either way.
    let _ = slow.read_to_end(&mut rest);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(4) && waited < Duration::from_secs(15), "{waited:?}");
}

#[test]
fn clients_that_only_hold_places_lose_them() {
    let served = Served::new(0);
    let idle: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(served.address()).unwrap()).collect();
    let began = Instant::now();
    // All places are taken, until those who say nothing are sent away.
    assert_eq!(served.get("/live").status, 200);
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    drop(idle);
}

#[test]
fn stopping_lets_go_of_the_port_even_with_clients_about() {
    let mut served = Served::new(0);
    let address = served.address();
    let mut idle = TcpStream::connect(address).unwrap();
    idle.write_all(b"GET /li").unwrap();
    let began = Instant::now();
    served.control.take().unwrap().stop();
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(TcpStream::connect(address).is_err());
}
