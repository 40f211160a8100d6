//! Restoring: a backup becomes the database of a data directory, with all that pends on hold.
//!
//! The copy is checked and put on hold under another name; only then does it get the database's. Nothing is ever
//! deleted: a database that was there is moved aside. A kill at any moment leaves the one database or the other (`swap`).

mod swap;

pub(crate) use swap::finish;

use crate::{
    Config, OpenError,
    backup::{PARTIAL, beside, read_manifest},
    data_dir, hold, schema,
    secrets::EnvironmentKeys,
};
use postrider_model::environment::EnvironmentId;
use postrider_store::{Clock, backup::Manifest};
use postrider_vault::keyring::Keyring;
use rusqlite::{Connection, OpenFlags};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// What it was a backup of, and when.
    pub backup: Manifest,
    /// The database now.
    pub database: PathBuf,
    /// Deliveries that are on hold.
    pub held: usize,
    /// Where the database lies that was there before.
    pub moved_aside: Option<PathBuf>,
}

/// Makes the backup at `from` the database of `config.data_dir`, which no server may be using. A database that is there
/// is moved aside when `replace` says so.
///
/// # Errors
///
/// When the backup is damaged, was made by a later release, or was sealed with keys that the keyring does not have; the
/// text says what to do. Then nothing has changed.
pub fn restore(
    config: &Config,
    keyring: &Keyring,
    from: &Path,
    replace: bool,
) -> Result<Restored, OpenError> {
    let _lock = data_dir::take(&config.data_dir)?;
    let database = data_dir::database(&config.data_dir);
    if database.exists() && !replace {
        return Err(OpenError::Refused(format!(
            "there is a database at {}; to put the backup in its place, and the database aside, say --replace",
            database.display()
        )));
    }
    if from.to_string_lossy().ends_with(PARTIAL) {
        return Err(OpenError::Refused(format!(
            "{} is a backup that is being written, or was cut off: take one that is complete",
            from.display()
        )));
    }
    let new = swap::new_of(&database);
    discard(&new);
    let prepared = copy(from, &new).and_then(|()| prepare(config, keyring, from, &new));
    let (backup, held) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            discard(&new);
            return Err(error);
        }
    };
    let moved_aside = swap::swap(&config.data_dir, Clock::default().now())?;
    Ok(Restored { backup, database, held, moved_aside })
}

fn of_io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}

/// What an earlier try left.
fn discard(path: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(beside(path, suffix));
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), OpenError> {
    let mut source = File::open(from).map_err(of_io("open the backup", from))?;
    if source.metadata().is_ok_and(|found| found.is_dir()) {
        return Err(OpenError::Refused(format!(
            "{} is a directory: name the backup's file in it",
            from.display()
        )));
    }
    let made = File::options().write(true).create_new(true).mode(data_dir::PRIVATE).open(to);
    let mut target = made.map_err(of_io("create the restored database", to))?;
    io::copy(&mut source, &mut target).map_err(of_io("copy the backup", to))?;
    target.sync_all().map_err(of_io("sync the restored database", to))
}

/// Checks the copy, brings its schema up to date, and puts what pends on hold.
fn prepare(
    config: &Config,
    keyring: &Keyring,
    from: &Path,
    new: &Path,
) -> Result<(Manifest, usize), OpenError> {
    check(new).map_err(|error| error.of_file(from))?;
    let now = Clock::default().now();
    let mut connection =
        schema::open_writer(new, config, keyring, now).map_err(|error| error.of_file(from))?;
    open_keys(&connection, keyring)?;
    let backup = read_manifest(&connection)?;
    let reason = match backup.taken_at.as_micros() {
        0 => "restored from a copy of the database".to_owned(),
        _ => format!("restored from the backup of {}", backup.taken_at.to_rfc3339()),
    };
    let transaction = connection.transaction()?;
    let held = hold::put_all(&transaction, &reason, now)?;
    transaction.execute("UPDATE instance SET backed_up_at = NULL", [])?;
    transaction.commit()?;
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        return Err(OpenError::Refused("the restored database is in use by somebody else".to_owned()));
    }
    connection.close().map_err(|(_, error)| error)?;
    File::open(new).and_then(|file| file.sync_all()).map_err(of_io("sync the restored database", new))?;
    Ok((backup, held))
}

/// Is it a database of ours, whole, and of a release that this one knows?
fn check(path: &Path) -> Result<(), OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let ours: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('environment', 'delivery', 'data_key')",
        [],
        |row| row.get(0),
    )?;
    if found < 1 || ours != 3 {
        return Err(OpenError::Refused("this SQLite database is none of Postrider's".to_owned()));
    }
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(OpenError::Refused(format!("the backup is damaged: {verdict}; take an earlier one")))
}

/// Opens the keys of all environments: a keyring with the right check values but other keys would be found out only when
/// something is to be sent.
fn open_keys(connection: &Connection, keyring: &Keyring) -> Result<(), OpenError> {
    let mut statement = connection.prepare("SELECT id FROM environment")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for name in names {
        if let Some(environment) = EnvironmentId::parse(&name) {
            EnvironmentKeys::load(connection, keyring, &environment)
                .map_err(|failure| OpenError::Store(failure.into()))?;
        }
    }
    Ok(())
}
