//! What the multiplexer writes, the demultiplexer and an independent reader read back.

use proptest::prelude::*;

use super::build::{Told, tell};
use crate::container::mpegts::{AccessUnit, Demux, Limits, Mux, MuxConfiguration, MuxTrack, PACKET_LEN};
use crate::media::Codec;

/// A unit to be written: track, time since the one before, reordering, size, random access.
type Unit = (usize, u64, u64, usize, bool);

fn units() -> impl Strategy<Value = Vec<Unit>> {
    let size = prop_oneof![0..400_usize, 160..200_usize, 0..20_000_usize, 65_500..65_560_usize];
    prop::collection::vec((0..3_usize, 0..9_000_u64, prop_oneof![Just(0), 0..20_000_u64], size, any::<bool>()), 1..30)
}

fn tracks(pes_length: [bool; 3]) -> Vec<MuxTrack> {
    let codecs = [(0x100, Codec::H264), (0x101, Codec::AacAdts), (0x102, Codec::Opus)];
    let track = |((pid, codec), pes_length)| MuxTrack { pes_length, ..MuxTrack::new(pid, codec) };
    codecs.into_iter().zip(pes_length).map(track).collect()
}

/// Content that differs from packet to packet.
fn content(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 97 + at * 7 + number * 31) as u8).collect()
}

fn written(configuration: MuxConfiguration, units: &[Unit], first_dts: u64) -> Vec<u8> {
    let mut mux = Mux::new(configuration).unwrap();
    let mut out = Vec::new();
    let mut dts = first_dts;
    for (number, &(track, step, reordering, size, random_access)) in units.iter().enumerate() {
        dts += step;
        let data = content(number, size);
        mux.write(track, &AccessUnit { pts: dts + reordering, dts, random_access, data: &data }, &mut out);
    }
    // Something after the last packet, so that the shortest stream can be synchronised to.
    for _ in 0..4 {
        out.extend([0x47, 0x1f, 0xff, 0x10]);
        out.resize(out.len() + PACKET_LEN - 4, 0xff);
    }
    out
}

/// A PES packet: track, PTS, DTS, random access, payload.
type PesPacket = (u16, Option<u64>, Option<u64>, bool, Vec<u8>);

