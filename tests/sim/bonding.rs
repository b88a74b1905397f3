//! A bonding group in virtual time: a sender puts one stream on several bad paths, and what the group hands up is held against what
//! went in. What at least one leg carries is never lost.

use std::cmp::Reverse;
use std::time::Duration;

use headworks::base::{Datagram, Instant};
use headworks::protocol::srt::connection::{Connection, Limits};
use headworks::protocol::srt::control::ControlWriter;
use headworks::protocol::srt::group::{Event, Group, LEGS_MAX, LegStatistics};
use headworks::protocol::srt::membership::{GroupType, Membership};
use headworks::protocol::srt::packet::SequenceNumber;
use headworks::protocol::srt::parameters::{ConnectionParameters, PeerTimeBase, Role};
use headworks::protocol::srt::statistics::Statistics;
use headworks_packet::{PacketPool, PoolOptions};

use crate::conversation::payload;
use crate::from_environment;
use crate::link::{Conditions, InFlight, Link, MS};
use crate::random::Random;

/// The receiver's clock reads this when virtual time is zero, and the sender's that.
const RECEIVER_EPOCH: u64 = 50_000 * MS;
const SENDER_EPOCH: u64 = 10_000_000 * MS;
/// The sender's connection began so long before.
const SENDER_AGE: u64 = 4_000 * MS;
const STEP: u64 = MS / 4;
const FIRST: u64 = (1 << 31) - 300;
/// A backup leg that is put to use repeats so much: what its sender may not know to have arrived.
const OVERLAP: u64 = 150 * MS;

/// One path of a group.
#[derive(Clone, Debug, Default)]
struct Path {
    there: Conditions,
    back: Conditions,
    /// When its leg is up, in ns: it is called anew each time, and not hung up.
    up: Vec<(u64, u64)>,
    /// When its leg carries data, in a backup group.
    active: Vec<(u64, u64)>,
}

#[derive(Clone, Debug)]
struct Play {
    seed: u64,
    group_type: GroupType,
    paths: Vec<Path>,
    latency_ms: u16,
    packets: u64,
    interval: u64,
    early: bool,
    buffer_packets: usize,
    /// Silence after which a leg is given up.
    idle: u64,
    /// When another process goes on with the group, which has nothing but the bytes: in ns, and before which step of the turn.
    upgrades: Vec<(u64, u8)>,
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    delivered: u64,
    lost: u64,
    /// By path: as far as its last leg has counted.
    legs: Vec<(Statistics, LegStatistics)>,
    /// Legs that ended, by path.
    ended: Vec<u64>,
    elsewhere: u64,
    /// Payloads that came by each path first, or held by it too when handed up.
    by_path: Vec<u64>,
}

fn sender_clock(now: u64) -> Instant {
    Instant::from_nanos(SENDER_EPOCH + now)
}

fn receiver_clock(now: u64) -> Instant {
    Instant::from_nanos(RECEIVER_EPOCH + now)
}

/// The sender's end of a leg.
struct SenderLeg {
    socket_id: u32,
    /// `None` while it is idle: then there are keep-alives.
    connection: Option<Connection>,
    keep_alive_at: u64,
}

struct World {
    play: Play,
    pool: PacketPool,
    group: Option<Group>,
    senders: Vec<Option<SenderLeg>>,
    links: Vec<(Link, Link)>,
    in_flight: InFlight,
    posted: u64,
    submitted: Vec<u64>,
    calls: u32,
    outcome: Outcome,
}

impl World {
    fn new(play: Play) -> Self {
        let mut random = Random::new(play.seed);
        let mut link = |conditions: &Conditions| Link::new(conditions.clone(), Random::new(random.next()));
        let links: Vec<_> = play.paths.iter().map(|path| (link(&path.there), link(&path.back))).collect();
        let paths = play.paths.len();
        Self {
            pool: PacketPool::new(PoolOptions { slots: 16_384, ..PoolOptions::default() }).expect("memory"),
            group: None,
            senders: (0..paths).map(|_| None).collect(),
            links,
            in_flight: InFlight::new(),
            posted: 0,
            submitted: Vec::new(),
            calls: 0,
            outcome: Outcome {
                legs: vec![Default::default(); paths],
                ended: vec![0; paths],
                by_path: vec![0; LEGS_MAX],
                ..Outcome::default()
            },
            play,
        }
    }

