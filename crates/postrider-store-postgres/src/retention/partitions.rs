//! Dropping whole weeks of the history: what would take millions of deletions is one file less. A week goes when
//! everything in it is too old and nothing in it is needed; a small one goes row by row, as that asks for no lock.

use super::{Mine, step};
use crate::{
    Shared,
    connection::Connection,
    failure::Failure,
    schema::{self, LOCK_MILLISECONDS, Old, PAUSE, TRIES, first_of},
    values::{at, rows},
    work::Work,
};
use postrider_store::retention::Cutoffs;
use std::sync::Arc;

/// Smaller partitions go row by row.
const WHOLE_BYTES: u64 = 16 * 1024 * 1024;
/// How long dropping may take once it has its lock, in milliseconds.
const DROP_MILLISECONDS: u32 = 2_000;

/// What dropping came to.
#[derive(Default)]
pub(super) struct Dropped {
    pub(super) attempts: u64,
    pub(super) messages: u64,
    /// Something stood in the way, to be tried again: then nothing of that kind is deleted row by row meanwhile.
    pub(super) attempts_wait: bool,
    pub(super) messages_wait: bool,
    /// There is more to clear away first.
    pub(super) more: bool,
}

/// Drops whole weeks that are too old.
pub(super) async fn drop_whole(
    shared: &Arc<Shared>,
    cutoffs: Cutoffs,
    batch: usize,
) -> Result<Dropped, Failure> {
    let mut dropped = Dropped::default();
    let connection = shared.reader().await?;
    let attempts = schema::old_partitions(&connection, cutoffs.attempts).await?;
    let messages = schema::old_partitions(&connection, cutoffs.messages).await?;
    drop(connection);
    for old in attempts.iter().filter(|old| old.table == "attempt" && old.bytes >= WHOLE_BYTES) {
        match drop_week(shared, old.week, &["attempt"]).await? {
            Ended::Dropped => dropped.attempts += old.rows,
            Ended::Needed => {}
            Ended::Busy => dropped.attempts_wait = true,
        }
    }
    for week in large_weeks(&messages) {
        if !clear(shared, week, batch).await? {
            (dropped.more, dropped.messages_wait) = (true, true);
            break;
        }
        match drop_week(shared, week, &["message", "delivery"]).await? {
            Ended::Dropped => {
                let of = |old: &&Old| old.week == week && old.table == "message";
                dropped.messages += messages.iter().filter(of).map(|old| old.rows).sum::<u64>();
            }
            Ended::Needed => {}
            Ended::Busy => dropped.messages_wait = true,
        }
    }
    Ok(dropped)
}

/// Weeks whose messages and deliveries take much room.
fn large_weeks(old: &[Old]) -> Vec<i64> {
    let mut weeks: Vec<i64> = old.iter().filter(|old| old.table != "attempt").map(|old| old.week).collect();
    weeks.sort_unstable();
    weeks.dedup();
    let bytes = |week: i64| -> u64 {
        old.iter().filter(|old| old.table != "attempt" && old.week == week).map(|old| old.bytes).sum()
    };
    weeks.retain(|week| bytes(*week) >= WHOLE_BYTES);
    weeks
}

enum Ended {
    Dropped,
    /// Something of it waits to be sent.
    Needed,
    /// Somebody reads these tables.
    Busy,
}

/// Drops these tables' partitions of a week, unless something in it is needed. The tables are waited for very shortly,
/// several times: others that want them stand in line behind.
async fn drop_week(
    shared: &Arc<Shared>,
    week: i64,
    tables: &'static [&'static str],
) -> Result<Ended, Failure> {
    for _ in 0..TRIES {
        let work = step(shared, move |work| Box::pin(async move { try_drop(work, week, tables).await }));
        match work.await {
            Ok(Mine::Done(1)) => {
                tracing::info!(week, ?tables, "a week of the history was dropped");
                return Ok(Ended::Dropped);
            }
            Ok(_) => return Ok(Ended::Needed),
            Err(failure) if failure.is_lock_timeout() => tokio::time::sleep(PAUSE).await,
            Err(failure) => return Err(failure),
        }
    }
    tracing::info!(
        week,
        ?tables,
        "a week of the history could not be dropped while something reads it; tried again"
    );
    Ok(Ended::Busy)
}

