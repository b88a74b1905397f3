//! How fast a sender may go where all bytes are to arrive: FileCC (draft-sharabayko-srt §5.2; libsrt: `FileCC` of `congctl.cpp`).
//!
//! Two things hold it back, a window of packets that may be under way and a time between two of them:
//!
//! - *Slow start*: the window grows by what is acknowledged, until it is as large as the receiver's, or something is lost.
//! - *Congestion avoidance*: packets leave at intervals, which shrink with each acknowledgement that comes a control interval after the
//!   last, the faster the further the rate is from what the path is known to bear; the window is what fits into a round trip.
//! - *Decrease*: a loss report that names packets sent since the last decrease makes the interval 3 % longer; later ones of the same
//!   congestion do so now and then, five times at most. Losses of less than 2 % of what is under way are taken for the path's own.
//!
//! What the path bears is what the receiver tells in its full acknowledgements: the rate at which packets came, and the capacity that it
//! takes from how far apart two of them came that left together, which is why every sixteenth packet is followed at once by the next.

use std::time::Duration;

use super::control::ReceivingRates;
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, valid};
use crate::base::Instant;

/// Between two changes of window and interval.
const CONTROL_INTERVAL: Duration = Duration::from_millis(10);
const CONTROL_INTERVAL_US: f64 = 10_000.0;
/// Packets of the first window, and those that a window has beyond what fits into a round trip.
const WINDOW_MIN: f64 = 16.0;
/// Without an interval, nearly: while in slow start.
const INTERVAL_MIN_US: f64 = 1.0;
/// An interval beyond which nobody would call it a transfer any more: a packet each second.
const INTERVAL_MAX_US: f64 = 1e6;
/// By how much a decrease lengthens the interval.
const DECREASE: f64 = 1.03;
/// Decreases for one congestion, at most.
const DECREASES_MAX: u32 = 5;
/// The share of what is under way that may be lost without a decrease.
const TOLERATED_LOSS: f64 = 0.02;
/// A sender that was late makes up for so much of it: its clock is coarser than the intervals.
const CATCH_UP: Duration = Duration::from_millis(2);
/// Two packets, of which the first has a number that ends in these bits zero, leave together.
const PROBE_MASK: u64 = 0xf;

/// State of the control.
#[derive(Debug, Clone, PartialEq)]
pub struct CongestionControl {
    is_slow_start: bool,
    /// Packets.
    window: f64,
    window_max: f64,
    interval_us: f64,
    /// The interval of the rate that is not to be passed.
    interval_floor_us: f64,
    /// Of a full packet, header included, in bytes.
    packet_size: f64,
    acknowledged: u64,
    adjusted_at: Instant,
    /// Something was lost since the interval was last changed.
    has_loss: bool,
    /// One past the newest packet at the last decrease, and the interval before it.
    decreased_at: u64,
    interval_before_us: f64,
    /// Loss reports of this congestion, their mean over all, how many make a decrease, and decreases.
    reports: u32,
    reports_mean: u32,
    reports_each: u32,
    decreases: u32,
    /// What the receiver tells, in packets per second: smoothed; 0 when unknown.
    delivery_rate: f64,
    capacity: f64,
    next_send_at: Instant,
    /// Intervals that the first of two that leave together owes.
    owed: f64,
    /// Where the count of a congestion's reports begins is to differ from sender to sender.
    random: u64,
}

impl CongestionControl {
    /// The control of a sender whose first packet is `first`, and whose peer has room for `window_max` packets of `packet_size` bytes.
    pub fn new(now: Instant, first: u64, window_max: usize, packet_size: usize) -> Self {
        Self {
            is_slow_start: true,
            window: WINDOW_MIN,
            window_max: window_max as f64,
            interval_us: INTERVAL_MIN_US,
            interval_floor_us: INTERVAL_MIN_US,
            packet_size: packet_size.max(1) as f64,
            acknowledged: first,
            adjusted_at: now,
            has_loss: false,
            decreased_at: first,
            interval_before_us: 1.0,
            reports: 0,
            reports_mean: 0,
            reports_each: 1,
            decreases: 0,
            delivery_rate: 0.0,
            capacity: 0.0,
            next_send_at: Instant::ZERO,
            owed: 0.0,
            random: first,
        }
    }

    /// From now on at most so many bits per second, headers of SRT, UDP and IP included (libsrt: `SRTO_MAXBW`, in bytes).
    pub fn limit_rate(&mut self, bits_per_second: u64) {
        let floor_us = (self.packet_size * 8e6 / bits_per_second.max(1) as f64).clamp(INTERVAL_MIN_US, INTERVAL_MAX_US);
        self.interval_floor_us = floor_us;
        self.set_interval(self.interval_us);
    }

