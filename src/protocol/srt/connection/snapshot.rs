//! A connection as bytes, so that another process can go on with it: what a live upgrade stands on.
//!
//! Everything that the connection does from then on follows from the snapshot: what was restored answers, delivers and counts the same,
//! byte for byte, as the one that the snapshot was taken of would have. Moments are those of `CLOCK_MONOTONIC`, so it goes on on
//! the same host, and before its peer misses it; what came meanwhile and waits in the socket is late, and no more than that.

use super::pauses::Pauses;
use super::version4::Version4;
use super::{CloseReason, Connection, EVENTS_MAX, Event, Limits, Pending, State};
use crate::base::Packet;
use crate::protocol::srt::acknowledgement::RoundTrip;
use crate::protocol::srt::address_proof::AddressProof;
use crate::protocol::srt::encryption::{KEY_MATERIAL_LEN_MAX, KeyMaterialState};
use crate::protocol::srt::parameters::ConnectionParameters;
use crate::protocol::srt::receiver::Receiver;
use crate::protocol::srt::sender::Sender;
use crate::protocol::srt::snapshot::{
    RestoreError, SnapshotKind, SnapshotReader, SnapshotWriter, snapshot_fields, valid,
};
use crate::protocol::srt::statistics::Statistics;

impl Connection {
    /// Appends the connection to `snapshot`, with all that it holds: what was received and not yet handed up, what was sent and not yet
    /// acknowledged, and events nobody has polled. Some 12 KiB and 30 bytes for each packet, besides what is in the packets.
    ///
    /// **It holds secrets**: the stream encrypting keys of both directions, the key that wraps them and the seed that later ones are made
    /// of, and the secret of address proofs. The connection could not go on without them. There is no passphrase in it.
    /// It goes from process to process over a pipe or a sealed memory file, and never to a disk.
    pub fn snapshot(&self, snapshot: &mut Vec<u8>) {
        let mut writer = SnapshotWriter::new(SnapshotKind::Connection, snapshot);
        self.write(&mut writer);
        writer.finish();
    }

    /// The body of a snapshot, also where it is part of a larger one.
    pub(in crate::protocol::srt) fn write(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            receiver,
            state,
            pending,
            heard_at,
            pauses,
            sent_at,
            round_trip,
            statistics,
            parameters,
            limits,
            sender,
            encoder,
            events,
            key_material_response,
            address_proof,
            version4,
        } = self;
        limits.snapshot(to);
        parameters.snapshot(to);
        receiver.snapshot(to);
        to.option(sender.as_ref(), |to, sender| sender.snapshot(to));
        if let Some(encoder) = encoder {
            encoder.snapshot(to);
        }
        state.snapshot(to);
        pending.snapshot(to);
        to.instant(*heard_at);
        pauses.snapshot(to);
        to.instant(*sent_at);
        round_trip.snapshot(to);
        statistics.snapshot(to);
        to.size(events.len());
        events.iter().for_each(|event| event.snapshot(to));
        to.bytes(key_material_response);
        to.option(address_proof.as_ref(), |to, proof| proof.snapshot(to));
        to.option(version4.as_ref(), |to, version4| version4.snapshot(to));
    }

    /// The connection that [`snapshot`](Self::snapshot) was taken of. `slots_max` is how many packets the receive buffer and the send
    /// buffer may each have room for: memory is taken for no more. `take_packet` gives the bytes of a packet that is held a place in
    /// packet memory, if there is one.
    ///
    /// # Errors
    ///
    /// When the bytes are not those of a snapshot of this version, or there is no room.
    pub fn restore(
        snapshot: &[u8],
        slots_max: usize,
        take_packet: impl FnMut(&[u8]) -> Option<Packet>,
    ) -> Result<Self, RestoreError> {
        let mut reader = SnapshotReader::new(SnapshotKind::Connection, snapshot)?;
        let restored = Self::read(&mut reader, slots_max, take_packet)?;
        reader.finish()?;
        Ok(restored)
    }

    /// Reads what [`write`](Self::write) has written.
    pub(in crate::protocol::srt) fn read(
        from: &mut SnapshotReader<'_>,
        slots_max: usize,
        take_packet: impl FnMut(&[u8]) -> Option<Packet>,
    ) -> Result<Self, RestoreError> {
        let limits = Limits::restore(from)?;
        let most = limits.receive_buffer_packets.max(limits.send_buffer_packets);
        if most > slots_max {
            return Err(RestoreError::TooLarge(most as u64));
        }
        let parameters = ConnectionParameters::restore(from)?;
        let receiver = Receiver::restore(from, &parameters, limits.receive_buffer_packets, take_packet)?;
        let sender = from.option(|from| Sender::restore(from, &parameters, limits.send_buffer_packets))?;
        let mut encoder = Self::encoder(&parameters, &limits);
        if let Some(encoder) = &mut encoder {
            encoder.restore(from)?;
            valid(sender.as_ref().is_some_and(|sender| encoder.goes_on_at(sender.next_unsent())))?;
        }
        let restored = Self {
            receiver,
            sender,
            encoder,
            state: State::restore(from)?,
            pending: Pending::restore(from)?,
            heard_at: from.instant()?,
            pauses: Pauses::restore(from)?,
            sent_at: from.instant()?,
            round_trip: RoundTrip::restore(from)?,
            statistics: Statistics::restore(from)?,
            events: {
                let mut events = std::collections::VecDeque::with_capacity(EVENTS_MAX);
                for _ in 0..from.size()? {
                    valid(events.len() < EVENTS_MAX)?;
                    events.push_back(Event::restore(from)?);
                }
                events
            },
            key_material_response: {
                let response = from.bytes()?;
                valid(response.len() <= KEY_MATERIAL_LEN_MAX)?;
                let mut bytes = Vec::with_capacity(KEY_MATERIAL_LEN_MAX);
                bytes.extend_from_slice(response);
                bytes
            },
            address_proof: from.option(|from| {
                let secret = parameters.address_secret.ok_or(RestoreError::Invalid)?;
                AddressProof::restore(from, secret, parameters.socket_id)
            })?,
            version4: from.option(|from| Version4::restore(from).map(Box::new))?,
            parameters,
            limits,
        };
        valid(restored.version4.is_some() == restored.parameters.version4.is_some())?;
        valid(restored.sender.is_some() == (restored.limits.send_buffer_packets > 0))?;
        Ok(restored)
    }
}

