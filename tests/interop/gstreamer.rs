//! H.264 and HEVC over RTP from GStreamer: what comes out is held beside a capture of the very datagrams.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::appliance::{Appliance, free_ports};
use crate::reference::hashed;
use crate::tap::Frame;

/// An access unit put together from the captured datagrams.
pub struct AccessUnit {
    pub timestamp: u32,
    pub bytes: Vec<u8>,
    pub key: bool,
}

/// Which payload format a capture is of.
#[derive(Clone, Copy)]
pub enum Format {
    H264,
    Hevc,
}

/// Runs a pipeline that sends to `tee`, and hands each datagram on to `forward` while keeping it.
pub fn capture(pipeline: &str, tee: &UdpSocket, forward: SocketAddr) -> Vec<Vec<u8>> {
    let to = tee.local_addr().unwrap().port();
    let pipeline = format!("{pipeline} ! udpsink host=127.0.0.1 port={to} sync=true");
    capture_from(Command::new("gst-launch-1.0").arg("-q").args(pipeline.split_whitespace()), tee, forward)
}

/// Runs a sender to `tee`, and hands each datagram on to `forward` while keeping it.
pub fn capture_from(sender: &mut Command, tee: &UdpSocket, forward: SocketAddr) -> Vec<Vec<u8>> {
    struct Running(Child);
    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    sender.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running(sender.spawn().unwrap_or_else(|error| panic!("{sender:?}: {error}")));
    tee.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    // Senders may send a whole picture at once. Beyond the system's limit for whoever may go there.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(tee, 8 << 20);
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    let mut buffer = [0; 2_048];
    let began = Instant::now();
    loop {
        match tee.recv_from(&mut buffer) {
            Ok((len, _)) => {
                tee.send_to(&buffer[..len], forward).expect("forwarded");
                if let Some(last) = datagrams.last() {
                    assert_eq!(sequence(&buffer), sequence(last).wrapping_add(1), "the capture is whole");
                }
                datagrams.push(buffer[..len].to_vec());
            }
            Err(_) if running.0.try_wait().expect("a child").is_some() => break,
            Err(_) => assert!(began.elapsed() < Duration::from_secs(40), "{sender:?} goes on for ever"),
        }
    }
    assert!(datagrams.len() > 50, "{sender:?} sent {} datagrams", datagrams.len());
    datagrams
}

/// The sequence number of an RTP packet.
pub fn sequence(datagram: &[u8]) -> u16 {
    u16::from_be_bytes([datagram[2], datagram[3]])
}

/// Depacketizes (RFC 6184 §5.6 to §5.8, RFC 7798 §4.4) a capture without loss; independent of the product.
pub fn access_units(datagrams: &[Vec<u8>], format: Format) -> Vec<AccessUnit> {
    let mut units: Vec<AccessUnit> = Vec::new();
    for datagram in datagrams {
        let timestamp = u32::from_be_bytes(datagram[4..8].try_into().unwrap());
        let payload = &datagram[12..];
        if units.last().is_none_or(|unit| unit.timestamp != timestamp) {
            units.push(AccessUnit { timestamp, bytes: Vec::new(), key: false });
        }
        let unit = units.last_mut().unwrap();
        let header_len = match format {
            Format::H264 => 1,
            Format::Hevc => 2,
        };
        let kind = match format {
            Format::H264 => payload[0] & 0x1f,
            Format::Hevc => payload[0] >> 1 & 0x3f,
        };
        match (format, kind) {
            (Format::H264, 24) | (Format::Hevc, 48) => {
                let mut rest = &payload[header_len..];
                while !rest.is_empty() {
                    let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                    unit.begin(&rest[2..2 + len], format);
                    rest = &rest[2 + len..];
                }
            }
            (Format::H264, 28) => {
                let fragment = payload[1];
                if fragment & 0x80 != 0 {
                    unit.begin(&[payload[0] & 0xe0 | fragment & 0x1f], format);
                }
                unit.bytes.extend(&payload[2..]);
            }
            (Format::Hevc, 49) => {
                let fragment = payload[2];
                if fragment & 0x80 != 0 {
                    unit.begin(&[payload[0] & 0x81 | (fragment & 0x3f) << 1, payload[1]], format);
                }
                unit.bytes.extend(&payload[3..]);
            }
            _ => unit.begin(payload, format),
        }
    }
    units
}

