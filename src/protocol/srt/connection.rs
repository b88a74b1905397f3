//! A connection after its handshake: a machine that datagrams and time go into, and payloads, datagrams and events come out
//! of. It reads no clock and draws no random number.
//!
//! ```text
//!              ┌ data ───▶ receiver: window → decrypt → receive buffer ─▶ poll_payload, in order and on time
//!  receive ────┤ control ▶ receiver: ACKACK, DROPREQ      sender: ACK, NAK      both: KMREQ, SHUTDOWN …
//!              └ neither ▶ counted
//!  send ─────────────────▶ sender: encrypt → send buffer ─────────────────▶ poll_transmit
//!  handle_timeout ───────▶ notes which of ACK, NAK, KEEPALIVE … are due ──▶ poll_transmit
//! ```
//!
//! Behind a packet filter ([`fec`](super::fec)) what is taken in or sent for the first time also goes into its sums, before it is decrypted
//! and after it is encrypted; what is rebuilt comes in as if it had come.
//!
//! What a peer sends is believed only as far as it can be checked: numbers must lie in the window, answers must answer
//! something, ranges must not be reversed. What cannot be is counted in [`Statistics`] and changes nothing. Memory
//! is taken in [`Connection::new`], and besides when more packets are held at a time than ever before, up to the receive buffer's limit.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use self::pauses::Pauses;
use self::version4::Version4;
use super::acknowledgement::RoundTrip;
use super::address_proof::AddressProof;
use super::control::{
    Acknowledgement, Control, ControlWriter, DropRequest, ReceiverReport, ReceivingRates, SequenceRange,
};
use super::encryption::{KEY_MATERIAL_LEN_MAX, KeyMaterial, KeyMaterialState};
use super::fec::encoder::Encoder;
use super::packet::{self, ControlHeader, DataHeader, HEADER_LEN, Header, SequenceNumber};
use super::parameters::ConnectionParameters;
use super::receiver::{Received, Receiver};
use super::sender::{SendError, Sender};
use super::statistics::Statistics;
use crate::base::{Datagram, Instant, Transmit};
use crate::media::Payload;

mod elsewhere;
#[doc(hidden)]
pub mod fuzzing;
mod leg;
mod pauses;
mod snapshot;
#[cfg(test)]
mod tests;
mod version4;

/// Silence after which a keep-alive is sent (draft-sharabayko-srt §3.2.3).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Events kept for one who does not poll them.
const EVENTS_MAX: usize = 16;

/// The code of a peer error that libsrt knows: what was sent cannot be written (libsrt: `CUDTException::EFILE`).
pub const PEER_ERROR_FILE_SYSTEM: u32 = 4_000;

/// What bounds a connection: chosen by us, not negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Slots of the receive buffer, rounded up to a power of two: rate × (latency + round trip).
    pub receive_buffer_packets: usize,
    /// Packets of the send buffer; 0 for a connection that only receives.
    pub send_buffer_packets: usize,
    /// Silence of the peer after which the connection is taken for broken (libsrt: `SRTO_PEERIDLETIMEO`).
    pub peer_idle_timeout: Duration,
    /// Packets that a gap is given to close by itself before it is reported, at most (libsrt: `SRTO_LOSSMAXTTL`): as many as packets
    /// were lately seen to come behind their place.
    pub reorder_tolerance: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            receive_buffer_packets: 8192,
            send_buffer_packets: 0,
            peer_idle_timeout: Duration::from_secs(5),
            reorder_tolerance: 0,
        }
    }
}

