//! When a packet is due: time stamp based packet delivery (TSBPD) and the drift of the peer's clock.
//!
//! `due = base + time stamp + latency + drift` (draft-sharabayko-srt §4.5), where *base* is the local time at which the peer's
//! clock showed zero, taken from the handshake. The peer's clock runs at its own pace: each ACKACK gives a sample of how far
//! the two have come apart (§4.7).

use std::time::Duration;

use super::snapshot::snapshot_fields;
use crate::base::Instant;
use crate::base::sequence::Wrapping;

/// Samples whose mean is one look at the drift (libsrt: `TSBPD_DRIFT_MAX_SAMPLES`).
const DRIFT_SAMPLES: u32 = 1_000;
/// A mean beyond this moves the base by as much (libsrt: `TSBPD_DRIFT_MAX_VALUE`).
const DRIFT_STEP_NS: i64 = 5_000_000;
/// A time stamp further ahead of the expected time than this is not believed: a packet could block delivery for half an hour.
const MAX_AHEAD_US: i64 = 10_000_000;

/// Turns the sender's 32-bit time stamps into local time.
#[derive(Debug, Clone)]
pub struct DeliveryTime {
    /// Local time of the peer's time stamp zero, in nanoseconds, without latency; may lie before the clock's origin.
    base_ns: i64,
    latency_ns: i64,
    drift_ns: i64,
    first_rtt_us: Option<i64>,
    drift_sum_ns: i64,
    drift_samples: u32,
    /// What samples show besides drift: nothing where the base is of the same path, the difference of the two paths elsewhere. `None` when not
    /// yet known.
    bias_ns: Option<i64>,
    /// The drift is another leg's to say.
    follows: bool,
}

impl DeliveryTime {
    /// `timestamp` is what the peer's clock showed in its handshake, which arrived at `arrival`; `latency` is the negotiated one.
    pub fn new(timestamp: u32, arrival: Instant, latency: Duration) -> Self {
        Self {
            base_ns: arrival.as_nanos() as i64 - i64::from(timestamp) * 1_000,
            latency_ns: i64::try_from(latency.as_nanos()).unwrap_or(i64::MAX / 4),
            drift_ns: 0,
            first_rtt_us: None,
            drift_sum_ns: 0,
            drift_samples: 0,
            bias_ns: Some(0),
            follows: false,
        }
    }

    /// Takes the time of a bonding group, whose legs share the sender's clock: base, latency and drift are those of `leader`, the leg that
    /// they are taken from. What this leg's own samples show besides is kept, in case it has to lead one day; libsrt takes drift from any
    /// leg (`CUDTGroup::synchronizeDrift`), which with paths of different lengths pulls the time to and fro.
    /// Returns whether due times have moved.
    pub fn follow(&mut self, leader: &Self) -> bool {
        let time = |it: &Self| (it.base_ns, it.latency_ns, it.drift_ns);
        if !self.follows {
            (self.follows, self.bias_ns) = (true, None);
        } else if time(self) == time(leader) {
            return false;
        }
        if self.base_ns != leader.base_ns {
            (self.drift_sum_ns, self.drift_samples) = (0, 0);
        }
        (self.base_ns, self.latency_ns, self.drift_ns) = time(leader);
        true
    }

    /// The leg that the time was taken from is gone: drift is this one's to say.
    pub fn lead(&mut self) {
        self.follows = false;
    }

    /// Takes the base from a packet, whose time stamp is taken for its time of sending.
    pub fn anchor(&mut self, timestamp: u32, arrival: Instant) {
        self.base_ns = arrival.as_nanos() as i64 - i64::from(timestamp) * 1_000;
        (self.drift_ns, self.drift_sum_ns, self.drift_samples) = (0, 0, 0);
    }

    /// The negotiated latency.
    pub fn latency(&self) -> Duration {
        Duration::from_nanos(self.latency_ns as u64)
    }

    /// How far the peer's clock is from where the base has it, as of the last mean, in microseconds.
    pub fn drift_us(&self) -> i64 {
        self.drift_ns / 1_000
    }

