//! The rig of power cuts as a program. Started by `cargo xtask rig power`.

use clap::Parser;
use postrider_testing::power::{self, Ignored, Options};
use std::{process::ExitCode, time::Instant};

/// Cuts the power of the store's disk, again and again, and checks that nothing answered is lost
#[derive(Debug, Parser)]
#[command(name = "postrider-power", version)]
struct Arguments {
    /// Runs, each with two cuts
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first run's seed; the next ones follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The disk ignores syncs: the rig must then find losses
    #[arg(long)]
    ignore_syncs: bool,
}

fn main() -> ExitCode {
    let Arguments { seeds, seed, ignore_syncs } = Arguments::parse();
    let begun = Instant::now();
    let ignored = if ignore_syncs { Ignored::All } else { Ignored::None };
    let report = power::run(Options { seed, seeds, ignored }, |done| {
        if done % 50 == 0 || done == seeds {
            eprint!("\r{done} of {seeds} seeds ");
        }
    });
    eprintln!();
    println!("\n| figure | value |\n|---|---|");
    for (name, value) in [
        ("seeds", report.seeds),
        ("power cuts", report.cuts),
        ("writes and syncs of files", report.operations),
        ("errors that the disk reported", report.errors),
        ("messages acknowledged", report.accepted),
        ("results acknowledged", report.recorded),
        ("promises broken", report.violations.len().try_into().unwrap_or(u64::MAX)),
        ("seconds", begun.elapsed().as_secs()),
    ] {
        println!("| {name} | {value} |");
    }
    for violation in report.violations.iter().take(30) {
        println!("\nVIOLATION: {violation}");
    }
    if report.violations.is_empty() {
        println!("\nAll promises held.");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
