//! Making a ring, taking up one that a dead process left, and putting one in another's place. Work for a housekeeping thread:
//! 64 MiB take some 45 ms.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Relaxed, Release};

use thiserror::Error;

use crate::bell;
use crate::crash::{Step, point};
use crate::descriptor::{Discontinuity, FrameDescriptor};
use crate::layout::{self, Header, LayoutError, NONE, SLOT_WORDS, State, TrackKind};
use crate::memory::{self, MirroredData, SharedWords};
use crate::placement::{self, Placed, Placement};
use crate::wake;
use crate::writer::{Private, Totals, Writer};

/// The shape of a ring, fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSpec {
    /// What it carries.
    pub kind: TrackKind,
    /// Four characters of the codec.
    pub codec: [u8; 4],
    /// Ticks per second of pts, dts and duration.
    pub clock_rate: u32,
    /// Payload bytes kept; rounded up to a power of two, at least 64 KiB and four of the largest frames.
    pub data_capacity: u64,
    /// Descriptors kept; rounded up to a power of two, at least 16.
    pub slot_count: u32,
    /// The largest payload + side data of one frame, bytes.
    pub frame_size_max: u32,
    /// Node the payload should live on.
    pub numa_node: Option<u32>,
    /// Put the CRC32C of the payload into every descriptor.
    pub crc: bool,
}

impl RingSpec {
    /// `data_capacity` as it will be. Use it, with `slot_count` × 256, for the memory plan.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        let wanted = self.data_capacity.max(4 * u64::from(self.frame_size_max)).max(64 << 10);
        wanted.min(layout::DATA_CAPACITY_MAX).next_power_of_two()
    }

    /// `slot_count` as it will be.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slot_count.clamp(16, layout::SLOT_COUNT_MAX).next_power_of_two()
    }

    /// Shared memory the ring takes, bytes.
    #[must_use]
    pub fn memory_size(&self) -> u64 {
        self.capacity() + Header::ctl_size(self.slots()) as u64
    }
}

/// Gives a ring that was made ahead of its need, and that no reader can have seen yet, its kind, codec and clock.
///
/// # Panics
/// If a frame was committed to it.
pub fn relabel(writer: &mut Writer, kind: TrackKind, codec: [u8; 4], clock_rate: u32) {
    writer.relabel(kind, codec, clock_rate);
}

/// Why a ring cannot be made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// The largest frame is 0.
    #[error("the largest frame of a ring is 0 bytes")]
    FrameSize,
    /// No room in the file system.
    #[error("no room for a ring of {0} bytes")]
    Full(u64),
    /// Another process writes a ring in this directory.
    #[error("another process writes a ring there")]
    Locked,
    /// The operating system said no.
    #[error("ring: {0}")]
    Io(#[from] io::Error),
}

/// Why a ring cannot be taken up; all but `Locked` mean: make a new one and [`publish`] it in this one's place.
#[derive(Debug, Error)]
pub enum AttachError {
    /// Another process writes it.
    #[error("another process writes this ring")]
    Locked,
    /// Not a ring of this version, or its files are too small.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Left by an earlier boot.
    #[error("left by an earlier boot")]
    OtherBoot,
    /// It has another shape than wanted.
    #[error("the ring has another {0}")]
    Shape(&'static str),
    /// Its hot words contradict each other.
    #[error("the ring contradicts itself: {0}")]
    Damaged(&'static str),
    /// The operating system said no.
    #[error("ring: {0}")]
    Io(#[from] io::Error),
}

impl AttachError {
    /// Whether it says nothing of the ring, which is as good as it was: there were no descriptors or no memory left.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Io(error) if is_shortage(error))
    }
}

pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::EINTR))
}

/// Makes `ctl`, `data` and `writer.lock` in `directory` (made if missing) and returns the writer. The caller builds in a
/// temporary directory and then calls [`publish`].
///
/// # Errors
/// [`CreateError`]; the directory is then to be removed.
pub fn create(directory: &Path, spec: &RingSpec) -> Result<Writer, CreateError> {
    create_on(directory, spec, None)
}

