//! `cargo xtask tidy`: the map is tested.
//!
//! Each check returns its problems as sentences that name the file; no problem is no output. What a compiler, formatter
//! or linter can say is theirs.

mod documents;
mod edges;
mod heads;
mod licences;
mod migrations;

use crate::reference;
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Runs all checks. `true` when there is no problem.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let mut problems = Vec::new();
    problems.extend(heads::problems(root)?);
    problems.extend(documents::problems(root)?);
    problems.extend(edges::problems(root)?);
    problems.extend(licences::problems(root)?);
    problems.extend(migrations::problems(root)?);
    for page in [reference::CONFIGURATION, reference::OPENAPI, reference::API] {
        problems.extend(reference::drift(root, &page)?);
    }
    for problem in &problems {
        println!("tidy: {problem}");
    }
    if problems.is_empty() {
        println!("tidy: nothing to say");
    }
    Ok(problems.is_empty())
}

/// All files below the folder with this extension, in order, build results and installed packages left out.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    const SKIPPED: [&str; 5] = ["target", "node_modules", ".venv", ".git", "postrider-data"];
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let skipped = SKIPPED.iter().any(|name| entry.file_name() == *name);
            if entry.file_type()?.is_dir() && !skipped {
                folders.push(path);
            } else if path.extension().is_some_and(|of| of == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The path as messages show it.
fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
