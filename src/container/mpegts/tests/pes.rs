//! PES packets: starts, ends, lengths that are right and wrong, headers cut anywhere.

use super::build::*;
use crate::container::mpegts::{DiscontinuityCause, PACKET_LEN};

#[test]
fn a_pes_packet_without_length_ends_with_the_next_one() {
    let mut demux = ready();
    let mut stream = Stream::default();
    stream.first(VIDEO, 0, &pes_start(90_000, 0, 1)).next(VIDEO, 1, &full(2)).first(VIDEO, 2, &pes_start(93_600, 0, 3));
    assert_eq!(
        tell(&mut demux, &stream.0),
        [start(0, 90_000), data(0, 170, 1), data(0, 184, 2), start(0, 93_600), data(0, 170, 3)]
    );
    assert_eq!(demux.track_statistics(crate::container::mpegts::TrackIndex(0)).unwrap().packets, 3);
}

#[test]
fn stuffing_hints_at_the_end_of_a_pes_packet_without_length() {
    let mut demux = ready();
    let mut stream = Stream::default();
    stream.first(VIDEO, 0, &pes_start(0, 0, 1)).next(VIDEO, 1, &[2; 100]);
    assert_eq!(tell(&mut demux, &stream.0), [start(0, 0), data(0, 170, 1), data(0, 100, 2), Told::Hint(0)]);
}

#[test]
fn a_clock_in_the_adaptation_field_is_no_stuffing() {
    let mut demux = ready();
    let mut stream = Stream::default();
    let field = [0x10, 0, 0, 0, 0, 0x7e, 9];
    stream.packet(VIDEO, Plain { start: true, field: &field, ..Plain::default() }, &pes_start(0, 0, 1)[..176]);
    assert_eq!(tell(&mut demux, &stream.0), [Told::Pcr(0, 9, false), start(0, 0), data(0, 162, 1)]);
}

#[test]
fn a_length_that_is_fulfilled_ends_the_pes_packet_at_once() {
    let mut demux = ready();
    let mut stream = Stream::default();
    let length = 8 + 170 + 184 + 50;
    stream.first(AUDIO, 0, &pes_start(7, length, 1)).next(AUDIO, 1, &full(2)).next(AUDIO, 2, &[3; 50]);
    assert_eq!(
        tell(&mut demux, &stream.0),
        [
            Told::Start(1, Some(7), None, false, Some(404)),
            data(1, 170, 1),
            data(1, 184, 2),
            data(1, 50, 3),
            Told::End(1)
        ]
    );
}

#[test]
fn a_length_that_ends_with_the_packet_is_not_missed() {
    let mut demux = ready();
    let mut stream = Stream::default();
    stream.first(AUDIO, 0, &pes_start(7, 8 + 170 + 184, 1)).next(AUDIO, 1, &full(2));
    stream.first(AUDIO, 2, &pes_start(9, 8, 3)[..14]);
    assert_eq!(
        tell(&mut demux, &stream.0)[2..],
        [data(1, 184, 2), Told::End(1), Told::Start(1, Some(9), None, false, Some(0)), Told::End(1)]
    );
}

#[test]
fn padding_after_the_end_is_dropped_and_other_bytes_are_delivered() {
    let mut demux = ready();
    let mut stream = Stream::default();
    let mut padded = pes_start(7, 8 + 100, 1);
    padded[114..].fill(0xff);
    stream.first(AUDIO, 0, &padded);
    let header = Told::Start(1, Some(7), None, false, Some(100));
    assert_eq!(tell(&mut demux, &stream.0), [header.clone(), data(1, 100, 1), Told::End(1)]);
    assert_eq!(demux.statistics().pes_padding_bytes, 70);

    let mut stream = Stream::default();
    stream.first(AUDIO, 1, &pes_start(7, 8 + 100, 1)).next(AUDIO, 2, &full(1));
    assert_eq!(tell(&mut demux, &stream.0), [header, data(1, 100, 1), Told::End(1), data(1, 70, 1), data(1, 184, 1)]);
    assert_eq!(demux.statistics().pes_overrun_bytes, 254);
}

#[test]
fn a_pes_packet_cut_short_has_no_end_and_is_counted() {
    let mut demux = ready();
    let mut stream = Stream::default();
    stream.first(AUDIO, 0, &pes_start(7, 8 + 1000, 1)).first(AUDIO, 1, &pes_start(8, 0, 2));
    assert!(!tell(&mut demux, &stream.0).contains(&Told::End(1)));
    assert_eq!(demux.statistics().truncated_pes, 1);
}

#[test]
fn a_header_split_over_packets_is_read_whole() {
    for cut in 1..14 {
        let mut demux = ready();
        let header = pes_header(0x1_2345_6789, 0);
        let mut rest = header[cut..].to_vec();
        rest.resize(184, 5);
        let mut stream = Stream::default();
        let first = Plain { start: true, field: &[0x40], ..Plain::default() };
        stream.packet(VIDEO, first, &header[..cut]).next(VIDEO, 1, &rest);
        assert_eq!(
            tell(&mut demux, &stream.0),
            [Told::Start(0, Some(0x1_2345_6789), None, true, None), data(0, 184 - (14 - cut), 5)],
            "cut after {cut} bytes"
        );
    }
}

#[test]
fn a_split_header_that_loses_its_rest_drops_the_pes_packet() {
    let mut demux = ready();
    let mut stream = Stream::default();
    stream.first(VIDEO, 0, &pes_start(1, 0, 1)).first(VIDEO, 1, &pes_header(2, 0)[..7]);
    stream.next(VIDEO, 3, &full(2)).next(VIDEO, 4, &full(2)).first(VIDEO, 5, &pes_start(3, 0, 3));
    assert_eq!(
        tell(&mut demux, &stream.0),
        [start(0, 1), data(0, 170, 1), Told::Lost(0, DiscontinuityCause::Continuity), start(0, 3), data(0, 170, 3)]
    );
    assert_eq!(demux.statistics().packets_without_pes, 2);
}

#[test]
fn what_comes_before_the_first_pes_packet_is_dropped_and_counted() {
    let mut demux = ready();
    let mut stream = Stream::default();
    stream.next(VIDEO, 4, &full(1)).next(VIDEO, 6, &full(1)).first(VIDEO, 7, &pes_start(1, 0, 2));
    assert_eq!(tell(&mut demux, &stream.0), [start(0, 1), data(0, 170, 2)]);
    let statistics = demux.statistics();
    assert_eq!((statistics.packets_without_pes, statistics.continuity_errors), (2, 1));
}

#[test]
fn a_pes_packet_without_start_code_is_dropped_and_told() {
    let mut demux = ready();
    let mut stream = Stream::default();
    stream.first(VIDEO, 0, &pes_start(1, 0, 1)).first(VIDEO, 1, &full(9)).next(VIDEO, 2, &full(9));
    stream.first(VIDEO, 3, &pes_start(2, 0, 2));
    assert_eq!(
        tell(&mut demux, &stream.0),
        [start(0, 1), data(0, 170, 1), Told::Lost(0, DiscontinuityCause::PesHeader), start(0, 2), data(0, 170, 2)]
    );
    assert_eq!(demux.statistics().pes_header_errors, 1);
}

#[test]
fn a_padding_stream_delivers_nothing() {
    let mut demux = ready();
    let mut padding = vec![0, 0, 1, 0xbe, 0, 178];
    padding.resize(PACKET_LEN - 4, 0xff);
    let mut stream = Stream::default();
    stream.first(AUDIO, 0, &padding).next(AUDIO, 1, &full(0xff));
    assert_eq!(tell(&mut demux, &stream.0), []);
}
