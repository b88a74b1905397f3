//! The reader: a frame is believed only after the checks of this file, made in this order, have passed.
//!
//! Everything in the ring may change at any moment and may be wrong: each word is loaded once, judged, then used. A frame's
//! payload is copied first and validated after; if the writer came by meanwhile the copy is thrown away and the reader is *lapped*.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::fence;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

pub mod inspection;

use crate::builder::{JudgeError, ctl_mapping, judge_files, open_directory, open_shared, read_configuration};
use crate::descriptor::{FrameDescriptor, RandomAccess};
use crate::layout::{self, Header, LayoutError, NONE, SLOT_WORDS, State};
use crate::memory::{MirroredData, SharedWords};
use crate::notifier::Notifier;
use crate::wake::{self, WakeTarget};
use crate::writer::Totals;

/// A writer whose heartbeat has not changed for so long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(1);

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the next frame to be published.
    Live,
    /// At the newest random access point still in the ring, else at the next one. Here and below, a recovery point with a count above
    /// 0 serves where the ring holds no random access point: a stream with gradual refresh has no others.
    Key,
    /// At the oldest frame still in the ring.
    Oldest,
    /// At the oldest random access point still in the ring, else at the next one.
    OldestKey,
    /// At this frame; lapped at once if it is gone, at the head if it lies in the future.
    Seq(u64),
}

/// What a look at the ring gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<F> {
    /// A frame.
    Frame(F),
    /// The writer overtook this reader.
    Lapped {
        /// Frames that will never be delivered, exactly; or up to the head if the reader now waits for a random access point.
        lost: u64,
        /// The next frame that may be delivered.
        resume_at: u64,
    },
    /// Frames passed over on the way to a random access point.
    Skipped {
        /// How many.
        count: u64,
    },
    /// Nothing came within the time given.
    Timeout,
    /// The source is silent; said once per change of state.
    Stalled,
    /// The writer's heartbeat stopped; said once. A successor may take the ring up: go on asking.
    WriterDead,
    /// All frames have been delivered and none will come.
    Ended,
    /// All frames have been delivered; another ring has this one's name now: open again, as `StreamReader` does by itself.
    Superseded,
}

/// A frame in this process's own memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Position among all frames of the stream.
    pub stream_seq: u64,
    /// What is known about it.
    pub descriptor: FrameDescriptor,
    /// The coded bytes.
    pub payload: &'a [u8],
    /// Side data; empty when there is none.
    pub side_data: &'a [u8],
}

/// A frame still in the ring, where the writer may overtake it at any moment. Believe nothing read from it until
/// [`Borrowed::is_intact`] says so *afterwards*.
#[derive(Debug)]
pub struct Borrowed<'a> {
    ctl: &'a SharedWords,
    data: &'a MirroredData,
    slot: &'a Slot,
}

/// Why a ring cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Not there, not readable, not mappable.
    #[error("ring: {0}")]
    Io(#[from] io::Error),
    /// Not a ring of this version, or one that is smaller than it says.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// The ring contradicts itself. Past a frame's error the reader goes on with the next frame; past [`ReadError::Head`] open again.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// The head went back.
    #[error("the head of the ring went back from {expected} to {found}")]
    Head {
        /// At least this was promised.
        expected: u64,
        /// This was found.
        found: u64,
    },
    /// A slot speaks of bytes that cannot be its own.
    #[error("frame {seq}: impossible {what}")]
    Bounds {
        /// The frame.
        seq: u64,
        /// Which field.
        what: &'static str,
    },
    /// A slot holds no descriptor, or that of another frame.
    #[error("frame {0}: no descriptor")]
    Descriptor(u64),
    /// The payload does not match its checksum, though nothing overtook it.
    #[error("frame {0}: checksum does not match")]
    Checksum(u64),
}

