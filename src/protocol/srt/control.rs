//! Control packets between two connected peers (draft-sharabayko-srt §3.2.3–§3.2.10), read and written.
//!
//! The handshake has a file of its own; here it is a body of bytes.

use super::handshake::HandshakeExtension;
use super::packet::{ControlHeader, HEADER_LEN, Malformed, SequenceNumber};

/// Kinds of control packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlType {
    /// Sets up a connection (§3.2.1).
    Handshake,
    /// "Still here" (§3.2.3).
    KeepAlive,
    /// What has been received (§3.2.4).
    Acknowledgement,
    /// What has not been received: NAK (§3.2.5).
    LossReport,
    /// Obsolete delay warning (§3.2.6).
    CongestionWarning,
    /// The end of the connection (§3.2.7).
    Shutdown,
    /// Answer to a full acknowledgement, for the round trip time: ACKACK (§3.2.8).
    AcknowledgementReceipt,
    /// The sender will not send these packets any more (§3.2.9).
    DropRequest,
    /// The peer cannot process what is sent to it (§3.2.10).
    PeerError,
    /// Extension messages: key material after connecting (§3.2.2), HSv4 handshake extensions.
    UserDefined,
}

impl ControlType {
    /// The type with this number on the wire.
    #[inline]
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            0 => Self::Handshake,
            1 => Self::KeepAlive,
            2 => Self::Acknowledgement,
            3 => Self::LossReport,
            4 => Self::CongestionWarning,
            5 => Self::Shutdown,
            6 => Self::AcknowledgementReceipt,
            7 => Self::DropRequest,
            8 => Self::PeerError,
            0x7fff => Self::UserDefined,
            _ => return None,
        })
    }

    /// Its number on the wire.
    #[inline]
    pub const fn code(self) -> u16 {
        match self {
            Self::Handshake => 0,
            Self::KeepAlive => 1,
            Self::Acknowledgement => 2,
            Self::LossReport => 3,
            Self::CongestionWarning => 4,
            Self::Shutdown => 5,
            Self::AcknowledgementReceipt => 6,
            Self::DropRequest => 7,
            Self::PeerError => 8,
            Self::UserDefined => 0x7fff,
        }
    }
}

/// Kind of a [`ControlType::UserDefined`] packet and of a handshake extension block (§3.2.1.1 table 5).
pub mod extension {
    /// Handshake extension request.
    pub const HSREQ: u16 = 1;
    /// Handshake extension response.
    pub const HSRSP: u16 = 2;
    /// Key material request.
    pub const KMREQ: u16 = 3;
    /// Key material response.
    pub const KMRSP: u16 = 4;
    /// Stream ID.
    pub const SID: u16 = 5;
    /// Congestion control.
    pub const CONGESTION: u16 = 6;
    /// Packet filter (forward error correction).
    pub const FILTER: u16 = 7;
    /// Bonding group.
    pub const GROUP: u16 = 8;
}

