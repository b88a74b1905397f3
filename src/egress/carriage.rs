//! Frames as they stand in rings, and as containers want them.

use std::borrow::Cow;

use crate::base::bits::BitReader;
use crate::codec::aac::adts;
use crate::codec::aac::config::AudioSpecificConfig;
use crate::codec::framer::{AnyFramer, FramerHints};
use crate::codec::nal_syntax::{units, write_with_lengths};
use crate::codec::{Framer, h264, hevc, opus};
use crate::container::matroska::{Details, MatroskaTrack};
use crate::container::mpegts::{MuxTrack, crc32};
use crate::media::{Codec, Format, TrackConfiguration, TrackKind};

/// A delimiter that allows for slices of any type (H.264 §7.3.2.4, H.265 §7.3.2.5), with its start code.
const H264_DELIMITER: [u8; 6] = [0, 0, 0, 1, 0x09, 0xf0];
const HEVC_DELIMITER: [u8; 7] = [0, 0, 0, 1, 0x46, 0x01, 0x50];
/// The 33 bits of a time stamp.
const PTS_MASK: u64 = (1 << 33) - 1;
/// Bytes of the CRC at a section's end.
const CRC_LEN: usize = 4;

/// The track of a PMT. `configuration` is the ring's block, if there is one yet.
pub fn mpegts_track(pid: u16, codec: Codec, language: Option<[u8; 3]>, configuration: &[u8]) -> MuxTrack {
    // What came in LATM is raw in the ring, and ADTS is what every receiver knows.
    let codec = if codec == Codec::AacLatm { Codec::AacAdts } else { codec };
    if codec.kind() == TrackKind::Data && !configuration.is_empty() {
        // The descriptors as the source had them: pages and languages stand in them.
        return MuxTrack { descriptors: configuration.to_vec(), ..MuxTrack::new(pid, codec) };
    }
    let channels = opus::channel_configuration(configuration);
    MuxTrack { language, opus_channel_configuration: channels.unwrap_or(2), ..MuxTrack::new(pid, codec) }
}

/// A frame as a PES packet of a transport stream carries it; `None` when it cannot be carried.
///
/// Access units get the delimiter that H.222.0 §2.14 and §2.17 ask for, and random access points the parameter sets, where RTP
/// left them out. `samples` is what the frame lasts, in samples per channel; 0 unknown.
pub fn mpegts_frame<'a>(
    codec: Codec,
    configuration: &[u8],
    key: bool,
    samples: u32,
    frame: &'a [u8],
) -> Option<Cow<'a, [u8]>> {
    match codec {
        Codec::H264 => {
            let unit_type = |unit: &[u8]| unit[0] & 0x1f;
            let first = units(frame).next().map(unit_type);
            let delimiter = if first == Some(h264::nal::DELIMITER) { &[][..] } else { &H264_DELIMITER };
            let lacks_sets = key && !units(frame).any(|unit| unit_type(unit) == h264::nal::SPS);
            Some(completed(delimiter, if lacks_sets { configuration } else { &[] }, frame))
        }
        Codec::Hevc => {
            let unit_type = |unit: &[u8]| unit[0] >> 1 & 0x3f;
            let first = units(frame).next().map(unit_type);
            let delimiter = if first == Some(hevc::nal::DELIMITER) { &[][..] } else { &HEVC_DELIMITER };
            let lacks_sets = key && !units(frame).any(|unit| unit_type(unit) == hevc::nal::SPS);
            Some(completed(delimiter, if lacks_sets { configuration } else { &[] }, frame))
        }
        Codec::AacAdts | Codec::AacLatm => {
            let config = audio_specific_config(configuration)?;
            let blocks = u8::try_from((samples / config.frame_samples).max(1)).ok()?;
            let header = adts::write_header(&config, blocks, frame.len())?;
            Some(Cow::Owned([&header[..], frame].concat()))
        }
        Codec::Opus => {
            let mut out = Vec::with_capacity(frame.len() + 16);
            opus::write_control_header(frame.len(), &mut out);
            out.extend_from_slice(frame);
            Some(Cow::Owned(out))
        }
        _ => Some(Cow::Borrowed(frame)),
    }
}

