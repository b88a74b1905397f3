//! What a codec of the ring is called in GStreamer.

use gstreamer as gst;
use gstreamer_pbutils as pbutils;
use headworks_frame_ring::layout::TrackKind;

/// What is neither named here nor anywhere in GStreamer; its field `codec` has the four characters of the ring.
const UNNAMED: &str = "application/x-headworks-data";

/// The caps that pads of a kind can have.
pub fn template(kind: TrackKind) -> gst::Caps {
    let names: &[&str] = match kind {
        TrackKind::Video => &[
            "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au",
            "video/x-h265, stream-format=(string)byte-stream, alignment=(string)au",
            "video/mpeg, mpegversion=(int)[1, 2], systemstream=(boolean)false, parsed=(boolean)true",
        ],
        TrackKind::Audio => &[
            "audio/mpeg, mpegversion=(int)4, stream-format=(string)raw, framed=(boolean)true",
            "audio/mpeg, mpegversion=(int)1, layer=(int)[1, 3], parsed=(boolean)true",
            "audio/x-ac3, framed=(boolean)true, alignment=(string)frame",
            "audio/x-eac3, framed=(boolean)true, alignment=(string)frame",
            "audio/x-opus, channel-mapping-family=(int)[0, 255]",
            "audio/x-smpte-302m",
        ],
        TrackKind::Transport => {
            &["video/mpegts, systemstream=(boolean)true, packetsize=(int)188, parsed=(boolean)true"]
        }
        TrackKind::Data | TrackKind::Unknown => {
            &["meta/x-klv, parsed=(boolean)true", "application/x-teletext", "subpicture/x-dvb"]
        }
    };
    let text = format!("{}; {UNNAMED}", names.join("; "));
    text.parse().expect("the caps above are well-formed")
}

/// The caps of a track; `None` when a configuration block or a frame must come first.
pub fn of_track(kind: TrackKind, codec: [u8; 4], configuration: &[u8], frame: Option<&[u8]>) -> Option<gst::Caps> {
    let annex_b =
        |name: &str| gst::Caps::builder(name).field("stream-format", "byte-stream").field("alignment", "au").build();
    let framed = |name: &str| gst::Caps::builder(name).field("framed", true).field("alignment", "frame").build();
    Some(match &codec {
        b"h264" => annex_b("video/x-h264"),
        b"hevc" => annex_b("video/x-h265"),
        b"mpg2" => gst::Caps::builder("video/mpeg")
            .field("mpegversion", mpeg_version(configuration))
            .field("systemstream", false)
            .field("parsed", true)
            .build(),
        b"aac " => return aac(configuration),
        b"mp2 " => return frame.and_then(mpeg_audio),
        b"ac-3" => framed("audio/x-ac3"),
        b"ec-3" => framed("audio/x-eac3"),
        b"opus" => return opus(configuration),
        b"s302" => gst::Caps::new_empty_simple("audio/x-smpte-302m"),
        b"klv " => gst::Caps::builder("meta/x-klv").field("parsed", true).build(),
        b"ttxt" => gst::Caps::new_empty_simple("application/x-teletext"),
        b"dvbs" => gst::Caps::new_empty_simple("subpicture/x-dvb"),
        _ if kind == TrackKind::Transport => gst::Caps::builder("video/mpegts")
            .field("systemstream", true)
            .field("packetsize", 188)
            .field("parsed", true)
            .build(),
        _ => gst::Caps::builder(UNNAMED).field("codec", String::from_utf8_lossy(&codec).trim_end()).build(),
    })
}

/// What the caps of a track follow from: while it stays the same, so do they.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Basis {
    generation: u32,
    header: [u8; 4],
}

/// The basis for a frame that has this configuration.
pub fn basis(codec: [u8; 4], generation: u32, frame: &[u8]) -> Basis {
    let mut header = [0; 4];
    if &codec == b"mp2 "
        && let Some(&[b0, b1, b2, b3]) = frame.first_chunk()
    {
        // Version, layer, sampling frequency, mode: bit rate and padding change from frame to frame.
        header = [b0, b1 & 0xfe, b2 & 0x0c, b3 & 0xc0];
    }
    Basis { generation, header }
}

