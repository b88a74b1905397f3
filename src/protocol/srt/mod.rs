//! SRT (draft-sharabayko-srt-01, libsrt 1.5): live mode, from the bytes of a datagram to payloads in order and on time.

pub mod acknowledgement;
pub mod delivery_time;
pub mod loss;
pub mod receive_buffer;
pub mod send_buffer;
pub mod sequence_set;
pub mod statistics;
