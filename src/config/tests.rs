mod reference;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::*;

fn load_text(text: &str) -> Result<Loaded, String> {
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    load(Some(file.path()), std::iter::empty(), &[])
        .map_err(|error| error.to_string().replace(&file.path().display().to_string(), "headworks.yaml"))
}

fn load_assignments(assignments: &[&str]) -> Result<Config, String> {
    let assignments: Vec<String> = assignments.iter().map(|&it| it.to_owned()).collect();
    load(None, std::iter::empty(), &assignments).map(|loaded| loaded.config).map_err(|error| error.to_string())
}

/// The example that operators are given; it holds the defaults.
const EXAMPLE: &str = r#"
ingestion:
  max_connections: 25
  stream_timeout: 30s
  reconnect_interval: 5s
  srt:
    enabled: true
    port: 30000
    latency: 120ms             # the least; the peer may ask for more
    latency_max: 8s
    max_bandwidth: 60000000    # bits per second
    payload_size: 1316
    flow_window: 25600
    peer_idle_timeout: 30s
  rtp:
    enabled: true
    port: 5004
    rtcp_port: 5005
    buffer_size: 2097152
    max_sessions: 30
    session_timeout: 30s
  buffer:
    ring_size: 4194304
    pool_size: 30
    write_timeout: 100ms
    read_timeout: 100ms
  memory:
    global_limit: 8589934592
    per_stream_limit: 419430400
    gc_interval: 1m
  backpressure:
    enabled: true
    high_watermark: 0.8
    low_watermark: 0.6
    drop_strategy: "oldest"
  frame:
    assembly_timeout: 5s
    max_frame_size: 10485760
    reorder_buffer: 100
  gop:
    buffer_count: 3
    max_gop_size: 300
    force_idr_interval: 10s
  sync:
    enabled: true
    threshold: 100ms
    correction_rate: 0.1
    max_drift: 1s
"#;

#[test]
fn the_example_loads_and_says_what_the_defaults_are() {
    let loaded = load_text(EXAMPLE).unwrap();
    assert_eq!(loaded.config, Config::default());
    let not_yet = loaded.not_yet_in_effect.join(" ");
    assert_eq!(
        not_yet,
        "ingestion.backpressure.drop_strategy ingestion.backpressure.enabled ingestion.backpressure.high_watermark \
         ingestion.backpressure.low_watermark ingestion.buffer.read_timeout ingestion.buffer.write_timeout \
         ingestion.gop.force_idr_interval ingestion.gop.max_gop_size ingestion.memory.gc_interval \
         ingestion.sync.correction_rate ingestion.sync.enabled ingestion.sync.max_drift \
         ingestion.sync.threshold"
    );
}

/// The groups that operators are told of beside the example, each with what is named of it.
const BESIDE_THE_EXAMPLE: &str = r#"
shards: {cores: [0], batch_window: 1ms, busy_poll: false, packet_io: auto}
output: {root: /dev/shm/headworks, group: video, history: 3s, huge_pages: false, crc: true}
control:
  listen: 127.0.0.1:8080
  tls:
    certificate: /etc/headworks/control.pem
    key: /etc/headworks/control.key
  auth: [token]
streams:
  cam1:
    passphrase: correct horse battery
    latency: 500ms
    source: 192.0.2.1
    redundancy:
      mode: seamless
log: {level: info, format: json}
"#;

#[test]
fn what_has_no_effect_yet_is_taken_whatever_its_shape_and_named_once() {
    let loaded = load_text(BESIDE_THE_EXAMPLE).unwrap();
    assert_eq!(loaded.not_yet_in_effect, ["control.auth", "control.tls", "streams.cam1.redundancy"]);
    assert_eq!(loaded.config.streams["cam1"].latency, Some(Duration::from_millis(500)));
    for assignment in ["control.auth.token=x", "control.tls=true", "streams.cam1.redundancy=seamless"] {
        let loaded = load(None, std::iter::empty(), &[assignment.to_owned()]).unwrap();
        assert_eq!(loaded.not_yet_in_effect.len(), 1, "{assignment}");
    }
    let error = load_text("control:\n  tsl: {key: x}\n").unwrap_err();
    assert_eq!(error, "headworks.yaml:2: unknown key control.tsl; did you mean control.tls?");
}