/// A sequence header without a sequence extension (start code 0xB5) is MPEG-1 (H.262 §6.1.1.6).
fn mpeg_version(configuration: &[u8]) -> i32 {
    let is_mpeg1 = !configuration.is_empty() && !configuration.windows(4).any(|code| code == [0, 0, 1, 0xb5]);
    if is_mpeg1 { 1 } else { 2 }
}

/// Raw AAC frames; the configuration is the AudioSpecificConfig.
fn aac(configuration: &[u8]) -> Option<gst::Caps> {
    if configuration.len() < 2 {
        return None;
    }
    let mut caps = gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 4)
        .field("stream-format", "raw")
        .field("framed", true)
        .field("codec_data", gst::Buffer::from_slice(configuration.to_vec()))
        .build();
    let writable = caps.make_mut();
    // A decoder reads the configuration itself: what cannot be told here is left out.
    let _ = pbutils::codec_utils_aac_caps_set_level_and_profile(writable, configuration);
    let rate = pbutils::codec_utils_aac_get_sample_rate(configuration);
    let channels = pbutils::codec_utils_aac_get_channels(configuration);
    for (name, value) in [("rate", rate), ("channels", channels)] {
        if let Some(value) = i32::try_from(value).ok().filter(|&value| value > 0) {
            writable.set(name, value);
        }
    }
    Some(caps)
}

/// The header of a frame of MPEG audio (ISO/IEC 11172-3 §2.4.2.3, 13818-3 §2.4.2.3; version 3 is "MPEG-2.5").
fn mpeg_audio(frame: &[u8]) -> Option<gst::Caps> {
    let &[0xff, b1, b2, b3] = frame.first_chunk()? else { return None };
    let (version, halvings) = match b1 & 0xf8 {
        0xf8 => (1, 0),
        0xf0 => (2, 1),
        0xe0 => (3, 2),
        _ => return None,
    };
    let layer = 4 - i32::from(b1 >> 1 & 3);
    let rate = *[44_100, 48_000, 32_000].get(usize::from(b2 >> 2 & 3))? >> halvings;
    let channels = if b3 >> 6 == 3 { 1 } else { 2 };
    (layer < 4).then(|| {
        gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 1)
            .field("mpegaudioversion", version)
            .field("layer", layer)
            .field("rate", rate)
            .field("channels", channels)
            .field("parsed", true)
            .build()
    })
}

