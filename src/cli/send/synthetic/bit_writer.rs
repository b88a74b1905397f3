//! Writing fields that do not stand on byte boundaries.

/// Appends bits, the most significant first.
#[derive(Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    free: u32,
}

impl BitWriter {
    /// Nothing written.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), free: 0 }
    }

    /// The low `count` bits of `value`.
    pub fn bits(&mut self, value: u32, count: u32) {
        for n in (0..count).rev() {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            self.free -= 1;
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> n & 1) as u8) << self.free;
            }
        }
    }

    /// `ue(v)` (H.264 §9.1).
    pub fn ue(&mut self, value: u32) {
        let code = value + 1;
        let length = 32 - code.leading_zeros();
        self.bits(0, length - 1);
        self.bits(code, length);
    }

    /// `se(v)` (H.264 §9.1.1).
    pub fn se(&mut self, value: i32) {
        self.ue(if value > 0 { value as u32 * 2 - 1 } else { value.unsigned_abs() * 2 });
    }

    /// Zeros up to the next byte.
    pub fn align(&mut self) {
        self.free = 0;
    }

    /// Whole bytes, on a byte boundary.
    pub fn bytes(&mut self, bytes: impl IntoIterator<Item = u8>) {
        debug_assert_eq!(self.free, 0);
        self.bytes.extend(bytes);
    }

    /// `rbsp_trailing_bits` (H.264 §7.3.2.11).
    pub fn trailing(&mut self) {
        self.bits(1, 1);
        self.align();
    }

    /// What was written, with zeros up to the next byte.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes begun.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bits::BitReader;

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut writer = BitWriter::new();
        writer.bits(0b101, 3);
        writer.ue(0);
        writer.ue(30);
        writer.se(-2);
        writer.trailing();
        writer.bytes([0xab]);
        assert_eq!(writer.len(), 4);
        let bytes = writer.into_bytes();
        let mut reader = BitReader::new(&bytes);
        assert_eq!(reader.bits(3), Some(0b101));
        assert_eq!(reader.bits(1), Some(1));
        // ue(30): four zeros and 31.
        assert_eq!(reader.bits(9), Some(31));
        // se(-2) is ue(4).
        assert_eq!(reader.bits(5), Some(5));
        assert_eq!(reader.bits(6), Some(0b10_0000));
        assert_eq!(reader.bits(8), Some(0xab));
    }
}
