//! Files in virtual time: whatever the network does, every byte arrives, in order and once, and nobody holds more than was planned for.

use std::cmp::Reverse;
use std::net::SocketAddr;

use headworks::base::{Datagram, Instant};
use headworks::protocol::srt::connection::{CloseReason, Connection, Event, Limits};
use headworks::protocol::srt::encryption::{
    Cipher, Encryption, KeyLength, KeyRefresh, SALT_LEN, derive_key_encrypting_key,
};
use headworks::protocol::srt::packet::SequenceNumber;
use headworks::protocol::srt::parameters::{ConnectionParameters, Features, PeerTimeBase, Role};
use headworks::protocol::srt::statistics::Statistics;
use headworks::protocol::srt::transmission_mode::TransmissionMode;

use crate::link::{Conditions, InFlight, Link, MS, PORT};
use crate::random::Random;
use crate::twin::Machine;

/// Both look at their datagrams and timers once in so many ns.
const TURN: u64 = MS / 4;
/// The clock at the beginning.
const EPOCH: u64 = 1_000_000 * MS;
/// No transfer here takes longer.
const END: u64 = 1_200_000 * MS;

#[derive(Clone, Debug)]
struct Script {
    seed: u64,
    there: Conditions,
    back: Conditions,
    /// Bytes of the file.
    size: u64,
    window: usize,
    mode: TransmissionMode,
    initial_sequence: u64,
    encryption: Option<(Cipher, KeyLength)>,
    /// What the receiver's application takes, in bytes per ms; any number without.
    reads: Option<u64>,
    /// From … to, in ns: it takes nothing.
    pause: (u64, u64),
    /// When both connections are put down as bytes and taken up again, in ns.
    upgrades: Vec<u64>,
    /// When the sender is closed, whatever has been acknowledged.
    cut: Option<u64>,
}

impl Default for Script {
    fn default() -> Self {
        let path = Conditions { delay: 15 * MS, ..Conditions::default() };
        Self {
            seed: 1,
            there: path.clone(),
            back: path,
            size: 10_000_000,
            window: 8_192,
            mode: TransmissionMode::Buffer,
            initial_sequence: 12_345,
            encryption: None,
            reads: None,
            pause: (0, 0),
            upgrades: Vec::new(),
            cut: None,
        }
    }
}

#[derive(Debug)]
struct Outcome {
    /// When the last byte was read.
    took: u64,
    read: u64,
    closed: Option<CloseReason>,
    sender: Statistics,
    receiver: Statistics,
    /// The most that the receive buffer held.
    most_held: usize,
    /// The longest time without a packet from the sender, while the receiver's application paused.
    sent_in_pause: u64,
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 9_000))
}

fn at(now: u64) -> Instant {
    Instant::from_nanos(EPOCH + now)
}

/// The byte of the file at an offset.
fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn machines(script: &Script) -> [Machine; 2] {
    let keys = script.encryption.map(|(cipher, length)| {
        let salt = [5; SALT_LEN];
        let kek = || derive_key_encrypting_key(b"correct horse", &salt, length);
        let refresh = KeyRefresh { after_packets: 4_000, announce_packets: 1_000 };
        let (sending, message) = Encryption::initiate(kek(), cipher, salt, [7; 32], refresh);
        let receiving = Encryption::accept(kek(), &message, [8; 32], refresh).expect("the same passphrase");
        [sending, receiving]
    });
    let [sending, receiving] = keys.map_or([None, None], |keys| keys.map(Some));
    let of = |id: u8, peer: u8, role, encryption| ConnectionParameters {
        role,
        mode: script.mode,
        socket_id: u32::from(id),
        peer_socket_id: u32::from(peer),
        initial_sequence: SequenceNumber::new(script.initial_sequence),
        peer_time_base: PeerTimeBase { timestamp_us: 0, arrival: at(script.there.delay) },
        receive_latency_ms: 0,
        send_latency_ms: 0,
        flow_window: script.window as u32,
        peer_flow_window: script.window as u32,
        features: Features::in_mode(script.mode, script.mode.flags()),
        encryption,
        ..ConnectionParameters::plain(role, address(peer), at(0))
    };
    let limits = Limits { receive_buffer_packets: 64, ..Limits::default() };
    let sender = Limits { send_buffer_packets: script.window, ..limits };
    let receiver = Limits { receive_buffer_packets: script.window, ..limits };
    let slots = script.window.next_power_of_two() + 64;
    [
        Machine::new(Connection::new(at(0), of(1, 2, Role::Sender, sending), sender), slots),
        Machine::new(Connection::new(at(0), of(2, 1, Role::Receiver, receiving), receiver), slots),
    ]
}

