//! What ffprobe finds in the very bytes that are sent, after the normalisation of `NORMALISATION.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::clips::run;
use crate::latm;
use crate::tap::Frame;

/// All elementary streams of a transport stream, in the order of its PMTs.
#[derive(Clone, Debug)]
pub struct Reference {
    pub tracks: Vec<Track>,
}

/// One elementary stream.
#[derive(Clone, Debug)]
pub struct Track {
    /// The name it gets: kind and number within the kind.
    pub name: String,
    pub pid: u16,
    /// The number of its programme.
    pub programme: u32,
    /// What ffprobe calls its codec.
    pub codec: String,
    pub packets: Vec<Packet>,
    carried: Carried,
}

/// Time stamps in the PES headers of one PID.
#[derive(Clone, Debug, Default)]
struct Carried {
    /// PTS and DTS.
    all: BTreeSet<u64>,
    /// PTS without a DTS beside them.
    alone: BTreeSet<u64>,
}

/// One access unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    pub len: usize,
    pub sha256: String,
    pub pts: Option<i64>,
    pub dts: Option<i64>,
    pub key: bool,
}

const WRAP: i64 = 1 << 33;

impl Reference {
    pub fn of(path: &Path, bytes: &[u8]) -> Self {
        let text = run(Command::new("ffprobe")
            .args(["-v", "error", "-show_programs", "-show_streams", "-show_packets"])
            .args(["-show_data", "-show_data_hash", "sha256"])
            .args(["-probesize", "50M", "-analyzeduration", "20M", "-fix_teletext_pts", "0"])
            .arg(path));
        let carried = carried_time_stamps(bytes);
        let mut streams: BTreeMap<usize, Track> = BTreeMap::new();
        let mut packets: BTreeMap<usize, Vec<Packet>> = BTreeMap::new();
        let (mut section, mut fields) = ("", BTreeMap::<&str, &str>::new());
        let mut programme = 0;
        let mut data = Vec::new();
        // Payloads of the codecs whose parser cuts elsewhere.
        let mut cut_elsewhere: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        let mut latm_readers: BTreeMap<usize, latm::Reader> = BTreeMap::new();
        // Streams come after the packets, so which codec it is must be known from a first look.
        let codecs = codecs(&text);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for line in text.lines() {
            match line {
                "[PACKET]" | "[STREAM]" | "[PROGRAM]" => {
                    section = line;
                    fields.clear();
                    data.clear();
                }
                "[/PACKET]" => {
                    let index: usize = fields["stream_index"].parse().expect("a number");
                    let codec = codecs[&index].as_str();
                    if matches!(codec, "hevc" | "h264") {
                        cut_elsewhere.entry(index).or_default().push(data.clone());
                    }
                    let (len, sha256) = match codec {
                        "aac" => hashed(without_adts(&data)),
                        "aac_latm" => hashed(&latm_readers.entry(index).or_default().raw(&data)),
                        "opus" => hashed(without_opus_control(&data)),
                        // Rule P6.
                        "dvb_subtitle" => hashed(&[&[0x20, 0x00], &data[..], &[0xff]].concat()),
                        _ => (
                            fields["size"].parse().expect("a number"),
                            fields["data_hash"].trim_start_matches("SHA256:").to_owned(),
                        ),
                    };
                    let time = |name: &str| fields.get(name).and_then(|value| value.parse().ok());
                    packets.entry(index).or_default().push(Packet {
                        len,
                        sha256,
                        pts: time("pts"),
                        dts: time("dts"),
                        key: fields["flags"].starts_with('K'),
                    });
                    section = "";
                }
                "[/STREAM]" => {
                    if section == "[STREAM]" {
                        let index: usize = fields["index"].parse().expect("a number");
                        let kind = match fields["codec_type"] {
                            "video" => "video",
                            "audio" => "audio",
                            _ => "data",
                        };
                        let number = counts.entry(kind).or_default();
                        let pid = u16::from_str_radix(fields["id"].trim_start_matches("0x"), 16).expect("a PID");
                        streams.entry(index).or_insert_with(|| {
                            *number += 1;
                            Track {
                                name: format!("{kind}{}", *number - 1),
                                pid,
                                programme,
                                codec: codecs[&index].clone(),
                                packets: Vec::new(),
                                carried: carried.get(&pid).cloned().unwrap_or_default(),
                            }
                        });
                    }
                    section = "";
                }
                // The streams of each programme stand within it, and all once more behind.
                "[/PROGRAM]" => programme = 0,
                _ if section == "[PROGRAM]" => {
                    if let Some(number) = line.strip_prefix("program_num=") {
                        programme = number.parse().expect("a number");
                    }
                }
                _ if section == "[PACKET]" || section == "[STREAM]" => {
                    if let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.contains(' ')) {
                        fields.insert(name, value);
                    } else if line.as_bytes().get(8) == Some(&b':') && u32::from_str_radix(&line[..8], 16).is_ok() {
                        data.extend(hex_dump_line(line));
                    }
                }
                _ => {}
            }
        }
        for (index, payloads) in &cut_elsewhere {
            let packets = packets.get_mut(index).expect("packets");
            let own = match codecs[index].as_str() {
                "hevc" => with_own_zero_bytes(payloads),
                _ => with_own_prefix_units(payloads),
            };
            for (packet, payload) in packets.iter_mut().zip(own) {
                (packet.len, packet.sha256) = hashed(&payload);
            }
        }
        let mut tracks = Vec::new();
        for (index, mut track) in streams {
            track.packets = packets.remove(&index).unwrap_or_default();
            assert!(!track.packets.is_empty(), "{path:?}: {} has no packets", track.name);
            tracks.push(track);
        }
        assert!(!tracks.is_empty(), "{path:?} has no streams");
        Self { tracks }
    }

    pub fn packet_count(&self) -> usize {
        self.tracks.iter().map(|track| track.packets.len()).sum()
    }

    /// As much of it as `frames` has of each track; for senders that cut the end off.
    pub fn first(&self, frames: &[Frame]) -> Self {
        let mut tracks = self.tracks.clone();
        for track in &mut tracks {
            let count = frames.iter().filter(|frame| frame.track == track.name).count();
            track.packets.truncate(count);
        }
        Self { tracks }
    }

    /// Compares the frames of a later life of the stream: numbers, segments and the first discontinuity are not judged.
    pub fn compare_content(&self, how: &str, frames: &[Frame]) {
        let mut frames = frames.to_vec();
        for track in &self.tracks {
            for (index, frame) in frames.iter_mut().filter(|frame| frame.track == track.name).enumerate() {
                frame.seq = index as u64;
                frame.segment = 0;
                if index == 0 {
                    frame.discontinuity = Some("start".to_owned());
                }
            }
        }
        self.compare(how, &frames);
    }

    /// Compares all frames of a stream; panics with the first differences.
    pub fn compare(&self, how: &str, frames: &[Frame]) {
        let mut faults = Vec::new();
        for track in &self.tracks {
            let got: Vec<&Frame> = frames.iter().filter(|frame| frame.track == track.name).collect();
            track.compare(&got, &mut faults);
        }
        for frame in frames {
            if !self.tracks.iter().any(|track| track.name == frame.track) {
                faults.push(format!("a frame of {}, which ffprobe does not see", frame.track));
            }
        }
        if !faults.is_empty() {
            let mut text = format!("{how}: {} differences\n", faults.len());
            faults.iter().take(8).for_each(|fault| writeln!(text, "  {fault}").unwrap());
            panic!("{text}");
        }
    }
}

