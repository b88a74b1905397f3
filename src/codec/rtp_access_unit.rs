//! Where access units end in RTP: the time stamp says so one packet late, the marker at once, if the sender means it.

/// Access units in a row whose last packet alone had the marker, before the marker is believed.
const FIRST_PROOF: u32 = 10;
/// How much more proof each contradiction asks for, and where that stops.
const PROOF_FACTOR: u32 = 10;
const MOST_PROOF: u32 = 100_000;

/// Tells where access units end, and learns whether a source's marker can be trusted.
///
/// A new time stamp always starts a new access unit (RFC 6184 §5.1, RFC 7798 §4.1). The marker is meant to stand on the last
/// packet of one, but RFC 6184 §5.1 warns not to rely on it: encoders set it on every NAL unit, on each field, or never.
#[derive(Clone, Copy, Debug)]
pub struct AccessUnitEnd {
    open: Option<Open>,
    trusted: bool,
    /// Consistent access units in a row.
    proof: u32,
    proof_needed: u32,
    contradictions: u32,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    timestamp: i64,
    marked: bool,
    /// All its packets so far came without loss, and so did the first one.
    whole: bool,
}

/// Where an access unit ends around one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// One ends before the packet.
    pub before: bool,
    /// One ends with the packet.
    pub after: bool,
}

impl Default for AccessUnitEnd {
    fn default() -> Self {
        Self::new()
    }
}

impl AccessUnitEnd {
    /// A source of which nothing is known.
    pub const fn new() -> Self {
        Self { open: None, trusted: false, proof: 0, proof_needed: FIRST_PROOF, contradictions: 0 }
    }

    /// The next packet in order, with the number of packets lost before it.
    #[inline]
    pub fn packet(&mut self, timestamp: i64, marker: bool, lost_before: u32) -> Ends {
        let lossless = lost_before == 0;
        let mut before = false;
        match &mut self.open {
            Some(open) if open.timestamp == timestamp => {
                let contradicted = open.marked;
                open.marked = marker;
                open.whole &= lossless;
                if contradicted {
                    self.contradicted();
                }
            }
            open => {
                let last = open.replace(Open { timestamp, marked: marker, whole: lossless });
                if let Some(last) = last {
                    // What ended at its trusted marker needs no second end.
                    before = !(last.marked && self.trusted);
                    self.judge(last, lossless);
                }
            }
        }
        Ends { before, after: marker && self.trusted }
    }

    /// The source starts anew, maybe another encoder: nothing is open, nothing is trusted.
    pub fn restart(&mut self) {
        *self = Self::new();
    }

    /// Whether the marker is believed.
    pub fn is_marker_trusted(&self) -> bool {
        self.trusted
    }

    /// Times that an access unit went on after a marker.
    pub fn contradictions(&self) -> u32 {
        self.contradictions
    }

    #[inline]
    fn judge(&mut self, last: Open, lossless: bool) {
        if self.trusted {
            return;
        }
        if last.marked && last.whole && lossless {
            self.proof += 1;
            self.trusted = self.proof >= self.proof_needed;
        } else if lossless && !last.marked {
            self.proof = 0;
        }
    }

    #[cold]
    fn contradicted(&mut self) {
        self.contradictions = self.contradictions.saturating_add(1);
        if self.trusted {
            self.proof_needed = (self.proof_needed * PROOF_FACTOR).min(MOST_PROOF);
        }
        self.trusted = false;
        self.proof = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Ends = Ends { before: true, after: true };
    const BEFORE: Ends = Ends { before: true, after: false };
    const AFTER: Ends = Ends { before: false, after: true };
    const NONE: Ends = Ends { before: false, after: false };

    /// Access units of three packets with the marker on the last.
    fn teach(end: &mut AccessUnitEnd, units: std::ops::Range<i64>) -> Vec<[Ends; 3]> {
        units.map(|unit| [end.packet(unit, false, 0), end.packet(unit, false, 0), end.packet(unit, true, 0)]).collect()
    }

    #[test]
    fn the_marker_is_believed_after_ten_access_units() {
        let mut end = AccessUnitEnd::new();
        let ends = teach(&mut end, 0..13);
        assert_eq!(ends[0], [NONE, NONE, NONE]);
        assert!(ends[1..10].iter().all(|unit| *unit == [BEFORE, NONE, NONE]));
        assert_eq!(ends[10], [BEFORE, NONE, AFTER], "the tenth proof comes with the eleventh time stamp");
        assert_eq!(ends[11..], [[NONE, NONE, AFTER]; 2]);
        assert!(end.is_marker_trusted());
    }

    #[test]
    fn an_access_unit_of_one_packet_begins_and_ends_with_it() {
        let mut end = AccessUnitEnd::new();
        for unit in 0..=10 {
            end.packet(unit, true, 0);
        }
        assert_eq!(end.packet(11, true, 0), AFTER);
        assert_eq!(end.packet(12, false, 0), NONE);
        assert_eq!(end.packet(13, true, 0), BOTH);
    }

    #[test]
    fn a_trusted_marker_that_is_missing_is_replaced_by_the_next_time_stamp() {
        let mut end = AccessUnitEnd::new();
        teach(&mut end, 0..12);
        assert_eq!(end.packet(12, false, 0), NONE);
        assert_eq!(end.packet(13, false, 1), BEFORE);
        assert!(end.is_marker_trusted());
    }

    #[test]
    fn a_marker_within_an_access_unit_is_a_contradiction_and_asks_for_more_proof() {
        let mut end = AccessUnitEnd::new();
        teach(&mut end, 0..12);
        assert_eq!(end.packet(12, true, 0), AFTER);
        assert_eq!(end.packet(12, false, 0), NONE);
        assert_eq!((end.is_marker_trusted(), end.contradictions()), (false, 1));
        teach(&mut end, 13..113);
        assert!(!end.is_marker_trusted());
        teach(&mut end, 113..114);
        assert!(end.is_marker_trusted());
    }

    #[test]
    fn markers_on_every_packet_or_on_none_are_never_believed() {
        for marker in [true, false] {
            let mut end = AccessUnitEnd::new();
            for unit in 0..1_000 {
                end.packet(unit, marker, 0);
                end.packet(unit, marker, 0);
            }
            assert!(!end.is_marker_trusted());
        }
    }

    #[test]
    fn loss_neither_proves_nor_disproves() {
        let mut end = AccessUnitEnd::new();
        teach(&mut end, 0..9);
        // The last packet of unit 9 is lost, and so is the first of unit 10, which hence proves nothing.
        assert_eq!(end.packet(9, false, 0), BEFORE);
        assert_eq!(end.packet(10, false, 2), BEFORE);
        assert_eq!(end.packet(10, true, 0), NONE);
        assert_eq!(end.packet(11, false, 0), BEFORE);
        assert!(!end.is_marker_trusted());
        assert_eq!(end.packet(11, true, 0), NONE);
        assert_eq!(end.packet(12, true, 0), BOTH);
        assert!(end.is_marker_trusted());
    }

    #[test]
    fn a_restart_forgets() {
        let mut end = AccessUnitEnd::new();
        teach(&mut end, 0..12);
        end.restart();
        assert_eq!(end.packet(5, true, 0), NONE);
        assert!(!end.is_marker_trusted());
    }
}
