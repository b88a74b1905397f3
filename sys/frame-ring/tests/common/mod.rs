//! What the tests of the ring share.
#![allow(dead_code, missing_docs, clippy::missing_panics_doc, clippy::must_use_candidate)]

use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::RingSpec;
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::layout::TrackKind;
use headworks_frame_ring::writer::Writer;

pub fn spec() -> RingSpec {
    RingSpec {
        kind: TrackKind::Video,
        codec: *b"avc1",
        clock_rate: 90_000,
        data_capacity: 1 << 18,
        slot_count: 64,
        frame_size_max: 64 << 10,
        numa_node: None,
        crc: true,
    }
}

pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// Bytes that differ with every frame and every place.
pub fn payload(seq: u64, length: usize) -> Vec<u8> {
    let mut x = seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

pub fn length(seq: u64, most: usize) -> usize {
    (seq.wrapping_mul(2_654_435_761) % (most as u64 + 1)) as usize
}

pub fn write(writer: &mut Writer, bell: &mut BellWriter, bytes: &[u8], key: bool) -> u64 {
    for piece in bytes.chunks(184) {
        writer.append(piece).unwrap();
    }
    writer.commit(&FrameDescriptor { key, pts: Some(writer.head_seq() as i64 * 3600), ..Default::default() }, bell)
}
