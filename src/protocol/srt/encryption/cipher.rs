//! What payloads are under: AES in counter mode (draft-sharabayko-srt §6.1.2, §6.2.2), or in Galois/counter mode as libsrt has it.

use arrayvec::ArrayVec;
use aws_lc_rs::aead::{self, AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_192, AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

use super::{SALT_LEN, Undecryptable};
use crate::protocol::srt::packet::{DataHeader, HEADER_LEN, KeyFlag, SequenceNumber};

/// Bytes that AES-GCM adds at the end of a payload.
const TAG_LEN: usize = 16;
/// The first version of libsrt with [`GcmForm::Current`].
const CURRENT_FORM_SINCE: u32 = 0x0001_0504;

/// The mode that AES is run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Cipher {
    /// Counter mode: nobody else can read a payload, but whatever comes is taken for one.
    #[default]
    AesCtr,
    /// Galois/counter mode: a tag behind the payload proves that it and its header are the peer's (libsrt: `SRTO_CRYPTOMODE` 2).
    AesGcm,
}

impl Cipher {
    /// Bytes that it adds to a payload.
    #[inline]
    pub const fn tag_len(self) -> usize {
        match self {
            Self::AesCtr => 0,
            Self::AesGcm => TAG_LEN,
        }
    }
}

/// What AES-GCM is given as nonce and as additional data; both sides must take the same (libsrt, pull request 2962).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum GcmForm {
    /// As libsrt has it since 1.5.4: a nonce for each packet, and the header as it stands on the wire.
    #[default]
    Current,
    /// As 1.5.2 and 1.5.3 have it: the first twelve bytes of counter mode's block, which hold only the upper half of the packet's
    /// number, so that 65,536 packets share a nonce; and the words of the header in little-endian.
    ///
    /// Who sees two packets of one nonce has the difference of what is in them, and can work out how to forge tags: here a tag
    /// keeps off accidents, not attackers.
    Srt153,
}

impl GcmForm {
    /// What a peer of this version speaks with one of ours, `0x00MMmmpp`.
    pub(super) const fn with(peer_version: u32) -> Self {
        if peer_version < CURRENT_FORM_SINCE { Self::Srt153 } else { Self::Current }
    }

    fn nonce(self, salt: &[u8; SALT_LEN], sequence: SequenceNumber) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&salt[..NONCE_LEN]);
        let number = (sequence.get() as u32).to_be_bytes();
        let at = match self {
            Self::Current => 8,
            Self::Srt153 => 10,
        };
        for (byte, number) in nonce[at..].iter_mut().zip(number) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// The header of the packet's first sending: the same tag serves when it is sent again.
    fn additional_data(self, header: &DataHeader) -> Aad<[u8; HEADER_LEN]> {
        let mut bytes = [0; HEADER_LEN];
        DataHeader { retransmitted: false, ..*header }.encode(&mut bytes);
        if self == Self::Srt153 {
            bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        }
        Aad::from(bytes)
    }
}

/// A stream encrypting key, ready for use.
pub(super) struct StreamKey {
    pub(super) bytes: ArrayVec<u8, 32>,
    salt: [u8; SALT_LEN],
    key: Key,
}

#[expect(clippy::large_enum_variant, reason = "a connection has four at most, and needs one for each packet")]
enum Key {
    Counter(DecryptingKey),
    Gcm(LessSafeKey),
}

impl StreamKey {
    pub(super) fn new(cipher: Cipher, bytes: &[u8], salt: &[u8; SALT_LEN]) -> Self {
        let key = match cipher {
            Cipher::AesCtr => Key::Counter(counter_mode(bytes)),
            Cipher::AesGcm => Key::Gcm(galois_counter_mode(bytes)),
        };
        Self { bytes: bytes.iter().copied().collect(), salt: *salt, key }
    }

