//! The receiving half behind a packet filter: its control packets never come near the receive buffer, and what it has rebuilt comes in
//! by the door of all others.

use super::{Receiver, decrypt};
use crate::base::{Instant, Packet};
use crate::protocol::srt::acknowledgement::RoundTrip;
use crate::protocol::srt::encryption::Encryption;
use crate::protocol::srt::fec::decoder::{Decoder, Rebuilt};
use crate::protocol::srt::loss::ReceiverLosses;
use crate::protocol::srt::packet::{DataHeader, HEADER_LEN, PacketPosition, SequenceNumber};
use crate::protocol::srt::parameters::{ConnectionParameters, IPV4_UDP_LEN};
use crate::protocol::srt::receive_buffer::{Meta, Place};
use crate::protocol::srt::snapshot::{RestoreError, SnapshotReader, SnapshotWriter};
use crate::protocol::srt::statistics::Statistics;

/// The loss list that these parameters want.
pub(super) fn losses(parameters: &ConnectionParameters, capacity: usize, reorder_tolerance: u16) -> ReceiverLosses {
    behind(ReceiverLosses::new(capacity, reorder_tolerance, parameters.peer_version), parameters)
}

/// The same loss list behind the filter that was agreed on, if any, and as the mode has it.
pub(super) fn behind(losses: ReceiverLosses, parameters: &ConnectionParameters) -> ReceiverLosses {
    match &parameters.packet_filter {
        Some(fec) => losses.behind_filter(fec.arq),
        None if parameters.mode.is_reliable() => losses.reported_once(),
        None => losses,
    }
}

/// A packet filter and what it needs of the connection.
#[derive(Debug)]
pub(super) struct Filter {
    decoder: Decoder,
    /// An encrypted payload as it came: it goes into the sums when it has been decrypted, that is, when it is known whose it is.
    kept: Vec<u8>,
    is_authenticated: bool,
}

impl Filter {
    pub(super) fn new(parameters: &ConnectionParameters, reorder_tolerance: u16) -> Option<Box<Self>> {
        let fec = parameters.packet_filter?;
        let (first, payload_max) = Self::bounds(parameters);
        let decoder = Decoder::new(&fec, first, payload_max, reorder_tolerance);
        let is_authenticated = parameters.tag_len() > 0;
        Some(Box::new(Self { decoder, kept: Vec::with_capacity(payload_max + 1), is_authenticated }))
    }

    /// Number of the peer's first packet, and length of its longest payload.
    fn bounds(parameters: &ConnectionParameters) -> (u64, usize) {
        let first = parameters.peer_initial_sequence.unwrap_or(parameters.initial_sequence);
        (first.get(), parameters.mtu as usize - IPV4_UDP_LEN - HEADER_LEN)
    }

    pub(super) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        // What is kept is of use within one datagram only, and the rest follows from the parameters.
        let Self { decoder, kept: _, is_authenticated: _ } = self;
        decoder.snapshot(to);
    }

    /// For a receiver that awaits `expected` and has `capacity` slots.
    pub(super) fn restore(
        from: &mut SnapshotReader<'_>,
        parameters: &ConnectionParameters,
        (expected, capacity): (u64, usize),
        take_packet: impl FnMut(&[u8]) -> Option<Packet>,
    ) -> Result<Option<Box<Self>>, RestoreError> {
        let Some(mut filter) = Self::new(parameters, 0) else { return Ok(None) };
        filter.decoder.restore(from, (expected, capacity), take_packet)?;
        Ok(Some(filter))
    }

    /// Keeps a payload that is about to be decrypted in place; one that is longer than can be is kept as too long, and not rebuilt from.
    #[inline]
    pub(super) fn keep(&mut self, payload: &[u8], is_encrypted: bool) {
        if is_encrypted {
            self.kept.clear();
            self.kept.extend_from_slice(&payload[..payload.len().min(self.kept.capacity())]);
        }
    }

    /// Takes in a packet that was found good; `plain` is its payload, decrypted if it was encrypted.
    #[inline]
    pub(super) fn data(
        &mut self,
        sequence: u64,
        header: &DataHeader,
        plain: &[u8],
        is_encrypted: bool,
        losses: &mut ReceiverLosses,
        statistics: &mut Statistics,
    ) {
        let payload = if is_encrypted { &self.kept } else { plain };
        self.decoder.data(sequence, header, payload, losses, statistics);
    }

    pub(super) fn restart(&mut self, sequence: u64) {
        self.decoder.restart(sequence);
    }
}

