//! The binary: command line in, exit code out. Everything else is the library.

use clap::Parser as _;
use std::process::ExitCode;

/// Small buffers come and go with every message and attempt; docs/performance.md has what it gains.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    postrider::commands::main(postrider::cli::Cli::parse())
}
