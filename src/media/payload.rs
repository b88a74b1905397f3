//! What a protocol hands up: media bytes in order, with what is known of their way here.

use crate::base::{Instant, Packet};

/// The media bytes of one datagram, in order; on time, or before it with the time to wait for.
#[derive(Debug)]
pub struct Payload {
    /// The bytes, the protocol's header already cut off.
    pub packet: Packet,
    /// When the datagram that carried them was taken in by the kernel.
    pub arrival: Instant,
    /// When they were due for delivery: the TSBPD time in SRT (draft-sharabayko-srt §4.5), the arrival elsewhere.
    pub due: Instant,
    /// Position in the session, unwrapped; consecutive payloads differ by one.
    pub sequence: u64,
    /// How many payloads are missing between the one before and this one.
    pub lost_before: u32,
    /// It was lost at first and came by retransmission, FEC or another path.
    pub recovered: bool,
    /// Bit n is set when it came by path n.
    pub path_mask: u8,
    /// Whether a message ends with it: each does, but in SRT, where a sender may cut one into several packets (draft-sharabayko-srt
    /// §4.2.1). All of a message is handed up, or nothing of it.
    pub ends_message: bool,
}
