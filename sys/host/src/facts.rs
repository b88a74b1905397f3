//! Facts about the host that decide how well Headworks runs: read, not judged. `headworks check` and start-up do the judging.
//!
//! Every function takes the root of the file system, `/` in life, a made-up tree in tests. What cannot be read is `None`: the file
//! is absent on some kernels and in some containers.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// A resource limit. `u64::MAX` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What applies now.
    pub soft: u64,
    /// Up to where the process may raise it itself.
    pub hard: u64,
}

/// Resource limits of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Locked memory, bytes.
    pub memlock: Option<Limit>,
    /// Open files.
    pub open_files: Option<Limit>,
    /// Highest real-time priority that may be asked for.
    pub realtime_priority: Option<Limit>,
}

/// Huge pages of 2 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    /// Reserved.
    pub total: u64,
    /// Of those, not in use.
    pub free: u64,
}

/// What this process may do beyond an ordinary user (`CapEff`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Socket buffers beyond the system's limit.
    pub fn net_admin(self) -> bool {
        self.has(12)
    }

    /// XDP sockets, raw sockets.
    pub fn net_raw(self) -> bool {
        self.has(13)
    }

    /// Locked memory beyond the limit.
    pub fn ipc_lock(self) -> bool {
        self.has(14)
    }

    /// Real-time scheduling beyond the limit.
    pub fn sys_nice(self) -> bool {
        self.has(23)
    }

    /// BPF programs: `CAP_BPF`, or `CAP_SYS_ADMIN`, which holds it.
    pub fn bpf(self) -> bool {
        self.has(39) || self.has(21)
    }

    fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
}

/// `kernel.io_uring_disabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoUringPolicy {
    /// 0, or a kernel older than the setting.
    Allowed,
    /// 1: for CAP_SYS_ADMIN and `kernel.io_uring_group` only.
    Restricted,
    /// 2: for nobody.
    Forbidden,
}

/// Room in a file system, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// Left for this user.
    pub free: u64,
}

/// The limit on memory that leaves this process the least: that of its own cgroup, or of one above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryCgroup {
    /// Its `memory.max`.
    pub file: PathBuf,
    /// What stands in it, bytes.
    pub limit: u64,
    /// What is left below it, bytes, together with what the kernel can take back from cached files.
    pub free: u64,
}

/// All of it, see the functions of the same names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// `uname -r`.
    pub kernel_release: Option<String>,
    /// Whether io_uring is switched off. Whether it works is for the packet ring to find out.
    pub io_uring: IoUringPolicy,
    /// Resource limits.
    pub limits: Limits,
    /// Largest receive buffer an ordinary user gets, bytes.
    pub rmem_max: Option<u64>,
    /// Largest send buffer, likewise.
    pub wmem_max: Option<u64>,
    /// Reserved huge pages.
    pub huge_pages: Option<HugePages>,
    /// Use of transparent huge pages in shared memory: `always`, `within_size`, `advise`, `never`, `deny`, `force`.
    pub shmem_huge_pages: Option<String>,
    /// Frequency governor of each core that has one.
    pub governors: Vec<(usize, String)>,
    /// Cores the scheduler leaves alone (`isolcpus=`).
    pub isolated_cores: Vec<usize>,
    /// What this process may do.
    pub capabilities: Option<Capabilities>,
    /// Shared memory, where the rings are.
    pub shared_memory: Option<Space>,
    /// What a cgroup leaves of memory, if one has a limit.
    pub memory_cgroup: Option<MemoryCgroup>,
}

impl HostFacts {
    /// Reads everything.
    pub fn read(root: &Path) -> Self {
        Self {
            kernel_release: read_kernel_release(root),
            io_uring: read_io_uring_policy(root),
            limits: read_limits(root),
            rmem_max: read_rmem_max(root),
            wmem_max: read_wmem_max(root),
            huge_pages: read_huge_pages(root),
            shmem_huge_pages: read_shmem_huge_pages(root),
            governors: read_governors(root),
            isolated_cores: read_isolated_cores(root),
            capabilities: read_capabilities(root),
            shared_memory: read_space(&root.join("dev/shm")),
            memory_cgroup: read_memory_cgroup(root),
        }
    }
}

fn read_line(root: &Path, path: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(path)).ok()?;
    Some(text.trim().to_owned())
}

