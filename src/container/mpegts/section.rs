//! Sections out of packet payloads (H.222.0 §2.4.4), and their CRC.

/// Bytes up to and with `section_length`.
const SHORT_HEADER_LEN: usize = 3;
/// Bytes of the CRC at a section's end.
pub(super) const CRC_LEN: usize = 4;

/// In place of a `table_id`: no section follows in this packet.
pub(super) const STUFFING: u8 = 0xff;

/// CRC_32 of H.222.0 Annex A; over a section with its CRC it is 0.
pub fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| crc << 8 ^ CRC_TABLE[usize::from((crc >> 24) as u8 ^ byte)])
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000_0000 != 0 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// Puts the sections of one PID together, one at a time, in a buffer that never grows.
#[derive(Debug)]
pub(super) struct Assembler {
    buffer: Vec<u8>,
    limit: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Open,
    Complete,
}

/// What became of bytes given to an [`Assembler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All bytes are taken and the section goes on.
    Open,
    /// The section is complete and can be read until the next one begins.
    Complete,
    /// The section is longer than the limit and was given up.
    TooLong,
}

impl Assembler {
    pub(super) fn new(limit: usize) -> Self {
        Self { buffer: Vec::with_capacity(limit), limit, state: State::Idle }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The next byte fed is a `table_id`.
    pub(super) fn begin(&mut self) {
        self.buffer.clear();
        self.state = State::Open;
    }

    /// Gives up the open section; `true` when there was one.
    pub(super) fn abandon(&mut self) -> bool {
        let was_open = self.is_open();
        self.state = State::Idle;
        was_open
    }

    /// Feeds the open section; gives how many bytes it took.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Progress) {
        debug_assert!(self.is_open());
        let mut taken = self.fill(bytes, SHORT_HEADER_LEN);
        if self.buffer.len() < SHORT_HEADER_LEN {
            return (taken, Progress::Open);
        }
        let length = usize::from(u16::from_be_bytes([self.buffer[1], self.buffer[2]]) & 0x0fff) + SHORT_HEADER_LEN;
        if length > self.limit {
            self.state = State::Idle;
            return (taken, Progress::TooLong);
        }
        taken += self.fill(&bytes[taken..], length);
        if self.buffer.len() < length {
            return (taken, Progress::Open);
        }
        self.state = State::Complete;
        (taken, Progress::Complete)
    }

    /// The section that was completed last.
    pub(super) fn section(&self) -> &[u8] {
        debug_assert!(self.state == State::Complete);
        &self.buffer
    }

    fn fill(&mut self, bytes: &[u8], want: usize) -> usize {
        let take = want.saturating_sub(self.buffer.len()).min(bytes.len());
        self.buffer.extend_from_slice(&bytes[..take]);
        take
    }
}

/// Whether a private section ends in a CRC, and it is right: the long form always has one, of the short form only
/// `splice_info_section` (SCTE-35 §9.6.1).
pub(super) fn crc_holds(section: &[u8]) -> bool {
    const SPLICE_INFO: u8 = 0xfc;
    let long_form = section[1] & 0x80 != 0;
    (!long_form && section[0] != SPLICE_INFO) || crc32(section) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_that_of_annex_a() {
        assert_eq!(crc32(b"123456789"), 0x0376_e6e7);
        let mut section = b"123456789".to_vec();
        section.extend(0x0376_e6e7_u32.to_be_bytes());
        assert_eq!(crc32(&section), 0);
    }

    #[test]
    fn a_section_comes_together_byte_by_byte() {
        let mut assembler = Assembler::new(64);
        assembler.begin();
        let section = [0x40, 0x70, 3, b'a', b'b', b'c'];
        for byte in &section[..5] {
            assert_eq!(assembler.feed(std::slice::from_ref(byte)), (1, Progress::Open));
        }
        assert_eq!(assembler.feed(b"cxyz"), (1, Progress::Complete));
        assert_eq!(assembler.section(), section);
        assert!(!assembler.is_open());
    }

    #[test]
    fn a_section_over_the_limit_is_given_up_before_it_takes_memory() {
        let mut assembler = Assembler::new(64);
        assembler.begin();
        assert_eq!(assembler.feed(&[0x40, 0x70, 62, 0, 0]), (3, Progress::TooLong));
        assert!(!assembler.is_open());
        assembler.begin();
        assert_eq!(assembler.feed(&[0x40, 0x70, 61, 0, 0]), (5, Progress::Open));
        assert!(assembler.abandon());
        assert!(!assembler.abandon());
    }

    #[test]
    fn the_short_form_has_a_crc_only_in_splice_information() {
        assert!(crc_holds(&[0x40, 0x70, 1, 7]));
        assert!(!crc_holds(&[0xfc, 0x30, 1, 7]));
        assert!(!crc_holds(&[0x40, 0xf0, 1, 7]));
        let mut splice = vec![0xfc, 0x30, 5, 7];
        splice.extend(crc32(&splice).to_be_bytes());
        assert!(crc_holds(&splice));
    }
}
