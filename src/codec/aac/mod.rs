//! AAC: ADTS (ISO/IEC 13818-7) and LATM in LOAS (ISO/IEC 14496-3), both published as raw access units.

pub mod adts;
pub mod config;
pub mod latm;

pub use adts::AdtsFramer;
pub use latm::LatmFramer;
