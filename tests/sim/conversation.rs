//! A conversation in virtual time: one connection sends through two bad links to another, and what comes out is held against
//! what went in.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use headworks::base::{Datagram, Instant};
use headworks::protocol::srt::connection::{CloseReason, Connection, Event, Limits};
use headworks::protocol::srt::control::{Acknowledgement, Control, ControlWriter};
use headworks::protocol::srt::encryption::{
    Cipher, Encryption, KeyLength, KeyMaterialState, KeyRefresh, SALT_LEN, derive_key_encrypting_key,
};
use headworks::protocol::srt::fec::configuration::Fec;
use headworks::protocol::srt::packet::{self, HEADER_LEN, Header, SequenceNumber};
use headworks::protocol::srt::parameters::{ConnectionParameters, Features, PeerTimeBase, Role, VERSION};
use headworks::protocol::srt::statistics::Statistics;
use headworks::protocol::srt::stream_id::StreamId;
use headworks::protocol::srt::transmission_mode::TransmissionMode;

use crate::call::call;
use crate::link::{Conditions, Count, InFlight, Link, MS, PORT};
use crate::random::Random;
use crate::recovery::Recovery;
use crate::twin::Machine;

/// What is played.
#[derive(Clone, Debug)]
pub struct Script {
    pub seed: u64,
    /// From the sender to the receiver, and back.
    pub there: Conditions,
    pub back: Conditions,
    pub latency_ms: u16,
    pub packets: u64,
    /// Between two packets, in ns.
    pub interval: u64,
    pub initial_sequence: u64,
    /// What the sender's clock shows when the conversation begins, in µs.
    pub initial_timestamp_us: u32,
    /// How much faster the sender's clock runs than the receiver's, per million.
    pub drift_ppm: i64,
    /// The receiver looks at its datagrams and timers once in so many ns.
    pub turn: u64,
    pub receive_buffer_packets: usize,
    /// How many packets a gap is given to close by itself, at most.
    pub reorder_tolerance: u16,
    /// When both connections are put down as bytes and taken up again, in ns since the first payload, and how.
    pub upgrades: Vec<(u64, Upgrade)>,
    /// Datagrams of noise thrown at the receiver from the sender's address, per million packets.
    pub noise: u32,
    /// When the sender goes to another port, in ns since the first payload; what is on its way to the old one is lost.
    pub moves: Vec<u64>,
    /// Packets of the sender, per million, whose bytes somebody throws at the receiver from elsewhere too, before they arrive themselves.
    pub forgeries: u32,
    /// Where from.
    pub forger: Forger,
    /// Encrypted, with keys of this length, changed every so many packets.
    pub encryption: Option<(Cipher, KeyLength, u64)>,
    /// Payloads are taken before they are due, as long as none is missing before them.
    pub early: bool,
    /// The packet filter.
    pub filter: Option<Fec>,
    /// Begins with a handshake; then the initial time stamp is that of the caller, zero.
    pub handshake: bool,
    /// It is one of version 4, after which the sender says the rest.
    pub version4: bool,
}

/// What becomes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// It takes the place of the connection, at this step of a turn.
    Replace(u8),
    /// It goes on beside the connection, and must do the same.
    Beside(u8),
}

/// Steps of a turn that a snapshot may be taken between.
pub const STEPS: u8 = 5;

/// Who sees the sender's packets and wants its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forger {
    /// Sends from an address of others each time.
    Blind,
    /// Sends from one of its own, and answers what it is asked there.
    Answering,
}

/// More control packets than any filter here holds.
const FILTER_GROUPS_MAX: usize = 512;

/// The port of the one who answers; those of others lie above it.
const FORGER_PORT: u16 = 20_000;

