//! Payload encryption (draft-sharabayko-srt §6): AES in counter mode under keys that are wrapped with a passphrase.
//!
//! Three keys: the *key encrypting key* comes from the passphrase and a salt, by PBKDF2 with 2048 iterations, which takes
//! hundreds of microseconds and therefore belongs off the shard; it wraps *stream encrypting keys*, an even and an odd one in
//! turns, which key material messages carry; with them and the packet's number the payload is en- and decrypted.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use aes_kw::{KekAes128, KekAes192, KekAes256};
use arrayvec::ArrayVec;
use aws_lc_rs::cipher::{AES_128, AES_192, AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{hmac, pbkdf2};
use thiserror::Error;

use super::packet::{KeyFlag, SequenceNumber};
use crate::base::Instant;

#[cfg(test)]
mod tests;

/// Length of the salt of a key material message, in bytes.
pub const SALT_LEN: usize = 16;

/// Longest key material message: header, salt, two wrapped keys of 32 bytes, integrity check value.
pub const KEY_MATERIAL_LEN_MAX: usize = HEADER_LEN + SALT_LEN + 2 * 32 + WRAP_LEN;

const PBKDF2_ITERATIONS: NonZeroU32 = NonZeroU32::new(2048).unwrap();
/// Only this many bytes at the end of the salt go into PBKDF2; all but the last two go into the counter.
const PBKDF2_SALT_LEN: usize = 8;
const HEADER_LEN: usize = 16;
const WRAP_LEN: usize = 8;
const VERSION_AND_TYPE: u8 = 0x12;
const SIGNATURE: [u8; 2] = [0x20, 0x29];
const CIPHER_AES_CTR: u8 = 2;
const CIPHER_AES_GCM: u8 = 4;
const AUTHENTICATION_NONE: u8 = 0;
const ENCAPSULATION_SRT: u8 = 2;

/// How often an unanswered request is repeated, as libsrt does it.
const REQUEST_TRIES: u8 = 10;

/// Length of the stream encrypting keys, and of the key that wraps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum KeyLength {
    /// 16 bytes.
    #[default]
    Aes128,
    /// 24 bytes.
    Aes192,
    /// 32 bytes.
    Aes256,
}

impl KeyLength {
    /// The length in bytes.
    #[inline]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }

    /// The length that is so many bytes.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        Some(match bytes {
            16 => Self::Aes128,
            24 => Self::Aes192,
            32 => Self::Aes256,
            _ => return None,
        })
    }
}

/// The key that wraps the others. Made by [`derive_key_encrypting_key`].
#[derive(Clone, PartialEq, Eq)]
pub struct KeyEncryptingKey(ArrayVec<u8, 32>);

impl fmt::Debug for KeyEncryptingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyEncryptingKey({} bytes)", self.0.len())
    }
}

/// Makes the key encrypting key of a passphrase (§6.1.4): PBKDF2, HMAC-SHA1, 2048 iterations, the last 64 bits of the salt.
///
/// Costs hundreds of microseconds: never call it on a shard.
pub fn derive_key_encrypting_key(passphrase: &[u8], salt: &[u8; SALT_LEN], length: KeyLength) -> KeyEncryptingKey {
    let mut key = [0; 32];
    let key = &mut key[..length.bytes()];
    let salt = &salt[SALT_LEN - PBKDF2_SALT_LEN..];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, PBKDF2_ITERATIONS, salt, passphrase, key);
    KeyEncryptingKey(key.iter().copied().collect())
}

impl KeyEncryptingKey {
    /// The length it was made for.
    pub fn length(&self) -> KeyLength {
        KeyLength::from_bytes(self.0.len()).expect("made with one of the three lengths")
    }

    /// RFC 3394. `wrapped` is eight bytes longer than `keys`.
    fn wrap(&self, keys: &[u8], wrapped: &mut [u8]) {
        let key = self.0.as_slice();
        let done = match self.length() {
            KeyLength::Aes128 => KekAes128::try_from(key).and_then(|kek| kek.wrap(keys, wrapped)),
            KeyLength::Aes192 => KekAes192::try_from(key).and_then(|kek| kek.wrap(keys, wrapped)),
            KeyLength::Aes256 => KekAes256::try_from(key).and_then(|kek| kek.wrap(keys, wrapped)),
        };
        done.expect("keys are whole blocks and the room fits them");
    }

