//! Audio frames against ffprobe: clips are made by ffmpeg, cut by the framers in pieces of several sizes, and compared byte by
//! byte with ffprobe's packets after the published normalisation (ADTS and LOAS headers stripped).

use std::path::{Path, PathBuf};
use std::process::Command;

use headworks::codec::Framer;
use headworks::codec::framer::{AnyFramer, FramerHints};
use headworks::codec::fuzzing_audio::{Collector, Unit};
use headworks::media::{Codec, Format};
use tempfile::TempDir;

/// A packet as ffprobe shows it.
struct Packet {
    bytes: Vec<u8>,
    duration_s: Option<f64>,
}

/// Runs a tool from Debian's ffmpeg package.
fn run(tool: &str, directory: &Path, arguments: &str) -> String {
    let output = Command::new(tool)
        .current_dir(directory)
        .args(["-v", "error"])
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{tool} is needed (Debian package ffmpeg): {error}"));
    assert!(output.status.success(), "{tool} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a clip of two seconds of tone and noise.
fn clip(directory: &Path, rate: u32, channels: u32, encoder: &str, name: &str) -> PathBuf {
    let source = (0..channels)
        .map(|channel| format!("sin({}*t)*0.3+random({channel})*0.05", 1000 + 900 * channel))
        .collect::<Vec<_>>()
        .join("|");
    run("ffmpeg", directory, &format!("-y -f lavfi -i aevalsrc={source}:s={rate}:d=2 -c:a {encoder} {name}"));
    directory.join(name)
}

/// The packets that ffprobe finds.
fn packets(file: &Path) -> Vec<Packet> {
    let directory = file.parent().unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let text = run("ffprobe", directory, &format!("-show_packets -show_data {name}"));
    let mut packets = Vec::new();
    for line in text.lines() {
        if line == "[PACKET]" {
            packets.push(Packet { bytes: Vec::new(), duration_s: None });
        } else if let Some(duration) = line.strip_prefix("duration_time=") {
            packets.last_mut().unwrap().duration_s = duration.parse().ok();
        } else if line.as_bytes().get(8) == Some(&b':') && u32::from_str_radix(&line[..8], 16).is_ok() {
            let hex: Vec<u8> = line.bytes().skip(10).take(40).filter(|byte| *byte != b' ').collect();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            packets.last_mut().unwrap().bytes.extend(hex.chunks(2).map(byte));
        }
    }
    assert!(packets.len() > 10, "{name} has packets");
    packets
}

/// What a framer makes of PES payloads (or of a whole elementary stream) cut into pieces. When `flush`, each payload's end
/// is told.
fn cut(codec: Codec, payloads: &[Vec<u8>], piece_len: usize, flush: bool) -> (Vec<Unit>, AnyFramer) {
    let mut framer = AnyFramer::new(codec, FramerHints::default());
    let mut collector = Collector::default();
    for payload in payloads {
        payload.chunks(piece_len).for_each(|piece| collector.push(&mut framer, piece));
        if flush {
            collector.flush(&mut framer);
        }
    }
    collector.flush(&mut framer);
    assert_eq!(collector.skipped, 0);
    (collector.units, framer)
}

/// Compares in pieces of several sizes; gives the framer for a look at its configuration.
fn compare(codec: Codec, payloads: &[Vec<u8>], expected: &[Packet]) -> AnyFramer {
    for piece_len in [1, 184, 1316, usize::MAX] {
        let (units, framer) = cut(codec, payloads, piece_len, false);
        assert_same(&units, &framer, expected);
    }
    cut(codec, payloads, 184, false).1
}

fn assert_same(units: &[Unit], framer: &AnyFramer, expected: &[Packet]) {
    let Format::Audio(format) = &framer.configuration().format else { panic!("the format is known") };
    for (at, (unit, packet)) in units.iter().zip(expected).enumerate() {
        assert!(unit.bytes == packet.bytes, "frame {at} differs");
        assert!(!unit.info.damaged && unit.info.is_key(), "frame {at}");
        if let Some(duration_s) = packet.duration_s {
            let samples = (duration_s * f64::from(format.sample_rate)).round() as u32;
            assert_eq!(unit.info.samples, samples, "duration of frame {at}");
        }
    }
    assert_eq!(units.len(), expected.len());
    assert_eq!(framer.configuration().generation, 1);
}

/// The payloads of the PES packets of a transport stream's only track, which ffmpeg puts on PID 0x100.
fn pes_payloads(file: &Path) -> Vec<Vec<u8>> {
    let mut pes: Vec<Vec<u8>> = Vec::new();
    for packet in std::fs::read(file).unwrap().chunks_exact(188) {
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let payload_from = if packet[3] & 0x20 != 0 { 5 + usize::from(packet[4]) } else { 4 };
        if pid != 0x100 || packet[3] & 0x10 == 0 {
            continue;
        }
        if packet[1] & 0x40 != 0 {
            pes.push(Vec::new());
        }
        pes.last_mut().unwrap().extend_from_slice(&packet[payload_from..]);
    }
    pes.into_iter().map(|bytes| bytes[9 + usize::from(bytes[8])..].to_vec()).collect()
}

fn whole(file: &Path) -> Vec<Vec<u8>> {
    vec![std::fs::read(file).unwrap()]
}

fn audio_format(framer: &AnyFramer) -> (u32, u8, &'static str) {
    let Format::Audio(format) = &framer.configuration().format else { panic!("the format is known") };
    (format.sample_rate, format.channels, format.profile)
}

fn without_adts_header(mut packets: Vec<Packet>) -> Vec<Packet> {
    for packet in &mut packets {
        let header_len = if packet.bytes[1] & 1 == 0 { 9 } else { 7 };
        packet.bytes.drain(..header_len);
    }
    packets
}

/// The AudioSpecificConfig that ffmpeg wrote into the MP4 file.
fn audio_specific_config(mp4: &Path) -> Vec<u8> {
    let bytes = std::fs::read(mp4).unwrap();
    let esds = bytes.windows(4).position(|window| window == b"esds").expect("an esds box");
    // DecoderSpecificInfo: tag 5, length in four bytes of seven bits.
    let tag = esds + bytes[esds..].windows(4).position(|window| window == [5, 0x80, 0x80, 0x80]).unwrap();
    bytes[tag + 5..tag + 5 + usize::from(bytes[tag + 4])].to_vec()
}

#[test]
fn aac_in_adts_and_in_latm_is_the_encoders_raw_frames() {
    let directory = TempDir::new().unwrap();
    for (rate, channels) in [(48_000, 2), (44_100, 2), (48_000, 6), (24_000, 1)] {
        let mp4 = clip(directory.path(), rate, channels, "aac", "clip.m4a");
        for arguments in ["-f adts clip.aac", "-f latm clip.latm", "-f mpegts -mpegts_flags latm latm.ts", "adts.ts"] {
            run("ffmpeg", directory.path(), &format!("-y -i clip.m4a -c copy {arguments}"));
        }
        let config = audio_specific_config(&mp4);
        // MP4's last packet is shown shorter by its edit list; ADTS knows only whole frames.
        let adts = directory.path().join("clip.aac");
        let reference = without_adts_header(packets(&adts));
        let raw: Vec<Vec<u8>> = packets(&mp4).into_iter().map(|packet| packet.bytes).collect();
        assert_eq!(raw, reference.iter().map(|packet| packet.bytes.clone()).collect::<Vec<_>>());
        let profile = (rate, channels as u8, "LC");

        let framer = compare(Codec::AacAdts, &whole(&adts), &reference);
        assert_eq!(audio_format(&framer), profile);
        assert_eq!(framer.configuration().bytes, config[..2]);
        let framer = compare(Codec::AacLatm, &whole(&directory.path().join("clip.latm")), &reference);
        assert_eq!(audio_format(&framer), profile);
        assert_eq!(framer.configuration().bytes[..2], config[..2]);

        // In PES packets that each end with a frame, every end can be told at once.
        for (codec, name) in [(Codec::AacLatm, "latm.ts"), (Codec::AacAdts, "adts.ts")] {
            let payloads = pes_payloads(&directory.path().join(name));
            compare(codec, &payloads, &reference);
            let (units, framer) = cut(codec, &payloads, 184, true);
            assert_same(&units, &framer, &reference);
        }
    }
}

#[test]
fn channels_listed_in_the_stream_are_counted_as_the_encoder_does() {
    let directory = TempDir::new().unwrap();
    let mp4 = clip(directory.path(), 48_000, 3, "aac -channel_layout 2.1", "clip.m4a");
    run("ffmpeg", directory.path(), "-y -i clip.m4a -c copy -f adts clip.aac");
    let adts = directory.path().join("clip.aac");
    let framer = compare(Codec::AacAdts, &whole(&adts), &without_adts_header(packets(&adts)));
    assert_eq!(audio_format(&framer), (48_000, 3, "LC"));
    // Same as the encoder's but for the comment at the end of the program configuration element.
    let config = &framer.configuration().bytes;
    let (last, fields) = config.split_last().unwrap();
    assert_eq!((*last, fields), (0, &audio_specific_config(&mp4)[..fields.len()]));
}

#[test]
fn mpeg_audio_of_all_rates_is_kept_whole() {
    let directory = TempDir::new().unwrap();
    for (rate, channels, encoder, name, profile) in [
        (48_000, 2, "mp2 -b:a 192k", "a.mp2", "Layer II"),
        (44_100, 2, "mp2 -b:a 384k", "b.mp2", "Layer II"),
        (24_000, 1, "mp2 -b:a 64k", "c.mp2", "Layer II"),
        (48_000, 2, "libmp3lame -b:a 128k -write_xing 0 -id3v2_version 0", "d.mp3", "Layer III"),
        (44_100, 2, "libmp3lame -q:a 2 -write_xing 0 -id3v2_version 0", "e.mp3", "Layer III"),
        (22_050, 1, "libmp3lame -b:a 64k -write_xing 0 -id3v2_version 0", "f.mp3", "Layer III"),
    ] {
        let file = clip(directory.path(), rate, channels, encoder, name);
        let framer = compare(Codec::Mp2, &whole(&file), &packets(&file));
        assert_eq!(audio_format(&framer), (rate, channels as u8, profile));
    }
}

#[test]
fn checksums_of_layer_two_hold_and_find_a_flipped_bit() {
    let directory = TempDir::new().unwrap();
    // Every allocation table: B.2a to B.2d, and that of the low sampling frequencies; with and without shared subbands.
    for (rate, channels, options) in [
        (48_000, 2, "-b:a 192k -mode stereo"),
        (48_000, 2, "-b:a 192k -mode joint_stereo"),
        (44_100, 2, "-b:a 384k -mode stereo"),
        (44_100, 2, "-b:a 64k -mode joint_stereo"),
        (32_000, 1, "-b:a 48k -mode mono"),
        (32_000, 2, "-b:a 256k -mode dual_channel"),
        (24_000, 2, "-b:a 96k -mode joint_stereo"),
        (48_000, 1, "-b:a 56k -mode mono"),
    ] {
        let encoder = format!("libtwolame -error_protection 1 {options}");
        let file = clip(directory.path(), rate, channels, &encoder, "clip.mp2");
        compare(Codec::Mp2, &whole(&file), &packets(&file));
        let mut bytes = std::fs::read(&file).unwrap();
        assert_eq!(bytes[1] & 1, 0, "the clip has checksums");
        let (units, _) = cut(Codec::Mp2, &[bytes.clone()], 184, false);
        bytes[units[10].position as usize + 7] ^= 0x40;
        let (units, _) = cut(Codec::Mp2, &[bytes], 184, false);
        let damaged: Vec<usize> = (0..units.len()).filter(|&at| units[at].info.damaged).collect();
        assert_eq!(damaged, [10], "{rate} {options}");
    }
}

#[test]
fn ac3_and_eac3_are_kept_whole_and_their_checksums_hold() {
    let directory = TempDir::new().unwrap();
    for (rate, channels, codec, encoder, name, profile) in [
        (48_000, 2, Codec::Ac3, "ac3 -b:a 192k", "a.ac3", ""),
        (44_100, 2, Codec::Ac3, "ac3 -b:a 192k", "b.ac3", ""),
        (48_000, 6, Codec::Ac3, "ac3 -b:a 448k -channel_layout 5.1", "c.ac3", ""),
        (32_000, 1, Codec::Ac3, "ac3 -b:a 64k", "d.ac3", ""),
        (48_000, 2, Codec::Eac3, "eac3 -b:a 128k", "e.eac3", "E-AC-3"),
        (48_000, 6, Codec::Eac3, "eac3 -b:a 640k -channel_layout 5.1", "f.eac3", "E-AC-3"),
        (44_100, 2, Codec::Eac3, "eac3 -b:a 2000k", "g.eac3", "E-AC-3"),
    ] {
        let file = clip(directory.path(), rate, channels, encoder, name);
        let framer = compare(codec, &whole(&file), &packets(&file));
        assert_eq!(audio_format(&framer), (rate, channels as u8, profile));
    }
}

#[test]
fn opus_packets_come_without_control_headers() {
    let directory = TempDir::new().unwrap();
    for (channels, options) in [
        (2, "-b:a 128k"),
        (1, "-b:a 24k -application voip -frame_duration 60"),
        (2, "-b:a 256k -frame_duration 2.5"),
        (2, "-b:a 96k -frame_duration 120"),
        (6, "-b:a 510k -channel_layout 5.1"),
    ] {
        let file = clip(directory.path(), 48_000, channels, &format!("libopus {options}"), "clip.ts");
        let reference = packets(&file);
        let payloads = pes_payloads(&file);
        compare(Codec::Opus, &payloads, &reference);
        let (units, framer) = cut(Codec::Opus, &payloads, 184, true);
        assert_same(&units, &framer, &reference);
    }
}

#[test]
fn smpte_302m_is_a_unit_per_pes_packet() {
    let directory = TempDir::new().unwrap();
    for (channels, options, profile) in
        [(2, "-sample_fmt s16", "16 bit"), (8, "-sample_fmt s32 -bits_per_raw_sample 24", "24 bit")]
    {
        let encoder = format!("s302m -strict experimental {options}");
        let file = clip(directory.path(), 48_000, channels, &encoder, "clip.ts");
        let payloads = pes_payloads(&file);
        let (units, framer) = cut(Codec::Smpte302m, &payloads, 184, true);
        assert_same(&units, &framer, &packets(&file));
        assert_eq!(audio_format(&framer), (48_000, channels as u8, profile));
        assert_eq!(units.iter().map(|unit| unit.info.samples).sum::<u32>(), 96_000);
    }
}

#[test]
fn around_a_gap_only_the_open_frame_is_damaged() {
    let directory = TempDir::new().unwrap();
    for (codec, encoder, name) in [
        (Codec::AacAdts, "aac", "clip.aac"),
        (Codec::AacLatm, "aac", "clip.latm"),
        (Codec::Mp2, "mp2", "clip.mp2"),
        (Codec::Ac3, "ac3", "clip.ac3"),
        (Codec::Eac3, "eac3", "clip.eac3"),
    ] {
        let file = clip(directory.path(), 48_000, 2, encoder, name);
        let bytes = std::fs::read(&file).unwrap();
        let (intact, _) = cut(codec, std::slice::from_ref(&bytes), 184, false);
        for lost in (40..bytes.len() / 184 - 40).step_by(37) {
            let (from, to) = (184 * lost, 184 * (lost + 1));
            let mut framer = AnyFramer::new(codec, FramerHints::default());
            let mut collector = Collector::default();
            bytes[..from].chunks(184).for_each(|piece| collector.push(&mut framer, piece));
            framer.discontinuity();
            bytes[to..].chunks(184).for_each(|piece| collector.push(&mut framer, piece));
            collector.flush(&mut framer);
            let sound: Vec<&[u8]> =
                collector.units.iter().filter(|unit| !unit.info.damaged).map(|unit| &unit.bytes[..]).collect();
            // A frame's end in the stream is the start of the next one.
            let ends = intact.iter().skip(1).map(|unit| unit.position).chain([bytes.len() as u64]);
            let untouched =
                intact.iter().zip(ends).filter(|(unit, end)| *end <= from as u64 || unit.position >= to as u64);
            let expected: Vec<&[u8]> = untouched.map(|(unit, _)| &unit.bytes[..]).collect();
            assert!(sound == expected, "{codec} with piece {lost} lost");
            assert!(collector.units.len() - sound.len() <= 1, "{codec} with piece {lost} lost");
        }
    }
}

#[test]
fn a_stream_joined_anywhere_is_found_within_its_first_frames() {
    let directory = TempDir::new().unwrap();
    for (codec, encoder, name) in [
        (Codec::AacAdts, "aac -b:a 256k", "clip.aac"),
        (Codec::Mp2, "libmp3lame -b:a 320k -write_xing 0 -id3v2_version 0", "clip.mp3"),
        (Codec::Mp2, "mp2 -b:a 384k", "clip.mp2"),
        (Codec::Ac3, "ac3 -b:a 640k", "clip.ac3"),
        (Codec::Eac3, "eac3", "clip.eac3"),
    ] {
        let bytes = std::fs::read(clip(directory.path(), 48_000, 2, encoder, name)).unwrap();
        let (intact, _) = cut(codec, std::slice::from_ref(&bytes), 184, false);
        for start in (1..4000).step_by(61) {
            let mut framer = AnyFramer::new(codec, FramerHints::default());
            let mut collector = Collector::default();
            collector.push(&mut framer, &bytes[start..]);
            collector.flush(&mut framer);
            let expected = intact.iter().filter(|unit| unit.position >= start as u64).map(|unit| &unit.bytes);
            assert!(collector.units.iter().map(|unit| &unit.bytes).eq(expected), "{codec} joined at {start}");
            assert!(collector.units.iter().all(|unit| !unit.info.damaged));
        }
    }
}

#[test]
fn flipped_bits_are_survived_in_every_codec() {
    let directory = TempDir::new().unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for (codec, encoder, name) in [
        (Codec::AacAdts, "aac", "clip.aac"),
        (Codec::AacLatm, "aac", "clip.latm"),
        (Codec::Mp2, "libtwolame -error_protection 1", "clip.mp2"),
        (Codec::Eac3, "eac3", "clip.eac3"),
        (Codec::Opus, "libopus", "clip.ts"),
    ] {
        let file = clip(directory.path(), 48_000, 2, encoder, name);
        let bytes = if codec == Codec::Opus { pes_payloads(&file).concat() } else { std::fs::read(&file).unwrap() };
        let (intact, _) = cut(codec, std::slice::from_ref(&bytes), 184, false);
        for _ in 0..30 {
            let mut hurt = bytes.clone();
            for _ in 0..20 {
                let at = random() % hurt.len();
                hurt[at] ^= 1 << (random() % 8);
            }
            let mut framer = AnyFramer::new(codec, FramerHints::default());
            let mut collector = Collector::default();
            hurt.chunks(184).for_each(|piece| collector.push(&mut framer, piece));
            collector.flush(&mut framer);
            assert!(collector.units.len() * 10 > intact.len() * 4, "{codec}: {} frames left", collector.units.len());
            assert!(u64::from(collector.skipped) < bytes.len() as u64 / 2);
        }
    }
}
