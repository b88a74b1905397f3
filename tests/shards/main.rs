//! Many shards behind one port, as a whole and over real sockets: with one, two and four of them, which is more than many machines
//! have cores.

mod bonded;
mod callers;
mod served;

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use headworks::cli::send::material::PesPackets;
use headworks::config::{Config, PacketIo, Stream, StreamRtp};
use headworks::protocol::srt::caller::{Caller, CallerSettings};
use headworks::protocol::srt::handshake::HANDSHAKE_LEN;
use headworks::protocol::srt::packet::{HEADER_LEN, SequenceNumber};
use headworks::protocol::srt::stream_id::StreamId;
use headworks::shard::clock::Clock;
use headworks::shard::mailbox::Message;
use headworks::shard::net::shard_of_socket_id;
use headworks::shard::report::{ShardReport, StreamKind, StreamReport, StreamStatus};
use headworks_host::shard_of_handshake;
use headworks_stalled_threads::stall;

use callers::Callers;
use served::{PATIENCE, RATE_BPS, Served};

const PASSPHRASE: &str = "known to everybody";

impl Served {
    fn start(shards: usize) -> Self {
        Self::start_changed(shards, |_| {})
    }

    fn start_changed(shards: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(shards, |config| {
            for number in 0..4 {
                let encrypted = Stream { passphrase: Some(PASSPHRASE.to_owned()), ..Stream::default() };
                config.streams.insert(format!("encrypted{number}"), encrypted);
            }
            let pinned = Stream { source: Some([127, 0, 0, 1].into()), ..Stream::default() };
            config.streams.insert("pinned".to_owned(), pinned);
            change(config);
        })
    }

    /// What one shard says, the others being left alone.
    fn report(&self, shard: usize) -> ShardReport {
        let (sender, receiver) = sync_channel(1);
        assert!(self.shards().mailbox(shard).post(Message::Report(sender)));
        receiver.recv_timeout(PATIENCE).expect("the shard answers")
    }

    /// The shard that owns a stream.
    fn owner(&self, name: &str) -> usize {
        let owns = |report: &ShardReport| report.streams.iter().any(|stream| stream.name == name);
        self.reports().iter().find(|report| owns(report)).expect("a stream").shard
    }

    /// Waits until every frame that was sent is in its ring, whole.
    fn expect_every_frame(&self, sent: &[(String, PesPackets)]) {
        let began = Instant::now();
        for (name, expected) in sent {
            let of = |stream: &StreamReport, kind: &str| -> u64 {
                let tracks = stream.tracks.iter().filter(|track| track.name.starts_with(kind));
                tracks.map(|track| track.statistics.frames).sum()
            };
            let stream = loop {
                let stream = self.streams().into_iter().find(|stream| stream.name == *name).expect("a stream");
                let frames = [of(&stream, "video"), of(&stream, "audio")];
                if frames == [expected.video, expected.audio] {
                    break stream;
                }
                assert!(began.elapsed() < PATIENCE, "{name}: {frames:?} of {expected:?}, {stream:?}");
                std::thread::sleep(Duration::from_millis(50));
            };
            assert!(expected.video > 20, "{name}: {expected:?}");
            let damaged: u64 = stream.tracks.iter().map(|track| track.statistics.damaged).sum();
            let jumps: u64 = stream.tracks.iter().map(|track| track.statistics.discontinuities).sum();
            assert_eq!((stream.ingest.lost, damaged, stream.continuity_errors), (0, 0, 0), "{name}");
            assert_eq!((stream.sessions, jumps), (1, stream.tracks.len() as u64), "{name}: each track begins once");
        }
    }
}

/// A caller's socket id whose handshakes come to this shard.
fn id_for(shard: usize, shards: usize, number: u32) -> u32 {
    (1 + number * 1_000..).find(|&id| shard_of_handshake(id, shards) == shard).expect("one in so many")
}

