//! What this host has and lacks, each with its cure: for `check`, and for the lines at start.

mod dpdk;
mod tuned;

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use headworks_host::facts::{self, HostFacts, IoUringPolicy, MemoryCgroup, Space, kernel_version};
use headworks_host::{InstanceError, InstanceLock, probe_exclusive};

/// For commands that bring their own threads.
pub use headworks_host::{PinError, available_cores, pin_current_thread, raise_descriptor_limit, thread_cpu_time_ns};

use super::appliance::choose_cores;
use super::described::Described;
use super::net::backend::SLOT_SIZE;
use super::net::choice;
use super::net::sockets::first_call_from_a_port_of_ours;
use super::net::xdp::interfaces_for;
use super::packet_filters::PacketFilters;
use super::plan::{MemoryPlan, Taken};
use crate::config::{Config, PacketIo, stream_key};
use crate::media::TrackKind;
use crate::media::timestamp::CLOCK_RATE_90_KHZ;
use crate::output::OutputOptions;
use crate::output::directory::judge_hugetlbfs;
use crate::output::reader::directory::{RootError, check_root};

/// The oldest kernel whose io_uring has what the packet ring needs (deferred task work, multishot `recvmsg`).
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Descriptors that a stream takes: three tracks of four files, its bell, its share of sockets.
const DESCRIPTORS_PER_STREAM: u64 = 16;
/// Descriptors beside those.
const DESCRIPTORS_FIXED: u64 = 256;
/// Bytes of locked memory that kernels before 5.12 charge rings with. AF_XDP pins packet memory beside.
const MEMLOCK_MIN: u64 = 64 << 20;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Good,
    /// Would be better otherwise.
    Advice,
    /// Works, but not under full load.
    Degraded,
    /// Nothing can be served.
    Prevents,
}

impl Severity {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Advice => "advice",
            Self::Degraded => "degraded",
            Self::Prevents => "prevents",
        }
    }
}

/// One thing about the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub found: String,
    /// How it should be.
    pub wanted: String,
    /// How much it matters.
    pub severity: Severity,
    /// What mends it: a command where one does; `None` if nothing needs mending.
    pub cure: Option<String>,
}

impl Finding {
    /// `found` is as it should be, or `severity` with `cure`.
    fn new(
        what: &'static str,
        found: impl Into<String>,
        wanted: impl Into<String>,
        fault: Option<(Severity, String)>,
    ) -> Self {
        let (severity, cure) = fault.map_or((Severity::Good, None), |(severity, cure)| (severity, Some(cure)));
        Self { what, found: found.into(), wanted: wanted.into(), severity, cure }
    }
}

/// Everything but ports: what `serve` says at its start.
pub fn judge_host(config: &Config) -> Vec<Finding> {
    let facts = HostFacts::read(Path::new("/"));
    let available = available_cores();
    let cores = choose_cores(config);
    let mut findings = vec![judge_kernel(&facts, config), judge_io_uring(&facts, config)];
    let shards = cores.as_ref().map_or(1, |cores| cores.len().max(1));
    let plan = MemoryPlan::new(config, shards);
    let registrations = match interfaces_for(&config.shards.xdp_interfaces, &listening(config)) {
        Ok(interfaces) => xdp_registrations(Path::new("/"), &interfaces, shards),
        // Judged below.
        Err(_) => shards,
    };
    findings.extend(judge_limits(&facts, config, (registrations * plan.slots_per_shard * SLOT_SIZE) as u64));
    let named: Vec<usize> = cores.iter().flatten().copied().flatten().collect();
    findings.push(match &cores {
        Ok(_) => {
            let found = format!("shards run on {named:?}, everything else on {available:?}");
            Finding::new("cores", found, "cores that this process may be bound to", None)
        }
        Err(error) => Finding::new(
            "cores",
            format!("shards.cores is {:?}", config.shards.cores),
            "cores that this process may be bound to",
            Some((Severity::Prevents, error.to_string())),
        ),
    });
    findings.extend(tuned::judge(Path::new("/"), &facts, config, &named));
    findings.push(judge_capabilities(&facts, config));
    findings.extend(judge_xdp_interfaces(config));
    findings.extend(dpdk::judge(Path::new("/"), &facts, config, shards));
    findings.push(judge_memory(config, &plan, memory_available()));
    findings.extend(facts.memory_cgroup.as_ref().map(|cgroup| judge_memory_cgroup(&plan, cgroup)));
    findings.push(judge_shared_memory(config, space_of(&config.output.root)));
    findings.push(judge_root(&config.output.root));
    findings.extend(judge_ring_mount(config));
    findings.extend(judge_ring_pages(&facts, config, shards));
    findings
}

