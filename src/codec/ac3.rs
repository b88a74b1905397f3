//! Dolby AC-3 and E-AC-3 (ETSI TS 102 366).

use crate::base::bits::BitReader;
use crate::media::{AudioFormat, TrackConfiguration};

use super::announced_length::{AnnouncedLengthFramer, Header, Stripped, Syntax, Verdict, set_configuration};
use super::crc16::crc16;
use super::{Framer, Step};

/// Syncframes of AC-3 and E-AC-3, published whole. A frame whose checksum does not hold is marked damaged.
///
/// An E-AC-3 access unit is an independent substream 0 with everything up to the next: its dependent substreams, and other
/// independent substreams (further programmes) with theirs.
pub struct Ac3Framer(AnnouncedLengthFramer<Ac3>);

impl Ac3Framer {
    /// Begins without synchronisation.
    pub fn new() -> Self {
        Self(AnnouncedLengthFramer::new(Ac3 { crc: 0 }))
    }
}

impl Default for Ac3Framer {
    fn default() -> Self {
        Self::new()
    }
}

super::framer::delegate_framer!(Ac3Framer);

struct Ac3 {
    /// Over the open frame from behind its syncword; zero at its end (§6.1.7, §E.1.3.6).
    crc: u16,
}

#[derive(Clone, Copy)]
struct Details {
    sample_rate: u32,
    channels: u8,
    enhanced: bool,
    substream: Substream,
}

#[derive(Clone, Copy)]
enum Substream {
    Independent(u8),
    Dependent,
}

/// kbit/s by half `frmsizecod` (§4.4.1.4).
const BIT_RATES: [u16; 19] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];
/// Hz by `fscod`.
const SAMPLE_RATES: [u32; 3] = [48_000, 44_100, 32_000];
/// Full-bandwidth channels by `acmod` (§4.4.2.3).
const CHANNELS: [u8; 8] = [2, 1, 2, 3, 3, 4, 4, 5];
/// Samples per channel in an audio block.
const BLOCK_SAMPLES: u32 = 256;

impl Syntax for Ac3 {
    type Details = Details;

    const FIRST_BYTE: u8 = 0x0b;
    const FRAME_LEN_MAX: usize = 4096;

    fn header(&self, bytes: &[u8]) -> Verdict<Details> {
        match bytes {
            [] | [0x0b] => return Verdict::More,
            [0x0b, 0x77, ..] => {}
            _ => return Verdict::No,
        }
        let Some(fields) = bytes.first_chunk::<8>() else { return Verdict::More };
        let header = match fields[5] >> 3 {
            bsid @ 0..=10 => ac3_header(fields, bsid),
            11..=16 => eac3_header(fields),
            _ => None,
        };
        header.map_or(Verdict::No, Verdict::Yes)
    }

    fn joins(open: &Header<Details>, next: &Header<Details>) -> bool {
        match (open.details.substream, next.details.substream) {
            (_, Substream::Dependent) => true,
            (Substream::Independent(open), Substream::Independent(next)) => next > open,
            // The number of the independent substream before is not kept over its dependent ones; 0 always starts anew.
            (Substream::Dependent, Substream::Independent(next)) => next > 0,
        }
    }

    fn starts(header: &Header<Details>) -> bool {
        matches!(header.details.substream, Substream::Independent(_))
    }

    fn certainly_starts(header: &Header<Details>) -> bool {
        matches!(header.details.substream, Substream::Independent(0))
    }

    fn configure(&mut self, header: &Header<Details>, configuration: &mut TrackConfiguration) {
        let Details { sample_rate, channels, enhanced, .. } = header.details;
        let profile = if enhanced { "E-AC-3" } else { "" };
        set_configuration(configuration, &[], AudioFormat { sample_rate, channels, profile });
    }

    fn see(&mut self, offset: usize, bytes: &[u8]) {
        if offset == 0 {
            self.crc = 0;
        }
        let syncword = 2_usize.saturating_sub(offset).min(bytes.len());
        self.crc = crc16(self.crc, &bytes[syncword..]);
    }