    /// Packets that may be under way.
    pub fn window(&self) -> usize {
        self.window as usize
    }

    /// Time between two packets, in µs.
    pub fn interval_us(&self) -> f64 {
        self.interval_us
    }

    /// When the next packet may leave.
    #[inline]
    pub fn next_send_at(&self) -> Instant {
        self.next_send_at
    }

    /// A packet leaves.
    pub fn sent(&mut self, now: Instant, sequence: u64, is_first_time: bool) {
        self.owed += 1.0;
        if is_first_time && sequence & PROBE_MASK == 0 {
            return;
        }
        let due = self.next_send_at.max(Instant::from_nanos(now.as_nanos().saturating_sub(CATCH_UP.as_nanos() as u64)));
        self.next_send_at = due + Duration::from_nanos((self.owed * self.interval_us * 1_000.0) as u64);
        self.owed = 0.0;
    }

    /// A full acknowledgement: all before `next` has arrived.
    pub fn acknowledged(&mut self, now: Instant, next: u64, rates: Option<ReceivingRates>, rtt_us: u32) {
        if let Some(rates) = rates {
            // Weight of the newest 1/8, as in libsrt.
            let smooth = |mean: &mut f64, newest: u32| {
                if newest > 0 {
                    *mean = if *mean == 0.0 { f64::from(newest) } else { (*mean * 7.0 + f64::from(newest)) / 8.0 };
                }
            };
            smooth(&mut self.delivery_rate, rates.packets_per_second);
            smooth(&mut self.capacity, rates.link_capacity_packets_per_second);
        }
        if now.saturating_since(self.adjusted_at) < CONTROL_INTERVAL {
            return;
        }
        self.adjusted_at = now;
        if self.is_slow_start {
            self.window += next.saturating_sub(self.acknowledged) as f64;
            self.acknowledged = next;
            if self.window > self.window_max {
                self.end_slow_start(rtt_us);
            }
        } else {
            let fits = self.delivery_rate / 1e6 * (f64::from(rtt_us) + CONTROL_INTERVAL_US);
            self.window = (fits + WINDOW_MIN).min(self.window_max.max(WINDOW_MIN));
        }
        if !self.is_slow_start && !std::mem::take(&mut self.has_loss) {
            self.increase();
        }
    }

    /// The rate becomes higher by so many packets per control interval, depending on how far it is from what is known to go.
    fn increase(&mut self) {
        let at_loss = 2.0 * 1e6 / self.interval_before_us;
        let goal = at_loss.min(self.capacity);
        let mut spare = goal - 1e6 / self.interval_us;
        if self.interval_us > self.interval_before_us && goal / 9.0 < spare {
            spare = goal / 9.0;
        }
        let least = 1.0 / self.packet_size;
        let more = if spare <= 0.0 {
            least
        } else {
            (10_f64.powf((spare * self.packet_size * 8.0).log10().ceil()) * 1.5e-6 / self.packet_size).max(least)
        };
        self.set_interval(self.interval_us * CONTROL_INTERVAL_US / (self.interval_us * more + CONTROL_INTERVAL_US));
    }

    fn set_interval(&mut self, interval_us: f64) {
        self.interval_us = interval_us.clamp(self.interval_floor_us, INTERVAL_MAX_US);
    }

    /// libsrt takes, where the receiver has told no rate yet, the inverse of what is meant here (and so does the draft).
    fn end_slow_start(&mut self, rtt_us: u32) {
        self.is_slow_start = false;
        self.set_interval(if self.delivery_rate > 0.0 {
            1e6 / self.delivery_rate
        } else {
            (f64::from(rtt_us) + CONTROL_INTERVAL_US) / self.window
        });
    }

    /// The receiver misses packets, `first` before all others; `lost` wait to be sent again, and `next` is the next to be sent for the
    /// first time.
    pub fn loss_report(&mut self, first: u64, lost: usize, next: u64, rtt_us: u32) {
        if self.is_slow_start {
            self.end_slow_start(rtt_us);
        }
        self.has_loss = true;
        let under_way = (f64::from(rtt_us) / self.interval_us).floor();
        if under_way > 0.0 && (lost as f64) < under_way * TOLERATED_LOSS {
            self.interval_before_us = self.interval_us;
            return;
        }
        if first >= self.decreased_at {
            self.interval_before_us = self.interval_us;
            self.reports_mean = (f64::from(self.reports_mean) * 0.97 + f64::from(self.reports) * 0.03).ceil() as u32;
            (self.reports, self.decreases) = (1, 1);
            self.reports_each = if self.reports_mean > 1 { self.draw(self.reports_mean) } else { 1 };
        } else {
            self.decreases = self.decreases.saturating_add(1);
            if self.decreases > DECREASES_MAX {
                return;
            }
            self.reports = self.reports.saturating_add(1);
            if !self.reports.is_multiple_of(self.reports_each) {
                return;
            }
        }
        self.decreased_at = next;
        self.set_interval(self.interval_us * DECREASE);
    }

