//! ADTS: AAC frames that each carry their own header (ISO/IEC 13818-7 §6.2, ISO/IEC 14496-3 §1.A.2.2).

use arrayvec::ArrayVec;

use crate::base::bits::BitReader;
use crate::codec::announced_length::{AnnouncedLengthFramer, Header, Stripped, Syntax, Verdict, set_configuration};
use crate::codec::{Framer, Step};
use crate::media::{AudioFormat, TrackConfiguration};

use super::config::{
    AudioSpecificConfig, ProgramConfig, channel_count, from_adts, profile_name, sample_rate, sample_rate_index,
};

/// Length of the header without its error check.
const HEADER_LEN: usize = 7;
/// Samples per channel in a raw data block; ADTS cannot tell of blocks of 960.
const BLOCK_SAMPLES: u32 = 1024;
/// How many of a frame's bytes are kept to find its program configuration element, comment excluded.
const PREFIX_LEN: usize = 128;

/// Frames of ADTS, published without header: `adts_fixed_header`, `adts_variable_header` and `adts_error_check` are stripped.
///
/// A frame of several raw data blocks stays one access unit of so many times 1024 samples.
pub struct AdtsFramer(AnnouncedLengthFramer<Adts>);

impl AdtsFramer {
    /// Begins without synchronisation.
    pub fn new() -> Self {
        Self(AnnouncedLengthFramer::new(Adts { prefix: ArrayVec::new(), program: None }))
    }
}

impl Default for AdtsFramer {
    fn default() -> Self {
        Self::new()
    }
}

crate::codec::framer::delegate_framer!(AdtsFramer);

/// The header, without error check, of a frame with `len` bytes in `blocks` raw data blocks; `None` for what ADTS has no words
/// for: other object types than the first four, rates of their own, blocks of 960 samples, more than 8 KiB.
pub fn write_header(config: &AudioSpecificConfig, blocks: u8, len: usize) -> Option<[u8; HEADER_LEN]> {
    let rate_index = sample_rate_index(config.sample_rate)?;
    let frame_len = len.checked_add(HEADER_LEN).filter(|len| *len < 1 << 13)?;
    let in_words = (1..=4).contains(&config.object_type)
        && config.frame_samples == BLOCK_SAMPLES
        && config.channel_configuration < 8
        && (1..=4).contains(&blocks);
    in_words.then(|| {
        let channels = config.channel_configuration;
        [
            0xff,
            0xf1,
            (config.object_type - 1) << 6 | rate_index << 2 | channels >> 2,
            channels << 6 | (frame_len >> 11) as u8,
            (frame_len >> 3) as u8,
            (frame_len << 5) as u8 | 0x1f,
            // The buffer's fullness is that of a variable rate: not told.
            0xfc | (blocks - 1),
        ]
    })
}

struct Adts {
    /// The first raw data block's first bytes, kept only while the header leaves the channels to them.
    prefix: ArrayVec<u8, PREFIX_LEN>,
    program: Option<ProgramConfig>,
}

#[derive(Clone, Copy)]
struct Details {
    object_type: u8,
    rate_index: u8,
    channel_configuration: u8,
    payload_from: usize,
}

impl Syntax for Adts {
    type Details = Details;

    const FIRST_BYTE: u8 = 0xff;
    const FRAME_LEN_MAX: usize = 0x1fff;

