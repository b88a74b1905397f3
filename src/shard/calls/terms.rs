//! What a call needs before it can be made: the peer's address, keys, randomness. Everything here may block: it is called on the
//! housekeeping thread, and a name is asked for on a thread of its own, since a resolver that does not answer keeps its asker for
//! many seconds, and housekeeping has streams to open meanwhile.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Config, CryptoMode, StreamSrt};
use crate::protocol::srt::caller::CallerEncryption;
use crate::protocol::srt::encryption::{
    Cipher, KeyEncryptingKey, KeyLength, KeyMaterial, KeyRefresh, SALT_LEN, derive_key_encrypting_key,
};
use crate::protocol::srt::fec::configuration::FilterConfiguration;
use crate::protocol::srt::stream_id::StreamId;

/// What a call is made with.
#[derive(Debug)]
pub struct CallTerms {
    /// Whom to call.
    pub peer: SocketAddr,
    /// What to ask for.
    pub stream_id: StreamId,
    /// The packet filter to ask for, or to have in rendezvous.
    pub packet_filter: Option<FilterConfiguration>,
    /// The first key, if there is a passphrase.
    pub encryption: Option<CallerEncryption>,
    /// Whether a peer is refused that has another passphrase, or where only one side has one.
    pub enforced_encryption: bool,
    /// In rendezvous: take the peer's cipher, whatever it is.
    pub takes_any_cipher: bool,
    /// Number of our first data packet.
    pub initial_sequence: u32,
    /// The cookie of a rendezvous; not 0.
    pub cookie: u32,
}

/// Why a call cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TermsError {
    /// The name is not known, or has no address that our socket can send to.
    #[error("{host}: {reason}")]
    Host {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// The Stream ID cannot be sent.
    #[error("stream_id: {0}")]
    StreamId(String),
    /// No thread for asking the resolver.
    #[error("no thread to look the name up: {0}")]
    Thread(std::io::Error),
}

