//! `headworks completions`: what a shell needs to complete our commands.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::arguments::{Arguments, Exit};

const HELP: &str = "\
Examples:
  headworks completions bash > /etc/bash_completion.d/headworks
  headworks completions zsh > /usr/local/share/zsh/site-functions/_headworks
  headworks completions fish > ~/.config/fish/completions/headworks.fish
A new shell completes them.";

/// Print completions for a shell: what the tab key adds to a command
#[derive(Args, Debug)]
#[command(after_help = HELP)]
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
