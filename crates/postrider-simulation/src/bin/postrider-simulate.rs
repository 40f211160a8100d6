//! Runs seeds, shows how far it is, and says of a seed that fails what happened and how to repeat it.

use clap::Parser;
use postrider_simulation::{Mode, Report, run};
use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// Failures after which it stops: more of them say nothing new.
const ENOUGH: usize = 20;

/// Simulates the engine with random endpoints, publishers, changes and faults, seed by seed.
#[derive(Debug, Parser)]
#[command(name = "postrider-simulate")]
struct Cli {
    /// How many seeds
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// `safety` (trouble until the end) or `liveness` (trouble ends, and everything must come to its end); both without
    #[arg(long)]
    mode: Option<Mode>,
    /// How many seeds run at the same time
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// How many of the last things that happened a failure shows
    #[arg(long, default_value_t = 60)]
    tail: usize,
}

/// Sums over runs.
#[derive(Debug, Default)]
struct Sums {
    runs: u64,
    messages: u64,
    requests: u64,
    boots: u64,
    measured: u64,
    /// Over the hashes of all traces, in any order.
    trace: u64,
    time: Duration,
    failures: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let modes = cli.mode.map_or_else(|| Mode::ALL.to_vec(), |mode| vec![mode]);
    let begun = now();
    let sums = simulate(&cli, &modes, begun);
    println!(
        "{} runs in {:.0} s, {} failed: {} messages, {} requests, {} processes, {} queue delays beside a saturating \
         application, {:.0} hours simulated, trace {:016x}",
        sums.runs,
        begun.elapsed().as_secs_f64(),
        sums.failures,
        sums.messages,
        sums.requests,
        sums.boots,
        sums.measured,
        sums.time.as_secs_f64() / 3600.0,
        sums.trace
    );
    if sums.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all seeds in all modes; stops when enough of them have failed.
fn simulate(cli: &Cli, modes: &[Mode], begun: Instant) -> Sums {
    let (next, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let sums = std::sync::Mutex::new((Sums::default(), begun));
    let total = cli.seeds * modes.len() as u64;
    let work = || {
        while !enough.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= total {
                return;
            }
            let mode = modes[usize::try_from(number % modes.len() as u64).unwrap_or(0)];
            let report = run(cli.from + number / modes.len() as u64, mode, cli.tail);
            let mut guard = sums.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (sums, shown) = &mut *guard;
            sums.add(&report);
            enough.store(sums.failures >= ENOUGH, Ordering::Relaxed);
            if shown.elapsed() >= PROGRESS {
                *shown = now();
                println!("{} of {total} runs, {} failed", sums.runs, sums.failures);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cli.threads.max(1) {
            scope.spawn(work);
        }
    });
    sums.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).0
}

impl Sums {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.messages += report.counts.messages;
        self.requests += report.counts.requests;
        self.boots += report.counts.boots;
        self.measured += report.counts.measured;
        self.time += report.time;
        self.trace = self.trace.wrapping_add(report.hash);
        if let Some(failure) = &report.failure {
            self.failures += 1;
            println!("\nseed {} in mode {}: {failure}", report.seed, report.mode);
            println!(
                "repeat: cargo xtask rig simulate --seeds 1 --from {} --mode {}",
                report.seed, report.mode
            );
        }
    }
}

/// How long the seeds take is real time.
fn now() -> Instant {
    Instant::now()
}
