//! KLV metadata (SMPTE ST 336), in MPEG-TS by MISB ST 1402: asynchronous, or in metadata access unit cells.

use std::ops::Range;

use arrayvec::ArrayVec;

use crate::media::{AccessUnitInfo, RandomAccess, TrackConfiguration};

use super::{Framer, Step};

/// `metadata_service_id`, `sequence_number`, flags, `AU_cell_data_length` (H.222.0 §2.12.4).
const CELL_HEADER_LEN: usize = 5;
/// How every SMPTE universal label starts (SMPTE ST 298).
const KEY_PREFIX: [u8; 4] = [0x06, 0x0e, 0x2b, 0x34];
/// How much of a unit is held to see whether it starts with a key or with a cell.
const HEAD_LEN: usize = CELL_HEADER_LEN + KEY_PREFIX.len();

/// One unit per PES packet, which [`Framer::flush`] ends. Headers of metadata access unit cells are stripped, so that
/// synchronous and asynchronous KLV read alike; which of them it is tell the bytes.
pub struct KlvFramer {
    position: u64,
    mode: Mode,
    /// Cells have been seen, so that a unit that continues one is known as such.
    synchronous: bool,
    damaged: bool,
    /// The front of the unit; the bytes before `given` have been judged and given.
    head: ArrayVec<u8, HEAD_LEN>,
    given: usize,
    configuration: TrackConfiguration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    /// No unit is open.
    Closed,
    /// The head is being gathered.
    Judging,
    /// All bytes are published.
    Plain,
    /// `left` bytes of the open cell are to come; before that, the rest of its header.
    Cells { header: ArrayVec<u8, CELL_HEADER_LEN>, left: usize },
}

impl KlvFramer {
    /// Begins at the start of a PES packet.
    pub fn new() -> Self {
        Self {
            position: 0,
            mode: Mode::Closed,
            synchronous: false,
            damaged: false,
            head: ArrayVec::new(),
            given: 0,
            configuration: TrackConfiguration::default(),
        }
    }

    fn judge(&mut self) {
        let in_cells = !self.head.starts_with(&KEY_PREFIX)
            && (self.synchronous || self.head.get(CELL_HEADER_LEN..) == Some(&KEY_PREFIX[..]));
        self.synchronous |= in_cells;
        self.mode = if in_cells { Mode::Cells { header: ArrayVec::new(), left: 0 } } else { Mode::Plain };
    }

    /// Of `available` (not empty) takes either bytes of a cell header, and gives `Err` of their number, or finds how many
    /// bytes can be published.
    fn divide(&mut self, available: Range<usize>, byte_at: impl Fn(usize) -> u8) -> Result<usize, usize> {
        let Mode::Cells { header, left } = &mut self.mode else { return Ok(available.len()) };
        if *left == 0 {
            header.push(byte_at(available.start));
            if let Ok([.., high, low]) = header.clone().into_inner() {
                *left = usize::from(u16::from_be_bytes([high, low]));
                header.clear();
            }
            return Err(1);
        }
        let count = available.len().min(*left);
        *left -= count;
        Ok(count)
    }

    /// The next range of the head to publish.
    fn next_held(&mut self) -> Option<Range<usize>> {
        while self.given < self.head.len() {
            let head = self.head.clone();
            let start = self.given;
            match self.divide(start..head.len(), |at| head[at]) {
                Err(stripped) => self.given += stripped,
                Ok(count) => {
                    self.given += count;
                    return Some(start..start + count);
                }
            }
        }
        None
    }
}

impl Default for KlvFramer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer for KlvFramer {
    fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Step<'a>> {
        if input.is_empty() && self.given == self.head.len() {
            return None;
        }
        if self.mode == Mode::Closed {
            self.mode = Mode::Judging;
            return Some(Step::Begin { position: self.position });
        }
        if self.mode == Mode::Judging {
            let (taken, rest) = input.split_at(self.head.remaining_capacity().min(input.len()));
            self.head.extend(taken.iter().copied());
            self.position += taken.len() as u64;
            *input = rest;
            if !self.head.is_full() {
                return None;
            }
            self.judge();
        }
        if let Some(range) = self.next_held() {
            return Some(Step::Append(&self.head[range]));
        }
        while !input.is_empty() {
            let bytes = *input;
            let (count, published) = match self.divide(0..bytes.len(), |at| bytes[at]) {
                Ok(count) => (count, true),
                Err(stripped) => (stripped, false),
            };
            *input = &bytes[count..];
            self.position += count as u64;
            if published {
                return Some(Step::Append(&bytes[..count]));
            }
        }
        None
    }

    fn flush(&mut self) -> Option<Step<'_>> {
        if self.mode == Mode::Closed {
            return None;
        }
        if self.mode == Mode::Judging {
            self.judge();
        }
        if let Some(range) = self.next_held() {
            return Some(Step::Append(&self.head[range]));
        }
        let cut_short = matches!(&self.mode, Mode::Cells { header, left } if *left > 0 || !header.is_empty());
        let damaged = std::mem::take(&mut self.damaged) || cut_short;
        self.mode = Mode::Closed;
        self.head.clear();
        self.given = 0;
        Some(Step::End(AccessUnitInfo { random_access: RandomAccess::Intra, damaged, ..AccessUnitInfo::default() }))
    }

    fn discontinuity(&mut self) {
        self.damaged |= self.mode != Mode::Closed;
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn configuration(&self) -> &TrackConfiguration {
        &self.configuration
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::fuzzing_audio::{Unit, units_of};

    const KLV: [u8; 12] = [0x06, 0x0e, 0x2b, 0x34, 2, 11, 1, 1, 1, 2, 7, 8];

    fn one(framer: &mut KlvFramer, bytes: &[u8]) -> Unit {
        let (mut units, skipped) = units_of(framer, bytes);
        assert_eq!((units.len(), skipped), (1, 0));
        units.remove(0)
    }

    #[test]
    fn asynchronous_klv_passes_as_it_is() {
        let unit = one(&mut KlvFramer::new(), &KLV);
        assert_eq!((&unit.bytes[..], unit.info.damaged), (&KLV[..], false));
    }

    #[test]
    fn cell_headers_of_synchronous_klv_are_stripped() {
        let mut framer = KlvFramer::new();
        let cell = [&[0, 1, 0xdf, 0, 12][..], &KLV].concat();
        assert_eq!(one(&mut framer, &cell).bytes, KLV);
        let two = one(&mut framer, &[&cell[..], &cell].concat());
        assert_eq!((two.bytes, two.position, two.info.damaged), ([KLV, KLV].concat(), 17, false));
        let continued = one(&mut framer, &[0, 2, 0x5f, 0, 3, 1, 2, 3]);
        assert_eq!((&continued.bytes[..], continued.info.damaged), (&[1, 2, 3][..], false));
        assert!(one(&mut framer, &cell[..10]).info.damaged);
        assert!(one(&mut framer, &cell[..3]).info.damaged);
    }

    #[test]
    fn what_is_neither_passes_as_it_is() {
        assert_eq!(one(&mut KlvFramer::new(), b"short").bytes, b"short");
        assert_eq!(one(&mut KlvFramer::new(), b"long enough to tell").bytes, b"long enough to tell");
    }
}
