use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::*;
use crate::shard::net::impairment::Blackout;

/// A relay in a thread of its own, and a server behind it.
struct Stage {
    server: UdpSocket,
    relay: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<RelayReport>,
}

impl Stage {
    fn new(forward: Conditions, back: Conditions, clients: usize) -> Self {
        let server = socket();
        let to = server.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (told, address) = std::sync::mpsc::channel();
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let listen = "127.0.0.1:0".parse().unwrap();
            let options = EngineOptions { listen, to, forward, back, seed: 1, clients, queue: 64 };
            let mut engine = Engine::new(options).unwrap();
            told.send(engine.address()).unwrap();
            engine.run(Duration::from_millis(1), &mut || ended.load(Ordering::Relaxed)).unwrap()
        });
        Self { server, relay: address.recv().unwrap(), stop, thread }
    }

    fn end(self) -> RelayReport {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2_048];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), from)
}

#[test]
fn every_client_has_a_port_of_its_own_and_gets_its_own_answers() {
    let stage = Stage::new(Conditions::default(), Conditions::default(), 2);
    let clients = [socket(), socket()];
    for (name, client) in [b"one", b"two"].into_iter().zip(&clients) {
        client.send_to(name, stage.relay).unwrap();
        let (asked, from) = receive(&stage.server);
        assert_eq!(asked, name);
        stage.server.send_to(&[b"re: ", &name[..]].concat(), from).unwrap();
        assert_eq!(receive(client), ([b"re: ", &name[..]].concat(), stage.relay));
    }
    // A third one finds no room.
    socket().send_to(b"three", stage.relay).unwrap();
    clients[0].send_to(b"again", stage.relay).unwrap();
    assert_eq!(receive(&stage.server).0, b"again");
    let report = stage.end();
    assert_eq!((report.clients, report.ignored), (2, 1));
    assert_eq!((report.forward.delivered, report.back.delivered), (3, 2));
}

#[test]
fn delay_and_duplication_work_each_way_by_itself() {
    let forward = Conditions { delay: Duration::from_millis(30), ..Conditions::default() };
    let back = Conditions { duplicate: 1.0, ..Conditions::default() };
    let stage = Stage::new(forward, back, 1);
    let client = socket();
    let sent = Instant::now();
    client.send_to(b"late", stage.relay).unwrap();
    let (_, from) = receive(&stage.server);
    assert!(sent.elapsed() >= Duration::from_millis(30));
    stage.server.send_to(b"twice", from).unwrap();
    assert_eq!((receive(&client).0, receive(&client).0), (b"twice".to_vec(), b"twice".to_vec()));
    let report = stage.end();
    assert_eq!((report.forward.counts.duplicated, report.back.counts.duplicated), (0, 1));
    assert_eq!((report.forward.delivered, report.back.delivered), (1, 2));
}

#[test]
fn a_blackout_passes_nothing_and_says_so() {
    let dark = Blackout { from: Duration::ZERO, length: Duration::from_secs(3_600) };
    let stage = Stage::new(Conditions { blackouts: vec![dark], ..Conditions::default() }, Conditions::default(), 1);
    let client = socket();
    for _ in 0..10 {
        client.send_to(b"x", stage.relay).unwrap();
    }
    stage.server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(stage.server.recv_from(&mut [0; 16]).is_err());
    let report = stage.end();
    assert_eq!((report.forward.counts.lost_blackout, report.forward.delivered), (10, 0));
    assert!(report.to_string().contains("10 in, 0 out; 10 lost (0 random, 0 in 0 bursts, 10 blackout"));
}

#[test]
fn more_under_way_than_there_is_room_for_is_lost_and_counted() {
    let far = Conditions { delay: Duration::from_secs(60), ..Conditions::default() };
    let stage = Stage::new(far, Conditions::default(), 1);
    let client = socket();
    for _ in 0..100 {
        client.send_to(b"x", stage.relay).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    let report = stage.end();
    assert_eq!((report.forward.counts.datagrams, report.forward.no_room, report.forward.delivered), (100, 36, 0));
}

#[test]
fn how_late_it_was_itself_is_told() {
    let listen = "127.0.0.1:0".parse().unwrap();
    let (forward, back) = (Conditions::default(), Conditions::default());
    let mut engine =
        Engine::new(EngineOptions { listen, to: listen, forward, back, seed: 1, clients: 1, queue: 64 }).unwrap();
    let mut looks = 0;
    let report = engine.run(Duration::from_millis(1), &mut || {
        std::thread::sleep(Duration::from_millis(50));
        looks += 1;
        looks == 2
    });
    let report = report.unwrap();
    assert!(report.late_max_us >= 49_000, "{report}");
    assert!(report.to_string().contains(&format!("late by {} us at most", report.late_max_us)), "{report}");
}
