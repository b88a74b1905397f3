//! The multiplexer: whole frames in, elements out, each frame as soon as it comes.

use super::ebml;

/// What time stamps count, ns. A tick of 90 kHz lasts 11.1 µs, so that each of them has a number of its own here and can be told
/// from it; a millisecond, which is usual, would round them.
pub const TICK_NS: u64 = 10_000;

/// Identifiers of RFC 9559 §5 and RFC 8794 §11.2.
mod id {
    pub const EBML: u32 = 0x1a45_dfa3;
    pub const EBML_VERSION: u32 = 0x4286;
    pub const EBML_READ_VERSION: u32 = 0x42f7;
    pub const EBML_MAX_ID_LENGTH: u32 = 0x42f2;
    pub const EBML_MAX_SIZE_LENGTH: u32 = 0x42f3;
    pub const DOC_TYPE: u32 = 0x4282;
    pub const DOC_TYPE_VERSION: u32 = 0x4287;
    pub const DOC_TYPE_READ_VERSION: u32 = 0x4285;
    pub const SEGMENT: u32 = 0x1853_8067;
    pub const INFO: u32 = 0x1549_a966;
    pub const TIMESTAMP_SCALE: u32 = 0x002a_d7b1;
    pub const MUXING_APP: u32 = 0x4d80;
    pub const WRITING_APP: u32 = 0x5741;
    pub const TRACKS: u32 = 0x1654_ae6b;
    pub const TRACK_ENTRY: u32 = 0xae;
    pub const TRACK_NUMBER: u32 = 0xd7;
    pub const TRACK_UID: u32 = 0x73c5;
    pub const TRACK_TYPE: u32 = 0x83;
    pub const FLAG_LACING: u32 = 0x9c;
    pub const LANGUAGE: u32 = 0x0022_b59c;
    pub const CODEC_ID: u32 = 0x86;
    pub const CODEC_PRIVATE: u32 = 0x63a2;
    pub const SEEK_PRE_ROLL: u32 = 0x56bb;
    pub const VIDEO: u32 = 0xe0;
    pub const FLAG_INTERLACED: u32 = 0x9a;
    pub const PIXEL_WIDTH: u32 = 0xb0;
    pub const PIXEL_HEIGHT: u32 = 0xba;
    pub const DISPLAY_WIDTH: u32 = 0x54b0;
    pub const DISPLAY_HEIGHT: u32 = 0x54ba;
    pub const AUDIO: u32 = 0xe1;
    pub const SAMPLING_FREQUENCY: u32 = 0xb5;
    pub const CHANNELS: u32 = 0x9f;
    pub const CLUSTER: u32 = 0x1f43_b675;
    pub const TIMESTAMP: u32 = 0xe7;
    pub const SIMPLE_BLOCK: u32 = 0xa3;
}

/// `TrackType` of pictures.
const TYPE_VIDEO: u64 = 1;
/// `TrackType` of sound.
const TYPE_AUDIO: u64 = 2;
/// What an Opus decoder must be given before it is right again (RFC 7845 §4.6), ns.
const OPUS_PRE_ROLL_NS: u64 = 80_000_000;
/// The most tracks of a file: numbers that a block says in one byte.
pub const TRACKS_MAX: usize = 126;
/// Number of the track, relative time stamp, flags.
const BLOCK_HEADER_LEN: usize = 4;

/// A track to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct MatroskaTrack {
    /// `CodecID`, such as `V_MPEG4/ISO/AVC`.
    pub codec_id: &'static str,
    /// `CodecPrivate`; empty for codecs without one.
    pub codec_private: Vec<u8>,
    /// Three letters of ISO 639-2.
    pub language: Option<[u8; 3]>,
    /// What players want to know before the first frame.
    pub details: Details,
}

/// What is told of a track besides its codec.
#[derive(Clone, Debug, PartialEq)]
pub enum Details {
    /// Pictures.
    Video {
        /// Columns of luma samples.
        width: u32,
        /// Rows of luma samples.
        height: u32,
        /// Columns on a screen that has as many rows, if samples are not square.
        display_width: Option<u32>,
        /// Whether frames are made of fields.
        interlaced: bool,
    },
    /// Sound.
    Audio {
        /// Samples per second.
        sample_rate: u32,
        /// Channels; 0 unknown.
        channels: u8,
    },
}

