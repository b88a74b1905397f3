//! What was typed, made into what each thread is to do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::SendArguments;
use super::feed::Extent;
use super::material::{DATAGRAM_LEN, Material, MaterialError, Pace};
use super::recorder::Recorder;
use super::synthetic::{self, SyntheticError};
use super::target::{Carrier, Target, TargetError, numbered};
use super::worker::{FeedPlan, Plan, WorkerPlan};
use crate::cli::passphrase_file::{self, PassphraseError};
use crate::protocol::srt::caller::{CallerEncryption, CallerSettings};
use crate::protocol::srt::encryption::{Cipher, KeyLength, KeyRefresh, SALT_LEN, derive_key_encrypting_key};
use crate::protocol::srt::packet::SequenceNumber;
use crate::protocol::srt::stream_id::{StreamId, StreamIdError};
use crate::shard::net::outbound::OutboundSocket;

/// Rate of a feed that is made up, when none is asked for.
const SYNTHETIC_RATE_BPS: u64 = 8_000_000;

/// Why what was typed makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Where to.
    #[error("--to {0}")]
    Target(#[from] TargetError),
    /// What.
    #[error("--file {0}")]
    Material(#[from] MaterialError),
    /// What is to be made up cannot be.
    #[error(transparent)]
    Synthetic(#[from] SyntheticError),
    /// A stream id that no listener would take.
    #[error("streamid: {0}")]
    StreamId(#[from] StreamIdError),
    /// No passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// Neither 16, 24 nor 32 bytes.
    #[error("pbkeylen is {0}, not 16, 24 or 32")]
    KeyLength(usize),
    /// 16 bits of milliseconds.
    #[error("a latency of {0:?} is more than the 65 s that SRT can ask for")]
    Latency(Duration),
    /// SRT has what the others do not.
    #[error("{0} is for srt:// only")]
    SrtOnly(&'static str),
    /// RTP has what the others do not.
    #[error("--ssrc is for rtp:// only")]
    RtpOnly,
    /// Beyond 65535.
    #[error("--ports-step leads beyond port 65535")]
    Ports,
    /// Several feeds to one port, and nothing to tell them apart by.
    #[error("several feeds of bare UDP need --ports-step, or nobody can tell them apart")]
    Indistinguishable,
    /// Nothing would be judged.
    #[error("--settle has to be shorter than --duration")]
    Settle,
    /// The system has no randomness.
    #[error("no randomness: {0}")]
    Randomness(getrandom::Error),
    /// The record cannot be made.
    #[error("--record {path}: {error}")]
    Record {
        /// Where.
        path: std::path::PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// Makes the plans of all threads.
///
/// # Errors
/// [`PlanError`].
pub fn plan(arguments: &SendArguments) -> Result<Vec<WorkerPlan>, PlanError> {
    let mut target = Target::parse(&arguments.to)?;
    check(arguments, &target)?;
    if let Some(passphrase) = arguments.passphrase_file.read()? {
        if target.passphrase.is_some() {
            return Err(PassphraseError::Twice.into());
        }
        target.passphrase = Some(passphrase);
    }
    let material = Arc::new(material(arguments)?);
    let feeds = arguments.feeds as usize;
    let recorder = arguments
        .record
        .as_ref()
        .map(|path| Recorder::create(path).map_err(|error| PlanError::Record { path: path.clone(), error }));
    let mut recorder = recorder.transpose()?;
    let cores: Vec<Option<usize>> = match arguments.cores.as_slice() {
        [] => vec![None],
        cores => cores.iter().copied().map(Some).collect(),
    };
    let threads = cores.len().min(feeds);
    let interval = DATAGRAM_LEN as f64 * 8.0 / material.rate_bps() / feeds as f64;
    let mut plans = Vec::with_capacity(threads);
    for (number, core) in cores.into_iter().take(threads).enumerate() {
        // Neighbouring feeds go to different threads, which are then equally loaded.
        let own = (number..feeds).step_by(threads);
        plans.push(WorkerPlan {
            core,
            feeds: own.map(|feed| feed_plan(arguments, &target, feed)).collect::<Result<_, _>>()?,
            material: Arc::clone(&material),
            extent: extent(arguments),
            window: arguments.window,
            settle: arguments.settle,
            aggregate: arguments.gso as usize,
            conditions: arguments.impairment.conditions(),
            seed: arguments.impairment.seed.wrapping_add((number << 32) as u64),
            recorder: recorder.take(),
            phase: Duration::from_secs_f64(interval * number as f64),
        });
    }
    Ok(plans)
}

fn check(arguments: &SendArguments, target: &Target) -> Result<(), PlanError> {
    if target.carrier != Carrier::Srt {
        let given = [
            (arguments.passphrase.is_some(), "--passphrase"),
            (arguments.passphrase_file.passphrase_file.is_some(), "--passphrase-file"),
            (arguments.key_length.is_some(), "--key-length"),
            (arguments.crypto_mode.is_some(), "--crypto-mode"),
            (arguments.latency.is_some(), "--latency"),
            (arguments.packetfilter.is_some(), "--packetfilter"),
        ];
        if let Some((_, name)) = given.iter().find(|(given, _)| *given) {
            return Err(PlanError::SrtOnly(name));
        }
    }
    if arguments.ssrc.is_some() && target.carrier != Carrier::Rtp {
        return Err(PlanError::RtpOnly);
    }
    if target.carrier == Carrier::Udp && arguments.feeds > 1 && arguments.ports_step == 0 {
        return Err(PlanError::Indistinguishable);
    }
    if arguments.duration.is_some_and(|duration| arguments.settle >= duration) {
        return Err(PlanError::Settle);
    }
    Ok(())
}

fn material(arguments: &SendArguments) -> Result<Material, PlanError> {
    let Some(path) = &arguments.file else {
        return Ok(synthetic::material(arguments.rate.unwrap_or(SYNTHETIC_RATE_BPS))?);
    };
    Ok(Material::read(path, arguments.rate.map_or(Pace::Clock, Pace::Rate))?)
}

fn extent(arguments: &SendArguments) -> Extent {
    let rounds = match (arguments.loops, arguments.duration, &arguments.file) {
        (Some(0), _, _) => None,
        (Some(loops), _, _) => Some(loops),
        (None, None, Some(_)) => Some(1),
        (None, _, _) => None,
    };
    Extent { duration: arguments.duration, rounds }
}

fn feed_plan(arguments: &SendArguments, target: &Target, feed: usize) -> Result<FeedPlan, PlanError> {
    let step = usize::from(arguments.ports_step) * feed;
    let port = u16::try_from(usize::from(target.address.port()) + step).map_err(|_| PlanError::Ports)?;
    let peer = SocketAddr::new(target.address.ip(), port);
    let socket = OutboundSocket {
        interface: arguments.interface.clone().or_else(|| target.interface.clone()),
        ttl: arguments.ttl.or(target.ttl),
        traffic_class: arguments.traffic_class.or(target.traffic_class),
        ..OutboundSocket::to(peer)
    };
    let (name, carriage) = match target.carrier {
        Carrier::Srt => {
            let settings = srt(arguments, target, peer, feed)?;
            let name = settings.stream_id.resource().map_or_else(|| format!("{peer} feed {feed}"), str::to_owned);
            (name, Plan::Srt(Box::new(settings)))
        }
        Carrier::Rtp => {
            let ssrc = match arguments.ssrc {
                Some(first) => first.wrapping_add(feed as u32),
                None => random_u32()?,
            };
            (format!("{peer} ssrc {ssrc:08x}"), Plan::Rtp(ssrc))
        }
        Carrier::Udp => (peer.to_string(), Plan::Udp),
    };
    Ok(FeedPlan { name, socket, carriage })
}

fn srt(arguments: &SendArguments, target: &Target, peer: SocketAddr, feed: usize) -> Result<CallerSettings, PlanError> {
    // 1 to 2^30 - 1.
    let socket_id = (random_u32()? & ((1 << 30) - 1)).max(1);
    let initial_sequence = SequenceNumber::new(u64::from(random_u32()?));
    let latency = arguments.latency.or(target.latency).unwrap_or(Duration::from_millis(120));
    let latency_ms = u16::try_from(latency.as_millis()).map_err(|_| PlanError::Latency(latency))?;
    let stream_id = numbered(target.stream_id.as_deref().unwrap_or_default(), feed, arguments.feeds as usize);
    Ok(CallerSettings {
        stream_id: StreamId::for_call(&stream_id)?,
        send_latency_ms: latency_ms,
        receive_latency_ms: latency_ms,
        encryption: encryption(arguments, target)?,
        packet_filter: arguments.packetfilter.or(target.packet_filter),
        timeout: arguments.connect_timeout,
        ..CallerSettings::new(peer, socket_id, initial_sequence)
    })
}

fn encryption(arguments: &SendArguments, target: &Target) -> Result<Option<CallerEncryption>, PlanError> {
    let Some(passphrase) = arguments.passphrase.as_ref().or(target.passphrase.as_ref()) else { return Ok(None) };
    passphrase_file::judge(passphrase)?;
    let bits = arguments.key_length.as_ref().and_then(|bits| bits.parse::<usize>().ok());
    let bytes = bits.map(|bits| bits / 8).or(target.key_length).unwrap_or(16);
    let length = KeyLength::from_bytes(bytes).ok_or(PlanError::KeyLength(bytes))?;
    let cipher = match arguments.crypto_mode.as_deref() {
        Some("gcm") => Cipher::AesGcm,
        Some(_) => Cipher::AesCtr,
        None => target.cipher.unwrap_or_default(),
    };
    let (mut salt, mut key_seed) = ([0; SALT_LEN], [0; 32]);
    getrandom::fill(&mut salt).map_err(PlanError::Randomness)?;
    getrandom::fill(&mut key_seed).map_err(PlanError::Randomness)?;
    Ok(Some(CallerEncryption {
        key_encrypting_key: derive_key_encrypting_key(passphrase.as_bytes(), &salt, length),
        cipher,
        salt,
        key_seed,
        key_refresh: KeyRefresh::default(),
    }))
}

fn random_u32() -> Result<u32, PlanError> {
    getrandom::u32().map_err(PlanError::Randomness)
}
