//! The sixteen bytes in front of every SRT packet (draft-sharabayko-srt §3), judged once.

use thiserror::Error;

use super::control::ControlType;
use crate::base::sequence::Wrapping;

/// Length of the header of every packet, in bytes.
pub const HEADER_LEN: usize = 16;

/// Number of a data packet: 31 bits, wrapping.
pub type SequenceNumber = Wrapping<31>;

/// Largest message number; after it comes 1, since 0 is "no message" in drop requests.
pub const MESSAGE_NUMBER_MAX: u32 = (1 << 26) - 1;

const CONTROL_BIT: u32 = 1 << 31;

/// Why bytes are no SRT packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Shorter than a header.
    #[error("{0} bytes are too few for an SRT header")]
    Short(usize),
    /// A control packet of a type that neither the draft nor libsrt knows.
    #[error("control packet type {0:#06x} is unknown")]
    ControlType(u16),
    /// A control packet whose body does not have the length or content of its type.
    #[error("the body of a {0:?} packet is malformed")]
    ControlBody(ControlType),
}

/// Where a data packet stands in its message (the two `PP` bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PacketPosition {
    /// Neither first nor last.
    Middle,
    /// The last packet of a message.
    Last,
    /// The first packet of a message.
    First,
    /// A message of one packet: what live mode sends.
    #[default]
    Only,
}

impl PacketPosition {
    /// The two bits as they stand on the wire.
    #[inline]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Middle => 0,
            Self::Last => 1,
            Self::First => 2,
            Self::Only => 3,
        }
    }

    /// The position of the two low bits of `bits`.
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Middle,
            1 => Self::Last,
            2 => Self::First,
            _ => Self::Only,
        }
    }
}

/// Which stream encrypting key a data packet is under (the two `KK` bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KeyFlag {
    /// Not encrypted.
    #[default]
    Plain,
    /// Under the even key.
    Even,
    /// Under the odd key.
    Odd,
    /// Both bits set: allowed in control packets only, so no key at all in a data packet.
    Both,
}

impl KeyFlag {
    /// The two bits as they stand on the wire.
    #[inline]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Plain => 0,
            Self::Even => 1,
            Self::Odd => 2,
            Self::Both => 3,
        }
    }

    /// The flag of the two low bits of `bits`.
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Plain,
            1 => Self::Even,
            2 => Self::Odd,
            _ => Self::Both,
        }
    }
}

/// The header of a data packet (draft-sharabayko-srt §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DataHeader {
    /// Number of the packet.
    pub sequence: SequenceNumber,
    /// Where it stands in its message.
    pub position: PacketPosition,
    /// Whether messages are to be delivered in order (never set by live senders).
    pub in_order: bool,
    /// The key that the payload is under.
    pub key: KeyFlag,
    /// Whether this is not the first sending of the packet.
    pub retransmitted: bool,
    /// Number of the message, 26 bits.
    pub message_number: u32,
    /// When it was handed to the sender, in µs of the sender's clock, wrapping at 32 bits.
    pub timestamp_us: u32,
    /// Socket id of the receiver.
    pub socket_id: u32,
}

/// The header of a control packet (draft-sharabayko-srt §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlHeader {
    /// What it is about.
    pub control_type: ControlType,
    /// Subtype; for [`ControlType::UserDefined`] the kind of extension message, else unused.
    pub subtype: u16,
    /// The number that some types carry in the header: an ACK number, a message number, an error code.
    pub type_information: u32,
    /// When it was sent, in µs of the sender's clock, wrapping at 32 bits.
    pub timestamp_us: u32,
    /// Socket id of the receiver; 0 in a handshake that does not know it yet.
    pub socket_id: u32,
}

/// A header, told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Of a packet that carries payload.
    Data(DataHeader),
    /// Of a packet between the protocol machines.
    Control(ControlHeader),
}

#[inline]
fn word(bytes: &[u8; HEADER_LEN], index: usize) -> u32 {
    let at = index * 4;
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads the header of a packet; the body is what follows its [`HEADER_LEN`] bytes.
///
/// # Errors
/// [`Malformed::Short`] and [`Malformed::ControlType`].
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
    let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
        return Err(Malformed::Short(bytes.len()));
    };
    let first = word(header, 0);
    if first & CONTROL_BIT == 0 {
        return Ok(Header::Data(DataHeader::decode(header)));
    }
    let code = (first >> 16 & 0x7fff) as u16;
    Ok(Header::Control(ControlHeader {
        control_type: ControlType::from_code(code).ok_or(Malformed::ControlType(code))?,
        subtype: first as u16,
        type_information: word(header, 1),
        timestamp_us: word(header, 2),
        socket_id: word(header, 3),
    }))
}

