use super::*;
use crate::container::mpegts::{Demux, DiscontinuityCause, Event, Limits, SYNC_BYTE, crc32};

const AAC: &[u8] = &[0x11, 0x90];
const MS: u64 = 1_000_000;

fn source(name: &str, codec: &[u8; 4]) -> SourceTrack {
    SourceTrack { name: name.to_owned(), codec: *codec, clock_rate: 90_000, language: None }
}

/// A frame published `ms` after the first one, whose times are the same on both clocks.
fn at(ms: i64, key: bool) -> FrameDescriptor {
    FrameDescriptor {
        pts: Some(900_000 + ms * 90),
        dts: Some(900_000 + ms * 90),
        timeline_ns: (5_000 + ms) * MS as i64,
        commit_ns: 7_000_000 + ms as u64 * MS,
        key,
        ..FrameDescriptor::default()
    }
}

/// What is written of one PID or track: (pts, dts) in ticks of 90 kHz.
fn times(bytes: &[u8]) -> Vec<(u16, u64, Option<u64>)> {
    let mut demux = Demux::new(Limits::default());
    let mut input = bytes;
    let mut found = Vec::new();
    let mut tracks = Vec::new();
    while let Some(event) = demux.push(&mut input) {
        if let Event::PesStart { track, pts: Some(pts), dts, .. } = event {
            tracks.push((track, pts, dts));
        }
    }
    for (track, pts, dts) in tracks {
        found.push((demux.track(track).unwrap().key.pid, pts, dts));
    }
    found
}

#[test]
fn it_begins_with_a_picture_that_decoding_can_start_at() {
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(source("audio0", b"mp2 "));
    remux.add_track(source("video0", b"mpg2"));
    let mut out = Vec::new();
    remux.frame(0, &at(0, false), b"sound", &mut out);
    remux.frame(1, &at(10, false), b"picture", &mut out);
    remux.frame(0, &at(20, false), b"sound", &mut out);
    remux.frame(1, &at(40, true), b"key", &mut out);
    assert_eq!(out.len(), 0, "sound is still to come");
    remux.frame(0, &at(44, false), b"sound", &mut out);
    remux.frame(1, &FrameDescriptor { pts: Some(900_000 + 120 * 90), ..at(80, false) }, b"b", &mut out);
    remux.finish(&mut out);
    let expected = [(0x100, 903_600, None), (0x101, 903_960, None), (0x100, 910_800, Some(907_200))];
    assert_eq!(times(&out), expected);
    assert_eq!(remux.take_notices(), Vec::<String>::new());
}

#[test]
fn a_track_that_never_has_a_frame_is_waited_for_a_second_at_most() {
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(source("audio0", b"mp2 "));
    remux.add_track(source("audio1", b"mp2 "));
    let mut out = Vec::new();
    for ms in (0..1_000).step_by(24) {
        remux.frame(0, &at(ms, true), b"sound", &mut out);
    }
    assert_eq!(out.len(), 0);
    remux.frame(0, &at(1_008, true), b"sound", &mut out);
    assert_eq!(times(&out).len(), 43);
    // Pictures that cannot be decoded are waited for longer.
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(source("video0", b"h264"));
    remux.add_track(source("audio0", b"mp2 "));
    out.clear();
    for ms in (0..11_000).step_by(24) {
        remux.frame(1, &at(ms, true), b"sound", &mut out);
    }
    remux.finish(&mut out);
    assert_eq!(times(&out).first().map(|first| first.1), Some(900_000 + 10_008 * 90));
}

#[test]
fn a_new_time_base_goes_on_where_the_old_one_ended() {
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(source("audio0", b"mp2 "));
    let mut out = Vec::new();
    remux.frame(0, &at(0, true), b"sound", &mut out);
    remux.frame(0, &FrameDescriptor { pts: Some(17), dts: None, segment: 1, ..at(24, true) }, b"sound", &mut out);
    assert_eq!(times(&out), [(0x100, 900_000, None), (0x100, 902_160, None)]);
}

