//! `headworks file`: files between two of them, and what is refused. With libsrt's tool at the other end: `interop/file.rs`.

use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

const HEADWORKS: &str = env!("CARGO_BIN_EXE_headworks");

/// Ends its process with itself.
struct Process(Child);

impl Process {
    /// Waits for its end: its exit code, its reports, and what it said on standard error, where that is read.
    fn finish(mut self) -> (i32, Vec<Value>, String) {
        let (mut out, mut said) = (String::new(), String::new());
        if let Some(mut stdout) = self.0.stdout.take() {
            stdout.read_to_string(&mut out).unwrap();
        }
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut said).unwrap();
        }
        let code = self.0.wait().unwrap().code().unwrap();
        (code, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn interrupt(child: &Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::INT).unwrap();
}

/// A side that listens.
struct Listening {
    process: Process,
    port: u16,
}

impl Listening {
    /// `command` is `send` or `receive` with what it takes before the location; `query` goes behind it.
    fn start(command: &[&str], query: &str, options: &str) -> Self {
        let mut child = Command::new(HEADWORKS)
            .arg("file")
            .args(command)
            .arg(format!("srt://127.0.0.1:0?mode=listener{query}"))
            .arg("--json")
            .args(options.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A byte at a time: what follows is left for the end.
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        let line = String::from_utf8(line).unwrap();
        let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:"));
        let port = address.and_then(|address| address.trim_end_matches(',').rsplit(':').next()?.parse().ok());
        Self { port: port.unwrap_or_else(|| panic!("it says {line:?}")), process: Process(child) }
    }

    fn receive(directory: &Path, query: &str, options: &str) -> Self {
        Self::start(&["receive", directory.to_str().unwrap()], query, options)
    }

    fn finish(self) -> (i32, Vec<Value>, String) {
        self.process.finish()
    }

    fn interrupt(&self) {
        interrupt(&self.process.0);
    }
}

fn headworks_file(arguments: &[&str]) -> Output {
    Command::new(HEADWORKS).arg("file").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn send(file: &Path, port: u16, query: &str) -> Output {
    headworks_file(&["send", file.to_str().unwrap(), &format!("srt://127.0.0.1:{port}{query}"), "--json"])
}

fn reports(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{output:?}"))).collect()
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn files_come_into_a_directory_one_after_the_other_whole_and_by_their_names() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (large, empty) = (from.path().join("a clip.ts"), from.path().join("empty"));
    fs::write(&large, bytes(8_000_001)).unwrap();
    fs::write(&empty, "").unwrap();
    let receiver = Listening::receive(to.path(), "", "--count 2");
    let url = format!("srt://127.0.0.1:{}", receiver.port);
    let sent =
        headworks_file(&["send", large.to_str().unwrap(), empty.to_str().unwrap(), &url, "--json", "--progress"]);
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    let (code, mut received, said) = receiver.finish();
    assert_eq!((code, said.as_str()), (0, ""));
    // In the order in which they were on the disk.
    received.sort_by_key(|report| report["file"].as_str().map(str::to_owned));
    assert_eq!(names(to.path()), ["a clip.ts", "empty"]);
    assert!(fs::read(to.path().join("a clip.ts")).unwrap() == bytes(8_000_001));
    assert_eq!(fs::read(to.path().join("empty")).unwrap(), b"");
    for ((sent, received), size) in reports(&sent).iter().zip(&received).zip([8_000_001, 0]) {
        assert_eq!((&sent["bytes"], &received["bytes"]), (&Value::from(size), &Value::from(size)));
        assert_eq!(sent["sha256"], received["sha256"]);
        assert_eq!((&sent["size"], &received["size"], &sent["error"]), (&size.into(), &size.into(), &Value::Null));
    }
}

#[test]
fn an_encrypted_file_needs_the_same_passphrase_at_both_ends() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("a");
    fs::write(&file, bytes(2_000_000)).unwrap();
    let receiver = Listening::receive(to.path(), "&passphrase=correct%20horse", "--count 2");
    for (query, reason) in [("", "UNSECURE"), ("?passphrase=another%20horse", "BADSECRET")] {
        let refused = send(&file, receiver.port, query);
        assert_eq!(refused.status.code(), Some(1));
        assert!(reports(&refused)[0]["error"].as_str().unwrap().contains(reason), "{refused:?}");
    }
    let ctr = send(&file, receiver.port, "?passphrase=correct%20horse&pbkeylen=32");
    assert_eq!(reports(&ctr)[0]["encryption"], "AES-256-CTR");
    fs::rename(&file, from.path().join("b")).unwrap();
    let gcm = send(&from.path().join("b"), receiver.port, "?passphrase=correct%20horse&cryptomode=2");
    assert_eq!(reports(&gcm)[0]["encryption"], "AES-128-GCM");
    let (code, received, _) = receiver.finish();
    assert_eq!((code, received.len(), names(to.path())), (0, 2, vec!["a".to_owned(), "b".to_owned()]));
    for name in ["a", "b"] {
        assert!(fs::read(to.path().join(name)).unwrap() == bytes(2_000_000));
    }
}

#[test]
fn who_has_not_shown_the_passphrase_changes_nothing_and_does_not_learn_what_there_is() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("a");
    fs::write(&file, bytes(3_000)).unwrap();
    fs::write(to.path().join("a.part"), "of a run before").unwrap();
    fs::write(to.path().join("there"), "old").unwrap();
    let receiver = Listening::receive(to.path(), "&passphrase=correct%20horse", "--max-size 2k");
    for name in ["a", "there", "other", "x/a", "%23!::r=a,m=request", "%23!::r=a,m=publish,t=file,size=3000"] {
        for (query, reason) in [("", "UNSECURE"), ("&passphrase=another%20horse", "BADSECRET")] {
            let refused = send(&file, receiver.port, &format!("?streamid={name}{query}"));
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
            let error = reports(&refused)[0]["error"].as_str().unwrap().to_owned();
            assert!(error.contains(reason), "{name}: {error}");
            assert_eq!(names(to.path()), ["a.part", "there"]);
        }
    }
    assert_eq!(fs::read(to.path().join("a.part")).unwrap(), b"of a run before");
    receiver.interrupt();
    let (code, received, _) = receiver.finish();
    assert_eq!((code, received.len()), (0, 0), "{received:?}");
    let sender = Listening::start(&["send", file.to_str().unwrap()], "&passphrase=correct%20horse", "");
    for name in ["a", "b"] {
        let url = format!("srt://127.0.0.1:{}?streamid={name}&passphrase=another%20horse", sender.port);
        let refused = headworks_file(&["receive", from.path().to_str().unwrap(), &url, "--name", "fetched"]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("BADSECRET"), "{name}: {refused:?}");
    }
    assert_eq!(names(from.path()), ["a"]);
}

