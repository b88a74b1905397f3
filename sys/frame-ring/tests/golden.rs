//! The layout, byte by byte: what a reader of an older minor version, or in another language, relies on.
mod common;

use common::{directory, spec};
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder;
use headworks_frame_ring::descriptor::{
    ClockOrigin, Discontinuity, FrameDescriptor, PictureStructure, PictureType, RandomAccess, Timecode, WallClock,
    WallClockQuality, damage,
};
use headworks_frame_ring::layout::{self, HEADER_SIZE, Header, TrackKind};

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
    let frame = FrameDescriptor {
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
    };
    assert_eq!(writer.commit(&frame, &mut bell), 1);
    let ctl = std::fs::read(dir.path().join("v/ctl")).unwrap();
    let at = layout::SLOT_OFFSET + layout::SLOT_SIZE;
    assert_eq!(hex(&ctl[at..at + layout::SLOT_SIZE]), include_str!("golden/slot.hex"));
    // Hot words and the configuration block, where the constants say.
    assert_eq!(hex(&ctl[0x1000..0x1120]), include_str!("golden/hot.hex"));
    assert_eq!(hex(&ctl[0x2000 + 8192..0x2000 + 8192 + 48]), include_str!("golden/configuration.hex"));
}