#[test]
fn splice_commands_of_a_new_time_base_say_how_far_it_was_moved() {
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(source("audio0", b"mp2 "));
    remux.add_track(source("data0", b"sc35"));
    let mut out = Vec::new();
    let section = |remux: &mut Remux, descriptor: FrameDescriptor, out: &mut Vec<u8>| {
        remux.frame(1, &descriptor, &splice_null(5), out);
    };
    remux.frame(0, &at(0, true), b"sound", &mut out);
    section(&mut remux, at(0, true), &mut out);
    // 24 ms later the source counts from 17: the time of the first is 902,160 on the output's clock.
    let anew = FrameDescriptor { pts: Some(17), dts: None, segment: 1, ..at(24, true) };
    remux.frame(0, &anew, b"sound", &mut out);
    section(&mut remux, anew, &mut out);
    // One that knows no time of its own is of the same clock.
    section(&mut remux, FrameDescriptor { pts: None, ..anew }, &mut out);
    remux.frame(0, &at(48, true), b"sound", &mut out);
    let sections: Vec<Vec<u8>> = carried(&out).into_iter().filter(|it| it.0 == 0x101).map(|it| it.2).collect();
    let moved = 5 + 902_160 - 17;
    assert_eq!(sections, [splice_null(5), splice_null(moved), splice_null(moved)]);
}

#[test]
fn frames_without_time_follow_those_that_have_one() {
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(source("audio0", b"mp2 "));
    let untimed = FrameDescriptor { pts: None, dts: None, duration: 2_160, ..at(0, true) };
    let mut out = Vec::new();
    remux.frame(0, &untimed, b"left out", &mut out);
    remux.frame(0, &FrameDescriptor { duration: 2_160, ..at(0, true) }, b"sound", &mut out);
    remux.frame(0, &untimed, b"sound", &mut out);
    remux.frame(0, &untimed, b"sound", &mut out);
    for ticks in [i64::MAX, i64::MIN, 1 << 60] {
        remux.frame(0, &FrameDescriptor { pts: Some(ticks), dts: Some(ticks), ..untimed }, b"of no clock", &mut out);
    }
    let written: Vec<u64> = times(&out).iter().map(|it| it.1).collect();
    assert_eq!(written, [900_000, 902_160, 904_320]);
}

/// PES packets and sections: PID, PTS, bytes.
fn carried(bytes: &[u8]) -> Vec<(u16, Option<u64>, Vec<u8>)> {
    let mut demux = Demux::new(Limits::default());
    let mut input = bytes;
    let mut found = Vec::new();
    while let Some(event) = demux.push(&mut input) {
        match event {
            Event::PesStart { track, pts, .. } => found.push((track, pts, Vec::new())),
            Event::Section { track, data } => found.push((track, None, data.to_vec())),
            Event::PesData { track, data } => {
                found.iter_mut().rfind(|(of, ..)| *of == track).unwrap().2.extend_from_slice(data);
            }
            _ => {}
        }
    }
    found.into_iter().map(|(track, pts, data)| (demux.track(track).unwrap().key.pid, pts, data)).collect()
}

/// A splice_null() with this `pts_adjustment`.
fn splice_null(pts_adjustment: u64) -> Vec<u8> {
    let mut section = vec![0xfc, 0x30, 0x11, 0, (pts_adjustment >> 32) as u8];
    section.extend((pts_adjustment as u32).to_be_bytes());
    section.extend([0, 0xff, 0xf0, 0, 0, 0, 0]);
    section.extend(crc32(&section).to_be_bytes());
    section
}