/// A control packet, header and body judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// The body of a handshake, for [`super::handshake`].
    Handshake(&'a [u8]),
    /// "Still here".
    KeepAlive,
    /// What the peer has received.
    Acknowledgement(Acknowledgement),
    /// What the peer misses.
    LossReport(LossReport<'a>),
    /// Obsolete; to be ignored.
    CongestionWarning,
    /// The peer ends the connection.
    Shutdown,
    /// The peer has received the full acknowledgement with this number.
    AcknowledgementReceipt {
        /// Number of the acknowledgement it answers.
        number: u32,
    },
    /// The peer will not send these packets any more.
    DropRequest(DropRequest),
    /// The peer cannot process what is sent to it.
    PeerError {
        /// Code of the error; libsrt knows 4000, "file system".
        code: u32,
    },
    /// The extension of a handshake of version 4, which comes after it, for [`super::handshake`].
    HandshakeRequest(&'a [u8]),
    /// The answer to ours.
    HandshakeResponse(&'a [u8]),
    /// A key material message to be installed, for [`super::encryption`].
    KeyMaterialRequest(&'a [u8]),
    /// The answer to ours.
    KeyMaterialResponse(&'a [u8]),
    /// An extension message that nobody knows; to be ignored.
    UnknownExtension {
        /// The kind.
        subtype: u16,
    },
}

impl<'a> Control<'a> {
    /// Reads the body of the packet that `header` stands in front of.
    ///
    /// # Errors
    /// [`Malformed::ControlBody`] when the body cannot be one of its type. Bytes after it (padding) are ignored.
    pub fn parse(header: &ControlHeader, body: &'a [u8]) -> Result<Self, Malformed> {
        let malformed = Malformed::ControlBody(header.control_type);
        Ok(match header.control_type {
            ControlType::Handshake => Self::Handshake(body),
            ControlType::KeepAlive => Self::KeepAlive,
            ControlType::Acknowledgement => {
                Self::Acknowledgement(Acknowledgement::parse(header.type_information, body).ok_or(malformed)?)
            }
            ControlType::LossReport => Self::LossReport(LossReport::parse(body).ok_or(malformed)?),
            ControlType::CongestionWarning => Self::CongestionWarning,
            ControlType::Shutdown => Self::Shutdown,
            ControlType::AcknowledgementReceipt => Self::AcknowledgementReceipt { number: header.type_information },
            ControlType::DropRequest => {
                Self::DropRequest(DropRequest::parse(header.type_information, body).ok_or(malformed)?)
            }
            ControlType::PeerError => Self::PeerError { code: header.type_information },
            ControlType::UserDefined => match header.subtype {
                extension::HSREQ => Self::HandshakeRequest(body),
                extension::HSRSP => Self::HandshakeResponse(body),
                extension::KMREQ => Self::KeyMaterialRequest(body),
                extension::KMRSP => Self::KeyMaterialResponse(body),
                subtype => Self::UnknownExtension { subtype },
            },
        })
    }
}

/// What a receiver tells its sender (§3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Number of the acknowledgement, from 1; 0 in a light one, which is not answered.
    pub number: u32,
    /// The first packet that has *not* been received: everything before it has.
    pub next: SequenceNumber,
    /// What else a full or small acknowledgement says.
    pub report: Option<ReceiverReport>,
}

impl Acknowledgement {
    /// The largest number, of 31 bits; after it they begin anew.
    pub const NUMBER_MAX: u32 = 0x7fff_ffff;
}

/// The receiver's measurements in an acknowledgement; a small one ends after the buffer (§3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReceiverReport {
    /// Round trip time as the receiver sees it, in µs.
    pub rtt_us: u32,
    /// Its variance, in µs.
    pub rtt_variance_us: u32,
    /// Room in the receive buffer, in packets.
    pub available_buffer_packets: u32,
    /// Rates, in a full acknowledgement.
    pub rates: Option<ReceivingRates>,
}

/// The rates at the end of a full acknowledgement (§3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReceivingRates {
    /// Packets received per second.
    pub packets_per_second: u32,
    /// Estimated capacity of the link, in packets per second.
    pub link_capacity_packets_per_second: u32,
    /// Bytes received per second; absent from libsrt before 1.0.3.
    pub bytes_per_second: Option<u32>,
}

#[inline]
fn word(body: &[u8], index: usize) -> Option<u32> {
    let bytes = body.get(index * 4..index * 4 + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// A sequence number whose top bit must be clear.
#[inline]
fn sequence(value: u32) -> Option<SequenceNumber> {
    (value & RANGE_BIT == 0).then(|| SequenceNumber::new(u64::from(value)))
}

impl Acknowledgement {
    fn parse(number: u32, body: &[u8]) -> Option<Self> {
        let next = sequence(word(body, 0)?)?;
        // A body of two or three words says nothing more that can be used: it counts as light.
        let report = match (word(body, 1), word(body, 2), word(body, 3)) {
            (Some(rtt_us), Some(rtt_variance_us), Some(available_buffer_packets)) => {
                let rates = match (word(body, 4), word(body, 5)) {
                    (Some(packets_per_second), Some(link_capacity_packets_per_second)) => Some(ReceivingRates {
                        packets_per_second,
                        link_capacity_packets_per_second,
                        bytes_per_second: word(body, 6),
                    }),
                    _ => None,
                };
                Some(ReceiverReport { rtt_us, rtt_variance_us, available_buffer_packets, rates })
            }
            _ => None,
        };
        Some(Self { number, next, report })
    }
}

/// The sender gives these packets up (§3.2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropRequest {
    /// The message they belong to; 0 when only the range counts.
    pub message_number: u32,
    /// The packets.
    pub range: SequenceRange,
}

impl DropRequest {
    fn parse(message_number: u32, body: &[u8]) -> Option<Self> {
        let range = SequenceRange::new(sequence(word(body, 0)?)?, sequence(word(body, 1)?)?)?;
        Some(Self { message_number, range })
    }
}

/// Packets from `first` to `last`, both included; never reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRange {
    first: SequenceNumber,
    last: SequenceNumber,
}

impl SequenceRange {
    /// The range, unless it is reversed.
    #[inline]
    pub const fn new(first: SequenceNumber, last: SequenceNumber) -> Option<Self> {
        if last.distance(first) < 0 { None } else { Some(Self { first, last }) }
    }

    /// The range that holds one packet.
    #[inline]
    pub const fn single(sequence: SequenceNumber) -> Self {
        Self { first: sequence, last: sequence }
    }

    /// Its first packet.
    #[inline]
    pub const fn first(self) -> SequenceNumber {
        self.first
    }

    /// Its last packet.
    #[inline]
    pub const fn last(self) -> SequenceNumber {
        self.last
    }

    /// How many packets, at least one and up to 2³⁰: the owner of a window cuts the range to it before walking it.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u32 {
        self.last.distance(self.first) as u32 + 1
    }
}

const RANGE_BIT: u32 = 1 << 31;

/// A list of lost packets whose coding has been checked to the end (§3.2.5, appendix A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossReport<'a> {
    body: &'a [u8],
}

