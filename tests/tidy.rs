//! The tree checks itself: floors, unsafe code, dead files, sizes, leftovers, what stands at the top.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code at which a file is named, and at which it fails.
const CODE_LINES_WARNED: usize = 600;
const CODE_LINES_MAX: usize = 1_000;

/// Each module of `src/` and its floor; imports go down only, and modules of one floor do not see each other.
const FLOORS: &[(&str, u32)] = &[
    ("base", 0),
    ("media", 1),
    ("protocol", 2),
    ("container", 2),
    ("codec", 2),
    ("pipeline", 3),
    ("output", 4),
    ("shard", 5),
    ("egress", 6),
    ("control", 7),
    ("cli", 8),
];
/// Read by every floor from the pipeline up, and importing none of them.
const CONFIGURATION: &str = "config";
const CONFIGURATION_FLOOR: u32 = 3;

/// Who may see the crates under `sys/`: prefixes of paths under `src/`.
const SYS_SEEN_BY: &[(&str, &[&str])] = &[
    ("headworks_packet", &["base/datagram.rs", "shard/net/", "shard/plan.rs"]),
    ("headworks_datagram", &["shard/net/"]),
    ("headworks_uring", &["shard/net/"]),
    ("headworks_mmsg", &["shard/net/"]),
    ("headworks_xdp", &["shard/net/"]),
    ("headworks_dpdk", &["shard/net/"]),
    ("headworks_host", &["shard/", "output/"]),
    ("headworks_frame_ring", &["output/"]),
];

const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "benches",
    "rustfmt.toml",
    "src",
    "sys",
    "systemd",
    "target",
    "tests",
    "tuning",
];

