//! Peers with version 4 of the handshake: libsrt before 1.3, and hardware that was never brought up to date. Their handshake is
//! UDT's: it sets up a connection and says nothing of SRT. What version 5 puts into extensions comes after it, in control packets
//! that the sender repeats until they are answered (libsrt 1.2, `srtcore/csrtcc.cpp`):
//!
//! ```text
//!  sender                                receiver
//!  HSREQ: version, flags, latency ─────▶ from here on packets have a time; the time base is this packet's
//!         ◀───── HSRSP: version, flags, the latency that is agreed on
//!  KMREQ: the wrapped key, its salt ───▶ the passphrase's key is derived for that salt, off the shard
//!         ◀───── KMRSP: the same message, or why not
//! ```
//!
//! Where we send, we are the one who says HSREQ and KMREQ, and does so before the first packet of media.
//!
//! libsrt 1.2 sends KMREQ only when an acknowledgement takes it further: so what comes encrypted before the key is there is taken in and
//! acknowledged as it is, as far as there is room, and decrypted when the key comes.
//!
//! There is no Stream ID. What comes before HSREQ is delivered by its arrival.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Connection, Event};
use crate::base::Instant;
use crate::protocol::srt::encryption::{
    Encryption, KEY_MATERIAL_LEN_MAX, KeyEncryptingKey, KeyMaterial, KeyMaterialState, KeyRefresh,
};
use crate::protocol::srt::handshake::{HandshakeExtension, flags};
use crate::protocol::srt::packet::{DataHeader, KeyFlag};
use crate::protocol::srt::parameters::{Features, PeerTimeBase, VERSION, Version4Terms};
use crate::protocol::srt::snapshot::{RestoreError, SnapshotReader, SnapshotWriter};

/// How often one connection may ask for a key: the right passphrase takes one, or some more where it is not derived at once.
const DERIVATIONS_MAX: u8 = 16;
/// Up to this version a peer takes TLPKTDROP for a leave to drop the end of a large picture before it was ever sent; libsrt does not
/// offer it to them either.
const DROPS_UNSENT: u32 = 0x0001_0007;
/// An HSREQ that is not answered is sent again after 1½ round trips, as libsrt does, then after as much more each time, up to this. libsrt
/// gives up after ten; but what is lost is not always lost at random, and without it the peer knows no time.
const INTRODUCTION_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Whatever the peer says the round trip is.
const INTRODUCTION_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Versions of SRT that there are, `0x00MMmmpp`: what says another is none of a peer's, as nothing else protects it.
const VERSIONS: RangeInclusive<u32> = 0x0001_0000..=0x0001_ffff;

/// What a peer of version 4 has said so far.
#[derive(Debug, Clone)]
pub(super) struct Version4 {
    began: Instant,
    latency_max_ms: u16,
    has_passphrase: bool,
    enforced_encryption: bool,
    /// How often our own HSREQ was sent and when last, until it is answered; `None` also where we do not send.
    introduction: Option<(u32, Instant)>,
    /// What was answered to HSREQ.
    agreed: Option<HandshakeExtension>,
    is_response_due: bool,
    /// Waits for the key that it is wrapped with.
    wanted: Option<KeyMaterial>,
    /// Was not wrapped with that key, whoever repeats it.
    refused: Option<KeyMaterial>,
    derivations_left: u8,
}

impl Version4 {
    pub(super) fn new(now: Instant, terms: Version4Terms, sends: bool) -> Self {
        let Version4Terms { latency_max_ms, has_passphrase, enforced_encryption } = terms;
        Self {
            began: now,
            latency_max_ms,
            has_passphrase,
            enforced_encryption,
            introduction: sends.then_some((0, now)),
            agreed: None,
            is_response_due: false,
            wanted: None,
            refused: None,
            derivations_left: DERIVATIONS_MAX,
        }
    }

    /// The answer to HSREQ, if one is due.
    pub(super) fn take_response(&mut self) -> Option<HandshakeExtension> {
        std::mem::take(&mut self.is_response_due).then_some(self.agreed).flatten()
    }
}

impl Version4 {
    pub(super) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            began,
            latency_max_ms,
            has_passphrase,
            enforced_encryption,
            introduction,
            agreed,
            is_response_due,
            wanted,
            refused,
            derivations_left,
        } = self;
        to.instant(*began);
        to.u16(*latency_max_ms);
        to.bool(*has_passphrase);
        to.bool(*enforced_encryption);
        to.option(*introduction, |to, (tries, sent)| {
            to.u32(tries);
            to.instant(sent);
        });
        to.option(agreed.as_ref(), |to, agreed| agreed.snapshot(to));
        to.bool(*is_response_due);
        for message in [wanted, refused] {
            to.option(message.as_ref(), |to, message| message.snapshot(to));
        }
        to.u8(*derivations_left);
    }

    pub(super) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(Self {
            began: from.instant()?,
            latency_max_ms: from.u16()?,
            has_passphrase: from.bool()?,
            enforced_encryption: from.bool()?,
            introduction: from.option(|from| Ok((from.u32()?, from.instant()?)))?,
            agreed: from.option(HandshakeExtension::restore)?,
            is_response_due: from.bool()?,
            wanted: from.option(KeyMaterial::restore)?,
            refused: from.option(KeyMaterial::restore)?,
            derivations_left: from.u8()?,
        })
    }
}

