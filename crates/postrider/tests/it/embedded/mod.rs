//! What is about the file of the embedded store: on SQLite alone, so that a run on PostgreSQL skips `embedded::`.

mod backups;
mod file;
mod filling;
mod killed;
mod moving;

/// A process that a test starts has the database that is chosen.
fn on_sqlite() {
    let chosen = postrider_testing::Backend::chosen();
    assert_eq!(chosen, postrider_testing::Backend::Sqlite, "run with `--skip embedded::`");
}
