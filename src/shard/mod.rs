//! Floor 5: time, sockets, cores. The only floor that does data-path I/O or reads a clock.
//!
//! Start with [`turn`]: it is the loop that everything else serves.

pub mod access;
pub mod admission;
pub mod appliance;
pub mod bare;
pub mod batch_window;
pub mod calls;
pub mod clock;
pub mod derivations;
pub mod described;
pub mod executor;
pub mod host;
pub mod mailbox;
pub mod net;
pub mod packet_filters;
pub mod places;
pub mod plan;
pub mod refusals;
pub mod report;
pub mod sessions;
pub mod strangers;
pub mod timers;
pub mod touched;
pub mod turn;
pub mod watchdog;
