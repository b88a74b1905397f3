//! MPEG audio: layers I to III of MPEG-1 (ISO/IEC 11172-3), MPEG-2 (ISO/IEC 13818-3) and "MPEG-2.5".

use arrayvec::ArrayVec;

use crate::base::bits::BitReader;
use crate::media::{AudioFormat, TrackConfiguration};

use super::announced_length::{AnnouncedLengthFramer, Header, Stripped, Syntax, Verdict, set_configuration};
use super::crc16::{crc16, crc16_bits};
use super::{Framer, Step};

/// Frames of MPEG audio, published whole. A frame whose checksum (when it has one) does not hold is marked damaged.
///
/// Free format, whose headers announce no length, is skipped as garbage.
pub struct Mp2Framer(AnnouncedLengthFramer<MpegAudio>);

impl Mp2Framer {
    /// Begins without synchronisation.
    pub fn new() -> Self {
        Self(AnnouncedLengthFramer::new(MpegAudio { prefix: ArrayVec::new() }))
    }
}

impl Default for Mp2Framer {
    fn default() -> Self {
        Self::new()
    }
}

super::framer::delegate_framer!(Mp2Framer);

struct MpegAudio {
    /// The frame's first bytes, up to the end of what its checksum protects.
    prefix: ArrayVec<u8, PROTECTED_END_MAX>,
}

/// Layer II protects most: 6 bytes, 188 bits of allocation, 120 bits of scale factor selection.
const PROTECTED_END_MAX: usize = 48;

#[derive(Clone, Copy)]
struct Details {
    version: Version,
    layer: u8,
    sample_rate: u32,
    bit_rate: u32,
    channels: u8,
    /// First subband in which both channels share their samples' allocation (`mode_extension`); 32 when none does.
    bound: u32,
    protected: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Mpeg1,
    Mpeg2,
    Mpeg25,
}

