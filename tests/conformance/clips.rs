//! Clips made by ffmpeg at test time, and what ffprobe says of their packets.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One packet as ffprobe sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub size: usize,
    pub crc32: u32,
    pub is_key: bool,
}

/// Runs ffmpeg on a moving test picture; `arguments` choose the encoder, `name` the container by its extension.
pub fn encode(directory: &Path, name: &str, input: &str, arguments: &str) -> PathBuf {
    let path = directory.join(name);
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", input]);
    command.args(arguments.split_whitespace()).arg(&path);
    run(&mut command);
    path
}

/// The video packets of a file.
pub fn packets(path: &Path) -> Vec<Packet> {
    let arguments = "-show_packets -show_data_hash crc32 -show_entries packet=size,flags,data_hash";
    sections(path, arguments, "PACKET")
        .iter()
        .map(|packet| Packet {
            size: packet["size"].parse().expect("a size"),
            crc32: u32::from_str_radix(packet["data_hash"].trim_start_matches("CRC32:"), 16).expect("a hash"),
            is_key: packet["flags"].starts_with('K'),
        })
        .collect()
}

/// The decoder's picture types in coding order: `I`, `P` or `B` each.
pub fn picture_types(path: &Path) -> String {
    let mut pictures: Vec<(u64, String)> =
        sections(path, "-show_frames -show_entries frame=pkt_pos,pict_type", "FRAME")
            .into_iter()
            .map(|mut frame| {
                let number = frame["pkt_pos"].parse().expect("a position");
                (number, frame.remove("pict_type").expect("a picture type"))
            })
            .collect();
    pictures.sort_unstable();
    pictures.into_iter().map(|(_, kind)| kind).collect()
}

/// The name of the video codec, as ffprobe spells it.
pub fn codec(path: &Path) -> String {
    sections(path, "-show_streams -show_entries stream=codec_name", "STREAM")
        .remove(0)
        .remove("codec_name")
        .expect("a name")
}

/// The `[name]` sections that ffprobe writes of the video stream.
fn sections(path: &Path, arguments: &str, name: &str) -> Vec<HashMap<String, String>> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "v:0"]).args(arguments.split_whitespace()).arg(path);
    let mut sections = Vec::new();
    for line in run(&mut command).lines() {
        if line == format!("[{name}]") {
            sections.push(HashMap::new());
        } else if let (Some((key, value)), Some(section)) = (line.split_once('='), sections.last_mut()) {
            section.insert(key.to_owned(), value.to_owned());
        }
    }
    sections
}

/// Decodes the whole clip: no error, and so many frames.
pub fn decode(path: &Path, frames: usize) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(path);
    command.args(["-f", "framecrc", "-vsync", "passthrough", "-"]);
    let output = run(&mut command);
    assert_eq!(output.lines().filter(|line| !line.starts_with('#')).count(), frames);
}

/// The payload of each transport stream packet with video, PES headers taken off: ffmpeg's muxer gives video PID 0x100.
pub fn transport_pieces(path: &Path) -> Vec<Vec<u8>> {
    let stream = std::fs::read(path).expect("the clip is there");
    let mut pieces = Vec::new();
    for packet in stream.chunks_exact(188) {
        assert_eq!(packet[0], 0x47);
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        if pid != 0x100 || packet[3] & 0x10 == 0 {
            continue;
        }
        let mut start = if packet[3] & 0x20 != 0 { 5 + usize::from(packet[4]) } else { 4 };
        if packet[1] & 0x40 != 0 {
            start += 9 + usize::from(packet[start + 8]);
        }
        pieces.push(packet[start..].to_vec());
    }
    pieces
}

/// CRC-32 as ffprobe writes it (IEEE 802.3).
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("ffmpeg and ffprobe are installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).expect("text")
}