/// What happened, for whoever owns the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The connection is ready; always the first event.
    Connected,
    /// A peer of version 4 of the handshake has said what version 5 says in it: version and latency stand in the parameters now.
    Introduced,
    /// Such a peer encrypts, and [`Connection::wanted_key`] is to be derived for it and given to [`Connection::provide_key`].
    KeyWanted,
    /// That key has opened what the peer has sent; or, where we send, such a peer has ours.
    Secured,
    /// Such a peer cannot use our first key, for this reason, and what we send is of no use to it.
    KeyRefused(KeyMaterialState),
    /// The peer has announced new stream encrypting keys, and they are in use from now on.
    KeyRefreshed,
    /// The peer has announced new key material that could not be used, for this reason.
    KeyRefreshFailed(KeyMaterialState),
    /// The sender went on beyond the receive buffer; the receiver followed.
    SequenceJump {
        /// How many packets were given up.
        skipped: u64,
    },
    /// The peer has shown that it is at another address now; packets from the old one are not taken in any more.
    PeerChanged {
        /// Where it was.
        from: SocketAddr,
        /// Where it is.
        to: SocketAddr,
    },
    /// The peer cannot process what it is sent (draft-sharabayko-srt §3.2.10).
    PeerError {
        /// Its code; libsrt knows 4000, "file system".
        code: u32,
    },
    /// The connection has ended and has handed up all that it held; always the last event.
    Closed(CloseReason),
}

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer said so.
    PeerShutdown,
    /// Nothing came from the peer for [`Limits::peer_idle_timeout`].
    PeerIdle,
    /// Its owner closed it.
    Local,
    /// Another session took the stream over.
    TakenOver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// The peer has gone; what is held is still delivered when it is due.
    Draining(CloseReason),
    Closed,
}

/// Datagrams that wait for [`Connection::poll_transmit`].
#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    shutdown: bool,
    key_material_response: bool,
    light_acknowledgement: bool,
    loss_report: bool,
    keep_alive: bool,
    /// Code of an error that the peer is told before the shutdown; 0 for none.
    peer_error: u32,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    receiver: Receiver,
    state: State,
    pending: Pending,
    heard_at: Instant,
    pauses: Pauses,
    sent_at: Instant,
    round_trip: RoundTrip,
    statistics: Statistics,
    parameters: ConnectionParameters,
    limits: Limits,
    sender: Option<Sender>,
    /// The sender's half of the packet filter.
    encoder: Option<Box<Encoder>>,
    events: VecDeque<Event>,
    key_material_response: Vec<u8>,
    address_proof: Option<AddressProof>,
    /// A peer of version 4 of the handshake.
    version4: Option<Box<Version4>>,
}

impl Connection {
    /// A connection that the handshake has set up.
    pub fn new(now: Instant, parameters: ConnectionParameters, limits: Limits) -> Self {
        let mut events = VecDeque::with_capacity(EVENTS_MAX);
        events.push_back(Event::Connected);
        let statistics = Statistics {
            ms_rcv_tsb_pd_delay: u64::from(parameters.receive_latency_ms),
            ms_snd_tsb_pd_delay: u64::from(parameters.send_latency_ms),
            byte_mss: u64::from(parameters.mtu),
            ..Statistics::default()
        };
        Self {
            receiver: Receiver::new(now, &parameters, limits.receive_buffer_packets, limits.reorder_tolerance),
            state: State::Running,
            pending: Pending::default(),
            heard_at: now,
            pauses: Pauses::default(),
            sent_at: now,
            round_trip: RoundTrip::default(),
            statistics,
            sender: (limits.send_buffer_packets > 0).then(|| Sender::new(now, &parameters, limits.send_buffer_packets)),
            encoder: Self::encoder(&parameters, &limits),
            address_proof: parameters.address_secret.map(|secret| AddressProof::new(secret, parameters.socket_id)),
            version4: parameters.version4.map(|terms| Box::new(Version4::new(now, terms, parameters.role.sends()))),
            parameters,
            limits,
            events,
            key_material_response: Vec::with_capacity(KEY_MATERIAL_LEN_MAX),
        }
    }

    /// What the handshake settled.
    pub fn parameters(&self) -> &ConnectionParameters {
        &self.parameters
    }

