//! `headworks relay`: a bad network between any two that speak UDP.

pub mod engine;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::engine::{Engine, EngineOptions};
use super::impairment::ImpairmentArguments;
use super::values::time;
use crate::shard::appliance::{Signals, StartError};
use crate::shard::net::impairment::{Conditions, ImpairmentStatistics};
use crate::shard::net::outbound::OutboundError;

/// How often somebody is asked whether to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const EXAMPLES: &str = "\
Examples:
  1 % of loss and 30 ms of round trip between anyone and a server:
    headworks relay --listen 127.0.0.1:31000 --to 127.0.0.1:30000 --loss 1% --delay 15ms
    ffmpeg -re -i clip.ts -c copy -f mpegts 'srt://127.0.0.1:31000?streamid=cam1'
  Bursts of up to 100 ms, 2 % of the time, towards the server only; the same each time:
    headworks relay --listen 127.0.0.1:31000 --to 127.0.0.1:30000 --burst-loss 2%/100ms --direction forward --seed 7
  A link of 60 Mbit/s with 50 ms of queue, and half a second of nothing after ten:
    headworks relay --listen 127.0.0.1:31000 --to 127.0.0.1:30000 --link-rate 60M --link-queue 50ms --blackout 10s+500ms

TIME is a number with a unit (250us, 120ms, 30s, 5m, 1h), RATE is bits per second (800k, 50M, 1.5G), SHARE a percentage (0.5%).

Prints at its end what was done to how many datagrams. Exit codes: 0 ended by --duration, SIGTERM or SIGINT (Ctrl-C), 1 error, \
2 usage";

/// Relay UDP between peers through a bad network
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct RelayArguments {
    /// Where clients send to, such as 127.0.0.1:31000
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: String,
    /// Where it is passed on to; each client gets a port of its own
    #[arg(long, value_name = "HOST:PORT")]
    pub to: String,
    /// Which way is bad
    #[arg(long, value_name = "WAY", default_value = "both")]
    pub direction: Direction,
    /// Clients at a time; further ones are ignored
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub clients: usize,
    /// Datagrams that can be under way at a time, both ways together; more are lost
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    pub queue: u32,
    /// Relay for so long, such as 60s; without it until SIGTERM or SIGINT
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub duration: Option<Duration>,
    /// Print the report as JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// The bad network
    #[command(flatten)]
    pub impairment: ImpairmentArguments,
}

/// Which way is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// Both.
    Both,
    /// From clients to the server only.
    Forward,
    /// From the server to clients only.
    Back,
}

/// Why nothing is relayed.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Not an address.
    #[error("{option} {text}: not an address and a port")]
    Address {
        /// Which option.
        option: &'static str,
        /// What was typed.
        text: String,
    },
    /// Signals cannot be received.
    #[error(transparent)]
    Signals(#[from] StartError),
    /// No socket, no ring, no memory.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The report could not be printed.
    #[error("cannot print the report: {0}")]
    Print(serde_json::Error),
}

impl RelayError {
    /// Whether what was typed makes no sense.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Address { .. })
    }
}

/// What happened one way.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct WayReport {
    /// What was done to datagrams.
    #[serde(flatten)]
    pub counts: ImpairmentStatistics,
    /// Datagrams passed on, second copies included.
    pub delivered: u64,
    /// Datagrams lost because too many were under way.
    pub no_room: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct RelayReport {
    /// Clients there have been.
    pub clients: u64,
    /// Datagrams of clients beyond the limit.
    pub ignored: u64,
    /// From clients to the server.
    pub forward: WayReport,
    /// From the server to clients.
    pub back: WayReport,
    /// Datagrams that the sockets would not take.
    pub not_taken: u64,
    /// Datagrams that were lost here before anything was done to them, because the socket's buffer was full.
    pub overflowed: u64,
    /// The longest that it was late itself, in microseconds: the bad network was worse than asked for by so much.
    pub late_max_us: u64,
}

/// Relays until it is told to end, and prints what it did.
///
/// # Errors
/// [`RelayError`], one line for standard error.
pub fn run(arguments: &RelayArguments) -> Result<(), RelayError> {
    let signals = Signals::new()?;
    let mut engine = Engine::new(options(arguments)?)?;
    eprintln!("relaying {} to {}", engine.address(), arguments.to);
    let started = Instant::now();
    let report = engine.run(LOOK_EVERY, &mut || {
        signals.wait(Duration::ZERO) || arguments.duration.is_some_and(|duration| started.elapsed() >= duration)
    })?;
    if arguments.json {
        serde_json::to_writer_pretty(io::stdout().lock(), &report).map_err(RelayError::Print)?;
        println!();
    } else {
        print!("{report}");
    }
    Ok(())
}

fn options(arguments: &RelayArguments) -> Result<EngineOptions, RelayError> {
    let conditions = arguments.impairment.conditions();
    let bad = |way| if arguments.direction == way { Conditions::default() } else { conditions.clone() };
    Ok(EngineOptions {
        listen: address("--listen", &arguments.listen)?,
        to: address("--to", &arguments.to)?,
        forward: bad(Direction::Back),
        back: bad(Direction::Forward),
        seed: arguments.impairment.seed,
        clients: arguments.clients,
        queue: arguments.queue as usize,
    })
}

fn address(option: &'static str, text: &str) -> Result<SocketAddr, RelayError> {
    let resolved = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| RelayError::Address { option, text: text.to_owned() })
}

impl fmt::Display for RelayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "clients   {} ({} datagrams of others ignored)", self.clients, self.ignored)?;
        for (name, way) in [("forward", &self.forward), ("back", &self.back)] {
            let WayReport { counts, delivered, no_room } = way;
            writeln!(
                f,
                "{name:9} {} in, {} out; {} lost ({} random, {} in {} bursts, {} blackout, {} queue), {} reordered, {} doubled, {} without room",
                counts.datagrams,
                delivered,
                counts.lost(),
                counts.lost_random,
                counts.lost_burst,
                counts.bursts,
                counts.lost_blackout,
                counts.lost_queue,
                counts.reordered,
                counts.duplicated,
                no_room,
            )?;
        }
        writeln!(
            f,
            "itself    late by {} us at most, {} not taken by sockets, {} overflowed before they came in",
            self.late_max_us, self.not_taken, self.overflowed
        )
    }
}

#[cfg(test)]
mod tests;
