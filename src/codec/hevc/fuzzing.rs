//! The body of the fuzz target.

use super::HevcFramer;
use crate::codec::annexb;

/// Feeds a framer with `data`, which also decides how it is cut. Panics on a broken promise.
#[doc(hidden)]
pub fn fuzz_hevc(data: &[u8]) {
    annexb::fuzzing::exercise(HevcFramer::new, data);
}
