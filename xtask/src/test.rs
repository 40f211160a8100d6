//! `cargo xtask test`: runs the stages, counts, and closes with `N passed, N failed`.

use crate::{
    stages::{self, Stage},
    tally::Tally,
    tools,
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
    if only.is_none() {
        tools::announce(root);
    }
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
        lines.push(line(&stage.name, tally, seconds));
        total += tally;
    }
    println!("\n{}\n\n{} passed, {} failed", lines.join("\n"), total.passed, total.failed);
    Ok(total.failed == 0 && total.passed > 0)
}

fn line(name: &str, tally: Tally, seconds: u64) -> String {
    if tally == Tally::default() {
        return format!("{name:<22} skipped, see above");
    }
    format!("{name:<22} {:>5} passed {:>5} failed {seconds:>5} s", tally.passed, tally.failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_was_left_out_is_not_shown_as_one_that_passed() {
        assert!(line("deny", Tally::default(), 0).contains("skipped"));
        assert!(line("tidy", Tally::one(true), 2).contains("1 passed     0 failed"));
    }
}
