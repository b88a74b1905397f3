//! The appliance as a process of its own, with ports and rings of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::tap::Tap;

pub const BINARY: &str = env!("CARGO_BIN_EXE_headworks");
/// The longest that starting may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(20);

/// Ports that were free a moment ago.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub srt: u16,
    pub rtp: u16,
    pub rtcp: u16,
    pub control: u16,
}

impl Ports {
    pub fn free() -> Self {
        let [srt, rtp, rtcp, control] = free_ports();
        Self { srt, rtp, rtcp, control }
    }

    fn settings(self) -> [String; 4] {
        [
            format!("ingestion.srt.port={}", self.srt),
            format!("ingestion.rtp.port={}", self.rtp),
            format!("ingestion.rtp.rtcp_port={}", self.rtcp),
            format!("control.listen=127.0.0.1:{}", self.control),
        ]
    }
}

/// Ports that nobody has, over UDP or TCP. None is given twice: of two appliances that come to the same port one does not start.
/// They lie below those that Linux gives senders by itself (from 32768 on).
pub fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    // Relaxed: it hands out numbers and nothing else.
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Another run of these tests begins elsewhere.
    let start = std::process::id().wrapping_mul(499);
    let next = || (FIRST + start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT) as u16;
    let is_free =
        |port: &u16| UdpSocket::bind(("0.0.0.0", *port)).is_ok() && TcpListener::bind(("0.0.0.0", *port)).is_ok();
    std::array::from_fn(|_| std::iter::repeat_with(next).take(COUNT as usize).find(is_free).expect("a free port"))
}

/// A directory for rings that is gone at the end.
pub struct Root(PathBuf);

impl Root {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(PathBuf::from(format!("/dev/shm/headworks-interop-{}-{number}", std::process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The same command without any privilege.
pub fn as_ordinary_user(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    wrapped
}

/// A running `headworks serve`.
pub struct Appliance {
    child: Child,
    pub ports: Ports,
    pub root: Arc<Root>,
    log: Arc<Mutex<String>>,
}

impl Appliance {
    /// Starts with small rings, few streams, frames closed a second after their last byte, and `settings` on top.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_in(Arc::new(Root::new()), Ports::free(), settings)
    }

    /// The same, in a place and on ports that were used before.
    pub fn start_in(root: Arc<Root>, ports: Ports, settings: &[&str]) -> Self {
        let command = command(root.path(), ports, settings);
        Self::run(command, root, ports)
    }

    /// The same as somebody without any privilege.
    pub fn start_as_ordinary_user(settings: &[&str]) -> Self {
        let (root, ports) = (Arc::new(Root::new()), Ports::free());
        let own = command(root.path(), ports, settings);
        Self::run(as_ordinary_user(&own), root, ports)
    }

    /// The same in a network namespace, from where its control pages cannot be asked for.
    pub fn start_within(namespace: &str, settings: &[&str]) -> Self {
        let (root, ports) = (Arc::new(Root::new()), Ports::free());
        let own = command(root.path(), ports, settings);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(own.get_program()).args(own.get_args());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::run(command, root, ports)
    }

    fn run(mut command: Command, root: Arc<Root>, ports: Ports) -> Self {
        let mut child = command.spawn().expect("the appliance starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("piped");
        let into = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = into.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut banner = String::new();
        if !matches!(stdout.read_line(&mut banner), Ok(1..)) {
            let status = child.wait();
            std::thread::sleep(Duration::from_millis(100));
            panic!("the appliance did not start ({status:?}):\n{}", log.lock().unwrap());
        }
        std::thread::spawn(move || {
            let mut rest = String::new();
            let _ = stdout.read_to_string(&mut rest);
        });
        Self { child, ports, root, log }
    }

    /// A reader of a stream, from the oldest frame on.
    pub fn tap(&self, stream: &str) -> Tap {
        Tap::start(self.root.path(), stream)
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line of the log.
    pub fn wait_for_log(&self, text: &str, timeout: Duration) {
        let began = Instant::now();
        while !self.log().contains(text) {
            assert!(began.elapsed() < timeout, "the log never says {text:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The body of a control page.
    pub fn get(&self, path: &str) -> String {
        // Shards answer a moment before it listens.
        let began = Instant::now();
        let mut stream = loop {
            match TcpStream::connect(("127.0.0.1", self.ports.control)) {
                Ok(stream) => break stream,
                Err(error) => assert!(began.elapsed() < START_MAX, "control does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("control answers");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    /// The value of a metric, all labels added up.
    pub fn metric(&self, name: &str) -> f64 {
        self.get("/metrics")
            .lines()
            .filter(|line| line.starts_with(name) && line[name.len()..].starts_with([' ', '{']))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Memory of the process in KiB: `VmRSS`, or `RssAnon`, without rings and packet memory.
    pub fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("such a field");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM; gives the status and how long it took.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        signal(&self.child, "TERM");
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status, began.elapsed());
            }
            assert!(began.elapsed() < START_MAX, "the appliance does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("-- the appliance's log:\n{}--", self.log());
        }
    }
}

/// Sends a signal to a process of this test.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().expect("kill");
    assert!(status.success());
}

/// `headworks serve`, not yet running.
pub fn command(root: &Path, ports: Ports, settings: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("serve").env("NO_COLOR", "1").env_remove("HEADWORKS_LOG");
    command.args(["--set", &format!("output.root={}", root.display())]);
    for setting in ports.settings() {
        command.args(["--set", &setting]);
    }
    for setting in [
        "ingestion.max_connections=8",
        "ingestion.buffer.pool_size=4",
        // Small rings are made fast, on a busy machine too.
        "ingestion.frame.max_frame_size=1048576",
        "ingestion.srt.max_bandwidth=20000000",
        "ingestion.frame.assembly_timeout=1s",
    ] {
        command.args(["--set", setting]);
    }
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command that must end by itself; gives its status and what it said on standard error.
pub fn must_end(command: &mut Command) -> (ExitStatus, String) {
    let mut child = command.spawn().expect("it starts");
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if began.elapsed() > START_MAX {
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            panic!("it goes on: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}
