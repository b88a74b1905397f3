//! SRT callers of the tests' own, on one thread: they choose their socket ids, may share a socket, send in bursts, and go to
//! other sockets while they send.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use headworks::base::{Datagram, Instant};
use headworks::cli::send::material::{Cursor, DATAGRAM_LEN, Material, PesPackets};
use headworks::cli::send::synthetic;
use headworks::protocol::srt::caller::{self, Caller, CallerEncryption, CallerSettings};
use headworks::protocol::srt::connection::{CloseReason, Connection, Limits};
use headworks::protocol::srt::encryption::{Cipher, KeyLength, KeyRefresh, SALT_LEN, derive_key_encrypting_key};
use headworks::protocol::srt::packet::{HEADER_LEN, SequenceNumber};
use headworks::protocol::srt::stream_id::StreamId;
use headworks::shard::clock::Clock;
use headworks::shard::net::outbound::{Outbound, OutboundOptions, OutboundSocket};

/// No call, and no acknowledgement, takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a full packet on the wire.
const PACKET_LEN: usize = HEADER_LEN + DATAGRAM_LEN;
/// Of a caller's full packets every so many is overtaken …
const OVERTAKEN_EVERY: u64 = 16;
/// … by so many.
const OVERTAKEN_BY: usize = 3;

enum Stage {
    Calling(Box<Caller>),
    Running(Box<Connection>),
    /// Killed: it says nothing any more.
    Killed,
}

struct Feed {
    stage: Stage,
    socket: usize,
    cursor: Cursor,
    started: Instant,
    bytes: u64,
    is_complete: bool,
    full_packets: u64,
    /// A packet on a longer way, and how many have overtaken it.
    overtaken: Option<(Vec<u8>, usize)>,
}

/// All callers.
pub struct Callers {
    net: Outbound,
    peer: SocketAddr,
    material: Rc<Material>,
    feeds: Vec<Feed>,
    latency_ms: u16,
    /// Packets that leave as one, cut apart by the kernel on their way.
    burst: usize,
    burst_bytes: Vec<u8>,
    burst_socket: usize,
    is_reordered: bool,
    buffer: Vec<u8>,
}

impl Callers {
    /// Nobody yet. All will ask for this latency, and send so many bits per second each.
    pub fn new(peer: SocketAddr, latency: Duration, rate_bps: u64) -> Self {
        let options = OutboundOptions { slots: 1_024, credit: 256, aggregates: true };
        Self {
            net: Outbound::new(options).expect("a ring and its memory"),
            peer,
            material: Rc::new(synthetic::material(rate_bps).expect("a rate that can be had")),
            feeds: Vec::new(),
            latency_ms: latency.as_millis() as u16,
            burst: 1,
            burst_bytes: Vec::new(),
            burst_socket: 0,
            is_reordered: false,
            buffer: Vec::new(),
        }
    }

    /// Sends so many packets at a time from now on, of all callers of a socket by turns.
    pub fn send_in_bursts_of(&mut self, packets: usize) {
        self.burst = packets;
    }

    /// From now on packets come out of order, and none is lost.
    pub fn reorder(&mut self) {
        self.is_reordered = true;
    }

    /// A socket of its own.
    pub fn open(&mut self) -> usize {
        self.open_at([127, 0, 0, 1])
    }

    fn open_at(&mut self, address: [u8; 4]) -> usize {
        let bind = SocketAddr::from((address, 0));
        self.net.open(&OutboundSocket { bind, ..OutboundSocket::to(self.peer) }).expect("a port").0
    }

    /// One more caller; gives its number. Of those with a passphrase every other one uses AES-GCM.
    pub fn call(&mut self, stream: &str, socket_id: u32, passphrase: Option<&str>, socket: usize) -> usize {
        let now = Clock::now();
        let salt = [socket_id as u8 | 1; SALT_LEN];
        let encryption = passphrase.map(|passphrase| CallerEncryption {
            key_encrypting_key: derive_key_encrypting_key(passphrase.as_bytes(), &salt, KeyLength::Aes128),
            cipher: if self.feeds.len() % 4 < 2 { Cipher::AesCtr } else { Cipher::AesGcm },
            salt,
            key_seed: [socket_id as u8 | 1; 32],
            key_refresh: KeyRefresh::default(),
        });
        let settings = CallerSettings {
            encryption,
            send_latency_ms: self.latency_ms,
            stream_id: StreamId::new(stream).expect("well-formed"),
            timeout: PATIENCE,
            ..CallerSettings::new(self.peer, socket_id, SequenceNumber::new(u64::from(socket_id) * 7_919))
        };
        self.feeds.push(Feed {
            stage: Stage::Calling(Box::new(Caller::new(now, settings))),
            socket,
            cursor: Cursor::new(),
            started: now,
            bytes: 0,
            is_complete: false,
            full_packets: 0,
            overtaken: None,
        });
        self.feeds.len() - 1
    }