#[test]
fn control_is_not_served_to_other_hosts_without_the_protection_that_was_asked_for() {
    let open = "control.listen=0.0.0.0:8080";
    for asked in ["control.auth.token=x", "control.tls=true", "control.tls={certificate: x}"] {
        let error = load_assignments(&[open, asked]).unwrap_err();
        assert!(error.contains(&asked[..12].replace('=', "")), "{error}");
        assert!(error.contains("not yet in effect, and other hosts reach control.listen 0.0.0.0:8080"), "{error}");
        for closed in ["control.listen=127.0.0.2:80", "control.listen=[::1]:80", "control.enabled=false"] {
            load_assignments(&[closed, asked]).unwrap();
        }
    }
    for not_asked in ["control.auth=null", "control.tls=false", "control.tls={enabled: false}"] {
        load_assignments(&[open, not_asked]).unwrap();
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(load_text("# nothing set\n").unwrap().config, Config::default());
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let error = load_text("ingestion:\n  srt:\n    prot: 30000\n").unwrap_err();
    assert_eq!(error, "headworks.yaml:3: unknown key ingestion.srt.prot; did you mean ingestion.srt.port?");
    let error = load_text("streams:\n  cam1:\n    latensy: 1s\n").unwrap_err();
    assert_eq!(error, "headworks.yaml:3: unknown key streams.cam1.latensy; did you mean streams.cam1.latency?");
}

#[test]
fn what_is_said_of_a_stream_that_is_fetched_is_checked_key_by_key() {
    let good = load_text(
        "streams:\n  cam1:\n    srt: {address: '[2001:db8::1]:9000', stream_id: '#!::r=cam1,m=request', passphrase: correct horse, \
         key_length: 32, latency: 1s}\n  cam2:\n    srt: {mode: rendezvous, address: 'encoder.example:9000'}\n",
    )
    .unwrap();
    let [cam1, cam2] = ["cam1", "cam2"].map(|name| good.config.streams[name].srt.clone().unwrap());
    assert_eq!((cam1.mode, cam1.key_length, cam1.timeout()), (PullMode::Caller, Some(32), Duration::from_secs(3)));
    assert_eq!((cam2.mode, cam2.timeout()), (PullMode::Rendezvous, Duration::from_secs(30)));
    let error = load_text("streams:\n  cam1:\n    srt:\n      adress: a:1\n").unwrap_err();
    assert_eq!(error, "headworks.yaml:4: unknown key streams.cam1.srt.adress; did you mean streams.cam1.srt.address?");
    let address = "streams.a.srt.address=192.0.2.1:9000";
    for (settings, key, reason) in [
        (&["streams.a.srt.mode=caller"][..], "streams.a.srt.address", "is no host:port"),
        (&["streams.a.srt.address=192.0.2.1"], "streams.a.srt.address", "is no host:port"),
        (&[address, "streams.a.srt.mode=listener"], "streams.a.srt.mode", "unknown variant"),
        (&[address, "streams.a.srt.local_address=::"], "streams.a.srt.local_address", "another version of IP"),
        (&[address, "streams.a.srt.local_port=0"], "streams.a.srt.local_port", "is 0"),
        (&[address, "streams.a.srt.latency=9s"], "streams.a.srt.latency", "is above ingestion.srt.latency_max"),
        (&[address, "streams.a.srt.passphrase=short"], "streams.a.srt.passphrase", "has 10 to 79 bytes"),
        (&[address, "streams.a.srt.key_length=32"], "streams.a.srt.key_length", "no passphrase"),
        (&[address, "streams.a.srt.crypto_mode=gcm"], "streams.a.srt.crypto_mode", "no passphrase"),
        (
            &[address, "streams.a.passphrase=correct horse", "streams.a.srt.key_length=8"],
            "streams.a.srt.key_length",
            "16, 24 or 32",
        ),
        (&[address, "streams.a.srt.connect_timeout=0s"], "streams.a.srt.connect_timeout", "above 0"),
        (
            &[address, "streams.a.srt.mode=rendezvous", "streams.a.srt.stream_id=x"],
            "streams.a.srt.stream_id",
            "in rendezvous",
        ),
        (&[address, "streams.a.srt.peer_idle_timeout=0s"], "streams.a.srt.peer_idle_timeout", "above 0"),
        (&[address, "streams.a.srt.stream_id=cam\t1"], "streams.a.srt.stream_id", "control characters"),
        (&[address, "streams.a.source=192.0.2.1"], "streams.a.source", "is said by srt.address already"),
        (&[address, "streams.a.allow=[192.0.2.1]"], "streams.a.allow", "means nothing for a stream that is fetched"),
        (&[address, "streams.a.deny=[192.0.2.1]"], "streams.a.deny", "means nothing for a stream that is fetched"),
        (&[address, "streams.a.takeover=never"], "streams.a.takeover", "means nothing for a stream that is fetched"),
        (&[address, "streams.a.rtp.port=6000"], "streams.a.srt", "has an rtp section too"),
        (&[address, "shards.packet_io=xdp"], "streams.a.srt", "shards.packet_io goes past"),
        (
            &[address, "streams.b.srt.address=a:1", "ingestion.max_connections=1"],
            "ingestion.max_connections",
            "are fetched",
        ),
        (&["ingestion.reconnect_interval=2m"], "ingestion.reconnect_interval", "reconnect_interval_max"),
    ] {
        let error = load_assignments(settings).unwrap_err();
        assert!(
            error.starts_with(&format!("--set: {key}: ")) || error.starts_with(&format!("configuration: {key}: ")),
            "{settings:?}: {error}"
        );
        assert!(error.contains(reason), "{settings:?}: {error}");
    }
}

#[test]
fn what_the_sockets_of_srt_are_told_is_read_and_what_a_way_of_packets_cannot_do_of_it_is_refused() {
    let config = load_text(
        "ingestion:\n  srt: {traffic_class: 0x88, ttl: 5, interface: eth1}\n\
         streams:\n  cam1:\n    srt: {address: '192.0.2.1:9000', traffic_class: 184, ttl: 255, interface: eth2.100}\n",
    )
    .unwrap()
    .config;
    let (listener, call) = (&config.ingestion.srt, config.streams["cam1"].srt.as_ref().unwrap());
    assert_eq!(
        (listener.traffic_class, listener.ttl, listener.interface.as_deref()),
        (Some(0x88), Some(5), Some("eth1"))
    );
    assert_eq!((call.traffic_class, call.ttl, call.interface.as_deref()), (Some(184), Some(255), Some("eth2.100")));
    let address = "streams.a.srt.address=192.0.2.1:9000";
    let dpdk = ["shards.packet_io=dpdk", "shards.dpdk.device=net_null0", "shards.dpdk.addresses=[192.0.2.1/24]"];
    let by_dpdk = |it: &'static str| [&dpdk[..], &[it]].concat();
    for (settings, key, reason) in [
        (vec!["ingestion.srt.traffic_class=256"], "ingestion.srt.traffic_class", "from 0 to 255"),
        (vec!["ingestion.srt.ttl=0"], "ingestion.srt.ttl", "is 0"),
        (vec![address, "streams.a.srt.ttl=0"], "streams.a.srt.ttl", "is 0"),
        (vec!["ingestion.srt.interface=eth0/1"], "ingestion.srt.interface", "is no name of a network interface"),
        (vec![address, "streams.a.srt.interface=a-name-too-long-"], "streams.a.srt.interface", "is no name"),
        (
            vec!["shards.packet_io=xdp", "ingestion.srt.interface=eth1"],
            "ingestion.srt.interface",
            "name the interface in shards.xdp_interfaces",
        ),
        (by_dpdk("ingestion.srt.traffic_class=1"), "ingestion.srt.traffic_class", "shards.packet_io dpdk does without"),
        (by_dpdk("ingestion.srt.ttl=1"), "ingestion.srt.ttl", "shards.packet_io dpdk does without"),
        (by_dpdk("ingestion.srt.interface=eth1"), "ingestion.srt.interface", "shards.packet_io dpdk does without"),
    ] {
        let error = load_assignments(&settings).unwrap_err();
        assert!(error.contains(key) && error.contains(reason), "{settings:?}: {error}");
    }
    load_assignments(&["shards.packet_io=xdp", "ingestion.srt.traffic_class=0x88", "ingestion.srt.ttl=5"]).unwrap();
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_its_line() {
    let error = load_text("ingestion:\n  srt:\n    port: many\n").unwrap_err();
    assert!(error.starts_with("headworks.yaml:3: ingestion.srt.port: invalid type"), "{error}");
    let error = load_text("ingestion:\n  stream_timeout: 30\n").unwrap_err();
    assert!(error.contains("headworks.yaml:2: ingestion.stream_timeout: \"30\" is not a duration"), "{error}");
}

#[test]
fn a_passphrase_of_the_wrong_length_is_refused_by_name() {
    let error = load_text("streams:\n  cam1:\n    passphrase: short\n").unwrap_err();
    assert_eq!(error, "headworks.yaml:3: streams.cam1.passphrase: a passphrase has 10 to 79 bytes, this one has 5");
}

#[test]
fn a_cipher_is_chosen_for_all_or_for_one_stream_and_never_where_nothing_is_encrypted() {
    let Loaded { config, .. } = load_text(
        "ingestion:\n  srt:\n    passphrase: \"correct horse\"\n    crypto_mode: gcm\nstreams:\n  cam1:\n    crypto_mode: ctr\n",
    )
    .unwrap();
    assert_eq!(config.ingestion.srt.crypto_mode, CryptoMode::Gcm);
    assert_eq!(config.streams["cam1"].crypto_mode, Some(CryptoMode::Ctr));
    assert_eq!(Config::default().ingestion.srt.crypto_mode, CryptoMode::Auto);
    let nothing = "there is no passphrase, so that nothing would be encrypted";
    for key in ["ingestion.srt.crypto_mode", "streams.cam1.crypto_mode"] {
        let error = load_assignments(&[&format!("{key}=gcm")]).unwrap_err();
        assert_eq!(error, format!("--set: {key}: {nothing}"));
    }
    let stream_alone = ["ingestion.srt.crypto_mode=gcm", "streams.cam1.passphrase=correct horse"];
    assert!(load_assignments(&stream_alone).is_ok());
    assert!(load_assignments(&["ingestion.srt.crypto_mode=cbc"]).unwrap_err().contains("unknown variant `cbc`"));
}

#[test]
fn bonding_is_on_unless_it_is_turned_off() {
    assert!(Config::default().ingestion.srt.bonding);
    let config = load_assignments(&["ingestion.srt.bonding=false"]).unwrap();
    assert!(!config.ingestion.srt.bonding);
}

#[test]
fn a_text_that_is_assigned_is_taken_exactly_as_it_is() {
    for text in [
        "#secret12345",
        "correct horse #1 battery",
        "1234567890123",
        "correct horse: battery",
        "'quoted text'",
        " a b c d e f ",
    ] {
        let config = load_assignments(&[&format!("ingestion.srt.passphrase={text}")]).unwrap();
        assert_eq!(config.ingestion.srt.passphrase.as_deref(), Some(text));
        let environment = [("HEADWORKS_STREAMS__ENC__PASSPHRASE".into(), text.into())];
        let config = load(None, environment.into_iter(), &[]).unwrap().config;
        assert_eq!(config.streams["enc"].passphrase.as_deref(), Some(text));
    }
    let config =
        load_assignments(&["control.listen=[::1]:8080", "ingestion.rtp.address=::", "output.group=1234"]).unwrap();
    assert_eq!(config.control.listen, "[::1]:8080".parse().unwrap());
    assert_eq!(config.ingestion.rtp.address, "::".parse::<IpAddr>().unwrap());
    assert_eq!(config.output.group, "1234");
}

#[test]
fn an_empty_passphrase_is_no_open_port() {
    let none = "is empty: leave it out, or set streams.cam1.passphrase=null, to have none";
    let error = load_assignments(&["streams.cam1.passphrase="]).unwrap_err();
    assert_eq!(error, format!("--set: streams.cam1.passphrase: {none}"));
    let environment = [("HEADWORKS_STREAMS__CAM1__PASSPHRASE".into(), OsString::new())];
    let error = load(None, environment.into_iter(), &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("environment variable HEADWORKS_STREAMS__CAM1__PASSPHRASE: streams.cam1.passphrase: {none}")
    );
    let latin = OsString::from_vec(b"caf\xe9 caf\xe9 caf\xe9".to_vec());
    let environment = [("HEADWORKS_STREAMS__CAM1__PASSPHRASE".into(), latin)];
    let error = load(None, environment.into_iter(), &[]).unwrap_err().to_string();
    assert!(error.ends_with("streams.cam1.passphrase: is not UTF-8"), "{error}");
    let quote = "is empty: quote it, or leave the key out to have none";
    for value in ["", " #secret12345", " null", " ~"] {
        let error = load_text(&format!("streams:\n  cam1:\n    passphrase:{value}\n")).unwrap_err();
        assert_eq!(error, format!("headworks.yaml:3: streams.cam1.passphrase: {quote}"));
    }
    let error = load_assignments(&["ingestion.srt={passphrase: }"]).unwrap_err();
    assert_eq!(error, format!("--set: ingestion.srt.passphrase: {quote}"));
    let error = load_assignments(&["ingestion.srt={pasphrase: secret12345}"]).unwrap_err();
    assert!(error.starts_with("--set: unknown key ingestion.srt.pasphrase"), "{error}");
}

#[test]
fn null_takes_a_text_back_that_was_set_before() {
    let set = ["streams.cam1.passphrase=correct horse", "output.hugetlbfs=/huge", "output.root=/dev/shm/x"];
    let back = ["streams.cam1.passphrase=null", "output.hugetlbfs=null", "output.root=null"];
    let config = load_assignments(&[set, back].concat()).unwrap();
    assert_eq!(config.streams["cam1"], Stream::default());
    assert_eq!(config.output, Output::default());
}

#[test]
fn no_message_shows_a_passphrase() {
    let in_files = [
        "passphrase: 5ec2e7",
        "passphrase: a 5ec2e7: b",
        "passphrase: 5ec2e7: b",
        "passphrase: @5ec2e7",
        "passphrase: %5ec2e7",
        "passphrase: `5ec2e7",
        "passphrase: *5ec2e7",
        "passphrase: !5ec2e7",
        "passphrase: &5ec2e7",
        "passphrase: {5ec2e7}",
        "passphrase: {5ec2e7: 5ec2e7, 5ec2e7: 1}",
        "passphrase: [5ec2e7]",
        "passphrase: [5ec2e7",
        "passphrase: \"5ec2e7",
        "passphrase: \"5ec2e7\" x",
        "passphrase: \"\\q5ec2e7\"",
        "passphrase: |5ec2e7",
        "passphrase: 0x5ec2e7",
        "passphrase: ''\n    passphrase: 5ec2e7",
        "pass phrase: 5ec2e7: x",
        "passphrase: 5ec2e7\n   latency: 1s",
    ];
    for line in in_files {
        let error = load_text(&format!("streams:\n  cam1:\n    {line}\n")).unwrap_err();
        assert!(!error.contains("5ec2e7"), "{error}");
        assert!(error.contains(":3") || error.contains("line "), "{error}");
    }
    let error = load_text("ingestion:\n  srt:\n    passphrase: 1234567890123\n").unwrap_err();
    assert_eq!(error, "headworks.yaml:3: ingestion.srt.passphrase: is not a text: quote it");
    for assignment in [
        "ingestion.srt.passphrase=5ec2e7",
        "ingestion.srt.passphrase.5ec=5ec2e7",
        "ingestion.srt.passprase=5ec2e7",
        "ingestion.srt.passphrase:5ec2e7",
        "ingestion.srt.passphrase 5ec2e7",
        "ingestion.srt={passphrase: #5ec2e7}",
        "ingestion.srt={passphrase: a 5ec2e7: b}",
        "ingestion.srt={passphrase: {5ec2e7}}",
        "ingestion.srt={passphrase: 5ec2e7",
        "ingestion.srt=[passphrase, 5ec2e7]",
        "streams={cam1: {passphrase: [5ec2e7]}}",
        "streams.cam1=passphrase 5ec2e7",
    ] {
        let error = load_assignments(&[assignment]).unwrap_err();
        assert!(!error.contains("5ec2e7"), "{error}");
        assert!(error.starts_with("--set"), "{error}");
    }
}

#[test]
fn a_size_that_no_host_has_is_refused_by_name() {
    for (key, most) in [
        ("shards.socket_buffer", 1_073_741_823),
        ("ingestion.rtp.buffer_size", 1_073_741_823),
        ("ingestion.rtp.max_sessions", 4_096),
        ("ingestion.srt.max_bandwidth", 10_000_000_000_u64),
        ("ingestion.buffer.ring_size", 1 << 40),
    ] {
        load_assignments(&[&format!("{key}={most}")]).unwrap();
        for above in [most + 1, most << 8] {
            let error = load_assignments(&[&format!("{key}={above}")]).unwrap_err();
            assert!(error.starts_with(&format!("--set: {key}: ")), "{error}");
        }
    }
    let error = load_assignments(&["shards.socket_buffer=18446744073709551615"]).unwrap_err();
    assert_eq!(error, "--set: shards.socket_buffer: is above 1073741823 bytes, the most that the kernel takes");
    assert!(load_assignments(&["shards.planned_latency=61s"]).unwrap_err().ends_with("is above 60 s"));
    assert!(load_assignments(&["output.history=2h"]).unwrap_err().ends_with("is above 1 h"));
}

#[test]
fn readers_of_the_broker_can_reach_its_socket() {
    for socket in ["broker", "/dev/shm/headworks/broker"] {
        let error = load_assignments(&[&format!("output.broker.socket={socket}")]).unwrap_err();
        assert!(error.contains("output.broker.socket: must be an absolute path outside output.root"), "{error}");
    }
    let readers = ["output.broker.socket=/run/headworks/broker", "streams.cam1.readers.gids=[7]"];
    let config = load_assignments(&readers).unwrap();
    assert_eq!(config.streams["cam1"].readers.as_ref().unwrap().gids, [7]);
}

#[test]
fn aggregates_are_refused_where_packets_come_past_the_kernel_that_joins_them() {
    assert!(load_assignments(&["shards.gro=true", "shards.packet_io=mmsg"]).unwrap().shards.gro);
    let error = load_assignments(&["shards.gro=true", "shards.packet_io=xdp"]).unwrap_err();
    assert_eq!(error, "--set: shards.gro: joins datagrams in the kernel, which shards.packet_io goes past");
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"ingestion: {srt: {port: 1000, latency: 200ms}}").unwrap();
    let environment = [
        ("HEADWORKS_INGESTION__SRT__PORT".into(), "2000".into()),
        ("HEADWORKS_INGESTION__RTP__PORT".into(), "2002".into()),
        ("HOME".into(), "/root".into()),
    ];
    let flags = ["ingestion.rtp.port=3000".to_owned()];
    let config = load(Some(file.path()), environment.into_iter(), &flags).unwrap().config;
    assert_eq!(config.ingestion.srt.port, 2_000);
    assert_eq!(config.ingestion.srt.latency, Duration::from_millis(200));
    assert_eq!(config.ingestion.rtp.port, 3_000);
}

#[test]
fn assignments_reach_named_streams_and_payload_types() {
    let config =
        load_assignments(&["streams.cam1.latency=2s", "ingestion.rtp.payload_types.96=h264", "shards.cores=[0, 1]"])
            .unwrap();
    assert_eq!(config.streams["cam1"].latency, Some(Duration::from_secs(2)));
    assert_eq!(config.ingestion.rtp.payload_types[&96], PayloadFormat::H264);
    assert_eq!(config.shards.cores, [0, 1]);
    // Text is no YAML, for which that begins a list.
    let listen = load_assignments(&["control.listen=[::1]:8080"]).unwrap().control.listen;
    assert_eq!(listen, "[::1]:8080".parse().unwrap());
    let error = load_assignments(&["ingestion.srt.prot=1"]).unwrap_err();
    assert!(error.starts_with("--set: unknown key ingestion.srt.prot"), "{error}");
    assert_eq!(load_assignments(&["x"]).unwrap_err(), "--set x: expected key=value");
}

#[test]
fn an_unreadable_file_is_named() {
    let error = load(Some(Path::new("/nonexistent/headworks.yaml")), std::iter::empty(), &[]).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/headworks.yaml: No such file"), "{error}");
}

#[test]
fn a_name_with_dots_is_that_of_a_stream_or_user_and_stands_in_quotes_in_messages_and_flags() {
    let text = r#"
ingestion:
  srt:
    access:
      users:
        john.doe: {passphrase: correct horse battery}
streams:
  "cam.1":
    latency: 1s
  cam.2: {takeover: never}
"#;
    let config = load_text(text).unwrap().config;
    assert_eq!(config.streams.keys().collect::<Vec<_>>(), ["cam.1", "cam.2"]);
    assert_eq!(config.streams["cam.1"].latency, Some(Duration::from_secs(1)));
    assert!(config.ingestion.srt.access.users.contains_key("john.doe"));
    let assigned = load_assignments(&["streams.\"cam.1\".latency=2s"]).unwrap();
    assert_eq!(assigned.streams["cam.1"].latency, Some(Duration::from_secs(2)));
    for (line, error) in [
        ("latensy: 1s", "unknown key streams.\"cam.1\".latensy; did you mean streams.\"cam.1\".latency?"),
        ("passphrase: short", "streams.\"cam.1\".passphrase: a passphrase has 10 to 79 bytes, this one has 5"),
        ("source: here", "streams.\"cam.1\".source: invalid IP address syntax"),
        ("passphrase: {a.b: c}", "streams.\"cam.1\".passphrase: is not a text: quote it"),
    ] {
        let found = load_text(&format!("streams:\n  cam.1:\n    {line}\n")).unwrap_err();
        assert_eq!(found, format!("headworks.yaml:3: {error}"));
    }
    let error = load_assignments(&["streams.cam.1.latency=1s"]).unwrap_err();
    assert!(error.starts_with("--set: unknown key streams.cam.1.latency"), "{error}");
}

#[test]
fn what_is_empty_or_no_list_is_told_in_plain_words() {
    for (text, error) in [
        (
            "ingestion:\n  srt:\n    access:\n      users:\n        north:\n",
            "headworks.yaml:5: ingestion.srt.access.users.north: has nothing below it: leave it out, or write {} for it",
        ),
        ("streams:\n", "headworks.yaml:1: streams: has nothing below it: leave it out, or write {} for it"),
        (
            "ingestion:\n  srt:\n    port:\n",
            "headworks.yaml:3: ingestion.srt.port: is empty, expected a number from 0 to 65535",
        ),
    ] {
        assert_eq!(load_text(text).unwrap_err(), error);
    }
    let error = load_assignments(&["ingestion.srt.access.allow=10.0.0.0/8"]).unwrap_err();
    assert!(error.ends_with("expected a list, such as [one, another]"), "{error}");
}

#[test]
fn what_nothing_would_come_of_is_refused_by_name() {
    for (assignment, error) in [
        ("streams.a.latency=9s", "streams.a.latency: is above ingestion.srt.latency_max"),
        (
            "ingestion.srt.reorder_tolerance=1025",
            "ingestion.srt.reorder_tolerance: is above 1024 packets: what is so far behind counts as lost",
        ),
        (
            "streams.a.reorder_tolerance=1025",
            "streams.a.reorder_tolerance: is above 1024 packets: what is so far behind counts as lost",
        ),
        (
            "ingestion.srt.version_min=1.3.0",
            "ingestion.srt.version_min: must be later than 1.3.0, which all have that can say theirs",
        ),
        ("ingestion.srt.version_min=1.5", "ingestion.srt.version_min: \"1.5\" is not a version of SRT, such as 1.5.4"),
        ("ingestion.srt.peer_idle_timeout=0", "ingestion.srt.peer_idle_timeout: must be above 0"),
        ("ingestion.rtp.session_timeout=0", "ingestion.rtp.session_timeout: must be above 0"),
        ("ingestion.frame.assembly_timeout=0", "ingestion.frame.assembly_timeout: must be above 0"),
        ("streams.a.rtp.payload_types.96=h264", "streams.a.rtp: says nowhere what is to come: set port, ssrc or sdp"),
        ("streams.a.rtp.interface=eth1", "streams.a.rtp: says nowhere what is to come: set port, ssrc or sdp"),
    ] {
        assert_eq!(load_assignments(&[assignment]).unwrap_err(), format!("--set: {error}"));
    }
    for key in ["address=239.1.1.1", "source=192.0.2.1", "interface=eth1"] {
        let of_a_port = &format!("streams.a.rtp.{key}");
        let error = load_assignments(&["streams.a.rtp.ssrc=1", of_a_port]).unwrap_err();
        assert!(
            error.ends_with("is about a port of the stream's own: set rtp.port beside it, or leave it out"),
            "{error}"
        );
        load_assignments(&["streams.a.rtp.port=6000", of_a_port]).unwrap();
    }
}

#[test]
fn durations_take_units_and_nothing_else() {
    for (text, expected) in [("500us", 500), ("120ms", 120_000), ("1.5s", 1_500_000), ("2m", 120_000_000), ("0", 0)] {
        assert_eq!(duration::parse(text).unwrap(), Duration::from_micros(expected), "{text}");
    }
    for text in ["", "30", "s", "-1s", "1 fortnight", "99999999999h"] {
        assert!(duration::parse(text).is_err(), "{text}");
    }
    assert_eq!(duration::format(Duration::from_secs(90)), "90s");
}

#[test]
fn dpdk_is_told_its_device_and_who_this_host_is_there() {
    let settings = [
        "shards.packet_io=dpdk",
        "shards.dpdk.device=net_af_packet0,iface=eth1",
        "shards.dpdk.addresses=[192.0.2.1/24, 2001:db8::1/64]",
        "shards.dpdk.gateways=[192.0.2.254]",
        "shards.dpdk.vlan=77",
        "shards.dpdk.eal_args=[--no-huge, -m, \"64\"]",
    ];
    let dpdk = load_assignments(&settings).unwrap().shards.dpdk;
    assert_eq!(dpdk.device.as_deref(), Some("net_af_packet0,iface=eth1"));
    assert_eq!(dpdk.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1/24", "2001:db8::1/64"]);
    assert_eq!((dpdk.gateways.len(), dpdk.vlan), (1, Some(77)));
    assert_eq!(dpdk.eal_args, ["--no-huge", "-m", "64"]);
    for (settings, key) in [
        (&settings[..1], "shards.dpdk.device"),
        (&settings[..2], "shards.dpdk.addresses"),
        (&[&settings[..3], &["ingestion.srt.address=192.0.2.2"]].concat(), "ingestion.srt.address: is 192.0.2.2"),
        (
            &[&settings[..3], &["streams.a.rtp.address=192.0.2.9", "streams.a.rtp.port=6000"]].concat(),
            "streams.a.rtp.address: is 192.0.2.9",
        ),
        (&["shards.dpdk.vlan=4095"], "shards.dpdk.vlan"),
        (&["shards.dpdk.addresses=[192.0.2.1]"], "shards.dpdk.addresses"),
        (&["shards.dpdk.gateway=192.0.2.254"], "shards.dpdk.gateways"),
    ] {
        let error = load_assignments(settings).unwrap_err();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn who_is_let_in_is_read_with_its_networks_users_and_streams() {
    let text = r#"
ingestion:
  srt:
    enforced_encryption: false
    access:
      allow: [10.0.0.0/8, "2001:db8::/32"]
      deny: [10.9.0.1]
      users:
        north: {passphrase: correct horse battery, streams: [cam1, north/*]}
      max_per_source: 4
streams:
  cam1: {allow: [10.1.0.0/16], takeover: never, enforced_encryption: true}
"#;
    let config = load_text(text).unwrap().config;
    let srt = &config.ingestion.srt;
    assert!(!srt.enforced_encryption && config.streams["cam1"].enforced_encryption == Some(true));
    assert!(admits(&srt.access.allow, &srt.access.deny, [10, 9, 0, 2].into()));
    assert!(!admits(&srt.access.allow, &srt.access.deny, [10, 9, 0, 1].into()));
    assert_eq!((srt.access.max_per_source, srt.access.inductions_per_second), (4, 100));
    assert!(srt.access.users["north"].may_send("north/1"));
    assert_eq!(config.streams["cam1"].takeover, Takeover::Never);
    for (assignment, complaint) in [
        ("ingestion.srt.access.allow=[10.0.0.1/8]", "is 10.0.0.0/8 meant?"),
        ("ingestion.srt.access.deny=[everybody]", "is not a network"),
        ("streams.cam1.takeover=sometimes", "streams.cam1.takeover"),
        ("ingestion.srt.access.users.north.passphrase=short", "ingestion.srt.access.users.north.passphrase"),
        ("ingestion.srt.access.users.north.pasphrase=x", "ingestion.srt.access.users.north.passphrase"),
    ] {
        let error = load_assignments(&[assignment]).unwrap_err();
        assert!(error.contains(complaint), "{assignment}: {error}");
        assert!(!error.contains("short"), "no passphrase is shown: {error}");
    }
}
