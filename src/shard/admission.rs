//! Who is let in, as which stream, on which shard. Judged on the housekeeping thread, where files may be touched and keys
//! derived; the shard whose door a stranger stands at only carries the question there and the answer back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::access::{self, Credentials, Denial};
use super::clock::Clock;
use super::derivations::Derivations;
use super::mailbox::{Message, Shards};
use super::packet_filters::PacketFilters;
use super::places::{Owner, Places, SourceKind, Verdict};
use super::strangers::{REFUSED_FOR, SourceKey};
use crate::base::{Allowance, SourcePrefix};
use crate::config::Config;
use crate::output::directory::{RingDirectory, StreamOutput};
use crate::output::{Housekeeping, StreamRings, TrackReady};
use crate::protocol::srt::encryption::{Cipher, KeyEncryptingKey, KeyMaterial};
use crate::protocol::srt::fec::configuration::FilterConfiguration;
use crate::protocol::srt::handshake::RejectReason;
use crate::protocol::srt::listener::AdmissionRequest;
use crate::protocol::srt::stream_id::StreamId;

/// A source that was let in, sent to the shard that owns its stream.
pub struct Admitted {
    /// The stream's name.
    pub name: String,
    /// Which life of the stream: a name that comes back after its stream has ended gets another.
    pub life: u64,
    /// Which answer this is; the desk is to be told when the session has ended that it leads to.
    pub admission: u64,
    /// What the stream needs to be written; `None` when its owner has it already.
    pub output: Option<Box<StreamOutput>>,
    /// Who was let in.
    pub source: AdmittedSource,
}

/// The key that a session of version 4 of the handshake wants.
pub struct WantedKey {
    /// The stream's name.
    pub stream: String,
    /// Which life of it.
    pub life: u64,
    /// The session.
    pub socket_id: u32,
    /// Who it is with.
    pub peer: SocketAddr,
    /// What the key has wrapped.
    pub material: KeyMaterial,
}

/// Who was let in.
pub enum AdmittedSource {
    /// An SRT caller, to be answered by the owner.
    Srt {
        /// Its conclusion.
        request: Box<AdmissionRequest>,
        /// What there is to know, and whether the caller knows it.
        secrecy: Secrecy,
        /// The shard that got the conclusion.
        origin: usize,
        /// The least latency of the stream.
        latency: Duration,
        /// The packet filter to insist on.
        packet_filter: Option<FilterConfiguration>,
        /// Randomness for keys of our own.
        key_seed: [u8; 32],
    },
    /// A source of RTP or raw transport packets.
    Source(SourceKey),
}

/// What a caller has to know, and whether it has shown that it does.
#[derive(Clone, Debug)]
pub struct Secrecy {
    /// Whether there is a passphrase.
    pub has_passphrase: bool,
    /// Its key, if the caller brought key material.
    pub key: Option<KeyEncryptingKey>,
    /// Whether the caller knows the passphrase; so it does if there is none.
    pub is_proven: bool,
    /// Whether it is refused if it does not.
    pub is_enforced: bool,
}

/// Who waits for a stream to end, to be judged again then.
pub enum Newcomer {
    /// An SRT caller, and the shard that got its conclusion.
    Srt(usize, Box<AdmissionRequest>),
    /// A source of RTP or raw transport packets, and the shard that they come to.
    Source(usize, SourceKey),
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
    #[error("{0}")]
    ForeignSource(String),
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
    packet_filters: PacketFilters,
    shards: Shards,
    directory: Arc<RingDirectory>,
    housekeeping: Housekeeping,
    /// Locked on the housekeeping thread alone.
    places: Mutex<Places>,
    /// For the log: who is refused can come again at once, and as anybody. The same thread's.
    refusals: Mutex<Allowance>,
    /// The same thread's.
    derivations: Mutex<Derivations>,
}

/// Why a source is refused for which the desk has no time.
pub const OVERRUN: &str = "housekeeping is overrun";

/// What became of a newcomer that may come in.
enum Placed {
    /// It has a place; with what a new stream needs to be written.
    At(Owner, Option<Box<StreamOutput>>),
    /// Its stream is on another shard than its packets.
    Elsewhere(Owner),
    /// This stream has to end first.
    After(Owner),
}