/// Plays a script until the receiver has heard of the end.
fn play(script: &Script) -> Outcome {
    let mut random = Random::new(script.seed);
    let mut links = [
        Link::new(script.there.clone(), Random::new(random.next())),
        Link::new(script.back.clone(), Random::new(random.next())),
    ];
    let [mut sender, mut receiver] = machines(script);
    let payload_len = sender.parameters().payload_size_max() as u64;
    let mut in_flight = InFlight::new();
    let mut posted = 0_u64;
    let (mut written, mut read, mut took, mut most_held, mut sent_in_pause) = (0, 0, 0, 0, 0);
    let mut farewell: Option<(Vec<u8>, u32)> = None;
    let mut closed = None;
    let mut upgrades = script.upgrades.clone();
    let mut buffer = Vec::new();
    let mut now = 0;
    let mut credit = 0_u64;
    while closed.is_none() {
        assert!(now < END, "{read} of {} bytes after {} s", script.size, now / MS / 1_000);
        while let Some(Reverse((arrival, ..))) = in_flight.peek()
            && *arrival <= now
        {
            let Some(Reverse((arrival, _, is_forward, _, bytes))) = in_flight.pop() else { break };
            let (machine, peer) = if is_forward { (&mut receiver, address(1)) } else { (&mut sender, address(2)) };
            let packet = machine.pool.copy_from(&bytes).expect("a slot: the receive buffer is bounded");
            let datagram = Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: at(arrival) };
            machine.receive(at(now), datagram);
        }
        for machine in [&mut sender, &mut receiver] {
            if machine.next_timeout().is_some_and(|due| due <= at(now)) {
                machine.handle_timeout(at(now));
            }
        }
        if upgrades.last().is_some_and(|&upgrade| upgrade <= now) {
            upgrades.pop();
            sender.upgrade();
            receiver.upgrade();
        }
        // The sending application.
        while written < script.size && !sender.is_send_buffer_full() && !sender.is_closed() {
            let end = script.size.min(written + payload_len);
            let payload: Vec<u8> = (written..end).map(byte).collect();
            sender.send(at(now), &payload).expect("there is room");
            written = end;
        }
        let statistics = sender.gauged();
        let is_cut = script.cut.is_some_and(|cut| cut <= now);
        if ((written == script.size && statistics.pkt_snd_buf == 0) || is_cut) && !sender.is_closed() {
            sender.close(at(now), CloseReason::Local);
        }
        // The receiving one.
        let is_paused = (script.pause.0..script.pause.1).contains(&now);
        credit = match script.reads {
            Some(per_ms) => (credit + per_ms * TURN / MS).min(per_ms.max(2 * payload_len)),
            None => u64::MAX,
        };
        most_held = most_held.max(receiver.held_packets());
        while !is_paused
            && credit >= payload_len
            && let Some(payload) = receiver.poll_payload(at(now), script.seed.is_multiple_of(2))
        {
            let bytes = &payload.packet;
            assert_eq!(payload.lost_before, 0, "nothing is given up");
            assert!(bytes.iter().enumerate().all(|(n, &it)| it == byte(read + n as u64)), "bytes from {read} on");
            read += bytes.len() as u64;
            credit -= if script.reads.is_some() { bytes.len() as u64 } else { 0 };
            took = now;
        }
        while let Some(event) = receiver.poll_event() {
            if let Event::Closed(reason) = event {
                closed = Some(reason);
            }
        }
        // Both links.
        for (machine, is_forward) in [(&mut sender, true), (&mut receiver, false)] {
            let link = &mut links[usize::from(!is_forward)];
            let was_closed = machine.is_closed();
            let mut post = |bytes: &[u8]| {
                for arrival in link.arrivals(now, bytes.len()).into_iter().flatten() {
                    posted += 1;
                    in_flight.push(Reverse((arrival, posted, is_forward, PORT, bytes.to_vec())));
                }
            };
            while machine.poll_transmit(at(now), &mut buffer).is_some() {
                post(&buffer);
                sent_in_pause += u64::from(is_forward && is_paused && now > script.pause.0 + 2_000 * MS);
                if was_closed && is_forward {
                    farewell = Some((buffer.clone(), 20));
                }
                buffer.clear();
            }
            if is_forward
                && let Some((bytes, left)) = farewell.as_mut().filter(|(_, left)| *left > 0)
                && now % (40 * MS) < TURN
            {
                post(bytes);
                *left -= 1;
            }
        }
        now += TURN;
    }
    sender.end_twin();
    Outcome { took, read, closed, sender: sender.gauged(), receiver: receiver.gauged(), most_held, sent_in_pause }
}