impl Default for Script {
    fn default() -> Self {
        let path = Conditions { delay: 15 * MS, ..Conditions::default() };
        Self {
            seed: 1,
            there: path.clone(),
            back: path,
            latency_ms: 500,
            packets: 4_000,
            interval: MS,
            initial_sequence: 1_000,
            initial_timestamp_us: 0,
            drift_ppm: 0,
            turn: MS / 2,
            receive_buffer_packets: 4_096,
            reorder_tolerance: 0,
            upgrades: Vec::new(),
            noise: 0,
            moves: Vec::new(),
            forgeries: 0,
            forger: Forger::Blind,
            encryption: None,
            early: false,
            filter: None,
            handshake: false,
            version4: false,
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub delivered: u64,
    /// Told by `lost_before`.
    pub lost: u64,
    /// How far due times lay from the ideal ones, in ns: the extremes.
    pub due_error: (i64, i64),
    /// The longest that a payload was handed up after it was due, in ns.
    pub latest: u64,
    pub most_held: usize,
    pub jumps: u64,
    /// Times that both connections were put down and taken up again.
    pub upgrades: u64,
    /// Ports of those that were challenged without being the sender.
    pub challenged: usize,
    /// Data packets and control packets of the filter that came, counted from the first; of the latter the index.
    pub arrivals: Vec<(u64, Option<u8>)>,
    pub receiver: Statistics,
    pub sender: Statistics,
}

/// The receiver's clock reads this when virtual time is zero.
const RECEIVER_EPOCH: u64 = 50_000 * MS;
/// The sender's clock; its connection began long enough ago to show the initial time stamp.
const SENDER_EPOCH: u64 = 10_000_000 * MS;

struct World {
    script: Script,
    /// Virtual time at which the first payload is handed in.
    begin: u64,
    /// How long the handshake that the time base comes from was on its way, by two clocks that have come apart since they began: less than
    /// nothing, if the sender's is fast and the way is short.
    base_delay: i64,
    sender: Machine,
    receiver: Machine,
    /// Not kept where a packet filter decides what is asked for, and brings what was not.
    recovery: Option<Recovery>,
    /// Handed to the links by the two connections, and come from them to the two.
    handed_there: Count,
    handed_back: Count,
    came_there: Count,
    came_back: Count,
    /// Later ones first.
    upgrades: Vec<(u64, Upgrade)>,
    there: Link,
    back: Link,
    noise: Random,
    in_flight: InFlight,
    posted: u64,
    buffer: Vec<u8>,
    submitted: Vec<u64>,
    outcome: Outcome,
    next_index: u64,
    last_delivery: Instant,
    drift_means: u64,
    /// Of the receiver when it handed up the last payload.
    jumps: u64,
    port: u16,
    /// Bytes from and to each port but the sender's.
    elsewhere: BTreeMap<u16, (usize, usize)>,
}

/// What the sender's clock shows at virtual time `now`.
fn sender_clock(script: &Script, now: u64) -> Instant {
    Instant::from_nanos(SENDER_EPOCH + (i128::from(now) * i128::from(1_000_000 + script.drift_ppm) / 1_000_000) as u64)
}

/// The virtual time at which it shows that.
fn from_sender_clock(script: &Script, at: Instant) -> u64 {
    let since = at.as_nanos().saturating_sub(SENDER_EPOCH);
    (i128::from(since) * 1_000_000 / i128::from(1_000_000 + script.drift_ppm)) as u64 + 1
}

/// What the receiver's clock shows at virtual time `now`.
fn receiver_clock(now: u64) -> Instant {
    Instant::from_nanos(RECEIVER_EPOCH + now)
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], PORT))
}

/// Keys are announced a third of their time before they change.
pub fn refresh(after_packets: u64) -> KeyRefresh {
    KeyRefresh { after_packets, announce_packets: after_packets / 3 }
}

/// The sender's keys and the receiver's, as their handshake would have left them.
fn keys(script: &Script) -> (Option<Encryption>, Option<Encryption>) {
    let Some((cipher, length, after_packets)) = script.encryption else { return (None, None) };
    let salt = [script.seed as u8; SALT_LEN];
    let refresh = refresh(after_packets);
    let kek = || derive_key_encrypting_key(b"correct horse", &salt, length);
    let (sending, message) = Encryption::initiate(kek(), cipher, salt, [7; 32], refresh);
    let receiving = Encryption::accept(kek(), &message, [8; 32], refresh);
    (Some(sending), receiving)
}

