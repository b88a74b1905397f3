//! A peer of version 4 of the handshake (libsrt before 1.3): no cookies, no sides, and nothing of SRT before both are connected.

use super::{ANSWER_INTERVAL, Rendezvous, Stage};
use crate::base::Instant;
use crate::protocol::srt::encryption::Cipher;
use crate::protocol::srt::handshake::{RejectReason, Request};
use crate::protocol::srt::parameters::PeerTimeBase;

impl Rendezvous {
    /// Why such a peer cannot be met.
    pub(super) fn refusal_of_version4(&self) -> Option<RejectReason> {
        let is_gcm = self.settings.encryption.as_ref().is_some_and(|ours| ours.cipher != Cipher::AesCtr);
        let must_be_gcm = is_gcm && (!self.settings.takes_any_cipher || self.settings.role.sends());
        let has_filter = self.settings.packet_filter.is_some();
        has_filter.then_some(RejectReason::Filter).or(must_be_gcm.then_some(RejectReason::Crypto))
    }

    /// What such a peer says.
    pub(super) fn switch_version4(&mut self, now: Instant, request: Request) -> Option<Result<(), RejectReason>> {
        match (request, self.stage) {
            (Request::WaveAHand, Stage::Waving) => (self.stage, self.next_send) = (Stage::Attention, now),
            (Request::WaveAHand, Stage::Attention) => {
                self.next_send = self.next_send.min(now.max(self.last_send + ANSWER_INTERVAL));
            }
            // Who concludes has heard us.
            (Request::Conclusion, _) | (Request::Agreement, Stage::Attention) => self.connect_version4(now),
            _ => return None,
        }
        Some(Ok(()))
    }

    pub(super) fn connect_version4(&mut self, now: Instant) {
        let plain = self.parameters(PeerTimeBase { timestamp_us: 0, arrival: now });
        let offered = self.offered.take();
        let parameters = plain.with_version4(offered, self.settings.latency_max_ms, self.settings.enforced_encryption);
        self.connect(parameters);
        // For a peer that has heard nothing of us but a wave.
        self.agreement_due = true;
    }
}
