//! Descriptors that the service manager keeps for this process over a restart (`sd_listen_fds_with_names(3)`).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;
/// More than any service keeps.
const DESCRIPTORS_MAX: usize = 4_096;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that this process was started with, and their names. First thing in a process, and once: what is taken is gone.
pub fn take_stored_descriptors() -> Vec<(String, OwnedFd)> {
    let variable = |name| std::env::var(name).ok();
    let names = names(
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_FDNAMES").as_deref(),
        std::process::id(),
    );
    if IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let taken = (FIRST..).zip(names).map(|(number, name)| {
        // SAFETY: whoever started this very process (`LISTEN_PID`) has put a descriptor there before the program began, so that
        // nothing in it has the number for another one; `IS_TAKEN` sees to it that it is owned once.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        // They come open for children too.
        let _ = fcntl_setfd(&descriptor, FdFlags::CLOEXEC);
        (name, descriptor)
    });
    taken.collect()
}

/// A name for each descriptor; none when they are meant for another process.
fn names(meant_for: Option<&str>, count: Option<&str>, names: Option<&str>, pid: u32) -> Vec<String> {
    if meant_for.and_then(|meant| meant.parse().ok()) != Some(pid) {
        return Vec::new();
    }
    let count = count.and_then(|count| count.parse().ok()).filter(|count| *count <= DESCRIPTORS_MAX).unwrap_or(0);
    let names = names.unwrap_or_default().split(':').map(str::to_owned);
    names.chain(std::iter::repeat_with(String::new)).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_descriptor_has_a_name_and_those_of_others_are_left() {
        assert_eq!(names(Some("7"), Some("2"), Some("srt-0:srt-1"), 7), ["srt-0", "srt-1"]);
        assert_eq!(names(Some("7"), Some("2"), Some("srt-0"), 7), ["srt-0", ""]);
        assert_eq!(names(Some("7"), Some("1"), None, 7), [""]);
        let none: [&str; 0] = [];
        assert_eq!(names(Some("8"), Some("2"), Some("srt-0:srt-1"), 7), none);
        assert_eq!(names(None, Some("2"), Some("srt-0:srt-1"), 7), none);
        assert_eq!(names(Some("7"), Some("many"), Some("srt-0"), 7), none);
        assert_eq!(names(Some("7"), Some("99999999"), Some("srt-0"), 7), none);
    }
}
