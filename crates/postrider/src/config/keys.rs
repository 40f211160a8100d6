//! The known settings, read from the source of the structs that hold them: name, type and doc comment stand in one
//! place only. What is not a plain field of a plain struct is not understood, and a test says so. A struct inside a
//! struct (`…Config`) is a section below the section.

use std::sync::OnceLock;
use toml::{Table, Value};

/// A struct with settings and the section that it fills.
struct Source {
    section: &'static str,
    name: &'static str,
    text: &'static str,
}

const SOURCES: [Source; 9] = [
    Source { section: "server", name: "Server", text: include_str!("server.rs") },
    Source { section: "log", name: "Log", text: include_str!("log.rs") },
    Source { section: "api", name: "Config", text: include_str!("../../../postrider-api/src/config.rs") },
    Source {
        section: "api.limits",
        name: "LimitsConfig",
        text: include_str!("../../../postrider-api/src/admission/config.rs"),
    },
    Source { section: "delivery", name: "Config", text: ENGINE },
    Source { section: "delivery.retention", name: "RetentionConfig", text: ENGINE },
    Source {
        section: "outbound",
        name: "Config",
        text: include_str!("../../../postrider-outbound/src/config.rs"),
    },
    Source {
        section: "sqlite",
        name: "Config",
        text: include_str!("../../../postrider-store-sqlite/src/config.rs"),
    },
    Source {
        section: "database",
        name: "Config",
        text: include_str!("../../../postrider-store-postgres/src/config.rs"),
    },
];

const ENGINE: &str = include_str!("../../../postrider-engine/src/config.rs");

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its section.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// Its value is a secret: shown masked.
    pub secret: bool,
    /// Its doc comment.
    pub doc: String,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// Text in quotes.
    Text,
    /// A list of numbers.
    Numbers,
    /// A list of texts.
    Texts,
}

impl Key {
    /// `section.name`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("POSTRIDER_{}__{}", self.section.replace('.', "__"), self.name).to_ascii_uppercase()
    }

    /// Its value in a table of sections.
    pub fn of<'a>(&self, table: &'a Table) -> Option<&'a Value> {
        let mut values = table;
        for part in self.section.split('.') {
            values = values.get(part)?.as_table()?;
        }
        values.get(self.name)
    }

    /// Puts its value into a table of sections.
    pub fn put(&self, table: &mut Table, value: Value) {
        let mut values = table;
        for part in self.section.split('.') {
            let section = values.entry(part).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(below) = section else { return };
            values = below;
        }
        values.insert(self.name.to_owned(), value);
    }
}

/// All settings, by section in the order of the page.
pub fn all() -> &'static [Key] {
    static KEYS: OnceLock<Vec<Key>> = OnceLock::new();
    KEYS.get_or_init(|| SOURCES.iter().flat_map(fields).collect())
}

/// The names of the sections in order; one below another has a dot in its name.
pub fn sections() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|source| source.section)
}

/// The setting of this name.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    all().iter().find(|key| key.section == section && key.name == name)
}

/// What of `candidates` reads most like `name`; `None` when nothing comes close.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    // Something added or left out at the end is a small slip, however long it is.
    let slip = |candidate: &str| name.starts_with(candidate) || candidate.starts_with(&name);
    candidates
        .map(|candidate| (if slip(candidate) { 1 } else { distance(&name, candidate) }, candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().max(name.len()) / 2)
        .map(|(_, candidate)| candidate)
}

fn fields(source: &'static Source) -> Vec<Key> {
    let head = format!("pub struct {} {{", source.name);
    let mut keys = Vec::new();
    let mut doc: Vec<&str> = Vec::new();
    let mut skipped = false;
    let body =
        source.text.lines().skip_while(|line| line.trim() != head).skip(1).take_while(|line| *line != "}");
    for line in body.map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim());
        } else if line == "#[serde(skip)]" {
            skipped = true;
        } else if let Some((name, of)) = line.strip_prefix("pub ").and_then(|field| field.split_once(": ")) {
            let of = of.trim_end_matches(',');
            let secret = of.contains("Masked");
            if !skipped && !of.ends_with("Config") {
                keys.push(Key { section: source.section, name, kind: kind(of), secret, doc: doc.join(" ") });
            }
            doc.clear();
            skipped = false;
        }
    }
    keys
}

fn kind(of: &str) -> Kind {
    let inner = of.strip_prefix("Option<").and_then(|of| of.strip_suffix('>')).unwrap_or(of);
    let (list, item) = match inner.strip_prefix("Vec<").and_then(|of| of.strip_suffix('>')) {
        Some(item) => (true, item),
        None => (false, inner),
    };
    let integer = matches!(
        item,
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" | "NonZeroUsize" | "NonZeroU32"
    );
    match (list, item) {
        (false, "bool") => Kind::Bool,
        (false, "f32" | "f64") => Kind::Float,
        (false, _) if integer => Kind::Integer,
        (false, _) => Kind::Text,
        (true, "f32" | "f64") => Kind::Numbers,
        (true, _) if integer => Kind::Numbers,
        (true, _) => Kind::Texts,
    }
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, left) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_setting_with_a_default_is_known_and_described() {
        let mut tables = vec![(String::new(), Table::try_from(Config::default()).unwrap())];
        while let Some((section, values)) = tables.pop() {
            for (name, value) in values {
                let path = format!("{section}.{name}");
                if let Value::Table(below) = value {
                    tables.push((path.trim_start_matches('.').to_owned(), below));
                } else {
                    let key =
                        find(&section, &name).unwrap_or_else(|| panic!("{path} is not read from its source"));
                    assert!(!key.doc.is_empty(), "{path} has no doc comment");
                }
            }
        }
    }

    #[test]
    fn every_known_setting_is_one_that_the_structs_take() {
        for key in all() {
            let value = match key.kind {
                Kind::Bool => "true",
                Kind::Integer | Kind::Float => "1",
                Kind::Text => "\"x\"",
                Kind::Numbers | Kind::Texts => "[]",
            };
            let text = format!("[{}]\n{} = {value}\n", key.section, key.name);
            let error =
                toml::from_str::<Config>(&text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!error.contains("unknown field"), "{}: {error}", key.path());
        }
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbour_and_nonsense_finds_none() {
        let names = || all().iter().filter(|key| key.section == "server").map(|key| key.name);
        assert_eq!(nearest("lisen", names()), Some("listen"));
        assert_eq!(nearest("datadir", names()), Some("data_dir"));
        assert_eq!(nearest("zzzzzzzzzzzzzzzz", names()), None);
    }
}
