//! `cargo xtask rig`: builds the rigs and what they break, and runs one.

use crate::{
    process::{command, succeeds},
    tally::Tally,
};
use anyhow::{Result, ensure};
use std::{ffi::OsStr, path::Path, process::Command};

/// With this exit code a rig says that it cannot run on this machine, and why.
const SKIPPED: i32 = 77;

/// Runs a rig with these arguments; `--release` among them builds everything as it is shipped. `Some(true)` when every
/// promise held, `None` when it cannot run here.
pub(crate) fn run<S: AsRef<OsStr>>(root: &Path, arguments: &[S]) -> Result<Option<bool>> {
    let (release, arguments): (Vec<&OsStr>, Vec<&OsStr>) =
        arguments.iter().map(AsRef::as_ref).partition(|argument| *argument == OsStr::new("--release"));
    let cargo = |what: &str, packages: &[&str]| {
        let mut cargo = command(root, "cargo", [what, "--quiet"]);
        cargo.args(packages).args(&release);
        cargo
    };
    let mut rig = match arguments.split_first() {
        Some((name, rest)) if *name == OsStr::new("power") => {
            let packages = ["-p", "postrider-testing", "--no-default-features", "--bin", "postrider-power"];
            with(cargo("run", &packages), rest)
        }
        Some((name, rest)) if *name == OsStr::new("simulate") => {
            let packages = ["-p", "postrider-simulation", "--bin", "postrider-simulate"];
            with(cargo("run", &packages), rest)
        }
        _ => {
            let server =
                ["-p", "postrider", "-p", "postrider-bench", "--bin", "postrider", "--bin", "postrider-rig"];
            ensure!(succeeds(&mut cargo("build", &server)), "the build failed");
            with(cargo("run", &["-p", "postrider-bench", "--bin", "postrider-rig"]), &arguments)
        }
    };
    let code = rig.status()?.code();
    Ok((code != Some(SKIPPED)).then_some(code == Some(0)))
}

/// The same as a stage of the tests.
pub(crate) fn stage(root: &Path, arguments: &[&str]) -> Result<Tally> {
    Ok(run(root, arguments)?.map(Tally::one).unwrap_or_default())
}

fn with(mut cargo: Command, arguments: &[&OsStr]) -> Command {
    cargo.arg("--").args(arguments);
    cargo
}