#[test]
fn data_without_time_is_carried_without_one_where_it_came() {
    let mut remux = Remux::new(Container::MpegTs);
    for (name, codec) in [("audio0", b"mp2 "), ("data0", b"klv "), ("data1", b"ttxt"), ("data2", b"sc35")] {
        remux.add_track(source(name, codec));
    }
    // Decoding times of untimed frames are counted on from the last that had one, and mean nothing.
    let untimed = FrameDescriptor { pts: None, dts: Some(450_000), ..at(0, true) };
    let section = splice_null(0);
    let mut out = Vec::new();
    remux.frame(1, &FrameDescriptor { dts: None, ..untimed }, b"first", &mut out);
    assert_eq!(out.len(), 0, "sound is awaited");
    remux.frame(0, &at(0, true), b"sound", &mut out);
    remux.frame(1, &untimed, b"second", &mut out);
    remux.frame(1, &at(10, true), b"timed", &mut out);
    remux.frame(2, &FrameDescriptor { dts: None, ..untimed }, &[7; 300], &mut out);
    remux.frame(3, &FrameDescriptor { dts: None, ..untimed }, &section, &mut out);
    remux.frame(0, &at(24, true), b"sound", &mut out);
    remux.finish(&mut out);
    let expected = [
        (0x101, None, b"first".to_vec()),
        (0x100, Some(900_000), b"sound".to_vec()),
        (0x101, None, b"second".to_vec()),
        (0x101, Some(900_900), b"timed".to_vec()),
        (0x102, None, vec![7; 300]),
        (0x103, None, section.clone()),
        (0x100, Some(902_160), b"sound".to_vec()),
    ];
    assert_eq!(carried(&out), expected);
    // No header has room for a time stamp: '10' and flags, no time stamps, no header data.
    let untimed = |packet: &&[u8]| {
        packet.windows(9).any(|header| header.starts_with(&[0, 0, 1, 0xbd]) && header[6..] == [0x84, 0, 0])
    };
    assert_eq!(out.chunks(188).filter(untimed).count(), 3);
    // The clock never left the sound's.
    let pcrs = out.chunks(188).filter(|packet| packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x90 == 0x90);
    assert_eq!((pcrs.count(), remux.take_notices()), (0, Vec::new()));
}

/// Descriptors of the track on a PID, as the newest PMT has them.
fn descriptors(bytes: &[u8], pid: u16) -> Vec<u8> {
    let mut demux = Demux::new(Limits::default());
    // It believes in packets when it has seen a few.
    let null = [&[SYNC_BYTE, 0x1f, 0xff, 0x10][..], &[0xff; 184]].concat();
    let bytes = [bytes, &null.repeat(5)].concat();
    let mut input = &bytes[..];
    while demux.push(&mut input).is_some() {}
    let track = demux.tracks().find(|(_, track)| track.key.pid == pid).expect("a track");
    track.1.descriptors.clone()
}

