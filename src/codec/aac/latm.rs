//! LATM: AAC multiplexed bit by bit, in LOAS frames (ISO/IEC 14496-3 §1.7).

use crate::base::bits::BitReader;
use crate::codec::announced_length::{AnnouncedLengthFramer, Header, Stripped, Syntax, Verdict, set_configuration};
use crate::codec::{Framer, Step};
use crate::media::{AccessUnitInfo, AudioFormat, RandomAccess, TrackConfiguration};

use super::config::{AudioSpecificConfig, ConfigBytes};

/// Length of `AudioSyncStream`'s syncword and `audioMuxLengthBytes`.
const HEADER_LEN: usize = 3;
/// Longest AudioMuxElement that `audioMuxLengthBytes` can announce.
const ELEMENT_LEN_MAX: usize = 0x1fff;
/// `numSubFrames` has six bits and counts from one.
const SUBFRAMES_MAX: usize = 64;

/// Access units out of LOAS: one programme of one layer, as broadcasters send. Payloads are realigned to bytes.
///
/// An element is gathered whole, because its end tells whether it is sound and its payload starts at any bit; an element that
/// cannot be read (no `StreamMuxConfig` yet, several programmes) is skipped.
pub struct LatmFramer {
    loas: AnnouncedLengthFramer<Loas>,
    element: Vec<u8>,
    element_position: u64,
    multiplex: Option<StreamMuxConfig>,
    /// The payloads of the last element, one behind the other, realigned.
    payloads: Vec<u8>,
    ready: Ready,
    configuration: TrackConfiguration,
}

/// What is left to be given of the last element.
struct Ready {
    subframes: [Subframe; SUBFRAMES_MAX],
    count: usize,
    next: usize,
    stage: Stage,
    skipped: u32,
    damaged: bool,
}

#[derive(Clone, Copy, Default)]
struct Subframe {
    position: u64,
    end: usize,
}

#[derive(Clone, Copy)]
enum Stage {
    Begin,
    Append,
    End,
}

/// The parts of a `StreamMuxConfig` that reading payloads needs (ISO/IEC 14496-3 table 1.42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StreamMuxConfig {
    subframes: usize,
    /// Bytes in each payload when the multiplex has it fixed (`frameLengthType` 1).
    fixed_len: Option<usize>,
    frame_samples: u32,
}

impl LatmFramer {
    /// Begins without synchronisation and without a `StreamMuxConfig`.
    pub fn new() -> Self {
        Self {
            loas: AnnouncedLengthFramer::new(Loas),
            element: Vec::with_capacity(ELEMENT_LEN_MAX),
            element_position: 0,
            multiplex: None,
            payloads: Vec::with_capacity(ELEMENT_LEN_MAX),
            ready: Ready {
                subframes: [Subframe::default(); SUBFRAMES_MAX],
                count: 0,
                next: 0,
                stage: Stage::Begin,
                skipped: 0,
                damaged: false,
            },
            configuration: TrackConfiguration::default(),
        }
    }

    fn has_ready(&self) -> bool {
        self.ready.skipped > 0 || self.ready.next < self.ready.count
    }

