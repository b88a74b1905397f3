//! The text of a packet filter, `fec,cols:10,rows:5,layout:staircase,arq:onreq`: read, written, and made one of two.
//!
//! It is libsrt's `SRTO_PACKETFILTER`, and what the handshake's FILTER extension carries. What one side leaves out the other
//! settles; what both say must be the same (`srtcore/packetfilter.cpp`, `CheckFilterCompat`).

use std::fmt;
use std::str::FromStr;

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::protocol::srt::snapshot::{RestoreError, SnapshotReader, SnapshotWriter};

/// Longest text, in bytes (libsrt: `MAX_PFILTER_LENGTH`).
pub const TEXT_LEN_MAX: usize = 64;

/// A text as a FILTER extension has it: in words of four bytes, each reversed, zeros at the end.
pub type FilterWire = ArrayVec<u8, TEXT_LEN_MAX>;

/// Most columns; their index has to fit the seven bits that libsrt has for it.
pub const COLS_MAX: u16 = 128;

/// Most rows.
pub const ROWS_MAX: u16 = 128;

/// Most packets of one matrix: with it the sums of one connection take 0.8 MB at most, whatever the peer asks for
/// ([`Decoder::memory_max`](super::decoder::Decoder::memory_max)).
pub const MATRIX_MAX: u32 = 1_024;

/// How the groups of columns lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All columns begin in the same row; their control packets come in a burst.
    Even,
    /// Each column begins a row below the one before it, so that control packets come one by one.
    Staircase,
}

/// When a missing packet is asked for (libsrt: `SRT_ARQLevel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArqLevel {
    /// As without a filter.
    Always,
    /// When the filter has given it up.
    OnRequest,
    /// Never.
    Never,
}

/// Why a text is no configuration, or two do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// Longer than libsrt takes.
    #[error("more than {TEXT_LEN_MAX} bytes")]
    Length,
    /// Not text.
    #[error("not text")]
    Text,
    /// Another filter.
    #[error("the only filter is fec")]
    Kind,
    /// Not a key that there is, once, with a value.
    #[error("known are cols, rows, layout and arq, each once, as key:value")]
    Key,
    /// Not a number of columns.
    #[error("cols is 2 to {COLS_MAX}")]
    Cols,
    /// Not a number of rows.
    #[error("rows is 1 to {ROWS_MAX}, or -2 to -{ROWS_MAX} for columns only")]
    Rows,
    /// More packets than a group may spread over.
    #[error("cols times rows is more than {MATRIX_MAX}")]
    Matrix,
    /// Not a layout.
    #[error("layout is even or staircase")]
    Layout,
    /// Not a level.
    #[error("arq is always, onreq or never")]
    Arq,
    /// Nobody has said how many columns.
    #[error("cols is missing")]
    ColsMissing,
    /// Both sides say it, differently.
    #[error("{0} is not what the peer says")]
    Conflict(&'static str),
}

/// What one side says: as little as `fec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterConfiguration {
    /// Packets of a row, which is how many columns there are.
    pub cols: Option<u16>,
    /// Packets of a column; 1 for no columns, negative for columns without rows.
    pub rows: Option<i16>,
    /// How columns lie.
    pub layout: Option<Layout>,
    /// When packets are asked for.
    pub arq: Option<ArqLevel>,
}

/// What both have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fec {
    /// Packets of a row, 2 to [`COLS_MAX`].
    pub cols: u16,
    /// Packets of a column, 1 to [`ROWS_MAX`]; with 1 there are no columns.
    pub rows: u16,
    /// Whether rows have a control packet of their own.
    pub has_rows: bool,
    /// How columns lie.
    pub layout: Layout,
    /// When packets are asked for.
    pub arq: ArqLevel,
}

