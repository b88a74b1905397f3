//! Who is let in, as which stream, on which shard. Judged on the housekeeping thread, where files may be touched and keys
//! derived; the shard whose door a stranger stands at only carries the question there and the answer back.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::mailbox::{Message, Shards};
use super::strangers::{REFUSED_FOR, SourceKey};
use crate::config::Config;
use crate::output::directory::{RingDirectory, StreamOutput};
use crate::output::{Housekeeping, StreamRings, TrackReady};
use crate::protocol::srt::encryption::{KeyEncryptingKey, derive_key_encrypting_key};
use crate::protocol::srt::handshake::RejectReason;
use crate::protocol::srt::listener::AdmissionRequest;
use crate::protocol::srt::stream_id::Mode;

/// A source that was let in, sent to the shard that owns its stream.
pub struct Admitted {
    /// The stream's name.
    pub name: String,
    /// Which life of the stream: a name that comes back after its stream has ended gets another.
    pub life: u64,
    /// What the stream needs to be written; `None` when its owner has it already.
    pub output: Option<StreamOutput>,
    /// Who was let in.
    pub source: AdmittedSource,
}

/// Who was let in.
pub enum AdmittedSource {
    /// An SRT caller, to be answered by the owner.
    Srt {
        /// Its conclusion.
        request: Box<AdmissionRequest>,
        /// The key of the stream's passphrase, if it has one.
        key: Option<KeyEncryptingKey>,
        /// The shard that got the conclusion.
        origin: usize,
        /// The least latency of the stream.
        latency: Duration,
        /// Randomness for keys of our own.
        key_seed: [u8; 32],
    },
    /// A source of RTP or raw transport packets.
    Source(SourceKey),
}

/// Why a source of RTP or raw transport packets is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many as may be are there.
    #[error("{key} = {limit} is reached")]
    Full {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        limit: u32,
    },
    /// The stream is to come from another address.
    #[error("streams.{name}.source is another address")]
    ForeignSource {
        /// The stream.
        name: String,
    },
    /// There is no room for its rings, or no permission.
    #[error("no rings for {name}: {reason}")]
    NoOutput {
        /// The stream.
        name: String,
        /// Why.
        reason: String,
    },
}

/// The desk at which admissions are judged; one for all shards.
pub struct Desk {
    config: Arc<Config>,
    shards: Shards,
    directory: Arc<RingDirectory>,
    housekeeping: Housekeeping,
    streams: Mutex<Streams>,
}

/// Which shard owns which stream. Locked on the housekeeping thread alone.
#[derive(Default)]
struct Streams {
    owners: HashMap<String, Owner>,
    lives: u64,
}

#[derive(Clone, Copy)]
struct Owner {
    shard: usize,
    life: u64,
    kind: SourceKind,
}

/// What a limit counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    Srt,
    Rtp,
}

impl Desk {
    /// A desk that knows no stream yet.
    pub fn new(
        config: Arc<Config>,
        shards: Shards,
        directory: Arc<RingDirectory>,
        housekeeping: Housekeeping,
    ) -> Arc<Self> {
        Arc::new(Self { config, shards, directory, housekeeping, streams: Mutex::default() })
    }

    /// The rings' directory.
    pub fn directory(&self) -> &Arc<RingDirectory> {
        &self.directory
    }

    /// The thread that may block.
    pub fn housekeeping(&self) -> &Housekeeping {
        &self.housekeeping
    }

    /// Carries an SRT caller's conclusion to the desk; the answer comes to a shard's mailbox.
    pub fn admit_srt(self: &Arc<Self>, origin: usize, request: Box<AdmissionRequest>) {
        let desk = Arc::clone(self);
        // When the desk is overrun the caller hears nothing and calls again after its time-out.
        let _ = self.housekeeping.submit(Box::new(move || desk.judge_srt(origin, request)));
    }

    /// Carries a source that has proved itself to the desk.
    pub fn admit_source(self: &Arc<Self>, shard: usize, key: SourceKey) {
        let desk = Arc::clone(self);
        let submitted = self.housekeeping.submit(Box::new(move || desk.judge_source(shard, key)));
        if submitted.is_err() {
            self.shards.mailbox(shard).post(Message::SourceRefused(key, REFUSED_FOR));
        }
    }

    /// The owner of a stream gives it up for a source that came to another shard; `rings` are let go of before they are
    /// taken up there. `false` when the desk is overrun: the source is to be refused, and the stream has ended.
    pub fn stream_vacated(
        self: &Arc<Self>,
        name: String,
        life: u64,
        rings: Option<StreamRings>,
        shard: usize,
        key: SourceKey,
    ) -> bool {
        let desk = Arc::clone(self);
        let submitted = self.housekeeping.submit(Box::new(move || {
            drop(rings);
            desk.forget(&name, life);
            desk.judge_source(shard, key);
        }));
        submitted.is_ok()
    }

    /// The owner has ended a stream; another shard may own the name from now on.
    ///
    /// `false` when the desk is overrun: tell it again later.
    pub fn stream_ended(self: &Arc<Self>, name: String, life: u64) -> bool {
        let desk = Arc::clone(self);
        self.housekeeping.submit(Box::new(move || desk.forget(&name, life))).is_ok()
    }

