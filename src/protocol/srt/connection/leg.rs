//! A connection as a leg of a bonding group ([`group`](crate::protocol::srt::group)).

use super::{Connection, State};
use crate::base::Instant;
use crate::media::Payload;
use crate::protocol::srt::receiver::Receiver;
use crate::protocol::srt::statistics::Statistics;

impl Connection {
    /// Its receiving half.
    #[inline]
    pub(in crate::protocol::srt) fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Its receiving half, to be told of the other legs.
    #[inline]
    pub(in crate::protocol::srt) fn receiver_mut(&mut self) -> (&mut Receiver, &mut Statistics) {
        (&mut self.receiver, &mut self.statistics)
    }

    /// Whether it is neither closed nor about to be.
    #[inline]
    pub(in crate::protocol::srt) fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// When it was last heard of.
    #[inline]
    pub(in crate::protocol::srt) fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Hands up the first packet it holds.
    #[inline]
    pub(in crate::protocol::srt) fn take_first(&mut self) -> Option<Payload> {
        self.receiver.take_first(&mut self.statistics)
    }

    /// What it held has been handed up, by it or by others: if it was about to end, it ends.
    #[inline]
    pub(in crate::protocol::srt) fn settled(&mut self) {
        self.finish_draining();
    }
}
