//! What the receiver learns from its own acknowledgements: the round trip; and what it tells in them: rates.

use std::time::Duration;

use super::control::Acknowledgement;
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, snapshot_fields, valid};
use crate::base::Instant;

/// Assumed until measured (draft-sharabayko-srt §4.10).
pub const INITIAL_RTT_US: u32 = 100_000;
/// Assumed until measured (draft-sharabayko-srt §4.10).
pub const INITIAL_RTT_VARIANCE_US: u32 = 50_000;
/// The shortest time between two periodic loss reports (draft-sharabayko-srt §4.8.2).
const NAK_INTERVAL_MIN_US: u64 = 20_000;
/// No path has a longer round trip: larger samples and reports are not believed.
const RTT_MAX_US: u32 = 60_000_000;

/// The smoothed round trip time (draft-sharabayko-srt §4.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    smoothed_us: u32,
    variance_us: u32,
    /// By answers to our own acknowledgements, which go before what the peer tells.
    measured: bool,
}

impl Default for RoundTrip {
    fn default() -> Self {
        Self { smoothed_us: INITIAL_RTT_US, variance_us: INITIAL_RTT_VARIANCE_US, measured: false }
    }
}

impl RoundTrip {
    /// The mean of late, in microseconds; 100 ms until measured.
    #[inline]
    pub fn smoothed_us(&self) -> u32 {
        self.smoothed_us
    }

    /// The mean deviation of late, in microseconds.
    #[inline]
    pub fn variance_us(&self) -> u32 {
        self.variance_us
    }

    /// Takes in one measurement: 1/8 of it into the mean, 1/4 of its deviation into the deviation; the first one alone
    /// replaces what was assumed.
    pub fn add_sample(&mut self, sample_us: u32) {
        let sample_us = sample_us.clamp(1, RTT_MAX_US);
        if self.measured {
            self.variance_us = (self.variance_us * 3 + self.smoothed_us.abs_diff(sample_us)) / 4;
            self.smoothed_us = (self.smoothed_us * 7 + sample_us) / 8;
        } else {
            *self = Self { smoothed_us: sample_us, variance_us: sample_us / 2, measured: true };
        }
    }

    /// Takes over what the receiver tells a sender that receives nothing itself. What nobody has measured is ignored.
    pub fn adopt(&mut self, smoothed_us: u32, variance_us: u32) {
        let initial = smoothed_us == INITIAL_RTT_US && variance_us == INITIAL_RTT_VARIANCE_US;
        if !self.measured && !initial && (1..=RTT_MAX_US).contains(&smoothed_us) && variance_us <= RTT_MAX_US {
            *self = Self { smoothed_us, variance_us, measured: false };
        }
    }

    /// The way to the peer is another one: the next measurement replaces what was measured.
    pub fn path_changed(&mut self) {
        self.measured = false;
    }

    /// How long an answer may reasonably take: RTT + 4 deviations.
    #[inline]
    pub fn patience(&self) -> Duration {
        Duration::from_micros(u64::from(self.smoothed_us) + 4 * u64::from(self.variance_us))
    }

    /// Time between two periodic loss reports: (RTT + 4 deviations) / 2, at least 20 ms.
    #[inline]
    pub fn nak_interval(&self) -> Duration {
        let half = (u64::from(self.smoothed_us) + 4 * u64::from(self.variance_us)) / 2;
        Duration::from_micros(half.max(NAK_INTERVAL_MIN_US))
    }

    snapshot_fields! {
        u32 smoothed_us, u32 variance_us, bool measured;
        if |it| it.smoothed_us.max(it.variance_us) <= RTT_MAX_US
    }
}

/// How many acknowledgements may be under way: 5 s of them, one each 10 ms.
const UNDER_WAY_MAX: usize = 512;

#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    /// 0: answered, or never sent.
    number: u32,
    sent_at: Instant,
    next: u64,
}

/// Full acknowledgements under way. Each is answered once at most; an answer to none of them means nothing.
#[derive(Debug)]
pub struct AcknowledgementWindow {
    sent: Box<[Sent]>,
    last_number: u32,
}

impl Default for AcknowledgementWindow {
    fn default() -> Self {
        Self { sent: vec![Sent::default(); UNDER_WAY_MAX].into_boxed_slice(), last_number: 0 }
    }
}

impl AcknowledgementWindow {
    /// Bytes that it takes.
    pub const fn memory() -> usize {
        UNDER_WAY_MAX * size_of::<Sent>()
    }

    /// Notes that all before `next` are acknowledged now; returns the number of that acknowledgement, never 0.
    pub fn send(&mut self, now: Instant, next: u64) -> u32 {
        self.last_number = if self.last_number >= Acknowledgement::NUMBER_MAX { 1 } else { self.last_number + 1 };
        self.sent[self.last_number as usize % UNDER_WAY_MAX] = Sent { number: self.last_number, sent_at: now, next };
        self.last_number
    }

