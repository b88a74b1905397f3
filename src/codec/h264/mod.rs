//! H.264 (ITU-T H.264).

pub mod rtp;
