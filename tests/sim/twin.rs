//! A connection that is put down as bytes and taken up again at any moment: in its own place, as in an upgrade, or beside itself,
//! and then both hear the same and must do the same, byte for byte.

use std::time::Duration;

use headworks::base::{Datagram, Instant, Transmit};
use headworks::media::Payload;
use headworks::protocol::srt::connection::{CloseReason, Connection, Event};
use headworks::protocol::srt::encryption::{KeyEncryptingKey, KeyMaterial};
use headworks::protocol::srt::parameters::ConnectionParameters;
use headworks::protocol::srt::sender::SendError;
use headworks::protocol::srt::statistics::Statistics;
use headworks_packet::{PacketPool, PoolOptions};

/// More than any connection of a simulation has room for.
const SLOTS_MAX: usize = 1 << 14;

pub struct Machine {
    connection: Connection,
    /// Packet memory of the connection.
    pub pool: PacketPool,
    twin: Option<Box<(Connection, PacketPool)>>,
    buffer: Vec<u8>,
}

fn pool_of(slots: usize) -> PacketPool {
    PacketPool::new(PoolOptions { slots, ..PoolOptions::default() }).expect("memory")
}

fn snapshot(connection: &Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    connection.snapshot(&mut bytes);
    bytes
}

fn restored(bytes: &[u8], pool: &PacketPool) -> Connection {
    let connection =
        Connection::restore(bytes, SLOTS_MAX, |bytes| pool.copy_from(bytes)).expect("what was just written");
    assert!(snapshot(&connection) == bytes, "a snapshot of what was restored is the same");
    connection
}

impl Machine {
    pub fn new(connection: Connection, slots: usize) -> Self {
        Self { connection, pool: pool_of(slots), twin: None, buffer: Vec::new() }
    }

    /// Another process goes on with it, and has nothing but the bytes.
    pub fn upgrade(&mut self) {
        self.end_twin();
        let pool = pool_of(self.pool.total_slots());
        self.connection = restored(&snapshot(&self.connection), &pool);
        self.pool = pool;
    }

    /// From now on there are two of it.
    pub fn split(&mut self) {
        self.end_twin();
        let pool = pool_of(self.pool.total_slots());
        self.twin = Some(Box::new((restored(&snapshot(&self.connection), &pool), pool)));
    }

    /// Both must be the same to the last bit.
    pub fn end_twin(&mut self) {
        if let Some(twin) = self.twin.take() {
            assert!(snapshot(&self.connection) == snapshot(&twin.0), "the two have come apart");
        }
    }

    /// Asks both for the same; their answers must be the same.
    fn both<T: PartialEq + std::fmt::Debug>(&mut self, act: impl Fn(&mut Connection) -> T) -> T {
        let answer = act(&mut self.connection);
        if let Some(twin) = &mut self.twin {
            assert_eq!(act(&mut twin.0), answer, "of the restored one, and of the first");
        }
        answer
    }

    pub fn receive(&mut self, now: Instant, datagram: Datagram) {
        if let Some(twin) = &mut self.twin {
            let packet = twin.1.copy_from(&datagram.packet).expect("a slot: the receive buffer is bounded");
            let Datagram { peer, local, interface, path, arrival, .. } = datagram;
            twin.0.receive(now, Datagram { packet, peer, local, interface, path, arrival });
        }
        self.connection.receive(now, datagram);
    }

    pub fn send(&mut self, now: Instant, payload: &[u8]) -> Result<(), SendError> {
        self.both(|connection| connection.send(now, payload))
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.both(|connection| connection.handle_timeout(now));
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let next = self.connection.next_timeout();
        if let Some(twin) = &self.twin {
            assert_eq!(twin.0.next_timeout(), next, "of the restored one, and of the first");
        }
        next
    }

    pub fn poll_payload(&mut self, now: Instant, early: bool) -> Option<Payload> {
        let poll = |connection: &mut Connection| {
            if early { connection.poll_payload_early(now) } else { connection.poll_payload(now) }
        };
        let payload = poll(&mut self.connection);
        if let Some(twin) = &mut self.twin {
            let all = |payload: &Payload| {
                let Payload { packet, arrival, due, sequence, lost_before, recovered, path_mask, ends_message } =
                    payload;
                let told = (*arrival, *due, *sequence, *lost_before, *recovered, *path_mask, *ends_message);
                (packet.to_vec(), told)
            };
            assert_eq!(poll(&mut twin.0).as_ref().map(all), payload.as_ref().map(all), "restored, and first");
        }
        payload
    }

    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let start = buffer.len();
        let transmit = self.connection.poll_transmit(now, buffer);
        if let Some(twin) = &mut self.twin {
            self.buffer.clear();
            assert_eq!(twin.0.poll_transmit(now, &mut self.buffer), transmit, "of the restored one, and of the first");
            assert!(self.buffer == buffer[start..], "the two send other bytes");
        }
        transmit
    }

    /// Of a receiver with a peer of version 4 of the handshake: what it waits for.
    pub fn provide_key(&mut self, derive: impl Fn(&KeyMaterial) -> KeyEncryptingKey) {
        self.both(|connection| {
            if let Some(key) = connection.wanted_key().map(&derive) {
                connection.provide_key(key);
            }
        });
    }

    pub fn is_introduced(&self) -> bool {
        self.connection.is_introduced()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.both(Connection::poll_event)
    }

    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        self.both(|connection| connection.close(now, reason));
    }

    pub fn held_packets(&self) -> usize {
        self.connection.held_packets()
    }

    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    pub fn parameters(&self) -> &ConnectionParameters {
        self.connection.parameters()
    }

    pub fn statistics(&self) -> &Statistics {
        self.connection.statistics()
    }

    /// What has been counted, with what stands there now.
    pub fn gauged(&mut self) -> Statistics {
        self.both(Connection::gauge);
        *self.connection.statistics()
    }

    pub fn is_send_buffer_full(&mut self) -> bool {
        self.both(|connection| connection.is_send_buffer_full())
    }

    /// The round trip as it is known now.
    pub fn round_trip(&mut self) -> Duration {
        self.both(Connection::gauge);
        Duration::from_secs_f64(self.connection.statistics().ms_rtt / 1_000.0)
    }
}
