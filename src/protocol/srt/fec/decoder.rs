//! The receiver's half: what comes is added up, and where a sum lacks one packet, that packet is made of it.
//!
//! Sums are kept for three matrices up to the newest packet, and for one beyond it, since the packets of a whole row may be lost and
//! their control packets not:
//!
//! ```text
//!        floor                                    newest
//!    past  │ three matrices, or 128 packets         │ one matrix │ too far
//!   ───────┴────────────────────────────────────────┴────────────┴─────────
//! ```
//!
//! Only data moves the window; a control packet that lies outside does nothing. A rebuilt packet is written over the control packet
//! that it came of, so that none needs memory that has to be asked for: a control packet is held as long as its group misses two or
//! more.

use super::super::loss::ReceiverLosses;
use super::super::packet::{DataHeader, HEADER_LEN, KeyFlag, MESSAGE_NUMBER_MAX, PacketPosition, SequenceNumber};
use super::super::parameters::{IPV4_UDP_LEN, MTU_MAX};
use super::super::sequence_set::SequenceSet;
use super::super::statistics::Statistics;
use super::clip::{Clipped, Clips, Sum};
use super::configuration::{ArqLevel, COLS_MAX, Fec, Layout, MATRIX_MAX, ROWS_MAX};
use super::geometry::{Geometry, Group};
use super::{FEC_HEADER_LEN, ROW_INDEX};
use crate::base::Packet;

mod snapshot;

/// Matrices that are kept before the newest packet: a group of a staircase ends a matrix after it began, and may be of use to others
/// for one more (libsrt keeps two).
const MATRICES_KEPT: u64 = 3;
/// However small the matrix, so many packets are: no network reorders more.
const PACKETS_KEPT_MIN: u64 = 128;

/// A group that is being gathered.
#[derive(Debug)]
struct Gathering {
    group: Option<Group>,
    collected: u64,
    has_control: bool,
    /// No rebuilding: what it added up to was no packet.
    spoiled: bool,
    /// The control packet, as long as it may become the missing one.
    control: Option<Packet>,
}

impl Gathering {
    const NONE: Self = Self { group: None, collected: 0, has_control: false, spoiled: false, control: None };
}

/// A packet that came to be here without coming.
#[derive(Debug)]
pub struct Rebuilt {
    /// Its number.
    pub sequence: u64,
    /// Its header as the sender will have written it; of message numbers only the distance to its neighbour's is known.
    pub header: DataHeader,
    /// Its payload, still encrypted.
    pub payload: Packet,
}

/// Rebuilds packets. All its memory is taken in [`Decoder::new`].
#[derive(Debug)]
pub struct Decoder {
    geometry: Geometry,
    /// Number of the connection's first packet, from which offsets count.
    first: u64,
    groups: Box<[Gathering]>,
    clips: Clips,
    rows_kept: u64,
    rows_ahead: u64,
    /// What came or was rebuilt, by offset.
    received: SequenceSet,
    /// Offset of the newest data packet, and its row.
    newest: u64,
    newest_row: u64,
    /// Before this offset it is known of every packet whether the filter has given it up.
    settled: u64,
    /// How many packets may come after a group's last one before it counts as over.
    patience: u64,
    /// Groups that lack one packet and have their sum.
    ready: Vec<usize>,
    held: usize,
    /// Header of the data packet that came last: what a sum does not tell is as there.
    last: DataHeader,
}

impl Decoder {
    /// For a connection whose first packet is number `first`, whose payloads, tags included, have up to `payload_max` bytes, and whose
    /// packets may be overtaken by `reorder_tolerance` others.
    pub fn new(fec: &Fec, first: u64, payload_max: usize, reorder_tolerance: u16) -> Self {
        let geometry = Geometry::new(fec);
        let (rows_kept, rows_ahead) = window(&geometry);
        let rows = rows_kept + rows_ahead;
        let count = Self::groups_max(fec);
        // libsrt gives a row a third of the next one.
        let patience = (geometry.cols / 3).max(u64::from(reorder_tolerance)).min(geometry.matrix());
        Self {
            first,
            groups: std::iter::repeat_with(|| Gathering::NONE).take(count).collect(),
            clips: Clips::new(count, payload_max),
            rows_kept,
            rows_ahead,
            received: SequenceSet::new(((rows * geometry.cols) as usize).next_power_of_two()),
            newest: 0,
            newest_row: 0,
            settled: 0,
            patience,
            ready: Vec::with_capacity(count),
            held: 0,
            last: DataHeader::default(),
            geometry,
        }
    }

