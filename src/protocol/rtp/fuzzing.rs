//! Bodies of the fuzz targets: any bytes in, nothing may panic or grow without bound.

use std::net::SocketAddr;

use super::packet::{RtpHeader, classify, ssrc_of};
use super::sdp::SdpSession;
use super::source::{ReportDestination, ReportOptions, Source, SourceOptions};
use super::{raw_ts, rtcp};
use crate::base::{Datagram, Instant, PacketPool, PoolOptions};

/// Classification and the RTP header.
pub fn fuzz_packet(data: &[u8]) {
    let kind = classify(data);
    let _ = ssrc_of(kind, data);
    if let Ok(header) = RtpHeader::parse(data) {
        assert!(header.payload(data).len() < data.len());
    }
}

/// RTCP compounds.
pub fn fuzz_rtcp(data: &[u8]) {
    if let Ok(items) = rtcp::parse(data) {
        assert!(items.count() <= data.len());
    }
}

/// Session descriptions.
pub fn fuzz_sdp(data: &[u8]) {
    let _ = SdpSession::parse(data);
}

/// A source, and a raw stream, fed by a script: each step is a pause, a peer and a datagram made from a few bytes or taken
/// as it stands.
pub fn fuzz_source(data: &[u8]) {
    const SLOTS: usize = 512;
    let options = PoolOptions { slots: SLOTS, slot_size: 64, ..PoolOptions::default() };
    let pool = PacketPool::new(options).expect("packet memory for 512 packets");
    let reports = ReportOptions {
        ssrc: 1,
        canonical_name: "fuzz".into(),
        destination: ReportDestination::Sender,
        session_bandwidth_bps: 1_000_000,
        receivers: 1,
    };
    let options = SourceOptions { reorder_depth: 16, reports: Some(reports), ..SourceOptions::default() };
    let mut source = Source::new(options, 0);
    let mut raw = raw_ts::RawTransportStream::new(raw_ts::RawOptions::default());
    let mut now = Instant::ZERO;
    let mut rest = data;
    let mut buffer = Vec::new();
    let mut last_sequence = None;
    let mut sent = 0_u16;
    while let Some((step, after)) = rest.split_first_chunk::<6>() {
        rest = after;
        let [kind, pause, peer, sequence_high, sequence_low, ssrc] = *step;
        now = now.offset_nanos(i64::from(pause) * i64::from(pause) * 100_000);
        // Mostly near the last one, so that sources do get proven.
        sent = if kind & 4 == 0 {
            sent.wrapping_add_signed(1 + i16::from(sequence_low.cast_signed() >> 5))
        } else {
            u16::from_be_bytes([sequence_high, sequence_low])
        };
        let [sequence_high, sequence_low] = sent.to_be_bytes();
        let mut bytes = vec![0x80, 33, sequence_high, sequence_low, 0, 0, 0, pause, 0, 0, 0, u8::from(ssrc < 16), 0x47];
        if kind & 9 == 1 {
            let len = usize::from(kind >> 2).min(rest.len());
            bytes = rest[..len].to_vec();
            rest = &rest[len..];
        }
        let Some(packet) = pool.copy_from(&bytes) else { panic!("the source holds more packets than it may") };
        let datagram = Datagram {
            packet,
            peer: SocketAddr::from(([127, 0, 0, 1 + u8::from(peer & 15 == 0)], 5_000 + u16::from(peer & 0x30 == 0))),
            local: None,
            interface: 0,
            path: peer >> 6,
            arrival: now,
        };
        if kind & 0x12 == 2 {
            raw.receive(now, datagram);
        } else {
            source.receive(now, datagram);
        }
        source.handle_timeout(now);
        raw.handle_timeout(now);
        while let Some(payload) = source.poll_payload(now) {
            let sequence = payload.payload.sequence;
            let expected = last_sequence.map(|last| last + 1 + u64::from(payload.payload.lost_before));
            assert!(payload.restart || expected == Some(sequence));
            last_sequence = Some(sequence);
        }
        while raw.poll_payload(now).is_some() {}
        while source.poll_event().is_some() {}
        while raw.poll_event().is_some() {}
        buffer.clear();
        while let Some(transmit) = source.poll_transmit(now, &mut buffer) {
            assert!(transmit.len <= buffer.len());
        }
        let _ = (source.next_timeout(), source.statistics());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_bodies_stand_random_input(data in prop::collection::vec(any::<u8>(), 0..600)) {
            fuzz_packet(&data);
            fuzz_rtcp(&data);
            fuzz_sdp(&data);
            fuzz_source(&data);
        }
    }
}