/// A splice information section whose stream's time stamps are moved by `offset` ticks of 90 kHz: `pts_adjustment` says so to whoever
/// reads the times in it (SCTE 35 §9.6.1).
///
/// It stands in the clear in encrypted sections too, and CRC_32 is that of the section as it is sent, so that both can be written anew
/// without the key. What is no such section, or not whole, stays as it is.
pub fn splice_section(section: &[u8], offset: i64) -> Cow<'_, [u8]> {
    const TABLE_ID: u8 = 0xfc;
    const ADJUSTMENT: std::ops::Range<usize> = 4..9;
    let ticks = offset.rem_euclid(1 << 33) as u64;
    let is_whole = section.len() >= ADJUSTMENT.end + CRC_LEN && section[0] == TABLE_ID && crc32(section) == 0;
    if ticks == 0 || !is_whole {
        return Cow::Borrowed(section);
    }
    let mut section = section.to_vec();
    // Its 33 bits begin behind those of `encrypted_packet` and `encryption_algorithm`.
    let mut word = [0; 8];
    word[3..].copy_from_slice(&section[ADJUSTMENT]);
    let fields = u64::from_be_bytes(word);
    let adjustment = (fields + ticks) & PTS_MASK;
    section[ADJUSTMENT].copy_from_slice(&(fields & !PTS_MASK | adjustment).to_be_bytes()[3..]);
    let crc_at = section.len() - CRC_LEN;
    let crc = crc32(&section[..crc_at]);
    section[crc_at..].copy_from_slice(&crc.to_be_bytes());
    Cow::Owned(section)
}

/// The missing units go behind the delimiter, if there is one.
fn completed<'a>(delimiter: &[u8], sets: &[u8], frame: &'a [u8]) -> Cow<'a, [u8]> {
    if delimiter.is_empty() && sets.is_empty() {
        return Cow::Borrowed(frame);
    }
    let own_delimiter = if delimiter.is_empty() { first_unit_len(frame) } else { 0 };
    let (front, rest) = frame.split_at(own_delimiter);
    Cow::Owned([delimiter, front, sets, rest].concat())
}

/// Bytes up to the start code of the second unit.
fn first_unit_len(frame: &[u8]) -> usize {
    let Some(second) = units(frame).nth(1) else { return frame.len() };
    // Both are slices of the frame: the distance of their fronts is an offset into it.
    let body = second.as_ptr() as usize - frame.as_ptr() as usize;
    let prefix = body - 3;
    prefix - usize::from(prefix > 0 && frame[prefix - 1] == 0)
}