    /// RFC 3394. `None` when the integrity check fails: the passphrase is another.
    fn unwrap(&self, wrapped: &[u8], keys: &mut [u8]) -> Option<()> {
        let key = self.0.as_slice();
        match self.length() {
            KeyLength::Aes128 => KekAes128::try_from(key).and_then(|kek| kek.unwrap(wrapped, keys)),
            KeyLength::Aes192 => KekAes192::try_from(key).and_then(|kek| kek.unwrap(wrapped, keys)),
            KeyLength::Aes256 => KekAes256::try_from(key).and_then(|kek| kek.unwrap(wrapped, keys)),
        }
        .ok()
    }
}

/// Why a key material message is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyMaterialError {
    /// Shorter or longer than its own fields say.
    #[error("a key material message of {0} bytes has not the length of its content")]
    Length(usize),
    /// Not version 1, type 2, signed `HAI`.
    #[error("the header of the key material message is not one of SRT")]
    Header,
    /// No key in it.
    #[error("the key material message holds no key")]
    NoKey,
    /// A salt that is not 16 bytes long.
    #[error("the salt is not 16 bytes long")]
    Salt,
    /// Keys that are not 16, 24 or 32 bytes long.
    #[error("{0} bytes is no length of an AES key")]
    KeyLength(usize),
    /// AES-GCM, which libsrt offers as a preview.
    #[error("AES-GCM is not supported")]
    Gcm,
    /// Another cipher, authentication or encapsulation.
    #[error("cipher, authentication or encapsulation is unknown")]
    Cipher,
}

/// A key material message (§3.2.2) whose form is checked; its keys are still wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMaterial {
    message: ArrayVec<u8, KEY_MATERIAL_LEN_MAX>,
    keys: KeyFlag,
    key_length: KeyLength,
}

impl KeyMaterial {
    /// Checks a message.
    ///
    /// # Errors
    /// When it is not of the form that libsrt writes for AES-CTR.
    pub fn parse(message: &[u8]) -> Result<Self, KeyMaterialError> {
        let length = KeyMaterialError::Length(message.len());
        if message.len() <= HEADER_LEN || message.len() > KEY_MATERIAL_LEN_MAX {
            return Err(length);
        }
        if message[0] != VERSION_AND_TYPE || message[1..3] != SIGNATURE {
            return Err(KeyMaterialError::Header);
        }
        let keys = KeyFlag::from_bits(u32::from(message[3]));
        if keys == KeyFlag::Plain {
            return Err(KeyMaterialError::NoKey);
        }
        match (message[8], message[9], message[10]) {
            (CIPHER_AES_CTR, AUTHENTICATION_NONE, ENCAPSULATION_SRT) => {}
            (CIPHER_AES_GCM, _, ENCAPSULATION_SRT) => return Err(KeyMaterialError::Gcm),
            _ => return Err(KeyMaterialError::Cipher),
        }
        if usize::from(message[14]) * 4 != SALT_LEN {
            return Err(KeyMaterialError::Salt);
        }
        let key_bytes = usize::from(message[15]) * 4;
        let key_length = KeyLength::from_bytes(key_bytes).ok_or(KeyMaterialError::KeyLength(key_bytes))?;
        let count = if keys == KeyFlag::Both { 2 } else { 1 };
        if message.len() != HEADER_LEN + SALT_LEN + count * key_bytes + WRAP_LEN {
            return Err(length);
        }
        Ok(Self { message: message.iter().copied().collect(), keys, key_length })
    }

    /// Wraps one key, or both with the even one first.
    fn build(kek: &KeyEncryptingKey, salt: &[u8; SALT_LEN], keys: KeyFlag, plain: &[u8]) -> Self {
        let key_length = kek.length();
        let count = if keys == KeyFlag::Both { 2 } else { 1 };
        assert_eq!(plain.len(), count * key_length.bytes(), "as many keys as the flag says");
        let mut message = ArrayVec::new();
        message.push(VERSION_AND_TYPE);
        message.extend(SIGNATURE);
        message.push(keys.bits() as u8);
        // Key encrypting key index: 0, "the passphrase".
        message.extend([0; 4]);
        message.extend([CIPHER_AES_CTR, AUTHENTICATION_NONE, ENCAPSULATION_SRT, 0, 0, 0]);
        message.extend([(SALT_LEN / 4) as u8, (key_length.bytes() / 4) as u8]);
        message.extend(salt.iter().copied());
        let mut wrapped = [0; 2 * 32 + WRAP_LEN];
        let wrapped = &mut wrapped[..plain.len() + WRAP_LEN];
        kek.wrap(plain, wrapped);
        message.extend(wrapped.iter().copied());
        Self { message, keys, key_length }
    }

