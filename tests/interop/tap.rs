//! A reader of rings in another process: `headworks tap --json`, or another that prints such lines.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::reference::hashed;

/// A line of `tap --json --hash sha256`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Frame {
    pub track: String,
    pub codec: String,
    pub seq: u64,
    pub stream_seq: u64,
    pub segment: u32,
    pub pts: Option<i64>,
    pub dts: Option<i64>,
    pub timeline_ns: i64,
    pub key: bool,
    pub random_access: Option<String>,
    pub len: usize,
    pub discontinuity: Option<String>,
    pub damaged: bool,
    pub lost: u32,
    pub lapped: u64,
    pub sha256: String,
}

/// A line with the payload in hexadecimal has it hashed here.
fn parsed(line: &str) -> Frame {
    let mut line: serde_json::Value = serde_json::from_str(line).expect("tap writes JSON");
    if let Some(payload) = line["payload"].as_str() {
        let digit = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
        let bytes: Vec<u8> = payload.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
        line["sha256"] = hashed(&bytes).1.into();
    }
    serde_json::from_value(line).expect("a line of tap")
}

/// A running tap and the frames it has seen.
pub struct Tap {
    child: Child,
    frames: Arc<Mutex<Vec<Frame>>>,
}

impl Tap {
    pub fn start(root: &Path, stream: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headworks"));
        command.args(["tap", stream, "--from", "oldest", "--json", "--hash", "sha256", "--timeout", "120", "--root"]);
        Self::run(command.arg(root).stderr(Stdio::null()))
    }

    /// Another reader that prints such lines.
    pub fn run(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("tap starts");
        let frames = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&frames);
        let stdout = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                into.lock().unwrap().push(parsed(&line));
            }
        });
        Self { child, frames }
    }

    pub fn frames(&self) -> Vec<Frame> {
        self.frames.lock().unwrap().clone()
    }

    /// Waits for so many frames, or until none has come for four seconds; gives them all.
    pub fn wait_for(&self, count: usize) -> Vec<Frame> {
        let mut seen = 0;
        let mut changed = Instant::now();
        loop {
            let now = self.frames.lock().unwrap().len();
            if now >= count {
                // One more than expected must be seen as well.
                std::thread::sleep(Duration::from_millis(50));
                return self.frames();
            }
            if now != seen {
                seen = now;
                changed = Instant::now();
            }
            if changed.elapsed() > Duration::from_secs(4) {
                return self.frames();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the frames fulfil a condition.
    pub fn wait_until(&self, what: &str, condition: impl Fn(&[Frame]) -> bool) -> Vec<Frame> {
        let began = Instant::now();
        loop {
            let frames = self.frames();
            if condition(&frames) {
                return frames;
            }
            assert!(
                began.elapsed() < Duration::from_secs(15),
                "{what}; {} frames, last {:?}",
                frames.len(),
                frames.last()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
