//! What the tests of the element share.
#![allow(dead_code)]

use std::sync::Once;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use headworks_frame_ring::bell::BellWriter;
use headworks_frame_ring::builder::{self, RingSpec};
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::layout::{State, TrackKind};
use headworks_frame_ring::writer::Writer;

pub const MS: i64 = 1_000_000;
/// The longest that anything here may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(20);

pub fn spec(kind: TrackKind, codec: &[u8; 4]) -> RingSpec {
    RingSpec {
        kind,
        codec: *codec,
        clock_rate: 90_000,
        data_capacity: 1 << 16,
        slot_count: 16,
        frame_size_max: 4_096,
        numa_node: None,
        crc: false,
    }
}

/// A root with the stream `cam1`.
pub struct Rings {
    pub root: tempfile::TempDir,
    pub bell: BellWriter,
}

impl Rings {
    pub fn new() -> Self {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::create_dir(root.path().join("cam1")).unwrap();
        let bell = BellWriter::create(&root.path().join("cam1")).unwrap();
        Self { root, bell }
    }

    pub fn track(&mut self, name: &str, kind: TrackKind, codec: &[u8; 4]) -> Writer {
        let (temporary, target) = (self.root.path().join("cam1/.tmp-1"), self.root.path().join("cam1").join(name));
        let writer = builder::create(&temporary, &spec(kind, codec)).unwrap();
        builder::publish(&temporary, &target).unwrap();
        self.bell.tracks_changed();
        writer
    }

    pub fn video(&mut self) -> Writer {
        self.track("video0", TrackKind::Video, b"h264")
    }

    pub fn write(&mut self, writer: &mut Writer, payload: &str, frame: FrameDescriptor) {
        writer.append(payload.as_bytes()).unwrap();
        writer.commit(&frame, &mut self.bell);
    }

    pub fn end(&mut self, writers: &mut [&mut Writer]) {
        for writer in writers {
            writer.set_state(State::Ended);
        }
        self.bell.set_state(State::Ended);
    }
}

/// Shown at `ms` of the timeline; decoded 40 ms before.
pub fn at(ms: i64) -> FrameDescriptor {
    let pts = 90 * (ms + 5_000);
    FrameDescriptor { pts: Some(pts), dts: Some(pts - 3_600), timeline_ns: ms * MS, ..Default::default() }
}

pub fn key(ms: i64) -> FrameDescriptor {
    FrameDescriptor { key: true, ..at(ms) }
}

pub fn element(properties: &[(&str, &str)]) -> gst::Element {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstheadworks::plugin_register_static().unwrap();
    });
    let source = gst::ElementFactory::make("headworkssrc").build().unwrap();
    for (name, value) in properties {
        source.set_property_from_str(name, value);
    }
    source
}
