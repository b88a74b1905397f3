//! The clips that every reader must give bit-exact, over whatever transport and in whatever language: one table, and the way
//! through it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use headworks::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack};
use headworks::media::Codec;

use crate::clips::{Clip, INTERLACED, TONE_44K, TONE_48K, VIDEO, clip, from_bytes};
use crate::field_coded::{self, Picture, Structure};

/// Clips under way at once. Sending one takes a second, and so does waiting for its end.
const AT_ONCE: usize = 6;

/// How a clip of this name is made.
type Make = fn(&str) -> Arc<Clip>;

const CLIPS: &[(&str, Make)] = &[
    ("progressive", |name| h264(name, &[VIDEO, TONE_48K], "-g 25 -bf 2 -c:a aac -b:a 128k")),
    ("mbaff", |name| h264(name, &[INTERLACED, TONE_48K], "-g 12 -x264opts interlaced=1:tff=1 -c:a mp2")),
    ("open-gop", |name| h264(name, &[VIDEO], "-g 15 -bf 3 -x264opts open-gop=1:scenecut=0")),
    ("intra-refresh", |name| h264(name, &[VIDEO], "-g 25 -x264opts intra-refresh=1")),
    // Without B pictures.
    ("slices", |name| h264(name, &[VIDEO], "-g 50 -tune zerolatency -x264opts slices=8")),
    ("filler", |name| h264(name, &[VIDEO], "-g 25 -x264opts nal-hrd=cbr:filler=1 -b:v 3M -maxrate 3M -bufsize 1M")),
    ("paff-frames", |name| field_coded_h264(name, false)),
    ("paff-fields", |name| field_coded_h264(name, true)),
    ("hevc8", |name| hevc(name, &[VIDEO, TONE_48K], "keyint=25", "-c:a ac3")),
    ("hevc10", |name| hevc(name, &[VIDEO], "keyint=20:open-gop=1:bframes=3", "-pix_fmt yuv420p10le")),
    ("mpeg2", |name| mpeg2(name, &[VIDEO, TONE_48K], "-bf 2 -b:v 4M -c:a mp2 -b:a 192k")),
    ("mpeg2i", |name| mpeg2(name, &[INTERLACED, TONE_48K], "-flags +ildct+ilme -top 1 -bf 2 -b:v 5M -c:a ac3")),
    ("mpeg2-frames", |name| field_coded_mpeg2(name, false)),
    ("mpeg2-fields", |name| field_coded_mpeg2(name, true)),
    ("aac44", |name| h264(name, &[VIDEO, TONE_44K], "-g 25 -c:a aac -b:a 96k")),
    ("latm", |name| h264(name, &[VIDEO, TONE_48K], "-g 25 -c:a aac -b:a 128k -mpegts_flags latm")),
    ("two-audio", |name| {
        let languages = "-metadata:s:a:0 language=eng -metadata:s:a:1 language=deu";
        h264(name, &[VIDEO, TONE_48K, TONE_48K], &format!("-g 25 -c:a:0 mp2 -c:a:1 ac3 {languages}"))
    }),
    ("eac3", |name| h264(name, &[VIDEO, TONE_48K], "-g 25 -c:a eac3")),
    ("opus", |name| h264(name, &[VIDEO, TONE_48K], "-g 25 -c:a libopus -b:a 96k")),
    ("audio-only", |name| clip(name, &[TONE_48K], "-c:a aac -b:a 192k")),
    ("pes-length", |name| h264(name, &[VIDEO, TONE_48K], "-g 25 -c:a aac -omit_video_pes_length 0")),
    // Many audio frames in a PES packet, and one in each.
    ("pes-payload", |name| h264(name, &[VIDEO, TONE_44K], "-g 25 -c:a aac -pes_payload_size 16000")),
    ("pes-single", |name| h264(name, &[VIDEO, TONE_48K], "-g 25 -c:a aac -pes_payload_size 0")),
    ("programmes", |name| {
        let programmes = "-program program_num=7:st=0:st=1 -program program_num=9:st=2:st=3";
        let arguments = format!("-map 0 -map 1 -map 2 -map 3 -b:v 1M -g 25 -c:a aac {programmes}");
        h264(name, &[VIDEO, TONE_48K, VIDEO, TONE_44K], &arguments)
    }),
    // 2^33 / 90000 s is 95443.7 s: the wrap comes two seconds into the clip.
    ("wrap", |name| h264(name, &[VIDEO, TONE_48K], "-g 25 -bf 2 -c:a aac -muxdelay 0 -output_ts_offset 95441.7")),
    ("m2ts", |name| in_packets_of_192(name, named("progressive"))),
    ("parity", |name| in_packets_of_204(name, named("progressive"))),
];