    /// What has been counted.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// The sender's half of the packet filter, if there is one and something can be sent.
    fn encoder(parameters: &ConnectionParameters, limits: &Limits) -> Option<Box<Encoder>> {
        let fec = parameters.packet_filter.filter(|_| limits.send_buffer_packets > 0)?;
        let payload_max = parameters.payload_size_max() + parameters.tag_len();
        Some(Box::new(Encoder::new(&fec, parameters.initial_sequence.get(), payload_max)))
    }

    /// Packets held, in the receive buffer and by the packet filter: what a quota is taken of.
    #[inline]
    pub fn held_packets(&self) -> usize {
        self.receiver.held() + self.receiver.held_by_filter()
    }

    /// Whether it has ended; nothing comes out of it any more once all has been polled.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Takes in a datagram. An encrypted connection decrypts in place, so no other packet may show the datagram's bytes; those of a
    /// receive aggregate share a slot and show none of each other's.
    #[inline]
    pub fn receive(&mut self, now: Instant, datagram: Datagram) {
        if self.state != State::Running {
            self.statistics.pkt_after_end += 1;
            return;
        }
        if datagram.peer != self.parameters.peer {
            return self.receive_from_elsewhere(now, datagram);
        }
        match packet::parse(&datagram.packet) {
            Ok(Header::Data(header)) if header.socket_id == self.parameters.socket_id => {
                self.hear(now);
                self.receive_data(&header, datagram);
            }
            Ok(Header::Control(header)) if header.socket_id == self.parameters.socket_id => {
                self.hear(now);
                self.receive_control(now, &header, &datagram);
            }
            Ok(_) => self.statistics.pkt_wrong_socket += 1,
            Err(_) => self.statistics.pkt_malformed += 1,
        }
    }

    /// Whether it has been taken into the receive buffer.
    #[inline]
    fn hear(&mut self, now: Instant) {
        if now > self.heard_at {
            self.pauses.end(now, now.saturating_since(self.heard_at));
            self.heard_at = now;
        }
    }

    #[inline]
    fn receive_data(&mut self, header: &DataHeader, datagram: Datagram) -> bool {
        if self.receiver.is_sealed() {
            self.open_to_plain(header);
        }
        let encryption = self.parameters.encryption.as_ref();
        let (arrival, path) = (datagram.arrival, datagram.path);
        let received = self.receiver.data(header, datagram, encryption, &self.round_trip, &mut self.statistics);
        while self.receiver.take_rebuilt(arrival, path, encryption, &self.round_trip, &mut self.statistics) {}
        if let Received::Jumped { skipped } = received {
            self.event(Event::SequenceJump { skipped });
        }
        self.pending.light_acknowledgement |= self.receiver.wants_light_ack();
        let is_taken = received != Received::Dropped;
        if is_taken && let Some(encryption) = &mut self.parameters.encryption {
            encryption.taken(header.key, self.receiver.span());
        }
        is_taken
    }

