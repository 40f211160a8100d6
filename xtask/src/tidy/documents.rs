//! Paths and links in documents lead somewhere.

use super::{files, shown};
use anyhow::Result;
use std::{fs, path::Path};

/// Folders whose paths are checked when a document names them in backticks.
const ROOTS: [&str; 6] = ["crates/", "docs/", "tests/", "xtask/", ".ci/", ".cargo/"];

pub(super) fn problems(root: &Path) -> Result<Vec<String>> {
    let mut pages = files(&root.join("docs"), "md")?;
    pages.extend(["README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|page| root.join(page)));
    let mut problems = Vec::new();
    for page in pages.iter().filter(|page| page.is_file()) {
        let text = fs::read_to_string(page)?;
        let folder = page.parent().unwrap_or(root);
        let paths = paths(&text).into_iter().filter(|path| !root.join(path).exists());
        problems
            .extend(paths.map(|path| format!("{} names `{path}`, which does not exist", shown(root, page))));
        let links = links(&text).into_iter().filter(|link| !folder.join(link).exists());
        problems
            .extend(links.map(|link| format!("{} links to {link}, which does not exist", shown(root, page))));
    }
    if !root.join("README.md").is_file() {
        problems.push("README.md is missing".to_owned());
    }
    Ok(problems)
}

/// What stands in backticks and looks like a path of this repository; what comes after `::` or `:` is left out.
fn paths(text: &str) -> Vec<&str> {
    let quoted = prose(text).flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted
        .map(|path| path.split(':').next().unwrap_or(path))
        .filter(|path| ROOTS.iter().any(|root| path.starts_with(root)))
        .filter(|path| !path.contains(['*', '<', '{', '…', ' ', '$']))
        .collect()
}

/// Targets of links to files, without their anchors.
fn links(text: &str) -> Vec<&str> {
    prose(text)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next())
        .map(|link| link.split('#').next().unwrap_or(link))
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:"))
        .filter(|link| !link.starts_with('/'))
        .collect()
}

/// The lines outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_links_are_found_and_examples_are_not() {
        let text = "See `crates/a/src/lib.rs::f`, `docs/*.md`, `serve --dev` and [that](other.md#part) or \
            [this](https://example.com).\n```\n`crates/in/a/block`\n```\n[anchor](#here)\n";
        assert_eq!(paths(text), ["crates/a/src/lib.rs"]);
        assert_eq!(links(text), ["other.md"]);
    }
}