    /// A caller is killed; others may share its socket.
    pub fn kill(&mut self, feed: usize) {
        self.feeds[feed].stage = Stage::Killed;
    }

    /// A caller goes to another socket, as behind a router that gives it another mapping; nothing comes by the old one any more.
    pub fn move_to_new_socket(&mut self, feed: usize) {
        self.move_to(feed, [127, 0, 0, 1]);
    }

    /// The same at another address.
    pub fn move_to(&mut self, feed: usize, address: [u8; 4]) {
        let socket = self.open_at(address);
        let old = std::mem::replace(&mut self.feeds[feed].socket, socket);
        self.net.close(old);
    }

    /// Sends for so long, from when all are connected.
    pub fn run(&mut self, duration: Duration) {
        let called_at = Clock::now();
        while self.feeds.iter().any(|feed| matches!(feed.stage, Stage::Calling(_))) {
            assert!(Clock::now().saturating_since(called_at) < PATIENCE, "nobody answers");
            self.turn(None);
        }
        let end = Clock::now() + duration;
        while Clock::now() < end {
            self.turn(None);
        }
    }

    /// Ends all as soon as no picture and no sound is cut, waits until all is acknowledged, and says goodbye. Gives the PES packets that
    /// each has sent.
    pub fn finish(mut self) -> Vec<PesPackets> {
        let ends_at = Clock::now();
        loop {
            self.turn(Some(ends_at));
            let is_done = |feed: &Feed| match &feed.stage {
                Stage::Running(connection) => feed.is_complete && connection.statistics().pkt_snd_buf == 0,
                Stage::Calling(_) => false,
                Stage::Killed => true,
            };
            if self.feeds.iter().all(is_done) {
                break;
            }
            let waited = Clock::now().saturating_since(ends_at);
            assert!(waited < PATIENCE, "not all that was sent is acknowledged");
        }
        // Who hears of the end at once would throw away what it still holds.
        let goodbye_at = Clock::now() + Duration::from_millis(u64::from(self.latency_ms) + 500);
        while Clock::now() < goodbye_at {
            self.turn(Some(ends_at));
        }
        for feed in &mut self.feeds {
            if let Stage::Running(connection) = &mut feed.stage {
                connection.close(Clock::now(), CloseReason::Local);
            }
        }
        self.turn(Some(ends_at));
        self.feeds.iter().map(|feed| self.material.pes_packets(feed.bytes)).collect()
    }