/// Why a configuration block cannot be had.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ConfigurationError {
    /// Generation 0, or one that was never made.
    #[error("no such configuration")]
    Unknown,
    /// Overwritten by a later one.
    #[error("configuration gone")]
    Gone,
    /// Its bytes do not match its checksum.
    #[error("configuration damaged")]
    Damaged,
}

/// A judged copy of a slot. It is filled in place and lent out: moving it costs more than judging it.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    position: u64,
    extent: usize,
    length: usize,
    flags: u32,
    stream_seq: u64,
    descriptor: FrameDescriptor,
}

impl Slot {
    fn is_key(&self) -> bool {
        self.flags & layout::FLAG_KEY != 0
    }

    fn is_recovery_point(&self) -> bool {
        self.descriptor.random_access == RandomAccess::RecoveryPoint
    }
}

/// What [`Reader::look`] found; `Ready` means that the reader holds the next frame's slot.
#[derive(Debug)]
pub(crate) enum Look {
    Ready { stream_seq: u64 },
    Lapped { lost: u64, resume_at: u64 },
    Skipped { count: u64 },
    Empty,
}

/// A slot or its payload is no longer there.
enum Miss {
    Lapped,
    Error(ReadError),
}

impl From<ReadError> for Miss {
    fn from(error: ReadError) -> Self {
        Self::Error(error)
    }
}

/// A reader of one ring. It maps read-only, holds no lock and leaves no trace.
#[derive(Debug)]
pub struct Reader {
    ctl: Arc<SharedWords>,
    data: MirroredData,
    header: Header,
    next: u64,
    /// The slot of the next frame while that is pending, of the last one then.
    slot: Slot,
    is_pending: bool,
    /// Only a random access point will do.
    awaiting_key: bool,
    skipped: u64,
    verify: bool,
    buffer: Vec<u8>,
    stalled_told: bool,
    life: Life,
}

/// The writer's life, judged by a change of its heartbeat against our own clock.
#[derive(Debug)]
pub(crate) struct Life {
    count: u64,
    since: Option<Duration>,
    dead_told: bool,
}

impl Life {
    pub(crate) fn new() -> Self {
        Self { count: 0, since: None, dead_told: false }
    }

    /// True once, when the heartbeat has stood still for [`DEAD_AFTER`].
    pub(crate) fn has_died(&mut self, count: u64) -> bool {
        // Good to some milliseconds, at a fifth of the price of the exact one.
        let clock = clock_gettime(ClockId::MonotonicCoarse);
        let now = Duration::new(clock.tv_sec.cast_unsigned(), clock.tv_nsec as u32);
        let since = *self.since.get_or_insert(now);
        if count != self.count {
            *self = Self { count, since: Some(now), dead_told: false };
            return false;
        }
        let died = !self.dead_told && now.saturating_sub(since) >= DEAD_AFTER;
        self.dead_told |= died;
        died
    }
}