    fn finish(&mut self, _: &Header<Details>, _: &mut TrackConfiguration) -> bool {
        self.crc == 0
    }
}

/// `syncinfo` and the front of `bsi` (§4.3). `bsid` 9 and 10 halve and quarter the sampling rate.
fn ac3_header(bytes: &[u8; 8], bsid: u8) -> Option<Header<Details>> {
    let rate_code = bytes[4] >> 6;
    let size_code = bytes[4] & 0x3f;
    let full_rate = *SAMPLE_RATES.get(usize::from(rate_code))?;
    let bit_rate = u32::from(*BIT_RATES.get(usize::from(size_code / 2))?);
    let words = match rate_code {
        0 => 2 * bit_rate,
        1 => bit_rate * 320 / 147 + u32::from(size_code & 1),
        _ => 3 * bit_rate,
    };
    let mut reader = BitReader::new(&bytes[6..]);
    let mode = reader.bits(3)?;
    if mode & 1 != 0 && mode != 1 {
        reader.skip(2)?; // cmixlev
    }
    if mode & 4 != 0 {
        reader.skip(2)?; // surmixlev
    }
    if mode == 2 {
        reader.skip(2)?; // dsurmod
    }
    let low_frequency = u8::from(reader.flag()?);
    let details = Details {
        sample_rate: full_rate >> bsid.saturating_sub(8),
        channels: CHANNELS[mode as usize] + low_frequency,
        enhanced: false,
        substream: Substream::Independent(0),
    };
    Some(header(2 * words as usize, 6, details))
}

/// The front of `bsi` of E-AC-3 (§E.1.2.2).
fn eac3_header(bytes: &[u8; 8]) -> Option<Header<Details>> {
    let mut reader = BitReader::new(&bytes[2..]);
    let kind = reader.bits(2)?;
    let substream_id = reader.bits(3)? as u8;
    let len = 2 * (reader.bits(11)? as usize + 1);
    let rate_code = reader.bits(2)? as usize;
    let second = reader.bits(2)? as usize;
    let (sample_rate, blocks) = match SAMPLE_RATES.get(rate_code) {
        Some(&rate) => (rate, [1, 2, 3, 6][second]),
        None => (SAMPLE_RATES.get(second)? / 2, 6),
    };
    let mode = reader.bits(3)? as usize;
    let low_frequency = u8::from(reader.flag()?);
    let details = Details {
        sample_rate,
        channels: CHANNELS[mode] + low_frequency,
        enhanced: true,
        substream: match kind {
            1 => Substream::Dependent,
            3 => return None,
            _ => Substream::Independent(substream_id),
        },
    };
    (len >= bytes.len()).then(|| header(len, blocks, details))
}