    fn forget(&self, name: &str, life: u64) {
        let mut streams = self.streams();
        if streams.owners.get(name).is_some_and(|owner| owner.life == life) {
            streams.owners.remove(name);
        }
    }

    /// How rings of a stream that become ready find their shard.
    pub fn reply_to(&self, shard: usize, life: u64) -> Arc<dyn Fn(TrackReady) + Send + Sync> {
        let mailbox = self.shards.mailbox(shard).clone();
        Arc::new(move |ready| {
            mailbox.post(Message::TrackReady(life, ready));
        })
    }

    fn judge_srt(&self, origin: usize, request: Box<AdmissionRequest>) {
        let name = srt_stream_name(&request);
        match self.admit(origin, &name, &request) {
            Ok((shard, admitted)) => {
                let (life, output, key, latency) = admitted;
                let mut key_seed = [0; 32];
                getrandom::fill(&mut key_seed).expect("the operating system has randomness");
                let source = AdmittedSource::Srt { request, key, origin, latency, key_seed };
                self.shards.mailbox(shard).post(Message::Admitted(Box::new(Admitted { name, life, output, source })));
            }
            Err(reason) => {
                let why = self.why_refused(&name, reason);
                tracing::warn!(stream = name, peer = %request.key.peer, "SRT caller refused: {reason}{why}");
                self.shards.mailbox(origin).post(Message::Refused(request, reason));
            }
        }
    }

    /// What the reject code says, in terms of the configuration.
    fn why_refused(&self, name: &str, reason: RejectReason) -> String {
        match reason {
            RejectReason::Overload => {
                format!(": ingestion.max_connections = {} is reached", self.config.ingestion.max_connections)
            }
            RejectReason::Forbidden => format!(": streams.{name}.source is another address"),
            RejectReason::Unsecure => ": a passphrase is set on one side only".to_owned(),
            RejectReason::BadMode => {
                ": it asks to be sent a stream (m=request), and none is served over SRT".to_owned()
            }
            _ => String::new(),
        }
    }

    #[expect(clippy::type_complexity, reason = "taken apart at once by its only caller")]
    fn admit(
        &self,
        origin: usize,
        name: &str,
        request: &AdmissionRequest,
    ) -> Result<(usize, (u64, Option<StreamOutput>, Option<KeyEncryptingKey>, Duration)), RejectReason> {
        if request.stream_id.mode() == Some(Mode::Request) {
            // Nothing is served over SRT here.
            return Err(RejectReason::BadMode);
        }
        let settings = self.config.streams.get(name);
        let source = settings.and_then(|stream| stream.source);
        if source.is_some_and(|source| source != request.key.peer.ip().to_canonical()) {
            return Err(RejectReason::Forbidden);
        }
        let srt = &self.config.ingestion.srt;
        let passphrase = settings.and_then(|stream| stream.passphrase.as_ref()).or(srt.passphrase.as_ref());
        let key = match (passphrase, &request.key_material) {
            (None, None) => None,
            (Some(passphrase), Some(material)) => {
                Some(derive_key_encrypting_key(passphrase.as_bytes(), material.salt(), material.key_length()))
            }
            (None, Some(_)) | (Some(_), None) => return Err(RejectReason::Unsecure),
        };
        if let (Some(key), Some(material)) = (&key, &request.key_material)
            && !material.is_wrapped_with(key)
        {
            // Judged here, so that no one who does not know the passphrase takes up a stream's place.
            return Err(RejectReason::BadSecret);
        }
        let limit = self.config.ingestion.max_connections;
        let (owner, output) =
            self.place(Placement::Fewest(origin), name, SourceKind::Srt, limit).map_err(|refusal| match refusal {
                Refused::Full => RejectReason::Overload,
                Refused::NoOutput(reason) => {
                    tracing::error!(stream = name, "no rings: {reason}");
                    RejectReason::NoRoom
                }
            })?;
        let latency = settings.and_then(|stream| stream.latency).unwrap_or(srt.latency);
        Ok((owner.shard, (owner.life, output, key, latency)))
    }

    fn judge_source(&self, shard: usize, key: SourceKey) {
        let name = self.source_name(key);
        match self.admit_named_source(shard, &name, key) {
            // The packets of a source come where the kernel steers them, so the stream has to come too, if its source is gone.
            Ok((owner, _)) if owner.shard != shard => {
                self.shards.mailbox(owner.shard).post(Message::Vacate(owner.life, key, shard));
            }
            Ok((owner, output)) => {
                let life = owner.life;
                let source = AdmittedSource::Source(key);
                self.shards.mailbox(shard).post(Message::Admitted(Box::new(Admitted { name, life, output, source })));
            }
            Err(refusal) => {
                tracing::warn!(stream = name, source = %key, "source refused: {refusal}");
                self.shards.mailbox(shard).post(Message::SourceRefused(key, REFUSED_FOR));
            }
        }
    }

