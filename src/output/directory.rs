//! The directory that readers find rings by: made, filled, swept and cleared on the housekeeping thread.

mod error;
mod payload;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headworks_frame_ring::bell::{BellError, BellWriter};
use headworks_frame_ring::builder::{self, AttachError, CreateError, RingSpec};
use headworks_frame_ring::directory as names;
use headworks_frame_ring::placement;
use headworks_frame_ring::stream_descriptor::StreamDescriptor;
use headworks_frame_ring::writer::Writer;
use headworks_host::facts::{MemoryCgroup, Space, read_memory_cgroup, read_space};

pub use self::error::{DirectoryError, StreamError, TrackError};
pub use self::payload::judge_hugetlbfs;
use self::payload::{describe_placement, describe_taken_up, free_bytes, node_of, prepare_hugetlbfs};
use super::description::ring_kind;
use super::ended::{Ended, Standing};
use super::memory::MemoryBook;
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
    /// Bytes of shared memory that all rings may take: what `ingestion.memory.global_limit` leaves for them.
    pub memory_limit: u64,
    /// Bytes of shared memory that one stream may take.
    pub stream_memory_limit: u64,
    /// Streams whose video rings are made ahead.
    pub pool_size: usize,
    /// Streams and tracks that have ended and wait to be cleared away, at most; the oldest goes early for one more.
    pub ended_max: usize,
    /// A mount of hugetlbfs for payloads.
    pub hugetlbfs: Option<PathBuf>,
    /// The NUMA node of each shard, where the host has several.
    pub shard_nodes: Vec<Option<u32>>,
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
            ended_max: 2 * (ingestion.max_connections + ingestion.rtp.max_sessions) as usize,
            hugetlbfs: config.output.hugetlbfs.clone(),
            shard_nodes: Vec::new(),
        }
    }

    /// The node that rings of a shard lie on.
    fn node_of(&self, shard: usize) -> Option<u32> {
        self.shard_nodes.get(shard).copied().flatten()
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
    /// The node its rings are to lie on.
    pub numa_node: Option<u32>,
    /// How it was described before, if it was; its tracks have their names from there.
    pub described: StreamDescriptor,
    /// Where the newest frame of each programme stands on its timeline, in nanoseconds.
    pub newest_ns: BTreeMap<u32, i64>,
    /// The first segment number that no frame in its rings has.
    pub segment_base: u32,
}

/// The root and the streams in it.
pub struct RingDirectory {
    options: OutputOptions,
    /// By shard.
    wakers: Vec<Waker>,
    ended: Mutex<Vec<Ended>>,
    memory: Mutex<MemoryBook>,
    /// Video rings made ahead of their need, with the directories they were made in: a new stream does not wait for them.
    spare: Mutex<Vec<(PathBuf, Writer)>>,
    spare_made: AtomicU64,
    /// This root's directory on hugetlbfs.
    hugetlbfs: Option<PathBuf>,
    /// What was said of rings' memory, so that it is said once.
    told: Mutex<BTreeSet<String>>,
    /// Where the host's facts are.
    host: PathBuf,
}

impl RingDirectory {
    /// Makes the root if it is not there, and judges it if it is. `wakers` are those of each shard, in a circle if there are fewer.
    ///
    /// # Errors
    /// [`DirectoryError`], which names the directory.
    pub fn prepare(options: OutputOptions, wakers: Vec<Waker>) -> Result<Self, DirectoryError> {
        let path = options.root.clone();
        if let Some(warning) = names::create_root(&path, &options.group)? {
            tracing::warn!("{}: {warning}", path.display());
        }
        let probe = path.join(format!(".tmp-{}-probe", std::process::id()));
        fs::create_dir(&probe)
            .and_then(|()| fs::remove_dir(&probe))
            .map_err(|source| DirectoryError::NotWritable { path: path.clone(), source })?;
        let hugetlbfs = options.hugetlbfs.as_ref().and_then(|mount| prepare_hugetlbfs(mount, &options));
        // Streams of an earlier run wait for their source as those of this run do.
        let mut memory = MemoryBook::default();
        let mut left = Vec::new();
        for entry in
            names::list_streams(&path).map_err(|source| DirectoryError::NotWritable { path: path.clone(), source })?
        {
            for ring in names::list_tracks(&entry.path).unwrap_or_default().iter().map(|it| entry.path.join(it)) {
                let size =
                    ["ctl", "data"].iter().filter_map(|file| Some(fs::metadata(ring.join(file)).ok()?.len())).sum();
                memory.insert(ring, size);
            }
            left.push(Ended::new(&entry.name, None, Standing::Ended));
        }
        Ok(Self {
            options,
            wakers,
            ended: Mutex::new(left),
            memory: Mutex::new(memory),
            spare: Mutex::default(),
            spare_made: AtomicU64::new(0),
            hugetlbfs,
            told: Mutex::default(),
            host: PathBuf::from("/"),
        })
    }

