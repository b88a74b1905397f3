//! What a shard receives and sends by: a device's queue pair, and the edge of a host over it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headworks_datagram::{Drained, Received, SendError, SendStatistics};
use headworks_ethernet::{Conflict, Datagram, Edge, EdgeOptions, Outgoing, Port, Refusal, Sent, Sources};
use headworks_host::{monotonic_now_ns, realtime_offset_ns};
use headworks_packet::{Packet, PacketPool};

use crate::device::{BURST, Device, OpenDevice, OutgoingFrame};
use crate::options::{DpdkError, DpdkOptions, DpdkStatistics};

/// What a packet may have over Ethernet.
const MTU: usize = 1_500;
/// The one interface there is; 0 would be none.
const INTERFACE: u32 = 1;
/// The longest sleep while there is traffic.
const WINDOW_MAX: Duration = Duration::from_millis(1);
/// Sleeps between two looks while there is none: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(1);
/// How often a card whose ring is full is given the same frames again before they are dropped.
const SEND_TRIES: usize = 16;
/// What a card is given to send the last frames before it is stopped.
const LAST_SENDS: Duration = Duration::from_millis(2);

/// The queue pair of a shard. It stays on the thread that made it.
///
/// Dropping it leaves all multicast groups and sends what is queued.
pub struct DpdkQueue {
    /// Frames to be handed to the card. They go before the device does, whose buffers they have.
    staged: Vec<OutgoingFrame>,
    device: OpenDevice,
    edge: Edge,
    ports: Vec<Port>,
    pool: PacketPool,
    /// Datagrams that have come and have not been handed out.
    ready: VecDeque<Received>,
    drain_limit: usize,
    counted: DpdkStatistics,
}

impl DpdkQueue {
    /// Opens the device and brings the host up. What is for one of `ports` is copied into slots of `pool`; `groups` are joined.
    ///
    /// # Errors
    ///
    /// See [`DpdkError`].
    pub fn new(
        device: Arc<Device>,
        options: DpdkOptions,
        pool: PacketPool,
        ports: Vec<Port>,
        groups: Vec<(IpAddr, Sources)>,
    ) -> Result<Self, DpdkError> {
        let device = OpenDevice::open(device, options.frame_size, options.ring)?;
        let now_ns = monotonic_now_ns();
        let mut edge = Edge::new(
            now_ns,
            EdgeOptions {
                mac: device.mac,
                addresses: options.addresses,
                gateways: options.gateways,
                vlan: options.vlan,
                mtu: MTU,
                interface: INTERFACE,
            },
        )?;
        for (group, sources) in groups {
            edge.join(now_ns, group, sources)?;
        }
        device.take_groups(edge.group_macs())?;
        Ok(Self {
            staged: Vec::with_capacity(BURST),
            device,
            edge,
            ports,
            pool,
            ready: VecDeque::with_capacity(BURST),
            drain_limit: options.drain_limit,
            counted: DpdkStatistics::default(),
        })
    }

    /// The driver's name, and how many frames its receive ring holds.
    pub fn driver(&self) -> (&str, u16) {
        (&self.device.driver, self.device.ring)
    }

    /// Sends what is queued, then sleeps for `window`, or for a millisecond if that is shorter, whatever comes. A window of zero
    /// does not sleep.
    pub fn wait(&mut self, window: Duration) {
        self.transmit(monotonic_now_ns());
        let window = window.min(WINDOW_MAX);
        if !window.is_zero() {
            std::thread::sleep(window);
        }
    }