    /// How many sums there are.
    pub fn groups_max(fec: &Fec) -> usize {
        let geometry = Geometry::new(fec);
        let (rows_kept, rows_ahead) = window(&geometry);
        let rows = rows_kept + rows_ahead;
        // As many groups of each column begin in the window as it has matrices.
        let columns = if geometry.has_columns() { rows / geometry.rows * geometry.cols } else { 0 };
        (rows + columns) as usize
    }

    /// Most bytes that the sums of one connection take, whatever filter its peer asks for.
    pub fn memory_max() -> usize {
        let payload_max = MTU_MAX as usize - IPV4_UDP_LEN - HEADER_LEN;
        sums_max() * (payload_max + size_of::<Sum>() + size_of::<Gathering>())
    }

    /// Control packets that are held.
    #[inline]
    pub fn held(&self) -> usize {
        self.held
    }

    #[inline]
    fn floor_row(&self) -> u64 {
        (self.newest_row + 1).saturating_sub(self.rows_kept)
    }

    /// The place of a group among all that may be in the window.
    #[inline]
    fn slot(&self, group: Group) -> usize {
        let rows = self.rows_kept + self.rows_ahead;
        let at = match group {
            Group::Row(row) => row % rows,
            Group::Column { column, series } => {
                rows + series % (rows / self.geometry.rows) * self.geometry.cols + column
            }
        };
        at as usize
    }

    /// Where a group's sum is, when the group lies in the window. Whose place it takes has left it.
    fn place(&mut self, group: Group) -> Option<usize> {
        let row = self.geometry.row(self.geometry.first(group));
        if row < self.floor_row() || row > self.newest_row + self.rows_ahead {
            return None;
        }
        let at = self.slot(group);
        if self.groups[at].group != Some(group) {
            self.forget(at);
            self.groups[at].group = Some(group);
        }
        Some(at)
    }

    fn forget(&mut self, at: usize) {
        let gone = std::mem::replace(&mut self.groups[at], Gathering::NONE);
        self.held -= usize::from(gone.control.is_some());
        self.clips.reset(at);
    }

    /// The groups that a packet is in and that have control packets.
    #[inline]
    fn groups_of(&self, offset: u64) -> [Option<Group>; 2] {
        let row = self.geometry.has_rows.then(|| Group::Row(self.geometry.row(offset)));
        [row, self.geometry.column(offset).map(|(column, series, _)| Group::Column { column, series })]
    }

    /// A data packet came, and is what the peer sent as far as can be told; `payload` is as it was on the wire. What came before, or is
    /// older than the window, does nothing. `losses` are told what the filter gives up now that this one is there.
    #[inline]
    pub fn data(
        &mut self,
        sequence: u64,
        header: &DataHeader,
        payload: &[u8],
        losses: &mut ReceiverLosses,
        statistics: &mut Statistics,
    ) {
        let Some(offset) = sequence.checked_sub(self.first) else { return };
        if self.geometry.row(offset) < self.floor_row() {
            return;
        }
        if offset > self.newest {
            self.advance(offset, losses, statistics);
        }
        if !self.received.insert(offset) {
            return;
        }
        self.last = DataHeader { sequence: SequenceNumber::new(sequence), ..*header };
        self.collect(offset, Clipped::data(header.key, header.timestamp_us, payload), None);
    }

    /// Adds a packet to the sums of its groups, but not to that it came of.
    fn collect(&mut self, offset: u64, packet: Clipped<'_>, source: Option<Group>) {
        for group in self.groups_of(offset).into_iter().flatten().filter(|group| source != Some(*group)) {
            let Some(at) = self.place(group) else { continue };
            self.groups[at].collected += 1;
            if packet.payload.len() > self.clips.payload_max() {
                self.groups[at].spoiled = true;
            } else {
                self.clips.add(at, packet);
            }
            self.judge(at, group);
        }
    }

