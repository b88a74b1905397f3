//! Rendezvous: two that call each other, and agree who is the initiator (draft-sharabayko-srt §4.3.2, handshake version 5).
//!
//! ```text
//!            wave            conclusion with HSRSP (initiator)
//!  waving ─────────▶ attention ─────────────────────────────────▶ connected, and an agreement goes out
//!     │                  │ conclusion with HSREQ (responder)           ▲
//!     │                  └────────────▶ initiated ─────────────────────┤ agreement, or anything else
//!     │ conclusion                                                     │ that only the connected send
//!     └──────────▶ fine ───────────────────────────────────────────────┘
//! ```
//!
//! Both wave with a cookie each; the greater one is the initiator's, who then makes the offers (HSREQ, KMREQ) that the responder answers
//! (HSRSP, KMRSP). In the serial flow one side has not heard the other's wave and is *fine* when it hears the conclusion; in the parallel
//! one both have. What is lost is sent again every [`RETRY_INTERVAL`], and what answers it again at once.
//! Nobody is asked for anything here, so there is no Stream ID.
//!
//! A peer of version 4 (libsrt before 1.3) has no cookies and no sides: both wave, conclude once they have heard the other, and are
//! connected when they hear a conclusion or an agreement, or what only the connected send. The connection says the rest
//! (`connection/version4.rs`).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use self::offer::OfferTaken;
use super::caller::{CallError, CallerEncryption, RETRY_INTERVAL};
use super::control::{Control, ControlWriter};
use super::encryption::{Encryption, KeyMaterial, KeyMaterialState};
use super::fec::configuration::FilterConfiguration;
use super::handshake::{
    self, Handshake, HandshakeFields, RejectReason, Request, SOCKET_TYPE_DATAGRAM, VERSION_4, VERSION_5,
};
use super::packet::{self, HEADER_LEN, Header, SequenceNumber};
use super::parameters::{ConnectionParameters, Features, MTU_MAX, MTU_MIN, PeerTimeBase, Role};
use super::stream_id::StreamId;
use super::transmission_mode::TransmissionMode;
use crate::base::{Instant, Transmit};

mod offer;
mod snapshot;
#[cfg(test)]
mod tests;
mod version4;

/// The least time between two packets of ours that answer the same: peers that answer each other at once would do nothing else.
const ANSWER_INTERVAL: Duration = Duration::from_millis(10);

/// What to offer, and what to accept.
#[derive(Clone, Debug)]
pub struct RendezvousSettings {
    /// The peer, which waves from there.
    pub peer: SocketAddr,
    /// The address to send from; `None` leaves the choice to the kernel.
    pub local: Option<IpAddr>,
    /// Index of the interface to send by; 0 leaves the choice to the kernel.
    pub interface: u32,
    /// Our socket id: unused, not 0, below 2³⁰.
    pub socket_id: u32,
    /// Decides who is the initiator: fresh randomness, not 0.
    pub cookie: u32,
    /// Number of our first data packet: fresh randomness.
    pub initial_sequence: SequenceNumber,
    /// What the connection is for.
    pub role: Role,
    /// Latency to receive with, in ms.
    pub receive_latency_ms: u16,
    /// Latency that the peer should receive with, in ms.
    pub send_latency_ms: u16,
    /// Most latency that the peer gets either way, in ms.
    pub latency_max_ms: u16,
    /// Largest packet we take, IP header included.
    pub mtu: u32,
    /// How many packets may be in flight to us.
    pub flow_window: u32,
    /// Our keys, if we are the initiator; also whether anything is encrypted. `None` is a rendezvous in plain.
    pub encryption: Option<CallerEncryption>,
    /// Whether a peer is refused that does not share the passphrase, or has one where there is none here (libsrt:
    /// `SRTO_ENFORCEDENCRYPTION`).
    pub enforced_encryption: bool,
    /// Take the initiator's cipher, whatever it is, and not only that of `encryption`.
    pub takes_any_cipher: bool,
    /// The packet filter to have; without one the peer's is taken.
    pub packet_filter: Option<FilterConfiguration>,
    /// How long to try.
    pub timeout: Duration,
}

