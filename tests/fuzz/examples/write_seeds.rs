//! Writes the first files of each corpus: `cargo run --example write_seeds` in `tests/fuzz`. Needs ffmpeg for moving pictures
//! and tones; everything else comes from our own multiplexer, handshakes and writers.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use headworks::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack};
use headworks::media::Codec;
use headworks::protocol::rtp::packet::Packetizer;
use headworks::protocol::rtp::rtcp::{ReportBlock, write_receiver_report};
use headworks::protocol::rtp::sequence::LossReport;
use headworks::protocol::srt::control::{
    Acknowledgement, ControlWriter, DropRequest, ReceiverReport, ReceivingRates, SequenceRange,
};
use headworks::protocol::srt::encryption::{
    Cipher, Encryption, KeyLength, KeyMaterial, KeyRefresh, SALT_LEN, derive_key_encrypting_key,
};
use headworks::protocol::srt::fec::configuration::FilterConfiguration;
use headworks::protocol::srt::handshake::{HandshakeExtension, HandshakeFields, Offer, Request};
use headworks::protocol::srt::membership::{GroupType, Membership};
use headworks::protocol::srt::packet::{DataHeader, HEADER_LEN, KeyFlag, PacketPosition, SequenceNumber};
use headworks::protocol::srt::stream_id::StreamId;
use headworks::protocol::srt::transmission_mode::TransmissionMode;
use headworks_ethernet::{Edge, EdgeOptions, Outgoing};
use headworks_frame_ring::stream_descriptor::{Programme, StreamDescriptor, Track};

const LEN_MAX: usize = 4_096;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    srt(&root);
    rtp(&root);
    coded(&root);
    transport(&root);
    rest(&root);
    ethernet(&root);
}

fn save(root: &Path, target: &str, name: &str, bytes: &[u8]) {
    let directory = root.join(target);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(format!("seed-{name}")), &bytes[..bytes.len().min(LEN_MAX)]).unwrap();
}

/// Texts of packet filters, and for each kind of geometry 120 packets of which some are lost.
fn filters(root: &Path) {
    for text in ["fec", "fec,cols:10,rows:5,layout:staircase,arq:onreq", "fec,cols:20,rows:-5,layout:even,arq:never"] {
        let wire = text.parse::<FilterConfiguration>().unwrap().to_wire();
        save(root, "srt_fec", &format!("text-{}", text.len()), &wire);
    }
    for (name, cols, rows, flags) in
        [("rows", 3, 0, 0), ("matrix", 3, 2, 0), ("staircase", 4, 2, 2), ("columns", 2, 3, 3)]
    {
        let packets = (0..120_u8).flat_map(|number| {
            let lost = if number % 7 == 3 { 0 } else { 1 };
            let payload: Vec<u8> = (0..number % 13).map(|at| at ^ number).collect();
            [&[0x10, lost, number, payload.len() as u8][..], &payload].concat()
        });
        save(root, "srt_fec", name, &[cols, rows, flags].into_iter().chain(packets).collect::<Vec<u8>>());
    }
}

/// Pieces as the bodies of listener, caller and depacketizers take them: two bytes, then the content.
fn script(pieces: &[([u8; 2], &[u8])]) -> Vec<u8> {
    pieces.iter().flat_map(|(head, content)| [&head[..], content].concat()).collect()
}

/// A piece with a byte for what to do and one for its length.
fn piece(what: u8, content: &[u8]) -> ([u8; 2], &[u8]) {
    ([what, content.len() as u8], content)
}

fn key_material(length: KeyLength) -> KeyMaterial {
    key_material_for(Cipher::AesCtr, length)
}

fn key_material_for(cipher: Cipher, length: KeyLength) -> KeyMaterial {
    let key = derive_key_encrypting_key(b"correct horse", &[1; SALT_LEN], length);
    Encryption::initiate(key, cipher, [1; SALT_LEN], [2; 32], KeyRefresh::default()).1
}