impl AccessUnit {
    fn begin(&mut self, unit: &[u8], format: Format) {
        self.bytes.extend([0, 0, 0, 1]);
        self.bytes.extend(unit);
        self.key |= match format {
            Format::H264 => unit[0] & 0x1f == 5,
            Format::Hevc => (16..=23).contains(&(unit[0] >> 1 & 0x3f)),
        };
    }
}

fn compare(units: &[AccessUnit], frames: &[Frame]) {
    assert_eq!(frames.len(), units.len(), "number of access units");
    let first = (frames[0].pts.expect("a PTS"), units[0].timestamp);
    for (index, (frame, unit)) in frames.iter().zip(units).enumerate() {
        assert_eq!((frame.len, frame.sha256.clone()), hashed(&unit.bytes), "bytes of access unit {index}");
        assert_eq!(frame.key, unit.key, "access unit {index}");
        assert!(!frame.damaged && frame.lost == 0, "access unit {index}: {frame:?}");
        let pts = frame.pts.expect("a PTS");
        let step = unit.timestamp.wrapping_sub(first.1) as i32;
        assert_eq!(pts - first.0, i64::from(step), "PTS of access unit {index}");
        assert!(frame.dts.expect("a DTS") <= pts, "access unit {index}: {frame:?}");
    }
    for pair in frames.windows(2) {
        assert!(pair[0].dts < pair[1].dts, "DTS rises: {:?} {:?}", pair[0], pair[1]);
    }
}

/// Sends a pipeline's stream to the shared port, its payload type configured.
fn arrives_as_captured(format: Format, pipeline: &str) {
    let name = match format {
        Format::H264 => "h264",
        Format::Hevc => "hevc",
    };
    let appliance = Appliance::start(&[&format!("ingestion.rtp.payload_types.96={name}")]);
    let tap = appliance.tap("rtp-0000beef");
    let tee = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagrams = capture(pipeline, &tee, SocketAddr::from(([127, 0, 0, 1], appliance.ports.rtp)));
    let units = access_units(&datagrams, format);
    compare(&units, &tap.wait_for(units.len()));
}

const SOURCE: &str = "videotestsrc num-buffers=60 pattern=ball ! video/x-raw,width=640,height=360,framerate=25/1";

#[test]
fn h264_over_rtp_in_single_units_and_fragments_arrives_as_captured() {
    let pipeline = format!(
        "{SOURCE} ! x264enc key-int-max=20 bframes=2 bitrate=3000 speed-preset=ultrafast ! rtph264pay pt=96 ssrc=48879 mtu=500 config-interval=-1"
    );
    arrives_as_captured(Format::H264, &pipeline);
}

#[test]
fn h264_over_rtp_in_aggregates_arrives_as_captured() {
    for mode in ["zero-latency", "max-stap"] {
        let pipeline = format!(
            "{SOURCE} ! x264enc tune=zerolatency threads=1 key-int-max=20 bitrate=1000 speed-preset=ultrafast ! \
             rtph264pay pt=96 ssrc=48879 aggregate-mode={mode} config-interval=-1"
        );
        arrives_as_captured(Format::H264, &pipeline);
    }
}

/// `rtph264pay config-interval=-1` repeats the parameter sets before each slice of an IDR picture, under one time stamp.
#[test]
fn parameter_sets_between_the_slices_of_a_picture_do_not_cut_it() {
    let pipeline = format!(
        "{SOURCE} ! x264enc tune=zerolatency threads=2 sliced-threads=true key-int-max=20 speed-preset=ultrafast ! \
         rtph264pay pt=96 ssrc=48879 config-interval=-1"
    );
    arrives_as_captured(Format::H264, &pipeline);
}

