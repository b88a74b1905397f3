//! Video access units against ffprobe's packets of the same bytes: number, order, bytes and key flags.

#[path = "conformance/clips.rs"]
mod clips;

use std::path::{Path, PathBuf};

use clips::Packet;
use headworks::codec::h264::H264Framer;
use headworks::codec::{Framer, Step};
use headworks::media::{AccessUnitInfo, PictureType, RandomAccess};

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
#[derive(Clone, Copy)]
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
        let got = Packet { size: unit.bytes.len(), crc32: clips::crc32(&unit.bytes), is_key: (key.0)(&unit.info) };
        assert_eq!(got, *expected, "access unit {index} of {path:?}: {:?}", unit.info);
        assert_eq!(unit.position, position);
        assert!(!unit.info.damaged, "access unit {index} of {path:?}");
        assert_eq!(unit.generation, 1);
        position += unit.bytes.len() as u64;
    }
    assert_eq!(units.len(), expected.len(), "{path:?}");
    units
}

const SAME: KeyRule = KeyRule(AccessUnitInfo::is_key);

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

/// The same clip as a raw stream and in a transport stream.
struct Clip {
    _directory: tempfile::TempDir,
    raw: PathBuf,
    transport: PathBuf,
}

fn clip(extension: &str, input: &str, encoder: &str) -> Clip {
    let directory = tempfile::tempdir().expect("a directory");
    let raw = clips::encode(directory.path(), &format!("clip.{extension}"), input, encoder);
    let transport = clips::encode(directory.path(), "clip.ts", input, encoder);
    Clip { _directory: directory, raw, transport }
}

impl Clip {
    fn compare<F: Framer + Default>(&self, key: KeyRule, format: &str) -> Vec<AccessUnit> {
        let mut all = Vec::new();
        for path in [&self.raw, &self.transport] {
            let mut framer = F::default();
            let units = compare(&mut framer, path, key);
            assert_eq!(framer.configuration().format.to_string(), format);
            assert_eq!(letters(&units), clips::picture_types(path));
            all = units;
        }
        all
    }
}

#[test]
fn h264_progressive_with_b_pyramid() {
    clip("h264", PROGRESSIVE, "-c:v libx264 -preset fast -g 25 -bf 3 -b-pyramid normal")
        .compare::<H264Framer>(SAME, "320×180p25 High");
}

#[test]
fn h264_without_delimiters_and_with_short_start_codes() {
    clip("h264", PROGRESSIVE, "-c:v libx264 -preset ultrafast -g 25 -profile:v baseline -slices 4")
        .compare::<H264Framer>(SAME, "320×180p25 Constrained Baseline");
}

#[test]
fn h264_mbaff() {
    clip("h264", INTERLACED, "-c:v libx264 -preset fast -g 12 -x264opts interlaced=1:tff=1:slices=3")
        .compare::<H264Framer>(SAME, "720×576i50 High");
}

#[test]
fn h264_open_gop() {
    clip("h264", PROGRESSIVE, "-c:v libx264 -preset fast -g 15 -bf 3 -x264opts open-gop=1:scenecut=0")
        .compare::<H264Framer>(SAME, "320×180p25 High");
}

#[test]
fn h264_intra_refresh() {
    let recovers = KeyRule(|info| info.is_key() || matches!(info.random_access, RandomAccess::RecoveryPoint { .. }));
    let units = clip("h264", PROGRESSIVE, "-c:v libx264 -preset fast -g 25 -x264opts intra-refresh=1")
        .compare::<H264Framer>(recovers, "320×180p25 High");
    assert!(
        units.iter().any(|unit| matches!(unit.info.random_access, RandomAccess::RecoveryPoint { frame_count: 1.. }))
    );
}

#[test]
fn h264_ten_bit_4_2_2_intra() {
    clip("h264", PROGRESSIVE, "-c:v libx264 -preset fast -g 1 -pix_fmt yuv422p10le -x264opts nal-hrd=cbr:filler=1 -b:v 8M -maxrate 8M -bufsize 4M")
        .compare::<H264Framer>(SAME, "320×180p25 High 4:2:2 Intra");
}
