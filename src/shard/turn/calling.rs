//! The streams that are fetched: calls are made, shake hands, become sessions, and are made again.

use std::sync::Arc;
use std::time::Duration;

use super::arrivals::{VERSION4_LATENCY, say_goodbye};
use super::{Shard, send};
use crate::base::{Datagram, Instant};
use crate::config::stream_key;
use crate::output::Job;
use crate::pipeline::breaker::Failure;
use crate::pipeline::ingest::Protocol;
use crate::protocol::srt::connection::Connection;
use crate::protocol::srt::encryption::{KeyEncryptingKey, KeyMaterial};
use crate::protocol::srt::packet::destination;
use crate::protocol::srt::parameters::ConnectionParameters;
use crate::shard::access::SILENT;
use crate::shard::calls::terms::{self, CallTerms, TermsError};
use crate::shard::calls::{self, CallState, Machine, Outcome, Share, Stage};
use crate::shard::mailbox::Message;
use crate::shard::net::SocketRole;
use crate::shard::plan::SessionPlan;
use crate::shard::report::{StreamKind, StreamReport, StreamStatus};
use crate::shard::sessions::{About, Session};
use crate::shard::strangers::SourceKey;

/// Looking a name up and making keys takes no longer, also where resolvers do not answer: what comes later is lost.
const PREPARED_WITHIN: Duration = Duration::from_secs(60);

impl Shard {
    /// Ten times a second: attempts that are due, handshakes that are sent again, sessions that are over.
    pub(super) fn tick_calls(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        for place in 0..self.calls.len() {
            let call = &mut self.calls[place];
            match &mut call.stage {
                Stage::Waiting if call.breaker.is_due(now) => self.prepare_call(now, place),
                Stage::Preparing { since } if now.saturating_since(*since) >= PREPARED_WITHIN => {
                    self.call_failed(now, place, "its peer was not looked up in time".to_owned(), Failure::Passing);
                }
                Stage::Waiting | Stage::Preparing { .. } => {}
                Stage::Calling(machine) => {
                    machine.handle_timeout(now);
                    self.serve_call(now, place);
                }
                Stage::Connected(_) => {
                    if self.sessions.by_source(&SourceKey::Called(call.stream)).is_none() {
                        let ended = self.sessions.by_name(&call.name).map(|index| self.sessions.get_mut(index));
                        let why = ended.and_then(|session| session.ended_by).unwrap_or("the session is over");
                        self.call_failed(now, place, why.to_owned(), Failure::Passing);
                    }
                }
            }
        }
    }

    fn prepare_call(&mut self, now: Instant, place: usize) {
        let call = &mut self.calls[place];
        call.begin(now);
        let (config, mailbox) = (Arc::clone(&self.config), self.shards.mailbox(self.index).clone());
        let stream = call.stream;
        let job: Job = Box::new(move || {
            terms::prepare(&config, stream, move |terms| {
                mailbox.post(Message::CallPrepared(stream, terms));
            });
        });
        if self.desk.housekeeping().submit(job).is_err() {
            self.call_failed(now, place, "housekeeping is overrun".to_owned(), Failure::Passing);
        }
    }

    /// A call can be made, or cannot.
    pub(super) fn call_prepared(&mut self, now: Instant, stream: usize, terms: Result<Box<CallTerms>, TermsError>) {
        let Some(place) = self.call_of(stream).filter(|_| self.stopping.is_none()) else { return };
        if !matches!(self.calls[place].stage, Stage::Preparing { .. }) {
            return;
        }
        let terms = match terms {
            Ok(terms) => terms,
            Err(error) => return self.call_failed(now, place, error.to_string(), Failure::Passing),
        };
        let settings = self.config.streams.values().nth(stream).expect("calls are made from the configuration");
        let srt = settings.srt.as_ref().expect("a stream that is fetched says from where");
        let latency_max = SessionPlan::latency_max(&self.config, self.net.pool().free_slots());
        let wanted = srt.latency.or(settings.latency).unwrap_or(self.config.ingestion.srt.latency);
        let latency = wanted.min(latency_max);
        let share = Share {
            socket_id: self.draw_socket_id(),
            latency,
            latency_max,
            flow_window: SessionPlan::new(&self.config, latency).flow_window,
        };
        self.calls[place].dial(now, *terms, &share, srt.timeout());
        self.serve_call(now, place);
    }

    /// The key is there that a rendezvous wanted, or a session with a peer of version 4 of the handshake.
    pub(super) fn call_unlocked(&mut self, now: Instant, stream: usize, material: &KeyMaterial, key: KeyEncryptingKey) {
        let Some(place) = self.call_of(stream) else { return };
        if let Stage::Calling(Machine::Rendezvous(rendezvous)) = &mut self.calls[place].stage {
            rendezvous.unlock(now, material, key);
            self.serve_call(now, place);
        } else if let Some(index) = self.sessions.by_source(&SourceKey::Called(stream))
            && let Some(Protocol::Srt(connection)) = self.sessions.get_mut(index).ingest.protocol_mut()
            && connection.wanted_key() == Some(material)
        {
            connection.provide_key(key);
            self.touched.add(index);
        }
    }