impl Reader {
    /// Opens the ring in `directory`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(directory: &Path, start: Start) -> Result<Self, OpenError> {
        let handle = open_directory(directory)?;
        Self::from_files(&open_shared(&handle, "ctl", false)?, &open_shared(&handle, "data", false)?, start)
    }

    /// Opens a ring by its two files, e.g. descriptors received from a broker.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn from_files(ctl: &File, data: &File, start: Start) -> Result<Self, OpenError> {
        let header = judge_files(ctl, data).map_err(|error| match error {
            JudgeError::Layout(error) => OpenError::Layout(error),
            JudgeError::Io(error) => OpenError::Io(error),
        })?;
        let mut reader = Self {
            ctl: Arc::new(SharedWords::read_only(ctl, ctl_mapping(&header))?),
            data: MirroredData::map(data, header.data_capacity, false)?,
            header,
            next: 0,
            slot: Slot::default(),
            is_pending: false,
            awaiting_key: false,
            skipped: 0,
            verify: false,
            buffer: Vec::new(),
            stalled_told: false,
            life: Life::new(),
        };
        reader.seek(start);
        Ok(reader)
    }

    /// Goes elsewhere in the ring. What is passed over is not reported.
    pub fn seek(&mut self, start: Start) {
        let head = self.head();
        self.is_pending = false;
        self.skipped = 0;
        self.awaiting_key = false;
        self.next = match start {
            Start::Live => head,
            Start::Seq(seq) => seq.min(head),
            Start::Oldest => self.oldest(head, |_| true).unwrap_or(head),
            Start::OldestKey | Start::Key => {
                let found = if start == Start::Key {
                    self.newest_start(0, head, false)
                } else {
                    self.oldest(head, Slot::is_key).or_else(|| self.oldest(head, Slot::is_recovery_point))
                };
                self.awaiting_key = found.is_none();
                found.unwrap_or(head)
            }
        };
    }

    /// Goes where [`Start::OldestKey`] does; the frames passed over from the oldest one on are told.
    pub(crate) fn seek_first_key(&mut self) {
        self.seek(Start::Oldest);
        let oldest = self.next;
        self.seek(Start::OldestKey);
        self.skipped = self.next.saturating_sub(oldest);
    }

    pub(crate) fn is_awaiting_key(&self) -> bool {
        self.awaiting_key
    }

    /// Goes to the oldest frame whose `stream_seq` is at least `target`: where the other tracks of a stream begin when its
    /// video begins at a random access point.
    pub fn seek_stream_seq(&mut self, target: u64) {
        let head = self.head();
        self.seek(Start::Live);
        self.next = self.oldest(head, |slot| slot.stream_seq >= target).unwrap_or(head);
    }

    /// Gives the payloads' memory back, which is held as long as it is mapped. The ring is read no more.
    pub(crate) fn let_go(&mut self) {
        self.is_pending = false;
        self.data = MirroredData::nothing();
    }

    pub(crate) fn is_let_go(&self) -> bool {
        self.data.capacity() == 0
    }

    /// Any frame will do from now on.
    pub(crate) fn accept_any(&mut self) {
        self.awaiting_key = false;
    }

    /// Frames passed over on the way to a random access point that has not come, if it is certain that it will not.
    pub(crate) fn take_skipped(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.skipped)).filter(|&count| count > 0)
    }

    /// Tells of changes in the ring, for event loops and tasks. Each is a thread of its own.
    ///
    /// # Errors
    /// If there is no descriptor or thread left.
    pub fn notifier(&self) -> io::Result<Notifier> {
        Notifier::start(Arc::new(Mutex::new(WakeTarget::new(Arc::clone(&self.ctl), layout::FUTEX))))
    }

    /// Check payloads against their checksums, where the ring has them. Off by default: the checks above find every torn frame;
    /// this one finds broken memory and broken writers.
    pub fn verify_checksums(&mut self, verify: bool) {
        self.verify = verify;
    }

    /// The next frame, copied into a buffer that this reader keeps, or what happened instead; waits at most `timeout`.
    ///
    /// # Errors
    /// [`ReadError`] when the ring contradicts itself.
    pub fn next(&mut self, timeout: Duration) -> Result<Next<Frame<'_>>, ReadError> {
        Ok(match self.advance(timeout)? {
            Next::Frame(()) => match self.copy_pending()? {
                Ok(slot) => Next::Frame(self.frame(&slot)),
                Err(Look::Lapped { lost, resume_at }) => Next::Lapped { lost, resume_at },
                Err(_) => unreachable!("a frame that is not copied is lapped"),
            },
            other => other.without_frame(),
        })
    }

    /// The next frame, not copied, or what happened instead; waits at most `timeout`. The reader is past the frame when this returns:
    /// if it turns out not to be intact, that is one frame lost.
    ///
    /// # Errors
    /// [`ReadError`] when the ring contradicts itself.
    pub fn next_borrowed(&mut self, timeout: Duration) -> Result<Next<Borrowed<'_>>, ReadError> {
        Ok(match self.advance(timeout)? {
            Next::Frame(()) => Next::Frame(self.borrow_pending()),
            other => other.without_frame(),
        })
    }

    fn advance(&mut self, timeout: Duration) -> Result<Next<()>, ReadError> {
        let mut deadline = None;
        loop {
            // Before the look at head_seq and state: pairs with `Writer::bump`, which comes after the stores to them.
            let seen = self.ctl.load_half_acquire(layout::FUTEX);
            match self.look()? {
                Look::Ready { .. } => return Ok(Next::Frame(())),
                Look::Lapped { lost, resume_at } => return Ok(Next::Lapped { lost, resume_at }),
                Look::Skipped { count } => return Ok(Next::Skipped { count }),
                Look::Empty => {}
            }
            match self.state() {
                state @ (State::Ended | State::Superseded) => {
                    // The last frame may have come between the two looks.
                    if self.head() != self.next {
                        continue;
                    }
                    if let Some(count) = self.take_skipped() {
                        return Ok(Next::Skipped { count });
                    }
                    return Ok(if state == State::Ended { Next::Ended } else { Next::Superseded });
                }
                State::Stalled if !self.stalled_told => {
                    self.stalled_told = true;
                    return Ok(Next::Stalled);
                }
                State::Stalled => {}
                State::Live => self.stalled_told = false,
            }
            if self.has_died() {
                return Ok(Next::WriterDead);
            }
            // Who spins is not to pay for the exact clock.
            if timeout.is_zero() {
                return Ok(Next::Timeout);
            }
            let now = Instant::now();
            let end = *deadline.get_or_insert_with(|| now.checked_add(timeout));
            let left = end.map_or(wake::WAIT_MAX, |end: Instant| end.saturating_duration_since(now));
            if left.is_zero() {
                return Ok(Next::Timeout);
            }
            wake::wait(&self.ctl, layout::FUTEX, seen, left);
        }
    }

    /// One look, no wait.
    pub(crate) fn look(&mut self) -> Result<Look, ReadError> {
        if self.is_pending {
            return Ok(Look::Ready { stream_seq: self.slot.stream_seq });
        }
        let head = self.head();
        if self.next > head {
            return Err(ReadError::Head { expected: self.next, found: head });
        }
        if self.awaiting_key {
            let found = self.newest_start(self.next, head, false);
            let next = found.unwrap_or(head);
            self.skipped += next - self.next;
            self.next = next;
            self.awaiting_key = found.is_none();
        }
        if !self.awaiting_key
            && let Some(count) = self.take_skipped()
        {
            return Ok(Look::Skipped { count });
        }
        if self.next == head {
            return Ok(Look::Empty);
        }
        if self.next < self.oldest_seq(head) {
            return Ok(self.resume_after_lapping());
        }
        match judge_slot(&self.ctl, &self.header, self.next, &mut self.slot) {
            Ok(()) => {
                self.is_pending = true;
                Ok(Look::Ready { stream_seq: self.slot.stream_seq })
            }
            Err(Miss::Lapped) => Ok(self.resume_after_lapping()),
            Err(Miss::Error(error)) => {
                self.next += 1;
                Err(error)
            }
        }
    }

    /// A judged copy of a slot that may be any.
    fn copy_slot(&self, seq: u64) -> Result<Slot, Miss> {
        let mut slot = Slot::default();
        judge_slot(&self.ctl, &self.header, seq, &mut slot).map(|()| slot)
    }

    /// Copies the pending frame's bytes, then asks whether they were its own to the end.
    pub(crate) fn copy_pending(&mut self) -> Result<Result<PendingFrame, Look>, ReadError> {
        assert!(std::mem::take(&mut self.is_pending), "ready means pending");
        self.data.read_into(self.slot.position, self.slot.extent, &mut self.buffer);
        if !intact(&self.ctl, self.slot.position, &self.data) {
            return Ok(Err(self.resume_after_lapping()));
        }
        let seq = self.next;
        self.next += 1;
        if let Some(crc) = self.slot.descriptor.crc32c
            && self.verify
            && crc32c::crc32c(&self.buffer[..self.slot.length]) != crc
        {
            return Err(ReadError::Checksum(seq));
        }
        Ok(Ok(PendingFrame(self.slot)))
    }

    /// The pending frame where it lies; the reader is past it.
    pub(crate) fn borrow_pending(&mut self) -> Borrowed<'_> {
        assert!(std::mem::take(&mut self.is_pending), "ready means pending");
        self.next += 1;
        Borrowed { ctl: &self.ctl, data: &self.data, slot: &self.slot }
    }

    /// The frame last copied.
    pub(crate) fn frame(&self, copied: &PendingFrame) -> Frame<'_> {
        let slot = &copied.0;
        let side = slot.descriptor.side_data_offset as usize;
        Frame {
            stream_seq: slot.stream_seq,
            descriptor: slot.descriptor,
            payload: &self.buffer[..slot.length],
            side_data: &self.buffer[side..side + slot.descriptor.side_data_length as usize],
        }
    }

    /// On to the newest random access point if a quarter of the ring is still ahead of the writer, else to the next one.
    fn resume_after_lapping(&mut self) -> Look {
        self.is_pending = false;
        let old = self.next;
        // Always forward, so that no contradiction in the ring can hold us here.
        let head = self.head().max(old + 1);
        let found = self.newest_start(old + 1, head, true);
        self.awaiting_key = found.is_none();
        self.next = found.unwrap_or(head);
        Look::Lapped { lost: self.next - old, resume_at: self.next }
    }

    /// The newest of the readable frames `from..head` that decoding can start at and that, with `quarter`, at least a quarter of the ring
    /// lies between it and the writer: a random access point or, where the ring holds none at all, a recovery point whose picture is right
    /// only some frames later: a stream with gradual refresh has no others. At most one look at every slot.
    ///
    /// The slots are looked at, and not LAST_KEY_SEQ alone: it is stored after head_seq, perhaps only by the next writer.
    fn newest_start(&self, from: u64, head: u64, quarter: bool) -> Option<u64> {
        let (slots, capacity) = (u64::from(self.header.slot_count), self.header.data_capacity);
        let (slots_kept, bytes_kept) =
            if quarter { (slots - slots / 4, capacity - capacity / 4) } else { (slots - 1, capacity) };
        let mut recovery_point = None;
        for seq in (from.max(head.saturating_sub(slots_kept))..head).rev() {
            let slot = match self.copy_slot(seq) {
                Ok(slot) if self.ctl.load(layout::DATA_RESERVE).saturating_sub(slot.position) <= bytes_kept => slot,
                // So are all before it, and there is no time to lose.
                Ok(_) | Err(Miss::Lapped) => break,
                Err(Miss::Error(_)) => continue,
            };
            if slot.is_key() {
                return Some(seq);
            }
            if recovery_point.is_none() && slot.is_recovery_point() {
                recovery_point = Some(seq);
            }
        }
        recovery_point.filter(|_| !self.holds_last_key(head))
    }

    /// Whether the newest random access point that the writer told of is still in the ring.
    fn holds_last_key(&self, head: u64) -> bool {
        // Pairs with the release store in step 3 of `Writer::publish`.
        let key = self.ctl.load_acquire(layout::LAST_KEY_SEQ);
        (self.oldest_seq(head)..head).contains(&key) && self.copy_slot(key).is_ok_and(|slot| slot.is_key())
    }

    /// One slot of guard: the oldest is being overwritten while the head still has its old value.
    fn oldest_seq(&self, head: u64) -> u64 {
        head.saturating_sub(u64::from(self.header.slot_count) - 1)
    }

    /// The oldest readable frame below `head` that `wanted` accepts. At most one look at every slot.
    fn oldest(&self, head: u64, wanted: impl Fn(&Slot) -> bool) -> Option<u64> {
        (self.oldest_seq(head)..head).find(|&seq| self.copy_slot(seq).is_ok_and(|slot| wanted(&slot)))
    }

    /// Pairs with the release store of head_seq in step 3 of `Writer::publish`: slots and payloads below it are visible.
    fn head(&self) -> u64 {
        self.ctl.load_acquire(layout::HEAD_SEQ)
    }

    pub(crate) fn has_died(&mut self) -> bool {
        // A frame is a sign of life too.
        let signs = self.ctl.load(layout::HEARTBEAT_COUNT).wrapping_add(self.ctl.load(layout::HEAD_SEQ));
        self.life.has_died(signs)
    }

    /// The bytes of a configuration block (SPS/PPS/VPS, AudioSpecificConfig, sequence header, SDP). The newest eight are kept.
    ///
    /// # Errors
    /// [`ConfigurationError`].
    pub fn configuration(&self, generation: u32) -> Result<Vec<u8>, ConfigurationError> {
        let current = self.configuration_generation();
        if generation == 0 || generation > current {
            return Err(ConfigurationError::Unknown);
        }
        if current - generation >= self.header.config_count {
            return Err(ConfigurationError::Gone);
        }
        read_configuration(&self.ctl, &self.header, generation).ok_or_else(|| {
            // Overwritten between the two looks, or wrong.
            if self.ctl.load(self.header.config_at(generation)) == u64::from(generation) {
                ConfigurationError::Damaged
            } else {
                ConfigurationError::Gone
            }
        })
    }

    /// The newest configuration, 0 when there is none. Pairs with the release store in `Writer::set_configuration`.
    #[must_use]
    pub fn configuration_generation(&self) -> u32 {
        self.ctl.load_half_acquire(layout::CONFIG_GENERATION)
    }

    /// What may be expected of the ring.
    #[must_use]
    pub fn state(&self) -> State {
        State::from_word(self.ctl.load_half_acquire(layout::STATE))
    }

    /// + 1 with every writer that took the ring up.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.ctl.load_half_acquire(layout::WRITER_EPOCH)
    }

    /// Changes every 100 ms while the writer lives.
    #[must_use]
    pub fn heartbeat_count(&self) -> u64 {
        self.ctl.load(layout::HEARTBEAT_COUNT)
    }

    /// The frame this reader looks for next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Frames published in the ring's life; `head_seq() - position()` is how far behind this reader is.
    #[must_use]
    pub fn head_seq(&self) -> u64 {
        self.head()
    }

    /// The newest random access point.
    #[must_use]
    pub fn last_key_seq(&self) -> Option<u64> {
        Some(self.ctl.load_acquire(layout::LAST_KEY_SEQ)).filter(|&key| key != NONE)
    }

    /// Counted by the writer since the ring was made.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let total = |i: usize| self.ctl.load(layout::TOTALS + i * 8);
        Totals { frames: total(0), bytes: total(1), damaged: total(2), discontinuities: total(3) }
    }

    /// The ring's shape.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }
}

