//! The demultiplexer beside an independent one (`mpeg2ts-reader`), on streams of our own multiplexer and of ffmpeg's.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use headworks::container::mpegts::{
    AccessUnit, Demux, Event, Limits, Mux, MuxConfiguration, MuxTrack, PACKET_LEN, Statistics,
};
use headworks::media::Codec;
use mpeg2ts_reader::demultiplex::{self, FilterChangeset, FilterRequest};
use mpeg2ts_reader::packet_filter_switch;
use mpeg2ts_reader::pes::{
    ElementaryStreamConsumer, PesContents, PesHeader, PesPacketFilter, PtsDts, Timestamp, TimestampError,
};
use mpeg2ts_reader::psi::pat::PAT_PID;
use proptest::prelude::*;

/// A PES packet: PTS, DTS, payload.
type PesPacket = (Option<u64>, Option<u64>, Vec<u8>);
/// PES packets of each PID.
type Streams = BTreeMap<u16, Vec<PesPacket>>;

packet_filter_switch! {
    Switch<Reader> {
        Pes: PesPacketFilter<Reader, Collector>,
        Pat: demultiplex::PatPacketFilter<Reader>,
        Pmt: demultiplex::PmtPacketFilter<Reader>,
        Null: demultiplex::NullPacketFilter<Reader>,
    }
}

/// The independent reader and what it found.
#[derive(Default)]
pub struct Reader {
    changeset: FilterChangeset<Switch>,
    streams: Streams,
}

impl demultiplex::DemuxContext for Reader {
    type F = Switch;

    fn filter_changeset(&mut self) -> &mut FilterChangeset<Switch> {
        &mut self.changeset
    }

    fn construct(&mut self, request: FilterRequest<'_, '_>) -> Switch {
        match request {
            FilterRequest::ByPid(PAT_PID) => Switch::Pat(demultiplex::PatPacketFilter::default()),
            FilterRequest::Pmt { pid, program_number } => {
                Switch::Pmt(demultiplex::PmtPacketFilter::new(pid, program_number))
            }
            FilterRequest::ByStream { stream_info, .. } => {
                Switch::Pes(PesPacketFilter::new(Collector(stream_info.elementary_pid().into())))
            }
            FilterRequest::ByPid(_) | FilterRequest::Nit { .. } => {
                Switch::Null(demultiplex::NullPacketFilter::default())
            }
        }
    }
}

/// Collects the PES packets of one PID.
pub struct Collector(u16);

impl ElementaryStreamConsumer<Reader> for Collector {
    fn start_stream(&mut self, _: &mut Reader) {}

    fn begin_packet(&mut self, reader: &mut Reader, header: PesHeader<'_>) {
        let value = |time: Result<Timestamp, TimestampError>| time.ok().map(Timestamp::value);
        let packet = match header.contents() {
            PesContents::Parsed(Some(contents)) => {
                let (pts, dts) = match contents.pts_dts() {
                    Ok(PtsDts::PtsOnly(pts)) => (value(pts), None),
                    Ok(PtsDts::Both { pts, dts }) => (value(pts), value(dts)),
                    _ => (None, None),
                };
                (pts, dts, contents.payload().to_vec())
            }
            PesContents::Parsed(None) => panic!("the independent reader cannot read a PES header"),
            PesContents::Payload(payload) => (None, None, payload.to_vec()),
        };
        reader.streams.entry(self.0).or_default().push(packet);
    }

    fn continue_packet(&mut self, reader: &mut Reader, data: &[u8]) {
        let packets = reader.streams.get_mut(&self.0).expect("a packet has begun");
        packets.last_mut().expect("a packet has begun").2.extend(data);
    }

    fn end_packet(&mut self, _: &mut Reader) {}

    fn continuity_error(&mut self, _: &mut Reader) {
        panic!("the independent reader found a continuity error");
    }
}

fn read_independently(bytes: &[u8]) -> Streams {
    let mut reader = Reader::default();
    let mut demux = demultiplex::Demultiplex::new(&mut reader);
    demux.push(&mut reader, bytes);
    reader.streams
}

/// What our own demultiplexer finds.
struct Found {
    streams: Streams,
    codecs: BTreeMap<u16, Codec>,
    pcrs: BTreeMap<u16, Vec<u64>>,
    ends: usize,
    statistics: Statistics,
    stride: Option<usize>,
}

