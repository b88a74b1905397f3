//! Syntax that H.264 and H.265 share: NAL unit payloads, parameter sets, SEI messages, parts of the VUI.

use memchr::memmem;

use crate::base::bits::BitReader;
use crate::media::{Rational, Timecode, TransferFunction};

/// The most bytes of parameter sets kept for one track; real streams have a few hundred.
pub const PARAMETER_SETS_BYTES_MAX: usize = 64 * 1024;
/// Frame rates above it are tick rates, which encoders with a variable frame rate write (x264 writes 90 kHz and more).
const FRAME_RATE_MAX: f64 = 300.0;
/// `sample_aspect_ratio` of `aspect_ratio_idc` 1 to 16 (Table E-1; H.265 Table E.1 is the same).
pub const SAMPLE_ASPECT_RATIOS: [(u32, u32); 16] = [
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];
/// `aspect_ratio_idc` of a ratio that is spelt out.
pub const EXTENDED_SAR: u32 = 255;
/// `counting_type` of NTSC drop frame (Table D-3, to which H.265 §D.3.27 agrees).
const COUNTING_TYPE_DROP_FRAME: u32 = 4;
/// The code point that says nothing (H.273).
pub const UNSPECIFIED: u8 = 2;

/// Takes the emulation prevention bytes out of `unit` (H.264 §7.4.1, H.265 §7.4.2), as far as `buffer` reaches.
pub fn unescape<'a>(unit: &[u8], buffer: &'a mut [u8]) -> &'a [u8] {
    let mut zeros = 0;
    let mut len = 0;
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        if len == buffer.len() {
            break;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        buffer[len] = byte;
        len += 1;
    }
    &buffer[..len]
}

/// The NAL units of a whole access unit in Annex B, without start codes and the zeros behind them.
pub fn units(access_unit: &[u8]) -> impl Iterator<Item = &[u8]> {
    const PREFIX: &[u8] = &[0, 0, 1];
    let mut starts = memmem::find_iter(access_unit, PREFIX).map(|at| at + PREFIX.len()).peekable();
    std::iter::from_fn(move || {
        let start = starts.next()?;
        let end = starts.peek().map_or(access_unit.len(), |next| next - PREFIX.len());
        let zeros = access_unit[start..end].iter().rev().take_while(|byte| **byte == 0).count();
        Some(&access_unit[start..end - zeros])
    })
    .filter(|unit| !unit.is_empty())
}

/// Appends the NAL units of a whole access unit in Annex B, each with its length in four bytes before it (ISO/IEC 14496-15
/// §5.3.4.2).
pub fn write_with_lengths(access_unit: &[u8], out: &mut Vec<u8>) {
    for unit in units(access_unit) {
        out.extend((unit.len() as u32).to_be_bytes());
        out.extend_from_slice(unit);
    }
}

/// Writes a NAL unit with a start code before it.
pub fn write_unit(unit: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&[0, 0, 0, 1]);
    bytes.extend_from_slice(unit);
}

/// A parameter set with the bytes it was read from.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    /// The NAL unit, header included, without start code.
    pub bytes: Box<[u8]>,
    /// What it says.
    pub parsed: T,
}

/// Why a parameter set was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterSetError {
    /// Its bytes break the syntax.
    #[error("a parameter set breaks the syntax")]
    Syntax,
    /// It does not fit the room for parameter sets.
    #[error("parameter sets are too large to be kept")]
    TooLarge,
}

/// Puts a parameter set in its slot and keeps count of the bytes of all. `Ok(false)`: it was there already.
pub fn store<T>(
    slot: &mut Option<Stored<T>>,
    total: &mut usize,
    parsed: T,
    unit: &[u8],
) -> Result<bool, ParameterSetError> {
    let old = slot.as_ref().map_or(0, |old| old.bytes.len());
    if slot.as_ref().is_some_and(|old| *old.bytes == *unit) {
        return Ok(false);
    }
    if *total - old + unit.len() > PARAMETER_SETS_BYTES_MAX {
        return Err(ParameterSetError::TooLarge);
    }
    *total = *total - old + unit.len();
    *slot = Some(Stored { bytes: unit.into(), parsed });
    Ok(true)
}

/// `ue(v)` that the standard bounds.
pub fn bounded(r: &mut BitReader<'_>, max: u32) -> Option<u32> {
    r.unsigned_exp_golomb().filter(|&value| value <= max)
}

/// The transfer functions of H.273 that operators tell apart.
pub fn transfer_function(transfer_characteristics: u8) -> TransferFunction {
    match transfer_characteristics {
        16 => TransferFunction::Pq,
        18 => TransferFunction::Hlg,
        _ => TransferFunction::Sdr,
    }
}

/// A rate that pictures can have.
pub fn frame_rate(numerator: u32, denominator: u32) -> Option<Rational> {
    Rational::new(numerator, denominator).filter(|rate| rate.as_f64() <= FRAME_RATE_MAX)
}

/// `aspect_ratio_info_present_flag` and what it announces.
pub fn read_sample_aspect_ratio(r: &mut BitReader<'_>) -> Option<Option<Rational>> {
    if !r.flag()? {
        return Some(None);
    }
    Some(match r.bits(8)? {
        EXTENDED_SAR => {
            let (width, height) = (r.bits(16)?, r.bits(16)?);
            Rational::new(width, height)
        }
        0 => None,
        index => SAMPLE_ASPECT_RATIOS.get(index as usize - 1).and_then(|&(width, height)| Rational::new(width, height)),
    })
}

/// `video_signal_type_present_flag` and what it announces.
pub fn read_colour(r: &mut BitReader<'_>) -> Option<[u8; 3]> {
    let mut colour = [UNSPECIFIED; 3];
    if r.flag()? {
        r.skip(4)?;
        if r.flag()? {
            for code_point in &mut colour {
                *code_point = r.bits(8)? as u8;
            }
        }
    }
    Some(colour)
}

/// The messages of a payload: type and bytes (§7.3.2.3.1; H.265 §7.3.5 is the same). Stops where they break off.
pub fn messages(payload: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        // The last byte is the trailing bits; a shorter rest holds no message.
        if rest.len() < 2 {
            return None;
        }
        let payload_type = take_number(&mut rest)?;
        let len = take_number(&mut rest)? as usize;
        let body = rest.get(..len)?;
        rest = &rest[len..];
        Some((payload_type, body))
    })
}

/// One clock time stamp from its `counting_type` to its `hours_value` (§D.1.3; H.265 §D.2.27 differs in the length of
/// `n_frames`); `Some(None)` when it leaves out hours, minutes or seconds.
pub fn read_clock(r: &mut BitReader<'_>, frames_bits: u32) -> Option<Option<Timecode>> {
    let counting_type = r.bits(5)?;
    let full = r.flag()?;
    r.skip(2)?;
    let frames = r.bits(frames_bits)? as u16;
    let (mut seconds, mut minutes, mut hours) = (None, None, None);
    if full || r.flag()? {
        seconds = Some(r.bits(6)? as u8);
        if full || r.flag()? {
            minutes = Some(r.bits(6)? as u8);
            if full || r.flag()? {
                hours = Some(r.bits(5)? as u8);
            }
        }
    }
    let (Some(hours @ 0..24), Some(minutes @ 0..60), Some(seconds @ 0..60)) = (hours, minutes, seconds) else {
        return Some(None);
    };
    let drop_frame = counting_type == COUNTING_TYPE_DROP_FRAME;
    Some(Some(Timecode { hours, minutes, seconds, frames, drop_frame }))
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u32;
    loop {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        number += u32::from(byte);
        if byte != 0xff {
            return Some(number);
        }
    }
}
