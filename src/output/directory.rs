//! The directory that readers find rings by: made, filled, swept and cleared on the housekeeping thread.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headworks_frame_ring::bell::{BellError, BellWriter};
use headworks_frame_ring::builder::{self, AttachError, CreateError, RingSpec};
use headworks_frame_ring::directory as names;
use headworks_frame_ring::stream_descriptor::StreamDescriptor;
use headworks_frame_ring::writer::Writer;

use super::frame_ring::ring_kind;
use super::waker::{WakeFlag, Waker};
use crate::config::Config;
use crate::media::TrackKind;
use crate::media::timestamp::CLOCK_RATE_90_KHZ;
use crate::pipeline::frame::TrackDescription;

/// Largest frame of a track that is neither video nor the transport stream itself.
const SMALL_FRAME_SIZE_MAX: u32 = 64 << 10;
/// Bytes of such a track's ring: some seconds of any audio codec, and of any data a contribution feed carries.
const SMALL_RING_SIZE: u64 = 1 << 20;
/// Descriptors of a video ring: at 60 frames per second, field coded, 17 seconds.
const VIDEO_SLOTS: u32 = 2_048;
/// Descriptors of any other ring: AAC at 48 kHz fills it in 21 seconds.
const SMALL_SLOTS: u32 = 1_024;

/// Sizes and places of rings, from the configuration.
#[derive(Clone, Debug)]
pub struct OutputOptions {
    /// Where streams' directories are.
    pub root: PathBuf,
    /// Group whose members may read.
    pub group: String,
    /// Bytes of a video ring, before rounding up.
    pub video_ring_size: u64,
    /// Bytes of one frame, at most.
    pub frame_size_max: u32,
    /// Put a CRC32C into every descriptor.
    pub crc: bool,
    /// How long rings of an ended stream stay.
    pub retention: Duration,
    /// Bytes of shared memory that all rings may take.
    pub memory_limit: u64,
    /// Bytes of shared memory that one stream may take.
    pub stream_memory_limit: u64,
    /// Streams whose video rings are made ahead.
    pub pool_size: usize,
}

impl OutputOptions {
    /// What the configuration asks for.
    pub fn from_config(config: &Config) -> Self {
        let ingestion = &config.ingestion;
        // A GOP of contribution feeds is a second at most; three of them, or the history asked for, if that is longer.
        let history_s = config.output.history.as_secs_f64().max(f64::from(ingestion.gop.buffer_count));
        let history_bytes = (ingestion.srt.max_bandwidth as f64 / 8.0 * history_s) as u64;
        Self {
            root: config.output.root.clone(),
            group: config.output.group.clone(),
            video_ring_size: history_bytes.max(ingestion.buffer.ring_size),
            frame_size_max: ingestion.frame.max_frame_size,
            crc: config.output.crc,
            retention: config.output.retention,
            memory_limit: ingestion.memory.global_limit,
            stream_memory_limit: ingestion.memory.per_stream_limit,
            pool_size: ingestion.buffer.pool_size.min(ingestion.max_connections) as usize,
        }
    }

    /// The shape of a track's ring.
    pub fn ring_spec(&self, kind: TrackKind, codec: [u8; 4], clock_rate: u32) -> RingSpec {
        let is_video = matches!(kind, TrackKind::Video | TrackKind::Transport);
        RingSpec {
            kind: ring_kind(kind),
            codec,
            clock_rate,
            data_capacity: if is_video { self.video_ring_size } else { SMALL_RING_SIZE },
            slot_count: if is_video { VIDEO_SLOTS } else { SMALL_SLOTS },
            frame_size_max: if is_video { self.frame_size_max } else { SMALL_FRAME_SIZE_MAX },
            numa_node: None,
            crc: self.crc,
        }
    }

    /// Shared memory of one stream with a video and two audio tracks, in bytes; what the memory plan counts with.
    pub fn planned_stream_size(&self) -> u64 {
        self.video_memory() + 2 * self.audio_memory()
    }

