//! Whether a caller has shown the passphrase: judged before anything is done for it, and before it is told what there is here.

use std::net::SocketAddr;

use super::Denial;
use crate::base::{Instant, SourcePrefix};
use crate::config::Access;
use crate::protocol::srt::encryption::{KeyEncryptingKey, KeyMaterial};
use crate::protocol::srt::handshake::RejectReason;
use crate::shard::derivations::{Derivations, TooMany};

/// Passphrases that one source has tried in a second, four times as many at once: one for each file that it sends.
const PER_SOURCE: u32 = 50;
/// The same of all together that have not shown the right one of late. Each takes half a millisecond of the thread that also moves packets.
const TOTAL: u32 = 100;

/// A caller has shown the passphrase, or there is none; with the key that it encrypts its keys with.
#[derive(Debug)]
pub struct Proof(pub(super) Option<KeyEncryptingKey>);

/// Judges callers by their passphrase.
pub struct Passphrases {
    derivations: Derivations,
}

impl Passphrases {
    /// Nobody has tried one yet. `secret` is one that no peer knows.
    pub fn new(secret: [u8; 16]) -> Self {
        let access =
            Access { derivations_per_second: PER_SOURCE, derivations_per_second_total: TOTAL, ..Access::default() };
        Self { derivations: Derivations::new(&access, secret) }
    }

    /// Judges a caller that brings this key material, where `passphrase` is wanted.
    ///
    /// # Errors
    /// [`Denial`]: only one of the two has a passphrase, they differ, or too many were tried.
    pub fn judge(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        passphrase: Option<&str>,
        material: Option<&KeyMaterial>,
    ) -> Result<Proof, Denial> {
        let (passphrase, material) = match (passphrase, material) {
            (None, None) => return Ok(Proof(None)),
            (Some(_), None) => return Err((RejectReason::Unsecure, "it has no passphrase".to_owned())),
            (None, Some(_)) => {
                return Err((RejectReason::Unsecure, "it has a passphrase, and there is none here".to_owned()));
            }
            (Some(passphrase), Some(material)) => (passphrase, material),
        };
        let source = SourcePrefix::of(peer.ip());
        let key = self.derivations.derive(now, source, passphrase, material).map_err(|too_many| {
            let whose = match too_many {
                TooMany::OfSource => format!("its source has had {PER_SOURCE} passphrases a second tried"),
                TooMany::OfAll => format!("{TOTAL} passphrases a second were tried"),
            };
            (RejectReason::Overload, whose)
        })?;
        if !material.is_wrapped_with(&key) {
            return Err((RejectReason::BadSecret, "its passphrase is another".to_owned()));
        }
        self.derivations.proves(source);
        Ok(Proof(Some(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::srt::encryption::{
        Cipher, Encryption, KeyLength, KeyRefresh, SALT_LEN, derive_key_encrypting_key,
    };

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 9_000))
    }

    fn material(passphrase: &str, number: u8) -> KeyMaterial {
        let salt = [number; SALT_LEN];
        let key = derive_key_encrypting_key(passphrase.as_bytes(), &salt, KeyLength::Aes128);
        Encryption::initiate(key, Cipher::AesCtr, salt, [1; 32], KeyRefresh::default()).1
    }

    #[test]
    fn only_the_same_passphrase_or_none_at_both_ends_is_let_through() {
        let mut passphrases = Passphrases::new([1; 16]);
        let mut judge = |ours, theirs: Option<&str>| {
            let material = theirs.map(|theirs| material(theirs, 1));
            let judged = passphrases.judge(Instant::from_millis(1), peer(1), ours, material.as_ref());
            judged.map(|proof| proof.0.is_some()).map_err(|(reason, _)| reason)
        };
        let (right, wrong) = (Some("correct horse"), Some("another horse"));
        assert_eq!((judge(None, None), judge(right, right)), (Ok(false), Ok(true)));
        assert_eq!(judge(right, wrong), Err(RejectReason::BadSecret));
        assert_eq!(judge(right, None), Err(RejectReason::Unsecure));
        assert_eq!(judge(None, right), Err(RejectReason::Unsecure));
    }

    #[test]
    fn who_tries_passphrases_takes_so_much_time_and_keeps_nobody_out_who_knows_it() {
        let (mut passphrases, now) = (Passphrases::new([1; 16]), Instant::from_millis(1));
        let mut judge = |from, theirs, number| {
            let judged = passphrases.judge(now, peer(from), Some("correct horse"), Some(&material(theirs, number)));
            judged.map(drop).map_err(|(reason, _)| reason)
        };
        assert_eq!(judge(255, "correct horse", 255), Ok(()));
        let tries: Vec<_> = (0..TOTAL as u8 + 20).map(|number| judge(number, "another horse", number)).collect();
        // The first of all was that of the one who knows it.
        let tried = TOTAL as usize - 1;
        assert!(tries[..tried].iter().all(|judged| *judged == Err(RejectReason::BadSecret)));
        assert!(tries[tried..].iter().all(|judged| *judged == Err(RejectReason::Overload)));
        let known: Vec<_> = (0..4 * PER_SOURCE as u8).map(|number| judge(255, "correct horse", number)).collect();
        assert_eq!(known.iter().filter(|judged| judged.is_ok()).count(), 4 * PER_SOURCE as usize - 1);
        assert_eq!(known.last(), Some(&Err(RejectReason::Overload)));
    }
}
