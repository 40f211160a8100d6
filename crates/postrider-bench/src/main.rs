//! Measures Postrider, or another server with the same HTTP API: publisher, server and receiver on one machine, beside the
//! raw limit of the same run.
//!
//! The cast:
//! - `settings`: the command line; `scenarios`: what is run;
//! - `limit`: the yardstick, signed deliveries from a client to a receiver without any storage, over `connection`s with
//!   hyper on both sides;
//! - `world`: what a scenario runs on: a `server` (`nodes` of our own, or a running one), what is set up there through its
//!   `api`, and a receiver; `postgres`: the database server below it, when it is on one;
//! - `publisher`: publishes `message`s, in a closed loop (as fast as answers come) or an open one (at the `pace` of a
//!   schedule);
//! - `receiver`: answers as told and notes when each message arrived;
//! - `wire`: HTTP/1.1 as publisher and receiver need it, which is little: they share the machine with the server;
//! - `usage`: what processes and threads cost; `watch`: the same over time; `machine`: what it all runs on;
//! - `figures`, `reach`: values of pairs, medians, ratios, floors and goals; `report`, `plot`: how they are written.
//!
//! Figures of a noisy machine mean little by themselves: read the ratios of the same run.

mod api;
mod connection;
mod figures;
mod limit;
mod machine;
mod message;
mod nodes;
mod pace;
mod plot;
mod postgres;
mod progress;
mod publisher;
mod reach;
mod receiver;
mod report;
mod scenarios;
mod server;
mod settings;
mod usage;
mod watch;
mod wire;
mod world;

use anyhow::{Context, Result};
use clap::Parser;
use report::Report;
use settings::{Arguments, Settings};
use std::{fs, path::PathBuf, process::ExitCode};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("postrider-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `false` when something could not be measured.
fn run(arguments: &Arguments) -> Result<bool> {
    let settings = Settings::new(arguments)?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let out = match &arguments.options.out {
        Some(folder) => folder.clone(),
        None => PathBuf::from(jiff::Timestamp::now().strftime("target/bench/%Y%m%d-%H%M%SZ").to_string()),
    };
    let mut report = Report::new(&settings)?;
    let started = Instant::now();
    runtime.block_on(async {
        let (mut interrupted, mut terminated) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // Written after each part: what was measured stays, whatever comes.
        let each = |scenarios| {
            report.scenarios.extend(scenarios);
            if let Some(postgres) = settings.launch.postgres() {
                report.describe_database(postgres.sentence());
            }
            report.seconds = started.elapsed().as_secs_f64();
            report.write(&out)
        };
        let stopped = || anyhow::anyhow!("stopped; what was measured before is in {}", out.display());
        // Dropping the run ends its servers and removes their databases.
        tokio::select! {
            ended = scenarios::run(&arguments.command, &settings, each) => ended,
            _ = interrupted.recv() => Err(stopped()),
            _ = terminated.recv() => Err(stopped()),
        }
    })?;
    print!("{}", report.markdown());
    eprintln!("report, figures and plots: {}", out.display());
    for (file, text) in [
        (&arguments.options.json, report.json()?),
        (&arguments.options.report, report.markdown().into_bytes()),
    ] {
        if let Some(file) = file {
            fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    Ok(report.scenarios.iter().all(|scenario| scenario.error.is_none()))
}

/// Thousands of connections need as many files: up to what the system lets us. Servers that we start inherit it.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Scenarios of usual sizes work without; a larger one says what it ran out of.
    let _ = setrlimit(Resource::Nofile, limit);
}
