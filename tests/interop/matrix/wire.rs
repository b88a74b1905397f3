//! The network between the appliance and its peer, and the only witness of what was sent: it knows both ends by address, as each of them
//! knows it, loses and delays by seed, and counts what it is given and what it loses.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headworks::protocol::srt::control::ControlType;
use headworks::protocol::srt::packet::{self, Header, KeyFlag};
use headworks::shard::net::random::Random;

/// How often a thread looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Headers of UDP and IPv4, which libsrt counts with each packet, whatever it came by.
const IPV4_UDP_LEN: u64 = 28;

/// What is done to datagrams, each way.
#[derive(Clone, Copy, Debug)]
pub struct Road {
    pub delay: Duration,
    pub loss: f64,
    pub seed: u64,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A data packet when it is sent first.
    First,
    /// A data packet that is sent again.
    Again,
    /// A full acknowledgement.
    Acknowledgement,
    LossReport,
}

impl Kind {
    fn of(datagram: &[u8]) -> Option<Self> {
        Some(match packet::parse(datagram).ok()? {
            Header::Data(header) if header.retransmitted => Self::Again,
            Header::Data(_) => Self::First,
            Header::Control(header) => match header.control_type {
                // Light ones have no number.
                ControlType::Acknowledgement if header.type_information != 0 => Self::Acknowledgement,
                ControlType::LossReport => Self::LossReport,
                _ => return None,
            },
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub packets: u64,
    /// With all headers.
    pub bytes: u64,
}

impl Count {
    fn with(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

/// Everything so far; each kind goes one way only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    sent: [Count; 4],
    lost: [Count; 4],
    /// Data packets that say that they are encrypted.
    pub encrypted: u64,
}

impl Tally {
    pub fn sent(&self, kind: Kind) -> Count {
        self.sent[kind as usize]
    }

    pub fn lost(&self, kind: Kind) -> Count {
        self.lost[kind as usize]
    }

    pub fn passed(&self, kind: Kind) -> Count {
        let (sent, lost) = (self.sent(kind), self.lost(kind));
        Count { packets: sent.packets - lost.packets, bytes: sent.bytes - lost.bytes }
    }

    /// Data packets, first and again.
    pub fn data_sent(&self) -> Count {
        self.sent(Kind::First).with(self.sent(Kind::Again))
    }

    pub fn data_lost(&self) -> Count {
        self.lost(Kind::First).with(self.lost(Kind::Again))
    }

    pub fn data_passed(&self) -> Count {
        self.passed(Kind::First).with(self.passed(Kind::Again))
    }

    fn note(&mut self, kind: Kind, datagram: &[u8], is_lost: bool) {
        if let Ok(Header::Data(header)) = packet::parse(datagram) {
            self.encrypted += u64::from(header.key != KeyFlag::Plain);
        }
        let mut counts = [Some(&mut self.sent), Some(&mut self.lost).filter(|_| is_lost)];
        for count in counts.iter_mut().flatten().map(|counts| &mut counts[kind as usize]) {
            count.packets += 1;
            count.bytes += datagram.len() as u64 + IPV4_UDP_LEN;
        }
    }
}

/// One side: a socket, and who is beyond it, as soon as that is known.
struct Side {
    socket: UdpSocket,
    beyond: Mutex<Option<SocketAddr>>,
}

/// What the threads share.
struct Common {
    sides: [Side; 2],
    road: Road,
    ended: AtomicBool,
    is_calm: AtomicBool,
    tally: Mutex<Tally>,
}

/// A running network.
pub struct Wire {
    /// Where the appliance finds its peer.
    pub near: SocketAddr,
    /// Where the peer finds the appliance.
    pub far: SocketAddr,
    common: Arc<Common>,
    threads: Vec<JoinHandle<()>>,
}

impl Wire {
    /// Between two sockets. Of both who is beyond may be given; otherwise it is who sends there.
    pub fn start(near: (UdpSocket, Option<SocketAddr>), far: (UdpSocket, Option<SocketAddr>), road: Road) -> Self {
        let side = |(socket, beyond): (UdpSocket, Option<SocketAddr>)| {
            socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20);
            Side { socket, beyond: Mutex::new(beyond) }
        };
        let sides = [side(near), side(far)];
        let [near, far] = sides.each_ref().map(|side| side.socket.local_addr().unwrap());
        let (ended, is_calm, tally) = (AtomicBool::new(false), AtomicBool::new(false), Mutex::default());
        let common = Arc::new(Common { sides, road, ended, is_calm, tally });
        let mut threads = Vec::new();
        for from in [0, 1] {
            let (sender, receiver) = channel();
            let [taker, giver] = [Arc::clone(&common), Arc::clone(&common)];
            threads.push(std::thread::spawn(move || taker.take(from, &sender)));
            threads.push(std::thread::spawn(move || giver.give(1 - from, &receiver)));
        }
        Self { near, far, common, threads }
    }

    /// Loses nothing any more.
    pub fn calm(&self) {
        self.common.is_calm.store(true, Ordering::Relaxed);
    }

    pub fn tally(&self) -> Tally {
        *self.common.tally.lock().unwrap()
    }
}

impl Common {
    fn take(&self, from: usize, queue: &Sender<(Instant, Vec<u8>)>) {
        // How many others there are is the machine's affair. So which are lost of those that are sent first is the same in every run.
        let mut of_first = Random::new(self.road.seed);
        let mut of_others = Random::new(!self.road.seed - from as u64);
        let mut buffer = [0; 2_048];
        while !self.ended.load(Ordering::Relaxed) {
            // Nothing came, or a port is not yet open.
            let Ok((len, sender)) = self.sides[from].socket.recv_from(&mut buffer) else { continue };
            let arrived = Instant::now();
            *self.sides[from].beyond.lock().unwrap() = Some(sender);
            let kind = Kind::of(&buffer[..len]);
            let random = if kind == Some(Kind::First) { &mut of_first } else { &mut of_others };
            let is_lost = random.chance(self.road.loss) && !self.is_calm.load(Ordering::Relaxed);
            if let Some(kind) = kind {
                self.tally.lock().unwrap().note(kind, &buffer[..len], is_lost);
            }
            if !is_lost && queue.send((arrived + self.road.delay, buffer[..len].to_vec())).is_err() {
                return;
            }
        }
    }

    fn give(&self, to: usize, queue: &Receiver<(Instant, Vec<u8>)>) {
        for (due, datagram) in queue {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let beyond = *self.sides[to].beyond.lock().unwrap();
            if let Some(beyond) = beyond {
                // It may not be there yet, or no longer.
                let _ = self.sides[to].socket.send_to(&datagram, beyond);
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.common.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