fn pes_packets(told: &[Told]) -> Vec<PesPacket> {
    let mut packets: Vec<PesPacket> = Vec::new();
    for event in told {
        match event {
            Told::Start(track, pts, dts, random_access, _) => {
                packets.push((*track, *pts, *dts, *random_access, Vec::new()));
            }
            Told::Data(track, data) => {
                let open = packets.iter_mut().rev().find(|packet| packet.0 == *track).expect("an open PES packet");
                open.4.extend(data);
            }
            _ => {}
        }
    }
    packets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_unit_comes_back_as_it_was_written(
        units in units(),
        pes_length in any::<[bool; 3]>(),
        rate_bps in prop_oneof![Just(None), (5_000_000..50_000_000_u64).prop_map(Some)],
        first_dts in prop_oneof![Just(90_000_u64), Just((1_u64 << 33) - 10_000)],
    ) {
        let configuration = MuxConfiguration { rate_bps, ..MuxConfiguration::new(tracks(pes_length)) };
        let bytes = written(configuration, &units, first_dts);
        prop_assert_eq!(bytes.len() % PACKET_LEN, 0);
        let mut demux = Demux::new(Limits::default());
        let told = tell(&mut demux, &bytes);
        let mut dts = first_dts;
        let expected: Vec<_> = units.iter().enumerate().map(|(number, &(track, step, reordering, size, random_access))| {
            dts += step;
            let wrap = |time: u64| time & ((1 << 33) - 1);
            let written_dts = (reordering > 0).then(|| wrap(dts));
            (track as u16, Some(wrap(dts + reordering)), written_dts, random_access, content(number, size))
        }).collect();
        prop_assert_eq!(pes_packets(&told), expected);
        let fits = |&&(track, _, reordering, size, _): &&Unit| {
            pes_length[track] && size + if reordering > 0 { 13 } else { 8 } <= 0xffff
        };
        prop_assert_eq!(told.iter().filter(|event| matches!(event, Told::End(_))).count(), units.iter().filter(fits).count());
        prop_assert!(!told.iter().any(|event| matches!(event, Told::Lost(..))));
        let statistics = demux.statistics();
        prop_assert_eq!((statistics.duplicates, statistics.skipped_bytes, statistics.table_errors), (0, 0, 0));
        prop_assert_eq!(statistics.packets as usize, bytes.len() / PACKET_LEN);
    }

    #[test]
    fn events_do_not_depend_on_how_the_bytes_are_cut(
        units in units(),
        pes_length in any::<[bool; 3]>(),
        cuts in prop::collection::vec(1..3_000_usize, 1..40),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        prefix in prop_oneof![Just(0_usize), Just(4)],
        suffix in prop_oneof![Just(0_usize), Just(16)],
    ) {
        let plain = written(MuxConfiguration::new(tracks(pes_length)), &units, 90_000);
        let mut bytes = Vec::new();
        for packet in plain.chunks(PACKET_LEN) {
            bytes.resize(bytes.len() + if suffix == 0 { prefix } else { 0 }, 0x11);
            bytes.extend(packet);
            bytes.resize(bytes.len() + suffix, 0x22);
        }
        for (at, value) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        let mut whole = Demux::new(Limits::default());
        let expected = tell(&mut whole, &bytes);
        let mut demux = Demux::new(Limits::default());
        let mut told = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            told.extend(tell(&mut demux, piece));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(told, expected);
        prop_assert_eq!(demux.statistics(), whole.statistics());
    }
}

/// Time of each PCR, and the number of the packet it is in.
fn pcrs(bytes: &[u8]) -> Vec<(usize, u64)> {
    let mut demux = Demux::new(Limits::default());
    let mut found = Vec::new();
    for (number, packet) in bytes.chunks(PACKET_LEN).enumerate() {
        for event in tell(&mut demux, packet) {
            if let Told::Pcr(_, pcr, _) = event {
                found.push((number, pcr));
            }
        }
    }
    found
}

#[test]
fn clocks_and_tables_come_often_enough_at_any_frame_rate() {
    for step in [1_500, 3_600, 18_000] {
        let configuration = MuxConfiguration::new(tracks([false, true, true]));
        let units: Vec<Unit> = (0..50).map(|_| (0, step, 0, 3_000, false)).collect();
        let bytes = written(configuration, &units, 900_000);
        let clocks = pcrs(&bytes);
        assert!(clocks.len() >= 49);
        for pair in clocks.windows(2) {
            let apart = pair[1].1 - pair[0].1;
            assert!((1..=40 * 27_000).contains(&apart), "{apart} ticks between clocks at a step of {step}");
        }
        let pats = bytes.chunks(PACKET_LEN).filter(|packet| packet[1] & 0x1f == 0 && packet[2] == 0).count();
        let due = 49 * step as usize / 9_000;
        assert!(pats >= due, "{pats} PATs where {due} are due");
    }
}

#[test]
fn a_constant_rate_is_what_the_clocks_say_it_is() {
    let rate = 8_000_000;
    let configuration = MuxConfiguration { rate_bps: Some(rate), ..MuxConfiguration::new(tracks([false, true, true])) };
    let units: Vec<Unit> = (0..100).map(|number| (0, 3_600, 0, 20_000 + number * 17, false)).collect();
    let bytes = written(configuration, &units, 900_000);
    let clocks = pcrs(&bytes);
    // The first packets are given together, when synchronisation is found.
    let (first, last) = (clocks[10], clocks[clocks.len() - 1]);
    let bits = (last.0 - first.0) as u64 * 188 * 8;
    let ticks = last.1 - first.1;
    let measured = bits as f64 * 27e6 / ticks as f64;
    assert!((measured / rate as f64 - 1.0).abs() < 1e-6, "{measured} bit/s");
}