impl FromStr for FilterConfiguration {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(FilterError::Length);
        }
        let mut parts = text.split(',');
        if parts.next() != Some("fec") {
            return Err(FilterError::Kind);
        }
        let mut configuration = Self::default();
        for part in parts {
            let (key, value) = part.split_once(':').ok_or(FilterError::Key)?;
            let is_new = match (key, value) {
                // As if it were not there (libsrt: `SrtParseConfig`).
                ("cols" | "rows" | "layout" | "arq", "") => true,
                ("cols", _) => configuration.cols.replace(cols(value)?).is_none(),
                ("rows", _) => configuration.rows.replace(rows(value)?).is_none(),
                ("layout", _) => configuration.layout.replace(layout(value)?).is_none(),
                ("arq", _) => configuration.arq.replace(arq(value)?).is_none(),
                _ => false,
            };
            if !is_new {
                return Err(FilterError::Key);
            }
        }
        if let (Some(cols), Some(rows)) = (configuration.cols, configuration.rows)
            && u32::from(cols) * u32::from(rows.unsigned_abs()) > MATRIX_MAX
        {
            return Err(FilterError::Matrix);
        }
        Ok(configuration)
    }
}

fn cols(value: &str) -> Result<u16, FilterError> {
    value.parse().ok().filter(|cols| (2..=COLS_MAX).contains(cols)).ok_or(FilterError::Cols)
}

fn rows(value: &str) -> Result<i16, FilterError> {
    let is_known = |rows: &i16| *rows >= 1 || *rows <= -2;
    let rows = value.parse().ok().filter(is_known).ok_or(FilterError::Rows)?;
    if rows.unsigned_abs() <= ROWS_MAX { Ok(rows) } else { Err(FilterError::Rows) }
}

fn layout(value: &str) -> Result<Layout, FilterError> {
    match value {
        "even" => Ok(Layout::Even),
        "staircase" => Ok(Layout::Staircase),
        _ => Err(FilterError::Layout),
    }
}

fn arq(value: &str) -> Result<ArqLevel, FilterError> {
    match value {
        "always" => Ok(ArqLevel::Always),
        "onreq" => Ok(ArqLevel::OnRequest),
        "never" => Ok(ArqLevel::Never),
        _ => Err(FilterError::Arq),
    }
}

/// With its keys in the order of the alphabet, as libsrt prints what it has agreed on.
impl fmt::Display for FilterConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fec")?;
        if let Some(arq) = self.arq {
            f.write_str(match arq {
                ArqLevel::Always => ",arq:always",
                ArqLevel::OnRequest => ",arq:onreq",
                ArqLevel::Never => ",arq:never",
            })?;
        }
        if let Some(cols) = self.cols {
            write!(f, ",cols:{cols}")?;
        }
        if let Some(layout) = self.layout {
            f.write_str(match layout {
                Layout::Even => ",layout:even",
                Layout::Staircase => ",layout:staircase",
            })?;
        }
        if let Some(rows) = self.rows {
            write!(f, ",rows:{rows}")?;
        }
        Ok(())
    }
}

impl FilterConfiguration {
    /// Reads it from a FILTER extension ([`FilterWire`]).
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn from_wire(wire: &[u8]) -> Result<Self, FilterError> {
        if wire.len() > TEXT_LEN_MAX {
            return Err(FilterError::Length);
        }
        let mut bytes = [0; TEXT_LEN_MAX];
        bytes[..wire.len()].copy_from_slice(wire);
        bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(TEXT_LEN_MAX);
        std::str::from_utf8(&bytes[..end]).map_err(|_| FilterError::Text)?.parse()
    }

    /// What a FILTER extension has of it.
    pub fn to_wire(&self) -> FilterWire {
        let text = self.to_string();
        let zeros = text.len().next_multiple_of(4) - text.len();
        let mut wire: FilterWire = text.bytes().chain(std::iter::repeat_n(0, zeros)).collect();
        wire.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        wire
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        to.bytes(self.to_string().as_bytes());
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        from.text()?.parse().map_err(|_| RestoreError::Invalid)
    }

