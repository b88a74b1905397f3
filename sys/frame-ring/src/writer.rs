//! The writer: bytes are appended to the open frame where readers will find them, then a commit makes the frame visible.
//!
//! All state is kept privately; shared words are stored, never loaded, so nothing a reader could do changes what happens here.
//! Numbers in comments are the steps of "Writer" in the design of the ring.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::fence;

use thiserror::Error;

use crate::bell::BellWriter;
use crate::copy;
use crate::crash::{Step, point};
use crate::descriptor::{Discontinuity, FrameDescriptor};
use crate::layout::{self, Header, NONE, SLOT_WORDS, State};
use crate::memory::{MirroredData, SharedWords};
use crate::placement::Placement;
use crate::wake::WakeTarget;

/// The frame would exceed `frame_size_max`; nothing was appended.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a frame of {wanted} bytes exceeds the largest of this ring, {limit}")]
pub struct FrameTooLarge {
    /// What the frame would have measured, bytes.
    pub wanted: usize,
    /// `frame_size_max`, bytes.
    pub limit: usize,
}

/// A closed frame that readers do not see yet. Its bytes stay as they are until it is given to [`Writer::publish`].
#[derive(Debug)]
pub struct Staged {
    descriptor: FrameDescriptor,
    position: u64,
    extent: usize,
    payload_len: usize,
}

impl Staged {
    /// What is known of the frame, to be changed until it is published.
    #[inline]
    pub fn descriptor_mut(&mut self) -> &mut FrameDescriptor {
        &mut self.descriptor
    }
}

/// The configuration does not fit a block; the old one stays current.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a configuration of {0} bytes does not fit a block")]
pub struct ConfigurationTooLarge(pub usize);

/// Counted since the ring was made, across restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames committed.
    pub frames: u64,
    /// Payload and side data, bytes.
    pub bytes: u64,
    /// Frames committed as damaged.
    pub damaged: u64,
    /// Frames committed as discontinuities.
    pub discontinuities: u64,
}

/// What the writer knows without reading the ring. Made by `builder::{create, attach}`.
#[derive(Debug, Default)]
pub(crate) struct Private {
    pub reserve: u64,
    pub head_seq: u64,
    pub futex: u32,
    pub state: u32,
    pub heartbeat_count: u64,
    pub epoch: u32,
    pub config_generation: u32,
    pub config: Vec<u8>,
    pub totals: Totals,
    /// + 1; 0 when the ring holds no frame.
    pub stream_seq_after: u64,
    pub first_discontinuity: Option<Discontinuity>,
}

/// The single writer of one ring. Built on a housekeeping thread, moved to a shard.
#[derive(Debug)]
pub struct Writer {
    ctl: Arc<SharedWords>,
    data: MirroredData,
    header: Header,
    // Hot private state.
    open_pos: u64,
    open_len: usize,
    /// Where the oldest frame that readers do not see yet begins, the open one included.
    unpublished_pos: u64,
    /// Length of the payload once side data has begun.
    payload_len: Option<usize>,
    crc: Option<u32>,
    /// Step by which `data_reserve` grows, a power of two.
    step: u64,
    key_seq: u64,
    private: Private,
    // Cold.
    placement: Placement,
    directory: PathBuf,
    lock: File,
}

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Writer>();
};

impl Writer {
    pub(crate) fn new(
        ctl: SharedWords,
        data: MirroredData,
        header: Header,
        private: Private,
        placement: Placement,
        directory: &Path,
        lock: File,
    ) -> Self {
        let checksums = header.features_optional & layout::FEATURE_PAYLOAD_CRC != 0;
        Self {
            ctl: Arc::new(ctl),
            data,
            open_pos: align(private.reserve),
            unpublished_pos: align(private.reserve),
            open_len: 0,
            payload_len: None,
            crc: checksums.then_some(0),
            step: (header.data_capacity / 16).clamp(4096, 256 << 10),
            key_seq: NONE,
            private,
            header,
            placement,
            directory: directory.to_owned(),
            lock,
        }
    }

