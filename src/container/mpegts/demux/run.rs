//! Runs of plain packets: what nearly all of a contribution feed is made of, taken at one go.

use arrayvec::ArrayVec;

use super::super::directory::TrackIndex;
use super::super::packet::{Header, PACKET_LEN};
use super::super::pids::NO_COUNTER;
use super::{Demux, fingerprint};

/// Packets of the longest run: those of a datagram as senders make them.
pub const RUN_MAX: usize = 7;
const HEADER_LEN: usize = 4;
const PAYLOAD_LEN: u64 = (PACKET_LEN - HEADER_LEN) as u64;

/// Packets of one track, one after the other, that continue its PES packet and do nothing else.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// Whose.
    pub track: TrackIndex,
    /// The packets, headers included. Between two payloads stands a header, which begins with 0x47 and holds no two zeros in a row
    /// before a one.
    pub packets: &'a [u8],
    /// Their payloads.
    pub payloads: ArrayVec<&'a [u8], RUN_MAX>,
}

impl Demux {
    /// The run of two or more packets that `input` begins with, if it does. Nothing is taken: see [`Demux::accept_run`].
    #[inline]
    pub fn plain_run<'a>(&self, input: &'a [u8]) -> Option<Run<'a>> {
        let (packets, _) = input.as_chunks::<PACKET_LEN>();
        let first = Header::of(packets.first()?);
        let hot = &self.state.pids.hot[self.state.pids.slot_of(first.pid())];
        if !self.quick || hot.gate == NO_COUNTER {
            return None;
        }
        let mut payloads = ArrayVec::new();
        for (packet, place) in packets.iter().take(RUN_MAX).zip(0_u8..) {
            let header = Header::of(packet);
            let continues = header.is_plain() && header.pid() == first.pid();
            // The last packet of a PES packet has more to tell.
            let left = hot.left.saturating_sub(u64::from(place) * PAYLOAD_LEN);
            if !continues || header.continuity_counter() != (hot.gate + place) & 0x0f || left <= PAYLOAD_LEN {
                break;
            }
            payloads.push(&packet[HEADER_LEN..]);
        }
        let packets = &input[..payloads.len() * PACKET_LEN];
        (payloads.len() > 1).then_some(Run { track: hot.track, packets, payloads })
    }

    /// Asks the processor for what the next packets are judged by, if they are like the last ones.
    #[inline]
    pub fn prefetch(&self) {
        self.state.pids.prefetch();
    }

    /// Takes a run that [`Demux::plain_run`] has just shown. Returns its bytes.
    #[inline]
    pub fn accept_run(&mut self, run: &Run<'_>) -> usize {
        let first = run.packets.first_chunk().expect("a run has packets");
        let count = run.payloads.len();
        let pid = Header::of(first).pid();
        let slot = self.state.pids.slot_of(pid);
        self.state.pids.remember(pid, slot);
        let hot = &mut self.state.pids.hot[slot];
        hot.next_counter = (hot.gate + count as u8) & 0x0f;
        hot.gate = hot.next_counter;
        hot.left -= count as u64 * PAYLOAD_LEN;
        hot.packets += count as u64;
        hot.fingerprint = fingerprint(run.payloads[count - 1]);
        self.state.statistics.packets += count as u64;
        run.packets.len()
    }
}
