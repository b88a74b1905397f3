//! The packet ring itself.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use headworks_datagram::{CONTROL_SIZE, Drained, NAME_SIZE, Received, SendArena};
use headworks_packet::PacketPool;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use rustix::io::Errno;

use crate::credit::CreditRing;
use crate::message::HEADER_SIZE;
use crate::options::{RingError, RingOptions, RingStatistics};
use crate::state::{Kind, Receive, Socket, State};

/// `IORING_ENTER_GETEVENTS`: run deferred task work, post what has completed.
const ENTER_GETEVENTS: u32 = 1;
/// How long a ring that is dropped waits for the kernel to let go of its memory.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A socket in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId {
    index: u32,
    generation: u32,
}

/// A group of buffers in a ring: sockets of one group receive into slots of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct GroupId(u16);

/// A private io_uring with its sockets, its receive credit and its send slots. It stays on the thread that made it.
///
/// Dropping it cancels everything in flight and waits until the kernel has let go of sockets and memory.
pub struct PacketRing {
    // First, so that it is closed first: see `Drop`.
    ring: IoUring,
    pub(crate) state: State,
    /// Completions met while looking for a free send slot; the next drain handles them first.
    set_aside: VecDeque<(u64, i32, u32)>,
    /// Read by the kernel at each arming: how much of a slot is name and control data.
    template: Box<libc::msghdr>,
    pub(crate) options: RingOptions,
    generation: u32,
    _not_send: PhantomData<*mut ()>,
}

/// Opens an io_uring with all that a packet ring needs of it.
fn open(submission_entries: u32, completion_entries: u32) -> Result<IoUring, RingError> {
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_cqsize(completion_entries)
        .setup_clamp()
        .build(submission_entries)
        .map_err(RingError::setup)?;
    let features = ring.params();
    if !features.is_feature_ext_arg() || !features.is_feature_nodrop() || !features.is_feature_submit_stable() {
        return Err(RingError::KernelTooOld { lacking: "waiting with a timeout" });
    }
    let mut probe = io_uring::Probe::new();
    if ring.submitter().register_probe(&mut probe).is_err() || !probe.is_supported(opcode::RecvMsgMulti::CODE) {
        return Err(RingError::KernelTooOld { lacking: "multishot recvmsg" });
    }
    Ok(ring)
}

/// Whether a packet ring would work here, by opening a small one.
///
/// # Errors
///
/// What is missing, and its cure.
pub fn probe() -> Result<(), RingError> {
    open(4, 8).map(drop)
}

impl PacketRing {
    /// Makes the ring, with `pool` as its first group of buffers (`GroupId::default()`).
    ///
    /// # Errors
    ///
    /// The kernel has no io_uring, or not all that is needed of it, or forbids it.
    pub fn new(options: RingOptions, pool: PacketPool) -> Result<Self, RingError> {
        if options.submission_entries == 0 || options.send_slots == 0 || options.drain_limit == 0 {
            return Err(RingError::Options("no number of entries can be 0"));
        }
        if options.completion_entries < 2 * u32::from(options.credit) {
            return Err(RingError::Options("the completion queue needs twice as many entries as there is credit"));
        }
        let ring = open(options.submission_entries, options.completion_entries)?;
        // SAFETY: `msghdr` is plain data, for which all zeroes (null pointers, lengths 0) is a value.
        let mut template: libc::msghdr = unsafe { std::mem::zeroed() };
        template.msg_namelen = NAME_SIZE as u32;
        template.msg_controllen = CONTROL_SIZE;
        let mut this = Self {
            ring,
            state: State {
                groups: Vec::new(),
                sockets: Vec::new(),
                sends: ManuallyDrop::new(SendArena::new(options.send_slots, options.send_slot_size)),
                unarmed: false,
                in_flight: 0,
                statistics: RingStatistics::default(),
            },
            set_aside: VecDeque::with_capacity(options.completion_entries as usize),
            template: Box::new(template),
            options,
            generation: 0,
            _not_send: PhantomData,
        };
        this.add_group(pool, options.credit)?;
        Ok(this)
    }