impl Receiver {
    /// Whether this is a control packet of the packet filter (libsrt: `SRT_MSGNO_CONTROL`).
    #[inline]
    pub fn is_filter_control(&self, header: &DataHeader) -> bool {
        header.message_number == 0 && self.filter.is_some()
    }

    /// Control packets of the packet filter that are held.
    #[inline]
    pub fn held_by_filter(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| filter.decoder.held())
    }

    /// Lets go of control packets: nothing more will come that they could be of use for.
    pub fn clear_filter(&mut self) {
        if let Some(filter) = &mut self.filter {
            filter.decoder.clear();
        }
    }

    pub(super) fn filter_control(&mut self, header: &DataHeader, packet: Packet, statistics: &mut Statistics) {
        if let Some(filter) = &mut self.filter {
            filter.decoder.control(header, packet, statistics);
        }
    }

    /// A packet that is too late for delivery still helps to rebuild later ones, unless only its tag could say that it is the peer's.
    #[cold]
    pub(super) fn filter_belated(
        &mut self,
        header: &DataHeader,
        offset: i64,
        packet: &[u8],
        statistics: &mut Statistics,
    ) {
        if let Some(filter) = self.filter.as_mut().filter(|filter| !filter.is_authenticated)
            && let Some(sequence) = self.buffer.head().checked_add_signed(offset)
        {
            filter.decoder.data(sequence, header, &packet[HEADER_LEN..], &mut self.losses, statistics);
        }
    }

    /// Takes in the next packet that the filter has rebuilt from what came at `arrival` by `path`; `false` when there is none.
    #[inline]
    pub fn take_rebuilt(
        &mut self,
        arrival: Instant,
        path: u8,
        encryption: Option<&Encryption>,
        round_trip: &RoundTrip,
        statistics: &mut Statistics,
    ) -> bool {
        let Some(filter) = &mut self.filter else { return false };
        let Some(rebuilt) = filter.decoder.poll_rebuilt(statistics) else { return false };
        self.rebuilt(rebuilt, arrival, path, encryption, round_trip, statistics);
        true
    }

    fn rebuilt(
        &mut self,
        rebuilt: Rebuilt,
        arrival: Instant,
        path: u8,
        encryption: Option<&Encryption>,
        round_trip: &RoundTrip,
        statistics: &mut Statistics,
    ) {
        let Rebuilt { header, mut payload, .. } = rebuilt;
        let offset = header.sequence.distance(SequenceNumber::new(self.buffer.head()));
        let sequence = match self.buffer.place(offset) {
            Place::Free(sequence) => sequence,
            Place::Duplicate => return statistics.pkt_rcv_duplicate += 1,
            Place::Belated => return self.belated(&header, arrival, statistics),
            Place::Beyond(_) => return statistics.pkt_rcv_no_room += 1,
        };
        if !decrypt(&header, &mut payload, encryption, self.is_sealed, statistics) {
            return;
        }
        if sequence >= self.expected {
            if sequence > self.expected {
                self.gap(sequence, arrival, round_trip, statistics);
            }
            // It was lost, although none after it has shown that yet.
            statistics.pkt_rcv_loss += 1;
            self.expected = sequence + 1;
        } else {
            self.losses.arrived(sequence);
        }
        let timestamp_us = self.timestamp(&header, arrival, statistics);
        let (len, position) = (payload.len() as u16, PacketPosition::Only);
        let meta = Meta { timestamp_us, arrival, recovered: true, path, position, len };
        self.insert(sequence, meta, payload, statistics);
    }
}
