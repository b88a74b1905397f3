//! Floor 2: containers, which carry several tracks in one sequence of bytes.

pub mod matroska;
pub mod mpegts;
