//! Payload encryption (draft-sharabayko-srt §6): AES in counter mode or, which libsrt offers as a preview, in Galois/counter mode
//! (GCM), under keys that are wrapped with a passphrase.
//!
//! Three keys: the *key encrypting key* comes from the passphrase and a salt, by PBKDF2 with 2048 iterations, which takes
//! hundreds of microseconds and therefore belongs off the shard; it wraps *stream encrypting keys*, an even and an odd one in
//! turns, which key material messages carry; with them and the packet's number the payload is en- and decrypted.

use std::fmt;
use std::time::Duration;

use arrayvec::ArrayVec;
use aws_lc_rs::hmac;
use thiserror::Error;

use super::packet::{DataHeader, KeyFlag};
use crate::base::Instant;

mod cipher;
mod key_material;
mod old_key;
mod snapshot;
#[cfg(test)]
mod tests;

pub use cipher::Cipher;
use cipher::{GcmForm, KeySet, StreamKey};
pub use key_material::{
    KEY_MATERIAL_LEN_MAX, KeyEncryptingKey, KeyLength, KeyMaterial, KeyMaterialError, KeyMaterialState, SALT_LEN,
    derive_key_encrypting_key,
};
use old_key::OldKey;

/// How often an unanswered request is repeated, as libsrt does it.
const REQUEST_TRIES: u8 = 10;
/// A request that carries the first key is then repeated once in such a time, whatever the answer was, which somebody may have forged: without
/// that key nothing that is sent can be read.
const FIRST_REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// Beyond so many packets a key is not waited with for a peer that does not answer: packet numbers begin anew after 2^31, and with them nonces.
const KEY_PACKETS_MAX: u64 = 1 << 30;

/// When a sender changes its key (§6.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRefresh {
    /// Packets sent under one key.
    pub after_packets: u64,
    /// How many packets before that the next key is announced, and after it the old one is forgotten.
    pub announce_packets: u64,
}

impl Default for KeyRefresh {
    /// The figures of the draft: 2²⁴ and 2¹².
    fn default() -> Self {
        Self { after_packets: 1 << 24, announce_packets: 1 << 12 }
    }
}

/// Why a payload could not be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Undecryptable {
    /// It came in plain on an encrypted connection: never accepted, or anybody could inject.
    #[error("the payload is not encrypted")]
    Plain,
    /// The key it is under is not known (yet, or any more).
    #[error("the {0:?} key is not known")]
    NoKey(KeyFlag),
    /// Its tag is not that of the payload and the header, or there is none: it is forged, or damaged.
    #[error("the payload is not authentic")]
    NotAuthentic,
}

/// A key material request of ours that waits for its answer.
struct Announcement {
    message: KeyMaterial,
    tries_left: u8,
    sent: Option<Instant>,
}