    /// Adds another group of buffers: slots of `pool`, `credit` of them lent at a time (a power of two up to 32,768).
    ///
    /// # Errors
    ///
    /// Sizes out of range, or a kernel without buffer rings.
    pub fn add_group(&mut self, pool: PacketPool, credit: u16) -> Result<GroupId, RingError> {
        if !credit.is_power_of_two() || credit > 1 << 15 {
            return Err(RingError::Options("credit is a power of two from 1 to 32768"));
        }
        if pool.slot_size() <= HEADER_SIZE {
            return Err(RingError::Options("a slot must hold the message header and a payload"));
        }
        let group = self.state.groups.len() as u16;
        let credit_ring =
            CreditRing::register(&self.ring.submitter(), pool, credit, group).map_err(|error| {
                match error.raw_os_error() {
                    Some(libc::EINVAL) => RingError::KernelTooOld { lacking: "buffer rings" },
                    Some(libc::ENOMEM) => RingError::Memory,
                    _ => RingError::System { call: "io_uring_register(PBUF_RING)", error },
                }
            })?;
        self.state.groups.push(ManuallyDrop::new(credit_ring));
        Ok(GroupId(group))
    }

    /// Most bytes of payload a slot of `pool` can take; longer datagrams are truncated.
    pub fn payload_capacity(pool: &PacketPool) -> usize {
        pool.slot_size().saturating_sub(HEADER_SIZE)
    }

    /// Adds a UDP socket; what it receives carries `token`. The ring keeps the descriptor until the socket is removed, and makes
    /// it a blocking one.
    ///
    /// # Errors
    ///
    /// The descriptor is no IP socket.
    pub fn add_socket(&mut self, descriptor: OwnedFd, token: u32) -> Result<SocketId, RingError> {
        self.add_socket_in(descriptor, token, GroupId::default())
    }

    /// As [`add_socket`](Self::add_socket), into the slots of `group`.
    ///
    /// # Errors
    ///
    /// The descriptor is no IP socket.
    ///
    /// # Panics
    ///
    /// If `group` is not of this ring.
    pub fn add_socket_in(&mut self, descriptor: OwnedFd, token: u32, group: GroupId) -> Result<SocketId, RingError> {
        assert!(usize::from(group.0) < self.state.groups.len());
        let name = rustix::net::getsockname(&descriptor).map_err(RingError::Socket)?;
        let family = name.address_family();
        if family != rustix::net::AddressFamily::INET && family != rustix::net::AddressFamily::INET6 {
            return Err(RingError::Socket(Errno::AFNOSUPPORT));
        }
        // A request on a descriptor that does not block is answered EAGAIN instead of waiting in the ring.
        rustix::io::ioctl_fionbio(&descriptor, false).map_err(RingError::Socket)?;
        self.generation = self.generation.wrapping_add(1);
        let socket = Socket {
            descriptor,
            token,
            generation: self.generation,
            group: group.0,
            ipv6: family == rustix::net::AddressFamily::INET6,
            receive: Receive::Ended,
            closing: false,
        };
        let sockets = &mut self.state.sockets;
        let index = match sockets.iter().position(Option::is_none) {
            Some(index) => {
                sockets[index] = Some(socket);
                index
            }
            None => {
                sockets.push(Some(socket));
                sockets.len() - 1
            }
        };
        self.state.groups[usize::from(group.0)].refill();
        self.arm(index as u32)?;
        self.submit()?;
        Ok(SocketId { index: index as u32, generation: self.generation })
    }

    /// Stops receiving from a socket and closes its descriptor once the kernel is done with it. What is still on its way is
    /// thrown away.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is no such socket (any more).
    pub fn remove_socket(&mut self, id: SocketId) -> Result<(), RingError> {
        let Some(socket) = self.socket_mut(id) else {
            return Err(RingError::Socket(Errno::BADF));
        };
        socket.closing = true;
        let armed = matches!(socket.receive, Receive::Armed(_));
        // Queued sends name the descriptor by number: they must be submitted before the number can be reused.
        self.submit()?;
        if armed {
            self.cancel_receive(id.index)
        } else {
            self.state.sockets[id.index as usize] = None;
            Ok(())
        }
    }

    /// Moves a socket to another group of buffers, which it uses from its next arming on; the present receive is ended for that.
    /// Nothing is lost.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is no such socket (any more).
    ///
    /// # Panics
    ///
    /// If `group` is not of this ring.
    pub fn move_socket(&mut self, id: SocketId, group: GroupId) -> Result<(), RingError> {
        assert!(usize::from(group.0) < self.state.groups.len());
        let Some(socket) = self.socket_mut(id) else {
            return Err(RingError::Socket(Errno::BADF));
        };
        socket.group = group.0;
        match socket.receive {
            Receive::Armed(now) if now != group.0 => self.cancel_receive(id.index),
            _ => Ok(()),
        }
    }