impl RendezvousSettings {
    /// A rendezvous in plain that receives, with the values of libsrt for everything else.
    pub fn new(peer: SocketAddr, socket_id: u32, cookie: u32, initial_sequence: SequenceNumber) -> Self {
        Self {
            peer,
            local: None,
            interface: 0,
            socket_id,
            cookie,
            initial_sequence,
            role: Role::Receiver,
            receive_latency_ms: 120,
            send_latency_ms: 0,
            latency_max_ms: u16::MAX,
            mtu: MTU_MAX,
            flow_window: 25_600,
            encryption: None,
            enforced_encryption: true,
            takes_any_cipher: false,
            packet_filter: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// What a rendezvous reports.
#[derive(Debug)]
pub enum Event {
    /// The peer is the initiator and has sent its key, wrapped: give the key that the passphrase makes with its salt to
    /// [`Rendezvous::unlock`]. Derive it off the shard.
    KeyWanted(Box<KeyMaterial>),
    /// The handshake is done.
    Connected(Box<ConnectionParameters>),
    /// It has failed.
    Failed(CallError),
}

/// Whose offers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Makes them: HSREQ, KMREQ.
    Initiator,
    /// Answers them: HSRSP, KMRSP.
    Responder,
}

/// Who is the initiator, by the two cookies; `None` for a draw.
///
/// libsrt has changed the contest twice and gone back (#3212, #3227): what it does since 1.5.5, and did before, is a comparison of the
/// difference of the two as signed numbers, cut to 32 bits; where both would find that they are the
/// responder, at a difference of 2³¹, the plain comparison decides.
pub fn contest(ours: u32, theirs: u32) -> Option<Side> {
    let difference = i64::from(ours as i32) - i64::from(theirs as i32);
    let is_negative = |difference: i64| difference & 0x8000_0000 != 0;
    if ours == 0 || theirs == 0 || ours == theirs {
        return None;
    }
    let is_initiator = !is_negative(difference) || (is_negative(-difference) && difference > 0);
    Some(if is_initiator { Side::Initiator } else { Side::Responder })
}

/// How far a rendezvous has come; the names are libsrt's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has been heard.
    Waving,
    /// A wave has been heard.
    Attention,
    /// A conclusion has been heard, and no wave before it.
    Fine,
    /// The offer has been answered, after a wave.
    Initiated,
    /// Done, and still there to agree again with a peer that has not heard it.
    Connected,
    /// Given up.
    Failed,
}

/// What the peer says of itself in each of its handshakes.
#[derive(Clone, Copy, Debug)]
struct Peer {
    socket_id: u32,
    /// Ours against it; a peer of version 4 knows no sides.
    side: Option<Side>,
    fields: HandshakeFields,
}

impl Peer {
    const fn is_version4(&self) -> bool {
        self.fields.version == VERSION_4
    }
}

/// The machine of one rendezvous.
pub struct Rendezvous {
    settings: RendezvousSettings,
    /// Our keys as initiator, until the connection takes them, and the message that carries the first one.
    offered: Option<(Encryption, KeyMaterial)>,
    /// The responder's keys, once the initiator's message is unlocked.
    unlocked: Option<Encryption>,
    /// What the initiator has asked for, and whether it can be answered: not while a key is wanted.
    request: Option<OfferTaken>,
    is_answerable: bool,
    /// The responder has answered that it has no packet filter, and we have one.
    asks_for_filter: bool,
    /// What the responder answers of the key.
    key_state: KeyMaterialState,
    peer: Option<Peer>,
    /// A peer of version 5 has said more than a wave, and to our socket id: it has heard us, and no wave of another counts any more.
    has_heard_us: bool,
    /// Why the last wave was not acceptable. Anybody may have sent it: it ends nothing, and is told when nothing better has come.
    wave_refused: Option<RejectReason>,
    stage: Stage,
    start: Instant,
    deadline: Instant,
    next_send: Instant,
    last_send: Instant,
    agreement_due: bool,
    rejection: Option<RejectReason>,
    events: VecDeque<Event>,
    dropped: u64,
}

impl Rendezvous {
    /// Begins to wave; the first packet is due at once, and `now` is the zero of our clock for the connection.
    ///
    /// # Panics
    /// When the socket id, the cookie or the MTU is out of its range.
    pub fn new(now: Instant, mut settings: RendezvousSettings) -> Self {
        assert!((1..1 << 30).contains(&settings.socket_id), "socket ids lie between 1 and 2^30");
        assert!(settings.cookie != 0, "a cookie of 0 is none");
        assert!((MTU_MIN..=MTU_MAX).contains(&settings.mtu), "packets that fit a frame and hold something");
        let offered = settings.encryption.clone().map(|encryption| {
            let CallerEncryption { key_encrypting_key, cipher, salt, key_seed, key_refresh } = encryption;
            Encryption::initiate(key_encrypting_key, cipher, salt, key_seed, key_refresh)
        });
        settings.latency_max_ms = settings.latency_max_ms.max(settings.receive_latency_ms);
        Self {
            deadline: now + settings.timeout,
            settings,
            offered,
            unlocked: None,
            request: None,
            is_answerable: false,
            asks_for_filter: false,
            key_state: KeyMaterialState::Unsecured,
            peer: None,
            has_heard_us: false,
            wave_refused: None,
            stage: Stage::Waving,
            start: now,
            next_send: now,
            last_send: Instant::ZERO,
            agreement_due: false,
            rejection: None,
            events: VecDeque::with_capacity(2),
            dropped: 0,
        }
    }