    fn admit_named_source(
        &self,
        shard: usize,
        name: &str,
        key: SourceKey,
    ) -> Result<(Owner, Option<StreamOutput>), Refusal> {
        let expected = self.config.streams.get(name).and_then(|stream| stream.source);
        if let (Some(expected), Some(peer)) = (expected, key.peer())
            && expected != peer.ip().to_canonical()
        {
            return Err(Refusal::ForeignSource { name: name.to_owned() });
        }
        let limit = self.config.ingestion.rtp.max_sessions;
        self.place(Placement::Here(shard), name, SourceKind::Rtp, limit).map_err(|refusal| match refusal {
            Refused::Full => Refusal::Full { key: "ingestion.rtp.max_sessions", limit },
            Refused::NoOutput(reason) => Refusal::NoOutput { name: name.to_owned(), reason },
        })
    }

    /// The owner of a stream; a new stream goes where `placement` says, if there are fewer than `limit` of its kind.
    fn place(
        &self,
        placement: Placement,
        name: &str,
        kind: SourceKind,
        limit: u32,
    ) -> Result<(Owner, Option<StreamOutput>), Refused> {
        let mut streams = self.streams();
        if let Some(owner) = streams.owners.get(name) {
            return Ok((*owner, None));
        }
        if streams.owners.values().filter(|owner| owner.kind == kind).count() >= limit as usize {
            return Err(Refused::Full);
        }
        let output = self.directory.open_stream(name).map_err(|error| Refused::NoOutput(error.to_string()))?;
        let mut loads = vec![0_usize; self.shards.len()];
        for owner in streams.owners.values() {
            loads[owner.shard] += 1;
        }
        let shard = placement.choose(&loads);
        streams.lives += 1;
        let owner = Owner { shard, life: streams.lives, kind };
        streams.owners.insert(name.to_owned(), owner);
        Ok((owner, Some(output)))
    }

    /// The configured name of a source, or one made of what is known of it.
    fn source_name(&self, key: SourceKey) -> String {
        match key {
            SourceKey::Configured(index) => {
                self.config.streams.keys().nth(index).expect("sockets are made from the configuration").clone()
            }
            SourceKey::Rtp { ssrc, .. } => self
                .config
                .streams
                .iter()
                .find(|(_, stream)| stream.rtp.as_ref().is_some_and(|rtp| rtp.ssrc == Some(ssrc)))
                .map_or_else(|| format!("rtp-{ssrc:08x}"), |(name, _)| name.clone()),
            SourceKey::Raw { peer } => format!("ts-{}-{}", peer.ip().to_canonical(), peer.port()),
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a new stream goes.
#[derive(Clone, Copy, Debug)]
enum Placement {
    /// To the shard with the fewest streams, this one among equals: SRT packets are steered to wherever their socket is.
    Fewest(usize),
    /// To this shard: the kernel brings every packet of an RTP source to where the first came.
    Here(usize),
}

impl Placement {
    /// The shard, given how many streams each has.
    fn choose(self, loads: &[usize]) -> usize {
        match self {
            Self::Here(shard) => shard,
            Self::Fewest(preferred) => (0..loads.len())
                .min_by_key(|&shard| (loads[shard], shard != preferred))
                .expect("there is at least one shard"),
        }
    }
}

enum Refused {
    Full,
    NoOutput(String),
}

/// The name in the Stream ID, or one made of the caller's address.
fn srt_stream_name(request: &AdmissionRequest) -> String {
    match request.stream_id.resource() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => format!("srt-{}-{}", request.key.peer.ip().to_canonical(), request.key.peer.port()),
    }
}

/// A running encoder is never silent for so long: keep-alives come each second, media much oftener.
pub const SILENT: Duration = Duration::from_secs(1);

/// Whether a session may be taken over by a caller of the same name: it has been silent, or the caller is the same host and
/// (as it has come this far) knows the passphrase.
pub fn may_take_over(silence: Duration, old_peer: Option<SocketAddr>, new_peer: SocketAddr) -> bool {
    let host = |address: SocketAddr| -> IpAddr { address.ip().to_canonical() };
    silence >= SILENT || old_peer.is_none_or(|old| host(old) == host(new_peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_srt_stream_goes_to_the_shard_with_the_fewest_and_an_rtp_source_stays_where_its_packets_come() {
        assert_eq!(Placement::Fewest(1).choose(&[2, 3]), 0);
        assert_eq!(Placement::Fewest(1).choose(&[2, 2]), 1);
        assert_eq!(Placement::Here(1).choose(&[0, 3]), 1);
    }

    #[test]
    fn a_name_is_taken_over_from_the_silent_and_from_the_same_host_only() {
        let old: SocketAddr = "10.0.0.1:4000".parse().unwrap();
        let same_host: SocketAddr = "10.0.0.1:5000".parse().unwrap();
        let other: SocketAddr = "10.0.0.2:4000".parse().unwrap();
        assert!(may_take_over(Duration::ZERO, Some(old), same_host));
        assert!(!may_take_over(Duration::from_millis(999), Some(old), other));
        assert!(may_take_over(Duration::from_secs(1), Some(old), other));
        assert!(may_take_over(Duration::ZERO, None, other));
    }
}
