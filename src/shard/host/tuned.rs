//! What `tuning/tune` sets, judged by the same values in the same files, so that `headworks check` and `tune check` agree: what `tune`
//! calls lacking is degraded or advice here, and what is not on a host is no finding.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use headworks_host::facts::{self, HostFacts};

use super::{Finding, Severity, bytes};
use crate::config::{Config, PacketIo};

/// `net.core.wmem_max`: acknowledgements of all peers leave in one batch.
const SEND_BUFFER: u64 = 4_194_304;
/// `net.core.netdev_max_backlog`: a picture that comes in one burst fits.
const BACKLOG: u64 = 16_384;
/// `net.core.netdev_budget`.
const BUDGET: u64 = 600;
const GOVERNOR: &str = "performance";
/// Choices of `shmem_enabled` with which shared memory gets huge pages where it asks for them.
const HUGE_PAGES: &[&str] = &["advise", "always", "within_size", "force"];
/// `rx-usecs` of a card: a tenth of a batch window.
const COALESCING_US: &str = "50";

/// All that stands in files below `root`; `used` are the cores that shards run on, named or not.
pub(super) fn judge(root: &Path, facts: &HostFacts, config: &Config, used: &[usize]) -> Vec<Finding> {
    let named = &config.shards.cores;
    let mut findings = Vec::new();
    if config.shards.packet_io != PacketIo::Dpdk {
        findings.push(judge_socket_buffers(facts, config));
        let of_kernel = [
            ("send buffers", "net.core.wmem_max", SEND_BUFFER),
            ("backlog", "net.core.netdev_max_backlog", BACKLOG),
            ("packets in one go", "net.core.netdev_budget", BUDGET),
        ];
        findings.extend(of_kernel.iter().filter_map(|&(what, name, least)| judge_number(root, what, name, least)));
    }
    findings.extend(judge_huge_pages(facts, config));
    findings.extend(judge_governors(facts, named));
    findings.push(judge_isolation(facts, named, used));
    findings.extend(judge_interrupts(root, named));
    findings.extend(judge_receive_queues(root, named));
    findings.extend(judge_irqbalance(root, named));
    findings
}

/// What has to be asked of each card with a program such as `ethtool`.
pub(super) fn judge_cards(root: &Path, ethtool: &OsStr, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.shards.packet_io == PacketIo::Dpdk {
        return findings;
    }
    for card in cards(root) {
        let ask = |option: &str| Command::new(ethtool).args([option, &card]).output();
        let (coalescing, features) = match (ask("-c"), ask("-k")) {
            (Ok(coalescing), Ok(features)) => (coalescing, features),
            _ => {
                let cure = "apt install ethtool".to_owned();
                let found = format!("not looked at ({card}): there is no ethtool");
                let wanted = "as tuning/tune sets them";
                findings.push(Finding::new("coalescing and GRO", found, wanted, Some((Severity::Advice, cure))));
                return findings;
            }
        };
        let parameter = |output: &std::process::Output, name: &str| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let value = value.split_whitespace().next()?.to_owned();
            (output.status.success() && value != "n/a").then_some(value)
        };
        let waits = [
            ("adaptive-rx", parameter(&coalescing, "Adaptive RX"), "off"),
            ("rx-usecs", parameter(&coalescing, "rx-usecs"), COALESCING_US),
        ];
        let there: Vec<_> =
            waits.iter().filter_map(|(name, value, wanted)| Some((name, value.as_ref()?, wanted))).collect();
        if !there.is_empty() {
            let found: Vec<String> = there.iter().map(|(name, value, _)| format!("{name} {value}")).collect();
            let lacks = there.iter().any(|(_, value, wanted)| value != *wanted);
            let cure = format!("ethtool -C {card} adaptive-rx off rx-usecs {COALESCING_US}");
            let wanted = format!("adaptive-rx off, rx-usecs {COALESCING_US}");
            let fault = lacks.then_some((Severity::Advice, cure));
            findings.push(Finding::new("coalescing", format!("{card}: {}", found.join(", ")), wanted, fault));
        }
        if let Some(gro) = parameter(&features, "generic-receive-offload") {
            let fault = (gro != "on").then(|| (Severity::Advice, format!("ethtool -K {card} gro on")));
            findings.push(Finding::new("GRO", format!("{card}: {gro}"), "on", fault));
        }
    }
    findings
}

