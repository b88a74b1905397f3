//! The bell of a stream: what a reader of all its tracks waits on, and what survives a restart beside the rings.
//!
//! One page. The head is judged like a ring's header; then one line each for stream_head, futex and heartbeat, and sixteen
//! timeline anchors, one per programme, each a seqlock.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use thiserror::Error;

use crate::builder::{is_shortage, lock_file, open_directory, open_shared};
use crate::copy;
use crate::crash::{Step, point};
use crate::layout::{BUSY, LayoutError, MAJOR, MINOR, State};
use crate::memory::{self, SharedWords};
use crate::wake::{self, WakeTarget};

/// First eight bytes of `bell`.
pub const MAGIC: [u8; 8] = *b"HWBELL\0\x01";
/// Bytes of the file.
pub const SIZE: usize = 0x1000;
/// Its name until all of it is there.
const UNFINISHED: &str = "bell.new";
/// Timeline anchors kept, one per programme.
pub const ANCHOR_COUNT: usize = 16;

/// Offset of the checksum of the first line.
pub(crate) const HEAD_CRC: usize = 0x3C;
const STREAM_HEAD: usize = 0x40;
const FUTEX: usize = 0x80;
const STATE: usize = 0x84;
const HEARTBEAT_COUNT: usize = 0xC0;
const HEARTBEAT_MONOTONIC_NS: usize = 0xC8;
const TRACKS_GENERATION: usize = 0xD0;
const EPOCH: usize = 0xD4;
/// An anchor that was not renewed for so long belongs to a programme that is gone, and gives its place to another's, ns.
const ANCHOR_STALE_NS: u64 = 10_000_000_000;
const ANCHORS: usize = 0x100;
const ANCHOR_SIZE: usize = 64;

/// Where a programme's continuous timeline stands: what a restarted writer goes on from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimelineAnchor {
    /// program_number, 0 without a transport stream.
    pub programme: u32,
    /// Segment the anchor belongs to.
    pub segment: u32,
    /// Unwrapped time of the programme's clock at the anchor, in `clock_rate` ticks.
    pub pts: i64,
    /// The same moment on the continuous timeline, ns.
    pub timeline_ns: i64,
    /// The same moment on CLOCK_MONOTONIC, ns.
    pub monotonic_ns: u64,
    /// The same moment in UTC, ns since 1970; 0 unknown.
    pub utc_ns: i64,
    /// Ticks per second of `pts`.
    pub clock_rate: u32,
}

/// Why a bell cannot be made, taken up or read.
#[derive(Debug, Error)]
pub enum BellError {
    /// The operating system said no.
    #[error("bell: {0}")]
    Io(#[from] io::Error),
    /// Not a bell, or of another version.
    #[error("bell: {0}")]
    Layout(#[from] LayoutError),
    /// Another process writes this stream.
    #[error("another process writes this stream")]
    Locked,
    /// Left by an earlier boot.
    #[error("left by an earlier boot")]
    OtherBoot,
    /// Left by a writer of a later version: what that one adds, this one would not keep up.
    #[error("bell of a later minor version: {0}")]
    Minor(u16),
    /// Its hot words cannot be right.
    #[error("the bell contradicts itself: {0}")]
    Damaged(&'static str),
}

impl BellError {
    /// Whether it says nothing of the bell, which is as good as it was: there were no descriptors or no memory left.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Io(error) if is_shortage(error))
    }
}

/// The stream's side of the bell; one per stream, on the shard that owns it.
#[derive(Debug)]
pub struct BellWriter {
    words: Arc<SharedWords>,
    stream_head: u64,
    futex: u32,
    state: u32,
    heartbeat_count: u64,
    tracks_generation: u32,
    epoch: u32,
    anchors: [TimelineAnchor; ANCHOR_COUNT],
    /// By this writer.
    anchors_set: u32,
    _lock: File,
}

impl BellWriter {
    /// Makes the bell in a stream's directory, with a `writer.lock` of its own.
    ///
    /// # Errors
    /// [`BellError`]; the files must not exist.
    pub fn create(stream_directory: &Path) -> Result<Self, BellError> {
        let lock = lock_file(stream_directory, true)?.ok_or(BellError::Locked)?;
        // Whoever died here left it, and nobody else is here while the lock is held.
        let unfinished = stream_directory.join(UNFINISHED);
        let _ = std::fs::remove_file(&unfinished);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(&unfinished)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o640))?;
        memory::allocate(&file, SIZE as u64)?;
        let words = SharedWords::writable(&file, SIZE)?;
        let head = encode_head(memory::boot_id()?, memory::random_uuid()?);
        words.write_bytes(0, &head);
        words.store_half(EPOCH, 1, Release);
        // Readers find it whole or not at all.
        renameat_with(CWD, &unfinished, CWD, stream_directory.join("bell"), RenameFlags::NOREPLACE)
            .map_err(io::Error::from)?;
        Ok(Self {
            words: Arc::new(words),
            stream_head: 0,
            futex: 0,
            state: State::Live as u32,
            heartbeat_count: 0,
            tracks_generation: 0,
            epoch: 1,
            anchors: [TimelineAnchor::default(); ANCHOR_COUNT],
            anchors_set: 0,
            _lock: lock,
        })
    }