fn srt(root: &Path) {
    let fields = HandshakeFields {
        version: 5,
        encryption: 0,
        extension: 2,
        initial_sequence: SequenceNumber::new(77),
        mtu: 1_500,
        flow_window: 8_192,
        request: Request::Induction,
        socket_id: 9,
        cookie: 0,
        peer_address: [127, 0, 0, 1].into(),
    };
    let extension =
        HandshakeExtension { version: 0x0001_0501, flags: 0xbf, receive_latency_ms: 120, send_latency_ms: 120 };
    let ids = ["#!::r=cam1,m=publish,u=alice", "live/stadium", "#!::h=host,t=stream,s=1234"];
    let ids: Vec<StreamId> = ids.iter().map(|text| StreamId::new(text).unwrap()).collect();
    let mut bodies = vec![Vec::new()];
    HandshakeFields { version: 4, ..fields }.encode(&mut bodies[0]);
    for (id, length) in ids.iter().zip([None, Some(KeyLength::Aes128), Some(KeyLength::Aes256)]) {
        let message = length.map(key_material);
        let group = Membership { group_id: 0x4000_0001, group_type: GroupType::Broadcast, weight: 1 };
        for is_response in [false, true] {
            let offer = Offer {
                is_response,
                handshake: extension,
                key_material: message.as_ref().map(KeyMaterial::as_bytes),
                stream_id: (!is_response).then_some(id),
                group: length.is_none().then_some(group),
                packet_filter: None,
                mode: TransmissionMode::Live,
            };
            let mut body = Vec::new();
            HandshakeFields { request: Request::Conclusion, cookie: 5, ..fields }.encode_conclusion(&offer, &mut body);
            bodies.push(body);
        }
        let mut wire = Vec::new();
        id.to_wire(&mut wire);
        save(root, "srt_stream_id", &wire.len().to_string(), &wire);
    }
    filters(root);
    for (number, body) in bodies.iter().enumerate() {
        save(root, "srt_handshake", &number.to_string(), body);
        let extensions = body.get(48..).unwrap_or(&[]);
        let listener = script(&[
            piece(0x41, body),
            piece(0x43, &[&[1], extensions].concat()),
            piece(0x42, &[&[1], extensions].concat()),
        ]);
        save(root, "srt_listener", &number.to_string(), &listener);
        for first in [0x42, 0xc2] {
            let caller = script(&[piece(first, &bodies[0]), piece(0x02, body), piece(0x82, body), piece(1, body)]);
            save(root, "srt_caller", &format!("{number}-{first}"), &caller);
        }
        // A wave, a conclusion with what it carries, an agreement; as either side, in plain and encrypted.
        for first in [0x12, 0x92, 0x32, 0xb2] {
            let rendezvous = script(&[piece(first, &bodies[0]), piece(0x02, body), piece(0x22, &bodies[0])]);
            save(root, "srt_rendezvous", &format!("{number}-{first}"), &rendezvous);
        }
    }
    for length in [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256] {
        save(root, "srt_key_material", &format!("{length:?}"), key_material(length).as_bytes());
    }
    let gcm = key_material_for(Cipher::AesGcm, KeyLength::Aes128);
    save(root, "srt_key_material", "gcm", gcm.as_bytes());
    save(root, "srt_key_material", "refused", &[0, 0, 0, 4]);

    let to = ControlWriter { timestamp_us: 1_000, socket_id: 7 };
    let next = SequenceNumber::new(1_000);
    let rates = ReceivingRates {
        packets_per_second: 5_000,
        link_capacity_packets_per_second: 9_000,
        bytes_per_second: Some(1),
    };
    let report = ReceiverReport { rtt_us: 30_000, rtt_variance_us: 5_000, available_buffer_packets: 800, rates: None };
    let range = SequenceRange::new(SequenceNumber::new(1_000), SequenceNumber::new(1_010)).unwrap();
    type Write<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;
    let packets: Vec<(&str, Write<'_>)> = vec![
        ("keepalive", Box::new(|out| to.keep_alive(out))),
        ("shutdown", Box::new(|out| to.shutdown(out))),
        (
            "ack",
            Box::new(|out| {
                let report = Some(ReceiverReport { rates: Some(rates), ..report });
                to.acknowledgement(out, &Acknowledgement { number: 3, next, report });
            }),
        ),
        (
            "ack-small",
            Box::new(|out| {
                to.acknowledgement(out, &Acknowledgement { number: 3, next, report: Some(report) });
            }),
        ),
        ("ack-light", Box::new(|out| to.acknowledgement(out, &Acknowledgement { number: 0, next, report: None }))),
        ("ackack", Box::new(|out| to.acknowledgement_receipt(out, 3))),
        (
            "nak",
            Box::new(|out| {
                to.loss_report(out, [SequenceRange::single(next), range], 1_456);
            }),
        ),
        ("dropreq", Box::new(|out| to.drop_request(out, &DropRequest { message_number: 1, range }))),
        ("kmreq", Box::new(|out| to.key_material_request(out, key_material(KeyLength::Aes128).as_bytes()))),
        ("handshake", Box::new(|out| to.handshake(out, &bodies[1]))),
        (
            "data",
            Box::new(|out| {
                let header = DataHeader {
                    sequence: next,
                    position: PacketPosition::Only,
                    key: KeyFlag::Even,
                    message_number: 9,
                    timestamp_us: 1,
                    socket_id: 7,
                    ..DataHeader::default()
                };
                let mut bytes = [0; HEADER_LEN];
                header.encode(&mut bytes);
                out.extend_from_slice(&bytes);
                out.extend_from_slice(&[0x47; 188]);
            }),
        ),
    ];
    for (name, write) in packets {
        let mut packet = Vec::new();
        write(&mut packet);
        save(root, "srt_packet", name, &packet);
        // As it stands, then time passes.
        let head = [0, packet.len() as u8, 0, 0];
        for target in ["srt_connection", "srt_buffer_mode"] {
            save(root, target, name, &[&[0][..], &head, &packet, &[7, 100, 100, 0], &head, &packet].concat());
        }
    }
    // Data with gaps, out of order, acknowledged and reported lost, while time passes; plain and encrypted, the later half of it
    // as the peer would.
    for flags in [0, 1, 2, 12, 0x30, 0x41, 0xc1] {
        let mut steps = vec![flags];
        for n in 0..60_u8 {
            let at = n + n / 7;
            steps.extend_from_slice(&[0xc1 | flags << 3, at, 0, n, 0x47, 1, 2]);
            steps.extend_from_slice(&[5, 5, 0, 0, 1, 2, 3, 4, 5, 7, 40, 10, 0]);
            if n % 9 == 0 {
                steps.extend_from_slice(&[0x8b, 2, n, 0, 0x7f, 0xff, 0xff, 0x81 + n, 3, 6, 0, n]);
                steps.extend_from_slice(&[0x13, 3, 0, 0, 0x7f, 0xff, 0xff, 0x85, 0, 0, 0, 0]);
            }
        }
        save(root, "srt_connection", &format!("conversation-{flags}"), &steps);
        save(root, "srt_buffer_mode", &format!("conversation-{flags}"), &steps);
        save(root, "srt_restore", &format!("changed-{flags}"), &[flags & 0x3f, 90, 0, 0x80, 10, 1, 1]);
        save(root, "srt_restore", &format!("filter-{flags}"), &[0x80 | (flags & 0x3f), 200, 1, 0x80, 10, 1, 1]);
    }
}