/// Starts to send a file slowly, and waits until it comes in.
fn send_slowly(files: &[&Path], url: &str, to: &Path) -> Process {
    let mut command = Command::new(HEADWORKS);
    command.args(["file", "send"]).args(files).args([url, "--rate", "10M", "--json"]);
    let sender = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let sender = Process(sender);
    let part = to.join(format!("{}.part", files[0].file_name().unwrap().to_str().unwrap()));
    while !part.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    sender
}

#[test]
fn who_has_not_shown_the_passphrase_does_not_learn_that_files_are_coming_in_or_going_out() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (large, small) = (from.path().join("large"), from.path().join("small"));
    fs::write(&large, bytes(30_000_000)).unwrap();
    fs::write(&small, bytes(3_000)).unwrap();
    let receiver = Listening::receive(to.path(), "&passphrase=correct%20horse", "--transfers 1");
    let url = format!("srt://127.0.0.1:{}?passphrase=correct%20horse", receiver.port);
    let _sender = send_slowly(&[&large], &url, to.path());
    let sender = Listening::start(&["send", large.to_str().unwrap()], "&passphrase=correct%20horse", "--rate 10M");
    let to_fetch = tempfile::tempdir().unwrap();
    let url = format!("srt://127.0.0.1:{}?passphrase=correct%20horse&streamid=large", sender.port);
    let mut fetching = Command::new(HEADWORKS);
    fetching.args(["file", "receive", to_fetch.path().to_str().unwrap(), &url]).stdin(Stdio::null());
    let _fetching = Process(fetching.stdout(Stdio::null()).spawn().unwrap());
    while fs::metadata(to_fetch.path().join("large.part")).map_or(0, |facts| facts.len()) == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    for (query, refused_in, refused_out) in [
        ("&passphrase=correct%20horse", "OVERLOAD", "BACKLOG"),
        ("&passphrase=another%20horse", "BADSECRET", "BADSECRET"),
        ("", "UNSECURE", "UNSECURE"),
    ] {
        let refused = send(&small, receiver.port, &format!("?streamid=small{query}"));
        let error = reports(&refused)[0]["error"].as_str().unwrap().to_owned();
        assert!(error.contains(refused_in), "{query}: {error}");
        let url = format!("srt://127.0.0.1:{}?streamid=large{query}", sender.port);
        let refused = headworks_file(&["receive", from.path().to_str().unwrap(), &url, "--name", "fetched"]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains(refused_out), "{query}: {refused:?}");
    }
}

