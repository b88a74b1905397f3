//! `--passphrase-file`: a passphrase that stands in no command line, which whoever lists processes can read.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use clap::Args;

use crate::config::{PASSPHRASE_LEN_MAX, PASSPHRASE_LEN_MIN};

/// Why there is no passphrase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// SRT has its limits.
    #[error("the passphrase has {0} bytes; SRT wants {PASSPHRASE_LEN_MIN} to {PASSPHRASE_LEN_MAX}")]
    Length(usize),
    /// Longer than any can be.
    #[error("--passphrase-file {0}: the first line is longer than {PASSPHRASE_LEN_MAX} bytes")]
    Line(PathBuf),
    /// The file cannot be read, or is no text.
    #[error("--passphrase-file {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: String,
    },
    /// In the URL and in a file.
    #[error("the passphrase is given twice: in the URL and with --passphrase-file")]
    Twice,
}

/// `--passphrase-file`, for the commands that speak SRT with a peer of their own.
#[derive(Args, Clone, Debug, Default)]
pub struct PassphraseFile {
    /// SRT: encrypt with the first line of this file, 10 to 79 bytes, which no list of processes shows; /dev/stdin is one, too
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl PassphraseFile {
    /// The passphrase, where a file was named.
    ///
    /// # Errors
    /// [`PassphraseError`], none of which shows anything of it.
    pub fn read(&self) -> Result<Option<String>, PassphraseError> {
        let Some(path) = &self.passphrase_file else { return Ok(None) };
        let failed = |error: String| PassphraseError::File { path: path.clone(), error };
        // With the end of its line, and one byte by which a longer one shows.
        let limit = PASSPHRASE_LEN_MAX as u64 + 3;
        let mut line = Vec::new();
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        BufReader::new(file.take(limit)).read_until(b'\n', &mut line).map_err(|error| failed(error.to_string()))?;
        let end = line.strip_suffix(b"\n");
        let passphrase = end.map_or(line.as_slice(), |line| line.strip_suffix(b"\r").unwrap_or(line));
        if passphrase.len() > PASSPHRASE_LEN_MAX {
            return Err(PassphraseError::Line(path.clone()));
        }
        let passphrase =
            std::str::from_utf8(passphrase).map_err(|_| failed("the first line is no UTF-8".to_owned()))?;
        judge(passphrase)?;
        Ok(Some(passphrase.to_owned()))
    }
}

/// Whether SRT takes this for a passphrase.
///
/// # Errors
/// [`PassphraseError::Length`].
pub const fn judge(passphrase: &str) -> Result<(), PassphraseError> {
    match passphrase.len() {
        PASSPHRASE_LEN_MIN..=PASSPHRASE_LEN_MAX => Ok(()),
        length => Err(PassphraseError::Length(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_passphrase_and_what_is_none_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            PassphraseFile { passphrase_file: Some(path.clone()) }.read()
        };
        assert_eq!(PassphraseFile::default().read(), Ok(None));
        let longest = "x".repeat(PASSPHRASE_LEN_MAX);
        for (text, passphrase) in [
            ("correct horse", "correct horse"),
            ("correct horse\n", "correct horse"),
            (" correct horse \r\nanother\n", " correct horse "),
            (&format!("{longest}\r\n"), &longest),
        ] {
            assert_eq!(read(text.as_bytes()), Ok(Some(passphrase.to_owned())));
        }
        assert_eq!(read(b""), Err(PassphraseError::Length(0)));
        assert_eq!(read(b"short\nlong enough\n"), Err(PassphraseError::Length(5)));
        assert_eq!(read(format!("{longest}x\n").as_bytes()), Err(PassphraseError::Line(path.clone())));
        assert_eq!(read(&[b'x'; 5_000]), Err(PassphraseError::Line(path.clone())));
        let error = "the first line is no UTF-8".to_owned();
        assert_eq!(read(b"correct \xff horse"), Err(PassphraseError::File { path: path.clone(), error }));
    }
}