fn rtp(root: &Path) {
    let mut packetizer = Packetizer::new(0x1234_5678, 33, 65_530);
    let packet = |packetizer: &mut Packetizer, content: &[u8]| [&packetizer.header(9_000, true)[..], content].concat();
    save(root, "rtp_packet", "transport", &packet(&mut packetizer, &[0x47; 188]));
    let mut extended = packet(&mut packetizer, &[0xbe, 0xde, 0, 1, 1, 2, 3, 4, 0x47, 9, 9, 4]);
    extended[0] |= 0x30;
    save(root, "rtp_packet", "extension-padding", &extended);
    let mut contributing = packet(&mut packetizer, &[1; 20]);
    contributing[0] |= 2;
    save(root, "rtp_packet", "contributing", &contributing);
    let mut compound = Vec::new();
    let block = ReportBlock {
        ssrc: 0x1234_5678,
        last_sender_report: 1,
        delay_since_last_sender_report: 2,
        jitter_ticks: 3,
        loss: LossReport { fraction_lost: 9, cumulative_lost: 4, extended_highest_sequence: 65_600 },
    };
    write_receiver_report(&mut compound, 1, Some(&block), "studio", true);
    save(root, "rtp_rtcp", "receiver-report", &compound);
    let mut sender = vec![0x80, 200, 0, 6];
    sender.extend_from_slice(&[0; 24]);
    sender.extend_from_slice(&compound);
    save(root, "rtp_rtcp", "sender-report", &sender);
    save(root, "rtp_packet", "rtcp", &sender);
    for (name, text) in [
        (
            "multicast",
            "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=Stadium\r\nt=0 0\r\na=group:DUP a b\r\n\
             a=source-filter: incl IN IP4 * 192.0.2.10\r\nm=video 5004 RTP/AVP 96 33\r\nc=IN IP4 239.1.2.3/32\r\n\
             a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0IACpZTBYmI,aMljiA==\r\n\
             a=mid:a\r\nm=video 5006 RTP/AVP 97\r\nc=IN IP4 239.1.2.4\r\na=rtpmap:97 H265/90000\r\na=rtcp:6007\r\na=mid:b\r\n",
        ),
        ("unicast", "v=0\no=- 0 0 IN IP6 ::1\ns=-\nc=IN IP6 ff3e::1\nt=0 0\nm=video 5004 RTP/AVP 33\n"),
        ("raw", "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 1234 udp 33\r\n"),
    ] {
        save(root, "rtp_sdp", name, text.as_bytes());
    }
    let steady: Vec<u8> = (0..200_u8).flat_map(|n| [0, 10, 0, 0, 0, n & 1]).collect();
    save(root, "rtp_source", "steady", &steady);
    let wild: Vec<u8> = (0..200_u8).flat_map(|n| [n & 6, n, n >> 2, n, n.wrapping_mul(37), n & 31]).collect();
    save(root, "rtp_source", "wild", &wild);
    save(root, "rtp_access_unit", "marked", &b"Z0IACpZTBYmI,aMljiA==".repeat(4));
    save(root, "rtp_access_unit", "steps", &(0..=255).collect::<Vec<u8>>());
    let nal = |first: &[u8], len: usize| [first, &vec![0x55; len - first.len()]].concat();
    let h264 = [
        nal(&[0x67, 66, 0, 10], 9),
        nal(&[0x68, 0xc9], 4),
        [&[0x78, 0, 3][..], &[0x67, 1, 2], &[0, 2], &[0x68, 3]].concat(),
        nal(&[0x7c, 0x85, 0x88], 60),
        nal(&[0x7c, 0x05], 60),
        nal(&[0x7c, 0x45], 30),
        nal(&[0x61, 0x9a], 40),
    ];
    let hevc = [
        nal(&[0x40, 1], 20),
        nal(&[0x42, 1], 20),
        [&[0x60, 1, 0, 3][..], &[0x44, 1, 9], &[0, 3], &[0x4e, 1, 7]].concat(),
        nal(&[0x62, 1, 0x93], 60),
        nal(&[0x62, 1, 0x13], 60),
        nal(&[0x62, 1, 0x53], 30),
        nal(&[0x02, 1, 0xd0], 40),
    ];
    for (target, payloads, payload_type) in [("h264_depacketizer", h264, 1), ("hevc_depacketizer", hevc, 2)] {
        let pieces: Vec<_> = payloads.iter().map(|payload| ([payload.len() as u8, 0], &payload[..])).collect();
        save(root, target, "kinds", &script(&pieces));
        save(root, target, "backwards", &script(&pieces.iter().rev().copied().collect::<Vec<_>>()));
        let steps = payloads.iter().enumerate().flat_map(|(n, payload)| {
            let marker = if n % 3 == 2 { 0x80 } else { 0 };
            [&[marker | 3, payload.len() as u8, n as u8 / 3, 0][..], payload].concat()
        });
        let steps: Vec<u8> = [4 | payload_type, 0].into_iter().chain(steps).collect();
        save(root, "ingest", target, &steps);
        save(root, "ingest", &format!("{target}-twice"), &[&steps[..], &steps[2..], &steps[2..]].concat());
    }
}

