//! Breaks a running Postrider on purpose and checks what it promises. Started by `cargo xtask rig`.
//!
//! The cast:
//! - `kill`: the rig that ends the server with `kill -9` in the middle of load, again and again;
//! - `full`: the rig that fills the file system of its data; `eio`: the one that lets a sync fail;
//! - `ack`: the rig that watches system calls, with `trace`, which reads them and knows their order (pure);
//! - `node`: the server under test, a real process on one data directory;
//! - `load`: publishes at a fixed rate and notes what was acknowledged;
//! - `receiver`: takes deliveries, slowly enough that some are always under way, and notes what arrived;
//! - `ledger`: what was published and what arrived;
//! - `cluster`: several nodes on one PostgreSQL database, and everything that can happen to them; it has a cast of its own;
//! - `world`: what each rig begins and ends with;
//! - `findings`: the promises of a kill, checked on the ledger (pure); `report`: figures and broken promises.

mod ack;
mod cluster;
#[path = "../../connection.rs"]
mod connection;
mod eio;
mod findings;
mod full;
mod kill;
mod ledger;
mod load;
mod node;
mod receiver;
mod report;
mod trace;
mod world;

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
    /// A small file system that gets low and full under load: publishing answers 507, nothing is sent that cannot be
    /// recorded, and the service comes back by itself with the space
    Full(Full),
    /// Watches the system calls of a server under load: no 202 leaves before the sync of its commit
    Ack(Ack),
    /// The n-th sync of the log fails: the server ends with exit code 70, and has lost nothing at the next start
    Eio(Eio),
    /// Three nodes on one PostgreSQL database under load, while nodes are killed, paused beyond their lease or cut from the
    /// database, and the database is restarted or failed over: nothing acknowledged is lost, no late result lands,
    /// and it recovers by itself
    Cluster(Cluster),
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

#[derive(Debug, clap::Args)]
struct Full {
    /// How often the file system gets full
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Makes the moments repeatable
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages per second
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// The server's binary [default: the one beside this program]
    #[arg(long)]
    server: Option<PathBuf>,
    /// Where the small file system goes: the rig starts itself anew with it, in a mount namespace of its own
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Ack {
    /// Messages to watch
    #[arg(long, default_value_t = 1000)]
    messages: usize,
    /// Messages per second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// The server's binary [default: the one beside this program]
    #[arg(long)]
    server: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Eio {
    /// How often a sync fails
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Decides which syncs fail
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages per second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// The server's binary [default: the one beside this program]
    #[arg(long)]
    server: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Cluster {
    /// How often something happens
    #[arg(long, default_value_t = 13)]
    rounds: u32,
    /// Decides what happens, when, to which node, and for how long
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages per second
    #[arg(long, default_value_t = 60)]
    rate: u32,
    /// Nodes
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// Only these faults, one at a time; can be given several times [default: all, some of them two at once]
    #[arg(long, value_enum)]
    fault: Vec<cluster::faults::Kind>,
    /// No fault at all: then nothing may arrive twice
    #[arg(long)]
    calm: bool,
    /// Deliveries to make without a fault
    #[arg(long, default_value_t = 100_000)]
    deliveries: u64,
    /// The server's binary [default: the one beside this program]
    #[arg(long)]
    server: Option<PathBuf>,
}

/// What a rig says at its end.
enum Verdict {
    /// The figures and every broken promise.
    Ran { text: String, held: bool },
    /// This machine lacks something.
    Skipped(String),
}

/// Exit code of a rig that cannot run on this machine.
const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let rig = Arguments::parse().rig;
    match run(&rig) {
        Ok(Verdict::Ran { text, held }) => {
            print!("{text}");
            if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Verdict::Skipped(why)) => {
            println!("skipped: {why}");
            ExitCode::from(SKIPPED)
        }
        Err(error) => {
            eprintln!("postrider-rig: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(rig: &Rig) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (Rig::Kill(Kill { server, .. })
    | Rig::Full(Full { server, .. })
    | Rig::Ack(Ack { server, .. })
    | Rig::Eio(Eio { server, .. })
    | Rig::Cluster(Cluster { server, .. })) = rig;
    let server = match server {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("postrider"),
    };
    runtime.block_on(async {
        match rig {
            Rig::Kill(options) => kill::run(options, &server).await,
            Rig::Full(options) => full::run(options, &server).await,
            Rig::Ack(options) => ack::run(options, &server).await,
            Rig::Eio(options) => eio::run(options, &server).await,
            Rig::Cluster(options) => cluster::run(options, &server).await,
        }
    })
}
