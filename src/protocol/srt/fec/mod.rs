//! libsrt's packet filter `fec`: lost packets made again from XOR sums of their neighbours, without asking for them.
//!
//! ```text
//!   sender                                            receiver
//!   encoder: each first sending into the sum          decoder: each packet that came into the sums
//!   of its row and of its column          ─────▶      of its row and of its column; where a sum is
//!            a sum that is whole goes out as          there and one packet is not, the rest of the
//!            a packet with message number 0           sum is that packet
//! ```
//!
//! The filter stands below encryption: sums are made of what is on the wire, and what was rebuilt is decrypted as if it had come.
//! Facts are those of libsrt's `docs/features/packet-filtering-and-fec.md` and `srtcore/fec.cpp`; the code goes where they differ,
//! as in the default layout.
//!
//! `configuration.rs` is the text that both sides agree on, `geometry.rs` which packets a sum is of, `clip.rs` the sums.

pub mod clip;
pub mod configuration;
pub mod decoder;
pub mod encoder;
#[doc(hidden)]
pub mod fuzzing;
pub mod geometry;
#[cfg(test)]
mod tests;

/// What stands before the sum of the payloads in a control packet: index of the column, sum of the flags, sum of the lengths
/// (libsrt: `FECFilterBuiltin::EXTRA_SIZE`).
pub const FEC_HEADER_LEN: usize = 4;

/// The index that says "a row".
pub const ROW_INDEX: u8 = 0xff;