    /// The receiver has been silent for so long that everything is sent again.
    pub fn timed_out(&mut self, rtt_us: u32) {
        if self.is_slow_start {
            self.end_slow_start(rtt_us);
        }
    }

    /// From 1 to `most`, always in the same order (xorshift).
    fn draw(&mut self, most: u32) -> u32 {
        self.random |= 1;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % u64::from(most)) as u32 + 1
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            is_slow_start,
            window,
            window_max,
            interval_us,
            interval_floor_us,
            packet_size,
            acknowledged,
            adjusted_at,
            has_loss,
            decreased_at,
            interval_before_us,
            reports,
            reports_mean,
            reports_each,
            decreases,
            delivery_rate,
            capacity,
            next_send_at,
            owed,
            random,
        } = self;
        to.bool(*is_slow_start);
        for figure in [
            window,
            window_max,
            interval_us,
            interval_floor_us,
            packet_size,
            interval_before_us,
            delivery_rate,
            capacity,
            owed,
        ] {
            to.float(*figure);
        }
        to.count(*acknowledged);
        to.instant(*adjusted_at);
        to.bool(*has_loss);
        to.count(*decreased_at);
        for figure in [reports, reports_mean, reports_each, decreases] {
            to.u32(*figure);
        }
        to.instant(*next_send_at);
        to.array(&random.to_le_bytes());
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let is_slow_start = from.bool()?;
        let restored = Self {
            is_slow_start,
            window: from.float()?,
            window_max: from.float()?,
            interval_us: from.float()?,
            interval_floor_us: from.float()?,
            packet_size: from.float()?,
            interval_before_us: from.float()?,
            delivery_rate: from.float()?,
            capacity: from.float()?,
            owed: from.float()?,
            acknowledged: from.count()?,
            adjusted_at: from.instant()?,
            has_loss: from.bool()?,
            decreased_at: from.count()?,
            reports: from.u32()?,
            reports_mean: from.u32()?,
            reports_each: from.u32()?,
            decreases: from.u32()?,
            next_send_at: from.instant()?,
            random: u64::from_le_bytes(from.array()?),
        };
        let is_interval = |us: f64| (INTERVAL_MIN_US..=INTERVAL_MAX_US).contains(&us);
        valid(is_interval(restored.interval_floor_us) && is_interval(restored.interval_us))?;
        valid(is_interval(restored.interval_before_us) && restored.interval_us >= restored.interval_floor_us)?;
        valid((1.0..=65_536.0).contains(&restored.packet_size) && (0.0..=1e3).contains(&restored.owed))?;
        valid([restored.window, restored.window_max].iter().all(|window| (1.0..=2e9).contains(window)))?;
        valid([restored.delivery_rate, restored.capacity].iter().all(|rate| (0.0..=5e9).contains(rate)))?;
        valid(restored.reports_each > 0 && restored.reports_mean <= 1 << 20)?;
        Ok(restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::srt::snapshot::SnapshotKind;

    const RTT_US: u32 = 40_000;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(1_000 + ms)
    }

    fn control() -> CongestionControl {
        CongestionControl::new(at(0), 1_600, 8_192, 1_500)
    }

    fn rates(packets_per_second: u32, capacity: u32) -> Option<ReceivingRates> {
        Some(ReceivingRates { packets_per_second, link_capacity_packets_per_second: capacity, bytes_per_second: None })
    }

    /// Past slow start, at the rate that the receiver tells.
    fn avoiding(packets_per_second: u32, capacity: u32) -> CongestionControl {
        let mut control = control();
        control.acknowledged(at(1), 1_600, rates(packets_per_second, capacity), RTT_US);
        control.timed_out(RTT_US);
        control
    }

    #[test]
    fn slow_start_grows_by_what_is_acknowledged_once_a_control_interval_and_ends_with_the_peers_window() {
        let mut control = control();
        assert_eq!(control.window(), 16);
        control.acknowledged(at(10), 1_616, None, RTT_US);
        assert_eq!(control.window(), 32);
        control.acknowledged(at(15), 1_632, None, RTT_US);
        assert_eq!(control.window(), 32, "not twice in 10 ms");
        control.acknowledged(at(20), 1_648, None, RTT_US);
        assert_eq!((control.window(), control.interval_us()), (64, 1.0));
        control.acknowledged(at(30), 1_648 + 8_192, rates(5_000, 0), RTT_US);
        assert!(!control.is_slow_start);
        // What the receiver told, and a little more each time from here on.
        assert!((199.0..=200.0).contains(&control.interval_us()), "{}", control.interval_us());
        control.acknowledged(at(40), 1_648 + 8_200, rates(5_000, 0), RTT_US);
        assert_eq!(control.window(), 5_000 * 50 / 1_000 + 16);
    }

    #[test]
    fn a_loss_ends_slow_start_at_the_rate_that_was_reached() {
        let mut told = control();
        told.acknowledged(at(1), 1_600, rates(2_000, 9_000), RTT_US);
        told.loss_report(1_605, 10, 1_640, RTT_US);
        assert!((told.interval_us() - 500.0 * 1.03).abs() < 1e-9, "{}", told.interval_us());
        let mut untold = control();
        untold.loss_report(1_605, 1, 1_640, RTT_US);
        // 16 packets in a round trip and a control interval.
        assert!((untold.interval_us() - 50_000.0 / 16.0 * 1.03).abs() < 1e-6, "{}", untold.interval_us());
    }

    #[test]
    fn the_rate_rises_the_faster_the_more_of_the_path_is_free_and_never_past_its_limit() {
        let after_a_second = |capacity| {
            let mut control = avoiding(1_000, capacity);
            for n in 1..=100 {
                control.acknowledged(at(10 * n + 1), 1_600, rates(1_000, capacity), RTT_US);
            }
            1e6 / control.interval_us()
        };
        let (known, unknown, little) = (after_a_second(50_000), after_a_second(0), after_a_second(1_100));
        assert!(known > 1_900.0, "{known}");
        assert!(unknown < 1_010.0 && unknown > 1_000.0, "{unknown}");
        assert!(little > unknown && little < 1_150.0, "{little}");
        let mut limited = avoiding(1_000, 50_000);
        limited.limit_rate(24_000_000);
        for n in 1..=100 {
            limited.acknowledged(at(10 * n + 1), 1_600, rates(1_000, 50_000), RTT_US);
        }
        assert_eq!(limited.interval_us(), 500.0);
    }

    #[test]
    fn losses_slow_it_down_once_for_what_was_sent_before_and_five_times_for_one_congestion() {
        let mut control = avoiding(10_000, 50_000);
        control.loss_report(1_700, 50, 3_000, RTT_US);
        assert!((control.interval_us() - 103.0).abs() < 1e-9);
        for _ in 0..20 {
            control.loss_report(1_800, 50, 3_000, RTT_US);
        }
        let slowest = 100.0 * DECREASE.powi(5);
        assert!((control.interval_us() - slowest).abs() < 1e-9, "{}", control.interval_us());
        control.loss_report(3_000, 50, 4_000, RTT_US);
        assert!((control.interval_us() - slowest * DECREASE).abs() < 1e-9, "what was sent since is another congestion");
        let before = control.interval_us();
        control.acknowledged(at(100), 3_500, rates(9_000, 50_000), RTT_US);
        assert_eq!(control.interval_us(), before, "no increase straight after a loss");
    }

    #[test]
    fn less_than_two_per_cent_is_the_paths_own_loss() {
        // 400 packets to a round trip.
        let mut control = avoiding(10_000, 50_000);
        control.loss_report(1_700, 7, 3_000, RTT_US);
        assert_eq!(control.interval_us(), 100.0);
        control.loss_report(1_800, 8, 3_000, RTT_US);
        assert_eq!(control.interval_us(), 103.0);
    }

    #[test]
    fn packets_leave_at_intervals_but_every_sixteenth_with_the_next() {
        let mut control = avoiding(1_000, 0);
        let mut left = Vec::new();
        let mut now = at(100);
        for sequence in 1_599..1_604_u64 {
            now = now.max(control.next_send_at());
            left.push(now.saturating_since(at(100)).as_micros());
            control.sent(now, sequence, true);
        }
        // The first makes up for having been late, 2 ms of it.
        assert_eq!(left, [0, 0, 0, 1_000, 2_000]);
    }

    #[test]
    fn it_goes_on_after_a_snapshot_as_it_would_have() {
        let mut control = avoiding(1_000, 7_000);
        control.loss_report(1_700, 50, 3_000, RTT_US);
        control.sent(at(50), 1_616, true);
        let mut bytes = Vec::new();
        let mut writer = SnapshotWriter::new(SnapshotKind::Connection, &mut bytes);
        control.snapshot(&mut writer);
        writer.finish();
        let mut reader = SnapshotReader::new(SnapshotKind::Connection, &bytes).expect("whole");
        assert_eq!(CongestionControl::restore(&mut reader), Ok(control));
    }
}
