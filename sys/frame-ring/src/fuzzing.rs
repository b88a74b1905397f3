//! Bodies of the fuzz targets: rings and descriptors that lie.

use std::fs::File;
use std::sync::LazyLock;
use std::time::Duration;

use crate::bell::BellWriter;
use crate::builder::{self, RingSpec};
use crate::descriptor::FrameDescriptor;
use crate::layout::{self, TrackKind};
use crate::reader::{Next, Reader, Start};
use crate::stream_descriptor::StreamDescriptor;

/// Reads whatever `bytes` say, and again what was made of it.
pub fn fuzz_stream_descriptor(bytes: &[u8]) {
    if let Ok(descriptor) = StreamDescriptor::decode(bytes) {
        let again = StreamDescriptor::decode(&descriptor.encode());
        assert!(again.is_ok_and(|again| again == descriptor), "written and read, it is another");
    }
}

/// Puts changes into the control file of a small ring with frames and configurations in it, then reads it. A change is the
/// index of a word (16 bits) and its new value (64 bits), both little-endian; bytes that are left over cut the file.
pub fn fuzz_changed_ring(changes: &[u8]) {
    let Some(ring) = &*RING else { return };
    let mut ctl = ring.clone();
    let words = ctl.len() / 8;
    let (changes, rest) = changes.as_chunks::<10>();
    for change in changes {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % words * 8;
        ctl[at..at + 8].copy_from_slice(&change[2..]);
    }
    if let &[a, b, c] = rest {
        ctl.truncate(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
    }
    fuzz_reader(&ctl);
}

/// The control file of a ring of 1 MiB; `None` where none can be made.
static RING: LazyLock<Option<Vec<u8>>> = LazyLock::new(|| {
    let directory = std::env::temp_dir().join(format!("headworks-fuzz-{}", std::process::id()));
    std::fs::create_dir(&directory).ok()?;
    let spec = RingSpec {
        kind: TrackKind::Video,
        codec: *b"avc1",
        clock_rate: 90_000,
        data_capacity: DATA_CAPACITY,
        slot_count: 16,
        frame_size_max: 64 << 10,
        numa_node: None,
        crc: true,
    };
    let ctl = write_ring(&directory, &spec);
    std::fs::remove_dir_all(&directory).ok()?;
    ctl
});

fn write_ring(directory: &std::path::Path, spec: &RingSpec) -> Option<Vec<u8>> {
    let mut bell = BellWriter::create(directory).ok()?;
    let mut writer = builder::create(&directory.join("v"), spec).ok()?;
    for seq in 0..40_u8 {
        if seq % 8 == 0 {
            writer.set_configuration(&[seq; 30]).ok()?;
        }
        writer.append(&[seq; 300]).ok()?;
        writer.commit(&FrameDescriptor { key: seq % 4 == 0, ..FrameDescriptor::default() }, &mut bell);
    }
    std::fs::read(directory.join("v/ctl")).ok()
}

const DATA_CAPACITY: u64 = 1 << 20;

/// Reads whatever `ctl` says, with a valid checksum put on it. Must return, whatever the bytes.
pub fn fuzz_reader(ctl: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = |name: &str| rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).map(File::from);
    let (Ok(ctl_file), Ok(data_file)) = (file("ctl"), file("data")) else {
        return;
    };
    let mut bytes = ctl.to_vec();
    if bytes.len() >= layout::HEADER_SIZE {
        bytes[..8].copy_from_slice(&layout::MAGIC);
        let crc = crc32c::crc32c(&bytes[..layout::HEADER_CRC]);
        bytes[layout::HEADER_CRC..layout::HEADER_SIZE].copy_from_slice(&crc.to_le_bytes());
    }
    if ctl_file.write_all_at(&bytes, 0).is_err() || data_file.set_len(DATA_CAPACITY).is_err() {
        return;
    }
    for start in [Start::Live, Start::Key, Start::Oldest, Start::OldestKey, Start::Seq(3)] {
        let Ok(mut reader) = Reader::from_files(&ctl_file, &data_file, start) else {
            return;
        };
        reader.verify_checksums(true);
        for _ in 0..64 {
            match reader.next(Duration::ZERO) {
                Ok(Next::Frame(frame)) => assert!(frame.payload.len() as u64 <= DATA_CAPACITY),
                Ok(Next::Timeout | Next::Ended | Next::Superseded) => break,
                Ok(_) | Err(_) => {}
            }
        }
        for generation in 0..10 {
            let _ = reader.configuration(generation);
        }
        let _ = reader.configuration(reader.configuration_generation());
        reader.seek_stream_seq(5);
        if let Ok(Next::Frame(frame)) = reader.next_borrowed(Duration::ZERO) {
            frame.copy_payload(0, &mut vec![0; frame.payload_len()]);
            let _ = (frame.is_intact(), frame.margin());
        }
    }
}