/// The keys of an encrypted connection, both ways.
///
/// In HSv5 both directions begin with the caller's key; each changes its own later.
pub struct Encryption {
    kek: KeyEncryptingKey,
    cipher: Cipher,
    form: GcmForm,
    salt: [u8; SALT_LEN],
    receiving: KeySet,
    old_key: OldKey,
    sending: KeySet,
    active: KeyFlag,
    sent_under_active: u64,
    refresh: KeyRefresh,
    /// Later keys are made from it: HMAC-SHA256 over their number.
    seed: [u8; 32],
    keys_made: u64,
    announcement: Option<Announcement>,
    /// Whether the key that follows has been made.
    successor_ready: bool,
    state: KeyMaterialState,
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption")
            .field("cipher", &self.cipher)
            .field("key_length", &self.key_length())
            .field("active", &self.active)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Encryption {
    /// The caller's side: makes the first key and the message that carries it to the listener.
    ///
    /// `seed` is 32 bytes of randomness that nobody else gets; all keys of this sender come from it.
    pub fn initiate(
        kek: KeyEncryptingKey,
        cipher: Cipher,
        salt: [u8; SALT_LEN],
        seed: [u8; 32],
        refresh: KeyRefresh,
    ) -> (Self, KeyMaterial) {
        let bytes = make_key(&seed, 0, kek.length());
        let message = KeyMaterial::build(&kek, cipher, &salt, KeyFlag::Even, &bytes);
        let key = || KeySet { even: Some(StreamKey::new(cipher, &bytes, &salt)), odd: None };
        (Self::new(kek, &message, [key(), key()], seed, refresh), message)
    }

    /// The listener's side: takes the key from the caller's message. `None` when the passphrases differ.
    ///
    /// The answer in the handshake is the message itself. `seed` is for keys of our own, when we send.
    pub fn accept(kek: KeyEncryptingKey, message: &KeyMaterial, seed: [u8; 32], refresh: KeyRefresh) -> Option<Self> {
        let keys = [message.unwrap(&kek)?, message.unwrap(&kek)?];
        Some(Self::new(kek, message, keys, seed, refresh))
    }

    /// `keys` are those of `message`, once for each direction.
    fn new(
        kek: KeyEncryptingKey,
        message: &KeyMaterial,
        [receiving, sending]: [KeySet; 2],
        seed: [u8; 32],
        refresh: KeyRefresh,
    ) -> Self {
        assert!(
            refresh.announce_packets < refresh.after_packets / 2,
            "a key is announced and forgotten within its neighbours' time"
        );
        Self {
            kek,
            cipher: message.cipher(),
            form: GcmForm::default(),
            salt: *message.salt(),
            receiving,
            old_key: OldKey::new(),
            sending,
            active: if message.keys() == KeyFlag::Odd { KeyFlag::Odd } else { KeyFlag::Even },
            sent_under_active: 0,
            refresh,
            seed,
            keys_made: 1,
            announcement: None,
            successor_ready: false,
            state: KeyMaterialState::Secured,
        }
    }

    /// Takes up what the peer's version of SRT (`0x00MMmmpp`) and ours have in common: AES-GCM of libsrt 1.5.2 and 1.5.3 differs
    /// from that of the later ones. Before the first packet; unless told, the peer is taken for a later one.
    pub fn set_peer_version(&mut self, peer_version: u32) {
        self.form = GcmForm::with(peer_version);
    }

    /// What the keys are for.
    pub const fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Whether it is proof that the peer has sent it if a packet under this key decrypts. With libsrt up to 1.5.3 it is not even
    /// under AES-GCM, whose nonces it uses over and over.
    pub fn is_proof(&self, flag: KeyFlag) -> bool {
        self.cipher == Cipher::AesGcm && self.form == GcmForm::Current && self.receiving.get(flag).is_some()
    }

    /// What payloads are under, such as `AES-128-GCM`.
    pub fn name(&self) -> String {
        let mode = match (self.cipher, self.form) {
            (Cipher::AesCtr, _) => "CTR",
            (Cipher::AesGcm, GcmForm::Current) => "GCM",
            (Cipher::AesGcm, GcmForm::Srt153) => "GCM (libsrt 1.5.3)",
        };
        format!("AES-{}-{mode}", self.key_length().bytes() * 8)
    }

    /// Length of the keys.
    pub fn key_length(&self) -> KeyLength {
        self.kek.length()
    }

    /// What the peer has said about the last key that we announced.
    pub const fn state(&self) -> KeyMaterialState {
        self.state
    }

    /// Decrypts a payload in place. Returns its length, which is less than that of `bytes` when a tag follows it.
    ///
    /// # Errors
    /// When it is not encrypted at all or its key is missing, and `bytes` are then untouched; when it is not authentic, and they are
    /// then spoilt.
    #[inline]
    pub fn decrypt(&self, header: &DataHeader, bytes: &mut [u8]) -> Result<usize, Undecryptable> {
        match self.receiving.get(header.key) {
            Some(key) => key.open(self.form, header, bytes),
            None if header.key == KeyFlag::Plain => Err(Undecryptable::Plain),
            None => Err(Undecryptable::NoKey(header.key)),
        }
    }

    /// A packet that was decrypted has been taken into a receive buffer that spans as many. The peer's old key is forgotten once none
    /// that is under it can be taken any more.
    #[inline]
    pub fn taken(&mut self, flag: KeyFlag, span: u64) {
        if let Some(old) = self.old_key.taken(flag, span) {
            self.receiving.put(old, None);
        }
    }

    /// Encrypts a payload in place for its first sending, and names the key in the header, which has to be the one that goes out.
    /// Behind the payload in `bytes` is room for the tag, if there is one ([`Cipher::tag_len`]).
    ///
    /// Counts the packet, and changes the key when it is time: call it once per packet, and keep what comes out for
    /// retransmission.
    #[inline]
    pub fn encrypt(&mut self, header: &mut DataHeader, bytes: &mut [u8]) {
        self.sent_under_active += 1;
        if self.sent_under_active > self.refresh.announce_packets {
            self.change_key_when_due();
        }
        header.key = self.active;
        self.sending.get(self.active).expect("the active key is never forgotten").seal(self.form, header, bytes);
    }

    fn change_key_when_due(&mut self) {
        let KeyRefresh { after_packets, announce_packets } = self.refresh;
        let other = if self.active == KeyFlag::Even { KeyFlag::Odd } else { KeyFlag::Even };
        if self.successor_ready {
            if self.sent_under_active <= after_packets {
                return;
            }
            if self.announcement.is_some() && self.sent_under_active < KEY_PACKETS_MAX {
                // It has no key under the successor's flag, or that before this one, and would make rubbish of what comes under the next.
                return self.announce_again_after(announce_packets);
            }
            self.active = other;
            self.sent_under_active = 1;
            self.successor_ready = false;
        } else if self.sent_under_active > after_packets - announce_packets {
            self.make_successor(other);
        } else if self.sending.get(other).is_some() {
            // Packets under the old key are too old to be resent by now.
            self.sending.put(other, None);
        }
    }

    /// A peer that has not answered as often as it was asked is asked as often again, once in so many packets.
    fn announce_again_after(&mut self, packets: u64) {
        if self.sent_under_active.is_multiple_of(packets.max(1))
            && let Some(announcement) = self.announcement.as_mut().filter(|announcement| announcement.tries_left == 0)
        {
            announcement.tries_left = REQUEST_TRIES;
        }
    }

    fn make_successor(&mut self, flag: KeyFlag) {
        let successor = make_key(&self.seed, self.keys_made, self.key_length());
        self.keys_made += 1;
        let active = &self.sending.get(self.active).expect("the active key is never forgotten").bytes;
        let (even, odd) = if flag == KeyFlag::Even { (&successor, active) } else { (active, &successor) };
        let both: ArrayVec<u8, 64> = even.iter().chain(odd).copied().collect();
        let message = KeyMaterial::build(&self.kek, self.cipher, &self.salt, KeyFlag::Both, &both);
        self.sending.put(flag, Some(StreamKey::new(self.cipher, &successor, &self.salt)));
        self.announcement = Some(Announcement { message, tries_left: REQUEST_TRIES, sent: None });
        self.successor_ready = true;
    }

    /// The first key goes to the peer after connecting: [`poll_request`](Self::poll_request) has its message, until the peer has confirmed
    /// it. With version 4 of the handshake nothing else carries it.
    pub fn announce_first(&mut self, message: KeyMaterial) {
        self.announcement = Some(Announcement { message, tries_left: REQUEST_TRIES, sent: None });
        self.state = KeyMaterialState::Securing;
    }

    /// The KMREQ message to send now, if one is due: at once when a new key is announced, then every 1½ round trips until it
    /// is answered, ten times at most; the first key's then once a second.
    pub fn poll_request(&mut self, now: Instant, rtt: Duration) -> Option<&[u8]> {
        if self.next_timeout(rtt)? > now {
            return None;
        }
        let announcement = self.announcement.as_mut()?;
        announcement.tries_left = announcement.tries_left.saturating_sub(1);
        announcement.sent = Some(now);
        Some(announcement.message.as_bytes())
    }

    /// When [`Encryption::poll_request`] has something again; `None` while no request is under way.
    pub fn next_timeout(&self, rtt: Duration) -> Option<Instant> {
        let announcement = self.announcement.as_ref()?;
        let interval = match announcement.tries_left {
            0 if self.keys_made == 1 => FIRST_REQUEST_INTERVAL,
            0 => return None,
            _ => rtt * 3 / 2,
        };
        Some(announcement.sent.map_or(Instant::ZERO, |sent| sent + interval))
    }

    /// Takes a KMREQ of the peer after connecting and appends the KMRSP message to answer with: the same bytes, or a state.
    ///
    /// A message that cannot be used changes no key. One with another salt or key length would need PBKDF2 anew; libsrt never
    /// sends such a thing, and it is refused as [`KeyMaterialState::BadSecret`].
    pub fn receive_request(&mut self, message: &[u8], response: &mut Vec<u8>) -> KeyMaterialState {
        let state = match KeyMaterial::parse(message) {
            Ok(material) if material.cipher() != self.cipher => KeyMaterialState::BadCryptoMode,
            Ok(material) if *material.salt() != self.salt => KeyMaterialState::BadSecret,
            Ok(material) => match material.unwrap(&self.kek) {
                Some(keys) => {
                    for flag in self.receiving.merge(keys) {
                        self.old_key.replaced(flag);
                    }
                    response.extend_from_slice(message);
                    return KeyMaterialState::Secured;
                }
                None => KeyMaterialState::BadSecret,
            },
            Err(_) => KeyMaterialState::BadSecret,
        };
        response.extend_from_slice(&state.to_wire());
        state
    }

    /// Takes the peer's KMRSP after connecting. Whatever it says, the sender goes on encrypting.
    ///
    /// Returns the state it reports; `None` when it answers nothing that was asked.
    pub fn receive_response(&mut self, message: &[u8]) -> Option<KeyMaterialState> {
        let announcement = self.announcement.as_ref()?;
        if message == announcement.message.as_bytes() {
            self.announcement = None;
            self.state = KeyMaterialState::Secured;
        } else {
            // It may be the answer to what somebody has sent in our name, so the request is repeated all the same.
            self.state = KeyMaterialState::from_wire(message.try_into().ok()?)?;
        }
        Some(self.state)
    }
}

fn make_key(seed: &[u8; 32], number: u64, length: KeyLength) -> ArrayVec<u8, 32> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed);
    let tag = hmac::sign(&key, &number.to_be_bytes());
    tag.as_ref()[..length.bytes()].iter().copied().collect()
}

/// Checks an answer to the key material of a handshake: the same message, or the state that the peer reports instead.
pub fn check_handshake_response(request: &KeyMaterial, response: &[u8]) -> KeyMaterialState {
    if response == request.as_bytes() {
        return KeyMaterialState::Secured;
    }
    response.try_into().ok().and_then(KeyMaterialState::from_wire).unwrap_or(KeyMaterialState::BadSecret)
}
