//! Both licences are there, and every crate names them.

use super::{files, shown};
use anyhow::Result;
use std::{fs, path::Path};

pub(super) fn problems(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (file, phrase) in
        [("LICENSE-MIT", "Permission is hereby granted"), ("LICENSE-APACHE", "Apache License")]
    {
        if !fs::read_to_string(root.join(file)).unwrap_or_default().contains(phrase) {
            problems.push(format!("{file} is missing or is not that licence"));
        }
    }
    for path in files(root, "toml")?.into_iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(&path)?;
        let workspace =
            text.contains("license.workspace = true") || text.contains("license = \"MIT OR Apache-2.0\"");
        if text.contains("[package]") && !workspace {
            problems.push(format!("{} does not say `license.workspace = true`", shown(root, &path)));
        }
    }
    Ok(problems)
}
