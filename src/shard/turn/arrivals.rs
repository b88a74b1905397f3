//! Who comes in: callers and sources on their way to a session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Shard, UNADMITTED_MAX};
use crate::base::{Datagram, Instant};
use crate::output::StreamRings;
use crate::pipeline::ingest::{Ingest, Protocol};
use crate::protocol::rtp::{self, PayloadTypes, RtpHeader, SourceOptions};
use crate::protocol::srt::connection::Connection;
use crate::protocol::srt::encryption::{Encryption, KeyEncryptingKey};
use crate::protocol::srt::fec::configuration::FilterConfiguration;
use crate::protocol::srt::handshake::RejectReason;
use crate::protocol::srt::listener::{Acceptance, AdmissionRequest, Answer};
use crate::shard::admission::{Admitted, AdmittedSource, Newcomer, SILENT};
use crate::shard::mailbox::Message;
use crate::shard::net::{SocketRole, compose_socket_id};
use crate::shard::plan::SessionPlan;
use crate::shard::report::StreamKind;
use crate::shard::sessions::{About, Session};
use crate::shard::strangers::SourceKey;

/// What the desk has settled for an SRT caller.
struct Terms {
    key: Option<KeyEncryptingKey>,
    latency: Duration,
    packet_filter: Option<FilterConfiguration>,
    key_seed: [u8; 32],
}

impl Shard {
    /// A source proves itself with two packets in sequence; what it has sent by then is kept.
    pub(super) fn receive_rtp_stranger(
        &mut self,
        now: Instant,
        role: SocketRole,
        key: SourceKey,
        header: RtpHeader,
        datagram: Datagram,
    ) {
        let peer = datagram.peer;
        let Some(proven) = self.door.strangers.receive(now, header, datagram) else { return };
        let rtp = &self.config.ingestion.rtp;
        let options = SourceOptions {
            ssrc: matches!(key, SourceKey::Rtp { .. }).then_some(header.ssrc),
            reorder_depth: self.config.ingestion.frame.reorder_buffer as usize,
            session_timeout: rtp.session_timeout,
            payload_types: self.payload_types_of(key).clone(),
            reports: Some(rtp::source::ReportOptions {
                ssrc: self.random.bits() as u32,
                canonical_name: "headworks".to_owned(),
                destination: rtp::source::ReportDestination::Sender,
                session_bandwidth_bps: self.config.ingestion.srt.max_bandwidth,
                receivers: 1,
            }),
            ..SourceOptions::default()
        };
        let (packets, bytes) = (proven.held() as u64, proven.held_bytes());
        let source = rtp::Source::from_probation(options, self.random.bits(), now, proven);
        let protocol = Protocol::Rtp(Box::new(source));
        if let Some(index) = self.open_unadmitted(now, role, key, StreamKind::Rtp, protocol, peer) {
            let session = self.sessions.get_mut(index);
            (session.packets, session.bytes) = (packets, bytes);
            self.touched.add(index);
        }
    }

    /// A source of the RTP ports gets a stream without a name; it is named, or refused, by the desk.
    pub(super) fn open_unadmitted(
        &mut self,
        now: Instant,
        role: SocketRole,
        key: SourceKey,
        kind: StreamKind,
        protocol: Protocol,
        peer: SocketAddr,
    ) -> Option<usize> {
        if self.door.unadmitted >= UNADMITTED_MAX || self.stopping.is_some() {
            self.counters.dropped_stray += 1;
            return None;
        }
        let ingest = Ingest::new(self.payload_types_of(key).clone());
        let mut session = Session::new(String::new(), 0, kind, role, now, ingest);
        session.source = Some(key);
        session.quota = SessionPlan::new(&self.config, Duration::ZERO).quota;
        session.attach(now, protocol, peer, About::default());
        let index = self.sessions.insert(session);
        self.door.unadmitted += 1;
        self.desk.admit_source(self.index, key);
        Some(index)
    }

    fn payload_types_of(&self, key: SourceKey) -> &PayloadTypes {
        match key {
            SourceKey::Configured(index) => &self.payload_types.0[index],
            SourceKey::Rtp { ssrc, .. } => {
                let is_its =
                    |stream: &crate::config::Stream| stream.rtp.as_ref().and_then(|rtp| rtp.ssrc) == Some(ssrc);
                let configured = self.config.streams.values().position(is_its);
                configured.map_or(&self.payload_types.1, |index| &self.payload_types.0[index])
            }
            SourceKey::Raw { .. } => &self.payload_types.1,
        }
    }

    pub(super) fn refuse(&mut self, now: Instant, request: &AdmissionRequest, reason: RejectReason) {
        self.counters.rejections += 1;
        let answer = request.reject(now, reason);
        self.door.listener.answer(now, answer);
    }

    pub(super) fn source_refused(&mut self, now: Instant, key: &SourceKey, long: Duration) {
        self.door.strangers.refuse(now, *key, long);
        self.door.unadmitted -= 1;
        self.counters.rejections += 1;
        if let Some(index) = self.sessions.by_source(key) {
            self.sessions.remove(index);
            self.timers.set(index, None);
        }
    }