    /// Whether a group can be rebuilt, or needs nothing more.
    fn judge(&mut self, at: usize, group: Group) {
        let size = self.geometry.size(group);
        let gathering = &mut self.groups[at];
        if gathering.collected >= size || gathering.spoiled {
            self.held -= usize::from(gathering.control.take().is_some());
        } else if gathering.control.is_some() && gathering.collected + 1 == size {
            self.ready.push(at);
        }
    }

    /// A control packet came; `packet` is all of it. What cannot be the peer's is counted and does nothing.
    pub fn control(&mut self, header: &DataHeader, packet: Packet, statistics: &mut Statistics) {
        statistics.pkt_rcv_filter_extra += 1;
        if self.take_control(header, packet).is_none() {
            statistics.pkt_rcv_filter_rejected += 1;
        }
    }

    fn take_control(&mut self, header: &DataHeader, packet: Packet) -> Option<()> {
        let (index, sum) = Clipped::control(header.timestamp_us, packet.get(HEADER_LEN..)?)?;
        let is_long = sum.payload.len() > self.clips.payload_max();
        if is_long || sum.flags > KeyFlag::Both.bits() as u8 {
            return None;
        }
        // It carries the number of a packet of its group: the last one, as libsrt sends it.
        let distance = header.sequence.distance(SequenceNumber::new(self.first + self.newest));
        let offset = self.newest.checked_add_signed(distance)?;
        let [row, column] = self.groups_of(offset);
        let group = match (index, row, column) {
            (ROW_INDEX, Some(row), _) => row,
            (_, _, Some(group @ Group::Column { column, .. })) if u64::from(index) == column => group,
            _ => return None,
        };
        let at = self.place(group)?;
        if self.groups[at].has_control {
            return None;
        }
        self.clips.add(at, sum);
        self.groups[at].has_control = true;
        self.groups[at].control = Some(packet);
        self.held += 1;
        self.judge(at, group);
        Some(())
    }

    /// The next packet that can be rebuilt. To be asked until there is none after each packet that came; one that is rebuilt may lead
    /// to others.
    #[inline]
    pub fn poll_rebuilt(&mut self, statistics: &mut Statistics) -> Option<Rebuilt> {
        while let Some(at) = self.ready.pop() {
            let Some(group) = self.groups[at].group else { continue };
            let received = &self.received;
            let Some(offset) = self.geometry.members(group).find(|&offset| !received.contains(offset)) else {
                continue;
            };
            let Some(control) = self.groups[at].control.take() else { continue };
            self.held -= 1;
            self.groups[at].collected += 1;
            let Some(rebuilt) = self.rebuild(at, offset, control) else {
                self.groups[at].spoiled = true;
                statistics.pkt_rcv_filter_rejected += 1;
                continue;
            };
            self.received.insert(offset);
            let DataHeader { key, timestamp_us, .. } = rebuilt.header;
            self.collect(offset, Clipped::data(key, timestamp_us, &rebuilt.payload), Some(group));
            statistics.pkt_rcv_filter_supply += 1;
            return Some(rebuilt);
        }
        None
    }

    /// What a sum without all packets but one leaves; `None` when that is no packet.
    fn rebuild(&self, at: usize, offset: u64, control: Packet) -> Option<Rebuilt> {
        let (sum, bytes) = self.clips.get(at);
        let length = usize::from(sum.length);
        let key = KeyFlag::from_bits(u32::from(sum.flags));
        let rest = bytes.get(length..)?;
        if key == KeyFlag::Both || rest.iter().any(|&byte| byte != 0) {
            return None;
        }
        let mut payload = control;
        payload.advance(HEADER_LEN + FEC_HEADER_LEN);
        payload.truncate(length);
        // Shorter than what it is the sum of: not the peer's.
        payload.bytes_mut().filter(|room| room.len() == length)?.copy_from_slice(&bytes[..length]);
        let sequence = SequenceNumber::new(self.first + offset);
        // Live mode has one packet to a message, numbered from 1 on.
        let numbers = i64::from(MESSAGE_NUMBER_MAX);
        let ahead = sequence.distance(self.last.sequence);
        let message_number = (i64::from(self.last.message_number) - 1 + ahead).rem_euclid(numbers) as u32 + 1;
        let header = DataHeader {
            sequence,
            position: PacketPosition::Only,
            key,
            retransmitted: false,
            message_number,
            timestamp_us: sum.timestamp_us,
            ..self.last
        };
        Some(Rebuilt { sequence: self.first + offset, header, payload })
    }