fn parameters(
    script: &Script,
    (from, to): (u8, u8),
    role: Role,
    start: Instant,
    encryption: Option<Encryption>,
) -> ConnectionParameters {
    ConnectionParameters {
        peer: address(to),
        local: None,
        interface: 0,
        role,
        mode: TransmissionMode::Live,
        socket_id: u32::from(from),
        peer_socket_id: u32::from(to),
        initial_sequence: SequenceNumber::new(script.initial_sequence),
        peer_initial_sequence: None,
        start,
        peer_time_base: PeerTimeBase {
            timestamp_us: script.initial_timestamp_us,
            arrival: Instant::from_nanos(RECEIVER_EPOCH + script.there.delay),
        },
        receive_latency_ms: script.latency_ms,
        send_latency_ms: script.latency_ms,
        mtu: 1_500,
        flow_window: script.receive_buffer_packets as u32,
        peer_flow_window: script.receive_buffer_packets as u32,
        peer_version: VERSION,
        peer_flags: 0xbf,
        features: Features::default(),
        key_state: if encryption.is_some() { KeyMaterialState::Secured } else { KeyMaterialState::Unsecured },
        encryption,
        packet_filter: script.filter,
        stream_id: StreamId::default(),
        address_secret: (role == Role::Receiver).then_some([3; 16]),
        version4: None,
    }
}

/// The bytes of payload `index`: its length and content follow from the index.
pub fn payload(index: u64) -> Vec<u8> {
    let mut random = Random::new(index);
    let length = if index.is_multiple_of(7) { random.between(1, 1_316) } else { 188 };
    let mut bytes: Vec<u8> = Vec::with_capacity(length as usize + 8);
    while bytes.len() < length as usize {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length as usize);
    bytes
}

impl World {
    fn new(script: Script) -> Self {
        let mut random = Random::new(script.seed);
        let mut there = Link::new(script.there.clone(), Random::new(random.next()));
        let mut back = Link::new(script.back.clone(), Random::new(random.next()));
        let mut begin = 0;
        let mut base_delay = script.there.delay as i64;
        let (sending, receiving) = if script.handshake {
            let clocks = (|now| sender_clock(&script, now), receiver_clock);
            let call = call(&script, &mut there, &mut back, (address(1), address(2)), clocks);
            begin = call.at;
            base_delay = call.conclusion_delay as i64;
            (call.caller, call.listener)
        } else {
            let start = Instant::from_nanos(SENDER_EPOCH - u64::from(script.initial_timestamp_us) * 1_000);
            let (sending, receiving) = keys(&script);
            (
                parameters(&script, (1, 2), Role::Sender, start, sending),
                parameters(&script, (2, 1), Role::Receiver, receiver_clock(0), receiving),
            )
        };
        let idle = Duration::from_secs(3_600);
        let limits = Limits { peer_idle_timeout: idle, receive_buffer_packets: 64, ..Limits::default() };
        let sender =
            Connection::new(sender_clock(&script, begin), sending, Limits { send_buffer_packets: 16_384, ..limits });
        let limits = Limits {
            receive_buffer_packets: script.receive_buffer_packets,
            reorder_tolerance: script.reorder_tolerance,
            ..limits
        };
        let receiver = Connection::new(receiver_clock(begin), receiving, limits);
        let mut upgrades = script.upgrades.clone();
        upgrades.sort_unstable_by_key(|&(at, _)| Reverse(at));
        Self {
            sender: Machine::new(sender, 16),
            receiver: Machine::new(
                receiver,
                script.receive_buffer_packets.next_power_of_two() + 16 + FILTER_GROUPS_MAX,
            ),
            recovery: script.filter.is_none().then(|| Recovery::new(&script)),
            handed_there: Count::default(),
            handed_back: Count::default(),
            came_there: Count::default(),
            came_back: Count::default(),
            upgrades,
            begin,
            base_delay,
            there,
            back,
            noise: Random::new(random.next()),
            script,
            in_flight: InFlight::new(),
            posted: 0,
            buffer: Vec::new(),
            submitted: Vec::new(),
            outcome: Outcome::default(),
            next_index: 0,
            last_delivery: Instant::ZERO,
            drift_means: 0,
            jumps: 0,
            port: PORT,
            elsewhere: BTreeMap::new(),
        }
    }

    fn round_up(&self, at: u64) -> u64 {
        let turn = self.script.turn;
        if turn == 0 { at } else { at.div_ceil(turn) * turn }
    }

    fn post(&mut self, at: u64, to_receiver: bool, port: u16, bytes: Vec<u8>) {
        self.posted += 1;
        self.in_flight.push(Reverse((at, self.posted, to_receiver, port, bytes)));
    }