    /// What was said with `next` so far holds no more: a receipt of that confirms what is before the last packet alone.
    pub fn outdate(&mut self, next: u64) {
        self.sent.iter_mut().for_each(|sent| sent.next = sent.next.min(next.saturating_sub(1)));
    }

    /// The peer has answered acknowledgement `number` (ACKACK): its round trip in microseconds and what it acknowledged.
    pub fn answered(&mut self, now: Instant, number: u32) -> Option<(u32, u64)> {
        let sent = &mut self.sent[number as usize % UNDER_WAY_MAX];
        if number == 0 || sent.number != number {
            return None;
        }
        sent.number = 0;
        let rtt_us = now.saturating_since(sent.sent_at).as_micros();
        Some((u32::try_from(rtt_us).unwrap_or(u32::MAX), sent.next))
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self { sent, last_number } = self;
        to.u32(*last_number);
        to.size(sent.iter().filter(|sent| sent.number != 0).count());
        sent.iter().filter(|sent| sent.number != 0).for_each(|sent| sent.snapshot(to));
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let mut window = Self { last_number: from.u32()?, ..Self::default() };
        for _ in 0..from.size()? {
            let sent = Sent::restore(from)?;
            window.sent[sent.number as usize % UNDER_WAY_MAX] = sent;
        }
        Ok(window)
    }
}

impl Sent {
    snapshot_fields! { u32 number, instant sent_at, count next }
}

/// Numbers whose low four bits are 0 and 1 are sent back to back, so that their distance tells the capacity of the path.
const PROBE_MASK: u64 = 0xf;
const PROBES: usize = 64;
/// A shorter span than this gives no rate.
const RATE_SPAN_MIN: Duration = Duration::from_millis(100);
/// Gaps between packets that a rate is taken from for a sender that goes by it.
const GAPS: usize = 16;
/// As few of them give none.
const GAPS_MIN: usize = 8;

/// Rates that a full acknowledgement tells the sender (draft-sharabayko-srt §3.2.4).
///
/// The arrival rate is counted between acknowledgements, not taken from the median of 16 intervals as libsrt does: with
/// receive offload many packets share one arrival time, and most intervals are zero. libsrt's senders only show it.
#[derive(Debug)]
pub struct Rates {
    since: Instant,
    packets_before: u64,
    bytes_before: u64,
    packets_per_second: u32,
    bytes_per_second: u32,
    probe: Option<(u64, Instant)>,
    intervals_ns: Box<[u32]>,
    intervals: usize,
    /// What they tell, until there is another.
    capacity: Option<u32>,
    payload_size: u32,
    /// The bits of the numbers of packets that are looked at which may be set, besides the lowest.
    looked_at: u64,
    /// Where the sender goes by the rate.
    gaps: Option<Box<Gaps>>,
}

/// The latest gaps between packets in order. Their median tells, as soon as there are a few, at what rate packets come when they come,
/// whatever the sender waits for in between: libsrt's ends its slow start with it, and takes its window from it for good.
#[derive(Debug, Clone, Copy, Default)]
struct Gaps {
    last: Instant,
    known: usize,
    gaps_ns: [u32; GAPS],
}

impl Gaps {
    fn packet(&mut self, arrival: Instant) {
        if self.last != Instant::ZERO {
            let gap_ns = arrival.saturating_since(self.last).as_nanos();
            self.gaps_ns[self.known % GAPS] = u32::try_from(gap_ns).unwrap_or(u32::MAX);
            self.known += 1;
        }
        self.last = arrival;
    }

    fn packets_per_second(&self) -> Option<u32> {
        let mut gaps_ns = self.gaps_ns;
        rate_of(&mut gaps_ns[..self.known.min(GAPS)], GAPS_MIN)
    }

    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self { last, known, gaps_ns } = self;
        to.instant(*last);
        to.size(*known);
        gaps_ns.iter().for_each(|&gap| to.u32(gap));
    }

    fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let mut gaps = Self { last: from.instant()?, known: from.size()?, gaps_ns: [0; GAPS] };
        for gap in &mut gaps.gaps_ns {
            *gap = from.u32()?;
        }
        Ok(gaps)
    }
}

/// How many a second come so far apart, by those of the intervals within a factor of eight of their median; none where no more than `few`
/// are.
fn rate_of(intervals_ns: &mut [u32], few: usize) -> Option<u32> {
    if intervals_ns.is_empty() {
        return None;
    }
    let (_, &mut median, _) = intervals_ns.select_nth_unstable(intervals_ns.len() / 2);
    let (low, high) = (median / 8, median.saturating_mul(8));
    let (mut sum, mut count) = (0_u64, 0_u64);
    for &interval in intervals_ns.iter().filter(|&&interval| interval >= low && interval <= high) {
        sum += u64::from(interval);
        count += 1;
    }
    let rate = (count * 1_000_000_000).checked_div(sum)?;
    (count > few as u64).then(|| u32::try_from(rate).unwrap_or(u32::MAX))
}