impl Track {
    fn compare(&self, got: &[&Frame], faults: &mut Vec<String>) {
        let name = &self.name;
        if got.len() != self.packets.len() {
            faults.push(format!("{name}: {} frames, expected {}", got.len(), self.packets.len()));
        }
        let mut since_carried = 0;
        for (index, (frame, packet)) in got.iter().zip(&self.packets).enumerate() {
            since_carried = if self.is_carried(packet.pts) { 0 } else { since_carried + 1 };
            if frame.len != packet.len || frame.sha256 != packet.sha256 {
                faults.push(format!("{name} {index}: {} other bytes, expected {}", frame.len, packet.len));
            }
            // Rule T4.
            let is_alone = packet.pts.is_some_and(|pts| self.carried.alone.contains(&(pts.rem_euclid(WRAP) as u64)));
            let dts = if is_alone { packet.pts } else { packet.dts };
            for (what, ours, theirs) in [("pts", frame.pts, packet.pts), ("dts", frame.dts, dts)] {
                if !self.same_time(ours, theirs, since_carried) {
                    faults.push(format!("{name} {index}: {what} {ours:?}, expected {theirs:?}"));
                }
            }
            if !same_key(frame, packet) {
                faults.push(format!(
                    "{name} {index}: key {}, expected {}: {:?}",
                    frame.key, packet.key, frame.random_access
                ));
            }
            if frame.damaged || frame.lost > 0 || frame.lapped > 0 {
                faults.push(format!("{name} {index}: damaged or lost: {frame:?}"));
            }
            if frame.discontinuity.as_deref() != (index == 0).then_some("start") || frame.segment != 0 {
                faults.push(format!("{name} {index}: discontinuity {:?}", frame.discontinuity));
            }
            if frame.seq != index as u64 {
                faults.push(format!("{name} {index}: seq {}", frame.seq));
            }
        }
    }

    fn is_carried(&self, time: Option<i64>) -> bool {
        time.is_some_and(|time| self.carried.all.contains(&(time.rem_euclid(WRAP) as u64)))
    }

    /// Rules T1 to T3; `since_carried` packets after the last whose PTS a PES header carries.
    fn same_time(&self, ours: Option<i64>, theirs: Option<i64>, since_carried: i64) -> bool {
        match (ours, theirs) {
            (Some(ours), Some(theirs_there)) => {
                let difference = (ours - theirs_there).rem_euclid(WRAP);
                let most = if matches!(self.codec.as_str(), "ac3" | "eac3") { since_carried.max(1) } else { 1 };
                difference == 0 || (!self.is_carried(theirs) && (difference <= most || difference == WRAP - 1))
            }
            (_, None) => true,
            (None, Some(_)) => false,
        }
    }
}

