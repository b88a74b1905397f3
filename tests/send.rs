//! `headworks send` and `headworks relay` against libsrt: what `srt-live-transmit` receives is what was recorded as sent.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const HEADWORKS: &str = env!("CARGO_BIN_EXE_headworks");

/// Ends its process with itself.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Asks it to end, and waits for that.
    fn interrupt(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Until somebody has the port.
fn wait_for_port(port: u16) {
    let started = Instant::now();
    while UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10), "nobody listens on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A listener of libsrt that writes what it gets to a file.
fn listener(port: u16, options: &str, to: &Path) -> Process {
    let process = Process::start(
        Command::new("srt-live-transmit")
            .args(["-q", &format!("srt://127.0.0.1:{port}?mode=listener{options}"), "file://con"])
            .stdout(fs::File::create(to).unwrap())
            .stderr(Stdio::null()),
    );
    wait_for_port(port);
    process
}

fn send(arguments: &[&str], record: &Path) -> Output {
    Command::new(HEADWORKS)
        .arg("send")
        .args(arguments)
        // The schedule is not what is tested, and the machine may be busy.
        .args(["--json", "--max-lateness", "10s", "--record", record.to_str().unwrap()])
        .output()
        .unwrap()
}

fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

struct Files {
    _directory: tempfile::TempDir,
    sent: PathBuf,
    received: PathBuf,
}

fn files() -> Files {
    let directory = tempfile::tempdir().unwrap();
    let (sent, received) = (directory.path().join("sent.ts"), directory.path().join("received.ts"));
    Files { _directory: directory, sent, received }
}

fn assert_same(files: &Files, at_least: usize) {
    let (sent, received) = (fs::read(&files.sent).unwrap(), fs::read(&files.received).unwrap());
    assert!(sent.len() >= at_least, "{} bytes sent", sent.len());
    let differs = sent.iter().zip(&received).position(|(sent, received)| sent != received);
    assert_eq!((differs, received.len()), (None, sent.len()));
}

#[test]
fn libsrt_receives_the_very_bytes_that_were_sent() {
    let (files, port) = (files(), free_port());
    let mut listener = listener(port, "", &files.received);
    let to = format!("srt://127.0.0.1:{port}?streamid=cam");
    let output = send(&["--to", &to, "--rate", "5M", "--duration", "3s", "--latency", "300ms"], &files.sent);
    assert!(output.status.success(), "{output:?}");
    listener.interrupt();
    assert_same(&files, 1_800_000);
    let report = report(&output);
    assert_eq!(report["per_feed"][0]["name"], "cam");
    assert_eq!(report["per_feed"][0]["srt"]["latency_ms"], 300);
    assert_eq!(report["bytes"], fs::metadata(&files.sent).unwrap().len());
}

#[test]
fn libsrt_decrypts_every_key_length() {
    for (bits, bytes) in [("128", 16), ("192", 24), ("256", 32)] {
        let (files, port) = (files(), free_port());
        let mut listener = listener(port, &format!("&passphrase=correct_horse&pbkeylen={bytes}"), &files.received);
        let to = format!("srt://127.0.0.1:{port}");
        let passphrase = files.sent.with_extension("secret");
        fs::write(&passphrase, "correct_horse\n").unwrap();
        let given = match bits {
            "192" => ["--passphrase-file", passphrase.to_str().unwrap()],
            _ => ["--passphrase", "correct_horse"],
        };
        let secret = [&given[..], &["--key-length", bits]].concat();
        let shape = ["--to", &to, "--rate", "2M", "--duration", "1s", "--latency", "300ms"];
        let output = send(&[&shape[..], &secret].concat(), &files.sent);
        assert!(output.status.success(), "{output:?}");
        listener.interrupt();
        assert_same(&files, 200_000);
    }
}

#[test]
fn libsrt_gets_everything_through_the_relay() {
    let (files, server, front) = (files(), free_port(), free_port());
    let mut listener = listener(server, "", &files.received);
    let mut relay = Process::start(
        Command::new(HEADWORKS)
            .arg("relay")
            .args(["--listen", &format!("127.0.0.1:{front}"), "--to", &format!("127.0.0.1:{server}"), "--json"])
            .args(["--loss", "2%", "--burst-loss", "1%/30ms", "--delay", "15ms", "--jitter", "2ms"])
            .args(["--reorder", "1%", "--duplicate", "1%", "--seed", "11"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    wait_for_port(front);
    let to = format!("srt://127.0.0.1:{front}?streamid=cam");
    let output = send(&["--to", &to, "--rate", "5M", "--duration", "5s", "--latency", "600ms"], &files.sent);
    assert!(output.status.success(), "{output:?}");
    listener.interrupt();
    relay.interrupt();
    assert_same(&files, 3_000_000);
    let report = report(&output);
    let rtt = report["per_feed"][0]["srt"]["rtt_ms"].as_f64().unwrap();
    assert!(rtt > 25.0, "{rtt} ms");
    assert!(report["retransmitted"].as_u64().unwrap() > 20, "{report}");
    let relayed: serde_json::Value = serde_json::from_reader(relay.0.stdout.take().unwrap()).unwrap();
    assert!(relayed["forward"]["lost_random"].as_u64().unwrap() > 20, "{relayed}");
    assert!(relayed["back"]["datagrams"].as_u64().unwrap() > 100, "{relayed}");
}

#[test]
fn a_wrong_passphrase_is_rejected_by_name() {
    let (files, port) = (files(), free_port());
    let _listener = listener(port, "&passphrase=correct_horse&enforcedencryption=1", &files.received);
    let to = format!("srt://127.0.0.1:{port}");
    let output = send(&["--to", &to, "--duration", "1s", "--passphrase", "wrong_horse"], &files.sent);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("BADSECRET"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn what_makes_no_sense_is_one_line_and_exit_code_two() {
    let files = files();
    for (arguments, word) in [
        (&["--to", "tcp://127.0.0.1:1"][..], "srt://host:port"),
        (&["--to", "srt://127.0.0.1:1", "--passphrase", "short"], "SRT wants 10 to 79"),
        (&["--to", "srt://127.0.0.1:1", "--passphrase", &"x".repeat(80)], "has 80 bytes"),
        (&["--to", "srt://127.0.0.1:1", "--passphrase-file", "/nowhere"], "/nowhere: No such file"),
        (&["--to", "rtp://127.0.0.1:1", "--passphrase-file", "/nowhere"], "--passphrase-file is for srt://"),
        (&["--to", "srt://127.0.0.1:1/passphrase=secret"], "srt://127.0.0.1:1: what follows is no query"),
        (&["--to", "udp://127.0.0.1:1", "--feeds", "2"], "--ports-step"),
        (&["--to", "rtp://127.0.0.1:1", "--latency", "1s"], "--latency"),
        (&["--to", "udp://127.0.0.1:1", "--file", "/nowhere.ts"], "/nowhere.ts"),
        (&["--to", "udp://127.0.0.1:1", "--file", "/proc/self/exe"], "transport stream"),
        (&["--to", "udp://127.0.0.1:1", "--rate", "10k"], "500k"),
        (&["--to", "udp://127.0.0.1:1", "--duration", "1s", "--settle", "1s"], "--settle"),
    ] {
        let output = send(arguments, &files.sent);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(word) && message.lines().count() == 1, "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

/// Receives until there was nothing for two seconds, and until then waits for as long as a busy machine may need.
fn receive(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut buffer = [0; 2_048];
    let mut datagrams = Vec::new();
    while let Ok(length) = socket.recv(&mut buffer) {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        datagrams.push(buffer[..length].to_vec());
    }
    datagrams
}

#[test]
fn rtp_and_bare_udp_carry_the_same_bytes_with_and_without_aggregates() {
    for (scheme, header, gso) in [("rtp", 12, "1"), ("udp", 0, "1"), ("rtp", 12, "8"), ("udp", 0, "8")] {
        let files = files();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = format!("{scheme}://{}", socket.local_addr().unwrap());
        let sent = files.sent.clone();
        let sender =
            std::thread::spawn(move || send(&["--to", &to, "--rate", "3M", "--duration", "1s", "--gso", gso], &sent));
        let datagrams = receive(&socket);
        let output = sender.join().unwrap();
        assert!(output.status.success(), "{output:?}");
        let bytes: Vec<u8> = datagrams.iter().flat_map(|datagram| &datagram[header..]).copied().collect();
        assert!(bytes == fs::read(&files.sent).unwrap(), "{scheme} {gso}: {} bytes are other than sent", bytes.len());
        if header > 0 {
            let numbers: Vec<u16> = datagrams.iter().map(|packet| u16::from_be_bytes([packet[2], packet[3]])).collect();
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
            assert!(datagrams.iter().all(|packet| packet[..2] == [0x80, 33] && packet[8..12] == datagrams[0][8..12]));
            let time = |packet: &[u8]| u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
            let passed = time(&datagrams[datagrams.len() - 1]) - time(&datagrams[0]);
            // It goes on to the end of a picture, and a picture lasts 3,600 ticks.
            assert!((88_000..99_000).contains(&passed), "{passed} ticks in a second");
        }
    }
}

#[test]
fn nobody_listening_is_said_so() {
    let files = files();
    let to = format!("srt://127.0.0.1:{}?streamid=cam", free_port());
    let output = send(&["--to", &to, "--duration", "1s", "--connect-timeout", "500ms"], &files.sent);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("cam: no answer in time (the host says that nobody listens"), "{message}");
}

#[test]
fn a_multicast_group_is_reached_by_the_interface_that_is_named() {
    for interface in ["lo", "127.0.0.1"] {
        let files = files();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.join_multicast_v4(&Ipv4Addr::new(239, 77, 2, 1), &Ipv4Addr::LOCALHOST).unwrap();
        let to = format!("rtp://239.77.2.1:{}", socket.local_addr().unwrap().port());
        let sent = files.sent.clone();
        let sender = std::thread::spawn(move || {
            let shape = ["--to", &to, "--rate", "1M", "--duration", "500ms"];
            send(&[&shape[..], &["--interface", interface, "--ttl", "1", "--ssrc", "c0ffee"]].concat(), &sent)
        });
        let datagrams = receive(&socket);
        let output = sender.join().unwrap();
        assert!(output.status.success(), "{output:?}");
        let bytes: Vec<u8> = datagrams.iter().flat_map(|datagram| &datagram[12..]).copied().collect();
        assert_eq!(bytes, fs::read(&files.sent).unwrap(), "{interface}");
        assert!(datagrams.iter().all(|packet| packet[8..12] == [0, 0xc0, 0xff, 0xee]));
    }
}

#[test]
fn a_seed_loses_the_same_packets_each_time() {
    let lost = || {
        let files = files();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = format!("rtp://{}", socket.local_addr().unwrap());
        let arguments = ["--to", &to, "--rate", "3M", "--duration", "1s", "--loss", "5%", "--seed", "3"];
        let output = send(&arguments, &files.sent);
        assert!(output.status.success(), "{output:?}");
        let numbers: Vec<u16> =
            receive(&socket).iter().map(|packet| u16::from_be_bytes([packet[2], packet[3]])).collect();
        let lost = report(&output)["impairment"]["lost_random"].as_u64().unwrap();
        (numbers.iter().map(|number| number.wrapping_sub(numbers[0])).collect::<Vec<_>>(), lost)
    };
    let first = lost();
    assert_eq!(first, lost());
    assert!(first.1 > 3, "{} lost", first.1);
}
