use super::H264Framer;
use super::configuration_record::configuration_record;
use crate::codec::annexb::tests::{Collector, Piece, bits, collect, hex, units};
use crate::codec::{Framer, nal_syntax};
use crate::media::{
    AccessUnitInfo, Format, PictureStructure, PictureType, RandomAccess, Scan, Timecode, TransferFunction,
};

const DELIMITER: &[u8] = &[9, 0xf0];

/// 32 × 32, 4 bits each of frame_num and picture order count; `tail` from frame_mbs_only_flag on.
fn sps(tail: &str) -> Vec<u8> {
    [vec![0x67, 77, 0, 30], bits(&format!("1 1 1 1 010 0 010 010 {tail} 1 0 0 1"))].concat()
}

fn progressive() -> Vec<u8> {
    sps("1")
}

fn interlaced() -> Vec<u8> {
    sps("0 0")
}

/// The set with this id (as `ue(v)` bits), with or without redundant_pic_cnt.
fn pps(id: &str, redundant: &str) -> Vec<u8> {
    [vec![0x68], bits(&format!("{id} 1 0 0 1 1 1 0 00 1 1 1 0 0 {redundant} 1"))].concat()
}

/// A slice NAL unit from its header's bits and some data.
fn slice(header: u8, fields: &str) -> Vec<u8> {
    [vec![header], bits(fields), hex("b5a7c9")].concat()
}

/// With start codes of four bytes.
fn stream(units: &[Vec<u8>]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&[0, 0, 0, 1], &unit[..]].concat()).collect()
}

/// How many units each access unit has, and the facts.
fn cut(units_in: &[Vec<u8>]) -> Vec<(usize, AccessUnitInfo)> {
    let bytes = stream(units_in);
    units(&collect(&mut H264Framer::new(), &bytes, &[bytes.len()]))
        .into_iter()
        .map(|(bytes, info)| (memchr::memmem::find_iter(&bytes, &[0, 0, 1]).count(), info))
        .collect()
}

fn counts(units_in: &[Vec<u8>]) -> Vec<usize> {
    cut(units_in).into_iter().map(|(count, _)| count).collect()
}

// first_mb, slice_type, pic_parameter_set_id, frame_num, idr_pic_id, pic_order_cnt_lsb
const IDR: &str = "1 00110 1 0000 1 0000";
const IDR_SECOND_SLICE: &str = "011 00110 1 0000 1 0000";
// first_mb, slice_type, pic_parameter_set_id, frame_num, pic_order_cnt_lsb
const P: &str = "1 00110 1 0001 0010";

#[test]
fn slices_of_one_picture_stay_together() {
    let units = [progressive(), pps("1", "0"), slice(0x65, IDR), slice(0x65, IDR_SECOND_SLICE), slice(0x61, P)];
    assert_eq!(counts(&units), [4, 1]);
}

#[test]
fn each_field_that_the_standard_compares_tells_pictures_apart() {
    let sets = [progressive(), pps("1", "0"), pps("010", "0")];
    let second = |fields| slice(0x41, fields);
    // The second slice starts at macroblock 2, so that only the named field tells.
    for (first, next) in [
        (slice(0x41, "1 1 1 0001 0010"), second("011 1 1 0010 0010")),
        (slice(0x41, "1 1 1 0001 0010"), second("011 1 010 0001 0010")),
        (slice(0x41, "1 1 1 0001 0010"), second("011 1 1 0001 0100")),
        (slice(0x41, "1 1 1 0001 0010"), slice(0x01, "011 1 1 0001 0010")),
        (slice(0x41, "1 1 1 0000 0010"), slice(0x65, "011 00110 1 0000 1 0010")),
        (slice(0x65, "1 00110 1 0000 1 0010"), slice(0x65, "011 00110 1 0000 010 0010")),
    ] {
        let units = [&sets[..], &[first, next]].concat();
        assert_eq!(counts(&units), [4, 1], "{units:02x?}");
    }
    let same = [&sets[..], &[slice(0x41, "1 1 1 0001 0010"), second("011 1 1 0001 0010")]].concat();
    assert_eq!(counts(&same), [5]);
}

