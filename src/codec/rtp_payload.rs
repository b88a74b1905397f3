//! What the RTP payload formats of H.264 and HEVC have in common: NAL units in, Annex B bytes out.

use thiserror::Error;

/// Start code before every NAL unit that is given out, with the extra zero that Annex B wants before parameter sets and the
/// first NAL unit of an access unit and allows before any (H.264 §B.1.2, H.265 §B.2.2).
pub const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Octets of parameter sets that a session description may bring.
pub const MAX_SPROP_LEN: usize = 16 << 10;

/// One piece of what a depacketizer makes of an RTP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next bytes of the Annex B byte stream.
    Bytes(&'a [u8]),
    /// Fragments are missing before this place: the access unit is damaged.
    Damaged,
    /// The payload, or a NAL unit in it, was dropped: the access unit is damaged.
    Malformed(Malformed),
}

/// Why a payload, or a NAL unit in it, was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Malformed {
    /// It ends before its header or a length in it says.
    #[error("the payload is cut short")]
    Truncated,
    /// `forbidden_zero_bit` is set: something on the way knew of bit errors (RFC 6184 §5.3, RFC 7798 §1.1.4).
    #[error("forbidden_zero_bit is set")]
    ForbiddenBit,
    /// The packet's type has no meaning.
    #[error("packet type {0} has no meaning")]
    UnknownType(u8),
    /// The packet's type is for interleaving or header extension, which no contribution encoder uses: STAP-B, MTAP16,
    /// MTAP24, FU-B (RFC 6184 §5.7, §5.8), PACI (RFC 7798 §4.4.4).
    #[error("packet type {0} is not supported")]
    UnsupportedType(u8),
    /// An aggregated or fragmented NAL unit has a type that only packets may have.
    #[error("a packet of type {0} within another")]
    Nested(u8),
    /// NAL units were sent in another order than that of decoding, and are given out as sent.
    #[error("NAL units do not come in decoding order")]
    DecodingOrder,
}

/// What a depacketizer has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DepacketizerStatistics {
    /// NAL units begun.
    pub nal_units: u64,
    /// NAL units that lost fragments.
    pub nal_units_damaged: u64,
    /// Fragments dropped because the beginning of their NAL unit was missing.
    pub dropped_fragments: u64,
    /// Payloads and NAL units dropped as malformed.
    pub dropped_malformed: u64,
    /// Payloads dropped because their type is not supported.
    pub dropped_unsupported: u64,
}

impl DepacketizerStatistics {
    pub(super) fn count_malformed(&mut self, reason: Malformed) {
        match reason {
            Malformed::UnsupportedType(_) => self.dropped_unsupported += 1,
            Malformed::DecodingOrder => {}
            _ => self.dropped_malformed += 1,
        }
    }
}

/// How far a depacketizer is: within the payload that it is given, and across the fragments of a NAL unit.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub place: Place,
    pub fragments: Fragments,
    pub statistics: DepacketizerStatistics,
    primed: Vec<u8>,
    primed_pending: bool,
}

impl Progress {
    /// Takes the parameter sets of a session description, to be given out before the next payload.
    ///
    /// # Errors
    ///
    /// What makes them of no use; nothing is changed then.
    pub fn prime(&mut self, sprops: &[&str]) -> Result<(), SpropError> {
        let mut bytes = Vec::new();
        for sprop in sprops {
            append_sprop(sprop, &mut bytes)?;
        }
        self.primed_pending = !bytes.is_empty();
        self.primed = bytes;
        Ok(())
    }

    /// Whether it is time for [`primed`](Self::primed), which comes once.
    #[inline]
    pub fn starts_primed(&mut self) -> bool {
        std::mem::take(&mut self.primed_pending)
    }

