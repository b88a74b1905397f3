//! What a shard says of itself and of its sessions.

use super::Shard;
use crate::base::{Allowance, Instant};
use crate::pipeline::ingest::IngestEvent;
use crate::protocol::rtp::raw_ts::RawEvent;
use crate::protocol::rtp::{RestartReason, SourceEvent};
use crate::protocol::srt::connection::{CloseReason, Event as SrtEvent};
use crate::protocol::srt::encryption::KeyMaterialState;
use crate::shard::report::{ShardCounters, ShardReport};
use crate::shard::sessions::Session;
use crate::shard::strangers::SourceKey;

impl Shard {
    pub(super) fn report(&self, now: Instant) -> ShardReport {
        let net = self.net.statistics();
        let door = self.door.listener.counters();
        let (aggregate_slots, aggregate_slots_used, aggregates) = self
            .net
            .aggregates()
            .map_or_else(Default::default, |(pool, counts)| (pool.total_slots() as u64, pool.in_use() as u64, counts));
        let counters = ShardCounters {
            dropped_by_kernel: self.net.dropped_by_kernel(),
            credit_exhausted: net.credit_exhausted,
            past_kernel: net.past_kernel,
            dropped_fragments: net.fragments,
            dropped_no_port: net.no_port,
            sent: net.sends.sent,
            send_errors: net.sends.unreachable
                + net.sends.no_buffer
                + net.sends.denied
                + net.sends.too_long
                + net.sends.other
                + net.sends.arena_full,
            slots: self.net.pool().total_slots() as u64,
            slots_used: self.net.pool().in_use() as u64,
            aggregates: aggregates.aggregates,
            aggregates_copied: aggregates.copied,
            aggregate_slots,
            aggregate_slots_used,
            inductions: door.inductions,
            rejections: self.counters.rejections + door.rejections,
            dropped_malformed: door.dropped_malformed + door.dropped_cookie + net.unsound,
            dropped_stray: self.counters.dropped_stray + door.dropped_stray + self.door.strangers.dropped(),
            ..self.counters
        };
        let mut streams = self.sessions.iter().filter(|session| session.life != 0).map(Session::report).collect();
        self.report_calls(now, &mut streams);
        ShardReport { shard: self.index, core: self.core, at: now, streams, counters }
    }

    /// Says that sockets' buffers were too small, and for how much. Peers can bring it about as often as they like.
    pub(super) fn tell_overflows(&mut self, now: Instant) {
        let dropped = self.net.dropped_by_kernel();
        if dropped != self.overflows.told && self.overflows.allowance.take(now).is_some() {
            let (shard, lost) = (self.index, dropped.wrapping_sub(self.overflows.told));
            tracing::warn!(
                shard,
                "at least {lost} datagrams found no room in socket buffers: see shards.socket_buffer"
            );
            self.overflows.told = dropped;
        }
    }
}

/// What has been told of datagrams that found no room in a socket's buffer.
pub(super) struct Overflows {
    told: u64,
    allowance: Allowance,
}

impl Overflows {
    pub(super) fn new(now: Instant) -> Self {
        Self { told: 0, allowance: Allowance::new(now) }
    }
}

/// What a session's protocol has to say.
pub(super) fn handle_event(session: &mut Session, now: Instant, event: &IngestEvent) {
    match event {
        IngestEvent::Srt(SrtEvent::Connected) | IngestEvent::Rtp(SourceEvent::Started { .. }) => {}
        IngestEvent::Srt(SrtEvent::Closed(reason)) => {
            session.detach(now);
            session.tell(
                now,
                match reason {
                    CloseReason::PeerShutdown => "session closed by the peer",
                    CloseReason::PeerIdle => "session broken: the peer is silent",
                    CloseReason::Local => "session closed",
                    CloseReason::TakenOver => "session taken over",
                }
                .to_owned(),
            );
        }
        IngestEvent::Srt(SrtEvent::KeyRefreshed) => session.tell_of_peer(now, "keys refreshed".to_owned()),
        IngestEvent::Srt(SrtEvent::KeyRefreshFailed(state)) => {
            let what = match state {
                KeyMaterialState::BadCryptoMode => "are for another cipher",
                _ => "are not of this passphrase",
            };
            session.tell_of_peer(now, format!("key refresh failed: the new keys {what}"));
        }
        IngestEvent::Srt(SrtEvent::SequenceJump { skipped }) => {
            session.tell_of_peer(now, format!("the sender jumped ahead by {skipped} packets"));
        }
        IngestEvent::Srt(SrtEvent::PeerChanged { from, to }) => {
            session.tell_of_peer(now, format!("the peer has moved from {from} to {to}"));
        }
        IngestEvent::Srt(SrtEvent::PeerError { code }) => {
            session.tell_of_peer(now, format!("the peer reports error {code}"))
        }
        IngestEvent::Rtp(SourceEvent::Ended { .. }) | IngestEvent::Raw(RawEvent::Ended) => {
            session.detach(now);
            session.tell(now, "the source has ended".to_owned());
        }
        IngestEvent::Rtp(SourceEvent::PeerChanged { peer }) => {
            session.peer = Some(*peer);
            session.tell_of_peer(now, format!("packets come from {peer} now"));
        }
        IngestEvent::Rtp(SourceEvent::Restarted { ssrc, peer, reason, .. }) => {
            session.tell_of_peer(
                now,
                match reason {
                    RestartReason::SequenceJump => "the source goes on with other sequence numbers".to_owned(),
                    RestartReason::NewSsrc => format!("the source is SSRC {ssrc:08x} at {peer} now"),
                    RestartReason::Returned => format!("the source is back: SSRC {ssrc:08x} at {peer}"),
                },
            );
        }
        IngestEvent::Raw(RawEvent::PeerChanged { peer }) => {
            session.peer = Some(*peer);
            session.tell_of_peer(now, format!("packets come from {peer} now"));
        }
        IngestEvent::Raw(RawEvent::Started { .. }) => {}
        IngestEvent::UnknownPayloadType(payload_type) => {
            let key = match session.source {
                Some(SourceKey::Configured(_)) => format!("streams.{}.rtp", session.name),
                _ => "ingestion.rtp".to_owned(),
            };
            session.tell_of_peer(
                now,
                format!("payload type {payload_type} is not known: set {key}.payload_types.{payload_type} to mp2t, h264 or hevc"),
            );
        }
    }
}
