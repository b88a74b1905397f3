//! How often somebody may ask for something: a token bucket, alone or one for each source, in a table that does not grow.

use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher24;

use super::Instant;

/// Buckets that a source may stand in.
const WAYS: usize = 4;

/// What a source is known by: an IPv4 address, or the 64 bits of an IPv6 address that a network gives to one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourcePrefix {
    is_ipv6: bool,
    bits: u64,
}

impl SourcePrefix {
    /// The prefix that an address is in.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self { is_ipv6: false, bits: u64::from(address.to_bits()) },
            IpAddr::V6(address) => Self { is_ipv6: true, bits: (address.to_bits() >> 64) as u64 },
        }
    }
}

/// So many a second in the long run, and so many at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    interval: Duration,
    depth: Duration,
}

impl Rate {
    /// `per_second` in the long run, 0 for any number; `burst` at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1).checked_div(per_second).unwrap_or(Duration::ZERO);
        Self { interval, depth: interval * burst.max(1) }
    }
}

/// A bucket of tokens. All that is kept is when it will be full again.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: Rate,
    full_at: Instant,
}

impl TokenBucket {
    /// A full one.
    pub const fn new(rate: Rate) -> Self {
        Self { rate, full_at: Instant::ZERO }
    }

    /// Takes a token; `false` if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        take(self.rate, &mut self.full_at, now)
    }
}

fn take(rate: Rate, full_at: &mut Instant, now: Instant) -> bool {
    let after = (*full_at).max(now) + rate.interval;
    let is_there = after.saturating_since(now) <= rate.depth;
    if is_there {
        *full_at = after;
    }
    is_there
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    source: SourcePrefix,
    full_at: Instant,
}

/// A bucket for each source, in a table of fixed size.
///
/// A newcomer takes the place of the fullest of `WAYS` buckets, of whom least is forgotten; which these are follows from a secret.
/// So a flood from ever new addresses cannot make it grow, nor take anything from another: the most that it can do is to have a
/// source begin again with a full bucket.
#[derive(Debug)]
pub struct SourceLimits {
    rate: Rate,
    secret: [u8; 16],
    sets: Box<[[Entry; WAYS]]>,
}

impl SourceLimits {
    /// Full buckets for so many sources, rounded up to whole sets.
    pub fn new(rate: Rate, sources: usize, secret: [u8; 16]) -> Self {
        let nobody = Entry { source: SourcePrefix { is_ipv6: false, bits: 0 }, full_at: Instant::ZERO };
        Self { rate, secret, sets: vec![[nobody; WAYS]; sources.div_ceil(WAYS).max(1)].into_boxed_slice() }
    }

    /// Takes a token of the bucket of this source; `false` if there is none.
    pub fn take(&mut self, now: Instant, source: SourcePrefix) -> bool {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write_u8(u8::from(source.is_ipv6));
        hasher.write_u64(source.bits);
        let place = (hasher.finish() % self.sets.len() as u64) as usize;
        let set = &mut self.sets[place];
        let entry = match set.iter().position(|entry| entry.source == source) {
            Some(way) => &mut set[way],
            None => {
                let fullest = set.iter_mut().min_by_key(|entry| entry.full_at).expect("a set has ways");
                *fullest = Entry { source, full_at: Instant::ZERO };
                fullest
            }
        };
        take(self.rate, &mut entry.full_at, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> SourcePrefix {
        SourcePrefix::of(text.parse().unwrap())
    }

    #[test]
    fn a_bucket_gives_a_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(Rate::new(10, 5));
        let start = Instant::from_millis(7_000);
        assert_eq!((0..20).filter(|_| bucket.take(start)).count(), 5);
        assert!(!bucket.take(start + Duration::from_millis(99)));
        assert!(bucket.take(start + Duration::from_millis(100)));
        assert!(!bucket.take(start + Duration::from_millis(100)));
        let taken = (0..10_000).filter(|ms| bucket.take(start + Duration::from_millis(100 + ms))).count();
        assert_eq!(taken, 99, "ten a second");
        assert_eq!((0..20).filter(|_| bucket.take(start + Duration::from_secs(3_600))).count(), 5);
        let mut open = TokenBucket::new(Rate::new(0, 0));
        assert!((0..1_000).all(|_| open.take(start)), "no limit");
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_64_bits_of_an_ipv6_address() {
        assert_eq!(source("10.0.0.1"), source("::ffff:10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("0.0.0.1"), source("0:0:0:1::"));
    }

    #[test]
    fn one_source_takes_nothing_from_another() {
        let mut limits = SourceLimits::new(Rate::new(10, 5), 64, [1; 16]);
        let now = Instant::from_millis(1_000);
        assert_eq!((0..100).filter(|_| limits.take(now, source("10.0.0.1"))).count(), 5);
        assert_eq!((0..100).filter(|_| limits.take(now, source("10.0.0.2"))).count(), 5);
    }

    #[test]
    fn a_flood_of_ever_new_sources_neither_grows_the_table_nor_keeps_anybody_out() {
        let mut limits = SourceLimits::new(Rate::new(10, 5), 64, [1; 16]);
        assert_eq!(limits.sets.len(), 16);
        for number in 0..100_000_u32 {
            let now = Instant::from_nanos(1_000_000_000 + u64::from(number) * 10_000);
            let stranger = SourcePrefix { is_ipv6: number % 2 == 0, bits: u64::from(number) };
            assert!(limits.take(now, stranger), "the first of each is let through");
            if number % 10_000 == 0 {
                assert!(limits.take(now, source("192.0.2.1")), "ten a second, as it may");
            }
        }
        assert_eq!(limits.sets.len(), 16);
    }
}
