//! What a shard says of itself and of its sessions.

use std::time::Duration;

use super::Shard;
use crate::base::{Allowance, Instant};
use crate::config::stream_key;
use crate::pipeline::ingest::{IngestEvent, Protocol};
use crate::protocol::rtp::raw_ts::RawEvent;
use crate::protocol::rtp::{RestartReason, SourceEvent};
use crate::protocol::srt::connection::{CloseReason, Event as SrtEvent};
use crate::protocol::srt::encryption::KeyMaterialState;
use crate::protocol::srt::group::Event as GroupEvent;
use crate::shard::net::AddressConflict;
use crate::shard::report::{ShardCounters, ShardReport};
use crate::shard::sessions::{About, Session};
use crate::shard::strangers::SourceKey;

/// A conflict of addresses that goes on is told again after this time.
const CONFLICT_AGAIN: Duration = Duration::from_secs(60);

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
            receive_errors: net.receive_errors,
            dropped_fragments: net.fragments,
            dropped_no_port: net.no_port,
            dropped_not_ours: net.not_ours,
            dropped_other_vlan: net.other_vlan,
            dropped_other_protocol: net.other_protocol,
            address_conflicts: net.address_conflicts,
            unanswered: net.unanswered,
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
            dropped_handshake_rate: door.dropped_rate,
            dropped_stray: self.counters.dropped_stray + door.dropped_stray + self.door.strangers.dropped(),
            ..self.counters
        };
        let live = self.sessions.iter().filter(|session| session.life != 0);
        let mut streams = live.map(|session| session.report(now)).collect();
        self.report_calls(now, &mut streams);
        let refusals = self.door.refusals.recent().cloned().collect();
        let refusals_by_reason = self.door.refusals.by_reason();
        ShardReport { shard: self.index, core: self.core, at: now, streams, counters, refusals, refusals_by_reason }
    }

    /// Says what is wrong with the net, which others can bring about as often as they like.
    pub(super) fn tell_of_net(&mut self, now: Instant) {
        self.tell_overflows(now);
        self.tell_conflicts(now);
    }

    /// Says that sockets' buffers were too small, and for how much.
    fn tell_overflows(&mut self, now: Instant) {
        let dropped = self.net.dropped_by_kernel();
        if dropped != self.told.overflows.lost && self.told.overflows.allowance.take(now).is_some() {
            let (shard, lost) = (self.index, dropped.wrapping_sub(self.told.overflows.lost));
            tracing::warn!(
                shard,
                "at least {lost} datagrams found no room in socket buffers: see shards.socket_buffer"
            );
            self.told.overflows.lost = dropped;
        }
    }

    /// Says that an address of ours is somebody else's too.
    fn tell_conflicts(&mut self, now: Instant) {
        if let Some(conflict) = self.net.poll_conflict()
            && self.told.conflicts.take(now, conflict)
        {
            let (shard, count) = (self.index, self.net.statistics().address_conflicts);
            tracing::warn!(
                shard,
                "{conflict}: one of the two has to have another, see shards.dpdk.addresses ({count} conflicts so far)"
            );
        }
    }
}

/// What has been told of the net.
pub(super) struct Told {
    overflows: Overflows,
    conflicts: Conflicts,
}

impl Told {
    pub(super) fn new(now: Instant) -> Self {
        let overflows = Overflows { lost: 0, allowance: Allowance::new(now) };
        Self { overflows, conflicts: Conflicts::new(now) }
    }
}

/// What has been told of datagrams that found no room in a socket's buffer.
struct Overflows {
    lost: u64,
    allowance: Allowance,
}

/// What has been told of others on the link who claim addresses of ours.
struct Conflicts {
    told: Option<(AddressConflict, Instant)>,
    allowance: Allowance,
}

impl Conflicts {
    fn new(now: Instant) -> Self {
        Self { told: None, allowance: Allowance::new(now) }
    }

    /// Whether a conflict is to be told now. It counts as told then.
    fn take(&mut self, now: Instant, conflict: AddressConflict) -> bool {
        let is_known =
            self.told.is_some_and(|(told, at)| told == conflict && now.saturating_since(at) < CONFLICT_AGAIN);
        if is_known || self.allowance.take(now).is_none() {
            return false;
        }
        self.told = Some((conflict, now));
        true
    }
}

/// What is settled with the peer of an SRT session by now.
fn about_now(session: &Session) -> About {
    match session.ingest.protocol() {
        Some(Protocol::Srt(connection)) => About::of_srt(connection.parameters()),
        _ => session.about.clone(),
    }
}

