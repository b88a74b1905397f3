//! A rendezvous in a snapshot: it goes on where it was, as initiator or responder, and still agrees again once it is connected.

use super::offer::OfferTaken;
use super::{Event, Peer, Rendezvous, RendezvousSettings, Stage, contest};
use crate::protocol::srt::caller::{CallError, CallerEncryption};
use crate::protocol::srt::encryption::{Encryption, KeyMaterial, KeyMaterialState};
use crate::protocol::srt::fec::configuration::{Fec, FilterConfiguration, FilterWire};
use crate::protocol::srt::handshake::{HandshakeExtension, HandshakeFields, RejectReason, VERSION_5};
use crate::protocol::srt::packet::SequenceNumber;
use crate::protocol::srt::parameters::{ConnectionParameters, MTU_MAX, MTU_MIN, PeerTimeBase, Role};
use crate::protocol::srt::snapshot::{RestoreError, SnapshotKind, SnapshotReader, SnapshotWriter, valid};

impl Rendezvous {
    /// Appends the rendezvous to `snapshot`. **It holds secrets**, as
    /// [`Connection::snapshot`](crate::protocol::srt::connection::Connection::snapshot) says.
    pub fn snapshot(&self, snapshot: &mut Vec<u8>) {
        let Self {
            settings,
            offered,
            unlocked,
            request,
            is_answerable,
            asks_for_filter,
            key_state,
            peer,
            has_heard_us,
            wave_refused,
            stage,
            start,
            deadline,
            next_send,
            last_send,
            agreement_due,
            rejection,
            events,
            dropped,
        } = self;
        let mut writer = SnapshotWriter::new(SnapshotKind::Rendezvous, snapshot);
        let to = &mut writer;
        settings.snapshot(to);
        to.option(offered.as_ref(), |to, (encryption, message)| {
            encryption.snapshot(to);
            message.snapshot(to);
        });
        to.option(unlocked.as_ref(), |to, encryption| encryption.snapshot(to));
        to.option(request.as_ref(), |to, OfferTaken { extension, time_base, key_material, packet_filter }| {
            extension.snapshot(to);
            time_base.snapshot(to);
            to.option(key_material.as_ref(), |to, material| material.snapshot(to));
            to.option(packet_filter.as_deref(), SnapshotWriter::bytes);
        });
        to.bool(*is_answerable);
        to.bool(*asks_for_filter);
        to.array(&key_state.to_wire());
        // Which side it is follows from the cookies, and its socket id stands among its fields.
        to.option(peer.as_ref(), |to, peer| peer.fields.snapshot(to));
        to.bool(*has_heard_us);
        to.option(*wave_refused, |to, reason| reason.snapshot(to));
        to.u8(match stage {
            Stage::Waving => 0,
            Stage::Attention => 1,
            Stage::Fine => 2,
            Stage::Initiated => 3,
            Stage::Connected => 4,
            Stage::Failed => 5,
        });
        to.instant(*start);
        to.instant(*deadline);
        to.instant(*next_send);
        to.instant(*last_send);
        to.bool(*agreement_due);
        to.option(*rejection, |to, reason| reason.snapshot(to));
        to.size(events.len());
        events.iter().for_each(|event| event.snapshot(to));
        to.count(*dropped);
        writer.finish();
    }

    /// The rendezvous that [`snapshot`](Self::snapshot) was taken of.
    ///
    /// # Errors
    ///
    /// When the bytes are not those of a snapshot of this version.
    pub fn restore(snapshot: &[u8]) -> Result<Self, RestoreError> {
        let mut reader = SnapshotReader::new(SnapshotKind::Rendezvous, snapshot)?;
        let from = &mut reader;
        let settings = RendezvousSettings::restore(from)?;
        let cookie = settings.cookie;
        let restored = Self {
            settings,
            offered: from.option(|from| Ok((Encryption::restore(from)?, KeyMaterial::restore(from)?)))?,
            unlocked: from.option(Encryption::restore)?,
            request: from.option(|from| {
                Ok(OfferTaken {
                    extension: HandshakeExtension::restore(from)?,
                    time_base: PeerTimeBase::restore(from)?,
                    key_material: from.option(KeyMaterial::restore)?,
                    packet_filter: from.option(restore_filter)?,
                })
            })?,
            is_answerable: from.bool()?,
            asks_for_filter: from.bool()?,
            key_state: KeyMaterialState::from_wire(from.array()?).ok_or(RestoreError::Invalid)?,
            peer: from.option(|from| Peer::restore(from, cookie))?,
            has_heard_us: from.bool()?,
            wave_refused: from.option(RejectReason::restore)?,
            stage: match from.u8()? {
                0 => Stage::Waving,
                1 => Stage::Attention,
                2 => Stage::Fine,
                3 => Stage::Initiated,
                4 => Stage::Connected,
                5 => Stage::Failed,
                _ => return Err(RestoreError::Invalid),
            },
            start: from.instant()?,
            deadline: from.instant()?,
            next_send: from.instant()?,
            last_send: from.instant()?,
            agreement_due: from.bool()?,
            rejection: from.option(RejectReason::restore)?,
            events: (0..from.size()?).map(|_| Event::restore(from)).collect::<Result<_, _>>()?,
            dropped: from.count()?,
        };
        // What is answered was asked.
        valid(!restored.is_answerable || restored.request.is_some() && restored.peer.is_some())?;
        reader.finish()?;
        Ok(restored)
    }
}

