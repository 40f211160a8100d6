//! Migrations come in pairs: the same file names for every backend that has them.

use super::shown;
use anyhow::Result;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

pub(super) fn problems(root: &Path) -> Result<Vec<String>> {
    let folders: Vec<PathBuf> = ["sqlite", "postgres"]
        .iter()
        .map(|backend| root.join(format!("crates/postrider-store-{backend}/migrations")))
        .filter(|folder| folder.is_dir())
        .collect();
    let mut all = BTreeSet::new();
    let mut names = Vec::new();
    for folder in &folders {
        let mut own = BTreeSet::new();
        for entry in fs::read_dir(folder)? {
            own.insert(entry?.file_name());
        }
        all.extend(own.iter().cloned());
        names.push(own);
    }
    let missing = folders.iter().zip(&names).flat_map(|(folder, own)| {
        all.difference(own).map(|name| format!("{} has no migration {}", shown(root, folder), name.display()))
    });
    Ok(missing.collect())
}