#[test]
fn pages_and_languages_of_data_are_those_of_the_source() {
    // EN 300 468 §6.2.43: German, subtitles, magazine 1, page 50; a component tag before it.
    const TELETEXT: &[u8] = b"\x52\x01\x2a\x56\x05deu\x11\x50";
    // §6.2.41: Norwegian, of page 2, with an ancillary page 3.
    const SUBTITLES: &[u8] = b"\x59\x08nor\x10\0\x02\0\x03";
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(source("audio0", b"mp2 "));
    remux.add_track(SourceTrack { language: Some(*b"deu"), ..source("data0", b"ttxt") });
    remux.add_track(SourceTrack { language: Some(*b"nor"), ..source("data1", b"dvbs") });
    remux.add_track(source("data2", b"klv "));
    remux.configure(1, TELETEXT.to_vec());
    remux.configure(2, SUBTITLES.to_vec());
    // As a metadata descriptor tells, without a registration.
    remux.configure(3, b"\x52\x01\x07".to_vec());
    let mut out = Vec::new();
    remux.frame(0, &at(0, true), b"sound", &mut out);
    assert_eq!(descriptors(&out, 0x101), TELETEXT);
    assert_eq!(descriptors(&out, 0x102), SUBTITLES);
    assert_eq!(descriptors(&out, 0x103), b"\x05\x04KLVA\x52\x01\x07");

    // Other pages from now on.
    let other = b"\x59\x08nor\x10\0\x04\0\x05";
    remux.configure(2, other.to_vec());
    remux.frame(0, &at(24, true), b"sound", &mut out);
    assert_eq!(descriptors(&out, 0x102), other);
    // More than a PMT holds: what it says stays as it is, for all tracks.
    remux.configure(1, [0x56, 0xff].into_iter().chain([7; 255]).collect::<Vec<u8>>().repeat(4));
    remux.frame(0, &at(48, true), b"sound", &mut out);
    assert_eq!(descriptors(&out, 0x101), TELETEXT);
    assert_eq!(times(&out).len(), 3);

    // A ring of which nothing is known: first page of the first magazine, as before there were any.
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(SourceTrack { language: Some(*b"deu"), ..source("data0", b"ttxt") });
    out.clear();
    remux.frame(0, &at(0, true), b"page", &mut out);
    assert_eq!(descriptors(&out, 0x100), b"\x56\x05deu\x09\0\x0a\x04deu\0");
}

#[test]
fn data_alone_without_time_goes_by_the_time_of_its_publication() {
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(source("data0", b"klv "));
    let mut out = Vec::new();
    for ms in [0, 500, 1_000] {
        remux.frame(0, &FrameDescriptor { pts: None, dts: None, ..at(ms, true) }, b"key", &mut out);
    }
    assert_eq!(carried(&out), vec![(0x100, None, b"key".to_vec()); 3]);
    let mut demux = Demux::new(Limits::default());
    let mut input = &out[..];
    let mut pcrs = Vec::new();
    while let Some(event) = demux.push(&mut input) {
        if let Event::Pcr { pcr_27mhz, discontinuity, .. } = event {
            pcrs.push(pcr_27mhz);
            assert!(!discontinuity);
        }
    }
    assert_eq!(pcrs.last().unwrap() - pcrs[0], 27_000_000);
}

#[test]
fn damaged_frames_are_marked_where_the_container_can() {
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(source("audio0", b"mp2 "));
    let mut out = Vec::new();
    remux.frame(0, &at(0, true), b"sound", &mut out);
    let sound = out.len();
    remux.frame(0, &FrameDescriptor { damaged: true, ..at(24, true) }, &[7; 300], &mut out);
    let marked = |bytes: &[u8]| bytes.chunks(188).filter(|packet| packet[1] & 0x80 != 0).count();
    assert_eq!((marked(&out[..sound]), marked(&out[sound..])), (0, 2));
}

