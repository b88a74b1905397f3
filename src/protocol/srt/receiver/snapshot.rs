//! The receiving half in a snapshot, with the packets that it holds.

use super::Receiver;
use super::filter::{self, Filter};
use super::reports::LIGHT_ACK_PACKETS;
use crate::base::{Instant, Packet};
use crate::protocol::srt::acknowledgement::{AcknowledgementWindow, Rates};
use crate::protocol::srt::delivery_time::DeliveryTime;
use crate::protocol::srt::loss::ReceiverLosses;
use crate::protocol::srt::parameters::ConnectionParameters;
use crate::protocol::srt::receive_buffer::ReceiveBuffer;
use crate::protocol::srt::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, valid};

impl Receiver {
    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            // Follows from what is held.
            next_due: _,
            buffer,
            losses,
            time,
            delivered,
            given_up_end,
            handed_up_due,
            expected,
            by_timestamp,
            retransmission_flag,
            is_sealed,
            // Follow from the mode, and from that.
            is_reliable: _,
            is_untimed: _,
            packets_since_ack,
            light_acks,
            acknowledged,
            acknowledged_at,
            confirmed,
            was_full,
            nak_at,
            reported_end,
            report_until,
            has_parts,
            message_end,
            gives_up_message,
            window,
            rates,
            jump_candidate,
            filter,
        } = self;
        buffer.snapshot(to, |to, packet| to.bytes(packet));
        to.count(*expected);
        losses.snapshot(to, buffer.head(), *expected);
        time.snapshot(to);
        to.count(*delivered);
        to.count(*given_up_end);
        to.instant(*handed_up_due);
        to.bool(*by_timestamp);
        to.bool(*retransmission_flag);
        to.bool(*is_sealed);
        to.u32(*packets_since_ack);
        to.u32(*light_acks);
        to.count(*acknowledged);
        to.instant(*acknowledged_at);
        to.count(*confirmed);
        to.bool(*was_full);
        to.instant(*nak_at);
        to.count(*reported_end);
        to.count(*report_until);
        to.bool(*has_parts);
        to.count(*message_end);
        to.bool(*gives_up_message);
        window.snapshot(to);
        rates.snapshot(to);
        to.optional_count(*jump_candidate);
        // Whether there is one is said by the parameters.
        if let Some(filter) = filter {
            filter.snapshot(to);
        }
    }

    pub(crate) fn restore(
        from: &mut SnapshotReader<'_>,
        parameters: &ConnectionParameters,
        buffer_packets: usize,
        mut take_packet: impl FnMut(&[u8]) -> Option<Packet>,
    ) -> Result<Self, RestoreError> {
        let read = |from: &mut SnapshotReader<'_>| take_packet(from.bytes()?).ok_or(RestoreError::NoMemory);
        let buffer = ReceiveBuffer::restore(from, buffer_packets, read)?;
        let (head, expected) = (buffer.head(), from.count()?);
        valid(buffer.end() <= expected && expected - head <= buffer.capacity() as u64)?;
        let capacity = buffer.capacity();
        let losses = ReceiverLosses::restore(from, capacity, parameters.peer_version, (head, expected))?;
        let mut restored = Self {
            next_due: Instant::FAR_FUTURE,
            losses: filter::behind(losses, parameters),
            buffer,
            expected,
            time: DeliveryTime::restore(from)?,
            delivered: from.count()?,
            given_up_end: from.count()?,
            handed_up_due: from.instant()?,
            by_timestamp: from.bool()?,
            retransmission_flag: from.bool()?,
            is_sealed: from.bool()?,
            is_reliable: parameters.mode.is_reliable(),
            is_untimed: false,
            packets_since_ack: from.u32()?,
            light_acks: from.u32()?,
            acknowledged: from.count()?,
            acknowledged_at: from.instant()?,
            confirmed: from.count()?,
            was_full: from.bool()?,
            nak_at: from.instant()?,
            reported_end: from.count()?,
            report_until: from.count()?,
            has_parts: from.bool()?,
            message_end: from.count()?,
            gives_up_message: from.bool()?,
            window: AcknowledgementWindow::restore(from)?,
            rates: Rates::restore(from)?,
            jump_candidate: from.optional_count()?,
            filter: Filter::restore(from, parameters, (expected, capacity), take_packet)?,
        };
        valid(restored.delivered <= head && restored.report_until <= expected)?;
        valid(
            restored.packets_since_ack < 1 << 31
                && restored.light_acks <= restored.packets_since_ack / LIGHT_ACK_PACKETS,
        )?;
        valid(restored.missing_runs().all(|(first, end)| restored.buffer.holds_none(first, end)))?;
        restored.is_untimed = restored.is_sealed || restored.is_reliable;
        restored.schedule();
        Ok(restored)
    }
}