    fn receive_control(&mut self, now: Instant, header: &ControlHeader, datagram: &Datagram) {
        self.statistics.pkt_recv_control += 1;
        let Ok(control) = Control::parse(header, &datagram.packet[HEADER_LEN..]) else {
            self.statistics.control_malformed += 1;
            return;
        };
        match control {
            Control::KeepAlive => {}
            Control::Acknowledgement(ack) => {
                let Some(sender) = &mut self.sender else { return self.statistics.control_rejected += 1 };
                if sender.acknowledged(now, &ack, &mut self.round_trip) {
                    self.statistics.pkt_recv_ack += 1;
                } else {
                    self.statistics.control_rejected += 1;
                }
            }
            Control::LossReport(report) => {
                let Some(sender) = &mut self.sender else { return self.statistics.control_rejected += 1 };
                self.statistics.pkt_recv_nak += 1;
                self.statistics.control_rejected += sender.lost(&report, &self.round_trip, &mut self.statistics);
            }
            Control::AcknowledgementReceipt { number } => {
                let arrival = datagram.arrival;
                if self.receiver.acknowledgement_receipt(arrival, number, header.timestamp_us, &mut self.round_trip) {
                    self.statistics.pkt_recv_ackack += 1;
                } else {
                    self.statistics.control_rejected += 1;
                }
            }
            Control::DropRequest(request) => {
                if self.receiver.drop_request(request.range.first(), request.range.last()) {
                    self.statistics.pkt_recv_drop_request += 1;
                } else {
                    self.statistics.control_rejected += 1;
                }
            }
            Control::Shutdown => self.end(CloseReason::PeerShutdown),
            Control::PeerError { code } => self.event(Event::PeerError { code }),
            Control::HandshakeRequest(body) => {
                self.handshake_request(datagram.arrival, header.timestamp_us, body);
            }
            Control::HandshakeResponse(body) => self.handshake_response(body),
            // A peer that was told of it would take its own for refused.
            Control::KeyMaterialRequest(message) if !KeyMaterial::is_meant(message) => {
                self.statistics.control_malformed += 1;
            }
            Control::KeyMaterialRequest(message) if self.first_key_material(message) => {}
            Control::KeyMaterialRequest(message) => self.key_material_request(message),
            Control::KeyMaterialResponse(message) => {
                let encryption = self.parameters.encryption.as_mut();
                match encryption.and_then(|encryption| encryption.receive_response(message)) {
                    Some(state) => self.first_key_answered(state),
                    None => self.statistics.control_rejected += 1,
                }
            }
            Control::Handshake(_) | Control::CongestionWarning | Control::UnknownExtension { .. } => {
                self.statistics.control_ignored += 1;
            }
        }
    }

    fn key_material_request(&mut self, message: &[u8]) {
        let Some(encryption) = &mut self.parameters.encryption else {
            return self.statistics.control_rejected += 1;
        };
        // The peer asks again until it hears from us: the same message gets the same answer.
        self.pending.key_material_response = true;
        if !message.is_empty() && self.key_material_response == message {
            return;
        }
        self.key_material_response.clear();
        let state = encryption.receive_request(message, &mut self.key_material_response);
        if state == KeyMaterialState::Secured {
            self.statistics.key_refreshes += 1;
            self.event(Event::KeyRefreshed);
        } else {
            self.statistics.key_refresh_failures += 1;
            self.event(Event::KeyRefreshFailed(state));
        }
    }

