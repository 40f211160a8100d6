//! Opening a database: what the server must promise, migrations, the keyring's check, partitions for the weeks ahead.

use crate::{
    OpenError,
    config::Config,
    connection::Connection,
    failure::Failure,
    values::{at, count},
};
use postrider_model::time::Timestamp;
use postrider_vault::keyring::Keyring;
use std::{collections::BTreeMap, time::Duration};

/// All migrations in order; the schema's version is how many have run.
const MIGRATIONS: [(&str, &str); 3] = [
    ("0001_initial", include_str!("../migrations/0001_initial.sql")),
    ("0002_publish", include_str!("../migrations/0002_publish.sql")),
    ("0003_hold", include_str!("../migrations/0003_hold.sql")),
];
/// The oldest server that is supported.
const OLDEST: i32 = 140_000;
/// How long a node waits while another one migrates.
const MIGRATION_WAIT: Duration = Duration::from_mins(10);
/// Tables that are partitioned by the time that ids begin with.
const PARTITIONED: [&str; 3] = ["message", "delivery", "attempt"];
const WEEK: i64 = 7 * 24 * 3600;
/// Weeks that have their partitions in advance.
const WEEKS_AHEAD: i64 = 3;

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
    /// Retention: one node at a time.
    pub(crate) const RETENTION: i32 = 7303;
}

/// Checks the server, brings the schema up to date and checks the keyring against it.
pub(crate) async fn open(
    connection: &Connection,
    config: &Config,
    keyring: &Keyring,
    now: Timestamp,
) -> Result<(), OpenError> {
    check_server(connection, config).await?;
    // Several nodes may start at once: one migrates, the others wait and find it done. A kill in between undoes all.
    connection.run("BEGIN").await?;
    let wait = MIGRATION_WAIT.as_millis();
    connection
        .run(&format!(
            "SET LOCAL statement_timeout = {wait}; SELECT pg_advisory_xact_lock({}, 0)",
            lock::SCHEMA
        ))
        .await?;
    migrate(connection).await?;
    check_keyring(connection, keyring, now).await?;
    make_partitions(connection, now).await?;
    connection.run("COMMIT").await?;
    Ok(())
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

/// Runs what is missing, in the transaction that holds the lock.
async fn migrate(connection: &Connection) -> Result<(), OpenError> {
    // Without the privilege to create schemas it is enough that somebody else made this one.
    let there = connection.first_row("SELECT 1 FROM pg_namespace WHERE nspname = 'postrider'", &[]).await?;
    if there.is_none() {
        connection.run("CREATE SCHEMA postrider").await?;
    }
    connection.run("CREATE TABLE IF NOT EXISTS postrider.schema_version (version bigint NOT NULL)").await?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let row = connection.first_row("SELECT max(version) FROM postrider.schema_version", &[]).await?;
    let found = row.map(|row| at::<Option<i64>>(&row, 0)).transpose()?.flatten().unwrap_or(0);
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    for (number, (name, text)) in (1_i64..).zip(MIGRATIONS) {
        if number <= found {
            continue;
        }
        connection.run(text).await?;
        connection.execute("INSERT INTO postrider.schema_version (version) VALUES ($1)", &[&number]).await?;
        tracing::info!(migration = name, "the database schema was brought up to date");
    }
    Ok(())
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

/// The week of an instant, counted as ids count: since the epoch of KSUIDs.
fn week(at: Timestamp) -> i64 {
    let first = postrider_model::id::Ksuid::floor(at);
    let [a, b, c, d, ..] = *first.as_bytes();
    i64::from(u32::from_be_bytes([a, b, c, d])) / WEEK
}

/// What ids of a week begin with, as a literal.
fn bound(week: i64) -> String {
    let seconds = u32::try_from(week * WEEK).unwrap_or(u32::MAX);
    format!("'\\x{seconds:08x}'")
}

/// Makes the partitions of this week and the next ones, in the transaction that holds the lock. Rows that came before
/// their partition lie in the default one, where retention finds them too.
pub(crate) async fn make_partitions(connection: &Connection, now: Timestamp) -> Result<(), Failure> {
    let first = week(now);
    for week in first..first + WEEKS_AHEAD {
        for table in PARTITIONED {
            let name = format!("{table}_w{week}");
            let there = connection
                .first_row("SELECT 1 WHERE to_regclass('postrider.' || $1) IS NOT NULL", &[&name.as_str()])
                .await?;
            if there.is_some() {
                continue;
            }
            let (from, to) = (bound(week), bound(week + 1));
            // What lies in the default partition keeps the place: then its rows stay there.
            let make = format!(
                "SAVEPOINT partition; CREATE TABLE postrider.{name} PARTITION OF postrider.{table}
                 FOR VALUES FROM ({from}) TO ({to}); RELEASE SAVEPOINT partition"
            );
            if let Err(failure) = connection.run(&make).await {
                connection.run("ROLLBACK TO SAVEPOINT partition").await?;
                let error = postrider_store::StoreError::from(failure);
                tracing::debug!(%error, name, "a partition could not be made");
            }
        }
    }
    Ok(())
}

/// Partitions that hold only ids before `cut`, oldest first: table and name.
pub(crate) async fn old_partitions(
    connection: &Connection,
    cut: Timestamp,
) -> Result<Vec<(String, String)>, Failure> {
    let rows = connection
        .query(
            "SELECT parent.relname::text, child.relname::text
             FROM pg_inherits
             JOIN pg_class AS parent ON parent.oid = inhparent
             JOIN pg_class AS child ON child.oid = inhrelid
             WHERE parent.relnamespace = 'postrider'::regnamespace AND child.relkind = 'r'
               AND child.relname ~ '_w[0-9]+$'
             ORDER BY child.relname",
            &[],
        )
        .await?;
    let cut = count(week(cut));
    let mut old = Vec::new();
    for row in rows {
        let (table, name): (String, String) = (at(&row, 0)?, at(&row, 1)?);
        let week = name.rsplit_once("_w").and_then(|(_, week)| week.parse::<u64>().ok());
        if week.is_some_and(|week| week < cut) {
            old.push((table, name));
        }
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::id::Ksuid;

    #[test]
    fn a_partition_holds_the_ids_of_its_week() {
        let at = Timestamp::from_micros(1_795_000_000_123_456);
        let id = Ksuid::floor(at);
        let hex = crate::values::hex(id.as_bytes());
        let week = week(at);
        let inner = |text: String| text.trim_matches('\'').trim_start_matches("\\x").to_owned();
        assert!(inner(bound(week)) <= hex && hex < inner(bound(week + 1)), "{hex} in week {week}");
    }

    #[test]
    fn migrations_are_numbered_without_gaps() {
        for (number, (name, _)) in (1..).zip(MIGRATIONS) {
            assert!(name.starts_with(&format!("{number:04}_")), "{name}");
        }
    }
}