    /// The desk has let a source in, and this shard owns its stream.
    pub(super) fn admitted(&mut self, now: Instant, admitted: Admitted) {
        let Admitted { name, life, admission, output, source } = admitted;
        if let Some(index) = self.sessions.by_name(&name) {
            self.sessions.get_mut(index).admission = Some(admission);
        }
        let rings = output.map(|output| {
            let reply = self.desk.reply_to(self.index, life);
            StreamRings::new(*output, Arc::clone(self.desk.directory()), self.desk.housekeeping().clone(), reply)
        });
        match source {
            AdmittedSource::Srt { request, key, origin, latency, packet_filter, key_seed } => {
                let index = match (self.sessions.by_name(&name), rings) {
                    (Some(index), _) => index,
                    (None, Some(rings)) => {
                        let types = PayloadTypes::default();
                        let mut session =
                            Session::new(name, life, StreamKind::Srt, SocketRole::Srt, now, Ingest::new(types));
                        session.rings = Some(rings);
                        session.admission = Some(admission);
                        self.sessions.insert(session)
                    }
                    // The stream ended while the caller was on its way here. It will call again, and find a new one.
                    (None, None) => {
                        return self.answer_from_here(now, origin, request.reject(now, RejectReason::Resource));
                    }
                };
                let terms = Terms { key, latency, packet_filter, key_seed };
                self.answer_caller(now, index, &request, terms, origin);
            }
            AdmittedSource::Source(key) => {
                self.door.unadmitted -= 1;
                let Some(index) = self.sessions.by_source(&key) else {
                    // It has said goodbye meanwhile: what was prepared for it is given back.
                    if let Some(rings) = rings {
                        rings.end(now);
                        self.report_end(name, life);
                    }
                    return;
                };
                match (self.sessions.by_name(&name), rings) {
                    (None, Some(rings)) => {
                        self.sessions.rename(index, &name);
                        let session = self.sessions.get_mut(index);
                        session.life = life;
                        session.admission = Some(admission);
                        session.rings = Some(rings);
                        let peer = session.peer.map(|peer| peer.to_string()).unwrap_or_default();
                        session.tell(now, format!("{} from {peer}", session.kind.name().to_uppercase()));
                    }
                    // The answer to an earlier question of the same source, which has asked twice.
                    (Some(old), _) if old == index => {}
                    (Some(old), _) => self.replace_source(now, old, index, key),
                    (None, None) => {
                        self.sessions.remove(index);
                        self.timers.set(index, None);
                        return;
                    }
                }
                self.touched.add(index);
            }
        }
    }

    /// A source comes back under the name of a stream that is still here: the stream takes its session over.
    fn replace_source(&mut self, now: Instant, stream: usize, newcomer: usize, key: SourceKey) {
        let arrived = self.sessions.remove(newcomer);
        self.timers.set(newcomer, None);
        let session = self.sessions.get_mut(stream);
        // A newcomer that has said goodbye meanwhile takes nothing over.
        let Some(peer) = arrived.peer else { return };
        if session.detached.is_none() && !session.may_be_taken_over(now, peer) {
            self.counters.rejections += 1;
            session.tell(now, format!("source {peer} refused: {} still sends", session.peer_name()));
            return self.door.strangers.refuse(now, key, SILENT);
        }
        if session.detached.is_none() {
            session.detach(now);
        }
        (session.role, session.kind) = (arrived.role, arrived.kind);
        session.packets += arrived.packets;
        session.bytes += arrived.bytes;
        let mut ingest = arrived.ingest;
        if let Some(protocol) = ingest.take_protocol() {
            session.attach(now, protocol, peer, About::default());
            session.tell(now, format!("taken over by {peer}"));
        }
        self.sessions.clear_socket_id(stream);
        self.sessions.set_source(stream, key);
        self.touched.add(stream);
    }

    /// A source has come to another shard under the name of a stream that is here: the stream goes there, unless its own
    /// source still sends.
    pub(super) fn vacate(&mut self, now: Instant, life: u64, key: SourceKey, shard: usize) {
        let Some(index) = self.sessions.by_life(life) else {
            // It has ended, of which the desk will have heard when the source asks again.
            self.shards.mailbox(shard).post(Message::SourceRefused(key, SILENT));
            return;
        };
        let session = self.sessions.get_mut(index);
        let silence = now.saturating_since(session.last_datagram);
        let may = key.peer().map_or(silence >= SILENT, |peer| session.may_be_taken_over(now, peer));
        if session.detached.is_none() && !may {
            self.counters.rejections += 1;
            session.tell(now, format!("source {key} refused: {} still sends", session.peer_name()));
            self.shards.mailbox(shard).post(Message::SourceRefused(key, SILENT));
            return;
        }
        session.conclude(now);
        session.tell(now, format!("goes to shard {shard}, where {key} sends to"));
        let session = self.sessions.remove(index);
        self.timers.set(index, None);
        let rings = session.rings.map(|rings| rings.into_idle(now));
        self.waker.ring();
        if !self.desk.stream_vacated(session.name.clone(), life, rings, shard, key) {
            self.shards.mailbox(shard).post(Message::SourceRefused(key, SILENT));
            self.report_end(session.name, life);
        }
    }