/// As [`create`], with the payload on hugetlbfs, in the directory given there, if the ring fills whole pages of it and enough are
/// free; [`Writer::placement`] tells. Its directory is to be removed by [`placement::remove`].
///
/// # Errors
/// [`CreateError`]; the directory is then to be removed.
pub fn create_on(directory: &Path, spec: &RingSpec, hugetlbfs: Option<&Path>) -> Result<Writer, CreateError> {
    if spec.frame_size_max == 0 {
        return Err(CreateError::FrameSize);
    }
    match DirBuilder::new().mode(0o2750).create(directory) {
        Ok(()) => fs::set_permissions(directory, Permissions::from_mode(0o2750))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    let lock = lock_file(directory, true)?.ok_or(CreateError::Locked)?;
    let full = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CreateError::Full(spec.memory_size()),
        _ => CreateError::Io(error),
    };

    let ctl_size = Header::ctl_size(spec.slots());
    let ctl_file = new_file(directory, "ctl")?;
    memory::allocate(&ctl_file, ctl_size as u64).map_err(full)?;
    let ctl = SharedWords::writable(&ctl_file, ctl_size)?;

    let ring_uuid = memory::random_uuid()?;
    let Placed { data, placement, node, page_size } =
        placement::place(directory, spec, hugetlbfs, &ring_uuid).map_err(full)?;

    let header = Header {
        minor: layout::MINOR,
        features_required: 0,
        features_optional: if spec.crc { layout::FEATURE_PAYLOAD_CRC } else { 0 },
        boot_id: memory::boot_id()?,
        ring_uuid,
        slot_offset: layout::SLOT_OFFSET as u64,
        slot_count: spec.slots(),
        data_capacity: spec.capacity(),
        frame_size_max: spec.frame_size_max,
        config_offset: layout::CONFIG_OFFSET as u64,
        config_size: layout::CONFIG_SIZE as u32,
        config_count: layout::CONFIG_COUNT as u32,
        codec: u32::from_le_bytes(spec.codec),
        kind: spec.kind,
        clock_rate: spec.clock_rate,
        numa_node: node.map_or(-1, |node| node as i32),
        backing_page_size: page_size,
    };
    ctl.store(layout::LAST_KEY_SEQ, NONE, Relaxed);
    ctl.store_half(layout::WRITER_EPOCH, 1, Relaxed);
    ctl.write_bytes(0, &header.encode()[..]);
    let private = Private { epoch: 1, first_discontinuity: Some(Discontinuity::Start), ..Private::default() };
    Ok(Writer::new(ctl, data, header, private, placement, directory, lock))
}

/// Takes up the ring that an earlier process left in `directory`: same inodes, the sequence continues, the epoch is one higher,
/// and the next frame is a discontinuity. `spec` is the shape wanted.
///
/// # Errors
/// [`AttachError`].
pub fn attach(directory: &Path, spec: &RingSpec) -> Result<Writer, AttachError> {
    let lock = lock_file(directory, false)?.ok_or(AttachError::Locked)?;
    let handle = open_directory(directory)?;
    let ctl_file = open_shared(&handle, "ctl", true)?;
    let data_file = open_shared(&handle, "data", true)?;
    let header = judge_files(&ctl_file, &data_file)?;
    if header.boot_id != memory::boot_id()? {
        return Err(AttachError::OtherBoot);
    }
    check_shape(&header, spec)?;

    let ctl = SharedWords::writable(&ctl_file, ctl_mapping(&header))?;
    let mut private = recover(&ctl, &header)?;
    let data = MirroredData::map(&data_file, header.data_capacity, true)?;
    data.prefault();

    private.epoch = private.epoch.wrapping_add(1);
    private.futex = private.futex.wrapping_add(1);
    private.state = State::Live as u32;
    private.first_discontinuity = Some(Discontinuity::Restart);
    ctl.store_half(layout::WRITER_EPOCH, private.epoch, Release);
    point(Step::AttachEpoch);
    ctl.store_half(layout::STATE, private.state, Release);
    point(Step::AttachState);
    ctl.store_half(layout::FUTEX, private.futex, Release);
    wake::wake(&ctl, layout::FUTEX);
    Ok(Writer::new(ctl, data, header, private, Placement::UNCHANGED, directory, lock))
}