#[test]
fn hevc_over_rtp_arrives_as_captured() {
    for parameters in ["mtu=600", "aggregate-mode=zero-latency", "aggregate-mode=max"] {
        let pipeline = format!(
            "{SOURCE} ! x265enc key-int-max=20 bitrate=2000 speed-preset=ultrafast ! rtph265pay pt=96 ssrc=48879 config-interval=-1 {parameters}"
        );
        arrives_as_captured(Format::Hevc, &pipeline);
    }
}

#[test]
fn a_stream_described_by_an_sdp_file_arrives_as_captured() {
    let [port] = free_ports();
    let directory = tempfile::tempdir().unwrap();
    let sdp = directory.path().join("cam1.sdp");
    std::fs::write(
        &sdp,
        format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=cam1\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=video {port} RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\na=fmtp:97 packetization-mode=1\r\n"
        ),
    )
    .unwrap();
    let appliance = Appliance::start(&[&format!("streams.cam1.rtp.sdp={}", sdp.display())]);
    let tap = appliance.tap("cam1");
    let tee = UdpSocket::bind("127.0.0.1:0").unwrap();
    let pipeline = format!(
        "{SOURCE} ! x264enc tune=zerolatency threads=1 key-int-max=20 speed-preset=ultrafast ! rtph264pay pt=97 config-interval=-1"
    );
    let datagrams = capture(&pipeline, &tee, SocketAddr::from(([127, 0, 0, 1], port)));
    let units = access_units(&datagrams, Format::H264);
    compare(&units, &tap.wait_for(units.len()));
}

#[test]
fn an_unknown_payload_type_is_told_with_the_key_to_set() {
    let appliance = Appliance::start(&[]);
    let tee = UdpSocket::bind("127.0.0.1:0").unwrap();
    let pipeline = format!("{SOURCE} ! x264enc tune=zerolatency speed-preset=ultrafast ! rtph264pay pt=96 ssrc=48879");
    capture(&pipeline, &tee, SocketAddr::from(([127, 0, 0, 1], appliance.ports.rtp)));
    appliance.wait_for_log("ingestion.rtp.payload_types.96", Duration::from_secs(5));
}

/// A transport stream over multicast on the loopback interface, from any source or from one.
fn multicast_arrives(group: &str, source: Option<&str>) {
    let clip = crate::clips::usual_clip();
    let [port] = free_ports();
    let mut settings = vec![
        format!("streams.mc.rtp.address={group}"),
        format!("streams.mc.rtp.port={port}"),
        "streams.mc.rtp.interface=lo".to_owned(),
    ];
    settings.extend(source.map(|source| format!("streams.mc.rtp.source={source}")));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let appliance = Appliance::start(&settings);
    let tap = appliance.tap("mc");
    let to: SocketAddr = format!("{group}:{port}").parse().unwrap();
    let sender = |from: &str| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        socket.bind(&format!("{from}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.set_multicast_if_v4(&"127.0.0.1".parse().unwrap()).unwrap();
        UdpSocket::from(socket)
    };
    if source.is_some() {
        // Another sender to the same group must not be heard.
        crate::senders::send_udp(&sender("127.0.0.9"), &clip.bytes[..100 * crate::senders::DATAGRAM], to);
        assert!(tap.frames().is_empty(), "the group's other sender is heard");
    }
    crate::senders::send_rtp(&sender("127.0.0.1"), &clip.bytes, to, 7);
    clip.reference.compare("multicast", &tap.wait_for(clip.reference.packet_count()));
}

#[test]
fn a_multicast_group_arrives_from_any_source() {
    multicast_arrives("239.255.77.1", None);
}

#[test]
fn a_multicast_group_arrives_from_the_one_source_named() {
    multicast_arrives("232.77.1.1", Some("127.0.0.1"));
}