    fn parameters(&self, path: usize, socket_id: u32, peer_socket_id: u32, role: Role) -> ConnectionParameters {
        let peer = ([192, 0, 2, path as u8 + 1], 9_000).into();
        ConnectionParameters {
            socket_id,
            peer_socket_id,
            initial_sequence: SequenceNumber::new(FIRST + self.submitted.len() as u64),
            start: Instant::from_nanos(SENDER_EPOCH - SENDER_AGE),
            receive_latency_ms: self.play.latency_ms,
            send_latency_ms: self.play.latency_ms,
            ..ConnectionParameters::plain(role, peer, Instant::ZERO)
        }
    }

    /// A leg calls and is answered, in no time; its handshake shows a clock of its own unless it is the first.
    fn call(&mut self, now: u64, path: usize) {
        self.calls += 1;
        let (ours, theirs) = (self.calls * 10, self.calls * 10 + 1);
        let receiver = self.parameters(path, ours, theirs, Role::Receiver);
        let is_first = self.group.is_none();
        let timestamp_us = if is_first { ((SENDER_AGE + now) / 1_000) as u32 } else { 123 };
        let receiver = ConnectionParameters {
            peer_time_base: PeerTimeBase { timestamp_us, arrival: receiver_clock(now) },
            ..receiver
        };
        let limits = Limits {
            receive_buffer_packets: self.play.buffer_packets,
            peer_idle_timeout: Duration::from_nanos(self.play.idle),
            ..Limits::default()
        };
        let membership = Membership { group_id: 0x4000_0001, group_type: self.play.group_type, weight: path as u16 };
        match &mut self.group {
            Some(group) => {
                assert!(group.has_room(receiver_clock(now)));
                group.join(receiver_clock(now), membership.weight, receiver, limits);
            }
            None => self.group = Some(Group::new(receiver_clock(now), 0x4000_0002, membership, receiver, limits)),
        }
        self.senders[path] = Some(SenderLeg { socket_id: ours, connection: None, keep_alive_at: now });
    }

    /// A leg's sender begins, with what went out `repeated` ns before now too.
    fn activate(&mut self, now: u64, path: usize, repeated: u64) {
        let first = self.submitted.partition_point(|&at| at + repeated < now);
        let leg = self.senders[path].as_mut().expect("it is up");
        let (ours, theirs) = (leg.socket_id, leg.socket_id + 1);
        let parameters = ConnectionParameters {
            initial_sequence: SequenceNumber::new(FIRST + first as u64),
            ..self.parameters(path, theirs, ours, Role::Sender)
        };
        let limits = Limits { send_buffer_packets: 16_384, receive_buffer_packets: 64, ..Limits::default() };
        let mut connection = Connection::new(sender_clock(now), parameters, limits);
        for index in first..self.submitted.len() {
            let clock = sender_clock(self.submitted[index]);
            connection.send(clock, &payload(index as u64)).expect("room for a second");
        }
        self.senders[path].as_mut().expect("it is up").connection = Some(connection);
    }

    fn post(&mut self, now: u64, path: usize, to_receiver: bool, bytes: &[u8]) {
        let (there, back) = &mut self.links[path];
        let link = if to_receiver { there } else { back };
        for at in link.arrivals(now, bytes.len()).into_iter().flatten() {
            self.posted += 1;
            self.in_flight.push(Reverse((at, self.posted, to_receiver, path as u16, bytes.to_vec())));
        }
    }

    fn run(mut self) -> Outcome {
        let end = self.play.interval * self.play.packets + u64::from(self.play.latency_ms) * MS + 1_500 * MS;
        let mut now = 0;
        while now < end {
            self.change_legs(now);
            while self.play.interval * (self.submitted.len() as u64) <= now
                && (self.submitted.len() as u64) < self.play.packets
            {
                let bytes = payload(self.submitted.len() as u64);
                for leg in self.senders.iter_mut().flatten() {
                    if let Some(connection) = &mut leg.connection {
                        connection.send(sender_clock(now), &bytes).expect("room for a second");
                    }
                }
                self.submitted.push(now);
            }
            while let Some(Reverse((at, ..))) = self.in_flight.peek()
                && *at <= now
            {
                let Some(Reverse((at, _, to_receiver, path, bytes))) = self.in_flight.pop() else { break };
                self.arrive(now, at, to_receiver, usize::from(path), &bytes);
            }
            self.serve_senders(now);
            self.upgrade(now, 0);
            self.serve_receiver(now);
            now += STEP;
        }
        for leg in self.senders.iter().flatten().filter_map(|leg| leg.connection.as_ref()) {
            let refused = leg.statistics().control_rejected;
            assert_eq!(refused, 0, "a leg was told of packets that were never sent over it");
        }
        let group = self.group.expect("somebody called");
        for leg in group.legs() {
            let path = leg.weight() as usize;
            self.outcome.legs[path] = (*leg.connection().statistics(), *leg.statistics());
        }
        self.outcome.elsewhere = group.pkt_rcv_elsewhere();
        assert_eq!(group.statistics().pkt_rcv_drop, self.outcome.lost);
        self.outcome
    }

