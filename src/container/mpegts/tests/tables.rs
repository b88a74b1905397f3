//! PAT, PMT and private sections: how tracks begin, go on and end.

use super::build::*;
use crate::container::mpegts::{Demux, DiscontinuityCause, Limits, PACKET_LEN, ProgrammeIndex, TrackIndex, crc32};
use crate::media::Codec;

/// Serials, PIDs and codecs of a programme's tracks, in their order.
fn tracks(demux: &Demux, number: u16) -> Vec<(u32, u16, Codec)> {
    let (_, programme) = demux.programmes().find(|(_, programme)| programme.number == number).expect("a programme");
    let track = |index: &TrackIndex| demux.track(*index).expect("a track of the programme");
    programme.tracks.iter().map(track).map(|track| (track.serial, track.key.pid, track.key.codec)).collect()
}

/// Pushes one section in a packet and gives the events.
fn section(demux: &mut Demux, pid: u16, counter: u8, section: &[u8]) -> Vec<Told> {
    let mut stream = Stream::default();
    stream.sections(pid, counter, section);
    tell(demux, &stream.0)
}

#[test]
fn tracks_are_listed_in_the_order_of_the_pmt() {
    let demux = ready();
    assert_eq!(tracks(&demux, 1), [(0, VIDEO, Codec::H264), (1, AUDIO, Codec::AacAdts), (2, SPLICE, Codec::Scte35)]);
    let programme = demux.programme(ProgrammeIndex(0)).unwrap();
    assert_eq!((programme.pmt_pid, programme.pcr_pid, programme.version), (PMT, Some(VIDEO), Some(0)));
    assert_eq!(demux.transport_stream_id(), Some(1));
    assert_eq!(demux.packet_stride(), Some(188));
}

#[test]
fn a_repeated_table_tells_nothing() {
    let mut demux = ready();
    assert_eq!(section(&mut demux, 0, 1, &pat(0, &[(1, PMT)])), []);
    let same = pmt(1, 0, VIDEO, &[(0x1b, VIDEO, b""), (0x0f, AUDIO, b""), (0x86, SPLICE, b"")]);
    assert_eq!(section(&mut demux, PMT, 1, &same), []);
}

#[test]
fn a_new_version_keeps_what_is_unchanged_and_ends_and_begins_the_rest() {
    let mut demux = ready();
    let mut stream = Stream::default();
    stream.first(VIDEO, 0, &pes_start(1, 0, 1));
    tell(&mut demux, &stream.0);
    let next = pmt(1, 1, VIDEO, &[(0x06, 0x103, b"\x05\x04KLVA"), (0x1b, VIDEO, b""), (0x11, AUDIO, b"")]);
    assert_eq!(section(&mut demux, PMT, 1, &next), [Told::Tables]);
    assert_eq!(tracks(&demux, 1), [(3, 0x103, Codec::Klv), (0, VIDEO, Codec::H264), (4, AUDIO, Codec::AacLatm)]);
    // The video goes on where it was.
    let mut stream = Stream::default();
    stream.next(VIDEO, 1, &full(2));
    assert_eq!(tell(&mut demux, &stream.0), [data(0, 184, 2)]);
}

#[test]
fn other_content_under_the_same_version_is_noticed() {
    let mut demux = ready();
    let other = pmt(1, 0, 0x200, &[(0x24, 0x200, b"")]);
    assert_eq!(section(&mut demux, PMT, 1, &other), [Told::Tables]);
    assert_eq!(tracks(&demux, 1), [(3, 0x200, Codec::Hevc)]);
    let mut stream = Stream::default();
    stream.first(VIDEO, 0, &pes_start(1, 0, 1));
    assert_eq!(tell(&mut demux, &stream.0), [], "the PID is not listed any more");
}

#[test]
fn a_language_that_changes_is_told_and_keeps_the_track() {
    let mut demux = ready();
    let streams = [(0x1b, VIDEO, &b""[..]), (0x0f, AUDIO, b"\x0a\x04fra\0\x52\x01\x07"), (0x86, SPLICE, b"")];
    assert_eq!(section(&mut demux, PMT, 1, &pmt(1, 1, VIDEO, &streams)), [Told::Tables]);
    let track = demux.track(TrackIndex(1)).unwrap();
    assert_eq!((track.serial, track.language, track.component_tag), (1, Some(*b"fra"), Some(7)));
}