    /// With version 4 of the handshake: until the receiver knows of the sender what it must know.
    fn introduce(&mut self) {
        let began = self.begin;
        while !self.sender.is_introduced() {
            let now = self.begin;
            assert!(now < began + 60_000 * MS, "the sender was not answered for a minute");
            while let Some(Reverse((at, ..))) = self.in_flight.peek()
                && *at <= now
            {
                let Some(Reverse((at, _, to_receiver, port, bytes))) = self.in_flight.pop() else { break };
                self.arrive(now, at, to_receiver, port, &bytes);
            }
            self.sender.handle_timeout(sender_clock(&self.script, now));
            self.flush_sender(now);
            self.receiver.handle_timeout(receiver_clock(now));
            self.deliver(now);
            self.flush_receiver(now);
            self.begin += MS;
        }
        let PeerTimeBase { timestamp_us, arrival } = self.receiver.parameters().peer_time_base;
        self.base_delay = (arrival.as_nanos() - RECEIVER_EPOCH) as i64 - i64::from(timestamp_us) * 1_000;
    }

    fn run(mut self) -> Outcome {
        if self.script.version4 {
            self.introduce();
        }
        let interval = self.script.interval;
        let last_send = self.begin + interval * self.script.packets;
        let latency = u64::from(self.script.latency_ms) * MS;
        let end = last_send + latency + 1_200 * MS + 4 * (self.script.there.delay + self.script.back.delay);
        let mut next_send = self.begin;
        let mut now = self.begin;
        while now < end {
            let moves = self.script.moves.iter().filter(|&&at| self.begin + at <= now).count();
            self.port = PORT + moves as u16;
            // What the sender hands in.
            while next_send <= now && (self.submitted.len() as u64) < self.script.packets {
                let bytes = payload(self.submitted.len() as u64);
                let clock = sender_clock(&self.script, now);
                self.sender.send(clock, &bytes).expect("the send buffer holds a second and more");
                self.submitted.push(now);
                next_send += interval;
            }
            self.upgrade(now, 0);
            let mut receiver_turn = self.receiver.next_timeout().is_some_and(|at| at <= receiver_clock(now));
            while let Some(Reverse((at, ..))) = self.in_flight.peek()
                && *at <= now
            {
                let Some(Reverse((at, _, to_receiver, port, bytes))) = self.in_flight.pop() else { break };
                self.arrive(now, at, to_receiver, port, &bytes);
                receiver_turn |= to_receiver;
            }
            self.upgrade(now, 1);
            let clock = sender_clock(&self.script, now);
            if self.sender.next_timeout().is_some_and(|at| at <= clock) {
                self.sender.handle_timeout(clock);
            }
            self.upgrade(now, 2);
            self.flush_sender(now);
            if receiver_turn {
                self.receiver.handle_timeout(receiver_clock(now));
                self.upgrade(now, 3);
                self.deliver(now);
                self.upgrade(now, 4);
                self.flush_receiver(now);
                let next = self.receiver.next_timeout();
                assert!(next.is_some_and(|at| at > receiver_clock(now)), "due again at once: {next:?}");
            }
            now = self.next_time(now, next_send, end);
        }
        self.finish()
    }

    /// At this step of a turn.
    fn upgrade(&mut self, now: u64, step: u8) {
        while let Some(&(at, upgrade)) = self.upgrades.last()
            && self.begin + at <= now
        {
            for machine in [&mut self.sender, &mut self.receiver] {
                match upgrade {
                    Upgrade::Replace(wanted) if wanted == step => machine.upgrade(),
                    Upgrade::Beside(wanted) if wanted == step => machine.split(),
                    _ => return,
                }
            }
            self.outcome.upgrades += 1;
            self.upgrades.pop();
        }
    }

    fn next_time(&self, now: u64, next_send: u64, end: u64) -> u64 {
        let mut next = end;
        if (self.submitted.len() as u64) < self.script.packets {
            next = next.min(next_send);
        }
        if let Some(Reverse((at, _, to_receiver, ..))) = self.in_flight.peek() {
            next = next.min(if *to_receiver { self.round_up(*at) } else { *at });
        }
        if let Some(at) = self.sender.next_timeout() {
            next = next.min(from_sender_clock(&self.script, at));
        }
        if let Some(at) = self.receiver.next_timeout() {
            next = next.min(self.round_up(at.as_nanos().saturating_sub(RECEIVER_EPOCH)));
        }
        next.max(now + 1)
    }

