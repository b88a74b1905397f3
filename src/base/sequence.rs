//! Numbers that wrap: RTP sequence (16 bits), MPEG time stamps (33), SRT sequence (31), SRT and RTP time stamps (32).

/// A number of `BITS` bits that wraps; compared by the shorter way round (RFC 1982).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Wrapping<const BITS: u32>(u64);

impl<const BITS: u32> Wrapping<BITS> {
    /// All bits set: the largest value.
    pub const MASK: u64 = (1 << BITS) - 1;

    /// Takes the low `BITS` bits of `value`.
    #[inline]
    pub const fn new(value: u64) -> Self {
        Self(value & Self::MASK)
    }

    /// The number itself, below 2^`BITS`.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Signed distance `self - other` by the shorter way round.
    #[inline]
    pub const fn distance(self, other: Self) -> i64 {
        let shift = 64 - BITS;
        ((self.0.wrapping_sub(other.0) << shift) as i64) >> shift
    }

    /// The number `count` steps further (or back).
    #[inline]
    pub const fn offset(self, count: i64) -> Self {
        Self::new(self.0.wrapping_add(count as u64))
    }

    /// Whether `self` comes after `other` by the shorter way round.
    #[inline]
    pub const fn is_after(self, other: Self) -> bool {
        self.distance(other) > 0
    }
}

/// Follows a wrapping number and gives it back with as many bits as it needs.
///
/// The first value is kept as it is; each later one is placed at the position nearest to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwrapper<const BITS: u32> {
    last: Option<i64>,
}

impl<const BITS: u32> Unwrapper<BITS> {
    /// Nothing followed yet.
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// The unwrapped position of `value`, which becomes the new reference.
    #[inline]
    pub fn unwrap(&mut self, value: u64) -> i64 {
        let position = self.peek(value);
        self.last = Some(position);
        position
    }

    /// The unwrapped position of `value` without following it.
    #[inline]
    pub fn peek(&self, value: u64) -> i64 {
        let value = Wrapping::<BITS>::new(value);
        match self.last {
            None => value.get() as i64,
            Some(last) => last.wrapping_add(value.distance(Wrapping::new(last as u64))),
        }
    }

    /// The last position, if any value was followed.
    pub const fn last(&self) -> Option<i64> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_takes_the_shorter_way_round() {
        let before = Wrapping::<16>::new(65_534);
        let after = Wrapping::<16>::new(1);
        assert_eq!(after.distance(before), 3);
        assert_eq!(before.distance(after), -3);
        assert!(after.is_after(before));
        assert_eq!(before.offset(3), after);
    }

    #[test]
    fn thirty_one_bits_wrap_at_their_own_width() {
        let last = Wrapping::<31>::new(0x7fff_ffff);
        assert_eq!(last.offset(1).get(), 0);
        assert_eq!(Wrapping::<31>::new(0).distance(last), 1);
    }

    #[test]
    fn an_unwrapped_clock_runs_on_over_the_wrap_and_back() {
        let mut clock = Unwrapper::<33>::new();
        let top = (1_u64 << 33) - 10;
        assert_eq!(clock.unwrap(top), top as i64);
        assert_eq!(clock.unwrap(5), (1_i64 << 33) + 5);
        assert_eq!(clock.unwrap(top + 9), (1_i64 << 33) - 1);
    }

    #[test]
    fn a_step_back_before_the_first_value_is_negative() {
        let mut clock = Unwrapper::<33>::new();
        clock.unwrap(3);
        assert_eq!(clock.unwrap((1 << 33) - 1), -1);
    }
}