#[test]
fn frames_that_are_missing_are_a_discontinuity_of_their_track_alone() {
    let mut remux = Remux::new(Container::MpegTs);
    for (name, codec) in [("audio0", b"mp2 "), ("audio1", b"mp2 "), ("data0", b"sc35")] {
        remux.add_track(source(name, codec));
    }
    let mut out = Vec::new();
    // Of a track that has not begun nothing can be missing.
    remux.lose(1);
    let mut frames = |ms, remux: &mut Remux| {
        let at_start = out.len();
        remux.frame(0, &at(ms, true), &[1; 400], &mut out);
        remux.frame(1, &at(ms, true), b"sound", &mut out);
        remux.frame(2, &at(ms, true), &splice_null(0), &mut out);
        out[at_start..].to_vec()
    };
    // PID, counter, whether it has a payload, flags of the adaptation field.
    let packets = |bytes: &[u8]| -> Vec<(u16, u8, bool, u8)> {
        let flags = |packet: &[u8]| if packet[3] & 0x20 != 0 && packet[4] > 0 { packet[5] } else { 0 };
        let pid = |packet: &[u8]| u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let told = bytes.chunks(188).map(|it| (pid(it), it[3] & 0x0f, it[3] & 0x10 != 0, flags(it)));
        told.filter(|it| (0x100..0x103).contains(&it.0)).collect()
    };
    let before = packets(&frames(0, &mut remux));
    let whole = |pid, counter| (pid, counter, true, 0);
    assert_eq!(before[..3], [(0x100, 0, true, 0x10), whole(0x100, 1), whole(0x100, 2)]);
    assert_eq!(before[3..], [whole(0x101, 0), whole(0x102, 0)]);
    // The PCRs are on the first, where it takes one to say so.
    (0..3).for_each(|track| remux.lose(track));
    let after = packets(&frames(24, &mut remux));
    assert_eq!(after[..3], [(0x100, 4, true, 0x90), whole(0x100, 5), whole(0x100, 6)]);
    assert_eq!(after[3..], [(0x101, 2, true, 0x80), (0x102, 2, true, 0x80)]);
    let later = packets(&frames(48, &mut remux));
    assert_eq!(later[..3], [(0x100, 7, true, 0x10), whole(0x100, 8), whole(0x100, 9)]);
    assert_eq!(later[3..], [whole(0x101, 3), whole(0x102, 3)]);

    // As our own reader takes it: announced, and nothing of what came is given up.
    let mut demux = Demux::new(Limits::default());
    let mut input = &out[..];
    let mut causes = Vec::new();
    while let Some(event) = demux.push(&mut input) {
        if let Event::Discontinuity { track, cause } = event {
            causes.push((track.0, cause));
        }
    }
    assert_eq!(causes, [0, 1, 2].map(|track| (track, DiscontinuityCause::Signalled)));
    assert_eq!(carried(&out).len(), 9);
}

#[test]
fn what_cannot_be_carried_is_said_once() {
    let mut remux = Remux::new(Container::Matroska);
    for (name, codec) in [("audio0", b"aac "), ("data0", b"sc35"), ("data1", b"priv"), ("audio1", b"aac ")] {
        remux.add_track(source(name, codec));
    }
    remux.configure(0, AAC.to_vec());
    remux.add_track(source("data2", b"klv "));
    let mut out = Vec::new();
    for ms in [0, 21, 42] {
        remux.frame(4, &FrameDescriptor { pts: None, dts: None, ..at(ms, true) }, b"asynchronous", &mut out);
        remux.frame(0, &at(ms, true), b"sound", &mut out);
        // By its programme's clock, which is behind decoding times.
        remux.frame(1, &FrameDescriptor { pts: Some(837_000), ..at(ms, true) }, b"splice", &mut out);
        remux.frame(3, &at(ms, true), b"sound", &mut out);
    }
    assert_eq!(
        remux.take_notices(),
        [
            "data1 (priv) is left out: its codec is not known here",
            "audio1 (AAC) is left out: its parameters are not known yet",
            "data0 (SCTE-35) is left out: Matroska has no place for it",
            "data2 (KLV) is left out: Matroska has no place for it",
        ]
    );
    assert_eq!(out.windows(7).filter(|bytes| bytes.ends_with(b"sound") && bytes[1] == 0x80).count(), 3);
    // The file counts from the first frame in it.
    assert!(out.windows(9).any(|bytes| bytes == b"\x81\0\0\x80sound"));
    remux.configure(0, vec![0x12, 0x10]);
    assert_eq!(remux.take_notices().len(), 1, "Matroska cannot say so");
    remux.add_track(source("audio2", b"mp2 "));
    remux.frame(5, &at(50, true), b"sound", &mut out);
    remux.frame(5, &at(60, true), b"sound", &mut out);
    assert_eq!(remux.take_notices(), ["audio2 (MP2) is left out: it came after the file had begun"]);
}

