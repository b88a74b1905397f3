//! What a commit and a wake cost with readers that mean harm, and without. `cargo bench -p headworks-frame-ring --bench hostile_reader`
//!
//! The writer has the first core to itself and commits frames of 16 KiB at a steady pace, as a shard does; the wake is left to another
//! thread, as in the appliance. That thread and everything hostile share the other cores, in processes that first prove that they are
//! at work: what must be refused was refused, what cannot be was done. Every case takes turns with a writer that has no reader; a ratio
//! is made of the figures of one turn and the one before it, and the median of the ratios counts. In both turns a process that has
//! nothing to do with the ring keeps each other core busy: what cores of one processor take from each other is not the readers' doing.
//! `HOSTILE_FRAMES` says how many frames a turn has (4,000), `HOSTILE_TURNS` how many turns a case (5).

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::layout::{self, TrackKind};
use headworks_frame_ring::reader::{Next, Reader, Start};

const ROLE: &str = "HOSTILE_BENCH_ROLE";
const RING: &str = "HOSTILE_BENCH_RING";
const NOBODY: u32 = 65_534;
const FRAME_SIZE: usize = 16 << 10;
/// Between two frames.
const PACE: Duration = Duration::from_micros(100);
/// Between two attempts of a hostile process: it may have a processor's time, but not all of it.
const ATTEMPTS: Duration = Duration::from_micros(200);
/// More than this, and the readers are felt by the shard.
const TARGET: f64 = 1.1;

/// What there is besides the writer: how many processes of which role.
const CASES: [(&str, &[(&str, usize)]); 8] = [
    ("no reader", &[]),
    ("one reader", &[("wait", 1)]),
    ("mprotect, truncate, open for writing", &[("write", 2)]),
    ("flock, OFD and record locks", &[("lock", 2)]),
    ("FUTEX_REQUEUE of a waiting reader", &[("wait", 1), ("requeue", 1)]),
    ("readers stopped while they read", &[("stop", 4)]),
    ("200 waiting readers", &[("wait", 200)]),
    ("all of it", &[("wait", 200), ("write", 1), ("lock", 1), ("requeue", 1), ("stop", 4)]),
];

