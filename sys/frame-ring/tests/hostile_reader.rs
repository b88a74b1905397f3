//! Readers that mean harm, with all that a read-only descriptor allows: what they try fails, or hurts nobody but themselves.
//!
//! Run by root, the readers belong to another user, as they should in service; otherwise what only the owner may do is left out.
mod common;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{directory, payload, spec, write};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder;
use headworks_frame_ring::layout::{self, State};
use headworks_frame_ring::memory::SharedWords;
use headworks_frame_ring::reader::{Next, Reader, Start};
use headworks_frame_ring::wake::WAIT_MAX;
use headworks_frame_ring::writer::Writer;

const ROLE: &str = "HOSTILE_ROLE";
const RING: &str = "HOSTILE_RING";
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What the other processes run. Does nothing when run as a test of its own.
#[test]
fn a_hostile_process() {
    let (Ok(role), Some(ring)) = (std::env::var(ROLE), std::env::var_os(RING)) else {
        return;
    };
    let ring = Path::new(&ring);
    match role.as_str() {
        "write" => tries_to_write(ring),
        "lock" => locks_all_it_can(ring),
        "requeue" => takes_away_waits(ring),
        "stopped" => is_stopped_while_it_reads(ring),
        _ => panic!("no role {role}"),
    }
}

/// Says something to the process that started this one.
fn say(what: &str) {
    println!("\nsays {what}");
    std::io::stdout().flush().unwrap();
}

/// Until the process that started this one closes our standard input.
fn wait_for_the_end() {
    let _ = std::io::stdin().lines().count();
}

struct Hostile {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Hostile {
    fn start(role: &str, ring: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "a_hostile_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(RING, ring)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if is_root() {
            // The file of this program may lie where that user cannot look: it is handed over open.
            let program = File::open(std::env::current_exe().unwrap()).unwrap();
            let handed = rustix::io::fcntl_dupfd_cloexec(&program, 100).unwrap();
            rustix::io::fcntl_setfd(&handed, rustix::io::FdFlags::empty()).unwrap();
            let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            let mut other = Command::new(format!("/proc/self/fd/{}", handed.as_raw_fd()));
            other.args(arguments).env(ROLE, role).env(RING, ring).stdin(Stdio::piped()).stdout(Stdio::piped());
            other.uid(NOBODY).gid(NOBODY);
            return Self::spawn(other);
        }
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn hears(&mut self, what: &str) {
        let said = format!("says {what}");
        assert!(self.lines.any(|line| line.unwrap() == said), "it never said {what:?}");
    }

