//! The transport packet: header and adaptation field (H.222.0 §2.4.3.2 to §2.4.3.5), judged once.

/// Bytes of a transport packet.
pub const PACKET_LEN: usize = 188;
/// First byte of every transport packet.
pub const SYNC_BYTE: u8 = 0x47;
/// PID of null packets, and of "no PCR" in a PMT.
pub const NULL_PID: u16 = 0x1fff;
/// PID of the programme association table.
pub(super) const PAT_PID: u16 = 0;
/// PIDs below belong to tables of the standard and carry no track (H.222.0 table 2-3).
pub(super) const FIRST_FREE_PID: u16 = 0x10;

/// The four header bytes of a transport packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header(u32);

impl Header {
    /// Header bits that must have one value for a packet to be plain: sync byte, no error, no unit start, not scrambled,
    /// payload without adaptation field.
    const PLAIN_MASK: u32 = 0xffc0_00f0;
    const PLAIN: u32 = (SYNC_BYTE as u32) << 24 | 0x10;

    #[inline]
    pub(super) const fn of(packet: &[u8; PACKET_LEN]) -> Self {
        Self(u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]))
    }

    /// Nothing but payload that continues what an earlier packet began.
    #[inline]
    pub(super) const fn is_plain(self) -> bool {
        self.0 & Self::PLAIN_MASK == Self::PLAIN
    }

    #[inline]
    pub(super) const fn pid(self) -> u16 {
        (self.0 >> 8 & 0x1fff) as u16
    }

    #[inline]
    pub(super) const fn continuity_counter(self) -> u8 {
        (self.0 & 0x0f) as u8
    }

    pub(super) const fn transport_error(self) -> bool {
        self.0 & 0x0080_0000 != 0
    }

    pub(super) const fn payload_unit_start(self) -> bool {
        self.0 & 0x0040_0000 != 0
    }

    pub(super) const fn scrambled(self) -> bool {
        self.0 & 0xc0 != 0
    }

    pub(super) const fn has_adaptation_field(self) -> bool {
        self.0 & 0x20 != 0
    }

    pub(super) const fn has_payload(self) -> bool {
        self.0 & 0x10 != 0
    }
}

/// What the adaptation field says (H.222.0 §2.4.3.4); all false when there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AdaptationField {
    /// `discontinuity_indicator`.
    pub(super) discontinuity: bool,
    /// `random_access_indicator`.
    pub(super) random_access: bool,
    /// PCR in ticks of 27 MHz: base × 300 + extension.
    pub(super) pcr_27mhz: Option<u64>,
    /// A PCR was there whose extension is out of range.
    pub(super) pcr_malformed: bool,
    /// It was made longer than its fields, so that the payload ends with the packet.
    pub(super) stuffed: bool,
}

/// Why a packet cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PacketError {
    #[error("adaptation_field_control has the reserved value 0")]
    ReservedControl,
    #[error("the adaptation field is longer than the packet")]
    AdaptationFieldLength,
}

/// A transport packet's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) adaptation: AdaptationField,
    /// Where the payload starts; [`PACKET_LEN`] when there is none.
    pub(super) payload: usize,
}

impl Parts {
    pub(super) fn judge(packet: &[u8; PACKET_LEN]) -> Result<Self, PacketError> {
        let header = Header::of(packet);
        match (header.has_adaptation_field(), header.has_payload()) {
            (false, false) => Err(PacketError::ReservedControl),
            (false, true) => Ok(Self { adaptation: AdaptationField::default(), payload: 4 }),
            (true, has_payload) => {
                let length = usize::from(packet[4]);
                let field = packet.get(5..5 + length).ok_or(PacketError::AdaptationFieldLength)?;
                let payload = if has_payload { 5 + length } else { PACKET_LEN };
                Ok(Self { adaptation: AdaptationField::judge(field), payload })
            }
        }
    }
}