fn check_shape(header: &Header, spec: &RingSpec) -> Result<(), AttachError> {
    let checksums = header.features_optional & layout::FEATURE_PAYLOAD_CRC != 0;
    let known = header.minor == layout::MINOR && header.features_optional & !layout::FEATURE_PAYLOAD_CRC == 0;
    let same = [
        // What it adds, this writer would not keep up.
        (known, "minor version"),
        (header.kind == spec.kind, "kind"),
        (header.codec == u32::from_le_bytes(spec.codec), "codec"),
        (header.clock_rate == spec.clock_rate, "clock rate"),
        (header.data_capacity == spec.capacity(), "capacity"),
        (header.slot_count == spec.slots(), "number of slots"),
        (header.frame_size_max == spec.frame_size_max, "largest frame"),
        (checksums == spec.crc, "choice of checksums"),
        (header.config_size as usize == layout::CONFIG_SIZE, "configuration size"),
    ];
    match same.iter().find(|(same, _)| !same) {
        Some((_, what)) => Err(AttachError::Shape(what)),
        None => Ok(()),
    }
}

/// Reads back what the dead writer knew. The only place where a writer looks at shared words.
fn recover(ctl: &SharedWords, header: &Header) -> Result<Private, AttachError> {
    let reserve = ctl.load(layout::DATA_RESERVE);
    let head_seq = ctl.load(layout::HEAD_SEQ);
    // Half the range is enough for ever and leaves room for every sum.
    if reserve > u64::MAX / 2 || head_seq > u64::MAX / 2 {
        return Err(AttachError::Damaged("counters out of range"));
    }
    if ctl.load(layout::HEAD_POS) > reserve {
        return Err(AttachError::Damaged("frames beyond the reserve"));
    }
    let Slots { last_key, left } = read_slots(ctl, header, head_seq);
    if left.stream_seq_after > u64::MAX / 2 {
        return Err(AttachError::Damaged("stream sequence out of range"));
    }
    ctl.store(layout::LAST_KEY_SEQ, last_key, Release);
    point(Step::AttachLastKey);
    let config_generation = ctl.load_half(layout::CONFIG_GENERATION);
    let totals = |i: usize| ctl.load(layout::TOTALS + i * 8);
    let counters = [ctl.load(layout::HEARTBEAT_COUNT), totals(1), totals(2), totals(3)];
    if counters.iter().any(|&counter| counter > u64::MAX / 2) {
        return Err(AttachError::Damaged("counters out of range"));
    }
    Ok(Private {
        reserve,
        head_seq,
        futex: ctl.load_half(layout::FUTEX),
        state: ctl.load_half(layout::STATE),
        heartbeat_count: ctl.load(layout::HEARTBEAT_COUNT),
        epoch: ctl.load_half(layout::WRITER_EPOCH),
        config_generation,
        config: read_configuration(ctl, header, config_generation).unwrap_or_default(),
        // Died before it counted its last frame, it may be one short of what the ring's readers have seen.
        totals: Totals { frames: head_seq, bytes: totals(1), damaged: totals(2), discontinuities: totals(3) },
        stream_seq_after: left.stream_seq_after,
        first_discontinuity: None,
    })
}

/// What a ring holds that nobody writes just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// One past the newest `stream_seq`.
    pub stream_seq_after: u64,
    /// The newest frame.
    pub last_frame: Option<FrameDescriptor>,
    /// The highest `timeline_ns`, which need not be that of the newest frame: pictures are committed in the order of decoding.
    pub timeline_ns: i64,
}

/// Looks at the ring in `directory` without taking it up; `None` for what a writer of this boot could not take up either.
#[must_use]
pub fn look_at(directory: &Path) -> Option<Left> {
    let handle = open_directory(directory).ok()?;
    let ctl_file = open_shared(&handle, "ctl", false).ok()?;
    let header = judge_files(&ctl_file, &open_shared(&handle, "data", false).ok()?).ok()?;
    if header.boot_id != memory::boot_id().ok()? {
        return None;
    }
    let ctl = SharedWords::read_only(&ctl_file, ctl_mapping(&header)).ok()?;
    let head_seq = Some(ctl.load(layout::HEAD_SEQ)).filter(|seq| *seq <= u64::MAX / 2)?;
    let left = read_slots(&ctl, &header, head_seq).left;
    (left.stream_seq_after <= u64::MAX / 2).then_some(left)
}

struct Slots {
    last_key: u64,
    left: Left,
}

