//! Child processes: run to the end with their output shown, and read at the same time when asked.

use anyhow::{Context as _, Result};
use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

/// A command in a directory, without input: it must not wait for an answer that nobody gives.
pub(crate) fn command<S: AsRef<OsStr>>(
    directory: &Path,
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).args(arguments).stdin(Stdio::null());
    command
}

/// Runs it with its output shown. `false` when it did not succeed or could not be started.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            println!("cannot run {}: {error}", command.get_program().display());
            false
        }
    }
}

/// Does it run at all, without a word?
pub(crate) fn exists(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs it, shows each line of its standard output and gives it to `each`. `true` when it succeeded.
pub(crate) fn reading(command: &mut Command, mut each: impl FnMut(&str)) -> Result<bool> {
    let name = command.get_program().display().to_string();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {name}"))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.with_context(|| format!("reading the output of {name}"))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            each(&line);
        }
    }
    Ok(child.wait().with_context(|| format!("waiting for {name}"))?.success())
}

/// Runs it and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {name}"))?;
    anyhow::ensure!(output.status.success(), "{name} failed ({})", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("the output of {name} is not UTF-8"))
}