#[test]
fn who_is_interrupted_before_all_has_come_says_so() {
    let to = tempfile::tempdir().unwrap();
    let interrupted = |receiver: Listening| {
        receiver.interrupt();
        let (code, received, said) = receiver.finish();
        assert_eq!(received.len(), 0);
        (code, said)
    };
    let (code, said) = interrupted(Listening::receive(to.path(), "", "--count 2"));
    assert_eq!(code, 1);
    assert!(said.contains("interrupted, 2 files were not received"), "{said}");
    assert_eq!(interrupted(Listening::receive(to.path(), "", "")), (0, String::new()));
    // Nobody answers there.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("srt://{}?streamid=a", silent.local_addr().unwrap());
    let mut calling = Command::new(HEADWORKS);
    calling.args(["file", "receive", to.path().to_str().unwrap(), &url, "--connect-timeout", "60s"]);
    let calling = Process(calling.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    silent.recv(&mut [0; 1_500]).unwrap();
    interrupt(&calling.0);
    let (code, _, said) = calling.finish();
    assert_eq!(code, 1);
    assert!(said.contains("interrupted, 1 file was not received"), "{said}");
    assert_eq!(names(to.path()), Vec::<String>::new());
}

#[test]
fn a_file_that_has_vanished_keeps_the_others_from_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [large, gone, last] = ["large", "gone", "last"].map(|name| from.path().join(name));
    fs::write(&large, bytes(2_000_000)).unwrap();
    fs::write(&gone, bytes(3_000)).unwrap();
    fs::write(&last, bytes(4_000)).unwrap();
    let failed = |reports: &[Value]| -> Vec<(String, bool)> {
        let name = |report: &Value| report["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        reports.iter().map(|report| (name(report), report["error"].is_string())).collect()
    };
    // It calls.
    let receiver = Listening::receive(to.path(), "", "--count 2");
    let url = format!("srt://127.0.0.1:{}", receiver.port);
    let sender = send_slowly(&[&large, &gone, &last], &url, to.path());
    fs::remove_file(&gone).unwrap();
    let (code, sent, _) = sender.finish();
    let expected = [("large", false), ("gone", true), ("last", false)].map(|(name, failed)| (name.to_owned(), failed));
    assert_eq!((code, failed(&sent)), (1, expected.to_vec()));
    assert!(sent[1]["error"].as_str().unwrap().contains("No such file"), "{sent:?}");
    assert_eq!((receiver.finish().0, names(to.path())), (0, vec!["large".to_owned(), "last".to_owned()]));
    // It is called.
    fs::write(&gone, bytes(3_000)).unwrap();
    let files: Vec<_> = [&gone, &last].iter().map(|file| file.to_str().unwrap().to_owned()).collect();
    let sender = Listening::start(&["send", &files[0], &files[1]], "", "");
    fs::remove_file(&gone).unwrap();
    let fetch = |name: &str| {
        let url = format!("srt://127.0.0.1:{}?streamid={name}", sender.port);
        // Its peer is told of the end, and does not wait for so long.
        headworks_file(&["receive", to.path().to_str().unwrap(), &url, "--overwrite", "--timeout", "1h", "--json"])
    };
    let fetched = fetch("gone");
    assert_eq!(fetched.status.code(), Some(1), "{fetched:?}");
    let error = reports(&fetched)[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("without a byte"), "{error}");
    assert_eq!(fetch("last").status.code(), Some(0));
    let (code, sent, _) = sender.finish();
    let expected = [("gone", true), ("last", false)].map(|(name, failed)| (name.to_owned(), failed));
    assert_eq!((code, failed(&sent)), (1, expected.to_vec()));
}

#[test]
fn a_passphrase_is_read_from_a_file_and_stands_in_no_command_line() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [file, right, wrong, short] = ["a", "right", "wrong", "short"].map(|name| from.path().join(name));
    fs::write(&file, bytes(3_000)).unwrap();
    fs::write(&right, "correct horse\nand what else is noted there\n").unwrap();
    fs::write(&wrong, "another horse").unwrap();
    fs::write(&short, "secret\r\n").unwrap();
    let options = format!("--count 1 --passphrase-file {}", right.display());
    let receiver = Listening::receive(to.path(), "", &options);
    let url = format!("srt://127.0.0.1:{}", receiver.port);
    let send = |passphrase: &Path, url: &str| {
        let (file, passphrase) = (file.to_str().unwrap(), passphrase.to_str().unwrap());
        headworks_file(&["send", file, url, "--json", "--passphrase-file", passphrase])
    };
    let refused = send(&wrong, &url);
    assert!(reports(&refused)[0]["error"].as_str().unwrap().contains("BADSECRET"), "{refused:?}");
    for (passphrase, url, said) in [
        (&short, url.clone(), "the passphrase has 6 bytes"),
        (&from.path().join("nowhere"), url.clone(), "nowhere: No such file"),
        (&right, format!("{url}?passphrase=correct%20horse"), "given twice"),
    ] {
        let output = send(passphrase, &url);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(said), "{output:?}");
        assert!(!text.contains("secret") && !text.contains("horse"), "{text}");
    }
    let sent = send(&right, &url);
    assert_eq!((sent.status.code(), reports(&sent)[0]["encryption"].as_str()), (Some(0), Some("AES-128-CTR")));
    assert_eq!((receiver.finish().0, names(to.path())), (0, vec!["a".to_owned()]));
}