fn header(len: usize, blocks: u32, details: Details) -> Header<Details> {
    Header {
        len,
        stripped: Stripped::default(),
        samples: blocks * BLOCK_SAMPLES,
        // Not the kind: an AC-3 frame may have dependent substreams in E-AC-3.
        identity: details.sample_rate,
        details,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::fuzzing_audio::{Collector, units_of};
    use crate::media::Format;

    /// Makes the checksum over the frame hold by its last two bytes.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - 2;
        let crc = crc16(0, &bytes[2..end]);
        bytes[end..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn ac3(size_code: u8, len: usize, fill: u8) -> Vec<u8> {
        // 5.1: acmod 7, cmixlev, surmixlev, lfeon.
        let mut bytes = vec![0x0b, 0x77, 0, 0, size_code, 8 << 3, 0b1110_0001];
        bytes.resize(len, fill);
        sealed(bytes)
    }

    fn eac3(kind: u8, id: u8, blocks_code: u8, len: usize) -> Vec<u8> {
        let size = len / 2 - 1;
        let mut bytes = vec![0x0b, 0x77, kind << 6 | id << 3 | (size >> 8) as u8, size as u8];
        bytes.extend([blocks_code << 4 | 2 << 1, 16 << 3]);
        bytes.resize(len, id);
        sealed(bytes)
    }

    #[test]
    fn frame_sizes_follow_the_table() {
        // 448 kbit/s at 48 kHz, 192 kbit/s at 44.1 kHz with and without the extra word, 32 kbit/s at 32 kHz.
        for (size_code, len, rate) in
            [(30, 1792, 48_000), (0x40 | 20, 834, 44_100), (0x40 | 21, 836, 44_100), (0x80, 192, 32_000)]
        {
            let one = ac3(size_code, len, 0xff);
            let mut framer = Ac3Framer::new();
            let (units, skipped) = units_of(&mut framer, &[&one[..], &one].concat());
            assert_eq!((units.len(), skipped), (2, 0), "{size_code:#x}");
            assert_eq!((&units[1].bytes, units[1].info.samples, units[1].info.damaged), (&one, 1536, false));
            let format = AudioFormat { sample_rate: rate, channels: 6, profile: "" };
            assert_eq!(framer.configuration().format, Format::Audio(format));
        }
    }

    #[test]
    fn a_checksum_that_does_not_hold_marks_the_frame_damaged() {
        let one = ac3(30, 1792, 1);
        let mut bad = one.clone();
        bad[1000] ^= 0x10;
        let (units, _) = units_of(&mut Ac3Framer::new(), &[&one[..], &bad, &one].concat());
        assert_eq!(units.iter().map(|unit| unit.info.damaged).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn dependent_substreams_stay_with_their_independent_one() {
        let (independent, dependent, other) = (eac3(0, 0, 3, 400), eac3(1, 0, 3, 200), eac3(0, 1, 3, 100));
        let unit = [&independent[..], &dependent, &other, &dependent].concat();
        let stream = [&unit[..], &unit, &independent].concat();
        let mut framer = Ac3Framer::new();
        let (units, skipped) = units_of(&mut framer, &stream);
        let lens: Vec<_> = units.iter().map(|unit| (unit.position, unit.bytes.len())).collect();
        assert_eq!(lens, [(0, 900), (900, 900), (1800, 400)]);
        assert_eq!((skipped, units[0].info.samples, &units[0].bytes), (0, 1536, &unit));
        let format = AudioFormat { sample_rate: 48_000, channels: 2, profile: "E-AC-3" };
        assert_eq!((&framer.configuration().format, framer.configuration().generation), (&Format::Audio(format), 1));
    }

    #[test]
    fn damage_in_a_dependent_substream_marks_the_whole_access_unit() {
        let (independent, mut dependent) = (eac3(0, 0, 3, 400), eac3(1, 0, 3, 200));
        dependent[100] ^= 1;
        let (units, _) = units_of(&mut Ac3Framer::new(), &[&independent[..], &dependent, &independent].concat());
        assert_eq!(units.iter().map(|unit| unit.info.damaged).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_dependent_substream_without_its_independent_one_is_skipped() {
        let (independent, dependent) = (eac3(0, 0, 3, 400), eac3(1, 0, 3, 200));
        let stream = [&dependent[..], &independent, &dependent, &independent].concat();
        let (units, skipped) = units_of(&mut Ac3Framer::new(), &stream);
        let lens: Vec<_> = units.iter().map(|unit| unit.bytes.len()).collect();
        assert_eq!((&lens[..], skipped), (&[600, 400][..], 200));
    }

    #[test]
    fn an_access_unit_is_complete_when_it_has_as_many_frames_as_the_one_before() {
        let (independent, dependent) = (eac3(0, 0, 3, 400), eac3(1, 0, 3, 200));
        let mut framer = Ac3Framer::new();
        let mut collector = Collector::default();
        for (frame, complete) in [(&independent, false), (&dependent, true), (&independent, false), (&dependent, true)]
        {
            collector.push(&mut framer, frame);
            assert_eq!(framer.is_complete(), complete);
        }
        collector.flush(&mut framer);
        assert_eq!(collector.units.len(), 2);
    }

    #[test]
    fn short_frames_tell_their_blocks() {
        for (code, samples) in [(0, 256), (1, 512), (2, 768), (3, 1536)] {
            let one = eac3(0, 0, code, 128);
            let (units, _) = units_of(&mut Ac3Framer::new(), &[&one[..], &one].concat());
            assert_eq!(units[0].info.samples, samples);
        }
    }
}
