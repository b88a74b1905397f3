//! The listener of one port: answers inductions, checks conclusions, and hands them out for admission.
//!
//! Until a caller has shown, with a cookie, that it receives at the address it writes from, nothing is kept of it. After that
//! whoever owns the stream decides, at its leisure and perhaps on another shard, with [`AdmissionRequest::accept`] or
//! [`AdmissionRequest::reject`]; the [`Answer`] goes out from there, and back to the listener that got the conclusion, so that it
//! can repeat it.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use arrayvec::ArrayVec;
use siphasher::sip::SipHasher24;

pub use admission::{ANSWER_LEN_MAX, Acceptance, AdmissionRequest, Answer, ConnectionKey};

use super::control::{Control, ControlWriter};
use super::encryption::KeyMaterial;
use super::fec::configuration::FilterConfiguration;
use super::handshake::{
    Extensions, Handshake, HandshakeFields, MAGIC, RejectReason, Request, VERSION_4, VERSION_5, VERSION_MIN,
};
use super::membership::Membership;
use super::packet::{self, HEADER_LEN, Header};
use super::parameters::MTU_MIN;
use super::stream_id::{self, StreamId};
use super::transmission_mode::TransmissionMode;
use crate::base::{Instant, Rate, SourceLimits, SourcePrefix, Transmit};

mod admission;
mod snapshot;
#[cfg(test)]
mod tests;
mod version4;

/// Sources whose handshakes are counted one by one.
const SOURCES_MAX: usize = 4_096;
/// Refusals kept for one who does not poll them.
const REFUSALS_MAX: usize = 64;

/// What a listener is made with.
#[derive(Clone, Copy, Debug)]
pub struct ListenerSettings {
    /// Secret for cookies; the same on all shards that share the port, and never the same after a restart, unless the process that comes after
    /// goes on with what this one had ([`Listener::restore`]).
    pub cookie_secret: [u8; 16],
    /// Oldest version of SRT that is let in, `0x00MMmmpp`; never below [`VERSION_MIN`].
    pub version_min: u32,
    /// How many conclusions may wait for their admission; others are rejected with [`RejectReason::Backlog`].
    pub pending_max: usize,
    /// How long one may wait, before it is forgotten.
    pub pending_time: Duration,
    /// How many answers are kept for repetition; the oldest make room.
    pub answered_max: usize,
    /// How long an answer is kept.
    pub answered_time: Duration,
    /// How many packets may wait to be sent; others are dropped.
    pub transmit_max: usize,
    /// How many inductions of one source are answered; others are dropped.
    pub inductions: Rate,
    /// How many conclusions of one source are judged; others are rejected with [`RejectReason::Overload`].
    pub conclusions: Rate,
    /// Whether legs of bonding groups are let in (libsrt: `SRTO_GROUPCONNECT`). If not, they are rejected with [`RejectReason::Group`].
    pub bonding: bool,
    /// How connections carry what they are given; callers who mean something else are rejected.
    pub mode: TransmissionMode,
}

impl Default for ListenerSettings {
    /// Room for a machine full of encoders that come back at once; the secret is zero and has to be set.
    fn default() -> Self {
        Self {
            cookie_secret: [0; 16],
            version_min: VERSION_MIN,
            pending_max: 256,
            pending_time: Duration::from_secs(5),
            answered_max: 1024,
            answered_time: Duration::from_secs(10),
            transmit_max: 256,
            inductions: Rate::default(),
            conclusions: Rate::default(),
            bonding: true,
            mode: TransmissionMode::Live,
        }
    }
}

/// What a listener has counted since it was made. What is not answered stands here with its reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerCounters {
    /// Inductions answered.
    pub inductions: u64,
    /// Conclusions handed out for admission.
    pub admissions: u64,
    /// Conclusions that repeated an earlier one.
    pub repeats: u64,
    /// Conclusions that the listener itself rejected.
    pub rejections: u64,
    /// Of these, for want of room to wait in.
    pub rejected_backlog: u64,
    /// Of these, because their source had sent too many.
    pub rejected_rate: u64,
    /// Inductions not answered because their source had sent too many.
    pub dropped_rate: u64,
    /// Admissions that nobody answered in time.
    pub unanswered: u64,
    /// Packets that were not well formed.
    pub dropped_malformed: u64,
    /// Packets that were no handshake, or not to a listener.
    pub dropped_stray: u64,
    /// Conclusions whose cookie was not ours, or too old.
    pub dropped_cookie: u64,
    /// Answers for which the queue had no room.
    pub dropped_transmit: u64,
}

/// What a listener reports.
#[derive(Debug)]
pub enum Event {
    /// Somebody wants to connect.
    Admission(Box<AdmissionRequest>),
}

