//! Frames that are whole before they are due: they lie in their rings, where no reader sees them, until their time has come.
//!
//! A frame is due with its last packet, a latency after that was sent (draft-sharabayko-srt §4.5). Packets that wait for so long leave
//! the processor's caches, and each byte of them is fetched from memory again; so payloads are made frames of as they come, and what
//! waits is the frame. All tracks of a stream share one queue, in the order in which their frames were finished: it is the order in
//! which readers are promised them, but for a frame that comes after its time. Configurations wait among them, since a ring keeps only
//! the newest few.

use std::collections::VecDeque;

use headworks_frame_ring::writer::{Staged, Writer};

use crate::base::Instant;
use crate::pipeline::frame::SinkIndex;

/// Frames that may wait, however small they are: 8 s of a picture and some audio tracks.
const WAITING_MAX: usize = 4_096;
/// Places made at first: a quarter of a second of the same.
const WAITING_USUAL: usize = 128;
/// Configurations that may wait: they are no part of a ring yet, and as long as their source likes.
const CONFIGURATIONS_MAX: usize = 8;
/// The part of a ring's room that frames may wait in; the rest is history, and room for those that are due.
const SHARE: u64 = 4;

/// The queue of one stream.
#[derive(Debug)]
pub(super) struct Staging {
    waiting: VecDeque<Waiting>,
    /// How many of them are configurations.
    configurations: usize,
    /// A ring's share is full.
    crowded: bool,
}

/// What waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The track it is of.
    pub index: SinkIndex,
    /// Its time.
    pub due: Instant,
    /// What of it.
    pub what: What,
}

/// What waits of a track.
#[derive(Debug)]
pub(super) enum What {
    Frame(Staged),
    /// What a decoder must know from the next frame on.
    Configuration(Vec<u8>),
    /// No more frames will come.
    End,
}

impl Staging {
    pub fn new() -> Self {
        Self { waiting: VecDeque::with_capacity(WAITING_USUAL), configurations: 0, crowded: false }
    }

    /// Whether more may wait.
    #[inline]
    pub fn has_room(&self) -> bool {
        !self.crowded && self.waiting.len() < WAITING_MAX && self.configurations < CONFIGURATIONS_MAX
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether anything of a track waits.
    pub fn holds(&self, index: SinkIndex) -> bool {
        self.waiting.iter().any(|waiting| waiting.index == index)
    }

    /// A frame of a track waits from now on; `writer` is its ring's. One whose time has come waits for nothing but frames of its own track,
    /// and others whose time has come.
    #[inline]
    pub fn push(&mut self, now: Instant, index: SinkIndex, due: Instant, frame: Staged, writer: &Writer) {
        self.crowded |= is_crowded(writer);
        let goes_first = |waiting: &Waiting| waiting.index == index || waiting.due <= now;
        let place = if due > now {
            self.waiting.len()
        } else {
            self.waiting.iter().rposition(goes_first).map_or(0, |last| last + 1)
        };
        self.waiting.insert(place, Waiting { index, due, what: What::Frame(frame) });
    }

    /// A configuration of a track, or its end, waits for what is before it.
    pub fn push_behind(&mut self, index: SinkIndex, what: What) {
        self.configurations += usize::from(matches!(what, What::Configuration(_)));
        let due = self.waiting.back().map_or(Instant::ZERO, |last| last.due);
        self.waiting.push_back(Waiting { index, due, what });
    }

    /// The tracks whose end waits.
    pub fn ends(&self) -> impl Iterator<Item = SinkIndex> + '_ {
        self.waiting.iter().filter(|waiting| matches!(waiting.what, What::End)).map(|waiting| waiting.index)
    }

    /// What is due first.
    #[inline]
    pub fn first(&self) -> Option<&Waiting> {
        self.waiting.front()
    }

    /// When the first is due.
    #[inline]
    pub fn next_due(&self) -> Option<Instant> {
        self.first().map(|first| first.due)
    }

    /// Takes the first out if it is due.
    #[inline]
    pub fn pop_due(&mut self, now: Instant) -> Option<Waiting> {
        if self.next_due()? > now {
            return None;
        }
        let first = self.waiting.pop_front()?;
        self.configurations -= usize::from(matches!(first.what, What::Configuration(_)));
        Some(first)
    }

    /// Looks again whether a ring's share is full.
    #[inline]
    pub fn judge<'a>(&mut self, mut writers: impl Iterator<Item = &'a Writer>) {
        if self.crowded {
            self.crowded = writers.any(is_crowded);
        }
    }
}

#[inline]
fn is_crowded(writer: &Writer) -> bool {
    writer.unpublished() > writer.header().data_capacity / SHARE
}
