//! What has ended and waits to be cleared away.

use std::time::{Duration, Instant};

/// How long the rings of a stream that was taken up wait for its source to show what tracks it has: tables come ten times a second.
pub(super) const TAKE_UP_WITHIN: Duration = Duration::from_secs(2);

/// What waits to be cleared away: a stream, or one track of a stream that goes on.
pub(super) struct Ended {
    /// Its name.
    pub stream: String,
    /// Its name; `None` for the stream with all its tracks.
    pub track: Option<String>,
    /// Since when it waits.
    pub at: Instant,
    /// Why it is still there.
    pub standing: Standing,
}

/// Why something that has ended is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its readers have their time.
    Ended,
    /// A ring of a stream that was just taken up: its source may have the track this time too.
    Left,
    /// It could not be removed.
    Stuck,
}

impl Ended {
    /// It waits from now on.
    pub fn new(stream: &str, track: Option<&str>, standing: Standing) -> Self {
        Self { stream: stream.to_owned(), track: track.map(str::to_owned), at: Instant::now(), standing }
    }

    /// Whether it may go before its time.
    pub fn may_make_way(&self) -> bool {
        match self.standing {
            Standing::Ended => true,
            Standing::Left => self.at.elapsed() >= TAKE_UP_WITHIN,
            Standing::Stuck => false,
        }
    }
}