/// What only `ethtool` knows of the network cards; `serve` does not ask, for it starts no programs.
pub fn judge_cards(config: &Config) -> Vec<Finding> {
    tuned::judge_cards(Path::new("/"), OsStr::new("ethtool"), config)
}

/// Of all this what `tuning/tune` sets, on the host whose files stand below `root` and whose cards a program such as `ethtool` knows.
pub fn judge_tuning(root: &Path, ethtool: &OsStr, config: &Config) -> Vec<Finding> {
    let facts = HostFacts::read(root);
    let mut findings = tuned::judge(root, &facts, config, &config.shards.cores);
    findings.extend(tuned::judge_cards(root, ethtool, config));
    findings
}

/// Whether the configured ports are free; a running instance on the same rings may have them.
pub fn judge_ports(config: &Config) -> Vec<Finding> {
    let lock = config.output.root.join(".lock");
    if lock.exists()
        && let Err(InstanceError::Held { pid, .. }) = InstanceLock::acquire(&lock)
    {
        let process = pid.map(|pid| format!(" as process {pid}")).unwrap_or_default();
        return vec![Finding::new("ports", format!("headworks is running{process}"), "free, or ours", None)];
    }
    let ingestion = &config.ingestion;
    let mut wanted = Vec::new();
    // With DPDK the ports are none of the kernel's.
    let is_kernels = config.shards.packet_io != PacketIo::Dpdk;
    if is_kernels && ingestion.srt.enabled {
        wanted.push(("SRT port", "ingestion.srt.port", SocketAddr::new(ingestion.srt.address, ingestion.srt.port)));
    }
    if is_kernels && ingestion.rtp.enabled {
        let address = ingestion.rtp.address;
        wanted.push(("RTP port", "ingestion.rtp.port", SocketAddr::new(address, ingestion.rtp.port)));
        wanted.push(("RTCP port", "ingestion.rtp.rtcp_port", SocketAddr::new(address, ingestion.rtp.rtcp_port)));
    }
    let clash = Described::read(config).ok().and_then(|described| first_call_from_a_port_of_ours(&described));
    let mut findings: Vec<Finding> = wanted
        .into_iter()
        .map(|(what, key, address)| {
            judge_port(what, key, format!("{address} (UDP)"), probe_exclusive(address).err().map(|it| it.to_string()))
        })
        .collect();
    for (name, srt) in config.streams.iter().filter_map(|(name, stream)| Some((name, stream.srt.as_ref()?))) {
        let address = srt.bind();
        if address.port() != 0 {
            // Probes leave nothing behind that the next would find.
            let is_ours = clash.as_ref().is_some_and(|(what, _)| *what == stream_key(name, "srt"));
            let ours = || is_ours.then(|| "the configuration has it for something else too".to_owned());
            let fault = probe_exclusive(address).err().map(|it| it.to_string()).or_else(ours);
            let key = stream_key(name, "srt.local_port");
            findings.push(judge_port("SRT call port", &key, format!("{address} (UDP)"), fault));
        }
    }
    if config.control.enabled {
        let address = config.control.listen;
        let fault = TcpListener::bind(address).err().map(|error| error.to_string());
        findings.push(judge_port("control port", "control.listen", format!("{address} (TCP)"), fault));
    }
    findings
}

/// What SDP files say, and of it what cannot be received.
pub fn judge_descriptions(config: &Config) -> Vec<Finding> {
    let wanted = "a media section that can be received in each";
    match Described::read(config) {
        Ok(described) if described.media.is_empty() => Vec::new(),
        Ok(described) => {
            let found = format!("{} sections received", described.media.len());
            let fault = (!described.left_out.is_empty()).then(|| (Severity::Advice, described.left_out.join("; ")));
            vec![Finding::new("SDP files", found, wanted, fault)]
        }
        Err(error) => {
            let cure = "mend the file, or take the key out".to_owned();
            vec![Finding::new("SDP files", error.to_string(), wanted, Some((Severity::Prevents, cure)))]
        }
    }
}

