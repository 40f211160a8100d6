//! Opening the database file: connections with their settings, the SQLite version, migrations, the keyring's check.

use crate::{OpenError, config::Config, data_dir};
use postrider_model::time::Timestamp;
use postrider_vault::keyring::Keyring;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig, params};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// All migrations in order; the schema's version is how many have run.
pub(crate) const MIGRATIONS: [(&str, &str); 7] = [
    ("0001_initial", include_str!("../migrations/0001_initial.sql")),
    ("0002_publish", include_str!("../migrations/0002_publish.sql")),
    ("0003_hold", include_str!("../migrations/0003_hold.sql")),
    ("0004_nodes", include_str!("../migrations/0004_nodes.sql")),
    ("0005_row_level_security", include_str!("../migrations/0005_row_level_security.sql")),
    ("0006_event_ids_and_wall", include_str!("../migrations/0006_event_ids_and_wall.sql")),
    ("0007_payloads_by_expiry", include_str!("../migrations/0007_payloads_by_expiry.sql")),
];
/// How long one connection waits for another; only checkpoints ever make it wait.
pub(crate) const BUSY: Duration = Duration::from_secs(10);
/// How long a checkpoint that starts the log anew waits for readers: it keeps the writer waiting meanwhile.
pub(crate) const BUSY_CHECKPOINT: Duration = Duration::from_millis(50);
/// Statements kept prepared per connection: more than there are in this crate.
const STATEMENTS: usize = 256;
/// What the log file is cut to when it is started anew: more than it usually grows to, so that its blocks are used again.
const LOG_BYTES: i64 = 96 * 1024 * 1024;

/// Bytes of a page of a new database; what counts in pages elsewhere means these. Seven messages of a kibibyte fit into
/// one, three into SQLite's usual page of 4096. Measured against that, in pairs: 10 % less disk a message, the slowest
/// hundredth of accepts a fifth sooner, 1 to 5 % more deliveries; a single message takes 0.1 ms longer, since more is
/// synced. Twice as much again costs throughput.
const PAGE_BYTES: u32 = 8192;

/// Opens the connection that writes, brings the schema up to date and checks the keyring against it.
pub(crate) fn open_writer(
    path: &Path,
    config: &Config,
    keyring: &Keyring,
    now: Timestamp,
) -> Result<Connection, OpenError> {
    check_version(rusqlite::version_number())?;
    data_dir::create_database(path)?;
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, config)?;
    // Both before the first page is written, else only a full `VACUUM` could do it; nothing happens where the database
    // exists. The second lets what retention frees be given back to the disk in small steps.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(OpenError::Refused(format!(
            "the file system of {} does not support a write-ahead log; choose a local one",
            path.display()
        )));
    }
    // The log is synced after each commit all the same, by `log_sync`, beside the writer.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Checkpoints run beside the writer: in the commit path they cost milliseconds.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    migrate(&mut connection)?;
    if let Some(pages) = config.max_pages {
        connection.pragma_update(None, "max_page_count", pages)?;
    }
    check_keyring(&mut connection, keyring, now)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(crate) fn open_reader(path: &Path, config: &Config) -> Result<Connection, rusqlite::Error> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, config)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens a connection that only makes checkpoints.
pub(crate) fn open_checkpointer(path: &Path, config: &Config) -> Result<Connection, rusqlite::Error> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, config)?;
    connection.busy_timeout(BUSY_CHECKPOINT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags, config: &Config) -> Result<Connection, rusqlite::Error> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match config.disk {
        Some(disk) => Connection::open_with_flags_and_vfs(path, flags, disk.vfs)?,
        None => Connection::open_with_flags(path, flags)?,
    };
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // A plan must not depend on the values bound: a `LIMIT ?` would be planned anew at each execution, which cost a fifth
    // of the processor while a backlog was worked off.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// Releases that can corrupt a log when a checkpoint and a writer meet are refused, and the one that was withdrawn.
fn check_version(version: i32) -> Result<(), OpenError> {
    let good = match version {
        3_052_000 => false,
        3_044_006..3_045_000 | 3_050_007..3_051_000 => true,
        other => other >= 3_051_003,
    };
    if good {
        return Ok(());
    }
    Err(OpenError::Refused(format!(
        "SQLite {}.{}.{} has a known defect; build with 3.51.3 or later",
        version / 1_000_000,
        version / 1000 % 1000,
        version % 1000
    )))
}

/// Runs what is missing, each migration in a transaction with its version, so that a kill in between repeats it whole.
fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    for (number, (name, text)) in (1_i64..).zip(MIGRATIONS) {
        if number <= found {
            continue;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(text)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
        tracing::info!(migration = name, "the database schema was brought up to date");
    }
    Ok(())
}

/// Every key that the database was sealed with must be in the keyring and be the same key.
fn check_keyring(connection: &mut Connection, keyring: &Keyring, now: Timestamp) -> Result<(), OpenError> {
    let present: BTreeMap<String, [u8; 8]> = keyring.check_values().into_iter().collect();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut missing = Vec::new();
    let mut different = Vec::new();
    {
        // Revoked API keys need no key any more.
        let mut statement = transaction.prepare(
            "SELECT DISTINCT needed.kek, keyring_meta.check_value
             FROM (SELECT kek FROM data_key UNION SELECT kek FROM api_key WHERE revoked_at IS NULL) AS needed
             LEFT JOIN keyring_meta ON keyring_meta.kek = needed.kek",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let kek: String = row.get(0)?;
            let remembered: Option<Vec<u8>> = row.get(1)?;
            match (present.get(&kek), remembered) {
                (None, _) => missing.push(kek),
                (Some(value), Some(remembered)) if remembered != value => different.push(kek),
                _ => {}
            }
        }
    }
    if !missing.is_empty() || !different.is_empty() {
        return Err(OpenError::Keyring { missing, different });
    }
    for (kek, check_value) in &present {
        transaction.execute(
            "INSERT INTO keyring_meta (kek, check_value, first_seen, last_seen) VALUES (?1, ?2, ?3, ?3)
             ON CONFLICT (kek) DO UPDATE SET check_value = excluded.check_value, last_seen = excluded.last_seen",
            params![kek, check_value, now.as_micros()],
        )?;
    }
    transaction.commit()?;
    Ok(())
}

/// Full check of a small database, after a stop that was not clean; larger ones would take minutes.
pub(crate) fn check_small(connection: &Connection, most_pages: i64) -> Result<(), OpenError> {
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if pages > most_pages {
        tracing::info!(
            pages,
            "the database is too large to be checked at start; `PRAGMA quick_check` does it"
        );
        return Ok(());
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(OpenError::Refused(format!("the database is damaged: {verdict}; restore the last backup")))
}

/// Names of the migrations, for the comparison with other backends.
#[cfg(test)]
pub(crate) fn migration_names() -> Vec<&'static str> {
    MIGRATIONS.iter().map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bad_releases_of_sqlite_are_refused() {
        for (version, good) in [
            (3_040_000, false),
            (3_044_005, false),
            (3_044_006, true),
            (3_045_000, false),
            (3_050_006, false),
            (3_050_007, true),
            (3_051_002, false),
            (3_051_003, true),
            (3_052_000, false),
            (3_052_001, true),
            (3_054_001, true),
        ] {
            assert_eq!(check_version(version).is_ok(), good, "{version}");
        }
        assert!(check_version(rusqlite::version_number()).is_ok());
    }

    #[test]
    fn migrations_are_numbered_without_gaps() {
        for (number, name) in (1..).zip(migration_names()) {
            assert!(name.starts_with(&format!("{number:04}_")), "{name}");
        }
    }
}
