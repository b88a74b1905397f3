//! How long the peer is silent while nothing is amiss: some send each picture at once, and some have nothing to send.

use std::time::Duration;

use crate::base::Instant;
use crate::protocol::srt::snapshot::{RestoreError, SnapshotReader, SnapshotWriter};

/// Pauses are remembered for so long at least and for twice as long at most: a keep-alive a second is among them.
const SPAN: Duration = Duration::from_secs(2);

/// The longest pause lately.
#[derive(Debug, Default)]
pub struct Pauses {
    /// Of the present span, and of the one before.
    longest: [Duration; 2],
    since: Instant,
}

impl Pauses {
    /// The peer has been heard after a pause.
    #[inline]
    pub fn end(&mut self, now: Instant, pause: Duration) {
        if now >= self.since + SPAN {
            self.longest = [Duration::ZERO, self.longest[0]];
            self.since = now;
        }
        self.longest[0] = self.longest[0].max(pause);
    }

    /// The longest of the last two to four seconds.
    pub fn longest(&self) -> Duration {
        self.longest[0].max(self.longest[1])
    }

    pub(super) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self { longest, since } = self;
        longest.iter().for_each(|&pause| to.duration(pause));
        to.instant(*since);
    }

    pub(super) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(Self { longest: [from.duration()?, from.duration()?], since: from.instant()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_is_known_for_two_to_four_seconds() {
        let mut pauses = Pauses::default();
        let mut heard = |from_ms: u64, to_ms: u64, every_ms: u64| {
            for ms in (from_ms..to_ms).step_by(every_ms as usize) {
                pauses.end(Instant::from_millis(ms), Duration::from_millis(every_ms));
            }
            pauses.longest()
        };
        assert_eq!(heard(10_000, 11_000, 40), Duration::from_millis(40));
        assert_eq!(heard(11_000, 11_500, 500), Duration::from_millis(500));
        assert_eq!(heard(11_500, 13_400, 5), Duration::from_millis(500));
        assert_eq!(heard(13_400, 16_100, 5), Duration::from_millis(5));
        assert_eq!(heard(17_000, 27_000, 1_000), Duration::from_secs(1));
    }
}
