//! Who comes in: callers and sources on their way to a session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Door, Shard, UNADMITTED_MAX, send, transmit_role};
use crate::base::{Datagram, Instant, Rate, SourcePrefix};
use crate::config::Config;
use crate::output::StreamRings;
use crate::pipeline::ingest::{Ingest, Protocol};
use crate::protocol::rtp::{self, PayloadTypes, RtpHeader, SourceOptions};
use crate::protocol::srt::connection::Connection;
use crate::protocol::srt::encryption::{KeyEncryptingKey, KeyMaterialState};
use crate::protocol::srt::fec::configuration::FilterConfiguration;
use crate::protocol::srt::group::{Group, LEGS_MAX};
use crate::protocol::srt::handshake::{RejectReason, VERSION_MIN};
use crate::protocol::srt::listener::{Acceptance, AdmissionRequest, Answer, Listener, ListenerSettings};
use crate::protocol::srt::membership::{GROUP_ID_BIT, Membership};
use crate::shard::access::{self, Denial, SILENT};
use crate::shard::admission::{Admitted, AdmittedSource, Newcomer, OVERRUN, Secrecy};
use crate::shard::mailbox::Message;
use crate::shard::net::{Net, SocketRole, compose_socket_id};
use crate::shard::plan::SessionPlan;
use crate::shard::refusals::Refusals;
use crate::shard::report::StreamKind;
use crate::shard::sessions::{About, Session};
use crate::shard::strangers::{SourceKey, Strangers};

/// Seconds' worth of handshakes that a source may send at once: a site full of encoders comes back as one.
const HANDSHAKES_AT_ONCE: u32 = 4;

impl Door {
    /// Nobody is there yet. The secret of the cookies is the same on all of so many shards.
    pub(super) fn new(now: Instant, config: &Config, shards: usize, cookie_secret: [u8; 16]) -> Self {
        let access = &config.ingestion.srt.access;
        let rate = |per_second| handshake_rate(per_second, shards);
        let settings = ListenerSettings {
            cookie_secret,
            version_min: config.ingestion.srt.version_min.map_or(VERSION_MIN, |version| version.0),
            bonding: config.ingestion.srt.bonding,
            inductions: rate(access.inductions_per_second),
            conclusions: rate(access.conclusions_per_second),
            ..ListenerSettings::default()
        };
        Self {
            listener: Listener::new(settings),
            strangers: Strangers::new(),
            unadmitted: 0,
            refusals: Refusals::new(now),
        }
    }
}

/// What one of so many shards grants of the handshakes that a source may send in a second: its share, since they come to all of them, by
/// a hash of the caller's socket id, which an attacker chooses as it likes. As honest callers do not spread evenly over few handshakes,
/// a shard grants up to two shares of what may come at once.
fn handshake_rate(per_second: u32, shards: usize) -> Rate {
    let share = per_second.div_ceil(u32::try_from(shards).unwrap_or(u32::MAX));
    let at_once = share.saturating_mul(2).min(per_second).saturating_mul(HANDSHAKES_AT_ONCE);
    Rate::new(share, at_once)
}

/// What the desk has settled for an SRT caller.
struct Terms {
    secrecy: Secrecy,
    latency: Duration,
    packet_filter: Option<FilterConfiguration>,
    key_seed: [u8; 32],
}

/// Why somebody is to ask again.
const JUST_ENDED: &str = "its stream has just ended";

