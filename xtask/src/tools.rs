//! Installs what the stages need where it is missing, and says so; and says how to get by hand what it cannot install.

use crate::process::{command, exists, output, succeeds};
use anyhow::Result;
use std::path::Path;

/// A program of the machine that a stage needs.
struct Need {
    /// For people.
    what: &'static str,
    /// Succeeds where it is there, in the form that is needed.
    probes: &'static [&'static [&'static str]],
    /// Debian's packages of it.
    packages: &'static [&'static str],
    /// Where those are not to be had, or too old.
    by_hand: &'static str,
}

const CURL: Need = Need {
    what: "curl, for the examples of the documents",
    probes: &[&["curl", "--version"]],
    packages: &["curl", "ca-certificates"],
    by_hand: "https://curl.se/download.html",
};
const PYTHON: Need = Need {
    what: "Python 3 with its module venv, for the Python clients",
    probes: &[&["python3", "-c", "import ensurepip, venv"]],
    packages: &["python3", "python3-venv"],
    by_hand: "https://www.python.org/downloads, which has venv inside",
};
const NODE: Need = Need {
    what: "Node.js 20 or newer with npm, for the JavaScript clients",
    probes: &[
        &["node", "-e", "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)"],
        &["npm", "--version"],
    ],
    packages: &["nodejs", "npm"],
    by_hand: "https://nodejs.org/en/download; the packages of Debian 12 and earlier are too old",
};
/// Not the server of the machine, if there is one: tests start clusters of their own with these programs.
const POSTGRESQL: Need = Need {
    what: "the programs of PostgreSQL, for the store of several nodes",
    probes: &[&["sh", "-c", "command -v initdb || ls /usr/lib/postgresql/*/bin/initdb"]],
    packages: &["postgresql"],
    by_hand: "https://www.postgresql.org/download, version 14 or later",
};

/// Says before anything runs what is missing and will be installed, so that nobody is surprised after ten minutes.
pub(crate) fn announce(root: &Path) {
    let missing: Vec<_> =
        [CURL, PYTHON, NODE, POSTGRESQL].into_iter().filter(|need| !need.there(root)).collect();
    for need in &missing {
        println!("missing: {}; the packages {} will be installed", need.what, need.packages.join(", "));
    }
    if missing.is_empty() {
        println!("curl, Python, Node.js and PostgreSQL are there");
    }
    println!("Clients from PyPI, npm and crates.io are installed into target/xtask, which can be deleted.");
}

/// A component of the Rust toolchain; `probe` is the cargo command that needs it.
pub(crate) fn component(root: &Path, name: &str, probe: &[&str]) -> Result<()> {
    if exists(&mut command(root, "cargo", probe)) {
        return Ok(());
    }
    println!("installing {name}: rustup component add {name}");
    anyhow::ensure!(
        succeeds(&mut command(root, "rustup", ["component", "add", name])),
        "cannot install {name}. By hand: `rustup component add {name}`, or your distribution's package of it"
    );
    Ok(())
}

/// What the examples in the documents call.
pub(crate) fn curl(root: &Path) -> Result<()> {
    CURL.ensure(root)
}

/// What the tests of the store of several nodes start clusters with.
pub(crate) fn postgresql(root: &Path) -> Result<()> {
    POSTGRESQL.ensure(root)
}

/// What a client suite needs of the machine: an interpreter and its package installer. The packages themselves are
/// installed by the suite, into a folder below `target`.
pub(crate) fn language(root: &Path, suite: &str) -> Result<()> {
    match suite {
        "python" => PYTHON.ensure(root),
        "node" => NODE.ensure(root),
        _ => Ok(()),
    }
}

impl Need {
    fn there(&self, root: &Path) -> bool {
        self.probes.iter().all(|probe| exists(&mut command(root, probe[0], &probe[1..])))
    }

    fn ensure(&self, root: &Path) -> Result<()> {
        if self.there(root) {
            return Ok(());
        }
        println!("{} is missing: installing {} with apt-get", self.what, self.packages.join(", "));
        if !install(root, self.packages) {
            println!("apt-get did not install everything");
        }
        anyhow::ensure!(self.there(root), "{}", self.way_out());
        Ok(())
    }

    fn way_out(&self) -> String {
        format!(
            "cannot get {}. By hand, as root on Debian: `apt-get install {}`; elsewhere: {}. Then run again",
            self.what,
            self.packages.join(" "),
            self.by_hand
        )
    }
}

/// As root, or with a sudo that asks nothing: nobody may be there to answer.
fn install(root: &Path, packages: &[&str]) -> bool {
    let root_user = output(&mut command(root, "id", ["-u"])).is_ok_and(|id| id.trim() == "0");
    let apt = |arguments: &[&str]| {
        let mut words = if root_user { vec![] } else { vec!["sudo", "-n"] };
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
        words.extend(arguments);
        succeeds(&mut command(root, words[0], &words[1..]))
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    // Lists that cannot be renewed may still be good enough.
    let _ = apt(&["update"]);
    apt(&arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_installed_is_named_with_the_way_to_get_it() {
        const NOWHERE: Need = Need {
            what: "a program that there is not",
            probes: &[&["postrider-no-such-program", "--version"]],
            packages: &["no-such-package"],
            by_hand: "https://example.com",
        };
        assert!(!NOWHERE.there(Path::new(".")));
        let text = NOWHERE.way_out();
        assert!(
            text.contains("apt-get install no-such-package") && text.contains("https://example.com"),
            "{text}"
        );
    }
}