#[test]
fn what_may_not_be_kept_is_refused_with_a_code_and_leaves_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("a");
    fs::write(&file, bytes(3_000)).unwrap();
    fs::write(to.path().join("there"), "old").unwrap();
    let receiver = Listening::receive(to.path(), "", "--max-size 2k");
    for (query, reason) in [
        ("?streamid=x/a", "FILEPATH"),
        ("?streamid=.bashrc", "FILEPATH"),
        ("?streamid=-rf", "FILEPATH"),
        ("?streamid=a.part", "FILEPATH"),
        ("?streamid=there", "CONFLICT"),
        ("?streamid=%23!::r=a,m=request", "BAD_MODE"),
        ("?streamid=%23!::r=a,t=stream", "NOTSUP_MEDIA"),
        ("?streamid=%23!::r=a,m=publish,size=1e9", "BAD_REQUEST"),
        ("", "UNACCEPTABLE"),
        ("?streamid=a&messageapi=1", "MESSAGEAPI"),
    ] {
        let refused = send(&file, receiver.port, query);
        assert_eq!(refused.status.code(), Some(1), "{query}: {refused:?}");
        let error = reports(&refused)[0]["error"].as_str().unwrap().to_owned();
        assert!(error.contains(reason), "{query}: {error}");
    }
    // Its size was not told: it is refused when it shows.
    let cut = send(&file, receiver.port, "?streamid=a");
    assert_eq!(cut.status.code(), Some(1), "{cut:?}");
    assert!(reports(&cut)[0]["error"].as_str().unwrap().contains("cannot keep it (error 4000)"), "{cut:?}");
    receiver.interrupt();
    let (code, received, said) = receiver.finish();
    assert_eq!((code, received.len()), (1, 1), "{received:?}");
    assert!(received[0]["error"].as_str().unwrap().contains("more than 2000 bytes"), "{received:?}");
    assert!(said.contains("CONFLICT") && said.contains("MESSAGEAPI"), "{said}");
    assert_eq!(
        (names(to.path()), fs::read(to.path().join("there")).unwrap()),
        (vec!["there".to_owned()], b"old".to_vec())
    );
}

