//! The partitions of the history: one for each week and table, made ahead of time.
//!
//! Making and dropping one needs its table alone for a moment. Whoever waits for that keeps everybody waiting who comes
//! after, so it is waited for very shortly, and tried again another time.

use crate::{
    connection::Connection,
    failure::Failure,
    values::{at, count},
};
use postrider_model::time::Timestamp;
use std::time::Duration;

/// Tables that are partitioned by the time that ids begin with.
const PARTITIONED: [&str; 3] = ["message", "delivery", "attempt"];
const WEEK: i64 = 7 * 24 * 3600;
/// Weeks that have their partitions in advance.
const WEEKS_AHEAD: i64 = 3;
/// How long one try waits for a table, in milliseconds: as long as the hot path may be kept waiting.
pub(crate) const LOCK_MILLISECONDS: u32 = 50;
/// How often it is tried in one go, and how long after each time.
pub(crate) const TRIES: u32 = 10;
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// The week of an instant, counted as ids count: since the epoch of KSUIDs.
fn week(at: Timestamp) -> i64 {
    let first = postrider_model::id::Ksuid::floor(at);
    let [a, b, c, d, ..] = *first.as_bytes();
    i64::from(u32::from_be_bytes([a, b, c, d])) / WEEK
}

/// What ids of a week begin with.
pub(crate) fn first_of(week: i64) -> [u8; 4] {
    u32::try_from(week * WEEK).unwrap_or(u32::MAX).to_be_bytes()
}

/// The same as a literal.
fn bound(week: i64) -> String {
    format!("'\\x{}'", crate::values::hex(&first_of(week)))
}

/// Makes the partitions of this week and the next ones that are not there. Rows that came before their partition lie in
/// the default one, where retention finds them too.
pub(crate) async fn make_partitions(connection: &Connection, now: Timestamp) -> Result<(), Failure> {
    let first = week(now);
    for week in first..first + WEEKS_AHEAD {
        for table in PARTITIONED {
            let name = format!("{table}_w{week}");
            let there = connection
                .first_row("SELECT 1 WHERE to_regclass('postrider.' || $1) IS NOT NULL", &[&name.as_str()])
                .await?;
            if there.is_some() {
                continue;
            }
            let (from, to) = (bound(week), bound(week + 1));
            // What lies in the default partition keeps the place: then its rows stay there. So does another node that
            // makes it at the same time.
            let make = format!(
                "BEGIN; SET LOCAL lock_timeout = {LOCK_MILLISECONDS};
                 CREATE TABLE postrider.{name} PARTITION OF postrider.{table} FOR VALUES FROM ({from}) TO ({to});
                 COMMIT"
            );
            if let Err(failure) = connection.run_long(&make).await {
                connection.run("ROLLBACK").await?;
                let error = postrider_store::StoreError::from(failure);
                tracing::debug!(%error, name, "a partition could not be made now");
            }
        }
    }
    Ok(())
}

/// A partition that holds only ids of before a cut.
pub(crate) struct Old {
    pub(crate) table: String,
    pub(crate) week: i64,
    /// Bytes on disk, with indexes.
    pub(crate) bytes: u64,
    /// Rows, as the statistics have it.
    pub(crate) rows: u64,
}

impl Old {
    /// Its name.
    pub(crate) fn name(&self) -> String {
        format!("{}_w{}", self.table, self.week)
    }
}

/// Partitions that hold only ids before `cut`, oldest first.
pub(crate) async fn old_partitions(connection: &Connection, cut: Timestamp) -> Result<Vec<Old>, Failure> {
    let rows = connection
        .query(
            "SELECT parent.relname::text, child.relname::text, pg_total_relation_size(child.oid),
                greatest(child.reltuples, 0)::bigint
             FROM pg_inherits
             JOIN pg_class AS parent ON parent.oid = inhparent
             JOIN pg_class AS child ON child.oid = inhrelid
             WHERE parent.relnamespace = 'postrider'::regnamespace AND child.relkind = 'r'
               AND child.relname ~ '_w[0-9]+$'
             ORDER BY child.relname",
            &[],
        )
        .await?;
    let cut = week(cut);
    let mut old = Vec::new();
    for row in rows {
        let (table, name): (String, String) = (at(&row, 0)?, at(&row, 1)?);
        let week = name.rsplit_once("_w").and_then(|(_, week)| week.parse::<i64>().ok());
        if let Some(week) = week.filter(|week| *week < cut) {
            old.push(Old { table, week, bytes: count(at(&row, 2)?), rows: count(at(&row, 3)?) });
        }
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::id::Ksuid;

    #[test]
    fn a_partition_holds_the_ids_of_its_week() {
        let at = Timestamp::from_micros(1_795_000_000_123_456);
        let id = Ksuid::floor(at);
        let hex = crate::values::hex(id.as_bytes());
        let week = week(at);
        let inner = |text: String| text.trim_matches('\'').trim_start_matches("\\x").to_owned();
        assert!(inner(bound(week)) <= hex && hex < inner(bound(week + 1)), "{hex} in week {week}");
    }
}
