//! Bodies of the fuzz targets for audio and data framers, and the driver that unit tests share with them.
//!
//! The data decides how it is cut into pieces, and where it is flushed or has gaps.

use crate::media::{AccessUnitInfo, Codec};

use super::framer::{AnyFramer, FramerHints};
use super::{Framer, Step};

/// An access unit as a framer gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// From [`Step::Begin`].
    pub position: u64,
    /// All [`Step::Append`] together.
    pub bytes: Vec<u8>,
    /// From [`Step::End`].
    pub info: AccessUnitInfo,
    /// Of the configuration at [`Step::End`].
    pub generation: u32,
}

/// Collects steps, and checks that they come in the order that the contract tells.
#[derive(Default)]
pub struct Collector {
    /// The complete units.
    pub units: Vec<Unit>,
    /// The bytes skipped.
    pub skipped: u32,
    open: Option<(u64, Vec<u8>)>,
}

impl Collector {
    /// Pushes all of `input`.
    pub fn push(&mut self, framer: &mut impl Framer, mut input: &[u8]) {
        let end = framer.position() + input.len() as u64;
        loop {
            let mut rest = input;
            let Some(ended) = framer.push(&mut rest).map(|step| self.take(step)) else { break };
            input = &input[input.len() - rest.len()..];
            self.finish(framer, ended);
        }
        assert_eq!(framer.position(), end, "None comes only when all has been taken");
    }

    /// Flushes until nothing comes back.
    pub fn flush(&mut self, framer: &mut impl Framer) {
        while let Some(ended) = framer.flush().map(|step| self.take(step)) {
            self.finish(framer, ended);
        }
        assert!(self.open.is_none(), "a flush leaves nothing open");
    }

    fn finish(&mut self, framer: &impl Framer, ended: bool) {
        if ended {
            let unit = self.units.last_mut().expect("a unit has just ended");
            unit.generation = framer.configuration().generation;
        }
    }

    fn take(&mut self, step: Step<'_>) -> bool {
        match step {
            Step::Begin { position } => {
                assert!(self.open.is_none(), "an access unit starts only when none is open");
                assert!(self.units.last().is_none_or(|unit| unit.position < position), "positions rise");
                self.open = Some((position, Vec::new()));
            }
            Step::Append(bytes) => {
                assert!(!bytes.is_empty() || self.open.is_some());
                self.open.as_mut().expect("an access unit is open").1.extend_from_slice(bytes);
            }
            Step::End(info) => {
                let (position, bytes) = self.open.take().expect("an access unit is open");
                self.units.push(Unit { position, bytes, info, generation: 0 });
                return true;
            }
            Step::Skipped { len } => {
                assert!(len > 0);
                self.skipped += len;
            }
        }
        false
    }

    fn published(&self) -> u64 {
        self.units.iter().map(|unit| unit.bytes.len() as u64).sum()
    }
}

/// The units of one push and a flush, and the number of bytes skipped.
pub fn units_of(framer: &mut impl Framer, bytes: &[u8]) -> (Vec<Unit>, u32) {
    let mut collector = Collector::default();
    collector.push(framer, bytes);
    collector.flush(framer);
    (collector.units, collector.skipped)
}

/// The framers that a fuzz target may ask for.
pub const CODECS: [Codec; 11] = [
    Codec::AacAdts,
    Codec::AacLatm,
    Codec::Mp2,
    Codec::Ac3,
    Codec::Eac3,
    Codec::Opus,
    Codec::Smpte302m,
    Codec::Scte35,
    Codec::Klv,
    Codec::Teletext,
    Codec::PrivateData(0x80),
];