    fn arrive(&mut self, now: u64, at: u64, to_receiver: bool, port: u16, bytes: &[u8]) {
        if !to_receiver && port != self.port {
            return self.arrive_elsewhere(now, port, bytes);
        }
        let (machine, peer) = if to_receiver { (&self.receiver, 1) } else { (&self.sender, 2) };
        let packet = machine.pool.copy_from(bytes).expect("a slot: the receive buffer is bounded");
        let mut datagram =
            Datagram { packet, peer: address(peer), local: None, interface: 0, path: 0, arrival: receiver_clock(at) };
        if to_receiver {
            self.note_arrival(bytes);
            datagram.peer.set_port(port);
            if port != self.receiver.parameters().peer.port() {
                self.elsewhere.entry(port).or_default().0 += bytes.len();
            } else if packet::parse(bytes).is_ok() {
                self.came_there.add(bytes);
            }
            let before = *self.receiver.statistics();
            self.receiver.receive(receiver_clock(now), datagram);
            if let Some(recovery) = &mut self.recovery {
                recovery.heard(now, at, bytes, &before, self.receiver.statistics());
            }
            if self.receiver.statistics().peer_changes > before.peer_changes
                && let Some(recovery) = &mut self.recovery
            {
                recovery.moved();
            }
            self.outcome.most_held = self.outcome.most_held.max(self.receiver.held_packets());
        } else {
            datagram.arrival = sender_clock(&self.script, now);
            self.came_back.add(bytes);
            if let Some(recovery) = &mut self.recovery {
                recovery.sender_heard(bytes);
            }
            self.sender.receive(datagram.arrival, datagram);
        }
    }

    fn note_arrival(&mut self, bytes: &[u8]) {
        if let (Some(_), Ok(Header::Data(header))) = (self.script.filter, packet::parse(bytes)) {
            let offset = header.sequence.distance(SequenceNumber::new(self.script.initial_sequence)) as u64;
            self.outcome.arrivals.push((offset, (header.message_number == 0).then(|| bytes[HEADER_LEN])));
        }
    }

    /// What comes to a port that the sender is not at: only one who forges answers it.
    fn arrive_elsewhere(&mut self, now: u64, port: u16, bytes: &[u8]) {
        if port != FORGER_PORT {
            return;
        }
        let Ok(Header::Control(header)) = packet::parse(bytes) else { panic!("no data comes to a sender") };
        if let Ok(Control::Acknowledgement(Acknowledgement { number, .. })) =
            Control::parse(&header, &bytes[HEADER_LEN..])
        {
            let timestamp_us = self.sender.parameters().timestamp_us(sender_clock(&self.script, now));
            let mut answer = Vec::new();
            ControlWriter { timestamp_us, socket_id: self.receiver.parameters().socket_id }
                .acknowledgement_receipt(&mut answer, number);
            self.post(now + MS, true, FORGER_PORT, answer);
        }
    }

    fn forge(&mut self, now: u64, bytes: &[u8]) {
        let port = match self.script.forger {
            Forger::Blind => FORGER_PORT + self.noise.between(1, 1_000) as u16,
            Forger::Answering => FORGER_PORT,
        };
        self.post(now + self.script.there.delay / 2, true, port, bytes.to_vec());
    }

    fn flush_sender(&mut self, now: u64) {
        let clock = sender_clock(&self.script, now);
        loop {
            self.buffer.clear();
            let Some(transmit) = self.sender.poll_transmit(clock, &mut self.buffer) else { break };
            assert_eq!((transmit.len, transmit.peer), (self.buffer.len(), address(2)));
            let bytes = self.buffer.clone();
            self.handed_there.add(&bytes);
            if let (Some(recovery), Ok(Header::Data(header))) = (&mut self.recovery, packet::parse(&bytes)) {
                recovery.sent(now, header.sequence);
            }
            for at in self.there.arrivals(now, bytes.len()).into_iter().flatten() {
                self.post(at, true, self.port, bytes.clone());
            }
            if self.script.forgeries > 0 && self.noise.per_million(self.script.forgeries) {
                self.forge(now, &bytes);
            }
            if self.noise.per_million(self.script.noise) {
                let noise = self.noise_from(bytes);
                self.post(now + self.script.there.delay, true, self.port, noise);
            }
        }
        let round_trip = self.sender.round_trip();
        if let Some(recovery) = &mut self.recovery {
            recovery.sender_is_done(now, &self.submitted, round_trip);
        }
    }

