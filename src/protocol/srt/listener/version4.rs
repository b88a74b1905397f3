//! Callers with version 4 of the handshake, which sets up a connection and says nothing of SRT: `connection/version4.rs` tells what
//! comes after it.

use super::{Acceptance, AdmissionRequest, Answer, Listener};
use crate::base::Instant;
use crate::protocol::srt::encryption::KeyMaterialState;
use crate::protocol::srt::handshake::{HandshakeFields, RejectReason, SOCKET_TYPE_DATAGRAM, VERSION_MIN};
use crate::protocol::srt::parameters::{ConnectionParameters, Version4Terms};

impl Listener {
    /// What there is to judge in such a conclusion.
    pub(super) fn judge_version4(
        &mut self,
        request: AdmissionRequest,
        fields: &HandshakeFields,
    ) -> Result<AdmissionRequest, RejectReason> {
        if self.settings.version_min > VERSION_MIN || self.settings.mode.is_reliable() {
            return Err(RejectReason::Version);
        }
        if fields.extension != SOCKET_TYPE_DATAGRAM {
            return Err(RejectReason::MessageApi);
        }
        self.judge_backlog()?;
        Ok(request)
    }
}

impl AdmissionRequest {
    /// Lets such a caller in: by arrival and in plain until it says what it has. The answer has no extensions either.
    pub(super) fn accept_version4(&self, now: Instant, acceptance: &Acceptance) -> (ConnectionParameters, Answer) {
        let settled = self.parameters(now, acceptance);
        let answer = self.answer(now, |body| self.fields_accepted(&settled).encode(body));
        let has_passphrase = acceptance.has_passphrase;
        let parameters = ConnectionParameters {
            key_state: if has_passphrase { KeyMaterialState::Securing } else { KeyMaterialState::Unsecured },
            version4: Some(Version4Terms {
                latency_max_ms: acceptance.latency_max_ms.max(acceptance.receive_latency_ms),
                has_passphrase,
                enforced_encryption: acceptance.enforced_encryption,
            }),
            ..settled
        };
        (parameters, answer)
    }
}
