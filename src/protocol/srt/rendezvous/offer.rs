//! The initiator's offer (HSREQ, KMREQ), the responder's answer (HSRSP, KMRSP), and the connection that comes of the two: versions,
//! latencies, keys, the packet filter.
//!
//! The initiator lets the responder speak first of a packet filter, and asks for its own when it has been answered without one: a libsrt that
//! has a filter refuses every other text, even what it has made of its own. So its answer is judged by what it means, and what it asks for as
//! the initiator goes back to it byte by byte.

use super::{Event, Rendezvous, RendezvousSettings, Side};
use crate::base::Instant;
use crate::protocol::srt::caller::CallError;
use crate::protocol::srt::encryption::{
    Encryption, KeyEncryptingKey, KeyMaterial, KeyMaterialState, KeyRefresh, check_handshake_response,
};
use crate::protocol::srt::fec::configuration::{self as filter, Fec, FilterConfiguration, FilterWire};
use crate::protocol::srt::handshake::{
    Handshake, HandshakeExtension, Offer, RejectReason, Request, VERSION_MIN, flags,
};
use crate::protocol::srt::parameters::{ConnectionParameters, Features, PeerTimeBase, VERSION};
use crate::protocol::srt::transmission_mode::TransmissionMode;

/// The initiator's offer, as the responder has it.
#[derive(Clone, Debug)]
pub(super) struct OfferTaken {
    pub(super) extension: HandshakeExtension,
    pub(super) time_base: PeerTimeBase,
    pub(super) key_material: Option<KeyMaterial>,
    /// What it is answered with, whoever has asked for it.
    pub(super) packet_filter: Option<FilterWire>,
}

/// What the two have come to.
struct Settled {
    receive_latency_ms: u16,
    send_latency_ms: u16,
    encryption: Option<Encryption>,
    key_state: KeyMaterialState,
    packet_filter: Option<Fec>,
}

/// The packet filter that the peer says it has.
fn filter_of<'a>(handshake: &Handshake<'a>) -> Option<&'a [u8]> {
    handshake.extensions.filter.filter(|wire| !wire.is_empty())
}

impl Rendezvous {
    /// What both sides check of the other's extensions.
    fn judge(handshake: &Handshake<'_>) -> Result<HandshakeExtension, RejectReason> {
        let extension = handshake.extensions.handshake.ok_or(RejectReason::Rogue)?;
        if extension.version < VERSION_MIN {
            return Err(RejectReason::Version);
        }
        if extension.flags & flags::STREAM != 0 {
            return Err(RejectReason::MessageApi);
        }
        if !handshake.extensions.is_live() {
            return Err(RejectReason::Congestion);
        }
        if handshake.extensions.group.is_some() {
            // There is no bonding in rendezvous (libsrt #2158).
            return Err(RejectReason::Group);
        }
        Ok(extension)
    }

    /// The packet filter that comes of ours and of what the peer says.
    fn settle_filter(&self, handshake: &Handshake<'_>) -> Result<Option<Fec>, RejectReason> {
        let knows = handshake.extensions.handshake.is_some_and(|it| it.flags & flags::PACKET_FILTER != 0);
        let theirs = filter_of(handshake).map(FilterConfiguration::from_wire).transpose();
        theirs
            .and_then(|theirs| {
                filter::settle_in_rendezvous(self.settings.packet_filter.as_ref(), theirs.as_ref(), knows)
            })
            .map_err(|_| RejectReason::Filter)
    }

    fn filter_to_answer(&self, handshake: &Handshake<'_>) -> Result<Option<FilterWire>, RejectReason> {
        let settled = self.settle_filter(handshake)?;
        let theirs = filter_of(handshake).map(|wire| wire.iter().copied().collect());
        Ok(theirs.or_else(|| settled.map(|fec| FilterConfiguration::from(fec).to_wire())))
    }

    /// An offer that comes again, and now asks for the packet filter that it was answered to have none of.
    pub(super) fn take_filter(&mut self, handshake: &Handshake<'_>) -> Result<(), RejectReason> {
        let packet_filter = self.filter_to_answer(handshake)?;
        if let Some(request) = &mut self.request {
            request.packet_filter = packet_filter;
        }
        Ok(())
    }

