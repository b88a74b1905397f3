//! Every clip over every transport: number, order, bytes, times and key flags as ffprobe finds them.

use std::net::SocketAddr;
use std::sync::Arc;

use headworks::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack};
use headworks::media::Codec;

use crate::appliance::Appliance;
use crate::clips::{Clip, INTERLACED, TONE_44K, TONE_48K, VIDEO, clip, from_bytes};
use crate::field_coded::{self, Picture, Structure};
use crate::senders;

/// Sends a clip over plain and encrypted SRT, RTP and raw UDP at once and compares what comes out of each.
fn arrives_bit_exact(clip: &Arc<Clip>) {
    let appliance =
        Appliance::start(&["streams.aes128.passphrase=of this stream", "streams.aes256.passphrase=of that stream"]);
    let srt = appliance.ports.srt;
    let rtp = SocketAddr::from(([127, 0, 0, 1], appliance.ports.rtp));
    let count = clip.reference.packet_count();
    let raw_socket = senders::socket();
    let raw_name = format!("ts-127.0.0.1-{}", raw_socket.local_addr().unwrap().port());
    std::thread::scope(|scope| {
        let compare = |stream: &str, send: &(dyn Fn() + Sync)| {
            let tap = appliance.tap(stream);
            send();
            clip.reference.compare(&format!("{} as {stream}", clip.name), &tap.wait_for(count));
        };
        let bytes = &clip.bytes;
        scope.spawn(move || compare("plain", &|| senders::send_srt(srt, "streamid=plain", bytes)));
        for (stream, query) in [
            ("aes128", "streamid=aes128&passphrase=of this stream&pbkeylen=16"),
            ("aes256", "streamid=#!::r=aes256,m=publish&passphrase=of that stream&pbkeylen=32"),
        ] {
            scope.spawn(move || compare(stream, &|| senders::send_srt(srt, query, bytes)));
        }
        scope
            .spawn(move || compare("rtp-00c0ffee", &|| senders::send_rtp(&senders::socket(), bytes, rtp, 0x00c0_ffee)));
        scope.spawn(move || compare(&raw_name, &|| senders::send_udp(&raw_socket, bytes, rtp)));
    });
}

pub const X264: &str = "-c:v libx264 -preset veryfast -b:v 2M";

#[test]
fn h264_progressive_with_aac_arrives_bit_exact() {
    arrives_bit_exact(&clip("progressive", &[VIDEO, TONE_48K], &format!("{X264} -g 25 -bf 2 -c:a aac -b:a 128k")));
}

#[test]
fn h264_mbaff_arrives_bit_exact() {
    arrives_bit_exact(&clip(
        "mbaff",
        &[INTERLACED, TONE_48K],
        &format!("{X264} -g 12 -x264opts interlaced=1:tff=1 -c:a mp2"),
    ));
}

#[test]
fn h264_open_gop_arrives_bit_exact() {
    arrives_bit_exact(&clip("open-gop", &[VIDEO], &format!("{X264} -g 15 -bf 3 -x264opts open-gop=1:scenecut=0")));
}

#[test]
fn h264_intra_refresh_arrives_bit_exact() {
    arrives_bit_exact(&clip("intra-refresh", &[VIDEO], &format!("{X264} -g 25 -x264opts intra-refresh=1")));
}

#[test]
fn h264_of_many_slices_without_b_pictures_arrives_bit_exact() {
    arrives_bit_exact(&clip("slices", &[VIDEO], &format!("{X264} -g 50 -tune zerolatency -x264opts slices=8")));
}

#[test]
fn h264_of_constant_rate_with_filler_arrives_bit_exact() {
    let arguments =
        "-c:v libx264 -preset veryfast -g 25 -x264opts nal-hrd=cbr:filler=1 -b:v 3M -maxrate 3M -bufsize 1M";
    arrives_bit_exact(&clip("filler", &[VIDEO], arguments));
}

