//! Packet memory.

/// A handle to a packet.
#[derive(Debug)]
pub struct Packet(Vec<u8>);