    /// Whether this key unwraps it: whether both sides have the same passphrase.
    pub fn is_wrapped_with(&self, key: &KeyEncryptingKey) -> bool {
        self.unwrap(key).is_some()
    }

    /// The message as it goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.message
    }

    /// Which keys it carries: even, odd or both.
    pub const fn keys(&self) -> KeyFlag {
        self.keys
    }

    /// The length of its keys.
    pub const fn key_length(&self) -> KeyLength {
        self.key_length
    }

    /// The salt for [`derive_key_encrypting_key`].
    pub fn salt(&self) -> &[u8; SALT_LEN] {
        self.message[HEADER_LEN..].first_chunk().expect("checked when it was made")
    }

    /// The keys, for whoever has the right passphrase.
    fn unwrap(&self, kek: &KeyEncryptingKey) -> Option<KeySet> {
        if kek.length() != self.key_length {
            return None;
        }
        let wrapped = &self.message[HEADER_LEN + SALT_LEN..];
        let mut plain = [0; 2 * 32];
        let plain = &mut plain[..wrapped.len() - WRAP_LEN];
        kek.unwrap(wrapped, plain)?;
        let (first, second) = plain.split_at(self.key_length.bytes());
        let key = |bytes: &[u8]| Some(StreamKey::new(bytes, self.salt()));
        Some(match self.keys {
            KeyFlag::Even => KeySet { even: key(first), odd: None },
            KeyFlag::Odd => KeySet { even: None, odd: key(first) },
            _ => KeySet { even: key(first), odd: key(second) },
        })
    }
}

/// What the two sides know of each other's keys; the states of libsrt (`SRT_KM_STATE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMaterialState {
    /// No encryption.
    Unsecured,
    /// Keys are on their way.
    Securing,
    /// Keys are exchanged.
    Secured,
    /// The stream is encrypted but there is no passphrase here.
    NoSecret,
    /// The passphrases differ.
    BadSecret,
    /// One side insists on GCM, the other on CTR.
    BadCryptoMode,
}

impl KeyMaterialState {
    /// The word that takes the place of key material in a response that refuses.
    ///
    /// libsrt sends it in the byte order of its host, hence little-endian.
    pub const fn to_wire(self) -> [u8; 4] {
        let code: u32 = match self {
            Self::Unsecured => 0,
            Self::Securing => 1,
            Self::Secured => 2,
            Self::NoSecret => 3,
            Self::BadSecret => 4,
            Self::BadCryptoMode => 5,
        };
        code.to_le_bytes()
    }

    /// Reads that word in either byte order.
    pub const fn from_wire(word: [u8; 4]) -> Option<Self> {
        Some(match (u32::from_le_bytes(word), u32::from_be_bytes(word)) {
            (0, _) => Self::Unsecured,
            (1, _) | (_, 1) => Self::Securing,
            (2, _) | (_, 2) => Self::Secured,
            (3, _) | (_, 3) => Self::NoSecret,
            (4, _) | (_, 4) => Self::BadSecret,
            (5, _) | (_, 5) => Self::BadCryptoMode,
            _ => return None,
        })
    }
}

/// A stream encrypting key, ready for use.
struct StreamKey {
    bytes: ArrayVec<u8, 32>,
    cipher: DecryptingKey,
    /// The upper 112 bits of the salt, then the block counter at zero.
    initial_counter: [u8; 16],
}

impl StreamKey {
    fn new(bytes: &[u8], salt: &[u8; SALT_LEN]) -> Self {
        let mut initial_counter = *salt;
        initial_counter[14..].fill(0);
        Self { bytes: bytes.iter().copied().collect(), cipher: counter_mode(bytes), initial_counter }
    }

    /// En- or decrypts, which is the same: the packet's number goes into the counter at bytes 10 to 13 (§6.1.2, §6.2.2).
    #[inline]
    fn apply(&self, sequence: SequenceNumber, payload: &mut [u8]) {
        let mut counter = self.initial_counter;
        for (byte, number) in counter[10..14].iter_mut().zip((sequence.get() as u32).to_be_bytes()) {
            *byte ^= number;
        }
        apply_counter_mode(&self.cipher, counter, payload);
    }
}