/// Judged as the service will find it, which has no capability: who has one may pass the limit, and that is said.
fn judge_socket_buffers(facts: &HostFacts, config: &Config) -> Finding {
    let wanted = config.shards.socket_buffer as u64;
    let may_pass = facts.capabilities.is_some_and(facts::Capabilities::net_admin);
    let remark = if may_pass { ", which this process may pass (CAP_NET_ADMIN)" } else { "" };
    let found = facts.rmem_max.map_or("unknown".to_owned(), |limit| format!("{}{remark}", bytes(limit)));
    let fault = facts
        .rmem_max
        .filter(|limit| *limit < wanted)
        .map(|_| (Severity::Degraded, format!("sysctl -w net.core.rmem_max={wanted}")));
    Finding::new("socket buffers", found, format!("{} (shards.socket_buffer)", bytes(wanted)), fault)
}

fn judge_number(root: &Path, what: &'static str, name: &str, least: u64) -> Option<Finding> {
    let found = facts::read_sysctl(root, name)?;
    let fault = (found < least).then(|| (Severity::Advice, format!("sysctl -w {name}={least}")));
    Some(Finding::new(what, found.to_string(), format!("{least} or more ({name})"), fault))
}

fn judge_huge_pages(facts: &HostFacts, config: &Config) -> Option<Finding> {
    let found = facts.shmem_huge_pages.as_ref().filter(|_| config.output.huge_pages)?;
    let reserved = facts.huge_pages.map_or(0, |pages| pages.free);
    let cure = "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled".to_owned();
    let fault = (!HUGE_PAGES.contains(&found.as_str())).then_some((Severity::Advice, cure));
    let found = format!("{found} in shared memory, {reserved} free reserved pages");
    Some(Finding::new("huge pages", found, "advise, for rings on tmpfs", fault))
}

/// Of the cores named, or of all.
fn judge_governors(facts: &HostFacts, named: &[usize]) -> Option<Finding> {
    let mut judged = facts.governors.iter().filter(|(core, _)| named.is_empty() || named.contains(core)).peekable();
    judged.peek()?;
    let slow: Vec<&(usize, String)> = judged.filter(|(_, governor)| governor != GOVERNOR).collect();
    let found = slow.first().map_or(GOVERNOR.to_owned(), |(core, governor)| format!("{governor} on core {core}"));
    let cores: Vec<usize> = slow.iter().map(|(core, _)| *core).collect();
    let fault = (!slow.is_empty())
        .then(|| (Severity::Advice, format!("cpupower -c {} frequency-set -g {GOVERNOR}", list_of(&cores))));
    Some(Finding::new("governor", found, GOVERNOR, fault))
}

/// A host that has named no cores serves other work too, and isolation would be the wrong advice, unless it has isolated some.
fn judge_isolation(facts: &HostFacts, named: &[usize], used: &[usize]) -> Finding {
    let isolated = &facts.isolated_cores;
    let found = if isolated.is_empty() { "none".to_owned() } else { format!("{isolated:?}") };
    let boot = |cores: &[usize]| {
        let list = list_of(cores);
        format!("boot with isolcpus=managed_irq,domain,{list} nohz_full={list} rcu_nocbs={list}")
    };
    let is_shared = used.iter().any(|core| !isolated.contains(core));
    let cure = match (named.is_empty(), isolated.is_empty()) {
        _ if !is_shared => None,
        (true, true) => None,
        (true, false) => Some("set shards.cores to isolated ones".to_owned()),
        (false, true) => Some(boot(named)),
        (false, false) => Some(format!("set shards.cores to isolated ones, or {}", boot(named))),
    };
    let wanted = "those of shards, where nothing else may disturb them";
    Finding::new("isolated cores", found, wanted, cure.map(|cure| (Severity::Advice, cure)))
}

/// Interrupts of each card: on cores without a shard, where cores are named. Where none are, all on one of many is the classic reason
/// for drops in the kernel.
fn judge_interrupts(root: &Path, named: &[usize]) -> Vec<Finding> {
    let online = facts::read_online_cores(root);
    let mut findings = Vec::new();
    for card in cards(root) {
        let numbers = interrupts_of(root, &card);
        let cores_of = |number: &String, file: &str| {
            let list = std::fs::read_to_string(root.join("proc/irq").join(number).join(file)).ok()?;
            Some(facts::parse_core_list(list.trim()))
        };
        if named.is_empty() {
            let mut cores: Vec<usize> =
                numbers.iter().filter_map(|it| cores_of(it, "effective_affinity_list")).flatten().collect();
            cores.sort_unstable();
            cores.dedup();
            if cores.is_empty() {
                continue;
            }
            let cure = "write a core of its own to each /proc/irq/NUMBER/smp_affinity_list".to_owned();
            let is_narrow = cores.len() == 1 && numbers.len() > 2 && online.len() > 1;
            let found = format!("{} of {card} on cores {cores:?}", numbers.len());
            let fault = is_narrow.then_some((Severity::Advice, cure));
            findings.push(Finding::new("interrupts", found, "on several cores", fault));
            continue;
        }
        let wanted = "on cores without a shard";
        if online.iter().all(|core| named.contains(core)) {
            let found = format!("those of {card} stay with shards, which have all cores ({})", list_of(named));
            let cure = "leave a core out of shards.cores".to_owned();
            findings.push(Finding::new("interrupts", found, wanted, Some((Severity::Advice, cure))));
            continue;
        }
        let lists: Vec<Vec<usize>> = numbers.iter().filter_map(|it| cores_of(it, "smp_affinity_list")).collect();
        if lists.is_empty() {
            continue;
        }
        let meet = lists.iter().filter(|cores| cores.iter().any(|core| named.contains(core))).count();
        let found = format!("{meet} of {} of {card} may come to shards' cores", lists.len());
        let fault = (meet > 0).then(|| (Severity::Advice, cure_for_card(&card, named)));
        findings.push(Finding::new("interrupts", found, wanted, fault));
    }
    findings
}