/// Cuts the stream by what `script` says and expects the same as from the stream in one piece. Each byte of the script is a
/// piece of so many bytes; 0 is a flush, 255 a gap; the script starts over when it ends.
///
/// # Panics
/// When the framer breaks its contract.
pub fn exercise(codec: Codec, script: &[u8], stream: &[u8]) -> Vec<Unit> {
    let new = || AnyFramer::new(codec, FramerHints::default());
    let (mut cut, mut whole) = (new(), new());
    let (mut from_cut, mut from_whole) = (Collector::default(), Collector::default());
    let mut rest = stream;
    let mut since_event = 0;
    let mut steps = script.iter().cycle();
    let all_events = !script.iter().any(|&length| !matches!(length, 0 | 255));
    while !rest.is_empty() {
        let length = match steps.next() {
            Some(_) if all_events => 1,
            Some(&length) => length,
            None => 255,
        };
        match length {
            0 | 255 if !script.is_empty() => {
                from_whole.push(&mut whole, &stream[since_event..stream.len() - rest.len()]);
                since_event = stream.len() - rest.len();
                if length == 0 {
                    from_cut.flush(&mut cut);
                    from_whole.flush(&mut whole);
                } else {
                    cut.discontinuity();
                    whole.discontinuity();
                }
            }
            length => {
                let (piece, left) = rest.split_at(usize::from(length).min(rest.len()));
                from_cut.push(&mut cut, piece);
                rest = left;
            }
        }
    }
    from_whole.push(&mut whole, &stream[since_event..]);
    assert_eq!(cut.is_complete(), whole.is_complete());
    from_cut.flush(&mut cut);
    from_whole.flush(&mut whole);
    assert_eq!(from_cut.units, from_whole.units);
    assert_eq!(from_cut.skipped, from_whole.skipped);
    assert_eq!(cut.configuration(), whole.configuration());
    assert!(from_cut.published() + u64::from(from_cut.skipped) <= stream.len() as u64, "nothing is given twice");
    from_cut.units
}

/// The first byte chooses the codec, the second the length of the script behind it; the rest is the stream.
pub fn fuzz_audio(data: &[u8]) {
    if let &[codec, script_len, ref rest @ ..] = data {
        let (script, stream) = rest.split_at(usize::from(script_len).min(rest.len()));
        exercise(CODECS[usize::from(codec) % CODECS.len()], script, stream);
    }
}

/// As [`fuzz_audio`] for one codec.
fn fuzz_codec(codec: Codec, data: &[u8]) {
    if let &[script_len, ref rest @ ..] = data {
        let (script, stream) = rest.split_at(usize::from(script_len).min(rest.len()));
        exercise(codec, script, stream);
    }
}

/// AAC in ADTS.
pub fn fuzz_adts(data: &[u8]) {
    fuzz_codec(Codec::AacAdts, data);
}

/// AAC in LATM.
pub fn fuzz_latm(data: &[u8]) {
    fuzz_codec(Codec::AacLatm, data);
}

/// MPEG audio.
pub fn fuzz_mp2(data: &[u8]) {
    fuzz_codec(Codec::Mp2, data);
}

/// AC-3 and E-AC-3.
pub fn fuzz_ac3(data: &[u8]) {
    fuzz_codec(Codec::Eac3, data);
}

/// Opus.
pub fn fuzz_opus(data: &[u8]) {
    fuzz_codec(Codec::Opus, data);
}

/// KLV.
pub fn fuzz_klv(data: &[u8]) {
    fuzz_codec(Codec::Klv, data);
}