    fn call_of(&self, stream: usize) -> Option<usize> {
        self.calls.iter().position(|call| call.stream == stream)
    }

    /// A datagram at the port of a stream that is fetched.
    #[inline]
    pub(super) fn receive_call(&mut self, now: Instant, stream: usize, datagram: Datagram) {
        let Some(id) = destination(&datagram.packet) else {
            self.counters.dropped_unknown += 1;
            return;
        };
        if let Some(index) = self.sessions.by_socket_id(id) {
            let session = self.sessions.get_mut(index);
            if session.role != SocketRole::Call(stream) || session.peer != Some(datagram.peer) {
                self.counters.dropped_wrong_peer += 1;
                return;
            }
            if is_handshake(&datagram.packet) {
                self.receive_handshake(now, stream, &datagram);
            }
            return self.hand_to(now, index, datagram);
        }
        self.receive_handshake(now, stream, &datagram);
        // In rendezvous the first that is heard of a connected peer may be its media.
        if !is_handshake(&datagram.packet)
            && let Some(index) = self.sessions.by_socket_id(id)
        {
            self.hand_to(now, index, datagram);
        }
    }

    #[cold]
    fn receive_handshake(&mut self, now: Instant, stream: usize, datagram: &Datagram) {
        let Some(place) = self.call_of(stream) else {
            self.counters.dropped_stray += 1;
            return;
        };
        match &mut self.calls[place].stage {
            Stage::Waiting | Stage::Preparing { .. } | Stage::Connected(None) => {
                self.counters.dropped_stray += 1;
            }
            Stage::Calling(machine) => {
                machine.receive(now, datagram.peer, &datagram.packet);
                self.serve_call(now, place);
            }
            Stage::Connected(Some(rendezvous)) => {
                let is_restart = rendezvous.is_restart(datagram.peer, &datagram.packet);
                rendezvous.receive(now, datagram.peer, &datagram.packet);
                if is_restart {
                    self.peer_restarted(now, stream);
                }
                self.serve_call(now, place);
            }
        }
    }

    /// The peer of a rendezvous calls anew: the session with what it was before is over, if that has fallen silent.
    fn peer_restarted(&mut self, now: Instant, stream: usize) {
        let Some(index) = self.sessions.by_source(&SourceKey::Called(stream)) else { return };
        let session = self.sessions.get_mut(index);
        if now.saturating_since(session.last_datagram) >= SILENT {
            session.tell_of_peer(now, "the peer calls anew".to_owned());
            session.ingest.close();
            self.touched.add(index);
        }
    }

    /// Sends what a call has to send, and does what has come of it.
    fn serve_call(&mut self, now: Instant, place: usize) {
        loop {
            let Self { calls, net, transmit_buffer, .. } = self;
            let call = &mut calls[place];
            let role = SocketRole::Call(call.stream);
            transmit_buffer.clear();
            let outcome = match &mut call.stage {
                Stage::Calling(machine) => {
                    while let Some(transmit) = machine.poll_transmit(now, transmit_buffer) {
                        send(net, role, &transmit, transmit_buffer);
                    }
                    machine.poll_outcome()
                }
                Stage::Connected(Some(rendezvous)) => {
                    while let Some(transmit) = rendezvous.poll_transmit(now, transmit_buffer) {
                        send(net, role, &transmit, transmit_buffer);
                    }
                    None
                }
                Stage::Waiting | Stage::Preparing { .. } | Stage::Connected(None) => None,
            };
            let stream = call.stream;
            match outcome {
                None => return,
                Some(Outcome::KeyWanted(material)) => self.want_key(now, place, stream, *material),
                Some(Outcome::Connected(parameters)) => self.call_connected(now, place, *parameters),
                Some(Outcome::Failed(error)) => {
                    let words = self.calls[place].words_for(error);
                    self.call_failed(now, place, words, calls::kind_of(error));
                }
            }
        }
    }

    fn want_key(&mut self, now: Instant, place: usize, stream: usize, material: KeyMaterial) {
        if !self.derive_for_call(stream, material) {
            self.call_failed(now, place, "housekeeping is overrun".to_owned(), Failure::Passing);
        }
    }

    /// `false` if housekeeping is overrun; a peer of version 4 of the handshake asks again.
    pub(super) fn derive_for_call(&self, stream: usize, material: KeyMaterial) -> bool {
        let (config, mailbox) = (Arc::clone(&self.config), self.shards.mailbox(self.index).clone());
        let job: Job = Box::new(move || {
            if let Some(key) = terms::derive_for(&config, stream, &material) {
                mailbox.post(Message::CallUnlocked(stream, Box::new((material, key))));
            }
        });
        self.desk.housekeeping().submit(job).is_ok()
    }