    /// A stream without a session ends, because the desk needs its place or its memory for a newcomer.
    pub(super) fn evict(&mut self, now: Instant, life: u64, newcomer: Newcomer) {
        // It may have ended by itself meanwhile.
        let ended = self.sessions.by_life(life).map(|index| {
            let session = self.sessions.get_mut(index);
            debug_assert!(session.detached.is_some(), "the desk hears of every session before it begins");
            session.tell(now, "makes way for another stream".to_owned());
            self.end_rings(now, index)
        });
        if !self.desk.made_way(ended.clone(), newcomer)
            && let Some((name, life)) = ended
        {
            self.report_end(name, life);
        }
    }

    /// Lets an SRT caller in, or tells it why not.
    fn answer_caller(&mut self, now: Instant, index: usize, request: &AdmissionRequest, terms: Terms, origin: usize) {
        let session = self.sessions.get_mut(index);
        let peer = request.key.peer;
        let outcome = if session.detached.is_none() && !session.may_be_taken_over(now, peer) {
            Err(RejectReason::Conflict)
        } else {
            self.accept(now, index, request, terms)
        };
        let answer = match outcome {
            Ok(answer) => answer,
            Err(reason) => {
                self.counters.rejections += 1;
                let session = self.sessions.get_mut(index);
                session.tell(now, format!("caller {peer} refused: {reason}"));
                request.reject(now, reason)
            }
        };
        self.answer_from_here(now, origin, answer);
        self.touched.add(index);
    }

    /// Answers are sent from where the session is, and repeated from where the conclusion came in.
    fn answer_from_here(&mut self, now: Instant, origin: usize, answer: Answer) {
        self.transmit_buffer.clear();
        let transmit = answer.write(now, &mut self.transmit_buffer);
        self.net.send(SocketRole::Srt, &transmit, &self.transmit_buffer);
        if origin == self.index {
            self.door.listener.remember(now, answer);
        } else {
            self.shards.mailbox(origin).post(Message::Answered(Box::new(answer)));
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        index: usize,
        request: &AdmissionRequest,
        terms: Terms,
    ) -> Result<Answer, RejectReason> {
        let socket_id = loop {
            // Who cannot read the stream has to guess it.
            let random = getrandom::u32().expect("the operating system has randomness");
            let id = compose_socket_id(self.index, random);
            if self.sessions.by_socket_id(id).is_none() {
                break id;
            }
        };
        let free_slots = self.net.pool().free_slots();
        let latency_max = SessionPlan::latency_max(&self.config, free_slots);
        let wanted = Duration::from_millis(u64::from(request.requested_latency_ms)).max(terms.latency).min(latency_max);
        let plan = SessionPlan::new(&self.config, wanted);
        let milliseconds = |duration: Duration| u16::try_from(duration.as_millis()).unwrap_or(u16::MAX);
        let acceptance = Acceptance {
            socket_id,
            receive_latency_ms: milliseconds(terms.latency),
            latency_max_ms: milliseconds(latency_max),
            flow_window: plan.flow_window,
            key_encrypting_key: terms.key,
            key_seed: terms.key_seed,
            address_secret: Some(self.address_secret),
            packet_filter: terms.packet_filter,
            ..Acceptance::default()
        };
        let (parameters, answer) = request.accept(now, acceptance)?;
        let version = request.peer_version;
        let about = About {
            cipher: parameters.encryption.as_ref().map_or_else(String::new, Encryption::name),
            latency_ms: u32::from(parameters.receive_latency_ms),
            peer_version: format!("{}.{}.{}", version >> 16 & 0xff, version >> 8 & 0xff, version & 0xff),
        };
        let filter = parameters.packet_filter.map(FilterConfiguration::from);
        let filter = filter.map_or_else(String::new, |filter| format!(", packet filter {filter}"));
        let connection = Connection::new(now, parameters, plan.limits);
        if self.sessions.get_mut(index).detached.is_none() {
            self.sessions.clear_socket_id(index);
            let session = self.sessions.get_mut(index);
            session.detach(now);
            session.tell(now, format!("taken over by {}", request.key.peer));
        }
        self.sessions.clear_source(index);
        self.sessions.set_socket_id(index, socket_id);
        let session = self.sessions.get_mut(index);
        (session.role, session.kind) = (SocketRole::Srt, StreamKind::Srt);
        session.quota = plan.quota;
        let cipher = if about.cipher.is_empty() { "plain" } else { &about.cipher };
        let what = format!(
            "SRT from {}, version {}, {cipher}, latency {} ms{filter}",
            request.key.peer, about.peer_version, about.latency_ms
        );
        session.attach(now, Protocol::Srt(Box::new(connection)), request.key.peer, about);
        session.tell(now, what);
        Ok(answer)
    }
}
