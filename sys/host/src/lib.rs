//! The host: what Headworks asks of the operating system outside the packet ring and shared memory.

mod clock;
mod cores;
mod descriptor;
pub mod facts;
mod instance;
mod multicast;
mod notify;
mod signals;
mod socket;
mod steering;
mod stored;

pub use clock::{monotonic_now_ns, realtime_offset_ns, thread_cpu_time_ns};
pub use cores::{PinError, available_cores, can_run_on, pin_current_thread};
pub use descriptor::raise_descriptor_limit;
pub use instance::{InstanceError, InstanceLock};
pub use multicast::{Interface, Membership, MulticastError, group_address};
pub use notify::{ServiceManager, ServiceState, watchdog_interval};
pub use signals::{Signal, SignalFd};
pub use socket::{
    Granted, SocketError, UdpSocketOptions, adopt_udp_socket, probe_exclusive, shared_udp_sockets, udp_socket,
};
pub use steering::{
    MAX_SHARDS, Steering, SteeringError, attach_steering, compose_socket_id, shard_of_handshake, shard_of_socket_id,
    shard_of_source, shard_of_ssrc,
};
pub use stored::take_stored_descriptors;