/// Copies a slot and judges the copy, of which nothing is to be believed before.
#[inline]
fn judge_slot(ctl: &SharedWords, header: &Header, seq: u64, slot: &mut Slot) -> Result<(), Miss> {
    let at = header.slot_at(seq);
    // Pairs with the release store of the lock at the end of step 2 in `Writer::publish`.
    if ctl.load_acquire(at) != seq + 1 {
        return Err(Miss::Lapped);
    }
    let mut image = [0u64; SLOT_WORDS];
    ctl.copy_words(at, &mut image);
    // Pairs with the release fence after `lock = BUSY` in `Writer::publish`: if any word above is of a later frame, the
    // lock below is no longer ours.
    fence(Acquire);
    if ctl.load(at) != seq + 1 {
        return Err(Miss::Lapped);
    }
    let bad = |what| Miss::Error(ReadError::Bounds { seq, what });
    slot.position = image[1];
    slot.extent = image[2] as u32 as usize;
    slot.length = (image[2] >> 32) as usize;
    slot.flags = image[3] as u32;
    slot.stream_seq = image[4];
    slot.descriptor = FrameDescriptor::decode(&image).map_err(|_| ReadError::Descriptor(seq))?;
    let descriptor = &slot.descriptor;
    if descriptor.seq != seq {
        return Err(ReadError::Descriptor(seq).into());
    }
    if slot.extent > header.frame_size_max as usize {
        return Err(bad("extent"));
    }
    if slot.length > slot.extent {
        return Err(bad("length"));
    }
    let side_end = u64::from(descriptor.side_data_offset) + u64::from(descriptor.side_data_length);
    if side_end > slot.extent as u64 {
        return Err(bad("side data"));
    }
    let end = slot.position.checked_add(slot.extent as u64).ok_or_else(|| bad("position"))?;
    let reserve = ctl.load(layout::DATA_RESERVE);
    if end > reserve {
        return Err(bad("position"));
    }
    if reserve - slot.position > header.data_capacity {
        return Err(Miss::Lapped);
    }
    Ok(())
}