    /// Takes up the bell that an earlier process of this boot left. Follow it with [`BellWriter::advance_to`] for
    /// every ring of the stream.
    ///
    /// # Errors
    /// [`BellError`]; make a new stream directory then.
    pub fn attach(stream_directory: &Path) -> Result<Self, BellError> {
        let lock = lock_file(stream_directory, false)?.ok_or(BellError::Locked)?;
        let file = open_shared(&open_directory(stream_directory)?, "bell", true)?;
        let head = judge_head(&file)?;
        if head.boot_id != memory::boot_id()? {
            return Err(BellError::OtherBoot);
        }
        if head.minor > MINOR {
            return Err(BellError::Minor(head.minor));
        }
        let words = SharedWords::writable(&file, SIZE)?;
        // Half the range is enough for ever and leaves room for every sum.
        if [STREAM_HEAD, HEARTBEAT_COUNT].iter().any(|&word| words.load(word) > u64::MAX / 2) {
            return Err(BellError::Damaged("counters out of range"));
        }
        let mut anchors = [TimelineAnchor::default(); ANCHOR_COUNT];
        for (i, anchor) in anchors.iter_mut().enumerate() {
            *anchor = read_anchor(&words, i).unwrap_or_default();
        }
        let mut bell = Self {
            stream_head: words.load(STREAM_HEAD),
            futex: words.load_half(FUTEX),
            state: words.load_half(STATE),
            heartbeat_count: words.load(HEARTBEAT_COUNT),
            tracks_generation: words.load_half(TRACKS_GENERATION),
            epoch: words.load_half(EPOCH).wrapping_add(1),
            words: Arc::new(words),
            anchors,
            anchors_set: 0,
            _lock: lock,
        };
        bell.words.store_half(EPOCH, bell.epoch, Relaxed);
        point(Step::BellEpoch);
        bell.set_state(State::Live);
        Ok(bell)
    }

    /// The number the next commit of any track takes: at least `at_least`, so that no number is given twice after a
    /// crash between a ring's head and the bell.
    #[inline]
    pub(crate) fn next_stream_seq(&mut self, at_least: u64) -> u64 {
        self.stream_head.max(at_least)
    }

    /// Asks the processor for what says where the bell's words are.
    #[inline]
    pub fn prefetch(&self) {
        copy::prefetch_for_read(&*self.words);
    }

    /// Asks the processor for the words that a commit changes.
    #[inline]
    pub(crate) fn prefetch_for_write(&self) {
        for line in [STREAM_HEAD, FUTEX] {
            self.words.prefetch_for_write(line, 1);
        }
    }

    /// 3 (end) and 4 of a commit, for the whole stream.
    #[inline]
    pub(crate) fn publish(&mut self, stream_head: u64) {
        self.stream_head = stream_head;
        // Pairs with the load in `BellReader::stream_head`: every frame below it is visible in its ring.
        self.words.store(STREAM_HEAD, stream_head, Release);
        point(Step::BellStreamHead);
        self.bump();
        point(Step::BellFutex);
    }

