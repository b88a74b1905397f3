use proptest::prelude::*;

use crate::codec::h264::H264Framer;
use crate::codec::hevc::HevcFramer;
use crate::codec::mpeg2video::Mpeg2VideoFramer;
use crate::codec::{Framer, Step};
use crate::media::{AccessUnitInfo, TrackConfiguration};

/// A complete access unit, or bytes that were passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::codec) enum Piece {
    Unit { position: u64, bytes: Vec<u8>, info: AccessUnitInfo, configuration: TrackConfiguration },
    Skipped(u64),
}

/// Puts steps together again.
#[derive(Default)]
pub(in crate::codec) struct Collector {
    pub pieces: Vec<Piece>,
    open: Option<(u64, Vec<u8>)>,
}

impl Collector {
    pub fn push(&mut self, framer: &mut dyn Framer, input: &[u8]) {
        let mut input = input;
        loop {
            let mut left = input;
            let ended = match framer.push(&mut left) {
                Some(step) => self.take(step),
                None => {
                    assert!(left.is_empty(), "all of the input is taken");
                    return;
                }
            };
            input = &input[input.len() - left.len()..];
            self.end(ended, framer);
        }
    }

    pub fn flush(&mut self, framer: &mut dyn Framer) {
        while let Some(step) = framer.flush() {
            let ended = self.take(step);
            self.end(ended, framer);
        }
        assert!(self.open.is_none());
    }

    fn take(&mut self, step: Step<'_>) -> Option<AccessUnitInfo> {
        match step {
            Step::Begin { position } => assert!(self.open.replace((position, Vec::new())).is_none()),
            Step::Append(bytes) => self.open.as_mut().expect("an open access unit").1.extend_from_slice(bytes),
            Step::End(info) => return Some(info),
            Step::Skipped { len } => match self.pieces.last_mut() {
                Some(Piece::Skipped(total)) => *total += u64::from(len),
                _ => self.pieces.push(Piece::Skipped(u64::from(len))),
            },
        }
        None
    }

    fn end(&mut self, ended: Option<AccessUnitInfo>, framer: &dyn Framer) {
        if let Some(info) = ended {
            let (position, bytes) = self.open.take().expect("an open access unit");
            self.pieces.push(Piece::Unit { position, bytes, info, configuration: framer.configuration().clone() });
        }
    }
}

/// Everything that comes out of a stream cut into pieces of these lengths, the last of which repeats.
pub(in crate::codec) fn collect(framer: &mut dyn Framer, stream: &[u8], cuts: &[usize]) -> Vec<Piece> {
    let mut collector = Collector::default();
    let (mut rest, mut cuts) = (stream, cuts.iter());
    let mut len = 1;
    while !rest.is_empty() {
        len = *cuts.next().unwrap_or(&len);
        let (piece, tail) = rest.split_at(len.min(rest.len()));
        rest = tail;
        collector.push(framer, piece);
    }
    collector.flush(framer);
    collector.pieces
}

/// The access units' bytes and facts.
pub(in crate::codec) fn units(pieces: &[Piece]) -> Vec<(Vec<u8>, AccessUnitInfo)> {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Unit { bytes, info, .. } => (bytes.clone(), *info),
            Piece::Skipped(len) => panic!("{len} bytes were passed over"),
        })
        .collect()
}

/// Bytes of a bit string; blanks are left out, and the last byte is filled up with zeros.
pub(in crate::codec) fn bits(text: &str) -> Vec<u8> {
    let bits: Vec<u8> = text.bytes().filter(|bit| matches!(bit, b'0' | b'1')).map(|bit| bit - b'0').collect();
    bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |all, (index, bit)| all | bit << (7 - index))).collect()
}

/// Bytes of a hexadecimal string.
pub(in crate::codec) fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Units of real streams, which random bytes would not hit upon.
const SEEDS: [&str; 20] = [
    "674d4028f403c0227ef016a020202800000300080000030193020000989680004c4b7231007c58ba80",
    "68de3c80",
    "06000593c670465380",
    "06010300032080",
    "6588822c2a86300072",
    "419a214c4ed9",
    "09f0",
    "0a",
    "0b",
    "6ec0201103",
    "40010c02ffff0408000003009d0800000300007b00009594aca048",
    "4201020408000003009d0800000300007b0000b003c0801107c4b659594aca94985e02d42448241000000300100000030326014986e0001312d00009896b80004c4b40002625a2",
    "4401c073c189",
    "2601af0d3f",
    "0201d0097e",
    "b32d024033ffffe018",
    "b5148200010000",
    "00000ffff8",
    "b58ffff30000",
    "012b7ce11804",
];

fn any_unit() -> impl Strategy<Value = Vec<u8>> {
    let random = prop::collection::vec(prop_oneof![Just(0), Just(1), Just(3), any::<u8>()], 0..100);
    let seed = prop::sample::select(&SEEDS[..]).prop_map(hex);
    let changed = (prop::sample::select(&SEEDS[..]).prop_map(hex), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(mut unit, at, byte)| {
            let at = at.index(unit.len());
            unit[at] = byte;
            unit
        },
    );
    (prop_oneof![1 => random, 4 => seed, 2 => changed], 0..6_usize).prop_map(|(unit, zeros)| {
        let mut bytes = vec![0; zeros];
        bytes.extend([0, 0, 1]);
        bytes.extend(unit);
        bytes
    })
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any_unit(), 0..24).prop_map(|units| units.concat())
}

