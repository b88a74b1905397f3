//! Floor 7: people and machines asking, over HTTP, on a thread of its own. It reads what shards report and can slow none of them.

pub mod http;
pub mod process;
pub mod server;
pub mod snapshot;

pub use server::{ControlError, ControlHandle, Facts, start};
