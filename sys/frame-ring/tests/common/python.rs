//! The Python package, installed from the source tree into an environment of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's wheels of setuptools and wheel are: nothing is fetched for a test.
const WHEELS: &str = "/usr/share/python-wheels";

/// A command that sees Debian's Python and its wheels alone.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/bin:/bin").env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", WHEELS);
    command
}

/// Runs a command that must end well; gives what it wrote.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}\n(tests/run installs what is needed)");
    String::from_utf8(output.stdout).expect("text")
}

/// A new environment, with what Debian's Python has.
pub fn environment(at: &Path) {
    run(command("/usr/bin/python3").args(["-m", "venv", "--system-site-packages"]).arg(at));
}

/// Copies headworks.h and what is made with it to `to`, for pip builds in the tree.
pub fn copy_sources(frame_ring: &Path, to: &Path) {
    for part in ["include", "python", "python/headworks", "examples/c"] {
        fs::create_dir_all(to.join(part)).unwrap();
        for entry in fs::read_dir(frame_ring.join(part)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(part).join(entry.file_name())).unwrap();
            }
        }
    }
}

/// The interpreter of an environment below `place` that has the package of the crate in `frame_ring`.
pub fn install(frame_ring: &Path, place: &Path) -> PathBuf {
    let _ = fs::remove_dir_all(place);
    copy_sources(frame_ring, &place.join("frame-ring"));
    let environment = place.join("environment");
    self::environment(&environment);
    run(command(environment.join("bin/pip")).args(["install", "--quiet"]).arg(place.join("frame-ring/python")));
    environment.join("bin/python")
}