/// What must hold of every transfer that is not cut.
fn check(script: &Script, outcome: &Outcome) {
    // Nothing answers a shutdown: one that falls into the dark with all its repeats is never heard of.
    let is_dark = !script.there.blackouts.is_empty();
    let is_over = |reason| reason == CloseReason::PeerShutdown || is_dark && reason == CloseReason::PeerIdle;
    assert!(outcome.read == script.size && outcome.closed.is_some_and(is_over), "{outcome:?} of {script:#?}");
    let Outcome { sender, receiver, .. } = outcome;
    assert_eq!((receiver.pkt_rcv_drop, sender.pkt_snd_drop, receiver.pkt_rcv_undecrypt), (0, 0, 0));
    assert_eq!(receiver.pkt_recv_unique, receiver.pkt_delivered);
    assert_eq!((receiver.sequence_jumps, sender.pkt_sent_drop_request), (0, 0));
    assert!(outcome.most_held <= script.window.next_power_of_two());
}

fn goodput_mbps(outcome: &Outcome) -> f64 {
    outcome.read as f64 * 8.0 / (outcome.took as f64 / 1e9) / 1e6
}

fn random_script(seed: u64) -> Script {
    let mut random = Random::new(seed.wrapping_mul(31));
    let delay = random.pick(&[0, 5, 40, 120]) * MS;
    let mut path = |loss: &[u32]| Conditions {
        delay,
        jitter: random.pick(&[0, 0, 3]) * MS,
        loss: random.pick(loss),
        burst: random.pick(&[0, 0, 300]),
        burst_length: 60 * MS,
        reorder: random.pick(&[0, 0, 20_000]),
        reorder_delay: random.pick(&[1, 20]) * MS,
        duplicate: random.pick(&[0, 0, 20_000]),
        ..Conditions::default()
    };
    let (there, back) = (path(&[0, 1_000, 20_000, 100_000]), path(&[0, 20_000, 100_000]));
    let dark = random.between(100, 1_500) * MS;
    let blackouts =
        if random.per_million(200_000) { vec![(dark, dark + random.between(50, 3_000) * MS)] } else { vec![] };
    let size = random.between(1, 1_500_000);
    Script {
        seed,
        there: Conditions {
            rate: random.pick(&[None, Some(5_000_000), Some(40_000_000)]),
            queue: random.pick(&[20, 200]) * MS,
            blackouts: blackouts.clone(),
            ..there
        },
        back: Conditions { blackouts, ..back },
        size,
        window: random.pick(&[64, 256, 2_048]),
        mode: random.pick(&[TransmissionMode::Buffer, TransmissionMode::Message]),
        initial_sequence: random.pick(&[0, 77, (1 << 31) - 300, (1 << 31) - 1]),
        encryption: random.pick(&[
            None,
            Some((Cipher::AesCtr, KeyLength::Aes128)),
            Some((Cipher::AesCtr, KeyLength::Aes256)),
            Some((Cipher::AesGcm, KeyLength::Aes128)),
        ]),
        reads: random.pick(&[None, None, Some(400)]),
        pause: if random.per_million(200_000) { (200 * MS, random.between(300, 7_000) * MS) } else { (0, 0) },
        upgrades: if random.per_million(250_000) { vec![900 * MS, 300 * MS] } else { vec![] },
        cut: None,
    }
}

#[test]
fn every_byte_of_a_file_arrives_whatever_the_network_does() {
    let first = crate::from_environment("HEADWORKS_SIM_FIRST").unwrap_or(1);
    let count = crate::from_environment("HEADWORKS_SIM_SEEDS").unwrap_or(120);
    for seed in first..first + count {
        let script = random_script(seed);
        let played = std::panic::catch_unwind(|| check(&script, &play(&script)));
        assert!(played.is_ok(), "of seed {seed}: {script:#?}");
    }
}

#[test]
fn keys_change_in_the_middle_of_a_file() {
    for cipher in [Cipher::AesCtr, Cipher::AesGcm] {
        let lossy = Conditions { delay: 5 * MS, loss: 10_000, ..Conditions::default() };
        let script = Script {
            there: lossy.clone(),
            back: lossy,
            size: 15_000_000,
            window: 1_024,
            encryption: Some((cipher, KeyLength::Aes128)),
            ..Script::default()
        };
        let outcome = play(&script);
        check(&script, &outcome);
        assert!(outcome.receiver.key_refreshes >= 2, "{}", outcome.receiver.key_refreshes);
    }
}

