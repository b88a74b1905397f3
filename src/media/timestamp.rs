//! Media time: ticks of a track's own clock, unwrapped to 64 bits, and exact ratios.

/// Ticks per second of MPEG-2 Systems PTS and DTS, and of RTP video (H.222.0 §2.4.3.7, RFC 6184 §5.1).
pub const CLOCK_RATE_90_KHZ: u32 = 90_000;
/// Ticks per second of the MPEG-2 system clock that PCRs count (H.222.0 §2.4.2.1).
pub const CLOCK_RATE_27_MHZ: u32 = 27_000_000;

/// An exact ratio, such as a frame rate in frames per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rational {
    /// Above the line.
    pub numerator: u32,
    /// Below the line; never zero.
    pub denominator: u32,
}

impl Rational {
    /// The ratio in lowest terms; `None` when either part is zero.
    pub fn new(numerator: u32, denominator: u32) -> Option<Self> {
        if numerator == 0 || denominator == 0 {
            return None;
        }
        let divisor = greatest_common_divisor(numerator, denominator);
        Some(Self { numerator: numerator / divisor, denominator: denominator / divisor })
    }

    /// The nearest floating-point number, for people to read.
    pub fn as_f64(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_kept_in_lowest_terms_and_has_no_zero() {
        assert_eq!(Rational::new(50_000, 2_000), Some(Rational { numerator: 25, denominator: 1 }));
        assert_eq!(Rational::new(60_000, 1_001), Some(Rational { numerator: 60_000, denominator: 1_001 }));
        assert_eq!(Rational::new(25, 0), None);
        assert_eq!(Rational::new(0, 1), None);
    }
}
