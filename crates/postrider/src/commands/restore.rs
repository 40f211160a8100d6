//! `restore`: a backup becomes the database of a data directory that no server uses.

use super::{print, reached::existing_keyring, read};
use crate::{cli::Restore, failure::Failure};
use postrider_store_sqlite::{Restored, restore};
use std::io::Write as _;

pub(super) async fn run(arguments: Restore) -> Result<(), Failure> {
    let config = read(&arguments.settings, Vec::new())?.config;
    if config.database.url.is_some() {
        return Err(Failure::config(
            "`database.url` is set: a database on PostgreSQL is restored by PostgreSQL's own tools; then run `postrider \
             deliveries hold` before a node starts (docs/backup-and-restore.md)",
        ));
    }
    let keyring = existing_keyring(&config)?;
    let sqlite =
        postrider_store_sqlite::Config { data_dir: config.server.data_dir.clone(), ..config.sqlite.clone() };
    let Restore { from, replace, .. } = arguments;
    // Reading every page of a large backup takes minutes.
    let _ = writeln!(std::io::stderr(), "copying and checking {} …", from.display());
    let restoring = tokio::task::spawn_blocking(move || restore(&sqlite, &keyring, &from, replace));
    match restoring.await {
        Ok(Ok(restored)) => print(&told(&restored)),
        Ok(Err(error)) if error.is_temporary() => Err(Failure::other(error.to_string())),
        Ok(Err(error)) => Err(Failure::config(error.to_string())),
        Err(panic) => Err(Failure::other(format!("the restore ended abnormally: {panic}"))),
    }
}

fn told(restored: &Restored) -> String {
    let Restored { backup, database, held, moved_aside } = restored;
    let of = match backup.taken_at.as_micros() {
        0 => "a copy of the database".to_owned(),
        _ => format!("the backup of {}", backup.taken_at.to_rfc3339()),
    };
    let aside = moved_aside.as_ref().map_or_else(String::new, |path| {
        format!("The database that was there lies at {} now.\n", path.display())
    });
    format!(
        "Restored {of} (instance {}) to {}.\n{aside}\n{held} deliveries are on hold: some of them may have been sent after \
         the backup was made. Start the server; what is published from now on is delivered as usual. Then decide about \
         those on hold:\n\n  postrider deliveries status\n  postrider deliveries release   send all of them\n  postrider \
         deliveries drop      cancel those that were due before now\n  postrider deliveries retime    send all of them, \
         spread over some hours\n",
        backup.instance,
        database.display(),
    )
}