/// Proof that the reader's buffer holds this frame.
pub(crate) struct PendingFrame(Slot);

impl<F> Next<F> {
    fn without_frame<G>(self) -> Next<G> {
        match self {
            Self::Frame(_) => unreachable!("frames are handled before"),
            Self::Lapped { lost, resume_at } => Next::Lapped { lost, resume_at },
            Self::Skipped { count } => Next::Skipped { count },
            Self::Timeout => Next::Timeout,
            Self::Stalled => Next::Stalled,
            Self::WriterDead => Next::WriterDead,
            Self::Ended => Next::Ended,
            Self::Superseded => Next::Superseded,
        }
    }
}

/// Whether what was read from `position` before this call was still that frame.
fn intact(ctl: &SharedWords, position: u64, data: &MirroredData) -> bool {
    // Pairs with the release fence of step 1 in `Writer::grow`: if a byte above is of a later frame, the reserve
    // below is more than a capacity ahead of `position`.
    fence(Acquire);
    ctl.load(layout::DATA_RESERVE).wrapping_sub(position) <= data.capacity() as u64
}

impl Borrowed<'_> {
    /// What is known about the frame. A private copy, already validated.
    #[must_use]
    pub fn descriptor(&self) -> &FrameDescriptor {
        &self.slot.descriptor
    }

    /// Position among all frames of the stream.
    #[must_use]
    pub fn stream_seq(&self) -> u64 {
        self.slot.stream_seq
    }

    /// Length of the payload, bytes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.slot.length
    }

    /// Copies a part of the payload, racing.
    ///
    /// # Panics
    /// If the part exceeds the payload.
    pub fn copy_payload(&self, offset: usize, to: &mut [u8]) {
        assert!(offset <= self.slot.length && to.len() <= self.slot.length - offset, "outside the payload");
        self.data.read(self.slot.position + offset as u64, to);
    }

    /// Copies the payload, racing, into memory of its own.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.data.read_into(self.slot.position, self.slot.length, &mut bytes);
        bytes
    }

    /// The payload in place.
    ///
    /// # Safety
    /// The writer may store to these bytes while the slice lives, which the language does not allow: hand it only to code that cannot
    /// be led astray by changing bytes (a system call, a copy), and believe the result only if [`Borrowed::is_intact`]
    /// says so afterwards.
    #[must_use]
    pub unsafe fn payload(&self) -> &[u8] {
        // SAFETY: in the ring (judged by `copy_slot`); the race is the caller's to bear.
        unsafe { self.data.slice(self.slot.position, self.slot.length) }
    }

    /// Whether everything read so far was this frame.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        intact(self.ctl, self.slot.position, self.data)
    }

    /// Bytes the writer may still write before it overtakes this frame; 0 when it has.
    #[must_use]
    pub fn margin(&self) -> u64 {
        let reserve = self.ctl.load(layout::DATA_RESERVE);
        (self.data.capacity() as u64).saturating_sub(reserve.wrapping_sub(self.slot.position))
    }
}