/// The longest latency that callers of version 4 of the handshake get, unless the stream has a longer one.
pub(super) const VERSION4_LATENCY: Duration = Duration::from_secs(2);

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
            SourceKey::Raw { .. } | SourceKey::Called(_) => &self.payload_types.1,
        }
    }

    /// Lets the desk judge a caller, unless there is something against it that can be seen from here.
    pub(super) fn ask(&mut self, now: Instant, request: Box<AdmissionRequest>) {
        let denial = if self.stopping.is_some() {
            Some(Denial::new(RejectReason::Down, "the service is about to end"))
        } else {
            access::judge(&self.config, &request).err()
        };
        if let Some(denial) = denial {
            return self.refuse(now, &request, denial);
        }
        if let Err(reason) = self.desk.admit_srt(self.index, request.clone()) {
            self.refuse(now, &request, Denial::new(reason, "too many wait for their admission"));
        }
    }

    pub(super) fn refuse(&mut self, now: Instant, request: &AdmissionRequest, denial: Denial) {
        self.counters.rejections += 1;
        let answer = request.reject(now, denial.reason);
        self.note_refusal(now, request, denial);
        self.door.listener.answer(now, answer);
    }

    fn note_refusal(&mut self, now: Instant, request: &AdmissionRequest, denial: Denial) {
        self.door.refusals.note(now, request.key.peer, request.stream_id.as_str(), denial);
    }

    pub(super) fn source_refused(&mut self, now: Instant, key: &SourceKey, long: Duration, why: &str) {
        self.door.strangers.refuse(now, *key, long);
        self.door.unadmitted -= 1;
        self.counters.rejections += 1;
        if let Some(index) = self.sessions.by_source(key) {
            let session = self.sessions.remove(index);
            self.timers.set(index, None);
            self.dismiss(now, session);
        }
        self.call_refused(now, key, why);
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
            AdmittedSource::Srt { request, secrecy, origin, latency, packet_filter, key_seed } => {
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
                        let reason = RejectReason::Resource;
                        self.note_refusal(now, &request, Denial::new(reason, JUST_ENDED));
                        return self.answer_from_here(now, origin, request.reject(now, reason));
                    }
                };
                let terms = Terms { secrecy, latency, packet_filter, key_seed };
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
                        let line = session.peer.map_or_else(String::new, |peer| session.about.line(session.kind, peer));
                        session.tell(now, line);
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
        let socket_ids = self.sessions.get_mut(newcomer).socket_ids.clone();
        let arrived = self.sessions.remove(newcomer);
        self.timers.set(newcomer, None);
        let session = self.sessions.get_mut(stream);
        // A newcomer that has said goodbye meanwhile takes nothing over.
        let Some(peer) = arrived.peer else { return };
        let policy = access::takeover_of(&self.config, &session.name);
        if session.detached.is_none() && !session.may_be_taken_over(now, peer, policy) {
            self.counters.rejections += 1;
            session.tell(now, format!("source {peer} refused: {} still sends", session.peer_name()));
            self.dismiss(now, arrived);
            self.call_refused(now, &key, "another source still sends the stream");
            return self.door.strangers.refuse(now, key, SILENT);
        }
        let had_session = session.detached.is_none();
        if had_session {
            say_goodbye(&mut self.net, &mut self.transmit_buffer, now, session);
            session.detach(now);
        }
        (session.role, session.kind, session.quota) = (arrived.role, arrived.kind, arrived.quota);
        session.packets += arrived.packets;
        session.bytes += arrived.bytes;
        let mut ingest = arrived.ingest;
        if let Some(protocol) = ingest.take_protocol() {
            let line = arrived.about.line(arrived.kind, peer);
            session.attach(now, protocol, peer, arrived.about);
            session.tell(now, if had_session { format!("taken over by {line}") } else { line });
        }
        self.sessions.clear_socket_id(stream);
        self.sessions.set_source(stream, key);
        for id in socket_ids {
            self.sessions.add_socket_id(stream, id);
        }
        self.touched.add(stream);
    }

    /// A source has come to another shard under the name of a stream that is here: the stream goes there, unless its own
    /// source still sends.
    pub(super) fn vacate(&mut self, now: Instant, life: u64, key: SourceKey, shard: usize) {
        let Some(index) = self.sessions.by_life(life) else {
            // It has ended, of which the desk will have heard when the source asks again.
            self.shards.mailbox(shard).post(Message::SourceRefused(key, SILENT, JUST_ENDED.to_owned()));
            return;
        };
        let session = self.sessions.get_mut(index);
        let silence = now.saturating_since(session.last_datagram);
        let policy = access::takeover_of(&self.config, &session.name);
        let may = key.peer().map_or(silence >= SILENT, |peer| session.may_be_taken_over(now, peer, policy));
        if session.detached.is_none() && !may {
            self.counters.rejections += 1;
            let why = format!("{} still sends", session.peer_name());
            session.tell(now, format!("source {key} refused: {why}"));
            self.shards.mailbox(shard).post(Message::SourceRefused(key, SILENT, why));
            return;
        }
        say_goodbye(&mut self.net, &mut self.transmit_buffer, now, session);
        session.conclude(now);
        session.tell(now, format!("goes to shard {shard}, where {key} sends to"));
        let session = self.sessions.remove(index);
        self.timers.set(index, None);
        let rings = session.rings.map(|rings| rings.into_idle(now));
        self.waker.ring();
        if !self.desk.stream_vacated(session.name.clone(), life, rings, shard, key) {
            self.shards.mailbox(shard).post(Message::SourceRefused(key, SILENT, OVERRUN.to_owned()));
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
        let (configured, is_proven) = (access::takeover_of(&self.config, &session.name), terms.secrecy.is_proven);
        let policy = if is_proven { configured } else { access::without_proof(configured) };
        let is_secured = session.group().into_iter().flat_map(Group::legs);
        let is_secured = is_secured.map(|leg| leg.connection().parameters()).any(|it| it.encryption.is_some());
        // What comes by a leg is taken for what the others would have brought.
        let may_join = is_proven || !is_secured;
        let outcome = match (request.group, session.group().map(Group::peer)) {
            // One more leg of the group that sends already: that is one publisher, with one id.
            (Some(theirs), Some(known)) if theirs.group_id == known.group_id && may_join => {
                if theirs.group_type == known.group_type {
                    self.accept_leg(now, index, request, theirs, terms)
                } else {
                    let (new, old) = (theirs.group_type.name(), known.group_type.name());
                    let why = format!("its group is {new}, and the same group sends as {old} already");
                    Err(Denial::new(RejectReason::Group, why))
                }
            }
            _ if session.detached.is_none() && !session.may_be_taken_over(now, peer, policy) => {
                Err(Denial::new(RejectReason::Conflict, session.why_not_given_away(now, configured, is_proven)))
            }
            _ => self.accept(now, index, request, terms),
        };
        let answer = match outcome {
            Ok(answer) => answer,
            Err(denial) => {
                let Denial { reason, why } = &denial;
                self.counters.rejections += 1;
                self.sessions.get_mut(index).tell_of_peer(now, format!("caller {peer} refused: {reason}: {why}"));
                let answer = request.reject(now, *reason);
                self.note_refusal(now, request, denial);
                answer
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

    /// The key that a session has asked for, unless it has ended meanwhile.
    pub(super) fn key_derived(&mut self, life: u64, socket_id: u32, key: KeyEncryptingKey) {
        if let Some(index) = self.sessions.by_life(life)
            && let session = self.sessions.get_mut(index)
            && session.socket_ids.contains(&socket_id)
            && let Some(Protocol::Srt(connection)) = session.ingest.protocol_mut()
        {
            connection.provide_key(key);
            self.touched.add(index);
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        index: usize,
        request: &AdmissionRequest,
        terms: Terms,
    ) -> Result<Answer, Denial> {
        let socket_id = self.draw_socket_id();
        let free_slots = self.net.pool().free_slots();
        let latency_max = SessionPlan::latency_max(&self.config, free_slots);
        // A caller of version 4 asks when it is in, and gets what there is room for by then.
        let asked = match request.is_version4 {
            true => VERSION4_LATENCY,
            false => Duration::from_millis(u64::from(request.requested_latency_ms)),
        };
        let wanted = asked.max(terms.latency).min(latency_max);
        let latency_max = if request.is_version4 { wanted } else { latency_max };
        let settings = self.config.streams.get(&self.sessions.get_mut(index).name);
        let plan = SessionPlan::new(&self.config, wanted).for_stream(settings);
        let milliseconds = |duration: Duration| u16::try_from(duration.as_millis()).unwrap_or(u16::MAX);
        let acceptance = Acceptance {
            socket_id,
            receive_latency_ms: milliseconds(terms.latency),
            latency_max_ms: milliseconds(latency_max),
            flow_window: plan.flow_window,
            key_encrypting_key: terms.secrecy.key,
            has_passphrase: terms.secrecy.has_passphrase,
            enforced_encryption: terms.secrecy.is_enforced,
            key_seed: terms.key_seed,
            address_secret: Some(self.address_secret),
            group_id: request.group.map(|_| draw() >> 2 | GROUP_ID_BIT),
            packet_filter: terms.packet_filter,
            ..Acceptance::default()
        };
        let group = request.group.zip(acceptance.group_id);
        let (parameters, answer) = request.accept(now, acceptance).map_err(unacceptable)?;
        let about = About::of_srt(&parameters);
        let key_state = parameters.key_state;
        let filter = parameters.packet_filter.map(FilterConfiguration::from);
        let filter = filter.map_or_else(String::new, |filter| format!(", packet filter {filter}"));
        let protocol = match group {
            Some((theirs, ours)) => {
                Protocol::SrtGroup(Box::new(Group::new(now, ours, theirs, parameters, plan.limits)))
            }
            None => Protocol::Srt(Box::new(Connection::new(now, parameters, plan.limits))),
        };
        if self.sessions.get_mut(index).detached.is_none() {
            self.sessions.clear_socket_id(index);
            let session = self.sessions.get_mut(index);
            // To a caller that is back with the socket id it had this would be the end of what it is just beginning.
            if !session.is_with(request.key.peer, request.key.peer_socket_id) {
                say_goodbye(&mut self.net, &mut self.transmit_buffer, now, session);
            }
            session.detach(now);
            session.tell(now, format!("taken over by {}", request.key.peer));
        }
        self.sessions.clear_source(index);
        self.sessions.set_socket_id(index, socket_id);
        let session = self.sessions.get_mut(index);
        (session.role, session.kind) = (SocketRole::Srt, StreamKind::Srt);
        session.quota = plan.quota;
        let cipher = match (about.cipher.as_str(), key_state) {
            ("", KeyMaterialState::BadSecret) => "unreadable: the passphrases differ",
            ("", KeyMaterialState::NoSecret) => "unreadable: there is no passphrase here",
            ("", _) => "plain",
            (cipher, _) => cipher,
        };
        let bonded = request.group.map_or_else(String::new, |group| format!(", {} group", group.group_type.name()));
        let what = format!(
            "SRT from {}, version {}, {cipher}, latency {} ms{bonded}{filter}",
            request.key.peer, about.peer_version, about.latency_ms
        );
        session.attach(now, protocol, request.key.peer, about);
        session.tell(now, what);
        let (name, life) = (session.name.clone(), session.life);
        self.desk.session_began(name, life, SourcePrefix::of(request.key.peer.ip()));
        Ok(answer)
    }

    /// One more leg of a group. All have the latency of the first, and their packets the same time.
    fn accept_leg(
        &mut self,
        now: Instant,
        index: usize,
        request: &AdmissionRequest,
        theirs: Membership,
        terms: Terms,
    ) -> Result<Answer, Denial> {
        let socket_id = self.draw_socket_id();
        let address_secret = Some(self.address_secret);
        let session = self.sessions.get_mut(index);
        let settings = self.config.streams.get(&session.name);
        let no_room = || Denial::new(RejectReason::Resource, format!("its group has {LEGS_MAX} legs already"));
        let group = session.group_mut().ok_or_else(no_room)?;
        if !group.has_room(now) {
            return Err(no_room());
        }
        let latency_ms = group.latency_ms();
        let plan = SessionPlan::new(&self.config, Duration::from_millis(u64::from(latency_ms))).for_stream(settings);
        let acceptance = Acceptance {
            socket_id,
            receive_latency_ms: latency_ms,
            latency_max_ms: latency_ms,
            flow_window: plan.flow_window,
            key_encrypting_key: terms.secrecy.key,
            has_passphrase: terms.secrecy.has_passphrase,
            enforced_encryption: terms.secrecy.is_enforced,
            key_seed: terms.key_seed,
            address_secret,
            group_id: Some(group.group_id()),
            packet_filter: terms.packet_filter,
            ..Acceptance::default()
        };
        let (parameters, answer) = request.accept(now, acceptance).map_err(unacceptable)?;
        let path = group.join(now, theirs.weight, parameters, plan.limits);
        // While all wait for the same packet, what comes after it is held more than once.
        session.quota = plan.quota + plan.limits.receive_buffer_packets;
        session.tell_of_peer(now, format!("leg {path} from {}, weight {}", request.key.peer, theirs.weight));
        self.sessions.add_socket_id(index, socket_id);
        Ok(answer)
    }

    /// A socket id of this shard that is not in use. Who cannot read the stream has to guess it.
    pub(super) fn draw_socket_id(&self) -> u32 {
        loop {
            let id = compose_socket_id(self.index, draw());
            if self.sessions.by_socket_id(id).is_none() {
                return id;
            }
        }
    }
}

/// Ends a session from this side: a peer that speaks SRT is told, and what it has sent can still be delivered.
pub(super) fn say_goodbye(net: &mut Net, buffer: &mut Vec<u8>, now: Instant, session: &mut Session) {
    if session.kind != StreamKind::Srt {
        return;
    }
    session.ingest.close();
    buffer.clear();
    while let Some(transmit) = session.ingest.poll_transmit(now, buffer) {
        send(net, transmit_role(session.role), &transmit, buffer);
    }
}

/// What the desk has let in and the handshake cannot agree to after all.
fn unacceptable(reason: RejectReason) -> Denial {
    Denial::new(reason, "its keys or its packet filter are none that can be agreed to")
}

fn draw() -> u32 {
    getrandom::u32().expect("the operating system has randomness")
}
