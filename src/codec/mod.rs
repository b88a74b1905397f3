//! Floor 2: codecs. A [`Framer`] finds the access units in a track's bytes and reads what they say of themselves.

pub mod aac;
pub mod ac3;
pub mod annexb;
mod announced_length;
mod crc16;
pub mod data;
pub mod dts;
pub mod framer;
#[doc(hidden)]
pub mod fuzzing_audio;
pub mod h264;
pub mod hevc;
pub mod klv;
pub mod mp2;
pub mod mpeg2video;
pub mod nal_syntax;
pub mod opus;
pub mod rtp_access_unit;
pub mod rtp_payload;
pub mod smpte302m;

use crate::media::{AccessUnitInfo, TrackConfiguration};

/// Cuts one track's elementary stream into access units, by the rules of its standard.
///
/// Bytes go in as they come, in pieces of any size. What comes out are the same bytes in the same order (less what the
/// published normalisation strips: ADTS and LOAS headers, Opus control headers), each between a [`Step::Begin`] and a
/// [`Step::End`]. A framer never copies more than the few bytes that it must see before it can judge to which access unit
/// they belong.
///
/// ```text
/// while let Some(step) = framer.push(&mut input) { … }      // until input is empty and None comes back
/// while let Some(step) = framer.flush() { … }               // when the end of the access unit is certain from outside
/// ```
pub trait Framer {
    /// Takes bytes off the front of `input` and gives the next step; `None` when all of `input` has been taken.
    fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Step<'a>>;

    /// Takes pieces that lie in this order among `covering` bytes, between which stands nothing that could be part of a start code,
    /// if all that they hold is the middle of the open access unit. `false`: nothing was taken, push them one by one.
    fn pass(&mut self, _covering: &[u8], _pieces: &[&[u8]]) -> bool {
        false
    }

    /// Asks the processor for what [`pass`](Self::pass) looks at.
    fn prefetch(&self) {}

    /// The open access unit ends here, as the container or protocol knows (RTP marker or new time stamp, PES length of an
    /// aligned track, end of stream): gives the bytes held back and the [`Step::End`], then `None`. Nothing open: `None` at once.
    fn flush(&mut self) -> Option<Step<'_>>;

    /// Bytes are missing between the last push and the next one. Bytes held back stay with the open access unit;
    /// half-read syntax is given up, so that what follows is not misread.
    fn discontinuity(&mut self);

    /// Number of bytes pushed so far, the position that the next pushed byte gets. Wraps never in practice (64 bits).
    fn position(&self) -> u64;

    /// What a decoder must know first; its `generation` rises when it changes. It holds for the access unit whose
    /// [`Step::End`] comes next.
    fn configuration(&self) -> &TrackConfiguration;

    /// Whether the open access unit has all the bytes that its own header announces and nothing beyond them has come, so that
    /// [`Framer::flush`] may be called at a PES packet's end without knowing that the track is access-unit aligned.
    /// Always false for codecs whose headers announce no length.
    fn is_complete(&self) -> bool {
        false
    }

    /// Whether the access unit just begun has its first byte for certain, even right after bytes were lost.
    fn start_is_certain(&self) -> bool {
        false
    }
}

/// One step of a [`Framer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// An access unit starts. Its first byte is the one with this position in the track's byte stream, which decides
    /// the PES packet whose time stamp it gets (H.222.0 §2.4.3.7: the first access unit that commences in the packet).
    Begin {
        /// Position of the first byte (counted before stripping).
        position: u64,
    },
    /// These bytes belong to the open access unit.
    Append(&'a [u8]),
    /// The access unit is complete.
    End(AccessUnitInfo),
    /// Bytes that belong to no access unit were passed over (before the first start code, between damaged audio frames).
    Skipped {
        /// How many.
        len: u32,
    },
}