/// The entry of a Matroska file; an error that says why there is none. `frame` is one that decoding can start at.
pub fn matroska_track(
    codec: Codec,
    language: Option<[u8; 3]>,
    configuration: &[u8],
    frame: &[u8],
) -> Result<MatroskaTrack, &'static str> {
    const UNKNOWN: &str = "its parameters are not known yet";
    let learned = || learn(codec, configuration, frame);
    let (codec_id, codec_private, format) = match codec {
        Codec::H264 => {
            let learned = learned();
            let record = h264::configuration_record::configuration_record(&learned.bytes).ok_or(UNKNOWN)?;
            ("V_MPEG4/ISO/AVC", record, learned.format)
        }
        Codec::Hevc => {
            let learned = learned();
            let record = hevc::configuration_record::configuration_record(&learned.bytes).ok_or(UNKNOWN)?;
            ("V_MPEGH/ISO/HEVC", record, learned.format)
        }
        Codec::Mpeg2Video => {
            let learned = learned();
            ("V_MPEG2", learned.bytes, learned.format)
        }
        Codec::AacAdts | Codec::AacLatm => {
            let config = audio_specific_config(configuration).ok_or(UNKNOWN)?;
            let details = Details::Audio { sample_rate: config.sample_rate, channels: config.channels };
            let codec_private = configuration.to_vec();
            return Ok(MatroskaTrack { codec_id: "A_AAC", codec_private, language, details });
        }
        Codec::Opus => {
            let head = if configuration.is_empty() { opus::opus_head(2).0.to_vec() } else { configuration.to_vec() };
            let details = Details::Audio { sample_rate: 48_000, channels: head.get(9).copied().unwrap_or(2) };
            return Ok(MatroskaTrack { codec_id: "A_OPUS", codec_private: head, language, details });
        }
        Codec::Mp2 => {
            let layer = frame.get(1).map_or(0, |byte| byte >> 1 & 3);
            let codec_id = ["", "A_MPEG/L3", "A_MPEG/L2", "A_MPEG/L1"][usize::from(layer)];
            (codec_id, Vec::new(), learned().format)
        }
        Codec::Ac3 => ("A_AC3", Vec::new(), learned().format),
        Codec::Eac3 => ("A_EAC3", Vec::new(), learned().format),
        _ => return Err("Matroska has no place for it"),
    };
    let details = match format {
        Format::Unknown => return Err(UNKNOWN),
        Format::Video(video) => Details::Video {
            width: video.width,
            height: video.height,
            display_width: video
                .sample_aspect_ratio
                .map(|ratio| (f64::from(video.width) * ratio.as_f64()).round() as u32)
                .filter(|width| *width > 0 && *width != video.width),
            interlaced: video.scan == crate::media::Scan::Interlaced,
        },
        Format::Audio(audio) => Details::Audio { sample_rate: audio.sample_rate, channels: audio.channels },
    };
    Ok(MatroskaTrack { codec_id, codec_private, language, details })
}

/// A frame as a block of Matroska carries it.
pub fn matroska_frame(codec: Codec, frame: &[u8]) -> Cow<'_, [u8]> {
    match codec {
        Codec::H264 | Codec::Hevc => {
            let mut out = Vec::with_capacity(frame.len() + 64);
            write_with_lengths(frame, &mut out);
            Cow::Owned(out)
        }
        _ => Cow::Borrowed(frame),
    }
}

/// What a track's parameters and a frame tell of it.
fn learn(codec: Codec, configuration: &[u8], frame: &[u8]) -> TrackConfiguration {
    let mut framer = AnyFramer::new(codec, FramerHints::default());
    // A second time: an announced length is believed once the next frame begins where it says.
    for bytes in [configuration, frame, frame] {
        let mut input = bytes;
        while framer.push(&mut input).is_some() {}
    }
    while framer.flush().is_some() {}
    framer.configuration().clone()
}

/// Samples per second that an AudioSpecificConfig tells.
pub fn sample_rate(configuration: &[u8]) -> Option<u32> {
    audio_specific_config(configuration).map(|config| config.sample_rate)
}