    /// The parameter sets of the session description.
    pub fn primed(&self) -> Piece<'_> {
        Piece::Bytes(&self.primed)
    }

    /// What is left of the NAL unit at hand, within an aggregate or to the payload's end.
    #[inline]
    pub fn body<'i>(&mut self, input: &mut &'i [u8]) -> Piece<'i> {
        if let Place::AggregatedBody(len) = self.place {
            self.place = Place::Aggregate;
            return Piece::Bytes(take(input, len));
        }
        self.place = Place::Start;
        Piece::Bytes(std::mem::take(input))
    }

    /// The next payload does not go on where the last one ended. Gives whether a NAL unit is left unfinished by that.
    pub fn discontinuity(&mut self) -> bool {
        let cut = matches!(self.fragments, Fragments::Open(_));
        self.statistics.nal_units_damaged += u64::from(cut);
        self.fragments = Fragments::None;
        self.place = Place::Start;
        cut
    }

    /// Gives up the NAL unit under way unless the payload goes on with it: its end never came, though nothing was lost.
    #[inline]
    pub fn cut_unless(&mut self, goes_on: impl FnOnce(u8) -> bool) -> bool {
        matches!(self.fragments, Fragments::Open(nal_type) if !goes_on(nal_type)) && self.discontinuity()
    }

    /// A fragment that is not the first of its NAL unit.
    #[inline]
    pub fn later_fragment<'i>(&mut self, input: &mut &'i [u8], header_len: usize, ends: bool) -> Option<Piece<'i>> {
        let before = self.fragments;
        if ends {
            self.fragments = Fragments::None;
        }
        if let Fragments::Open(_) = before {
            let body = &std::mem::take(input)[header_len..];
            return (!body.is_empty()).then_some(Piece::Bytes(body));
        }
        *input = &[];
        self.statistics.dropped_fragments += 1;
        if before == Fragments::Broken {
            return None;
        }
        if !ends {
            self.fragments = Fragments::Broken;
        }
        self.statistics.nal_units_damaged += 1;
        Some(Piece::Damaged)
    }

    /// Drops the rest of the payload.
    #[cold]
    pub fn refuse(&mut self, input: &mut &[u8], reason: Malformed) -> Piece<'static> {
        *input = &[];
        self.place = Place::Start;
        self.fragments = Fragments::None;
        self.statistics.count_malformed(reason);
        Piece::Malformed(reason)
    }

    /// Drops one NAL unit of an aggregate.
    #[cold]
    pub fn refuse_aggregated(&mut self, input: &mut &[u8], len: usize, reason: Malformed) -> Piece<'static> {
        take(input, len);
        self.statistics.count_malformed(reason);
        Piece::Malformed(reason)
    }
}

/// Where a depacketizer stands within the payload that it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// At its first octet.
    #[default]
    Start,
    /// Within a NAL unit that goes on to the payload's end.
    Body,
    /// Before the next NAL unit of an aggregate.
    Aggregate,
    /// Within a NAL unit of an aggregate that goes on for so many octets.
    AggregatedBody(usize),
}

/// What is known of the NAL unit that comes in fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fragments {
    /// None is under way.
    #[default]
    None,
    /// One of this type is, complete so far.
    Open(u8),
    /// One is that has lost something; the rest of it is dropped.
    Broken,
}

/// Splits the first `len` octets off `input`.
#[inline]
pub(super) fn take<'i>(input: &mut &'i [u8], len: usize) -> &'i [u8] {
    let (front, rest) = input.split_at(len);
    *input = rest;
    front
}

/// Why the parameter sets of a session description are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SpropError {
    /// A character that is none of Base64.
    #[error("parameter sets are not in Base64")]
    Base64,
    /// A parameter set of no octets.
    #[error("an empty parameter set")]
    Empty,
    /// More than [`MAX_SPROP_LEN`].
    #[error("more than {MAX_SPROP_LEN} octets of parameter sets")]
    TooLong,
}

/// Appends the NAL units of a `sprop-…` parameter, Base64 with commas between (RFC 6184 §8.1, RFC 7798 §7.1), in Annex B.
///
/// # Errors
///
/// What makes them of no use; `bytes` may then hold a part of them.
pub fn append_sprop(value: &str, bytes: &mut Vec<u8>) -> Result<(), SpropError> {
    // Some devices end the list with a comma.
    for set in value.trim().trim_end_matches(',').split(',').map(str::trim) {
        bytes.extend_from_slice(&START_CODE);
        let start = bytes.len();
        let mut bits = 0_u32;
        let mut count = 0;
        for character in set.trim_end_matches('=').bytes() {
            let digit = match character {
                b'A'..=b'Z' => character - b'A',
                b'a'..=b'z' => character - b'a' + 26,
                b'0'..=b'9' => character - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return Err(SpropError::Base64),
            };
            bits = bits << 6 | u32::from(digit);
            count += 6;
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count) as u8);
            }
            if bytes.len() > MAX_SPROP_LEN {
                return Err(SpropError::TooLong);
            }
        }
        if bytes.len() == start {
            return Err(SpropError::Empty);
        }
    }
    Ok(())
}