    /// Sweeps what a crash has left half made. Only for who holds the root's lock: nobody else may be making rings there.
    pub fn sweep(&self) {
        match builder::sweep_temporary(&self.options.root) {
            Ok(0) => {}
            Ok(count) => tracing::info!("swept {count} half-made rings of an earlier run"),
            Err(error) => tracing::warn!("could not sweep {}: {error}", self.options.root.display()),
        }
        let Some(hugetlbfs) = &self.hugetlbfs else { return };
        match placement::sweep_hugetlbfs(hugetlbfs, &self.options.root) {
            Ok(0) => {}
            Ok(count) => tracing::info!("swept {count} payloads on hugetlbfs that no ring uses"),
            Err(error) => tracing::warn!("could not sweep {}: {error}", hugetlbfs.display()),
        }
    }

    /// The options in force.
    pub fn options(&self) -> &OutputOptions {
        &self.options
    }

    /// Makes or takes up the directory of a stream that this shard owns, if there is memory for the rings of a planned one. For that,
    /// what has ended is cleared away before its time.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn open_stream(&self, name: &str, shard: usize) -> Result<StreamOutput, StreamError> {
        let planned = self.options.planned_stream_size();
        if planned > self.options.stream_memory_limit {
            return Err(StreamError::OverStreamLimit { limit: self.options.stream_memory_limit, planned });
        }
        let directory = self.stream_directory(name);
        self.memory().promise(&directory, planned);
        let opened = self.make_room(name).and_then(|()| self.open_bell(name, &directory, shard));
        if opened.is_err() {
            self.memory().release(&directory);
        }
        opened
    }

    /// Clears away what has ended, oldest first, until what is promised can be kept.
    fn make_room(&self, name: &str) -> Result<(), StreamError> {
        loop {
            let shortage = self.shortage()?;
            match shortage {
                None => return Ok(()),
                Some(error) if !self.clear_oldest(|ended| ended.stream != name) => return Err(error),
                Some(_) => {}
            }
        }
    }

    /// Why what is promised cannot be kept, if it cannot.
    fn shortage(&self) -> io::Result<Option<StreamError>> {
        let spare_size = self.spare_spec().memory_size();
        let committed = self.memory().committed();
        let outstanding = self.memory().outstanding();
        // Rings that were made ahead are the first to go.
        let allowed = self.options.memory_limit.saturating_sub(committed) / spare_size;
        self.keep_spare(usize::try_from(allowed).unwrap_or(usize::MAX));
        let spare = self.spare().len() as u64 * spare_size;
        // Payloads lie on hugetlbfs as long as there are pages, and no memory cgroup counts them.
        let reserved = self.hugetlbfs.as_deref().map_or(Ok(0), free_bytes)?;
        let free = free_bytes(&self.options.root)? + reserved + spare;
        // What rings have taken already, the cgroup has counted.
        let cgroup = read_memory_cgroup(&self.host).filter(|cgroup| outstanding > cgroup.free + reserved + spare);
        let planned = self.options.planned_stream_size();
        let limit = self.options.memory_limit;
        Ok(if committed > limit {
            let missing = committed - limit;
            Some(StreamError::OverLimit { limit, committed: committed.saturating_sub(planned), planned, missing })
        } else if outstanding > free {
            Some(StreamError::NoMemory { needed: outstanding, free, root: self.options.root.clone() })
        } else if let Some(MemoryCgroup { file, limit, free }) = cgroup {
            Some(StreamError::NoCgroupMemory { needed: outstanding, free: free + spare, limit, file })
        } else {
            None
        })
    }

    fn open_bell(&self, name: &str, directory: &Path, shard: usize) -> Result<StreamOutput, StreamError> {
        fs::create_dir_all(directory)?;
        // Whatever the umask, and whoever made it: the group is who reads, and has what is made in it.
        fs::set_permissions(directory, Permissions::from_mode(0o2750))?;
        let left = names::list_tracks(directory)?;
        {
            // The stream stays; of its tracks, those stay that its source has this time too.
            let mut ended = self.ended();
            ended.retain(|ended| ended.stream != name);
            ended.extend(left.iter().map(|track| Ended::new(name, Some(track), Standing::Left)));
        }
        let mut bell = match BellWriter::attach(directory) {
            Ok(bell) => bell,
            Err(error) if matches!(error, BellError::Locked) || error.is_shortage() => return Err(error.into()),
            Err(_) => {
                // Not there, or left by an earlier boot or another version: it cannot be taken up.
                for left in ["bell", "writer.lock"] {
                    let _ = fs::remove_file(directory.join(left));
                }
                BellWriter::create(directory)?
            }
        };
        let wake = Arc::new(self.wakers[shard % self.wakers.len()].enter(bell.wake_target()));
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let created_utc_ns = i64::try_from(since_1970.as_nanos()).unwrap_or(0);
        let numa_node = self.options.node_of(shard);
        let described = StreamDescriptor::read(directory).ok().filter(|described| described.name == name);
        let described = described.unwrap_or_default();
        let mut newest_ns = BTreeMap::new();
        let mut segment_base = 0;
        for track in left {
            let Some(ring) = builder::look_at(&directory.join(&track)) else { continue };
            // Also past rings whose tracks will not come back: readers have seen their numbers.
            bell.advance_to(ring.stream_seq_after);
            segment_base = ring.last_frame.map_or(0, |frame| frame.segment.saturating_add(1)).max(segment_base);
            if let Some(known) = described.tracks.iter().find(|known| known.name == track) {
                let newest = newest_ns.entry(known.programme).or_default();
                *newest = ring.timeline_ns.max(*newest);
            }
        }
        Ok(StreamOutput {
            name: name.to_owned(),
            bell,
            wake,
            created_utc_ns,
            numa_node,
            described,
            newest_ns,
            segment_base,
        })
    }

    /// Makes or takes up the ring of a track.
    ///
    /// # Errors
    /// [`TrackError`].
    pub fn open_track(
        &self,
        stream: &str,
        track: &str,
        description: &TrackDescription,
        numa_node: Option<u32>,
    ) -> Result<Writer, TrackError> {
        self.ended().retain(|ended| ended.stream != stream || ended.track.as_deref() != Some(track));
        let directory = self.stream_directory(stream);
        let target = directory.join(track);
        let codec = description.codec;
        let spec = self.options.ring_spec(codec.kind(), codec.fourcc(), description.clock_rate);
        let spec = RingSpec { numa_node, ..spec };
        match builder::attach(&target, &spec) {
            Ok(writer) => {
                self.tell_of_taken_up(&writer, &spec);
                self.memory().insert(target, spec.memory_size());
                return Ok(writer);
            }
            Err(AttachError::Locked) => return Err(TrackError::Locked),
            // It holds frames, and will be there when there are descriptors again.
            Err(error) if error.is_shortage() => return Err(error.into()),
            // Not there, or not to be taken up: another takes its place.
            Err(_) => {}
        }
        self.make_room_for_ring(stream, &target, spec.memory_size())?;
        let (temporary, made) = match self.take_spare(&spec) {
            Some((temporary, mut writer)) => {
                builder::relabel(&mut writer, spec.kind, spec.codec, spec.clock_rate);
                (temporary, Ok(writer))
            }
            None => {
                let temporary = directory.join(format!(".tmp-{}-{track}", std::process::id()));
                let made = self.create(&temporary, &spec).map_err(TrackError::from);
                (temporary, made)
            }
        };
        let made = made.and_then(|writer| {
            builder::publish(&temporary, &target)?;
            Ok(writer)
        });
        match &made {
            Ok(_) => self.memory().insert(target, spec.memory_size()),
            Err(_) => {
                // What is left of it is swept at the next start if it cannot be removed now.
                let _ = placement::remove(&temporary);
            }
        }
        made
    }

    /// Judges a ring more for a stream, in place of the one at `target` if there is one; what has ended is cleared away before its
    /// time, if it has to be: for the limit of the stream its own tracks that have ended, so that a source whose tracks come and go
    /// has rings for those that it has now.
    fn make_room_for_ring(&self, stream: &str, target: &Path, needed: u64) -> Result<(), TrackError> {
        let directory = self.stream_directory(stream);
        loop {
            let limit = self.options.stream_memory_limit;
            let taken = self.memory().taken_beside(&directory, target);
            if taken + needed <= limit {
                break;
            }
            if !self.clear_oldest(|ended| ended.stream == stream && ended.track.is_some()) {
                return Err(TrackError::OverLimit { key: "ingestion.memory.per_stream_limit", limit, taken, needed });
            }
        }
        loop {
            let limit = self.options.memory_limit;
            let growth = self.memory().growth(&directory, target, needed);
            let taken = self.memory().committed();
            if taken + growth <= limit {
                return Ok(());
            }
            if !self.clear_oldest(|ended| ended.stream != stream || ended.track.is_some()) {
                return Err(TrackError::OverLimit { key: "ingestion.memory.global_limit", limit, taken, needed });
            }
        }
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

    /// A ring, and a word about its memory.
    fn create(&self, directory: &Path, spec: &RingSpec) -> Result<Writer, CreateError> {
        let writer = builder::create_on(directory, spec, self.hugetlbfs.as_deref())?;
        for (is_fault, text) in describe_placement(&writer.placement(), spec.numa_node) {
            self.tell_once(is_fault, text);
        }
        Ok(writer)
    }

    /// A ring that was taken up stays where it lies, whatever is wished now.
    fn tell_of_taken_up(&self, writer: &Writer, spec: &RingSpec) {
        let page_size = self.hugetlbfs.as_deref().and_then(|mount| placement::huge_page_size(mount).ok()?);
        for text in describe_taken_up(writer.header(), spec, page_size) {
            self.tell_once(true, text);
        }
    }

    fn tell_once(&self, is_fault: bool, text: String) {
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
            if is_fault { tracing::warn!("{text}") } else { tracing::info!("{text}") }
        }
    }

    /// Whether half of the file system, and of a limit on memory, stays free; pages set aside for rings are there for them.
    fn leaves_half(&self, bytes: u64) -> bool {
        if self.hugetlbfs.as_deref().and_then(read_space).is_some_and(|reserved| reserved.free >= bytes) {
            return true;
        }
        let of_memory = |cgroup: MemoryCgroup| Space { total: cgroup.limit, free: cgroup.free };
        let spaces = [read_space(&self.options.root), read_memory_cgroup(&self.host).map(of_memory)];
        spaces[0].is_some() && spaces.iter().flatten().all(|space| space.free.saturating_sub(bytes) >= space.total / 2)
    }

    /// One video ring more, up to the pool's size and as long as half of the file system stays free.
    fn make_spare(&self) {
        let spec = RingSpec { numa_node: self.scarcest_node(), ..self.spare_spec() };
        let in_use = self.memory().count_of(spec.memory_size());
        let wanted = self.options.pool_size.saturating_sub(in_use);
        let held = self.spare().len();
        let fits = self.memory().committed() + spec.memory_size() * (held as u64 + 1) <= self.options.memory_limit;
        if held >= wanted || !fits || !self.leaves_half(spec.memory_size()) {
            return;
        }
        let number = self.spare_made.fetch_add(1, Ordering::Relaxed);
        let directory = self.options.root.join(format!(".tmp-{}-spare-{number}", std::process::id()));
        match self.create(&directory, &spec) {
            Ok(writer) => self.spare().push((directory, writer)),
            Err(error) => {
                tracing::debug!("no ring could be made ahead: {error}");
                let _ = placement::remove(&directory);
            }
        }
    }

    fn take_spare(&self, spec: &RingSpec) -> Option<(PathBuf, Writer)> {
        let ahead = RingSpec { numa_node: spec.numa_node, ..self.spare_spec() };
        let fits = RingSpec { kind: ahead.kind, codec: ahead.codec, clock_rate: ahead.clock_rate, ..*spec } == ahead;
        let mut spare = self.spare();
        let place = spare.iter().rposition(|(_, writer)| node_of(writer) == spec.numa_node).filter(|_| fits)?;
        Some(spare.remove(place))
    }

    fn spare_spec(&self) -> RingSpec {
        self.options.ring_spec(TrackKind::Video, *b"h264", CLOCK_RATE_90_KHZ)
    }

    /// The shards' node of which the fewest rings are held.
    fn scarcest_node(&self) -> Option<u32> {
        let spare = self.spare();
        let held = |node: Option<u32>| spare.iter().filter(|(_, writer)| node_of(writer) == node).count();
        self.options.shard_nodes.iter().copied().min_by_key(|&node| held(node)).flatten()
    }

    /// Gives up the rings that were made ahead; the process is about to end.
    pub fn drop_spare(&self) {
        self.keep_spare(0);
    }

    fn keep_spare(&self, count: usize) {
        while self.spare().len() > count {
            let Some((directory, writer)) = self.spare().pop() else { return };
            drop(writer);
            let _ = placement::remove(&directory);
        }
    }

    /// The stream's rings are ended; they stay for their readers for `output.retention`, or until their memory is needed.
    pub fn stream_ended(&self, name: &str) {
        self.memory().release(&self.stream_directory(name));
        if !self.ended().iter().any(|ended| ended.stream == name && ended.track.is_none()) {
            self.keep_for_readers(Ended::new(name, None, Standing::Ended));
        }
    }

    /// The ring of one track is ended, and the stream goes on; the ring stays as long.
    pub fn track_ended(&self, stream: &str, track: &str) {
        self.keep_for_readers(Ended::new(stream, Some(track), Standing::Ended));
    }

    fn keep_for_readers(&self, ended: Ended) {
        let stream = ended.stream.clone();
        self.ended().push(ended);
        loop {
            let oldest = {
                let mut all = self.ended();
                let may_go: Vec<usize> = (0..all.len()).filter(|&place| all[place].may_make_way()).collect();
                if may_go.len() <= self.options.ended_max {
                    return;
                }
                // A stream whose tables change all the time costs itself its rings before it costs others theirs.
                let is_own = |&&place: &&usize| all[place].stream == stream && all[place].track.is_some();
                let mut own = may_go.iter().filter(is_own);
                let place = own.next().filter(|_| own.next().is_some()).unwrap_or(&may_go[0]);
                all.remove(*place)
            };
            self.clear(&oldest);
        }
    }

    /// What rings of these streams take or were promised, in bytes.
    pub fn held_by<'a>(&self, streams: impl Iterator<Item = &'a str>) -> u64 {
        let memory = self.memory();
        streams.map(|name| memory.held_by(&self.stream_directory(name))).sum()
    }

    /// Removes streams and tracks whose readers had their time.
    fn clear_ended(&self) {
        let is_over =
            |ended: &mut Ended| ended.standing == Standing::Stuck || ended.at.elapsed() >= self.options.retention;
        let over: Vec<Ended> = self.ended().extract_if(.., is_over).collect();
        over.iter().for_each(|ended| self.clear(ended));
    }

    /// Removes what has been ended for longest of what may go, before its time. `false` if there is nothing.
    fn clear_oldest(&self, may_go: impl Fn(&Ended) -> bool) -> bool {
        let oldest = self.ended().extract_if(.., |ended| ended.may_make_way() && may_go(ended)).next();
        if let Some(ended) = &oldest {
            tracing::info!(stream = ended.stream, "memory is needed");
            self.clear(ended);
        }
        oldest.is_some()
    }

    fn clear(&self, Ended { stream, track, standing, .. }: &Ended) {
        let directory = self.stream_directory(stream);
        let directory = track.as_ref().map_or(directory.clone(), |track| directory.join(track));
        let name = track.as_deref().unwrap_or_default();
        // A ring that no source came back for was never ended by a writer, and its readers wait.
        builder::end(&directory);
        match placement::remove(&directory) {
            Ok(()) => tracing::info!(stream, track = name, "cleared away"),
            // With the whole stream, by now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                if *standing != Standing::Stuck {
                    tracing::warn!(stream, track = name, "could not be cleared away, which is tried again: {error}");
                }
                // Its memory counts until it is gone.
                return self.ended().push(Ended::new(stream, track.as_deref(), Standing::Stuck));
            }
        }
        self.memory().remove(&directory);
    }

    /// Bytes of shared memory that rings take.
    pub fn memory_used(&self) -> u64 {
        self.memory().taken()
    }

    fn stream_directory(&self, name: &str) -> PathBuf {
        self.options.root.join(names::encode_name(name))
    }

    fn memory(&self) -> MutexGuard<'_, MemoryBook> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<(PathBuf, Writer)>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, Vec<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
