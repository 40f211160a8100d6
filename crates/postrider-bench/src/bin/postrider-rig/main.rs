//! Breaks a running Postrider on purpose and checks what it promises. Started by `cargo xtask rig`.
//!
//! The cast:
//! - `kill`: the rig that ends the server with `kill -9` in the middle of load, again and again;
//! - `node`: the server under test, a real process on one data directory;
//! - `load`: publishes at a fixed rate and notes what was acknowledged;
//! - `receiver`: takes deliveries, slowly enough that some are always under way, and notes what arrived;
//! - `ledger`: what was published and what arrived;
//! - `findings`: the promises, checked on the ledger (pure), and the table of figures.

#[path = "../../connection.rs"]
mod connection;
mod findings;
mod kill;
mod ledger;
mod load;
mod node;
mod receiver;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Breaks a running Postrider on purpose and checks what it promises.
#[derive(Debug, Parser)]
#[command(name = "postrider-rig", version)]
struct Arguments {
    /// What to do to it
    #[command(subcommand)]
    rig: Rig,
}

#[derive(Debug, Subcommand)]
enum Rig {
    /// `kill -9` in the middle of load, restart, many times: nothing acknowledged is lost, duplicates do not exceed what
    /// was in flight, and deliveries go on within two seconds
    Kill(Kill),
}

#[derive(Debug, clap::Args)]
struct Kill {
    /// How often the server is killed
    #[arg(long, default_value_t = 50)]
    cycles: u32,
    /// Makes the moments of the kills and the receiver's delays repeatable
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages per second
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Endpoints that each message goes to
    #[arg(long, default_value_t = 3)]
    endpoints: u8,
    /// Stop the server with SIGTERM instead: then nothing at all may be repeated
    #[arg(long)]
    orderly: bool,
    /// The server's binary [default: the one beside this program]
    #[arg(long)]
    server: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Rig::Kill(options) = Arguments::parse().rig;
    match run(&options) {
        Ok(findings) => {
            print!("{}", findings.table());
            if findings.violations().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("postrider-rig: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Kill) -> anyhow::Result<findings::Findings> {
    let server = match &options.server {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("postrider"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(kill::run(options, &server))
}
