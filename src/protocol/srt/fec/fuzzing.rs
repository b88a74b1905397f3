//! Body of the fuzz target: the text of a filter, and a receiver's half that is fed what a sender's half makes, changed and mixed with
//! anything else. Called by `tests/fuzz` and by a test on random bytes.

use super::super::loss::ReceiverLosses;
use super::super::packet::{DataHeader, HEADER_LEN, Header, KeyFlag, SequenceNumber, parse};
use super::super::parameters::VERSION;
use super::super::statistics::Statistics;
use super::configuration::{ArqLevel, Fec, FilterConfiguration, Layout};
use super::decoder::Decoder;
use super::encoder::Encoder;
use crate::base::{PacketPool, PoolOptions};

const FIRST: u64 = 0x7fff_ff80;
const PAYLOAD_MAX: usize = 64;

/// A text: what is read is printed, and read again the same, here and on the wire.
fn fuzz_text(bytes: &[u8]) {
    if let Ok(read) = FilterConfiguration::from_wire(bytes) {
        assert_eq!(FilterConfiguration::from_wire(&read.to_wire()), Ok(read));
        assert_eq!(read.to_string().parse(), Ok(read));
        if let Ok(fec) = read.complete() {
            assert_eq!(FilterConfiguration::from(fec).complete(), Ok(fec));
        }
    }
}

/// Three bytes for the geometry, then steps of four, some followed by the content of a packet. Promises that must hold whatever comes:
/// a slot for each control packet that is held, no more of them than there are groups, none lost, and no packet rebuilt that is
/// longer than any can be.
pub fn fuzz_fec(data: &[u8]) {
    fuzz_text(data);
    let Some((&[cols, rows, flags], mut rest)) = data.split_first_chunk::<3>() else { return };
    let fec = Fec {
        cols: 2 + u16::from(cols % 15),
        rows: 1 + u16::from(rows % 8),
        has_rows: flags & 1 == 0 || rows % 8 == 0,
        layout: if flags & 2 == 0 { Layout::Even } else { Layout::Staircase },
        arq: ArqLevel::OnRequest,
    };
    let groups = Decoder::groups_max(&fec);
    let options = PoolOptions { slots: groups + 8, slot_size: 512, ..PoolOptions::default() };
    let pool = PacketPool::new(options).expect("packet memory for all groups");
    let mut losses = ReceiverLosses::new(1 << 12, 0, VERSION).behind_filter(fec.arq);
    let mut statistics = Statistics::default();
    let mut decoder = Decoder::new(&fec, FIRST, PAYLOAD_MAX, u16::from(flags >> 4));
    let mut encoder = Encoder::new(&fec, FIRST, PAYLOAD_MAX);
    let mut next = FIRST;
    while let Some((&[kind, a, b, length], after)) = rest.split_first_chunk::<4>() {
        let (content, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        let distance = i64::from(i16::from_le_bytes([a, b]));
        let header = DataHeader {
            sequence: SequenceNumber::new(next),
            key: KeyFlag::from_bits(u32::from(kind >> 4)),
            message_number: 1 + (next & 0xffff) as u32,
            timestamp_us: u32::from(b) << 12,
            ..DataHeader::default()
        };
        match kind % 4 {
            // As it was sent, packets missing and control packets changed.
            0 | 1 => {
                let content = &content[..content.len().min(PAYLOAD_MAX)];
                encoder.feed(next, &header, content);
                if a & 3 != 0 {
                    decoder.data(next, &header, content, &mut losses, &mut statistics);
                }
                next += 1 + u64::from(a == 0xff) * u64::from(b);
                let mut bytes = Vec::new();
                while encoder.write_control(7, &mut bytes) {
                    let mut bytes = std::mem::take(&mut bytes);
                    if a & 0x3c == 0x3c {
                        let at = usize::from(b) % bytes.len();
                        bytes[at] ^= 1 << (b & 7);
                    }
                    let Ok(Header::Data(header)) = parse(&bytes) else { continue };
                    if let (Some(packet), true) = (pool.copy_from(&bytes), a & 0xc0 != 0xc0) {
                        decoder.control(&header, packet, &mut statistics);
                    }
                }
            }
            2 => {
                let sequence = next.saturating_add_signed(distance);
                let header = DataHeader { sequence: SequenceNumber::new(sequence), ..header };
                decoder.data(sequence, &header, content, &mut losses, &mut statistics);
            }
            _ => {
                let header =
                    DataHeader { sequence: SequenceNumber::new(next).offset(distance), message_number: 0, ..header };
                let mut bytes = vec![0; HEADER_LEN];
                header.encode(bytes.first_chunk_mut().expect("as long as a header"));
                bytes.extend_from_slice(content);
                if kind == 0xff {
                    next += u64::from(a) << 8;
                    decoder.restart(next);
                } else if let Some(packet) = pool.copy_from(&bytes) {
                    decoder.control(&header, packet, &mut statistics);
                }
            }
        }
        while let Some(rebuilt) = decoder.poll_rebuilt(&mut statistics) {
            assert!(rebuilt.payload.len() <= PAYLOAD_MAX && rebuilt.sequence >= FIRST);
            assert_eq!(rebuilt.header.sequence, SequenceNumber::new(rebuilt.sequence));
            assert_ne!((rebuilt.header.message_number, rebuilt.header.key), (0, KeyFlag::Both));
        }
        assert_eq!(pool.in_use(), decoder.held(), "a slot is lost");
        assert!(decoder.held() <= groups);
    }
    decoder.clear();
    assert_eq!(pool.in_use(), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn a_filter_survives_any_peer(bytes in proptest::collection::vec(any::<u8>(), 0..900)) {
            super::fuzz_fec(&bytes);
        }
    }
}