/// The cores that a card's received packets are spread over (RPS): not those of shards.
fn judge_receive_queues(root: &Path, named: &[usize]) -> Vec<Finding> {
    let online = facts::read_online_cores(root);
    if named.is_empty() || online.iter().all(|core| named.contains(core)) {
        return Vec::new();
    }
    let judge = |card: String| {
        let queues = root.join("sys/class/net").join(&card).join("queues");
        let masks = names_in(&queues).into_iter().filter(|queue| queue.starts_with("rx-"));
        let masks: Vec<String> =
            masks.filter_map(|queue| std::fs::read_to_string(queues.join(queue).join("rps_cpus")).ok()).collect();
        let meet = masks.iter().filter(|mask| named.iter().any(|&core| is_in_mask(mask.trim(), core))).count();
        let fault = (meet > 0).then(|| (Severity::Advice, cure_for_card(&card, named)));
        let found = format!("{meet} of {} of {card} spread packets over shards' cores", masks.len());
        (!masks.is_empty()).then(|| Finding::new("receive queues", found, "RPS over cores without a shard", fault))
    };
    cards(root).into_iter().filter_map(judge).collect()
}

fn judge_irqbalance(root: &Path, named: &[usize]) -> Option<Finding> {
    if named.is_empty() || cards(root).is_empty() || !root.join("run/irqbalance").is_dir() {
        return None;
    }
    let cure = format!("set IRQBALANCE_BANNED_CPULIST={} in /etc/default/irqbalance", list_of(named));
    let found = "runs, and may move interrupts to shards' cores";
    Some(Finding::new("irqbalance", found, "told of the shards' cores", Some((Severity::Advice, cure))))
}

fn cure_for_card(card: &str, named: &[usize]) -> String {
    format!("tuning/tune apply --nic {card} --cores {}", list_of(named))
}

/// Network cards: interfaces with a device behind them.
fn cards(root: &Path) -> Vec<String> {
    let interfaces = root.join("sys/class/net");
    let mut names = names_in(&interfaces);
    names.retain(|name| interfaces.join(name).join("device").is_dir());
    names
}

fn interrupts_of(root: &Path, card: &str) -> Vec<String> {
    let device: PathBuf = root.join("sys/class/net").join(card).join("device");
    let numbers = names_in(&device.join("msi_irqs"));
    // A virtio card's interrupts belong to the PCI device above it.
    if numbers.is_empty() { names_in(&device.join("../msi_irqs")) } else { numbers }
}

