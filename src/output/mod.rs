//! Floor 4: frames into rings, and the directory that readers find them by.

pub mod broker;
mod description;
pub mod directory;
mod ended;
pub mod frame_ring;
pub mod housekeeping;
mod memory;
pub mod reader;
mod staging;
mod track_names;
pub mod waker;

pub use broker::{Broker, BrokerOptions};
pub use directory::{OutputOptions, RingDirectory, StreamOutput};
pub use frame_ring::{StreamRings, TrackReady};
pub use housekeeping::{Housekeeping, Job};
pub use waker::Waker;