/// Reads bytes as they would come off the network, in datagrams of seven packets or of an odd size.
fn read(bytes: &[u8], datagram: usize) -> Found {
    let mut demux = Demux::new(Limits::default());
    let mut found = Found {
        streams: Streams::new(),
        codecs: BTreeMap::new(),
        pcrs: BTreeMap::new(),
        ends: 0,
        statistics: Statistics::default(),
        stride: None,
    };
    let mut pids = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    for mut datagram in bytes.chunks(datagram) {
        while let Some(event) = demux.push(&mut datagram) {
            match event {
                Event::Tables => {
                    pids = demux.tracks().map(|(index, track)| (index, track.key.pid)).collect();
                    numbers = demux.programmes().map(|(index, programme)| (index, programme.number)).collect();
                    found.codecs.extend(demux.tracks().map(|(_, track)| (track.key.pid, track.key.codec)));
                }
                Event::PesStart { track, pts, dts, .. } => {
                    found.streams.entry(pids[&track]).or_default().push((pts, dts, Vec::new()));
                }
                Event::PesData { track, data } => {
                    let packets = found.streams.get_mut(&pids[&track]).expect("a packet has begun");
                    packets.last_mut().expect("a packet has begun").2.extend(data);
                }
                Event::PesEnd { .. } => found.ends += 1,
                Event::Pcr { programme, pcr_27mhz, .. } => {
                    found.pcrs.entry(numbers[&programme]).or_default().push(pcr_27mhz);
                }
                Event::Discontinuity { track, cause } => panic!("{cause:?} on a whole stream, {track:?}"),
                Event::PesEndHint { .. } | Event::Section { .. } => {}
            }
        }
    }
    found.statistics = demux.statistics();
    found.stride = demux.packet_stride();
    found
}

/// Asserts that both readers find the same, and gives what ours found.
fn compare(bytes: &[u8]) -> Found {
    let expected = read_independently(bytes);
    assert!(!expected.is_empty(), "the independent reader finds PES packets");
    let found = read(bytes, 7 * PACKET_LEN);
    for (pid, packets) in &expected {
        let ours = found.streams.get(pid).map_or(&[][..], Vec::as_slice);
        assert_eq!(ours.len(), packets.len(), "number of PES packets on PID {pid:#x}");
        for (number, (ours, theirs)) in ours.iter().zip(packets).enumerate() {
            assert_eq!(ours.0, theirs.0, "PTS of PES packet {number} on PID {pid:#x}");
            assert_eq!(ours.1, theirs.1, "DTS of PES packet {number} on PID {pid:#x}");
            assert!(ours.2 == theirs.2, "payload of PES packet {number} on PID {pid:#x}");
        }
    }
    assert_eq!(found.streams.len(), expected.len());
    assert_eq!(read(bytes, 1000).streams, found.streams, "however the bytes are cut");
    let clean = Statistics {
        packets: (bytes.len() / PACKET_LEN) as u64,
        null_packets: found.statistics.null_packets,
        unlisted_packets: found.statistics.unlisted_packets,
        sections: found.statistics.sections,
        ..Statistics::default()
    };
    assert_eq!(found.statistics, clean, "nothing to complain of");
    found
}

/// What ffmpeg makes of its test sources with these arguments, which end before the output's name.
fn clip(arguments: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("clip.ts");
    run_ffmpeg(arguments, &path);
    std::fs::read(&path).expect("ffmpeg has written the clip")
}

