//! Backups: a consistent copy of the database while it is in use.
//!
//! A connection of its own stays at the state of one moment and copies it page by page, not faster than it may: neither
//! the writer nor those who read wait for it. Meanwhile the write-ahead log cannot start anew and grows by what is
//! written.

use crate::{SqliteStore, data_dir, schema};
use async_trait::async_trait;
use postrider_model::time::Timestamp;
use postrider_store::backup::{BackupError, BackupProgress, Backups, Manifest};
use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
    params,
};
use rustix::fs::{CWD, FlockOperation, RenameFlags};
use serde_json::json;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Pages copied between two looks at the pace: half a mebibyte.
const PAGES: i32 = 64;
/// How long the copy waits when the database is busy.
const BUSY: Duration = Duration::from_millis(20);
/// Bytes a second that a backup keeps to at least.
const SLOWEST: u64 = 64 * 1024;

#[async_trait]
impl Backups for SqliteStore {
    async fn back_up(
        &self,
        to: &Path,
        pace: u64,
        progress: Arc<BackupProgress>,
    ) -> Result<Manifest, BackupError> {
        let shared = Arc::clone(&self.shared);
        let to = to.to_owned();
        let copying = tokio::task::spawn_blocking(move || {
            let source = data_dir::database(&shared.config.data_dir);
            let source = schema::open_reader(&source, &shared.config).map_err(of_sql)?;
            write(&source, &to, pace.max(SLOWEST), shared.clock.now(), &progress, || shared.is_closed())
        });
        copying
            .await
            .unwrap_or_else(|error| Err(BackupError(format!("the backup ended abnormally: {error}"))))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn of_sql(error: rusqlite::Error) -> BackupError {
    BackupError(format!("the backup failed: {error}"))
}

fn of_io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.display().to_string();
    move |error| BackupError(format!("cannot {what} {path}: {error}"))
}

/// Behind the name of a backup that is not complete.
pub(crate) const PARTIAL: &str = ".partial";

/// A path with something behind its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes the copy under another name, makes it durable, and gives it its name: what bears it is complete.
fn write(
    source: &Connection,
    to: &Path,
    pace: u64,
    now: Timestamp,
    progress: &BackupProgress,
    ends: impl Fn() -> bool,
) -> Result<Manifest, BackupError> {
    if to.exists() {
        return Err(BackupError(format!("{} exists already: a backup replaces nothing", to.display())));
    }
    let (partial, description) = (beside(to, PARTIAL), beside(to, ".json"));
    let _writing = claim(&partial)?;
    let written = fill(source, &partial, pace, now, progress, ends).and_then(|manifest| {
        describe(&manifest, &description)?;
        rustix::fs::renameat_with(CWD, &partial, CWD, to, RenameFlags::NOREPLACE)
            .map_err(|error| of_io("name the backup", to)(error.into()))?;
        sync_folder(to)?;
        Ok(manifest)
    });
    if written.is_err() {
        let _ = fs::remove_file(&partial);
        let _ = fs::remove_file(&description);
    }
    written
}

/// An empty file that is locked by this backup until the file is dropped. What a backup left that was cut off is
/// written anew: nobody holds its lock.
fn claim(partial: &Path) -> Result<File, BackupError> {
    let busy = || BackupError(format!("{}: another backup is being written there", partial.display()));
    let open = File::options().write(true).create(true).truncate(false).mode(data_dir::PRIVATE).open(partial);
    let file = open.map_err(of_io("create", partial))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(busy()),
        Err(error) => return Err(of_io("lock", partial)(error.into())),
    }
    // Whoever held it may have given it the name of a backup meanwhile.
    let (held, named) = (file.metadata(), fs::metadata(partial));
    let same =
        |one: &fs::Metadata, other: &fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    if !held.is_ok_and(|held| named.is_ok_and(|named| same(&held, &named))) {
        return Err(busy());
    }
    for left in ["-journal", "-wal", "-shm"] {
        let _ = fs::remove_file(beside(partial, left));
    }
    file.set_len(0).map_err(of_io("empty", partial))?;
    Ok(file)
}

