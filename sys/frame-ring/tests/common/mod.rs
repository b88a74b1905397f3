//! What the tests of the ring share.
#![allow(dead_code, missing_docs, clippy::missing_panics_doc, clippy::must_use_candidate)]

use std::path::Path;

use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, AttachError, RingSpec};
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::layout::{self, TrackKind};
use headworks_frame_ring::writer::Writer;

pub mod broker;
pub mod c_compiler;
pub mod other_process;
pub mod python;

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

/// Takes a ring up. A process that another test has just forked holds the lock of the writer before until it runs its program.
pub fn take_up(ring: &Path) -> Writer {
    for _ in 0..500 {
        match builder::attach(ring, &spec()) {
            Ok(writer) => return writer,
            Err(AttachError::Locked) => std::thread::sleep(std::time::Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{}: somebody holds its lock", ring.display());
}

/// Writes `frames` frames of up to 3000 bytes; after half of them another writer takes the ring over from one that was amid a
/// frame. `wait_for` is told a frame's number each time a reader must have come so far: no further ahead than the ring is long.
pub fn write_across_a_restart(
    ring: &Path,
    mut writer: Writer,
    bell: &mut BellWriter,
    frames: u64,
    mut wait_for: impl FnMut(u64),
) -> Writer {
    for seq in 0..frames {
        assert_eq!(write(&mut writer, bell, &payload(seq, length(seq, 3000)), seq % 25 == 0), seq);
        if seq % 3 == 0 {
            writer.wake_target().wake();
        }
        if seq % 20 == 19 {
            wait_for(seq);
        }
        if seq == frames / 2 {
            writer.append(&[0xEE; 999]).unwrap();
            drop(writer);
            writer = take_up(ring);
        }
    }
    writer
}

/// The golden vectors as a ring: one frame, `payload` with side data `side`, and configuration `sps`.
pub fn golden_ring() -> tempfile::TempDir {
    let bytes = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter_map(|b| char::from(b).to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    };
    let mut ctl = vec![0; layout::SLOT_OFFSET + 64 * layout::SLOT_SIZE];
    let mut put = |at: usize, bytes: &[u8]| ctl[at..at + bytes.len()].copy_from_slice(bytes);
    let header = bytes(include_str!("../golden/header.hex"));
    put(0, &header[..0x80]);
    put(layout::HEADER_CRC, &header[0x80..]);
    put(0x1000, &bytes(include_str!("../golden/hot.hex")));
    put(layout::CONFIG_OFFSET + layout::CONFIG_SIZE, &bytes(include_str!("../golden/configuration.hex")));
    put(layout::SLOT_OFFSET + layout::SLOT_SIZE, &bytes(include_str!("../golden/slot.hex")));
    let dir = directory();
    std::fs::write(dir.path().join("ctl"), ctl).unwrap();
    let mut data = vec![0; 1 << 18];
    data[0x40..0x4C].copy_from_slice(b"payload\0side");
    std::fs::write(dir.path().join("data"), data).unwrap();
    dir
}
