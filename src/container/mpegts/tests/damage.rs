//! What is lost, repeated, damaged or scrambled on the way.

use super::build::*;
use crate::container::mpegts::{Demux, DiscontinuityCause, TrackIndex};

/// [`ready`], and a PES packet open on the video track; the next continuity counter is 2.
fn open() -> Demux {
    let mut demux = ready();
    let mut stream = Stream::default();
    stream.first(VIDEO, 0, &pes_start(1, 0, 1)).next(VIDEO, 1, &full(1));
    assert_eq!(tell(&mut demux, &stream.0).len(), 3);
    demux
}

fn one(counter: u8, byte: u8) -> Vec<u8> {
    let mut stream = Stream::default();
    stream.next(VIDEO, counter, &full(byte));
    stream.0
}

#[test]
fn a_missing_packet_is_told_before_the_data_that_follows_it() {
    let mut demux = open();
    assert_eq!(tell(&mut demux, &one(3, 2)), [Told::Lost(0, DiscontinuityCause::Continuity), data(0, 184, 2)]);
    assert_eq!(tell(&mut demux, &one(4, 3)), [data(0, 184, 3)]);
    assert_eq!(demux.statistics().continuity_errors, 1);
    assert_eq!(demux.track_statistics(TrackIndex(0)).unwrap().continuity_errors, 1);
    assert_eq!(demux.track_statistics(TrackIndex(1)).unwrap().continuity_errors, 0);
}

#[test]
fn a_repeated_packet_is_dropped_however_often_it_comes() {
    let mut demux = open();
    for count in 1..4 {
        assert_eq!(tell(&mut demux, &one(1, 1)), []);
        assert_eq!(demux.statistics().duplicates, count);
    }
    assert_eq!(demux.statistics().excess_duplicates, 2);
    assert_eq!(tell(&mut demux, &one(2, 2)), [data(0, 184, 2)]);
    assert_eq!(tell(&mut demux, &one(2, 2)), []);
    assert_eq!(demux.statistics().excess_duplicates, 2);
}

#[test]
fn the_counter_of_the_last_packet_with_other_content_is_a_loss_of_sixteen() {
    let mut demux = open();
    assert_eq!(tell(&mut demux, &one(1, 9)), [Told::Lost(0, DiscontinuityCause::Continuity), data(0, 184, 9)]);
}

#[test]
fn packets_without_payload_do_not_count() {
    let mut demux = open();
    let mut stream = Stream::default();
    let empty = Plain { counter: 1, empty: true, field: &[0x10, 0, 0, 0, 0, 0xfe, 0], ..Plain::default() };
    stream.packet(VIDEO, empty, &[]).packet(VIDEO, empty, &[]).next(VIDEO, 2, &full(2));
    assert_eq!(tell(&mut demux, &stream.0), [Told::Pcr(0, 300, false), Told::Pcr(0, 300, false), data(0, 184, 2)]);
}

#[test]
fn after_a_short_gap_a_counter_that_follows_is_proof() {
    let mut demux = open();
    demux.gap(14);
    assert_eq!(tell(&mut demux, &one(2, 2)), [data(0, 184, 2)]);
    demux.gap(7);
    assert_eq!(
        tell(&mut demux, &one(5, 3)),
        [Told::Lost(0, DiscontinuityCause::Gap { unproven: false }), data(0, 184, 3)]
    );
    let statistics = demux.statistics();
    assert_eq!((statistics.gap_discontinuities, statistics.unproven_gaps, statistics.continuity_errors), (1, 0, 0));
}

#[test]
fn after_a_long_or_unknown_gap_a_counter_that_follows_proves_nothing() {
    for gaps in [&[0][..], &[16], &[7, 7, 7]] {
        let mut demux = open();
        for packets in gaps {
            demux.gap(*packets);
        }
        assert_eq!(
            tell(&mut demux, &one(2, 2)),
            [Told::Lost(0, DiscontinuityCause::Gap { unproven: true }), data(0, 184, 2)]
        );
        assert_eq!(tell(&mut demux, &one(3, 3)), [data(0, 184, 3)]);
    }
}

#[test]
fn a_gap_is_told_to_each_track_once_when_it_speaks_again() {
    let mut demux = open();
    let mut stream = Stream::default();
    stream.first(AUDIO, 0, &pes_start(1, 0, 1));
    tell(&mut demux, &stream.0);
    demux.gap(0);
    let mut stream = Stream::default();
    stream.next(VIDEO, 2, &full(2)).next(AUDIO, 1, &full(2)).next(AUDIO, 2, &full(2));
    let lost = |track| Told::Lost(track, DiscontinuityCause::Gap { unproven: true });
    assert_eq!(tell(&mut demux, &stream.0), [lost(0), data(0, 184, 2), lost(1), data(1, 184, 2), data(1, 184, 2)]);
}

