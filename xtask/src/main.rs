//! Development commands of the workspace: `cargo xtask <command>`.
//!
//! The cast:
//! - `test`: everything that must hold, in one command, with a closing line `N passed, N failed`;
//! - `stages`: what `test` runs, one after the other; `server` and `cluster`: a running server, and PostgreSQL below it, for
//!   those that need one;
//! - `tools`: installs what the stages need where it is missing;
//! - `tally`: reads results from the output of test runners;
//! - `tidy`: the map is tested: documents, crate edges, file heads, generated references, licences;
//! - `reference`: writes the generated references;
//! - `rig`: breaks a running server or its disk on purpose (the rigs themselves are programs of `postrider-bench`,
//!   `postrider-simulation` and `postrider-testing`);
//! - `process`: child processes.

mod cluster;
mod process;
mod reference;
mod rig;
mod server;
mod stages;
mod tally;
mod test;
mod tidy;
mod tools;

use clap::{Parser, Subcommand};
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

/// Development commands of the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything that must hold; installs what is missing and says so
    Test {
        /// Run only the stages whose name contains this text
        #[arg(long)]
        only: Option<String>,
    },
    /// Break a running server, or its disk, on purpose and check what it promises: `rig kill --cycles 50 --seed 1`,
    /// `rig power --seeds 500`, `rig cluster --seed 1`, `rig simulate --seeds 10000`; `--release` builds it as it is shipped
    Rig {
        /// Which rig, and its options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<OsString>,
    },
    /// Check documents, crate edges, file heads, generated references and licences
    Tidy,
    /// Write docs/reference/openapi.json and docs/reference/api.md from the code
    Openapi,
    /// Write docs/reference/configuration.md from the code
    Reference,
}

fn main() -> ExitCode {
    let root = root();
    let result = match Cli::parse().command {
        Command::Test { only } => test::run(&root, only.as_deref()),
        Command::Rig { arguments } => rig::run(&root, &arguments).map(|held| held.unwrap_or(true)),
        Command::Tidy => tidy::run(&root),
        Command::Openapi => [reference::OPENAPI, reference::API]
            .iter()
            .try_for_each(|page| reference::write(&root, page))
            .map(|()| true),
        Command::Reference => reference::write(&root, &reference::CONFIGURATION).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace: this package lies in its root.
fn root() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    package.parent().map(PathBuf::from).unwrap_or(package)
}