/// It says all that there is to settle.
fn restore_filter(from: &mut SnapshotReader<'_>) -> Result<FilterWire, RestoreError> {
    let wire = from.bytes()?;
    valid(wire.len().is_multiple_of(4) && Fec::from_wire(wire).is_ok())?;
    Ok(wire.iter().copied().collect())
}

impl RendezvousSettings {
    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            peer,
            local,
            interface,
            socket_id,
            cookie,
            initial_sequence,
            role,
            receive_latency_ms,
            send_latency_ms,
            latency_max_ms,
            mtu,
            flow_window,
            encryption,
            enforced_encryption,
            takes_any_cipher,
            packet_filter,
            timeout,
        } = self;
        to.address(*peer);
        to.option(*local, SnapshotWriter::ip);
        to.u32(*interface);
        to.u32(*socket_id);
        to.u32(*cookie);
        to.count(initial_sequence.get());
        role.snapshot(to);
        to.u16(*receive_latency_ms);
        to.u16(*send_latency_ms);
        to.u16(*latency_max_ms);
        to.u32(*mtu);
        to.u32(*flow_window);
        to.option(encryption.as_ref(), |to, encryption| encryption.snapshot(to));
        to.bool(*enforced_encryption);
        to.bool(*takes_any_cipher);
        to.option(packet_filter.as_ref(), |to, filter| filter.snapshot(to));
        to.duration(*timeout);
    }

    fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let restored = Self {
            peer: from.address()?,
            local: from.option(SnapshotReader::ip)?,
            interface: from.u32()?,
            socket_id: from.u32()?,
            cookie: from.u32()?,
            initial_sequence: SequenceNumber::new(from.count()?),
            role: Role::restore(from)?,
            receive_latency_ms: from.u16()?,
            send_latency_ms: from.u16()?,
            latency_max_ms: from.u16()?,
            mtu: from.u32()?,
            flow_window: from.u32()?,
            encryption: from.option(CallerEncryption::restore)?,
            enforced_encryption: from.bool()?,
            takes_any_cipher: from.bool()?,
            packet_filter: from.option(FilterConfiguration::restore)?,
            timeout: from.duration()?,
        };
        valid((1..1 << 30).contains(&restored.socket_id) && restored.cookie != 0)?;
        valid((MTU_MIN..=MTU_MAX).contains(&restored.mtu))?;
        Ok(restored)
    }
}

impl Peer {
    fn restore(from: &mut SnapshotReader<'_>, cookie: u32) -> Result<Self, RestoreError> {
        let fields = HandshakeFields::restore(from)?;
        valid(fields.socket_id != 0 && fields.mtu >= MTU_MIN && fields.flow_window >= 2)?;
        let side = match fields.version {
            VERSION_5 => Some(contest(cookie, fields.cookie).ok_or(RestoreError::Invalid)?),
            _ => None,
        };
        Ok(Self { socket_id: fields.socket_id, side, fields })
    }
}

impl Event {
    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        match self {
            Self::KeyWanted(material) => {
                to.u8(0);
                material.snapshot(to);
            }
            Self::Connected(parameters) => {
                to.u8(1);
                parameters.snapshot(to);
            }
            Self::Failed(error) => {
                to.u8(2);
                error.snapshot(to);
            }
        }
    }

    fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(match from.u8()? {
            0 => Self::KeyWanted(Box::new(KeyMaterial::restore(from)?)),
            1 => Self::Connected(Box::new(ConnectionParameters::restore(from)?)),
            2 => Self::Failed(CallError::restore(from)?),
            _ => return Err(RestoreError::Invalid),
        })
    }
}
