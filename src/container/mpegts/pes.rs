//! The PES packet header (H.222.0 §2.4.3.6 and §2.4.3.7).

/// Bytes up to `PES_packet_length`.
const PREFIX_LEN: usize = 6;
/// Bytes up to `PES_header_data_length`.
const FIXED_LEN: usize = 9;
/// Bytes of a header that are looked at: up to the DTS.
const KEPT_LEN: usize = 19;

/// What a PES packet header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PesHeader {
    pub(super) stream_id: u8,
    /// 33 bits.
    pub(super) pts: Option<u64>,
    /// 33 bits.
    pub(super) dts: Option<u64>,
    pub(super) data_alignment: bool,
    /// Payload bytes, when `PES_packet_length` is not 0.
    pub(super) length: Option<u32>,
    /// Time stamps that were dropped.
    pub(super) time_stamp_errors: u8,
}

/// Why a PES packet cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PesError {
    #[error("no packet_start_code_prefix")]
    StartCode,
    #[error("the bits '10' before PES_scrambling_control are missing")]
    Marker,
    #[error("the payload is scrambled")]
    Scrambled,
    #[error("the header is longer than the PES packet")]
    Length,
}

/// Collects a header that may lie across several transport packets. Of a long header only the first bytes are kept.
#[derive(Clone, Debug)]
pub(super) struct HeaderCollector {
    bytes: [u8; KEPT_LEN],
    seen: usize,
}

impl HeaderCollector {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; KEPT_LEN], seen: 0 }
    }

    pub(super) fn restart(&mut self) {
        self.seen = 0;
    }

    /// Takes header bytes off the front of `bytes`: how many, and the header when it is complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Result<Option<PesHeader>, PesError>) {
        let mut taken = 0;
        loop {
            let want = match self.wanted() {
                Ok(want) => want,
                Err(error) => return (taken, Err(error)),
            };
            if self.seen == want {
                return (taken, self.judge().map(Some));
            }
            if taken == bytes.len() {
                return (taken, Ok(None));
            }
            let take = (want - self.seen).min(bytes.len() - taken);
            for byte in &bytes[taken..taken + take] {
                if let Some(kept) = self.bytes.get_mut(self.seen) {
                    *kept = *byte;
                }
                self.seen += 1;
            }
            taken += take;
        }
    }

    /// Header length as far as it can be known from the bytes seen.
    fn wanted(&self) -> Result<usize, PesError> {
        if self.seen < PREFIX_LEN {
            return Ok(PREFIX_LEN);
        }
        if self.bytes[..3] != [0, 0, 1] {
            return Err(PesError::StartCode);
        }
        if !has_optional_header(self.bytes[3]) {
            return Ok(PREFIX_LEN);
        }
        if self.seen < FIXED_LEN {
            return Ok(FIXED_LEN);
        }
        if self.bytes[6] & 0xc0 != 0x80 {
            return Err(PesError::Marker);
        }
        Ok(FIXED_LEN + usize::from(self.bytes[8]))
    }

    fn judge(&self) -> Result<PesHeader, PesError> {
        let bytes = &self.bytes;
        let packet_length = u32::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        let after_prefix = (self.seen - PREFIX_LEN) as u32;
        let length = match packet_length {
            0 => None,
            _ => Some(packet_length.checked_sub(after_prefix).ok_or(PesError::Length)?),
        };
        let mut header = PesHeader {
            stream_id: bytes[3],
            pts: None,
            dts: None,
            data_alignment: false,
            length,
            time_stamp_errors: 0,
        };
        if !has_optional_header(header.stream_id) {
            return Ok(header);
        }
        if bytes[6] & 0x30 != 0 {
            return Err(PesError::Scrambled);
        }
        header.data_alignment = bytes[6] & 0x04 != 0;
        let room = usize::from(bytes[8]);
        let mut time_stamp = |present: bool, at: usize| {
            if !present {
                return None;
            }
            let value = (at + 5 <= FIXED_LEN + room).then(|| time_stamp(&bytes[at..at + 5])).flatten();
            header.time_stamp_errors += u8::from(value.is_none());
            value
        };
        let flags = bytes[7] >> 6;
        // '01' is forbidden: read as a DTS without PTS it would be of no use.
        header.pts = time_stamp(flags != 0, if flags == 0b01 { usize::MAX - 5 } else { FIXED_LEN });
        header.dts = time_stamp(flags == 0b11, FIXED_LEN + 5);
        Ok(header)
    }
}

