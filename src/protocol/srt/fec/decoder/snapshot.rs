//! The sums of the receiver's half in a snapshot, with the control packets that it holds.

use super::{Decoder, FEC_HEADER_LEN, Gathering, Geometry, Group, HEADER_LEN, MESSAGE_NUMBER_MAX};
use crate::base::Packet;
use crate::protocol::srt::packet::{DataHeader, SequenceNumber};
use crate::protocol::srt::sequence_set::SequenceSet;
use crate::protocol::srt::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, valid};

impl Decoder {
    /// The offsets whose bits are in the set.
    fn known(&self) -> (u64, u64) {
        let end = (self.newest_row + self.rows_ahead + 1) * self.geometry.cols;
        (end.saturating_sub(self.received.capacity() as u64), end)
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            // Follow from what was agreed on.
            geometry: _,
            first: _,
            rows_kept: _,
            rows_ahead: _,
            groups,
            clips,
            received,
            newest,
            // The row of the newest.
            newest_row: _,
            settled,
            patience,
            // Between two datagrams there are none.
            ready: _,
            // As many as are written.
            held: _,
            last,
        } = self;
        to.count(*newest);
        to.count(*settled);
        to.count(*patience);
        let (from, end) = self.known();
        received.snapshot(to, from, end);
        for (at, gathering) in groups.iter().enumerate() {
            let Gathering { group, collected, has_control, spoiled, control } = gathering;
            to.option(*group, |to, group| {
                match group {
                    Group::Row(row) => to.count(row),
                    Group::Column { series, .. } => to.count(series),
                }
                to.count(*collected);
                to.bool(*has_control);
                to.bool(*spoiled);
                to.option(control.as_ref(), |to, packet| to.bytes(packet));
                clips.snapshot(at, to);
            });
        }
        let DataHeader { sequence, position, in_order, key, retransmitted, message_number, timestamp_us, socket_id } =
            *last;
        to.count(sequence.get());
        to.position(position);
        to.bool(in_order);
        to.key_flag(key);
        to.bool(retransmitted);
        to.u32(message_number);
        to.u32(timestamp_us);
        to.u32(socket_id);
    }

    /// Reads what [`snapshot`](Self::snapshot) has written, into a new one, for a receiver that awaits packet `expected` and has `capacity`
    /// slots.
    pub(crate) fn restore(
        &mut self,
        from: &mut SnapshotReader<'_>,
        (expected, capacity): (u64, usize),
        mut take_packet: impl FnMut(&[u8]) -> Option<Packet>,
    ) -> Result<(), RestoreError> {
        let Geometry { cols, rows, .. } = self.geometry;
        (self.newest, self.settled, self.patience) = (from.count()?, from.count()?, from.count()?);
        valid(self.patience <= self.geometry.matrix())?;
        valid(self.settled <= self.newest && self.newest - self.settled <= self.patience)?;
        // What was rebuilt or will not be sent may lie beyond the newest that came, but not by more than both windows.
        let ahead = expected.checked_sub(self.first + self.newest).ok_or(RestoreError::Invalid)?;
        valid(ahead <= capacity as u64 + (self.rows_kept + self.rows_ahead) * cols)?;
        self.newest_row = self.geometry.row(self.newest);
        let (known_from, known_end) = self.known();
        self.received = SequenceSet::restore(from, self.received.capacity(), known_from, known_end)?;
        for at in 0..self.groups.len() {
            if !from.bool()? {
                continue;
            }
            let number = from.count()?;
            let row_slots = (self.rows_kept + self.rows_ahead) as usize;
            let group = match at.checked_sub(row_slots) {
                None => Group::Row(number),
                Some(of_column) => Group::Column { column: of_column as u64 % cols, series: number },
            };
            valid(number <= self.newest_row + self.rows_ahead && self.slot(group) == at)?;
            valid(self.geometry.row(self.geometry.first(group)) <= self.newest_row + self.rows_ahead)?;
            let gathering = Gathering {
                group: Some(group),
                collected: from.count()?,
                has_control: from.bool()?,
                spoiled: from.bool()?,
                control: from.option(|from| {
                    let packet = from.bytes()?;
                    valid(packet.len() >= HEADER_LEN + FEC_HEADER_LEN)?;
                    take_packet(packet).ok_or(RestoreError::NoMemory)
                })?,
            };
            // One that could not be rebuilt counts, and may still come.
            valid(gathering.collected <= 1 + if at < row_slots { cols } else { rows })?;
            valid(gathering.has_control || gathering.control.is_none())?;
            self.held += usize::from(gathering.control.is_some());
            self.groups[at] = gathering;
            self.clips.restore(at, from)?;
        }
        self.last = DataHeader {
            sequence: SequenceNumber::new(from.count()?),
            position: from.position()?,
            in_order: from.bool()?,
            key: from.key_flag()?,
            retransmitted: from.bool()?,
            message_number: from.u32()?,
            timestamp_us: from.u32()?,
            socket_id: from.u32()?,
        };
        valid(self.last.message_number <= MESSAGE_NUMBER_MAX)
    }
}
