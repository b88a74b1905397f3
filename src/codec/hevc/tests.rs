use super::HevcFramer;
use super::configuration_record::configuration_record;
use crate::codec::Framer;
use crate::codec::annexb::tests::{Collector, bits, collect, hex, units};
use crate::media::{AccessUnitInfo, Format, PictureType, RandomAccess, Scan, Timecode, TransferFunction};

/// x265: 1920 × 1080 at 50 frames per second, 4:2:2 10 bit, HLG, with HRD and two temporal layers.
const SETS: [&str; 3] = [
    "40010c02ffff0408000003009d0800000300007b00009594aca048",
    "4201020408000003009d0800000300007b0000b003c0801107c4b659594aca94985e02d42448241000000300100000030326014986e0001312d00009896b80004c4b40002625a2",
    "4401c073c189",
];

/// A NAL unit of this type, temporal id 0 of the base layer, and some data.
fn unit(kind: u8, fields: &str) -> Vec<u8> {
    [vec![kind << 1, 1], bits(fields), hex("b5a7c9")].concat()
}

fn stream(units: &[Vec<u8>]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&[0, 0, 0, 1], &unit[..]].concat()).collect()
}

fn sets() -> Vec<Vec<u8>> {
    SETS.iter().map(|set| hex(set)).collect()
}

fn cut(units_in: &[Vec<u8>]) -> Vec<(usize, AccessUnitInfo)> {
    let bytes = stream(units_in);
    units(&collect(&mut HevcFramer::new(), &bytes, &[bytes.len()]))
        .into_iter()
        .map(|(bytes, info)| (memchr::memmem::find_iter(&bytes, &[0, 0, 1]).count(), info))
        .collect()
}

// first_slice_segment_in_pic_flag, (no_output_of_prior_pics_flag), pps 0, slice_type
const IRAP: &str = "1 0 1 011";
const TRAILING_P: &str = "1 1 010";
// Not the first: the address has 11 bits (2,040 blocks of 32).
const SECOND_B: &str = "0 1 00000000011 1";

#[test]
fn the_first_segment_and_what_precedes_it_start_an_access_unit() {
    let units = [
        &sets()[..],
        &[unit(19, IRAP)],
        &[unit(1, TRAILING_P), unit(1, SECOND_B), unit(40, "1")],
        &[unit(39, "1"), unit(1, TRAILING_P)],
        &[unit(35, "1"), unit(1, TRAILING_P), unit(38, "1"), unit(36, "1"), unit(37, "1")],
        &[unit(21, IRAP)],
        &[unit(48, "1"), unit(16, IRAP)],
    ]
    .concat();
    let cut = cut(&units);
    assert_eq!(cut.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [4, 3, 2, 5, 1, 2]);
    use PictureType::{B, I, P};
    assert_eq!(cut.iter().map(|(_, info)| info.picture_type).collect::<Vec<_>>(), [I, B, P, P, I, I]);
    use RandomAccess::{Bla, Cra, Idr, None};
    assert_eq!(cut.iter().map(|(_, info)| info.random_access).collect::<Vec<_>>(), [Idr, None, None, None, Cra, Bla]);
    assert!(cut.iter().all(|(_, info)| !info.damaged));
    assert_eq!(cut.iter().position(|(_, info)| info.ends_sequence), Some(3));
}

#[test]
fn other_layers_stay_with_the_base_layer() {
    let enhancement = |kind: u8| [vec![kind << 1, 0x09], bits(TRAILING_P), hex("b5a7c9")].concat();
    let units = [&sets()[..], &[unit(19, IRAP), enhancement(34), enhancement(1), unit(1, TRAILING_P)]].concat();
    assert_eq!(cut(&units).iter().map(|(count, _)| *count).collect::<Vec<_>>(), [6, 1]);
}

#[test]
fn a_lost_first_segment_is_marked() {
    let units = [&sets()[..], &[unit(19, IRAP), unit(1, SECOND_B), unit(1, TRAILING_P)]].concat();
    let cut = cut(&units);
    assert_eq!(
        cut.iter().map(|(count, info)| (*count, info.damaged)).collect::<Vec<_>>(),
        [(4, false), (1, true), (1, false)]
    );
}

#[test]
fn a_broken_header_is_marked() {
    let units = [&sets()[..], &[unit(19, IRAP), vec![0x02, 0x00, 0x80]]].concat();
    assert!(cut(&units)[0].1.damaged);
    // slice_type 3
    let units = [&sets()[..], &[unit(19, "1 0 1 00100")]].concat();
    assert!(cut(&units)[0].1.damaged);
}

#[test]
fn the_format_of_a_real_stream_is_read() {
    let mut framer = HevcFramer::new();
    let mut collector = Collector::default();
    let bytes = stream(&[&sets()[..], &[unit(19, IRAP)]].concat());
    collector.push(&mut framer, &bytes);
    collector.flush(&mut framer);
    let configuration = framer.configuration();
    assert_eq!((configuration.generation, &configuration.bytes), (1, &stream(&sets())));
    let Format::Video(format) = &configuration.format else { panic!("no format") };
    assert_eq!(format.to_string(), "1920×1080p50 Main 4:2:2 10 HLG");
    assert_eq!((format.level_tenths, format.bit_depth, format.chroma_format), (41, 10, 2));
    assert_eq!((format.scan, format.transfer, format.colour), (Scan::Progressive, TransferFunction::Hlg, [9, 18, 9]));
    assert_eq!(format.sample_aspect_ratio.map(|ratio| (ratio.numerator, ratio.denominator)), Some((1, 1)));
}

#[test]
fn sei_tells_recovery_time_code_and_preferred_transfer() {
    // Recovery point −1; one clock of full_timestamp_flag; preferred_transfer_characteristics 16.
    let recovery = [vec![6, 1], bits("011 1 0 1")].concat();
    let clock = bits("01 1 0 00100 1 0 0 000011001 111011 000111 10111 00000 1");
    let time_code = [vec![136, clock.len() as u8], clock].concat();
    let sei = [vec![39 << 1, 1], recovery, time_code, vec![147, 1, 16, 0x80]].concat();
    let mut framer = HevcFramer::new();
    let mut collector = Collector::default();
    collector.push(&mut framer, &stream(&[&sets()[..], &[sei, unit(1, TRAILING_P)]].concat()));
    collector.flush(&mut framer);
    let info = units(&collector.pieces)[0].1;
    assert_eq!(info.random_access, RandomAccess::RecoveryPoint { frame_count: 0 });
    let expected = Timecode { hours: 23, minutes: 7, seconds: 59, frames: 25, drop_frame: true };
    assert_eq!(info.timecode, Some(expected));
    let Format::Video(format) = &framer.configuration().format else { panic!("no format") };
    assert_eq!(format.transfer, TransferFunction::Pq);
}

#[test]
fn a_configuration_record_has_the_parameter_sets() {
    let record = configuration_record(&stream(&[&[unit(35, "1")], &sets()[..]].concat())).unwrap();
    // Version; profile to level as in the sequence parameter set, its emulation prevention bytes taken out; 4:2:2, 10 bits twice;
    // two temporal layers.
    let mut expected = hex("0104080000009d08000000007bf000fcfefafa00001303");
    for (set, kind) in sets().iter().zip([32, 33, 34]) {
        expected.extend([kind, 0, 1, 0, set.len() as u8]);
        expected.extend(set);
    }
    assert_eq!(record, expected);
    assert_eq!(configuration_record(&stream(&sets()[..1])), None);
}
