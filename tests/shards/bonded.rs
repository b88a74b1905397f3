//! One stream over several connections, over real sockets: its legs come in at any shard and meet at one.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use headworks::base::{Datagram, Instant, PacketPool, PoolOptions};
use headworks::cli::send::material::{Cursor, DATAGRAM_LEN, Material, PesPackets};
use headworks::cli::send::synthetic;
use headworks::protocol::srt::caller::{CallError, Caller, CallerSettings, Event};
use headworks::protocol::srt::connection::{CloseReason, Connection, Limits};
use headworks::protocol::srt::handshake::RejectReason;
use headworks::protocol::srt::membership::{GroupType, Membership};
use headworks::protocol::srt::packet::{self, Header, SequenceNumber};
use headworks::protocol::srt::parameters::ConnectionParameters;
use headworks::protocol::srt::stream_id::StreamId;
use headworks::shard::clock::Clock;
use headworks::shard::report::StreamReport;

use super::{PATIENCE, RATE_BPS, Served, id_for};

const LATENCY_MS: u16 = 400;
const GROUP: Membership = Membership { group_id: 0x4000_0042, group_type: GroupType::Broadcast, weight: 1 };

struct Leg {
    socket: UdpSocket,
    connection: Box<Connection>,
    /// Every so many of its first transmissions are lost; 0 for none.
    loses_every: u64,
    sent: u64,
}

/// A sender whose legs all carry the same.
struct BondedCaller {
    peer: SocketAddr,
    stream: String,
    material: Material,
    cursor: Cursor,
    /// The clock of all legs is that of the first.
    start: Option<Instant>,
    began: Option<Instant>,
    next: u64,
    bytes: u64,
    legs: Vec<Option<Leg>>,
    peer_group: Option<Membership>,
    pool: PacketPool,
}

