//! SRT, live mode, as `draft-sharabayko-srt-01` describes it and libsrt speaks it.

pub mod control;
pub mod encryption;
pub mod handshake;
pub mod packet;
pub mod parameters;
pub mod stream_id;
