//! The streams of a shard that are fetched: each calls its peer, as SRT caller or in rendezvous, until it has a session, and again when
//! that is over. The loop in `turn/calling.rs` drives them; what may block is in `terms.rs`.

pub mod terms;

use std::time::Duration;

use self::terms::CallTerms;
use crate::base::{Allowance, Instant, Transmit};
use crate::config::{Config, PullMode, stream_key};
use crate::pipeline::breaker::{Breaker, Circuit, Failure};
use crate::protocol::srt::caller::{self, CallError, Caller, CallerSettings};
use crate::protocol::srt::encryption::KeyMaterial;
use crate::protocol::srt::handshake::RejectReason;
use crate::protocol::srt::packet::SequenceNumber;
use crate::protocol::srt::parameters::{ConnectionParameters, Role};
use crate::protocol::srt::rendezvous::{self, Rendezvous, RendezvousSettings};

/// A stream that is fetched.
pub struct Call {
    /// Its place in the configuration.
    pub stream: usize,
    /// Its name.
    pub name: String,
    /// When it is tried again.
    pub breaker: Breaker,
    /// How far the present attempt has come.
    pub stage: Stage,
    mode: PullMode,
    target: String,
    has_passphrase: bool,
    began: Instant,
    last_error: Option<String>,
    told: Allowance,
    /// A Stream ID is configured, and nobody has been told yet that it does not reach the peer.
    has_untold_stream_id: bool,
}

/// How far an attempt has come.
pub enum Stage {
    /// None is made.
    Waiting,
    /// Its peer is looked up, and its keys are made.
    Preparing {
        /// Since when.
        since: Instant,
    },
    /// The handshake is under way.
    Calling(Machine),
    /// There is a session; in rendezvous with what agrees again when the peer has not heard it.
    Connected(Option<Box<Rendezvous>>),
}

/// Who shakes hands.
pub enum Machine {
    /// With a listener.
    Caller(Box<Caller>),
    /// With somebody who calls us.
    Rendezvous(Box<Rendezvous>),
}

/// What a handshake leads to.
pub enum Outcome {
    /// The peer's key is to be unlocked first.
    KeyWanted(Box<KeyMaterial>),
    /// A connection.
    Connected(Box<ConnectionParameters>),
    /// Nothing.
    Failed(CallError),
}

/// What is settled on the shard for an attempt.
pub struct Share {
    /// Our socket id.
    pub socket_id: u32,
    /// Least latency that we receive with.
    pub latency: Duration,
    /// Most latency that there is memory for.
    pub latency_max: Duration,
    /// Packets in flight that the peer is told it may have.
    pub flow_window: u32,
}

impl Call {
    /// The streams among `streams`, by their places in the configuration, that are fetched; their first attempts are due.
    pub fn all(now: Instant, config: &Config, streams: impl Iterator<Item = usize>) -> Vec<Self> {
        let ingestion = &config.ingestion;
        let call = |stream| {
            let (name, settings) = config.streams.iter().nth(stream)?;
            let srt = settings.srt.as_ref()?;
            Some(Self {
                stream,
                name: name.clone(),
                breaker: Breaker::new(now, ingestion.reconnect_interval, ingestion.reconnect_interval_max),
                stage: Stage::Waiting,
                mode: srt.mode,
                target: srt.address.clone(),
                has_passphrase: settings.pull_passphrase().is_some(),
                began: now,
                last_error: None,
                told: Allowance::new(now),
                has_untold_stream_id: srt.stream_id.as_ref().is_some_and(|it| !it.is_empty()),
            })
        };
        streams.filter_map(call).collect()
    }

    /// An attempt begins; its terms are being prepared.
    pub fn begin(&mut self, now: Instant) {
        self.breaker.begin();
        self.stage = Stage::Preparing { since: now };
    }

