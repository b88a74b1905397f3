//! Bodies of the fuzz targets: rings, bells and descriptors that lie.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::bell::{self, BellWriter, TimelineAnchor};
use crate::broker::{self, Answer};
use crate::builder::{self, RingSpec};
use crate::descriptor::FrameDescriptor;
use crate::directory::encode_name;
use crate::layout::{self, TrackKind};
use crate::reader::{Next, Reader, Start};
use crate::stream_descriptor::StreamDescriptor;
use crate::stream_reader::{StreamEvent, StreamNext, StreamReader};

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
    let Some((ring, _)) = &*STREAM else { return };
    let mut ctl = ring.clone();
    let rest = change(changes, &mut [&mut ctl]);
    if let &[a, b, c] = rest {
        ctl.truncate(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
    }
    fuzz_reader(&ctl);
}

/// As [`fuzz_changed_ring`], with a bell whose words follow those of the ring, and read as a stream; bytes that are left over
/// cut the bell.
pub fn fuzz_changed_stream(changes: &[u8]) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let Some((ring, bell)) = &*STREAM else { return };
    let (mut ctl, mut bell) = (ring.clone(), bell.clone());
    if let &[a, b] = change(changes, &mut [&mut ctl, &mut bell]) {
        bell.truncate(usize::from(a) << 8 | usize::from(b));
    }
    seal(&mut ctl, &layout::MAGIC, layout::HEADER_CRC);
    seal(&mut bell, &bell::MAGIC, bell::HEAD_CRC);
    let directory = temporary(&COUNT.fetch_add(1, Relaxed).to_string());
    if std::fs::create_dir_all(directory.join("v")).is_ok() {
        read_stream(&directory, &ctl, &bell);
        let _ = std::fs::remove_dir_all(&directory);
    }
}

fn read_stream(directory: &Path, ctl: &[u8], bell: &[u8]) {
    let data = File::create(directory.join("v/data")).and_then(|file| file.set_len(DATA_CAPACITY));
    let written =
        [("v/ctl", ctl), ("bell", bell)].map(|(name, bytes)| std::fs::write(directory.join(name), bytes).is_ok());
    if data.is_err() || written != [true; 2] {
        return;
    }
    for start in [Start::Live, Start::Key, Start::Oldest, Start::OldestKey, Start::Seq(3)] {
        let Ok(mut reader) = StreamReader::open(directory, start, None) else {
            return;
        };
        reader.verify_checksums(true);
        for n in 0..64 {
            let event = if n % 4 == 3 {
                match reader.next_borrowed(Duration::ZERO) {
                    StreamNext::Frame { frame, .. } => {
                        let _ = (frame.to_vec(), frame.is_intact());
                        continue;
                    }
                    StreamNext::Event(event) => event,
                }
            } else {
                match reader.next(Duration::ZERO) {
                    StreamNext::Frame { .. } => continue,
                    StreamNext::Event(event) => event,
                }
            };
            if matches!(event, StreamEvent::Timeout | StreamEvent::Ended) {
                break;
            }
        }
        assert!(reader.bell().anchors().len() <= bell::ANCHOR_COUNT);
    }
}

/// Asks the broker of a root with one stream, `cam1`, whose only ring is `v`; the letters `UUID` stand for the stream's. Nothing is
/// handed out but files of that stream, for reading, and nothing at all to who may not read it.
pub fn fuzz_broker_request(request: &[u8]) {
    for may_read in [true, false] {
        let Some((answer, files)) = ask_broker(request, may_read) else { return };
        let words: &[&str] =
            if may_read { &["ok", "refused", "absent", "failed", "malformed"] } else { &["refused", "malformed"] };
        assert!(words.contains(&answer.outcome()), "{answer:?}");
        assert!(answer.text.len() <= broker::ANSWER_MAX);
        assert!(files.is_empty() || answer.outcome() == "ok");
        let allowed: [&[&str]; 3] = [&[], &["bell"], &["v/ctl", "v/data"]];
        assert!(allowed.contains(&&*files.iter().map(String::as_str).collect::<Vec<_>>()), "{files:?}");
    }
}