    /// Gives a time stamp as many bits as it needs: of all the moments it may mean, the one nearest to its arrival.
    ///
    /// libsrt watches for the wrap within 30 s of it; measuring against the clock instead needs no state, so that neither a
    /// silence of any length nor one wild time stamp can put the following ones into the wrong cycle of 71.6 minutes.
    /// `None` when it lies too far ahead to be believed.
    #[inline]
    pub fn unwrap(&self, timestamp: u32, arrival: Instant) -> Option<i64> {
        let expected_us = (arrival.as_nanos() as i64 - self.base_ns) / 1_000;
        let ahead = Wrapping::<32>::new(u64::from(timestamp)).distance(Wrapping::new(expected_us as u64));
        (ahead <= MAX_AHEAD_US).then_some(expected_us + ahead)
    }

    /// The time stamp that a packet arriving at `arrival` should carry: stands in for one that is not to be believed.
    pub fn expected(&self, arrival: Instant) -> i64 {
        (arrival.as_nanos() as i64 - self.base_ns) / 1_000
    }

    /// When a packet with this unwrapped time stamp is due.
    #[inline]
    pub fn due(&self, timestamp_us: i64) -> Instant {
        let due = self.base_ns + timestamp_us * 1_000 + self.latency_ns + self.drift_ns;
        Instant::from_nanos(due.max(0) as u64)
    }

    /// Takes one sample of the drift from an ACKACK: its time stamp, its arrival, and the round trip it ended.
    /// Half of a change in the round trip is taken for a change of the way here. Returns whether due times have moved.
    pub fn add_sample(&mut self, timestamp: u32, arrival: Instant, rtt_us: u32) -> bool {
        let Some(timestamp_us) = self.unwrap(timestamp, arrival) else { return false };
        let rtt_us = i64::from(rtt_us);
        let first_rtt_us = *self.first_rtt_us.get_or_insert(rtt_us);
        let shown_at_ns = self.base_ns + timestamp_us * 1_000;
        self.drift_sum_ns += arrival.as_nanos() as i64 - shown_at_ns - (rtt_us - first_rtt_us) / 2 * 1_000;
        self.drift_samples += 1;
        if self.drift_samples < DRIFT_SAMPLES {
            return false;
        }
        let mean_ns = self.drift_sum_ns / i64::from(self.drift_samples);
        self.drift_sum_ns = 0;
        self.drift_samples = 0;
        if self.follows {
            self.bias_ns = Some(mean_ns - self.drift_ns);
            return false;
        }
        let bias_ns = *self.bias_ns.get_or_insert(mean_ns - self.drift_ns);
        self.drift_ns = mean_ns - bias_ns;
        if self.drift_ns.abs() > DRIFT_STEP_NS {
            let step = DRIFT_STEP_NS * self.drift_ns.signum();
            self.base_ns += step;
            self.drift_ns -= step;
        }
        true
    }

