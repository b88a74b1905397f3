//! `headworks file`: files between two of them, and what is refused. With libsrt's tool at the other end: `interop/file.rs`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use serde_json::Value;

const HEADWORKS: &str = env!("CARGO_BIN_EXE_headworks");

/// A side that listens.
struct Listening {
    child: Child,
    stderr: BufReader<ChildStderr>,
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
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:"));
        let port = address.and_then(|address| address.trim_end_matches(',').rsplit(':').next()?.parse().ok());
        Self { port: port.unwrap_or_else(|| panic!("it says {line:?}")), child, stderr }
    }

    fn receive(directory: &Path, query: &str, options: &str) -> Self {
        Self::start(&["receive", directory.to_str().unwrap()], query, options)
    }

    /// Waits for its end: its exit code, its reports, and what it said on standard error.
    fn finish(mut self) -> (i32, Vec<Value>, String) {
        let (mut out, mut said) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.stderr.read_to_string(&mut said).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        (code, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), said)
    }

    fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
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
