//! HEVC: ITU-T Rec. H.265 (ISO/IEC 23008-2).
pub mod rtp;
