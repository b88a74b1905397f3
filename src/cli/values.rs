//! Values as people write them on a command line: rates, percentages, durations.

use std::time::Duration;

use crate::config::duration;

/// Why a value is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a rate.
    #[error("not a rate: write bits per second such as 50M, 800k or 1.5G")]
    Rate,
    /// Not a size.
    #[error("not a size: write bytes such as 500M, 20G or 1.5T")]
    Size,
    /// Not a percentage.
    #[error("not a percentage: write 1% or 0.5%")]
    Percentage,
    /// Not an octet.
    #[error("not an octet: write 0 to 255, or 0x00 to 0xff, such as 0x88 for AF41")]
    Octet,
    /// Not a duration.
    #[error("not a duration: write a number and a unit, such as 250us, 120ms, 30s, 5m or 1h")]
    Duration,
}

/// Bits per second.
///
/// # Errors
/// [`ValueError::Rate`].
pub fn rate(text: &str) -> Result<u64, ValueError> {
    let text = text.trim_end_matches("bit/s").trim_end_matches("bps").trim_end_matches("bit");
    let (number, factor) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'M')) => (&text[..at], 1e6),
        Some((at, 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    let rate: f64 = number.trim().parse().map_err(|_| ValueError::Rate)?;
    let rate = rate * factor;
    if rate.is_finite() && (1_000.0..1e12).contains(&rate) { Ok(rate as u64) } else { Err(ValueError::Rate) }
}

/// Bytes.
///
/// # Errors
/// [`ValueError::Size`].
pub fn size(text: &str) -> Result<u64, ValueError> {
    let text = text.trim_end_matches('B');
    let (number, factor) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'M')) => (&text[..at], 1e6),
        Some((at, 'G')) => (&text[..at], 1e9),
        Some((at, 'T')) => (&text[..at], 1e12),
        _ => (text, 1.0),
    };
    let size: f64 = number.trim().parse().map_err(|_| ValueError::Size)?;
    let size = size * factor;
    if size.is_finite() && (1.0..1e18).contains(&size) { Ok(size as u64) } else { Err(ValueError::Size) }
}

/// A share, written as a percentage; from 0 to 1.
///
/// # Errors
/// [`ValueError::Percentage`].
pub fn percentage(text: &str) -> Result<f64, ValueError> {
    let number: f64 =
        text.strip_suffix('%').and_then(|number| number.trim().parse().ok()).ok_or(ValueError::Percentage)?;
    if (0.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err(ValueError::Percentage) }
}

/// An octet, as a decimal number or, after `0x`, as a hexadecimal one.
///
/// # Errors
/// [`ValueError::Octet`].
pub fn octet(text: &str) -> Result<u8, ValueError> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let octet = match hexadecimal {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => text.parse(),
    };
    octet.map_err(|_| ValueError::Octet)
}

/// A duration with its unit.
///
/// # Errors
/// [`ValueError::Duration`].
pub fn time(text: &str) -> Result<Duration, ValueError> {
    duration::parse(text).map_err(|_| ValueError::Duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units_of_a_thousand() {
        assert_eq!(rate("50M"), Ok(50_000_000));
        assert_eq!(rate("50Mbit/s"), Ok(50_000_000));
        assert_eq!(rate("1.5G"), Ok(1_500_000_000));
        assert_eq!(rate("800k"), Ok(800_000));
        assert_eq!(rate("64000"), Ok(64_000));
        for wrong in ["", "M", "fast", "-5M", "12", "NaN", "1e30"] {
            assert_eq!(rate(wrong), Err(ValueError::Rate), "{wrong}");
        }
    }

    #[test]
    fn an_octet_is_decimal_or_hexadecimal() {
        assert_eq!((octet("136"), octet("0x88"), octet("0XFF")), (Ok(0x88), Ok(0x88), Ok(255)));
        for wrong in ["", "0x", "256", "-1", "0x100", "AF41"] {
            assert_eq!(octet(wrong), Err(ValueError::Octet), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_bytes() {
        assert_eq!((size("500M"), size("1.5GB"), size("12")), (Ok(500_000_000), Ok(1_500_000_000), Ok(12)));
        for wrong in ["", "M", "-1", "0", "many", "NaN"] {
            assert_eq!(size(wrong), Err(ValueError::Size), "{wrong}");
        }
    }

    #[test]
    fn a_share_is_a_percentage_and_says_so() {
        assert_eq!(percentage("1%"), Ok(0.01));
        assert_eq!(percentage("0.5 %"), Ok(0.005));
        for wrong in ["1", "0.01", "101%", "-1%", "%"] {
            assert_eq!(percentage(wrong), Err(ValueError::Percentage), "{wrong}");
        }
    }
}
