//! The appliance as a service manager sees it: what it tells, and the sockets that it leaves to its successor.

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};

/// One at a time, because a child of another test would inherit what is meant for this one's.
static STARTING: Mutex<()> = Mutex::new(());

/// A service manager with one service, on ports and rings of its own.
struct Manager {
    root: tempfile::TempDir,
    socket: UnixDatagram,
    ports: [u16; 5],
    store: BTreeMap<String, OwnedFd>,
}

impl Manager {
    fn new() -> Self {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let socket = UnixDatagram::bind(root.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // Held all at once, so that they differ.
        let udp: Vec<_> = (0..4).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = |i: usize| udp[i].local_addr().unwrap().port();
        let ports = [port(0), port(1), port(2), port(3), tcp.local_addr().unwrap().port()];
        Self { root, socket, ports, store: BTreeMap::new() }
    }

    /// Starts the service with everything in the store, as systemd does; its log goes to a file.
    fn start(&self, watchdog_us: Option<u32>, more: &[&str]) -> Child {
        let _alone = STARTING.lock().unwrap();
        // Beyond the numbers that they are to get.
        let stored: Vec<OwnedFd> =
            self.store.values().map(|socket| fcntl_dupfd_cloexec(socket, 100).unwrap()).collect();
        for socket in &stored {
            rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
        }
        let places = stored.iter().enumerate().map(|(i, socket)| format!("{}<&{1} {1}<&-", 3 + i, socket.as_raw_fd()));
        let places = places.collect::<Vec<_>>().join(" ");
        let names = self.store.keys().cloned().collect::<Vec<_>>().join(":");
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec {places} && export LISTEN_PID=$$ && exec \"$@\"")]);
        command.args(["service", env!("CARGO_BIN_EXE_headworks"), "serve"]);
        let [srt, rtp, rtcp, stream, control] = self.ports;
        for assignment in [
            format!("output.root={}", self.root.path().join("rings").display()),
            format!("ingestion.srt.port={srt}"),
            format!("ingestion.rtp.port={rtp}"),
            format!("ingestion.rtp.rtcp_port={rtcp}"),
            format!("streams.cam1.rtp.port={stream}"),
            "streams.cam1.rtp.address=127.0.0.1".to_owned(),
            format!("control.listen=127.0.0.1:{control}"),
            "ingestion.max_connections=1".to_owned(),
            "ingestion.srt.max_bandwidth=1000000".to_owned(),
        ] {
            command.args(["--set", &assignment]);
        }
        if let Some(watchdog_us) = watchdog_us {
            command.env("WATCHDOG_USEC", watchdog_us.to_string());
        }
        command
            .args(more)
            .env("NOTIFY_SOCKET", self.root.path().join("notify"))
            .env("LISTEN_FDS", stored.len().to_string())
            .env("LISTEN_FDNAMES", names)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.log()).unwrap());
        command.spawn().unwrap()
    }

    fn log(&self) -> PathBuf {
        self.root.path().join("log")
    }

    /// The next thing that the service tells, acted upon.
    fn told(&mut self) -> String {
        let mut bytes = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let length = recvmsg(&self.socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .unwrap_or_else(|error| panic!("{error}: {}", std::fs::read_to_string(self.log()).unwrap()))
            .bytes;
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        if text.starts_with("FDSTORE=1\nFDPOLL=0\n") {
            self.store.insert(name.unwrap().to_owned(), descriptor.unwrap());
        } else if text.starts_with("FDSTOREREMOVE=1\n") {
            self.store.remove(name.unwrap());
        }
        text
    }

    /// Everything told up to and with `last`.
    fn told_until(&mut self, last: &str) -> Vec<String> {
        let mut all = Vec::new();
        while all.last().is_none_or(|told| told != last) {
            all.push(self.told());
        }
        all
    }

    /// The names in the store without their sums.
    fn stored(&self) -> Vec<&str> {
        self.store.keys().map(|name| name.rsplit_once('-').unwrap().0).collect()
    }

    /// Datagrams that all shards have taken in.
    fn datagrams(&self) -> u64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[4])).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let counted = text.lines().filter(|line| line.starts_with("headworks_shard_datagrams_total{"));
        counted.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }
}

