//! `headworks bench`: parts of the measurements under `benches/` that need the whole binary.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::arguments::Exit;
use crate::config::{self, ConfigError};
use crate::shard::bare::{self, BareError};
use crate::shard::host::{PinError, pin_current_thread};

const HELP: &str = "\
benches/line_rate runs this beside the appliance and compares the two:
  cargo bench --bench line_rate -- --help";

/// Measure parts of the packet path by themselves
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct BenchArguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand, Debug)]
enum Bench {
    /// Receive and drop: the loop that the cost of everything else is measured against
    Receive(ReceiveArguments),
}

#[derive(Args, Debug)]
struct ReceiveArguments {
    /// Address and UDP port to receive on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:30100")]
    listen: SocketAddr,
    /// Core to run on
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = config::duration::parse)]
    duration: Duration,
    /// Set one key of the configuration, such as shards.batch_window=500us
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Why a measurement was not made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The core cannot be had.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The loop does not run.
    #[error(transparent)]
    Bare(#[from] BareError),
}

/// Measures, and prints one line of JSON.
///
/// # Errors
/// [`BenchError`].
pub fn run(arguments: &BenchArguments) -> Result<Exit, BenchError> {
    let Bench::Receive(arguments) = &arguments.bench;
    let config = config::load(None, std::env::vars_os(), &arguments.set)?.config;
    if let Some(core) = arguments.core {
        pin_current_thread(core)?;
    }
    let outcome = bare::receive(&config, arguments.listen, arguments.duration)?;
    println!(
        "{}",
        serde_json::json!({
            "datagrams": outcome.datagrams,
            "bytes": outcome.bytes,
            "dropped_by_kernel": outcome.dropped_by_kernel,
            "turns": outcome.turns,
            "receive_buffer": outcome.receive_buffer,
        })
    );
    Ok(Exit::Done)
}