fn audio_specific_config(bytes: &[u8]) -> Option<AudioSpecificConfig> {
    AudioSpecificConfig::read(&mut BitReader::new(bytes), Some(bytes.len() * 8)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETS: &[u8] = &[0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3];

    #[test]
    fn delimiters_and_parameter_sets_are_added_where_they_lack() {
        let idr: &[u8] = &[0, 0, 0, 1, 0x65, 9, 9];
        let frame = |key, frame| mpegts_frame(Codec::H264, SETS, key, 0, frame).unwrap().into_owned();
        assert_eq!(frame(true, idr), [&H264_DELIMITER[..], SETS, idr].concat());
        assert_eq!(frame(false, idr), [&H264_DELIMITER[..], idr].concat());
        let delimited = [&H264_DELIMITER[..], idr].concat();
        assert_eq!(frame(true, &delimited), [&H264_DELIMITER[..], SETS, idr].concat());
        let whole = [&H264_DELIMITER[..], SETS, idr].concat();
        assert_eq!(frame(true, &whole), whole);
        let hevc = mpegts_frame(Codec::Hevc, &[], false, 0, &[0, 0, 1, 2, 1, 5]).unwrap();
        assert_eq!(hevc[..], [&HEVC_DELIMITER[..], &[0, 0, 1, 2, 1, 5]].concat());
    }

    #[test]
    fn sound_gets_the_headers_that_were_taken_off() {
        let aac = mpegts_frame(Codec::AacAdts, &[0x11, 0x90], true, 2_048, &[1, 2, 3]).unwrap();
        assert_eq!(aac[..], [0xff, 0xf1, 0x4c, 0x80, 0x01, 0x5f, 0xfd, 1, 2, 3]);
        assert_eq!(mpegts_frame(Codec::AacLatm, &[], true, 1_024, &[1, 2, 3]), None);
        let opus = mpegts_frame(Codec::Opus, &[], true, 960, &[0xfc, 1]).unwrap();
        assert_eq!(opus[..], [0x7f, 0xe0, 2, 0xfc, 1]);
        assert_eq!(mpegts_frame(Codec::Ac3, &[], true, 0, &[1]), Some(Cow::Borrowed(&[1][..])));
    }

    #[test]
    fn a_splice_section_tells_by_how_much_its_times_are_moved() {
        let sealed = |bytes: &[u8]| [bytes, &crc32(bytes).to_be_bytes()].concat();
        // splice_null(), encrypted by algorithm 0x15 in the second, of which all but the command stands in the clear.
        let clear = |adjustment: [u8; 5]| {
            sealed(&[&[0xfc, 0x30, 0x11, 0][..], &adjustment, &[0, 0xff, 0xf0, 0, 0, 0, 0]].concat())
        };
        for (before, offset, after) in [
            ([0, 0, 0, 0, 0], 90_000, [0, 0, 1, 0x5f, 0x90]),
            ([0, 0, 0, 0, 1], -2, [1, 0xff, 0xff, 0xff, 0xff]),
            ([1, 0xff, 0xff, 0xff, 0xff], 3, [0, 0, 0, 0, 2]),
            ([0xaa, 0, 0, 0, 5], 1 << 32 | 1 << 40, [0xab, 0, 0, 0, 5]),
            ([0xab, 0xff, 0xff, 0xff, 0xff], 1, [0xaa, 0, 0, 0, 0]),
            ([0, 0, 0, 0, 7], 5 << 33, [0, 0, 0, 0, 7]),
        ] {
            let section = splice_section(&clear(before), offset).into_owned();
            assert_eq!(section, clear(after), "{before:02x?} by {offset}");
            assert_eq!(crc32(&section), 0);
        }
        // Another table, a wrong CRC, and one that ends early.
        let mut wrong = clear([0; 5]);
        wrong[10] ^= 1;
        for section in [sealed(&[0xc0; 17]), wrong, sealed(&[0xfc, 0x30, 9, 0, 0, 0, 0, 0]), Vec::new()] {
            assert_eq!(splice_section(&section, 90_000), section);
        }
    }

    #[test]
    fn what_matroska_does_not_carry_is_said() {
        let no_place = matroska_track(Codec::Scte35, None, &[], &[]).unwrap_err();
        assert_eq!(no_place, "Matroska has no place for it");
        assert!(matroska_track(Codec::H264, None, &[], &[0, 0, 1, 0x65]).is_err());
        assert!(matroska_track(Codec::Mp2, None, &[], &[]).is_err());
        let aac = matroska_track(Codec::AacAdts, Some(*b"deu"), &[0x11, 0x90], &[]).unwrap();
        assert_eq!((aac.codec_id, &aac.codec_private[..]), ("A_AAC", &[0x11, 0x90][..]));
        assert_eq!(aac.details, Details::Audio { sample_rate: 48_000, channels: 2 });
    }
}