    /// Shared memory of the ring of a video track, in bytes.
    pub fn video_memory(&self) -> u64 {
        self.ring_spec(TrackKind::Video, *b"h264", 90_000).memory_size()
    }

    /// Shared memory of the ring of an audio track, in bytes.
    pub fn audio_memory(&self) -> u64 {
        self.ring_spec(TrackKind::Audio, *b"aac ", 90_000).memory_size()
    }
}

/// Why the root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is not what it must be.
    #[error(transparent)]
    Root(#[from] names::RootError),
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
    /// Its rings would not fit.
    #[error("{needed} bytes of shared memory are needed, {free} are free under {root}")]
    NoMemory {
        /// What one stream is planned to take.
        needed: u64,
        /// What the file system has.
        free: u64,
        /// The root.
        root: PathBuf,
    },
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
    /// Another process writes it.
    #[error("another process writes this ring")]
    Locked,
    /// It would pass `memory.global_limit` or `memory.per_stream_limit`.
    #[error("{0} would be passed")]
    OverLimit(&'static str),
    /// The housekeeping thread has too much to do.
    #[error("too many housekeeping jobs are waiting")]
    Busy,
}

/// What a stream needs besides its rings; made on the housekeeping thread, used on a shard.
pub struct StreamOutput {
    /// Its name.
    pub name: String,
    /// What readers of the whole stream wait on.
    pub bell: BellWriter,
    /// How the waker thread is told.
    pub wake: Arc<WakeFlag>,
    /// When the stream was opened, in nanoseconds since 1970.
    pub created_utc_ns: i64,
}

/// The root and the streams in it.
pub struct RingDirectory {
    options: OutputOptions,
    waker: Waker,
    ended: Mutex<Vec<Ended>>,
    /// Bytes of each ring's files, by directory.
    rings: Mutex<BTreeMap<PathBuf, u64>>,
    /// Video rings made ahead of their need, with the directories they were made in: a new stream does not wait for them.
    spare: Mutex<Vec<(PathBuf, Writer)>>,
    spare_made: AtomicU64,
}

/// What waits to be cleared away: a stream, or one track of a stream that goes on.
struct Ended {
    stream: String,
    track: Option<String>,
    at: Instant,
}

impl RingDirectory {
    /// Makes the root if it is not there, and judges it if it is.
    ///
    /// # Errors
    /// [`DirectoryError`], which names the directory.
    pub fn prepare(options: OutputOptions, waker: Waker) -> Result<Self, DirectoryError> {
        let path = options.root.clone();
        if let Some(warning) = names::create_root(&path, &options.group)? {
            tracing::warn!("{}: {warning}", path.display());
        }
        let probe = path.join(format!(".tmp-{}-probe", std::process::id()));
        fs::create_dir(&probe)
            .and_then(|()| fs::remove_dir(&probe))
            .map_err(|source| DirectoryError::NotWritable { path: path.clone(), source })?;
        // Streams of an earlier run wait for their source as those of this run do.
        let left: Vec<Ended> = names::list_streams(&path)
            .map_err(|source| DirectoryError::NotWritable { path: path.clone(), source })?
            .into_iter()
            .map(|entry| Ended { stream: entry.name, track: None, at: Instant::now() })
            .collect();
        Ok(Self {
            options,
            waker,
            ended: Mutex::new(left),
            rings: Mutex::default(),
            spare: Mutex::default(),
            spare_made: AtomicU64::new(0),
        })
    }

    /// Sweeps what a crash has left half made. Only for who holds the root's lock: nobody else may be making rings there.
    pub fn sweep(&self) {
        match builder::sweep_temporary(&self.options.root) {
            Ok(0) => {}
            Ok(count) => tracing::info!("swept {count} half-made rings of an earlier run"),
            Err(error) => tracing::warn!("could not sweep {}: {error}", self.options.root.display()),
        }
    }

    /// The options in force.
    pub fn options(&self) -> &OutputOptions {
        &self.options
    }

    /// Makes or takes up the directory of a stream.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn open_stream(&self, name: &str) -> Result<StreamOutput, StreamError> {
        let directory = self.stream_directory(name);
        fs::create_dir_all(&directory)?;
        let left = names::list_tracks(&directory)?;
        {
            // The stream stays; of its tracks, those stay that its source has this time too.
            let mut ended = self.ended();
            ended.retain(|ended| ended.stream != name);
            let at = Instant::now();
            ended.extend(left.into_iter().map(|track| Ended { stream: name.to_owned(), track: Some(track), at }));
        }
        let needed = self.options.planned_stream_size();
        let spare: u64 = self.spare().iter().map(|(_, writer)| writer.header().data_capacity).sum();
        let free = free_bytes(&self.options.root)? + spare;
        if free < needed && !directory.join("video0").exists() {
            let _ = fs::remove_dir(&directory);
            return Err(StreamError::NoMemory { needed, free, root: self.options.root.clone() });
        }
        let bell = match BellWriter::attach(&directory) {
            Ok(bell) => bell,
            Err(BellError::Locked) => return Err(BellError::Locked.into()),
            Err(_) => {
                // Not there, or left by an earlier boot or version: nobody can be reading it.
                for left in ["bell", "writer.lock"] {
                    let _ = fs::remove_file(directory.join(left));
                }
                BellWriter::create(&directory)?
            }
        };
        let wake = Arc::new(self.waker.enter(bell.wake_target()));
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let created_utc_ns = i64::try_from(since_1970.as_nanos()).unwrap_or(0);
        Ok(StreamOutput { name: name.to_owned(), bell, wake, created_utc_ns })
    }

    /// Makes or takes up the ring of a track.
    ///
    /// # Errors
    /// [`TrackError`].
    pub fn open_track(&self, stream: &str, track: &str, description: &TrackDescription) -> Result<Writer, TrackError> {
        self.ended().retain(|ended| ended.stream != stream || ended.track.as_deref() != Some(track));
        let directory = self.stream_directory(stream);
        let target = directory.join(track);
        let codec = description.codec;
        let spec = self.options.ring_spec(codec.kind(), codec.fourcc(), description.clock_rate);
        match builder::attach(&target, &spec) {
            Ok(writer) => {
                self.rings().insert(target, spec.memory_size());
                return Ok(writer);
            }
            Err(AttachError::Locked) => return Err(TrackError::Locked),
            Err(_) => {}
        }
        let of_stream: u64 = self
            .rings()
            .range(directory.clone()..)
            .take_while(|(path, _)| path.starts_with(&directory))
            .map(|(_, size)| size)
            .sum();
        if self.memory_used() + spec.memory_size() > self.options.memory_limit {
            return Err(TrackError::OverLimit("memory.global_limit"));
        }
        if of_stream + spec.memory_size() > self.options.stream_memory_limit {
            return Err(TrackError::OverLimit("memory.per_stream_limit"));
        }
        let (temporary, made) = match self.take_spare(&spec) {
            Some((temporary, mut writer)) => {
                builder::relabel(&mut writer, spec.kind, spec.codec, spec.clock_rate);
                (temporary, Ok(writer))
            }
            None => {
                let temporary = directory.join(format!(".tmp-{}-{track}", std::process::id()));
                let made = builder::create(&temporary, &spec).map_err(TrackError::from);
                (temporary, made)
            }
        };
        let made = made.and_then(|writer| {
            builder::publish(&temporary, &target)?;
            Ok(writer)
        });
        match &made {
            Ok(_) => {
                self.rings().insert(target, spec.memory_size());
            }
            Err(_) => {
                // What is left of it is swept at the next start if it cannot be removed now.
                let _ = fs::remove_dir_all(&temporary);
            }
        }
        made
    }

    /// Puts the description of a stream beside its rings.
    pub fn describe(&self, descriptor: &StreamDescriptor) {
        if let Err(error) = descriptor.write(&self.stream_directory(&descriptor.name)) {
            tracing::warn!(stream = descriptor.name, "the stream's description cannot be written: {error}");
        }
    }

    /// Regular work of the housekeeping thread: makes one ring ahead, if any is wanted, and clears away.
    pub fn tick(&self) {
        self.make_spare();
        self.clear_ended();
    }

    /// One video ring more, up to the pool's size and as long as half of the file system stays free.
    fn make_spare(&self) {
        let spec = self.options.ring_spec(TrackKind::Video, *b"h264", CLOCK_RATE_90_KHZ);
        let in_use = self.rings().values().filter(|&&size| size == spec.memory_size()).count();
        let wanted = self.options.pool_size.saturating_sub(in_use);
        let held = self.spare().len();
        let fits = self.memory_used() + spec.memory_size() * (held as u64 + 1) <= self.options.memory_limit;
        if held >= wanted || !fits || !leaves_half(&self.options.root, spec.memory_size()) {
            return;
        }
        let number = self.spare_made.fetch_add(1, Ordering::Relaxed);
        let directory = self.options.root.join(format!(".tmp-{}-spare-{number}", std::process::id()));
        match builder::create(&directory, &spec) {
            Ok(writer) => self.spare().push((directory, writer)),
            Err(error) => {
                tracing::debug!("no ring could be made ahead: {error}");
                let _ = fs::remove_dir_all(&directory);
            }
        }
    }

    fn take_spare(&self, spec: &RingSpec) -> Option<(PathBuf, Writer)> {
        let ahead = self.options.ring_spec(TrackKind::Video, *b"h264", CLOCK_RATE_90_KHZ);
        let fits = RingSpec { kind: ahead.kind, codec: ahead.codec, clock_rate: ahead.clock_rate, ..*spec } == ahead;
        if fits { self.spare().pop() } else { None }
    }

    /// Gives up the rings that were made ahead; the process is about to end.
    pub fn drop_spare(&self) {
        for (directory, writer) in self.spare().drain(..) {
            drop(writer);
            let _ = fs::remove_dir_all(directory);
        }
    }

    /// The stream's rings are ended; they stay for their readers for `output.retention`.
    pub fn stream_ended(&self, name: &str) {
        self.ended().push(Ended { stream: name.to_owned(), track: None, at: Instant::now() });
    }

    /// The ring of one track is ended, and the stream goes on; the ring stays as long.
    pub fn track_ended(&self, stream: &str, track: &str) {
        self.ended().push(Ended { stream: stream.to_owned(), track: Some(track.to_owned()), at: Instant::now() });
    }

    /// Removes streams and tracks whose readers had their time.
    fn clear_ended(&self) {
        let retention = self.options.retention;
        let over: Vec<Ended> = self.ended().extract_if(.., |ended| ended.at.elapsed() >= retention).collect();
        for Ended { stream, track, .. } in over {
            let directory = self.stream_directory(&stream);
            let directory = track.as_ref().map_or(directory.clone(), |track| directory.join(track));
            let track = track.unwrap_or_default();
            match fs::remove_dir_all(&directory) {
                Ok(()) => tracing::info!(stream, track, "cleared away"),
                // With the whole stream, by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(stream, track, "could not be cleared away: {error}");
                    continue;
                }
            }
            self.rings().retain(|path, _| !path.starts_with(&directory));
        }
    }

    /// Bytes of shared memory that rings take.
    pub fn memory_used(&self) -> u64 {
        self.rings().values().sum()
    }

    fn stream_directory(&self, name: &str) -> PathBuf {
        self.options.root.join(names::encode_name(name))
    }

    fn rings(&self) -> MutexGuard<'_, BTreeMap<PathBuf, u64>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<(PathBuf, Writer)>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, Vec<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn leaves_half(path: &Path, bytes: u64) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|facts| {
        let (free, total) = (facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize);
        free.saturating_sub(bytes) >= total / 2
    })
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let facts = rustix::fs::statvfs(path)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}