fn read_slots(ctl: &SharedWords, header: &Header, head_seq: u64) -> Slots {
    let mut last_key = NONE;
    let mut left = Left::default();
    for seq in head_seq.saturating_sub(u64::from(header.slot_count))..head_seq {
        let mut slot = [0; SLOT_WORDS];
        ctl.copy_words(header.slot_at(seq), &mut slot);
        // The oldest may be BUSY or already hold frame `head_seq`, whose head was not stored: it will be written again.
        if slot[0] != seq + 1 {
            continue;
        }
        if slot[3] as u32 & layout::FLAG_KEY != 0 {
            last_key = seq;
        }
        left.stream_seq_after = slot[4].saturating_add(1).max(left.stream_seq_after);
        left.last_frame = FrameDescriptor::decode(&slot).ok();
        left.timeline_ns = left.last_frame.map_or(0, |frame| frame.timeline_ns).max(left.timeline_ns);
    }
    Slots { last_key, left }
}

/// The bytes of a configuration block, if it holds that generation whole.
pub(crate) fn read_configuration(ctl: &SharedWords, header: &Header, generation: u32) -> Option<Vec<u8>> {
    if generation == 0 {
        return None;
    }
    let block = header.config_at(generation);
    // Pairs with the release store of the lock in `Writer::set_configuration`.
    if ctl.load_acquire(block) != u64::from(generation) {
        return None;
    }
    let lengths = ctl.load(block + 8);
    let crc = ctl.load(block + 16) as u32;
    let length = (lengths >> 32) as usize;
    if lengths as u32 != generation || length > header.config_size as usize - layout::CONFIG_HEAD {
        return None;
    }
    let mut bytes = vec![0; length];
    ctl.copy_bytes(block + layout::CONFIG_HEAD, &mut bytes);
    std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
    (ctl.load(block) == u64::from(generation) && crc32c::crc32c(&bytes) == crc).then_some(bytes)
}

/// Judges the header of `ctl` against itself and both files' sizes.
pub(crate) fn judge_files(ctl: &File, data: &File) -> Result<Header, JudgeError> {
    let ctl_size = ctl.metadata()?.len();
    if ctl_size < layout::CONFIG_OFFSET as u64 {
        return Err(LayoutError::Short(ctl_size).into());
    }
    let mut page = [0; layout::HEADER_SIZE];
    ctl.read_exact_at(&mut page, 0)?;
    Ok(Header::judge(&page, ctl_size, data.metadata()?.len())?)
}

/// Bytes of `ctl` that a judged header speaks of.
pub(crate) fn ctl_mapping(header: &Header) -> usize {
    let config_end = header.config_offset + u64::from(header.config_count) * u64::from(header.config_size);
    let slot_end = header.slot_offset + u64::from(header.slot_count) * layout::SLOT_SIZE as u64;
    config_end.max(slot_end) as usize
}

/// What [`judge_files`] found.
#[derive(Debug, Error)]
pub(crate) enum JudgeError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<JudgeError> for AttachError {
    fn from(error: JudgeError) -> Self {
        match error {
            JudgeError::Layout(error) => Self::Layout(error),
            JudgeError::Io(error) => Self::Io(error),
        }
    }
}

/// Gives a finished ring or stream its final name. If the name is taken, the two change places in one step, *then* what was there is
/// told that it is superseded, and removed: its readers keep their mappings and open again.
///
/// # Errors
/// What `renameat2` says. Both paths must be on one file system.
pub fn publish(temporary: &Path, target: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, temporary, CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    renameat_with(CWD, temporary, CWD, target, RenameFlags::EXCHANGE)?;
    supersede(temporary);
    placement::remove(temporary)
}

/// Tells the readers of the ring in `directory`, or of the rings of the stream there, to open again. What is no ring is left alone.
pub fn supersede(directory: &Path) {
    if !directory.join("ctl").exists() {
        let _ = bell::supersede(directory);
    }
    for ring in rings_of(directory) {
        let _ = leave_state(&ring, State::Superseded);
    }
}

/// Tells the readers of the ring in `directory`, or of the rings of the stream there, that no frame will come any more; of those alone
/// that nobody writes. The stream's bell is left as it is.
pub fn end(directory: &Path) {
    for ring in rings_of(directory) {
        if let Ok(Some(_lock)) = lock_file(&ring, false) {
            let _ = leave_state(&ring, State::Ended);
        }
    }
}

