//! libsrt's table of `SRTO_ENFORCEDENCRYPTION` (test/test_enforced_encryption.cpp), cell by cell. Media goes from the caller to the listener
//! here, so the states are those of that direction: libsrt's caller is `SRTO_SENDER` for them.

use super::*;
use crate::base::{Datagram, PacketPool, PoolOptions};
use crate::protocol::srt::connection::{Connection, Limits};
use crate::protocol::srt::encryption::KeyMaterialState::{self, *};

const A: &[u8] = b"s!t@r#i$c^t";
const B: &[u8] = b"s!t@r#i$c^tu";

/// What comes of a call.
#[derive(Debug, PartialEq, Eq)]
enum Cell {
    /// Both are connected, with these states of caller and listener; whether what is sent arrives.
    Connected(KeyMaterialState, KeyMaterialState, bool),
    /// The listener says no.
    Refused(RejectReason),
    /// The listener says yes, with this state, and the caller says no.
    HungUp(RejectReason, KeyMaterialState),
}

fn play(enforced: [bool; 2], passphrases: [Option<&'static [u8]>; 2], cipher: Cipher) -> Cell {
    let mut settings = passphrases[0].map_or_else(settings, |passphrase| encrypted(passphrase, KeyLength::Aes128));
    settings.enforced_encryption = enforced[0];
    if let Some(encryption) = &mut settings.encryption {
        encryption.cipher = cipher;
    }
    let mut conversation = Conversation::new(settings, passphrases[1]);
    conversation.enforced_encryption = enforced[1];
    let mut conversation = conversation.run();
    match conversation.outcome {
        Some(Event::Failed(CallError::Rejected(reason))) => {
            assert!(conversation.accepted.is_empty());
            Cell::Refused(reason)
        }
        Some(Event::Failed(CallError::Unacceptable(reason))) => {
            // Its goodbye came to the listener, where there is no session to take it here.
            assert_eq!(conversation.listener.counters().dropped_stray, 1);
            let state = conversation.accepted.remove(0).key_state;
            Cell::HungUp(reason, state)
        }
        _ => {
            let (caller, listener) = conversation.connected();
            let states = (caller.key_state, listener.key_state);
            Cell::Connected(states.0, states.1, arrives(caller, listener, passphrases[0].is_some()))
        }
    }
}

/// The listener's side of what was set up.
struct Receiving {
    connection: Connection,
    pool: PacketPool,
    peer: SocketAddr,
}

impl Receiving {
    fn new(parameters: ConnectionParameters, now: Instant) -> Self {
        let pool = PacketPool::new(PoolOptions { slots: 16, ..PoolOptions::default() }).expect("memory");
        let peer = parameters.peer;
        let limits = Limits { receive_buffer_packets: 64, ..Limits::default() };
        Self { connection: Connection::new(now, parameters, limits), pool, peer }
    }

    fn take(&mut self, now: Instant, bytes: &[u8]) {
        let packet = self.pool.copy_from(bytes).expect("a slot");
        self.connection
            .receive(now, Datagram { packet, peer: self.peer, local: None, interface: 0, path: 0, arrival: now });
    }
}

/// Sends ten payloads: all of them arrive as they were sent, or none does and each is counted.
fn arrives(caller: ConnectionParameters, listener: ConnectionParameters, is_encrypted: bool) -> bool {
    let mut now = caller.peer_time_base.arrival;
    let mut receiving = Receiving::new(listener, now);
    let limits = Limits { send_buffer_packets: 64, ..Limits::default() };
    let mut sender = Connection::new(now, caller, limits);
    let payload = [0x47; 1316];
    let mut sent = Vec::new();
    for _ in 0..10 {
        now += Duration::from_millis(1);
        sender.send(now, &payload).expect("room");
        let mut buffer = Vec::new();
        while sender.poll_transmit(now, &mut buffer).is_some() {
            receiving.take(now, &buffer);
            sent.push(std::mem::take(&mut buffer));
        }
    }
    let is_in_plain = |bytes: &Vec<u8>| bytes.windows(188).any(|window| window == &payload[..188]);
    assert_eq!(sent.iter().any(is_in_plain), !is_encrypted, "whatever the peer says, a secret stays one");
    now += Duration::from_secs(1);
    let mut received = 0;
    while let Some(arrived) = receiving.connection.poll_payload(now) {
        assert_eq!(arrived.packet.as_slice(), payload);
        received += 1;
    }
    let statistics = receiving.connection.statistics();
    assert_eq!((statistics.pkt_recv, statistics.pkt_rcv_undecrypt), (10, 10 - received));
    assert!(received == 0 || received == 10);
    received == 10
}

#[test]
fn every_cell_of_the_table_of_enforced_encryption_is_as_in_libsrt() {
    let cells = [(Some(A), Some(A)), (Some(A), Some(B)), (Some(A), None), (None, Some(B)), (None, None)];
    let both_enforced = || {
        [
            Cell::Connected(Secured, Secured, true),
            Cell::Refused(RejectReason::BadSecret),
            Cell::Refused(RejectReason::Unsecure),
            Cell::Refused(RejectReason::Unsecure),
            Cell::Connected(Unsecured, Unsecured, true),
        ]
    };
    let caller_enforced = [
        Cell::Connected(Secured, Secured, true),
        Cell::HungUp(RejectReason::BadSecret, BadSecret),
        Cell::HungUp(RejectReason::Unsecure, NoSecret),
        Cell::HungUp(RejectReason::Unsecure, Unsecured),
        Cell::Connected(Unsecured, Unsecured, true),
    ];
    let none_enforced = [
        Cell::Connected(Secured, Secured, true),
        Cell::Connected(BadSecret, BadSecret, false),
        Cell::Connected(NoSecret, NoSecret, false),
        // The listener has a passphrase and the caller has none: what it sends is plain, and is taken.
        Cell::Connected(Unsecured, Unsecured, true),
        Cell::Connected(Unsecured, Unsecured, true),
    ];
    // The caller's, then the listener's: rows A to D.
    let rows = [
        ([true, true], both_enforced()),
        ([true, false], caller_enforced),
        ([false, true], both_enforced()),
        ([false, false], none_enforced),
    ];
    for cipher in [Cipher::AesCtr, Cipher::AesGcm] {
        for (enforced, row) in &rows {
            for ((caller, listener), expected) in cells.into_iter().zip(row) {
                let found = play(*enforced, [caller, listener], cipher);
                assert_eq!(&found, expected, "{cipher:?}, enforced {enforced:?}, {caller:?} and {listener:?}");
            }
        }
    }
}

#[test]
fn states_of_keys_have_the_names_of_libsrt() {
    let states = [Unsecured, Securing, Secured, NoSecret, BadSecret, BadCryptoMode];
    let names = ["UNSECURED", "SECURING", "SECURED", "NOSECRET", "BADSECRET", "BADCRYPTOMODE"];
    assert_eq!(states.map(KeyMaterialState::name), names);
}
