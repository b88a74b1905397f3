//! Body of the fuzz target: one source from datagrams to frames, with rings that come late, are too small, and end.

use std::net::SocketAddr;
use std::time::Duration;

use super::frame::{Frame, FrameSink, FrameTooLarge, SinkIndex, StreamSink, TrackDescription};
use super::ingest::{Ingest, Protocol};
use crate::base::{Datagram, Instant, PacketPool, PoolOptions};
use crate::media::TrackConfiguration;
use crate::protocol::rtp::packet::Packetizer;
use crate::protocol::rtp::raw_ts::{RawOptions, RawTransportStream};
use crate::protocol::rtp::{Encoding, PayloadFormat, PayloadTypes, Source, SourceOptions};

const SLOT: usize = 2_048;
const SLOTS: usize = 1_024;
const FRAME_LEN_MAX: usize = 3_000;
const ASSEMBLY_TIMEOUT: Duration = Duration::from_millis(200);
/// Payload types of RTP sources: MPEG-TS, H.264, HEVC, one that nobody explains.
const PAYLOAD_TYPES: [u8; 4] = [33, 96, 97, 98];

/// Steps of four bytes, some followed by content, drive an [`Ingest`] into rings that only check. Promises that must hold
/// whatever comes: a frame that passed its limit is given up, nothing is written to a track that has ended, no byte comes out
/// more than once, and segments never go back.
pub fn fuzz_ingest(data: &[u8]) {
    let options = PoolOptions { slots: SLOTS, slot_size: SLOT, ..PoolOptions::default() };
    let pool = PacketPool::new(options).expect("packet memory for a thousand packets");
    let Some((&[flags, random], mut rest)) = data.split_first_chunk::<2>() else { return };
    let mut payload_types = PayloadTypes::default();
    payload_types.set(96, PayloadFormat::new(Encoding::H264));
    payload_types.set(97, PayloadFormat::new(Encoding::Hevc));
    let mut ingest = Ingest::new(payload_types);
    let mut sink = CheckingSink { ready_at_once: flags & 0x10 == 0, ..CheckingSink::default() };
    let mut packetizer = Packetizer::new(1, PAYLOAD_TYPES[usize::from(flags & 3)], u16::MAX - 8);
    let protocol = || {
        if flags & 4 == 0 {
            Protocol::RawTransport(Box::new(RawTransportStream::new(RawOptions::default())))
        } else {
            let options = SourceOptions { reorder_depth: 8, ..SourceOptions::default() };
            Protocol::Rtp(Box::new(Source::new(options, u64::from(random))))
        }
    };
    ingest.attach(protocol());
    let mut now = Instant::from_millis(600_000);
    let mut buffer = Vec::new();
    let mut bytes_in = 0;
    while let Some((&[kind, a, b, c], after)) = rest.split_first_chunk::<4>() {
        rest = after;
        match kind % 8 {
            0 => now += Duration::from_micros(u64::from(a) * u64::from(b) * 16),
            1 => sink.opening = 0,
            2 if a < 16 => {
                ingest.detach(now, &mut sink);
                ingest.attach(protocol());
            }
            _ => {
                let mut bytes = Vec::with_capacity(SLOT);
                let len = if flags & 4 == 0 {
                    1 + (usize::from(a) | usize::from(b & 3) << 8)
                } else {
                    for _ in 0..(c >> 6) {
                        packetizer.header(0, false);
                    }
                    let timestamp = u32::from(b) << 24 | u32::from(c) << 8;
                    bytes.extend_from_slice(&packetizer.header(timestamp, kind & 0x80 != 0));
                    usize::from(a) * if flags & 3 == 0 { 5 } else { 1 }
                };
                let (content, left) = rest.split_at(len.min(rest.len()).min(SLOT - bytes.len()));
                rest = left;
                bytes.extend_from_slice(content);
                bytes_in += bytes.len();
                if let Some(packet) = pool.copy_from(&bytes) {
                    let peer = SocketAddr::from(([198, 51, 100, 7], 51_000));
                    let datagram = Datagram { packet, peer, local: None, interface: 0, path: 0, arrival: now };
                    ingest.receive(now, datagram);
                }
            }
        }
        ingest.handle_timeout(now);
        ingest.deliver(now, &mut sink);
        ingest.expire(now, ASSEMBLY_TIMEOUT, &mut sink);
        while ingest.poll_event().is_some() {}
        buffer.clear();
        while ingest.poll_transmit(now, &mut buffer).is_some() {}
        let _ = ingest.next_timeout();
    }
    ingest.detach(now, &mut sink);
    assert!(sink.tracks.iter().all(|track| track.open == 0), "an open frame is left behind");
    // A depacketizer puts start codes of four bytes before NAL units of one or two.
    let committed: usize = sink.tracks.iter().map(|track| track.committed).sum();
    assert!(committed <= 7 * bytes_in, "more bytes out than in");
    drop(ingest);
    assert_eq!(pool.in_use(), 0, "a slot is lost");
}

#[derive(Default)]
struct CheckingSink {
    tracks: Vec<CheckingTrack>,
    ready_at_once: bool,
    opening: usize,
}

#[derive(Default)]
struct CheckingTrack {
    open: usize,
    refused: bool,
    ended: bool,
    committed: usize,
    segment: u32,
}

impl StreamSink for CheckingSink {
    type Track<'a> = &'a mut CheckingTrack;

    fn open(&mut self, _: &TrackDescription) -> SinkIndex {
        self.tracks.push(CheckingTrack::default());
        self.opening += usize::from(!self.ready_at_once);
        SinkIndex(self.tracks.len() - 1)
    }

    fn is_opening(&self) -> bool {
        self.opening > 0
    }

    fn track(&mut self, index: SinkIndex) -> &mut CheckingTrack {
        &mut self.tracks[index.0]
    }

    fn end(&mut self, index: SinkIndex) {
        let track = &mut self.tracks[index.0];
        assert!(!track.ended, "a track ends once");
        track.ended = true;
    }
}

impl FrameSink for &mut CheckingTrack {
    fn append(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        assert!(!self.ended, "bytes for a track that has ended");
        assert!(!self.refused, "bytes for a frame that is worth nothing");
        if self.open + bytes.len() > FRAME_LEN_MAX {
            self.refused = true;
            return Err(FrameTooLarge);
        }
        self.open += bytes.len();
        Ok(())
    }

    fn commit(&mut self, _: Instant, frame: &Frame) {
        assert!(!self.ended && !self.refused, "a frame that is worth nothing is not published");
        assert!(frame.segment >= self.segment, "segments never go back");
        self.segment = frame.segment;
        self.committed += std::mem::take(&mut self.open);
    }

    fn abandon(&mut self) {
        self.open = 0;
        self.refused = false;
    }

    fn configure(&mut self, configuration: &TrackConfiguration) {
        assert!(!self.ended);
        assert!(configuration.generation > 0, "a configuration has a generation");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_ingest_survives_any_source(bytes in proptest::collection::vec(any::<u8>(), 0..1_500)) {
            super::fuzz_ingest(&bytes);
        }
    }
}
