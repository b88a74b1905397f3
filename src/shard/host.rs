//! What commands ask of the host beyond the packet path: cores and CPU time.

pub use headworks_host::{PinError, available_cores, pin_current_thread, thread_cpu_time_ns};
