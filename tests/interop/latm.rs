//! Just enough of ISO/IEC 14496-3 §1.7 to take LOAS frames of one AAC-LC layer apart, independent of the product's reader.

/// Reads the frames of one stream.
#[derive(Default)]
pub struct Reader {
    configured: bool,
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: usize) -> u32 {
        (0..count).fold(0, |value, _| {
            let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
            self.at += 1;
            value << 1 | u32::from(bit)
        })
    }
}

impl Reader {
    /// Rule P2: the raw access unit in a packet of ffprobe (one LOAS frame, with or without its sync word).
    pub fn raw(&mut self, packet: &[u8]) -> Vec<u8> {
        let has_sync = packet[0] == 0x56 && packet[1] & 0xe0 == 0xe0;
        let mut bits = Bits { bytes: &packet[if has_sync { 3 } else { 0 }..], at: 0 };
        if bits.read(1) == 0 {
            self.configuration(&mut bits);
        }
        assert!(self.configured, "the first frame has the configuration");
        let mut len = 0;
        loop {
            let part = bits.read(8);
            len += part;
            if part != 255 {
                break;
            }
        }
        (0..len).map(|_| bits.read(8) as u8).collect()
    }

    fn configuration(&mut self, bits: &mut Bits<'_>) {
        assert_eq!(bits.read(1), 0, "audioMuxVersion");
        assert_eq!(bits.read(1), 1, "allStreamsSameTimeFraming");
        assert_eq!(bits.read(6), 0, "numSubFrames");
        assert_eq!(bits.read(4), 0, "numProgram");
        assert_eq!(bits.read(3), 0, "numLayer");
        assert_eq!(bits.read(5), 2, "AAC-LC");
        assert_ne!(bits.read(4), 15, "samplingFrequencyIndex");
        assert_ne!(bits.read(4), 0, "channelConfiguration");
        assert_eq!(bits.read(3), 0, "GASpecificConfig");
        assert_eq!(bits.read(3), 0, "frameLengthType");
        bits.read(8);
        assert_eq!(bits.read(1), 0, "otherDataPresent");
        assert_eq!(bits.read(1), 0, "crcCheckPresent");
        self.configured = true;
    }
}