impl AdaptationField {
    /// `field` is what follows `adaptation_field_length`. Of a field that is shorter than its flags say, what is there counts.
    fn judge(field: &[u8]) -> Self {
        let Some((&flags, mut rest)) = field.split_first() else {
            // Length 0 is how one single byte is stuffed.
            return Self { stuffed: true, ..Self::default() };
        };
        let mut judged = Self { discontinuity: flags & 0x80 != 0, random_access: flags & 0x40 != 0, ..Self::default() };
        if flags & 0x10 != 0 {
            let Some((pcr, after)) = rest.split_first_chunk::<6>() else { return judged };
            let bits = u64::from_be_bytes([0, 0, pcr[0], pcr[1], pcr[2], pcr[3], pcr[4], pcr[5]]);
            let (base, extension) = (bits >> 15, bits & 0x1ff);
            judged.pcr_malformed = extension >= 300;
            judged.pcr_27mhz = (extension < 300).then_some(base * 300 + extension);
            rest = after;
        }
        // OPCR, splice countdown, private data, extension: passed over to learn where stuffing begins.
        let fixed = usize::from(flags & 0x08 != 0) * 6 + usize::from(flags & 0x04 != 0);
        let Some(mut rest) = rest.get(fixed..) else { return judged };
        for flag in [0x02, 0x01] {
            if flags & flag != 0 {
                let Some((&length, after)) = rest.split_first() else { return judged };
                let Some(after) = after.get(usize::from(length)..) else { return judged };
                rest = after;
            }
        }
        judged.stuffed = !rest.is_empty();
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(start: &[u8]) -> [u8; PACKET_LEN] {
        let mut packet = [0xff; PACKET_LEN];
        packet[..start.len()].copy_from_slice(start);
        packet
    }

    #[test]
    fn a_header_is_read_by_name() {
        let header = Header::of(&packet(&[0x47, 0x41, 0x23, 0x1a]));
        assert_eq!(header.pid(), 0x123);
        assert_eq!(header.continuity_counter(), 10);
        assert!(header.payload_unit_start() && header.has_payload());
        assert!(!header.transport_error() && !header.scrambled() && !header.has_adaptation_field());
        assert!(!header.is_plain());
        assert!(Header::of(&packet(&[0x47, 0x01, 0x23, 0x1a])).is_plain());
        assert!(Header::of(&packet(&[0x47, 0x21, 0x23, 0x1a])).is_plain(), "priority does not matter");
        for other in
            [[0x47, 0x81, 0x23, 0x1a], [0x47, 0x01, 0x23, 0x5a], [0x47, 0x01, 0x23, 0x3a], [0x46, 1, 0x23, 0x1a]]
        {
            assert!(!Header::of(&packet(&other)).is_plain());
        }
    }

    #[test]
    fn a_pcr_counts_27_mhz() {
        // base 1, extension 2, then stuffing to the field's end.
        let judged =
            Parts::judge(&packet(&[0x47, 0, 0x20, 0x30, 10, 0x50, 0, 0, 0, 0, 0xfe, 2, 0xff, 0xff, 0xff])).unwrap();
        assert_eq!(judged.adaptation.pcr_27mhz, Some(302));
        assert!(judged.adaptation.random_access && judged.adaptation.stuffed && !judged.adaptation.discontinuity);
        assert_eq!(judged.payload, 15);
    }

    #[test]
    fn a_field_that_only_carries_a_pcr_is_not_stuffed() {
        let judged = Parts::judge(&packet(&[0x47, 0, 0x20, 0x30, 7, 0x10, 0, 0, 0, 0, 0x7e, 0])).unwrap();
        assert_eq!(judged.adaptation.pcr_27mhz, Some(0));
        assert!(!judged.adaptation.stuffed);
    }

    #[test]
    fn a_pcr_extension_of_300_is_no_time() {
        let judged = Parts::judge(&packet(&[0x47, 0, 0x20, 0x30, 7, 0x10, 0, 0, 0, 0, 0x7f, 0x2c])).unwrap();
        assert_eq!(judged.adaptation.pcr_27mhz, None);
        assert!(judged.adaptation.pcr_malformed);
    }

    #[test]
    fn stuffing_of_one_byte_has_length_zero() {
        let judged = Parts::judge(&packet(&[0x47, 0, 0x20, 0x30, 0])).unwrap();
        assert!(judged.adaptation.stuffed);
        assert_eq!(judged.payload, 5);
    }

    #[test]
    fn a_field_longer_than_the_packet_is_refused() {
        assert_eq!(Parts::judge(&packet(&[0x47, 0, 0x20, 0x30, 184])), Err(PacketError::AdaptationFieldLength));
        assert_eq!(Parts::judge(&packet(&[0x47, 0, 0x20, 0x30, 183])).unwrap().payload, PACKET_LEN);
        assert_eq!(Parts::judge(&packet(&[0x47, 0, 0x20, 0x00])), Err(PacketError::ReservedControl));
    }

    #[test]
    fn private_data_and_extension_are_not_stuffing() {
        let field = [0x47, 0, 0x20, 0x30, 6, 0x03, 2, 9, 9, 1, 9];
        assert!(!Parts::judge(&packet(&field)).unwrap().adaptation.stuffed);
        let field = [0x47, 0, 0x20, 0x30, 7, 0x03, 2, 9, 9, 1, 9, 0xff];
        assert!(Parts::judge(&packet(&field)).unwrap().adaptation.stuffed);
        let beyond = [0x47, 0, 0x20, 0x30, 3, 0x02, 200, 9];
        assert!(!Parts::judge(&packet(&beyond)).unwrap().adaptation.stuffed);
    }
}
