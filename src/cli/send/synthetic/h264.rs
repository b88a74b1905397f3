//! Pictures in H.264, CAVLC, High profile: noise above, grey below, without a prediction worth the name.

use super::bit_writer::BitWriter;
use crate::shard::net::random::Random;

/// Samples of a macroblock: 16 × 16 of luma, twice 8 × 8 of chroma.
const SAMPLES: usize = 384;
/// An I_PCM macroblock with its type and its alignment, in bytes.
const CODED: usize = SAMPLES + 2;
/// Bits of `frame_num` and of the picture order count.
const FRAME_NUM_BITS: u32 = 8;

/// Width and height, in macroblocks, and rows of luma that are cut off below.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    width: usize,
    height: usize,
    cropped: u32,
    level: u32,
}

impl Size {
    /// 1920 × 1080.
    pub const FULL: Self = Self { width: 120, height: 68, cropped: 8, level: 51 };
    /// 640 × 360.
    pub const SMALL: Self = Self { width: 40, height: 23, cropped: 8, level: 31 };

    const fn macroblocks(self) -> usize {
        self.width * self.height
    }
}

/// Makes pictures.
#[derive(Debug)]
pub struct Encoder {
    size: Size,
    frame_num: u32,
    idr_id: u32,
}

impl Encoder {
    /// Pictures of this size.
    pub const fn new(size: Size) -> Self {
        Self { size, frame_num: 0, idr_id: 0 }
    }

    /// Appends a picture of about `size` bytes to `out`, with its delimiter and, where a GOP begins, parameter sets.
    pub fn picture(&mut self, is_idr: bool, size: usize, random: &mut Random, out: &mut Vec<u8>) {
        let before = out.len();
        // Access unit delimiter: I only, or I and P.
        unit(out, 0x09, &[if is_idr { 0x10 } else { 0x30 }]);
        if is_idr {
            self.frame_num = 0;
            self.idr_id ^= 1;
            unit(out, 0x67, &self.sequence_parameters());
            unit(out, 0x68, &picture_parameters());
        }
        let mut slice = BitWriter::new();
        self.slice_header(is_idr, &mut slice);
        let used = out.len() - before + slice.len() + 8;
        // What is not noise costs about a byte in an IDR picture, and nothing else.
        let grey = if is_idr { self.size.macroblocks() } else { 4 };
        let noise = (size.saturating_sub(used + grey) / CODED).min(self.size.macroblocks());
        if is_idr {
            self.intra_data(noise, random, &mut slice);
        } else {
            self.inter_data(noise, random, &mut slice);
        }
        slice.trailing();
        unit(out, if is_idr { 0x65 } else { 0x41 }, &slice.into_bytes());
        self.frame_num = (self.frame_num + 1) % (1 << FRAME_NUM_BITS);
    }

    /// H.264 §7.3.2.1.1.
    fn sequence_parameters(&self) -> Vec<u8> {
        let mut sps = BitWriter::new();
        sps.bits(100, 8);
        sps.bits(0, 8);
        sps.bits(self.size.level, 8);
        // Id; 4:2:0, 8 bits, no transform bypass, no scaling matrix.
        sps.ue(0);
        sps.ue(1);
        sps.ue(0);
        sps.ue(0);
        sps.bits(0, 2);
        sps.ue(FRAME_NUM_BITS - 4);
        // Output order is decoding order; one reference frame, no gaps.
        sps.ue(2);
        sps.ue(1);
        sps.bits(0, 1);
        sps.ue(self.size.width as u32 - 1);
        sps.ue(self.size.height as u32 - 1);
        // Frames only, direct_8x8_inference.
        sps.bits(0b11, 2);
        sps.bits(1, 1);
        for cropped in [0, 0, 0, self.size.cropped / 2] {
            sps.ue(cropped);
        }
        // VUI: square samples, timing of 25 pictures per second, fixed; no HRD; no reordering.
        sps.bits(1, 1);
        sps.bits(1, 1);
        sps.bits(1, 8);
        sps.bits(0, 1 + 1 + 1);
        sps.bits(1, 1);
        sps.bits(1, 32);
        sps.bits(50, 32);
        sps.bits(1, 1);
        sps.bits(0, 1 + 1 + 1);
        sps.bits(1, 1);
        sps.bits(1, 1);
        for value in [0, 0, 16, 16, 0, 1] {
            sps.ue(value);
        }
        sps.trailing();
        sps.into_bytes()
    }

    /// H.264 §7.3.3, without what these parameter sets leave out.
    fn slice_header(&self, is_idr: bool, slice: &mut BitWriter) {
        slice.ue(0);
        // All slices of the picture are I, or P.
        slice.ue(if is_idr { 7 } else { 5 });
        slice.ue(0);
        slice.bits(self.frame_num, FRAME_NUM_BITS);
        if is_idr {
            slice.ue(self.idr_id);
        } else {
            // As many references as the picture parameters say, in their own order.
            slice.bits(0, 2);
        }
        // Reference marking: nothing out of the ordinary.
        slice.bits(0, if is_idr { 2 } else { 1 });
        slice.se(0);
        // No deblocking.
        slice.ue(1);
    }

    fn intra_data(&self, noise: usize, random: &mut Random, slice: &mut BitWriter) {
        let is_noise = |place: Option<usize>| place.is_some_and(|place| place < noise);
        for place in 0..self.size.macroblocks() {
            if place < noise {
                slice.ue(25);
                samples(random, slice);
                continue;
            }
            // I_16x16 by the mean of the neighbours, no coefficients but those of DC, of which there are none; how that is
            // written depends on whether a neighbour is noise, which counts as full of coefficients.
            slice.ue(3);
            slice.ue(0);
            slice.se(0);
            let left = (place % self.size.width > 0).then(|| place - 1);
            let above = place.checked_sub(self.size.width);
            if is_noise(left) || is_noise(above) {
                slice.bits(0b00_0011, 6);
            } else {
                slice.bits(1, 1);
            }
        }
    }

    fn inter_data(&self, noise: usize, random: &mut Random, slice: &mut BitWriter) {
        for _ in 0..noise {
            // None skipped; the types of I macroblocks stand behind the five of P.
            slice.ue(0);
            slice.ue(5 + 25);
            samples(random, slice);
        }
        let skipped = self.size.macroblocks() - noise;
        if skipped > 0 {
            slice.ue(skipped as u32);
        }
    }
}

/// Samples as they are, in the range of video and never 0, so that they cannot look like a start code.
fn samples(random: &mut Random, slice: &mut BitWriter) {
    slice.align();
    for _ in 0..SAMPLES / 8 {
        let bits = random.bits().to_le_bytes();
        slice.bytes(bits.map(|byte| 16 + byte % 208));
    }
}

/// H.264 §7.3.2.2.
fn picture_parameters() -> Vec<u8> {
    let mut pps = BitWriter::new();
    pps.ue(0);
    pps.ue(0);
    // CAVLC, no picture order in slices; one slice group; one reference each; no weights.
    pps.bits(0, 2);
    pps.ue(0);
    pps.ue(0);
    pps.ue(0);
    pps.bits(0, 1 + 2);
    for _ in 0..3 {
        pps.se(0);
    }
    // Deblocking is controlled in slices.
    pps.bits(0b100, 3);
    pps.trailing();
    pps.into_bytes()
}

/// A NAL unit with start code and emulation prevention (H.264 §7.4.1, Annex B).
fn unit(out: &mut Vec<u8>, header: u8, payload: &[u8]) {
    out.extend([0, 0, 0, 1, header]);
    let mut zeros = 0;
    for &byte in payload {
        if zeros >= 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
}
