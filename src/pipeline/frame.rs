//! A finished frame as the pipeline knows it, and where frames go.

use std::ops::{BitOr, BitOrAssign};

use super::timeline::Resume;
use crate::base::Instant;
use crate::media::{AccessUnitInfo, Codec, TrackConfiguration};

/// Where the frames of one track are written: its ring, or a list in a test.
///
/// Bytes are appended to one open frame, which is then committed or abandoned; they are copied once, here.
pub trait FrameSink {
    /// Adds bytes to the open frame, opening it if none is.
    ///
    /// # Errors
    /// [`FrameTooLarge`] when the frame would pass the track's limit; the open frame is then worth nothing and must be
    /// abandoned.
    fn append(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge>;
    /// Adds pieces to the open frame, one after the other.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    #[inline]
    fn append_all(&mut self, pieces: &[&[u8]]) -> Result<(), FrameTooLarge> {
        pieces.iter().try_for_each(|piece| self.append(piece))
    }
    /// Publishes the open frame (which may be empty) with what is known of it: when it is due, if that is later than `now`.
    fn commit(&mut self, now: Instant, frame: &Frame);
    /// Gives up the open frame; its space is used again.
    fn abandon(&mut self);
    /// What a decoder must know from the frame on that is committed next.
    fn configure(&mut self, configuration: &TrackConfiguration);
}

/// The frame would pass the largest size that the track's ring was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame is larger than frame.max_frame_size allows")]
pub struct FrameTooLarge;

/// Everything the pipeline knows of one frame besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// What the frame says of itself.
    pub info: AccessUnitInfo,
    /// Presentation time in ticks of the track's clock, unwrapped; `None` when neither carried nor derivable.
    pub pts: Option<i64>,
    /// Decoding time in ticks of the track's clock, unwrapped.
    pub dts: Option<i64>,
    /// How long it lasts, in ticks of the track's clock; 0 when unknown.
    pub duration: u32,
    /// Presentation time (decoding time if there is none) on the programme's continuous timeline, in nanoseconds. A frame without
    /// times stands where the newest decoding time of its programme does; at 0 while there is none.
    pub timeline_ns: i64,
    /// Rises by one at each break of the timeline: restart of the source, failover, time-base jump.
    pub segment: u32,
    /// Why this frame does not follow from the one before, if it does not.
    pub discontinuity: DiscontinuityCause,
    /// What is wrong with its bytes.
    pub damage: Damage,
    /// Packets known to be missing in or right before this frame.
    pub packets_lost: u32,
    /// Packets of it that were lost at first and recovered.
    pub packets_recovered: u32,
    /// Kernel arrival of the packet with its first byte.
    pub first_arrival: Instant,
    /// Kernel arrival of the packet with its last byte.
    pub last_arrival: Instant,
    /// When its last byte was due for delivery (TSBPD in SRT, else the arrival).
    pub due: Instant,
    /// The clock of its source when it came.
    pub origin: Origin,
    /// Bit n is set when a packet of it came by path n.
    pub path_mask: u8,
}

/// What the clock of a source showed, as its packets said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// They have not said.
    #[default]
    None,
    /// The newest PCR of the programme, 27 MHz.
    Pcr(u64),
    /// The RTP time stamp, unwrapped, in ticks of the track's clock.
    Rtp(i64),
}

/// Why a frame does not follow from the one published before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiscontinuityCause {
    /// It does follow.
    #[default]
    None,
    /// First frame of the track.
    Start,
    /// The source came back after its session had ended.
    Restart,
    /// Packets were lost, so frames may be missing in between.
    Loss,
    /// The source's clock jumped or announced a new time base.
    TimeBase,
    /// Frames were given up (too large, ring not ready).
    Dropped,
}

/// What is wrong with a frame's bytes; a set of reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage(u16);

impl Damage {
    /// Nothing is wrong as far as can be known.
    pub const NONE: Self = Self(0);
    /// Bytes of it are missing.
    pub const LOSS: Self = Self(1);
    /// It was open when packets were lost, and nothing proves that none of them were its own.
    pub const UNPROVEN: Self = Self(1 << 1);
    /// Its beginning is missing.
    pub const START_MISSING: Self = Self(1 << 2);
    /// Its bytes break the codec's syntax.
    pub const SYNTAX: Self = Self(1 << 3);
    /// It was closed because nothing more came, or its source left, not because its end was seen.
    pub const TIMED_OUT: Self = Self(1 << 4);
    /// A packet of it was flagged by a device on the way (`transport_error_indicator`).
    pub const TRANSPORT_ERROR: Self = Self(1 << 5);

    /// The set as a number, as it stands in the ring.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether anything is wrong.
    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether all of `other` is in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Damage {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Damage {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Where the tracks of one stream are written: its rings, or lists in a test.
pub trait StreamSink {
    /// Where one track is written.
    type Track<'a>: FrameSink
    where
        Self: 'a;

    /// Opens a track; frames may be handed to it at once, and are dropped and counted until its ring is ready.
    fn open(&mut self, track: &TrackDescription) -> SinkIndex;
    /// Whether any opened track still waits for its ring. The stream then holds its packets for a while.
    fn is_opening(&self) -> bool;
    /// Whether there is room for frames that are not due yet.
    fn takes_early(&self) -> bool {
        false
    }
    /// Publishes frames that are not due yet: nobody waits for their time any more.
    fn publish_all(&mut self, _now: Instant) {}
    /// The track.
    fn track(&mut self, index: SinkIndex) -> Self::Track<'_>;
    /// No more frames will come to the track.
    fn end(&mut self, index: SinkIndex);
    /// Where the timeline of a programme stood, if the stream was written before.
    fn resume(&self, _programme: u16) -> Option<Resume> {
        None
    }
}

/// A track within a [`StreamSink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkIndex(pub usize);

/// What a track is, known before its first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackDescription {
    /// Programme number (H.222.0 §2.4.4.3); 0 outside transport streams.
    pub programme: u16,
    /// PID, or SSRC.
    pub id: u32,
    /// What it is coded with.
    pub codec: Codec,
    /// Ticks per second of its time stamps.
    pub clock_rate: u32,
    /// ISO 639-2 code, as the descriptor spells it.
    pub language: Option<[u8; 3]>,
}
