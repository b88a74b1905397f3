//! The body of the fuzz target.

use super::Mpeg2VideoFramer;
use crate::codec::annexb;

/// Feeds a framer with `data`, which also decides how it is cut. Panics on a broken promise.
#[doc(hidden)]
pub fn fuzz_mpeg2(data: &[u8]) {
    annexb::fuzzing::exercise(Mpeg2VideoFramer::new, data);
}