/// The socket id that a datagram is for, without judging the rest; `None` when it is too short for a header.
///
/// 0 is a handshake of somebody who is not connected yet.
#[inline]
pub fn destination(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<HEADER_LEN>().map(|header| word(header, 3))
}

impl DataHeader {
    #[inline]
    fn decode(header: &[u8; HEADER_LEN]) -> Self {
        let second = word(header, 1);
        Self {
            sequence: SequenceNumber::new(u64::from(word(header, 0))),
            position: PacketPosition::from_bits(second >> 30),
            in_order: second & 1 << 29 != 0,
            key: KeyFlag::from_bits(second >> 27),
            retransmitted: second & 1 << 26 != 0,
            message_number: second & MESSAGE_NUMBER_MAX,
            timestamp_us: word(header, 2),
            socket_id: word(header, 3),
        }
    }

    /// Writes the header.
    #[inline]
    pub fn encode(&self, out: &mut [u8; HEADER_LEN]) {
        let second = self.position.bits() << 30
            | u32::from(self.in_order) << 29
            | self.key.bits() << 27
            | u32::from(self.retransmitted) << 26
            | self.message_number & MESSAGE_NUMBER_MAX;
        out[..4].copy_from_slice(&(self.sequence.get() as u32).to_be_bytes());
        out[4..8].copy_from_slice(&second.to_be_bytes());
        out[8..12].copy_from_slice(&self.timestamp_us.to_be_bytes());
        out[12..].copy_from_slice(&self.socket_id.to_be_bytes());
    }
}

impl ControlHeader {
    /// Writes the header.
    #[inline]
    pub fn encode(&self, out: &mut [u8; HEADER_LEN]) {
        let first = CONTROL_BIT | u32::from(self.control_type.code()) << 16 | u32::from(self.subtype);
        out[..4].copy_from_slice(&first.to_be_bytes());
        out[4..8].copy_from_slice(&self.type_information.to_be_bytes());
        out[8..12].copy_from_slice(&self.timestamp_us.to_be_bytes());
        out[12..].copy_from_slice(&self.socket_id.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_data_header_is_read_field_by_field() {
        let bytes = [
            0x12,
            0x34,
            0x56,
            0x78,
            0b1111_0100,
            0x00,
            0x00,
            0x2a,
            0x00,
            0x01,
            0x00,
            0x02,
            0x0a,
            0x0b,
            0x0c,
            0x0d,
            0x47,
        ];
        let Ok(Header::Data(header)) = parse(&bytes) else { panic!("a data packet") };
        assert_eq!(header.sequence.get(), 0x1234_5678);
        assert_eq!(header.position, PacketPosition::Only);
        assert!(header.in_order);
        assert_eq!(header.key, KeyFlag::Odd);
        assert!(header.retransmitted);
        assert_eq!(header.message_number, 42);
        assert_eq!(header.timestamp_us, 0x0001_0002);
        assert_eq!(header.socket_id, 0x0a0b_0c0d);
        assert_eq!(destination(&bytes), Some(0x0a0b_0c0d));
        let mut back = [0; HEADER_LEN];
        header.encode(&mut back);
        assert_eq!(back, bytes[..16]);
    }

    #[test]
    fn a_control_header_is_read_field_by_field() {
        let bytes = [0x80, 0x02, 0, 0, 0, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0, 7];
        let Ok(Header::Control(header)) = parse(&bytes) else { panic!("a control packet") };
        assert_eq!(header.control_type, ControlType::Acknowledgement);
        assert_eq!((header.type_information, header.timestamp_us, header.socket_id), (9, 5, 7));
        let mut back = [0; HEADER_LEN];
        header.encode(&mut back);
        assert_eq!(back, bytes);
    }

    #[test]
    fn short_and_unknown_packets_are_refused_with_the_reason() {
        for length in 0..HEADER_LEN {
            assert_eq!(parse(&[0x80; HEADER_LEN][..length]), Err(Malformed::Short(length)));
            assert_eq!(destination(&[0; HEADER_LEN][..length]), None);
        }
        assert_eq!(parse(&[0x80, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed::ControlType(9)));
    }

    proptest! {
        #[test]
        fn every_header_that_is_read_is_written_back_the_same(bytes in any::<[u8; 16]>()) {
            let mut back = [0; HEADER_LEN];
            match parse(&bytes) {
                Ok(Header::Data(header)) => header.encode(&mut back),
                Ok(Header::Control(header)) => header.encode(&mut back),
                Err(_) => return Ok(()),
            }
            prop_assert_eq!(back, bytes);
        }
    }
}
