//! Where the payload of a ring lies: on which file system, which pages, which NUMA node. And its removal, for a payload on hugetlbfs
//! lies outside the ring's directory, which has a link to it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::builder::{RingSpec, new_file};
use crate::memory::{self, BoundThread, HugePages, MirroredData};

/// `statfs` of hugetlbfs.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
/// The largest pages that rings lie in: their two views begin at boundaries of so many bytes in every process.
pub const PAGE_SIZE_MAX: u64 = memory::HUGE_PAGE as u64;
/// Digits of the UUID that a payload's file there is named by.
const NAME_LEN: usize = 32;

/// What became of the wishes about a ring's memory. Errors are the system's `errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// What its pages are.
    pub pages: HugePages,
    /// Why it does not lie on hugetlbfs, though that was asked for.
    pub hugetlbfs_refused: Option<i32>,
    /// Why it is not bound to the NUMA node asked for.
    pub node_refused: Option<i32>,
}

impl Placement {
    /// Of a ring that was taken up as it is.
    pub(crate) const UNCHANGED: Self = Self { pages: HugePages::NotAsked, hugetlbfs_refused: None, node_refused: None };
}

/// A payload's memory, all of it allocated and mapped.
pub(crate) struct Placed {
    pub data: MirroredData,
    pub placement: Placement,
    /// The node it is bound to.
    pub node: Option<u32>,
    pub page_size: u32,
}

/// Makes the file `data` in `directory`, or a link there to one in `hugetlbfs`, which is used when the ring fills whole pages of it.
pub(crate) fn place(
    directory: &Path,
    spec: &RingSpec,
    hugetlbfs: Option<&Path>,
    uuid: &[u8; 16],
) -> io::Result<Placed> {
    let mut hugetlbfs_refused = None;
    if let Some(hugetlbfs) = hugetlbfs {
        match place_on_hugetlbfs(directory, spec, hugetlbfs, uuid) {
            Ok(Some(placed)) => return Ok(placed),
            Ok(None) => {}
            Err(error) => hugetlbfs_refused = Some(error.raw_os_error().unwrap_or(libc::EINVAL)),
        }
    }
    let file = new_file(directory, "data")?;
    file.set_len(spec.capacity())?;
    let data = MirroredData::map(&file, spec.capacity(), true)?;
    // Before the pages exist: binding does not move them.
    let bound = spec.numa_node.map(|node| data.bind(node));
    let (node, node_refused) = bound_to(spec.numa_node, bound);
    // In this order: a huge page is made of one small one, and clears what is not there yet; one that is made of 512 small ones copies
    // each, which takes many times as long. And there are 512 times fewer page table entries to fill once the pages are huge.
    memory::begin_huge_pages(&file, spec.capacity())?;
    let pages = data.collapse();
    memory::allocate(&file, spec.capacity())?;
    data.prefault();
    let placement = Placement { pages, hugetlbfs_refused, node_refused };
    Ok(Placed { data, placement, node, page_size: rustix::param::page_size() as u32 })
}

/// Bytes of the pages in a directory on hugetlbfs; `None` when it is on another file system.
///
/// # Errors
/// If it is not there.
pub fn huge_page_size(directory: &Path) -> io::Result<Option<u64>> {
    let facts = rustix::fs::statfs(directory)?;
    let page_size = facts.f_bsize as u64;
    Ok((facts.f_type as u64 == HUGETLBFS_MAGIC && page_size.is_power_of_two()).then_some(page_size))
}

/// `None` when the ring is no multiple of the pages there.
fn place_on_hugetlbfs(
    directory: &Path,
    spec: &RingSpec,
    hugetlbfs: &Path,
    uuid: &[u8; 16],
) -> io::Result<Option<Placed>> {
    let page_size = huge_page_size(hugetlbfs)?.ok_or_else(|| io::Error::from_raw_os_error(libc::EMEDIUMTYPE))?;
    if page_size > PAGE_SIZE_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if !spec.capacity().is_multiple_of(page_size) {
        return Ok(None);
    }
    let name: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = fs::canonicalize(hugetlbfs)?.join(&name);
    let link = directory.join("data");
    let made = || -> io::Result<Placed> {
        // The link first: what has one is not swept.
        symlink(&path, &link)?;
        let file = new_file(hugetlbfs, &name)?;
        let (data, node, node_refused) = fill(&file, spec)?;
        let placement = Placement { pages: HugePages::Reserved, hugetlbfs_refused: None, node_refused };
        Ok(Placed { data, placement, node, page_size: page_size as u32 })
    };
    made().map(Some).inspect_err(|_| {
        let _ = (fs::remove_file(&path), fs::remove_file(&link));
    })
}

fn fill(file: &File, spec: &RingSpec) -> io::Result<(MirroredData, Option<u32>, Option<i32>)> {
    file.set_len(spec.capacity())?;
    // Fails when too few pages are free: they are set aside with the first mapping.
    let data = MirroredData::map(file, spec.capacity(), true)?;
    // Held while the pages are taken: the mapping is not asked here whose they are.
    let bound = spec.numa_node.map(BoundThread::to_node);
    memory::allocate(file, spec.capacity())?;
    let (node, node_refused) = bound_to(spec.numa_node, bound);
    data.prefault();
    Ok((data, node, node_refused))
}

/// The node, or why not.
fn bound_to<T>(node: Option<u32>, bound: Option<io::Result<T>>) -> (Option<u32>, Option<i32>) {
    match bound {
        None => (None, None),
        Some(Ok(_)) => (node, None),
        Some(Err(error)) => (None, Some(error.raw_os_error().unwrap_or(libc::EINVAL))),
    }
}

/// Removes the directory of a ring, or of a stream with all its rings, and their payloads on hugetlbfs. Whoever has them mapped
/// keeps them.
///
/// # Errors
/// What the removal of the directory says.
pub fn remove(directory: &Path) -> io::Result<()> {
    let payloads = linked_payloads(directory);
    fs::remove_dir_all(directory)?;
    for payload in payloads {
        let _ = fs::remove_file(payload);
    }
    Ok(())
}

/// Removes the files in `hugetlbfs` that no ring below `root` has a link to: what is left when a root was removed by hand. Returns
/// how many. Rings of other roots must have a directory of their own there.
///
/// # Errors
/// If one of the two cannot be listed.
pub fn sweep_hugetlbfs(hugetlbfs: &Path, root: &Path) -> io::Result<usize> {
    // Before the links are looked at, which are made before the files.
    let entries = fs::read_dir(fs::canonicalize(hugetlbfs)?)?.flatten().map(|entry| entry.path());
    let payloads: Vec<PathBuf> = entries.filter(|path| is_payload(path)).collect();
    let mut linked = BTreeSet::new();
    for entry in fs::read_dir(root)?.flatten() {
        linked.extend(linked_payloads(&entry.path()));
    }
    Ok(payloads.iter().filter(|path| !linked.contains(*path) && fs::remove_file(path).is_ok()).count())
}

/// Where the links of a ring, or of the rings of a stream, lead.
fn linked_payloads(directory: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(directory.to_owned())
        .chain(below)
        .filter_map(|ring| fs::read_link(ring.join("data")).ok())
        .filter(|path| is_payload(path))
        .collect()
}

fn is_payload(path: &Path) -> bool {
    let name = path.file_name().map_or(&b""[..], |name| name.as_encoded_bytes());
    path.is_absolute() && name.len() == NAME_LEN && name.iter().all(u8::is_ascii_hexdigit)
}