#[doc(hidden)]
pub mod fuzzing {
    //! Bodies of the fuzz targets: any payloads in, nothing may panic, and every payload comes to an end.

    use super::super::rtp_access_unit::AccessUnitEnd;
    use super::super::{h264, hevc};
    use super::Piece;

    /// Cuts `data` into payloads, each behind an octet of length and one of flags.
    fn payloads(data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = data;
        std::iter::from_fn(move || {
            let (&[len, flags], after) = rest.split_first_chunk::<2>()?;
            let (payload, after) = after.split_at(usize::from(len).min(after.len()));
            rest = after;
            Some((flags, payload))
        })
    }

    fn check(len: usize, pieces: &mut usize, out: &mut usize, piece: Piece<'_>) {
        *pieces += 1;
        assert!(*pieces <= 2 * len + 2, "more pieces than octets");
        if let Piece::Bytes(bytes) = piece {
            *out += bytes.len();
            assert!(*out <= 7 * len + 7, "more bytes out than a start code each");
        }
    }

    /// H.264 payloads.
    pub fn fuzz_h264_depacketizer(data: &[u8]) {
        let mut depacketizer = h264::rtp::Depacketizer::new();
        for (flags, payload) in payloads(data) {
            if flags & 1 == 1 {
                depacketizer.discontinuity();
            }
            let (mut input, mut pieces, mut out) = (payload, 0, 0);
            while let Some(piece) = depacketizer.push(&mut input) {
                check(payload.len(), &mut pieces, &mut out, piece);
            }
            assert!(input.is_empty());
        }
    }

    /// HEVC payloads.
    pub fn fuzz_hevc_depacketizer(data: &[u8]) {
        for decoding_order_numbers in [false, true] {
            let mut depacketizer = hevc::rtp::Depacketizer::new(decoding_order_numbers);
            for (flags, payload) in payloads(data) {
                if flags & 1 == 1 {
                    depacketizer.discontinuity();
                }
                let (mut input, mut pieces, mut out) = (payload, 0, 0);
                while let Some(piece) = depacketizer.push(&mut input) {
                    check(payload.len(), &mut pieces, &mut out, piece);
                }
                assert!(input.is_empty());
            }
        }
    }

    /// Parameter sets of session descriptions, and the end of access units.
    pub fn fuzz_rtp_access_unit(data: &[u8]) {
        let _ = super::append_sprop(&String::from_utf8_lossy(data), &mut Vec::new());
        let mut end = AccessUnitEnd::new();
        for step in data {
            end.packet(i64::from(step & 3), step & 4 != 0, u32::from(step >> 3 & 1));
        }
    }

    #[cfg(test)]
    mod tests {
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn the_bodies_stand_random_input(data in prop::collection::vec(any::<u8>(), 0..600)) {
                super::fuzz_h264_depacketizer(&data);
                super::fuzz_hevc_depacketizer(&data);
                super::fuzz_rtp_access_unit(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_sets_of_a_session_description_are_decoded() {
        let mut bytes = Vec::new();
        append_sprop("Z0IACpZTBYmI,aMljiA==,", &mut bytes).unwrap();
        assert_eq!(
            bytes,
            [0, 0, 0, 1, 0x67, 0x42, 0, 0x0a, 0x96, 0x53, 5, 0x89, 0x88, 0, 0, 0, 1, 0x68, 0xc9, 0x63, 0x88]
        );
    }

    #[test]
    fn each_fault_of_parameter_sets_has_its_reason() {
        let error = |value: &str| append_sprop(value, &mut Vec::new()).unwrap_err();
        assert_eq!(error("Z0!A"), SpropError::Base64);
        assert_eq!(error("Z0IA,,aMk="), SpropError::Empty);
        assert_eq!(error(""), SpropError::Empty);
        assert_eq!(error(&"A".repeat(40_000)), SpropError::TooLong);
    }
}