/// Rule K1.
fn same_key(frame: &Frame, packet: &Packet) -> bool {
    let gradual = frame.random_access.as_deref() == Some("recovery_point") && !frame.key;
    frame.key == packet.key || (gradual && packet.key)
}

/// The codec of each stream.
fn codecs(text: &str) -> BTreeMap<usize, String> {
    let mut codecs = BTreeMap::new();
    let mut index = None;
    for line in text.lines() {
        if let Some(value) = line.strip_prefix("index=") {
            index = value.parse().ok();
        } else if let (Some(value), Some(index)) = (line.strip_prefix("codec_name="), index) {
            codecs.insert(index, value.to_owned());
        }
    }
    codecs
}

fn hex_dump_line(line: &str) -> impl Iterator<Item = u8> + '_ {
    let digits = line.as_bytes()[10..].iter().take(40).filter(|byte| **byte != b' ').copied().collect::<Vec<u8>>();
    (0..digits.len() / 2)
        .map(move |at| u8::from_str_radix(std::str::from_utf8(&digits[2 * at..2 * at + 2]).unwrap(), 16).unwrap())
        .collect::<Vec<u8>>()
        .into_iter()
}

pub fn hashed(bytes: &[u8]) -> (usize, String) {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let text = digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    (bytes.len(), text)
}

/// Rule P1.
fn without_adts(packet: &[u8]) -> &[u8] {
    assert!(packet[0] == 0xff && packet[1] & 0xf6 == 0xf0, "an ADTS header");
    let without_crc = packet[1] & 1 == 1;
    &packet[if without_crc { 7 } else { 9 }..]
}

/// Rule P4: ffmpeg 5.1's HEVC parser leaves the `zero_byte` of a start code at the end of the packet before.
fn with_own_zero_bytes(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut own = Vec::with_capacity(packets.len());
    let mut borrowed = false;
    for packet in packets {
        let lends = packet.last() == Some(&0);
        let body = &packet[..packet.len() - usize::from(lends)];
        own.push(if borrowed { [&[0], body].concat() } else { body.to_vec() });
        borrowed = lends;
    }
    own
}

/// Rule P5: ffmpeg 5.1's H.264 parser leaves a prefix NAL unit before the first slice of a picture at the end of the packet before.
fn with_own_prefix_units(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut own = Vec::with_capacity(packets.len());
    let mut borrowed: &[u8] = &[];
    for (index, packet) in packets.iter().enumerate() {
        let last = packet.windows(4).rposition(|bytes| bytes[..3] == [0, 0, 1]);
        let end = match last {
            Some(at) if packet[at + 3] & 0x1f == 14 && index + 1 < packets.len() => {
                at - usize::from(at > 0 && packet[at - 1] == 0)
            }
            _ => packet.len(),
        };
        own.push([borrowed, &packet[..end]].concat());
        borrowed = &packet[end..];
    }
    own
}

/// Rule P3: `opus_control_header` of the Opus-in-TS specification, where ffprobe leaves it on.
fn without_opus_control(packet: &[u8]) -> &[u8] {
    if packet.len() < 2 || packet[0] != 0x7f || packet[1] & 0xe0 != 0xe0 {
        return packet;
    }
    let mut at = 2;
    while packet[at] == 255 {
        at += 1;
    }
    at += 1;
    if packet[1] & 0x10 != 0 {
        at += 2;
    }
    if packet[1] & 0x08 != 0 {
        at += 2;
    }
    if packet[1] & 0x04 != 0 {
        at += 1 + usize::from(packet[at]);
    }
    &packet[at..]
}

/// The PTS and DTS in the PES headers of each PID.
fn carried_time_stamps(bytes: &[u8]) -> BTreeMap<u16, Carried> {
    let mut carried: BTreeMap<u16, Carried> = BTreeMap::new();
    for packet in bytes.chunks_exact(188) {
        assert_eq!(packet[0], 0x47, "clips have packets of 188 bytes");
        if packet[1] & 0x40 == 0 || packet[3] & 0x10 == 0 {
            continue;
        }
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let start = if packet[3] & 0x20 != 0 { 5 + usize::from(packet[4]) } else { 4 };
        let Some(pes) = packet[start..].strip_prefix(&[0, 0, 1]) else { continue };
        for (flag, at) in [(0x80, 6), (0x40, 11)] {
            if pes.len() >= at + 5 && pes[4] & flag != 0 {
                let part = |at: usize| u64::from(pes[at]);
                let time = (part(at) >> 1 & 7) << 30
                    | part(at + 1) << 22
                    | part(at + 2) >> 1 << 15
                    | part(at + 3) << 7
                    | part(at + 4) >> 1;
                let carried = carried.entry(pid).or_default();
                carried.all.insert(time);
                if pes[4] & 0xc0 == 0x80 {
                    carried.alone.insert(time);
                }
            }
        }
    }
    carried
}