fn framers() -> [Box<dyn Framer>; 3] {
    [Box::new(H264Framer::new()), Box::new(HevcFramer::new()), Box::new(Mpeg2VideoFramer::new())]
}

proptest! {
    #[test]
    fn access_units_do_not_depend_on_how_the_stream_is_cut(
        stream in any_stream(),
        cuts in prop::collection::vec(1..40_usize, 1..8),
    ) {
        for [mut whole, mut bytewise, mut cut] in
            std::array::from_fn::<_, 3, _>(|codec| [framers(), framers(), framers()].map(|mut three| {
                std::mem::replace(&mut three[codec], Box::new(H264Framer::new()))
            }))
        {
            let expected = collect(whole.as_mut(), &stream, &[stream.len().max(1)]);
            prop_assert_eq!(&collect(bytewise.as_mut(), &stream, &[1]), &expected);
            prop_assert_eq!(&collect(cut.as_mut(), &stream, &cuts), &expected);
            let mut position = 0;
            for piece in &expected {
                match piece {
                    Piece::Unit { position: start, bytes, .. } => {
                        prop_assert_eq!(*start, position);
                        prop_assert_eq!(bytes, &stream[position as usize..position as usize + bytes.len()]);
                        position += bytes.len() as u64;
                    }
                    Piece::Skipped(len) => position += len,
                }
            }
            prop_assert!(position + 3 >= stream.len() as u64);
        }
    }

    #[test]
    fn no_input_breaks_a_framer(data in prop::collection::vec(prop_oneof![2 => Just(0), 1 => Just(1), 3 => any::<u8>()], 0..600)) {
        crate::codec::h264::fuzzing::fuzz_h264(&data);
        crate::codec::hevc::fuzzing::fuzz_hevc(&data);
        crate::codec::mpeg2video::fuzzing::fuzz_mpeg2(&data);
    }

    #[test]
    fn no_broken_stream_breaks_a_framer(plan in any::<[u8; 8]>(), stream in any_stream()) {
        let data = [&plan[..], &stream].concat();
        crate::codec::h264::fuzzing::fuzz_h264(&data);
        crate::codec::hevc::fuzzing::fuzz_hevc(&data);
        crate::codec::mpeg2video::fuzzing::fuzz_mpeg2(&data);
    }
}

#[test]
fn slice_data_without_a_start_code_goes_out_as_one_piece() {
    let mut framer = H264Framer::new();
    Collector::default().push(&mut framer, &hex(&format!("00000001{}{}", SEEDS[4], "ab".repeat(100))));
    let piece = [0xcd; 184];
    let mut input = &piece[..];
    assert_eq!(framer.step(&mut input), Some(Step::Append(&piece)));
    assert_eq!(framer.step(&mut input), None);
}

#[test]
fn the_zero_byte_belongs_to_the_next_access_unit_and_more_zeros_to_the_one_before() {
    let slice = hex("65888200");
    let stream = [&[0, 0, 1][..], &slice, &[0, 0, 0, 0, 0, 0, 1, 9, 0xf0, 0, 0, 1], &slice].concat();
    for cut in 1..stream.len() {
        let units = units(&collect(&mut H264Framer::new(), &stream, &[cut, stream.len()]));
        assert_eq!(units.len(), 2);
        assert_eq!(units[0].0, [&[0, 0, 1][..], &slice, &[0, 0, 0]].concat());
        assert_eq!(units[1].0, [&[0, 0, 0, 1, 9, 0xf0, 0, 0, 1][..], &slice].concat());
    }
}

#[test]
fn what_is_held_stays_with_the_access_unit_that_a_gap_breaks() {
    let mut framer = H264Framer::new();
    let mut collector = Collector::default();
    let first = hex("000000016588820011223344");
    collector.push(&mut framer, &first);
    collector.push(&mut framer, &[0, 0, 0, 1, 0x41]);
    framer.discontinuity();
    // Without the gap these bytes would be the rest of a slice header, and then a start code.
    collector.push(&mut framer, &[0x9a, 0x21, 0x4c, 0, 0]);
    framer.discontinuity();
    collector.push(&mut framer, &[1, 9, 0xf0]);
    collector.flush(&mut framer);
    let units = units(&collector.pieces);
    assert_eq!(units.len(), 1);
    assert_eq!(units[0].0, [&first[..], &[0, 0, 0, 1, 0x41, 0x9a, 0x21, 0x4c, 0, 0, 1, 9, 0xf0]].concat());
    assert!(units[0].1.damaged);
}

#[test]
fn a_flush_gives_out_what_is_held_and_leaves_nothing_open() {
    let mut framer = H264Framer::new();
    let mut collector = Collector::default();
    for slice in ["0000000165888200000000", "00000001418882"] {
        collector.push(&mut framer, &hex(slice));
        collector.flush(&mut framer);
        assert_eq!(framer.flush(), None);
    }
    let units = units(&collector.pieces);
    assert_eq!(units[0].0, hex("0000000165888200000000"));
    assert_eq!(units[1].0, hex("00000001418882"));
    assert_eq!(framer.position(), 18);
}

#[test]
fn bytes_before_the_first_start_code_are_passed_over() {
    let pieces = collect(&mut H264Framer::new(), &hex("ffee00000000016588820011"), &[3]);
    assert_eq!(pieces[0], Piece::Skipped(3));
    assert!(matches!(&pieces[1], Piece::Unit { position: 3, bytes, .. } if *bytes == hex("000000016588820011")));
}
