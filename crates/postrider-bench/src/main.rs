//! Measures Postrider: publisher, server and receiver on one machine, beside the raw limit of the same run.
//!
//! The cast:
//! - `limit`: the yardstick, signed deliveries from a client to a receiver without any storage;
//! - `server`: a real `postrider serve --dev` process on a temporary database; `api`: what is set up there;
//! - `publisher`: publishes `message`s, in a closed loop (as fast as answers come) or an open one (at the `pace` of a
//!   schedule);
//! - `receiver`: answers as told and notes when each message arrived;
//! - `wire`: HTTP/1.1 as publisher and receiver need it; `connection`: the one of the limit, with hyper on both sides;
//! - `usage`: what processes and threads cost;
//! - `scenarios`, `report`: what is run, and how its figures are written.
//!
//! Figures of a noisy machine mean little by themselves: read the ratios to the limit of the same run.

mod api;
mod connection;
mod limit;
mod message;
mod pace;
mod publisher;
mod receiver;
mod report;
mod scenarios;
mod server;
mod usage;
mod wire;

use clap::{Parser, Subcommand};
use server::Launch;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Measures Postrider on this machine.
#[derive(Debug, Parser)]
#[command(name = "postrider-bench", version)]
struct Arguments {
    /// What to measure.
    #[command(subcommand)]
    scenario: Scenario,
    /// Seconds that each measurement lasts.
    #[arg(long, default_value_t = 10, global = true)]
    seconds: u64,
    /// Interleaved repetitions of each measurement; medians are reported.
    #[arg(long, default_value_t = 5, global = true)]
    pairs: usize,
    /// Concurrent connections of the publisher and of the limit.
    #[arg(long, default_value_t = 64, global = true)]
    connections: usize,
    /// The server's binary; by default the one beside this program.
    #[arg(long, global = true)]
    server: Option<PathBuf>,
    /// Writes the figures as JSON to this file too.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Scenario {
    /// Everything below.
    All,
    /// Signed 1 KiB deliveries without storage, hyper on both sides: the yardstick.
    Limit,
    /// One endpoint, closed loop: messages per second accepted and delivered.
    Steady,
    /// One endpoint, open loop at half of the steady rate: end-to-end latency.
    Latency,
}

/// Settings of one run.
#[derive(Debug, Clone)]
struct Settings {
    duration: Duration,
    pairs: usize,
    connections: usize,
    launch: Launch,
    receive: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let server = match arguments.server {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("postrider"),
    };
    let settings = Settings {
        duration: Duration::from_secs(arguments.seconds.max(1)),
        pairs: arguments.pairs.max(1),
        connections: arguments.connections.max(1),
        launch: Launch::Binary { path: server, arguments: Vec::new(), scratch: None },
        receive: SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(scenarios::run(arguments.scenario, &settings))?;
    print!("{}", report::markdown(&figures));
    if let Some(path) = arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&figures)?)?;
    }
    Ok(())
}
