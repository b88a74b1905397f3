//! What a shard receives by: the AF_XDP sockets of its queues, and the ordinary sockets of its ports.

use std::cell::LazyCell;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use headworks_datagram::{Drained, Received, SendError};
use headworks_ethernet::Port;
use headworks_host::{monotonic_now_ns, realtime_offset_ns};
use headworks_mmsg::{MmsgError, MmsgOptions, MmsgSockets};
use headworks_packet::{Packet, PacketPool};
use rustix::thread::{MembarrierCommand, membarrier};

use crate::attachment::{Attachment, QUEUES_MAX};
use crate::options::{XdpError, XdpOptions, XdpStatistics};
use crate::program::METADATA_SIZE;
use crate::queue::Queue;

/// Part of a pool that is lent to all queues together.
const LENT_PART: usize = 4;

/// The sockets of a shard. They stay on the thread that made them.
///
/// Dropping it sends what is queued.
pub struct XdpSockets {
    queues: Vec<Queue>,
    attachments: Arc<[Attachment]>,
    ordinary: MmsgSockets,
    ports: Vec<Port>,
    options: XdpOptions,
    taken: u64,
    unsound: u64,
    credit_exhausted: u64,
}

/// What is known of an ordinary socket, for datagrams that did not come by it.
fn read_port(socket: BorrowedFd<'_>, token: u32) -> Option<Port> {
    let name = rustix::net::getsockname(socket).ok()?;
    let local = SocketAddr::try_from(name).ok()?;
    let has = |level, option| int_option(socket, level, option) != 0;
    let wants_packet_info = match local {
        SocketAddr::V4(_) => has(libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => has(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let takes_ipv4 = local.is_ipv4() || !has(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
    let wants_timestamps = has(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS);
    Some(Port { local, takes_ipv4, token, wants_packet_info, wants_timestamps })
}

fn int_option(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> libc::c_int {
    let mut value = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes an `int` at most, as `length` says, into one that is there.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut length) };
    if result == 0 { value } else { 0 }
}

/// Datagrams that an ordinary socket has lost (`SK_MEMINFO_DROPS`), without waiting for the next one to tell.
fn lost_by(socket: BorrowedFd<'_>) -> u64 {
    /// `SO_MEMINFO`, and what it gives: nine numbers, the last of them the drops.
    const SO_MEMINFO: libc::c_int = 55;
    let mut numbers = [0_u32; 9];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    let place = numbers.as_mut_ptr().cast();
    // SAFETY: the kernel writes as many bytes as `length` says at most, into an array of that size.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, place, &raw mut length) };
    if result == 0 { numbers[8].into() } else { 0 }
}

impl XdpSockets {
    /// Binds the shard's queues of every interface; slots of `pool` are lent with the first [`drain`](Self::drain), to all queues
    /// together a quarter of them at most. Ordinary sockets are added after.
    ///
    /// # Errors
    ///
    /// See [`XdpError`].
    pub fn new(options: XdpOptions, pool: PacketPool, attachments: Arc<[Attachment]>) -> Result<Self, XdpError> {
        if !options.credit.is_power_of_two() || options.drain_limit < 2 || options.shard >= options.shards {
            return Err(XdpError::Options("credit is a power of two, a drain at least two, a shard one of the shards"));
        }
        // Either way has half of a drain.
        let ordinary = MmsgOptions { drain_limit: options.drain_limit / 2, ..MmsgOptions::default() };
        let mut ordinary = MmsgSockets::new(ordinary, pool.clone())?;
        let mut queues = Vec::new();
        for (place, attachment) in attachments.iter().enumerate() {
            for number in (options.shard..).step_by(options.shards as usize) {
                if number as usize >= QUEUES_MAX {
                    let interface = attachment.name().to_owned();
                    return Err(XdpError::Queues { interface, max: QUEUES_MAX });
                }
                let Some(queue) = Queue::open(attachment, place, number, &pool, options.credit)? else { break };
                attachment.connect(number, options.shard, queue.descriptor())?;
                ordinary.watch(queue.descriptor())?;
                queues.push(queue);
            }
        }
        // Queues that nothing comes by keep what they are lent.
        let share = pool.total_slots() / LENT_PART / queues.len().max(1);
        queues.iter_mut().for_each(|queue| queue.limit(share));
        Ok(Self {
            queues,
            attachments,
            ordinary,
            ports: Vec::new(),
            options,
            taken: 0,
            unsound: 0,
            credit_exhausted: 0,
        })
    }

    /// Adds an ordinary UDP socket; what is for its port carries `token`, whichever way it comes. Gives its place, which is
    /// counted from 0. The descriptor is kept.
    ///
    /// # Errors
    ///
    /// The descriptor is no IP socket.
    pub fn add_socket(&mut self, descriptor: OwnedFd, token: u32) -> Result<u32, XdpError> {
        let place = self.ordinary.add_socket(descriptor, token)?;
        let port = self.ordinary.descriptor(place).and_then(|socket| read_port(socket, token));
        self.ports.push(port.ok_or(MmsgError::Socket(rustix::io::Errno::AFNOSUPPORT))?);
        Ok(place)
    }

    /// What the shard takes past the kernel's stack: interface, queue, and whether without copies.
    pub fn queues(&self) -> impl Iterator<Item = (&str, u32, bool)> {
        self.queues.iter().map(|it| (self.attachments[it.interface].name(), it.number, it.is_zero_copy()))
    }

    /// Sends what is queued, then sleeps for `window`, or for a millisecond if that is shorter, whatever comes. A window of zero
    /// does not sleep.
    pub fn wait(&mut self, window: Duration) {
        self.ordinary.wait(window);
    }

    /// Sends what is queued, then sleeps until there is something or `longest` has passed.
    ///
    /// # Errors
    ///
    /// `poll` failed for good.
    pub fn wait_for_any(&mut self, longest: Duration) -> Result<(), XdpError> {
        Ok(self.ordinary.wait_for_any(longest)?)
    }

    /// Hands out everything that has come, or until [`XdpOptions::drain_limit`] datagrams are out; then lends slots again.
    ///
    /// In the order of arrival: once the program has used up the slots of a queue, all that follows goes the kernel's way until
    /// more are lent. So what it has taken comes first, then what is in the ordinary sockets, and slots are lent when they are empty.
    /// It begins so too: with what has waited there since before the start. The price is that a load which never lets the ordinary
    /// sockets run empty keeps to the kernel's way, as slow as that is, until it slackens.
    ///
    /// # Errors
    ///
    /// `epoll_wait` failed for good.
    pub fn drain(&mut self, mut sink: impl FnMut(Received)) -> Result<Drained, XdpError> {
        let mut left = self.options.drain_limit / 2;
        let mut taken = self.take(&mut left, &mut sink);
        let is_used_up = self.queues.iter().any(|it| self.attachments[it.interface].is_used_up(it.number));
        if is_used_up {
            // What was taken last, while it was looked for.
            taken += self.take(&mut left, &mut sink);
        }
        let mut drained = self.ordinary.drain(&mut sink)?;
        if !(is_used_up && drained.more) {
            self.lend();
            if is_used_up {
                // What came to them while slots were being lent.
                let behind = self.ordinary.drain(&mut sink)?;
                drained = Drained { datagrams: drained.datagrams + behind.datagrams, more: behind.more };
            }
        }
        Ok(Drained { datagrams: drained.datagrams + taken, more: drained.more || left == 0 })
    }

    /// Hands out what the program has taken; gives how many datagrams those were.
    fn take(&mut self, left: &mut usize, sink: &mut impl FnMut(Received)) -> usize {
        let mut taken = 0;
        let clocks = LazyCell::new(Clocks::read);
        for queue in &mut self.queues {
            let attachment = &self.attachments[queue.interface];
            let count = queue.waiting().min(*left);
            *left -= count;
            // After the look at what waits, so that it is true of all of that.
            let is_untimed = attachment.is_untimed(queue.number);
            queue.take(count, |packet| match receive(packet, attachment.index(), is_untimed, &clocks, &self.ports) {
                Some(received) => {
                    taken += 1;
                    sink(received);
                }
                None => self.unsound += 1,
            });
        }
        self.taken += taken as u64;
        taken
    }

    fn lend(&mut self) {
        for queue in &mut self.queues {
            let is_short = queue.refill(&self.attachments[queue.interface]);
            self.credit_exhausted += u64::from(is_short && queue.lent() == 0);
        }
    }

    /// Queues a datagram on the ordinary socket at `place`, see [`MmsgSockets::queue_send`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    #[inline]
    pub fn queue_send(
        &mut self,
        place: u32,
        to: &SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        self.ordinary.queue_send(place, to, local, bytes)
    }

    /// What has been counted so far.
    pub fn statistics(&self) -> XdpStatistics {
        let ordinary = self.ordinary.statistics();
        XdpStatistics {
            datagrams: ordinary.datagrams + self.taken,
            taken: self.taken,
            truncated: ordinary.truncated,
            credit_exhausted: ordinary.credit_exhausted + self.credit_exhausted,
            receive_errors: ordinary.receive_errors,
            unsound: self.unsound + ordinary.malformed,
            sends: ordinary.sends,
        }
    }

    /// Datagrams that ordinary sockets have lost because their buffers were full, and that queues have lost.
    pub fn dropped_by_kernel(&self) -> u64 {
        let sockets = (0..self.ports.len() as u32).filter_map(|place| self.ordinary.descriptor(place));
        sockets.map(lost_by).sum::<u64>() + self.queues.iter().map(Queue::lost).sum::<u64>()
    }

    /// Slots that the kernel can still fill.
    pub fn credit(&self) -> usize {
        self.ordinary.credit() + self.queues.iter().map(Queue::lent).sum::<usize>()
    }
}

impl Drop for XdpSockets {
    fn drop(&mut self) {
        for queue in &self.queues {
            self.attachments[queue.interface].lend(queue.number, 0);
        }
        // The kernel waits for all processors to have left what they were doing, the program included (`synchronize_rcu`). Closing
        // the sockets would do the same, were it sure that nobody else, such as a child about to be another program, has them open.
        let is_quiet = membarrier(MembarrierCommand::Global).is_ok();
        for queue in self.queues.drain(..) {
            if is_quiet {
                // SAFETY: no slot has been lent since the line above `membarrier`, and every processor has left the program since.
                unsafe { queue.close() };
            }
            // Else it is dropped, and its slots stay with the kernel.
        }
    }
}

/// Now, and how far apart the clocks are.
struct Clocks {
    monotonic_ns: u64,
    offset_ns: i64,
}

impl Clocks {
    fn read() -> Self {
        Self { offset_ns: realtime_offset_ns(), monotonic_ns: monotonic_now_ns() }
    }

    /// CLOCK_REALTIME of an arrival: when the program has written, or now if it has not.
    fn arrival_ns(&self, metadata: Option<&[u8]>) -> u64 {
        let written = metadata.and_then(|it| it.try_into().ok()).map(u64::from_ne_bytes);
        let arrival_ns = written.map_or(self.monotonic_ns, |written| written.min(self.monotonic_ns));
        arrival_ns.saturating_add_signed(self.offset_ns)
    }
}

/// A frame with its metadata → the datagram in it, if there is a sound one for one of the ports.
#[inline]
fn receive(mut packet: Packet, interface: u32, is_untimed: bool, clocks: &Clocks, ports: &[Port]) -> Option<Received> {
    let (metadata, frame) = packet.split_at(METADATA_SIZE);
    let datagram = headworks_ethernet::parse(frame, interface).ok()?;
    let port = ports.iter().find(|port| port.is_for(&datagram))?;
    let arrival_ns = clocks.arrival_ns((!is_untimed).then_some(metadata));
    packet.truncate(METADATA_SIZE + datagram.payload.end);
    packet.advance(METADATA_SIZE + datagram.payload.start);
    Some(port.received(packet, &datagram, interface, arrival_ns))
}