/// What packet filters are insisted on, where any are.
pub fn judge_packet_filters(config: &Config) -> Vec<Finding> {
    let wanted = "fec, with cols, rows, layout and arq";
    match PacketFilters::read(config) {
        Ok(filters) if filters.is_empty() => Vec::new(),
        Ok(_) => vec![Finding::new("packet filters", "understood".to_owned(), wanted, None)],
        Err(error) => {
            let fault = (Severity::Prevents, "mend the text, or take the key out".to_owned());
            vec![Finding::new("packet filters", error.to_string(), wanted, Some(fault))]
        }
    }
}

fn judge_port(what: &'static str, key: &str, address: String, fault: Option<String>) -> Finding {
    let number = address.split(' ').next().and_then(|it| it.rsplit(':').next()).unwrap_or_default().to_owned();
    match fault {
        None => Finding::new(what, format!("{address} is free"), "free", None),
        Some(fault) => {
            let cure = format!("see who has it with `ss -lnptu sport = :{number}`, or set {key}");
            Finding::new(what, format!("{address}: {fault}"), "free", Some((Severity::Prevents, cure)))
        }
    }
}

/// How much it matters that io_uring does not work: there is another way, as cheap in what was measured, unless it is insisted on.
/// `headworks send` and `relay` would miss it.
fn without_io_uring(config: &Config) -> Severity {
    if config.shards.packet_io == PacketIo::Uring { Severity::Prevents } else { Severity::Advice }
}

fn judge_kernel(facts: &HostFacts, config: &Config) -> Finding {
    let (major, minor) = KERNEL_MIN;
    let wanted = format!("{major}.{minor} or later");
    let release = facts.kernel_release.as_deref().unwrap_or("unknown");
    let fault = match kernel_version(release) {
        Some(version) if version >= KERNEL_MIN => None,
        // The probe of io_uring judges what is not known here.
        None => Some((Severity::Advice, "see io_uring below".to_owned())),
        Some(_) => Some((without_io_uring(config), format!("install a kernel of {wanted} (Debian 12 has one)"))),
    };
    Finding::new("kernel", release, wanted, fault)
}

fn judge_io_uring(facts: &HostFacts, config: &Config) -> Finding {
    let policy = match facts.io_uring {
        IoUringPolicy::Allowed => "allowed",
        IoUringPolicy::Restricted => "for a group only (kernel.io_uring_disabled=1)",
        IoUringPolicy::Forbidden => "forbidden (kernel.io_uring_disabled=2)",
    };
    let instead = match config.shards.packet_io {
        PacketIo::Auto | PacketIo::Mmsg => "; packets come by recvmmsg",
        PacketIo::Uring | PacketIo::Xdp | PacketIo::Dpdk => "",
    };
    match choice::probe_uring() {
        Ok(()) => Finding::new("io_uring", "works", "works", None),
        Err(error) => Finding::new(
            "io_uring",
            format!("{policy}, does not work{instead}"),
            "works",
            Some((without_io_uring(config), error.to_string())),
        ),
    }
}

/// How often AF_XDP has the packet memory of a shard registered, and charged: for each queue of its interfaces that of the queue's shard.
fn xdp_registrations(root: &Path, interfaces: &[String], shards: usize) -> usize {
    let queues: usize = interfaces.iter().map(|name| receive_queues(root, name)).sum();
    if queues == 0 { shards } else { queues }
}

fn receive_queues(root: &Path, interface: &str) -> usize {
    let queues = std::fs::read_dir(root.join("sys/class/net").join(interface).join("queues"));
    let names = queues.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("rx-")).count()
}

