//! Opus in MPEG-TS, by Xiph's "Encapsulation of Opus in MPEG-2 Transport Streams" (draft 0.1.3), which encoders follow.

use arrayvec::ArrayVec;

use crate::media::{AudioFormat, TrackConfiguration};

use super::announced_length::{AnnouncedLengthFramer, Header, Stripped, Syntax, Verdict, set_configuration};
use super::{Framer, Step};

/// The longest packet believed: 120 ms (six frames of 1275 bytes) in each of the five streams of 7.1.
const PACKET_LEN_MAX: usize = 6 * 1276 * 5;
/// The rate that Opus counts time at (RFC 6716 §2).
const SAMPLE_RATE: u32 = 48_000;

/// Opus packets, published without the `opus_control_header` (its trim and extension fields included).
///
/// Trims are not taken off [`samples`](crate::media::AccessUnitInfo::samples): time stamps run on the untrimmed signal.
pub struct OpusFramer(AnnouncedLengthFramer<Opus>);

impl OpusFramer {
    /// Begins without synchronisation. `channel_configuration` is the PMT's `channel_config_code`; stereo without it.
    pub fn new(channel_configuration: Option<u8>) -> Self {
        Self(AnnouncedLengthFramer::new(Opus { channel_configuration: channel_configuration.unwrap_or(2) }))
    }
}

super::framer::delegate_framer!(OpusFramer);

struct Opus {
    channel_configuration: u8,
}

impl Syntax for Opus {
    type Details = ();

    const FIRST_BYTE: u8 = 0x7f;
    const FRAME_LEN_MAX: usize = PACKET_LEN_MAX + 512;

    fn header(&self, bytes: &[u8]) -> Verdict<()> {
        // control_header_prefix (11 bits, 0x3ff), start_trim_flag, end_trim_flag, control_extension_flag, reserved.
        let flags = match bytes {
            [] | [0x7f] => return Verdict::More,
            [0x7f, flags, ..] if flags & 0xe0 == 0xe0 => flags,
            _ => return Verdict::No,
        };
        let mut len = 0;
        let mut at = 2;
        loop {
            let Some(&part) = bytes.get(at) else { return Verdict::More };
            at += 1;
            len += usize::from(part);
            if len > PACKET_LEN_MAX {
                return Verdict::No;
            }
            if part != 0xff {
                break;
            }
        }
        at += if flags & 0x10 != 0 { 2 } else { 0 };
        at += if flags & 0x08 != 0 { 2 } else { 0 };
        if flags & 0x04 != 0 {
            let Some(&extension) = bytes.get(at) else { return Verdict::More };
            at += 1 + usize::from(extension);
        }
        let samples = match (len, bytes.get(at), bytes.get(at + 1)) {
            (0, ..) => return Verdict::No,
            (_, None, _) | (2.., _, None) => return Verdict::More,
            (_, Some(&toc), second) => packet_samples(toc, second.copied().filter(|_| len > 1)),
        };
        let Some(samples) = samples else { return Verdict::No };
        Verdict::Yes(Header { len: at + len, stripped: Stripped::front(at), samples, identity: 0, details: () })
    }

    fn configure(&mut self, _: &Header<()>, configuration: &mut TrackConfiguration) {
        let (head, channels) = opus_head(self.channel_configuration);
        set_configuration(configuration, &head, AudioFormat { sample_rate: SAMPLE_RATE, channels, profile: "" });
    }
}

/// Appends the `opus_control_header`, without trims and extensions, of a packet with `len` bytes.
pub fn write_control_header(len: usize, out: &mut Vec<u8>) {
    out.extend([0x7f, 0xe0]);
    out.resize(out.len() + len / 255, 255);
    out.push((len % 255) as u8);
}

/// The `channel_config_code` whose identification header this is; `None` when there is none.
pub fn channel_configuration(head: &[u8]) -> Option<u8> {
    (0..=8).chain(0x82..=0x88).find(|code| opus_head(*code).0[..] == *head)
}

