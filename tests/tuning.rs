//! `tuning/tune` on a made-up host: what it sets, what it says, and that it puts everything back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use headworks::config::Config;
use headworks::shard::host::{Severity, judge_tuning};

const SHARED_MEMORY: &str = "sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// Takes what is set from files and puts it there, as a driver would.
const ETHTOOL: &str = r#"#!/bin/bash
cd "${0%/*}" && option=$1 nic=$2 && [ "$nic" = eth9 ] || exit 1
case $option in
-c) echo "Adaptive RX: $(cat adaptive-rx)  TX: n/a"; echo "rx-usecs: $(cat rx-usecs)"; echo "rx-frames: n/a" ;;
-k) echo "rx-checksumming: on"; echo "generic-receive-offload: $(cat gro)" ;;
-C | -K) echo "$4" >"$3" ;;
esac
"#;

/// Four cores, one card with four interrupts and two queues.
struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        for (path, text) in [
            ("proc/sys/net/core/rmem_max", "212992\n"),
            ("proc/sys/net/core/wmem_max", "8388608\n"),
            ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
            ("proc/sys/net/core/netdev_budget", "300\n"),
            ("proc/sys/vm/nr_hugepages", "0\n"),
            (SHARED_MEMORY, "never\n"),
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/devices/system/cpu/isolated", "\n"),
            ("proc/irq/30/smp_affinity_list", "0-3\n"),
            ("proc/irq/31/smp_affinity_list", "2\n"),
            ("proc/irq/32/smp_affinity_list", "0\n"),
            ("proc/irq/33/smp_affinity_list", "3\n"),
            ("sys/class/net/eth9/device/msi_irqs/30", "msix\n"),
            ("sys/class/net/eth9/device/msi_irqs/31", "msix\n"),
            ("sys/class/net/eth9/device/msi_irqs/32", "msix\n"),
            ("sys/class/net/eth9/device/msi_irqs/33", "msix\n"),
            ("sys/class/net/eth9/queues/rx-0/rps_cpus", "00000001,0000000f\n"),
            ("sys/class/net/eth9/queues/rx-1/rps_cpus", "00000000,00000000\n"),
            ("driver/adaptive-rx", "on\n"),
            ("driver/rx-usecs", "8\n"),
            ("driver/gro", "on\n"),
            ("driver/ethtool", ETHTOOL),
        ] {
            host.write(path, text);
        }
        for core in 0..4 {
            host.write(&format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"), "schedutil\n");
        }
        fs::set_permissions(host.path("driver/ethtool"), PermissionsExt::from_mode(0o755)).unwrap();
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn tune(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tuning/tune");
        command.args(arguments).env("TUNE_ROOT", self.root.path()).env("ETHTOOL", self.path("driver/ethtool"));
        command
    }

    /// Every file and its bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(directory: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files);
                } else {
                    files.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(self.root.path(), &mut files);
        files
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap().trim().to_owned()
    }
}

fn lines(output: &Output) -> Vec<&str> {
    std::str::from_utf8(&output.stdout).unwrap().lines().collect()
}

const EVERYTHING: &[&str] = &["--nic", "eth9", "--cores", "2-3", "--huge-pages", "512"];

fn with<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command], more].concat()
}

