//! The RTP header, judged once at the door; and what kind of datagram stands there (RFC 3550 §5.1, RFC 5761 §4).

use thiserror::Error;

/// Octets of the header without contributing sources and extension.
pub const FIXED_HEADER_LEN: usize = 12;

/// The facts of one RTP header (RFC 3550 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Media time, in ticks of the payload type's clock; wraps.
    pub timestamp: u32,
    /// Sequence number; wraps.
    pub sequence: u16,
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Marker bit; its meaning belongs to the payload format.
    pub marker: bool,
    /// Octets before the payload: fixed header, contributing sources, extension.
    pub payload_offset: u16,
    /// Octets of payload, padding excluded.
    pub payload_len: u16,
}

/// Why a datagram is no RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The version is not 2.
    #[error("RTP version {0}, not 2")]
    Version(u8),
    /// It ends before the header, the contributing sources or the extension do.
    #[error("an RTP header of {needed} octets in a datagram of {len}")]
    Truncated {
        /// Octets that the header needs, as far as it could be read.
        needed: usize,
        /// Octets that are there.
        len: usize,
    },
    /// The padding count is zero, or more than there is (RFC 3550 §5.1, A.1).
    #[error("RTP padding of {padding} octets in {available}")]
    Padding {
        /// The last octet of the datagram.
        padding: u8,
        /// Octets after the header.
        available: usize,
    },
    /// More than 65,535 octets: no UDP datagram.
    #[error("a datagram of {0} octets")]
    TooLong(usize),
}

impl RtpHeader {
    /// Reads and judges the header of `datagram`.
    ///
    /// # Errors
    ///
    /// What makes it no RTP packet.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Self, HeaderError> {
        let Some((fixed, _)) = datagram.split_first_chunk::<FIXED_HEADER_LEN>() else {
            return Err(match datagram.first() {
                Some(first) if first >> 6 != 2 => HeaderError::Version(first >> 6),
                _ => HeaderError::Truncated { needed: FIXED_HEADER_LEN, len: datagram.len() },
            });
        };
        if fixed[0] >> 6 != 2 {
            return Err(HeaderError::Version(fixed[0] >> 6));
        }
        if datagram.len() > usize::from(u16::MAX) {
            return Err(HeaderError::TooLong(datagram.len()));
        }
        let mut offset = FIXED_HEADER_LEN;
        let mut end = datagram.len();
        // Neither padding, nor extension, nor contributing sources: the shape of nearly every packet.
        if fixed[0] != 0x80 {
            (offset, end) = payload_range(datagram)?;
        }
        Ok(Self {
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            payload_type: fixed[1] & 0x7f,
            marker: fixed[1] & 0x80 != 0,
            payload_offset: offset as u16,
            payload_len: (end - offset) as u16,
        })
    }

    /// The payload within the datagram that this header was read from.
    #[inline]
    pub fn payload<'a>(&self, datagram: &'a [u8]) -> &'a [u8] {
        let offset = usize::from(self.payload_offset);
        &datagram[offset..offset + usize::from(self.payload_len)]
    }

    /// The twelve octets of a header without padding, extension and contributing sources, as a sender writes them.
    ///
    /// `payload_offset` and `payload_len` play no part.
    #[inline]
    pub fn to_bytes(&self) -> [u8; FIXED_HEADER_LEN] {
        let mut bytes = [0; FIXED_HEADER_LEN];
        bytes[0] = 0x80;
        bytes[1] = u8::from(self.marker) << 7 | (self.payload_type & 0x7f);
        bytes[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes
    }
}

/// First and one past the last octet of the payload behind a header with optional parts.
#[cold]
fn payload_range(datagram: &[u8]) -> Result<(usize, usize), HeaderError> {
    let len = datagram.len();
    let first = datagram[0];
    let mut offset = FIXED_HEADER_LEN + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let Some(words) = datagram.get(offset + 2..offset + 4) else {
            return Err(HeaderError::Truncated { needed: offset + 4, len });
        };
        offset += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    if offset > len {
        return Err(HeaderError::Truncated { needed: offset, len });
    }
    let mut padding = 0;
    if first & 0x20 != 0 {
        padding = datagram[len - 1];
        if padding == 0 || usize::from(padding) > len - offset {
            return Err(HeaderError::Padding { padding, available: len - offset });
        }
    }
    Ok((offset, len - usize::from(padding)))
}

