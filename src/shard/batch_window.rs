//! How long a turn sleeps for more packets: longer while little comes, so that a turn's own cost is shared by enough of them.

use std::time::Duration;

/// Datagrams that a turn is to find: with fewer the sleep, the wake and the cold state of every session cost more than the
/// packets do.
const DATAGRAMS_WANTED: usize = 256;

/// The sleep of a shard's turns.
#[derive(Clone, Copy, Debug)]
pub struct BatchWindow {
    shortest: Duration,
    longest: Duration,
    now: Duration,
}

impl BatchWindow {
    /// Between `shortest` and `longest`; the shortest wins when they contradict each other.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest: longest.max(shortest), now: shortest }
    }

    /// How long the next turn may sleep.
    #[inline]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The longest that a turn ever sleeps while there is traffic.
    #[inline]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// A turn has found so many datagrams: the next one sleeps a quarter longer if they were few, and at once as much shorter
    /// as they were too many.
    #[inline]
    pub fn found(&mut self, datagrams: usize) {
        if datagrams > DATAGRAMS_WANTED {
            self.now = (self.now * DATAGRAMS_WANTED as u32 / datagrams as u32).max(self.shortest);
        } else if datagrams < DATAGRAMS_WANTED * 3 / 4 {
            self.now = (self.now + self.now / 4).min(self.longest);
        }
    }

    /// There is a source whose packets are worth something at once: no longer than the shortest.
    pub fn shorten(&mut self) {
        self.now = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_micros(500);
    const LONGEST: Duration = Duration::from_millis(2);

    /// Where the window settles when so many datagrams come in a second.
    fn settled(per_second: f64) -> Duration {
        let mut window = BatchWindow::new(SHORTEST, LONGEST);
        for _ in 0..100 {
            window.found((window.now().as_secs_f64() * per_second) as usize);
        }
        window.now()
    }

    #[test]
    fn few_feeds_make_it_long_and_many_make_it_short() {
        assert_eq!(settled(1_000.0), LONGEST);
        assert_eq!(settled(38_000.0), LONGEST);
        assert_eq!(settled(1_000_000.0), SHORTEST);
        let base_load = settled(119_000.0);
        assert!(base_load > Duration::from_micros(1_500), "{base_load:?}");
    }

    #[test]
    fn a_burst_shortens_it_at_once() {
        let mut window = BatchWindow::new(SHORTEST, LONGEST);
        (0..20).for_each(|_| window.found(1));
        assert_eq!(window.now(), LONGEST);
        window.found(DATAGRAMS_WANTED * 8);
        assert_eq!(window.now(), SHORTEST);
        window.found(usize::from(u16::MAX));
        assert_eq!(window.now(), SHORTEST);
    }

    #[test]
    fn a_window_of_zero_stays_zero() {
        let mut window = BatchWindow::new(Duration::ZERO, Duration::ZERO);
        window.found(0);
        assert_eq!(window.now(), Duration::ZERO);
    }
}
