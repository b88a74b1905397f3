//! Silence in AAC-LC, stereo, 48 kHz, in ADTS (ISO/IEC 13818-7 §6.2, §6.3).

use super::bit_writer::BitWriter;

const ADTS_HEADER_LEN: usize = 7;
/// Bytes in front of and behind the filling: two silent channels, ends and lengths.
const WITHOUT_FILLING: usize = 8;
/// What one fill element adds beyond its filling, in bits, rounded up to bytes.
const FILL_MAX: usize = 269;

/// Makes frames, all the same.
#[derive(Debug)]
pub struct Encoder {
    frame: Vec<u8>,
}

impl Encoder {
    /// Nothing made yet.
    pub const fn new() -> Self {
        Self { frame: Vec::new() }
    }

    /// Appends a frame of about `size` bytes to `out`.
    pub fn frame(&mut self, size: usize, out: &mut Vec<u8>) {
        if self.frame.is_empty() {
            self.frame = silence(size);
        }
        out.extend_from_slice(&self.frame);
    }
}

fn silence(size: usize) -> Vec<u8> {
    let mut payload = BitWriter::new();
    // channel_pair_element, tag 0, no common window.
    payload.bits(0b001, 3);
    payload.bits(0, 4 + 1);
    for _ in 0..2 {
        // global_gain; ics_info: reserved bit, long window, sine, no scale factor bands, no prediction; no pulses, no TNS,
        // no gain control.
        payload.bits(0, 8);
        payload.bits(0, 1 + 2 + 1 + 6 + 1);
        payload.bits(0, 3);
    }
    let mut filling = size.saturating_sub(ADTS_HEADER_LEN + WITHOUT_FILLING);
    while filling > 15 {
        let count = filling.min(FILL_MAX);
        // fill_element with an escaped count: 14 + esc_count bytes of extension_payload, of type EXT_FILL.
        payload.bits(0b110, 3);
        payload.bits(15, 4);
        payload.bits(count as u32 - 14, 8);
        (0..count).for_each(|_| payload.bits(0, 8));
        filling -= count;
    }
    // end
    payload.bits(0b111, 3);
    let payload = payload.into_bytes();
    let length = (ADTS_HEADER_LEN + payload.len()) as u32;
    let mut header = BitWriter::new();
    // Sync word, MPEG-4, layer 0, no CRC; AAC-LC, 48 kHz, two channels.
    header.bits(0xfff1, 16);
    header.bits(1, 2);
    header.bits(3, 4);
    header.bits(0, 1);
    header.bits(2, 3);
    header.bits(0, 4);
    header.bits(length, 13);
    // Buffer fullness "variable rate", one raw data block.
    header.bits(0x7ff, 11);
    header.bits(0, 2);
    let mut frame = header.into_bytes();
    frame.extend(payload);
    frame
}
