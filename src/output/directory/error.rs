//! Why there is no place for a stream or a track.

use std::io;
use std::path::PathBuf;

use headworks_frame_ring::bell::BellError;
use headworks_frame_ring::builder::{AttachError, CreateError};
use headworks_frame_ring::directory::RootError;

use crate::output::frame_ring::TRACKS_MAX;

/// Why the root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is not what it must be.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Nothing can be written there.
    #[error("{path} cannot be written to: {source}")]
    NotWritable {
        /// The root.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a stream has no place.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Its directory cannot be made.
    #[error("directory of the stream: {0}")]
    Io(#[from] io::Error),
    /// Its bell cannot be made.
    #[error(transparent)]
    Bell(#[from] BellError),
    /// Its rings would not fit into the file system.
    #[error(
        "output.root: {needed} bytes of shared memory are needed, streams included that still wait for their rings, {free} are free under {root}"
    )]
    NoMemory {
        /// What it and the streams before it are planned to take, beyond what they have.
        needed: u64,
        /// What the file system has.
        free: u64,
        /// The root.
        root: PathBuf,
    },
    /// Its rings would not fit into a memory cgroup.
    #[error(
        "{} = {limit}: {needed} bytes of shared memory are needed, streams included that still wait for their rings, {free} are left", .file.display()
    )]
    NoCgroupMemory {
        /// What it and the streams before it are planned to take, beyond what they have.
        needed: u64,
        /// What the cgroup leaves.
        free: u64,
        /// What it allows.
        limit: u64,
        /// Its `memory.max`.
        file: PathBuf,
    },
    /// Its rings would pass the limit on all rings.
    #[error(
        "ingestion.memory.global_limit leaves {limit} bytes for rings, {committed} are taken or promised, and a stream is planned to take {planned}"
    )]
    OverLimit {
        /// What all rings may take.
        limit: u64,
        /// What they take, and what was promised to streams.
        committed: u64,
        /// What a stream is planned to take.
        planned: u64,
        /// What is missing.
        missing: u64,
    },
    /// Its rings would pass the limit on one stream.
    #[error(
        "ingestion.memory.per_stream_limit = {limit}, and a stream is planned to take {planned} bytes by ingestion.srt.max_bandwidth, ingestion.gop.buffer_count and output.history"
    )]
    OverStreamLimit {
        /// The limit.
        limit: u64,
        /// What a stream is planned to take.
        planned: u64,
    },
}

impl StreamError {
    /// Bytes that others would have to give up for it; `None` if that would not help.
    pub fn missing(&self) -> Option<u64> {
        match self {
            Self::NoMemory { needed, free, .. } | Self::NoCgroupMemory { needed, free, .. } => Some(needed - free),
            Self::OverLimit { missing, .. } => Some(*missing),
            Self::Io(_) | Self::Bell(_) | Self::OverStreamLimit { .. } => None,
        }
    }
}

/// Why a track has no ring.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// It cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// It cannot be put in its place.
    #[error("ring's directory: {0}")]
    Io(#[from] io::Error),
    /// It is there and cannot be taken up now.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Another process writes it.
    #[error("another process writes this ring")]
    Locked,
    /// It would pass a limit.
    #[error("{key} leaves {limit} bytes for rings, {taken} are taken or promised, and this one needs {needed}")]
    OverLimit {
        /// `ingestion.memory.global_limit` or `ingestion.memory.per_stream_limit`.
        key: &'static str,
        /// What it leaves for rings, of all streams or of this one.
        limit: u64,
        /// What they have.
        taken: u64,
        /// What the ring takes.
        needed: u64,
    },
    /// There is no place for it.
    #[error("a stream has {TRACKS_MAX} tracks at most")]
    TooMany,
}