#[test]
fn tracks_past_those_that_a_file_can_number_are_left_out() {
    let mut remux = Remux::new(Container::Matroska);
    let mut out = Vec::new();
    for number in 0..130 {
        remux.add_track(source(&format!("audio{number}"), b"opus"));
    }
    for number in 0..130 {
        remux.frame(number, &at(0, true), format!("sound {number:03}").as_bytes(), &mut out);
    }
    remux.finish(&mut out);
    let expected =
        (126..130).map(|number| format!("audio{number} (Opus) is left out: a Matroska file has 126 tracks at most"));
    assert_eq!(remux.take_notices(), expected.collect::<Vec<_>>());
    let blocks = out.windows(14).filter(|bytes| bytes.starts_with(&[0xa3, 0x8d]) && bytes[6..].starts_with(b"sound"));
    let numbers: Vec<u8> = blocks.map(|block| block[2]).collect();
    assert_eq!(numbers, (0x81..=0xfe).collect::<Vec<u8>>());
}

#[test]
fn a_transport_stream_takes_tracks_that_come_later() {
    let mut remux = Remux::new(Container::MpegTs);
    remux.add_track(source("audio0", b"mp2 "));
    let mut out = Vec::new();
    remux.frame(0, &at(0, true), b"sound", &mut out);
    remux.add_track(source("audio1", b"aac "));
    remux.configure(1, AAC.to_vec());
    remux.frame(1, &at(10, true), b"other", &mut out);
    assert_eq!(times(&out), [(0x100, 900_000, None), (0x101, 900_900, None)]);
    // Blocks of 960 samples, of which ADTS cannot tell.
    remux.configure(1, vec![0x11, 0x94]);
    let before = out.len();
    remux.frame(1, &at(20, true), b"other", &mut out);
    assert_eq!(out.len(), before);
    assert_eq!(remux.take_notices(), ["audio1 (AAC) is left out: a transport stream has no words for its parameters"]);
}

#[test]
fn both_fields_of_a_picture_share_a_block() {
    // 1920 × 1080 in fields, and a picture parameter set of it.
    const SETS: &[u8] =
        b"\0\0\x01\x67\x4d\x40\x28\xf4\x03\xc0\x22\x7e\xf0\x16\xa0\x20\x20\x28\0\0\x03\0\x08\0\0\x03\x01\x93\x02\
        \0\0\x98\x96\x80\0\x4c\x4b\x72\x31\0\x7c\x58\xba\x80\0\0\x01\x68\xde\x3c\x80";
    const IDR: &[u8] = &[0x65, 0x88, 0x84, 0x12, 0x34, 0x56, 0x78, 0x9a];
    let mut remux = Remux::new(Container::Matroska);
    remux.add_track(source("video0", b"h264"));
    remux.configure(0, SETS.to_vec());
    let field = |ms, key, picture_structure| FrameDescriptor { picture_structure, ..at(ms, key) };
    let mut out = Vec::new();
    remux.frame(0, &field(0, true, PictureStructure::TopFirst), &[&[0, 0, 1], IDR].concat(), &mut out);
    let header = out.len();
    assert!(header > 0);
    assert_eq!(remux.take_notices(), Vec::<String>::new());
    remux.frame(0, &field(20, false, PictureStructure::BottomSecond), &[0, 0, 1, 0x61, 2], &mut out);
    remux.frame(0, &field(40, false, PictureStructure::TopFirst), &[0, 0, 1, 0x61, 3], &mut out);
    remux.finish(&mut out);
    let block = |units: &[u8]| [&[0xa3, 0x80 | (4 + units.len() as u8), 0x81][..]].concat();
    let both = [&[0, 0, 0, 8], IDR, &[0, 0, 0, 2, 0x61, 2]].concat();
    let blocks = [&block(&both)[..], &[0, 0, 0x80], &both, &block(&[0; 6]), &[0x0f, 0xa0, 0, 0, 0, 0, 2, 0x61, 3]];
    assert!(out[header..].ends_with(&blocks.concat()), "{:02x?}", &out[header..]);
}
