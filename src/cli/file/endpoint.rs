//! One socket that calls or listens in file mode, and the connections that come of it: time and datagrams for protocol machines.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Denial;
use super::location::Location;
use super::passphrase::{Passphrases, Proof};
use crate::base::{Datagram, Instant, Rate, Transmit};
use crate::protocol::srt::caller::{self, CallError, Caller, CallerEncryption, CallerSettings};
use crate::protocol::srt::connection::{Connection, Limits};
use crate::protocol::srt::encryption::{KeyRefresh, SALT_LEN, derive_key_encrypting_key};
use crate::protocol::srt::listener::{
    Acceptance, AdmissionRequest, Event as ListenerEvent, Listener, ListenerSettings, Refusal,
};
use crate::protocol::srt::packet::{self, SequenceNumber};
use crate::protocol::srt::parameters::Role;
use crate::protocol::srt::stream_id::StreamId;
use crate::shard::clock::Clock;
use crate::shard::net::Incoming;
use crate::shard::net::outbound::{Outbound, OutboundError, OutboundOptions, OutboundSocket};

/// Slots lent to the kernel.
const CREDIT: u16 = 1_024;
/// What comes within such a time is taken in together.
const WINDOW: Duration = Duration::from_micros(200);
/// Without traffic for so long, the next datagram is waited for by itself.
const IDLE: Duration = Duration::from_millis(10);
/// The longest sleep: an interruption is not noticed earlier.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// Datagrams of one connection that leave in one turn.
const BURST_MAX: usize = 128;
const RECEIVE_BUFFER: usize = 16 << 20;
/// How often the end is told, and how far apart: the peer that misses it takes the transfer for broken.
const FAREWELLS: u32 = 5;
const FAREWELL_INTERVAL: Duration = Duration::from_millis(40);
/// Handshakes of one source, of each kind: enough for a machine that sends one small file after the other.
const HANDSHAKES_PER_SECOND: u32 = 100;
/// Why somebody is refused for whom everything else is right.
const UNSETTLED: &str = "it asks for what a file does not have";

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// No socket, no ring, no packet memory.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The system has no randomness.
    #[error("no randomness: {0}")]
    Randomness(getrandom::Error),
}

/// What happens at it.
#[derive(Debug)]
pub enum EndpointEvent {
    /// A call of ours has been answered; the connection has this number.
    Connected(u32),
    /// A call of ours has failed.
    Failed(CallError),
    /// Somebody wants to connect: to be [answered](Endpoint::answer).
    Asked(Box<AdmissionRequest>),
    /// Somebody was refused because of the handshake.
    Refused(Refusal),
}

/// Both sides of the connections of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointOptions {
    /// Whether files are sent or received.
    pub role: Role,
    /// Packets of the send buffer, or of the receive buffer, of one connection.
    pub window: usize,
    /// Connections at a time.
    pub connections: usize,
    /// How long to try to connect.
    pub connect_timeout: Duration,
}

/// An end of a connection that is told again.
struct Farewell {
    datagram: Vec<u8>,
    transmit: Transmit,
    at: Instant,
    times_left: u32,
}

/// The endpoint.
pub struct Endpoint {
    net: Outbound,
    socket: usize,
    address: SocketAddr,
    clock: Clock,
    location: Location,
    options: EndpointOptions,
    listener: Option<Listener>,
    passphrases: Passphrases,
    caller: Option<Caller>,
    connections: BTreeMap<u32, Connection>,
    farewells: Vec<Farewell>,
    events: VecDeque<EndpointEvent>,
    arrived: Vec<Incoming>,
    buffer: Vec<u8>,
    busy_at: Instant,
}