    /// Sends what is queued, then looks again and again until there is a datagram or `longest` has passed. What is no datagram is
    /// served meanwhile.
    pub fn wait_for_any(&mut self, longest: Duration) {
        let end = Instant::now() + longest;
        let mut pause = PAUSE_MIN;
        loop {
            self.look();
            self.transmit(monotonic_now_ns());
            let left = end.saturating_duration_since(Instant::now());
            if !self.ready.is_empty() || left.is_zero() {
                return;
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Hands out everything that has come, or until [`DpdkOptions::drain_limit`] frames have been looked at, of whatever kind.
    pub fn drain(&mut self, mut sink: impl FnMut(Received)) -> Drained {
        let hand_out = |queue: &mut Self| queue.ready.drain(..).map(&mut sink).count();
        let drained = drain_bounded(self, self.drain_limit, hand_out, Self::look);
        self.transmit(monotonic_now_ns());
        drained
    }

    /// Takes a burst from the card, unless no slot is free: it is left in the card's ring then. Gives how many frames it were.
    fn look(&mut self) -> usize {
        let free = self.pool.free_slots();
        if free == 0 {
            self.counted.credit_exhausted += 1;
            return 0;
        }
        let monotonic_ns = monotonic_now_ns();
        let arrival_ns = monotonic_ns.saturating_add_signed(realtime_offset_ns());
        let Self { device, edge, ports, pool, ready, counted, .. } = self;
        device.receive(free, |frame, is_cut| {
            if is_cut {
                counted.too_long += 1;
                return;
            }
            let Some(datagram) = edge.receive(monotonic_ns, frame) else { return };
            let Some(port) = ports.iter().find(|port| port.is_for(&datagram)) else {
                counted.no_port += 1;
                return;
            };
            let Some((packet, truncated)) = copy(pool, frame, &datagram) else { return };
            counted.datagrams += 1;
            counted.truncated += u64::from(truncated);
            ready.push_back(Received { truncated, ..port.received(packet, &datagram, INTERFACE, arrival_ns) });
        })
    }

    /// Queues a datagram from the port at `place`.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; that there is no way to a peer is counted.
    pub fn queue_send(
        &mut self,
        place: u32,
        to: &SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let port = *self.ports.get(place as usize).ok_or(SendError::NoSocket)?;
        let own = port.local.ip();
        // Who is answered to what he sent to a group is answered from an address of ours: nothing comes from a group.
        let is_source = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
        let local = local.filter(is_source).or(Some(own).filter(is_source));
        if self.staged.len() == BURST {
            self.flush();
        }
        let Some(mut frame) = self.device.take() else {
            self.counted.sends.arena_full += 1;
            return Err(SendError::Full);
        };
        let now_ns = monotonic_now_ns();
        let outgoing = Outgoing { local, port: port.local.port(), to: *to, payload: bytes };
        match self.edge.send(now_ns, outgoing, frame.bytes()) {
            Ok(Sent::Frame(length)) => {
                frame.finish(length, true);
                self.staged.push(frame);
            }
            Ok(Sent::Waits) => {}
            Err(Refusal::Unreachable) => self.counted.sends.unreachable += 1,
            Err(Refusal::Denied) => self.counted.sends.denied += 1,
            Err(Refusal::TooLong) => self.counted.sends.too_long += 1,
        }
        Ok(())
    }

    /// Hands to the card what the edge and the shard have to send.
    fn transmit(&mut self, now_ns: u64) {
        self.edge.handle_timeout(now_ns);
        while let Some((bytes, is_datagram)) = self.edge.poll_transmit() {
            if self.staged.len() == BURST {
                self.flush();
            }
            let Some(mut frame) = self.device.take() else {
                self.counted.sends.arena_full += u64::from(is_datagram);
                continue;
            };
            // An answer is as long as the question, which may have been longer than what is sent here.
            let Some(room) = frame.bytes().get_mut(..bytes.len()) else { continue };
            room.copy_from_slice(&bytes);
            frame.finish(bytes.len(), is_datagram);
            self.staged.push(frame);
        }
        self.flush();
    }

    /// Hands to the card what is staged; drops what it does not take.
    fn flush(&mut self) {
        let mut tries = SEND_TRIES;
        while !self.staged.is_empty() && tries > 0 {
            let before = self.staged.len();
            self.counted.sends.sent += self.device.send(&mut self.staged);
            if self.staged.len() == before {
                tries -= 1;
            }
        }
        self.counted.sends.no_buffer += self.staged.drain(..).filter(OutgoingFrame::is_datagram).count() as u64;
    }

    /// What has been counted so far.
    pub fn statistics(&self) -> DpdkStatistics {
        let edge = self.edge.statistics();
        let sends =
            SendStatistics { unreachable: self.counted.sends.unreachable + edge.given_up, ..self.counted.sends };
        DpdkStatistics { receive_errors: self.device.lost().1, edge, sends, ..self.counted }
    }

    /// The newest conflict of addresses since the last call, if there was one.
    pub fn poll_conflict(&mut self) -> Option<Conflict> {
        self.edge.poll_conflict()
    }

    /// Frames that the card has lost because its ring was full or no buffer was left, as far as its driver tells.
    pub fn dropped_by_device(&self) -> u64 {
        self.device.lost().0
    }

    /// Datagrams that can be taken in before a slot must come free.
    pub fn credit(&self) -> usize {
        self.pool.free_slots()
    }
}

impl Drop for DpdkQueue {
    fn drop(&mut self) {
        let now_ns = monotonic_now_ns();
        self.edge.leave_groups(now_ns);
        self.transmit(now_ns);
        std::thread::sleep(LAST_SENDS);
    }
}

/// Looks for frames and hands out the datagrams among them until there are none, or `limit` frames have come. Those that are no
/// datagrams count too: a flood of them must not keep the shard from its turn. Both closures give how many it were.
fn drain_bounded<Q>(
    queue: &mut Q,
    limit: usize,
    mut hand_out: impl FnMut(&mut Q) -> usize,
    mut look: impl FnMut(&mut Q) -> usize,
) -> Drained {
    let (mut datagrams, mut frames) = (0, 0);
    loop {
        datagrams += hand_out(queue);
        if frames.max(datagrams) >= limit {
            return Drained { datagrams, more: true };
        }
        match look(queue) {
            0 => return Drained { datagrams, more: false },
            looked => frames += looked,
        }
    }
}

/// The payload in packet memory, and whether it was too long for a slot.
fn copy(pool: &PacketPool, frame: &[u8], datagram: &Datagram) -> Option<(Packet, bool)> {
    let payload = &frame[datagram.payload.clone()];
    let length = payload.len().min(pool.slot_size());
    Some((pool.copy_from(&payload[..length])?, length < payload.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A card: datagrams among the frames of each burst, and what of it is ready to be handed out.
    struct Card {
        bursts: Vec<(usize, usize)>,
        ready: usize,
    }

    fn drain(card: &mut Card, limit: usize) -> (usize, bool) {
        let hand_out = |card: &mut Card| std::mem::take(&mut card.ready);
        let look = |card: &mut Card| {
            let (frames, datagrams) = card.bursts.pop().unwrap_or_default();
            card.ready += datagrams;
            frames
        };
        let drained = drain_bounded(card, limit, hand_out, look);
        (drained.datagrams, drained.more)
    }

    #[test]
    fn a_flood_of_what_is_no_datagram_ends_a_drain_as_datagrams_do() {
        let mut others = Card { bursts: vec![(BURST, 0); 1_000], ready: 0 };
        assert_eq!((drain(&mut others, 256), others.bursts.len()), ((0, true), 996));
        let mut datagrams = Card { bursts: vec![(BURST, BURST); 1_000], ready: 0 };
        assert_eq!((drain(&mut datagrams, 256), datagrams.bursts.len()), ((256, true), 996));
        let mut few = Card { bursts: vec![(BURST, 1), (3, 3)], ready: 2 };
        assert_eq!((drain(&mut few, 256), few.ready), ((6, false), 0), "what was ready before is handed out too");
        let mut waited = Card { bursts: vec![(BURST, 0)], ready: 300 };
        assert_eq!((drain(&mut waited, 256), waited.bursts.len()), ((300, true), 1));
    }
}
