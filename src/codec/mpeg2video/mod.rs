//! MPEG-2 video: ITU-T Rec. H.262 (ISO/IEC 13818-2).