/// `packet_memory` is what AF_XDP has locked of it, in bytes.
fn judge_limits(facts: &HostFacts, config: &Config, packet_memory: u64) -> Vec<Finding> {
    let streams = u64::from(config.ingestion.max_connections) + u64::from(config.ingestion.rtp.max_sessions);
    let descriptors = DESCRIPTORS_FIXED + streams * DESCRIPTORS_PER_STREAM;
    let mut findings = Vec::new();
    if let Some(limit) = facts.limits.open_files {
        let cure = format!("ulimit -n {descriptors} (systemd: LimitNOFILE={descriptors})");
        let fault = (limit.hard < descriptors).then_some((Severity::Degraded, cure));
        let wanted = format!("{descriptors} for {streams} streams");
        findings.push(Finding::new("open files", count(limit.hard), wanted, fault));
    }
    if let Some(limit) = facts.limits.memlock {
        let may_lock = facts.capabilities.is_some_and(facts::Capabilities::ipc_lock);
        let is_xdp = config.shards.packet_io == PacketIo::Xdp;
        let wanted = MEMLOCK_MIN + if is_xdp { packet_memory } else { 0 };
        // Without it AF_XDP has no memory to receive into.
        let severity = if is_xdp { Severity::Prevents } else { Severity::Advice };
        let fault = (limit.soft < wanted && !may_lock)
            .then(|| (severity, "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)".to_owned()));
        findings.push(Finding::new(
            "locked memory",
            bytes(limit.soft),
            format!("{} or CAP_IPC_LOCK", bytes(wanted)),
            fault,
        ));
    }
    if let Some(limit) = facts.limits.realtime_priority {
        let may_raise = facts.capabilities.is_some_and(facts::Capabilities::sys_nice);
        let fault = (limit.soft == 0 && !may_raise)
            .then(|| (Severity::Advice, "systemd: LimitRTPRIO=10, or add CAP_SYS_NICE".to_owned()));
        findings.push(Finding::new("real-time priority", count(limit.soft), "10 or CAP_SYS_NICE", fault));
    }
    findings
}

/// Whether the rings that are made ahead fit the pages set aside, of which packet memory takes its own before.
fn judge_ring_pages(facts: &HostFacts, config: &Config, shards: usize) -> Option<Finding> {
    const PAGE: u64 = 2 << 20;
    let mount = config.output.hugetlbfs.as_ref()?;
    let output = OutputOptions::from_config(config);
    let ring = output.ring_spec(TrackKind::Video, *b"h264", CLOCK_RATE_90_KHZ).capacity().div_ceil(PAGE);
    let plan = MemoryPlan::new(config, shards);
    let at_start = plan.items.iter().filter(|item| item.taken == Taken::AtStart && config.output.huge_pages);
    let shards = shards as u64;
    let packets: u64 = at_start.map(|item| shards * (item.bytes / shards).div_ceil(PAGE)).sum();
    let rings = ring * output.pool_size as u64;
    let wanted = rings + packets;
    let (total, free) = facts.huge_pages.map_or((0, 0), |pages| (pages.total, pages.free));
    let cure = format!("sysctl -w vm.nr_hugepages={}", total - free + wanted);
    let fault = (free < wanted).then_some((Severity::Degraded, cure));
    let wanted = format!(
        "{wanted} pages of 2 MiB: {rings} for {} video rings (output.hugetlbfs {}), {packets} for packets",
        output.pool_size,
        mount.display()
    );
    Some(Finding::new("pages for rings", format!("{free} free"), wanted, fault))
}

/// Whether rings can be on hugetlbfs, where that is asked for.
fn judge_ring_mount(config: &Config) -> Option<Finding> {
    let mount = config.output.hugetlbfs.as_ref()?;
    let cure = format!("mount -t hugetlbfs -o pagesize=2M none {}", mount.display());
    let (found, fault) = match judge_hugetlbfs(mount) {
        Ok(()) => (format!("{} is hugetlbfs", mount.display()), None),
        Err(reason) => (reason, Some((Severity::Degraded, cure))),
    };
    Some(Finding::new("mount for rings", found, "a mount of hugetlbfs with pages of 2 MiB (output.hugetlbfs)", fault))
}

fn judge_capabilities(facts: &HostFacts, config: &Config) -> Finding {
    let is_xdp = config.shards.packet_io == PacketIo::Xdp;
    let wanted = if is_xdp {
        "CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW (shards.packet_io xdp)"
    } else {
        "none is needed; CAP_NET_ADMIN lifts limits on buffers"
    };
    let Some(capabilities) = facts.capabilities else {
        return Finding::new("capabilities", "unknown", wanted, None);
    };
    let held: Vec<&str> = [
        ("CAP_NET_ADMIN", capabilities.net_admin()),
        ("CAP_BPF", capabilities.bpf()),
        ("CAP_NET_RAW", capabilities.net_raw()),
        ("CAP_IPC_LOCK", capabilities.ipc_lock()),
        ("CAP_SYS_NICE", capabilities.sys_nice()),
    ]
    .into_iter()
    .filter_map(|(name, has)| has.then_some(name))
    .collect();
    let found = if held.is_empty() { "none".to_owned() } else { held.join(" ") };
    let is_enough = capabilities.net_admin() && capabilities.bpf() && capabilities.net_raw();
    let cure = "run as root, or as a service with systemd/headworks-xdp.conf".to_owned();
    let fault = (is_xdp && !is_enough).then_some((Severity::Prevents, cure));
    Finding::new("capabilities", found, wanted, fault)
}