#[test]
fn a_second_first_macroblock_starts_a_picture_though_nothing_else_changes() {
    let units = [progressive(), pps("1", "0"), slice(0x61, P), slice(0x61, P)];
    assert_eq!(counts(&units), [3, 1]);
}

#[test]
fn what_comes_between_pictures_goes_to_the_next_and_what_ends_them_stays() {
    let filler = vec![12, 0xff, 0xff, 0x80];
    let end = vec![10];
    let units = [
        DELIMITER.to_vec(),
        progressive(),
        pps("1", "0"),
        slice(0x65, IDR),
        filler.clone(),
        vec![6, 200, 1, 7, 0x80],
        slice(0x61, P),
        filler,
        end,
        vec![11],
        slice(0x65, IDR),
    ];
    let cut = cut(&units);
    assert_eq!(cut.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [5, 5, 1]);
    assert_eq!(cut.iter().map(|(_, info)| info.ends_sequence).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(cut[0].1.random_access, RandomAccess::Idr);
    assert_eq!(cut[1].1.random_access, RandomAccess::None);
}

#[test]
fn prefix_units_go_with_the_slice_behind_them() {
    let prefix = |temporal_id: u8| vec![0x6e, 0x80, 0x00, temporal_id << 5 | 0x07];
    let units = [
        progressive(),
        pps("1", "0"),
        prefix(0),
        slice(0x65, IDR),
        prefix(0),
        slice(0x65, IDR_SECOND_SLICE),
        prefix(2),
        slice(0x61, P),
    ];
    let cut = cut(&units);
    assert_eq!(cut.iter().map(|(count, info)| (*count, info.temporal_id)).collect::<Vec<_>>(), [(6, 0), (2, 2)]);
}

#[test]
fn prefix_units_without_a_slice_behind_them_stay() {
    let prefix = vec![0x6e, 0x80, 0x00, 0x07];
    let long = [&prefix[..], &[0x55; 60]].concat();
    for last in [prefix.clone(), long.clone()] {
        assert_eq!(counts(&[progressive(), pps("1", "0"), slice(0x65, IDR), last]), [4]);
    }
    assert_eq!(counts(&[progressive(), pps("1", "0"), slice(0x65, IDR), long, slice(0x61, P)]), [4, 1]);
    assert_eq!(counts(&[progressive(), pps("1", "0"), slice(0x65, IDR), prefix, DELIMITER.to_vec()]), [3, 2]);
}

#[test]
fn redundant_slices_start_nothing() {
    // redundant_pic_cnt 0 and 1
    let units = [
        progressive(),
        pps("1", "1"),
        slice(0x65, "1 00110 1 0000 1 0000 1"),
        slice(0x65, "1 00110 1 0000 1 0000 010"),
        slice(0x61, "1 00110 1 0001 0010 1"),
    ];
    assert_eq!(counts(&units), [4, 1]);
}

#[test]
fn lost_and_broken_slices_are_marked() {
    let sets = [progressive(), pps("1", "0")];
    let lost = cut(&[&sets[..], &[slice(0x65, IDR_SECOND_SLICE)]].concat());
    assert!(lost[0].1.damaged);
    // slice_type 10
    let broken = cut(&[&sets[..], &[slice(0x65, "1 0001011 1 0000 1 0000"), slice(0x61, P)]].concat());
    assert_eq!(broken.iter().map(|(count, info)| (*count, info.damaged)).collect::<Vec<_>>(), [(3, true), (1, false)]);
    let whole = cut(&[&sets[..], &[slice(0x65, IDR)]].concat());
    assert!(!whole[0].1.damaged);
    let forbidden = cut(&[&sets[..], &[slice(0x65, IDR), vec![0xe1, 1, 2]]].concat());
    assert!(forbidden[0].1.damaged);
}

#[test]
fn without_parameter_sets_the_first_macroblock_tells() {
    let units = [slice(0x61, P), slice(0x61, "011 00110 1 0001 0010"), slice(0x61, P), slice(0x65, IDR)];
    let cut = cut(&units);
    assert_eq!(cut.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [2, 1, 1]);
    assert!(cut.iter().all(|(_, info)| !info.damaged));
    assert_eq!(cut[2].1.random_access, RandomAccess::Idr);
}

#[test]
fn picture_types_are_those_of_all_slices() {
    let sets = [progressive(), pps("1", "0")];
    for (types, expected) in [
        (["011", "011"], PictureType::I),
        (["011", "1"], PictureType::P),
        (["1", "010"], PictureType::B),
        (["00101", "011"], PictureType::I),
    ] {
        let slices = [("1", types[0]), ("011", types[1])]
            .map(|(first, kind)| slice(0x41, &format!("{first} {kind} 1 0001 0010")));
        assert_eq!(cut(&[&sets[..], &slices].concat())[0].1.picture_type, expected);
    }
}

#[test]
fn fields_pair_by_parity_and_frame_num() {
    // first_mb, slice_type, pps, frame_num, field_pic_flag, bottom_field_flag, (idr_pic_id), pic_order_cnt_lsb
    let units = [
        interlaced(),
        pps("1", "0"),
        slice(0x65, "1 011 1 0000 1 0 1 0000"),
        slice(0x61, "1 1 1 0000 1 1 0001"),
        slice(0x61, "1 1 1 0001 1 1 0011"),
        slice(0x61, "1 1 1 0001 1 0 0010"),
        slice(0x61, "1 1 1 0010 1 0 0100"),
        slice(0x61, "1 1 1 0011 1 1 0111"),
        slice(0x61, "1 1 1 0100 0 1000"),
    ];
    use PictureStructure::{BottomField, Frame, SecondBottomField, SecondTopField, TopField};
    let structures: Vec<_> = cut(&units).into_iter().map(|(_, info)| info.picture_structure).collect();
    assert_eq!(structures, [TopField, SecondBottomField, BottomField, SecondTopField, TopField, BottomField, Frame]);
}

#[test]
fn a_recovery_point_tells_its_count() {
    let recovery = |count: &str| [vec![6, 6, 1], bits(&format!("{count} 1 0 00 1")), vec![0x80]].concat();
    let units =
        [progressive(), pps("1", "0"), recovery("1"), slice(0x61, P), recovery("011"), slice(0x61, "1 1 1 0010 0100")];
    let cut = cut(&units);
    assert_eq!(cut[0].1.random_access, RandomAccess::RecoveryPoint { frame_count: 0 });
    assert!(cut[0].1.is_key());
    assert_eq!(cut[1].1.random_access, RandomAccess::RecoveryPoint { frame_count: 2 });
    assert!(!cut[1].1.is_key());
}

#[test]
fn the_configuration_changes_only_with_its_bytes() {
    let mut framer = H264Framer::new();
    let mut collector = Collector::default();
    let first = [progressive(), pps("1", "0")];
    let key = [&first[..], &[slice(0x65, IDR)]].concat();
    // A set with another id, then other contents under the same id.
    let more = [&[pps("010", "0")][..], &[slice(0x61, P)]].concat();
    let other = [&[pps("1", "1")][..], &[slice(0x65, "1 00110 1 0000 010 0000 1")]].concat();
    for units in [&key, &key, &more, &key, &other] {
        collector.push(&mut framer, &stream(units));
        collector.flush(&mut framer);
    }
    let generations: Vec<_> = collector
        .pieces
        .iter()
        .map(|piece| match piece {
            Piece::Unit { configuration, .. } => configuration.generation,
            Piece::Skipped(_) => unreachable!("start codes come first"),
        })
        .collect();
    assert_eq!(generations, [1, 1, 2, 2, 3]);
    assert_eq!(framer.configuration().bytes, stream(&[progressive(), pps("1", "1"), pps("010", "0")]));
}

#[test]
fn a_set_that_is_too_large_is_damage_and_not_kept() {
    let mut framer = H264Framer::new();
    let mut collector = Collector::default();
    let large = [pps("1", "0"), vec![0xff; 5000]].concat();
    collector.push(&mut framer, &stream(&[progressive(), large, slice(0x65, IDR)]));
    collector.flush(&mut framer);
    assert!(units(&collector.pieces)[0].1.damaged);
    assert_eq!(framer.configuration().generation, 0);
}

#[test]
fn the_format_of_a_real_interlaced_stream_is_read() {
    // x264: interlaced=1:nal-hrd=cbr:pic-struct=1, 1920 × 1080 at 25 frames per second, BT.709
    let real = [
        "674d4028f403c0227ef016a020202800000300080000030193020000989680004c4b7231007c58ba80",
        "68de3c80",
        "06000593c670465380",
        "06010300032080",
        "6588822c2a8630007261e3b898cc24d340c0002ffff001c76e40",
    ];
    let mut framer = H264Framer::new();
    let mut collector = Collector::default();
    collector.push(&mut framer, &stream(&real.map(hex)));
    collector.flush(&mut framer);
    let Format::Video(format) = &framer.configuration().format else { panic!("no format") };
    assert_eq!(format.to_string(), "1920×1080i50 Main");
    assert_eq!((format.level_tenths, format.bit_depth, format.chroma_format), (40, 8, 1));
    assert_eq!((format.scan, format.transfer, format.colour), (Scan::Interlaced, TransferFunction::Sdr, [1, 1, 1]));
    assert_eq!(format.sample_aspect_ratio.map(|ratio| (ratio.numerator, ratio.denominator)), Some((1, 1)));
    let info = units(&collector.pieces)[0].1;
    assert_eq!((info.fields, info.picture_type, info.timecode), (2, PictureType::I, None));
}

#[test]
fn a_drop_frame_time_code_is_read() {
    use super::parameters::Vui;
    use super::sei::PictureTiming;
    let vui = Vui { delay_bits: Some((3, 5)), pic_struct_present: true, ..Vui::default() };
    // Delays; pic_struct 4; no first clock; the second with counting_type 4 and without full_timestamp_flag.
    let body = bits("101 10101 0100 0 1 01 0 00100 0 0 0 00010001 1 111011 1 000111 1 10111");
    let timing = PictureTiming::parse(&[body, vec![0; 3]].concat(), &vui);
    assert_eq!(timing.fields(), 2);
    let expected = Timecode { hours: 23, minutes: 7, seconds: 59, frames: 17, drop_frame: true };
    assert_eq!(timing.timecode, Some(expected));
}

#[test]
fn a_configuration_record_has_the_parameter_sets() {
    let (sequence, picture) = (progressive(), pps("1", "0"));
    let record = configuration_record(&stream(&[vec![9, 0xf0], sequence.clone(), picture.clone()])).unwrap();
    let expected = [
        &[1, 77, 0, 30, 0xff, 0xe1, 0, sequence.len() as u8],
        &sequence[..],
        &[1, 0, picture.len() as u8],
        &picture[..],
    ];
    assert_eq!(record, expected.concat());
    // High 4:2:2 with 10 bits for luma and 9 for chroma.
    let high = [vec![0x67, 122, 0, 30], bits("1 011 011 010 0 0 1 1 1 010 0 010 010 1 1 0 0 1")].concat();
    let record = configuration_record(&stream(&[high, picture])).unwrap();
    assert_eq!(record[record.len() - 4..], [0xfe, 0xfa, 0xf9, 0]);
    assert_eq!(configuration_record(&stream(&[pps("1", "0")])), None);
}

#[test]
fn units_are_found_in_a_whole_access_unit() {
    // A start code of four bytes; zeros at the end of a unit, and a start code right behind another.
    let bytes = [&[0, 0, 0, 1, 9, 0x10][..], &[0, 0, 1, 0x65, 0x88, 0, 3, 0, 0], &[0, 0, 1, 0, 0, 1, 0x41]].concat();
    let found: Vec<&[u8]> = nal_syntax::units(&bytes).collect();
    assert_eq!(found, [&[9, 0x10][..], &[0x65, 0x88, 0, 3], &[0x41]]);
    let mut out = Vec::new();
    nal_syntax::write_with_lengths(&bytes, &mut out);
    assert_eq!(out, [&[0, 0, 0, 2, 9, 0x10][..], &[0, 0, 0, 4, 0x65, 0x88, 0, 3], &[0, 0, 0, 1, 0x41]].concat());
    assert_eq!(nal_syntax::units(&[0, 0]).count(), 0);
}