#[test]
fn a_sender_of_a_file_finds_most_of_a_link_and_does_not_flood_it() {
    for (rate, delay, queue) in [(20_000_000, 5, 50), (50_000_000, 20, 60), (100_000_000, 40, 100)] {
        let there = Conditions { delay: delay * MS, rate: Some(rate), queue: queue * MS, ..Conditions::default() };
        let back = Conditions { delay: delay * MS, ..Conditions::default() };
        // Some twelve seconds' worth.
        let script = Script { there, back, size: rate / 8 * 12, ..Script::default() };
        let outcome = play(&script);
        check(&script, &outcome);
        let share = goodput_mbps(&outcome) * 1e6 / rate as f64;
        let again = outcome.sender.pkt_retrans as f64 / outcome.sender.pkt_sent_unique as f64;
        println!("{} Mbit/s: {share:.3} of it, {again:.3} sent again, {:?}", rate / 1_000_000, outcome.sender);
        assert!(share > 0.75, "{share:.3} of {rate} bit/s");
        assert!(again < 0.2, "{again:.3} of the packets were sent again over {rate} bit/s");
    }
}

#[test]
fn a_sender_backs_off_when_the_link_becomes_narrow() {
    let link = |rate| Script {
        there: Conditions { delay: 15 * MS, rate: Some(rate), queue: 40 * MS, ..Conditions::default() },
        size: 8_000_000,
        ..Script::default()
    };
    let (wide, narrow) = (play(&link(80_000_000)), play(&link(8_000_000)));
    assert!(narrow.sender.pkt_snd_loss > 0, "it goes to the limit");
    let (wide_us, narrow_us) = (wide.sender.us_pkt_snd_period, narrow.sender.us_pkt_snd_period);
    // The narrow one takes a packet each 1,500 µs.
    assert!((1_300.0..2_500.0).contains(&narrow_us) && wide_us < narrow_us / 3.0, "{wide_us} and {narrow_us} µs");
}

#[test]
fn a_slow_reader_stops_the_sender_and_loses_nothing() {
    // 8 Mbit/s.
    let script = Script { size: 6_000_000, window: 512, reads: Some(1_000), ..Script::default() };
    let outcome = play(&script);
    check(&script, &outcome);
    assert!(outcome.took >= 5_900 * MS, "read at its own pace: {} ms", outcome.took / MS);
    assert_eq!((outcome.receiver.pkt_rcv_no_room, outcome.sender.pkt_retrans), (0, 0), "the window says it all");
    assert!((400..=512).contains(&outcome.most_held), "{}", outcome.most_held);
}

#[test]
fn a_reader_that_stops_for_half_a_minute_is_waited_for() {
    let script = Script { size: 4_000_000, window: 256, pause: (300 * MS, 30_000 * MS), ..Script::default() };
    let outcome = play(&script);
    check(&script, &outcome);
    assert!(outcome.took > 30_000 * MS);
    assert_eq!((outcome.sender.pkt_retrans, outcome.receiver.pkt_rcv_no_room), (0, 0));
    // Keep-alives, and answers to the acknowledgement that is repeated until it is answered.
    assert!(outcome.sent_in_pause < 100, "{}", outcome.sent_in_pause);
}

#[test]
fn when_loss_reports_are_lost_everything_is_sent_again_in_the_end() {
    let script = Script {
        there: Conditions { delay: 15 * MS, loss: 30_000, ..Conditions::default() },
        back: Conditions { delay: 15 * MS, loss: 300_000, ..Conditions::default() },
        size: 3_000_000,
        ..Script::default()
    };
    let outcome = play(&script);
    check(&script, &outcome);
    assert!(outcome.sender.pkt_retrans > outcome.sender.pkt_snd_loss, "some without being asked for");
}

#[test]
fn an_end_that_comes_too_early_is_no_end_of_a_file() {
    let lossy = Conditions { delay: 15 * MS, loss: 50_000, ..Conditions::default() };
    let script = Script { there: lossy, size: 20_000_000, cut: Some(400 * MS), ..Script::default() };
    let outcome = play(&script);
    assert_eq!(outcome.closed, Some(CloseReason::PeerShutdown));
    assert!(outcome.read < script.size);
    assert!(outcome.receiver.pkt_rcv_drop > 0, "what was missing then is told");
    assert_eq!(outcome.receiver.pkt_rcv_buf, 0);
}