    /// The next step out of the last element; there must be one.
    fn give(&mut self) -> Step<'_> {
        if self.ready.skipped > 0 {
            return Step::Skipped { len: std::mem::take(&mut self.ready.skipped) };
        }
        let Subframe { position, end } = self.ready.subframes[self.ready.next];
        match self.ready.stage {
            Stage::Begin => {
                self.ready.stage = Stage::Append;
                Step::Begin { position }
            }
            Stage::Append => {
                self.ready.stage = Stage::End;
                let start = self.ready.next.checked_sub(1).map_or(0, |before| self.ready.subframes[before].end);
                Step::Append(&self.payloads[start..end])
            }
            Stage::End => {
                self.ready.stage = Stage::Begin;
                self.ready.next += 1;
                Step::End(AccessUnitInfo {
                    samples: self.multiplex.map_or(0, |multiplex| multiplex.frame_samples),
                    random_access: RandomAccess::Intra,
                    // Which of several is hit by damage to the element cannot be told.
                    damaged: self.ready.damaged,
                    ..AccessUnitInfo::default()
                })
            }
        }
    }

    /// Takes in a step of the LOAS layer; the step itself when it is not about an element.
    fn take<'a>(element: &mut Vec<u8>, element_position: &mut u64, step: Step<'_>) -> Taken<'a> {
        match step {
            Step::Begin { position } => {
                element.clear();
                *element_position = position;
                Taken::Part
            }
            Step::Append(bytes) => {
                element.extend_from_slice(bytes);
                Taken::Part
            }
            Step::End(info) => Taken::Whole { damaged: info.damaged },
            Step::Skipped { len } => Taken::Other(Step::Skipped { len }),
        }
    }

    /// The element is whole, or as whole as it gets.
    fn read_element(&mut self, damaged: bool) {
        self.payloads.clear();
        self.ready.count = 0;
        self.ready.next = 0;
        self.ready.stage = Stage::Begin;
        self.ready.damaged = damaged;
        if self.read_payloads().is_none() {
            if self.ready.count == 0 {
                self.ready.skipped = (HEADER_LEN + self.element.len()) as u32;
            }
            self.ready.damaged = true;
        }
    }

    /// `AudioMuxElement(1)` (ISO/IEC 14496-3 table 1.41). `None` when it cannot be read to its end.
    fn read_payloads(&mut self) -> Option<()> {
        let mut reader = BitReader::new(&self.element);
        if !reader.flag()? {
            // A configuration in a damaged element is not believed over the one before.
            let (multiplex, bytes, format) = read_stream_mux_config(&mut reader)?;
            if !self.ready.damaged || self.multiplex.is_none() {
                set_configuration(&mut self.configuration, &bytes, format);
                self.multiplex = Some(multiplex);
            }
        }
        let multiplex = self.multiplex?;
        for _ in 0..multiplex.subframes {
            let position = match self.ready.count {
                0 => self.element_position,
                _ => self.element_position + (HEADER_LEN + reader.position() / 8) as u64,
            };
            let len = match multiplex.fixed_len {
                Some(len) => len,
                None => read_payload_len(&mut reader)?,
            };
            let available = reader.remaining() / 8;
            if len == 0 || available == 0 {
                return None;
            }
            realign(&mut self.payloads, &self.element, reader.position(), len.min(available));
            self.ready.subframes[self.ready.count] = Subframe { position, end: self.payloads.len() };
            self.ready.count += 1;
            reader.skip(8 * len)?;
        }
        Some(())
    }
}

enum Taken<'a> {
    Part,
    Whole { damaged: bool },
    Other(Step<'a>),
}

impl Default for LatmFramer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer for LatmFramer {
    fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Step<'a>> {
        while !self.has_ready() {
            let mut rest = *input;
            let step = self.loas.push(&mut rest);
            let taken = Self::take(&mut self.element, &mut self.element_position, step?);
            *input = &input[input.len() - rest.len()..];
            match taken {
                Taken::Part => {}
                Taken::Whole { damaged } => self.read_element(damaged),
                Taken::Other(step) => return Some(step),
            }
        }
        Some(self.give())
    }

    fn flush(&mut self) -> Option<Step<'_>> {
        while !self.has_ready() {
            match Self::take(&mut self.element, &mut self.element_position, self.loas.flush()?) {
                Taken::Part => {}
                Taken::Whole { damaged } => self.read_element(damaged),
                Taken::Other(step) => return Some(step),
            }
        }
        Some(self.give())
    }

    fn discontinuity(&mut self) {
        self.loas.discontinuity();
    }

    fn position(&self) -> u64 {
        self.loas.position()
    }

    fn configuration(&self) -> &TrackConfiguration {
        &self.configuration
    }

    fn is_complete(&self) -> bool {
        self.loas.is_complete()
    }

    fn start_is_certain(&self) -> bool {
        self.loas.start_is_certain()
    }
}

/// `AudioSyncStream` (ISO/IEC 14496-3 table 1.36).
struct Loas;

impl Syntax for Loas {
    type Details = ();

    const FIRST_BYTE: u8 = 0x56;
    const FRAME_LEN_MAX: usize = HEADER_LEN + ELEMENT_LEN_MAX;