/// Calls until there is an answer.
fn call(
    from: [u8; 4],
    to: SocketAddr,
    settings: CallerSettings,
) -> (Caller, Result<(UdpSocket, Box<ConnectionParameters>), CallError>) {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::from(from), 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_nonblocking(true).unwrap();
    let now = Clock::now();
    let mut caller = Caller::new(now, settings);
    let (mut out, mut answer) = (Vec::new(), [0; 1_500]);
    loop {
        let now = Clock::now();
        caller.handle_timeout(now);
        while caller.poll_transmit(now, &mut out).is_some() {
            socket.send(&out).unwrap();
            out.clear();
        }
        while let Ok(length) = socket.recv(&mut answer) {
            caller.receive(now, to, &answer[..length]);
        }
        match caller.poll_event() {
            Some(Event::Connected(parameters)) => {
                return (caller, Ok((socket, parameters)));
            }
            Some(Event::Failed(error)) => return (caller, Err(error)),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn settings(peer: SocketAddr, stream: &str, socket_id: u32, group: Membership, first: u64) -> CallerSettings {
    CallerSettings {
        stream_id: StreamId::new(stream).unwrap(),
        send_latency_ms: LATENCY_MS,
        group: Some(group),
        timeout: PATIENCE,
        ..CallerSettings::new(peer, socket_id, SequenceNumber::new(first))
    }
}

impl BondedCaller {
    fn new(peer: SocketAddr, stream: &str) -> Self {
        Self {
            peer,
            stream: stream.to_owned(),
            material: synthetic::material(RATE_BPS).expect("a rate that can be had"),
            cursor: Cursor::new(),
            start: None,
            began: None,
            next: (1 << 31) - 500,
            bytes: 0,
            legs: Vec::new(),
            peer_group: None,
            pool: PacketPool::new(PoolOptions { slots: 64, ..PoolOptions::default() }).unwrap(),
        }
    }

    /// One more leg; gives its number. The others wait meanwhile, for the round trips of a handshake over loopback.
    fn call(&mut self, socket_id: u32, loses_every: u64) -> usize {
        let settings = settings(self.peer, &self.stream, socket_id, GROUP, self.next);
        let (caller, called) = call([127, 0, 0, 1], self.peer, settings);
        let (socket, mut parameters) = called.unwrap();
        assert_eq!(parameters.send_latency_ms, LATENCY_MS);
        let told = caller.peer_group().expect("a group on the other side");
        assert!(told.group_id & 1 << 30 != 0 && told.group_type == GROUP.group_type);
        assert_eq!(*self.peer_group.get_or_insert(told), told, "one group for all legs");
        // As libsrt has it, the clock of a leg is the group's once it is connected.
        parameters.start = *self.start.get_or_insert(parameters.start);
        let limits = Limits {
            receive_buffer_packets: 64,
            send_buffer_packets: 8_192,
            peer_idle_timeout: PATIENCE,
            ..Limits::default()
        };
        let connection = Box::new(Connection::new(Clock::now(), *parameters, limits));
        self.legs.push(Some(Leg { socket, connection, loses_every, sent: 0 }));
        self.legs.len() - 1
    }

    /// A leg is cut off, and nobody says so.
    fn cut(&mut self, leg: usize) {
        self.legs[leg] = None;
    }

    /// A leg ends, and says so.
    fn hang_up(&mut self, leg: usize) {
        if let Some(leg) = &mut self.legs[leg] {
            leg.connection.close(Clock::now(), CloseReason::Local);
        }
        self.serve();
        self.cut(leg);
    }

    fn run(&mut self, duration: Duration) {
        let end = Clock::now() + duration;
        while Clock::now() < end {
            self.turn(false);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends as soon as no picture and no sound is cut, waits until all is acknowledged, and says goodbye.
    fn finish(mut self) -> PesPackets {
        let began = Clock::now();
        let mut is_complete = false;
        while !is_complete || self.legs.iter().flatten().any(|leg| leg.connection.statistics().pkt_snd_buf > 0) {
            if is_complete {
                self.serve();
            } else {
                is_complete = self.turn(true);
            }
            assert!(Clock::now().saturating_since(began) < PATIENCE, "not all that was sent is acknowledged");
            std::thread::sleep(Duration::from_millis(1));
        }
        for leg in 0..self.legs.len() {
            self.hang_up(leg);
        }
        self.material.pes_packets(self.bytes)
    }

    /// Sends what is due. `true` when it was to end, and has.
    fn turn(&mut self, ends: bool) -> bool {
        let now = Clock::now();
        let began = *self.began.get_or_insert(now);
        let is_full = |leg: &Leg| leg.connection.is_send_buffer_full();
        while began + Duration::from_nanos(self.cursor.due_ns(&self.material)) <= now
            && !self.legs.iter().flatten().any(is_full)
        {
            let last = if ends { self.cursor.clean_end(&self.material) } else { None };
            let mut payload = [0; DATAGRAM_LEN];
            let length = match last {
                Some(0) => return true,
                Some(length) => self.cursor.take(&self.material, &mut payload).min(length),
                None => self.cursor.take(&self.material, &mut payload),
            };
            self.bytes += length as u64;
            self.next += 1;
            for leg in self.legs.iter_mut().flatten() {
                leg.connection.send(now, &payload[..length]).expect("room, as was asked for");
            }
            if last.is_some() {
                return true;
            }
        }
        self.serve();
        false
    }

    fn serve(&mut self) {
        let now = Clock::now();
        let (mut out, mut bytes) = (Vec::new(), [0; 1_500]);
        for leg in self.legs.iter_mut().flatten() {
            while let Ok(length) = leg.socket.recv(&mut bytes) {
                let packet = self.pool.copy_from(&bytes[..length]).unwrap();
                let peer = self.peer;
                leg.connection
                    .receive(now, Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: now });
            }
            leg.connection.handle_timeout(now);
            while leg.connection.poll_transmit(now, &mut out).is_some() {
                let is_first = matches!(packet::parse(&out), Ok(Header::Data(header)) if !header.retransmitted);
                leg.sent += u64::from(is_first);
                if !is_first || leg.loses_every == 0 || !leg.sent.is_multiple_of(leg.loses_every) {
                    leg.socket.send(&out).unwrap();
                }
                out.clear();
            }
            leg.connection.gauge();
            assert_eq!(leg.connection.statistics().control_rejected, 0, "asked for, or told of, what was never sent");
        }
    }
}

fn stream(served: &Served, name: &str) -> StreamReport {
    served.streams().into_iter().find(|stream| stream.name == name).expect("a stream")
}

#[test]
fn a_stream_over_several_connections_keeps_every_frame_while_one_is_left() {
    for shards in [1, 2, 4] {
        let served = Served::start(shards);
        let mut caller = BondedCaller::new(served.peer, "bonded");
        // Each comes in by another shard.
        let first = caller.call(id_for(0, shards, 1), 3);
        let second = caller.call(id_for(1 % shards, shards, 2), 4);
        caller.run(Duration::from_millis(800));
        let report = stream(&served, "bonded");
        assert_eq!((report.legs.len(), report.sessions), (2, 1), "{:?}", report.events);
        for leg in &report.legs {
            assert!(leg.active && leg.srt.pkt_rcv_loss > 50, "{leg:?}");
            assert!(leg.leg.pkt_rcv_elsewhere * 2 > leg.srt.pkt_rcv_loss, "{leg:?}");
        }
        caller.cut(first);
        caller.run(Duration::from_millis(600));
        let third = caller.call(id_for(0, shards, 3), 0);
        caller.run(Duration::from_millis(600));
        caller.cut(second);
        caller.run(Duration::from_millis(600));
        caller.call(id_for(1 % shards, shards, 4), 0);
        caller.run(Duration::from_millis(300));
        caller.cut(third);
        caller.run(Duration::from_millis(300));
        let report = stream(&served, "bonded");
        assert_eq!(report.legs.len(), 4, "those that were cut off are waited for: {:?}", report.events);
        assert_eq!(report.legs.iter().map(|leg| leg.path).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let sent = caller.finish();
        served.expect_every_frame(&[("bonded".to_owned(), sent)]);
        let owners = served.reports().iter().filter(|report| !report.streams.is_empty()).count();
        assert_eq!(owners, 1);
    }
}

#[test]
fn legs_are_closed_one_by_one_and_the_session_with_the_last() {
    let served = Served::start(2);
    let mut caller = BondedCaller::new(served.peer, "bonded");
    for leg in 0..3 {
        caller.call(id_for(leg % 2, 2, leg as u32 + 1), 0);
    }
    caller.run(Duration::from_millis(600));
    caller.hang_up(0);
    caller.run(Duration::from_millis(300));
    let report = stream(&served, "bonded");
    assert_eq!(report.legs.iter().map(|leg| leg.path).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(report.peer, Some(report.legs[0].peer), "another one stands for the session");
    assert!(report.events.iter().any(|(_, what)| what.ends_with("closed by the peer; 2 left")), "{:?}", report.events);
    let sent = caller.finish();
    served.expect_every_frame(&[("bonded".to_owned(), sent)]);
    let began = std::time::Instant::now();
    while stream(&served, "bonded").peer.is_some() {
        assert!(began.elapsed() < PATIENCE, "{:?}", stream(&served, "bonded").events);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(stream(&served, "bonded").legs.is_empty());
}

#[test]
fn a_group_is_one_publisher() {
    let served = Served::start(2);
    let mut caller = BondedCaller::new(served.peer, "bonded");
    caller.call(id_for(0, 2, 1), 0);
    caller.run(Duration::from_millis(1_000));
    let mut refused = |from, group: Membership| {
        let (_, called) = call(from, served.peer, settings(served.peer, "bonded", id_for(1, 2, 9), group, 5));
        let Err(CallError::Rejected(reason)) = called else { panic!("it was let in") };
        caller.run(Duration::from_millis(100));
        reason
    };
    let other = Membership { group_id: 0x4000_0043, ..GROUP };
    assert_eq!(refused([127, 0, 0, 2], other), RejectReason::Conflict, "a group of somebody else");
    let backup = Membership { group_type: GroupType::Backup, ..GROUP };
    assert_eq!(refused([127, 0, 0, 1], backup), RejectReason::Group, "the same group, and not of its type");
    let sent = caller.finish();
    served.expect_every_frame(&[("bonded".to_owned(), sent)]);
}

#[test]
fn groups_are_refused_where_bonding_is_off() {
    let served = Served::start_changed(1, |config| config.ingestion.srt.bonding = false);
    let (_, called) = call([127, 0, 0, 1], served.peer, settings(served.peer, "bonded", 5, GROUP, 5));
    assert_eq!(called.err(), Some(CallError::Rejected(RejectReason::Group)));
}