    /// What both sides say together.
    ///
    /// # Errors
    /// [`FilterError::Conflict`] with the first key that they say differently.
    pub fn merge(&self, other: &Self) -> Result<Self, FilterError> {
        fn one<T: Copy + PartialEq>(
            key: &'static str,
            ours: Option<T>,
            theirs: Option<T>,
        ) -> Result<Option<T>, FilterError> {
            match (ours, theirs) {
                (Some(ours), Some(theirs)) if ours != theirs => Err(FilterError::Conflict(key)),
                _ => Ok(ours.or(theirs)),
            }
        }
        Ok(Self {
            cols: one("cols", self.cols, other.cols)?,
            rows: one("rows", self.rows, other.rows)?,
            layout: one("layout", self.layout, other.layout)?,
            arq: one("arq", self.arq, other.arq)?,
        })
    }

    /// With libsrt's defaults for what nobody has said: rows only, staircase, `onreq`. (Its manual says `even`; its code does not.)
    ///
    /// # Errors
    /// [`FilterError::ColsMissing`] and [`FilterError::Matrix`].
    pub fn complete(&self) -> Result<Fec, FilterError> {
        let cols = self.cols.ok_or(FilterError::ColsMissing)?;
        let rows = self.rows.unwrap_or(1);
        if u32::from(cols) * u32::from(rows.unsigned_abs()) > MATRIX_MAX {
            return Err(FilterError::Matrix);
        }
        Ok(Fec {
            cols,
            rows: rows.unsigned_abs(),
            has_rows: rows > 0,
            layout: self.layout.unwrap_or(Layout::Staircase),
            arq: self.arq.unwrap_or(ArqLevel::OnRequest),
        })
    }
}

impl Fec {
    /// Reads what one side says that leaves nothing to the other.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn from_wire(wire: &[u8]) -> Result<Self, FilterError> {
        FilterConfiguration::from_wire(wire)?.complete()
    }
}

impl From<Fec> for FilterConfiguration {
    fn from(fec: Fec) -> Self {
        let rows = fec.rows as i16;
        Self {
            cols: Some(fec.cols),
            rows: Some(if fec.has_rows { rows } else { -rows }),
            layout: Some(fec.layout),
            arq: Some(fec.arq),
        }
    }
}

/// What the two sides of a handshake make of their filters: `None` is none at all. `peer_knows` is whether the peer has said that it
/// knows filters.
///
/// Who has none set takes the other's. A listener whose caller asks for none answers with its own where the caller knows filters, and
/// libsrt's callers take it (`checkApplyFilterConfig`).
///
/// # Errors
/// [`FilterError`], when it comes to none that both can have.
pub fn settle(
    ours: Option<&FilterConfiguration>,
    peers: Option<&FilterConfiguration>,
    peer_knows: bool,
) -> Result<Option<Fec>, FilterError> {
    match (ours, peers) {
        (None, None) => Ok(None),
        (Some(ours), Some(peers)) => ours.merge(peers)?.complete().map(Some),
        (None, Some(peers)) => peers.complete().map(Some),
        (Some(ours), None) if peer_knows => ours.complete().map(Some),
        (Some(_), None) => Err(FilterError::Kind),
    }
}

/// The same in rendezvous, where both sides are equals: what the peer says is what it will have, with the defaults for what it leaves out,
/// and ours must not say otherwise.
///
/// libsrt takes there no other text than its own, if it has one, not even one that says the same or more (`checkApplyFilterConfig`).
/// So it cannot be told anything that it has left out.
///
/// # Errors
/// [`FilterError`], when it comes to none that both can have.
pub fn settle_in_rendezvous(
    ours: Option<&FilterConfiguration>,
    peers: Option<&FilterConfiguration>,
    peer_knows: bool,
) -> Result<Option<Fec>, FilterError> {
    let peers = peers.map(FilterConfiguration::complete).transpose()?.map(FilterConfiguration::from);
    settle(ours, peers.as_ref(), peer_knows)
}