/// Elementary streams that ffmpeg makes, by name.
const CODED: &[(&str, &str, &str, &str)] = &[
    ("h264", "progressive", "-c:v libx264 -g 4 -bf 2 -preset veryfast", "h264"),
    (
        "h264",
        "mbaff",
        "-c:v libx264 -g 4 -flags +ildct+ilme -x264-params tff=1:aud=1:nal-hrd=cbr:bitrate=200:vbv-maxrate=200:vbv-bufsize=100",
        "h264",
    ),
    ("h264", "intra-refresh", "-c:v libx264 -x264-params intra-refresh=1:slices=3 -g 6", "h264"),
    ("h264", "baseline", "-c:v libx264 -profile:v baseline -pix_fmt yuv420p", "h264"),
    ("hevc", "main", "-c:v libx265 -preset ultrafast -g 4 -x265-params log-level=none:aud=1:info=0", "hevc"),
    (
        "hevc",
        "main10",
        "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -x265-params log-level=none:open-gop=1:keyint=4:hdr10=1:master-display=G(1,2)B(3,4)R(5,6)WP(7,8)L(9,1):max-cll=100,50:info=0",
        "hevc",
    ),
    ("mpeg2video", "progressive", "-c:v mpeg2video -g 4 -bf 2", "m2v"),
    ("mpeg2video", "interlaced", "-c:v mpeg2video -g 4 -flags +ildct+ilme", "m2v"),
    ("aac_adts", "stereo", "-c:a aac -b:a 32k", "adts"),
    ("aac_latm", "stereo", "-c:a aac -b:a 32k -f latm", "latm"),
    ("mp2", "stereo", "-c:a mp2 -b:a 64k -ar 48000", "mp2"),
    ("mp2", "low", "-c:a mp2 -b:a 32k -ar 24000 -ac 1", "mp2"),
    ("ac3", "stereo", "-c:a ac3 -b:a 64k", "ac3"),
    ("ac3", "enhanced", "-c:a eac3 -b:a 64k", "eac3"),
];

