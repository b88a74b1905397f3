//! Whole clips through the pipeline without a network, beside ffprobe: number, order, bytes, times and key flags, by the rules
//! of `interop/NORMALISATION.md`.

#[path = "interop/clips.rs"]
#[expect(dead_code, reason = "the interoperability tests use more of it")]
mod clips;
#[path = "interop/latm.rs"]
mod latm;
#[path = "conformance/pipeline.rs"]
mod pipeline;
#[path = "interop/reference.rs"]
#[expect(dead_code, reason = "the interoperability tests use more of it")]
mod reference;
#[path = "conformance/tap.rs"]
mod tap;

use std::process::Command;

use clips::{Clip, clip, from_bytes, run};
use headworks::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack};
use headworks::media::Codec;

const VIDEO: &str = "testsrc2=size=320x180:rate=25:duration=2";
const INTERLACED: &str = "testsrc2=size=352x288:rate=50:duration=2,interlace=lowpass=0";
const FIELDS: &str = "testsrc2=size=320x176:rate=50:duration=2";
const TONE: &str = "sine=sample_rate=48000:duration=2";
const TONE_44K: &str = "sine=sample_rate=44100:duration=2";

/// Runs a stream through the pipeline in datagrams of several sizes and compares it with what ffprobe finds in the clip.
fn compare_as(clip: &Clip, bytes: &[u8]) {
    for datagram in [7 * 188, 188, 1_000] {
        let how = format!("{} in datagrams of {datagram}", clip.name);
        clip.reference.compare(&how, &pipeline::frames(bytes, datagram));
    }
}

/// Makes each of these clips (name, input, encoder) and compares it.
fn compare_each(clips: &[(&str, &str, &str)]) {
    for (name, input, encoder) in clips {
        let clip = clip(name, &[input], encoder);
        compare_as(&clip, &clip.bytes);
    }
}

#[test]
fn clips_of_h264() {
    compare_each(&[
        ("h264-bff", INTERLACED, "-c:v libx264 -preset ultrafast -g 12 -x264opts interlaced=1:bff=1:slices=4"),
        ("h264-fake", VIDEO, "-c:v libx264 -preset ultrafast -g 12 -x264opts fake-interlaced=1"),
        ("h264-refresh", VIDEO, "-c:v libx264 -preset ultrafast -x264opts intra-refresh=1:keyint=10"),
        (
            "h264-pyramid",
            VIDEO,
            "-c:v libx264 -preset fast -g 15 -x264opts open-gop=1:b-pyramid=normal:bframes=5:scenecut=0",
        ),
        ("h264-8b", VIDEO, "-c:v libx264 -preset veryfast -g 20 -bf 8"),
        ("h264-grey", VIDEO, "-c:v libx264 -preset ultrafast -pix_fmt gray -g 10"),
        ("h264-444", VIDEO, "-c:v libx264 -preset ultrafast -pix_fmt yuv444p -g 10"),
        ("h264-422", VIDEO, "-c:v libx264 -preset ultrafast -pix_fmt yuv422p10le -g 1"),
        ("h264-small", VIDEO, "-c:v libx264 -preset ultrafast -x264opts slice-max-size=300 -g 25"),
        (
            "h264-timeless",
            VIDEO,
            "-c:v libx264 -preset ultrafast -x264opts force-cfr=0 -bsf:v h264_metadata=tick_rate=0",
        ),
    ]);
}

#[test]
fn clips_of_hevc() {
    compare_each(&[
        ("hevc-slices", VIDEO, "-c:v libx265 -preset ultrafast -x265-params log-level=error:slices=4:keyint=20:aud=1"),
        (
            "hevc-layers",
            VIDEO,
            "-c:v libx265 -preset ultrafast -x265-params log-level=error:temporal-layers=1:bframes=4:b-adapt=0:keyint=20",
        ),
        ("hevc-fields", FIELDS, "-c:v libx265 -preset ultrafast -x265-params log-level=error:interlace=bff:keyint=20"),
        (
            "hevc-cra",
            VIDEO,
            "-c:v libx265 -preset ultrafast -x265-params log-level=error:open-gop=1:bframes=4:keyint=12:min-keyint=12:scenecut=0",
        ),
        (
            "hevc-refresh",
            VIDEO,
            "-c:v libx265 -preset ultrafast -x265-params log-level=error:intra-refresh=1:keyint=20",
        ),
        (
            "hevc-422",
            VIDEO,
            "-c:v libx265 -preset ultrafast -pix_fmt yuv422p10le -x265-params log-level=error:keyint=1",
        ),
    ]);
}

