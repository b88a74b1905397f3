//! What of a listener goes into a snapshot: the secret of its cookies and the answers that it repeats, so that a caller whose handshake
//! is under way notices nothing.
//!
//! The rest begins anew, because callers repeat themselves: an induction or a conclusion that was not answered comes again, and its cookie
//! is still good; who waited for an admission is handed out once more, since whoever judged it is gone with the process. Buckets of the
//! rate limits begin full, which is what they are after a few seconds.

use super::{Answer, Attempt, ConnectionKey, Listener, ListenerCounters, ListenerSettings};
use crate::protocol::srt::packet::HEADER_LEN;
use crate::protocol::srt::snapshot::{
    RestoreError, SnapshotKind, SnapshotReader, SnapshotWriter, snapshot_fields, valid,
};

impl Listener {
    /// Appends to `snapshot` what another process needs to listen at the port in its place. **It holds a secret**, that of the cookies.
    pub fn snapshot(&self, snapshot: &mut Vec<u8>) {
        let mut writer = SnapshotWriter::new(SnapshotKind::Listener, snapshot);
        let to = &mut writer;
        to.array(&self.settings.cookie_secret);
        self.counters.snapshot(to);
        let answers = self.answered.iter().filter_map(|key| {
            let entry = self.attempts.get(key)?;
            match &entry.attempt {
                Attempt::Answered(answer) => Some((answer, entry.expires)),
                Attempt::Pending => None,
            }
        });
        to.size(answers.clone().count());
        for (answer, expires) in answers {
            answer.snapshot(to);
            to.instant(expires);
        }
        writer.finish();
    }

    /// A listener that answers whom the one answered that [`snapshot`](Self::snapshot) was taken of. All but the secret of the cookies is as
    /// `settings` say.
    ///
    /// # Errors
    ///
    /// When the bytes are not those of a snapshot of this version.
    pub fn restore(snapshot: &[u8], settings: ListenerSettings) -> Result<Self, RestoreError> {
        let mut reader = SnapshotReader::new(SnapshotKind::Listener, snapshot)?;
        let from = &mut reader;
        let mut restored = Self::new(ListenerSettings { cookie_secret: from.array()?, ..settings });
        restored.counters = ListenerCounters::restore(from)?;
        for _ in 0..from.size()? {
            let answer = Answer::restore(from)?;
            restored.keep(answer, from.instant()?);
        }
        reader.finish()?;
        Ok(restored)
    }
}

impl Answer {
    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self { key: ConnectionKey { peer, peer_socket_id, initial_sequence }, local, interface, start, packet } =
            self;
        to.address(*peer);
        to.u32(*peer_socket_id);
        to.u32(*initial_sequence);
        to.option(*local, SnapshotWriter::ip);
        to.u32(*interface);
        to.instant(*start);
        to.bytes(packet);
    }

    fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let restored = Self {
            key: ConnectionKey { peer: from.address()?, peer_socket_id: from.u32()?, initial_sequence: from.u32()? },
            local: from.option(SnapshotReader::ip)?,
            interface: from.u32()?,
            start: from.instant()?,
            packet: from.bytes()?.try_into().map_err(|_| RestoreError::Invalid)?,
        };
        valid(restored.packet.len() >= HEADER_LEN)?;
        Ok(restored)
    }
}

impl ListenerCounters {
    snapshot_fields! {
        count inductions,
        count admissions,
        count repeats,
        count rejections,
        count rejected_backlog,
        count rejected_rate,
        count dropped_rate,
        count unanswered,
        count dropped_malformed,
        count dropped_stray,
        count dropped_cookie,
        count dropped_transmit,
    }
}