/// Opus packets; the configuration is an identification header (RFC 7845 §5.1).
fn opus(head: &[u8]) -> Option<gst::Caps> {
    let fields = head.strip_prefix(b"OpusHead")?;
    let (&channels, &family) = (fields.get(1)?, fields.get(10)?);
    let caps = gst::Caps::builder("audio/x-opus")
        .field("rate", 48_000)
        .field("channels", i32::from(channels))
        .field("channel-mapping-family", i32::from(family));
    if family == 0 {
        let coupled = i32::from(channels) - 1;
        return Some(caps.field("stream-count", 1).field("coupled-count", coupled).build());
    }
    let mapping = fields.get(13..13 + usize::from(channels))?;
    let mapping = gst::Array::new(mapping.iter().map(|&place| i32::from(place)));
    Some(
        caps.field("stream-count", i32::from(fields[11]))
            .field("coupled-count", i32::from(fields[12]))
            .field("channel-mapping", mapping)
            .build(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Caps of a codec, and that the kind's pads can have them.
    fn caps(kind: TrackKind, codec: &[u8; 4], configuration: &[u8], frame: &[u8]) -> String {
        gst::init().unwrap();
        let caps = of_track(kind, *codec, configuration, Some(frame)).expect("enough is known");
        assert!(caps.is_subset(&template(kind)), "{caps}");
        caps.to_string()
    }

    #[test]
    fn every_codec_has_the_name_that_parsers_and_decoders_know() {
        use TrackKind::{Audio, Data, Transport, Video};
        let au = "stream-format=(string)byte-stream, alignment=(string)au";
        assert_eq!(caps(Video, b"h264", b"", b""), format!("video/x-h264, {au}"));
        assert_eq!(caps(Video, b"hevc", b"", b""), format!("video/x-h265, {au}"));
        for (configuration, version) in
            [(&[][..], 2), (&[0, 0, 1, 0xb3, 1, 0, 0, 1, 0xb5][..], 2), (&[0, 0, 1, 0xb3], 1)]
        {
            let expected =
                format!("video/mpeg, mpegversion=(int){version}, systemstream=(boolean)false, parsed=(boolean)true");
            assert_eq!(caps(Video, b"mpg2", configuration, b""), expected);
        }
        let framed = "framed=(boolean)true, alignment=(string)frame";
        assert_eq!(caps(Audio, b"ac-3", b"", b""), format!("audio/x-ac3, {framed}"));
        assert_eq!(caps(Audio, b"ec-3", b"", b""), format!("audio/x-eac3, {framed}"));
        assert_eq!(caps(Audio, b"s302", b"", b""), "audio/x-smpte-302m");
        assert_eq!(caps(Data, b"klv ", b"", b""), "meta/x-klv, parsed=(boolean)true");
        assert_eq!(caps(Data, b"ttxt", b"", b""), "application/x-teletext");
        assert_eq!(caps(Data, b"dvbs", b"", b""), "subpicture/x-dvb");
        assert_eq!(caps(Data, b"sc35", b"", b""), "application/x-headworks-data, codec=(string)sc35");
        assert_eq!(caps(Video, b"jxsv", b"", b""), "application/x-headworks-data, codec=(string)jxsv");
        assert!(caps(Transport, b"mp2t", b"", b"").starts_with("video/mpegts, systemstream=(boolean)true"));
    }

    #[test]
    fn aac_carries_its_configuration() {
        // AAC-LC, 48 kHz, stereo.
        let caps = caps(TrackKind::Audio, b"aac ", &[0x11, 0x90], b"");
        for part in ["mpegversion=(int)4", "raw", "codec_data=(buffer)1190", "rate=(int)48000", "channels=(int)2", "lc"]
        {
            assert!(caps.contains(part), "{caps}");
        }
        assert_eq!(of_track(TrackKind::Audio, *b"aac ", b"", Some(b"frame")), None);
    }

    #[test]
    fn mpeg_audio_is_read_from_its_first_frame() {
        for (frame, expected) in [
            ([0xff, 0xfd, 0x84, 0x00], "mpegaudioversion=(int)1, layer=(int)2, rate=(int)48000, channels=(int)2"),
            ([0xff, 0xf3, 0x80, 0xc0], "mpegaudioversion=(int)2, layer=(int)3, rate=(int)22050, channels=(int)1"),
            ([0xff, 0xe3, 0x88, 0x00], "mpegaudioversion=(int)3, layer=(int)3, rate=(int)8000, channels=(int)2"),
        ] {
            let caps = caps(TrackKind::Audio, b"mp2 ", b"", &frame);
            assert!(caps.contains(expected), "{caps}");
        }
        for no_frame in [&b"\xff\xfd\x8c\0"[..], b"\xff\xf9\x84\0", b"\xff\xeb\x84\0", b"\xff\xfd\x84", b"else"] {
            assert_eq!(of_track(TrackKind::Audio, *b"mp2 ", b"", Some(no_frame)), None);
        }
    }

    #[test]
    fn opus_has_its_channel_mapping() {
        let stereo = caps(TrackKind::Audio, b"opus", b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0", b"");
        let tail = "channels=(int)2, channel-mapping-family=(int)0, stream-count=(int)1, coupled-count=(int)1";
        assert!(stereo.ends_with(tail), "{stereo}");
        let surround = b"OpusHead\x01\x06\0\0\x80\xbb\0\0\0\0\x01\x04\x02\0\x04\x01\x02\x03\x05";
        let surround = caps(TrackKind::Audio, b"opus", surround, b"");
        assert!(
            surround.contains("stream-count=(int)4, coupled-count=(int)2, channel-mapping=(int)< 0, 4, 1, 2, 3, 5 >"),
            "{surround}"
        );
        for len in 0..26 {
            let cut = &b"OpusHead\x01\x06\0\0\x80\xbb\0\0\0\0\x01\x04\x02\0\x04\x01\x02\x03\x05"[..len];
            assert_eq!(of_track(TrackKind::Audio, *b"opus", cut, None), None);
        }
    }
}
