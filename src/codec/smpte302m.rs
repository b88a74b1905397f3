//! SMPTE ST 302: linear audio, one unit per PES packet.

use crate::media::{AccessUnitInfo, AudioFormat, RandomAccess, TrackConfiguration};

use super::announced_length::set_configuration;
use super::data::Unit;
use super::{Framer, Step};

/// `audio_packet_size`, `number_channels`, `channel_identification`, `bits_per_sample`, alignment (SMPTE ST 302 §5.3).
const HEADER_LEN: usize = 4;
/// The only rate there is.
const SAMPLE_RATE: u32 = 48_000;

/// Units of SMPTE ST 302 with their header, which tells how to read them; [`Framer::flush`] ends each.
///
/// One whose length is not the announced one is marked damaged.
pub struct Smpte302mFramer {
    unit: Unit<HEADER_LEN>,
    configuration: TrackConfiguration,
}

impl Smpte302mFramer {
    /// Begins at the start of a PES packet.
    pub fn new() -> Self {
        Self { unit: Unit::default(), configuration: TrackConfiguration::default() }
    }
}

impl Default for Smpte302mFramer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer for Smpte302mFramer {
    #[inline]
    fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Step<'a>> {
        let known = self.unit.front().len() == HEADER_LEN;
        let step = self.unit.push(input);
        if !known && let Some(header) = Smpte302mHeader::read(self.unit.front()) {
            let profile = ["16 bit", "20 bit", "24 bit"][usize::from(header.bits_per_sample / 4 - 4)];
            let format = AudioFormat { sample_rate: SAMPLE_RATE, channels: header.channels, profile };
            set_configuration(&mut self.configuration, &[], format);
        }
        step
    }

    fn flush(&mut self) -> Option<Step<'_>> {
        let closed = self.unit.close()?;
        let header = Smpte302mHeader::read(&closed.bytes);
        let sound = header.is_some_and(|header| HEADER_LEN + header.len == closed.len);
        Some(Step::End(AccessUnitInfo {
            random_access: RandomAccess::Intra,
            samples: header.map_or(0, |header| header.samples()),
            damaged: closed.damaged || !sound,
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

/// The header of a unit (SMPTE ST 302 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smpte302mHeader {
    /// Bytes behind the header.
    pub len: usize,
    /// 2, 4, 6 or 8.
    pub channels: u8,
    /// 16, 20 or 24.
    pub bits_per_sample: u8,
}

impl Smpte302mHeader {
    /// Reads the front of a unit; `None` when it is too short or the sample size is reserved.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let &[b0, b1, b2, b3] = bytes.first_chunk()?;
        let size_code = b3 >> 4 & 3;
        (size_code < 3).then(|| Self {
            len: usize::from(u16::from_be_bytes([b0, b1])),
            channels: 2 * (b2 >> 6) + 2,
            bits_per_sample: 16 + 4 * size_code,
        })
    }

    /// Samples per channel: each sample of a pair has four bits beside its own.
    pub fn samples(&self) -> u32 {
        let pair_len = (usize::from(self.bits_per_sample) + 4) / 4;
        (self.len / (pair_len * usize::from(self.channels) / 2)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::fuzzing_audio::units_of;
    use crate::media::Format;

    #[test]
    fn the_header_tells_format_and_duration() {
        // 4 channels of 20 bits: 12 bytes per sample time, 40 of them; then 2 of 16 bits and 8 of 24 bits.
        for (header, len, channels, samples, profile) in [
            ([0x01, 0xe0, 0x40, 0x10], 480, 4, 40, "20 bit"),
            ([0x00, 0x32, 0x00, 0x00], 50, 2, 10, "16 bit"),
            ([0x00, 0x38, 0xc0, 0x20], 56, 8, 2, "24 bit"),
        ] {
            let mut unit = header.to_vec();
            unit.resize(4 + len, 0x11);
            let mut framer = Smpte302mFramer::new();
            let (units, skipped) = units_of(&mut framer, &unit);
            assert_eq!((units.len(), &units[0].bytes, units[0].info.samples, skipped), (1, &unit, samples, 0));
            assert!(!units[0].info.damaged);
            let format = AudioFormat { sample_rate: 48_000, channels, profile };
            assert_eq!(framer.configuration().format, Format::Audio(format));
            assert!(units_of(&mut framer, &unit[..unit.len() - 1]).0[0].info.damaged);
            assert_eq!(framer.configuration().generation, 1);
        }
    }

    #[test]
    fn a_reserved_sample_size_is_damage() {
        let (units, _) = units_of(&mut Smpte302mFramer::new(), &[0, 1, 0, 0x30, 0]);
        assert_eq!((units[0].info.damaged, units[0].info.samples), (true, 0));
    }
}
