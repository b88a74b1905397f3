//! One elementary stream over RTP: depacketized pieces become frames of its one track.

use std::time::Duration;

use super::assembler::{Assembler, Carriage, DecodeTime};
use super::frame::{Damage, SinkIndex, StreamSink, TrackDescription};
use super::timeline::{ClockWidth, Timeline};
use crate::base::Instant;
use crate::codec::dts::DecodeTimeEstimator;
use crate::codec::framer::AnyFramer;
use crate::codec::rtp_access_unit::AccessUnitEnd;
use crate::codec::{h264, hevc};
use crate::media::Codec;
use crate::protocol::rtp::RtpPayload;

/// What RTP payloads of one source become.
pub struct ElementaryStream {
    depacketizer: Depacketizer,
    access_unit_end: AccessUnitEnd,
    track: Track,
    timeline: Timeline,
    last: Carriage,
    malformed: u64,
}

/// The only track of the stream.
pub struct Track {
    /// The assembler of its frames.
    pub assembler: Assembler<AnyFramer>,
    /// What it is.
    pub description: TrackDescription,
    /// Where its frames go.
    pub sink: SinkIndex,
}

enum Depacketizer {
    H264(h264::rtp::Depacketizer),
    Hevc(hevc::rtp::Depacketizer),
}