    /// Does what is due and sleeps for a millisecond at most.
    fn turn(&mut self, ends_at: Option<Instant>) {
        let now = Clock::now();
        let mut arrived = Vec::new();
        self.net.drain(|incoming| arrived.push(incoming)).expect("a ring that works");
        for incoming in arrived {
            let socket = incoming.token as usize;
            let id = incoming.packet.get(12..16).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
            for feed in self.feeds.iter_mut().filter(|feed| feed.socket == socket) {
                match &mut feed.stage {
                    Stage::Calling(caller) => caller.receive(now, self.peer, &incoming.packet),
                    Stage::Running(connection) if id == Some(connection.parameters().socket_id) => {
                        let packet = incoming.packet.clone();
                        let peer = self.peer;
                        connection
                            .receive(now, Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: now });
                    }
                    Stage::Running(_) | Stage::Killed => {}
                }
            }
        }
        // By turns, so that the packets of callers that share a socket stand side by side.
        let mut has_sent = true;
        while std::mem::take(&mut has_sent) {
            for index in 0..self.feeds.len() {
                has_sent |= self.serve(now, index, ends_at);
            }
        }
        if ends_at.is_some() {
            self.flush_burst();
        }
        self.net.wait(now, now + Duration::from_millis(1), true).expect("a ring that works");
    }

    /// One datagram of media at most, and all control packets. Whether there was media.
    fn serve(&mut self, now: Instant, index: usize, ends_at: Option<Instant>) -> bool {
        let material = Rc::clone(&self.material);
        let feed = &mut self.feeds[index];
        let mut has_sent = false;
        match &mut feed.stage {
            Stage::Killed => return false,
            Stage::Calling(caller) => {
                caller.handle_timeout(now);
                self.buffer.clear();
                while caller.poll_transmit(now, &mut self.buffer).is_some() {
                    self.net.send(feed.socket, &self.buffer);
                    self.buffer.clear();
                }
                match caller.poll_event() {
                    None => {}
                    Some(caller::Event::Failed(error)) => panic!("caller {index}: {error}"),
                    Some(caller::Event::Connected(parameters)) => {
                        assert_eq!(parameters.send_latency_ms, self.latency_ms, "as much as was asked for");
                        let limits = Limits {
                            receive_buffer_packets: 64,
                            send_buffer_packets: 8_192,
                            peer_idle_timeout: PATIENCE,
                            ..Limits::default()
                        };
                        feed.stage = Stage::Running(Box::new(Connection::new(now, *parameters, limits)));
                        feed.started = now;
                    }
                }
                return false;
            }
            Stage::Running(connection) => {
                let due = feed.started + Duration::from_nanos(feed.cursor.due_ns(&material));
                if due <= now && !feed.is_complete && !connection.is_send_buffer_full() {
                    let last = ends_at.filter(|&at| due >= at).and_then(|_| feed.cursor.clean_end(&material));
                    let mut payload = [0; DATAGRAM_LEN];
                    let length = match last {
                        Some(0) => 0,
                        Some(length) => feed.cursor.take(&material, &mut payload).min(length),
                        None => feed.cursor.take(&material, &mut payload),
                    };
                    feed.is_complete = last.is_some();
                    feed.bytes += length as u64;
                    if length > 0 {
                        connection.send(now, &payload[..length]).expect("room, as was asked for");
                    }
                    has_sent = true;
                }
                if connection.next_timeout().is_some_and(|at| at <= now) {
                    connection.handle_timeout(now);
                }
                connection.gauge();
            }
        }
        loop {
            self.buffer.clear();
            let feed = &mut self.feeds[index];
            let (socket, Stage::Running(connection)) = (feed.socket, &mut feed.stage) else { return has_sent };
            if connection.poll_transmit(now, &mut self.buffer).is_none() {
                return has_sent;
            }
            if self.is_reordered {
                self.transmit_out_of_order(index, ends_at.is_some());
            } else {
                self.transmit(socket);
            }
        }
    }

    fn transmit_out_of_order(&mut self, index: usize, ends: bool) {
        let feed = &mut self.feeds[index];
        if self.buffer.len() == PACKET_LEN && !ends {
            feed.full_packets += 1;
            if feed.full_packets.is_multiple_of(OVERTAKEN_EVERY) {
                feed.overtaken = Some((std::mem::take(&mut self.buffer), 0));
                return;
            }
        }
        self.net.send(feed.socket, &self.buffer);
        if let Some((packet, by)) = &mut feed.overtaken {
            *by += usize::from(self.buffer.len() == PACKET_LEN);
            if *by == OVERTAKEN_BY || ends {
                self.net.send(feed.socket, packet);
                feed.overtaken = None;
            }
        }
    }

    fn transmit(&mut self, socket: usize) {
        if self.burst == 1 || self.buffer.len() != PACKET_LEN {
            return self.net.send(socket, &self.buffer);
        }
        if self.burst_socket != socket {
            self.flush_burst();
        }
        self.burst_socket = socket;
        self.burst_bytes.extend_from_slice(&self.buffer);
        if self.burst_bytes.len() == self.burst * PACKET_LEN {
            self.flush_burst();
        }
    }

    fn flush_burst(&mut self) {
        if !self.burst_bytes.is_empty() {
            self.net.send_aggregate(self.burst_socket, PACKET_LEN as u16, &self.burst_bytes);
            self.burst_bytes.clear();
        }
    }
}
