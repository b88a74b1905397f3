//! Names on disk: the root, a directory per stream, a directory per track.
//!
//! Stream names are remote input (a Stream ID, an SDP file), so they are encoded: what is not a letter, a digit, `-`, `_`, `.` or `~`
//! is `%XX`; so is every leading dot. What would exceed 200 bytes is cut and ends in `+` and a hash of the whole name; `+` occurs in no
//! other encoded name, so no name can be made to look like another's.

use std::ffi::CString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::stream_descriptor::StreamDescriptor;

/// The longest encoded name, bytes.
pub const NAME_MAX: usize = 200;
/// Group whose members may read, unless configured otherwise.
pub const READERS_GROUP: &str = "headworks-readers";

/// The directory name of a stream.
#[must_use]
pub fn encode_name(name: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(name.len());
    let mut leading = true;
    for byte in name.bytes() {
        leading &= byte == b'.';
        if (byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)) && !leading {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes everything");
        }
    }
    if name.is_empty() {
        encoded.push('%');
    }
    if encoded.len() > NAME_MAX {
        let hash = hash(name.as_bytes());
        encoded.truncate(NAME_MAX - 33);
        // Not in the middle of an escape.
        if let Some(cut) = encoded[encoded.len() - 2..].find('%') {
            encoded.truncate(encoded.len() - 2 + cut);
        }
        write!(encoded, "+{hash:032x}").expect("a String takes everything");
    }
    encoded
}

/// The name a directory stands for; `None` if it stands for none, or only `stream.capnp` knows (cut names).
#[must_use]
pub fn decode_name(encoded: &str) -> Option<String> {
    if encoded == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = if *first == b'%' {
            let [high, low, tail @ ..] = tail else {
                return None;
            };
            let digit = |b: u8| char::from(b).to_digit(16);
            bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
            tail
        } else {
            bytes.push(*first);
            tail
        };
    }
    let name = String::from_utf8(bytes).ok()?;
    // One name, one directory: what is encoded otherwise is not ours.
    (encode_name(&name) == encoded).then_some(name)
}

/// SipHash-2-4 with 128 bits and a fixed key: the same name must give the same directory in every process.
fn hash(bytes: &[u8]) -> u128 {
    use siphasher::sip128::{Hasher128, SipHasher24};
    use std::hash::Hasher;
    let mut hasher = SipHasher24::new_with_keys(0x4845_4144_574F_524B, 0x5352_494E_475F_5631);
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

/// A stream found under a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// As the operator sees it.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
}

/// The streams under a root, by name. Directories without a bell, temporary ones and strangers' are left out.
///
/// # Errors
/// If the root cannot be listed.
pub fn list_streams(root: &Path) -> io::Result<Vec<StreamEntry>> {
    let mut streams = Vec::new();
    for entry in fs::read_dir(root)?.flatten() {
        let path = entry.path();
        let Some(encoded) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if encoded.starts_with('.') || !path.join("bell").is_file() {
            continue;
        }
        let cut = || StreamDescriptor::read(&path).ok().map(|d| d.name).filter(|name| encode_name(name) == encoded);
        if let Some(name) = decode_name(&encoded).or_else(cut) {
            streams.push(StreamEntry { name, path });
        }
    }
    streams.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(streams)
}

/// The names of the rings of a stream, sorted.
///
/// # Errors
/// If the directory cannot be listed.
pub fn list_tracks(stream_directory: &Path) -> io::Result<Vec<String>> {
    let mut tracks: Vec<String> = fs::read_dir(stream_directory)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().map(str::to_owned))
        .filter(|name| !name.starts_with('.') && stream_directory.join(name).join("ctl").is_file())
        .collect();
    tracks.sort();
    Ok(tracks)
}