    /// The responder takes the offer, and asks for the key if there is one.
    pub(super) fn take_request(
        &mut self,
        now: Instant,
        timestamp_us: u32,
        handshake: &Handshake<'_>,
    ) -> Result<(), RejectReason> {
        let extension = Self::judge(handshake)?;
        let material = handshake.extensions.key_material.map(KeyMaterial::parse).transpose();
        let key_material = material.map_err(|_| RejectReason::Rogue)?;
        let packet_filter = self.filter_to_answer(handshake)?;
        match (&self.settings.encryption, &key_material) {
            (None, None) => (self.is_answerable, self.key_state) = (true, KeyMaterialState::Unsecured),
            (None, Some(_)) | (Some(_), None) if self.settings.enforced_encryption => {
                return Err(RejectReason::Unsecure);
            }
            (None, Some(_)) | (Some(_), None) => {
                (self.is_answerable, self.key_state) = (true, KeyMaterialState::NoSecret);
            }
            (Some(ours), Some(material)) => {
                if !self.settings.takes_any_cipher && ours.cipher != material.cipher() {
                    return Err(RejectReason::Crypto);
                }
                self.is_answerable = false;
                self.events.push_back(Event::KeyWanted(Box::new(material.clone())));
            }
        }
        let time_base = PeerTimeBase { timestamp_us, arrival: now };
        self.request = Some(OfferTaken { extension, time_base, key_material, packet_filter });
        Ok(())
    }

    /// Gives the responder the key that was wanted for this key material: what the passphrase makes with its salt and length. One that
    /// is not wanted any more is left alone.
    pub fn unlock(&mut self, now: Instant, material: &KeyMaterial, key: KeyEncryptingKey) {
        let wanted = self.request.as_ref().and_then(|request| request.key_material.as_ref());
        if !self.is_trying()
            || self.is_answerable
            || wanted.is_none_or(|wanted| wanted.as_bytes() != material.as_bytes())
        {
            return;
        }
        let ours = self.settings.encryption.as_ref();
        let seed = ours.map_or([0; 32], |ours| ours.key_seed);
        let refresh = ours.map_or_else(KeyRefresh::default, |ours| ours.key_refresh);
        match Encryption::accept(key, material, seed, refresh) {
            Some(encryption) => {
                (self.unlocked, self.is_answerable) = (Some(encryption), true);
                (self.key_state, self.next_send) = (KeyMaterialState::Secured, now);
            }
            None if !self.settings.enforced_encryption => {
                self.is_answerable = true;
                (self.key_state, self.next_send) = (KeyMaterialState::BadSecret, now);
            }
            None => {
                self.rejection = Some(RejectReason::BadSecret);
                self.fail(CallError::Unacceptable(RejectReason::BadSecret));
            }
        }
    }

    /// What both use as receiver and as sender, of what each wishes: the responder says so in its answer.
    fn latencies(&self, offer: &HandshakeExtension) -> (u16, u16) {
        let RendezvousSettings { receive_latency_ms, send_latency_ms, latency_max_ms, .. } = self.settings;
        let of = |ours: u16, theirs: u16| ours.max(theirs).min(latency_max_ms.max(ours));
        (of(receive_latency_ms, offer.send_latency_ms), of(send_latency_ms, offer.receive_latency_ms))
    }

    pub(super) fn connect_as_responder(&mut self) {
        let request = self.request.clone().expect("an answer was made from it");
        let (receive_latency_ms, send_latency_ms) = self.latencies(&request.extension);
        let (encryption, key_state) = (self.unlocked.take(), self.key_state);
        let packet_filter = request.packet_filter.map(|wire| Fec::from_wire(&wire).expect("it was judged"));
        let settled = Settled { receive_latency_ms, send_latency_ms, encryption, key_state, packet_filter };
        self.connect_version5(&request.extension, request.time_base, settled);
    }

