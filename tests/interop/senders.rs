//! Senders: plain sockets for RTP and raw UDP, libsrt's own tool for SRT. All of them send exactly the bytes they are given.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::appliance::signal;

/// Seven transport packets.
pub const DATAGRAM: usize = 1_316;
/// Fast enough to be short, slow enough for a busy machine.
const BITS_PER_SECOND: f64 = 8e6;
/// Latency of SRT in these tests: generous, because the machine may be busy with other things.
pub const SRT_LATENCY_MS: u32 = 600;

/// Calls `send` with each piece at its time.
fn paced(bits_per_second: f64, bytes: &[u8], mut send: impl FnMut(usize, &[u8])) {
    let began = Instant::now();
    let len = datagram_len(bytes);
    for (index, piece) in bytes.chunks(len).enumerate() {
        let due = began + Duration::from_secs_f64((index * len * 8) as f64 / bits_per_second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        send(index, piece);
    }
}

/// Whole transport packets: seven of 188 or 192 bytes, six of 204.
fn datagram_len(bytes: &[u8]) -> usize {
    match bytes {
        _ if bytes.get(4) == Some(&0x47) && bytes.get(4 + 192) == Some(&0x47) => 7 * 192,
        _ if bytes.get(204) == Some(&0x47) && bytes.get(188) != Some(&0x47) => 6 * 204,
        _ => DATAGRAM,
    }
}

/// So many datagrams' worth of transport packets without content.
pub fn null_packets(datagrams: usize) -> Vec<u8> {
    let mut packet = [0xff; 188];
    packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    packet.repeat(datagrams * DATAGRAM / 188)
}

/// A socket on the loopback.
pub fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a port")
}

/// Raw transport packets over UDP.
pub fn send_udp(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    paced(BITS_PER_SECOND, bytes, |_, piece| assert_eq!(socket.send_to(piece, to).expect("sent"), piece.len()));
}

/// Transport packets over RTP with payload type 33 (RFC 2250); the sequence number wraps on the way.
pub fn send_rtp(socket: &UdpSocket, bytes: &[u8], to: SocketAddr, ssrc: u32) {
    let mut datagram = Vec::with_capacity(12 + DATAGRAM);
    paced(BITS_PER_SECOND, bytes, |index, piece| {
        datagram.clear();
        datagram.extend([0x80, 33]);
        datagram.extend(65_300_u16.wrapping_add(index as u16).to_be_bytes());
        let timestamp = (index * DATAGRAM * 8) as f64 / BITS_PER_SECOND * 90_000.0;
        datagram.extend(0xffff_f000_u32.wrapping_add(timestamp as u32).to_be_bytes());
        datagram.extend(ssrc.to_be_bytes());
        datagram.extend(piece);
        socket.send_to(&datagram, to).expect("sent");
    });
}

/// A tool that sends by SRT what comes on its standard input: `srt-live-transmit`, unless another is given.
pub struct SrtSender {
    pub child: Child,
    said: Arc<Mutex<String>>,
    /// What it says once there is a connection.
    connected: &'static str,
}

impl SrtSender {
    /// Calls `127.0.0.1:port`; `query` goes on the end of the URL.
    pub fn start(port: u16, query: &str) -> Self {
        Self::with_latency(port, SRT_LATENCY_MS, query)
    }

    /// The same with a latency of its own.
    pub fn with_latency(port: u16, latency_ms: u32, query: &str) -> Self {
        Self::to(SocketAddr::from(([127, 0, 0, 1], port)), latency_ms, query)
    }

    /// Calls a listener anywhere.
    pub fn to(listener: SocketAddr, latency_ms: u32, query: &str) -> Self {
        Self::with_options(&[], listener, latency_ms, query)
    }

    /// The same with further options of the tool.
    pub fn with_options(options: &[&str], listener: SocketAddr, latency_ms: u32, query: &str) -> Self {
        Self::at(options, &format!("srt://{listener}?latency={latency_ms}&{query}"), "SRT target connected")
    }

