//! SRT, live mode, as `draft-sharabayko-srt-01` describes it and libsrt speaks it.

pub mod caller;
pub mod control;
pub mod encryption;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
pub mod listener;
pub mod packet;
pub mod parameters;
pub mod stream_id;