#[test]
fn imports_go_down_only_and_siblings_do_not_see_each_other() {
    let mut faults = Vec::new();
    for file in rust_files("src") {
        let Some(room) = room_of(&file) else { continue };
        let own_floor = floor(&room);
        for (line_number, line) in code_lines(&file) {
            for seen in mentions(&line, "crate::") {
                if seen == room || !is_room(&seen) {
                    continue;
                }
                let allowed = if seen == CONFIGURATION {
                    own_floor >= CONFIGURATION_FLOOR
                } else if room == CONFIGURATION {
                    false
                } else {
                    floor(&seen) < own_floor
                };
                if !allowed {
                    faults.push(format!("{}:{line_number}: {room} sees {seen}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_crates_under_sys_are_seen_only_where_they_may_be() {
    let mut faults = Vec::new();
    for file in rust_files("src") {
        let inside = file.strip_prefix("src").unwrap().to_string_lossy().into_owned();
        for (line_number, line) in code_lines(&file) {
            for (name, allowed) in SYS_SEEN_BY {
                let is_test_support = line.contains("#[cfg(test)]") || inside.ends_with("tests.rs");
                if line.contains(name) && !is_test_support && !allowed.iter().any(|prefix| inside.starts_with(prefix)) {
                    faults.push(format!("{}:{line_number}: sees {name}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn unsafe_code_has_one_address() {
    let root = fs::read_to_string("src/lib.rs").unwrap();
    assert!(root.contains("#![forbid(unsafe_code)]"));
    for file in rust_files("src").into_iter().chain(rust_files("tests")).chain(rust_files("benches")) {
        for (line_number, line) in code_lines(&file) {
            let is_unsafe = line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl");
            let quotes_it = line.contains('"');
            assert!(!is_unsafe || quotes_it, "{}:{line_number}: unsafe", file.display());
        }
    }
}

#[test]
fn only_the_executor_names_glommio() {
    for file in rust_files("src") {
        if file.ends_with("shard/executor.rs") {
            continue;
        }
        for (line_number, line) in code_lines(&file) {
            assert!(!line.contains("glommio::"), "{}:{line_number}: names glommio", file.display());
        }
    }
}

#[test]
fn no_file_grows_past_what_an_eye_can_hold() {
    let mut too_long = Vec::new();
    for file in rust_files("src").into_iter().chain(rust_files("sys")).chain(rust_files("tests")) {
        let generated = file.ends_with("headworks_capnp.rs");
        let count = code_lines(&file).len();
        if count > CODE_LINES_WARNED && !generated {
            println!("warning: {} has {count} lines of code", file.display());
        }
        if count > CODE_LINES_MAX && !generated {
            too_long.push(format!("{} has {count} lines of code", file.display()));
        }
    }
    assert!(too_long.is_empty(), "{}", too_long.join("\n"));
}

#[test]
fn every_file_is_reached_by_a_mod_line() {
    let mut faults = Vec::new();
    for file in rust_files("src").into_iter().chain(rust_files("sys")) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let directory = file.parent().unwrap();
        let in_sys_root =
            directory.ends_with("tests") || directory.ends_with("benches") || directory.ends_with("examples");
        if ["lib", "main", "build"].contains(&name.as_str()) || in_sys_root {
            continue;
        }
        let (module, parents): (String, Vec<PathBuf>) = if name == "mod" {
            (file_name(directory), parents_of(directory.parent().unwrap()))
        } else {
            (name, parents_of(directory))
        };
        let declared = parents.iter().any(|parent| {
            fs::read_to_string(parent).is_ok_and(|text| {
                text.lines().any(|line| {
                    let line = line.trim();
                    line.ends_with(&format!("mod {module};"))
                })
            })
        });
        if !declared {
            faults.push(file.display().to_string());
        }
    }
    assert!(faults.is_empty(), "no mod line reaches:\n{}", faults.join("\n"));
}

#[test]
fn nothing_is_left_over() {
    // Put together here so that this file does not find itself.
    let leftovers = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        ["#[", "ignore"].concat(),
    ];
    for file in
        rust_files("src").into_iter().chain(rust_files("sys")).chain(rust_files("tests")).chain(rust_files("benches"))
    {
        for (index, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            for leftover in &leftovers {
                assert!(!line.contains(leftover.as_str()), "{}:{}: {leftover}", file.display(), index + 1);
            }
        }
    }
}

#[test]
fn the_top_level_holds_what_is_agreed_and_nothing_else() {
    let agreed: BTreeSet<&str> = TOP_LEVEL.iter().copied().collect();
    for entry in fs::read_dir(".").unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || agreed.contains(name.as_str()), "{name} does not belong at the top level");
    }
}

#[test]
fn the_readme_quotes_the_example_of_a_reader_as_it_stands() {
    let example = fs::read_to_string("sys/frame-ring/examples/print_frames.rs").unwrap();
    let quoted = format!("```rust\n{example}```\n");
    assert!(fs::read_to_string("README.md").unwrap().contains(&quoted), "README.md has another reader than:\n{quoted}");
}

/// Names in the column of ours, of tests that are somewhere in this tree.
#[test]
fn the_tests_that_tables_name_exist() {
    let code: String = ["src", "tests", "sys"]
        .iter()
        .flat_map(|root| rust_files(root))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    for (table, least) in [("ATTACKS.md", 30), ("LIBSRT-TESTS.md", 30), ("SIMULATION.md", 4), ("SRT-FEATURES.md", 30)] {
        let text = fs::read_to_string(Path::new("tests").join(table)).unwrap();
        let named: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
            .flat_map(|(_, ours)| ours.split('`').skip(1).step_by(2))
            .filter_map(|name| name.rsplit("::").next())
            .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
            .filter(|name| name.matches('_').count() > 1)
            .collect();
        assert!(named.len() >= least, "{table} is read: {} names", named.len());
        let missing: Vec<_> = named.into_iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "{table} names what is no test: {missing:#?}");
    }
}

fn rust_files(root: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::from(root)];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Lines that hold code, with their numbers; block comments are not used in this tree.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split(" // ").next().unwrap().to_owned()))
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
        .collect()
}

/// The words that follow `prefix` in a line.
fn mentions(line: &str, prefix: &str) -> Vec<String> {
    line.match_indices(prefix)
        .map(|(index, _)| {
            line[index + prefix.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        })
        .collect()
}

fn room_of(file: &Path) -> Option<String> {
    let inside = file.strip_prefix("src").ok()?;
    let first = inside.components().next()?.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
    is_room(&first).then_some(first)
}

fn is_room(name: &str) -> bool {
    name == CONFIGURATION || FLOORS.iter().any(|(room, _)| *room == name)
}

fn floor(room: &str) -> u32 {
    FLOORS.iter().find(|(name, _)| *name == room).map_or(CONFIGURATION_FLOOR, |(_, floor)| *floor)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The files in which a module of `directory` may be declared.
fn parents_of(directory: &Path) -> Vec<PathBuf> {
    if directory.ends_with("tests") && directory.with_file_name("Cargo.toml").exists() {
        // Every file there is the root of a test of its own.
        return fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    }
    vec![directory.join("mod.rs"), directory.join("lib.rs"), directory.join("main.rs"), directory.with_extension("rs")]
}