    /// How far it has come.
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Packets that were none of this rendezvous.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a datagram that came to our port. Of one that belongs to the connection only that it came matters here: the peer is
    /// connected; whoever has the connection by then gives it to that.
    pub fn receive(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) {
        if peer != self.settings.peer || self.hear(now, bytes).is_none() {
            self.dropped += 1;
        }
    }

    /// Whether the peer waves anew, with another socket id: it was restarted, and knows nothing of the connection that it had.
    pub fn is_restart(&self, peer: SocketAddr, bytes: &[u8]) -> bool {
        let Ok(Header::Control(header)) = packet::parse(bytes) else { return false };
        let Ok(Control::Handshake(body)) = Control::parse(&header, &bytes[HEADER_LEN..]) else { return false };
        let is_wave = |fields: HandshakeFields| {
            let is_other = self.peer.is_some_and(|known| known.socket_id != fields.socket_id);
            fields.request == Request::WaveAHand && is_other
        };
        peer == self.settings.peer && Handshake::parse(body).is_ok_and(|handshake| is_wave(handshake.fields))
    }

    /// `None` when it means nothing.
    fn hear(&mut self, now: Instant, bytes: &[u8]) -> Option<()> {
        let header = packet::parse(bytes).ok()?;
        let socket_id = match &header {
            Header::Data(header) => header.socket_id,
            Header::Control(header) => header.socket_id,
        };
        let is_ours = socket_id == self.settings.socket_id;
        let Header::Control(header) = header else {
            return self.hear_the_connected(now, is_ours);
        };
        let control = Control::parse(&header, &bytes[HEADER_LEN..]).ok()?;
        let Control::Handshake(body) = control else {
            return self.hear_the_connected(now, is_ours && control != Control::Shutdown);
        };
        if !is_ours && socket_id != 0 {
            return None;
        }
        let handshake = Handshake::parse(body).ok()?;
        match handshake.fields.request {
            // Who knows our socket id has heard from us.
            Request::Rejection(reason) if is_ours && self.is_trying() => self.fail(CallError::Rejected(reason)),
            Request::WaveAHand | Request::Conclusion | Request::Agreement => {
                // Who agrees or concludes has heard our socket id; who has not can say at most that he is there.
                if !is_ours && handshake.fields.request != Request::WaveAHand {
                    return None;
                }
                let outcome = self.switch(now, header.timestamp_us, is_ours, &handshake)?;
                if let Err(reason) = outcome {
                    // A peer of version 4 would take it for a conclusion.
                    self.rejection = (handshake.fields.version == VERSION_5).then_some(reason);
                    self.fail(CallError::Unacceptable(reason));
                }
            }
            Request::Rejection(_) | Request::Induction => return None,
        }
        Some(())
    }

    const fn is_trying(&self) -> bool {
        !matches!(self.stage, Stage::Connected | Stage::Failed)
    }

    /// Media, or what else is sent on a connection: the initiator is connected, and its agreement was lost.
    fn hear_the_connected(&mut self, now: Instant, is_ours: bool) -> Option<()> {
        if is_ours && self.stage == Stage::Attention && self.peer.is_some_and(|peer| peer.is_version4()) {
            self.connect_version4(now);
            return Some(());
        }
        let is_answered = matches!(self.stage, Stage::Fine | Stage::Initiated)
            && self.is_answerable
            && self.peer.is_some_and(|peer| peer.side == Some(Side::Responder));
        if !is_ours || !is_answered {
            return None;
        }
        self.connect_as_responder();
        Some(())
    }

