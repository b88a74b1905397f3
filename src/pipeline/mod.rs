//! Floor 3: joins protocol, container and codec into whole access units on one timeline.

pub mod assembler;
pub mod breaker;
pub mod elementary;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod ingest;
pub mod timeline;
pub mod transport;

pub use assembler::Assembler;
pub use frame::{Damage, DiscontinuityCause, Frame, FrameSink, FrameTooLarge};
pub use timeline::Timeline;