    pub(crate) fn socket_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.state
            .sockets
            .get_mut(id.index as usize)?
            .as_mut()
            .filter(|socket| socket.generation == id.generation && !socket.closing)
    }

    fn cancel_receive(&mut self, index: u32) -> Result<(), RingError> {
        let target = CancelBuilder::user_data(Kind::Receive.tag(index));
        let entry = opcode::AsyncCancel2::new(target).build();
        // SAFETY: a cancellation refers to no memory.
        unsafe { self.push(entry.user_data(Kind::Cancel.tag(index)))? };
        self.submit()
    }

    /// Puts a socket's multishot receive into the submission queue.
    fn arm(&mut self, index: u32) -> Result<(), RingError> {
        let socket = self.state.sockets[index as usize].as_mut().expect("only sockets in the ring are armed");
        debug_assert!(!matches!(socket.receive, Receive::Armed(_)));
        socket.receive = Receive::Armed(socket.group);
        let descriptor = Fd(socket.descriptor.as_raw_fd());
        let entry = opcode::RecvMsgMulti::new(descriptor, &raw const *self.template, socket.group)
            .build()
            .user_data(Kind::Receive.tag(index));
        // SAFETY: the kernel reads the template when the entry is submitted (`IORING_FEAT_SUBMIT_STABLE`), and it lives as long
        // as the ring. It writes only to slots lent to it, which are not given back before a completion names them or, in `Drop`,
        // before nothing is in flight. The descriptor stays open until the receive has ended.
        unsafe { self.push(entry) }
    }

    /// Puts an entry into the submission queue, submitting those before it when it is full.
    ///
    /// # Safety
    ///
    /// What the entry refers to stays valid until it completes, and only the kernel changes it until then.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry) -> Result<(), RingError> {
        loop {
            // SAFETY: by the caller's word.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.state.in_flight += 1;
                return Ok(());
            }
            self.submit()?;
        }
    }

    /// Submits what is queued, without waiting for anything.
    pub(crate) fn submit(&mut self) -> Result<(), RingError> {
        while !self.ring.submission().is_empty() {
            self.state.statistics.enters += 1;
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Completions have to be taken first.
                    Some(libc::EBUSY | libc::EAGAIN) => {
                        self.enter_events()?;
                        self.set_completions_aside();
                    }
                    _ => return Err(RingError::enter(error)),
                },
            }
        }
        Ok(())
    }

    /// `io_uring_enter(GETEVENTS, 0)`: submits what is queued, runs deferred work, posts completions; does not wait.
    pub(crate) fn enter_events(&mut self) -> Result<(), RingError> {
        self.state.statistics.enters += 1;
        let queued = self.ring.submission().len() as u32;
        // SAFETY: no argument is passed, and entries were pushed under `push`'s conditions.
        let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(RingError::enter(error)),
            },
        }
    }

    /// Submits what is queued, then sleeps in the ring until `min_completions` datagrams have come or `timeout` has passed.
    /// A timeout of zero only looks. Returns at once when something is waiting for a drain.
    ///
    /// # Errors
    ///
    /// `io_uring_enter` failed for good.
    pub fn enter_and_wait(&mut self, min_completions: usize, timeout: Duration) -> Result<(), RingError> {
        self.lend_and_arm(true)?;
        if timeout.is_zero() || !self.set_aside.is_empty() || !self.ring.completion().is_empty() {
            return self.enter_events();
        }
        // Sends queued now complete at once and count as completions; more than half the credit, of whichever group, may never
        // come.
        let credit = self.state.groups.iter().map(|group| group.size()).min().unwrap_or(0);
        let want = min_completions.clamp(1, (credit / 2).max(1)) + self.ring.submission().len();
        let time = Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        self.state.statistics.enters += 1;
        let arguments = SubmitArgs::new().timespec(&time);
        match self.ring.submitter().submit_with_args(want, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(RingError::enter(error)),
            },
        }
    }

    /// Lends free slots to the kernel and arms receives that have ended. `failed` too: only once per wait.
    fn lend_and_arm(&mut self, failed: bool) -> Result<(), RingError> {
        for group in &mut self.state.groups {
            group.refill();
        }
        if !self.state.unarmed {
            return Ok(());
        }
        let mut left = false;
        for index in 0..self.state.sockets.len() {
            let Some(socket) = &self.state.sockets[index] else {
                continue;
            };
            let due = match socket.receive {
                Receive::Armed(_) => continue,
                Receive::Ended => true,
                Receive::Failed => failed,
            };
            if due && self.state.groups[usize::from(socket.group)].lent() > 0 {
                self.state.statistics.rearmed += 1;
                self.arm(index as u32)?;
            } else {
                left = true;
            }
        }
        self.state.unarmed = left;
        Ok(())
    }

    /// Hands out everything that has been received, in the order of arrival per socket.
    ///
    /// The kernel posts at most 32 completions per multishot receive each time it is asked, so it is asked again until there is
    /// nothing, or until [`RingOptions::drain_limit`] datagrams are out.
    ///
    /// # Errors
    ///
    /// `io_uring_enter` failed for good.
    pub fn drain(&mut self, mut sink: impl FnMut(Received)) -> Result<Drained, RingError> {
        let mut drained = Drained::default();
        let mut asked = false;
        loop {
            let mut seen = 0;
            while let Some((tag, result, flags)) = self.set_aside.pop_front() {
                seen += 1;
                self.state.complete(tag, result, flags, &mut drained, &mut sink);
            }
            for entry in self.ring.completion() {
                seen += 1;
                let (tag, result, flags) = (entry.user_data(), entry.result(), entry.flags());
                self.state.complete(tag, result, flags, &mut drained, &mut sink);
            }
            if drained.datagrams >= self.options.drain_limit {
                drained.more = true;
                return Ok(drained);
            }
            let (work, overflow) = {
                let queue = self.ring.submission();
                (queue.taskrun(), queue.cq_overflow())
            };
            self.state.statistics.completion_overflows += u64::from(overflow);
            // The kernel sometimes says that there is work after it has been done (it sets the flag late): asking until the flag is
            // gone would never end. Whoever was asked and brought nothing has nothing.
            if seen == 0 && (asked || !work && !overflow) {
                return Ok(drained);
            }
            asked = true;
            if self.state.unarmed || self.state.groups.iter().any(|group| group.is_low()) {
                self.lend_and_arm(false)?;
            }
            self.enter_events()?;
        }
    }

    /// Takes completions of sends, and keeps the others for the next drain.
    pub(crate) fn set_completions_aside(&mut self) {
        for entry in self.ring.completion() {
            let (tag, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            if Kind::of(tag).0 == Kind::Send {
                self.state.in_flight -= 1;
                self.state.sends.complete(tag as u32, result);
            } else {
                self.set_aside.push_back((tag, result, flags));
            }
        }
    }

    /// What has been counted so far.
    pub fn statistics(&self) -> RingStatistics {
        RingStatistics { sends: self.state.sends.statistics, ..self.state.statistics }
    }

    /// Slots of `group` the kernel can still fill.
    pub fn credit(&self, group: GroupId) -> usize {
        self.state.groups[usize::from(group.0)].lent()
    }

    /// The pool behind `group`.
    pub fn pool(&self, group: GroupId) -> &PacketPool {
        self.state.groups[usize::from(group.0)].pool()
    }

    /// Cancels all requests and waits until none is left; `false` if some would not end.
    fn quiesce(&mut self) -> bool {
        for socket in self.state.sockets.iter_mut().flatten() {
            socket.closing = true;
        }
        if self.submit().is_err() {
            return false;
        }
        let started = Instant::now();
        let all = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: a cancellation refers to no memory.
        if unsafe { self.push(all.user_data(Kind::Cancel.tag(0))) }.is_err() {
            return false;
        }
        while self.state.in_flight > 0 && started.elapsed() < CLOSE_TIMEOUT {
            let time = Timespec::new().nsec(1_000_000);
            let arguments = SubmitArgs::new().timespec(&time);
            let _ = self.ring.submitter().submit_with_args(1, &arguments);
            let mut drained = Drained::default();
            while let Some((tag, result, flags)) = self.set_aside.pop_front() {
                self.state.complete(tag, result, flags, &mut drained, &mut drop);
            }
            for entry in self.ring.completion() {
                let (tag, result, flags) = (entry.user_data(), entry.result(), entry.flags());
                self.state.complete(tag, result, flags, &mut drained, &mut drop);
            }
        }
        self.state.in_flight == 0
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        if !self.quiesce() {
            // The kernel may still write to lent slots and read send slots. Better a leak than memory that changes by itself.
            return;
        }
        for group in self.state.groups.drain(..) {
            // SAFETY: nothing is in flight, and nothing will be submitted.
            unsafe { ManuallyDrop::into_inner(group).release(&self.ring.submitter()) };
        }
        // SAFETY: nothing is in flight, so the kernel reads none of it; and it is not touched after this.
        unsafe { ManuallyDrop::drop(&mut self.state.sends) };
    }
}
