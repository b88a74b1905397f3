//! What a commit and a wake cost with readers that mean harm, and without. `cargo bench -p headworks-frame-ring --bench hostile_reader`
//!
//! The writer commits frames of 16 KiB at a steady pace, as a shard does, and leaves the wake to another thread, as the appliance does.
//! Everything hostile runs in processes of its own. `HOSTILE_FRAMES` says how many frames are measured in each case (20,000).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::layout::{self, TrackKind};
use headworks_frame_ring::reader::{Reader, Start};

const ROLE: &str = "HOSTILE_BENCH_ROLE";
const RING: &str = "HOSTILE_BENCH_RING";
const FRAME_SIZE: usize = 16 << 10;
/// Between two frames.
const PACE: Duration = Duration::from_micros(100);
/// Between two attempts of a hostile process: it may have a processor's time, but not all of it.
const ATTEMPTS: Duration = Duration::from_micros(200);

/// What there is besides the writer: how many processes of which role.
const CASES: [(&str, &[(&str, usize)]); 8] = [
    ("no reader", &[]),
    ("one reader", &[("wait", 1)]),
    ("mprotect and truncate", &[("write", 2)]),
    ("flock and record locks", &[("lock", 2)]),
    ("FUTEX_REQUEUE of a waiting reader", &[("wait", 1), ("requeue", 1)]),
    ("a reader stopped while it reads", &[("stop", 4)]),
    ("200 waiting readers", &[("wait", 200)]),
    ("all of it", &[("wait", 200), ("write", 1), ("lock", 1), ("requeue", 1), ("stop", 4)]),
];

fn main() {
    if let (Ok(role), Some(ring)) = (std::env::var(ROLE), std::env::var_os(RING)) {
        return be_hostile(&role, Path::new(&ring));
    }
    let frames = std::env::var("HOSTILE_FRAMES").map_or(20_000, |n| n.parse().expect("a number"));
    println!(
        "{:<38} {:>9} {:>9} {:>6} {:>9} {:>9} {:>6}",
        "besides the writer", "commit", "p99", "ratio", "wake", "p99", "ratio"
    );
    let mut alone = None;
    for (name, roles) in CASES {
        let (commit, wake) = measure(frames, roles);
        let (commit_alone, wake_alone) = *alone.get_or_insert((commit[0], wake[0]));
        println!(
            "{name:<38} {:>6} ns {:>6} ns {:>6.2} {:>6} ns {:>6} ns {:>6.1}",
            commit[0],
            commit[1],
            commit[0] as f64 / commit_alone as f64,
            wake[0],
            wake[1],
            wake[0] as f64 / wake_alone as f64
        );
    }
}

/// Median and 99th percentile of a commit with its appends, and of a wake, in nanoseconds.
fn measure(frames: usize, roles: &[(&str, usize)]) -> ([u64; 2], [u64; 2]) {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
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
    let bytes = vec![0x5A; FRAME_SIZE];
    writer.append(&bytes).expect("room");
    writer.commit(&FrameDescriptor::default(), &mut bell);
    let mut others = Children(Vec::new());
    for &(role, count) in roles {
        others.0.extend((0..count).map(|_| start(role, &ring)));
    }
    // Until they are at work.
    std::thread::sleep(Duration::from_millis(200 + 10 * others.0.len() as u64));
    let (flag, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let target = writer.wake_target();
    let mut commits = Vec::with_capacity(frames);
    let wakes = std::thread::scope(|scope| {
        let waker = scope.spawn(|| {
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
    (percentiles(commits), percentiles(wakes))
}

fn percentiles(mut times: Vec<u64>) -> [u64; 2] {
    times.sort_unstable();
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}

/// Children that do not outlive a case.
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

fn start(role: &str, ring: &Path) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program).env(ROLE, role).env(RING, ring).stdin(Stdio::null()).spawn().expect("a process")
}

/// Until it is killed.
fn be_hostile(role: &str, ring: &Path) {
    let ctl = File::open(ring.join("ctl")).expect("ctl");
    // SAFETY: a new mapping, which nothing else refers to.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), 8192, libc::PROT_READ, libc::MAP_SHARED, ctl.as_raw_fd(), 0) };
    assert_ne!(base, libc::MAP_FAILED);
    if role == "wait" {
        let mut reader = Reader::open(ring, Start::Live).expect("a ring");
        loop {
            let _ = reader.next(Duration::from_secs(1));
        }
    }
    if role == "stop" {
        let mut reader = Reader::open(ring, Start::Oldest).expect("a ring");
        let _reading = reader.next_borrowed(Duration::from_secs(1));
        // SAFETY: a signal to ourselves.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
    loop {
        match role {
            "write" => {
                // SAFETY: rights and sizes that are refused.
                unsafe {
                    libc::mprotect(base, 8192, libc::PROT_READ | libc::PROT_WRITE);
                    libc::ftruncate(ctl.as_raw_fd(), 0);
                }
            }
            "lock" => {
                for name in ["", "ctl", "data", "writer.lock"] {
                    let file = File::open(ring.join(name)).expect("a file of the ring");
                    let _ = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
                }
            }
            "requeue" => {
                let most = libc::c_long::from(i32::MAX);
                let (futex, elsewhere) = (base.wrapping_byte_add(layout::FUTEX), base.wrapping_byte_add(0xFC0));
                // SAFETY: both words lie in the mapping, and the call reads neither of them.
                unsafe { libc::syscall(libc::SYS_futex, futex, libc::FUTEX_REQUEUE, 0, most, elsewhere, 0) };
            }
            _ => {}
        }
        std::thread::sleep(ATTEMPTS);
    }
}