    fn advance(&mut self, offset: u64, losses: &mut ReceiverLosses, statistics: &mut Statistics) {
        let row = self.geometry.row(offset);
        while self.newest_row < row {
            self.newest_row += 1;
            self.settle(self.newest_row * self.geometry.cols, losses, statistics);
            // The bits of the row that comes into sight are those of one that has left.
            let entering = (self.newest_row + self.rows_ahead) * self.geometry.cols;
            self.received.remove_range(entering, entering + self.geometry.cols);
        }
        self.newest = offset;
        self.settle(offset, losses, statistics);
    }

    /// All before `newest` has come or been overtaken: groups are over whose last packet is so far behind, and with it all of theirs
    /// that is missing and is in no later one.
    fn settle(&mut self, newest: u64, losses: &mut ReceiverLosses, statistics: &mut Statistics) {
        while self.settled + self.patience < newest {
            let last = self.settled;
            self.settled += 1;
            match self.geometry.column(last) {
                Some((column, series, place)) if place + 1 == self.geometry.rows => {
                    let group = Group::Column { column, series };
                    self.geometry.members(group).for_each(|offset| self.give_up(offset, losses, statistics));
                }
                None if !self.geometry.has_rows => self.give_up(last, losses, statistics),
                _ => {}
            }
            // What no column covers is up to its row.
            if self.geometry.has_rows && (last + 1).is_multiple_of(self.geometry.cols) {
                let row = Group::Row(self.geometry.row(last));
                let geometry = self.geometry;
                let uncovered = geometry.members(row).filter(|&offset| geometry.column(offset).is_none());
                uncovered.for_each(|offset| self.give_up(offset, losses, statistics));
            }
        }
    }

    fn give_up(&self, offset: u64, losses: &mut ReceiverLosses, statistics: &mut Statistics) {
        if !self.received.contains(offset) {
            statistics.pkt_rcv_filter_loss += 1;
            losses.given_up(self.first + offset, self.first + offset + 1);
        }
    }

    /// The sender has gone on to `sequence`, beyond all that could be followed: it begins anew there.
    pub fn restart(&mut self, sequence: u64) {
        self.clear();
        self.received.remove_range(0, self.received.capacity() as u64);
        self.newest = sequence.saturating_sub(self.first);
        self.newest_row = self.geometry.row(self.newest);
        self.settled = self.newest;
    }

    /// Lets go of all that is held.
    pub fn clear(&mut self) {
        (0..self.groups.len()).for_each(|at| self.forget(at));
        self.ready.clear();
    }
}

/// The most sums that any filter has.
fn sums_max() -> usize {
    let filters = (1..=ROWS_MAX).flat_map(|rows| (2..=COLS_MAX).map(move |cols| (rows, cols)));
    let filters = filters.filter(|&(rows, cols)| u32::from(rows) * u32::from(cols) <= MATRIX_MAX);
    let (layout, arq) = (Layout::Staircase, ArqLevel::Always);
    let sums = filters.map(|(rows, cols)| Decoder::groups_max(&Fec { cols, rows, has_rows: true, layout, arq }));
    sums.max().expect("there are filters")
}

/// Rows that are kept up to the newest packet, and beyond it.
fn window(geometry: &Geometry) -> (u64, u64) {
    let kept = (geometry.rows * MATRICES_KEPT).max(PACKETS_KEPT_MIN.div_ceil(geometry.cols));
    (kept.next_multiple_of(geometry.rows), geometry.rows)
}
