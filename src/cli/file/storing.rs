//! A file that comes in: a thread of its own writes it under a name that says it is not whole, and gives it its name in the end.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use super::name::PART;
use super::{DISK_EVERY, DISK_PATIENCE};

/// Bytes that are written at once.
pub const PIECE_LEN: usize = 1 << 20;
/// A piece, and the rest of the packet that makes it one.
const PIECE_CAPACITY: usize = PIECE_LEN + 2_048;
/// Pieces that wait to be written: behind them the sender waits.
const PIECES_MAX: usize = 4;

/// Why a file is not kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is one of that name, and it is not to be overwritten.
    #[error("{0} exists already (--overwrite replaces it)")]
    Exists(PathBuf),
    /// It is just coming in from elsewhere.
    #[error("{0} is being received already")]
    Busy(PathBuf),
    /// The system says no.
    #[error("{what} {path}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It has its name already, but a crash may still take it away.
    #[error("{path} is there and whole, but may be lost in a crash: syncing its directory: {error}")]
    Unsynced {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A file that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

enum Order {
    /// Something is left of a run before this one: take it away.
    Empty,
    Piece(Vec<u8>),
    /// All has come: keep it.
    Keep,
}

/// The way to the thread. Dropped without [`keep`](Self::keep), it leaves no file behind, and waits until that is so, for
/// [`DISK_PATIENCE`] at most: whoever has no time to wait for a disk [abandons](Self::abandon) it first, or [leaves](Self::leave) it.
pub struct Store {
    orders: Option<SyncSender<Order>>,
    empty: Receiver<Vec<u8>>,
    pieces: usize,
    /// What does not make a piece yet.
    piece: Vec<u8>,
    thread: Option<JoinHandle<Result<Option<Stored>, StoreError>>>,
    is_left: bool,
}

struct Writer {
    file: File,
    part: PathBuf,
    path: PathBuf,
    directory: PathBuf,
    overwrite: bool,
}

impl Store {
    /// Begins a file of this name, which must have been judged. What has to be known before its sender is let in is asked for here: whether
    /// there is such a file, and whether another has it. What there is to be done is done by the thread.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has been changed then.
    pub fn create(directory: &Path, name: &str, overwrite: bool) -> Result<Self, StoreError> {
        let path = directory.join(name);
        let part = directory.join(format!("{name}{PART}"));
        if !overwrite && path.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(path));
        }
        let failed = |error| StoreError::System { what: "creating", path: part.clone(), error };
        let file = open(&part).map_err(failed)?;
        if !claim(&file, &part).map_err(failed)? {
            return Err(StoreError::Busy(path));
        }
        let is_empty = file.metadata().map_err(failed)?.len() == 0;
        let writer = Writer { file, part: part.clone(), path, directory: directory.to_owned(), overwrite };
        let store = Self::start(writer).map_err(failed)?;
        if !is_empty && let Some(orders) = &store.orders {
            orders.send(Order::Empty).expect("the thread waits for its first order");
        }
        Ok(store)
    }

    fn start(writer: Writer) -> io::Result<Self> {
        let (orders, receiver) = sync_channel(PIECES_MAX);
        let (give_back, empty) = channel();
        let thread = std::thread::Builder::new()
            .name("hw-file-writer".to_owned())
            .spawn(move || writer.run(&receiver, |piece| drop(give_back.send(piece))))?;
        let piece = Vec::with_capacity(PIECE_CAPACITY);
        Ok(Self { orders: Some(orders), empty, pieces: 1, piece, thread: Some(thread), is_left: false })
    }

    /// Whether there is room for a packet's payload; if not, the thread is behind, or has failed ([`finished`](Self::finished)).
    pub fn has_room(&mut self) -> bool {
        self.piece.len() < PIECE_LEN || self.hand_on()
    }

    /// Takes in bytes, for which [there is room](Self::has_room).
    pub fn write(&mut self, bytes: &[u8]) {
        self.piece.extend_from_slice(bytes);
    }

    /// Gives the thread what there is, if it can take it.
    fn hand_on(&mut self) -> bool {
        if self.piece.is_empty() {
            return true;
        }
        let next = match self.empty.try_recv() {
            Ok(mut piece) => {
                piece.clear();
                piece
            }
            Err(TryRecvError::Empty) if self.pieces <= PIECES_MAX + 1 => {
                self.pieces += 1;
                Vec::with_capacity(PIECE_CAPACITY)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return false,
        };
        let Some(orders) = &self.orders else { return false };
        match orders.try_send(Order::Piece(std::mem::replace(&mut self.piece, next))) {
            Ok(()) => true,
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => {
                if let Order::Piece(piece) = order {
                    self.piece = piece;
                    self.pieces -= 1;
                }
                false
            }
        }
    }

    /// Whether the thread has ended, of itself or because it was told to.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// All has come: the file is to be kept. `false` while the thread is behind; then ask again.
    pub fn keep(&mut self) -> bool {
        if self.is_over() {
            // It has failed, and takes nothing any more.
            self.orders = None;
            return true;
        }
        if !self.hand_on() {
            return false;
        }
        let Some(orders) = &self.orders else { return true };
        match orders.try_send(Order::Keep) {
            Err(TrySendError::Full(_)) => false,
            Ok(()) | Err(TrySendError::Disconnected(_)) => {
                self.orders = None;
                true
            }
        }
    }

    /// Nothing more comes, and unless it was [kept](Self::keep) already there is to be no file. `false` while the thread is at it; then
    /// ask again.
    pub fn abandon(&mut self) -> bool {
        self.orders = None;
        self.is_over()
    }

    /// Does not wait for the thread any more, whatever it is at: the disk does not answer.
    pub fn leave(&mut self) {
        self.orders = None;
        self.is_left = true;
    }

    /// Waits until the thread has ended, for so long at most.
    fn wait(&self, limit: Duration) {
        let begun = Instant::now();
        while !self.is_over() && begun.elapsed() < limit {
            std::thread::sleep(DISK_EVERY);
        }
    }

    /// What has come of it, once, when the thread has ended.
    pub fn finished(&mut self) -> Option<Result<Stored, StoreError>> {
        self.thread.as_ref().filter(|thread| thread.is_finished())?;
        let outcome = self.thread.take()?.join().expect("the writer does not panic");
        outcome.transpose()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.orders = None;
        if !self.is_left {
            self.wait(DISK_PATIENCE);
        }
    }
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>, give_back: impl Fn(Vec<u8>)) -> Result<Option<Stored>, StoreError> {
        let mut sum = digest::Context::new(&digest::SHA256);
        let outcome = loop {
            match orders.recv() {
                Ok(Order::Empty) => {
                    if let Err(error) = self.file.set_len(0) {
                        break Err(self.failed("emptying", error));
                    }
                }
                Ok(Order::Piece(piece)) => {
                    if let Err(error) = self.file.write_all(&piece) {
                        break Err(self.failed("writing", error));
                    }
                    sum.update(&piece);
                    give_back(piece);
                }
                Ok(Order::Keep) => break self.keep().map(Some),
                Err(_) => break Ok(None),
            }
        };
        if !matches!(outcome, Ok(Some(())) | Err(StoreError::Unsynced { .. })) {
            // What is not whole is of no use to anybody, and a transfer begins anew. Once renamed, what is there is another's.
            let _ = std::fs::remove_file(&self.part);
        }
        let kept = outcome?;
        let sha256 = sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(kept.map(|()| Stored { path: self.path, sha256 }))
    }

    fn failed(&self, what: &'static str, error: io::Error) -> StoreError {
        StoreError::System { what, path: self.part.clone(), error }
    }

    /// On the disk first, then under its name.
    fn keep(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|error| self.failed("writing", error))?;
        let named = if self.overwrite { std::fs::rename(&self.part, &self.path) } else { self.rename_where_none_is() };
        named.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Exists(self.path.clone()),
            _ => self.failed("renaming", error),
        })?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| StoreError::Unsynced { path: self.path.clone(), error })
    }

    fn rename_where_none_is(&self) -> io::Result<()> {
        match renameat_with(CWD, &self.part, CWD, &self.path, RenameFlags::NOREPLACE) {
            // A file system that cannot: a second name, which is given only where there is none, and then the first one taken away.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
                std::fs::hard_link(&self.part, &self.path)?;
                std::fs::remove_file(&self.part)
            }
            renamed => Ok(renamed?),
        }
    }
}