/// Whether there is an interface that AF_XDP can take packets from, and whether one is named in vain.
fn judge_xdp_interfaces(config: &Config) -> Option<Finding> {
    if config.shards.packet_io != PacketIo::Xdp {
        let named = Some(config.shards.xdp_interfaces.join(", ")).filter(|named| !named.is_empty())?;
        let cure = "set shards.packet_io to xdp, or leave shards.xdp_interfaces out: it is of no effect".to_owned();
        let wanted = "named with shards.packet_io: xdp alone";
        return Some(Finding::new("interfaces for AF_XDP", named, wanted, Some((Severity::Advice, cure))));
    }
    let (found, fault) = match interfaces_for(&config.shards.xdp_interfaces, &listening(config)) {
        Ok(names) => (names.join(", "), None),
        Err(error) => ("none".to_owned(), Some((Severity::Prevents, error.to_string()))),
    };
    Some(Finding::new("interfaces for AF_XDP", found, "those that packets come in by", fault))
}

/// Addresses and ports that media come to.
fn listening(config: &Config) -> Vec<SocketAddr> {
    let ingestion = &config.ingestion;
    let mut listening = Vec::new();
    if ingestion.srt.enabled {
        listening.push(SocketAddr::new(ingestion.srt.address, ingestion.srt.port));
    }
    if ingestion.rtp.enabled {
        listening.push(SocketAddr::new(ingestion.rtp.address, ingestion.rtp.port));
    }
    let streams = config.streams.values().filter_map(|stream| stream.rtp.as_ref());
    let any = std::net::IpAddr::from([0, 0, 0, 0]);
    listening.extend(streams.filter_map(|it| Some(SocketAddr::new(it.address.unwrap_or(any), it.port?))));
    listening
}

fn judge_memory(config: &Config, plan: &MemoryPlan, available: Option<u64>) -> Finding {
    let wanted = format!("{} for {} streams", bytes(plan.total()), plan.streams);
    let found = available.map_or("unknown".to_owned(), |available| format!("{} available", bytes(available)));
    let at_start = plan.at_start();
    let cure = "lower ingestion.max_connections, ingestion.srt.max_bandwidth or shards.planned_latency".to_owned();
    let fault = match (plan.fault(config), available) {
        (Some(fault), _) => Some((Severity::Prevents, fault)),
        (None, Some(available)) if available < at_start => Some((Severity::Prevents, cure)),
        (None, Some(available)) if available < plan.total() => Some((Severity::Degraded, cure)),
        _ => None,
    };
    Finding::new("memory", found, wanted, fault)
}

/// Whether what is planned fits below the nearest limit on memory: who passes it is killed, whatever the host has.
fn judge_memory_cgroup(plan: &MemoryPlan, cgroup: &MemoryCgroup) -> Finding {
    let wanted = format!("{} for {} streams", bytes(plan.total()), plan.streams);
    let file = cgroup.file.display();
    let found = format!("{} left of {} ({file})", bytes(cgroup.free), bytes(cgroup.limit));
    let severity = if cgroup.free < plan.at_start() { Severity::Prevents } else { Severity::Degraded };
    let needed = cgroup.limit - cgroup.free + plan.total();
    let cure = format!("echo {needed} > {file} (systemd: MemoryMax={needed}), or lower ingestion.max_connections");
    let fault = (cgroup.free < plan.total()).then_some((severity, cure));
    Finding::new("memory cgroup", found, wanted, fault)
}

fn judge_shared_memory(config: &Config, space: Option<Space>) -> Finding {
    let per_stream = OutputOptions::from_config(config).planned_stream_size();
    let streams = u64::from(config.ingestion.max_connections);
    let needed = per_stream * streams;
    let root = config.output.root.display();
    let wanted = format!("{} for the rings of {streams} streams", bytes(needed));
    let Some(space) = space else {
        return Finding::new("shared memory", format!("unknown under {root}"), wanted, None);
    };
    let severity = if space.free < per_stream { Severity::Prevents } else { Severity::Degraded };
    let size_mib = (space.total - space.free.min(space.total) + needed).div_ceil(1 << 20);
    let cure = format!("mount -o remount,size={size_mib}M /dev/shm, or lower ingestion.max_connections");
    let fault = (space.free < needed).then_some((severity, cure));
    Finding::new("shared memory", format!("{} free of {}", bytes(space.free), bytes(space.total)), wanted, fault)
}