    /// Terms are there: the handshake begins.
    pub fn dial(&mut self, now: Instant, terms: CallTerms, share: &Share, timeout: Duration) {
        let milliseconds = |duration: Duration| u16::try_from(duration.as_millis()).unwrap_or(u16::MAX);
        let sequence = SequenceNumber::new(u64::from(terms.initial_sequence));
        self.stage = Stage::Calling(match self.mode {
            PullMode::Caller => Machine::Caller(Box::new(Caller::new(
                now,
                CallerSettings {
                    role: Role::Receiver,
                    stream_id: terms.stream_id,
                    receive_latency_ms: milliseconds(share.latency),
                    send_latency_ms: 0,
                    flow_window: share.flow_window,
                    packet_filter: terms.packet_filter,
                    encryption: terms.encryption,
                    enforced_encryption: terms.enforced_encryption,
                    timeout,
                    ..CallerSettings::new(terms.peer, share.socket_id, sequence)
                },
            ))),
            PullMode::Rendezvous => Machine::Rendezvous(Box::new(Rendezvous::new(
                now,
                RendezvousSettings {
                    receive_latency_ms: milliseconds(share.latency),
                    latency_max_ms: milliseconds(share.latency_max),
                    flow_window: share.flow_window,
                    encryption: terms.encryption,
                    enforced_encryption: terms.enforced_encryption,
                    takes_any_cipher: terms.takes_any_cipher,
                    packet_filter: terms.packet_filter,
                    timeout,
                    ..RendezvousSettings::new(terms.peer, share.socket_id, terms.cookie, sequence)
                },
            ))),
        });
    }

    /// The present attempt, or session, is over: what is to be said of it, unless too much has been said lately.
    pub fn fail(&mut self, now: Instant, error: String, failure: Failure, random: u64) -> Option<String> {
        let was_connected = matches!(self.stage, Stage::Connected(_));
        self.stage = Stage::Waiting;
        if was_connected {
            self.breaker.end(now, random);
        } else {
            self.breaker.fail(now, failure, random);
        }
        let next = self.breaker.next_attempt().map_or(Duration::ZERO, |at| at.saturating_since(now));
        let withheld = self.told.take(now);
        let open = if self.breaker.circuit() == Circuit::Open { ", the circuit is open" } else { "" };
        let left_out = withheld
            .filter(|&count| count > 0)
            .map_or_else(String::new, |count| format!(" ({count} lines before this one were left out)"));
        let line = format!(
            "{} {}: {error}; again in {:.1} s{open}{left_out}",
            self.mode.name(),
            self.target,
            next.as_secs_f64()
        );
        self.last_error = Some(error);
        withheld.map(|_| line)
    }

    /// What a handshake has failed by, and what of the configuration it hangs on, for people.
    pub fn words_for(&self, error: CallError) -> String {
        let peer = match self.mode {
            PullMode::Caller => "listener",
            PullMode::Rendezvous => "peer",
        };
        let key = |key: &str| stream_key(&self.name, key);
        let (what, reason) = match error {
            CallError::Timeout => {
                let why = match self.mode {
                    PullMode::Caller => "does anybody listen there, and does UDP pass both ways?",
                    PullMode::Rendezvous => "does the peer call us too, at this port, and does UDP pass both ways?",
                };
                return format!("no answer in time: {why}");
            }
            CallError::Rejected(reason) => (format!("rejected by the {peer}: {reason}"), reason),
            CallError::Unacceptable(reason) => (format!("the {peer}'s answer is not acceptable: {reason}"), reason),
        };
        let why = match reason {
            RejectReason::BadSecret => format!("its passphrase is not ours, see {}", key("srt.passphrase")),
            RejectReason::Unsecure if self.has_passphrase => {
                format!("we have a passphrase, and it has none, see {}", key("srt.passphrase"))
            }
            RejectReason::Unsecure => format!("it wants a passphrase: set {}", key("srt.passphrase")),
            RejectReason::Crypto => {
                format!("it insists on the other of AES-CTR and AES-GCM, see {}", key("srt.crypto_mode"))
            }
            RejectReason::RendezvousCookie => {
                format!("it has drawn our cookie: does {} lead back to this host?", key("srt.address"))
            }
            RejectReason::Filter => format!("its packet filter and {} do not go together", key("packet_filter")),
            RejectReason::MessageApi | RejectReason::Congestion => "it is not in live mode".to_owned(),
            RejectReason::KeyNotSupported
            | RejectReason::BadRequest
            | RejectReason::Unauthorized
            | RejectReason::Forbidden
            | RejectReason::NotFound
            | RejectReason::BadMode
            | RejectReason::UnsupportedMedia
                if self.mode == PullMode::Caller =>
            {
                format!("what is asked for, and as whom, says {}", key("srt.stream_id"))
            }
            _ => return what,
        };
        format!("{what}: {why}")
    }