    /// Does what is due by `now`. To be called at [`next_timeout`](Self::next_timeout); calling it at other times does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Running => {}
            State::Draining(_) => return self.finish_draining(),
            State::Closed => return,
        }
        if now >= self.heard_at + self.limits.peer_idle_timeout || now >= self.unsealed_by() {
            self.end(CloseReason::PeerIdle);
            return self.finish_draining();
        }
        if now >= self.receiver.nak_at() {
            self.pending.loss_report = true;
            self.receiver.periodic_nak_sent(now, &self.round_trip);
        }
        self.pending.keep_alive |= now >= self.sent_at + KEEP_ALIVE_INTERVAL;
        if let Some(sender) = &mut self.sender {
            sender.handle_timeout(now, &self.round_trip, &mut self.statistics);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) or [`poll_payload`](Self::poll_payload) has something to do.
    #[inline]
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = self.receiver.next_due();
        match self.state {
            State::Running => {
                let mut next = due
                    .min(self.receiver.ack_at(&self.round_trip))
                    .min(self.receiver.nak_at())
                    .min(self.receiver.repeat_at())
                    .min(self.sent_at + KEEP_ALIVE_INTERVAL)
                    .min(self.heard_at + self.limits.peer_idle_timeout)
                    .min(self.unsealed_by())
                    .min(self.introduction_at());
                if let Some(sender) = &self.sender {
                    next = next.min(sender.next_timeout(&self.round_trip));
                    if let Some(encryption) = &self.parameters.encryption {
                        let at = encryption.next_timeout(self.rtt());
                        next = next.min(at.unwrap_or(Instant::FAR_FUTURE));
                    }
                }
                Some(next)
            }
            State::Draining(_) => Some(due),
            State::Closed => None,
        }
    }

    /// The next payload that is due, in order.
    #[inline]
    pub fn poll_payload(&mut self, now: Instant) -> Option<Payload> {
        if self.state == State::Running {
            return self.receiver.poll_payload(now, &mut self.statistics);
        }
        self.poll_last(now, Receiver::poll_payload)
    }

    /// The next payload in order, before it is due if none is missing before it: for one who keeps what is made of it until
    /// [`Payload::due`]. Worked on at once a payload is still in the processor's cache, and its packet memory is free again.
    #[inline]
    pub fn poll_payload_early(&mut self, now: Instant) -> Option<Payload> {
        if self.state == State::Running {
            return self.receiver.poll_early(now, &mut self.statistics);
        }
        self.poll_last(now, Receiver::poll_early)
    }

    /// Ending, or ended: over when nothing is left.
    #[cold]
    fn poll_last(
        &mut self,
        now: Instant,
        poll: impl FnOnce(&mut Receiver, Instant, &mut Statistics) -> Option<Payload>,
    ) -> Option<Payload> {
        let payload = poll(&mut self.receiver, now, &mut self.statistics);
        if payload.is_none() {
            self.finish_draining();
        }
        payload
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn event(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.statistics.events_lost += 1;
        }
        self.events.push_back(event);
    }

    /// The peer has gone: what is held is delivered when it is due, then the connection is closed.
    fn end(&mut self, reason: CloseReason) {
        if self.state == State::Running {
            self.state = State::Draining(reason);
            self.pending = Pending::default();
            self.receiver.clear_filter();
            if self.receiver.is_sealed() {
                // There will be no key for it any more.
                self.receiver.clear_sealed(&mut self.statistics);
            }
            self.finish_draining();
        }
    }

    fn finish_draining(&mut self) {
        let State::Draining(reason) = self.state else { return };
        if self.parameters.mode.is_reliable() {
            self.receiver.end_in_order(&mut self.statistics);
        }
        if self.receiver.held() == 0 {
            self.state = State::Closed;
            self.event(Event::Closed(reason));
        }
    }

    /// Ends the connection from this side: a shutdown is sent, and what is held is still delivered when it is due.
    pub fn shut_down(&mut self) {
        if self.state == State::Running {
            self.end(CloseReason::Local);
            self.pending.shutdown = true;
        }
    }

    /// Ends the connection at once: a shutdown is sent, what is held is not delivered any more.
    pub fn close(&mut self, _now: Instant, reason: CloseReason) {
        if self.state == State::Closed {
            return;
        }
        self.pending = Pending { shutdown: self.state == State::Running, ..Pending::default() };
        self.receiver.clear();
        self.state = State::Closed;
        self.event(Event::Closed(reason));
    }

    /// Ends the connection at once because what it carries cannot be kept here: the peer is told so ([`PEER_ERROR_FILE_SYSTEM`]), and
    /// then of the end.
    pub fn fail(&mut self, now: Instant, code: u32) {
        let is_running = self.state == State::Running;
        self.close(now, CloseReason::Local);
        self.pending.peer_error = if is_running { code } else { 0 };
    }

    /// From now on at most so many bits per second are sent, headers included. Live mode has no such limit: pacing is up to the caller.
    pub fn limit_rate(&mut self, bits_per_second: u64) {
        if let Some(sender) = &mut self.sender {
            sender.limit_rate(bits_per_second);
        }
    }

    /// Whether the send buffer is full: [`send`](Self::send) takes no more until the peer has acknowledged some, or some have become
    /// too late.
    pub fn is_send_buffer_full(&self) -> bool {
        self.sender.as_ref().is_some_and(Sender::is_full)
    }

    /// Takes in a payload to send. Its time stamp is `now`; pacing is up to the caller.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the payload is then not sent.
    pub fn send(&mut self, now: Instant, payload: &[u8]) -> Result<(), SendError> {
        match &mut self.sender {
            Some(sender) if self.state == State::Running => {
                sender.send(now, payload, &mut self.parameters, &mut self.statistics)
            }
            _ => Err(SendError::NotSending),
        }
    }

    /// The next datagram to send: its bytes are appended to `buffer`.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let start = buffer.len();
        if let Some(challenge) = self.write_challenge(now, buffer) {
            return Some(challenge);
        }
        if !self.write_next(now, buffer) {
            return None;
        }
        self.sent_at = now;
        Some(Transmit {
            peer: self.parameters.peer,
            local: self.parameters.local,
            interface: self.parameters.interface,
            path: 0,
            len: buffer.len() - start,
        })
    }

    fn write_next(&mut self, now: Instant, buffer: &mut Vec<u8>) -> bool {
        let writer = self.control_writer(now);
        if self.state != State::Running {
            let code = std::mem::take(&mut self.pending.peer_error);
            if code != 0 {
                writer.peer_error(buffer, code);
                return true;
            }
            if std::mem::take(&mut self.pending.shutdown) {
                writer.shutdown(buffer);
                return true;
            }
            return false;
        }
        self.write_control(now, writer, buffer) || self.write_data(now, buffer)
    }

    fn control_writer(&self, now: Instant) -> ControlWriter {
        ControlWriter { timestamp_us: self.parameters.timestamp_us(now), socket_id: self.parameters.peer_socket_id }
    }

    fn write_control(&mut self, now: Instant, writer: ControlWriter, buffer: &mut Vec<u8>) -> bool {
        if let Some(agreed) = self.version4.as_mut().and_then(|version4| version4.take_response()) {
            writer.handshake_response(buffer, &agreed);
            return true;
        }
        if let Some(asked) = self.take_introduction(now) {
            writer.handshake_request(buffer, &asked);
            return true;
        }
        if std::mem::take(&mut self.pending.key_material_response) {
            writer.key_material_response(buffer, &self.key_material_response);
            return true;
        }
        // Looked at here, not in `handle_timeout`: giving up a gap may have made it due.
        if now >= self.receiver.ack_at(&self.round_trip) {
            self.pending.light_acknowledgement = false;
            self.write_acknowledgement(now, writer, buffer);
            return true;
        }
        if std::mem::take(&mut self.pending.light_acknowledgement) {
            self.statistics.pkt_sent_light_ack += 1;
            let next = self.receiver.take_light_ack();
            writer.acknowledgement(buffer, &Acknowledgement { number: 0, next, report: None });
            return true;
        }
        let size_max = self.parameters.packet_size_max();
        if now >= self.receiver.report_at() {
            let (receiver, round_trip) = (&mut self.receiver, &self.round_trip);
            let runs = std::iter::from_fn(|| receiver.next_to_report(now, round_trip));
            if writer.loss_report(buffer, runs.filter_map(range), size_max) > 0 {
                self.statistics.pkt_sent_nak += 1;
                return true;
            }
        }
        if self.pending.loss_report {
            // As many packets as it takes: libsrt names what fits into one, and the newest losses wait for the oldest to be mended.
            let receiver = &mut self.receiver;
            let runs = std::iter::from_fn(|| receiver.next_missing());
            self.pending.loss_report = writer.loss_report(buffer, runs.filter_map(range), size_max) > 0;
            if self.pending.loss_report {
                self.statistics.pkt_sent_nak += 1;
                return true;
            }
        }
        let rtt = self.rtt();
        if let Some(sender) = &mut self.sender {
            if let Some(encryption) = &mut self.parameters.encryption
                && let Some(message) = encryption.poll_request(now, rtt)
            {
                writer.key_material_request(buffer, message);
                return true;
            }
            if let Some(number) = sender.take_receipt() {
                self.statistics.pkt_sent_ackack += 1;
                writer.acknowledgement_receipt(buffer, number);
                return true;
            }
            if let Some((first, last)) = sender.take_drop_request()
                && let Some(range) = range((first, last + 1))
            {
                self.statistics.pkt_sent_drop_request += 1;
                writer.drop_request(buffer, &DropRequest { message_number: 0, range });
                return true;
            }
        }
        if std::mem::take(&mut self.pending.keep_alive) {
            writer.keep_alive(buffer);
            return true;
        }
        false
    }

    fn rtt(&self) -> Duration {
        Duration::from_micros(u64::from(self.round_trip.smoothed_us()))
    }

    fn write_acknowledgement(&mut self, now: Instant, writer: ControlWriter, buffer: &mut Vec<u8>) {
        let (packets_per_second, capacity, bytes_per_second) = self.receiver.rates(now, &self.statistics);
        let (number, next) = self.receiver.take_ack(now);
        let report = ReceiverReport {
            rtt_us: self.round_trip.smoothed_us(),
            rtt_variance_us: self.round_trip.variance_us(),
            available_buffer_packets: self.receiver.free() as u32,
            rates: Some(ReceivingRates {
                packets_per_second,
                link_capacity_packets_per_second: capacity,
                bytes_per_second: Some(bytes_per_second),
            }),
        };
        writer.acknowledgement(buffer, &Acknowledgement { number, next, report: Some(report) });
        let statistics = &mut self.statistics;
        statistics.pkt_sent_ack += 1;
        statistics.mbps_recv_rate = f64::from(bytes_per_second) * 8.0 / 1e6;
        statistics.mbps_bandwidth = f64::from(capacity) * self.parameters.payload_size_max() as f64 * 8.0 / 1e6;
        self.gauge();
    }

    /// Brings the gauges of [`statistics`](Self::statistics) up to date; done by itself with each full acknowledgement.
    pub fn gauge(&mut self) {
        self.statistics.ms_rtt = f64::from(self.round_trip.smoothed_us()) / 1_000.0;
        let newest = self.heard_at.max(self.sent_at);
        self.statistics.ms_time_stamp = newest.saturating_since(self.parameters.start).as_millis() as u64;
        self.receiver.gauge(newest, &mut self.statistics);
        if let Some(sender) = &self.sender {
            sender.gauge(&mut self.statistics);
        }
    }

    fn write_data(&mut self, now: Instant, buffer: &mut Vec<u8>) -> bool {
        if let Some(encoder) = &mut self.encoder
            && encoder.write_control(self.parameters.peer_socket_id, buffer)
        {
            self.statistics.pkt_snd_filter_extra += 1;
            return true;
        }
        let Some(sender) = self.sender.as_mut().filter(|sender| sender.has_packet()) else { return false };
        let Some(outgoing) = sender.next_packet(now, &self.round_trip) else { return false };
        let header = DataHeader {
            key: outgoing.key,
            retransmitted: outgoing.retransmitted && self.parameters.features.retransmission_flag,
            ..self.parameters.data_header(outgoing.sequence, outgoing.submitted)
        };
        let mut bytes = [0; HEADER_LEN];
        header.encode(&mut bytes);
        buffer.extend_from_slice(&bytes);
        buffer.extend_from_slice(outgoing.payload);
        if let Some(encoder) = self.encoder.as_mut().filter(|_| !outgoing.retransmitted) {
            encoder.feed(outgoing.sequence, &header, outgoing.payload);
        }
        let statistics = &mut self.statistics;
        statistics.pkt_sent += 1;
        statistics.byte_sent += outgoing.payload.len() as u64;
        statistics.pkt_retrans += u64::from(outgoing.retransmitted);
        statistics.pkt_sent_unique += u64::from(!outgoing.retransmitted);
        true
    }
}

/// A run, end excluded, as it goes on the wire, end included.
fn range((first, end): (u64, u64)) -> Option<SequenceRange> {
    SequenceRange::new(SequenceNumber::new(first), SequenceNumber::new(end - 1))
}