    pub(super) fn connect_as_initiator(
        &mut self,
        now: Instant,
        timestamp_us: u32,
        handshake: &Handshake<'_>,
    ) -> Result<(), RejectReason> {
        let extension = Self::judge(handshake)?;
        let key_state = match (&self.offered, handshake.extensions.key_material) {
            (None, None) => KeyMaterialState::Unsecured,
            (None, Some(_)) | (Some(_), None) => KeyMaterialState::NoSecret,
            (Some((_, request)), Some(response)) => check_handshake_response(request, response),
        };
        let is_agreed = key_state == KeyMaterialState::Secured
            || self.offered.is_none() && handshake.extensions.key_material.is_none();
        match key_state {
            // As in libsrt, even where nothing is enforced.
            KeyMaterialState::BadCryptoMode => return Err(RejectReason::Crypto),
            _ if is_agreed || !self.settings.enforced_encryption => {}
            KeyMaterialState::Securing | KeyMaterialState::BadSecret => return Err(RejectReason::BadSecret),
            _ => return Err(RejectReason::Unsecure),
        }
        let packet_filter = self.settle_filter(handshake)?;
        if packet_filter.is_some() && filter_of(handshake).is_none() {
            if !self.asks_for_filter {
                (self.asks_for_filter, self.next_send) = (true, now);
            }
            return Ok(());
        }
        // Who only receives, and from a peer that has no key, takes what comes in plain.
        let is_used = self.settings.role.sends() || key_state == KeyMaterialState::Secured;
        let encryption = self.offered.take().filter(|_| is_used).map(|(encryption, _)| encryption);
        // The responder's word is final: it has seen both wishes.
        let by_timestamp = |flag: u32, agreed: u16, ours: u16| if extension.flags & flag != 0 { agreed } else { ours };
        let RendezvousSettings { receive_latency_ms: receive, send_latency_ms: send, .. } = self.settings;
        let settled = Settled {
            receive_latency_ms: by_timestamp(flags::TSBPD_SENDER, extension.send_latency_ms, receive),
            send_latency_ms: by_timestamp(flags::TSBPD_RECEIVER, extension.receive_latency_ms, send),
            encryption,
            key_state,
            packet_filter,
        };
        self.connect_version5(&extension, PeerTimeBase { timestamp_us, arrival: now }, settled);
        self.agreement_due = true;
        Ok(())
    }

    fn connect_version5(&mut self, extension: &HandshakeExtension, time_base: PeerTimeBase, settled: Settled) {
        let Settled { receive_latency_ms, send_latency_ms, mut encryption, key_state, packet_filter } = settled;
        if let Some(encryption) = &mut encryption {
            encryption.set_peer_version(extension.version);
        }
        self.connect(ConnectionParameters {
            receive_latency_ms,
            send_latency_ms,
            peer_version: extension.version,
            peer_flags: extension.flags,
            features: Features::of_peer(extension.flags),
            encryption,
            key_state,
            packet_filter,
            ..self.parameters(time_base)
        });
    }

    pub(super) fn write_conclusion(&self, buffer: &mut Vec<u8>) {
        let fields = self.fields(Request::Conclusion);
        if self.peer.is_some_and(|peer| peer.is_version4()) {
            return fields.encode(buffer);
        }
        let is_initiator = self.peer.is_some_and(|peer| peer.side == Some(Side::Initiator));
        let refusal = self.key_state.to_wire();
        let (receive_latency_ms, send_latency_ms, material, packet_filter) = match &self.request {
            _ if is_initiator => {
                let RendezvousSettings { receive_latency_ms, send_latency_ms, .. } = self.settings;
                let message = self.offered.as_ref().map(|(_, message)| message.as_bytes());
                let filter = self.settings.packet_filter.filter(|_| self.asks_for_filter);
                // All of it, as libsrt prints it, or it would refuse the same a second time.
                let filter = filter.and_then(|filter| filter.complete().ok()).map(FilterConfiguration::from);
                (receive_latency_ms, send_latency_ms, message, filter.map(|filter| filter.to_wire()))
            }
            Some(request) if self.is_answerable => {
                let (receive_latency_ms, send_latency_ms) = self.latencies(&request.extension);
                let is_secured = self.key_state == KeyMaterialState::Secured;
                let material = request.key_material.as_ref();
                let answer = material.map(|message| if is_secured { message.as_bytes() } else { &refusal[..] });
                (receive_latency_ms, send_latency_ms, answer, request.packet_filter.clone())
            }
            // A responder that has nothing to answer yet.
            _ => return fields.encode(buffer),
        };
        let offer = Offer {
            is_response: !is_initiator,
            handshake: HandshakeExtension {
                version: VERSION,
                flags: TransmissionMode::Live.flags(),
                receive_latency_ms,
                send_latency_ms,
            },
            key_material: material,
            stream_id: None,
            group: None,
            packet_filter: packet_filter.as_deref(),
            mode: TransmissionMode::Live,
        };
        fields.encode_conclusion(&offer, buffer);
    }
}