impl Desk {
    /// A desk that knows no stream yet.
    pub fn new(
        config: Arc<Config>,
        packet_filters: PacketFilters,
        shards: Shards,
        directory: Arc<RingDirectory>,
        housekeeping: Housekeeping,
    ) -> Arc<Self> {
        let refusals = Mutex::new(Allowance::new(Clock::now()));
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).expect("the operating system has randomness");
        let derivations = Mutex::new(Derivations::new(&config.ingestion.srt.access, secret));
        let places = Mutex::default();
        Arc::new(Self { config, packet_filters, shards, directory, housekeeping, places, refusals, derivations })
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
    ///
    /// # Errors
    /// [`RejectReason::Backlog`] when the desk is overrun.
    pub fn admit_srt(self: &Arc<Self>, origin: usize, request: Box<AdmissionRequest>) -> Result<(), RejectReason> {
        let desk = Arc::clone(self);
        let submitted = self.housekeeping.submit(Box::new(move || desk.judge_srt(origin, request)));
        submitted.map_err(|_| RejectReason::Backlog)
    }

    /// The peer of a stream's session is at this source now: it was let in, or another took the stream over.
    pub fn session_began(self: &Arc<Self>, name: String, life: u64, source: SourcePrefix) {
        let desk = Arc::clone(self);
        // When the desk is overrun the session counts for the source that it was let in for.
        let _ = self.housekeeping.submit(Box::new(move || desk.places().set_source(&name, life, source)));
    }