fn run_ffmpeg(arguments: &str, path: &Path) {
    const SOURCES: &str = "-f lavfi -i testsrc2=size=320x180:rate=25 \
        -f lavfi -i sine=frequency=440:sample_rate=48000 -f lavfi -i sine=frequency=880:sample_rate=48000 -t 3";
    let output = Command::new("ffmpeg")
        .args("-nostdin -hide_banner -loglevel error -y".split_whitespace())
        .args(SOURCES.split_whitespace())
        .args(arguments.split_whitespace())
        .args(["-f", "mpegts"])
        .arg(path)
        .output()
        .expect("this test makes its clips with ffmpeg, which cannot be started: install it (tests/run does)");
    assert!(output.status.success(), "ffmpeg {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn mpegts_h264_and_aac_read_as_the_independent_reader_reads_them() {
    let found = compare(&clip("-map 0 -map 1 -c:v libx264 -preset ultrafast -bf 2 -g 25 -c:a aac -ac 2"));
    assert_eq!(found.codecs, BTreeMap::from([(0x100, Codec::H264), (0x101, Codec::AacAdts)]));
    assert_eq!(found.streams[&0x100].len(), 75, "one PES packet for each picture");
    assert_eq!(found.ends, found.streams[&0x101].len(), "only audio has PES lengths");
    let pcrs = &found.pcrs[&1];
    assert!(pcrs.len() > 25 && pcrs.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn mpegts_video_with_pes_length_ends_by_its_length() {
    let found = compare(&clip("-map 0 -c:v mpeg2video -q:v 5 -bf 2 -omit_video_pes_length 0"));
    assert_eq!(found.codecs[&0x100], Codec::Mpeg2Video);
    assert_eq!(found.ends, 75);
}

#[test]
fn mpegts_two_audio_tracks_at_a_constant_rate() {
    let found = compare(&clip(
        "-map 0 -map 1 -map 2 -c:v libx264 -preset ultrafast -x264-params interlaced=1 -c:a:0 mp2 -c:a:1 ac3 \
         -muxrate 4M -pes_payload_size 1024",
    ));
    assert_eq!(found.codecs, BTreeMap::from([(0x100, Codec::H264), (0x101, Codec::Mp2), (0x102, Codec::Ac3)]));
    assert!(found.statistics.null_packets > 1000);
}

#[test]
fn mpegts_hevc_latm_and_opus() {
    let found = compare(&clip(
        "-map 0 -map 1 -map 2 -c:v libx265 -preset ultrafast -x265-params log-level=none -c:a:0 aac -c:a:1 libopus \
         -mpegts_flags +latm",
    ));
    assert_eq!(found.codecs, BTreeMap::from([(0x100, Codec::Hevc), (0x101, Codec::AacLatm), (0x102, Codec::Opus)]));
}

#[test]
fn mpegts_two_programmes_have_a_clock_each() {
    let found = compare(&clip(
        "-map 0 -map 0 -map 1 -map 2 -c:v libx264 -preset ultrafast -c:a:0 eac3 -c:a:1 s302m -ac:a:1 2 -strict -2 \
         -program title=one:st=0:st=2 -program title=two:st=1:st=3",
    ));
    let codecs: Vec<_> = found.codecs.values().copied().collect();
    assert_eq!(codecs, [Codec::H264, Codec::H264, Codec::Eac3, Codec::Smpte302m]);
    assert_eq!(found.pcrs.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert!(found.pcrs.values().all(|pcrs| pcrs.len() > 20));
}

#[test]
fn mpegts_packets_of_192_and_204_bytes_read_as_those_of_188() {
    let plain = clip("-map 0 -map 1 -c:v libx264 -preset ultrafast -c:a aac");
    let expected = read(&plain, 7 * PACKET_LEN);
    for (before, after) in [(4, 0), (0, 16)] {
        let mut bytes = Vec::new();
        for packet in plain.chunks(PACKET_LEN) {
            bytes.extend(std::iter::repeat_n(0x5a, before));
            bytes.extend(packet);
            bytes.extend(std::iter::repeat_n(0xa5, after));
        }
        let found = read(&bytes, 1316);
        assert_eq!(found.stride, Some(before + PACKET_LEN + after));
        assert!(found.streams == expected.streams);
    }
    let timed = clip("-map 0 -c:v libx264 -preset ultrafast -mpegts_m2ts_mode 1");
    let found = read(&timed, 192 * 6);
    assert_eq!(found.stride, Some(192));
    assert_eq!(found.streams.values().map(Vec::len).collect::<Vec<_>>(), [75]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn mpegts_generated_streams_read_as_the_independent_reader_reads_them(
        units in prop::collection::vec((0..3_usize, 1..9_000_u64, prop_oneof![Just(0), 1..20_000_u64], 1..9_000_usize), 3..60),
        rate_bps in prop_oneof![Just(None), (8_000_000..30_000_000_u64).prop_map(Some)],
        video in prop_oneof![Just(Codec::H264), Just(Codec::Hevc), Just(Codec::Mpeg2Video)],
    ) {
        let tracks = vec![
            MuxTrack::new(0x100, video),
            MuxTrack { language: Some(*b"deu"), ..MuxTrack::new(0x101, Codec::AacAdts) },
            MuxTrack::new(0x102, Codec::Ac3),
        ];
        let mut mux = Mux::new(MuxConfiguration { rate_bps, ..MuxConfiguration::new(tracks) }).unwrap();
        let mut bytes = Vec::new();
        let mut dts = 900_000;
        for (number, &(track, step, reordering, size)) in units.iter().enumerate() {
            dts += step;
            let data: Vec<u8> = (0..size).map(|at| (at * 13 + at / 251 + number) as u8).collect();
            mux.write(track, &AccessUnit { pts: dts + reordering, dts, random_access: false, data: &data }, &mut bytes);
        }
        let found = compare(&bytes);
        prop_assert_eq!(found.streams.values().map(Vec::len).sum::<usize>(), units.len());
    }
}