impl Rates {
    /// `payload_size` is that of a full packet, in bytes.
    pub fn new(now: Instant, payload_size: u32) -> Self {
        Self {
            since: now,
            packets_before: 0,
            bytes_before: 0,
            packets_per_second: 0,
            bytes_per_second: 0,
            probe: None,
            intervals_ns: vec![0; PROBES].into_boxed_slice(),
            intervals: 0,
            capacity: None,
            payload_size: payload_size.max(1),
            looked_at: PROBE_MASK,
            gaps: None,
        }
    }

    /// Told to a sender that goes by them: every packet is looked at.
    pub fn of_file(self) -> Self {
        Self { looked_at: 0, gaps: Some(Box::default()), ..self }
    }

    /// A packet has come in order and for the first time; in live mode only every 16th and the one after it are looked at.
    #[inline]
    pub fn packet(&mut self, sequence: u64, arrival: Instant, bytes: u32) {
        if sequence & self.looked_at <= 1 {
            self.probe_packet(sequence, arrival, bytes);
        }
    }

    fn probe_packet(&mut self, sequence: u64, arrival: Instant, bytes: u32) {
        if let Some(gaps) = &mut self.gaps {
            gaps.packet(arrival);
        }
        if sequence & PROBE_MASK > 1 {
            return;
        }
        if sequence & PROBE_MASK == 0 {
            self.probe = Some((sequence, arrival));
        } else if let Some((first, at)) = self.probe.take()
            && first + 1 == sequence
            && bytes > 0
        {
            let took_ns = arrival.saturating_since(at).as_nanos() * u128::from(self.payload_size) / u128::from(bytes);
            self.intervals_ns[self.intervals % PROBES] = u32::try_from(took_ns).unwrap_or(u32::MAX);
            self.intervals += 1;
            self.capacity = None;
        }
    }

    /// Brings the arrival rates up to date from running totals; returns packets and bytes per second.
    pub fn update(&mut self, now: Instant, packets: u64, bytes: u64) -> (u32, u32) {
        let span = now.saturating_since(self.since);
        if span >= RATE_SPAN_MIN {
            let per_second =
                |count: u64| u32::try_from(u128::from(count) * 1_000_000_000 / span.as_nanos()).unwrap_or(u32::MAX);
            self.packets_per_second = per_second(packets.wrapping_sub(self.packets_before));
            self.bytes_per_second = per_second(bytes.wrapping_sub(self.bytes_before));
            (self.since, self.packets_before, self.bytes_before) = (now, packets, bytes);
        }
        let of_gaps = self.gaps.as_ref().and_then(|gaps| gaps.packets_per_second());
        (of_gaps.unwrap_or(self.packets_per_second), self.bytes_per_second)
    }

