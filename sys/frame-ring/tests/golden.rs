//! The layout, byte by byte: what a reader of an older minor version, or in another language, relies on.
mod common;

use std::time::Duration;

use common::{directory, spec};
use headworks_frame_ring::bell::{BellWriter, TimelineAnchor};
use headworks_frame_ring::builder;
use headworks_frame_ring::descriptor::{
    ClockOrigin, Discontinuity, FrameDescriptor, PictureStructure, PictureType, RandomAccess, Timecode, WallClock,
    WallClockQuality, damage,
};
use headworks_frame_ring::layout::{self, HEADER_SIZE, Header, State, TrackKind};
use headworks_frame_ring::reader::{Next, OpenError, Reader, Start};

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(16).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n").collect()
}

fn golden_header() -> Header {
    Header {
        minor: 0,
        features_required: 0,
        features_optional: 1,
        boot_id: *b"boot-id-boot-id!",
        ring_uuid: *b"ring-uuid-uuid-!",
        slot_offset: layout::SLOT_OFFSET as u64,
        slot_count: 64,
        data_capacity: 1 << 18,
        frame_size_max: 64 << 10,
        config_offset: 0x2000,
        config_size: 8192,
        config_count: 8,
        codec: u32::from_le_bytes(*b"avc1"),
        kind: TrackKind::Video,
        clock_rate: 90_000,
        numa_node: -1,
        backing_page_size: 4096,
    }
}

/// What stands in golden/slot.hex.
fn golden_frame() -> FrameDescriptor {
    FrameDescriptor {
        pts: Some(-90_000),
        dts: Some(0x0102_0304_0506_0708),
        timeline_ns: 1_000_000_007,
        origin: 27_000_000,
        first_arrival_ns: 0x11,
        last_arrival_ns: 0x12,
        due_ns: 0x13,
        commit_ns: 0x14,
        wall_clock_ns: 1_700_000_000_000_000_000,
        duration: 3600,
        segment: 3,
        packets_lost: 4,
        packets_recovered: 5,
        path_mask: 3,
        damage_reasons: damage::LOST_PACKETS | damage::TIME_OUT,
        discontinuity: Discontinuity::TimeBaseJump,
        origin_kind: ClockOrigin::Pcr,
        wall_clock: WallClock::Tai,
        wall_clock_quality: WallClockQuality::Ptp,
        picture_type: PictureType::I,
        picture_structure: PictureStructure::BottomSecond,
        random_access: RandomAccess::RecoveryPoint,
        recovery_count: 25,
        temporal_id: 1,
        timecode: Some(Timecode { hours: 10, minutes: 59, seconds: 58, frames: 24, drop_frame: true }),
        damaged: true,
        key: true,
        pts_interpolated: true,
        dts_derived: true,
        ..Default::default()
    }
}

#[test]
fn the_header_is_the_golden_one() {
    let page = golden_header().encode();
    let text = hex(&page[..0x80]) + &hex(&page[HEADER_SIZE - 4..]);
    assert_eq!(text, include_str!("golden/header.hex"));
    assert!(page[0x80..HEADER_SIZE - 4].iter().all(|&b| b == 0));
}

