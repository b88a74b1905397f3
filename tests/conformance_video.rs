//! Video access units against ffprobe's packets of the same bytes: number, order, bytes and key flags.

#[path = "conformance/bitstream.rs"]
mod bitstream;
#[path = "conformance/clips.rs"]
mod clips;
#[path = "conformance/field_coded.rs"]
mod field_coded;
#[path = "conformance/parameters.rs"]
mod parameters;

use std::path::{Path, PathBuf};

use clips::Packet;
use field_coded::Structure;
use headworks::codec::h264::H264Framer;
use headworks::codec::hevc::HevcFramer;
use headworks::codec::mpeg2video::Mpeg2VideoFramer;
use headworks::codec::{Framer, Step};
use headworks::media::{AccessUnitInfo, PictureStructure, PictureType, RandomAccess};

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
    let hevc = clips::codec(path) == "hevc";
    for (index, (unit, expected)) in units.iter().zip(&expected).enumerate() {
        let next = units.get(index + 1).map(|unit| unit.bytes.as_slice());
        let bytes = if hevc { as_hevc_parser_cuts(&unit.bytes, next, index == 0) } else { unit.bytes.clone() };
        let got = Packet { size: bytes.len(), crc32: clips::crc32(&bytes), is_key: (key.0)(&unit.info) };
        assert_eq!(got, *expected, "access unit {index} of {path:?}: {:?}", unit.info);
        assert_eq!(unit.position, position);
        assert!(!unit.info.damaged, "access unit {index} of {path:?}");
        assert_eq!(unit.generation, 1);
        position += unit.bytes.len() as u64;
    }
    assert_eq!(units.len(), expected.len(), "{path:?}");
    units
}

