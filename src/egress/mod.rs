//! Floor 6: readers of rings that make something of frames.

pub mod carriage;
pub mod output_clock;
pub mod remux;