    fn header(&self, bytes: &[u8]) -> Verdict<()> {
        match *bytes {
            [] | [0x56] => Verdict::More,
            [0x56, high, ..] if high & 0xe0 == 0xe0 => match bytes.get(2) {
                None => Verdict::More,
                Some(&low) => match usize::from(high & 0x1f) << 8 | usize::from(low) {
                    0 => Verdict::No,
                    len => Verdict::Yes(Header {
                        len: HEADER_LEN + len,
                        stripped: Stripped::front(HEADER_LEN),
                        samples: 0,
                        identity: 0,
                        details: (),
                    }),
                },
            },
            _ => Verdict::No,
        }
    }

    fn configure(&mut self, _: &Header<()>, _: &mut TrackConfiguration) {}
}

/// Reads a `StreamMuxConfig` of one programme and one layer; `None` when it is anything else or cut short.
fn read_stream_mux_config(reader: &mut BitReader<'_>) -> Option<(StreamMuxConfig, ConfigBytes, AudioFormat)> {
    let version_1 = reader.flag()?;
    if version_1 {
        if reader.flag()? {
            return None; // audioMuxVersionA is reserved
        }
        read_value(reader)?; // taraBufferFullness
    }
    let same_time_framing = reader.flag()?;
    let subframes = reader.bits(6)? as usize + 1;
    let programs_and_layers = reader.bits(7)?;
    if !same_time_framing || programs_and_layers != 0 {
        return None;
    }
    let config_len = if version_1 { Some(read_value(reader)? as usize) } else { None };
    if config_len.is_some_and(|len| len > reader.remaining()) {
        return None;
    }
    let mut copy = reader.clone();
    let start = reader.position();
    let config = AudioSpecificConfig::read(reader, config_len).ok()?;
    let mut bytes = ConfigBytes::new();
    let mut left = reader.position() - start;
    while left > 0 {
        let take = left.min(8);
        bytes.try_push((copy.bits(take as u32)? << (8 - take)) as u8).ok()?;
        left -= take;
    }
    let fixed_len = match reader.bits(3)? {
        0 => {
            reader.skip(8)?; // latmBufferFullness
            None
        }
        1 => Some(reader.bits(9)? as usize + 20),
        _ => return None, // CELP and HVXC
    };
    if reader.flag()? {
        if version_1 {
            read_value(reader)?;
        } else {
            while {
                let more = reader.flag()?;
                reader.skip(8)?;
                more
            } {}
        }
    }
    if reader.flag()? {
        reader.skip(8)?; // crcCheckSum
    }
    let format = AudioFormat { sample_rate: config.sample_rate, channels: config.channels, profile: config.profile() };
    Some((StreamMuxConfig { subframes, fixed_len, frame_samples: config.frame_samples }, bytes, format))
}

/// `LatmGetValue` (ISO/IEC 14496-3 table 1.43).
fn read_value(reader: &mut BitReader<'_>) -> Option<u32> {
    let bytes = reader.bits(2)? + 1;
    reader.bits(8 * bytes)
}

/// `PayloadLengthInfo` for `frameLengthType` 0 (ISO/IEC 14496-3 table 1.44).
fn read_payload_len(reader: &mut BitReader<'_>) -> Option<usize> {
    let mut len = 0;
    loop {
        let part = reader.bits(8)?;
        len += part as usize;
        if part != 255 {
            return Some(len);
        }
    }
}

