//! A group in a snapshot, with the connections of all its legs: what one publisher's stream goes on with.

use super::{Event, Group, LEGS_MAX, Leg, LegStatistics};
use crate::base::Packet;
use crate::protocol::srt::connection::{CloseReason, Connection};
use crate::protocol::srt::membership::{GROUP_ID_BIT, Membership};
use crate::protocol::srt::snapshot::{
    RestoreError, SnapshotKind, SnapshotReader, SnapshotWriter, snapshot_fields, valid,
};
use crate::protocol::srt::statistics::Statistics;

impl Group {
    /// Appends the group to `snapshot`: where the stream is, and each leg as [`Connection::snapshot`] has it, with the same secrets. The time
    /// that all legs share is in each of them.
    pub fn snapshot(&self, snapshot: &mut Vec<u8>) {
        let Self {
            legs,
            next,
            due,
            has_begun,
            leader,
            group_id,
            peer,
            latency_ms,
            pkt_delivered,
            pkt_rcv_drop,
            departed,
            departed_elsewhere,
            events,
        } = self;
        let mut writer = SnapshotWriter::new(SnapshotKind::Group, snapshot);
        let to = &mut writer;
        to.count(*next);
        to.instant(*due);
        to.bool(*has_begun);
        to.u8(*leader);
        to.u32(*group_id);
        peer.snapshot(to);
        to.u16(*latency_ms);
        to.count(*pkt_delivered);
        to.count(*pkt_rcv_drop);
        departed.snapshot(to);
        to.count(*departed_elsewhere);
        to.size(legs.len());
        legs.iter().for_each(|leg| leg.snapshot(to));
        to.size(events.len());
        events.iter().for_each(|event| event.snapshot(to));
        writer.finish();
    }

    /// The group that [`snapshot`](Self::snapshot) was taken of. `slots_max` is how many packets the buffers of each leg may have room for,
    /// and `take_packet` gives the bytes of a packet that is held a place in packet memory, as for [`Connection::restore`].
    ///
    /// # Errors
    ///
    /// As [`Connection::restore`].
    pub fn restore(
        snapshot: &[u8],
        slots_max: usize,
        mut take_packet: impl FnMut(&[u8]) -> Option<Packet>,
    ) -> Result<Self, RestoreError> {
        let mut reader = SnapshotReader::new(SnapshotKind::Group, snapshot)?;
        let from = &mut reader;
        let next = from.count()?;
        let restored = Self {
            next,
            due: from.instant()?,
            has_begun: from.bool()?,
            leader: from.u8()?,
            group_id: from.u32()?,
            peer: Membership::restore(from)?,
            latency_ms: from.u16()?,
            pkt_delivered: from.count()?,
            pkt_rcv_drop: from.count()?,
            departed: Statistics::restore(from)?,
            departed_elsewhere: from.count()?,
            legs: {
                let mut legs: Vec<Leg> = Vec::with_capacity(LEGS_MAX);
                for _ in 0..from.size()? {
                    valid(legs.len() < LEGS_MAX)?;
                    let leg = Leg::restore(from, slots_max, &mut take_packet)?;
                    valid(legs.iter().all(|other| other.path != leg.path))?;
                    // What was handed up no leg holds.
                    valid(leg.connection.receiver().first_held().is_none_or(|first| first >= next))?;
                    legs.push(leg);
                }
                legs
            },
            events: (0..from.size()?).map(|_| Event::restore(from)).collect::<Result<_, _>>()?,
        };
        valid(restored.group_id & GROUP_ID_BIT != 0 && restored.group_id >> 31 == 0)?;
        reader.finish()?;
        Ok(restored)
    }
}

impl Leg {
    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self { path, weight, connection, data_at, begins, statistics } = self;
        to.u8(*path);
        to.u16(*weight);
        connection.write(to);
        to.option(*data_at, SnapshotWriter::instant);
        to.count(*begins);
        statistics.snapshot(to);
    }

    fn restore(
        from: &mut SnapshotReader<'_>,
        slots_max: usize,
        take_packet: impl FnMut(&[u8]) -> Option<Packet>,
    ) -> Result<Self, RestoreError> {
        let restored = Self {
            path: from.u8()?,
            weight: from.u16()?,
            connection: Connection::read(from, slots_max, take_packet)?,
            data_at: from.option(SnapshotReader::instant)?,
            begins: from.count()?,
            statistics: LegStatistics::restore(from)?,
        };
        valid(usize::from(restored.path) < LEGS_MAX)?;
        // A leg is never given any of these.
        let parameters = restored.connection.parameters();
        valid(!parameters.mode.is_reliable())?;
        valid(parameters.packet_filter.is_none() && parameters.version4.is_none())?;
        Ok(restored)
    }
}

impl LegStatistics {
    snapshot_fields! { count pkt_rcv_elsewhere, count pkt_rcv_discrepant }
}

impl Event {
    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        match *self {
            Self::Leg { path, event } => {
                to.u8(0);
                to.u8(path);
                event.snapshot(to);
            }
            Self::LegClosed { path, socket_id, peer, reason } => {
                to.u8(1);
                to.u8(path);
                to.u32(socket_id);
                to.address(peer);
                reason.snapshot(to);
            }
            Self::Closed(reason) => {
                to.u8(2);
                reason.snapshot(to);
            }
        }
    }

    fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(match from.u8()? {
            0 => Self::Leg { path: from.u8()?, event: super::connection::Event::restore(from)? },
            1 => Self::LegClosed {
                path: from.u8()?,
                socket_id: from.u32()?,
                peer: from.address()?,
                reason: CloseReason::restore(from)?,
            },
            2 => Self::Closed(CloseReason::restore(from)?),
            _ => return Err(RestoreError::Invalid),
        })
    }
}