    /// A control packet as a broken or hostile peer might send it. Shutdown is left out: it is obeyed.
    fn noise_from(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let random = &mut self.noise;
        bytes.truncate(random.between(0, 40) as usize);
        bytes.resize(bytes.len().max(16), 0);
        let kind = random.pick(&[0_u16, 1, 2, 3, 4, 6, 8, 0x7fff, 9]);
        bytes[..2].copy_from_slice(&(0x8000 | kind).to_be_bytes());
        for byte in &mut bytes[4..12] {
            *byte = random.next() as u8;
        }
        for byte in &mut bytes[16..] {
            *byte = random.next() as u8;
        }
        bytes
    }

    fn flush_receiver(&mut self, now: u64) {
        loop {
            self.buffer.clear();
            let clock = receiver_clock(now);
            let Some(transmit) = self.receiver.poll_transmit(clock, &mut self.buffer) else { break };
            let (port, bytes) = (transmit.peer.port(), self.buffer.clone());
            assert_eq!(transmit.len, bytes.len());
            self.handed_back.add(&bytes);
            if let Some(recovery) = &mut self.recovery {
                recovery.told(now, &bytes);
            }
            if transmit.peer != self.receiver.parameters().peer {
                let (from, to) = self.elsewhere.entry(port).or_default();
                *to += bytes.len();
                assert!(*to <= *from, "port {port} has sent {from} bytes and is sent {to}");
            }
            for at in self.back.arrivals(now, bytes.len()).into_iter().flatten() {
                self.post(at, false, port, bytes.clone());
            }
        }
    }

    fn deliver(&mut self, now: u64) {
        let clock = receiver_clock(now);
        let early = self.script.early;
        while let Some(payload) = self.receiver.poll_payload(clock, early) {
            assert!(payload.ends_message);
            let outcome = &mut self.outcome;
            self.next_index += u64::from(payload.lost_before);
            outcome.lost += u64::from(payload.lost_before);
            let index = self.next_index;
            assert_eq!(payload.sequence, self.script.initial_sequence + index, "in order, each once, gaps told");
            assert_eq!(*payload.packet, *self::payload(index), "the bytes of payload {index}");
            if let Some(recovery) = &mut self.recovery {
                recovery.delivered(now, index, u64::from(payload.lost_before));
            }
            // What was skipped in a jump cannot come any more.
            let jumps = self.receiver.statistics().sequence_jumps;
            let is_behind_jump = std::mem::replace(&mut self.jumps, jumps) != jumps;
            let may_be_early = early && (payload.lost_before == 0 || is_behind_jump);
            assert!(may_be_early || payload.due <= clock, "payload {index} came before its time");
            let submitted = self.submitted[index as usize];
            let ideal = (submitted + u64::from(self.script.latency_ms) * MS).saturating_add_signed(self.base_delay);
            let error = payload.due.signed_nanos_since(receiver_clock(ideal));
            outcome.due_error = (outcome.due_error.0.min(error), outcome.due_error.1.max(error));
            // It waited for nothing but its time, its arrival and the one before it.
            let possible = if may_be_early { payload.arrival } else { payload.due.max(payload.arrival) };
            let possible = possible.max(self.last_delivery);
            // A new mean of the drift (a thousand ACKACKs) may move the due time of what is held into the past.
            let means = self.receiver.statistics().pkt_recv_ackack / 1_000;
            let moved = std::mem::replace(&mut self.drift_means, means) != means;
            let turn = Duration::from_nanos(self.script.turn);
            assert!(moved || clock <= possible + turn, "payload {index} was held back");
            self.last_delivery = clock;
            outcome.latest = outcome.latest.max(clock.saturating_since(payload.due).as_nanos() as u64);
            outcome.delivered += 1;
            self.next_index += 1;
        }
        while let Some(event) = self.receiver.poll_event() {
            match event {
                Event::SequenceJump { .. } => self.outcome.jumps += 1,
                Event::PeerChanged { from, to } => {
                    assert_ne!(from, to);
                    assert_eq!(to, self.receiver.parameters().peer);
                }
                Event::KeyWanted => self.receiver.provide_key(|material| {
                    derive_key_encrypting_key(b"correct horse", material.salt(), material.key_length())
                }),
                Event::Introduced | Event::Secured if self.script.version4 => {}
                Event::Connected | Event::PeerError { .. } | Event::KeyRefreshed | Event::KeyRefreshFailed(_) => {}
                event => panic!("{event:?}"),
            }
        }
    }