fn parse(body: &[u8]) -> Option<HandshakeExtension> {
    HandshakeExtension::parse(body).filter(|extension| VERSIONS.contains(&extension.version))
}

impl Connection {
    /// Until when a peer that is to encrypt must have shown its key: whoever has none is not to keep a place.
    #[inline]
    pub(super) fn unsealed_by(&self) -> Instant {
        match &self.version4 {
            Some(version4) if self.receiver.is_sealed() && version4.enforced_encryption => {
                version4.began + self.limits.peer_idle_timeout
            }
            _ => Instant::FAR_FUTURE,
        }
    }

    /// The first that comes in plain where that is taken: no key is waited for any more. What has waited for one stays unread,
    /// and is counted.
    #[cold]
    pub(super) fn open_to_plain(&mut self, header: &DataHeader) {
        if header.key == KeyFlag::Plain && self.version4.as_ref().is_some_and(|version4| !version4.enforced_encryption)
        {
            self.receiver.clear_sealed(&mut self.statistics);
            self.receiver.open();
            self.parameters.key_state = KeyMaterialState::Unsecured;
        }
    }

    /// When our own HSREQ is to be sent (again).
    #[inline]
    pub(super) fn introduction_at(&self) -> Instant {
        match self.version4.as_ref().and_then(|version4| version4.introduction) {
            Some((0, began)) => began,
            Some((tries, sent)) => {
                sent + (self.rtt() * 3 / 2 * tries).clamp(INTRODUCTION_INTERVAL_MIN, INTRODUCTION_INTERVAL_MAX)
            }
            None => Instant::FAR_FUTURE,
        }
    }

    /// Our own HSREQ, if it is due.
    pub(super) fn take_introduction(&mut self, now: Instant) -> Option<HandshakeExtension> {
        if now < self.introduction_at() {
            return None;
        }
        let (tries, sent) = self.version4.as_mut()?.introduction.as_mut()?;
        (*tries, *sent) = (tries.saturating_add(1), now);
        Some(HandshakeExtension {
            version: VERSION,
            flags: flags::TSBPD_SENDER | flags::CRYPT | flags::RETRANSMISSION,
            receive_latency_ms: 0,
            // The low half of the word, where version 4 has the one latency that there is.
            send_latency_ms: self.parameters.send_latency_ms,
        })
    }

    /// HSRSP: how the peer receives. The first counts.
    pub(super) fn handshake_response(&mut self, body: &[u8]) {
        let Some(version4) = self.version4.as_mut().filter(|version4| version4.introduction.is_some()) else {
            return self.statistics.control_ignored += 1;
        };
        let Some(answer) = parse(body) else {
            return self.statistics.control_malformed += 1;
        };
        version4.introduction = None;
        let parameters = &mut self.parameters;
        parameters.peer_version = answer.version;
        parameters.peer_flags = answer.flags;
        self.receiver.peer_is(answer.version);
        // It does not receive from us by its own time stamps, which say nothing of how it sends.
        parameters.features = Features {
            receive_by_timestamp: parameters.features.receive_by_timestamp,
            ..Features::of_peer(answer.flags)
        };
        if parameters.features.send_by_timestamp {
            parameters.send_latency_ms = answer.send_latency_ms;
        }
        self.statistics.ms_snd_tsb_pd_delay = u64::from(parameters.send_latency_ms);
        if let Some(sender) = &mut self.sender {
            sender.introduced(parameters);
        }
        self.event(Event::Introduced);
    }

    /// KMRSP: whether the peer can use the key that we have sent after connecting.
    pub(super) fn first_key_answered(&mut self, state: KeyMaterialState) {
        let known = self.parameters.key_state;
        // Of later keys it is said as with version 5: whatever the peer has, the sender goes on.
        if self.version4.is_none() || known == KeyMaterialState::Secured || known == state {
            return;
        }
        self.parameters.key_state = state;
        self.event(match state {
            KeyMaterialState::Secured => Event::Secured,
            refused => Event::KeyRefused(refused),
        });
    }

    /// Whether a peer that we send to has been told all that it must know first, and has answered.
    pub fn is_introduced(&self) -> bool {
        let Some(version4) = &self.version4 else { return true };
        version4.introduction.is_none() && self.parameters.key_state != KeyMaterialState::Securing
    }

