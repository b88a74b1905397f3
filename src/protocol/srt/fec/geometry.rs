//! Which packets a control packet is the sum of.
//!
//! Packets are counted from the first of the connection. Row `r` is `cols` of them from `r × cols` on. Column `c` has its first
//! group from its own first packet on and one group after the other: `rows` packets, each `cols` after the one before it.
//!
//! ```text
//!  even, 4 columns of 3        staircase, 4 columns of 3       (group of each packet)
//!  A B C D                     A – – D
//!  A B C D                     A B – D
//!  A B C D                     A B C D
//!  E F G H                     E B C H
//!  …                           E F C H  …
//! ```
//!
//! In a staircase column `c` begins in row `c mod rows` (libsrt: `ConfigureColumns`): what lies above belongs to no column.

use super::configuration::{Fec, Layout};

/// A group of packets with a control packet of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The row of this number.
    Row(u64),
    /// A group of a column.
    Column {
        /// The column, from 0.
        column: u64,
        /// Which of its groups, from 0.
        series: u64,
    },
}

/// Where groups lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Packets of a row.
    pub cols: u64,
    /// Packets of a column's group; 1 when there are no columns.
    pub rows: u64,
    /// Whether rows have control packets.
    pub has_rows: bool,
    layout: Layout,
}

impl Geometry {
    /// Of what was agreed on.
    pub fn new(fec: &Fec) -> Self {
        Self { cols: u64::from(fec.cols), rows: u64::from(fec.rows), has_rows: fec.has_rows, layout: fec.layout }
    }

    /// Whether columns have control packets.
    #[inline]
    pub const fn has_columns(&self) -> bool {
        self.rows > 1
    }

    /// Packets of a matrix.
    #[inline]
    pub const fn matrix(&self) -> u64 {
        self.cols * self.rows
    }

    /// The row that packet `offset` lies in, whether or not rows have control packets.
    #[inline]
    pub const fn row(&self, offset: u64) -> u64 {
        offset / self.cols
    }

    /// The group of a column that packet `offset` is in, and its place there; `None` without columns, and above a staircase.
    #[inline]
    pub fn column(&self, offset: u64) -> Option<(u64, u64, u64)> {
        if !self.has_columns() {
            return None;
        }
        let column = offset % self.cols;
        let since = offset.checked_sub(self.column_first(column))?;
        let place = since / self.cols;
        Some((column, place / self.rows, place % self.rows))
    }

    /// The first packet of a column's first group.
    #[inline]
    const fn column_first(&self, column: u64) -> u64 {
        match self.layout {
            Layout::Even => column,
            Layout::Staircase => column + column % self.rows * self.cols,
        }
    }

    /// The first packet of a group.
    #[inline]
    pub const fn first(&self, group: Group) -> u64 {
        match group {
            Group::Row(row) => row * self.cols,
            Group::Column { column, series } => self.column_first(column) + series * self.matrix(),
        }
    }

    /// How many packets a group has.
    #[inline]
    pub const fn size(&self, group: Group) -> u64 {
        match group {
            Group::Row(_) => self.cols,
            Group::Column { .. } => self.rows,
        }
    }

    /// The packets of a group.
    #[inline]
    pub fn members(&self, group: Group) -> impl Iterator<Item = u64> + use<> {
        let step = match group {
            Group::Row(_) => 1,
            Group::Column { .. } => self.cols,
        };
        let (first, size) = (self.first(group), self.size(group));
        (0..size).map(move |place| first + place * step)
    }
}
