//! How often passphrases are tried. Each try costs half a millisecond of PBKDF2, on the one thread that also makes rings and lets
//! everybody else in; so a source has so many a second, and all that have not shown the right passphrase of late have so many together.

use std::collections::VecDeque;

use crate::base::{Instant, Rate, SourceLimits, SourcePrefix, TokenBucket};
use crate::config::Access;
use crate::protocol::srt::encryption::{KeyEncryptingKey, KeyLength, KeyMaterial, SALT_LEN, derive_key_encrypting_key};

/// Sources that are counted one by one.
const SOURCES_MAX: usize = 4_096;
/// Sources that have shown the right passphrase and are remembered for it.
const PROVEN_MAX: usize = 1_024;
/// Keys that are kept: who is judged again, because a stream had to end for it, is not derived for again.
const KEYS_MAX: usize = 64;

/// Which of its limits keeps a passphrase from being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// The source's own.
    #[error("its source has had as many passphrases tried as ingestion.srt.access.derivations_per_second allows")]
    OfSource,
    /// That of all.
    #[error("as many passphrases were tried as ingestion.srt.access.derivations_per_second_total allows")]
    OfAll,
}

struct Known {
    passphrase: String,
    salt: [u8; SALT_LEN],
    length: KeyLength,
    key: KeyEncryptingKey,
}

/// Derives keys, not too many.
pub struct Derivations {
    by_source: SourceLimits,
    total: TokenBucket,
    proven: VecDeque<SourcePrefix>,
    keys: VecDeque<Known>,
    derived: u64,
}

impl Derivations {
    /// None so far. `secret` is one that no peer knows.
    pub fn new(access: &Access, secret: [u8; 16]) -> Self {
        let (each, all) = (access.derivations_per_second, access.derivations_per_second_total);
        Self {
            by_source: SourceLimits::new(Rate::new(each, each.saturating_mul(4)), SOURCES_MAX, secret),
            total: TokenBucket::new(Rate::new(all, all)),
            proven: VecDeque::with_capacity(PROVEN_MAX),
            keys: VecDeque::with_capacity(KEYS_MAX),
            derived: 0,
        }
    }

    /// The key of a passphrase for this key material. Takes hundreds of microseconds, unless it was derived a moment ago.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn derive(
        &mut self,
        now: Instant,
        source: SourcePrefix,
        passphrase: &str,
        material: &KeyMaterial,
    ) -> Result<KeyEncryptingKey, TooMany> {
        let (salt, length) = (material.salt(), material.key_length());
        let is_it = |it: &&Known| it.salt == *salt && it.length == length && it.passphrase == passphrase;
        if let Some(known) = self.keys.iter().find(is_it) {
            return Ok(known.key.clone());
        }
        if !self.by_source.take(now, source) {
            return Err(TooMany::OfSource);
        }
        // Who knows a passphrase is not kept out by those who try theirs.
        if !self.proven.contains(&source) && !self.total.take(now) {
            return Err(TooMany::OfAll);
        }
        self.derived += 1;
        let key = derive_key_encrypting_key(passphrase.as_bytes(), salt, length);
        if self.keys.len() == KEYS_MAX {
            self.keys.pop_front();
        }
        self.keys.push_back(Known { passphrase: passphrase.to_owned(), salt: *salt, length, key: key.clone() });
        Ok(key)
    }

    /// A source has shown that it knows a passphrase.
    pub fn proves(&mut self, source: SourcePrefix) {
        let before = self.proven.iter().position(|it| *it == source);
        before.and_then(|place| self.proven.remove(place));
        if self.proven.len() == PROVEN_MAX {
            self.proven.pop_front();
        }
        self.proven.push_back(source);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::protocol::srt::encryption::{Cipher, Encryption, KeyRefresh};

    fn source(last: u8) -> SourcePrefix {
        SourcePrefix::of(IpAddr::from([10, 0, 0, last]))
    }

    fn material(salt: u8) -> KeyMaterial {
        let salt = [salt; SALT_LEN];
        let key = derive_key_encrypting_key(b"correct horse", &salt, KeyLength::Aes128);
        Encryption::initiate(key, Cipher::AesCtr, salt, [1; 32], KeyRefresh::default()).1
    }

    fn derivations(each: u32, all: u32) -> Derivations {
        let access = Access { derivations_per_second: each, derivations_per_second_total: all, ..Access::default() };
        Derivations::new(&access, [1; 16])
    }

    #[test]
    fn a_source_that_tries_too_often_is_stopped_and_no_other() {
        let (mut derivations, now) = (derivations(1, 100), Instant::from_millis(1_000));
        let mut derive = |from, salt| derivations.derive(now, source(from), "correct horse", &material(salt)).err();
        let tries: Vec<_> = (0..6).map(|salt| derive(1, salt)).collect();
        assert_eq!(tries, [None, None, None, None, Some(TooMany::OfSource), Some(TooMany::OfSource)]);
        assert_eq!(derive(2, 10), None);
        assert_eq!(derivations.derived, 5);
    }

    #[test]
    fn all_together_are_limited_but_not_those_who_have_shown_the_passphrase() {
        let (mut derivations, now) = (derivations(10, 3), Instant::from_millis(1_000));
        let honest = source(200);
        derivations.proves(honest);
        let mut derive = |from, salt| derivations.derive(now, from, "correct horse", &material(salt)).err();
        let tries: Vec<_> = (0..5).map(|number| derive(source(number), number)).collect();
        assert_eq!(tries, [None, None, None, Some(TooMany::OfAll), Some(TooMany::OfAll)]);
        assert_eq!(derive(honest, 100), None);
        let later = now + std::time::Duration::from_secs(1);
        assert!(derivations.derive(later, source(9), "correct horse", &material(101)).is_ok());
    }

    #[test]
    fn the_same_again_costs_nothing_and_what_is_kept_is_bounded() {
        let (mut derivations, now) = (derivations(0, 0), Instant::from_millis(1_000));
        let first = derivations.derive(now, source(1), "correct horse", &material(1)).unwrap();
        assert_eq!(derivations.derive(now, source(2), "correct horse", &material(1)), Ok(first.clone()));
        assert_eq!(derivations.derived, 1);
        let other = derivations.derive(now, source(1), "wrong staple", &material(1)).unwrap();
        assert_ne!(first, other);
        for salt in 0..=KEYS_MAX as u8 {
            derivations.derive(now, source(1), "battery", &material(salt)).unwrap();
        }
        assert_eq!(derivations.keys.len(), KEYS_MAX);
        for number in 0..3 * PROVEN_MAX as u32 {
            derivations.proves(SourcePrefix::of(IpAddr::from(number.to_be_bytes())));
        }
        assert_eq!(derivations.proven.len(), PROVEN_MAX);
    }
}