    /// Carries a source that has proved itself to the desk.
    pub fn admit_source(self: &Arc<Self>, shard: usize, key: SourceKey) {
        let desk = Arc::clone(self);
        let submitted = self.housekeeping.submit(Box::new(move || desk.judge_source(shard, key)));
        if submitted.is_err() {
            self.shards.mailbox(shard).post(Message::SourceRefused(key, REFUSED_FOR, OVERRUN.to_owned()));
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
        if self.places().forget(name, life) {
            // Its rings may have been dropped where nobody could say so.
            self.directory.stream_ended(name);
        }
    }

    /// A stream that was let in by `admission`, or by an answer before it, has no session any more: its place is given up if
    /// another needs it.
    ///
    /// `false` when the desk is overrun: tell it again later.
    pub fn session_ended(self: &Arc<Self>, name: String, life: u64, admission: u64) -> bool {
        let desk = Arc::clone(self);
        let job = Box::new(move || desk.places().session_ended(&name, life, admission));
        self.housekeeping.submit(job).is_ok()
    }

    /// The owner has ended a stream, by name and life, to make way for a newcomer, who is judged again; `None` if it had ended
    /// before.
    ///
    /// `false` when the desk is overrun: the newcomer has to ask again, and the end is to be told again.
    pub fn made_way(self: &Arc<Self>, ended: Option<(String, u64)>, newcomer: Newcomer) -> bool {
        let desk = Arc::clone(self);
        let source = newcomer.source();
        let submitted = self.housekeeping.submit(Box::new(move || {
            if let Some((name, life)) = ended {
                desk.forget(&name, life);
            }
            match newcomer {
                Newcomer::Srt(origin, request) => desk.judge_srt(origin, request),
                Newcomer::Source(shard, key) => desk.judge_source(shard, key),
            }
        }));
        if submitted.is_err() {
            self.turn_away(source);
        }
        submitted.is_ok()
    }

    /// Asks the owner of a stream to end it for a newcomer.
    fn evict(&self, owner: Owner, newcomer: Newcomer) {
        let source = newcomer.source();
        if !self.shards.mailbox(owner.shard).post(Message::Evict(owner.life, newcomer)) {
            self.turn_away(source);
        }
    }

    /// What could not be judged now asks again: a caller by itself when it hears nothing, a source when it is told.
    fn turn_away(&self, source: Option<(usize, SourceKey)>) {
        if let Some((shard, key)) = source {
            self.shards.mailbox(shard).post(Message::SourceRefused(key, REFUSED_FOR, OVERRUN.to_owned()));
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
        let name = access::stream_name(&request);
        let credentials = access::credentials(&self.config, &name, &request.stream_id);
        match self.admit_caller(origin, &name, &request, credentials) {
            Ok((Placed::At(owner, output), secrecy)) => {
                let Owner { life, admission, .. } = owner;
                let settings = self.config.streams.get(&name);
                let latency = settings.and_then(|it| it.latency).unwrap_or(self.config.ingestion.srt.latency);
                let mut key_seed = [0; 32];
                getrandom::fill(&mut key_seed).expect("the operating system has randomness");
                let packet_filter = self.packet_filters.of(&name);
                let source = AdmittedSource::Srt { request, secrecy, origin, latency, packet_filter, key_seed };
                let admitted = Box::new(Admitted { name, life, admission, output, source });
                self.shards.mailbox(owner.shard).post(Message::Admitted(admitted));
            }
            Ok((Placed::After(owner), _)) => self.evict(owner, Newcomer::Srt(origin, request)),
            Ok((Placed::Elsewhere(_), _)) => unreachable!("an SRT caller is bound to no shard"),
            Err(denial) => {
                self.shards.mailbox(origin).post(Message::Refused(request, denial));
            }
        }
    }

    /// A place for a caller that [`access::judge`] has nothing against.
    fn admit_caller(
        &self,
        origin: usize,
        name: &str,
        request: &AdmissionRequest,
        credentials: Credentials<'_>,
    ) -> Result<(Placed, Secrecy), Denial> {
        let source = SourcePrefix::of(request.key.peer.ip());
        let most = self.config.ingestion.srt.access.max_per_source;
        if most > 0 && self.places().sessions_from(source, name) >= most as usize {
            let why = format!("ingestion.srt.access.max_per_source = {most} is reached");
            return Err(Denial::new(RejectReason::Overload, why));
        }
        let secrecy = self.judge_passphrase(source, name, request, credentials)?;
        access::judge_filter(request, self.packet_filters.of(name).as_ref())?;
        let was_live = self.places().is_live(name);
        let limit = self.config.ingestion.max_connections;
        match self.place(Placement::Fewest(origin), name, SourceKind::Srt, limit) {
            Ok(placed) => {
                // Whether it gets a stream that somebody else sends, its shard has to say.
                if let (Placed::At(owner, _), false) = (&placed, was_live) {
                    self.places().set_source(name, owner.life, source);
                }
                Ok((placed, secrecy))
            }
            Err(Refused::Full) => {
                let why = format!("ingestion.max_connections = {limit} is reached");
                Err(Denial::new(RejectReason::Overload, why))
            }
            Err(Refused::NoOutput(why)) => Err(Denial::new(RejectReason::NoRoom, why)),
        }
    }

    /// Derives the key that a peer of version 4 of the handshake has brought the salt for; it comes to the shard's mailbox. What is not derived
    /// now is asked for again.
    pub fn derive_key(self: &Arc<Self>, shard: usize, wanted: WantedKey) {
        let desk = Arc::clone(self);
        let _ = self.housekeeping.submit(Box::new(move || {
            let WantedKey { stream, life, socket_id, peer, material } = wanted;
            let credentials = access::credentials(&desk.config, &stream, &StreamId::default());
            let Some(passphrase) = credentials.passphrase.filter(|_| credentials.takes(material.cipher())) else {
                return;
            };
            let source = SourcePrefix::of(peer.ip());
            let mut derivations = desk.derivations.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(key) = derivations.derive(Clock::now(), source, passphrase, &material) {
                if material.is_wrapped_with(&key) {
                    derivations.proves(source);
                }
                desk.shards.mailbox(shard).post(Message::KeyDerived(life, socket_id, key));
            }
        }));
    }

    /// Whether the caller knows the passphrase that there is. Judged here, so that no one who does not takes up a stream's place.
    fn judge_passphrase(
        &self,
        source: SourcePrefix,
        name: &str,
        request: &AdmissionRequest,
        credentials: Credentials<'_>,
    ) -> Result<Secrecy, Denial> {
        let whose = || access::passphrase_key(&self.config, name, &request.stream_id);
        let is_enforced = credentials.enforced_encryption;
        let mut secrecy =
            Secrecy { has_passphrase: credentials.passphrase.is_some(), key: None, is_proven: true, is_enforced };
        match (credentials.passphrase, &request.key_material) {
            (None, None) => {}
            (Some(_), Some(material)) if !credentials.takes(material.cipher()) => {
                let (its, wanted) = match material.cipher() {
                    Cipher::AesCtr => ("AES-CTR", "gcm"),
                    Cipher::AesGcm => ("AES-GCM", "ctr"),
                };
                let why = format!("it encrypts with {its}, and crypto_mode is {wanted}");
                return Err(Denial::new(RejectReason::Crypto, why));
            }
            (Some(passphrase), Some(material)) => {
                let mut derivations = self.derivations.lock().unwrap_or_else(PoisonError::into_inner);
                let key = derivations
                    .derive(Clock::now(), source, passphrase, material)
                    .map_err(|too_many| Denial::new(RejectReason::Overload, too_many.to_string()))?;
                secrecy.is_proven = material.is_wrapped_with(&key);
                if secrecy.is_proven {
                    derivations.proves(source);
                } else if is_enforced {
                    return Err(Denial::new(
                        RejectReason::BadSecret,
                        format!("its passphrase is not that of {}", whose()),
                    ));
                }
                secrecy.key = Some(key);
            }
            // It brings its key when it is in.
            (Some(_), None) if request.is_version4 => secrecy.is_proven = false,
            (None, Some(_)) if is_enforced => {
                let why = format!("it has a passphrase, and there is none here: set {}, or take its own out", whose());
                return Err(Denial::new(RejectReason::Unsecure, why));
            }
            (Some(_), None) if is_enforced => {
                return Err(Denial::new(
                    RejectReason::Unsecure,
                    format!("it has no passphrase, and there is {}", whose()),
                ));
            }
            (None, Some(_)) => {}
            (Some(_), None) => secrecy.is_proven = false,
        }
        Ok(secrecy)
    }

    fn log_refusal(&self, stream: &str, line: &str) {
        let allowance = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).take(Clock::now());
        match allowance {
            None => {}
            Some(0) => tracing::warn!(stream, "{line}"),
            Some(withheld) => tracing::warn!(stream, "{line} ({withheld} refusals before this one are not in the log)"),
        }
    }

    fn judge_source(&self, shard: usize, key: SourceKey) {
        let name = self.source_name(key);
        match self.admit_named_source(shard, &name, key) {
            // The packets of a source come where the kernel steers them, so the stream has to come too, if its source is gone.
            Ok(Placed::Elsewhere(owner)) => {
                self.shards.mailbox(owner.shard).post(Message::Vacate(owner.life, key, shard));
            }
            Ok(Placed::At(owner, output)) => {
                let Owner { life, admission, .. } = owner;
                let source = AdmittedSource::Source(key);
                let admitted = Box::new(Admitted { name, life, admission, output, source });
                self.shards.mailbox(shard).post(Message::Admitted(admitted));
            }
            Ok(Placed::After(owner)) => self.evict(owner, Newcomer::Source(shard, key)),
            Err(refusal) => {
                let why = refusal.to_string();
                // A call tells of its failure itself.
                if !matches!(key, SourceKey::Called(_)) {
                    self.log_refusal(&name, &format!("source refused: {why} (from {key})"));
                }
                self.shards.mailbox(shard).post(Message::SourceRefused(key, REFUSED_FOR, why));
            }
        }
    }

    fn admit_named_source(&self, shard: usize, name: &str, key: SourceKey) -> Result<Placed, Refusal> {
        if let Some(why) = key.peer().and_then(|peer| access::against_address(&self.config, name, peer.ip())) {
            return Err(Refusal::ForeignSource(why));
        }
        let ingestion = &self.config.ingestion;
        let (kind, limit, limit_key) = match key {
            SourceKey::Called(_) => (SourceKind::Srt, ingestion.max_connections, "ingestion.max_connections"),
            _ => (SourceKind::Rtp, ingestion.rtp.max_sessions, "ingestion.rtp.max_sessions"),
        };
        self.place(Placement::Here(shard), name, kind, limit).map_err(|refusal| match refusal {
            Refused::Full => Refusal::Full { key: limit_key, limit },
            Refused::NoOutput(reason) => Refusal::NoOutput { name: name.to_owned(), reason },
        })
    }

    /// The place of a newcomer; a new stream goes where `placement` says, if there are fewer than `limit` of its kind.
    fn place(&self, placement: Placement, name: &str, kind: SourceKind, limit: u32) -> Result<Placed, Refused> {
        let mut places = self.places();
        match places.judge(name, kind, limit, placement.bound_to()) {
            Verdict::Known => return Ok(Placed::At(places.attach(name, kind), None)),
            Verdict::Elsewhere(owner) => return Ok(Placed::Elsewhere(owner)),
            Verdict::After(owner) => return Ok(Placed::After(owner)),
            Verdict::Full => return Err(Refused::Full),
            Verdict::New => {}
        }
        let now = Clock::now();
        let turns = |shard| !self.shards.mailbox(shard).stands_still(now);
        let shard = placement.choose(&places.loads(self.shards.len()), turns);
        match self.directory.open_stream(name, shard) {
            Ok(output) => Ok(Placed::At(places.insert(name, kind, shard), Some(Box::new(output)))),
            Err(error) => {
                // Streams without a session give their memory up, one after the other, if that is enough.
                let helps = error.missing().is_some_and(|missing| self.directory.held_by(places.idle()) >= missing);
                let leaving = if helps { places.evict_oldest(None) } else { None };
                leaving.map(Placed::After).ok_or_else(|| Refused::NoOutput(error.to_string()))
            }
        }
    }

    /// The configured name of a source, or one made of what is known of it.
    fn source_name(&self, key: SourceKey) -> String {
        match key {
            SourceKey::Configured(index) | SourceKey::Called(index) => {
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

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a new stream goes.
#[derive(Clone, Copy, Debug)]
enum Placement {
    /// To the shard with the fewest streams of those that turn, this one among equals: SRT packets are steered to wherever their socket is.
    Fewest(usize),
    /// To this shard: the kernel brings every packet of an RTP source to where the first came.
    Here(usize),
}

impl Placement {
    /// The only shard that will do.
    fn bound_to(self) -> Option<usize> {
        match self {
            Self::Here(shard) => Some(shard),
            Self::Fewest(_) => None,
        }
    }

    /// The shard, given how many streams each has, and whether it turns: where none does, all are as good.
    fn choose(self, loads: &[usize], turns: impl Fn(usize) -> bool) -> usize {
        match self {
            Self::Here(shard) => shard,
            Self::Fewest(preferred) => (0..loads.len())
                .min_by_key(|&shard| (!turns(shard), loads[shard], shard != preferred))
                .expect("there is at least one shard"),
        }
    }
}

enum Refused {
    Full,
    NoOutput(String),
}

impl Newcomer {
    /// Who is to be told when it cannot be judged.
    fn source(&self) -> Option<(usize, SourceKey)> {
        match self {
            Self::Srt(..) => None,
            Self::Source(shard, key) => Some((*shard, *key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::output::{OutputOptions, Waker};

    #[test]
    fn an_srt_stream_goes_to_the_shard_with_the_fewest_and_an_rtp_source_stays_where_its_packets_come() {
        assert_eq!(Placement::Fewest(1).choose(&[2, 3], |_| true), 0);
        assert_eq!(Placement::Fewest(1).choose(&[2, 2], |_| true), 1);
        assert_eq!(Placement::Here(1).choose(&[0, 3], |_| true), 1);
    }

    #[test]
    fn an_srt_stream_is_not_given_to_a_shard_that_stands_still() {
        assert_eq!(Placement::Fewest(0).choose(&[0, 3, 2], |shard| shard != 0), 2);
        assert_eq!(Placement::Fewest(0).choose(&[1, 0], |_| false), 1, "none turns");
        assert_eq!(Placement::Here(0).choose(&[0, 0], |shard| shard != 0), 0, "its packets come nowhere else");
        let mailbox = crate::shard::mailbox::Mailbox::new();
        let at = |ms| crate::base::Instant::from_millis(ms);
        assert!(!mailbox.stands_still(at(5_000)), "it has not begun");
        mailbox.turned(1, at(5_000));
        assert_eq!([at(5_299), at(5_300)].map(|now| mailbox.stands_still(now)), [false, true]);
        mailbox.turned(2, at(5_300));
        assert!(!mailbox.stands_still(at(5_301)));
    }

    /// A desk whose shards are mailboxes that the test reads, and room for the rings of so many streams.
    struct Bench {
        desk: Arc<Desk>,
        shards: Shards,
        _root: tempfile::TempDir,
    }

    impl Bench {
        fn new(max_sessions: u32, streams: u64) -> Self {
            let root = tempfile::tempdir_in("/dev/shm").unwrap();
            let mut config = Config::default();
            config.output.root = root.path().to_owned();
            config.ingestion.rtp.max_sessions = max_sessions;
            config.ingestion.frame.max_frame_size = 65_536;
            config.ingestion.srt.max_bandwidth = 1_000_000;
            let mut options = OutputOptions::from_config(&config);
            options.memory_limit = streams * options.planned_stream_size();
            let directory = Arc::new(RingDirectory::prepare(options, vec![Waker::start("test-waker").0]).unwrap());
            let (housekeeping, _) = Housekeeping::start("test-house", || {});
            let shards = Shards::new(2);
            let desk = Desk::new(Arc::new(config), PacketFilters::default(), shards.clone(), directory, housekeeping);
            Self { desk, shards, _root: root }
        }

        /// A source that has proved itself on a shard.
        fn ask(&self, shard: usize, port: u16) {
            self.desk.judge_source(shard, source(port));
        }

        /// Name, life and admission of who was let in on a shard; what the stream needs to be written is let go of.
        fn admitted(&self, shard: usize) -> (String, u64, u64) {
            match self.shards.mailbox(shard).take() {
                Some(Message::Admitted(admitted)) => (admitted.name, admitted.life, admitted.admission),
                _ => panic!("nobody was let in"),
            }
        }

        fn is_refused(&self, shard: usize, port: u16) -> bool {
            matches!(self.shards.mailbox(shard).take(), Some(Message::SourceRefused(key, ..)) if key == source(port))
        }
    }

    fn source(port: u16) -> SourceKey {
        SourceKey::Raw { peer: SocketAddr::from(([10, 0, 0, 1], port)) }
    }

    /// An encoder that has another name each time finds a place as long as few have a session, and the stream that makes way
    /// for it is ended by the shard that owns it before the newcomer is let in.
    fn reconnects_with_fresh_names(bench: &Bench, most: u16) {
        for port in 0..most {
            bench.ask(0, port);
        }
        let admitted: Vec<_> = (0..most).map(|_| bench.admitted(0)).collect();
        bench.ask(1, 100);
        assert!(bench.is_refused(1, 100), "as many have a session as may be");
        for (name, life, admission) in &admitted {
            bench.desk.places().session_ended(name, *life, *admission);
        }
        for (port, (name, life, _)) in (200..).zip(&admitted) {
            bench.ask(1, port);
            let Some(Message::Evict(leaving, newcomer)) = bench.shards.mailbox(0).take() else {
                panic!("one makes way")
            };
            assert_eq!(leaving, *life, "the one that lost its session first");
            bench.desk.forget(name, *life);
            let Newcomer::Source(shard, key) = newcomer else { panic!("it was a source") };
            bench.desk.judge_source(shard, key);
            assert_eq!(bench.admitted(1).0, format!("ts-10.0.0.1-{port}"));
        }
        bench.ask(1, 300);
        assert!(bench.is_refused(1, 300), "as many have a session as may be");
    }

    #[test]
    fn who_is_refused_is_told_by_which_key() {
        let bench = Bench::new(1, 100);
        bench.ask(0, 1);
        bench.admitted(0);
        bench.ask(1, 2);
        let Some(Message::SourceRefused(key, _, why)) = bench.shards.mailbox(1).take() else { panic!("refused") };
        assert_eq!((key, why.as_str()), (source(2), "ingestion.rtp.max_sessions = 1 is reached"));
    }

    #[test]
    fn a_stream_without_a_session_makes_way_when_its_place_is_needed() {
        reconnects_with_fresh_names(&Bench::new(3, 100), 3);
    }

    #[test]
    fn a_stream_without_a_session_makes_way_when_its_memory_is_needed() {
        reconnects_with_fresh_names(&Bench::new(30, 3), 3);
    }

    #[test]
    fn a_source_for_whose_rings_no_memory_can_be_had_is_refused() {
        let bench = Bench::new(30, 1);
        let _kept = bench.desk.directory().open_stream("kept", 0).unwrap();
        bench.ask(0, 1);
        assert!(bench.is_refused(0, 1));
    }
}
