//! The command line: what can be typed, what it teaches, and what the exit code says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::completions::CompletionsArguments;
use super::relay::{RelayArguments, RelayError};
use super::send::{SendArguments, SendError};
use super::streams::{StreamsArguments, StreamsError};
use super::tap::{TapArguments, TapError};
use super::{completions, relay, send, streams, tap};
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  headworks                                     run with the built-in configuration
  headworks serve --config /etc/headworks.yaml  run with a file
  headworks serve --set ingestion.srt.port=9000 change one key
  headworks streams                             see what comes in
  headworks tap cam1                            see every frame of a stream
  headworks tap cam1/video0 --from key --out - | ffplay -f h264 -
  headworks check                               see what this host lacks, and the cure

Exit codes: 0 done, 1 error, 2 usage, 3 time-out";

/// Takes broadcast contribution feeds off the network and puts coded frames into shared memory
#[derive(Parser, Debug)]
#[command(name = "headworks", version, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Tap(TapArguments),
    Streams(StreamsArguments),
    Send(Box<SendArguments>),
    Relay(Box<RelayArguments>),
    ServeDev {
        #[arg(long)]
        set: Vec<String>,
    },
    /// Print completions for a shell
    Completions(CompletionsArguments),
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
    /// `tap`.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// `streams`.
    #[error(transparent)]
    Streams(#[from] StreamsError),
    /// `send`.
    #[error(transparent)]
    Send(#[from] SendError),
    /// `relay`.
    #[error(transparent)]
    Relay(#[from] RelayError),
}

impl CommandError {
    /// The exit code that goes with it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Tap(TapError::Usage(_)) => Exit::Usage,
            Self::Relay(error) if error.is_usage() => Exit::Usage,
            Self::Send(error) if error.is_usage() => Exit::Usage,
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
        Ok(match self.command {
            Command::Tap(arguments) => tap::run(arguments)?,
            Command::ServeDev { set } => {
                super::serve_dev::run(&set);
                Exit::Done
            }
            Command::Streams(arguments) => streams::run(&arguments)?,
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