/// Prepares a call of the stream at this place in the configuration; `reply` gets the terms, now or once a name is looked up.
pub fn prepare(
    config: &Config,
    stream: usize,
    reply: impl FnOnce(Result<Box<CallTerms>, TermsError>) + Send + 'static,
) {
    let settings = config.streams.values().nth(stream).expect("calls are made from the configuration");
    let srt = settings.srt.clone().expect("a stream that is fetched says from where");
    let encryption = settings.pull_passphrase().map(|passphrase| {
        let mode = srt.crypto_mode.or(settings.crypto_mode).unwrap_or(CryptoMode::Auto);
        let length = srt.key_length.and_then(|bytes| KeyLength::from_bytes(usize::from(bytes)));
        make_encryption(passphrase, length.unwrap_or(KeyLength::Aes128), mode)
    });
    let packet_filter = settings.packet_filter.as_deref().map(|text| text.parse().expect("read at the start"));
    let enforced_encryption = settings.enforced_encryption.unwrap_or(config.ingestion.srt.enforced_encryption);
    let takes_any_cipher = srt.crypto_mode.or(settings.crypto_mode).is_none_or(|mode| mode == CryptoMode::Auto);
    let finish = move |srt: &StreamSrt, peer: SocketAddr| {
        let stream_id = StreamId::for_call(srt.stream_id.as_deref().unwrap_or_default());
        Ok(Box::new(CallTerms {
            peer,
            stream_id: stream_id.map_err(|error| TermsError::StreamId(error.to_string()))?,
            packet_filter,
            encryption,
            enforced_encryption,
            takes_any_cipher,
            initial_sequence: random_u32() >> 1,
            cookie: random_u32().max(1),
        }))
    };
    if let Some(peer) = srt.literal() {
        return reply(finish(&srt, peer));
    }
    // The thread shares what it would have taken with it, if there was none.
    let reply = Arc::new(Mutex::new(Some(reply)));
    let take = |reply: &Mutex<Option<_>>| reply.lock().unwrap_or_else(PoisonError::into_inner).take();
    let of_thread = Arc::clone(&reply);
    let look_up = move || {
        let terms = resolve(&srt).and_then(|peer| finish(&srt, peer));
        if let Some(reply) = take(&of_thread) {
            reply(terms);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("hw-resolve".to_owned()).spawn(look_up)
        && let Some(reply) = take(&reply)
    {
        reply(Err(TermsError::Thread(error)));
    }
}

/// The key that a passphrase makes for what the peer in a rendezvous, or one of version 4 of the handshake, has sent.
pub fn derive_for(config: &Config, stream: usize, material: &KeyMaterial) -> Option<KeyEncryptingKey> {
    let settings = config.streams.values().nth(stream)?;
    let passphrase = settings.pull_passphrase()?;
    Some(derive_key_encrypting_key(passphrase.as_bytes(), material.salt(), material.key_length()))
}

fn make_encryption(passphrase: &str, length: KeyLength, mode: CryptoMode) -> CallerEncryption {
    let (mut salt, mut key_seed) = ([0; SALT_LEN], [0; 32]);
    getrandom::fill(&mut salt).expect("the operating system has randomness");
    getrandom::fill(&mut key_seed).expect("the operating system has randomness");
    CallerEncryption {
        key_encrypting_key: derive_key_encrypting_key(passphrase.as_bytes(), &salt, length),
        // libsrt's caller, too, takes "auto" for AES-CTR.
        cipher: if mode == CryptoMode::Gcm { Cipher::AesGcm } else { Cipher::AesCtr },
        salt,
        key_seed,
        key_refresh: KeyRefresh::default(),
    }
}

fn random_u32() -> u32 {
    getrandom::u32().expect("the operating system has randomness")
}

/// The first address of the name that our socket can send to.
fn resolve(srt: &StreamSrt) -> Result<SocketAddr, TermsError> {
    let (host, port) = srt.host_and_port().expect("the configuration was checked");
    let error = |reason: String| TermsError::Host { host: host.to_owned(), reason };
    let is_ipv4 = srt.bind().is_ipv4();
    let mut addresses = (host, port).to_socket_addrs().map_err(|it| error(it.to_string()))?;
    addresses.find(|address| address.is_ipv4() == is_ipv4).ok_or_else(|| {
        let (version, other) = if is_ipv4 { (4, "::") } else { (6, "0.0.0.0") };
        error(format!("has no IPv{version} address; local_address: \"{other}\" asks for the others"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Stream;

    fn prepared(srt: StreamSrt, passphrase: Option<&str>) -> Result<Box<CallTerms>, TermsError> {
        let mut config = Config::default();
        let stream = Stream { srt: Some(srt), passphrase: passphrase.map(str::to_owned), ..Stream::default() };
        config.streams.insert("cam1".to_owned(), stream);
        let (sender, receiver) = std::sync::mpsc::channel();
        prepare(&config, 0, move |terms| sender.send(terms).unwrap());
        receiver.recv().unwrap()
    }

    #[test]
    fn a_name_is_looked_up_for_addresses_of_our_sockets_version_and_keys_are_fresh() {
        let named = StreamSrt { address: "localhost:9000".to_owned(), ..StreamSrt::default() };
        let terms = prepared(named.clone(), None).unwrap();
        assert_eq!((terms.peer, terms.encryption.is_none()), ("127.0.0.1:9000".parse().unwrap(), true));
        let unknown = StreamSrt { address: "no-such-host.invalid:9000".to_owned(), ..named.clone() };
        let error = prepared(unknown, None).unwrap_err().to_string();
        assert!(error.starts_with("no-such-host.invalid: "), "{error}");
        let literal = StreamSrt { address: "[::1]:9000".to_owned(), key_length: Some(32), ..named };
        let [one, other] = [(); 2].map(|()| prepared(literal.clone(), Some("correct horse")).unwrap());
        assert_eq!(one.peer, "[::1]:9000".parse().unwrap());
        let (one_key, other_key) = (one.encryption.unwrap(), other.encryption.unwrap());
        assert_eq!(one_key.key_encrypting_key.length(), KeyLength::Aes256);
        assert!(one_key.salt != other_key.salt && one_key.key_seed != other_key.key_seed);
        assert!(one.cookie != other.cookie && one.takes_any_cipher);
    }
}
