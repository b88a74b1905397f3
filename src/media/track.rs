//! A track: one elementary stream of a stream, and what is known of its format.

use std::fmt;

use super::Rational;

/// What a track is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// Coded pictures.
    Video,
    /// Coded or plain sound.
    Audio,
    /// Splice commands, captions, metadata, anything unknown.
    Data,
    /// The transport stream itself.
    Transport,
}

impl TrackKind {
    /// The word a track's name starts with: `video` of `video0`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Data => "data",
            Self::Transport => "transport",
        }
    }
}

/// What a track is coded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// ITU-T H.264, Annex B byte stream.
    H264,
    /// ITU-T H.265, Annex B byte stream.
    Hevc,
    /// ITU-T H.262 (MPEG-2 video); MPEG-1 video reads the same.
    Mpeg2Video,
    /// AAC in ADTS (ISO/IEC 13818-7); frames are published raw.
    AacAdts,
    /// AAC in LATM/LOAS (ISO/IEC 14496-3); frames are published raw.
    AacLatm,
    /// MPEG-1 or MPEG-2 audio, layers 1 to 3.
    Mp2,
    /// Dolby AC-3 (ETSI TS 102 366).
    Ac3,
    /// Dolby E-AC-3 with its dependent substreams (ETSI TS 102 366 Annex E).
    Eac3,
    /// Opus in MPEG-TS; packets are published without the control header.
    Opus,
    /// SMPTE ST 302 linear audio.
    Smpte302m,
    /// SCTE-35 splice information sections.
    Scte35,
    /// SMPTE ST 336 key-length-value metadata, synchronous or not.
    Klv,
    /// ETSI EN 300 472 teletext.
    Teletext,
    /// ETSI EN 300 743 subtitles.
    DvbSubtitle,
    /// PES of a stream type that is not known here, published as it comes.
    PrivateData(u8),
}

impl Codec {
    /// What a track of this codec is for.
    pub const fn kind(self) -> TrackKind {
        match self {
            Self::H264 | Self::Hevc | Self::Mpeg2Video => TrackKind::Video,
            Self::AacAdts | Self::AacLatm | Self::Mp2 | Self::Ac3 | Self::Eac3 | Self::Opus | Self::Smpte302m => {
                TrackKind::Audio
            }
            Self::Scte35 | Self::Klv | Self::Teletext | Self::DvbSubtitle | Self::PrivateData(_) => TrackKind::Data,
        }
    }

    /// The codec that a ring's header names. AAC frames are raw in rings, whatever they came in; private data is not told apart.
    pub fn from_fourcc(fourcc: [u8; 4]) -> Option<Self> {
        const NAMED: [Codec; 13] = [
            Codec::H264,
            Codec::Hevc,
            Codec::Mpeg2Video,
            Codec::AacAdts,
            Codec::Mp2,
            Codec::Ac3,
            Codec::Eac3,
            Codec::Opus,
            Codec::Smpte302m,
            Codec::Scte35,
            Codec::Klv,
            Codec::Teletext,
            Codec::DvbSubtitle,
        ];
        NAMED.into_iter().find(|codec| codec.fourcc() == fourcc)
    }

    /// Four characters that name the codec in the ring's header.
    pub const fn fourcc(self) -> [u8; 4] {
        match self {
            Self::H264 => *b"h264",
            Self::Hevc => *b"hevc",
            Self::Mpeg2Video => *b"mpg2",
            Self::AacAdts | Self::AacLatm => *b"aac ",
            Self::Mp2 => *b"mp2 ",
            Self::Ac3 => *b"ac-3",
            Self::Eac3 => *b"ec-3",
            Self::Opus => *b"opus",
            Self::Smpte302m => *b"s302",
            Self::Scte35 => *b"sc35",
            Self::Klv => *b"klv ",
            Self::Teletext => *b"ttxt",
            Self::DvbSubtitle => *b"dvbs",
            Self::PrivateData(_) => *b"priv",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H264 => "H.264",
            Self::Hevc => "HEVC",
            Self::Mpeg2Video => "MPEG-2",
            Self::AacAdts | Self::AacLatm => "AAC",
            Self::Mp2 => "MP2",
            Self::Ac3 => "AC-3",
            Self::Eac3 => "E-AC-3",
            Self::Opus => "Opus",
            Self::Smpte302m => "SMPTE 302M",
            Self::Scte35 => "SCTE-35",
            Self::Klv => "KLV",
            Self::Teletext => "teletext",
            Self::DvbSubtitle => "DVB subtitles",
            Self::PrivateData(stream_type) => return write!(f, "private data (stream type {stream_type:#04x})"),
        })
    }
}