impl Endpoint {
    /// Opens the socket. One that is to call calls when it is [told to](Self::call).
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn open(location: Location, options: EndpointOptions) -> Result<Self, EndpointError> {
        let held = if options.role.receives() { options.window.next_power_of_two() * options.connections } else { 0 };
        let mut net = Outbound::new(OutboundOptions {
            slots: held + 2 * usize::from(CREDIT),
            credit: CREDIT,
            aggregates: false,
        })?;
        let mut listener = None;
        let socket = if location.listens {
            let mut cookie_secret = [0; 16];
            getrandom::fill(&mut cookie_secret).map_err(EndpointError::Randomness)?;
            let handshakes = Rate::new(HANDSHAKES_PER_SECOND, 4 * HANDSHAKES_PER_SECOND);
            listener = Some(Listener::new(ListenerSettings {
                cookie_secret,
                mode: location.mode,
                bonding: false,
                inductions: handshakes,
                conclusions: handshakes,
                ..ListenerSettings::default()
            }));
            OutboundSocket { bind: location.address, peer: None, ..OutboundSocket::to(location.address) }
        } else {
            OutboundSocket::to(location.address)
        };
        let socket = OutboundSocket { receive_buffer: RECEIVE_BUFFER, ..socket };
        let is_wildcard = location.listens && location.address.ip() == std::net::Ipv6Addr::UNSPECIFIED;
        let (socket, address) = match net.open(&socket) {
            // A host without IPv6.
            Err(OutboundError::Socket(_)) if is_wildcard => {
                let bind = SocketAddr::from((Ipv4Addr::UNSPECIFIED, location.address.port()));
                net.open(&OutboundSocket { bind, ..socket })?
            }
            opened => opened?,
        };
        let clock = Clock::new();
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(EndpointError::Randomness)?;
        Ok(Self {
            busy_at: clock.turn(),
            net,
            socket,
            address,
            clock,
            location,
            options,
            listener,
            passphrases: Passphrases::new(secret),
            caller: None,
            connections: BTreeMap::new(),
            farewells: Vec::new(),
            events: VecDeque::new(),
            arrived: Vec::with_capacity(4_096),
            buffer: Vec::with_capacity(2_048),
        })
    }

