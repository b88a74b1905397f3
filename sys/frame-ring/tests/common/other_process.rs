//! A reader in another process and another language, that prints a line for everything it sees.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// FNV-1a, which is short in every language.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

pub struct OtherProcess {
    child: Child,
    output: Receiver<Vec<u8>>,
    heard: String,
    /// So far it has been given by `line`.
    lines_end: usize,
    deadline: Instant,
}

impl OtherProcess {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut some) {
                if sender.send(some[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, output, heard: String::new(), lines_end: 0, deadline: Instant::now() + Duration::from_secs(30) }
    }

    /// From now on.
    pub fn within(&mut self, time: Duration) {
        self.deadline = Instant::now() + time;
    }

    fn listen(&mut self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.output.recv_timeout(left) {
            Ok(bytes) => self.heard.push_str(&String::from_utf8_lossy(&bytes)),
            Err(_) => return false,
        }
        true
    }

    pub fn hear(&mut self, what: &str) {
        while !self.heard.contains(what) {
            assert!(self.listen(), "heard no {what:?}, but:\n{}", self.heard);
        }
    }

    pub fn heard(&self) -> &str {
        &self.heard
    }

    /// The next line.
    pub fn line(&mut self) -> String {
        loop {
            if let Some((line, _)) = self.heard[self.lines_end..].split_once('\n') {
                self.lines_end += line.len() + 1;
                return line.to_owned();
            }
            assert!(self.listen(), "no line after:\n{}", self.heard);
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn say(&mut self, what: &str) {
        self.child.stdin.as_mut().unwrap().write_all(what.as_bytes()).unwrap();
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(name).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    /// Waits for its end, which must be a good one; everything it said.
    pub fn end(mut self) -> String {
        while self.listen() {}
        assert!(Instant::now() < self.deadline, "it goes on, and said:\n{}", self.heard);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.heard);
        std::mem::take(&mut self.heard)
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