fn coded(root: &Path) {
    let scratch = scratch();
    for (target, name, arguments, extension) in CODED {
        let is_video = matches!(*target, "h264" | "hevc" | "mpeg2video");
        let input = if is_video { "testsrc2=s=64x64:r=25:d=0.4" } else { "sine=r=48000:d=0.15" };
        let path = scratch.join(format!("{target}-{name}.{extension}"));
        ffmpeg(input, arguments, &path);
        let stream = fs::read(path).unwrap();
        // How it is cut: eight bytes of plan before video, the length of a script and the script before audio.
        let plans: &[&[u8]] = match (is_video, *target) {
            (true, _) => &[&[183; 8], &[183, 244, 7, 0, 255, 29, 100, 239]],
            (false, _) => &[&[1, 184], &[5, 184, 1, 0, 255, 30]],
        };
        for (number, plan) in plans.iter().enumerate() {
            save(root, target, &format!("{name}-{number}"), &[plan, &stream[..]].concat());
        }
        if !is_video {
            let codecs = ["aac_adts", "aac_latm", "mp2", "ac3"];
            let number = codecs.iter().position(|codec| codec == target).unwrap() as u8;
            save(
                root,
                "audio_any",
                &format!("{target}-{name}"),
                &[&[number, 1, 184], &stream[..stream.len().min(1_500)]].concat(),
            );
        }
    }
    let control = [0x7f, 0xe0, 3, 0xfc, 1, 2, 0x7f, 0xfc, 2, 0, 1, 0, 2, 1, 9, 0xfb, 2, 0x7f, 0xf0, 1, 0, 1, 0xf8];
    save(root, "opus", "headers", &[&[1, 184], &control.repeat(4)[..]].concat());
    let klv = [0, 0, 0xdf, 0, 10, 0x06, 0x0e, 0x2b, 0x34, 1, 2, 3, 4, 5, 6, 0x06, 0x0e, 0x2b, 0x34, 1, 2, 3];
    save(root, "klv", "cell-and-bare", &[&[1, 184], &klv.repeat(3)[..]].concat());
    for (number, unit) in [
        &[0x7f, 0xe0, 3, 0xfc, 1, 2][..],
        &[0, 16, 0x40, 0x10, 0x55, 0xaa, 0x50, 0x55, 0xaa, 0x50, 1, 2, 3, 4],
        &[0xfc, 0x30, 0x11, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0x7a, 0x4f, 0xbf, 0xff],
        &klv,
        &[0x10, 2, 44, 0xff],
        &[1, 2, 3],
    ]
    .iter()
    .enumerate()
    {
        save(
            root,
            "audio_any",
            &format!("data-{number}"),
            &[&[5 + number as u8, 3, 5, 0, 7], &unit.repeat(4)[..]].concat(),
        );
    }
    for (name, bytes) in [
        ("lc", &[0x11, 0x90][..]),
        ("he", &[0x2b, 0x11, 0x88, 0]),
        ("parametric-stereo", &[0xeb, 0x09, 0x88, 0]),
        ("explicit-rate", &[0x17, 0x80, 0x5d, 0xc0, 8]),
        ("program-config", &[0x11, 0x80, 4, 0xc4, 4, 0, 0x20, 0x20, 0]),
        ("backward-compatible", &[0x11, 0x90, 0x56, 0xe5, 0x98]),
    ] {
        save(root, "aac_config", name, bytes);
    }
}

