//! What a stream consists of: `stream.capnp` in the stream's directory, replaced by rename, with a generation.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use capnp::message::{Allocator, Builder, Reader, ReaderOptions, SegmentArray};
use thiserror::Error;

use crate::builder::{open_directory, open_shared};
pub use crate::headworks_capnp::TrackKind;
use crate::headworks_capnp::stream_descriptor;

/// The largest descriptor that is read, bytes.
pub const SIZE_MAX: usize = 1 << 20;
const NAME: &str = "stream.capnp";

/// A service of a transport stream; RTP without one has programme 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programme {
    /// program_number.
    pub number: u32,
    /// PID that carries the PCR.
    pub pcr_pid: u16,
    /// Service name of the SDT.
    pub name: String,
    /// Service provider of the SDT.
    pub provider: String,
}

/// One elementary stream and its ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Name of the ring's directory: `video0`, `audio0` …
    pub name: String,
    /// Number of its programme.
    pub programme: u32,
    /// What it carries.
    pub kind: TrackKind,
    /// Four characters.
    pub codec: [u8; 4],
    /// PID or SSRC.
    pub source_id: u32,
    /// Ticks per second of pts, dts and duration.
    pub clock_rate: u32,
    /// ISO 639-2, empty if not said.
    pub language: String,
    /// DVB stream_identifier_descriptor.
    pub component_tag: Option<u8>,
    /// Luma samples, 0 unknown.
    pub width: u32,
    /// Luma lines, 0 unknown.
    pub height: u32,
    /// Frames per second, 0/0 unknown.
    pub frame_rate: (u32, u32),
    /// Hz, 0 unknown.
    pub sample_rate: u32,
    /// Audio channels, 0 unknown.
    pub channels: u16,
    /// No frame will come any more.
    pub ended: bool,
}

impl Default for Track {
    fn default() -> Self {
        Self {
            name: String::new(),
            programme: 0,
            kind: TrackKind::Unknown,
            codec: [0; 4],
            source_id: 0,
            clock_rate: 0,
            language: String::new(),
            component_tag: None,
            width: 0,
            height: 0,
            frame_rate: (0, 0),
            sample_rate: 0,
            channels: 0,
            ended: false,
        }
    }
}

/// A stream in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamDescriptor {
    /// As the operator sees it; the directory's name is an encoding of it.
    pub name: String,
    /// + 1 with every replacement.
    pub generation: u32,
    /// Nanoseconds since 1970, UTC.
    pub created_utc_ns: i64,
    /// Its services.
    pub programmes: Vec<Programme>,
    /// Its rings, in the order of their first appearance.
    pub tracks: Vec<Track>,
}

/// Why a descriptor cannot be read.
#[derive(Debug, Error)]
pub enum StreamDescriptorError {
    /// Not there, or not readable.
    #[error("stream.capnp: {0}")]
    Io(#[from] io::Error),
    /// Not one message of one segment with a StreamDescriptor.
    #[error("stream.capnp is malformed")]
    Malformed,
}

/// One segment of a size known beforehand.
struct OneSegment<'a>(&'a mut [u64]);

// SAFETY: zeroed by its maker, aligned by its type, exclusively borrowed, and handed out once: the builder without `alloc`
// panics before it asks for a second segment.
unsafe impl Allocator for OneSegment<'_> {
    fn allocate_segment(&mut self, minimum_size: u32) -> (core::ptr::NonNull<u8>, u32) {
        assert!(minimum_size as usize <= self.0.len(), "the descriptor outgrew its segment");
        (core::ptr::NonNull::from(&mut self.0[0]).cast(), self.0.len() as u32)
    }

    unsafe fn deallocate_segment(&mut self, _: core::ptr::NonNull<u8>, _: u32, _: u32) {}
}

impl StreamDescriptor {
    /// Words that the message can take at most: structs, tags, and every text with its terminator rounded up.
    fn words_max(&self) -> usize {
        let text = |s: &str| s.len() / 8 + 2;
        let programmes: usize = self.programmes.iter().map(|p| 4 + text(&p.name) + text(&p.provider)).sum();
        let tracks: usize = self.tracks.iter().map(|t| 10 + text(&t.name) + text(&t.language)).sum();
        16 + text(&self.name) + programmes + tracks
    }