/// ffmpeg 5.1's HEVC parser takes each start code for three bytes and leaves the `zero_byte` before it, which by H.265
/// §B.2.1 is the first byte of the access unit, at the end of the packet before. Its H.264 parser does not.
fn as_hevc_parser_cuts(unit: &[u8], next: Option<&[u8]>, is_first: bool) -> Vec<u8> {
    const FOUR_BYTES: &[u8] = &[0, 0, 0, 1];
    let mut bytes = if is_first || !unit.starts_with(FOUR_BYTES) { unit.to_vec() } else { unit[1..].to_vec() };
    if next.is_some_and(|next| next.starts_with(FOUR_BYTES)) {
        bytes.push(0);
    }
    bytes
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

#[test]
fn hevc_8_bit() {
    clip(
        "hevc",
        PROGRESSIVE,
        "-c:v libx265 -preset ultrafast -x265-params log-level=error:keyint=20:open-gop=1:bframes=3",
    )
    .compare::<HevcFramer>(SAME, "320×180p25 Main");
}

#[test]
fn hevc_10_bit_with_slices_and_perceptual_quantizer() {
    clip(
        "hevc",
        PROGRESSIVE,
        "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -x265-params \
         log-level=error:keyint=25:open-gop=0:slices=2:repeat-headers=1:aud=1:transfer=smpte2084:colorprim=bt2020:colormatrix=bt2020nc",
    )
    .compare::<HevcFramer>(SAME, "320×180p25 Main 10 PQ");
}

#[test]
fn hevc_field_coded() {
    let units = clip(
        "hevc",
        "testsrc2=size=320x176:rate=50:duration=1",
        "-c:v libx265 -preset ultrafast -x265-params log-level=error:interlace=tff:keyint=20:temporal-layers=1",
    )
    .compare::<HevcFramer>(SAME, "320×352i50 Main");
    for (structure, fields) in [(PictureStructure::TopField, 1), (PictureStructure::BottomField, 1)] {
        assert!(units.iter().any(|unit| (unit.info.picture_structure, unit.info.fields) == (structure, fields)));
    }
    assert!(units.iter().any(|unit| unit.info.temporal_id == 1));
}

#[test]
fn mpeg2_progressive() {
    clip("m2v", PROGRESSIVE, "-c:v mpeg2video -g 12 -bf 2 -b:v 2M")
        .compare::<Mpeg2VideoFramer>(SAME, "320×180p25 Main");
}

#[test]
fn mpeg2_interlaced_with_stuffing() {
    clip(
        "m2v",
        INTERLACED,
        "-c:v mpeg2video -g 12 -bf 2 -flags +ildct+ilme -b:v 6M -minrate 6M -maxrate 6M -bufsize 2M",
    )
    .compare::<Mpeg2VideoFramer>(SAME, "720×576i50 Main");
}

#[test]
fn h264_field_coded_gives_an_access_unit_for_each_field() {
    let pictures = field_coded::h264(60);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("fields.h264");
    let stream: Vec<u8> = pictures.iter().flat_map(|picture| picture.bytes.iter().copied()).collect();
    std::fs::write(&path, &stream).expect("written");

    let mut framer = H264Framer::new();
    let units = frame(&mut framer, stream.chunks(184));
    assert_eq!(framer.configuration().format.to_string(), "32×64i50 Main");
    assert_eq!(framer.configuration().generation, 1);
    assert_eq!(units.len(), pictures.len());
    for (unit, picture) in units.iter().zip(&pictures) {
        assert_eq!(unit.bytes, picture.bytes);
        let structure = match (picture.structure, picture.is_first) {
            (Structure::Frame, _) => PictureStructure::Frame,
            (Structure::Top, true) => PictureStructure::TopField,
            (Structure::Bottom, true) => PictureStructure::BottomField,
            (Structure::Top, false) => PictureStructure::SecondTopField,
            (Structure::Bottom, false) => PictureStructure::SecondBottomField,
        };
        assert_eq!(unit.info.picture_structure, structure);
        assert_eq!(unit.info.is_key(), picture.is_key);
        assert_eq!(unit.info.fields, if picture.structure == Structure::Frame { 2 } else { 1 });
        let timecode = unit.info.timecode.expect("a time code");
        assert_eq!((timecode.hours, timecode.minutes, timecode.seconds), (10, 20, 30));
    }
    compare(&mut H264Framer::new(), &path, SAME);
    clips::decode(&path, 60);
}

#[test]
fn mpeg2_field_pictures_make_one_access_unit_of_two() {
    let pictures = field_coded::mpeg2(60);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("fields.m2v");
    let stream: Vec<u8> = pictures.iter().flat_map(|picture| picture.bytes.iter().copied()).collect();
    std::fs::write(&path, &stream).expect("written");
    let mut framer = Mpeg2VideoFramer::new();
    let units = compare(&mut framer, &path, SAME);
    assert_eq!(framer.configuration().format.to_string(), "32×64i50 Main");
    assert!(units.iter().all(|unit| unit.info.picture_structure == PictureStructure::Frame && unit.info.fields == 2));
    assert_eq!(clips::packets(&path), joined(&pictures));
    clips::decode(&path, 60);
}

/// The packets of whole frames.
fn joined(pictures: &[field_coded::Picture]) -> Vec<Packet> {
    let mut frames: Vec<(Vec<u8>, bool)> = Vec::new();
    for picture in pictures {
        if picture.is_first {
            frames.push((Vec::new(), picture.is_key));
        }
        frames.last_mut().expect("a frame").0.extend_from_slice(&picture.bytes);
    }
    frames
        .into_iter()
        .map(|(bytes, is_key)| Packet { size: bytes.len(), crc32: clips::crc32(&bytes), is_key })
        .collect()
}

#[test]
fn h264_headers_read_as_another_reader_reads_them() {
    let fields: Vec<u8> = field_coded::h264(30).iter().flat_map(|picture| picture.bytes.iter().copied()).collect();
    assert_eq!(parameters::compare_stream(&fields), (55, 55));
    let encoders = [
        "-g 12 -bf 3 -x264opts interlaced=1:tff=1:slices=3:nal-hrd=vbr:pic-struct=1:open-gop=1 -b:v 2M -maxrate 3M -bufsize 3M",
        "-g 25 -x264opts intra-refresh=1:aud=1:bframes=0:weightp=2:cqm=jvt",
        "-profile:v baseline -g 10",
    ];
    for encoder in encoders {
        let clip = clip("h264", INTERLACED, &format!("-c:v libx264 -preset veryfast {encoder}"));
        let (slices, _) = parameters::compare_stream(&std::fs::read(&clip.raw).expect("the clip is there"));
        assert!(slices >= 75);
    }
}
