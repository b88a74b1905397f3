//! What the states of the element tell its thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Where the element is, as far as its thread is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Waiting,
    Open { end: bool },
    Leaving,
}

/// What the thread may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Read on; the number differs after every pause.
    Go(u64),
    /// Somebody sent EOS to the element.
    End,
    /// Leave at once.
    Leave,
}

/// Shut in PAUSED, open in PLAYING.
#[derive(Debug)]
pub struct Gate {
    position: Mutex<(Position, u64)>,
    changed: Condvar,
}

impl Gate {
    pub fn new() -> Self {
        Self { position: Mutex::new((Position::Waiting, 0)), changed: Condvar::new() }
    }

    pub fn open(&self) {
        let mut guard = self.lock();
        if guard.0 == Position::Waiting {
            *guard = (Position::Open { end: false }, guard.1 + 1);
        }
        self.changed.notify_all();
    }

    pub fn shut(&self) {
        let mut guard = self.lock();
        // An end that was asked for stays asked for.
        if guard.0 == (Position::Open { end: false }) {
            guard.0 = Position::Waiting;
        }
    }

    pub fn end(&self) {
        let mut guard = self.lock();
        if guard.0 != Position::Leaving {
            guard.0 = Position::Open { end: true };
        }
        self.changed.notify_all();
    }

    pub fn leave(&self) {
        self.lock().0 = Position::Leaving;
        self.changed.notify_all();
    }

    /// Waits while the gate is shut.
    pub fn pass(&self) -> Pass {
        let guard = self.lock();
        let waiting = self.changed.wait_while(guard, |(position, _)| *position == Position::Waiting);
        match *waiting.unwrap_or_else(PoisonError::into_inner) {
            (Position::Open { end: true }, _) => Pass::End,
            (Position::Open { end: false }, number) => Pass::Go(number),
            (Position::Waiting | Position::Leaving, _) => Pass::Leave,
        }
    }

    /// Sleeps, or less when there is news.
    pub fn sleep(&self, time: std::time::Duration) {
        let guard = self.lock();
        let before = *guard;
        drop(self.changed.wait_timeout_while(guard, time, |now| *now == before));
    }

    fn lock(&self) -> MutexGuard<'_, (Position, u64)> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pause_is_noticed_and_leaving_is_final() {
        let gate = Gate::new();
        gate.open();
        assert_eq!(gate.pass(), Pass::Go(1));
        gate.shut();
        gate.open();
        assert_eq!(gate.pass(), Pass::Go(2));
        gate.end();
        gate.shut();
        assert_eq!(gate.pass(), Pass::End);
        gate.leave();
        gate.open();
        gate.end();
        assert_eq!(gate.pass(), Pass::Leave);
    }
}
