//! When the key that the peer no longer sends under is forgotten.
//!
//! Keys take turns under two flags. A peer that goes on with a third key of which nothing was heard here sends under the flag of the
//! first one, and in counter mode that makes rubbish of the media without anybody noticing. So the first one is forgotten in time: once as many
//! packets in a row were taken under the second as the receive buffer spans. Each of them has a place of its own behind whatever was
//! sent under the first, so that by then nothing of that has one any more, however late it comes.

use crate::protocol::srt::packet::KeyFlag;

/// Which key the packets were under that were taken of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OldKey {
    pub(super) flag: KeyFlag,
    pub(super) in_a_row: u64,
    /// The last one that was seen to be in use: for a span in a row, which somebody who makes up a packet now and then does not bring about.
    pub(super) in_use: Option<KeyFlag>,
}

impl OldKey {
    pub(super) const fn new() -> Self {
        Self { flag: KeyFlag::Plain, in_a_row: 0, in_use: None }
    }

    /// A packet was taken into a buffer that spans as many. Whose key is to be forgotten.
    #[inline]
    pub(super) fn taken(&mut self, flag: KeyFlag, span: u64) -> Option<KeyFlag> {
        if flag != self.flag {
            (self.flag, self.in_a_row) = (flag, 0);
        }
        self.in_a_row += 1;
        if self.in_a_row == span { self.in_use.replace(flag).filter(|before| *before != flag) } else { None }
    }

    /// Another key has come under this flag.
    pub(super) fn replaced(&mut self, flag: KeyFlag) {
        if self.flag == flag {
            self.in_a_row = 0;
        }
        self.in_use = self.in_use.filter(|in_use| *in_use != flag);
    }
}
