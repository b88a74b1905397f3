//! HEVC (ITU-T H.265).

pub mod rtp;
