//! A file that goes out: a thread of its own reads it ahead of the connection.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use aws_lc_rs::digest;

/// Payloads that are read at once.
const PIECE_PAYLOADS: usize = 512;
/// Pieces that wait to be sent.
const PIECES_MAX: usize = 4;

enum Told {
    Piece(Vec<u8>),
    /// SHA-256 of all pieces.
    End(String),
    Failed(io::Error),
}

/// What there is next.
#[derive(Debug)]
pub enum Next<'a> {
    /// This payload; it comes again until it is [taken](Reader::take).
    Payload(&'a [u8]),
    /// Nothing yet: the disk is slower than the network.
    NotYet,
    /// Nothing more; SHA-256 of it all, in hexadecimal.
    End(&'a str),
}

/// The way from the thread.
pub struct Reader {
    told: Receiver<Told>,
    piece: Vec<u8>,
    at: usize,
    payload_len: usize,
    sha256: Option<String>,
}

impl Reader {
    /// Begins to read a file in payloads of so many bytes.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn new(file: File, payload_len: usize) -> io::Result<Self> {
        let (tell, told) = sync_channel(PIECES_MAX);
        std::thread::Builder::new()
            .name("hw-file-reader".to_owned())
            .spawn(move || read(file, payload_len * PIECE_PAYLOADS, &tell))?;
        Ok(Self { told, piece: Vec::new(), at: 0, payload_len, sha256: None })
    }

    /// What there is next.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn next(&mut self) -> io::Result<Next<'_>> {
        if self.at == self.piece.len() && self.sha256.is_none() {
            match self.told.try_recv() {
                Ok(Told::Piece(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Told::End(sha256)) => self.sha256 = Some(sha256),
                Ok(Told::Failed(error)) => return Err(error),
                Err(TryRecvError::Empty) => return Ok(Next::NotYet),
                Err(TryRecvError::Disconnected) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        match &self.sha256 {
            Some(sha256) => Ok(Next::End(sha256)),
            None => {
                let rest = &self.piece[self.at..];
                Ok(Next::Payload(&rest[..rest.len().min(self.payload_len)]))
            }
        }
    }

    /// The payload that was shown has been sent.
    pub fn take(&mut self) {
        self.at = self.piece.len().min(self.at + self.payload_len);
    }
}

fn read(mut file: File, piece_len: usize, tell: &SyncSender<Told>) {
    let mut sum = digest::Context::new(&digest::SHA256);
    loop {
        let mut piece = Vec::with_capacity(piece_len);
        // Whole pieces, so that only the last payload is short.
        let told = match (&mut file).take(piece_len as u64).read_to_end(&mut piece) {
            Ok(0) => Told::End(sum.clone().finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()),
            Ok(_) => {
                sum.update(&piece);
                Told::Piece(piece)
            }
            Err(error) => Told::Failed(error),
        };
        let is_last = !matches!(told, Told::Piece(_));
        // Whoever sends it may have given up.
        if tell.send(told).is_err() || is_last {
            return;
        }
    }
}

/// Opens what is to be sent: a file, and nothing that has no end or no content.
///
/// # Errors
/// It is none, or may not be read.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    Ok((file, facts.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn all(mut reader: Reader) -> (Vec<usize>, Vec<u8>, String) {
        let (mut lengths, mut bytes) = (Vec::new(), Vec::new());
        loop {
            match reader.next().unwrap() {
                Next::Payload(payload) => {
                    lengths.push(payload.len());
                    bytes.extend_from_slice(payload);
                    reader.take();
                }
                Next::NotYet => std::thread::sleep(Duration::from_millis(1)),
                Next::End(sum) => return (lengths, bytes, sum.to_owned()),
            }
        }
    }

    #[test]
    fn a_file_is_read_in_payloads_of_one_length_but_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let bytes: Vec<u8> = (0..2_000_003_u32).map(|n| (n >> 4) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let (file, length) = open(&path).unwrap();
        let (lengths, read, sum) = all(Reader::new(file, 1_456).unwrap());
        assert_eq!((read.len(), length), (2_000_003, 2_000_003));
        assert!(read == bytes);
        let (last, whole) = lengths.split_last().unwrap();
        assert_eq!(*last, 2_000_003 % 1_456);
        assert!(whole.iter().all(|&length| length == 1_456));
        let expected = digest::digest(&digest::SHA256, &bytes);
        assert_eq!(sum, expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }

    #[test]
    fn a_directory_is_no_file_and_an_empty_file_is_one() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(open(directory.path()).unwrap_err().to_string(), "not a file");
        let path = directory.path().join("empty");
        std::fs::write(&path, "").unwrap();
        let (file, length) = open(&path).unwrap();
        let (lengths, _, sum) = all(Reader::new(file, 1_456).unwrap());
        assert_eq!((lengths, length), (Vec::new(), 0));
        assert_eq!(sum, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