/// kbit/s by `bitrate_index` (ISO/IEC 11172-3 §2.4.2.3, ISO/IEC 13818-3 §2.4.2.3).
const BIT_RATES: [[u16; 14]; 5] = [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

impl Syntax for MpegAudio {
    type Details = Details;

    const FIRST_BYTE: u8 = 0xff;
    /// Layer II at 384 kbit/s and 32 kHz takes 1728 bytes; layer II at 160 kbit/s and 8 kHz takes 2880.
    const FRAME_LEN_MAX: usize = 2881;

    fn header(&self, bytes: &[u8]) -> Verdict<Details> {
        match bytes {
            [] | [0xff] => return Verdict::More,
            [0xff, second, ..] if second & 0xe0 == 0xe0 => {}
            _ => return Verdict::No,
        }
        let Some(&[_, b1, b2, b3]) = bytes.first_chunk() else { return Verdict::More };
        let version = match b1 >> 3 & 3 {
            0 => Version::Mpeg25,
            2 => Version::Mpeg2,
            3 => Version::Mpeg1,
            _ => return Verdict::No,
        };
        let layer = 4 - (b1 >> 1 & 3);
        let rates = match (version, layer) {
            (_, 4) => return Verdict::No,
            (Version::Mpeg1, layer) => &BIT_RATES[usize::from(layer) - 1],
            (_, 1) => &BIT_RATES[3],
            (..) => &BIT_RATES[4],
        };
        let (index, rate_index) = (usize::from(b2 >> 4), usize::from(b2 >> 2 & 3));
        if !(1..=14).contains(&index) || rate_index == 3 {
            return Verdict::No;
        }
        let bit_rate = u32::from(rates[index - 1]) * 1000;
        let sample_rate = [44_100, 48_000, 32_000][rate_index]
            >> match version {
                Version::Mpeg1 => 0,
                Version::Mpeg2 => 1,
                Version::Mpeg25 => 2,
            };
        let padding = u32::from(b2 >> 1 & 1);
        let (len, samples) = match (layer, version) {
            (1, _) => ((12 * bit_rate / sample_rate + padding) * 4, 384),
            (3, Version::Mpeg2 | Version::Mpeg25) => (72 * bit_rate / sample_rate + padding, 576),
            _ => (144 * bit_rate / sample_rate + padding, 1152),
        };
        let mode = b3 >> 6;
        Verdict::Yes(Header {
            len: len as usize,
            stripped: Stripped::default(),
            samples,
            // Version, layer and sampling frequency; bit rate, mode and protection may change from frame to frame.
            identity: u32::from_be_bytes([0, 0, b1 & 0xfe, b2 & 0x0c]),
            details: Details {
                version,
                layer,
                sample_rate,
                bit_rate,
                channels: if mode == 3 { 1 } else { 2 },
                bound: if mode == 1 { 4 + 4 * u32::from(b3 >> 4 & 3) } else { 32 },
                protected: b1 & 1 == 0,
            },
        })
    }

    fn configure(&mut self, header: &Header<Details>, configuration: &mut TrackConfiguration) {
        let Details { sample_rate, channels, layer, .. } = header.details;
        let profile = ["Layer I", "Layer II", "Layer III"][usize::from(layer) - 1];
        set_configuration(configuration, &[], AudioFormat { sample_rate, channels, profile });
    }

    fn see(&mut self, offset: usize, bytes: &[u8]) {
        if offset == 0 {
            self.prefix.clear();
        }
        let count = bytes.len().min(self.prefix.remaining_capacity());
        self.prefix.extend(bytes[..count].iter().copied());
    }

    fn finish(&mut self, header: &Header<Details>, _: &mut TrackConfiguration) -> bool {
        let details = &header.details;
        if !details.protected {
            return true;
        }
        let &[_, _, b2, b3, high, low, ref body @ ..] = &self.prefix[..] else { return false };
        let Some(bits) = protected_bits(details, body) else { return false };
        let (whole, rest) = (bits as usize / 8, bits % 8);
        let Some(covered) = body.get(..whole) else { return false };
        let crc = crc16(crc16(0xffff, &[b2, b3]), covered);
        let crc = match (rest, body.get(whole)) {
            (0, _) => crc,
            (_, Some(&byte)) => crc16_bits(crc, byte, rest),
            (_, None) => return false,
        };
        crc == u16::from_be_bytes([high, low])
    }
}

/// How many bits behind the checksum it protects (ISO/IEC 11172-3 §2.4.3.1); `None` when the frame is too short.
fn protected_bits(details: &Details, body: &[u8]) -> Option<u32> {
    let channels = u32::from(details.channels);
    match details.layer {
        // Four bits of allocation per subband and channel.
        1 => Some(4 * if channels == 1 { 32 } else { 32 + details.bound.min(32) }),
        2 => layer_two_protected_bits(details, body),
        // The side information.
        _ => Some(match (details.version, channels) {
            (Version::Mpeg1, 1) => 17 * 8,
            (Version::Mpeg1, _) => 32 * 8,
            (_, 1) => 9 * 8,
            _ => 17 * 8,
        }),
    }
}

/// Allocation, and two bits of scale factor selection for each allocation that is not zero.
fn layer_two_protected_bits(details: &Details, body: &[u8]) -> Option<u32> {
    let channels = u32::from(details.channels);
    let per_channel = details.bit_rate / channels;
    // ISO/IEC 11172-3 tables B.2a to B.2d, ISO/IEC 13818-3 table B.1: number of subbands, and where `nbal` falls.
    let (subbands, widths): (u32, &[(u32, u32)]) = if details.version != Version::Mpeg1 {
        (30, &[(4, 4), (11, 3), (32, 2)])
    } else if per_channel <= 48_000 {
        (if details.sample_rate == 32_000 { 12 } else { 8 }, &[(2, 4), (32, 3)])
    } else {
        (if details.sample_rate == 48_000 || per_channel <= 80_000 { 27 } else { 30 }, &[(11, 4), (23, 3), (32, 2)])
    };
    let mut reader = BitReader::new(body);
    let mut selections = 0;
    for subband in 0..subbands {
        let width = widths.iter().find(|&&(below, _)| subband < below)?.1;
        let shared = subband >= details.bound;
        for _ in 0..if shared { 1 } else { channels } {
            if reader.bits(width)? != 0 {
                selections += if shared { channels } else { 1 };
            }
        }
    }
    Some(reader.position() as u32 + 2 * selections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::fuzzing_audio::units_of;
    use crate::media::Format;

    fn frame(header: [u8; 4], len: usize) -> Vec<u8> {
        let mut bytes = header.to_vec();
        bytes.resize(len, 0x55);
        bytes
    }

    #[test]
    fn frame_lengths_follow_layer_rate_and_padding() {
        for (header, len, samples, rate, profile) in [
            ([0xff, 0xfd, 0xa4, 0x04], 576, 1152, 48_000, "Layer II"), // 192 kbit/s
            ([0xff, 0xfd, 0xa0, 0x04], 626, 1152, 44_100, "Layer II"),
            ([0xff, 0xfd, 0xa2, 0x04], 627, 1152, 44_100, "Layer II"), // padded
            ([0xff, 0xfb, 0x90, 0x44], 417, 1152, 44_100, "Layer III"), // 128 kbit/s
            ([0xff, 0xf3, 0x84, 0x44], 192, 576, 24_000, "Layer III"), // 64 kbit/s
            ([0xff, 0xff, 0xc4, 0x04], 384, 384, 48_000, "Layer I"),   // 384 kbit/s
            ([0xff, 0xe3, 0x88, 0x44], 576, 576, 8_000, "Layer III"),  // MPEG-2.5, 64 kbit/s
        ] {
            let one = frame(header, len);
            let mut framer = Mp2Framer::new();
            let (units, skipped) = units_of(&mut framer, &[&one[..], &one].concat());
            assert_eq!((units.len(), skipped), (2, 0), "{header:02x?}");
            assert_eq!((&units[0].bytes, units[0].info.samples), (&one, samples));
            assert_eq!(
                framer.configuration().format,
                Format::Audio(AudioFormat { sample_rate: rate, channels: 2, profile })
            );
        }
    }

    #[test]
    fn reserved_values_and_free_format_are_no_headers() {
        for header in [
            [0xff, 0xed, 0xa4, 0x04], // version
            [0xff, 0xf9, 0xa4, 0x04], // layer
            [0xff, 0xfd, 0x04, 0x04], // free format
            [0xff, 0xfd, 0xf4, 0x04], // bit rate
            [0xff, 0xfd, 0xac, 0x04], // sampling frequency
        ] {
            let one = frame(header, 576);
            let (units, skipped) = units_of(&mut Mp2Framer::new(), &[&one[..], &one].concat());
            assert_eq!((units.len(), skipped), (0, 1152), "{header:02x?}");
        }
    }

    #[test]
    fn a_checksum_that_does_not_hold_marks_the_frame_damaged() {
        let mut one = frame([0xff, 0xfa, 0x94, 0x44], 384);
        let crc = crc16(crc16(0xffff, &one[2..4]), &one[6..38]);
        one[4..6].copy_from_slice(&crc.to_be_bytes());
        let mut bad = one.clone();
        bad[37] ^= 1;
        let mut spared = one.clone();
        spared[38] ^= 1;
        let (units, _) = units_of(&mut Mp2Framer::new(), &[one, bad, spared].concat());
        assert_eq!(units.iter().map(|unit| unit.info.damaged).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn the_bit_rate_may_change_within_a_stream() {
        let stream = [frame([0xff, 0xfd, 0xa4, 4], 576), frame([0xff, 0xfd, 0x84, 4], 384)].concat();
        let mut framer = Mp2Framer::new();
        let (units, skipped) = units_of(&mut framer, &stream);
        assert_eq!((units.len(), skipped, framer.configuration().generation), (2, 0, 1));
        assert!(units.iter().all(|unit| !unit.info.damaged));
    }
}