    fn header(&self, bytes: &[u8]) -> Verdict<Details> {
        match bytes {
            [] | [0xff] => return Verdict::More,
            // Syncword, any ID, layer 0.
            [0xff, second, ..] if second & 0xf6 == 0xf0 => {}
            _ => return Verdict::No,
        }
        let Some(&[_, b1, b2, b3, b4, b5, b6]) = bytes.first_chunk() else { return Verdict::More };
        let rate_index = b2 >> 2 & 0xf;
        let len = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5);
        let extra_blocks = usize::from(b6 & 3);
        let has_error_check = b1 & 1 == 0;
        let payload_from = HEADER_LEN + if has_error_check { 2 * extra_blocks + 2 } else { 0 };
        if sample_rate(rate_index).is_none() || len <= payload_from {
            return Verdict::No;
        }
        let mut stripped = Stripped::front(payload_from);
        if has_error_check && extra_blocks > 0 {
            // Each raw data block is followed by a checksum of its own, and the error check tells where the blocks start.
            let Some(positions) = bytes.get(HEADER_LEN..payload_from - 2) else { return Verdict::More };
            let mut after = payload_from;
            for position in positions.chunks_exact(2) {
                let start = payload_from + usize::from(u16::from_be_bytes([position[0], position[1]]));
                if start < after + 2 || start + 2 > len {
                    return Verdict::No;
                }
                stripped.add(start - 2, start);
                after = start;
            }
            stripped.add(len - 2, len);
        }
        Verdict::Yes(Header {
            len,
            stripped,
            samples: BLOCK_SAMPLES * (extra_blocks as u32 + 1),
            // All of the fixed header but the private bit, original/copy and home.
            identity: u32::from_be_bytes([0, b1, b2 & 0xfd, b3 & 0xc0]),
            details: Details {
                object_type: (b2 >> 6) + 1,
                rate_index,
                channel_configuration: (b2 & 1) << 2 | b3 >> 6,
                payload_from,
            },
        })
    }

    fn configure(&mut self, header: &Header<Details>, configuration: &mut TrackConfiguration) {
        let Details { object_type, rate_index, channel_configuration, .. } = header.details;
        if channel_configuration == 0 {
            self.prefix.clear();
            if self.program.is_none() {
                return;
            }
        } else {
            self.program = None;
        }
        let program = self.program.as_ref();
        let channels =
            channel_count(channel_configuration).filter(|&count| count > 0).or(program.map(|program| program.channels));
        let format = AudioFormat {
            sample_rate: sample_rate(rate_index).unwrap_or(0),
            channels: channels.unwrap_or(0),
            profile: profile_name(object_type),
        };
        let bytes = from_adts(object_type, rate_index, channel_configuration, program);
        set_configuration(configuration, &bytes, format);
    }

    fn see(&mut self, _offset: usize, bytes: &[u8]) {
        let count = bytes.len().min(self.prefix.remaining_capacity());
        self.prefix.extend(bytes[..count].iter().copied());
    }

    fn finish(&mut self, header: &Header<Details>, configuration: &mut TrackConfiguration) -> bool {
        if header.details.channel_configuration == 0 {
            // ID_PCE comes first in a raw data block that has one (ISO/IEC 14496-3 §4.5.2.1).
            let block = self.prefix.get(header.details.payload_from..).unwrap_or(&[]);
            let mut reader = BitReader::new(block);
            if reader.bits(3) == Some(5)
                && let Some(program) = ProgramConfig::read(&mut reader, 0)
                && self.program.as_ref() != Some(&program)
            {
                self.program = Some(program);
                self.configure(header, configuration);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::fuzzing_audio::{Collector, Unit, units_of};
    use crate::media::Format;

    fn frame(payload: &[u8], crc: bool, channels: u8) -> Vec<u8> {
        let len = payload.len() + if crc { 9 } else { 7 };
        let mut bytes = vec![
            0xff,
            0xf0 | u8::from(!crc),
            1 << 6 | 3 << 2 | channels >> 2,
            (channels & 3) << 6 | (len >> 11) as u8,
            (len >> 3) as u8,
            (len << 5) as u8 | 0x1f,
            0xfc,
        ];
        if crc {
            bytes.extend([0xab, 0xcd]);
        }
        bytes.extend(payload);
        bytes
    }

    fn payloads(units: &[Unit]) -> Vec<(u64, &[u8], bool)> {
        units.iter().map(|unit| (unit.position, &unit.bytes[..], unit.info.damaged)).collect()
    }

    #[test]
    fn a_header_written_is_read_back() {
        let config = AudioSpecificConfig::read(&mut BitReader::new(&[0x11, 0x90]), Some(16)).unwrap();
        let frame: Vec<u8> = (0..300).map(|i| i as u8).collect();
        let header = write_header(&config, 1, frame.len()).unwrap();
        assert_eq!(header, [0xff, 0xf1, 0x4c, 0x80, 0x26, 0x7f, 0xfc]);
        let mut framer = AdtsFramer::new();
        let (units, skipped) = units_of(&mut framer, &[&header[..], &frame].concat().repeat(2));
        assert_eq!((units.len(), skipped, &units[0].bytes), (2, 0, &frame));
        assert_eq!(framer.configuration().bytes, [0x11, 0x90]);
        assert_eq!(write_header(&config, 1, 8_192 - 7), None);
        assert_eq!(write_header(&AudioSpecificConfig { frame_samples: 960, ..config }, 1, 300), None);
        assert_eq!(write_header(&AudioSpecificConfig { object_type: 23, ..config }, 1, 300), None);
    }

    #[test]
    fn headers_are_stripped_with_and_without_checksum() {
        for (crc, header) in [(false, 7), (true, 9)] {
            let mut stream = frame(&[1; 20], crc, 2);
            stream.extend(frame(&[2; 30], crc, 2));
            let mut framer = AdtsFramer::new();
            let (units, skipped) = units_of(&mut framer, &stream);
            assert_eq!(payloads(&units), [(0, &[1; 20][..], false), (20 + header, &[2; 30][..], false)]);
            assert_eq!((skipped, units[0].info.samples), (0, 1024));
            let configuration = framer.configuration();
            assert_eq!((configuration.generation, &configuration.bytes[..]), (1, &[0x11, 0x90][..]));
            assert_eq!(
                configuration.format,
                Format::Audio(AudioFormat { sample_rate: 48_000, channels: 2, profile: "LC" })
            );
        }
    }

    #[test]
    fn blocks_with_checksums_of_their_own_are_joined() {
        // Two blocks of 4 bytes, each followed by 2 bytes of checksum.
        let block = [0, 6, 0xcc, 0xcc, 1, 1, 1, 1, 0xcc, 0xcc, 2, 2, 2, 2, 0xcc, 0xcc];
        let mut one = frame(&block, false, 2);
        one[1] &= 0xfe;
        one[6] |= 1;
        let stream = [&one[..], &one].concat();
        let (units, skipped) = units_of(&mut AdtsFramer::new(), &stream);
        assert_eq!(payloads(&units)[1], (23, &[1, 1, 1, 1, 2, 2, 2, 2][..], false));
        assert_eq!((skipped, units[0].info.samples), (0, 2048));
    }

    #[test]
    fn garbage_and_a_false_header_are_skipped_and_counted() {
        let mut stream = vec![0x12, 0xff, 0xf1, 0x4c, 0x80, 0x01, 0x9f, 0xfc, 0];
        let garbage = stream.len() as u64;
        stream.extend(frame(&[1; 20], false, 2));
        stream.extend(frame(&[2; 20], false, 2));
        let (units, skipped) = units_of(&mut AdtsFramer::new(), &stream);
        assert_eq!(payloads(&units), [(garbage, &[1; 20][..], false), (garbage + 27, &[2; 20][..], false)]);
        assert_eq!(u64::from(skipped), garbage);
    }

    #[test]
    fn a_frame_whose_successor_is_not_where_it_should_be_is_damaged() {
        let mut stream = [frame(&[1; 20], false, 2), frame(&[2; 20], false, 2)].concat();
        stream.extend(frame(&[3; 20], false, 2).drain(..25));
        stream.extend(frame(&[4; 20], false, 2));
        stream.extend(frame(&[5; 20], false, 2));
        let (units, skipped) = units_of(&mut AdtsFramer::new(), &stream);
        let damaged: Vec<_> = units.iter().map(|unit| (unit.bytes[0], unit.info.damaged)).collect();
        assert_eq!(damaged, [(1, false), (2, false), (3, true), (5, false)]);
        assert_eq!(skipped, 25, "what is left of the frame that was overrun");
    }

    #[test]
    fn a_frame_open_at_a_gap_is_damaged_and_the_next_is_taken_at_its_header() {
        let stream = [frame(&[1; 20], false, 2), frame(&[2; 20], false, 2)].concat();
        let mut framer = AdtsFramer::new();
        let mut collector = Collector::default();
        collector.push(&mut framer, &stream[..40]);
        framer.discontinuity();
        assert!(!framer.is_complete());
        collector.push(&mut framer, &frame(&[4; 20], false, 2));
        assert!(framer.is_complete());
        framer.discontinuity();
        collector.push(&mut framer, &frame(&[5; 20], false, 2));
        let ends: Vec<_> = collector.units.iter().map(|unit| (unit.bytes[0], unit.info.damaged)).collect();
        assert_eq!(ends, [(1, false), (2, true), (4, false)]);
        assert_eq!(framer.flush().map(|step| matches!(step, Step::End(info) if !info.damaged)), Some(true));
        assert_eq!(framer.flush(), None);
    }

    #[test]
    fn a_single_frame_is_accepted_on_flush_and_a_piece_of_one_is_not() {
        let whole = frame(&[7; 50], false, 2);
        assert_eq!(units_of(&mut AdtsFramer::new(), &whole).0.len(), 1);
        assert_eq!(units_of(&mut AdtsFramer::new(), &whole[..40]), (vec![], 40));
    }

    #[test]
    fn the_configuration_changes_once_when_the_sender_does() {
        let stream = [frame(&[1; 20], false, 2), frame(&[1; 20], false, 2), frame(&[2; 20], false, 6)].concat();
        let mut framer = AdtsFramer::new();
        let (units, skipped) = units_of(&mut framer, &stream);
        assert_eq!((units.len(), skipped), (3, 0));
        assert_eq!(units.iter().map(|unit| unit.generation).collect::<Vec<_>>(), [1, 1, 2]);
        assert!(units.iter().all(|unit| !unit.info.damaged));
    }

    #[test]
    fn channels_left_to_the_stream_come_from_its_program_configuration_element() {
        // ID_PCE (101), tag 0, LC, 48 kHz, 1 front, no others, no mixdown, one pair, aligned, no comment.
        let payload = [0b1010_0000, 0b1001_1000, 0b1000_0000, 0, 0b0000_0100, 0, 0, 0x21, 0x22];
        let one = frame(&payload, false, 0);
        let mut framer = AdtsFramer::new();
        let (units, _) = units_of(&mut framer, &[&one[..], &one].concat());
        assert_eq!(units.iter().map(|unit| unit.generation).collect::<Vec<_>>(), [1, 1]);
        let Format::Audio(format) = &framer.configuration().format else { panic!("audio") };
        assert_eq!((format.channels, framer.configuration().bytes.len()), (2, 8));
    }
}
