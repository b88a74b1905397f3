//! AudioSpecificConfig: what an AAC decoder must know first (ISO/IEC 14496-3 §1.6).

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::base::bits::BitReader;

/// Sampling rates by `samplingFrequencyIndex` (ISO/IEC 14496-3 table 1.18).
const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Longest AudioSpecificConfig that is kept; a program configuration element without its comment takes at most 61 bytes.
pub const CONFIG_LEN_MAX: usize = 128;

/// The bytes of an AudioSpecificConfig.
pub type ConfigBytes = ArrayVec<u8, CONFIG_LEN_MAX>;

/// Why an AudioSpecificConfig cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// It ends too early.
    #[error("the AudioSpecificConfig is cut short")]
    Truncated,
    /// Not AAC, or a kind of AAC whose length cannot be told.
    #[error("audio object type {0} is not supported")]
    ObjectType(u8),
    /// A reserved sampling frequency index, or a sampling rate of zero.
    #[error("the sampling frequency is reserved")]
    SampleRate,
}

/// What an AudioSpecificConfig says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// `audioObjectType` of the core: 2 is AAC LC.
    pub object_type: u8,
    /// Samples per second of the core coder, which frame durations count in.
    pub sample_rate: u32,
    /// Channels; 0 when left to the stream.
    pub channels: u8,
    /// `channelConfiguration`; 0 when a program configuration element lists the channels.
    pub channel_configuration: u8,
    /// Samples per channel in a frame of the core coder: 1024 or 960.
    pub frame_samples: u32,
    /// Spectral band replication is announced.
    pub sbr: bool,
    /// Parametric stereo is announced.
    pub parametric_stereo: bool,
}

impl AudioSpecificConfig {
    /// Reads one. `len` is its length in bits when that is known from outside, which allows for the backward compatible
    /// announcement of SBR behind it. Leaves the reader at its end.
    ///
    /// # Errors
    /// When it is cut short or announces what is not AAC.
    pub fn read(reader: &mut BitReader<'_>, len: Option<usize>) -> Result<Self, ConfigError> {
        let start = reader.position();
        let mut config = Self::read_fields(reader, start)?;
        if let Some(len) = len {
            let end = start + len;
            if reader.position() > end {
                return Err(ConfigError::Truncated);
            }
            if !config.sbr && end - reader.position() >= 16 && reader.bits(11) == Some(0x2b7) {
                let object_type = read_object_type(reader).ok_or(ConfigError::Truncated)?;
                config.sbr = object_type == 5 && reader.flag() == Some(true);
            }
            let left = end.checked_sub(reader.position()).ok_or(ConfigError::Truncated)?;
            reader.skip(left).ok_or(ConfigError::Truncated)?;
        }
        Ok(config)
    }

    fn read_fields(reader: &mut BitReader<'_>, start: usize) -> Result<Self, ConfigError> {
        use ConfigError::Truncated;
        let mut object_type = read_object_type(reader).ok_or(Truncated)?;
        let sample_rate = read_sample_rate(reader)?;
        let channel_configuration = reader.bits(4).ok_or(Truncated)? as u8;
        let mut channels = channel_count(channel_configuration);
        let sbr = matches!(object_type, 5 | 29);
        let parametric_stereo = object_type == 29;
        if sbr {
            read_sample_rate(reader)?;
            object_type = read_object_type(reader).ok_or(Truncated)?;
        }
        if !matches!(object_type, 1..=4 | 6 | 7 | 17 | 19..=23) {
            return Err(ConfigError::ObjectType(object_type));
        }
        let short_frame = reader.flag().ok_or(Truncated)?;
        if reader.flag().ok_or(Truncated)? {
            reader.skip(14).ok_or(Truncated)?;
        }
        let extension = reader.flag().ok_or(Truncated)?;
        if channels == Some(0) {
            channels = Some(ProgramConfig::read(reader, start).ok_or(Truncated)?.channels);
        }
        if matches!(object_type, 6 | 20) {
            reader.skip(3).ok_or(Truncated)?;
        }
        if extension {
            let flags = match object_type {
                22 => 16,
                17 | 19 | 20 | 23 => 3,
                _ => 0,
            };
            reader.skip(flags + 1).ok_or(Truncated)?;
        }
        if matches!(object_type, 17 | 19..=23) {
            reader.skip(2).ok_or(Truncated)?;
        }
        Ok(Self {
            object_type,
            sample_rate,
            channels: channels.unwrap_or(0),
            channel_configuration,
            frame_samples: match (object_type, short_frame) {
                (23, false) => 512,
                (23, true) => 480,
                (_, false) => 1024,
                (_, true) => 960,
            },
            sbr,
            parametric_stereo,
        })
    }