    /// The address of ours.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins a call with this Stream ID.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn call(&mut self, stream_id: StreamId) -> Result<(), EndpointError> {
        let encryption = match &self.location.passphrase {
            None => None,
            Some(passphrase) => {
                let (mut salt, mut key_seed) = ([0; SALT_LEN], [0; 32]);
                getrandom::fill(&mut salt).map_err(EndpointError::Randomness)?;
                getrandom::fill(&mut key_seed).map_err(EndpointError::Randomness)?;
                let length = self.location.key_length;
                Some(CallerEncryption {
                    key_encrypting_key: derive_key_encrypting_key(passphrase.as_bytes(), &salt, length),
                    cipher: self.location.cipher,
                    salt,
                    key_seed,
                    key_refresh: KeyRefresh::default(),
                })
            }
        };
        let initial_sequence = SequenceNumber::new(u64::from(random_u32()?));
        let settings = CallerSettings {
            role: self.options.role,
            mode: self.location.mode,
            stream_id,
            flow_window: self.options.window as u32,
            encryption,
            timeout: self.options.connect_timeout,
            ..CallerSettings::new(self.location.address, self.new_socket_id()?, initial_sequence)
        };
        self.caller = Some(Caller::new(self.clock.read(), settings));
        Ok(())
    }

    /// 1 to 2^30 - 1, and no other connection's.
    fn new_socket_id(&self) -> Result<u32, EndpointError> {
        loop {
            let id = random_u32()? & ((1 << 30) - 1);
            if id != 0 && !self.connections.contains_key(&id) {
                return Ok(id);
            }
        }
    }

    fn connect(&mut self, now: Instant, parameters: crate::protocol::srt::parameters::ConnectionParameters) -> u32 {
        let (receives, sends) = (self.options.role.receives(), self.options.role.sends());
        let limits = Limits {
            receive_buffer_packets: if receives { self.options.window } else { 64 },
            send_buffer_packets: if sends { self.options.window } else { 0 },
            ..Limits::default()
        };
        let number = parameters.socket_id;
        self.connections.insert(number, Connection::new(now, parameters, limits));
        number
    }

    /// Answers somebody who wants to connect: lets it in if there is `room`, if it shows the passphrase, and if `choose` finds something for
    /// it, which is not asked before: who has not shown the passphrase changes nothing, and does not learn what there is here. Gives the
    /// number of the connection and what was chosen; or why it was refused.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn answer<T>(
        &mut self,
        request: &AdmissionRequest,
        room: Result<(), Denial>,
        choose: impl FnOnce() -> Result<T, Denial>,
    ) -> Result<Result<(u32, T), Denial>, EndpointError> {
        let judged = room.and_then(|()| self.judge_passphrase(request)).and_then(|proof| Ok((choose()?, proof)));
        let now = self.clock.turn();
        let settled = match judged {
            Ok((chosen, proof)) => match request.accept(now, self.acceptance(proof)?) {
                Ok((parameters, answer)) => Ok((parameters, answer, chosen)),
                Err(reason) => Err((reason, UNSETTLED.to_owned())),
            },
            Err(denial) => Err(denial),
        };
        let (answer, outcome) = match settled {
            Ok((parameters, answer, chosen)) => (answer, Ok((self.connect(now, parameters), chosen))),
            Err(denial) => (request.reject(now, denial.0), Err(denial)),
        };
        if let Some(listener) = &mut self.listener {
            listener.answer(now, answer);
        }
        Ok(outcome)
    }

    fn judge_passphrase(&mut self, request: &AdmissionRequest) -> Result<Proof, Denial> {
        let passphrase = self.location.passphrase.as_deref();
        self.passphrases.judge(self.clock.turn(), request.key.peer, passphrase, request.key_material.as_ref())
    }

    fn acceptance(&self, proof: Proof) -> Result<Acceptance, EndpointError> {
        let mut key_seed = [0; 32];
        getrandom::fill(&mut key_seed).map_err(EndpointError::Randomness)?;
        Ok(Acceptance {
            socket_id: self.new_socket_id()?,
            role: self.options.role,
            flow_window: self.options.window as u32,
            key_encrypting_key: proof.0,
            key_seed,
            ..Acceptance::default()
        })
    }

    /// The connection with this number.
    pub fn connection(&mut self, number: u32) -> Option<&mut Connection> {
        self.connections.get_mut(&number)
    }

    /// Forgets a connection, once it has ended and said so.
    pub fn forget(&mut self, number: u32) {
        self.connections.remove(&number);
    }

    /// Whether ends are still to be told again.
    pub fn is_saying_farewell(&self) -> bool {
        !self.farewells.is_empty()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<EndpointEvent> {
        self.events.pop_front()
    }

    /// Takes in what has come, and does what is due; gives the time of the turn.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn receive(&mut self) -> Result<Instant, EndpointError> {
        let now = self.clock.read();
        let mut arrived = std::mem::take(&mut self.arrived);
        self.net.drain(|incoming| arrived.push(incoming))?;
        if !arrived.is_empty() {
            self.busy_at = now;
        }
        for incoming in arrived.drain(..) {
            self.datagram(now, incoming);
        }
        self.arrived = arrived;
        for connection in self.connections.values_mut() {
            if connection.next_timeout().is_some_and(|at| at <= now) {
                connection.handle_timeout(now);
            }
        }
        if let Some(listener) = &mut self.listener {
            listener.handle_timeout(now);
            while let Some(ListenerEvent::Admission(request)) = listener.poll_event() {
                self.events.push_back(EndpointEvent::Asked(request));
            }
            while let Some(refusal) = listener.poll_refusal() {
                self.events.push_back(EndpointEvent::Refused(refusal));
            }
        }
        if let Some(caller) = &mut self.caller {
            caller.handle_timeout(now);
            match caller.poll_event() {
                None => {}
                Some(caller::Event::Connected(parameters)) => {
                    self.caller = None;
                    let number = self.connect(now, *parameters);
                    self.events.push_back(EndpointEvent::Connected(number));
                }
                Some(caller::Event::Failed(error)) => self.events.push_back(EndpointEvent::Failed(error)),
            }
        }
        Ok(now)
    }

    fn datagram(&mut self, now: Instant, incoming: Incoming) {
        let Some(number) = packet::destination(&incoming.packet) else { return };
        let peer = if self.location.listens { incoming.peer } else { self.location.address };
        if let Some(connection) = self.connections.get_mut(&number) {
            let arrival = self.clock.arrival(incoming.timestamp_ns);
            let Incoming { packet, local_ip, interface, .. } = incoming;
            connection.receive(now, Datagram { packet, peer, local: local_ip, interface, path: 0, arrival });
        } else if let Some(listener) = &mut self.listener {
            listener.receive(now, peer, incoming.local_ip, incoming.interface, &incoming.packet);
        } else if let Some(caller) = &mut self.caller {
            caller.receive(now, peer, &incoming.packet);
        }
    }

    /// Sends what is to be sent.
    pub fn transmit(&mut self, now: Instant) {
        let Self { net, socket, location, listener, caller, connections, farewells, buffer, busy_at, .. } = self;
        let mut leave = |transmit: Transmit, bytes: &[u8]| {
            if location.listens {
                net.send_to(*socket, &transmit.peer, transmit.local, bytes);
            } else {
                net.send(*socket, bytes);
            }
        };
        let mut poll = |machine: &mut dyn FnMut(&mut Vec<u8>) -> Option<Transmit>| {
            for _ in 0..BURST_MAX {
                buffer.clear();
                let Some(transmit) = machine(buffer) else { return false };
                leave(transmit, buffer);
            }
            true
        };
        let mut has_more = false;
        if let Some(listener) = listener {
            has_more |= poll(&mut |buffer| listener.poll_transmit(now, buffer));
        }
        if let Some(caller) = caller {
            has_more |= poll(&mut |buffer| caller.poll_transmit(now, buffer));
        }
        for connection in connections.values_mut() {
            let was_closed = connection.is_closed();
            has_more |= poll(&mut |buffer| {
                let transmit = connection.poll_transmit(now, buffer)?;
                if was_closed {
                    farewells.push(Farewell {
                        datagram: buffer.clone(),
                        transmit,
                        at: now + FAREWELL_INTERVAL,
                        times_left: FAREWELLS - 1,
                    });
                }
                Some(transmit)
            });
        }
        farewells.retain_mut(|farewell| {
            if farewell.at <= now {
                leave(farewell.transmit, &farewell.datagram);
                farewell.times_left -= 1;
                farewell.at = now + FAREWELL_INTERVAL;
            }
            farewell.times_left > 0
        });
        if has_more {
            *busy_at = now;
        }
    }

    /// Sleeps until something comes or is due, or until `wake` at the latest.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn wait(&mut self, now: Instant, wake: Instant) -> Result<(), EndpointError> {
        let connections = self.connections.values().filter_map(Connection::next_timeout);
        let machines = [
            self.listener.as_ref().and_then(Listener::next_timeout),
            self.caller.as_ref().and_then(Caller::next_timeout),
            self.farewells.iter().map(|farewell| farewell.at).min(),
        ];
        let due = connections.chain(machines.into_iter().flatten()).min().unwrap_or(Instant::FAR_FUTURE);
        let is_idle = now >= self.busy_at + IDLE;
        let latest = if is_idle { now + SLEEP_MAX } else { now + WINDOW };
        self.net.wait(now, latest.min(wake).min(due), is_idle)?;
        Ok(())
    }
}

fn random_u32() -> Result<u32, EndpointError> {
    getrandom::u32().map_err(EndpointError::Randomness)
}
