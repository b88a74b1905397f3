//! The body of the fuzz target.

use super::H264Framer;
use crate::codec::annexb;

/// Feeds a framer with `data`, which also decides how it is cut. Panics on a broken promise.
#[doc(hidden)]
pub fn fuzz_h264(data: &[u8]) {
    annexb::fuzzing::exercise(H264Framer::new, data);
}