    /// There is a session now.
    pub fn connected(&mut self, now: Instant) {
        self.breaker.succeed(now);
        self.last_error = None;
        let stage = std::mem::replace(&mut self.stage, Stage::Connected(None));
        if let Stage::Calling(Machine::Rendezvous(rendezvous)) = stage {
            self.stage = Stage::Connected(Some(rendezvous));
        }
    }

    /// The peer is one that is told no Stream ID. Whether that matters, and has not been said before.
    pub fn takes_stream_id_for_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_untold_stream_id)
    }

    /// How it stands, for people.
    pub fn report(&self, now: Instant) -> CallReport {
        CallReport {
            mode: self.mode.name(),
            target: self.target.clone(),
            state: match self.stage {
                Stage::Waiting => CallState::Waiting,
                Stage::Preparing { .. } | Stage::Calling(_) => CallState::Connecting,
                Stage::Connected(_) => CallState::Connected,
            },
            circuit: self.breaker.circuit(),
            attempts: self.breaker.attempts(),
            failures: self.breaker.failures(now),
            next_attempt_in: self.breaker.next_attempt().map(|at| at.saturating_since(now)),
            last_error: self.last_error.clone(),
        }
    }

    /// When the stream was first to be fetched.
    pub const fn began(&self) -> Instant {
        self.began
    }
}

/// How a stream's call stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport {
    /// `caller` or `rendezvous`.
    pub mode: &'static str,
    /// The peer as it is configured.
    pub target: String,
    /// How far it is.
    pub state: CallState,
    /// Whether trying soon may help.
    pub circuit: Circuit,
    /// Attempts so far.
    pub attempts: u64,
    /// Failures in a row; 0 once a session has lasted as long as the shortest wait.
    pub failures: u32,
    /// Until the next attempt; `None` while one is made or has succeeded.
    pub next_attempt_in: Option<Duration>,
    /// What the last attempt or session has failed by; `None` while there is a session.
    pub last_error: Option<String>,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    /// For the next attempt.
    Waiting,
    /// An attempt is made.
    Connecting,
    /// There is a session.
    Connected,
}

impl CallState {
    /// The word for it: `waiting`, `connecting`, `connected`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
        }
    }
}

impl Machine {
    /// Takes a datagram in.
    pub fn receive(&mut self, now: Instant, peer: std::net::SocketAddr, bytes: &[u8]) {
        match self {
            Self::Caller(caller) => caller.receive(now, peer, bytes),
            Self::Rendezvous(rendezvous) => rendezvous.receive(now, peer, bytes),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Caller(caller) => caller.handle_timeout(now),
            Self::Rendezvous(rendezvous) => rendezvous.handle_timeout(now),
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        match self {
            Self::Caller(caller) => caller.poll_transmit(now, buffer),
            Self::Rendezvous(rendezvous) => rendezvous.poll_transmit(now, buffer),
        }
    }

    /// What has come of it.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        Some(match self {
            Self::Caller(caller) => match caller.poll_event()? {
                caller::Event::Connected(parameters) => Outcome::Connected(parameters),
                caller::Event::Failed(error) => Outcome::Failed(error),
            },
            Self::Rendezvous(rendezvous) => match rendezvous.poll_event()? {
                rendezvous::Event::KeyWanted(material) => Outcome::KeyWanted(material),
                rendezvous::Event::Connected(parameters) => Outcome::Connected(parameters),
                rendezvous::Event::Failed(error) => Outcome::Failed(error),
            },
        })
    }
}