impl<'a> LossReport<'a> {
    /// `None` when the list is empty, is cut, has a range without end or one that is reversed.
    fn parse(body: &'a [u8]) -> Option<Self> {
        if body.is_empty() || !body.len().is_multiple_of(4) {
            return None;
        }
        let mut index = 0;
        while let Some(value) = word(body, index) {
            if value & RANGE_BIT != 0 {
                index += 1;
                SequenceRange::new(SequenceNumber::new(u64::from(value)), sequence(word(body, index)?)?)?;
            }
            index += 1;
        }
        Some(Self { body })
    }

    /// The ranges in the order of the list; no more of them than words in the packet.
    pub fn ranges(&self) -> impl Iterator<Item = SequenceRange> + use<'a> {
        let body = self.body;
        let mut index = 0;
        std::iter::from_fn(move || {
            let first = word(body, index)?;
            index += 1;
            let range_first = SequenceNumber::new(u64::from(first));
            if first & RANGE_BIT == 0 {
                return Some(SequenceRange::single(range_first));
            }
            let last = SequenceNumber::new(u64::from(word(body, index)?));
            index += 1;
            SequenceRange::new(range_first, last)
        })
    }
}

/// Writes control packets to one peer; each method appends one whole packet to the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlWriter {
    /// Time stamp of the packet, in µs of our clock for this connection, wrapping at 32 bits.
    pub timestamp_us: u32,
    /// Socket id of the peer.
    pub socket_id: u32,
}

impl ControlWriter {
    fn header(self, buffer: &mut Vec<u8>, control_type: ControlType, subtype: u16, type_information: u32) {
        let mut header = [0; HEADER_LEN];
        ControlHeader {
            control_type,
            subtype,
            type_information,
            timestamp_us: self.timestamp_us,
            socket_id: self.socket_id,
        }
        .encode(&mut header);
        buffer.extend_from_slice(&header);
    }

    /// libsrt sends, and Wireshark expects, one empty word where there is no body.
    fn bare(self, buffer: &mut Vec<u8>, control_type: ControlType, type_information: u32) {
        self.header(buffer, control_type, 0, type_information);
        buffer.extend_from_slice(&[0; 4]);
    }

    /// A keep-alive.
    pub fn keep_alive(self, buffer: &mut Vec<u8>) {
        self.bare(buffer, ControlType::KeepAlive, 0);
    }

