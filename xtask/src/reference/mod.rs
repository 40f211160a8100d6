//! The generated references: what the binary prints about itself, kept as files that can be read and linked.

mod api;

use crate::process::{command, output};
use anyhow::{Context as _, Result};
use std::{fs, path::Path};

/// A generated file.
pub(crate) struct Reference {
    /// Where it is kept.
    pub(crate) path: &'static str,
    /// What of the binary prints it.
    arguments: &'static [&'static str],
    /// What is made of that.
    form: fn(String) -> Result<String>,
    /// What writes it.
    pub(crate) written_by: &'static str,
}

/// The settings.
pub(crate) const CONFIGURATION: Reference = Reference {
    path: "docs/reference/configuration.md",
    arguments: &["config", "--reference"],
    form: Ok,
    written_by: "cargo xtask reference",
};
/// The API, for tools.
pub(crate) const OPENAPI: Reference = Reference {
    path: "docs/reference/openapi.json",
    arguments: &["openapi"],
    form: Ok,
    written_by: "cargo xtask openapi",
};
/// The API, for readers.
pub(crate) const API: Reference = Reference {
    path: "docs/reference/api.md",
    arguments: &["openapi"],
    form: |document| Ok(api::page(&serde_json::from_str(&document)?)),
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
    (reference.form)(output(&mut command(root, "cargo", words.iter().chain(reference.arguments)))?)
}
