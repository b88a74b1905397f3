//! SRT, live mode, as `draft-sharabayko-srt-01` describes it and libsrt speaks it.

pub mod acknowledgement;
pub mod address_proof;
pub mod caller;
pub mod connection;
pub mod control;
pub mod delivery_time;
pub mod encryption;
pub mod fec;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
pub mod listener;
pub mod loss;
pub mod packet;
pub mod parameters;
pub mod receive_buffer;
pub mod receiver;
pub mod send_buffer;
pub mod sender;
pub mod sequence_set;
pub mod statistics;
pub mod stream_id;