/// What a session's protocol has to say.
pub(super) fn handle_event(session: &mut Session, now: Instant, event: &IngestEvent) {
    match event {
        IngestEvent::Srt(SrtEvent::Introduced) => {
            let about = about_now(session);
            let what = format!("the peer has version {} and latency {} ms", about.peer_version, about.latency_ms);
            session.about = about;
            session.tell_of_peer(now, what);
        }
        IngestEvent::Srt(SrtEvent::Secured) => {
            session.about = about_now(session);
            session.tell_of_peer(now, format!("the peer encrypts with {}", session.about.cipher));
        }
        IngestEvent::Srt(SrtEvent::Connected | SrtEvent::KeyWanted) | IngestEvent::Rtp(SourceEvent::Started { .. }) => {
        }
        IngestEvent::Srt(SrtEvent::Closed(reason)) | IngestEvent::SrtGroup(GroupEvent::Closed(reason)) => {
            session.detach(now);
            let what = match reason {
                CloseReason::PeerShutdown => "session closed by the peer",
                CloseReason::PeerIdle => "session broken: the peer is silent",
                CloseReason::Local => "session closed",
                CloseReason::TakenOver => "session taken over",
            };
            session.ended_by = Some(what);
            session.tell(now, what.to_owned());
        }
        IngestEvent::Srt(event) => session.tell_of_peer(now, of_connection(event)),
        IngestEvent::SrtGroup(GroupEvent::Leg { path, event }) => {
            if let SrtEvent::PeerChanged { from, to } = event
                && session.peer == Some(*from)
            {
                session.peer = Some(*to);
            }
            session.tell_of_peer(now, format!("leg {path}: {}", of_connection(event)));
        }
        IngestEvent::SrtGroup(GroupEvent::LegClosed { path, peer, reason, .. }) => {
            // Whoever is left stands for the session.
            let left = session.group().map_or(&[][..], |group| group.legs());
            let (count, next) = (left.len(), left.first().map(|leg| leg.connection().parameters().peer));
            if session.peer == Some(*peer) {
                session.peer = next.or(session.peer);
            }
            let what = match reason {
                CloseReason::PeerShutdown => "closed by the peer",
                CloseReason::PeerIdle => "broken: its peer is silent",
                CloseReason::Local => "closed",
                CloseReason::TakenOver => "makes room for another",
            };
            session.tell_of_peer(now, format!("leg {path} from {peer} {what}; {count} left"));
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
                Some(SourceKey::Configured(_)) => stream_key(&session.name, "rtp"),
                _ => "ingestion.rtp".to_owned(),
            };
            session.tell_of_peer(
                now,
                format!("payload type {payload_type} is not known: set {key}.payload_types.{payload_type} to mp2t, h264 or hevc"),
            );
        }
    }
}

/// What a connection has to say besides that it is there or gone.
fn of_connection(event: &SrtEvent) -> String {
    match event {
        SrtEvent::Connected | SrtEvent::Closed(_) => unreachable!("told in other words"),
        SrtEvent::Introduced | SrtEvent::KeyWanted | SrtEvent::Secured => "goes on with its handshake".to_owned(),
        SrtEvent::KeyRefused(state) => format!("the peer cannot use our key: {}", state.name()),
        SrtEvent::KeyRefreshed => "keys refreshed".to_owned(),
        SrtEvent::KeyRefreshFailed(KeyMaterialState::BadCryptoMode) => {
            "key refresh failed: the new keys are for another cipher".to_owned()
        }
        SrtEvent::KeyRefreshFailed(KeyMaterialState::NoSecret) => {
            "key refresh failed: there is no passphrase here".to_owned()
        }
        SrtEvent::KeyRefreshFailed(_) => "key refresh failed: the new keys are not of this passphrase".to_owned(),
        SrtEvent::SequenceJump { skipped } => format!("the sender jumped ahead by {skipped} packets"),
        SrtEvent::PeerChanged { from, to } => format!("the peer has moved from {from} to {to}"),
        SrtEvent::PeerError { code } => format!("the peer reports error {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(last: u8) -> AddressConflict {
        let other_mac = [2, 0, 0, 0, 0, last];
        AddressConflict { address: "192.0.2.1".parse().unwrap(), other_mac, own_mac: [2, 0, 0, 0, 0, 1] }
    }

    #[test]
    fn a_conflict_that_goes_on_is_told_once_a_minute_and_another_one_at_once() {
        let start = Instant::from_millis(5_000);
        let mut conflicts = Conflicts::new(start);
        let told = |conflicts: &mut Conflicts, seconds: std::ops::Range<u64>, last| {
            seconds.filter(|second| conflicts.take(start + Duration::from_secs(*second), conflict(last))).count()
        };
        assert_eq!(told(&mut conflicts, 0..180, 7), 3);
        assert_eq!(told(&mut conflicts, 180..181, 8), 1);
        assert_eq!(told(&mut conflicts, 181..182, 7), 1);
    }

    #[test]
    fn forged_conflicts_of_many_hosts_are_told_once_a_second_after_the_first_twenty() {
        let start = Instant::from_millis(5_000);
        let mut conflicts = Conflicts::new(start);
        let is_told = |ms: &u64| conflicts.take(start + Duration::from_millis(*ms), conflict(*ms as u8));
        assert_eq!((0..5_000).filter(is_told).count(), 20 + 4);
    }
}
