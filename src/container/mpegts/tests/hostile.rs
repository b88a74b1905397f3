//! Input that is wrong on purpose: nothing panics, nothing grows, nothing hangs.

use proptest::prelude::*;

use super::build::*;
use crate::container::mpegts::fuzzing::fuzz_demux;

/// A short stream that has a bit of everything, behind the two bytes that [`fuzz_demux`] reads.
fn sample() -> Vec<u8> {
    let mut stream = Stream(vec![0, 0]);
    stream.section(0, &pat(0, &[(1, PMT), (2, 0x1001)]));
    stream.section(PMT, &pmt(1, 0, VIDEO, &[(0x1b, VIDEO, b""), (0x06, AUDIO, b"\x05\x04Opus\x7f\x02\x80\x02")]));
    stream.section(0x1001, &pmt(2, 0, 0x300, &[(0x86, SPLICE, b"\x05\x04CUEI")]));
    let field = [0x50, 0, 0, 0, 0, 0x7e, 9];
    stream.packet(VIDEO, Plain { start: true, field: &field, ..Plain::default() }, &pes_start(0, 0, 1)[..170]);
    stream.next(VIDEO, 1, &full(2)).next(VIDEO, 2, &[3; 20]);
    stream.first(AUDIO, 0, &pes_start(7, 8 + 170 + 100, 1)).next(AUDIO, 1, &[4; 100]);
    stream.sections(SPLICE, 0, &[0x40, 0x70, 2, 1, 2, 0x40, 0x70, 1, 3]);
    stream.first(VIDEO, 3, &pes_header(9, 0)[..5]).next(VIDEO, 4, &full(5));
    stream.0
}

#[test]
fn a_stream_cut_off_at_any_byte_does_no_harm() {
    let bytes = sample();
    for end in 0..bytes.len() {
        fuzz_demux(&bytes[..end]);
    }
}

#[test]
fn a_stream_with_any_bit_flipped_does_no_harm() {
    let mut bytes = sample();
    for bit in 16..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        fuzz_demux(&bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..5_000)) {
        fuzz_demux(&bytes);
    }

    #[test]
    fn random_packets_do_no_harm(
        head in any::<[u8; 2]>(),
        packets in prop::collection::vec((0..6_usize, any::<[u8; 2]>(), prop::collection::vec(any::<u8>(), 184)), 0..60),
    ) {
        let mut bytes = sample();
        bytes[..2].copy_from_slice(&head);
        for (pid, flags, payload) in packets {
            let pid = [0, PMT, 0x1001, VIDEO, AUDIO, SPLICE][pid];
            bytes.extend([0x47, flags[0] & 0xe0 | (pid >> 8) as u8, pid as u8, flags[1]]);
            bytes.extend(payload);
        }
        fuzz_demux(&bytes);
    }

    #[test]
    fn random_tables_with_right_crcs_do_no_harm(
        tables in prop::collection::vec((0..3_u16, 0..32_u8, any::<[bool; 2]>(), prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0xf0), Just(0x10)], 0..150)), 1..60),
    ) {
        let mut stream = Stream(sample());
        for (number, (kind, version, [last, second], body)) in tables.iter().enumerate() {
            let pid = [0, PMT, 0x1001][usize::from(*kind)];
            let table_id = if *kind == 0 { 0 } else { 2 };
            let section = table(table_id, *kind, version & 0x1f, [u8::from(*second), u8::from(*last)], body);
            stream.sections(pid, number as u8, &section);
        }
        fuzz_demux(&stream.0);
    }
}