#[test]
fn callers_that_move_keep_their_sessions_and_every_frame_over_one_two_and_four_shards() {
    for (shards, packet_io) in [(1, PacketIo::Auto), (2, PacketIo::Auto), (2, PacketIo::Mmsg), (4, PacketIo::Auto)] {
        let served = Served::start_changed(shards, |config| config.shards.packet_io = packet_io);
        let mut callers = Callers::new(served.peer, Duration::from_millis(1_500), RATE_BPS);
        let mut names = Vec::new();
        for number in 0..4_u32 {
            let encrypted = number % 2 == 1;
            let name = format!("{}{number}", if encrypted { "encrypted" } else { "plain" });
            let socket = callers.open();
            let id = id_for(number as usize / 2 % shards, shards, number);
            callers.call(&name, id, encrypted.then_some(PASSPHRASE), socket);
            names.push(name);
        }
        callers.run(Duration::from_millis(700));
        let before: Vec<_> = served.streams().iter().map(|stream| stream.peer).collect();
        for moves in 1..=2 {
            for feed in 0..4 {
                callers.move_to_new_socket(feed);
            }
            let began = Instant::now();
            while served.streams().iter().any(|stream| stream.srt.is_none_or(|srt| srt.peer_changes < moves)) {
                assert!(began.elapsed() < PATIENCE, "{shards} shards: {:?}", served.streams());
                callers.run(Duration::from_millis(50));
            }
            callers.run(Duration::from_millis(700));
        }
        for stream in served.streams() {
            assert!(stream.peer.is_some_and(|peer| !before.contains(&Some(peer))), "{:?}", stream.peer);
            let told = stream.events.iter().filter(|(_, what)| what.starts_with("the peer has moved from 127.0.0.1:"));
            assert_eq!(told.count(), 2, "{:?}", stream.events);
            assert_eq!(stream.srt.map(|srt| srt.peer_changes), Some(2));
        }
        let sent = callers.finish();
        served.expect_every_frame(&names.into_iter().zip(sent).collect::<Vec<_>>());
        let owners = served.reports().iter().filter(|report| !report.streams.is_empty()).count();
        assert_eq!(owners, shards, "each has some");
    }
}

#[test]
fn packets_out_of_order_are_asked_for_at_once_unless_some_may_come_before_them() {
    let served = Served::start_changed(1, |config| {
        config.ingestion.srt.reorder_tolerance = 16;
        let strict = Stream { reorder_tolerance: Some(0), ..Stream::default() };
        config.streams.insert("strict".to_owned(), strict);
    });
    let mut callers = Callers::new(served.peer, Duration::from_millis(1_500), RATE_BPS);
    for (number, name) in [(1, "tolerant"), (2, "strict")] {
        let socket = callers.open();
        callers.call(name, id_for(0, 1, number), None, socket);
    }
    callers.reorder();
    callers.run(Duration::from_secs(2));
    let streams = served.streams();
    let srt = |name: &str| streams.iter().find(|it| it.name == name).and_then(|it| it.srt).expect("a session");
    let (tolerant, strict) = (srt("tolerant"), srt("strict"));
    assert!(strict.pkt_sent_nak > 20 && strict.pkt_rcv_recovered > 20, "each shows as a loss: {strict:?}");
    assert!(tolerant.pkt_rcv_reordered > 20 && tolerant.pkt_reorder_distance >= 3, "{tolerant:?}");
    // One that is held up for longer than two periodic reports are apart is asked for all the same.
    assert!(tolerant.pkt_sent_nak <= tolerant.pkt_rcv_reordered / 5, "none is lost: {tolerant:?}");
    assert_eq!((strict.pkt_reorder_tolerance, tolerant.pkt_reorder_tolerance > 3), (0, true));
    let sent = callers.finish();
    served.expect_every_frame(&["tolerant".to_owned(), "strict".to_owned()].into_iter().zip(sent).collect::<Vec<_>>());
}

#[test]
fn the_caller_of_a_stream_with_a_source_may_get_another_port_but_no_other_address() {
    let served = Served::start(1);
    let mut callers = Callers::new(served.peer, Duration::from_secs(4), RATE_BPS);
    let socket = callers.open();
    let caller = callers.call("pinned", 1, None, socket);
    callers.run(Duration::from_millis(300));
    let stream = |served: &Served| served.streams().pop().expect("one stream");
    let packets = stream(&served).packets_received;
    callers.move_to(caller, [127, 0, 0, 2]);
    // What comes from there is no sign of life.
    let began = Instant::now();
    while stream(&served).status != StreamStatus::Stalled {
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", stream(&served).events);
        callers.run(Duration::from_millis(50));
    }
    let report = served.report(0);
    assert!(report.counters.dropped_wrong_peer > 100, "{:?}", report.counters);
    assert_eq!(report.streams[0].srt.map(|srt| (srt.peer_changes, srt.pkt_sent_challenge)), Some((0, 0)));
    assert!(report.streams[0].packets_received < packets + 100);

    callers.move_to_new_socket(caller);
    let began = Instant::now();
    while stream(&served).srt.is_none_or(|srt| srt.peer_changes == 0) {
        assert!(began.elapsed() < PATIENCE, "{:?}", stream(&served).events);
        callers.run(Duration::from_millis(20));
    }
    callers.run(Duration::from_millis(500));
    let sent = callers.finish();
    served.expect_every_frame(&[("pinned".to_owned(), sent[0])]);
}