async fn try_drop(work: &mut Work, week: i64, tables: &[&str]) -> Result<u64, Failure> {
    let connection = &work.connection;
    if is_needed(connection, week, tables).await? {
        return Ok(0);
    }
    let names: Vec<String> = tables.iter().map(|table| format!("postrider.{table}")).collect();
    connection
        .run(&format!(
            "SET LOCAL lock_timeout = {LOCK_MILLISECONDS}; SET LOCAL statement_timeout = {DROP_MILLISECONDS};
             LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
            names.join(", ")
        ))
        .await?;
    // What was resent between the look and the lock stays.
    if is_needed(connection, week, tables).await? {
        return Ok(0);
    }
    for table in tables {
        connection.run(&format!("DROP TABLE IF EXISTS postrider.{table}_w{week}")).await?;
    }
    Ok(1)
}

/// Does something wait to be sent whose rows are in there?
async fn is_needed(connection: &Connection, week: i64, tables: &[&str]) -> Result<bool, Failure> {
    let (from, to) = (first_of(week), first_of(week + 1));
    let row = if tables.contains(&"attempt") {
        // Attempts were made after their message was accepted, so in its week or a later one.
        let text = format!(
            "SELECT 1 FROM (SELECT DISTINCT message FROM pending WHERE message < $1) AS waiting
             WHERE EXISTS (SELECT 1 FROM postrider.attempt_w{week} AS made WHERE made.message = waiting.message) LIMIT 1"
        );
        connection.first_row(&text, &[&&to[..]]).await?
    } else {
        let text = "SELECT 1 FROM pending WHERE message >= $1 AND message < $2 LIMIT 1";
        connection.first_row(text, &[&&from[..], &&to[..]]).await?
    };
    Ok(row.is_some())
}

/// Deletes what belongs to the messages of a week and lies elsewhere: attempts that were made later, and event ids. Tells
/// whether nothing is left, or something of the week is needed.
async fn clear(shared: &Arc<Shared>, week: i64, batch: usize) -> Result<bool, Failure> {
    let work = step(shared, move |work| {
        Box::pin(async move {
            let connection = &work.connection;
            if is_needed(connection, week, &["message"]).await? {
                return Ok(0);
            }
            let (from, to) = (first_of(week), first_of(week + 1));
            let mut most = 0;
            for text in [
                "DELETE FROM attempt WHERE (message, endpoint, id) IN
                    (SELECT message, endpoint, id FROM attempt WHERE message >= $1 AND message < $2 LIMIT $3)",
                "DELETE FROM event_id WHERE (application, event_id) IN
                    (SELECT application, event_id FROM event_id WHERE message >= $1 AND message < $2 LIMIT $3)",
            ] {
                most = most.max(connection.execute(text, &[&&from[..], &&to[..], &rows(batch)]).await?);
            }
            Ok(most)
        })
    });
    Ok(match work.await? {
        Mine::Done(most) => most < batch as u64,
        Mine::Anothers => true,
    })
}

/// Drops partitions of the time before the cut that hold nothing any more.
pub(super) async fn drop_empty(work: &mut Work, cutoffs: Cutoffs) -> Result<u64, Failure> {
    let connection = &work.connection;
    let oldest = cutoffs.messages.min(cutoffs.attempts);
    connection.run(&format!("SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")).await?;
    for old in schema::old_partitions(connection, oldest).await? {
        let name = old.name();
        let look = format!("SELECT EXISTS (SELECT 1 FROM postrider.{name})");
        let full = connection.first_row(&look, &[]).await?.map(|row| at::<bool>(&row, 0)).transpose()?;
        if full == Some(false) {
            // Nothing comes into a week that has passed but by a clock that is wrong: looked at again under the lock.
            connection.run(&format!("LOCK TABLE postrider.{} IN ACCESS EXCLUSIVE MODE", old.table)).await?;
            let full = connection.first_row(&look, &[]).await?.map(|row| at::<bool>(&row, 0)).transpose()?;
            if full == Some(false) {
                connection.run(&format!("DROP TABLE postrider.{name}")).await?;
            }
        }
    }
    Ok(0)
}