/// A clip of the table, made when it is first asked for.
pub fn named(name: &str) -> &'static Clip {
    static MADE: [OnceLock<Arc<Clip>>; CLIPS.len()] = [const { OnceLock::new() }; CLIPS.len()];
    let index = CLIPS.iter().position(|(known, _)| *known == name).expect("a clip of the table");
    MADE[index].get_or_init(|| CLIPS[index].1(name))
}

/// Judges each clip of the table, several at once; panics with the names of those that failed, and why.
pub fn every_clip(judge: impl Fn(&Clip) + Sync) {
    // Nothing is coded while something is sent.
    let clips: Vec<&Clip> = CLIPS.iter().map(|(name, _)| named(name)).collect();
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                // Relaxed: it hands out numbers and nothing else.
                while let Some(clip) = clips.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| judge(clip))) {
                        faults.lock().unwrap().push(format!("{}: {}", clip.name, said(&*panic)));
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} of {} clips failed\n{}", faults.len(), clips.len(), faults.join("\n"));
}

/// What a panic says.
pub fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

fn h264(name: &str, inputs: &[&str], arguments: &str) -> Arc<Clip> {
    clip(name, inputs, &format!("-c:v libx264 -preset veryfast -b:v 2M {arguments}"))
}

fn hevc(name: &str, inputs: &[&str], parameters: &str, arguments: &str) -> Arc<Clip> {
    let video = format!("-c:v libx265 -preset ultrafast -x265-params log-level=error:{parameters} -b:v 2M");
    clip(name, inputs, &format!("{video} {arguments}"))
}

fn mpeg2(name: &str, inputs: &[&str], arguments: &str) -> Arc<Clip> {
    clip(name, inputs, &format!("-c:v mpeg2video -g 12 {arguments}"))
}

fn field_coded_h264(name: &str, by_picture: bool) -> Arc<Clip> {
    let pictures = field_coded::h264(120);
    assert!(pictures.iter().any(|picture| picture.structure == Structure::Frame), "frames stand between the fields");
    let clip = field_coded_clip(name, Codec::H264, &pictures, by_picture);
    assert_eq!(clip.reference.packet_count(), pictures.len(), "each field is an access unit");
    clip
}

fn field_coded_mpeg2(name: &str, by_picture: bool) -> Arc<Clip> {
    let clip = field_coded_clip(name, Codec::Mpeg2Video, &field_coded::mpeg2(120), by_picture);
    assert_eq!(clip.reference.packet_count(), 120, "two field pictures are one access unit");
    clip
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

/// The same clip with a time code of 27 MHz at 8 Mbit/s before each packet (M2TS).
fn in_packets_of_192(name: &str, plain: &Clip) -> Arc<Clip> {
    repacked(name, plain, |index, packet| [&((index as u32 * 5_076) & 0x3fff_ffff).to_be_bytes(), packet].concat())
}

/// The same clip with Reed-Solomon parity behind each packet (DVB), which nobody checks.
fn in_packets_of_204(name: &str, plain: &Clip) -> Arc<Clip> {
    repacked(name, plain, |index, packet| [packet, &[index as u8; 16]].concat())
}

fn repacked(name: &str, plain: &Clip, repack: fn(usize, &[u8]) -> Vec<u8>) -> Arc<Clip> {
    let packets = plain.bytes.chunks(188).enumerate();
    let bytes = packets.flat_map(|(index, packet)| repack(index, packet)).collect();
    Arc::new(Clip { name: name.to_owned(), bytes, reference: plain.reference.clone() })
}
