//! When to try a source again that we fetch: exponential back-off with jitter, and a circuit breaker for those that keep failing.
//!
//! ```text
//!            begin                    succeed
//!  waiting ─────────▶ trying ─────────────────────▶ connected
//!     ▲                  │ fail: the wait doubles       │ end
//!     └──────────────────┴──────────────────────────────┘
//! ```
//!
//! The circuit is closed while trying again soon may help. It opens after [`FAILURES_TO_OPEN`] failures in a row, or at once when the
//! peer says what repeating cannot mend; then one attempt is made per longest wait, with the circuit half open until it is known what
//! came of it. No clock, no randomness: both are arguments.

use std::time::Duration;

use crate::base::Instant;

/// Failures in a row that open the circuit.
pub const FAILURES_TO_OPEN: u32 = 6;
/// Waits are a quarter shorter or longer, so that many who have lost the same peer do not come back at one moment.
const JITTER: u64 = 4;

/// Whether trying soon may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// It may.
    Closed,
    /// It has not for long, or the peer says that it will not.
    Open,
    /// It had not, and is tried now.
    HalfOpen,
}

impl Circuit {
    /// The word for it: `closed`, `open`, `half_open`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What an attempt has failed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// May be gone the next time: nobody answers, no resources.
    Passing,
    /// Stays until somebody changes a setting: a wrong passphrase, no right to it.
    Lasting,
}

/// Where a source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting { until: Instant },
    Trying,
    Connected { since: Instant },
}

/// The attempts at one source.
#[derive(Clone, Debug)]
pub struct Breaker {
    shortest: Duration,
    longest: Duration,
    stage: Stage,
    circuit: Circuit,
    failures: u32,
    attempts: u64,
}

impl Breaker {
    /// A source that was never tried: its first attempt is due at once. Waits begin with `shortest` and double up to `longest`.
    ///
    /// # Panics
    /// When `shortest` is 0 or above `longest`.
    pub fn new(now: Instant, shortest: Duration, longest: Duration) -> Self {
        assert!(!shortest.is_zero() && shortest <= longest, "waits grow from something");
        let stage = Stage::Waiting { until: now };
        Self { shortest, longest, stage, circuit: Circuit::Closed, failures: 0, attempts: 0 }
    }

