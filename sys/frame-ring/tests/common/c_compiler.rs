//! The C compilers that are here, and the program of theirs that prints what the C reader sees.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder;
use headworks_frame_ring::writer::Writer;

use super::other_process::{OtherProcess, fnv};
use super::spec;

pub const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
pub const SANITIZERS: [&str; 4] = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];

pub fn is_there(compiler: &str) -> bool {
    Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success())
}

pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn compile(compiler: &str, arguments: &[&str], from: &Path, to: &Path) {
    let include = source("include");
    let output = Command::new(compiler)
        .args(arguments)
        .arg("-I")
        .arg(include)
        .arg("-o")
        .arg(to)
        .arg(from)
        .arg("-pthread")
        .output()
        .unwrap();
    assert!(output.status.success(), "{compiler} {arguments:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The program that prints what the C reader sees, once per compiler, without and with sanitizers.
pub static READERS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let mut readers = Vec::new();
    for compiler in ["gcc", "clang"].into_iter().filter(|compiler| is_there(compiler)) {
        for (name, arguments) in [("plain", &["-O2"][..]), ("sanitized", &SANITIZERS)] {
            let to = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("read-{compiler}-{name}"));
            let arguments = [&["-std=c99"], &WARNINGS[..], arguments].concat();
            // Another process may be running it, or making it too.
            let temporary = to.with_extension(std::process::id().to_string());
            compile(compiler, &arguments, &source("tests/c/read.c"), &temporary);
            std::fs::rename(temporary, &to).unwrap();
            readers.push(to);
        }
    }
    assert!(!readers.is_empty(), "neither gcc nor clang is here");
    readers
});

/// The optimised program, which copies by the processor's own string move.
pub fn reader() -> &'static Path {
    &READERS[0]
}

pub fn read<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn start<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) -> OtherProcess {
    OtherProcess::start(Command::new(program).args(arguments))
}

/// A stream that is not there yet, with a track `video0`.
pub fn make_stream(stream: &Path) -> (BellWriter, Writer) {
    fs::create_dir(stream).unwrap();
    let bell = BellWriter::create(stream).unwrap();
    (bell, builder::create(&stream.join("video0"), &spec()).unwrap())
}

pub fn frame_line(track: &str, seq: u64, bytes: &[u8]) -> String {
    format!("{track} frame {seq} {} {:016x} ", bytes.len(), fnv(bytes))
}
