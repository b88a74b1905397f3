//! The checksum of MPEG audio (ISO/IEC 11172-3 §2.4.3.1) and AC-3 (ETSI TS 102 366 §6.1.7): x¹⁶ + x¹⁵ + x² + 1, first bit first.

const POLYNOMIAL: u16 = 0x8005;

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = shift((byte as u16) << 8, 8);
        byte += 1;
    }
    table
};

const fn shift(mut crc: u16, bits: u32) -> u16 {
    let mut left = bits;
    while left > 0 {
        crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ POLYNOMIAL };
        left -= 1;
    }
    crc
}

/// The checksum after these bytes.
pub(super) fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, &byte| crc << 8 ^ TABLE[usize::from(crc >> 8 ^ u16::from(byte))])
}

/// The checksum after the first `bits` (at most 8) of `byte`.
pub(super) fn crc16_bits(crc: u16, byte: u8, bits: u32) -> u16 {
    let kept = if bits == 0 { 0 } else { u16::from(byte) & (0xff00 >> bits) };
    shift(crc ^ kept << 8, bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue_are_met() {
        // CRC-16/UMTS and CRC-16/CMS of "123456789".
        assert_eq!(crc16(0, b"123456789"), 0xfee8);
        assert_eq!(crc16(0xffff, b"123456789"), 0xaee7);
    }

    #[test]
    fn bits_add_up_to_bytes() {
        let by_bits =
            [(0xa5, 3), (0xa5 << 3, 5)].iter().fold(7, |crc, &(byte, bits)| crc16_bits(crc, byte as u8, bits));
        assert_eq!(by_bits, crc16(7, &[0xa5]));
        assert_eq!(crc16_bits(7, 0xff, 0), 7);
    }
}