fn transport(root: &Path) {
    let scratch = scratch();
    let mut streams = Vec::new();
    let tracks = vec![
        MuxTrack::new(0x100, Codec::H264),
        MuxTrack { language: Some(*b"eng"), ..MuxTrack::new(0x101, Codec::AacAdts) },
        MuxTrack::new(0x102, Codec::Scte35),
        MuxTrack::new(0x103, Codec::Klv),
    ];
    let video = fs::read(scratch.join("h264-progressive.h264")).unwrap();
    let audio = fs::read(scratch.join("aac_adts-stereo.adts")).unwrap();
    let mut mux = Mux::new(MuxConfiguration::new(tracks.clone())).unwrap();
    let mut stream = Vec::new();
    let unit = |pts: u64, dts: u64, data| AccessUnit { pts, dts, random_access: true, data };
    mux.write(0, &unit(90_000, 86_400, &video[..500]), &mut stream);
    mux.write(1, &unit(90_000, 90_000, &audio[..300]), &mut stream);
    mux.write_section(
        2,
        90_000,
        &[0xfc, 0x30, 0x11, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0x7a, 0x4f, 0xbf, 0xff],
        &mut stream,
    );
    mux.write(3, &unit(90_000, 90_000, &[0x06, 0x0e, 0x2b, 0x34, 1, 2]), &mut stream);
    mux.set_tracks(tracks[..2].to_vec()).unwrap();
    mux.write(0, &unit(93_600, 90_000, &video[500..900]), &mut stream);
    mux.write(0, &unit((1 << 33) - 1, (1 << 33) - 3_600, &video[..200]), &mut stream);
    mux.write(0, &unit((1 << 33) + 3_599, 1 << 33, &video[..200]), &mut stream);
    streams.push(("tracks".to_owned(), stream));
    for (name, arguments) in [
        ("mpeg2-mp2", "-c:v mpeg2video -c:a mp2"),
        ("h264-ac3", "-c:v libx264 -g 4 -c:a ac3 -mpegts_flags +resend_headers"),
        ("h264-opus", "-c:v libx264 -g 4 -c:a libopus"),
        ("h264-latm", "-c:v libx264 -g 2 -c:a aac -mpegts_flags latm"),
        ("hevc-302m", "-c:v libx265 -x265-params log-level=none:info=0 -c:a s302m -strict -2 -ac 2"),
    ] {
        let path = scratch.join(format!("{name}.ts"));
        ffmpeg("testsrc2=s=32x32:r=25:d=0.3[out0];sine=r=48000:d=0.3[out1]", arguments, &path);
        streams.push((name.to_owned(), fs::read(path).unwrap()));
    }
    for (name, stream) in &streams {
        save(root, "ts_demux", name, &[&[0, 0], &stream[..]].concat());
        save(root, "ts_demux", &format!("{name}-cut"), &[&[100, 9], &stream[..stream.len().min(2_200)]].concat());
        save(root, "send_material", name, &[&[0], &stream[..stream.len().min(21 * 188)]].concat());
        save(root, "send_material", &format!("{name}-rate"), &[&[9], &stream[188..stream.len().min(9 * 188)]].concat());
        // A step of the source: seven packets as they stand, then time passes and rings are made.
        let raw = stream.chunks(752).flat_map(|chunk| {
            let len = chunk.len() - 1;
            [&[3, len as u8, (len >> 8) as u8, 0][..], chunk, &[0, 50, 20, 0, 1, 0, 0, 0]].concat()
        });
        save(root, "ingest", name, &[0x10, 1].into_iter().chain(raw).collect::<Vec<u8>>());
        let rtp = stream.chunks(940).flat_map(|chunk| [&[3, (chunk.len() / 5) as u8, 0, 0][..], chunk].concat());
        save(root, "ingest", &format!("{name}-rtp"), &[4, 1].into_iter().chain(rtp).collect::<Vec<u8>>());
    }
}

