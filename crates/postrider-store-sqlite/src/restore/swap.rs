//! Putting a restored database in the place of the one that was there. A database is several files, which cannot be renamed at
//! once, and without its log it lacks what was committed last: so what is going to be done is written down first, and whoever
//! takes the data directory after a kill finishes it before anything is opened.

use super::of_io;
use crate::{
    OpenError,
    backup::{beside, sync_folder},
    data_dir, in_flight,
};
use postrider_model::time::Timestamp;
use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// What a database consists of, itself last.
const PARTS: [&str; 4] = ["-journal", "-wal", "-shm", ""];

/// Where the restored database waits.
pub(super) fn new_of(database: &Path) -> PathBuf {
    beside(database, ".restoring")
}

/// Says that the files are being exchanged, and which name the old ones get.
fn marker_of(database: &Path) -> PathBuf {
    beside(database, ".replacing")
}

/// Puts the restored database in place. Returns where the old one lies, if there was one.
pub(super) fn swap(data_dir: &Path, now: Timestamp) -> Result<Option<PathBuf>, OpenError> {
    let database = data_dir::database(data_dir);
    let aside = beside(&database, &format!(".before-restore-{}", now.as_micros()));
    announce(&database, &aside)?;
    carry_out(data_dir, &aside, &mut || true)?;
    Ok(aside.exists().then_some(aside))
}

/// Finishes an exchange that was cut off. Whoever calls has locked the data directory.
pub(crate) fn finish(data_dir: &Path) -> Result<(), OpenError> {
    let database = data_dir::database(data_dir);
    let marker = marker_of(&database);
    let text = match fs::read_to_string(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(of_io("read", &marker))?,
    };
    let name = text.strip_suffix('\n').filter(|name| {
        database.file_name().and_then(|own| own.to_str()).is_some_and(|own| name.starts_with(own))
            && !name.contains('/')
    });
    let Some(name) = name else {
        // Cut off while it was written: then nothing has been moved.
        return fs::remove_file(&marker).map_err(of_io("remove", &marker));
    };
    let aside = database.with_file_name(name);
    tracing::warn!(before = %aside.display(), "a restore was cut off while it put the database in place; it is finished now");
    carry_out(data_dir, &aside, &mut || true)
}

fn announce(database: &Path, aside: &Path) -> Result<(), OpenError> {
    let marker = marker_of(database);
    let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let write = || {
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(data_dir::PRIVATE).open(&marker)?;
        file.write_all(format!("{name}\n").as_bytes())?;
        file.sync_all()
    };
    write().map_err(of_io("write", &marker))?;
    synced(database)
}

fn synced(database: &Path) -> Result<(), OpenError> {
    sync_folder(database).map_err(|error| OpenError::Refused(error.0))
}

/// Each step once, however often this is begun. `goes_on` is asked before each step; a test ends it there.
fn carry_out(data_dir: &Path, aside: &Path, goes_on: &mut dyn FnMut() -> bool) -> Result<(), OpenError> {
    let database = data_dir::database(data_dir);
    let new = new_of(&database);
    // Once the new one has the name, what bears it is not the old one any more.
    if new.exists() {
        for part in PARTS {
            let old = beside(&database, part);
            if !goes_on() {
                return Ok(());
            }
            if old.exists() {
                fs::rename(&old, beside(aside, part))
                    .map_err(of_io("move the database aside, from", &old))?;
            }
        }
        // It tells of attempts that another database knows.
        let notes = in_flight::InFlight::path(data_dir);
        match fs::remove_file(&notes) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(of_io("remove", &notes)(error));
            }
            _ => synced(&database)?,
        }
        if !goes_on() {
            return Ok(());
        }
        fs::rename(&new, &database).map_err(of_io("put the restored database in place", &database))?;
    }
    synced(&database)?;
    if !goes_on() {
        return Ok(());
    }
    let marker = marker_of(&database);
    fs::remove_file(&marker).map_err(of_io("remove", &marker))?;
    synced(&database)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    fn begin(data_dir: &Path) -> PathBuf {
        let database = data_dir::database(data_dir);
        for part in ["-wal", "-shm", ""] {
            fs::write(beside(&database, part), format!("old{part}")).unwrap();
        }
        fs::write(new_of(&database), "new").unwrap();
        fs::write(in_flight::InFlight::path(data_dir), "notes").unwrap();
        database
    }

    /// DUR-10: no moment of the exchange at which a kill leaves a database without its log, or none.
    #[test]
    fn an_exchange_that_was_cut_off_anywhere_is_finished_by_whoever_comes_next() {
        let now = Timestamp::from_micros(7);
        for steps in 0..=PARTS.len() + 2 {
            let folder = tempfile::tempdir().unwrap();
            let database = begin(folder.path());
            let aside = beside(&database, ".before-restore-7");
            announce(&database, &aside).unwrap();
            let mut left = steps;
            carry_out(folder.path(), &aside, &mut || {
                left = left.wrapping_sub(1);
                left != usize::MAX
            })
            .unwrap();
            drop(data_dir::take(folder.path()).unwrap());
            assert_eq!(content(&database), "new", "after {steps} steps");
            for part in ["-wal", "-shm", ""] {
                assert_eq!(content(&beside(&aside, part)), format!("old{part}"), "after {steps} steps");
                assert!(part.is_empty() || !beside(&database, part).exists(), "after {steps} steps");
            }
            assert!(!marker_of(&database).exists() && !new_of(&database).exists());
            assert!(!in_flight::InFlight::path(folder.path()).exists());
            // Nothing is left to do, and what is written from now on stays.
            fs::write(&database, "newer").unwrap();
            finish(folder.path()).unwrap();
            assert_eq!(content(&database), "newer");
            assert_eq!(swap_again(folder.path(), now), "newer");
        }
    }

    /// Restores once more; returns what the database moved aside holds.
    fn swap_again(data_dir: &Path, now: Timestamp) -> String {
        fs::write(new_of(&data_dir::database(data_dir)), "third").unwrap();
        let aside = swap(data_dir, now.plus(std::time::Duration::from_secs(1))).unwrap().unwrap();
        assert_eq!(content(&data_dir::database(data_dir)), "third");
        content(&aside)
    }

    #[test]
    fn a_note_that_was_cut_off_itself_moves_nothing() {
        for torn in ["", "postrider.db.befo", "../elsewhere\n", "other\n"] {
            let folder = tempfile::tempdir().unwrap();
            let database = begin(folder.path());
            fs::write(marker_of(&database), torn).unwrap();
            finish(folder.path()).unwrap();
            assert_eq!(
                (content(&database), content(&beside(&database, "-wal"))),
                ("old".into(), "old-wal".into())
            );
            assert!(!marker_of(&database).exists());
        }
    }
}
