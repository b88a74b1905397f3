//! `headworks completions`: what a shell needs to complete our commands.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::arguments::{Arguments, Exit};

/// What can be typed after `headworks completions`.
#[derive(Args, Debug)]
pub struct CompletionsArguments {
    /// The shell to write them for
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the completions to standard output.
pub fn run(arguments: &CompletionsArguments) -> Exit {
    let mut text = Vec::new();
    generate(arguments.shell, &mut Arguments::command(), "headworks", &mut text);
    // Whoever closed the pipe has seen enough.
    let _ = io::Write::write_all(&mut io::stdout(), &text);
    Exit::Done
}