/// Somebody whom the listener itself has rejected, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it called from.
    pub peer: SocketAddr,
    /// What it asked for; what is no Stream ID is shown as far as it is text.
    pub stream_id: String,
    /// What it was told.
    pub reason: RejectReason,
    /// What that means here.
    pub why: String,
}

enum Attempt {
    Pending,
    Answered(Box<Answer>),
}

struct Entry {
    attempt: Attempt,
    expires: Instant,
}

/// The machine of one listening port.
pub struct Listener {
    settings: ListenerSettings,
    attempts: BTreeMap<ConnectionKey, Entry>,
    pending: usize,
    /// The order in which answers were given, oldest first; some may be gone from `attempts` already.
    answered: VecDeque<ConnectionKey>,
    next_expiry: Option<Instant>,
    events: VecDeque<Event>,
    transmits: VecDeque<(Transmit, ArrayVec<u8, ANSWER_LEN_MAX>)>,
    scratch: Vec<u8>,
    counters: ListenerCounters,
    inductions: SourceLimits,
    conclusions: SourceLimits,
    refusals: VecDeque<Refusal>,
}

/// Where a datagram came from, and by which way an answer goes back.
#[derive(Clone, Copy)]
struct Origin {
    peer: SocketAddr,
    local: Option<IpAddr>,
    interface: u32,
}

impl Listener {
    /// A listener that knows nobody yet; everything it will ever hold is bounded by the settings.
    pub fn new(settings: ListenerSettings) -> Self {
        assert!(settings.pending_max > 0 && settings.answered_max > 0 && settings.transmit_max > 0, "room for one");
        Self {
            settings,
            attempts: BTreeMap::new(),
            pending: 0,
            answered: VecDeque::with_capacity(settings.answered_max),
            next_expiry: None,
            events: VecDeque::with_capacity(settings.pending_max),
            transmits: VecDeque::with_capacity(settings.transmit_max),
            scratch: Vec::with_capacity(ANSWER_LEN_MAX),
            counters: ListenerCounters::default(),
            inductions: SourceLimits::new(settings.inductions, SOURCES_MAX, settings.cookie_secret),
            conclusions: SourceLimits::new(settings.conclusions, SOURCES_MAX, settings.cookie_secret),
            refusals: VecDeque::with_capacity(REFUSALS_MAX),
        }
    }

    /// What has been counted.
    pub const fn counters(&self) -> ListenerCounters {
        self.counters
    }

    /// Attempts that wait for an [`Answer`].
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// Takes a datagram that came to the port and belongs to no connection.
    pub fn receive(&mut self, now: Instant, peer: SocketAddr, local: Option<IpAddr>, interface: u32, bytes: &[u8]) {
        let origin = Origin { peer, local, interface };
        let header = match packet::parse(bytes) {
            Ok(Header::Control(header)) => header,
            Ok(Header::Data(_)) => return self.counters.dropped_stray += 1,
            Err(_) => return self.counters.dropped_malformed += 1,
        };
        let Ok(Control::Handshake(body)) = Control::parse(&header, &bytes[HEADER_LEN..]) else {
            return self.counters.dropped_stray += 1;
        };
        if header.socket_id != 0 {
            return self.counters.dropped_stray += 1;
        }
        let handshake = match Handshake::parse(body) {
            Ok(handshake) if handshake.fields.socket_id != 0 => handshake,
            _ => return self.counters.dropped_malformed += 1,
        };
        match handshake.fields.request {
            Request::Induction => self.induction(now, origin, &handshake.fields),
            Request::Conclusion => self.conclusion(now, origin, header.timestamp_us, &handshake),
            Request::WaveAHand | Request::Agreement | Request::Rejection(_) => self.counters.dropped_stray += 1,
        }
    }

    /// Answered with a cookie from nothing but the question, in as many bytes: nothing kept, nothing amplified.
    fn induction(&mut self, now: Instant, origin: Origin, question: &HandshakeFields) {
        if !self.inductions.take(now, SourcePrefix::of(origin.peer.ip())) {
            return self.counters.dropped_rate += 1;
        }
        let answer = HandshakeFields {
            version: VERSION_5,
            encryption: 0,
            extension: MAGIC,
            cookie: self.cookie(origin.peer, minute(now)),
            peer_address: origin.peer.ip(),
            ..*question
        };
        self.counters.inductions += 1;
        self.send(now, origin, &answer);
    }