    /// The profile's name as broadcasters know it.
    pub fn profile(&self) -> &'static str {
        match (self.parametric_stereo, self.sbr, self.object_type) {
            (true, ..) => "HE-AAC v2",
            (_, true, _) => "HE-AAC",
            (_, _, object_type) => profile_name(object_type),
        }
    }
}

/// The name of an audio object type without extensions.
pub fn profile_name(object_type: u8) -> &'static str {
    match object_type {
        1 => "Main",
        2 => "LC",
        3 => "SSR",
        4 => "LTP",
        23 => "LD",
        _ => "",
    }
}

/// Samples per second for a `samplingFrequencyIndex`; `None` when reserved.
pub fn sample_rate(index: u8) -> Option<u32> {
    SAMPLE_RATES.get(usize::from(index)).copied()
}

/// The `samplingFrequencyIndex` of a rate; `None` for rates that have none.
pub fn sample_rate_index(sample_rate: u32) -> Option<u8> {
    SAMPLE_RATES.iter().position(|rate| *rate == sample_rate).map(|index| index as u8)
}

/// Channels for a `channelConfiguration` (ISO/IEC 14496-3 table 1.19); 0 when a program configuration element tells,
/// `None` when reserved.
pub fn channel_count(configuration: u8) -> Option<u8> {
    match configuration {
        0..=6 => Some(configuration),
        7 | 12 | 14 => Some(8),
        11 => Some(7),
        13 => Some(24),
        _ => None,
    }
}

/// The AudioSpecificConfig of an ADTS stream; with channel configuration 0 the program configuration element goes into it.
pub fn from_adts(object_type: u8, rate_index: u8, channels: u8, program: Option<&ProgramConfig>) -> ConfigBytes {
    let mut writer = BitWriter::default();
    writer.put(u32::from(object_type), 5);
    writer.put(u32::from(rate_index), 4);
    writer.put(u32::from(channels), 4);
    writer.put(0, 3);
    if let (0, Some(program)) = (channels, program) {
        let mut fields = BitReader::new(&program.fields);
        for _ in 0..program.field_bits {
            writer.put(u32::from(fields.flag() == Some(true)), 1);
        }
        writer.align();
        writer.put(0, 8);
    }
    writer.bytes
}

/// A program configuration element (ISO/IEC 14496-3 table 4.2), which lists channels one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramConfig {
    /// Channels of front, side, back and low frequency elements together.
    pub channels: u8,
    /// Its bits up to the alignment before the comment.
    fields: ArrayVec<u8, 64>,
    field_bits: usize,
}

impl ProgramConfig {
    /// Reads one, comment included. It is aligned relative to the bit at `start`. `None` when it is cut short.
    pub fn read(reader: &mut BitReader<'_>, start: usize) -> Option<Self> {
        let mut copy = reader.clone();
        let first = reader.position();
        reader.skip(10)?;
        let [front, side, back] = [reader.bits(4)?, reader.bits(4)?, reader.bits(4)?];
        let low_frequency = reader.bits(2)?;
        let associated = reader.bits(3)?;
        let coupling = reader.bits(4)?;
        for mixdown_bits in [4, 4, 3] {
            if reader.flag()? {
                reader.skip(mixdown_bits)?;
            }
        }
        let mut channels = low_frequency;
        for _ in 0..front + side + back {
            channels += 1 + u32::from(reader.flag()?);
            reader.skip(4)?;
        }
        reader.skip((4 * (low_frequency + associated) + 5 * coupling) as usize)?;
        let field_bits = reader.position() - first;
        let mut writer = BitWriter::<64>::default();
        for _ in 0..field_bits {
            writer.put(u32::from(copy.flag()?), 1);
        }
        reader.skip((8 - (reader.position() - start) % 8) % 8)?;
        let comment_len = reader.bits(8)?;
        reader.skip(8 * comment_len as usize)?;
        Some(Self { channels: channels as u8, fields: writer.bytes, field_bits })
    }
}

fn read_object_type(reader: &mut BitReader<'_>) -> Option<u8> {
    match reader.bits(5)? {
        31 => Some(32 + reader.bits(6)? as u8),
        object_type => Some(object_type as u8),
    }
}

fn read_sample_rate(reader: &mut BitReader<'_>) -> Result<u32, ConfigError> {
    match reader.bits(4).ok_or(ConfigError::Truncated)? {
        15 => {
            let rate = reader.bits(24).ok_or(ConfigError::Truncated)?;
            if rate == 0 { Err(ConfigError::SampleRate) } else { Ok(rate) }
        }
        index => sample_rate(index as u8).ok_or(ConfigError::SampleRate),
    }
}

