//! The command line: what can be typed, what it teaches, and what the exit code says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::bench::{self, BenchArguments, BenchError};
use super::check::{CheckArguments, CheckError};
use super::completions::CompletionsArguments;
use super::file::{FileArguments, FileError};
use super::relay::{RelayArguments, RelayError};
use super::ring::{RingArguments, RingError};
use super::send::{SendArguments, SendError};
use super::serve::{ServeArguments, ServeError};
use super::streams::{StreamsArguments, StreamsError};
use super::tap::{TapArguments, TapError};
use super::{check, completions, file, relay, ring, send, serve, streams, tap};
use crate::config::{self, Config, ConfigError, Loaded};

const EXAMPLES: &str = "\
Examples:
  headworks                                     run with the built-in configuration
  headworks serve --config /etc/headworks.yaml  run with a file
  headworks serve --set ingestion.srt.port=9000 change one key
  headworks streams                             see what comes in
  headworks tap cam1                            see every frame of a stream
  headworks tap cam1/video0 --from key --out - | ffplay -f h264 -
  headworks ring verify cam1                    check every frame still in shared memory
  headworks check                               see what this host lacks, and the cure
  headworks send --to 'srt://127.0.0.1:30000?streamid=cam1'   send a feed to try it with
  headworks file receive /srv/in srt://:9000    take files over SRT

headworks COMMAND --help explains each command, with examples.
Exit codes: 0 done, 1 error, 2 usage, 3 time-out";

/// Takes broadcast contribution feeds off the network and puts coded frames into shared memory
#[derive(Parser, Debug)]
#[command(name = "headworks", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Subcommand, Debug)]
enum Command {
    Serve(ServeArguments),
    Tap(TapArguments),
    Streams(StreamsArguments),
    Ring(RingArguments),
    Check(CheckArguments),
    Send(Box<SendArguments>),
    File(Box<FileArguments>),
    Relay(Box<RelayArguments>),
    Bench(BenchArguments),
    Completions(CompletionsArguments),
}

/// `--config` and `--set`, for the commands that need a configuration.
#[derive(Args, Debug, Default)]
pub struct ConfigArguments {
    /// The configuration, a YAML file; without it the built-in one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key of the configuration, such as ingestion.srt.port=9000; wins over file and environment, may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArguments {
    /// The configuration from file, environment and flags.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        config::load(self.config.as_deref(), std::env::vars_os(), &self.set)
    }
}

/// `--root`, for the commands that read rings.
#[derive(Args, Debug)]
pub struct RootArgument {
    /// Directory of the rings (`output.root` of the configuration)
    #[arg(long, value_name = "DIR", env = "HEADWORKS_OUTPUT__ROOT", default_value_os_t = Config::default().output.root)]
    pub root: PathBuf,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It could not be done.
    Failed = 1,
    /// What was typed makes no sense.
    Usage = 2,
    /// It took longer than it was allowed to.
    TimedOut = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, in one line.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// `serve`.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// `check`.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// `bench`.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// `tap`.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// `streams`.
    #[error(transparent)]
    Streams(#[from] StreamsError),
    /// `ring`.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// `send`.
    #[error(transparent)]
    Send(#[from] SendError),
    /// `file`.
    #[error(transparent)]
    File(#[from] FileError),
    /// `relay`.
    #[error(transparent)]
    Relay(#[from] RelayError),
}

impl CommandError {
    /// The exit code that goes with it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Tap(TapError::Usage(_) | TapError::Name { .. }) | Self::Ring(RingError::Usage(_)) => Exit::Usage,
            Self::Relay(error) if error.is_usage() => Exit::Usage,
            Self::Send(error) if error.is_usage() => Exit::Usage,
            Self::File(error) if error.is_usage() => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

impl Arguments {
    /// Does what was typed.
    ///
    /// # Errors
    /// [`CommandError`], one line for standard error.
    pub fn run(self) -> Result<Exit, CommandError> {
        let command = self.command.unwrap_or(Command::Serve(self.serve));
        Ok(match command {
            Command::Serve(arguments) => serve::run(&arguments)?,
            Command::Tap(arguments) => tap::run(arguments)?,
            Command::Check(arguments) => check::run(&arguments)?,
            Command::Bench(arguments) => bench::run(&arguments)?,
            Command::Streams(arguments) => streams::run(&arguments)?,
            Command::Ring(arguments) => ring::run(&arguments)?,
            Command::File(arguments) => file::run(&arguments)?,
            Command::Relay(arguments) => {
                relay::run(&arguments)?;
                Exit::Done
            }
            Command::Send(arguments) => {
                send::run(&arguments)?;
                Exit::Done
            }
            Command::Completions(arguments) => completions::run(&arguments),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