    /// What the two have counted is what their links have counted, and each packet is counted for one thing.
    fn check_counts(&self) {
        let (sender, receiver) = (self.sender.statistics(), self.receiver.statistics());
        let (there, back) = (&self.handed_there, &self.handed_back);
        assert_eq!((sender.pkt_sent, sender.byte_sent), (there.data, there.data_bytes));
        assert_eq!(sender.pkt_sent, sender.pkt_sent_unique + sender.pkt_retrans);
        assert_eq!(sender.pkt_sent_ackack, there.receipts);
        assert_eq!(receiver.pkt_sent_nak, back.loss_reports);
        let acknowledgements = receiver.pkt_sent_ack + receiver.pkt_sent_light_ack + receiver.pkt_sent_challenge;
        assert_eq!(acknowledgements, back.acknowledgements);
        assert_eq!(
            (sender.pkt_recv_ack, sender.pkt_recv_nak),
            (self.came_back.acknowledgements, self.came_back.loss_reports)
        );
        // An answer to key material that comes twice answers nothing the second time, nor does one to noise that looked like some.
        let may_answer_nothing = self.script.encryption.is_some() || self.script.noise > 0;
        assert!(sender.control_rejected == 0 || may_answer_nothing, "{}", sender.control_rejected);
        if self.script.moves.is_empty() && self.script.forgeries == 0 {
            assert_eq!((receiver.pkt_recv, receiver.byte_recv), (self.came_there.data, self.came_there.data_bytes));
        }
        let refused = receiver.pkt_rcv_duplicate
            + receiver.pkt_rcv_belated
            + receiver.pkt_rcv_undecrypt
            + receiver.pkt_rcv_no_room;
        // What the filter has rebuilt is taken in, or refused, like what came.
        assert_eq!(receiver.pkt_recv + receiver.pkt_rcv_filter_supply, receiver.pkt_recv_unique + refused);
        assert_eq!(receiver.pkt_recv_unique, receiver.pkt_delivered);
        if receiver.pkt_recv_drop_request == 0 {
            let found = receiver.pkt_rcv_recovered + receiver.pkt_rcv_reordered;
            let (least, by_filter) = (found + receiver.pkt_rcv_drop, receiver.pkt_rcv_filter_supply);
            let is_explained = (least..=least + by_filter).contains(&receiver.pkt_rcv_loss);
            assert!(is_explained, "what was missed has come, was rebuilt or is given up: {receiver:?}");
        }
    }

    fn finish(mut self) -> Outcome {
        let statistics = *self.receiver.statistics();
        let challenged = self.elsewhere.iter().filter(|(port, (_, to))| **port >= FORGER_PORT && *to > 0);
        self.outcome.challenged = challenged.count();
        assert_eq!(statistics.pkt_delivered, self.outcome.delivered);
        assert_eq!(statistics.pkt_rcv_drop, self.outcome.lost);
        if let Some(recovery) = &mut self.recovery {
            recovery.finish();
        }
        self.check_counts();
        self.sender.end_twin();
        self.receiver.end_twin();
        // Control packets of the last rows and columns are held as long as more may come.
        assert!(self.receiver.held_packets() == 0 || self.script.filter.is_some(), "nothing waits for ever");
        self.receiver.close(receiver_clock(0), CloseReason::Local);
        assert!(self.receiver.is_closed());
        assert_eq!(self.receiver.pool.in_use(), 0, "every slot is free again");
        assert_eq!(self.sender.pool.in_use(), 0);
        self.outcome.receiver = statistics;
        self.outcome.sender = *self.sender.statistics();
        self.outcome
    }
}

/// Plays a script to its end. Panics when a promise is broken, whatever the conditions: order, uniqueness, bytes, time,
/// memory.
pub fn play(script: Script) -> Outcome {
    World::new(script).run()
}
