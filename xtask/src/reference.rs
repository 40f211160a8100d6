//! The generated references: what the binary prints about itself, kept as files that can be read and linked.

use crate::process::{command, output};
use anyhow::{Context as _, Result};
use std::{fs, path::Path};

/// A generated file.
pub(crate) struct Reference {
    /// Where it is kept.
    pub(crate) path: &'static str,
    /// What of the binary prints it.
    arguments: &'static [&'static str],
    /// What writes it.
    pub(crate) written_by: &'static str,
}

/// The settings.
pub(crate) const CONFIGURATION: Reference = Reference {
    path: "docs/reference/configuration.md",
    arguments: &["config", "--reference"],
    written_by: "cargo xtask reference",
};
/// The API.
pub(crate) const OPENAPI: Reference = Reference {
    path: "docs/reference/openapi.json",
    arguments: &["openapi"],
    written_by: "cargo xtask openapi",
};

/// Writes the file.
pub(crate) fn write(root: &Path, reference: &Reference) -> Result<()> {
    let path = root.join(reference.path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, print(root, reference)?).with_context(|| format!("writing {}", path.display()))?;
    println!("wrote {}", reference.path);
    Ok(())
}

/// What is wrong with the file, if anything.
pub(crate) fn drift(root: &Path, reference: &Reference) -> Result<Option<String>> {
    let kept = fs::read_to_string(root.join(reference.path)).unwrap_or_default();
    let drifted = kept != print(root, reference)?;
    Ok(drifted
        .then(|| format!("{} is not what the code says: run `{}`", reference.path, reference.written_by)))
}

fn print(root: &Path, reference: &Reference) -> Result<String> {
    let words = ["run", "--quiet", "-p", "postrider", "--"];
    output(&mut command(root, "cargo", words.iter().chain(reference.arguments)))
}