    /// See [`crate::builder::relabel`].
    pub(crate) fn relabel(&mut self, kind: layout::TrackKind, codec: [u8; 4], clock_rate: u32) {
        assert_eq!(self.private.head_seq, 0, "readers may have seen the label of a ring that holds frames");
        self.header.kind = kind;
        self.header.codec = u32::from_le_bytes(codec);
        self.header.clock_rate = clock_rate;
        self.ctl.write_bytes(0, &self.header.encode()[..]);
    }

    /// Appends payload to the open frame, opening it if there is none.
    ///
    /// # Errors
    /// [`FrameTooLarge`]; nothing was appended, the open frame stays as it was.
    ///
    /// # Panics
    /// After [`Writer::append_side_data`] in the same frame.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        self.append_all(&[bytes])
    }

    /// Asks the processor for what [`append_all`](Self::append_all) changes, the memory of the next bytes included: in two steps, the
    /// second of which reads what the first has asked for.
    #[inline]
    pub fn prefetch(&self, step: usize) {
        if step == 0 {
            copy::prefetch_for_write((&raw const self.data).cast(), 1);
            copy::prefetch_for_write((&raw const self.open_pos).cast(), 1);
            copy::prefetch_for_write((&raw const self.private.reserve).cast(), 1);
        } else {
            self.data.prefetch(self.open_pos, self.open_len);
        }
    }

    /// Asks the processor for what [`publish`](Self::publish) needs, in two steps, the second of which reads what the first has asked
    /// for: frames are so far apart that all of it has left the caches.
    #[inline]
    pub fn prefetch_publish(&self, step: usize) {
        if step == 0 {
            copy::prefetch_for_read(self);
        } else {
            copy::prefetch_for_read(&*self.ctl);
        }
    }

    /// Appends pieces of payload to the open frame, one after the other.
    ///
    /// # Errors
    /// As [`Writer::append`]: none of them was appended.
    ///
    /// # Panics
    /// As [`Writer::append`].
    #[inline]
    pub fn append_all(&mut self, pieces: &[&[u8]]) -> Result<(), FrameTooLarge> {
        assert!(self.payload_len.is_none(), "payload after side data");
        self.append_pieces(self.open_len, pieces)?;
        if let Some(crc) = &mut self.crc {
            *crc = pieces.iter().fold(*crc, |crc, piece| crc32c::crc32c_append(crc, piece));
        }
        Ok(())
    }

    /// Appends side data (a TLV list, opaque here) behind the payload, at a multiple of 8. Not part of the checksum.
    ///
    /// # Errors
    /// [`FrameTooLarge`], as for [`Writer::append`]: the limit holds for the sum.
    pub fn append_side_data(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        let payload_len = self.payload_len.unwrap_or(self.open_len);
        let at = if self.payload_len.is_some() { self.open_len } else { self.open_len.next_multiple_of(8) };
        self.append_pieces(at, &[bytes])?;
        self.payload_len = Some(payload_len);
        Ok(())
    }

    #[inline]
    fn append_pieces(&mut self, at: usize, pieces: &[&[u8]]) -> Result<(), FrameTooLarge> {
        let end = at + pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if end > self.header.frame_size_max as usize {
            return Err(FrameTooLarge { wanted: end, limit: self.header.frame_size_max as usize });
        }
        let end_pos = self.open_pos + end as u64;
        if end_pos > self.private.reserve {
            self.grow(end_pos)?;
        }
        self.data.write(self.open_pos, at, pieces);
        point(Step::Appended);
        self.open_len = end;
        Ok(())
    }

    /// 1. Says which bytes are about to be written, before any of them is.
    #[cold]
    fn grow(&mut self, end_pos: u64) -> Result<(), FrameTooLarge> {
        let reserve = end_pos.next_multiple_of(self.step);
        assert!(reserve > self.private.reserve, "reserve is never lowered");
        if reserve - self.unpublished_pos > self.header.data_capacity {
            // Frames that wait to be published would be overwritten.
            let limit = self.header.data_capacity.saturating_sub(self.open_pos - self.unpublished_pos);
            return Err(FrameTooLarge { wanted: (end_pos - self.open_pos) as usize, limit: limit as usize });
        }
        self.private.reserve = reserve;
        // Pairs with the acquire fence after the copy in `Reader`: a reader that copied a byte written after this
        // fence finds at least this value when it validates.
        self.ctl.store(layout::DATA_RESERVE, reserve, Relaxed);
        fence(Release);
        point(Step::ReserveGrown);
        Ok(())
    }

    /// Bytes in the open frame, 0 when none is open.
    #[inline]
    #[must_use]
    pub fn open_len(&self) -> usize {
        self.open_len
    }

    /// Bytes of the open frame, as they lie in the ring.
    ///
    /// # Panics
    /// If the range exceeds [`Writer::open_len`].
    #[inline]
    #[must_use]
    pub fn written(&self, range: std::ops::Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.open_len, "outside the open frame");
        // SAFETY: only this writer stores to the open frame, by `&mut self`, and the slice borrows `self`. The bytes
        // are seen through the view they were written through: both start from the frame's offset in the first view.
        let frame = unsafe { self.data.slice(self.open_pos, range.end) };
        &frame[range.start..]
    }

    /// Closes the open frame (an empty one if nothing was appended) and makes it visible: [`Writer::stage`] and
    /// [`Writer::publish`] in one.
    #[inline]
    pub fn commit(&mut self, frame: &FrameDescriptor, bell: &mut BellWriter) -> u64 {
        let staged = self.stage(frame);
        self.publish(staged, bell)
    }

    /// Closes the open frame (an empty one if nothing was appended) for a later [`Writer::publish`]; another may be opened meanwhile.
    /// Fills `crc32c` and the side data's place. All frames that wait take of the ring's room what its history would have:
    /// [`Writer::unpublished`] says how much.
    #[inline]
    pub fn stage(&mut self, frame: &FrameDescriptor) -> Staged {
        let mut d = *frame;
        d.crc32c = self.crc;
        let payload_len = self.payload_len.unwrap_or(self.open_len);
        if self.payload_len.is_some() {
            d.side_data_offset = payload_len.next_multiple_of(8) as u32;
            d.side_data_length = self.open_len as u32 - d.side_data_offset;
        } else {
            (d.side_data_offset, d.side_data_length) = (0, 0);
        }
        let staged = Staged { descriptor: d, position: self.open_pos, extent: self.open_len, payload_len };
        self.open_pos = align(self.open_pos + self.open_len as u64);
        self.reset_frame();
        staged
    }

    /// Bytes of the ring that hold frames which readers do not see yet, the open one included.
    #[inline]
    #[must_use]
    pub fn unpublished(&self) -> u64 {
        self.open_pos + self.open_len as u64 - self.unpublished_pos
    }

    /// Makes a staged frame visible; in the order in which they were staged. Fills `seq`, `key_seq` and `config_generation`; in the
    /// first frame of this writer a missing discontinuity cause too, where `Start` counts as missing in a ring that was taken up. Returns
    /// the frame's sequence number. Wakes nobody: see [`Writer::wake_target`] and [`BellWriter::wake_target`].
    ///
    /// # Panics
    /// If the frame is not of this ring's oldest that wait.
    #[inline]
    pub fn publish(&mut self, staged: Staged, bell: &mut BellWriter) -> u64 {
        let Staged { descriptor: mut d, position, extent, payload_len } = staged;
        assert_eq!(position, self.unpublished_pos, "frames are published in the order in which they were staged");
        let seq = self.private.head_seq;
        let slot = self.header.slot_at(seq);
        // Readers had the slot a turn of the ring ago, and all of them look at the heads: the lines come together, while the
        // descriptor is made, and not one by one with the stores.
        self.ctl.prefetch_for_write(slot, layout::SLOT_SIZE / 64);
        for line in [layout::HEAD_SEQ, layout::FUTEX, layout::TOTALS] {
            self.ctl.prefetch_for_write(line, 1);
        }
        bell.prefetch_for_write();
        d.seq = seq;
        if d.key {
            self.key_seq = seq;
        }
        d.key_seq = self.key_seq;
        d.config_generation = self.private.config_generation;
        // To a source that has just come every track is new, also in a ring that was taken up.
        if let Some(cause) = self.private.first_discontinuity.take()
            && matches!(d.discontinuity, Discontinuity::None | Discontinuity::Start)
        {
            d.discontinuity = cause;
        }
        let stream_seq = bell.next_stream_seq(self.private.stream_seq_after);
        self.private.stream_seq_after = stream_seq + 1;
        let discontinuity = d.discontinuity != Discontinuity::None;
        let flags = if d.key { layout::FLAG_KEY } else { 0 }
            | if d.damaged { layout::FLAG_DAMAGED } else { 0 }
            | if discontinuity { layout::FLAG_DISCONTINUITY } else { 0 };

        let mut image = [0u64; SLOT_WORDS];
        image[1] = position;
        image[2] = extent as u64 | (payload_len as u64) << 32;
        image[3] = u64::from(flags);
        image[4] = stream_seq;
        d.encode(&mut image);

        // 2. The slot, as a seqlock.
        self.ctl.store(slot, layout::BUSY, Relaxed);
        // Pairs with the acquire fence between the two looks at `lock` in `judge_slot` of the reader.
        fence(Release);
        point(Step::SlotBusy);
        self.ctl.store_words(slot + 8, &image[1..]);
        point(Step::SlotFields);
        // Pairs with the first look at `lock` in `judge_slot` of the reader.
        self.ctl.store(slot, seq + 1, Release);
        point(Step::SlotLocked);

        // 3. The heads.
        let totals = &mut self.private.totals;
        totals.frames += 1;
        totals.bytes += extent as u64;
        totals.damaged += u64::from(d.damaged);
        totals.discontinuities += u64::from(discontinuity);
        let head_pos = position + extent as u64;
        self.ctl.store(layout::HEAD_POS, head_pos, Relaxed);
        point(Step::HeadPos);
        // Pairs with the load in `Reader::head`: slot and payload are visible to who sees it.
        self.ctl.store(layout::HEAD_SEQ, seq + 1, Release);
        point(Step::HeadSeq);
        if d.key {
            // Pairs with the load in `Reader::holds_last_key`.
            self.ctl.store(layout::LAST_KEY_SEQ, seq, Release);
        }
        point(Step::LastKey);
        let t = self.private.totals;
        for (i, total) in [t.frames, t.bytes, t.damaged, t.discontinuities].into_iter().enumerate() {
            self.ctl.store(layout::TOTALS + i * 8, total, Relaxed);
        }
        point(Step::Totals);
        bell.publish(stream_seq + 1);

        // 4. The futex word.
        self.bump();
        point(Step::Futex);

        self.private.head_seq = seq + 1;
        self.unpublished_pos = align(head_pos);
        seq
    }

    /// Throws the open frame away; its space is used again.
    pub fn abandon(&mut self) {
        self.reset_frame();
    }

    fn reset_frame(&mut self) {
        self.open_len = 0;
        self.payload_len = None;
        if let Some(crc) = &mut self.crc {
            *crc = 0;
        }
    }

    /// Bumps the futex word by a store: the writer knows its value. Pairs with the look at it in `Reader::advance`, which comes
    /// before the look at head_seq and state: a reader that saw the old ones sleeps only if this store has not happened.
    #[inline]
    fn bump(&mut self) {
        self.private.futex = self.private.futex.wrapping_add(1);
        self.ctl.store_half(layout::FUTEX, self.private.futex, Release);
    }

    /// Makes `bytes` the configuration of the frames that are published from now on and returns its generation; identical bytes make no
    /// new one.
    ///
    /// # Errors
    /// [`ConfigurationTooLarge`]; the old configuration stays current.
    pub fn set_configuration(&mut self, bytes: &[u8]) -> Result<u32, ConfigurationTooLarge> {
        if self.private.config_generation > 0 && self.private.config == bytes {
            return Ok(self.private.config_generation);
        }
        if bytes.len() > self.header.config_size as usize - layout::CONFIG_HEAD {
            return Err(ConfigurationTooLarge(bytes.len()));
        }
        let generation = self.private.config_generation + 1;
        let block = self.header.config_at(generation);
        self.ctl.store(block, layout::BUSY, Relaxed);
        // Pairs with the acquire fence between the two looks at the lock in `read_configuration`.
        fence(Release);
        point(Step::ConfigurationBusy);
        self.ctl.store(block + 8, u64::from(generation) | (bytes.len() as u64) << 32, Relaxed);
        self.ctl.store(block + 16, u64::from(crc32c::crc32c(bytes)), Relaxed);
        self.ctl.write_bytes(block + layout::CONFIG_HEAD, bytes);
        // A fence, not only a release store: the bytes were written by the racing copy.
        fence(Release);
        point(Step::ConfigurationBytes);
        self.ctl.store(block, u64::from(generation), Release);
        point(Step::ConfigurationLocked);
        // Pairs with the load in `Reader::configuration_generation`.
        self.ctl.store_half(layout::CONFIG_GENERATION, generation, Release);
        point(Step::ConfigurationGeneration);
        self.private.config_generation = generation;
        self.private.config.clear();
        self.private.config.extend_from_slice(bytes);
        Ok(generation)
    }

    /// Says what readers may expect; a change bumps the futex.
    pub fn set_state(&mut self, state: State) {
        if self.private.state == state as u32 {
            return;
        }
        self.private.state = state as u32;
        self.ctl.store_half(layout::STATE, state as u32, Release);
        self.bump();
    }

    /// Says that the writer lives; call it every 100 ms. `now_ns` is CLOCK_MONOTONIC.
    pub fn heartbeat(&mut self, now_ns: u64) {
        self.private.heartbeat_count += 1;
        self.ctl.store(layout::HEARTBEAT_MONOTONIC_NS, now_ns, Relaxed);
        self.ctl.store(layout::HEARTBEAT_COUNT, self.private.heartbeat_count, Release);
    }

    /// Handle for the waker thread.
    #[must_use]
    pub fn wake_target(&self) -> WakeTarget {
        WakeTarget::new(Arc::clone(&self.ctl), layout::FUTEX)
    }

    /// Sequence number of the next frame.
    #[must_use]
    pub fn head_seq(&self) -> u64 {
        self.private.head_seq
    }

    /// + 1 with every writer that took the ring up; 1 for the first.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.private.epoch
    }

    /// Generation of the current configuration, 0 when there is none.
    #[must_use]
    pub fn configuration_generation(&self) -> u32 {
        self.private.config_generation
    }

    /// One past the newest `stream_seq` in this ring. After a restart the bell must be advanced past that of every ring of the
    /// stream ([`BellWriter::advance_to`]) before the first commit.
    #[must_use]
    pub fn stream_seq_after(&self) -> u64 {
        self.private.stream_seq_after
    }

    /// Counted since the ring was made.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.private.totals
    }

    /// The ring's shape.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What became of the wishes about its memory.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Where the ring was when it was made or taken up.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The lock that makes this the single writer; it may be passed to a successor process.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

fn align(position: u64) -> u64 {
    position.next_multiple_of(layout::FRAME_ALIGN)
}