fn counter_mode(key: &[u8]) -> DecryptingKey {
    let algorithm = match key.len() {
        16 => &AES_128,
        24 => &AES_192,
        _ => &AES_256,
    };
    UnboundCipherKey::new(algorithm, key).and_then(DecryptingKey::ctr).expect("a key of 16, 24 or 32 bytes")
}

#[inline]
fn apply_counter_mode(cipher: &DecryptingKey, counter: [u8; 16], payload: &mut [u8]) {
    let context = DecryptionContext::Iv128(FixedLength::from(counter));
    cipher.decrypt(payload, context).expect("counter mode takes any length");
}

#[derive(Default)]
struct KeySet {
    even: Option<StreamKey>,
    odd: Option<StreamKey>,
}

impl KeySet {
    #[inline]
    fn get(&self, flag: KeyFlag) -> Option<&StreamKey> {
        match flag {
            KeyFlag::Even => self.even.as_ref(),
            KeyFlag::Odd => self.odd.as_ref(),
            KeyFlag::Plain | KeyFlag::Both => None,
        }
    }

    fn put(&mut self, flag: KeyFlag, key: Option<StreamKey>) {
        match flag {
            KeyFlag::Even => self.even = key,
            KeyFlag::Odd => self.odd = key,
            KeyFlag::Plain | KeyFlag::Both => unreachable!("only one key at a time is put in place"),
        }
    }