fn read_number(root: &Path, path: &str) -> Option<u64> {
    read_line(root, path)?.parse().ok()
}

/// `uname -r`.
pub fn read_kernel_release(root: &Path) -> Option<String> {
    read_line(root, "proc/sys/kernel/osrelease")
}

/// Major and minor number of a kernel release such as `6.1.0-37-amd64`.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// `kernel.io_uring_disabled`.
pub fn read_io_uring_policy(root: &Path) -> IoUringPolicy {
    match read_number(root, "proc/sys/kernel/io_uring_disabled") {
        None | Some(0) => IoUringPolicy::Allowed,
        Some(1) => IoUringPolicy::Restricted,
        Some(_) => IoUringPolicy::Forbidden,
    }
}

/// Resource limits of this process.
pub fn read_limits(root: &Path) -> Limits {
    let text = fs::read_to_string(root.join("proc/self/limits")).unwrap_or_default();
    let find = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut values = rest.split_whitespace().map(|value| match value {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        });
        Some(Limit { soft: values.next()??, hard: values.next()?? })
    };
    Limits {
        memlock: find("Max locked memory"),
        open_files: find("Max open files"),
        realtime_priority: find("Max realtime priority"),
    }
}

/// `net.core.rmem_max`, bytes.
pub fn read_rmem_max(root: &Path) -> Option<u64> {
    read_number(root, "proc/sys/net/core/rmem_max")
}

/// `net.core.wmem_max`, bytes.
pub fn read_wmem_max(root: &Path) -> Option<u64> {
    read_number(root, "proc/sys/net/core/wmem_max")
}

/// A number below `/proc/sys` by its name, such as `net.core.netdev_budget`.
pub fn read_sysctl(root: &Path, name: &str) -> Option<u64> {
    read_number(root, &format!("proc/sys/{}", name.replace('.', "/")))
}

/// Reserved huge pages of 2 MiB.
pub fn read_huge_pages(root: &Path) -> Option<HugePages> {
    let directory = "sys/kernel/mm/hugepages/hugepages-2048kB";
    Some(HugePages {
        total: read_number(root, &format!("{directory}/nr_hugepages"))?,
        free: read_number(root, &format!("{directory}/free_hugepages"))?,
    })
}

/// The choice in `/sys/kernel/mm/transparent_hugepage/shmem_enabled`, which the kernel puts in brackets.
pub fn read_shmem_huge_pages(root: &Path) -> Option<String> {
    let line = read_line(root, "sys/kernel/mm/transparent_hugepage/shmem_enabled")?;
    // Where there is but one word, it is the one.
    let chosen = line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    Some(chosen.map_or(line.as_str(), |(chosen, _)| chosen).to_owned())
}

/// Numbers and directories of all cores, in ascending order.
fn core_directories(root: &Path) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = fs::read_dir(root.join("sys/devices/system/cpu")) else {
        return Vec::new();
    };
    let mut cores: Vec<(usize, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix("cpu")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    cores.sort();
    cores
}

/// Frequency governor of each core that has one. Virtual machines have none.
pub fn read_governors(root: &Path) -> Vec<(usize, String)> {
    core_directories(root)
        .into_iter()
        .filter_map(|(core, path)| Some((core, read_line(&path, "cpufreq/scaling_governor")?)))
        .collect()
}

/// The NUMA node of a core, on hosts that have nodes.
pub fn read_numa_node(root: &Path, core: usize) -> Option<usize> {
    let directory = root.join(format!("sys/devices/system/cpu/cpu{core}"));
    fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.strip_prefix("node")?.parse().ok()
    })
}

/// NUMA nodes with memory; 0 where the kernel knows none.
pub fn read_numa_node_count(root: &Path) -> usize {
    let list = read_line(root, "sys/devices/system/node/has_memory").unwrap_or_default();
    parse_core_list(&list).len()
}

/// Cores that are switched on.
pub fn read_online_cores(root: &Path) -> Vec<usize> {
    parse_core_list(&read_line(root, "sys/devices/system/cpu/online").unwrap_or_default())
}

/// Cores the scheduler leaves alone.
pub fn read_isolated_cores(root: &Path) -> Vec<usize> {
    let list = read_line(root, "sys/devices/system/cpu/isolated").unwrap_or_default();
    parse_core_list(&list)
}

