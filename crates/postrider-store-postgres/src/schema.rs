//! Opening a database: what the server must promise, migrations, the keyring's check, partitions for the weeks ahead.

mod indexes;
mod migrations;
mod partitions;

pub(crate) use indexes::{INDEXES, build as build_indexes};
pub(crate) use partitions::{
    LOCK_MILLISECONDS, Old, PAUSE, TRIES, first_of, make_partitions, old_partitions,
};

use crate::{OpenError, config::Config, connection::Connection, values::at};
use postrider_model::time::Timestamp;
use postrider_vault::keyring::Keyring;
use std::collections::BTreeMap;

/// All migrations in order; the schema's version is how many have run.
const MIGRATIONS: [(&str, &str); 7] = [
    ("0001_initial", include_str!("../migrations/0001_initial.sql")),
    ("0002_publish", include_str!("../migrations/0002_publish.sql")),
    ("0003_hold", include_str!("../migrations/0003_hold.sql")),
    ("0004_nodes", include_str!("../migrations/0004_nodes.sql")),
    ("0005_row_level_security", include_str!("../migrations/0005_row_level_security.sql")),
    ("0006_event_ids_and_wall", include_str!("../migrations/0006_event_ids_and_wall.sql")),
    ("0007_payloads_by_expiry", include_str!("../migrations/0007_payloads_by_expiry.sql")),
];
/// Steps that take something away, with the oldest schema version whose releases do without it. All others only add, so
/// that releases that do not know them go on.
///
/// 5: a release that does not say which environments it is about sees nothing any more.
const CONTRACTS: &[(i64, i64)] = &[(5, 5)];
/// The oldest server that is supported.
const OLDEST: i32 = 140_000;

/// Classes of advisory locks: those of a transaction, which end with it. Taken in this order, so that nobody waits in a
/// circle.
pub(crate) mod lock {
    /// Migrations and partitions.
    pub(crate) const SCHEMA: i32 = 7300;
    /// The configuration below an application: shared by those who accept, alone for who changes.
    pub(crate) const CONFIG: i32 = 7301;
    /// An idempotency key of a request that changes configuration.
    pub(crate) const IDEMPOTENCY: i32 = 7304;
    /// A node's right to write results: shared by its results, alone for who ends the node.
    pub(crate) const NODE: i32 = 7302;
    /// A duty that one node does for all: one at a time.
    pub(crate) const DUTY: i32 = 7303;
    /// An event id while a transaction that published it commits; requests only try. Also in
    /// `migrations/0006_event_ids_and_wall.sql`.
    pub(crate) const EVENT_ID: i32 = 7305;
}

/// Checks the server, brings the schema up to date and checks the keyring against it.
pub(crate) async fn open(
    connection: &Connection,
    config: &Config,
    keyring: &Keyring,
    now: Timestamp,
) -> Result<(), OpenError> {
    check_server(connection, config).await?;
    migrations::run(connection).await?;
    check_keyring(connection, keyring, now).await?;
    make_partitions(connection, now).await?;
    Ok(())
}

/// The schema version that this release knows.
pub(crate) fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

async fn setting(connection: &Connection, name: &str) -> Result<String, OpenError> {
    let row = connection.first_row("SELECT current_setting($1)", &[&name]).await?;
    Ok(row.map(|row| at(&row, 0)).transpose()?.unwrap_or_default())
}

async fn check_server(connection: &Connection, config: &Config) -> Result<(), OpenError> {
    let refused = |text: String| Err(OpenError::Refused(text));
    let version = setting(connection, "server_version_num").await?;
    if version.parse::<i32>().unwrap_or(0) < OLDEST {
        let shown = setting(connection, "server_version").await?;
        return refused(format!(
            "the server is PostgreSQL {shown}; version {} or later is needed",
            OLDEST / 10_000
        ));
    }
    let encoding = setting(connection, "server_encoding").await?;
    if encoding != "UTF8" {
        return refused(format!(
            "the database has the encoding {encoding}; create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        ));
    }
    let standby = connection.first_row("SELECT pg_is_in_recovery()", &[]).await?;
    if standby.map(|row| at::<bool>(&row, 0)).transpose()?.unwrap_or(false) {
        return refused("the server is a standby, which cannot be written to; name the primary".to_owned());
    }
    let mut unsafe_settings = Vec::new();
    for name in ["fsync", "full_page_writes", "synchronous_commit"] {
        let value = setting(connection, name).await?;
        if value == "off" {
            unsafe_settings.push(format!("{name} = off"));
        }
    }
    if unsafe_settings.is_empty() {
        return Ok(());
    }
    let settings = unsafe_settings.join(", ");
    if config.dangerous_accept_data_loss {
        tracing::warn!(settings, "the database may forget what it has committed");
        return Ok(());
    }
    refused(format!(
        "the server may forget what it has committed: {settings}; turn these on, or set \
         `database.dangerous_accept_data_loss = true` to lose accepted messages in a crash"
    ))
}

/// Every key that the database was sealed with must be in the keyring and be the same key.
async fn check_keyring(connection: &Connection, keyring: &Keyring, now: Timestamp) -> Result<(), OpenError> {
    let present: BTreeMap<String, [u8; 8]> = keyring.check_values().into_iter().collect();
    let (mut missing, mut different) = (Vec::new(), Vec::new());
    // Revoked API keys need no key any more.
    let rows = connection
        .query(
            "SELECT DISTINCT needed.kek, keyring_meta.check_value
             FROM (SELECT kek FROM data_key UNION SELECT kek FROM api_key WHERE revoked_at IS NULL) AS needed
             LEFT JOIN keyring_meta ON keyring_meta.kek = needed.kek",
            &[],
        )
        .await?;
    for row in rows {
        let kek: String = at(&row, 0)?;
        let remembered: Option<Vec<u8>> = at(&row, 1)?;
        match (present.get(&kek), remembered) {
            (None, _) => missing.push(kek),
            (Some(value), Some(remembered)) if remembered != value => different.push(kek),
            _ => {}
        }
    }
    if !missing.is_empty() || !different.is_empty() {
        return Err(OpenError::Keyring { missing, different });
    }
    for (kek, check_value) in &present {
        connection
            .execute(
                "INSERT INTO keyring_meta (kek, check_value, first_seen, last_seen) VALUES ($1, $2, $3, $3)
                 ON CONFLICT (kek) DO UPDATE
                    SET check_value = excluded.check_value, last_seen = excluded.last_seen",
                &[kek, &&check_value[..], &now.as_micros()],
            )
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps() {
        for (number, (name, _)) in (1..).zip(MIGRATIONS) {
            assert!(name.starts_with(&format!("{number:04}_")), "{name}");
        }
    }
}