    /// The end of the connection.
    pub fn shutdown(self, buffer: &mut Vec<u8>) {
        self.bare(buffer, ControlType::Shutdown, 0);
    }

    /// The answer to the full acknowledgement with this number.
    pub fn acknowledgement_receipt(self, buffer: &mut Vec<u8>, number: u32) {
        self.bare(buffer, ControlType::AcknowledgementReceipt, number);
    }

    /// A congestion warning; only a test of another implementation sends it.
    pub fn congestion_warning(self, buffer: &mut Vec<u8>) {
        self.bare(buffer, ControlType::CongestionWarning, 0);
    }

    /// A peer error.
    pub fn peer_error(self, buffer: &mut Vec<u8>, code: u32) {
        self.bare(buffer, ControlType::PeerError, code);
    }

    /// An acknowledgement: light, small or full by what it holds.
    pub fn acknowledgement(self, buffer: &mut Vec<u8>, acknowledgement: &Acknowledgement) {
        self.header(buffer, ControlType::Acknowledgement, 0, acknowledgement.number);
        let mut put = |value: u32| buffer.extend_from_slice(&value.to_be_bytes());
        put(acknowledgement.next.get() as u32);
        let Some(report) = &acknowledgement.report else { return };
        put(report.rtt_us);
        put(report.rtt_variance_us);
        put(report.available_buffer_packets);
        let Some(rates) = &report.rates else { return };
        put(rates.packets_per_second);
        put(rates.link_capacity_packets_per_second);
        if let Some(bytes_per_second) = rates.bytes_per_second {
            put(bytes_per_second);
        }
    }

    /// A loss report of as many of the ranges as fit into a packet of `packet_size_max` bytes, header included.
    ///
    /// Returns how many ranges were taken from the iterator and written; with none, nothing is appended.
    pub fn loss_report(
        self,
        buffer: &mut Vec<u8>,
        ranges: impl IntoIterator<Item = SequenceRange>,
        packet_size_max: usize,
    ) -> usize {
        let start = buffer.len();
        self.header(buffer, ControlType::LossReport, 0, 0);
        let mut written = 0;
        let mut ranges = ranges.into_iter();
        // A range takes up to two words: ask for the next only while both fit.
        while buffer.len() - start + 8 <= packet_size_max {
            let Some(range) = ranges.next() else { break };
            let (first, last) = (range.first.get() as u32, range.last.get() as u32);
            if first == last {
                buffer.extend_from_slice(&first.to_be_bytes());
            } else {
                buffer.extend_from_slice(&(first | RANGE_BIT).to_be_bytes());
                buffer.extend_from_slice(&last.to_be_bytes());
            }
            written += 1;
        }
        if written == 0 {
            buffer.truncate(start);
        }
        written
    }

    /// A drop request.
    pub fn drop_request(self, buffer: &mut Vec<u8>, request: &DropRequest) {
        self.header(buffer, ControlType::DropRequest, 0, request.message_number);
        buffer.extend_from_slice(&(request.range.first.get() as u32).to_be_bytes());
        buffer.extend_from_slice(&(request.range.last.get() as u32).to_be_bytes());
    }

    /// New key material.
    pub fn key_material_request(self, buffer: &mut Vec<u8>, message: &[u8]) {
        self.header(buffer, ControlType::UserDefined, extension::KMREQ, 0);
        buffer.extend_from_slice(message);
    }

    /// The answer to key material: the message itself, or a state.
    pub fn key_material_response(self, buffer: &mut Vec<u8>, message: &[u8]) {
        self.header(buffer, ControlType::UserDefined, extension::KMRSP, 0);
        buffer.extend_from_slice(message);
    }

    /// The extension of a handshake of version 4.
    pub fn handshake_request(self, buffer: &mut Vec<u8>, asked: &HandshakeExtension) {
        self.header(buffer, ControlType::UserDefined, extension::HSREQ, 0);
        asked.encode(buffer);
    }