fn judge_root(root: &Path) -> Finding {
    let wanted = "a directory of this user that nobody else can write to";
    let shown = root.display();
    match check_root(root) {
        Ok(()) => Finding::new("rings", format!("{shown} is this user's"), wanted, None),
        Err(RootError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Finding::new("rings", format!("{shown} is not there and will be made"), wanted, None)
        }
        Err(error) => {
            let cure = match &error {
                RootError::Writable { .. } => format!("chmod 2750 {shown}"),
                RootError::Io { .. } => "run as a user who may, or set output.root".to_owned(),
                _ => format!("rm -r {shown}, or set output.root"),
            };
            Finding::new("rings", error.to_string(), wanted, Some((Severity::Prevents, cure)))
        }
    }
}

/// Room in the file system that `path` is or will be in.
fn space_of(path: &Path) -> Option<Space> {
    facts::read_space(path.ancestors().find(|ancestor| ancestor.exists())?)
}

/// `MemAvailable`, in bytes.
fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}

fn count(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        u64::MAX => "unlimited".to_owned(),
        0..=0xF_FFFF => format!("{} KiB", bytes >> 10),
        _ if bytes < 10 << 30 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Stream, StreamSrt};
    use headworks_host::facts::{Capabilities, Limit, Limits};

    pub(super) fn facts() -> HostFacts {
        HostFacts {
            kernel_release: Some("6.1.0-37-amd64".to_owned()),
            io_uring: IoUringPolicy::Allowed,
            limits: Limits {
                memlock: Some(Limit { soft: 8 << 20, hard: 8 << 20 }),
                open_files: Some(Limit { soft: 1_024, hard: 1_024 }),
                realtime_priority: Some(Limit { soft: 0, hard: 0 }),
            },
            rmem_max: Some(212_992),
            wmem_max: Some(212_992),
            huge_pages: None,
            shmem_huge_pages: Some("never".to_owned()),
            governors: vec![(0, "performance".to_owned()), (1, "powersave".to_owned())],
            isolated_cores: vec![2, 3],
            capabilities: Some(Capabilities(0)),
            shared_memory: None,
            memory_cgroup: None,
        }
    }

    #[test]
    fn an_ordinary_user_on_an_untuned_host_is_told_what_would_help() {
        let config = Config::default();
        let limits = judge_limits(&facts(), &config, 200 << 20);
        assert_eq!(limits[0].cure.as_deref(), Some("ulimit -n 1136 (systemd: LimitNOFILE=1136)"));
        assert_eq!(limits.iter().map(|it| it.severity).max(), Some(Severity::Degraded));
        assert_eq!((limits[1].severity, &limits[1].wanted[..]), (Severity::Advice, "64 MiB or CAP_IPC_LOCK"));
        let mut by_xdp = config.clone();
        by_xdp.shards.packet_io = PacketIo::Xdp;
        let locked = &judge_limits(&facts(), &by_xdp, 200 << 20)[1];
        assert_eq!((locked.severity, &locked.wanted[..]), (Severity::Prevents, "264 MiB or CAP_IPC_LOCK"));
        assert_eq!(judge_ring_pages(&facts(), &config, 1), None);
        let mut on_hugetlbfs = config.clone();
        on_hugetlbfs.output.hugetlbfs = Some("/dev/hugepages".into());
        on_hugetlbfs.ingestion.buffer.pool_size = 2;
        let pages = judge_ring_pages(&facts(), &on_hugetlbfs, 2).unwrap();
        assert!(
            pages
                .wanted
                .ends_with(" pages of 2 MiB: 64 for 2 video rings (output.hugetlbfs /dev/hugepages), 26 for packets"),
            "{}",
            pages.wanted
        );
        on_hugetlbfs.output.huge_pages = false;
        let finding = judge_ring_pages(&facts(), &on_hugetlbfs, 2).unwrap();
        assert_eq!(
            (finding.severity, finding.cure.as_deref()),
            (Severity::Degraded, Some("sysctl -w vm.nr_hugepages=64"))
        );
        on_hugetlbfs.output.hugetlbfs = Some("/proc".into());
        let mount = judge_ring_mount(&on_hugetlbfs).unwrap();
        assert_eq!((mount.found.as_str(), mount.severity), ("/proc is on another file system", Severity::Degraded));
        assert_eq!(mount.cure.as_deref(), Some("mount -t hugetlbfs -o pagesize=2M none /proc"));
    }

    #[test]
    fn privilege_lifts_limits() {
        let all = HostFacts { capabilities: Some(Capabilities(u64::MAX)), ..facts() };
        let config = Config::default();
        assert!(judge_limits(&all, &config, 200 << 20)[1..].iter().all(|it| it.severity == Severity::Good));
        assert!(judge_capabilities(&all, &config).found.contains("CAP_NET_ADMIN"));
    }

    #[test]
    fn af_xdp_wants_capabilities_and_an_interface_and_each_lack_has_its_cure() {
        let mut config = Config::default();
        assert_eq!(judge_capabilities(&facts(), &config).severity, Severity::Good);
        assert_eq!(judge_xdp_interfaces(&config), None);
        config.shards.xdp_interfaces = vec!["eth1".to_owned()];
        let finding = judge_xdp_interfaces(&config).unwrap();
        assert_eq!((finding.severity, finding.found.as_str()), (Severity::Advice, "eth1"));
        assert!(finding.cure.unwrap().contains("shards.packet_io"));
        config.shards.xdp_interfaces.clear();
        config.shards.packet_io = PacketIo::Xdp;
        let all = (1 << 12) | (1 << 13) | (1 << 39);
        for (held, severity) in [
            (all, Severity::Good),
            (all ^ 1 << 12, Severity::Prevents),
            (all ^ 1 << 13, Severity::Prevents),
            (0, Severity::Prevents),
        ] {
            let facts = HostFacts { capabilities: Some(Capabilities(held)), ..facts() };
            let finding = judge_capabilities(&facts, &config);
            assert_eq!(finding.severity, severity, "{held:x}");
            assert_eq!(finding.cure.is_some_and(|it| it.contains("headworks-xdp.conf")), severity != Severity::Good);
        }
        config.ingestion.srt.address = [127, 0, 0, 1].into();
        config.ingestion.rtp.enabled = false;
        let finding = judge_xdp_interfaces(&config).unwrap();
        assert_eq!(finding.severity, Severity::Prevents);
        assert!(finding.cure.unwrap().contains("127.0.0.1:30000"));
    }

    #[test]
    fn each_queue_that_af_xdp_takes_from_has_the_memory_of_its_shard_locked_once_more() {
        let root = tempfile::tempdir().unwrap();
        for queue in ["eth1/queues/rx-0", "eth1/queues/rx-1", "eth1/queues/tx-0", "eth2/queues/rx-0"] {
            std::fs::create_dir_all(root.path().join("sys/class/net").join(queue)).unwrap();
        }
        let times = |names: &[&str], shards| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            xdp_registrations(root.path(), &names, shards)
        };
        assert_eq!(times(&["eth1"], 1), 2);
        assert_eq!(times(&["eth1"], 4), 2, "two shards have no queue");
        assert_eq!(times(&["eth1", "eth2"], 2), 3);
        assert_eq!(times(&["eth3"], 2), 2, "unknown: each shard's once");
        let mut config = Config::default();
        config.shards.packet_io = PacketIo::Xdp;
        let locked = &judge_limits(&facts(), &config, times(&["eth1"], 1) as u64 * (100 << 20))[1];
        assert_eq!((locked.severity, &locked.wanted[..]), (Severity::Prevents, "264 MiB or CAP_IPC_LOCK"));
    }

    #[test]
    fn an_old_kernel_is_worth_a_word_and_prevents_serving_only_where_io_uring_is_insisted_on() {
        let mut config = Config::default();
        let with = |release: &str, config: &Config| {
            judge_kernel(&HostFacts { kernel_release: Some(release.to_owned()), ..facts() }, config).severity
        };
        assert_eq!(with("5.10.0-1", &config), Severity::Advice);
        assert_eq!(with("6.1.0", &config), Severity::Good);
        assert_eq!(with("custom", &config), Severity::Advice);
        config.shards.packet_io = PacketIo::Uring;
        assert_eq!(with("5.10.0-1", &config), Severity::Prevents);
        assert_eq!(with("6.1.0", &config), Severity::Good);
    }

    #[test]
    fn io_uring_that_is_forbidden_is_worth_a_word_and_prevents_serving_only_where_it_is_insisted_on() {
        std::thread::spawn(|| {
            headworks_forbidden_calls::forbid_io_uring().unwrap();
            let mut config = Config::default();
            for (packet_io, severity) in [
                (PacketIo::Auto, Severity::Advice),
                (PacketIo::Mmsg, Severity::Advice),
                (PacketIo::Uring, Severity::Prevents),
            ] {
                config.shards.packet_io = packet_io;
                let finding = judge_io_uring(&facts(), &config);
                assert_eq!(finding.severity, severity, "{packet_io:?}");
                assert!(finding.cure.unwrap().contains("kernel.io_uring_disabled=0"));
                let instead = "allowed, does not work; packets come by recvmmsg";
                assert_eq!(finding.found == instead, severity == Severity::Advice, "{}", finding.found);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn shared_memory_is_judged_by_what_the_rings_will_take() {
        let config = Config::default();
        let one = OutputOptions::from_config(&config).planned_stream_size();
        let judge = |free| judge_shared_memory(&config, Some(Space { total: 64 << 30, free })).severity;
        assert_eq!(judge(one * 25), Severity::Good);
        assert_eq!(judge(one * 25 - 1), Severity::Degraded);
        assert_eq!(judge(one - 1), Severity::Prevents);
    }

    #[test]
    fn a_limit_on_memory_is_judged_by_what_is_planned_below_it() {
        let plan = MemoryPlan::new(&Config::default(), 2);
        let judge = |free| {
            let file = "/sys/fs/cgroup/a/memory.max".into();
            judge_memory_cgroup(&plan, &MemoryCgroup { file, limit: plan.total() + 1_000, free })
        };
        assert_eq!(judge(plan.total()).severity, Severity::Good);
        let short = judge(plan.total() - 1);
        assert_eq!(short.severity, Severity::Degraded);
        assert!(short.found.ends_with("(/sys/fs/cgroup/a/memory.max)"), "{}", short.found);
        let needed = plan.total() + 1_001;
        let cure = format!("echo {needed} > /sys/fs/cgroup/a/memory.max (systemd: MemoryMax={needed})");
        assert!(short.cure.unwrap().starts_with(&cure));
        assert_eq!(judge(plan.at_start()).severity, Severity::Degraded);
        assert_eq!(judge(plan.at_start() - 1).severity, Severity::Prevents);
    }

    #[test]
    fn a_root_that_others_can_write_to_is_named_with_its_cure() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        assert_eq!(judge_root(&root.path().join("not-there")).severity, Severity::Good);
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let finding = judge_root(root.path());
        assert_eq!(finding.severity, Severity::Prevents);
        assert_eq!(finding.cure, Some(format!("chmod 2750 {}", root.path().display())));
    }

    #[test]
    fn a_port_in_use_prevents_serving_and_its_key_is_named() {
        let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let root = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.output.root = root.path().to_owned();
        config.control.enabled = false;
        config.ingestion.rtp.enabled = false;
        config.ingestion.srt.address = [127, 0, 0, 1].into();
        config.ingestion.srt.port = holder.local_addr().unwrap().port();
        let findings = judge_ports(&config);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].severity, Severity::Prevents);
        assert!(findings[0].cure.as_deref().unwrap().contains("ingestion.srt.port"));
        drop(holder);
        assert_eq!(judge_ports(&config)[0].severity, Severity::Good);
        let from_there = StreamSrt {
            address: "192.0.2.1:9000".to_owned(),
            local_port: Some(config.ingestion.srt.port),
            ..StreamSrt::default()
        };
        config.streams.insert("a".to_owned(), Stream { srt: Some(from_there), ..Stream::default() });
        let call = &judge_ports(&config)[1];
        assert_eq!((call.what, call.severity), ("SRT call port", Severity::Prevents));
        assert!(call.found.ends_with("the configuration has it for something else too"), "{}", call.found);
    }

    #[test]
    fn amounts_are_told_in_the_nearest_unit() {
        assert_eq!(
            (bytes(212_992), bytes(32 << 20), bytes(64 << 30)),
            ("208 KiB".into(), "32 MiB".into(), "64 GiB".into())
        );
        assert_eq!((bytes(u64::MAX), count(u64::MAX), count(7)), ("unlimited".into(), "unlimited".into(), "7".into()));
    }
}
