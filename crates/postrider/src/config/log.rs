//! Settings of the log.

use serde::{Deserialize, Serialize};

/// Settings of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `auto` (text on a terminal, JSON otherwise), `text` or `json`. The log goes to standard error.
    pub format: Format,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,postrider_engine=debug`.
    pub level: String,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: Format::Auto, level: "info".to_owned() }
    }
}
