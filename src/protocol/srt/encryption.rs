//! Payload encryption (draft-sharabayko-srt §6): AES in counter mode under keys that are wrapped with a passphrase.

use super::packet::{KeyFlag, SequenceNumber};
use thiserror::Error;

/// Why a payload could not be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Undecryptable {
    /// It came in plain on an encrypted connection.
    #[error("the payload is not encrypted")]
    Plain,
    /// The key it is under is not known (yet, or any more).
    #[error("the {0:?} key is not known")]
    NoKey(KeyFlag),
}

/// The keys of an encrypted connection, both ways.
#[derive(Debug)]
pub struct Encryption {}

impl Encryption {
    /// Decrypts a payload in place.
    ///
    /// # Errors
    /// When it is not encrypted at all or its key is missing; the payload is then untouched.
    pub fn decrypt(&self, key: KeyFlag, sequence: SequenceNumber, payload: &mut [u8]) -> Result<(), Undecryptable> {
        let _ = (sequence, payload);
        Err(Undecryptable::NoKey(key))
    }

    /// Encrypts a payload in place for its first sending, and says which key to name in the header.
    pub fn encrypt(&mut self, sequence: SequenceNumber, payload: &mut [u8]) -> KeyFlag {
        let _ = (sequence, payload);
        KeyFlag::Even
    }

    /// Takes a KMREQ of the peer and appends the KMRSP message to answer with.
    pub fn receive_request(&mut self, message: &[u8], response: &mut Vec<u8>) {
        let _ = (message, response);
    }

    /// Takes the peer's KMRSP.
    pub fn receive_response(&mut self, message: &[u8]) {
        let _ = message;
    }
}