    /// Capacity of the path in packets per second, from the probes within a factor of eight of their median; 0 when unknown.
    pub fn link_capacity(&mut self) -> u32 {
        *self.capacity.get_or_insert_with(|| {
            let known = self.intervals.min(PROBES);
            let mut intervals_ns = [0_u32; PROBES];
            let intervals_ns = &mut intervals_ns[..known];
            intervals_ns.copy_from_slice(&self.intervals_ns[..known]);
            rate_of(intervals_ns, 0).unwrap_or(0)
        })
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            since,
            packets_before,
            bytes_before,
            packets_per_second,
            bytes_per_second,
            probe,
            intervals_ns,
            intervals,
            // Follows from them.
            capacity: _,
            payload_size,
            // Follows from whether there are gaps.
            looked_at: _,
            gaps,
        } = self;
        to.instant(*since);
        to.count(*packets_before);
        to.count(*bytes_before);
        to.u32(*packets_per_second);
        to.u32(*bytes_per_second);
        to.option(*probe, |to, (sequence, arrival)| {
            to.count(sequence);
            to.instant(arrival);
        });
        to.size(*intervals);
        intervals_ns.iter().for_each(|&interval| to.u32(interval));
        to.u32(*payload_size);
        to.option(gaps.as_ref(), |to, gaps| gaps.snapshot(to));
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let mut rates = Self {
            since: from.instant()?,
            packets_before: from.count()?,
            bytes_before: from.count()?,
            packets_per_second: from.u32()?,
            bytes_per_second: from.u32()?,
            probe: from.option(|from| Ok((from.count()?, from.instant()?)))?,
            intervals: from.size()?,
            intervals_ns: vec![0; PROBES].into_boxed_slice(),
            capacity: None,
            payload_size: 0,
            looked_at: PROBE_MASK,
            gaps: None,
        };
        for interval in &mut rates.intervals_ns {
            *interval = from.u32()?;
        }
        rates.payload_size = from.u32()?;
        rates.gaps = from.option(|from| Gaps::restore(from).map(Box::new))?;
        rates.looked_at = if rates.gaps.is_some() { 0 } else { PROBE_MASK };
        valid(rates.payload_size > 0)?;
        Ok(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_round_trip_replaces_the_assumption_and_later_ones_are_smoothed() {
        let mut rtt = RoundTrip::default();
        assert_eq!((rtt.smoothed_us(), rtt.variance_us()), (100_000, 50_000));
        assert_eq!(rtt.nak_interval(), Duration::from_micros(150_000));
        rtt.add_sample(30_000);
        assert_eq!((rtt.smoothed_us(), rtt.variance_us()), (30_000, 15_000));
        rtt.add_sample(38_000);
        assert_eq!((rtt.smoothed_us(), rtt.variance_us()), (31_000, (45_000 + 8_000) / 4));
        for _ in 0..100 {
            rtt.add_sample(10_000);
        }
        assert_eq!(rtt.nak_interval(), Duration::from_millis(20));
    }

    #[test]
    fn absurd_round_trips_do_not_overflow_and_are_not_adopted() {
        let mut rtt = RoundTrip::default();
        rtt.adopt(0, 0);
        rtt.adopt(u32::MAX, 0);
        rtt.adopt(1_000, u32::MAX);
        assert_eq!(rtt, RoundTrip::default());
        for _ in 0..100 {
            rtt.add_sample(u32::MAX);
        }
        assert_eq!(rtt.smoothed_us(), RTT_MAX_US);
    }

    #[test]
    fn an_acknowledgement_is_answered_once() {
        let mut window = AcknowledgementWindow::default();
        let first = window.send(Instant::from_millis(0), 10);
        let second = window.send(Instant::from_millis(10), 20);
        assert_eq!((first, second), (1, 2));
        assert_eq!(window.answered(Instant::from_millis(40), 2), Some((30_000, 20)));
        assert_eq!(window.answered(Instant::from_millis(40), 2), None);
        assert_eq!(window.answered(Instant::from_millis(40), 0), None);
        assert_eq!(window.answered(Instant::from_millis(40), 514), None);
        assert_eq!(window.answered(Instant::from_millis(45), 1), Some((45_000, 10)));
    }

    #[test]
    fn the_distance_of_a_probe_pair_tells_the_capacity() {
        let mut rates = Rates::new(Instant::ZERO, 1316);
        assert_eq!(rates.link_capacity(), 0);
        for n in 0..1600_u64 {
            // Pairs 10 µs apart, others 200 µs; every fifth pair is torn apart.
            let gap_us = if n % 80 == 1 { 5_000 } else { 10 };
            rates.packet(n, Instant::from_micros(n / 16 * 20_000 + if n % 16 == 1 { gap_us } else { 0 }), 1316);
        }
        assert_eq!(rates.link_capacity(), 100_000);
        // Half of those that are kept are older now.
        for n in 1_600..2_128_u64 {
            rates.packet(n, Instant::from_micros(n / 16 * 20_000 + if n % 16 == 1 { 20 } else { 0 }), 1316);
        }
        assert_eq!(rates.link_capacity(), 58_000_000 / (33 * 20 + 25 * 10));
        assert_eq!(rates.update(Instant::from_millis(500), 2_375, 2_375 * 1316), (4_750, 4_750 * 1316));
        assert_eq!(rates.update(Instant::from_millis(510), 9_999, 0), (4_750, 4_750 * 1316));
    }

    #[test]
    fn a_sender_that_goes_by_the_rate_is_told_that_of_bursts_and_as_soon_as_a_few_packets_have_come() {
        let mut rates = Rates::new(Instant::ZERO, 1_456).of_file();
        let mut at_us = 1_000;
        for n in 0..10_u64 {
            assert_eq!(rates.update(Instant::from_micros(at_us), n, n * 1_456).0, 0, "after {n}");
            rates.packet(n, Instant::from_micros(at_us), 1_456);
            at_us += 100;
        }
        assert_eq!(rates.update(Instant::from_micros(at_us), 10, 14_560).0, 10_000);
        // Waiting for acknowledgements in between changes nothing, nor does the mean of them all.
        for n in 10..60_u64 {
            at_us += if n % 16 == 0 { 50_000 } else { 100 };
            rates.packet(n, Instant::from_micros(at_us), 1_456);
        }
        assert_eq!(rates.update(Instant::from_micros(at_us), 60, 60 * 1_456).0, 10_000);
        assert_eq!(rates.link_capacity(), 10_000);
    }
}
