//! HEVC: ITU-T Rec. H.265 (ISO/IEC 23008-2).

pub mod access_unit;
pub mod configuration_record;
pub mod fuzzing;
pub mod nal;
pub mod parameters;
pub mod rtp;
pub mod sei;

pub use access_unit::{HevcFramer, HevcSyntax};

#[cfg(test)]
mod tests;
