//! One instance per directory: two would share ports (REUSEPORT binds silently) and rings.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Why this instance may not run.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another process holds the lock.
    #[error("another instance is running{}: it holds {path}", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The process that wrote its number into it.
        pid: Option<u32>,
    },
    /// The lock file cannot be opened or written.
    #[error("cannot lock {path}: {error}")]
    File {
        /// The lock file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Held for life; the kernel gives it up when the process ends, however it ends. The file stays.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock on `path` without waiting, and writes the process number into it.
    ///
    /// # Errors
    ///
    /// Another instance has it, or the file cannot be written.
    pub fn acquire(path: &Path) -> Result<Self, InstanceError> {
        let failed = |error: std::io::Error| InstanceError::File { path: path.to_owned(), error };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = file.take(16).read_to_string(&mut text);
                return Err(InstanceError::Held { path: path.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_instance_is_told_who_is_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = InstanceLock::acquire(&path).unwrap();
        match InstanceLock::acquire(&path) {
            Err(InstanceError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        InstanceLock::acquire(&path).expect("free again");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = InstanceLock::acquire(Path::new("/nonexistent/lock")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/lock"), "{error}");
    }
}