#[test]
fn what_one_address_may_ask_in_a_second_it_may_ask_of_all_shards_together() {
    const PER_SECOND: u64 = 40;
    const ASKED: u32 = 1_200;
    for shards in [1, 4] {
        let served = Served::start_changed(shards, |config| {
            config.ingestion.srt.access.inductions_per_second = PER_SECOND as u32;
        });
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let began = Instant::now();
        let heard = |served: &Served| {
            let all = served.reports().into_iter().map(|report| report.counters);
            all.fold([0, 0], |sum, it| [sum[0] + it.inductions, sum[1] + it.dropped_handshake_rate])
        };
        let mut buffer = Vec::new();
        for id in 1..=ASKED {
            let settings = CallerSettings::new(served.peer, id, SequenceNumber::new(77));
            Caller::new(Clock::now(), settings).poll_transmit(Clock::now(), &mut buffer).expect("an induction");
            socket.send_to(&buffer, served.peer).unwrap();
            buffer.clear();
            if id % 100 == 0 {
                // No more than a socket buffer holds.
                while heard(&served).iter().sum::<u64>() < u64::from(id) {
                    assert!(began.elapsed() < PATIENCE, "{shards} shards: {:?} of {id}", heard(&served));
                }
            }
        }
        let [answered, _] = heard(&served);
        let (at_once, meanwhile) = (4 * PER_SECOND, PER_SECOND * (began.elapsed().as_secs() + 1));
        assert!((at_once..=2 * at_once + meanwhile).contains(&answered), "{shards} shards: {answered} answered");
    }
}

/// A caller that has got as far as its conclusion, and repeats it.
struct Repeating {
    socket: UdpSocket,
    conclusion: Vec<u8>,
}

impl Repeating {
    fn new(peer: SocketAddr, stream: &str, socket_id: u32) -> Self {
        Self::on(UdpSocket::bind("127.0.0.1:0").unwrap(), peer, stream, socket_id, 77)
    }

    fn on(socket: UdpSocket, peer: SocketAddr, stream: &str, socket_id: u32, first: u64) -> Self {
        socket.connect(peer).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let settings = CallerSettings {
            stream_id: StreamId::new(stream).unwrap(),
            timeout: PATIENCE,
            ..CallerSettings::new(peer, socket_id, SequenceNumber::new(first))
        };
        let mut caller = Caller::new(Clock::now(), settings);
        let (mut packet, mut answer) = (Vec::new(), [0; 1_500]);
        let began = Instant::now();
        // An induction has no extensions.
        while packet.len() <= HEADER_LEN + HANDSHAKE_LEN {
            assert!(began.elapsed() < PATIENCE, "nobody answers");
            if !packet.is_empty() {
                socket.send(&packet).unwrap();
            }
            if let Ok(length) = socket.recv(&mut answer) {
                caller.receive(Clock::now(), peer, &answer[..length]);
            }
            packet.clear();
            caller.poll_transmit(Clock::now(), &mut packet);
        }
        Self { socket, conclusion: packet }
    }

    fn conclude(&self) {
        self.socket.send(&self.conclusion).unwrap();
    }

