//! The crates depend on each other as `docs/ARCHITECTURE.md` says: in its table with the columns `crate` and
//! `depends on`, one row a crate; "all of the above" means the rows before. Dependencies of tests are free.

use anyhow::{Context as _, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

const PAGE: &str = "docs/ARCHITECTURE.md";

type Edges = BTreeMap<String, BTreeSet<String>>;

pub(super) fn problems(root: &Path) -> Result<Vec<String>> {
    let Ok(page) = fs::read_to_string(root.join(PAGE)) else {
        return Ok(vec![format!("{PAGE} is missing")]);
    };
    let mut built = Edges::new();
    for folder in fs::read_dir(root.join("crates"))? {
        let path = folder?.path().join("Cargo.toml");
        if path.is_file() {
            let text = fs::read_to_string(&path)?;
            let (name, edges) = manifest(&text).with_context(|| path.display().to_string())?;
            built.insert(name, edges);
        }
    }
    Ok(compare(&table(&page), &built))
}

fn compare(written: &Edges, built: &Edges) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, edges) in built {
        let Some(allowed) = written.get(name) else {
            problems.push(format!("{PAGE}: the table of crates has no row for `{name}`"));
            continue;
        };
        for edge in edges.difference(allowed) {
            problems.push(format!("{name} depends on {edge}, which the table of {PAGE} does not have"));
        }
    }
    for name in written.keys().filter(|name| !built.contains_key(*name)) {
        problems.push(format!("{PAGE}: the table of crates has a row for `{name}`, which does not exist"));
    }
    problems
}

/// Name and dependencies inside the workspace.
fn manifest(text: &str) -> Result<(String, BTreeSet<String>)> {
    let manifest: toml::Table = text.parse()?;
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    let edges =
        dependencies.into_iter().flat_map(toml::Table::keys).filter(|name| name.starts_with("postrider"));
    Ok((name.context("no package.name")?.to_owned(), edges.cloned().collect()))
}

/// The rows below the head of the table.
fn table(page: &str) -> Edges {
    let cells = |line: &str| {
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let names = |cell: &str| {
        let quoted = cell.split('`').skip(1).step_by(2);
        quoted.filter(|name| name.starts_with("postrider")).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let mut edges = Edges::new();
    let mut column = None;
    for line in page.lines() {
        let cells = cells(line);
        match column {
            None if cells.first().is_some_and(|cell| cell == "crate") => {
                column = cells.iter().position(|cell| cell == "depends on");
            }
            Some(_) if !line.starts_with('|') => break,
            Some(column) => {
                let (Some(name), Some(cell)) =
                    (cells.first().and_then(|cell| names(cell).pop_first()), cells.get(column))
                else {
                    continue;
                };
                let above =
                    if cell == "all of the above" { edges.keys().cloned().collect() } else { names(cell) };
                edges.insert(name, above);
            }
            None => {}
        }
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_TEXT: &str = "# x\n\n| crate | what | depends on |\n|---|---|---|\n\
        | `postrider-model` | b | – |\n| `postrider-api` | a | `postrider-model`, `postrider-store` |\n\
        | `postrider` | c | all of the above |\n| `xtask` | d | – |\n\ntext\n";

    fn edges(rows: &[(&str, &[&str])]) -> Edges {
        rows.iter()
            .map(|(name, to)| ((*name).to_owned(), to.iter().map(|to| (*to).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn the_table_is_read_and_an_edge_that_it_does_not_have_is_named() {
        let written = table(PAGE_TEXT);
        let (model, api) = ("postrider-model", "postrider-api");
        let same = edges(&[(model, &[]), (api, &[model, "postrider-store"]), ("postrider", &[api, model])]);
        assert_eq!(written, same);
        assert!(compare(&written, &same).is_empty());

        let more = edges(&[(model, &[]), (api, &[model, "postrider-outbound"]), ("postrider", &[api])]);
        assert_eq!(compare(&written, &more).len(), 1);
        assert_eq!(compare(&written, &edges(&[("postrider-new", &[])])).len(), 4);
    }

    #[test]
    fn only_dependencies_of_the_product_count() {
        let text = "[package]\nname = \"postrider-x\"\n[dependencies]\npostrider-model.workspace = true\nserde = \"1\"\n\
            [dev-dependencies]\npostrider-testing.workspace = true\n";
        let (name, edges) = manifest(text).unwrap();
        assert_eq!((name.as_str(), edges.len()), ("postrider-x", 1));
    }
}
