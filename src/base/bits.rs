//! Reading fields that do not stand on byte boundaries: parameter sets, slice headers, audio headers.

/// Reads bits from the most significant end of a slice. Past the end it gives `None`, and stays there.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    /// Starts at the first bit of `bytes`.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Number of bits read so far.
    #[inline]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Number of bits left.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.bytes.len() * 8 - self.position
    }

    /// One bit.
    #[inline]
    pub fn flag(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.position / 8)?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Some(bit == 1)
    }

    /// `count` bits (at most 32) as an unsigned number: `u(n)`.
    #[inline]
    pub fn bits(&mut self, count: u32) -> Option<u32> {
        assert!(count <= 32, "a field wider than 32 bits is read in two parts");
        if self.remaining() < count as usize {
            self.position = self.bytes.len() * 8;
            return None;
        }
        let mut value = 0_u64;
        let mut left = count;
        while left > 0 {
            let byte = u64::from(self.bytes[self.position / 8]);
            let offset = (self.position % 8) as u32;
            let take = left.min(8 - offset);
            let part = byte >> (8 - offset - take) & ((1 << take) - 1);
            value = value << take | part;
            self.position += take as usize;
            left -= take;
        }
        Some(value as u32)
    }

    /// Passes over `count` bits.
    #[inline]
    pub fn skip(&mut self, count: usize) -> Option<()> {
        if self.remaining() < count {
            self.position = self.bytes.len() * 8;
            return None;
        }
        self.position += count;
        Some(())
    }

    /// Unsigned Exp-Golomb number, `ue(v)` (H.264 §9.1); `None` for more than 32 leading zeros.
    #[inline]
    pub fn unsigned_exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 32 {
                return None;
            }
        }
        if zeros == 32 {
            // Only 2^32 - 1 itself, whose suffix is zero, is still a 32-bit number.
            return (self.bits(32)? == 0).then_some(u32::MAX);
        }
        Some((1_u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// Signed Exp-Golomb number, `se(v)` (H.264 §9.1.1).
    #[inline]
    pub fn signed_exp_golomb(&mut self) -> Option<i32> {
        let code = i64::from(self.unsigned_exp_golomb()?);
        let magnitude = (code + 1) / 2;
        i32::try_from(if code % 2 == 1 { magnitude } else { -magnitude }).ok()
    }

    /// Passes over the bits up to the next byte boundary.
    #[inline]
    pub fn align(&mut self) {
        self.position = self.position.next_multiple_of(8);
    }

    /// The bytes not read yet, when standing on a byte boundary.
    pub fn aligned_rest(&self) -> Option<&'a [u8]> {
        (self.position.is_multiple_of(8)).then(|| &self.bytes[self.position / 8..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_across_byte_boundaries() {
        let mut reader = BitReader::new(&[0b1010_0101, 0b1100_0011, 0xff]);
        assert_eq!(reader.bits(3), Some(0b101));
        assert_eq!(reader.bits(7), Some(0b001_0111));
        assert_eq!(reader.flag(), Some(false));
        reader.align();
        assert_eq!(reader.aligned_rest(), Some(&[0xff][..]));
        assert_eq!(reader.bits(8), Some(0xff));
        assert_eq!(reader.bits(1), None);
        assert_eq!(reader.flag(), None);
    }

    #[test]
    fn exp_golomb_follows_the_table_of_the_standard() {
        let mut reader = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let read: Vec<_> = (0..4).map(|_| reader.unsigned_exp_golomb()).collect();
        assert_eq!(read, [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(reader.unsigned_exp_golomb(), Some(4));
        let mut reader = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let read: Vec<_> = (0..5).map(|_| reader.signed_exp_golomb()).collect();
        assert_eq!(read, [Some(0), Some(1), Some(-1), Some(2), Some(-2)]);
    }

    #[test]
    fn endless_zeros_are_no_number() {
        let mut reader = BitReader::new(&[0; 16]);
        assert_eq!(reader.unsigned_exp_golomb(), None);
    }
}