/// The answer, and what its files are called below the stream.
fn ask_broker(request: &[u8], may_read: bool) -> Option<(Answer, Vec<String>)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let (ctl, bell) = STREAM.as_ref()?;
    let root = temporary(&format!("broker-{}", COUNT.fetch_add(1, Relaxed)));
    let stream = root.join("cam1");
    std::fs::create_dir_all(stream.join("v")).ok()?;
    for (name, bytes) in [("v/ctl", &**ctl), ("v/data", &[]), ("bell", bell)] {
        std::fs::write(stream.join(name), bytes).ok()?;
    }
    let uuid = broker::hex(bell::stream_uuid_of(&File::open(stream.join("bell")).ok()?).ok()?);
    let request: Vec<u8> = match request.windows(4).position(|letters| letters == b"UUID") {
        Some(at) => [&request[..at], uuid.as_bytes(), &request[at + 4..]].concat(),
        None => request.to_vec(),
    };
    let answer = broker::answer(&root, &request, |name| {
        let encoded = encode_name(name);
        assert!(!encoded.starts_with('.') && !encoded.contains('/'), "{name:?} leads out of the root");
        may_read
    });
    let place_of = |file: &File| {
        let flags = rustix::fs::fcntl_getfl(file).unwrap_or(OFlags::RDWR);
        assert_eq!(flags & OFlags::ACCMODE, OFlags::RDONLY, "open for more than reading");
        let place = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
        place.strip_prefix(&stream).map_or_else(|_| place.display().to_string(), |name| name.display().to_string())
    };
    let files = answer.files.iter().map(place_of).collect();
    let _ = std::fs::remove_dir_all(&root);
    Some((answer, files))
}

/// Makes the changes, and returns what is left over.
fn change<'a>(changes: &'a [u8], files: &mut [&mut Vec<u8>]) -> &'a [u8] {
    let words: usize = files.iter().map(|file| file.len() / 8).sum();
    let (changes, rest) = changes.as_chunks::<10>();
    for change in changes {
        let mut at = usize::from(u16::from_le_bytes([change[0], change[1]])) % words * 8;
        for file in &mut *files {
            if at < file.len() {
                file[at..at + 8].copy_from_slice(&change[2..]);
                break;
            }
            at -= file.len();
        }
    }
    rest
}

/// Puts the magic number and a valid checksum on a header, as far as it is there.
fn seal(bytes: &mut [u8], magic: &[u8; 8], crc: usize) {
    if bytes.len() >= crc + 4 {
        bytes[..8].copy_from_slice(magic);
        let sum = crc32c::crc32c(&bytes[..crc]);
        bytes[crc..crc + 4].copy_from_slice(&sum.to_le_bytes());
    }
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("headworks-fuzz-{}-{name}", std::process::id()))
}

/// The control file of a ring of 1 MiB, and the bell of its stream; `None` where none can be made.
static STREAM: LazyLock<Option<(Vec<u8>, Vec<u8>)>> = LazyLock::new(|| {
    let directory = temporary("seed");
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
    let files = write_ring(&directory, &spec);
    std::fs::remove_dir_all(&directory).ok()?;
    files
});

fn write_ring(directory: &Path, spec: &RingSpec) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut bell = BellWriter::create(directory).ok()?;
    let mut writer = builder::create(&directory.join("v"), spec).ok()?;
    for seq in 0..40_u8 {
        if seq % 8 == 0 {
            writer.set_configuration(&[seq; 30]).ok()?;
        }
        writer.append(&[seq; 300]).ok()?;
        writer.commit(&FrameDescriptor { key: seq % 4 == 0, ..FrameDescriptor::default() }, &mut bell);
    }
    bell.set_anchor(TimelineAnchor { programme: 1, clock_rate: 90_000, ..TimelineAnchor::default() });
    Some((std::fs::read(directory.join("v/ctl")).ok()?, std::fs::read(directory.join("bell")).ok()?))
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
    seal(&mut bytes, &layout::MAGIC, layout::HEADER_CRC);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_every_kind_are_answered_with_what_they_ask_for() {
        for (request, expected) in
            [("bell cam1", &["bell"][..]), ("ring cam1 v UUID", &["v/ctl", "v/data"]), ("tracks cam1 UUID", &[])]
        {
            fuzz_broker_request(request.as_bytes());
            let (answer, files) = ask_broker(request.as_bytes(), true).unwrap();
            assert_eq!(
                (answer.outcome(), &files[..]),
                ("ok", &expected.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()[..])
            );
        }
    }
}