    /// Waits to be called at `127.0.0.1:port`.
    pub fn listen(port: u16, query: &str) -> Self {
        let url = format!("srt://127.0.0.1:{port}?mode=listener&latency={SRT_LATENCY_MS}&{query}");
        Self::at(&[], &url, "Accepted SRT target connection")
    }

    /// Calls `127.0.0.2:port` from `127.0.0.1:port`, and waits to be called by it.
    pub fn meet(port: u16, query: &str) -> Self {
        let [own, peer] = [1, 2].map(|host| SocketAddr::from(([127, 0, 0, host], port)));
        Self::meet_at(own, peer, SRT_LATENCY_MS, query)
    }

    /// The same at any two addresses, whose port is one.
    pub fn meet_at(own: SocketAddr, peer: SocketAddr, latency_ms: u32, query: &str) -> Self {
        let url = format!("srt://{peer}?mode=rendezvous&adapter={}&latency={latency_ms}&{query}", own.ip());
        Self::at(&[], &url, "SRT target connected")
    }

    fn at(options: &[&str], url: &str, connected: &'static str) -> Self {
        let mut command = Command::new("srt-live-transmit");
        command.args(["-a:no", &format!("-chunk:{DATAGRAM}")]).args(options).args(["file://con", url]);
        Self::run(&mut command, connected)
    }

    /// Another tool, and what it says once there is a connection.
    pub fn run(command: &mut Command, connected: &'static str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said = Arc::default();
        listen(child.stdout.take().expect("piped"), &said);
        listen(child.stderr.take().expect("piped"), &said);
        Self { child, said, connected }
    }

    /// Waits for the connection: what is sent before falls to the floor.
    pub fn wait_for_connection(&self) {
        let began = Instant::now();
        while !self.said().contains(self.connected) {
            assert!(began.elapsed() < Duration::from_secs(10), "no connection: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends at the usual pace.
    pub fn send(&mut self, bytes: &[u8]) {
        self.send_at(BITS_PER_SECOND, bytes);
    }

    /// Sends at another one.
    pub fn send_at(&mut self, bits_per_second: f64, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        paced(bits_per_second, bytes, |_, piece| stdin.write_all(piece).expect("srt-live-transmit takes it"));
    }

    /// Goes on with null packets until the tool says something.
    pub fn send_nothing_until(&mut self, text: &str) {
        let began = Instant::now();
        while !self.said().contains(text) {
            assert!(began.elapsed() < Duration::from_secs(10), "it never says {text:?}: {}", self.said());
            // When it has ended nobody takes them.
            let _ = self.child.stdin.as_mut().expect("piped").write_all(&null_packets(1));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the session once everything has arrived.
    pub fn finish(mut self) {
        // The tool keeps the last pieces of its input back; null packets push them out.
        self.send(&null_packets(40));
        // What is under way is lost when the caller closes.
        std::thread::sleep(Duration::from_millis(u64::from(SRT_LATENCY_MS) + 300));
        // At the end of its input it keeps the connection; while it waits for input it hears no signal.
        drop(self.child.stdin.take());
        signal(&self.child, "TERM");
        self.wait(Duration::from_secs(3));
    }

    /// Waits for it to give up, and gives what it said.
    pub fn refused(mut self) -> String {
        self.wait(Duration::from_secs(8));
        self.said()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn wait(&mut self, most: Duration) {
        let began = Instant::now();
        while self.child.try_wait().expect("a child").is_none() && began.elapsed() < most {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for SrtSender {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listen(pipe: impl Read + Send + 'static, into: &Arc<Mutex<String>>) {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut said = into.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
}

/// Sends a whole stream over SRT.
pub fn send_srt(port: u16, query: &str, bytes: &[u8]) {
    let mut sender = SrtSender::start(port, query);
    sender.wait_for_connection();
    sender.send(bytes);
    sender.finish();
}
