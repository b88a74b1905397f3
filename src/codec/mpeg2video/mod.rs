//! MPEG-2 video: ITU-T Rec. H.262 (ISO/IEC 13818-2); MPEG-1 video (ISO/IEC 11172-2) reads the same.

pub mod access_unit;
pub mod fuzzing;
pub mod headers;

pub use access_unit::{Mpeg2VideoFramer, Mpeg2VideoSyntax};

#[cfg(test)]
mod tests;
