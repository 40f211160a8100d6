//! `keyring create` and `keyring check`.

use super::{print, read};
use crate::{cli::KeyringCommand, failure::Failure};
use postrider_vault::keyring::{Keyring, KeyringError};
use std::fmt::Write as _;

pub(super) fn run(command: KeyringCommand) -> Result<(), Failure> {
    let config = |error: KeyringError| Failure::config(error.0);
    match command {
        KeyringCommand::Create { file } => {
            let keyring = Keyring::create(&file).map_err(config)?;
            print(&format!(
                "Created {} with the key {}.\n\
                 A backup of the database is useless without this file, and keeping both in one place defeats it: keep a \
                 copy of it elsewhere.\n",
                file.display(),
                keyring.primary()
            ))
        }
        KeyringCommand::Check { settings, file } => {
            let file = file.map_or_else(
                || read(&settings, Vec::new()).map(|loaded| loaded.config.server.keyring),
                |file| Ok(Some(file)),
            )?;
            let file = file.ok_or_else(|| {
                Failure::config("no keyring is configured: name a file, or set `server.keyring`")
            })?;
            let keyring = Keyring::load(&file).map_err(config)?;
            let mut text = format!("{} can be used.\n", file.display());
            for (name, check) in keyring.check_values() {
                let check = u64::from_be_bytes(check);
                let primary = if name == keyring.primary() { ", primary" } else { "" };
                // Writing to a String does not fail.
                let _ = writeln!(text, "  key {name}, check value {check:016x}{primary}");
            }
            print(&text)
        }
    }
}
