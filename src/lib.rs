#![forbid(unsafe_code)]
//! **Headworks** takes broadcast contribution feeds off the network and puts coded frames into shared memory.

pub mod base;
pub mod cli;
pub mod codec;
pub mod config;
pub mod container;
pub mod media;
pub mod output;
pub mod pipeline;
pub mod protocol;
pub mod shard;