/// What a decoder must know before the first access unit, and what people want to see of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackConfiguration {
    /// Rises by one with every change of what follows; 0 while nothing is known.
    pub generation: u32,
    /// The ring's configuration block: parameter sets in Annex B, an AudioSpecificConfig, a sequence header.
    pub bytes: Vec<u8>,
    /// The format they describe.
    pub format: Format,
}

/// The format of a track, as far as its own bytes have told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Nothing seen yet, or nothing to be known.
    #[default]
    Unknown,
    /// Pictures.
    Video(VideoFormat),
    /// Sound.
    Audio(AudioFormat),
}

/// The format of a video track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoFormat {
    /// Columns of luma samples after cropping.
    pub width: u32,
    /// Rows of luma samples of a frame after cropping.
    pub height: u32,
    /// Frames (not fields) per second when the stream tells.
    pub frame_rate: Option<Rational>,
    /// Progressive or interlaced.
    pub scan: Scan,
    /// The profile's name as the standard spells it, such as `High` or `Main 10`.
    pub profile: &'static str,
    /// Level times ten: 40 for level 4; 0 when unknown.
    pub level_tenths: u16,
    /// Bits per luma sample.
    pub bit_depth: u8,
    /// `chroma_format_idc`: 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// Width to height of one sample, when told.
    pub sample_aspect_ratio: Option<Rational>,
    /// Transfer function, which tells HDR from SDR.
    pub transfer: TransferFunction,
    /// `colour_primaries`, `transfer_characteristics`, `matrix_coefficients` code points (H.273); 2 is unspecified.
    pub colour: [u8; 3],
}

/// How a frame's rows were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scan {
    /// All at once.
    #[default]
    Progressive,
    /// As two fields.
    Interlaced,
}

/// The transfer functions that operators tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransferFunction {
    /// Standard dynamic range, or not told.
    #[default]
    Sdr,
    /// Perceptual quantizer (SMPTE ST 2084).
    Pq,
    /// Hybrid log-gamma (ARIB STD-B67).
    Hlg,
}

/// The format of an audio track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioFormat {
    /// Samples per second and channel, as the frames' time counts them.
    pub sample_rate: u32,
    /// Number of channels; 0 when the stream leaves it to the decoder.
    pub channels: u8,
    /// The profile's name, such as `LC`, or empty.
    pub profile: &'static str,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown format"),
            Self::Video(video) => video.fmt(f),
            Self::Audio(audio) => audio.fmt(f),
        }
    }
}

impl fmt::Display for VideoFormat {
    /// As broadcasters write it: `1920×1080i50 High`, the number being fields per second when interlaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, per_frame) = match self.scan {
            Scan::Progressive => ('p', 1.0),
            Scan::Interlaced => ('i', 2.0),
        };
        write!(f, "{}×{}{letter}", self.width, self.height)?;
        if let Some(rate) = self.frame_rate {
            let rate = (rate.as_f64() * per_frame * 100.0).round() / 100.0;
            write!(f, "{rate}")?;
        }
        if !self.profile.is_empty() {
            write!(f, " {}", self.profile)?;
        }
        match self.transfer {
            TransferFunction::Sdr => Ok(()),
            TransferFunction::Pq => f.write_str(" PQ"),
            TransferFunction::Hlg => f.write_str(" HLG"),
        }
    }
}

impl fmt::Display for AudioFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Hz {} ch", self.sample_rate, self.channels)?;
        if !self.profile.is_empty() {
            write!(f, " {}", self.profile)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interlaced_format_is_written_with_its_field_rate() {
        let format = VideoFormat {
            width: 1920,
            height: 1080,
            frame_rate: Rational::new(25, 1),
            scan: Scan::Interlaced,
            profile: "High",
            level_tenths: 40,
            bit_depth: 8,
            chroma_format: 1,
            sample_aspect_ratio: None,
            transfer: TransferFunction::Sdr,
            colour: [1, 1, 1],
        };
        assert_eq!(format.to_string(), "1920×1080i50 High");
        let film = VideoFormat {
            frame_rate: Rational::new(24_000, 1_001),
            scan: Scan::Progressive,
            transfer: TransferFunction::Pq,
            ..format
        };
        assert_eq!(film.to_string(), "1920×1080p23.98 High PQ");
    }
}