/// Why a root is refused.
#[derive(Debug, Error)]
pub enum RootError {
    /// It cannot be made or looked at.
    #[error("{path}: {source}")]
    Io {
        /// The root.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file, or a link that somebody could point elsewhere.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// Whoever owns it could put other files in the place of ours.
    #[error("{path} is owned by user {owner}, not by {user}; remove it or set output.root")]
    Owner {
        /// The root.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others could put files in the place of ours.
    #[error("{path} is writable by others (mode {mode:o}); chmod 2750 it")]
    Writable {
        /// The root.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// What is not as it should be, though rings can be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RootWarning {
    /// Only this user can read.
    #[error("group {0} does not exist: only this user and its group can read the rings; groupadd --system {0}")]
    GroupMissing(String),
    /// Only this user can read.
    #[error("this user may not give files to group {0}: only its own group can read the rings")]
    GroupRefused(String),
}

/// Makes the root (2750, setgid so that everything below has the readers' group) or judges the one that is there.
///
/// # Errors
/// [`RootError`].
pub fn create_root(root: &Path, group: &str) -> Result<Option<RootWarning>, RootError> {
    let io_error = |source| RootError::Io { path: root.to_owned(), source };
    if let Some(parent) = root.parent() {
        fs::create_dir_all(parent).map_err(io_error)?;
    }
    match DirBuilder::new().mode(0o750).create(root) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error(error)),
    }
    check_root(root)?;
    let mut warning = None;
    match group_id(group) {
        None => warning = Some(RootWarning::GroupMissing(group.to_owned())),
        Some(gid) => {
            if std::os::unix::fs::lchown(root, None, Some(gid)).is_err() {
                warning = Some(RootWarning::GroupRefused(group.to_owned()));
            }
        }
    }
    // After the change of group, which clears the setgid bit.
    fs::set_permissions(root, Permissions::from_mode(0o2750)).map_err(io_error)?;
    Ok(warning)
}

/// Judges a root: a directory, not a link; ours; writable by us alone.
///
/// # Errors
/// [`RootError`].
pub fn check_root(root: &Path) -> Result<(), RootError> {
    let metadata = fs::symlink_metadata(root).map_err(|source| RootError::Io { path: root.to_owned(), source })?;
    if !metadata.is_dir() {
        return Err(RootError::NotADirectory(root.to_owned()));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(RootError::Owner { path: root.to_owned(), owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(RootError::Writable { path: root.to_owned(), mode });
    }
    Ok(())
}

fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: all-zero is a valid `group`, which the call overwrites.
    let mut group: libc::group = unsafe { std::mem::zeroed() };
    let mut strings = vec![0; 64 << 10];
    let mut found = std::ptr::null_mut();
    // SAFETY: live pointers with their true sizes; `found` is null or points at `group`.
    let status =
        unsafe { libc::getgrnam_r(name.as_ptr(), &raw mut group, strings.as_mut_ptr(), strings.len(), &raw mut found) };
    (status == 0 && !found.is_null()).then_some(group.gr_gid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_encoded_as_documented() {
        assert_eq!(encode_name("cam1"), "cam1");
        assert_eq!(encode_name("studio/cam 1"), "studio%2Fcam%201");
        assert_eq!(encode_name("..a.b"), "%2E%2Ea.b");
        assert_eq!(encode_name(".."), "%2E%2E");
        assert_eq!(encode_name("a+b%"), "a%2Bb%25");
        assert_eq!(encode_name("é"), "%C3%A9");
        assert_eq!(decode_name("%2e"), None);
        assert_eq!(decode_name("%C3"), None);
        assert_eq!(decode_name("a b"), None);
    }

    #[test]
    fn a_long_name_is_cut_and_hashed() {
        let (a, b) = ("é".repeat(300), format!("{}x", "é".repeat(300)));
        let (encoded_a, encoded_b) = (encode_name(&a), encode_name(&b));
        assert_ne!(encoded_a, encoded_b);
        assert!(encoded_a.len() <= NAME_MAX && encoded_a.contains('+'));
        assert_eq!(decode_name(&encoded_a), None);
        // Frozen: other processes compute it too.
        assert_eq!(encode_name(&"a".repeat(201))[..168], format!("{}+", "a".repeat(167)));
        assert_eq!(encode_name(&"a".repeat(200)), "a".repeat(200));
    }

    proptest! {
        #[test]
        fn any_name_comes_back_and_stays_in_its_directory(name in "\\PC{0,60}|[./%+]{0,9}") {
            let encoded = encode_name(&name);
            prop_assert!(!encoded.starts_with('.') && !encoded.contains('/') && !encoded.is_empty());
            prop_assert!(encoded.len() <= NAME_MAX);
            if !encoded.contains('+') {
                prop_assert_eq!(decode_name(&encoded), Some(name));
            }
        }

        #[test]
        fn any_directory_name_is_judged_without_a_panic(name in "\\PC{0,60}") {
            let _ = decode_name(&name);
        }
    }

    #[test]
    fn a_root_that_others_can_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/rings");
        let warning = create_root(&root, "no-such-group").unwrap();
        assert_eq!(warning, Some(RootWarning::GroupMissing("no-such-group".into())));
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o2750);
        assert!(create_root(&root, "no-such-group").is_ok());
        fs::set_permissions(&root, Permissions::from_mode(0o2770)).unwrap();
        assert!(matches!(check_root(&root), Err(RootError::Writable { mode: 0o2770, .. })));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&root, &link).unwrap();
        assert!(matches!(check_root(&link), Err(RootError::NotADirectory(_))));
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&root, Some(65534), None).unwrap();
            assert!(matches!(check_root(&root), Err(RootError::Owner { owner: 65534, user: 0, .. })));
        }
    }
}
