//! What commands ask of the host: cores, CPU time, signals.

pub use headworks_host::{PinError, Signal, SignalFd, available_cores, pin_current_thread, thread_cpu_time_ns};