/// Stamps consecutive RTP headers of one source, for a sender.
#[derive(Clone, Copy, Debug)]
pub struct Packetizer {
    next: RtpHeader,
}

impl Packetizer {
    /// A source whose first packet has this sequence number.
    pub fn new(ssrc: u32, payload_type: u8, first_sequence: u16) -> Self {
        Self {
            next: RtpHeader {
                ssrc,
                timestamp: 0,
                sequence: first_sequence,
                payload_type: payload_type & 0x7f,
                marker: false,
                payload_offset: FIXED_HEADER_LEN as u16,
                payload_len: 0,
            },
        }
    }

    /// The header that goes before the next payload. For MPEG-TS the time stamp is that of the first octet's sending in
    /// 90 kHz, and the marker is set only where the time stamps break (RFC 2250 §2).
    #[inline]
    pub fn header(&mut self, timestamp: u32, marker: bool) -> [u8; FIXED_HEADER_LEN] {
        self.next.timestamp = timestamp;
        self.next.marker = marker;
        let bytes = self.next.to_bytes();
        self.next.sequence = self.next.sequence.wrapping_add(1);
        bytes
    }

    /// The sequence number of the next packet.
    pub fn next_sequence(&self) -> u16 {
        self.next.sequence
    }
}

/// What a datagram looks to be from its first octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatagramKind {
    /// RTP version 2.
    Rtp,
    /// RTCP version 2.
    Rtcp,
    /// MPEG-TS packets with no RTP header.
    TransportStream,
    /// None of them.
    Unknown,
}

/// Tells RTP, RTCP and bare MPEG-TS apart.
///
/// RTCP packet types 192 to 223 are what RTP would read as marker and payload type 64 to 95, which RFC 5761 §4 therefore
/// forbids. A transport stream starts with 0x47, which would be RTP version 1, or, with a four-octet time stamp before each
/// packet, shows 0x47 every 192 octets from the fifth on.
#[inline]
pub fn classify(datagram: &[u8]) -> DatagramKind {
    let (Some(&first), Some(&second)) = (datagram.first(), datagram.get(1)) else {
        return DatagramKind::Unknown;
    };
    if first >> 6 == 2 {
        return match second {
            192..=223 if datagram.len() >= 8 => DatagramKind::Rtcp,
            _ if datagram.len() >= FIXED_HEADER_LEN => DatagramKind::Rtp,
            _ => DatagramKind::Unknown,
        };
    }
    let is_transport_stream = [(0, 188), (0, 204), (4, 192)].into_iter().any(|(sync, stride)| {
        datagram.len() >= stride && datagram.iter().skip(sync).step_by(stride).all(|&octet| octet == 0x47)
    });
    if is_transport_stream { DatagramKind::TransportStream } else { DatagramKind::Unknown }
}

