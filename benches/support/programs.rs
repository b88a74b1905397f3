//! Programs of others that are measured beside this one: those of `benches/rivals` in C are built for it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use super::load::RECEIVER_CORE;

/// Compiles `benches/rivals/NAME.c` with a library that pkg-config knows; `None` if one of these is missing.
pub fn compile(name: &str, library: &str) -> Option<PathBuf> {
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", library]).stderr(Stdio::null()).output().ok()?;
    if !flags.status.success() {
        return None;
    }
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tree.join("target/rivals");
    fs::create_dir_all(&directory).ok()?;
    let program = directory.join(name);
    let built = Command::new("cc")
        .args(["-O2", "-o"])
        .arg(&program)
        .arg(tree.join(format!("benches/rivals/{name}.c")))
        .args(String::from_utf8_lossy(&flags.stdout).split_whitespace())
        .status();
    built.is_ok_and(|status| status.success()).then_some(program)
}

/// A program that only runs on the receiver's core.
pub fn on_receiver_core(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &RECEIVER_CORE.to_string()]).arg(program);
    command
}

/// What a Debian package calls its version here.
pub fn package_version(package: &str) -> Option<String> {
    let output =
        Command::new("dpkg-query").args(["-W", "-f=${Version}", package]).stderr(Stdio::null()).output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !version.is_empty()).then_some(version)
}

/// Whether a program can be started.
pub fn is_there(program: &str) -> bool {
    let started =
        Command::new(program).arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    !started.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
