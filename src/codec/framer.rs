//! The framer of any codec, dispatched statically.

use crate::media::{Codec, TrackConfiguration};

use super::aac::{AdtsFramer, LatmFramer};
use super::ac3::Ac3Framer;
use super::data::DataFramer;
use super::h264::{H264Framer, H264Syntax};
use super::hevc::{HevcFramer, HevcSyntax};
use super::klv::KlvFramer;
use super::mp2::Mp2Framer;
use super::mpeg2video::Mpeg2VideoFramer;
use super::opus::OpusFramer;
use super::smpte302m::Smpte302mFramer;
use super::{Framer, Step};

/// What the container knows of a track and its own bytes do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FramerHints {
    /// `channel_config_code` of the Opus audio descriptor in the PMT (DVB extension descriptor 0x7f, tag extension 0x80).
    pub opus_channel_configuration: Option<u8>,
    /// The protocol tells where access units end, as the time stamps of RTP do.
    pub is_cut_by_protocol: bool,
}

/// A framer chosen at run time.
#[expect(clippy::large_enum_variant, reason = "one per track, made when the track appears")]
pub enum AnyFramer {
    /// H.264.
    H264(H264Framer),
    /// HEVC.
    Hevc(HevcFramer),
    /// MPEG-2 video.
    Mpeg2Video(Mpeg2VideoFramer),
    /// AAC in ADTS.
    Adts(AdtsFramer),
    /// AAC in LATM.
    Latm(LatmFramer),
    /// MPEG audio.
    Mp2(Mp2Framer),
    /// AC-3 and E-AC-3.
    Ac3(Ac3Framer),
    /// Opus in MPEG-TS.
    Opus(OpusFramer),
    /// SMPTE ST 302.
    Smpte302m(Smpte302mFramer),
    /// KLV metadata.
    Klv(KlvFramer),
    /// One unit per PES packet or section.
    Data(DataFramer),
}

impl AnyFramer {
    /// The framer for tracks of this codec.
    pub fn new(codec: Codec, hints: FramerHints) -> Self {
        match codec {
            Codec::AacAdts => Self::Adts(AdtsFramer::new()),
            Codec::AacLatm => Self::Latm(LatmFramer::new()),
            Codec::Mp2 => Self::Mp2(Mp2Framer::new()),
            Codec::Ac3 | Codec::Eac3 => Self::Ac3(Ac3Framer::new()),
            Codec::Opus => Self::Opus(OpusFramer::new(hints.opus_channel_configuration)),
            Codec::Smpte302m => Self::Smpte302m(Smpte302mFramer::new()),
            Codec::Klv => Self::Klv(KlvFramer::new()),
            Codec::Scte35 | Codec::Teletext | Codec::DvbSubtitle | Codec::PrivateData(_) => {
                Self::Data(DataFramer::new(codec))
            }
            Codec::H264 if hints.is_cut_by_protocol => Self::H264(H264Framer::with(H264Syntax::cut_by_protocol())),
            Codec::H264 => Self::H264(H264Framer::default()),
            Codec::Hevc if hints.is_cut_by_protocol => Self::Hevc(HevcFramer::with(HevcSyntax::cut_by_protocol())),
            Codec::Hevc => Self::Hevc(HevcFramer::default()),
            Codec::Mpeg2Video => Self::Mpeg2Video(Mpeg2VideoFramer::default()),
        }
    }
}

macro_rules! for_each {
    ($any:expr, $framer:ident => $call:expr) => {
        match $any {
            AnyFramer::H264($framer) => $call,
            AnyFramer::Hevc($framer) => $call,
            AnyFramer::Mpeg2Video($framer) => $call,
            AnyFramer::Adts($framer) => $call,
            AnyFramer::Latm($framer) => $call,
            AnyFramer::Mp2($framer) => $call,
            AnyFramer::Ac3($framer) => $call,
            AnyFramer::Opus($framer) => $call,
            AnyFramer::Smpte302m($framer) => $call,
            AnyFramer::Klv($framer) => $call,
            AnyFramer::Data($framer) => $call,
        }
    };
}

impl Framer for AnyFramer {
    #[inline]
    fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Step<'a>> {
        for_each!(self, framer => framer.push(input))
    }

    #[inline]
    fn pass(&mut self, covering: &[u8], pieces: &[&[u8]]) -> bool {
        for_each!(self, framer => framer.pass(covering, pieces))
    }

    #[inline]
    fn prefetch(&self) {
        for_each!(self, framer => framer.prefetch());
    }

    #[inline]
    fn flush(&mut self) -> Option<Step<'_>> {
        for_each!(self, framer => framer.flush())
    }

    fn discontinuity(&mut self) {
        for_each!(self, framer => framer.discontinuity());
    }

    #[inline]
    fn position(&self) -> u64 {
        for_each!(self, framer => framer.position())
    }

    #[inline]
    fn configuration(&self) -> &TrackConfiguration {
        for_each!(self, framer => framer.configuration())
    }

    #[inline]
    fn is_complete(&self) -> bool {
        for_each!(self, framer => framer.is_complete())
    }

    fn start_is_certain(&self) -> bool {
        for_each!(self, framer => framer.start_is_certain())
    }
}

/// Makes a tuple struct around a framer a [`Framer`].
macro_rules! delegate_framer {
    ($framer:ty) => {
        impl Framer for $framer {
            #[inline]
            fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Step<'a>> {
                self.0.push(input)
            }

            fn flush(&mut self) -> Option<Step<'_>> {
                self.0.flush()
            }

            fn discontinuity(&mut self) {
                self.0.discontinuity();
            }

            #[inline]
            fn position(&self) -> u64 {
                self.0.position()
            }

            fn configuration(&self) -> &TrackConfiguration {
                self.0.configuration()
            }

            #[inline]
            fn is_complete(&self) -> bool {
                self.0.is_complete()
            }

            fn start_is_certain(&self) -> bool {
                self.0.start_is_certain()
            }
        }
    };
}
pub(super) use delegate_framer;
