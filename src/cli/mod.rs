//! Floor 8: what a person types. One file per command.

pub mod arguments;
pub mod bench;
pub mod check;
pub mod completions;
mod container_output;
pub mod file;
pub mod impairment;
pub mod limits;
pub mod passphrase_file;
pub mod relay;
pub mod ring;
pub mod send;
pub mod serve;
pub mod streams;
pub mod table;
pub mod tap;
pub mod values;