    /// The heart of it: `None` for what means nothing in this stage or is said by who may be anybody, an error for what ends the attempt.
    fn switch(
        &mut self,
        now: Instant,
        timestamp_us: u32,
        is_ours: bool,
        handshake: &Handshake<'_>,
    ) -> Option<Result<(), RejectReason>> {
        let fields = handshake.fields;
        if self.stage == Stage::Failed || fields.socket_id == 0 {
            return None;
        }
        if self.stage == Stage::Connected {
            return self.agree_again(now, &fields).map(Ok);
        }
        let same = |peer: &Peer| peer.socket_id == fields.socket_id && peer.fields.cookie == fields.cookie;
        let is_known = self.peer.as_ref().is_some_and(same);
        let is_wave = fields.request == Request::WaveAHand;
        if self.has_heard_us && (fields.version != VERSION_5 || is_wave && !is_known) {
            // None goes back to version 4 within one attempt, and one that waves anew may be anybody: a peer that was restarted meanwhile is
            // met by the next attempt. It is not asked by a wave of ours: libsrt takes one for an error once it has heard a conclusion.
            return None;
        }
        let side = match fields.version {
            VERSION_5 => contest(self.settings.cookie, fields.cookie),
            _ => None,
        };
        if let Some(reason) = self.refusal(&fields, side) {
            if is_ours {
                return Some(Err(reason));
            }
            self.wave_refused = Some(reason);
            return None;
        }
        self.wave_refused = None;
        if self.peer.is_some() && !is_known {
            // It has begun anew, as a peer does that was restarted; a late packet of its last attempt does the same, and is mended by
            // what it says next.
            (self.stage, self.request, self.unlocked, self.is_answerable) = (Stage::Waving, None, None, false);
            self.asks_for_filter = false;
        }
        self.has_heard_us |= fields.version == VERSION_5 && !is_wave;
        self.peer = Some(Peer { socket_id: fields.socket_id, side, fields });
        let before = self.stage;
        let Some(side) = side else {
            return self.switch_version4(now, fields.request);
        };
        let has_extension = handshake.extensions.handshake.is_some();
        let outcome = match (fields.request, self.stage, side) {
            (Request::WaveAHand, Stage::Waving, _) => {
                self.stage = Stage::Attention;
                Ok(())
            }
            (Request::WaveAHand, Stage::Attention, _) => Ok(()),
            (Request::Conclusion, stage, Side::Responder) => {
                match &self.request {
                    None if has_extension => {
                        self.stage = if stage == Stage::Waving { Stage::Fine } else { Stage::Initiated };
                        self.take_request(now, timestamp_us, handshake)
                    }
                    Some(OfferTaken { packet_filter: None, .. }) if has_extension => self.take_filter(handshake),
                    // Without an offer, or with the one that we have: answered with what there is.
                    _ => Ok(()),
                }
            }
            (Request::Conclusion, stage, Side::Initiator) => {
                if stage == Stage::Waving {
                    self.stage = Stage::Fine;
                }
                if has_extension { self.connect_as_initiator(now, timestamp_us, handshake) } else { Ok(()) }
            }
            (Request::Agreement, Stage::Fine | Stage::Initiated, Side::Responder) if self.is_answerable => {
                self.connect_as_responder();
                Ok(())
            }
            _ => return None,
        };
        let at_once = if self.stage == before { self.last_send + ANSWER_INTERVAL } else { now };
        // A key that is wanted will be answered when it is there.
        if self.request.is_none() || self.is_answerable {
            self.next_send = self.next_send.min(at_once.max(now));
        }
        Some(outcome)
    }

    /// Why one who says this of himself cannot be met.
    fn refusal(&self, fields: &HandshakeFields, side: Option<Side>) -> Option<RejectReason> {
        if fields.version == VERSION_5 && side.is_none() {
            return Some(RejectReason::RendezvousCookie);
        }
        if fields.mtu < MTU_MIN || fields.flow_window < 2 {
            return Some(RejectReason::Rogue);
        }
        if fields.version == VERSION_5 { None } else { self.refusal_of_version4() }
    }

    /// A conclusion to one who is connected: the peer has not heard our agreement.
    fn agree_again(&mut self, now: Instant, fields: &HandshakeFields) -> Option<()> {
        let peer = self.peer.filter(|peer| peer.socket_id == fields.socket_id)?;
        let is_asked = match peer.side {
            Some(side) => side == Side::Initiator && fields.request == Request::Conclusion,
            None => fields.request != Request::Agreement,
        };
        if !is_asked || now < self.last_send + ANSWER_INTERVAL {
            return None;
        }
        self.agreement_due = true;
        Some(())
    }

