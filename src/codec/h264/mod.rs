//! H.264: ITU-T Rec. H.264 (ISO/IEC 14496-10).

pub mod access_unit;
pub mod configuration_record;
pub mod fuzzing;
pub mod nal;
pub mod parameters;
pub mod rtp;
pub mod sei;
pub mod slice;

pub use access_unit::{H264Framer, H264Syntax};

#[cfg(test)]
mod tests;
