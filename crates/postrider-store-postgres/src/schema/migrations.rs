//! Bringing the schema up to date: by one node at a time, each step a transaction, so that a kill undoes a step as a
//! whole and the next start goes on there. Which rules a step follows: `docs/decisions/0016-schema-changes.md`.

use super::{CONTRACTS, MIGRATIONS, known, lock};
use crate::{OpenError, address::APPLICATION, connection::Connection, failure::Failure, values::at};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// How long a node waits while another one migrates.
const WAIT: Duration = Duration::from_mins(10);
/// How often it looks whether that is done.
const LOOK: Duration = Duration::from_millis(200);
/// How long a step waits for a lock, in milliseconds: whoever comes after it for the same table waits as well.
const LOCK_MILLISECONDS: u32 = 500;
/// How often a step tries to get its locks.
const LOCK_TRIES: u32 = 60;

/// How far a database is.
struct Found {
    /// Steps that have run.
    done: BTreeSet<i64>,
    /// The oldest schema version whose releases can work with it.
    oldest: i64,
}

impl Found {
    fn version(&self) -> i64 {
        self.done.last().copied().unwrap_or(0)
    }

    /// Later than this release: may it go on all the same?
    fn judge(&self) -> Result<(), OpenError> {
        let (found, known) = (self.version(), known());
        if found <= known {
            return Ok(());
        }
        if self.oldest > known {
            return Err(OpenError::Newer { found, known });
        }
        tracing::info!(
            found,
            known,
            "a later release has migrated the database; this one goes on with it until it is replaced"
        );
        Ok(())
    }

    fn missing(&self) -> Option<(i64, &'static str, &'static str)> {
        let steps = (1_i64..).zip(MIGRATIONS).map(|(number, (name, text))| (number, name, text));
        steps.into_iter().find(|(number, ..)| !self.done.contains(number))
    }
}

async fn look(connection: &Connection) -> Result<Found, Failure> {
    let text = "SELECT to_regclass('postrider.schema_version') IS NOT NULL,
            EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('postrider.schema_version')
                AND attname = 'oldest' AND NOT attisdropped)";
    let row = connection.first_row(text, &[]).await?;
    let (there, tells) = row
        .map(|row| Ok::<_, Failure>((at::<bool>(&row, 0)?, at::<bool>(&row, 1)?)))
        .transpose()?
        .unwrap_or_default();
    if !there {
        return Ok(Found { done: BTreeSet::new(), oldest: 0 });
    }
    // What was written before the column was there is of this release or older.
    let oldest = if tells { "COALESCE(oldest, 0)" } else { "0::bigint" };
    let rows =
        connection.query(&format!("SELECT version, {oldest} FROM postrider.schema_version"), &[]).await?;
    let mut found = Found { done: BTreeSet::new(), oldest: 0 };
    for row in &rows {
        found.done.insert(at(row, 0)?);
        found.oldest = found.oldest.max(at(row, 1)?);
    }
    Ok(found)
}

/// Runs what is missing, unless another node does: then waits for it.
pub(super) async fn run(connection: &Connection) -> Result<(), OpenError> {
    let begun = Instant::now();
    let (mut waits, mut tries) = (false, 0);
    loop {
        let found = look(connection).await?;
        found.judge()?;
        let Some((number, name, text)) = found.missing().filter(|_| found.version() <= known()) else {
            return Ok(());
        };
        match step(connection, number, text).await {
            Ok(Step::Done) => {
                tries = 0;
                tracing::info!(migration = name, "the database schema was brought up to date");
            }
            Ok(Step::Busy) => {
                if !std::mem::replace(&mut waits, true) {
                    tracing::info!(
                        migration = name,
                        "another node brings the database schema up to date; this one waits"
                    );
                }
                if begun.elapsed() > WAIT {
                    return Err(OpenError::Migrating { minutes: WAIT.as_secs() / 60 });
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => {
                connection.run("ROLLBACK").await?;
                tries += 1;
                if !is_lock(&error) || tries >= LOCK_TRIES {
                    return Err(error);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

enum Step {
    Done,
    /// Another node is at it, or was and is done.
    Busy,
}

async fn step(connection: &Connection, number: i64, text: &str) -> Result<Step, OpenError> {
    connection
        .run(&format!("BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {LOCK_MILLISECONDS}"))
        .await?;
    let mine = connection.first_row("SELECT pg_try_advisory_xact_lock($1, 0)", &[&lock::SCHEMA]).await?;
    let mine = mine.map(|row| at::<bool>(&row, 0)).transpose()?.unwrap_or(false);
    if !mine || look(connection).await?.done.contains(&number) {
        connection.run("ROLLBACK").await?;
        return Ok(Step::Busy);
    }
    let oldest = CONTRACTS.iter().rev().find(|(at, _)| *at <= number).map_or(0, |(_, oldest)| *oldest);
    if CONTRACTS.iter().any(|(at, _)| *at == number) {
        nobody_older(connection, oldest).await?;
    }
    // Without the privilege to create schemas it is enough that somebody else made this one.
    let there = connection.first_row("SELECT 1 FROM pg_namespace WHERE nspname = 'postrider'", &[]).await?;
    if there.is_none() {
        connection.run("CREATE SCHEMA postrider").await?;
    }
    connection
        .run(
            "CREATE TABLE IF NOT EXISTS postrider.schema_version (version bigint NOT NULL);
             ALTER TABLE postrider.schema_version ADD COLUMN IF NOT EXISTS oldest bigint",
        )
        .await?;
    connection.run_long(text).await?;
    let write = "INSERT INTO postrider.schema_version (version, oldest) VALUES ($1, $2)";
    connection.execute(write, &[&number, &oldest]).await?;
    connection.run("COMMIT").await?;
    Ok(Step::Done)
}

/// A step that takes something away waits until no release works on the database that needs it.
async fn nobody_older(connection: &Connection, oldest: i64) -> Result<(), OpenError> {
    let rows = connection
        .query(
            "SELECT DISTINCT application_name FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE $1 || '%'",
            &[&APPLICATION],
        )
        .await?;
    for row in &rows {
        let name: String = at(row, 0)?;
        let version = name.strip_prefix(APPLICATION).and_then(|version| version.parse::<i64>().ok());
        if let Some(version) = version.filter(|version| *version < oldest) {
            return Err(OpenError::OlderRuns { version, oldest });
        }
    }
    Ok(())
}

/// A lock was not to be had in time: tried again.
fn is_lock(error: &OpenError) -> bool {
    matches!(error, OpenError::Store(postrider_store::StoreError::Unavailable { detail, .. }) if detail.contains("55P03"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::Address, connection::Use, testing::Place};

    /// MIG-5: a release before the last one may still run; what it needs is not taken away.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_running_release_needs_is_not_taken_away() {
        let place = Place::new().await.unwrap();
        let mut address = Address::parse(&place.config("node").url()).unwrap();
        address.name_schema(3);
        let connection = Connection::first(&address, Use::Reading).await.unwrap();
        nobody_older(&connection, 3).await.unwrap();
        address.name_schema(2);
        let older = Connection::first(&address, Use::Reading).await.unwrap();
        let error = nobody_older(&connection, 3).await.unwrap_err();
        assert!(matches!(error, OpenError::OlderRuns { version: 2, oldest: 3 }), "{error}");
        assert!(error.is_temporary());
        drop(older);
    }
}
