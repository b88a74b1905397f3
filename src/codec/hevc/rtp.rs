//! HEVC from RTP payloads (RFC 7798): single NAL units, aggregation packets and fragmentation units, on a single stream.

use crate::codec::rtp_payload::{
    DepacketizerStatistics, Fragments, Malformed, Piece, Place, Progress, SpropError, take,
};

/// Aggregation packet; also the first type that no NAL unit may have.
const AP: u8 = 48;
const FU: u8 = 49;
const PACI: u8 = 50;

/// Turns the RTP payloads of one source into an Annex B byte stream.
///
/// ```text
/// if lost_before > 0 || new_access_unit { damaged |= depacketizer.discontinuity(); }
/// while let Some(piece) = depacketizer.push(&mut payload) { … }
/// ```
#[derive(Debug)]
pub struct Depacketizer {
    progress: Progress,
    /// Start code and NAL unit header, the latter put together again where the payload has another one.
    scratch: [u8; 6],
    /// DONL and DOND fields are there.
    decoding_order_numbers: bool,
    last_decoding_order: Option<u16>,
    /// The next NAL unit of the aggregate is the first one.
    first_of_aggregate: bool,
    out_of_order: bool,
}

impl Depacketizer {
    /// Nothing seen yet. `decoding_order_numbers` says that the payloads carry them: `sprop-max-don-diff` is above zero
    /// (RFC 7798 §7.1). They are read past; NAL units that do not come in decoding order are given out as they come, and told.
    pub fn new(decoding_order_numbers: bool) -> Self {
        Self {
            progress: Progress::default(),
            scratch: [0, 0, 0, 1, 0, 0],
            decoding_order_numbers,
            last_decoding_order: None,
            first_of_aggregate: false,
            out_of_order: false,
        }
    }

    /// Puts the parameter sets of a session description before the next payload, in the order given: `sprop-vps`,
    /// `sprop-sps`, `sprop-pps` (RFC 7798 §7.1).
    ///
    /// # Errors
    ///
    /// What makes them of no use; nothing is changed then.
    pub fn prime(&mut self, sprops: &[&str]) -> Result<(), SpropError> {
        self.progress.prime(sprops)
    }

