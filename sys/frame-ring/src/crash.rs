//! Where a writer can be made to die (feature `crash-injection`): the proof that readers and the next writer survive it.
//!
//! Without the feature `point` is empty. With it, and after `arm`, the process is killed by SIGKILL when it comes by the step for
//! the nth time: no destructor runs, and everything stored before is what the others see.

/// The steps of a writer after which nothing more may happen. Numbers in comments are those of "Writer" in the design of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Step {
    /// 1. `data_reserve` is stored, none of the bytes.
    ReserveGrown = 1,
    /// 1. Bytes of the open frame are stored.
    Appended,
    /// 2. The slot's lock is BUSY, its fields are the old ones.
    SlotBusy,
    /// 2. The fields are stored, the lock is BUSY.
    SlotFields,
    /// 2. The lock is stored, the head is the old one.
    SlotLocked,
    /// 3.
    HeadPos,
    /// 3.
    HeadSeq,
    /// 3. Also passed by frames that are no random access points.
    LastKey,
    /// 3. The totals are stored, the bell has heard of nothing.
    Totals,
    /// 3. The bell's `stream_head` is stored, its futex not bumped.
    BellStreamHead,
    /// 4. The bell's futex is bumped, the ring's not.
    BellFutex,
    /// 4. The ring's futex is bumped, nobody woken.
    Futex,
    /// The block's lock is BUSY, its bytes are those of an older configuration.
    ConfigurationBusy,
    /// The bytes are stored, the lock is BUSY.
    ConfigurationBytes,
    /// The lock is stored, the generation is the old one.
    ConfigurationLocked,
    /// The generation is stored; no frame refers to it.
    ConfigurationGeneration,
    /// The anchor's lock is BUSY.
    AnchorBusy,
    /// The anchor's fields are stored, its lock is BUSY.
    AnchorFields,
    /// Taking up the bell: its epoch is stored.
    BellEpoch,
    /// Taking up a ring: last_key_seq is stored.
    AttachLastKey,
    /// Taking up a ring: the epoch is stored.
    AttachEpoch,
    /// Taking up a ring: the state is stored, the futex not bumped.
    AttachState,
}

impl Step {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 22] = [
        Self::ReserveGrown,
        Self::Appended,
        Self::SlotBusy,
        Self::SlotFields,
        Self::SlotLocked,
        Self::HeadPos,
        Self::HeadSeq,
        Self::LastKey,
        Self::Totals,
        Self::BellStreamHead,
        Self::BellFutex,
        Self::Futex,
        Self::ConfigurationBusy,
        Self::ConfigurationBytes,
        Self::ConfigurationLocked,
        Self::ConfigurationGeneration,
        Self::AnchorBusy,
        Self::AnchorFields,
        Self::BellEpoch,
        Self::AttachLastKey,
        Self::AttachEpoch,
        Self::AttachState,
    ];
}

#[cfg(not(feature = "crash-injection"))]
#[inline(always)]
pub(crate) fn point(_: Step) {}

#[cfg(feature = "crash-injection")]
pub use armed::arm;
#[cfg(feature = "crash-injection")]
pub(crate) use armed::point;

#[cfg(feature = "crash-injection")]
mod armed {
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::atomic::{AtomicU8, AtomicU32};

    use super::Step;

    static STEP: AtomicU8 = AtomicU8::new(0);
    static PASSES: AtomicU32 = AtomicU32::new(0);

    /// Kills this process when it comes by `step` for the `passes`th time from now on.
    pub fn arm(step: Step, passes: u32) {
        PASSES.store(passes, Relaxed);
        STEP.store(step as u8, Relaxed);
    }

    #[inline]
    pub(crate) fn point(step: Step) {
        if STEP.load(Relaxed) == step as u8 && PASSES.fetch_sub(1, Relaxed) == 1 {
            // SAFETY: a signal to ourselves.
            unsafe { libc::raise(libc::SIGKILL) };
        }
    }
}
