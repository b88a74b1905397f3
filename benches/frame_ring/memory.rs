//! Shared memory of one stream whose readers may be two seconds behind, at 50 frames a second of which any may have 10 MB.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder;
use headworks_frame_ring::reader::{Reader, Start};

use crate::ring::video_spec;

const FRAME_SIZE: usize = 10 << 20;
/// What a reader may be behind, and what the ring's default configuration keeps at the most.
const HISTORY_FRAMES: usize = 100;
const SHM: &str = "/dev/shm";

/// Bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Size of the files: what may come to be used.
    pub promised: u64,
    /// Pages that exist as soon as writer and readers are there.
    pub allocated: u64,
    /// Addresses that the writer and its readers map; of ours, one reader.
    pub mapped: u64,
}

impl Memory {
    fn add(&mut self, path: &Path) -> std::io::Result<()> {
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                self.add(&entry?.path())?;
            }
        } else if let Ok(metadata) = fs::metadata(path) {
            self.promised += metadata.len();
            self.allocated += metadata.blocks() * 512;
        }
        Ok(())
    }
}

/// Our own: any number of readers.
pub fn of_ring(root: &Path) -> Result<Memory, Box<dyn Error>> {
    let stream = root.join("memory");
    fs::create_dir_all(&stream)?;
    let spec = video_spec();
    assert!(spec.frame_size_max as usize >= FRAME_SIZE);
    let before = mapped_of("self");
    let _bell = BellWriter::create(&stream)?;
    let _writer = builder::create(&stream.join("video0"), &spec)?;
    let _reader = Reader::open(&stream.join("video0"), Start::Live)?;
    let mut memory = Memory { mapped: mapped_of("self") - before, ..Memory::default() };
    memory.add(&stream)?;
    fs::remove_dir_all(&stream)?;
    Ok(memory)
}

/// iceoryx2's, for so many readers.
pub fn of_iceoryx2(program: &Path, place: &str, readers: usize) -> Result<Memory, Box<dyn Error>> {
    let mut child = Command::new(program)
        .args(["memory", &format!("place={place}"), &format!("readers={readers}")])
        .args([format!("frame={FRAME_SIZE}"), format!("buffer={HISTORY_FRAMES}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let mut memory = Memory { mapped: mapped_of(&child.id().to_string()), ..Memory::default() };
    for entry in fs::read_dir(SHM)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(place) {
            memory.add(&entry.path())?;
        }
    }
    drop(child.stdin.take());
    let status = child.wait()?;
    if line.trim() != "ready" || !status.success() {
        return Err(format!("iceoryx2 with {readers} readers: {status}").into());
    }
    Ok(memory)
}

/// Addresses of a process that lead to files in shared memory.
fn mapped_of(process: &str) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let size = |line: &str| {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        Some(u64::from_str_radix(to, 16).ok()? - u64::from_str_radix(from, 16).ok()?)
    };
    maps.lines().filter(|line| line.contains(SHM)).filter_map(size).sum()
}