    snapshot_fields! {
        signed base_ns,
        signed latency_ns,
        signed drift_ns,
        optional_signed first_rtt_us,
        signed drift_sum_ns,
        u32 drift_samples,
        optional_signed bias_ns,
        bool follows;
        if |it| (0..=i64::from(u16::MAX) * 1_000_000).contains(&it.latency_ns)
            && it.drift_samples < DRIFT_SAMPLES
            && it.first_rtt_us.is_none_or(|rtt_us| (0..=i64::from(u32::MAX)).contains(&rtt_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(120);

    #[test]
    fn a_packet_is_due_a_latency_after_its_time_stamp() {
        let time = DeliveryTime::new(1_000_000, Instant::from_millis(10_000), LATENCY);
        let sent = time.unwrap(1_250_000, Instant::from_millis(10_251));
        assert_eq!(sent, Some(1_250_000));
        assert_eq!(time.due(1_250_000), Instant::from_millis(10_370));
    }

    #[test]
    fn time_stamps_run_on_over_the_wrap_and_a_late_one_stays_before_it() {
        let time = DeliveryTime::new(u32::MAX, Instant::from_millis(10_000), LATENCY);
        let before = i64::from(u32::MAX);
        assert_eq!(time.unwrap(4, Instant::from_millis(10_001)), Some(before + 5));
        assert_eq!(time.unwrap(u32::MAX - 100_000, Instant::from_millis(10_300)), Some(before - 100_000));
        assert_eq!(time.due(before + 5), Instant::from_micros(10_120_005));
    }

    #[test]
    fn hours_of_silence_do_not_lose_the_cycle() {
        let time = DeliveryTime::new(0, Instant::from_millis(0), LATENCY);
        let five_hours_us: u64 = 5 * 3_600 * 1_000_000;
        let unwrapped = time.unwrap(five_hours_us as u32, Instant::from_micros(five_hours_us + 40_000));
        assert_eq!(unwrapped, Some(five_hours_us as i64));
    }

    #[test]
    fn a_time_stamp_from_far_ahead_is_not_believed() {
        let time = DeliveryTime::new(0, Instant::from_millis(1_000), LATENCY);
        assert_eq!(time.unwrap(60_000_000, Instant::from_millis(1_000)), None);
        assert_eq!(time.unwrap(9_000_000, Instant::from_millis(1_000)), Some(9_000_000));
        assert_eq!(time.expected(Instant::from_millis(1_500)), 500_000);
    }

    #[test]
    fn drift_is_the_mean_of_a_thousand_samples_and_moves_the_base_in_steps() {
        let mut time = DeliveryTime::new(0, Instant::from_millis(1_000), LATENCY);
        let mut moved = 0;
        for n in 1..=2_000_u64 {
            // The peer's clock is 7 ms late.
            let timestamp = (n * 10_000) as u32;
            moved +=
                u32::from(time.add_sample(timestamp, Instant::from_micros(1_000_000 + n * 10_000 + 7_000), 30_000));
            if n == 1_000 {
                assert_eq!(time.drift_us(), 2_000);
                assert_eq!(time.due(0), Instant::from_millis(1_000 + 120 + 7));
            }
        }
        assert_eq!(moved, 2);
        assert_eq!(time.due(0), Instant::from_millis(1_000 + 120 + 7));
        assert_eq!(time.drift_us(), 2_000);
    }

    #[test]
    fn a_leg_that_takes_the_lead_says_what_has_changed_and_not_how_much_longer_its_path_is() {
        let start = Instant::from_millis(1_000);
        let mut leader = DeliveryTime::new(0, start, LATENCY);
        let mut other = DeliveryTime::new(77_000_000, Instant::from_millis(9_000), Duration::from_millis(500));
        assert!(other.follow(&leader));
        assert!(!other.follow(&leader));
        assert_eq!(other.due(0), leader.due(0), "its own handshake does not count");
        let thousand = |time: &mut DeliveryTime, from: u64, late_us: u64| {
            (from..from + 1_000).fold(false, |moved, n| {
                let arrival = start + Duration::from_micros(n * 10_000 + late_us);
                moved | time.add_sample((n * 10_000) as u32, arrival, 30_000)
            })
        };
        assert!(thousand(&mut leader, 0, 2_000));
        assert!(other.follow(&leader));
        assert!(!thousand(&mut other, 0, 42_000), "a path 40 ms longer");
        other.lead();
        assert!(thousand(&mut other, 1_000, 43_000));
        assert_eq!(other.drift_us(), 3_000);
        // One that has to lead before it has seen anything goes on from where the time stood.
        let mut newcomer = DeliveryTime::new(0, start, LATENCY);
        newcomer.follow(&other);
        newcomer.lead();
        assert!(thousand(&mut newcomer, 2_000, 95_000));
        assert_eq!(newcomer.drift_us(), 3_000);
        assert!(thousand(&mut newcomer, 3_000, 96_000));
        assert_eq!(newcomer.drift_us(), 4_000);
    }

    #[test]
    fn half_of_a_longer_round_trip_is_not_drift() {
        let mut time = DeliveryTime::new(0, Instant::from_millis(1_000), LATENCY);
        for n in 0..1_000_u64 {
            let rtt_us = if n == 0 { 30_000 } else { 50_000 };
            let extra = if n == 0 { 0 } else { 10_000 };
            time.add_sample((n * 10_000) as u32, Instant::from_micros(1_000_000 + n * 10_000 + extra), rtt_us);
        }
        assert_eq!(time.drift_us(), 0);
    }
}
