//! What people and tools want to see of a ring beyond its frames: the hot words, every slot as it lies there, what is under the
//! payload. Looks at everything once and moves no reader.

use std::io;

use super::{ConfigurationError, Miss, ReadError, Reader, Slot, intact};
use crate::descriptor::FrameDescriptor;
use crate::layout::{self, State};
use crate::memory::Backing;
use crate::writer::Totals;

/// The words that the writer changes, each loaded once: they may be of different moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotWords {
    /// Bytes below it may be being written; bytes below it less the capacity are gone.
    pub data_reserve: u64,
    /// Sequence number of the next frame.
    pub head_seq: u64,
    /// One past the last published byte.
    pub head_pos: u64,
    /// The newest random access point.
    pub last_key_seq: Option<u64>,
    /// Bumped by every commit and change of state.
    pub futex: u32,
    /// What may be expected of the ring.
    pub state: State,
    /// Changes every 100 ms while the writer lives.
    pub heartbeat_count: u64,
    /// CLOCK_MONOTONIC of the last heartbeat, ns; 0 before the first.
    pub heartbeat_monotonic_ns: u64,
    /// + 1 with every writer that took the ring up.
    pub writer_epoch: u32,
    /// The newest configuration; 0 none.
    pub config_generation: u32,
    /// Counted since the ring was made.
    pub totals: Totals,
}

/// A frame's slot, judged as a reader judges it.
#[derive(Clone, Copy, Debug)]
pub struct SlotFacts {
    /// Virtual position of the first byte.
    pub position: u64,
    /// Payload and side data, bytes.
    pub extent: u32,
    /// Payload, bytes.
    pub length: u32,
    /// `layout::FLAG_*`.
    pub flags: u32,
    /// Position among all frames of the stream.
    pub stream_seq: u64,
    /// What is known about the frame.
    pub descriptor: FrameDescriptor,
}

/// What stands in the slot of a sequence number.
#[derive(Clone, Copy, Debug)]
pub enum Inspection {
    /// The frame, its payload still there.
    Whole(SlotFacts),
    /// The writer has used the slot or the payload's bytes again.
    Overtaken,
    /// The slot contradicts the ring.
    Wrong(SlotFault),
}

/// What is wrong with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotFault {
    /// Its lock is neither that of the frame that must be there nor that of a later one.
    #[error("frame {seq}: its lock is {found:#x}, not {:#x}", seq + 1)]
    Lock {
        /// The frame that must be there.
        seq: u64,
        /// What the lock says.
        found: u64,
    },
    /// What a reader would say of it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Reader {
    /// The words that the writer changes.
    #[must_use]
    pub fn hot_words(&self) -> HotWords {
        HotWords {
            data_reserve: self.ctl.load(layout::DATA_RESERVE),
            head_seq: self.head_seq(),
            head_pos: self.ctl.load(layout::HEAD_POS),
            last_key_seq: self.last_key_seq(),
            futex: self.ctl.load_half(layout::FUTEX),
            state: self.state(),
            heartbeat_count: self.heartbeat_count(),
            heartbeat_monotonic_ns: self.ctl.load(layout::HEARTBEAT_MONOTONIC_NS),
            writer_epoch: self.epoch(),
            config_generation: self.configuration_generation(),
            totals: self.totals(),
        }
    }

    /// The sequence numbers whose slots cannot have been used again at this moment, oldest first.
    #[must_use]
    pub fn slots_in_ring(&self) -> std::ops::Range<u64> {
        let head = self.head_seq();
        head.saturating_sub(u64::from(self.header.slot_count) - 1)..head
    }

    /// What stands in the slot of `seq`, a number below the head.
    #[must_use]
    pub fn inspect(&self, seq: u64) -> Inspection {
        match self.copy_slot(seq) {
            Ok(slot) => Inspection::Whole(slot.facts()),
            Err(Miss::Error(error)) => Inspection::Wrong(error.into()),
            Err(Miss::Lapped) => {
                // The lock before the head: a writer at this head or an earlier one has not come to this slot yet.
                let found = self.ctl.load_acquire(self.header.slot_at(seq));
                let head = self.head_seq();
                if found != seq + 1 && head.saturating_sub(seq) < u64::from(self.header.slot_count) {
                    return Inspection::Wrong(SlotFault::Lock { seq, found });
                }
                Inspection::Overtaken
            }
        }
    }

    /// The payload of a frame just inspected, checked against its checksum where it has one; `None` when the writer has overtaken it.
    ///
    /// # Errors
    /// [`ReadError::Checksum`].
    pub fn inspect_payload(&mut self, slot: &SlotFacts) -> Result<Option<&[u8]>, ReadError> {
        self.data.read_into(slot.position, slot.length as usize, &mut self.buffer);
        if !intact(&self.ctl, slot.position, &self.data) {
            return Ok(None);
        }
        match slot.descriptor.crc32c {
            Some(crc) if crc32c::crc32c(&self.buffer) != crc => Err(ReadError::Checksum(slot.descriptor.seq)),
            _ => Ok(Some(&self.buffer)),
        }
    }

    /// The configurations still kept, oldest first, each with its bytes or why they cannot be had.
    #[must_use]
    pub fn configurations(&self) -> Vec<(u32, Result<Vec<u8>, ConfigurationError>)> {
        let current = self.configuration_generation();
        let oldest = current.saturating_sub(self.header.config_count - 1).max(1);
        (oldest..=current).map(|generation| (generation, self.configuration(generation))).collect()
    }

    /// What pages the payload lies on, as this process sees them.
    ///
    /// # Errors
    /// If `/proc` is not there.
    pub fn backing(&self) -> io::Result<Backing> {
        self.data.backing()
    }
}

impl Slot {
    fn facts(&self) -> SlotFacts {
        SlotFacts {
            position: self.position,
            // Both are bounded by `frame_size_max`.
            extent: self.extent as u32,
            length: self.length as u32,
            flags: self.flags,
            stream_seq: self.stream_seq,
            descriptor: self.descriptor,
        }
    }
}