    fn upgrade(&mut self, now: u64, step: u8) {
        let is_due = |&(at, wanted): &(u64, u8)| wanted == step && (at..at + STEP).contains(&now);
        let Some(group) = self.group.as_mut().filter(|_| self.play.upgrades.iter().any(is_due)) else { return };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        group.snapshot(&mut before);
        let restored = Group::restore(&before, self.play.buffer_packets, |bytes| self.pool.copy_from(bytes));
        *group = restored.expect("what was just written");
        group.snapshot(&mut after);
        assert!(before == after, "a snapshot of what was restored is the same");
    }

    fn change_legs(&mut self, now: u64) {
        for path in 0..self.play.paths.len() {
            let during = |spans: &[(u64, u64)]| spans.iter().any(|&(from, to)| (from..to).contains(&now));
            let up = during(&self.play.paths[path].up);
            let active = self.play.group_type == GroupType::Broadcast || during(&self.play.paths[path].active);
            if !up {
                self.senders[path] = None;
            } else if self.senders[path].is_none() {
                self.call(now, path);
            }
            let Some(leg) = &mut self.senders[path] else { continue };
            match (&leg.connection, active) {
                (None, true) if self.play.group_type == GroupType::Broadcast => self.activate(now, path, 0),
                (None, true) => self.activate(now, path, OVERLAP),
                (Some(_), false) => leg.connection = None,
                _ => {}
            }
        }
    }

    fn arrive(&mut self, now: u64, at: u64, to_receiver: bool, path: usize, bytes: &[u8]) {
        let packet = self.pool.copy_from(bytes).expect("a slot");
        let peer = ([192, 0, 2, path as u8 + 1], 9_000).into();
        let datagram = |arrival| Datagram { packet, peer, local: None, interface: 0, path: 0, arrival };
        if to_receiver {
            let group = self.group.as_mut().expect("somebody called");
            group.receive(receiver_clock(now), datagram(receiver_clock(at)));
        } else if let Some(connection) = self.senders[path].as_mut().and_then(|leg| leg.connection.as_mut()) {
            connection.receive(sender_clock(now), datagram(sender_clock(at)));
        }
    }

    fn serve_senders(&mut self, now: u64) {
        let mut buffer = Vec::new();
        for path in 0..self.senders.len() {
            let Some(leg) = &mut self.senders[path] else { continue };
            let mut out = Vec::new();
            match &mut leg.connection {
                Some(connection) => {
                    connection.handle_timeout(sender_clock(now));
                    while connection.poll_transmit(sender_clock(now), &mut buffer).is_some() {
                        out.push(std::mem::take(&mut buffer));
                    }
                }
                None if now >= leg.keep_alive_at => {
                    leg.keep_alive_at = now + 500 * MS;
                    ControlWriter { timestamp_us: 0, socket_id: leg.socket_id }.keep_alive(&mut buffer);
                    out.push(std::mem::take(&mut buffer));
                }
                None => {}
            }
            for bytes in out {
                self.post(now, path, true, &bytes);
            }
        }
    }