    /// Takes octets off the front of one RTP payload and gives the next piece; `None` when all has been taken.
    #[inline]
    pub fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Piece<'a>> {
        if self.out_of_order {
            self.out_of_order = false;
            return Some(Piece::Malformed(Malformed::DecodingOrder));
        }
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
        let packet_type = input[0] >> 1 & 0x3f;
        if self
            .progress
            .cut_unless(|nal_type| packet_type == FU && input.get(2).is_some_and(|fu| fu & 0xbf == nal_type))
        {
            return Some(Piece::Damaged);
        }
        if input[0] & 0x80 != 0 {
            return Some(self.progress.refuse(input, Malformed::ForbiddenBit));
        }
        match packet_type {
            0..AP => Some(self.single(input)),
            FU => self.fragment(input),
            AP if input.len() > 2 => {
                self.progress.fragments = Fragments::None;
                *input = &input[2..];
                self.progress.place = Place::Aggregate;
                self.first_of_aggregate = true;
                Some(self.aggregated(input))
            }
            AP => Some(self.progress.refuse(input, Malformed::Truncated)),
            PACI => Some(self.progress.refuse(input, Malformed::UnsupportedType(packet_type))),
            _ => Some(self.progress.refuse(input, Malformed::UnknownType(packet_type))),
        }
    }

    /// RFC 7798 §4.4.1.
    #[inline]
    fn single<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Piece<'a> {
        let header_len = if self.decoding_order_numbers { 4 } else { 2 };
        if input.len() < header_len {
            return self.progress.refuse(input, Malformed::Truncated);
        }
        let header = take(input, header_len);
        if let &[_, _, high, low] = header {
            self.check_decoding_order(u16::from_be_bytes([high, low]));
        }
        self.progress.fragments = Fragments::None;
        self.progress.place = Place::Body;
        self.begin(header[0], header[1])
    }

    /// RFC 7798 §4.4.3.
    #[inline]
    fn fragment<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Piece<'a>> {
        let &[header_high, header_low, fu, ..] = *input else {
            return Some(self.progress.refuse(input, Malformed::Truncated));
        };
        let nal_type = fu & 0x3f;
        if nal_type >= AP {
            return Some(self.progress.refuse(input, Malformed::Nested(nal_type)));
        }
        let (starts, ends) = (fu & 0x80 != 0, fu & 0x40 != 0);
        if starts {
            let mut header_len = 3;
            if self.decoding_order_numbers {
                let &[_, _, _, high, low, ..] = *input else {
                    return Some(self.progress.refuse(input, Malformed::Truncated));
                };
                self.check_decoding_order(u16::from_be_bytes([high, low]));
                header_len = 5;
            }
            // One fragment that both starts and ends is forbidden, but clear enough.
            self.progress.fragments = if ends { Fragments::None } else { Fragments::Open(nal_type) };
            *input = &input[header_len..];
            self.progress.place = Place::Body;
            return Some(self.begin(header_high & 0x81 | nal_type << 1, header_low));
        }
        self.progress.later_fragment(input, 3, ends)
    }

    /// RFC 7798 §4.4.2.
    fn aggregated<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Piece<'a> {
        let order_len = match (self.decoding_order_numbers, self.first_of_aggregate) {
            (false, _) => 0,
            (true, true) => 2,
            (true, false) => 1,
        };
        let Some((order, &[high, low, ..])) = input.split_at_checked(order_len) else {
            return self.progress.refuse(input, Malformed::Truncated);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len < 2 || len > input.len() - order_len - 2 {
            return self.progress.refuse(input, Malformed::Truncated);
        }
        self.first_of_aggregate = false;
        match *order {
            [high, low] => self.check_decoding_order(u16::from_be_bytes([high, low])),
            [difference] => {
                let last = self.last_decoding_order.unwrap_or(0);
                self.last_decoding_order = Some(last.wrapping_add(u16::from(difference)).wrapping_add(1));
            }
            _ => {}
        }
        *input = &input[order_len + 2..];
        let nal_type = input[0] >> 1 & 0x3f;
        let reason = match nal_type {
            _ if input[0] & 0x80 != 0 => Malformed::ForbiddenBit,
            0..AP => {
                let header = take(input, 2);
                self.progress.place = if len > 2 { Place::AggregatedBody(len - 2) } else { Place::Aggregate };
                return self.begin(header[0], header[1]);
            }
            _ => Malformed::Nested(nal_type),
        };
        self.progress.refuse_aggregated(input, len, reason)
    }

    /// Start code and header of a NAL unit.
    #[inline]
    fn begin(&mut self, header_high: u8, header_low: u8) -> Piece<'_> {
        self.scratch[4] = header_high;
        self.scratch[5] = header_low;
        self.progress.statistics.nal_units += 1;
        Piece::Bytes(&self.scratch)
    }

    fn check_decoding_order(&mut self, number: u16) {
        self.out_of_order = self.last_decoding_order.is_some_and(|last| (number.wrapping_sub(last) as i16) < 0);
        self.last_decoding_order = Some(number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::rtp_payload::START_CODE;

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
    fn single_aggregated_and_fragmented_nal_units_come_out_in_annex_b() {
        let mut depacketizer = Depacketizer::new(false);
        assert_eq!(push(&mut depacketizer, &[0x26, 1, 7]), (vec![0, 0, 0, 1, 0x26, 1, 7], vec![]));
        let (bytes, others) = push(&mut depacketizer, &[0x60, 1, 0, 3, 0x40, 1, 5, 0, 2, 0x42, 1]);
        assert_eq!((bytes, others), (vec![0, 0, 0, 1, 0x40, 1, 5, 0, 0, 0, 1, 0x42, 1], vec![]));
        assert_eq!(push(&mut depacketizer, &[0x62, 1, 0x93, 1, 2]).0, [0, 0, 0, 1, 0x26, 1, 1, 2]);
        assert_eq!(push(&mut depacketizer, &[0x62, 1, 0x13, 3]).0, [3]);
        assert_eq!(push(&mut depacketizer, &[0x62, 1, 0x53, 4]), (vec![4], vec![]));
        assert!(!depacketizer.discontinuity());
    }

    #[test]
    fn the_rest_of_a_nal_unit_that_lost_a_fragment_is_dropped_and_told_once() {
        let mut depacketizer = Depacketizer::new(false);
        push(&mut depacketizer, &[0x62, 1, 0x93, 1]);
        assert!(depacketizer.discontinuity());
        assert_eq!(push(&mut depacketizer, &[0x62, 1, 0x13, 3]), (vec![], vec![Piece::Damaged]));
        assert_eq!(push(&mut depacketizer, &[0x62, 1, 0x53, 5]), (vec![], vec![]));
        assert_eq!(push(&mut depacketizer, &[0x02, 1, 6]), (vec![0, 0, 0, 1, 0x02, 1, 6], vec![]));
        push(&mut depacketizer, &[0x62, 1, 0x93, 1]);
        assert_eq!(push(&mut depacketizer, &[0x02, 1, 6]), (vec![0, 0, 0, 1, 0x02, 1, 6], vec![Piece::Damaged]));
    }

    #[test]
    fn decoding_order_numbers_are_read_past_and_their_order_is_watched() {
        let mut depacketizer = Depacketizer::new(true);
        assert_eq!(push(&mut depacketizer, &[0x26, 1, 0, 9, 7]), (vec![0, 0, 0, 1, 0x26, 1, 7], vec![]));
        let (bytes, others) = push(&mut depacketizer, &[0x60, 1, 0, 10, 0, 3, 0x40, 1, 5, 0, 0, 2, 0x42, 1]);
        assert_eq!((bytes, others), (vec![0, 0, 0, 1, 0x40, 1, 5, 0, 0, 0, 1, 0x42, 1], vec![]));
        assert_eq!(push(&mut depacketizer, &[0x62, 1, 0x93, 0, 12, 1]).0, [0, 0, 0, 1, 0x26, 1, 1]);
        assert_eq!(push(&mut depacketizer, &[0x62, 1, 0x53, 4]).0, [4]);
        let (bytes, others) = push(&mut depacketizer, &[0x26, 1, 0, 11, 7]);
        assert_eq!((bytes, others), (vec![0, 0, 0, 1, 0x26, 1, 7], vec![Piece::Malformed(Malformed::DecodingOrder)]));
    }

    #[test]
    fn each_fault_has_its_reason() {
        for (payload, reason) in [
            (&[0xa6, 1, 1][..], Malformed::ForbiddenBit),
            (&[0x26], Malformed::Truncated),
            (&[0x64, 1, 0, 0, 1], Malformed::UnsupportedType(50)),
            (&[0x66, 1, 0], Malformed::UnknownType(51)),
            (&[0x60, 1], Malformed::Truncated),
            (&[0x60, 1, 0, 1, 0x40], Malformed::Truncated),
            (&[0x60, 1, 0, 9, 0x40, 1], Malformed::Truncated),
            (&[0x60, 1, 0, 2, 0x60, 1], Malformed::Nested(48)),
            (&[0x62, 1], Malformed::Truncated),
            (&[0x62, 1, 0xb1, 1], Malformed::Nested(49)),
        ] {
            let mut depacketizer = Depacketizer::new(false);
            let (bytes, others) = push(&mut depacketizer, payload);
            assert_eq!((bytes, others), (vec![], vec![Piece::Malformed(reason)]), "{payload:02x?}");
        }
    }

    #[test]
    fn parameter_sets_of_the_session_description_come_first_and_once() {
        let mut depacketizer = Depacketizer::new(false);
        depacketizer.prime(&["QAE=", "QgE=", "RAE="]).unwrap();
        let (bytes, _) = push(&mut depacketizer, &[0x26, 1, 9]);
        assert_eq!(bytes, [0, 0, 0, 1, 0x40, 1, 0, 0, 0, 1, 0x42, 1, 0, 0, 0, 1, 0x44, 1, 0, 0, 0, 1, 0x26, 1, 9]);
        assert_eq!(push(&mut depacketizer, &[0x26, 1, 9]).0, [0, 0, 0, 1, 0x26, 1, 9]);
    }

    fn nal_unit() -> impl Strategy<Value = Vec<u8>> {
        (0_u8..48, 1_u8..8, prop::collection::vec(any::<u8>(), 1..200)).prop_map(|(nal_type, temporal_id, body)| {
            let mut unit = vec![nal_type << 1, temporal_id];
            unit.extend(body);
            unit
        })
    }

    /// A sender: neighbours that fit go into one aggregation packet, what is too long goes into fragmentation units.
    fn packetize(units: &[Vec<u8>], mtu: usize, numbers: bool) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        let mut at = 0;
        while at < units.len() {
            let unit = &units[at];
            let number = (at as u16).to_be_bytes();
            if unit.len() + 2 > mtu {
                let chunks: Vec<_> = unit[2..].chunks(mtu - 5).collect();
                for (index, chunk) in chunks.iter().enumerate() {
                    let starts = index == 0;
                    let flags = u8::from(starts) << 7 | u8::from(index + 1 == chunks.len()) << 6;
                    let mut payload = vec![FU << 1, unit[1], flags | unit[0] >> 1];
                    if numbers && starts {
                        payload.extend_from_slice(&number);
                    }
                    payload.extend_from_slice(chunk);
                    payloads.push(payload);
                }
                at += 1;
                continue;
            }
            let mut aggregate = vec![AP << 1, 1];
            let first = at;
            while at < units.len() && aggregate.len() + 4 + units[at].len() <= mtu {
                match (numbers, at == first) {
                    (false, _) => {}
                    (true, true) => aggregate.extend_from_slice(&number),
                    (true, false) => aggregate.push(0),
                }
                aggregate.extend_from_slice(&(units[at].len() as u16).to_be_bytes());
                aggregate.extend_from_slice(&units[at]);
                at += 1;
            }
            if at < first + 2 {
                let mut payload = unit[..2].to_vec();
                if numbers {
                    payload.extend_from_slice(&number);
                }
                payload.extend_from_slice(&unit[2..]);
                payloads.push(payload);
                at = first + 1;
            } else {
                payloads.push(aggregate);
            }
        }
        payloads
    }

    proptest! {
        #[test]
        fn what_was_packetized_comes_out_whole(
            units in prop::collection::vec(nal_unit(), 1..12), mtu in 16_usize..150, numbers: bool,
        ) {
            let mut depacketizer = Depacketizer::new(numbers);
            let mut out = Vec::new();
            for payload in packetize(&units, mtu, numbers) {
                let (bytes, others) = push(&mut depacketizer, &payload);
                prop_assert_eq!(others, vec![]);
                out.extend(bytes);
            }
            let expected: Vec<u8> = units.iter().flat_map(|unit| START_CODE.iter().chain(unit)).copied().collect();
            prop_assert_eq!(out, expected);
            prop_assert_eq!(depacketizer.statistics().nal_units, units.len() as u64);
        }
    }
}
