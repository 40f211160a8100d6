//! `cargo xtask rig`: builds the server and the rig that breaks it, and runs the rig.

use crate::process::{command, succeeds};
use anyhow::{Result, ensure};
use std::{ffi::OsStr, path::Path};

/// Runs `postrider-rig` with these arguments. `true` when every promise held.
pub(crate) fn run<S: AsRef<OsStr>>(root: &Path, arguments: &[S]) -> Result<bool> {
    let build = [
        "build",
        "--quiet",
        "-p",
        "postrider",
        "-p",
        "postrider-bench",
        "--bin",
        "postrider",
        "--bin",
        "postrider-rig",
    ];
    ensure!(succeeds(&mut command(root, "cargo", build)), "the build failed");
    let start = ["run", "--quiet", "-p", "postrider-bench", "--bin", "postrider-rig", "--"].map(OsStr::new);
    let arguments = start.into_iter().chain(arguments.iter().map(AsRef::as_ref));
    Ok(succeeds(&mut command(root, "cargo", arguments)))
}
