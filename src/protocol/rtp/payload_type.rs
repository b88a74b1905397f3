//! What payload types stand for: by assignment (RFC 3551 §6), by configuration, by session description.

use std::fmt;

/// Ticks per second that are assumed for payload types nobody has explained: that of all video (RFC 3551 §5).
pub const DEFAULT_CLOCK_RATE: u32 = 90_000;

/// The payload formats that are understood here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// MPEG-2 transport stream (RFC 2250), `MP2T`.
    Mp2t,
    /// H.264 (RFC 6184).
    H264,
    /// HEVC (RFC 7798), `H265`.
    Hevc,
    /// Any other, by the name that SDP gives it.
    Other(String),
}

impl Encoding {
    /// The encoding of this name (case does not matter: RFC 8866 §6.6, RFC 4855 §3).
    pub fn from_name(name: &str) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "MP2T" => Self::Mp2t,
            "H264" => Self::H264,
            "H265" | "HEVC" => Self::Hevc,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The name in `a=rtpmap`.
    pub fn name(&self) -> &str {
        match self {
            Self::Mp2t => "MP2T",
            Self::H264 => "H264",
            Self::Hevc => "H265",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One payload type explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFormat {
    /// How the payload is built.
    pub encoding: Encoding,
    /// Ticks of the time stamp per second.
    pub clock_rate: u32,
    /// Format parameters as `a=fmtp` gives them, without the payload type: `packetization-mode=1;sprop-…`.
    pub parameters: String,
}

impl PayloadFormat {
    /// A format with the usual clock of video and no parameters.
    pub fn new(encoding: Encoding) -> Self {
        Self { encoding, clock_rate: DEFAULT_CLOCK_RATE, parameters: String::new() }
    }

    /// The value of a format parameter; names are compared without case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.split(';').find_map(|parameter| {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What each of the 128 payload types stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadTypes {
    formats: Vec<(u8, PayloadFormat)>,
    /// By payload type, for the path of every packet.
    clock_rates: [u32; 128],
}

impl Default for PayloadTypes {
    /// The assigned ones that matter here: 33 is MPEG-TS (RFC 3551 §6).
    fn default() -> Self {
        let mut types = Self { formats: Vec::new(), clock_rates: [DEFAULT_CLOCK_RATE; 128] };
        // Of the assigned types only the audio ones have another clock than 90 kHz (RFC 3551 §6, table 4).
        for (payload_type, clock_rate) in [(0, 8_000), (3, 8_000), (8, 8_000), (9, 8_000), (10, 44_100), (11, 44_100)] {
            types.clock_rates[payload_type] = clock_rate;
        }
        types.set(33, PayloadFormat::new(Encoding::Mp2t));
        types
    }
}

impl PayloadTypes {
    /// Explains a payload type, over what was known of it. Numbers above 127 and clocks of no ticks explain nothing.
    pub fn set(&mut self, payload_type: u8, format: PayloadFormat) {
        if payload_type > 127 || format.clock_rate == 0 {
            return;
        }
        self.clock_rates[usize::from(payload_type)] = format.clock_rate;
        self.formats.retain(|(known, _)| *known != payload_type);
        self.formats.push((payload_type, format));
    }

    /// What a payload type stands for, if known.
    pub fn get(&self, payload_type: u8) -> Option<&PayloadFormat> {
        self.formats.iter().find(|(known, _)| *known == payload_type).map(|(_, format)| format)
    }

    /// All that are known.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &PayloadFormat)> {
        self.formats.iter().map(|(payload_type, format)| (*payload_type, format))
    }

    /// Ticks per second of a payload type's time stamps; that of video when it is not known.
    #[inline]
    pub fn clock_rate(&self, payload_type: u8) -> u32 {
        self.clock_rates[usize::from(payload_type & 0x7f)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_word_only_transport_streams_are_known() {
        let types = PayloadTypes::default();
        assert_eq!(types.get(33), Some(&PayloadFormat::new(Encoding::Mp2t)));
        assert_eq!(types.get(96), None);
        assert_eq!((types.clock_rate(33), types.clock_rate(96), types.clock_rate(0)), (90_000, 90_000, 8_000));
    }

    #[test]
    fn a_later_word_replaces_an_earlier_one() {
        let mut types = PayloadTypes::default();
        types.set(96, PayloadFormat::new(Encoding::H264));
        types.set(96, PayloadFormat { clock_rate: 48_000, ..PayloadFormat::new(Encoding::from_name("opus")) });
        assert_eq!(types.get(96).map(|format| format.encoding.name()), Some("OPUS"));
        assert_eq!(types.clock_rate(96), 48_000);
        assert_eq!(types.iter().count(), 2);
        types.set(97, PayloadFormat { clock_rate: 0, ..PayloadFormat::new(Encoding::H264) });
        assert_eq!(types.get(97), None);
    }

    #[test]
    fn parameters_are_found_by_name_without_case() {
        let format = PayloadFormat {
            parameters: "packetization-mode=1; Sprop-Parameter-Sets=Z00=,aM4= ;x".into(),
            ..PayloadFormat::new(Encoding::H264)
        };
        assert_eq!(format.parameter("packetization-mode"), Some("1"));
        assert_eq!(format.parameter("sprop-parameter-sets"), Some("Z00=,aM4="));
        assert_eq!(format.parameter("x"), Some(""));
        assert_eq!(format.parameter("y"), None);
    }
}