/// Writes a stream of at most [`TRACKS_MAX`] tracks.
#[derive(Debug)]
pub struct MatroskaMux {
    tracks: Vec<MatroskaTrack>,
    /// Time stamp of the open cluster, ticks; `None` before the first one.
    cluster: Option<u64>,
}

impl MatroskaMux {
    /// For these tracks, which stay the same to the end.
    ///
    /// # Panics
    /// With more than [`TRACKS_MAX`] tracks.
    pub fn new(tracks: Vec<MatroskaTrack>) -> Self {
        assert!(tracks.len() <= TRACKS_MAX, "{} tracks do not fit a file", tracks.len());
        Self { tracks, cluster: None }
    }

    /// Appends what stands before the first frame.
    pub fn write_header(&self, out: &mut Vec<u8>) {
        ebml::master(out, id::EBML, |out| {
            for (id, value) in [
                (id::EBML_VERSION, 1),
                (id::EBML_READ_VERSION, 1),
                (id::EBML_MAX_ID_LENGTH, 4),
                (id::EBML_MAX_SIZE_LENGTH, 8),
            ] {
                ebml::unsigned(out, id, value);
            }
            ebml::text(out, id::DOC_TYPE, "matroska");
            ebml::unsigned(out, id::DOC_TYPE_VERSION, 4);
            ebml::unsigned(out, id::DOC_TYPE_READ_VERSION, 2);
        });
        ebml::open(out, id::SEGMENT);
        ebml::master(out, id::INFO, |out| {
            ebml::unsigned(out, id::TIMESTAMP_SCALE, TICK_NS);
            ebml::text(out, id::MUXING_APP, "headworks");
            ebml::text(out, id::WRITING_APP, concat!("headworks ", env!("CARGO_PKG_VERSION")));
        });
        ebml::master(out, id::TRACKS, |out| {
            for (number, track) in (1..).zip(&self.tracks) {
                ebml::master(out, id::TRACK_ENTRY, |out| track.write(number, out));
            }
        });
    }

    /// Appends a frame of a track at `time` (presentation, in ticks of [`TICK_NS`]). `key`: decoding can start at it.
    ///
    /// A cluster reaches 32,767 ticks to both sides of its own time; a frame further away, or a key frame of a video track, opens
    /// the next one, at `not_before` (no frame to come is earlier) where that is near enough.
    ///
    /// # Panics
    /// When there is no track of this number.
    pub fn write(&mut self, track: usize, time: u64, not_before: u64, key: bool, frame: &[u8], out: &mut Vec<u8>) {
        let is_video = matches!(self.tracks[track].details, Details::Video { .. });
        let relative = |cluster: u64| i16::try_from(time.wrapping_sub(cluster) as i64).ok();
        let open = self.cluster.filter(|_| !(is_video && key)).and_then(relative);
        let offset = match open {
            Some(offset) => offset,
            None => {
                let cluster = if relative(not_before).is_some() { not_before } else { time };
                self.cluster = Some(cluster);
                ebml::open(out, id::CLUSTER);
                ebml::unsigned(out, id::TIMESTAMP, cluster);
                relative(cluster).expect("the cluster was placed within reach")
            }
        };
        ebml::head(out, id::SIMPLE_BLOCK, BLOCK_HEADER_LEN + frame.len());
        out.push(0x80 | (track + 1) as u8);
        out.extend(offset.to_be_bytes());
        out.push(if key { 0x80 } else { 0 });
        out.extend_from_slice(frame);
    }
}

