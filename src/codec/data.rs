//! Data tracks: one unit per PES packet or section, whose ends only the container knows.
//!
//! Teletext (ETSI EN 300 472), DVB subtitles (ETSI EN 300 743), SCTE-35 sections and PES of unknown stream types.

use arrayvec::ArrayVec;

use crate::media::{AccessUnitInfo, Codec, RandomAccess, TrackConfiguration};

use super::{Framer, Step};

/// `table_id` to `section_length`.
const SECTION_HEADER_LEN: usize = 3;

/// Units that [`Framer::flush`] ends; everything between two flushes is one unit, published as it comes.
///
/// A SCTE-35 section whose length is not the announced one is marked damaged.
pub struct DataFramer {
    sections: bool,
    unit: Unit<SECTION_HEADER_LEN>,
    configuration: TrackConfiguration,
}

impl DataFramer {
    /// The framer for data of this codec.
    pub fn new(codec: Codec) -> Self {
        Self { sections: codec == Codec::Scte35, unit: Unit::default(), configuration: TrackConfiguration::default() }
    }
}

impl Framer for DataFramer {
    #[inline]
    fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Step<'a>> {
        self.unit.push(input)
    }

    fn flush(&mut self) -> Option<Step<'_>> {
        let front = self.unit.close()?;
        let announced =
            front.bytes.first_chunk().map(|[_, high, low]| 3 + (usize::from(high & 0x0f) << 8 | usize::from(*low)));
        Some(Step::End(AccessUnitInfo {
            random_access: RandomAccess::Intra,
            damaged: front.damaged || self.sections && announced != Some(front.len),
            ..AccessUnitInfo::default()
        }))
    }

    fn discontinuity(&mut self) {
        self.unit.discontinuity();
    }

    fn position(&self) -> u64 {
        self.unit.position
    }

    fn configuration(&self) -> &TrackConfiguration {
        &self.configuration
    }
}

/// A unit that passes through; its first `N` bytes are remembered, to be judged at its end.
#[derive(Default)]
pub(super) struct Unit<const N: usize> {
    pub(super) position: u64,
    open: bool,
    front: Closed<N>,
}

/// What is known of a unit at its end.
#[derive(Clone, Default)]
pub(super) struct Closed<const N: usize> {
    /// The first bytes.
    pub(super) bytes: ArrayVec<u8, N>,
    /// All bytes.
    pub(super) len: usize,
    /// Bytes are missing.
    pub(super) damaged: bool,
}

impl<const N: usize> Unit<N> {
    #[inline]
    pub(super) fn push<'a>(&mut self, input: &mut &'a [u8]) -> Option<Step<'a>> {
        if input.is_empty() {
            return None;
        }
        if !self.open {
            self.open = true;
            return Some(Step::Begin { position: self.position });
        }
        let bytes = std::mem::take(input);
        self.position += bytes.len() as u64;
        self.front.len += bytes.len();
        let count = bytes.len().min(self.front.bytes.remaining_capacity());
        self.front.bytes.extend(bytes[..count].iter().copied());
        Some(Step::Append(bytes))
    }

    /// The first bytes of the open unit, as far as they have come.
    pub(super) fn front(&self) -> &[u8] {
        &self.front.bytes
    }

    pub(super) fn close(&mut self) -> Option<Closed<N>> {
        std::mem::take(&mut self.open).then(|| std::mem::take(&mut self.front))
    }

    pub(super) fn discontinuity(&mut self) {
        self.front.damaged |= self.open;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::fuzzing_audio::{Collector, units_of};

    #[test]
    fn a_unit_is_what_lies_between_two_flushes() {
        let mut framer = DataFramer::new(Codec::PrivateData(0x85));
        let (first, _) = units_of(&mut framer, b"one");
        let (second, skipped) = units_of(&mut framer, b"two!");
        assert_eq!((first.len(), &first[0].bytes[..], first[0].position), (1, &b"one"[..], 0));
        assert_eq!((second.len(), &second[0].bytes[..], second[0].position), (1, &b"two!"[..], 3));
        assert_eq!((skipped, second[0].info.damaged, framer.flush()), (0, false, None));
    }

    #[test]
    fn a_unit_that_lost_bytes_is_damaged_and_the_next_is_not() {
        let mut framer = DataFramer::new(Codec::Teletext);
        let mut collector = Collector::default();
        collector.push(&mut framer, b"lost");
        framer.discontinuity();
        collector.push(&mut framer, b"more");
        collector.flush(&mut framer);
        framer.discontinuity();
        collector.push(&mut framer, b"next");
        collector.flush(&mut framer);
        let units: Vec<_> = collector.units.iter().map(|unit| (&unit.bytes[..], unit.info.damaged)).collect();
        assert_eq!(units, [(&b"lostmore"[..], true), (&b"next"[..], false)]);
    }

    #[test]
    fn a_section_of_the_wrong_length_is_damaged() {
        let mut framer = DataFramer::new(Codec::Scte35);
        assert!(!units_of(&mut framer, &[0xfc, 0x30, 2, 1, 2]).0[0].info.damaged);
        assert!(units_of(&mut framer, &[0xfc, 0x30, 3, 1, 2]).0[0].info.damaged);
        assert!(units_of(&mut framer, &[0xfc]).0[0].info.damaged);
    }
}