/// What a host says to another until a datagram of its own has arrived, and what a router asks.
fn ethernet(root: &Path) {
    let host = |last: u8| {
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)]);
        let addresses = vec![(IpAddr::from([192, 0, 2, last]), 24), (v6, 64)];
        let mac = [2, 0, 0, 0, 0, last];
        let options = EdgeOptions { mac, addresses, gateways: Vec::new(), vlan: None, mtu: 1_500, interface: 1 };
        Edge::new(0, options).unwrap()
    };
    let behind_its_length = |frame: &[u8]| [&(frame.len() as u16).to_be_bytes(), frame].concat();
    for (name, to) in [("ipv4", "192.0.2.1:5000"), ("ipv6", "[2001:db8::1]:5000")] {
        let (mut near, mut far, mut said) = (host(1), host(7), Vec::new());
        let outgoing = Outgoing { local: None, port: 6_000, to: to.parse().unwrap(), payload: b"payload" };
        far.send(0, outgoing, &mut [0; 1_600]).unwrap();
        for _ in 0..3 {
            while let Some((frame, _)) = far.poll_transmit() {
                near.receive(0, &frame);
                said.extend(behind_its_length(&frame));
            }
            while let Some((frame, _)) = near.poll_transmit() {
                far.receive(0, &frame);
            }
        }
        save(root, "ethernet_edge", name, &said);
    }
    // An echo request, and general queries of IGMPv3 and MLDv2.
    let mut asked = Vec::new();
    for (to, ether_type, packet) in [
        ([2, 0, 0, 0, 0, 1], [0x08, 0x00], "450000200000400040 01b6d4c0000207c0000201 08002a25000700016563686f"),
        (
            [1, 0, 0x5e, 0, 0, 1],
            [0x08, 0x00],
            "4600002400000000010281d4c00002fee000000194040000 110aeef50000000000000000",
        ),
        (
            [0x33, 0x33, 0, 0, 0, 1],
            [0x86, 0xdd],
            "6000000000240001fe800000000000000000000000000007ff020000000000000000000000000001 3a00050200000100 \
             82007c3503e8000000000000000000000000000000000000 00000000",
        ),
    ] {
        let digits: Vec<u8> = packet.bytes().filter(u8::is_ascii_hexdigit).collect();
        let digit = |it: u8| char::from(it).to_digit(16).unwrap() as u8;
        let packet: Vec<u8> = digits.chunks(2).map(|it| digit(it[0]) << 4 | digit(it[1])).collect();
        asked.extend(behind_its_length(&[&to[..], &[2, 0, 0, 0, 0, 7], &ether_type, &packet].concat()));
    }
    save(root, "ethernet_edge", "questions", &asked);
}

