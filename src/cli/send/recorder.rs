//! The very bytes that were sent, in a file: written by a thread of its own, so that a slow disk delays nobody.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Bytes that are handed to the file at a time.
const CHUNK: usize = 256 << 10;
/// Chunks in use: as much as a disk may be late.
const CHUNKS: usize = 64;

/// Takes in what is sent.
#[derive(Debug)]
pub struct Recorder {
    chunk: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    lost: u64,
    writer: JoinHandle<io::Result<()>>,
}

impl Recorder {
    /// Makes the file and its thread.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let (full, to_write) = sync_channel::<Vec<u8>>(CHUNKS);
        let (written, empty) = sync_channel(CHUNKS);
        for _ in 1..CHUNKS {
            // There is room for all of them.
            let _ = written.send(Vec::with_capacity(CHUNK));
        }
        let writer = std::thread::Builder::new().name("record".to_owned()).spawn(move || {
            for mut chunk in to_write {
                file.write_all(&chunk)?;
                chunk.clear();
                // Nobody takes it back when the end has come.
                let _ = written.send(chunk);
            }
            file.flush()
        })?;
        Ok(Self { chunk: Vec::with_capacity(CHUNK), full, empty, lost: 0, writer })
    }

    /// Appends what was sent.
    #[inline]
    pub fn record(&mut self, bytes: &[u8]) {
        if self.chunk.len() + bytes.len() > CHUNK {
            self.pass_on();
        }
        if self.chunk.len() + bytes.len() > CHUNK {
            self.lost += bytes.len() as u64;
        } else {
            self.chunk.extend_from_slice(bytes);
        }
    }

    fn pass_on(&mut self) {
        if let Ok(empty) = self.empty.try_recv() {
            let chunk = std::mem::replace(&mut self.chunk, empty);
            // Fails only when writing has failed, which the end reports.
            let _ = self.full.send(chunk);
        }
    }

    /// Writes what is left and waits for it.
    ///
    /// # Errors
    /// The file could not be written, or not as fast as was sent.
    pub fn finish(self) -> io::Result<()> {
        let Self { chunk, full, empty, lost, writer } = self;
        let _ = full.send(chunk);
        drop((full, empty));
        writer.join().map_err(|_| io::Error::other("the writing thread panicked"))??;
        if lost > 0 {
            return Err(io::Error::other(format!("{lost} bytes came faster than the disk took them")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_stands_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sent.ts");
        let mut recorder = Recorder::create(&path).unwrap();
        let mut expected = Vec::new();
        for n in 0..1_000_u32 {
            let datagram = [n as u8; 1_316];
            recorder.record(&datagram);
            expected.extend(datagram);
        }
        recorder.finish().unwrap();
        assert_eq!(std::fs::read(path).unwrap(), expected);
    }

    #[test]
    fn a_directory_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Recorder::create(directory.path()).is_err());
    }
}