#[test]
fn hevc_8_bit_arrives_bit_exact() {
    arrives_bit_exact(&clip(
        "hevc8",
        &[VIDEO, TONE_48K],
        "-c:v libx265 -preset ultrafast -x265-params log-level=error:keyint=25 -b:v 2M -c:a ac3",
    ));
}

#[test]
fn hevc_10_bit_with_open_gops_arrives_bit_exact() {
    arrives_bit_exact(&clip(
        "hevc10",
        &[VIDEO],
        "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -x265-params log-level=error:keyint=20:open-gop=1:bframes=3 -b:v 2M",
    ));
}

#[test]
fn mpeg2_progressive_arrives_bit_exact() {
    arrives_bit_exact(&clip("mpeg2", &[VIDEO, TONE_48K], "-c:v mpeg2video -g 12 -bf 2 -b:v 4M -c:a mp2 -b:a 192k"));
}

#[test]
fn mpeg2_interlaced_arrives_bit_exact() {
    arrives_bit_exact(&clip(
        "mpeg2i",
        &[INTERLACED, TONE_48K],
        "-c:v mpeg2video -flags +ildct+ilme -top 1 -g 12 -bf 2 -b:v 5M -c:a ac3",
    ));
}

#[test]
fn aac_at_44100_hz_arrives_bit_exact() {
    arrives_bit_exact(&clip("aac44", &[VIDEO, TONE_44K], &format!("{X264} -g 25 -c:a aac -b:a 96k")));
}

#[test]
fn aac_in_latm_arrives_bit_exact() {
    arrives_bit_exact(&clip(
        "latm",
        &[VIDEO, TONE_48K],
        &format!("{X264} -g 25 -c:a aac -b:a 128k -mpegts_flags latm"),
    ));
}

#[test]
fn mp2_and_ac3_as_two_audio_tracks_arrive_bit_exact() {
    let arguments =
        format!("{X264} -g 25 -c:a:0 mp2 -c:a:1 ac3 -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu");
    arrives_bit_exact(&clip("two-audio", &[VIDEO, TONE_48K, TONE_48K], &arguments));
}

#[test]
fn eac3_arrives_bit_exact() {
    arrives_bit_exact(&clip("eac3", &[VIDEO, TONE_48K], &format!("{X264} -g 25 -c:a eac3")));
}

#[test]
fn opus_arrives_bit_exact() {
    arrives_bit_exact(&clip("opus", &[VIDEO, TONE_48K], &format!("{X264} -g 25 -c:a libopus -b:a 96k")));
}

#[test]
fn video_in_pes_packets_with_a_length_arrives_bit_exact() {
    arrives_bit_exact(&clip(
        "pes-length",
        &[VIDEO, TONE_48K],
        &format!("{X264} -g 25 -c:a aac -omit_video_pes_length 0"),
    ));
}

#[test]
fn many_audio_frames_in_a_pes_packet_arrive_bit_exact() {
    arrives_bit_exact(&clip(
        "pes-payload",
        &[VIDEO, TONE_44K],
        &format!("{X264} -g 25 -c:a aac -pes_payload_size 16000"),
    ));
}

#[test]
fn one_audio_frame_in_each_pes_packet_arrives_bit_exact() {
    arrives_bit_exact(&clip("pes-single", &[VIDEO, TONE_48K], &format!("{X264} -g 25 -c:a aac -pes_payload_size 0")));
}

#[test]
fn audio_alone_arrives_bit_exact() {
    arrives_bit_exact(&clip("audio-only", &[TONE_48K], "-c:a aac -b:a 192k"));
}

#[test]
fn two_programmes_arrive_bit_exact() {
    let arguments = "-map 0 -map 1 -map 2 -map 3 -c:v libx264 -preset veryfast -b:v 1M -g 25 -c:a aac \
        -program program_num=7:st=0:st=1 -program program_num=9:st=2:st=3";
    arrives_bit_exact(&clip("programmes", &[VIDEO, TONE_48K, VIDEO, TONE_44K], arguments));
}

