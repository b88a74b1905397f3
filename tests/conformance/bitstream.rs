//! Writes bit streams by hand, for what no free encoder makes.

/// The counterpart of `BitReader`.
#[derive(Clone, Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// Bits used of the last byte; 0 when it is full.
    used: u32,
}

impl BitWriter {
    pub fn bit(&mut self, bit: bool) -> &mut Self {
        if self.used == 0 {
            self.bytes.push(0);
        }
        *self.bytes.last_mut().expect("a byte") |= u8::from(bit) << (7 - self.used);
        self.used = (self.used + 1) % 8;
        self
    }

    /// `u(count)`.
    pub fn bits(&mut self, count: u32, value: u32) -> &mut Self {
        for shift in (0..count).rev() {
            self.bit(value >> shift & 1 == 1);
        }
        self
    }

    /// `ue(v)`.
    pub fn ue(&mut self, value: u32) -> &mut Self {
        let code = u64::from(value) + 1;
        let len = 64 - code.leading_zeros();
        for shift in (0..2 * len - 1).rev() {
            self.bit(code >> shift & 1 == 1);
        }
        self
    }

    /// `se(v)`.
    pub fn se(&mut self, value: i32) -> &mut Self {
        self.ue(if value > 0 { value as u32 * 2 - 1 } else { value.unsigned_abs() * 2 })
    }

    /// Zeros up to the next byte.
    pub fn align(&mut self) -> &mut Self {
        self.used = 0;
        self
    }

    /// Whole bytes, on a byte boundary.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        assert_eq!(self.used, 0);
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A NAL unit without start code: header, payload, `rbsp_trailing_bits`, emulation prevention.
    pub fn nal(&self, header: u8) -> Vec<u8> {
        let mut payload = self.clone();
        payload.bit(true).align();
        let mut unit = vec![header];
        let mut zeros = 0;
        for &byte in &payload.bytes {
            if zeros >= 2 && byte <= 3 {
                unit.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            unit.push(byte);
        }
        unit
    }
}