/// `stream_id`s whose PES packets have flags and header data (H.222.0 table 2-21); of the others the payload follows the
/// length at once.
const fn has_optional_header(stream_id: u8) -> bool {
    const PROGRAM_STREAM_MAP: u8 = 0xbc;
    const PRIVATE_STREAM_2: u8 = 0xbf;
    const ECM: u8 = 0xf0;
    const EMM: u8 = 0xf1;
    const DSMCC: u8 = 0xf2;
    const H222_1_TYPE_E: u8 = 0xf8;
    const PROGRAM_STREAM_DIRECTORY: u8 = 0xff;
    !matches!(
        stream_id,
        PROGRAM_STREAM_MAP
            | PADDING_STREAM
            | PRIVATE_STREAM_2
            | ECM
            | EMM
            | DSMCC
            | H222_1_TYPE_E
            | PROGRAM_STREAM_DIRECTORY
    )
}

/// `stream_id` of PES packets that carry nothing.
pub(super) const PADDING_STREAM: u8 = 0xbe;

/// 33 bits with their three marker bits. The four bits before them are not looked at: they say nothing that the flags do
/// not, and multiplexers get them wrong.
fn time_stamp(bytes: &[u8]) -> Option<u64> {
    let markers = bytes[0] & bytes[2] & bytes[4] & 1;
    let value = u64::from(bytes[0] >> 1 & 7) << 30
        | u64::from(bytes[1]) << 22
        | u64::from(bytes[2] >> 1) << 15
        | u64::from(bytes[3]) << 7
        | u64::from(bytes[4] >> 1);
    (markers == 1).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [u8; 19] =
        [0, 0, 1, 0xe0, 0, 0, 0x84, 0xc0, 10, 0x3f, 0xff, 0xff, 0xff, 0xff, 0x11, 0x00, 0x01, 0x00, 0x03];

    fn whole(bytes: &[u8]) -> Result<PesHeader, PesError> {
        let (taken, header) = HeaderCollector::new().feed(bytes);
        let header = header?.expect("the header is complete");
        assert_eq!(taken, bytes.len());
        Ok(header)
    }

    #[test]
    fn both_time_stamps_are_read() {
        let header = whole(&BOTH).unwrap();
        assert_eq!(header.pts, Some((1 << 33) - 1));
        assert_eq!(header.dts, Some(1));
        assert!(header.data_alignment);
        assert_eq!((header.stream_id, header.length, header.time_stamp_errors), (0xe0, None, 0));
    }

    #[test]
    fn a_header_cut_anywhere_reads_the_same() {
        for cut in 0..BOTH.len() {
            let mut collector = HeaderCollector::new();
            assert_eq!(collector.feed(&BOTH[..cut]), (cut, Ok(None)));
            let (taken, header) = collector.feed(&BOTH[cut..]);
            assert_eq!(taken, BOTH.len() - cut);
            assert_eq!(header.unwrap(), Some(whole(&BOTH).unwrap()));
        }
    }

    #[test]
    fn a_wrong_marker_drops_one_time_stamp_and_is_counted() {
        let mut bytes = BOTH;
        bytes[11] &= 0xfe;
        let header = whole(&bytes).unwrap();
        assert_eq!((header.pts, header.dts, header.time_stamp_errors), (None, Some(1), 1));
    }

    #[test]
    fn a_time_stamp_that_does_not_fit_the_header_is_dropped() {
        let mut bytes = BOTH;
        bytes[8] = 5;
        let header = whole(&bytes[..14]).unwrap();
        assert_eq!((header.pts, header.dts, header.time_stamp_errors), (Some((1 << 33) - 1), None, 1));
        bytes[7] = 0x40;
        let header = whole(&bytes[..14]).unwrap();
        assert_eq!((header.pts, header.dts, header.time_stamp_errors), (None, None, 1));
    }

    #[test]
    fn the_length_counts_payload_only_and_may_not_be_less_than_nothing() {
        let mut bytes = BOTH;
        bytes[5] = 13;
        assert_eq!(whole(&bytes).unwrap().length, Some(0));
        bytes[5] = 12;
        assert_eq!(whole(&bytes), Err(PesError::Length));
        bytes[4] = 1;
        assert_eq!(whole(&bytes).unwrap().length, Some(255));
    }

    #[test]
    fn what_is_no_pes_header_is_refused_with_its_reason() {
        let with = |at: usize, value: u8| {
            let mut bytes = BOTH;
            bytes[at] = value;
            HeaderCollector::new().feed(&bytes).1
        };
        assert_eq!(with(2, 2), Err(PesError::StartCode));
        assert_eq!(with(6, 0x0f), Err(PesError::Marker));
        assert_eq!(with(6, 0x90), Err(PesError::Scrambled));
    }

    #[test]
    fn a_long_header_is_passed_over_and_a_short_one_has_no_flags() {
        let mut bytes = BOTH.to_vec();
        bytes[8] = 255;
        bytes.resize(9 + 255, 0xff);
        assert_eq!(whole(&bytes).unwrap().dts, Some(1));
        let header = whole(&[0, 0, 1, 0xbf, 0, 9]).unwrap();
        assert_eq!((header.stream_id, header.length), (0xbf, Some(9)));
    }
}
