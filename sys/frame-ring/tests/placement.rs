//! Rings on hugetlbfs and on a NUMA node. The first needs root and two free huge pages, which it reserves and gives back.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{directory, payload, spec};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::memory::{BoundThread, HugePages};
use headworks_frame_ring::placement;
use headworks_frame_ring::reader::{Next, Reader, Start};

const COUNT: &str = "/proc/sys/vm/nr_hugepages";
const HUGE: u64 = 2 << 20;

/// A mount of hugetlbfs with free pages of 2 MiB.
struct Pages {
    mount: tempfile::TempDir,
    count_before: String,
    /// Held by one test at a time, in whatever process: the host has one number of pages.
    _turn: fs::File,
}

impl Pages {
    /// `None`, and said, where that cannot be had.
    fn reserve(count: u64, page_size: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("only root reserves pages");
        }
        let turn = fs::File::create(std::env::temp_dir().join("headworks-test-huge-pages.lock")).unwrap();
        turn.lock().unwrap();
        let count_before = fs::read_to_string(COUNT).unwrap_or_default();
        let Ok(before) = count_before.trim().parse::<u64>() else { return skip("this kernel has none") };
        if fs::write(COUNT, (before + count).to_string()).is_err() {
            return skip("vm.nr_hugepages cannot be set");
        }
        let pages = Self { mount: tempfile::tempdir().unwrap(), count_before, _turn: turn };
        let now: u64 = fs::read_to_string(COUNT).unwrap().trim().parse().unwrap();
        if now < before + count {
            return skip("no memory in one piece is left");
        }
        // No more than these, whatever else the host has set aside.
        let options = format!("{page_size},size={}", count * HUGE);
        let status = Command::new("mount").args(["-t", "hugetlbfs", "-o", &options, "none"]).arg(pages.path()).status();
        if !status.is_ok_and(|status| status.success()) {
            return skip("hugetlbfs cannot be mounted");
        }
        Some(pages)
    }

    fn path(&self) -> &Path {
        self.mount.path()
    }

    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

/// Says so past the test's own capture of output.
fn skip<T>(why: &str) -> Option<T> {
    let _ = writeln!(std::io::stderr(), "SKIPPED: rings on hugetlbfs are not tested: {why}");
    None
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mount.path()).status();
        let _ = fs::write(COUNT, &self.count_before);
    }
}

#[test]
fn a_ring_on_hugetlbfs_is_read_taken_up_and_removed_like_any_other() {
    let Some(pages) = Pages::reserve(2, "pagesize=2M") else { return };
    let root = directory();
    let stream = root.path().join("cam1");
    fs::create_dir(&stream).unwrap();
    let mut bell = BellWriter::create(&stream).unwrap();
    let wanted = RingSpec { data_capacity: 2 * HUGE, ..spec() };
    let temporary = stream.join(".tmp-1-video0");
    let mut writer = builder::create_on(&temporary, &wanted, Some(pages.path())).unwrap();
    assert_eq!(writer.placement().pages, HugePages::Reserved);
    assert_eq!((writer.placement().hugetlbfs_refused, writer.header().backing_page_size), (None, HUGE as u32));
    let ring = stream.join("video0");
    builder::publish(&temporary, &ring).unwrap();
    let data = fs::metadata(ring.join("data")).unwrap();
    assert_eq!((data.len(), data.mode() & 0o777), (2 * HUGE, 0o640));

    // More than the ring holds, so that frames lie over its end.
    let bytes = payload(1, 60_000);
    for _ in 0..100 {
        writer.append(&bytes).unwrap();
        writer.commit(&FrameDescriptor::default(), &mut bell);
    }
    let mut reader = Reader::open(&ring, Start::Oldest).unwrap();
    reader.verify_checksums(true);
    let backing = reader.backing().unwrap();
    assert_eq!((backing.page_size, backing.huge), (HUGE, 2 * HUGE));
    let mut count = 0;
    while let Next::Frame(frame) = reader.next(Duration::ZERO).unwrap() {
        assert_eq!(frame.payload, bytes);
        count += 1;
    }
    assert!(count >= 60, "{count}");

    drop(writer);
    let mut writer = builder::attach(&ring, &wanted).unwrap();
    writer.append(&bytes).unwrap();
    writer.commit(&FrameDescriptor::default(), &mut bell);
    assert!(matches!(reader.next(Duration::ZERO).unwrap(), Next::Frame(_)));

    // All pages are taken: the next ring lies on tmpfs.
    let second = builder::create_on(&stream.join("video1"), &wanted, Some(pages.path())).unwrap();
    assert!(second.placement().hugetlbfs_refused.is_some());
    assert_ne!(second.placement().pages, HugePages::Reserved);
    assert!(fs::symlink_metadata(stream.join("video1/data")).unwrap().is_file());
    // Of less than a page: it is not even tried.
    let small = builder::create_on(&stream.join("audio0"), &spec(), Some(pages.path())).unwrap();
    assert_eq!(small.placement().hugetlbfs_refused, None);

    assert_eq!(pages.files().len(), 1);
    drop((writer, second, small));
    let stranger = pages.path().join("not-a-payload");
    fs::create_dir(&stranger).unwrap();
    assert_eq!(placement::sweep_hugetlbfs(pages.path(), root.path()).unwrap(), 0);
    placement::remove(&stream).unwrap();
    assert_eq!(pages.files(), std::slice::from_ref(&stranger));
    // A reader keeps what it has mapped.
    assert_eq!(reader.backing().unwrap().huge, 2 * HUGE);
    drop(reader);

    let lost = root.path().join("cam2");
    drop(builder::create_on(&lost, &wanted, Some(pages.path())).unwrap());
    fs::remove_dir_all(&lost).unwrap();
    assert_eq!(pages.files().len(), 2);
    assert_eq!(placement::sweep_hugetlbfs(pages.path(), root.path()).unwrap(), 1);
    assert_eq!(pages.files(), std::slice::from_ref(&stranger));
    fs::remove_dir(stranger).unwrap();
}

