use std::collections::HashMap;

use super::*;
use crate::cli::send::material::{Cursor, DATAGRAM_LEN};

fn bytes(material: &Material, rounds: u64) -> Vec<u8> {
    let mut cursor = Cursor::new();
    let mut datagram = [0; DATAGRAM_LEN];
    let mut bytes = Vec::new();
    while cursor.rounds() < rounds {
        let length = cursor.take(material, &mut datagram);
        bytes.extend_from_slice(&datagram[..length]);
    }
    bytes
}

#[test]
fn a_round_is_as_fast_as_asked_for_and_hardly_any_of_it_is_empty() {
    for rate in [1_000_000, 3_000_000, 8_000_000, 50_000_000] {
        let material = material(rate).unwrap();
        assert!((material.rate_bps() / rate as f64 - 1.0).abs() < 0.005, "{} for {rate}", material.rate_bps());
        let bytes = bytes(&material, 1);
        assert_eq!(bytes.len() % DATAGRAM_LEN, 0);
        let packets = bytes.chunks(PACKET_LEN);
        let null = packets.clone().filter(|packet| packet[1..3] == [0x1f, 0xff]).count() as f64;
        let share = null / packets.len() as f64;
        assert!(share > 0.0 && share <= 0.02, "{share} of {rate} are null packets");
    }
}

#[test]
fn rates_without_a_picture_are_refused() {
    assert_eq!(material(1_000).unwrap_err(), SyntheticError::Rate(1_000));
    assert_eq!(material(1_000_000_000).unwrap_err(), SyntheticError::Rate(1_000_000_000));
}

#[test]
fn counters_and_clock_go_on_without_a_seam() {
    let material = material(5_000_000).unwrap();
    let bytes = bytes(&material, 3);
    let mut counters: HashMap<u16, u8> = HashMap::new();
    let mut last_pcr: Option<(usize, i64)> = None;
    let bit_ticks = 27_000_000.0 * 8.0 / material.rate_bps();
    for (number, packet) in bytes.chunks(PACKET_LEN).enumerate() {
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        if pid == NULL_PID {
            continue;
        }
        if packet[3] & 0x10 != 0 {
            let counter = packet[3] & 0x0f;
            if let Some(last) = counters.insert(pid, counter) {
                assert_eq!(counter, (last + 1) & 0x0f, "PID {pid:#x}, packet {number}");
            }
        }
        if packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x10 != 0 {
            let field = u64::from_be_bytes([0, 0, packet[6], packet[7], packet[8], packet[9], packet[10], packet[11]]);
            let pcr = ((field >> 15) * 300 + (field & 0x1ff)) as i64;
            if let Some((before, last)) = last_pcr.replace((number, pcr)) {
                let expected = ((number - before) * PACKET_LEN) as f64 * bit_ticks;
                let error = (pcr - last) as f64 - expected;
                // A null packet more or less at the seam moves it by no more than a packet's time.
                assert!(error.abs() <= 2.0 * PACKET_LEN as f64 * bit_ticks, "{error} ticks at packet {number}");
            }
        }
    }
    assert!(last_pcr.is_some());
}