    /// Concludes until it is the latest of so many sessions of the only stream.
    fn become_session(&self, served: &Served, number: u32) {
        let began = Instant::now();
        while served.streams().iter().all(|stream| stream.sessions < number) {
            assert!(began.elapsed() < PATIENCE, "{:?}", served.streams());
            self.conclude();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether there is a SHUTDOWN among all that has come.
    fn was_sent_away(&self) -> bool {
        let mut packet = [0; 1_500];
        while self.socket.recv(&mut packet).is_ok() {
            if packet[..4] == [0x80, 5, 0, 0] {
                return true;
            }
        }
        false
    }

    /// The next answer, without its time stamp, which is that of its sending; `None` when there is none for a while.
    fn answer(&self) -> Option<Vec<u8>> {
        let mut answer = [0; 1_500];
        // Of a session there are other packets too: its answers are handshakes, of type 0.
        loop {
            let length = self.socket.recv(&mut answer).ok()?;
            if answer[..4] == [0x80, 0, 0, 0] {
                answer[8..12].fill(0);
                return Some(answer[..length].to_vec());
            }
        }
    }
}

#[test]
fn a_conclusion_is_admitted_wherever_it_lands_and_repeated_it_gets_the_same_answer() {
    for shards in [1, 2, 4] {
        let served = Served::start(shards);
        let mut strays = 0;
        let mut owners = vec![0; shards];
        for number in 0..2 * shards {
            // Two from each shard: the second finds another one with fewer streams.
            let origin = number / 2;
            let name = format!("repeated{number}");
            let id = id_for(origin, shards, number as u32);
            let caller = Repeating::new(served.peer, &name, id);
            (0..3).for_each(|_| caller.conclude());
            let began = Instant::now();
            let first = loop {
                if let Some(answer) = caller.answer() {
                    break answer;
                }
                assert!(began.elapsed() < PATIENCE, "{name} is not answered");
                caller.conclude();
            };
            // Its header says to whom, its body of what kind and from whom.
            let word = |at: usize| u32::from_be_bytes(first[at..at + 4].try_into().unwrap());
            let owner = shard_of_socket_id(word(HEADER_LEN + 24));
            assert_eq!((word(12), word(HEADER_LEN + 20) as i32), (id, -1), "a conclusion for this caller");
            assert_eq!(owner, served.owner(&name));
            owners[owner] += 1;
            strays += usize::from(owner != origin);
            for _ in 0..3 {
                caller.conclude();
                assert_eq!(caller.answer().expect("the same again"), first);
            }
            while let Some(answer) = caller.answer() {
                assert_eq!(answer, first);
            }
            // Its cookie is that of another address.
            let elsewhere =
                Repeating { socket: UdpSocket::bind("127.0.0.1:0").unwrap(), conclusion: caller.conclusion };
            elsewhere.socket.connect(served.peer).unwrap();
            elsewhere.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            elsewhere.conclude();
            assert_eq!(elsewhere.answer(), None);
        }
        assert_eq!(owners, vec![2; shards], "spread");
        assert_eq!(strays > 0, shards > 1, "some were admitted on another shard than they came to");
        assert!(served.streams().iter().all(|stream| stream.sessions == 1));
        let reports = served.reports();
        let total = |count: fn(&ShardReport) -> u64| reports.iter().map(count).sum::<u64>();
        assert_eq!(total(|report| report.counters.admissions), 2 * shards as u64, "each once");
        assert_eq!(total(|report| report.counters.dropped_malformed), 2 * shards as u64, "the wrong cookies");
        assert_eq!(total(|report| report.counters.rejections), 0);
    }
}

#[test]
fn a_caller_whose_name_another_takes_over_is_told_at_once_and_one_that_is_back_with_its_socket_id_is_not() {
    for shards in [1, 2] {
        let served = Served::start(shards);
        let first = Repeating::new(served.peer, "a", id_for(0, shards, 0));
        first.become_session(&served, 1);
        let id = id_for(shards - 1, shards, 1);
        let second = Repeating::new(served.peer, "a", id);
        second.become_session(&served, 2);
        assert!(first.was_sent_away());
        let restarted = Repeating::on(second.socket.try_clone().unwrap(), served.peer, "a", id, 78);
        restarted.become_session(&served, 3);
        assert!(!restarted.was_sent_away());
    }
}

#[test]
fn a_caller_whose_name_a_transport_stream_takes_over_is_told_so_whichever_shard_that_comes_to() {
    let mut nothing = [0; 188 * 7];
    nothing.chunks_mut(188).for_each(|packet| packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]));
    for (shards, origin) in [(1, 0), (2, 0), (2, 1)] {
        let source = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let served = Served::start_changed(shards, |config| {
            let rtp = StreamRtp { port: Some(port), address: Some([127, 0, 0, 1].into()), ..StreamRtp::default() };
            config.streams.insert("a".to_owned(), Stream { rtp: Some(rtp), ..Stream::default() });
        });
        let caller = Repeating::new(served.peer, "a", id_for(origin, shards, 0));
        caller.become_session(&served, 1);
        let began = Instant::now();
        while served.streams().iter().any(|stream| stream.kind == StreamKind::Srt) {
            assert!(began.elapsed() < PATIENCE, "{:?}", served.streams());
            source.send_to(&nothing, ("127.0.0.1", port)).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(caller.was_sent_away(), "{origin} of {shards}");
    }
}

/// Callers of streams that different shards own, on one socket, in bursts.
fn mixed_callers(served: &Served, latency: Duration, rate_bps: u64) -> (Callers, Vec<String>) {
    let shards = served.shards().len();
    let mut callers = Callers::new(served.peer, latency, rate_bps);
    let socket = callers.open();
    let names: Vec<String> = (0..shards).map(|number| format!("mixed{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        callers.call(name, id_for(number, shards, number as u32), None, socket);
    }
    callers.send_in_bursts_of(8);
    callers.run(Duration::from_millis(500));
    let mut owners: Vec<usize> = names.iter().map(|name| served.owner(name)).collect();
    owners.sort_unstable();
    assert_eq!(owners, (0..shards).collect::<Vec<_>>(), "one each");
    (callers, names)
}

#[test]
fn a_caller_that_was_killed_comes_back_by_the_same_port_and_leaves_the_other_caller_of_that_port_alone() {
    for shards in [1, 2] {
        let served = Served::start(shards);
        let mut callers = Callers::new(served.peer, Duration::from_millis(500), RATE_BPS);
        let socket = callers.open();
        let killed = callers.call("a", id_for(0, shards, 0), None, socket);
        callers.call("b", id_for(shards - 1, shards, 1), None, socket);
        callers.run(Duration::from_millis(500));
        let stream = |name: &str| served.streams().into_iter().find(|stream| stream.name == name).expect("a stream");
        let peer = stream("a").peer;
        assert_eq!(stream("b").peer, peer);
        callers.kill(killed);
        // The old session is still there: its peer has been silent for less than a turn.
        callers.call("a", id_for(0, shards, 2), None, socket);
        callers.run(Duration::from_millis(700));
        let again = stream("a");
        assert_eq!((again.peer, again.sessions), (peer, 2), "{:?}", again.events);
        assert!(
            again.events.iter().any(|(_, what)| what.starts_with("taken over by 127.0.0.1:")),
            "{:?}",
            again.events
        );
        let sent = callers.finish();
        served.expect_every_frame(&[("b".to_owned(), sent[1])]);
        let again = stream("a");
        let frames: u64 = again.tracks.iter().map(|track| track.statistics.frames).sum();
        assert!(frames >= sent[2].video + sent[2].audio, "{frames} of {:?}", sent[2]);
        assert_eq!(again.continuity_errors, 0);
    }
}

#[test]
fn datagrams_of_several_sessions_in_one_burst_reach_the_shards_that_own_them() {
    for shards in [2, 4] {
        let served = Served::start(shards);
        let (mut callers, names) = mixed_callers(&served, Duration::from_secs(1), RATE_BPS);
        callers.run(Duration::from_secs(1));
        let sent = callers.finish();
        served.expect_every_frame(&names.into_iter().zip(sent).collect::<Vec<_>>());
        let reports = served.reports();
        let handed_over: u64 = reports.iter().map(|report| report.counters.handed_over).sum();
        assert!(handed_over > 100, "{handed_over}");
        for ShardReport { counters, .. } in &reports {
            assert_eq!((counters.dropped_lane_full, counters.dropped_stray, counters.dropped_truncated), (0, 0, 0));
        }
    }
}

/// The thread of a shard: the first of its name, which those that it starts inherit.
fn thread_of(shard: usize) -> i32 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let name = format!("hw-shard-{shard}");
    let of_shard =
        tasks.filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(&name)));
    of_shard.map(|task| task.file_name().unwrap().to_str().unwrap().parse().unwrap()).min().expect("a shard")
}

