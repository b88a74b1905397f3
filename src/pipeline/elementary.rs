//! One elementary stream over RTP: depacketized pieces become frames of its one track.

use std::time::Duration;

use super::assembler::{Assembler, Carriage, DecodeTime};
use super::frame::{Damage, Origin, SinkIndex, StreamSink, TrackDescription};
use super::timeline::{ClockWidth, Timeline};
use crate::base::Instant;
use crate::codec::dts::DecodeTimeEstimator;
use crate::codec::framer::{AnyFramer, FramerHints};
use crate::codec::rtp_access_unit::AccessUnitEnd;
use crate::codec::rtp_payload::Piece;
use crate::codec::{h264, hevc};
use crate::media::{Codec, Payload};
use crate::protocol::rtp::{Encoding, PayloadFormat};

/// What the RTP payloads of one source become.
pub struct ElementaryStream {
    encoding: Encoding,
    depacketizer: Depacketizer,
    access_unit_end: AccessUnitEnd,
    timeline: Timeline,
    track: Track,
    /// Payloads, or parts of payloads, that the payload format does not allow.
    malformed: u64,
    /// The time stamp of the access unit that is open, so that it is given once.
    open_timestamp: Option<i64>,
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

impl ElementaryStream {
    /// A stream of this format, which opens its track; `None` for formats that are no elementary stream known here.
    pub fn new<S: StreamSink>(format: &PayloadFormat, ssrc: u32, sink: &mut S) -> Option<Self> {
        let (depacketizer, codec) = match format.encoding {
            Encoding::H264 => {
                let mut depacketizer = h264::rtp::Depacketizer::new();
                if let Some(sets) = format.parameter("sprop-parameter-sets") {
                    // What the description gets wrong, the stream itself will say in band.
                    let _ = depacketizer.prime(sets);
                }
                (Depacketizer::H264(depacketizer), Codec::H264)
            }
            Encoding::Hevc => {
                let numbered = format.parameter("sprop-max-don-diff").is_some_and(|value| value != "0");
                let mut depacketizer = hevc::rtp::Depacketizer::new(numbered);
                let sets: Vec<&str> =
                    ["sprop-vps", "sprop-sps", "sprop-pps"].iter().filter_map(|name| format.parameter(name)).collect();
                if !sets.is_empty() {
                    let _ = depacketizer.prime(&sets);
                }
                (Depacketizer::Hevc(depacketizer), Codec::Hevc)
            }
            Encoding::Mp2t | Encoding::Other(_) => return None,
        };
        let description =
            TrackDescription { programme: 0, id: ssrc, codec, clock_rate: format.clock_rate, language: None };
        let estimator = DecodeTimeEstimator::new(format.clock_rate, None);
        Some(Self {
            encoding: format.encoding.clone(),
            depacketizer,
            access_unit_end: AccessUnitEnd::new(),
            timeline: Timeline::new(format.clock_rate, ClockWidth::Rtp).resumed(sink.resume(description.programme)),
            track: Track {
                assembler: Assembler::new(
                    AnyFramer::new(codec, FramerHints { is_cut_by_protocol: true, ..FramerHints::default() }),
                    DecodeTime::Derived(Box::new(estimator)),
                ),
                sink: sink.open(&description),
                description,
            },
            malformed: 0,
            open_timestamp: None,
        })
    }

    /// Whether this is a stream of that encoding.
    pub fn carries(&self, encoding: &Encoding) -> bool {
        self.encoding == *encoding
    }

    /// Takes one payload and writes what it completes. `timestamp` is unwrapped.
    pub fn receive<S: StreamSink>(
        &mut self,
        now: Instant,
        payload: &Payload,
        timestamp: i64,
        marker: bool,
        sink: &mut S,
    ) {
        let Self { track, timeline, .. } = self;
        let carriage = Carriage {
            arrival: payload.arrival,
            due: payload.due,
            recovered: payload.recovered,
            path_mask: payload.path_mask,
            origin: Origin::Rtp(timestamp),
        };
        let ends = self.access_unit_end.packet(timestamp, marker, payload.lost_before);
        if payload.lost_before > 0 {
            // Nothing tells whose the missing packets were: the access unit that is open, the one that begins here, or
            // others between them.
            let broken = self.depacketizer.discontinuity();
            let certain = if broken { Damage::LOSS } else { Damage::UNPROVEN };
            track.assembler.discontinuity(Damage::LOSS | certain, payload.lost_before);
        }
        if ends.before {
            track.assembler.flush(now, timeline, &mut sink.track(track.sink));
            self.open_timestamp = None;
        }
        if self.open_timestamp != Some(timestamp) {
            self.open_timestamp = Some(timestamp);
            track.assembler.mark(Some(timestamp as u64), None);
            if payload.lost_before > 0 {
                track.assembler.start_is_unproven();
            } else {
                track.assembler.start_is_proven();
            }
        }
        let bytes: &[u8] = &payload.packet;
        let mut rest = bytes;
        while let Some(piece) = self.depacketizer.push(&mut rest) {
            match piece {
                Piece::Bytes(bytes) => {
                    track.assembler.push(now, bytes, &carriage, timeline, &mut sink.track(track.sink));
                }
                Piece::Damaged => track.assembler.damage(Damage::LOSS),
                Piece::Malformed(_) => {
                    self.malformed += 1;
                    track.assembler.damage(Damage::SYNTAX);
                }
            }
        }
        if marker {
            track.assembler.carrier_ended();
        }
        if ends.after {
            track.assembler.flush(now, timeline, &mut sink.track(track.sink));
            self.open_timestamp = None;
        }
    }

    /// The source starts anew.
    pub fn restart(&mut self) {
        self.depacketizer.discontinuity();
        self.access_unit_end.restart();
        self.track.assembler.restart();
        self.timeline.restart();
        self.open_timestamp = None;
    }

    /// Publishes what is open; nothing more is expected for now.
    pub fn finish<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        self.track.assembler.conclude(now, &mut self.timeline, &mut sink.track(self.track.sink));
        self.open_timestamp = None;
    }

    /// Publishes what is open and ends the track: the source sends something else from now on.
    pub fn end<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        self.finish(now, sink);
        sink.end(self.track.sink);
    }

    /// Closes the open frame if nothing was added to it for `timeout`.
    pub fn expire<S: StreamSink>(&mut self, now: Instant, timeout: Duration, sink: &mut S) {
        self.track.assembler.expire(now, timeout, &mut self.timeline, &mut sink.track(self.track.sink));
    }

    /// The track.
    pub fn track(&self) -> &Track {
        &self.track
    }

    /// Its timeline.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Payloads, or parts of them, that the payload format does not allow.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl Depacketizer {
    fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Piece<'a>> {
        match self {
            Self::H264(depacketizer) => depacketizer.push(input),
            Self::Hevc(depacketizer) => depacketizer.push(input),
        }
    }

    fn discontinuity(&mut self) -> bool {
        match self {
            Self::H264(depacketizer) => depacketizer.discontinuity(),
            Self::Hevc(depacketizer) => depacketizer.discontinuity(),
        }
    }
}
