//! What DPDK wants of a host: itself in this program, one shard, a card that it may have, huge pages.

use std::path::Path;

use headworks_host::facts::HostFacts;

use super::{Finding, Severity};
use crate::config::{Config, PacketIo};

/// Reserved pages of 2 MiB that it is given: its buffers, rings and tables take half of that.
const PAGES: u64 = 32;
/// Drivers of the kernel under which a card is DPDK's, and those that share theirs with it.
const DRIVERS: &[&str] = &["vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core", "mlx5_core"];

/// All of it, for so many shards; where packets come another way, only that it is of no effect.
pub(super) fn judge(root: &Path, facts: &HostFacts, config: &Config, shards: usize) -> Vec<Finding> {
    let settings = &config.shards.dpdk;
    if config.shards.packet_io != PacketIo::Dpdk {
        let cure = "set shards.packet_io to dpdk, or leave shards.dpdk out: it is of no effect".to_owned();
        let found = |device: &String| {
            let fault = Some((Severity::Advice, cure));
            Finding::new("device for DPDK", device, "named with shards.packet_io: dpdk alone", fault)
        };
        return settings.device.as_ref().map(found).into_iter().collect();
    }
    let has_no_pages = settings.eal_args.iter().any(|it| it == "--no-huge");
    let mut findings = vec![judge_program(cfg!(feature = "dpdk")), judge_shards(shards)];
    findings.push(judge_device(root, settings.device.as_deref().unwrap_or_default()));
    if !has_no_pages {
        findings.push(judge_pages(root, facts));
    }
    findings
}

fn judge_program(is_built: bool) -> Finding {
    let cure = "cargo build --release --features dpdk (with Debian's libdpdk-dev), or set shards.packet_io to auto";
    let fault = (!is_built).then(|| (Severity::Prevents, cure.to_owned()));
    let found = if is_built { "in this program" } else { "not in this program" };
    Finding::new("DPDK", found, "in this program (shards.packet_io dpdk)", fault)
}

fn judge_shards(shards: usize) -> Finding {
    let cure = "name one core in shards.cores, such as shards.cores=[0]".to_owned();
    let fault = (shards != 1).then_some((Severity::Prevents, cure));
    Finding::new("shards for DPDK", shards.to_string(), "1: a device has one queue in use", fault)
}

fn judge_device(root: &Path, device: &str) -> Finding {
    let wanted = "a network card bound to vfio-pci";
    let name = device.split(',').next().unwrap_or_default();
    if !name.contains(':') {
        let cure = "fit for trying it out; name a network card by its PCI address for real feeds".to_owned();
        return Finding::new("device for DPDK", format!("{name} (virtual)"), wanted, Some((Severity::Advice, cure)));
    }
    let address = if name.matches(':').count() == 1 { format!("0000:{name}") } else { name.to_owned() };
    let card = root.join("sys/bus/pci/devices").join(&address);
    if !card.exists() {
        let cure = "see which cards there are with `dpdk-devbind.py --status`, and set shards.dpdk.device".to_owned();
        let found = format!("{address} is not there");
        return Finding::new("device for DPDK", found, wanted, Some((Severity::Prevents, cure)));
    }
    let driver = std::fs::read_link(card.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).map(|it| it.to_string_lossy().into_owned());
    let is_fit = driver.as_deref().is_some_and(|driver| DRIVERS.contains(&driver));
    let cure = format!("modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci {address}");
    let found = format!("{address} is with {}", driver.as_deref().unwrap_or("no driver"));
    Finding::new("device for DPDK", found, wanted, (!is_fit).then_some((Severity::Prevents, cure)))
}

fn judge_pages(root: &Path, facts: &HostFacts) -> Finding {
    let free = facts.huge_pages.map_or(0, |pages| pages.free);
    let large = std::fs::read_to_string(root.join("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages"));
    let large: u64 = large.ok().and_then(|it| it.trim().parse().ok()).unwrap_or(0);
    let total = facts.huge_pages.map_or(0, |pages| pages.total);
    let cure = format!("sysctl -w vm.nr_hugepages={}", total - free + PAGES);
    let fault = (free < PAGES && large == 0).then_some((Severity::Prevents, cure));
    let found = format!("{free} free of 2 MiB, {large} of 1 GiB");
    Finding::new("pages for DPDK", found, format!("{PAGES} of 2 MiB, or one of 1 GiB"), fault)
}

#[cfg(test)]
mod tests {
    use headworks_host::facts::HugePages;

    use super::*;

    #[test]
    fn each_lack_has_its_cure() {
        let program = judge_program(false);
        assert_eq!(program.severity, Severity::Prevents);
        assert!(program.cure.unwrap().contains("--features dpdk"));
        assert_eq!((judge_program(true).severity, judge_shards(1).severity), (Severity::Good, Severity::Good));
        assert!(judge_shards(2).cure.unwrap().contains("shards.cores=[0]"));
    }

    #[test]
    fn a_card_must_be_there_and_bound_for_dpdk() {
        let root = tempfile::tempdir().unwrap();
        let bind = |address: &str, driver: &str| {
            let card = root.path().join("sys/bus/pci/devices").join(address);
            std::fs::create_dir_all(&card).unwrap();
            std::os::unix::fs::symlink(format!("../../../bus/pci/drivers/{driver}"), card.join("driver")).unwrap();
        };
        bind("0000:01:00.0", "vfio-pci");
        bind("0000:02:00.0", "ixgbe");
        let judge = |device: &str| judge_device(root.path(), device);
        for good in ["0000:01:00.0", "01:00.0", "0000:01:00.0,some=parameter"] {
            assert_eq!(judge(good).severity, Severity::Good, "{good}");
        }
        let other = judge("0000:02:00.0");
        assert_eq!((other.severity, other.found.as_str()), (Severity::Prevents, "0000:02:00.0 is with ixgbe"));
        assert!(other.cure.unwrap().ends_with("dpdk-devbind.py --bind=vfio-pci 0000:02:00.0"));
        assert_eq!(judge("0000:03:00.0").severity, Severity::Prevents);
        assert_eq!(judge("net_af_packet0,iface=eth1").severity, Severity::Advice);
    }

    #[test]
    fn pages_are_wanted_unless_it_is_told_to_do_without() {
        let root = tempfile::tempdir().unwrap();
        let with =
            |total, free| HostFacts { huge_pages: Some(HugePages { total, free }), ..HostFacts::read(root.path()) };
        assert_eq!(judge_pages(root.path(), &with(64, 32)).severity, Severity::Good);
        let short = judge_pages(root.path(), &with(64, 31));
        assert_eq!(short.cure.as_deref(), Some("sysctl -w vm.nr_hugepages=65"));
        let mut config = Config::default();
        config.shards.dpdk.device = Some("0000:01:00.0".to_owned());
        let of_no_effect = judge(root.path(), &with(0, 0), &config, 1);
        assert_eq!(of_no_effect.iter().map(|it| it.severity).collect::<Vec<_>>(), [Severity::Advice]);
        config.shards.packet_io = PacketIo::Dpdk;
        let names =
            |config: &Config| judge(root.path(), &with(0, 0), config, 1).iter().map(|it| it.what).collect::<Vec<_>>();
        assert!(names(&config).contains(&"pages for DPDK"));
        config.shards.dpdk.eal_args = vec!["--no-huge".to_owned()];
        assert!(!names(&config).contains(&"pages for DPDK"));
    }
}