#[test]
fn a_table_that_is_not_in_force_yet_is_passed_over() {
    let mut demux = ready();
    let mut next = pmt(1, 1, VIDEO, &[]);
    next[5] &= 0xfe;
    let end = next.len() - 4;
    let crc = crc32(&next[..end]);
    next[end..].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(section(&mut demux, PMT, 1, &next), []);
    assert_eq!(demux.statistics().tables_not_current, 1);
    assert_eq!(tracks(&demux, 1).len(), 3);
}

#[test]
fn a_damaged_table_changes_nothing() {
    let mut demux = ready();
    let mut damaged = pmt(1, 1, VIDEO, &[]);
    damaged[9] ^= 1;
    assert_eq!(section(&mut demux, PMT, 1, &damaged), []);
    assert_eq!(demux.statistics().section_crc_errors, 1);
    assert_eq!(tracks(&demux, 1).len(), 3);
}

#[test]
fn a_pmt_that_moves_to_another_pid_keeps_its_tracks() {
    let mut demux = ready();
    assert_eq!(section(&mut demux, 0, 1, &pat(1, &[(1, 0x1001)])), [Told::Tables]);
    assert_eq!(tracks(&demux, 1).len(), 3);
    let next = pmt(1, 1, VIDEO, &[(0x1b, VIDEO, b"")]);
    assert_eq!(section(&mut demux, PMT, 1, &next), [], "the old PID is not listened to");
    assert_eq!(section(&mut demux, 0x1001, 0, &next), [Told::Tables]);
    assert_eq!(tracks(&demux, 1), [(0, VIDEO, Codec::H264)]);
}

#[test]
fn a_programme_that_leaves_the_pat_takes_its_tracks_along() {
    let mut demux = ready();
    assert_eq!(section(&mut demux, 0, 1, &pat(1, &[(2, 0x1001)])), [Told::Tables]);
    assert_eq!(demux.tracks().count(), 0);
    assert_eq!(demux.programmes().map(|(_, programme)| programme.number).collect::<Vec<_>>(), [2]);
    assert_eq!(section(&mut demux, PMT, 1, &pmt(1, 0, VIDEO, &[(0x1b, VIDEO, b"")])), []);
}