    /// The message in Cap'n Proto's stream framing: one segment.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut segment = vec![0u64; self.words_max()];
        let used = {
            let mut message = Builder::new(OneSegment(&mut segment));
            let mut d = message.init_root::<stream_descriptor::Builder<'_>>();
            d.set_name(self.name.as_str());
            d.set_generation(self.generation);
            d.set_created_utc_ns(self.created_utc_ns);
            let mut list = d.reborrow().init_programmes(self.programmes.len() as u32);
            for (i, programme) in self.programmes.iter().enumerate() {
                let mut p = list.reborrow().get(i as u32);
                p.set_number(programme.number);
                p.set_pcr_pid(programme.pcr_pid);
                p.set_name(programme.name.as_str());
                p.set_provider(programme.provider.as_str());
            }
            let mut list = d.init_tracks(self.tracks.len() as u32);
            for (i, track) in self.tracks.iter().enumerate() {
                let mut t = list.reborrow().get(i as u32);
                t.set_name(track.name.as_str());
                t.set_programme(track.programme);
                t.set_kind(track.kind);
                t.set_codec(u32::from_le_bytes(track.codec));
                t.set_source_id(track.source_id);
                t.set_clock_rate(track.clock_rate);
                t.set_language(track.language.as_str());
                t.set_component_tag(track.component_tag.map_or(-1, i16::from));
                t.set_width(track.width);
                t.set_height(track.height);
                t.set_frame_rate_numerator(track.frame_rate.0);
                t.set_frame_rate_denominator(track.frame_rate.1);
                t.set_sample_rate(track.sample_rate);
                t.set_channels(track.channels);
                t.set_ended(track.ended);
            }
            message.get_segments_for_output()[0].len()
        };
        let mut bytes = Vec::with_capacity(8 + used);
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.extend_from_slice(&((used / 8) as u32).to_le_bytes());
        bytes.extend(segment.iter().flat_map(|word| word.to_le_bytes()).take(used));
        bytes
    }

    /// Reads a message of one segment.
    ///
    /// # Errors
    /// [`StreamDescriptorError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StreamDescriptorError> {
        Self::decode_words(bytes).ok_or(StreamDescriptorError::Malformed)
    }

    fn decode_words(bytes: &[u8]) -> Option<Self> {
        let (framing, body) = bytes.split_at_checked(8)?;
        let half = |i: usize| Some(u32::from_le_bytes(framing.get(i..i + 4)?.try_into().ok()?));
        let length = (half(4)? as usize).checked_mul(8)?;
        if half(0)? != 0 || bytes.len() > SIZE_MAX || body.len() < length {
            return None;
        }
        let words: Vec<u64> = body[..length].as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).collect();
        // SAFETY: u64 words seen as their bytes: same memory, same length, no invalid value.
        let segment = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), length) };
        let segments = [segment];
        // An honest message has every text and list once. One that points to the same place many times, or counts structs of
        // no size, would otherwise become many times larger in memory than it is.
        let mut options = ReaderOptions::new();
        options.traversal_limit_in_words(Some(2 * words.len() + 64));
        let message = Reader::new(SegmentArray::new(&segments), options);
        let text = |t: capnp::Result<capnp::text::Reader<'_>>| t.ok()?.to_str().ok().map(str::to_owned);
        let d = message.get_root::<stream_descriptor::Reader<'_>>().ok()?;
        let mut programmes = Vec::new();
        for p in d.get_programmes().ok()? {
            programmes.push(Programme {
                number: p.get_number(),
                pcr_pid: p.get_pcr_pid(),
                name: text(p.get_name())?,
                provider: text(p.get_provider())?,
            });
        }
        let mut tracks = Vec::new();
        for t in d.get_tracks().ok()? {
            tracks.push(Track {
                name: text(t.get_name())?,
                programme: t.get_programme(),
                kind: t.get_kind().unwrap_or(TrackKind::Unknown),
                codec: t.get_codec().to_le_bytes(),
                source_id: t.get_source_id(),
                clock_rate: t.get_clock_rate(),
                language: text(t.get_language())?,
                component_tag: u8::try_from(t.get_component_tag()).ok(),
                width: t.get_width(),
                height: t.get_height(),
                frame_rate: (t.get_frame_rate_numerator(), t.get_frame_rate_denominator()),
                sample_rate: t.get_sample_rate(),
                channels: t.get_channels(),
                ended: t.get_ended(),
            });
        }
        Some(Self {
            name: text(d.get_name())?,
            generation: d.get_generation(),
            created_utc_ns: d.get_created_utc_ns(),
            programmes,
            tracks,
        })
    }

    /// Puts it into a stream's directory in one step. Then ring the bell: `BellWriter::tracks_changed`.
    ///
    /// # Errors
    /// What the file system says; the old one stays.
    pub fn write(&self, stream_directory: &Path) -> io::Result<()> {
        let temporary = stream_directory.join(".stream.capnp");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(0o640))?;
        file.write_all(&self.encode())?;
        fs::rename(temporary, stream_directory.join(NAME))
    }

    /// Reads that of a stream's directory.
    ///
    /// # Errors
    /// [`StreamDescriptorError`].
    pub fn read(stream_directory: &Path) -> Result<Self, StreamDescriptorError> {
        Self::read_from(&open_shared(&open_directory(stream_directory)?, NAME, false)?)
    }

    /// Reads it from its file, e.g. a descriptor received from a broker.
    ///
    /// # Errors
    /// [`StreamDescriptorError`].
    pub fn read_from(file: &fs::File) -> Result<Self, StreamDescriptorError> {
        let mut bytes = Vec::new();
        file.take(SIZE_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Self::decode(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> StreamDescriptor {
        StreamDescriptor {
            name: "cam1/über".into(),
            generation: 3,
            created_utc_ns: 1_700_000_000_000_000_000,
            programmes: vec![Programme { number: 1, pcr_pid: 256, name: "One".into(), provider: "".into() }; 3],
            tracks: vec![
                Track {
                    name: "video0".into(),
                    programme: 1,
                    kind: TrackKind::Video,
                    codec: *b"avc1",
                    source_id: 256,
                    clock_rate: 90_000,
                    width: 1920,
                    height: 1080,
                    frame_rate: (30_000, 1001),
                    component_tag: Some(255),
                    ..Default::default()
                },
                Track { name: "audio0".into(), language: "deu".into(), ended: true, ..Default::default() },
            ],
        }
    }

    #[test]
    fn a_stream_descriptor_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        for descriptor in [example(), StreamDescriptor::default()] {
            descriptor.write(dir.path()).unwrap();
            assert_eq!(StreamDescriptor::read(dir.path()).unwrap(), descriptor);
        }
    }

    #[test]
    fn a_list_of_many_structs_of_no_size_is_refused() {
        // The root: two words of data, and pointers to a name, to programmes and to tracks, 60,448 of them without any bytes.
        let words: [u64; 7] = [0x0003_0002 << 32, 0, 0, 0, 0, 60_448 << 35 | 1, 0];
        let bytes: Vec<u8> = [7_u64 << 32].iter().chain(&words).flat_map(|word| word.to_le_bytes()).collect();
        assert!(matches!(StreamDescriptor::decode(&bytes), Err(StreamDescriptorError::Malformed)));
        // The same with no structs is a stream without tracks.
        let mut sound = bytes;
        sound[48..56].fill(0);
        assert_eq!(StreamDescriptor::decode(&sound).unwrap(), StreamDescriptor::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(
            at in 0usize..400,
            with in any::<[u8; 8]>(),
            cut in 0usize..400,
        ) {
            let mut bytes = example().encode();
            let at = at % (bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&with);
            let _ = StreamDescriptor::decode(&bytes);
            let _ = StreamDescriptor::decode(&bytes[..cut.min(bytes.len())]);
        }
    }
}
