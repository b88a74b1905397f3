//! A ring that lies: errors, never a panic, never a loop without end.
mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use common::{directory, payload, spec, write};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, AttachError};
use headworks_frame_ring::fuzzing::fuzz_reader;
use headworks_frame_ring::layout::{self, Header};
use headworks_frame_ring::reader::{Next, OpenError, ReadError, Reader, Start};
use proptest::prelude::*;

const ZERO: Duration = Duration::ZERO;

struct Ring {
    dir: tempfile::TempDir,
}

impl Ring {
    fn with_frames(frames: u64) -> Self {
        let dir = directory();
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
        writer.set_configuration(b"configuration").unwrap();
        for seq in 0..frames {
            write(&mut writer, &mut bell, &payload(seq, 1000), seq % 4 == 0);
        }
        Self { dir }
    }

    fn overwrite(&self, at: usize, bytes: &[u8]) {
        let ctl = OpenOptions::new().write(true).open(self.dir.path().join("v/ctl")).unwrap();
        ctl.write_all_at(bytes, at as u64).unwrap();
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.dir.path().join("v"), Start::Seq(0)).unwrap()
    }
}

/// Bytes of a slot's word.
fn slot(seq: u64, word: usize) -> usize {
    layout::SLOT_OFFSET + seq as usize * layout::SLOT_SIZE + word * 8
}

#[test]
fn every_impossible_field_is_named_and_the_next_frame_is_read() {
    let cases: [(usize, Vec<u8>, ReadError); 6] = [
        (slot(0, 2), u32::MAX.to_le_bytes().to_vec(), ReadError::Bounds { seq: 0, what: "extent" }),
        (slot(0, 2) + 4, 1001u32.to_le_bytes().to_vec(), ReadError::Bounds { seq: 0, what: "length" }),
        (slot(0, 1), (1u64 << 40).to_le_bytes().to_vec(), ReadError::Bounds { seq: 0, what: "position" }),
        (slot(0, 1), u64::MAX.to_le_bytes().to_vec(), ReadError::Bounds { seq: 0, what: "position" }),
        (slot(0, 6) + 120, u32::MAX.to_le_bytes().to_vec(), ReadError::Bounds { seq: 0, what: "side data" }),
        (slot(0, 5), u64::MAX.to_le_bytes().to_vec(), ReadError::Descriptor(0)),
    ];
    for (at, bytes, error) in cases {
        let ring = Ring::with_frames(3);
        ring.overwrite(at, &bytes);
        let mut reader = ring.reader();
        assert_eq!(reader.next(ZERO), Err(error));
        let Ok(Next::Frame(frame)) = reader.next(ZERO) else { panic!("no frame after {error}") };
        assert_eq!(frame.payload, payload(1, 1000));
    }
}

#[test]
fn a_head_that_went_back_is_an_error() {
    let ring = Ring::with_frames(3);
    let mut reader = ring.reader();
    assert!(matches!(reader.next(ZERO), Ok(Next::Frame(_))));
    ring.overwrite(layout::HEAD_SEQ, &0u64.to_le_bytes());
    assert_eq!(reader.next(ZERO), Err(ReadError::Head { expected: 1, found: 0 }));
}

#[test]
fn a_flipped_payload_bit_is_found_when_asked_for() {
    let ring = Ring::with_frames(2);
    let data = OpenOptions::new().write(true).open(ring.dir.path().join("v/data")).unwrap();
    data.write_all_at(&[!payload(0, 1000)[500]], 500).unwrap();
    let mut reader = ring.reader();
    reader.verify_checksums(true);
    assert_eq!(reader.next(ZERO), Err(ReadError::Checksum(0)));
    assert!(matches!(reader.next(ZERO), Ok(Next::Frame(_))));
}

#[test]
fn a_link_or_a_short_file_is_no_ring() {
    let ring = Ring::with_frames(1);
    let path = ring.dir.path().join("v");
    std::fs::rename(path.join("ctl"), path.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", path.join("ctl")).unwrap();
    assert!(matches!(Reader::open(&path, Start::Live), Err(OpenError::Io(_))));
    std::fs::remove_file(path.join("ctl")).unwrap();
    std::fs::rename(path.join("elsewhere"), path.join("ctl")).unwrap();
    OpenOptions::new().write(true).open(path.join("data")).unwrap().set_len(4096).unwrap();
    let error = layout::LayoutError::FileSize("data");
    assert!(matches!(Reader::open(&path, Start::Live), Err(OpenError::Layout(e)) if e == error));
    assert!(matches!(builder::attach(&path, &spec()), Err(AttachError::Layout(e)) if e == error));
}

#[test]
fn a_ring_of_another_boot_or_with_wild_counters_is_not_taken_up() {
    let ring = Ring::with_frames(3);
    ring.overwrite(layout::HEAD_POS, &u64::MAX.to_le_bytes());
    let attach = || builder::attach(&ring.dir.path().join("v"), &spec());
    assert!(matches!(attach(), Err(AttachError::Damaged(_))));
    ring.overwrite(layout::HEAD_SEQ, &u64::MAX.to_le_bytes());
    assert!(matches!(attach(), Err(AttachError::Damaged(_))));
    let page = std::fs::read(ring.dir.path().join("v/ctl")).unwrap();
    let header = Header::judge(&page[..layout::HEADER_SIZE], 1 << 40, 1 << 40).unwrap();
    ring.overwrite(0, &Header { minor: layout::MINOR + 1, ..header.clone() }.encode()[..]);
    assert!(matches!(attach(), Err(AttachError::Shape("minor version"))));
    ring.overwrite(0, &Header { boot_id: [9; 16], ..header }.encode()[..]);
    assert!(matches!(attach(), Err(AttachError::OtherBoot)));
}

#[test]
fn a_reader_cannot_open_for_writing_what_it_maps() {
    use std::os::unix::fs::MetadataExt;
    let ring = Ring::with_frames(1);
    let mode = |name: &str| std::fs::metadata(ring.dir.path().join("v").join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("ctl"), mode("data"), mode("writer.lock")), (0o640, 0o640, 0o600));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_corruption_of_ctl_is_survived(
        frames in 0u64..80,
        changes in prop::collection::vec(
            (prop_oneof![
                // Header, hot words, configuration, slots: everything is hit about as often.
                0usize..0x80, 0x1000usize..0x1120, 0x2000usize..0x2040, layout::SLOT_OFFSET..layout::SLOT_OFFSET + 64 * 256,
            ],
            prop_oneof![any::<u64>(), 0u64..100, Just(u64::MAX), (0u32..64).prop_map(|n| 1 << n)]), 1..12),
        cut in prop::option::of(0usize..40_000),
    ) {
        let ring = Ring::with_frames(frames);
        let mut ctl = std::fs::read(ring.dir.path().join("v/ctl")).unwrap();
        for (at, value) in changes {
            let at = at & !7;
            ctl[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        ctl.truncate(cut.unwrap_or(usize::MAX));
        fuzz_reader(&ctl);
    }
}