    /// The handshake is done: a session begins, whose stream the desk names, as it does that of a source of the RTP ports.
    fn call_connected(&mut self, now: Instant, place: usize, mut parameters: ConnectionParameters) {
        let stream = self.calls[place].stream;
        // The peer's word is final, but our memory is ours: what it sends is delivered sooner then, with less time to send it again.
        let latency_max = SessionPlan::latency_max(&self.config, self.net.pool().free_slots());
        let latency = Duration::from_millis(u64::from(parameters.receive_latency_ms)).min(latency_max);
        let milliseconds = |duration: Duration| u16::try_from(duration.as_millis()).unwrap_or(u16::MAX);
        parameters.receive_latency_ms = milliseconds(latency);
        let mut planned = latency;
        if let Some(terms) = &mut parameters.version4 {
            // It asks when it is in, and gets what there is room for by now.
            planned = VERSION4_LATENCY.max(latency).min(latency_max);
            terms.latency_max_ms = milliseconds(planned);
            self.tell_of_lost_stream_id(place);
        }
        let plan = SessionPlan::new(&self.config, planned).for_stream(self.config.streams.values().nth(stream));
        let about = About::of_srt(&parameters);
        let (socket_id, peer) = (parameters.socket_id, parameters.peer);
        let protocol = Protocol::Srt(Box::new(Connection::new(now, parameters, plan.limits)));
        let (role, key) = (SocketRole::Call(stream), SourceKey::Called(stream));
        let Some(index) = self.open_unadmitted(now, role, key, StreamKind::Srt, protocol, peer) else {
            return self.call_failed(now, place, "too many sources wait for admission".to_owned(), Failure::Passing);
        };
        self.sessions.set_socket_id(index, socket_id);
        let session = self.sessions.get_mut(index);
        (session.about, session.quota) = (about, plan.quota);
        self.touched.add(index);
        self.calls[place].connected(now);
    }

    /// Once for each stream: what is asked for does not reach a peer that speaks version 4 of the handshake.
    fn tell_of_lost_stream_id(&mut self, place: usize) {
        let call = &mut self.calls[place];
        if call.takes_stream_id_for_lost() {
            let (stream, key) = (&call.name, stream_key(&call.name, "srt.stream_id"));
            tracing::warn!(
                stream,
                "the peer speaks version 4 of the handshake (SRT before 1.3), which carries no Stream ID: {key} was not sent"
            );
        }
    }

    fn call_failed(&mut self, now: Instant, place: usize, error: String, failure: Failure) {
        let random = self.random.bits();
        let call = &mut self.calls[place];
        let Some(line) = call.fail(now, error, failure, random) else { return };
        match self.sessions.by_name(&call.name) {
            // Kept with the stream's own events, too.
            Some(index) => self.sessions.get_mut(index).warn(now, line),
            None => tracing::warn!(stream = call.name, "{line}"),
        }
    }

    /// The desk, or the stream's present source, leaves no place for the session that a call has led to.
    pub(super) fn call_refused(&mut self, now: Instant, key: &SourceKey, why: &str) {
        if let SourceKey::Called(stream) = key
            && let Some(place) = self.call_of(*stream)
            && matches!(self.calls[place].stage, Stage::Connected(_))
        {
            self.call_failed(now, place, why.to_owned(), Failure::Passing);
        }
    }

    /// A session is not wanted: a peer that has been called is told.
    pub(super) fn dismiss(&mut self, now: Instant, mut session: Session) {
        say_goodbye(&mut self.net, &mut self.transmit_buffer, now, &mut session);
    }

    /// Adds to the streams of a report how their calls stand, and the streams that have never been reached.
    pub(super) fn report_calls(&self, now: Instant, streams: &mut Vec<StreamReport>) {
        for call in &self.calls {
            let report = call.report(now);
            let status = match report.state {
                CallState::Waiting => StreamStatus::Waiting,
                CallState::Connecting | CallState::Connected => StreamStatus::Connecting,
            };
            match streams.iter_mut().find(|stream| stream.name == call.name) {
                Some(stream) => {
                    if report.state != CallState::Connected && stream.peer.is_none() {
                        stream.status = status;
                    }
                    stream.call = Some(report);
                }
                None => {
                    let stream = StreamReport::unreached(call.name.clone(), StreamKind::Srt, status, call.began());
                    streams.push(StreamReport { call: Some(report), ..stream });
                }
            }
        }
    }
}

/// A control packet of type 0.
#[inline]
fn is_handshake(bytes: &[u8]) -> bool {
    bytes.first_chunk() == Some(&[0x80, 0])
}
