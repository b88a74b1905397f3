//! `headworks`: arguments → command.

use std::process::ExitCode;

use clap::Parser;
use headworks::cli::arguments::Arguments;

fn main() -> ExitCode {
    match Arguments::parse().run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("headworks: {error}");
            error.exit().into()
        }
    }
}