#[test]
fn clips_of_mpeg2() {
    compare_each(&[
        (
            "mpeg2-alternate",
            INTERLACED,
            "-c:v mpeg2video -b:v 2M -flags +ildct+ilme -alternate_scan 1 -g 12 -bf 2 -top 0",
        ),
        ("mpeg2-422", VIDEO, "-c:v mpeg2video -b:v 2M -pix_fmt yuv422p -g 12 -flags +cgop -sc_threshold 1000000000"),
        ("mpeg2-low", VIDEO, "-c:v mpeg2video -b:v 2M -g 12 -bf 0 -flags +low_delay"),
        ("mpeg2-intra", VIDEO, "-c:v mpeg2video -b:v 2M -g 1 -intra_vlc 1"),
        ("mpeg1", VIDEO, "-c:v mpeg1video -b:v 1M -g 12 -bf 2"),
    ]);
}

#[test]
fn clips_of_sound() {
    compare_each(&[
        ("aac-8k", "sine=sample_rate=8000:duration=2", "-c:a aac"),
        ("aac-24k", "sine=sample_rate=24000:duration=2", "-c:a aac"),
        ("aac-5.1", TONE, "-c:a aac -ac 6"),
        ("latm-5.1", TONE, "-c:a aac -ac 6 -mpegts_flags latm"),
        ("mp2-16k", "sine=sample_rate=16000:duration=2", "-c:a mp2 -b:a 64k"),
        ("mp3-44k", TONE_44K, "-c:a libmp3lame -q:a 3"),
        ("mp3-22k", "sine=sample_rate=22050:duration=2", "-c:a libmp3lame"),
        ("ac3-44k", TONE_44K, "-c:a ac3"),
        ("eac3-44k", TONE_44K, "-c:a eac3"),
        ("eac3-5.1", TONE, "-c:a eac3 -ac 6"),
        ("opus-2.5ms", TONE, "-c:a libopus -frame_duration 2.5"),
        ("opus-60ms", TONE, "-c:a libopus -frame_duration 60"),
        ("opus-120ms", TONE, "-c:a libopus -frame_duration 120"),
        ("opus-5.1", TONE, "-c:a libopus -ac 6 -mapping_family 1"),
        ("302m-20", TONE, "-c:a s302m -strict -2 -ac 4 -sample_fmt s32 -bits_per_raw_sample 20"),
        ("302m-24", TONE, "-c:a s302m -strict -2 -ac 8 -sample_fmt s32 -bits_per_raw_sample 24"),
    ]);
}

#[test]
fn clips_multiplexed_in_many_ways() {
    const CODED: &str = "-c:v libx264 -preset ultrafast -g 25 -bf 2 -c:a aac";
    for (name, options) in [
        ("mux-pes-large", "-pes_payload_size 60000"),
        ("mux-constant", "-muxrate 5M"),
        ("mux-tables", "-mpegts_flags +resend_headers+initial_discontinuity+pat_pmt_at_frames"),
        ("mux-system-b", "-mpegts_flags +system_b -c:a eac3"),
        ("mux-pids", "-mpegts_start_pid 0x20 -mpegts_pmt_start_pid 0x1fe0 -mpegts_service_id 77 -pcr_period 20"),
        ("mux-wrap", "-c:v mpeg2video -muxdelay 0 -output_ts_offset 95442.2"),
    ] {
        let clip = clip(name, &[VIDEO, TONE], &format!("{CODED} {options}"));
        compare_as(&clip, &clip.bytes);
    }
}

