//! A call in a snapshot: a call that is under way goes on where it was, with the cookie that it was given and the time that it has left.

use std::collections::VecDeque;

use super::{CallError, Caller, CallerEncryption, CallerSettings, Event, Stage};
use crate::protocol::srt::encryption::{Cipher, Encryption, KeyEncryptingKey, KeyMaterial, KeyRefresh};
use crate::protocol::srt::fec::configuration::FilterConfiguration;
use crate::protocol::srt::handshake::RejectReason;
use crate::protocol::srt::membership::Membership;
use crate::protocol::srt::packet::SequenceNumber;
use crate::protocol::srt::parameters::{ConnectionParameters, MTU_MAX, MTU_MIN, Role};
use crate::protocol::srt::snapshot::{RestoreError, SnapshotKind, SnapshotReader, SnapshotWriter, valid};
use crate::protocol::srt::stream_id::StreamId;
use crate::protocol::srt::transmission_mode::TransmissionMode;

impl Caller {
    /// Appends the call to `snapshot`. **It holds secrets**, as [`Connection::snapshot`](crate::protocol::srt::connection::Connection::snapshot)
    /// says.
    pub fn snapshot(&self, snapshot: &mut Vec<u8>) {
        let Self { settings, encryption, start, deadline, next_send, stage, peer_group, shutdown, events, dropped } =
            self;
        let mut writer = SnapshotWriter::new(SnapshotKind::Caller, snapshot);
        let to = &mut writer;
        settings.snapshot(to);
        to.option(encryption.as_ref(), |to, (encryption, message)| {
            encryption.snapshot(to);
            message.snapshot(to);
        });
        to.instant(*start);
        to.instant(*deadline);
        to.instant(*next_send);
        match stage {
            Stage::Induction => to.u8(0),
            Stage::Conclusion { cookie, is_version4 } => {
                to.u8(1);
                to.u32(*cookie);
                to.bool(*is_version4);
            }
            Stage::Done => to.u8(2),
        }
        to.option(peer_group.as_ref(), |to, group| group.snapshot(to));
        to.option(*shutdown, SnapshotWriter::u32);
        to.option(events.front(), |to, event| event.snapshot(to));
        to.count(*dropped);
        writer.finish();
    }

    /// The call that [`snapshot`](Self::snapshot) was taken of.
    ///
    /// # Errors
    ///
    /// When the bytes are not those of a snapshot of this version.
    pub fn restore(snapshot: &[u8]) -> Result<Self, RestoreError> {
        let mut reader = SnapshotReader::new(SnapshotKind::Caller, snapshot)?;
        let from = &mut reader;
        let restored = Self {
            settings: CallerSettings::restore(from)?,
            encryption: from.option(|from| Ok((Encryption::restore(from)?, KeyMaterial::restore(from)?)))?,
            start: from.instant()?,
            deadline: from.instant()?,
            next_send: from.instant()?,
            stage: match from.u8()? {
                0 => Stage::Induction,
                1 => Stage::Conclusion { cookie: from.u32()?, is_version4: from.bool()? },
                2 => Stage::Done,
                _ => return Err(RestoreError::Invalid),
            },
            peer_group: from.option(Membership::restore)?,
            shutdown: from.option(SnapshotReader::u32)?,
            // There is one at most: what came of it.
            events: from.option(Event::restore)?.into_iter().collect::<VecDeque<_>>(),
            dropped: from.count()?,
        };
        reader.finish()?;
        Ok(restored)
    }
}

impl CallerSettings {
    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            peer,
            local,
            interface,
            socket_id,
            initial_sequence,
            role,
            mode,
            stream_id,
            receive_latency_ms,
            send_latency_ms,
            mtu,
            flow_window,
            // What a call has of it is the caller's.
            encryption: _,
            enforced_encryption,
            group,
            packet_filter,
            timeout,
        } = self;
        to.address(*peer);
        to.option(*local, SnapshotWriter::ip);
        to.u32(*interface);
        to.u32(*socket_id);
        to.count(initial_sequence.get());
        role.snapshot(to);
        mode.snapshot(to);
        stream_id.snapshot(to);
        to.u16(*receive_latency_ms);
        to.u16(*send_latency_ms);
        to.u32(*mtu);
        to.u32(*flow_window);
        to.bool(*enforced_encryption);
        to.option(group.as_ref(), |to, group| group.snapshot(to));
        to.option(packet_filter.as_ref(), |to, filter| filter.snapshot(to));
        to.duration(*timeout);
    }

    fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let restored = Self {
            peer: from.address()?,
            local: from.option(SnapshotReader::ip)?,
            interface: from.u32()?,
            socket_id: from.u32()?,
            initial_sequence: SequenceNumber::new(from.count()?),
            role: Role::restore(from)?,
            mode: TransmissionMode::restore(from)?,
            stream_id: StreamId::restore(from)?,
            receive_latency_ms: from.u16()?,
            send_latency_ms: from.u16()?,
            mtu: from.u32()?,
            flow_window: from.u32()?,
            encryption: None,
            enforced_encryption: from.bool()?,
            group: from.option(Membership::restore)?,
            packet_filter: from.option(FilterConfiguration::restore)?,
            timeout: from.duration()?,
        };
        valid((1..1 << 30).contains(&restored.socket_id) && (MTU_MIN..=MTU_MAX).contains(&restored.mtu))?;
        let Self { group, packet_filter, receive_latency_ms, send_latency_ms, .. } = &restored;
        let is_for_files =
            group.is_none() && packet_filter.is_none() && (*receive_latency_ms, *send_latency_ms) == (0, 0);
        valid(!restored.mode.is_reliable() || is_for_files)?;
        Ok(restored)
    }
}

impl CallerEncryption {
    pub(in crate::protocol::srt) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self { key_encrypting_key, cipher, salt, key_seed, key_refresh } = self;
        key_encrypting_key.snapshot(to);
        cipher.snapshot(to);
        to.array(salt);
        to.array(key_seed);
        key_refresh.snapshot(to);
    }

    pub(in crate::protocol::srt) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(Self {
            key_encrypting_key: KeyEncryptingKey::restore(from)?,
            cipher: Cipher::restore(from)?,
            salt: from.array()?,
            key_seed: from.array()?,
            key_refresh: KeyRefresh::restore(from)?,
        })
    }
}

impl CallError {
    pub(in crate::protocol::srt) fn snapshot(self, to: &mut SnapshotWriter<'_>) {
        match self {
            Self::Rejected(reason) => {
                to.u8(0);
                reason.snapshot(to);
            }
            Self::Unacceptable(reason) => {
                to.u8(1);
                reason.snapshot(to);
            }
            Self::Timeout => to.u8(2),
        }
    }

    pub(in crate::protocol::srt) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(match from.u8()? {
            0 => Self::Rejected(RejectReason::restore(from)?),
            1 => Self::Unacceptable(RejectReason::restore(from)?),
            2 => Self::Timeout,
            _ => return Err(RestoreError::Invalid),
        })
    }
}

impl Event {
    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        match self {
            Self::Connected(parameters) => {
                to.u8(0);
                parameters.snapshot(to);
            }
            Self::Failed(error) => {
                to.u8(1);
                error.snapshot(to);
            }
        }
    }

    fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(match from.u8()? {
            0 => Self::Connected(Box::new(ConnectionParameters::restore(from)?)),
            1 => Self::Failed(CallError::restore(from)?),
            _ => return Err(RestoreError::Invalid),
        })
    }
}
