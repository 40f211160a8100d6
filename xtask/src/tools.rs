//! Installs what the stages need where it is missing, and says so.

use crate::process::{command, exists, output, succeeds};
use anyhow::Result;
use std::path::Path;

/// A component of the Rust toolchain; `probe` is the cargo command that needs it.
pub(crate) fn component(root: &Path, name: &str, probe: &[&str]) -> Result<()> {
    if exists(&mut command(root, "cargo", probe)) {
        return Ok(());
    }
    println!("installing {name}: rustup component add {name}");
    anyhow::ensure!(
        succeeds(&mut command(root, "rustup", ["component", "add", name])),
        "cannot install {name}"
    );
    Ok(())
}

/// What the examples in the documents call.
pub(crate) fn curl(root: &Path) -> Result<()> {
    packages(root, exists(&mut command(root, "curl", ["--version"])), &["curl", "ca-certificates"])
}

/// What a client suite needs of the machine: an interpreter and its package installer. The packages themselves are
/// installed by the suite, into a folder below `target`.
pub(crate) fn language(root: &Path, suite: &str) -> Result<()> {
    match suite {
        "python" => {
            let there = exists(&mut command(root, "python3", ["-c", "import ensurepip, venv"]));
            packages(root, there, &["python3", "python3-venv"])
        }
        "node" => {
            let there = exists(&mut command(root, "node", ["--version"]))
                && exists(&mut command(root, "npm", ["--version"]));
            packages(root, there, &["nodejs", "npm"])
        }
        _ => Ok(()),
    }
}

fn packages(root: &Path, there: bool, names: &[&str]) -> Result<()> {
    if there {
        return Ok(());
    }
    println!("installing {} with apt-get", names.join(", "));
    let apt = |arguments: &[&str]| {
        let root_user = output(&mut command(root, "id", ["-u"])).is_ok_and(|id| id.trim() == "0");
        let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"];
        words.extend(arguments);
        let (program, words) = if root_user { (words[0], &words[1..]) } else { ("sudo", &words[..]) };
        succeeds(&mut command(root, program, words))
    };
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(names);
    let installed = apt(&["update"]) && apt(&install);
    anyhow::ensure!(installed, "cannot install {}: install it by hand and run again", names.join(", "));
    Ok(())
}
