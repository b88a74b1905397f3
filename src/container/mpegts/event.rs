//! What the demultiplexer tells.

#[cfg(doc)]
use super::Demux;
use super::directory::{ProgrammeIndex, TrackIndex};

/// What a transport stream tells next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Programmes or tracks changed, or a table has a new version: see [`Demux::programmes`] and [`Demux::tracks`].
    /// Given before any data of a new track. A track that is gone got its last event before.
    Tables,
    /// A programme clock reference (H.222.0 §2.4.3.5).
    Pcr {
        /// Whose clock; a PCR that several programmes share is given for each.
        programme: ProgrammeIndex,
        /// Base × 300 + extension, below 2³³ × 300.
        pcr_27mhz: u64,
        /// The clock does not continue the one before (`discontinuity_indicator`, H.222.0 §2.4.3.5).
        discontinuity: bool,
    },
    /// A PES packet begins.
    PesStart {
        /// On which track.
        track: TrackIndex,
        /// `stream_id`.
        stream_id: u8,
        /// Presentation time stamp, 33 bits of 90 kHz.
        pts: Option<u64>,
        /// Decoding time stamp, 33 bits of 90 kHz; when absent it equals the PTS.
        dts: Option<u64>,
        /// `data_alignment_indicator`.
        data_alignment: bool,
        /// `random_access_indicator` of the packet it begins in.
        random_access: bool,
        /// Payload bytes, when `PES_packet_length` is not 0.
        length: Option<u32>,
    },
    /// Payload of the PES packet that began last on this track. After a [`Event::PesEnd`] it contradicts that end.
    PesData {
        /// On which track.
        track: TrackIndex,
        /// Never empty.
        data: &'a [u8],
    },
    /// The length that [`Event::PesStart`] announced is reached, with no byte missing.
    PesEnd {
        /// On which track.
        track: TrackIndex,
    },
    /// The packet of the last data was filled up by adaptation field stuffing, which a multiplexer does at the end of a PES
    /// packet without length. No proof: a multiplexer may stuff where it likes.
    PesEndHint {
        /// On which track.
        track: TrackIndex,
    },
    /// A private section, whole; its CRC, when it has one, is right.
    Section {
        /// On which track.
        track: TrackIndex,
        /// From `table_id` to the last byte, CRC included.
        data: &'a [u8],
    },
    /// Bytes are missing, or may be, before the next event of this track. What comes then still belongs to the PES packet
    /// that was open, until the next [`Event::PesStart`].
    Discontinuity {
        /// On which track.
        track: TrackIndex,
        /// How that is known.
        cause: DiscontinuityCause,
    },
}

/// How it is known that bytes of a track are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiscontinuityCause {
    /// The continuity counter did not follow, and nobody had said so.
    Continuity,
    /// A packet of the track was marked damaged (`transport_error_indicator`) and dropped.
    TransportError,
    /// The continuity counter did not follow, and `discontinuity_indicator` announced it.
    Signalled,
    /// [`Demux::gap`] was called.
    Gap {
        /// The continuity counter follows, but so many packets are missing that it would also follow if 16 of the track's
        /// were among them.
        unproven: bool,
    },
    /// Scrambled packets, of which this is the first, are dropped.
    Scrambled,
    /// The header of a PES packet cannot be read; the PES packet is dropped.
    PesHeader,
}