fn fill(
    source: &Connection,
    partial: &Path,
    pace: u64,
    now: Timestamp,
    progress: &BackupProgress,
    ends: impl Fn() -> bool,
) -> Result<Manifest, BackupError> {
    let mut target = Connection::open(partial).map_err(of_sql)?;
    // With this transaction open every step sees the same state; without it, each commit would begin the copy anew.
    let moment = source.unchecked_transaction().map_err(of_sql)?;
    let page: u64 =
        moment.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0)).map_err(of_sql)?.unsigned_abs();
    moment.query_row("SELECT count(*) FROM instance", [], |_| Ok(())).map_err(of_sql)?;
    copy(&moment, &mut target, (pace, page), progress, ends)?;
    drop(moment);
    // One file: the copy says of itself that it has a log beside it.
    let mode = target.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0));
    mode.map_err(of_sql)?;
    target.execute("UPDATE instance SET backed_up_at = ?1", params![now.as_micros()]).map_err(of_sql)?;
    let mut manifest = read_manifest(&target).map_err(of_sql)?;
    target.close().map_err(|(_, error)| of_sql(error))?;
    let file = File::open(partial).map_err(of_io("open", partial))?;
    file.sync_all().map_err(of_io("sync", partial))?;
    manifest.bytes = file.metadata().map_err(of_io("look at", partial))?.len();
    Ok(manifest)
}

fn copy(
    source: &Connection,
    target: &mut Connection,
    (pace, page): (u64, u64),
    progress: &BackupProgress,
    ends: impl Fn() -> bool,
) -> Result<(), BackupError> {
    let backup = Backup::new(source, target).map_err(of_sql)?;
    let begun = Instant::now();
    loop {
        if ends() {
            return Err(BackupError("the server stops; the backup was given up".to_owned()));
        }
        let step = backup.step(PAGES).map_err(of_sql)?;
        let at = backup.progress();
        let pages = |number: i32| u64::try_from(number).unwrap_or(0);
        let done = pages(at.pagecount - at.remaining) * page;
        progress.set(done, pages(at.pagecount) * page);
        match step {
            StepResult::Done => return Ok(()),
            StepResult::Busy | StepResult::Locked => std::thread::sleep(BUSY),
            _ => {
                let due = Duration::from_micros(done.saturating_mul(1_000_000) / pace);
                std::thread::sleep(due.saturating_sub(begun.elapsed()).min(Duration::from_secs(1)));
            }
        }
    }
}

/// What a copy is of; its size is not known here.
pub(crate) fn read_manifest(connection: &Connection) -> Result<Manifest, rusqlite::Error> {
    let schema_version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let (instance, taken_at): (String, Option<i64>) =
        connection
            .query_row("SELECT id, backed_up_at FROM instance", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut needed = connection.prepare(
        "SELECT kek FROM data_key UNION SELECT kek FROM api_key WHERE revoked_at IS NULL ORDER BY kek",
    )?;
    let keys = needed.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let taken_at = Timestamp::from_micros(taken_at.unwrap_or(0));
    Ok(Manifest { schema_version, instance, taken_at, bytes: 0, keys })
}

/// The manifest for people and programs; whoever restores needs the copy alone.
fn describe(manifest: &Manifest, path: &Path) -> Result<(), BackupError> {
    let text = json!({
        "instance": manifest.instance,
        "takenAt": manifest.taken_at.to_rfc3339(),
        "schemaVersion": manifest.schema_version,
        "bytes": manifest.bytes,
        "keyringKeys": manifest.keys,
        "note": "The keyring is not in this backup, and the backup cannot be used without it. Keep it elsewhere.",
    });
    let write = || {
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(data_dir::PRIVATE).open(path)?;
        file.write_all(format!("{text:#}\n").as_bytes())?;
        file.sync_all()
    };
    write().map_err(of_io("write", path))
}

/// Names survive a power loss once their folder is synced.
pub(crate) fn sync_folder(of: &Path) -> Result<(), BackupError> {
    let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(parent).and_then(|folder| folder.sync_all());
    synced.map_err(of_io("sync the folder", parent))
}
