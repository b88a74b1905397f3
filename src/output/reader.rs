//! Reading rings, for tap, streams, egress and control: the floor's window on `headworks-frame-ring`.

pub use headworks_frame_ring::{
    bell, broker, descriptor, directory, layout, memory, reader, stream_descriptor, stream_reader,
};
