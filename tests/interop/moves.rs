//! Callers behind a router that gives them another address while they send: libsrt's tool notices nothing, and neither do readers.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::appliance::Appliance;
use crate::loss::long_clip;
use crate::senders::SrtSender;

const LATENCY_MS: u32 = 1_000;
/// How soon a thread of the router sees that it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A router for one caller: what it sends goes on from one port of its own at a time.
struct Router {
    inside: UdpSocket,
    caller: Mutex<Option<SocketAddr>>,
    outside: Mutex<UdpSocket>,
    server: SocketAddr,
    ended: AtomicBool,
}

impl Router {
    fn new(server: SocketAddr) -> Arc<Self> {
        let inside = UdpSocket::bind("127.0.0.1:0").unwrap();
        inside.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        let outside = Self::open("127.0.0.1", server);
        Arc::new(Self {
            inside,
            caller: Mutex::new(None),
            outside: Mutex::new(outside),
            server,
            ended: AtomicBool::new(false),
        })
    }

    fn open(address: &str, server: SocketAddr) -> UdpSocket {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        socket
    }

    /// The caller appears at another port, and at this address, from now on; nothing reaches it by the old one.
    fn rebind(&self, address: &str) {
        *self.outside.lock().unwrap() = Self::open(address, self.server);
    }

    fn start(self: &Arc<Self>) -> [JoinHandle<()>; 2] {
        let (there, back) = (Arc::clone(self), Arc::clone(self));
        [std::thread::spawn(move || there.forward()), std::thread::spawn(move || back.answer())]
    }

    fn forward(&self) {
        let mut buffer = [0; 2_048];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((length, caller)) = self.inside.recv_from(&mut buffer) else { continue };
            *self.caller.lock().unwrap() = Some(caller);
            // Nobody listens any more when the appliance has ended.
            let _ = self.outside.lock().unwrap().send(&buffer[..length]);
        }
    }

    fn answer(&self) {
        let mut buffer = [0; 2_048];
        while !self.ended.load(Ordering::Relaxed) {
            let outside = self.outside.lock().unwrap().try_clone().unwrap();
            let Ok(length) = outside.recv(&mut buffer) else { continue };
            let is_current = outside.local_addr().unwrap() == self.outside.lock().unwrap().local_addr().unwrap();
            if let Some(caller) = *self.caller.lock().unwrap()
                && is_current
            {
                let _ = self.inside.send_to(&buffer[..length], caller);
            }
        }
    }
}

fn a_caller_moves_three_times(settings: &[&str], query: &str) {
    let appliance = Appliance::start(settings);
    let clip = long_clip();
    let router = Router::new(SocketAddr::from(([127, 0, 0, 1], appliance.ports.srt)));
    let threads = router.start();
    let tap = appliance.tap("moving");
    let inside = router.inside.local_addr().unwrap();
    let mut sender = SrtSender::to(inside, LATENCY_MS, &format!("streamid=moving{query}"));
    sender.wait_for_connection();
    let mover = {
        let router = Arc::clone(&router);
        // A second port, another host, and back to the first.
        std::thread::spawn(move || {
            for address in ["127.0.0.1", "127.0.0.2", "127.0.0.1"] {
                std::thread::sleep(Duration::from_millis(1_500));
                router.rebind(address);
            }
        })
    };
    sender.send(&clip.bytes);
    mover.join().unwrap();
    assert_eq!(appliance.metric("headworks_stream_peer_changes_total"), 3.0);
    assert_eq!(appliance.metric("headworks_stream_sessions_total"), 1.0);
    sender.finish();
    let frames = tap.wait_for(clip.reference.packet_count());
    clip.reference.compare("a caller that moves", &frames);
    let log = appliance.log();
    assert_eq!(log.matches("the peer has moved from 127.0.0.").count(), 3, "{log}");
    assert!(log.contains(" to 127.0.0.2:"), "{log}");
    router.ended.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn srt_live_transmit_in_plain_that_gets_other_addresses_loses_no_frame() {
    a_caller_moves_three_times(&[], "");
}

#[test]
fn srt_live_transmit_with_a_passphrase_that_gets_other_addresses_loses_no_frame() {
    a_caller_moves_three_times(
        &["ingestion.srt.passphrase=known to everybody"],
        "&passphrase=known to everybody&pbkeylen=16",
    );
}
