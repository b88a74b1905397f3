//! Crafted packets and sections, and events that outlive the demultiplexer's buffers.

use crate::container::mpegts::{Demux, DiscontinuityCause, Event, Limits, PACKET_LEN, SYNC_BYTE, crc32};

pub(super) const VIDEO: u16 = 0x100;
pub(super) const AUDIO: u16 = 0x101;
pub(super) const SPLICE: u16 = 0x102;
pub(super) const PMT: u16 = 0x1000;

/// An [`Event`] with bytes of its own; tracks and programmes as plain numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Tables,
    Pcr(u8, u64, bool),
    /// Track, PTS, DTS, random access, length.
    Start(u16, Option<u64>, Option<u64>, bool, Option<u32>),
    Data(u16, Vec<u8>),
    End(u16),
    Hint(u16),
    Section(u16, Vec<u8>),
    Lost(u16, DiscontinuityCause),
}

impl From<Event<'_>> for Told {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Tables => Self::Tables,
            Event::Pcr { programme, pcr_27mhz, discontinuity } => Self::Pcr(programme.0, pcr_27mhz, discontinuity),
            Event::PesStart { track, pts, dts, random_access, length, .. } => {
                Self::Start(track.0, pts, dts, random_access, length)
            }
            Event::PesData { track, data } => Self::Data(track.0, data.to_vec()),
            Event::PesEnd { track } => Self::End(track.0),
            Event::PesEndHint { track } => Self::Hint(track.0),
            Event::Section { track, data } => Self::Section(track.0, data.to_vec()),
            Event::Discontinuity { track, cause } => Self::Lost(track.0, cause),
        }
    }
}

/// All events that these bytes give.
pub(super) fn tell(demux: &mut Demux, mut bytes: &[u8]) -> Vec<Told> {
    let mut told = Vec::new();
    while let Some(event) = demux.push(&mut bytes) {
        told.push(event.into());
    }
    assert!(bytes.is_empty(), "all input is taken");
    told
}

/// A demultiplexer that has found its packets and knows a programme 1 with H.264 on [`VIDEO`], which carries the PCRs,
/// AAC on [`AUDIO`] and SCTE-35 on [`SPLICE`]: tracks 0, 1 and 2.
pub(super) fn ready() -> Demux {
    let mut demux = Demux::new(Limits::default());
    let mut bytes = Stream::default();
    bytes.section(0, &pat(0, &[(1, PMT)]));
    bytes.section(PMT, &pmt(1, 0, VIDEO, &[(0x1b, VIDEO, b""), (0x0f, AUDIO, b""), (0x86, SPLICE, b"")]));
    for _ in 0..4 {
        bytes.packet(0x1fff, Plain::default(), &[]);
    }
    assert_eq!(tell(&mut demux, &bytes.0), [Told::Tables, Told::Tables]);
    demux
}

/// What a crafted packet's header and adaptation field say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plain<'a> {
    pub(super) start: bool,
    pub(super) counter: u8,
    pub(super) error: bool,
    pub(super) scrambling: u8,
    /// Flags and fields, without length and stuffing.
    pub(super) field: &'a [u8],
    /// No payload bit.
    pub(super) empty: bool,
}

/// Bytes of a transport stream, packet by packet.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream(pub(super) Vec<u8>);

impl Stream {
    /// A packet; what the payload leaves is stuffed in the adaptation field.
    pub(super) fn packet(&mut self, pid: u16, plain: Plain<'_>, payload: &[u8]) -> &mut Self {
        let room = PACKET_LEN - 4 - payload.len();
        let control = u8::from(room > 0) << 5 | u8::from(!plain.empty) << 4;
        let flags = u8::from(plain.error) << 7 | u8::from(plain.start) << 6;
        let at = self.0.len();
        self.0.extend([SYNC_BYTE, flags | (pid >> 8) as u8, pid as u8]);
        self.0.push(plain.scrambling << 6 | control | plain.counter & 0x0f);
        if room > 0 {
            self.0.push(room as u8 - 1);
            if room > 1 {
                let field = if plain.field.is_empty() { &[0][..] } else { plain.field };
                assert!(field.len() < room);
                self.0.extend(field);
            }
            self.0.resize(at + PACKET_LEN - payload.len(), 0xff);
        }
        self.0.extend(payload);
        assert_eq!(self.0.len(), at + PACKET_LEN);
        self
    }