/// AudioSpecificConfig.
pub fn fuzz_audio_specific_config(data: &[u8]) {
    use super::aac::config::AudioSpecificConfig;
    use crate::base::bits::BitReader;
    let _ = AudioSpecificConfig::read(&mut BitReader::new(data), None);
    let _ = AudioSpecificConfig::read(&mut BitReader::new(data), Some(data.len() * 8));
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::media::TrackKind;

    /// Whole frames of a codec, as short as they get.
    fn frames(codec: Codec) -> Vec<Vec<u8>> {
        match codec {
            Codec::AacAdts => vec![
                [&[0xff, 0xf1, 0x4c, 0x80, 0x02, 0x1f, 0xfc][..], &[0x21; 9]].concat(),
                [&[0xff, 0xf0, 0x4c, 0x80, 0x02, 0x1f, 0xfc][..], &[0x00; 9]].concat(),
                [&[0xff, 0xf1, 0x4c, 0x00, 0x02, 0x1f, 0xfc][..], &[0xa0, 0x98, 0x80, 0, 4, 0, 0, 0, 0]].concat(),
                [&[0xff, 0xf0, 0x4c, 0x80, 0x02, 0x1f, 0xfd][..], &[0, 2, 0, 0, 0, 0, 0, 0, 0]].concat(),
            ],
            Codec::AacLatm => vec![
                vec![0x56, 0xe0, 9, 0x20, 0, 0x11, 0x90, 0x1f, 0xe0, 0x10, 0x50, 0x50],
                vec![0x56, 0xe0, 4, 0x81, 0x2a, 0x80, 0],
            ],
            Codec::Mp2 => vec![
                [&[0xff, 0xf3, 0x14, 0xc4][..], &[0; 20]].concat(),
                [&[0xff, 0xfd, 0x14, 0xc4][..], &[0; 92]].concat(),
                [&[0xff, 0xfc, 0x14, 0xc4][..], &[0; 92]].concat(),
            ],
            Codec::Ac3 | Codec::Eac3 => vec![
                vec![0x0b, 0x77, 0, 4, 0x34, 0x80, 0, 0, 0, 0],
                vec![0x0b, 0x77, 0x40, 4, 0x34, 0x80, 0, 0, 0, 0],
                vec![0x0b, 0x77, 0x08, 4, 0x34, 0x80, 0, 0, 0, 0],
            ],
            Codec::Opus => vec![
                vec![0x7f, 0xe0, 3, 0xfc, 1, 2],
                vec![0x7f, 0xfc, 2, 0, 1, 0, 2, 1, 9, 0xfb, 2],
                vec![0x7f, 0xf0, 1, 0, 1, 0xf8],
            ],
            Codec::Klv => {
                vec![vec![0x06, 0x0e, 0x2b, 0x34, 1, 2, 3], vec![0, 0, 0xdf, 0, 6, 0x06, 0x0e, 0x2b, 0x34, 1, 2]]
            }
            _ => vec![vec![0xfc, 0x30, 2, 1, 2], vec![0, 2, 0x40, 0x10, 1, 2]],
        }
    }

    /// Streams in which headers are frequent: whole frames, cut and mixed with noise.
    fn stream(codec: Codec) -> impl Strategy<Value = Vec<u8>> {
        let seed = proptest::sample::select(frames(codec));
        let piece = prop_oneof![
            8 => seed.clone(),
            1 => (seed, any::<proptest::sample::Index>())
                .prop_map(|(seed, at)| seed[..at.index(seed.len())].to_vec()),
            1 => vec(any::<u8>(), 0..12),
        ];
        vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn the_same_comes_out_however_the_stream_is_cut(
            (codec, stream) in proptest::sample::select(&CODECS[..]).prop_flat_map(|codec| (Just(codec), stream(codec))),
            script in vec(prop_oneof![8 => 1..30_u8, 1 => Just(0_u8), 1 => Just(255_u8)], 0..20),
        ) {
            let cut = exercise(codec, &script, &stream);
            if !script.iter().any(|&length| length == 0 || length == 255) {
                prop_assert_eq!(cut, exercise(codec, &[1], &stream));
            }
        }

        #[test]
        fn noise_is_harmless(data in vec(any::<u8>(), 0..600)) {
            fuzz_audio(&data);
            fuzz_audio_specific_config(&data);
        }
    }

    #[test]
    fn the_frames_that_streams_are_made_of_are_found() {
        for codec in CODECS {
            let first = &frames(codec)[0];
            let units = exercise(codec, &[1], &first.repeat(3));
            let expected = if codec.kind() == TrackKind::Audio && codec != Codec::Smpte302m { 3 } else { 1 };
            assert_eq!(units.len(), expected, "{codec}");
        }
    }

    #[test]
    fn headers_that_nothing_confirms_are_each_tried_once() {
        for (codec, header) in [
            (Codec::AacAdts, &[0xff, 0xf1, 0x4c, 0x83, 0xff, 0xff, 0xfc, 0][..]),
            (Codec::AacLatm, &[0x56, 0xff, 0xfe, 0]),
            (Codec::Ac3, &[0x0b, 0x77, 0, 0, 36, 8 << 3, 0, 0, 0]),
            (Codec::Opus, &[0x7f, 0xe0, 255, 255, 255, 255, 255, 255, 0, 0xfc, 0]),
        ] {
            let stream = header.repeat((1 << 18) / header.len());
            let mut framer = AnyFramer::new(codec, FramerHints::default());
            let mut collector = Collector::default();
            stream.chunks(3).for_each(|piece| collector.push(&mut framer, piece));
            collector.flush(&mut framer);
            let accounted = collector.published() + u64::from(collector.skipped);
            assert!(accounted <= stream.len() as u64 && accounted * 10 >= stream.len() as u64 * 9, "{codec}");
        }
    }

    #[test]
    fn streams_of_nothing_but_first_bytes_cost_no_more_than_their_length() {
        for byte in [0xff, 0x0b, 0x56, 0x7f] {
            let stream = vec![byte; 1 << 20];
            for codec in CODECS {
                let mut framer = AnyFramer::new(codec, FramerHints::default());
                let mut collector = Collector::default();
                collector.push(&mut framer, &stream);
                collector.flush(&mut framer);
                assert_eq!(collector.published() + u64::from(collector.skipped), 1 << 20);
            }
        }
    }
}
