//! What the receiver tells the sender: how far everything has come (ACK, draft-sharabayko-srt §4.8.1), and what is missing (NAK, §4.8.2).

use std::time::Duration;

use super::Receiver;
use crate::base::Instant;
use crate::protocol::srt::acknowledgement::RoundTrip;
use crate::protocol::srt::packet::SequenceNumber;
use crate::protocol::srt::statistics::Statistics;

/// The shortest time between two full acknowledgements (draft-sharabayko-srt §4.8.1).
pub const ACK_INTERVAL: Duration = Duration::from_millis(10);
/// The same while few packets come. A full acknowledgement costs the receiver as much as several of these, and its receipt once more.
/// libsrt's sender sends again what it hears nothing of, where it gets no loss reports, after 30 ms and a round trip; and sooner than
/// that this must be.
const ACK_INTERVAL_OF_FEW: Duration = Duration::from_millis(20);
/// Packets since the last one that are few: 17 Mbit/s.
const FEW_PACKETS: u32 = 16;
/// Data packets after which a light acknowledgement is sent (draft-sharabayko-srt §3.2.4).
pub(super) const LIGHT_ACK_PACKETS: u32 = 64;

impl Receiver {
    /// When the next full acknowledgement is due: 10 ms after the last one if there is something new to say, 20 ms if it is little; a round
    /// trip and its deviations after it if the peer has not confirmed it, never if it has.
    #[inline]
    pub fn ack_at(&self, round_trip: &RoundTrip) -> Instant {
        let next = self.buffer.first_missing();
        let has_room_again = self.was_full && self.buffer.free() > 0;
        if next != self.acknowledged || has_room_again {
            let is_little = self.packets_since_ack < FEW_PACKETS && !has_room_again;
            self.acknowledged_at + if is_little { ACK_INTERVAL_OF_FEW } else { ACK_INTERVAL }
        } else if next != self.confirmed {
            self.acknowledged_at + round_trip.patience().max(ACK_INTERVAL)
        } else {
            Instant::FAR_FUTURE
        }
    }

    /// The number of a full acknowledgement that goes out now, and what it acknowledges.
    pub fn take_ack(&mut self, now: Instant) -> (u32, SequenceNumber) {
        let next = self.buffer.first_missing();
        if self.was_full {
            // That there is room again must reach the sender, or it waits for ever: repeated until confirmed.
            self.confirmed = self.confirmed.min(next.saturating_sub(1));
            self.window.outdate(next);
        }
        self.acknowledged = next;
        self.acknowledged_at = now;
        self.was_full = self.buffer.free() == 0;
        self.packets_since_ack = 0;
        self.light_acks = 0;
        (self.window.send(now, next), SequenceNumber::new(next))
    }

    /// Packets per second, capacity of the path in packets per second, bytes per second.
    pub fn rates(&mut self, now: Instant, statistics: &Statistics) -> (u32, u32, u32) {
        let (packets, bytes) = self.rates.update(now, statistics.pkt_recv, statistics.byte_recv);
        (packets, self.rates.link_capacity(), bytes)
    }

    /// The peer has answered an acknowledgement. `false` when that was never sent or has been answered.
    pub fn acknowledgement_receipt(
        &mut self,
        arrival: Instant,
        number: u32,
        timestamp_us: u32,
        round_trip: &mut RoundTrip,
    ) -> bool {
        let Some((rtt_us, next)) = self.window.answered(arrival, number) else { return false };
        round_trip.add_sample(rtt_us);
        self.confirmed = self.confirmed.max(next);
        if self.time.add_sample(timestamp_us, arrival, rtt_us) {
            self.schedule();
        }
        true
    }

    /// What the last full acknowledgement said.
    pub fn acknowledged(&self) -> SequenceNumber {
        SequenceNumber::new(self.acknowledged)
    }

    /// Whether a light acknowledgement is due: many packets between two full ones.
    #[inline]
    pub fn wants_light_ack(&self) -> bool {
        self.packets_since_ack >= LIGHT_ACK_PACKETS * (self.light_acks + 1)
            && self.buffer.first_missing() != self.confirmed
    }

    /// What a light acknowledgement says; one is not due again for a while.
    pub fn take_light_ack(&mut self) -> SequenceNumber {
        self.light_acks = self.packets_since_ack / LIGHT_ACK_PACKETS;
        SequenceNumber::new(self.buffer.first_missing())
    }

    /// When the next periodic loss report is due; far future when nothing is missing.
    #[inline]
    pub fn nak_at(&self) -> Instant {
        if self.losses.is_empty() || !self.losses.is_repeated() { Instant::FAR_FUTURE } else { self.nak_at }
    }

    /// A periodic loss report goes out now.
    pub fn periodic_nak_sent(&mut self, now: Instant, round_trip: &RoundTrip) {
        // It names what is due to be reported again, too.
        while self.losses.next_repeat(now, self.buffer.head(), round_trip).is_some() {}
        self.nak_at = now + round_trip.nak_interval();
        self.reported_end = self.buffer.head();
        self.report_until = self.losses.periodic_report(self.expected);
    }

    /// When a run is due to be reported between two periodic reports: at once for the first time, later again.
    #[inline]
    pub fn report_at(&self) -> Instant {
        if self.losses.has_fresh() { Instant::ZERO } else { self.losses.repeat_at() }
    }

    /// The same without what is due at once.
    #[inline]
    pub fn repeat_at(&self) -> Instant {
        self.losses.repeat_at()
    }

    /// The next run for such a report, as its first number and the one after its last.
    pub fn next_to_report(&mut self, now: Instant, round_trip: &RoundTrip) -> Option<(u64, u64)> {
        let head = self.buffer.head();
        let Some(fresh) = self.losses.next_fresh(head) else { return self.losses.next_repeat(now, head, round_trip) };
        self.losses.reported(now, fresh, round_trip);
        Some(fresh)
    }

    /// All runs of missing packets, oldest first.
    pub fn missing_runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.losses.runs(self.buffer.head(), self.expected)
    }

    /// The next run of the loss report under way.
    pub fn next_missing(&mut self) -> Option<(u64, u64)> {
        let run = self.losses.next_run(self.reported_end.max(self.buffer.head()), self.report_until)?;
        self.reported_end = run.1;
        Some(run)
    }

    /// The peer has moved and may not know what it was told: it is told again at once.
    pub fn path_changed(&mut self) {
        self.acknowledged_at = Instant::ZERO;
        self.reported_end = self.buffer.head();
        // Even what may still close by itself; the next periodic report names it again.
        self.losses.periodic_report(self.expected);
        self.report_until = if self.losses.is_repeated() { self.expected } else { self.reported_end };
        self.confirmed = self.confirmed.min(self.buffer.first_missing().saturating_sub(1));
    }
}
