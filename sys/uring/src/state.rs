//! What completions change: sockets, credit, send slots, counts.

use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;

use headworks_datagram::{Drained, Received, SendArena};
use io_uring::cqueue;

use crate::credit::CreditRing;
use crate::message::parse;
use crate::options::RingStatistics;

/// What a completion is about: the top byte of its user data; the rest is an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Receive = 1,
    Send = 2,
    Cancel = 3,
}

impl Kind {
    pub(crate) fn tag(self, index: u32) -> u64 {
        u64::from(self as u8) << 56 | u64::from(index)
    }

    #[inline]
    pub(crate) fn of(tag: u64) -> (Self, u32) {
        let kind = match tag >> 56 {
            1 => Self::Receive,
            2 => Self::Send,
            3 => Self::Cancel,
            other => unreachable!("a completion of kind {other} was never asked for"),
        };
        (kind, tag as u32)
    }
}

/// Whether a socket's multishot receive is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receive {
    /// In flight, in this group.
    Armed(u16),
    /// To be armed as soon as there is credit.
    Ended,
    /// It ended with an error: to be armed again once, before the next wait, so that a broken socket cannot keep a drain busy.
    Failed,
}

pub(crate) struct Socket {
    pub(crate) descriptor: OwnedFd,
    pub(crate) token: u32,
    pub(crate) generation: u32,
    pub(crate) group: u16,
    pub(crate) ipv6: bool,
    pub(crate) receive: Receive,
    pub(crate) closing: bool,
}

/// All but the ring: what completions change.
pub(crate) struct State {
    pub(crate) groups: Vec<ManuallyDrop<CreditRing>>,
    pub(crate) sockets: Vec<Option<Socket>>,
    pub(crate) sends: ManuallyDrop<SendArena>,
    /// Some socket's receive is not in flight.
    pub(crate) unarmed: bool,
    /// Requests the kernel may still touch memory for, or still has to answer.
    pub(crate) in_flight: usize,
    pub(crate) statistics: RingStatistics,
}

impl State {
    /// One completion.
    #[inline]
    pub(crate) fn complete(
        &mut self,
        tag: u64,
        result: i32,
        flags: u32,
        drained: &mut Drained,
        sink: &mut impl FnMut(Received),
    ) {
        let (kind, index) = Kind::of(tag);
        match kind {
            Kind::Receive => self.complete_receive(index, result, flags, drained, sink),
            Kind::Send => {
                self.in_flight -= 1;
                self.sends.complete(index, result);
            }
            Kind::Cancel => self.in_flight -= 1,
        }
    }

    #[inline]
    pub(crate) fn complete_receive(
        &mut self,
        index: u32,
        result: i32,
        flags: u32,
        drained: &mut Drained,
        sink: &mut impl FnMut(Received),
    ) {
        let socket = self.sockets[index as usize].as_mut().expect("a socket stays until its receive has ended");
        let Receive::Armed(group) = socket.receive else {
            unreachable!("a receive completed that was not armed");
        };
        if let Some(id) = cqueue::buffer_select(flags) {
            // SAFETY: this completion, seen once, names the buffer.
            let slot = unsafe { self.groups[usize::from(group)].take(id) };
            if socket.closing {
                self.statistics.after_removal += u64::from(result > 0);
            } else if result > 0 {
                match parse(slot.into_packet(0, result as usize), socket.token) {
                    Some(received) => {
                        self.statistics.datagrams += 1;
                        self.statistics.truncated += u64::from(received.truncated);
                        drained.datagrams += 1;
                        sink(received);
                    }
                    None => self.statistics.malformed += 1,
                }
            }
        }
        if !cqueue::more(flags) {
            self.end_receive(index, result);
        }
    }

    /// A multishot receive is over: out of credit, an empty datagram, a cancellation, a full completion queue, an error.
    #[cold]
    pub(crate) fn end_receive(&mut self, index: u32, result: i32) {
        self.in_flight -= 1;
        let place = &mut self.sockets[index as usize];
        let Some(socket) = place else {
            unreachable!("its receive was in flight until now");
        };
        if socket.closing {
            *place = None;
            return;
        }
        socket.receive = match -result {
            ..=0 | libc::ECANCELED => Receive::Ended,
            libc::ENOBUFS => {
                self.statistics.credit_exhausted += 1;
                Receive::Ended
            }
            errno => {
                self.statistics.receive_errors += 1;
                self.statistics.last_receive_errno = errno;
                Receive::Failed
            }
        };
        self.unarmed = true;
    }
}
