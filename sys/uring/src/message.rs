//! What multishot `recvmsg` writes into a slot: a header of its own, then name, control data and payload.
//!
//! All of it is judged as bytes; there is no `unsafe` in this file.
//!
//! ```text
//! slot: │ io_uring_recvmsg_out 16 │ name 32 │ control 128 │ payload … │
//! ```

use headworks_datagram::{CONTROL_SIZE, Headers, NAME_SIZE, Received};
use headworks_packet::Packet;

/// `struct io_uring_recvmsg_out`: name length, control length, payload length, flags.
const OUT_SIZE: usize = 16;
/// Bytes before the payload in a slot.
pub(crate) const HEADER_SIZE: usize = OUT_SIZE + NAME_SIZE + CONTROL_SIZE;

/// Reads the headers the kernel wrote into a slot. `None` if they contradict each other, which no kernel does.
#[inline]
pub(crate) fn parse(mut packet: Packet, token: u32) -> Option<Received> {
    let bytes = &packet[..];
    if bytes.len() < HEADER_SIZE {
        return None;
    }
    let (header, payload) = bytes.split_at(HEADER_SIZE);
    let name_length = u32_at(header, 0) as usize;
    let control_length = u32_at(header, 4) as usize;
    let payload_length = u32_at(header, 8) as usize;
    let flags = u32_at(header, 12);
    let length = payload.len().min(payload_length);
    let name = &header[OUT_SIZE..OUT_SIZE + NAME_SIZE];
    let control = &header[OUT_SIZE + NAME_SIZE..];
    let headers = Headers::read(&name[..name_length.min(NAME_SIZE)], &control[..control_length.min(CONTROL_SIZE)])?;
    let truncated = flags & libc::MSG_TRUNC as u32 != 0 || payload_length > payload.len();
    packet.advance(HEADER_SIZE);
    packet.truncate(length);
    Some(Received::new(packet, token, headers, truncated))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use headworks_packet::{PacketPool, PoolOptions};
    use proptest::prelude::*;

    /// `sockaddr_in` of 192.0.2.7:5004.
    const NAME: [u8; 16] = [2, 0, 0x13, 0x8c, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0];

    fn slot(name: &[u8], control: &[u8], payload: &[u8], flags: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, control.len() as u32, payload.len() as u32, flags] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(name);
        bytes.resize(OUT_SIZE + NAME_SIZE, 0xee);
        bytes.extend(control);
        bytes.resize(HEADER_SIZE, 0xee);
        bytes.extend(payload);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Received> {
        let pool = PacketPool::new(PoolOptions { slots: 1, ..PoolOptions::default() }).unwrap();
        super::parse(pool.copy_from(bytes).unwrap(), 7)
    }

    #[test]
    fn a_datagram_is_found_behind_its_headers() {
        // `SO_RXQ_OVFL`: length 20, level, type, the count, and what fills up to 24.
        let mut control = [0; 24];
        control[0] = 20;
        control[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        control[12..16].copy_from_slice(&libc::SO_RXQ_OVFL.to_ne_bytes());
        control[16] = 9;
        let received = parse(&slot(&NAME, &control, b"payload", 0)).unwrap();
        assert_eq!((&received.packet[..], received.token), (&b"payload"[..], 7));
        assert_eq!(received.peer, "192.0.2.7:5004".parse().unwrap());
        assert_eq!((received.overflow, received.truncated), (Some(9), false));
    }

    #[test]
    fn a_truncated_datagram_says_so() {
        let received = parse(&slot(&NAME, &[], b"cut", libc::MSG_TRUNC as u32)).unwrap();
        assert!(received.truncated);
        assert_eq!(&received.packet[..], b"cut");
        let mut bytes = slot(&NAME, &[], b"cut", 0);
        bytes[8] = 200;
        let received = parse(&bytes).unwrap();
        assert!(received.truncated);
        assert_eq!(received.packet.len(), 3);
    }

    #[test]
    fn a_header_cut_short_or_of_a_strange_family_is_refused() {
        let good = slot(&NAME, &[], b"", 0);
        assert!(parse(&good).is_some());
        assert!(parse(&good[..HEADER_SIZE - 1]).is_none());
        assert!(parse(&slot(&[1, 0, 3, 4], &[], b"", 0)).is_none());
        assert!(parse(&slot(&[9; 28], &[], b"", 0)).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), family in 0..3u8) {
            if bytes.len() >= HEADER_SIZE {
                // Plausible enough to get past the first checks.
                bytes[1..4].fill(0);
                bytes[5..8].fill(0);
                bytes[16] = [2, 10, 77][usize::from(family)];
                bytes[17] = 0;
                bytes[49..56].fill(0);
            }
            if let Some(received) = parse(&bytes) {
                prop_assert!(received.packet.len() <= bytes.len() - HEADER_SIZE);
                let (length, is_cut) = (received.packet.len(), received.truncated);
                let total: usize = received.into_segments().map(|p| p.len()).sum();
                prop_assert!(total == length || is_cut && total < length);
            }
        }
    }
}