    /// HSREQ after connecting; repeats are answered alike.
    pub(super) fn handshake_request(&mut self, arrival: Instant, timestamp_us: u32, body: &[u8]) {
        let Some(version4) = &mut self.version4 else {
            return self.statistics.control_ignored += 1;
        };
        let Some(asked) = parse(body) else {
            return self.statistics.control_malformed += 1;
        };
        version4.is_response_due = true;
        if version4.agreed.is_some() {
            return;
        }
        let has = |flag: u32| asked.flags & flag != 0;
        let parameters = &mut self.parameters;
        let mut our_flags = flags::CRYPT | flags::PERIODIC_LOSS_REPORT | flags::RETRANSMISSION;
        if has(flags::TSBPD_SENDER) {
            our_flags |= flags::TSBPD_RECEIVER;
            if asked.version > DROPS_UNSENT {
                our_flags |= flags::TOO_LATE_PACKET_DROP;
            }
            let ours_ms = parameters.receive_latency_ms;
            parameters.receive_latency_ms = ours_ms.max(asked.send_latency_ms.min(version4.latency_max_ms));
            parameters.peer_time_base = PeerTimeBase { timestamp_us, arrival };
        }
        parameters.peer_version = asked.version;
        parameters.peer_flags = asked.flags;
        parameters.features = Features {
            receive_by_timestamp: has(flags::TSBPD_SENDER),
            retransmission_flag: has(flags::RETRANSMISSION),
            ..parameters.features
        };
        let latency_ms = parameters.receive_latency_ms;
        version4.agreed = Some(HandshakeExtension {
            version: VERSION,
            flags: our_flags,
            receive_latency_ms: 0,
            // The low half of the word, where version 4 has the one latency that there is.
            send_latency_ms: latency_ms,
        });
        self.statistics.ms_rcv_tsb_pd_delay = u64::from(latency_ms);
        self.receiver.introduced(&self.parameters, Duration::from_millis(u64::from(latency_ms)));
        self.event(Event::Introduced);
    }

    /// The first KMREQ, which brings the salt that the passphrase's key is derived with. `false` when it is none of such a peer.
    pub(super) fn first_key_material(&mut self, message: &[u8]) -> bool {
        if self.parameters.encryption.is_some() {
            return false;
        }
        let Some(version4) = &mut self.version4 else { return false };
        if !version4.has_passphrase {
            self.key_material_refused(KeyMaterialState::NoSecret);
            return true;
        }
        match KeyMaterial::parse(message) {
            Ok(material) if version4.derivations_left > 0 && version4.refused.as_ref() != Some(&material) => {
                version4.derivations_left -= 1;
                version4.wanted = Some(material);
                self.event(Event::KeyWanted);
            }
            // The answer to this is on its way, if there will be one.
            Ok(material) if version4.wanted.as_ref() == Some(&material) => {}
            Ok(_) | Err(_) => self.key_material_refused(KeyMaterialState::BadSecret),
        }
        true
    }

    /// What the key is to be derived for that [`Event::KeyWanted`] tells of: salt and length are in there.
    pub fn wanted_key(&self) -> Option<&KeyMaterial> {
        self.version4.as_ref()?.wanted.as_ref()
    }

    /// The key of the stream's passphrase for [`wanted_key`](Self::wanted_key), which is answered now.
    pub fn provide_key(&mut self, key: KeyEncryptingKey) {
        let Some(version4) = &mut self.version4 else { return };
        let Some(material) = version4.wanted.take() else { return };
        // We send nothing that is encrypted: no key of our own, and no randomness for one.
        match Encryption::accept(key, &material, [0; 32], KeyRefresh::default()) {
            Some(mut encryption) => {
                encryption.set_peer_version(self.parameters.peer_version);
                if self.receiver.is_sealed() {
                    self.receiver.unseal(&encryption, material.keys(), &mut self.statistics);
                }
                self.parameters.encryption = Some(encryption);
                self.parameters.key_state = KeyMaterialState::Secured;
                self.key_material_response.clear();
                self.key_material_response.extend_from_slice(material.as_bytes());
                self.pending.key_material_response = true;
                self.event(Event::Secured);
            }
            None => {
                let is_enforced = version4.enforced_encryption;
                version4.refused = Some(material);
                // What is held where plain is taken already was not under this key.
                if self.receiver.is_sealed() {
                    self.receiver.clear_sealed(&mut self.statistics);
                }
                if !is_enforced {
                    self.receiver.open();
                }
                self.key_material_refused(KeyMaterialState::BadSecret);
            }
        }
    }

    fn key_material_refused(&mut self, state: KeyMaterialState) {
        debug_assert!(
            self.key_material_response.capacity() >= KEY_MATERIAL_LEN_MAX,
            "taken when the connection was made"
        );
        self.statistics.key_refresh_failures += 1;
        self.parameters.key_state = state;
        let is_news = self.key_material_response != state.to_wire();
        self.key_material_response.clear();
        self.key_material_response.extend_from_slice(&state.to_wire());
        self.pending.key_material_response = true;
        if is_news {
            self.event(Event::KeyRefreshFailed(state));
        }
    }
}