/// Writes bits from the most significant end. The caller keeps within `N` bytes.
#[derive(Default)]
struct BitWriter<const N: usize = CONFIG_LEN_MAX> {
    bytes: ArrayVec<u8, N>,
    free: u32,
}

impl<const N: usize> BitWriter<N> {
    fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            self.free -= 1;
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> bit & 1) as u8) << self.free;
        }
    }

    fn align(&mut self) {
        self.free = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lc_stereo_configuration_at_48_khz_is_1190() {
        let bytes = from_adts(2, 3, 2, None);
        assert_eq!(bytes[..], [0x11, 0x90]);
        let config = AudioSpecificConfig::read(&mut BitReader::new(&bytes), Some(16)).unwrap();
        let expected = AudioSpecificConfig {
            object_type: 2,
            sample_rate: 48_000,
            channels: 2,
            channel_configuration: 2,
            frame_samples: 1024,
            sbr: false,
            parametric_stereo: false,
        };
        assert_eq!(config, expected);
        assert_eq!(config.profile(), "LC");
    }

    #[test]
    fn sbr_is_found_in_front_and_behind() {
        // Explicit, hierarchical: type 5, 24 kHz core, stereo, 48 kHz, type 2, 3 flags.
        let mut writer: BitWriter = BitWriter::default();
        for (value, count) in [(5, 5), (6, 4), (2, 4), (3, 4), (2, 5), (0, 3)] {
            writer.put(value, count);
        }
        let config = AudioSpecificConfig::read(&mut BitReader::new(&writer.bytes), None).unwrap();
        assert_eq!((config.sample_rate, config.profile(), config.frame_samples), (24_000, "HE-AAC", 1024));
        // Backward compatible: type 2, 24 kHz, stereo, 3 flags, 0x2b7, type 5, present, 48 kHz.
        let mut writer: BitWriter = BitWriter::default();
        for (value, count) in [(2, 5), (6, 4), (2, 4), (0, 3), (0x2b7, 11), (5, 5), (1, 1), (3, 4)] {
            writer.put(value, count);
        }
        let mut reader = BitReader::new(&writer.bytes);
        let config = AudioSpecificConfig::read(&mut reader, Some(37)).unwrap();
        assert_eq!((config.sbr, config.profile(), reader.position()), (true, "HE-AAC", 37));
        // Without the length it must not be looked for: in LATM the next bits are something else.
        assert!(!AudioSpecificConfig::read(&mut BitReader::new(&writer.bytes), None).unwrap().sbr);
    }

    #[test]
    fn a_program_configuration_element_lists_the_channels() {
        // Tag 0, LC, 48 kHz, 2 front, 0 side, 1 back, 1 LFE: 3/2.1.
        let mut writer: BitWriter = BitWriter::default();
        for (value, count) in [(0, 4), (1, 2), (3, 4), (2, 4), (0, 4), (1, 4), (1, 2), (0, 3), (0, 4), (0, 3)] {
            writer.put(value, count);
        }
        for (pair, tag) in [(0, 0), (1, 0), (1, 1)] {
            writer.put(pair, 1);
            writer.put(tag, 4);
        }
        writer.put(0, 4);
        writer.align();
        writer.put(2, 8);
        writer.put(0x6869, 16);
        let mut reader = BitReader::new(&writer.bytes);
        let program = ProgramConfig::read(&mut reader, 0).unwrap();
        assert_eq!(program.channels, 6);
        assert_eq!(reader.remaining(), 0);
        let bytes = from_adts(2, 3, 0, Some(&program));
        let config = AudioSpecificConfig::read(&mut BitReader::new(&bytes), Some(bytes.len() * 8)).unwrap();
        assert_eq!(config.channels, 6);
        assert_eq!(ProgramConfig::read(&mut BitReader::new(&writer.bytes[..5]), 0), None);
    }

    #[test]
    fn what_is_not_aac_is_refused_by_its_name() {
        // Type 31 escapes to 42: USAC.
        let mut writer: BitWriter = BitWriter::default();
        for (value, count) in [(31, 5), (10, 6), (3, 4), (2, 4)] {
            writer.put(value, count);
        }
        assert_eq!(
            AudioSpecificConfig::read(&mut BitReader::new(&writer.bytes), None),
            Err(ConfigError::ObjectType(42))
        );
        assert_eq!(AudioSpecificConfig::read(&mut BitReader::new(&[0x16]), None), Err(ConfigError::Truncated));
        assert_eq!(
            AudioSpecificConfig::read(&mut BitReader::new(&[0x16, 0x90]), None),
            Err(ConfigError::SampleRate),
            "index 13 is reserved"
        );
    }
}