fn rest(root: &Path) {
    for (name, text) in [
        (
            "srt",
            "ingestion:\n  max_connections: 25\n  srt:\n    port: 30000\n    latency: 500ms\n    passphrase: correct horse\n",
        ),
        (
            "streams",
            "streams:\n  cam1:\n    passphrase: \"correct horse\"\n    rtp: {port: 5010, payload_types: {96: {encoding: H264}}}\n",
        ),
        (
            "durations",
            "output:\n  history: 5s\n  retention: 10m\nlog: {level: debug, format: json}\ncontrol.bind=127.0.0.1:8080",
        ),
        ("unknown", "ingestion:\n  srt:\n    prot: 30000\n"),
        ("anchors", "a: &a [1, 2]\nb: *a\n---\nc: !!str 3\n"),
        ("assignment", "log.level=debug"),
    ] {
        save(root, "configuration", name, text.as_bytes());
    }
    let change = |at: u16, value: u64| [&at.to_le_bytes()[..], &value.to_le_bytes()].concat();
    save(root, "ring_reader", "sound", &[]);
    save(root, "ring_reader", "cut", &[0, 0x20, 0]);
    for word in [0x200, 0x208, 0x209, 0x20a, 0x210, 0x21a, 0x400, 0x2400, 0x2401, 0x2402, 0x2405, 0x2406] {
        save(root, "ring_reader", &format!("{word:x}"), &[change(word, u64::MAX), change(word + 1, 7)].concat());
    }
    save(root, "stream_reader", "sound", &[]);
    save(root, "stream_reader", "cut", &[0x0F, 0]);
    // The ring's head and a slot's number in the stream; then the bell's head, state, tracks and an anchor.
    for word in [0x208, 0x2404, 0x2600, 0x2608, 0x2610, 0x261a, 0x2620, 0x2626] {
        save(root, "stream_reader", &format!("{word:x}"), &[change(word, u64::MAX), change(word + 1, 7)].concat());
    }
    save(root, "stream_reader", "ended", &change(0x2610, 2 << 32));
    save(root, "stream_reader", "superseded", &[change(0x2610, 3 << 32), change(0x210, 3 << 32)].concat());
    for (name, request) in [
        ("bell", "bell cam1"),
        ("description", "description cam1"),
        ("tracks", "tracks cam1 UUID"),
        ("other", "tracks cam1 07070707070707070707070707070707"),
        ("ring", "ring cam1 v UUID"),
        ("escaped", "bell %2e%2e"),
        ("outside", "tracks ../cam1 UUID"),
        ("absent", "ring cam1 video0 UUID"),
        ("unknown", "drop cam1"),
    ] {
        save(root, "broker_request", name, request.as_bytes());
    }
    let track = Track { name: "video0".into(), codec: *b"avc1", language: "eng".into(), ..Track::default() };
    let programme = Programme { number: 1, pcr_pid: 0x100, name: "One".into(), provider: "Us".into() };
    for (name, programmes, tracks) in [("empty", 0, 0), ("one", 1, 1), ("many", 3, 6)] {
        let descriptor = StreamDescriptor {
            name: "cam1".into(),
            programmes: vec![programme.clone(); programmes],
            tracks: vec![track.clone(); tracks],
            ..StreamDescriptor::default()
        };
        save(root, "stream_descriptor", name, &descriptor.encode());
    }
}

fn scratch() -> PathBuf {
    let path = std::env::temp_dir().join("headworks-seeds");
    fs::create_dir_all(&path).unwrap();
    path
}

fn ffmpeg(input: &str, arguments: &str, output: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", input])
        .args(arguments.split_whitespace())
        .args(["-flags", "+bitexact", "-fflags", "+bitexact"])
        .arg(output)
        .status()
        .unwrap();
    assert!(status.success(), "ffmpeg {arguments}");
}