fn main() {
    if let (Ok(role), Some(ring)) = (std::env::var(ROLE), std::env::var_os(RING)) {
        return be_hostile(&role, Path::new(&ring));
    }
    let number = |key: &str, default: usize| std::env::var(key).map_or(default, |n| n.parse().expect("a number"));
    let (frames, turns) = (number("HOSTILE_FRAMES", 4_000), number("HOSTILE_TURNS", 5));
    println!("{:<38} {:>28} {:>28}", "", "commit of 16 KiB", "wake, on the waker thread");
    println!(
        "{:<38} {:>7} {:>6} {:>6} {:>6} {:>7} {:>6} {:>6} {:>6}",
        "besides the writer", "p50 ns", "p50 ÷", "p99 ÷", "max ÷", "p50 ns", "p50 ÷", "p99 ÷", "max ÷"
    );
    let mut missed = Vec::new();
    for (name, roles) in CASES {
        let (mut commits, mut wakes, mut ratios) = (Vec::new(), Vec::new(), [(); 6].map(|()| Vec::new()));
        for _ in 0..turns {
            let alone = measure(frames, &[]);
            let beside = measure(frames, roles);
            commits.push(beside.0[0] as f64);
            wakes.push(beside.1[0] as f64);
            let of = |beside: [u64; 3], alone: [u64; 3]| std::array::from_fn(|i| beside[i] as f64 / alone[i] as f64);
            let (commit, wake): ([f64; 3], [f64; 3]) = (of(beside.0, alone.0), of(beside.1, alone.1));
            ratios.iter_mut().zip(commit.into_iter().chain(wake)).for_each(|(all, one)| all.push(one));
        }
        let ratios = ratios.map(median);
        println!(
            "{name:<38} {:>7.0} {:>6.2} {:>6.2} {:>6.2} {:>7.0} {:>6.1} {:>6.1} {:>6.1}",
            median(commits),
            ratios[0],
            ratios[1],
            ratios[2],
            median(wakes),
            ratios[3],
            ratios[4],
            ratios[5]
        );
        if ratios[0] > TARGET {
            missed.push(name);
        }
    }
    match missed[..] {
        [] => println!("\nmedian of a commit, with ÷ without: at most {TARGET} in every case: met"),
        _ => println!("\nmedian of a commit, with ÷ without: at most {TARGET}: MISSED with {}", missed.join("; ")),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Cores of the host.
fn cores() -> usize {
    // SAFETY: a question to the system.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(1).clamp(1, libc::CPU_SETSIZE as usize)
}

/// The first core is the writer's; everything else has the others, if there are any.
fn settle(is_writer: bool) {
    let cores = cores();
    // SAFETY: a set of our own, changed and handed over within its bounds.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in if is_writer || cores == 1 { 0..1 } else { 1..cores } {
            libc::CPU_SET(core, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// Median, 99th percentile and worst of a commit with its appends, and of a wake, in nanoseconds.
fn measure(frames: usize, roles: &[(&str, usize)]) -> ([u64; 3], [u64; 3]) {
    settle(true);
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("our own");
    let ring = dir.path().join("v");
    let mut bell = BellWriter::create(dir.path()).expect("a bell");
    let spec = RingSpec {
        kind: TrackKind::Video,
        codec: *b"avc1",
        clock_rate: 90_000,
        data_capacity: 16 << 20,
        slot_count: 1024,
        frame_size_max: 1 << 20,
        numa_node: None,
        crc: false,
    };
    let mut writer = builder::create(&ring, &spec).expect("a ring");
    for (name, mode) in [("", 0o755), ("ctl", 0o644), ("data", 0o644)] {
        // As members of the readers' group see them.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(ring.join(name), mode).expect("our own");
    }
    let bytes = vec![0x5A; FRAME_SIZE];
    writer.append(&bytes).expect("room");
    writer.commit(&FrameDescriptor::default(), &mut bell);
    let mut others = Children(Vec::new());
    let other_cores = cores() - 1;
    for &(role, count) in [("compute", other_cores)].iter().chain(roles) {
        others.0.extend((0..count).map(|_| start(role, &ring)));
    }
    others.0.iter_mut().for_each(wait_until_at_work);
    let (flag, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let target = writer.wake_target();
    let mut commits = Vec::with_capacity(frames);
    let wakes = std::thread::scope(|scope| {
        let waker = scope.spawn(|| {
            settle(false);
            let mut wakes = Vec::with_capacity(frames);
            while !over.load(Ordering::Acquire) {
                if flag.swap(false, Ordering::Acquire) {
                    let began = Instant::now();
                    target.wake();
                    wakes.push(began.elapsed().as_nanos() as u64);
                }
                std::thread::park();
            }
            wakes
        });
        for _ in 0..frames {
            let began = Instant::now();
            for piece in bytes.chunks(1316) {
                writer.append(piece).expect("room");
            }
            writer.commit(&FrameDescriptor::default(), &mut bell);
            commits.push(began.elapsed().as_nanos() as u64);
            flag.store(true, Ordering::Release);
            waker.thread().unpark();
            std::thread::sleep(PACE);
        }
        over.store(true, Ordering::Release);
        waker.thread().unpark();
        waker.join().expect("no panic")
    });
    for child in &mut others.0 {
        assert!(child.try_wait().expect("a child").is_none(), "a hostile process ended early");
    }
    (percentiles(commits), percentiles(wakes))
}

fn percentiles(mut times: Vec<u64>) -> [u64; 3] {
    times.sort_unstable();
    [times[times.len() / 2], times[times.len() * 99 / 100], times[times.len() - 1]]
}

/// Children that do not outlive a turn.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// As another user, where that can be had.
fn start(role: &str, ring: &Path) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut command;
    if rustix::process::geteuid().is_root() {
        // The file of this program may lie where that user cannot look: it is handed over open.
        let program = File::open(program).expect("this program");
        let handed = rustix::io::fcntl_dupfd_cloexec(&program, 100).expect("a descriptor");
        rustix::io::fcntl_setfd(&handed, rustix::io::FdFlags::empty()).expect("a descriptor");
        command = Command::new(format!("/proc/self/fd/{}", handed.as_raw_fd()));
        command.env(ROLE, role).env(RING, ring).stdin(Stdio::null()).stdout(Stdio::piped()).uid(NOBODY).gid(NOBODY);
        return command.spawn().expect("a process");
    }
    command = Command::new(program);
    command.env(ROLE, role).env(RING, ring).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().expect("a process")
}

fn wait_until_at_work(child: &mut Child) {
    let mut line = String::new();
    let output = child.stdout.as_mut().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert_eq!(line, "at work\n", "a hostile process did not get to work");
}

fn say_at_work() {
    println!("at work");
    std::io::stdout().flush().expect("a pipe");
}

/// Until it is killed. What has to fail is held against that once; then it goes on trying.
fn be_hostile(role: &str, ring: &Path) {
    settle(false);
    let ctl = File::open(ring.join("ctl")).expect("ctl");
    // SAFETY: a new mapping, which nothing else refers to.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), 8192, libc::PROT_READ, libc::MAP_SHARED, ctl.as_raw_fd(), 0) };
    assert_ne!(base, libc::MAP_FAILED);
    if role == "compute" {
        let (from, mut to) = (vec![1_u8; FRAME_SIZE], vec![0_u8; FRAME_SIZE]);
        say_at_work();
        loop {
            to.copy_from_slice(std::hint::black_box(&from));
            std::hint::black_box(&mut to);
        }
    }
    if role == "wait" {
        let mut reader = Reader::open(ring, Start::Live).expect("a ring");
        say_at_work();
        loop {
            let _ = reader.next(Duration::from_secs(1));
        }
    }
    if role == "stop" {
        let mut reader = Reader::open(ring, Start::Oldest).expect("a ring");
        let reading = reader.next_borrowed(Duration::from_secs(1));
        assert!(matches!(reading, Ok(Next::Frame(_))), "{reading:?}");
        say_at_work();
        // SAFETY: a signal to ourselves.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
    let is_owner = rustix::process::geteuid().is_root();
    let attempt = || match role {
        "write" => {
            // SAFETY: rights and sizes that are refused.
            let (protect, truncate) = unsafe {
                (libc::mprotect(base, 8192, libc::PROT_READ | libc::PROT_WRITE), libc::ftruncate(ctl.as_raw_fd(), 0))
            };
            let opened = ["ctl", "data"].map(|name| OpenOptions::new().write(true).open(ring.join(name)).is_ok());
            // Who owns the files may open them.
            protect == -1 && truncate == -1 && (is_owner || opened == [false; 2])
        }
        "lock" => ["", "ctl", "data"].iter().all(|name| {
            let Ok(file) = File::open(ring.join(name)) else { return false };
            let whole = libc::flock { l_type: libc::F_RDLCK as _, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
            // SAFETY: live descriptors and a lock of our own.
            unsafe {
                libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole);
                libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const whole);
            }
            // It gets the lock, or the other one of its kind has it.
            let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
            matches!(locked, Ok(()) | Err(rustix::io::Errno::WOULDBLOCK))
        }),
        "requeue" => {
            let most = libc::c_long::from(i32::MAX);
            let (futex, elsewhere) = (base.wrapping_byte_add(layout::FUTEX), base.wrapping_byte_add(0xFC0));
            // SAFETY: both words lie in the mapping, and the call reads neither of them.
            unsafe { libc::syscall(libc::SYS_futex, futex, libc::FUTEX_REQUEUE, 0, most, elsewhere, 0) >= 0 }
        }
        _ => false,
    };
    assert!(attempt(), "{role} did not go as it must");
    say_at_work();
    loop {
        attempt();
        std::thread::sleep(ATTEMPTS);
    }
}
