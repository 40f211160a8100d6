//! The effective configuration as TOML, for `postrider config`: every setting, its origin, secrets masked.

use super::{
    Config,
    keys::{self, Key},
    layers::{Loaded, Origin, from},
};
use std::fmt::Write as _;
use toml::{Table, Value};

/// Stands in place of a secret.
const MASK: &str = "********";

/// Every setting with its value and, unless it is the default, where it comes from.
pub fn render(loaded: &Loaded) -> String {
    let defaults = defaults();
    let mut text = String::new();
    for section in keys::sections() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}[{section}]", if text.is_empty() { "" } else { "\n" });
        for key in keys::all().iter().filter(|key| key.section == section) {
            let value = key.of(&loaded.set).or_else(|| key.of(&defaults));
            let _ = writeln!(text, "{}", line(key, value, loaded.origins.get(&key.path())));
        }
    }
    text
}

/// The defaults as a table; unset ones are missing from it.
pub fn defaults() -> Table {
    Table::try_from(Config::default()).unwrap_or_default()
}

fn line(key: &Key, value: Option<&Value>, origin: Option<&Origin>) -> String {
    let comment = origin.map(|origin| format!(" # {}", from(Some(origin)))).unwrap_or_default();
    match value {
        None => format!("# {} is not set", key.name),
        Some(_) if key.secret => format!("{} = \"{MASK}\"{comment}", key.name),
        Some(value) => format!("{} = {value}{comment}", key.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::{Inputs, load};

    fn loaded(environment: &[(&str, &str)]) -> Loaded {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(&Inputs { environment, ..Inputs::default() }).unwrap()
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_configuration() {
        let loaded = loaded(&[("POSTRIDER_SERVER__DRAIN_SECONDS", "7")]);
        let text = render(&loaded);
        assert!(text.contains("drain_seconds = 7 # POSTRIDER_SERVER__DRAIN_SECONDS"), "{text}");
        let again: Config = toml::from_str(&text).unwrap();
        assert_eq!(Table::try_from(again).unwrap(), Table::try_from(loaded.config).unwrap());
    }

    /// SEC: `postrider config` may be pasted into a ticket.
    #[test]
    fn secrets_are_masked() {
        let secrets: Vec<_> = keys::all().iter().filter(|key| key.secret).collect();
        assert!(!secrets.is_empty(), "no setting is marked as a secret");
        for key in secrets {
            let canary = "canary-secret-value-0123456789abcdef";
            let text = render(&loaded(&[(&key.variable(), canary)]));
            assert!(text.contains(MASK) && !text.contains(canary), "{}", key.path());
        }
    }
}