/// Opens what is to be written. What somebody else has put there, or a run before this one has left, is no way out of the directory either,
/// and no pipe that waits for a reader.
fn open(part: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags.bits() as i32).open(part)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "what is there is no file"));
    }
    Ok(file)
}

/// Takes the file for this process alone; whether nobody else has it, and it is still the one of this name: whoever had it until now may have
/// given it its own since it was opened, and then it is whole and not to be touched.
fn claim(file: &File, part: &Path) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let held = file.metadata()?;
    match part.symlink_metadata() {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes that a directory's file system has room for.
///
/// # Errors
/// It is not there.
pub fn free_bytes(directory: &Path) -> io::Result<u64> {
    let facts = rustix::fs::statvfs(directory)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs;

    /// A file `a` on a disk that hangs as soon as it has taken 64 KiB: a pipe, which goes on when it is read, or closed.
    pub fn hanging(directory: &Path) -> (io::PipeReader, Store) {
        let (reader, pipe) = io::pipe().unwrap();
        let (part, path) = (directory.join("a.part"), directory.join("a"));
        fs::write(&part, "").unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(pipe));
        let writer = Writer { file, part, path, directory: directory.to_owned(), overwrite: false };
        (reader, Store::start(writer).unwrap())
    }

    fn finish(mut store: Store) -> Result<Stored, StoreError> {
        while !store.keep() {
            std::thread::sleep(Duration::from_millis(1));
        }
        loop {
            match store.finished() {
                Some(outcome) => return outcome,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(store: &mut Store, bytes: &[u8]) {
        for piece in bytes.chunks(1_456) {
            while !store.has_room() {
                std::thread::sleep(Duration::from_millis(1));
            }
            store.write(piece);
        }
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..9_000_000_u32).map(|n| (n >> 5) as u8).collect();
        let mut store = Store::create(directory.path(), "clip.ts", false).unwrap();
        write(&mut store, &bytes);
        assert_eq!(names(directory.path()), ["clip.ts.part"]);
        let stored = finish(store).unwrap();
        assert_eq!(stored.path, directory.path().join("clip.ts"));
        assert_eq!(names(directory.path()), ["clip.ts"]);
        assert!(fs::read(&stored.path).unwrap() == bytes);
        let sum = digest::digest(&digest::SHA256, &bytes);
        assert_eq!(stored.sha256, sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }

    #[test]
    fn of_a_file_that_is_not_kept_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::create(directory.path(), "clip.ts", false).unwrap();
        write(&mut store, &[7; 3_000_000]);
        drop(store);
        assert_eq!(names(directory.path()), Vec::<String>::new());
    }

    #[test]
    fn a_file_is_overwritten_only_where_that_is_wanted_even_if_it_appears_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a");
        let early = Store::create(directory.path(), "a", false).unwrap();
        fs::write(&target, "old").unwrap();
        assert!(matches!(Store::create(directory.path(), "a", false), Err(StoreError::Exists(_))));
        assert!(matches!(finish(early), Err(StoreError::Exists(path)) if path == target));
        assert_eq!((names(directory.path()), fs::read(&target).unwrap()), (vec!["a".to_owned()], b"old".to_vec()));
        let mut store = Store::create(directory.path(), "a", true).unwrap();
        write(&mut store, b"new");
        finish(store).unwrap();
        assert_eq!((names(directory.path()), fs::read(&target).unwrap()), (vec!["a".to_owned()], b"new".to_vec()));
    }

    #[test]
    fn two_do_not_write_the_same_file_and_what_a_dead_one_left_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.part"), "what was left").unwrap();
        let mut first = Store::create(directory.path(), "a", false).unwrap();
        assert!(matches!(Store::create(directory.path(), "a", true), Err(StoreError::Busy(_))));
        write(&mut first, b"x");
        assert_eq!(fs::read(finish(first).unwrap().path).unwrap(), b"x");
    }

    #[test]
    fn what_a_dead_one_left_is_taken_away_by_the_thread_which_tells_if_it_cannot() {
        let directory = tempfile::tempdir().unwrap();
        let (_reader, mut store) = hanging(directory.path());
        store.orders.as_ref().unwrap().send(Order::Empty).unwrap();
        store.write(b"x");
        let told = finish(store);
        assert!(matches!(&told, Err(error) if error.to_string().contains("emptying")), "{told:?}");
        assert_eq!(names(directory.path()), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_file_is_not_written_to_nor_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("a.part");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for reader in [None, Some(OFlags::RDONLY | OFlags::NONBLOCK)] {
            let _reader = reader.map(|flags| rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty()).unwrap());
            assert!(matches!(Store::create(directory.path(), "a", true), Err(StoreError::System { .. })));
        }
    }

    #[test]
    fn a_file_that_was_given_its_name_or_removed_since_it_was_opened_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let part = directory.path().join("a.part");
        let mut first = Store::create(directory.path(), "a", false).unwrap();
        write(&mut first, b"whole");
        let late = open(&part).unwrap();
        assert!(!claim(&late, &part).unwrap(), "the first has it");
        let stored = finish(first).unwrap();
        assert!(!claim(&late, &part).unwrap(), "it is `a` now");
        // Nor is it the one that another has begun under the same name.
        let next = Store::create(directory.path(), "a", true).unwrap();
        assert!(!claim(&late, &part).unwrap());
        assert!(matches!(Store::create(directory.path(), "a", true), Err(StoreError::Busy(_))));
        let late = open(&part).unwrap();
        drop(next);
        assert!(!claim(&late, &part).unwrap(), "it was removed");
        assert_eq!(fs::read(&stored.path).unwrap(), b"whole");
        assert_eq!(names(directory.path()), ["a"]);
        let fresh = open(&part).unwrap();
        assert!(claim(&fresh, &part).unwrap());
    }

    #[test]
    fn a_link_in_the_way_leads_nowhere() {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, directory.path().join("a.part")).unwrap();
        std::os::unix::fs::symlink(&victim, directory.path().join("b")).unwrap();
        assert!(matches!(Store::create(directory.path(), "a", true), Err(StoreError::System { .. })));
        assert!(matches!(Store::create(directory.path(), "b", false), Err(StoreError::Exists(_))));
        finish(Store::create(directory.path(), "b", true).unwrap()).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(!directory.path().join("b").is_symlink());
    }

    #[test]
    fn a_full_disk_is_told_and_leaves_nothing() {
        // `/dev/full` takes nothing; a link to it is not followed, so the writer is given it directly.
        let directory = tempfile::tempdir().unwrap();
        let part = directory.path().join("a.part");
        fs::write(&part, "").unwrap();
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let path = directory.path().join("a");
        let writer = Writer { file, part, path, directory: directory.path().to_owned(), overwrite: false };
        let (orders, receiver) = sync_channel(1);
        orders.send(Order::Piece(vec![1])).unwrap();
        let error = writer.run(&receiver, drop).unwrap_err();
        assert!(error.to_string().contains("No space left on device"), "{error}");
        assert_eq!(names(directory.path()), Vec::<String>::new());
    }

    #[test]
    fn a_disk_that_fails_when_all_has_come_is_told_however_much_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let (part, path) = (directory.path().join("a.part"), directory.path().join("a"));
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let writer = Writer { file, part, path, directory: directory.path().to_owned(), overwrite: false };
        let mut store = Store::start(writer).unwrap();
        write(&mut store, &[7; PIECE_LEN + 10_000]);
        store.hand_on();
        while !store.thread.as_ref().unwrap().is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // What has come since.
        store.write(&[7; 10_000]);
        assert!(store.keep(), "there is nobody to wait for");
        let told = store.finished();
        assert!(matches!(&told, Some(Err(error)) if error.to_string().contains("No space left on device")), "{told:?}");
    }

    #[test]
    fn a_file_that_has_its_name_when_the_disk_fails_is_said_to_be_there_and_what_has_the_other_name_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (part, path) = (directory.path().join("a.part"), directory.path().join("a"));
        let file = File::create(&part).unwrap();
        // Two names of one file are both left by a renaming: as if another had begun the next of that name since.
        fs::hard_link(&part, &path).unwrap();
        let nowhere = directory.path().join("nowhere");
        let writer = Writer { file, part, path: path.clone(), directory: nowhere, overwrite: true };
        let mut store = Store::start(writer).unwrap();
        write(&mut store, b"whole");
        let error = finish(store).unwrap_err();
        assert!(matches!(&error, StoreError::Unsynced { path: there, .. } if *there == path), "{error}");
        assert!(error.to_string().starts_with(&format!("{} is there", path.display())), "{error}");
        assert_eq!(
            (names(directory.path()), fs::read(&path).unwrap()),
            (vec!["a".to_owned(), "a.part".to_owned()], b"whole".to_vec())
        );
    }

    #[test]
    fn a_writer_that_hangs_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (reader, mut store) = hanging(directory.path());
        // Gone before the store is, also when this fails: that waits for its thread.
        let reader = reader;
        write(&mut store, &vec![7; PIECE_LEN + 10_000]);
        assert!(store.hand_on());
        assert!(!store.abandon() && store.finished().is_none());
        store.wait(Duration::from_millis(20));
        assert_eq!(names(directory.path()), ["a.part"]);
        drop(reader);
        while !store.abandon() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(names(directory.path()), Vec::<String>::new());
        assert!(matches!(store.finished(), Some(Err(StoreError::System { .. }))));
    }

    #[test]
    fn a_writer_that_is_behind_takes_no_more_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (mut reader, mut store) = hanging(directory.path());
        let mut written = 0;
        let mut behind_since = None;
        // The thread takes a piece out of the line when it gets to run.
        while behind_since.is_none_or(|since: std::time::Instant| since.elapsed() < Duration::from_millis(100)) {
            if store.has_room() {
                store.write(&[(written >> 10) as u8; 1_024]);
                written += 1_024;
                behind_since = None;
            } else {
                behind_since.get_or_insert_with(std::time::Instant::now);
            }
            assert!(written <= (PIECES_MAX + 2) * PIECE_LEN, "memory is bounded");
        }
        let reading = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut reader, &mut bytes).map(|_| bytes)
        });
        while !store.keep() {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(store);
        let bytes = reading.join().unwrap().unwrap();
        assert_eq!(bytes.len(), written);
        assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == (at >> 10) as u8));
    }
}
