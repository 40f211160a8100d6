//! Gives the disk back what deleted records took, in steps that no commit notices.
//!
//! Some free pages stay: what comes in takes them up, and moving pages costs writes. The file itself is cut by the next
//! checkpoint.

use crate::{
    Shared,
    failure::Failure,
    writer::{Isolation, Scope},
};

/// Pages that one operation gives back: 1 MiB.
const STEP: i64 = 128;
/// Operations in a row; then others have their turn.
const STEPS: usize = 8;
/// Free pages that stay at least: 4 MiB.
const KEPT: i64 = 512;
/// This part of the pages may be free.
const KEPT_SHARE: i64 = 8;

/// A few steps; `true` when there is more to give back.
pub(crate) async fn give_back(shared: &Shared) -> Result<bool, Failure> {
    let mut surplus = shared.readers.read(surplus).await?;
    for _ in 0..STEPS {
        if surplus <= 0 {
            return Ok(false);
        }
        surplus = shared.write(Isolation::Own, step).await?;
    }
    Ok(surplus > 0)
}

/// Free pages beyond those that stay; none in a database that was made without this possibility.
fn surplus(connection: &rusqlite::Connection) -> Result<i64, Failure> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    if number("PRAGMA auto_vacuum")? != 2 {
        return Ok(0);
    }
    let kept = KEPT.max(number("PRAGMA page_count")? / KEPT_SHARE);
    Ok(number("PRAGMA freelist_count")? - kept)
}

fn step(work: &mut Scope<'_>) -> Result<i64, Failure> {
    let mut statement = work.connection.prepare_cached(&format!("PRAGMA incremental_vacuum({STEP})"))?;
    // Each row is a page.
    let mut pages = statement.query([])?;
    while pages.next()?.is_some() {}
    surplus(work.connection)
}