/// Samples at 48 kHz in a packet, from its TOC byte and the byte behind it (RFC 6716 §3.1); `None` when longer than 120 ms.
pub fn packet_samples(toc: u8, second: Option<u8>) -> Option<u32> {
    let frame = match toc >> 3 {
        silk @ 0..=11 => [480, 960, 1920, 2880][usize::from(silk & 3)],
        hybrid @ 12..=15 => [480, 960][usize::from(hybrid & 1)],
        celt => [120, 240, 480, 960][usize::from(celt & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(second? & 0x3f),
    };
    (1..=SAMPLE_RATE / 1000 * 120).contains(&(frame * frames)).then_some(frame * frames)
}

/// The identification header (RFC 7845 §5.1) for a `channel_config_code`, and its number of channels.
///
/// Codes 1 to 8 are the Vorbis layouts of so many channels, 0 is dual mono in one coupled stream, 0x82 to 0x88 are as many separate channels. Others
/// need fields of the descriptor that are not given here, and are taken for stereo.
pub fn opus_head(channel_configuration: u8) -> (ArrayVec<u8, 32>, u8) {
    // Channels, streams, coupled streams, and the Vorbis order of channels (RFC 7845 §5.1.1.2).
    let (channels, streams, coupled, order): (u8, u8, u8, &[u8]) = match channel_configuration {
        0 => (2, 1, 1, &[0, 1]),
        1 => (1, 1, 0, &[]),
        3 => (3, 2, 1, &[0, 2, 1]),
        4 => (4, 2, 2, &[0, 1, 2, 3]),
        5 => (5, 3, 2, &[0, 4, 1, 2, 3]),
        6 => (6, 4, 2, &[0, 4, 1, 2, 3, 5]),
        7 => (7, 4, 3, &[0, 4, 1, 2, 3, 5, 6]),
        8 => (8, 5, 3, &[0, 6, 1, 2, 3, 4, 5, 7]),
        code @ 0x82..=0x88 => (code & 0xf, code & 0xf, 0, &[0, 1, 2, 3, 4, 5, 6, 7][..usize::from(code & 0xf)]),
        _ => (2, 1, 1, &[]),
    };
    let family = match channel_configuration {
        0 | 0x82..=0x88 => 255,
        3..=8 => 1,
        _ => 0,
    };
    let mut head = ArrayVec::new();
    head.extend(*b"OpusHead");
    head.extend([1, channels, 0, 0]);
    head.extend(SAMPLE_RATE.to_le_bytes());
    head.extend([0, 0, family]);
    if family != 0 {
        head.extend([streams, coupled]);
        head.extend(order.iter().copied());
    }
    (head, channels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::fuzzing_audio::units_of;
    use crate::media::Format;

    #[test]
    fn control_headers_go_with_their_trims_and_extensions() {
        // 20 ms of CELT, stereo: TOC 0xfc. Plain; start trim; both trims and an extension of three bytes.
        let stream = [
            &[0x7f, 0xe0, 4, 0xfc, 1, 2, 3][..],
            &[0x7f, 0xf0, 3, 0x01, 0x38, 0xfc, 4, 5],
            &[0x7f, 0xfc, 2, 0x01, 0x38, 0x00, 0x10, 3, 9, 9, 9, 0xfc, 6],
        ]
        .concat();
        let mut framer = OpusFramer::new(None);
        let (units, skipped) = units_of(&mut framer, &stream);
        let bytes: Vec<_> = units.iter().map(|unit| (unit.position, &unit.bytes[..], unit.info.samples)).collect();
        let expected: [(u64, &[u8], u32); 3] =
            [(0, &[0xfc, 1, 2, 3], 960), (7, &[0xfc, 4, 5], 960), (15, &[0xfc, 6], 960)];
        assert_eq!((&bytes[..], skipped), (&expected[..], 0));
        let format = AudioFormat { sample_rate: 48_000, channels: 2, profile: "" };
        assert_eq!(framer.configuration().format, Format::Audio(format));
        assert_eq!(framer.configuration().bytes, b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0");
    }

    #[test]
    fn long_packets_spell_their_length_in_several_bytes() {
        let mut stream = vec![0x7f, 0xe0, 255, 255, 90];
        stream.extend([0xfd; 600]);
        let (units, skipped) = units_of(&mut OpusFramer::new(Some(6)), &stream);
        assert_eq!((units[0].bytes.len(), units[0].info.samples, skipped), (600, 1920, 0));
    }

    #[test]
    fn a_control_header_written_is_read_back() {
        for len in [4, 254, 255, 600] {
            let mut stream = Vec::new();
            write_control_header(len, &mut stream);
            stream.extend(vec![0xfc; len]);
            let (units, skipped) = units_of(&mut OpusFramer::new(None), &stream);
            assert_eq!((units[0].bytes.len(), skipped), (len, 0));
        }
        assert_eq!(channel_configuration(&opus_head(6).0), Some(6));
        assert_eq!(channel_configuration(&opus_head(2).0), Some(2));
        assert_eq!(channel_configuration(b"OpusHead"), None);
    }

    #[test]
    fn durations_follow_the_toc() {
        for (toc, second, samples) in [
            (0x18, None, Some(2880)),       // SILK, 60 ms
            (0x60, None, Some(480)),        // hybrid, 10 ms
            (0xe1, None, Some(240)),        // CELT, twice 2.5 ms
            (0xfb, Some(0x03), Some(2880)), // CELT, 3 × 20 ms
            (0xfb, Some(0x07), None),       // 140 ms
            (0xfb, Some(0x00), None),
            (0xfb, None, None),
        ] {
            assert_eq!(packet_samples(toc, second), samples, "{toc:#x}");
        }
    }

    #[test]
    fn five_point_one_has_its_channel_mapping() {
        let (head, channels) = opus_head(6);
        assert_eq!((channels, &head[18..]), (6, &[1, 4, 2, 0, 4, 1, 2, 3, 5][..]));
    }
}