fn frames(report: &ShardReport) -> u64 {
    report.streams.iter().flat_map(|stream| &stream.tracks).map(|track| track.statistics.frames).sum()
}

#[test]
fn a_shard_that_stalls_holds_up_its_own_streams_alone_and_they_recover() {
    let (latency, pause) = (Duration::from_secs(3), Duration::from_millis(1_500));
    for shards in [2, 4] {
        let served = Served::start(shards);
        let mut callers = Callers::new(served.peer, latency, RATE_BPS);
        let names: Vec<String> = (0..shards).map(|number| format!("stalled{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            let socket = callers.open();
            callers.call(name, id_for(number, shards, number as u32), None, socket);
        }
        // Frames come out a latency after they were sent.
        callers.run(latency + Duration::from_millis(700));
        let stalled = served.owner(&names[0]);
        let others: Vec<usize> = (0..shards).filter(|&shard| shard != stalled).collect();
        stall(thread_of(stalled), pause).unwrap();
        callers.run(Duration::from_millis(100));
        let turns = served.shards().turns()[stalled];
        let before: Vec<u64> = others.iter().map(|&shard| frames(&served.report(shard))).collect();
        loop {
            callers.run(Duration::from_millis(50));
            let now: Vec<u64> = others.iter().map(|&shard| frames(&served.report(shard))).collect();
            assert_eq!(served.shards().turns()[stalled], turns, "it stands still: {now:?} after {before:?}");
            if now.iter().zip(&before).all(|(now, before)| *now >= before + 20) {
                break;
            }
        }
        for &shard in &others {
            for stream in served.report(shard).streams {
                let srt = stream.srt.expect("an SRT session");
                assert_eq!((srt.pkt_rcv_loss, srt.pkt_rcv_belated, stream.ingest.lost), (0, 0, 0), "{}", stream.name);
            }
        }
        callers.run(pause);
        assert!(served.shards().turns()[stalled] > turns, "it goes on");
        let sent = callers.finish();
        served.expect_every_frame(&names.into_iter().zip(sent).collect::<Vec<_>>());
    }
}

#[test]
fn new_streams_that_come_by_other_shards_are_not_given_to_one_that_stalls() {
    let (latency, pause) = (Duration::from_secs(4), Duration::from_secs(3));
    for shards in [2, 4] {
        let served = Served::start(shards);
        let mut callers = Callers::new(served.peer, latency, RATE_BPS);
        let call = |callers: &mut Callers, name: &str, shard: usize, number: usize| {
            let socket = callers.open();
            callers.call(name, id_for(shard, shards, number as u32), None, socket);
        };
        for number in 0..shards {
            call(&mut callers, &format!("before{number}"), number, number);
        }
        callers.run(Duration::from_millis(500));
        let stalled = served.owner("before0");
        let others: Vec<usize> = (0..shards).filter(|&shard| shard != stalled).collect();
        stall(thread_of(stalled), pause).unwrap();
        // Until it is plain that it stands still.
        callers.run(Duration::from_millis(600));
        let turns = served.shards().turns()[stalled];
        // One more than the others have: spread by number alone, one of them would be the stalled shard's.
        for number in 0..shards {
            call(&mut callers, &format!("during{number}"), others[0], 10 + number);
        }
        loop {
            callers.run(Duration::from_millis(50));
            let streams = others.iter().flat_map(|&shard| served.report(shard).streams);
            let let_in = streams.filter(|stream| stream.name.starts_with("during") && stream.sessions == 1).count();
            assert_eq!(
                served.shards().turns()[stalled],
                turns,
                "it stands still, and {let_in} of {shards} were let in"
            );
            if let_in == shards {
                break;
            }
        }
        callers.run(pause);
        assert!(served.shards().turns()[stalled] > turns, "it goes on");
    }
}

#[test]
fn what_is_handed_to_a_shard_that_stalls_is_bounded_and_counted_and_sent_again() {
    let (latency, pause) = (Duration::from_secs(4), Duration::from_millis(1_500));
    let served = Served::start(2);
    // A thousand packets a second each: more than its lane holds.
    let (mut callers, names) = mixed_callers(&served, latency, 3 * RATE_BPS);
    let handing = served.reports().into_iter().max_by_key(|report| report.counters.handed_over).expect("two").shard;
    stall(thread_of(1 - handing), pause).unwrap();
    callers.run(pause + Duration::from_millis(500));
    let counters = served.report(handing).counters;
    assert!(counters.dropped_lane_full > 0, "{counters:?}");
    assert!(counters.dropped_lane_full < counters.handed_over);
    let sent = callers.finish();
    served.expect_every_frame(&names.into_iter().zip(sent).collect::<Vec<_>>());
    let recovered: u64 = served.streams().iter().map(|stream| stream.ingest.recovered).sum();
    assert!(recovered > 0, "what found no room was asked for again");
}