fn signal(service: &Child, signal: Signal) {
    kill_process(Pid::from_child(service), signal).unwrap();
}

#[test]
fn a_service_manager_is_told_of_the_start_of_every_shards_turns_and_of_the_end() {
    let mut manager = Manager::new();
    let mut service = manager.start(Some(200_000), &[]);
    manager.told_until("READY=1");
    let ready = Instant::now();
    for _ in 0..5 {
        assert_eq!(manager.told(), "WATCHDOG=1");
    }
    assert!(ready.elapsed() >= Duration::from_millis(400), "twice per period, not more");
    signal(&service, Signal::TERM);
    let told = manager.told_until("STOPPING=1");
    assert!(told[..told.len() - 1].iter().all(|told| told == "WATCHDOG=1"), "{told:?}");
    assert_eq!(service.wait().unwrap().code(), Some(0));
}

#[test]
fn a_restart_loses_nothing_that_came_in_meanwhile_and_sockets_that_do_not_fit_any_more_are_let_go() {
    let mut manager = Manager::new();
    let mut first = manager.start(None, &["--set", "shards.cores=[0]"]);
    let told = manager.told_until("READY=1");
    assert_eq!(told.len(), 6, "{told:?}");
    assert_eq!(manager.stored(), ["rtcp-0", "rtp-0", "srt-0", "stream-0", "stream-rtcp-0"]);
    assert_eq!(manager.datagrams(), 0);
    signal(&first, Signal::KILL);
    first.wait().unwrap();

    let [srt, rtp, rtcp, stream, _] = manager.ports;
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    // A ring outlives its process by some milliseconds, and would take them along.
    std::thread::sleep(Duration::from_millis(300));
    for port in [srt, rtp, rtcp, stream] {
        for n in 0..25 {
            sender.send_to(&[n; 700], ("127.0.0.1", port)).unwrap();
        }
    }
    let mut second = manager.start(None, &["--set", "shards.cores=[0]"]);
    assert_eq!(manager.told_until("READY=1"), ["READY=1"], "they are in the store already");
    let began = Instant::now();
    while manager.datagrams() < 100 {
        assert!(began.elapsed() < Duration::from_secs(10), "{} of 100", manager.datagrams());
        std::thread::sleep(Duration::from_millis(20));
    }
    sender.send_to(&[0; 700], ("127.0.0.1", rtp)).unwrap();
    while manager.datagrams() < 101 {
        assert!(began.elapsed() < Duration::from_secs(10), "{} of 101", manager.datagrams());
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&second, Signal::TERM);
    manager.told_until("STOPPING=1");
    assert_eq!(second.wait().unwrap().code(), Some(0));
    let log = std::fs::read_to_string(manager.log()).unwrap();
    assert!(log.contains("SRT: goes on with what the kernel has taken in"), "{log}");

    // Other buffers for all but RTCP, and no SRT: four of five names are new or gone.
    let old: Vec<String> = manager.store.keys().cloned().collect();
    let changed =
        ["--set", "shards.cores=[0]", "--set", "shards.socket_buffer=4194304", "--set", "ingestion.srt.enabled=false"];
    let mut third = manager.start(None, &changed);
    let told = manager.told_until("READY=1");
    let removed: Vec<String> = ["rtp-0", "srt-0", "stream-0", "stream-rtcp-0"]
        .iter()
        .map(|role| old.iter().find(|name| name.rsplit_once('-').unwrap().0 == *role).unwrap())
        .map(|name| format!("FDSTOREREMOVE=1\nFDNAME={name}"))
        .collect();
    assert_eq!(told[..4], removed);
    assert_eq!(told[4], "BARRIER=1");
    assert_eq!(manager.stored(), ["rtcp-0", "rtp-0", "stream-0", "stream-rtcp-0"]);
    assert!(manager.store.keys().filter(|name| !old.contains(name)).count() == 3, "{:?}", manager.store.keys());
    let log = std::fs::read_to_string(manager.log()).unwrap();
    assert!(
        log.contains(&format!("{}, kept from the last run, does not fit", removed[0].rsplit('=').next().unwrap())),
        "{log}"
    );
    signal(&third, Signal::TERM);
    manager.told_until("STOPPING=1");
    assert_eq!(third.wait().unwrap().code(), Some(0));
}