impl Limits {
    snapshot_fields! {
        size receive_buffer_packets,
        size send_buffer_packets,
        duration peer_idle_timeout,
        u16 reorder_tolerance,
    }
}

impl Pending {
    snapshot_fields! {
        bool shutdown,
        bool key_material_response,
        bool light_acknowledgement,
        bool loss_report,
        bool keep_alive,
        u32 peer_error,
    }
}

impl State {
    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        match self {
            Self::Running => to.u8(0),
            Self::Draining(reason) => {
                to.u8(1);
                reason.snapshot(to);
            }
            Self::Closed => to.u8(2),
        }
    }

    fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(match from.u8()? {
            0 => Self::Running,
            1 => Self::Draining(CloseReason::restore(from)?),
            2 => Self::Closed,
            _ => return Err(RestoreError::Invalid),
        })
    }
}

impl CloseReason {
    pub(in crate::protocol::srt) fn snapshot(self, to: &mut SnapshotWriter<'_>) {
        to.u8(match self {
            Self::PeerShutdown => 0,
            Self::PeerIdle => 1,
            Self::Local => 2,
            Self::TakenOver => 3,
        });
    }

    pub(in crate::protocol::srt) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(match from.u8()? {
            0 => Self::PeerShutdown,
            1 => Self::PeerIdle,
            2 => Self::Local,
            3 => Self::TakenOver,
            _ => return Err(RestoreError::Invalid),
        })
    }
}

impl Event {
    pub(in crate::protocol::srt) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        match *self {
            Self::Connected => to.u8(0),
            Self::KeyRefreshed => to.u8(1),
            Self::KeyRefreshFailed(state) => {
                to.u8(2);
                to.array(&state.to_wire());
            }
            Self::SequenceJump { skipped } => {
                to.u8(3);
                to.count(skipped);
            }
            Self::PeerChanged { from, to: address } => {
                to.u8(4);
                to.address(from);
                to.address(address);
            }
            Self::PeerError { code } => {
                to.u8(5);
                to.u32(code);
            }
            Self::Closed(reason) => {
                to.u8(6);
                reason.snapshot(to);
            }
            Self::Introduced => to.u8(7),
            Self::KeyWanted => to.u8(8),
            Self::Secured => to.u8(9),
            Self::KeyRefused(state) => {
                to.u8(10);
                to.array(&state.to_wire());
            }
        }
    }

    pub(in crate::protocol::srt) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(match from.u8()? {
            0 => Self::Connected,
            1 => Self::KeyRefreshed,
            2 => {
                let state = KeyMaterialState::from_wire(from.array()?);
                Self::KeyRefreshFailed(state.ok_or(RestoreError::Invalid)?)
            }
            3 => Self::SequenceJump { skipped: from.count()? },
            4 => Self::PeerChanged { from: from.address()?, to: from.address()? },
            5 => Self::PeerError { code: from.u32()? },
            6 => Self::Closed(CloseReason::restore(from)?),
            7 => Self::Introduced,
            8 => Self::KeyWanted,
            9 => Self::Secured,
            10 => Self::KeyRefused(KeyMaterialState::from_wire(from.array()?).ok_or(RestoreError::Invalid)?),
            _ => return Err(RestoreError::Invalid),
        })
    }
}