/// The lines of `numa_maps` for a file: policy, and pages on each node.
fn numa_maps(path: &Path) -> Vec<String> {
    let maps = fs::read_to_string("/proc/thread-self/numa_maps").unwrap();
    maps.lines().filter(|line| line.contains(path.to_str().unwrap())).map(str::to_owned).collect()
}

/// What the kernel says of memory that has no policy of its own: this thread's.
fn policy_of_this_thread() -> String {
    let maps = fs::read_to_string("/proc/thread-self/numa_maps").unwrap();
    let stack = maps.lines().find(|line| line.contains(" stack ")).expect("a stack");
    stack.split(' ').nth(1).expect("a policy").to_owned()
}

/// With one node every page is on it: that they come from the one asked for, and from no other, takes a host that has several. What can
/// be seen here is that it was not the mapping that was bound, which hugetlbfs does not ask when it allocates, and that the thread is
/// not any more.
#[test]
fn a_ring_on_hugetlbfs_takes_its_pages_while_its_thread_is_bound_to_the_node() {
    let Some(pages) = Pages::reserve(2, "pagesize=2M") else { return };
    if !Path::new("/sys/devices/system/node/node0").exists() {
        return;
    }
    let root = directory();
    let wanted = RingSpec { data_capacity: HUGE, numa_node: Some(0), frame_size_max: 64 << 10, ..spec() };
    let before = policy_of_this_thread();
    let ring = builder::create_on(&root.path().join("first"), &wanted, Some(pages.path())).unwrap();
    let placement = ring.placement();
    assert_eq!(
        (placement.pages, placement.hugetlbfs_refused, placement.node_refused),
        (HugePages::Reserved, None, None)
    );
    assert_eq!(ring.header().numa_node, 0);
    let lines = numa_maps(&pages.files()[0]);
    assert_eq!(lines.len(), 2, "two views: {lines:?}");
    let found = |line: &String| [" default ", " huge ", " N0=1 "].iter().all(|part| line.contains(part));
    assert!(lines.iter().all(found), "{lines:?}");
    assert_eq!(policy_of_this_thread(), before);
    // A node that is not there is no reason to lie on tmpfs.
    let elsewhere = RingSpec { numa_node: Some(63), ..wanted };
    let ring = builder::create_on(&root.path().join("second"), &elsewhere, Some(pages.path())).unwrap();
    assert_eq!((ring.placement().pages, ring.header().numa_node), (HugePages::Reserved, -1));
    assert_eq!(ring.placement().node_refused, Some(22), "EINVAL");
    assert_eq!(policy_of_this_thread(), before);
}

#[test]
fn a_thread_is_bound_as_long_as_it_wants_and_then_has_the_policy_it_had() {
    if !Path::new("/sys/devices/system/node/node0").exists() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: this kernel has no NUMA nodes");
        return;
    }
    let before = policy_of_this_thread();
    let bound = BoundThread::to_node(0).unwrap();
    assert_eq!(policy_of_this_thread(), "bind:0");
    let again = BoundThread::to_node(0).unwrap();
    assert_eq!(BoundThread::to_node(63).unwrap_err().raw_os_error(), Some(22), "EINVAL");
    drop(again);
    assert_eq!(policy_of_this_thread(), "bind:0");
    drop(bound);
    assert_eq!(policy_of_this_thread(), before);
    assert_eq!(BoundThread::to_node(5_000).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn pages_of_a_gibibyte_are_refused_and_the_ring_lies_on_tmpfs() {
    let Some(pages) = Pages::reserve(0, "pagesize=1G") else { return };
    assert_eq!(placement::huge_page_size(pages.path()).unwrap(), Some(1 << 30));
    let root = directory();
    let wanted = RingSpec { data_capacity: 2 * HUGE, ..spec() };
    let ring = builder::create_on(&root.path().join("first"), &wanted, Some(pages.path())).unwrap();
    assert_eq!((ring.placement().hugetlbfs_refused, ring.header().backing_page_size), (Some(22), 4096), "EINVAL");
    assert_eq!(pages.files(), Vec::<PathBuf>::new());
}

#[test]
fn a_ring_lies_on_the_node_asked_for() {
    let root = directory();
    let wanted = |node| RingSpec { numa_node: node, data_capacity: 2 * HUGE, ..spec() };
    let any = builder::create(&root.path().join("any"), &wanted(None)).unwrap();
    assert_eq!((any.header().numa_node, any.placement().node_refused), (-1, None));
    let none = builder::create(&root.path().join("none"), &wanted(Some(63))).unwrap();
    assert_eq!(none.header().numa_node, -1);
    assert!(none.placement().node_refused.is_some());
    if !Path::new("/sys/devices/system/node/node0").exists() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: this kernel has no NUMA nodes");
        return;
    }
    let first = builder::create(&root.path().join("first"), &wanted(Some(0))).unwrap();
    assert_eq!((first.header().numa_node, first.placement().node_refused), (0, None));
    // Where its pages are, by the kernel's own account of the mapping.
    let lines = numa_maps(&root.path().join("first/data"));
    assert!(
        !lines.is_empty() && lines.iter().all(|line| line.contains(" bind:0 ") && line.contains(" N0=")),
        "{lines:?}"
    );
}
