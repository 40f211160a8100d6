//! The log: text for people on a terminal, JSON for everything else, on standard error.

use crate::{config::Log, config::log::Format, failure::Failure};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Installs the log of the process. Called once, by commands that run a server.
pub fn install(settings: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .parse(&settings.level)
        .map_err(|error| Failure::config(format!("`log.level` cannot be read: {error}")))?;
    let terminal = std::io::stderr().is_terminal();
    let json = match settings.format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = if json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_ansi(terminal).with_target(false).try_init()
    };
    installed.map_err(|error| Failure::other(format!("cannot install the log: {error}")))
}