    /// The answer to it.
    pub fn handshake_response(self, buffer: &mut Vec<u8>, agreed: &HandshakeExtension) {
        self.header(buffer, ControlType::UserDefined, extension::HSRSP, 0);
        agreed.encode(buffer);
    }

    /// A handshake; `body` is the packet's content from the handshake version on.
    pub fn handshake(self, buffer: &mut Vec<u8>, body: &[u8]) {
        self.header(buffer, ControlType::Handshake, 0, 0);
        buffer.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{self, Header};
    use super::*;
    use proptest::prelude::*;

    const TO: ControlWriter = ControlWriter { timestamp_us: 0x0102_0304, socket_id: 0x0506_0708 };

    fn number(value: u64) -> SequenceNumber {
        SequenceNumber::new(value)
    }

    fn range(first: u64, last: u64) -> SequenceRange {
        SequenceRange::new(number(first), number(last)).expect("in order")
    }

    fn read(packet: &[u8]) -> Result<Control<'_>, Malformed> {
        let Header::Control(header) = packet::parse(packet)? else { panic!("a control packet") };
        Control::parse(&header, &packet[HEADER_LEN..])
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut buffer = Vec::new();
        write(&mut buffer);
        buffer
    }

    #[test]
    fn packets_without_body_carry_four_bytes_of_padding() {
        let keep_alive = written(|buffer| TO.keep_alive(buffer));
        assert_eq!(keep_alive, [0x80, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]);
        assert_eq!(read(&keep_alive), Ok(Control::KeepAlive));
        assert_eq!(read(&keep_alive[..HEADER_LEN]), Ok(Control::KeepAlive));
        let shutdown = written(|buffer| TO.shutdown(buffer));
        assert_eq!((shutdown.len(), read(&shutdown)), (20, Ok(Control::Shutdown)));
        let receipt = written(|buffer| TO.acknowledgement_receipt(buffer, 7));
        assert_eq!((receipt.len(), read(&receipt)), (20, Ok(Control::AcknowledgementReceipt { number: 7 })));
        assert_eq!(read(&written(|buffer| TO.congestion_warning(buffer))), Ok(Control::CongestionWarning));
        assert_eq!(read(&written(|buffer| TO.peer_error(buffer, 4000))), Ok(Control::PeerError { code: 4000 }));
    }

