//! The binary: command line in, exit code out. Everything else is the library.

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    postrider::commands::main(postrider::cli::Cli::parse())
}