#[test]
fn a_stream_whose_time_stamps_wrap_arrives_bit_exact() {
    // 2^33 / 90000 s is 95443.7 s: the wrap comes two seconds into the clip.
    arrives_bit_exact(&clip(
        "wrap",
        &[VIDEO, TONE_48K],
        &format!("{X264} -g 25 -bf 2 -c:a aac -muxdelay 0 -output_ts_offset 95441.7"),
    ));
}

/// A field at 25 frames per second in ticks of 90 kHz.
const FIELD_TICKS: u64 = 1_800;

/// A clip of these pictures with a PES packet for each (`by_picture`) or for each frame.
fn field_coded_clip(name: &str, codec: Codec, pictures: &[Picture], by_picture: bool) -> Arc<Clip> {
    let mut mux = Mux::new(MuxConfiguration::new(vec![MuxTrack::new(0x100, codec)])).expect("one track");
    let mut bytes = Vec::new();
    let mut frame = 0;
    for group in pictures.chunk_by(|_, next| !by_picture && !next.is_first) {
        let data: Vec<u8> = group.iter().flat_map(|picture| picture.bytes.iter().copied()).collect();
        frame += u64::from(group[0].is_first);
        let dts = 900_000 + 2 * FIELD_TICKS * frame + if group[0].is_first { 0 } else { FIELD_TICKS };
        // A decoder of MPEG-2 shows a frame when the next is decoded, unless low_delay says otherwise.
        let pts = if codec == Codec::Mpeg2Video { dts + 2 * FIELD_TICKS } else { dts };
        let unit = AccessUnit { pts, dts, random_access: group[0].is_key, data: &data };
        mux.write(0, &unit, &mut bytes);
    }
    Arc::new(from_bytes(name, &bytes))
}

#[test]
fn h264_field_coded_arrives_bit_exact() {
    let pictures = field_coded::h264(120);
    assert!(pictures.iter().any(|picture| picture.structure == Structure::Frame), "frames stand between the fields");
    let clip = field_coded_clip("paff-frames", Codec::H264, &pictures, false);
    assert_eq!(clip.reference.packet_count(), pictures.len(), "each field is an access unit");
    arrives_bit_exact(&clip);
    arrives_bit_exact(&field_coded_clip("paff-fields", Codec::H264, &pictures, true));
}

#[test]
fn mpeg2_field_coded_arrives_bit_exact() {
    let pictures = field_coded::mpeg2(120);
    let clip = field_coded_clip("mpeg2-frames", Codec::Mpeg2Video, &pictures, false);
    assert_eq!(clip.reference.packet_count(), 120, "two field pictures are one access unit");
    arrives_bit_exact(&clip);
    arrives_bit_exact(&field_coded_clip("mpeg2-fields", Codec::Mpeg2Video, &pictures, true));
}

#[test]
fn packets_of_192_and_204_bytes_arrive_bit_exact() {
    let plain = clip("progressive", &[VIDEO, TONE_48K], &format!("{X264} -g 25 -bf 2 -c:a aac -b:a 128k"));
    let mut timed = Vec::new();
    let mut protected = Vec::new();
    for (index, packet) in plain.bytes.chunks(188).enumerate() {
        // A time code of 27 MHz at 8 Mbit/s before each packet (M2TS); Reed-Solomon parity behind it (DVB), which nobody checks.
        timed.extend(((index as u32 * 5_076) & 0x3fff_ffff).to_be_bytes());
        timed.extend(packet);
        protected.extend(packet);
        protected.extend([index as u8; 16]);
    }
    for (name, bytes) in [("m2ts", timed), ("parity", protected)] {
        let reference = plain.reference.clone();
        arrives_bit_exact(&Arc::new(Clip { name: name.to_owned(), bytes, reference }));
    }
}
