//! Floor 2: protocols, as machines without socket, clock or randomness.
//!
//! Every machine keeps one contract, so that io_uring, DPDK and a simulated network can drive any of them:
//!
//! ```text
//! // Bytes and time go in …
//! fn receive(&mut self, now: Instant, datagram: Datagram);
//! fn handle_timeout(&mut self, now: Instant);
//! // … effects are polled out until `None`.
//! fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit>;
//! fn poll_payload(&mut self, now: Instant) -> Option<Payload>;
//! fn poll_event(&mut self) -> Option<Event>;
//! fn next_timeout(&self) -> Option<Instant>;
//! ```
//!
//! A machine that a session lives in can also be put down as bytes and taken up again, at any moment, so that another process goes on
//! with it; `srt::connection::Connection::snapshot` says how.
//!
//! `poll_transmit` appends the bytes to a buffer that the caller keeps, so that sending allocates nothing and a batch lies
//! in one piece of memory. Input never panics: a bad packet is a counted drop with a reason.

pub mod rtp;
pub mod srt;
