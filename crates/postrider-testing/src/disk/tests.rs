//! The disk's own tests: with a plain database on it, honest and lying.

use super::*;
use rusqlite::{Connection, OpenFlags};

const ROWS: i64 = 20;

fn open(folder: &Path) -> Connection {
    let path = folder.canonicalize().unwrap().join("plain.db");
    let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), Disk::vfs()).unwrap();
    let _: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS row (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        .unwrap();
    connection
}

/// Inserts rows until the power goes; returns how many inserts were answered.
fn insert(connection: &Connection) -> i64 {
    (1..=ROWS)
        .take_while(|id| {
            connection.execute("INSERT INTO row VALUES (?1, randomblob(3000))", [id]).is_ok()
                && (id % 7 != 0
                    || connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).is_ok())
        })
        .count()
        .try_into()
        .unwrap()
}

/// Cuts that lost something that was answered, or left a damaged file.
fn losses(lies: bool) -> usize {
    (0..60)
        .filter(|seed| {
            let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let disk = Disk::new(before.path(), *seed);
            let connection = open(before.path());
            if lies {
                disk.ignore_syncs();
            }
            disk.cut_after(seed * 5 % 200);
            let answered = insert(&connection);
            let _after = disk.after_cut(after.path(), *seed);
            let path = after.path().join("plain.db");
            let Ok(connection) = Connection::open(path) else { return true };
            let check = connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
            let rows = connection.query_row("SELECT COUNT(*) FROM row", [], |row| row.get::<_, i64>(0));
            check.as_deref() != Ok("ok") || rows.is_ok_and(|rows| rows < answered)
        })
        .count()
}

#[test]
fn what_was_answered_survives_on_an_honest_disk_and_not_on_a_lying_one() {
    assert_eq!(losses(false), 0);
    assert!(losses(true) > 10);
}

#[test]
fn operations_fail_when_they_are_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), 1);
    let connection = open(folder.path());
    let insert = || connection.execute("INSERT INTO row (body) VALUES (randomblob(100))", []);
    insert().unwrap();
    disk.fail_after(Operation::Sync, 1, Trouble::Io);
    insert().unwrap();
    let code = insert().unwrap_err().sqlite_error().unwrap().extended_code;
    assert_eq!((code, disk.failures()), (rusqlite::ffi::SQLITE_IOERR_FSYNC, 1));
    disk.fail_after(Operation::Write, 0, Trouble::Full);
    for _ in 0..3 {
        assert_eq!(insert().unwrap_err().sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
    }
    disk.heal();
    insert().unwrap();
    disk.cut();
    assert!(insert().is_err());
}