/// Appends `len` bytes that start at bit `from` of `bytes`, all of which must be there.
fn realign(out: &mut Vec<u8>, bytes: &[u8], from: usize, len: usize) {
    let (byte, shift) = (from / 8, from % 8);
    if shift == 0 {
        out.extend_from_slice(&bytes[byte..byte + len]);
    } else {
        out.extend(bytes[byte..=byte + len].windows(2).map(|pair| pair[0] << shift | pair[1] >> (8 - shift)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::fuzzing_audio::units_of;
    use crate::media::Format;

    /// Bits as text, spaces for the eye.
    fn loas(bits: &str) -> Vec<u8> {
        let bits: Vec<u8> = bits.bytes().filter(|byte| *byte != b' ').map(|byte| byte - b'0').collect();
        let element: Vec<u8> =
            bits.chunks(8).map(|byte| byte.iter().enumerate().map(|(at, bit)| bit << (7 - at)).sum()).collect();
        [&[0x56, 0xe0 | (element.len() >> 8) as u8, element.len() as u8][..], &element].concat()
    }

    /// Version 0, same time framing, one programme, one layer, AAC LC 48 kHz stereo, variable length, no other data, no CRC.
    fn config(subframes: &str) -> String {
        format!("0 0 1 {subframes} 0000 000  00010 0011 0010 000  000 11111111 0 0")
    }

    #[test]
    fn payloads_are_realigned_and_the_configuration_is_kept() {
        let first = loas(&format!("{} 00000010 10101010 01010101", config("000000")));
        let second = loas("1 00000011 11110000 00001111 11001100");
        let mut framer = LatmFramer::new();
        let (units, skipped) = units_of(&mut framer, &[&first[..], &second].concat());
        let bytes: Vec<_> = units.iter().map(|unit| (unit.position, &unit.bytes[..])).collect();
        let expected: [(u64, &[u8]); 2] = [(0, &[0xaa, 0x55]), (first.len() as u64, &[0xf0, 0x0f, 0xcc])];
        assert_eq!((&bytes[..], skipped), (&expected[..], 0));
        assert_eq!((units[0].info.samples, units[0].info.damaged), (1024, false));
        assert_eq!((framer.configuration().generation, &framer.configuration().bytes[..]), (1, &[0x11, 0x90][..]));
        let format = AudioFormat { sample_rate: 48_000, channels: 2, profile: "LC" };
        assert_eq!(framer.configuration().format, Format::Audio(format));
    }

    #[test]
    fn subframes_are_access_units_of_their_own() {
        let element = loas(&format!("{} 00000001 11111111 00000010 00000001 00000010", config("000001")));
        let (units, _) = units_of(&mut LatmFramer::new(), &[&element[..], &element].concat());
        let bytes: Vec<_> = units.iter().map(|unit| &unit.bytes[..]).collect();
        assert_eq!(bytes, [&[0xff][..], &[1, 2], &[0xff], &[1, 2]]);
        assert!(units[0].position < units[1].position && units[1].position < units[2].position);
    }

    #[test]
    fn elements_before_the_first_configuration_are_skipped() {
        let bare = loas("1 00000001 11110000");
        let full = loas(&format!("{} 00000001 11110000", config("000000")));
        let (units, skipped) = units_of(&mut LatmFramer::new(), &[&bare[..], &bare, &full, &bare].concat());
        assert_eq!((units.len(), skipped), (2, 2 * bare.len() as u32));
    }

    #[test]
    fn a_payload_longer_than_its_element_is_damaged() {
        let full = loas(&format!("{} 00000001 11110000", config("000000")));
        let long = loas("1 00001000 11110000 11110000 0000000");
        let (units, skipped) = units_of(&mut LatmFramer::new(), &[&full[..], &long, &full].concat());
        let damaged: Vec<_> = units.iter().map(|unit| (unit.bytes.len(), unit.info.damaged)).collect();
        assert_eq!((&damaged[..], skipped), (&[(1, false), (2, true), (1, false)][..], 0));
    }

    #[test]
    fn version_1_gives_the_length_of_its_configuration() {
        // Version 1, tara fullness, then 16 bits of AudioSpecificConfig; fixed payloads of 20 bytes.
        let payload = "10000001".repeat(20);
        let element = loas(&format!(
            "0 1 0 00 00000000 1 000000 0000 000 00 00010000 00010 0011 0010 000 001 000000000 0 0 {payload}"
        ));
        let mut framer = LatmFramer::new();
        let (units, _) = units_of(&mut framer, &[&element[..], &element].concat());
        assert_eq!(units[1].bytes, [0x81; 20]);
        assert_eq!(framer.configuration().bytes, [0x11, 0x90]);
    }

    #[test]
    fn several_programmes_are_not_guessed_at() {
        let element = loas("0 0 1 000000 0001 000 00010 0011 0010 000 000 11111111 0 0 00000001 11111111");
        let (units, skipped) = units_of(&mut LatmFramer::new(), &[&element[..], &element].concat());
        assert_eq!((units.len(), skipped), (0, 2 * element.len() as u32));
    }
}
