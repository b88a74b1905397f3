//! libsrt, receiving and dropping: `benches/rivals/libsrt_receive.c`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::load::Load;
use super::programs::{compile, on_receiver_core};

/// What it takes, from Debian's packages.
pub const PACKAGES: &str = "libsrt-openssl-dev pkg-config";

/// The program, if it can be built.
pub fn build() -> Option<PathBuf> {
    compile("libsrt_receive", "srt")
}

/// Listens on `port` of the loopback interface, on the receiver's core, until all feeds of `load` have come and gone.
pub fn start(program: &Path, port: u16, load: &Load) -> io::Result<Child> {
    // Counted from the first connections on, in whole seconds.
    let seconds = load.duration().as_secs() + 2;
    on_receiver_core(program)
        .args([port.to_string(), load.feeds.to_string(), seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
}