#[test]
fn a_jump_in_time_is_announced_and_tracks_can_change() {
    let mut mux = Mux::new(MuxConfiguration::new(tracks([false, true, true]))).unwrap();
    let mut out = Vec::new();
    let unit = |dts: u64| AccessUnit { pts: dts, dts, random_access: false, data: &[1; 500] };
    mux.write(0, &unit(900_000), &mut out);
    mux.write(0, &unit(90_000_000), &mut out);
    mux.set_tracks(vec![MuxTrack::new(0x100, Codec::H264), MuxTrack::new(0x200, Codec::Scte35)]).unwrap();
    mux.write(0, &unit(90_003_600), &mut out);
    mux.write_section(1, 90_003_600, &[0x40, 0x70, 1, 7], &mut out);
    let mut demux = Demux::new(Limits::default());
    let told = tell(&mut demux, &out);
    let clocks: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Told::Pcr(_, pcr, new) => Some((*pcr, *new)),
            _ => None,
        })
        .collect();
    let lead = 700 * 27_000;
    let at = |dts: u64| dts * 300 - lead;
    assert_eq!(clocks, [(at(900_000), false), (at(90_000_000), true), (at(90_003_600), false)]);
    assert_eq!(told.iter().filter(|event| **event == Told::Tables).count(), 3);
    assert_eq!(told.last(), Some(&Told::Section(1, vec![0x40, 0x70, 1, 7])));
    assert_eq!(demux.tracks().map(|(_, track)| track.key.codec).collect::<Vec<_>>(), [Codec::H264, Codec::Scte35]);
}

#[test]
fn every_codec_is_told_as_what_it_is() {
    let codecs = [
        Codec::H264,
        Codec::Hevc,
        Codec::Mpeg2Video,
        Codec::AacAdts,
        Codec::AacLatm,
        Codec::Mp2,
        Codec::Ac3,
        Codec::Eac3,
        Codec::Opus,
        Codec::Smpte302m,
        Codec::Scte35,
        Codec::Klv,
        Codec::Teletext,
        Codec::DvbSubtitle,
        Codec::PrivateData(0xea),
    ];
    let tracks = codecs.iter().zip(0x100..).map(|(codec, pid)| MuxTrack::new(pid, *codec)).collect();
    let mut mux = Mux::new(MuxConfiguration::new(tracks)).unwrap();
    let mut out = Vec::new();
    mux.write(0, &AccessUnit { pts: 0, dts: 0, random_access: true, data: &[1; 500] }, &mut out);
    let mut demux = Demux::new(Limits::default());
    tell(&mut demux, &out);
    assert_eq!(demux.tracks().map(|(_, track)| track.key.codec).collect::<Vec<_>>(), codecs);
}

#[test]
fn a_configuration_that_cannot_be_written_is_refused() {
    use crate::container::mpegts::MuxError;
    let refused = |change: fn(&mut MuxConfiguration)| {
        let mut configuration = MuxConfiguration::new(tracks([false, true, true]));
        change(&mut configuration);
        Mux::new(configuration).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(|c| c.tracks[1].pid = 0x100), MuxError::PidUsedTwice(0x100));
    assert_eq!(refused(|c| c.pmt_pid = 0x102), MuxError::PidUsedTwice(0x102));
    assert_eq!(refused(|c| c.tracks[0].pid = 5), MuxError::ReservedPid(5));
    assert_eq!(refused(|c| c.pmt_pid = 0x2000), MuxError::ReservedPid(0x2000));
    assert_eq!(refused(|c| c.programme = 0), MuxError::ProgrammeNumber);
    assert_eq!(refused(|c| c.rate_bps = Some(0)), MuxError::Rate);
    assert_eq!(refused(|c| c.tracks[0].descriptors = vec![0; 1000]), MuxError::TooManyTracks);
}