/// The directory itself if it is that of a ring, else the rings in it.
fn rings_of(directory: &Path) -> Vec<PathBuf> {
    let is_ring = |path: &PathBuf| path.join("ctl").exists();
    let own = directory.to_owned();
    if is_ring(&own) {
        return vec![own];
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(is_ring).collect()
}

/// Stores the last word on a ring, in place of a writer that is gone or is about to be.
fn leave_state(ring: &Path, state: State) -> Result<(), AttachError> {
    let ctl_file = open_shared(&open_directory(ring)?, "ctl", true)?;
    let mut page = [0; layout::HEADER_SIZE];
    ctl_file.read_exact_at(&mut page, 0)?;
    layout::judge_version(&page)?;
    let size = ctl_file.metadata()?.len();
    if size < layout::CONFIG_OFFSET as u64 {
        return Err(LayoutError::Short(size).into());
    }
    let ctl = SharedWords::writable(&ctl_file, layout::CONFIG_OFFSET)?;
    ctl.store_half(layout::STATE, state as u32, Release);
    // Its own writer, if it still lives, stores its next value over this: readers look at the state anyway.
    ctl.store_half(layout::FUTEX, ctl.load_half(layout::FUTEX).wrapping_add(1), Release);
    wake::wake(&ctl, layout::FUTEX);
    Ok(())
}

/// Removes what dead processes of this user were building: `.tmp-*` below `root` and below its streams, unless somebody holds a lock
/// in it. Returns how many. What has no lock goes too, so nobody else may be about to build under this root: the caller holds a
/// lock of its own on it.
///
/// # Errors
/// If `root` cannot be listed.
pub fn sweep_temporary(root: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(root)?.flatten() {
        let path = entry.path();
        if is_temporary(&path) {
            swept += usize::from(sweep(&path));
        } else if let Ok(entries) = fs::read_dir(&path) {
            swept += entries.flatten().filter(|e| is_temporary(&e.path()) && sweep(&e.path())).count();
        }
    }
    Ok(swept)
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp-"))
}

fn sweep(path: &Path) -> bool {
    // Of a link, the link is judged and removed, never what it leads to.
    let Ok(facts) = fs::symlink_metadata(path) else { return false };
    if facts.uid() != rustix::process::geteuid().as_raw() {
        return false;
    }
    if !facts.is_dir() {
        return fs::remove_file(path).is_ok();
    }
    let mut directories = vec![path.to_owned()];
    if let Ok(entries) = fs::read_dir(path) {
        directories
            .extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
    let mut locks = Vec::new();
    for directory in directories.iter().filter(|d| d.join("writer.lock").exists()) {
        match lock_file(directory, false) {
            Ok(Some(lock)) => locks.push(lock),
            _ => return false,
        }
    }
    // Killed while a ring changed places with its successor, the writer may have left it without a word to its readers.
    supersede(path);
    placement::remove(path).is_ok()
}

pub(crate) fn new_file(directory: &Path, name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(directory.join(name))?;
    // Whatever the umask: the group is who reads.
    file.set_permissions(Permissions::from_mode(0o640))?;
    Ok(file)
}

/// A handle to a directory: two files opened through it belong together, even if the name changes hands meanwhile.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    Ok(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a file of a ring or stream; anything but a regular file is refused, and a link too unless it is `data` (which may
/// be on hugetlbfs).
pub(crate) fn open_shared(directory: &OwnedFd, name: &str, write: bool) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, openat};
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let link = if name == "data" { OFlags::empty() } else { OFlags::NOFOLLOW };
    let file = File::from(openat(directory, name, access | link | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Takes `writer.lock` of a directory; `None` when another process (or another writer of this one) holds it. An OFD lock on a file
/// that only the writer's user can open: readers cannot take it, and it dies with the last descriptor.
pub(crate) fn lock_file(directory: &Path, create: bool) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(directory.join("writer.lock"))?;
    // SAFETY: all-zero is a valid `flock`: whole file, pid 0 as OFD locks require.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::F_WRLCK as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: a live descriptor and a live `flock`.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const request) } == 0 {
        return Ok(Some(file));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(None),
        _ => Err(error),
    }
}