#[test]
fn a_slot_is_the_golden_one() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    bell.advance_to(0x55);
    let mut writer = builder::create(&dir.path().join("v"), &spec()).unwrap();
    writer.set_configuration(b"sps").unwrap();
    writer.append(b"first").unwrap();
    writer.commit(&FrameDescriptor::default(), &mut bell);
    writer.append(b"payload").unwrap();
    writer.append_side_data(b"side").unwrap();
    assert_eq!(writer.commit(&golden_frame(), &mut bell), 1);
    let ctl = std::fs::read(dir.path().join("v/ctl")).unwrap();
    let at = layout::SLOT_OFFSET + layout::SLOT_SIZE;
    assert_eq!(hex(&ctl[at..at + layout::SLOT_SIZE]), include_str!("golden/slot.hex"));
    // Hot words and the configuration block, where the constants say.
    assert_eq!(hex(&ctl[0x1000..0x1120]), include_str!("golden/hot.hex"));
    assert_eq!(hex(&ctl[0x2000 + 8192..0x2000 + 8192 + 48]), include_str!("golden/configuration.hex"));
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// A ring put together from the golden bytes alone, `change`d, and sealed.
fn golden_ring(change: impl Fn(&mut [u8])) -> tempfile::TempDir {
    let mut ctl = vec![0; Header::ctl_size(64)];
    let header = bytes(include_str!("golden/header.hex"));
    ctl[..0x80].copy_from_slice(&header[..0x80]);
    for (at, hex) in [
        (0x1000, include_str!("golden/hot.hex")),
        (0x2000 + 8192, include_str!("golden/configuration.hex")),
        (layout::SLOT_OFFSET + layout::SLOT_SIZE, include_str!("golden/slot.hex")),
    ] {
        let bytes = bytes(hex);
        ctl[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    change(&mut ctl);
    let crc = crc32c::crc32c(&ctl[..layout::HEADER_CRC]);
    ctl[layout::HEADER_CRC..HEADER_SIZE].copy_from_slice(&crc.to_le_bytes());
    let mut data = vec![0; 1 << 18];
    data[64..71].copy_from_slice(b"payload");
    data[72..76].copy_from_slice(b"side");
    let dir = directory();
    std::fs::write(dir.path().join("ctl"), ctl).unwrap();
    std::fs::write(dir.path().join("data"), data).unwrap();
    dir
}

fn assert_reads_the_golden_frame(dir: &tempfile::TempDir) {
    let mut reader = Reader::open(dir.path(), Start::Seq(1)).unwrap();
    reader.verify_checksums(true);
    let Ok(Next::Frame(frame)) = reader.next(Duration::ZERO) else { panic!("no frame") };
    assert_eq!((frame.payload, frame.side_data, frame.stream_seq), (&b"payload"[..], &b"side"[..], 0x56));
    let filled = FrameDescriptor {
        seq: 1,
        key_seq: 1,
        config_generation: 1,
        crc32c: Some(crc32c::crc32c(b"payload")),
        side_data_offset: 8,
        side_data_length: 4,
        ..golden_frame()
    };
    assert_eq!(frame.descriptor, filled);
    assert_eq!(reader.configuration(1), Ok(b"sps".to_vec()));
    assert_eq!((reader.state(), reader.epoch(), reader.last_key_seq()), (State::Live, 1, Some(1)));
}

#[test]
fn a_ring_of_golden_bytes_is_read() {
    assert_reads_the_golden_frame(&golden_ring(|_| {}));
}

#[test]
fn a_ring_of_a_later_minor_version_is_read_and_one_that_needs_more_is_refused() {
    let later = golden_ring(|ctl| {
        // Minor version, optional features, a new word in the header, one in the hot page, a track kind and a state not yet known.
        ctl[0x0A] = 9;
        ctl[0x18..0x20].fill(0xFF);
        ctl[0x80..0x90].fill(0x77);
        ctl[0x70] = 99;
        ctl[0x1FF8..0x2000].fill(0x77);
        ctl[layout::STATE] = 99;
        // Two more words in the descriptor's struct.
        let slot = layout::SLOT_OFFSET + layout::SLOT_SIZE;
        assert_eq!(ctl[slot + 44], 19);
        ctl[slot + 44] = 21;
        ctl[slot + 48 + 19 * 8..slot + 48 + 21 * 8].fill(0x77);
    });
    assert_reads_the_golden_frame(&later);
    let refused = |change: fn(&mut [u8])| match Reader::open(golden_ring(change).path(), Start::Live) {
        Err(OpenError::Layout(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(|ctl| ctl[0x08] = 2), layout::LayoutError::Major(2));
    assert_eq!(refused(|ctl| ctl[0x10] = 1), layout::LayoutError::Features(1));
}

#[test]
fn the_bell_is_the_golden_one() {
    let dir = directory();
    let mut bell = BellWriter::create(dir.path()).unwrap();
    bell.advance_to(0x0102_0304_0506_0708);
    bell.tracks_changed();
    bell.heartbeat(0x1112_1314);
    let anchor = TimelineAnchor {
        programme: 0x21,
        segment: 0x22,
        pts: 0x23,
        timeline_ns: 0x24,
        monotonic_ns: 0x25,
        utc_ns: 0x26,
        clock_rate: 90_000,
    };
    assert!(bell.set_anchor(TimelineAnchor { programme: 7, ..anchor }) && bell.set_anchor(anchor));
    bell.set_state(State::Ended);
    let mut page = std::fs::read(dir.path().join("bell")).unwrap();
    assert_eq!(page.len(), 0x1000);
    assert_eq!(crc32c::crc32c(&page[..0x3C]).to_le_bytes(), page[0x3C..0x40]);
    // boot id, stream uuid and the checksum differ every time.
    page[0x10..0x30].fill(0);
    page[0x3C..0x40].fill(0);
    assert_eq!(hex(&page[..0x180]), include_str!("golden/bell.hex"));
    assert!(page[0x180..].iter().all(|&b| b == 0));
}