    #[test]
    fn the_three_lengths_of_acknowledgements_are_told_apart() {
        let rates = ReceivingRates {
            packets_per_second: 4750,
            link_capacity_packets_per_second: 100_000,
            bytes_per_second: Some(6_250_000),
        };
        let report =
            ReceiverReport { rtt_us: 30_000, rtt_variance_us: 500, available_buffer_packets: 8191, rates: Some(rates) };
        let full = Acknowledgement { number: 3, next: number(0x7fff_ffff), report: Some(report) };
        let small = Acknowledgement { report: Some(ReceiverReport { rates: None, ..report }), ..full };
        let light = Acknowledgement { number: 0, report: None, ..full };
        let six_words = ReceivingRates { bytes_per_second: None, ..rates };
        let old = Acknowledgement { report: Some(ReceiverReport { rates: Some(six_words), ..report }), ..full };
        for (acknowledgement, length) in [(full, 28), (old, 24), (small, 16), (light, 4)] {
            let packet = written(|buffer| TO.acknowledgement(buffer, &acknowledgement));
            assert_eq!(packet.len(), HEADER_LEN + length);
            assert_eq!(read(&packet), Ok(Control::Acknowledgement(acknowledgement)));
        }
        let packet = written(|buffer| TO.acknowledgement(buffer, &full));
        assert_eq!(packet[16..24], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0x75, 0x30]);
    }

    #[test]
    fn an_acknowledgement_of_no_packet_number_is_malformed() {
        let packet =
            written(|buffer| TO.acknowledgement(buffer, &Acknowledgement { number: 0, next: number(5), report: None }));
        let malformed = Err(Malformed::ControlBody(ControlType::Acknowledgement));
        for length in HEADER_LEN..HEADER_LEN + 4 {
            assert_eq!(read(&packet[..length]), malformed);
        }
        let mut marked = packet.clone();
        marked[16] |= 0x80;
        assert_eq!(read(&marked), malformed);
    }

    #[test]
    fn loss_lists_code_single_packets_and_ranges() {
        let ranges = [range(5, 5), range(7, 9), range(0x7fff_fffe, 1)];
        let packet = written(|buffer| assert_eq!(TO.loss_report(buffer, ranges, 1500), 3));
        assert_eq!(packet[16..], [0, 0, 0, 5, 0x80, 0, 0, 7, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 1]);
        let Ok(Control::LossReport(report)) = read(&packet) else { panic!("a loss report") };
        assert_eq!(report.ranges().collect::<Vec<_>>(), ranges);
        assert_eq!(ranges[2].len(), 4);
    }

    #[test]
    fn a_loss_list_takes_no_more_ranges_than_fit() {
        let many = (0..1000).map(|index| range(index * 10, index * 10 + 1));
        let mut left = many;
        let packet = written(|buffer| assert_eq!(TO.loss_report(buffer, &mut left, 16 + 8 * 3 + 7), 3));
        assert_eq!(packet.len(), 16 + 8 * 3);
        assert_eq!(left.next(), Some(range(30, 31)));
        assert_eq!(written(|buffer| assert_eq!(TO.loss_report(buffer, [], 1500), 0)), [0; 0]);
    }

    #[test]
    fn broken_loss_lists_are_refused_whole() {
        let header = written(|buffer| assert_eq!(TO.loss_report(buffer, [range(5, 5)], 1500), 1));
        let malformed = Err(Malformed::ControlBody(ControlType::LossReport));
        let bodies: [&[u8]; 6] = [
            &[],
            &[0, 0, 0],
            &[0x80, 0, 0, 1],                         // a range without an end
            &[0x80, 0, 0, 1, 0x80, 0, 0, 2],          // an end that is a beginning
            &[0x80, 0, 0, 9, 0, 0, 0, 7],             // reversed
            &[0, 0, 0, 1, 0x80, 0, 0, 9, 0, 0, 0, 7], // reversed, later
        ];
        for body in bodies {
            let packet = [&header[..HEADER_LEN], body].concat();
            assert_eq!(read(&packet), malformed, "{body:?}");
        }
    }

    #[test]
    fn drop_requests_short_or_reversed_are_malformed() {
        let request = DropRequest { message_number: 12, range: range(0x7fff_ffff, 3) };
        let packet = written(|buffer| TO.drop_request(buffer, &request));
        assert_eq!(packet[4..8], [0, 0, 0, 12]);
        assert_eq!(read(&packet), Ok(Control::DropRequest(request)));
        let malformed = Err(Malformed::ControlBody(ControlType::DropRequest));
        for length in HEADER_LEN..HEADER_LEN + 8 {
            assert_eq!(read(&packet[..length]), malformed);
        }
        let mut reversed = packet.clone();
        reversed[16..24].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 8]);
        assert_eq!(read(&reversed), malformed);
        assert_eq!(SequenceRange::new(number(9), number(8)), None);
    }

    #[test]
    fn extension_messages_are_told_by_their_subtype() {
        let request = written(|buffer| TO.key_material_request(buffer, &[1, 2, 3, 4]));
        assert_eq!(request[..4], [0xff, 0xff, 0, 3]);
        assert_eq!(read(&request), Ok(Control::KeyMaterialRequest(&[1, 2, 3, 4])));
        let response = written(|buffer| TO.key_material_response(buffer, &[4, 0, 0, 0]));
        assert_eq!(read(&response), Ok(Control::KeyMaterialResponse(&[4, 0, 0, 0])));
        let mut unknown = response;
        unknown[3] = 77;
        assert_eq!(read(&unknown), Ok(Control::UnknownExtension { subtype: 77 }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_control_packet_panic(mut bytes in proptest::collection::vec(any::<u8>(), 16..200), code in 0_u8..10) {
            bytes[0] = 0x80;
            bytes[1] = code;
            if let Ok(Control::LossReport(report)) = read(&bytes) {
                prop_assert!(report.ranges().count() <= (bytes.len() - 16) / 4);
                prop_assert!(report.ranges().count() > 0);
            }
        }
    }
}