    /// After a restart: no number below `stream_seq_after` will be given again. See `Writer::stream_seq_after`.
    pub fn advance_to(&mut self, stream_seq_after: u64) {
        if stream_seq_after > self.stream_head {
            self.publish(stream_seq_after);
        }
    }

    /// Pairs with the look at the word in [`BellReader::futex`], which comes before the look at stream_head.
    #[inline]
    fn bump(&mut self) {
        self.futex = self.futex.wrapping_add(1);
        self.words.store_half(FUTEX, self.futex, Release);
    }

    /// A ring was added, replaced or ended, or `stream.capnp` replaced. Call it after the ring has its final name and
    /// before its first commit: readers look at this word after stream_head.
    pub fn tracks_changed(&mut self) {
        self.tracks_generation = self.tracks_generation.wrapping_add(1);
        self.words.store_half(TRACKS_GENERATION, self.tracks_generation, Release);
        self.bump();
    }

    /// Says what readers of the stream may expect.
    pub fn set_state(&mut self, state: State) {
        if self.state == state as u32 {
            return;
        }
        self.state = state as u32;
        self.words.store_half(STATE, state as u32, Release);
        self.bump();
    }

    /// Says that the writer lives; call it every 100 ms. `now_ns` is CLOCK_MONOTONIC.
    pub fn heartbeat(&mut self, now_ns: u64) {
        self.heartbeat_count += 1;
        self.words.store(HEARTBEAT_MONOTONIC_NS, now_ns, Relaxed);
        self.words.store(HEARTBEAT_COUNT, self.heartbeat_count, Release);
    }

    /// Records where a programme's timeline stands; do so every second or so. When all places are taken, the programme whose anchor
    /// was renewed longest ago makes way if that is 10 s. Returns false when none does.
    pub fn set_anchor(&mut self, anchor: TimelineAnchor) -> bool {
        let taken = |a: &TimelineAnchor| a.clock_rate != 0;
        let own = self.anchors.iter().position(|a| taken(a) && a.programme == anchor.programme);
        let stale = || {
            let oldest = (0..ANCHOR_COUNT).min_by_key(|&i| self.anchors[i].monotonic_ns);
            oldest.filter(|&i| anchor.monotonic_ns.saturating_sub(self.anchors[i].monotonic_ns) >= ANCHOR_STALE_NS)
        };
        let Some(i) = own.or_else(|| self.anchors.iter().position(|a| !taken(a))).or_else(stale) else {
            return false;
        };
        self.anchors[i] = anchor;
        let at = ANCHORS + i * ANCHOR_SIZE;
        self.words.store(at, BUSY, Relaxed);
        // Pairs with the acquire fence in `read_anchor`.
        fence(Release);
        point(Step::AnchorBusy);
        self.words.store(at + 8, u64::from(anchor.programme) | u64::from(anchor.segment) << 32, Relaxed);
        self.words.store(at + 16, anchor.pts as u64, Relaxed);
        self.words.store(at + 24, anchor.timeline_ns as u64, Relaxed);
        self.words.store(at + 32, anchor.monotonic_ns, Relaxed);
        self.words.store(at + 40, anchor.utc_ns as u64, Relaxed);
        self.words.store(at + 48, u64::from(anchor.clock_rate), Relaxed);
        point(Step::AnchorFields);
        // Never the same number twice: a reader that slept through a whole change must notice.
        self.anchors_set = self.anchors_set.wrapping_add(1);
        self.words.store(at, u64::from(self.epoch) << 32 | u64::from(self.anchors_set), Release);
        true
    }

    /// The anchors known, those of the writer before a restart included.
    pub fn anchors(&self) -> impl Iterator<Item = &TimelineAnchor> {
        self.anchors.iter().filter(|a| a.clock_rate != 0)
    }

