//! Video access units against ffprobe's packets of the same bytes: number, order, bytes and key flags.

#[path = "conformance/clips.rs"]
mod clips;

use std::path::Path;

use clips::Packet;
use headworks::codec::h264::H264Framer;
use headworks::codec::{Framer, Step};
use headworks::media::{AccessUnitInfo, PictureType, RandomAccess, TrackConfiguration};

/// A complete access unit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AccessUnit {
    position: u64,
    bytes: Vec<u8>,
    info: AccessUnitInfo,
    generation: u32,
}

/// Runs a framer over pieces and flushes it at the end.
fn frame<'p>(framer: &mut dyn Framer, pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<AccessUnit> {
    let mut units = Vec::new();
    let mut open = None;
    for piece in pieces {
        let mut input = piece;
        loop {
            let mut left = input;
            let Some(step) = framer.push(&mut left) else { break };
            let taken = input.len() - left.len();
            let ended = take(&mut open, step);
            input = &input[taken..];
            if let Some((position, bytes, info)) = ended {
                units.push(AccessUnit { position, bytes, info, generation: framer.configuration().generation });
            }
        }
    }
    while let Some(step) = framer.flush() {
        if let Some((position, bytes, info)) = take(&mut open, step) {
            units.push(AccessUnit { position, bytes, info, generation: framer.configuration().generation });
        }
    }
    units
}

fn take(open: &mut Option<(u64, Vec<u8>)>, step: Step<'_>) -> Option<(u64, Vec<u8>, AccessUnitInfo)> {
    match step {
        Step::Begin { position } => assert!(open.replace((position, Vec::new())).is_none()),
        Step::Append(bytes) => open.as_mut().expect("an open access unit").1.extend_from_slice(bytes),
        Step::End(info) => {
            let (position, bytes) = open.take().expect("an open access unit");
            return Some((position, bytes, info));
        }
        Step::Skipped { len } => panic!("{len} bytes of a whole stream were passed over"),
    }
    None
}

/// Which of our access units ffprobe calls key though we do not, or the other way round.
struct KeyRule(fn(&AccessUnitInfo) -> bool);

/// Compares and gives the access units.
fn compare(framer: &mut dyn Framer, path: &Path, key: KeyRule) -> Vec<AccessUnit> {
    let expected = clips::packets(path);
    assert!(expected.len() > 20, "{path:?} has {} packets", expected.len());
    let transport = path.extension().is_some_and(|extension| extension == "ts");
    let units = if transport {
        let pieces = clips::transport_pieces(path);
        frame(framer, pieces.iter().map(Vec::as_slice))
    } else {
        let bytes = std::fs::read(path).expect("the clip is there");
        frame(framer, bytes.chunks(1316))
    };
    let mut position = 0;
    for (index, (unit, expected)) in units.iter().zip(&expected).enumerate() {
        let got = Packet {
            size: unit.bytes.len(),
            crc32: clips::crc32(&unit.bytes),
            is_key: (key.0)(&unit.info),
        };
        assert_eq!(got, *expected, "access unit {index} of {path:?}: {:?}", unit.info);
        assert_eq!(unit.position, position);
        assert!(!unit.info.damaged, "access unit {index} of {path:?}");
        assert_eq!(unit.generation, 1);
        position += unit.bytes.len() as u64;
    }
    assert_eq!(units.len(), expected.len(), "{path:?}");
    units
}

fn same_as_ffprobe() -> KeyRule {
    KeyRule(AccessUnitInfo::is_key)
}

fn letter(kind: PictureType) -> char {
    match kind {
        PictureType::I => 'I',
        PictureType::P => 'P',
        PictureType::B => 'B',
        PictureType::Unknown => '?',
    }
}

fn letters(units: &[AccessUnit]) -> String {
    units.iter().map(|unit| letter(unit.info.picture_type)).collect()
}

const PROGRESSIVE: &str = "testsrc2=size=320x180:rate=25:duration=3";
const INTERLACED: &str = "testsrc2=size=720x576:rate=50:duration=3,interlace=lowpass=0";

fn h264(name: &str, input: &str, arguments: &str) -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let raw = clips::encode(directory.path(), &format!("{name}.h264"), input, &format!("-c:v libx264 {arguments}"));
    let transport = clips::remux(&raw, &format!("{name}.ts"), "");
    (directory, raw, transport)
}

#[test]
fn h264_progressive() {
    let (_directory, raw, transport) = h264("progressive", PROGRESSIVE, "-preset fast -g 25 -bf 2");
    for path in [raw, transport] {
        let mut framer = H264Framer::new();
        let units = compare(&mut framer, &path, same_as_ffprobe());
        assert_eq!(letters(&units), clips::picture_types(&path).into_iter().collect::<String>());
        check_format(framer.configuration(), "320×180p25 High");
    }
}

fn check_format(configuration: &TrackConfiguration, text: &str) {
    assert_eq!(configuration.format.to_string(), text);
}