#[test]
fn a_length_holds_over_an_unproven_gap_but_not_over_a_loss() {
    for (counter, ends) in [(1, true), (2, false)] {
        let mut demux = ready();
        let mut stream = Stream::default();
        stream.first(AUDIO, 0, &pes_start(1, 8 + 170 + 184, 1));
        tell(&mut demux, &stream.0);
        demux.gap(0);
        let mut stream = Stream::default();
        stream.next(AUDIO, counter, &full(2));
        assert_eq!(tell(&mut demux, &stream.0).contains(&Told::End(1)), ends);
    }
}

#[test]
fn a_packet_marked_damaged_is_dropped_and_its_successor_is_not_blamed() {
    let mut demux = open();
    let mut stream = Stream::default();
    stream.packet(VIDEO, Plain { counter: 2, error: true, ..Plain::default() }, &full(9)).next(VIDEO, 3, &full(2));
    assert_eq!(tell(&mut demux, &stream.0), [Told::Lost(0, DiscontinuityCause::TransportError), data(0, 184, 2)]);
    assert_eq!(demux.statistics().transport_errors, 1);
    assert_eq!(demux.statistics().continuity_errors, 0);
}

#[test]
fn an_announced_discontinuity_is_told_as_such() {
    let mut demux = open();
    let mut stream = Stream::default();
    stream.packet(VIDEO, Plain { counter: 9, field: &[0x80], ..Plain::default() }, &[2; 100]);
    assert_eq!(
        tell(&mut demux, &stream.0),
        [Told::Lost(0, DiscontinuityCause::Signalled), data(0, 100, 2), Told::Hint(0)]
    );
}

#[test]
fn a_new_time_base_is_told_with_its_first_clock_and_is_no_loss() {
    let mut demux = open();
    let mut stream = Stream::default();
    let clock = |flags: u8| [flags, 0, 0, 0, 0, 0x7e, 5];
    stream.packet(VIDEO, Plain { counter: 1, empty: true, field: &[0x80], ..Plain::default() }, &[]);
    stream.packet(VIDEO, Plain { counter: 1, empty: true, field: &clock(0x90), ..Plain::default() }, &[]);
    stream.packet(VIDEO, Plain { counter: 1, empty: true, field: &clock(0x10), ..Plain::default() }, &[]);
    stream.next(VIDEO, 2, &full(2));
    assert_eq!(tell(&mut demux, &stream.0), [Told::Pcr(0, 5, true), Told::Pcr(0, 5, false), data(0, 184, 2)]);
}

#[test]
fn scrambled_packets_are_counted_and_dropped_and_told_once() {
    let mut demux = open();
    let mut stream = Stream::default();
    for counter in 2..5 {
        stream.packet(VIDEO, Plain { counter, scrambling: 2, ..Plain::default() }, &full(9));
    }
    stream.next(VIDEO, 5, &full(2));
    assert_eq!(tell(&mut demux, &stream.0), [Told::Lost(0, DiscontinuityCause::Scrambled), data(0, 184, 2)]);
    assert_eq!(demux.statistics().scrambled_packets, 3);
}

#[test]
fn a_packet_that_contradicts_itself_is_dropped_and_shows_as_a_loss() {
    let mut demux = open();
    let mut bytes = one(2, 9);
    bytes[3] &= 0xcf;
    bytes.extend(one(3, 2));
    assert_eq!(tell(&mut demux, &bytes), [Told::Lost(0, DiscontinuityCause::Continuity), data(0, 184, 2)]);
    assert_eq!(demux.statistics().malformed_packets, 1);
}

#[test]
fn null_and_unlisted_packets_are_counted_apart() {
    let mut demux = open();
    let before = demux.statistics();
    let mut stream = Stream::default();
    stream.next(0x1fff, 0, &full(0)).next(0x1fff, 0, &full(0)).next(0x12, 0, &full(0)).next(VIDEO, 2, &full(2));
    assert_eq!(tell(&mut demux, &stream.0), [data(0, 184, 2)]);
    let after = demux.statistics();
    assert_eq!(after.null_packets - before.null_packets, 2);
    assert_eq!(after.unlisted_packets - before.unlisted_packets, 1);
    assert_eq!(after.packets - before.packets, 4);
}