/// The SSRC that an RTP packet, or the first packet of an RTCP compound, speaks for; what a shared port is divided by.
#[inline]
pub fn ssrc_of(kind: DatagramKind, datagram: &[u8]) -> Option<u32> {
    let offset = match kind {
        DatagramKind::Rtp => 8,
        DatagramKind::Rtcp => 4,
        DatagramKind::TransportStream | DatagramKind::Unknown => return None,
    };
    datagram.get(offset..offset + 4).map(|octets| u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtp_types::{RtpPacket, RtpPacketBuilder};

    use super::*;

    fn agrees_with_the_oracle(datagram: &[u8]) {
        match (RtpHeader::parse(datagram), RtpPacket::parse(datagram)) {
            (Ok(header), Ok(oracle)) => {
                assert_eq!(header.ssrc, oracle.ssrc());
                assert_eq!(header.timestamp, oracle.timestamp());
                assert_eq!(header.sequence, oracle.sequence_number());
                assert_eq!(header.payload_type, oracle.payload_type());
                assert_eq!(header.marker, oracle.marker_bit());
                assert_eq!(header.payload(datagram), oracle.payload());
            }
            (Err(_), Err(_)) => {}
            (ours, oracle) => panic!("{ours:?} but {oracle:?} for {datagram:02x?}"),
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_as_the_oracle_judges_them(
            mut datagram in prop::collection::vec(any::<u8>(), 0..120),
            version_two in any::<bool>(),
        ) {
            if version_two && let Some(first) = datagram.first_mut() {
                *first = *first & 0x3f | 0x80;
            }
            agrees_with_the_oracle(&datagram);
        }

        #[test]
        fn built_packets_are_read_as_they_were_meant(
            csrcs in 0_u32..16, padding in 0_u8..9, extension in prop::option::of(0_usize..4),
            payload in prop::collection::vec(any::<u8>(), 0..64), marker: bool, sequence: u16, timestamp: u32, ssrc: u32,
        ) {
            let extension_bytes = vec![7; extension.unwrap_or(0) * 4];
            let mut builder = RtpPacketBuilder::<&[u8], &[u8]>::new()
                .payload_type(33).marker_bit(marker).sequence_number(sequence).timestamp(timestamp).ssrc(ssrc)
                .payload(payload.as_slice());
            if padding > 0 {
                builder = builder.padding(padding);
            }
            if extension.is_some() {
                builder = builder.extension(0xbede, extension_bytes.as_slice());
            }
            for csrc in 0..csrcs.min(15) {
                builder = builder.add_csrc(csrc);
            }
            let datagram = builder.write_vec().unwrap();
            agrees_with_the_oracle(&datagram);
            let header = RtpHeader::parse(&datagram).unwrap();
            prop_assert_eq!(header.payload(&datagram), payload.as_slice());
            prop_assert_eq!((header.sequence, header.timestamp, header.ssrc), (sequence, timestamp, ssrc));
        }
    }

    #[test]
    fn a_written_header_is_read_back() {
        let mut packetizer = Packetizer::new(0x1234_5678, 33, 65_535);
        let first = packetizer.header(90_000, true);
        let second = packetizer.header(93_600, false);
        assert_eq!(first, [0x80, 0xa1, 0xff, 0xff, 0, 1, 0x5f, 0x90, 0x12, 0x34, 0x56, 0x78]);
        let header = RtpHeader::parse(&second).unwrap();
        assert_eq!((header.sequence, header.timestamp, header.marker), (0, 93_600, false));
        assert_eq!(header.payload(&second), &[] as &[u8]);
    }

    #[test]
    fn each_fault_has_its_reason() {
        let mut datagram = vec![0x80, 33, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xaa, 3];
        assert_eq!(RtpHeader::parse(&datagram[..11]), Err(HeaderError::Truncated { needed: 12, len: 11 }));
        datagram[0] = 0x40;
        assert_eq!(RtpHeader::parse(&datagram), Err(HeaderError::Version(1)));
        datagram[0] = 0xa0;
        assert_eq!(RtpHeader::parse(&datagram), Err(HeaderError::Padding { padding: 3, available: 2 }));
        datagram[0] = 0x82;
        assert_eq!(RtpHeader::parse(&datagram), Err(HeaderError::Truncated { needed: 20, len: 14 }));
        datagram[0] = 0x90;
        assert_eq!(RtpHeader::parse(&datagram), Err(HeaderError::Truncated { needed: 16, len: 14 }));
    }

    #[test]
    fn kinds_of_datagram_are_told_apart() {
        let mut rtp = vec![0x80, 0x80 | 96];
        rtp.resize(12, 0);
        assert_eq!(classify(&rtp), DatagramKind::Rtp);
        let report = [0x80, 200, 0, 1, 0, 0, 0, 9];
        assert_eq!(classify(&report), DatagramKind::Rtcp);
        assert_eq!(ssrc_of(DatagramKind::Rtcp, &report), Some(9));
        for (sync, stride, count) in [(0, 188, 7), (0, 188, 1), (0, 204, 6), (4, 192, 7)] {
            let mut stream = vec![0; stride * count];
            stream.iter_mut().skip(sync).step_by(stride).for_each(|octet| *octet = 0x47);
            assert_eq!(classify(&stream), DatagramKind::TransportStream);
            stream[stride * (count - 1) + sync] = 0x46;
            assert_eq!(classify(&stream), DatagramKind::Unknown);
        }
        assert_eq!(classify(&[0x47; 187]), DatagramKind::Unknown);
        assert_eq!(classify(&[]), DatagramKind::Unknown);
        assert_eq!(classify(&[0x80]), DatagramKind::Unknown);
    }
}