    /// Takes over what `newer` holds and keeps the rest.
    fn merge(&mut self, newer: Self) {
        if newer.even.is_some() {
            self.even = newer.even;
        }
        if newer.odd.is_some() {
            self.odd = newer.odd;
        }
    }
}

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
    salt: [u8; SALT_LEN],
    receiving: KeySet,
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
        salt: [u8; SALT_LEN],
        seed: [u8; 32],
        refresh: KeyRefresh,
    ) -> (Self, KeyMaterial) {
        let bytes = make_key(&seed, 0, kek.length());
        let message = KeyMaterial::build(&kek, &salt, KeyFlag::Even, &bytes);
        let key = || KeySet { even: Some(StreamKey::new(&bytes, &salt)), odd: None };
        (Self::new(kek, salt, key(), key(), KeyFlag::Even, seed, refresh), message)
    }

    /// The listener's side: takes the key from the caller's message. `None` when the passphrases differ.
    ///
    /// The answer in the handshake is the message itself. `seed` is for keys of our own, when we send.
    pub fn accept(kek: KeyEncryptingKey, message: &KeyMaterial, seed: [u8; 32], refresh: KeyRefresh) -> Option<Self> {
        let receiving = message.unwrap(&kek)?;
        let sending = message.unwrap(&kek)?;
        let active = if message.keys() == KeyFlag::Odd { KeyFlag::Odd } else { KeyFlag::Even };
        Some(Self::new(kek, *message.salt(), receiving, sending, active, seed, refresh))
    }

    fn new(
        kek: KeyEncryptingKey,
        salt: [u8; SALT_LEN],
        receiving: KeySet,
        sending: KeySet,
        active: KeyFlag,
        seed: [u8; 32],
        refresh: KeyRefresh,
    ) -> Self {
        assert!(
            refresh.announce_packets < refresh.after_packets / 2,
            "a key is announced and forgotten within its neighbours' time"
        );
        Self {
            kek,
            salt,
            receiving,
            sending,
            active,
            sent_under_active: 0,
            refresh,
            seed,
            keys_made: 1,
            announcement: None,
            successor_ready: false,
            state: KeyMaterialState::Secured,
        }
    }

    /// Length of the keys.
    pub fn key_length(&self) -> KeyLength {
        self.kek.length()
    }

    /// What the peer has said about the last key that we announced.
    pub const fn state(&self) -> KeyMaterialState {
        self.state
    }

    /// Decrypts a payload in place.
    ///
    /// # Errors
    /// When it is not encrypted at all or its key is missing; the payload is then untouched.
    #[inline]
    pub fn decrypt(&self, flag: KeyFlag, sequence: SequenceNumber, payload: &mut [u8]) -> Result<(), Undecryptable> {
        match self.receiving.get(flag) {
            Some(key) => {
                key.apply(sequence, payload);
                Ok(())
            }
            None if flag == KeyFlag::Plain => Err(Undecryptable::Plain),
            None => Err(Undecryptable::NoKey(flag)),
        }
    }

    /// Encrypts a payload in place for its first sending, and says which key to name in the header.
    ///
    /// Counts the packet, and changes the key when it is time: call it once per packet, and keep what comes out for
    /// retransmission.
    #[inline]
    pub fn encrypt(&mut self, sequence: SequenceNumber, payload: &mut [u8]) -> KeyFlag {
        self.sent_under_active += 1;
        if self.sent_under_active > self.refresh.announce_packets {
            self.change_key_when_due();
        }
        self.sending.get(self.active).expect("the active key is never forgotten").apply(sequence, payload);
        self.active
    }

    fn change_key_when_due(&mut self) {
        let KeyRefresh { after_packets, announce_packets } = self.refresh;
        let other = if self.active == KeyFlag::Even { KeyFlag::Odd } else { KeyFlag::Even };
        if self.successor_ready {
            // A peer that has not answered yet gets as many packets again before the key changes all the same.
            let grace = if self.announcement.is_some() { announce_packets } else { 0 };
            if self.sent_under_active > after_packets + grace {
                self.active = other;
                self.sent_under_active = 1;
                self.successor_ready = false;
            }
        } else if self.sent_under_active > after_packets - announce_packets {
            self.make_successor(other);
        } else if self.sending.get(other).is_some() {
            // Packets under the old key are too old to be resent by now.
            self.sending.put(other, None);
        }
    }

    fn make_successor(&mut self, flag: KeyFlag) {
        let successor = make_key(&self.seed, self.keys_made, self.key_length());
        self.keys_made += 1;
        let active = &self.sending.get(self.active).expect("the active key is never forgotten").bytes;
        let (even, odd) = if flag == KeyFlag::Even { (&successor, active) } else { (active, &successor) };
        let both: ArrayVec<u8, 64> = even.iter().chain(odd).copied().collect();
        let message = KeyMaterial::build(&self.kek, &self.salt, KeyFlag::Both, &both);
        self.sending.put(flag, Some(StreamKey::new(&successor, &self.salt)));
        self.announcement = Some(Announcement { message, tries_left: REQUEST_TRIES, sent: None });
        self.successor_ready = true;
    }

    /// The KMREQ message to send now, if one is due: at once when a new key is announced, then every 1½ round trips until it
    /// is answered, ten times at most.
    pub fn poll_request(&mut self, now: Instant, rtt: Duration) -> Option<&[u8]> {
        if self.next_timeout(rtt)? > now {
            return None;
        }
        let announcement = self.announcement.as_mut()?;
        announcement.tries_left -= 1;
        announcement.sent = Some(now);
        Some(announcement.message.as_bytes())
    }

    /// When [`Encryption::poll_request`] has something again; `None` while no request is under way.
    pub fn next_timeout(&self, rtt: Duration) -> Option<Instant> {
        let announcement = self.announcement.as_ref().filter(|announcement| announcement.tries_left > 0)?;
        Some(announcement.sent.map_or(Instant::ZERO, |sent| sent + rtt * 3 / 2))
    }

    /// Takes a KMREQ of the peer after connecting and appends the KMRSP message to answer with: the same bytes, or a state.
    ///
    /// A message that cannot be used changes no key. One with another salt or key length would need PBKDF2 anew; libsrt never
    /// sends such a thing, and it is refused as [`KeyMaterialState::BadSecret`].
    pub fn receive_request(&mut self, message: &[u8], response: &mut Vec<u8>) -> KeyMaterialState {
        let state = match KeyMaterial::parse(message) {
            Ok(material) if *material.salt() != self.salt => KeyMaterialState::BadSecret,
            Ok(material) => match material.unwrap(&self.kek) {
                Some(keys) => {
                    self.receiving.merge(keys);
                    response.extend_from_slice(message);
                    return KeyMaterialState::Secured;
                }
                None => KeyMaterialState::BadSecret,
            },
            Err(KeyMaterialError::Gcm) => KeyMaterialState::BadCryptoMode,
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
        let state = if message == announcement.message.as_bytes() {
            KeyMaterialState::Secured
        } else {
            KeyMaterialState::from_wire(message.try_into().ok()?)?
        };
        self.announcement = None;
        self.state = state;
        Some(state)
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