    /// What every meeting settles, with a peer of either version: who is where, and how much fits. In plain, as we wish it.
    fn parameters(&self, peer_time_base: PeerTimeBase) -> ConnectionParameters {
        let Peer { fields, .. } = self.peer.expect("it has been heard");
        let settings = &self.settings;
        ConnectionParameters {
            peer: settings.peer,
            local: settings.local,
            interface: settings.interface,
            role: settings.role,
            mode: TransmissionMode::Live,
            socket_id: settings.socket_id,
            peer_socket_id: fields.socket_id,
            initial_sequence: settings.initial_sequence,
            peer_initial_sequence: Some(fields.initial_sequence),
            start: self.start,
            peer_time_base,
            receive_latency_ms: settings.receive_latency_ms,
            send_latency_ms: settings.send_latency_ms,
            mtu: settings.mtu.min(fields.mtu),
            flow_window: settings.flow_window,
            peer_flow_window: fields.flow_window,
            peer_version: 0,
            peer_flags: 0,
            features: Features::of_peer(0),
            encryption: None,
            key_state: KeyMaterialState::Unsecured,
            packet_filter: None,
            stream_id: StreamId::default(),
            // The two know each other by their addresses.
            address_secret: None,
            version4: None,
        }
    }

    fn connect(&mut self, parameters: ConnectionParameters) {
        self.stage = Stage::Connected;
        self.events.push_back(Event::Connected(Box::new(parameters)));
    }

    fn fail(&mut self, error: CallError) {
        self.stage = Stage::Failed;
        self.events.push_back(Event::Failed(error));
    }

    /// Gives up when the time is over; a peer that waves and cannot be met is then the reason.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_trying() && now >= self.deadline {
            self.fail(self.wave_refused.map_or(CallError::Timeout, CallError::Unacceptable));
        }
    }

    /// When there is something to send or to give up; `None` when there is not.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.rejection.is_some() || self.agreement_due {
            return Some(Instant::ZERO);
        }
        self.is_trying().then(|| self.next_send.min(self.deadline))
    }

    /// The next packet to send; its bytes are appended to `buffer`.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let start = buffer.len();
        let to_peer = self.peer.map_or(0, |peer| peer.socket_id);
        let timestamp_us = now.saturating_since(self.start).as_micros() as u32;
        let mut begin = |socket_id| ControlWriter { timestamp_us, socket_id }.handshake(buffer, &[]);
        if let Some(reason) = self.rejection.take() {
            begin(to_peer);
            self.fields(Request::Rejection(reason)).encode(buffer);
        } else if std::mem::take(&mut self.agreement_due) {
            begin(to_peer);
            self.fields(Request::Agreement).encode(buffer);
            self.last_send = now;
        } else if !self.is_trying() || now < self.next_send || now >= self.deadline {
            return None;
        } else {
            (self.last_send, self.next_send) = (now, now + RETRY_INTERVAL);
            if self.stage == Stage::Waving {
                // Without its socket id, which is not known.
                begin(0);
                self.fields(Request::WaveAHand).encode(buffer);
            } else {
                begin(to_peer);
                self.write_conclusion(buffer);
            }
        }
        let RendezvousSettings { peer, local, interface, .. } = self.settings;
        Some(Transmit { peer, local, interface, path: 0, len: buffer.len() - start })
    }

    /// What came of it.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn fields(&self, request: Request) -> HandshakeFields {
        let key_length = self.settings.encryption.as_ref().map(|ours| ours.key_encrypting_key.length());
        let is_version4 = self.peer.is_some_and(|peer| peer.is_version4());
        let (version, encryption, extension) = match is_version4 {
            true => (VERSION_4, 0, SOCKET_TYPE_DATAGRAM),
            false => (VERSION_5, handshake::encryption_field(key_length), 0),
        };
        HandshakeFields {
            version,
            encryption,
            extension,
            initial_sequence: self.settings.initial_sequence,
            mtu: self.settings.mtu,
            flow_window: self.settings.flow_window,
            request,
            socket_id: self.settings.socket_id,
            cookie: self.settings.cookie,
            peer_address: self.settings.peer.ip(),
        }
    }
}