    fn conclusion(&mut self, now: Instant, origin: Origin, timestamp_us: u32, handshake: &Handshake<'_>) {
        let fields = &handshake.fields;
        let minute = minute(now);
        let expected = |minute| self.cookie(origin.peer, minute);
        if fields.cookie != expected(minute) && (minute == 0 || fields.cookie != expected(minute - 1)) {
            return self.counters.dropped_cookie += 1;
        }
        let key = ConnectionKey::of(origin.peer, fields);
        if let Some(entry) = self.attempts.get(&key) {
            self.counters.repeats += 1;
            if let Attempt::Answered(answer) = &entry.attempt {
                let answer = answer.clone();
                self.transmit(now, &answer);
            }
            return;
        }
        let judged = match self.turn_away(now, origin) {
            Some(reason) => Err(reason),
            None => self.judge(now, origin, timestamp_us, handshake),
        };
        match judged {
            Ok(request) => {
                let expires = now + self.settings.pending_time;
                self.attempts.insert(key, Entry { attempt: Attempt::Pending, expires });
                self.pending += 1;
                self.expire_at(expires);
                self.counters.admissions += 1;
                self.events.push_back(Event::Admission(Box::new(request)));
            }
            Err(reason) => {
                self.counters.rejections += 1;
                self.note(origin.peer, reason, handshake.extensions.stream_id);
                let request = Request::Rejection(reason);
                let answer = HandshakeFields { encryption: 0, extension: 0, request, ..*fields };
                self.send(now, origin, &answer);
            }
        }
    }

    /// Whether a source has sent too many conclusions, or three quarters of all that may wait are its: a quarter stays free for others.
    fn turn_away(&mut self, now: Instant, origin: Origin) -> Option<RejectReason> {
        let source = SourcePrefix::of(origin.peer.ip());
        if !self.conclusions.take(now, source) {
            self.counters.rejected_rate += 1;
            return Some(RejectReason::Overload);
        }
        let is_its = |key: &ConnectionKey| SourcePrefix::of(key.peer.ip()) == source;
        let share = self.settings.pending_max - self.settings.pending_max / 4;
        if self.pending < share {
            return None;
        }
        let waiting =
            |(key, entry): &(&ConnectionKey, &Entry)| matches!(entry.attempt, Attempt::Pending) && is_its(key);
        if self.pending < self.settings.pending_max && self.attempts.iter().filter(waiting).count() < share {
            return None;
        }
        self.counters.rejected_backlog += 1;
        Some(RejectReason::Backlog)
    }

    /// Keeps for people whom the listener has rejected.
    fn note(&mut self, peer: SocketAddr, reason: RejectReason, stream_id: Option<&[u8]>) {
        if self.refusals.len() == REFUSALS_MAX {
            return;
        }
        let (stream_id, fault) = match stream_id.map(StreamId::from_wire) {
            None => (String::new(), None),
            Some(Ok(stream_id)) => (stream_id.as_str().to_owned(), None),
            Some(Err(error)) => (stream_id::readable(stream_id.unwrap_or_default()), Some(error)),
        };
        let why = match (reason, fault) {
            (RejectReason::Overload, _) => "more conclusions than a source may send".to_owned(),
            (RejectReason::Backlog, _) => "too many wait for their admission".to_owned(),
            (RejectReason::MessageApi | RejectReason::Congestion, _) => self.settings.mode.expectation().to_owned(),
            (_, Some(fault)) if fault.reject_reason() == reason => fault.to_string(),
            _ => "its handshake is none that is let in here".to_owned(),
        };
        self.refusals.push_back(Refusal { peer, stream_id, reason, why });
    }

    /// The next that the listener itself has rejected.
    pub fn poll_refusal(&mut self) -> Option<Refusal> {
        self.refusals.pop_front()
    }

    /// Everything about a conclusion that does not depend on the stream it is for.
    fn judge(
        &mut self,
        now: Instant,
        origin: Origin,
        timestamp_us: u32,
        handshake: &Handshake<'_>,
    ) -> Result<AdmissionRequest, RejectReason> {
        let fields = &handshake.fields;
        if fields.mtu < MTU_MIN || fields.flow_window < 2 {
            return Err(RejectReason::Rogue);
        }
        let request = AdmissionRequest::new(now, origin, timestamp_us, fields);
        if fields.version == VERSION_4 {
            return self.judge_version4(request, fields);
        }
        let Extensions { handshake: extension, key_material, stream_id, filter, group, .. } = handshake.extensions;
        let extension = extension.ok_or(RejectReason::Rogue)?;
        if extension.version < VERSION_MIN {
            // Handshake version 5 came with 1.3.0: who says otherwise does not mean it.
            return Err(RejectReason::Rogue);
        }
        if extension.version < self.settings.version_min {
            return Err(RejectReason::Version);
        }
        self.settings.mode.agree(&extension, handshake.extensions.congestion)?;
        let packet_filter = filter.filter(|wire| !wire.is_empty()).map(FilterConfiguration::from_wire).transpose();
        let packet_filter = packet_filter.map_err(|_| RejectReason::Filter)?;
        if group.is_some() && (!self.settings.bonding || self.settings.mode.is_reliable()) {
            return Err(RejectReason::Group);
        }
        let group = group.map(Membership::parse).transpose()?;
        let key_material = key_material.map(KeyMaterial::parse).transpose().map_err(|_| RejectReason::Rogue)?;
        let stream_id = match stream_id.map(StreamId::from_wire).transpose() {
            Ok(stream_id) => stream_id.unwrap_or_default(),
            Err(error) => return Err(error.reject_reason()),
        };
        self.judge_backlog()?;
        Ok(AdmissionRequest {
            stream_id,
            mode: self.settings.mode,
            is_version4: false,
            peer_version: extension.version,
            peer_flags: extension.flags,
            requested_latency_ms: extension.send_latency_ms,
            peer_latency_ms: extension.receive_latency_ms,
            key_material,
            group,
            packet_filter,
            ..request
        })
    }