    /// The number the next frame of the stream will have.
    #[must_use]
    pub fn stream_head(&self) -> u64 {
        self.stream_head
    }

    /// + 1 with every writer; 1 for the first.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Handle for the waker thread.
    #[must_use]
    pub fn wake_target(&self) -> WakeTarget {
        WakeTarget::new(Arc::clone(&self.words), FUTEX)
    }
}

/// A reader's side of the bell.
#[derive(Debug)]
pub struct BellReader {
    words: Arc<SharedWords>,
    stream_uuid: [u8; 16],
}

impl BellReader {
    /// Opens the bell of a stream.
    ///
    /// # Errors
    /// [`BellError`].
    pub fn open(stream_directory: &Path) -> Result<Self, BellError> {
        Self::from_file(&open_shared(&open_directory(stream_directory)?, "bell", false)?)
    }

    /// Opens a bell by its file, e.g. a descriptor received from a broker.
    ///
    /// # Errors
    /// [`BellError`].
    pub fn from_file(file: &File) -> Result<Self, BellError> {
        let head = judge_head(file)?;
        Ok(Self { words: Arc::new(SharedWords::read_only(file, SIZE)?), stream_uuid: head.stream_uuid })
    }

    /// Names this bell for ever: another one in its place has another.
    #[must_use]
    pub fn stream_uuid(&self) -> [u8; 16] {
        self.stream_uuid
    }

    /// The word that [`BellReader::wait`] sleeps on.
    pub(crate) fn wake_target(&self) -> WakeTarget {
        WakeTarget::new(Arc::clone(&self.words), FUTEX)
    }

    /// Every frame with a lower `stream_seq` is visible in its ring.
    #[must_use]
    pub fn stream_head(&self) -> u64 {
        self.words.load_acquire(STREAM_HEAD)
    }

    /// The word to look at before anything else, and to sleep on with [`BellReader::wait`].
    #[must_use]
    pub fn futex(&self) -> u32 {
        self.words.load_half_acquire(FUTEX)
    }

    /// Sleeps until the futex is no longer `seen`, at most 100 ms.
    pub fn wait(&self, seen: u32, timeout: Duration) {
        wake::wait(&self.words, FUTEX, seen, timeout);
    }

    /// Changes when rings are added, replaced or ended.
    #[must_use]
    pub fn tracks_generation(&self) -> u32 {
        self.words.load_half_acquire(TRACKS_GENERATION)
    }

    /// What may be expected of the stream.
    #[must_use]
    pub fn state(&self) -> State {
        State::from_word(self.words.load_half_acquire(STATE))
    }

    /// Changes every 100 ms while the writer lives; judge it against your own clock.
    #[must_use]
    pub fn heartbeat_count(&self) -> u64 {
        self.words.load(HEARTBEAT_COUNT)
    }

    /// CLOCK_MONOTONIC of the last heartbeat, ns; 0 before the first. For people: liveness is judged by the count.
    #[must_use]
    pub fn heartbeat_monotonic_ns(&self) -> u64 {
        self.words.load(HEARTBEAT_MONOTONIC_NS)
    }

    /// + 1 with every writer.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.words.load_half_acquire(EPOCH)
    }

    /// The anchors that are set and not being written just now.
    #[must_use]
    pub fn anchors(&self) -> Vec<TimelineAnchor> {
        (0..ANCHOR_COUNT).filter_map(|i| read_anchor(&self.words, i)).filter(|a| a.clock_rate != 0).collect()
    }
}

/// Tells the readers of a stream to open it again.
pub(crate) fn supersede(stream_directory: &Path) -> Result<(), BellError> {
    let file = open_shared(&open_directory(stream_directory)?, "bell", true)?;
    judge_head(&file)?;
    let words = SharedWords::writable(&file, SIZE)?;
    words.store_half(STATE, State::Superseded as u32, Release);
    words.store_half(FUTEX, words.load_half(FUTEX).wrapping_add(1), Release);
    wake::wake(&words, FUTEX);
    Ok(())
}