/// Whether calling again can mend it: not what is a matter of settings on one side.
pub const fn kind_of(error: CallError) -> Failure {
    let (CallError::Rejected(reason) | CallError::Unacceptable(reason)) = error else { return Failure::Passing };
    match reason {
        RejectReason::Version
        | RejectReason::BadSecret
        | RejectReason::Unsecure
        | RejectReason::MessageApi
        | RejectReason::Congestion
        | RejectReason::Filter
        | RejectReason::Group
        | RejectReason::Crypto
        | RejectReason::KeyNotSupported
        | RejectReason::BadRequest
        | RejectReason::Unauthorized
        | RejectReason::Forbidden
        | RejectReason::BadMode
        | RejectReason::Unacceptable
        | RejectReason::UnsupportedMedia
        | RejectReason::Unimplemented
        | RejectReason::UnsupportedVersion => Failure::Lasting,
        _ => Failure::Passing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StreamSrt;

    fn call(now: Instant) -> Call {
        let mut config = Config::default();
        let srt = StreamSrt { address: "encoder.example:9000".to_owned(), ..StreamSrt::default() };
        config.streams.insert("cam1".to_owned(), crate::config::Stream { srt: Some(srt), ..Default::default() });
        config.streams.insert("cam2".to_owned(), crate::config::Stream::default());
        let mut calls = Call::all(now, &config, 0..2);
        assert_eq!(calls.len(), 1, "cam2 is waited for");
        calls.remove(0)
    }

    #[test]
    fn a_wrong_passphrase_opens_the_circuit_and_a_silent_peer_does_not() {
        let now = Instant::from_millis(1_000);
        for (error, circuit, wait) in [
            (CallError::Rejected(RejectReason::BadSecret), Circuit::Open, "again in 45.0 s, the circuit is open"),
            (CallError::Rejected(RejectReason::Forbidden), Circuit::Open, "again in 45.0 s, the circuit is open"),
            (CallError::Rejected(RejectReason::Backlog), Circuit::Closed, "again in 3.8 s"),
            (CallError::Timeout, Circuit::Closed, "again in 3.8 s"),
        ] {
            let mut call = call(now);
            call.begin(now);
            assert_eq!(call.report(now).state, CallState::Connecting);
            let line = call.fail(now, error.to_string(), kind_of(error), 0).unwrap();
            assert_eq!(line, format!("caller encoder.example:9000: {error}; {wait}"));
            let report = call.report(now);
            assert_eq!((report.state, report.circuit, report.failures), (CallState::Waiting, circuit, 1));
            assert_eq!(report.last_error, Some(error.to_string()));
        }
    }

    #[test]
    fn a_failure_names_the_key_that_it_hangs_on() {
        use RejectReason::{BadSecret, Forbidden, Overload, RendezvousCookie, Unsecure};
        let mut call = call(Instant::from_millis(1_000));
        for (error, words) in [
            (
                CallError::Rejected(BadSecret),
                "rejected by the listener: BADSECRET (10): its passphrase is not ours, see streams.cam1.srt.passphrase",
            ),
            (
                CallError::Rejected(Unsecure),
                "rejected by the listener: UNSECURE (11): it wants a passphrase: set streams.cam1.srt.passphrase",
            ),
            (
                CallError::Rejected(Forbidden),
                "rejected by the listener: FORBIDDEN (1403): what is asked for, and as whom, says streams.cam1.srt.stream_id",
            ),
            (CallError::Rejected(Overload), "rejected by the listener: OVERLOAD (1402)"),
            (CallError::Timeout, "no answer in time: does anybody listen there, and does UDP pass both ways?"),
        ] {
            assert_eq!(call.words_for(error), words);
        }
        (call.mode, call.has_passphrase) = (PullMode::Rendezvous, true);
        for (error, words) in [
            (
                CallError::Rejected(Unsecure),
                "rejected by the peer: UNSECURE (11): we have a passphrase, and it has none, see streams.cam1.srt.passphrase",
            ),
            (
                CallError::Unacceptable(RendezvousCookie),
                "the peer's answer is not acceptable: RDVCOOKIE (9): it has drawn our cookie: does streams.cam1.srt.address lead back to this host?",
            ),
        ] {
            assert_eq!(call.words_for(error), words);
        }
    }

    #[test]
    fn the_log_is_not_flooded_by_a_peer_that_fails_at_once() {
        let now = Instant::from_millis(1_000);
        let mut call = call(now);
        let told = (0..1_000).filter(|_| call.fail(now, "no".to_owned(), Failure::Passing, 0).is_some()).count();
        assert_eq!(told, 20);
        let later = now + Duration::from_secs(1);
        let line = call.fail(later, "no".to_owned(), Failure::Passing, 0).unwrap();
        assert!(line.ends_with("(980 lines before this one were left out)"), "{line}");
    }
}