    fn judge_backlog(&mut self) -> Result<(), RejectReason> {
        if self.pending >= self.settings.pending_max || self.events.len() >= self.settings.pending_max {
            self.counters.rejected_backlog += 1;
            return Err(RejectReason::Backlog);
        }
        Ok(())
    }

    /// Takes the answer to an admission: sends it, and repeats it whenever the conclusion is repeated.
    ///
    /// An answer that comes after its time is sent all the same.
    pub fn answer(&mut self, now: Instant, answer: Answer) {
        self.transmit(now, &answer);
        self.remember(now, answer);
    }

    /// Takes an answer that has been sent already, by the shard that gave it, for repetition only.
    pub fn remember(&mut self, now: Instant, answer: Answer) {
        self.keep(answer, now + self.settings.answered_time);
    }

    fn keep(&mut self, answer: Answer, expires: Instant) {
        let key = answer.key;
        let entry = Entry { attempt: Attempt::Answered(Box::new(answer)), expires };
        match self.attempts.insert(key, entry).map(|previous| previous.attempt) {
            Some(Attempt::Answered(_)) => return,
            Some(Attempt::Pending) => self.pending -= 1,
            None => {}
        }
        if self.answered.len() == self.settings.answered_max
            && let Some(oldest) = self.answered.pop_front()
        {
            self.attempts.remove(&oldest);
        }
        self.answered.push_back(key);
        self.expire_at(expires);
    }

    /// Forgets what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|expiry| expiry > now) {
            return;
        }
        let (pending, counters) = (&mut self.pending, &mut self.counters);
        self.attempts.retain(|_, entry| {
            let keep = entry.expires > now;
            if !keep && matches!(entry.attempt, Attempt::Pending) {
                *pending -= 1;
                counters.unanswered += 1;
            }
            keep
        });
        let attempts = &self.attempts;
        self.answered
            .retain(|key| attempts.get(key).is_some_and(|entry| matches!(entry.attempt, Attempt::Answered(_))));
        self.next_expiry = self.attempts.values().map(|entry| entry.expires).min();
    }

    /// When [`Listener::handle_timeout`] has something to do.
    pub const fn next_timeout(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// The next packet to send; its bytes are appended to `buffer`.
    pub fn poll_transmit(&mut self, _now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, packet) = self.transmits.pop_front()?;
        buffer.extend_from_slice(&packet);
        Some(transmit)
    }

    /// The next thing to report.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn expire_at(&mut self, expires: Instant) {
        self.next_expiry = Some(self.next_expiry.map_or(expires, |earlier| earlier.min(expires)));
    }

    /// A handshake without extensions, back to where the question came from.
    fn send(&mut self, now: Instant, to: Origin, answer: &HandshakeFields) {
        self.scratch.clear();
        let timestamp_us = now.as_micros() as u32;
        ControlWriter { timestamp_us, socket_id: answer.socket_id }.handshake(&mut self.scratch, &[]);
        answer.encode(&mut self.scratch);
        let len = self.scratch.len();
        self.push(Transmit { peer: to.peer, local: to.local, interface: to.interface, path: 0, len });
    }

    fn transmit(&mut self, now: Instant, answer: &Answer) {
        self.scratch.clear();
        let transmit = answer.write(now, &mut self.scratch);
        self.push(transmit);
    }

    fn push(&mut self, transmit: Transmit) {
        if self.transmits.len() == self.settings.transmit_max {
            self.counters.dropped_transmit += 1;
            return;
        }
        self.transmits.push_back((transmit, self.scratch.iter().copied().collect()));
    }

    fn cookie(&self, peer: SocketAddr, minute: u64) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.settings.cookie_secret);
        match peer.ip().to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        hasher.write_u16(peer.port());
        hasher.write_u64(minute);
        hasher.finish() as u32
    }
}

const fn minute(now: Instant) -> u64 {
    now.as_nanos() / 60_000_000_000
}