    /// When the next attempt is due; `None` while one is made, or has succeeded.
    pub const fn next_attempt(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting { until } => Some(until),
            Stage::Trying | Stage::Connected { .. } => None,
        }
    }

    /// Whether the next attempt is to be made.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next_attempt().is_some_and(|at| now >= at)
    }

    /// Whether trying soon may help.
    pub const fn circuit(&self) -> Circuit {
        self.circuit
    }

    /// Failures in a row; none once a connection has lasted as long as the shortest wait.
    pub fn failures(&self, now: Instant) -> u32 {
        if self.has_lasted(now) { 0 } else { self.failures }
    }

    fn has_lasted(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::Connected { since } if now.saturating_since(since) >= self.shortest)
    }

    /// Attempts so far.
    pub const fn attempts(&self) -> u64 {
        self.attempts
    }

    /// An attempt is made.
    pub fn begin(&mut self) {
        self.attempts += 1;
        self.stage = Stage::Trying;
        if self.circuit == Circuit::Open {
            self.circuit = Circuit::HalfOpen;
        }
    }

    /// It has led to a connection.
    pub fn succeed(&mut self, now: Instant) {
        self.stage = Stage::Connected { since: now };
        self.circuit = Circuit::Closed;
    }

    /// It has not. `random` is 64 bits of randomness.
    pub fn fail(&mut self, now: Instant, failure: Failure, random: u64) {
        self.failures = self.failures.saturating_add(1);
        let is_hopeless = failure == Failure::Lasting || self.failures >= FAILURES_TO_OPEN;
        if is_hopeless || self.circuit != Circuit::Closed {
            self.circuit = Circuit::Open;
        }
        self.wait(now, random);
    }

    /// The connection is over. One that has not lasted as long as the shortest wait is as good as none: a peer that takes us in and
    /// throws us out again is not called ever faster.
    pub fn end(&mut self, now: Instant, random: u64) {
        if self.has_lasted(now) {
            self.failures = 0;
            return self.wait(now, random);
        }
        self.fail(now, Failure::Passing, random);
    }

    fn wait(&mut self, now: Instant, random: u64) {
        let doubled = self.shortest.saturating_mul(1 << self.failures.saturating_sub(1).min(20));
        let wait = if self.circuit == Circuit::Open { self.longest } else { doubled.min(self.longest) };
        let span_ns = (wait.as_nanos() as u64 / JITTER).max(1);
        self.stage = Stage::Waiting {
            until: now + wait - Duration::from_nanos(span_ns) + Duration::from_nanos(random % (2 * span_ns)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_secs(5);
    const LONGEST: Duration = Duration::from_secs(60);
    /// Of a wait of `span_ns / 4` to either side: nothing added, nothing taken away.
    fn middle(wait: Duration) -> u64 {
        wait.as_nanos() as u64 / JITTER
    }

    fn breaker() -> Breaker {
        Breaker::new(Instant::from_millis(1_000), SHORTEST, LONGEST)
    }

    /// Fails an attempt that is due now, and gives the wait for the next in seconds.
    fn fail(breaker: &mut Breaker, now: &mut Instant, failure: Failure, wait_s: u64) -> u64 {
        assert!(breaker.is_due(*now));
        breaker.begin();
        assert_eq!(breaker.next_attempt(), None);
        breaker.fail(*now, failure, middle(Duration::from_secs(wait_s)));
        let next = breaker.next_attempt().unwrap();
        let wait = next.saturating_since(*now);
        assert!(!breaker.is_due(*now));
        *now = next;
        wait.as_secs()
    }

    #[test]
    fn waits_double_up_to_the_longest_and_the_circuit_opens_after_failures_in_a_row() {
        let (mut breaker, mut now) = (breaker(), Instant::from_millis(1_000));
        let waits: Vec<u64> =
            [5, 10, 20, 40, 60].into_iter().map(|wait| fail(&mut breaker, &mut now, Failure::Passing, wait)).collect();
        assert_eq!((waits, breaker.circuit()), (vec![5, 10, 20, 40, 60], Circuit::Closed));
        assert_eq!(fail(&mut breaker, &mut now, Failure::Passing, 60), 60);
        assert_eq!((breaker.circuit(), breaker.failures(now), breaker.attempts()), (Circuit::Open, 6, 6));
        breaker.begin();
        assert_eq!(breaker.circuit(), Circuit::HalfOpen);
        breaker.succeed(now);
        assert_eq!((breaker.circuit(), breaker.next_attempt()), (Circuit::Closed, None));
    }

    #[test]
    fn what_repeating_cannot_mend_opens_the_circuit_at_once_and_it_stays_open_until_an_attempt_succeeds() {
        let (mut breaker, mut now) = (breaker(), Instant::from_millis(1_000));
        assert_eq!(fail(&mut breaker, &mut now, Failure::Lasting, 60), 60);
        assert_eq!(breaker.circuit(), Circuit::Open);
        assert_eq!(fail(&mut breaker, &mut now, Failure::Passing, 60), 60, "another failure does not close it");
        assert_eq!(breaker.circuit(), Circuit::Open);
    }

    #[test]
    fn after_a_connection_that_lasted_waits_begin_anew_and_after_one_that_did_not_they_grow() {
        let (mut breaker, mut now) = (breaker(), Instant::from_millis(1_000));
        fail(&mut breaker, &mut now, Failure::Passing, 5);
        fail(&mut breaker, &mut now, Failure::Passing, 10);
        breaker.begin();
        breaker.succeed(now);
        let lasted = now + SHORTEST;
        let moments = [now, now + SHORTEST / 2, lasted];
        assert_eq!(moments.map(|now| breaker.failures(now)), [2, 2, 0]);
        breaker.end(lasted, middle(SHORTEST));
        assert_eq!(breaker.next_attempt(), Some(now + SHORTEST * 2));
        assert_eq!(breaker.failures(lasted), 0);
        now += SHORTEST * 2;
        for (round, wait_s) in [5, 10, 20].into_iter().enumerate() {
            breaker.begin();
            breaker.succeed(now);
            now += Duration::from_secs(1);
            breaker.end(now, middle(Duration::from_secs(wait_s)));
            let next = breaker.next_attempt().unwrap();
            assert_eq!(next.saturating_since(now).as_secs(), wait_s, "round {round}");
            now = next;
        }
    }

    #[test]
    fn waits_are_spread_by_a_quarter_to_either_side() {
        let waits: Vec<u128> = [0, 1_250_000_000, 2_499_999_999, 2_500_000_000, u64::MAX]
            .into_iter()
            .map(|random| {
                let (mut breaker, now) = (breaker(), Instant::from_millis(1_000));
                breaker.begin();
                breaker.fail(now, Failure::Passing, random);
                breaker.next_attempt().unwrap().saturating_since(now).as_nanos()
            })
            .collect();
        assert_eq!(waits[..4], [3_750_000_000, 5_000_000_000, 6_249_999_999, 3_750_000_000]);
        assert!((3_750_000_000..6_250_000_000).contains(&waits[4]));
    }
}
