use super::Mpeg2VideoFramer;
use crate::codec::Framer;
use crate::codec::annexb::tests::{Collector, collect, hex, units};
use crate::media::{AccessUnitInfo, Format, PictureStructure, PictureType, RandomAccess, Scan, Timecode};

/// ffmpeg's mpeg2video: 720 × 576 at 25 frames per second, interlaced, 16:9.
const SEQUENCE: [&str; 3] = ["b32d024033ffffe018", "b5148200010000", "b52b0502020b421200"];
const GROUP: &str = "b804286240";
const SLICE: &str = "012b7ce11804";
const FRAME: &str = "b58ffff30000";
const TOP_FIELD: &str = "b58ffff10000";
const BOTTOM_FIELD: &str = "b58ffff20000";
const END: &str = "b7";

/// A picture header.
fn picture(temporal_reference: u16, coding_type: u8) -> String {
    format!("00{:04x}fff8", temporal_reference << 6 | u16::from(coding_type) << 3 | 7)
}

fn stream(units: &[&str]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&[0, 0, 1], &hex(unit)[..]].concat()).collect()
}

fn cut(units_in: &[&str]) -> Vec<(usize, AccessUnitInfo)> {
    let bytes = stream(units_in);
    units(&collect(&mut Mpeg2VideoFramer::new(), &bytes, &[bytes.len()]))
        .into_iter()
        .map(|(bytes, info)| (memchr::memmem::find_iter(&bytes, &[0, 0, 1]).count(), info))
        .collect()
}

fn counts(units_in: &[&str]) -> Vec<usize> {
    cut(units_in).into_iter().map(|(count, _)| count).collect()
}

#[test]
fn headers_go_with_the_picture_behind_them_and_a_sequence_end_closes() {
    let (i, p) = (picture(0, 1), picture(1, 2));
    let sequence = [SEQUENCE[0], SEQUENCE[1], SEQUENCE[2], GROUP, &i, FRAME, SLICE, "02ff"];
    let units = [&sequence[..], &[&p, FRAME, SLICE], &[GROUP, &i, FRAME, SLICE, END], &sequence[..]].concat();
    let cut = cut(&units);
    assert_eq!(cut.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [8, 3, 5, 8]);
    use PictureType::{I, P};
    assert_eq!(cut.iter().map(|(_, info)| info.picture_type).collect::<Vec<_>>(), [I, P, I, I]);
    use RandomAccess::{Intra, None};
    assert_eq!(cut.iter().map(|(_, info)| info.random_access).collect::<Vec<_>>(), [Intra, None, Intra, Intra]);
    assert_eq!(cut.iter().map(|(_, info)| info.ends_sequence).collect::<Vec<_>>(), [false, false, true, false]);
    let timecode = Timecode { hours: 1, minutes: 2, seconds: 3, frames: 4, drop_frame: false };
    assert_eq!(cut.iter().map(|(_, info)| info.timecode).collect::<Vec<_>>()[..2], [Some(timecode), Option::None]);
    assert!(cut.iter().all(|(_, info)| !info.damaged));
}

#[test]
fn a_sequence_end_is_given_out_at_once() {
    let mut framer = Mpeg2VideoFramer::new();
    let mut collector = Collector::default();
    let i = picture(0, 1);
    collector.push(&mut framer, &stream(&[SEQUENCE[0], &i, SLICE, END]));
    assert_eq!(collector.pieces.len(), 1);
    assert_eq!(framer.flush(), None);
}

#[test]
fn an_intra_picture_before_any_sequence_header_is_no_entry() {
    let i = picture(0, 1);
    assert_eq!(cut(&[&i, FRAME, SLICE])[0].1.random_access, RandomAccess::None);
}

#[test]
fn two_fields_with_one_temporal_reference_are_a_frame() {
    let (i, p, next) = (picture(0, 1), picture(0, 2), picture(1, 2));
    let pair = cut(&[SEQUENCE[0], &i, TOP_FIELD, SLICE, &p, BOTTOM_FIELD, SLICE, &next, FRAME, SLICE]);
    assert_eq!(pair.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [7, 3]);
    let info = pair[0].1;
    assert_eq!((info.picture_structure, info.fields, info.picture_type), (PictureStructure::Frame, 2, PictureType::I));
    // A lone field, then a frame.
    let lone = cut(&[SEQUENCE[0], &i, TOP_FIELD, SLICE, &next, FRAME, SLICE]);
    assert_eq!(lone.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [4, 3]);
    assert_eq!((lone[0].1.picture_structure, lone[0].1.fields), (PictureStructure::TopField, 1));
    // Three pictures of one temporal reference: the third starts a frame.
    assert_eq!(counts(&[&i, TOP_FIELD, SLICE, &p, BOTTOM_FIELD, SLICE, &p, TOP_FIELD, SLICE]), [6, 3]);
}

#[test]
fn repeated_fields_are_counted() {
    let i = picture(0, 1);
    // top_field_first and repeat_first_field in the byte after picture_structure.
    let interlaced = [SEQUENCE[0], SEQUENCE[1], &i, "b58ffff38200", SLICE];
    assert_eq!(cut(&interlaced)[0].1.fields, 3);
    let progressive = [SEQUENCE[0], "b5148a00010000", &i, "b58ffff38200", SLICE];
    assert_eq!(cut(&progressive)[0].1.fields, 6);
    let progressive = [SEQUENCE[0], "b5148a00010000", &i, "b58ffff30200", SLICE];
    assert_eq!(cut(&progressive)[0].1.fields, 4);
}

#[test]
fn a_lost_first_row_is_marked() {
    let i = picture(0, 1);
    assert!(cut(&[SEQUENCE[0], &i, FRAME, "022b7ce1"])[0].1.damaged);
    assert!(cut(&[SEQUENCE[0], SLICE])[0].1.damaged);
    assert!(!cut(&[SEQUENCE[0], &i, FRAME, SLICE])[0].1.damaged);
}

#[test]
fn zeros_before_a_start_code_stay_with_the_picture_before() {
    let i = picture(0, 1);
    let first = [stream(&[SEQUENCE[0], SEQUENCE[1], &i, FRAME, SLICE]), vec![0; 5]].concat();
    let second = stream(&[&picture(1, 2), FRAME, SLICE]);
    for cut in 1..first.len() {
        let pieces = collect(&mut Mpeg2VideoFramer::new(), &[&first[..], &second].concat(), &[cut, 1000]);
        let units: Vec<_> = units(&pieces).into_iter().map(|(bytes, _)| bytes).collect();
        assert_eq!(units, [first.clone(), second.clone()]);
    }
}

#[test]
fn the_configuration_is_the_sequence_without_stuffing() {
    let mut framer = Mpeg2VideoFramer::new();
    let mut collector = Collector::default();
    let i = picture(0, 1);
    for stuffing in [0, 4] {
        collector.push(&mut framer, &stream(&SEQUENCE));
        collector.push(&mut framer, &vec![0; stuffing]);
        collector.push(&mut framer, &stream(&[&i, FRAME, SLICE]));
    }
    collector.flush(&mut framer);
    let configuration = framer.configuration();
    assert_eq!((configuration.generation, &configuration.bytes), (1, &stream(&SEQUENCE)));
    let Format::Video(format) = &configuration.format else { panic!("no format") };
    assert_eq!(format.to_string(), "720×576i50 Main");
    assert_eq!((format.scan, format.colour, format.chroma_format), (Scan::Interlaced, [5, 2, 2], 1));
    assert_eq!(format.sample_aspect_ratio.map(|ratio| (ratio.numerator, ratio.denominator)), Some((64, 45)));
}