    fn ends(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A ring that another user may read.
struct Ring {
    dir: tempfile::TempDir,
    bell: BellWriter,
    writer: Writer,
}

impl Ring {
    fn new() -> Self {
        let dir = directory();
        let bell = BellWriter::create(dir.path()).unwrap();
        let writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
        let ring = Self { dir, bell, writer };
        if is_root() {
            std::fs::set_permissions(ring.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(ring.path(), None, Some(NOBODY)).unwrap();
            for file in ["ctl", "data"] {
                std::os::unix::fs::chown(ring.path().join(file), None, Some(NOBODY)).unwrap();
            }
        }
        ring
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("v")
    }

    fn write(&mut self, seq: u64) {
        assert_eq!(write(&mut self.writer, &mut self.bell, &payload(seq, 1000), seq.is_multiple_of(4)), seq);
        self.writer.wake_target().wake();
    }
}

fn read_on(reader: &mut Reader, seq: u64) {
    loop {
        match reader.next(Duration::from_secs(20)).unwrap() {
            Next::Frame(frame) => {
                assert_eq!((frame.descriptor.seq, frame.payload), (seq, &payload(seq, 1000)[..]));
                return;
            }
            Next::WriterDead => {}
            other => panic!("{other:?} instead of frame {seq}"),
        }
    }
}

fn tries_to_write(ring: &Path) {
    let files = ["ctl", "data"].map(|name| File::open(ring.join(name)).unwrap());
    for (name, file) in ["ctl", "data"].iter().zip(&files) {
        // SAFETY: a new mapping, which nothing else refers to.
        let map =
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(map, libc::MAP_FAILED);
        let failed = |result: libc::c_int, what: &str| {
            assert_eq!(result, -1, "{what} {name}");
            std::io::Error::last_os_error().raw_os_error().unwrap()
        };
        // SAFETY: advice, rights and sizes: all are refused, which is what is asserted.
        unsafe {
            let writable = libc::PROT_READ | libc::PROT_WRITE;
            assert_eq!(failed(libc::mprotect(map, 4096, writable), "mprotect"), libc::EACCES);
            assert_eq!(failed(libc::madvise(map, 4096, libc::MADV_REMOVE), "a hole in"), libc::EACCES);
            assert_eq!(failed(libc::ftruncate(file.as_raw_fd(), 0), "ftruncate"), libc::EINVAL);
            let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            assert_eq!(failed(libc::fallocate(file.as_raw_fd(), punch, 0, 4096), "fallocate"), libc::EBADF);
            let shared = libc::mmap(std::ptr::null_mut(), 4096, writable, libc::MAP_SHARED, file.as_raw_fd(), 0);
            assert_eq!(shared, libc::MAP_FAILED, "mapped {name} for writing");
        }
        if rustix::process::geteuid().as_raw() != NOBODY {
            continue;
        }
        let refused = |result: std::io::Result<File>| {
            assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied, "{name}");
        };
        let path = ring.join(name);
        refused(OpenOptions::new().write(true).open(&path));
        refused(OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd())));
        refused(OpenOptions::new().write(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(&path));
        refused(File::open(ring.join("writer.lock")));
        refused(File::create(ring.join("another")));
        let denied = std::io::ErrorKind::PermissionDenied;
        assert_eq!(std::fs::remove_file(&path).unwrap_err().kind(), denied);
        assert_eq!(std::fs::rename(&path, ring.join("moved")).unwrap_err().kind(), denied);
        assert_eq!(std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap_err().kind(), denied);
    }
    say("refused");
}

#[test]
fn a_reader_can_write_cut_or_remove_nothing() {
    let mut ring = Ring::new();
    let mut reader = Reader::open(&ring.path(), Start::Live).unwrap();
    let mut hostile = Hostile::start("write", &ring.path());
    hostile.hears("refused");
    hostile.ends();
    ring.write(0);
    read_on(&mut reader, 0);
}

fn locks_all_it_can(ring: &Path) {
    let mut held = Vec::new();
    for path in [ring.to_owned(), ring.join("ctl"), ring.join("data")] {
        let file = File::open(path).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        // SAFETY: all-zero is a valid `flock`: the whole file.
        let mut request: libc::flock = unsafe { std::mem::zeroed() };
        request.l_type = libc::F_RDLCK as libc::c_short;
        // SAFETY: a live descriptor and a live `flock`.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const request) };
        held.push(file);
    }
    say("locked");
    wait_for_the_end();
}

#[test]
fn locks_of_a_reader_stop_neither_a_writer_nor_its_successor_nor_what_takes_its_place() {
    let mut ring = Ring::new();
    let mut reader = Reader::open(&ring.path(), Start::Live).unwrap();
    let mut hostile = Hostile::start("lock", &ring.path());
    hostile.hears("locked");
    ring.write(0);
    let Ring { dir, mut bell, writer } = ring;
    drop(writer);
    let mut writer = builder::attach(&dir.path().join("v"), &spec()).unwrap();
    write(&mut writer, &mut bell, &payload(1, 1000), true);
    read_on(&mut reader, 0);
    read_on(&mut reader, 1);
    drop(writer);
    let _other = builder::create(&dir.path().join(".tmp-1"), &spec()).unwrap();
    builder::publish(&dir.path().join(".tmp-1"), &dir.path().join("v")).unwrap();
    assert_eq!(reader.next(Duration::ZERO), Ok(Next::Superseded));
    hostile.ends();
}

/// Moves every wait at the ring's futex to a word of its own, where no wake ever comes.
fn takes_away_waits(ring: &Path) {
    let ctl = File::open(ring.join("ctl")).unwrap();
    let words = SharedWords::read_only(&ctl, layout::CONFIG_OFFSET).unwrap();
    // SAFETY: a new mapping, which nothing else refers to.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), 8192, libc::PROT_READ, libc::MAP_SHARED, ctl.as_raw_fd(), 0) };
    assert_ne!(base, libc::MAP_FAILED);
    let futex = base.wrapping_byte_add(layout::FUTEX);
    let elsewhere = base.wrapping_byte_add(0xFC0);
    let mut taken = 0;
    say("ready");
    while State::from_word(words.load_half(layout::STATE)) != State::Ended {
        // SAFETY: both words lie in the mapping, and the call reads neither of them.
        let moved = unsafe {
            libc::syscall(libc::SYS_futex, futex, libc::FUTEX_REQUEUE, 0, libc::c_long::from(i32::MAX), elsewhere, 0)
        };
        assert!(moved >= 0, "{}", std::io::Error::last_os_error());
        taken += moved;
        std::thread::sleep(Duration::from_micros(200));
    }
    say(if taken > 0 { "took some" } else { "took none" });
}

#[test]
fn a_reader_whose_wait_was_taken_away_goes_on_by_itself() {
    let mut ring = Ring::new();
    let mut hostile = Hostile::start("requeue", &ring.path());
    hostile.hears("ready");
    std::thread::scope(|scope| {
        let mut reader = Reader::open(&ring.path(), Start::Live).unwrap();
        scope.spawn(move || {
            for seq in 0..20 {
                read_on(&mut reader, seq);
            }
        });
        for seq in 0..20 {
            std::thread::sleep(Duration::from_millis(10));
            ring.write(seq);
        }
    });
    ring.writer.set_state(State::Ended);
    hostile.hears("took some");
    hostile.ends();
    // What bounds the harm.
    assert_eq!(WAIT_MAX, Duration::from_millis(100));
}

fn is_stopped_while_it_reads(ring: &Path) {
    let mut reader = Reader::open(ring, Start::Oldest).unwrap();
    let Next::Frame(borrowed) = reader.next_borrowed(Duration::ZERO).unwrap() else { panic!("no frame") };
    let mut half = vec![0; 500];
    borrowed.copy_payload(0, &mut half);
    assert_eq!(half, payload(0, 1000)[..500]);
    assert!(borrowed.is_intact());
    say("reads");
    // SAFETY: a signal to ourselves.
    unsafe { libc::raise(libc::SIGSTOP) };
    borrowed.copy_payload(500, &mut half);
    assert!(!borrowed.is_intact());
    // 1,000 frames were written; the newest key is 996.
    assert_eq!(reader.next(Duration::ZERO), Ok(Next::Lapped { lost: 995, resume_at: 996 }));
    read_on(&mut reader, 996);
    say("lapped");
}

#[test]
fn a_reader_that_is_stopped_while_it_reads_holds_nobody_up_and_knows_what_it_missed() {
    let mut ring = Ring::new();
    ring.write(0);
    let mut hostile = Hostile::start("stopped", &ring.path());
    hostile.hears("reads");
    let pid = libc::pid_t::try_from(hostile.child.id()).unwrap();
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) }, pid);
    assert!(libc::WIFSTOPPED(status));
    let mut reader = Reader::open(&ring.path(), Start::Live).unwrap();
    for seq in 1..1000 {
        ring.write(seq);
        read_on(&mut reader, seq);
    }
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    hostile.hears("lapped");
    hostile.ends();
}