    fn serve_receiver(&mut self, now: u64) {
        let clock = receiver_clock(now);
        if let Some(group) = &mut self.group {
            group.handle_timeout(clock);
        }
        self.upgrade(now, 1);
        let Some(group) = &mut self.group else { return };
        loop {
            let payload_up = if self.play.early { group.poll_payload_early(clock) } else { group.poll_payload(clock) };
            let Some(up) = payload_up else { break };
            let index = up.sequence - FIRST;
            assert_eq!(index, self.outcome.delivered + self.outcome.lost + u64::from(up.lost_before), "in order");
            assert_eq!(up.packet.as_slice(), payload(index), "payload {index} is what was sent");
            // Both clocks run alike: due is exactly the latency after it was sent, by whichever leg it came.
            let ideal = self.submitted[index as usize] + u64::from(self.play.latency_ms) * MS;
            assert_eq!(up.due.as_nanos() / 1_000, (RECEIVER_EPOCH + ideal) / 1_000);
            assert!(self.play.early || up.due <= clock);
            assert!(clock <= up.due + Duration::from_nanos(STEP), "payload {index} comes late");
            for (path, count) in self.outcome.by_path.iter_mut().enumerate() {
                *count += u64::from(up.path_mask >> path & 1);
            }
            self.outcome.delivered += 1;
            self.outcome.lost += u64::from(up.lost_before);
        }
        self.upgrade(now, 2);
        let Some(group) = &mut self.group else { return };
        let mut out = Vec::new();
        let mut buffer = Vec::new();
        while let Some(transmit) = group.poll_transmit(clock, &mut buffer) {
            let std::net::IpAddr::V4(address) = transmit.peer.ip() else { unreachable!("made above") };
            out.push((usize::from(address.octets()[3]) - 1, std::mem::take(&mut buffer)));
        }
        while let Some(event) = group.poll_event() {
            match event {
                Event::LegClosed { peer, .. } => {
                    let std::net::IpAddr::V4(address) = peer.ip() else { unreachable!("made above") };
                    self.outcome.ended[usize::from(address.octets()[3]) - 1] += 1;
                }
                Event::Closed(_) => assert!(now > self.play.interval * self.play.packets, "a leg is left"),
                Event::Leg { event, .. } => panic!("{event:?}"),
            }
        }
        for (path, bytes) in out {
            self.post(now, path, false, &bytes);
        }
    }
}

const ALWAYS: (u64, u64) = (0, u64::MAX);

fn path(delay_ms: u64, loss: u32) -> Path {
    let there = Conditions { delay: delay_ms * MS, loss, ..Conditions::default() };
    Path { back: Conditions { loss: loss / 4, ..there.clone() }, there, up: vec![ALWAYS], active: Vec::new() }
}

fn broadcast(seed: u64, paths: Vec<Path>) -> Play {
    Play {
        seed,
        group_type: GroupType::Broadcast,
        paths,
        latency_ms: 120,
        packets: 2_000,
        interval: MS,
        early: seed.is_multiple_of(2),
        buffer_packets: 1_024,
        idle: 30_000 * MS,
        upgrades: Vec::new(),
    }
}

fn nothing_is_lost(play: Play) -> Outcome {
    let packets = play.packets;
    let seed = play.seed;
    let outcome = World::new(play).run();
    assert_eq!((outcome.delivered, outcome.lost), (packets, 0), "seed {seed}: {outcome:#?}");
    outcome
}

#[test]
fn legs_that_lose_independently_lose_nothing_together_that_one_of_them_carries() {
    for seed in 1..=6 {
        // Half of everything is lost on each of two, and the third is whole.
        let outcome = nothing_is_lost(broadcast(seed, vec![path(5, 500_000), path(20, 500_000), path(40, 0)]));
        let [(first, at_first), (second, _), (third, at_third)] = &outcome.legs[..] else { panic!("three legs") };
        assert!(first.pkt_rcv_loss > 800 && second.pkt_rcv_loss > 800, "{first:?} {second:?}");
        assert!(at_first.pkt_rcv_elsewhere > 300, "{at_first:?}");
        assert_eq!((third.pkt_rcv_loss, at_third.pkt_rcv_elsewhere), (0, 0));
        // Nearly all came by the short ones, and what neither had at once was asked for there.
        assert!(outcome.by_path[..3].iter().all(|&count| count > 100), "{:?}", outcome.by_path);
    }
}

#[test]
fn with_time_to_ask_again_nothing_is_lost_though_all_legs_lose() {
    for seed in 1..=4 {
        let play = broadcast(seed, vec![path(15, 100_000), path(30, 100_000)]);
        nothing_is_lost(Play { latency_ms: 500, ..play });
    }
}

#[test]
fn a_leg_may_be_late_by_nearly_the_whole_latency() {
    for seed in 1..=4 {
        // The short path is dark for a while, again and again, and cannot repeat in time what it lost.
        let mut short = path(1, 50_000);
        short.there.blackouts = (1..6).map(|n| (n * 300 * MS, (n * 300 + 220) * MS)).collect();
        let outcome = nothing_is_lost(broadcast(seed, vec![short.clone(), path(118, 0)]));
        assert!(outcome.legs[0].1.pkt_rcv_elsewhere > 400, "{:?}", outcome.legs[0]);
        // The same when the long one was there first only moves the time.
        nothing_is_lost(broadcast(seed, vec![path(118, 0), short]));
    }
}