/// What is in a directory, sorted.
fn names_in(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Whether a core is in one of the kernel's masks: words of 32 bits in hexadecimal, the last one first.
fn is_in_mask(mask: &str, core: usize) -> bool {
    let word = mask.rsplit(',').nth(core / 32).and_then(|word| u32::from_str_radix(word, 16).ok());
    word.is_some_and(|word| word >> (core % 32) & 1 == 1)
}

/// As the kernel and `tune` take them: `2,3`.
fn list_of(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use headworks_host::facts::Capabilities;

    use super::super::tests::facts;
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            write(&root, path, text);
        }
        root
    }

    fn write(root: &tempfile::TempDir, path: &str, text: &str) {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn an_untuned_host_is_told_what_would_help() {
        let config = Config::default();
        let buffers = judge_socket_buffers(&facts(), &config);
        assert_eq!((buffers.found.as_str(), buffers.severity), ("208 KiB", Severity::Degraded));
        assert_eq!(buffers.cure.as_deref(), Some("sysctl -w net.core.rmem_max=33554432"));
        let root = tree(&[("proc/sys/net/core/netdev_budget", "300\n")]);
        let budget = judge_number(root.path(), "packets in one go", "net.core.netdev_budget", BUDGET).unwrap();
        assert_eq!((budget.found.as_str(), budget.severity), ("300", Severity::Advice));
        assert_eq!(budget.cure.as_deref(), Some("sysctl -w net.core.netdev_budget=600"));
        assert_eq!(judge_number(root.path(), "send buffers", "net.core.wmem_max", SEND_BUFFER), None);
        assert_eq!(judge_huge_pages(&facts(), &config).unwrap().severity, Severity::Advice);
        for named in [&[][..], &[0, 1]] {
            let governor = judge_governors(&facts(), named).unwrap();
            assert_eq!(governor.cure.as_deref(), Some("cpupower -c 1 frequency-set -g performance"));
        }
        assert_eq!(judge_governors(&facts(), &[0]).unwrap().severity, Severity::Good);
    }

    #[test]
    fn a_privilege_that_the_service_has_not_is_a_remark_and_no_excuse() {
        let all = HostFacts { capabilities: Some(Capabilities(u64::MAX)), ..facts() };
        let buffers = judge_socket_buffers(&all, &Config::default());
        assert_eq!(buffers.severity, Severity::Degraded);
        assert_eq!(buffers.found, "208 KiB, which this process may pass (CAP_NET_ADMIN)");
    }

    #[test]
    fn isolation_is_advised_as_tune_does_where_cores_are_named() {
        let isolated = |isolated: &[usize]| HostFacts { isolated_cores: isolated.to_vec(), ..facts() };
        let cure = |facts: &HostFacts, named: &[usize], used: &[usize]| judge_isolation(facts, named, used).cure;
        let boot = "boot with isolcpus=managed_irq,domain,2,3 nohz_full=2,3 rcu_nocbs=2,3";
        assert_eq!(cure(&isolated(&[]), &[2, 3], &[2, 3]).as_deref(), Some(boot));
        let either = format!("set shards.cores to isolated ones, or {boot}");
        assert_eq!(cure(&isolated(&[3]), &[2, 3], &[2, 3]), Some(either));
        assert_eq!(cure(&isolated(&[2, 3]), &[2, 3], &[2, 3]), None);
        assert_eq!(cure(&isolated(&[]), &[], &[0, 1]), None);
        assert_eq!(cure(&isolated(&[2]), &[], &[0, 1]).as_deref(), Some("set shards.cores to isolated ones"));
    }

    #[test]
    fn interrupts_belong_on_cores_without_a_shard() {
        let root = tree(&[("sys/devices/system/cpu/online", "0-3\n"), ("sys/class/net/lo/mtu", "65536")]);
        for number in 24..27 {
            write(&root, &format!("sys/class/net/eth0/device/msi_irqs/{number}"), "msix");
            write(&root, &format!("proc/irq/{number}/smp_affinity_list"), "0-1\n");
            write(&root, &format!("proc/irq/{number}/effective_affinity_list"), "1\n");
        }
        let judge = |named: &[usize]| {
            let findings = judge_interrupts(root.path(), named);
            assert_eq!(findings.len(), 1);
            (findings[0].found.clone(), findings[0].cure.clone())
        };
        assert_eq!(judge(&[2, 3]), ("0 of 3 of eth0 may come to shards' cores".to_owned(), None));
        write(&root, "proc/irq/25/smp_affinity_list", "0-3\n");
        let cure = Some("tuning/tune apply --nic eth0 --cores 2,3".to_owned());
        assert_eq!(judge(&[2, 3]), ("1 of 3 of eth0 may come to shards' cores".to_owned(), cure));
        let (found, cure) = judge(&[0, 1, 2, 3]);
        assert_eq!(found, "those of eth0 stay with shards, which have all cores (0,1,2,3)");
        assert_eq!(cure.as_deref(), Some("leave a core out of shards.cores"));
        // Without cores named, all on one core are worth a word.
        let cure = "write a core of its own to each /proc/irq/NUMBER/smp_affinity_list";
        assert_eq!(judge(&[]), ("3 of eth0 on cores [1]".to_owned(), Some(cure.to_owned())));
        write(&root, "proc/irq/26/effective_affinity_list", "0\n");
        assert_eq!(judge(&[]), ("3 of eth0 on cores [0, 1]".to_owned(), None));
    }

    #[test]
    fn the_kernel_s_masks_are_understood() {
        assert!(is_in_mask("00000001,0000000f", 32) && is_in_mask("00000001,0000000f", 3));
        assert!(!is_in_mask("00000001,0000000f", 33) && !is_in_mask("00000001,0000000f", 4));
        assert!(!is_in_mask("f", 64) && !is_in_mask("", 0));
    }
}