#[test]
fn two_hundred_waiting_readers_all_see_what_one_would() {
    const READERS: usize = 200;
    const FRAMES: u64 = 60;
    let mut ring = Ring::new();
    let path = ring.path();
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let mut reader = Reader::open(&path, Start::Live).unwrap();
            let reading = move || {
                for seq in 0..FRAMES {
                    read_on(&mut reader, seq);
                }
                assert_eq!(reader.next(Duration::from_secs(20)), Ok(Next::Ended));
            };
            readers.push(std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, reading).unwrap());
        }
        for seq in 0..FRAMES {
            ring.write(seq);
        }
        ring.writer.set_state(State::Ended);
        ring.writer.wake_target().wake();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert_eq!(ring.writer.totals().frames, FRAMES);
}

/// The writer stores shared words and never loads one: whatever stands there, it goes on from what it knows itself.
#[test]
fn what_stands_in_shared_words_leads_no_writer_astray() {
    let [mut left_alone, mut overwritten] = [Ring::new(), Ring::new()];
    let ctl = OpenOptions::new().read(true).write(true).open(overwritten.path().join("ctl")).unwrap();
    let twin = File::open(left_alone.path().join("ctl")).unwrap();
    for seq in 0..40 {
        let words = [layout::DATA_RESERVE, layout::HEAD_SEQ, layout::FUTEX, layout::TOTALS, layout::SLOT_OFFSET];
        for at in words {
            ctl.write_all_at(&[0xA5; 32], at as u64).unwrap();
        }
        for ring in [&mut left_alone, &mut overwritten] {
            // So large that the reserve grows.
            write(&mut ring.writer, &mut ring.bell, &payload(seq, 20_000), true);
        }
        let same = |at: usize, length: usize| {
            let (mut expected, mut found) = (vec![0; length], vec![0; length]);
            twin.read_exact_at(&mut expected, at as u64).unwrap();
            ctl.read_exact_at(&mut found, at as u64).unwrap();
            assert_eq!(found, expected, "{length} bytes at {at:#x} after frame {seq}");
        };
        same(layout::DATA_RESERVE, 8);
        same(layout::HEAD_SEQ, 24);
        same(layout::FUTEX, 4);
        same(layout::TOTALS, 32);
        same(layout::SLOT_OFFSET + seq as usize % 64 * layout::SLOT_SIZE, layout::SLOT_SIZE);
    }
}

/// A commit costs the same with any number of readers: it wakes none of them, whoever issues the wake does.
#[test]
fn a_commit_wakes_nobody_by_itself() {
    let mut ring = Ring::new();
    let mut reader = Reader::open(&ring.path(), Start::Live).unwrap();
    let woken = std::thread::scope(|scope| {
        let reading = scope.spawn(move || while reader.next(Duration::from_secs(20)).unwrap() != Next::Ended {});
        // Now and then the reader is not asleep, or finds the frame when its own wait ends.
        let woken = (0..200).any(|seq| {
            std::thread::sleep(Duration::from_millis(5));
            write(&mut ring.writer, &mut ring.bell, &payload(seq, 1000), true);
            ring.writer.wake_target().wake() == 1
        });
        ring.writer.set_state(State::Ended);
        ring.writer.wake_target().wake();
        reading.join().unwrap();
        woken
    });
    assert!(woken, "the reader was awake after each of 200 commits");
}
