//! The configuration of the binary: one TOML section per part, read once at start.
//!
//! Each crate owns its own settings with their defaults and doc comments; this module composes them, layers defaults,
//! file, environment and flags ([`layers`]), and prints them ([`effective`], [`reference`]). It decides nothing about
//! what the settings mean.

pub mod effective;
pub mod keys;
pub mod layers;
pub mod log;
pub mod reference;
pub mod server;

pub use log::Log;
pub use server::{Role, Server};

use serde::{Deserialize, Serialize};

/// Everything that an operator can set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the server listens and where it keeps its data.
    pub server: Server,
    /// What it writes about itself.
    pub log: Log,
    /// The HTTP API.
    pub api: postrider_api::Config,
    /// Attempts, retries and retention.
    pub delivery: postrider_engine::Config,
    /// Outgoing requests.
    pub outbound: postrider_outbound::Config,
    /// The embedded store.
    pub sqlite: postrider_store_sqlite::Config,
    /// The database that several nodes share, in place of the embedded store.
    pub database: postrider_store_postgres::Config,
}

impl Config {
    /// Checks what the types cannot, each part its own.
    fn check(&self) -> Result<(), ConfigError> {
        self.server.check(self.database.url.is_none()).map_err(ConfigError)?;
        self.api.check().map_err(ConfigError)?;
        self.delivery.check().map_err(|problem| ConfigError(format!("delivery.{problem}")))
    }
}

/// Why the configuration cannot be used: names the setting and the way out. Never contains a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}