#[test]
fn repeated_and_empty_transport_packets_change_nothing() {
    let coded = "-c:v libx264 -preset ultrafast -g 25 -bf 2 -c:a mp2";
    let clip = clip("repeated", &[VIDEO, TONE], coded);
    let mut bytes = Vec::new();
    for (index, packet) in clip.bytes.chunks(188).enumerate() {
        bytes.extend(packet);
        if index % 7 == 0 && packet[3] & 0x10 != 0 {
            bytes.extend(packet);
        }
        if index % 5 == 0 {
            let mut null = [0xff; 188];
            null[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
            bytes.extend(null);
        }
        if index % 11 == 0 {
            // An adaptation field and no payload: the continuity counter stands still.
            let mut empty = [0xff; 188];
            empty[..6].copy_from_slice(&[0x47, packet[1] & 0x1f, packet[2], 0x20 | packet[3] & 0x0f, 183, 0]);
            bytes.extend(empty);
        }
    }
    compare_as(&clip, &bytes);
}

/// What ffmpeg makes of a test picture, without a container.
fn elementary(name: &str, size: &str, arguments: &str) -> Vec<u8> {
    let path = clips::directory().join(name);
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i"]);
    command.arg(format!("testsrc2=size={size}:rate=25:duration=1"));
    run(command.args(arguments.split_whitespace()).arg(&path));
    std::fs::read(&path).expect("ffmpeg has written it")
}

/// Access units of one slice each: everything up to the slice's end.
fn after_each_slice(stream: &[u8], is_slice: impl Fn(u8) -> bool) -> Vec<&[u8]> {
    let starts: Vec<usize> = (0..stream.len() - 3).filter(|at| stream[*at..].starts_with(&[0, 0, 1])).collect();
    let mut units = Vec::new();
    let mut from = 0;
    for (index, &start) in starts.iter().enumerate() {
        if is_slice(stream[start + 3]) {
            let end = starts.get(index + 1).map_or(stream.len(), |&next| next - usize::from(stream[next - 1] == 0));
            units.push(&stream[from..end]);
            from = end;
        }
    }
    units
}

/// A transport stream with a PES packet for each of these.
fn multiplexed(codec: Codec, units: &[&[u8]]) -> Vec<u8> {
    let mut mux = Mux::new(MuxConfiguration::new(vec![MuxTrack::new(0x100, codec)])).expect("one track");
    let mut bytes = Vec::new();
    for (index, data) in units.iter().enumerate() {
        let dts = 900_000 + 3_600 * index as u64;
        mux.write(0, &AccessUnit { pts: dts, dts, random_access: false, data }, &mut bytes);
    }
    bytes
}

fn is_h264_slice(first: u8) -> bool {
    matches!(first & 0x1f, 1 | 5)
}

const X264_PLAIN: &str = "-c:v libx264 -preset ultrafast -g 10 -bf 0 -threads 1 -bsf:v h264_metadata=aud=remove";

#[test]
fn pictures_change_their_size_and_sequences_end() {
    let small = elementary("small.h264", "320x180", X264_PLAIN);
    let large = elementary("large.h264", "640x360", X264_PLAIN);
    for (name, between) in [("sizes", &[][..]), ("sizes-ended", &[0, 0, 1, 10])] {
        let stream = [&small[..], between, &large, between, &small].concat();
        let units = after_each_slice(&stream, is_h264_slice);
        let clip = from_bytes(name, &multiplexed(Codec::H264, &units));
        compare_as(&clip, &clip.bytes);
    }
}

#[test]
fn prefix_units_without_delimiters_go_with_their_slices() {
    let stream = elementary("plain.h264", "320x180", X264_PLAIN);
    let mut prefixed = Vec::new();
    for (at, byte) in stream.iter().enumerate() {
        if stream[at..].starts_with(&[0, 0, 1]) && stream.get(at + 3).is_some_and(|first| is_h264_slice(*first)) {
            prefixed.extend([0, 0, 1, 0x6e, 0xc0, 0x20, 0x11]);
        }
        prefixed.push(*byte);
    }
    let units = after_each_slice(&prefixed, is_h264_slice);
    assert_eq!(units.len(), 25);
    let clip = from_bytes("prefixed", &multiplexed(Codec::H264, &units));
    compare_as(&clip, &clip.bytes);
}

#[test]
fn data_passes_as_it_is() {
    let tracks = [Codec::Mp2, Codec::Teletext, Codec::DvbSubtitle, Codec::Klv, Codec::Scte35];
    let tracks = tracks.into_iter().zip(0x100..).map(|(codec, pid)| MuxTrack::new(pid, codec)).collect();
    let mut mux = Mux::new(MuxConfiguration::new(tracks)).expect("five tracks");
    // MPEG-1 layer II, 48 kHz, 64 kbit/s: 192 bytes and 24 ms.
    let mut sound = vec![0xaa; 192];
    sound[..4].copy_from_slice(&[0xff, 0xfd, 0x44, 0xc0]);
    let teletext = [&[0x10][..], &[[0x02, 0x2c], [0x55; 2]].concat().repeat(11), &[0x03, 0x2c]].concat();
    // An empty page: data identifier, stream, one end of display set segment, end.
    let subtitle = [0x20, 0x00, 0x0f, 0x80, 0, 1, 0, 0, 0xff];
    let key = [0x06, 0x0e, 0x2b, 0x34, 2, 0x0b, 1, 1, 0x0e, 1, 3, 1, 1, 0, 0, 0];
    let metadata = [&key[..], &[0x83, 0, 1, 0x2c], &[0x5a; 300]].concat();
    // splice_null() with its CRC.
    let splice = [0xfc, 0x30, 0x11, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xf0, 0, 0, 0, 0, 0x7a, 0x4f, 0xbf, 0xff];
    let mut bytes = Vec::new();
    for frame in 0..100 {
        let dts = 900_000 + 2_160 * frame;
        let mut write = |track, data: &[u8]| {
            mux.write(track, &AccessUnit { pts: dts, dts, random_access: false, data }, &mut bytes);
        };
        write(0, &sound);
        if frame % 5 == 0 {
            write(1, &teletext);
            write(2, &subtitle);
            write(3, &metadata);
        }
        if frame % 25 == 0 {
            mux.write_section(4, dts, &splice, &mut bytes);
        }
    }
    let clip = from_bytes("data", &bytes);
    assert_eq!(clip.reference.tracks.len(), 5);
    compare_as(&clip, &clip.bytes);
}
