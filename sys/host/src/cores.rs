//! Cores and threads.

use core_affinity::CoreId;

/// The calling thread could not be bound to a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot run on core {core}: not among the cores this process may use")]
pub struct PinError {
    /// The core asked for.
    pub core: usize,
}

/// Cores this process may use (its affinity mask), in ascending order.
pub fn available_cores() -> Vec<usize> {
    let mut cores: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}

/// Binds the calling thread to one core.
///
/// # Errors
///
/// The core does not exist or is not in the thread's cpuset.
pub fn pin_current_thread(core: usize) -> Result<(), PinError> {
    // A core_affinity mask has 1024 bits and is indexed without a check.
    if core < 1024 && core_affinity::set_for_current(CoreId { id: core }) { Ok(()) } else { Err(PinError { core }) }
}

/// Whether a thread of this process can be bound to `core`: it is there, and in the process's cpuset.
///
/// Tried, in a thread of its own, and not looked up in the affinity mask: cores that the kernel isolates (`isolcpus=domain`) are in no
/// mask that is inherited from init, and in that of whoever asks for them.
pub fn can_run_on(core: usize) -> bool {
    let attempt = std::thread::Builder::new().spawn(move || pin_current_thread(core).is_ok());
    attempt.is_ok_and(|thread| thread.join().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_outside_the_own_mask_can_be_had_and_the_mask_stays() {
        let cores = available_cores();
        let (first, last) = (cores[0], *cores.last().expect("a process has a core"));
        std::thread::spawn(move || {
            pin_current_thread(first).unwrap();
            assert!(can_run_on(last));
            assert!(!can_run_on(1023));
            assert_eq!(available_cores(), [first]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_pinned_thread_runs_on_its_core_and_sees_no_other() {
        let cores = available_cores();
        let last = *cores.last().expect("a process has a core");
        std::thread::spawn(move || {
            pin_current_thread(last).unwrap();
            assert_eq!(rustix::thread::sched_getcpu(), last);
            assert_eq!(available_cores(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        assert_eq!(pin_current_thread(1023), Err(PinError { core: 1023 }));
        assert_eq!(pin_current_thread(5000), Err(PinError { core: 5000 }));
    }
}