#[test]
fn what_is_applied_is_said_and_undone_byte_for_byte() {
    let host = Host::new();
    let before = host.files();
    let applied = host.tune(&with("apply", EVERYTHING));
    assert_eq!(applied.status.code(), Some(0), "{applied:?}");
    let advice = "advice  isolated cores: none; to keep everything else off the shards' cores, add to the kernel's command line \
                  isolcpus=managed_irq,domain,2-3 nohz_full=2-3 rcu_nocbs=2-3";
    assert_eq!(
        lines(&applied),
        [
            "set     net.core.rmem_max: 212992 → 33554432",
            "set     net.core.netdev_max_backlog: 1000 → 16384",
            "set     net.core.netdev_budget: 300 → 600",
            "set     /sys/kernel/mm/transparent_hugepage/shmem_enabled: never → advise",
            "set     vm.nr_hugepages: 0 → 512",
            "set     /sys/devices/system/cpu/cpu2/cpufreq/scaling_governor: schedutil → performance",
            "set     /sys/devices/system/cpu/cpu3/cpufreq/scaling_governor: schedutil → performance",
            "set     /proc/irq/30/smp_affinity_list: 0-3 → 0",
            "set     /proc/irq/31/smp_affinity_list: 2 → 1",
            "set     /proc/irq/33/smp_affinity_list: 3 → 1",
            "set     /sys/class/net/eth9/queues/rx-0/rps_cpus: 00000001,0000000f → 00000001,00000003",
            "set     ethtool eth9 -C adaptive-rx: on → off",
            "set     ethtool eth9 -C rx-usecs: 8 → 50",
            advice,
        ]
    );
    assert_eq!(host.read("proc/sys/net/core/wmem_max"), "8388608", "more than wanted stays");
    assert_eq!(host.read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"), "schedutil");
    let after = host.files();
    let again = host.tune(&with("apply", EVERYTHING));
    assert_eq!((again.status.code(), lines(&again)), (Some(0), vec![advice, "nothing to change"]));
    assert_eq!(host.files(), after);
    // A second time with other wishes: what was there before the first is what comes back.
    let more = host.tune(&["apply", "--socket-buffer", "67108864"]);
    assert_eq!(lines(&more)[0], "set     net.core.rmem_max: 33554432 → 67108864");
    let undone = host.tune(&["undo"]);
    assert_eq!(undone.status.code(), Some(0), "{undone:?}");
    assert!(lines(&undone).contains(&"back    net.core.rmem_max: 67108864 → 212992"), "{undone:?}");
    assert_eq!(host.files(), before);
    let nothing = host.tune(&["undo"]);
    assert_eq!((nothing.status.code(), lines(&nothing)), (Some(0), vec!["nothing to change"]));
}

#[test]
fn a_dry_run_and_a_check_change_nothing() {
    let host = Host::new();
    let before = host.files();
    let dry = host.tune(&with("--dry-run", EVERYTHING));
    assert_eq!(dry.status.code(), Some(0));
    assert!(lines(&dry).contains(&"would   net.core.rmem_max: 212992 → 33554432"), "{dry:?}");
    assert_eq!(host.tune(&with("check", EVERYTHING)).status.code(), Some(1));
    assert_eq!(host.files(), before);
    host.tune(&["apply"]);
    let applied = host.files();
    let dry = host.tune(&["undo", "--dry-run"]);
    assert!(lines(&dry).contains(&"would   net.core.rmem_max: 33554432 → 212992"), "{dry:?}");
    assert_eq!(host.files(), applied);
}

#[test]
fn a_check_names_what_lacks_and_is_content_after_apply() {
    let host = Host::new();
    fs::remove_file(host.path("proc/sys/net/core/netdev_budget")).unwrap();
    let check = host.tune(&with("check", EVERYTHING));
    assert_eq!(check.status.code(), Some(1));
    for line in [
        "lacks   net.core.rmem_max is 212992, wanted 33554432 or more",
        "ok      net.core.wmem_max is 8388608",
        "absent  net.core.netdev_budget: not on this host",
        "lacks   /sys/devices/system/cpu/cpu2/cpufreq/scaling_governor is schedutil, wanted performance",
        "lacks   /proc/irq/31/smp_affinity_list is 2, wanted cores without a shard",
        "ok      /proc/irq/32/smp_affinity_list is 0",
        "ok      ethtool eth9 -K gro is on",
    ] {
        assert!(lines(&check).contains(&line), "{line} is missing in {check:?}");
    }
    host.tune(&with("apply", EVERYTHING));
    host.write("sys/devices/system/cpu/isolated", "2-3\n");
    let check = host.tune(&with("check", EVERYTHING));
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    assert!(lines(&check).contains(&"ok      isolated cores is 2-3"), "{check:?}");
    assert_eq!(lines(&check).last(), Some(&"everything is as wanted"));
}

#[test]
fn what_somebody_else_has_changed_since_is_left() {
    let host = Host::new();
    host.tune(&["apply"]);
    host.write("proc/sys/net/core/netdev_budget", "900\n");
    let undone = host.tune(&["undo"]);
    let line = "left    net.core.netdev_budget is 900: somebody has changed it since it was set to 600";
    assert!(lines(&undone).contains(&line), "{undone:?}");
    assert_eq!(host.read("proc/sys/net/core/netdev_budget"), "900");
    assert_eq!(host.read("proc/sys/net/core/rmem_max"), "212992");
}

#[test]
fn the_kernel_s_own_notation_is_understood() {
    let host = Host::new();
    host.write(SHARED_MEMORY, "always within_size [advise] never deny force\n");
    let line = format!("ok      /{SHARED_MEMORY} is advise");
    assert!(lines(&host.tune(&["check"])).contains(&line.as_str()));
    host.write(SHARED_MEMORY, "always within_size advise [never] deny force\n");
    host.tune(&["apply"]);
    assert_eq!(host.read(SHARED_MEMORY), "advise");
    host.tune(&["undo"]);
    assert_eq!(host.read(SHARED_MEMORY), "never");
}

#[test]
fn where_the_state_cannot_be_kept_nothing_is_changed() {
    let host = Host::new();
    host.write("run", "in the way\n");
    let before = host.files();
    let refused = host.tune(&["apply"]);
    assert_eq!(refused.status.code(), Some(1));
    let line = String::from_utf8(refused.stderr).unwrap();
    assert!(line.contains("run/headworks-tuning/state") && line.contains("sudo tune apply"), "{line}");
    assert_eq!(host.files(), before);
}

#[test]
fn a_setting_that_cannot_be_written_is_named_and_the_others_are_set() {
    let host = Host::new();
    host.write(
        "driver/ethtool",
        &ETHTOOL.replace("-C |", "-C) echo 'netlink error: Operation not supported' >&2; exit 1 ;;\n"),
    );
    let applied = host.tune(&["apply", "--nic", "eth9"]);
    assert_eq!(applied.status.code(), Some(1));
    let line = "lacks   ethtool eth9 -C rx-usecs is 8, wanted 50: ";
    assert!(lines(&applied).iter().any(|it| it.starts_with(line)), "{applied:?}");
    assert_eq!(host.read("proc/sys/net/core/rmem_max"), "33554432");
}

#[test]
fn wrong_use_is_told_and_help_needs_nothing() {
    let host = Host::new();
    for arguments in [
        &[][..],
        &["apply", "undo"],
        &["check", "--cores", "2-"],
        &["check", "--nic", "../x"],
        &["check", "--nic", "eth7"],
        &["check", "--socket-buffer", "1 MB"],
        &["check", "--huge-pages"],
        &["tune"],
    ] {
        let output = host.tune(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.starts_with(b"tune: "), "{output:?}");
    }
    let help = host.tune(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(lines(&help).iter().any(|line| line.starts_with("Usage: tune apply|check|undo")));
}

/// A setting as both tell of it: what `headworks check` calls it, and what is in `tune`'s lines about it.
const SETTINGS: &[(&str, &[&str])] = &[
    ("socket buffers", &["net.core.rmem_max"]),
    ("send buffers", &["net.core.wmem_max"]),
    ("backlog", &["net.core.netdev_max_backlog"]),
    ("packets in one go", &["net.core.netdev_budget"]),
    ("huge pages", &["transparent_hugepage/shmem_enabled"]),
    ("governor", &["scaling_governor"]),
    ("interrupts", &["smp_affinity_list", "interrupts stay with them"]),
    ("receive queues", &["rps_cpus"]),
    ("coalescing", &["ethtool eth9 -C"]),
    ("GRO", &["ethtool eth9 -K"]),
    ("isolated cores", &["isolated cores"]),
];

/// Of each setting the worst that `tune check` says of it: `ok`, `advice` or `lacks`; nothing where it is not on the host.
fn said_by_tune(host: &Host, options: &[&str]) -> BTreeMap<&'static str, &'static str> {
    let output = host.tune(&with("check", options));
    let mut said = BTreeMap::new();
    for line in lines(&output) {
        let verdict = ["ok", "advice", "lacks"].into_iter().find(|word| line.split(' ').next() == Some(word));
        let setting = SETTINGS.iter().find(|(_, names)| names.iter().any(|name| line.contains(name)));
        if let (Some(verdict), Some((what, _))) = (verdict, setting) {
            let worst = said.entry(*what).or_insert(verdict);
            if *worst == "ok" {
                *worst = verdict;
            }
        }
    }
    said
}

/// The same by `headworks check`, where what `tune` calls lacking is degraded or advice.
fn said_by_check(host: &Host, config: &Config) -> BTreeMap<&'static str, Severity> {
    let mut said = BTreeMap::new();
    for finding in judge_tuning(host.root.path(), host.path("driver/ethtool").as_os_str(), config) {
        let what = SETTINGS.iter().find(|(what, _)| *what == finding.what).expect("a setting of tune's").0;
        let worst = said.entry(what).or_insert(finding.severity);
        *worst = finding.severity.max(*worst);
    }
    said
}

fn expect_agreement(host: &Host, cores: &[usize], when: &str) -> BTreeMap<&'static str, &'static str> {
    let mut config = Config::default();
    config.shards.cores = cores.to_vec();
    let list = cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut options = vec!["--nic", "eth9"];
    if !cores.is_empty() {
        options.extend(["--cores", &list]);
    }
    let (tune, mut check) = (said_by_tune(host, &options), said_by_check(host, &config));
    if cores.is_empty() {
        // `tune` leaves these alone then, and `check` has nothing to say against them.
        for what in ["interrupts", "isolated cores"] {
            assert!(check.remove(what).is_none_or(|severity| severity == Severity::Good), "{when}: {what}");
        }
    }
    assert_eq!(tune.keys().collect::<Vec<_>>(), check.keys().collect::<Vec<_>>(), "{when}");
    for (what, verdict) in &tune {
        assert_eq!(check[what] == Severity::Good, *verdict == "ok", "{when}: {what} {verdict} {:?}", check[what]);
    }
    tune
}

#[test]
fn the_commands_check_and_tune_check_say_the_same_of_each_setting_of_one_host() {
    let host = Host::new();
    let before = expect_agreement(&host, &[2, 3], "as installed");
    assert_eq!(before.len(), SETTINGS.len(), "all are looked at: {before:?}");
    let lacking: Vec<_> = before.iter().filter(|(_, verdict)| **verdict != "ok").map(|(what, _)| *what).collect();
    assert_eq!(lacking.len(), SETTINGS.len() - 2, "send buffers and GRO are fine: {lacking:?}");
    expect_agreement(&host, &[], "no cores named");
    expect_agreement(&host, &[0, 1, 2, 3], "all cores named");
    assert_eq!(host.tune(&with("apply", EVERYTHING)).status.code(), Some(0));
    let after = expect_agreement(&host, &[2, 3], "applied");
    assert!(after.iter().all(|(what, verdict)| *verdict == "ok" || *what == "isolated cores"), "{after:?}");
    host.write("sys/devices/system/cpu/isolated", "2-3\n");
    assert_eq!(expect_agreement(&host, &[2, 3], "isolated")["isolated cores"], "ok");
    // One at a time, whichever it is.
    for (path, text, what) in [
        ("proc/sys/net/core/rmem_max", "33554431\n", "socket buffers"),
        ("proc/sys/net/core/wmem_max", "4194303\n", "send buffers"),
        ("proc/sys/net/core/netdev_max_backlog", "16383\n", "backlog"),
        ("proc/sys/net/core/netdev_budget", "599\n", "packets in one go"),
        (SHARED_MEMORY, "always within_size advise never [deny] force\n", "huge pages"),
        ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "powersave\n", "governor"),
        ("proc/irq/32/smp_affinity_list", "0-2\n", "interrupts"),
        ("sys/class/net/eth9/queues/rx-1/rps_cpus", "00000000,00000008\n", "receive queues"),
        ("driver/rx-usecs", "51\n", "coalescing"),
        ("driver/adaptive-rx", "on\n", "coalescing"),
        ("driver/gro", "off\n", "GRO"),
        ("sys/devices/system/cpu/isolated", "2\n", "isolated cores"),
    ] {
        let good = host.read(path);
        host.write(path, text);
        let said = expect_agreement(&host, &[2, 3], path);
        let bad: Vec<_> = said.iter().filter(|(_, verdict)| **verdict != "ok").map(|(what, _)| *what).collect();
        assert_eq!(bad, [what], "{path}");
        host.write(path, &format!("{good}\n"));
    }
    fs::remove_file(host.path("proc/sys/net/core/netdev_budget")).unwrap();
    let said = expect_agreement(&host, &[2, 3], "a setting that is not on the host");
    assert!(!said.contains_key("packets in one go"), "{said:?}");
}