    /// Encrypts a payload in place; behind it in `bytes` is room for the tag.
    #[inline]
    pub(super) fn seal(&self, form: GcmForm, header: &DataHeader, bytes: &mut [u8]) {
        match &self.key {
            Key::Counter(key) => self.apply_counter_mode(key, header.sequence, bytes),
            Key::Gcm(key) => {
                let (payload, room) = bytes.split_at_mut(bytes.len() - TAG_LEN);
                let nonce = form.nonce(&self.salt, header.sequence);
                let tag = key.seal_in_place_separate_tag(nonce, form.additional_data(header), payload);
                room.copy_from_slice(tag.expect("a datagram is shorter than what AES-GCM takes").as_ref());
            }
        }
    }

    /// Decrypts a payload in place. Returns its length, less than that of `bytes` when a tag follows it.
    #[inline]
    pub(super) fn open(&self, form: GcmForm, header: &DataHeader, bytes: &mut [u8]) -> Result<usize, Undecryptable> {
        match &self.key {
            Key::Counter(key) => {
                self.apply_counter_mode(key, header.sequence, bytes);
                Ok(bytes.len())
            }
            Key::Gcm(key) => key
                .open_in_place(form.nonce(&self.salt, header.sequence), form.additional_data(header), bytes)
                .map(|payload| payload.len())
                .map_err(|aws_lc_rs::error::Unspecified| Undecryptable::NotAuthentic),
        }
    }

    /// En- or decrypts, which is the same: the upper 112 bits of the salt with the packet's number at bytes 10 to 13, then the
    /// count of blocks.
    #[inline]
    fn apply_counter_mode(&self, key: &DecryptingKey, sequence: SequenceNumber, payload: &mut [u8]) {
        let mut counter = self.salt;
        counter[14..].fill(0);
        for (byte, number) in counter[10..14].iter_mut().zip((sequence.get() as u32).to_be_bytes()) {
            *byte ^= number;
        }
        apply_counter_mode(key, counter, payload);
    }
}

pub(super) fn counter_mode(key: &[u8]) -> DecryptingKey {
    let algorithm = match key.len() {
        16 => &AES_128,
        24 => &AES_192,
        _ => &AES_256,
    };
    UnboundCipherKey::new(algorithm, key).and_then(DecryptingKey::ctr).expect("a key of 16, 24 or 32 bytes")
}

#[inline]
pub(super) fn apply_counter_mode(cipher: &DecryptingKey, counter: [u8; 16], payload: &mut [u8]) {
    let context = DecryptionContext::Iv128(FixedLength::from(counter));
    cipher.decrypt(payload, context).expect("counter mode takes any length");
}

fn galois_counter_mode(key: &[u8]) -> LessSafeKey {
    let algorithm: &'static aead::Algorithm = match key.len() {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        _ => &AES_256_GCM,
    };
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a key of 16, 24 or 32 bytes"))
}

#[derive(Default)]
pub(super) struct KeySet {
    pub(super) even: Option<StreamKey>,
    pub(super) odd: Option<StreamKey>,
}

impl KeySet {
    #[inline]
    pub(super) fn get(&self, flag: KeyFlag) -> Option<&StreamKey> {
        match flag {
            KeyFlag::Even => self.even.as_ref(),
            KeyFlag::Odd => self.odd.as_ref(),
            KeyFlag::Plain | KeyFlag::Both => None,
        }
    }

    pub(super) fn put(&mut self, flag: KeyFlag, key: Option<StreamKey>) {
        match flag {
            KeyFlag::Even => self.even = key,
            KeyFlag::Odd => self.odd = key,
            KeyFlag::Plain | KeyFlag::Both => unreachable!("only one key at a time is put in place"),
        }
    }

    /// Takes over what `newer` holds and keeps the rest. Returns which keys are others than before.
    pub(super) fn merge(&mut self, newer: Self) -> ArrayVec<KeyFlag, 2> {
        let mut replaced = ArrayVec::new();
        for (flag, key) in [(KeyFlag::Even, newer.even), (KeyFlag::Odd, newer.odd)] {
            let Some(key) = key else { continue };
            if self.get(flag).is_none_or(|held| held.bytes != key.bytes) {
                self.put(flag, Some(key));
                replaced.push(flag);
            }
        }
        replaced
    }
}
