//! Matroska (RFC 9559) as a live stream: written once from front to back, of unknown length.
//!
//! ```text
//! mux.rs    tracks and frames → elements
//! ebml.rs   elements → bytes (RFC 8794)
//! ```

mod ebml;
mod mux;

pub use mux::{Details, MatroskaMux, MatroskaTrack, TICK_NS, TRACKS_MAX};
