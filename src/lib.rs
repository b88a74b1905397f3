#![forbid(unsafe_code)]
//! **Headworks** takes broadcast contribution feeds off the network and puts coded frames into shared memory.

pub mod base;
pub mod codec;
pub mod config;
pub mod container;
pub mod media;
pub mod pipeline;
pub mod protocol;
pub mod cli;
/// Only what this branch compiles.
pub mod output {
    pub mod reader;
}
/// Only what this branch compiles.
pub mod shard {
    pub mod clock;
}