fn read_anchor(words: &SharedWords, i: usize) -> Option<TimelineAnchor> {
    let at = ANCHORS + i * ANCHOR_SIZE;
    // Pairs with the release store of the lock in `set_anchor`.
    let lock = words.load_acquire(at);
    if lock == 0 || lock == BUSY {
        return None;
    }
    let mut w = [0; 6];
    words.copy_words(at + 8, &mut w);
    fence(Acquire);
    (words.load(at) == lock).then_some(TimelineAnchor {
        programme: w[0] as u32,
        segment: (w[0] >> 32) as u32,
        pts: w[1] as i64,
        timeline_ns: w[2] as i64,
        monotonic_ns: w[3],
        utc_ns: w[4] as i64,
        clock_rate: w[5] as u32,
    })
}

fn encode_head(boot_id: [u8; 16], stream_uuid: [u8; 16]) -> [u8; 64] {
    let mut head = [0; 64];
    head[..8].copy_from_slice(&MAGIC);
    head[8..10].copy_from_slice(&MAJOR.to_le_bytes());
    head[10..12].copy_from_slice(&MINOR.to_le_bytes());
    head[12..16].copy_from_slice(&(SIZE as u32).to_le_bytes());
    head[16..32].copy_from_slice(&boot_id);
    head[32..48].copy_from_slice(&stream_uuid);
    let crc = crc32c::crc32c(&head[..HEAD_CRC]);
    head[HEAD_CRC..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// What stands in the first line of a bell.
struct Head {
    minor: u16,
    boot_id: [u8; 16],
    stream_uuid: [u8; 16],
}

/// The UUID in a bell's file.
pub(crate) fn stream_uuid_of(file: &File) -> Result<[u8; 16], BellError> {
    Ok(judge_head(file)?.stream_uuid)
}

fn judge_head(file: &File) -> Result<Head, BellError> {
    use std::os::unix::fs::FileExt;
    let size = file.metadata()?.len();
    if size < SIZE as u64 {
        return Err(LayoutError::Short(size).into());
    }
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0)?;
    if head[..8] != MAGIC {
        return Err(LayoutError::Magic.into());
    }
    let major = u16::from_le_bytes([head[8], head[9]]);
    if major != MAJOR {
        return Err(LayoutError::Major(major).into());
    }
    if crc32c::crc32c(&head[..HEAD_CRC]).to_le_bytes() != head[HEAD_CRC..] {
        return Err(LayoutError::Checksum.into());
    }
    let id = |at: usize| std::array::from_fn(|i| head[at + i]);
    Ok(Head { minor: u16::from_le_bytes([head[10], head[11]]), boot_id: id(16), stream_uuid: id(32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_finds_a_bell_that_is_whole_or_none() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        // As one that died left it.
        std::fs::write(dir.path().join(UNFINISHED), b"HWBELL").unwrap();
        let (path, is_over) = (dir.path(), std::sync::atomic::AtomicBool::new(false));
        let looked = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut looked = [0_u32; 2];
                // Pairs with the store below.
                while !is_over.load(Acquire) {
                    match BellReader::open(path) {
                        Ok(bell) => looked[0] += u32::from(bell.stream_head() == 0),
                        Err(BellError::Io(error)) if error.kind() == io::ErrorKind::NotFound => looked[1] += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                looked
            });
            for _ in 0..500 {
                drop(BellWriter::create(path).unwrap());
                std::fs::remove_file(path.join("bell")).unwrap();
            }
            // Pairs with the load in the reader.
            is_over.store(true, Release);
            reader.join().unwrap()
        });
        assert!(looked[0] + looked[1] > 0);
        assert!(!dir.path().join(UNFINISHED).exists());
        drop(BellWriter::create(dir.path()).unwrap());
        assert!(
            matches!(BellWriter::create(dir.path()), Err(BellError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists)
        );
    }

    #[test]
    fn a_bell_of_a_later_version_or_with_impossible_counters_is_not_taken_up() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        drop(BellWriter::create(dir.path()).unwrap());
        let file = OpenOptions::new().read(true).write(true).open(dir.path().join("bell")).unwrap();
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0).unwrap();
        let with_minor = |minor: u16| {
            let mut head = head;
            head[10..12].copy_from_slice(&minor.to_le_bytes());
            let crc = crc32c::crc32c(&head[..HEAD_CRC]);
            head[HEAD_CRC..].copy_from_slice(&crc.to_le_bytes());
            head
        };
        file.write_all_at(&with_minor(MINOR + 1), 0).unwrap();
        assert!(matches!(BellWriter::attach(dir.path()), Err(BellError::Minor(minor)) if minor == MINOR + 1));
        file.write_all_at(&with_minor(MINOR), 0).unwrap();
        for word in [STREAM_HEAD, HEARTBEAT_COUNT] {
            file.write_all_at(&u64::MAX.to_le_bytes(), word as u64).unwrap();
            assert!(matches!(BellWriter::attach(dir.path()), Err(BellError::Damaged("counters out of range"))));
            file.write_all_at(&7u64.to_le_bytes(), word as u64).unwrap();
        }
        assert_eq!(BellWriter::attach(dir.path()).unwrap().stream_head, 7);
    }

    #[test]
    fn a_bell_is_taken_up_where_it_was_left() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let anchor = TimelineAnchor {
            programme: 1,
            segment: 2,
            pts: -3,
            timeline_ns: 4,
            monotonic_ns: 5,
            utc_ns: 6,
            clock_rate: 90_000,
        };
        assert!(bell.set_anchor(TimelineAnchor { pts: 9, ..anchor }));
        assert!(bell.set_anchor(anchor));
        bell.publish(42);
        bell.tracks_changed();
        bell.heartbeat(77);
        assert!(matches!(BellWriter::attach(dir.path()), Err(BellError::Locked)));
        let reader = BellReader::open(dir.path()).unwrap();
        assert_eq!((reader.stream_head(), reader.tracks_generation(), reader.heartbeat_count()), (42, 1, 1));
        assert_eq!(reader.anchors(), [anchor]);
        let futex = reader.futex();
        drop(bell);
        let mut bell = BellWriter::attach(dir.path()).unwrap();
        assert_eq!((bell.stream_head(), bell.epoch()), (42, 2));
        assert_eq!(bell.anchors().copied().collect::<Vec<_>>(), [anchor]);
        bell.advance_to(40);
        assert_eq!(bell.stream_head(), 42);
        bell.advance_to(50);
        assert_eq!((reader.stream_head(), reader.futex()), (50, futex + 1));
    }

    #[test]
    fn a_programme_that_is_gone_leaves_its_place_to_another_and_one_that_is_there_does_not() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut bell = BellWriter::create(dir.path()).unwrap();
        let anchor = |programme, seconds: u64| TimelineAnchor {
            programme,
            monotonic_ns: seconds * 1_000_000_000,
            clock_rate: 90_000,
            ..TimelineAnchor::default()
        };
        for programme in 0..16 {
            assert!(bell.set_anchor(anchor(programme, 1)));
        }
        for programme in (0..16).filter(|&programme| programme != 7) {
            assert!(bell.set_anchor(anchor(programme, 10)));
        }
        assert!(!bell.set_anchor(anchor(16, 10)), "the seventh may have been silent for nine seconds");
        assert!(bell.set_anchor(anchor(16, 11)));
        assert!(!bell.set_anchor(anchor(17, 11)), "all the others are there");
        let mut programmes: Vec<u32> =
            BellReader::open(dir.path()).unwrap().anchors().iter().map(|it| it.programme).collect();
        programmes.sort_unstable();
        assert_eq!(programmes, (0..17).filter(|&programme| programme != 7).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_bell_is_refused() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::write(dir.path().join("bell"), [0; SIZE]).unwrap();
        assert!(matches!(BellReader::open(dir.path()), Err(BellError::Layout(LayoutError::Magic))));
        std::fs::write(dir.path().join("bell"), b"HWBELL").unwrap();
        assert!(matches!(BellReader::open(dir.path()), Err(BellError::Layout(LayoutError::Short(6)))));
    }
}