    /// A packet with this continuity counter, and payload only.
    pub(super) fn next(&mut self, pid: u16, counter: u8, payload: &[u8]) -> &mut Self {
        self.packet(pid, Plain { counter, ..Plain::default() }, payload)
    }

    /// A packet with this continuity counter in which a unit starts.
    pub(super) fn first(&mut self, pid: u16, counter: u8, payload: &[u8]) -> &mut Self {
        self.packet(pid, Plain { counter, start: true, ..Plain::default() }, payload)
    }

    /// A section that fits one packet, the first one of its PID.
    pub(super) fn section(&mut self, pid: u16, section: &[u8]) -> &mut Self {
        self.sections(pid, 0, section)
    }

    /// One packet with these sections, from its start on.
    pub(super) fn sections(&mut self, pid: u16, counter: u8, sections: &[u8]) -> &mut Self {
        let mut payload = vec![0];
        payload.extend(sections);
        payload.resize(PACKET_LEN - 4, 0xff);
        self.first(pid, counter, &payload)
    }
}

/// A table section with its CRC.
pub(super) fn table(table_id: u8, extension: u16, version: u8, numbers: [u8; 2], body: &[u8]) -> Vec<u8> {
    let [high, low] = extension.to_be_bytes();
    let length = (body.len() + 9) as u16;
    let mut section = vec![table_id, 0xb0 | (length >> 8) as u8, length as u8, high, low, 0xc1 | version << 1];
    section.extend(numbers);
    section.extend(body);
    section.extend(crc32(&section).to_be_bytes());
    section
}

/// A PAT of one section: numbers and PMT PIDs.
pub(super) fn pat(version: u8, programmes: &[(u16, u16)]) -> Vec<u8> {
    table(0, 1, version, [0, 0], &pat_body(programmes))
}

pub(super) fn pat_body(programmes: &[(u16, u16)]) -> Vec<u8> {
    let entry = |(number, pid): &(u16, u16)| {
        let ([a, b], [c, d]) = (number.to_be_bytes(), (0xe000 | pid).to_be_bytes());
        [a, b, c, d]
    };
    programmes.iter().flat_map(entry).collect()
}

/// A PMT: stream types, PIDs and descriptors.
pub(super) fn pmt(number: u16, version: u8, pcr_pid: u16, streams: &[(u8, u16, &[u8])]) -> Vec<u8> {
    table(2, number, version, [0, 0], &pmt_body(pcr_pid, streams))
}

pub(super) fn pmt_body(pcr_pid: u16, streams: &[(u8, u16, &[u8])]) -> Vec<u8> {
    let mut body = (0xe000 | pcr_pid).to_be_bytes().to_vec();
    body.extend([0xf0, 0]);
    for (stream_type, pid, descriptors) in streams {
        body.push(*stream_type);
        body.extend((0xe000 | pid).to_be_bytes());
        body.extend((0xf000 | descriptors.len() as u16).to_be_bytes());
        body.extend(*descriptors);
    }
    body
}

/// A PES packet header with a PTS; `length` is what is written as `PES_packet_length`.
pub(super) fn pes_header(pts: u64, length: u16) -> Vec<u8> {
    let mut header = vec![0, 0, 1, 0xe0];
    header.extend(length.to_be_bytes());
    header.extend([0x80, 0x80, 5]);
    header.push(0x21 | (pts >> 29) as u8 & 0x0e);
    header.extend([(pts >> 22) as u8, (pts >> 14) as u8 | 1, (pts >> 7) as u8, (pts << 1) as u8 | 1]);
    header
}

/// The start of a PES packet that fills one transport packet: header and payload of `byte`s.
pub(super) fn pes_start(pts: u64, length: u16, byte: u8) -> Vec<u8> {
    let mut payload = pes_header(pts, length);
    payload.resize(PACKET_LEN - 4, byte);
    payload
}

/// Payload of a whole packet.
pub(super) fn full(byte: u8) -> Vec<u8> {
    vec![byte; PACKET_LEN - 4]
}

/// `count` bytes of data of a track.
pub(super) fn data(track: u16, count: usize, byte: u8) -> Told {
    Told::Data(track, vec![byte; count])
}

/// The start of a PES packet without DTS and length.
pub(super) fn start(track: u16, pts: u64) -> Told {
    Told::Start(track, Some(pts), None, false, None)
}
