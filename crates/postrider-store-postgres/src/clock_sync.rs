//! The database's clock: what all nodes schedule by. The store's clock shows it, as far as it is known.

use crate::{Shared, connection::Connection, failure::Failure, values::at};
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Smaller differences are the way there and back.
const TOLERANCE: i64 = 10_000;

/// By how much the store's clock was moved to show the database's, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Offset(AtomicI64);

/// Compares this machine's clock with the database's and moves the store's by the difference.
pub(crate) async fn compare(shared: &Shared, connection: &Connection) -> Result<(), Failure> {
    let text = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    connection.prepare(text).await?;
    let before = system();
    let row = connection.first_row(text, &[]).await?;
    let after = system();
    let Some(row) = row else { return Ok(()) };
    let theirs: i64 = at(&row, 0)?;
    let offset = theirs - (before + (after - before) / 2);
    let known = shared.offset.0.load(Ordering::Relaxed);
    let moved = offset - known;
    if moved.abs() <= TOLERANCE.max(after - before) {
        return Ok(());
    }
    shared.offset.0.store(offset, Ordering::Relaxed);
    let by = Duration::from_micros(moved.unsigned_abs());
    if moved > 0 {
        shared.clock.advance(by);
    } else {
        shared.clock.set_back(by);
    }
    tracing::info!(
        microseconds = offset,
        "the database's clock differs from this machine's; its time counts"
    );
    Ok(())
}

fn system() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "compared with the database's clock, not used as the time")]
    let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(system.as_micros()).unwrap_or(i64::MAX)
}