#[test]
fn a_leg_that_is_cut_off_and_comes_back_goes_unnoticed() {
    for seed in 1..=4 {
        let mut first = path(10, 0);
        first.up = vec![(0, 500 * MS), (2_000 * MS, u64::MAX)];
        let mut second = path(40, 0);
        second.up = vec![(0, 2_700 * MS), (4_000 * MS, u64::MAX)];
        let play = broadcast(seed, vec![first, second]);
        let outcome = nothing_is_lost(Play { packets: 5_000, idle: 1_000 * MS, ..play });
        assert_eq!(outcome.ended, [1, 1]);
        assert!(outcome.by_path[..2].iter().all(|&count| count > 1_000), "{:?}", outcome.by_path);
    }
}

#[test]
fn a_leg_comes_back_before_it_was_missed() {
    for seed in 1..=4 {
        let mut first = path(10, 0);
        first.up = (0..6).map(|n| (n * 400 * MS, (n * 400 + 350) * MS)).collect();
        let play = broadcast(seed, vec![first, path(30, 0)]);
        let outcome = nothing_is_lost(play);
        // Each time it is another leg, while the one before is still waited for.
        assert!(outcome.by_path[..6].iter().all(|&count| count > 200), "{:?}", outcome.by_path);
    }
}

#[test]
fn paths_that_repeat_and_mix_up_packets_make_one_stream() {
    for seed in 1..=4 {
        let mut paths = vec![path(5, 0), path(5, 0), path(25, 20_000)];
        for path in &mut paths {
            path.there.jitter = 3 * MS;
            path.there.duplicate = 200_000;
            path.there.reorder = 100_000;
            path.there.reorder_delay = 20 * MS;
        }
        nothing_is_lost(broadcast(seed, paths));
    }
}

#[test]
fn a_backup_leg_takes_over_and_gives_back_without_a_loss() {
    for seed in 1..=4 {
        // The main leg goes dark; its sender sees it 60 ms later.
        let mut main = path(20, 0);
        main.there.blackouts = vec![(1_000 * MS, 1_800 * MS)];
        main.back.blackouts = main.there.blackouts.clone();
        main.active = vec![(0, 1_900 * MS), (2_400 * MS, u64::MAX)];
        let mut backup = path(35, 0);
        backup.active = vec![(1_060 * MS, 2_600 * MS)];
        let play = broadcast(seed, vec![main, backup]);
        let play = Play { group_type: GroupType::Backup, latency_ms: 200, packets: 3_500, ..play };
        // Ten times as many packets as the idle leg's buffer is wide pass before it is put to use.
        let outcome = nothing_is_lost(Play { buffer_packets: 512, ..play });
        assert!(outcome.by_path[1] > 1_000, "{:?}", outcome.by_path);
        assert!(outcome.legs.iter().all(|(statistics, _)| statistics.sequence_jumps == 0));
    }
}

#[test]
fn of_random_paths_one_of_which_is_always_whole_nothing_is_lost() {
    let first = from_environment("HEADWORKS_SIM_FIRST").unwrap_or(1);
    let count = from_environment("HEADWORKS_SIM_SEEDS").unwrap_or(40);
    for seed in first..first + count {
        let mut random = Random::new(seed);
        let latency_ms = random.pick(&[60, 120, 400]);
        let legs = random.between(2, 4);
        let mut paths: Vec<Path> = (0..legs)
            .map(|_| {
                let delay = random.below(u64::from(latency_ms) - 20);
                let mut path = path(delay, random.pick(&[0, 10_000, 300_000]));
                path.there.burst = random.pick(&[0, 2_000]);
                path.there.burst_length = 50 * MS;
                path.there.duplicate = random.pick(&[0, 50_000]);
                let from = random.between(300, 900) * MS;
                path.up = vec![(0, from), (from + random.between(50, 1_500) * MS, u64::MAX)];
                path
            })
            .collect();
        // Whole, not always the first, and never so much longer than the first that it comes too late.
        let whole = random.below(legs) as usize;
        paths[whole] = path(random.below(u64::from(latency_ms) - 20), 0);
        let play = broadcast(seed, paths);
        // What waits for its time has room, at the highest rate too.
        let play = Play { latency_ms, interval: random.pick(&[MS / 4, MS, 3 * MS]), buffer_packets: 4_096, ..play };
        // In the first two seconds, which is half a stream or more.
        let upgrades = (0..random.below(12)).map(|_| (random.below(2_000) * MS, random.below(3) as u8)).collect();
        let outcome = nothing_is_lost(Play { upgrades, ..play.clone() });
        if seed.is_multiple_of(4) {
            assert_eq!(outcome, World::new(play).run(), "seed {seed}: the same as if it was never put down");
        }
    }
}