/// The kernel's notation for sets of cores: `1-3,6`. What does not fit it is left out; no list has more than 65,536 cores.
pub fn parse_core_list(list: &str) -> Vec<usize> {
    const MOST: usize = 1 << 16;
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse::<usize>()) else {
            continue;
        };
        cores.extend((first..=last.min(MOST)).take(MOST - cores.len()));
    }
    cores
}

/// What this process may do beyond an ordinary user.
pub fn read_capabilities(root: &Path) -> Option<Capabilities> {
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok().map(Capabilities)
}

/// Room in the file system of `path`.
pub fn read_space(path: &Path) -> Option<Space> {
    let info = rustix::fs::statvfs(path).ok()?;
    Some(Space {
        total: info.f_blocks.saturating_mul(info.f_frsize),
        free: info.f_bavail.saturating_mul(info.f_frsize),
    })
}

/// The memory cgroup (v2) that leaves this process the least; `None` where none has a limit, or none is to be seen.
pub fn read_memory_cgroup(root: &Path) -> Option<MemoryCgroup> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let path = Path::new(own.lines().find_map(|line| line.strip_prefix("0::/"))?);
    // From within a namespace, a cgroup outside it has a path that leads out of what is to be seen.
    let is_seen = path.components().all(|component| matches!(component, Component::Normal(_)));
    let path = if is_seen { path } else { Path::new("") };
    let read = |directory: PathBuf| {
        let limit = read_number(&directory, "memory.max")?;
        let used = read_number(&directory, "memory.current")?;
        let statistics = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
        let of_files = ["active_file ", "inactive_file "].into_iter();
        let cached: u64 = of_files
            .filter_map(|name| statistics.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok()))
            .fold(0, u64::saturating_add);
        let free = limit.saturating_sub(used.saturating_sub(cached));
        Some(MemoryCgroup { file: directory.join("memory.max"), limit, free })
    };
    let hierarchy = root.join("sys/fs/cgroup");
    path.ancestors().filter_map(|above| read(hierarchy.join(above))).min_by_key(|cgroup| cgroup.free)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_tuned_host_is_read() {
        let thp = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
        let huge = "sys/kernel/mm/hugepages/hugepages-2048kB";
        let root = tree(&[
            ("proc/sys/kernel/osrelease", "6.1.0-37-amd64\n"),
            ("proc/sys/kernel/io_uring_disabled", "1\n"),
            ("proc/sys/net/core/rmem_max", "26214400\n"),
            ("proc/sys/net/core/wmem_max", "4194304\n"),
            (
                "proc/self/limits",
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max open files            1024                 524288               files     \n\
                 Max locked memory         8388608              unlimited            bytes     \n\
                 Max realtime priority     0                    99                             \n",
            ),
            ("proc/self/status", "Name:\tx\nCapEff:\t0000000000801000\n"),
            (&format!("{huge}/nr_hugepages"), "512\n"),
            (&format!("{huge}/free_hugepages"), "500\n"),
            (thp, "always within_size [advise] never deny force\n"),
            ("sys/devices/system/cpu/cpu10/cpufreq/scaling_governor", "powersave\n"),
            ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpu2/node1/x", ""),
            ("sys/devices/system/node/has_memory", "0-1\n"),
            ("sys/devices/system/cpu/cpufreq/x", ""),
            ("sys/devices/system/cpu/isolated", "2-4,10\n"),
            ("dev/shm/x", ""),
        ]);
        let facts = HostFacts::read(root.path());
        assert_eq!(facts.kernel_release.as_deref(), Some("6.1.0-37-amd64"));
        assert_eq!(facts.io_uring, IoUringPolicy::Restricted);
        assert_eq!((facts.rmem_max, facts.wmem_max), (Some(26_214_400), Some(4_194_304)));
        assert_eq!(
            facts.limits,
            Limits {
                memlock: Some(Limit { soft: 8_388_608, hard: u64::MAX }),
                open_files: Some(Limit { soft: 1024, hard: 524_288 }),
                realtime_priority: Some(Limit { soft: 0, hard: 99 }),
            }
        );
        let capabilities = facts.capabilities.unwrap();
        assert!(capabilities.net_admin() && capabilities.sys_nice());
        assert!(!capabilities.net_raw() && !capabilities.ipc_lock());
        assert_eq!(facts.huge_pages, Some(HugePages { total: 512, free: 500 }));
        assert_eq!(facts.shmem_huge_pages.as_deref(), Some("advise"));
        assert_eq!(facts.governors, [(2, "performance".into()), (10, "powersave".into())]);
        assert_eq!(facts.isolated_cores, [2, 3, 4, 10]);
        assert_eq!(read_numa_node(root.path(), 2), Some(1));
        assert_eq!(read_numa_node_count(root.path()), 2);
        assert_eq!(read_numa_node(root.path(), 10), None);
        assert!(facts.shared_memory.unwrap().total > 0);
    }

    #[test]
    fn a_host_that_shows_nothing_is_no_error() {
        let root = tree(&[("proc/self/limits", "Max open files  lots  more\n")]);
        let facts = HostFacts::read(root.path());
        assert_eq!(
            facts,
            HostFacts {
                kernel_release: None,
                io_uring: IoUringPolicy::Allowed,
                limits: Limits::default(),
                rmem_max: None,
                wmem_max: None,
                huge_pages: None,
                shmem_huge_pages: None,
                governors: Vec::new(),
                isolated_cores: Vec::new(),
                capabilities: None,
                shared_memory: None,
                memory_cgroup: None,
            }
        );
    }

    #[test]
    fn the_memory_cgroup_that_leaves_the_least_is_found_wherever_it_is_above() {
        let slice = "sys/fs/cgroup/system.slice";
        let service = "sys/fs/cgroup/system.slice/headworks.service";
        let root = tree(&[
            ("proc/self/cgroup", "4:memory:/other\n0::/system.slice/headworks.service\n"),
            ("sys/fs/cgroup/cgroup.controllers", "memory\n"),
            (&format!("{slice}/memory.max"), "8000\n"),
            (&format!("{slice}/memory.current"), "7000\n"),
            (&format!("{slice}/memory.stat"), "anon 5000\nshmem 100\nactive_file 1000\ninactive_file 600\n"),
            (&format!("{service}/memory.max"), "max\n"),
            (&format!("{service}/memory.current"), "5000\n"),
        ]);
        let found = |root: &tempfile::TempDir| read_memory_cgroup(root.path()).map(|it| (it.limit, it.free, it.file));
        let file = |path: &str| root.path().join(path).join("memory.max");
        assert_eq!(found(&root), Some((8_000, 2_600, file(slice))));
        fs::write(file(service), "6000\n").unwrap();
        assert_eq!(found(&root), Some((6_000, 1_000, file(service))));
        fs::write(file(service), "4000\n").unwrap();
        assert_eq!(found(&root), Some((4_000, 0, file(service))));
        // In a container that sees its own cgroup as the root.
        let own = [("proc/self/cgroup", "0::/../../x\n"), ("sys/fs/cgroup/memory.max", "500\n")];
        let root = tree(&[&own[..], &[("sys/fs/cgroup/memory.current", "100\n")]].concat());
        assert_eq!(found(&root).map(|(limit, free, _)| (limit, free)), Some((500, 400)));
        let unlimited = [("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")];
        assert_eq!(found(&tree(&unlimited)), None);
    }

    #[test]
    fn this_host_shows_the_essentials() {
        let facts = HostFacts::read(Path::new("/"));
        let release = facts.kernel_release.unwrap();
        assert!(kernel_version(&release).unwrap() >= (5, 0));
        assert!(facts.limits.open_files.unwrap().soft > 0);
        assert!(facts.capabilities.is_some());
    }

    #[test]
    fn kernel_releases_are_understood() {
        assert_eq!(kernel_version("6.1.0-37-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("6.18"), Some((6, 18)));
        assert_eq!(kernel_version("custom"), None);
    }

    #[test]
    fn core_lists_are_understood_and_bounded() {
        assert_eq!(parse_core_list(""), [0usize; 0]);
        assert_eq!(parse_core_list("0,2-3, 7"), [0, 2, 3, 7]);
        assert_eq!(parse_core_list("x,1-,3"), [3]);
        assert_eq!(parse_core_list("0-18446744073709551615").len(), 1 << 16);
    }
}
