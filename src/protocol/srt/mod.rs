//! SRT, in live, message and buffer mode, as `draft-sharabayko-srt-01` describes it and libsrt speaks it; peers of before 1.3 too
//! (`connection/version4.rs`).

pub mod acknowledgement;
pub mod address_proof;
pub mod caller;
pub mod congestion;
pub mod connection;
pub mod control;
pub mod delivery_time;
pub mod encryption;
pub mod fec;
#[doc(hidden)]
pub mod fuzzing;
pub mod group;
pub mod handshake;
pub mod listener;
pub mod loss;
mod loss_repeats;
pub mod membership;
pub mod packet;
pub mod parameters;
pub mod receive_buffer;
pub mod receiver;
pub mod rendezvous;
pub mod send_buffer;
pub mod sender;
pub mod sequence_set;
pub mod snapshot;
pub mod statistics;
pub mod stream_id;
pub mod trace_statistics;
pub mod transmission_mode;
