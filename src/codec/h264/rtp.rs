//! H.264 from RTP payloads (RFC 6184): single NAL units, STAP-A and FU-A, the non-interleaved mode.

use crate::codec::rtp_payload::{
    DepacketizerStatistics, Fragments, Malformed, Piece, Place, Progress, START_CODE, SpropError,
};

const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const MTAP16: u8 = 26;
const MTAP24: u8 = 27;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

/// Turns the RTP payloads of one source into an Annex B byte stream.
///
/// ```text
/// if lost_before > 0 || new_access_unit { damaged |= depacketizer.discontinuity(); }
/// while let Some(piece) = depacketizer.push(&mut payload) { … }
/// ```
#[derive(Debug, Default)]
pub struct Depacketizer {
    progress: Progress,
    /// Start code and NAL unit header put together again from a fragment.
    scratch: [u8; 5],
}

impl Depacketizer {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self { scratch: [0, 0, 0, 1, 0], ..Self::default() }
    }

    /// Puts the parameter sets of a session description (`sprop-parameter-sets`, RFC 6184 §8.1) before the next payload.
    ///
    /// # Errors
    ///
    /// What makes them of no use; nothing is changed then.
    pub fn prime(&mut self, sprop_parameter_sets: &str) -> Result<(), SpropError> {
        self.progress.prime(&[sprop_parameter_sets])
    }

    /// Takes octets off the front of one RTP payload and gives the next piece; `None` when all has been taken.
    #[inline]
    pub fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Piece<'a>> {
        if input.is_empty() {
            self.progress.place = Place::Start;
            return None;
        }
        match self.progress.place {
            Place::Start => self.start(input),
            Place::Aggregate => Some(self.aggregated(input)),
            Place::Body | Place::AggregatedBody(_) => Some(self.progress.body(input)),
        }
    }

    /// The next payload does not go on where the last one ended: packets were lost, or another access unit starts.
    /// Gives whether a NAL unit is left unfinished by that, so that the access unit it belongs to is damaged.
    pub fn discontinuity(&mut self) -> bool {
        self.progress.discontinuity()
    }

    /// What has been counted.
    pub fn statistics(&self) -> DepacketizerStatistics {
        self.progress.statistics
    }

    #[inline]
    fn start<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Piece<'a>> {
        if self.progress.starts_primed() {
            return Some(self.progress.primed());
        }
        let header = input[0];
        let packet_type = header & 0x1f;
        if self
            .progress
            .cut_unless(|nal_type| packet_type == FU_A && input.get(1).is_some_and(|fu| fu & 0x9f == nal_type))
        {
            return Some(Piece::Damaged);
        }
        if header & 0x80 != 0 {
            return Some(self.progress.refuse(input, Malformed::ForbiddenBit));
        }
        match packet_type {
            1..=23 => {
                self.progress.fragments = Fragments::None;
                self.progress.place = Place::Body;
                self.progress.statistics.nal_units += 1;
                Some(Piece::Bytes(&START_CODE))
            }
            FU_A => self.fragment(input),
            STAP_A => {
                self.progress.fragments = Fragments::None;
                *input = &input[1..];
                self.progress.place = Place::Aggregate;
                Some(self.aggregated(input))
            }
            STAP_B | MTAP16 | MTAP24 | FU_B => {
                Some(self.progress.refuse(input, Malformed::UnsupportedType(packet_type)))
            }
            _ => Some(self.progress.refuse(input, Malformed::UnknownType(packet_type))),
        }
    }

    /// RFC 6184 §5.8.
    #[inline]
    fn fragment<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Piece<'a>> {
        let &[indicator, fu, ..] = *input else { return Some(self.progress.refuse(input, Malformed::Truncated)) };
        let nal_type = fu & 0x1f;
        if !(1..STAP_A).contains(&nal_type) {
            return Some(self.progress.refuse(input, Malformed::Nested(nal_type)));
        }
        let (starts, ends) = (fu & 0x80 != 0, fu & 0x40 != 0);
        if starts {
            // One fragment that both starts and ends is forbidden, but clear enough.
            self.progress.fragments = if ends { Fragments::None } else { Fragments::Open(nal_type) };
            self.scratch[4] = indicator & 0x60 | nal_type;
            self.progress.statistics.nal_units += 1;
            *input = &input[2..];
            self.progress.place = Place::Body;
            return Some(Piece::Bytes(&self.scratch));
        }
        self.progress.later_fragment(input, 2, ends)
    }

    /// RFC 6184 §5.7.1.
    fn aggregated<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Piece<'a> {
        let len = input.first_chunk::<2>().map_or(0, |len| usize::from(u16::from_be_bytes(*len)));
        if len == 0 || len > input.len() - 2 {
            return self.progress.refuse(input, Malformed::Truncated);
        }
        *input = &input[2..];
        let header = input[0];
        let reason = match header & 0x1f {
            _ if header & 0x80 != 0 => Malformed::ForbiddenBit,
            1..STAP_A => {
                self.progress.place = Place::AggregatedBody(len);
                self.progress.statistics.nal_units += 1;
                return Piece::Bytes(&START_CODE);
            }
            nal_type => Malformed::Nested(nal_type),
        };
        self.progress.refuse_aggregated(input, len, reason)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All bytes that come out of a payload, and everything else that does.
    fn push(depacketizer: &mut Depacketizer, mut payload: &[u8]) -> (Vec<u8>, Vec<Piece<'static>>) {
        let (mut bytes, mut others) = (Vec::new(), Vec::new());
        while let Some(piece) = depacketizer.push(&mut payload) {
            match piece {
                Piece::Bytes(more) => bytes.extend_from_slice(more),
                Piece::Damaged => others.push(Piece::Damaged),
                Piece::Malformed(reason) => others.push(Piece::Malformed(reason)),
            }
        }
        assert!(payload.is_empty());
        (bytes, others)
    }

    #[test]
    fn a_single_nal_unit_gets_a_start_code() {
        let mut depacketizer = Depacketizer::new();
        assert_eq!(push(&mut depacketizer, &[0x65, 1, 2]), (vec![0, 0, 0, 1, 0x65, 1, 2], vec![]));
        assert_eq!(push(&mut depacketizer, &[]), (vec![], vec![]));
    }

    #[test]
    fn an_aggregate_is_taken_apart() {
        let mut depacketizer = Depacketizer::new();
        let (bytes, others) = push(&mut depacketizer, &[0x78, 0, 2, 0x67, 1, 0, 3, 0x68, 2, 3]);
        assert_eq!(bytes, [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 3]);
        assert_eq!((others, depacketizer.statistics().nal_units), (vec![], 2));
    }

    #[test]
    fn fragments_are_joined_under_their_own_header() {
        let mut depacketizer = Depacketizer::new();
        assert_eq!(push(&mut depacketizer, &[0x7c, 0x85, 1, 2]).0, [0, 0, 0, 1, 0x65, 1, 2]);
        assert_eq!(push(&mut depacketizer, &[0x7c, 0x05, 3]).0, [3]);
        assert_eq!(push(&mut depacketizer, &[0x7c, 0x45, 4]), (vec![4], vec![]));
        assert!(!depacketizer.discontinuity());
    }

    #[test]
    fn the_rest_of_a_nal_unit_that_lost_a_fragment_is_dropped_and_told_once() {
        let mut depacketizer = Depacketizer::new();
        push(&mut depacketizer, &[0x7c, 0x85, 1]);
        assert!(depacketizer.discontinuity());
        assert_eq!(push(&mut depacketizer, &[0x7c, 0x05, 3]), (vec![], vec![Piece::Damaged]));
        assert_eq!(push(&mut depacketizer, &[0x7c, 0x05, 4]), (vec![], vec![]));
        assert_eq!(push(&mut depacketizer, &[0x7c, 0x45, 5]), (vec![], vec![]));
        assert_eq!(push(&mut depacketizer, &[0x61, 6]), (vec![0, 0, 0, 1, 0x61, 6], vec![]));
        assert_eq!(depacketizer.statistics().dropped_fragments, 3);
    }

    #[test]
    fn a_nal_unit_without_its_last_fragment_is_damaged() {
        let mut depacketizer = Depacketizer::new();
        push(&mut depacketizer, &[0x7c, 0x85, 1]);
        let (bytes, others) = push(&mut depacketizer, &[0x7c, 0x81, 2]);
        assert_eq!((bytes, others), (vec![0, 0, 0, 1, 0x61, 2], vec![Piece::Damaged]));
        push(&mut depacketizer, &[0x7c, 0x01, 2]);
        let (bytes, others) = push(&mut depacketizer, &[0x67, 2]);
        assert_eq!((bytes, others), (vec![0, 0, 0, 1, 0x67, 2], vec![Piece::Damaged]));
        assert_eq!(depacketizer.statistics().nal_units_damaged, 2);
    }

    #[test]
    fn each_fault_has_its_reason() {
        let mut depacketizer = Depacketizer::new();
        for (payload, reason) in [
            (&[0xe5, 1][..], Malformed::ForbiddenBit),
            (&[0x00, 1], Malformed::UnknownType(0)),
            (&[0x1f, 1], Malformed::UnknownType(31)),
            (&[0x19, 0, 0, 0, 1, 0x65], Malformed::UnsupportedType(25)),
            (&[0x1d, 0x85, 0, 0], Malformed::UnsupportedType(29)),
            (&[0x78, 0, 9, 0x67], Malformed::Truncated),
            (&[0x78, 0], Malformed::Truncated),
            (&[0x78, 0, 0, 0x67], Malformed::Truncated),
            (&[0x78, 0, 1, 0x7c], Malformed::Nested(28)),
            (&[0x7c], Malformed::Truncated),
            (&[0x7c, 0x9c, 1], Malformed::Nested(28)),
        ] {
            let (bytes, others) = push(&mut depacketizer, payload);
            assert_eq!((bytes, others), (vec![], vec![Piece::Malformed(reason)]), "{payload:02x?}");
        }
        assert_eq!(push(&mut depacketizer, &[0x78]), (vec![], vec![Piece::Malformed(Malformed::Truncated)]));
        assert_eq!(depacketizer.statistics().dropped_unsupported, 2);
        assert_eq!(depacketizer.statistics().dropped_malformed, 10);
    }

    #[test]
    fn parameter_sets_of_the_session_description_come_first_and_once() {
        let mut depacketizer = Depacketizer::new();
        depacketizer.prime("Z0I=,aMk=").unwrap();
        let (bytes, _) = push(&mut depacketizer, &[0x65, 1]);
        assert_eq!(bytes, [0, 0, 0, 1, 0x67, 0x42, 0, 0, 0, 1, 0x68, 0xc9, 0, 0, 0, 1, 0x65, 1]);
        assert_eq!(push(&mut depacketizer, &[0x65, 1]).0, [0, 0, 0, 1, 0x65, 1]);
        assert!(depacketizer.prime("!").is_err());
    }

    fn nal_unit() -> impl Strategy<Value = Vec<u8>> {
        (1_u8..24, 0_u8..4, prop::collection::vec(any::<u8>(), 1..200)).prop_map(|(nal_type, priority, body)| {
            let mut unit = vec![priority << 5 | nal_type];
            unit.extend(body);
            unit
        })
    }

    /// A sender: neighbours that fit go into one aggregate, what is too long goes into fragments.
    /// Gives each payload with the numbers of the NAL units it carries.
    fn packetize(units: &[Vec<u8>], mtu: usize) -> Vec<(Vec<u8>, Vec<usize>)> {
        let mut payloads = Vec::new();
        let mut at = 0;
        while at < units.len() {
            let unit = &units[at];
            if unit.len() > mtu {
                let chunks: Vec<_> = unit[1..].chunks(mtu - 2).collect();
                for (index, chunk) in chunks.iter().enumerate() {
                    let starts = u8::from(index == 0) << 7;
                    let ends = u8::from(index + 1 == chunks.len()) << 6;
                    let mut payload = vec![unit[0] & 0xe0 | FU_A, starts | ends | unit[0] & 0x1f];
                    payload.extend_from_slice(chunk);
                    payloads.push((payload, vec![at]));
                }
                at += 1;
                continue;
            }
            let mut aggregate = vec![0x60 | STAP_A];
            let mut inside = Vec::new();
            while at < units.len() && aggregate.len() + 2 + units[at].len() <= mtu {
                aggregate.extend_from_slice(&(units[at].len() as u16).to_be_bytes());
                aggregate.extend_from_slice(&units[at]);
                inside.push(at);
                at += 1;
            }
            match inside.as_slice() {
                [] => {
                    payloads.push((unit.clone(), vec![at]));
                    at += 1;
                }
                [one] => payloads.push((units[*one].clone(), inside)),
                _ => payloads.push((aggregate, inside)),
            }
        }
        payloads
    }

    fn annex_b<'a>(units: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
        units.into_iter().flat_map(|unit| START_CODE.iter().chain(unit)).copied().collect()
    }

    proptest! {
        #[test]
        fn what_was_packetized_comes_out_whole(units in prop::collection::vec(nal_unit(), 1..12), mtu in 12_usize..150) {
            let mut depacketizer = Depacketizer::new();
            let mut out = Vec::new();
            for (payload, _) in packetize(&units, mtu) {
                let (bytes, others) = push(&mut depacketizer, &payload);
                prop_assert_eq!(others, vec![]);
                out.extend(bytes);
            }
            prop_assert_eq!(out, annex_b(&units));
            prop_assert_eq!(depacketizer.statistics().nal_units, units.len() as u64);
        }

        #[test]
        fn a_lost_packet_harms_its_own_nal_units_and_no_others(
            units in prop::collection::vec(nal_unit(), 1..12), mtu in 12_usize..150, which: prop::sample::Index,
        ) {
            let payloads = packetize(&units, mtu);
            let lost = which.index(payloads.len());
            let mut depacketizer = Depacketizer::new();
            let (mut out, mut damaged) = (Vec::new(), false);
            for (at, (payload, _)) in payloads.iter().enumerate().filter(|&(at, _)| at != lost) {
                if at == lost + 1 {
                    damaged |= depacketizer.discontinuity();
                }
                let (bytes, others) = push(&mut depacketizer, payload);
                out.extend(bytes);
                damaged |= !others.is_empty();
            }
            damaged |= depacketizer.discontinuity();
            // Before the damaged NAL unit all is there, so is all after it; of itself at most a beginning.
            let harmed = &payloads[lost].1;
            let before = annex_b(&units[..harmed[0]]);
            let after = annex_b(&units[harmed[harmed.len() - 1] + 1..]);
            prop_assert!(out.starts_with(&before) && out.ends_with(&after));
            let left = out.len() - before.len() - after.len();
            let whole = annex_b(harmed.iter().map(|&unit| &units[unit]));
            prop_assert!(left < whole.len() && out[before.len()..before.len() + left] == whole[..left]);
            // If other fragments of it arrived, the damage was seen.
            let others_arrived = payloads.iter().filter(|(_, units)| units == harmed).count() > 1;
            prop_assert_eq!(damaged, others_arrived);
        }
    }
}
