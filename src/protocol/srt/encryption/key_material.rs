//! Key material messages (draft-sharabayko-srt §3.2.2): stream encrypting keys, wrapped with one that comes from a passphrase.

use std::fmt;
use std::num::NonZeroU32;

use aes_kw::{KekAes128, KekAes192, KekAes256};
use arrayvec::ArrayVec;
use aws_lc_rs::pbkdf2;
use thiserror::Error;

use super::cipher::{Cipher, KeySet, StreamKey};
use crate::protocol::srt::packet::KeyFlag;

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
const AUTHENTICATION_AES_GCM: u8 = 1;
const ENCAPSULATION_SRT: u8 = 2;

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
pub struct KeyEncryptingKey(pub(super) ArrayVec<u8, 32>);

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
    pub(super) fn wrap(&self, keys: &[u8], wrapped: &mut [u8]) {
        let key = self.0.as_slice();
        let done = match self.length() {
            KeyLength::Aes128 => KekAes128::try_from(key).and_then(|kek| kek.wrap(keys, wrapped)),
            KeyLength::Aes192 => KekAes192::try_from(key).and_then(|kek| kek.wrap(keys, wrapped)),
            KeyLength::Aes256 => KekAes256::try_from(key).and_then(|kek| kek.wrap(keys, wrapped)),
        };
        done.expect("keys are whole blocks and the room fits them");
    }

    /// RFC 3394. `None` when the integrity check fails: the passphrase is another.
    pub(super) fn unwrap(&self, wrapped: &[u8], keys: &mut [u8]) -> Option<()> {
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
    /// Another cipher, authentication or encapsulation, or two that do not go together.
    #[error("cipher, authentication or encapsulation is unknown")]
    Cipher,
}

/// A key material message (§3.2.2) whose form is checked; its keys are still wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMaterial {
    message: ArrayVec<u8, KEY_MATERIAL_LEN_MAX>,
    keys: KeyFlag,
    key_length: KeyLength,
    cipher: Cipher,
}

impl KeyMaterial {
    /// Checks a message.
    ///
    /// # Errors
    /// When it is not of the form that libsrt writes.
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
        let cipher = match (message[8], message[9], message[10]) {
            (CIPHER_AES_CTR, AUTHENTICATION_NONE, ENCAPSULATION_SRT) => Cipher::AesCtr,
            (CIPHER_AES_GCM, AUTHENTICATION_AES_GCM, ENCAPSULATION_SRT) => Cipher::AesGcm,
            _ => return Err(KeyMaterialError::Cipher),
        };
        if usize::from(message[14]) * 4 != SALT_LEN {
            return Err(KeyMaterialError::Salt);
        }
        let key_bytes = usize::from(message[15]) * 4;
        let key_length = KeyLength::from_bytes(key_bytes).ok_or(KeyMaterialError::KeyLength(key_bytes))?;
        let count = if keys == KeyFlag::Both { 2 } else { 1 };
        if message.len() != HEADER_LEN + SALT_LEN + count * key_bytes + WRAP_LEN {
            return Err(length);
        }
        Ok(Self { message: message.iter().copied().collect(), keys, key_length, cipher })
    }

    /// Whether `message` means to be one, whatever is wrong with it: it is signed, and no shorter or longer than it says.
    pub fn is_meant(message: &[u8]) -> bool {
        !matches!(Self::parse(message), Err(KeyMaterialError::Length(_) | KeyMaterialError::Header))
    }

    /// Wraps one key, or both with the even one first.
    pub(super) fn build(
        kek: &KeyEncryptingKey,
        cipher: Cipher,
        salt: &[u8; SALT_LEN],
        keys: KeyFlag,
        plain: &[u8],
    ) -> Self {
        let key_length = kek.length();
        let count = if keys == KeyFlag::Both { 2 } else { 1 };
        assert_eq!(plain.len(), count * key_length.bytes(), "as many keys as the flag says");
        let mut message = ArrayVec::new();
        message.push(VERSION_AND_TYPE);
        message.extend(SIGNATURE);
        message.push(keys.bits() as u8);
        // Key encrypting key index: 0, "the passphrase".
        message.extend([0; 4]);
        message.extend(match cipher {
            Cipher::AesCtr => [CIPHER_AES_CTR, AUTHENTICATION_NONE],
            Cipher::AesGcm => [CIPHER_AES_GCM, AUTHENTICATION_AES_GCM],
        });
        message.extend([ENCAPSULATION_SRT, 0, 0, 0]);
        message.extend([(SALT_LEN / 4) as u8, (key_length.bytes() / 4) as u8]);
        message.extend(salt.iter().copied());
        let mut wrapped = [0; 2 * 32 + WRAP_LEN];
        let wrapped = &mut wrapped[..plain.len() + WRAP_LEN];
        kek.wrap(plain, wrapped);
        message.extend(wrapped.iter().copied());
        Self { message, keys, key_length, cipher }
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

    /// What the keys are for.
    pub const fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The salt for [`derive_key_encrypting_key`].
    pub fn salt(&self) -> &[u8; SALT_LEN] {
        self.message[HEADER_LEN..].first_chunk().expect("checked when it was made")
    }

    /// The keys, for whoever has the right passphrase.
    pub(super) fn unwrap(&self, kek: &KeyEncryptingKey) -> Option<KeySet> {
        if kek.length() != self.key_length {
            return None;
        }
        let wrapped = &self.message[HEADER_LEN + SALT_LEN..];
        let mut plain = [0; 2 * 32];
        let plain = &mut plain[..wrapped.len() - WRAP_LEN];
        kek.unwrap(wrapped, plain)?;
        let (first, second) = plain.split_at(self.key_length.bytes());
        let key = |bytes: &[u8]| Some(StreamKey::new(self.cipher, bytes, self.salt()));
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
    /// libsrt's name for it, without its prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unsecured => "UNSECURED",
            Self::Securing => "SECURING",
            Self::Secured => "SECURED",
            Self::NoSecret => "NOSECRET",
            Self::BadSecret => "BADSECRET",
            Self::BadCryptoMode => "BADCRYPTOMODE",
        }
    }

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
