//! Where the payloads of rings lie, and what is said of it.

use std::io;
use std::path::{Path, PathBuf};

use headworks_frame_ring::builder::RingSpec;
use headworks_frame_ring::directory as names;
use headworks_frame_ring::layout::Header;
use headworks_frame_ring::memory::HugePages;
use headworks_frame_ring::placement::{self, Placement};
use headworks_frame_ring::writer::Writer;

use super::OutputOptions;

/// This root's directory on hugetlbfs; `None`, and said, when it cannot be had.
pub(super) fn prepare_hugetlbfs(mount: &Path, options: &OutputOptions) -> Option<PathBuf> {
    // Of one root alone, so that another appliance's payloads are not swept.
    let directory = mount.join(names::encode_name(&options.root.to_string_lossy()));
    match judge_hugetlbfs(mount)
        .and_then(|_| names::create_root(&directory, &options.group).map_err(|error| error.to_string()))
    {
        Ok(_) => Some(directory),
        Err(error) => {
            tracing::warn!("output.hugetlbfs is not used, rings lie on tmpfs: {error}");
            None
        }
    }
}

/// Whether a directory is on hugetlbfs, with pages that rings can lie in.
///
/// # Errors
/// Why not.
pub fn judge_hugetlbfs(mount: &Path) -> Result<(), String> {
    let shown = mount.display();
    match placement::huge_page_size(mount) {
        Ok(Some(size)) if size > placement::PAGE_SIZE_MAX => {
            let mib = |bytes: u64| bytes >> 20;
            Err(format!("{shown} has pages of {} MiB, rings need {} MiB", mib(size), mib(placement::PAGE_SIZE_MAX)))
        }
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("{shown} is on another file system")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// The node that a ring is bound to.
pub(super) fn node_of(writer: &Writer) -> Option<u32> {
    u32::try_from(writer.header().numa_node).ok()
}

/// What is to be said of a ring's memory, and whether it is less than was asked for.
pub(super) fn describe_placement(placement: &Placement, node: Option<u32>) -> Vec<(bool, String)> {
    let reason = |errno: i32| io::Error::from_raw_os_error(errno);
    let mut texts = Vec::new();
    let pages = match placement.pages {
        HugePages::Reserved => Some("rings lie on hugetlbfs".to_owned()),
        HugePages::Collapsed => Some("rings lie on tmpfs, in huge pages".to_owned()),
        HugePages::Refused(errno) => {
            Some(format!("rings lie in small pages: the kernel makes no huge ones of them ({})", reason(errno)))
        }
        HugePages::TooSmall | HugePages::NotAsked => None,
    };
    texts.extend(pages.map(|text| (matches!(placement.pages, HugePages::Refused(_)), text)));
    texts.extend(placement.hugetlbfs_refused.map(|errno| {
        let why = reason(errno);
        (true, format!("rings do not fit on output.hugetlbfs ({why}): set more pages aside, sysctl vm.nr_hugepages"))
    }));
    texts.extend(placement.node_refused.zip(node).map(|(errno, node)| {
        (true, format!("rings are not bound to NUMA node {node} of their shard: {}", reason(errno)))
    }));
    texts
}

/// Where a ring that was taken up does not lie as it is wished now; `page_size` is that of `output.hugetlbfs`.
pub(super) fn describe_taken_up(header: &Header, spec: &RingSpec, page_size: Option<u64>) -> Vec<String> {
    const CURE: &str = "until they have ended and `output.retention` is over";
    let mut texts = Vec::new();
    let node = u32::try_from(header.numa_node).ok();
    if let Some(wanted) = spec.numa_node.filter(|&wanted| node.is_some_and(|node| node != wanted)) {
        let node = header.numa_node;
        texts.push(format!("rings of an earlier run stay on NUMA node {node}, not their shard's {wanted}, {CURE}"));
    }
    let fits = |page_size: &u64| header.data_capacity.is_multiple_of(*page_size);
    if page_size.filter(fits).is_some_and(|page_size| u64::from(header.backing_page_size) != page_size) {
        texts.push(format!("rings of an earlier run stay on tmpfs, not on output.hugetlbfs, {CURE}"));
    }
    texts
}

pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let facts = rustix::fs::statvfs(path)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}