#[test]
fn a_pat_of_several_sections_applies_when_all_are_there() {
    let mut demux = ready();
    let part = |number: u8, programmes: &[(u16, u16)]| table(0, 1, 1, [number, 1], &pat_body(programmes));
    assert_eq!(section(&mut demux, 0, 1, &part(1, &[(2, 0x1001)])), []);
    assert_eq!(section(&mut demux, 0, 2, &part(1, &[(2, 0x1001)])), []);
    assert_eq!(section(&mut demux, 0, 3, &part(0, &[(1, PMT)])), [Told::Tables]);
    assert_eq!(demux.programmes().map(|(_, programme)| programme.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(tracks(&demux, 1).len(), 3);
}

#[test]
fn a_pmt_of_several_sections_applies_when_all_are_there() {
    let mut demux = ready();
    let part = |number: u8, pid: u16| table(2, 1, 1, [number, 1], &pmt_body(VIDEO, &[(0x1b, pid, b"")]));
    assert_eq!(section(&mut demux, PMT, 1, &part(1, 0x201)), []);
    assert_eq!(section(&mut demux, PMT, 2, &part(0, VIDEO)), [Told::Tables]);
    assert_eq!(tracks(&demux, 1), [(0, VIDEO, Codec::H264), (3, 0x201, Codec::H264)]);
}

#[test]
fn every_programme_has_its_own_clock() {
    let mut demux = ready();
    section(&mut demux, 0, 1, &pat(1, &[(1, PMT), (2, 0x1001), (3, 0x1001)]));
    section(&mut demux, 0x1001, 0, &pmt(2, 0, 0x300, &[(0x1b, 0x200, b"")]));
    section(&mut demux, 0x1001, 1, &pmt(3, 0, 0x300, &[(0x1b, 0x210, b"")]));
    let mut stream = Stream::default();
    let clock = |extension: u8| [0x10, 0, 0, 0, 0, 0x7e, extension];
    stream.packet(VIDEO, Plain { empty: true, field: &clock(1), ..Plain::default() }, &[]);
    stream.packet(0x300, Plain { empty: true, field: &clock(2), ..Plain::default() }, &[]);
    stream.packet(0x200, Plain { empty: true, field: &clock(3), ..Plain::default() }, &[]);
    assert_eq!(
        tell(&mut demux, &stream.0),
        [Told::Pcr(0, 1, false), Told::Pcr(1, 2, false), Told::Pcr(2, 2, false)],
        "a clock that two programmes share is told twice, one that no programme uses not at all"
    );
}

#[test]
fn a_pid_has_one_track_until_it_is_free() {
    let mut demux = ready();
    section(&mut demux, 0, 1, &pat(1, &[(1, PMT), (2, 0x1001)]));
    let second = pmt(2, 0, 0x200, &[(0x1b, 0x200, b""), (0x0f, AUDIO, b""), (0x0f, PMT, b""), (0x0f, 0x200, b"")]);
    assert_eq!(section(&mut demux, 0x1001, 0, &second), [Told::Tables]);
    assert_eq!(demux.statistics().pid_conflicts, 3);
    assert_eq!(tracks(&demux, 2), [(3, 0x200, Codec::H264)]);
    // The first programme gives the audio up: the next repetition of the other PMT takes it.
    assert_eq!(section(&mut demux, PMT, 1, &pmt(1, 1, VIDEO, &[(0x1b, VIDEO, b"")])), [Told::Tables]);
    assert_eq!(section(&mut demux, 0x1001, 1, &second), [Told::Tables]);
    assert_eq!(tracks(&demux, 2), [(3, 0x200, Codec::H264), (4, AUDIO, Codec::AacAdts)]);
    assert_eq!(section(&mut demux, 0x1001, 2, &second), []);
}

#[test]
fn a_pid_that_becomes_a_pmt_ends_its_track() {
    let mut demux = ready();
    assert_eq!(section(&mut demux, 0, 1, &pat(1, &[(1, PMT), (2, AUDIO)])), [Told::Tables]);
    assert_eq!(tracks(&demux, 1), [(0, VIDEO, Codec::H264), (2, SPLICE, Codec::Scte35)]);
    assert_eq!(section(&mut demux, AUDIO, 0, &pmt(2, 0, 0x1fff, &[(0x03, 0x200, b"")])), [Told::Tables]);
    assert_eq!(tracks(&demux, 2), [(3, 0x200, Codec::Mp2)]);
    assert_eq!(demux.programmes().nth(1).unwrap().1.pcr_pid, None);
}

#[test]
fn limits_hold_and_what_they_refuse_is_counted() {
    let mut demux = Demux::new(Limits { programmes: 2, tracks: 3, section_bytes: 200 });
    let mut stream = Stream::default();
    stream.section(0, &pat(0, &[(1, 0x1001), (2, 0x1002), (3, 0x1003), (4, 0x1004)]));
    stream.section(0x1001, &pmt(1, 0, 0x100, &[(0x1b, 0x100, b""), (0x1b, 0x101, b"")]));
    stream.section(0x1002, &pmt(2, 0, 0x200, &[(0x1b, 0x200, b""), (0x1b, 0x201, b"")]));
    stream.section(0x1003, &pmt(3, 0, 0x300, &[(0x1b, 0x300, b"")]));
    assert_eq!(tell(&mut demux, &stream.0), [const { Told::Tables }; 3]);
    assert_eq!((demux.programmes().count(), demux.tracks().count()), (2, 3));
    assert_eq!(demux.statistics().limit_refusals, 3);
    let long = table(2, 1, 1, [0, 0], &[0; 192]);
    assert_eq!(section(&mut demux, 0x1001, 1, &long[..180]), []);
    assert_eq!(demux.statistics().section_length_errors, 1);
}

/// A splice_null of SCTE-35 with `fill` bytes of descriptors.
fn splice(fill: usize) -> Vec<u8> {
    let mut section = vec![0xfc, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xf0, 0, 0, 0, fill as u8];
    section.resize(16 + fill, 0x5a);
    let length = (section.len() + 4 - 3) as u16;
    section[1..3].copy_from_slice(&(0x3000 | length).to_be_bytes());
    section.extend(crc32(&section).to_be_bytes());
    section
}

#[test]
fn several_sections_in_one_packet_come_one_by_one() {
    let mut demux = ready();
    let sections = [splice(0), splice(3), splice(1)];
    assert_eq!(section(&mut demux, SPLICE, 0, &sections.concat()), sections.map(|section| Told::Section(2, section)));
    assert_eq!(demux.track_statistics(TrackIndex(2)).unwrap().sections, 3);
}

#[test]
fn a_section_across_packets_is_put_together_wherever_it_is_cut() {
    let (first, second) = (splice(250), splice(7));
    for before in 1..183 {
        let mut demux = ready();
        let mut stream = Stream::default();
        let mut payload = vec![0];
        payload.extend(&first[..before]);
        stream.first(SPLICE, 0, &payload);
        let mut rest = &first[before..];
        let mut counter = 1;
        if rest.len() > 150 {
            stream.next(SPLICE, counter, &rest[..150]);
            rest = &rest[150..];
            counter += 1;
        }
        let mut payload = vec![rest.len() as u8];
        payload.extend(rest);
        payload.extend(&second[..2]);
        stream.first(SPLICE, counter, &payload);
        let mut payload = second[2..].to_vec();
        payload.resize(184, 0xff);
        stream.next(SPLICE, counter + 1, &payload);
        assert_eq!(
            tell(&mut demux, &stream.0),
            [Told::Section(2, first.clone()), Told::Section(2, second.clone())],
            "cut after {before} bytes"
        );
    }
}

#[test]
fn a_section_that_lost_its_middle_is_dropped_and_the_next_one_is_not() {
    let mut demux = ready();
    let (long, short) = (splice(250), splice(7));
    let mut payload = vec![0];
    payload.extend(&long[..183]);
    let mut stream = Stream::default();
    stream.first(SPLICE, 0, &payload);
    let mut payload = vec![(long.len() - 183) as u8];
    payload.extend(&long[183..]);
    payload.extend(&short);
    stream.first(SPLICE, 2, &payload);
    assert_eq!(tell(&mut demux, &stream.0), [Told::Lost(2, DiscontinuityCause::Continuity), Told::Section(2, short)]);
    assert_eq!(demux.statistics().truncated_sections, 1);
}

#[test]
fn a_section_whose_end_does_not_come_is_counted() {
    let mut demux = ready();
    let (long, short) = (splice(250), splice(7));
    let mut payload = vec![0];
    payload.extend(&long[..183]);
    let mut stream = Stream::default();
    stream.first(SPLICE, 0, &payload).sections(SPLICE, 1, &short);
    assert_eq!(tell(&mut demux, &stream.0), [Told::Section(2, short)]);
    assert_eq!(demux.statistics().truncated_sections, 1);
}

#[test]
fn a_section_that_goes_on_over_an_unproven_gap_is_judged_by_its_crc() {
    let mut demux = ready();
    let long = splice(250);
    let mut payload = vec![0];
    payload.extend(&long[..183]);
    let mut stream = Stream::default();
    stream.first(SPLICE, 0, &payload);
    tell(&mut demux, &stream.0);
    demux.gap(0);
    let mut payload = long[183..].to_vec();
    payload.resize(PACKET_LEN - 4, 0xff);
    let mut stream = Stream::default();
    stream.next(SPLICE, 1, &payload);
    let lost = Told::Lost(2, DiscontinuityCause::Gap { unproven: true });
    assert_eq!(tell(&mut demux, &stream.0), [lost, Told::Section(2, long)]);
}

#[test]
fn a_pointer_beyond_the_packet_begins_no_section() {
    let mut demux = ready();
    let mut stream = Stream::default();
    let mut payload = full(0xfc);
    payload[0] = 200;
    stream.first(SPLICE, 0, &payload).first(SPLICE, 1, &[0]);
    assert_eq!(tell(&mut demux, &stream.0), []);
}
