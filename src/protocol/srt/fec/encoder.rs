//! The sender's half: what goes out for the first time is added up, and a sum that is whole follows its last packet.

use arrayvec::ArrayVec;

use super::super::packet::{DataHeader, HEADER_LEN, KeyFlag, PacketPosition, SequenceNumber};
use super::clip::{Clipped, Clips};
use super::configuration::Fec;
use super::geometry::{Geometry, Group};
use super::{FEC_HEADER_LEN, ROW_INDEX};
use crate::protocol::srt::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, snapshot_fields, valid};

/// A group that is being added up; the row is first, then one of each column.
#[derive(Clone, Copy, Debug, Default)]
struct Filling {
    /// Which one: of the row its number, of a column its series.
    number: u64,
    collected: u64,
}

impl Filling {
    snapshot_fields! { count number, count collected }
}

/// Makes control packets. All its memory is taken in [`Encoder::new`].
#[derive(Debug)]
pub struct Encoder {
    geometry: Geometry,
    first: u64,
    groups: Box<[Filling]>,
    clips: Clips,
    /// Sums that are whole, and the index that each goes out with.
    due: ArrayVec<(usize, u8), 2>,
    /// The packet that made them whole, and its key.
    last: u64,
    key: KeyFlag,
}

impl Encoder {
    /// For a connection whose first packet is number `first` and whose payloads, tags included, have up to `payload_max` bytes.
    pub fn new(fec: &Fec, first: u64, payload_max: usize) -> Self {
        let geometry = Geometry::new(fec);
        let count = if geometry.has_columns() { 1 + geometry.cols as usize } else { 1 };
        Self {
            geometry,
            first,
            groups: vec![Filling::default(); count].into_boxed_slice(),
            clips: Clips::new(count, payload_max),
            due: ArrayVec::new(),
            last: first,
            key: KeyFlag::Plain,
        }
    }

    /// Adds a packet that goes out for the first time, as it is on the wire. Groups of which a packet was never sent have no control
    /// packet.
    ///
    /// # Panics
    /// If control packets of the one before it have not been written: they follow it at once.
    #[inline]
    pub fn feed(&mut self, sequence: u64, header: &DataHeader, payload: &[u8]) {
        assert!(self.due.is_empty(), "control packets go out before the next packet");
        let offset = sequence - self.first;
        let packet = Clipped::data(header.key, header.timestamp_us, payload);
        (self.last, self.key) = (sequence, header.key);
        // The column goes first, as in libsrt.
        if let Some((column, series, _)) = self.geometry.column(offset) {
            let size = self.geometry.size(Group::Column { column, series });
            self.add(1 + column as usize, series, size, column as u8, packet);
        }
        if self.geometry.has_rows {
            self.add(0, self.geometry.row(offset), self.geometry.cols, ROW_INDEX, packet);
        }
    }

    fn add(&mut self, at: usize, number: u64, size: u64, index: u8, packet: Clipped<'_>) {
        let group = &mut self.groups[at];
        if group.number != number || group.collected == size {
            *group = Filling { number, collected: 0 };
            self.clips.reset(at);
        }
        group.collected += 1;
        self.clips.add(at, packet);
        if group.collected == size {
            self.due.push((at, index));
        }
    }

    /// Appends the next control packet for `socket_id` to `buffer`; `false` when none is due.
    ///
    /// It is as long as the longest payload in it. libsrt's are always as long as its longest payload may be, and its receiver adds up
    /// into a buffer of that size without looking: no more must be sent than is needed.
    pub fn write_control(&mut self, socket_id: u32, buffer: &mut Vec<u8>) -> bool {
        if self.due.is_empty() {
            return false;
        }
        let (at, index) = self.due.remove(0);
        let (sum, payload) = self.clips.get(at);
        let header = DataHeader {
            sequence: SequenceNumber::new(self.last),
            position: PacketPosition::Only,
            in_order: false,
            key: self.key,
            retransmitted: false,
            message_number: 0,
            timestamp_us: sum.timestamp_us,
            socket_id,
        };
        let mut bytes = [0; HEADER_LEN + FEC_HEADER_LEN];
        header.encode(bytes.first_chunk_mut().expect("room for a header"));
        let [high, low] = sum.length.to_be_bytes();
        bytes[HEADER_LEN..].copy_from_slice(&[index, sum.flags, high, low]);
        buffer.extend_from_slice(&bytes);
        buffer.extend_from_slice(payload);
        true
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        // What is not written follows from what was agreed on.
        let Self { geometry: _, first: _, groups, clips, due, last, key } = self;
        for (at, group) in groups.iter().enumerate() {
            group.snapshot(to);
            clips.snapshot(at, to);
        }
        to.size(due.len());
        due.iter().for_each(|&(at, _)| to.size(at));
        to.count(*last);
        to.key_flag(*key);
    }

    /// Reads what [`snapshot`](Self::snapshot) has written, into a new one.
    pub(crate) fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), RestoreError> {
        for at in 0..self.groups.len() {
            let group = Filling::restore(from)?;
            let size = if at == 0 { self.geometry.cols } else { self.geometry.rows };
            valid(group.collected <= size)?;
            self.groups[at] = group;
            self.clips.restore(at, from)?;
        }
        for _ in 0..from.size()? {
            let at = from.size()?;
            valid(at < self.groups.len() && !self.due.is_full())?;
            self.due.push((at, if at == 0 { ROW_INDEX } else { (at - 1) as u8 }));
        }
        (self.last, self.key) = (from.count()?, from.key_flag()?);
        Ok(())
    }

    /// Whether `sequence` can be the number of the next packet that goes out for the first time.
    pub(crate) fn goes_on_at(&self, sequence: u64) -> bool {
        self.first <= sequence && self.last <= sequence
    }
}
