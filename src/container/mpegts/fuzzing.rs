//! What the fuzz targets call, and the tests with hostile input too.

use super::{Demux, Event, Limits, PACKET_LEN};

/// Pushes arbitrary bytes, cut as the first byte says, with gaps where the second says, and checks what must hold for any
/// input: no panic, an end, never more payload out than bytes in, and no more tracks than the limits allow.
pub fn fuzz_demux(data: &[u8]) {
    let Some((&[cut, gaps], bytes)) = data.split_first_chunk::<2>() else { return };
    let limits = Limits { programmes: 4, tracks: 8, section_bytes: 1024 };
    let mut demux = Demux::new(limits);
    let cut = if cut == 0 { 7 * PACKET_LEN } else { usize::from(cut) };
    let mut delivered = 0;
    for (number, mut piece) in bytes.chunks(cut).enumerate() {
        if gaps > 0 && number % usize::from(gaps) == usize::from(gaps) - 1 {
            demux.gap(u32::from(gaps) % 20);
        }
        // A packet can tell a PCR to each programme and hold many short sections, but no more of them than bytes.
        let mut events = (piece.len() + 1024) * 4;
        while let Some(event) = demux.push(&mut piece) {
            events = events.checked_sub(1).expect("more events than the bytes can tell");
            match event {
                Event::PesData { data, track } => {
                    assert!(!data.is_empty() && data.len() <= PACKET_LEN - 4);
                    assert!(demux.track(track).is_some());
                    delivered += 1;
                }
                Event::Section { data, .. } => assert!(data.len() <= limits.section_bytes),
                Event::PesStart { track, .. } | Event::Discontinuity { track, .. } => {
                    assert!(demux.track(track).is_some());
                }
                _ => {}
            }
        }
        assert!(piece.is_empty());
        assert!(demux.tracks().count() <= limits.tracks && demux.programmes().count() <= limits.programmes);
    }
    assert!(delivered <= demux.statistics().packets);
}
