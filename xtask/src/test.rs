//! `cargo xtask test`: runs the stages, counts, and closes with `N passed, N failed`.

use crate::{
    stages::{self, Stage},
    tally::Tally,
};
use anyhow::Result;
use std::{path::Path, time::Instant};

/// Runs all stages, also after one failed. `true` when nothing failed and something ran.
pub(crate) fn run(root: &Path, only: Option<&str>) -> Result<bool> {
    let stages: Vec<Stage> = stages::all(root)
        .into_iter()
        .filter(|stage| only.is_none_or(|only| stage.name.contains(only)))
        .collect();
    anyhow::ensure!(!stages.is_empty(), "no stage has this text in its name");
    let mut total = Tally::default();
    let mut lines = Vec::new();
    for stage in stages {
        println!("\n==> {}: {}", stage.name, stage.what);
        let started = Instant::now();
        let tally = (stage.run)(root).unwrap_or_else(|error| {
            println!("{}: {error:#}", stage.name);
            Tally::one(false)
        });
        let seconds = started.elapsed().as_secs();
        lines.push(format!(
            "{:<22} {:>5} passed {:>5} failed {seconds:>5} s",
            stage.name, tally.passed, tally.failed
        ));
        total += tally;
    }
    println!("\n{}\n\n{} passed, {} failed", lines.join("\n"), total.passed, total.failed);
    Ok(total.failed == 0 && total.passed > 0)
}