impl MatroskaTrack {
    fn write(&self, number: u64, out: &mut Vec<u8>) {
        ebml::unsigned(out, id::TRACK_NUMBER, number);
        ebml::unsigned(out, id::TRACK_UID, number);
        let track_type = match self.details {
            Details::Video { .. } => TYPE_VIDEO,
            Details::Audio { .. } => TYPE_AUDIO,
        };
        ebml::unsigned(out, id::TRACK_TYPE, track_type);
        ebml::unsigned(out, id::FLAG_LACING, 0);
        // Without the element it would be English (RFC 9559 §5.1.4.1.19).
        let language = self.language.unwrap_or(*b"und");
        ebml::binary(out, id::LANGUAGE, &language);
        ebml::text(out, id::CODEC_ID, self.codec_id);
        if !self.codec_private.is_empty() {
            ebml::binary(out, id::CODEC_PRIVATE, &self.codec_private);
        }
        if self.codec_id == "A_OPUS" {
            ebml::unsigned(out, id::SEEK_PRE_ROLL, OPUS_PRE_ROLL_NS);
        }
        match self.details {
            Details::Video { width, height, display_width, interlaced } => ebml::master(out, id::VIDEO, |out| {
                ebml::unsigned(out, id::FLAG_INTERLACED, if interlaced { 1 } else { 2 });
                ebml::unsigned(out, id::PIXEL_WIDTH, u64::from(width));
                ebml::unsigned(out, id::PIXEL_HEIGHT, u64::from(height));
                if let Some(display_width) = display_width {
                    ebml::unsigned(out, id::DISPLAY_WIDTH, u64::from(display_width));
                    ebml::unsigned(out, id::DISPLAY_HEIGHT, u64::from(height));
                }
            }),
            Details::Audio { sample_rate, channels } => ebml::master(out, id::AUDIO, |out| {
                ebml::float(out, id::SAMPLING_FREQUENCY, f64::from(sample_rate));
                if channels > 0 {
                    ebml::unsigned(out, id::CHANNELS, u64::from(channels));
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mux() -> MatroskaMux {
        let audio = Details::Audio { sample_rate: 48_000, channels: 2 };
        let video = Details::Video { width: 320, height: 180, display_width: None, interlaced: false };
        let track = |codec_id, details| MatroskaTrack { codec_id, codec_private: vec![], language: None, details };
        MatroskaMux::new(vec![track("V_MPEG2", video), track("A_AC3", audio)])
    }

    #[test]
    fn a_frame_is_a_block_relative_to_its_cluster() {
        let mut mux = mux();
        let mut out = Vec::new();
        mux.write(0, 4_000, 0, true, b"key", &mut out);
        mux.write(1, 300, 300, true, b"sound", &mut out);
        mux.write(0, 2_000, 1_000, false, b"b", &mut out);
        let cluster = [0x1f, 0x43, 0xb6, 0x75, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xe7, 0x81, 0];
        let expected = [
            &cluster[..],
            b"\xa3\x87\x81\x0f\xa0\x80key",
            b"\xa3\x89\x82\x01\x2c\x80sound",
            b"\xa3\x85\x81\x07\xd0\0b",
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn a_frame_out_of_reach_and_a_key_frame_open_a_cluster() {
        let mut mux = mux();
        let mut out = Vec::new();
        let mut clusters = |track, time, not_before, key| {
            out.clear();
            mux.write(track, time, not_before, key, b"x", &mut out);
            out.windows(4).filter(|id| *id == [0x1f, 0x43, 0xb6, 0x75]).count()
        };
        assert_eq!(clusters(0, 0, 0, true), 1);
        assert_eq!(clusters(1, 32_767, 32_767, true), 0);
        assert_eq!(clusters(1, 32_768, 32_768, true), 1);
        // Later sound was written already; a picture before it is within reach.
        assert_eq!(clusters(0, 1, 1, false), 0);
        assert_eq!(clusters(0, 40_000, 40_000, true), 1);
        // Reordered further than a cluster reaches.
        assert_eq!(clusters(0, 140_000, 50_000, false), 1);
        assert_eq!(mux.cluster, Some(140_000));
    }

    #[test]
    fn the_header_names_its_tracks() {
        let mut out = Vec::new();
        mux().write_header(&mut out);
        assert!(out.starts_with(&[0x1a, 0x45, 0xdf, 0xa3, 0xa3, 0x42, 0x86, 0x81, 1]));
        let find = |part: &[u8]| out.windows(part.len()).position(|window| window == part);
        assert!(find(b"\x42\x82\x88matroska").is_some());
        assert!(find(b"\x86\x87V_MPEG2").is_some() && find(b"\x86\x85A_AC3") > find(b"\x86\x87V_MPEG2"));
        assert!(find(&[0x2a, 0xd7, 0xb1, 0x82, 0x27, 0x10]).is_some());
        assert!(find(b"\x22\xb5\x9c\x83und").is_some());
    }
}
