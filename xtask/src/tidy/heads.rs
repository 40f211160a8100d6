//! Every source file opens with what it does.

use super::{files, shown};
use anyhow::Result;
use std::{fs, path::Path};

pub(super) fn problems(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for folder in ["crates", "xtask", "tests"] {
        for path in files(&root.join(folder), "rs")? {
            if !fs::read_to_string(&path)?.starts_with("//! ") {
                problems.push(format!(
                    "{} does not open with `//!` lines that say what it does",
                    shown(root, &path)
                ));
            }
        }
    }
    Ok(problems)
}