#[test]
fn a_file_of_the_same_name_is_replaced_where_that_is_wanted_and_messages_make_a_file_too() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("a");
    fs::write(&file, bytes(700_000)).unwrap();
    fs::write(to.path().join("a"), "old").unwrap();
    let receiver = Listening::receive(to.path(), "&messageapi=1", "--count 1 --overwrite");
    let sent = send(&file, receiver.port, "?messageapi=1");
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    assert_eq!(receiver.finish().0, 0);
    assert!(fs::read(to.path().join("a")).unwrap() == bytes(700_000));
    assert_eq!(names(to.path()), ["a"]);
}

#[test]
fn whoever_has_files_may_listen_and_the_other_call_for_them() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (from.path().join("a"), from.path().join("b"));
    fs::write(&a, bytes(100_000)).unwrap();
    fs::write(&b, bytes(200_000)).unwrap();
    let sender = Listening::start(&["send", a.to_str().unwrap(), b.to_str().unwrap()], "", "");
    let fetch = |query: &str, name: &str| {
        let url = format!("srt://127.0.0.1:{}{query}", sender.port);
        headworks_file(&["receive", to.path().to_str().unwrap(), &url, "--json", "--name", name])
    };
    let unknown = fetch("?streamid=c", "c");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("NOTFOUND"), "{unknown:?}");
    assert_eq!((unknown.status.code(), names(to.path())), (Some(1), vec![]));
    assert_eq!(fetch("?streamid=b", "fetched").status.code(), Some(0));
    assert_eq!(fetch("", "next").status.code(), Some(0));
    let (code, reports, _) = sender.finish();
    assert_eq!((code, reports.len()), (0, 2));
    assert!(fs::read(to.path().join("fetched")).unwrap() == bytes(200_000));
    assert!(fs::read(to.path().join("next")).unwrap() == bytes(100_000));
}

#[test]
fn a_sender_that_is_stopped_half_way_leaves_no_file_and_is_told_of() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("a");
    fs::write(&file, bytes(30_000_000)).unwrap();
    for query in ["", "?streamid=a"] {
        let receiver = Listening::receive(to.path(), "", "--count 1");
        let url = format!("srt://127.0.0.1:{}{query}", receiver.port);
        let mut sender = Command::new(HEADWORKS)
            .args(["file", "send", file.to_str().unwrap(), &url, "--rate", "10M"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Half a second of its 24.
        while !to.path().join("a.part").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(500));
        // Without a size the receiver knows of its end from its silence alone.
        sender.kill().unwrap();
        sender.wait().unwrap();
        let (code, received, _) = receiver.finish();
        assert_eq!((code, received.len()), (1, 1));
        let error = received[0]["error"].as_str().unwrap();
        assert!(error.contains("of 30000000 bytes") || error.contains("nothing was heard"), "{error}");
        assert_eq!(names(to.path()), Vec::<String>::new());
    }
}

#[test]
fn what_makes_no_sense_is_a_matter_of_usage() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().to_str().unwrap();
    for (arguments, said) in [
        (vec!["send", "Cargo.toml", "rtp://127.0.0.1:1"], "not a location"),
        (vec!["send", "Cargo.toml", "Cargo.toml", "srt://127.0.0.1:1?streamid=x"], "one file"),
        (vec!["receive", here, "srt://127.0.0.1"], "no port"),
        (vec!["receive", here, "srt://:1?latency=120"], "no latency"),
        (vec!["receive", here, "srt://:1?passphrase=short"], "10 to 79"),
        (vec!["send", "srt://127.0.0.1:1"], "FILE"),
        (vec!["receive", here, "srt://127.0.0.1:1/passphrase=short"], "?KEY=VALUE"),
        (vec!["receive", here, "srt://:1?mode=listener;passphrase=short"], "known are"),
    ] {
        let output = headworks_file(&arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(said) && !text.contains("short"), "{text}");
    }
    let missing = headworks_file(&["receive", "/nowhere", "srt://:1"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no such directory"));
    let nameless = headworks_file(&["receive", here, "srt://127.0.0.1:1"]);
    assert_eq!(nameless.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nameless.stderr).contains("names no file"));
    let nobody = headworks_file(&["send", "Cargo.toml", "srt://127.0.0.1:1", "--connect-timeout", "300ms"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no answer in time"), "{nobody:?}");
}
